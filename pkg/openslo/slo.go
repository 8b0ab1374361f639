package openslo

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

// Budgeting methods.
const (
	occurrences     = "Occurrences"
	timeslices      = "Timeslices"
	ratioTimeslices = "RatioTimeslices"
)

const (
	// innerName is that of the objective whose events others make slices of, and
	// compositeName that of the one that puts the others together.
	innerName     = "(events)"
	compositeName = "composite"
	// maxObjectives bounds the objectives of one SLO.
	maxObjectives = 100
	// weightScale is the number of units in a weight of 1.
	weightScale = 1_000_000
)

// place is a part of a document.
type place struct {
	doc  strictyaml.Document
	base []string
}

func (p place) at(path ...string) *yaml.Node {
	return p.doc.Find(slices.Concat(p.base, path)...)
}

func (p place) in(path ...string) place {
	return place{p.doc, slices.Concat(p.base, path)}
}

// resolver turns one SLO into objectives.
type resolver struct {
	*Set
	o         *slo
	spec      place
	method    string // Timeslices, RatioTimeslices, or empty
	groupBy   []string
	maxGroups int
	absentBad bool
	window    sla.Window
	alerts    []sla.Policy
	asked     []QueryPlace // the queries of the indicator that was read last
}

func (r *resolver) fail(p place, rule, key, format string, args ...any) {
	r.find("error", rule, p.doc, p.at(strings.Fields(key)...), format, args...)
}

func (r *resolver) warn(p place, rule, key, format string, args ...any) {
	r.find("warning", rule, p.doc, p.at(strings.Fields(key)...), format, args...)
}

// resolve checks one SLO and makes its objectives.
func (s *Set) resolve(o *slo) {
	before := s.errors()
	r := &resolver{Set: s, o: o, spec: place{o.doc, []string{"spec"}}}
	spec := &o.spec.Spec
	r.service()
	r.budgetingMethod()
	r.annotations()
	r.timeWindow()
	r.alerts = r.alertPolicies()
	shared, ok := r.sharedIndicator()
	sharedAsked := r.asked
	switch n := len(spec.Objectives); {
	case n == 0:
		r.fail(r.spec, "objectives", "objectives", "an SLO needs at least one objective with a target")
	case n > maxObjectives:
		r.fail(r.spec, "objectives", "objectives", "an SLO has at most %d objectives, this has %d: split it", maxObjectives, n)
		return
	}
	composite := r.isComposite()
	names := map[string]bool{innerName: true}
	if composite {
		names[compositeName] = true
	}
	var made, inner []sla.Objective
	var parts []sla.Part
	for i := range spec.Objectives {
		ob := &spec.Objectives[i]
		here := r.spec.in("objectives", strconv.Itoa(i))
		name := ob.DisplayName
		if name == "" {
			name = strconv.Itoa(i)
		}
		if names[name] {
			r.fail(here, "duplicate-name", "displayName", "a second objective is named %q: rename one", name)
		}
		names[name] = true
		sli, sound, asked := shared, ok, sharedAsked
		if ob.Indicator != nil || ob.IndicatorRef != "" {
			sli, sound = r.indicator(ob.Indicator, ob.IndicatorRef, here)
			asked = r.asked
		}
		if sound {
			sound = r.threshold(ob, &sli, here)
		}
		target := r.target(ob, here)
		slices := r.slices(ob, here)
		weight := r.weight(ob, composite, here)
		if !sound || target.IsZero() || r.method != "" && slices == nil {
			continue // it is told above
		}
		r.suits(sli, here)
		out := r.objective(name, target, sli)
		s.read[out.ID] = measured{o.doc, asked}
		if slices != nil {
			events := r.objective(innerName, sliceTarget(slices, target), sli)
			events.Inner, events.Policies = true, nil
			s.read[events.ID] = measured{o.doc, asked}
			inner = append(inner, events)
			out = r.objective(name, target, sla.SLI{
				Parts:  []sla.Part{{Objective: events.ID, Name: innerName, Weight: weightScale, Target: events.Target}},
				Slices: slices,
			})
			out.AbsentBad = false // its events have that already
		}
		made = append(made, out)
		parts = append(parts, sla.Part{Objective: out.ID, Name: name, Weight: weight, Target: target})
		r.tiers(target, slices, here)
	}
	if composite && len(parts) == len(spec.Objectives) {
		made = append(made, r.composite(parts, made))
	}
	if s.errors() > before {
		return
	}
	known := map[sla.ID]bool{} // targets of one indicator share its events
	for _, o := range inner {
		if !known[o.ID] {
			known[o.ID] = true
			s.objectives = append(s.objectives, o)
		}
	}
	s.objectives = append(s.objectives, made...)
}

