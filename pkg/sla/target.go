package sla

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// targetScale is the number of units in 1: a Target is exact to 12 decimals.
const targetScale = 1_000_000_000_000

// Target is the share of good events that an objective promises, exact to 12
// decimals. It is read from decimal text and never passes through a float, so
// that 1 − 0.999 is 0.001 (sloth #517).
type Target struct{ units int64 }

// ParseTarget reads a ratio such as "0.999". It refuses what is not a plain
// decimal, has more than 12 decimals, or is not in 0 < target ≤ 1.
func ParseTarget(s string) (Target, error) { return parseTarget(s, 12) }

// ParseTargetPercent reads a percentage such as "99.9".
func ParseTargetPercent(s string) (Target, error) { return parseTarget(s, 10) }

func parseTarget(s string, decimals int) (Target, error) {
	bad := func(why string) (Target, error) {
		return Target{}, fmt.Errorf("target %q %s", s, why)
	}
	t := strings.TrimSpace(s)
	whole, frac, _ := strings.Cut(t, ".")
	if whole == "" && frac == "" || strings.Trim(whole+frac, "0123456789") != "" {
		return bad("is not a plain decimal number such as 0.999 (or targetPercent: 99.9)")
	}
	frac = strings.TrimRight(frac, "0")
	if len(frac) > decimals {
		return bad(fmt.Sprintf("has more than %d decimals: leave the last ones out", decimals))
	}
	digits := strings.TrimLeft(whole+frac+strings.Repeat("0", decimals-len(frac)), "0")
	const above = "is above 100 %: write 0.999 as target, or targetPercent: 99.9"
	if len(digits) > 13 {
		return bad(above)
	}
	var u int64
	for _, c := range digits {
		u = u*10 + int64(c-'0')
	}
	if u > targetScale {
		return bad(above)
	}
	if u == 0 {
		return bad("is 0: any ratio reaches it, so it promises nothing")
	}
	return Target{u}, nil
}

// IsZero reports whether the target was never set.
func (t Target) IsZero() bool { return t.units == 0 }

// IsAll reports whether the target is 100 %: it has no budget and no burn rate.
func (t Target) IsAll() bool { return t.units == targetScale }

// Rat returns the target as an exact rational.
func (t Target) Rat() *big.Rat { return big.NewRat(t.units, targetScale) }

// BudgetRat returns 1 − target as an exact rational.
func (t Target) BudgetRat() *big.Rat { return big.NewRat(targetScale-t.units, targetScale) }

// String returns the ratio without trailing zeros: "0.999".
func (t Target) String() string { return decimal(t.units, 12) }

// Percent returns the percentage without trailing zeros and without a sign:
// "99.9".
func (t Target) Percent() string { return decimal(t.units, 10) }

// Budget returns 1 − target without trailing zeros: "0.001".
func (t Target) Budget() string { return decimal(targetScale-t.units, 12) }

func decimal(units int64, decimals int) string {
	s := fmt.Sprintf("%0*d", decimals+1, units)
	whole, frac := s[:len(s)-decimals], strings.TrimRight(s[len(s)-decimals:], "0")
	if frac == "" {
		return whole
	}
	return whole + "." + frac
}

// MarshalJSON writes the ratio as a JSON number.
func (t Target) MarshalJSON() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalJSON reads a ratio from the text of a JSON number.
func (t *Target) UnmarshalJSON(b []byte) (err error) {
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	if n == "0" {
		*t = Target{}
		return nil
	}
	*t, err = ParseTarget(n.String())
	return err
}
