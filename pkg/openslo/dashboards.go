package openslo

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"nines/pkg/sla"
)

// Dashboards names a tool whose Grafana dashboards can go on working with the
// rules of PrometheusWith.
type Dashboards string

// The tools whose dashboards are known.
const (
	// SlothDashboards are Sloth's: error ratios and metadata with the labels
	// sloth_id, sloth_service and sloth_slo, and the same labels on alerts.
	SlothDashboards Dashboards = "sloth"
	// PyrraDashboards are Pyrra's, which read its generic rules.
	PyrraDashboards Dashboards = "pyrra"
)

// AllDashboards lists them.
var AllDashboards = []Dashboards{SlothDashboards, PyrraDashboards}

// foreignName is what other tools call an objective. Their names hold no
// namespace and one objective an SLO, so that what would collide gets more.
type foreignName struct {
	slo   string // sloth_slo
	id    string // sloth_id: service and SLO
	pyrra string // slo of Pyrra's series
}

type foreignNames struct{ of map[sla.ID]foreignName }

func newForeignNames(objectives []sla.Objective) *foreignNames {
	n := &foreignNames{map[sla.ID]foreignName{}}
	several := map[[2]string]int{}
	for _, o := range objectives {
		if !o.Inner {
			several[[2]string{o.Namespace, o.SLO}]++
		}
	}
	ids, slos := map[string]bool{}, map[string]bool{}
	for _, o := range objectives {
		// What came from Sloth has its service in front already.
		name := foreignName{slo: strings.TrimPrefix(o.SLO, o.Service+"-"), pyrra: o.SLO}
		if name.slo == "" {
			name.slo = o.SLO
		}
		if several[[2]string{o.Namespace, o.SLO}] > 1 {
			name.slo += "-" + o.Name
			name.pyrra += "-" + o.Name
		}
		if ids[o.Service+"-"+name.slo] {
			name.slo += "-" + o.ID.String()
		}
		if slos[name.pyrra] {
			name.pyrra += "-" + o.ID.String()
		}
		name.id = o.Service + "-" + name.slo
		ids[name.id], slos[name.pyrra] = true, true
		n.of[o.ID] = name
	}
	return n
}

// foreignRules are rules beside our own.
type foreignRules struct {
	current []rule // behind our recording rules, which they read
	period  []rule // behind the ratio over the whole period
	labels  map[string]string
}

// alert returns what labels alerts of a severity get.
func (r foreignRules) alert(severity string) map[string]string {
	if r.labels == nil {
		return nil
	}
	out := maps.Clone(r.labels)
	out["sloth_severity"] = severity
	return out
}

func (n *foreignNames) rules(o sla.Objective, dashboards []Dashboards) (out foreignRules, err error) {
	name := n.of[o.ID]
	if slices.Contains(dashboards, SlothDashboards) {
		out.sloth(o, name)
	}
	if slices.Contains(dashboards, PyrraDashboards) && len(o.GroupBy) == 0 {
		err = out.pyrra(o, name)
	}
	return out, err
}

// dashboardPeriod is the period as dashboards see it: calendar windows are shown
// as the same number of days up to now.
func dashboardPeriod(o sla.Objective) time.Duration {
	days := map[string]int{sla.Day: 1, sla.Week: 7, sla.Month: 30, sla.Quarter: 90, sla.Year: 365}[o.Window.Calendar]
	if o.Window.Rolling > 0 {
		return o.Window.Rolling
	}
	return time.Duration(days*max(o.Window.Count, 1)) * 24 * time.Hour
}

// sloth adds Sloth's series. Its period ratio is a mean of ratios of five
// minutes; this one is a ratio of sums (sloth #241), so the figure differs where
// theirs is wrong. Without a budget there is no burn rate, and none is recorded.
func (r *foreignRules) sloth(o sla.Objective, name foreignName) {
	own := map[string]string{"sloth_id": name.id, "sloth_service": o.Service, "sloth_slo": name.slo}
	r.labels = own
	labels := plainLabels(o, own)
	with := func(extra ...string) map[string]string {
		out := maps.Clone(labels)
		for i := 0; i < len(extra); i += 2 {
			out[extra[i]] = extra[i+1]
		}
		return out
	}
	// The objective's own labels go; those of a group stay.
	copied := func(w time.Duration) string {
		return aggregated("max", o.GroupBy, recorded(o, w))
	}
	ratio := func(w time.Duration) string { return "slo:sli_error:ratio_rate" + model.Duration(w).String() }
	selected := func(record string) string {
		return fmt.Sprintf("%s{sloth_id=%q,sloth_service=%q,sloth_slo=%q}", record, name.id, o.Service, name.slo)
	}
	windows, period := tierWindows(), dashboardPeriod(o)
	for _, w := range windows {
		r.current = append(r.current, rule{Record: ratio(w), Expr: copied(w), Labels: with("sloth_window", model.Duration(w).String())})
	}
	r.current = append(r.current,
		rule{Record: "slo:objective:ratio", Expr: "vector(" + o.Target.String() + ")", Labels: labels},
		rule{Record: "slo:error_budget:ratio", Expr: "vector(" + o.Target.Budget() + ")", Labels: labels},
		rule{Record: "slo:time_period:days", Expr: fmt.Sprintf("vector(%g)", period.Hours()/24), Labels: labels},
		rule{Record: "sloth_slo_info", Expr: "vector(1)", Labels: with("sloth_mode", "nines", "sloth_version", "nines", "sloth_spec", APIVersion, "sloth_objective", o.Target.Percent())},
	)
	if !slices.Contains(windows, period) {
		r.period = append(r.period, rule{Record: ratio(period), Expr: copied(period), Labels: with("sloth_window", model.Duration(period).String())})
	}
	if o.Target.IsAll() {
		return
	}
	burn := func(w time.Duration) string { return selected(ratio(w)) + " / " + o.Target.Budget() }
	r.current = append(r.current, rule{Record: "slo:current_burn_rate:ratio", Expr: burn(windows[0]), Labels: labels})
	r.period = append(r.period,
		rule{Record: "slo:period_burn_rate:ratio", Expr: burn(period), Labels: labels},
		rule{Record: "slo:period_error_budget_remaining:ratio", Expr: "1 - " + selected("slo:period_burn_rate:ratio"), Labels: labels},
	)
}

