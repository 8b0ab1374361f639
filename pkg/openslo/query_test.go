package openslo

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nines/pkg/sla"
)

func TestR08QueryIsOfOneKind(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		query     string
		kind      QueryKind
		threshold float64
		expr      string
	}{
		{`sum(rate(x_total[5m]))`, Counter, 0, `x_total`},
		{`sum(increase(x_total{a="b"}[5m]))`, Counter, 0, `x_total{a="b"}`},
		{`x_total`, Counter, 0, `x_total`},

		{`sum(rate(x_bucket{job="a",le="0.25"}[5m]))`, Bucket, 0.25, `x_bucket{job="a"}`},
		{`sum(increase(x_bucket{le="1.0"}[5m]))`, Bucket, 1, `x_bucket`},
		{`x_bucket{le="-3e2"}`, Bucket, -300, `x_bucket`},
		// All of a histogram, and what is no edge, are counters like any other.
		{`sum(rate(x_bucket{le="+Inf"}[5m]))`, Counter, 0, `x_bucket{le="+Inf"}`},
		{`sum(rate(x_bucket{le="NaN"}[5m]))`, Counter, 0, `x_bucket{le="NaN"}`},
		{`sum(rate(x_bucket{le="fast"}[5m]))`, Counter, 0, `x_bucket{le="fast"}`},
		{`sum(rate(x_bucket{le=""}[5m]))`, Counter, 0, `x_bucket{le=""}`},
		{`sum(rate(x_bucket{le=~"0.25"}[5m]))`, Counter, 0, `x_bucket{le=~"0.25"}`},
		{`sum(rate(x_bucket{le!="0.25"}[5m]))`, Counter, 0, `x_bucket{le!="0.25"}`},
		{`sum(rate(x_bucket{le="1",le="2"}[5m]))`, Counter, 0, `x_bucket{le="1",le="2"}`},
		{`sum(rate(x_bucket{le="1",le!="2"}[5m]))`, Counter, 0, `x_bucket{le="1",le!="2"}`},
		// A selector of le alone would be one of everything without it.
		{`sum(rate({le="1"}[5m]))`, Counter, 0, `{le="1"}`},

		{`histogram_count(sum(rate(x{a="b"}[5m])))`, NativeCount, 0, `x{a="b"}`},
		{`histogram_count(sum(increase(x[5m])))`, NativeCount, 0, `x`},
		{`sum(histogram_count(rate(x[5m])))`, NativeCount, 0, `x`},
		{`(sum((histogram_count((increase((x[5m])))))))`, NativeCount, 0, `x`},

		{`histogram_fraction(0, 0.25, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, NativeFraction, 0.25, `x`},
		{`histogram_count(sum(rate(x[5m]))) * histogram_fraction(0, 0.25, sum(rate(x[5m])))`, NativeFraction, 0.25, `x`},
		{`sum(histogram_count(rate(x[5m]))) * (histogram_fraction((0), (1), (sum(rate(x[5m])))))`, NativeFraction, 1, `x`},
		{`histogram_fraction(-Inf, -2, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, NativeFraction, -2, `x`},
		{`histogram_fraction(0, 1, sum(increase(x{a="1",b="2"}[5m]))) * histogram_count(sum(increase(x{b="2",a="1"}[5m])))`, NativeFraction, 1, `x{a="1",b="2"}`},

		{query: `histogram_fraction(0, 1, sum(rate(x[5m]))) * histogram_count(sum(rate(y[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, 1, sum(rate(x[5m]))) * histogram_count(sum(rate(x[1m])))`, kind: Expression},
		{query: `histogram_fraction(0, 1, sum(rate(x[5m]))) * histogram_count(sum(increase(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, 1, sum(rate(x[5m]))) / histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, 1, sum(rate(x[5m]))) * on (a) histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0.1, 1, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, -1, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, 0, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(+Inf, 1, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, Inf, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, NaN, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, scalar(y), sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, 1, sum(rate(x[5m])))`, kind: Expression},
		{query: `histogram_fraction(0, 1, sum by (a) (rate(x[5m]))) * histogram_count(sum by (a) (rate(x[5m])))`, kind: Expression},
		{query: `histogram_count(rate(x[5m]))`, kind: Expression},
		{query: `histogram_count(sum(x))`, kind: Expression},
		{query: `histogram_count(sum(rate(x[5m] offset 1m)))`, kind: Expression},
		{query: `histogram_count(sum(rate(x[5m:1m])))`, kind: Expression},
		{query: `histogram_count(avg(rate(x[5m])))`, kind: Expression},
		{query: `histogram_sum(sum(rate(x[5m])))`, kind: Expression},

		{query: `1`, kind: Expression}, {query: `time()`, kind: Expression}, {query: `-x`, kind: Expression},
		{query: `sum(rate(x[5m])) * 2`, kind: Expression},
		{query: `sum(rate(x[5m])) - sum(rate(y[5m]))`, kind: Expression},
		{query: `avg(rate(x[5m]))`, kind: Expression},
		{query: `sum by (code) (rate(x[5m]))`, kind: Expression},
		{query: `sum(x)`, kind: Expression},
		{query: `sum(rate(x[5m] offset 1h))`, kind: Expression},
		{query: `sum(rate(x[5m:1m]))`, kind: Expression},
	} {
		q, err := ParseQuery(" " + c.query + " ")
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		if q.Kind != c.kind || q.Threshold != c.threshold {
			t.Errorf("%s is a %s up to %v, want a %s up to %v", c.query, q.Kind, q.Threshold, c.kind, c.threshold)
			continue
		}
		if c.kind == Expression {
			c.expr = c.query
			if q.Matchers != nil || !strings.Contains(q.Sampled, "; ") {
				t.Errorf("%s: matchers %v, and a remedy of %q", c.query, q.Matchers, q.Sampled)
			}
		} else if q.Sampled != "" || selector(q.Matchers) != c.expr {
			t.Errorf("%s selects %s (%q), want %s", c.query, selector(q.Matchers), q.Sampled, c.expr)
		}
		if q.Expr != c.expr {
			t.Errorf("%s has the text %s, want %s", c.query, q.Expr, c.expr)
		}
		if wantFromZero := q.Kind == NativeFraction && !strings.Contains(c.query, "-Inf"); q.FromZero != wantFromZero {
			t.Errorf("%s begins at 0: %t, want %t", c.query, q.FromZero, wantFromZero)
		}
	}
	if q, _ := ParseQuery("sum(rate(x_bucket{le=\"+Inf\"}[5m]))"); q.Threshold == inf {
		t.Error("all events are no threshold")
	}
}

