package sla

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"
)

// NoValue is printed where a figure does not exist, as a ratio of no events.
const NoValue = "–"

// Ratio returns num/den as an exact rational, or nil where den is 0 or less:
// a figure that does not exist is never NaN or Inf (sloth #531).
func Ratio(num, den Int128) *big.Rat {
	if den.Sign() <= 0 {
		return nil
	}
	return new(big.Rat).SetFrac(num.Big(), den.Big())
}

// Good returns the ratio of good events that pages and budgets use, good_high
// ÷ total, or nil without events (R16).
func (s Sum) Good() *big.Rat { return Ratio(s.GoodHigh, s.Total) }

// Errors returns the ratio of bad events, or nil without events.
func (s Sum) Errors() *big.Rat { return Ratio(s.Total.Sub(s.GoodHigh), s.Total) }

// Coverage returns counted ÷ expected, or nil where nothing was expected (R15).
func (s Sum) Coverage() *big.Rat { return Ratio(s.Counted, s.Expected) }

// TimedCoverage returns timed ÷ expected, or nil where nothing was expected.
func (s Sum) TimedCoverage() *big.Rat { return Ratio(s.Timed, s.Expected) }

// Bounds returns lower = ratio × coverage and upper = lower + 1 − coverage,
// which assume that the unseen time had average traffic (R16). Both are nil
// where the ratio or the coverage does not exist.
func (s Sum) Bounds() (lower, upper *big.Rat) {
	ratio, coverage := s.Good(), s.Coverage()
	if ratio == nil || coverage == nil {
		return nil, nil
	}
	lower = new(big.Rat).Mul(ratio, coverage)
	upper = new(big.Rat).Add(lower, new(big.Rat).Sub(big.NewRat(1, 1), coverage))
	return lower, upper
}

// Burn returns the burn rate, error ratio ÷ (1 − target), or nil where there
// were no events or the target leaves no budget.
func (s Sum) Burn(t Target) *big.Rat {
	e := s.Errors()
	if e == nil || t.IsAll() || t.IsZero() {
		return nil
	}
	return e.Quo(e, t.BudgetRat())
}

// Verdict is the answer to "did it reach its target?".
type Verdict string

const (
	Met          Verdict = "met"
	Missed       Verdict = "missed"
	Inconclusive Verdict = "inconclusive"
	NoEvents     Verdict = "no events"
)

// Verdict compares exactly: met needs good_low to reach the target, missed
// that good_high does not, and between them it is inconclusive (R16).
func (s Sum) Verdict(t Target) Verdict {
	high := s.Good()
	if high == nil {
		return NoEvents
	}
	if high.Cmp(t.Rat()) < 0 {
		return Missed
	}
	if Ratio(s.GoodLow, s.Total).Cmp(t.Rat()) < 0 {
		return Inconclusive
	}
	return Met
}

// Budget is what may fail in a period, in micro-events of the period's events
// so far.
type Budget struct {
	// Allowed is (1 − target) × total, exact.
	Allowed *big.Rat
	// Bad is total − good_high.
	Bad Int128
	// Remaining is 1 − bad ÷ allowed: 1 is untouched, 0 is spent, below 0 is
	// overspent. It is nil without events, or where a target of 100 % has no
	// budget; with such a target and no bad events it is 1.
	Remaining *big.Rat
}

// Budget returns the budget of the sum against a target.
func (s Sum) Budget(t Target) Budget {
	b := Budget{Bad: s.Total.Sub(s.GoodHigh)}
	b.Allowed = new(big.Rat).Mul(t.BudgetRat(), new(big.Rat).SetInt(s.Total.Big()))
	switch {
	case s.Total.Sign() <= 0:
	case b.Allowed.Sign() > 0:
		spent := new(big.Rat).SetInt(b.Bad.Big())
		b.Remaining = new(big.Rat).Sub(big.NewRat(1, 1), spent.Quo(spent, b.Allowed))
	case b.Bad.Sign() <= 0:
		b.Remaining = big.NewRat(1, 1)
	}
	return b
}

// FloorDecimal prints r with the given number of decimals, rounded toward
// minus infinity, so that no figure is ever rounded up to a target. nil is
// NoValue.
func FloorDecimal(r *big.Rat, decimals int) string {
	if r == nil {
		return NoValue
	}
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
	n := new(big.Int).Mul(r.Num(), scale)
	q := new(big.Int).Div(n, r.Denom()) // Euclidean, and the denominator is positive: floor
	neg := q.Sign() < 0
	s := q.Abs(q).String()
	if len(s) <= decimals {
		s = strings.Repeat("0", decimals+1-len(s)) + s
	}
	if decimals > 0 {
		s = s[:len(s)-decimals] + "." + s[len(s)-decimals:]
	}
	if neg {
		s = "-" + s
	}
	return s
}

