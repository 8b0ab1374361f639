package openslo

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
)

// Categories of an Exclusion, with what each is for.
var exclusionCategories = []string{
	"planned-maintenance",   // announced work of the provider
	"emergency-maintenance", // work that could not wait for an announcement
	"customer",              // the customer caused or asked for it
	"third-party",           // a supplier that the agreement does not answer for
	"force-majeure",         // what nobody could prevent
	"suspension",            // the service was suspended as the agreement allows
}

// Exclusion is time that agreements leave out, once or by a rule, for the
// objectives in its scope. It is in whole minutes.
type Exclusion struct {
	Namespace, Name, Title string
	Labels                 map[string]string
	Scope                  []*labels.Matcher // at least one, and all must match
	From, To               time.Time         // half-open; with a Rule From is where it begins, and To is zero
	Timezone               string            // IANA name, empty where From and To have their offset
	Rule                   string            // as RFC 5545 has it, empty for an exclusion of one time
	Duration               time.Duration     // of each occurrence of the Rule, else To − From
	Category               string
	Reason                 string
	Requester, Approver    string
	SpecSHA256             string // of the document, in hex

	recurrence *recurrence
}

// Interval is a stretch of time, half-open.
type Interval struct{ From, To time.Time }

// Matches reports whether an objective is in the scope: every matcher matches
// the label of its SLO, or service, namespace, slo or objective, which are the
// fields of these names. A label that is not there is empty.
func (e Exclusion) Matches(o sla.Objective) bool {
	for _, m := range e.Scope {
		var value string
		switch m.Name {
		case "service":
			value = o.Service
		case "namespace":
			value = o.Namespace
		case "slo":
			value = o.SLO
		case "objective":
			value = o.Name
		default:
			value = o.Labels[m.Name]
		}
		if !m.Matches(value) {
			return false
		}
	}
	return true
}

// Intervals returns the excluded time that is at least in part between from and
// to, in the order of its beginning, at most so many stretches. They may
// overlap where an occurrence lasts until after the next one.
func (e Exclusion) Intervals(from, to time.Time, most int) []Interval {
	out, _ := e.intervals(from, to, most)
	return out
}

// intervals also tells whether there are more.
func (e Exclusion) intervals(from, to time.Time, most int) (out []Interval, more bool) {
	for start := range e.starts {
		// Where clocks are set forward, a skipped time comes behind those that it
		// is moved over: the latest jump, of a whole day, was in 2011.
		if !start.Before(to.Add(24 * time.Hour)) {
			break
		}
		end := start.Add(e.Duration)
		if !end.After(from) || !start.Before(to) {
			continue
		}
		if more = len(out) >= most; more {
			break
		}
		out = append(out, Interval{start, end})
	}
	slices.SortFunc(out, func(a, b Interval) int { return a.From.Compare(b.From) })
	return slices.CompactFunc(out, func(a, b Interval) bool { return a.From.Equal(b.From) }), more
}

// starts yields when each stretch of the exclusion begins, in the order in which
// the zone's clocks show it.
func (e Exclusion) starts(yield func(time.Time) bool) {
	if e.recurrence == nil {
		yield(e.From)
		return
	}
	e.recurrence.starts(yield)
}

// scopeText is the scope in an order that does not depend on its writing.
func (e Exclusion) scopeText() string { return strings.Join(matcherTexts(e.Scope), ",") }

type exclusionDocument struct {
	APIVersion string        `yaml:"apiVersion"`
	Kind       string        `yaml:"kind"`
	Metadata   metadata      `yaml:"metadata"`
	Spec       exclusionSpec `yaml:"spec"`
}

type exclusionSpec struct {
	Scope     []string `yaml:"scope"`
	From      string   `yaml:"from"`
	To        string   `yaml:"to"`
	TimeZone  string   `yaml:"timeZone"`
	RRule     string   `yaml:"rrule"`
	Duration  string   `yaml:"duration"`
	Category  string   `yaml:"category"`
	Reason    string   `yaml:"reason"`
	Requester string   `yaml:"requester"`
	Approver  string   `yaml:"approver"`
}

// exclusion is one document while it is checked.
type exclusion struct {
	checker
	doc  exclusionDocument
	made Exclusion
}

// maxExcluded bounds one stretch: what is longer is another agreement.
const maxExcluded = 366 * 24 * time.Hour

func (s *Set) resolveExclusions() {
	var sound []*exclusion
	for i, e := range s.nines.read.exclusions {
		if i == maxExclusions {
			e.fail("too-many", e.d.Find("metadata", "name"), "a set has at most %d exclusions, this is one more: take out those of closed periods, or join some by a rule", maxExclusions)
			break
		}
		e.check()
		if !e.bad {
			sound = append(sound, e)
			s.nines.exclusions = append(s.nines.exclusions, e.made)
		}
	}
	overlaps(sound)
}

