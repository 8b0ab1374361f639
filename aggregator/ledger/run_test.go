package ledger

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"nines/pkg/sla"
)

// drawPacked draws a minute as it may be booked, or as it becomes by revisions.
func drawPacked(t *rapid.T, m sla.Minute) sla.Figures {
	v := rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Range(-1<<40, 1<<40), rapid.Int64())
	f := sla.Figures{Counts: sla.Counts{
		GoodLow: v.Draw(t, "good low"), GoodHigh: v.Draw(t, "good high"), Total: v.Draw(t, "total"),
		Expected: v.Draw(t, "expected"), Counted: v.Draw(t, "counted"), Timed: v.Draw(t, "timed"),
	}}
	if rapid.Bool().Draw(t, "usual") {
		f.GoodLow = rapid.Int64Range(0, 5000).Draw(t, "events") * sla.Micro
		f.GoodHigh, f.Total = f.GoodLow, f.GoodLow
		f.Expected, f.Counted, f.Timed = 60_000, 60_000, 60_000
	}
	f.IntervalMillis = rapid.SampledFrom([]int64{0, 15_000, 30_000}).Draw(t, "interval")
	f.Flags = sla.Flags(rapid.Uint32Range(0, 31).Draw(t, "flags"))
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "gaps") {
		f.Gaps = append(f.Gaps, sla.Gap{
			From: m - sla.Minute(rapid.Int64Range(0, 5000).Draw(t, "from")), To: m,
			GoodLow: v.Draw(t, "gap low"), GoodHigh: v.Draw(t, "gap high"), Total: v.Draw(t, "gap total"),
		})
	}
	return f
}

func TestR27RunIsReadAsItWasPacked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Run{First: sla.Minute(rapid.Int64Range(-1<<30, 1<<30).Draw(t, "first"))}
		var want []*sla.Figures
		for i := range rapid.IntRange(0, 30).Draw(t, "minutes") {
			if rapid.IntRange(0, 4).Draw(t, "booked") == 0 {
				r.Skip()
				want = append(want, nil)
				continue
			}
			f := drawPacked(t, r.First+sla.Minute(i))
			r.Add(f)
			want = append(want, &f)
		}
		stored, err := readRun(r.First, r.Len, r.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range []*Run{r, stored} {
			rd := run.Reader()
			for i, w := range want {
				if rd.Minute() != r.First+sla.Minute(i) {
					t.Fatalf("minute %d is read as %d", i, rd.Minute()-r.First)
				}
				f, booked, ok := rd.Next()
				if !ok || booked != (w != nil) || booked && !reflect.DeepEqual(*f, *w) {
					t.Fatalf("minute %d is read as %+v (booked %t, ok %t), want %+v", i, f, booked, ok, w)
				}
			}
			if _, _, ok := rd.Next(); ok || rd.Minute() != r.End() {
				t.Fatal("there is a minute behind the end")
			}
		}
		// A run that was read goes on as the one that was written.
		f := drawPacked(t, r.End())
		r.Add(f)
		stored.Add(f)
		if !reflect.DeepEqual(r.Data, stored.Data) {
			t.Fatalf("goes on as %x, want %x", stored.Data, r.Data)
		}
	})
}

func FuzzReadRun(f *testing.F) {
	r := &Run{First: 29_000_000}
	r.Add(sla.Figures{Counts: sla.Counts{GoodLow: 1, GoodHigh: 2, Total: 3, Expected: 60_000, Counted: 5, Timed: 4}, IntervalMillis: 15_000, Flags: 3})
	r.Skip()
	r.Add(sla.Figures{Gaps: []sla.Gap{{From: 28_999_990, To: 29_000_002, GoodLow: 5, GoodHigh: 6, Total: 7}}})
	f.Add(3, r.Data)
	f.Add(0, []byte{})
	f.Add(1, []byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, n int, data []byte) {
		run, err := readRun(29_000_000, n%5000, data)
		if err != nil {
			return
		}
		again := &Run{First: run.First}
		for rd := run.Reader(); ; {
			f, booked, ok := rd.Next()
			if !ok {
				break
			}
			if booked {
				again.Add(*f)
			} else {
				again.Skip()
			}
		}
		if again.Len != run.Len || again.last.Counts != run.last.Counts {
			t.Fatalf("packed again it has %d minutes, want %d", again.Len, run.Len)
		}
	})
}

func TestUsualMinuteTakesThreeBytes(t *testing.T) {
	r := &Run{}
	for i := range 1440 {
		r.Add(sla.Figures{Counts: sla.Counts{
			GoodLow: int64(600+i%50) * sla.Micro, GoodHigh: int64(600+i%50) * sla.Micro, Total: int64(600+i%50) * sla.Micro,
			Expected: 600_000, Counted: 600_000, Timed: 600_000,
		}, IntervalMillis: 15_000})
	}
	if len(r.Data) > 1440*3+20 {
		t.Errorf("a day takes %d bytes, want at most 3 a minute", len(r.Data))
	}
}
