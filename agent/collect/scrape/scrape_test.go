package scrape

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/osutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The engine asks for the host's name. The resolver must have begun outside
	// of the bubbles of synctest.
	if _, err := osutil.GetFQDN(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// taken is a sample that reached the sink.
type taken struct {
	ls        labels.Labels
	st, t     int64
	v         float64
	h         *histogram.Histogram
	fh        *histogram.FloatHistogram
	opts      storage.AOptions
	exemplars []exemplar.Exemplar
}

// name is the series as it is written, without labels of the target.
func (s taken) String() string { return s.ls.String() }

func (s taken) stale() bool {
	switch {
	case s.h != nil:
		return value.IsStaleNaN(s.h.Sum)
	case s.fh != nil:
		return value.IsStaleNaN(s.fh.Sum)
	}
	return value.IsStaleNaN(s.v)
}

// sink records what is committed, and fails when told to.
type sink struct {
	mu         sync.Mutex
	changed    chan struct{} // closed at each commit
	samples    []taken
	commits    int
	open       int
	failAppend func(name string) error
	failCommit error
}

func newSink() *sink { return &sink{changed: make(chan struct{})} }

func (s *sink) AppenderV2(context.Context) storage.AppenderV2 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return &sinkAppender{sink: s}
}

type sinkAppender struct {
	sink    *sink
	samples []taken
	ended   bool
}

func (a *sinkAppender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	a.sink.mu.Lock()
	fail := a.sink.failAppend
	a.sink.mu.Unlock()
	if fail != nil {
		if err := fail(ls.Get(model.MetricNameLabel)); err != nil {
			return 0, err
		}
	}
	opts.MetricFamilyName = strings.Clone(opts.MetricFamilyName)
	s := taken{ls: ls, st: st, t: t, v: v, opts: opts, exemplars: slices.Clone(opts.Exemplars)}
	if h != nil {
		s.h = h.Copy()
	}
	if fh != nil {
		s.fh = fh.Copy()
	}
	a.samples = append(a.samples, s)
	return storage.SeriesRef(ls.Hash()), nil
}

func (a *sinkAppender) end() {
	if a.ended {
		panic("an appender was used after its end")
	}
	a.ended = true
	a.sink.open--
}

func (a *sinkAppender) Commit() error {
	a.sink.mu.Lock()
	defer a.sink.mu.Unlock()
	a.end()
	defer func() {
		close(a.sink.changed)
		a.sink.changed = make(chan struct{})
	}()
	a.sink.commits++
	if a.sink.failCommit != nil {
		return a.sink.failCommit
	}
	a.sink.samples = append(a.sink.samples, a.samples...)
	return nil
}

func (a *sinkAppender) Rollback() error {
	a.sink.mu.Lock()
	defer a.sink.mu.Unlock()
	a.end()
	return nil
}

// all returns what was committed so far.
func (s *sink) all() []taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.samples)
}

// forget empties the sink.
func (s *sink) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples, s.commits = nil, 0
}

// of returns the samples of a series name, in the order of their commits.
func (s *sink) of(name string) []taken { return named(s.all(), name) }

func named(all []taken, name string) []taken {
	var out []taken
	for _, x := range all {
		if x.ls.Get(model.MetricNameLabel) == name {
			out = append(out, x)
		}
	}
	return out
}

// wait returns when the samples are as wanted.
func (s *sink) wait(t *testing.T, what string, ok func([]taken) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		all, changed := slices.Clone(s.samples), s.changed
		s.mu.Unlock()
		if ok(all) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("waited for %s in vain; the sink has %d samples: %v", what, len(all), all[:min(len(all), 30)])
		}
	}
}

// logs keeps what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bench is a scraper that runs, with all that a test looks at.
type bench struct {
	*Scraper
	t    *testing.T
	sink *sink
	set  *metrics.Set
	logs *logs
	stop func()
}

func start(t *testing.T, cfg Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) *bench {
	t.Helper()
	b := &bench{t: t, sink: newSink(), set: metrics.NewSet(), logs: &logs{}}
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	var err error
	b.Scraper, err = build(cfg, b.sink, slog.New(slog.NewTextHandler(b.logs, nil)), b.set, dial)
	if err != nil {
		t.Fatal(err)
	}
	b.run()
	t.Cleanup(b.stop)
	return b
}

