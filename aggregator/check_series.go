package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/pkg/openslo"
	"nines/pkg/sla"
)

const (
	// checkedPast is how far back check looks for series and events.
	checkedPast = 7 * 24 * time.Hour
	// checkedSeries bounds the series of one query whose labels are compared.
	checkedSeries = 5_000
	// leastScrapes is how many a window must hold for a rate that means something.
	leastScrapes = 4
	// estimated is by how much PromQL's increase() may be wrong at the edges of a
	// day, so that less is no finding.
	estimated = 1.01
)

// seriesCheck compares objectives with the series that are there.
type seriesCheck struct {
	src      seriesSource
	now      time.Time
	progress io.Writer
	findings []openslo.Finding
	names    []string // of metrics
	metric   map[string]bool
	kept     retention
	// Several objectives share queries.
	present   map[string]bool          // whether a selector has series
	intervals map[string]time.Duration // of scrapes, by selector
	told      map[openslo.Finding]bool
}

// againstSeries returns what the set found together with what is wrong in view of
// the series of a server, or of an aggregator's folder. What could not be looked
// at is told on progress, and is no finding.
func againstSeries(ctx context.Context, progress io.Writer, set *openslo.Set, address, data string) (_ []openslo.Finding, err error) {
	src, err := openSeries(ctx, address, data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	c := &seriesCheck{
		src: src, now: src.now(), progress: progress, metric: map[string]bool{},
		present: map[string]bool{}, intervals: map[string]time.Duration{}, told: map[openslo.Finding]bool{},
	}
	if c.names, err = src.labelValues(ctx, model.MetricNameLabel, "", c.now.Add(-checkedPast), c.now); err != nil {
		return nil, err
	}
	if len(c.names) == 0 {
		return nil, fmt.Errorf("%s has no series of the last week, so that nothing can be checked against it: name another with --server or --data, or leave them out", src.describe())
	}
	for _, n := range c.names {
		c.metric[n] = true
	}
	if c.kept, err = src.kept(ctx); err != nil {
		return nil, err
	}
	places := set.QueryPlaces()
	for _, o := range set.Objectives() {
		if err := c.objective(ctx, o, places[o.ID]); err != nil {
			return nil, err
		}
	}
	findings := slices.Concat(set.Findings(), c.findings)
	slices.SortStableFunc(findings, func(a, b openslo.Finding) int {
		if a.Path != b.Path {
			return strings.Compare(a.Path, b.Path)
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return findings, nil
}

func (c *seriesCheck) find(severity, rule string, at openslo.QueryPlace, format string, args ...any) {
	f := openslo.Finding{Path: at.Path, Line: at.Line, Column: at.Column, Severity: severity, Rule: rule, Message: fmt.Sprintf(format, args...)}
	if !c.told[f] {
		c.told[f] = true
		c.findings = append(c.findings, f)
	}
}

// skip tells what could not be looked at, and keeps other errors.
func (c *seriesCheck) skip(rule string, at openslo.QueryPlace, err error) error {
	if tooMuch(err) {
		fmt.Fprintf(c.progress, "%s:%d:%d: [%s] was not looked at: %v\n", at.Path, at.Line, at.Column, rule, err)
		return nil
	}
	return err
}

// sideQuery is one query of an objective, read.
type sideQuery struct {
	openslo.QueryPlace
	expr      parser.Expr
	selectors [][]*labels.Matcher
	query     openslo.Query
}

func (c *seriesCheck) objective(ctx context.Context, o sla.Objective, places []openslo.QueryPlace) error {
	sides := map[string]*sideQuery{}
	there := true
	for _, p := range places {
		q := &sideQuery{QueryPlace: p}
		var err error
		if q.expr, err = parser.NewParser(parser.Options{}).ParseExpr(p.Query); err != nil {
			return fmt.Errorf("%s:%d:%d: %w", p.Path, p.Line, p.Column, err) // it was read before
		}
		if q.query, err = openslo.ParseQuery(p.Query); err != nil {
			return fmt.Errorf("%s:%d:%d: %w", p.Path, p.Line, p.Column, err)
		}
		q.selectors = parser.ExtractSelectors(q.expr)
		sides[p.Side] = q
		has, err := c.series(ctx, q)
		if err == nil && has {
			err = c.skip("few-scrapes", p, c.scrapes(ctx, o, q))
		}
		if err != nil {
			return err
		}
		there = there && has
	}
	if len(places) > 0 {
		c.retention(o, places[len(places)-1])
	}
	part, total := sides["good"], sides["total"]
	if part == nil {
		part = sides["bad"]
	}
	if part == nil || total == nil || !there {
		return nil
	}
	if err := c.skip("label-sets", part.QueryPlace, c.labelSets(ctx, part, total)); err != nil {
		return err
	}
	quiet, err := c.zero(ctx, total)
	if err := c.skip("zero-denominator", total.QueryPlace, err); err != nil || quiet {
		return err
	}
	if err := c.skip("low-traffic", total.QueryPlace, c.lowTraffic(ctx, o, total)); err != nil {
		return err
	}
	return c.skip("good-above-total", part.QueryPlace, c.above(ctx, part, total))
}

// lowTraffic finds a total of which one failed event pages (low-traffic): at the
// pace of the last day, a single one in a window is more than the alert allows.
func (c *seriesCheck) lowTraffic(ctx context.Context, o sla.Objective, total *sideQuery) error {
	// One that is young has a day with nothing in most of it.
	perSecond, _, err := c.ask(ctx, total, 24*time.Hour, c.now)
	if err != nil {
		return err
	}
	lately, _, err := c.ask(ctx, total, time.Hour, c.now)
	if err != nil {
		return err
	}
	if perSecond = max(perSecond, lately); perSecond <= 0 || o.Inner {
		return nil
	}
	budget, _ := o.Target.BudgetRat().Float64()
	for _, a := range o.Alarms(o.Window.Nominal()) {
		burn, _ := a.Threshold.Float64()
		events := perSecond * a.Long.Seconds()
		if a.Severity != "page" || events*budget*burn >= 1 {
			continue
		}
		c.find("warning", "low-traffic", total.QueryPlace, "objective %s: total has about %.3g events in %s, so that a single one that fails burns faster than %s and pages (%s): lower the target, count more events (a probe has one each few seconds), or take time slices",
			o.Name, events, sla.Duration(a.Long), sla.FloorDecimal(a.Threshold, 2), a.Name)
		return nil
	}
	return nil
}

// selectorText writes matchers as PromQL.
func selectorText(ms []*labels.Matcher) string {
	name := ""
	var rest []*labels.Matcher
	for _, m := range ms {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && name == "" {
			name = m.Value
			continue
		}
		rest = append(rest, m)
	}
	if name == "" {
		return strings.TrimPrefix(selectorOf("", rest...), `""`)
	}
	return selectorOf(name, rest...)
}

func (c *seriesCheck) has(ctx context.Context, ms []*labels.Matcher) (bool, error) {
	text := selectorText(ms)
	if has, ok := c.present[text]; ok {
		return has, nil
	}
	found, err := c.src.series(ctx, text, c.now.Add(-checkedPast), c.now, 1)
	if err != nil {
		return false, err
	}
	c.present[text] = len(found) > 0
	return len(found) > 0, nil
}

// series finds selectors without any series (no-series). It reports whether
// all of them have some.
func (c *seriesCheck) series(ctx context.Context, q *sideQuery) (all bool, err error) {
	all = true
	for _, ms := range q.selectors {
		// The edge of a bucket need not exist: its neighbours tell the most and
		// the least that it can hold.
		edge := slices.IndexFunc(ms, func(m *labels.Matcher) bool {
			return q.query.Kind == openslo.Bucket && m.Name == model.BucketLabel
		})
		asked := ms
		if edge >= 0 {
			asked = slices.Delete(slices.Clone(ms), edge, edge+1)
		}
		has, err := c.has(ctx, asked)
		if err != nil {
			return false, err
		}
		if has {
			if edge >= 0 {
				if err := c.bucket(ctx, q, asked, ms[edge]); err != nil {
					return false, err
				}
			}
			continue
		}
		all = false
		if err := c.missing(ctx, q, asked); err != nil {
			return false, err
		}
	}
	return all, nil
}

// missing says what a selector without series most likely means.
func (c *seriesCheck) missing(ctx context.Context, q *sideQuery, ms []*labels.Matcher) error {
	name := ""
	for _, m := range ms {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			name = m.Value
		}
	}
	if name != "" && !c.metric[name] {
		help := "; no name is near"
		if like := nearest(name, c.names, 3); len(like) > 0 {
			help = "; near are " + strings.Join(like, ", ")
		}
		c.find("error", "no-series", q.QueryPlace, "%s names %s, of which there was no series in the last %s%s", q.Side, name, sla.Duration(checkedPast), help)
		return nil
	}
	// Without it an SLO counts nothing at all. The others may just not have
	// happened yet, as errors.
	severity := "warning"
	if q.Side != "good" && q.Side != "bad" {
		severity = "error"
	}
	for i, m := range ms {
		if m.Name == model.MetricNameLabel {
			continue
		}
		others := slices.Delete(slices.Clone(ms), i, i+1)
		if !slices.ContainsFunc(others, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			continue // nothing would be selected by
		}
		has, err := c.has(ctx, others)
		if err != nil {
			return err
		}
		if !has {
			continue
		}
		values, err := c.src.labelValues(ctx, m.Name, selectorText(others), c.now.Add(-checkedPast), c.now)
		if err != nil {
			return err
		}
		if q.Side == "bad" && len(values) > 0 {
			return nil // no error so far
		}
		c.find(severity, "no-series", q.QueryPlace, "%s selects %s, which no series of %s has%s", q.Side, m, selectorText(others), valuesLike(m, values))
		return nil
	}
	c.find(severity, "no-series", q.QueryPlace, "%s selects %s, and no series of the last %s has all of that together", q.Side, selectorText(ms), sla.Duration(checkedPast))
	return nil
}

// valuesLike lists values of a label, those first that are near the wanted one.
func valuesLike(m *labels.Matcher, values []string) string {
	if len(values) == 0 {
		return ": they have no label " + m.Name
	}
	slices.Sort(values)
	first := nearest(m.Value, values, 3)
	for _, v := range values {
		if len(first) < 3 && !slices.Contains(first, v) {
			first = append(first, v)
		}
	}
	text := ": its values are "
	if rest := len(values) - len(first); rest > 0 {
		text = fmt.Sprintf(": %d other values and ", rest)
	}
	for i, v := range first {
		if i > 0 {
			text += ", "
		}
		text += strconv.Quote(v)
	}
	return text
}

// bucket tells where the edge of a bucket does not exist.
func (c *seriesCheck) bucket(ctx context.Context, q *sideQuery, ms []*labels.Matcher, edge *labels.Matcher) error {
	values, err := c.src.labelValues(ctx, model.BucketLabel, selectorText(ms), c.now.Add(-checkedPast), c.now)
	if err != nil {
		return err
	}
	below, above := math.Inf(-1), math.Inf(1)
	for _, v := range values {
		switch upTo, err := strconv.ParseFloat(v, 64); {
		case err != nil:
		case upTo == q.query.Threshold:
			return nil
		case upTo < q.query.Threshold:
			below = max(below, upTo)
		default:
			above = min(above, upTo)
		}
	}
	between := fmt.Sprintf("the next ones are %s and %s", number(below), number(above))
	if math.IsInf(below, -1) {
		between = "the smallest one is " + number(above)
	}
	c.find("warning", "no-series", q.QueryPlace, "%s wants the bucket %s, which the histogram does not have: %s, and the figure is told as a least and a most", q.Side, edge, between)
	return nil
}

// interval returns the time between two scrapes of a selector's series, 0 where
// it cannot be told. The longest run of samples in a stretch counts, so that
// young series and gaps do not make it longer.
func (c *seriesCheck) interval(ctx context.Context, ms []*labels.Matcher) (time.Duration, error) {
	text := selectorText(ms)
	if d, ok := c.intervals[text]; ok {
		return d, nil
	}
	for _, t := range []struct{ stretch, past time.Duration }{{20 * time.Minute, 6 * time.Hour}, {4 * time.Hour, 24 * time.Hour}} {
		stretch := strings.Trim(rangeOf(t.stretch), "[]")
		got, err := c.src.vector(ctx, fmt.Sprintf("max_over_time(max(count_over_time(%s[%s]))[%s:%s])", text, stretch, strings.Trim(rangeOf(t.past), "[]"), stretch), c.now)
		if err != nil {
			return 0, err
		}
		if len(got) == 1 && got[0].value >= 2 {
			c.intervals[text] = (t.stretch / time.Duration(got[0].value)).Round(time.Second)
			return c.intervals[text], nil
		}
	}
	c.intervals[text] = 0
	return 0, nil
}

// scrapes finds windows that hold fewer than four scrapes (few-scrapes).
func (c *seriesCheck) scrapes(ctx context.Context, o sla.Objective, q *sideQuery) error {
	var slowest time.Duration
	var ranges []*parser.MatrixSelector
	parser.Inspect(q.expr, func(n parser.Node, _ []parser.Node) error {
		if m, ok := n.(*parser.MatrixSelector); ok {
			ranges = append(ranges, m)
		}
		return nil
	})
	for _, ms := range q.selectors {
		d, err := c.interval(ctx, ms)
		if err != nil {
			return err
		}
		slowest = max(slowest, d)
	}
	for _, m := range ranges {
		sel, ok := m.VectorSelector.(*parser.VectorSelector)
		if !ok {
			continue
		}
		every, err := c.interval(ctx, sel.LabelMatchers)
		if err != nil {
			return err
		}
		if every > 0 && m.Range < leastScrapes*every {
			c.find("warning", "few-scrapes", q.QueryPlace, "%s has a range of %s, which holds %d scrapes at the interval of %s that was seen: give it at least %s",
				q.Side, rangeOf(m.Range), m.Range/every, model.Duration(every), rangeOf(leastScrapes*every))
			break
		}
	}
	if q.Side == "good" || q.Side == "bad" || slowest == 0 {
		return nil // total has the same windows
	}
	for _, a := range o.Alarms(periodOf(o)) {
		if a.Short < leastScrapes*slowest {
			c.find("warning", "few-scrapes", q.QueryPlace, "alert %s looks at %s, which holds %d scrapes at the interval of %s that was seen: scrape every %s or more often",
				a.Name, sla.Duration(a.Short), a.Short/slowest, model.Duration(slowest), model.Duration(a.Short/leastScrapes))
			break
		}
	}
	return nil
}

// periodOf returns the longest that an objective's period can be.
func periodOf(o sla.Objective) time.Duration {
	day := 24 * time.Hour
	units := map[string]time.Duration{sla.Day: day, sla.Week: 7 * day, sla.Month: 31 * day, sla.Quarter: 92 * day, sla.Year: 366 * day}
	if o.Window.Rolling > 0 {
		return o.Window.Rolling
	}
	return units[o.Window.Calendar] * time.Duration(max(1, o.Window.Count))
}

// retention finds periods that are longer than what is kept. An aggregator of
// ours needs no samples of minutes that it has booked: its ledger counts.
func (c *seriesCheck) retention(o sla.Objective, at openslo.QueryPlace) {
	period := periodOf(o)
	switch {
	case c.kept.ledger > 0:
		if period > c.kept.ledger {
			c.find("warning", "retention", at, "the period is %s, and a ledger keeps minutes for %s where retention.ledger does not say more", sla.Duration(period), sla.Duration(c.kept.ledger))
		}
	case c.kept.samples > 0 && period > c.kept.samples:
		c.find("warning", "retention", at, "the period is %s, and %s keeps samples for %s: a ratio over the period that is read from there (a query, recording rules, backfill) lacks its beginning; keep samples for longer, or let the aggregator count, whose ledger keeps minutes for %s",
			sla.Duration(period), c.src.describe(), sla.Duration(c.kept.samples), sla.Duration(ledgerKept()))
	}
}

const otherLabels = "the series of %s have %s as labels and those of %s have not: they may be of different things"

// targetLabels tell where events were counted.
var targetLabels = []string{"cluster", "namespace", "job", "instance", "service", "pod"}

// labelSets finds targets that one side of a ratio has and the other has not.
func (c *seriesCheck) labelSets(ctx context.Context, part, total *sideQuery) error {
	if part.query.Kind == openslo.Expression || total.query.Kind == openslo.Expression {
		return nil // an expression may put together what it likes
	}
	from := c.now.Add(-24 * time.Hour)
	read := func(q *sideQuery) ([]labels.Labels, error) {
		found, err := c.src.series(ctx, selectorText(q.query.Matchers), from, c.now, checkedSeries+1)
		if len(found) > checkedSeries {
			fmt.Fprintf(c.progress, "%s:%d:%d: [label-sets] was not looked at: %s has more than %d series\n", q.Path, q.Line, q.Column, q.Side, checkedSeries)
			return nil, err
		}
		return found, err
	}
	parts, err := read(part)
	if err != nil || len(parts) == 0 {
		return err
	}
	totals, err := read(total)
	if err != nil || len(totals) == 0 {
		return err
	}
	inPart, inTotal := labelNamesOf(parts), labelNamesOf(totals)
	// What a query itself chooses by differs as it should.
	for _, ms := range [][]*labels.Matcher{part.query.Matchers, total.query.Matchers} {
		for _, m := range ms {
			delete(inPart, m.Name)
			delete(inTotal, m.Name)
		}
	}
	delete(inPart, model.BucketLabel)
	delete(inTotal, model.BucketLabel)
	onlyIn := func(have, lack map[string]bool) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(targetLabels), func(l string) bool { return !have[l] || lack[l] }), ", ")
	}
	if names := onlyIn(inPart, inTotal); names != "" {
		c.find("warning", "label-sets", part.QueryPlace, otherLabels, part.Side, names, total.Side)
	}
	if names := onlyIn(inTotal, inPart); names != "" {
		c.find("warning", "label-sets", part.QueryPlace, otherLabels, total.Side, names, part.Side)
	}
	var common []string
	for l := range inPart {
		if inTotal[l] {
			common = append(common, l)
		}
	}
	slices.Sort(common)
	if alone, n := missingSets(parts, totals, common); n > 0 {
		c.find("warning", "label-sets", part.QueryPlace, "%s has %s with %s, which total has not: its events are in no total", part.Side, countOf(n, "label set"), alone)
		return nil
	}
	if part.Side == "bad" {
		return nil // a target without failures may have no series of them
	}
	common = slices.DeleteFunc(common, func(l string) bool { return !slices.Contains(targetLabels, l) })
	if alone, n := missingSets(totals, parts, common); n > 0 {
		c.find("warning", "label-sets", part.QueryPlace, "total has %s with %s, which good has not: all of its events are bad", countOf(n, "label set"), alone)
	}
	return nil
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func labelNamesOf(sets []labels.Labels) map[string]bool {
	names := map[string]bool{}
	for _, s := range sets {
		s.Range(func(l labels.Label) { names[l.Name] = true })
	}
	delete(names, model.MetricNameLabel)
	return names
}

// missingSets counts the values of some labels that are in one list of series
// and not in another, and writes the first of them.
func missingSets(in, notIn []labels.Labels, names []string) (first string, n int) {
	if len(names) == 0 {
		return "", 0
	}
	of := func(sets []labels.Labels) map[string]bool {
		out := map[string]bool{}
		for _, s := range sets {
			out[labels.NewBuilder(s).Keep(names...).Labels().String()] = true
		}
		return out
	}
	known := of(notIn)
	for _, s := range slices.Sorted(maps.Keys(of(in))) {
		if !known[s] {
			if n++; n == 1 {
				first = s
			}
		}
	}
	return first, n
}

// over writes what a query counts over a stretch, in events a second or, of an
// expression, as the mean of its values.
func (q *sideQuery) over(d time.Duration) (string, error) {
	span := strings.Trim(rangeOf(d), "[]")
	if q.query.Kind == openslo.Expression {
		return "sum(avg_over_time((" + q.expr.String() + ")[" + span + ":5m]))", nil
	}
	if q.query.Plain {
		return "sum(rate(" + selectorText(q.selectors[0]) + "[" + span + "]))", nil
	}
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(q.Query)
	if err != nil {
		return "", err
	}
	// increase() sums up what rate() has a second of.
	factor := ""
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.MatrixSelector:
			n.Range = d
		case *parser.Call:
			if n.Func.Name == "increase" {
				factor = fmt.Sprintf(" / %d", int64(d/time.Second))
			}
		}
		return nil
	})
	return "(" + expr.String() + ")" + factor, nil
}