func sliceTarget(s *sla.Slices, target sla.Target) sla.Target {
	if s.Ratio {
		return target
	}
	return s.Target
}

func (r *resolver) service() {
	name := r.o.spec.Spec.Service
	known := r.services[r.o.spec.Metadata.Namespace+"/"+name]
	switch {
	case name == "":
		r.fail(r.spec, "service", "service", "spec.service is missing: name the service that the promise is about")
	case known != nil:
		known.used = true
	case len(r.services) > 0:
		r.warn(r.spec, "unknown-service", "service", "there is no Service named %q in namespace %q, though there are others: correct the name, or add the document", name, r.o.spec.Metadata.Namespace)
	}
}

func (r *resolver) budgetingMethod() {
	switch m := r.o.spec.Spec.BudgetingMethod; {
	case m == occurrences:
	case m == timeslices, m == ratioTimeslices:
		r.method = m
	case m == "":
		r.warn(r.spec, "default", "budgetingMethod", "budgetingMethod is missing: Occurrences is taken; write it down")
	case strings.EqualFold(m, timeslices), strings.EqualFold(m, ratioTimeslices), strings.EqualFold(m, occurrences):
		want := occurrences
		for _, w := range []string{timeslices, ratioTimeslices} {
			if strings.EqualFold(m, w) {
				want, r.method = w, w
			}
		}
		r.warn(r.spec, "spelling", "budgetingMethod", "budgetingMethod %q is taken for %s: write it so", m, want)
	default:
		r.fail(r.spec, "budgeting-method", "budgetingMethod", "budgetingMethod is %q, want Occurrences, Timeslices or RatioTimeslices", m)
	}
}

// annotations reads those that change how an SLO is counted.
func (r *resolver) annotations() {
	r.groupBy, r.maxGroups = r.groups(r.o)
	notes := place{r.o.doc, []string{"metadata", "annotations"}}
	absent, given := r.o.spec.Metadata.Annotations[AnnotationAbsent]
	if given && absent != "bad" {
		r.fail(notes, "annotation", AnnotationAbsent, "annotation %s is %q: the one value is bad", AnnotationAbsent, absent)
	}
	r.absentBad = absent == "bad"
	if r.method != "" && len(r.groupBy) > 0 {
		r.fail(notes, "not-evaluated", AnnotationGroupBy, "annotation %s with budgetingMethod %s is not evaluated by this version: use Occurrences, or write one SLO a group", AnnotationGroupBy, r.method)
	}
}

// sharedIndicator returns the indicator of the SLO itself. Where all objectives
// have their own, it may be missing.
func (r *resolver) sharedIndicator() (sla.SLI, bool) {
	spec := &r.o.spec.Spec
	if spec.Indicator == nil && spec.IndicatorRef == "" {
		for _, ob := range spec.Objectives {
			if ob.Indicator == nil && ob.IndicatorRef == "" {
				r.fail(r.spec, "indicator", "indicator", "an SLO needs an indicator (or indicatorRef), or each of its objectives needs one")
				break
			}
		}
		return sla.SLI{}, false
	}
	own := len(spec.Objectives) > 0
	for _, ob := range spec.Objectives {
		own = own && (ob.Indicator != nil || ob.IndicatorRef != "")
	}
	if own {
		r.warn(r.spec, "unused", "indicator", "each objective has an indicator of its own, so that this one is not used: take it out")
	}
	return r.indicator(spec.Indicator, spec.IndicatorRef, r.spec)
}