// pyrra adds Pyrra's generic series. The names that end with rate5m are those of
// its present dashboards, those that end with total of its earlier ones: there
// the dashboard takes the rate of a sum of counters, which hides resets (pyrra
// #968), so that only the latter can be wrong.
func (r *foreignRules) pyrra(o sla.Objective, name foreignName) error {
	// One of its panels matches on slo alone and then on all labels: with any
	// other label, as Pyrra itself adds where it is told to, it shows nothing.
	labels := map[string]string{"slo": name.pyrra}
	add := func(record, expr string) {
		r.current = append(r.current, rule{Record: record, Expr: expr, Labels: labels})
	}
	period := dashboardPeriod(o)
	add("pyrra_objective", "vector("+o.Target.String()+")")
	add("pyrra_window", fmt.Sprintf("vector(%d)", int64(period.Seconds())))
	r.period = append(r.period, rule{Record: "pyrra_availability", Expr: "1 - max(" + recorded(o, period) + ")", Labels: labels})
	if o.SLI.Total == "" {
		return nil // observations and slices have no rate
	}
	ind, err := ParseSLI(o.SLI)
	if err != nil {
		return err
	}
	for _, form := range []struct {
		suffix string
		of     func(Query) string
	}{{":rate5m", Query.perSecond}, {"_total", Query.sinceStart}} {
		part, total := form.of(ind.Part), form.of(ind.Total)
		if part == "" || total == "" {
			continue // nothing of it is counted since a start
		}
		errors := part + " or vector(0)"
		if !ind.Bad {
			errors = total + " - (" + part + " or vector(0))"
		}
		add("pyrra_requests"+form.suffix, total)
		add("pyrra_errors"+form.suffix, errors)
	}
	return nil
}

// perSecond returns PromQL for the events per second of the last five minutes.
func (q Query) perSecond() string {
	text := q.over(windowTaken, nil)
	if q.Kind == Expression {
		return text + " / 5" // the sum of five minutes, each per second
	}
	return inner(q, text)
}

// sinceStart returns PromQL for the sum of the counters as they are, empty where
// there are none.
func (q Query) sinceStart() string {
	switch q.Kind {
	case Counter, Bucket:
		return "sum(" + selector(q.all) + ")"
	case NativeCount:
		return "histogram_count(sum(" + selector(q.all) + "))"
	}
	return ""
}

// aggregated puts an aggregation around an expression, by labels where there are
// any. A name with a dot stands in quotes.
func aggregated(op string, by []string, expr string) string {
	if len(by) == 0 {
		return op + "(" + expr + ")"
	}
	names := make([]string, 0, len(by))
	for _, n := range by {
		if strings.Contains(n, ".") {
			n = strconv.Quote(n)
		}
		names = append(names, n)
	}
	return op + " by (" + strings.Join(names, ", ") + ") (" + expr + ")"
}

var notPlain = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// plainLabels returns the labels of an SLO as labels of a series, with own on
// top. As elsewhere in Kubernetes, what cannot stand in a
// label's name becomes _. A group's own values are in the series already.
func plainLabels(o sla.Objective, own map[string]string) map[string]string {
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
		name := notPlain.ReplaceAllString(k, "_")
		if name == "" || name[0] >= '0' && name[0] <= '9' || strings.HasPrefix(name, "__") {
			name = "label_" + strings.TrimLeft(name, "_")
		}
		if _, taken := out[name]; !taken {
			out[name] = o.Labels[k]
		}
	}
	maps.Copy(out, own)
	for _, l := range o.GroupBy {
		delete(out, l)
	}
	return out
}
