package metric

// Series that agent/collect/targets exposes.
const (
	AgentPods            = "nines_agent_pods"
	AgentPodMonitors     = "nines_agent_pod_monitors"
	AgentPodJobs         = "nines_agent_pod_scrape_jobs"
	AgentPodProblems     = "nines_agent_pod_scrape_problems"
	AgentPodChanges      = "nines_agent_pod_scrape_changes_total"
	AgentPodRefsFailures = "nines_agent_pod_scrape_secret_failures_total"
)

var targetDefs = []Def{
	{AgentPods, Gauge, "", nil, "Pods of this node that the API server told of and that have an address."},
	{AgentPodMonitors, Gauge, "", nil, "PodMonitors of the cluster that the configuration selects."},
	{AgentPodJobs, Gauge, "", nil, "Scrape jobs that pods of this node have: one for annotations, and one for each endpoint of a PodMonitor that selects a pod here."},
	{AgentPodProblems, Gauge, "", nil, "Endpoints of PodMonitors that are not scraped as written because something is wrong with them, such as a Secret that cannot be read."},
	{AgentPodChanges, Counter, "", nil, "How often what is scraped did change."},
	{AgentPodRefsFailures, Counter, "", nil, "Secrets, ConfigMaps and nodes that could not be read, each try."},
}
