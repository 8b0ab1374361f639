package ledger

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

// days is a sorted set that is never changed: a reader may keep it.
type days []int32

func (d days) has(day int64) bool {
	_, ok := slices.BinarySearch(d, int32(day))
	return ok && day == int64(int32(day))
}

func (d days) with(day int64) days {
	i, ok := slices.BinarySearch(d, int32(day))
	if ok {
		return d
	}
	return slices.Insert(slices.Clone(d), i, int32(day))
}

func (d days) without(gone func(day int64) bool) days {
	if !slices.ContainsFunc(d, func(day int32) bool { return gone(int64(day)) }) {
		return d
	}
	return slices.DeleteFunc(slices.Clone(d), func(day int32) bool { return gone(int64(day)) })
}

// in returns those in [from, to).
func (d days) in(from, to int64) days {
	i := sort.Search(len(d), func(i int) bool { return int64(d[i]) >= from })
	j := sort.Search(len(d), func(i int) bool { return int64(d[i]) >= to })
	return d[i:max(i, j)]
}

// view is an objective as it is at one moment, as of a batch.
type view struct {
	id   sla.ID
	asOf uint64
	snap *pebble.Snapshot
	kept sla.Minute
	// At least the days that have such entries: a writer adds a day before it
	// commits, and takes it away afterwards.
	loose, revised days
	// ever tells that flags which a revision took away are wanted too, as sums of
	// sealed days have them.
	ever bool
}

// view must be closed.
func (b *Book) view(id sla.ID, asOf uint64) *view {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return &view{id: id, asOf: asOf, kept: b.kept, loose: b.loose[id], revised: b.revised[id], snap: b.db.NewSnapshot()}
}

// clamp leaves of a range what is kept and what keys can name.
func (v *view) clamp(from, to sla.Minute) (sla.Minute, sla.Minute) {
	return max(from, v.kept, math.MinInt32*1440), min(to, (math.MaxInt32+1)*1440)
}

func (v *view) close() error { return v.snap.Close() }

// end closes the view and says what to do about a damaged store.
func (v *view) end(err error) error {
	if err = errors.Join(err, v.close()); pebble.IsCorruptionError(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("read the ledger: %w: a file of it is damaged: stop the program, and put a backup of the folder in its place, or move it away to begin a new book", err)
	}
	return ops.Remedy(err)
}

// knows reports whether a batch counts.
func (v *view) knows(seq uint64) bool { return v.asOf == 0 || seq <= v.asOf }

func (v *view) get(key []byte) ([]byte, error) {
	val, closer, err := v.snap.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.Clone(val), closer.Close()
}

// block returns a sealed day, nil where it is not sealed.
func (v *view) block(day int64) (*block, error) {
	val, err := v.get(blockKey(day, v.id))
	if err != nil || val == nil {
		return nil, err
	}
	return decodeBlock(day, val)
}

// headings calls fn for the sealed days in [from, to).
func (v *view) headings(from, to int64, fn func(day int64, h *heading) error) error {
	from = max(from, v.kept.Day())
	if from >= to {
		return nil
	}
	return eachIn(v.snap, headingKey(v.id, from), headingEnd(v.id, to), func(k, val []byte) error {
		_, day, err := parseHeadingKey(k)
		if err != nil {
			return err
		}
		h, err := decodeHeading(day, val)
		if err != nil {
			return err
		}
		return fn(day, h)
	})
}

