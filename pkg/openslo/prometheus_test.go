package openslo

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/pkg/sla"
)

// utf8Names is model.UTF8Validation of prometheus/common, which this module does
// not require by itself.
const utf8Names = 2

// exported writes the objectives of a document as rules and reads them as
// Prometheus does.
func exported(t *testing.T, text string) ([]byte, *rulefmt.RuleGroups) {
	t.Helper()
	s := load(text)
	for _, f := range s.Findings() {
		if f.IsError() {
			t.Fatal(f)
		}
	}
	out, err := Prometheus(s.Objectives())
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(out, false, utf8Names, promql, slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatalf("Prometheus refuses the rules: %v\n%s", errs, out)
	}
	return out, groups
}

func TestExportedRulesAreReadByPrometheus(t *testing.T) {
	bad := strings.NewReplacer("        good:", "        bad:", `code!~"5.."`, `code=~"5.."`, "name: checkout\n", "name: errors\n").Replace(checkout)
	out, groups := exported(t, checkout+"---\n"+bad)
	golden(t, "rules.yaml", out)
	if len(groups.Groups) != 4 {
		t.Errorf("%d groups, want one for each objective", len(groups.Groups))
	}
	for _, g := range groups.Groups {
		records, alerts := map[string]bool{}, 0
		for _, r := range g.Rules {
			if r.Record != "" {
				records[r.Labels["window"]] = true
				continue
			}
			alerts++
			// Each window that an alert reads is recorded.
			expr, err := promql.ParseExpr(r.Expr)
			if err != nil {
				t.Fatal(err)
			}
			read := 0
			parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
				if sel, ok := n.(*parser.VectorSelector); ok {
					for _, m := range sel.LabelMatchers {
						if m.Name == "window" {
							read++
							if !records[m.Value] {
								t.Errorf("%s: alert reads window %s, which is not recorded", g.Name, m.Value)
							}
						}
						if m.Name == model.MetricNameLabel && m.Value != ErrorRatioRecord {
							t.Errorf("%s: alert reads %s, want %s", g.Name, m.Value, ErrorRatioRecord)
						}
					}
				}
				return nil
			})
			if read != 2 {
				t.Errorf("%s: alert reads %d windows, want a long and a short one", g.Name, read)
			}
		}
		if len(records) != 7 || alerts != 4 {
			t.Errorf("%s: %d windows and %d alerts, want 7 and 4", g.Name, len(records), alerts)
		}
	}
}

func TestExportLeavesOutTiersThatCannotFire(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		want           string
	}{
		{"three nines over 30 days", "0.999", "0.999", "fast > 0.0144, medium > 0.006, slow > 0.003, long > 0.001"},
		{"93 %", "0.999", "0.93", "medium > 0.42, slow > 0.21, long > 0.07"},
		{"100 %", "0.999", "1", ""},
		{"two days", "30d", "2d", "fast > 0.00096, medium > 0.0004, slow > 0.0002"},
		{"28 days", "30d", "28d", "fast > 0.01344, medium > 0.0056, slow > 0.0028, long > 0.000933333333333333"},
		{"twelve nines", "0.999", "0.999999999999", "fast > 0.0000000000144, medium > 0.000000000006, slow > 0.000000000003, long > 0.000000000001"},
		{"a calendar month", "30d\n      isRolling: true", "1M\n      calendar: {timeZone: UTC}", "fast > 0.0144, medium > 0.006, slow > 0.003, long > 0.001"},
	} {
		_, groups := exported(t, strings.Replace(checkout, c.old, c.new, 1))
		var got []string
		for _, r := range groups.Groups[0].Rules {
			if r.Alert != "" {
				_, limit, _ := strings.Cut(r.Expr, " > ")
				limit, _, _ = strings.Cut(limit, "\n")
				got = append(got, r.Labels["burn_tier"]+" > "+limit)
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: alerts are %s, want %s", c.name, strings.Join(got, ", "), c.want)
		}
	}
}

// While no good event has happened yet, its series does not exist; the ratio was
// then empty, and a full outage from the start never paged.
func TestExportedRatioOfAnOutageFromTheStartIsNotEmpty(t *testing.T) {
	out, _ := exported(t, checkout)
	if want := `1 - ((sum(rate(requests_total{job="checkout",code!~"5.."}[1h])) or vector(0)) / sum(rate(requests_total{job="checkout"}[1h])))`; !strings.Contains(string(out), want) {
		t.Errorf("the rules lack %s:\n%s", want, out)
	}
}

func TestExportSurvivesNamesThatPrometheusWouldTrip(t *testing.T) {
	// Namespace a with SLO b-c reads like namespace a-b with SLO c.
	one := strings.NewReplacer("name: checkout\n", "name: b-c\n", "namespace: shop", "namespace: a").Replace(checkout)
	two := strings.NewReplacer("name: checkout\n", "name: c\n", "namespace: shop", "namespace: a-b").Replace(checkout)
	exported(t, one+"---\n"+two)
	// Annotations are templates, names in YAML may need quotes, metrics too.
	for _, title := range []string{`"{{ .Broken"`, `"{{"`, `"a: b # c"`, `"üñï \" ' %"`, `"line\nbreak"`} {
		exported(t, strings.Replace(checkout, "displayName: Checkout answers", "displayName: "+title, 1))
		exported(t, strings.Replace(checkout, "displayName: three nines", "displayName: "+title, 1))
	}
	exported(t, strings.ReplaceAll(checkout, `requests_total{`, `{"http.requests",`))
	if _, err := Prometheus([]sla.Objective{{SLO: "broken", SLI: sla.SLI{Good: "x[5m]", Total: "y"}, Window: sla.Window{Rolling: time.Hour}}}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("an objective without a value: %v, want an error that names the SLO", err)
	}
}

