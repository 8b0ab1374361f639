package evaluate

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// history is minutes in [from, to), counted from minute 0: ten events each, one
// of them bad.
func history(o sla.Objective, from, to int) History {
	h := History{Objective: o.ID, Group: o.Group, Other: o.Other, Reason: "read back from a test"}
	for m := from; m < to; m++ {
		f := sla.Figures{Counts: sla.Counts{GoodLow: 9 * sla.Micro, GoodHigh: 9 * sla.Micro, Total: 10 * sla.Micro, Expected: 60_000, Counted: 60_000, Timed: 60_000}}
		h.Minutes = append(h.Minutes, HistoryMinute{minute0 + sla.Minute(m), f})
	}
	return h
}

func (r *rig) backfill(h History) Filled {
	r.t.Helper()
	filled, err := r.ev.Backfill(r.now, h)
	if err != nil {
		r.t.Fatal(err)
	}
	filled.newest = 0
	return filled
}

func (r *rig) state(id sla.ID) State {
	r.t.Helper()
	for _, s := range r.ev.States(r.now) {
		if s.Objective.ID == id {
			return s
		}
	}
	r.t.Fatalf("objective %s is not evaluated", id)
	return State{}
}

func TestABackfilledMonthIsInEveryWindowAtOnceAndAfterARestart(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 600; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	before := r.state(o.ID)
	live := r.minutes(o)

	// Ten days are sealed days and days at hand; the newest minutes of the
	// history are those that were seen live.
	const days = 10
	if got, want := r.backfill(history(o, -days*1440, 5)), (Filled{Booked: days * 1440, Already: 5}); got != want {
		t.Fatalf("%+v, want %+v", got, want)
	}
	check := func(when string) {
		t.Helper()
		s := r.state(o.ID)
		if got, want := s.Period.Total.Sub(before.Period.Total), sla.NewInt128(days*1440*10*sla.Micro); got != want {
			t.Errorf("%s: the period has %v more events, want %v", when, got, want)
		}
		long, was := s.Windows[72*time.Hour], before.Windows[72*time.Hour]
		if grew := long.Minutes - was.Minutes; grew < 4300 || grew > 4320 {
			t.Errorf("%s: the window of three days has %d more minutes, want those of the history in it", when, grew)
		}
		if s.Period.Flags&sla.FlagReadBack == 0 {
			t.Errorf("%s: the period does not say that minutes were read back", when)
		}
		for m, f := range r.minutes(o) {
			switch {
			case m < 0 && f.Flags&sla.FlagReadBack == 0:
				t.Fatalf("%s: minute %d is not marked as read back", when, m)
			case m >= 0 && f.Counts != live[m].Counts:
				t.Errorf("%s: minute %d, which was seen live, is %+v now and was %+v", when, m, f, live[m])
			}
		}
	}
	check("at once")
	if got, want := r.backfill(history(o, -days*1440, 5)), (Filled{Already: days*1440 + 5}); got != want {
		t.Errorf("a second call: %+v, want %+v", got, want)
	}
	if _, err := r.book.Seal(t.Context(), r.now); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.now = r.now.Add(time.Second)
	check("after sealing and a restart")
	if v, err := r.book.Verify(t.Context(), nil); err != nil || v.Broken != "" {
		t.Errorf("the chain: %+v, %v", v, err)
	}
}

func TestBackfillLeavesWhatTheEvaluatorHasYetToClose(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	r.send(traffic("web", "a", 0)...)
	r.to(1)
	if got, want := r.backfill(history(o, -3, 60)), (Filled{Booked: 3, Early: 60}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for s := 15.0; s <= 600; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	if f := r.minutes(o)[2]; f.Total != 40*sla.Micro || f.Flags&sla.FlagReadBack != 0 {
		t.Errorf("minute 2 is %+v, want the 40 events that were seen live", f)
	}
}

func TestLateSamplesAndTheSlowPassLeaveReadBackMinutesAlone(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t, o)
	for s := 0.0; s <= 900; s += 15 {
		if s >= 300 {
			r.send(traffic("web", "a", s)...)
		}
		r.to(s + 1)
	}
	r.backfill(history(o, -1440, 0))
	// Raw samples of a time that was read back: here they are not all there are.
	for s := -600.0; s < 0; s += 60 {
		r.send(datum{"web", "b", "200", s, 50_000 + s, 0})
	}
	r.to(930)
	if f := r.minutes(o)[-5]; f.Total != 10*sla.Micro || f.GoodHigh != 9*sla.Micro {
		t.Errorf("a minute that was read back is %+v now, want it as it was", f)
	}
}

