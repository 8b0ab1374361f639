package evaluate

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

// put sends one sample with its labels as pairs.
func (r *rig) put(seconds, v float64, pairs ...string) {
	r.t.Helper()
	r.puts(seconds, func(add func(v float64, pairs ...string)) { add(v, pairs...) })
}

// puts sends a scrape: samples of one time.
func (r *rig) puts(seconds float64, fill func(add func(v float64, pairs ...string))) {
	r.t.Helper()
	if at := time.UnixMilli(base + int64(seconds*1000)).UTC(); at.After(r.now) {
		r.now = at
	}
	app := r.db.Appender(context.Background())
	fill(func(v float64, pairs ...string) {
		if err := app.Append(labels.FromStrings(pairs...), 0, base+int64(seconds*1000), v); err != nil {
			r.t.Fatal(err)
		}
	})
	if err := app.Commit(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) sum(o sla.Objective) (good, total int64) {
	for _, f := range r.minutes(o) {
		good, total = good+f.GoodHigh, total+f.Total
		for _, g := range f.Gaps {
			good, total = good+g.GoodHigh, total+g.Total
		}
	}
	return good / sla.Micro, total / sla.Micro
}

// A lifted limit reveals counters that are old: they are no new events.
func TestR06_ANewSeriesAfterARefusedScrapeIsABaseline(t *testing.T) {
	for _, refused := range []bool{false, true} {
		o := webObjective("web", false)
		r := newRig(t, o)
		for s := 0.0; s <= 300; s += 15 {
			if refused && s == 60 {
				r.ev.Refused(SourceKey("shop", "a", "c"), base+60_000, base+60_000)
			}
			r.send(datum{"web", "a", "200", s, s, 0})
			if s >= 75 {
				r.send(datum{"web", "a", "404", s, 1_000_000, 0})
			}
			r.to(s + 1)
		}
		_, total := r.sum(o)
		if want := refused == (total < 1000); !want {
			t.Errorf("refused %t: %d events are booked; the million must count only where nothing was refused", refused, total)
		}
		// A restart derives the same.
		r.restart()
		r.ev.mu.Lock()
		d, err := r.ev.derive(context.Background(), r.ev.objectives[o.ID], minute0, farFuture)
		r.ev.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for m, f := range r.minutes(o) {
			if got := d.tally.at(minute0 + sla.Minute(m)); m > 0 && got.Total != f.Total {
				t.Errorf("refused %t: minute %d is derived again as %d, booked as %d", refused, m, got.Total, f.Total)
			}
		}
	}
}

func TestR08_AThresholdBetweenTwoBucketsGivesAnInterval(t *testing.T) {
	for _, c := range []struct {
		threshold string
		low, high int64 // of 100 events a scrape
	}{
		{"0.1", 50, 50}, {"0.3", 80, 80}, {"0.2", 50, 80}, {"0.05", 0, 50}, {"2", 80, 80},
	} {
		o := webObjective("lat", false)
		o.SLI = sla.SLI{
			Good:  fmt.Sprintf(`sum(rate(lat_bucket{le="%s"}[5m]))`, c.threshold),
			Total: `sum(rate(lat_count[5m]))`,
		}
		o.ID = sla.ObjectiveID("", "", "lat", c.threshold, nil, o.SLI)
		r := newRig(t, o)
		for s := 0.0; s <= 300; s += 15 {
			n := s / 15
			r.puts(s, func(add func(float64, ...string)) {
				common := []string{"job", "shop", "instance", "a", "cluster", "c"}
				// Farther buckets come first: the nearest must win.
				for _, b := range []struct {
					le string
					n  float64
				}{{"0.1", 50}, {"0.3", 80}, {"+Inf", 100}} {
					if c.threshold == "2" && b.le == "+Inf" {
						continue // a histogram without its last bucket
					}
					add(n*b.n, append([]string{"__name__", "lat_bucket", "le", b.le}, common...)...)
				}
				add(n*100, append([]string{"__name__", "lat_count"}, common...)...)
			})
			r.to(s + 1)
		}
		r.restart() // finds the same edges, whichever series comes first
		for s := 315.0; s <= 480; s += 15 {
			n := s / 15
			r.puts(s, func(add func(float64, ...string)) {
				common := []string{"job", "shop", "instance", "a", "cluster", "c"}
				add(n*100, append([]string{"__name__", "lat_count"}, common...)...)
				add(n*80, append([]string{"__name__", "lat_bucket", "le", "0.3"}, common...)...)
				add(n*50, append([]string{"__name__", "lat_bucket", "le", "0.1"}, common...)...)
				if c.threshold != "2" {
					add(n*100, append([]string{"__name__", "lat_bucket", "le", "+Inf"}, common...)...)
				}
			})
			r.to(s + 1)
		}
		if a, b := r.minutes(o)[2].Counts, r.minutes(o)[6].Counts; a != b {
			t.Errorf("threshold %s: a minute after a restart has %+v, before %+v", c.threshold, b, a)
		}
		f := r.minutes(o)[2]
		wantLow, wantHigh := c.low*4*sla.Micro, c.high*4*sla.Micro
		if c.threshold == "2" {
			wantHigh = 0 // no edge above it is known
		}
		if f.Total != 400*sla.Micro || f.GoodLow != wantLow || f.GoodHigh != wantHigh {
			t.Errorf("threshold %s: between %d and %d good of %d, want %d to %d of 400", c.threshold, f.GoodLow/sla.Micro, f.GoodHigh/sla.Micro, f.Total/sla.Micro, wantLow/sla.Micro, wantHigh/sla.Micro)
		}
	}
}

func nativeHistogram(n int) *histogram.Histogram {
	// Schema 0: buckets (0.5, 1], (1, 2], (2, 4].
	return &histogram.Histogram{
		Schema: 0, Count: uint64(10 * n), Sum: float64(n), ZeroThreshold: 1e-6,
		PositiveSpans:   []histogram.Span{{Offset: 0, Length: 3}},
		PositiveBuckets: []int64{int64(5 * n), int64(-2 * n), int64(-n)}, // 5n, 3n, 2n
	}
}

func TestR08_NativeHistogramsAreCountedByTheirBuckets(t *testing.T) {
	for _, c := range []struct {
		threshold string
		low, high int64 // of 10 a scrape
	}{{"1", 5, 5}, {"2", 8, 8}, {"1.5", 5, 8}, {"8", 10, 10}, {"0.4", 0, 0}} {
		o := webObjective("lat", false)
		o.SLI = sla.SLI{
			Good:  fmt.Sprintf(`histogram_fraction(0, %s, sum(rate(lat[5m]))) * histogram_count(sum(rate(lat[5m])))`, c.threshold),
			Total: `histogram_count(sum(rate(lat[5m])))`,
		}
		o.ID = sla.ObjectiveID("", "", "lat", c.threshold, nil, o.SLI)
		r := newRig(t, o)
		n := 1
		for s := 0.0; s <= 300; s += 15 {
			n++
			if s == 180 {
				n = 1 // a reset: all of it is new
			}
			r.now = time.UnixMilli(base + int64(s*1000)).UTC()
			app := r.db.Appender(context.Background())
			ls := labels.FromStrings("__name__", "lat", "job", "shop", "instance", "a", "cluster", "c")
			if err := app.AppendHistogram(ls, 0, base+int64(s*1000), nativeHistogram(n), nil); err != nil {
				t.Fatal(err)
			}
			if err := app.Commit(); err != nil {
				t.Fatal(err)
			}
			r.to(s + 1)
		}
		for m, f := range r.minutes(o) {
			if m < 1 || m > 3 {
				continue
			}
			if f.Total != 40*sla.Micro || f.GoodLow != 4*c.low*sla.Micro || f.GoodHigh != 4*c.high*sla.Micro {
				t.Errorf("threshold %s, minute %d: between %d and %d good of %d, want %d to %d of 40", c.threshold, m, f.GoodLow/sla.Micro, f.GoodHigh/sla.Micro, f.Total/sla.Micro, 4*c.low, 4*c.high)
			}
		}
	}
}

func TestR08_OtherExpressionsAreSampledOnceAMinute(t *testing.T) {
	o := webObjective("web", false)
	o.SLI = sla.SLI{Good: `sum by (code) (rate(web_total{code="200"}[2m]))`, Total: `sum(rate(web_total[2m]))`}
	o.ID = sla.ObjectiveID("", "", "web", "0", nil, o.SLI)
	r := newRig(t, o)
	for s := 0.0; s <= 900; s += 15 {
		if s < 300 || s > 600 {
			r.send(datum{"web", "a", "200", s, 3 * s, 0}, datum{"web", "a", "500", s, s, 0})
		}
		r.to(s + 1)
	}
	f := r.minutes(o)[3]
	// Both sides are evaluated: 3 a second of 4, over a minute.
	if f.GoodHigh < 179*sla.Micro || f.GoodHigh > 181*sla.Micro || f.Total < 239*sla.Micro || f.Total > 241*sla.Micro || f.Flags&sla.FlagSampled == 0 || f.Counted != 60_000 {
		t.Errorf("minute 3: %+v; want 180 good of 240, sampled and counted", f)
	}
	if f := r.minutes(o)[8]; f.Total != 0 || f.Counted != 0 || f.Expected != 60_000 {
		t.Errorf("minute 8, in which nothing was scraped: %+v; want it expected and not counted", f)
	}
}

func TestR12_TheStartOfTheProcessProvesAGap(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		o := webObjective("web", false)
		r := newRig(t, o)
		for s := 0.0; s <= 1500; s += 15 {
			if s > 300 && s < 900 {
				r.to(s + 1)
				continue
			}
			start := base/1000 - 5000
			if restarted && s >= 900 {
				start = base/1000 + 400
			}
			r.put(s, float64(start), "__name__", "process_start_time_seconds", "job", "shop", "instance", "a", "cluster", "c")
			r.send(datum{"web", "a", "200", s, s, 0})
			r.to(s + 1)
		}
		f := r.minutes(o)[9]
		if want := int64(60_000); restarted != (f.Counted == 0) || !restarted && f.Counted != want || f.Timed != 0 {
			t.Errorf("restarted %t: minute 9, in the gap, has %d ms counted and %d timed", restarted, f.Counted, f.Timed)
		}
	}
}

