package openslo

import (
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// KPIKeys are the seven keys of running Kubernetes for a business, in their
// order:
//
//   - operations: availability, upgrades, patches, disaster recovery;
//   - monitoring: metrics and logs arrive, and what uses how much;
//   - registry: images and packages;
//   - cicd: what is delivered, how fast, and how often it fails;
//   - provisioning: nodes, load balancing, names, etcd;
//   - security: who may do what, certificates, admission;
//   - governance: who did what, and whether that is on record.
var KPIKeys = []string{"operations", "monitoring", "registry", "cicd", "provisioning", "security", "governance"}

// KPIRoles are the readers that a KPI can be for.
var KPIRoles = []string{"executive", "oncall", "operator", "application", "planner", "auditor"}

// KPIUnits are the units of a KPI's value.
var KPIUnits = []string{"ratio", "percent", "count", "seconds", "bytes", "cores", "per-second", "bytes-per-second"}

// KPISeverities are the severities of a threshold, the mildest first: info is
// shown, a ticket waits for working hours, a page does not wait.
var KPISeverities = []string{"info", "ticket", "page"}

// Directions of a KPI.
const (
	HigherIsBetter = "higher-is-better"
	LowerIsBetter  = "lower-is-better"
)

// KPI is a figure with thresholds and without a budget.
type KPI struct {
	Namespace, Name, Title string
	Labels                 map[string]string
	Key                    string // one of KPIKeys
	Question               string // that the figure answers
	Expression             string // PromQL, an instant vector or a scalar
	Unit                   string // one of KPIUnits
	Direction              string // HigherIsBetter or LowerIsBetter
	Thresholds             []Threshold
	Roles                  []string // of KPIRoles, at least one
	// Series are names that must be received for the figure to be; without them
	// it is misconfigured, or not exposed where the platform is in NotExposedBy.
	Series       []string
	NotExposedBy []string // platforms such as eks, lower case
	Runbook      string   // a URL, or a page of ours; may be empty
	SpecSHA256   string   // of the document, in hex
}

// Threshold is a value beyond which a KPI is bad: below it where higher is
// better, above it where lower is.
type Threshold struct {
	Value    *big.Rat
	Severity string // one of KPISeverities, each at most once in a KPI
	Reason   string // why this value
}

type kpiDocument struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       kpiSpec  `yaml:"spec"`
}

type kpiSpec struct {
	Key           string        `yaml:"key"`
	Title         string        `yaml:"title"`
	Question      string        `yaml:"question"`
	Expression    string        `yaml:"expression"`
	Unit          string        `yaml:"unit"`
	Direction     string        `yaml:"direction"`
	Thresholds    []threshold   `yaml:"thresholds"`
	Roles         []string      `yaml:"roles"`
	Applicability applicability `yaml:"applicability"`
	Runbook       string        `yaml:"runbook"`
}

type threshold struct {
	Value    decimal `yaml:"value"`
	Severity string  `yaml:"severity"`
	Reason   string  `yaml:"reason"`
}

type applicability struct {
	Series       []string `yaml:"series"`
	NotExposedBy []string `yaml:"notExposedBy"`
}

// kpi is one document while it is checked.
type kpi struct {
	checker
	doc  kpiDocument
	made KPI
}

func (s *Set) resolveKPIs() {
	for _, k := range s.nines.read.kpis {
		k.check()
		if !k.bad {
			s.nines.kpis = append(s.nines.kpis, k.made)
		}
	}
}

func (k *kpi) check() {
	m, spec := k.doc.Metadata, k.doc.Spec
	k.made = KPI{
		Namespace: m.Namespace, Name: m.Name, Title: spec.Title, Labels: labelled(m), Key: spec.Key, Question: strings.TrimSpace(spec.Question),
		Expression: strings.TrimSpace(spec.Expression), Unit: spec.Unit, Direction: spec.Direction, Roles: spec.Roles,
		Series: spec.Applicability.Series, NotExposedBy: spec.Applicability.NotExposedBy, Runbook: spec.Runbook, SpecSHA256: k.hashed(),
	}
	k.oneOf(spec.Key, KPIKeys, "key")
	k.text(spec.Title, "name the figure in a few words", "title")
	k.text(spec.Question, "say which question the figure answers", "question")
	k.oneOf(spec.Unit, KPIUnits, "unit")
	k.oneOf(spec.Direction, []string{HigherIsBetter, LowerIsBetter}, "direction")
	k.short(spec.Runbook, "runbook")
	if len(spec.Roles) == 0 {
		k.fail("required", k.at("roles"), "spec.roles is missing: name who reads it, of %s", strings.Join(KPIRoles, ", "))
	}
	if k.atMost(len(spec.Roles), len(KPIRoles), "roles") {
		for i, r := range spec.Roles {
			if k.oneOf(r, KPIRoles, "roles", strconv.Itoa(i)) && slices.Index(spec.Roles, r) < i {
				k.fail("duplicate-name", k.at("roles", strconv.Itoa(i)), "role %q is named twice: take one out", r)
			}
		}
	}
	k.applies(k.expression())
	k.thresholds()
}

