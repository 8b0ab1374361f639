package report

import (
	"fmt"
	"math/big"
	"sort"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// How figures are said to people. HTML and PDF share these words.

const stamp = "2006-01-02 15:04 MST"

// Title returns the objective's title, or its SLO's name.
func (r Row) Title() string {
	if r.Objective.Title != "" {
		return r.Objective.Title
	}
	return r.Objective.SLO
}

// Place returns service, namespace and group of the objective in one line.
func (r Row) Place() string {
	var parts []string
	for _, p := range []string{r.Objective.Service, r.Objective.Namespace, group(r.Objective.Group)} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, " · ")
}

// group prints group labels in order of their names: "region=eu,zone=b".
func group(labels map[string]string) string {
	names := make([]string, 0, len(labels))
	for n := range labels {
		names = append(names, n)
	}
	sort.Strings(names)
	for i, n := range names {
		names[i] = n + "=" + labels[n]
	}
	return strings.Join(names, ",")
}

// decimals returns how many decimals a percentage needs beside the target: one
// more than the target has, so that a ratio rounded down under the target also
// reads as under it.
func decimals(t sla.Target) int {
	_, frac, _ := strings.Cut(t.Percent(), ".")
	return max(2, len(frac)+1)
}

// Ratio returns the ratio for people, rounded down.
func (r Row) Ratio() string { return sla.Percent(r.Sum.Good(), decimals(r.Objective.Target)) }

// Target returns the target as a percentage.
func (r Row) Target() string { return r.Objective.Target.Percent() + " %" }

// BudgetLeft says how much of the budget is left.
func (r Row) BudgetLeft() string {
	left := r.Budget.Remaining
	switch {
	case r.Sum.Total.Sign() <= 0:
		return sla.NoValue
	case r.Objective.Target.IsAll() && r.Budget.Bad.Sign() > 0:
		return "has none" // 100 % was promised
	case left == nil:
		return sla.NoValue
	case left.Sign() < 0:
		return "overspent: " + r.spent()
	}
	return sla.Percent(left, 1)
}

// spent says how often the budget was used up: "2.9 times".
func (r Row) spent() string {
	used := new(big.Rat).Sub(big.NewRat(1, 1), r.Budget.Remaining)
	return thousands(sla.FloorDecimal(used, 1)) + " times"
}

// Coverage returns the coverage as a percentage, rounded down.
func (r Row) Coverage() string { return sla.Percent(r.Sum.Coverage(), 2) }

// TimedCoverage returns the timed coverage as a percentage, rounded down.
func (r Row) TimedCoverage() string { return sla.Percent(r.Sum.TimedCoverage(), 2) }

// Bounds returns both bounds of the ratio, or "" where coverage is whole.
func (r Row) Bounds() string {
	low, high := r.Sum.Bounds()
	if low == nil || low.Cmp(high) == 0 {
		return ""
	}
	n := decimals(r.Objective.Target)
	return sla.Percent(low, n) + " to " + sla.Percent(high, n)
}

// Events returns good of total events.
func (r Row) Events() string {
	return thousands(sla.Events(r.Sum.GoodHigh)) + " of " + thousands(sla.Events(r.Sum.Total))
}

// NoDataText returns the unseen time in words.
func (r Row) NoDataText() string {
	switch {
	case r.To == r.From:
		return sla.NoValue
	case r.NoData == 0:
		return "none"
	case r.NoData < time.Second:
		return "under 1 s"
	}
	return sla.Duration(r.NoData)
}

// Change returns the difference to the month before in percentage points.
func (r Row) Change() string {
	now := r.Sum.Good()
	if now == nil || r.Previous == nil {
		return sla.NoValue
	}
	d := new(big.Rat).Sub(now, r.Previous)
	if d.Sign() == 0 {
		return "unchanged"
	}
	sign := "+"
	if d.Sign() < 0 {
		sign = "−"
	}
	points := sla.FloorDecimal(d.Mul(d.Abs(d), big.NewRat(100, 1)), decimals(r.Objective.Target))
	if strings.Trim(points, "0.") == "" {
		return "nearly unchanged"
	}
	return sign + points + " points"
}

