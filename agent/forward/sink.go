package forward

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"nines/pkg/metric"
	"nines/pkg/ops"
)

// gather is how long a commit waits for others to share its sync to disk and
// its request: a node has a hundred targets, each with a commit of its own.
// gatherMost ends the wait early.
const (
	gather     = 250 * time.Millisecond
	gatherMost = samplesPerRequest
)

// Sink returns what Prometheus's scrape package and OTLP converter write into.
// Every series gets the extra labels. One that has a label of that name keeps it
// where it may speak of another node, as kube-state-metrics does (keeps), and
// else as exported_NAME, as Prometheus renames labels: no two series become one.
// Commit returns
// when the samples are on disk, as Append does; it shares the sync with others
// that come within a quarter of a second. Samples of a failed commit are
// counted as dropped for every destination.
func (f *Forwarder) Sink(extra []metric.Label) storage.AppendableV2 {
	return sinkOf{f, slices.Clone(extra)}
}

// keeps is the label that series may have of their own: the node that they are
// about. The cluster is the agent's, or clusters could not be told apart.
const keeps = "node"

type sinkOf struct {
	f     *Forwarder
	extra []metric.Label
}

func (s sinkOf) AppenderV2(context.Context) storage.AppenderV2 { return &appender{sinkOf: s} }

// appender holds the samples of one commit. The scrape package bounds them by
// sample_limit, the OTLP receiver by the size of a body.
type appender struct {
	sinkOf
	samples []series
}

type series struct {
	labels labels.Labels
	value
}

// Append takes one sample. It checks nothing: the caller made the labels, and
// the destination judges.
func (a *appender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	if ref == 0 {
		// The scrape package tells series apart by it, and takes 0 for none.
		ref = storage.SeriesRef(max(ls.Hash(), 1))
	}
	a.samples = append(a.samples, series{ls, value{st, t, v, h, fh, o.Metadata, slices.Clone(o.Exemplars)}})
	return ref, nil
}

// Rollback forgets the samples.
func (a *appender) Rollback() error {
	a.samples = nil
	return nil
}

// Commit queues the samples.
func (a *appender) Commit() error {
	if len(a.samples) == 0 {
		return nil
	}
	return a.f.commit(a)
}

// group is commits that share a sync.
type group struct {
	commits []*appender
	samples int
	full    chan struct{} // closed when there are enough
	done    chan struct{} // closed when err is set
	err     error
}

func (f *Forwarder) commit(a *appender) error {
	f.groupMu.Lock()
	g, leads := f.group, false
	if g == nil {
		g, leads = &group{full: make(chan struct{}), done: make(chan struct{})}, true
		f.group = g
	}
	g.commits = append(g.commits, a)
	if g.samples += len(a.samples); g.samples >= gatherMost {
		close(g.full)
		f.group = nil
	}
	f.groupMu.Unlock()
	if !leads {
		<-g.done
		return g.err
	}
	timer := time.NewTimer(gather)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.full:
	case <-f.stopping:
	}
	f.groupMu.Lock()
	if f.group == g {
		f.group = nil
	}
	f.groupMu.Unlock()
	g.err = f.queued(func(e *encoder) error {
		var pairs []metric.Label
		for _, a := range g.commits {
			for i := range a.samples {
				pairs = a.pairs(pairs[:0], a.samples[i].labels)
				if err := e.add(pairs, a.samples[i].value); err != nil {
					return err
				}
			}
		}
		return nil
	}, g.samples)
	close(g.done)
	return g.err
}

// pairs are the labels of a series with the extra ones, sorted.
func (s sinkOf) pairs(into []metric.Label, ls labels.Labels) []metric.Label {
	kept := ""
	ls.Range(func(l labels.Label) {
		name := l.Name
		for _, x := range s.extra {
			if x.Name == name && name == keeps {
				kept = name
			} else if x.Name == name && l.Value != x.Value {
				name = model.ExportedLabelPrefix + name
			} else if x.Name == name {
				return
			}
		}
		into = append(into, metric.Label{Name: name, Value: l.Value})
	})
	for _, x := range s.extra {
		if x.Name != kept {
			into = append(into, x)
		}
	}
	metric.SortLabels(into)
	return into
}