// ask evaluates a query over the stretch that ends at a time; ok is false where
// there is no value.
func (c *seriesCheck) ask(ctx context.Context, q *sideQuery, d time.Duration, at time.Time) (v float64, ok bool, err error) {
	expr, err := q.over(d)
	if err != nil {
		return 0, false, err
	}
	got, err := c.src.vector(ctx, expr, at)
	if err != nil || len(got) == 0 || !finite(got[0].value) {
		return 0, false, err
	}
	return got[0].value, true, nil
}

// zero finds a total without events in the last week (zero-denominator). The
// last hour mostly settles it.
func (c *seriesCheck) zero(ctx context.Context, total *sideQuery) (quiet bool, err error) {
	stretches := []struct{ length, back time.Duration }{{time.Hour, 0}}
	for back := time.Duration(0); back < checkedPast; back += 24 * time.Hour {
		stretches = append(stretches, struct{ length, back time.Duration }{24 * time.Hour, back})
	}
	for _, s := range stretches {
		v, _, err := c.ask(ctx, total, s.length, c.now.Add(-s.back))
		if err != nil || v > 0 {
			return false, err
		}
	}
	c.find("warning", "zero-denominator", total.QueryPlace, "total had no event in the last %s: without events there is no ratio, no budget is spent and no alert fires; probe the service, or count something that happens", sla.Duration(checkedPast))
	return true, nil
}

// above finds a part that is larger than its total (good-above-total).
func (c *seriesCheck) above(ctx context.Context, part, total *sideQuery) error {
	for _, d := range []time.Duration{24 * time.Hour, time.Hour} {
		p, ok1, err := c.ask(ctx, part, d, c.now)
		if tooMuch(err) && d > time.Hour {
			continue
		}
		if err != nil {
			return err
		}
		t, ok2, err := c.ask(ctx, total, d, c.now)
		if tooMuch(err) && d > time.Hour {
			continue
		}
		if err != nil {
			return err
		}
		if ok1 && ok2 && t > 0 && p > t*estimated {
			c.find("error", "good-above-total", part.QueryPlace, "%s counted %.0f events in the last %s and total %.0f: total must hold every event of %s; select the same series on both sides", part.Side, p*d.Seconds(), sla.Duration(d), t*d.Seconds(), part.Side)
		}
		return nil
	}
	return nil
}
