package openslo

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/pkg/sla"
)

// exportedWith writes rules for dashboards, and reads them as Prometheus does.
func exportedWith(t *testing.T, objectives []sla.Objective, dashboards ...Dashboards) (string, []string, []rulefmt.Rule) {
	t.Helper()
	out, notes, err := PrometheusWith(objectives, dashboards...)
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(out, false, utf8Names, promql, slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatalf("Prometheus refuses the rules: %v\n%s", errs, out)
	}
	var rules []rulefmt.Rule
	for _, g := range groups.Groups {
		rules = append(rules, g.Rules...)
	}
	return string(out), notes, rules
}

// withObjectives is the example with one objective, named or not.
func withObjectives(t *testing.T, docs ...string) []sla.Objective {
	t.Helper()
	s := load(strings.Join(docs, "---\n"))
	for _, f := range s.Findings() {
		if f.IsError() {
			t.Fatal(f)
		}
	}
	return s.Objectives()
}

// slothDoc is an SLO as it comes out of a Sloth file.
const slothDoc = `apiVersion: openslo/v1
kind: SLO
metadata:
  name: checkout-availability
  namespace: shop
  labels: {owner: payments, app.kubernetes.io/part-of: shop}
spec:
  service: checkout
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator:
    metadata: {name: x}
    spec:
      ratioMetric:
        counter: true
        bad: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="checkout",code=~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="checkout"}[5m]))'}}}
  objectives: [{target: 0.999}]
`

func TestRulesForDashboardsStandBesideOurOwn(t *testing.T) {
	objectives := withObjectives(t, slothDoc)
	out, notes, rules := exportedWith(t, objectives, SlothDashboards, PyrraDashboards)
	golden(t, "rules-with.yaml", []byte(out))
	if len(notes) > 0 {
		t.Errorf("notes are %v, want none", notes)
	}
	// What the dashboards of both ask for.
	recorded := map[string]labels.Labels{}
	for _, r := range rules {
		recorded[r.Record] = labels.FromMap(r.Labels)
	}
	for _, name := range []string{
		"slo:sli_error:ratio_rate5m", "slo:sli_error:ratio_rate30m", "slo:sli_error:ratio_rate1h", "slo:sli_error:ratio_rate2h",
		"slo:sli_error:ratio_rate6h", "slo:sli_error:ratio_rate1d", "slo:sli_error:ratio_rate3d", "slo:sli_error:ratio_rate30d",
		"slo:objective:ratio", "slo:error_budget:ratio", "slo:time_period:days", "slo:current_burn_rate:ratio",
		"slo:period_burn_rate:ratio", "slo:period_error_budget_remaining:ratio", "sloth_slo_info",
	} {
		if l := recorded[name]; l.Get("sloth_id") != "checkout-availability" || l.Get("sloth_service") != "checkout" || l.Get("sloth_slo") != "availability" || l.Get("owner") != "payments" || l.Get("app_kubernetes_io_part_of") != "shop" {
			t.Errorf("%s has labels %s", name, l)
		}
		if window, ok := strings.CutPrefix(name, "slo:sli_error:ratio_rate"); ok && recorded[name].Get("sloth_window") != window {
			t.Errorf("%s has labels %s, want the window", name, recorded[name])
		}
	}
	for _, name := range []string{
		"pyrra_objective", "pyrra_window", "pyrra_availability", "pyrra_requests:rate5m", "pyrra_errors:rate5m", "pyrra_requests_total", "pyrra_errors_total",
	} {
		if l := recorded[name]; l.String() != `{slo="checkout-availability"}` {
			t.Errorf("%s has labels %s", name, l)
		}
	}
	for _, r := range rules {
		if r.Alert != "" && (r.Labels["sloth_severity"] != r.Labels["severity"] || r.Labels["sloth_id"] != "checkout-availability") {
			t.Errorf("an alert has labels %v, which Sloth's dashboards do not find", r.Labels)
		}
	}
	// Without them nothing of it is there.
	plain, _, _ := exportedWith(t, objectives)
	if strings.Contains(plain, "sloth") || strings.Contains(plain, "pyrra") || strings.Contains(plain, "interval") {
		t.Errorf("rules without dashboards have something of them:\n%s", plain)
	}
}

