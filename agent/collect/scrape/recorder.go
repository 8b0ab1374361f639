package scrape

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
)

// reportMark ends the family name of the samples that a loop writes about
// itself: it is no text, so that no page can hold such a name. It is taken off
// before the sink sees it.
const reportMark = "\xff"

// recorder stands between the loops and the sink: it keeps the newest samples
// and what became of each scrape, and lets nothing through once it is closed.
//
// A commit that the sink refuses loses that scrape: it is counted, and the next
// one brings newer samples. Counters lose nothing by it but resolution.
type recorder struct {
	next   storage.AppendableV2
	table  *table
	target func(id string) *target
	log    *slog.Logger

	mu     sync.Mutex
	idle   sync.Cond // signalled when open falls to 0
	open   int       // scrapes under way
	cut    bool      // what is under way is thrown away
	closed bool      // nothing new begins
}

// counters are those of one owner.
type counters struct{ ok, failed, samples, lost *metrics.Counter }

func newRecorder(next storage.AppendableV2, tb *table, find func(id string) *target, log *slog.Logger) *recorder {
	r := &recorder{next: next, table: tb, target: find, log: log}
	r.idle.L = &r.mu
	return r
}

// AppenderV2 begins a scrape of the target that the context names.
func (r *recorder) AppenderV2(ctx context.Context) storage.AppenderV2 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nowhere{}
	}
	r.open++
	a := &appender{recorder: r, next: r.next.AppenderV2(ctx), samples: takeSamples()}
	if t, ok := scrape.TargetFromContext(ctx); ok {
		a.scraped = t
		a.owner = r.target(t.GetValue(targetLabel))
	}
	return a
}

// throwAway makes scrapes under way come to nothing, so that one that is cut
// off does not say that its target is down.
func (r *recorder) throwAway() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
}

// close returns when no scrape is under way and none can begin.
func (r *recorder) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for r.open > 0 {
		r.idle.Wait()
	}
}

func (r *recorder) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open--; r.open == 0 {
		r.idle.Broadcast()
	}
}

// nowhere takes the samples of a loop that is stopped.
type nowhere struct{}

func (nowhere) Append(ref storage.SeriesRef, _ labels.Labels, _, _ int64, _ float64, _ *histogram.Histogram, _ *histogram.FloatHistogram, _ storage.AOptions) (storage.SeriesRef, error) {
	return ref, nil
}
func (nowhere) Commit() error   { return nil }
func (nowhere) Rollback() error { return nil }

// appender is one scrape.
type appender struct {
	*recorder
	next    storage.AppenderV2
	owner   *target // nil: it has gone, only markers may come
	scraped *scrape.Target
	samples *[]sample
	fresh   []storage.SeriesRef
	report  struct {
		given        bool
		up, duration float64
	}
	tried   int   // samples of the target itself that were offered to the sink
	counted int   // those that it took
	failed  error // of the sink
}

// Append hands a sample on.
func (a *appender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	s := sample{t: t, v: v, n: noCount}
	switch {
	case h != nil:
		s.v, s.n = h.Sum, float64(h.Count)
	case fh != nil:
		s.v, s.n = fh.Sum, fh.Count
	}
	s.stale = value.IsStaleNaN(s.v)
	name, report := strings.CutSuffix(opts.MetricFamilyName, reportMark)
	opts.MetricFamilyName = name

	ref, sink, fresh, err := a.table.prepare(ref, ls, t, a.owner != nil && !s.stale, opts)
	if err != nil {
		return 0, err
	}
	if fresh {
		a.fresh = append(a.fresh, ref)
	}
	s.ref = ref
	if !s.stale && !report {
		a.tried++
	}
	s.sink, err = a.next.Append(sink, ls, st, t, v, h, fh, opts)
	if err != nil && !errors.Is(err, &storage.AppendPartialError{}) {
		if !aboutTheSample(err) {
			a.failed = err
		}
		return 0, err
	}
	switch {
	case s.stale:
	case !report:
		a.counted++
	case name == "up":
		a.report.given, a.report.up = true, v
	case name == "scrape_duration_seconds":
		a.report.duration = v
	}
	*a.samples = append(*a.samples, s)
	return ref, err
}

// aboutTheSample are errors that a loop leaves a single sample out for.
func aboutTheSample(err error) bool {
	return errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrDuplicateSampleForTimestamp) || errors.Is(err, storage.ErrOutOfBounds)
}

// Commit hands the scrape on and keeps its samples if the sink took them.
func (a *appender) Commit() error {
	defer a.done()
	a.recorder.mu.Lock()
	cut := a.recorder.cut
	a.recorder.mu.Unlock()
	if cut {
		a.table.rollback(a.fresh)
		return a.next.Rollback()
	}
	err := a.next.Commit()
	if err != nil {
		a.failed = err
		a.table.rollback(a.fresh)
	} else {
		a.table.commit(a.owner, *a.samples)
	}
	if a.owner == nil {
		return err
	}
	if err != nil {
		a.owner.counters.lost.Inc()
	} else {
		a.owner.counters.samples.Add(a.counted)
	}
	if a.report.given {
		a.tell()
	}
	return err
}

// Rollback throws the scrape away.
func (a *appender) Rollback() error {
	defer a.done()
	a.table.rollback(a.fresh)
	// The loop begins a second transaction with the markers of the same scrape.
	if a.failed != nil && a.tried > 0 && a.owner != nil {
		a.owner.counters.lost.Inc()
	}
	return a.next.Rollback()
}

func (a *appender) done() {
	giveSamples(a.samples)
	a.samples = nil
	a.end()
}

// tell counts the scrape and logs when the target's state changes.
func (a *appender) tell() {
	t := a.owner
	t.seconds.Store(math.Float64bits(a.report.duration))
	now := up
	if a.report.up == 0 {
		now = down
		t.counters.failed.Inc()
	} else {
		t.counters.ok.Inc()
	}
	before := state(t.state.Swap(int32(now)))
	if before == now || before == waiting && now == up {
		return
	}
	log := a.log.With("owner", t.owner, "job", t.job, "target", a.scraped.URL().Redacted())
	switch {
	case now == up:
		log.Info("target can be scraped again")
	case t.terminating.Load():
		log.Debug("target of a pod that ends can no longer be scraped", "error", a.scraped.LastError())
	default:
		log.Warn("target cannot be scraped: its samples are missing until it can", "error", a.scraped.LastError())
	}
}

// Samples that wait for a commit take 48 bytes each. Slices are handed from
// scrape to scrape; those of very large pages are left to the collector.
const maxKept = 20_000

var sampleSlices = sync.Pool{New: func() any { return new([]sample) }}

func takeSamples() *[]sample { return sampleSlices.Get().(*[]sample) }

func giveSamples(s *[]sample) {
	if cap(*s) > maxKept {
		return
	}
	*s = (*s)[:0]
	sampleSlices.Put(s)
}
