package forward

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.uber.org/goleak"

	"nines/pkg/metric"
)

// appendForever is set in the environment of a child that appends until it is
// killed.
const appendForever = "FORWARD_TEST_APPEND_TO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(appendForever); dir != "" {
		appendUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

// got is one sample as a receiver sees it.
type got struct {
	labels string
	value  float64
	time   int64
	start  int64
	typ    writev2.Metadata_MetricType
	help   string
}

// receiver takes remote write. For each request it asks answer for a status;
// 0 cuts the connection.
type receiver struct {
	t       *testing.T
	answer  func(n int, h http.Header) (status int, headers map[string]string, body string)
	mu      sync.Mutex
	n       int
	samples []got
	types   []string      // content type of each request
	arrived chan struct{} // a token for each sample answered with 2xx
}

func newReceiver(t *testing.T) *receiver {
	return &receiver{t: t, arrived: make(chan struct{}, 100_000)}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Errorf("read request: %v", err)
	}
	r.mu.Lock()
	r.n++
	n := r.n
	r.types = append(r.types, req.Header.Get("Content-Type"))
	r.mu.Unlock()
	status, headers, text := http.StatusNoContent, map[string]string(nil), ""
	if r.answer != nil {
		status, headers, text = r.answer(n, req.Header)
	}
	if status == 0 {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			r.t.Errorf("cut connection: %v", err)
			return
		}
		if err := c.Close(); err != nil {
			r.t.Errorf("cut connection: %v", err)
		}
		return
	}
	taken := 0
	if status/100 == 2 {
		decoded := r.decode(body, req.Header)
		if strings.Contains(req.Header.Get("Content-Type"), "v2") && headers == nil {
			w.Header().Set(writtenHeader, strconv.Itoa(len(decoded)))
		}
		r.mu.Lock()
		r.samples = append(r.samples, decoded...)
		taken = len(decoded)
		r.mu.Unlock()
	}
	for k, v := range headers {
		w.Header().Set(k, v)
	}
	w.WriteHeader(status)
	if _, err := io.WriteString(w, text); err != nil && status != http.StatusNoContent {
		r.t.Logf("answer: %v", err)
	}
	if status/100 == 2 {
		for range taken {
			r.arrived <- struct{}{}
		}
	}
}

func (r *receiver) decode(body []byte, h http.Header) []got {
	if h.Get("Content-Encoding") != "snappy" || h.Get("User-Agent") == "" {
		r.t.Errorf("headers %v", h)
	}
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		r.t.Errorf("body: %v", err)
	}
	var out []got
	if h.Get("X-Prometheus-Remote-Write-Version") == "0.1.0" {
		var req prompb.WriteRequest
		if err := req.Unmarshal(raw); err != nil {
			r.t.Errorf("request 1.0: %v", err)
		}
		for _, ts := range req.Timeseries {
			var ls []string
			for _, l := range ts.Labels {
				ls = append(ls, l.Name+"="+l.Value)
			}
			for _, s := range ts.Samples {
				out = append(out, got{labels: strings.Join(ls, ","), value: s.Value, time: s.Timestamp})
			}
		}
		return out
	}
	var req writev2.Request
	if err := req.Unmarshal(raw); err != nil {
		r.t.Errorf("request 2.0: %v", err)
	}
	if len(req.Symbols) == 0 || req.Symbols[0] != "" {
		r.t.Errorf("symbols do not begin with the empty string: %q", req.Symbols)
	}
	for _, ts := range req.Timeseries {
		var ls []string
		for i := 0; i < len(ts.LabelsRefs); i += 2 {
			ls = append(ls, req.Symbols[ts.LabelsRefs[i]]+"="+req.Symbols[ts.LabelsRefs[i+1]])
		}
		for _, s := range ts.Samples {
			out = append(out, got{strings.Join(ls, ","), s.Value, s.Timestamp, s.StartTimestamp, ts.Metadata.Type, req.Symbols[ts.Metadata.HelpRef]})
		}
	}
	return out
}

func (r *receiver) values() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var vs []string
	for _, s := range r.samples {
		vs = append(vs, strconv.FormatFloat(s.value, 'g', -1, 64))
	}
	return strings.Join(vs, " ")
}

