package openslo

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nines/pkg/sla"
)

const formHead = `apiVersion: openslo/v1
kind: SLO
metadata: {name: form, namespace: shop%s}
spec:
  service: shop
  budgetingMethod: %s
  timeWindow: [{duration: 28d, isRolling: true}]
`

// form is an SLO with annotations, a method and the rest of its spec.
func form(annotations, method, rest string) string {
	if annotations != "" {
		annotations = ", annotations: {" + annotations + "}"
	}
	return fmt.Sprintf(formHead, annotations, method) + rest
}

const (
	counters  = "  indicator: {metadata: {name: i}, spec: {ratioMetric: {counter: true, good: {metricSource: {spec: {query: good_total}}}, total: {metricSource: {spec: {query: all_total}}}}}}\n"
	aValue    = "  indicator: {metadata: {name: i}, spec: {thresholdMetric: {metricSource: {spec: {query: 'max(queue_depth)'}}}}}\n"
	aRaw      = "  indicator: {metadata: {name: i}, spec: {ratioMetric: {rawType: failure, raw: {metricSource: {spec: {query: 'job:errors:ratio'}}}}}}\n"
	aPolicy   = "{kind: AlertPolicy, metadata: {name: p}, spec: {conditions: [{kind: AlertCondition, metadata: {name: c}, spec: {severity: page, condition: {kind: burnrate, threshold: 2, lookbackWindow: 1h, alertAfter: 5m}}}], notificationTargets: [{targetRef: mail}]}}"
	mail      = "---\napiVersion: openslo/v1\nkind: AlertNotificationTarget\nmetadata: {name: mail, namespace: shop}\nspec: {target: email}\n"
	oneTarget = "  objectives: [{target: 0.99}]\n"
)

func TestEveryFormOfAnIndicatorMakesItsObjectives(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // objective: canonical indicator
	}{
		{"ratio", form("", "Occurrences", counters+oneTarget), []string{`0: good="good_total" bad="" total="all_total"`}},
		{"a value", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lte, value: 1e2}]\n"), []string{`0: value="max(queue_depth)" op=lte limit=100`}},
		{"a negative limit", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: gt, value: -0.5}]\n"), []string{`0: value="max(queue_depth)" op=gt limit=-0.5`}},
		{"raw", form("", "Occurrences", aRaw+oneTarget), []string{`0: raw="job:errors:ratio" bad=true`}},
		{"time slices, two targets of one indicator", form("", "Timeslices", counters+"  objectives:\n  - {displayName: a, target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5}\n  - {displayName: b, target: 0.95, timeSliceTarget: 0.9, timeSliceWindow: 1h}\n"),
			[]string{`(events): good="good_total" bad="" total="all_total"`, `a: slices=5m ratio=false target=0.9`, `b: slices=60m ratio=false target=0.9`}},
		{"slices of a value", form("", "Timeslices", aValue+"  objectives: [{target: 0.99, op: lt, value: 1, timeSliceTarget: 1, timeSliceWindow: 1d}]\n"),
			[]string{`(events): value="max(queue_depth)" op=lt limit=1`, `0: slices=1440m ratio=false target=1`}},
		{"ratios of slices", form("", "RatioTimeslices", aRaw+"  objectives: [{target: 0.99, timeSliceWindow: 10m}]\n"),
			[]string{`(events): raw="job:errors:ratio" bad=true`, `0: slices=10m ratio=true`}},
		{"composite by weight", form("", "Occurrences", counters+"  objectives:\n  - {displayName: a, target: 0.99, compositeWeight: 3}\n  - {displayName: b, target: 0.95}\n"),
			[]string{`a: good="good_total"`, `b: good="good_total"`, `composite: combine=weighted`}},
		{"composite of all, with slices", form(`nines.internal/composite: all-of, nines.internal/composite-target: "0.9"`, "Timeslices", counters+"  objectives:\n  - {displayName: a, target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}\n  - {displayName: b, target: 0.95, timeSliceTarget: 0.8, timeSliceWindow: 5m}\n"),
			[]string{`(events)`, `a: slices=5m`, `b: slices=5m`, `composite: combine=all-of`}},
	} {
		s := load(c.text)
		var got []string
		for _, o := range s.Objectives() {
			text := o.SLI.Canonical()
			if s := o.SLI.Slices; s != nil && len(o.SLI.Parts) == 1 {
				text = text[strings.Index(text, "slices="):]
			}
			got = append(got, o.Name+": "+text)
			if o.Inner != (o.Name == innerName) || o.Inner && len(o.Policies) > 0 {
				t.Errorf("%s: objective %s is shown: %t", c.name, o.Name, !o.Inner)
			}
			for _, p := range o.SLI.Parts {
				found := false
				for _, other := range s.Objectives() {
					found = found || other.ID == p.Objective
				}
				if !found {
					t.Errorf("%s: part %s of %s is no objective", c.name, p.Name, o.Name)
				}
			}
		}
		match := len(got) == len(c.want)
		for i := 0; match && i < len(got); i++ {
			match = strings.HasPrefix(got[i], c.want[i])
		}
		if !match {
			t.Errorf("%s:\ngot  %s\nwant %s\n%s", c.name, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "), lines(s.Findings()))
		}
	}
}

