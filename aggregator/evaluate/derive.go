package evaluate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"nines/aggregator/ledger"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

const (
	// lookback is how far before the hour of a minute raw samples are read to
	// derive it again: the hour before, whose median gap is the usual interval
	// (R10).
	lookback = time.Hour
	// lookahead is how far behind a minute they are read: what a lagging series
	// is waited for, and the gaps that end soon after it.
	lookahead = 15 * time.Minute
	// chunk is how many minutes are derived at once: it bounds the memory of a
	// derivation.
	chunk = 4 * 60
	// farFuture ends a derivation that takes all there is.
	farFuture = sla.Minute(math.MaxInt64 / sla.MinuteMillis / 2)
)

// oldest is the time of the oldest raw sample in milliseconds, the far future
// without any.
func (e *Evaluator) oldest() int64 {
	t, ok := e.cfg.Raw.MinTime()
	if !ok {
		return math.MaxInt64 / 2
	}
	return t.UnixMilli()
}

// lastBefore finds a series' last counted sample before t within the retention
// of raw samples (R6).
func (e *Evaluator) lastBefore(ls labels.Labels, t int64) (point, bool) {
	from := max(t-e.cfg.Retention.Milliseconds(), e.oldest())
	if from >= t {
		return point{}, false
	}
	var ms []*labels.Matcher
	ls.Range(func(l labels.Label) {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
	var last point
	found := false
	err := e.read(context.Background(), from, t-1, ms, func(got labels.Labels, ps []point) {
		if n := len(ps); labels.Equal(got, ls) && n > 0 && (!found || ps[n-1].t > last.t) {
			last, found = ps[n-1], true
		}
	})
	if err != nil {
		e.cfg.Log.Warn("could not look for the earlier samples of a series; its first value is taken as a baseline", "series", ls.String(), "err", err)
		return point{}, false
	}
	return last, found && !last.stale
}

// ranThrough tells by process_start_time_seconds whether a source ran through
// (from, to] without a restart (R12).
func (e *Evaluator) ranThrough(key string, from, to int64) bool {
	ms := append(sourceMatchers(key), labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "process_start_time_seconds"))
	var before, after float64
	q, err := e.cfg.Raw.Querier(from-silentEnd, to)
	if err != nil {
		return false
	}
	defer q.Close()
	set := q.Select(context.Background(), false, &storage.SelectHints{Start: from - silentEnd, End: to}, ms...)
	for set.Next() {
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if kind != chunkenc.ValFloat {
				continue
			}
			t, v := it.At()
			switch {
			case value.IsStaleNaN(v):
			case t <= from:
				before = v
			default:
				after = v
			}
		}
	}
	return set.Err() == nil && before > 0 && before == after && int64(before*1000) <= from
}

// read selects raw series and gives their counted points, without the label
// of a replica (R7).
func (e *Evaluator) read(ctx context.Context, mint, maxt int64, ms []*labels.Matcher, fn func(labels.Labels, []point)) error {
	q, err := e.cfg.Raw.Querier(mint, maxt)
	if err != nil {
		return fmt.Errorf("open the store for reading: %w", err)
	}
	defer q.Close()
	set := q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt}, ms...)
	var it chunkenc.Iterator
	for set.Next() {
		series := set.At()
		it = series.Iterator(it)
		ls, p, replica := e.pairOf(series.Labels())
		var ps []point
		add := func(t, st int64, v float64, h *histogram.FloatHistogram) {
			if p != nil && p.at(t) != replica {
				return
			}
			var pt point
			if e.point(&pt, st, t, v, h) {
				pt.replica = replica
				ps = append(ps, pt)
			}
		}
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				t, v := it.At()
				add(t, it.AtST(), v, nil)
			case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
				t, h := it.AtFloatHistogram(nil)
				add(t, it.AtST(), h.Sum, h)
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read raw samples: %w", err)
		}
		fn(ls, ps)
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("read raw samples: %w", err)
	}
	return nil
}

