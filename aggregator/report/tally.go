package report

import (
	"fmt"
	"math/big"
	"math/bits"
	"time"

	"nines/pkg/sla"
)

// burnStep is the distance of two points of the burn-down, in minutes.
const burnStep = 360

// hour is the window of the highest burn rate, in minutes.
const hour = 60

// tally adds up the minutes of one objective in one month, in ascending order.
type tally struct {
	target   sla.Target
	num, den uint64     // the target as a fraction
	from, to sla.Minute // of the month

	first, next sla.Minute // the first minute of the measured part, and the one that is due; both −1 before there is one
	expected    int64      // of the minute before
	sum         sla.Sum
	badMinutes  int64
	judged      int64
	noDataMs    int64
	unbooked    int64

	spans []span
	days  []Day
	day   int

	steps []sla.Int128 // bad events by step of the burn-down

	ring         [hour]struct{ bad, total sla.Int128 }
	ringAt       sla.Minute
	hBad, hTotal sla.Int128
	worst        *big.Rat // highest error ratio of an hour, nil before a bad event
}

func newTally(target sla.Target, m Month) *tally {
	share := target.Rat()
	t := &tally{target: target, num: share.Num().Uint64(), den: share.Denom().Uint64(), from: sla.MinuteOf(m.Start()), to: sla.MinuteOf(m.End()), first: -1, next: -1, spans: m.days()}
	for _, s := range t.spans {
		t.days = append(t.days, Day{Date: s.date})
	}
	t.steps = make([]sla.Int128, (t.to-t.from+burnStep-1)/burnStep)
	return t
}

// dayOf returns the day that holds m; minutes come in order.
func (t *tally) dayOf(m sla.Minute) int {
	for t.day < len(t.spans)-1 && m >= t.spans[t.day].to {
		t.day++
	}
	return t.day
}

// skip books the minutes from the due one to before m as expected and unseen.
func (t *tally) skip(m sla.Minute) {
	if t.next < 0 || m <= t.next {
		return
	}
	if t.first < 0 {
		t.first = t.next
	}
	expected := t.expected
	if expected == 0 && t.sum.Minutes == 0 {
		// Nothing of this month says yet how much is expected: at least one source.
		expected = sla.MinuteMillis
	}
	for ; t.next < m; t.next++ {
		c := sla.Counts{Expected: expected}
		t.sum.Revise(c)
		t.days[t.dayOf(t.next)].Sum.Revise(c)
		t.unbooked++
		if expected > 0 {
			t.noDataMs += sla.MinuteMillis
		}
	}
}

func (t *tally) minute(m sla.Minute, f sla.Figures) error {
	if m < t.from || m >= t.to || t.sum.Minutes > 0 && m < t.next {
		return fmt.Errorf("the book passed minute %s out of order", m.Time().Format(time.RFC3339))
	}
	if t.next < 0 {
		t.next = m
	}
	t.skip(m)
	if t.first < 0 {
		t.first = m
	}
	t.next, t.expected = m+1, f.Expected

	d := t.dayOf(m)
	day := &t.days[d]
	t.sum.Add(f.Counts)
	day.Sum.Add(f.Counts)
	t.sum.Flags |= f.Flags
	if f.Expected > 0 {
		t.noDataMs += sla.MinuteMillis * max(0, f.Expected-f.Counted) / f.Expected
	}
	if f.Timed > 0 && f.Timed >= f.Expected-f.Timed || f.Flags&sla.FlagAbsent != 0 {
		t.judged++
		if t.below(f.Counts) {
			t.badMinutes++
			day.BadMinutes++
		}
	}
	step := &t.steps[(m-t.from)/burnStep]
	*step = step.AddInt64(f.Total).Sub(sla.NewInt128(f.GoodHigh))
	t.enterHour(m, m, f.Total-f.GoodHigh, f.Total)
	for _, g := range f.Gaps {
		if g.From < t.from || g.To >= t.to {
			continue
		}
		c := sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total}
		t.sum.Revise(c)
		if g.From >= t.spans[d].from && g.To < t.spans[d].to {
			day.Sum.Revise(c)
		}
		*step = step.AddInt64(g.Total).Sub(sla.NewInt128(g.GoodHigh))
		t.enterHour(m, g.From, g.Total-g.GoodHigh, g.Total)
	}
	t.judgeHour(m)
	return nil
}

