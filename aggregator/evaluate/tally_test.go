package evaluate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"nines/pkg/sla"
)

// base is a whole hour, so that minutes in tests are easy to read.
const base = int64(1_790_000_000_000 / 3_600_000 * 3_600_000)

var minute0 = sla.MinuteOfMillis(base)

// at returns a sample at seconds after base with a count of events.
func at(seconds float64, events int64) point {
	return point{t: base + int64(seconds*1000), v: events * sla.Micro}
}

// since gives the sample a start time stamp.
func (p point) since(seconds float64) point {
	p.st = base + int64(seconds*1000)
	return p
}

// scrapes feeds one track with a sample each 15 s.
func scrapes(y *tally, tr *track, from, to float64, value func(seconds float64) int64) {
	for s := from; s <= to; s += 15 {
		y.observe([]arrival{{tr, at(s, value(s))}})
	}
}

func wantMinute(t *testing.T, y *tally, minute int, want sla.Counts) {
	t.Helper()
	f := y.figures(minute0+sla.Minute(minute), false, true)
	got := f.Counts
	if got.Expected != want.Expected && want.Expected == 0 {
		got.Expected = 0 // not asked for
	}
	if got != want {
		t.Errorf("minute %d: got %+v, want %+v", minute, got, want)
	}
}

func TestR03_ValuesBecomeExactMicroEvents(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want int64
		ok   bool
	}{
		{0, 0, true},
		{1, 1_000_000, true},
		{0.1, 100_000, true},
		{0.30000000000000004, 300_000, true},
		{1e12, 1e18, true},
		{0.0000005, 0, true}, // half to even: 0.5 → 0
		{0.0000015, 2, true}, // 1.5 → 2
		{0.0000025, 2, true}, // 2.5 → 2
		{1234567.891, 1_234_567_891_000, true},
		{9.3e12, 0, false},
		{-1, 0, false},
		{math.NaN(), 0, false},
		{math.Inf(1), 0, false},
	} {
		got, ok := micro(c.v)
		if ok != c.ok || got != c.want {
			t.Errorf("micro(%v) = %d, %v; want %d, %v", c.v, got, ok, c.want, c.ok)
		}
	}
}

func TestR04_AnIncrementBelongsToTheMinuteOfItsLaterSample(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal|roleGood)
	y.observe([]arrival{{tr, at(50, 10)}, {tr, at(65, 17)}})
	wantMinute(t, y, 0, sla.Counts{Counted: 10_000, Timed: 10_000})
	wantMinute(t, y, 1, sla.Counts{GoodLow: 7 * sla.Micro, GoodHigh: 7 * sla.Micro, Total: 7 * sla.Micro, Counted: 5000, Timed: 5000})
}

func TestR04_ADuplicateAddsNothing(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal)
	y.observe([]arrival{{tr, at(10, 1)}, {tr, at(20, 5)}})
	y.observe([]arrival{{tr, at(20, 5)}})
	wantMinute(t, y, 0, sla.Counts{Total: 4 * sla.Micro, Counted: 10_000, Timed: 10_000})
	if y.needsAgain {
		t.Error("a duplicate asked for the minute to be derived again")
	}
}

func TestR04_AnOutOfOrderSampleAsksForTheMinutesAgain(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal)
	y.observe([]arrival{{tr, at(10, 1)}})
	y.observe([]arrival{{tr, at(130, 5)}})
	y.observe([]arrival{{tr, at(70, 3)}})
	if !y.needsAgain || y.stale > minute0 {
		t.Errorf("needsAgain = %v from minute %d, want it from minute %d or before", y.needsAgain, y.stale, minute0)
	}
}

func TestR05_ADecreaseIsAResetAndItsTimeIsNotCounted(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal)
	y.observe([]arrival{{tr, at(0, 100)}, {tr, at(15, 110)}, {tr, at(30, 4)}, {tr, at(45, 6)}})
	// 10 + 4 + 2 events; the 15 s before the reset are neither counted nor timed (R13).
	wantMinute(t, y, 0, sla.Counts{Total: 16 * sla.Micro, Counted: 30_000, Timed: 30_000})
}

func TestR05_ANewStartProvesAResetAlsoWithoutADecrease(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal)
	y.observe([]arrival{{tr, at(0, 5).since(-100)}, {tr, at(15, 8).since(10)}})
	// The whole new value counts, and the time since the start.
	wantMinute(t, y, 0, sla.Counts{Total: 8 * sla.Micro, Counted: 5000, Timed: 5000})
}

