package metric

// Series that agent/logs and agent/ship expose: the delivery identity
// seen = stored + dead_lettered + dropped + in_flight + unread + lost.
const (
	AgentLogRecords = "nines_agent_log_records_total"
)

var logDefs = []Def{
	{AgentLogRecords, Counter, "", []string{"verdict"},
		"Log records by final verdict: stored, dead_lettered, dropped by a rule, or lost."},
}