// threshold completes the indicator of a value with what it is compared with.
func (r *resolver) threshold(ob *objective, sli *sla.SLI, here place) bool {
	if sli.Value == "" {
		for _, f := range [][2]string{{"op", ob.Op}, {"value", string(ob.Value)}} {
			if f[1] != "" {
				r.fail(here, "threshold", f[0], "%s is for an indicator with a thresholdMetric, this one has a ratioMetric: take it out", f[0])
				return false
			}
		}
		return true
	}
	switch ob.Op {
	case "lt", "lte", "gt", "gte":
	case "":
		r.fail(here, "threshold", "op", "an objective of a thresholdMetric needs op: lt, lte, gt or gte (a value is good where value op threshold holds)")
		return false
	default:
		r.fail(here, "threshold", "op", "op is %q, want lt, lte, gt or gte", ob.Op)
		return false
	}
	if ob.Value == "" {
		r.fail(here, "threshold", "value", "an objective of a thresholdMetric needs a value to compare with, such as 0.5")
		return false
	}
	limit, err := strconv.ParseFloat(string(ob.Value), 64)
	if err != nil || limit != limit || limit-limit != 0 {
		r.fail(here, "threshold", "value", "value %q is not a decimal number such as 0.5", ob.Value)
		return false
	}
	sli.Op, sli.Limit = ob.Op, strconv.FormatFloat(limit, 'g', -1, 64)
	if len(r.o.spec.Spec.Objectives) > 1 && ob == &r.o.spec.Spec.Objectives[1] && r.o.spec.Spec.Objectives[0].Indicator == nil {
		r.warn(here, "several-thresholds", "value", "other programs take one objective of a thresholdMetric alone: write an SLO for each where they read this, too")
	}
	return true
}

// suits tells of annotations that an indicator has no use for.
func (r *resolver) suits(sli sla.SLI, here place) {
	observed := sli.Raw != "" || sli.Value != ""
	notes := place{r.o.doc, []string{"metadata", "annotations"}}
	if observed && r.absentBad {
		r.fail(notes, "annotation", AnnotationAbsent, "annotation %s is for indicators of counters: a value that is not there is not observed, and lowers the coverage", AnnotationAbsent)
	}
	if observed && len(r.groupBy) > 0 {
		r.fail(notes, "not-evaluated", AnnotationGroupBy, "annotation %s is for indicators of counters: write one SLO a group", AnnotationGroupBy)
	}
}

// objective returns an objective of the SLO.
func (r *resolver) objective(name string, target sla.Target, sli sla.SLI) sla.Objective {
	m := r.o.spec.Metadata
	out := sla.Objective{
		Namespace: m.Namespace, Service: r.o.spec.Spec.Service, SLO: m.Name, Name: name, Title: m.DisplayName,
		Description: strings.TrimSpace(r.o.spec.Spec.Description), Team: m.Annotations[AnnotationTeam], Runbook: m.Annotations[AnnotationRunbook],
		Target: target, Window: r.window, SLI: sli, AbsentBad: r.absentBad, SpecSHA256: r.o.hash,
		GroupBy: r.groupBy, MaxGroups: r.maxGroups, Policies: r.alerts,
	}
	if len(m.Labels) > 0 {
		out.Labels = map[string]string{}
		for k, v := range m.Labels {
			out.Labels[k] = string(v)
		}
	}
	out.ID = sla.ObjectiveID("", out.Namespace, out.SLO, out.Name, nil, sli)
	return out
}

