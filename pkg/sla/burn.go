package sla

import (
	"math/big"
	"math/bits"
	"time"
)

// Tier is one pair of burn-rate windows: it fires while the burn of both its
// long and its short window is above the threshold.
type Tier struct {
	Name     string // fast, medium, slow, long
	Severity string // page, ticket
	Long     time.Duration
	Short    time.Duration
	// Share is the part of the period's budget that is spent when a steady
	// burn at the threshold has filled the long window.
	Share *big.Rat
}

// Tiers are the four pairs of the SRE workbook, chapter 5, table 5-8.
var Tiers = []Tier{
	{"fast", "page", time.Hour, 5 * time.Minute, big.NewRat(2, 100)},
	{"medium", "page", 6 * time.Hour, 30 * time.Minute, big.NewRat(5, 100)},
	{"slow", "ticket", 24 * time.Hour, 2 * time.Hour, big.NewRat(10, 100)},
	{"long", "ticket", 72 * time.Hour, 6 * time.Hour, big.NewRat(10, 100)},
}

// Threshold returns the burn of the tier for an SLO period: budget share ×
// period ÷ long window. For 30 days these are 14.4, 6, 3 and 1.
func (t Tier) Threshold(period time.Duration) *big.Rat {
	r := big.NewRat(int64(period), int64(t.Long))
	return r.Mul(r, t.Share)
}

// CanFire reports whether the tier can fire at all: burn is at most
// 1 ÷ (1 − target), so a threshold at or above that never is exceeded
// (sloth #341).
func (t Tier) CanFire(target Target, period time.Duration) bool {
	if target.IsAll() {
		return false
	}
	errors, total, ok := t.factors(target, period)
	if !ok {
		most := new(big.Rat).Inv(target.BudgetRat())
		return t.Threshold(period).Cmp(most) < 0
	}
	return total.less(errors)
}

// Pace is how something goes bad, for Detect: a steady error ratio, from none at
// once, with even traffic.
type Pace struct {
	Ratio *big.Rat // of bad ones, above 0, at most 1
	// Step is 0 where each event counts at once, else how long an observation or
	// a slice takes: only whole ones count.
	Step time.Duration
	// Whole tells that each step is good or bad, and that the bad ones come at
	// even distances; else each counts with its ratio.
	Whole bool
}

// Detect returns after how many seconds the tier fires: (1 − target) ÷ ratio ×
// long window × threshold (SRE workbook, chapter 5). It is nil where the tier
// never fires: the burn of the ratio does not exceed the threshold, or the long
// window is longer than the period.
func (t Tier) Detect(p Pace, target Target, period time.Duration) *big.Rat {
	if t.Long > period {
		return nil
	}
	return p.detect(t.Threshold(period), target, t.Long, t.Short, false)
}

// Detect returns after how many seconds the policy fires, After among them, or
// nil where it never does.
func (p Policy) Detect(pace Pace, target Target) *big.Rat {
	limit, err := p.Burn()
	if err != nil || p.Quiet {
		return nil
	}
	seconds := pace.detect(limit, target, p.Lookback, p.Lookback, p.AtLeast)
	if seconds == nil {
		return nil
	}
	return seconds.Add(seconds, inSeconds(p.After))
}

// detect returns after how many seconds the burn of both windows is above the
// threshold, or, with atLeast, at it.
func (p Pace) detect(threshold *big.Rat, target Target, longWindow, shortWindow time.Duration, atLeast bool) *big.Rat {
	if p.Ratio.Sign() <= 0 || target.IsAll() || target.IsZero() {
		return nil
	}
	long, one := inSeconds(longWindow), inSeconds(p.Step)
	spent := new(big.Rat).Mul(threshold, target.BudgetRat())
	if p.Step > 0 && p.Whole {
		// As many bad ones must fit into each window, and one distance less
		// lies between them than they are.
		fits := func(window time.Duration) (*big.Rat, bool) {
			n := steps(new(big.Rat).Mul(spent, inSeconds(window)), one, atLeast)
			span := new(big.Rat).Sub(n, big.NewRat(1, 1))
			span.Add(span.Quo(span.Mul(span, one), p.Ratio), one)
			return n, span.Cmp(inSeconds(window)) <= 0
		}
		n, ok := fits(longWindow)
		if _, short := fits(shortWindow); !ok || !short && p.Step <= shortWindow {
			return nil
		}
		return n.Quo(n.Mul(n, one), p.Ratio)
	}
	after := spent.Quo(spent.Mul(spent, long), p.Ratio)
	if c := after.Cmp(long); c > 0 || c == 0 && !atLeast {
		return nil
	}
	if p.Step > 0 {
		n := steps(after, one, atLeast)
		if after = n.Mul(n, one); after.Cmp(long) > 0 {
			return nil
		}
	}
	return after
}

