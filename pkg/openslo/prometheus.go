package openslo

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
)

// ErrorRatioRecord is the name of the recording rules: the error ratio of an
// objective over the window that the label window names.
const ErrorRatioRecord = "slo:sli_error:ratio"

type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name     string `yaml:"name"`
	Interval string `yaml:"interval,omitempty"`
	Rules    []rule `yaml:"rules"`
}

type rule struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// periodInterval is how often the ratio over a whole period is computed: it
// reads all samples of the period, so seldom, but twice within the five minutes
// for which Prometheus takes a sample for the present one.
const periodInterval = "2m30s"

// Prometheus writes recording and alerting rules for what can fire of each
// objective, as Prometheus' own rule file: the burn-rate tiers, or the alert
// policies of its own. Each ratio is one of sums over its whole window, never a
// mean of ratios (sloth #241). Prometheus extrapolates increases, so that its
// figures are estimates of ours. What is evaluated once a minute here is there,
// too: its minutes are added up. An SLO with groups makes one series for each of
// them. An objective that rules cannot express, a composite, is an error.
func Prometheus(objectives []sla.Objective) ([]byte, error) {
	rules, notes, err := PrometheusWith(objectives)
	if err == nil && len(notes) > 0 {
		return nil, errors.New(strings.Join(notes, "; "))
	}
	return rules, err
}

// PrometheusWith writes the same rules, and beside them those series that the
// Grafana dashboards of other tools read, so that these go on working. notes
// says, a line each, which objectives have no rules, or no series for such a
// tool.
func PrometheusWith(objectives []sla.Objective, dashboards ...Dashboards) (rules []byte, notes []string, err error) {
	for _, d := range dashboards {
		if !slices.Contains(AllDashboards, d) {
			return nil, nil, fmt.Errorf("there are no rules for the dashboards of %q: want %s or %s", d, SlothDashboards, PyrraDashboards)
		}
	}
	var file ruleFile
	groups := map[string]bool{}
	foreign := newForeignNames(objectives)
	known := map[sla.ID]sla.Objective{}
	for _, o := range objectives {
		known[o.ID] = o
	}
	for _, o := range objectives {
		if o.Inner {
			continue // its events are in the rules of those that it feeds
		}
		if len(o.SLI.Parts) > 0 && !isSliced(o) {
			notes = append(notes, fmt.Sprintf("SLO %s: objective %s is put together from the minutes of others, which no rule can do: it is left out, its parts are there", o.SLO, o.Name))
			continue
		}
		made, err := ruleGroupsOf(o, known, dashboards, foreign)
		if err != nil {
			return nil, nil, fmt.Errorf("rules of SLO %s: %w", o.SLO, err)
		}
		if slices.Contains(dashboards, PyrraDashboards) && len(o.GroupBy) > 0 {
			notes = append(notes, fmt.Sprintf("SLO %s has an objective for each %s: Pyrra's dashboards know one figure for each SLO, so that it has no series for them", o.SLO, strings.Join(o.GroupBy, ", ")))
		}
		for _, g := range made {
			// Namespace a with SLO b-c reads like namespace a-b with SLO c, and
			// Prometheus refuses a file with two groups of one name.
			if groups[g.Name] {
				g.Name += "-" + o.ID.String()
			}
			groups[g.Name] = true
			file.Groups = append(file.Groups, g)
		}
	}
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(file), enc.Close()); err != nil {
		return nil, nil, fmt.Errorf("write the rules: %w", err)
	}
	return buf.Bytes(), notes, nil
}

// isSliced reports whether an objective makes time slices of another one.
func isSliced(o sla.Objective) bool {
	return len(o.SLI.Parts) == 1 && o.SLI.Slices != nil && o.SLI.Combine == ""
}

