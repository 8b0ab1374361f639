package store

import (
	"slices"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// copyValue copies what the engine would reuse for its next query.
func copyValue(v parser.Value) parser.Value {
	switch v := v.(type) {
	case promql.Vector:
		return slices.Clone(v)
	case promql.Matrix:
		m := slices.Clone(v)
		for i := range m {
			m[i].Floats = slices.Clone(m[i].Floats)
			m[i].Histograms = slices.Clone(m[i].Histograms)
		}
		return m
	}
	return v
}

// stale says whether the sample ends its series.
func (s *Sample) stale() bool {
	switch {
	case s.H != nil:
		return value.IsStaleNaN(s.H.Sum)
	case s.FH != nil:
		return value.IsStaleNaN(s.FH.Sum)
	}
	return value.IsStaleNaN(s.V)
}