func TestBackfillOfAGroupThatIsGone(t *testing.T) {
	o := webObjective("web", false)
	o.GroupBy = []string{"instance"}
	r := newRig(t, o)
	gone := o.ForGroup(map[string]string{"instance": "long-ago"})
	if got, want := r.backfill(history(gone, -100, -40)), (Filled{Booked: 60}); got != want {
		t.Fatalf("%+v, want %+v", got, want)
	}
	defs, err := r.book.Objectives(0)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range defs {
		found = found || d.ID == gone.ID && d.Group["instance"] == "long-ago"
	}
	if !found {
		t.Errorf("the book does not know the group that it has minutes of: %+v", defs)
	}

	other := webObjective("mail", false)
	if _, err := r.ev.Backfill(r.now, history(other, -10, 0)); !errors.Is(err, ErrNotEvaluated) {
		t.Errorf("history of an objective that nobody evaluates: %v", err)
	}
	wrong := history(gone, -10, 0)
	wrong.Group = map[string]string{"instance": "another"}
	if _, err := r.ev.Backfill(r.now, wrong); !errors.Is(err, ErrNotEvaluated) {
		t.Errorf("a group that does not give the identity: %v", err)
	}
}

func TestBackfillNeedsTheLeaseAndKeepsToTheRetention(t *testing.T) {
	o := webObjective("web", false)
	r := newRig(t)
	r.close()
	held := false
	r.lease, r.objects = &held, []sla.Objective{o}
	r.open()
	if _, err := r.ev.Backfill(r.now, history(o, -10, 0)); err == nil || !strings.Contains(err.Error(), "lease") {
		t.Errorf("without the lease: %v", err)
	}
	held = true
	r.backfill(history(o, -2*1440, 0))
	if err := r.book.DropBefore(minute0 - 1440); err != nil {
		t.Fatal(err)
	}
	var dropped *ledger.Dropped
	if _, err := r.ev.Backfill(r.now, history(o, -3*1440, 0)); !errors.As(err, &dropped) {
		t.Errorf("minutes that retention has removed: %v", err)
	}
}

func TestBackfillOfAStoppedBookLeavesNoHole(t *testing.T) {
	o := webObjective("web", false)
	book, err := ledger.Open(ledger.Config{Dir: t.TempDir()}, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	now := (minute0 + 1000).Time()
	for _, c := range []struct {
		from, to int
		want     Filled
	}{
		{0, 100, Filled{Booked: 100}},              // a new objective
		{200, 300, Filled{Early: 100}},             // would leave a hole behind minute 99
		{50, 150, Filled{Booked: 50, Already: 50}}, // goes on
		{-50, 10, Filled{Booked: 50, Already: 10}}, // in front
		{150, 2000, Filled{Booked: 850, Early: 1000}},
	} {
		got, err := Backfill(book, now, o, history(o, c.from, c.to))
		got.newest = 0
		if err != nil || got != c.want {
			t.Errorf("minutes %d to %d: %+v, %v; want %+v", c.from, c.to, got, err, c.want)
		}
	}
	sum, err := book.Sum(o.ID, minute0-50, minute0+1000, 0)
	if err != nil || sum.Minutes != 1050 || sum.Total != sla.NewInt128(10_500*sla.Micro) {
		t.Errorf("%+v, %v; want 1,050 minutes", sum, err)
	}
}

// The time of a stop is filled from elsewhere; nothing is sent again. The series
// that goes on after it must not bring the events of that time once more.
func TestAStopThatWasFilledIsNotCountedTwice(t *testing.T) {
	for _, start := range []float64{0, -3600} { // with a start that proves the gap, too
		o := webObjective("web", false)
		r := newRig(t, o)
		send := func(from, to float64) {
			for s := from; s <= to; s += 15 {
				r.send(datum{"web", "a", "200", s, 1000 + s, start})
				r.to(s + 1)
			}
		}
		send(0, 600)
		r.close()
		book, err := ledger.Open(ledger.Config{Dir: filepath.Join(r.dir, "ledger")}, silent)
		if err != nil {
			t.Fatal(err)
		}
		r.now = time.UnixMilli(base + 7_200_000).UTC()
		h := history(o, 0, 120)
		for i := range h.Minutes {
			h.Minutes[i].Figures.Total, h.Minutes[i].Figures.GoodLow, h.Minutes[i].Figures.GoodHigh = 60*sla.Micro, 60*sla.Micro, 60*sla.Micro
		}
		if _, err := Backfill(book, r.now, o, h); err != nil {
			t.Fatal(err)
		}
		if err := book.Close(); err != nil {
			t.Fatal(err)
		}
		r.open()
		send(7200, 8400)
		r.to(8400 + 7*3600) // the slow pass
		r.restart()
		r.to(8400 + 14*3600)
		// One event a second, but for the first scrape and the 15 s behind the filled
		// time.
		if _, total := r.sum(o); total < 8370 || total > 8400 {
			t.Errorf("start %v: %d events are booked, want the 8400 that were, at most", start, total)
		}
	}
}