// A rule that reads a series that no rule records shows nothing for ever.
func TestRulesForDashboardsReadWhatIsRecorded(t *testing.T) {
	docs := []string{slothDoc, checkout}
	for _, period := range []string{"28d", "1d", "3d", "36h"} {
		docs = append(docs, strings.NewReplacer("duration: 30d", "duration: "+period, "name: checkout-availability", "name: checkout-"+period).Replace(slothDoc))
	}
	docs = append(docs, strings.NewReplacer("duration: 30d, isRolling: true", "duration: 1Q, isRolling: false, calendar: {timeZone: UTC}", "name: checkout-availability", "name: quarterly").Replace(slothDoc))
	_, _, rules := exportedWith(t, withObjectives(t, docs...), SlothDashboards, PyrraDashboards)
	made := map[string]bool{}
	read := 0
	for _, r := range rules {
		if r.Record != "" {
			if key := r.Record + labels.FromMap(r.Labels).String(); made[key] {
				t.Errorf("two rules record %s", key)
			} else {
				made[key] = true
			}
		}
		expr, err := promql.ParseExpr(r.Expr)
		if err != nil {
			t.Fatal(err)
		}
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			sel, ok := n.(*parser.VectorSelector)
			if !ok || !strings.Contains(sel.Name, ":") {
				return nil
			}
			read++
			found := false
			for _, other := range rules {
				fits := other.Record == sel.Name
				for _, m := range sel.LabelMatchers {
					fits = fits && (m.Name == model.MetricNameLabel || m.Matches(other.Labels[m.Name]))
				}
				found = found || fits
			}
			if !found {
				t.Errorf("%s%s reads %s, which no rule records", r.Record, r.Alert, sel)
			}
			return nil
		})
	}
	if read < 100 {
		t.Errorf("only %d reads of recorded series are looked at", read)
	}
}

// Sloth's and Pyrra's names hold no namespace (sloth #602, #522).
func TestNamesForDashboardsDoNotCollide(t *testing.T) {
	other := strings.Replace(slothDoc, "namespace: shop", "namespace: test", 1)
	out, _, rules := exportedWith(t, withObjectives(t, slothDoc, other, checkout), SlothDashboards, PyrraDashboards)
	ids, slos := map[string]int{}, map[string]int{}
	for _, r := range rules {
		switch r.Record {
		case "slo:objective:ratio":
			ids[r.Labels["sloth_id"]]++
		case "pyrra_objective":
			slos[r.Labels["slo"]]++
		}
	}
	if len(ids) != 4 || len(slos) != 4 {
		t.Errorf("ids %v and SLOs %v of four objectives:\n%s", ids, slos, out)
	}
}

func TestObjectiveWithoutABudgetHasNoBurnRate(t *testing.T) {
	out, _, _ := exportedWith(t, withObjectives(t, strings.Replace(slothDoc, "0.999", "1", 1)), SlothDashboards)
	if strings.Contains(out, "burn_rate") || strings.Contains(out, "budget_remaining") || strings.Contains(out, "/ 0") {
		t.Errorf("a burn rate divides by no budget:\n%s", out)
	}
	if !strings.Contains(out, "slo:error_budget:ratio") {
		t.Errorf("the budget itself is missing:\n%s", out)
	}
}

func TestGroupsHaveSeriesOfTheirOwnForSlothAndNoneForPyrra(t *testing.T) {
	grouped := strings.Replace(slothDoc, "  namespace: shop\n", "  namespace: shop\n  annotations: {nines.internal/group-by: 'pod,k8s.zone'}\n", 1)
	out, notes, _ := exportedWith(t, withObjectives(t, grouped), SlothDashboards, PyrraDashboards)
	if len(notes) != 1 || !strings.Contains(notes[0], "checkout-availability has an objective for each pod, k8s.zone") {
		t.Errorf("notes are %q", notes)
	}
	if strings.Contains(out, "pyrra") || !strings.Contains(out, `max by (pod, "k8s.zone") (slo:sli_error:ratio{`) {
		t.Errorf("rules are\n%s", out)
	}
}

