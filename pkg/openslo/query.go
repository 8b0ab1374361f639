package openslo

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/pkg/sla"
)

// QueryKind says how the events of a query are counted.
type QueryKind int

const (
	// Counter is the sum of raw counters: every increment is counted.
	Counter QueryKind = iota
	// Bucket is a counter of a classic histogram up to an upper edge (le).
	// Where the histogram has no such edge, the neighbouring ones give the
	// least and the most that the count can be.
	Bucket
	// NativeFraction is the events of native histograms up to a threshold.
	NativeFraction
	// NativeCount is all events of native histograms.
	NativeCount
	// Expression is any other PromQL. It is evaluated at the end of each
	// minute; its value, summed over the vector, is taken as events per second
	// over that minute. Such minutes are marked as sampled and cannot decide
	// event credits.
	Expression
)

// String returns the kind in words.
func (k QueryKind) String() string {
	switch k {
	case Counter:
		return "counter"
	case Bucket:
		return "classic histogram bucket"
	case NativeFraction:
		return "native histogram fraction"
	case NativeCount:
		return "native histogram count"
	case Expression:
		return "expression"
	}
	return "QueryKind(" + strconv.Itoa(int(k)) + ")"
}

// IsNative reports whether the events come from native histograms.
func (k QueryKind) IsNative() bool { return k == NativeFraction || k == NativeCount }

// Query is one side of a ratio, as it is counted (R8).
type Query struct {
	Kind QueryKind
	// Matchers are those of the selector, of the metric's name among them. Of a
	// Bucket they leave out the matcher of le. An Expression has none.
	Matchers []*labels.Matcher
	// Threshold of a Bucket or NativeFraction: events up to it are counted.
	Threshold float64
	// FromZero tells that a NativeFraction begins at 0: events below 0 are not
	// counted. Otherwise it has no lower bound.
	FromZero bool
	// Expr of an Expression is the PromQL to evaluate once a minute, of the
	// other kinds the canonical selector.
	Expr string
	// Plain tells that the query is a bare selector: it is a counter only where
	// the indicator says counter: true.
	Plain bool
	// Sampled says why an Expression is not counted exactly, and what to write
	// instead. It is empty for the other kinds.
	Sampled string

	all    []*labels.Matcher // with that of le
	text   string
	scalar bool // an Expression without labels
}

// sampled turns a counted query into the expression that it is.
func (q Query) sampled(why string) Query {
	if q.Kind == Expression {
		return q
	}
	text := q.text
	if q.Plain {
		text = "sum(rate(" + selector(q.all) + "[5m]))"
	}
	return Query{Kind: Expression, Expr: text, Sampled: why, text: text}
}

// over returns PromQL for the events of a query over a window, by labels where
// there are any: per second, and of an Expression the sum of its minutes.
func (q Query) over(window string, by []string) string {
	sum := "sum"
	if len(by) > 0 {
		names := make([]string, 0, len(by))
		for _, n := range by {
			if strings.Contains(n, ".") {
				n = strconv.Quote(n)
			}
			names = append(names, n)
		}
		sum = "sum by (" + strings.Join(names, ", ") + ") "
	}
	rate := fmt.Sprintf("%s(rate(%s[%s]))", sum, selector(q.all), window)
	switch q.Kind {
	case NativeCount:
		return "histogram_count(" + rate + ")"
	case NativeFraction:
		from := "-Inf"
		if q.FromZero {
			from = "0"
		}
		return fmt.Sprintf("histogram_fraction(%s, %s, %s) * histogram_count(%s)", from, strconv.FormatFloat(q.Threshold, 'g', -1, 64), rate, rate)
	case Expression:
		expr := "(" + q.Expr + ")"
		if strings.Contains(q.Expr, "#") { // it may end with a comment
			expr = "(" + q.Expr + "\n)"
		}
		if q.scalar {
			expr = "vector" + expr
		}
		return fmt.Sprintf("%s(sum_over_time(%s[%s:1m]))", sum, expr, window)
	}
	return rate
}

// Indicator is an SLI as it is counted.
type Indicator struct {
	Part  Query // the good or the bad events
	Bad   bool  // Part is the bad ones
	Total Query
}

// IsSampled reports whether the ratio is evaluated once a minute.
func (i Indicator) IsSampled() bool { return i.Total.Kind == Expression }

// ErrNoRatio tells that an indicator is not a ratio of two queries.
var ErrNoRatio = errors.New("the indicator is not a ratio of good (or bad) events and total")

