//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"nines/e2e/harness"
)

// till is a program whose requests the test counts.
type till struct {
	mu        sync.Mutex
	good, bad int64
}

func (s *till) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Who asked may be gone.
	_, _ = fmt.Fprintf(w, "# TYPE shop_requests_total counter\nshop_requests_total{code=\"200\"} %d\nshop_requests_total{code=\"500\"} %d\n", s.good, s.bad)
}

// work answers requests, more in some seconds than in others.
func (s *till) work(stop <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := int64(0); ; n++ {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		s.mu.Lock()
		s.good += n % 17
		if n%13 == 0 {
			s.bad += n % 5
		}
		s.mu.Unlock()
	}
}

// gate stands in front of a server and can be closed: connections then break.
type gate struct {
	proxy  *httputil.ReverseProxy
	closed atomic.Bool
}

func newGate(t *testing.T, upstream string) (g *gate, address string) {
	t.Helper()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	g = &gate{proxy: httputil.NewSingleHostReverseProxy(to)}
	g.proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return g, server.URL
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.closed.Load() {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close() // it is to break
		}
		return
	}
	g.proxy.ServeHTTP(w, r)
}

// bystander is another sender, on an address of its own. It writes a sample ten
// times a second.
type bystander struct {
	t      *testing.T
	url    string
	client *http.Client

	mu               sync.Mutex
	written, refused int
	longest          time.Duration
}

func newBystander(t *testing.T, server string) *bystander {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &bystander{t: t, url: server + "/api/v1/write", client: &http.Client{Transport: transport, Timeout: time.Minute}}
}

func (b *bystander) write(span time.Duration) {
	over := make(chan struct{})
	timer := time.AfterFunc(span, func() { close(over) })
	defer timer.Stop()
	b.until(over)
}

func (b *bystander) until(over <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		now := time.Now()
		raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
			Labels:  []prompb.Label{{Name: "__name__", Value: "bystander_writes"}, {Name: "job", Value: "bystander"}},
			Samples: []prompb.Sample{{Value: float64(now.Unix()), Timestamp: now.UnixMilli()}},
		}}}).Marshal()
		if err != nil {
			b.t.Error(err)
			return
		}
		res, err := b.client.Post(b.url, "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, raw)))
		b.mu.Lock()
		if err != nil || res.StatusCode/100 != 2 {
			b.refused++
		} else {
			b.written++
		}
		b.longest = max(b.longest, time.Since(now))
		b.mu.Unlock()
		if err == nil {
			if err := res.Body.Close(); err != nil {
				b.t.Error(err)
			}
		}
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
}

func (b *bystander) says() (written, refused int, longest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.written, b.refused, b.longest
}

const outageSLO = `apiVersion: openslo/v1
kind: SLO
metadata: {name: shop}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 28d, isRolling: true}]
  indicator:
    metadata: {name: shop-requests}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(shop_requests_total{code!~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(shop_requests_total[5m]))'}}}
  objectives: [{displayName: availability, target: 0.999}]
`

