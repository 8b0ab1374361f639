//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"go.yaml.in/yaml/v3"

	"nines/e2e/harness"
)

// The history that all sides read: a busy half with few errors, then a quiet
// half with many, so that a mean of ratios and a ratio of sums differ
// (sloth #241). Everything that a gauge shows changes at whole minutes.
const (
	convertStep  = 15 * time.Second
	convertSteps = 6 * 60 * 4 // six hours
)

// slothFile has the shapes of queries that Sloth's examples have.
const slothFile = `version: prometheus/v1
service: checkout
labels: {owner: payments}
slos:
- name: availability
  objective: 99.9
  sli:
    events:
      error_query: sum(rate(http_requests_total{job="checkout",code=~"(5..|429)"}[{{.window}}]))
      total_query: sum(rate(http_requests_total{job="checkout"}[{{.window}}]))
  alerting: {name: CheckoutErrors, page_alert: {labels: {severity: critical}}}
- name: latency
  objective: 99
  sli:
    events:
      error_query: |
        (
          sum(rate(http_request_duration_seconds_count{job="checkout"}[{{.window}}]))
          -
          sum(rate(http_request_duration_seconds_bucket{job="checkout",le="0.4"}[{{.window}}]))
        )
      total_query: sum(rate(http_request_duration_seconds_count{job="checkout"}[{{.window}}]))
  alerting: {page_alert: {disable: true}, ticket_alert: {disable: true}}
- name: refunds
  objective: 99.5
  sli:
    events:
      error_query: sum(rate(refunds_failed_total{job="checkout"}[{{.window}}])) OR on() vector(0)
      total_query: sum(rate(refunds_total{job="checkout"}[{{.window}}]))
  alerting: {page_alert: {disable: true}, ticket_alert: {disable: true}}
- name: queues
  objective: 90
  sli:
    events:
      error_query: sum_over_time((count(queue_fill_ratio{job="checkout"} > 0.75))[{{.window}}:]) OR on() vector(0)
      total_query: sum_over_time((count(queue_fill_ratio{job="checkout"}))[{{.window}}:])
  alerting: {page_alert: {disable: true}, ticket_alert: {disable: true}}
- name: satisfaction
  objective: 90
  sli:
    raw:
      error_ratio_query: |
        1 - (
          sum(sum_over_time(satisfaction_ratio{job="checkout"}[{{.window}}]))
          /
          sum(count_over_time(satisfaction_ratio{job="checkout"}[{{.window}}]))
        )
  alerting: {page_alert: {disable: true}, ticket_alert: {disable: true}}
`

const slothObject = `apiVersion: sloth.slok.dev/v1
kind: PrometheusServiceLevel
metadata: {name: buy, namespace: shop, labels: {prometheus: main}}
spec:
  service: buy
  labels: {owner: payments}
  slos:
  - name: availability
    objective: 99.9
    sli:
      events:
        errorQuery: sum(increase(http_requests_total{job="checkout",handler="/buy",code="500"}[{{.window}}]))
        totalQuery: sum(increase(http_requests_total{job="checkout",handler="/buy"}[{{.window}}]))
    alerting: {name: BuyErrors, pageAlert: {disable: true}, ticketAlert: {disable: true}}
`

// Pyrra's objects, and for each of them the rules that its documentation
// describes: the events of the window, all and bad ones.
const pyrraObjects = `apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata: {name: errors, namespace: shop, labels: {pyrra.dev/team: payments}}
spec:
  target: "99.9"
  window: 4w
  indicator:
    ratio:
      errors: {metric: 'http_requests_total{job="checkout",code="500"}'}
      total: {metric: 'http_requests_total{job="checkout"}'}
---
apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata: {name: latency}
spec:
  target: "99"
  window: 4w
  indicator:
    latency:
      success: {metric: 'http_request_duration_seconds_bucket{job="checkout",le="0.1"}'}
      total: {metric: 'http_request_duration_seconds_count{job="checkout"}'}
---
apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata: {name: native}
spec:
  target: "99"
  window: 4w
  indicator:
    latencyNative:
      latency: 250ms
      total: {metric: 'rpc_duration_seconds{job="checkout"}'}
---
apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata: {name: probes}
spec:
  target: "95"
  window: 4w
  indicator:
    bool_gauge: {metric: 'probe_success{job="probe"}'}
`

