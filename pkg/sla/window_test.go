package sla

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the host may have no zones

	"pgregory.net/rapid"
)

func minute(t testing.TB, text string) Minute {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return MinuteOf(at)
}

func TestRollingWindowEndsWithItsMinute(t *testing.T) {
	m := minute(t, "2026-03-01T12:34:00Z")
	for _, length := range []time.Duration{time.Hour, day, 28 * day, 366 * day} {
		start, end, err := (Window{Rolling: length}).Bounds(m)
		if err != nil || end != m+1 || end-start != Minute(length/time.Minute) {
			t.Errorf("%s up to %s is [%s, %s), %v", Duration(length), m.Time(), start.Time(), end.Time(), err)
		}
	}
}

func TestCalendarWindowIsAsLongAsItWas(t *testing.T) {
	for _, c := range []struct{ name, unit, zone, in, start, end string }{
		{"February", Month, "UTC", "2026-02-15T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		{"February of a leap year", Month, "UTC", "2028-02-29T23:59:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"a month of 30 days", Month, "UTC", "2026-04-30T23:59:00Z", "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"},
		{"the first minute of a month is in it", Month, "UTC", "2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"},
		{"December ends with the year", Month, "UTC", "2026-12-31T23:59:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"March in Berlin lost an hour", Month, "Europe/Berlin", "2026-03-15T00:00:00Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"},
		{"October in Berlin won an hour", Month, "Europe/Berlin", "2026-10-15T00:00:00Z", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"},
		{"the month of the zone, not of UTC", Month, "Asia/Tokyo", "2026-03-31T15:00:00Z", "2026-03-31T15:00:00Z", "2026-04-30T15:00:00Z"},
		{"a day of 23 hours", Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"a day of 25 hours", Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{"a day of 24.5 hours", Day, "Australia/Lord_Howe", "2026-04-05T00:00:00Z", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"},
		{"a day that begins at one: the clock jumped over midnight", Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"},
		{"a day whose midnight came twice", Day, "America/Havana", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{"the day after a day that the zone left out", Day, "Pacific/Apia", "2011-12-30T12:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"a month with a day left out", Month, "Pacific/Apia", "2011-12-15T00:00:00Z", "2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"weeks begin on Monday", Week, "UTC", "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"}, // a Sunday
		{"a Monday is in the week that it begins", Week, "UTC", "2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
		{"a week over the year's end", Week, "UTC", "2027-01-01T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"},
		{"a week with a 23-hour day", Week, "Europe/Berlin", "2026-03-25T00:00:00Z", "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"the first quarter", Quarter, "UTC", "2026-03-31T23:59:00Z", "2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z"},
		{"the last quarter", Quarter, "UTC", "2026-10-01T00:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"a year", Year, "America/New_York", "2026-07-01T00:00:00Z", "2026-01-01T05:00:00Z", "2027-01-01T05:00:00Z"},
	} {
		w := Window{Calendar: c.unit, Count: 1, Timezone: c.zone}
		start, end, err := w.Bounds(minute(t, c.in))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if start != minute(t, c.start) || end != minute(t, c.end) {
			t.Errorf("%s: [%s, %s), want [%s, %s)", c.name, start.Time(), end.Time(), c.start, c.end)
		}
	}
}

// The zones with the oddest days since 2012: clocks that jump at midnight, half
// hours, offsets of three quarters, days off the common count.
var zones = []string{
	"UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Sao_Paulo", "America/Asuncion", "America/Havana", "America/Santiago",
	"America/Nuuk", "America/Scoresbysund", "America/St_Johns", "Atlantic/Azores", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut", "Asia/Amman",
	"Asia/Tehran", "Asia/Gaza", "Asia/Kathmandu", "Asia/Tokyo", "Antarctica/Troll", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Pacific/Kiritimati",
}

// name says which period of a unit an instant belongs to, by its date alone.
func name(unit string, at time.Time) string {
	switch unit {
	case Week:
		y, w := at.ISOWeek()
		return fmt.Sprint(y, " week ", w)
	case Month:
		return at.Format("2006-01")
	case Quarter:
		return fmt.Sprint(at.Year(), " quarter ", (at.Month()-1)/3)
	case Year:
		return at.Format("2006")
	}
	return at.Format("2006-01-02")
}

func TestCalendarWindowHoldsExactlyTheMinutesOfItsDates(t *testing.T) {
	from, to := int64(minute(t, "2012-01-02T00:00:00Z")), int64(minute(t, "2037-01-01T00:00:00Z"))
	rapid.Check(t, func(t *rapid.T) {
		w := Window{
			Calendar: rapid.SampledFrom([]string{Day, Week, Month, Quarter, Year}).Draw(t, "unit"),
			Timezone: rapid.SampledFrom(zones).Draw(t, "zone"),
		}
		zone, err := time.LoadLocation(w.Timezone)
		if err != nil {
			t.Fatal(err)
		}
		m := Minute(rapid.Int64Range(from, to).Draw(t, "minute"))
		start, end, err := w.Bounds(m)
		if err != nil {
			t.Fatal(err)
		}
		if m < start || m >= end {
			t.Fatalf("%s is not in its own %s [%s, %s)", m.Time(), w, start.Time(), end.Time())
		}
		want := name(w.Calendar, m.Time().In(zone))
		// By brute force: every minute of short windows, else every hour and
		// every minute near the edges.
		for k := start - 180; k < end+180; k++ {
			if k > start+1500 && k < end-1500 {
				k += 59
			}
			in := k >= start && k < end
			if got := name(w.Calendar, k.Time().In(zone)); (got == want) != in {
				t.Fatalf("%s of %s is in [%s, %s): %t, but it is of %s, and the window is %s",
					k.Time().In(zone), w, start.Time().In(zone), end.Time().In(zone), in, got, want)
			}
		}
		// The next one begins where this one ends.
		if next, _, err := w.Bounds(end); err != nil || next != end {
			t.Fatalf("the %s after the one that ends at %s begins at %s, %v", w, end.Time(), next.Time(), err)
		}
	})
}

func TestEveryDayOfEveryZoneFollowsTheOneBefore(t *testing.T) {
	for _, name := range zones {
		w := Window{Calendar: Day, Timezone: name}
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		m := minute(t, "2012-01-02T12:00:00Z")
		for m < minute(t, "2031-01-01T00:00:00Z") {
			start, end, err := w.Bounds(m)
			if err != nil {
				t.Fatal(err)
			}
			length := time.Duration(end-start) * time.Minute
			if length < 22*time.Hour || length > 26*time.Hour {
				t.Fatalf("the day of %s in %s has %s", m.Time().In(zone), name, length)
			}
			if m < start || m >= end {
				t.Fatalf("%s in %s is not in its own day [%s, %s)", m.Time().In(zone), name, start.Time(), end.Time())
			}
			if got, before := start.Time().In(zone).Day(), (start - 1).Time().In(zone).Day(); got == before || (end-1).Time().In(zone).Day() != got {
				t.Fatalf("the day of %s in %s is [%s, %s)", m.Time().In(zone), name, start.Time().In(zone), end.Time().In(zone))
			}
			m = end
		}
	}
}

func TestSeveralMonthsAreCountedFromJanuary(t *testing.T) {
	for _, c := range []struct {
		count          int
		in, start, end string
	}{
		{2, "2026-04-30T00:00:00Z", "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z"},
		{6, "2026-07-01T00:00:00Z", "2026-07-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{12, "2026-07-01T00:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
	} {
		start, end, err := (Window{Calendar: Month, Count: c.count, Timezone: "UTC"}).Bounds(minute(t, c.in))
		if err != nil || start != minute(t, c.start) || end != minute(t, c.end) {
			t.Errorf("%d months around %s are [%s, %s), %v; want [%s, %s)", c.count, c.in, start.Time(), end.Time(), err, c.start, c.end)
		}
	}
}

func TestWindowThatCannotBeCountedIsAnError(t *testing.T) {
	for _, c := range []struct {
		w    Window
		want string
	}{
		{Window{}, "rolling duration or a calendar unit"},
		{Window{Calendar: "fortnight", Timezone: "UTC"}, `"fortnight"`},
		{Window{Calendar: Month, Timezone: "Europe/Atlantis"}, "Europe/Atlantis"},
		// A window of five months does not end with the year, and two days or
		// weeks have no first day: String would name what Bounds did not count.
		{Window{Calendar: Month, Count: 5, Timezone: "UTC"}, "divide"},
		{Window{Calendar: Month, Count: 13, Timezone: "UTC"}, "divide"},
		{Window{Calendar: Day, Count: 2, Timezone: "UTC"}, "count 1"},
		{Window{Calendar: Week, Count: 2, Timezone: "UTC"}, "count 1"},
		{Window{Calendar: Quarter, Count: 2, Timezone: "UTC"}, "count 1"},
		{Window{Calendar: Year, Count: 3, Timezone: "UTC"}, "count 1"},
	} {
		start, end, err := c.w.Bounds(0)
		if err == nil {
			t.Errorf("%+v is [%s, %s)", c.w, start.Time(), end.Time())
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: the message lacks %q: %v", c.w, c.want, err)
		}
	}
}
