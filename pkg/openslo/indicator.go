package openslo

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"

	"nines/pkg/sla"
)

// indicator finds an indicator, given or by its name, and returns its queries.
// What it is compared with (op and value) is the objective's.
func (r *resolver) indicator(given *indicator, ref string, here place) (sla.SLI, bool) {
	var ind indicatorSpec
	var at place
	switch {
	case given != nil && ref != "":
		r.fail(here, "indicator", "indicatorRef", "give indicator or indicatorRef, not both")
		return sla.SLI{}, false
	case given != nil:
		ind, at = given.Spec, here.in("indicator", "spec")
		r.description(here.doc, ind.Description)
	default:
		namespace := r.o.spec.Metadata.Namespace
		found := r.indicators[namespace+"/"+ref]
		if found == nil {
			r.fail(here, "unknown-reference", "indicatorRef", "there is no SLI named %q in namespace %q: add its document, or correct the name", ref, namespace)
			return sla.SLI{}, false
		}
		found.used = true
		ind, at = found.spec, place{found.doc, []string{"spec"}}
	}
	before := r.errors()
	r.asked = nil
	sli := r.queries(ind, at)
	return sli, r.errors() == before && sli.Canonical() != (sla.SLI{}).Canonical()
}

// queries returns what an indicator asks for.
func (r *resolver) queries(ind indicatorSpec, at place) sla.SLI {
	switch m := ind.RatioMetric; {
	case ind.ThresholdMetric != nil && m != nil:
		r.fail(at, "indicator", "thresholdMetric", "an indicator has a thresholdMetric or a ratioMetric, not both: take one out")
	case ind.ThresholdMetric != nil:
		return sla.SLI{Value: r.observed("thresholdMetric", "value", ind.ThresholdMetric, at.in("thresholdMetric"))}
	case m == nil:
		r.fail(at, "indicator", "ratioMetric", "the indicator needs a ratioMetric or a thresholdMetric")
	case m.Raw != nil:
		return r.raw(m, at.in("ratioMetric"))
	case m.RawType != "":
		r.fail(at, "indicator", "ratioMetric rawType", "rawType says what raw is, which is not given: add raw, or take rawType out")
	case m.Total == nil || (m.Good == nil) == (m.Bad == nil):
		r.fail(at, "indicator", "ratioMetric", "a ratioMetric needs total and either good or bad (or raw)")
	default:
		return r.ratio(m, at.in("ratioMetric"))
	}
	return sla.SLI{}
}

// raw reads a ratio that was computed elsewhere.
func (r *resolver) raw(m *ratioMetric, at place) sla.SLI {
	if m.Good != nil || m.Bad != nil || m.Total != nil {
		r.fail(at, "indicator", "raw", "raw is the whole ratio: take good, bad and total out, or take raw out")
		return sla.SLI{}
	}
	if m.RawType != "success" && m.RawType != "failure" {
		r.fail(at, "indicator", "rawType", "rawType is %q: say whether raw is the share of good events (success) or of bad ones (failure)", m.RawType)
		return sla.SLI{}
	}
	if m.Counter {
		r.warn(at, "unused", "counter", "counter has no meaning for raw, which is observed as it is: take it out")
	}
	r.warn(at, "mean-of-ratios", "raw", "a raw ratio says nothing of how many events there were: each minute counts alike, whatever its traffic; give good (or bad) and total where there are counters")
	return sla.SLI{Raw: r.observed("raw", "raw", m.Raw, at.in("raw")), RawBad: m.RawType == "failure"}
}

// observed reads a query whose value is observed once a minute.
func (r *resolver) observed(name, side string, m *metricHolder, at place) string {
	r.source(name, m, at)
	q := strings.TrimSpace(m.MetricSource.Spec.Query)
	const key = "metricSource spec query"
	if q == "" {
		r.fail(at, "query", key, "%s has no query", name)
		return ""
	}
	r.asked = append(r.asked, placed(side, q, at.doc, at.at(strings.Fields(key)...)))
	expr, err := promql.ParseExpr(q)
	if err != nil {
		r.fail(at, "query", key, "%s: not valid PromQL: %v", name, err)
		return ""
	}
	switch expr.Type() {
	case parser.ValueTypeMatrix:
		r.fail(at, "query", key, "%s: a range of samples has no one value: take a function of it, such as avg_over_time", name)
	case parser.ValueTypeString:
		r.fail(at, "query", key, "%s: a text is no value", name)
	}
	hides(expr, func(severity, rule, format string, args ...any) {
		switch {
		case rule == "per-range":
			return // a value may be of any unit
		case strings.HasPrefix(format, "adds up counter"):
			format = "compares counter %s as it is, which is all events since its start: write rate(%s{…}[5m])"
		}
		r.find(severity, rule, at.doc, at.at(strings.Fields(key)...), name+" "+format, args...)
	})
	return q
}

