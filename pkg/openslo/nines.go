package openslo

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

// NinesVersion is the apiVersion of the kinds that OpenSLO does not have.
const NinesVersion = "nines/v1"

// ninesKinds are the kinds of NinesVersion.
var ninesKinds = []string{"Agreement", "Exclusion", "KPI"}

// Bounds of what people write in documents of NinesVersion.
const (
	maxText        = 1050  // characters of a description or reason, as OpenSLO has it for descriptions
	maxName        = 253   // characters of a name, as Kubernetes has it
	maxPromises    = 1_000 // objectives of an agreement
	maxCreditTiers = 20
	maxDependsOn   = 100
	maxMatchers    = 32
	maxSeries      = 100
	maxExclusions  = 1_000 // in one set, for they are compared with each other
)

// ninesName is what can become the name of a Kubernetes object.
var ninesName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// nines holds the documents of NinesVersion in a set.
type nines struct {
	read struct { // as decoded, in the order of files and lines
		agreements []*agreement
		exclusions []*exclusion
		kpis       []*kpi
	}
	agreements []Agreement
	exclusions []Exclusion
	kpis       []KPI
}

// Agreements returns the agreements without errors, in the order of their files.
func (s *Set) Agreements() []Agreement { return s.nines.agreements }

// Exclusions returns the exclusions without errors, in the order of their files.
func (s *Set) Exclusions() []Exclusion { return s.nines.exclusions }

// KPIs returns the KPIs without errors, in the order of their files.
func (s *Set) KPIs() []KPI { return s.nines.kpis }

// decodeNines decodes one document of NinesVersion by its kind.
func (s *Set) decodeNines(d strictyaml.Document, kind string) {
	var meta *metadata
	var out any
	var keep func()
	switch kind {
	case "Agreement":
		a := &agreement{checker: checker{s: s, d: d}}
		out, meta, keep = &a.doc, &a.doc.Metadata, func() { s.nines.read.agreements = append(s.nines.read.agreements, a) }
	case "Exclusion":
		e := &exclusion{checker: checker{s: s, d: d}}
		out, meta, keep = &e.doc, &e.doc.Metadata, func() { s.nines.read.exclusions = append(s.nines.read.exclusions, e) }
	case "KPI":
		k := &kpi{checker: checker{s: s, d: d}}
		out, meta, keep = &k.doc, &k.doc.Metadata, func() { s.nines.read.kpis = append(s.nines.read.kpis, k) }
	default:
		s.find("error", "kind", d, d.Find("kind"), "kind %q is not one of %s, which are the kinds of %s", kind, strings.Join(ninesKinds, ", "), NinesVersion)
		return
	}
	if err := d.Decode(out); err != nil {
		s.take("schema", err)
		return
	}
	name := d.Find("metadata", "name")
	switch {
	case meta.Name == "":
		s.find("error", "name", d, d.Find("metadata"), "metadata.name is missing")
		return
	case len(meta.Name) > maxName || !ninesName.MatchString(meta.Name):
		s.find("error", "name", d, name, "metadata.name %q cannot name an object in Kubernetes: use up to %d lower-case letters, digits, - and ., with a letter or digit at both ends", meta.Name, maxName)
		return
	}
	id := kind + "/" + meta.Namespace + "/" + meta.Name
	if s.others[id] {
		s.find("error", "duplicate-name", d, name, "a second %s is named %q in namespace %q: rename one", kind, meta.Name, meta.Namespace)
		return
	}
	s.others[id] = true
	keep()
}

// resolveNines checks the documents of NinesVersion. It comes after the SLOs,
// whose objectives they name.
func (s *Set) resolveNines() {
	s.resolveAgreements()
	s.resolveExclusions()
	s.resolveKPIs()
}

// checker finds mistakes in one document.
type checker struct {
	s   *Set
	d   strictyaml.Document
	bad bool // has an error
}

// at returns the place of a field of the spec, or the nearest one to it.
func (c *checker) at(path ...string) *yaml.Node {
	return c.d.Find(append([]string{"spec"}, path...)...)
}

// dotted writes the path of a field as the decoder does: spec.roles[0].
func dotted(path []string) string {
	out := "spec"
	for _, p := range path {
		if _, err := strconv.Atoi(p); err == nil {
			out += "[" + p + "]"
		} else {
			out += "." + p
		}
	}
	return out
}

