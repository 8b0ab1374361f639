package evaluate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

const (
	// closeFloor and closeCeiling bound how long after its end a minute closes,
	// and settle is how long nothing closes after a start (R20).
	closeFloor   = 30 * time.Second
	closeCeiling = 11 * time.Minute
	settle       = 2 * time.Minute
	// newestLag is how far the end of alert windows may lie behind now (R23).
	newestLag = 10 * time.Minute
	// lookback is how far before a minute raw samples are read to derive it
	// again: the hour before, whose median gap is the usual interval (R10),
	// beside the part of its own hour.
	lookback = time.Hour
	// rebuildEvery is the shortest time between two derivations of the same
	// objective, so that a sender that catches up cannot keep the evaluator
	// busy with reading.
	rebuildEvery = 10 * time.Second
	// batchEntries bounds the entries of one batch after a long stop.
	batchEntries = 50_000
	// maxRoutes bounds the series whose routes are remembered. Beyond it all
	// are forgotten and found again as their samples come.
	maxRoutes = 1_000_000
)

// Raw reads raw samples back.
type Raw interface {
	Querier(mint, maxt int64) (storage.Querier, error)
	// MinTime is the time of the oldest sample, false without any.
	MinTime() (time.Time, bool)
}

// Book is the ledger as the evaluator uses it.
type Book interface {
	reader
	Append(ledger.Batch) (ledger.Position, error)
	LastMinute(id sla.ID) (sla.Minute, bool)
	Minute(id sla.ID, m sla.Minute) (sla.Figures, bool, error)
	Sources(id sla.ID) ([]ledger.Source, error)
	Objectives(asOf uint64) ([]sla.Objective, error)
	Head() ledger.Position
}

// Config is what an Evaluator stands on.
type Config struct {
	Raw  Raw
	Book Book
	// Retention is how far back a series is looked for before its first sample
	// is taken for a baseline (R6).
	Retention time.Duration
	// Term is the writer's term (R25).
	Term uint64
	// Started is when this process began to receive: minutes that begin before
	// it are marked (R18), and none closes until two minutes after it (R20).
	Started  time.Time
	Log      *slog.Logger
	Registry prometheus.Registerer
	// Booked, if set, is called by Tick with what went into the book, revisions
	// included: the projection into the store hangs here. An error is logged,
	// no more: the projection can be made again from the book.
	Booked func(minutes []BookedMinute) error
}

// BookedMinute is a minute as the book holds it now, revisions included.
type BookedMinute struct {
	Objective sla.Objective
	Minute    sla.Minute
	Figures   sla.Figures
}

// Evaluator evaluates a set of objectives. Its methods may be called at the
// same time.
type Evaluator struct {
	cfg     Config
	metrics metrics

	mu         sync.Mutex
	objectives map[sla.ID]*objective
	routes     map[uint64][]*route // by series reference; nil where no objective wants it
	failed     map[sla.ID]string   // objectives that stopped themselves, and why
	fresh      []BookedMinute      // booked since the last call of cfg.Booked
}

// route leads from a series to one objective.
type route struct {
	objective *objective
	track     *track
}

type objective struct {
	def      sla.Objective
	matchers []roleMatchers
	tally    *tally
	tracks   map[string]*track // by the labels' string
	known    map[string]ledger.Source
	isNew    bool // not in the book yet, or changed since
	closed   sla.Minute
	windows  map[time.Duration]*window
	period   window
	rebuilt  time.Time
	// broken tells that the tally has let go of minutes that could not be
	// booked: nothing closes until they were derived again.
	broken bool
}

type roleMatchers struct {
	role     role
	matchers []*labels.Matcher
}

// alertWindows are the windows that the tiers need.
var alertWindows = func() []time.Duration {
	var ds []time.Duration
	for _, t := range sla.Tiers {
		ds = append(ds, t.Long, t.Short)
	}
	slices.Sort(ds)
	return slices.Compact(ds)
}()

// AlertWindows returns the lengths of the windows in a State, ascending.
func AlertWindows() []time.Duration { return slices.Clone(alertWindows) }

// New returns an evaluator without objectives.
func New(cfg Config) *Evaluator {
	return &Evaluator{
		cfg:        cfg,
		metrics:    newMetrics(cfg.Registry),
		objectives: map[sla.ID]*objective{},
		routes:     map[uint64][]*route{},
		failed:     map[sla.ID]string{},
	}
}

