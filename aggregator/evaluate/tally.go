package evaluate

import (
	"math"
	"slices"
	"sort"
	"unique"

	"github.com/prometheus/prometheus/model/labels"

	"nines/pkg/sla"
)

const (
	// timedFloor is the longest gap between two samples that is timed whatever
	// the usual interval is (R11).
	timedFloor = 2 * sla.MinuteMillis
	// silentEnd is the time after which a series that stays silent beside
	// living ones of its source has ended (R19).
	silentEnd = 5 * sla.MinuteMillis
	// forgetAfter is how long a source is expected after its last sample beside
	// a live one where nothing tells that it was removed (R14).
	forgetAfter = 24 * 60 * sla.MinuteMillis
	// maxGaps bounds the gaps between scrapes that a source remembers of one
	// hour to find its usual interval: one a second. Later ones are not looked
	// at, the median of 3,600 does not move.
	maxGaps = 3600
	// maxOpen bounds the open minutes of a tally. What lies beyond is derived
	// from raw samples once the minutes before it have closed.
	maxOpen = 8 * 60
	// maxSlots bounds the scrapes of a source that wait for a lagging series.
	// Beyond it the minutes are derived again from raw samples.
	maxSlots = 4096
)

// Role says on which side of the ratio a series counts.
type role uint8

const (
	roleLow role = 1 << iota
	roleHigh
	roleBad
	roleTotal

	roleGood = roleLow | roleHigh
)

// track is one series of one objective: two lines of the processor's cache, of
// which every sample needs the first. With very many series the time goes into
// fetching it.
type track struct {
	src       *source
	objective *objective
	native    *native

	lastT  int64 // newest sample, milliseconds
	lastST int64
	lastV  int64 // micro-events
	// endedAt is the newest stale marker, milliseconds.
	endedAt int64
	replica int16
	role    role
	dead    bool // a derivation has taken its place
	known   bool // the other fields of samples are set
	ended   bool // by a stale marker, by silence (R19) or with its source

	since  int64                        // first sample of this life, milliseconds
	was    struct{ since, lastT int64 } // the life before
	labels labels.Labels                // without a replica label (R7)
	next   *track                       // with the same hash of labels
	name   unique.Handle[string]        // metric name
	edge   float64                      // le of a bucket that a threshold is compared with, else 0
}

// stepKind says what is special about an increment.
type stepKind uint8

const (
	stepFirst stepKind = iota // of a series that was not known (R6)
	stepReset                 // a counter that began anew (R5)
	stepLong                  // over a gap that may be too long to be timed (R11, R12)
	stepSwap                  // a decrease at a switch of replicas (R7)
)

// step is an increment that is not between two samples of one life of a series
// that are at most timedFloor apart.
type step struct {
	track   *track
	kind    stepKind
	ended   bool  // the series had ended before it
	t, prev int64 // the sample and the one before it
	st      int64 // start time stamp of the sample
	prevST  int64
	events  events
}

// slot is one scrape of a source, held until all of its living series have
// reached it (R19).
type slot struct {
	t        int64
	from     int64 // the earliest previous sample of what is in events
	events   events
	specials []step
}

// hole is source time that is not timed, or not even counted.
type hole struct {
	from, to int64 // (from, to]
	counted  bool
	gap      bool // increments in it become one Gap (R22)
	drop     bool // increments in it are left out on both sides (R19)
}

// spell is a time in which a source was expected, milliseconds (R14).
type spell struct {
	first   int64
	removed int64 // 0 while it is expected
	reason  string
	booked  int64 // first as the book has it, 0 where it has not
	told    int64 // removed as the book has it
}

// source is a target whose series feed an objective (R9).
type source struct {
	key     string
	tracks  []*track
	spells  []spell // the newest last
	newest  int64   // newest sample
	reached int64   // all its living series have been counted up to here
	scraped int64   // the scrape before reached, for R6
	living  int     // tracks that are known and have not ended
	behind  int     // those of them without the newest scrape
	slots   []slot  // ascending
	holes   []hole
	seen    map[sla.Minute]bool // minutes with a sample, for R18; open ones only

	dirty, waiting bool // in the lists of the tally
	// late is the oldest sample that came out of order since the last
	// derivation, 0 without one.
	late int64
	// resent is the newest sample that came again after a stop.
	resent int64

	noted int64   // newest scrape that the usual interval knows
	hour  int64   // UTC hour that gaps are collected for
	gaps  []int32 // milliseconds
	usual int64   // usual interval, milliseconds, 0 unknown (R10)
}