const pyrraGrouped = `apiVersion: pyrra.dev/v1alpha1
kind: ServiceLevelObjective
metadata: {name: errors-by-handler}
spec:
  target: "99.9"
  window: 4w
  indicator:
    ratio:
      errors: {metric: 'http_requests_total{job="checkout",code="500"}'}
      total: {metric: 'http_requests_total{job="checkout"}'}
      grouping: [handler]
`

var pyrraRules = map[string]struct{ total, bad string }{
	"errors":                  {`sum(increase(http_requests_total{job="checkout"}[4w]))`, `sum(increase(http_requests_total{job="checkout",code="500"}[4w]))`},
	"errors-by-handler /buy":  {`sum by (handler) (increase(http_requests_total{job="checkout"}[4w])) and on(handler) label_replace(vector(1),"handler","/buy","","")`, `sum by (handler) (increase(http_requests_total{job="checkout",code="500"}[4w])) and on(handler) label_replace(vector(1),"handler","/buy","","")`},
	"errors-by-handler /list": {`sum by (handler) (increase(http_requests_total{job="checkout"}[4w])) and on(handler) label_replace(vector(1),"handler","/list","","")`, `sum by (handler) (increase(http_requests_total{job="checkout",code="500"}[4w])) and on(handler) label_replace(vector(1),"handler","/list","","")`},
	"latency":                 {`sum(increase(http_request_duration_seconds_count{job="checkout"}[4w]))`, `sum(increase(http_request_duration_seconds_count{job="checkout"}[4w])) - sum(increase(http_request_duration_seconds_bucket{job="checkout",le="0.1"}[4w]))`},
	"native":                  {`histogram_count(sum(increase(rpc_duration_seconds{job="checkout"}[4w])))`, `(1 - histogram_fraction(0, 0.25, sum(increase(rpc_duration_seconds{job="checkout"}[4w])))) * histogram_count(sum(increase(rpc_duration_seconds{job="checkout"}[4w])))`},
}

// events are the events of one SLO.
type events struct{ bad, total float64 }

func (e events) ratio() float64 { return e.bad / e.total }

// history is the samples, and what truly happened.
type history struct {
	dir      string
	from, to time.Time
	truth    map[string]events // by SLO
}