// daysIn returns the days in [from, to) that may have first bookings.
func (v *view) daysIn(from, to int64) (days, error) {
	if to-from <= 2 {
		var out days
		for d := from; d < to; d++ {
			out = append(out, int32(d))
		}
		return out, nil
	}
	out := slices.Clone(v.loose.in(from, to))
	err := v.headings(from, to, func(day int64, _ *heading) error {
		out = append(out, int32(day))
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// singles calls fn for the first bookings of a day in [from, to) that are not
// in a block. The booking is valid during the call.
func (v *view) singles(day int64, from, to sla.Minute, fn func(sla.Minute, *booking) error) error {
	if !v.loose.has(day) {
		return nil
	}
	var e booking
	return eachIn(v.snap, minuteKey(v.id, from, 0), endOf('e', day, v.id, to), func(k, val []byte) error {
		_, m, _, err := parseMinuteKey(k)
		if err != nil {
			return err
		}
		if err := decodeBookingInto(&e, m, val); err != nil {
			return err
		}
		if !v.knows(e.seq) {
			return nil
		}
		return fn(m, &e)
	})
}

// firsts calls fn for the first bookings of a day in [from, to), in order. The
// booking is valid during the call.
func (v *view) firsts(day int64, from, to sla.Minute, fn func(sla.Minute, *booking) error) error {
	k, err := v.block(day)
	if err != nil {
		return err
	}
	if k == nil {
		return v.singles(day, from, to, fn)
	}
	type late struct {
		minute sla.Minute
		booking
	}
	var beside []late
	err = v.singles(day, from, to, func(m sla.Minute, e *booking) error {
		beside = append(beside, late{m, *e})
		return nil
	})
	if err != nil {
		return err
	}
	before := func(m sla.Minute) error {
		for len(beside) > 0 && beside[0].minute < m {
			l := beside[0]
			beside = beside[1:]
			if err := fn(l.minute, &l.booking); err != nil {
				return err
			}
		}
		return nil
	}
	err = k.each(from, to, func(m sla.Minute, e *booking) error {
		if !v.knows(e.seq) {
			return nil
		}
		if err := before(m); err != nil {
			return err
		}
		return fn(m, e)
	})
	if err != nil {
		return err
	}
	return before(to)
}

// revisions calls fn for the revisions of a day in [from, to).
func (v *view) revisions(day int64, from, to sla.Minute, fn func(sla.Minute, *booking) error) error {
	if !v.revised.has(day) {
		return nil
	}
	var r booking
	err := eachIn(v.snap, minuteKey(v.id, from, 1)[:15], endOf('r', day, v.id, to), func(k, val []byte) error {
		_, m, _, err := parseMinuteKey(k)
		if err != nil {
			return err
		}
		if err := decodeBookingInto(&r, m, val); err != nil {
			return err
		}
		if !v.knows(r.seq) {
			return nil
		}
		return fn(m, &r)
	})
	if err != nil {
		return fmt.Errorf("read revisions: %w", err)
	}
	return nil
}

func (v *view) scanDay(day int64, from, to sla.Minute, fn func(sla.Minute, *sla.Figures) error) error {
	var revisions map[sla.Minute][]sla.Figures
	err := v.revisions(day, from, to, func(m sla.Minute, r *booking) error {
		if revisions == nil {
			revisions = map[sla.Minute][]sla.Figures{}
		}
		revisions[m] = append(revisions[m], r.figures)
		return nil
	})
	if err != nil {
		return err
	}
	return v.firsts(day, from, to, func(m sla.Minute, e *booking) error {
		f := &e.figures
		for _, r := range revisions[m] {
			f.Counts = f.Counts.Add(r.Counts)
			if !v.ever {
				f.Flags = 0 // a revision says how the minute is marked now
			}
			f.Flags |= r.Flags
			f.Gaps = mergeGaps(f.Gaps, r.Gaps)
		}
		return fn(m, f)
	})
}

// scan calls fn for each booked minute with its revisions. The figures are
// valid during the call; their gaps may be kept.
func (v *view) scan(from, to sla.Minute, fn func(sla.Minute, *sla.Figures) error) error {
	if from, to = v.clamp(from, to); from >= to {
		return nil
	}
	all, err := v.daysIn(from.Day(), (to-1).Day()+1)
	if err != nil {
		return err
	}
	for _, d := range all {
		day := int64(d)
		if err := v.scanDay(day, max(from, sla.Minute(day*1440)), min(to, sla.Minute((day+1)*1440)), fn); err != nil {
			return err
		}
	}
	return nil
}

// Minute returns a minute with all of its revisions, false where it is not
// booked.
func (b *Book) Minute(id sla.ID, m sla.Minute) (sla.Figures, bool, error) {
	var f sla.Figures
	found := false
	err := b.Scan(id, m, m+1, 0, func(_ sla.Minute, got sla.Figures) error {
		f, found = got, true
		return nil
	})
	return f, found, err
}

// Scan calls fn for each booked minute in [from, to), ascending, with its
// revisions merged in: as of a batch, or with asOf 0 as of now. It returns the
// first error, also that of fn.
func (b *Book) Scan(id sla.ID, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error {
	v := b.view(id, asOf)
	var theirs error
	err := v.scan(from, to, func(m sla.Minute, f *sla.Figures) error {
		theirs = fn(m, *f)
		return theirs
	})
	if theirs != nil {
		return errors.Join(err, v.close())
	}
	return v.end(err)
}

// endOf returns the first key behind the minutes of a day before to.
func endOf(prefix byte, day int64, id sla.ID, to sla.Minute) []byte {
	if to == sla.Minute((day+1)*1440) {
		return after(dayKey(prefix, day, id))
	}
	k := minuteKey(id, to, 0)
	k[0] = prefix
	return k
}

// reader is the store, or a snapshot of it.
type reader interface {
	NewIter(*pebble.IterOptions) (*pebble.Iterator, error)
}

// eachIn calls fn for all keys in [from, to). Key and value are valid during
// the call alone.
func eachIn(r reader, from, to []byte, fn func(k, v []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = err == nil && it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key(), v)
		}
	}
	if err == nil {
		err = it.Error()
	}
	if closing := it.Close(); err == nil {
		err = closing
	}
	return err
}

// mergeGaps adds signed gaps; those that come to nothing are left out.
func mergeGaps(a, b []sla.Gap) []sla.Gap {
	out := append([]sla.Gap(nil), a...)
next:
	for _, g := range b {
		for i := range out {
			if out[i].From == g.From && out[i].To == g.To {
				out[i].GoodLow += g.GoodLow
				out[i].GoodHigh += g.GoodHigh
				out[i].Total += g.Total
				continue next
			}
		}
		out = append(out, g)
	}
	kept := out[:0]
	for _, g := range out {
		if g.GoodLow != 0 || g.GoodHigh != 0 || g.Total != 0 {
			kept = append(kept, g)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	sort.Slice(kept, func(i, j int) bool {
		if kept[i].From != kept[j].From {
			return kept[i].From < kept[j].From
		}
		return kept[i].To < kept[j].To
	})
	return kept
}
