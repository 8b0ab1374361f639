package sla

import (
	"encoding/json"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func target(t testing.TB, s string) Target {
	t.Helper()
	out, err := ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sum makes a sum of whole events and of source-seconds.
func sum(good, total, expected, counted int64) Sum {
	var s Sum
	s.Add(Counts{good * Micro, good * Micro, total * Micro, expected * 1000, counted * 1000, counted * 1000})
	return s
}

func rat(s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		panic("not a number: " + s)
	}
	return r
}

func same(a, b *big.Rat) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Cmp(b) == 0
}

// A vendor's tool rounded 99.8996 up to the 99.9 that it missed.
func TestFigureIsNeverRoundedUpToItsTarget(t *testing.T) {
	s := sum(998_996, 1_000_000, 60, 60)
	if got := Percent(s.Good(), 1); got != "99.8 %" {
		t.Errorf("99.8996 %% with one decimal is %q, want 99.8 %%", got)
	}
	if got := s.Verdict(target(t, "0.999")); got != Missed {
		t.Errorf("99.8996 %% against 99.9 %% is %q, want missed", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		tg := Target{rapid.Int64Range(1, targetScale).Draw(t, "target")}
		total := rapid.Int64Range(1, math.MaxInt64).Draw(t, "total")
		r := Ratio(NewInt128(rapid.Int64Range(0, total).Draw(t, "good")), NewInt128(total))
		decimals := rapid.IntRange(0, 14).Draw(t, "decimals")
		printed := rat(FloorDecimal(r, decimals))
		if printed.Cmp(r) > 0 {
			t.Fatalf("%s with %d decimals is printed as %s, which is above it", r, decimals, printed)
		}
		if r.Cmp(tg.Rat()) < 0 && printed.Cmp(tg.Rat()) >= 0 {
			t.Fatalf("%s misses %s but is printed as %s", r, tg, printed)
		}
		ulp := new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil))
		if new(big.Rat).Add(printed, ulp).Cmp(r) <= 0 {
			t.Fatalf("%s with %d decimals is printed as %s, a whole digit below", r, decimals, printed)
		}
	})
}

func TestDecimalsAreRoundedTowardMinusInfinity(t *testing.T) {
	for _, c := range []struct {
		value    string
		decimals int
		want     string
	}{
		{"0", 0, "0"}, {"0", 2, "0.00"}, {"1", 2, "1.00"}, {"12345/100", 1, "123.4"}, {"1/3", 9, "0.333333333"},
		{"2/3", 0, "0"}, {"-1/3", 2, "-0.34"}, {"-1/1000", 2, "-0.01"}, {"-2", 0, "-2"}, {"-2", 1, "-2.0"},
		{"1/100", 2, "0.01"}, {"999999999999999999999999999999", 1, "999999999999999999999999999999.0"},
	} {
		if got := FloorDecimal(rat(c.value), c.decimals); got != c.want {
			t.Errorf("%s with %d decimals is %q, want %q", c.value, c.decimals, got, c.want)
		}
	}
	if got := Percent(big.NewRat(99949, 100000), 2); got != "99.94 %" {
		t.Errorf("99.949 %% with two decimals is %q", got)
	}
	if got := FloorDecimal(big.NewRat(99949, 100000), 4); got != "0.9994" {
		t.Errorf("0.99949 with four decimals is %q", got)
	}
}

