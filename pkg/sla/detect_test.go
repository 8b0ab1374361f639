package sla

import (
	"math/big"
	"testing"
	"time"
)

// A full outage at 99.9 % over 30 days trips the first pair after 51.84 s.
func TestTimeToDetectIsThatOfTheWorkbook(t *testing.T) {
	nines, half := target(t, "0.999"), target(t, "0.5")
	const month = 30 * 24 * time.Hour
	for _, c := range []struct {
		tier   int
		ratio  string
		target Target
		period time.Duration
		step   time.Duration
		whole  bool
		want   string // seconds; empty: never
	}{
		{0, "1", nines, month, 0, false, "51.84"},
		{0, "0.1", nines, month, 0, false, "518.4"},
		{1, "1", nines, month, 0, false, "129.6"},
		{3, "0.002", nines, month, 0, false, "129600"},
		{0, "0.0144", nines, month, 0, false, ""}, // at the threshold it does not fire
		{0, "0.0144001", nines, month, 0, false, "518400000/144001"},
		{3, "0.001", nines, month, 0, false, ""},
		{0, "1", half, month, 0, false, ""}, // burn is at most 2
		{0, "0", nines, month, 0, false, ""},
		{0, "1", Target{targetScale}, month, 0, false, ""},
		{3, "1", nines, 24 * time.Hour, 0, false, ""}, // longer than the period
		{0, "1", nines, month, time.Minute, true, "60"},
		{0, "0.1", nines, month, time.Minute, true, "600"},
		{0, "0.1", nines, month, time.Minute, false, "540"},
		{0, "0.0144", nines, month, time.Minute, false, ""},
		{0, "0.015", nines, month, time.Minute, true, "4000"},  // one bad minute in an hour is enough, also one in 66
		{1, "0.006", nines, month, time.Minute, true, "30000"}, // three bad minutes, and two distances between them, in 6 h
		{1, "0.0055", nines, month, time.Minute, true, ""},
		{0, "1", nines, month, 2 * time.Hour, true, ""},
		{1, "1", target(t, "0.9"), 6 * time.Hour, 5 * time.Minute, true, "300"},
	} {
		ratio, _ := new(big.Rat).SetString(c.ratio)
		got := Tiers[c.tier].Detect(Pace{ratio, c.step, c.whole}, c.target, c.period)
		if c.want == "" {
			if got != nil {
				t.Errorf("%s at %s of %s: %s s, want never", Tiers[c.tier].Name, c.ratio, c.target, got.FloatString(6))
			}
			continue
		}
		want, _ := new(big.Rat).SetString(c.want)
		if got == nil || got.Cmp(want) != 0 {
			t.Errorf("%s at %s of %s in steps of %s: %v s, want %s", Tiers[c.tier].Name, c.ratio, c.target, c.step, got, c.want)
		}
	}
}

func TestPoliciesOfAnObjectiveHaveOneWindowAndWait(t *testing.T) {
	nines := target(t, "0.999")
	for _, c := range []struct {
		policy Policy
		ratio  string
		step   time.Duration
		whole  bool
		want   string
	}{
		{Policy{Threshold: "14.4", Lookback: time.Hour}, "1", 0, false, "51.84"},
		{Policy{Threshold: "14.4", Lookback: time.Hour, After: 5 * time.Minute}, "1", 0, false, "351.84"},
		{Policy{Threshold: "10", Lookback: time.Hour}, "0.01", 0, false, ""},
		{Policy{Threshold: "10", Lookback: time.Hour, AtLeast: true}, "0.01", 0, false, "3600"},
		{Policy{Threshold: "10", Lookback: time.Hour, AtLeast: true}, "0.009", 0, false, ""},
		{Policy{Threshold: "50", Lookback: time.Hour}, "1", time.Minute, true, "240"},
		{Policy{Threshold: "50", Lookback: time.Hour, AtLeast: true}, "1", time.Minute, true, "180"},
		{Policy{Threshold: "1", Lookback: time.Hour, AtLeast: true}, "1", time.Minute, true, "60"},
		{Policy{Threshold: "14.4", Lookback: time.Hour, Quiet: true}, "1", 0, false, ""},
		{Policy{Threshold: "none", Lookback: time.Hour}, "1", 0, false, ""},
	} {
		ratio, _ := new(big.Rat).SetString(c.ratio)
		got := c.policy.Detect(Pace{ratio, c.step, c.whole}, nines)
		if c.want == "" {
			if got != nil {
				t.Errorf("%+v at %s: %s s, want never", c.policy, c.ratio, got.FloatString(6))
			}
			continue
		}
		if want, _ := new(big.Rat).SetString(c.want); got == nil || got.Cmp(want) != 0 {
			t.Errorf("%+v at %s: %v s, want %s", c.policy, c.ratio, got, c.want)
		}
	}
}

func TestSpansAreRoundedToTheSafeSide(t *testing.T) {
	for _, c := range []struct{ seconds, down, up string }{
		{"0", "0 s", "0 s"},
		{"51.84", "51.84 s", "51.84 s"},
		{"0.001", "0 s", "0.01 s"},
		{"5", "5 s", "5 s"},
		{"59.999", "59.99 s", "1 min"},
		{"518.4", "8 min 38 s", "8 min 39 s"},
		{"2592", "43 min 12 s", "43 min 12 s"},
		{"3599.5", "59 min 59 s", "1 h"},
		{"3661", "1 h 1 min", "1 h 2 min"},
		{"90000", "1 d 1 h", "1 d 1 h"},
		{"31535999", "364 d 23 h 59 min", "365 d"},
	} {
		r, _ := new(big.Rat).SetString(c.seconds)
		if down, up := Span(r, false), Span(r, true); down != c.down || up != c.up {
			t.Errorf("%s s: %q and %q, want %q and %q", c.seconds, down, up, c.down, c.up)
		}
	}
	if got := Span(nil, true); got != NoValue {
		t.Errorf("no time is %q", got)
	}
}
