package metric

// Series that agent/collect/cgroup exposes about itself.
const (
	CgroupsGiven      = "nines_agent_cgroups"
	CgroupsLeftOut    = "nines_agent_cgroups_left_out"
	CgroupReadFailure = "nines_agent_cgroup_read_failures_total"
)

var cgroupDefs = []Def{
	{CgroupsGiven, Gauge, "", nil,
		"Cgroups about which the newest tick gave samples."},
	{CgroupsLeftOut, Gauge, "", nil,
		"Cgroups that the newest tick left out because there were more than its bound, or because they lay too deep."},
	{CgroupReadFailure, Counter, "", []string{"reason"},
		"Files of cgroups that gave nothing by reason: unreadable, malformed or too_large. Files that a kernel does not have are not counted."},
}