func (r *resolver) target(ob *objective, here place) sla.Target {
	var t sla.Target
	var err error
	key := "target"
	switch {
	case ob.Target != "" && ob.TargetPercent != "":
		r.fail(here, "target", "targetPercent", "give target or targetPercent, not both")
		return t
	case ob.Target != "":
		t, err = sla.ParseTarget(string(ob.Target))
	case ob.TargetPercent != "":
		key = "targetPercent"
		t, err = sla.ParseTargetPercent(string(ob.TargetPercent))
	default:
		r.fail(here, "target", "target", "an objective needs target (0.999) or targetPercent (99.9)")
		return t
	}
	if err != nil {
		r.fail(here, "target", key, "%v", err)
	} else if t.IsAll() {
		r.warn(here, "target-100", key, "a target of 100 %% leaves no budget: there is no burn rate, and one bad event misses it for the whole period")
	}
	return t
}

// slices reads the time slices of an objective, nil without any.
func (r *resolver) slices(ob *objective, here place) *sla.Slices {
	if r.method == "" {
		for _, f := range [][2]string{{"timeSliceTarget", string(ob.TimeSliceTarget)}, {"timeSliceWindow", string(ob.TimeSliceWindow)}} {
			if f[1] != "" {
				r.fail(here, "time-slices", f[0], "%s is for budgetingMethod Timeslices or RatioTimeslices: take it out, or change the method", f[0])
			}
		}
		return nil
	}
	out := &sla.Slices{Ratio: r.method == ratioTimeslices}
	if ob.TimeSliceWindow == "" {
		r.fail(here, "time-slices", "timeSliceWindow", "budgetingMethod %s needs timeSliceWindow, such as 5m", r.method)
		return nil
	}
	minutes, err := strconv.Atoi(string(ob.TimeSliceWindow)) // a number is in minutes
	if err != nil {
		length, lengthErr := shorthand(string(ob.TimeSliceWindow))
		if err = lengthErr; err == nil {
			minutes = int(length / time.Minute)
		}
	}
	if err != nil || minutes < 1 || minutes > 1440 || 1440%minutes != 0 {
		r.fail(here, "time-slices", "timeSliceWindow", "timeSliceWindow %q: want whole minutes that tile a day, such as 1m, 5m, 10m, 1h or 1d", ob.TimeSliceWindow)
		return nil
	}
	out.Minutes = minutes
	switch {
	case out.Ratio && ob.TimeSliceTarget != "":
		r.fail(here, "time-slices", "timeSliceTarget", "timeSliceTarget has no meaning with RatioTimeslices, where a slice counts with its ratio: take it out, or use Timeslices")
		return nil
	case out.Ratio:
		return out
	case ob.TimeSliceTarget == "":
		r.fail(here, "time-slices", "timeSliceTarget", "budgetingMethod Timeslices needs timeSliceTarget, the ratio from which on a slice is good, such as 0.95")
		return nil
	}
	if out.Target, err = sla.ParseTarget(string(ob.TimeSliceTarget)); err != nil {
		r.fail(here, "time-slices", "timeSliceTarget", "timeSliceTarget: %v", err)
		return nil
	}
	return out
}

// isComposite reports whether the objectives make one more together.
func (r *resolver) isComposite() bool {
	spec := &r.o.spec.Spec
	notes := place{r.o.doc, []string{"metadata", "annotations"}}
	asked := false
	for _, ob := range spec.Objectives {
		asked = asked || ob.Indicator != nil || ob.IndicatorRef != "" || ob.CompositeWeight != ""
	}
	_, how := r.o.spec.Metadata.Annotations[AnnotationComposite]
	_, what := r.o.spec.Metadata.Annotations[AnnotationCompositeTarget]
	asked = asked || how || what
	if !asked || len(spec.Objectives) == 0 {
		return false
	}
	if len(spec.Objectives) < 2 {
		key := AnnotationCompositeTarget
		if how {
			key = AnnotationComposite
		}
		switch ob := &spec.Objectives[0]; {
		case how || what:
			r.fail(notes, "composite", key, "a composite needs at least two objectives: add one, or take the annotation out")
		case ob.CompositeWeight != "":
			r.fail(r.spec, "composite", "objectives 0 compositeWeight", "a weight is for composites, which have at least two objectives: take it out")
		}
		return false
	}
	if len(r.groupBy) > 0 {
		r.fail(notes, "not-evaluated", AnnotationGroupBy, "annotation %s on a composite SLO is not evaluated by this version: write one SLO a group", AnnotationGroupBy)
	}
	return true
}

