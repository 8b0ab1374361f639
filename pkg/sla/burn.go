package sla

import (
	"math/big"
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
	most := new(big.Rat).Inv(target.BudgetRat())
	return t.Threshold(period).Cmp(most) < 0
}

// Firing reports whether both windows burn above the threshold.
func (t Tier) Firing(long, short Sum, target Target, period time.Duration) bool {
	limit := t.Threshold(period)
	l, s := long.Burn(target), short.Burn(target)
	return l != nil && s != nil && l.Cmp(limit) > 0 && s.Cmp(limit) > 0
}
