// Package forward brings samples to metric stores by Prometheus remote write:
// version 2.0, or 1.0 for a destination that asks for it.
//
// It owns a queue on disk, bounded in bytes, that each destination reads at
// its own pace, in order. What Append or a Sink's Commit has taken survives a
// crash and reaches each destination at least once, unless the queue is full:
// then its oldest samples are dropped. So are samples that grow older in it than
// receivers take. A batch that is sent again holds the same samples at the same
// times, which stores take as duplicates. It refuses to change samples. Families
// enter by Append, what Prometheus's packages write by Sink; requests leave by
// HTTP; every sample ends in one of three counters: sent, rejected, dropped.
package forward

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"

	"nines/pkg/metric"
	"nines/pkg/ops"
)

// Config says where samples go.
type Config struct {
	SendTo   []Destination
	MaxBytes int64 // of the queue on disk; at least MinBytes
	// MaxAge is how old a sample may be when it is sent; older ones are dropped
	// unsent. Give it what receivers take: a day by default, as the aggregator
	// does. 0: any age.
	MaxAge  time.Duration
	Timeout time.Duration // of one request
	MinWait time.Duration // before the second try
	MaxWait time.Duration // between later tries
	Drain   time.Duration // how long Run goes on after its context ends, to empty the queue
	Agent   string        // User-Agent of requests
}

// MinBytes is the smallest queue: some of the largest requests, see
// bytesPerRequest.
const MinBytes = 16 << 20

// DefaultConfig has no destination. Its queue holds a node of 1,000 series at
// an interval of 15 s for more than a day.
func DefaultConfig() Config {
	return Config{
		MaxBytes: 256 << 20,
		MaxAge:   24 * time.Hour,
		Timeout:  30 * time.Second,
		MinWait:  500 * time.Millisecond,
		MaxWait:  5 * time.Second, // as Prometheus' max_backoff
		Drain:    5 * time.Second,
		Agent:    "nines-agent",
	}
}

// Validate names the field that is wrong, and the remedy.
func (c Config) Validate() error {
	seen := map[string]int{}
	for i, d := range c.SendTo {
		if err := d.validate(fmt.Sprintf("send_to[%d]", i)); err != nil {
			return err
		}
		if j, twice := seen[d.URL]; twice {
			return fmt.Errorf("send_to[%d].url is the same as send_to[%d].url: remove one", i, j)
		}
		seen[d.URL] = i
	}
	if c.MaxBytes < MinBytes {
		return fmt.Errorf("the queue of %d bytes is smaller than %d", c.MaxBytes, MinBytes)
	}
	if c.MaxAge != 0 && c.MaxAge < time.Minute {
		return fmt.Errorf("the age of %v at which samples are dropped is less than a minute: give more, or 0 for none", c.MaxAge)
	}
	if c.Timeout <= 0 || c.MinWait <= 0 || c.MaxWait < c.MinWait || c.Drain < 0 {
		return errors.New("time-out and waits must be more than 0, the longest wait no less than the shortest, the drain not negative")
	}
	return nil
}

// Forwarder queues samples and sends them.
type Forwarder struct {
	cfg   Config
	dir   string
	log   *slog.Logger
	queue *queue
	sinks []*sink
	known known

	encoding sync.Mutex
	encoder  *encoder // guarded by encoding

	groupMu  sync.Mutex
	group    *group        // guarded by groupMu: commits that wait for others; nil: none does
	stopping chan struct{} // closed when Run is to end: nobody waits any more

	writeErrors *metrics.Counter
}

// sink is one destination with its place in the queue.
type sink struct {
	name     string // for logs and labels, without credentials
	url      string
	client   *http.Client
	position string // path of the file that keeps the place
	reader   *reader
	v1       bool      // the destination speaks version 1.0 only
	aged     bool      // the newest load found samples that were too old
	v1Since  time.Time // when it was last found to
	single   bool      // it found a joined request too large: batches go one by one

	sent, rejected, dropped          *metrics.Counter
	ok, retried, refused, downgraded *metrics.Counter
	failing                          time.Time // since when; zero while it takes samples
	refusal                          int       // status of the refusal told last; 0 none
	saved                            time.Time // when the place was last written
	unsaved                          bool      // writing it failed
}

