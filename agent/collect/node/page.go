package node

import (
	"fmt"
	"strings"

	"nines/pkg/metric"
)

// def is one metric of a source: what is said about all series of its name.
type def struct {
	name, help, unit string
	typ              metric.Type
	// kernel says that the counter began when the kernel did, so that its start
	// timestamp is known. Those of devices, mounts and services begin when these
	// come, which nothing tells.
	kernel bool
}

func gauge(name, help string) *def   { return &def{name, help, unitOf(name), metric.Gauge, false} }
func counter(name, help string) *def { return &def{name, help, unitOf(name), metric.Counter, false} }
func kernelCounter(name, help string) *def {
	return &def{name, help, unitOf(name), metric.Counter, true}
}

// kernelUntyped is for the counters among gauges of the kernel that node_exporter
// passes on without a type.
func kernelUntyped(name, help string) *def {
	return &def{name, help, unitOf(name), metric.Unknown, true}
}

// unitOf reads the base unit off the end of a name.
func unitOf(name string) string {
	name = strings.TrimSuffix(name, "_total")
	for _, u := range []string{"seconds", "bytes", "celsius", "volts", "hertz", "joules"} {
		if strings.HasSuffix(name, "_"+u) {
			return u
		}
	}
	return ""
}

// maxSeries bounds what one source may give at one tick. A node with 2,000
// interfaces has 80,000 series of them; what is beyond is a source gone mad,
// such as a file of the textfile folder, and fails.
const maxSeries = 100_000

// page takes what the sources of one tick say. All families share one array of
// series, so that a tick costs few allocations; the array is handed out with
// them and not used again.
type page struct {
	fams   []metric.Family
	series []metric.Series
	start  int64 // of counters that began with the kernel, ms since the epoch

	from   int // first series of the open family
	open   bool
	kernel bool // the open family's counters began with the kernel
	limit  int  // of series, for the source that writes
	over   bool // the source wrote more
}

// family opens a family; what was open is closed. One without series is left
// out.
func (p *page) family(d *def) {
	p.close()
	p.fams = append(p.fams, metric.Family{Name: d.name, Help: d.help, Unit: d.unit, Type: d.typ})
	p.from, p.open, p.kernel = len(p.series), true, d.kernel
}

// add writes a series of the open family. Labels are sorted by name, and not
// changed by anyone afterwards.
func (p *page) add(labels []metric.Label, v float64) { p.addSuffix(labels, "", v) }

func (p *page) addSuffix(labels []metric.Label, suffix string, v float64) {
	if len(p.series) >= p.limit {
		p.over = true
		return
	}
	s := metric.Series{Labels: labels, Value: v, Suffix: suffix}
	if p.kernel {
		s.Start = p.start
	}
	p.series = append(p.series, s)
}

// one writes a family of a single series without labels.
func (p *page) one(d *def, v float64) {
	p.family(d)
	p.add(nil, v)
}

// with writes a family of a single series with labels.
func (p *page) with(d *def, labels []metric.Label, v float64) {
	p.family(d)
	p.add(labels, v)
}

func (p *page) close() {
	if !p.open {
		return
	}
	p.open = false
	if p.from == len(p.series) {
		p.fams = p.fams[:len(p.fams)-1]
		return
	}
	p.fams[len(p.fams)-1].Series = p.series[p.from:len(p.series):len(p.series)]
}

// mark remembers how far the page is, so that a source that fails leaves
// nothing behind.
type mark struct{ fams, series int }

func (p *page) mark() mark {
	p.close()
	p.limit, p.over = len(p.series)+maxSeries, false
	return mark{len(p.fams), len(p.series)}
}

func (p *page) cut(m mark) {
	p.open = false
	p.fams, p.series = p.fams[:m.fams], p.series[:m.series]
}

// overflow is the error of a source that wrote more than maxSeries.
func (p *page) overflow() error {
	if !p.over {
		return nil
	}
	return fmt.Errorf("more than %d series: leave devices out by the patterns of metrics.node, or switch the collector off there", maxSeries)
}

// column is one metric of a source that has many rows of the same figures,
// such as a disk or an interface each.
type column[T any] struct {
	*def
	// value returns the figure of a row, and whether the row has it at all.
	value func(*T) (float64, bool)
}

// always is a column that every row has.
func always[T any](d *def, v func(*T) float64) column[T] {
	return column[T]{d, func(r *T) (float64, bool) { return v(r), true }}
}

// row is one device with its labels.
type row[T any] struct {
	labels []metric.Label
	data   T
}

// table writes one family for each column.
func table[T any](p *page, columns []column[T], rows []row[T]) {
	for i := range columns {
		p.family(columns[i].def)
		for j := range rows {
			if v, ok := columns[i].value(&rows[j].data); ok {
				p.add(rows[j].labels, v)
			}
		}
	}
}

// Caches hold what is the same at every tick, by the name that the kernel
// gives. Names come and go with devices; a full cache is emptied, which costs
// one tick its allocations.
const maxCached = 16384

// defs makes a def for each name that the kernel gives.
type defs struct {
	known map[string]*def
	make  func(name string) *def // nil where the name is not shown
}

func newDefs(build func(name string) *def) *defs {
	return &defs{known: map[string]*def{}, make: build}
}

// of returns the def of a name, nil where it is not shown.
func (d *defs) of(name []byte) *def {
	if found, ok := d.known[string(name)]; ok {
		return found
	}
	if len(d.known) >= maxCached {
		clear(d.known)
	}
	text := string(name)
	made := d.make(text)
	d.known[text] = made
	return made
}

// labelSets makes a label set of one label for each value.
type labelSets struct {
	label string
	known map[string][]metric.Label
}

func newLabelSets(label string) *labelSets {
	return &labelSets{label: label, known: map[string][]metric.Label{}}
}

func (l *labelSets) of(value []byte) []metric.Label {
	if found, ok := l.known[string(value)]; ok {
		return found
	}
	if len(l.known) >= maxCached {
		clear(l.known)
	}
	text := strings.Clone(valid(string(value)))
	made := []metric.Label{{Name: l.label, Value: text}}
	l.known[string(value)] = made
	return made
}

// valid returns text that may be a label's value.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// labels returns the pairs that have a value, sorted by name: to Prometheus an
// empty label and none are the same.
func labels(pairs ...string) []metric.Label {
	ls := make([]metric.Label, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			ls = append(ls, metric.Label{Name: pairs[i], Value: valid(pairs[i+1])})
		}
	}
	metric.SortLabels(ls)
	return ls
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// newPage has room for as much as the last tick gave.
func newPage(start int64, fams, series int) page {
	return page{fams: make([]metric.Family, 0, fams+16), series: make([]metric.Series, 0, series+64), start: start}
}