func (r *resolver) weight(ob *objective, composite bool, here place) int64 {
	if ob.CompositeWeight == "" || !composite {
		return weightScale
	}
	w, ok := new(big.Rat).SetString(string(ob.CompositeWeight))
	if ok {
		w.Mul(w, big.NewRat(weightScale, 1))
	}
	if !ok || w.Sign() <= 0 || !w.IsInt() || w.Cmp(big.NewRat(1000*weightScale, 1)) > 0 {
		r.fail(here, "composite", "compositeWeight", "compositeWeight %q: want a number above 0, at most 1000, with at most 6 decimals", ob.CompositeWeight)
		return weightScale
	}
	return w.Num().Int64()
}

// composite returns the objective that puts the others together.
func (r *resolver) composite(parts []sla.Part, of []sla.Objective) sla.Objective {
	notes := place{r.o.doc, []string{"metadata", "annotations"}}
	sli := sla.SLI{Combine: sla.Weighted, Parts: parts}
	if how, ok := r.o.spec.Metadata.Annotations[AnnotationComposite]; ok {
		sli.Combine = how
		if how != sla.Weighted && how != sla.AllOf && how != sla.AnyOf {
			r.fail(notes, "composite", AnnotationComposite, "annotation %s is %q: want weighted, all-of or any-of", AnnotationComposite, how)
		}
	}
	for _, o := range of {
		if s := o.SLI.Slices; s != nil {
			if sli.Slices != nil && sli.Slices.Minutes != s.Minutes {
				r.fail(r.spec, "composite", "objectives", "the objectives of a composite have slices of different lengths: give all the same timeSliceWindow")
			}
			sli.Slices = &sla.Slices{Minutes: s.Minutes, Ratio: sli.Combine == sla.Weighted}
		}
	}
	target := meanTarget(parts)
	switch text, ok := r.o.spec.Metadata.Annotations[AnnotationCompositeTarget]; {
	case ok:
		var err error
		if target, err = sla.ParseTarget(text); err != nil {
			r.fail(notes, "composite", AnnotationCompositeTarget, "annotation %s: %v", AnnotationCompositeTarget, err)
		}
	case sli.Combine != sla.Weighted:
		r.fail(notes, "composite", AnnotationComposite, "a composite %s needs a target of its own: add the annotation %s, such as \"0.995\"", sli.Combine, AnnotationCompositeTarget)
	default:
		r.warn(r.spec, "default", "objectives", "the composite of these objectives has no target of its own: the weighted mean of theirs, %s, is taken; set the annotation %s", target, AnnotationCompositeTarget)
	}
	out := r.objective(compositeName, target, sli)
	out.AbsentBad = false
	return out
}

// meanTarget is the weighted mean of targets, rounded down.
func meanTarget(parts []sla.Part) sla.Target {
	sum, weights := new(big.Rat), new(big.Rat)
	for _, p := range parts {
		w := big.NewRat(p.Weight, weightScale)
		weights.Add(weights, w)
		sum.Add(sum, w.Mul(w, p.Target.Rat()))
	}
	t, err := sla.ParseTarget(sla.FloorDecimal(sum.Quo(sum, weights), 12))
	if err != nil {
		panic("the mean of targets is one: " + err.Error())
	}
	return t
}