func (r *receiver) wait(n int) {
	for range n {
		<-r.arrived
	}
}

// running is a forwarder under test.
type running struct {
	*Forwarder
	set  *metrics.Set
	logs *bytes.Buffer
	stop func()
}

func impatient(urls ...string) Config {
	cfg := DefaultConfig()
	cfg.MinWait, cfg.MaxWait, cfg.MaxAge = time.Millisecond, 4*time.Millisecond, 0
	for _, u := range urls {
		cfg.SendTo = append(cfg.SendTo, Destination{URL: u})
	}
	return cfg
}

// start runs a forwarder that sends each batch in a request of its own, as one
// does whose destination found a joined request too large.
func start(t *testing.T, cfg Config, dir string) *running {
	t.Helper()
	return run(t, cfg, dir, true)
}

func startJoining(t *testing.T, cfg Config, dir string) *running {
	t.Helper()
	return run(t, cfg, dir, false)
}

func run(t *testing.T, cfg Config, dir string, single bool) *running {
	t.Helper()
	r := &running{set: metrics.NewSet(), logs: &bytes.Buffer{}}
	f, err := New(cfg, dir, slog.New(slog.NewTextHandler(r.logs, nil)), r.set)
	if err != nil {
		t.Fatal(err)
	}
	r.Forwarder = f
	for _, s := range f.sinks {
		s.single = single
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// counter reads the counter of the only destination.
func (r *running) counter(t *testing.T, verdict string) int {
	t.Helper()
	var b bytes.Buffer
	r.set.WritePrometheus(&b)
	fams, err := metric.ParseText(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	sum, seen := 0.0, false
	for _, f := range fams {
		for _, s := range f.Series {
			for _, l := range s.Labels {
				if f.Name == metric.AgentMetricSamples && l.Name == "verdict" && l.Value == verdict {
					sum, seen = sum+s.Value, true
				}
			}
		}
	}
	if !seen {
		t.Fatalf("no counter of verdict %s", verdict)
	}
	return int(sum)
}

// put queues samples of value n, n+1, … at times that rise with them.
func (r *running) put(t *testing.T, values ...float64) {
	t.Helper()
	for _, v := range values {
		if err := r.Append(at(v), nil, gauge(v)); err != nil {
			t.Fatal(err)
		}
	}
}

func at(v float64) time.Time { return time.UnixMilli(1_800_000_000_000 + int64(v)*15_000) }

func gauge(v float64) []metric.Family {
	return []metric.Family{{Name: "x", Type: metric.Gauge, Series: []metric.Series{{Value: v}}}}
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func TestSampleArrivesWithLabelsTimesTypeAndHelp(t *testing.T) {
	r := newReceiver(t)
	f := start(t, impatient(serve(t, r).URL), t.TempDir())
	fams := []metric.Family{
		{Name: "reads_total", Type: metric.Counter, Help: "Reads.", Series: []metric.Series{
			{Labels: metric.Labels("device", "sda", "node", "wrong", "Upper", "1", "none", ""), Value: 7, Start: 1_700_000_000_000}}},
		{Name: "lat", Type: metric.Histogram, Series: []metric.Series{
			{Labels: metric.Labels("le", "+Inf"), Value: math.Inf(1), Suffix: "_bucket"}}},
	}
	if err := f.Append(at(1), metric.Labels("job", "node-exporter", "node", "a"), fams); err != nil {
		t.Fatal(err)
	}
	r.wait(1)
	f.stop()
	want := []got{
		{"Upper=1,__name__=reads_total,device=sda,job=node-exporter,node=a", 7, at(1).UnixMilli(), 1_700_000_000_000, writev2.Metadata_METRIC_TYPE_COUNTER, "Reads."},
		{"__name__=lat_bucket,job=node-exporter,le=+Inf,node=a", math.Inf(1), at(1).UnixMilli(), 0, writev2.Metadata_METRIC_TYPE_HISTOGRAM, ""},
	}
	if len(r.samples) != 2 || r.samples[0] != want[0] || r.samples[1] != want[1] {
		t.Errorf("got  %+v\nwant %+v", r.samples, want)
	}
	if n := f.counter(t, metric.SampleSent); n != 2 {
		t.Errorf("%d counted as sent", n)
	}
}

func TestLargeTickIsCutIntoRequestsWithoutLoss(t *testing.T) {
	r := newReceiver(t)
	f := start(t, impatient(serve(t, r).URL), t.TempDir())
	fam := metric.Family{Name: "x", Type: metric.Gauge}
	for i := range 2*samplesPerRequest + 1 {
		fam.Series = append(fam.Series, metric.Series{Labels: metric.Labels("i", strconv.Itoa(i)), Value: float64(i)})
	}
	if err := f.Append(at(1), nil, []metric.Family{fam}); err != nil {
		t.Fatal(err)
	}
	r.wait(10_001)
	for i, s := range r.samples {
		if s.value != float64(i) || !strings.HasSuffix(s.labels, ",i="+strconv.Itoa(i)) {
			t.Fatalf("sample %d is %+v", i, s)
		}
	}
	if len(r.samples) != len(fam.Series) {
		t.Errorf("%d of %d samples", len(r.samples), len(fam.Series))
	}
}

func TestPassingFailuresAreTriedAgainInOrder(t *testing.T) {
	for name, status := range map[string]int{"500": 500, "503": 503, "429": 429, "408": 408, "cut connection": 0} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			r.answer = func(n int, _ http.Header) (int, map[string]string, string) {
				if n == 2 || n == 3 || n == 4 {
					return status, map[string]string{}, "busy"
				}
				return 204, nil, ""
			}
			f := start(t, impatient(serve(t, r).URL), t.TempDir())
			f.put(t, 1, 2, 3)
			r.wait(3)
			f.stop()
			if v := r.values(); v != "1 2 3" {
				t.Errorf("got %s", v)
			}
			if s, d := f.counter(t, metric.SampleSent), f.counter(t, metric.SampleDropped)+f.counter(t, metric.SampleRejected); s != 3 || d != 0 {
				t.Errorf("sent %d, lost %d", s, d)
			}
			if got := f.logs.String(); strings.Count(got, "does not take samples") != 1 || strings.Count(got, "answers again") != 1 {
				t.Errorf("want one line for the failure and one for its end:\n%s", got)
			}
		})
	}
}

func TestRefusedBatchIsCountedToldOnceAndDoesNotBlockTheNext(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(n int, _ http.Header) (int, map[string]string, string) {
		if n <= 2 {
			return 400, map[string]string{}, "out of bounds"
		}
		return 204, nil, ""
	}
	f := start(t, impatient(serve(t, r).URL), t.TempDir())
	f.put(t, 1, 2, 3)
	r.wait(1)
	f.stop()
	if r.values() != "3" || f.counter(t, metric.SampleRejected) != 2 || f.counter(t, metric.SampleSent) != 1 {
		t.Errorf("arrived %s, rejected %d, sent %d", r.values(), f.counter(t, metric.SampleRejected), f.counter(t, metric.SampleSent))
	}
	if n := strings.Count(f.logs.String(), "out of bounds"); n != 1 {
		t.Errorf("told %d times:\n%s", n, f.logs)
	}
}

func TestPartlyWrittenBatchIsCountedByWhatTheDestinationSays(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(int, http.Header) (int, map[string]string, string) {
		r.arrived <- struct{}{}
		return 400, map[string]string{writtenHeader: "2"}, "one too old"
	}
	f := start(t, impatient(serve(t, r).URL), t.TempDir())
	fams := append(append(gauge(1), gauge(2)...), gauge(3)...)
	if err := f.Append(at(1), nil, fams); err != nil {
		t.Fatal(err)
	}
	r.wait(1)
	f.stop()
	if s, j := f.counter(t, metric.SampleSent), f.counter(t, metric.SampleRejected); s != 2 || j != 1 {
		t.Errorf("sent %d, rejected %d", s, j)
	}
}

func TestReceiverOfVersion1GetsVersion1(t *testing.T) {
	for name, refuse := range map[string]func(http.Header) (int, map[string]string, string){
		"says 415":                      func(http.Header) (int, map[string]string, string) { return 415, map[string]string{}, "1.0 only" },
		"is content and writes nothing": func(http.Header) (int, map[string]string, string) { return 204, map[string]string{}, "" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			r.answer = func(_ int, h http.Header) (int, map[string]string, string) {
				if strings.Contains(h.Get("Content-Type"), "v2") {
					return refuse(h)
				}
				return 204, nil, ""
			}
			server := serve(t, r)
			f := start(t, impatient(server.URL), t.TempDir())
			if err := f.Append(at(1), metric.Labels("job", "j"), gauge(1)); err != nil {
				t.Fatal(err)
			}
			f.put(t, 2)
			for r.values() != "1 1 2" && r.values() != "1 2" {
				r.wait(1)
			}
			f.stop()
			last := r.samples[len(r.samples)-2]
			if last.labels != "__name__=x,job=j" || last.time != at(1).UnixMilli() {
				t.Errorf("got %+v", last)
			}
			v2 := 0
			for _, c := range r.types {
				if strings.Contains(c, "v2") {
					v2++
				}
			}
			if v2 != 1 || f.counter(t, metric.SampleSent) != 2 {
				t.Errorf("version 2.0 tried %d times, %d sent", v2, f.counter(t, metric.SampleSent))
			}
		})
	}
}

