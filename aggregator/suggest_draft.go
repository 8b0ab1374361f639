package main

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// draftPeriod is the period of a draft.
const draftPeriod = 30 * 24 * time.Hour

// usualTargets are the steps that a measured ratio is rounded down to, in
// percent.
var usualTargets = []string{"99.99", "99.95", "99.9", "99.5", "99", "98", "95", "90"}

// choice is a target with its figures.
type choice struct {
	target sla.Target
	ratio  *big.Rat
	// period is how many events are to be expected in the period, and budget how
	// many of them may fail.
	period, budget *big.Rat
	// few tells that the ratio supports a stricter target, but of so few events
	// that one failure would be more than its budget.
	few bool
}

// choose rounds a measured ratio down to a usual target; where none fits, it
// says why.
func choose(n counted) (c choice, why string) {
	good, total := whole(n.good), whole(n.total)
	c.ratio = new(big.Rat).SetFrac(good, total)
	c.period = new(big.Rat).SetInt(total)
	if n.covered > 0 {
		c.period.Mul(c.period, big.NewRat(int64(draftPeriod), int64(n.covered)))
	}
	for _, text := range usualTargets {
		t, err := sla.ParseTargetPercent(text)
		if err != nil {
			panic(err) // a line of the table above
		}
		if c.ratio.Cmp(t.Rat()) < 0 {
			continue
		}
		if new(big.Rat).Mul(new(big.Rat).SetInt(total), t.BudgetRat()).Cmp(big.NewRat(1, 1)) < 0 {
			c.few = true // no failure among so few events would have shown that it holds
			continue
		}
		c.budget = new(big.Rat).Mul(c.period, t.BudgetRat())
		c.target = t
		return c, ""
	}
	if c.few {
		return c, fmt.Sprintf("%s events in %s are too few for any target; look again later, or probe it instead", total, covered(n.covered))
	}
	return c, fmt.Sprintf("%s of %s events were good, which no usual target allows: repair it first, or write the SLO by hand", sla.Percent(c.ratio, 2), total)
}

// whole rounds an estimate to events.
func whole(v float64) *big.Int {
	n, _ := big.NewFloat(math.Round(v)).Int(nil)
	return n
}