// groups reads the annotations that make one SLO many objectives.
func (s *Set) groups(o *slo) (by []string, most int) {
	notes := o.spec.Metadata.Annotations
	list, grouped := notes[AnnotationGroupBy]
	bound, bounded := notes[AnnotationMaxGroups]
	fail := func(key, format string, args ...any) {
		s.find("error", "annotation", o.doc, o.doc.Find("metadata", "annotations", key), "annotation "+key+" "+format, args...)
	}
	if bounded {
		n, err := strconv.Atoi(strings.TrimSpace(bound))
		switch {
		case !grouped:
			fail(AnnotationMaxGroups, "bounds the groups of %s, which is not given: add it, or take this out", AnnotationGroupBy)
		case err != nil || n < 1 || n > sla.LimitMaxGroups:
			fail(AnnotationMaxGroups, "is %q: want a number from 1 to %d", bound, sla.LimitMaxGroups)
		}
		most = n
	}
	if !grouped {
		return nil, 0
	}
	if !bounded {
		most = sla.DefaultMaxGroups
	}
	for _, l := range strings.Split(list, ",") {
		l = strings.TrimSpace(l)
		switch {
		case !groupLabel.MatchString(l):
			fail(AnnotationGroupBy, "has %q: want label names with commas between them, as namespace,service", l)
		case strings.HasPrefix(l, "__") || slices.Contains(ownLabels, l):
			fail(AnnotationGroupBy, "has %q, which is a label of the figures themselves: group by another", l)
		case slices.Contains(by, l):
			fail(AnnotationGroupBy, "has %q twice: take one out", l)
		}
		by = append(by, l)
	}
	if len(by) > maxGroupLabels {
		fail(AnnotationGroupBy, "has %d labels: want at most %d", len(by), maxGroupLabels)
	}
	return by, most
}

// maxGroupLabels bounds the labels of a group.
const maxGroupLabels = 8