func TestDeadDestinationDoesNotHoldUpAnother(t *testing.T) {
	dead, alive := newReceiver(t), newReceiver(t)
	release := make(chan struct{})
	dead.answer = func(int, http.Header) (int, map[string]string, string) {
		<-release
		return 204, nil, ""
	}
	f := start(t, impatient(serve(t, dead).URL, serve(t, alive).URL), t.TempDir())
	f.put(t, 1, 2, 3)
	alive.wait(3)
	if dead.values() != "" {
		t.Errorf("the dead one has %s", dead.values())
	}
	close(release)
	dead.wait(3)
	f.stop()
	if dead.values() != "1 2 3" || alive.values() != "1 2 3" {
		t.Errorf("got %s and %s", dead.values(), alive.values())
	}
}

func TestRestartSendsWhatWaitsAndNothingTwice(t *testing.T) {
	r := newReceiver(t)
	var mu sync.Mutex
	down := false
	r.answer = func(int, http.Header) (int, map[string]string, string) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return 503, map[string]string{}, ""
		}
		return 204, nil, ""
	}
	setDown := func(v bool) {
		mu.Lock()
		defer mu.Unlock()
		down = v
	}
	url, dir := serve(t, r).URL, t.TempDir()
	f := start(t, impatient(url), dir)
	f.put(t, 1, 2)
	r.wait(2)
	setDown(true)
	f.put(t, 3, 4)
	f.stop()
	setDown(false)
	f = start(t, impatient(url), dir)
	f.put(t, 5)
	r.wait(3)
	f.stop()
	if r.values() != "1 2 3 4 5" {
		t.Errorf("got %s", r.values())
	}
}