// ParseSLI tells how both sides of an SLI are counted. Where one side is an
// Expression, both are: a part that is sampled and a total that is counted
// could differ by more than there is. Native and classic histograms do not mix,
// for a program that writes both would be counted on one side alone.
func ParseSLI(sli sla.SLI) (Indicator, error) {
	if sli.Total == "" && (sli.Raw != "" || sli.Value != "" || len(sli.Parts) > 0) {
		return Indicator{}, ErrNoRatio
	}
	name, text := "good", sli.Good
	if sli.Bad != "" {
		name, text = "bad", sli.Bad
	}
	part, err := ParseQuery(text)
	if err != nil {
		return Indicator{}, fmt.Errorf("%s: %w", name, err)
	}
	total, err := ParseQuery(sli.Total)
	if err != nil {
		return Indicator{}, fmt.Errorf("total: %w", err)
	}
	i := Indicator{Part: part, Bad: sli.Bad != "", Total: total}
	switch {
	case part.Kind == Expression || total.Kind == Expression:
		const why = "the other side of the ratio is evaluated once a minute, so that both are; write both as counters"
		i.Part, i.Total = part.sampled(why), total.sampled(why)
	case part.Kind.IsNative() != total.Kind.IsNative():
		return i, fmt.Errorf("%s is a %s and total a %s: write both with %s", name, part.Kind, total.Kind, sameKind(part, total))
	}
	return i, nil
}

// Queries returns all that an indicator of any form asks for: both sides of a
// ratio, or the expression that is observed; none of a composite.
func Queries(sli sla.SLI) ([]Query, error) {
	if expr := sli.Raw + sli.Value; expr != "" {
		return []Query{{Kind: Expression, Expr: expr, text: expr}}, nil
	}
	if len(sli.Parts) > 0 {
		return nil, nil
	}
	i, err := ParseSLI(sli)
	return []Query{i.Part, i.Total}, err
}

// sameKind says how to write the classic side of a mixed pair as the native one.
func sameKind(part, total Query) string {
	native := part
	if total.Kind.IsNative() {
		native = total
	}
	sel := selector(native.all)
	return fmt.Sprintf("histogram_count(sum(rate(%s[5m]))), or both with the series of the classic histogram (_bucket{le=…} and _count)", sel)
}

// ParseQuery tells how a query is counted (R8). Recognised are
//
//	sum(rate(sel[…])), sum(increase(sel[…])), sel                 Counter, or Bucket with le="X"
//	histogram_count(sum(rate(sel[…]))), sum(histogram_count(rate(sel[…])))    NativeCount
//	histogram_fraction(0, X, sum(rate(sel[…]))) * histogram_count(sum(rate(sel[…])))   NativeFraction
//
// with increase as well as rate, the factors in either order, and -Inf as the
// lower bound. Every other expression with a value is an Expression. A range
// of samples and a text have no value: they are errors with the remedy.
func ParseQuery(query string) (Query, error) {
	expr, err := promql.ParseExpr(query)
	if err != nil {
		return Query{}, fmt.Errorf("not valid PromQL: %w", err)
	}
	switch expr.Type() {
	case parser.ValueTypeMatrix:
		return Query{}, fmt.Errorf("a range of samples has no one value; %s", wantCounter)
	case parser.ValueTypeString:
		return Query{}, fmt.Errorf("a text is no number of events; %s", wantCounter)
	}
	if q, ok := native(expr); ok {
		q.all, q.text = q.Matchers, strings.TrimSpace(query)
		return q, nil
	}
	ms, plain, err := counterOf(expr)
	if err != nil {
		text := strings.TrimSpace(query)
		return Query{Kind: Expression, Expr: text, Sampled: err.Error(), text: text, scalar: expr.Type() == parser.ValueTypeScalar}, nil
	}
	q := Query{Kind: Counter, Matchers: ms, Plain: plain, all: ms, text: strings.TrimSpace(query)}
	if rest, edge, ok := upTo(ms); ok {
		q.Kind, q.Matchers, q.Threshold = Bucket, rest, edge
	}
	q.Expr = selector(q.Matchers)
	return q, nil
}

// upTo takes the one matcher of le out, where it names a finite edge. The edge
// +Inf holds every event: it is a counter like any other.
func upTo(ms []*labels.Matcher) (rest []*labels.Matcher, edge float64, ok bool) {
	for _, m := range ms {
		if m.Name != model.BucketLabel {
			rest = append(rest, m)
			continue
		}
		v, err := strconv.ParseFloat(m.Value, 64)
		if ok || m.Type != labels.MatchEqual || err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, 0, false
		}
		edge, ok = v, true
	}
	return rest, edge, ok && len(rest) > 0
}