// sloth #531 and #749: 0/0 in one minute made the budget NaN for 30 days, and
// an objective of 100 % gave Inf.
func TestPain03_FigureThatDoesNotExistIsNeitherNaNNorInf(t *testing.T) {
	none := sum(0, 0, 0, 0)
	for name, r := range map[string]*big.Rat{
		"ratio": none.Good(), "errors": none.Errors(), "coverage": none.Coverage(), "timed coverage": none.TimedCoverage(),
		"burn": none.Burn(target(t, "0.999")), "budget": none.Budget(target(t, "0.999")).Remaining,
		"burn of a 100 % target":          sum(1, 2, 60, 60).Burn(target(t, "1")),
		"burn without a target":           sum(1, 2, 60, 60).Burn(Target{}),
		"overspent budget of 100 %":       sum(1, 2, 60, 60).Budget(target(t, "1")).Remaining,
		"ratio of a negative denominator": Ratio(NewInt128(1), NewInt128(-1)),
	} {
		if r != nil {
			t.Errorf("%s is %s, want none", name, r)
		}
		if got := Percent(r, 2); got != NoValue {
			t.Errorf("%s is printed as %q, want %q", name, got, NoValue)
		}
		if got := FloorDecimal(r, 2); got != NoValue {
			t.Errorf("%s is printed as %q, want %q", name, got, NoValue)
		}
		if got := string(JSON(r)); got != "null" {
			t.Errorf("%s is %s in JSON, want null", name, got)
		}
	}
	if got := none.Verdict(target(t, "0.999")); got != NoEvents {
		t.Errorf("verdict without events is %q, want %q", got, NoEvents)
	}
	// No traffic in counted time is no gap in coverage (R15).
	if got := sum(0, 0, 60, 60).Coverage(); !same(got, rat("1")) {
		t.Errorf("coverage of a counted minute without traffic is %v, want 1", got)
	}
}

func TestFigureIsANumberInJSON(t *testing.T) {
	for _, c := range []struct{ value, want string }{
		{"1", "1.000000000"}, {"0.999", "0.999000000"}, {"2/3", "0.666666666"}, {"-1/3", "-0.333333334"}, {"0", "0.000000000"},
	} {
		data, err := json.Marshal(map[string]json.RawMessage{"ratio": JSON(rat(c.value))})
		if want := `{"ratio":` + c.want + `}`; err != nil || string(data) != want {
			t.Errorf("%s is %s in JSON (%v), want %s", c.value, data, err, want)
		}
	}
}

func TestR16BoundsAssumeAverageTrafficInUnseenTime(t *testing.T) {
	for _, c := range []struct {
		name                           string
		good, total, expected, counted int64
		coverage, lower, upper         string
	}{
		{"everything seen", 9, 10, 60, 60, "1", "0.9", "0.9"},
		{"half unseen", 9, 10, 60, 30, "0.5", "0.45", "0.95"},
		{"nothing counted, events booked as a lower bound", 9, 10, 60, 0, "0", "0", "1"},
		{"98.2 % seen", 9997, 10000, 1000, 982, "0.982", "0.9817054", "0.9997054"},
	} {
		s := sum(c.good, c.total, c.expected, c.counted)
		lower, upper := s.Bounds()
		if !same(s.Coverage(), rat(c.coverage)) || !same(lower, rat(c.lower)) || !same(upper, rat(c.upper)) {
			t.Errorf("%s: coverage %v, between %v and %v; want %s, %s and %s", c.name, s.Coverage(), lower, upper, c.coverage, c.lower, c.upper)
		}
	}
	for name, s := range map[string]Sum{"no events": sum(0, 0, 60, 60), "nothing expected": sum(1, 2, 0, 0)} {
		if lower, upper := s.Bounds(); lower != nil || upper != nil {
			t.Errorf("%s: bounds are %v and %v, want none", name, lower, upper)
		}
	}
}

// drawCounts draws a minute as the evaluator may book it.
func drawCounts(t *rapid.T, label string) Counts {
	total := rapid.Int64Range(0, 1_000_000*Micro).Draw(t, label+" total")
	high := rapid.Int64Range(0, total).Draw(t, label+" good high")
	expected := rapid.Int64Range(0, 1000*MinuteMillis).Draw(t, label+" expected")
	counted := rapid.Int64Range(0, expected).Draw(t, label+" counted")
	return Counts{
		GoodLow: rapid.Int64Range(0, high).Draw(t, label+" good low"), GoodHigh: high, Total: total,
		Expected: expected, Counted: counted, Timed: rapid.Int64Range(0, counted).Draw(t, label+" timed"),
	}
}

