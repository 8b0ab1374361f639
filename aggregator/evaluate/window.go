package evaluate

import (
	"fmt"
	"math"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

const (
	// chunkMinutes is the length of one packed run of recent minutes.
	chunkMinutes = 360
	// recentMinutes is how far back minutes stay in memory: what the longest
	// alert window needs (R29).
	recentMinutes = 3 * 1440
)

// recent holds the booked minutes of the last three days, packed.
type recent struct {
	chunks []*ledger.Run // each but the last one full, ascending
}

// end returns the first minute behind what is held, 0 where nothing is.
func (r *recent) end() sla.Minute {
	if n := len(r.chunks); n > 0 {
		return r.chunks[n-1].End()
	}
	return 0
}

// add appends a booked minute. Minutes between the end and it were not booked.
func (r *recent) add(m sla.Minute, f *sla.Figures) {
	if len(r.chunks) > 0 && m-r.end() > recentMinutes {
		r.chunks = nil
	}
	for {
		n := len(r.chunks)
		if n == 0 || r.chunks[n-1].Len >= chunkMinutes {
			first := m
			if n > 0 {
				first = r.end()
			}
			r.chunks = append(r.chunks, &ledger.Run{First: first})
			for len(r.chunks) > 1 && r.chunks[1].First <= m-recentMinutes {
				r.chunks[0] = nil
				r.chunks = r.chunks[1:]
			}
			continue
		}
		last := r.chunks[n-1]
		if last.End() == m {
			last.Add(*f)
			return
		}
		last.Skip()
	}
}

// revise adds a signed difference to a minute that is held. The chunk is
// written anew: readers of it must be placed again.
func (r *recent) revise(m sla.Minute, d sla.Figures) {
	for i, c := range r.chunks {
		if m < c.First || m >= c.End() {
			continue
		}
		fresh := &ledger.Run{First: c.First, Data: make([]byte, 0, len(c.Data)+16)}
		rd := c.Reader()
		for {
			at := rd.Minute()
			f, booked, ok := rd.Next()
			if !ok {
				break
			}
			switch {
			case at == m && booked:
				g := *f
				g.Counts = g.Counts.Add(d.Counts)
				g.Flags = d.Flags
				g.Gaps = mergeGaps(g.Gaps, d.Gaps)
				fresh.Add(g)
			case booked:
				fresh.Add(*f)
			default:
				fresh.Skip()
			}
		}
		r.chunks[i] = fresh
		return
	}
}

// at returns a booked minute that is held.
func (r *recent) at(m sla.Minute) (sla.Figures, bool) {
	run, _, _ := r.run(m)
	if run == nil {
		return sla.Figures{}, false
	}
	var c cursor
	c.seek(run, m)
	f, booked, ok := c.rd.Next()
	if !ok || !booked {
		return sla.Figures{}, false
	}
	return *f, true
}

// bytes is what the packed minutes take.
func (r *recent) bytes() int {
	n := 0
	for _, c := range r.chunks {
		n += cap(c.Data)
	}
	return n
}

// cursor reads booked minutes one after the other.
type cursor struct {
	rd  ledger.RunReader
	run *ledger.Run
}

// seek places the cursor at a minute of a run.
func (c *cursor) seek(run *ledger.Run, m sla.Minute) {
	c.run, c.rd = run, run.Reader()
	for c.rd.Minute() < m {
		if _, _, ok := c.rd.Next(); !ok {
			return
		}
	}
}

// minutes gives booked minutes to a window that moves over them.
type minutes interface {
	// run returns the packed run that holds a minute, or nil, and the first
	// minute behind m that may be booked.
	run(m sla.Minute) (*ledger.Run, sla.Minute, error)
}

func (r *recent) run(m sla.Minute) (*ledger.Run, sla.Minute, error) {
	for _, c := range r.chunks {
		if m < c.First {
			return nil, c.First, nil
		}
		if m < c.End() {
			return c, 0, nil
		}
	}
	return nil, m + 1, nil
}

// days gives the minutes of the book, a day at a time: each day is read once
// for a window that moves over it.
type days struct {
	book Book
	id   sla.ID
	day  *ledger.Run // the one that was read last
	date int64
}

func (d *days) run(m sla.Minute) (*ledger.Run, sla.Minute, error) {
	if date := m.Day(); d.day == nil || d.date != date {
		run, err := d.book.Day(d.id, date)
		if err != nil {
			return nil, 0, err
		}
		d.day, d.date = run, date
	}
	if m >= d.day.First && m < d.day.End() {
		return d.day, 0, nil
	}
	if m < d.day.First {
		return nil, d.day.First, nil
	}
	return nil, sla.Minute((d.date + 1) * 1440), nil
}

// forget makes the next run be read from the book again.
func (d *days) forget() { d.day = nil }

// forgetFrom is forget where a minute from m on was booked in the day at hand.
func (d *days) forgetFrom(m sla.Minute) {
	if d.day != nil && m.Day() <= d.date {
		d.day = nil
	}
}

// window is the running sum of the booked minutes [start, end). Minutes come in
// as they are booked and leave as the start moves on, so that a window of a
// year costs as much as one of an hour (R29).
type window struct {
	start, end sla.Minute
	sum        sla.Sum
	gaps       []sla.Gap // those that are in the sum: all of their minutes are in the window
	leaving    cursor
}

// book adds a minute that was booked at the window's end.
func (w *window) book(m sla.Minute, f *sla.Figures) {
	w.end = m + 1
	if m < w.start {
		return
	}
	w.sum.Add(f.Counts)
	w.sum.Flags |= f.Flags
	if len(f.Gaps) > 0 {
		w.addGaps(f.Gaps)
	}
}

// revise adds a signed difference to a minute that was booked before.
func (w *window) revise(m sla.Minute, f sla.Figures) {
	w.leaving.run = nil
	if m < w.start || m >= w.end {
		return
	}
	w.sum.Revise(f.Counts)
	w.sum.Flags |= f.Flags
	w.addGaps(f.Gaps)
}

// addGaps counts the gaps that the window holds whole (R22).
func (w *window) addGaps(gaps []sla.Gap) {
	for _, g := range gaps {
		if g.From >= w.start {
			w.sum.Revise(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
			w.gaps = append(w.gaps, g)
		}
	}
}

// move lets the minutes before start leave.
func (w *window) move(from minutes, start sla.Minute) error {
	if start <= w.start {
		return nil
	}
	if start >= w.end {
		*w = window{start: start, end: max(start, w.end)}
		return nil
	}
	for w.start < start {
		c := &w.leaving
		if c.run == nil || c.rd.Minute() != w.start || w.start >= c.run.End() {
			run, next, err := from.run(w.start)
			if err != nil {
				return err
			}
			if run == nil {
				w.start = min(next, start)
				continue
			}
			c.seek(run, w.start)
		}
		f, booked, ok := c.rd.Next()
		if !ok {
			c.run = nil
			w.start++
			continue
		}
		if booked {
			w.sum.Remove(f.Counts)
		}
		w.start++
	}
	if len(w.gaps) > 0 {
		kept := w.gaps[:0]
		for _, g := range w.gaps {
			if g.From >= start {
				kept = append(kept, g)
				continue
			}
			w.sum.Revise(sla.Counts{GoodLow: -g.GoodLow, GoodHigh: -g.GoodHigh, Total: -g.Total})
		}
		w.gaps = kept
	}
	return nil
}

// fill reads the window [start, end) minute by minute.
func (w *window) fill(from minutes, start, end sla.Minute) error {
	*w = window{start: start, end: max(start, end)}
	last := w.end
	for m := start; m < end; {
		run, next, err := from.run(m)
		if err != nil {
			return err
		}
		if run == nil {
			m = next
			continue
		}
		var c cursor
		c.seek(run, m)
		for m < end {
			f, booked, ok := c.rd.Next()
			if !ok {
				break
			}
			if booked {
				w.book(m, f)
			}
			m++
		}
	}
	w.end = last
	return nil
}

// read takes the window [start, end) as one sum out of the book.
func (w *window) read(book Book, id sla.ID, start, end sla.Minute) (err error) {
	*w = window{start: start, end: max(start, end)}
	if w.sum, err = book.Sum(id, start, w.end, 0); err != nil {
		return fmt.Errorf("read a sum of the ledger: %w", err)
	}
	if w.gaps, err = book.Gaps(id, start, w.end); err != nil {
		return fmt.Errorf("read the gaps of the ledger: %w", err)
	}
	return nil
}

// with returns the sum up to and including the minute newest: with open minutes
// before it and without closed ones behind it.
func (w *window) with(open []minuteFigures, newest sla.Minute) sla.Sum {
	sum := w.sum
	for i := range open {
		o := &open[i]
		switch {
		case o.minute < w.start:
			continue
		case o.minute > newest:
			if o.minute < w.end {
				sum.Remove(o.figures.Counts) // it closed without a sample
			}
			continue
		case o.minute < w.end:
			continue
		}
		sum.Add(o.figures.Counts)
		sum.Flags |= o.figures.Flags
		for _, g := range o.figures.Gaps {
			if g.From >= w.start {
				sum.Revise(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
			}
		}
	}
	return sum
}

// roughly is the error ratio of with, rounded, without the gaps of open
// minutes; 0 without events, and above every limit where rounding could mislead.
func (w *window) roughly(open []minuteFigures, newest sla.Minute) float64 {
	total := w.sum.Total.Float64()
	good := w.sum.GoodHigh.Float64()
	for i := range open {
		o := &open[i]
		if o.minute < w.start || o.minute < w.end || o.minute > newest {
			continue
		}
		if len(o.figures.Gaps) > 0 {
			return math.Inf(1)
		}
		total += float64(o.figures.Total)
		good += float64(o.figures.GoodHigh)
	}
	switch {
	case total <= 0:
		return 0
	case total > 1e21: // the difference of two large numbers is coarse
		return math.Inf(1)
	}
	return (total - good) / total
}

type minuteFigures struct {
	minute  sla.Minute
	figures sla.Figures
}

// minutesIn returns a duration in whole minutes, at least one.
func minutesIn(d time.Duration) sla.Minute { return max(1, sla.Minute(d/time.Minute)) }

// mergeGaps adds signed gaps; those that come to nothing are left out.
func mergeGaps(a, b []sla.Gap) []sla.Gap {
	f := sla.Figures{Gaps: append([]sla.Gap(nil), a...)}
	for _, g := range b {
		addGap(&f, g)
	}
	kept := f.Gaps[:0]
	for _, g := range f.Gaps {
		if g.GoodLow != 0 || g.GoodHigh != 0 || g.Total != 0 {
			kept = append(kept, g)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}