// tally turns the samples of one objective into minutes.
type tally struct {
	inverse bool // the SLI is given as bad of total
	absent  bool // minutes without a sample are asked for (R18)
	sources map[string]*source
	list    []*source // all of sources
	// open holds the figures of the minutes from settled+1 on.
	open []sla.Figures
	// settled is the newest minute that may no longer be changed in place:
	// what would change it is put into stale instead.
	settled sla.Minute
	// stale is the oldest settled minute that needs to be derived again, and
	// needsAgain says that there is one.
	stale      sla.Minute
	needsAgain bool
	newest     int64
	// began is the first sample of the first source that ever was, milliseconds,
	// 0 before there is one (R14).
	began int64
	// readTo is where minutes end that were read back out of another store,
	// milliseconds: a series that comes back behind it after a long time is a
	// baseline, for what happened before is booked.
	readTo int64
	// resumed is the newest minute that was closed when this process began.
	resumed sla.Minute

	dirty   []*source // observed since the last settle
	waiting []*source // with scrapes that wait for a lagging series

	// proof tells whether a source is known to have run through (from, to] by
	// other means than start time stamps (R12). nil is never.
	proof func(key string, from, to int64) bool
	// refused tells whether a part of a source's scrape was refused (R6). nil
	// is never.
	refused func(key string, t int64) bool
	// count, if set, is told how many samples a rule was applied to.
	count func(rule string)
}

func newTally(inverse bool, settled sla.Minute) *tally {
	return &tally{
		inverse: inverse,
		settled: settled,
		sources: map[string]*source{},
	}
}

// source returns the source of a key, made if it is new.
func (y *tally) source(key string) *source {
	s := y.sources[key]
	if s == nil {
		s = &source{key: key}
		y.sources[key] = s
		y.list = append(y.list, s)
	}
	return s
}

// track adds a series to a source.
func (y *tally) track(key, name string, r role) *track {
	s := y.source(key)
	tr := &track{name: unique.Make(name), role: r, src: s}
	s.tracks = append(s.tracks, tr)
	return tr
}

// again notes that a settled minute must be derived again from raw samples.
func (y *tally) again(m sla.Minute) {
	if !y.needsAgain || m < y.stale {
		y.stale, y.needsAgain = m, true
	}
}

// late notes a sample that came out of order: the minutes that it touches are
// derived again (R21). How far back that is, raw samples tell.
func (y *tally) late(s *source, t int64) {
	y.rule("late")
	if s.late == 0 || t < s.late {
		s.late = t
	}
	y.again(sla.MinuteOfMillis(t) - 1)
}

func (y *tally) rule(name string) {
	if y.count != nil {
		y.count(name)
	}
}

// minute returns the open figures of a minute, or nil where it is settled. The
// pointer is good until the next call.
func (y *tally) minute(m sla.Minute) *sla.Figures {
	i := int(m - y.settled - 1)
	if i < 0 || i >= maxOpen {
		y.again(m)
		return nil
	}
	for len(y.open) <= i {
		y.open = append(y.open, sla.Figures{})
	}
	return &y.open[i]
}

// arrival is one sample with its track.
type arrival struct {
	track *track
	point point
}

