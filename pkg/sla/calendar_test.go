package sla

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var units = []string{Day, Week, Month, Quarter, Year}

// civilDays counts the days of a date since the epoch, whatever zone it is of.
func civilDays(at time.Time) int64 {
	y, mo, d := at.Date()
	return time.Date(y, mo, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
}

// periodOf says which period of a unit a date belongs to, as a number that
// rises with the date.
func periodOf(unit string, days int64) int64 {
	at := time.Unix(days*86400, 0).UTC()
	switch unit {
	case Week:
		return (days + 3) / 7 // the epoch was a Thursday
	case Month:
		return int64(at.Year()*12) + int64(at.Month()) - 1
	case Quarter:
		return (int64(at.Year()*12) + int64(at.Month()) - 1) / 3
	case Year:
		return int64(at.Year())
	}
	return days
}

// Every minute of the oddest years, walked one by one with nothing but the date
// that the zone's clock shows. Where a clock is set back over midnight, the new
// day has begun and goes on.
func TestR29CalendarPeriodsAreThoseOfAWalkMinuteByMinute(t *testing.T) {
	for _, c := range []struct {
		zone string
		year int
		odd  string
	}{
		{"UTC", 2024, "leap year"}, {"UTC", 2027, ""}, {"UTC", 2028, "leap year"}, {"UTC", 2100, "no leap year"},
		{"Europe/Berlin", 2026, "both changes"}, {"Europe/Berlin", 2028, "leap year"},
		{"Europe/Berlin", 2040, "by rule, as no change is listed any more"}, {"Pacific/Chatham", 2044, "by rule"}, {"America/Santiago", 2044, "by rule"},
		{"America/New_York", 2026, "both changes"},
		{"Africa/Casablanca", 2026, "Ramadan"}, {"Africa/Casablanca", 2030, "Ramadan twice"},
		{"Asia/Kathmandu", 2026, "+5:45"}, {"Asia/Kathmandu", 1986, "from +5:30"},
		{"Antarctica/Troll", 2026, "two hours"},
		{"America/Caracas", 2016, "half an hour"}, {"America/Caracas", 2007, "half an hour back"},
		{"Pacific/Apia", 2011, "a day left out"}, {"Pacific/Kwajalein", 1993, "a day left out"}, {"Pacific/Kiritimati", 1994, "the last day of a year left out"},
		{"Australia/Lord_Howe", 2026, "half an hour"},
		{"Asia/Tehran", 2022, "midnight jumps"}, {"Africa/Cairo", 2024, "midnight jumps"}, {"America/Sao_Paulo", 2018, "midnight jumps"},
		{"Asia/Gaza", 2026, "Ramadan"}, {"Asia/Gaza", 2012, "one minute past midnight"}, {"Asia/Beirut", 2023, "midnight jumps"},
		{"America/Havana", 2026, "midnight twice"}, {"America/Asuncion", 2024, "midnight jumps for the last time"},
		{"America/St_Johns", 2010, "back over midnight"}, {"Antarctica/Casey", 2010, "three hours back over midnight"}, {"Antarctica/Casey", 2020, "three hours"},
		{"Asia/Pyongyang", 2018, "half an hour over midnight"}, {"Pacific/Chatham", 2026, "+12:45"}, {"America/Nuuk", 2023, ""}, {"America/Scoresbysund", 2024, ""},
	} {
		t.Run(fmt.Sprintf("%s %d", c.zone, c.year), func(t *testing.T) {
			zone, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			from := MinuteOf(time.Date(c.year-1, 12, 20, 0, 0, 0, 0, time.UTC))
			to := MinuteOf(time.Date(c.year+1, 1, 12, 0, 0, 0, 0, time.UTC))
			start, current := map[string]Minute{}, map[string]int64{}
			latest := int64(-1 << 60)
			for m := from; m < to; m++ {
				d := civilDays(m.Time().In(zone))
				if d <= latest {
					continue
				}
				latest = d
				for _, unit := range units {
					p := periodOf(unit, d)
					if m == from {
						current[unit] = p
					}
					if p == current[unit] {
						continue
					}
					if s, complete := start[unit]; complete {
						checkPeriod(t, Window{Calendar: unit, Timezone: c.zone}, s, m)
					}
					current[unit], start[unit] = p, m
				}
			}
			if len(start) != len(units) {
				t.Errorf("the walk saw the edges of %v only", start)
			}
		})
	}
}

// checkPeriod looks at the edges of a period and at minutes between them.
func checkPeriod(t *testing.T, w Window, start, end Minute) {
	t.Helper()
	step := max((end-start)/50, 1)
	check := func(m Minute) {
		if s, e, err := w.Bounds(m); err != nil || s != start || e != end {
			t.Fatalf("%s is in the %s [%s, %s), %v; want [%s, %s)", m.Time(), w, s.Time(), e.Time(), err, start.Time(), end.Time())
		}
	}
	for m := start; m < end; m += step {
		check(m)
	}
	for k := range Minute(min(200, end-start)) { // clocks change near midnight
		check(start + k)
		check(end - 1 - k)
	}
}

// Years 1972 to 2110 of every zone of both lists: no hole, no overlap, and
// each minute in the period that Bounds gives.
func TestR29CalendarPeriodsTileTime(t *testing.T) {
	from, to := int64(minute(t, "1972-02-01T00:00:00Z")), int64(minute(t, "2110-01-01T00:00:00Z"))
	all := append([]string{"Antarctica/Casey", "Asia/Pyongyang", "Pacific/Kwajalein", "America/Caracas", "Asia/Manila", "America/Anchorage"}, zones...)
	rapid.Check(t, func(t *rapid.T) {
		w := Window{Calendar: rapid.SampledFrom(units).Draw(t, "unit"), Timezone: rapid.SampledFrom(all).Draw(t, "zone")}
		if w.Calendar == Month {
			w.Count = rapid.SampledFrom([]int{0, 1, 2, 3, 4, 6, 12}).Draw(t, "count")
		}
		m := Minute(rapid.Int64Range(from, to).Draw(t, "minute"))
		if near := rapid.Bool().Draw(t, "near a day's edge"); near {
			s, _, err := (Window{Calendar: Day, Timezone: w.Timezone}).Bounds(m)
			if err != nil {
				t.Fatal(err)
			}
			m = s + Minute(rapid.IntRange(-180, 180).Draw(t, "minutes from the edge"))
		}
		start, end, err := w.Bounds(m)
		if err != nil {
			t.Fatal(err)
		}
		if m < start || m >= end {
			t.Fatalf("%s is not in its own %s [%s, %s)", m.Time(), w, start.Time(), end.Time())
		}
		for _, c := range []struct{ in, start, end Minute }{{start, start, end}, {end - 1, start, end}} {
			if s, e, err := w.Bounds(c.in); err != nil || s != start || e != end {
				t.Fatalf("%s is in [%s, %s), %s in [%s, %s), %v", m.Time(), start.Time(), end.Time(), c.in.Time(), s.Time(), e.Time(), err)
			}
		}
		if s, _, err := w.Bounds(end); err != nil || s != end {
			t.Fatalf("the %s behind %s begins at %s, %v", w, end.Time(), s.Time(), err)
		}
		if _, e, err := w.Bounds(start - 1); err != nil || e != start {
			t.Fatalf("the %s before %s ends at %s, %v", w, start.Time(), e.Time(), err)
		}
	})
}

// Each objective asks once a minute.
func BenchmarkBoundsOfACalendarMonth(b *testing.B) {
	w := Window{Calendar: Month, Timezone: "Europe/Berlin"}
	m := minute(b, "2026-03-15T00:00:00Z")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := w.Bounds(m); err != nil {
			b.Fatal(err)
		}
	}
}
