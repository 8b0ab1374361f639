package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	// suggestAtOnce is how much of the past one query reads at first, and
	// suggestLeast the least that it is cut down to where that is too much.
	suggestAtOnce = 24 * time.Hour
	suggestLeast  = 15 * time.Minute
	// clusterLabel tells clusters apart in what many of them send to one store.
	clusterLabel = "cluster"
)

// subject is a service as its series name it. Fields are empty where no label
// tells them.
type subject struct{ cluster, namespace, service string }

// String names a subject in a message.
func (s subject) String() string {
	text := oneLine(s.service)
	if s.namespace != "" {
		text += " in namespace " + oneLine(s.namespace)
	}
	if s.cluster != "" {
		text += " of cluster " + oneLine(s.cluster)
	}
	return text
}

// service is a subject with what is drafted for it.
type service struct {
	subject
	drafts []draft
	// also are conventions that know it too.
	also []string
}

// draft is one objective.
type draft struct {
	by     *convention
	kind   string // availability, latency or reachability
	metric string // that its events are counted by
	// good and total are queries; value is one whose value is 1 where all is well.
	good, total, value string
	// failed says which events are failures, as a matcher.
	failed string
	edge   bucketEdge // of latency
	// supports is the share that the edge was chosen by.
	supports string
	counted  counted
	chosen   choice
}

// counted is what the past weeks held.
type counted struct {
	good, total float64       // events
	covered     time.Duration // in which there were samples
}

// bucketEdge is an upper edge of a histogram, and how many events it holds.
type bucketEdge struct {
	text  string // of the label le; empty for native histograms
	upTo  float64
	count float64
}

type suggester struct {
	src        seriesSource
	from, to   time.Time
	namespaces []string
	progress   io.Writer
	told       time.Time

	names    map[string]bool // of metrics
	atOnce   time.Duration
	services map[subject]*service
	order    []*service
	notes    []string        // what was found and is not drafted, and why
	done     map[string]bool // questions that another convention has asked
	found    int             // conventions whose series are there
}

func newSuggester(src seriesSource, since time.Duration, namespaces []string, progress io.Writer) *suggester {
	to := src.now()
	return &suggester{
		src: src, from: to.Add(-since), to: to, namespaces: namespaces, progress: progress, told: time.Now(),
		names: map[string]bool{}, atOnce: suggestAtOnce, services: map[subject]*service{}, done: map[string]bool{},
	}
}

func (s *suggester) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// look asks for every convention.
func (s *suggester) look(ctx context.Context) error {
	names, err := s.src.labelValues(ctx, model.MetricNameLabel, "", s.to.Add(-suggestAtOnce), s.to)
	if err != nil {
		return err
	}
	for _, n := range names {
		s.names[n] = true
	}
	fmt.Fprintf(s.progress, "%s has %d metric names; looking for %d conventions among them\n", s.src.describe(), len(names), len(conventions))
	for i := range conventions {
		c := &conventions[i]
		known := len(s.order)
		asked, err := s.convention(ctx, c)
		if tooMuch(err) {
			s.note("%s: left out: %v", c.name, err)
			err = nil
		}
		if err != nil {
			return err
		}
		if asked {
			s.found++
			fmt.Fprintf(s.progress, "%s: %s more\n", c.name, countOf(len(s.order)-known, "service"))
		}
	}
	return nil
}

// nothing says why there is no draft, and what to do.
func (s *suggester) nothing() error {
	where := s.src.describe()
	switch {
	case len(s.names) == 0:
		return fmt.Errorf("%s has no series of the last day: point a Prometheus at it with remote_write, or name another one with --server", where)
	case s.found == 0:
		return fmt.Errorf("%s has %d metric names, and none that suggest knows (nines-aggregator help suggest lists them): scrape your ingress controller, mesh or programs, or write an SLO by hand as README.md shows", where, len(s.names))
	}
	return fmt.Errorf("%s has series that suggest knows, but nothing to draft from since %s: see the lines above; try a longer --since, or another --namespace", where, s.from.UTC().Format("2006-01-02 15:04"))
}

// form is how a histogram is stored.
type form int

const (
	noHistogram form = iota
	classic
	native
)

func (s *suggester) form(histogram string) form {
	switch {
	case histogram == "":
		return noHistogram
	case s.names[histogram+"_bucket"]:
		return classic
	case s.names[histogram]:
		return native // or a summary, of which nothing is counted then
	}
	return noHistogram
}

