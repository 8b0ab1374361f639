package evaluate_test

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"testing"
	"time"

	"nines/pkg/sla"
)

// A script is a world that a person wrote: times in seconds after the epoch,
// which is a whole hour.
type script struct {
	*rig
	t   *testing.T
	ind indicator
	// start is the start time stamp of the process, in seconds; 0 sends none.
	start float64
}

func newScript(t *testing.T, inds ...indicator) *script {
	if len(inds) == 0 {
		inds = []indicator{goodOf("web_total", 28*24*time.Hour)}
	}
	s := &script{rig: newRig(t, t.TempDir(), epoch, inds...), t: t, ind: inds[0]}
	t.Cleanup(s.close)
	return s
}

func ms(seconds float64) int64 { return epoch + int64(seconds*1000) }

func web(source, code string) series { return series{source: source, metric: "web_total", code: code} }

// value is a sample of a series.
func (s *script) value(k series, seconds, v float64) sample {
	x := sample{series: k, t: ms(seconds), v: v}
	if s.start != 0 {
		x.st = ms(s.start)
	}
	return x
}

func stale(k series, seconds float64) sample {
	return sample{series: k, t: ms(seconds), stale: true}
}

// to moves the clock, second 0 being the epoch, with a tick each 5 s.
func (s *script) to(seconds float64) {
	s.t.Helper()
	for now := s.now.UnixMilli(); now < ms(seconds); now = min(now+5_000, ms(seconds)) {
		s.tick(min(now+5_000, ms(seconds)))
	}
}

// arrive stores samples one second after the newest of them.
func (s *script) arrive(batch ...sample) {
	s.t.Helper()
	newest := slices.MaxFunc(batch, func(a, b sample) int { return int(a.t - b.t) }).t
	s.to(float64(newest-epoch)/1000 + 1)
	s.mustSend(batch)
}

// traffic scrapes a source each 15 s in [from, to): two requests a second,
// one error in ten requests.
func (s *script) traffic(source string, from, to float64) (out []sample) {
	for t := from; t < to; t += 15 {
		out = append(out, s.value(web(source, "200"), t, 1000+t*1.8), s.value(web(source, "500"), t, 100+t*0.2))
	}
	return out
}

// live delivers samples as they are taken.
func (s *script) live(samples ...sample) {
	s.t.Helper()
	slices.SortStableFunc(samples, func(a, b sample) int { return int(a.t - b.t) })
	for len(samples) > 0 {
		n := slices.IndexFunc(samples, func(x sample) bool { return x.t != samples[0].t })
		if n < 0 {
			n = len(samples)
		}
		s.arrive(samples[:n]...)
		samples = samples[n:]
	}
}

// minute is a booked minute, counted from the epoch.
func (s *script) minute(m int) sla.Figures {
	return s.minutes(s.ind)[sla.MinuteOfMillis(epoch)+sla.Minute(m)]
}

// each returns samples of one series, each step seconds in [from, to).
func (s *script) each(k series, from, to, step float64, v func(t float64) float64) (out []sample) {
	for t := from; t < to; t += step {
		out = append(out, s.value(k, t, v(t)))
	}
	return out
}

// agree asks that the whole book is the oracle's, as of all that arrived.
func (s *script) agree() {
	s.t.Helper()
	for _, ind := range s.inds {
		s.checkBook(ind, epoch)
		s.checkWindows(ind)
	}
}

// percent is a ratio as a person reads it.
func percent(r *big.Rat) string { return sla.Percent(r, 1) }

// sum adds the booked minutes [from, to), counted from the epoch.
func (s *script) sum(from, to int) sla.Sum {
	s.t.Helper()
	zero := sla.MinuteOfMillis(epoch)
	sum, err := s.book.Sum(s.ind.def.ID, zero+sla.Minute(from), zero+sla.Minute(to), 0)
	if err != nil {
		s.t.Fatal(err)
	}
	return sum
}

func (s *script) wantEvents(from, to int, good, total string) {
	s.t.Helper()
	sum := s.sum(from, to)
	if g, all := sla.Events(sum.GoodHigh), sla.Events(sum.Total); g != good || all != total {
		s.t.Errorf("minutes %d to %d have %s good of %s events, want %s of %s", from, to, g, all, good, total)
	}
}

