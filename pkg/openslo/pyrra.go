package openslo

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

const pyrraAPI = "pyrra.dev/v1alpha1"

// pyrraPrefix begins the labels and annotations that Pyrra puts on its series
// and alerts.
const pyrraPrefix = "pyrra.dev/"

type pyrraMetric struct {
	Metric string `yaml:"metric"`
}

type pyrraDocument struct {
	APIVersion string       `yaml:"apiVersion"`
	Kind       string       `yaml:"kind"`
	Metadata   kubeMetadata `yaml:"metadata"`
	Spec       struct {
		Description string `yaml:"description"`
		Target      string `yaml:"target"`
		Window      string `yaml:"window"`
		Indicator   struct {
			Ratio *struct {
				Errors   *pyrraMetric `yaml:"errors"`
				Success  *pyrraMetric `yaml:"success"`
				Total    pyrraMetric  `yaml:"total"`
				Grouping []string     `yaml:"grouping"`
			} `yaml:"ratio"`
			Latency *struct {
				Success  pyrraMetric `yaml:"success"`
				Total    pyrraMetric `yaml:"total"`
				Grouping []string    `yaml:"grouping"`
			} `yaml:"latency"`
			LatencyNative *struct {
				Total    pyrraMetric `yaml:"total"`
				Latency  string      `yaml:"latency"`
				Grouping []string    `yaml:"grouping"`
			} `yaml:"latencyNative"`
			BoolGauge *struct {
				Metric   string   `yaml:"metric"`
				Grouping []string `yaml:"grouping"`
			} `yaml:"bool_gauge"`
		} `yaml:"indicator"`
		Alerting struct {
			Disabled     *bool             `yaml:"disabled"`
			Burnrates    *bool             `yaml:"burnrates"`
			Absent       *bool             `yaml:"absent"`
			Name         string            `yaml:"name"`
			AbsentName   string            `yaml:"absentName"`
			Labels       map[string]string `yaml:"labels"`
			Annotations  map[string]string `yaml:"annotations"`
			Severities   any               `yaml:"severities"`
			BurnRateType string            `yaml:"burnRateType"`
		} `yaml:"alerting"`
		PartialResponse any `yaml:"partial_response_strategy"`
		RuleNamespace   any `yaml:"rulenamespace"`
		Performance     any `yaml:"performanceOverAccuracy"`
	} `yaml:"spec"`
	Status any `yaml:"status"`
}

// pyrra converts one ServiceLevelObjective.
func (im *importer) pyrra(d strictyaml.Document) error {
	var p pyrraDocument
	if err := d.Decode(&p); err != nil {
		return err
	}
	m, spec := p.Metadata, p.Spec
	at := func(path ...string) *yaml.Node { return d.Find(append([]string{"spec"}, path...)...) }
	if err := im.bounded(d, d.Node); err != nil {
		return err
	}
	if m.Name == "" {
		return d.Errorf(d.Find("metadata", "name"), "metadata.name is missing")
	}
	target, err := sla.ParseTargetPercent(spec.Target)
	if err != nil {
		im.note("target", at("target"), "SLO %q is left out: its target as a percentage: %v", m.Name, err)
		return nil
	}
	if target.Rat().Cmp(onePercent) < 0 {
		im.note("target", at("target"), "the target is %s %%: Pyrra's targets are percentages, so that 99.9 is meant where 0.999 is written", target.Percent())
	}
	window, err := pyrraWindow(spec.Window)
	if err != nil {
		im.note("time-window", at("window"), "SLO %q is left out: its window: %v", m.Name, err)
		return nil
	}
	out := draft{
		namespace: m.Namespace, name: m.Name, description: spec.Description, target: target, window: window,
		indicatorName: m.Name, labels: map[string]string{}, annotations: map[string]string{},
	}
	for k, v := range m.Labels {
		if own, ok := strings.CutPrefix(k, pyrraPrefix); ok {
			out.labels[own] = v
		}
	}
	im.objectLabels(d, m, func(k string) bool { return strings.HasPrefix(k, pyrraPrefix) })
	ms, ok := im.pyrraIndicator(d, p, &out)
	if !ok {
		return nil
	}
	out.service = im.pyrraService(d, m, ms)
	im.pyrraAlerting(d, p, &out)
	return im.write(out)
}

