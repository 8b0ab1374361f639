package node

import (
	"strings"

	"nines/pkg/metric"
)

// column is one metric of a source that has many rows of the same figures,
// such as a disk or an interface each.
type column[T any] struct {
	name, help string
	typ        metric.Type
	value      func(T) float64
	// has says whether a row has this figure at all; nil is always.
	has func(T) bool
}

// row is one device with its labels.
type row[T any] struct {
	labels []metric.Label
	data   T
}

// table turns rows into one family for each column. Counters carry start.
func table[T any](columns []column[T], rows []row[T], start int64) []metric.Family {
	fams := make([]metric.Family, 0, len(columns))
	for _, c := range columns {
		f := metric.Family{Name: c.name, Help: c.help, Type: c.typ, Unit: unitOf(c.name)}
		for _, r := range rows {
			if c.has != nil && !c.has(r.data) {
				continue
			}
			s := metric.Series{Labels: r.labels, Value: c.value(r.data)}
			if c.typ != metric.Gauge {
				s.Start = start
			}
			f.Series = append(f.Series, s)
		}
		if len(f.Series) > 0 {
			fams = append(fams, f)
		}
	}
	return fams
}

// unitOf reads the base unit off the end of a name.
func unitOf(name string) string {
	name = strings.TrimSuffix(name, "_total")
	for _, u := range []string{"seconds", "bytes"} {
		if strings.HasSuffix(name, "_"+u) {
			return u
		}
	}
	return ""
}
