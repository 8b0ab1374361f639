package metric

// Series that agent/daemon and agent/forward expose.
const (
	AgentBuildInfo        = "nines_agent_build_info"
	AgentHeartbeats       = "nines_agent_heartbeats_total"
	AgentTicks            = "nines_agent_ticks_total"
	AgentTicksMissed      = "nines_agent_ticks_missed_total"
	AgentTickDuration     = "nines_agent_tick_duration_seconds"
	AgentMetricSamples    = "nines_agent_metric_samples_total"
	AgentMetricRequests   = "nines_agent_metric_requests_total"
	AgentQueueBytes       = "nines_agent_metric_queue_bytes"
	AgentQueueLimit       = "nines_agent_metric_queue_limit_bytes"
	AgentQueueSamples     = "nines_agent_metric_queue_samples"
	AgentQueueOldest      = "nines_agent_metric_queue_oldest_seconds"
	AgentQueueTorn        = "nines_agent_metric_queue_torn_total"
	AgentQueueWriteErrors = "nines_agent_metric_queue_write_errors_total"
)

// Verdicts of AgentMetricSamples.
const (
	SampleSent     = "sent"     // the destination answered with success
	SampleRejected = "rejected" // the destination said that it will never take it
	SampleDropped  = "dropped"  // the queue was full, could not be written or was damaged
)

var agentDefs = []Def{
	{AgentBuildInfo, Gauge, "", []string{"version", "revision", "go_version"},
		"Always 1; the labels say which build of the agent runs."},
	{AgentHeartbeats, Counter, "", nil,
		"UTC minutes in which the agent collected at least once since it started."},
	{AgentTicks, Counter, "", []string{"result"},
		"Ticks by result: ok, or failed where samples could not be queued."},
	{AgentTicksMissed, Counter, "", nil,
		"Ticks that were due while the one before still ran, or while the host slept."},
	{AgentTickDuration, Gauge, "seconds", nil,
		"How long the newest tick took to collect and queue its samples."},
	{AgentMetricSamples, Counter, "", []string{"destination", "verdict"},
		"Samples by their final verdict: sent, rejected by the destination, or dropped from a full or damaged queue."},
	{AgentMetricRequests, Counter, "", []string{"destination", "result"},
		"Remote-write requests by result: ok, retried, rejected, or downgraded to version 1.0 of the protocol."},
	{AgentQueueBytes, Gauge, "bytes", []string{"destination"},
		"Bytes of the queue on disk that the destination has not yet acknowledged."},
	{AgentQueueLimit, Gauge, "bytes", nil,
		"Bytes that the queue on disk may take before the oldest samples are dropped."},
	{AgentQueueSamples, Gauge, "", []string{"destination"},
		"Samples in the queue that the destination has not yet acknowledged."},
	{AgentQueueOldest, Gauge, "seconds", []string{"destination"},
		"Age of the oldest sample that the destination has not yet acknowledged, 0 with an empty queue."},
	{AgentQueueTorn, Counter, "", nil,
		"Damaged places found when the queue was opened or read; what followed each in its segment was given up."},
	{AgentQueueWriteErrors, Counter, "", nil,
		"Batches that could not be written to the queue; their samples are counted as dropped."},
}