func TestDeadZone_TheSurvivorsAreAllGoodAndCoverageIsTwoThirds(t *testing.T) {
	s := newScript(t)
	var all []sample
	for _, zone := range []string{"a", "b", "c"} {
		for _, host := range []string{"1", "2"} {
			ok := func(t float64) float64 { return 1000 + 2*t }
			all = append(all, s.each(web(zone+host, "500"), 0, 3600, 15, func(float64) float64 { return 7 })...)
			if zone == "c" { // gone from minute 20 to minute 40
				all = append(all, s.each(web(zone+host, "200"), 0, 1200, 15, ok)...)
				all = append(all, s.each(web(zone+host, "200"), 2400, 3600, 15, ok)...)
				all = slices.DeleteFunc(all, func(x sample) bool { return x.source == zone+host && x.t >= ms(1200) && x.t < ms(2400) })
			} else {
				all = append(all, s.each(web(zone+host, "200"), 0, 3600, 15, ok)...)
			}
		}
	}
	s.live(all...)
	s.to(5000)
	dead, alive := s.sum(22, 38), s.sum(2, 18)
	if got := percent(dead.Good()); got != "100.0 %" {
		t.Errorf("the survivors are good by %s, want 100.0 %%", got)
	}
	if d, a := percent(dead.Coverage()), percent(alive.Coverage()); d != "66.6 %" || a != "100.0 %" {
		t.Errorf("coverage is %s while the zone is dead and %s before, want 66.6 %% and 100.0 %%", d, a)
	}
	// Four hosts with two requests a second, then six again.
	s.wantEvents(22, 38, "7680", "7680")
	s.wantEvents(42, 58, "11520", "11520")
	s.agree()
}

// gapOf40Minutes is a counter at 100, no scrape for 40 minutes, then 5,000. The
// start time stamps are those before and behind the gap.
func gapOf40Minutes(t *testing.T, before, behind float64) *script {
	s := newScript(t)
	a := web("a", "200")
	s.start = before
	s.live(s.each(a, 0, 615, 15, func(t float64) float64 { return 100 })...)
	s.start = behind
	s.live(s.each(a, 3000, 3600, 15, func(t float64) float64 { return 5000 })...)
	s.to(5000)
	return s
}

func TestScrapeGapOf40Minutes_EqualStartsProveThatNothingWasLost(t *testing.T) {
	s := gapOf40Minutes(t, -100, -100)
	gap := s.sum(10, 51)
	if got := sla.Events(gap.Total); got != "4900" {
		t.Errorf("the gap has %s events, want 4900", got)
	}
	if c, timed := percent(gap.Coverage()), percent(gap.TimedCoverage()); c != "100.0 %" || timed != "2.4 %" {
		t.Errorf("coverage %s, timed %s; want 100.0 %% for events and 2.4 %% for downtime: one minute of 41", c, timed)
	}
	if s.minute(50).Flags&sla.FlagLowerBound != 0 {
		t.Error("marked as a lower bound, but nothing was lost")
	}
	for _, cut := range []sla.Sum{s.sum(11, 60), s.sum(0, 50), s.sum(40, 60)} {
		if got := sla.Events(cut.Total); got != "0" {
			t.Errorf("a window that cuts the gap has %s events, want 0", got)
		}
	}
	s.agree()
}

func TestScrapeGapOf40Minutes_WithoutProofItsEventsAreALowerBound(t *testing.T) {
	s := gapOf40Minutes(t, 0, 0) // perhaps 100, a crash, and then 5,000
	gap := s.sum(10, 51)
	if got := sla.Events(gap.Total); got != "4900" {
		t.Errorf("the gap has %s events, want the 4900 that are sure", got)
	}
	if got := percent(gap.Coverage()); got != "2.4 %" {
		t.Errorf("coverage is %s, want 2.4 %%: one minute of 41", got)
	}
	if s.minute(50).Flags&sla.FlagLowerBound == 0 {
		t.Error("not marked as a lower bound")
	}
	s.agree()
}

func TestScrapeGapOf40Minutes_ACrashInItLosesWhatCameBefore(t *testing.T) {
	s := gapOf40Minutes(t, -100, 2940) // the new process began a minute before it answered
	gap := s.sum(10, 51)
	if got := sla.Events(gap.Total); got != "5000" {
		t.Errorf("the gap has %s events, want the 5000 of the new process", got)
	}
	if got := gap.Counted; got != sla.NewInt128(2*60_000) {
		t.Errorf("%v ms are counted, want the minute since the start and the one behind it", got)
	}
	s.agree()
}

