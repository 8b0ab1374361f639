package evaluate

import (
	"math"
	"sort"
	"strings"
	"time"

	"nines/pkg/sla"
)

// State is one objective at a point in time.
type State struct {
	Objective sla.Objective
	Now       time.Time
	// Newest is the newest sample, zero where there was none.
	Newest time.Time
	// Windows are the alert windows by length: they end at Newest (R23).
	Windows map[time.Duration]sla.Sum
	// Period is the objective's own window, from PeriodStart to PeriodEnd.
	Period                 sla.Sum
	PeriodStart, PeriodEnd time.Time
	PeriodLength           time.Duration
	// Unseen tells that less than half of the newest minutes up to now was seen
	// without a removal that explains it (R17).
	Unseen bool
	// Sources are the targets that feed it and when each was last heard.
	Sources []SourceState
	// Closed is the end of the newest closed minute.
	Closed time.Time
}

// SourceState is one source of an objective.
type SourceState struct {
	Job, Instance, Cluster string
	First, Newest          time.Time
}

// States returns all objectives at now, in the order of service, SLO and name.
func (e *Evaluator) States(now time.Time) []State {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]State, 0, len(e.objectives))
	for _, o := range e.objectives {
		if !o.def.Inner {
			out = append(out, e.state(o, now))
		}
	}
	sortStates(out)
	return out
}

// Burning returns the objectives that an alert may be about at now: those of
// which a tier fires or that are unseen, and those that wanted asks for. It is
// cheap for the others, which are nearly all.
func (e *Evaluator) Burning(now time.Time, wanted func(sla.ID) bool) []State {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []State
	for _, o := range e.ordered() {
		if o.def.Inner {
			continue
		}
		if m := sla.MinuteOf(now); o.changed || o.judged != m {
			o.burning = e.burns(o, now)
			if o.absent || o.judged != m {
				o.absent = o.unseen(e, now)
			}
			o.changed, o.judged = false, m
		}
		if o.burning || o.absent || wanted(o.def.ID) {
			out = append(out, e.state(o, now))
		}
	}
	sortStates(out)
	return out
}

// Gauges is what the series of one objective show, rounded to floating point.
// A value that does not exist is NaN.
type Gauges struct {
	Objective           *sla.Objective
	Remaining, Coverage float64 // of the period
	// Burn and WindowCoverage are those of AlertWindows, in its order.
	Burn, WindowCoverage []float64
}

// Gauges calls fn for each objective. What it is given is good during the call.
func (e *Evaluator) Gauges(now time.Time, fn func(*Gauges)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := Gauges{Burn: make([]float64, len(alertWindows)), WindowCoverage: make([]float64, len(alertWindows))}
	for _, o := range e.ordered() {
		if o.def.Inner {
			continue
		}
		newest := o.newest(now)
		e.scratch = o.open(e.scratch[:0], now, true)
		g.Objective = &o.def
		budget, _ := o.def.Target.BudgetRat().Float64()
		period := o.period.with(e.scratch, newest)
		g.Remaining, g.Coverage = 1-errorRatio(&period)/budget, coverage(&period)
		for i := range alertWindows {
			sum := o.windows[i].with(e.scratch, newest)
			g.Burn[i], g.WindowCoverage[i] = errorRatio(&sum)/budget, coverage(&sum)
		}
		fn(&g)
	}
}

func errorRatio(s *sla.Sum) float64 {
	if s.Total.Sign() <= 0 {
		return math.NaN()
	}
	return s.Total.Sub(s.GoodHigh).Float64() / s.Total.Float64()
}

func coverage(s *sla.Sum) float64 {
	if s.Expected.Sign() <= 0 {
		return math.NaN()
	}
	return s.Counted.Float64() / s.Expected.Float64()
}

// Objectives returns the identities of all objectives that are evaluated.
func (e *Evaluator) Objectives() []sla.ID {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]sla.ID, 0, len(e.objectives))
	for _, o := range e.ordered() {
		out = append(out, o.def.ID)
	}
	return out
}

func sortStates(out []State) {
	sort.Slice(out, func(i, j int) bool {
		a, b := &out[i].Objective, &out[j].Objective
		return strings.Join([]string{a.Service, a.SLO, a.Name, a.Title, a.ID.String()}, "\x00") < strings.Join([]string{b.Service, b.SLO, b.Name, b.Title, b.ID.String()}, "\x00")
	})
}

// burns reports whether a tier fires. It is exact: floating point only settles
// what is far from a threshold.
func (e *Evaluator) burns(o *objective, now time.Time) bool {
	newest := o.newest(now)
	start, end, err := o.bounds(newest)
	if err != nil {
		return true
	}
	length := time.Duration(end-start) * time.Minute
	if l := &o.limits; l.length != length || l.target != o.def.Target {
		l.length, l.target = length, o.def.Target
		for i, t := range sla.Tiers {
			l.errors[i] = 2 // no ratio is above it
			if t.CanFire(o.def.Target, length) {
				limit := t.Threshold(length)
				l.errors[i], _ = limit.Mul(limit, o.def.Target.BudgetRat()).Float64()
			}
		}
	}
	e.scratch = o.open(e.scratch[:0], now, false)
	if len(o.def.Policies) > 0 {
		for _, p := range o.def.Policies {
			if w := o.window(p.Lookback); !p.Quiet && w.roughly(e.scratch, newest) > 0 && p.Firing(w.with(e.scratch, newest), o.def.Target) {
				return true
			}
		}
		return false
	}
	for i, t := range sla.Tiers {
		// A millionth part is far more than what rounding can hide.
		limit := o.limits.errors[i] * (1 - 1e-6)
		short := o.window(t.Short)
		if short.roughly(e.scratch, newest) < limit {
			continue
		}
		long := o.window(t.Long)
		if long.roughly(e.scratch, newest) < limit {
			continue
		}
		if t.Firing(long.with(e.scratch, newest), short.with(e.scratch, newest), o.def.Target, length) {
			return true
		}
	}
	return false
}

