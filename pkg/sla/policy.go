package sla

import (
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Policy is an alert of an objective's own, in the place of the Tiers: the burn
// rate over one window, compared with a threshold.
type Policy struct {
	Name     string `json:"name"`
	Severity string `json:"severity"`
	// Threshold is the burn rate as decimal text, above 0.
	Threshold string `json:"threshold"`
	// AtLeast tells that the threshold itself fires, too.
	AtLeast  bool          `json:"at_least,omitempty"`
	Lookback time.Duration `json:"lookback"` // whole minutes, up to 3 days
	// After is how long the burn must stay there before it fires.
	After time.Duration `json:"after,omitempty"`
	// Quiet tells that a breach is not told (alertWhenBreaching: false).
	Quiet bool `json:"quiet,omitempty"`
	// IgnoreNoData tells that nothing is told of an objective that is not seen.
	IgnoreNoData bool     `json:"ignore_no_data,omitempty"`
	Targets      []string `json:"targets,omitempty"` // whom to notify, for routes of Alertmanager
}

// Burn returns the threshold.
func (p Policy) Burn() (*big.Rat, error) {
	r, ok := new(big.Rat).SetString(p.Threshold)
	if !ok || r.Sign() <= 0 {
		return nil, fmt.Errorf("burn rate %q of alert policy %s: want a decimal number above 0", p.Threshold, p.Name)
	}
	return r, nil
}

// Firing reports whether the burn over the window is beyond the threshold.
func (p Policy) Firing(window Sum, target Target) bool {
	limit, err := p.Burn()
	burn := window.Burn(target)
	if err != nil || burn == nil {
		return false
	}
	c := burn.Cmp(limit)
	return c > 0 || p.AtLeast && c == 0
}

// CanFire reports whether a total outage is beyond the threshold: the burn is
// at most 1 ÷ (1 − target).
func (p Policy) CanFire(target Target) bool {
	limit, err := p.Burn()
	if err != nil || target.IsAll() || target.IsZero() {
		return false
	}
	c := new(big.Rat).Inv(target.BudgetRat()).Cmp(limit)
	return c > 0 || p.AtLeast && c == 0
}

// Alarm is what fires for an objective: one of the Tiers, or one of its own
// policies, whose one window is both Long and Short.
type Alarm struct {
	Name, Severity string
	Long, Short    time.Duration
	Threshold      *big.Rat // the burn rate
	After          time.Duration
	Targets        []string
	// Own tells that it is a policy of the objective.
	Own bool

	firing func(long, short Sum) bool
}

// Firing reports whether the burn of both windows is beyond the threshold. How
// long it has been there is for the caller to know (After).
func (a Alarm) Firing(windows map[time.Duration]Sum) bool {
	return a.firing(windows[a.Long], windows[a.Short])
}

// Alarms returns what can fire for the objective over a period: its own
// policies, or, where it has none, those of the Tiers that are not longer than
// the period and hold a slice of time, where it counts such.
func (o *Objective) Alarms(period time.Duration) (out []Alarm) {
	for _, p := range o.Policies {
		if limit, err := p.Burn(); err == nil && !p.Quiet && p.CanFire(o.Target) {
			out = append(out, Alarm{
				Name: p.Name, Severity: p.Severity, Long: p.Lookback, Short: p.Lookback, Threshold: limit, After: p.After, Targets: p.Targets, Own: true,
				firing: func(long, _ Sum) bool { return p.Firing(long, o.Target) },
			})
		}
	}
	if len(o.Policies) > 0 {
		return out
	}
	slice := time.Duration(0)
	if s := o.SLI.Slices; s != nil {
		slice = time.Duration(s.Minutes) * time.Minute
	}
	for _, t := range Tiers {
		if t.CanFire(o.Target, period) && t.Long <= period && t.Long >= slice {
			out = append(out, Alarm{
				Name: t.Name, Severity: t.Severity, Long: t.Long, Short: t.Short, Threshold: t.Threshold(period),
				firing: func(long, short Sum) bool { return t.Firing(long, short, o.Target, period) },
			})
		}
	}
	return out
}

// UnseenAlarm is the name of the alarm that an objective is not seen, beside those
// of tiers and policies.
const UnseenAlarm = "unseen"

// Unseen returns the severity of the alert that the objective is not seen, and
// whom to notify: page and nobody by name, or what its own policies say that ask
// for it.
func (o *Objective) Unseen() (severity string, targets []string) {
	severity = "page"
	first := true
	for _, p := range o.Policies {
		if p.IgnoreNoData {
			continue
		}
		if first {
			severity, first = p.Severity, false
		}
		for _, t := range p.Targets {
			if !slices.Contains(targets, t) {
				targets = append(targets, t)
			}
		}
	}
	return severity, targets
}

// WatchesUnseen reports whether it is told that nothing is seen of the
// objective: always, unless all of its own policies say otherwise.
func (o *Objective) WatchesUnseen() bool {
	for _, p := range o.Policies {
		if !p.IgnoreNoData {
			return true
		}
	}
	return len(o.Policies) == 0
}