// sample takes one sample. settle must follow the batch that it is part of.
func (y *tally) sample(tr *track, p *point) {
	if tr.usual(p) {
		y.touch(tr.src)
		return
	}
	s := tr.src
	if p.stale {
		switch {
		case !tr.known:
		case p.t < tr.lastT:
			y.late(s, p.t) // an end between two samples that are known
		case tr.ended && p.t > tr.endedAt && p.t > tr.lastT && p.t <= s.reached:
			tr.endedAt = p.t
			y.late(s, p.t) // it was not silent, it had ended
		case p.t > tr.lastT && !tr.ended:
			tr.endedAt = p.t
			y.end(tr)
			y.touch(s)
		}
		return
	}
	if tr.known && p.t <= tr.lastT {
		switch {
		case p.t < tr.lastT:
			y.late(s, p.t)
		case sla.MinuteOfMillis(p.t) <= min(y.settled, y.resumed) && p.t > s.resent:
			// A stop came between storing and counting it, and its sender, who got no
			// answer, sends it again.
			s.resent = p.t
			y.late(s, p.t)
		default:
			y.rule("duplicate") // adds nothing (R4)
		}
		return
	}
	if tr.ended && p.t < tr.endedAt {
		y.late(s, p.t)
		return
	}
	if p.t <= s.reached && (tr.known || p.t != s.reached) {
		// The source was counted beyond this sample without its series.
		y.late(s, p.t)
		if tr.known {
			return
		}
	}
	y.expect(s, p.t)
	if p.t > y.newest {
		y.newest = p.t
	}
	if y.absent {
		if m := sla.MinuteOfMillis(p.t); m > y.settled {
			if s.seen == nil {
				s.seen = map[sla.Minute]bool{}
			}
			s.seen[m] = true
		} else {
			y.late(s, p.t) // it was not absent after all
		}
	}
	if !tr.known {
		y.first(tr, p)
		return
	}

	wasLiving := !tr.ended
	if p.t > s.newest {
		s.newest = p.t
		s.behind = s.living
	}
	if p.t == s.newest && wasLiving {
		s.behind--
	}
	if !wasLiving {
		s.living++
		if p.t < s.newest {
			s.behind++
		}
	}
	sl := s.slot(p.t)
	if tr.lastT < y.readTo && p.t >= y.readTo && p.t-tr.lastT > s.longest() {
		y.rule("baseline")
		tr.remember(p)
		y.touch(s)
		return
	}
	reset := p.v < tr.lastV || p.st > tr.lastT && p.st < p.t
	switched := p.replica != tr.replica
	if tr.native != nil {
		reset = reset || p.h.DetectReset(tr.native.last)
	}
	switch {
	case switched && p.v < tr.lastV && !(p.st > tr.lastT && p.st < p.t):
		y.rule("replica_decrease")
		sl.specials = append(sl.specials, step{track: tr, kind: stepSwap, t: p.t, prev: tr.lastT})
	case reset:
		y.rule("reset")
		sl.specials = append(sl.specials, step{track: tr, kind: stepReset, ended: tr.ended, t: p.t, prev: tr.lastT, st: p.st, events: tr.increment(p, true)})
	case tr.ended || p.t-tr.lastT > timedFloor:
		sl.specials = append(sl.specials, step{track: tr, kind: stepLong, ended: tr.ended, t: p.t, prev: tr.lastT, st: p.st, prevST: tr.lastST, events: tr.increment(p, false)})
	default:
		sl.events.add(tr.increment(p, false))
		if tr.lastT < sl.from {
			sl.from = tr.lastT
		}
	}
	tr.remember(p)
	y.touch(s)
}

// usual takes a sample that goes on where the series was, in a scrape that has
// begun: all but one in a scrape of a healthy source. sample says the same of
// it, with all that it asks of others.
func (tr *track) usual(p *point) bool {
	s := tr.src
	n := len(s.slots)
	if n == 0 || s.slots[n-1].t != p.t || p.t != s.newest || p.t <= s.reached ||
		!tr.known || tr.ended || p.stale || tr.native != nil || tr.replica != p.replica ||
		p.t <= tr.lastT || p.t-tr.lastT > timedFloor || p.v < tr.lastV || p.st > tr.lastT {
		return false
	}
	s.behind--
	sl := &s.slots[n-1]
	d := p.v - tr.lastV
	if tr.role&roleLow != 0 {
		sl.events.low += d
	}
	if tr.role&roleHigh != 0 {
		sl.events.high += d
	}
	if tr.role&roleBad != 0 {
		sl.events.bad += d
	}
	if tr.role&roleTotal != 0 {
		sl.events.total += d
	}
	sl.from = min(sl.from, tr.lastT)
	tr.lastT, tr.lastST, tr.lastV = p.t, p.st, p.v
	return true
}

