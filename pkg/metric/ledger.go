package metric

// Series that are projections of the ledger into the metric store. They are
// never read as truth. Beside the label below they carry the SLO's own labels.
const (
	LedgerGood     = "nines_ledger_good"
	LedgerTotal    = "nines_ledger_total"
	LedgerCounted  = "nines_ledger_counted"
	LedgerTimed    = "nines_ledger_timed"
	LedgerExpected = "nines_ledger_expected"
)

var ledgerDefs = []Def{
	{LedgerGood, Gauge, "", []string{"objective_id"}, "Good events of the objective's newest booked minute."},
	{LedgerTotal, Gauge, "", []string{"objective_id"}, "Events of the objective's newest booked minute."},
	{LedgerCounted, Gauge, "", []string{"objective_id"}, "Source-seconds of the newest booked minute whose events are all counted."},
	{LedgerTimed, Gauge, "", []string{"objective_id"}, "Source-seconds of the newest booked minute whose events are counted and known to the minute."},
	{LedgerExpected, Gauge, "", []string{"objective_id"}, "Source-seconds of the newest booked minute in which sources were expected to report."},
}