// changeWords sets the change behind the ratio, where there is one.
func (r Row) changeWords() string {
	if c := r.Change(); c != sla.NoValue {
		return "; to last month: " + c
	}
	return ""
}

// MaxBurnText returns the highest burn rate of an hour.
func (r Row) MaxBurnText() string {
	if r.MaxBurn == nil {
		return sla.NoValue
	}
	return thousands(sla.FloorDecimal(r.MaxBurn, 1)) + "×"
}

// StripWords says what the strip of days shows.
func (r Row) StripWords() string {
	n := map[DayState]int{}
	for _, d := range r.Days {
		n[d.State]++
	}
	var parts []string
	for _, s := range []DayState{Good, AtRisk, Bad, NoData, Ahead} {
		if n[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	return "Days: " + strings.Join(parts, ", ")
}

// measured says which part of the month was measured, "" where it is all.
func (r Report) measured(row Row) string {
	from, to := sla.MinuteOf(r.Month.Start()), sla.MinuteOf(r.Month.End())
	local := func(m sla.Minute) string { return m.Time().In(r.Month.zone).Format("2 January 15:04") }
	switch {
	case row.From == row.To:
		return "not measured yet"
	case row.From > from && row.To < to:
		return "measured from " + local(row.From) + " to " + local(row.To)
	case row.From > from:
		return "measured from " + local(row.From)
	case row.To < to && r.State == Complete:
		return "measured to " + local(row.To)
	}
	return ""
}

// thousands puts thin spaces between groups of three digits.
func thousands(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "−", s[1:]
	}
	whole, frac, dot := strings.Cut(s, ".")
	var b strings.Builder
	for i, c := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteRune('\u00a0')
		}
		b.WriteRune(c)
	}
	if dot {
		b.WriteString("." + frac)
	}
	return sign + b.String()
}

// AsOfText says as of which batch the figures are.
func (r Report) AsOfText() string {
	if r.Head.At == 0 {
		return "nothing is booked yet"
	}
	return r.AsOf().In(r.Month.zone).Format(stamp)
}

// PeriodText returns first and last instant with the zone.
func (r Report) PeriodText() string {
	const day = "2 January 2006 15:04"
	return r.Month.Start().Format(day) + " to " + r.Month.End().Format(day) + ", " + r.Month.Timezone()
}

// count returns how many rows have a verdict.
func (r Report) count(v sla.Verdict) int {
	n := 0
	for _, row := range r.Rows {
		if row.Verdict == v {
			n++
		}
	}
	return n
}

// worst returns the rows with the most urgent first: missed by budget spent,
// then inconclusive, then met by budget left, then those without events.
func (r Report) worst() []Row {
	rank := map[sla.Verdict]int{sla.Missed: 0, sla.Inconclusive: 1, sla.Met: 2, sla.NoEvents: 3}
	rows := append([]Row(nil), r.Rows...)
	sort.SliceStable(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		if rank[a.Verdict] != rank[b.Verdict] {
			return rank[a.Verdict] < rank[b.Verdict]
		}
		switch {
		case a.Budget.Remaining == nil || b.Budget.Remaining == nil:
			// Without a budget (a target of 100 %) any bad event is too many.
			return a.Budget.Remaining == nil && b.Budget.Remaining != nil && a.Sum.Total.Sign() > 0
		}
		return a.Budget.Remaining.Cmp(b.Budget.Remaining) < 0
	})
	return rows
}

// summarise writes the three sentences of the first page.
func (r Report) summarise() []string {
	if len(r.Rows) == 0 {
		return []string{
			fmt.Sprintf("No objective was measured in %s.", r.Month.Name()),
			"So there is no verdict: time without data is neither good nor bad.",
			"Objectives appear here as soon as the aggregator has an SLO and has booked its first minute.",
		}
	}
	return []string{r.sayVerdicts(), r.sayWorst(), r.sayCoverage()}
}