// chooseEdge takes the smallest finite edge that holds 99 % of all events, else
// 95 %, else 90 %.
func chooseEdge(edges []bucketEdge, total float64) (edge bucketEdge, supports string, ok bool) {
	slices.SortFunc(edges, func(a, b bucketEdge) int {
		if a.upTo < b.upTo {
			return -1
		}
		return 1
	})
	if math.Round(total) < 1 {
		return edge, "", false
	}
	for _, share := range []float64{99, 95, 90} {
		for _, e := range edges {
			if math.Round(e.count)*100 >= share*math.Round(total) && e.upTo > 0 {
				return e, number(share), true
			}
		}
	}
	return edge, "", false
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// covered says how long something had samples, in whole hours where it is long.
func covered(d time.Duration) string {
	if d > 48*time.Hour {
		return sla.Duration(d.Round(time.Hour))
	}
	return sla.Duration(d.Round(time.Minute))
}

// write makes the files of services, each with a name of its own.
func write(services []*service, s *suggester) []draftFile {
	names, files := unique{}, unique{}
	var out []draftFile
	for _, of := range services {
		var documents []string
		for _, d := range of.drafts {
			documents = append(documents, d.document(of, names.take(of.subject, d.kind), s))
		}
		file := slug(of.service)
		if of.namespace != "" {
			file = slug(of.namespace) + "-" + file
		}
		out = append(out, draftFile{files.take(subject{service: file}, "") + ".yaml", strings.Join(documents, "---\n")})
	}
	return out
}

// unique gives names that were not given before.
type unique map[string]bool

// take returns service-suffix, with namespace and cluster in front or a number
// behind where that is taken.
func (u unique) take(of subject, suffix string) string {
	parts := []string{slug(of.service)}
	if suffix != "" {
		parts = append(parts, suffix)
	}
	name := strings.Join(parts, "-")
	for _, front := range []string{of.namespace, of.cluster} {
		if u[name] && front != "" {
			parts = append([]string{slug(front)}, parts...)
			name = strings.Join(parts, "-")
		}
	}
	for i, base := 2, name; u[name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	u[name] = true
	return name
}

var noSlug = regexp.MustCompile(`[^a-z0-9]+`)

// slug makes a name of Kubernetes out of any text, of at most 40 letters.
func slug(text string) string {
	text = strings.Trim(noSlug.ReplaceAllString(strings.ToLower(text), "-"), "-")
	if len(text) > 40 {
		text = strings.Trim(text[:40], "-")
	}
	if text == "" {
		text = "service"
	}
	return text
}

// document returns a draft as an OpenSLO document with its comment.
func (d draft) document(of *service, name string, s *suggester) string {
	var b strings.Builder
	for i, paragraph := range d.reasons(of, s) {
		if i > 0 {
			b.WriteString("#\n")
		}
		comment(&b, paragraph)
	}
	title, objective := of.service+" answers without failure", "without failure"
	description := "Requests that " + of.service + " answered without a failure of its own, of all that it answered."
	switch d.kind {
	case "latency":
		title = of.service + " answers within " + d.threshold()
		objective = "within " + d.threshold()
		description = "Requests that " + of.service + " answered within " + d.threshold() + ", of all that it answered without a failure of its own."
	case "reachability":
		title, objective = of.service+" can be reached", "reachable"
		description = "Minutes in which " + d.by.gauge + " of " + of.service + " was 1."
	}
	fmt.Fprintf(&b, "apiVersion: openslo/v1\nkind: SLO\nmetadata:\n  name: %s\n", name)
	if of.namespace != "" {
		fmt.Fprintf(&b, "  namespace: %s\n", yamlText(of.namespace))
	}
	fmt.Fprintf(&b, "  displayName: %s\nspec:\n  description: %s\n  service: %s\n", yamlText(title), yamlText(description), yamlText(of.service))
	fmt.Fprintf(&b, "  budgetingMethod: Occurrences\n  timeWindow: [{duration: 30d, isRolling: true}]\n  indicator:\n    metadata: {name: %s}\n    spec:\n", name)
	if d.value != "" {
		fmt.Fprintf(&b, "      thresholdMetric:\n        metricSource: {type: Prometheus, spec: {query: %s}}\n", yamlQuery(d.value))
		fmt.Fprintf(&b, "  objectives:\n    - {displayName: %s, op: gte, value: 1, target: %s}\n", objective, d.chosen.target)
		return b.String()
	}
	b.WriteString("      ratioMetric:\n        counter: true\n")
	for _, q := range []struct{ side, text string }{{"good", d.good}, {"total", d.total}} {
		fmt.Fprintf(&b, "        %s:\n          metricSource: {type: Prometheus, spec: {query: %s}}\n", q.side, yamlQuery(q.text))
	}
	fmt.Fprintf(&b, "  objectives:\n    - {displayName: %s, target: %s}\n", objective, d.chosen.target)
	return b.String()
}

// threshold is the edge with its unit: 250 ms, 2.5 s.
func (d draft) threshold() string {
	seconds := d.edge.upTo
	if d.by.unit == "ms" {
		seconds /= 1000
	}
	if seconds < 1 {
		return strconv.FormatFloat(seconds*1000, 'g', 6, 64) + " ms"
	}
	return strconv.FormatFloat(seconds, 'g', 6, 64) + " s"
}

// fewFailures is how many failures within an hour must at least be needed for a
// page: fewer say little about a service.
const fewFailures = 5

// reasons are the paragraphs of a draft's comment.
func (d draft) reasons(of *service, s *suggester) []string {
	const form = "2006-01-02 15:04"
	unit, verb := "requests", "fail"
	switch d.kind {
	case "latency":
		verb = "be slower"
	case "reachability":
		unit = "minutes"
	}
	target := d.chosen.target
	total := whole(d.counted.total)
	out := []string{fmt.Sprintf("%s: %s, by %s.", of.subject, d.kind, d.what())}

	why := fmt.Sprintf("Why %s %%: of %s %s from %s to %s UTC, ", target.Percent(), total, unit, s.from.UTC().Format(form), s.to.UTC().Format(form))
	share := sla.Percent(d.chosen.ratio, 4)
	switch d.kind {
	case "latency":
		edge := "the smallest edge of a bucket"
		if d.edge.text == "" {
			edge = "the smallest usual threshold"
		}
		why += fmt.Sprintf("%s took at most %s, which is %s that holds %s %% of them", share, d.threshold(), edge, d.supports)
	case "reachability":
		why += share + " were good"
	default:
		why += fmt.Sprintf("%s did not fail (%s does)", share, d.failed)
	}
	why += "; rounded down to a usual step."
	if d.chosen.few {
		why += fmt.Sprintf(" A stricter target is more than so few %s can show: one failure would have been too many for it.", unit)
	}
	if since := s.to.Sub(s.from); d.counted.covered < since/20*19 {
		why += fmt.Sprintf(" There were samples in %s of that time: look again when there are more.", covered(d.counted.covered))
	}
	if d.kind != "reachability" {
		why += " PromQL estimated it; nines-aggregator backfill counts each event."
	}
	out = append(out, why)

	budget := fmt.Sprintf("Budget: of about %s %s in 30 days, %s may %s", sla.FloorDecimal(d.chosen.period, 0), unit, sla.FloorDecimal(d.chosen.budget, 0), verb)
	if d.kind != "reachability" { // whose events are minutes already
		minutes := new(big.Rat).Mul(target.BudgetRat(), big.NewRat(int64(draftPeriod/time.Minute), 1))
		budget += fmt.Sprintf("; as time, that is all of them for %s minutes in a month of 30 days", sla.FloorDecimal(minutes, 1))
	}
	out = append(out, budget+".")
	if low := d.low(unit); low != "" {
		out = append(out, low)
	}
	blind := "Not covered: " + d.by.blind + "."
	switch d.kind {
	case "availability":
		blind += " Every other result is good, also one that is the caller's fault."
	case "latency":
		blind += " Failed requests are left out where the histogram tells them; they are in the objective of availability."
	}
	out = append(out, blind)
	if len(of.also) > 0 {
		out = append(out, "The same service is known to "+oneLine(strings.Join(of.also, ", "))+" too, which stands farther from its users; write an SLO of that by hand if you want both.")
	}
	return out
}

// what names convention and metric.
func (d draft) what() string {
	if d.by.name == d.metric {
		return d.metric
	}
	return d.metric + " of " + d.by.name
}

// low tells where an hour has too few events for a page. The tier fast of the
// SRE workbook pages.
func (d draft) low(unit string) string {
	if d.counted.covered <= 0 {
		return ""
	}
	tier := sla.Tiers[0]
	if !tier.CanFire(d.chosen.target, draftPeriod) {
		return ""
	}
	hourly := new(big.Rat).Mul(d.chosen.period, big.NewRat(int64(time.Hour), int64(draftPeriod)))
	most := new(big.Rat).Mul(tier.Threshold(draftPeriod), d.chosen.target.BudgetRat())
	most.Mul(most, hourly)
	// One more than the most that are still no page.
	needed := new(big.Int).Add(new(big.Int).Quo(most.Num(), most.Denom()), big.NewInt(1))
	if needed.Cmp(big.NewInt(fewFailures)) >= 0 {
		return ""
	}
	enough := "1 bad one within an hour is"
	if needed.IsInt64() && needed.Int64() > 1 {
		enough = needed.String() + " bad ones within an hour are"
	}
	if d.kind == "reachability" {
		return fmt.Sprintf("Few observations: one a minute, so that %s enough for a page. Take a lower target where that is too eager.", enough)
	}
	return fmt.Sprintf("Low traffic: about %s %s an hour, so that %s enough for a page. These are too few events to wake somebody: make it a ticket, take a lower target, or probe the service.",
		sla.FloorDecimal(hourly, 1), unit, enough)
}

// oneLine keeps a label's value from ending a comment.
func oneLine(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) >= 0 {
		return strconv.Quote(text)
	}
	return text
}

// comment writes a paragraph in lines of at most 80 letters.
func comment(b *strings.Builder, text string) {
	line := "#"
	for _, word := range strings.Fields(oneLine(text)) {
		if len(line)+1+len(word) > 80 && line != "#" {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

var plainYAML = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9 /-]*[a-zA-Z0-9/]$`)

// yamlText quotes a text where YAML would read something else.
func yamlText(text string) string {
	switch strings.ToLower(text) {
	case "true", "false", "null", "yes", "no", "on", "off":
		return strconv.Quote(text)
	}
	if plainYAML.MatchString(text) {
		return text
	}
	return strconv.Quote(text)
}

// yamlQuery quotes PromQL, whose own quotes are double ones.
func yamlQuery(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
