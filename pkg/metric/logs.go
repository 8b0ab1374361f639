package metric

// Series that agent/logs and agent/ship expose: the delivery identity
// seen = stored + dead_lettered + dropped + in_flight + unread + lost.
const (
	AgentLogRecords       = "nines_agent_log_records_total"
	AgentLogBytes         = "nines_agent_log_bytes"
	AgentLogGaps          = "nines_agent_log_gaps_total"
	AgentLogCut           = "nines_agent_log_cut_bytes_total"
	AgentLogFiles         = "nines_agent_log_files"
	AgentLogUnreadable    = "nines_agent_log_unreadable_files"
	AgentLogCheckpoint    = "nines_agent_log_checkpoint_seconds"
	AgentLogRequests      = "nines_agent_log_requests_total"
	AgentLogSentBytes     = "nines_agent_log_sent_bytes_total"
	AgentLogAlreadyStored = "nines_agent_log_already_stored_total"
	AgentLogDiverted      = "nines_agent_log_diverted_total"
	AgentLogRemoved       = "nines_agent_log_removed_total"
	AgentLogHeld          = "nines_agent_log_held"
)

var logDefs = []Def{
	{AgentLogRecords, Counter, "", []string{"verdict"},
		"Log records by final verdict: stored, dead_lettered, dropped by a rule, or lost; what is lost before it could be read counts as one record for each gap."},
	{AgentLogBytes, Gauge, "bytes", []string{"path", "state"},
		"Bytes of a followed path and its rotated generations by state: seen is the sum of stored, dead_lettered, dropped, in_flight, unread and lost. Out of the checkpoint, so a restart does not change it. Paths beyond 200 are together in path other."},
	{AgentLogGaps, Counter, "", nil,
		"Times that a file was rotated or cut away before all of it was read."},
	{AgentLogCut, Counter, "bytes", nil,
		"Bytes cut off the end of records longer than 1 MiB; their records are counted whole."},
	{AgentLogFiles, Gauge, "", nil,
		"Files that are followed, rotated generations included."},
	{AgentLogUnreadable, Gauge, "", nil,
		"Files that match a source and cannot be followed: no permission, no regular file, or above the bound of followed files."},
	{AgentLogCheckpoint, Gauge, "seconds", nil,
		"Age of the checkpoint's newest change that is not on disk yet, 0 when all is."},
	{AgentLogRequests, Counter, "", []string{"result"},
		"Bulk requests by result: ok, retried in part or whole, or held until somebody repairs something."},
	{AgentLogSentBytes, Counter, "bytes", nil,
		"Bytes of bulk requests that were answered, compressed."},
	{AgentLogAlreadyStored, Counter, "", nil,
		"Records that the destination already had under their own _id; they count as stored, too."},
	{AgentLogDiverted, Counter, "", nil,
		"Records that the destination put into its failure store; they count as stored, too."},
	{AgentLogRemoved, Counter, "", nil,
		"Records removed with the oldest NDJSON file, of the destination files or of the dead letters, because the bound was reached."},
	{AgentLogHeld, Gauge, "", nil,
		"1 while records wait for somebody to repair the destination or its credentials, else 0."},
}

// States of AgentLogBytes; verdicts of AgentLogRecords are some of them.
const (
	LogSeen         = "seen"
	LogStored       = "stored"
	LogDeadLettered = "dead_lettered"
	LogDropped      = "dropped"
	LogInFlight     = "in_flight"
	LogUnread       = "unread"
	LogLost         = "lost"
)
