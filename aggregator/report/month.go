package report

import (
	"fmt"
	"sort"
	"time"
	_ "time/tzdata" // zones of reports must not depend on the host having them

	"nines/pkg/sla"
)

// Month is a calendar month in a zone, from its first instant to the first
// instant of the next one, which does not belong to it.
type Month struct {
	year  int
	month time.Month
	zone  *time.Location
}

// ParseMonth reads a month such as "2026-11" and an IANA zone; no zone is UTC.
func ParseMonth(month, timezone string) (Month, error) {
	t, err := time.Parse("2006-01", month)
	if err != nil {
		return Month{}, fmt.Errorf("month %q: want a year and a month such as 2026-11", month)
	}
	if t.Year() < 1971 {
		return Month{}, fmt.Errorf("month %q: reports begin with 1971", month)
	}
	if timezone == "" {
		timezone = "UTC"
	}
	zone, err := time.LoadLocation(timezone)
	if err != nil || timezone == "Local" {
		return Month{}, fmt.Errorf("time zone %q is not known: want an IANA name such as Europe/Berlin or UTC", timezone)
	}
	return Month{t.Year(), t.Month(), zone}, nil
}

// String returns the month as "2026-11".
func (m Month) String() string { return fmt.Sprintf("%04d-%02d", m.year, int(m.month)) }

// Name returns the month in words, "November 2026".
func (m Month) Name() string { return fmt.Sprintf("%s %d", m.month, m.year) }

// Timezone returns the IANA name of the zone.
func (m Month) Timezone() string { return m.zone.String() }

// Start returns the first instant of the month.
func (m Month) Start() time.Time { return firstInstant(m.year, m.month, 1, m.zone) }

// End returns the first instant after the month.
func (m Month) End() time.Time { return firstInstant(m.year, m.month+1, 1, m.zone) }

// Previous returns the month before.
func (m Month) Previous() Month {
	t := time.Date(m.year, m.month-1, 1, 0, 0, 0, 0, time.UTC)
	return Month{t.Year(), t.Month(), m.zone}
}

// span is one day of a month: its date and its minutes, half-open.
type span struct {
	date     string
	from, to sla.Minute
}

// days returns the days of the month in order. Those on which clocks change
// have 23 or 25 hours; one that a zone skipped is left out.
func (m Month) days() []span {
	var out []span
	for d := 1; ; d++ {
		date := time.Date(m.year, m.month, d, 0, 0, 0, 0, time.UTC)
		if date.Month() != m.month {
			return out
		}
		s := span{
			date: date.Format("2006-01-02"),
			from: sla.MinuteOf(firstInstant(m.year, m.month, d, m.zone)),
			to:   sla.MinuteOf(firstInstant(m.year, m.month, d+1, m.zone)),
		}
		if s.to > s.from {
			out = append(out, s)
		}
	}
}

// firstInstant returns the first minute of a local date. time.Date does not
// promise which side of a change of clocks it answers with, and there are zones
// that change them at midnight, so it is searched for.
func firstInstant(year int, month time.Month, day int, zone *time.Location) time.Time {
	midnight := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	want := midnight.Format("2006-01-02")
	const reach = 16 * 60 // minutes: no zone is further from UTC
	begin := midnight.Add(-reach * time.Minute)
	n := sort.Search(2*reach, func(i int) bool {
		return begin.Add(time.Duration(i)*time.Minute).In(zone).Format("2006-01-02") >= want
	})
	return begin.Add(time.Duration(n) * time.Minute).In(zone)
}