func TestStopEmptiesTheQueueFirst(t *testing.T) {
	r := newReceiver(t)
	f := start(t, impatient(serve(t, r).URL), t.TempDir())
	for i := range 50 {
		f.put(t, float64(i))
	}
	f.stop()
	if n := len(r.samples); n != 50 {
		t.Errorf("%d of 50 samples arrived before the end", n)
	}
}

func TestStopDoesNotWaitForEverForADestinationThatHangs(t *testing.T) {
	r := newReceiver(t)
	asked, release := make(chan struct{}, 10), make(chan struct{})
	r.answer = func(int, http.Header) (int, map[string]string, string) {
		asked <- struct{}{}
		<-release
		return 503, map[string]string{}, ""
	}
	cfg := impatient(serve(t, r).URL)
	cfg.Drain = time.Millisecond
	f := start(t, cfg, t.TempDir())
	f.put(t, 1)
	<-asked
	f.stop() // returns, although the server has not answered
	close(release)
	if f.counter(t, metric.SampleSent) != 0 {
		t.Error("a sample without an answer counts as sent")
	}
}

func TestNewDestinationBeginsWithTheOldestAndOneThatLeftIsForgotten(t *testing.T) {
	first, second := newReceiver(t), newReceiver(t)
	urlOfFirst, urlOfSecond, dir := serve(t, first).URL, serve(t, second).URL, t.TempDir()
	f := start(t, impatient(urlOfFirst), dir)
	f.put(t, 1)
	first.wait(1)
	f.stop()
	f = start(t, impatient(urlOfSecond), dir)
	second.wait(1)
	f.stop()
	f = start(t, impatient(urlOfFirst), dir)
	first.wait(1)
	f.stop()
	if first.values() != "1 1" || second.values() != "1" {
		t.Errorf("got %s and %s", first.values(), second.values())
	}
}