func TestExportHoldsEachKindOfQuery(t *testing.T) {
	const native = `histogram_fraction(0, 0.25, sum(rate(x{job="checkout"}[5m]))) * histogram_count(sum(rate(x{job="checkout"}[5m])))`
	const good, total = `'sum(rate(requests_total{job="checkout",code!~"5.."}[5m]))'`, `'sum(rate(requests_total{job="checkout"}[5m]))'`
	for _, c := range []struct{ name, good, total, groupBy, want string }{
		{"a bucket with its edge", `sum(rate(x_bucket{job="checkout",le="0.250"}[5m]))`, `sum(rate(x_count{job="checkout"}[5m]))`, "",
			`1 - ((sum(rate(x_bucket{job="checkout",le="0.250"}[1h])) or vector(0)) / sum(rate(x_count{job="checkout"}[1h])))`},
		{"native histograms", native, `sum(histogram_count(increase(x{job="checkout"}[5m])))`, "",
			`1 - (((histogram_fraction(0, 0.25, sum(rate(x{job="checkout"}[1h]))) * histogram_count(sum(rate(x{job="checkout"}[1h])))) or vector(0)) / histogram_count(sum(rate(x{job="checkout"}[1h]))))`},
		{"native histograms below 0", strings.Replace(native, "0,", "-Inf,", 1), `sum(histogram_count(rate(x{job="checkout"}[5m])))`, "",
			`histogram_fraction(-Inf, 0.25, sum(rate(x{job="checkout"}[1h])))`},
		// The sums of both sides' minutes, so that the ratio is weighted.
		{"an expression, and the counter beside it", `sum(rate(a[2m])) - sum(rate(b[2m]))`, `sum(rate(a[2m]))`, "",
			`1 - ((sum(sum_over_time((sum(rate(a[2m])) - sum(rate(b[2m])))[1h:1m])) or vector(0)) / sum(sum_over_time((sum(rate(a[2m])))[1h:1m])))`},
		{"a plain counter beside an expression", `avg(rate(a[2m]))`, `b_total`, "", `/ sum(sum_over_time((sum(rate(b_total[5m])))[1h:1m])))`},
		{"a number and a comment", `avg(rate(a[2m])) # mean`, `100`, "", "1 - ((sum(sum_over_time((avg(rate(a[2m])) # mean\n)[1h:1m])) or vector(0)) / sum(sum_over_time(vector(100)[1h:1m])))"},
		{"groups", `sum(rate(a{ok="1"}[5m]))`, `sum(rate(a[5m]))`, "pod, service",
			`1 - ((sum by (pod, service) (rate(a{ok="1"}[1h])) or 0 * sum by (pod, service) (rate(a[1h]))) / sum by (pod, service) (rate(a[1h])))`},
		{"groups by a name with dots", `sum(rate(a{ok="1"}[5m]))`, `sum(rate(a[5m]))`, "k8s.pod.name", `sum by ("k8s.pod.name") (rate(a[1h]))`},
		{"groups of an expression", `sum by (pod) (rate(a[2m]))`, `count by (pod) (a)`, "pod",
			`1 - ((sum by (pod) (sum_over_time((sum by (pod) (rate(a[2m])))[1h:1m])) or 0 * sum by (pod) (sum_over_time((count by (pod) (a))[1h:1m])))`},
	} {
		text := strings.NewReplacer(good, "\""+strings.ReplaceAll(c.good, `"`, `\"`)+"\"", total, "\""+strings.ReplaceAll(c.total, `"`, `\"`)+"\"").Replace(checkout)
		if c.groupBy != "" {
			text = strings.Replace(text, "{nines.internal/team: shop", "{nines.internal/group-by: '"+c.groupBy+"', nines.internal/team: shop", 1)
		}
		_, groups := exported(t, text)
		found := false
		for _, r := range groups.Groups[0].Rules {
			found = found || strings.Contains(r.Expr, c.want)
			// The groups' own service must not be written over.
			if _, ok := r.Labels["service"]; r.Record != "" && ok == strings.Contains(c.groupBy, "service") {
				t.Errorf("%s: labels of a rule are %v", c.name, r.Labels)
			}
		}
		if !found {
			t.Errorf("%s: no rule has %s, the third is\n%s", c.name, c.want, groups.Groups[0].Rules[2].Expr)
		}
	}
}

func TestRulesOfOneGroupAreNotWrittenAlone(t *testing.T) {
	o := sla.Objective{SLO: "s", SLI: sla.SLI{Good: "x", Total: "y"}, Window: sla.Window{Rolling: time.Hour}, GroupBy: []string{"pod"}}
	for _, member := range []sla.Objective{o.ForGroup(map[string]string{"pod": "a"}), o.ForOther()} {
		if _, err := Prometheus([]sla.Objective{member}); err == nil || !strings.Contains(err.Error(), "one group of an SLO") {
			t.Errorf("the rules of %q alone: %v", member.Title, err)
		}
	}
}