func TestR16RatioLiesBetweenItsBoundsAndBoundsBetween0And1(t *testing.T) {
	zero, one := new(big.Rat), big.NewRat(1, 1)
	rapid.Check(t, func(t *rapid.T) {
		var s Sum
		for range rapid.IntRange(1, 5).Draw(t, "minutes") {
			s.Add(drawCounts(t, "minute"))
		}
		lower, upper := s.Bounds()
		if lower == nil {
			if s.Total.Sign() > 0 && s.Expected.Sign() > 0 {
				t.Fatalf("no bounds of %+v", s)
			}
			return
		}
		for _, r := range []struct{ a, b *big.Rat }{{zero, lower}, {lower, s.Good()}, {s.Good(), upper}, {upper, one}} {
			if r.a.Cmp(r.b) > 0 {
				t.Fatalf("want 0 ≤ lower ≤ ratio ≤ upper ≤ 1, got 0, %v, %v, %v of %+v", lower, s.Good(), upper, s)
			}
		}
		if width := new(big.Rat).Sub(upper, lower); !same(width, new(big.Rat).Sub(one, s.Coverage())) {
			t.Fatalf("bounds are %v apart, want the uncovered part of %v", width, s.Coverage())
		}
	})
}

func TestR16VerdictNeedsTheLowerEndToBeMet(t *testing.T) {
	for _, c := range []struct {
		low, high, total int64
		target           string
		want             Verdict
	}{
		{999, 999, 1000, "0.999", Met}, // exactly at the target
		{1000, 1000, 1000, "1", Met},
		{999, 999, 1000, "1", Missed},
		{998, 999, 1000, "0.999", Inconclusive},
		{0, 1000, 1000, "0.999", Inconclusive},
		{998, 998, 1000, "0.999", Missed},
		{0, 0, 1000, "0.000000000001", Missed},
		{0, 0, 0, "0.999", NoEvents},
		// One micro-event to either side of an edge (provider tiers 99.95, 99, 95).
		{999_500, 999_500, 1_000_000, "0.9995", Met},
		{999_499, 999_499, 1_000_000, "0.9995", Missed},
		{990_000, 990_000, 1_000_000, "0.99", Met},
		{989_999, 989_999, 1_000_000, "0.99", Missed},
		{950_000, 950_000, 1_000_000, "0.95", Met},
		{949_999, 949_999, 1_000_000, "0.95", Missed},
	} {
		var s Sum
		s.Add(Counts{GoodLow: c.low, GoodHigh: c.high, Total: c.total})
		if got := s.Verdict(target(t, c.target)); got != c.want {
			t.Errorf("%d to %d of %d against %s is %q, want %q", c.low, c.high, c.total, c.target, got, c.want)
		}
	}
}

func TestBudgetIsTheExactShareOfEventsThatMayFail(t *testing.T) {
	for _, c := range []struct {
		good, total              int64
		target, allowed, remains string // allowed in events; remains empty for none
	}{
		{1_000_000, 1_000_000, "0.999", "1000", "1"},
		{999_500, 1_000_000, "0.999", "1000", "0.5"},
		{999_000, 1_000_000, "0.999", "1000", "0"},
		{998_000, 1_000_000, "0.999", "1000", "-1"},
		{9, 10, "0.9", "1", "0"},
		{0, 1, "0.999", "0.001", "-999"},
		{10, 10, "1", "0", "1"},
		{9, 10, "1", "0", ""},
		{0, 0, "0.999", "0", ""},
		{0, 0, "1", "0", ""},
	} {
		b := sum(c.good, c.total, 60, 60).Budget(target(t, c.target))
		if want := new(big.Rat).Mul(rat(c.allowed), big.NewRat(Micro, 1)); !same(b.Allowed, want) {
			t.Errorf("%d of %d against %s: %v micro-events may fail, want %v", c.good, c.total, c.target, b.Allowed, want)
		}
		if want := NewInt128((c.total - c.good) * Micro); b.Bad != want {
			t.Errorf("%d of %d: bad is %s, want %s", c.good, c.total, b.Bad, want)
		}
		var want *big.Rat
		if c.remains != "" {
			want = rat(c.remains)
		}
		if !same(b.Remaining, want) {
			t.Errorf("%d of %d against %s: remaining is %v, want %v", c.good, c.total, c.target, b.Remaining, want)
		}
	}
}

