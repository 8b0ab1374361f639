package evaluate

import (
	"math"
	"slices"

	"nines/pkg/sla"
)

// settle counts every source that was observed up to the time that all its
// living series have reached (R19). It follows each batch.
func (y *tally) settle() {
	for _, s := range y.dirty {
		s.dirty = false
		switch {
		case s.behind <= 0:
			y.fold(s, s.newest)
		case len(s.slots) > 1:
			// A scrape has come although a series has not delivered the one before.
			y.advance(s)
		}
		if len(s.slots) > 0 && !s.waiting {
			s.waiting = true
			y.waiting = append(y.waiting, s)
		}
	}
	y.dirty = y.dirty[:0]
}

// settleWaiting looks again at the sources whose scrapes wait for a series.
func (y *tally) settleWaiting() {
	kept := y.waiting[:0]
	for _, s := range y.waiting {
		if len(s.slots) > 0 {
			y.advance(s)
		}
		if s.waiting = len(s.slots) > 0; s.waiting {
			kept = append(kept, s)
		}
	}
	clear(y.waiting[len(kept):])
	y.waiting = kept
}

// advance ends the series that have been silent for too long beside living
// ones: the time that was waited for them is neither counted nor timed, and its
// events are left out on both sides (R19). Then it counts what all living
// series have reached.
func (y *tally) advance(s *source) {
	wait := max(int64(silentEnd), s.longest())
	to := s.newest
	for _, tr := range s.tracks {
		if !tr.known || tr.ended {
			continue
		}
		if s.newest-tr.lastT > wait {
			y.end(tr)
			y.rule("silent")
			s.holes = append(s.holes, hole{from: tr.lastT, to: tr.lastT + wait, drop: true})
			continue
		}
		to = min(to, tr.lastT)
	}
	y.fold(s, to)
	if len(s.slots) > maxSlots {
		y.again(sla.MinuteOfMillis(s.slots[0].t) - 1)
		s.slots = nil
	}
}

// fold counts the scrapes of a source up to a time: the time between them and
// their events go into minutes.
func (y *tally) fold(s *source, to int64) {
	n := 0
	for n < len(s.slots) && s.slots[n].t <= to {
		n++
	}
	if n == 0 {
		return
	}
	if s.reached == 0 {
		s.reached = s.slots[0].t
	}
	from := s.reached
	if first := s.slots[0].t; sla.MinuteOfMillis(first) <= y.settled {
		y.late(s, first) // minutes that are closed
	}
	if sl := &s.slots[0]; n == 1 && len(sl.specials) == 0 && len(s.holes) == 0 && sl.from <= from {
		// The usual scrape: all series were there, none is special.
		s.note(sl.t)
		y.spend(from, sl.t)
		y.book(sl.t, &sl.events)
	} else {
		y.foldSpecial(s, s.slots[:n], s.slots[n:], from)
	}
	last := s.slots[n-1].t
	if last > s.reached {
		s.scraped, s.reached = s.reached, last
	}
	if n > 1 {
		s.scraped = s.slots[n-2].t
	}
	// Keep what the slots hold of memory.
	if n == len(s.slots) {
		s.slots = s.slots[:0]
	} else {
		s.slots = slices.Delete(s.slots, 0, n)
	}
}

// spend adds (from, to] as counted and timed.
func (y *tally) spend(from, to int64) {
	for from < to {
		m := sla.MinuteOfMillis(from)
		end := min(to, (m + 1).Millis())
		if f := y.minute(m); f != nil {
			f.Timed += end - from
			f.Counted += end - from
		}
		from = end
	}
}

// book adds the events of a scrape to its minute.
func (y *tally) book(t int64, e *events) {
	if *e == (events{}) {
		return
	}
	if f := y.minute(sla.MinuteOfMillis(t)); f != nil {
		y.put(f, *e)
	}
}

