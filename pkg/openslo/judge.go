package openslo

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// whatSampledMeans, behind the name of a side, is told for each Expression.
const whatSampledMeans = "is evaluated once a minute, and its value taken as events per second: its minutes are marked as sampled and cannot decide event credits"

// remark is what check says about one query.
type remark struct{ severity, rule, text string }

// judge looks for what a query that is valid is unlikely to mean.
func judge(q Query, side string, groupBy []string) (out []remark) {
	say := func(severity, rule, format string, args ...any) {
		out = append(out, remark{severity, rule, fmt.Sprintf(format, args...)})
	}
	expr, err := promql.ParseExpr(q.text)
	if err != nil {
		return nil
	}
	if q.Kind == Expression {
		say("warning", "sampled", "%s: %s", whatSampledMeans, q.Sampled)
		hides(expr, say)
	}
	if side == "total" && (q.Kind == Bucket || q.Kind == NativeFraction) {
		say("warning", "part-as-total", "counts events up to %v alone, so that what is above is in no figure: use the histogram's count", q.Threshold)
	}
	name, edges := "", false
	for _, m := range q.all {
		switch {
		case m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual:
			name = m.Value
		case m.Name == model.BucketLabel && m.Type == labels.MatchEqual:
			edges = true
		}
	}
	if q.Kind == Counter && strings.HasSuffix(name, "_bucket") && !edges {
		say("warning", "several-buckets", "counts an event in each bucket that holds it: give the edge as le=\"…\", or count %s", strings.TrimSuffix(name, "_bucket")+"_count")
	}
	for _, l := range groupBy {
		if q.Kind == Expression && !keeps(expr, l) {
			say("warning", "group-lost", "loses label %s, which %s names, so that all of its events are in one group: add the label to by () of the aggregation", l, AnnotationGroupBy)
			continue
		}
		for _, m := range selected(expr) {
			if m.Name == l && m.Type == labels.MatchEqual {
				say("warning", "group-pinned", "selects %s, so that %s makes no more than one group of it", m, AnnotationGroupBy)
				break
			}
		}
	}
	return out
}

// selected returns the matchers of all selectors.
func selected(expr parser.Expr) (out []*labels.Matcher) {
	for _, ms := range parser.ExtractSelectors(expr) {
		out = append(out, ms...)
	}
	return out
}

// hides finds expressions whose values cannot be events per second.
func hides(expr parser.Expr, say func(severity, rule, format string, args ...any)) {
	var raw, subquery, fixed, increase, short bool
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		switch n := n.(type) {
		case *parser.Call:
			switch n.Func.Name {
			case "rate", "increase", "irate":
				if sub, ok := unwrap(n.Args[0]).(*parser.SubqueryExpr); ok && aggregates(sub.Expr) && !subquery {
					subquery = true
					say("error", "hides-resets", "takes %s() of an aggregation, which hides the resets of its counters: take the rate first, as in sum(rate(metric_total{…}[5m]))", n.Func.Name)
				}
			}
			if n.Func.Name == "increase" && !increase {
				increase = true
				say("warning", "per-range", "has increase(), which is events in its range and not per second: use rate()")
			}
		case *parser.MatrixSelector:
			if n.Range < leastRange && !short {
				short = true
				say("warning", "short-range", "has a range of %s, which holds fewer than two samples of most targets: a rate needs two, and better four", model.Duration(n.Range))
			}
		case *parser.VectorSelector:
			if (n.Timestamp != nil) && !fixed {
				fixed = true
				say("error", "fixed-time", "has @ with a fixed time, which gives the same value in each minute: take it out")
			}
			if !raw && isCounterName(n.Name) && addsUp(path) {
				raw = true
				say("error", "hides-resets", "adds up counter %s as it is, which is all events since its start and hides its resets: write rate(%s{…}[5m])", n.Name, n.Name)
			}
		}
		return nil
	})
}

// leastRange is a range below which no usual scrape interval (15 s to 1 min)
// leaves enough samples.
const leastRange = time.Minute

func isCounterName(name string) bool {
	for _, s := range []string{"_total", "_count", "_bucket"} {
		if strings.HasSuffix(name, s) {
			return !strings.Contains(name, ":") // a recorded name says nothing of its kind
		}
	}
	return false
}

func aggregates(e parser.Expr) (found bool) {
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		_, ok := n.(*parser.AggregateExpr)
		found = found || ok
		return nil
	})
	return found
}

// addsUp reports whether nothing but sums and arithmetic stands above a node.
func addsUp(path []parser.Node) bool {
	for _, n := range path {
		switch n := n.(type) {
		case *parser.ParenExpr, *parser.UnaryExpr:
		case *parser.AggregateExpr:
			if n.Op != parser.SUM && n.Op != parser.AVG && n.Op != parser.MIN && n.Op != parser.MAX {
				return false
			}
		case *parser.BinaryExpr:
			if n.Op.IsComparisonOperator() || n.Op == parser.LUNLESS || n.Op == parser.LAND {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// keeps reports whether a label can be in the result of an expression.
func keeps(e parser.Expr, label string) bool {
	switch e := unwrap(e).(type) {
	case *parser.VectorSelector, *parser.MatrixSelector:
		return true
	case *parser.SubqueryExpr:
		return keeps(e.Expr, label)
	case *parser.UnaryExpr:
		return keeps(e.Expr, label)
	case *parser.StepInvariantExpr:
		return keeps(e.Expr, label)
	case *parser.AggregateExpr:
		switch e.Op {
		case parser.TOPK, parser.BOTTOMK, parser.LIMITK, parser.LIMIT_RATIO:
			return keeps(e.Expr, label) // they take some series, as they are
		case parser.COUNT_VALUES:
			if s, ok := e.Param.(*parser.StringLiteral); ok && s.Val == label {
				return true
			}
		}
		return slices.Contains(e.Grouping, label) != e.Without && keeps(e.Expr, label)
	case *parser.Call:
		switch e.Func.Name {
		case "scalar", "time", "vector", "absent", "absent_over_time", "pi":
			return false
		case "label_replace", "label_join":
			if s, ok := e.Args[1].(*parser.StringLiteral); ok && s.Val == label {
				return true
			}
		}
		for _, a := range e.Args {
			if keeps(a, label) {
				return true
			}
		}
		return false
	case *parser.BinaryExpr:
		return binaryKeeps(e, label)
	}
	return false
}

func binaryKeeps(e *parser.BinaryExpr, label string) bool {
	left, right := keeps(e.LHS, label), keeps(e.RHS, label)
	m := e.VectorMatching
	if m == nil || e.LHS.Type() == parser.ValueTypeScalar || e.RHS.Type() == parser.ValueTypeScalar {
		return left || right
	}
	switch e.Op {
	case parser.LOR:
		return left || right
	case parser.LAND, parser.LUNLESS:
		return left
	}
	switch included := slices.Contains(m.Include, label); m.Card {
	case parser.CardManyToOne:
		return left || included && right
	case parser.CardOneToMany:
		return right || included && left
	}
	return left && slices.Contains(m.MatchingLabels, label) == m.On
}
