//go:build unix

package ledger

import (
	"context"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/sla"
)

// benchObjectives is how many objectives benchmarks have: few, unless the
// environment says how many.
func benchObjectives(b *testing.B, usual int) int {
	if s := os.Getenv("NINES_BENCH_OBJECTIVES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	return usual
}

// cpuTime is what the process has used of the processors: it tells more than the
// clock on a machine that others use too.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchFigures are those of a service with some traffic, few errors and steady
// sources.
func benchFigures(o int, m sla.Minute) sla.Figures {
	total := int64(1000+(o*31+int(m)*17)%400) * sla.Micro
	good := total
	if (o+int(m))%9 == 0 {
		good -= 2 * sla.Micro
	}
	return sla.Figures{Counts: sla.Counts{GoodLow: good, GoodHigh: good, Total: total, Expected: 180_000, Counted: 180_000, Timed: 180_000}, IntervalMillis: 15_000}
}

func benchMinute(entries []Entry, m sla.Minute) []Entry {
	for o := range entries {
		entries[o] = Entry{Objective: id(o), Minute: m, Figures: benchFigures(o, m), Author: "evaluator"}
	}
	return entries
}

// One minute of all objectives: what the evaluator books at once.
func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir())
	entries := make([]Entry, benchObjectives(b, 1000))
	m := sla.Minute(0)
	begin := cpuTime(b)
	for b.Loop() {
		book(b, l, m.Millis(), benchMinute(entries, m)...)
		m++
	}
	b.ReportMetric(float64((cpuTime(b)-begin).Nanoseconds())/float64(b.N*len(entries)), "cpu-ns/entry")
}

func BenchmarkSeal(b *testing.B) {
	entries := make([]Entry, benchObjectives(b, 50))
	for b.Loop() {
		b.StopTimer()
		l := open(b, b.TempDir())
		for m := range testDay {
			book(b, l, m.Millis(), benchMinute(entries, m)...)
		}
		b.StartTimer()
		if n, err := l.Seal(context.Background(), (3 * testDay).Time()); n != len(entries) || err != nil {
			b.Fatal(n, err)
		}
		b.StopTimer()
		size := 0
		err := l.each([]byte("k"), []byte("l"), func(k, v []byte) error { size += len(k) + len(v); return nil })
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(size)/float64(1440*len(entries)), "bytes/minute")
		closed(b, l)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1440*len(entries)), "ns/minute")
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

// benchBook is a book of 31 days, of which 29 are sealed and the newest one is
// half over. Sealed days are written as Seal writes them, without their batches'
// hashes: filling them in minute by minute would take an hour.
func benchBook(b *testing.B, dir string, objectives int) (end sla.Minute) {
	l := open(b, dir)
	for day := range int64(29) {
		for o := range objectives {
			k, h := newBlock(day), heading{first: sla.Minute(day * 1440), last: sla.Minute(day*1440 + 1439)}
			for m := h.first; m <= h.last; m++ {
				e := booking{seq: uint64(m + 1), figures: benchFigures(o, m), author: "evaluator"}
				k.add(m, e, uint64(m))
				h.own.add(m, &e)
			}
			w := l.db.NewBatch()
			v := l.view(id(o), 0)
			_ = w.Set(blockKey(day, id(o)), k.encode(), nil)
			if err := (&sealing{w, v}).headings(day, &h); err != nil {
				b.Fatal(err)
			}
			if err := w.Commit(pebble.NoSync); err != nil {
				b.Fatal(err)
			}
			_ = v.close()
		}
	}
	l.head.Seq = 29 * 1440
	entries := make([]Entry, objectives)
	for end = 29 * 1440; end < 30*1440+720; end++ {
		book(b, l, end.Millis(), benchMinute(entries, end)...)
	}
	closed(b, l)
	return end
}

// What a restart needs of the book: the minutes of the last 72 hours of each
// objective, and the sum of its last 30 days.
func BenchmarkRestart(b *testing.B) {
	objectives := benchObjectives(b, 100)
	dir := b.TempDir()
	end := benchBook(b, dir, objectives)
	begin := cpuTime(b)
	for b.Loop() {
		l := open(b, dir)
		var group sync.WaitGroup
		for part := range 2 {
			group.Go(func() {
				for o := part; o < objectives; o += 2 {
					n := 0
					for day := (end - 72*60).Day(); day <= (end - 1).Day(); day++ {
						r, err := l.Day(id(o), day)
						if err != nil {
							b.Error(err)
							return
						}
						n += r.Len
					}
					s, err := l.Sum(id(o), end-30*1440, end, 0)
					if err != nil || s.Minutes != 30*1440 || n != 3*1440+720 {
						b.Errorf("%d minutes, %d of them packed, %v", s.Minutes, n, err)
						return
					}
				}
			})
		}
		group.Wait()
		closed(b, l)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/restart")
	b.ReportMetric(float64((cpuTime(b)-begin).Microseconds())/float64(b.N*objectives), "cpu-µs/objective")
}

func BenchmarkSumOf30SealedDays(b *testing.B) {
	dir := b.TempDir()
	benchBook(b, dir, 3)
	l := open(b, dir)
	for b.Loop() {
		if s, err := l.Sum(id(1), 1440, 29*1440, 0); err != nil || s.Minutes != 28*1440 {
			b.Fatal(s, err)
		}
	}
}

// The whole chain of a day, most of it sealed.
func BenchmarkVerify(b *testing.B) {
	l := open(b, b.TempDir())
	entries := make([]Entry, benchObjectives(b, 50))
	for m := range testDay + 200 {
		book(b, l, m.Millis(), benchMinute(entries, m)...)
	}
	if _, err := l.Seal(context.Background(), (3*testDay - 1).Time()); err != nil {
		b.Fatal(err)
	}
	begin := cpuTime(b)
	for b.Loop() {
		if v, err := l.Verify(context.Background(), nil); err != nil || v.Broken != "" || v.Proven != uint64(testDay)+200 {
			b.Fatal(v, err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-begin).Nanoseconds())/float64(b.N*len(entries)*(1440+200)), "cpu-ns/minute")
}