// New opens the queue in dir, which must be held by this process, and finds
// each destination's place in it. A new destination begins with the oldest
// batch that is there. All counters exist from here on, at 0.
func New(cfg Config, dir string, log *slog.Logger, set *metrics.Set) (*Forwarder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	torn := set.NewCounter(metric.AgentQueueTorn)
	q, err := openQueue(dir, cfg.MaxBytes, log, torn.Inc)
	if err != nil {
		return nil, fmt.Errorf("forward: %w", ops.Remedy(err))
	}
	f := &Forwarder{
		cfg: cfg, dir: dir, log: log, queue: q, encoder: newEncoder(),
		known: known{sources: map[string][]metric.Family{}}, stopping: make(chan struct{}),
		writeErrors: set.NewCounter(metric.AgentQueueWriteErrors),
	}
	set.NewGauge(metric.AgentQueueLimit, func() float64 { return float64(cfg.MaxBytes) })
	names := map[string]int{}
	for _, d := range cfg.SendTo {
		u, err := url.Parse(d.URL)
		if err != nil {
			return nil, fmt.Errorf("forward: %w", err)
		}
		name := u.Host
		if names[u.Host]++; names[u.Host] > 1 {
			name = fmt.Sprintf("%s#%d", u.Host, names[u.Host])
		}
		if err := f.addSink(name, d, set); err != nil {
			return nil, fmt.Errorf("forward: %w", err)
		}
	}
	if err := f.forgetOthers(); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	return f, nil
}

func (f *Forwarder) addSink(name string, d Destination, set *metrics.Set) error {
	id := sha256.Sum256([]byte(d.URL))
	client, err := d.client(f.cfg.Timeout)
	if err != nil {
		return err
	}
	s := &sink{name: name, url: d.URL, client: client, position: filepath.Join(f.dir, positionPrefix+hex.EncodeToString(id[:8])+".json")}
	place, err := loadPosition(s.position)
	if err != nil {
		return err
	}
	count := func(metricName, label, value string) *metrics.Counter {
		return set.NewCounter(fmt.Sprintf("%s{destination=%q,%s=%q}", metricName, name, label, value))
	}
	s.sent = count(metric.AgentMetricSamples, "verdict", metric.SampleSent)
	s.rejected = count(metric.AgentMetricSamples, "verdict", metric.SampleRejected)
	s.dropped = count(metric.AgentMetricSamples, "verdict", metric.SampleDropped)
	s.ok = count(metric.AgentMetricRequests, "result", "ok")
	s.retried = count(metric.AgentMetricRequests, "result", "retried")
	s.refused = count(metric.AgentMetricRequests, "result", "rejected")
	s.downgraded = count(metric.AgentMetricRequests, "result", "downgraded")
	s.reader = f.queue.addReader(place, s.dropped.Add)

	gauge := func(metricName string, v func(waiting) float64) {
		set.NewGauge(fmt.Sprintf("%s{destination=%q}", metricName, name), func() float64 { return v(f.queue.waiting(s.reader)) })
	}
	gauge(metric.AgentQueueBytes, func(w waiting) float64 { return float64(w.bytes) })
	gauge(metric.AgentQueueSamples, func(w waiting) float64 { return float64(w.samples) })
	gauge(metric.AgentQueueOldest, func(w waiting) float64 {
		if w.oldest == 0 {
			return 0
		}
		return max(0, time.Since(time.UnixMilli(w.oldest)).Seconds())
	})
	f.sinks = append(f.sinks, s)
	return nil
}

// A destination's place in the queue is kept in a small file of its own.
const positionPrefix = "position-"

type place struct {
	Position int64 `json:"position"`
}

// loadPosition returns 0 where there is no file yet. A damaged file costs
// duplicates, no samples: it is replaced atomically, so damage means the disk.
func loadPosition(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read place in queue: %w", err)
	}
	var p place
	if err := json.Unmarshal(data, &p); err != nil || p.Position < 0 {
		return 0, fmt.Errorf("%s is damaged: remove it; what is in the queue is then sent again, which does no harm", path)
	}
	return p.Position, nil
}

// forgetOthers removes the places of destinations that are not configured any
// more, so that one that comes back begins with what is there then.
func (f *Forwarder) forgetOthers() error {
	paths, err := filepath.Glob(filepath.Join(f.dir, positionPrefix+"*.json"))
	if err != nil {
		return fmt.Errorf("list places in queue: %w", err)
	}
	known := map[string]bool{}
	for _, s := range f.sinks {
		known[s.position] = true
	}
	for _, p := range paths {
		if !known[p] {
			f.log.Info("a destination is gone from the configuration; its place in the queue is forgotten", "file", p)
			if err := os.Remove(p); err != nil {
				return fmt.Errorf("forget place in queue: %w", err)
			}
		}
	}
	return nil
}