// queued encodes n samples and queues them.
func (f *Forwarder) queued(encode func(*encoder) error, n int) error {
	f.encoding.Lock()
	err := encode(f.encoder)
	batches := f.encoder.take()
	f.encoding.Unlock()
	if err == nil && len(batches) > 0 {
		if err = f.queue.append(batches); errors.Is(err, errTooMuch) {
			// Each drives out what is oldest, those before it in the end.
			err = nil
			for _, b := range batches {
				err = errors.Join(err, f.queue.append([]batch{b}))
			}
		}
	}
	if err != nil {
		f.writeErrors.Inc()
		for _, s := range f.sinks {
			s.dropped.Add(n)
		}
		return ops.Remedy(err)
	}
	return nil
}

// Discard takes samples and keeps none, for an agent that serves what it
// collects and sends nothing.
type Discard struct{}

// AppenderV2 returns an appender that forgets.
func (Discard) AppenderV2(context.Context) storage.AppenderV2 { return discarding{} }

type discarding struct{}

// Append forgets a sample.
func (discarding) Append(ref storage.SeriesRef, ls labels.Labels, _, _ int64, _ float64, _ *histogram.Histogram, _ *histogram.FloatHistogram, _ storage.AppendV2Options) (storage.SeriesRef, error) {
	if ref == 0 {
		ref = storage.SeriesRef(max(ls.Hash(), 1))
	}
	return ref, nil
}

// Commit does nothing.
func (discarding) Commit() error { return nil }

// Rollback does nothing.
func (discarding) Rollback() error { return nil }

// known remembers what each source said at its tick before, so that a series
// that is gone gets a stale marker, as a scraper would write it.
type known struct {
	mu      sync.Mutex
	sources map[string][]metric.Family // guarded by mu; by the extra labels
}

// maxSources bounds the sources that get stale markers; the series of others
// end without.
const maxSources = 8192

// took remembers the tick that the queue took.
func (k *known) took(extra []metric.Label, fams []metric.Family) {
	key := string(labelsKey(nil, extra))
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.sources[key]; ok || len(k.sources) < maxSources {
		k.sources[key] = fams
	}
}

// gone returns the series that the source had at its tick before and lacks now.
func (k *known) gone(extra []metric.Label, fams []metric.Family) []metric.Family {
	key := labelsKey(nil, extra)
	k.mu.Lock()
	before := k.sources[string(key)]
	k.mu.Unlock()
	if len(before) == 0 || sameSeries(before, fams) {
		return nil
	}
	now := make(map[string]struct{}, metric.Count(fams))
	var b []byte
	for _, f := range fams {
		for _, s := range f.Series {
			b = seriesKey(b[:0], f, s)
			now[string(b)] = struct{}{}
		}
	}
	var out []metric.Family
	for _, f := range before {
		g := metric.Family{Name: f.Name, Help: f.Help, Unit: f.Unit, Type: f.Type}
		for _, s := range f.Series {
			b = seriesKey(b[:0], f, s)
			if _, ok := now[string(b)]; !ok {
				g.Series = append(g.Series, metric.Series{Labels: s.Labels, Suffix: s.Suffix, Value: staleNaN})
			}
		}
		if len(g.Series) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// sameSeries says whether both ticks have the same series in the same order, as
// nearly all do.
func sameSeries(a, b []metric.Family) bool {
	return slices.EqualFunc(a, b, func(x, y metric.Family) bool {
		return x.Name == y.Name && slices.EqualFunc(x.Series, y.Series, func(p, q metric.Series) bool {
			return p.Suffix == q.Suffix && slices.Equal(p.Labels, q.Labels)
		})
	})
}

func seriesKey(b []byte, f metric.Family, s metric.Series) []byte {
	b = append(append(b, f.Name...), s.Suffix...)
	return labelsKey(append(b, 0), s.Labels)
}

// staleNaN marks the end of a series (Prometheus, model/value).
var staleNaN = math.Float64frombits(stale.StaleNaN)
