package sla

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const day = 24 * time.Hour

// The SRE workbook, chapter 5, table 5-8.
func TestTiersAreThoseOfTheWorkbook(t *testing.T) {
	for i, want := range []struct {
		name, severity string
		long, short    time.Duration
		share, burn    string
	}{
		{"fast", "page", time.Hour, 5 * time.Minute, "0.02", "14.4"},
		{"medium", "page", 6 * time.Hour, 30 * time.Minute, "0.05", "6"},
		{"slow", "ticket", day, 2 * time.Hour, "0.1", "3"},
		{"long", "ticket", 3 * day, 6 * time.Hour, "0.1", "1"},
	} {
		got := Tiers[i]
		if got.Name != want.name || got.Severity != want.severity || got.Long != want.long || got.Short != want.short || !same(got.Share, rat(want.share)) {
			t.Errorf("tier %d is %+v, want %+v", i, got, want)
		}
		if burn := got.Threshold(30 * day); !same(burn, rat(want.burn)) {
			t.Errorf("tier %s fires above %s for 30 days, want %s", got.Name, burn, want.burn)
		}
		if got.Long != 12*got.Short {
			t.Errorf("tier %s: the short window is %s, want a twelfth of %s", got.Name, got.Short, got.Long)
		}
	}
	if len(Tiers) != 4 {
		t.Errorf("%d tiers, want 4", len(Tiers))
	}
}

func TestThresholdsScaleWithThePeriod(t *testing.T) {
	for period, want := range map[time.Duration][4]string{
		28 * day: {"13.44", "5.6", "2.8", "14/15"},
		7 * day:  {"3.36", "1.4", "0.7", "7/30"},
		90 * day: {"43.2", "18", "9", "3"},
	} {
		for i, tier := range Tiers {
			if got := tier.Threshold(period); !same(got, rat(want[i])) {
				t.Errorf("tier %s fires above %s for %s, want %s", tier.Name, got, Duration(period), want[i])
			}
		}
	}
	if Tiers[0].Share.Cmp(big.NewRat(2, 100)) != 0 {
		t.Errorf("a threshold changed the tier's share to %s", Tiers[0].Share)
	}
}

// A steady burn at the threshold that fills the long window has spent exactly
// the tier's share of the period's budget.
func TestThresholdSpendsTheSharePerLongWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := time.Duration(rapid.IntRange(1, 366*24).Draw(t, "hours")) * time.Hour
		tier := rapid.SampledFrom(Tiers).Draw(t, "tier")
		spent := tier.Threshold(period)
		spent.Mul(spent, big.NewRat(int64(tier.Long), int64(period)))
		if spent.Cmp(tier.Share) != 0 {
			t.Fatalf("tier %s over %s spends %s of the budget, want %s", tier.Name, period, spent, tier.Share)
		}
	})
}

func TestBurnIsErrorsOverBudget(t *testing.T) {
	for _, c := range []struct {
		good, total  int64
		target, want string
	}{
		{999, 1000, "0.999", "1"},
		{9856, 10000, "0.999", "14.4"},
		{0, 10, "0.999", "1000"},
		// 1 failure in 10 requests: the workbook's text says 1,000 times, it is 100.
		{9, 10, "0.999", "100"},
		{10, 10, "0.999", "0"},
		{0, 10, "0.5", "2"},
	} {
		if got := sum(c.good, c.total, 60, 60).Burn(target(t, c.target)); !same(got, rat(c.want)) {
			t.Errorf("%d of %d against %s burns %v, want %s", c.good, c.total, c.target, got, c.want)
		}
	}
}

func TestTierFiresOnlyAboveItsThresholdInBothWindows(t *testing.T) {
	const period = 30 * day
	three9 := target(t, "0.999")
	none, calm, at, above := sum(0, 0, 60, 60), sum(1, 1, 60, 60), sum(9856, 10000, 60, 60), sum(985_599, 1_000_000, 60, 60)
	for _, c := range []struct {
		name        string
		long, short Sum
		want        bool
	}{
		{"both above", above, above, true},
		{"both exactly at the threshold", at, at, false},
		{"it is over: the short one is calm", above, calm, false},
		{"it just began: the long one is calm", calm, above, false},
		{"the short one exactly at the threshold", above, at, false},
		{"the long one exactly at the threshold", at, above, false},
		{"no events at all", none, none, false},
		{"no events in the short one", above, none, false},
		{"no events in the long one", none, above, false},
	} {
		if got := Tiers[0].Firing(c.long, c.short, three9, period); got != c.want {
			t.Errorf("%s: fires is %t, want %t", c.name, got, c.want)
		}
	}
	if Tiers[0].Firing(above, above, target(t, "1"), period) {
		t.Error("a target of 100 % has no burn rate, but a tier fires")
	}
	// Pages use good_high (R16): what may have been good does not page.
	unsure := above
	unsure.GoodHigh = unsure.Total
	if Tiers[0].Firing(unsure, unsure, three9, period) {
		t.Error("a tier fires on events that may have been good")
	}
}

// sloth #341: burn is at most 1 ÷ (1 − target), so 14.4 can never be exceeded
// at or below 93.05 % and 6 not at or below 83.3 %.
func TestTierThatCanNeverFireIsKnown(t *testing.T) {
	for _, c := range []struct {
		tier   int
		period time.Duration
		target string
		want   bool
	}{
		{0, 30 * day, "0.999", true}, {0, 30 * day, "0.9306", true}, {0, 30 * day, "0.9305", false}, {0, 30 * day, "0.93", false},
		{1, 30 * day, "0.8334", true}, {1, 30 * day, "0.8333", false},
		{2, 30 * day, "0.6667", true}, {2, 30 * day, "0.6666", false},
		{3, 30 * day, "0.000000000001", true},
		{0, 100 * time.Hour, "0.5", false}, // a threshold of exactly 2, which burn reaches and never exceeds
		{0, 100 * time.Hour, "0.500000000001", true},
		{0, 30 * day, "1", false}, {3, 30 * day, "1", false},
	} {
		if got := Tiers[c.tier].CanFire(target(t, c.target), c.period); got != c.want {
			t.Errorf("tier %s with a target of %s over %s: can fire is %t, want %t", Tiers[c.tier].Name, c.target, Duration(c.period), got, c.want)
		}
	}
	outage := sum(0, 1000, 60, 60)
	rapid.Check(t, func(t *rapid.T) {
		tg := Target{rapid.Int64Range(1, targetScale).Draw(t, "target")}
		period := time.Duration(rapid.IntRange(1, 400).Draw(t, "days")) * day
		tier := rapid.SampledFrom(Tiers).Draw(t, "tier")
		if can, does := tier.CanFire(tg, period), tier.Firing(outage, outage, tg, period); can != does {
			t.Fatalf("tier %s, target %s, %s: can fire is %t, but a full outage fires it is %t", tier.Name, tg, period, can, does)
		}
	})
}

// Time to detect = (1 − target) ÷ error ratio × long window × burn.
func TestFullOutageTripsTheFirstTierAfter52Seconds(t *testing.T) {
	three9 := target(t, "0.999")
	after := func(seconds int64) bool {
		long := sum(3600-seconds, 3600, 60, 60) // one event a second
		short := sum(300-seconds, 300, 60, 60)
		return Tiers[0].Firing(long, short, three9, 30*day)
	}
	if after(51) || !after(52) {
		t.Errorf("fires after 51 s: %t, after 52 s: %t; want it from 51.84 s on", after(51), after(52))
	}
}
