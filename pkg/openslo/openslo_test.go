package openslo

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	_ "time/tzdata" // the host may have no zones

	"nines/pkg/sla"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what comes out now (look at the difference after -update):\n%s", path, got)
	}
}

// checkout is an SLO without findings; tests change a line of it.
const checkout = `apiVersion: openslo/v1
kind: SLO
metadata:
  name: checkout
  namespace: shop
  displayName: Checkout answers
  labels: {tier: gold, area: [web, api]}
  annotations: {nines.internal/team: shop, nines.internal/runbook: "https://runbooks.example/checkout"}
spec:
  description: Answers that are no errors.
  service: checkout
  budgetingMethod: Occurrences
  timeWindow:
    - duration: 30d
      isRolling: true
  indicator:
    metadata: {name: checkout-requests}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="checkout",code!~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="checkout"}[5m]))'}}}
  objectives:
    - displayName: three nines
      target: 0.999
    - targetPercent: 99
`

func load(text string) *Set { return Load(map[string][]byte{"a.yaml": []byte(text)}) }

func lines(fs []Finding) string {
	var out []string
	for _, f := range fs {
		out = append(out, f.String())
	}
	return strings.Join(out, "\n")
}

func TestDocumentBecomesItsObjectives(t *testing.T) {
	s := load(checkout)
	if len(s.Findings()) > 0 {
		t.Fatal(lines(s.Findings()))
	}
	if len(s.Objectives()) != 2 {
		t.Fatalf("%d objectives, want 2", len(s.Objectives()))
	}
	three9, err := sla.ParseTarget("0.999")
	if err != nil {
		t.Fatal(err)
	}
	got := s.Objectives()[0]
	if len(got.SpecSHA256) != 64 {
		t.Errorf("hash of the document is %q", got.SpecSHA256)
	}
	got.SpecSHA256 = ""
	sli := sla.SLI{Good: `sum(rate(requests_total{job="checkout",code!~"5.."}[5m]))`, Total: `sum(rate(requests_total{job="checkout"}[5m]))`}
	want := sla.Objective{
		ID: sla.ObjectiveID("", "shop", "checkout", "three nines", nil, sli), Namespace: "shop", Service: "checkout", SLO: "checkout",
		Name: "three nines", Title: "Checkout answers", Description: "Answers that are no errors.", Labels: map[string]string{"tier": "gold", "area": "web,api"},
		Team: "shop", Runbook: "https://runbooks.example/checkout", Target: three9, Window: sla.Window{Rolling: 30 * 24 * time.Hour}, SLI: sli,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if second := s.Objectives()[1]; second.Name != "1" || second.Target.Percent() != "99" {
		t.Errorf("the second objective is %q with %s %%, want its index for a name and 99 %%", second.Name, second.Target.Percent())
	}
}

func TestMistakeIsAFindingWithItsPlace(t *testing.T) {
	second := func(name string) string {
		return strings.NewReplacer("name: checkout\n", "name: "+name+"\n", "job=\"checkout\"", "job=\"other\"").Replace(checkout)
	}
	const dir = "timeWindow:\n    - duration: 30d\n      isRolling: true"
	for _, c := range []struct{ name, old, new, want string }{
		{"apiVersion", "openslo/v1", "openslo/v2", `a.yaml:1:13: error [api-version]: apiVersion is "openslo/v2", want "openslo/v1"`},
		{"no apiVersion", "apiVersion: openslo/v1\n", "", `a.yaml:1:1: error [api-version]: apiVersion is "", want "openslo/v1"`},
		{"kind", "kind: SLO", "kind: Slo", `a.yaml:2:7: error [kind]: kind "Slo" is not one of`},
		{"not a mapping", checkout, "- a\n", `a.yaml:1:1: error [schema]: want a document with apiVersion, kind, metadata and spec`},
		{"not YAML", checkout, "a: [\n", `error [yaml]: not valid YAML`},
		{"unknown key", "service: checkout", "servcie: checkout", `a.yaml:11:3: error [schema]: unknown key "servcie" under spec; did you mean "service"?`},
		{"key twice", "kind: SLO\n", "kind: SLO\nkind: SLO\n", `a.yaml:3:1: error [schema]: key "kind" is given twice`},
		{"wrong type", "isRolling: true", "isRolling: often", `a.yaml:15:18: error [schema]: spec.timeWindow[0].isRolling: want true or false`},
		{"list of numbers as a label", "[web, api]", "{a: b}", `a.yaml:7:30: error [schema]: metadata.labels.area: want a string or a list of strings`},
		{"name", "  name: checkout\n", "", `a.yaml:4:3: error [name]: metadata.name is missing`},
		{"service", "service: checkout", "service: ''", `a.yaml:11:12: error [service]: spec.service is missing`},
		{"budgeting method", "Occurrences", "Sometimes", `a.yaml:12:20: error [budgeting-method]: budgetingMethod is "Sometimes", want Occurrences, Timeslices or RatioTimeslices`},
		{"no budgeting method", "  budgetingMethod: Occurrences\n", "", `a.yaml:10:3: warning [default]: budgetingMethod is missing: Occurrences is taken`},
		{"another spelling", "Occurrences", "occurrences", `a.yaml:12:20: warning [spelling]: budgetingMethod "occurrences" is taken for Occurrences`},
		{"time slices", "Occurrences", "Timeslices", `a.yaml:24:7: error [time-slices]: budgetingMethod Timeslices needs timeSliceWindow, such as 5m`},
		{"alert policies", "  objectives:", "  alertPolicies: [{kind: AlertPolicy}]\n  objectives:", `a.yaml:23:19: error [alert-policy]: want alertPolicyRef, or an inline AlertPolicy with kind, metadata and spec`},
		{"group by a range of labels", "{nines.internal/team: shop", "{nines.internal/group-by: pod container", `a.yaml:8:42: error [annotation]: annotation nines.internal/group-by has "pod container": want label names with commas between them`},
		{"group by nothing", "{nines.internal/team: shop", "{nines.internal/group-by: ''", `a.yaml:8:42: error [annotation]: annotation nines.internal/group-by has ""`},
		{"group by a label twice", "{nines.internal/team: shop", "{nines.internal/group-by: 'pod, pod'", `a.yaml:8:42: error [annotation]: annotation nines.internal/group-by has "pod" twice`},
		{"group by the edge of a bucket", "{nines.internal/team: shop", "{nines.internal/group-by: le", `a.yaml:8:42: error [annotation]: annotation nines.internal/group-by has "le", which is a label of the figures themselves`},
		{"group by the metric's name", "{nines.internal/team: shop", "{nines.internal/group-by: __name__", `a.yaml:8:42: error [annotation]: annotation nines.internal/group-by has "__name__"`},
		{"group by nine labels", "{nines.internal/team: shop", "{nines.internal/group-by: 'a,b,c,d,e,f,g,h,i'", `a.yaml:8:42: error [annotation]: annotation nines.internal/group-by has 9 labels: want at most 8`},
		{"a bound without groups", "{nines.internal/team: shop", "{nines.internal/max-groups: '5'", `a.yaml:8:44: error [annotation]: annotation nines.internal/max-groups bounds the groups of nines.internal/group-by, which is not given`},
		{"a bound of nothing", "{nines.internal/team: shop", "{nines.internal/group-by: pod, nines.internal/max-groups: '0'", `error [annotation]: annotation nines.internal/max-groups is "0": want a number from 1 to 50000`},
		{"a bound beyond ours", "{nines.internal/team: shop", "{nines.internal/group-by: pod, nines.internal/max-groups: '50001'", `error [annotation]: annotation nines.internal/max-groups is "50001"`},
		{"a bound that is no number", "{nines.internal/team: shop", "{nines.internal/group-by: pod, nines.internal/max-groups: many", `error [annotation]: annotation nines.internal/max-groups is "many"`},
		{"a group that is pinned", "{nines.internal/team: shop", "{nines.internal/group-by: 'pod,job'", `a.yaml:21:63: warning [group-pinned]: good selects job="checkout", so that nines.internal/group-by makes no more than one group of it`},
		{"absent", "{nines.internal/team: shop", "{nines.internal/absent: good", `a.yaml:8:40: error [annotation]: annotation nines.internal/absent is "good": the one value is bad`},
		{"no window", dir, "timeWindow: []", `a.yaml:13:15: warning [default]: timeWindow is missing: rolling 30 days are taken`},
		{"two windows", "isRolling: true", "isRolling: true\n    - {duration: 7d, isRolling: true}", `error [time-window]: an SLO needs exactly one timeWindow, this has 2`},
		{"neither rolling nor a calendar", "\n      isRolling: true", "", `warning [default]: isRolling is missing, and so is a calendar: a rolling window is taken`},
		{"months that roll", "30d", "1M", `error [time-window]: duration "1M" of a rolling window: use m, h, d or w`},
		{"no unit", "30d", "30", `error [time-window]: duration "30"`},
		{"no number", "30d", "d", `error [time-window]: duration "d"`},
		{"no duration", "30d", `""`, `error [time-window]: the timeWindow needs a duration such as 30d`},
		{"too short", "30d", "5m", `error [time-window]: a window of 5m is out of range: 1 hour to 366 days`},
		{"too long", "30d", "400d", `error [time-window]: a window of 400d is out of range`},
		{"too large a number", "30d", "99999999999999999999d", `error [time-window]: duration`},
		{"rolling calendar", "isRolling: true", "isRolling: true\n      calendar: {timeZone: UTC}", `error [time-window]: a rolling window has no calendar`},
		{"no calendar", "isRolling: true", "isRolling: false", `error [time-window]: a window that is not rolling needs calendar.timeZone`},
		{"days of a calendar", "isRolling: true", "calendar: {timeZone: UTC}", `error [time-window]: duration "30d" of a calendar window: use 1d, 1w, 1M, 1Q or 1Y`},
		{"time zone", "30d\n      isRolling: true", "1M\n      calendar: {timeZone: Europe/Atlantis}", `error [time-window]: time zone "Europe/Atlantis" is not known: use an IANA name`},
		{"the host's time zone", "30d\n      isRolling: true", "1M\n      calendar: {timeZone: Local}", `error [time-window]: time zone "Local" is not known`},
		{"start of half a minute", "30d\n      isRolling: true", "1M\n      calendar: {timeZone: UTC, startTime: 2026-01-15 00:00:30}", `error [time-window]: startTime "2026-01-15 00:00:30" is not a time of whole minutes`},
		{"five months from nowhere", "30d\n      isRolling: true", "5M\n      calendar: {timeZone: UTC}", `error [time-window]: duration "5M" of a calendar window: use 1d, 1w, 1M, 1Q or 1Y`},
		{"start in the year 1", "30d\n      isRolling: true", "1M\n      calendar: {timeZone: UTC, startTime: 0001-01-15 00:00:00}", `error [time-window]: startTime "0001-01-15 00:00:00" is not a time of whole minutes from 1970 to 2100`},
		{"start that is no time", "30d\n      isRolling: true", "1M\n      calendar: {timeZone: UTC, startTime: soon}", `error [time-window]: startTime "soon" is not a time of whole minutes from 1970 to 2100, such as`},
		{"no indicator", checkout[strings.Index(checkout, "  indicator:"):strings.Index(checkout, "  objectives:")], "", `error [indicator]: an SLO needs an indicator (or indicatorRef)`},
		{"two indicators", "  objectives:", "  indicatorRef: x\n  objectives:", `a.yaml:23:17: error [indicator]: give indicator or indicatorRef, not both`},
		{"unknown reference", checkout[strings.Index(checkout, "  indicator:"):strings.Index(checkout, "  objectives:")], "  indicatorRef: x\n", `a.yaml:16:17: error [unknown-reference]: there is no SLI named "x" in namespace "shop"`},
		{"no ratio", checkout[strings.Index(checkout, "      ratioMetric:"):strings.Index(checkout, "  objectives:")], "      description: none\n", `error [indicator]: the indicator needs a ratioMetric`},
		{"threshold", "      ratioMetric:", "      thresholdMetric: {metricSource: {spec: {query: x}}}\n      ratioMetric:", `a.yaml:19:24: error [indicator]: an indicator has a thresholdMetric or a ratioMetric, not both`},
		{"raw ratio", "        counter: true", "        rawType: success\n        raw: {metricSource: {spec: {query: x}}}", `a.yaml:21:14: error [indicator]: raw is the whole ratio: take good, bad and total out`},
		{"no total", "        total:", "        bad:", `a.yaml:20:9: error [indicator]: a ratioMetric needs total and either good or bad`},
		{"good and bad", "        total:", "        bad: {metricSource: {spec: {query: x}}}\n        total:", `error [indicator]: a ratioMetric needs total and either good or bad`},
		{"another source", "total: {metricSource: {type: Prometheus", "total: {metricSource: {type: Datadog", `a.yaml:22:38: error [not-evaluated]: total: metric sources of type "Datadog" are not evaluated: use Prometheus`},
		{"a reference to a source", "total: {metricSource: {type: Prometheus", "total: {metricSource: {metricSourceRef: eu", `a.yaml:22:49: error [unknown-reference]: total: there is no DataSource named "eu" in namespace "shop"`},
		{"no query", `'sum(rate(requests_total{job="checkout"}[5m]))'`, "''", `error [query]: total has no query`},
		{"not PromQL", `'sum(rate(requests_total{job="checkout"}[5m]))'`, "'sum('", `error [not-a-counter]: total: not valid PromQL`},
		{"a range", `'sum(rate(requests_total{job="checkout"}[5m]))'`, "'x[5m]'", `a.yaml:22:64: error [not-a-counter]: total: a range of samples has no one value; write sum(rate(metric_total{…}[5m]))`},
		{"a mean", `'sum(rate(requests_total{job="checkout"}[5m]))'`, "'avg(rate(x[5m]))'", `a.yaml:22:64: warning [sampled]: total is evaluated once a minute, and its value taken as events per second: its minutes are marked as sampled and cannot decide event credits: avg is no counter of events; write sum(rate(metric_total{…}[5m]))`},
		{"the other side of a mean", `'sum(rate(requests_total{job="checkout"}[5m]))'`, "'avg(rate(x[5m]))'", `a.yaml:21:63: warning [sampled]: good could be counted, but is evaluated once a minute as the other side of the ratio is`},
		{"native and classic histograms", `'sum(rate(requests_total{job="checkout"}[5m]))'`, "'histogram_count(sum(rate(x[5m])))'", `a.yaml:20:9: error [mixed-kinds]: good is a counter and total a native histogram count: write both with histogram_count(sum(rate(x[5m]))), or both with the series of the classic histogram`},
		{"a total up to an edge", `{job="checkout"}`, `{job="checkout",le="5"}`, `a.yaml:22:64: warning [part-as-total]: total counts events up to 5 alone`},
		{"all buckets together", `requests_total{job="checkout"}`, `requests_bucket{job="checkout"}`, `a.yaml:22:64: warning [several-buckets]: total counts an event in each bucket that holds it: give the edge as le="…", or count requests_count`},
		{"plain selector without counter", "        counter: true\n", "", ""},
		{"different scope", `{job="checkout"}`, `{job="cart"}`, `a.yaml:20:9: warning [different-scope]: good (or bad) selects job="checkout" and total selects job="cart": they count different things`},
		{"no objectives", checkout[strings.Index(checkout, "  objectives:"):], "  objectives: []\n", `a.yaml:23:15: error [objectives]: an SLO needs at least one objective`},
		{"no target", "      target: 0.999\n", "", `error [target]: an objective needs target (0.999) or targetPercent (99.9)`},
		{"two targets", "target: 0.999", "target: 0.999\n      targetPercent: 99.9", `a.yaml:26:22: error [target]: give target or targetPercent, not both`},
		{"percentage as a ratio", "target: 0.999", "target: 99.9", `a.yaml:25:15: error [target]: target "99.9" is above 100 %: write 0.999 as target, or targetPercent: 99.9`},
		{"target that is no number", "target: 0.999", "target: .nan", `a.yaml:25:15: error [target]: target ".nan" is not a plain decimal`},
		{"target in quotes", "target: 0.999", "target: '0.999'", `a.yaml:25:15: error [schema]: spec.objectives[0].target: want a number such as 0.999`},
		{"target of 0", "target: 0.999", "target: 0.0", `a.yaml:25:15: error [target]: target "0.0" is 0: any ratio reaches it`},
		{"target of 100 %", "target: 0.999", "target: 1", `a.yaml:25:15: warning [target-100]: a target of 100 % leaves no budget`},
		{"tier that cannot fire", "target: 0.999", "target: 0.93", `a.yaml:25:15: warning [cannot-fire]: tier fast fires above a burn rate of 14.40, but with a target of 93 % the burn rate never exceeds 14.28`},
		{"tier longer than the window", "30d", "2d", `a.yaml:25:15: warning [window-too-long]: tier long looks at 3 days, more than the period of 2 d`},
		{"two objectives of one name", "- targetPercent: 99", "- displayName: three nines\n      targetPercent: 99", `a.yaml:26:20: error [duplicate-name]: a second objective is named "three nines": rename one`},
		{"a name that is another's index", "three nines", "'1'", `a.yaml:26:7: error [duplicate-name]: a second objective is named "1"`},
		{"op", "target: 0.999", "target: 0.999\n      op: lte", `a.yaml:26:11: error [threshold]: op is for an indicator with a thresholdMetric`},
		{"time slices of an objective", "target: 0.999", "target: 0.999\n      timeSliceTarget: 0.9", `a.yaml:26:24: error [time-slices]: timeSliceTarget is for budgetingMethod Timeslices or RatioTimeslices`},
		{"composite without a target", "target: 0.999", "target: 0.999\n      compositeWeight: 2", `a.yaml:24:5: warning [default]: the composite of these objectives has no target of its own: the weighted mean of theirs, 0.996, is taken`},
		{"weight", "target: 0.999", "target: 0.999\n      compositeWeight: 0", `a.yaml:26:24: error [composite]: compositeWeight "0": want a number above 0`},
		{"second of one name", checkout, checkout + "---\n" + second("checkout"), `a.yaml:31:9: error [duplicate-name]: a second SLO is named "checkout" in namespace "shop": rename one`},
		{"same meaning", checkout, checkout + "---\n" + strings.Replace(checkout, "name: checkout\n", "name: again\n", 1), `a.yaml:31:9: warning [same-meaning]: SLO "again" measures the same as SLO "checkout": both will alert`},
	} {
		text := strings.Replace(checkout, c.old, c.new, 1)
		if text == checkout {
			t.Errorf("%s: the document has no %q", c.name, c.old)
			continue
		}
		s := load(text)
		all := lines(s.Findings())
		if c.want == "" {
			if all != "" {
				t.Errorf("%s: want no findings, got\n%s", c.name, all)
			}
			continue
		}
		if strings.Count(all, c.want) < 1 {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, all, c.want)
			continue
		}
		// An error keeps the SLO out, a warning does not.
		isError := strings.Contains(c.want, ": error [") || strings.HasPrefix(c.want, "error [")
		first := 0
		for _, o := range s.Objectives() {
			if o.SLO == "checkout" {
				first++
			}
		}
		if dup := strings.HasPrefix(c.name, "second of"); isError && !dup && first > 0 || (!isError || dup) && first != 2 && !strings.HasPrefix(c.name, "composite") {
			t.Errorf("%s: %d objectives of the SLO are in force", c.name, first)
		}
		for _, f := range s.Findings() {
			if f.Path != "a.yaml" || f.Line < 1 || f.Column < 1 || f.Rule == "" || f.IsError() != (f.Severity == "error") {
				t.Errorf("%s: finding without a place: %s", c.name, f)
			}
		}
	}
}

