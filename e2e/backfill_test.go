//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
)

const shopSLO = `apiVersion: openslo/v1
kind: SLO
metadata: {name: shop-answers, displayName: The shop answers}
spec:
  description: Requests without an error of the server.
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator:
    metadata: {name: shop-requests}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(shop_requests_total{code!~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(shop_requests_total[5m]))'}}}
  objectives: [{displayName: answers, target: 0.999}]
`

// A history that promtool writes as blocks of a TSDB is in the period of a new
// SLO at once, event by event, and survives a kill.
func TestBackfillGivesANewSLOItsMonth(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	const days = 20
	end := time.Now().Add(-time.Hour).Truncate(time.Minute)
	begin := end.Add(-days * 24 * time.Hour)
	var text strings.Builder
	var good, bad, total int
	text.WriteString("# TYPE shop_requests counter\n")
	var errorsOf strings.Builder
	for at, n := begin, 0; at.Before(end); at, n = at.Add(time.Minute), n+1 {
		if n > 0 { // the first value is a baseline
			good += 57 + n%7
			if n%100 == 0 {
				bad += 3
			}
		}
		fmt.Fprintf(&text, "shop_requests_total{job=\"shop\",instance=\"a\",code=\"200\"} %d %d\n", 1000+good, at.Unix())
		fmt.Fprintf(&errorsOf, "shop_requests_total{job=\"shop\",instance=\"a\",code=\"500\"} %d %d\n", 10+bad, at.Unix())
	}
	total = good + bad
	text.WriteString(errorsOf.String())
	text.WriteString("# EOF\n")
	blocks := lab.Dir("blocks")
	if _, err := lab.Promtool("tsdb", "create-blocks-from", "openmetrics", lab.Write("history.txt", text.String()), blocks); err != nil {
		t.Fatal(err)
	}

	lab.Write("shop/shop.yaml", shopSLO)
	aggregator := lab.Aggregator("--slos", lab.Dir("shop"))
	backfill := func() (booked, already int) {
		t.Helper()
		out, err := harness.Run(lab.Program("nines-aggregator"), "backfill", "--slo", lab.Dir("shop"), "--source", blocks,
			"--server", aggregator.URL, "--format", "json")
		if err != nil {
			t.Fatal(err)
		}
		var results []struct {
			Booked  int
			Already int `json:"already_booked"`
		}
		if err := json.Unmarshal(out, &results); err != nil || len(results) != 1 {
			t.Fatalf("%v in %s", err, out)
		}
		return results[0].Booked, results[0].Already
	}
	check := func() error {
		o, err := objectiveOf(aggregator.URL, "shop-answers")
		if err != nil {
			return err
		}
		if o.Good.String() != fmt.Sprint(good) || o.Total.String() != fmt.Sprint(total) {
			return fmt.Errorf("it has %s good of %s, the history %d of %d", o.Good, o.Total, good, total)
		}
		return nil
	}
	if booked, already := backfill(); booked != days*1440 || already != 0 {
		t.Errorf("%d minutes booked and %d before, want %d", booked, already, days*1440)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	if booked, already := backfill(); booked != 0 || already != days*1440 {
		t.Errorf("again: %d minutes booked and %d before", booked, already)
	}
	aggregator.Kill()
	aggregator.Start()
	lab.Eventually(time.Minute, "the history is there after a kill", check)
	out, err := harness.Run(lab.Program("nines-aggregator"), "ledger", "verify", "--server", aggregator.URL)
	if err != nil || !bytes.Contains(out, []byte("the chain is whole")) {
		t.Errorf("%v: %s", err, out)
	}
	aggregator.Stop()
}