func TestR14_DiscoveryRemovesASourceAndItsReturnIsExpectedAgain(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	up := func(s, v float64, instance string) {
		r.put(s, v, "__name__", "up", "job", "shop", "instance", instance, "cluster", "c")
	}
	for s := 0.0; s <= 1800; s += 15 {
		r.send(traffic("web", "a", s)...)
		up(s, 1, "a")
		switch {
		case s < 300 || s >= 1200:
			r.send(traffic("web", "b", s)...)
			up(s, 1, "b")
		case s == 300:
			up(s, math.Float64frombits(value.StaleNaN), "b")
		}
		r.to(s + 1)
	}
	for m, want := range map[int]int64{3: 120_000, 5: 60_000, 10: 60_000, 19: 60_000, 20: 120_000, 25: 120_000} {
		f := r.minutes(o)[m]
		if f.Expected != want {
			t.Errorf("minute %d expects %d ms, want %d", m, f.Expected, want)
		}
	}
	if f := r.minutes(o)[10]; f.Counted != 60_000 {
		t.Errorf("minute 10 has %d ms counted, want all of the one source that is left", f.Counted)
	}
	sources, err := r.book.Sources(o.ID)
	if err != nil || len(sources) != 3 {
		t.Fatalf("the book knows %d times of sources, %v; want 3: a, b and b again", len(sources), err)
	}
	if s := sources[1]; s.Removed != base+300_000 || s.Reason == "" {
		t.Errorf("the removal is booked as %+v", s)
	}
	// A restart expects the same.
	r.restart()
	for s := 1815.0; s <= 2100; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.send(traffic("web", "b", s)...)
		r.to(s + 1)
	}
	if f := r.minutes(o)[33]; f.Expected != 120_000 {
		t.Errorf("after a restart minute 33 expects %d ms, want 120000", f.Expected)
	}
}

