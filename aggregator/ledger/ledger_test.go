package ledger

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"

	"nines/pkg/sla"
)

func TestScanReturnsMinutesInOrderAcrossDays(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	// Before the epoch, at both edges of a day, and far from each other.
	minutes := []sla.Minute{-1441, -1440, -1, 0, 1439, 1440, 1441, 29_000_000}
	at := int64(0)
	for _, i := range []int{7, 3, 0, 5, 2, 4, 1, 6} {
		at++
		book(t, b, at, first(1, minutes[i], figures(i)), first(2, minutes[i], figures(100+i)))
	}
	for _, when := range []string{"now", "after a restart"} {
		if when != "now" {
			b = reopen(t, b, dir)
		}
		var want []line
		for i, m := range minutes[:7] {
			want = append(want, line{m, figures(i)})
		}
		if got := scan(t, b, 1, -3000, 3000, 0); !reflect.DeepEqual(got, want) {
			t.Errorf("scan:\n got %v\nwant %v", got, want)
		}
		if got := scan(t, b, 1, -1440, 1440, 0); !reflect.DeepEqual(got, want[1:5]) {
			t.Errorf("from is included and to is not:\n got %v\nwant %v", got, want[1:5])
		}
		for i, m := range minutes {
			f, ok, err := b.Minute(id(2), m)
			if err != nil || !ok || !reflect.DeepEqual(f, figures(100+i)) {
				t.Errorf("minute %d: %+v, %v, %v", m, f, ok, err)
			}
		}
		if _, ok, err := b.Minute(id(1), 5); ok || err != nil {
			t.Errorf("a minute that is not booked: %v, %v", ok, err)
		}
		if got := scan(t, b, 3, -3000, 3000, 0); got != nil {
			t.Errorf("an objective that is not booked has %v", got)
		}
		if got := scan(t, b, 1, 10, 10, 0); got != nil {
			t.Errorf("an empty span has %v", got)
		}
	}
	verifyChain(t, b)
}

func TestScanEndsWithTheErrorOfItsCaller(t *testing.T) {
	b := open(t, t.TempDir())
	book(t, b, 1, first(1, 1, figures(1)), first(1, 2, figures(2)))
	stop := errors.New("enough")
	n := 0
	err := b.Scan(id(1), 0, 10, 0, func(sla.Minute, sla.Figures) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("%d calls, %v", n, err)
	}
}

// A figure as of a batch is what was known when it was booked (R21).
func TestR21AsOfABatchIsWhatWasKnownThen(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	p1 := book(t, b, 1, first(1, 10, figures(1)))
	p2 := book(t, b, 2, first(1, 11, figures(2)), revision(1, 10, sla.Figures{Counts: sla.Counts{GoodLow: -3, Total: 5}, Flags: sla.FlagAbsent}))
	p3 := book(t, b, 3, revision(1, 10, sla.Figures{Counts: sla.Counts{Total: -1}}), revision(1, 11, sla.Figures{Counts: sla.Counts{Counted: 9}}))
	if p1.Seq != 1 || p2.Seq != 2 || p3.Seq != 3 || p1.Hash == p2.Hash || p3.At != 3 || p3.Term != 1 {
		t.Fatalf("positions %v, %v, %v", p1, p2, p3)
	}
	second := figures(1)
	second.GoodLow, second.Total, second.Flags = second.GoodLow-3, second.Total+5, sla.FlagAbsent
	third := second
	third.Total, third.Flags = third.Total-1, 0 // its mark was taken away
	other := figures(2)
	other.Counted += 9
	b = reopen(t, b, dir)
	for asOf, want := range map[uint64][]line{
		1: {{10, figures(1)}},
		2: {{10, second}, {11, figures(2)}},
		3: {{10, third}, {11, other}},
		0: {{10, third}, {11, other}},
	} {
		if got := scan(t, b, 1, 0, 100, asOf); !reflect.DeepEqual(got, want) {
			t.Errorf("as of batch %d:\n got %v\nwant %v", asOf, got, want)
		}
	}
	verifyChain(t, b)
}

