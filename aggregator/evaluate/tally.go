package evaluate

import (
	"math"
	"math/big"
	"sort"
	"strconv"

	"nines/pkg/sla"
)

const (
	// timedFloor is the longest gap between two samples that is timed whatever
	// the usual interval is (R11).
	timedFloor = 2 * sla.MinuteMillis
	// silentEnd is the time after which a series that stays silent beside
	// living ones of its source has ended (R19).
	silentEnd = 5 * sla.MinuteMillis
	// maxGaps bounds the gaps between samples that a source remembers of one
	// hour to find its usual interval: one a second. Later ones are not looked
	// at, the median of 3,600 does not move.
	maxGaps = 3600
)

// Role says on which side of the ratio a series counts.
type role uint8

const (
	roleGood role = 1 << iota
	roleBad
	roleTotal
)

// point is one sample of one series, ready to be counted.
type point struct {
	t, st int64 // milliseconds since the epoch; st is 0 where unknown
	v     int64 // micro-events
	stale bool
}

// track is one series of one objective.
type track struct {
	name  string // metric name
	role  role
	src   *source
	last  point
	known bool // last is set
	ended bool // by a stale marker or by silence (R19)
}

// step is what one sample of a track added, held until all series of its
// source have reached its time (R19).
type step struct {
	t                int64
	good, bad, total int64 // micro-events
	// from and proven describe the time before t: it was seen from `from` on,
	// where `from` is the previous sample, or the start after a proven reset,
	// or t itself where nothing is known of it (R13).
	prev, from int64
	// long marks a gap that is too long to be timed, proven one whose two ends
	// carry equal start time stamps (R12).
	long, proven bool
}

// hole is source time that is not timed, or not even counted.
type hole struct {
	from, to int64 // (from, to]
	counted  bool
	gap      bool // increments in it become one Gap (R22)
	drop     bool // increments in it are left out on both sides (R19)
}

// source is a target whose series feed an objective (R9).
type source struct {
	key      string
	tracks   []*track
	first    int64 // first sample ever, milliseconds
	removed  int64 // when it was removed on purpose, 0 while it is expected
	begin    int64 // first sample that this tally saw
	newest   int64 // newest sample
	reached  int64 // all its living series have been seen up to here
	previous int64 // time of the scrape before the newest
	steps    []step
	holes    []hole
	seen     map[sla.Minute]bool // minutes with a sample, for R18; open ones only

	hour  int64 // UTC hour that gaps are collected for
	gaps  []int64
	usual int64 // usual interval, milliseconds, 0 unknown (R10)
}

// tally turns the samples of one objective into minutes.
type tally struct {
	inverse bool // the SLI is given as bad of total
	sources map[string]*source
	minutes map[sla.Minute]*sla.Figures
	// settled is the newest minute that may no longer be changed in place:
	// what would change it is put into stale instead.
	settled sla.Minute
	// stale is the oldest settled minute that needs to be derived again, and
	// needsAgain says that there is one.
	stale      sla.Minute
	needsAgain bool
	newest     int64
}

func newTally(inverse bool, settled sla.Minute) *tally {
	return &tally{
		inverse: inverse,
		settled: settled,
		sources: map[string]*source{},
		minutes: map[sla.Minute]*sla.Figures{},
	}
}

// source returns the source of a key, made if it is new.
func (y *tally) source(key string) *source {
	s := y.sources[key]
	if s == nil {
		s = &source{key: key, seen: map[sla.Minute]bool{}}
		y.sources[key] = s
	}
	return s
}

// track adds a series to a source.
func (y *tally) track(key, name string, r role) *track {
	s := y.source(key)
	tr := &track{name: name, role: r, src: s}
	s.tracks = append(s.tracks, tr)
	return tr
}

// again notes that a settled minute must be derived again from raw samples.
func (y *tally) again(m sla.Minute) {
	if !y.needsAgain || m < y.stale {
		y.stale, y.needsAgain = m, true
	}
}

// minute returns the open figures of a minute, or nil where it is settled.
func (y *tally) minute(m sla.Minute) *sla.Figures {
	if m <= y.settled {
		y.again(m)
		return nil
	}
	f := y.minutes[m]
	if f == nil {
		f = &sla.Figures{}
		y.minutes[m] = f
	}
	return f
}

