package evaluate

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// Rolling periods of up to a year, and those of a calendar across odd edges: what
// leaves them comes out of sealed days, and each figure is the sum of its minutes.
func TestR29_PeriodsUpToAYearEqualTheSumOfTheirMinutes(t *testing.T) {
	rolling := func(days int) sla.Window { return sla.Window{Rolling: time.Duration(days) * 24 * time.Hour} }
	for _, c := range []struct {
		name   string
		window sla.Window
		begin  string // the history ends here, and the clock goes on for two days
		days   int    // of history
	}{
		{"7 days", rolling(7), "2026-02-27T23:10:00Z", 20},
		{"30 days", rolling(30), "2026-10-24T20:00:00Z", 40},
		{"a year", rolling(365), "2028-02-28T12:00:00Z", 370},
		{"day, Kathmandu", sla.Window{Calendar: sla.Day, Timezone: "Asia/Kathmandu"}, "2026-06-01T10:00:00Z", 3},
		{"week, Berlin, clocks go back", sla.Window{Calendar: sla.Week, Timezone: "Europe/Berlin"}, "2026-10-24T20:00:00Z", 10},
		{"month, Casablanca", sla.Window{Calendar: sla.Month, Timezone: "Africa/Casablanca"}, "2026-02-28T01:00:00Z", 35},
		{"month, Caracas, half an hour", sla.Window{Calendar: sla.Month, Timezone: "America/Caracas"}, "2016-04-30T12:00:00Z", 35},
		{"day, Apia, a day left out", sla.Window{Calendar: sla.Day, Timezone: "Pacific/Apia"}, "2011-12-29T20:00:00Z", 3},
		{"quarter, Troll", sla.Window{Calendar: sla.Quarter, Timezone: "Antarctica/Troll"}, "2026-03-30T20:00:00Z", 95},
		{"leap year", sla.Window{Calendar: sla.Year, Timezone: "UTC"}, "2028-12-31T00:00:00Z", 367},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin, err := time.Parse(time.RFC3339, c.begin)
			if err != nil {
				t.Fatal(err)
			}
			o := webObjective("web", false)
			o.Window = c.window
			r := &rig{t: t, dir: t.TempDir(), now: begin, objects: []sla.Objective{o}}
			book, err := ledger.Open(ledger.Config{Dir: filepath.Join(r.dir, "ledger")}, silent)
			if err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(uint64(c.days), 29))
			end := sla.MinuteOf(begin)
			h := History{Objective: o.ID, Reason: "a test"}
			for m := end - sla.Minute(c.days)*1440; m < end; m++ {
				total := random.Int64N(1000) * sla.Micro
				good := total - total/1000*random.Int64N(20)
				f := sla.Figures{Counts: sla.Counts{GoodLow: good, GoodHigh: good, Total: total, Expected: 60_000, Counted: 60_000 - random.Int64N(2)*15_000}}
				f.Timed = f.Counted
				if random.IntN(2000) == 0 {
					f.Gaps = []sla.Gap{{From: m - 30, To: m, GoodLow: 5 * sla.Micro, GoodHigh: 5 * sla.Micro, Total: 7 * sla.Micro}}
				}
				if h.Minutes = append(h.Minutes, HistoryMinute{m, f}); len(h.Minutes) == 14_400 || m == end-1 {
					if _, err := Backfill(book, begin, o, h); err != nil {
						t.Fatal(err)
					}
					h.Minutes = h.Minutes[:0]
				}
			}
			if _, err := book.Seal(t.Context(), begin); err != nil {
				t.Fatal(err)
			}
			if err := book.Close(); err != nil {
				t.Fatal(err)
			}
			r.open()
			t.Cleanup(r.close)

			// Each two hours and a bit: at the edges of the period, and between.
			for range 24 {
				r.now = r.now.Add(121 * time.Minute)
				if err := r.ev.Tick(context.Background(), r.now); err != nil {
					t.Fatal(err)
				}
				s := r.state(o.ID)
				newest := sla.MinuteOf(r.now.Add(-10 * time.Minute))
				from, to, err := c.window.Bounds(newest)
				if err != nil || !s.PeriodStart.Equal(from.Time()) || !s.PeriodEnd.Equal(to.Time()) {
					t.Fatalf("at %v the period is from %v to %v, want %v to %v, %v", r.now, s.PeriodStart, s.PeriodEnd, from.Time(), to.Time(), err)
				}
				var want sla.Sum
				err = r.book.Scan(o.ID, from, newest+1, 0, func(_ sla.Minute, f sla.Figures) error {
					want.Add(f.Counts)
					for _, g := range f.Gaps {
						if g.From >= from {
							want.Revise(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				got := s.Period
				got.Flags = want.Flags
				if got != want {
					t.Fatalf("at %v the period from %v is %+v, its minutes are %+v", r.now, from.Time(), got, want)
				}
			}
		})
	}
}
