package ledger

import "nines/pkg/sla"

// Sum adds the minutes in [from, to), with their revisions as of a batch (0:
// now). A gap counts only where all of its minutes are in the range (R22).
func (b *Book) Sum(id sla.ID, from, to sla.Minute, asOf uint64) (sla.Sum, error) {
	var s sla.Sum
	err := b.Scan(id, from, to, asOf, func(_ sla.Minute, f sla.Figures) error {
		s.Add(f.Counts)
		s.Flags |= f.Flags
		for _, g := range f.Gaps {
			if g.From >= from {
				s.Revise(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
			}
		}
		return nil
	})
	return s, err
}

// Gaps returns the gaps of which all minutes are in [from, to).
func (b *Book) Gaps(id sla.ID, from, to sla.Minute) ([]sla.Gap, error) {
	var out []sla.Gap
	err := b.Scan(id, from, to, 0, func(_ sla.Minute, f sla.Figures) error {
		for _, g := range f.Gaps {
			if g.From >= from {
				out = append(out, g)
			}
		}
		return nil
	})
	return out, err
}

// Day returns the minutes of a UTC day with their revisions, packed. Minutes
// behind the newest one are left out.
func (b *Book) Day(id sla.ID, day int64) (*Run, error) {
	first := sla.Minute(day * 1440)
	r := &Run{First: first}
	err := b.Scan(id, first, first+1440, 0, func(m sla.Minute, f sla.Figures) error {
		for r.End() < m {
			r.Skip()
		}
		r.Add(f)
		return nil
	})
	return r, err
}