// foldSpecial is fold of scrapes in which something is special. later are the
// scrapes that still wait for a series. Scrapes that come together count as if
// they had come one after the other.
func (y *tally) foldSpecial(s *source, slots, later []slot, from int64) {
	// What each scrape says about the time before it: its holes end before ends[i].
	var holes []hole
	ends := make([]int, len(slots))
	previous := s.reached
	if slots[0].t == from {
		previous = 0 // the source's first scrape
	}
	for i := range slots {
		sl := &slots[i]
		s.note(sl.t)
		for j := range sl.specials {
			holes = y.special(holes, s, sl, &sl.specials[j], previous)
		}
		ends[i] = len(holes)
		previous = sl.t
	}
	// What lies between two scrapes was seen where a series bridges it.
	bridged := make([]int64, len(slots))
	earliest := int64(math.MaxInt64)
	for i := range later {
		earliest = min(earliest, later[i].from)
	}
	for i := len(slots) - 1; i >= 0; i-- {
		earliest = min(earliest, slots[i].from)
		bridged[i] = min(earliest, slots[i].t)
	}
	begin := 0
	for i := range slots {
		sl := &slots[i]
		own := holes[begin:ends[i]:ends[i]]
		begin = ends[i]
		if bridged[i] > from {
			own = append(own, hole{from: from, to: bridged[i]})
		}
		own = append(own, s.holes...)
		y.time(from, sl.t, own, false)
		y.time(from, sl.t, own, true)
		y.bookSpecial(sl, own)
		s.holes = slices.DeleteFunc(s.holes, func(h hole) bool { return h.to <= sl.t })
		from = sl.t
	}
}

// bookSpecial adds the events of a scrape to its minute, or to the gap that it
// ends, or to nothing where they are left out on both sides.
func (y *tally) bookSpecial(sl *slot, holes []hole) {
	e := sl.events
	for _, st := range sl.specials {
		e.add(st.events)
	}
	h, in := holding(holes, sl.t)
	switch {
	case !in:
		y.book(sl.t, &e)
		return
	case h.drop:
		y.rule("left_out")
		return
	}
	if y.inverse {
		e.low, e.high = e.total-e.bad, e.total-e.bad
	}
	if e.total == 0 && e.high == 0 {
		return
	}
	g := sla.Gap{From: sla.MinuteOfMillis(h.from), To: sla.MinuteOfMillis(h.to), GoodLow: e.low, GoodHigh: e.high, Total: e.total}
	f := y.minute(g.To)
	if f == nil {
		return
	}
	y.rule("gap")
	addGap(f, g)
	if slices.ContainsFunc(holes, func(h hole) bool { return h.gap && h.to == sl.t && !h.counted }) {
		f.Flags |= sla.FlagLowerBound
	}
}

// addGap adds a gap to a minute: those of several sources with the same edges
// are one.
func addGap(f *sla.Figures, g sla.Gap) {
	for i := range f.Gaps {
		if o := &f.Gaps[i]; o.From == g.From && o.To == g.To {
			o.GoodLow += g.GoodLow
			o.GoodHigh += g.GoodHigh
			o.Total += g.Total
			return
		}
	}
	f.Gaps = append(f.Gaps, g)
	sortGaps(f.Gaps)
}

// special settles what a special increment adds and appends what it says about
// the time before it. previous is the scrape before, 0 where there is none.
func (y *tally) special(holes []hole, s *source, sl *slot, st *step, previous int64) []hole {
	switch st.kind {
	case stepFirst:
		if !y.countsWhole(st, previous) {
			y.rule("baseline")
			st.events = events{}
			return holes
		}
		y.rule("first_whole")
		sl.from = min(sl.from, previous) // it has all since then
		if begin := max(previous, st.st); st.t-begin > s.longest() {
			holes = append(holes, hole{from: begin, to: st.t, gap: true, counted: begin == st.st})
		}
		return holes
	case stepReset:
		// R5: the time before it is seen only from a proven start on (R13). What
		// a long silence hides may have happened at any time of it (R22).
		sl.from = min(sl.from, st.prev)
		begin := st.prev
		if st.st > st.prev && st.st < st.t {
			begin = st.st
			holes = append(holes, hole{from: st.prev, to: begin})
		}
		if long := st.t-begin > s.longest(); long || begin == st.prev {
			holes = append(holes, hole{from: begin, to: st.t, gap: long, counted: begin != st.prev})
		}
		return holes
	case stepSwap:
		sl.from = min(sl.from, st.prev)
		return append(holes, hole{from: st.prev, to: st.t})
	}
	sl.from = min(sl.from, st.prev)
	if st.t-st.prev <= s.longest() && !st.ended {
		return holes
	}
	proven := st.st != 0 && st.st == st.prevST
	if !proven && st.st == 0 && y.proof != nil {
		proven = y.proof(s.key, st.prev, st.t)
	}
	if proven {
		y.rule("gap_proven")
	}
	return append(holes, hole{from: st.prev, to: st.t, counted: proven, gap: true})
}