func TestPlainSelectorNeedsCounterHoweverItIsWritten(t *testing.T) {
	for _, q := range []string{`requests_total{job="checkout"}`, `requests_total{ job='checkout' }`, `(requests_total{job="checkout"})`, `{__name__="requests_total",job="checkout"}`} {
		with := strings.Replace(checkout, `'sum(rate(requests_total{job="checkout"}[5m]))'`, fmt.Sprintf("%q", q), 1)
		if s := load(with); len(s.Findings()) > 0 {
			t.Errorf("%s with counter: true: %s", q, lines(s.Findings()))
		}
		s := load(strings.Replace(with, "counter: true", "counter: false", 1))
		if !strings.Contains(lines(s.Findings()), "error [not-a-counter]: total: a plain selector is counted with counter: true alone") {
			t.Errorf("%s without counter: true: findings are %q", q, lines(s.Findings()))
		}
	}
}

func TestCalendarWindowIsTakenWithItsZone(t *testing.T) {
	for duration, unit := range map[string]string{"1d": sla.Day, "1w": sla.Week, "1M": sla.Month, "1Q": sla.Quarter, "1Y": sla.Year} {
		for _, start := range []string{"", ", startTime: 2024-01-01 00:00:00"} { // a Monday
			text := strings.Replace(checkout, "30d\n      isRolling: true", duration+"\n      calendar: {timeZone: Europe/Berlin"+start+"}", 1)
			s := load(text)
			if len(s.Findings()) > 0 || len(s.Objectives()) == 0 {
				t.Errorf("%s%s: %s", duration, start, lines(s.Findings()))
				continue
			}
			if got, want := s.Objectives()[0].Window, (sla.Window{Calendar: unit, Count: 1, Timezone: "Europe/Berlin"}); got != want {
				t.Errorf("%s%s is %+v, want %+v", duration, start, got, want)
			}
		}
	}
}