func inSeconds(d time.Duration) *big.Rat { return big.NewRat(int64(d), int64(time.Second)) }

// steps returns the least number of steps, at least one, that are more than r,
// which is not negative, or, with atLeast, as much.
func steps(r, step *big.Rat, atLeast bool) *big.Rat {
	n := new(big.Rat).Quo(r, step)
	whole := new(big.Int).Quo(n.Num(), n.Denom())
	if !atLeast || whole.Sign() == 0 || !n.IsInt() {
		whole.Add(whole, big.NewInt(1))
	}
	return new(big.Rat).SetInt(whole)
}

// Firing reports whether both windows burn above the threshold. It is asked
// for each tier of each objective once a minute, so that it is exact without
// big numbers and returns at once where a window has no errors.
func (t Tier) Firing(long, short Sum, target Target, period time.Duration) bool {
	if target.IsAll() || target.IsZero() || long.Total.Sign() <= 0 || short.Total.Sign() <= 0 {
		return false // no burn rate
	}
	errors, total, ok := t.factors(target, period)
	if !ok {
		return t.firing(long, short, target, period)
	}
	bad, badShort := long.Total.Sub(long.GoodHigh), short.Total.Sub(short.GoodHigh)
	if bad.Sign() <= 0 || badShort.Sign() <= 0 {
		return false // the threshold is above 0
	}
	above := func(bad, all Int128) bool {
		return all.uint().times(total).less(bad.uint().times(errors))
	}
	return above(bad, long.Total) && above(badShort, short.Total)
}

// firing is Firing by its definition, for tiers and sums of any size.
func (t Tier) firing(long, short Sum, target Target, period time.Duration) bool {
	limit := t.Threshold(period)
	l, s := long.Burn(target), short.Burn(target)
	return l != nil && s != nil && l.Cmp(limit) > 0 && s.Cmp(limit) > 0
}

// factors turns burn > threshold into integers:
//
//	bad ÷ all ÷ (1 − target) > share × period ÷ long window
//	bad × errors > all × total
//
// where errors is 1 × long window × the share's denominator and total is
// (1 − target) × period × its numerator, both in units of the target. ok is
// false where they do not fit.
func (t Tier) factors(target Target, period time.Duration) (errors, total uint128, ok bool) {
	const most = 1 << 24 // targetScale has 40 bits
	num, den := t.Share.Num(), t.Share.Denom()
	if t.Long <= 0 || period <= 0 || !num.IsInt64() || !den.IsInt64() {
		return errors, total, false
	}
	n, d := num.Int64(), den.Int64()
	if n <= 0 || n >= most || d >= most {
		return errors, total, false
	}
	errors.hi, errors.lo = bits.Mul64(targetScale*uint64(d), uint64(t.Long))
	total.hi, total.lo = bits.Mul64(uint64(targetScale-target.units)*uint64(n), uint64(period))
	return errors, total, true
}

// uint128 is an integer of 128 bits, 0 or above.
type uint128 struct{ hi, lo uint64 }

func (a uint128) less(b uint128) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// uint returns a, which must not be negative.
func (a Int128) uint() uint128 { return uint128{uint64(a.hi), a.lo} }

// uint256 is an integer of 256 bits, its lowest word first.
type uint256 [4]uint64

// times returns a × b, which always fits.
func (a uint128) times(b uint128) (p uint256) {
	var mid, carry uint64
	h, l := bits.Mul64(a.lo, b.lo)
	p[0], mid = l, h
	h, l = bits.Mul64(a.hi, b.lo)
	mid, carry = bits.Add64(mid, l, 0)
	top := h + carry // h is at most 2⁶⁴ − 2
	h, l = bits.Mul64(a.lo, b.hi)
	p[1], carry = bits.Add64(mid, l, 0)
	h, carry = h+carry, 0
	top, carry = bits.Add64(top, h, 0)
	h, l = bits.Mul64(a.hi, b.hi)
	p[2], top = bits.Add64(top, l, 0)
	p[3] = h + top + carry
	return p
}

func (a uint256) less(b uint256) bool {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
