package ledger

import (
	"encoding/binary"
	"fmt"
	"math"

	"nines/pkg/sla"
)

// Run is a run of consecutive minutes of one objective, packed: 3 bytes hold a
// usual minute. It is the form of a sealed day (R27) and of the minutes that
// windows keep in memory (R29). The zero Run with First set is empty.
//
// Each minute begins with a byte of the bits below. A minute that was not
// booked is that byte alone. What the bits do not settle follows as varints in
// the order of the bits: total; bad; the width of good; expected, what of it was
// not counted and what of that was not timed; interval; flags; the number of
// gaps and the gaps, their minutes as distances back from the minute.
type Run struct {
	First sla.Minute
	Len   int // minutes, booked or not
	Data  []byte

	last sla.Figures // the booked minute that the next one is written against
	cold bool        // last has yet to be read from Data
}

const (
	runBooked   = 1 << iota
	runSameTime // expected, counted and timed are those of the booked minute before
	runExact    // good low is good high
	runAllGood  // good high is total
	runWhole    // all events are whole: they are written in events
	runSameInterval
	runSameFlags
	runGaps
)

// Add packs the minute First+Len.
func (r *Run) Add(f sla.Figures) {
	if r.cold {
		r.warm()
	}
	bits := byte(runBooked)
	set := func(bit byte, when bool) {
		if when {
			bits |= bit
		}
	}
	set(runSameTime, f.Expected == r.last.Expected && f.Counted == r.last.Counted && f.Timed == r.last.Timed)
	set(runExact, f.GoodLow == f.GoodHigh)
	set(runAllGood, f.GoodHigh == f.Total)
	whole := f.GoodLow%sla.Micro == 0 && f.GoodHigh%sla.Micro == 0 && f.Total%sla.Micro == 0
	set(runWhole, whole)
	set(runSameInterval, f.IntervalMillis == r.last.IntervalMillis)
	set(runSameFlags, f.Flags == r.last.Flags)
	set(runGaps, len(f.Gaps) > 0)
	unit := int64(1)
	if whole {
		unit = sla.Micro
	}
	d := append(r.Data, bits)
	d = binary.AppendVarint(d, f.Total/unit)
	if bits&runAllGood == 0 {
		d = binary.AppendVarint(d, f.Total/unit-f.GoodHigh/unit)
	}
	if bits&runExact == 0 {
		d = binary.AppendVarint(d, f.GoodHigh/unit-f.GoodLow/unit)
	}
	if bits&runSameTime == 0 {
		d = binary.AppendVarint(d, f.Expected)
		d = binary.AppendVarint(d, f.Expected-f.Counted)
		d = binary.AppendVarint(d, f.Counted-f.Timed)
	}
	if bits&runSameInterval == 0 {
		d = binary.AppendVarint(d, f.IntervalMillis)
	}
	if bits&runSameFlags == 0 {
		d = binary.AppendUvarint(d, uint64(f.Flags))
	}
	if bits&runGaps != 0 {
		m := r.First + sla.Minute(r.Len)
		d = binary.AppendUvarint(d, uint64(len(f.Gaps)))
		for _, g := range f.Gaps {
			for _, v := range [5]int64{int64(m - g.From), int64(m - g.To), g.GoodLow, g.GoodHigh, g.Total} {
				d = binary.AppendVarint(d, v)
			}
		}
	}
	r.Data = d
	r.Len++
	r.last = f
	r.last.Gaps = nil
}

// warm reads the run for its last booked minute.
func (r *Run) warm() {
	rd := r.Reader()
	for _, _, ok := rd.Next(); ok; _, _, ok = rd.Next() {
	}
	r.last, r.cold = rd.last, false
	r.last.Gaps = nil
}

// Skip says that the minute First+Len was not booked.
func (r *Run) Skip() {
	r.Data = append(r.Data, 0)
	r.Len++
}

// End returns the first minute behind the run.
func (r *Run) End() sla.Minute { return r.First + sla.Minute(r.Len) }

// Reader reads the run from its beginning. A run may grow while it is read.
func (r *Run) Reader() RunReader { return RunReader{run: r, minute: r.First} }

// RunReader reads the minutes of a Run in order.
type RunReader struct {
	run    *Run
	offset int
	minute sla.Minute
	last   sla.Figures
}

// Minute returns the minute that Next reads.
func (r *RunReader) Minute() sla.Minute { return r.minute }

// Next reads a minute. booked is false for one that was not booked; ok is
// false at the end of the run and for bytes that no Run wrote. f is valid
// until the next call; its gaps may be kept.
func (r *RunReader) Next() (f *sla.Figures, booked, ok bool) {
	d := r.run.Data
	if r.offset >= len(d) {
		return nil, false, false
	}
	bits := d[r.offset]
	at := r.offset + 1
	if bits == 0 {
		r.offset = at
		r.minute++
		return nil, false, true
	}
	good := bits&runBooked != 0
	next := func() int64 {
		// The usual case first: one or two bytes.
		if at < len(d) && d[at] < 0x80 {
			u := uint64(d[at])
			at++
			return int64(u>>1) ^ -int64(u&1)
		}
		v, n := binary.Varint(d[min(at, len(d)):])
		if n <= 0 {
			good = false
			return 0
		}
		at += n
		return v
	}
	last := &r.last
	last.Gaps = nil
	unit := int64(1)
	if bits&runWhole != 0 {
		unit = sla.Micro
	}
	last.Total = next()
	last.GoodHigh = last.Total
	if bits&runAllGood == 0 {
		last.GoodHigh -= next()
	}
	last.GoodLow = last.GoodHigh
	if bits&runExact == 0 {
		last.GoodLow -= next()
	}
	last.Total *= unit
	last.GoodHigh *= unit
	last.GoodLow *= unit
	if bits&runSameTime == 0 {
		last.Expected = next()
		last.Counted = last.Expected - next()
		last.Timed = last.Counted - next()
	}
	if bits&runSameInterval == 0 {
		last.IntervalMillis = next()
	}
	if bits&runSameFlags == 0 {
		v, n := binary.Uvarint(d[min(at, len(d)):])
		if n <= 0 || v > math.MaxUint32 {
			good = false
		}
		at += max(n, 0)
		last.Flags = sla.Flags(v)
	}
	if bits&runGaps != 0 && good {
		count, n := binary.Uvarint(d[min(at, len(d)):])
		if n <= 0 || count > uint64(len(d)) {
			good = false
		}
		at += max(n, 0)
		for i := uint64(0); i < count && good; i++ {
			var g sla.Gap
			g.From = r.minute - sla.Minute(next())
			g.To = r.minute - sla.Minute(next())
			g.GoodLow, g.GoodHigh, g.Total = next(), next(), next()
			last.Gaps = append(last.Gaps, g)
		}
	}
	if !good {
		r.offset = len(d)
		return nil, false, false
	}
	r.offset = at
	r.minute++
	return last, true, true
}

// readRun opens a packed run and checks that all of it can be read.
func readRun(first sla.Minute, minutes int, data []byte) (*Run, error) {
	r := &Run{First: first, Len: minutes, Data: data}
	rd := r.Reader()
	for range minutes {
		f, booked, ok := rd.Next()
		if !ok {
			break
		}
		if booked {
			r.last = *f
			r.last.Gaps = nil
		}
	}
	if rd.minute != r.End() || rd.offset != len(data) {
		return nil, fmt.Errorf("%w: the packed minutes from %s on", errCorrupt, first.Time().Format("2006-01-02T15:04Z"))
	}
	return r, nil
}