// countsWhole reports whether the first sample of a series counts whole (R6):
// its start time stamp lies behind the source's previous scrape, or it is a new
// label set of a metric name that the previous scrape had, at most 2.5
// intervals ago and with nothing refused.
func (y *tally) countsWhole(st *step, previous int64) bool {
	if previous <= 0 || previous >= st.t {
		return false
	}
	if st.st > previous && st.st < st.t {
		return true
	}
	s := st.track.src
	interval := s.usual
	if interval == 0 {
		interval = timedFloor * 2 / 5
	}
	if st.t-previous > interval*5/2 {
		return false
	}
	for _, tr := range s.tracks {
		if tr != st.track && tr.known && tr.name == st.track.name && tr.had(previous) {
			return y.refused == nil || !y.refused(s.key, previous)
		}
	}
	return false
}

// longest returns the longest gap that is timed (R11).
func (s *source) longest() int64 { return max(timedFloor, s.usual*5/2) }

const hourMillis = 60 * sla.MinuteMillis

// note learns the usual interval from the gap before a scrape (R10): the median
// of the gaps of the previous UTC hour, and where that had fewer than four, of
// the first four of this hour. A gap is of the hour that holds both of its
// ends, so that a derivation that begins with an hour learns the same.
func (s *source) note(t int64) {
	h := t / hourMillis
	if h != s.hour {
		s.usual = 0
		if h == s.hour+1 && len(s.gaps) >= 4 {
			s.usual = median(s.gaps)
		}
		s.hour, s.gaps = h, s.gaps[:0]
	}
	from := s.reached
	if s.noted > from {
		from = s.noted
	}
	s.noted = t
	if from <= 0 || from >= t || from/hourMillis != h {
		return
	}
	if len(s.gaps) < maxGaps {
		s.gaps = append(s.gaps, int32(t-from))
	}
	if s.usual == 0 && len(s.gaps) == 4 {
		s.usual = median(s.gaps)
	}
}

func median(gaps []int32) int64 {
	sorted := slices.Clone(gaps)
	slices.Sort(sorted)
	return int64(sorted[(len(sorted)-1)/2])
}

// holding returns the widest hole with a rule for the events of a scrape at t:
// a gap that it ends, or a time that is left out.
func holding(holes []hole, t int64) (hole, bool) {
	var best hole
	found := false
	for _, h := range holes {
		if (h.gap && t == h.to || h.drop && t > h.from && t <= h.to) && (!found || h.to-h.from > best.to-best.from) {
			best, found = h, true
		}
	}
	return best, found
}

// time adds (from, to] without its holes, split at the minutes' edges, as timed
// time, or with counted as counted time, which goes on through proven gaps.
func (y *tally) time(from, to int64, holes []hole, counted bool) {
	type cut struct{ from, to int64 }
	var cuts []cut
	for _, h := range holes {
		if !(counted && h.counted) && h.to > from && h.from < to {
			cuts = append(cuts, cut{max(h.from, from), min(h.to, to)})
		}
	}
	slices.SortFunc(cuts, func(a, b cut) int { return int(a.from - b.from) })
	piece := func(a, b int64) {
		for a < b {
			m := sla.MinuteOfMillis(a)
			end := min(b, (m + 1).Millis())
			if f := y.minute(m); f != nil {
				if counted {
					f.Counted += end - a
				} else {
					f.Timed += end - a
				}
			}
			a = end
		}
	}
	at := from
	for _, c := range cuts {
		if c.from > at {
			piece(at, c.from)
		}
		at = max(at, c.to)
	}
	piece(at, to)
}
