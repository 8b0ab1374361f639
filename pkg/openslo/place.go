package openslo

import (
	"slices"

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

// measured is where an objective was read.
type measured struct {
	slo     strictyaml.Document
	queries []QueryPlace // of its indicator
}

// QueryPlaces tells where the queries of each objective stand, by the
// objective's ID. A query in an SLI document stands there, and one that is an
// alias where the alias points; one that is not found is placed at the beginning
// of its SLO.
func (s *Set) QueryPlaces() map[sla.ID][]QueryPlace {
	places := map[sla.ID][]QueryPlace{}
	for _, o := range s.objectives {
		read := s.read[o.ID]
		for _, q := range []struct{ side, text string }{
			{"good", o.SLI.Good}, {"bad", o.SLI.Bad}, {"total", o.SLI.Total}, {"raw", o.SLI.Raw}, {"value", o.SLI.Value},
		} {
			if q.text == "" {
				continue
			}
			place := placed(q.side, q.text, read.slo, read.slo.Node)
			if i := slices.IndexFunc(read.queries, func(p QueryPlace) bool { return p.Side == q.side && p.Query == q.text }); i >= 0 {
				place = read.queries[i]
			}
			places[o.ID] = append(places[o.ID], place)
		}
	}
	return places
}

func placed(side, query string, d strictyaml.Document, n *yaml.Node) QueryPlace {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return QueryPlace{side, query, d.File, n.Line, n.Column}
}