func TestR14_ASourceSilentForADayBesideALiveOneIsNoLongerExpected(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	const day = 24 * 3600.0
	for s := 0.0; s <= day+1800; s += 60 {
		r.send(traffic("web", "a", s)...)
		if s <= 600 {
			r.send(traffic("web", "b", s)...)
		}
		if int(s)%600 == 0 {
			r.to(s + 1)
		}
	}
	minutes := r.minutes(o)
	for m, want := range map[int]int64{60: 120_000, 1440: 120_000, 1455: 60_000} {
		if got := minutes[m].Expected; got != want {
			t.Errorf("minute %d expects %d ms, want %d", m, got, want)
		}
	}
}

func TestR17_AnObjectiveThatIsNotSeenIsToldApartFromOneThatIsGone(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	up := func(s, v float64) {
		r.put(s, v, "__name__", "up", "job", "shop", "instance", "a", "cluster", "c")
	}
	unseen := func() bool { return r.ev.States(r.now)[0].Unseen }
	for s := 0.0; s <= 900; s += 15 {
		r.send(traffic("web", "a", s)...)
		up(s, 1)
		r.to(s + 1)
		if unseen() {
			t.Fatalf("unseen at %v s, with all samples there", s)
		}
	}
	var since float64
	for s := 915.0; s <= 1500; s += 15 {
		r.to(s)
		if unseen() && since == 0 {
			since = s
		}
	}
	if since < 1020 || since > 1140 {
		t.Errorf("unseen since %v s, want it some three minutes after the last sample at 900 s", since)
	}
	if len(r.ev.Burning(r.now, func(sla.ID) bool { return false })) != 1 {
		t.Error("an unseen objective is not among those that an alert may be about")
	}
	// Its target was removed from discovery: that explains the silence.
	up(1510, math.Float64frombits(value.StaleNaN))
	r.to(1900)
	if unseen() {
		t.Error("an objective whose only source was removed on purpose is called unseen")
	}
}

