//go:build e2e

package e2e

import (
	"fmt"
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
	gate.closed.Store(false)
	end := time.Now()
	lab.Eventually(2*time.Minute, "what waited has arrived", func() error {
		samples, err := waiting()
		if err == nil && samples > 3000 { // those of a second are always on their way
			err = fmt.Errorf("%.0f samples wait", samples)
		}
		return err
	})
	caught := time.Since(end)
	lab.Say("%.0f samples of %s were sent in %s: %.0f × real time", held, outage, caught.Round(time.Millisecond), outage.Seconds()/caught.Seconds())
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