func TestR08QueryWithoutAValueIsRefusedWithTheRemedy(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{``, "not valid PromQL"},
		{`sum(rate(x[5m])`, "not valid PromQL"},
		{`sum(x[5m])`, "not valid PromQL"},
		{`{}`, "not valid PromQL"},
		{`x[5m]`, "a range of samples has no one value; " + wantCounter},
		{`x[5m:1m]`, "a range of samples has no one value; " + wantCounter},
		{`"text"`, "a text is no number of events; " + wantCounter},
	} {
		q, err := ParseQuery(c.query)
		if err == nil {
			t.Errorf("%s was taken for %+v", c.query, q)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.query, err, c.want)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{
		"", "x", "1", `"a"`, "x[5m]", "sum(rate(x[5m]))", `x{le="1"}`, `{le="0x1p-2"}`, "histogram_count(sum(rate(x[5m])))",
		"histogram_fraction(0, 1, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))", `{"a.b",le="1"}`, "sum by (a) (rate(x[5m]))",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := ParseQuery(query)
		if err != nil {
			return
		}
		if math.IsNaN(q.Threshold) || math.IsInf(q.Threshold, 0) {
			t.Fatalf("%q counts up to %v", query, q.Threshold)
		}
		// What is a counter stays one, with or without its edge.
		if ms, err := ParseCounter(query); (err == nil) != (q.Kind == Counter || q.Kind == Bucket) {
			t.Fatalf("%q is a %s, as a counter %v, %v", query, q.Kind, ms, err)
		}
		if q.Kind == Expression {
			if again, err := ParseQuery(q.Expr); err != nil || again.Kind != Expression {
				t.Fatalf("%q is evaluated as %q: %+v, %v", query, q.Expr, again, err)
			}
			return
		}
		if again, err := ParseQuery(q.Expr); err != nil || len(again.Matchers) != len(q.Matchers) && again.Kind != Bucket {
			t.Fatalf("%q is printed as %q: %+v, %v", query, q.Expr, again, err)
		}
	})
}