func TestFullDiskIsAnErrorWithARemedyAndCounted(t *testing.T) {
	dir := t.TempDir()
	f := start(t, impatient("http://127.0.0.1:1/write"), dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	err := f.Append(at(1), nil, gauge(1))
	if err == nil || !strings.Contains(err.Error(), "queue samples") {
		t.Errorf("got %v", err)
	}
	if n := f.counter(t, metric.SampleDropped); n != 1 {
		t.Errorf("%d counted as dropped", n)
	}
}

// In a bubble of fake time and with connections in memory: the second try
// comes neither before the time that the destination asked for nor later.
func TestRetryAfterIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t)
		var times []time.Time
		r.answer = func(n int, _ http.Header) (int, map[string]string, string) {
			times = append(times, time.Now())
			if n == 1 {
				return 429, map[string]string{"Retry-After": "77"}, ""
			}
			return 204, nil, ""
		}
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := &http.Server{Handler: r}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()

		set := metrics.NewSet()
		f, err := New(impatient("http://in.memory/write"), t.TempDir(), quiet, set)
		if err != nil {
			t.Fatal(err)
		}
		f.sinks[0].client.Transport = &http.Transport{DialContext: l.dial}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		if err := f.Append(time.Now(), nil, gauge(1)); err != nil {
			t.Fatal(err)
		}
		r.wait(1)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(times) != 2 || times[1].Sub(times[0]) != 77*time.Second {
			t.Errorf("tries at %v", times)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}

// pipeListener accepts connections within the program.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.IPAddr{} }

func TestWaitsDoubleUpToTheLongestWithJitterInTheUpperHalf(t *testing.T) {
	for try, full := range map[int]time.Duration{1: 500 * time.Millisecond, 2: time.Second, 5: 8 * time.Second, 7: 30 * time.Second, 1000: 30 * time.Second} {
		for range 200 {
			if d := backoff(try, 500*time.Millisecond, 30*time.Second, 0); d < full/2 || d > full {
				t.Fatalf("try %d waits %v, want %v to %v", try, d, full/2, full)
			}
		}
	}
	if d := backoff(1, time.Second, time.Second, time.Minute); d != time.Minute {
		t.Errorf("asked for a minute, waits %v", d)
	}
}

func TestRetryAfterIsReadAsSecondsOrDateWithinBounds(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "7": 7 * time.Second, "86400": maxRetryAfter,
		"Sun, 01 Nov 2026 12:00:30 GMT": 30 * time.Second,
		"Sun, 01 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestAnswersAreJudgedByTheSpecification(t *testing.T) {
	for _, c := range []struct {
		status  int
		written string
		v1      bool
		want    outcome
	}{
		{200, "5", false, sent}, {204, "0", false, sent}, {204, "", false, olderWay}, {204, "", true, sent},
		{415, "", false, olderWay}, {415, "", true, rejected},
		{400, "3", false, rejected}, {401, "", false, retry}, {403, "", false, retry}, {404, "", true, retry}, {407, "", false, retry}, {409, "", true, rejected}, {413, "", false, rejected},
		{429, "", false, retry}, {408, "", false, retry}, {500, "", false, retry}, {599, "", true, retry},
		{301, "", false, retry}, {308, "", false, retry},
	} {
		h := http.Header{}
		if c.written != "" {
			h.Set(writtenHeader, c.written)
		}
		a := judge(c.status, h, "", c.v1, time.Now())
		if a.outcome != c.want || (a.err == nil) != (c.status/100 == 2) {
			t.Errorf("%d written %q v1 %v: %v, %v", c.status, c.written, c.v1, a.outcome, a.err)
		}
	}
}