// derived is the state of an objective as raw samples give it.
type derived struct {
	tally      *tally
	tracks     map[uint64]*track
	histograms map[uint64]*bucket
}

// derive counts an objective's minutes from `from` on out of raw samples, up to
// `to` and what is needed behind it. Live samples and samples that are read
// back pass the same tally.
func (e *Evaluator) derive(ctx context.Context, o *objective, from, to sla.Minute) (derived, error) {
	if to >= farFuture {
		return e.deriveUpTo(ctx, o, from, to, math.MaxInt64/2)
	}
	newest, _ := e.cfg.Raw.MaxTime()
	for ahead := lookahead; ; ahead *= 4 {
		end := (to + 1).Time().Add(ahead)
		d, err := e.deriveUpTo(ctx, o, from, to, end.UnixMilli())
		if err != nil || end.After(newest) || d.tally.decided(to) {
			return d, err
		}
	}
}

// decided reports whether nothing behind what was counted can change a minute:
// all sources that may come back were heard of again after it.
func (y *tally) decided(m sla.Minute) bool {
	for _, s := range y.list {
		if n := len(s.spells); n > 0 && s.spells[n-1].removed == 0 && s.reached < (m+1).Millis() {
			return false
		}
	}
	return true
}

// deriveUpTo is derive with the samples before a time.
func (e *Evaluator) deriveUpTo(ctx context.Context, o *objective, from, to sla.Minute, end int64) (derived, error) {
	fresh := &objective{
		def: o.def, queries: o.queries, family: o.family, tally: e.newTally(o, from-1),
		tracks: map[uint64]*track{}, histograms: map[uint64]*bucket{},
	}
	// What this derivation does to its samples was told when they came.
	fresh.tally.count = nil
	begin := from.Time().Truncate(time.Hour).Add(-lookback).UnixMilli()
	sources, err := e.cfg.Book.Sources(o.def.ID)
	if err != nil {
		return derived{}, fmt.Errorf("read the sources of the ledger: %w", err)
	}
	for _, s := range sources {
		if y := fresh.tally; y.began == 0 || s.First < y.began {
			y.began = s.First
		}
		if s.Removed != 0 && (s.Removed < begin || s.Removed == s.First) {
			continue // long gone, or a part of a time that began earlier
		}
		src := fresh.tally.source(s.Key)
		src.spells = append(src.spells, spell{first: s.First, removed: s.Removed, reason: s.Reason, booked: s.First, told: s.Removed})
		if old := o.tally; old != nil && old.sources[s.Key] != nil {
			// Heard before the time that is read: it is forgotten from there on.
			src.newest = min(old.sources[s.Key].newest, begin)
		}
	}
	type series struct {
		ls labels.Labels
		ps []point
	}
	var found []series
	for i := range o.queries {
		if o.queries[i].Kind == openslo.Expression {
			continue
		}
		err := e.read(ctx, begin, end, o.groupMatchers(o.queries[i].Matchers), func(ls labels.Labels, ps []point) {
			if len(ps) > 0 && (o.family == nil || o.family.holds(o, ls)) && fresh.join(ls) != nil {
				found = append(found, series{ls, ps})
			}
		})
		if err != nil {
			return derived{}, err
		}
	}
	// A series may be found by both queries, and by two replicas of one sender.
	var batch []arrival
	taken := map[*track]int{}
	for _, s := range found {
		tr := fresh.join(s.ls)
		if tr == nil || tr.role == 0 {
			continue // a bucket that lies farther from the threshold
		}
		if n := taken[tr]; n&(1<<s.ps[0].replica) != 0 {
			continue
		}
		taken[tr] |= 1 << s.ps[0].replica
		if s.ps[0].t > begin+timedFloor && !tr.known {
			if p, ok := e.lastBefore(s.ls, begin); ok {
				tr.goOn(p)
			}
		}
		for _, p := range s.ps {
			batch = append(batch, arrival{tr, p})
		}
	}
	fresh.tally.observe(batch)
	fresh.tally.needsAgain = false
	for _, src := range fresh.tally.list {
		src.late = 0
	}
	if to < farFuture {
		fresh.tally.settleWaiting()
	}
	return derived{fresh.tally, fresh.tracks, fresh.histograms}, nil
}