// findings returns what check says of a ratio, without places.
func findings(t *testing.T, good, total, annotations string) (out []string, s *Set) {
	t.Helper()
	quote := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	text := strings.NewReplacer(
		`'sum(rate(requests_total{job="checkout",code!~"5.."}[5m]))'`, quote(good),
		`'sum(rate(requests_total{job="checkout"}[5m]))'`, quote(total),
		"{nines.internal/team: shop", "{"+annotations+"nines.internal/team: shop").Replace(checkout)
	s = load(text)
	for _, f := range s.Findings() {
		if f.Line < 20 && annotations == "" {
			t.Errorf("%s has a wrong place", f)
		}
		out = append(out, f.Severity+" "+f.Rule)
	}
	return out, s
}

func TestR08RatioOfTwoKinds(t *testing.T) {
	const (
		counter  = `sum(rate(x_count[5m]))`
		bucket   = `sum(rate(x_bucket{le="1"}[5m]))`
		count    = `histogram_count(sum(rate(x[5m])))`
		fraction = `histogram_fraction(0, 1, sum(rate(x[5m]))) * histogram_count(sum(rate(x[5m])))`
		other    = `avg(rate(x[5m]))`
	)
	for _, c := range []struct {
		good, total string
		want        string // findings of check
		sampled     bool
	}{
		{counter, counter, "", false},
		{bucket, counter, "", false},
		{bucket, `sum(rate(x_bucket{le="+Inf"}[5m]))`, "", false},
		{count, count, "", false},
		{fraction, count, "", false},
		{other, other, "warning sampled, warning sampled", true},
		{counter, other, "warning sampled, warning sampled", true},
		{other, bucket, "warning sampled, warning part-as-total, warning sampled", true},
		{fraction, other, "warning sampled, warning sampled", true},
		{other, count, "warning sampled, warning sampled", true},
		{fraction, counter, "error mixed-kinds", false},
		{count, counter, "error mixed-kinds", false},
		{bucket, count, "error mixed-kinds", false},
		{counter, count, "error mixed-kinds", false},
		{count, fraction, "warning part-as-total", false},
		{`sum(rate(x_bucket{le="1"}[5m]))`, `sum(rate(x_bucket{le="2"}[5m]))`, "warning part-as-total", false},
		{`sum(rate(x_bucket{le=~"1"}[5m]))`, counter, "warning several-buckets", false},
	} {
		for _, bad := range []bool{false, true} {
			sli := sla.SLI{Good: c.good, Total: c.total}
			if bad {
				sli = sla.SLI{Bad: c.good, Total: c.total}
			}
			i, err := ParseSLI(sli)
			if mixed := strings.Contains(c.want, "mixed"); (err != nil) != mixed || mixed && !strings.Contains(err.Error(), "write both with histogram_count(sum(rate(x[5m])))") {
				t.Errorf("%s of %s: %v", c.good, c.total, err)
			}
			if i.IsSampled() != c.sampled || (i.Part.Kind == Expression) != c.sampled || i.Bad != bad {
				t.Errorf("%s of %s is sampled: %t and %s, want %t", c.good, c.total, i.IsSampled(), i.Part.Kind, c.sampled)
			}
			if c.sampled && (i.Part.Expr != c.good || i.Total.Expr != c.total || i.Part.Sampled == "" || i.Total.Sampled == "") {
				t.Errorf("%s of %s is evaluated as %s of %s", c.good, c.total, i.Part.Expr, i.Total.Expr)
			}
		}
		got, s := findings(t, c.good, c.total, "")
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s of %s: findings are\n%s\nwant %q", c.good, c.total, lines(s.Findings()), c.want)
		}
		if in := len(s.Objectives()) > 0; in == strings.Contains(c.want, "error") {
			t.Errorf("%s of %s is in force: %t", c.good, c.total, in)
		}
	}
	if _, err := ParseSLI(sla.SLI{Good: "x[5m]", Total: "y"}); err == nil || !strings.Contains(err.Error(), "good: a range") {
		t.Errorf("a range as good: %v", err)
	}
	if _, err := ParseSLI(sla.SLI{Bad: "x", Total: "sum("}); err == nil || !strings.Contains(err.Error(), "total: not valid") {
		t.Errorf("no PromQL as total: %v", err)
	}
}

