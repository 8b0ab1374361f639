//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
)

// One agent sends to the three kinds of receivers that people have. Each holds
// the same samples in the end, and what its protocol can carry beside them.
func TestReceiversGetTheSameSamples(t *testing.T) {
	t.Parallel()
	lab, other := harness.New(t), harness.New(t)
	_, target := newShop(t)
	aggregator := lab.Aggregator()
	prometheus := other.Prometheus(other.Dir("prometheus"), "--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage,metadata-wal-records")
	victoria := other.VictoriaMetrics()
	agent := lab.Agent(harness.AgentConfig{
		Node: "node-1", Interval: time.Second, SendTo: aggregator.URL, Also: []string{prometheus.URL, victoria},
		Metrics: fmt.Sprintf(`scrape:
  native_histograms: true
  configs:
  - job_name: shop
    scrape_interval: 1s
    scrape_timeout: 1s
    always_scrape_classic_histograms: true
    static_configs: [{targets: [%q]}]
`, strings.TrimPrefix(target.URL, "http://")),
	})
	lab.Until(time.Now().Add(15*time.Second), "the target was scraped a dozen times")
	figures, err := agent.Figures()
	if err != nil {
		t.Fatal(err)
	}
	for _, verdict := range []string{"dropped", "rejected"} {
		if n, found := figures.Sum("nines_agent_metric_samples_total", fmt.Sprintf("verdict=%q", verdict)); !found || n != 0 {
			t.Errorf("%.0f samples %s", n, verdict)
		}
	}
	if n, _ := figures.Sum("nines_agent_metric_requests_total", `result="downgraded"`, fmt.Sprintf("destination=%q", strings.TrimPrefix(victoria, "http://"))); n != 1 {
		t.Errorf("VictoriaMetrics was asked by 2.0 and then by 1.0 %.0f times", n)
	}
	agent.Stop() // it sends what waits
	stopped := time.Now()

	servers := map[string]string{"aggregator": aggregator.URL, "Prometheus": prometheus.URL, "VictoriaMetrics": victoria}
	for _, selector := range []string{
		`shop_requests_total{cluster="e2e",node="node-1",code="200"}`, `shop_latency_seconds_bucket{le="1.0"}`,
		`up{job="shop"}`, `node_load1`, `node_cpu_seconds_total{cpu="0",mode="user"}`, `nines_agent_heartbeats_total`, `up{job="node-exporter"}`,
	} {
		lab.Eventually(time.Minute, "all show the same of "+selector, func() error {
			want := ""
			for name, server := range servers {
				got, err := raw(server, selector+"[5m]", stopped)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if n := strings.Count(got, " "); n < 8 {
					return fmt.Errorf("%s: only %d samples: %s", name, n, got)
				}
				if want == "" {
					want = got
				}
				if got != want {
					return fmt.Errorf("%s:\n%s\nelsewhere\n%s", name, got, want)
				}
			}
			return nil
		})
	}
	for _, name := range []string{"aggregator", "Prometheus"} {
		server := servers[name]
		if got, err := raw(server, "histogram_count(shop_latency_seconds)", stopped); err != nil || !strings.HasSuffix(got, fmt.Sprintf(" %d", shopObservations)) {
			t.Errorf("%s: native histogram: %q, %v", name, got, err)
		}
		q := url.Values{"query": {"shop_requests_total"}, "start": {fmt.Sprint(stopped.Add(-5 * time.Minute).Unix())}, "end": {fmt.Sprint(stopped.Add(time.Minute).Unix())}}
		if data, err := harness.Get(server + "/api/v1/query_exemplars?" + q.Encode()); err != nil || !strings.Contains(string(data), "trace-") {
			t.Errorf("%s: exemplars: %.300s, %v", name, data, err)
		}
	}
	if data, err := harness.Get(aggregator.URL + "/api/v1/metadata?metric=shop_latency_seconds"); err != nil || !strings.Contains(string(data), "How long an answer took.") {
		t.Errorf("metadata: %.300s, %v", data, err)
	}
	aggregator.Stop()
}

// raw is what a server answers to a query of one series: times and values.
func raw(server, query string, at time.Time) (string, error) {
	q := url.Values{"query": {query}, "time": {fmt.Sprint(at.Unix())}}
	data, err := harness.Get(server + "/api/v1/query?" + q.Encode())
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Value  []any
				Values [][]any
			}
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", err
	}
	if len(answer.Data.Result) != 1 {
		return "", fmt.Errorf("%d series: %.300s", len(answer.Data.Result), data)
	}
	r := answer.Data.Result[0]
	if r.Values == nil {
		r.Values = [][]any{r.Value}
	}
	var out strings.Builder
	for _, v := range r.Values {
		if v[1] == "NaN" { // a stale marker, which VictoriaMetrics shows
			continue
		}
		fmt.Fprintf(&out, "%.3f %v\n", v[0], v[1])
	}
	return strings.TrimSpace(out.String()), nil
}