// sloth #241: the mean of five-minute ratios said 5.05 % and 2.08 %.
func TestPain01_RatioIsWeightedByTraffic(t *testing.T) {
	const hour = 3600
	for _, c := range []struct {
		name string
		a, b Sum
		want string
	}{
		{"12 h at 1000/s with 0.1 % errors, 12 h at 1/s with 10 %",
			sum(12*hour*999, 12*hour*1000, 60, 60), sum(12*hour*9/10, 12*hour, 60, 60), "0.1098"}, // 0.10989 %, rounded down
		{"1 h at 10000/s with 50 % errors, 23 h at 10/s with none",
			sum(hour*5000, hour*10000, 60, 60), sum(23*hour*10, 23*hour*10, 60, 60), "48.8758"},
	} {
		s := c.a
		s.Merge(c.b)
		if got := FloorDecimal(new(big.Rat).Mul(s.Errors(), big.NewRat(100, 1)), 4); got != c.want {
			t.Errorf("%s: %s %% errors, want %s", c.name, got, c.want)
		}
	}
}

func TestEventsArePrintedWithoutTrailingZeros(t *testing.T) {
	for _, c := range []struct {
		micro int64
		want  string
	}{
		{0, "0"}, {Micro, "1"}, {10 * Micro, "10"}, {1, "0.000001"}, {1_500_000, "1.5"}, {-2 * Micro, "-2"}, {-1, "-0.000001"},
		{math.MaxInt64, "9223372036854.775807"},
	} {
		if got := Events(NewInt128(c.micro)); got != c.want {
			t.Errorf("%d micro-events are %q, want %q", c.micro, got, c.want)
		}
	}
}

// sloth #489.
func TestPain19_BurnSaysInWordsWhenTheBudgetIsGone(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for _, c := range []struct{ burn, remaining, want string }{
		{"", "1", "no events to judge by"},
		{"1", "", "no events to judge by"},
		{"1", "0", "the budget is spent"},
		{"0", "-1/2", "the budget is spent"},
		{"0", "1", "nothing burns"},
		{"1/2", "1", "at this pace the budget lasts"},
		{"1", "1", "at this pace the budget lasts"},
		{"1001/1000", "1", "at this pace the budget is gone in 29 days"},
		{"2", "1", "at this pace the budget is gone in 15 days"},
		{"14.4", "1", "at this pace the budget is gone in 2 d 2 h"},
		{"1000", "1", "at this pace the budget is gone in 43 min"},
		{"120", "1", "at this pace the budget is gone in 6 h"},
		{"14.4", "1/100", "at this pace the budget is gone in 30 min"},
		{"1000000000000", "1", "at this pace the budget is gone in 0 s"},
	} {
		var burn, remaining *big.Rat
		if c.burn != "" {
			burn = rat(c.burn)
		}
		if c.remaining != "" {
			remaining = rat(c.remaining)
		}
		if got := BurnWords(burn, remaining, month); got != c.want {
			t.Errorf("burn %s with %s left says %q, want %q", c.burn, c.remaining, got, c.want)
		}
	}
}

