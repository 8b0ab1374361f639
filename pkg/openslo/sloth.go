package openslo

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

// The two formats of Sloth.
const (
	slothVersion = "prometheus/v1"
	slothAPI     = "sloth.slok.dev/v1"
)

// slothPeriod is the period that Sloth takes where no option says another.
const slothPeriod = "30d"

// slothAlert is the alert of one severity, alike in both formats.
type slothAlert struct {
	Disable     bool              `yaml:"disable"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// slothSLO is an SLO of a prometheus/v1 file.
type slothSLO struct {
	Name        string            `yaml:"name"`
	Description string            `yaml:"description"`
	Objective   decimal           `yaml:"objective"`
	Labels      map[string]string `yaml:"labels"`
	Infos       map[string]string `yaml:"infos"`
	InfoLabels  map[string]string `yaml:"infoLabels"`
	SLI         struct {
		Events *struct {
			Error string `yaml:"error_query"`
			Total string `yaml:"total_query"`
		} `yaml:"events"`
		Raw *struct {
			ErrorRatio string `yaml:"error_ratio_query"`
		} `yaml:"raw"`
		Plugin any `yaml:"plugin"`
	} `yaml:"sli"`
	Alerting struct {
		Name        string            `yaml:"name"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
		Page        slothAlert        `yaml:"page_alert"`
		Ticket      slothAlert        `yaml:"ticket_alert"`
	} `yaml:"alerting"`
	Interval any `yaml:"interval"`
	Plugins  any `yaml:"plugins"`
}

type slothFile struct {
	Version string            `yaml:"version"`
	Service string            `yaml:"service"`
	Labels  map[string]string `yaml:"labels"`
	Plugins any               `yaml:"slo_plugins"`
	SLOs    []slothSLO        `yaml:"slos"`
}

