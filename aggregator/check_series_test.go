package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sloOf writes an SLO whose part (good or bad) stands in line 13 and total in
// line 14.
func sloOf(t testing.TB, period, side, part, total string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := fmt.Sprintf(`apiVersion: openslo/v1
kind: SLO
metadata: {name: shop}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: %s, isRolling: true}]
  indicator:
    metadata: {name: shop}
    spec:
      ratioMetric:
        counter: true
        %s: {metricSource: {type: Prometheus, spec: {query: '%s'}}}
        total: {metricSource: {type: Prometheus, spec: {query: '%s'}}}
  objectives: [{displayName: answers, target: 0.99}, {displayName: more, target: 0.999}]
`, period, side, part, total)
	if err := os.WriteFile(filepath.Join(dir, "shop.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkedShop is a store with what a shop counts, scraped once a minute for a
// day.
func checkedShop(t testing.TB) *recorded {
	r := newRecorded(t)
	for _, i := range []string{"a", "b"} {
		r.counter(`http_requests_total{job="shop",instance="`+i+`",code="200"}`, 99)
		r.counter(`http_requests_total{job="shop",instance="`+i+`",code="500"}`, 1)
		r.histogram(`http_request_duration_seconds{job="shop",instance="`+i+`"}`, seconds)
	}
	r.counter(`answers_total{job="shop",instance="a",zone="x"}`, 100)
	r.counter(`answers_good_total{job="shop",instance="a",zone="x"}`, 99)
	r.counter(`answers_good_total{job="shop",instance="a",zone="y"}`, 99)
	r.counter(`questions_total{job="shop",instance="a"}`, 100)
	r.counter(`questions_total{job="shop",instance="b"}`, 100)
	r.counter(`questions_good_total{job="shop",instance="a"}`, 99)
	r.counter(`questions_bad_total{job="shop",instance="a"}`, 1)
	r.counter(`recorded_good_total`, 99)
	r.counter(`rare_total{job="shop"}`, 0.05) // three an hour
	r.counter(`rare_good_total{job="shop"}`, 0.05)
	r.counter(`quiet_total{job="shop"}`, 0)
	r.counter(`quiet_good_total{job="shop"}`, 0)
	r.write(1440, time.Minute)
	return r
}

// Each rule that needs series has a case that trips it, and what it says whole:
// a period longer than retention (pain 13) and one failure that pages (pain 16)
// among them.
func TestPain13And16RulesThatNeedSeries(t *testing.T) {
	r := checkedShop(t)
	server := r.serve()
	const good, total = `sum(rate(http_requests_total{job="shop",code!~"5.."}[5m]))`, `sum(rate(http_requests_total{job="shop"}[5m]))`
	for name, c := range map[string]struct {
		period, side, part, total string
		code                      int
		want                      []string // all findings, of all rules
	}{
		"all is well":         {"14d", "good", good, total, 0, nil},
		"histograms are well": {"14d", "good", `sum(rate(http_request_duration_seconds_bucket{job="shop",le="0.25"}[5m]))`, `sum(rate(http_request_duration_seconds_count{job="shop"}[5m]))`, 0, nil},
		"no-series: a name": {"14d", "good", `sum(rate(http_request_total{job="shop",code!~"5.."}[5m]))`, `sum(rate(http_request_total{job="shop"}[5m]))`, 1, []string{
			`13:63: error [no-series]: good names http_request_total, of which there was no series in the last 7 days; near are http_requests_total`,
			`14:64: error [no-series]: total names http_request_total, of which there was no series in the last 7 days; near are http_requests_total`,
		}},
		"no-series: a name without a like": {"14d", "good", good, `sum(rate(entirely_different_words_total{job="shop"}[5m]))`, 1, []string{
			`14:64: error [no-series]: total names entirely_different_words_total, of which there was no series in the last 7 days; no name is near`,
		}},
		"no-series: a label's value": {"14d", "good", `sum(rate(http_requests_total{job="shop",code="201"}[5m]))`, `sum(rate(http_requests_total{job="shopp"}[5m]))`, 1, []string{
			`13:63: warning [no-series]: good selects code="201", which no series of http_requests_total{job="shop"} has: its values are "200", "500"`,
			`14:64: error [no-series]: total selects job="shopp", which no series of http_requests_total has: its values are "shop"`,
		}},
		"no-series: a label": {"14d", "good", good, `sum(rate(http_requests_total{job="shop",shard="1"}[5m]))`, 1, []string{
			`14:64: error [no-series]: total selects shard="1", which no series of http_requests_total{job="shop"} has: they have no label shard`,
		}},
		"no-series: two labels": {"14d", "good", good, `sum(rate(http_requests_total{job="x",instance="y"}[5m]))`, 1, []string{
			`14:64: error [no-series]: total selects http_requests_total{job="x",instance="y"}, and no series of the last 7 days has all of that together`,
		}},
		"no-series: failures that did not happen yet are none": {"14d", "bad", `sum(rate(http_requests_total{job="shop",code="503"}[5m]))`, total, 0, nil},
		"no-series: an edge between buckets": {"14d", "good", `sum(rate(http_request_duration_seconds_bucket{job="shop",le="0.3"}[5m]))`, `sum(rate(http_request_duration_seconds_count{job="shop"}[5m]))`, 0, []string{
			`13:63: warning [no-series]: good wants the bucket le="0.3", which the histogram does not have: the next ones are 0.25 and 1, and the figure is told as a least and a most`,
		}},
		"few-scrapes: a range": {"14d", "good", `sum(rate(http_requests_total{job="shop",code!~"5.."}[2m]))`, total, 0, []string{
			`13:63: warning [few-scrapes]: good has a range of [2m], which holds 2 scrapes at the interval of 1m that was seen: give it at least [4m]`,
		}},
		"retention": {"30d", "good", good, total, 0, []string{
			`14:64: warning [retention]: the period is 30 days, and ` + server + ` keeps samples for 15 days: a ratio over the period that is read from there (a query, recording rules, backfill) lacks its beginning; keep samples for longer, or let the aggregator count, whose ledger keeps minutes for 400 days`,
		}},
		"label-sets: good has more": {"14d", "good", `sum(rate(answers_good_total[5m]))`, `sum(rate(answers_total[5m]))`, 1, []string{
			`13:63: warning [label-sets]: good has 1 label set with {instance="a", job="shop", zone="y"}, which total has not: its events are in no total`,
			`13:63: error [good-above-total]: good counted 285120 events in the last 1 day and total 144000: total must hold every event of good; select the same series on both sides`,
		}},
		"label-sets: a target is never good": {"14d", "good", `sum(rate(questions_good_total[5m]))`, `sum(rate(questions_total[5m]))`, 0, []string{
			`13:63: warning [label-sets]: total has 1 label set with {instance="b", job="shop"}, which good has not: all of its events are bad`,
		}},
		"label-sets: a target without failures is well": {"14d", "bad", `sum(rate(questions_bad_total[5m]))`, `sum(rate(questions_total[5m]))`, 0, nil},
		"label-sets: no labels": {"14d", "good", `sum(rate(recorded_good_total[5m]))`, `sum(rate(answers_total[5m]))`, 0, []string{
			`13:63: warning [label-sets]: the series of total have job, instance as labels and those of good have not: they may be of different things`,
		}},
		"zero-denominator": {"14d", "good", `sum(rate(quiet_good_total[5m]))`, `sum(rate(quiet_total[5m]))`, 0, []string{
			`14:64: warning [zero-denominator]: total had no event in the last 7 days: without events there is no ratio, no budget is spent and no alert fires; probe the service, or count something that happens`,
		}},
		"low-traffic": {"14d", "good", `sum(rate(rare_good_total[5m]))`, `sum(rate(rare_total[5m]))`, 0, []string{
			`14:64: warning [low-traffic]: objective answers: total has about 3 events in 1 h, so that a single one that fails burns faster than 6.72 and pages (fast): lower the target, count more events (a probe has one each few seconds), or take time slices`,
			`14:64: warning [low-traffic]: objective more: total has about 3 events in 1 h, so that a single one that fails burns faster than 6.72 and pages (fast): lower the target, count more events (a probe has one each few seconds), or take time slices`,
		}},
		"good-above-total": {"14d", "good", total, `sum(rate(http_requests_total{job="shop",code!~"5..",instance="a"}[5m]))`, 1, []string{
			`13:63: error [good-above-total]: good counted 288000 events in the last 1 day and total 142560: total must hold every event of good; select the same series on both sides`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sloOf(t, c.period, c.side, c.part, c.total)
			code, out, errs := called(t, "check", dir, "--server", server)
			if code != c.code || errs != "" {
				t.Errorf("exit %d, want %d: %s", code, c.code, errs)
			}
			var got []string
			for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
				if rest, ok := strings.CutPrefix(line, filepath.Join(dir, "shop.yaml")+":"); ok && !strings.Contains(rest, "[different-scope]") {
					got = append(got, rest)
				}
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("it says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestBurnWindowsNeedFourScrapes(t *testing.T) {
	r := newRecorded(t)
	r.counter(`slow_total{job="shop",code="200"}`, 99)
	r.counter(`slow_total{job="shop",code="500"}`, 1)
	r.write(1440, 2*time.Minute)
	dir := sloOf(t, "14d", "good", `sum(rate(slow_total{code!~"5.."}[10m]))`, `sum(rate(slow_total[10m]))`)
	code, out, errs := called(t, "check", dir, "--server", r.serve())
	want := `14:64: warning [few-scrapes]: alert fast looks at 5 min, which holds 2 scrapes at the interval of 2m that was seen: scrape every 1m15s or more often`
	if code != 0 || strings.Count(out, "few-scrapes") != 1 || !strings.Contains(out, want) {
		t.Errorf("exit %d: %s%s\nwant %s", code, out, errs, want)
	}
}

// Values and alert policies of an SLO's own are looked at, too.
func TestValuesAndOwnPoliciesAreCheckedAgainstSeries(t *testing.T) {
	r := checkedShop(t)
	dir := t.TempDir()
	text := `apiVersion: openslo/v1
kind: SLO
metadata: {name: depth}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 14d, isRolling: true}]
  indicator:
    metadata: {name: depth}
    spec:
      thresholdMetric:
        metricSource: {type: Prometheus, spec: {query: 'max(quiet_totals)'}}
  objectives: [{displayName: shallow, op: lt, value: 5, target: 0.99}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: shop}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 14d, isRolling: true}]
  indicator:
    metadata: {name: shop}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(http_requests_total{code!~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(http_requests_total[5m]))'}}}
  objectives: [{displayName: answers, target: 0.99}]
  alertPolicies:
    - kind: AlertPolicy
      metadata: {name: quick}
      spec:
        conditions:
          - kind: AlertCondition
            metadata: {name: quick}
            spec: {severity: page, condition: {kind: burnrate, op: gt, threshold: 2, lookbackWindow: 2m, alertAfter: 1m}}
`
	if err := os.WriteFile(filepath.Join(dir, "shop.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := called(t, "check", dir, "--server", r.serve())
	for _, want := range []string{
		"shop.yaml:12:56: error [no-series]: value names quiet_totals, of which there was no series in the last 7 days; near are quiet_total",
		"shop.yaml:28:64: warning [few-scrapes]: alert quick looks at 2 min, which holds 2 scrapes at the interval of 1m that was seen: scrape every 30s or more often",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	if code != 1 {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// An aggregator of ours books minutes: a period may be longer than it keeps
// samples.
func TestLedgerNeedsNoSamplesOfBookedMinutes(t *testing.T) {
	r := checkedShop(t)
	t.Cleanup(r.close)
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", r.db.API(prometheus.NewRegistry()))
	mux.HandleFunc("GET /api/nines/v1/agents", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"agents":[]}`)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	dir := sloOf(t, "30d", "good", `sum(rate(http_requests_total{code!~"5.."}[5m]))`, `sum(rate(http_requests_total[5m]))`)
	code, out, errs := called(t, "check", dir, "--server", s.URL)
	if code != 0 || strings.Contains(out, "retention") || !strings.Contains(out, "2 objectives, no errors") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func TestCheckReadsAFolderToo(t *testing.T) {
	r := checkedShop(t)
	r.close()
	dir := sloOf(t, "30d", "good", `sum(rate(http_request_total{code!~"5.."}[5m]))`, `sum(rate(http_requests_total{job="shopp"}[5m]))`)
	code, out, errs := called(t, "check", dir, "--data", r.data)
	for _, want := range []string{"good names http_request_total", "near are http_requests_total", `total selects job="shopp", which no series of http_requests_total has: its values are "shop"`} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in %s", want, out)
		}
	}
	if code != 1 || strings.Contains(out, "[retention]") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if code, _, errs := called(t, "check", dir, "--data", t.TempDir()); code != 1 || !strings.Contains(errs, "metrics") {
		t.Errorf("without a store: exit %d: %s", code, errs)
	}
	if code, _, errs := called(t, "check", dir, "--data", r.data, "--server", "http://127.0.0.1:1"); code != 2 || !strings.Contains(errs, "--server or --data, not both") {
		t.Errorf("with both: exit %d: %s", code, errs)
	}
}

// A server that cannot answer a question is no mistake of a document.
func TestRuleThatCannotBeLookedAtIsTold(t *testing.T) {
	r := checkedShop(t)
	r.limit(1)
	dir := sloOf(t, "14d", "good", `sum(rate(http_requests_total{code!~"5.."}[5m]))`, `sum(rate(http_requests_total[5m]))`)
	code, out, errs := called(t, "check", dir, "--server", r.serve())
	for _, rule := range []string{"few-scrapes", "zero-denominator", "good-above-total"} {
		if !strings.Contains(errs, "["+rule+"] was not looked at: query ") {
			t.Errorf("that %s was not looked at is not told: %s", rule, errs)
		}
	}
	if code != 0 || !strings.Contains(out, "2 objectives, no errors") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// Several objectives and documents share queries: each mistake is told once.
func TestSharedMistakeIsToldOnce(t *testing.T) {
	r := checkedShop(t)
	dir := sloOf(t, "14d", "good", `sum(rate(http_requests_total{code!~"5.."}[1m]))`, `sum(rate(http_requests_total[5m]))`)
	_, out, _ := called(t, "check", dir, "--server", r.serve())
	if n := strings.Count(out, "[few-scrapes]"); n != 1 {
		t.Errorf("%d findings, want 1:\n%s", n, out)
	}
}

func TestCheckAgainstAnEmptyServerSaysSo(t *testing.T) {
	dir := sloOf(t, "30d", "good", `sum(rate(a_total{code!~"5.."}[5m]))`, `sum(rate(a_total[5m]))`)
	code, _, errs := called(t, "check", dir, "--server", newRecorded(t).serve())
	if code != 1 || !strings.Contains(errs, "has no series of the last week, so that nothing can be checked against it") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// What suggest drafts has nothing that check finds in the same series, but for
// a server that keeps less than a month.
func TestDraftsPassTheCheckAgainstTheirSeries(t *testing.T) {
	r := newRecorded(t)
	for _, name := range []string{"ingress-nginx", "Istio", "OpenTelemetry HTTP", "OpenTelemetry HTTP (names with dots)", "gRPC", "Kubernetes API server", "http_requests_total"} {
		byConvention[name].add(r)
	}
	r.write(1440, time.Minute)
	server, dir := r.serve(), t.TempDir()
	if code, _, errs := called(t, "suggest", "--server", server, "--since", "1d", "--out", dir); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	code, out, errs := called(t, "check", dir, "--server", server)
	if code != 0 || errs != "" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, ": warning [") && !strings.Contains(line, "[retention]") {
			t.Error(line)
		}
	}
}