var groupLabel = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.]*$`)

// ownLabels are told by the figures of an objective, or by the edge of a bucket.
var ownLabels = []string{"slo", "slo_namespace", "objective", "objective_id", "window", "severity", "burn_tier", "le"}

// tiers warns of alerts that can never fire (sloth #341), and of those that look
// at less than a slice.
func (r *resolver) tiers(target sla.Target, slices *sla.Slices, here place) {
	period := r.window.Nominal()
	if target.IsAll() {
		return
	}
	slice := time.Duration(0)
	if slices != nil {
		slice = time.Duration(slices.Minutes) * time.Minute
	}
	most := func() string { return sla.FloorDecimal(target.BudgetRat().Inv(target.BudgetRat()), 2) }
	for _, p := range r.alerts {
		switch {
		case !p.CanFire(target):
			r.warn(here, "cannot-fire", "target", "alert policy %s fires above a burn rate of %s, but with a target of %s %% the burn rate never exceeds %s", p.Name, p.Threshold, target.Percent(), most())
		case p.Lookback > period:
			r.warn(here, "window-too-long", "target", "alert policy %s looks at %s, more than the period of %s", p.Name, sla.Duration(p.Lookback), sla.Duration(period))
		case p.Lookback < slice:
			r.warn(here, "slice-too-long", "timeSliceWindow", "alert policy %s looks at %s, in which no slice of %s may end: look at a longer time, or cut shorter slices", p.Name, sla.Duration(p.Lookback), sla.Duration(slice))
		}
	}
	if len(r.alerts) > 0 {
		return
	}
	for _, t := range sla.Tiers {
		switch {
		case t.Long > period:
			r.warn(here, "window-too-long", "target", "tier %s looks at %s, more than the period of %s: it tells nothing new", t.Name, sla.Duration(t.Long), sla.Duration(period))
		case !t.CanFire(target, period):
			r.warn(here, "cannot-fire", "target", "tier %s fires above a burn rate of %s, but with a target of %s %% the burn rate never exceeds %s",
				t.Name, sla.FloorDecimal(t.Threshold(period), 2), target.Percent(), most())
		case t.Short < slice:
			looks, what := t.Short, "it fires late and resolves early"
			if t.Long < slice {
				looks, what = t.Long, "it never fires"
			}
			r.warn(here, "slice-too-long", "timeSliceWindow", "tier %s looks at %s, in which no slice of %s may end: %s; cut shorter slices", t.Name, sla.Duration(looks), sla.Duration(slice), what)
		}
	}
}

// timeWindow reads the one time window of an SLO.
func (r *resolver) timeWindow() {
	if len(r.o.spec.Spec.TimeWindow) == 0 {
		r.window = sla.Window{Rolling: sla.NominalPeriod}
		r.warn(r.spec, "default", "timeWindow", "timeWindow is missing: rolling 30 days are taken; write it down")
		return
	}
	var err error
	if r.window, err = r.windowOf(r.o.spec.Spec.TimeWindow); err != nil {
		r.fail(r.spec, "time-window", "timeWindow", "%v", err)
	}
}

func (r *resolver) windowOf(list []timeWindow) (sla.Window, error) {
	if len(list) != 1 {
		return sla.Window{}, fmt.Errorf("an SLO needs exactly one timeWindow, this has %d", len(list))
	}
	tw := list[0]
	rolling := tw.Calendar == nil
	if tw.IsRolling != nil {
		rolling = *tw.IsRolling
	} else if rolling {
		r.warn(r.spec, "default", "timeWindow", "isRolling is missing, and so is a calendar: a rolling window is taken; write isRolling: true")
	}
	if tw.Duration == "" {
		return sla.Window{}, errors.New("the timeWindow needs a duration such as 30d")
	}
	n, err := strconv.Atoi(tw.Duration[:len(tw.Duration)-1])
	unit := tw.Duration[len(tw.Duration)-1:]
	if err != nil || n < 1 || n > 1000 {
		return sla.Window{}, fmt.Errorf("duration %q is not a number with a unit: 30d, 4w, 12h, or 1M, 1Q, 1Y of a calendar", tw.Duration)
	}
	if rolling {
		if tw.Calendar != nil {
			return sla.Window{}, errors.New("a rolling window has no calendar: take one out")
		}
		units := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
		u, ok := units[unit]
		if !ok {
			return sla.Window{}, fmt.Errorf("duration %q of a rolling window: use m, h, d or w (months have no one length)", tw.Duration)
		}
		length := time.Duration(n) * u
		if length < time.Hour || length > 366*24*time.Hour {
			return sla.Window{}, fmt.Errorf("a window of %s is out of range: 1 hour to 366 days", tw.Duration)
		}
		return sla.Window{Rolling: length}, nil
	}
	if tw.Calendar == nil || tw.Calendar.TimeZone == "" {
		return sla.Window{}, errors.New("a window that is not rolling needs calendar.timeZone (and isRolling: true is the other way)")
	}
	zone, err := time.LoadLocation(tw.Calendar.TimeZone)
	if err != nil || tw.Calendar.TimeZone == "Local" { // the same book gives the same figures on any host (R30)
		return sla.Window{}, fmt.Errorf("time zone %q is not known: use an IANA name such as Europe/Berlin", tw.Calendar.TimeZone)
	}
	units := map[string]string{"d": sla.Day, "w": sla.Week, "M": sla.Month, "Q": sla.Quarter, "Y": sla.Year}
	u, ok := units[unit]
	natural := n == 1 || u == sla.Month && 12%n == 0
	if !ok || n > 1 && !natural && tw.Calendar.StartTime == "" {
		return sla.Window{}, fmt.Errorf("duration %q of a calendar window: use 1d, 1w, 1M, 1Q or 1Y, or months that divide a year (2M, 3M, 4M, 6M), or say with calendar.startTime when one begins", tw.Duration)
	}
	w := sla.Window{Calendar: u, Count: n, Timezone: tw.Calendar.TimeZone}
	if tw.Calendar.StartTime == "" {
		return w, nil
	}
	start, err := time.ParseInLocation(sla.AnchorLayout, tw.Calendar.StartTime, zone)
	if err != nil || start.Second() != 0 || start.Year() < 1970 || start.Year() > 2100 {
		return sla.Window{}, fmt.Errorf("startTime %q is not a time of whole minutes from 1970 to 2100, such as 2026-01-01 00:00:00", tw.Calendar.StartTime)
	}
	if natural {
		if first, _, err := w.Bounds(sla.MinuteOf(start)); err == nil && first.Time().Equal(start) {
			return w, nil // windows begin there by themselves
		}
	}
	w.Anchor = tw.Calendar.StartTime
	if _, _, err := w.Bounds(sla.MinuteOf(start)); err != nil {
		return sla.Window{}, err
	}
	return w, nil
}
