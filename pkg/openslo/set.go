package openslo

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

// maxFile bounds one file of documents, in bytes.
const maxFile = 4 << 20

// Finding is what check says about a document.
type Finding struct {
	Path         string
	Line, Column int
	Severity     string // "error" or "warning"
	Rule         string // such as unknown-reference
	Message      string
}

// String returns path:line:column: error|warning [rule]: message.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s [%s]: %s", f.Path, f.Line, f.Column, f.Severity, f.Rule, f.Message)
}

// IsError reports whether the finding keeps the document from being used.
func (f Finding) IsError() bool { return f.Severity == "error" }

// Set is a set of documents whose references resolve among each other.
type Set struct {
	slos       []*slo
	indicators map[string]indicatorSpec
	others     map[string]bool // kind/namespace/name of every document
	findings   []Finding
	objectives []sla.Objective
	nines      nines
}

type slo struct {
	doc  strictyaml.Document
	spec sloDocument
	hash string
}

// Findings returns what is wrong, in the order of path, line and column.
func (s *Set) Findings() []Finding { return s.findings }

// Objectives returns the objectives of all SLOs without errors.
func (s *Set) Objectives() []sla.Objective { return s.objectives }

// LoadDir reads all .yaml and .yml files below a folder.
func LoadDir(dir string) (*Set, error) { return LoadPaths(dir) }

// LoadPaths reads files, and all .yaml and .yml files below folders but not in
// folders whose name begins with a dot, as one set. A folder without any makes
// an empty set. A file that is wrong is a finding and never hides the others; the error
// is about what cannot be read at all.
func LoadPaths(paths ...string) (*Set, error) {
	files, err := ReadPaths(paths...)
	if err != nil {
		return nil, err
	}
	return Load(files), nil
}

// ReadPaths returns the content of the files that LoadPaths takes, by path.
func ReadPaths(paths ...string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, root := range paths {
		if info, err := os.Stat(root); err == nil && info.IsDir() {
			root += string(filepath.Separator) // a link to a folder is walked, too
		}
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			// A mounted ConfigMap keeps its versions in folders such as
			// ..2026_01_02, beside links to the files of one of them.
			if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			if d.IsDir() || path != root && !isYAML(path) {
				return nil
			}
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if info.Size() > maxFile {
				return fmt.Errorf("%s is larger than 4 MiB: split it", path)
			}
			files[path], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read OpenSLO documents: %w", err)
		}
	}
	return files, nil
}

// LoadFS reads all .yaml and .yml files of a file system as one set.
func LoadFS(fsys fs.FS) (*Set, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isYAML(path) {
			return err
		}
		files[path], err = fs.ReadFile(fsys, path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read OpenSLO documents: %w", err)
	}
	return Load(files), nil
}

func isYAML(path string) bool {
	ext := filepath.Ext(path)
	return ext == ".yaml" || ext == ".yml"
}