// arrival is one sample with its track.
type arrival struct {
	track *track
	point point
}

// observe takes a batch of samples of any series. Within a source it goes on
// in the order of time, whatever the order of the batch.
func (y *tally) observe(batch []arrival) {
	sort.SliceStable(batch, func(i, j int) bool { return batch[i].point.t < batch[j].point.t })
	touched := map[*source]bool{}
	for i := 0; i < len(batch); {
		t := batch[i].point.t
		clear(touched)
		for ; i < len(batch) && batch[i].point.t == t; i++ {
			y.sample(batch[i].track, batch[i].point)
			touched[batch[i].track.src] = true
		}
		for s := range touched {
			y.settleSilence(s)
			y.advance(s)
		}
	}
}

// sample takes one sample: it becomes a step of its source.
func (y *tally) sample(tr *track, p point) {
	s := tr.src
	if p.stale {
		if !tr.known || p.t > tr.last.t {
			tr.ended = true
		}
		return
	}
	if tr.known && p.t == tr.last.t {
		return // a duplicate adds nothing (R4)
	}
	if tr.known && p.t < tr.last.t || s.reached > 0 && p.t <= s.reached && s.newest > p.t {
		// Out of order, or a series that the source no longer waited for: the
		// minutes from here on are derived again (R21).
		y.again(sla.MinuteOfMillis(p.t) - 1)
		return
	}
	if p.t > s.newest {
		s.previous, s.newest = s.newest, p.t
		if s.previous > 0 {
			s.note(s.previous, p.t)
		}
	}
	if s.begin == 0 {
		s.begin = p.t
	}
	if s.first == 0 || p.t < s.first {
		s.first = p.t
	}
	if p.t > y.newest {
		y.newest = p.t
	}
	if m := sla.MinuteOfMillis(p.t); m > y.settled {
		s.seen[m] = true
	}

	st := step{t: p.t, prev: p.t, from: p.t}
	var inc int64
	switch {
	case !tr.known:
		// R6: a new series counts its whole value where it provably began after
		// the source's previous sample; otherwise the value is a baseline.
		if s.previous > 0 && (p.st > s.previous && p.st < p.t || s.hadName(tr)) {
			inc = p.v
		}
		st.prev, st.from = 0, 0 // says nothing about the source's time
	case p.v < tr.last.v || p.st != 0 && p.st > tr.last.t && p.st < p.t:
		// R5: a reset. The new value is the increment; the time before it is
		// seen only from a proven start on (R13).
		inc = p.v
		st.prev = tr.last.t
		if p.st > tr.last.t && p.st < p.t {
			st.from = p.st
		}
	default:
		inc = p.v - tr.last.v
		st.prev, st.from = tr.last.t, tr.last.t
		if p.t-tr.last.t > s.longest() || tr.ended {
			st.long = true
			st.proven = p.st != 0 && p.st == tr.last.st
		}
	}
	if tr.role&roleTotal != 0 {
		st.total = inc
	}
	if tr.role&roleGood != 0 {
		st.good = inc
	}
	if tr.role&roleBad != 0 {
		st.bad = inc
	}
	tr.last, tr.known, tr.ended = p, true, false
	s.steps = append(s.steps, st)
}

// hadName reports whether the source's previous scrape, at most 2.5 intervals
// ago, had the metric name of a new series (R6).
func (s *source) hadName(fresh *track) bool {
	interval := s.usual
	if interval == 0 {
		interval = timedFloor * 2 / 5
	}
	if s.newest-s.previous > interval*5/2 {
		return false
	}
	for _, tr := range s.tracks {
		if tr != fresh && tr.known && tr.name == fresh.name && tr.last.t >= s.previous {
			return true
		}
	}
	return false
}

// longest returns the longest gap that is timed (R11).
func (s *source) longest() int64 { return max(timedFloor, s.usual*5/2) }

