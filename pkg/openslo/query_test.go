package openslo

import (
	"math"
	"strings"
	"testing"
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