// first takes the first sample of a series that was not known.
func (y *tally) first(tr *track, p *point) {
	s := tr.src
	s.living++
	switch {
	case p.t > s.newest:
		s.newest = p.t
		s.behind = s.living - 1
	case p.t < s.newest:
		s.behind++
	}
	st := step{track: tr, kind: stepFirst, t: p.t, st: p.st, events: tr.increment(p, true)}
	tr.since = p.t
	tr.remember(p)
	if p.t <= s.reached {
		// Its scrape was counted already, as with senders that shard: what it
		// adds still belongs to that scrape.
		if p.t == s.reached {
			y.addFirst(&st, s.scraped)
		}
	} else {
		sl := s.slot(p.t)
		sl.specials = append(sl.specials, st)
	}
	y.touch(s)
}

// addFirst counts the first sample of a series whose scrape was counted
// already.
func (y *tally) addFirst(st *step, previous int64) {
	if !y.countsWhole(st, previous) {
		y.rule("baseline")
		return
	}
	y.rule("first_whole")
	if f := y.minute(sla.MinuteOfMillis(st.t)); f != nil {
		y.put(f, st.events)
	}
}

// put adds events to a minute.
func (y *tally) put(f *sla.Figures, e events) {
	if y.inverse {
		e.low, e.high = e.total-e.bad, e.total-e.bad
	}
	f.GoodLow += e.low
	f.GoodHigh += e.high
	f.Total += e.total
}

// increment returns what a sample adds: the difference to the last one, or all
// of it.
func (tr *track) increment(p *point, whole bool) events {
	if tr.native != nil {
		e, ok := tr.native.increment(p.h, tr.role, whole || tr.native.last == nil)
		if !ok {
			return events{}
		}
		return e
	}
	d := p.v
	if !whole {
		d -= tr.lastV
	}
	var e events
	if tr.role&roleLow != 0 {
		e.low = d
	}
	if tr.role&roleHigh != 0 {
		e.high = d
	}
	if tr.role&roleBad != 0 {
		e.bad = d
	}
	if tr.role&roleTotal != 0 {
		e.total = d
	}
	return e
}

// remember makes a sample the track's last one.
func (tr *track) remember(p *point) {
	if tr.ended {
		tr.was.since, tr.was.lastT = tr.since, tr.lastT
		tr.since = p.t
	}
	tr.known, tr.ended = true, false
	tr.lastT, tr.lastST, tr.lastV, tr.replica = p.t, p.st, p.v, p.replica
	if tr.native != nil {
		tr.native.last = p.h
	}
}

// had reports whether a scrape at t had the series, in this life or the one
// before.
func (tr *track) had(t int64) bool {
	return tr.since <= t && t <= tr.lastT || tr.was.since <= t && t <= tr.was.lastT
}

// goOn makes a sample from before the tally's time the track's last one: the
// series goes on from it when it comes back (R6).
func (tr *track) goOn(p point) {
	tr.remember(&p)
	tr.since = p.t
	tr.ended = true
	if s := tr.src; len(s.slots) == 0 && s.reached < p.t {
		s.reached = p.t
	}
}

// end ends a series.
func (y *tally) end(tr *track) {
	s := tr.src
	tr.ended = true
	s.living--
	if tr.lastT < s.newest {
		s.behind--
	}
}

// touch puts a source on the list of those that settle looks at.
func (y *tally) touch(s *source) {
	if !s.dirty {
		s.dirty = true
		y.dirty = append(y.dirty, s)
	}
}

// slot returns the scrape at t, made if it is new.
func (s *source) slot(t int64) *slot {
	i := len(s.slots)
	for i > 0 && s.slots[i-1].t > t {
		i--
	}
	if i > 0 && s.slots[i-1].t == t {
		return &s.slots[i-1]
	}
	s.slots = slices.Insert(s.slots, i, slot{t: t, from: math.MaxInt64})
	return &s.slots[i]
}

// expect notes that the source has a sample at t: it is expected from its first
// one on (R14), and again after it was removed.
func (y *tally) expect(s *source, t int64) {
	if y.began == 0 || t < y.began {
		y.began = t
	}
	n := len(s.spells)
	switch {
	case n == 0:
		s.spells = append(s.spells, spell{first: t})
	case s.spells[n-1].removed != 0 && t > s.spells[n-1].removed:
		s.spells = append(s.spells, spell{first: t})
	case n == 1 && t < s.spells[0].first:
		s.spells[0].first = t
	default:
		return
	}
	if sla.MinuteOfMillis(t) <= y.settled {
		y.late(s, t) // minutes that are closed expect it too
	}
}

