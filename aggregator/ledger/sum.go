package ledger

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/sla"
)

// Sum adds the minutes in [from, to), with their revisions as of a batch (0:
// now). A gap counts only where all of its minutes are in the range (R22).
//
// Sealed days cost two reads, however many they are; what is read one by one is
// the rest of the range, its revisions, and gaps that may begin before it. As
// of a batch behind which minutes of these days were booked, each day's heading
// is read.
func (b *Book) Sum(id sla.ID, from, to sla.Minute, asOf uint64) (sla.Sum, error) {
	v := b.view(id, asOf)
	s, err := v.sum(from, to)
	return s, v.end(err)
}

// add adds a minute or, with minutes 0, a revision of one.
func (v *view) add(s *sla.Sum, f *sla.Figures, minutes int64, from sla.Minute) {
	s.Revise(f.Counts)
	s.Minutes += minutes
	s.Flags |= f.Flags
	for _, g := range f.Gaps {
		if g.From >= from {
			s.Revise(gapCounts(g))
		}
	}
}

func (v *view) sum(from, to sla.Minute) (s sla.Sum, err error) {
	v.ever = true
	edge := from // of gaps: they may begin where minutes are not kept any more
	if from, to = v.clamp(from, to); from >= to {
		return s, nil
	}
	read := func(from, to sla.Minute) error {
		return v.scan(from, to, func(_ sla.Minute, f *sla.Figures) error {
			v.add(&s, f, 1, edge)
			return nil
		})
	}
	// Whole days are [first, end).
	first, end := from.Day(), to.Day()
	if sla.Minute(first*1440) != from {
		first++
	}
	if first >= end {
		return s, read(from, to)
	}
	if err := read(from, sla.Minute(first*1440)); err != nil {
		return s, err
	}
	if err := v.sumSealed(&s, edge, first, end); err != nil {
		return s, err
	}
	for _, d := range v.loose.in(first, end) {
		day := sla.Minute(d) * 1440
		err := v.singles(int64(d), day, day+1440, func(_ sla.Minute, e *booking) error {
			v.add(&s, &e.figures, 1, edge)
			return nil
		})
		if err != nil {
			return s, err
		}
	}
	for _, d := range v.revised.in(first, end) {
		if err := v.sumRevisions(&s, edge, int64(d)); err != nil {
			return s, err
		}
	}
	return s, read(sla.Minute(end*1440), to)
}

// sumSealed adds the blocks of the days in [first, end).
func (v *view) sumSealed(s *sla.Sum, edge sla.Minute, first, end int64) error {
	a, z, err := v.ends(first, end)
	if err != nil || a == nil {
		return err
	}
	all := z.before.plus(z.own)
	if !v.knows(all.newest) {
		return v.sumBlocks(s, edge, first, end)
	}
	s.Merge(between(&a.before, &all))
	gaps := subtract(all.gaps, a.before.gaps)
	if gaps.Minutes == 0 {
		return nil
	}
	// Of the gaps, those that begin before the range are taken out again: the
	// longest one tells how far to look.
	last := sla.Minute(min(int64(edge), end*1440) + all.longest)
	err = v.headings(first, min(end, last.Day()+1), func(day int64, h *heading) error {
		if h.own.gaps.Minutes == 0 || day*1440-h.own.longest >= int64(edge) {
			return nil
		}
		return v.inBlock(day, func(_ sla.Minute, e *booking) error {
			for _, g := range e.figures.Gaps {
				if g.From < edge {
					gaps.Remove(gapCounts(g))
				}
			}
			return nil
		})
	})
	gaps.Minutes = 0
	s.Merge(gaps)
	return err
}

func (v *view) inBlock(day int64, fn func(sla.Minute, *booking) error) error {
	k, err := v.block(day)
	if err != nil || k == nil {
		return err
	}
	return k.each(k.run.First, k.run.First+1440, fn)
}

// ends returns the headings of the first and the last sealed day in [first, end).
func (v *view) ends(first, end int64) (a, z *heading, err error) {
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: headingKey(v.id, first), UpperBound: headingEnd(v.id, end)})
	if err != nil {
		return nil, nil, err
	}
	read := func(ok bool) *heading {
		if !ok || err != nil {
			return nil
		}
		var day int64
		if _, day, err = parseHeadingKey(it.Key()); err != nil {
			return nil
		}
		var h *heading
		h, err = decodeHeading(day, it.Value())
		return h
	}
	if a = read(it.First()); a != nil {
		z = read(it.Last())
	}
	return a, z, errors.Join(err, it.Error(), it.Close())
}

