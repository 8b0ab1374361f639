// Package report turns one calendar month of the ledger into one Report, and
// the Report into CSV, PDF, HTML and JSON.
//
// It owns the month (in an IANA zone, half-open, safe across daylight saving),
// the verdict of each objective for it, and how both are drawn. Minutes enter
// through the narrow Book interface, read as of one revision; a Report leaves
// by Render or Write. It refuses to look at clocks: whoever builds a report
// passes now, and no renderer needs it, so that the same book at the same
// revision gives the same bytes, PDF included.
//
// What the figures mean:
//
//   - good, total, ratio, coverage and bounds are those of docs/counting.md
//     (R15, R16). A gap (R22) counts if all of it lies within the month, and in
//     a day if all of it lies within the day.
//   - A minute between two booked ones that itself was never booked is expected
//     time that nobody counted, as much of it as the minute before it expected.
//   - A bad minute is a judged minute with events and a ratio below the target.
//     A minute is judged if at least half of its expected source time is timed
//     (the limit of R17, below which an objective is unseen), or if the
//     objective's own rule booked bad events for samples that did not come (R18).
//   - No data is wall-clock time: of each minute the share of expected source
//     time that was not counted, and all of a minute that was never booked.
//   - The verdict compares exactly, never a rounded figure. Where coverage is
//     below the minimum, "met" becomes "inconclusive"; "missed" stays only if
//     the upper bound misses the target too.
package report