// errorRatio returns PromQL for the error ratio of an objective over a window.
func errorRatio(o sla.Objective, known map[sla.ID]sla.Objective) (func(window time.Duration) string, error) {
	if !isSliced(o) {
		return unslicedRatio(o)
	}
	events, ok := known[o.SLI.Parts[0].Objective]
	if !ok {
		return nil, errors.New("the events of its slices are not among the objectives")
	}
	ratio, err := unslicedRatio(events)
	if err != nil {
		return nil, err
	}
	s := o.SLI.Slices
	slice := time.Duration(s.Minutes) * time.Minute
	bad := "(" + ratio(slice) + ")"
	if s.Ratio {
		bad = "(" + bad + " >= 0)" // 0/0, a slice without events, has no ratio
	} else {
		// A slice without events is good: no comparison with 0/0 holds.
		bad = fmt.Sprintf("((1 - %s) < bool %s)", bad, s.Target)
	}
	// Slices tile a day, and so do the steps of a subquery.
	return func(window time.Duration) string {
		return fmt.Sprintf("avg_over_time(%s[%s:%s])", bad, sla.WindowName(max(window, slice)), sla.WindowName(slice))
	}, nil
}

// comparisons are the operators of a threshold in PromQL.
var comparisons = map[string]string{"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}

// unslicedRatio is errorRatio of an objective that has samples of its own.
func unslicedRatio(o sla.Objective) (func(window time.Duration) string, error) {
	// Each series is one observation a minute.
	observed := func(expr string, bad bool) func(time.Duration) string {
		return func(window time.Duration) string {
			of := bracketed(expr) + "[" + sla.WindowName(window) + ":1m]"
			mean := aggregated("sum", o.GroupBy, "sum_over_time("+of+")") + " / " + aggregated("sum", o.GroupBy, "count_over_time("+of+")")
			if bad {
				return mean
			}
			return "1 - " + mean
		}
	}
	switch s := o.SLI; {
	case s.Raw != "":
		return observed(s.Raw, s.RawBad), nil
	case s.Value != "":
		op, ok := comparisons[s.Op]
		if !ok {
			return nil, fmt.Errorf("op is %q, want lt, lte, gt or gte", s.Op)
		}
		return observed(bracketed(s.Value)+" "+op+" bool "+s.Limit, false), nil
	}
	ind, err := ParseSLI(o.SLI)
	if err != nil {
		return nil, err
	}
	return func(window time.Duration) string {
		name := sla.WindowName(window)
		part, total, zero := ind.Part.over(name, o.GroupBy), ind.Total.over(name, o.GroupBy), "vector(0)"
		if len(o.GroupBy) > 0 {
			zero = "0 * " + inner(ind.Total, total)
		}
		if ind.Bad {
			// No series of errors means no errors.
			return fmt.Sprintf("(%s or %s) / %s", inner(ind.Part, part), zero, inner(ind.Total, total))
		}
		// Likewise, good events that have no series yet are none: all that
		// happened is bad, and an empty result would never page.
		return fmt.Sprintf("1 - ((%s or %s) / %s)", inner(ind.Part, part), zero, inner(ind.Total, total))
	}, nil
}

// bracketed puts an expression in brackets; it may end with a comment.
func bracketed(expr string) string {
	if strings.Contains(expr, "#") {
		return "(" + expr + "\n)"
	}
	return "(" + expr + ")"
}

func ruleGroupsOf(o sla.Objective, known map[sla.ID]sla.Objective, dashboards []Dashboards, foreign *foreignNames) ([]ruleGroup, error) {
	g := ruleGroup{Name: "slo-" + strings.Trim(o.Namespace+"-"+o.SLO+"-"+o.Name, "-")}
	labels := map[string]string{"slo": o.SLO, "objective": o.Name, "objective_id": o.ID.String(), "service": o.Service}
	if o.Namespace != "" {
		labels["slo_namespace"] = o.Namespace
	}
	with := func(extra ...string) map[string]string {
		out := maps.Clone(labels)
		for i := 0; i < len(extra); i += 2 {
			out[extra[i]] = extra[i+1]
		}
		return out
	}
	ratio, err := errorRatio(o, known)
	if err != nil {
		return nil, err
	}
	if len(o.Group) > 0 || o.Other {
		return nil, errors.New("it is one group of an SLO: write the rules of the SLO, which hold all of its groups")
	}
	for _, l := range o.GroupBy {
		delete(labels, l) // a group's own value stands there
	}
	windows := tierWindows()
	for _, p := range o.Policies {
		windows = append(windows, p.Lookback)
	}
	slices.Sort(windows)
	windows = slices.Compact(windows)
	for _, w := range windows {
		g.Rules = append(g.Rules, rule{Record: ErrorRatioRecord, Expr: ratio(w), Labels: with("window", sla.WindowName(w))})
	}
	var extra foreignRules
	if len(dashboards) > 0 {
		if extra, err = foreign.rules(o, dashboards); err != nil {
			return nil, err
		}
	}
	g.Rules = append(g.Rules, extra.current...)
	period := o.Window.Nominal()
	title := o.Title
	if title == "" {
		title = o.SLO
	}
	title = literal(title)
	for _, t := range o.Alarms(period) {
		limit := new(big.Rat).Mul(t.Threshold, o.Target.BudgetRat())
		op := ">"
		for _, p := range o.Policies {
			if p.Name == t.Name && p.AtLeast {
				op = ">="
			}
		}
		side := func(w time.Duration) string {
			return fmt.Sprintf(`%s %s %s`, recorded(o, w), op, plainDecimal(limit))
		}
		expr := fmt.Sprintf("%s\nand ignoring(window)\n%s", side(t.Long), side(t.Short))
		burn := sla.FloorDecimal(t.Threshold, 2)
		annotations := map[string]string{
			"summary": fmt.Sprintf("%s burns its error budget more than %s times as fast as it may", title, burn),
			"description": fmt.Sprintf("Both the last %s and the last %s are above the threshold of tier %s. The target is %s %% over %s.",
				sla.WindowName(t.Long), sla.WindowName(t.Short), t.Name, o.Target.Percent(), o.Window),
		}
		if t.Own {
			expr = side(t.Long)
			annotations["description"] = fmt.Sprintf("The last %s are above the threshold of alert policy %s. The target is %s %% over %s.",
				sla.WindowName(t.Long), literal(t.Name), o.Target.Percent(), o.Window)
		}
		if strings.Contains(o.Runbook, "://") {
			annotations["runbook_url"] = o.Runbook
		}
		// The recorded series carry the objective's labels already.
		alert := map[string]string{"severity": t.Severity, "burn_tier": t.Name}
		maps.Copy(alert, extra.alert(t.Severity))
		for k, v := range alert {
			alert[k] = literal(v)
		}
		r := rule{Alert: "ErrorBudgetBurn", Expr: expr, Labels: alert, Annotations: annotations}
		if t.After > 0 {
			r.For = sla.WindowName(t.After)
		}
		g.Rules = append(g.Rules, r)
	}
	if len(extra.period) == 0 {
		return []ruleGroup{g}, nil
	}
	p := ruleGroup{Name: g.Name + "-period", Interval: periodInterval}
	if whole := dashboardPeriod(o); !slices.Contains(windows, whole) {
		p.Rules = append(p.Rules, rule{Record: ErrorRatioRecord, Expr: ratio(whole), Labels: with("window", sla.WindowName(whole))})
	}
	p.Rules = append(p.Rules, extra.period...)
	return []ruleGroup{g, p}, nil
}

// literal keeps a text as it is where Prometheus expands templates: in labels and
// annotations of alerts.
func literal(text string) string { return strings.ReplaceAll(text, "{{", `{{"{{"}}`) }

// recorded selects what the rules record of an objective over a window.
func recorded(o sla.Objective, window time.Duration) string {
	return fmt.Sprintf(`%s{objective_id=%q,window=%q}`, ErrorRatioRecord, o.ID, sla.WindowName(window))
}

// tierWindows returns the windows of all tiers, each once, the shortest first.
func tierWindows() []time.Duration {
	var windows []time.Duration
	for _, t := range sla.Tiers {
		windows = append(windows, t.Short, t.Long)
	}
	slices.Sort(windows)
	return slices.Compact(windows)
}

// inner puts a product in brackets.
func inner(q Query, text string) string {
	if q.Kind == NativeFraction {
		return "(" + text + ")"
	}
	return text
}

// plainDecimal prints an exact decimal without trailing zeros; thresholds are
// products of decimals and have few digits.
func plainDecimal(r *big.Rat) string {
	s := sla.FloorDecimal(r, 18)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
