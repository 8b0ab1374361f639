// Package metric owns what is said about series: the shape in which one tick's
// samples travel inside the agent, the Prometheus text form of it, and the
// definition (type, unit, labels, help) of every series name of our own.
//
// It refuses state: no registries, no clocks, no collection. Samples enter as
// Families or as text, and leave as Families or as text.
package metric

import (
	"fmt"
	"slices"
	"strings"
)

// Type says how the values of a family move.
type Type string

// The types of the Prometheus text format. Unknown is its "untyped".
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
	Summary   Type = "summary"
	Unknown   Type = "unknown"
)

// Label is one name with its value.
type Label struct{ Name, Value string }

// Family is what one source says about one metric name at one tick.
type Family struct {
	Name, Help string
	Unit       string // base unit, such as "seconds" or "bytes"; empty where none
	Type       Type
	Series     []Series
}

// Series is one sample of a family.
type Series struct {
	Labels []Label // sorted by name, without __name__
	Value  float64
	Start  int64 // start timestamp of a counter, ms since the epoch; 0 is unknown
	// Suffix is appended to the family's name: "_bucket", "_sum" and "_count"
	// of histograms and summaries, empty for all else.
	Suffix string
}

// Labels returns the pairs of name and value given in turn, sorted by name.
// It panics on an odd number of strings, which is a bug of the caller.
func Labels(pairs ...string) []Label {
	if len(pairs)%2 != 0 {
		panic(fmt.Sprintf("metric.Labels: %d strings are not pairs", len(pairs)))
	}
	ls := make([]Label, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, Label{pairs[i], pairs[i+1]})
	}
	SortLabels(ls)
	return ls
}

// SortLabels sorts by name, in place.
func SortLabels(ls []Label) {
	slices.SortFunc(ls, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
}

// Merge returns the labels of a and b sorted by name. Where both have a name,
// b's value stands.
func Merge(a, b []Label) []Label {
	out := make([]Label, 0, len(a)+len(b))
	for _, l := range a {
		if !slices.ContainsFunc(b, func(x Label) bool { return x.Name == l.Name }) {
			out = append(out, l)
		}
	}
	out = append(out, b...)
	SortLabels(out)
	return out
}

// Count returns the number of samples in the families.
func Count(fams []Family) int {
	n := 0
	for _, f := range fams {
		n += len(f.Series)
	}
	return n
}

// Def documents one series name of ours.
type Def struct {
	Name   string
	Type   Type
	Unit   string   // base unit in which the value counts; empty where it counts events or states
	Labels []string // beside those that every sample carries: job, instance, cluster, node
	Help   string   // one sentence or more, each with its full stop
}

// All returns the definitions of every series of ours, sorted by name.
func All() []Def {
	all := slices.Concat(agentDefs, cgroupDefs, kubeletDefs, logDefs, otlpDefs, probeDefs, scrapeDefs, targetDefs, aggregatorDefs, ledgerDefs, storeDefs)
	slices.SortFunc(all, func(a, b Def) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Describe fills type, unit and help of families that a definition of ours
// names, in place. Others stay as they are.
func Describe(fams []Family) {
	byName := make(map[string]Def)
	for _, d := range All() {
		byName[d.Name] = d
	}
	for i := range fams {
		if d, ok := byName[fams[i].Name]; ok {
			fams[i].Type, fams[i].Unit, fams[i].Help = d.Type, d.Unit, d.Help
		}
	}
}

// Help returns the help text of a series of ours. It panics for a name without
// a definition, which is a bug of the caller.
func Help(name string) string {
	for _, d := range All() {
		if d.Name == name {
			return d.Help
		}
	}
	panic("metric.Help: no definition of " + name)
}