// SetObjectives replaces the set of objectives at `now`. Objectives that stay
// keep their state; a changed target or description is registered with the
// next batch; a new objective begins with the minute that holds now, or goes
// on where the book ends for it. One that cannot be set up stops itself and is
// told in the returned error; the others go on.
func (e *Evaluator) SetObjectives(ctx context.Context, defs []sla.Objective, now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	registered := map[sla.ID]sla.Objective{}
	booked, err := e.cfg.Book.Objectives(0)
	if err != nil {
		return fmt.Errorf("read the objectives of the ledger: %w", err)
	}
	for _, o := range booked {
		registered[o.ID] = o
	}
	next := map[sla.ID]*objective{}
	clear(e.failed)
	var errs []error
	for _, def := range defs {
		if next[def.ID] != nil {
			continue
		}
		o := e.objectives[def.ID]
		if o == nil {
			if o, err = e.newObjective(def, now); err == nil {
				next[def.ID] = o
				if err = e.rebuild(ctx, o, now); err == nil {
					err = e.loadWindows(o, now)
				}
			}
			if err != nil {
				delete(next, def.ID)
				e.failed[def.ID] = err.Error()
				errs = append(errs, fmt.Errorf("objective %s of SLO %s: %w", def.Name, def.SLO, err))
				continue
			}
		}
		changedPeriod := o.def.Window != def.Window
		o.def = def
		if old, ok := registered[def.ID]; !ok || !sameDefinition(old, def) {
			o.isNew = true
		}
		if changedPeriod {
			if err := e.loadWindows(o, now); err != nil {
				errs = append(errs, err)
			}
		}
		next[def.ID] = o
	}
	e.objectives = next
	clear(e.routes)
	return errors.Join(errs...)
}

func (e *Evaluator) newObjective(def sla.Objective, now time.Time) (*objective, error) {
	o := &objective{def: def, known: map[string]ledger.Source{}}
	for _, q := range []struct {
		role  role
		query string
	}{{roleGood, def.SLI.Good}, {roleBad, def.SLI.Bad}, {roleTotal, def.SLI.Total}} {
		if q.query == "" {
			continue
		}
		m, err := openslo.ParseCounter(q.query)
		if err != nil {
			return nil, err
		}
		o.matchers = append(o.matchers, roleMatchers{q.role, m})
	}
	o.closed = sla.MinuteOf(now) - 1
	if last, ok := e.cfg.Book.LastMinute(def.ID); ok {
		o.closed = last
	}
	sources, err := e.cfg.Book.Sources(def.ID)
	if err != nil {
		return nil, fmt.Errorf("read the sources of the ledger: %w", err)
	}
	for _, s := range sources {
		o.known[s.Key] = s
	}
	return o, nil
}

// Observe takes accepted samples, each once. It is the store's append hook.
func (e *Evaluator) Observe(batch []store.Sample) {
	e.mu.Lock()
	defer e.mu.Unlock()
	arrivals := map[*objective][]arrival{}
	for i := range batch {
		s := &batch[i]
		if s.H != nil || s.FH != nil {
			continue // native histograms feed no objective of raw counters
		}
		routes, ok := e.routes[s.Ref]
		if !ok {
			routes = e.route(s)
			if len(e.routes) >= maxRoutes {
				clear(e.routes)
			}
			e.routes[s.Ref] = routes
		}
		if len(routes) == 0 {
			continue
		}
		p, ok := e.point(s.ST, s.T, s.V)
		if !ok {
			continue
		}
		e.metrics.samples.Inc()
		for _, r := range routes {
			arrivals[r.objective] = append(arrivals[r.objective], arrival{r.track, p})
		}
	}
	for o, list := range arrivals {
		o.tally.observe(list)
	}
}

// point turns a sample into what is counted, and reports false for what is not
// a count.
func (e *Evaluator) point(st, t int64, v float64) (point, bool) {
	if value.IsStaleNaN(v) {
		return point{t: t, stale: true}, true
	}
	n, ok := micro(v)
	if !ok {
		e.metrics.refused.Inc()
		return point{}, false
	}
	return point{t: t, st: st, v: n}, true
}

