package openslo

import (
	"math/big"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// tiers checks that each figure below the promise is in exactly one tier.
func (a *agreement) tiers() {
	spec := a.doc.Spec.CreditTiers
	if !a.atMost(len(spec), maxCreditTiers, "creditTiers") {
		return
	}
	before := a.bad
	a.bad = false
	for i, t := range spec {
		idx := strconv.Itoa(i)
		for _, f := range []struct {
			key  string
			text decimal
		}{{"below", t.Below}, {"credit", t.Credit}} {
			if f.text == "" {
				a.fail("required", a.at("creditTiers", idx, f.key), "a credit tier needs %s, a percentage", f.key)
			}
		}
		var c CreditTier
		if t.Below != "" {
			c.Below = a.percent(t.Below, "creditTiers", idx, "below")
		}
		if t.Credit != "" {
			c.Credit = a.percent(t.Credit, "creditTiers", idx, "credit")
		}
		if r, err := exact(t.AtLeast, 1, 10); t.AtLeast != "" && (err != nil || r.Sign() != 0) { // 0 is where the last one may end
			c.Least = a.percent(t.AtLeast, "creditTiers", idx, "atLeast")
		}
		a.made.Tiers = append(a.made.Tiers, c)
	}
	if !a.bad && len(spec) > 0 {
		a.order()
	}
	a.bad = a.bad || before
}

func (a *agreement) order() {
	tiers := a.made.Tiers
	for i := range tiers {
		t, idx := &tiers[i], strconv.Itoa(i)
		given := a.doc.Spec.CreditTiers[i].AtLeast != ""
		if given && t.Least.Rat().Cmp(t.Below.Rat()) >= 0 {
			a.fail("tier-order", a.at("creditTiers", idx, "atLeast"), "no figure is below %s %% and at least %s %%: make atLeast the lower one", t.Below.Percent(), t.Least.Percent())
			continue
		}
		if i+1 == len(tiers) {
			if !t.Least.IsZero() {
				a.fail("tier-gap", a.at("creditTiers", idx, "atLeast"), "figures below %s %% are in no tier: take atLeast out of the last one, or add a tier below it", t.Least.Percent())
			}
			break
		}
		next, nextBelow := tiers[i+1], a.at("creditTiers", strconv.Itoa(i+1), "below")
		switch next.Below.Rat().Cmp(t.Below.Rat()) {
		case 0:
			a.fail("tier-overlap", nextBelow, "two tiers begin below %s %%: which credit is due is not clear; remove one", t.Below.Percent())
			continue
		case 1:
			a.fail("tier-order", nextBelow, "the tier below %s %% comes after that below %s %%: write the best figure first", next.Below.Percent(), t.Below.Percent())
			continue
		}
		if next.Credit.Rat().Cmp(t.Credit.Rat()) <= 0 {
			a.fail("tier-order", a.at("creditTiers", strconv.Itoa(i+1), "credit"), "a figure below %s %% gives a credit of %s %%, not more than the %s %% of the better tier before it: raise it, or join the two", next.Below.Percent(), next.Credit.Percent(), t.Credit.Percent())
		}
		switch {
		case !given:
			t.Least = next.Below
		case t.Least.Rat().Cmp(next.Below.Rat()) < 0:
			a.fail("tier-overlap", nextBelow, "figures from %s %% to below %s %% are in two tiers: end the one before it atLeast %s", t.Least.Percent(), next.Below.Percent(), next.Below.Percent())
		case t.Least.Rat().Cmp(next.Below.Rat()) > 0:
			a.fail("tier-gap", nextBelow, "figures from %s %% to below %s %% are in no tier: begin this one below %s", next.Below.Percent(), t.Least.Percent(), t.Least.Percent())
		}
	}
	first, below := a.at("creditTiers", "0", "below"), tiers[0].Below
	var unpaid *Promise
	for i, p := range a.made.Promises {
		switch below.Rat().Cmp(p.Target.Rat()) {
		case 1:
			a.fail("tier-overlap", first, "a credit is due below %s %% although objective %q of SLO %q promises %s %% and is kept: begin the first tier below the promise, or write an agreement of its own for the objective", below.Percent(), p.Objective, p.SLO, p.Target.Percent())
			return
		case -1:
			unpaid = &a.made.Promises[i]
		}
	}
	if unpaid != nil {
		a.warn("tier-gap", first, "objective %q of SLO %q is broken from %s %% to below %s %% without any credit: begin the first tier below %s", unpaid.Objective, unpaid.SLO, below.Percent(), unpaid.Target.Percent(), unpaid.Target.Percent())
	}
}

// amounts checks fee, cap, minimum and claimDeadline.
func (a *agreement) amounts() {
	spec := a.doc.Spec
	for key, given := range map[string]bool{"cap": spec.Cap != nil, "minimum": spec.Minimum != nil, "claimDeadline": spec.ClaimDeadline != ""} {
		if given && len(spec.CreditTiers) == 0 {
			a.warn("no-credit-tiers", a.at(key), "%s is about credits, and no creditTiers say when one is due: add them, or take it out", key)
		}
	}
	if spec.Fee != nil {
		a.made.Fee = &Money{Currency: spec.Fee.Currency, Amount: a.amount(spec.Fee.Amount, "fee", "amount")}
		if c := spec.Fee.Currency; len(c) != 3 || strings.Trim(c, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			a.fail("value", a.at("fee", "currency"), "currency is %q: want three capital letters as in ISO 4217, such as EUR", c)
		}
	}
	a.made.Cap = a.limit(spec.Cap, "cap")
	a.made.Minimum = a.limit(spec.Minimum, "minimum")
	if spec.ClaimDeadline != "" {
		a.made.ClaimDeadline = a.length(spec.ClaimDeadline, 24*time.Hour, 3*366*24*time.Hour, "claimDeadline")
	}
	least, most := a.made.Minimum, a.made.Cap
	if least != nil && most != nil {
		x, y, ok := a.comparable(least, most)
		if ok && x.Cmp(y) > 0 {
			a.fail("minimum-above-cap", a.at("minimum"), "no credit is ever paid: it is paid from %s on and limited to %s; lower the minimum or raise the cap", a.words(least), a.words(most))
		}
	}
	if n := len(a.made.Tiers); n > 0 && most != nil && !a.bad {
		highest := &Limit{Share: a.made.Tiers[n-1].Credit.Rat()}
		if x, y, ok := a.comparable(highest, most); ok && x.Cmp(y) > 0 {
			a.warn("tier-above-cap", a.at("creditTiers", strconv.Itoa(n-1), "credit"), "a credit of %s %% is more than the cap of %s: it is never paid in full; lower it or raise the cap", a.made.Tiers[n-1].Credit.Percent(), a.words(most))
		}
	}
}

// amount checks an amount of money: 0 or more, up to 15 digits and 4 decimals.
func (a *agreement) amount(text decimal, path ...string) *big.Rat {
	r, err := exact(text, 15, 4)
	if text == "" {
		a.fail("required", a.at(path...), "%s is missing: give an amount such as 1200.00", dotted(path))
		return nil
	}
	if err != nil || r.Sign() < 0 {
		a.fail("value", a.at(path...), "%s is %q: want an amount such as 1200.00, of up to 15 digits and 4 decimals", dotted(path), string(text))
		return nil
	}
	return r
}

func (a *agreement) limit(l *limit, key string) *Limit {
	switch {
	case l == nil:
		return nil
	case (l.Percent == "") == (l.Amount == ""):
		a.fail("value", a.at(key), "spec.%s needs percent (of the fee) or amount (in its currency), and not both", key)
		return nil
	case l.Percent != "":
		t := a.percent(l.Percent, key, "percent")
		if t.IsZero() {
			return nil
		}
		return &Limit{Share: t.Rat()}
	case a.doc.Spec.Fee == nil:
		a.fail("required", a.at(key, "amount"), "spec.%s.amount has no currency: give spec.fee, or percent instead of amount", key)
		return nil
	}
	if r := a.amount(l.Amount, key, "amount"); r != nil {
		return &Limit{Amount: r}
	}
	return nil
}

// comparable returns two limits in one unit, where there is one.
func (a *agreement) comparable(x, y *Limit) (p, q *big.Rat, ok bool) {
	if x.Share != nil && y.Share != nil {
		return x.Share, y.Share, true
	}
	money := func(l *Limit) *big.Rat {
		if l.Amount != nil {
			return l.Amount
		}
		return new(big.Rat).Mul(l.Share, a.made.Fee.Amount)
	}
	if a.made.Fee == nil || a.made.Fee.Amount == nil {
		return nil, nil, false
	}
	return money(x), money(y), true
}

func (a *agreement) words(l *Limit) string {
	if l.Share != nil {
		return trimmed(l.Share) + " % of the fee"
	}
	return l.Amount.FloatString(2) + " " + a.made.Fee.Currency
}

// trimmed writes a share as a percentage of up to 10 decimals, rounded down.
func trimmed(r *big.Rat) string {
	s := sla.FloorDecimal(new(big.Rat).Mul(r, big.NewRat(100, 1)), 10)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