// pyrraIndicator fills the ratio and the grouping, and returns the matchers of
// the total. It reports false where nothing is left that can be counted.
func (im *importer) pyrraIndicator(d strictyaml.Document, p pyrraDocument, out *draft) (total []*labels.Matcher, ok bool) {
	at := func(path ...string) *yaml.Node { return d.Find(append([]string{"spec", "indicator"}, path...)...) }
	i := p.Spec.Indicator
	var kinds []string
	for kind, has := range map[string]bool{"ratio": i.Ratio != nil, "latency": i.Latency != nil, "latencyNative": i.LatencyNative != nil, "bool_gauge": i.BoolGauge != nil} {
		if has {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	if len(kinds) != 1 {
		im.note("indicator", at(), "SLO %q is left out: want one of ratio, latency, latencyNative and bool_gauge as its indicator, got %d", p.Metadata.Name, len(kinds))
		return nil, false
	}
	kind := kinds[0]
	// take reads one metric, which is a selector and no more.
	take := func(text string, path ...string) (string, []*labels.Matcher) {
		n := at(append([]string{kind}, path...)...)
		sel, ms, offset, err := selectorOf(text)
		if err != nil {
			im.note("not-a-counter", n, "SLO %q is left out: %v", p.Metadata.Name, err)
			return "", nil
		}
		if offset {
			im.note(notCarriedOver, n, "offset and @ are not carried over: each sample is counted at its own time, and one that comes late corrects its minute")
		}
		return sel, ms
	}
	rate := func(sel string) string { return "sum(rate(" + sel + "[" + windowTaken + "]))" }
	var grouping []string
	var whole string
	switch kind {
	case "ratio":
		grouping = i.Ratio.Grouping
		side, part, key := "bad", i.Ratio.Errors, "errors"
		if i.Ratio.Success != nil {
			side, part, key = "good", i.Ratio.Success, "success"
		}
		if part == nil || i.Ratio.Errors != nil && i.Ratio.Success != nil {
			im.note("indicator", at("ratio"), "SLO %q is left out: a ratio has errors (or success) and total", p.Metadata.Name)
			return nil, false
		}
		var sel string
		sel, _ = take(part.Metric, key, "metric")
		whole, total = take(i.Ratio.Total.Metric, "total", "metric")
		if sel != "" && whole != "" {
			out.ratio = ratioOf(side, rate(sel), rate(whole))
		}
	case "latency":
		grouping = i.Latency.Grouping
		var sel string
		sel, _ = take(i.Latency.Success.Metric, "success", "metric")
		whole, total = take(i.Latency.Total.Metric, "total", "metric")
		if sel != "" && whole != "" {
			out.ratio = ratioOf("good", rate(sel), rate(whole))
		}
	case "latencyNative":
		grouping = i.LatencyNative.Grouping
		whole, total = take(i.LatencyNative.Total.Metric, "total", "metric")
		limit, err := model.ParseDuration(strings.TrimSpace(i.LatencyNative.Latency))
		if err != nil || limit <= 0 {
			im.note("latency", at("latencyNative", "latency"), "SLO %q is left out: latency is %q, want a duration above 0 such as 200ms", p.Metadata.Name, i.LatencyNative.Latency)
			return nil, false
		}
		if whole != "" {
			count := "histogram_count(" + rate(whole) + ")"
			seconds := strconv.FormatFloat(time.Duration(limit).Seconds(), 'g', -1, 64)
			out.ratio = ratioOf("good", "histogram_fraction(0, "+seconds+", "+rate(whole)+") * "+count, count)
		}
	case "bool_gauge":
		grouping = i.BoolGauge.Grouping
		whole, total = take(i.BoolGauge.Metric, "metric")
	}
	if whole == "" || kind != "bool_gauge" && out.ratio == nil {
		return nil, false
	}
	by, err := pyrraGrouping(grouping)
	if err != nil {
		im.note(notCarriedOver, at(kind, "grouping"), "the SLO is of all series together: %v", err)
	}
	if len(by) > 0 {
		out.annotations[AnnotationGroupBy] = strings.Join(by, ",")
	}
	if kind == "bool_gauge" {
		of := func(op string) string {
			if len(by) > 0 {
				op += " by (" + strings.Join(by, ", ") + ") "
			}
			return op + "(" + whole + ") / 60"
		}
		out.ratio = ratioOf("good", of("sum"), of("count"))
		out.measures = "Each series is one event a minute, good where it is 1: a value is events per second, hence the 60."
		im.note("sampled", at(kind, "metric"), "the gauge is read once a minute, not at each scrape: what changes and changes back within a minute is not seen, and such minutes cannot decide event credits")
	}
	return total, true
}

// selectorOf reads a metric of Pyrra: a selector, which may have an offset.
func selectorOf(text string) (sel string, ms []*labels.Matcher, offset bool, err error) {
	expr, err := promql.ParseExpr(text)
	if err != nil {
		return "", nil, false, fmt.Errorf("metric is not valid PromQL: %w", err)
	}
	v, ok := unwrap(expr).(*parser.VectorSelector)
	if !ok {
		return "", nil, false, fmt.Errorf("metric %q is not a selector, and Pyrra takes no other: write metric{label=\"value\"}", text)
	}
	return selector(v.LabelMatchers), v.LabelMatchers, v.OriginalOffset != 0 || v.Timestamp != nil || v.StartOrEnd != 0, nil
}

// pyrraGrouping returns the labels that an SLO can be grouped by here.
func pyrraGrouping(grouping []string) ([]string, error) {
	var by []string
	for _, l := range grouping {
		if slices.Contains(by, l) {
			continue
		}
		by = append(by, l)
		if !groupLabel.MatchString(l) || strings.Contains(l, ".") || strings.HasPrefix(l, "__") || slices.Contains(ownLabels, l) {
			return nil, fmt.Errorf("label %q of grouping is a label of the figures themselves, or no plain name: take it out", l)
		}
	}
	if len(by) > maxGroupLabels {
		return nil, fmt.Errorf("grouping has %d labels, want at most %d", len(by), maxGroupLabels)
	}
	return by, nil
}

// pyrraService finds the service, which an SLO needs and Pyrra does not know.
func (im *importer) pyrraService(d strictyaml.Document, m kubeMetadata, total []*labels.Matcher) string {
	for _, k := range []string{pyrraPrefix + "service", "app.kubernetes.io/name"} {
		if v := m.Labels[k]; v != "" {
			return v
		}
	}
	service, from := m.Name, "the SLO's name"
	for _, name := range []string{"job", "service"} { // the last one found is nearest
		for _, l := range total {
			if l.Name == name && l.Type == labels.MatchEqual && l.Value != "" {
				service, from = l.Value, "label "+name+" of its total"
			}
		}
	}
	im.note("service", d.Find("metadata", "name"), "Pyrra knows no service: spec.service is %q, from %s; correct it, or label the object %sservice", service, from, pyrraPrefix)
	return service
}

func (im *importer) pyrraAlerting(d strictyaml.Document, p pyrraDocument, out *draft) {
	at := func(path ...string) *yaml.Node { return d.Find(append([]string{"spec"}, path...)...) }
	a, m := p.Spec.Alerting, p.Metadata
	var left []string
	notes := map[string]string{}
	for k, v := range m.Annotations {
		if own, ok := strings.CutPrefix(k, pyrraPrefix); ok {
			notes[own] = v
		}
	}
	runbook, rest := runbookOf(merged(notes, a.Annotations))
	for _, k := range rest {
		if v, ok := notes[k]; ok && a.Annotations[k] == "" {
			out.annotations[pyrraPrefix+k] = v // kept for people; alerts have their own
		}
		left = append(left, k)
	}
	if runbook != "" {
		out.annotations[AnnotationRunbook] = runbook
	}
	if len(left) > 0 {
		n := at("alerting", "annotations")
		if len(a.Annotations) == 0 {
			n = d.Find("metadata", "annotations")
		}
		im.note(notCarriedOver, n, "alerts have annotations of their own; these are not on them: %s", strings.Join(left, ", "))
	}
	im.sloLabels(d.Find("metadata", "labels"), out.labels)
	if team := im.team(at("alerting", "labels"), a.Labels, out.labels); team != "" {
		out.annotations[AnnotationTeam] = team
	}
	off := a.Disabled != nil && *a.Disabled
	for _, w := range []struct {
		has  bool
		path []string
		text string
	}{
		{off, []string{"alerting", "disabled"}, fmt.Sprintf("alerts cannot be switched off for one SLO: silence slo=%q in Alertmanager, or give it a route that goes nowhere", m.Name)},
		{!off && a.Burnrates != nil && !*a.Burnrates, []string{"alerting", "burnrates"}, fmt.Sprintf("burn-rate alerts cannot be switched off for one SLO: silence slo=%q, alertname=\"ErrorBudgetBurn\" in Alertmanager", m.Name)},
		{!off && a.Absent != nil && !*a.Absent, []string{"alerting", "absent"}, fmt.Sprintf("ObjectiveUnseen fires where nothing tells how an objective does, and cannot be switched off for one SLO: silence slo=%q, alertname=\"ObjectiveUnseen\" in Alertmanager", m.Name)},
		{!off && a.Name != "", []string{"alerting", "name"}, fmt.Sprintf("alerts are named ErrorBudgetBurn; route by the labels slo, service and severity instead of alertname=%q", a.Name)},
		{!off && a.AbsentName != "", []string{"alerting", "absentName"}, fmt.Sprintf("the alert of an SLO that nothing is heard of is named ObjectiveUnseen; route by that instead of alertname=%q", a.AbsentName)},
		{a.Severities != nil, []string{"alerting", "severities"}, "severities are page and ticket here, by tier: map them in Alertmanager's routes with the labels severity and burn_tier"},
		{a.BurnRateType != "" && a.BurnRateType != "static", []string{"alerting", "burnRateType"}, "burn rates are compared with fixed thresholds: the tiers of the SRE workbook for the SLO's period"},
		{p.Spec.PartialResponse != nil, []string{"partial_response_strategy"}, "it is for a Thanos ruler, and nothing is asked of one here"},
		{p.Spec.RuleNamespace != nil, []string{"rulenamespace"}, "it is for a Mimir ruler, and there are no rules here"},
		{p.Spec.Performance != nil, []string{"performanceOverAccuracy"}, "sums are exact and cost the same for each window, so that there is nothing to trade"},
	} {
		if w.has {
			im.note(notCarriedOver, at(w.path...), "%s", w.text)
		}
	}
}

// pyrraUnit is a duration that OpenSLO writes the same.
var pyrraUnit = regexp.MustCompile(`^[1-9][0-9]{0,2}[mhdw]$`)

var onePercent = big.NewRat(1, 100)

// pyrraWindow writes a duration of Prometheus, as 4w or 1d12h, with one unit.
func pyrraWindow(text string) (string, error) {
	text = strings.TrimSpace(text)
	d, err := model.ParseDuration(text)
	if err != nil {
		return "", err
	}
	length := time.Duration(d)
	if length < time.Hour || length > 366*24*time.Hour {
		return "", fmt.Errorf("%s is out of range: 1 hour to 366 days", text)
	}
	if pyrraUnit.MatchString(text) {
		return text, nil
	}
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if n := length / u.unit; length%u.unit == 0 && n <= 1000 {
			return fmt.Sprintf("%d%s", n, u.name), nil
		}
	}
	return "", fmt.Errorf("%s cannot be written as up to 1,000 days, hours or minutes", text)
}