func TestR17_R18_NothingIsUnseenWhileTheAggregatorDidNotReceive(t *testing.T) {
	o := webObjective("beats", true)
	r := newRig(t, o)
	for s := 0.0; s <= 600; s += 15 {
		r.send(traffic("beats", "a", s)...)
		r.to(s + 1)
	}
	// The process stands still for ten minutes, and so does the sender.
	r.to(1201)
	if r.ev.States(r.now)[0].Unseen {
		t.Error("called unseen although it was the aggregator that stood still")
	}
	for s := 1215.0; s <= 1800; s += 15 {
		r.send(traffic("beats", "a", s)...)
		r.to(s + 1)
	}
	for m := 11; m < 20; m++ {
		if f := r.minutes(o)[m]; f.Flags&sla.FlagAbsent != 0 || f.Flags&sla.FlagNotReceiving == 0 {
			t.Errorf("minute %d, in which the aggregator stood still: flags %b, want not receiving and no bad event", m, f.Flags)
		}
	}
}

func TestR26_WithoutTheLeaseNothingIsBookedAndWithItAllIs(t *testing.T) {
	o := webObjective("web", false)
	lease := true
	r := &rig{t: t, dir: t.TempDir(), now: time.UnixMilli(base).UTC(), objects: []sla.Objective{o}, lease: &lease}
	r.open()
	t.Cleanup(r.close)
	for s := 0.0; s <= 1800; s += 15 {
		lease = s < 600 || s >= 1200
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
		if s == 1199-14 { // the last tick without it
			if last, _ := r.book.LastMinute(o.ID); last-minute0 > 9 {
				t.Errorf("minute %d was booked without the lease", last-minute0)
			}
		}
	}
	for m := 1; m <= 28; m++ {
		if f := r.minutes(o)[m]; f.Total != 40*sla.Micro || f.Counted != 60_000 {
			t.Errorf("minute %d has %d events in %d ms, want 40 in 60000", m, f.Total/sla.Micro, f.Counted)
		}
	}
}

func TestTheSlowPassCorrectsWhatDiffersAndNothingElse(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	revisions := func() float64 { return testutil.ToFloat64(r.ev.metrics.revisions.WithLabelValues("recheck")) }
	for s := 0.0; s <= 8*3600; s += 30 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
		if s == 3600 { // what a bug or a lost hook could do
			r.ev.mu.Lock()
			r.ev.objectives[o.ID].tally.open[0].Total += 7 * sla.Micro
			r.ev.mu.Unlock()
		}
	}
	if got := revisions(); got != 1 {
		t.Errorf("%v minutes were corrected, want the one that was wrong", got)
	}
	if checked := testutil.ToFloat64(r.ev.metrics.checked); checked < 240 {
		t.Errorf("%v minutes were checked in eight hours, want hours of them", checked)
	}
	for m, f := range r.minutes(o) {
		if m > 0 && f.Total != 40*sla.Micro {
			t.Errorf("minute %d has %d events, want 40", m, f.Total/sla.Micro)
		}
	}
}