// An agent sends to two aggregators. One of them is cut off, killed, and comes
// back; the agent is killed twice meanwhile. Both have the same book in the end.
func TestOutageOfAReceiverLeavesTheSameLedger(t *testing.T) {
	t.Parallel()
	outage := 100 * time.Second
	if text := os.Getenv("SOAK_METRICS_MINUTES"); text != "" {
		minutes, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("SOAK_METRICS_MINUTES: %v", err)
		}
		outage = time.Duration(minutes) * time.Minute
	}
	app := &till{}
	target := httptest.NewServer(app)
	t.Cleanup(target.Close)
	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() { app.work(stop) })
	t.Cleanup(func() { close(stop); working.Wait() })

	lab, other := harness.New(t), harness.New(t)
	folder := func(l *harness.Lab) string {
		l.Write("slos/shop.yaml", outageSLO)
		return slos(l)
	}
	steady := other.Aggregator("--slos", folder(other))
	cut := lab.Aggregator("--slos", folder(lab))
	gate, address := newGate(t, cut.URL)
	agent := lab.Agent(harness.AgentConfig{
		Node: "node-1", Interval: time.Second, SendTo: steady.URL, Also: []string{address},
		Metrics: fmt.Sprintf("scrape:\n  configs:\n  - job_name: shop\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    static_configs: [{targets: [%q]}]\n", strings.TrimPrefix(target.URL, "http://")),
	})
	waiting := func() (samples float64, err error) {
		figures, err := agent.Figures()
		if err != nil {
			return 0, err
		}
		samples, found := figures.Sum("nines_agent_metric_queue_samples", fmt.Sprintf("destination=%q", strings.TrimPrefix(address, "http://")))
		if !found {
			return 0, fmt.Errorf("the agent does not say what waits")
		}
		return samples, nil
	}
	lab.Until(time.Now().Add(70*time.Second), "a minute has passed")
	begin := time.Now()
	gate.closed.Store(true)
	lab.Say("the aggregator is cut off")
	step := outage / 5
	lab.Until(begin.Add(step), "the first kill")
	agent.Kill()
	agent.Start()
	lab.Until(begin.Add(2*step), "the aggregator is killed")
	cut.Kill()
	lab.Until(begin.Add(3*step), "the second kill")
	agent.Kill()
	agent.Start()
	lab.Until(begin.Add(4*step), "the aggregator comes back")
	cut.Start()
	lab.Until(begin.Add(outage), "the network comes back")
	held, err := waiting()
	if err != nil {
		t.Fatal(err)
	}
	before := newBystander(t, cut.URL)
	before.write(3 * time.Second)
	beside := newBystander(t, cut.URL)
	gate.closed.Store(false)
	end := time.Now()
	caughtUp := make(chan struct{})
	working.Go(func() { beside.until(caughtUp) })
	lab.Eventually(2*time.Minute, "what waited has arrived", func() error {
		samples, err := waiting()
		if err == nil && samples > 3000 { // those of a second are always on their way
			err = fmt.Errorf("%.0f samples wait", samples)
		}
		return err
	})
	caught := time.Since(end)
	close(caughtUp)
	lab.Say("%.0f samples of %s were sent in %s: %.0f × real time", held, outage, caught.Round(time.Millisecond), outage.Seconds()/caught.Seconds())
	written, refused, longest := beside.says()
	_, _, usual := before.says()
	lab.Say("another sender wrote %d times meanwhile, each within %s (before: %s); %d were put off or refused", written, longest.Round(time.Millisecond), usual.Round(time.Millisecond), refused)
	if written == 0 || refused > 0 {
		t.Errorf("another sender wrote %d times, and %d were put off or refused", written, refused)
	}
	if held < 10*outage.Seconds() {
		t.Errorf("only %.0f samples waited: the outage was none", held)
	}

	from, to := begin.Add(-time.Minute).Truncate(time.Minute), end.Truncate(time.Minute)
	for _, slo := range []string{"shop", "node-heard"} {
		var lines map[string][]minute
		lab.Eventually(8*time.Minute, "the minutes of the outage are booked by both, alike: "+slo, func() error {
			lines = map[string][]minute{}
			for name, server := range map[string]string{"steady": steady.URL, "cut": cut.URL} {
				o, err := objectiveOf(server, slo)
				if err != nil {
					return err
				}
				all, err := ledger(server, o.ID, from, to)
				if err != nil {
					return err
				}
				if len(all) == 0 || all[len(all)-1].Minute.Before(to.Add(-time.Minute)) {
					return fmt.Errorf("%s: %s: %d minutes are booked", name, slo, len(all))
				}
				lines[name] = all
			}
			return unlike(lines["steady"], lines["cut"])
		})
		events := int64(0)
		for _, m := range lines["cut"] {
			lab.Say("%s %s: good %d, total %d, expected %d, counted %d, timed %d ms", slo, m.Minute.Format(time.TimeOnly), m.GoodHigh/1e6, m.Total/1e6, m.Expected, m.Counted, m.Timed)
			events += m.Total
		}
		if events == 0 {
			t.Errorf("%s: no events were booked", slo)
		}
	}
	figures, err := agent.Figures()
	if err != nil {
		t.Fatal(err)
	}
	for _, verdict := range []string{"dropped", "rejected"} {
		if n, found := figures.Sum("nines_agent_metric_samples_total", fmt.Sprintf("verdict=%q", verdict)); !found || n != 0 {
			t.Errorf("%.0f samples %s", n, verdict)
		}
	}
	agent.Stop()
	steady.Stop()
	cut.Stop()
}

// unlike says where two books differ in what was seen.
func unlike(a, b []minute) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d minutes", len(a), len(b))
	}
	for i := range a {
		x, y := a[i], b[i]
		if !x.Minute.Equal(y.Minute) || x.GoodLow != y.GoodLow || x.GoodHigh != y.GoodHigh || x.Total != y.Total ||
			x.Expected != y.Expected || x.Counted != y.Counted || x.Timed != y.Timed {
			return fmt.Errorf("minute %s: %+v and %+v", x.Minute.Format(time.TimeOnly), x, y)
		}
	}
	return nil
}
