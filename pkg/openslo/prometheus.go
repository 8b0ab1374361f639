package openslo

import (
	"bytes"
	"errors"
	"fmt"
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
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

type rule struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// Prometheus writes recording and alerting rules for the burn-rate tiers of
// each objective, as Prometheus' own rule file. Each ratio is one of sums over
// its whole window, never a mean of ratios (sloth #241). Prometheus
// extrapolates increases, so that its figures are estimates of ours. A query
// that is evaluated once a minute here is there, too: its minutes are added up.
// An SLO with groups makes one series for each of them.
func Prometheus(objectives []sla.Objective) ([]byte, error) {
	var file ruleFile
	names := map[string]bool{}
	for _, o := range objectives {
		g, err := ruleGroupOf(o)
		if err != nil {
			return nil, fmt.Errorf("rules of SLO %s: %w", o.SLO, err)
		}
		// Namespace a with SLO b-c reads like namespace a-b with SLO c, and
		// Prometheus refuses a file with two groups of one name.
		if names[g.Name] {
			g.Name += "-" + o.ID.String()
		}
		names[g.Name] = true
		file.Groups = append(file.Groups, g)
	}
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(file); err != nil {
		return nil, fmt.Errorf("write the rules: %w", err)
	}
	return buf.Bytes(), enc.Close()
}

func ruleGroupOf(o sla.Objective) (ruleGroup, error) {
	g := ruleGroup{Name: "slo-" + strings.Trim(o.Namespace+"-"+o.SLO+"-"+o.Name, "-")}
	labels := map[string]string{"slo": o.SLO, "objective": o.Name, "objective_id": o.ID.String(), "service": o.Service}
	if o.Namespace != "" {
		labels["slo_namespace"] = o.Namespace
	}
	with := func(extra ...string) map[string]string {
		out := map[string]string{}
		for k, v := range labels {
			out[k] = v
		}
		for i := 0; i < len(extra); i += 2 {
			out[extra[i]] = extra[i+1]
		}
		return out
	}
	ind, err := ParseSLI(o.SLI)
	if err != nil {
		return g, err
	}
	if len(o.Group) > 0 || o.Other {
		return g, errors.New("it is one group of an SLO: write the rules of the SLO, which hold all of its groups")
	}
	for _, l := range o.GroupBy {
		delete(labels, l) // a group's own value stands there
	}
	var windows []time.Duration
	for _, t := range sla.Tiers {
		windows = append(windows, t.Short, t.Long)
	}
	slices.Sort(windows)
	for _, w := range slices.Compact(windows) {
		name := sla.WindowName(w)
		part, total, zero := ind.Part.over(name, o.GroupBy), ind.Total.over(name, o.GroupBy), "vector(0)"
		if len(o.GroupBy) > 0 {
			zero = "0 * " + inner(ind.Total, total)
		}
		// Good events that have no series yet are none: all that happened is
		// bad, and an empty result would never page.
		expr := fmt.Sprintf("1 - ((%s or %s) / %s)", inner(ind.Part, part), zero, inner(ind.Total, total))
		if ind.Bad {
			// Likewise, no series of errors means no errors.
			expr = fmt.Sprintf("(%s or %s) / %s", inner(ind.Part, part), zero, inner(ind.Total, total))
		}
		g.Rules = append(g.Rules, rule{Record: ErrorRatioRecord, Expr: expr, Labels: with("window", sla.WindowName(w))})
	}
	period := o.Window.Rolling
	if period == 0 {
		period = 30 * 24 * time.Hour // the thresholds of a calendar month
	}
	title := o.Title
	if title == "" {
		title = o.SLO
	}
	title = strings.ReplaceAll(title, "{{", `{{"{{"}}`) // annotations are templates
	for _, t := range sla.Tiers {
		if !t.CanFire(o.Target, period) || t.Long > period {
			continue
		}
		limit := new(big.Rat).Mul(t.Threshold(period), o.Target.BudgetRat())
		side := func(w time.Duration) string {
			return fmt.Sprintf(`%s{objective_id=%q,window=%q} > %s`, ErrorRatioRecord, o.ID, sla.WindowName(w), plainDecimal(limit))
		}
		burn := sla.FloorDecimal(t.Threshold(period), 2)
		annotations := map[string]string{
			"summary": fmt.Sprintf("%s burns its error budget more than %s times as fast as it may", title, burn),
			"description": fmt.Sprintf("Both the last %s and the last %s are above the threshold of tier %s. The target is %s %% over %s.",
				sla.WindowName(t.Long), sla.WindowName(t.Short), t.Name, o.Target.Percent(), o.Window),
		}
		if strings.Contains(o.Runbook, "://") {
			annotations["runbook_url"] = o.Runbook
		}
		g.Rules = append(g.Rules, rule{
			Alert: "ErrorBudgetBurn",
			Expr:  fmt.Sprintf("%s\nand ignoring(window)\n%s", side(t.Long), side(t.Short)),
			// The recorded series carry the objective's labels already.
			Labels:      map[string]string{"severity": t.Severity, "burn_tier": t.Name},
			Annotations: annotations,
		})
	}
	return g, nil
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
