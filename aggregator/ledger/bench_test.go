package ledger

import (
	"testing"

	"nines/pkg/sla"
)

// One minute of 1,000 objectives: what the evaluator books at once.
func BenchmarkAppendMinuteOf1000Objectives(b *testing.B) {
	l := open(b, b.TempDir())
	entries := make([]Entry, 1000)
	m := sla.Minute(0)
	for b.Loop() {
		for o := range entries {
			entries[o] = first(o, m, figures(int(m)+o))
		}
		book(b, l, m.Millis(), entries...)
		m++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(entries)), "ns/entry")
}

// A month of one objective, flushed, between nine others.
func BenchmarkScanMonth(b *testing.B) {
	l := open(b, b.TempDir())
	const month = 31 * 1440
	for day := range 31 {
		var entries []Entry
		for m := day * 1440; m < (day+1)*1440; m++ {
			for o := range 10 {
				entries = append(entries, first(o, sla.Minute(m), figures(m)))
			}
		}
		book(b, l, int64(day), entries...)
		book(b, l, int64(day), revision(5, sla.Minute(day*1440+7), figures(1)))
	}
	if err := l.db.Flush(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n := 0
		err := l.Scan(id(5), 0, month, 0, func(sla.Minute, sla.Figures) error { n++; return nil })
		if err != nil || n != month {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*month), "ns/minute")
}
