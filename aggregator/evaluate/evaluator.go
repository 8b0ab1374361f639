package evaluate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

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
	// rebuildEvery is the shortest time between two derivations of the same
	// objective, so that a sender that catches up cannot keep the evaluator
	// busy with reading.
	rebuildEvery = 10 * time.Second
	// batchEntries bounds the entries of one batch after a long stop.
	batchEntries = 50_000
	// maxPages bounds the series whose routes are remembered: 16 million.
	maxPages = 16_384
	// deafAfter is the time between two ticks from which on this process is
	// taken to have been stopped, and maxDeaf how many such times it remembers.
	deafAfter = time.Minute
	maxDeaf   = 100
	// markBegin is the kind of a mark of the book that says with which minute an
	// objective begins: it is kept through a stop before that minute closed.
	markBegin = "begin"
	// maxRefusals bounds the refused scrapes that are remembered.
	maxRefusals = 10_000
)

// Raw reads raw samples back.
type Raw interface {
	Querier(mint, maxt int64) (storage.Querier, error)
	// MinTime is the time of the oldest sample, false without any, and MaxTime
	// that of the newest one.
	MinTime() (time.Time, bool)
	MaxTime() (time.Time, bool)
	// ID names the store for as long as its samples are the same ones.
	ID() string
}

