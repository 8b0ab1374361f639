package report

import (
	"fmt"
	"slices"

	"nines/pkg/sla"
)

// paragraph is one entry of the page that explains the figures.
type paragraph struct{ Head, Text string }

func (r Report) method(csvHash string) []paragraph {
	batch := "The ledger is empty."
	if r.Head.Seq > 0 {
		batch = fmt.Sprintf("Batch %d of term %d, booked %s, hash %s. The same ledger as of this batch gives this report again, byte for byte.",
			r.Head.Seq, r.Head.Term, r.AsOf().Format("2006-01-02T15:04:05Z"), r.Hash())
	}
	state := "The ledger has passed the end of the month. Samples that arrive late may still lead to a revision; it would have a later batch."
	if r.State == SoFar {
		state = "The ledger has not passed the end of the month. All figures are those of the part that is booked, budgets included, and verdicts can still change."
	}
	all := []paragraph{
		{"Period", "From " + r.PeriodText() + ". The last instant does not belong to it; days on which clocks change have 23 or 25 hours."},
		{"State", state},
		{"Source", batch},
		{"Counting", "Events are integers, taken from counters as they arrive and booked by the minute. Ratio is good events divided by all events of the month. It is divided once, at the end, and always rounded down: no figure is ever rounded up to a target, and verdicts compare exact numbers."},
		{"Coverage", fmt.Sprintf("The part of the expected source time whose events were counted. Time that nobody saw is neither good nor bad: with average traffic the true ratio lies between ratio × coverage and that plus what is missing of the coverage. Below %s coverage no target counts as met, and a missed one counts as missed only if the upper bound misses it too.", sla.Percent(r.MinCover, 0))},
		{"Budget", "The bad events that the target allows among the month's events. The burn-down shows how much of it was left; on the dashed line it would have lasted exactly the month."},
		{"Bad minute", "A minute with events and a ratio below the target, if at least half of its expected source time was timed, or if the objective counts a missing sample as a bad event."},
		{"No data", "Wall-clock time: of each minute the share of its expected source time that was not counted."},
		{"Days", "Good: the target was reached. At risk: reached, with half of the day's allowance gone or coverage below the minimum. Bad: below the target. No data: less than half of the expected time was counted."},
		{"Hottest hour", "The highest burn rate of any 60 minutes in a row: at 1 the budget lasts exactly the period."},
	}
	if r.readBack() {
		all = append(all, paragraph{"Read back", "Some minutes were not seen as they happened: they were counted later, by the same rules, from samples that another store had kept. The ledger names the store beside each of them (nines-aggregator ledger export)."})
	}
	return append(all, paragraph{"Made by", r.Program + ". The CSV of this report has the SHA-256 " + csvHash + "."})
}

// readBack reports whether a row holds minutes that were read back.
func (r Report) readBack() bool {
	return slices.ContainsFunc(r.Rows, func(row Row) bool { return row.Sum.Flags&sla.FlagReadBack != 0 })
}