// writeHistory writes one block of a TSDB.
func writeHistory(t *testing.T, lab *harness.Lab) history {
	t.Helper()
	to := time.Now().Add(-30 * time.Minute).Truncate(time.Minute)
	h := history{dir: lab.Dir("history"), from: to.Add(-convertSteps * convertStep), to: to, truth: map[string]events{}}
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), h.dir, (24 * time.Hour).Milliseconds())
	if err != nil {
		t.Fatal(err)
	}
	app := w.Appender(context.Background())
	put := func(at time.Time, v float64, name string, kv ...string) {
		t.Helper()
		if _, err := app.Append(0, labels.FromStrings(append([]string{"__name__", name}, kv...)...), at.UnixMilli(), v); err != nil {
			t.Fatal(err)
		}
	}
	add := func(slo string, bad, total float64) {
		e := h.truth[slo]
		h.truth[slo] = events{e.bad + bad, e.total + total}
	}
	// Counters stand high at the start, as those of a program that runs for long.
	const start = 1_000_000
	counters := map[string]float64{}
	count := func(at time.Time, n float64, name string, kv ...string) {
		t.Helper()
		key := name + strings.Join(kv, ",")
		if _, ok := counters[key]; !ok {
			counters[key] = start
		}
		counters[key] += n
		put(at, counters[key], name, kv...)
	}
	native := &histogram.Histogram{Schema: 0, PositiveSpans: []histogram.Span{{Offset: -3, Length: 4}}, PositiveBuckets: make([]int64, 4)}
	buckets := [4]int64{start, start, start, start} // (1/16,1/8], (1/8,1/4], (1/4,1/2], (1/2,1] s
	for i := range convertSteps + 1 {
		at := h.from.Add(time.Duration(i) * convertStep)
		busy := i <= convertSteps/2
		first := i == 0
		for n, handler := range []string{"/buy", "/list"} {
			for m, instance := range []string{"a", "b"} {
				good, failed, refused := 3_000.0+float64(100*n+7*m), 3.0, 0.0
				if !busy {
					good, failed = 30, float64(2+2*n+i%2)
					refused = float64(i % 3)
				}
				if first {
					good, failed, refused = 0, 0, 0
				}
				// Instance b starts again after an hour, from 0.
				if m == 1 && i == 240 {
					for _, code := range []string{"200", "500", "429"} {
						counters["http_requests_total"+strings.Join([]string{"job", "checkout", "handler", handler, "instance", instance, "code", code}, ",")] = 0
					}
				}
				for code, v := range map[string]float64{"200": good, "500": failed, "429": refused} {
					count(at, v, "http_requests_total", "job", "checkout", "handler", handler, "instance", instance, "code", code)
				}
				all := good + failed + refused
				add("checkout-availability", failed+refused, all)
				add("errors", failed, all)
				add("errors-by-handler "+handler, failed, all)
				if handler == "/buy" {
					add("buy-availability", failed, all)
				}
			}
		}
		fast, medium, slow := 900.0, 80.0, 20.0
		if !busy {
			fast, medium, slow = 5, 3, 2
		}
		if first {
			fast, medium, slow = 0, 0, 0
		}
		count(at, fast, "http_request_duration_seconds_bucket", "job", "checkout", "le", "0.1")
		count(at, fast+medium, "http_request_duration_seconds_bucket", "job", "checkout", "le", "0.4")
		count(at, fast+medium+slow, "http_request_duration_seconds_bucket", "job", "checkout", "le", "+Inf")
		count(at, fast+medium+slow, "http_request_duration_seconds_count", "job", "checkout")
		add("checkout-latency", slow, fast+medium+slow)
		add("latency", medium+slow, fast+medium+slow)
		refunds := 10.0
		if first {
			refunds = 0
		}
		count(at, refunds, "refunds_total", "job", "checkout")
		add("checkout-refunds", 0, refunds)
		if !first {
			for b, n := range [4]int64{40, 50, 9, 1} {
				buckets[b] += n
			}
			add("native", 10, 100)
		}
		native.Count, native.Sum = 0, float64(i)
		before := int64(0)
		for b, n := range buckets {
			native.PositiveBuckets[b], before = n-before, n
			native.Count += uint64(n)
		}
		if _, err := app.AppendHistogram(0, labels.FromStrings("__name__", "rpc_duration_seconds", "job", "checkout"), at.UnixMilli(), native.Copy(), nil); err != nil {
			t.Fatal(err)
		}
		minute := i / 4
		for q := range 3 {
			fill := 0.5
			if q == 0 && minute%60 >= 45 {
				fill = 0.9
			}
			put(at, fill, "queue_fill_ratio", "job", "checkout", "queue", fmt.Sprint(q))
		}
		for p := range 2 {
			up := 1.0
			if p == 0 && minute%90 >= 80 {
				up = 0
			}
			put(at, up, "probe_success", "job", "probe", "instance", fmt.Sprint(p))
		}
		put(at, 0.9+0.05*math.Sin(float64(i)/200), "satisfaction_ratio", "job", "checkout")
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return h
}

// rulesFile is what of a rule file, or of a PrometheusRule, is read here.
type rulesFile struct {
	Groups []struct{ Rules []recordingRule }
	Spec   struct {
		Groups []struct{ Rules []recordingRule }
	}
}

type recordingRule struct {
	Record string            `yaml:"record" json:"record"`
	Expr   string            `yaml:"expr" json:"expr"`
	Labels map[string]string `yaml:"labels" json:"labels"`
}

// slothRules returns the recording rules that Sloth makes of a file.
func slothRules(t *testing.T, lab *harness.Lab, path string) (rules []recordingRule) {
	t.Helper()
	out, err := lab.Sloth("generate", "-i", path)
	if err != nil {
		t.Fatal(err)
	}
	var f rulesFile
	if err := yaml.Unmarshal(out, &f); err != nil {
		t.Fatal(err)
	}
	for _, g := range append(f.Groups, f.Spec.Groups...) {
		for _, r := range g.Rules {
			if r.Record != "" {
				rules = append(rules, r)
			}
		}
	}
	if len(rules) == 0 {
		t.Fatalf("sloth made no rules of %s:\n%s", path, out)
	}
	return rules
}

