package evaluate

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

var silent = slog.New(slog.DiscardHandler)

// rig is a real store, a real ledger and an evaluator between them, with a
// clock that the test moves.
type rig struct {
	t       testing.TB
	dir     string
	db      *store.DB
	book    *ledger.Book
	ev      *Evaluator
	now     time.Time
	objects []sla.Objective
	booked  []BookedMinute
	reg     *prometheus.Registry
	lease   *bool // set before open
}

func webObjective(name string, absentBad bool) sla.Objective {
	o := sla.Objective{
		SLO: name, Name: "0", Service: "shop",
		Window: sla.Window{Rolling: 28 * 24 * time.Hour},
		SLI: sla.SLI{
			Good:  fmt.Sprintf(`sum(rate(%s_total{code!="500"}[5m]))`, name),
			Total: fmt.Sprintf(`sum(rate(%s_total[5m]))`, name),
		},
		AbsentBad: absentBad,
	}
	o.Target, _ = sla.ParseTarget("0.99")
	o.ID = sla.ObjectiveID("", "", name, "0", nil, o.SLI)
	return o
}

func newRig(t testing.TB, objects ...sla.Objective) *rig {
	r := &rig{t: t, dir: t.TempDir(), now: time.UnixMilli(base).UTC(), objects: objects}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	cfg := store.DefaultConfig()
	cfg.Dir = filepath.Join(r.dir, "metrics")
	cfg.Retention = 30 * 24 * time.Hour
	cfg.Now = func() time.Time { return r.now }
	var err error
	reg := prometheus.NewRegistry()
	var lease func(time.Time) bool
	if r.reg = reg; r.lease != nil {
		lease = func(time.Time) bool { return *r.lease }
	}
	if r.db, err = store.Open(cfg, silent, reg); err != nil {
		r.t.Fatal(err)
	}
	if r.book, err = ledger.Open(ledger.Config{Dir: filepath.Join(r.dir, "ledger")}, silent); err != nil {
		r.t.Fatal(err)
	}
	r.ev = New(Config{
		Raw: r.db, Book: r.book, Query: r.db.Query, Lease: lease, Retention: cfg.Retention, Term: r.book.Head().Term + 1, Started: r.now,
		Log: silent, Registry: reg, Booked: func(b []BookedMinute) error { r.booked = append(r.booked, b...); return nil },
	})
	r.db.SetHook(r.ev.Observe)
	r.db.SetRefusedHook(func(list []store.RefusedSource) {
		for _, x := range list {
			r.ev.Refused(SourceKey(x.Job, x.Instance, x.Cluster), x.First, x.Last)
		}
	})
	if err := r.ev.SetObjectives(context.Background(), r.objects, r.now); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.book.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart is a stop and a start at the same moment.
func (r *rig) restart() {
	r.t.Helper()
	r.close()
	r.open()
}

// to moves the clock to seconds after base, ticks, and asks what burns, as the
// server does.
func (r *rig) to(seconds float64) {
	r.t.Helper()
	r.now = time.UnixMilli(base + int64(seconds*1000)).UTC()
	if err := r.ev.Tick(context.Background(), r.now); err != nil {
		r.t.Fatal(err)
	}
	r.ev.Burning(r.now, func(sla.ID) bool { return false })
	r.ev.Gauges(r.now, func(*Gauges) {})
}

type datum struct {
	name, instance, code string
	seconds              float64
	events               float64
	start                float64 // seconds after base, 0 unknown
}

func (r *rig) send(values ...datum) {
	r.t.Helper()
	app := r.db.Appender(context.Background())
	for _, v := range values {
		if at := time.UnixMilli(base + int64(v.seconds*1000)).UTC(); at.After(r.now) {
			r.now = at
		}
	}
	for _, v := range values {
		ls := labels.FromStrings(model.MetricNameLabel, v.name+"_total", "job", "shop", "instance", v.instance, "cluster", "c", "code", v.code)
		st := int64(0)
		if v.start != 0 {
			st = base + int64(v.start*1000)
		}
		if err := app.Append(ls, st, base+int64(v.seconds*1000), v.events); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) minutes(o sla.Objective) map[int]sla.Figures {
	r.t.Helper()
	out := map[int]sla.Figures{}
	err := r.book.Scan(o.ID, minute0-10_000, minute0+100_000, 0, func(m sla.Minute, f sla.Figures) error {
		if _, twice := out[int(m-minute0)]; twice {
			r.t.Errorf("minute %d is in the book twice", m-minute0)
		}
		out[int(m-minute0)] = f
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// traffic is ten events a scrape with one error in each minute, every 15 s.
func traffic(name, instance string, seconds float64) []datum {
	n := seconds / 15
	bad := float64(int(seconds / 60))
	return []datum{
		{name, instance, "200", seconds, 1000 + n*10 - bad, 0},
		{name, instance, "500", seconds, bad, 0},
	}
}

func TestR20_AMinuteClosesHalfAMinuteAfterItsEndAndNotRightAfterAStart(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 300; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
		_, minute1 := r.minutes(o)[1]
		if want := s+1 >= 150; minute1 != want {
			t.Errorf("%v s after the start: minute 1 (from 60 s to 120 s) closed is %v, want %v", s+1, minute1, want)
		}
	}
	f := r.minutes(o)[1]
	if f.Total != 40*sla.Micro || f.GoodHigh != 39*sla.Micro || f.Counted != 60_000 || f.Timed != 60_000 || f.Expected != 60_000 || f.IntervalMillis != 15_000 {
		t.Errorf("minute 1: %+v, want 39 good of 40, all of its time seen, interval 15 s", f)
	}
}

func TestR21_LateSamplesOfAClosedMinuteMakeARevision(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 600; s += 15 {
		r.send(traffic("web", "a", s)...)
		if s < 120 || s >= 300 { // b's connection is cut for three minutes
			r.send(traffic("web", "b", s)...)
		}
		r.to(s + 1)
	}
	before := r.minutes(o)[3]
	if before.Counted != 60_000 || before.Expected != 120_000 {
		t.Fatalf("with b cut off, minute 3 has counted %d of %d, want 60000 of 120000", before.Counted, before.Expected)
	}
	var late []datum
	for s := 120.0; s < 300; s += 15 {
		late = append(late, traffic("web", "b", s)...)
	}
	r.send(late...)
	r.to(620)
	r.to(640)
	for m := 1; m < 8; m++ {
		f := r.minutes(o)[m]
		if f.Total != 80*sla.Micro || f.GoodHigh != 78*sla.Micro || f.Counted != 120_000 || f.Timed != 120_000 || len(f.Gaps) != 0 {
			t.Errorf("minute %d after the late samples: %+v, want 78 good of 80 and all time seen", m, f)
		}
	}
}

func TestR19_R25_ARestartAtAnyMomentNeitherLosesNorDoublesAMinute(t *testing.T) {
	run := func(restartAt map[int]bool) map[int]sla.Figures {
		o := webObjective("web", false)
		r := newRig(t, o)
		for i := 0; i*15 <= 900; i++ {
			s := float64(i * 15)
			r.send(traffic("web", "a", s)...)
			if restartAt[i] {
				r.restart()
			}
			r.to(s + 1)
		}
		r.to(1100)
		out := r.minutes(o)
		for m, f := range out {
			f.Flags &^= sla.FlagNotReceiving // tells of the restarts themselves
			out[m] = f
		}
		return out
	}
	want := run(nil)
	if len(want) < 15 {
		t.Fatalf("only %d minutes were booked", len(want))
	}
	for _, restarts := range []map[int]bool{{1: true}, {9: true, 10: true}, {13: true, 30: true, 44: true}, {20: true, 21: true, 22: true, 23: true}} {
		got := run(restarts)
		for m := range 15 {
			if !reflect.DeepEqual(got[m], want[m]) {
				t.Errorf("restarts before scrapes %v: minute %d is %+v, want %+v", restarts, m, got[m], want[m])
			}
		}
	}
}

func TestR06_R22_ASeriesGoesOnFromItsLastValueAfterALongSilence(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	r.send(datum{"web", "a", "200", 0, 100, -50})
	r.send(datum{"web", "a", "200", 15, 110, -50})
	r.to(20)
	r.restart()
	// Three hours later the same process answers again: 500 events in between.
	for s := 10_800.0; s <= 11_100; s += 15 {
		r.send(datum{"web", "a", "200", s, 610, -50})
		r.to(s + 1)
	}
	f := r.minutes(o)[180]
	want := []sla.Gap{{From: minute0, To: minute0 + 180, GoodLow: 500 * sla.Micro, GoodHigh: 500 * sla.Micro, Total: 500 * sla.Micro}}
	if !reflect.DeepEqual(f.Gaps, want) {
		t.Fatalf("gaps of the minute in which it came back: %+v, want %+v", f.Gaps, want)
	}
	st := r.ev.States(r.now)[0]
	if got := sla.Events(st.Windows[time.Hour].Total); got != "0" {
		t.Errorf("the last hour cuts the gap and holds %s events, want 0", got)
	}
	if got := sla.Events(st.Windows[6*time.Hour].Total); got != "510" {
		t.Errorf("the last six hours hold the gap whole and have %s events, want 510", got)
	}
	if c := st.Windows[6*time.Hour].Counted; sla.Ratio(c, sla.NewInt128(1000)).Num().Int64() < 10_800 {
		t.Errorf("equal starts prove that the gap was counted: %v ms", c)
	}
}

func TestR18_AHeartbeatThatStopsIsBadAndIsCorrectedWhenItArrives(t *testing.T) {
	o := webObjective("beats", true)
	r := newRig(t, o)
	for s := 5.0; s <= 600; s += 15 {
		if s < 180 {
			r.send(datum{"beats", "a", "", s, 1 + float64(int(s/60)), 0})
		}
		r.to(s + 1)
	}
	for m, bad := range map[int]int64{1: 0, 2: 0, 3: 1, 4: 1, 7: 1} {
		f := r.minutes(o)[m]
		if f.Total != sla.Micro || f.Total-f.GoodHigh != bad*sla.Micro {
			t.Errorf("minute %d: %d good of %d, want %d bad events of 1", m, f.GoodHigh/sla.Micro, f.Total/sla.Micro, bad)
		}
	}
	st := r.ev.States(r.now)[0]
	if !sla.Tiers[0].Firing(st.Windows[time.Hour], st.Windows[5*time.Minute], o.Target, 28*24*time.Hour) {
		t.Errorf("the fast tier does not fire: burn %v over 1 h, %v over 5 min", st.Windows[time.Hour].Burn(o.Target), st.Windows[5*time.Minute].Burn(o.Target))
	}
	// It was alive all the time; its queue delivers.
	var late []datum
	for s := 185.0; s <= 605; s += 15 {
		late = append(late, datum{"beats", "a", "", s, 1 + float64(int(s/60)), 0})
	}
	r.send(late...)
	r.to(620)
	r.to(640)
	for m := 1; m <= 8; m++ {
		f := r.minutes(o)[m]
		if f.Total != sla.Micro || f.GoodHigh != sla.Micro {
			t.Errorf("minute %d after the delivery: %d good of %d, want 1 of 1", m, f.GoodHigh/sla.Micro, f.Total/sla.Micro)
		}
	}
}

func TestR29_WindowsEqualTheSumOfTheirMinutes(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 3*3600; s += 30 {
		if int(s/600)%5 == 3 {
			continue // ten minutes of silence in each fifty
		}
		r.send(datum{"web", "a", "200", s, 1000 + s, 0}, datum{"web", "a", "500", s, float64(int(s / 100)), 0})
		r.to(s + 1)
		if int(s)%570 != 0 {
			continue
		}
		st := r.ev.States(r.now)[0]
		newest := sla.MinuteOf(st.Newest)
		for d, got := range st.Windows {
			from := newest - sla.Minute(d/time.Minute) + 1
			var want sla.Sum
			for m, f := range r.minutes(o) {
				if minute0+sla.Minute(m) < from {
					continue
				}
				want.Add(f.Counts)
				for _, g := range f.Gaps {
					if g.From >= from {
						want.Revise(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
					}
				}
			}
			tally := r.ev.objectives[o.ID].tally
			for i, f := range tally.open {
				if m := tally.settled + 1 + sla.Minute(i); m <= newest && m >= from {
					want.Add(sla.Counts{GoodLow: f.GoodLow, GoodHigh: f.GoodHigh, Total: f.Total})
				}
			}
			if got.Total != want.Total || got.GoodHigh != want.GoodHigh {
				t.Fatalf("at %v s the window of %v has %v good of %v, its minutes have %v of %v", s, d, got.GoodHigh, got.Total, want.GoodHigh, want.Total)
			}
		}
	}
}

func TestR28_AChangedTargetKeepsTheSumsAndAChangedSLIStartsAnew(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 300; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	before := r.ev.States(r.now)[0].Period.Total
	stricter := o
	stricter.Target, _ = sla.ParseTarget("0.999")
	other := o
	other.SLI.Good = `sum(rate(web_total{code="200"}[5m]))`
	other.ID = sla.ObjectiveID("", "", "web", "0", nil, other.SLI)
	if err := r.ev.SetObjectives(context.Background(), []sla.Objective{stricter, other}, r.now); err != nil {
		t.Fatal(err)
	}
	for _, st := range r.ev.States(r.now) {
		switch {
		case st.Objective.ID == o.ID && (st.Period.Total != before || st.Objective.Target.String() != "0.999"):
			t.Errorf("with a new target the period holds %v, before %v", st.Period.Total, before)
		case st.Objective.ID == other.ID && !st.Closed.Equal(r.now.Truncate(time.Minute)):
			t.Errorf("the new SLI begins with %v, want the minute of now", st.Closed)
		}
	}
	r.to(330)
	defs, err := r.book.Objectives(0)
	if err != nil || len(defs) != 2 {
		t.Errorf("the book knows %d objectives, %v; want 2", len(defs), err)
	}
}

func TestTheProjectionGetsEachBookedMinuteOnce(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 400; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	seen := map[sla.Minute]int{}
	for _, b := range r.booked {
		seen[b.Minute]++
	}
	if len(seen) != len(r.minutes(o)) {
		t.Errorf("%d minutes were handed on, %d are in the book", len(seen), len(r.minutes(o)))
	}
	for m, n := range seen {
		if n != 1 {
			t.Errorf("minute %d was handed on %d times", m-minute0, n)
		}
	}
}

func TestAnSLOThatCannotBeEvaluatedStopsItselfAlone(t *testing.T) {
	good, broken := webObjective("web", false), webObjective("other", false)
	broken.SLI.Total = "sum(rate(up[5m])"
	r := newRig(t)
	err := r.ev.SetObjectives(context.Background(), []sla.Objective{broken, good}, r.now)
	if err == nil {
		t.Error("no error for an expression that is no counter")
	}
	if states := r.ev.States(r.now); len(states) != 1 || states[0].Objective.ID != good.ID {
		t.Errorf("%d objectives are evaluated, want the good one", len(states))
	}
	if why := r.ev.Failed()[broken.ID]; why == "" {
		t.Error("the reason is not told")
	}
}
