// Package dashboards builds one Grafana dashboard for each role that has data,
// out of the objectives that are evaluated.
//
// It owns which question a role asks, which expression answers it, and what a
// panel says when there is nothing to show. Objectives enter Build; a Board, a
// small model of rows and panels of our own, leaves it, and JSON renders that
// as dashboard v1 through Grafana's foundation SDK. The package is pure: it
// reads no clock, no store and no Grafana, so that the same objectives give the
// same bytes. Figures of the month come from the projection of the ledger into
// the store; the truth is the ledger and its report.
package dashboards
