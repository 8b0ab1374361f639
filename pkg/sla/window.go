package sla

import (
	"fmt"
	"time"
)

// Bounds returns the period that holds minute m, half-open: for a rolling
// window the minutes up to and including m, for a calendar window the day,
// week, month, quarter or year of its zone; of units only months may come in
// numbers above 1, counted from January. Days of 23 and 25 hours, and days
// that a zone leaves out, are as long as they were.
func (w Window) Bounds(m Minute) (start, end Minute, err error) {
	if w.Rolling > 0 {
		return m - Minute(w.Rolling/time.Minute) + 1, m + 1, nil
	}
	zone, err := time.LoadLocation(w.Timezone)
	if err != nil {
		return 0, 0, fmt.Errorf("time zone of a calendar window: %w", err)
	}
	n := max(w.Count, 1)
	switch {
	case w.Calendar == Month && 12%n != 0:
		return 0, 0, fmt.Errorf("a window of %d calendar months: their count must divide the year's 12", n)
	case w.Calendar != Month && n != 1:
		return 0, 0, fmt.Errorf("a window of %d calendar %ss: use count 1", n, w.Calendar)
	}
	t := m.Time().In(zone)
	year, month, day := t.Date()
	var from, to time.Time
	date := func(y int, mo time.Month, d int) time.Time { return startOfDay(y, mo, d, zone) }
	switch w.Calendar {
	case Day:
		from, to = date(year, month, day), date(year, month, day+1)
	case Week:
		monday := day - (int(t.Weekday())+6)%7
		from, to = date(year, month, monday), date(year, month, monday+7)
	case Month:
		first := (int(month)-1)/n*n + 1
		from, to = date(year, time.Month(first), 1), date(year, time.Month(first+n), 1)
	case Quarter:
		first := (int(month)-1)/3*3 + 1
		from, to = date(year, time.Month(first), 1), date(year, time.Month(first+3), 1)
	case Year:
		from, to = date(year, 1, 1), date(year+1, 1, 1)
	default:
		return 0, 0, fmt.Errorf("a window needs a rolling duration or a calendar unit, got %q", w.Calendar)
	}
	return MinuteOf(from), MinuteOf(to), nil
}

// startOfDay returns the first instant of a calendar day in a zone. Where the
// clock jumps over midnight, that is the end of the jump.
func startOfDay(year int, month time.Month, day int, zone *time.Location) time.Time {
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	wanted := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	got := func(t time.Time) time.Time {
		y, mo, d := t.Date()
		return time.Date(y, mo, d, 0, 0, 0, 0, time.UTC)
	}
	// Inside a jump time.Date may give the hour before it, which is still the
	// day before: step to the first minute that is not.
	for range 49 * 2 {
		if !got(t).Before(wanted) {
			break
		}
		t = t.Add(30 * time.Minute)
	}
	for back := t.Add(-time.Minute); !got(back).Before(wanted) && got(back).Equal(got(t)); back = t.Add(-time.Minute) {
		t = back
	}
	return t
}