func TestR06_TheFirstValueOfAnUnknownSeriesIsABaseline(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal)
	y.observe([]arrival{{tr, at(10, 1_000_000)}, {tr, at(25, 1_000_003)}})
	wantMinute(t, y, 0, sla.Counts{Total: 3 * sla.Micro, Counted: 15_000, Timed: 15_000})
}

func TestR06_ANewLabelSetOfAKnownNameCountsWhole(t *testing.T) {
	y := newTally(false, minute0-1)
	ok := y.track("a", "requests", roleTotal)
	scrapes(y, ok, 0, 30, func(s float64) int64 { return int64(s) })
	failed := y.track("a", "requests", roleTotal)
	y.observe([]arrival{{ok, at(45, 45)}, {failed, at(45, 2)}})
	wantMinute(t, y, 0, sla.Counts{Total: 47 * sla.Micro, Counted: 45_000, Timed: 45_000})
}

func TestR06_ANewLabelSetAfterAFailedScrapeCountsWhole(t *testing.T) {
	y := newTally(false, minute0-1)
	ok := y.track("a", "requests", roleTotal)
	scrapes(y, ok, 0, 30, func(s float64) int64 { return int64(s) })
	y.observe([]arrival{{ok, point{t: at(45, 0).t, stale: true}}})
	failed := y.track("a", "requests", roleTotal)
	y.observe([]arrival{{ok, at(55, 55)}, {failed, at(55, 2)}})
	// The 25 s over the failed scrape are a gap: both of its events are in it.
	wantMinute(t, y, 0, sla.Counts{Total: 30 * sla.Micro, Counted: 30_000, Timed: 30_000})
	gap := []sla.Gap{{From: minute0, To: minute0, Total: 27 * sla.Micro}}
	if got := y.figures(minute0, false, true).Gaps; !reflect.DeepEqual(got, gap) {
		t.Errorf("gaps %+v, want %+v", got, gap)
	}
}

func TestR06_ANewSeriesThatBeganAfterThePreviousScrapeCountsWhole(t *testing.T) {
	y := newTally(false, minute0-1)
	other := y.track("a", "other", roleTotal)
	scrapes(y, other, 0, 30, func(s float64) int64 { return 0 })
	fresh := y.track("a", "requests", roleTotal)
	y.observe([]arrival{{other, at(45, 0)}, {fresh, at(45, 9).since(40)}})
	wantMinute(t, y, 0, sla.Counts{Total: 9 * sla.Micro, Counted: 45_000, Timed: 45_000})
}

func TestR10_TheUsualIntervalIsTheMedianOfThePreviousHour(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal)
	for i := range 5 {
		y.observe([]arrival{{tr, at(float64(i)*20, 0)}})
	}
	if got := tr.src.usual; got != 20_000 {
		t.Errorf("after four gaps the usual interval is %d ms, want 20000", got)
	}
	for s := 110.0; s <= 3700; s += 30 {
		y.observe([]arrival{{tr, at(s, 0)}})
	}
	if got := tr.src.usual; got != 30_000 {
		t.Errorf("after an hour the usual interval is %d ms, want 30000", got)
	}
}

func TestR11_R12_AGapTooLongToBeTimedNeedsAProofToBeCounted(t *testing.T) {
	for name, c := range map[string]struct {
		start   float64
		counted int64
		flags   sla.Flags
	}{
		"equal starts":   {start: -50, counted: 300_000},
		"unknown starts": {start: 0, counted: 0, flags: sla.FlagLowerBound},
	} {
		t.Run(name, func(t *testing.T) {
			y := newTally(false, minute0-1)
			tr := y.track("a", "m", roleTotal|roleGood)
			a, b := at(0, 100), at(300, 140)
			if c.start != 0 {
				a, b = a.since(c.start), b.since(c.start)
			}
			y.observe([]arrival{{tr, a}})
			y.observe([]arrival{{tr, b}})
			var counted, timed int64
			for m := range 6 {
				f := y.figures(minute0+sla.Minute(m), false, true)
				counted += f.Counted
				timed += f.Timed
				if f.Total != 0 {
					t.Errorf("minute %d has %d micro-events of its own, they belong to the gap", m, f.Total)
				}
			}
			last := y.figures(minute0+5, false, true)
			want := []sla.Gap{{From: minute0, To: minute0 + 5, GoodLow: 40 * sla.Micro, GoodHigh: 40 * sla.Micro, Total: 40 * sla.Micro}}
			if counted != c.counted || timed != 0 || !reflect.DeepEqual(last.Gaps, want) || last.Flags != c.flags {
				t.Errorf("counted %d timed %d gaps %+v flags %d; want %d, 0, %+v, %d", counted, timed, last.Gaps, last.Flags, c.counted, want, c.flags)
			}
		})
	}
}