// serviceLevelSLO is slothSLO with the keys of the Kubernetes kind: a value of
// one converts into the other.
type serviceLevelSLO struct {
	Name        string            `yaml:"name"`
	Description string            `yaml:"description"`
	Objective   decimal           `yaml:"objective"`
	Labels      map[string]string `yaml:"labels"`
	Infos       map[string]string `yaml:"infos"`
	InfoLabels  map[string]string `yaml:"infoLabels"`
	SLI         struct {
		Events *struct {
			Error string `yaml:"errorQuery"`
			Total string `yaml:"totalQuery"`
		} `yaml:"events"`
		Raw *struct {
			ErrorRatio string `yaml:"errorRatioQuery"`
		} `yaml:"raw"`
		Plugin any `yaml:"plugin"`
	} `yaml:"sli"`
	Alerting struct {
		Name        string            `yaml:"name"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
		Page        slothAlert        `yaml:"pageAlert"`
		Ticket      slothAlert        `yaml:"ticketAlert"`
	} `yaml:"alerting"`
	Interval any `yaml:"interval"`
	Plugins  any `yaml:"plugins"`
}

type serviceLevel struct {
	APIVersion string       `yaml:"apiVersion"`
	Kind       string       `yaml:"kind"`
	Metadata   kubeMetadata `yaml:"metadata"`
	Spec       struct {
		Service string            `yaml:"service"`
		Labels  map[string]string `yaml:"labels"`
		Plugins any               `yaml:"sloPlugins"`
		SLOs    []serviceLevelSLO `yaml:"slos"`
	} `yaml:"spec"`
	Status any `yaml:"status"`
}

// slothKeys are the keys that differ between the formats.
type slothKeys struct{ err, total, raw, page, ticket, plugins string }

var (
	fileKeys = slothKeys{"error_query", "total_query", "error_ratio_query", "page_alert", "ticket_alert", "slo_plugins"}
	kubeKeys = slothKeys{"errorQuery", "totalQuery", "errorRatioQuery", "pageAlert", "ticketAlert", "sloPlugins"}
)

func (im *importer) slothFile(d strictyaml.Document) error {
	var f slothFile
	if err := d.Decode(&f); err != nil {
		return err
	}
	return im.slothSLOs(slothScope{d: d, keys: fileKeys, service: f.Service, labels: f.Labels}, f.Plugins, f.SLOs)
}

func (im *importer) serviceLevel(d strictyaml.Document) error {
	var s serviceLevel
	if err := d.Decode(&s); err != nil {
		return err
	}
	im.objectLabels(d, s.Metadata, func(string) bool { return false })
	slos := make([]slothSLO, 0, len(s.Spec.SLOs))
	for _, o := range s.Spec.SLOs {
		slos = append(slos, slothSLO(o))
	}
	return im.slothSLOs(slothScope{
		d: d, below: []string{"spec"}, keys: kubeKeys, namespace: s.Metadata.Namespace, service: s.Spec.Service, labels: s.Spec.Labels,
	}, s.Spec.Plugins, slos)
}

// slothScope is what the SLOs of a document share.
type slothScope struct {
	d                  strictyaml.Document
	below              []string // where slos stands
	keys               slothKeys
	namespace, service string
	labels             map[string]string
}

func (s slothScope) at(path ...string) *yaml.Node { return s.d.Find(slices.Concat(s.below, path)...) }

func (im *importer) slothSLOs(s slothScope, plugins any, slos []slothSLO) error {
	if s.service == "" {
		return s.d.Errorf(s.at("service"), "service is missing: Sloth needs it, and so does an SLO")
	}
	if plugins != nil {
		im.note(notCarriedOver, s.at(s.keys.plugins), "SLO plugins change the rules that Sloth writes; they are not carried over")
	}
	im.sloLabels(s.at("labels"), s.labels)
	for i, o := range slos {
		if err := im.slothSLO(s, fmt.Sprint(i), o); err != nil {
			return err
		}
	}
	return nil
}

func (im *importer) slothSLO(s slothScope, index string, o slothSLO) error {
	at := func(path ...string) *yaml.Node { return s.at(append([]string{"slos", index}, path...)...) }
	if err := im.bounded(s.d, at()); err != nil {
		return err
	}
	if o.Name == "" {
		im.note("name", at(), "an SLO without a name is left out: give it one")
		return nil
	}
	target, err := sla.ParseTargetPercent(string(o.Objective))
	if err != nil {
		im.note("target", at("objective"), "SLO %q is left out: its objective as a percentage: %v", o.Name, err)
		return nil
	}
	out := draft{
		namespace: s.namespace, name: s.service + "-" + o.Name, title: s.service + ": " + o.Name, service: s.service,
		description: o.Description, annotations: map[string]string{}, target: target, window: slothPeriod, indicatorName: s.service + "-" + o.Name,
	}
	if out.ratio = im.slothSLI(s, at, o); out.ratio == nil {
		return nil
	}
	im.slothAlerting(s, at, o, &out)
	for k, v := range merged(o.InfoLabels, o.Infos) {
		out.annotations["sloth.slok.dev/"+k] = v
	}
	for _, left := range []struct {
		key, why string
		has      bool
	}{
		{"interval", "each sample is evaluated as it arrives, so that there is no interval of rules to carry over", o.Interval != nil},
		{"plugins", "SLO plugins change the rules that Sloth writes; they are not carried over", o.Plugins != nil},
	} {
		if left.has {
			im.note(notCarriedOver, at(left.key), "%s", left.why)
		}
	}
	return im.write(out)
}

// slothSLI returns the ratioMetric, nil where nothing is left to be counted.
func (im *importer) slothSLI(s slothScope, at func(...string) *yaml.Node, o slothSLO) map[string]any {
	switch sli := o.SLI; {
	case sli.Plugin != nil:
		im.note(notCarriedOver, at("sli", "plugin"), "SLO %q is left out: its SLI is made by a plugin; write the queries that it makes as events, as sloth generate prints them", o.Name)
	case sli.Events != nil && sli.Raw != nil:
		im.note("sli", at("sli", "raw"), "SLO %q is left out: it has events and raw, and Sloth takes one of them: take one out", o.Name)
	case sli.Events != nil:
		bad, total := inWindow(sli.Events.Error), inWindow(sli.Events.Total)
		side, part, total := slothEvents(bad, total)
		ok := im.query(at("sli", "events", s.keys.err), side, part)
		if im.query(at("sli", "events", s.keys.total), "total", total) && ok {
			return ratioOf(side, part, total)
		}
		im.note("not-a-counter", at("sli", "events"), "SLO %q is left out: correct its queries", o.Name)
	case sli.Raw != nil:
		n, text := at("sli", "raw", s.keys.raw), inWindow(sli.Raw.ErrorRatio)
		if _, err := ParseQuery(text); err != nil {
			im.note("not-a-counter", n, "SLO %q is left out: its ratio: %v", o.Name, err)
			return nil
		}
		im.note("mean-of-ratios", n, "a ratio is observed once a minute and each observation weighs the same, whatever the traffic: an hour with few events counts as one with many; give error and total queries where they exist")
		return map[string]any{"counter": false, "rawType": "failure", "raw": promSource(text)}
	default:
		im.note("sli", at("sli"), "SLO %q is left out: its sli has neither events nor raw nor plugin", o.Name)
	}
	return nil
}

// slothAlerting carries over the labels of the SLO, and of its alerts the team
// and the runbook.
func (im *importer) slothAlerting(s slothScope, at func(...string) *yaml.Node, o slothSLO, out *draft) {
	a := o.Alerting
	out.labels = merged(s.labels, o.Labels)
	im.sloLabels(at("labels"), o.Labels)
	if team := im.team(at("alerting", "labels"), a.Labels, out.labels); team != "" {
		out.annotations[AnnotationTeam] = team
	}
	if a.Name != "" && !(a.Page.Disable && a.Ticket.Disable) {
		im.note(notCarriedOver, at("alerting", "name"), "alerts are named ErrorBudgetBurn; route by the labels slo, service and severity instead of alertname=%q", a.Name)
	}
	runbook, rest := runbookOf(a.Annotations)
	if len(rest) > 0 {
		im.note(notCarriedOver, at("alerting", "annotations"), "alerts have annotations of their own; these are not carried over: %s", strings.Join(rest, ", "))
	}
	for _, t := range []struct {
		key, severity string
		alert         slothAlert
	}{{s.keys.page, "page", a.Page}, {s.keys.ticket, "ticket", a.Ticket}} {
		if t.alert.Disable {
			im.note(notCarriedOver, at("alerting", t.key, "disable"), "alerts cannot be switched off for one SLO: silence slo=%q, severity=%q in Alertmanager, or give it a route that goes nowhere", out.name, t.severity)
			continue
		}
		if len(t.alert.Labels) > 0 {
			im.note(notCarriedOver, at("alerting", t.key, "labels"), "labels of one severity are not carried over: its alerts have severity=%q, route by that; left out are %s", t.severity, strings.Join(slices.Sorted(maps.Keys(t.alert.Labels)), ", "))
		}
		own, rest := runbookOf(t.alert.Annotations)
		if runbook == "" {
			runbook = own
		} else if own != "" && own != runbook {
			rest = append(rest, "a second runbook")
		}
		if len(rest) > 0 {
			im.note(notCarriedOver, at("alerting", t.key, "annotations"), "alerts have annotations of their own; these are not carried over: %s", strings.Join(rest, ", "))
		}
	}
	if runbook != "" {
		out.annotations[AnnotationRunbook] = runbook
	}
}

// slothWindow is the placeholder that Sloth replaces by each window.
var slothWindow = regexp.MustCompile(`\{\{-?\s*\.window\s*-?\}\}`)

// windowTaken stands for the placeholder. Counters are counted sample by sample
// whatever the window is; of what is observed once a minute, five minutes hold
// enough samples of any usual scrape interval.
const (
	windowTaken  = "5m"
	windowLength = 5 * time.Minute
)

func inWindow(query string) string {
	return strings.TrimSpace(slothWindow.ReplaceAllString(query, windowTaken))
}

// slothEvents looks for what people write around counters because Sloth divides
// two queries, and takes it away, so that the counters inside are counted:
//
//	errors or vector(0)             no series of errors means no errors here
//	total - good, beside total      good events
//	sum_over_time((x)[window:])     x, once a minute, where both sides are so;
//	                                x / 60, as a value is events per second
func slothEvents(bad, total string) (side, part, whole string) {
	b, err1 := promql.ParseExpr(bad)
	w, err2 := promql.ParseExpr(total)
	if err1 != nil || err2 != nil {
		return "bad", bad, total
	}
	print := func(before, now parser.Expr, text string) string {
		if before == now {
			return text // as it was written
		}
		return now.String()
	}
	b1, w1 := withoutZero(b), withoutZero(w)
	if x, ok := eachMinute(b1); ok {
		if y, ok := eachMinute(w1); ok {
			b1, w1 = withoutZero(x), withoutZero(y)
			if !counts(b1.String()) || !counts(w1.String()) {
				return "bad", "(" + b1.String() + ") / 60", "(" + w1.String() + ") / 60"
			}
		}
	}
	if sub, ok := unwrap(b1).(*parser.BinaryExpr); ok && sub.Op == parser.SUB && plainMatching(sub.VectorMatching) && unwrap(sub.LHS).String() == unwrap(w1).String() {
		if good := unwrap(withoutZero(sub.RHS)); counts(good.String()) {
			return "good", good.String(), print(w, w1, total)
		}
	}
	return "bad", print(b, b1, bad), print(w, w1, total)
}

// withoutZero takes "or vector(0)" off an expression.
func withoutZero(e parser.Expr) parser.Expr {
	or, ok := unwrap(e).(*parser.BinaryExpr)
	if !ok || or.Op != parser.LOR {
		return e
	}
	zero, ok := callOf(or.RHS, "vector", 1)
	if !ok {
		return e
	}
	if v, ok := number(zero.Args[0]); !ok || v != 0 {
		return e
	}
	return unwrap(or.LHS)
}

// eachMinute returns x of sum_over_time((x)[window:]).
func eachMinute(e parser.Expr) (parser.Expr, bool) {
	call, ok := callOf(e, "sum_over_time", 1)
	if !ok {
		return nil, false
	}
	sub, ok := unwrap(call.Args[0]).(*parser.SubqueryExpr)
	if !ok || sub.Range != windowLength || sub.OriginalOffset != 0 || sub.Timestamp != nil || sub.StartOrEnd != 0 {
		return nil, false
	}
	return unwrap(sub.Expr), true
}
