package metric

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// ContentType is the media type of what WriteText writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// WriteText writes the families in the Prometheus text format 0.0.4, sorted by
// name, each family's samples in the order given. Families without samples
// are left out. Start timestamps have no place in this format.
func WriteText(w io.Writer, fams []Family) error {
	order := make([]int, 0, len(fams))
	for i, f := range fams {
		if len(f.Series) > 0 {
			order = append(order, i)
		}
	}
	sort.SliceStable(order, func(i, j int) bool { return fams[order[i]].Name < fams[order[j]].Name })

	b := bufio.NewWriter(w)
	for _, i := range order {
		f := fams[i]
		if f.Help != "" {
			b.WriteString("# HELP " + f.Name + " " + helpEscaper.Replace(f.Help) + "\n")
		}
		t := f.Type
		if t == Unknown || t == "" {
			t = "untyped"
		}
		b.WriteString("# TYPE " + f.Name + " " + string(t) + "\n")
		for _, s := range f.Series {
			b.WriteString(f.Name + s.Suffix)
			for i, l := range s.Labels {
				if i == 0 {
					b.WriteByte('{')
				} else {
					b.WriteByte(',')
				}
				b.WriteString(l.Name + `="` + valueEscaper.Replace(l.Value) + `"`)
			}
			if len(s.Labels) > 0 {
				b.WriteByte('}')
			}
			b.WriteString(" " + formatValue(s.Value) + "\n")
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func formatValue(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case math.IsNaN(v):
		return "NaN"
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// ParseText reads the Prometheus text format 0.0.4. Samples of one family that
// are not adjacent are brought together. Timestamps and exemplars are ignored.
// On an error nothing is returned: half a page would look like resets.
func ParseText(data []byte) ([]Family, error) {
	p := textparse.NewPromParser(data, labels.NewSymbolTable(), false)
	var fams []Family
	at := map[string]int{}
	family := func(name string) *Family {
		i, ok := at[name]
		if !ok {
			i = len(fams)
			at[name] = i
			fams = append(fams, Family{Name: name, Type: Unknown})
		}
		return &fams[i]
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("parse metrics text: %w", err)
		}
		switch entry {
		case textparse.EntryHelp:
			name, help := p.Help()
			family(string(name)).Help = string(help)
		case textparse.EntryType:
			name, typ := p.Type()
			t := Type(typ)
			switch t {
			case Counter, Gauge, Histogram, Summary:
			default:
				t = Unknown
			}
			family(string(name)).Type = t
		case textparse.EntrySeries:
			_, _, v := p.Series()
			var ls labels.Labels
			p.Labels(&ls)
			s := Series{Value: v}
			name := ""
			ls.Range(func(l labels.Label) {
				if l.Name == model.MetricNameLabel {
					name = strings.Clone(l.Value)
					return
				}
				s.Labels = append(s.Labels, Label{strings.Clone(l.Name), strings.Clone(l.Value)})
			})
			f := family(s.base(name, fams, at))
			f.Series = append(f.Series, s)
		}
	}
	kept := fams[:0]
	for _, f := range fams {
		if len(f.Series) > 0 {
			kept = append(kept, f)
		}
	}
	return kept, nil
}

// base finds the family that a sample's name belongs to and sets the suffix:
// x_count belongs to x where x was declared a histogram or a summary.
func (s *Series) base(name string, fams []Family, at map[string]int) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, suffix)
		if !ok {
			continue
		}
		i, known := at[base]
		if known && (fams[i].Type == Histogram || fams[i].Type == Summary && suffix != "_bucket") {
			s.Suffix = suffix
			return base
		}
	}
	return name
}
