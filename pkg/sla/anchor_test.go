package sla

import (
	"fmt"
	"testing"
	"time"
)

// Windows from an anchor tile time: each begins where the one before it ends,
// at the hour that the anchor has, on its day or the month's last one.
func TestR29WindowsFromAnAnchorTileTime(t *testing.T) {
	for _, c := range []struct {
		w    Window
		want []string // beginnings of the window that holds the anchor, and of the next ones
	}{
		{Window{Calendar: Month, Timezone: "America/New_York", Anchor: "2020-01-21 12:30:00"}, []string{"2020-01-21T17:30", "2020-02-21T17:30", "2020-03-21T16:30", "2020-04-21T16:30"}},
		{Window{Calendar: Month, Timezone: "UTC", Anchor: "2024-01-31 00:00:00"}, []string{"2024-01-31T00:00", "2024-02-29T00:00", "2024-03-31T00:00", "2024-04-30T00:00", "2024-05-31T00:00"}},
		{Window{Calendar: Month, Count: 5, Timezone: "UTC", Anchor: "2024-01-01 00:00:00"}, []string{"2024-01-01T00:00", "2024-06-01T00:00", "2024-11-01T00:00", "2025-04-01T00:00"}},
		{Window{Calendar: Day, Count: 366, Timezone: "UTC", Anchor: "2023-06-01 06:00:00"}, []string{"2023-06-01T06:00", "2024-06-01T06:00", "2025-06-02T06:00"}},
		{Window{Calendar: Week, Count: 2, Timezone: "Europe/Berlin", Anchor: "2026-03-19 09:00:00"}, []string{"2026-03-19T08:00", "2026-04-02T07:00", "2026-04-16T07:00"}},
		{Window{Calendar: Quarter, Timezone: "Asia/Kathmandu", Anchor: "2026-02-15 00:00:00"}, []string{"2026-02-14T18:15", "2026-05-14T18:15"}},
		{Window{Calendar: Year, Timezone: "UTC", Anchor: "2024-02-29 00:00:00"}, []string{"2024-02-29T00:00", "2025-02-28T00:00", "2026-02-28T00:00", "2027-02-28T00:00", "2028-02-29T00:00"}},
		// 02:30 is left out on 29 March 2026, and shown twice on 25 October.
		{Window{Calendar: Day, Timezone: "Europe/Berlin", Anchor: "2026-03-28 02:30:00"}, []string{"2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"}},
		{Window{Calendar: Day, Timezone: "Europe/Berlin", Anchor: "2026-10-24 02:30:00"}, []string{"2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"}},
	} {
		at, err := time.Parse("2006-01-02T15:04", c.want[0])
		if err != nil {
			t.Fatal(err)
		}
		m := MinuteOf(at)
		for i, want := range c.want {
			start, end, err := c.w.Bounds(m)
			if err != nil {
				t.Fatal(err)
			}
			if got := start.Time().Format("2006-01-02T15:04"); got != want {
				t.Errorf("%s: window %d begins at %s, want %s", c.w, i, got, want)
			}
			// Every minute of it is in it; the walk takes some of them.
			for at := start; at < end; at += max(1, (end-start)/97) {
				if s, e, err := c.w.Bounds(at); s != start || e != end || err != nil {
					t.Fatalf("%s: minute %s is in [%s, %s), want [%s, %s)", c.w, at.Time(), s.Time(), e.Time(), start.Time(), end.Time())
				}
			}
			if s, e, err := c.w.Bounds(end - 1); s != start || e != end || err != nil {
				t.Errorf("%s: the last minute of window %d is in [%s, %s)", c.w, i, s.Time(), e.Time())
			}
			m = end
		}
		// And backwards from the anchor.
		start, _, err := c.w.Bounds(MinuteOf(at) - 1)
		if _, end, err2 := c.w.Bounds(start); err != nil || err2 != nil || end != MinuteOf(at) {
			t.Errorf("%s: the window before the anchor ends at %s (%v, %v)", c.w, end.Time(), err, err2)
		}
	}
	for _, anchor := range []string{"soon", "2026-01-01 00:00:30"} {
		if _, _, err := (Window{Calendar: Day, Timezone: "UTC", Anchor: anchor}).Bounds(0); err == nil {
			t.Errorf("windows from %q have bounds", anchor)
		}
	}
	if got, want := fmt.Sprint(Window{Calendar: Month, Timezone: "UTC", Anchor: "2024-01-31 00:00:00"}), "calendar month from 2024-01-31 00:00:00, UTC"; got != want {
		t.Errorf("it is printed as %q, want %q", got, want)
	}
}