func TestR14_ExpectedBeginsWithTheFirstSample(t *testing.T) {
	y := newTally(false, minute0-1)
	if ms, _ := y.expected(minute0); ms != 60_000 {
		t.Errorf("an objective that never had a source expects %d ms, want 60000", ms)
	}
	tr := y.track("a", "m", roleTotal)
	y.observe([]arrival{{tr, at(20, 0)}})
	for m, want := range map[int]int64{0: 40_000, 1: 60_000, 500: 60_000} {
		if ms, _ := y.expected(minute0 + sla.Minute(m)); ms != want {
			t.Errorf("minute %d expects %d ms, want %d", m, ms, want)
		}
	}
	y.remove(tr.src, base+90_000, "")
	for m, want := range map[int]int64{1: 30_000, 2: 0} {
		if ms, _ := y.expected(minute0 + sla.Minute(m)); ms != want {
			t.Errorf("with the source removed on purpose, minute %d expects %d ms, want %d", m, ms, want)
		}
	}
}

func TestR14_ADeadZoneLowersCoverageAlthoughTheSurvivorIsHealthy(t *testing.T) {
	y := newTally(false, minute0-1)
	a, b := y.track("a", "m", roleTotal|roleGood), y.track("b", "m", roleTotal|roleGood)
	scrapes(y, a, 0, 60, func(s float64) int64 { return int64(s) })
	scrapes(y, b, 0, 180, func(s float64) int64 { return int64(s) })
	f := y.figures(minute0+2, false, true)
	if f.Expected != 120_000 || f.Counted != 60_000 || f.GoodHigh != f.Total {
		t.Errorf("got expected %d counted %d good %d of %d; want 120000, 60000 and all good", f.Expected, f.Counted, f.GoodHigh, f.Total)
	}
}

func TestR18_AnAbsentMinuteIsOneBadEvent(t *testing.T) {
	y := newTally(false, minute0-1)
	y.absent = true
	tr := y.track("a", "beats", roleTotal|roleGood)
	y.observe([]arrival{{tr, at(5, 1)}, {tr, at(65, 2)}})
	f := y.figures(minute0+1, true, true)
	if f.Total != sla.Micro || f.GoodHigh != sla.Micro || f.Flags != 0 {
		t.Errorf("a minute with a beat: %+v", f)
	}
	f = y.figures(minute0+2, true, true)
	if f.Total != sla.Micro || f.GoodHigh != 0 || f.Flags != sla.FlagAbsent {
		t.Errorf("a minute without a beat: %+v, want one bad event", f)
	}
	f = y.figures(minute0+2, true, false)
	if f.Total != 0 || f.Flags != sla.FlagNotReceiving {
		t.Errorf("a minute that the aggregator did not receive: %+v, want no event", f)
	}
}

func TestR19_ASourceCountsOnlyUpToWhatAllItsSeriesHaveReached(t *testing.T) {
	y := newTally(false, minute0-1)
	good, total := y.track("a", "good", roleGood), y.track("a", "total", roleTotal)
	y.observe([]arrival{{good, at(0, 0)}, {total, at(0, 0)}})
	y.observe([]arrival{{total, at(15, 10)}}) // the shard with good lags
	wantMinute(t, y, 0, sla.Counts{})
	y.observe([]arrival{{good, at(15, 10)}})
	wantMinute(t, y, 0, sla.Counts{GoodLow: 10 * sla.Micro, GoodHigh: 10 * sla.Micro, Total: 10 * sla.Micro, Counted: 15_000, Timed: 15_000})
}

func TestR19_ASeriesSilentForFiveMinutesHasEnded(t *testing.T) {
	y := newTally(false, minute0-1)
	good, total := y.track("a", "good", roleGood), y.track("a", "total", roleTotal)
	for s := 0.0; s <= 600; s += 15 {
		list := []arrival{{total, at(s, int64(s))}}
		if s <= 60 {
			list = append(list, arrival{good, at(s, int64(s))})
		}
		y.observe(list)
	}
	// Minutes 1 to 5 are left out on both sides, minute 7 counts again.
	wantMinute(t, y, 3, sla.Counts{})
	wantMinute(t, y, 7, sla.Counts{Total: 60 * sla.Micro, Counted: 60_000, Timed: 60_000})
}