// oneValue asks a Prometheus for a number at a time.
func oneValue(t *testing.T, server, expr string, at time.Time) float64 {
	t.Helper()
	data, err := harness.Get(server + "/api/v1/query?" + url.Values{"query": {expr}, "time": {fmt.Sprint(at.Unix())}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Data.Result) != 1 {
		t.Fatalf("%s has %d results, want 1: %.300s", expr, len(answer.Data.Result), data)
	}
	var v float64
	if _, err := fmt.Sscan(fmt.Sprint(answer.Data.Result[0].Value[1]), &v); err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return v
}

// near reports whether two figures differ by no more than a share of the second.
func near(a, b, share float64) bool { return math.Abs(a-b) <= share*math.Abs(b) }

// What is converted and replayed gives the figures that the peers' own rules
// give in a real Prometheus, where those are right; where they are not, the
// difference is bounded and printed.
func TestConvertedSLOsGiveTheFiguresOfTheirOwnRules(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	h := writeHistory(t, lab)
	file, object := lab.Write("old/sloth.yaml", slothFile), lab.Write("old/object.yaml", slothObject)
	lab.Write("old/pyrra.yaml", pyrraObjects)
	ours := lab.Program("nines-aggregator")
	converted, err := harness.Run(ours, "convert", "--to", "openslo", lab.Dir("old"))
	if err != nil {
		t.Fatal(err)
	}
	slos := lab.Write("slos/converted.yaml", string(converted))
	out, err := harness.Run(ours, "replay", "--slo", slos, "--samples", h.dir, "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	var answer []struct {
		SLO         string
		Good, Total json.Number
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%v in %.300s", err, out)
	}
	replayed := map[string]events{}
	for _, a := range answer {
		good, err1 := a.Good.Float64()
		total, err2 := a.Total.Float64()
		if err1 != nil || err2 != nil {
			t.Fatalf("%s: %v %v", a.SLO, err1, err2)
		}
		replayed[a.SLO] = events{total - good, total}
	}
	for handler, e := range grouped(t, lab, h) {
		replayed["errors-by-handler "+handler] = e
	}
	for slo, want := range h.truth {
		if got, ok := replayed[slo]; !ok || got != want {
			t.Errorf("%s: %v bad of %v events are counted, %v of %v happened", slo, got.bad, got.total, want.bad, want.total)
		}
	}

	// The server's folder is a copy: it may compact what it finds.
	data := lab.Dir("prometheus")
	copyTree(t, h.dir, data)
	prometheus := lab.Prometheus(data)
	ask := func(expr string) float64 { return oneValue(t, prometheus.URL, expr, h.to) }
	// Prometheus cuts a window open at its begin and extrapolates: by half an
	// interval here, where the window begins before the first sample.
	const extrapolated = 0.5 / convertSteps * 1.05
	compare := func(slo string, total, bad, tolerated float64) {
		t.Helper()
		mine := replayed[slo]
		lab.Say("%-24s total %.0f, theirs %+.4f %%; bad %.0f, theirs %+.4f %%", slo, mine.total, 100*(total/mine.total-1), mine.bad, 100*(bad-mine.bad)/math.Max(mine.bad, 1))
		if !near(total, mine.total, tolerated) || !near(bad, mine.bad, tolerated) {
			t.Errorf("%s: theirs are %v bad of %v, ours %v of %v: more than %.4f %% apart", slo, bad, total, mine.bad, mine.total, 100*tolerated)
		}
	}

	rules := append(slothRules(t, lab, file), slothRules(t, lab, object)...)
	var fiveMinutes strings.Builder
	fiveMinutes.WriteString("groups:\n- name: history\n  interval: 30s\n  rules:\n")
	thirtyDays := map[string]string{}
	for _, r := range rules {
		id := r.Labels["sloth_id"]
		switch r.Record {
		case "slo:sli_error:ratio_rate3d": // all of the history
			theirs, mine := ask(r.Expr), replayed[id].ratio()
			lab.Say("%-24s error ratio over 3d: ours %.6f %%, Sloth's %.6f %%", id, 100*mine, 100*theirs)
			if id == "checkout-satisfaction" {
				// A mean of all looks against one of the last five minutes at each.
				if !near(theirs, mine, 0.02) {
					t.Errorf("%s: error ratio %v, Sloth's is %v", id, mine, theirs)
				}
				continue
			}
			if !near(theirs, mine, 1e-9) {
				t.Errorf("%s: error ratio %v, Sloth's is %v", id, mine, theirs)
			}
			bad, total, ok := strings.Cut(r.Expr, "\n/\n")
			if !ok {
				t.Fatalf("the rule of %s is not a quotient: %s", id, r.Expr)
			}
			inEvents := strings.NewReplacer("rate(", "increase(")
			tolerated := extrapolated
			if id == "checkout-queues" {
				tolerated = 1e-9 // both look once a minute, and nothing is extrapolated
			}
			compare(id, ask(inEvents.Replace(total)), ask(inEvents.Replace(bad)), tolerated)
		case "slo:sli_error:ratio_rate5m":
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&fiveMinutes, "  - %s\n", text)
		case "slo:sli_error:ratio_rate30d":
			thirtyDays[id] = r.Expr
		}
	}
	for slo, r := range pyrraRules {
		compare(slo, ask(r.total), ask(r.bad), extrapolated)
		theirs, mine := ask(r.bad)/ask(r.total), replayed[slo].ratio()
		if !near(theirs, mine, 1e-9) {
			t.Errorf("%s: error ratio %v, Pyrra's is %v", slo, mine, theirs)
		}
	}
	// A gauge is read at each scrape there and once a minute here: four times
	// as many events, and the last scrape of all stands for a whole minute.
	scrapes := ask(`sum(count_over_time(probe_success{job="probe"}[4w]))`)
	failed := scrapes - ask(`sum(sum_over_time(probe_success{job="probe"}[4w]))`)
	compare("probes", scrapes/4, failed/4, 0.003)

	// Sloth's ratio of its period is a mean of ratios of five minutes.
	recorded := lab.Dir("recorded")
	if _, err := lab.Promtool("tsdb", "create-blocks-from", "rules", "--url="+prometheus.URL, "--start="+unix(h.from.Add(5*time.Minute)), "--end="+unix(h.to),
		"--eval-interval=30s", "--output-dir="+recorded, lab.Write("history.yaml", fiveMinutes.String())); err != nil {
		t.Fatal(err)
	}
	prometheus.Stop()
	copyTree(t, recorded, data)
	prometheus.Start()
	theirs, mine := ask(thirtyDays["checkout-availability"]), replayed["checkout-availability"].ratio()
	lab.Say("error ratio of the period: ours %.4f %%, Sloth's %.4f %%: %.0f times as much", 100*mine, 100*theirs, theirs/mine)
	// Half of the time 0.1 % fail, half of the time some 13 %: the mean is near
	// the half of that, while next to all of the events are in the first half.
	if theirs < 0.03 || theirs > 0.08 || mine > 0.003 {
		t.Errorf("error ratio of the period is %v, Sloth's %v: want the mean of ratios there, and the ratio of sums here", mine, theirs)
	}
	theirs, mine = ask(thirtyDays["checkout-satisfaction"]), replayed["checkout-satisfaction"].ratio()
	lab.Say("raw ratio of the period: ours %.4f %%, Sloth's %.4f %%", 100*mine, 100*theirs)
	// Both are means of the same ratio, every 30 s there and each minute here.
	if !near(theirs, mine, 0.005) {
		t.Errorf("raw ratio of the period is %v, Sloth's %v", mine, theirs)
	}
	refunds := ask(thirtyDays["checkout-refunds"])
	if refunds != 0 || replayed["checkout-refunds"].bad != 0 {
		t.Errorf("errors without a series: ours %v, Sloth's ratio %v, want none", replayed["checkout-refunds"], refunds)
	}
}