func (e *exclusion) check() {
	m, spec := e.doc.Metadata, e.doc.Spec
	e.made = Exclusion{
		Namespace: m.Namespace, Name: m.Name, Title: m.DisplayName, Labels: labelled(m),
		Timezone: spec.TimeZone, Rule: spec.RRule, Category: spec.Category, Reason: strings.TrimSpace(spec.Reason),
		Requester: spec.Requester, Approver: spec.Approver, SpecSHA256: e.hashed(),
	}
	e.scope()
	e.oneOf(spec.Category, exclusionCategories, "category")
	e.text(spec.Reason, "say why this time is left out, for whoever reads the report", "reason")
	e.text(spec.Requester, "name who asks for it", "requester")
	switch {
	case strings.TrimSpace(spec.Approver) == "":
		e.fail("approver", e.at("approver"), "spec.approver is missing: time is left out of a promise only when someone has approved it")
	case spec.Approver == spec.Requester:
		e.warn("self-approved", e.at("approver"), "%q approves their own request: let another one approve it", spec.Approver)
	default:
		e.short(spec.Approver, "approver")
	}
	e.when()
}

// matcher is one condition, as Alertmanager's silences have it.
var matcher = regexp.MustCompile(`^\s*([a-zA-Z_][a-zA-Z0-9_.]*)\s*(=~|!~|!=|=)\s*(.*?)\s*$`)

func (e *exclusion) scope() {
	spec := e.doc.Spec
	if len(spec.Scope) == 0 {
		e.fail("scope", e.at("scope"), `spec.scope is missing: name what is left out, as service="checkout"`)
		return
	}
	if !e.atMost(len(spec.Scope), maxMatchers, "scope") {
		return
	}
	types := map[string]labels.MatchType{"=": labels.MatchEqual, "!=": labels.MatchNotEqual, "=~": labels.MatchRegexp, "!~": labels.MatchNotRegexp}
	for i, text := range spec.Scope {
		n := e.at("scope", strconv.Itoa(i))
		parts := matcher.FindStringSubmatch(text)
		if parts == nil || len(text) > maxText {
			e.fail("scope", n, `%q is not a matcher: write label="value", or with !=, =~ or !~`, text)
			continue
		}
		value := parts[3]
		if strings.HasPrefix(value, `"`) {
			unquoted, err := strconv.Unquote(value)
			if err != nil {
				e.fail("scope", n, `%q does not end its quoted value: write label="value"`, text)
				continue
			}
			value = unquoted
		}
		m, err := labels.NewMatcher(types[parts[2]], parts[1], value)
		if err != nil {
			e.fail("scope", n, "%q is not a regular expression: %v", value, err)
			continue
		}
		e.made.Scope = append(e.made.Scope, m)
	}
	if e.bad || len(e.s.objectives) == 0 {
		return
	}
	for _, o := range e.s.objectives {
		if e.made.Matches(o) {
			return
		}
	}
	e.warn("unused-scope", e.at("scope"), "no objective of the SLOs here is in this scope: compare it with their labels, service, namespace, slo and objective")
}

// when checks the time, or the rule.
func (e *exclusion) when() {
	spec := e.doc.Spec
	var zone *time.Location
	if spec.TimeZone != "" || spec.RRule != "" {
		if zone = e.zone(spec.TimeZone, "timeZone"); zone == nil {
			return
		}
	}
	from, okFrom := e.moment(spec.From, zone, "from")
	e.made.From = from
	if spec.RRule == "" {
		if spec.Duration != "" {
			e.fail("time", e.at("duration"), "duration is how long each occurrence of rrule lasts, and there is none: give to, or rrule")
			return
		}
		to, okTo := e.moment(spec.To, zone, "to")
		e.made.To, e.made.Duration = to, to.Sub(from)
		switch {
		case !okFrom || !okTo:
		case !from.Before(to):
			e.fail("time", e.at("to"), "to is not after from: exchange or correct them")
		case to.Sub(from) > maxExcluded:
			e.fail("time", e.at("to"), "from and to are %s apart: at most %s can be left out at once; change the agreement instead", sla.Duration(to.Sub(from)), sla.Duration(maxExcluded))
		}
		return
	}
	if spec.To != "" {
		e.fail("time", e.at("to"), "to does not go with rrule: give duration, and UNTIL in the rule for its end")
		return
	}
	if spec.Duration == "" {
		e.fail("required", e.at("duration"), "spec.duration is missing: say how long each occurrence lasts, as 4h")
		return
	}
	e.made.Duration = e.length(spec.Duration, time.Minute, 31*24*time.Hour, "duration")
	if !okFrom {
		return
	}
	r, err := parseRecurrence(spec.RRule, from, zone)
	if err != nil {
		e.fail("recurrence", e.at("rrule"), "%v", err)
		return
	}
	e.made.recurrence = r
	for range r.starts {
		return
	}
	e.fail("never-occurs", e.at("rrule"), "the rule never occurs from %s on: no day is all that it asks for, or UNTIL is before it", spec.From)
}