// pyrra #968: counters that are summed before the rate is taken hide the reset
// of each.
func TestPain07_SumOfCountersBeforeTheRateIsRefused(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{`rate(sum(x_total)[5m:1m])`, "error hides-resets"},
		{`sum(rate(sum by (a) (x)[5m:1m]))`, "error hides-resets"},
		{`sum(increase((sum(x))[5m:]))`, "error hides-resets, warning per-range"},
		{`sum(x_total)`, "error hides-resets"},
		{`sum(x_count{a="b"}) / 2`, "error hides-resets"},
		{`-x_bucket`, "error hides-resets"},
		{`x_total + y_total`, "error hides-resets"},
		{`sum(rate(x_total[5m] @ 100))`, "error fixed-time"},
		{`sum(increase(x_total[5m])) / 300`, "warning per-range"},
		// These are right, or their names do not tell.
		{`sum(rate(x_total[5m])) * 2`, ""},
		{`sum(rate(x_total[5m] @ end()))`, ""},
		{`sum(x)`, ""},
		{`sum(job:x_total)`, ""},
		{`count(x_total)`, ""},
		{`sum(x_total > bool 0)`, ""},
		{`sum(delta(x_total[5m]))`, ""},
		{`max_over_time(sum(rate(x_total[5m]))[5m:1m])`, ""},
		{`sum(rate(x[5m:1m]))`, ""},
	} {
		got, s := findings(t, c.query, "sum(rate(y_total[5m]))", "")
		var kept []string
		for _, g := range got {
			if g != "warning sampled" {
				kept = append(kept, g)
			}
		}
		if strings.Join(kept, ", ") != c.want || len(got)-len(kept) != 2 {
			t.Errorf("%s: findings are\n%s\nwant %q", c.query, lines(s.Findings()), c.want)
		}
	}
}

func TestGroupsThatAnIndicatorCannotMakeAreTold(t *testing.T) {
	const lost, pinned = "warning group-lost", "warning group-pinned"
	for _, c := range []struct{ query, want string }{
		// Counters are grouped by the labels of their series.
		{`sum(rate(x[5m]))`, ""},
		{`sum(rate(x{pod!="a"}[5m]))`, ""},
		{`sum(rate(x{pod=~"a|b"}[5m]))`, ""},
		{`sum(rate(x{pod="a"}[5m]))`, pinned},
		{`histogram_count(sum(rate(x{pod=""}[5m])))`, pinned},
		// Of an expression the result's labels count.
		{`sum by (pod) (rate(x[5m]))`, ""},
		{`sum by (pod) (rate(x{pod="a"}[5m]))`, pinned},
		{`sum by (job) (rate(x[5m]))`, lost},
		{`sum without (pod) (rate(x[5m]))`, lost},
		{`sum without (job) (rate(x[5m]))`, ""},
		{`avg(rate(x[5m]))`, lost},
		{`topk(3, rate(x[5m]))`, ""},
		{`rate(x[5m])`, ""},
		{`-rate(x[5m])`, ""},
		{`max_over_time((rate(x[5m]))[5m:1m])`, ""},
		{`max_over_time(sum(rate(x[5m]))[5m:1m])`, lost},
		{`sum(rate(x[5m])) * 2`, lost},
		{`2 * sum by (pod) (rate(x[5m]))`, ""},
		{`1`, lost}, {`vector(1)`, lost}, {`absent(x)`, lost},
		{`count_values("pod", x)`, ""},
		{`label_replace(sum(rate(x[5m])), "pod", "a", "", "")`, ""},
		{`rate(x[5m]) + on (pod) rate(y[5m])`, ""},
		{`rate(x[5m]) + on (job) rate(y[5m])`, lost},
		{`rate(x[5m]) + ignoring (pod) rate(y[5m])`, lost},
		{`rate(x[5m]) * on (job) group_left () sum by (job) (y)`, ""},
		{`sum by (job) (x) * on (job) group_left (pod) y`, ""},
		{`sum by (job) (x) * on (job) group_right () y`, ""},
		{`sum by (job) (x) or y`, ""},
		{`sum by (job) (x) and on (job) y`, lost},
	} {
		got, s := findings(t, c.query, c.query, "nines.internal/group-by: pod, ")
		var kept []string
		for _, g := range got {
			if g != "warning sampled" {
				kept = append(kept, g)
			}
		}
		want := c.want
		if want != "" {
			want += ", " + want // of both sides
		}
		if strings.Join(kept, ", ") != want {
			t.Errorf("%s: findings are\n%s\nwant %q", c.query, lines(s.Findings()), want)
		}
	}
}