// grouped books the history of an SLO with groups and sums up the lines of the
// ledger, by handler.
func grouped(t *testing.T, lab *harness.Lab, h history) map[string]events {
	t.Helper()
	ours := lab.Program("nines-aggregator")
	converted, err := harness.Run(ours, "convert", "--to", "openslo", lab.Write("grouped.yaml", pyrraGrouped))
	if err != nil {
		t.Fatal(err)
	}
	booked := lab.Dir("booked")
	if _, err := harness.Run(ours, "backfill", "--slo", lab.Write("groups/slo.yaml", string(converted)), "--source", h.dir, "--data", booked); err != nil {
		t.Fatal(err)
	}
	out, err := harness.Run(ours, "ledger", "export", "--data", booked)
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]events{} // by the objective's id
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var line struct {
			ID    string      `json:"objective_id"`
			Good  json.Number `json:"good_high"`
			Total json.Number `json:"total"`
		}
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		good, err1 := line.Good.Float64()
		total, err2 := line.Total.Float64()
		if err1 != nil || err2 != nil {
			t.Fatalf("ledger: %v %v", err1, err2)
		}
		e := groups[line.ID]
		groups[line.ID] = events{e.bad + total - good, e.total + total}
	}
	// Lines have no name; the handlers differ in what happened.
	named := map[string]events{}
	for _, e := range groups {
		for _, handler := range []string{"/buy", "/list"} {
			if e.total == h.truth["errors-by-handler "+handler].total {
				named[handler] = e
			}
		}
	}
	if len(groups) != 2 || len(named) != 2 {
		t.Errorf("the groups are %v, want one for each handler", groups)
	}
	return named
}

