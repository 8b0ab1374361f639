package evaluate

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// sourcesOf returns what the book does not know yet of the sources: their first
// samples and removals.
func (o *objective) sourcesOf(y *tally) []ledger.Source {
	var out []ledger.Source
	for key, s := range y.sources {
		for i := range s.spells {
			sp := &s.spells[i]
			if sp.booked == sp.first && sp.told == sp.removed {
				continue
			}
			if sp.booked != 0 && sp.booked < sp.first {
				continue // the book knows it longer
			}
			out = append(out, ledger.Source{Objective: o.def.ID, Key: key, First: sp.first, Removed: sp.removed, Reason: sp.reason})
			if sp.booked > sp.first {
				// Known since later: that spell is part of this one.
				out = append(out, ledger.Source{Objective: o.def.ID, Key: key, First: sp.booked, Removed: sp.booked, Reason: "began earlier"})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Key != out[j].Key {
			return out[i].Key < out[j].Key
		}
		return out[i].First < out[j].First
	})
	return out
}

// remember notes sources that are in the book by now.
func remember(y *tally, sources []ledger.Source) {
	for _, b := range sources {
		s := y.sources[b.Key]
		if s == nil {
			continue
		}
		for i := range s.spells {
			if s.spells[i].first == b.First {
				s.spells[i].booked, s.spells[i].told = b.First, b.Removed
			}
		}
	}
}

// due returns the newest minute of an objective that may close at now (R20).
func (o *objective) due(now time.Time) sla.Minute {
	wait := 2 * time.Duration(o.tally.slowest(now.UnixMilli())) * time.Millisecond
	wait = min(max(wait, closeFloor), closeCeiling)
	return sla.MinuteOf(now.Add(-wait)) - 1
}

// bookNews books what must be known from the beginning on: definitions and
// marks.
func (e *Evaluator) bookNews(now time.Time) error {
	var definitions []sla.Objective
	for _, o := range e.ordered() {
		if o.isNew {
			definitions = append(definitions, o.def)
		}
	}
	if len(definitions) == 0 && len(e.marks) == 0 {
		return nil
	}
	if err := e.append(nil, definitions, nil, now); err != nil {
		return err
	}
	for _, o := range e.ordered() {
		o.isNew = false
	}
	return nil
}

type closing struct {
	objective *objective
	tally     *tally
	entries   []ledger.Entry
	sources   []ledger.Source
}

// closeDue books every minute that is due, all objectives in one batch (R20).
func (e *Evaluator) closeDue(ctx context.Context, now time.Time) error {
	for {
		var list []closing
		b := ledger.Batch{Marks: e.marks}
		more := false
		for _, o := range e.ordered() {
			if !o.isNew && (o.closed + 2).Time().Add(closeFloor).After(now) {
				continue // the usual case, without a look at the sources
			}
			due := o.due(now)
			if due <= o.closed && !o.isNew || o.isDerived() {
				continue
			}
			if len(b.Entries) >= batchEntries {
				more = true
				break
			}
			c, rest, err := e.closeObjective(ctx, o, due, now)
			if err != nil {
				return fmt.Errorf("close the minutes of SLO %s: %w", o.def.SLO, err)
			}
			more = more || rest
			if o.isNew {
				b.Objectives = append(b.Objectives, o.def)
			}
			list = append(list, c)
			b.Sources = append(b.Sources, c.sources...)
			b.Entries = append(b.Entries, c.entries...)
		}
		list, err := e.closeDerived(list, &b)
		if err != nil {
			return err
		}
		if len(b.Entries) == 0 && len(b.Objectives) == 0 && len(b.Marks) == 0 {
			return nil
		}
		// On an error the tallies have let go of these minutes: what lies
		// between closed and settled is derived again from raw samples.
		if err := e.append(b.Sources, b.Objectives, b.Entries, now); err != nil {
			return err
		}
		for _, c := range list {
			o := c.objective
			o.isNew, o.changed = false, true
			remember(c.tally, c.sources)
			if c.tally != o.tally {
				remember(o.tally, c.sources)
			}
			for i := range c.entries {
				en := &c.entries[i]
				o.closed = en.Minute
				o.hear(en.Minute, &en.Figures)
				o.recent.add(en.Minute, &en.Figures)
				n := &o.newly[en.Minute%newlyMinutes]
				n.minute, n.counts = en.Minute, en.Figures.Counts
				for w := range o.windows {
					o.windows[w].book(en.Minute, &en.Figures)
				}
				o.period.book(en.Minute, &en.Figures)
			}
			if len(c.entries) > 0 {
				o.older.forgetFrom(c.entries[0].Minute)
			}
			e.metrics.booked.Add(float64(len(c.entries)))
		}
		if !more {
			return nil
		}
	}
}

// closeObjective takes the minutes that are due out of an objective's tally. It
// reports whether more are due.
func (e *Evaluator) closeObjective(ctx context.Context, o *objective, due sla.Minute, now time.Time) (c closing, more bool, err error) {
	c = closing{objective: o, tally: o.tally}
	to := min(due, o.closed+chunk)
	entry := func(m sla.Minute, f sla.Figures) {
		c.entries = append(c.entries, ledger.Entry{Objective: o.def.ID, Minute: m, Figures: f, Author: "evaluator"})
	}
	switch {
	case o.sampled:
		for m := o.closed + 1; m <= to; m++ {
			f, err := e.sampleMinute(ctx, o, m)
			if e.stuck(o, err); err != nil {
				if ctx.Err() != nil {
					return c, false, err
				}
				if now.Sub((m + 1).Time()) < closeCeiling {
					to, due = m-1, m-1 // it is tried again
					break
				}
				// It will not be known any more: expected, and not counted.
				f = sla.Figures{Flags: sla.FlagSampled, Counts: sla.Counts{Expected: sla.MinuteMillis}}
			}
			entry(m, f)
		}
		o.tally.drop(max(to, o.closed))
	case o.closed < min(o.tally.settled, due):
		// Minutes that no tally holds: those of a stop, or of a batch that could
		// not be booked.
		to = min(to, o.tally.settled)
		d, err := e.derive(ctx, o, o.closed+1, to)
		if err != nil {
			return c, false, err
		}
		c.tally = d.tally
		for m := o.closed + 1; m <= to; m++ {
			entry(m, d.tally.close(o.def.AbsentBad, e.receiving(m), min(now.UnixMilli(), (m+1).Millis()+int64(lookahead/time.Millisecond))))
		}
	default:
		o.tally.settleWaiting()
		o.tally.forget()
		for m := o.closed + 1; m <= to; m++ {
			entry(m, o.tally.close(o.def.AbsentBad, e.receiving(m), now.UnixMilli()))
		}
	}
	c.sources = o.sourcesOf(c.tally)
	return c, to < due, nil
}

// stuck notes that an objective's expression cannot be evaluated, which is its own
// trouble: the others go on.
func (e *Evaluator) stuck(o *objective, err error) {
	why := ""
	if err != nil {
		why = err.Error()
		e.metrics.failures.Inc()
	}
	if why != "" && o.trouble == "" {
		e.cfg.Log.Warn("an objective's query fails: its minutes wait for it, and are booked as not counted after some time", "slo", o.def.SLO, "objective", o.def.Name, "err", err)
	}
	o.trouble = why
}

// sampleMinute evaluates an objective's expressions at the end of a minute
// (R8). A good expression without a value is no good event; without a value of
// all events the minute was not counted.
func (e *Evaluator) sampleMinute(ctx context.Context, o *objective, m sla.Minute) (sla.Figures, error) {
	f := sla.Figures{Flags: sla.FlagSampled}
	f.Expected = sla.MinuteMillis
	if !e.receiving(m) {
		f.Flags |= sla.FlagNotReceiving
	}
	var ev events
	for _, q := range o.queries {
		// A sample on the edge belongs to the next minute.
		values, err := e.evaluate(ctx, q.Expr, (m + 1).Time().Add(-time.Millisecond))
		if err != nil {
			return f, err
		}
		if o.observe != nil {
			good, total, refused := o.observe(values)
			e.metrics.refused.Add(float64(refused))
			if total > 0 {
				f.GoodLow, f.GoodHigh, f.Total = good, good, total
				f.Counted, f.Timed = sla.MinuteMillis, sla.MinuteMillis
			}
			return f, nil
		}
		v, ok := sum(values)
		if q.role == roleTotal && !ok {
			return f, nil
		}
		n, fits := micro(max(0, v) * 60)
		if !fits {
			e.metrics.refused.Inc()
			return f, nil
		}
		switch q.role {
		case roleGood:
			ev.low, ev.high = n, n
		case roleBad:
			ev.bad = n
		case roleTotal:
			ev.total = n
		}
	}
	f.Counted, f.Timed = sla.MinuteMillis, sla.MinuteMillis
	if o.def.SLI.Bad != "" {
		ev.low, ev.high = ev.total-ev.bad, ev.total-ev.bad
	}
	f.Total = ev.total
	f.GoodLow, f.GoodHigh = min(ev.low, ev.total), min(ev.high, ev.total)
	return f, nil
}

// sum adds values up, false where there are none.
func sum(values []float64) (sum float64, ok bool) {
	for _, v := range values {
		sum += v
	}
	return sum, len(values) > 0
}

// evaluate returns an expression's values. NaN is none.
func (e *Evaluator) evaluate(ctx context.Context, expr string, at time.Time) (values []float64, err error) {
	if e.cfg.Query == nil {
		return nil, fmt.Errorf("evaluate %s: nothing here evaluates expressions, give a sum of rates of counters", expr)
	}
	v, err := e.cfg.Query(ctx, expr, at)
	if err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", strings.Join(strings.Fields(expr), " "), err)
	}
	switch v := v.(type) {
	case promql.Vector:
		for _, s := range v {
			if s.H == nil && s.F == s.F {
				values = append(values, s.F)
			}
		}
	case promql.Scalar:
		if v.V == v.V {
			values = append(values, v.V)
		}
	default:
		return nil, fmt.Errorf("evaluate %s: it gives a %s, and a number is needed", expr, parser.DocumentedType(v.Type()))
	}
	return values, nil
}

// append books a batch and notes it for the projection.
func (e *Evaluator) append(sources []ledger.Source, definitions []sla.Objective, entries []ledger.Entry, now time.Time) error {
	b := ledger.Batch{Term: e.cfg.Term, At: now.UnixMilli(), Objectives: definitions, Sources: sources, Entries: entries, Marks: e.marks}
	if _, err := e.cfg.Book.Append(b); err != nil {
		e.metrics.failures.Inc()
		return fmt.Errorf("book a batch of %d minutes: %w", len(entries), err)
	}
	e.marks = nil
	if e.cfg.Booked == nil {
		return nil
	}
	for _, en := range entries {
		o := e.objectives[en.Objective]
		if o == nil || o.def.Inner {
			continue
		}
		f := en.Figures
		if en.Revision {
			var err error
			if f, _, err = e.cfg.Book.Minute(en.Objective, en.Minute); err != nil {
				return fmt.Errorf("read a revised minute back: %w", err)
			}
		}
		e.fresh = append(e.fresh, BookedMinute{&o.def, en.Minute, f})
	}
	return nil
}