func TestRequestsForPyrraComeFromEachKindOfQuery(t *testing.T) {
	const native = `histogram_fraction(0, 0.25, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`
	base := sla.Objective{SLO: "s", Service: "x", Target: withObjectives(t, slothDoc)[0].Target, Window: sla.Window{Rolling: 30 * 24 * time.Hour}}
	for _, c := range []struct {
		name string
		sli  sla.SLI
		want map[string]string
	}{
		{"bad of counters", sla.SLI{Bad: `sum(rate(a{ok="0"}[5m]))`, Total: `sum(rate(a[5m]))`}, map[string]string{
			"pyrra_requests:rate5m": `sum(rate(a[5m]))`, "pyrra_errors:rate5m": `sum(rate(a{ok="0"}[5m])) or vector(0)`,
			"pyrra_requests_total": `sum(a)`, "pyrra_errors_total": `sum(a{ok="0"}) or vector(0)`,
		}},
		{"good of a bucket", sla.SLI{Good: `sum(rate(a_bucket{le="1"}[5m]))`, Total: `sum(rate(a_count[5m]))`}, map[string]string{
			"pyrra_errors:rate5m": `sum(rate(a_count[5m])) - (sum(rate(a_bucket{le="1"}[5m])) or vector(0))`,
			"pyrra_errors_total":  `sum(a_count) - (sum(a_bucket{le="1"}) or vector(0))`,
		}},
		{"native histograms", sla.SLI{Good: native, Total: `histogram_count(sum(rate(x[5m])))`}, map[string]string{
			"pyrra_errors:rate5m":  `histogram_count(sum(rate(x[5m]))) - ((` + native + `) or vector(0))`,
			"pyrra_requests_total": "", "pyrra_errors_total": "",
		}},
		{"expressions", sla.SLI{Good: "avg(a)", Total: "avg(b)"}, map[string]string{
			"pyrra_requests:rate5m": `sum(sum_over_time((avg(b))[5m:1m])) / 5`, "pyrra_requests_total": "",
		}},
		{"a ratio", sla.SLI{Raw: "a"}, map[string]string{"pyrra_requests:rate5m": "", "pyrra_errors_total": "", "pyrra_objective": "vector(0.999)"}},
	} {
		o := base
		o.SLI = c.sli
		_, _, rules := exportedWith(t, []sla.Objective{o}, PyrraDashboards)
		got := map[string]string{}
		for _, r := range rules {
			got[r.Record] = r.Expr
		}
		for record, want := range c.want {
			if got[record] != want {
				t.Errorf("%s: %s is %q, want %q", c.name, record, got[record], want)
			}
		}
	}
}

func TestExportHoldsEachFormOfIndicator(t *testing.T) {
	target := withObjectives(t, slothDoc)[0].Target
	events := sla.SLI{Bad: `sum(rate(a{ok="0"}[5m]))`, Total: `sum(rate(a[5m]))`}
	const share = `((sum(rate(a{ok="0"}[10m])) or vector(0)) / sum(rate(a[10m])))`
	sliced, rated := events, events
	sliced.Slices = &sla.Slices{Minutes: 10, Target: target}
	rated.Slices = &sla.Slices{Minutes: 10, Ratio: true}
	for _, c := range []struct {
		name    string
		sli     sla.SLI
		groupBy []string
		want    string // over one hour
		short   string // over five minutes
	}{
		{"a ratio of failures", sla.SLI{Raw: "a", RawBad: true}, nil, `avg(avg_over_time((a)[1h:1m]))`, ""},
		{"a ratio of successes with a comment", sla.SLI{Raw: "a # b"}, nil, "1 - avg(avg_over_time((a # b\n)[1h:1m]))", ""},
		{"a threshold", sla.SLI{Value: "max(a)", Op: "lte", Limit: "0.5"}, nil, `1 - avg(avg_over_time(((max(a)) <= bool 0.5)[1h:1m]))`, ""},
		{"a threshold of groups", sla.SLI{Value: "a", Op: "gt", Limit: "-1"}, []string{"pod"}, `1 - avg by (pod) (avg_over_time(((a) > bool -1)[1h:1m]))`, ""},
		{"slices, of which one stands for a shorter window", sliced, nil,
			`avg_over_time((((1 - ` + share + `) < bool 0.999) and (` + share + ` >= 0))[1h:10m])`,
			`avg_over_time((((1 - ` + share + `) < bool 0.999) and (` + share + ` >= 0))[10m:10m])`},
		{"slices with their ratio", rated, nil, `avg_over_time((` + share + ` >= 0)[1h:10m])`, ""},
	} {
		o := sla.Objective{SLO: "s", Target: target, Window: sla.Window{Rolling: 30 * 24 * time.Hour}, SLI: c.sli, GroupBy: c.groupBy}
		_, _, rules := exportedWith(t, []sla.Objective{o})
		for _, r := range rules {
			if w := r.Labels["window"]; r.Record != "" && (w == "1h" && r.Expr != c.want || w == "5m" && c.short != "" && r.Expr != c.short) {
				t.Errorf("%s: over %s\n%s\nwant\n%s", c.name, w, r.Expr, c.want)
			}
		}
	}
}

func TestWhatHasNoRulesIsAnError(t *testing.T) {
	target := withObjectives(t, slothDoc)[0].Target
	base := sla.Objective{SLO: "broken", Target: target, Window: sla.Window{Rolling: time.Hour}}
	for want, sli := range map[string]sla.SLI{
		"write the rules of its parts":        {Combine: sla.AllOf, Parts: []sla.Part{{Name: "a"}}},
		`op is "eq", want lt, lte, gt or gte`: {Value: "a", Op: "eq", Limit: "1"},
	} {
		o := base
		o.SLI = sli
		if _, err := Prometheus([]sla.Objective{o}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "broken") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, _, err := PrometheusWith(nil, "grafana"); err == nil || !strings.Contains(err.Error(), "want sloth or pyrra") {
		t.Errorf("unknown dashboards: %v", err)
	}
}
