package metric

import "slices"

// Series that agent/collect/kubelet makes of the kubelet's summary of its pods,
// where the kubelet's own pages have no series. The three families of names
// each end in one of StorageFigures, as in nines_pod_volume_used_bytes.
const (
	KubeletSummaryUp  = "nines_kubelet_summary_up"
	KubeletRequests   = "nines_agent_kubelet_requests_total"
	KubeletPodsLeft   = "nines_agent_kubelet_pods_left_out_total"
	PodEphemeral      = "nines_pod_ephemeral_storage"
	ContainerWritable = "nines_container_writable_layer"
	PodVolume         = "nines_pod_volume"
)

// StorageFigures are the ends of names of series about storage, in the order
// in which agent/collect/kubelet reads them.
func StorageFigures() []string {
	return []string{"available_bytes", "capacity_bytes", "inodes", "inodes_free", "inodes_used", "used_bytes"}
}

var kubeletDefs = slices.Concat([]Def{
	{KubeletSummaryUp, Gauge, "", nil,
		"1 where the kubelet gave its summary of pods at this poll, else 0."},
	{KubeletRequests, Counter, "", []string{"page", "result"},
		"Requests of the agent itself to the kubelet by result: ok, unreachable, unauthorized, forbidden or failed."},
	{KubeletPodsLeft, Counter, "", nil,
		"Pods of the kubelet's summary that were left out because they were too many or had no usable name."},
},
	storageDefs(PodEphemeral, []string{"namespace", "pod"},
		"by the pod's writable layers, logs and emptyDir volumes", "the file system that holds the pod's ephemeral storage"),
	storageDefs(ContainerWritable, []string{"namespace", "pod", "container"},
		"by the container's writable layer", "the file system that holds the container's writable layer"),
	storageDefs(PodVolume, []string{"namespace", "pod", "volume"},
		"by a volume that no claim stands behind", "the file system that holds the volume"),
)

// storageDefs are the definitions of all figures below one name.
func storageDefs(name string, labels []string, used, where string) []Def {
	help := map[string][2]string{
		"available_bytes": {"bytes", "Bytes that can still be written to " + where + "."},
		"capacity_bytes":  {"bytes", "Size of " + where + "."},
		"inodes":          {"", "Inodes of " + where + ", used or not."},
		"inodes_free":     {"", "Inodes that are free in " + where + "."},
		"inodes_used":     {"", "Inodes taken " + used + "."},
		"used_bytes":      {"bytes", "Bytes taken " + used + "."},
	}
	defs := make([]Def, 0, len(help))
	for _, figure := range StorageFigures() {
		defs = append(defs, Def{name + "_" + figure, Gauge, help[figure][0], labels, help[figure][1]})
	}
	return defs
}
