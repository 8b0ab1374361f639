package openslo

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

// QueryPlace is where a query of an objective stands.
type QueryPlace struct {
	// Side is what the query gives: good, bad, total, raw or value.
	Side         string
	Query        string // as the objective has it, without space around it
	Path         string
	Line, Column int // from 1
}

// maxPlaceNodes and maxPlaceDepth bound what is looked at of one document, for an
// alias may lead to the same nodes again and again, and into itself.
const (
	maxPlaceNodes = 100_000
	maxPlaceDepth = 64
)

// QueryPlaces tells where the queries of each objective stand, by the
// objective's ID. files are those that the set was loaded from. A query in an
// SLI document stands there; one that is not found is placed at the beginning
// of its SLO.
func (s *Set) QueryPlaces(files map[string][]byte) map[sla.ID][]QueryPlace {
	type name struct{ kind, namespace, name string }
	documents := map[name]written{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		docs, err := strictyaml.Documents(path, files[path])
		if err != nil {
			continue // a finding of the set
		}
		for _, d := range docs {
			n := name{kind: scalarAt(d.Node, "kind"), namespace: scalarAt(d.Node, "metadata", "namespace"), name: scalarAt(d.Node, "metadata", "name")}
			if _, twice := documents[n]; !twice { // as in the set, the first one counts
				documents[n] = readWritten(d)
			}
		}
	}
	places := map[sla.ID][]QueryPlace{}
	for _, o := range s.objectives {
		slo := documents[name{"SLO", o.Namespace, o.SLO}]
		near := slo.queries
		for _, ref := range slo.refs {
			near = slices.Concat(near, documents[name{"SLI", o.Namespace, ref}].queries)
		}
		for _, q := range []struct{ side, text string }{
			{"good", o.SLI.Good}, {"bad", o.SLI.Bad}, {"total", o.SLI.Total}, {"raw", o.SLI.Raw}, {"value", o.SLI.Value},
		} {
			if q.text == "" {
				continue
			}
			place := QueryPlace{Side: q.side, Query: q.text, Path: slo.path, Line: slo.line, Column: slo.column}
			if i := slices.IndexFunc(near, func(p QueryPlace) bool { return p.Side == q.side && p.Query == q.text }); i >= 0 {
				place = near[i]
			}
			places[o.ID] = append(places[o.ID], place)
		}
	}
	return places
}

// written is what one document says of queries.
type written struct {
	path         string
	line, column int
	queries      []QueryPlace
	refs         []string // names of SLI documents
}

func readWritten(d strictyaml.Document) written {
	w := written{path: d.File, line: d.Node.Line, column: d.Node.Column}
	left := maxPlaceNodes
	var walk func(n *yaml.Node, path []string, depth int)
	walk = func(n *yaml.Node, path []string, depth int) {
		if left--; left < 0 || depth > maxPlaceDepth {
			return
		}
		switch n.Kind {
		case yaml.AliasNode:
			walk(n.Alias, path, depth+1)
		case yaml.SequenceNode:
			for _, c := range n.Content {
				walk(c, path, depth+1)
			}
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				walk(n.Content[i+1], append(slices.Clip(path), n.Content[i].Value), depth+1)
			}
		case yaml.ScalarNode:
			if len(path) == 0 {
				return
			}
			if path[len(path)-1] == "indicatorRef" {
				w.refs = append(w.refs, n.Value)
			}
			if at := len(path) - 4; at >= 0 && slices.Equal(path[at+1:], []string{"metricSource", "spec", "query"}) {
				side := path[at]
				if side == "thresholdMetric" {
					side = "value"
				}
				w.queries = append(w.queries, QueryPlace{side, strings.TrimSpace(n.Value), d.File, n.Line, n.Column})
			}
		}
	}
	walk(d.Node, nil, 0)
	return w
}

// scalarAt returns the text below the keys, empty where there is none.
func scalarAt(n *yaml.Node, keys ...string) string {
	for _, key := range keys {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == key {
					next = n.Content[i+1]
				}
			}
		}
		if next == nil {
			return ""
		}
		n = next
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}