// Append queues one sample of each series, at time t, with the extra labels,
// which win over those of the series. Series that the call before with the same
// extra labels had and this one lacks get a stale marker. When Append returns
// nil, all are on disk. On an error none is queued, and all are counted as
// dropped for every destination.
func (f *Forwarder) Append(t time.Time, extra []metric.Label, fams []metric.Family) error {
	gone := f.known.gone(extra, fams)
	err := f.queued(func(e *encoder) error {
		var pairs []metric.Label
		for _, list := range [][]metric.Family{fams, gone} {
			for _, fam := range list {
				for _, s := range fam.Series {
					pairs = append(mergeLabels(pairs[:0], s.Labels, extra), metric.Label{Name: "__name__", Value: fam.Name + s.Suffix})
					metric.SortLabels(pairs)
					if err := e.add(pairs, value{st: s.Start, t: t.UnixMilli(), v: s.Value,
						meta: metadata.Metadata{Type: model.MetricType(fam.Type), Unit: fam.Unit, Help: fam.Help}}); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}, metric.Count(fams)+metric.Count(gone))
	if err == nil {
		f.known.took(extra, fams)
	}
	return err
}

func mergeLabels(into, own, extra []metric.Label) []metric.Label {
	for _, l := range own {
		if !slices.ContainsFunc(extra, func(x metric.Label) bool { return x.Name == l.Name }) {
			into = append(into, l)
		}
	}
	return append(into, extra...)
}

// Run sends until the context ends, then for at most Config.Drain what is left
// in the queue, each destination until its first failure. It returns after the
// last reader has stopped and the queue is closed; no Append may come later.
func (f *Forwarder) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var readers sync.WaitGroup
	for _, s := range f.sinks {
		readers.Go(func() { f.serve(work, ctx.Done(), s) })
	}
	<-ctx.Done()
	close(f.stopping)
	limit := time.AfterFunc(f.cfg.Drain, cancel)
	readers.Wait()
	limit.Stop()
	for _, s := range f.sinks {
		s.client.CloseIdleConnections()
	}
	return f.queue.close()
}

// serve sends what the queue holds for one destination, oldest first, one
// request at a time: that keeps each series in order, and is all the load that
// catching up puts on a destination. What waits goes out in joined requests.
func (f *Forwarder) serve(work context.Context, stopping <-chan struct{}, s *sink) {
	last := false
	for {
		most := samplesPerRequest
		if s.single {
			most = 0
		}
		recs := f.queue.next(s.reader, most, bytesPerRequest)
		if len(recs) == 0 {
			if last {
				return
			}
			select {
			case <-stopping:
				last = true // look once more: a batch may have come meanwhile
			case <-s.reader.wake:
			}
			continue
		}
		switch f.deliver(work, stopping, s, recs) {
		case settled:
			if empty := f.queue.done(s.reader, recs[len(recs)-1]); empty || time.Since(s.saved) >= time.Second {
				f.savePosition(s)
			}
		case apart:
			s.single = true
			f.queue.release(s.reader)
		case ended:
			f.queue.release(s.reader)
			f.savePosition(s)
			return
		}
	}
}

// ending is how the delivery of some records ended.
type ending int

const (
	settled ending = iota // each sample has its verdict
	apart                 // they are to be sent one by one
	ended                 // it is time to stop
)

// load reads records back and joins them. Those that can't be read are dropped.
func (f *Forwarder) load(s *sink, recs []record) (batch, bool) {
	var batches []batch
	old := 0
	for _, rec := range recs {
		if f.cfg.MaxAge > 0 && time.Since(time.UnixMilli(rec.time)) > f.cfg.MaxAge {
			old += rec.samples
			continue
		}
		b, err := f.queue.read(rec)
		if err != nil {
			s.dropped.Add(rec.samples)
			f.log.Error("a batch cannot be read back from the queue; its samples are dropped", "destination", s.name, "samples", rec.samples, "error", err)
			continue
		}
		batches = append(batches, b)
	}
	if old > 0 {
		s.dropped.Add(old)
		if !s.aged {
			f.log.Error("samples are older than receivers take and are dropped (told once, counted in "+metric.AgentMetricSamples+"): where the destination takes older ones, raise the age",
				"destination", s.name, "age", f.cfg.MaxAge.String(), "key", "metrics.queue_age")
		}
	}
	s.aged = s.aged || old > 0
	if len(batches) == 0 {
		return batch{}, false
	}
	joined, err := merge(batches)
	if err != nil {
		for _, b := range batches {
			s.dropped.Add(b.samples)
		}
		f.log.Error("batches in the queue are damaged; their samples are dropped", "destination", s.name, "error", err)
		return batch{}, false
	}
	return joined, true
}

// mostParts bounds the requests that a refused one is split into: enough to
// find two bad series of 5,000.
const mostParts = 64

// deliver tries until the records have a verdict. A request that is refused
// without a word on how many samples were written may be refused for the sake of
// one, or be too large: then its halves are sent, and theirs, until those that
// are refused are small or many.
func (f *Forwarder) deliver(work context.Context, stopping <-chan struct{}, s *sink, recs []record) ending {
	b, ok := f.load(s, recs)
	if !ok {
		return settled
	}
	waiting := []batch{b}
	for tries := 0; len(waiting) > 0; tries++ {
		b, waiting = waiting[0], waiting[1:]
		a, how := f.try(work, stopping, s, b, len(recs) > 1)
		if how != settled {
			return how
		}
		if tooMuch := a.status == http.StatusRequestEntityTooLarge; (tooMuch || a.status == http.StatusBadRequest) && a.written < 0 && tries < mostParts {
			parts, ok, err := halves(b)
			if err != nil {
				f.log.Error("a batch in the queue is damaged; its samples are dropped", "destination", s.name, "samples", b.samples, "error", err)
			}
			if ok {
				waiting = append(parts[:], waiting...)
				continue
			}
		}
		f.settle(s, b, a)
	}
	return settled
}

// againWith2 is how long a destination is held to speak version 1.0 alone.
const againWith2 = time.Hour

// try sends one request until it is taken or refused.
func (f *Forwarder) try(work context.Context, stopping <-chan struct{}, s *sink, b batch, joined bool) (answer, ending) {
	if s.v1 && time.Since(s.v1Since) > againWith2 {
		s.v1 = false
	}
	turns := 0 // from one version to the other
	for try := 1; ; try++ {
		body := b.request
		if s.v1 {
			var err error
			if body, err = downgrade(b.request); err != nil {
				return answer{outcome: rejected, written: -1, err: fmt.Errorf("a batch in the queue is damaged: %w", err)}, settled
			}
		}
		a := post(work, s.client, s.url, f.cfg.Agent, body, s.v1)
		switch {
		case a.status == http.StatusRequestEntityTooLarge && joined:
			return a, apart
		case a.status == http.StatusUnsupportedMediaType && s.v1 && turns < 2:
			turns++
			s.v1 = false
			continue
		case a.outcome == olderWay && turns == 2:
			a.outcome = rejected
			return a, settled
		case a.outcome == olderWay:
			s.downgraded.Inc()
			if s.v1Since.IsZero() {
				f.log.Info("destination does not speak remote write 2.0; using 1.0, without start timestamps", "destination", s.name)
			}
			turns++
			s.v1, s.v1Since = true, time.Now()
			continue
		case a.outcome == sent, a.outcome == rejected:
			return a, settled
		}
		s.retried.Inc()
		if work.Err() == nil && s.failing.IsZero() {
			s.failing = time.Now()
			f.log.Warn("destination does not take samples; they wait in the queue", "destination", s.name, "error", plain(a.err))
		}
		wait := time.NewTimer(backoff(try, f.cfg.MinWait, f.cfg.MaxWait, a.after))
		select {
		case <-wait.C:
		case <-stopping:
			wait.Stop()
			return a, ended
		}
	}
}

// settle counts the final verdict of a batch and tells changes.
func (f *Forwarder) settle(s *sink, b batch, a answer) {
	good := b.samples
	if a.outcome == rejected {
		good = 0
	}
	if a.written >= 0 {
		good = min(a.written, b.samples)
	}
	s.sent.Add(good)
	s.rejected.Add(b.samples - good)
	if !s.failing.IsZero() {
		f.log.Info("destination answers again", "destination", s.name, "after", time.Since(s.failing).Round(time.Second).String())
		s.failing = time.Time{}
	}
	if a.outcome == sent {
		s.ok.Inc()
		s.refusal = 0
		return
	}
	s.refused.Inc()
	if s.refusal != a.status {
		s.refusal = a.status
		f.log.Error("destination refuses samples for good; they are dropped (told once, counted in "+metric.AgentMetricSamples+")",
			"destination", s.name, "samples", b.samples-good, "error", plain(a.err))
	}
}

// plain takes the URL, which may hold a password, off an error of the client.
func plain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// savePosition keeps the destination's place. Where that fails, the batches
// since the last time are sent again after a restart.
func (f *Forwarder) savePosition(s *sink) {
	data, err := json.Marshal(place{f.queue.position(s.reader)})
	if err == nil {
		err = ops.WriteFile(s.position, append(data, '\n'), 0o640)
	}
	s.saved = time.Now()
	switch {
	case err != nil && !s.unsaved:
		f.log.Warn("place in queue cannot be kept; a restart will send some samples again", "destination", s.name, "error", ops.Remedy(err))
	case err == nil && s.unsaved:
		f.log.Info("place in queue is kept again", "destination", s.name)
	}
	s.unsaved = err != nil
}
