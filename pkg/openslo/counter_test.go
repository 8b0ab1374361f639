package openslo

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

func TestR08RawCounterIsRecognised(t *testing.T) {
	for _, c := range []struct {
		query, selector string
		plain           bool
	}{
		{`sum(rate(x_total[5m]))`, `x_total`, false},
		{`sum(increase(x_total[1h]))`, `x_total`, false},
		{`sum( rate( x_total{code!~"5..",job='a'}[5m] ) )`, `x_total{code!~"5..",job="a"}`, false},
		{`(sum((rate((x_total[5m])))))`, `x_total`, false},
		{`sum by () (rate(x_total[5m]))`, `x_total`, false},
		{`x_total`, `x_total`, true},
		{`x_total{code="200"}`, `x_total{code="200"}`, true},
		{`((x_total))`, `x_total`, true},
		{`{__name__="x_total",a="b"}`, `x_total{a="b"}`, true},
		{`sum(rate({__name__=~"x|y"}[5m]))`, `{__name__=~"x|y"}`, false},
		{`x_total # a comment`, `x_total`, true},
		// Names beyond PromQL's own were printed bare, which no parser reads.
		{`sum(rate({"http.requests","the.code"="200"}[5m]))`, `{__name__="http.requests","the.code"="200"}`, false},
		{`{__name__="sum"}`, `{__name__="sum"}`, true},
		{`{__name__="a",__name__=~"a|b"}`, `{__name__="a",__name__=~"a|b"}`, true},
	} {
		ms, plain, err := parseCounter(c.query)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		if got := selector(ms); plain != c.plain {
			t.Errorf("%s: plain is %t, want %t", c.query, plain, c.plain)
		} else if got != c.selector {
			// Whether a keyword stands in front of the braces is PromQL's choice.
			if again, err := ParseCounter(got); err != nil || key(again) != key(ms) {
				t.Errorf("%s selects %s, want %s", c.query, got, c.selector)
			}
		}
	}
}

func TestR08EverythingElseIsRefusedWithTheRemedy(t *testing.T) {
	const write = "write sum(rate(metric_total{…}[5m])), or a plain selector with counter: true"
	for _, c := range []struct{ query, want string }{
		{``, "not valid PromQL"},
		{`sum(rate(x[5m])`, "not valid PromQL"},
		{`rate(x)`, "not valid PromQL"},
		{`1`, write}, {`"text"`, write}, {`time()`, write}, {`-x`, write}, {`x + y`, write}, {`x or y`, write}, {`x[5m]`, write},
		{`sum(rate(x[5m])) / sum(rate(y[5m]))`, write},
		{`sum(rate(x[5m])) * 2`, write},
		{`sum(rate(x[5m]) > 0)`, write},
		{`sum(sum(rate(x[5m])))`, write},
		{`sum(x)`, "hides the resets of each; " + write},
		{`sum((x))`, "hides the resets of each; " + write},
		{`rate(x[5m])`, "rate() without sum() gives a result for each series; " + write},
		{`increase(x[5m])`, "increase() without sum()"},
		{`avg(rate(x[5m]))`, "avg is no counter of events; " + write},
		{`count(x)`, "count is no counter"},
		{`topk(1, rate(x[5m]))`, "topk is no counter"},
		{`sum(irate(x[5m]))`, "irate() is not counted exactly; " + write},
		{`sum(delta(x[5m]))`, "delta() is not counted exactly"},
		{`histogram_quantile(0.9, rate(x[5m]))`, "histogram_quantile() is not counted exactly"},
		{`sum by (code) (rate(x[5m]))`, "sum by (code) gives many results; take the grouping out"},
		{`sum without (pod) (rate(x[5m]))`, "sum without (pod) gives many results; take the grouping out"},
		{`sum without () (rate(x[5m]))`, "sum without () gives many results"},
		{`sum(rate(sum(x)[5m:1m]))`, "hides resets; " + write},
		{`sum(rate(x[5m:1m]))`, "hides resets; " + write},
		{`sum(rate(x[5m] offset 1h))`, "offset and @ do not go"},
		{`sum(rate(x[5m] offset -1h))`, "take them out"},
		{`sum(rate(x[5m] @ 100))`, "offset and @ do not go"},
		{`x @ end()`, "offset and @ do not go"},
		{`{}`, "not valid PromQL"},
	} {
		ms, err := ParseCounter(c.query)
		if err == nil {
			t.Errorf("%s was taken for the counter %s", c.query, selector(ms))
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.query, err, c.want)
		}
	}
}

func key(ms []*labels.Matcher) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.String())
	}
	return strings.Join(out, ",")
}

func FuzzParseCounter(f *testing.F) {
	for _, s := range []string{
		"", "x", "sum(rate(x[5m]))", `sum(increase({"a.b"}[5m]))`, `{__name__="sum"}`, `{__name__="1"}`, "sum(rate(x[5m] @ 1))", "x{a=\"\\xff\"}", `{"a"="b","c"}`, "inf", "{__name__=~\".+\"}", "sum(",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		ms, err := ParseCounter(query)
		if err != nil {
			return
		}
		if len(ms) == 0 {
			t.Fatalf("%q selects everything", query)
		}
		text := "sum(rate(" + selector(ms) + "[5m]))"
		if _, err := parser.NewParser(parser.Options{}).ParseExpr(text); err != nil {
			t.Fatalf("%q is printed as %s: %v", query, text, err)
		}
		again, err := ParseCounter(text)
		if err != nil {
			t.Fatalf("%q is printed as %s: %v", query, text, err)
		}
		if len(again) != len(ms) {
			t.Fatalf("%q is printed as %s, with other matchers", query, text)
		}
		for _, m := range ms {
			if !strings.Contains(key(again), m.String()) {
				t.Fatalf("%q is printed as %s, without %s", query, text, m)
			}
		}
	})
}