// route finds the objectives that want a series (R1: once per series).
func (e *Evaluator) route(s *store.Sample) []*route {
	var routes []*route
	for _, o := range e.objectives {
		r := o.wants(s.Labels)
		if r == 0 {
			continue
		}
		key := s.Labels.String()
		tr := o.tracks[key]
		if tr == nil {
			tr = o.tally.track(sourceKey(s.Labels), s.Labels.Get(model.MetricNameLabel), r)
			o.tracks[key] = tr
			if p, ok := e.lastBefore(s.Labels, s.T); ok {
				tr.last, tr.known, tr.ended = p, true, true
			}
		}
		routes = append(routes, &route{o, tr})
	}
	return routes
}

// wants returns the roles of a series in the objective.
func (o *objective) wants(ls labels.Labels) role {
	var r role
	for _, rm := range o.matchers {
		if matches(rm.matchers, ls) {
			r |= rm.role
		}
	}
	return r
}

func matches(ms []*labels.Matcher, ls labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// sourceKey names the target of a series (R9).
func sourceKey(ls labels.Labels) string {
	return ls.Get("job") + "\x00" + ls.Get("instance") + "\x00" + ls.Get("cluster")
}

// oldest is the time of the oldest raw sample in milliseconds, the far future
// without any.
func (e *Evaluator) oldest() int64 {
	t, ok := e.cfg.Raw.MinTime()
	if !ok {
		return math.MaxInt64 / 2
	}
	return t.UnixMilli()
}

// lastBefore finds a series' last sample before t within the retention of raw
// samples (R6).
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
		if labels.Equal(got, ls) && len(ps) > 0 {
			last, found = ps[len(ps)-1], true
		}
	})
	if err != nil {
		e.cfg.Log.Warn("could not look for the earlier samples of a series; its first value is taken as a baseline", "series", ls.String(), "err", err)
		return point{}, false
	}
	return last, found && !last.stale
}

// read selects raw series and gives their points.
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
		var ps []point
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if kind != chunkenc.ValFloat {
				continue
			}
			t, v := it.At()
			if p, ok := e.point(it.AtST(), t, v); ok {
				ps = append(ps, p)
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read raw samples: %w", err)
		}
		fn(series.Labels(), ps)
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("read raw samples: %w", err)
	}
	return nil
}

// rebuild derives an objective's state from raw samples: its open minutes, and
// with them those closed ones that late samples have touched, whose differences
// are booked as revisions (R19, R21).
func (e *Evaluator) rebuild(ctx context.Context, o *objective, now time.Time) error {
	from := o.closed + 1
	if o.tally != nil && o.tally.needsAgain {
		from = min(from, max(o.tally.stale, sla.MinuteOfMillis(e.oldest())+1))
	}
	fresh := newTally(o.def.SLI.Bad != "", from-1)
	for key, s := range o.known {
		src := fresh.source(key)
		src.first, src.removed = s.First, s.Removed
	}
	tracks := map[string]*track{}
	begin := from.Time().Truncate(time.Hour).Add(-lookback).UnixMilli()
	end := now.Add(2 * time.Minute).UnixMilli() // R2 lets samples be 90 s ahead
	var batch []arrival
	for _, rm := range o.matchers {
		err := e.read(ctx, begin, end, rm.matchers, func(ls labels.Labels, ps []point) {
			key := ls.String()
			if tracks[key] != nil || len(ps) == 0 {
				return // found by the other role's query already
			}
			tr := fresh.track(sourceKey(ls), ls.Get(model.MetricNameLabel), o.wants(ls))
			tracks[key] = tr
			if ps[0].t > begin+timedFloor {
				if p, ok := e.lastBefore(ls, ps[0].t); ok {
					batch = append(batch, arrival{tr, p})
				}
			}
			for _, p := range ps {
				batch = append(batch, arrival{tr, p})
			}
		})
		if err != nil {
			return err
		}
	}
	fresh.observe(batch)
	fresh.needsAgain = false

	revisions, err := e.revisions(o, fresh, from)
	if err != nil {
		return err
	}
	if len(revisions) > 0 {
		sources := o.sourcesOf(fresh)
		if err := e.append(sources, nil, revisions, now); err != nil {
			return err
		}
		o.remember(sources)
		for _, r := range revisions {
			for _, w := range o.windows {
				w.revise(r.Minute, r.Figures)
			}
			o.period.revise(r.Minute, r.Figures)
		}
		e.metrics.revisions.WithLabelValues("late").Add(float64(len(revisions)))
	}
	for m := from; m <= o.closed; m++ {
		delete(fresh.minutes, m)
		for _, s := range fresh.sources {
			delete(s.seen, m)
		}
	}
	fresh.settled = o.closed
	o.tally, o.tracks, o.rebuilt, o.broken = fresh, tracks, now, false
	clear(e.routes)
	return nil
}

