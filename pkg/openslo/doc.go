// Package openslo owns the specification: OpenSLO v1 documents, decoded
// strictly, checked, and turned into objectives; and the conversions to
// Prometheus rules and from Sloth's files.
//
// It refuses to evaluate. Documents enter as files; objectives leave for the
// evaluator, and findings (path:line:column) for people. What is valid OpenSLO
// but not evaluated by this version is an error with its place: nothing is
// accepted and then ignored.
//
// Decisions where OpenSLO v1 is silent:
//   - A list of objectives in one SLO makes one objective each; its name is its
//     displayName, or its index where it has none.
//   - target and targetPercent are read as decimal text, never through a float.
//   - A month of a duration window (1M) is a calendar unit; it needs
//     isRolling: false and a calendar with a time zone.
//   - A query that is neither a raw counter nor a histogram is evaluated once a
//     minute and its value taken as events per second; check warns of it, for
//     such minutes are marked as sampled and cannot decide event credits. Where
//     one side of a ratio is such a query, both sides are evaluated so.
//   - Native and classic histograms do not mix in one ratio.
//   - The annotation nines.internal/group-by makes one objective of each
//     combination of label values, up to nines.internal/max-groups.
//   - labels may be a string or a list of strings; a list is joined by commas.
package openslo