func TestR22GapsAddUpAndLeaveWhenTheyComeToNothing(t *testing.T) {
	b := open(t, t.TempDir())
	f := figures(1)
	f.Gaps = []sla.Gap{{From: 3, To: 10, GoodLow: 5, GoodHigh: 6, Total: 7}, {From: 4, To: 10, GoodLow: 1, GoodHigh: 1, Total: 1}}
	book(t, b, 1, first(1, 10, f))
	if got, _, err := b.Minute(id(1), 10); err != nil || !reflect.DeepEqual(got, f) {
		t.Fatalf("got %+v, %v, want %+v", got, err, f)
	}
	book(t, b, 2, revision(1, 10, sla.Figures{Gaps: []sla.Gap{{From: 3, To: 10, GoodLow: -5, GoodHigh: -6, Total: -7}, {From: 2, To: 10, Total: 1}}}))
	want := []sla.Gap{{From: 2, To: 10, Total: 1}, {From: 4, To: 10, GoodLow: 1, GoodHigh: 1, Total: 1}}
	if got, _, err := b.Minute(id(1), 10); err != nil || !reflect.DeepEqual(got.Gaps, want) {
		t.Errorf("gaps %+v, %v, want %+v", got.Gaps, err, want)
	}
}

func TestHeadLastMinuteObjectivesAndSourcesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if p := b.Head(); p != (Position{}) {
		t.Errorf("head of an empty book: %v", p)
	}
	if m, ok := b.LastMinute(id(1)); ok {
		t.Errorf("last minute of an empty book: %d", m)
	}
	old := sla.Objective{ID: id(1), SLO: "checkout", Name: "0", Labels: map[string]string{"team": "a"}, SLI: sla.SLI{Good: "g", Total: "t"}}
	changed := old
	changed.Title = "Checkout answers"
	other := sla.Objective{ID: id(2), SLO: "login"}
	source := Source{Objective: id(1), Key: "job\x00instance\x00", First: 5}
	removed := source
	removed.Removed, removed.Reason = 9, "drained"
	second := Source{Objective: id(1), Key: "job\x00instance2\x00", First: 6}
	for i, batch := range []Batch{
		{Objectives: []sla.Objective{other, old}, Sources: []Source{source, second, {Objective: id(2), Key: "x"}}},
		{Entries: []Entry{first(1, 8, figures(1)), first(1, 7, figures(1)), first(2, -5, figures(1))}},
		{Objectives: []sla.Objective{changed}, Sources: []Source{removed}, Entries: []Entry{revision(1, 99, figures(1)), first(1, 6, figures(1))}},
	} {
		batch.Term, batch.At = uint64(i+1), int64(i)
		if _, err := b.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	head := b.Head()
	check := func() {
		t.Helper()
		if b.Head() != head || head.Seq != 3 || head.Term != 3 {
			t.Errorf("head %v, want %v", b.Head(), head)
		}
		if m, ok := b.LastMinute(id(1)); !ok || m != 8 {
			t.Errorf("last minute %d, %v, want 8: neither an older minute nor a revision moves it", m, ok)
		}
		if m, ok := b.LastMinute(id(2)); !ok || m != -5 {
			t.Errorf("last minute before the epoch %d, %v", m, ok)
		}
		for asOf, want := range map[uint64][]sla.Objective{0: {changed, other}, 3: {changed, other}, 2: {old, other}, 1: {old, other}} {
			if got, err := b.Objectives(asOf); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("objectives as of %d: %v, %v", asOf, got, err)
			}
		}
		got, err := b.Sources(id(1))
		if err != nil || len(got) != 2 || !(got[0] == removed && got[1] == second || got[0] == second && got[1] == removed) {
			t.Errorf("sources %v, %v", got, err)
		}
	}
	check()
	b = reopen(t, b, dir)
	check()
	verifyChain(t, b)
}

