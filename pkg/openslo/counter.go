package openslo

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var promql = parser.NewParser(parser.Options{})

// ParseCounter recognises a raw counter (R8): sum(rate(selector[…])),
// sum(increase(selector[…])) or a plain selector. It returns the matchers of
// the selector, the metric's name among them. Any other expression is an error
// that says what to write instead.
func ParseCounter(query string) ([]*labels.Matcher, error) {
	expr, err := promql.ParseExpr(query)
	if err != nil {
		return nil, fmt.Errorf("not valid PromQL: %w", err)
	}
	const want = "write sum(rate(metric_total{…}[5m])), or a plain selector with counter: true"
	if agg, ok := unwrap(expr).(*parser.AggregateExpr); ok {
		if agg.Op != parser.SUM {
			return nil, fmt.Errorf("%s is no counter of events; %s", agg.Op, want)
		}
		if len(agg.Grouping) > 0 || agg.Without {
			return nil, fmt.Errorf("sum by (%s) gives many results; take the grouping out: an objective sums all of its series", strings.Join(agg.Grouping, ", "))
		}
		if _, plain := unwrap(agg.Expr).(*parser.VectorSelector); plain {
			return nil, fmt.Errorf("a sum of counters hides the resets of each; %s", want)
		}
		expr = agg.Expr
	}
	expr = unwrap(expr)
	if call, ok := expr.(*parser.Call); ok {
		if call.Func.Name != "rate" && call.Func.Name != "increase" {
			return nil, fmt.Errorf("%s() is not counted exactly; %s", call.Func.Name, want)
		}
		switch arg := unwrap(call.Args[0]).(type) {
		case *parser.MatrixSelector:
			expr = arg.VectorSelector
		case *parser.SubqueryExpr:
			return nil, fmt.Errorf("a counter that is aggregated before %s() hides resets; %s", call.Func.Name, want)
		}
	}
	sel, ok := expr.(*parser.VectorSelector)
	if !ok {
		return nil, fmt.Errorf("this expression is not a raw counter, and this version evaluates no other; %s", want)
	}
	if sel.OriginalOffset != 0 || sel.Timestamp != nil || sel.StartOrEnd != 0 {
		return nil, fmt.Errorf("offset and @ do not go with counting each sample at its own time; take them out")
	}
	return sel.LabelMatchers, nil
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

// selector prints matchers as PromQL.
func selector(ms []*labels.Matcher) string {
	name, rest := "", []string{}
	for _, m := range ms {
		if m.Name == labels.MetricName && m.Type == labels.MatchEqual {
			name = m.Value
			continue
		}
		rest = append(rest, m.String())
	}
	if len(rest) == 0 {
		return name
	}
	return name + "{" + strings.Join(rest, ",") + "}"
}
