package metric

// Series that agent/collect/otlp exposes about itself.
const (
	AgentOTLPRequests   = "nines_agent_otlp_requests_total"
	AgentOTLPPoints     = "nines_agent_otlp_points_total"
	AgentOTLPSamples    = "nines_agent_otlp_samples_total"
	AgentOTLPAttributes = "nines_agent_otlp_dropped_attributes_total"
	AgentOTLPRunning    = "nines_agent_otlp_requests_running"
)

// Results of AgentOTLPRequests.
const (
	OTLPOK          = "ok"
	OTLPPartial     = "partial"     // some points were rejected, or there is a warning
	OTLPInvalid     = "invalid"     // it cannot be read, or is of a kind that is not taken
	OTLPTooLarge    = "too_large"   // in bytes, in parts, or in samples that it makes
	OTLPBusy        = "busy"        // as many as may be under way are
	OTLPUnavailable = "unavailable" // the queue did not take it; the sender tries again
)

// Results of AgentOTLPPoints beside OTLPAccepted are reasons of a refusal.
const (
	OTLPAccepted    = "accepted"
	OTLPDelta       = "delta"        // delta temporality, and nothing is set that turns it into cumulative
	OTLPDeltaState  = "delta_state"  // deltas that come too late, or of more streams than are kept
	OTLPTemporality = "temporality"  // neither cumulative nor delta
	OTLPNoTime      = "no_timestamp" // without the time of the point
	OTLPFuture      = "future"       // further ahead than clocks go wrong
	OTLPTooOld      = "too_old"      // older than any sender keeps points
	OTLPUntellable  = "untranslatable"
)

var otlpDefs = []Def{
	{AgentOTLPRequests, Counter, "", []string{"transport", "result"},
		"OTLP requests by transport (http or grpc) and result: ok, partial, invalid, too_large, busy, or unavailable where the queue did not take the samples. What gRPC itself refuses for its size is not counted."},
	{AgentOTLPPoints, Counter, "", []string{"result"},
		"Data points of OTLP requests by result: accepted, which means queued on disk, or the reason of the refusal."},
	{AgentOTLPSamples, Counter, "", nil,
		"Samples that were made of accepted data points and queued: a classic histogram's point makes one for each bucket and two more."},
	{AgentOTLPAttributes, Counter, "", nil,
		"Attributes of resources that were left out because their value is too long or no text."},
	{AgentOTLPRunning, Gauge, "", nil,
		"OTLP requests that are under way."},
}
