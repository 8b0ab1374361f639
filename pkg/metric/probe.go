package metric

// Series that agent/collect/probe exposes about itself. What a probe finds goes
// out under the names of blackbox_exporter.
const (
	AgentProbes           = "nines_agent_probes_total"
	AgentProbesMissed     = "nines_agent_probes_missed_total"
	AgentProbesRunning    = "nines_agent_probes_running"
	AgentProbeTargets     = "nines_agent_probe_targets"
	AgentProbesNotQueued  = "nines_agent_probes_not_queued_total"
	AgentProbesUnfinished = "nines_agent_probes_unfinished_total"
)

// Results of AgentProbes.
const (
	ProbeSucceeded = "success"
	ProbeFailed    = "failure"
)

var probeDefs = []Def{
	{AgentProbes, Counter, "", []string{"result"},
		"Probes that ended, by what they found of their target: success or failure."},
	{AgentProbesMissed, Counter, "", nil,
		"Probes that were due while the one before of the same target still ran, or while all slots were taken."},
	{AgentProbesRunning, Gauge, "", nil,
		"Probes that run at the moment."},
	{AgentProbeTargets, Gauge, "", nil,
		"Targets in the configuration."},
	{AgentProbesNotQueued, Counter, "", nil,
		"Probes whose results could not be put into the queue; they show on the page of the newest results alone."},
	{AgentProbesUnfinished, Counter, "", nil,
		"Probes without a result because the agent stopped while they ran."},
}