// remember notes sources that are in the book by now.
func (o *objective) remember(sources []ledger.Source) {
	for _, s := range sources {
		o.known[s.Key] = s
	}
}

// revisions compares the closed minutes from `from` on with the book.
func (e *Evaluator) revisions(o *objective, fresh *tally, from sla.Minute) ([]ledger.Entry, error) {
	var out []ledger.Entry
	if from > o.closed {
		return nil, nil
	}
	raw := sla.MinuteOfMillis(e.oldest())
	err := e.cfg.Book.Scan(o.def.ID, from, o.closed+1, 0, func(m sla.Minute, booked sla.Figures) error {
		if m <= raw {
			return nil // the raw samples do not reach back to all of it
		}
		derived := fresh.figures(m, o.def.AbsentBad, booked.Flags&sla.FlagNotReceiving == 0)
		if derived.Counted < booked.Counted {
			e.metrics.skipped.Inc() // this replica knows less than is booked (R21)
			return nil
		}
		diff := sla.Figures{Counts: derived.Counts.Sub(booked.Counts), Gaps: gapDifference(derived.Gaps, booked.Gaps), Flags: derived.Flags}
		if !diff.IsZero() || len(diff.Gaps) > 0 {
			out = append(out, ledger.Entry{Objective: o.def.ID, Minute: m, Figures: diff, Revision: true, Reason: "late samples", Author: "evaluator"})
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
	type edges struct{ from, to sla.Minute }
	sum := map[edges]sla.Gap{}
	add := func(gaps []sla.Gap, sign int64) {
		for _, g := range gaps {
			k := edges{g.From, g.To}
			d := sum[k]
			d.From, d.To = g.From, g.To
			d.GoodLow += sign * g.GoodLow
			d.GoodHigh += sign * g.GoodHigh
			d.Total += sign * g.Total
			sum[k] = d
		}
	}
	add(derived, 1)
	add(booked, -1)
	var out []sla.Gap
	for _, g := range sum {
		if g.GoodLow != 0 || g.GoodHigh != 0 || g.Total != 0 {
			out = append(out, g)
		}
	}
	sort.Slice(out, func(i, j int) bool { return lessGap(out[i], out[j]) })
	return out
}

// sourcesOf returns the sources that the book does not know yet, or knows with
// a later first sample.
func (o *objective) sourcesOf(y *tally) []ledger.Source {
	var out []ledger.Source
	for key, s := range y.sources {
		if s.first == 0 {
			continue
		}
		if k, ok := o.known[key]; !ok || s.first < k.First {
			out = append(out, ledger.Source{Objective: o.def.ID, Key: key, First: s.first, Removed: k.Removed, Reason: k.Reason})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

// Tick does what is due at now: derives again what late samples touched,
// closes minutes in one atomic batch, and moves the windows.
func (e *Evaluator) Tick(ctx context.Context, now time.Time) error {
	fresh, err := e.tick(ctx, now)
	if e.cfg.Booked != nil && len(fresh) > 0 {
		// Outside of the lock: what is copied comes back through Observe.
		if err := e.cfg.Booked(fresh); err != nil {
			e.cfg.Log.Warn("the ledger's minutes are booked, but could not be copied into the store for queries", "err", err)
		}
	}
	return err
}

func (e *Evaluator) tick(ctx context.Context, now time.Time) ([]BookedMinute, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, o := range e.ordered() {
		if o.tally.needsAgain && now.Sub(o.rebuilt) >= rebuildEvery {
			if err := e.rebuild(ctx, o, now); err != nil {
				errs = append(errs, fmt.Errorf("derive minutes of SLO %s again: %w", o.def.SLO, err))
			}
		}
	}
	if now.Sub(e.cfg.Started) >= settle {
		if err := e.closeDue(now); err != nil {
			errs = append(errs, err)
		}
	}
	for _, o := range e.objectives {
		if err := e.moveWindows(o, now); err != nil {
			errs = append(errs, fmt.Errorf("move the windows of SLO %s: %w", o.def.SLO, err))
		}
	}
	e.metrics.ticked(e, now)
	fresh := e.fresh
	e.fresh = nil
	return fresh, errors.Join(errs...)
}

// ordered returns the objectives in the order of their identity: batches are
// the same bytes on every run.
func (e *Evaluator) ordered() []*objective {
	list := make([]*objective, 0, len(e.objectives))
	for _, o := range e.objectives {
		list = append(list, o)
	}
	sort.Slice(list, func(i, j int) bool { return string(list[i].def.ID[:]) < string(list[j].def.ID[:]) })
	return list
}

// due returns the newest minute of an objective that may close at now (R20).
func (o *objective) due(now time.Time) sla.Minute {
	wait := 2 * time.Duration(o.tally.slowest(now.UnixMilli())) * time.Millisecond
	wait = min(max(wait, closeFloor), closeCeiling)
	return sla.MinuteOf(now.Add(-wait)) - 1
}

type closing struct {
	objective *objective
	entries   []ledger.Entry
	sources   []ledger.Source
}

// closeDue books every minute that is due, all objectives in one batch.
func (e *Evaluator) closeDue(now time.Time) error {
	for {
		var list []closing
		var sources []ledger.Source
		var definitions []sla.Objective
		var entries []ledger.Entry
		more := false
		for _, o := range e.ordered() {
			due := o.due(now)
			if o.broken || due <= o.closed && !o.isNew {
				continue
			}
			c := closing{objective: o, sources: o.sourcesOf(o.tally)}
			for m := o.closed + 1; m <= due; m++ {
				if len(entries)+len(c.entries) >= batchEntries {
					more = true
					break
				}
				receiving := !m.Time().Before(e.cfg.Started)
				f := o.tally.close(m, o.def.AbsentBad, receiving, now.UnixMilli())
				c.entries = append(c.entries, ledger.Entry{Objective: o.def.ID, Minute: m, Figures: f, Author: "evaluator"})
			}
			if o.isNew {
				definitions = append(definitions, o.def)
			}
			list = append(list, c)
			sources = append(sources, c.sources...)
			entries = append(entries, c.entries...)
		}
		if len(entries) == 0 && len(definitions) == 0 {
			return nil
		}
		if err := e.append(sources, definitions, entries, now); err != nil {
			// The tallies have let go of these minutes: they are derived again.
			for _, c := range list {
				if len(c.entries) > 0 {
					c.objective.broken, c.objective.rebuilt = true, time.Time{}
					c.objective.tally.again(c.objective.closed + 1)
				}
			}
			return err
		}
		for _, c := range list {
			o := c.objective
			o.isNew = false
			o.remember(c.sources)
			for _, en := range c.entries {
				o.closed = en.Minute
				for _, w := range o.windows {
					w.book(en.Minute, en.Figures)
				}
				o.period.book(en.Minute, en.Figures)
			}
			e.metrics.booked.Add(float64(len(c.entries)))
		}
		if !more {
			return nil
		}
	}
}

// append books a batch and notes it for the projection.
func (e *Evaluator) append(sources []ledger.Source, definitions []sla.Objective, entries []ledger.Entry, now time.Time) error {
	b := ledger.Batch{Term: e.cfg.Term, At: now.UnixMilli(), Objectives: definitions, Sources: sources, Entries: entries}
	if _, err := e.cfg.Book.Append(b); err != nil {
		e.metrics.failures.Inc()
		return fmt.Errorf("book a batch of %d minutes: %w", len(entries), err)
	}
	if e.cfg.Booked == nil {
		return nil
	}
	for _, en := range entries {
		o := e.objectives[en.Objective]
		if o == nil {
			continue
		}
		f := en.Figures
		if en.Revision {
			var err error
			if f, _, err = e.cfg.Book.Minute(en.Objective, en.Minute); err != nil {
				return fmt.Errorf("read a revised minute back: %w", err)
			}
		}
		e.fresh = append(e.fresh, BookedMinute{o.def, en.Minute, f})
	}
	return nil
}

// newest returns the minute that alert windows end with (R23): that of the
// newest sample, at most ten minutes before now. Where an absent sample is a
// bad event, a closed minute is as good as a sample: its absence was observed.
func (o *objective) newest(now time.Time) sla.Minute {
	m := sla.MinuteOfMillis(o.tally.newest)
	if o.def.AbsentBad {
		m = max(m, o.closed)
	}
	return min(max(m, sla.MinuteOf(now.Add(-newestLag))), sla.MinuteOf(now))
}

func (e *Evaluator) loadWindows(o *objective, now time.Time) error {
	end := o.closed + 1
	o.windows = map[time.Duration]*window{}
	for _, d := range alertWindows {
		w := &window{}
		if err := w.load(e.cfg.Book, o.def.ID, o.newest(now)-minutes(d)+1, end); err != nil {
			return err
		}
		o.windows[d] = w
	}
	start, _, err := o.def.Window.Bounds(o.newest(now))
	if err != nil {
		return err
	}
	return o.period.load(e.cfg.Book, o.def.ID, start, end)
}

func (e *Evaluator) moveWindows(o *objective, now time.Time) error {
	newest := o.newest(now)
	for d, w := range o.windows {
		if err := w.move(e.cfg.Book, o.def.ID, newest-minutes(d)+1); err != nil {
			return err
		}
	}
	start, _, err := o.def.Window.Bounds(newest)
	if err != nil {
		return err
	}
	return o.period.move(e.cfg.Book, o.def.ID, start)
}

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
		out = append(out, e.state(o, now))
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i].Objective, out[j].Objective
		return strings.Join([]string{a.Service, a.SLO, a.Name, a.ID.String()}, "\x00") < strings.Join([]string{b.Service, b.SLO, b.Name, b.ID.String()}, "\x00")
	})
	return out
}

func (e *Evaluator) state(o *objective, now time.Time) State {
	newest := o.newest(now)
	var open []minuteFigures
	for m, f := range o.tally.minutes {
		if m > o.closed {
			g := *f
			if m < sla.MinuteOf(now) {
				g.Expected, _ = o.tally.expected(m)
			} else {
				g.Expected = max(g.Counted, g.Timed) // the minute that now is in: not over
			}
			open = append(open, minuteFigures{m, g})
		}
	}
	s := State{
		Objective: o.def,
		Now:       now,
		Windows:   make(map[time.Duration]sla.Sum, len(o.windows)),
		Period:    o.period.with(open, newest),
		Closed:    (o.closed + 1).Time(),
	}
	if o.tally.newest > 0 {
		s.Newest = time.UnixMilli(o.tally.newest).UTC()
	}
	for d, w := range o.windows {
		s.Windows[d] = w.with(open, newest)
	}
	if start, end, err := o.def.Window.Bounds(newest); err == nil {
		s.PeriodStart, s.PeriodEnd = start.Time(), end.Time()
		s.PeriodLength = s.PeriodEnd.Sub(s.PeriodStart)
	}
	for _, src := range o.tally.sources {
		job, rest, _ := strings.Cut(src.key, "\x00")
		instance, cluster, _ := strings.Cut(rest, "\x00")
		st := SourceState{Job: job, Instance: instance, Cluster: cluster, First: time.UnixMilli(src.first).UTC()}
		if src.newest > 0 {
			st.Newest = time.UnixMilli(src.newest).UTC()
		}
		s.Sources = append(s.Sources, st)
	}
	sort.Slice(s.Sources, func(i, j int) bool { return s.Sources[i].Instance < s.Sources[j].Instance })
	return s
}

// Failed returns the objectives that stopped themselves, with the reason.
func (e *Evaluator) Failed() map[sla.ID]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[sla.ID]string{}
	for id, why := range e.failed {
		out[id] = why
	}
	return out
}

func sameDefinition(a, b sla.Objective) bool {
	return a.SpecSHA256 == b.SpecSHA256 && a.Target == b.Target && a.Window == b.Window && a.Title == b.Title &&
		a.Service == b.Service && a.Description == b.Description && a.Runbook == b.Runbook && a.AbsentBad == b.AbsentBad
}
