package kubelet

import (
	"fmt"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
)

// Rule says which series of a page are dropped, and why.
type Rule struct {
	Page   string   // one of the names of Config.Pages
	Labels []string // whose values, joined with ";", are matched
	Regex  string   // matches the whole of the joined values
	// Needs is another page that says the same; without it the rule does not
	// apply. Empty: the rule always applies.
	Needs  string
	Reason string
}

// Rules returns what is dropped by default, page by page. The dashboards and
// alerts of kubernetes-mixin ask for none of it. keep_all switches the table
// off, drop adds names to it.
//
// The first three rules of cadvisor are those of kube-prometheus, the ones on
// interfaces, hierarchy and buckets of storage operations are those of the
// chart kube-prometheus-stack (which drops more than we do); the others are
// ours.
func Rules() []Rule { return slices.Clone(rules) }

var rules = []Rule{
	{Page: Metrics, Labels: []string{"__name__"},
		Regex:  `kubernetes_feature_enabled`,
		Reason: "a constant for each of some 200 feature gates; the version says the same"},
	{Page: Metrics, Labels: []string{"__name__"},
		Regex:  `(apiserver|authentication|authorization|aggregator|field_validation)_.+`,
		Reason: "figures of the API server's library that the kubelet links; dashboards ask the API server for them"},
	{Page: Metrics, Labels: []string{"__name__"},
		Regex:  `go_(cpu_classes|gc_cycles|gc_gogc|gc_gomemlimit|gc_heap|gc_limiter|gc_pauses|gc_scan|gc_stack|godebug|memory_classes|sched_gomaxprocs|sched_goroutines|sched_latencies|sched_pauses|sync_mutex)_.+`,
		Reason: "the Go runtime's inner life, some 150 series for people who work on the kubelet; go_goroutines, go_memstats_* and go_gc_duration_seconds stay"},
	{Page: Metrics, Labels: []string{"__name__"},
		Regex:  `(kubelet_http_requests_duration|workqueue_queue_duration|workqueue_work_duration|rest_client_rate_limiter_duration)_seconds_bucket|rest_client_(request|response)_size_bytes_bucket`,
		Reason: "buckets by path, queue and host that no panel turns into a quantile; sums and counts stay for the mean"},
	{Page: Metrics, Labels: []string{"__name__", "le"},
		Regex:  `(csi_operations|storage_operation_duration)_seconds_bucket;(0\.25|2\.5|15|25|120|600)(\.0)?`,
		Reason: "every second bucket; quantiles stay, a little coarser"},

	{Page: CAdvisor, Labels: []string{"__name__"},
		Regex:  `container_(network_(tcp|tcp6|udp|udp6)_usage_total|network_advance_tcp_stats_total|tasks_state|cpu_load_average_10s|cpu_load_d_average_10s)`,
		Reason: "switched off in the kubelet, which still gives them, always 0"},
	{Page: CAdvisor, Labels: []string{"__name__", "pod", "namespace"},
		Regex:  `(container_spec_.*|container_file_descriptors|container_sockets|container_threads_max|container_threads|container_start_time_seconds|container_last_seen);;`,
		Reason: "constants and counts of cgroups that are no pod's: slices and services of the node"},
	{Page: CAdvisor, Labels: []string{"__name__", "container"},
		Regex:  `container_blkio_device_usage_total;.+`,
		Reason: "each device times each kind of access for each container; container_fs_* says it by device, and whole pods keep it"},
	{Page: CAdvisor, Labels: []string{"__name__", "interface"},
		Regex:  `container_network_.*;(cali|cilium|cni|lxc|nodelocaldns|tunl|veth).*`,
		Reason: "the far ends of all pods' interfaces, repeated for each pod on the node's network; each pod's own eth0 stays"},
	{Page: CAdvisor, Labels: []string{"__name__", "scope"},
		Regex:  `container_memory_failures_total;hierarchy`,
		Reason: "the same number as scope container"},
	{Page: CAdvisor, Labels: []string{"__name__"},
		Regex:  `container_fs_(io_current|io_time_seconds_total|io_time_weighted_seconds_total|read_seconds_total|reads_merged_total|sector_reads_total|sector_writes_total|write_seconds_total|writes_merged_total)`,
		Reason: "the kernel does not count these by cgroup; they are the whole disk's, or 0; node_disk_* has them"},
	{Page: CAdvisor, Labels: []string{"__name__"},
		Regex:  `container_(ulimits_soft|spec_memory_reservation_limit_bytes|memory_numa_pages|memory_migrate|hugetlb_.+|referenced_bytes|health_state)`,
		Reason: "constants, or figures that Kubernetes does not set; no panel shows them"},
	{Page: CAdvisor, Labels: []string{"__name__", "container", "name", "pod"},
		Regex:  `container_(blkio|cpu|file|fs|last|memory|oom|pressure|processes|sockets|spec|start|threads)(_.+)?;(POD)?;.+;.+`,
		Reason: "the pause container of each pod, which only sleeps; its network series are the pod's and stay"},
	{Page: CAdvisor, Labels: []string{"pod", "id"},
		Regex:  `;/system\.slice/.+\.(mount|socket|swap|scope|slice)(/.*)?`,
		Reason: "mounts and sockets that systemd puts into cgroups; services (kubelet, containerd, …) stay"},

	{Page: Resource, Labels: []string{"__name__"}, Needs: CAdvisor,
		Regex:  `container_(cpu_usage_seconds_total|memory_working_set_bytes|start_time_seconds)`,
		Reason: "cadvisor's page has the same names, and a sum over both would count twice"},

	{Page: Probes, Labels: []string{"__name__"},
		Regex:  `prober_probe_duration_seconds_bucket`,
		Reason: "a dozen series for each probe of each container; sum and count stay, and prober_probe_total has the results"},
}

// drops are the relabelings of a page. The regular expressions of ours are
// valid, which a test shows; those of the user were validated.
func (c Config) drops(page string) ([]*relabel.Config, error) {
	var out []*relabel.Config
	add := func(labels []string, regex string) error {
		re, err := relabel.NewRegexp(regex)
		if err != nil {
			return fmt.Errorf("%q is no regular expression: %w", regex, err)
		}
		r := relabel.DefaultRelabelConfig
		r.Action, r.Regex = relabel.Drop, re
		r.SourceLabels = make(model.LabelNames, len(labels))
		for i, l := range labels {
			r.SourceLabels[i] = model.LabelName(l)
		}
		r.NameValidationScheme = model.UTF8Validation
		out = append(out, &r)
		return nil
	}
	if !c.KeepAll {
		for _, r := range rules {
			if r.Page != page || r.Needs != "" && !slices.Contains(c.Pages, r.Needs) {
				continue
			}
			if err := add(r.Labels, r.Regex); err != nil {
				return nil, err
			}
		}
	}
	for i, regex := range c.Drop {
		if err := add([]string{model.MetricNameLabel}, regex); err != nil {
			return nil, fmt.Errorf("drop[%d]: %w", i, err)
		}
	}
	return out, nil
}