// run begins the loops; stop ends them.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
		b.sink.mu.Lock()
		defer b.sink.mu.Unlock()
		if b.sink.open != 0 {
			b.t.Errorf("%d transactions were left open", b.sink.open)
		}
	})
}

func (b *bench) give(owner string, jobs ...Job) {
	b.t.Helper()
	if err := b.Set(owner, jobs); err != nil {
		b.t.Fatal(err)
	}
}

// own returns the value of a series of our own.
func (b *bench) own(series string) string {
	var out bytes.Buffer
	b.set.WritePrometheus(&out)
	for line := range strings.Lines(out.String()) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return "absent"
}

// page returns /metrics/pods.
func (b *bench) page() string {
	var w pageWriter
	b.ServeHTTP(&w, nil)
	return w.String()
}

type pageWriter struct {
	bytes.Buffer
	header http.Header
}

func (w *pageWriter) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}
func (w *pageWriter) WriteHeader(int) {}

// job is a job of addresses.
func jobOf(name string, every time.Duration, addresses ...string) Job {
	c := DefaultJob(name)
	c.ScrapeInterval = model.Duration(every)
	g := &targetgroup.Group{Source: "test"}
	for _, a := range addresses {
		g.Targets = append(g.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(a)})
	}
	return Job{Config: c, Groups: []*targetgroup.Group{g}}
}

// ending marks all targets of a job as those of pods about to go.
func ending(j Job) Job {
	for _, g := range j.Groups {
		g.Labels = model.LabelSet{TerminatingLabel: "true"}
	}
	return j
}

// pods are HTTP servers whose connections are pipes, so that their time is that
// of a bubble of synctest.
type pods struct {
	mu      sync.Mutex
	accepts map[string]chan net.Conn
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// serve starts a pod; stop ends it.
func (p *pods) serve(address string, h http.Handler) (stop func()) {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	p.mu.Lock()
	if p.accepts == nil {
		p.accepts = map[string]chan net.Conn{}
	}
	p.accepts[address] = l.conns
	p.mu.Unlock()
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		delete(p.accepts, address)
		p.mu.Unlock()
		srv.Close()
		<-done
	})
}

func (p *pods) dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	accept := p.accepts[address]
	p.mu.Unlock()
	if accept == nil {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	select {
	case accept <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// text answers with a page, which may be changed.
type text struct {
	mu    sync.Mutex
	page  string
	asked int
}

func (x *text) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked++
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	io.WriteString(w, strings.ReplaceAll(x.page, "ASKED", fmt.Sprint(x.asked)))
}

func (x *text) say(page string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.page = page
}

// history writes a series as its values in the order of time: numbers, and
// "stale" for a marker, as a store of Prometheus would have it.
func history(samples []taken) string {
	slices.SortStableFunc(samples, func(a, b taken) int { return int(a.t - b.t) })
	var out []string
	for _, s := range samples {
		if s.stale() {
			out = append(out, "stale")
		} else {
			out = append(out, fmt.Sprint(s.v))
		}
	}
	return strings.Join(out, " ")
}

// sleep lets the bubble's time pass.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestNewTargetIsScrapedAtOnceAndThenAtItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x ASKED\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		sleep(time.Hour) // nothing is known for long
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(time.Second)
		if got := history(b.sink.of("x")); got != "1" {
			t.Fatalf("after one second: %q, want one sample", got)
		}
		sleep(30 * time.Second)
		if got := history(b.sink.of("x")); got != "1 2 3" {
			t.Errorf("after two more intervals: %q", got)
		}
		s := b.sink.of("x")[0]
		if got := s.ls.String(); got != `{__name__="x", instance="a:1", job="j"}` {
			t.Errorf("labels %s", got)
		}
		if got := b.own(`nines_agent_scrape_targets{owner="pods",state="up"}`); got != "1" {
			t.Errorf("targets up: %s", got)
		}
	})
}
