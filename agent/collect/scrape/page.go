package scrape

import (
	"bufio"
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/pkg/metric"
)

// row is one series of the page.
type row struct {
	family family
	name   string // of the series
	owner  string // id of its target
	ls     labels.Labels
	v, n   float64
}

// ServeHTTP writes the newest sample of every series of all targets in the
// Prometheus text format 0.0.4, by family, with the labels that are sent, but
// for those that every sample of the agent gets. Timestamps, start timestamps
// and exemplars have no place there. Of a native histogram it shows _count and
// _sum alone. Names that the format cannot hold have _ for each character that
// is wrong. A target that fails has only up and its companions.
func (s *Scraper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", metric.ContentType)
	b := bufio.NewWriter(w)
	rows := s.table.rows()
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].family.name == rows[0].family.name {
			n++
		}
		if err := metric.WriteText(b, []metric.Family{pageFamily(rows[:n])}); err != nil {
			return // the client has gone
		}
		rows = rows[n:]
	}
	if err := b.Flush(); err != nil {
		s.log.Debug("page of the pods was not read to its end", "error", err)
	}
}

// rows are the series that their targets had at their newest scrape, by family
// and target, otherwise in the order of the targets' pages.
func (tb *table) rows() []row {
	tb.mu.Lock()
	rows := make([]row, 0, len(tb.index))
	tb.each(func(_ uint32, e *entry) {
		if e.scrape != 0 && e.scrape == e.owner.scrapes {
			rows = append(rows, row{*e.family, e.ls.Get(model.MetricNameLabel), e.owner.id, e.ls, e.v, e.n})
		}
	})
	tb.mu.Unlock()
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(strings.Compare(a.family.name, b.family.name), strings.Compare(a.owner, b.owner))
	})
	return rows
}

func pageFamily(rows []row) metric.Family {
	escape := func(name string) string { return model.EscapeName(name, model.UnderscoreEscaping) }
	f := metric.Family{Name: escape(rows[0].family.name), Help: rows[0].family.help, Type: rows[0].family.typ}
	// A target may give a histogram in both forms.
	classic := map[string]bool{}
	for _, r := range rows {
		if r.n == noCount {
			classic[r.owner] = true
		}
	}
	for _, r := range rows {
		var ls []metric.Label
		r.ls.Range(func(l labels.Label) {
			if l.Name != model.MetricNameLabel {
				ls = append(ls, metric.Label{Name: escape(l.Name), Value: l.Value})
			}
		})
		suffix := strings.TrimPrefix(escape(r.name), f.Name)
		switch {
		case r.n == noCount:
			f.Series = append(f.Series, metric.Series{Labels: ls, Value: r.v, Suffix: suffix})
		case !classic[r.owner]:
			f.Series = append(f.Series,
				metric.Series{Labels: ls, Value: r.v, Suffix: suffix + "_sum"},
				metric.Series{Labels: ls, Value: r.n, Suffix: suffix + "_count"})
		}
	}
	return f
}