func TestReferenceFindsTheIndicatorOfItsNamespaceInAnyFile(t *testing.T) {
	const sli = "apiVersion: openslo/v1\nkind: SLI\nmetadata: {name: x, namespace: shop}\nspec:\n  ratioMetric:\n    counter: true\n" +
		"    bad: {metricSource: {spec: {query: errors_total}}}\n    total: {metricSource: {spec: {query: requests_total}}}\n"
	from, to := strings.Index(checkout, "  indicator:"), strings.Index(checkout, "  objectives:")
	slo := checkout[:from] + "  indicatorRef: x\n" + checkout[to:]
	s := Load(map[string][]byte{"1-slo.yaml": []byte(slo), "2-sli.yaml": []byte(sli)})
	if len(s.Findings()) > 0 || len(s.Objectives()) != 2 {
		t.Fatalf("%d objectives, %s", len(s.Objectives()), lines(s.Findings()))
	}
	if got, want := s.Objectives()[0].SLI, (sla.SLI{Bad: "errors_total", Total: "requests_total"}); got.Canonical() != want.Canonical() {
		t.Errorf("SLI is %+v, want %+v", got, want)
	}
	elsewhere := strings.Replace(sli, "namespace: shop", "namespace: other", 1)
	s = Load(map[string][]byte{"1-slo.yaml": []byte(slo), "2-sli.yaml": []byte(elsewhere)})
	if !strings.Contains(lines(s.Findings()), "unknown-reference") {
		t.Errorf("an SLI of another namespace was used: %q", lines(s.Findings()))
	}
	// A mistake in the SLI is told where it stands.
	s = Load(map[string][]byte{"1-slo.yaml": []byte(slo), "2-sli.yaml": []byte(strings.Replace(sli, "errors_total", "\"x[5m]\"", 1))})
	if !strings.HasPrefix(lines(s.Findings()), "2-sli.yaml:7:40: error [not-a-counter]: bad: a range") {
		t.Errorf("findings are %q", lines(s.Findings()))
	}
}

