package sla

import (
	"fmt"
	"sync"
	"time"
)

// Bounds returns the period that holds minute m, half-open: for a rolling
// window the minutes up to and including m, for a calendar window the day,
// week, month, quarter or year of its zone; of units only months may come in
// numbers above 1, counted from January. Days of 23 and 25 hours, and days
// that a zone leaves out, are as long as they were. A day begins when its date
// is first reached: where a clock is set back over midnight, it goes on.
func (w Window) Bounds(m Minute) (start, end Minute, err error) {
	if w.Rolling > 0 {
		return m - Minute(w.Rolling/time.Minute) + 1, m + 1, nil
	}
	zone, err := location(w.Timezone)
	if err != nil {
		return 0, 0, fmt.Errorf("time zone of a calendar window: %w", err)
	}
	n := max(w.Count, 1)
	if w.Anchor != "" {
		return w.anchored(m, n, zone)
	}
	switch {
	case w.Calendar == Month && 12%n != 0:
		return 0, 0, fmt.Errorf("a window of %d calendar months: their count must divide the year's 12", n)
	case w.Calendar != Month && n != 1:
		return 0, 0, fmt.Errorf("a window of %d calendar %ss: use count 1", n, w.Calendar)
	}
	t := m.Time().In(zone)
	year, month, day := t.Date()
	// A clock that was set back over midnight shows yesterday's date again.
	if next := startOfDay(year, month, day+1, zone); !t.Before(next) {
		year, month, day = next.In(zone).Date()
	}
	var from, to time.Time
	date := func(y int, mo time.Month, d int) time.Time { return startOfDay(y, mo, d, zone) }
	switch w.Calendar {
	case Day:
		from, to = date(year, month, day), date(year, month, day+1)
	case Week:
		monday := day - (int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Weekday())+6)%7
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

// NominalPeriod stands for a calendar window where no time is given: the 30 days
// of the SRE workbook's thresholds.
const NominalPeriod = 30 * 24 * time.Hour

// Nominal returns the length of the window where no time is given: that of a
// rolling one, and else NominalPeriod.
func (w Window) Nominal() time.Duration {
	if w.Rolling > 0 {
		return w.Rolling
	}
	return NominalPeriod
}

// AnchorLayout is how an anchor is written.
const AnchorLayout = "2006-01-02 15:04:05"

// anchored is Bounds of windows that are counted from an anchor: the n-th begins
// n units behind it by the clock of the zone. A day that a month lacks is that
// month's last one; the next window is counted from the anchor again, so that
// none of the days is lost.
func (w Window) anchored(m Minute, n int, zone *time.Location) (start, end Minute, err error) {
	anchor, err := time.Parse(AnchorLayout, w.Anchor)
	if err != nil || anchor.Second() != 0 {
		return 0, 0, fmt.Errorf("windows from %q: want a time of whole minutes such as 2026-01-21 12:30:00", w.Anchor)
	}
	var months, days int
	switch w.Calendar {
	case Day:
		days = n
	case Week:
		days = 7 * n
	case Month:
		months = n
	case Quarter:
		months = 3 * n
	case Year:
		months = 12 * n
	default:
		return 0, 0, fmt.Errorf("a window needs a rolling duration or a calendar unit, got %q", w.Calendar)
	}
	from := func(k int) Minute {
		wall := anchor.AddDate(0, 0, k*days)
		if months > 0 {
			first := time.Date(anchor.Year(), anchor.Month()+time.Month(k*months), 1, anchor.Hour(), anchor.Minute(), 0, 0, time.UTC)
			last := first.AddDate(0, 1, -1).Day()
			wall = first.AddDate(0, 0, min(anchor.Day(), last)-1)
		}
		return MinuteOf(firstShown(wall, zone))
	}
	shown := m.Time().In(zone)
	k := 0
	if months > 0 {
		k = ((shown.Year()-anchor.Year())*12 + int(shown.Month()-anchor.Month())) / months
	} else {
		k = int(shown.Sub(anchor).Hours()/24) / days
	}
	for from(k) > m {
		k--
	}
	for from(k+1) <= m {
		k++
	}
	return from(k), from(k + 1), nil
}

// startOfDay returns the first instant at which a zone's clock shows a date, or
// a later one: where the clock jumps over midnight, or a day is left out, that
// is the end of the jump.
func startOfDay(year int, month time.Month, day int, zone *time.Location) time.Time {
	return firstShown(time.Date(year, month, day, 0, 0, 0, 0, time.UTC), zone)
}

// firstShown returns the first instant at which a zone's clock shows a date and
// time, which are given as if they were of UTC, or a later one.
func firstShown(wall time.Time, zone *time.Location) time.Time {
	// No offset is above 15 h, so that this is before the day in any zone.
	at := wall.Add(-15 * time.Hour).In(zone)
	for {
		_, offset := at.Zone()
		first := wall.Add(-time.Duration(offset) * time.Second)
		_, change := at.ZoneBounds()
		if !change.IsZero() && !change.After(at) {
			// In years beyond a zone's list of changes, package time takes the
			// last day of a leap year for a change that never comes.
			change = at.Add(24 * time.Hour)
		}
		if change.IsZero() || first.Before(change) {
			if first.Before(at) { // the jump to at went over it
				return at
			}
			return first
		}
		at = change
	}
}

// locations holds the zones that were asked for: time.LoadLocation reads and
// parses its data on each call.
var locations sync.Map // name → *time.Location

func location(name string) (*time.Location, error) {
	if zone, ok := locations.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, err
	}
	locations.Store(name, zone)
	return zone, nil
}