func TestDurationIsPrintedInItsLargestUnits(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0 s"}, {500 * time.Millisecond, "0 s"}, {-500 * time.Millisecond, "0 s"}, {9 * time.Second, "9 s"}, {59*time.Second + 999*time.Millisecond, "59 s"},
		{time.Minute, "1 min"}, {51*time.Minute + 50*time.Second, "51 min"}, {time.Hour, "1 h"}, {90 * time.Minute, "1 h 30 min"},
		{10*time.Hour + 30*time.Minute, "10 h"}, {day - 1, "23 h"}, {day, "1 day"}, {day + time.Hour, "1 d 1 h"}, {52 * time.Hour, "2 d 4 h"},
		{10*day + 5*time.Hour, "10 days"}, {30 * day, "30 days"}, {-time.Hour, "-1 h"},
		{math.MinInt64, "-106751 days"}, // its negative does not fit
	} {
		if got := Duration(c.d); got != c.want {
			t.Errorf("%d ns are %q, want %q", c.d, got, c.want)
		}
	}
	for d, want := range map[time.Duration]string{
		5 * time.Minute: "5m", 30 * time.Minute: "30m", time.Hour: "1h", 90 * time.Minute: "90m", 24 * time.Hour: "1d", 72 * time.Hour: "3d",
		25 * time.Hour: "25h", 15 * time.Second: "15s",
	} {
		if got := WindowName(d); got != want {
			t.Errorf("window of %s is named %q, want %q", d, got, want)
		}
	}
}

func TestNoFigureOfAnySumIsNotANumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		any64 := rapid.Int64()
		var s Sum
		for range rapid.IntRange(0, 3).Draw(t, "minutes") { // revisions may leave anything
			s.Add(Counts{any64.Draw(t, "low"), any64.Draw(t, "high"), any64.Draw(t, "total"),
				any64.Draw(t, "expected"), any64.Draw(t, "counted"), any64.Draw(t, "timed")})
		}
		tg := Target{rapid.Int64Range(0, targetScale).Draw(t, "target")}
		lower, upper := s.Bounds()
		for _, r := range []*big.Rat{s.Good(), s.Errors(), s.Coverage(), s.TimedCoverage(), lower, upper, s.Burn(tg), s.Budget(tg).Remaining} {
			if text := string(JSON(r)); !json.Valid([]byte(text)) || strings.ContainsAny(text, "IN∞") {
				t.Fatalf("%v is %q in JSON", r, text)
			}
			_ = Percent(r, 2)
		}
		_ = BurnWords(s.Burn(tg), s.Budget(tg).Remaining, 24*time.Hour)
		_ = s.Verdict(tg)
	})
}

// sloth #531: 0/0 in one minute made the budget NaN for 30 days.
func TestPain02_MinuteWithoutEventsPoisonsNothing(t *testing.T) {
	var s Sum
	busy := Counts{GoodLow: 999 * Micro, GoodHigh: 999 * Micro, Total: 1000 * Micro, Expected: MinuteMillis, Counted: MinuteMillis, Timed: MinuteMillis}
	idle := Counts{Expected: MinuteMillis, Counted: MinuteMillis, Timed: MinuteMillis}
	for i := range 30 * 1440 {
		if i%2 == 0 {
			s.Add(busy)
		} else {
			s.Add(idle)
		}
	}
	three9 := target(t, "0.999")
	if !same(s.Good(), rat("0.999")) || !same(s.Burn(three9), rat("1")) || !same(s.Budget(three9).Remaining, rat("0")) || !same(s.Coverage(), rat("1")) {
		t.Errorf("ratio %v, burn %v, remaining %v, coverage %v; want 0.999, 1, 0 and 1", s.Good(), s.Burn(three9), s.Budget(three9).Remaining, s.Coverage())
	}
	if got := Percent(s.Budget(three9).Remaining, 2); got != "0.00 %" { // not -4.69e-12 %
		t.Errorf("a budget that is just spent is %q", got)
	}
}