func (c *checker) fail(rule string, n *yaml.Node, format string, args ...any) {
	c.bad = true
	c.s.find("error", rule, c.d, n, format, args...)
}

func (c *checker) warn(rule string, n *yaml.Node, format string, args ...any) {
	c.s.find("warning", rule, c.d, n, format, args...)
}

// text checks a text that must be there.
func (c *checker) text(value, what string, path ...string) {
	if strings.TrimSpace(value) == "" {
		c.fail("required", c.at(path...), "%s is missing: %s", dotted(path), what)
		return
	}
	c.short(value, path...)
}

// short checks the length of a text that may be there.
func (c *checker) short(value string, path ...string) {
	if n := len([]rune(value)); n > maxText {
		c.fail("value", c.at(path...), "%s has %d characters: want at most %d", dotted(path), n, maxText)
	}
}

// oneOf checks a value that must be one of a list.
func (c *checker) oneOf(value string, list []string, path ...string) bool {
	if slices.Contains(list, value) {
		return true
	}
	name, want := dotted(path), strings.Join(list, ", ")
	if value == "" {
		c.fail("required", c.at(path...), "%s is missing: give one of %s", name, want)
	} else {
		c.fail("value", c.at(path...), "%s is %q: want one of %s", name, value, want)
	}
	return false
}

// atMost checks the length of a list.
func (c *checker) atMost(n, most int, path ...string) bool {
	if n > most {
		c.fail("value", c.at(path...), "%s has %d items: want at most %d", dotted(path), n, most)
	}
	return n <= most
}

// zone checks an IANA time zone. The host's own is refused: the same document
// means the same on any host (R30).
func (c *checker) zone(name string, path ...string) *time.Location {
	if name == "" {
		c.fail("required", c.at(path...), "%s is missing: give an IANA name such as Europe/Berlin", dotted(path))
		return nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		c.fail("unknown-zone", c.at(path...), "time zone %q is not known: use an IANA name such as Europe/Berlin", name)
		return nil
	}
	return zone
}

// length checks a duration such as 30d that must be between two bounds.
func (c *checker) length(text string, least, most time.Duration, path ...string) time.Duration {
	d, err := shorthand(text)
	if err != nil || d < least || d > most {
		c.fail("value", c.at(path...), "%s is %q: want a number with m, h, d or w, from %s to %s", dotted(path), text, sla.WindowName(least), sla.WindowName(most))
		return 0
	}
	return d
}

// shorthand reads OpenSLO's duration shorthand, of the units that have one
// length: m, h, d and w.
func shorthand(text string) (time.Duration, error) {
	units := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if text == "" {
		return 0, fmt.Errorf("no duration")
	}
	unit, ok := units[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 16)
	if err != nil || !ok || n > 9_999 {
		return 0, fmt.Errorf("duration %q is not a number with m, h, d or w", text)
	}
	return time.Duration(n) * unit, nil // 9,999 weeks fit
}

// exact reads a plain decimal number of at most so many digits before and after
// the point. It never passes through a float.
func exact(text decimal, whole, decimals int) (*big.Rat, error) {
	digits := strings.TrimPrefix(string(text), "-")
	w, f, _ := strings.Cut(digits, ".")
	if w == "" || strings.Trim(w+f, "0123456789") != "" {
		return nil, fmt.Errorf("%q is not a plain decimal number", string(text))
	}
	if len(strings.TrimLeft(w, "0")) > whole || len(f) > decimals {
		return nil, fmt.Errorf("%q has more than %d digits before or %d behind the point", string(text), whole, decimals)
	}
	r, ok := new(big.Rat).SetString(string(text))
	if !ok {
		return nil, fmt.Errorf("%q is not a plain decimal number", string(text))
	}
	return r, nil
}

// hashed returns the SHA-256 of the document in hex.
func (c *checker) hashed() string {
	text, err := yaml.Marshal(c.d.Node)
	if err != nil {
		c.fail("schema", c.d.Node, "cannot be written again: %v", err)
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// labelled returns labels with their values as text.
func labelled(m metadata) map[string]string {
	if len(m.Labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(m.Labels))
	for k, v := range m.Labels {
		out[k] = string(v)
	}
	return out
}
