package metric

// Series that agent/logs and agent/ship expose. All have the label destination.
//
// Those of the account are kept in the checkpoint of their destination, so that
// a restart does not change them: the delivery identity is
// seen = stored + dead_lettered + dropped + in_flight + unread + lost.
const (
	LogBytes        = "nines_log_bytes"
	LogRecords      = "nines_log_records"
	LogSeenBytes    = "nines_log_seen_bytes"
	LogSeenRecords  = "nines_log_seen_records"
	LogBytesTotal   = "nines_log_bytes_total"
	LogRecordsTotal = "nines_log_records_total"

	LogDroppedRecords = "nines_log_dropped_records_total"
	LogLostBytes      = "nines_log_lost_bytes_total"
	LogGaps           = "nines_log_gaps_total"
	LogCutBytes       = "nines_log_cut_bytes_total"

	LogFiles         = "nines_log_files"
	LogUnreadable    = "nines_log_unreadable_files"
	LogOpenFiles     = "nines_log_open_files"
	LogWatches       = "nines_log_watches"
	LogCheckpointAge = "nines_log_checkpoint_age_seconds"
	LogOldest        = "nines_log_oldest_unacknowledged_seconds"
	LogNoMetadata    = "nines_log_records_without_metadata_total"
	LogSpoolBytes    = "nines_log_spool_bytes"

	LogRequests         = "nines_log_requests_total"
	LogSentBytes        = "nines_log_sent_bytes_total"
	LogAlreadyStored    = "nines_log_already_stored_records_total"
	LogDuplicates       = "nines_log_duplicate_records_total"
	LogDiverted         = "nines_log_diverted_records_total"
	LogRemoved          = "nines_log_removed_records_total"
	LogHeld             = "nines_log_held"
	LogConcurrency      = "nines_log_concurrent_requests_limit"
	LogDeadLetterBytes  = "nines_log_dead_letter_bytes"
	LogRedrivenRecords  = "nines_log_redriven_records_total"
	LogHostsUnreachable = "nines_log_hosts_unreachable"
)

// States of LogBytes and LogRecords. Those of the _total series are final:
// stored, dead_lettered, dropped and lost.
const (
	LogStored       = "stored"
	LogDeadLettered = "dead_lettered"
	LogDropped      = "dropped"
	LogInFlight     = "in_flight"
	LogUnread       = "unread"
	LogLost         = "lost"
)

// LogSinceBirth are the counters whose values outlive the process: they start
// when the state folder was made.
func LogSinceBirth(name string) bool {
	switch name {
	case LogBytesTotal, LogRecordsTotal, LogDroppedRecords, LogLostBytes, LogGaps:
		return true
	}
	return false
}

var (
	byDestination = []string{"destination"}
	byState       = []string{"destination", "state"}
	byReason      = []string{"destination", "reason"}
)

var logDefs = []Def{
	{LogBytes, Gauge, "bytes", byState,
		"Bytes of followed files by state, rotated generations included: stored, dead_lettered, dropped, in_flight, unread and lost add up to what was seen. Out of the checkpoint, so a restart does not change it."},
	{LogRecords, Gauge, "", byState,
		"Records by state: stored, dead_lettered, dropped, in_flight and lost add up to what was seen; unread is always 0, since bytes that were not read are no records yet. What is lost before it could be read counts as one record for each loss."},
	{LogSeenBytes, Gauge, "bytes", byDestination,
		"Bytes of followed files that were seen, measured by the sizes of files and not by the sum of states."},
	{LogSeenRecords, Gauge, "", byDestination,
		"Records that were made of what was read, and one for each loss."},
	{LogBytesTotal, Counter, "bytes", byState,
		"Bytes of followed files by final state: stored, dead_lettered, dropped by a rule, or lost. It counts since the agent's state folder was made. Dead letters that are sent again are stored, too."},
	{LogRecordsTotal, Counter, "", byState,
		"Log records by final state: stored, dead_lettered, dropped by a rule, or lost; what is lost before it could be read counts as one record for each loss. It counts since the agent's state folder was made."},
	{LogDroppedRecords, Counter, "", byReason,
		"Records dropped by a rule, by the rule."},
	{LogLostBytes, Counter, "bytes", byReason,
		"Bytes that went away before they were read, by how: rotated, truncated, or released (a deleted file that was held for too long)."},
	{LogGaps, Counter, "", byDestination,
		"Times that a file was rotated or cut away before all of it was known to be read."},
	{LogCutBytes, Counter, "bytes", byDestination,
		"Bytes cut off the end of records longer than 1 MiB; their records are counted whole."},
	{LogFiles, Gauge, "", byDestination,
		"Files that are followed, rotated generations included."},
	{LogUnreadable, Gauge, "", byDestination,
		"Files that match a source and cannot be followed: no permission, no regular file, or above the bound of followed files."},
	{LogOpenFiles, Gauge, "", byDestination,
		"Files that are open. Those without news are closed and watched."},
	{LogWatches, Gauge, "", byDestination,
		"Folders and files that the kernel tells changes of (inotify). What it does not tell is found by a look at all files."},
	{LogCheckpointAge, Gauge, "seconds", byDestination,
		"Age of the checkpoint's oldest change that is not on disk yet, 0 when all is."},
	{LogOldest, Gauge, "seconds", byDestination,
		"For how long the oldest record on its way has been waiting for a verdict, 0 without one."},
	{LogNoMetadata, Counter, "", byDestination,
		"Records of pods that were sent without the pod's labels, because these were not known in time."},
	{LogSpoolBytes, Gauge, "bytes", byDestination,
		"Bytes of rotated files that were copied into the spool, so that no rotation removes them while the destination is away."},
	{LogRequests, Counter, "", []string{"destination", "result"},
		"Bulk requests by result: ok, retried in part or whole, or held until somebody repairs something."},
	{LogSentBytes, Counter, "bytes", byDestination,
		"Bytes of bulk requests that were answered, as they went over the wire."},
	{LogAlreadyStored, Counter, "", byDestination,
		"Records that the destination already had under their own _id; they count as stored, too."},
	{LogDuplicates, Counter, "", byDestination,
		"Records that stand twice in a data stream, because it rolled over between two attempts to store them; they count as stored once."},
	{LogDiverted, Counter, "", byDestination,
		"Records that the destination put into its failure store; they count as stored, too."},
	{LogRemoved, Counter, "", byDestination,
		"Records removed with the oldest NDJSON file, of the destination files or of the dead letters, because the bound was reached."},
	{LogHeld, Gauge, "", byDestination,
		"1 while records wait for somebody to repair the destination or its credentials, else 0."},
	{LogConcurrency, Gauge, "", byDestination,
		"Bulk requests that may be under way at the same time: fewer after a 429, more again with each success."},
	{LogDeadLetterBytes, Gauge, "bytes", byDestination,
		"Bytes of dead letters on disk."},
	{LogRedrivenRecords, Counter, "", byDestination,
		"Dead letters that were sent again by nines-agent redrive and stored."},
	{LogHostsUnreachable, Gauge, "", byDestination,
		"Addresses of the destination that did not answer their newest request."},
}