// note learns the usual interval from a gap between two scrapes (R10): the
// median of the previous UTC hour, and in the first hour of four gaps.
func (s *source) note(from, to int64) {
	const hourMillis = 60 * sla.MinuteMillis
	if h := to / hourMillis; h != s.hour {
		if len(s.gaps) >= 4 {
			s.usual = median(s.gaps)
		}
		s.hour, s.gaps = h, s.gaps[:0]
	}
	if len(s.gaps) < maxGaps {
		s.gaps = append(s.gaps, to-from)
	}
	if s.usual == 0 && len(s.gaps) == 4 {
		s.usual = median(s.gaps)
	}
}

func median(gaps []int64) int64 {
	sorted := append([]int64(nil), gaps...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	return sorted[(len(sorted)-1)/2]
}

// settleSilence ends the series that stayed silent for too long beside living
// ones: the time that was waited for them is neither counted nor timed, and
// its events are left out on both sides (R19).
func (y *tally) settleSilence(s *source) {
	wait := max(int64(silentEnd), s.longest())
	for _, tr := range s.tracks {
		if tr.known && !tr.ended && s.newest-tr.last.t > wait {
			tr.ended = true
			s.holes = append(s.holes, hole{from: tr.last.t, to: tr.last.t + wait, drop: true})
		}
	}
}

// advance counts the source up to the time that all its living series have
// reached.
func (y *tally) advance(s *source) {
	to, living := s.newest, false
	for _, tr := range s.tracks {
		if tr.known && !tr.ended {
			living = true
			to = min(to, tr.last.t)
		}
	}
	if !living || to <= s.reached {
		return
	}
	if s.reached == 0 {
		s.reached = s.begin
	}
	var now []step
	rest := s.steps[:0]
	for _, st := range s.steps {
		if st.t <= to {
			now = append(now, st)
		} else {
			rest = append(rest, st)
		}
	}
	s.steps = rest
	y.span(s, s.reached, to, now)
	s.reached = to
}

// span adds the source time (from, to] and the steps in it to their minutes.
func (y *tally) span(s *source, from, to int64, steps []step) {
	holes := s.holes
	for _, st := range steps {
		switch {
		case st.long:
			holes = append(holes, hole{from: st.prev, to: st.t, counted: st.proven, gap: true})
		case st.from > st.prev:
			holes = append(holes, hole{from: st.prev, to: st.from})
		}
	}
	// Holes that reach beyond this span are kept for the next one.
	s.holes = nil
	for _, h := range holes {
		if h.to > to {
			s.holes = append(s.holes, h)
		}
	}
	y.time(from, to, holes, func(h hole) bool { return false }, func(f *sla.Figures, ms int64) { f.Timed += ms })
	y.time(from, to, holes, func(h hole) bool { return h.counted }, func(f *sla.Figures, ms int64) { f.Counted += ms })

	gaps := map[hole]*sla.Gap{}
	for _, st := range steps {
		good := st.good
		if y.inverse {
			good = st.total - st.bad
		}
		h, in := holding(holes, st.t)
		switch {
		case in && h.drop:
		case in && h.gap:
			g := gaps[h]
			if g == nil {
				g = &sla.Gap{From: sla.MinuteOfMillis(h.from), To: sla.MinuteOfMillis(h.to)}
				gaps[h] = g
			}
			g.GoodLow += good
			g.GoodHigh += good
			g.Total += st.total
		default:
			if f := y.minute(sla.MinuteOfMillis(st.t)); f != nil && (good != 0 || st.total != 0) {
				f.GoodLow += good
				f.GoodHigh += good
				f.Total += st.total
			}
		}
	}
	for h, g := range gaps {
		f := y.minute(g.To)
		if f == nil || g.Total == 0 && g.GoodHigh == 0 {
			continue
		}
		f.Gaps = append(f.Gaps, *g)
		sort.Slice(f.Gaps, func(i, j int) bool { return lessGap(f.Gaps[i], f.Gaps[j]) })
		if !h.counted {
			f.Flags |= sla.FlagLowerBound
		}
	}
}

// holding returns the widest hole with a rule for events that holds t.
func holding(holes []hole, t int64) (hole, bool) {
	var best hole
	found := false
	for _, h := range holes {
		if (h.gap || h.drop) && t > h.from && t <= h.to && (!found || h.to-h.from > best.to-best.from) {
			best, found = h, true
		}
	}
	return best, found
}

// time adds (from, to] without the holes that the skip function does not let
// pass, split at the minutes' edges.
func (y *tally) time(from, to int64, holes []hole, passes func(hole) bool, add func(*sla.Figures, int64)) {
	type cut struct{ from, to int64 }
	var cuts []cut
	for _, h := range holes {
		if !passes(h) && h.to > from && h.from < to {
			cuts = append(cuts, cut{max(h.from, from), min(h.to, to)})
		}
	}
	sort.Slice(cuts, func(i, j int) bool { return cuts[i].from < cuts[j].from })
	at := from
	piece := func(a, b int64) {
		for a < b {
			m := sla.MinuteOfMillis(a)
			end := min(b, (m + 1).Millis())
			if f := y.minute(m); f != nil {
				add(f, end-a)
			}
			a = end
		}
	}
	for _, c := range cuts {
		if c.from > at {
			piece(at, c.from)
		}
		at = max(at, c.to)
	}
	piece(at, to)
}

func lessGap(a, b sla.Gap) bool {
	if a.From != b.From {
		return a.From < b.From
	}
	if a.To != b.To {
		return a.To < b.To
	}
	return a.Total < b.Total
}

// expected returns the source time that a minute should have held (R14), and
// how many sources were expected for all of it.
func (y *tally) expected(m sla.Minute) (ms int64, absent int64) {
	begin, end := m.Millis(), (m + 1).Millis()
	if len(y.sources) == 0 {
		return sla.MinuteMillis, 1 // never had a source: expects one
	}
	for _, s := range y.sources {
		if s.first == 0 {
			continue // its series have only ever ended
		}
		from, to := max(begin, s.first), end
		if s.removed > 0 {
			to = min(to, s.removed)
		}
		if to <= from {
			continue
		}
		ms += to - from
		if to-from == sla.MinuteMillis && !s.seen[m] {
			absent++
		}
	}
	return ms, absent
}

// slowest returns the largest usual interval of the sources that are alive at
// `now`, in milliseconds.
func (y *tally) slowest(now int64) int64 {
	var ms int64
	for _, s := range y.sources {
		if s.removed == 0 && now-s.newest <= max(10*sla.MinuteMillis, s.longest()) {
			ms = max(ms, s.usual)
		}
	}
	return ms
}

// close takes a minute out of the tally: its final figures. The minute is
// settled from then on.
func (y *tally) close(m sla.Minute, absentBad, receiving bool, now int64) sla.Figures {
	f := y.figures(m, absentBad, receiving)
	f.IntervalMillis = y.slowest(now)
	delete(y.minutes, m)
	for _, s := range y.sources {
		delete(s.seen, m)
	}
	y.settled = max(y.settled, m)
	return f
}

// figures returns what a minute holds by now.
func (y *tally) figures(m sla.Minute, absentBad, receiving bool) sla.Figures {
	var f sla.Figures
	if open := y.minutes[m]; open != nil {
		f = *open
		f.Gaps = append([]sla.Gap(nil), open.Gaps...)
	}
	var absent int64
	f.Expected, absent = y.expected(m)
	switch {
	case !receiving:
		f.Flags |= sla.FlagNotReceiving
	case absentBad && absent > 0:
		// R18: an expected minute without a sample is one bad event.
		f.Total += absent * sla.Micro
		f.Flags |= sla.FlagAbsent
	}
	return f
}

// micro turns a sample's value into micro-events (R3): exact from its shortest
// decimal form, half to even. It reports false for what is not a count: NaN,
// infinities, negative values, and counts above 9.2e12.
func micro(v float64) (int64, bool) {
	if !(v >= 0) || v > math.MaxInt64/sla.Micro {
		return 0, false
	}
	if n := int64(v); float64(n) == v {
		return n * sla.Micro, true
	}
	r, ok := new(big.Rat).SetString(strconv.FormatFloat(v, 'g', -1, 64))
	if !ok {
		return 0, false
	}
	r.Mul(r, big.NewRat(sla.Micro, 1))
	q, rem := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	switch twice := rem.Lsh(rem, 1); twice.Cmp(r.Denom()) {
	case 1:
		q.Add(q, big.NewInt(1))
	case 0:
		if q.Bit(0) == 1 {
			q.Add(q, big.NewInt(1))
		}
	}
	return q.Int64(), q.IsInt64()
}