// Load reads documents out of files by name.
func Load(files map[string][]byte) *Set {
	s := &Set{indicators: map[string]indicatorSpec{}, others: map[string]bool{}}
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		docs, err := strictyaml.Documents(n, files[n])
		if err != nil {
			s.take("yaml", err)
			continue
		}
		for _, d := range docs {
			s.document(d)
		}
	}
	for _, o := range s.slos {
		s.resolve(o)
	}
	s.duplicates()
	s.resolveNines()
	sort.SliceStable(s.findings, func(i, j int) bool {
		a, b := s.findings[i], s.findings[j]
		if a.Path != b.Path {
			return a.Path < b.Path
		}
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	return s
}

// take turns errors of the decoder into findings.
func (s *Set) take(rule string, err error) {
	var many strictyaml.Errors
	if !errors.As(err, &many) {
		s.findings = append(s.findings, Finding{Severity: "error", Rule: rule, Message: err.Error()})
		return
	}
	for _, e := range many {
		s.findings = append(s.findings, Finding{e.File, e.Line, e.Column, "error", rule, e.Message})
	}
}

func (s *Set) find(severity, rule string, d strictyaml.Document, n *yaml.Node, format string, args ...any) {
	s.findings = append(s.findings, Finding{d.File, n.Line, n.Column, severity, rule, fmt.Sprintf(format, args...)})
}

// document decodes one document by its kind.
func (s *Set) document(d strictyaml.Document) {
	at := func(path ...string) *yaml.Node { return d.Find(path...) }
	if d.Node.Kind != yaml.MappingNode {
		s.find("error", "schema", d, d.Node, "want a document with apiVersion, kind, metadata and spec")
		return
	}
	text := func(key string) string {
		if n := at(key); n != d.Node {
			return n.Value
		}
		return ""
	}
	version, kind := text("apiVersion"), text("kind")
	if version == NinesVersion {
		s.decodeNines(d, kind)
		return
	}
	if version != APIVersion {
		s.find("error", "api-version", d, at("apiVersion"), "apiVersion is %q, want %q (or %q for %s)", version, APIVersion, NinesVersion, strings.Join(ninesKinds, ", "))
		return
	}
	var meta metadata
	var decoded bool
	decode := func(out any) bool {
		if err := d.Decode(out); err != nil {
			s.take("schema", err)
			return false
		}
		return true
	}
	var keep func() // takes the document in, once its name is known to be right
	switch kind {
	case "SLO":
		o := &slo{doc: d}
		if decoded = decode(&o.spec); decoded {
			meta = o.spec.Metadata
			text, err := yaml.Marshal(d.Node)
			if err != nil {
				s.find("error", "schema", d, d.Node, "cannot be written again: %v", err)
				return
			}
			o.hash = fmt.Sprintf("%x", sha256.Sum256(text))
			keep = func() { s.slos = append(s.slos, o) }
		}
	case "SLI":
		var i indicatorDocument
		if decoded = decode(&i); decoded {
			meta = i.Metadata
			keep = func() { s.indicators[meta.Namespace+"/"+meta.Name] = i.Spec }
		}
	case "Service", "DataSource", "AlertPolicy", "AlertCondition", "AlertNotificationTarget":
		var o otherDocument
		if decoded = decode(&o); decoded {
			meta = o.Metadata
		}
	default:
		s.find("error", "kind", d, at("kind"), "kind %q is not one of SLO, SLI, Service, DataSource, AlertPolicy, AlertCondition, AlertNotificationTarget", kind)
		return
	}
	if !decoded {
		return
	}
	if meta.Name == "" {
		s.find("error", "name", d, at("metadata"), "metadata.name is missing")
		return
	}
	id := kind + "/" + meta.Namespace + "/" + meta.Name
	if s.others[id] {
		s.find("error", "duplicate-name", d, at("metadata", "name"), "a second %s is named %q in namespace %q: rename one", kind, meta.Name, meta.Namespace)
		return
	}
	s.others[id] = true
	if keep != nil {
		keep()
	}
}

// resolve checks one SLO and makes its objectives.
func (s *Set) resolve(o *slo) {
	before := s.errors()
	d, spec := o.doc, o.spec.Spec
	at := func(path ...string) *yaml.Node { return d.Find(append([]string{"spec"}, path...)...) }
	fail := func(rule string, n *yaml.Node, format string, args ...any) {
		s.find("error", rule, d, n, format, args...)
	}

	if spec.Service == "" {
		fail("service", at("service"), "spec.service is missing: name the service that the promise is about")
	}
	switch spec.BudgetingMethod {
	case "Occurrences":
	case "Timeslices", "RatioTimeslices":
		fail("not-evaluated", at("budgetingMethod"), "budgetingMethod %s is not evaluated by this version: use Occurrences", spec.BudgetingMethod)
	default:
		fail("budgeting-method", at("budgetingMethod"), "budgetingMethod is %q, want Occurrences", spec.BudgetingMethod)
	}
	if len(spec.AlertPolicies) > 0 {
		fail("not-evaluated", at("alertPolicies"), "alert policies are not evaluated by this version: the four burn-rate tiers of the SRE workbook are; take alertPolicies out")
	}
	groupBy, maxGroups := s.groups(o)
	absent, given := o.spec.Metadata.Annotations[AnnotationAbsent]
	if given && absent != "bad" {
		s.find("error", "annotation", d, d.Find("metadata", "annotations", AnnotationAbsent), "annotation %s is %q: the one value is bad", AnnotationAbsent, absent)
	}
	window, err := s.window(spec)
	if err != nil {
		fail("time-window", at("timeWindow"), "%v", err)
	}
	sli := s.sli(o, groupBy)
	if len(spec.Objectives) == 0 {
		fail("objectives", at("objectives"), "an SLO needs at least one objective with a target")
	}
	names := map[string]bool{}
	var made []sla.Objective
	for i, ob := range spec.Objectives {
		idx := strconv.Itoa(i)
		here := func(key string) *yaml.Node { return at("objectives", idx, key) }
		target := s.target(o, i, fail, here)
		for key, set := range map[string]bool{
			"op": ob.Op != "", "value": ob.Value != "", "timeSliceTarget": ob.TimeSliceTarget != "", "timeSliceWindow": ob.TimeSliceWindow != "",
			"indicator": ob.Indicator != nil, "indicatorRef": ob.IndicatorRef != "", "compositeWeight": ob.CompositeWeight != "",
		} {
			if set {
				fail("not-evaluated", here(key), "%s of an objective is not evaluated by this version: take it out, or write an SLO of its own", key)
			}
		}
		name := ob.DisplayName
		if name == "" {
			name = idx
		}
		if names[name] {
			fail("duplicate-name", here("displayName"), "a second objective is named %q: rename one", name)
		}
		names[name] = true
		out := s.objective(o, name, target, window, sli, absent == "bad")
		out.GroupBy, out.MaxGroups = groupBy, maxGroups
		made = append(made, out)
		if !target.IsZero() && err == nil {
			s.tiers(o, target, window, here)
		}
	}
	if s.errors() == before {
		s.objectives = append(s.objectives, made...)
	}
}

func (s *Set) errors() int {
	n := 0
	for _, f := range s.findings {
		if f.IsError() {
			n++
		}
	}
	return n
}

func (s *Set) objective(o *slo, name string, target sla.Target, window sla.Window, sli sla.SLI, absentBad bool) sla.Objective {
	m := o.spec.Metadata
	out := sla.Objective{
		Namespace: m.Namespace, Service: o.spec.Spec.Service, SLO: m.Name, Name: name, Title: m.DisplayName,
		Description: strings.TrimSpace(o.spec.Spec.Description), Team: m.Annotations[AnnotationTeam], Runbook: m.Annotations[AnnotationRunbook],
		Target: target, Window: window, SLI: sli, AbsentBad: absentBad, SpecSHA256: o.hash,
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

func (s *Set) target(o *slo, i int, fail func(string, *yaml.Node, string, ...any), here func(string) *yaml.Node) sla.Target {
	ob := o.spec.Spec.Objectives[i]
	var t sla.Target
	var err error
	key := "target"
	switch {
	case ob.Target != "" && ob.TargetPercent != "":
		fail("target", here("targetPercent"), "give target or targetPercent, not both")
		return t
	case ob.Target != "":
		t, err = sla.ParseTarget(string(ob.Target))
	case ob.TargetPercent != "":
		key = "targetPercent"
		t, err = sla.ParseTargetPercent(string(ob.TargetPercent))
	default:
		fail("target", here("target"), "an objective needs target (0.999) or targetPercent (99.9)")
		return t
	}
	if err != nil {
		fail("target", here(key), "%v", err)
	} else if t.IsAll() {
		s.find("warning", "target-100", o.doc, here(key), "a target of 100 %% leaves no budget: there is no burn rate, and one bad event misses it for the whole period")
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

// tiers warns of burn-rate tiers that can never fire (sloth #341).
func (s *Set) tiers(o *slo, target sla.Target, w sla.Window, here func(string) *yaml.Node) {
	period := w.Rolling
	if period == 0 {
		period = 30 * 24 * time.Hour
	}
	if target.IsAll() {
		return
	}
	for _, t := range sla.Tiers {
		if t.Long > period {
			s.find("warning", "window-too-long", o.doc, here("target"), "tier %s looks at %s, more than the period of %s: it tells nothing new", t.Name, sla.Duration(t.Long), sla.Duration(period))
			continue
		}
		if !t.CanFire(target, period) {
			most := sla.FloorDecimal(target.BudgetRat().Inv(target.BudgetRat()), 2)
			s.find("warning", "cannot-fire", o.doc, here("target"), "tier %s fires above a burn rate of %s, but with a target of %s %% the burn rate never exceeds %s",
				t.Name, sla.FloorDecimal(t.Threshold(period), 2), target.Percent(), most)
		}
	}
}

// sli finds the indicator and returns its queries.
func (s *Set) sli(o *slo, groupBy []string) sla.SLI {
	d, spec := o.doc, o.spec.Spec
	at := func(path ...string) *yaml.Node { return d.Find(append([]string{"spec"}, path...)...) }
	fail := func(rule string, n *yaml.Node, format string, args ...any) {
		s.find("error", rule, d, n, format, args...)
	}
	var ind indicatorSpec
	base := []string{"indicator", "spec"}
	switch {
	case spec.Indicator != nil && spec.IndicatorRef != "":
		fail("indicator", at("indicatorRef"), "give indicator or indicatorRef, not both")
		return sla.SLI{}
	case spec.Indicator != nil:
		ind = spec.Indicator.Spec
	case spec.IndicatorRef != "":
		var ok bool
		if ind, ok = s.indicators[o.spec.Metadata.Namespace+"/"+spec.IndicatorRef]; !ok {
			fail("unknown-reference", at("indicatorRef"), "there is no SLI named %q in namespace %q", spec.IndicatorRef, o.spec.Metadata.Namespace)
			return sla.SLI{}
		}
		base = []string{"indicatorRef"}
	default:
		fail("indicator", at("indicator"), "an SLO needs an indicator (or indicatorRef)")
		return sla.SLI{}
	}
	where := func(path ...string) *yaml.Node { return at(append(append([]string{}, base...), path...)...) }
	if ind.ThresholdMetric != nil {
		fail("not-evaluated", where("thresholdMetric"), "thresholdMetric is not evaluated by this version: write a ratioMetric of counters")
		return sla.SLI{}
	}
	r := ind.RatioMetric
	if r == nil {
		fail("indicator", where("ratioMetric"), "the indicator needs a ratioMetric")
		return sla.SLI{}
	}
	if r.Raw != nil || r.RawType != "" {
		fail("not-evaluated", where("ratioMetric", "raw"), "a raw ratio is not evaluated by this version: give good (or bad) and total, so that events can be counted")
		return sla.SLI{}
	}
	if r.Total == nil || (r.Good == nil) == (r.Bad == nil) {
		fail("indicator", where("ratioMetric"), "a ratioMetric needs total and either good or bad")
		return sla.SLI{}
	}
	query := func(name string, m *metricHolder) string {
		if m == nil {
			return ""
		}
		n := where("ratioMetric", name, "metricSource", "spec", "query")
		if t := m.MetricSource.Type; t != "" && !strings.EqualFold(t, "prometheus") {
			fail("not-evaluated", where("ratioMetric", name, "metricSource", "type"), "metric sources of type %q are not evaluated: use Prometheus", t)
		}
		if ref := m.MetricSource.MetricSourceRef; ref != "" {
			fail("not-evaluated", where("ratioMetric", name, "metricSource", "metricSourceRef"), "metricSourceRef %q is not followed by this version, which counts the samples that it receives: take it out, and give type: Prometheus", ref)
		}
		q := strings.TrimSpace(m.MetricSource.Spec.Query)
		if q == "" {
			fail("query", n, "%s has no query", name)
			return ""
		}
		parsed, err := ParseQuery(q)
		if err != nil {
			fail("not-a-counter", n, "%s: %v", name, err)
			return q
		}
		if parsed.Plain && !r.Counter {
			fail("not-a-counter", n, "%s: a plain selector is counted with counter: true alone", name)
		}
		for _, f := range judge(parsed, name, groupBy) {
			s.find(f.severity, f.rule, d, n, "%s %s", name, f.text)
		}
		return q
	}
	sli := sla.SLI{Good: query("good", r.Good), Bad: query("bad", r.Bad), Total: query("total", r.Total)}
	counted, err := ParseSLI(sli)
	switch part := sli.Good + sli.Bad; {
	case part == "" || sli.Total == "":
	case err != nil && counted.Total.Expr != "": // else it is told above
		fail("mixed-kinds", where("ratioMetric"), "%v", err)
	case err == nil && counted.IsSampled():
		for _, q := range []struct {
			name, text string
			holder     *metricHolder
		}{{"good", sli.Good, r.Good}, {"bad", sli.Bad, r.Bad}, {"total", sli.Total, r.Total}} {
			if own, err := ParseQuery(q.text); err == nil && q.holder != nil && own.Kind != Expression {
				s.find("warning", "sampled", d, where("ratioMetric", q.name, "metricSource", "spec", "query"), "%s could be counted, but is evaluated once a minute as the other side of the ratio is", q.name)
			}
		}
	}
	s.sameTargets(o, sli, where("ratioMetric"))
	return sli
}

// sameTargets warns where good and total select other targets or scopes: their
// ratio is then of two different things.
func (s *Set) sameTargets(o *slo, sli sla.SLI, n *yaml.Node) {
	ind, err := ParseSLI(sli)
	if err != nil || ind.IsSampled() {
		return
	}
	part, total := ind.Part.Matchers, ind.Total.Matchers
	scope := func(name string) (a, b string) {
		for _, m := range part {
			if m.Name == name {
				a = m.String()
			}
		}
		for _, m := range total {
			if m.Name == name {
				b = m.String()
			}
		}
		return a, b
	}
	for _, name := range []string{"job", "instance", "cluster", "namespace", "service"} {
		if a, b := scope(name); a != b {
			s.find("warning", "different-scope", o.doc, n, "good (or bad) selects %s and total selects %s: they count different things", orNothing(a), orNothing(b))
		}
	}
}

func orNothing(s string) string {
	if s == "" {
		return "any"
	}
	return s
}

// window reads the one time window of an SLO.
func (s *Set) window(spec sloSpec) (sla.Window, error) {
	if len(spec.TimeWindow) != 1 {
		return sla.Window{}, fmt.Errorf("an SLO needs exactly one timeWindow, this has %d", len(spec.TimeWindow))
	}
	tw := spec.TimeWindow[0]
	if tw.Duration == "" {
		return sla.Window{}, errors.New("the timeWindow needs a duration such as 30d")
	}
	n, err := strconv.Atoi(tw.Duration[:len(tw.Duration)-1])
	unit := tw.Duration[len(tw.Duration)-1:]
	if err != nil || n < 1 || n > 1000 {
		return sla.Window{}, fmt.Errorf("duration %q is not a number with a unit: 30d, 4w, 12h, or 1M, 1Q, 1Y of a calendar", tw.Duration)
	}
	if tw.IsRolling {
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
	if !ok || n != 1 {
		return sla.Window{}, fmt.Errorf("duration %q of a calendar window: use 1d, 1w, 1M, 1Q or 1Y", tw.Duration)
	}
	w := sla.Window{Calendar: u, Count: 1, Timezone: tw.Calendar.TimeZone}
	if tw.Calendar.StartTime != "" {
		start, err := time.ParseInLocation(time.DateTime, tw.Calendar.StartTime, zone)
		if err != nil {
			return sla.Window{}, fmt.Errorf("startTime %q is not a time such as 2026-01-01 00:00:00", tw.Calendar.StartTime)
		}
		if first, _, err := w.Bounds(sla.MinuteOf(start)); err != nil || !first.Time().Equal(start) {
			return sla.Window{}, fmt.Errorf("startTime %q is not the first instant of a calendar %s, which is where windows begin: move it, or take it out", tw.Calendar.StartTime, u)
		}
	}
	return w, nil
}

// duplicates warns of objectives that mean the same: same queries, same target.
func (s *Set) duplicates() {
	seen := map[string]sla.Objective{}
	for _, o := range s.objectives {
		key := o.SLI.Canonical() + o.Target.String() + o.Window.String()
		if old, ok := seen[key]; ok && old.SLO != o.SLO {
			for _, x := range s.slos {
				if x.spec.Metadata.Name == o.SLO && x.spec.Metadata.Namespace == o.Namespace {
					s.find("warning", "same-meaning", x.doc, x.doc.Find("metadata", "name"), "SLO %q measures the same as SLO %q: both will alert", o.SLO, old.SLO)
				}
			}
		}
		seen[key] = o
	}
}