// limits are the error ratios above which the tiers fire, by their order.
type limits struct {
	length time.Duration
	target sla.Target
	errors [4]float64
}

// bounds returns the period that holds a minute. Those of a calendar are looked
// up once a period.
func (o *objective) bounds(m sla.Minute) (start, end sla.Minute, err error) {
	if o.def.Window.Rolling > 0 || m < o.periodStart || m >= o.periodEnd {
		start, end, err = o.def.Window.Bounds(m)
		o.periodStart, o.periodEnd = start, end
		return start, end, err
	}
	return o.periodStart, o.periodEnd, nil
}

// window returns an alert window by its length.
func (o *objective) window(d time.Duration) *window {
	for i := range o.lengths {
		if o.lengths[i] == d {
			return &o.windows[i]
		}
	}
	panic("no alert window is " + d.String() + " long")
}

// booked returns a minute that closed lately, nothing where it is not booked.
func (o *objective) booked(m sla.Minute) sla.Counts {
	if n := &o.newly[m%newlyMinutes]; n.minute == m {
		return n.counts
	}
	f, _ := o.recent.at(m)
	return f.Counts
}

// open appends the minutes that the windows do not hold as they are: the open
// ones up to now, with what is expected of them where that is asked for, and
// those that closed behind the newest sample, which no window holds (R23).
func (o *objective) open(out []minuteFigures, now time.Time, expected bool) []minuteFigures {
	current := sla.MinuteOf(now)
	for m := o.newest(now) + 1; m <= o.closed; m++ {
		out = append(out, minuteFigures{m, sla.Figures{Counts: o.booked(m)}})
	}
	for i := range o.tally.open {
		m := o.tally.settled + 1 + sla.Minute(i)
		if m <= o.closed {
			continue
		}
		f := o.tally.open[i]
		switch {
		case !expected:
		case m < current:
			f.Expected, _ = o.tally.expected(m)
		default:
			f.Expected = max(f.Counted, f.Timed) // the minute that now is in: not over
		}
		out = append(out, minuteFigures{m, f})
	}
	return out
}

const (
	// unseenWindow is the time up to now of which half must have been seen; with
	// sources that are scraped rarely it is unseenIntervals of their interval.
	unseenWindow    = 5 * time.Minute
	unseenIntervals = 3
)

// unseen reports whether less than half of the time up to now was seen (R17).
// It does not apply while the aggregator itself did not receive, and not to
// what comes with the program and was never seen here: that this host has no
// such thing is no news.
func (o *objective) unseen(e *Evaluator, now time.Time) bool {
	if o.isDerived() {
		return o.unseenParts(func(p *objective) bool { return p.unseen(e, now) })
	}
	if o.def.Shipped && len(o.tally.sources) == 0 {
		return false
	}
	span := max(unseenWindow, unseenIntervals*time.Duration(o.tally.slowest(now.UnixMilli()))*time.Millisecond)
	end := sla.MinuteOf(now)
	start := end - minutesIn(span)
	if start.Time().Before(o.born) || !e.receiving(start) || !e.receiving(end) {
		return false
	}
	var timed, expected int64
	for m := start; m < end; m++ {
		if m <= o.closed {
			c := o.booked(m)
			timed, expected = timed+c.Timed, expected+c.Expected
			continue
		}
		f := o.tally.at(m)
		x, _ := o.tally.expected(m)
		timed, expected = timed+f.Timed, expected+x
	}
	return expected > 0 && timed*2 < expected
}

func (e *Evaluator) state(o *objective, now time.Time) State {
	newest := o.newest(now)
	open := o.open(nil, now, true)
	s := State{
		Objective: o.def,
		Now:       now,
		Windows:   make(map[time.Duration]sla.Sum, len(o.windows)),
		Period:    o.period.with(open, newest),
		Closed:    (o.closed + 1).Time(),
		Unseen:    o.unseen(e, now),
	}
	heard := max(o.tally.newest, o.heard)
	for _, p := range o.parts {
		heard = max(heard, p.tally.newest, p.heard)
	}
	if heard > 0 {
		s.Newest = time.UnixMilli(heard).UTC()
	}
	for i, d := range o.lengths {
		s.Windows[d] = o.windows[i].with(open, newest)
	}
	if start, end, err := o.bounds(newest); err == nil {
		s.PeriodStart, s.PeriodEnd = start.Time(), end.Time()
		s.PeriodLength = s.PeriodEnd.Sub(s.PeriodStart)
	}
	for _, src := range o.tally.sources {
		n := len(src.spells)
		if n == 0 || src.spells[n-1].removed != 0 {
			continue
		}
		job, rest, _ := strings.Cut(src.key, "\x00")
		instance, cluster, _ := strings.Cut(rest, "\x00")
		st := SourceState{Job: job, Instance: instance, Cluster: cluster, First: time.UnixMilli(src.spells[n-1].first).UTC()}
		if src.newest > 0 {
			st.Newest = time.UnixMilli(src.newest).UTC()
		}
		s.Sources = append(s.Sources, st)
	}
	sort.Slice(s.Sources, func(i, j int) bool { return s.Sources[i].Instance < s.Sources[j].Instance })
	return s
}