// source checks where the samples of a query come from: all that this program
// counts is sent to it, so that a source names no more than the language.
func (r *resolver) source(name string, m *metricHolder, at place) {
	kind, ref := m.MetricSource.Type, m.MetricSource.MetricSourceRef
	if ref != "" {
		namespace := r.o.spec.Metadata.Namespace
		found := r.sources[namespace+"/"+ref]
		if found == nil {
			r.fail(at, "unknown-reference", "metricSource metricSourceRef", "%s: there is no DataSource named %q in namespace %q: add its document, or take metricSourceRef out", name, ref, namespace)
			return
		}
		if len(found.spec.ConnectionDetails) > 0 && !found.used {
			r.find("warning", "unused", found.doc, found.doc.Find("spec", "connectionDetails"), "connectionDetails are not used: the samples are sent to this program by remote write, it does not fetch them")
		}
		found.used = true
		if kind != "" && !strings.EqualFold(kind, found.spec.Type) {
			r.fail(at, "indicator", "metricSource type", "%s: type is %q, but DataSource %q is of type %q: take one out", name, kind, ref, found.spec.Type)
			return
		}
		kind = found.spec.Type
	}
	if kind != "" && !strings.EqualFold(kind, "prometheus") {
		r.fail(at, "not-evaluated", "metricSource type", "%s: metric sources of type %q are not evaluated: use Prometheus, with a query in PromQL", name, kind)
	}
}

// ratio reads good or bad, and total.
func (r *resolver) ratio(m *ratioMetric, at place) sla.SLI {
	const key = "metricSource spec query"
	query := func(name string, h *metricHolder) string {
		if h == nil {
			return ""
		}
		in := at.in(name)
		r.source(name, h, in)
		q := strings.TrimSpace(h.MetricSource.Spec.Query)
		if q == "" {
			r.fail(in, "query", key, "%s has no query", name)
			return ""
		}
		r.asked = append(r.asked, placed(name, q, in.doc, in.at(strings.Fields(key)...)))
		parsed, err := ParseQuery(q)
		if err != nil {
			r.fail(in, "not-a-counter", key, "%s: %v", name, err)
			return q
		}
		if parsed.Plain && !m.Counter {
			r.fail(in, "not-a-counter", key, "%s: a plain selector is counted with counter: true alone", name)
		}
		for _, f := range judge(parsed, name, r.groupBy) {
			r.find(f.severity, f.rule, in.doc, in.at(strings.Fields(key)...), "%s %s", name, f.text)
		}
		return q
	}
	sli := sla.SLI{Good: query("good", m.Good), Bad: query("bad", m.Bad), Total: query("total", m.Total)}
	counted, err := ParseSLI(sli)
	switch part := sli.Good + sli.Bad; {
	case part == "" || sli.Total == "":
	case err != nil && counted.Total.Expr != "": // else it is told above
		r.fail(at, "mixed-kinds", "", "%v", err)
	case err == nil && counted.IsSampled():
		for _, q := range []struct {
			name, text string
			holder     *metricHolder
		}{{"good", sli.Good, m.Good}, {"bad", sli.Bad, m.Bad}, {"total", sli.Total, m.Total}} {
			if own, err := ParseQuery(q.text); err == nil && q.holder != nil && own.Kind != Expression {
				r.warn(at, "sampled", q.name+" "+key, "%s could be counted, but is evaluated once a minute as the other side of the ratio is", q.name)
			}
		}
	}
	r.sameTargets(sli, at)
	return sli
}

// sameTargets warns where good and total select other targets or scopes: their
// ratio is then of two different things.
func (r *resolver) sameTargets(sli sla.SLI, at place) {
	ind, err := ParseSLI(sli)
	if err != nil || ind.IsSampled() {
		return
	}
	part, total := ind.Part.Matchers, ind.Total.Matchers
	scope := func(name string) (a, b string) {
		for _, m := range part {
			if m.Name == name {
				a = m.String()
			}
		}
		for _, m := range total {
			if m.Name == name {
				b = m.String()
			}
		}
		return a, b
	}
	for _, name := range []string{"job", "instance", "cluster", "namespace", "service"} {
		if a, b := scope(name); a != b {
			r.warn(at, "different-scope", "", "good (or bad) selects %s and total selects %s: they count different things", orNothing(a), orNothing(b))
		}
	}
}

func orNothing(s string) string {
	if s == "" {
		return "any"
	}
	return s
}

// Comparison returns what op (lt, lte, gt or gte) and a limit in decimal text
// ask of a value. NaN is never good.
func Comparison(op, limit string) (func(float64) bool, error) {
	l, err := strconv.ParseFloat(limit, 64)
	if err != nil {
		return nil, fmt.Errorf("limit %q: want a decimal number", limit)
	}
	switch op {
	case "lt":
		return func(v float64) bool { return v < l }, nil
	case "lte":
		return func(v float64) bool { return v <= l }, nil
	case "gt":
		return func(v float64) bool { return v > l }, nil
	case "gte":
		return func(v float64) bool { return v >= l }, nil
	}
	return nil, fmt.Errorf("op %q: want lt, lte, gt or gte", op)
}