func (t *tally) below(c sla.Counts) bool {
	if c.Total <= 0 || c.GoodHigh >= c.Total {
		return false
	}
	if c.GoodHigh <= 0 {
		return true
	}
	// good ÷ total < num ÷ den, multiplied out in 128 bits: exact, and without
	// the garbage of a rational for each minute.
	gHi, gLo := bits.Mul64(uint64(c.GoodHigh), t.den)
	tHi, tLo := bits.Mul64(uint64(c.Total), t.num)
	return gHi < tHi || gHi == tHi && gLo < tLo
}

// enterHour adds events to the window of the 60 minutes that end with m. They
// leave it with minute from: a gap is in as long as all of it is (R22).
func (t *tally) enterHour(m, from sla.Minute, bad, total int64) {
	if t.ringAt == 0 || m-t.ringAt >= hour {
		t.ring, t.hBad, t.hTotal = [hour]struct{ bad, total sla.Int128 }{}, sla.Int128{}, sla.Int128{}
		t.ringAt = m
	}
	for t.ringAt < m {
		t.ringAt++
		old := &t.ring[t.ringAt%hour]
		t.hBad, t.hTotal = t.hBad.Sub(old.bad), t.hTotal.Sub(old.total)
		old.bad, old.total = sla.Int128{}, sla.Int128{}
	}
	if m-from >= hour {
		return
	}
	slot := &t.ring[from%hour]
	slot.bad, slot.total = slot.bad.AddInt64(bad), slot.total.AddInt64(total)
	t.hBad, t.hTotal = t.hBad.AddInt64(bad), t.hTotal.AddInt64(total)
}

func (t *tally) judgeHour(m sla.Minute) {
	if m-t.first+1 < hour || t.hBad.Sign() <= 0 {
		return
	}
	if e := sla.Ratio(t.hBad, t.hTotal); e != nil && (t.worst == nil || e.Cmp(t.worst) > 0) {
		t.worst = e
	}
}

// row closes the tally.
func (t *tally) row(r *Report) Row {
	row := Row{
		Sum: t.sum, Budget: t.sum.Budget(t.target), Verdict: verdict(t.sum, t.target, r.MinCover),
		From: t.first, To: t.next, BadMinutes: t.badMinutes, JudgedMinutes: t.judged,
		NoData: time.Duration(t.noDataMs) * time.Millisecond, Unbooked: t.unbooked, Days: t.days,
	}
	if t.first < 0 {
		row.From, row.To = t.from, t.from
	}
	for i := range t.days {
		t.days[i].State = dayState(t.days[i], t.target, r.MinCover)
		if t.spans[i].from >= row.To && r.State == SoFar {
			t.days[i].State = Ahead
		}
	}
	if t.target.IsAll() || t.target.IsZero() {
		return row
	}
	switch {
	case t.worst != nil:
		row.MaxBurn = new(big.Rat).Quo(t.worst, t.target.BudgetRat())
	case row.To-row.From >= hour && t.sum.Total.Sign() > 0:
		row.MaxBurn = new(big.Rat)
	}
	if row.Budget.Remaining == nil {
		return row
	}
	row.Burndown = append(row.Burndown, Point{row.From.Time(), big.NewRat(1, 1)})
	var bad sla.Int128
	for i, b := range t.steps {
		bad = bad.Add(b)
		end := min(t.from+sla.Minute(i+1)*burnStep, t.to, row.To)
		if end <= row.From {
			continue
		}
		spent := new(big.Rat).SetInt(bad.Big())
		spent.Quo(spent, row.Budget.Allowed)
		row.Burndown = append(row.Burndown, Point{end.Time(), spent.Sub(big.NewRat(1, 1), spent)})
		if end == row.To {
			break
		}
	}
	return row
}

func dayState(d Day, target sla.Target, minCoverage *big.Rat) DayState {
	ratio, coverage := d.Sum.Good(), d.Sum.Coverage()
	half := big.NewRat(1, 2)
	switch {
	case ratio != nil && ratio.Cmp(target.Rat()) < 0:
		return Bad
	case coverage == nil || coverage.Cmp(half) < 0:
		return NoData
	case coverage.Cmp(minCoverage) < 0:
		return AtRisk
	}
	if burn := d.Sum.Burn(target); burn != nil && burn.Cmp(half) >= 0 {
		return AtRisk
	}
	return Good
}