// expression checks the PromQL and returns the names of the series in it; all
// tells that there are no others.
func (k *kpi) expression() (names []string, all bool) {
	n, text := k.at("expression"), k.made.Expression
	if text == "" {
		k.fail("required", n, "spec.expression is missing: give PromQL with one value, or one of each series")
		return nil, false
	}
	expr, err := promql.ParseExpr(text)
	if err != nil {
		k.fail("expression", n, "not valid PromQL: %v", err)
		return nil, false
	}
	switch expr.Type() {
	case parser.ValueTypeMatrix:
		k.fail("expression", n, "a range of samples has no one value: put a function such as rate() or max_over_time() around it")
	case parser.ValueTypeString:
		k.fail("expression", n, "a text is no figure: give an expression with a number")
	}
	all = true
	for _, ms := range parser.ExtractSelectors(expr) {
		named := false
		for _, m := range ms {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
				names, named = append(names, m.Value), true
			}
		}
		all = all && named
	}
	return names, all
}

var (
	seriesName   = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	platformName = regexp.MustCompile(`^[a-z0-9][-a-z0-9]{0,62}$`)
)

// applies checks the applicability. Where no series are named, those of the
// expression are needed.
func (k *kpi) applies(names []string, all bool) {
	spec := k.doc.Spec.Applicability
	if !k.atMost(len(spec.Series), maxSeries, "applicability", "series") || !k.atMost(len(spec.NotExposedBy), maxSeries, "applicability", "notExposedBy") {
		return
	}
	for i, name := range spec.Series {
		n := k.at("applicability", "series", strconv.Itoa(i))
		switch {
		case !seriesName.MatchString(name):
			k.fail("value", n, "%q is not the name of a series: give it without labels", name)
		case all && !slices.Contains(names, name):
			k.warn("applicability", n, "series %q is not in the expression, so that the figure waits for what it does not need: correct the name, or take it out", name)
		}
	}
	for i, name := range spec.NotExposedBy {
		if !platformName.MatchString(name) {
			k.fail("value", k.at("applicability", "notExposedBy", strconv.Itoa(i)), "%q is not a platform: write a name such as eks, in lower case", name)
		}
	}
	if len(spec.Series) == 0 {
		slices.Sort(names)
		k.made.Series = slices.Compact(names)
	}
}

func (k *kpi) thresholds() {
	spec := k.doc.Spec
	if !k.atMost(len(spec.Thresholds), len(KPISeverities), "thresholds") {
		return
	}
	by := map[string]int{}
	paged := -1
	for i, t := range spec.Thresholds {
		idx := strconv.Itoa(i)
		value, err := exact(t.Value, 15, 9)
		switch {
		case t.Value == "":
			k.fail("required", k.at("thresholds", idx, "value"), "a threshold needs a value, in the unit of the KPI")
		case err != nil:
			k.fail("value", k.at("thresholds", idx, "value"), "%v: want a number such as 0.95", err)
		}
		if strings.TrimSpace(t.Reason) == "" {
			k.fail("required", k.at("thresholds", idx, "reason"), "a threshold needs a reason: say why %s and not another value, for whoever it wakes", string(t.Value))
		}
		k.short(t.Reason, "thresholds", idx, "reason")
		k.made.Thresholds = append(k.made.Thresholds, Threshold{value, t.Severity, strings.TrimSpace(t.Reason)})
		if !k.oneOf(t.Severity, KPISeverities, "thresholds", idx, "severity") {
			continue
		}
		if _, twice := by[t.Severity]; twice {
			k.fail("threshold-order", k.at("thresholds", idx, "severity"), "a second threshold has severity %s: keep the one that is reached first", t.Severity)
			continue
		}
		by[t.Severity] = i
		if t.Severity != "info" && paged < 0 {
			paged = i
		}
	}
	if paged >= 0 && spec.Runbook == "" {
		k.warn("runbook", k.at("thresholds", strconv.Itoa(paged)), "severity %s asks someone to act and there is no runbook: name one in spec.runbook", spec.Thresholds[paged].Severity)
	}
	if !k.bad {
		k.order(by)
	}
}

// order checks that a graver severity is reached later.
func (k *kpi) order(by map[string]int) {
	milder := -1
	for _, severity := range KPISeverities {
		i, ok := by[severity]
		if !ok {
			continue
		}
		if milder >= 0 {
			a, b := k.made.Thresholds[milder], k.made.Thresholds[i]
			c, beyond := b.Value.Cmp(a.Value), "above"
			if k.made.Direction == HigherIsBetter {
				c, beyond = -c, "below"
			}
			if c <= 0 {
				k.fail("threshold-order", k.at("thresholds", strconv.Itoa(i), "value"), "severity %s is reached no later than the milder %s: with %s it must be %s %s", b.Severity, a.Severity, k.made.Direction, beyond, string(k.doc.Spec.Thresholds[milder].Value))
			}
		}
		milder = i
	}
}