func TestR25SecondBookingOfTheSameMinuteChangesNothing(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	f := figures(1)
	f.Gaps = []sla.Gap{{From: 1, To: 2, Total: 3}}
	p := book(t, b, 1, first(1, 10, f), first(2, 10, figures(2)))
	book(t, b, 2, revision(1, 10, sla.Figures{Counts: sla.Counts{Total: 1}}))
	before, head := dump(t, b), b.Head()
	b = reopen(t, b, dir)
	got := book(t, b, 3, first(2, 10, figures(2)), first(1, 10, f))
	if got != head || p.Seq != 1 || dump(t, b) != before {
		t.Errorf("the second booking made batch %v:\n%s", got, dump(t, b))
	}
	// What is new beside it is booked.
	book(t, b, 4, first(1, 10, f), first(1, 11, figures(3)))
	if n := verifyChain(t, b); n != 3 {
		t.Errorf("%d batches, want 3", n)
	}
}

// The writer dies, or its disk is slow, after the sync and before the answer:
// it sends the whole batch again.
func TestR25BatchSentAgainAfterALostAnswerIsNotDoubled(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	book(t, b, 1, first(1, 9, figures(9)), first(1, 10, figures(1)))
	again := Batch{
		Term: 1, At: 2,
		Objectives: []sla.Objective{{ID: id(1)}},
		Sources:    []Source{{Objective: id(1), Key: "a"}},
		Entries: []Entry{
			first(1, 9, figures(9)), // of the first batch
			first(1, 11, figures(2)),
			revision(1, 10, sla.Figures{Counts: sla.Counts{Total: 1}}),
		},
	}
	want, err := b.Append(again)
	if err != nil {
		t.Fatal(err)
	}
	before := dump(t, b)
	for range 2 {
		if p, err := b.Append(again); err != nil || p != want {
			t.Errorf("sent again: %v, %v, want %v", p, err, want)
		}
		b = reopen(t, b, dir)
	}
	if dump(t, b) != before {
		t.Errorf("sent again it changed the book:\n%s\nfrom\n%s", dump(t, b), before)
	}
	// The same correction of another time is another correction.
	again.At = 3
	if p, err := b.Append(again); err != nil || p.Seq != 3 {
		t.Errorf("%v, %v", p, err)
	}
	if f, _, err := b.Minute(id(1), 10); err != nil || f.Total != figures(1).Total+2 {
		t.Errorf("total %d, %v", f.Total, err)
	}
	verifyChain(t, b)
}

func TestR25ConflictingBookingIsRefusedWhole(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	f := figures(1)
	f.Gaps = []sla.Gap{{From: 5, To: 10, Total: 3}}
	book(t, b, 1, first(1, 10, f))
	before, head := dump(t, b), b.Head()
	changes := map[string]func(*sla.Figures){
		"good low":  func(f *sla.Figures) { f.GoodLow++ },
		"good high": func(f *sla.Figures) { f.GoodHigh-- },
		"total":     func(f *sla.Figures) { f.Total = 0 },
		"expected":  func(f *sla.Figures) { f.Expected++ },
		"counted":   func(f *sla.Figures) { f.Counted++ },
		"timed":     func(f *sla.Figures) { f.Timed++ },
		"interval":  func(f *sla.Figures) { f.IntervalMillis = 0 },
		"flags":     func(f *sla.Figures) { f.Flags = sla.FlagSampled },
		"gaps":      func(f *sla.Figures) { f.Gaps = nil },
	}
	for name, change := range changes {
		second := f
		change(&second)
		p, err := b.Append(Batch{Term: 1, At: 2, Objectives: []sla.Objective{{ID: id(1)}}, Sources: []Source{{Objective: id(1), Key: "a"}},
			Entries: []Entry{first(1, 9, figures(1)), first(1, 10, second), first(1, 11, figures(1)), revision(1, 10, figures(1))}})
		var c *Conflict
		if !errors.As(err, &c) || p != head {
			t.Errorf("%s: %v, %v", name, p, err)
			continue
		}
		if c.Objective != id(1) || c.Minute != 10 || !reflect.DeepEqual(c.Booked, f) || !reflect.DeepEqual(c.Second, second) {
			t.Errorf("%s: %+v", name, c)
		}
		if !strings.Contains(err.Error(), "1970-01-01T00:10Z") || !strings.Contains(err.Error(), "send a revision, or find the second writer") {
			t.Errorf("%s: the message does not say where and what to do: %v", name, err)
		}
		if dump(t, b) != before || b.Head() != head {
			t.Errorf("%s: the refused batch changed the book", name)
		}
		if m, _ := b.LastMinute(id(1)); m != 10 {
			t.Errorf("%s: last minute %d", name, m)
		}
	}
	b = reopen(t, b, dir)
	if dump(t, b) != before {
		t.Error("a refused batch is in the book after a restart")
	}
}

func TestBatchThatNamesAMinuteTwiceIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	before := dump(t, b)
	for name, e := range map[string]Entry{"first": first(1, 5, figures(1)), "revision": revision(1, 5, figures(1))} {
		if _, err := b.Append(Batch{Term: 1, Entries: []Entry{e, first(2, 5, figures(1)), e}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if dump(t, b) != before {
		t.Error("the book changed")
	}
}

func TestR25WriterOfAnOldTermIsRefused(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if _, err := b.Append(Batch{Term: 7, Entries: []Entry{first(1, 1, figures(1))}}); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, dir)
	before := dump(t, b)
	_, err := b.Append(Batch{Term: 6, Entries: []Entry{first(1, 2, figures(1))}})
	if err == nil || !strings.Contains(err.Error(), "term 6 is over") {
		t.Errorf("got %v", err)
	}
	if dump(t, b) != before {
		t.Error("the book changed")
	}
}

func TestEmptyBatchBooksNothing(t *testing.T) {
	b := open(t, t.TempDir())
	before := dump(t, b)
	if p, err := b.Append(Batch{Term: 9, At: 9}); err != nil || p != (Position{}) || dump(t, b) != before {
		t.Errorf("%v, %v", p, err)
	}
}

// Readers see a batch whole or not at all, and never break a writer.
func TestReadersBesideAWriterSeeWholeMinutes(t *testing.T) {
	b := open(t, t.TempDir())
	const minutes = 200
	var group sync.WaitGroup
	for o := range 3 {
		group.Go(func() {
			for n := 0; n < minutes; {
				n = 0
				err := b.Scan(id(o), 0, minutes, 0, func(m sla.Minute, f sla.Figures) error {
					if int(m) != n || f.Total != figures(n).Total {
						t.Errorf("minute %d of objective %d: %+v", m, o, f)
					}
					n++
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				if m, ok := b.LastMinute(id(o)); n > 0 && b.Head().Seq == 0 || ok && m < 0 {
					t.Errorf("head %v, last %d", b.Head(), m)
				}
			}
		})
	}
	for m := range minutes {
		book(t, b, int64(m), first(0, sla.Minute(m), figures(m)), first(1, sla.Minute(m), figures(m)), first(2, sla.Minute(m), figures(m)))
	}
	group.Wait()
	verifyChain(t, b)
}

// Two writers in one process: the chain has all batches, one behind the other.
func TestWritersAtTheSameTimeMakeOneChain(t *testing.T) {
	b := open(t, t.TempDir())
	const each = 50
	var group sync.WaitGroup
	for o := range 4 {
		group.Go(func() {
			for m := range each {
				if _, err := b.Append(Batch{Term: 1, At: int64(m), Entries: []Entry{first(o, sla.Minute(m), figures(m))}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := verifyChain(t, b); n != 4*each {
		t.Errorf("%d batches, want %d", n, 4*each)
	}
}

// A key holds 32 bits of a day: what lies farther would be another day's.
func TestMinuteThatNoKeyHoldsIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	before := dump(t, b)
	for _, m := range []sla.Minute{1_700_000_000_000_000, -1_700_000_000_000_000, math.MaxInt64, math.MinInt64} {
		if _, err := b.Append(Batch{Term: 1, Entries: []Entry{first(1, m, figures(1))}}); err == nil || !strings.Contains(err.Error(), "wrong unit") {
			t.Errorf("minute %d: %v", m, err)
		}
	}
	if dump(t, b) != before {
		t.Error("the book changed")
	}
}