// copyTree copies a folder's blocks into another.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(from, "*"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("%s holds no blocks: %v", from, err)
	}
	if _, err := harness.Run("cp", append(append([]string{"-r"}, blocks...), to)...); err != nil {
		t.Fatal(err)
	}
}

// rulesTest is a test of promtool's: for two hours two of a thousand events
// fail, twice what the target of shop-answers allows.
const rulesTest = `rule_files: [%s]
evaluation_interval: 30s
tests:
- interval: 30s
  input_series:
  - {series: 'requests_total{job="shop",code="200"}', values: '100000+998x400'}
  - {series: 'requests_total{job="shop",code="500"}', values: '100000+2x400'}
  promql_expr_test:
%s`

// What the dashboards of Sloth and Pyrra ask, and its answer.
var dashboardQueries = []struct{ expr, labels, value string }{
	{`round(slo:sli_error:ratio_rate5m{sloth_service="shop",sloth_slo="answers"} * 1e6)`, `{owner="payments",sloth_id="shop-answers",sloth_service="shop",sloth_slo="answers",sloth_window="5m"}`, "2000"},
	{`round(slo:sli_error:ratio_rate30d{sloth_service="shop"} * 1e6)`, `{owner="payments",sloth_id="shop-answers",sloth_service="shop",sloth_slo="answers",sloth_window="30d"}`, "2000"},
	{`slo:objective:ratio{sloth_service="shop"}`, `slo:objective:ratio{owner="payments",sloth_id="shop-answers",sloth_service="shop",sloth_slo="answers"}`, "0.999"},
	{`slo:error_budget:ratio{sloth_service="shop"}`, `slo:error_budget:ratio{owner="payments",sloth_id="shop-answers",sloth_service="shop",sloth_slo="answers"}`, "0.001"},
	{`slo:time_period:days{sloth_service="shop"}`, `slo:time_period:days{owner="payments",sloth_id="shop-answers",sloth_service="shop",sloth_slo="answers"}`, "30"},
	{`round(max(slo:current_burn_rate:ratio{sloth_service="shop"}) * 1e3)`, `{}`, "2000"},
	{`round(max(slo:period_burn_rate:ratio{sloth_service="shop"}) * 1e3)`, `{}`, "2000"},
	{`round(max(slo:period_error_budget_remaining:ratio{sloth_service="shop"}) * 1e3)`, `{}`, "-1000"},
	{`max(sloth_slo_info{sloth_id!=""}) by (sloth_service, sloth_id, sloth_objective, sloth_slo)`, `{sloth_id="shop-answers",sloth_objective="99.9",sloth_service="shop",sloth_slo="answers"}`, "1"},
	{`count(ALERTS{sloth_service="shop",sloth_slo="answers",sloth_severity="ticket",alertstate="firing"})`, `{}`, "1"},
	{`pyrra_objective{slo="shop-answers"}`, `pyrra_objective{slo="shop-answers"}`, "0.999"},
	{`pyrra_window{slo="shop-answers"}`, `pyrra_window{slo="shop-answers"}`, "2592000"},
	{`round(pyrra_availability{slo="shop-answers"} * 1e6)`, `{slo="shop-answers"}`, "998000"},
	{`round((pyrra_availability{slo="shop-answers"} - on(slo) pyrra_objective{slo="shop-answers"}) / (1 - pyrra_objective{slo="shop-answers"}) * 1e3)`, `{slo="shop-answers"}`, "-1000"},
	{`round((pyrra_availability - pyrra_objective) / (1 - pyrra_objective) * 1e3)`, `{slo="shop-answers"}`, "-1000"},
	{`round(sum(rate(pyrra_requests_total{slo="shop-answers"}[5m])) * 60)`, `{}`, "2000"},
	{`round(sum(rate(pyrra_errors_total{slo="shop-answers"}[5m])) * 60)`, `{}`, "4"},
	{`round(sum(pyrra_requests:rate5m{slo="shop-answers"}) * 60)`, `{}`, "2000"},
	{`round(sum(pyrra_errors:rate5m{slo="shop-answers"}) * 60)`, `{}`, "4"},
}

