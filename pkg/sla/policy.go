package sla

import (
	"fmt"
	"math/big"
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