// convention drafts what one convention knows; asked tells whether its series
// are there.
func (s *suggester) convention(ctx context.Context, c *convention) (asked bool, err error) {
	if c.gauge != "" {
		if !s.names[c.gauge] {
			return false, nil
		}
		return true, s.reachability(ctx, c)
	}
	stored := s.form(c.histogram)
	requests := c.requests
	countIt := func(rates string) string { return rates }
	if requests == "" {
		switch stored {
		case classic:
			requests = c.histogram + "_count"
		case native:
			requests = c.histogram
			countIt = func(rates string) string { return "histogram_count(" + rates + ")" }
		}
	}
	if s.names[requests] {
		asked = true
		if err := s.availability(ctx, c, requests, countIt); err != nil {
			return asked, err
		}
	}
	if stored != noHistogram {
		asked = true
		err = s.latency(ctx, c, stored)
	}
	return asked, err
}

// identity is which labels of a metric tell services apart.
type identity struct {
	cluster, namespace, service string // names of labels; empty where there is none
	fixed                       []*labels.Matcher
	names                       []string // of all labels of the metric
}

func (id identity) labels() (out []string) {
	for _, l := range []string{id.cluster, id.namespace, id.service} {
		if l != "" {
			out = append(out, l)
		}
	}
	return out
}

func (id identity) of(ls labels.Labels) subject {
	get := func(name string) string {
		if name == "" {
			return ""
		}
		return ls.Get(name)
	}
	return subject{get(id.cluster), get(id.namespace), get(id.service)}
}

// matchers select the series of one subject.
func (id identity) matchers(of subject) []*labels.Matcher {
	var out []*labels.Matcher
	for _, l := range []struct{ name, value string }{{id.cluster, of.cluster}, {id.namespace, of.namespace}, {id.service, of.service}} {
		if l.name != "" {
			out = append(out, labels.MustNewMatcher(labels.MatchEqual, l.name, l.value))
		}
	}
	return append(out, id.fixed...)
}

// identify finds the labels of a metric; ok is false where none names a service
// or its namespace cannot be told though it was asked for.
func (s *suggester) identify(ctx context.Context, c *convention, metric string, only ...string) (id identity, ok bool, err error) {
	if id.fixed, err = matchersIn(only...); err != nil {
		return id, false, fmt.Errorf("convention %s: %w", c.name, err)
	}
	if id.names, err = s.src.labelNames(ctx, selectorOf(metric, id.fixed...), s.to.Add(-suggestAtOnce), s.to); err != nil {
		return id, false, err
	}
	if len(id.names) == 0 {
		return id, false, nil // there, but not with the labels that are wanted
	}
	first := func(wanted ...string) string {
		for _, w := range wanted {
			if slices.Contains(id.names, w) {
				return w
			}
		}
		return ""
	}
	id.cluster, id.namespace, id.service = first(clusterLabel), first(c.namespace...), first(c.service...)
	if id.service == "" {
		return id, false, nil
	}
	if len(s.namespaces) > 0 {
		if id.namespace == "" {
			s.note("%s: %s has no label of a namespace, so that --namespace leaves it out", c.name, metric)
			return id, false, nil
		}
		var wanted []string
		for _, n := range s.namespaces {
			wanted = append(wanted, regexp.QuoteMeta(n))
		}
		// For finding alone: the matchers of a subject name its namespace.
		m, err := labels.NewMatcher(labels.MatchRegexp, id.namespace, strings.Join(wanted, "|"))
		if err != nil {
			return id, false, fmt.Errorf("--namespace: %w", err)
		}
		id.fixed = append(id.fixed, m)
	}
	return id, true, nil
}

// without takes the matcher of --namespace out, which a draft does not need.
func (id identity) without() identity {
	id.fixed = slices.DeleteFunc(slices.Clone(id.fixed), func(m *labels.Matcher) bool { return m.Name == id.namespace && m.Type == labels.MatchRegexp })
	return id
}

