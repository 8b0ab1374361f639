// Package server is the aggregator as one running program: its configuration,
// its wiring in one straight line, its tick, and what people and programs see
// over HTTP (the page, the API, health and metrics).
//
// It alone knows every part. Samples enter through the receiver of
// aggregator/store, pass the evaluator on the append hook and end as minutes
// in the ledger; the tick closes minutes, moves alerts and draws the board
// that the page shows. It refuses arithmetic: figures come from pkg/sla.
package server