// sloth #749: an objective of 100 % gave Inf.
func TestPain03_TargetOf100(t *testing.T) {
	all := target(t, "1")
	for _, c := range []struct {
		name      string
		s         Sum
		remaining string
		verdict   Verdict
		words     string
	}{
		{"no errors", sum(10, 10, 60, 60), "100.00 %", Met, "no events to judge by"},
		{"one error", sum(9, 10, 60, 60), NoValue, Missed, "no events to judge by"},
		{"no events", sum(0, 0, 60, 60), NoValue, NoEvents, "no events to judge by"},
	} {
		burn, b := c.s.Burn(all), c.s.Budget(all)
		if burn != nil || Percent(b.Remaining, 2) != c.remaining || c.s.Verdict(all) != c.verdict || BurnWords(burn, b.Remaining, time.Hour) != c.words {
			t.Errorf("%s: burn %v, remaining %s, %s, %s", c.name, burn, Percent(b.Remaining, 2), c.s.Verdict(all), BurnWords(burn, b.Remaining, time.Hour))
		}
		for _, tier := range Tiers {
			if tier.CanFire(all, 30*24*time.Hour) || tier.Firing(c.s, c.s, all, 30*24*time.Hour) {
				t.Errorf("%s: tier %s fires", c.name, tier.Name)
			}
		}
	}
}

// pyrra #448: no data looked like no errors for two weeks.
func TestPain08_NoDataIsNotNoErrors(t *testing.T) {
	three9 := target(t, "0.999")
	gone := sum(0, 0, 14*86400, 0) // expected, and not seen at all
	if gone.Good() != nil || gone.Verdict(three9) != NoEvents || !same(gone.Coverage(), rat("0")) || gone.Budget(three9).Remaining != nil {
		t.Errorf("two weeks without data: ratio %v, %s, coverage %v, remaining %v", gone.Good(), gone.Verdict(three9), gone.Coverage(), gone.Budget(three9).Remaining)
	}
	half := sum(1000, 1000, 28*86400, 14*86400) // all good, and then gone
	lower, upper := half.Bounds()
	if !same(lower, rat("0.5")) || !same(upper, rat("1")) {
		t.Errorf("half unseen: between %v and %v, want 0.5 and 1", lower, upper)
	}
}

// The edges of provider credits (EKS 99.95, 99.0, 95.0), which are strict: on
// the edge it is met, by the least that can be told below it is not.
func TestEdgeOfATierIsStrictToOneMicroEvent(t *testing.T) {
	for _, edge := range []string{"0.9995", "0.99", "0.95"} {
		tg := target(t, edge)
		at := func(total Int128, more int64) Sum {
			n := new(big.Int).Mul(total.Big(), tg.Rat().Num())
			good := fromBig(n.Quo(n, tg.Rat().Denom())).AddInt64(more)
			return Sum{GoodLow: good, GoodHigh: good, Total: total}
		}
		for _, total := range []Int128{NewInt128(1_000_000), NewInt128(9_000_000_000_000_000_000), {hi: 2_000_000 << 30}} {
			for more, want := range map[int64]Verdict{-1: Missed, 0: Met, 1: Met} {
				s := at(total, more)
				if got := s.Verdict(tg); got != want {
					t.Errorf("%d micro-events beside %s of %s is %q, want %q", more, edge, total, got, want)
				}
				for decimals := range 12 {
					if printed := rat(FloorDecimal(s.Good(), decimals)); more < 0 && printed.Cmp(tg.Rat()) >= 0 {
						t.Errorf("below %s of %s is printed as %s", edge, total, printed.FloatString(decimals))
					}
				}
			}
		}
		// One ulp of a float to either side, as an exact ratio.
		f, _ := tg.Rat().Float64()
		for _, side := range []float64{0, 1} {
			r := new(big.Rat).SetFloat64(math.Nextafter(f, side))
			s := Sum{GoodLow: fromBig(r.Num()), GoodHigh: fromBig(r.Num()), Total: fromBig(r.Denom())}
			if got, want := s.Verdict(tg), map[float64]Verdict{0: Missed, 1: Met}[side]; got != want {
				t.Errorf("one ulp towards %v of %s is %q, want %q", side, edge, got, want)
			}
		}
	}
}
