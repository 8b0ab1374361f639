//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nines/e2e/harness"
	"nines/e2e/parts"
)

// shop is a target whose events the test knows. It counts in the middle of
// each minute only, so that whoever scrapes it each second sees all events of a
// minute in that minute.
type shop struct {
	requests *client.CounterVec
	latency  client.Observer
	size     client.Observer

	mu    sync.Mutex
	truth map[time.Time]happened // by minute
}

type happened struct{ good, bad int64 }

const shopObservations = 40 // of each histogram, before anybody scrapes

func newShop(t *testing.T) (*shop, *httptest.Server) {
	reg := client.NewRegistry()
	latency := client.NewHistogram(client.HistogramOpts{Name: "shop_latency_seconds", Help: "How long an answer took.",
		Buckets: []float64{0.1, 1}, NativeHistogramBucketFactor: 1.1})
	size := client.NewHistogram(client.HistogramOpts{Name: "shop_size_bytes", Help: "How large an answer is.", Buckets: []float64{100, 1000}})
	s := &shop{
		requests: client.NewCounterVec(client.CounterOpts{Name: "shop_requests_total", Help: "Answers of the shop."}, []string{"code"}),
		latency:  latency, size: size, truth: map[time.Time]happened{},
	}
	reg.MustRegister(s.requests, latency)
	classic := client.NewRegistry()
	classic.MustRegister(size)
	for i := range shopObservations {
		s.latency.Observe(float64(i) / 20)
		s.size.Observe(float64(50 * i))
	}
	s.count(1, 1)
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.Handle("/classic", promhttp.HandlerFor(classic, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return s, server
}

// count counts events, with exemplars.
func (s *shop) count(good, bad int64) {
	trace := client.Labels{"trace_id": fmt.Sprintf("trace-%d", time.Now().UnixNano())}
	s.requests.WithLabelValues("200").(client.ExemplarAdder).AddWithExemplar(float64(good), trace)
	s.requests.WithLabelValues("500").(client.ExemplarAdder).AddWithExemplar(float64(bad), trace)
}

// open serves customers until ctx ends.
func (s *shop) open(ctx context.Context) {
	for n := int64(1); ; n++ {
		now := time.Now()
		next := now.Truncate(time.Minute).Add(30 * time.Second)
		if !next.After(now) {
			next = next.Add(time.Minute)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		e := happened{good: 1000 + n, bad: 10 * n}
		s.mu.Lock()
		s.truth[time.Now().UTC().Truncate(time.Minute)] = e
		s.count(e.good, e.bad)
		s.mu.Unlock()
	}
}

// shopAnswers is an SLO over the shop as one group of senders tells it.
const shopAnswers = `apiVersion: openslo/v1
kind: SLO
metadata:
  name: shop-%[1]s
spec:
  service: e2e
  budgetingMethod: Occurrences
  timeWindow:
  - duration: 28d
    isRolling: true
  indicator:
    metadata:
      name: answers-%[1]s
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: Prometheus
            spec:
              query: sum(increase(shop_requests_total{cluster="%[1]s",code="200"}[5m]))
        total:
          metricSource:
            type: Prometheus
            spec:
              query: sum(increase(shop_requests_total{cluster="%[1]s"}[5m]))
  objectives:
  - displayName: answers
    target: 0.9
`

// prometheusOf is one of a pair of Prometheus servers. It sends twice: by 1.0 as
// a replica of the cluster ha1, and by 2.0 for the cluster ha2 without telling
// which replica it is.
const prometheusOf = `global:
  scrape_interval: 1s
  scrape_timeout: 1s
  scrape_native_histograms: true
  external_labels: {cluster: ha1, prometheus: shop, prometheus_replica: %[1]s}
scrape_configs:
- job_name: shop
  static_configs: [{targets: [%[2]q]}]
- job_name: classic
  metrics_path: /classic
  convert_classic_histograms_to_nhcb: true
  static_configs: [{targets: [%[2]q]}]
remote_write:
- url: %[3]q
  name: one
  send_exemplars: true
  send_native_histograms: true
  metadata_config: {send_interval: 1s}
- url: %[3]q
  name: two
  protobuf_message: io.prometheus.write.v2.Request
  send_exemplars: true
  send_native_histograms: true
  write_relabel_configs:
  - {action: labeldrop, regex: prometheus_replica}
  - {target_label: cluster, replacement: ha2}
`

// The real senders, each in the ways that it knows: what they scrape of one
// target arrives whole, and none of it is counted twice.
func TestRealSendersAreTakenInFullAndNothingIsCountedTwice(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	for _, cluster := range []string{"ha1", "ha2", "vm"} {
		lab.Write("slos/"+cluster+".yaml", fmt.Sprintf(shopAnswers, cluster))
	}
	aggregator := lab.Aggregator("--slos", lab.Dir("slos"))
	write := aggregator.URL + "/api/v1/write"
	part := func(p parts.Part) string {
		dir, err := parts.Get(t.Context(), p, func(line string) { lab.Say("%s", line) })
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, p.Name)
	}

	target, server := newShop(t)
	ctx, stop := context.WithCancel(t.Context())
	var customers sync.WaitGroup
	customers.Go(func() { target.open(ctx) })
	t.Cleanup(func() { stop(); customers.Wait() })
	address := strings.TrimPrefix(server.URL, "http://")

	var senders []string // addresses of the two Prometheus servers
	start := func(name, path string, args ...string) string {
		listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, "LISTEN", listen)
		}
		lab.Start(harness.Command{Name: name, Path: path, Args: args,
			Ready: func() error { _, err := harness.Get("http://" + listen + "/metrics"); return err }})
		return "http://" + listen
	}
	begun := time.Now()
	for _, replica := range []string{"a", "b"} {
		senders = append(senders, start("prometheus-"+replica, part(parts.Prometheus),
			"--config.file="+lab.Write("prometheus-"+replica+".yml", fmt.Sprintf(prometheusOf, replica, address, write)),
			"--storage.tsdb.path="+lab.Dir("prometheus-"+replica), "--web.listen-address=LISTEN",
			"--enable-feature=exemplar-storage,metadata-wal-records,st-storage"))
	}
	vmagent := start("vmagent", part(parts.VMAgent),
		"-promscrape.config="+lab.Write("vmagent.yml", fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: shop\n  static_configs: [{targets: [%q]}]\n", address)),
		"-remoteWrite.url="+write, "-remoteWrite.tmpDataPath="+lab.Dir("vmagent"), "-remoteWrite.label=cluster=vm", "-httpListenAddr=LISTEN")

	for _, expr := range []string{
		`count(shop_requests_total{cluster="ha1",code="200",prometheus="shop"}) == 2`,
		`count(shop_requests_total{cluster="ha2",code="200",prometheus="shop"}) == 1`,
		`count(shop_requests_total{cluster="vm",code="200"}) == 1`,
		`count(up{cluster="vm"} == 1) == 1`,
		// Native histograms by 1.0 and 2.0.
		fmt.Sprintf(`histogram_count(shop_latency_seconds{cluster="ha1",prometheus_replica="a"}) == %d`, shopObservations),
		fmt.Sprintf(`histogram_count(shop_latency_seconds{cluster="ha2"}) == %d`, shopObservations),
		// The median of 0 to 1.95 s.
		`abs(histogram_quantile(0.5, shop_latency_seconds{cluster="ha1",prometheus_replica="b"}) - 1) < 0.1`,
		`abs(histogram_quantile(0.5, shop_latency_seconds{cluster="ha2"}) - 1) < 0.1`,
		// Custom buckets, which 1.0 cannot carry: 3 of 40 values lie below 100.
		fmt.Sprintf(`histogram_count(shop_size_bytes{cluster="ha2"}) == %d`, shopObservations),
		`abs(histogram_fraction(0, 100, shop_size_bytes{cluster="ha2"}) - 3/40) < 0.001`,
		// vmagent has classic ones.
		fmt.Sprintf(`shop_latency_seconds_count{cluster="vm"} == %d`, shopObservations),
	} {
		lab.Eventually(time.Minute, expr, func() error {
			n, err := query(aggregator.URL, expr)
			if err == nil && n == 0 {
				err = fmt.Errorf("it is not so")
			}
			return err
		})
	}
	lab.Eventually(time.Minute, "exemplars of 1.0 and of 2.0", func() error {
		for _, cluster := range []string{"ha1", "ha2"} {
			q := url.Values{"query": {fmt.Sprintf(`shop_requests_total{cluster=%q}`, cluster)}, "start": {unix(begun.Add(-time.Minute))}, "end": {unix(time.Now().Add(time.Minute))}}
			data, err := harness.Get(aggregator.URL + "/api/v1/query_exemplars?" + q.Encode())
			if err != nil {
				return err
			}
			if !strings.Contains(string(data), `"trace_id":"trace-`) {
				return fmt.Errorf("%s has none: %.300s", cluster, data)
			}
		}
		return nil
	})
	lab.Eventually(time.Minute, "metadata", func() error {
		for name, want := range map[string]string{"shop_requests_total": "Answers of the shop.", "shop_latency_seconds": "How long an answer took."} {
			data, err := harness.Get(aggregator.URL + "/api/v1/metadata?metric=" + name)
			if err != nil {
				return err
			}
			var answer struct {
				Data map[string][]struct{ Type, Help string }
			}
			if err := json.Unmarshal(data, &answer); err != nil {
				return err
			}
			if got := answer.Data[name]; len(got) != 1 || got[0].Help != want || got[0].Type == "unknown" {
				return fmt.Errorf("%s has %s", name, data)
			}
		}
		return nil
	})
	lab.Say("all kinds of data came from all senders, %v after their start", time.Since(begun).Round(time.Second))

	// Two minutes of each SLO hold what the shop counted in them.
	lab.Eventually(8*time.Minute, "two minutes hold what the target counted", func() error {
		for _, cluster := range []string{"ha1", "ha2", "vm"} {
			o, err := objectiveOf(aggregator.URL, "shop-"+cluster)
			if err != nil {
				return err
			}
			lines, err := ledger(aggregator.URL, o.ID, begun.Add(-time.Minute), time.Now())
			if err != nil {
				return err
			}
			same, total := 0, int64(0)
			for _, m := range lines {
				target.mu.Lock()
				e, known := target.truth[m.Minute.UTC()]
				target.mu.Unlock()
				if m.Minute.Before(begun.Add(10 * time.Second)) {
					// The first values that were seen are baselines.
					known = false
				}
				if !known {
					continue
				}
				if m.Total != (e.good+e.bad)*1e6 || m.GoodHigh != e.good*1e6 || m.GoodLow != m.GoodHigh || len(m.Gaps) > 0 {
					return fmt.Errorf("%s: minute %s holds %d to %d good of %d micro-events and %d gaps, the target counted %d good, %d bad",
						cluster, m.Minute.Format(time.TimeOnly), m.GoodLow, m.GoodHigh, m.Total, len(m.Gaps), e.good, e.bad)
				}
				same, total = same+1, total+m.Total/1e6
			}
			if same < 2 {
				return fmt.Errorf("%s: %d of %d booked minutes can be compared", cluster, same, len(lines))
			}
			lab.Say("%s: %d minutes with %d events, as the target counted", cluster, same, total)
		}
		return nil
	})

	// No sender lost anything by its own account, nor did the receiver refuse.
	for i, url := range senders {
		figures := figuresOf(t, url)
		for _, name := range []string{"samples_failed_total", "histograms_failed_total", "exemplars_failed_total", "metadata_failed_total"} {
			if n, found := figures.Sum("prometheus_remote_storage_" + name); !found || n != 0 {
				t.Errorf("sender %d: %s is %v (there: %v)", i, name, n, found)
			}
		}
		for _, remote := range []string{"one", "two"} {
			for _, name := range []string{"samples_total", "exemplars_total", "histograms_total"} {
				if n, _ := figures.Sum("prometheus_remote_storage_"+name, `remote_name="`+remote+`"`); n == 0 {
					t.Errorf("sender %d: %s of %s is 0: the test is void", i, name, remote)
				}
			}
		}
	}
	figures := figuresOf(t, vmagent)
	if n, found := figures.Sum("vmagent_remotewrite_packets_dropped_total"); !found || n != 0 {
		t.Errorf("vmagent dropped %v blocks (there: %v)", n, found)
	}
	figures = figuresOf(t, aggregator.URL)
	if n, _ := figures.Sum("nines_aggregator_http_requests_total", `code="415"`, `handler="write"`); n == 0 {
		t.Error("nobody was told to speak snappy: vmagent did not try its own protocol, and the test is void")
	}
	for series, n := range figures {
		if strings.HasPrefix(series, "nines_store_samples_total{") && !strings.Contains(series, `"stored"`) && n != 0 {
			t.Errorf("the receiver refused: %s %v", series, n)
		}
		if strings.HasPrefix(series, "nines_store_limited_") && n != 0 {
			t.Errorf("a limit was met: %s %v", series, n)
		}
	}
	aggregator.Stop()
}

// figuresOf reads the page /metrics of any server.
func figuresOf(t *testing.T, server string) harness.Figures {
	t.Helper()
	figures, err := (&harness.Agent{URL: server}).Figures()
	if err != nil {
		t.Fatal(err)
	}
	return figures
}