func TestGroupsOfAnSLOAreReadFromItsAnnotations(t *testing.T) {
	for _, c := range []struct {
		annotations string
		by          string
		most        int
	}{
		{"", "[]", 0},
		{"nines.internal/group-by: pod, ", "[pod]", 1000},
		{"nines.internal/group-by: ' service , namespace,k8s.pod.name', ", "[service namespace k8s.pod.name]", 1000},
		{"nines.internal/group-by: 'a,b,c,d,e,f,g,h', nines.internal/max-groups: '1', ", "[a b c d e f g h]", 1},
		{"nines.internal/group-by: pod, nines.internal/max-groups: '50000', ", "[pod]", 50000},
	} {
		got, s := findings(t, "sum(rate(x[5m]))", "sum(rate(y[5m]))", c.annotations)
		if len(got) > 0 || len(s.Objectives()) != 2 {
			t.Errorf("%s: %d objectives\n%s", c.annotations, len(s.Objectives()), lines(s.Findings()))
			continue
		}
		for _, o := range s.Objectives() {
			if fmt.Sprint(o.GroupBy) != c.by || o.MaxGroups != c.most {
				t.Errorf("%s: at most %d groups by %v, want %d by %s", c.annotations, o.MaxGroups, o.GroupBy, c.most, c.by)
			}
			if o.ID != sla.ObjectiveID("", o.Namespace, o.SLO, o.Name, nil, o.SLI) {
				t.Errorf("%s: the template has another id than the SLO without groups", c.annotations)
			}
		}
	}
}

func TestPain10_RangeTooShortForTwoScrapesIsTold(t *testing.T) {
	for _, c := range []struct {
		query string
		want  bool
	}{
		{`avg(rate(x[30s]))`, true}, {`avg(rate(x[59s])) + avg(rate(x[10s]))`, true}, {`avg(rate(x[1m]))`, false},
		// The range of a counter plays no part: each of its samples is counted.
		{`sum(rate(x[1s]))`, false},
	} {
		got, s := findings(t, c.query, c.query, "")
		if n := strings.Count(strings.Join(got, " "), "warning short-range"); n > 0 != c.want || n > 2 {
			t.Errorf("%s: findings are\n%s", c.query, lines(s.Findings()))
		}
	}
}

// pyrra made windows of 0 s for an SLO over a day.
func TestPain10_ShortPeriodHasNoShorterWindows(t *testing.T) {
	for _, period := range []string{"1h", "1d", "2d", "7d", "366d"} {
		out, _ := exported(t, strings.Replace(checkout, "30d", period, 1))
		for _, window := range regexp.MustCompile(`\[[0-9a-z]+\]`).FindAllString(string(out), -1) {
			if !slices.Contains([]string{"[5m]", "[30m]", "[1h]", "[2h]", "[6h]", "[1d]", "[3d]"}, window) {
				t.Errorf("an SLO over %s reads a window of %s", period, window)
			}
		}
	}
}

// prometheus #10202: a changed window or target renamed the series, and the
// history began anew.
func TestPain12_ChangedWindowKeepsTheObjective(t *testing.T) {
	want := load(checkout).Objectives()[0].ID
	for _, change := range [][2]string{{"30d", "7d"}, {"30d\n      isRolling: true", "1M\n      calendar: {timeZone: UTC}"}, {"0.999", "0.9999"}} {
		if got := load(strings.Replace(checkout, change[0], change[1], 1)).Objectives()[0].ID; got != want {
			t.Errorf("with %q the id is %s, want %s", change[1], got, want)
		}
	}
}

// sloth #602: the same SLO in two namespaces was one.
func TestPain17_SameSLOInTwoNamespacesIsTwo(t *testing.T) {
	two := strings.Replace(checkout, "namespace: shop", "namespace: bakery", 1)
	s := load(checkout + "---\n" + two)
	ids := map[sla.ID]bool{}
	for _, o := range s.Objectives() {
		ids[o.ID] = true
	}
	if len(ids) != 4 {
		t.Errorf("%d ids of four objectives: %s", len(ids), lines(s.Findings()))
	}
	exported(t, checkout+"---\n"+two)
}
