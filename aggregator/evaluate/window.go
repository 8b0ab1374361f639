package evaluate

import (
	"time"

	"nines/pkg/sla"
)

// reader gives booked minutes, revisions included, in ascending order.
type reader interface {
	Scan(id sla.ID, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error
}

// window is the running sum of the booked minutes [start, end). Minutes come in
// as they are booked; those that leave are read from the book, so that a window
// of a year costs as much as one of an hour (R29).
type window struct {
	start, end sla.Minute
	sum        sla.Sum
	gaps       []sla.Gap // those that are in the sum: all of their minutes are in the window
}

// book adds minutes that were booked at the window's end.
func (w *window) book(m sla.Minute, f sla.Figures) {
	if m < w.start {
		return
	}
	w.sum.Add(f.Counts)
	w.sum.Flags |= f.Flags
	w.addGaps(f.Gaps)
	w.end = m + 1
}

// revise adds a signed difference to a minute that was booked before.
func (w *window) revise(m sla.Minute, f sla.Figures) {
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

// move lets the minutes before start leave. A jump that is longer than what
// stays, as at the edge of a calendar period, reads what stays instead.
func (w *window) move(book reader, id sla.ID, start sla.Minute) error {
	if start <= w.start {
		return nil
	}
	if start >= w.end || start-w.start > w.end-start {
		return w.load(book, id, start, w.end)
	}
	if err := book.Scan(id, w.start, start, 0, func(_ sla.Minute, f sla.Figures) error {
		w.sum.Remove(f.Counts)
		return nil
	}); err != nil {
		return err
	}
	w.start = start
	kept := w.gaps[:0]
	for _, g := range w.gaps {
		if g.From >= start {
			kept = append(kept, g)
			continue
		}
		w.sum.Revise(sla.Counts{GoodLow: -g.GoodLow, GoodHigh: -g.GoodHigh, Total: -g.Total})
	}
	w.gaps = kept
	return nil
}

// load reads the window from the book.
func (w *window) load(book reader, id sla.ID, start, end sla.Minute) error {
	*w = window{start: start, end: max(start, end)}
	last := w.end
	err := book.Scan(id, start, end, 0, func(m sla.Minute, f sla.Figures) error {
		w.book(m, f)
		return nil
	})
	w.end = last
	return err
}

// with returns the sum with open minutes up to and including newest added.
func (w *window) with(open []minuteFigures, newest sla.Minute) sla.Sum {
	sum := w.sum
	for _, o := range open {
		if o.minute < w.start || o.minute < w.end || o.minute > newest {
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

type minuteFigures struct {
	minute  sla.Minute
	figures sla.Figures
}

// minutes returns a duration in whole minutes, at least one.
func minutes(d time.Duration) sla.Minute { return max(1, sla.Minute(d/time.Minute)) }