func TestRulesForDashboardsAnswerWhatDashboardsAsk(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	ours := lab.Program("nines-aggregator")
	old := lab.Write("old.yaml", `version: prometheus/v1
service: shop
labels: {owner: payments}
slos:
- name: answers
  objective: 99.9
  sli:
    events:
      error_query: sum(rate(requests_total{job="shop",code=~"5.."}[{{.window}}]))
      total_query: sum(rate(requests_total{job="shop"}[{{.window}}]))
`)
	slo, err := harness.Run(ours, "convert", "--to", "openslo", old)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := harness.Run(ours, "convert", "--to", "prometheus", "--with", "sloth,pyrra", lab.Write("slos/shop.yaml", string(slo)))
	if err != nil {
		t.Fatal(err)
	}
	path := lab.Write("rules.yaml", string(rules))
	if _, err := lab.Promtool("check", "rules", "--lint=all", "--lint-fatal", path); err != nil {
		t.Fatalf("%v\nThe rules:\n%s", err, rules)
	}
	var asked strings.Builder
	for _, q := range dashboardQueries {
		fmt.Fprintf(&asked, "  - {expr: '%s', eval_time: 2h, exp_samples: [{labels: '%s', value: %s}]}\n", q.expr, q.labels, q.value)
	}
	if out, err := lab.Promtool("test", "rules", lab.Write("test.yaml", fmt.Sprintf(rulesTest, path, asked.String()))); err != nil || !strings.Contains(string(out), "SUCCESS") {
		t.Errorf("%v: %s", err, out)
	}
}

// formsOfSLOs are the forms that are no share of events: the rules must give
// what the engine's definition of each says.
const formsOfSLOs = `apiVersion: openslo/v1
kind: SLO
metadata: {name: raw}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator: {metadata: {name: i}, spec: {ratioMetric: {rawType: success, raw: {metricSource: {type: Prometheus, spec: {query: 'good_ratio'}}}}}}
  objectives: [{displayName: a, target: 0.9}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: value}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator: {metadata: {name: i}, spec: {thresholdMetric: {metricSource: {type: Prometheus, spec: {query: 'queue_depth'}}}}}
  objectives: [{displayName: a, target: 0.9, op: lte, value: 5}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: slices}
spec:
  service: shop
  budgetingMethod: Timeslices
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator:
    metadata: {name: i}
    spec:
      ratioMetric:
        counter: true
        bad: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="shop",code="500"}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="shop"}[5m]))'}}}
  objectives:
  - {displayName: strict, target: 0.9, timeSliceTarget: 0.999, timeSliceWindow: 5m}
  - {displayName: loose, target: 0.9, timeSliceTarget: 0.99, timeSliceWindow: 5m}
`

func TestRulesOfEachFormGiveWhatItMeans(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	rules, err := harness.Run(lab.Program("nines-aggregator"), "convert", "--to", "prometheus", lab.Write("slos/forms.yaml", formsOfSLOs))
	if err != nil {
		t.Fatal(err)
	}
	path := lab.Write("rules.yaml", string(rules))
	if _, err := lab.Promtool("check", "rules", path); err != nil {
		t.Fatalf("%v\nThe rules:\n%s", err, rules)
	}
	var asked strings.Builder
	// One of two queues is too long, one of a hundred is bad by the ratio, and
	// two of a thousand events fail in each slice.
	for selected, permille := range map[string]int{`slo="raw"`: 10, `slo="value"`: 500, `slo="slices",objective="strict"`: 1000, `slo="slices",objective="loose"`: 0} {
		fmt.Fprintf(&asked, "  - {expr: 'round(max(slo:sli_error:ratio{window=\"1h\",%s}) * 1e3)', eval_time: 2h, exp_samples: [{labels: '{}', value: %d}]}\n", selected, permille)
	}
	input := strings.Replace(rulesTest, "  promql_expr_test:", `  - {series: 'good_ratio', values: '0.99x400'}
  - {series: 'queue_depth{queue="a"}', values: '5x400'}
  - {series: 'queue_depth{queue="b"}', values: '6x400'}
  promql_expr_test:`, 1)
	if out, err := lab.Promtool("test", "rules", lab.Write("test.yaml", fmt.Sprintf(input, path, asked.String()))); err != nil || !strings.Contains(string(out), "SUCCESS") {
		t.Errorf("%v: %s", err, out)
	}
}