// remove notes that a source was taken away on purpose (R14): its series end.
func (y *tally) remove(s *source, t int64, reason string) {
	n := len(s.spells)
	if n == 0 || s.spells[n-1].removed != 0 || t < s.spells[n-1].first {
		return
	}
	s.spells[n-1].removed, s.spells[n-1].reason = t, reason
	for _, tr := range s.tracks {
		if tr.known && !tr.ended {
			y.end(tr)
		}
	}
	y.touch(s)
	if m := sla.MinuteOfMillis(t); m <= y.settled {
		y.again(m)
	}
}

// forget removes the sources that have been silent for forgetAfter beside a
// live one, where nothing told that they were removed (R14).
func (y *tally) forget() {
	if len(y.sources) < 2 {
		return
	}
	for _, s := range y.list {
		if n := len(s.spells); n > 0 && s.spells[n-1].removed == 0 && s.newest > 0 && y.newest-s.newest > forgetAfter {
			y.remove(s, s.newest+forgetAfter, "silent for a day beside a live source")
		}
	}
}

// expected returns the source time that a minute should have held (R14), and
// how many sources were expected for all of it without a sample in it.
func (y *tally) expected(m sla.Minute) (ms int64, absent int64) {
	begin, end := m.Millis(), (m + 1).Millis()
	if y.began == 0 || y.began >= end {
		return sla.MinuteMillis, 1 // never had a source by then: expects one
	}
	for _, s := range y.list {
		for i := range s.spells {
			sp := &s.spells[i]
			from, to := max(begin, sp.first), end
			if sp.removed > 0 {
				to = min(to, sp.removed)
			}
			if to <= from {
				continue
			}
			ms += to - from
			if to-from == sla.MinuteMillis && !s.seen[m] {
				absent++
			}
		}
	}
	return ms, absent
}

// slowest returns the largest usual interval of the sources that are alive at
// `now`, in milliseconds.
func (y *tally) slowest(now int64) int64 {
	var ms int64
	for _, s := range y.list {
		if s.usual > ms && s.living > 0 && now-s.newest <= max(10*sla.MinuteMillis, s.longest()) {
			ms = s.usual
		}
	}
	return ms
}

// close takes the minute settled+1 out of the tally: its final figures. The
// minute is settled from then on.
func (y *tally) close(absentBad, receiving bool, now int64) sla.Figures {
	m := y.settled + 1
	f := y.figures(m, absentBad, receiving)
	f.IntervalMillis = y.slowest(now)
	y.drop(m)
	return f
}

// drop settles all minutes up to m.
func (y *tally) drop(m sla.Minute) {
	if m <= y.settled {
		return
	}
	n := min(int(m-y.settled), len(y.open))
	y.open = y.open[:copy(y.open, y.open[n:])]
	y.settled = m
	if y.absent {
		for _, s := range y.list {
			for seen := range s.seen {
				if seen <= m {
					delete(s.seen, seen)
				}
			}
		}
	}
}

// at returns what an open minute has counted by now, without what is expected.
func (y *tally) at(m sla.Minute) (f sla.Figures) {
	if i := int(m - y.settled - 1); i >= 0 && i < len(y.open) {
		f = y.open[i]
	}
	return f
}

// figures returns what a minute holds by now.
func (y *tally) figures(m sla.Minute, absentBad, receiving bool) sla.Figures {
	f := y.at(m)
	f.Gaps = append([]sla.Gap(nil), f.Gaps...)
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

func lessGap(a, b sla.Gap) bool {
	if a.From != b.From {
		return a.From < b.From
	}
	if a.To != b.To {
		return a.To < b.To
	}
	return a.Total < b.Total
}

// sortGaps orders gaps as the book keeps them.
func sortGaps(gaps []sla.Gap) {
	sort.Slice(gaps, func(i, j int) bool { return lessGap(gaps[i], gaps[j]) })
}