func TestGroupsBecomeObjectivesUpToABoundAndKeepTheirHistory(t *testing.T) {
	o := webObjective("web", false)
	o.GroupBy, o.MaxGroups = []string{"namespace"}, 2
	r := newRig(t, o)
	scrape := func(s float64, namespaces ...string) {
		r.puts(s, func(add func(float64, ...string)) {
			for i, ns := range namespaces {
				for _, code := range []string{"200", "500"} {
					add(s*float64(i+1), "__name__", "web_total", "job", "shop", "instance", "a", "cluster", "c", "namespace", ns, "code", code)
				}
			}
		})
	}
	for s := 0.0; s <= 600; s += 15 {
		scrape(s, "one", "two", "three", "four")
		r.to(s + 1)
	}
	states := r.ev.States(r.now)
	totals := map[string]string{}
	for _, st := range states {
		totals[st.Objective.GroupName()] = sla.Events(st.Period.Total)
	}
	// 600 s: one 600·2, two 1200·2, the rest (three and four) 1800·2 + 2400·2.
	want := map[string]string{"namespace=one": "1200", "namespace=two": "2400", "other groups": "8400"}
	if fmt.Sprint(totals) != fmt.Sprint(want) {
		t.Errorf("groups hold %v, want %v", totals, want)
	}
	if got := testutil.ToFloat64(r.ev.metrics.groups); got != 1 {
		t.Errorf("%v SLOs are told to have too many groups, want 1", got)
	}
	// A restart knows them again, and their sums go on.
	r.restart()
	for s := 615.0; s <= 1200; s += 15 {
		scrape(s, "one", "two", "three", "four")
		r.to(s + 1)
	}
	for _, st := range r.ev.States(r.now) {
		if st.Objective.GroupName() == "namespace=one" && sla.Events(st.Period.Total) != "2400" {
			t.Errorf("after a restart namespace one holds %s events, want 2400", sla.Events(st.Period.Total))
		}
	}
}

// counted counts the reads of a store and of a book.
type counted struct {
	Raw
	Book
	raw, days, minutes int
}

func (c *counted) Querier(mint, maxt int64) (storage.Querier, error) {
	c.raw++
	return c.Raw.Querier(mint, maxt)
}

func (c *counted) Day(id sla.ID, day int64) (*ledger.Run, error) {
	c.days++
	return c.Book.Day(id, day)
}

