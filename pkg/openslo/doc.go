// Package openslo owns the specification: OpenSLO v1 documents of all seven
// kinds, decoded strictly, checked, and turned into objectives; our own kinds
// beside them (nines/v1: Agreement, Exclusion, KPI), decoded and checked; the JSON
// schemas of all; and the conversions to Prometheus rules and from other formats.
//
// It refuses to evaluate. Documents enter as files; objectives leave for the
// evaluator, and findings (path:line:column) for people. What is valid OpenSLO
// but not evaluated by this version is an error with its place: nothing is
// accepted and then ignored, and what is taken for something else, or not used,
// is a warning.
//
// Decisions where OpenSLO v1 is silent, or its text and examples disagree;
// docs/openslo.md has them with their reasons:
//   - A list of objectives in one SLO makes one objective each; its name is its
//     displayName, or its index where it has none.
//   - target and targetPercent are read as decimal text, never through a float.
//     A target of 0 is refused, one of 100 % is taken with a warning.
//   - What the text requires and its examples leave out has a default, and a
//     warning: Occurrences, and rolling 30 days.
//   - A window that is not rolling belongs to a calendar. Without a startTime it
//     is a natural day, week, month, quarter or year (or 2, 3, 4 or 6 months);
//     with one, windows of any length are counted from it by the zone's clock.
//   - A query that is neither a raw counter nor a histogram is evaluated at the
//     end of each minute and its value taken as events per second; check warns of
//     it, for such minutes are marked as sampled and cannot decide event credits.
//     Where one side of a ratio is such a query, both sides are evaluated so.
//   - A thresholdMetric and a raw ratio are observed at the end of each minute,
//     each series of the result by itself.
//   - Native and classic histograms do not mix in one ratio.
//   - Time slices tile the UTC day. A slice is judged where half of its time was
//     seen; one that was seen and had no events is good, and has no ratio.
//   - Objectives with indicators or weights of their own make one more together,
//     named composite: weighted, or by the annotation nines.internal/composite
//     all-of or any-of, minute by minute (or slice by slice).
//   - Alert policies take the place of the four tiers. What they do not say of
//     breaches, ends and missing data is yes.
//   - A metricSourceRef names the language of a query (Prometheus); samples are
//     sent to this program, so that connectionDetails are not used.
//   - The annotation nines.internal/group-by makes one objective of each
//     combination of label values, up to nines.internal/max-groups.
//   - labels may be a string or a list of strings; a list is joined by commas.
package openslo