// matchersIn reads lists of matchers as PromQL has them between braces.
func matchersIn(lists ...string) (out []*labels.Matcher, err error) {
	for _, l := range lists {
		if l == "" {
			continue
		}
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector("any{" + l + "}")
		if err != nil {
			return nil, err
		}
		for _, m := range ms {
			if m.Name != model.MetricNameLabel {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// once reports whether a question was not asked by another convention yet.
func (s *suggester) once(parts ...string) bool {
	key := strings.Join(parts, "\x00")
	first := !s.done[key]
	s.done[key] = true
	return first
}

// tally asks for a stretch after the other, from the oldest to the newest.
func (s *suggester) tally(ctx context.Context, name string, expr func(span string) string, add func(v seriesValue)) error {
	for from := s.from; from.Before(s.to); {
		span := min(s.atOnce, s.to.Sub(from))
		at := from.Add(span)
		got, err := s.src.vector(ctx, expr(rangeOf(span)), at)
		if tooMuch(err) && s.atOnce/2 >= suggestLeast {
			s.atOnce /= 2
			continue
		}
		if err != nil {
			return err
		}
		for _, v := range got {
			if finite(v.value) && v.value >= 0 {
				add(v)
			}
		}
		if now := time.Now(); now.Sub(s.told) >= 2*time.Second {
			s.told = now
			fmt.Fprintf(s.progress, "%s: counted up to %s\n", name, at.UTC().Format("2006-01-02 15:04"))
		}
		from = at
	}
	return nil
}

// presenceStep is how finely it is found out when a service had samples: as far
// as Prometheus looks back for one.
const presenceStep = 5 * time.Minute

// presence finds out for how long each subject had samples, and notes it in
// what was counted. A young service would else seem to have little traffic.
func (s *suggester) presence(ctx context.Context, c *convention, id identity, sel string, found map[subject]*counted) error {
	step := strings.Trim(rangeOf(presenceStep), "[]")
	return s.tally(ctx, c.name, func(span string) string {
		return "count_over_time((group by " + by(id.labels()...) + " (" + sel + "))" + strings.TrimSuffix(span, "]") + ":" + step + "])"
	}, func(v seriesValue) {
		if n := found[id.of(v.labels)]; n != nil {
			n.covered = min(n.covered+time.Duration(v.value)*presenceStep, s.to.Sub(s.from))
		}
	})
}

// busiest returns the subjects, those with the most events first.
func busiest(found map[subject]*counted) []subject {
	return slices.SortedFunc(maps.Keys(found), func(a, b subject) int {
		if x, y := found[a].total, found[b].total; x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return strings.Compare(a.cluster+"\x00"+a.namespace+"\x00"+a.service, b.cluster+"\x00"+b.namespace+"\x00"+b.service)
	})
}

func (s *suggester) availability(ctx context.Context, c *convention, metric string, countIt func(string) string) error {
	id, ok, err := s.identify(ctx, c, metric, c.only)
	if err != nil || !ok {
		return err
	}
	// Programs of one metric may use different labels for the result.
	var results []string
	for _, l := range c.results {
		if slices.Contains(id.names, l) {
			results = append(results, l)
		}
	}
	if len(results) == 0 {
		s.note("%s: %s has no label that tells failures (%s): no availability is drafted from it", c.name, metric, strings.Join(c.results, ", "))
		return nil
	}
	if !s.once(metric, id.service, c.only) {
		return nil
	}
	bad := make([]*labels.Matcher, len(results))
	for i, l := range results {
		if bad[i], err = labels.NewMatcher(labels.MatchRegexp, l, c.failed); err != nil {
			return fmt.Errorf("convention %s: %w", c.name, err)
		}
	}
	found := map[subject]*counted{}
	failed := map[subject][]float64{} // events by the label that calls them failed; below 0: it has no value
	groups := by(append(id.labels(), results...)...)
	err = s.tally(ctx, c.name, func(span string) string {
		return countIt("sum by " + groups + " (increase(" + selectorOf(metric, id.fixed...) + span + "))")
	}, func(v seriesValue) {
		of := id.of(v.labels)
		if of.service == "" {
			return
		}
		if found[of] == nil {
			found[of] = &counted{}
			failed[of] = slices.Repeat([]float64{-1}, len(results))
		}
		found[of].total += v.value
		for i, m := range bad {
			value := v.labels.Get(m.Name)
			if value == "" {
				continue
			}
			failed[of][i] = max(failed[of][i], 0)
			if m.Matches(value) {
				failed[of][i] += v.value
			}
		}
	})
	if err == nil {
		err = s.presence(ctx, c, id, selectorOf(metric, id.fixed...), found)
	}
	if err != nil {
		return err
	}
	for _, of := range busiest(found) {
		i := slices.IndexFunc(failed[of], func(n float64) bool { return n >= 0 })
		if i < 0 {
			s.note("%s: no availability from %s: its series have no label that tells failures (%s)", of, metric, strings.Join(c.results, ", "))
			continue
		}
		good, err := bad[i].Inverse()
		if err != nil {
			return fmt.Errorf("convention %s: %w", c.name, err)
		}
		found[of].good = found[of].total - failed[of][i]
		ms := id.without().matchers(of)
		s.add(of, draft{
			by: c, kind: "availability", metric: metric, counted: *found[of], failed: bad[i].String(),
			good:  countIt("sum(rate(" + selectorOf(metric, append(slices.Clip(ms), good)...) + "[5m]))"),
			total: countIt("sum(rate(" + selectorOf(metric, ms...) + "[5m]))"),
		})
	}
	return nil
}

// usualEdges are thresholds that are tried on native histograms, in seconds:
// their buckets are finer than what people promise.
var usualEdges = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30}

func (s *suggester) latency(ctx context.Context, c *convention, stored form) error {
	metric := c.histogram
	if stored == classic {
		metric += "_bucket"
	}
	id, ok, err := s.identify(ctx, c, metric, c.only, c.slow)
	if err != nil || !ok {
		return err
	}
	if !s.once(metric, id.service, c.only, c.slow) {
		return nil
	}
	// What failed says nothing about how long an answer takes.
	fixed := slices.Clone(id.fixed)
	notFailed := map[string]*labels.Matcher{}
	for _, l := range c.results {
		if !slices.Contains(id.names, l) {
			continue
		}
		if notFailed[l], err = labels.NewMatcher(labels.MatchNotRegexp, l, c.failed); err != nil {
			return fmt.Errorf("convention %s: %w", c.name, err)
		}
		fixed = append(fixed, notFailed[l])
	}
	found := map[subject]*counted{}
	edges := map[subject]map[float64]bucketEdge{}
	add := func(of subject, e bucketEdge) {
		if of.service == "" || math.IsNaN(e.upTo) {
			return
		}
		n := found[of]
		if n == nil {
			n = &counted{}
			found[of], edges[of] = n, map[float64]bucketEdge{}
		}
		if math.IsInf(e.upTo, 1) {
			n.total += e.count
			return
		}
		e.count += edges[of][e.upTo].count
		edges[of][e.upTo] = e // of two spellings of one edge, the newer one stays
	}
	sel := selectorOf(metric, fixed...)
	if stored == classic {
		err = s.tally(ctx, c.name, func(span string) string {
			return "sum by " + by(append(id.labels(), model.BucketLabel)...) + " (increase(" + sel + span + "))"
		}, func(v seriesValue) {
			le := v.labels.Get(model.BucketLabel)
			if upTo, err := strconv.ParseFloat(le, 64); err == nil {
				add(id.of(v.labels), bucketEdge{le, upTo, v.value})
			}
		})
	} else {
		err = s.nativeEdges(ctx, c, id, sel, add)
	}
	if err == nil {
		one := id.fixed
		if stored == classic { // one bucket of many tells as much
			one = append(slices.Clip(one), labels.MustNewMatcher(labels.MatchEqual, model.BucketLabel, "+Inf"))
		}
		err = s.presence(ctx, c, id, selectorOf(metric, one...), found)
	}
	if err != nil {
		return err
	}
	for _, of := range busiest(found) {
		ms := id.without().matchers(of)
		if len(notFailed) > 0 && s.wanted(of, "latency", c.histogram) {
			names, err := s.src.labelNames(ctx, selectorOf(metric, ms...), s.to.Add(-suggestAtOnce), s.to)
			if err != nil {
				return err
			}
			for _, l := range c.results {
				if notFailed[l] != nil && slices.Contains(names, l) {
					ms = append(ms, notFailed[l])
				}
			}
		}
		s.addLatency(of, c, stored, ms, *found[of], slices.Collect(maps.Values(edges[of])))
	}
	return nil
}

// nativeEdges asks a native histogram for what lies below the usual thresholds.
func (s *suggester) nativeEdges(ctx context.Context, c *convention, id identity, sel string, add func(subject, bucketEdge)) error {
	factor := 1.0
	if c.unit == "ms" {
		factor = 1000
	}
	tries := []float64{math.Inf(1)}
	for _, e := range usualEdges {
		tries = append(tries, e*factor)
	}
	for _, upTo := range tries {
		err := s.tally(ctx, c.name, func(span string) string {
			grown := "sum by " + by(id.labels()...) + " (increase(" + sel + span + "))"
			if math.IsInf(upTo, 1) {
				return "histogram_count(" + grown + ")"
			}
			return fmt.Sprintf("histogram_fraction(0, %s, %s) * histogram_count(%s)", number(upTo), grown, grown)
		}, func(v seriesValue) {
			add(id.of(v.labels), bucketEdge{upTo: upTo, count: v.value})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *suggester) addLatency(of subject, c *convention, stored form, ms []*labels.Matcher, n counted, edges []bucketEdge) {
	edge, supports, ok := chooseEdge(edges, n.total)
	if !ok {
		if n.total > 0 && s.wanted(of, "latency", c.histogram) {
			s.note("%s: no latency from %s: fewer than 90 %% of its requests are within the largest bucket edge; add larger ones, or make it faster", of, c.histogram)
		}
		return
	}
	n.good = edge.count
	d := draft{by: c, kind: "latency", metric: c.histogram, counted: n, edge: edge, supports: supports}
	if stored == classic {
		d.good = "sum(rate(" + selectorOf(c.histogram+"_bucket", append(slices.Clip(ms), labels.MustNewMatcher(labels.MatchEqual, model.BucketLabel, edge.text))...) + "[5m]))"
		count := selectorOf(c.histogram+"_count", ms...)
		if !s.names[c.histogram+"_count"] { // dropped by a rule of somebody's
			count = selectorOf(c.histogram+"_bucket", append(slices.Clip(ms), labels.MustNewMatcher(labels.MatchEqual, model.BucketLabel, "+Inf"))...)
		}
		d.total = "sum(rate(" + count + "[5m]))"
	} else {
		rates := "sum(rate(" + selectorOf(c.histogram, ms...) + "[5m]))"
		d.good = fmt.Sprintf("histogram_fraction(0, %s, %s) * histogram_count(%s)", number(edge.upTo), rates, rates)
		d.total = "histogram_count(" + rates + ")"
	}
	s.add(of, d)
}

// reachability drafts from a gauge that is 1 where all is well.
func (s *suggester) reachability(ctx context.Context, c *convention) error {
	id, ok, err := s.identify(ctx, c, c.gauge, c.only)
	if err != nil || !ok {
		return err
	}
	found := map[subject]*counted{}
	each := c.reduce + " by " + by(id.labels()...) + " (" + selectorOf(c.gauge, id.fixed...) + ")"
	// As the engine will: one observation a minute.
	for _, ask := range []struct {
		expr string
		add  func(n *counted, v float64)
	}{
		{"count_over_time((" + each + ")%s)", func(n *counted, v float64) { n.total += v }},
		{"sum_over_time((" + each + " >= bool 1)%s)", func(n *counted, v float64) { n.good += v }},
	} {
		err := s.tally(ctx, c.name, func(span string) string {
			return fmt.Sprintf(ask.expr, strings.TrimSuffix(span, "]")+":1m]")
		}, func(v seriesValue) {
			of := id.of(v.labels)
			if of.service == "" {
				return
			}
			if found[of] == nil {
				found[of] = &counted{}
			}
			ask.add(found[of], v.value)
		})
		if err != nil {
			return err
		}
	}
	for _, of := range busiest(found) {
		if c.fallback && s.services[of] != nil {
			continue
		}
		n := found[of]
		n.covered = time.Duration(n.total) * time.Minute
		s.add(of, draft{
			by: c, kind: "reachability", metric: c.gauge, counted: *n, failed: selectorOf(c.gauge) + " < 1",
			value: c.reduce + "(" + selectorOf(c.gauge, id.without().matchers(of)...) + ")",
		})
	}
	return nil
}

// wanted reports whether a service lacks a draft of a kind, and notes else that
// another metric knows it too.
func (s *suggester) wanted(of subject, kind, metric string) bool {
	known := s.services[of]
	if known == nil {
		return true
	}
	for _, d := range known.drafts {
		if d.kind == kind {
			if text := metric; d.metric != metric && !slices.Contains(known.also, text) {
				known.also = append(known.also, text)
			}
			return false
		}
	}
	return true
}

// add takes a draft in, if its service has none of its kind and a target holds.
func (s *suggester) add(of subject, d draft) {
	if !s.wanted(of, d.kind, d.metric) {
		return
	}
	d.counted.good = min(d.counted.good, d.counted.total)
	if math.Round(d.counted.total) < 1 {
		s.note("%s: no %s from %s: it counted nothing since %s", of, d.kind, d.metric, s.from.UTC().Format("2006-01-02 15:04"))
		return
	}
	var why string
	if d.chosen, why = choose(d.counted); why != "" {
		s.note("%s: no %s from %s: %s", of, d.kind, d.metric, why)
		return
	}
	known := s.services[of]
	if known == nil {
		known = &service{subject: of}
		s.services[of] = known
		s.order = append(s.order, known)
	}
	known.drafts = append(known.drafts, d)
}