func TestACompositeHasTheWeightedMeanOfItsTargetsOrItsOwn(t *testing.T) {
	objectives := counters + "  objectives:\n  - {displayName: a, target: 0.99, compositeWeight: 2}\n  - {displayName: b, target: 0.95}\n"
	for _, c := range []struct{ notes, want string }{
		{"", "0.976666666666"},
		{`nines.internal/composite-target: "0.999"`, "0.999"},
	} {
		all := load(form(c.notes, "Occurrences", objectives)).Objectives()
		if len(all) != 3 || all[2].Target.String() != c.want {
			t.Errorf("with %q the composite is %+v, want the target %s", c.notes, all, c.want)
		}
	}
}

func TestAlertPoliciesAreReadInlineAndByReference(t *testing.T) {
	want := sla.Policy{Name: "p", Severity: "page", Threshold: "2", Lookback: time.Hour, After: 5 * time.Minute, Targets: []string{"mail"}}
	inline := form("", "Occurrences", counters+"  alertPolicies: ["+aPolicy+"]\n"+oneTarget) + mail
	referred := form("", "Occurrences", counters+"  alertPolicies: [{alertPolicyRef: p}]\n"+oneTarget) + mail +
		"---\napiVersion: openslo/v1\nkind: AlertPolicy\nmetadata: {name: p, namespace: shop}\nspec: {alertWhenBreaching: true, alertWhenNoData: false, conditions: [{conditionRef: c}], notificationTargets: [{targetRef: mail}]}\n" +
		"---\napiVersion: openslo/v1\nkind: AlertCondition\nmetadata: {name: c, namespace: shop}\nspec: {severity: page, condition: {kind: burnrate, op: gte, threshold: 2, lookbackWindow: 1h, alertAfter: 5m}}\n"
	for name, text := range map[string]string{"inline": inline, "by reference": referred} {
		s := load(text)
		if len(s.Findings()) > 0 || len(s.Objectives()) != 1 || len(s.Objectives()[0].Policies) != 1 {
			t.Errorf("%s: %d objectives, %s", name, len(s.Objectives()), lines(s.Findings()))
			continue
		}
		want := want
		if name != "inline" {
			want.AtLeast, want.IgnoreNoData = true, true
		}
		got := s.Objectives()[0].Policies[0]
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestMistakesInFormsAreFindings(t *testing.T) {
	policy := func(old, new string) string {
		return form("", "Occurrences", counters+"  alertPolicies: ["+strings.Replace(aPolicy, old, new, 1)+"]\n"+oneTarget) + mail
	}
	slices := func(objective string) string {
		return form("", "Timeslices", counters+"  objectives: [{"+objective+"}]\n")
	}
	for _, c := range []struct{ name, text, want string }{
		{"value without op", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, value: 1}]\n"), "error [threshold]: an objective of a thresholdMetric needs op"},
		{"value without value", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt}]\n"), "error [threshold]: an objective of a thresholdMetric needs a value"},
		{"an op that is none", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: eq, value: 1}]\n"), `error [threshold]: op is "eq", want lt, lte, gt or gte`},
		{"infinity", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt, value: .inf}]\n"), `error [threshold]: value ".inf" is not a decimal number`},
		{"two thresholds", form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt, value: 1}, {target: 0.9, op: lt, value: 2}]\n"), "warning [several-thresholds]"},
		{"a text", strings.Replace(form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt, value: 1}]\n"), "max(queue_depth)", `"a"`, 1), "error [query]: thresholdMetric: a text is no value"},
		{"a range", strings.Replace(form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt, value: 1}]\n"), "max(queue_depth)", "a[5m]", 1), "error [query]: thresholdMetric: a range of samples has no one value"},
		{"a counter as a value", strings.Replace(form("", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt, value: 1}]\n"), "max(queue_depth)", "a_total", 1), "error [hides-resets]: thresholdMetric compares counter a_total as it is"},
		{"absent values", form("nines.internal/absent: bad", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt, value: 1}]\n"), "error [annotation]: annotation nines.internal/absent is for indicators of counters"},
		{"groups of values", form("nines.internal/group-by: pod", "Occurrences", aValue+"  objectives: [{target: 0.99, op: lt, value: 1}]\n"), "error [not-evaluated]: annotation nines.internal/group-by is for indicators of counters"},
		{"raw", form("", "Occurrences", aRaw+oneTarget), "warning [mean-of-ratios]: a raw ratio says nothing of how many events there were"},
		{"raw without type", strings.Replace(form("", "Occurrences", aRaw+oneTarget), "rawType: failure, ", "", 1), `error [indicator]: rawType is ""`},
		{"type without raw", strings.Replace(form("", "Occurrences", counters+oneTarget), "counter: true", "rawType: success", 1), "error [indicator]: rawType says what raw is, which is not given"},
		{"slices without a target", slices("target: 0.99, timeSliceWindow: 5m"), "error [time-slices]: budgetingMethod Timeslices needs timeSliceTarget"},
		{"slices that do not tile a day", slices("target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 7m"), `error [time-slices]: timeSliceWindow "7m": want whole minutes that tile a day`},
		{"slices of months", slices("target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 1M"), `error [time-slices]: timeSliceWindow "1M"`},
		{"slices longer than a window", slices("target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 1h"), "warning [slice-too-long]: tier fast looks at 5 min, in which no slice of 1 h may end: it fires late and resolves early"},
		{"slices longer than a long window", slices("target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 2h"), "warning [slice-too-long]: tier fast looks at 1 h, in which no slice of 2 h may end: it never fires"},
		{"a slice target without slices", form("", "RatioTimeslices", counters+"  objectives: [{target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}]\n"), "error [time-slices]: timeSliceTarget has no meaning with RatioTimeslices"},
		{"groups of slices", form("nines.internal/group-by: pod", "Timeslices", counters+"  objectives: [{target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}]\n"), "error [not-evaluated]: annotation nines.internal/group-by with budgetingMethod Timeslices"},
		{"a composite of one", form("nines.internal/composite: all-of", "Occurrences", counters+oneTarget), "error [composite]: a composite needs at least two objectives"},
		{"a composite of what", form(`nines.internal/composite: some, nines.internal/composite-target: "0.9"`, "Occurrences", counters+"  objectives: [{target: 0.99}, {target: 0.9}]\n"), `error [composite]: annotation nines.internal/composite is "some"`},
		{"a composite without a target", form("nines.internal/composite: any-of", "Occurrences", counters+"  objectives: [{target: 0.99}, {target: 0.9}]\n"), "error [composite]: a composite any-of needs a target of its own"},
		{"slices of two lengths", form(`nines.internal/composite-target: "0.9"`, "Timeslices", counters+"  objectives:\n  - {target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}\n  - {target: 0.95, timeSliceTarget: 0.8, timeSliceWindow: 10m}\n"), "error [composite]: the objectives of a composite have slices of different lengths"},
		{"unknown policy", form("", "Occurrences", counters+"  alertPolicies: [{alertPolicyRef: x}]\n"+oneTarget), `a.yaml:9:36: error [unknown-reference]: there is no AlertPolicy named "x" in namespace "shop"`},
		{"unknown target", policy("targetRef: mail", "targetRef: male"), `error [unknown-reference]: there is no AlertNotificationTarget named "male"`},
		{"no condition", policy("conditions: [{kind", "conditions: [], x: [{kind"), "error [schema]: unknown key"},
		{"no severity", policy("severity: page, ", ""), "error [alert-policy]: an alert condition needs a severity"},
		{"a condition of another kind", policy("kind: burnrate", "kind: latency"), `error [alert-policy]: conditions of kind "latency" are not known`},
		{"a low burn", policy("threshold: 2", "threshold: 2, op: lt"), `error [alert-policy]: op is "lt"`},
		{"no threshold", policy("threshold: 2, ", ""), `error [alert-policy]: threshold ""`},
		{"a window of a week", policy("lookbackWindow: 1h", "lookbackWindow: 1w"), "error [alert-policy]: lookbackWindow: 1w is out of range: 1m to 3d"},
		{"no window", policy("lookbackWindow: 1h, ", ""), `error [alert-policy]: lookbackWindow: no duration`},
		{"a policy that never fires", policy("threshold: 2", "threshold: 200"), "warning [cannot-fire]: alert policy p fires above a burn rate of 200, but with a target of 99 % the burn rate never exceeds 100.00"},
		{"neither breach nor no data", policy("spec: {conditions", "spec: {alertWhenBreaching: false, alertWhenNoData: false, conditions"), "error [alert-policy]: alert policy p tells neither of a breach nor of missing data"},
		{"a name that is taken", policy("metadata: {name: p}", "metadata: {name: unseen}"), `error [alert-policy]: an alert policy named "unseen" would be taken for`},
		{"resolved", policy("spec: {conditions", "spec: {alertWhenResolved: false, conditions"), "warning [alert-policy]: every end of an alert goes to Alertmanager"},
		{"a policy twice", form("", "Occurrences", counters+"  alertPolicies: ["+aPolicy+", "+aPolicy+"]\n"+oneTarget) + mail, `error [duplicate-name]: a second alert policy is named "p"`},
		{"source of another type", form("", "Occurrences", strings.Replace(counters, "good: {metricSource: {", "good: {metricSource: {metricSourceRef: s, ", 1)+oneTarget) + "---\napiVersion: openslo/v1\nkind: DataSource\nmetadata: {name: s, namespace: shop}\nspec: {type: Datadog}\n", `error [not-evaluated]: good: metric sources of type "Datadog" are not evaluated`},
		{"two types", form("", "Occurrences", strings.Replace(counters, "good: {metricSource: {", "good: {metricSource: {metricSourceRef: s, type: Datadog, ", 1)+oneTarget) + "---\napiVersion: openslo/v1\nkind: DataSource\nmetadata: {name: s, namespace: shop}\nspec: {type: Prometheus}\n", `error [indicator]: good: type is "Datadog", but DataSource "s" is of type "Prometheus"`},
		{"details of a source", form("", "Occurrences", strings.Replace(counters, "good: {metricSource: {", "good: {metricSource: {metricSourceRef: s, ", 1)+oneTarget) + "---\napiVersion: openslo/v1\nkind: DataSource\nmetadata: {name: s, namespace: shop}\nspec: {type: prometheus, connectionDetails: {url: x}}\n", "warning [unused]: connectionDetails are not used"},
		{"a service that is not there", form("", "Occurrences", counters+oneTarget) + "---\napiVersion: openslo/v1\nkind: Service\nmetadata: {name: other, namespace: shop}\nspec: {}\n", `warning [unknown-service]: there is no Service named "shop"`},
		{"a long description", form("", "Occurrences", "  description: "+strings.Repeat("ä", 1051)+"\n"+counters+oneTarget), "warning [long-description]: the description has 1051 characters"},
		{"a name of its own", strings.Replace(form("", "Occurrences", counters+oneTarget), "name: form", "name: My Form", 1), `warning [name]: name "My Form" is not one that other programs need to take`},
		{"slices of one meaning", slices("target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m") + "---\n" + strings.Replace(slices("target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m"), "name: form", "name: again", 1), `warning [same-meaning]: SLO "again" measures the same as SLO "form": both will alert`},
		{"one name in two namespaces", form("", "Occurrences", counters+oneTarget) + "---\n" + strings.Replace(strings.Replace(form("", "Occurrences", counters+oneTarget), "namespace: shop", "namespace: lab", 1), "all_total", "total", 1), `a.yaml:13:18: warning [same-name]: namespace "shop" has an SLO "form", too`},
		{"a label", strings.Replace(form("", "Occurrences", counters+oneTarget), "namespace: shop", "namespace: shop, labels: {-a: b}", 1), `warning [label]: label "-a"`},
	} {
		s := load(c.text)
		if got := lines(s.Findings()); !strings.Contains(got, c.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		if strings.HasPrefix(c.want, "error") != (len(s.Objectives()) == 0) && !strings.Contains(c.want, ": error") {
			t.Errorf("%s: %d objectives in force", c.name, len(s.Objectives()))
		}
	}
}