func (c *counted) Scan(id sla.ID, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error {
	c.minutes++
	return c.Book.Scan(id, from, to, asOf, fn)
}

// Rules over long ranges take longer than their interval (kubernetes-mixin
// #1264, pyrra #1440, sloth #504): what is read here does not depend on the
// window, and in the usual case is nothing.
func TestPain11_AMinuteCostsTheSameWhateverTheWindow(t *testing.T) {
	for _, window := range []time.Duration{24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour} {
		o := webObjective("web", false)
		o.Window = sla.Window{Rolling: window}
		r := newRig(t, o)
		reads := &counted{Raw: r.db, Book: r.book}
		r.ev.mu.Lock()
		r.ev.cfg.Raw, r.ev.cfg.Book = reads, reads
		r.ev.objectives[o.ID].older.book = reads
		r.ev.mu.Unlock()
		for s := 0.0; s <= 4*3600; s += 30 {
			r.send(traffic("web", "a", s)...)
			r.to(s + 1)
			if s == 60 {
				*reads = counted{Raw: reads.Raw, Book: reads.Book} // new series were looked for
			}
		}
		if reads.raw != 0 || reads.minutes != 0 || reads.days > 1 {
			t.Errorf("window of %s: in four hours samples were read %d times, minutes %d times, days %d times; want 0, 0 and at most 1", window, reads.raw, reads.minutes, reads.days)
		}
		if got := len(r.minutes(o)); got < 230 {
			t.Errorf("window of %s: %d minutes were booked in four hours", window, got)
		}
	}
}

// A scrape that failed is told late: the counter went on as if nothing had been.
func TestR21_ALateEndTakesCountedTimeAway(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 600; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	before := r.minutes(o)[5]
	r.puts(307, func(add func(float64, ...string)) {
		for _, code := range []string{"200", "500"} {
			add(math.Float64frombits(value.StaleNaN), "__name__", "web_total", "job", "shop", "instance", "a", "cluster", "c", "code", code)
		}
	})
	r.to(620)
	f := r.minutes(o)[5]
	if f.Counted != before.Counted-15_000 || f.Timed != before.Timed-15_000 || f.Expected != before.Expected {
		t.Errorf("minute 5 is %+v and was %+v: the 15 s around the end must not count", f, before)
	}
	if len(f.Gaps) != 1 || f.Total+f.Gaps[0].Total != before.Total {
		t.Errorf("minute 5 is %+v and was %+v: its events must all be there, those around the end as a gap", f, before)
	}
}

// Who lost the samples must not take from the book what they told.
func TestR21_MinutesOfAnotherStoreAreNotCorrectedByLess(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	feed := func(from, to float64) {
		for s := from; s <= to; s += 15 {
			r.send(traffic("web", "a", s)...)
			r.to(s + 1)
		}
	}
	feed(0, 600)
	r.close()
	if err := os.RemoveAll(filepath.Join(r.dir, "metrics")); err != nil {
		t.Fatal(err)
	}
	r.open()
	feed(615, 900)
	before := r.minutes(o)
	r.send(traffic("web", "a", 310)...) // late, of a minute that the lost samples told of
	r.to(920)
	r.to(1000)
	for m, f := range r.minutes(o) {
		if was, ok := before[m]; ok && m < 10 && f.Counts != was.Counts {
			t.Errorf("minute %d is %+v and was %+v", m, f, was)
		}
	}
	marks, err := r.book.Marks(markStore)
	if err != nil || len(marks) != 2 || marks[0].Key == marks[1].Key {
		t.Errorf("the book knows the stores %+v, %v; want two", marks, err)
	}
}

func TestR21_R24_TheBookKnowsOfLateSamplesBeforeTheyAreAcknowledged(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 600; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	count := func(kind string) int {
		t.Helper()
		marks, err := r.book.Marks(kind)
		if err != nil {
			t.Fatal(err)
		}
		return len(marks)
	}
	if n := count(markLate); n != 0 {
		t.Fatalf("%d marks of late samples before there was one", n)
	}
	r.send(datum{"web", "b", "200", 200, 1000, 0}) // no tick
	if n := count(markLate); n != 1 {
		t.Errorf("%d marks of late samples, want one before the answer", n)
	}
	r.send(datum{"web", "b", "200", 230, 1010, 0}, datum{"web", "b", "200", 260, 1030, 0})
	if n := count(markLate); n != 1 {
		t.Errorf("%d marks: what is less late needs none", n)
	}
	r.restart()
	r.to(800)
	if _, total := r.sum(o); total < 30 {
		t.Errorf("%d events", total)
	}
	if f := r.minutes(o)[4]; f.Expected != 120_000 || f.Counted < 80_000 {
		t.Errorf("minute 4 is %+v, want the late source in it", f)
	}
	r.to(800 + 2*3600)
	r.to(860 + 2*3600)
	if late, done := count(markLate), count(markCaughtUp); done != 1 || late != 2 {
		t.Errorf("%d marks of late samples and %d of their end, want the first, that of the restart, and one end", late, done)
	}
}

// A restart that a long silence hides may have been at any time of it.
func TestR05_R22_AResetOverAGapIsAGap(t *testing.T) {
	for _, proven := range []bool{false, true} {
		o := webObjective("web", false)
		r := newRig(t, o)
		start := 0.0
		if proven {
			start = 1170
		}
		for s := 0.0; s <= 1500; s += 15 {
			switch {
			case s < 300:
				r.send(datum{"web", "a", "200", s, 10_000 + s, 0})
			case s >= 1200:
				r.send(datum{"web", "a", "200", s, s - 1100, start})
			}
			r.to(s + 1)
		}
		f := r.minutes(o)[20]
		direct, lumps := f.Total, int64(0)
		for _, g := range f.Gaps {
			lumps += g.Total
		}
		switch {
		case !proven && (lumps != 100*sla.Micro || direct != 45*sla.Micro || f.Flags&sla.FlagLowerBound == 0):
			t.Errorf("minute 20 is %+v, want the 100 events of the first scrape as a gap and a lower bound", f)
		case proven && (lumps != 0 || direct != 145*sla.Micro):
			t.Errorf("with a proven start minute 20 is %+v, want all 145 events in it", f)
		}
	}
}

// A stop comes between storing a late sample and counting it; the sender got no
// answer and sends it again.
func TestR21_ASampleThatWasStoredButNotCountedIsFoundWhenItIsSentAgain(t *testing.T) {
	for _, again := range []bool{true, false} {
		o := webObjective("web", false)
		r := newRig(t, o)
		for s := 0.0; s <= 600; s += 15 {
			if s < 300 || s > 540 {
				r.send(traffic("web", "b", s)...)
			}
			r.to(s + 1)
		}
		late := traffic("web", "a", 330)
		r.send(traffic("web", "a", 300)...)
		r.to(620)
		r.db.SetHook(func([]store.Sample) {}) // the stop
		r.send(late...)
		r.restart()
		if again {
			r.send(late...)
		}
		r.to(800)
		r.to(800 + 7*3600) // the slow pass comes by
		r.to(800 + 14*3600)
		if f := r.minutes(o)[5]; f.Total != 20*sla.Micro {
			t.Errorf("sent again %t: minute 5 is %+v, want the 20 events up to second 330", again, f)
		}
	}
}