// groupMatchers narrows a selector to the objective's group.
func (o *objective) groupMatchers(ms []*labels.Matcher) []*labels.Matcher {
	if len(o.def.Group) == 0 {
		return ms
	}
	ms = slices.Clone(ms)
	for _, n := range o.family.def.GroupBy {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, n, o.def.Group[n]))
	}
	return ms
}

// observe takes samples of any series in the order of time, whatever the order
// of the batch.
func (y *tally) observe(batch []arrival) {
	slices.SortStableFunc(batch, func(a, b arrival) int { return cmp.Compare(a.point.t, b.point.t) })
	for i := 0; i < len(batch); {
		t := batch[i].point.t
		for ; i < len(batch) && batch[i].point.t == t; i++ {
			y.sample(batch[i].track, &batch[i].point)
		}
		y.settle()
	}
}

// adoptState replaces what an objective has counted by a derivation.
func (o *objective) adoptState(d derived) {
	for _, tr := range o.tracks {
		for ; tr != nil; tr = tr.next {
			tr.dead = true
		}
	}
	for _, tr := range d.tracks {
		for ; tr != nil; tr = tr.next {
			tr.objective = o
		}
	}
	for key, s := range d.tally.sources {
		if old := o.tally; old != nil && s.newest == 0 && old.sources[key] != nil {
			s.newest = old.sources[key].newest
		}
		if old := o.tally; old != nil && old.sources[key] != nil {
			s.resent = old.sources[key].resent
		}
	}
	o.tally, o.tracks, o.histograms = d.tally, d.tracks, d.histograms
}

// again derives the minutes that late samples touched, and books what differs
// as revisions (R21).
func (e *Evaluator) again(ctx context.Context, o *objective, now time.Time) error {
	stale, err := e.staleFrom(ctx, o)
	if err != nil {
		return err
	}
	from := min(o.closed+1, max(stale, e.rawFrom()))
	if o.closed-from > chunk {
		// Far back: a part now, the rest with the next ticks.
		to := from + chunk
		if err := e.correct(ctx, o, from, to, "late samples", now); err != nil {
			return err
		}
		o.tally.stale = to + 1
		for _, s := range o.tally.list {
			s.late = 0
		}
		return nil
	}
	d, err := e.derive(ctx, o, from, farFuture)
	if err != nil {
		return err
	}
	if err := e.revise(o, d.tally, from, o.closed, "late samples", now); err != nil {
		return err
	}
	d.tally.drop(o.closed)
	d.tally.count = e.metrics.rule
	o.adoptState(d)
	o.rebuilt, o.changed = now, true
	return nil
}

// correct derives closed minutes from raw samples and books what differs.
func (e *Evaluator) correct(ctx context.Context, o *objective, from, to sla.Minute, reason string, now time.Time) error {
	d, err := e.derive(ctx, o, from, to)
	if err != nil {
		return err
	}
	return e.revise(o, d.tally, from, to, reason, now)
}

// revise books the differences between a derivation and the book.
func (e *Evaluator) revise(o *objective, y *tally, from, to sla.Minute, reason string, now time.Time) error {
	revisions, err := e.revisions(o, y, from, min(to, o.closed), reason)
	if err != nil || len(revisions) == 0 {
		return err
	}
	follow, err := e.reviseDerived(o.def.ID, revisions, reason)
	if err != nil {
		return fmt.Errorf("derive what is made of it: %w", err)
	}
	revisions = append(revisions, follow...)
	sources := o.sourcesOf(y)
	if err := e.append(sources, nil, revisions, now); err != nil {
		return err
	}
	remember(y, sources)
	for _, r := range revisions {
		o := e.objectives[r.Objective]
		o.recent.revise(r.Minute, r.Figures)
		o.newly[r.Minute%newlyMinutes].minute = 0
		for i := range o.windows {
			o.windows[i].revise(r.Minute, r.Figures)
		}
		o.period.revise(r.Minute, r.Figures)
		o.older.forget()
		o.changed = true
	}
	e.metrics.revisions.WithLabelValues(reason).Add(float64(len(revisions)))
	return nil
}