func (r Report) sayVerdicts() string {
	in := "In " + r.Month.Name()
	if r.State == SoFar {
		in += " so far"
	}
	met, missed, open, none := r.count(sla.Met), r.count(sla.Missed), r.count(sla.Inconclusive), r.count(sla.NoEvents)
	if len(r.Rows) == 1 {
		switch {
		case met == 1:
			return in + ", the one objective met its target."
		case missed == 1:
			return in + ", the one objective missed its target."
		case open == 1:
			return in + ", the one objective has an inconclusive result: too little of it was seen."
		}
		return in + ", the one objective had no events to judge."
	}
	var s string
	switch met {
	case len(r.Rows):
		return fmt.Sprintf("%s, all %d objectives met their targets.", in, met)
	case 0:
		s = fmt.Sprintf("%s, none of %d objectives is known to have met its target", in, len(r.Rows))
	case 1:
		s = fmt.Sprintf("%s, 1 of %d objectives met its target", in, len(r.Rows))
	default:
		s = fmt.Sprintf("%s, %d of %d objectives met their targets", in, met, len(r.Rows))
	}
	var rest []string
	if missed > 0 {
		rest = append(rest, fmt.Sprintf("%d missed", missed))
	}
	if open > 0 {
		rest = append(rest, count(open, "is inconclusive", "are inconclusive"))
	}
	if none > 0 {
		rest = append(rest, strconv.Itoa(none)+" had no events")
	}
	return s + ": " + strings.Join(rest, ", ") + "."
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (r Report) sayWorst() string {
	w := r.worst()[0]
	name := "“" + w.Title() + "”"
	switch w.Verdict {
	case sla.Missed:
		s := fmt.Sprintf("The furthest from its promise is %s: %s of %s were good against a target of %s", name, w.Ratio(), "its events", w.Target())
		if left := w.Budget.Remaining; left != nil {
			s += fmt.Sprintf(", its error budget was used %s over", w.spent())
		}
		return s + fmt.Sprintf(", and it had %s.", count64(w.BadMinutes, "bad minute", "bad minutes"))
	case sla.Inconclusive:
		return fmt.Sprintf("The least certain is %s: %s of its events were good against a target of %s, but only %s of its time was seen.", name, w.Ratio(), w.Target(), w.Coverage())
	case sla.Met:
		if w.Budget.Remaining == nil {
			return fmt.Sprintf("The tightest is %s with %s against a target of %s.", name, w.Ratio(), w.Target())
		}
		return fmt.Sprintf("The tightest is %s: %s against a target of %s, with %s of its error budget left.", name, w.Ratio(), w.Target(), w.BudgetLeft())
	}
	return "No objective had an event, so no budget was used."
}

func count64(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(strconv.FormatInt(n, 10)) + " " + many
}

func (r Report) sayCoverage() string {
	var least *Row
	for i := range r.Rows {
		c := r.Rows[i].Sum.Coverage()
		if c != nil && (least == nil || c.Cmp(least.Sum.Coverage()) < 0) {
			least = &r.Rows[i]
		}
	}
	s := "How much was seen is not known yet."
	switch {
	case least == nil:
	case least.Sum.Coverage().Cmp(big.NewRat(1, 1)) >= 0:
		s = "All of the expected time was seen"
	case len(r.Rows) == 1:
		s = least.Coverage() + " of the expected time was seen"
	default:
		s = fmt.Sprintf("At least %s of the expected time was seen, the least at “%s”", least.Coverage(), least.Title())
	}
	if least == nil {
		return s
	}
	if r.State == SoFar {
		return s + "; the month is not over, these are the figures as of " + r.AsOfText() + "."
	}
	return s + "."
}