// sumBlocks adds the blocks of the days in [first, end) as of a batch before
// which not all of them were booked.
func (v *view) sumBlocks(s *sla.Sum, edge sla.Minute, first, end int64) error {
	return v.headings(first, end, func(day int64, h *heading) error {
		if v.knows(h.own.newest) && (h.own.gaps.Minutes == 0 || day*1440-h.own.longest >= int64(edge)) {
			s.Merge(between(new(tally), &h.own))
			gaps := h.own.gaps
			gaps.Minutes = 0
			s.Merge(gaps)
			return nil
		}
		return v.inBlock(day, func(_ sla.Minute, e *booking) error {
			if v.knows(e.seq) {
				v.add(s, &e.figures, 1, edge)
			}
			return nil
		})
	})
}

// sumRevisions adds the revisions of a day. One of a minute that is not booked
// does not count.
func (v *view) sumRevisions(s *sla.Sum, edge sla.Minute, day int64) error {
	var booked func(sla.Minute) bool
	from := sla.Minute(day * 1440)
	return v.revisions(day, from, from+1440, func(m sla.Minute, r *booking) error {
		if booked == nil {
			var err error
			if booked, err = v.bookedOn(day); err != nil {
				return err
			}
		}
		if booked(m) {
			v.add(s, &r.figures, 0, edge)
		}
		return nil
	})
}

// bookedOn returns which minutes of a day are booked.
func (v *view) bookedOn(day int64) (func(sla.Minute) bool, error) {
	if !v.loose.has(day) {
		val, err := v.get(headingKey(v.id, day))
		if err != nil {
			return nil, err
		}
		if val != nil {
			h, err := decodeHeading(day, val)
			if err != nil {
				return nil, err
			}
			if h.whole() && v.knows(h.own.newest) {
				return func(m sla.Minute) bool { return m >= h.first && m <= h.last }, nil
			}
		}
	}
	var set [1440]bool
	from := sla.Minute(day * 1440)
	err := v.firsts(day, from, from+1440, func(m sla.Minute, _ *booking) error {
		set[m-from] = true
		return nil
	})
	return func(m sla.Minute) bool { return set[m-from] }, err
}

// Gaps returns the gaps of which all minutes are in [from, to).
func (b *Book) Gaps(id sla.ID, from, to sla.Minute) ([]sla.Gap, error) {
	v := b.view(id, 0)
	out, err := v.gaps(from, to)
	return out, v.end(err)
}

func (v *view) gaps(edge, to sla.Minute) (out []sla.Gap, err error) {
	from, to := v.clamp(edge, to)
	if from >= to {
		return nil, nil
	}
	// Only days that may have gaps are read.
	first, end := from.Day(), (to-1).Day()+1
	look := v.loose.in(first, end)
	for _, d := range v.revised.in(first, end) {
		look = look.with(int64(d))
	}
	err = v.headings(first, end, func(day int64, h *heading) error {
		if h.own.gaps.Minutes > 0 {
			look = look.with(day)
		}
		return nil
	})
	for _, d := range look {
		if err != nil {
			break
		}
		day := int64(d)
		err = v.scanDay(day, max(from, sla.Minute(day*1440)), min(to, sla.Minute((day+1)*1440)), func(_ sla.Minute, f *sla.Figures) error {
			for _, g := range f.Gaps {
				if g.From >= edge {
					out = append(out, g)
				}
			}
			return nil
		})
	}
	return out, err
}

// Day returns the minutes of a UTC day with their revisions, packed. Minutes
// behind the newest one are left out. A sealed day without revisions is given
// as it lies in the book.
func (b *Book) Day(id sla.ID, day int64) (*Run, error) {
	v := b.view(id, 0)
	r, err := v.day(day)
	return r, v.end(err)
}

func (v *view) day(day int64) (*Run, error) {
	first := sla.Minute(day * 1440)
	if from, to := v.clamp(first, first+1440); from != first || to != first+1440 {
		return &Run{First: first}, nil
	}
	if !v.loose.has(day) && !v.revised.has(day) {
		k, err := v.block(day)
		if err != nil {
			return nil, err
		}
		if k != nil {
			return k.run, nil
		}
	}
	r := &Run{First: first}
	err := v.scanDay(day, first, first+1440, func(m sla.Minute, f *sla.Figures) error {
		for r.End() < m {
			r.Skip()
		}
		r.Add(*f)
		return nil
	})
	return r, err
}
