package openslo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/teambition/rrule-go"
)

// recurrence is a rule of RFC 5545 in a zone.
type recurrence struct {
	rule rrule.RRule // in wall-clock time, farYears later
	zone *time.Location
	from time.Time
}

// farYears later the calendar is the same, weekdays and all: Gregorian years
// repeat after 400. The library looks for an occurrence until the year 9999,
// which from there on is near, so that a rule that never occurs is found out in
// milliseconds.
const farYears = 19 * 400

// Bounds of a rule.
const (
	maxRule   = 500   // characters of its text
	maxNumber = 1_000 // its COUNT and INTERVAL
)

// ruleParts are the parts of a rule that are taken, each with the frequencies
// that RFC 5545 allows it with.
var ruleParts = map[string][]string{
	"FREQ": nil, "INTERVAL": nil, "COUNT": nil, "UNTIL": nil, "WKST": nil, "BYMONTH": nil, "BYDAY": nil, "BYHOUR": nil, "BYMINUTE": nil, "BYSETPOS": nil,
	"BYMONTHDAY": {"YEARLY", "MONTHLY", "DAILY"},
	"BYYEARDAY":  {"YEARLY"},
	"BYWEEKNO":   {"YEARLY"},
}

// parseRecurrence reads a rule that begins at from. Rules that a person would
// not mean by an exclusion are refused: those below days, and seconds.
func parseRecurrence(text string, from time.Time, zone *time.Location) (*recurrence, error) {
	if len(text) > maxRule {
		return nil, fmt.Errorf("the rule has %d characters: want at most %d", len(text), maxRule)
	}
	parts := map[string]string{}
	var kept []string
	for _, p := range strings.Split(strings.TrimPrefix(strings.TrimSpace(text), "RRULE:"), ";") {
		key, value, ok := strings.Cut(p, "=")
		_, known := ruleParts[key]
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("%q is not a part of a rule such as FREQ=MONTHLY;BYDAY=1SU", p)
		case key == "DTSTART":
			return nil, fmt.Errorf("DTSTART is spec.from here: take it out of the rule")
		case key == "BYSECOND":
			return nil, fmt.Errorf("BYSECOND: time is left out by the minute; take it out")
		case !known:
			return nil, fmt.Errorf("%s is not taken: write the rule with FREQ, INTERVAL, COUNT, UNTIL, WKST and the BY… parts of RFC 5545", key)
		case parts[key] != "":
			return nil, fmt.Errorf("%s is given twice: remove one", key)
		}
		parts[key] = value
		if key != "UNTIL" {
			kept = append(kept, p)
		}
	}
	freq := parts["FREQ"]
	if !slices.Contains([]string{"YEARLY", "MONTHLY", "WEEKLY", "DAILY"}, freq) {
		return nil, fmt.Errorf("FREQ is %q: want YEARLY, MONTHLY, WEEKLY or DAILY (with BYHOUR for several times a day)", freq)
	}
	for _, key := range []string{"BYMONTHDAY", "BYYEARDAY", "BYWEEKNO"} {
		if parts[key] != "" && !slices.Contains(ruleParts[key], freq) {
			return nil, fmt.Errorf("%s does not go with FREQ=%s (RFC 5545): use FREQ=%s", key, freq, strings.Join(ruleParts[key], ", "))
		}
	}
	if parts["COUNT"] != "" && parts["UNTIL"] != "" {
		return nil, fmt.Errorf("COUNT and UNTIL are two ends: remove one")
	}
	for _, key := range []string{"COUNT", "INTERVAL"} {
		if n, err := strconv.Atoi(parts[key]); parts[key] != "" && (err != nil || n < 1 || n > maxNumber) {
			return nil, fmt.Errorf("%s is %q: want a number from 1 to %d", key, parts[key], maxNumber)
		}
	}
	if err := weekdays(parts, freq); err != nil {
		return nil, err
	}
	option, err := rrule.StrToROption(strings.Join(kept, ";"))
	if err != nil {
		return nil, fmt.Errorf("not a rule of RFC 5545 such as FREQ=MONTHLY;BYDAY=1SU: %w", err)
	}
	option.Dtstart = shown(from, zone).AddDate(farYears, 0, 0)
	option.Until, err = until(parts["UNTIL"], zone)
	if err != nil {
		return nil, err
	}
	rule, err := rrule.NewRRule(*option)
	if err != nil {
		return nil, fmt.Errorf("not a rule of RFC 5545: %w", err)
	}
	return &recurrence{*rule, zone, from}, nil
}

