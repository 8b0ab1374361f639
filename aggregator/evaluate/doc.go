// Package evaluate turns samples into minutes and minutes into windows.
//
// It owns the rules of counting (docs/counting.md, R1 to R23 and R29): which
// increments a counter showed, to which minute they belong, how much source
// time was expected, counted and timed, when a minute closes, what a late
// sample corrects, and what each window holds at `now`.
//
// Samples enter once, through Observe, on the store's append hook (R1). Raw
// samples are read back in one case alone: to build an objective's state again
// (at a start, for a new objective, after late or out-of-order samples). Both
// ways lead through the same tally, so that a minute derived live and a minute
// derived again are the same integers. Closed minutes leave to the ledger, in
// one atomic batch a tick; figures leave as States.
//
// It refuses to store, alert or draw anything, and it asks no clock: `now` is
// an argument.
package evaluate