func TestAStaleMarkerEndsASeriesButNotItsSource(t *testing.T) {
	y := newTally(false, minute0-1)
	a, b := y.track("a", "m", roleTotal), y.track("a", "m", roleTotal)
	y.observe([]arrival{{a, at(0, 0)}, {b, at(0, 0)}})
	y.observe([]arrival{{a, at(15, 3)}, {b, point{t: base + 15_000, stale: true}}})
	wantMinute(t, y, 0, sla.Counts{Total: 3 * sla.Micro, Counted: 15_000, Timed: 15_000})
}

func TestBadOfTotalIsTheSameAsGoodOfTotal(t *testing.T) {
	y := newTally(true, minute0-1)
	bad, total := y.track("a", "bad", roleBad), y.track("a", "total", roleTotal)
	y.observe([]arrival{{bad, at(0, 0)}, {total, at(0, 0)}})
	y.observe([]arrival{{bad, at(15, 2)}, {total, at(15, 10)}})
	wantMinute(t, y, 0, sla.Counts{GoodLow: 8 * sla.Micro, GoodHigh: 8 * sla.Micro, Total: 10 * sla.Micro, Counted: 15_000, Timed: 15_000})
}

func TestASettledMinuteIsNotChangedInPlace(t *testing.T) {
	y := newTally(false, minute0-1)
	tr := y.track("a", "m", roleTotal)
	scrapes(y, tr, 0, 60, func(s float64) int64 { return int64(s) })
	y.close(false, true, base+100_000)
	late := y.track("a", "m", roleTotal)
	y.observe([]arrival{{late, at(30, 0)}})
	if !y.needsAgain {
		t.Error("a late series of a closed minute did not ask for it to be derived again")
	}
	if f := y.at(minute0); !f.IsZero() {
		t.Error("a closed minute was opened again in place")
	}
}

// TestR30_TheOrderOfBatchesDoesNotChangeTheMinutes feeds the same samples one
// batch a scrape, and all at once: both must give the same integers, or else a
// minute that is derived again would differ from the one that was booked.
func TestR30_TheOrderOfBatchesDoesNotChangeTheMinutes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type sample struct {
			track int
			p     point
		}
		var all []sample
		tracks := rapid.IntRange(1, 4).Draw(t, "tracks")
		for i := range tracks {
			now, v := int64(rapid.IntRange(0, 120).Draw(t, "begin"))*1000, int64(0)
			start := int64(0)
			for range rapid.IntRange(2, 30).Draw(t, "samples") {
				all = append(all, sample{i, point{t: base + now, st: start, v: v * sla.Micro}})
				switch rapid.IntRange(0, 12).Draw(t, "what") {
				case 0: // a long gap
					now += int64(rapid.IntRange(121, 900).Draw(t, "gap")) * 1000
				case 1: // a reset with a start time stamp
					now += 15_000
					v, start = 0, base+now-1000
				case 2: // a reset without
					now += 15_000
					v, start = 0, 0
				default:
					now += 15_000
				}
				v += int64(rapid.IntRange(0, 9).Draw(t, "events"))
			}
		}
		build := func() (*tally, []*track) {
			y := newTally(false, minute0-1)
			var trs []*track
			for i := range tracks {
				r := roleTotal
				if i%2 == 0 {
					r |= roleGood
				}
				trs = append(trs, y.track(fmt.Sprint("source", i/2), "m", r))
			}
			return y, trs
		}
		once, trs := build()
		var batch []arrival
		for _, s := range all {
			batch = append(batch, arrival{trs[s.track], s.p})
		}
		rand.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
		once.observe(batch)

		byTime, trs2 := build()
		times := map[int64][]arrival{}
		var order []int64
		for _, s := range all {
			if times[s.p.t] == nil {
				order = append(order, s.p.t)
			}
			times[s.p.t] = append(times[s.p.t], arrival{trs2[s.track], s.p})
		}
		for len(order) > 0 {
			first := 0
			for i := range order {
				if order[i] < order[first] {
					first = i
				}
			}
			byTime.observe(times[order[first]])
			order = append(order[:first], order[first+1:]...)
		}
		for m := minute0; m < minute0+600; m++ {
			a, b := once.figures(m, true, true), byTime.figures(m, true, true)
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("minute %d: all at once %+v, scrape by scrape %+v", m-minute0, a, b)
			}
			if a.Timed > a.Counted || a.Counted > a.Expected || a.Timed < 0 {
				t.Fatalf("minute %d: timed %d, counted %d, expected %d: each must be within the next", m-minute0, a.Timed, a.Counted, a.Expected)
			}
		}
	})
}
