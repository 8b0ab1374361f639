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

// Labels of alerts are templates, those of recording rules are not.
func TestNamesForDashboardsAreNoTemplates(t *testing.T) {
	_, _, rules := exportedWith(t, withObjectives(t, strings.Replace(slothDoc, "name: checkout-availability", `name: 'checkout-{{ .Broken "x"'`, 1)), SlothDashboards)
	for _, r := range rules {
		want := `checkout-{{ .Broken "x"`
		if r.Alert != "" {
			want = `checkout-{{"{{"}} .Broken "x"`
		}
		if got, ok := r.Labels["sloth_id"]; ok && got != want {
			t.Errorf("%s%s has sloth_id %s, want %s", r.Record, r.Alert, got, want)
		}
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
	const (
		share = `(1 - ((sum(rate(good_total[10m])) or vector(0)) / sum(rate(all_total[10m]))))`
		aMax  = `max(queue_depth)`
	)
	for _, c := range []struct {
		name, text string
		want       string // over one hour
		short      string // over five minutes
	}{
		{"a ratio of failures", form("", "Occurrences", aRaw+oneTarget), `sum(sum_over_time((job:errors:ratio)[1h:1m])) / sum(count_over_time((job:errors:ratio)[1h:1m]))`, ""},
		{"a ratio of successes with a comment", form("", "Occurrences", strings.NewReplacer("failure", "success", "'job:errors:ratio'", "'a # b'").Replace(aRaw)+oneTarget),
			"1 - sum(sum_over_time((a # b\n)[1h:1m])) / sum(count_over_time((a # b\n)[1h:1m]))", ""},
		{"a threshold", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lte, value: 1e2}]\n"),
			`1 - sum(sum_over_time(((` + aMax + `) <= bool 100)[1h:1m])) / sum(count_over_time(((` + aMax + `) <= bool 100)[1h:1m]))`, ""},
		{"slices, of which one stands for a shorter window", form("", "Timeslices", counters+"  objectives: [{target: 0.99, timeSliceTarget: 0.999, timeSliceWindow: 10m}]\n"),
			`avg_over_time(((1 - ` + share + `) < bool 0.999)[1h:10m])`, `avg_over_time(((1 - ` + share + `) < bool 0.999)[10m:10m])`},
		{"slices with their ratio", form("", "RatioTimeslices", counters+"  objectives: [{target: 0.99, timeSliceWindow: 10m}]\n"), `avg_over_time((` + share + ` >= 0)[1h:10m])`, ""},
	} {
		_, notes, rules := exportedWith(t, withObjectives(t, c.text), PyrraDashboards)
		found := 0
		for _, r := range rules {
			if r.Record != ErrorRatioRecord {
				continue
			}
			if w := r.Labels["window"]; w == "1h" && r.Expr != c.want || w == "5m" && c.short != "" && r.Expr != c.short {
				t.Errorf("%s: over %s\n%s\nwant\n%s", c.name, w, r.Expr, c.want)
			}
			if r.Labels["window"] == "1h" {
				found++
			}
		}
		if found != 1 || len(notes) > 0 {
			t.Errorf("%s: %d ratios over an hour, want the one of the objective that is shown; notes %q", c.name, found, notes)
		}
	}
}

func TestExportHoldsAlertPoliciesInThePlaceOfTiers(t *testing.T) {
	text := form("", "Occurrences", counters+"  alertPolicies: ["+aPolicy+"]\n"+oneTarget) + mail
	_, _, rules := exportedWith(t, withObjectives(t, text), SlothDashboards)
	windows := map[string]bool{}
	var alerts []rulefmt.Rule
	for _, r := range rules {
		if r.Alert != "" {
			alerts = append(alerts, r)
		}
		windows[r.Labels["window"]] = true
	}
	if len(alerts) != 1 {
		t.Fatalf("%d alerts, want that of the policy", len(alerts))
	}
	a := alerts[0]
	if _, limit, _ := strings.Cut(a.Expr, " > "); limit != "0.02" || !strings.Contains(a.Expr, `window="1h"`) || time.Duration(a.For) != 5*time.Minute {
		t.Errorf("alert is %s for %s", a.Expr, a.For)
	}
	if a.Labels["severity"] != "page" || a.Labels["burn_tier"] != "p" || a.Labels["sloth_severity"] != "page" {
		t.Errorf("labels are %v", a.Labels)
	}
	// One that looks back over another time than a tier has that recorded.
	text = strings.NewReplacer("lookbackWindow: 1h", "lookbackWindow: 45m", "threshold: 2", "op: gte, threshold: 2").Replace(text)
	_, _, rules = exportedWith(t, withObjectives(t, text))
	recorded, fires := false, false
	for _, r := range rules {
		recorded = recorded || r.Record == ErrorRatioRecord && r.Labels["window"] == "45m"
		fires = fires || r.Alert != "" && strings.Contains(r.Expr, `window="45m"} >= 0.02`)
	}
	if !recorded || !fires {
		t.Errorf("45 minutes are recorded: %t, and compared: %t", recorded, fires)
	}
}

func TestCompositeHasNoRulesAndSaysSo(t *testing.T) {
	text := form("", "Occurrences", counters+"  objectives:\n  - {displayName: a, target: 0.99, compositeWeight: 3}\n  - {displayName: b, target: 0.95}\n")
	objectives := withObjectives(t, text)
	_, notes, rules := exportedWith(t, objectives, SlothDashboards, PyrraDashboards)
	if len(notes) != 1 || !strings.Contains(notes[0], "SLO form: objective composite is put together from the minutes of others") {
		t.Errorf("notes are %q", notes)
	}
	names := map[string]bool{}
	for _, r := range rules {
		if r.Record == ErrorRatioRecord {
			names[r.Labels["objective"]] = true
		}
	}
	if len(names) != 2 || !names["a"] || !names["b"] {
		t.Errorf("rules are of %v, want the parts", names)
	}
	if _, err := Prometheus(objectives); err == nil || !strings.Contains(err.Error(), "no rule can do") {
		t.Errorf("rules alone: %v", err)
	}
}

func TestWhatHasNoRulesIsAnError(t *testing.T) {
	target := withObjectives(t, slothDoc)[0].Target
	base := sla.Objective{SLO: "broken", Target: target, Window: sla.Window{Rolling: time.Hour}}
	for want, sli := range map[string]sla.SLI{
		"the events of its slices are not":    {Parts: []sla.Part{{Objective: sla.ID{1}}}, Slices: &sla.Slices{Minutes: 5}},
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