// clock are the forms of a time without an offset.
var clock = []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"}

// moment reads a time: RFC 3339, or what the clock of the zone shows.
func (e *exclusion) moment(text string, zone *time.Location, key string) (time.Time, bool) {
	n := e.at(key)
	if text == "" {
		e.fail("required", n, "spec.%s is missing: give a time such as 2026-03-01T22:00:00Z, or 2026-03-01 22:00 with timeZone", key)
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, text)
	for _, form := range clock {
		if err == nil {
			break
		}
		var shown time.Time
		if shown, err = time.Parse(form, text); err != nil {
			continue
		}
		if zone == nil {
			e.fail("time", n, "%s %q has no offset: add one, as in 2026-03-01T22:00:00Z, or give timeZone", key, text)
			return time.Time{}, false
		}
		var times int
		if t, times = atClock(shown, zone); times != 1 {
			e.skipped(n, key, text, zone, times)
			return time.Time{}, false
		}
	}
	switch {
	case err != nil:
		e.fail("time", n, "%s %q is not a time: write 2026-03-01T22:00:00Z, or 2026-03-01 22:00 with timeZone", key, text)
	case t.Second() != 0 || t.Nanosecond() != 0:
		e.fail("time", n, "%s %q is not a whole minute: time is left out by the minute", key, text)
	case t.Year() < firstYear || t.Year() > lastYear:
		e.fail("time", n, "%s %q is out of range: want a year from %d to %d", key, text, firstYear, lastYear)
	default:
		return t, true
	}
	return time.Time{}, false
}

func (e *exclusion) skipped(n *yaml.Node, key, text string, zone *time.Location, times int) {
	if times == 0 {
		e.fail("time", n, "%s %q is never shown by the clocks of %s, which are set forward over it: use another time", key, text, zone)
		return
	}
	e.fail("time", n, "%s %q is shown twice by the clocks of %s, which are set back: give it with its offset, as 2026-10-25T02:30:00+01:00", key, text, zone)
}

// Years of exclusions: bounds that keep their rules far from the end of time.
const (
	firstYear = 2000
	lastYear  = 2199
)

// Overlaps are looked for in so much time after the latest exclusion begins,
// and among so many stretches of one set.
const (
	overlapHorizon = 2 * 366 * 24 * time.Hour
	maxStretches   = 100_000
)

// stretch is one interval of an exclusion.
type stretch struct {
	Interval
	of *exclusion
}

// overlaps warns of exclusions of one scope that leave out the same time.
func overlaps(all []*exclusion) {
	groups := map[string][]*exclusion{}
	var scopes []string
	for _, e := range all {
		key := e.made.scopeText()
		if groups[key] == nil {
			scopes = append(scopes, key)
		}
		groups[key] = append(groups[key], e)
	}
	left := maxStretches
	for _, key := range scopes {
		var latest time.Time
		for _, e := range groups[key] {
			latest = later(latest, later(e.made.From, e.made.To))
		}
		var found []stretch
		for _, e := range groups[key] {
			in, more := e.made.intervals(e.made.From, latest.Add(overlapHorizon), min(left, maxStretches/10))
			if more {
				e.warn("too-many", e.at("rrule"), "occurs too often to be compared with other exclusions to the end: begin it later, or give it an UNTIL")
			}
			left -= len(in)
			for _, i := range in {
				found = append(found, stretch{i, e})
			}
		}
		slices.SortStableFunc(found, func(a, b stretch) int {
			return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To))
		})
		sweep(found)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sweep tells of each pair of exclusions once, in the later of both documents.
func sweep(sorted []stretch) {
	told := map[[2]*exclusion]bool{}
	for i := 1; i < len(sorted); i++ {
		last, next := sorted[i-1], sorted[i]
		if !next.From.Before(last.To) {
			continue
		}
		if last.To.After(next.To) { // it goes on under those that follow
			sorted[i] = stretch{Interval{next.From, last.To}, last.of}
		}
		a, b := last.of, next.of
		if later := a.d.File > b.d.File || a.d.File == b.d.File && a.d.Node.Line > b.d.Node.Line; later {
			a, b = b, a
		}
		if told[[2]*exclusion{a, b}] {
			continue
		}
		told[[2]*exclusion{a, b}] = true
		at := next.From.UTC().Format(time.RFC3339)
		if a == b {
			b.warn("overlapping-exclusions", b.at("duration"), "an occurrence at %s begins before the one before it has ended: shorten duration, or make the rule rarer", at)
			continue
		}
		b.warn("overlapping-exclusions", b.at("from"), "leaves out time from %s on that exclusion %q of the same scope leaves out, too: take one out, or end it where the other begins", at, a.made.Name)
	}
}
