package openslo

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var promql = parser.NewParser(parser.Options{})

// ParseCounter recognises a raw counter (R8): sum(rate(selector[…])),
// sum(increase(selector[…])) or a plain selector. It returns the matchers of
// the selector, the metric's name (and the le of a bucket) among them. Any other
// expression is an error that says what to write instead. ParseQuery also tells
// histograms and expressions.
func ParseCounter(query string) ([]*labels.Matcher, error) {
	ms, _, err := parseCounter(query)
	return ms, err
}

// wantCounter is the remedy for a query that cannot be counted exactly.
const wantCounter = "write sum(rate(metric_total{…}[5m])), or a plain selector with counter: true"

// parseCounter also tells whether the query is a plain selector.
func parseCounter(query string) (ms []*labels.Matcher, plain bool, err error) {
	expr, err := promql.ParseExpr(query)
	if err != nil {
		return nil, false, fmt.Errorf("not valid PromQL: %w", err)
	}
	return counterOf(expr)
}

// counterOf takes a raw counter; the error says what to write instead.
func counterOf(expr parser.Expr) (ms []*labels.Matcher, plain bool, err error) {
	const want = wantCounter
	agg, summed := unwrap(expr).(*parser.AggregateExpr)
	if summed {
		if agg.Op != parser.SUM {
			return nil, false, fmt.Errorf("%s is no counter of events; %s", agg.Op, want)
		}
		if len(agg.Grouping) > 0 || agg.Without {
			by := "by"
			if agg.Without {
				by = "without"
			}
			return nil, false, fmt.Errorf("sum %s (%s) gives many results; take the grouping out: an objective sums all of its series", by, strings.Join(agg.Grouping, ", "))
		}
		if _, plain := unwrap(agg.Expr).(*parser.VectorSelector); plain {
			return nil, false, fmt.Errorf("a sum of counters hides the resets of each; %s", want)
		}
		expr = agg.Expr
	}
	expr = unwrap(expr)
	plain = true
	if call, ok := expr.(*parser.Call); ok {
		if call.Func.Name != "rate" && call.Func.Name != "increase" {
			return nil, false, fmt.Errorf("%s() is not counted exactly; %s", call.Func.Name, want)
		}
		if !summed {
			return nil, false, fmt.Errorf("%s() without sum() gives a result for each series; %s", call.Func.Name, want)
		}
		plain = false
		switch arg := unwrap(call.Args[0]).(type) {
		case *parser.MatrixSelector:
			expr = arg.VectorSelector
		case *parser.SubqueryExpr:
			return nil, false, fmt.Errorf("a counter that is aggregated before %s() hides resets; %s", call.Func.Name, want)
		}
	}
	sel, ok := expr.(*parser.VectorSelector)
	if !ok {
		return nil, false, fmt.Errorf("this expression is not a raw counter, and only those are counted exactly; %s", want)
	}
	if sel.OriginalOffset != 0 || sel.Timestamp != nil || sel.StartOrEnd != 0 {
		return nil, false, fmt.Errorf("offset and @ do not go with counting each sample at its own time; take them out")
	}
	return sel.LabelMatchers, plain, nil
}

func unwrap(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}

// selector prints matchers as PromQL. A name that cannot stand in front of the
// braces, as one with a dot or beside a second matcher of the name, stands in
// them.
func selector(ms []*labels.Matcher) string {
	var names []*labels.Matcher
	for _, m := range ms {
		if m.Name == model.MetricNameLabel {
			names = append(names, m)
		}
	}
	name := ""
	if len(names) == 1 && names[0].Type == labels.MatchEqual {
		expr, err := promql.ParseExpr(names[0].Value)
		if sel, ok := expr.(*parser.VectorSelector); err == nil && ok && sel.Name == names[0].Value {
			name = sel.Name
		}
	}
	var rest []string
	for _, m := range ms {
		if m.Name != model.MetricNameLabel || name == "" {
			rest = append(rest, m.String())
		}
	}
	if len(rest) == 0 {
		return name
	}
	return name + "{" + strings.Join(rest, ",") + "}"
}