// Book is the ledger as the evaluator uses it.
type Book interface {
	Append(ledger.Batch) (ledger.Position, error)
	LastMinute(id sla.ID) (sla.Minute, bool)
	Minute(id sla.ID, m sla.Minute) (sla.Figures, bool, error)
	Scan(id sla.ID, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error
	Sum(id sla.ID, from, to sla.Minute, asOf uint64) (sla.Sum, error)
	Day(id sla.ID, day int64) (*ledger.Run, error)
	Gaps(id sla.ID, from, to sla.Minute) ([]sla.Gap, error)
	Sources(id sla.ID) ([]ledger.Source, error)
	Objectives(asOf uint64) ([]sla.Objective, error)
	Marks(kind string) ([]ledger.Mark, error)
	Head() ledger.Position
}

// Config is what an Evaluator stands on.
type Config struct {
	Raw  Raw
	Book Book
	// Query evaluates a PromQL expression (R8). Without it an objective with an
	// expression stops itself.
	Query func(ctx context.Context, expr string, at time.Time) (parser.Value, error)
	// Retention is how far back a series is looked for before its first sample
	// is taken for a baseline (R6).
	Retention time.Duration
	// Term is the writer's term (R25).
	Term uint64
	// Lease, if set, tells whether this process may write to the book at now:
	// it holds its lease for some time to come (R26). Without it the process
	// holds the book alone.
	Lease func(now time.Time) bool
	// Started is when this process began to receive: minutes that begin before
	// it are marked (R18), and none closes until two minutes after it (R20).
	Started time.Time
	// Unchecked leaves out the slow pass that derives closed hours again: for a
	// store of which no sample can have gone past Observe.
	Unchecked bool
	Log       *slog.Logger
	Registry  prometheus.Registerer
	// Booked, if set, is called by Tick with what went into the book, revisions
	// included: the projection into the store hangs here. An error is logged,
	// no more: the projection can be made again from the book.
	Booked func(minutes []BookedMinute) error
}

// BookedMinute is a minute as the book holds it now, revisions included.
type BookedMinute struct {
	Objective *sla.Objective
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
	order      []*objective // by identity; nil where it must be sorted again
	derived    []*objective // those made of others, parts first
	families   map[sla.ID]*family
	index      *index
	refs       *refs
	found      []*track // scratch of route
	pairs      map[string]*pair
	failed     map[sla.ID]string // objectives that stopped themselves, and why
	fresh      []BookedMinute    // booked since the last call of cfg.Booked
	marks      []ledger.Mark     // for the next batch
	touched    []*objective      // observed in the batch at work
	refusals   map[string][]int64
	begins     map[string]sla.Minute // first minutes of objectives, by identity
	ticked     time.Time
	deaf       []deafness
	checkNext  int
	checkDebt  float64
	scratch    []minuteFigures
	origin     origin
	readTo     map[string]int64 // objectives' minutes before it were read back, milliseconds
	lateness   lateness
}

// deafness is a time in which this process did not receive.
type deafness struct{ from, to sla.Minute }

// New returns an evaluator without objectives.
func New(cfg Config) *Evaluator {
	return &Evaluator{
		cfg:        cfg,
		metrics:    newMetrics(cfg.Registry),
		objectives: map[sla.ID]*objective{},
		families:   map[sla.ID]*family{},
		index:      newIndex(nil),
		refs:       newRefs(),
		failed:     map[sla.ID]string{},
		refusals:   map[string][]int64{},
		begins:     map[string]sla.Minute{},
		readTo:     map[string]int64{},
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
	if e.pairs == nil {
		e.pairs = map[string]*pair{}
		if err := e.loadPairs(); err != nil {
			return fmt.Errorf("read the elections of the ledger: %w", err)
		}
		if err := e.loadRefusals(); err != nil {
			return fmt.Errorf("read the refusals of the ledger: %w", err)
		}
		if err := e.loadOrigin(); err != nil {
			return fmt.Errorf("read the stores of the ledger: %w", err)
		}
		if err := e.loadReadBack(); err != nil {
			return fmt.Errorf("read the histories of the ledger: %w", err)
		}
		if err := e.loadLateness(); err != nil {
			return fmt.Errorf("read the late samples of the ledger: %w", err)
		}
	}
	begins, err := e.cfg.Book.Marks(markBegin)
	if err != nil {
		return fmt.Errorf("read the beginnings of objectives: %w", err)
	}
	for _, m := range begins {
		e.begins[m.Key] = sla.MinuteOfMillis(m.At)
	}
	registered := map[sla.ID]sla.Objective{}
	booked, err := e.cfg.Book.Objectives(0)
	if err != nil {
		return fmt.Errorf("read the objectives of the ledger: %w", err)
	}
	for _, o := range booked {
		registered[o.ID] = o
	}
	old, oldFamilies := e.objectives, e.families
	e.objectives, e.families, e.order = map[sla.ID]*objective{}, map[sla.ID]*family{}, nil
	clear(e.failed)
	var errs []error
	var selectors []selector
	fail := func(def sla.Objective, err error) {
		e.failed[def.ID] = err.Error()
		errs = append(errs, fmt.Errorf("objective %s of SLO %s: %w", def.Name, def.SLO, err))
	}
	// keep puts an objective in force that was evaluated before, or a new one.
	keep := func(def sla.Objective, f *family) *objective {
		o := old[def.ID]
		if o == nil {
			var err error
			if o, err = e.newObjective(def, sla.MinuteOf(now)-1, f); err == nil {
				o.born = now
				f.add(o) // what is read for it depends on its group
				if err = e.begin(ctx, o, now); err == nil {
					err = e.fillWindows(o, now)
				}
				if e.lateness.open && e.lateness.from <= o.closed && o.isCounted() {
					// It came before a stop: from which source is not known any more.
					o.tally.again(e.lateness.from)
					for _, s := range o.tally.list {
						s.late = (e.lateness.from + 1).Millis()
					}
				}
			}
			if err != nil {
				f.drop(o)
				fail(def, err)
				return nil
			}
		}
		changedPeriod := o.def.Window != def.Window
		if changedPeriod {
			o.periodStart, o.periodEnd = 0, 0
		}
		o.def, o.family, o.changed = def, f, true
		if was, ok := registered[def.ID]; !ok || !sameDefinition(was, def) {
			o.isNew = true
		}
		var err error
		switch {
		case o.setLengths(): // its alerts have changed
			err = e.fillWindows(o, now)
		case changedPeriod:
			err = e.fillPeriod(o, now)
		}
		if err != nil {
			fail(def, err)
			return nil
		}
		e.objectives[def.ID] = o
		return o
	}
	for _, def := range defs {
		if e.objectives[def.ID] != nil || e.families[def.ID] != nil {
			continue
		}
		if len(def.GroupBy) == 0 {
			if o := keep(def, nil); o != nil {
				for i := range o.queries {
					if o.queries[i].Kind != openslo.Expression {
						selectors = append(selectors, selector{objective: o, matchers: o.queries[i].Matchers})
					}
				}
			}
			continue
		}
		queries, sampled, err := parse(def)
		if err == nil && sampled {
			err = errors.New("an expression cannot be grouped: give sums of rates of counters, or one SLO a group")
		}
		if err != nil {
			fail(def, err)
			continue
		}
		f := &family{def: def, members: map[string]*objective{}}
		e.families[def.ID] = f
		for i := range queries {
			selectors = append(selectors, selector{family: f, matchers: queries[i].Matchers})
		}
		var members []sla.Objective
		other := false
		if was := oldFamilies[def.ID]; was != nil && slices.Equal(was.def.GroupBy, def.GroupBy) {
			for _, o := range was.members {
				members = append(members, def.ForGroup(o.def.Group))
			}
			other = was.other != nil
		} else {
			for _, b := range booked {
				// Those that were evaluated lately go on; older ones begin again
				// when a sample of theirs comes, with their history in the book.
				last, ok := e.cfg.Book.LastMinute(b.ID)
				if !ok || now.Sub(last.Time()) > retireAfter*time.Millisecond {
					continue
				}
				other = other || b.Other && def.ForOther().ID == b.ID
				if len(b.Group) == len(def.GroupBy) && def.ForGroup(b.Group).ID == b.ID && len(members) < f.max() {
					members = append(members, def.ForGroup(b.Group))
				}
			}
		}
		for _, m := range members {
			f.add(keep(m, f))
		}
		if other {
			// Last: it holds what no member does.
			f.add(keep(def.ForOther(), f))
		}
	}
	e.connect(fail)
	e.index = newIndex(selectors)
	e.refs = newRefs()
	return errors.Join(errs...)
}

// newObjective returns an objective without samples whose minutes begin behind
// closed, or behind the newest that the book has of it.
func (e *Evaluator) newObjective(def sla.Objective, closed sla.Minute, f *family) (*objective, error) {
	queries, sampled, err := parse(def)
	if err != nil {
		return nil, err
	}
	if sampled && e.cfg.Query == nil {
		return nil, errors.New("its query is an expression, which nothing here evaluates: give sums of rates of counters")
	}
	o := &objective{
		def: def, queries: queries, sampled: sampled, family: f,
		tracks: map[uint64]*track{}, histograms: map[uint64]*bucket{}, closed: closed,
	}
	if o.observe, err = observe(def.SLI); err != nil {
		return nil, err
	}
	o.setLengths()
	o.older = days{book: e.cfg.Book, id: def.ID}
	if last, ok := e.cfg.Book.LastMinute(def.ID); !ok {
		if begin, ok := e.begins[def.ID.String()]; ok && begin <= closed {
			o.closed = begin - 1 // it began before a stop that came before its first minute closed
		} else {
			e.marks = append(e.marks, ledger.Mark{Kind: markBegin, Key: def.ID.String(), At: (closed + 1).Millis()})
			e.begins[def.ID.String()] = closed + 1
		}
	} else if f == nil || closed-last < sla.Minute(retireAfter/sla.MinuteMillis) {
		o.closed = last
	}
	// What was stored just before a stop, and not counted, is found by the slow pass
	// if nobody sends it again.
	o.checked = o.closed - chunk
	o.resumed = o.closed
	o.tally = e.newTally(o, o.closed)
	return o, nil
}

// begin derives the open minutes of an objective from raw samples at a start
// (R19). What is older is derived when it is booked.
func (e *Evaluator) begin(ctx context.Context, o *objective, now time.Time) error {
	if !o.isCounted() {
		return nil
	}
	from := max(o.closed, sla.MinuteOf(now)-chunk) + 1
	d, err := e.derive(ctx, o, from, farFuture)
	if err != nil {
		return err
	}
	d.tally.count = e.metrics.rule
	o.adoptState(d)
	return nil
}

// Observe takes accepted samples, each once. It is the store's append hook.
func (e *Evaluator) Observe(batch []store.Sample) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// All series are routed before one is counted, so that the edges of a
	// histogram are known. This also fetches their tracks into the processor's
	// cache, many at once, which counting would wait for one by one.
	for i := range batch {
		s := &batch[i]
		if en := e.refs.get(s.Ref); !en.known() || en.stale() {
			e.refs.set(s.Ref, e.route(s))
		}
	}
	counted := 0
	var p point
	for i := range batch {
		s := &batch[i]
		en := e.refs.get(s.Ref)
		if en == unwanted || !en.known() {
			continue
		}
		var replica int16
		if m := en.more; m != nil {
			if m.up != "" && value.IsStaleNaN(s.V) {
				e.remove(m.up, s.T, "its target was removed from discovery")
			}
			if len(m.tracks) == 0 {
				continue
			}
			if m.pair != nil {
				takes, switched := m.pair.takes(m.replica, s.T)
				if switched {
					e.mark(m.pair)
				}
				if !takes {
					e.metrics.replica.Inc()
					continue
				}
			}
			replica = m.replica
		}
		fh := s.FH
		if s.H != nil {
			fh = s.H.ToFloat(nil)
		} else if fh != nil {
			fh = fh.Copy() // the store takes its own back
		}
		if !e.point(&p, s.ST, s.T, s.V, fh) {
			continue
		}
		p.replica = replica
		counted++
		if en.one != nil {
			e.count(en.one, &p)
			continue
		}
		for _, tr := range en.tracks {
			e.count(tr, &p)
		}
	}
	e.metrics.samples.Add(float64(counted))
	late := farFuture
	for i, o := range e.touched {
		o.dirty, o.changed = false, true
		o.tally.settle()
		if o.tally.needsAgain && o.tally.stale <= o.closed {
			late = min(late, o.tally.stale)
		}
		e.touched[i] = nil
	}
	e.touched = e.touched[:0]
	e.noteLate(late)
}

// count gives a track its sample.
func (e *Evaluator) count(tr *track, p *point) {
	if tr.role == 0 || (tr.native != nil) != (p.h != nil) && !p.stale {
		return
	}
	o := tr.objective
	o.tally.sample(tr, p)
	if !o.dirty {
		o.dirty = true
		e.touched = append(e.touched, o)
	}
}

// point makes p what a sample counts, and reports false for what is not a
// count. (It fills p in place: the copy of a result was a quarter of Observe.)
func (e *Evaluator) point(p *point, st, t int64, v float64, h *histogram.FloatHistogram) bool {
	p.t, p.st, p.v, p.replica, p.stale, p.h = t, 0, 0, 0, false, nil
	if h != nil {
		if value.IsStaleNaN(h.Sum) {
			p.stale = true
			return true
		}
		v = h.Count
	} else if value.IsStaleNaN(v) {
		p.stale = true
		return true
	}
	n, ok := micro(v)
	if !ok {
		e.metrics.refused.Inc()
		return false
	}
	p.st, p.v, p.h = st, n, h
	return true
}

// Removed tells that a source was taken away on purpose at a time (R14), for a
// reason that people read: a scale-down, a drained node. key is its job,
// instance and cluster with zero bytes between.
func (e *Evaluator) Removed(key string, at time.Time, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remove(key, at.UnixMilli(), reason)
}

func (e *Evaluator) remove(key string, t int64, reason string) {
	for _, o := range e.objectives {
		if s := o.tally.sources[key]; s != nil {
			o.tally.remove(s, t, reason)
			o.tally.settle()
			o.changed = true
			e.metrics.removed.Inc()
		}
	}
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
	e.listen(now)
	e.noteOldest()
	var errs []error
	if e.cfg.Lease == nil || e.cfg.Lease(now) {
		for _, o := range e.ordered() {
			if o.tally.needsAgain && o.isCounted() && now.Sub(o.rebuilt) >= rebuildEvery {
				if err := e.again(ctx, o, now); err != nil {
					errs = append(errs, fmt.Errorf("derive minutes of SLO %s again: %w", o.def.SLO, err))
				}
			}
		}
		if now.Sub(e.cfg.Started) < settle {
			if err := e.bookNews(now); err != nil {
				errs = append(errs, err)
			}
		} else {
			e.retire()
			if err := e.closeDue(ctx, now); err != nil {
				errs = append(errs, err)
			}
			if !e.cfg.Unchecked {
				if err := e.check(ctx, now); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	e.caughtUp(now)
	for _, o := range e.ordered() {
		if err := e.moveWindows(o, now); err != nil {
			errs = append(errs, fmt.Errorf("move the windows of SLO %s: %w", o.def.SLO, err))
		}
	}
	e.metrics.ticked(e, now)
	e.ticked = now
	fresh := e.fresh
	e.fresh = nil
	return fresh, errors.Join(errs...)
}

// listen notes the times in which this process did not run.
func (e *Evaluator) listen(now time.Time) {
	if !e.ticked.IsZero() && now.Sub(e.ticked) > deafAfter {
		e.deaf = append(e.deaf, deafness{sla.MinuteOf(e.ticked), sla.MinuteOf(now)})
		if len(e.deaf) > maxDeaf {
			e.deaf = slices.Delete(e.deaf, 0, 1)
		}
	}
}

// receiving reports whether this process received all of a minute (R18).
func (e *Evaluator) receiving(m sla.Minute) bool {
	if m.Time().Before(e.cfg.Started) {
		return false
	}
	for _, d := range e.deaf {
		if m >= d.from && m < d.to {
			return false
		}
	}
	return true
}

// ordered returns the objectives in the order of their identity: batches are
// the same bytes on every run.
func (e *Evaluator) ordered() []*objective {
	if e.order == nil {
		e.order = make([]*objective, 0, len(e.objectives))
		for _, o := range e.objectives {
			e.order = append(e.order, o)
		}
		slices.SortFunc(e.order, func(a, b *objective) int { return bytes.Compare(a.def.ID[:], b.def.ID[:]) })
	}
	return e.order
}

// fillWindows reads an objective's windows from the book.
func (e *Evaluator) fillWindows(o *objective, now time.Time) error {
	end := o.closed + 1
	o.recent = recent{}
	first := end - recentMinutes
	for day := first.Day(); day <= o.closed.Day(); day++ {
		run, err := e.cfg.Book.Day(o.def.ID, day)
		if err != nil {
			return fmt.Errorf("read a day of the ledger: %w", err)
		}
		for rd := run.Reader(); ; {
			m := rd.Minute()
			f, booked, ok := rd.Next()
			if !ok {
				break
			}
			if booked && m >= first && m < end {
				o.recent.add(m, f)
				o.hear(m, f)
			}
		}
	}
	newest := o.newest(now)
	for i, d := range o.lengths {
		if err := o.windows[i].fill(&o.recent, newest-minutesIn(d)+1, end); err != nil {
			return err
		}
	}
	return e.fillPeriod(o, now)
}

// fillPeriod reads the sum of an objective's own period from the book.
func (e *Evaluator) fillPeriod(o *objective, now time.Time) error {
	start, _, err := o.def.Window.Bounds(o.newest(now))
	if err != nil {
		return err
	}
	o.older.forget()
	return o.period.read(e.cfg.Book, o.def.ID, start, o.closed+1)
}

func (e *Evaluator) moveWindows(o *objective, now time.Time) error {
	newest := o.newest(now)
	if newest == o.moved {
		return nil
	}
	for i, d := range o.lengths {
		if err := o.windows[i].move(&o.recent, newest-minutesIn(d)+1); err != nil {
			return err
		}
	}
	start, _, err := o.bounds(newest)
	if err != nil {
		return err
	}
	if start > o.period.start && start-o.period.start > 1440 {
		// The edge of a calendar period, or the end of a long stop.
		if err := e.fillPeriod(o, now); err != nil {
			return err
		}
	} else {
		var from minutes = &o.older
		if o.closed-o.period.start < recentMinutes-chunkMinutes {
			from = &o.recent // what leaves is still in memory
		}
		if err := o.period.move(from, start); err != nil {
			return err
		}
	}
	o.moved, o.changed = newest, true
	return nil
}

// Failed returns the objectives that stopped themselves, and those whose
// expression cannot be evaluated at the moment, with the reason.
func (e *Evaluator) Failed() map[sla.ID]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[sla.ID]string{}
	for id, why := range e.failed {
		out[id] = why
	}
	for id, o := range e.objectives {
		if o.trouble != "" {
			out[id] = o.trouble
		}
	}
	return out
}

func sameDefinition(a, b sla.Objective) bool {
	return a.SpecSHA256 == b.SpecSHA256 && a.Target == b.Target && a.Window == b.Window && a.Title == b.Title &&
		a.Service == b.Service && a.Description == b.Description && a.Runbook == b.Runbook && a.AbsentBad == b.AbsentBad &&
		reflect.DeepEqual(a.Policies, b.Policies)
}
