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
	"strings"
	"unicode/utf8"

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
	indicators kept[indicatorSpec]
	sources    kept[dataSourceSpec]
	services   kept[serviceSpec]
	policies   kept[policySpec]
	conditions kept[conditionSpec]
	targets    kept[targetSpec]
	others     map[string]bool // kind/namespace/name of every document
	findings   []Finding
	counted    int // of the findings, by errors
	wrong      int // errors among them
	objectives []sla.Objective
	read       map[sla.ID]measured // by objective
	nines      nines
}

// kept are the documents of one kind by namespace/name.
type kept[S any] map[string]*resource[S]

// resource is a document of a kind that SLOs refer to.
type resource[S any] struct {
	doc  strictyaml.Document
	meta metadata
	spec S
	used bool
}

type slo struct {
	doc  strictyaml.Document
	spec document[sloSpec]
	hash string
}

// Findings returns what is wrong, in the order of path, line and column.
func (s *Set) Findings() []Finding { return s.findings }

// Objectives returns the objectives of all SLOs without errors.
func (s *Set) Objectives() []sla.Objective { return s.objectives }

// Shown returns the objectives that people see, without those that only feed
// others.
func Shown(all []sla.Objective) (out []sla.Objective) {
	for _, o := range all {
		if !o.Inner {
			out = append(out, o)
		}
	}
	return out
}

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
	s := &Set{
		indicators: kept[indicatorSpec]{}, sources: kept[dataSourceSpec]{}, services: kept[serviceSpec]{},
		policies: kept[policySpec]{}, conditions: kept[conditionSpec]{}, targets: kept[targetSpec]{}, others: map[string]bool{}, read: map[sla.ID]measured{},
	}
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
	s.unused()
	s.duplicates()
	s.resolveNines()
	sort.SliceStable(s.findings, func(i, j int) bool {
		a, b := s.findings[i], s.findings[j]
		if a.Path != b.Path {
			return a.Path < b.Path
		}
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	s.findings = slices.Compact(s.findings) // what several SLOs refer to is told once
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
	// A folder may hold manifests of other things. One of our kinds is a mistake,
	// but for the Service of Kubernetes.
	ours := slices.Contains(schemaKinds, kind) && version != "v1"
	if version != "" && version != APIVersion && !ours && !strings.HasPrefix(version, "openslo") && !strings.HasPrefix(version, "nines") {
		s.find("warning", "api-version", d, at("apiVersion"), "a %s of apiVersion %q is not an SLO, and is passed over: move it out of this folder", kind, version)
		return
	}
	if version != APIVersion {
		s.find("error", "api-version", d, at("apiVersion"), "apiVersion is %q, want %q (or %q for %s)", version, APIVersion, NinesVersion, strings.Join(ninesKinds, ", "))
		return
	}
	switch kind {
	case "SLO":
		o := &slo{doc: d}
		if err := d.Decode(&o.spec); err != nil {
			s.take("schema", err)
			return
		}
		text, err := yaml.Marshal(d.Node)
		if err != nil {
			s.find("error", "schema", d, d.Node, "cannot be written again: %v", err)
			return
		}
		o.hash = fmt.Sprintf("%x", sha256.Sum256(text))
		if s.named(d, kind, o.spec.Metadata) {
			s.description(d, o.spec.Spec.Description)
			s.slos = append(s.slos, o)
		}
	case "SLI":
		keep(s, d, kind, s.indicators, func(i *indicatorSpec) string { return i.Description })
	case "DataSource":
		keep(s, d, kind, s.sources, func(i *dataSourceSpec) string { return i.Description })
	case "Service":
		keep(s, d, kind, s.services, func(i *serviceSpec) string { return i.Description })
	case "AlertPolicy":
		keep(s, d, kind, s.policies, func(i *policySpec) string { return i.Description })
	case "AlertCondition":
		keep(s, d, kind, s.conditions, func(i *conditionSpec) string { return i.Description })
	case "AlertNotificationTarget":
		keep(s, d, kind, s.targets, func(i *targetSpec) string { return i.Description })
	default:
		s.find("error", "kind", d, at("kind"), "kind %q is not one of SLO, SLI, Service, DataSource, AlertPolicy, AlertCondition, AlertNotificationTarget", kind)
	}
}

// keep decodes a document that others refer to and takes it in.
func keep[S any](s *Set, d strictyaml.Document, kind string, into kept[S], description func(*S) string) {
	var in document[S]
	if err := d.Decode(&in); err != nil {
		s.take("schema", err)
		return
	}
	if s.named(d, kind, in.Metadata) {
		s.description(d, description(&in.Spec))
		into[in.Metadata.Namespace+"/"+in.Metadata.Name] = &resource[S]{doc: d, meta: in.Metadata, spec: in.Spec}
	}
}

const (
	// What the specification allows, in characters.
	maxDescription = 1050
	longestName    = 255
)

// usualName is what every implementation must take, and anyName what the
// specification encourages beyond that.
var (
	usualName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	anyName   = regexp.MustCompile(`^[-a-z0-9.|/\\]+$`)
	labelKey  = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
)

// named checks a document's name and takes it.
func (s *Set) named(d strictyaml.Document, kind string, m metadata) bool {
	if m.Name == "" {
		s.find("error", "name", d, d.Find("metadata"), "metadata.name is missing")
		return false
	}
	n := d.Find("metadata", "name")
	switch {
	case len(m.Name) > longestName:
		s.find("error", "name", d, n, "the name has %d characters, at most %d are taken: shorten it", len(m.Name), longestName)
		return false
	case !usualName.MatchString(m.Name) && !anyName.MatchString(m.Name):
		s.find("warning", "name", d, n, "name %q is not one that other programs need to take: use lower-case letters, digits and - (RFC 1123)", m.Name)
	}
	for key := range m.Labels {
		_, name, prefixed := strings.Cut(key, "/")
		if !prefixed {
			name = key
		}
		if !labelKey.MatchString(name) {
			s.find("warning", "label", d, d.Find("metadata", "labels", key), "label %q: a key has at most 63 letters, digits, -, _ and ., and begins and ends with a letter or digit", key)
		}
	}
	id := kind + "/" + m.Namespace + "/" + m.Name
	if s.others[id] {
		s.find("error", "duplicate-name", d, n, "a second %s is named %q in namespace %q: rename one", kind, m.Name, m.Namespace)
		return false
	}
	s.others[id] = true
	return true
}

func (s *Set) description(d strictyaml.Document, text string) {
	if n := utf8.RuneCountInString(text); n > maxDescription {
		s.find("warning", "long-description", d, d.Find("spec", "description"), "the description has %d characters, other programs take %d: shorten it", n, maxDescription)
	}
}

func (s *Set) errors() int {
	// It is asked twice for each SLO: only what is new is counted.
	for _, f := range s.findings[s.counted:] {
		if f.IsError() {
			s.wrong++
		}
	}
	s.counted = len(s.findings)
	return s.wrong
}

// unused warns of documents that nothing refers to.
func (s *Set) unused() {
	unusedOf(s, s.indicators, "SLI", "indicatorRef")
	unusedOf(s, s.sources, "DataSource", "metricSourceRef")
	unusedOf(s, s.policies, "AlertPolicy", "alertPolicyRef")
	unusedOf(s, s.conditions, "AlertCondition", "conditionRef")
	unusedOf(s, s.targets, "AlertNotificationTarget", "targetRef")
}

func unusedOf[S any](s *Set, all kept[S], kind, key string) {
	for _, r := range all {
		if !r.used {
			s.find("warning", "unused", r.doc, r.doc.Find("metadata", "name"), "no SLO refers to %s %q: name it in %s, or take it out", kind, r.meta.Name, key)
		}
	}
}

// meaning is the text of an indicator in which parts stand for themselves: their
// identity has the name of their SLO.
func meaning(sli sla.SLI, byID map[sla.ID]sla.SLI) string {
	var b strings.Builder
	sli.Parts = slices.Clone(sli.Parts)
	for i, p := range sli.Parts {
		fmt.Fprintf(&b, "(%s)", meaning(byID[p.Objective], byID))
		sli.Parts[i].Objective = sla.ID{}
	}
	return b.String() + sli.Canonical()
}

// duplicates warns of SLOs of one name, which other programs do not tell apart
// (sloth #602), and of objectives that mean the same: same queries, same target.
func (s *Set) duplicates() {
	byID := map[sla.ID]sla.SLI{}
	for _, o := range s.objectives {
		byID[o.ID] = o.SLI
	}
	names := map[string]string{}
	for _, x := range s.slos {
		m := x.spec.Metadata
		if other, ok := names[m.Name]; ok {
			s.find("warning", "same-name", x.doc, x.doc.Find("metadata", "name"), "namespace %q has an SLO %q, too: here they are told apart by slo_namespace, but dashboards and rules that select by name alone mix them up; rename one", other, m.Name)
		} else {
			names[m.Name] = m.Namespace
		}
	}
	seen := map[string]sla.Objective{}
	for _, o := range s.objectives {
		if o.Inner {
			continue
		}
		key := meaning(o.SLI, byID) + o.Target.String() + o.Window.String()
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