// native recognises counts and fractions of native histograms.
func native(expr parser.Expr) (Query, bool) {
	expr = unwrap(expr)
	if h, ok := histogramCount(expr); ok {
		return Query{Kind: NativeCount, Matchers: h.sel.LabelMatchers, Expr: selector(h.sel.LabelMatchers)}, true
	}
	mul, ok := expr.(*parser.BinaryExpr)
	if !ok || mul.Op != parser.MUL || !plainMatching(mul.VectorMatching) {
		return Query{}, false
	}
	for _, side := range [][2]parser.Expr{{mul.LHS, mul.RHS}, {mul.RHS, mul.LHS}} {
		call, ok := callOf(side[0], "histogram_fraction", 3)
		if !ok {
			continue
		}
		lower, ok1 := number(call.Args[0])
		upper, ok2 := number(call.Args[1])
		of, ok3 := summedRate(call.Args[2])
		count, ok4 := histogramCount(unwrap(side[1]))
		if !ok1 || !ok2 || !ok3 || !ok4 || !of.same(count) || math.IsInf(upper, 0) || math.IsNaN(upper) {
			continue
		}
		if !math.IsInf(lower, -1) && (lower != 0 || upper <= 0) {
			continue
		}
		ms := of.sel.LabelMatchers
		return Query{Kind: NativeFraction, Matchers: ms, Threshold: upper, FromZero: lower == 0, Expr: selector(ms)}, true
	}
	return Query{}, false
}

// plainMatching reports whether two results without labels meet.
func plainMatching(m *parser.VectorMatching) bool {
	return m == nil || m.Card == parser.CardOneToOne && len(m.MatchingLabels) == 0 && len(m.Include) == 0
}

// rateOf is rate or increase of a selector over a range.
type rateOf struct {
	fn     string
	sel    *parser.VectorSelector
	window time.Duration
}

func (a rateOf) same(b rateOf) bool {
	return a.fn == b.fn && a.window == b.window && slices.Equal(matcherTexts(a.sel.LabelMatchers), matcherTexts(b.sel.LabelMatchers))
}

// matcherTexts prints matchers in an order that does not depend on theirs.
func matcherTexts(ms []*labels.Matcher) []string {
	out := make([]string, 0, len(ms))
	for _, m := range ms {
		out = append(out, m.String())
	}
	slices.Sort(out)
	return out
}

// histogramCount takes histogram_count(sum(rate(sel[…]))) and
// sum(histogram_count(rate(sel[…]))).
func histogramCount(e parser.Expr) (rateOf, bool) {
	if call, ok := callOf(e, "histogram_count", 1); ok {
		return summedRate(call.Args[0])
	}
	if inner, ok := summed(e); ok {
		if call, ok := callOf(inner, "histogram_count", 1); ok {
			return rate(call.Args[0])
		}
	}
	return rateOf{}, false
}

func summedRate(e parser.Expr) (rateOf, bool) {
	inner, ok := summed(e)
	if !ok {
		return rateOf{}, false
	}
	return rate(inner)
}

// summed returns what an ungrouped sum() adds up.
func summed(e parser.Expr) (parser.Expr, bool) {
	agg, ok := unwrap(e).(*parser.AggregateExpr)
	if !ok || agg.Op != parser.SUM || len(agg.Grouping) > 0 || agg.Without {
		return nil, false
	}
	return agg.Expr, true
}

func rate(e parser.Expr) (rateOf, bool) {
	for _, fn := range []string{"rate", "increase"} {
		call, ok := callOf(e, fn, 1)
		if !ok {
			continue
		}
		m, ok := unwrap(call.Args[0]).(*parser.MatrixSelector)
		if !ok {
			return rateOf{}, false
		}
		sel, ok := m.VectorSelector.(*parser.VectorSelector)
		if !ok || sel.OriginalOffset != 0 || sel.Timestamp != nil || sel.StartOrEnd != 0 {
			return rateOf{}, false
		}
		return rateOf{fn, sel, m.Range}, true
	}
	return rateOf{}, false
}

func callOf(e parser.Expr, name string, args int) (*parser.Call, bool) {
	call, ok := unwrap(e).(*parser.Call)
	return call, ok && call.Func.Name == name && len(call.Args) == args
}

// number reads a literal with an optional sign.
func number(e parser.Expr) (float64, bool) {
	switch n := unwrap(e).(type) {
	case *parser.NumberLiteral:
		return n.Val, true
	case *parser.UnaryExpr:
		v, ok := number(n.Expr)
		if n.Op == parser.SUB {
			v = -v
		}
		return v, ok
	}
	return 0, false
}