// A second document of a name that is taken was evaluated beside the first, and
// one without a name as "".
func TestDocumentWithAWrongNameIsNotInForce(t *testing.T) {
	other := strings.Replace(checkout, `job="checkout"`, `job="other"`, 2)
	s := Load(map[string][]byte{"a.yaml": []byte(checkout), "b.yaml": []byte(other)})
	if len(s.Objectives()) != 2 || !strings.Contains(s.Objectives()[0].SLI.Total, "checkout") {
		t.Errorf("%d objectives, %+v; want the two of the first file", len(s.Objectives()), s.Objectives())
	}
	if got := lines(s.Findings()); !strings.HasPrefix(got, "b.yaml:4:9: error [duplicate-name]") {
		t.Errorf("findings are %q", got)
	}
}

func TestOtherKindsAreReadStrictlyAndMakeNoObjective(t *testing.T) {
	for _, kind := range []string{"Service", "DataSource", "AlertPolicy", "AlertCondition", "AlertNotificationTarget"} {
		s := load("apiVersion: openslo/v1\nkind: " + kind + "\nmetadata: {name: x}\nspec: {description: what it is}\n")
		want := ""
		if kind != "Service" { // which may stand by itself
			want = "a.yaml:3:18: warning [unused]: no SLO refers to " + kind + ` "x"`
		}
		if got := lines(s.Findings()); !strings.HasPrefix(got, want) || want == "" && got != "" || len(s.Objectives()) > 0 {
			t.Errorf("%s: %d objectives, %s", kind, len(s.Objectives()), got)
		}
		s = load("apiVersion: openslo/v1\nkind: " + kind + "\nmetadata: {nam: x}\n")
		if got, want := lines(s.Findings()), `a.yaml:3:12: error [schema]: unknown key "nam" under metadata; did you mean "name"?`; got != want {
			t.Errorf("%s: findings are %q, want %q", kind, got, want)
		}
	}
}