// weekdays checks the numbers in BYDAY: the library reads past its tables for
// one that no month has.
func weekdays(parts map[string]string, freq string) error {
	if parts["BYDAY"] == "" {
		return nil
	}
	most := 5
	switch {
	case freq == "WEEKLY" || freq == "DAILY":
		most = 0
	case freq == "YEARLY" && parts["BYMONTH"] == "":
		most = 53
	}
	for _, day := range strings.Split(parts["BYDAY"], ",") {
		if len(day) <= 2 {
			continue // the library knows the names
		}
		n, err := strconv.Atoi(day[:len(day)-2])
		switch {
		case err == nil && most == 0:
			return fmt.Errorf("BYDAY=%s: a numbered weekday does not go with FREQ=%s (RFC 5545); use MONTHLY or YEARLY", day, freq)
		case err == nil && parts["BYWEEKNO"] != "":
			return fmt.Errorf("BYDAY=%s: a numbered weekday does not go with BYWEEKNO (RFC 5545); take the number out", day)
		case err != nil || n == 0 || n > most || n < -most:
			return fmt.Errorf("BYDAY=%s: want a number from 1 to %d, or from -%d to -1, before the weekday", day, most, most)
		}
	}
	return nil
}

// until reads the end of a rule: in UTC, or as the zone's clocks show it.
func until(text string, zone *time.Location) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	end, err := time.Parse("20060102T150405Z", text)
	if err == nil {
		end = shown(end, zone)
	} else if end, err = time.Parse("20060102T150405", text); err != nil {
		return time.Time{}, fmt.Errorf("UNTIL is %q: want a time such as 20261231T235900, or with Z in UTC", text)
	}
	if end.Year() < firstYear || end.Year() > lastYear {
		return time.Time{}, fmt.Errorf("UNTIL is %q: want a year from %d to %d", text, firstYear, lastYear)
	}
	return end.AddDate(farYears, 0, 0), nil
}

// starts yields when each occurrence begins.
func (r *recurrence) starts(yield func(time.Time) bool) {
	rule := r.rule // an iteration writes to it
	next := rule.Iterator()
	for far, ok := next(); ok; far, ok = next() {
		at, _ := atClock(far.AddDate(-farYears, 0, 0), r.zone)
		if at.Before(r.from) {
			continue // from is the second of two moments that the clocks show alike
		}
		if !yield(at) {
			return
		}
	}
}

// shown returns what the clocks of a zone show at a moment, as if it were UTC.
func shown(t time.Time, zone *time.Location) time.Time {
	t = t.In(zone)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// atClock returns the moment at which the clocks of a zone show a time, and how
// often they show it. As RFC 5545 has it, one that is shown twice is the first,
// and one that is skipped is as far behind the jump as it is after its start.
func atClock(clock time.Time, zone *time.Location) (at time.Time, times int) {
	offset := func(t time.Time) time.Duration {
		_, seconds := t.In(zone).Zone()
		return time.Duration(seconds) * time.Second
	}
	// No zone is changed twice in two days.
	before := clock.Add(-offset(clock.Add(-24 * time.Hour)))
	after := clock.Add(-offset(clock.Add(24 * time.Hour)))
	isBefore, isAfter := shown(before, zone).Equal(clock), shown(after, zone).Equal(clock)
	switch {
	case isBefore && isAfter && !before.Equal(after):
		return before.In(zone), 2
	case isBefore:
		return before.In(zone), 1
	case isAfter:
		return after.In(zone), 1
	}
	return before.In(zone), 0
}
