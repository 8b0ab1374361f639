// Package sla is the arithmetic of Nines: objectives and their identity,
// minutes, sums, targets, coverage, bounds, budgets and burn rates.
//
// It owns every formula that turns counts into a figure that a person reads.
// It refuses clocks, files and networks: all of its functions are pure. Counts
// enter as integers (micro-events and source-milliseconds), are added in 128
// bits and are divided once, exactly, at the edge; text leaves it already
// rounded, never up to a target.
//
// The rules that it implements are docs/counting.md, R3, R9, R15 and R16.
package sla
