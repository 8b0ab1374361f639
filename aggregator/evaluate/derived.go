package evaluate

import (
	"errors"
	"fmt"
	"math/big"
	"slices"

	"nines/aggregator/ledger"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

// Some objectives are not counted from samples but from the minutes of others,
// their parts: time slices of events, and composites. Their minutes are booked
// in the same batch as those of their parts, and revised in the same batch, so
// that the book never holds one without the other.

// isDerived reports whether an objective is made of others.
func (o *objective) isDerived() bool { return len(o.def.SLI.Parts) > 0 }

// isCounted reports whether an objective is counted from samples: not by an
// expression, and not from others.
func (o *objective) isCounted() bool { return !o.sampled && !o.isDerived() }

// hear notes a booked minute of an objective that has no samples of its own.
func (o *objective) hear(m sla.Minute, f *sla.Figures) {
	if !o.isCounted() && f.Counted > 0 {
		o.heard = max(o.heard, (m + 1).Millis())
	}
}

// connect finds the parts of derived objectives and puts those in an order in
// which parts come first. One whose parts are not all evaluated stops itself.
func (e *Evaluator) connect(fail func(sla.Objective, error)) {
	e.derived = nil
	for _, o := range e.objectives {
		o.feeds = false
	}
	looking := map[sla.ID]bool{} // false: it was looked at
	var visit func(o *objective) error
	visit = func(o *objective) error {
		if now, ok := looking[o.def.ID]; ok {
			if now {
				return errors.New("it is a part of itself")
			}
			return nil
		}
		looking[o.def.ID] = true
		defer func() { looking[o.def.ID] = false }()
		o.parts = nil
		for _, p := range o.def.SLI.Parts {
			part := e.objectives[p.Objective]
			if part == nil {
				return fmt.Errorf("its part %s is not evaluated", p.Name)
			}
			if part.isDerived() {
				if err := visit(part); err != nil {
					return err
				}
			}
			part.feeds = true
			o.parts = append(o.parts, part)
		}
		e.derived = append(e.derived, o)
		return nil
	}
	for _, o := range e.ordered() {
		if !o.isDerived() {
			continue
		}
		if err := visit(o); err != nil {
			delete(e.objectives, o.def.ID)
			e.order = nil
			fail(o.def, err)
		}
	}
}

// overlay holds minutes that are about to be booked, by objective.
type overlay map[sla.ID]map[sla.Minute]sla.Figures

func (v overlay) set(id sla.ID, m sla.Minute, f sla.Figures) {
	if v[id] == nil {
		v[id] = map[sla.Minute]sla.Figures{}
	}
	v[id][m] = f
}

// booked calls fn for the minutes of an objective that the book holds, or will.
func (e *Evaluator) booked(v overlay, id sla.ID, from, to sla.Minute, fn func(sla.Minute, sla.Figures)) error {
	news := v[id]
	err := e.cfg.Book.Scan(id, from, to, 0, func(m sla.Minute, f sla.Figures) error {
		if _, ok := news[m]; !ok {
			fn(m, f)
		}
		return nil
	})
	for m, f := range news {
		if m >= from && m < to {
			fn(m, f)
		}
	}
	return err
}

// closeDerived appends the minutes of derived objectives that close with those
// of their parts in a batch.
func (e *Evaluator) closeDerived(list []closing, b *ledger.Batch) ([]closing, error) {
	if len(e.derived) == 0 {
		return list, nil
	}
	v := overlay{}
	closed := map[sla.ID]sla.Minute{}
	for i := range b.Entries {
		en := &b.Entries[i]
		if !e.objectives[en.Objective].feeds {
			continue
		}
		v.set(en.Objective, en.Minute, en.Figures)
		closed[en.Objective] = en.Minute
	}
	for _, o := range e.derived {
		to := o.closed + chunk
		for _, p := range o.parts {
			to = min(to, max(p.closed, closed[p.def.ID]))
		}
		if to <= o.closed && !o.isNew {
			continue
		}
		c := closing{objective: o, tally: o.tally}
		err := e.deriveMinutes(v, o, o.closed+1, to, func(m sla.Minute, f sla.Figures) {
			c.entries = append(c.entries, ledger.Entry{Objective: o.def.ID, Minute: m, Figures: f, Author: "evaluator"})
			v.set(o.def.ID, m, f)
			closed[o.def.ID] = m
		})
		if err != nil {
			return list, fmt.Errorf("close the minutes of SLO %s: %w", o.def.SLO, err)
		}
		o.tally.drop(max(to, o.closed))
		if o.isNew {
			b.Objectives = append(b.Objectives, o.def)
		}
		b.Entries = append(b.Entries, c.entries...)
		list = append(list, c)
	}
	return list, nil
}

// reviseDerived returns the revisions of derived objectives that follow from
// those of their parts.
func (e *Evaluator) reviseDerived(id sla.ID, revisions []ledger.Entry, reason string) ([]ledger.Entry, error) {
	if len(e.derived) == 0 || len(revisions) == 0 {
		return nil, nil
	}
	v := overlay{}
	first, last := revisions[0].Minute, revisions[0].Minute
	for _, r := range revisions {
		f, _, err := e.cfg.Book.Minute(id, r.Minute)
		if err != nil {
			return nil, fmt.Errorf("read a booked minute: %w", err)
		}
		f.Counts, f.Gaps, f.Flags = f.Counts.Add(r.Figures.Counts), mergeGaps(f.Gaps, r.Figures.Gaps), r.Figures.Flags
		v.set(id, r.Minute, f)
		first, last = min(first, r.Minute), max(last, r.Minute)
	}
	var out []ledger.Entry
	for _, o := range e.derived {
		if !slices.ContainsFunc(o.parts, func(p *objective) bool { return v[p.def.ID] != nil }) {
			continue
		}
		// Slices that hold a revised minute may change up to their end.
		length := o.sliceMinutes()
		from, to := sliceStart(first, length), min(sliceStart(last, length)+length-1, o.closed)
		var made []ledger.Entry
		var failed error
		err := e.deriveMinutes(v, o, from, to, func(m sla.Minute, f sla.Figures) {
			booked, ok, err := e.cfg.Book.Minute(o.def.ID, m)
			if failed = errors.Join(failed, err); err != nil || !ok {
				return // the minute is not booked: it began later
			}
			diff := sla.Figures{Counts: f.Counts.Sub(booked.Counts), Flags: f.Flags}
			if !diff.IsZero() || f.Flags != booked.Flags {
				made = append(made, ledger.Entry{Objective: o.def.ID, Minute: m, Figures: diff, Revision: true, Reason: reason, Author: "evaluator"})
				v.set(o.def.ID, m, f)
			}
		})
		if err = errors.Join(err, failed); err != nil {
			return nil, err
		}
		for _, r := range made {
			first, last = min(first, r.Minute), max(last, r.Minute)
		}
		out = append(out, made...)
	}
	return out, nil
}

// sliceMinutes is the length of an objective's slices, one minute without any.
func (o *objective) sliceMinutes() sla.Minute {
	if s := o.def.SLI.Slices; s != nil {
		return sla.Minute(s.Minutes)
	}
	return 1
}

// sliceStart is the first minute of the slice that holds a minute: slices tile
// the UTC day.
func sliceStart(m, length sla.Minute) sla.Minute {
	r := m % length
	if r < 0 {
		r += length
	}
	return m - r
}

// deriveMinutes gives the minutes [from, to] of a derived objective out of the
// booked ones of its parts, in order.
func (e *Evaluator) deriveMinutes(v overlay, o *objective, from, to sla.Minute, fn func(sla.Minute, sla.Figures)) error {
	if from > to {
		return nil
	}
	length := o.sliceMinutes()
	begin := sliceStart(from, length)
	if begin+length-1 > to {
		begin = from // no slice ends here, so that none is looked at whole
	}
	parts := make([][]sla.Figures, len(o.parts))
	for i, p := range o.parts {
		parts[i] = make([]sla.Figures, to-begin+1)
		err := e.booked(v, p.def.ID, begin, to+1, func(m sla.Minute, f sla.Figures) { parts[i][m-begin] = f })
		if err != nil {
			return fmt.Errorf("read the minutes of part %s: %w", o.def.SLI.Parts[i].Name, err)
		}
	}
	for m := from; m <= to; m++ {
		at := m - begin
		if len(parts) == 1 && o.def.SLI.Combine == "" {
			start := max(sliceStart(m, length)-begin, 0)
			fn(m, sliced(parts[0][start:at+1], o.def.SLI.Slices, m == sliceStart(m, length)+length-1))
			continue
		}
		start := at
		if m == sliceStart(m, length)+length-1 {
			start = max(sliceStart(m, length)-begin, 0)
		}
		now := make([]sla.Figures, len(parts))
		for i := range parts {
			now[i] = whole(parts[i][start : at+1])
		}
		fn(m, combined(now, o.def.SLI))
	}
	return nil
}

// sliced is the newest of the minutes of a slice so far. The slice counts in its
// last minute: as one that is good or bad, or with its ratio rounded down to a
// millionth. It is judged where at least half of its expected time was timed
// (R15, R17); else it is left out, and the coverage says so. One that was seen
// and in which nothing happened is good by its target, and has no ratio.
func sliced(minutes []sla.Figures, s *sla.Slices, last bool) sla.Figures {
	newest := minutes[len(minutes)-1]
	out := sla.Figures{IntervalMillis: newest.IntervalMillis, Flags: newest.Flags}
	out.Expected, out.Counted, out.Timed = newest.Expected, newest.Counted, newest.Timed
	if !last {
		return out
	}
	var low, high, total, timed, expected int64
	known := 0
	for i := range minutes {
		f := &minutes[i]
		low, high, total = low+f.GoodLow, high+f.GoodHigh, total+f.Total
		timed, expected = timed+f.Timed, expected+f.Expected
		if f.Expected > 0 {
			known++
		}
		out.Flags |= f.Flags
		for _, g := range f.Gaps {
			// Increments over a gap, which ends in this minute, belong to a slice
			// that holds all of it.
			if g.To-g.From <= sla.Minute(i) {
				low, high, total = low+g.GoodLow, high+g.GoodHigh, total+g.Total
			}
		}
	}
	// Before it began, and while all is removed, nothing is expected.
	if known*2 < len(minutes) || timed*2 < expected {
		return out
	}
	switch {
	case total <= 0 && s.Ratio:
		return out
	case total <= 0:
		low, high, total = 1, 1, 1
	}
	out.Total = sla.Micro
	if s.Ratio {
		out.GoodLow, out.GoodHigh = millionths(low, total), millionths(high, total)
		return out
	}
	out.GoodLow, out.GoodHigh = reaches(low, total, s.Target), reaches(high, total, s.Target)
	return out
}

// whole is the newest of some minutes, with the source time of all of them: what a
// slice says of a part is about all of its time.
func whole(minutes []sla.Figures) sla.Figures {
	f := minutes[len(minutes)-1]
	if len(minutes) == 1 {
		return f
	}
	f.Expected, f.Counted, f.Timed = 0, 0, 0
	for i := range minutes {
		f.Expected += minutes[i].Expected
		f.Counted += minutes[i].Timed // slices are judged by timed time (R15)
		f.Timed += minutes[i].Timed
	}
	return f
}

// millionths is good ÷ total in micro-events, rounded down, from 0 to 1.
func millionths(good, total int64) int64 {
	good = min(max(good, 0), total)
	q := new(big.Int).Mul(big.NewInt(good), big.NewInt(sla.Micro))
	return q.Quo(q, big.NewInt(total)).Int64()
}

// reaches is one event where good ÷ total is at least a target, else none.
func reaches(good, total int64, target sla.Target) int64 {
	if new(big.Rat).SetFrac64(good, total).Cmp(target.Rat()) >= 0 {
		return sla.Micro
	}
	return 0
}

// combined is one minute of a composite out of the minutes of its parts. Parts
// in which nothing happened have no say, and a minute in which none has one is
// left out. Expected is the minute itself; it is counted where the parts decide
// it: where all that were expected were counted, or, with all-of, one has failed
// already, with any-of, one has succeeded.
func combined(parts []sla.Figures, sli sla.SLI) sla.Figures {
	var out sla.Figures
	var expected, unseen bool
	var weights, lows, highs int64
	failed, failedHigh, reached, reachedHigh := false, false, false, false
	for i := range parts {
		f, p := &parts[i], &sli.Parts[i]
		out.Flags |= f.Flags
		out.IntervalMillis = max(out.IntervalMillis, f.IntervalMillis)
		if f.Expected > 0 {
			expected = true
			unseen = unseen || f.Counted*2 < f.Expected
		}
		if f.Total <= 0 {
			// It is scraped less often than once a minute: what happened in this
			// one, if anything, is in another.
			unseen = unseen || sli.Slices == nil && f.IntervalMillis > sla.MinuteMillis
			continue
		}
		weights += p.Weight
		lows += p.Weight * millionths(f.GoodLow, f.Total) / sla.Micro
		highs += p.Weight * millionths(f.GoodHigh, f.Total) / sla.Micro
		low, high := reaches(f.GoodLow, f.Total, p.Target) > 0, reaches(f.GoodHigh, f.Total, p.Target) > 0
		failed, failedHigh = failed || !low, failedHigh || !high
		reached, reachedHigh = reached || low, reachedHigh || high
	}
	if !expected {
		return out
	}
	out.Expected = sla.MinuteMillis
	decided := !unseen || sli.Combine == sla.AllOf && failedHigh || sli.Combine == sla.AnyOf && reached
	if !decided {
		return out
	}
	out.Counted, out.Timed = sla.MinuteMillis, sla.MinuteMillis
	if weights == 0 {
		return out
	}
	one := func(good bool) int64 {
		if good {
			return sla.Micro
		}
		return 0
	}
	out.Total = sla.Micro
	switch sli.Combine {
	case sla.AllOf:
		out.GoodLow, out.GoodHigh = one(!failed), one(!failedHigh)
	case sla.AnyOf:
		out.GoodLow, out.GoodHigh = one(reached), one(reachedHigh)
	default:
		out.GoodLow, out.GoodHigh = millionths(lows, weights), millionths(highs, weights)
	}
	return out
}

// unseenParts reports whether events that nothing else tells of are not seen.
func (o *objective) unseenParts(unseen func(*objective) bool) bool {
	return slices.ContainsFunc(o.parts, func(p *objective) bool { return p.def.Inner && unseen(p) })
}

// ratioNoise is far less than a ratio is booked with, and far more than the error
// of a quotient of two floating-point numbers.
const ratioNoise = 1e-9

// observation tells how an objective that is evaluated once a minute turns
// values into events, and how many of them are none.
type observation func(values []float64) (good, total int64, refused int)

// observe returns that of a raw ratio or of a value, nil for other indicators.
func observe(sli sla.SLI) (observation, error) {
	switch {
	case sli.Raw != "":
		return func(values []float64) (good, total int64, refused int) {
			for _, v := range values {
				switch { // what arithmetic in floating point makes of 0 and 1
				case v > 1 && v-1 < ratioNoise:
					v = 1
				case v < 0 && -v < ratioNoise:
					v = 0
				}
				n, fits := micro(v)
				if !fits || v > 1 {
					refused++ // no ratio
					continue
				}
				// Never rounded to the better side.
				exact := float64(n) / sla.Micro
				switch {
				case !sli.RawBad && exact > v:
					n--
				case sli.RawBad && exact < v:
					n++
				}
				if sli.RawBad {
					n = sla.Micro - n
				}
				good, total = good+n, total+sla.Micro
			}
			return good, total, refused
		}, nil
	case sli.Value != "":
		holds, err := openslo.Comparison(sli.Op, sli.Limit)
		if err != nil {
			return nil, err
		}
		return func(values []float64) (good, total int64, refused int) {
			for _, v := range values {
				if holds(v) {
					good += sla.Micro
				}
				total += sla.Micro
			}
			return good, total, 0
		}, nil
	}
	return nil, nil
}