func TestBadFileHidesNeitherObjectivesNorFindingsOfTheOthers(t *testing.T) {
	s, err := LoadFS(fstest.MapFS{
		"a.yaml":         {Data: []byte("a: [\n")},
		"b.yaml":         {Data: []byte(checkout)},
		"c/d.yml":        {Data: []byte(strings.Replace(checkout, "service:", "servcie:", 1))},
		"e.yaml":         {Data: []byte("\x00\x01\xff")},
		"f.yaml":         {Data: []byte("groups: [{name: prometheus-rules}]\n")},
		"g.yaml":         {Data: nil},
		"notes.md":       {Data: []byte("a: [\n")},
		"sub/notes.yamL": {Data: []byte("a: [\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Objectives()) != 2 {
		t.Errorf("%d objectives, want the two of b.yaml", len(s.Objectives()))
	}
	var got []string
	for _, f := range s.Findings() {
		got = append(got, f.Path+" "+f.Rule)
	}
	if want := "a.yaml yaml, c/d.yml schema, e.yaml yaml, f.yaml api-version"; strings.Join(got, ", ") != want {
		t.Errorf("findings are %s, want %s", strings.Join(got, ", "), want)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Each document of a mounted ConfigMap was read twice and called a duplicate.
func TestMountedConfigMapIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "..2026_01_02", "checkout.yaml"), checkout)
	for link, to := range map[string]string{"..data": "..2026_01_02", "checkout.yaml": filepath.Join("..data", "checkout.yaml")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := LoadPaths(dir)
	if err != nil || len(s.Findings()) > 0 || len(s.Objectives()) != 2 {
		t.Fatalf("%v, %d objectives, %s", err, len(s.Objectives()), lines(s.Findings()))
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if s, err = LoadPaths(link); err != nil || len(s.Objectives()) != 2 {
		t.Fatalf("behind a link to the folder: %v, %+v", err, s)
	}
}

func TestPathsAreFilesAndFolders(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "slos", "deep", "a.yaml"), strings.Replace(checkout, "name: checkout\n", "name: deep\n", 1))
	write(t, filepath.Join(dir, "named.txt"), strings.Replace(checkout, "job=\"checkout\"", "job=\"other\"", 2))
	s, err := LoadPaths(filepath.Join(dir, "slos"), filepath.Join(dir, "named.txt"))
	if err != nil || len(s.Findings()) > 0 || len(s.Objectives()) != 4 {
		t.Errorf("%v, %+v; want the objectives of both", err, s)
	}
	empty := t.TempDir()
	if s, err := LoadPaths(empty); err != nil || len(s.Objectives()) != 0 || len(s.Findings()) != 0 {
		t.Errorf("a folder without documents: %v, %+v; want an empty set", err, s)
	}
	if _, err := LoadPaths(filepath.Join(dir, "missing")); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a folder that is not there: %v", err)
	}
	write(t, filepath.Join(dir, "big.yaml"), strings.Repeat("#", maxFile+1))
	if _, err := LoadPaths(filepath.Join(dir, "big.yaml")); err == nil || !strings.Contains(err.Error(), "split it") {
		t.Errorf("a file above the bound: %v", err)
	}
}

func TestR28ObjectiveIDFollowsTheIndicatorAndNotTheFile(t *testing.T) {
	ids := func(file, text string) string {
		s := Load(map[string][]byte{file: []byte(text)})
		if len(s.Objectives()) != 2 {
			t.Fatalf("%d objectives: %s", len(s.Objectives()), lines(s.Findings()))
		}
		return s.Objectives()[0].ID.String() + " " + s.Objectives()[1].ID.String()
	}
	// Ledgers hold these: a change here orphans every book.
	const want = "c92f6d1814ec1d5e 93e8e211a1bb21c3"
	if got := ids("a.yaml", checkout); got != want {
		t.Errorf("ids are %s, want %s", got, want)
	}
	for name, text := range map[string]string{
		"another target":      strings.Replace(checkout, "0.999", "0.9999", 1),
		"another window":      strings.Replace(checkout, "30d", "7d", 1),
		"another title":       strings.Replace(checkout, "displayName: Checkout answers", "displayName: x", 1),
		"another description": strings.Replace(checkout, "Answers that", "x", 1),
		"comments":            "# head\n" + checkout,
	} {
		if got := ids("z/other.yml", text); got != want {
			t.Errorf("%s: ids are %s, want %s", name, got, want)
		}
	}
	for name, text := range map[string]string{
		"another indicator": strings.Replace(checkout, "5..", "4..", 1),
		"another range":     strings.Replace(checkout, "[5m]", "[1m]", 1),
		"another namespace": strings.Replace(checkout, "namespace: shop", "namespace: x", 1),
		"another name":      strings.Replace(checkout, "name: checkout\n", "name: x\n", 1),
	} {
		got := ids("a.yaml", text)
		for _, id := range strings.Fields(got) {
			if strings.Contains(want, id) {
				t.Errorf("%s: id %s is that of before", name, id)
			}
		}
	}
}

func TestSameFilesGiveTheSameSetEachTime(t *testing.T) {
	files := map[string][]byte{}
	for i := range 8 {
		bad := strings.Replace(checkout, "target: 0.999", "target: 0.5\n      op: lte\n      value: 1\n      timeSliceWindow: x\n      compositeWeight: 1", 1)
		files[fmt.Sprintf("%d.yaml", i)] = []byte(bad)
		files[fmt.Sprintf("ok%d.yaml", i)] = []byte(strings.Replace(checkout, "name: checkout\n", fmt.Sprintf("name: n%d\n", i), 1))
	}
	first := Load(files)
	for range 20 {
		s := Load(files)
		if !reflect.DeepEqual(s.Findings(), first.Findings()) || !reflect.DeepEqual(s.Objectives(), first.Objectives()) {
			t.Fatalf("got\n%s\nbefore\n%s", lines(s.Findings()), lines(first.Findings()))
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(checkout))
	f.Add([]byte("apiVersion: openslo/v1\nkind: SLI\nmetadata: {name: x}\n---\n- a\n"))
	f.Add([]byte(strings.Replace(checkout, "30d", "1M", 1)))
	f.Add([]byte(strings.Replace(checkout, "{nines.internal/team: shop", "{nines.internal/group-by: 'a, b.c', nines.internal/max-groups: '9'", 1)))
	f.Add([]byte(strings.Replace(checkout, "sum(rate(requests_total{job=\"checkout\"}[5m]))", "histogram_count(sum(rate(x[5m]))) * histogram_fraction(0, 1, sum(rate(x[5m])))", 1)))
	f.Add([]byte(strings.Replace(checkout, "  objectives:", "  objectives: &o [*o]\n  x:", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		s := load(string(data))
		for _, x := range s.Findings() {
			if x.Path != "a.yaml" || x.Line < 1 || x.Column < 1 || x.Message == "" {
				t.Fatalf("finding without a place: %+v", x)
			}
		}
		for _, o := range s.Objectives() {
			if o.SLO == "" || o.Target.IsZero() || o.SLI.Total == "" {
				t.Fatalf("half an objective: %+v", o)
			}
			if _, _, err := o.Window.Bounds(0); err != nil {
				t.Fatal(err)
			}
			if x, err := Explain(o, Asked{Parts: Parts(s.Objectives())}); err != nil || !strings.Contains(x.Text(), "What counts as good") {
				t.Fatalf("explained as %q, %v", x.Text(), err)
			}
		}
		if _, err := Prometheus(s.Objectives()); err != nil {
			t.Fatalf("objectives that are in force cannot be exported: %v", err)
		}
	})
}