// Percent prints r as a percentage with the given number of decimals, rounded
// down: Percent(99949/100000, 2) is "99.94 %". nil is NoValue.
func Percent(r *big.Rat, decimals int) string {
	if r == nil {
		return NoValue
	}
	return FloorDecimal(new(big.Rat).Mul(r, big.NewRat(100, 1)), decimals) + " %"
}

// Events prints micro-events as events, with up to 6 decimals and no trailing
// zeros.
func Events(micro Int128) string {
	s := FloorDecimal(new(big.Rat).SetFrac(micro.Big(), big.NewInt(Micro)), 6)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// BurnWords says what a burn rate means for a person: "at this pace the budget
// is gone in 6 h". burn is the current rate, remaining the share of the budget
// that is left, period the length of the SLO's window (sloth #489).
func BurnWords(burn, remaining *big.Rat, period time.Duration) string {
	switch {
	case burn == nil || remaining == nil:
		return "no events to judge by"
	case remaining.Sign() <= 0:
		return "the budget is spent"
	case burn.Sign() <= 0:
		return "nothing burns"
	}
	left := new(big.Rat).Mul(remaining, new(big.Rat).SetInt64(int64(period)))
	left.Quo(left, burn)
	if left.Cmp(new(big.Rat).SetInt64(int64(period))) >= 0 {
		return "at this pace the budget lasts"
	}
	f, _ := left.Float64()
	return "at this pace the budget is gone in " + Duration(time.Duration(f))
}

// Duration prints a duration in its one or two largest units: "30 days",
// "2 d 4 h", "51 min", "9 s".
func Duration(d time.Duration) string {
	switch {
	case d <= -time.Second:
		return "-" + Duration(-max(d, -math.MaxInt64)) // the least Duration has no opposite
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 24*time.Hour:
		if m := d % time.Hour / time.Minute; m > 0 && d < 10*time.Hour {
			return fmt.Sprintf("%d h %d min", d/time.Hour, m)
		}
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	days, hours := d/(24*time.Hour), d%(24*time.Hour)/time.Hour
	switch {
	case hours > 0 && days < 10:
		return fmt.Sprintf("%d d %d h", days, hours)
	case days == 1:
		return "1 day"
	}
	return fmt.Sprintf("%d days", days)
}

// Span prints seconds in all of their units, "43 min 12 s": under a minute to
// the hundredth, under an hour to the second, else to the minute, rounded down,
// or up with up. nil is NoValue.
func Span(seconds *big.Rat, up bool) string {
	if seconds == nil {
		return NoValue
	}
	round := func(per int64) *big.Int { // the whole units of 1/per seconds, or of -per seconds
		r := new(big.Rat).Mul(seconds, big.NewRat(per, 1))
		if per < 0 {
			r.Quo(seconds, big.NewRat(-per, 1))
		}
		if up {
			r.Neg(r)
		}
		n := new(big.Int).Div(r.Num(), r.Denom())
		if up {
			n.Neg(n)
		}
		return n
	}
	if n := round(100); n.Cmp(big.NewInt(60*100)) < 0 {
		s := FloorDecimal(new(big.Rat).SetFrac(n, big.NewInt(100)), 2)
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") + " s"
	}
	n := round(1)
	if n.Cmp(big.NewInt(3600)) >= 0 {
		n = round(-60)
		n.Mul(n, big.NewInt(60))
	}
	var parts []string
	for _, u := range []struct {
		seconds int64
		name    string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}} {
		q, rest := new(big.Int).QuoRem(n, big.NewInt(u.seconds), new(big.Int))
		if q.Sign() > 0 {
			parts = append(parts, q.String()+" "+u.name)
		}
		n = rest
	}
	return strings.Join(parts, " ")
}

// JSON prints r as a JSON number with 9 decimals, rounded down, or as null.
func JSON(r *big.Rat) json.RawMessage {
	if r == nil {
		return json.RawMessage("null")
	}
	return json.RawMessage(FloorDecimal(r, 9))
}

// WindowName prints a window's length as Prometheus does: "5m", "1h", "3d".
func WindowName(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit && d%u.unit == 0 {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return d.String()
}