// revisions compares the closed minutes [from, to] with the book.
func (e *Evaluator) revisions(o *objective, fresh *tally, from, to sla.Minute, reason string) ([]ledger.Entry, error) {
	var out []ledger.Entry
	to = min(to, from+maxOpen-1) // a derivation holds no more
	if from > to {
		return nil, nil
	}
	raw, oldest := e.rawFrom(), sla.MinuteOfMillis(e.oldest())
	err := e.cfg.Book.Scan(o.def.ID, from, to+1, 0, func(m sla.Minute, booked sla.Figures) error {
		ours := m >= e.origin.since
		if m < raw || !ours && m <= oldest {
			return nil // the raw samples do not reach back to all of it
		}
		if booked.Flags&sla.FlagReadBack != 0 {
			return nil // it was derived from samples of another store
		}
		derived := fresh.figures(m, o.def.AbsentBad, booked.Flags&sla.FlagNotReceiving == 0)
		if (!ours || reason == reasonRecheck) && derived.Counted < booked.Counted {
			// This store knows less than is booked (R21): it is another one, or it
			// was damaged, for no sample told of the slow pass.
			e.metrics.skipped.Inc()
			return nil
		}
		diff := sla.Figures{Counts: derived.Counts.Sub(booked.Counts), Gaps: gapDifference(derived.Gaps, booked.Gaps), Flags: derived.Flags}
		if !diff.IsZero() || len(diff.Gaps) > 0 || diff.Flags != booked.Flags {
			out = append(out, ledger.Entry{Objective: o.def.ID, Minute: m, Figures: diff, Revision: true, Reason: reason, Author: "evaluator"})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the booked minutes: %w", err)
	}
	return out, nil
}

// gapDifference returns derived − booked, gap by gap.
func gapDifference(derived, booked []sla.Gap) []sla.Gap {
	if len(derived) == 0 && len(booked) == 0 {
		return nil
	}
	minus := make([]sla.Gap, len(booked))
	for i, g := range booked {
		minus[i] = sla.Gap{From: g.From, To: g.To, GoodLow: -g.GoodLow, GoodHigh: -g.GoodHigh, Total: -g.Total}
	}
	return mergeGaps(derived, minus)
}

// checkEvery is how often the slow pass comes by at each objective, and what it
// derives again then; checkAfter is how old a minute is by then.
const (
	checkEvery = 6 * time.Hour
	// reasonRecheck is the reason of its revisions.
	reasonRecheck = "recheck"
	checkAfter    = time.Hour
)

// check is the slow pass: it derives hours that closed some time ago again from
// raw samples, some objectives a tick, and books what differs. On clean data
// that is nothing.
func (e *Evaluator) check(ctx context.Context, now time.Time) error {
	order := e.ordered()
	if len(order) == 0 || e.ticked.IsZero() {
		return nil
	}
	e.checkDebt += float64(len(order)) * now.Sub(e.ticked).Seconds() / checkEvery.Seconds()
	e.checkDebt = min(e.checkDebt, float64(len(order)))
	for ; e.checkDebt >= 1; e.checkDebt-- {
		o := order[e.checkNext%len(order)]
		e.checkNext++
		to := min(o.closed, sla.MinuteOf(now.Add(-checkAfter)))
		from := max(o.checked+1, to-maxOpen+1, e.rawFrom())
		if !o.isCounted() || o.tally.needsAgain || from > to {
			continue
		}
		if err := e.correct(ctx, o, from, to, reasonRecheck, now); err != nil {
			return fmt.Errorf("check minutes of SLO %s again: %w", o.def.SLO, err)
		}
		o.checked = to
		e.metrics.checked.Add(float64(to - from + 1))
	}
	return nil
}