func TestAgentCutOffForThreeHours_TheBookIsTheSameAsWithoutTheCut(t *testing.T) {
	book := func(cut bool) map[sla.Minute]sla.Figures {
		s := newScript(t)
		all := append(s.traffic("a", 0, 4*3600), s.traffic("b", 0, 4*3600)...)
		var kept []sample
		all = slices.DeleteFunc(all, func(x sample) bool {
			held := cut && x.source == "b" && x.t >= ms(1800) && x.t < ms(1800+3*3600)
			if held {
				kept = append(kept, x)
			}
			return held
		})
		slices.SortStableFunc(all, func(a, b sample) int { return int(a.t - b.t) })
		back := slices.IndexFunc(all, func(x sample) bool { return x.t >= ms(1800+3*3600) })
		s.live(all[:back]...)
		before := s.book.Head()
		for part := range slices.Chunk(kept, 300) {
			s.mustSend(part)
		}
		s.live(all[back:]...)
		s.to(4*3600 + 1500)
		s.agree()
		if cut {
			err := s.book.Scan(s.ind.def.ID, sla.MinuteOfMillis(ms(3600)), sla.MinuteOfMillis(ms(3*3600)), before.Seq, func(m sla.Minute, f sla.Figures) error {
				now, _, err := s.book.Minute(s.ind.def.ID, m)
				if f.Counted != 60_000 || f.Total != 120*sla.Micro || now.Counted != 120_000 || now.Total != 240*sla.Micro {
					t.Errorf("minute %d was booked with %d events and %d ms, and is %d events and %d ms now; want 120 and 60000, then 240 and 120000", m, f.Total/sla.Micro, f.Counted, now.Total/sla.Micro, now.Counted)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return s.minutes(s.ind)
	}
	with, without := book(true), book(false)
	if len(with) != len(without) {
		t.Errorf("%d minutes with the cut, %d without", len(with), len(without))
	}
	for m, f := range without {
		if with[m].Counts != f.Counts || len(with[m].Gaps) != len(f.Gaps) {
			t.Errorf("minute %d: %+v with the cut, %+v without", m, with[m], f)
		}
	}
}

func TestClockThatJumps_ASenderFiveMinutesAheadIsRefusedAndNobodyElse(t *testing.T) {
	s := newScript(t)
	for x := 0.0; x < 900; x += 15 {
		s.arrive(s.traffic("a", x, x+1)...)
		ahead := 0.0
		if x >= 300 && x < 600 {
			ahead = 300
		}
		b := s.traffic("b", x, x+1)
		for i := range b {
			b[i].t += int64(ahead * 1000)
		}
		if err := s.send(b...); (err != nil) != (ahead > 0) {
			t.Fatalf("second %v, %v s ahead: %v", x, ahead, err)
		}
	}
	s.to(2000)
	// b is away for five minutes; what it counted meanwhile is known in the end.
	for m := 1; m < 14; m++ {
		f := s.minute(m)
		want := sla.Counts{GoodLow: 216 * sla.Micro, GoodHigh: 216 * sla.Micro, Total: 240 * sla.Micro, Expected: 120_000, Counted: 120_000, Timed: 120_000}
		switch {
		case m == 4: // b's last sample of the right time is at second 285
			want.Counted, want.Timed = 105_000, 105_000
		case m > 4 && m < 10:
			want = sla.Counts{GoodLow: 108 * sla.Micro, GoodHigh: 108 * sla.Micro, Total: 120 * sla.Micro, Expected: 120_000, Counted: 60_000, Timed: 60_000}
		case m == 10: // its scrape of second 600 belongs to the gap, the next three to the minute
			want.GoodLow, want.GoodHigh, want.Total = 189*sla.Micro, 189*sla.Micro, 210*sla.Micro
		}
		if f.Counts != want {
			t.Errorf("minute %d: %+v, want %+v", m, f.Counts, want)
		}
	}
	if g := s.minute(10).Gaps; len(g) != 1 || g[0].Total != 630*sla.Micro || g[0].GoodHigh != 567*sla.Micro {
		t.Errorf("gaps %v, want 567 good of 630 events of seconds 285 to 600", g)
	}
	s.agree()
}

func TestPain02_AMinuteWithoutTrafficDoesNotPoisonThePeriod(t *testing.T) {
	s := newScript(t)
	idle := func(t float64) float64 { return min(t, 300) + max(t-600, 0) } // nothing in minutes 5 to 9
	s.live(append(s.each(web("a", "200"), 0, 900, 15, idle), s.each(web("a", "500"), 0, 900, 15, func(float64) float64 { return 0 })...)...)
	s.to(2000)
	if f := s.minute(7); f.Total != 0 || f.Counted != 60_000 {
		t.Errorf("minute 7: %+v, want no events in 60000 ms of counted time", f.Counts)
	}
	if r := s.sum(6, 9).Good(); r != nil {
		t.Errorf("the ratio of no events is %v, want none", r)
	}
	st := s.state(s.ind)
	if good, left := st.Period.Good(), st.Period.Budget(s.ind.def.Target).Remaining; percent(good) != "100.0 %" || percent(left) != "100.0 %" {
		t.Errorf("the period is good by %v with %v of its budget left, want all", good, left)
	}
	if got := percent(s.sum(1, 14).Coverage()); got != "100.0 %" {
		t.Errorf("coverage is %s, want 100.0 %%: no traffic is not no data", got)
	}
	s.agree()
}

func TestPain05_GoodNeverExceedsTotalAndBothAreWhole(t *testing.T) {
	// Scrapes out of step with the minutes, a counter that begins between two of
	// them: increase() would extrapolate.
	s := newScript(t)
	ok := func(t float64) float64 { return math.Floor(t / 7) }
	s.live(append(s.each(web("a", "200"), 3, 1200, 13, ok), s.each(web("a", "500"), 211, 1200, 13, func(t float64) float64 { return math.Floor((t - 211) / 100) })...)...)
	s.to(2300)
	for m, f := range s.minutes(s.ind) {
		if f.GoodHigh > f.Total || f.Total%sla.Micro != 0 || f.GoodHigh%sla.Micro != 0 {
			t.Errorf("minute %d: %d good of %d micro-events", m, f.GoodHigh, f.Total)
		}
	}
	s.wantEvents(0, 20, "171", "180") // until second 1199: 171 times seven seconds, 9 errors
	s.agree()
}

func TestPain06_TheFirstIncrementsOfPodsThatComeAndGoCount(t *testing.T) {
	// Behind one target, as a gateway or kube-state-metrics shows them.
	for name, start := range map[string]bool{"with start time stamps": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			all := s.each(web("gw", "200"), 0, 1800, 15, func(t float64) float64 { return t })
			events := 1785.0 // of the gateway's own: from 0 to second 1785
			for pod := range 20 {
				k := series{source: "gw", metric: "web_total", code: "200", pod: string(rune('a' + pod))}
				born := 65.0 + 60*float64(pod)
				first := math.Ceil(born/15) * 15
				for x := first; x < first+300; x += 15 {
					v := sample{series: k, t: ms(x), v: 5 + x - first}
					if start {
						v.st = ms(born)
					}
					all = append(all, v)
				}
				all = append(all, stale(k, first+300))
				events += 5 + 285
			}
			s.live(all...)
			s.to(2900)
			s.wantEvents(0, 30, strconv.Itoa(int(events)), strconv.Itoa(int(events)))
			if got := percent(s.sum(0, 29).Coverage()); got != "100.0 %" {
				t.Errorf("coverage is %s, want 100.0 %%", got)
			}
			s.agree()
		})
	}
}

func TestPain07_AResetOfOneSeriesIsNotHiddenByTheOthers(t *testing.T) {
	// b crashes while a grows faster: their sum never falls.
	s := newScript(t)
	s.live(append(s.each(web("a", "200"), 0, 900, 15, func(t float64) float64 { return 10 * t }),
		s.each(web("b", "200"), 0, 900, 15, func(t float64) float64 {
			if t < 450 {
				return 100 + t
			}
			return t - 450 + 1
		})...)...)
	s.to(2000)
	// a: 8850; b: 435 to second 435, then 1 at second 450 and 435 more.
	s.wantEvents(0, 15, "9721", "9721")
	s.agree()
}

func TestPain07_ACounterThatIsSummedBeforeItsRateIsNotTakenForARawCounter(t *testing.T) {
	s := newScript(t)
	summed := objective("summed", `sum(rate(web_total{code!="500"}[5m]))`, "", "rate(sum(web_total)[5m:15s])", time.Hour, false)
	if err := s.ev.SetObjectives(t.Context(), []sla.Objective{summed, s.ind.def}, s.now); err == nil {
		t.Error("no error")
	}
	if s.ev.Failed()[summed.ID] == "" {
		t.Error("no reason is told")
	}
	s.live(s.traffic("a", 0, 600)...)
	s.to(1700)
	s.agree() // the other one goes on
}

func TestPain08_AMetricThatDisappearsIsTold(t *testing.T) {
	s := newScript(t)
	s.live(s.traffic("a", 0, 1800)...)
	s.to(7200)
	st := s.state(s.ind)
	if !st.Unseen {
		t.Error("an hour and a half without a sample, and the objective is not called unseen")
	}
	if got := percent(s.sum(40, 100).Coverage()); got != "0.0 %" {
		t.Errorf("coverage of the silent hour is %s, want 0.0 %%", got)
	}
	if r := s.sum(40, 100).Good(); r != nil {
		t.Errorf("the ratio of the silent hour is %v, want none: no data is not no errors", r)
	}
	day := s.sum(0, 100)
	lower, upper := day.Bounds()
	if percent(day.Good()) != "90.0 %" || percent(day.Coverage()) != "29.7 %" || percent(lower) != "26.7 %" || percent(upper) != "97.0 %" {
		t.Errorf("ratio %s, coverage %s, between %s and %s; want 90.0, 29.7, 26.7 and 97.0 %%", percent(day.Good()), percent(day.Coverage()), percent(lower), percent(upper))
	}
	s.agree()
}

func TestPain12_HistoryIsThereAfterARestartAndAChangedWindow(t *testing.T) {
	s := newScript(t)
	s.live(s.traffic("a", 0, 3600)...)
	s.to(4800)
	s.wantEvents(0, 60, "6453", "7170") // 2 a second from second 0 to 3585, one in ten bad
	s.inds[0].def.Window.Rolling = 7 * 24 * time.Hour
	s.inds[0].def.Target, _ = sla.ParseTarget("0.999")
	s.restart()
	s.to(4860)
	st := s.state(s.inds[0])
	if st.PeriodLength != 7*24*time.Hour || sla.Events(st.Period.Total) != "7170" || sla.Events(st.Period.GoodHigh) != "6453" {
		t.Errorf("the new window of %v has %s good of %s, want the 6453 of 7170 from before", st.PeriodLength, sla.Events(st.Period.GoodHigh), sla.Events(st.Period.Total))
	}
}

func TestALateSampleBeforeARestartMakesItsRevision(t *testing.T) {
	s := newScript(t)
	all := s.each(web("a", "200"), 0, 1200, 15, func(t float64) float64 { return t * t })
	late := all[22]
	s.live(append(all[:22:22], all[23:50]...)...)
	s.mustSend([]sample{late}) // second 330, minute 5
	s.restart()
	s.live(all[50:]...)
	s.to(2200)
	s.agree()
}

// pair returns what both replicas of a pair of Prometheus servers send: each
// scrapes the same target each 15 s, b five seconds after a.
func (s *script) pair(replica string, from, to float64, v func(t float64) float64) []sample {
	offset := 0.0
	if replica == "b" {
		offset = 5
	}
	return s.each(series{source: "web", metric: "web_total", code: "200", replica: replica}, from+offset, to, 15, v)
}

func TestPairOfSenders_EventsCountOnceAndGoOnThroughAFailOver(t *testing.T) {
	s := newScript(t)
	v := func(t float64) float64 { return 100 + t }
	all := append(s.pair("a", 0, 600, v), s.pair("a", 1200, 1800, v)...) // a is away for ten minutes
	all = append(all, s.pair("b", 0, 1800, v)...)
	s.live(all...)
	s.to(2900)
	for m := 1; m < 29; m++ {
		f := s.minute(m)
		// The fail-over takes 30 s: minute 10 and its neighbours share their 180 s.
		if (m < 9 || m > 11) && (f.Total < 45*sla.Micro || f.Total > 75*sla.Micro || f.Expected != 60_000) {
			t.Errorf("minute %d has %d events and expects %d ms, want the 60 of one sender and of one source", m, f.Total/sla.Micro, f.Expected)
		}
	}
	total := s.sum(0, 30).Total
	if got := sla.Events(total); got != "1790" && got != "1785" {
		t.Errorf("%s events are booked, want the 1785 or 1790 from second 0 to the last sample of the elected one", got)
	}
	if f := s.minute(20); f.Total > 75*sla.Micro {
		t.Errorf("a is back, and minute 20 has %d events", f.Total/sla.Micro)
	}
}

func TestPairOfSenders_ADecreaseAtTheSwitchAddsNothing(t *testing.T) {
	s := newScript(t)
	// b reads the counter of another process behind the same address: lower.
	all := append(s.pair("a", 0, 600, func(t float64) float64 { return 10_000 + t }), s.pair("b", 0, 1200, func(t float64) float64 { return 500 + t })...)
	s.live(all...)
	s.to(2300)
	total := s.sum(0, 20).Total.Big().Int64() / sla.Micro
	// 585 of a until it falls silent, then b's from its first elected sample on,
	// which comes 30 to 50 s later: 560 at most. The decrease itself adds 0.
	if total < 585+520 || total > 585+570 {
		t.Errorf("%d events are booked, want about 1140: the switch adds none", total)
	}
	if c := s.minute(10).Counted; c >= 60_000 {
		t.Errorf("the minute of the switch is counted whole (%d ms), want its time left out", c)
	}
}