func TestRedirectIsNotFollowedButExplained(t *testing.T) {
	elsewhere := newReceiver(t)
	target := serve(t, elsewhere).URL
	asked := make(chan struct{}, 1000)
	redirect := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target, http.StatusFound)
		asked <- struct{}{}
	}))
	f := start(t, impatient(redirect.URL), t.TempDir())
	f.put(t, 1)
	<-asked
	<-asked
	f.stop()
	if elsewhere.n != 0 || !strings.Contains(f.logs.String(), "final address") {
		t.Errorf("%d requests elsewhere; log:\n%s", elsewhere.n, f.logs)
	}
}

func TestPasswordInTheAddressIsNotLogged(t *testing.T) {
	f := start(t, impatient("http://user:s3cret@127.0.0.1:1/write"), t.TempDir())
	f.put(t, 1)
	f.stop()
	var b bytes.Buffer
	f.set.WritePrometheus(&b)
	if strings.Contains(f.logs.String()+b.String(), "s3cret") {
		t.Errorf("the password is in the log or in a label:\n%s%s", f.logs, b.String())
	}
}

func TestConfigurationMistakesNameFieldAndRemedy(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"send_to[0].url is missing":     func(c *Config) { c.SendTo = []Destination{{}} },
		"must begin with http":          func(c *Config) { c.SendTo = []Destination{{URL: "ftp://x/y"}} },
		"names no host":                 func(c *Config) { c.SendTo = []Destination{{URL: "http:///x"}} },
		"is not an address":             func(c *Config) { c.SendTo = []Destination{{URL: "http://[::1"}} },
		"is the same as send_to[0].url": func(c *Config) { c.SendTo = []Destination{{URL: "http://a/"}, {URL: "http://a/"}} },
		"is smaller than":               func(c *Config) { c.MaxBytes = 1 },
		"more than 0":                   func(c *Config) { c.MaxWait = 0 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
}

func TestDamagedPositionIsExplained(t *testing.T) {
	dir := t.TempDir()
	f := start(t, impatient("http://127.0.0.1:1/write"), dir)
	f.put(t, 1)
	f.stop()
	if err := os.WriteFile(f.sinks[0].position, []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := New(impatient("http://127.0.0.1:1/write"), dir, quiet, metrics.NewSet())
	if err == nil || !strings.Contains(err.Error(), "is damaged: remove it") {
		t.Errorf("got %v", err)
	}
}

// appendUntilKilled is the child of the test below.
func appendUntilKilled(dir string) {
	f, err := New(impatient("http://127.0.0.1:1/write"), dir, quiet, metrics.NewSet())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for n := 1.0; ; n++ {
		if err := f.Append(at(n), nil, gauge(n)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

func TestKilledProcessLosesNothingThatAppendReturned(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), appendForever+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	promised := 0
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatalf("the child says %q", lines.Text())
		}
		promised = n
		if promised == 40 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended by itself: %v", err)
	}
	r := newReceiver(t)
	f := start(t, impatient(serve(t, r).URL), dir)
	r.wait(promised)
	f.stop()
	for i := range promised {
		if r.samples[i].value != float64(i+1) {
			t.Fatalf("sample %d is %v", i, r.samples[i].value)
		}
	}
}

func FuzzDowngrade(f *testing.F) {
	f.Add(request(f, labels.FromStrings("__name__", "x", "job", "j"), value{t: 1, v: 1}))
	f.Add([]byte{})
	f.Add(snappy.Encode(nil, []byte{0x2a, 0x04, 0x0a, 0x02, 0x7f, 0x7f}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := snappy.DecodedLen(data); err != nil || n > 1<<20 {
			return
		}
		out, err := downgrade(data)
		if err != nil {
			return
		}
		raw, err := snappy.Decode(nil, out)
		if err != nil {
			t.Fatal(err)
		}
		var req prompb.WriteRequest
		if err := req.Unmarshal(raw); err != nil {
			t.Fatal(err)
		}
	})
}
