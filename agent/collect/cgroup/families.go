package cgroup

import (
	"slices"
	"strings"

	"nines/pkg/metric"
)

// key is a figure of a cgroup; columns says what it is called.
type key int

// In the order of columns.
const (
	cfsPeriods key = iota
	cfsThrottled
	cfsThrottledTime
	cpuSystem
	cpuUsage
	cpuUser
	lastSeen
	memoryCache
	memoryFailures
	pageFaults
	majorFaults
	memoryMapped
	memoryPeak
	memoryRSS
	memorySwap
	memoryUsage
	memoryWorkingSet
	oomKills
	cpuStalled
	cpuWaiting
	ioStalled
	ioWaiting
	memoryStalled
	memoryWaiting
	processCount
	specPeriod
	specQuota
	specShares
	specMemory
	specSwap
	startTime
	threads
	threadsMax
	keys
)

// column is one figure under cAdvisor's name.
type column struct {
	name, help string
	typ        metric.Type
	extra      []metric.Label
}

var columns = [keys]column{
	cfsPeriods:       {"container_cpu_cfs_periods_total", "Periods of enforcement that passed with runnable tasks, of cgroups with a quota.", metric.Counter, nil},
	cfsThrottled:     {"container_cpu_cfs_throttled_periods_total", "Periods in which the quota ran out.", metric.Counter, nil},
	cfsThrottledTime: {"container_cpu_cfs_throttled_seconds_total", "Time that tasks were held because the quota had run out.", metric.Counter, nil},
	cpuSystem:        {"container_cpu_system_seconds_total", "CPU time in the kernel.", metric.Counter, nil},
	cpuUsage:         {"container_cpu_usage_seconds_total", "CPU time of all CPUs together.", metric.Counter, metric.Labels("cpu", "total")},
	cpuUser:          {"container_cpu_user_seconds_total", "CPU time outside the kernel.", metric.Counter, nil},
	lastSeen:         {"container_last_seen", "When the cgroup was last there, as Unix time.", metric.Gauge, nil},
	memoryCache:      {"container_memory_cache", "Bytes of files in memory.", metric.Gauge, nil},
	memoryFailures:   {"container_memory_failcnt", "Times that the memory limit was hit.", metric.Counter, nil},
	pageFaults:       {"container_memory_failures_total", "Page faults by kind, with those of cgroups within.", metric.Counter, metric.Labels("failure_type", "pgfault", "scope", "container")},
	majorFaults:      {"container_memory_failures_total", "Page faults by kind, with those of cgroups within.", metric.Counter, metric.Labels("failure_type", "pgmajfault", "scope", "container")},
	memoryMapped:     {"container_memory_mapped_file", "Bytes of files that are mapped into memory.", metric.Gauge, nil},
	memoryPeak:       {"container_memory_max_usage_bytes", "Most memory that was in use at once since the cgroup was made.", metric.Gauge, nil},
	memoryRSS:        {"container_memory_rss", "Bytes of memory that belong to no file.", metric.Gauge, nil},
	memorySwap:       {"container_memory_swap", "Bytes that are swapped out.", metric.Gauge, nil},
	memoryUsage:      {"container_memory_usage_bytes", "Memory in use, with the cache of files.", metric.Gauge, nil},
	memoryWorkingSet: {"container_memory_working_set_bytes", "Memory in use, less the cache of files that were not touched lately.", metric.Gauge, nil},
	oomKills:         {"container_oom_events_total", "Processes that were killed because the memory limit was hit.", metric.Counter, nil},
	cpuStalled:       {"container_pressure_cpu_stalled_seconds_total", "Time that all tasks at once waited for a CPU.", metric.Counter, nil},
	cpuWaiting:       {"container_pressure_cpu_waiting_seconds_total", "Time that at least one task waited for a CPU.", metric.Counter, nil},
	ioStalled:        {"container_pressure_io_stalled_seconds_total", "Time that all tasks at once waited for a disk.", metric.Counter, nil},
	ioWaiting:        {"container_pressure_io_waiting_seconds_total", "Time that at least one task waited for a disk.", metric.Counter, nil},
	memoryStalled:    {"container_pressure_memory_stalled_seconds_total", "Time that all tasks at once waited for memory.", metric.Counter, nil},
	memoryWaiting:    {"container_pressure_memory_waiting_seconds_total", "Time that at least one task waited for memory.", metric.Counter, nil},
	processCount:     {"container_processes", "Processes in the cgroup; of a container, with those in cgroups that it made.", metric.Gauge, nil},
	specPeriod:       {"container_spec_cpu_period", "Length of a period of enforcement, in microseconds.", metric.Gauge, nil},
	specQuota:        {"container_spec_cpu_quota", "CPU time that may be used in each period, in microseconds; absent without a limit.", metric.Gauge, nil},
	specShares:       {"container_spec_cpu_shares", "Weight among siblings, on the scale of cgroups of version 1.", metric.Gauge, nil},
	specMemory:       {"container_spec_memory_limit_bytes", "Memory limit, 0 without one.", metric.Gauge, nil},
	specSwap:         {"container_spec_memory_swap_limit_bytes", "Limit of swap, of version 1 with memory, 0 without one.", metric.Gauge, nil},
	startTime:        {"container_start_time_seconds", "When the cgroup was made, as Unix time.", metric.Gauge, nil},
	threads:          {"container_threads", "Threads in the cgroup and those within.", metric.Gauge, nil},
	threadsMax:       {"container_threads_max", "Most threads that there may be, 0 without a limit.", metric.Gauge, nil},
}

var deviceColumns = []struct {
	name, help string
	of         func(device) float64
}{
	{"container_fs_reads_bytes_total", "Bytes read from the disk.", func(d device) float64 { return d.readBytes }},
	{"container_fs_reads_total", "Reads from the disk.", func(d device) float64 { return d.reads }},
	{"container_fs_writes_bytes_total", "Bytes written to the disk.", func(d device) float64 { return d.writeBytes }},
	{"container_fs_writes_total", "Writes to the disk.", func(d device) float64 { return d.writes }},
}

// Columns of /proc/PID/net/dev, from 0 behind the name.
var linkColumns = []struct {
	name, help string
	at         int
}{
	{"container_network_receive_bytes_total", "Bytes received.", 0},
	{"container_network_receive_errors_total", "Packets received with errors.", 2},
	{"container_network_receive_packets_dropped_total", "Packets dropped on arrival.", 3},
	{"container_network_receive_packets_total", "Packets received.", 1},
	{"container_network_transmit_bytes_total", "Bytes sent.", 8},
	{"container_network_transmit_errors_total", "Packets that could not be sent.", 10},
	{"container_network_transmit_packets_dropped_total", "Packets dropped before they were sent.", 11},
	{"container_network_transmit_packets_total", "Packets sent.", 9},
}

// reading is what a cgroup's files say.
type reading struct {
	values  [keys]float64
	known   [keys]bool
	devices []device
	links   []link
}

func (r *reading) set(k key, v float64) { r.values[k], r.known[k] = v, true }

// from sets a figure of a table, where it is there, times its unit.
func (r *reading) from(t map[string]float64, name string, k key, unit float64) {
	if v, ok := t[name]; ok {
		r.set(k, v*unit)
	}
}

// labels are cAdvisor's, without those that would be empty.
func (g *group) labels() []metric.Label {
	ls := metric.Labels("id", g.path)
	for _, l := range []metric.Label{
		{Name: "name", Value: g.id}, {Name: "namespace", Value: g.namespace}, {Name: "pod", Value: g.pod},
		{Name: "container", Value: g.name}, {Name: "image", Value: g.image},
	} {
		if l.Value != "" {
			ls = append(ls, l)
		}
	}
	metric.SortLabels(ls)
	return ls
}

// families turns readings into families, in the order of their names.
func families(groups []group) []metric.Family {
	var fams []metric.Family
	at := map[string]int{}
	add := func(name, help string, typ metric.Type, ls []metric.Label, v float64) {
		i, ok := at[name]
		if !ok {
			i = len(fams)
			at[name] = i
			fams = append(fams, metric.Family{Name: name, Help: help, Type: typ, Unit: unitOf(name)})
		}
		fams[i].Series = append(fams[i].Series, metric.Series{Labels: ls, Value: v})
	}
	for i := range groups {
		g := &groups[i]
		ls := g.labels()
		for k, c := range columns {
			if g.known[k] {
				of := ls
				if c.extra != nil {
					of = metric.Merge(ls, c.extra)
				}
				add(c.name, c.help, c.typ, of, g.values[k])
			}
		}
		for _, d := range g.devices {
			of := metric.Merge(ls, metric.Labels("device", d.number))
			for _, c := range deviceColumns {
				add(c.name, c.help, metric.Counter, of, c.of(d))
			}
		}
		for _, l := range g.links {
			of := metric.Merge(ls, metric.Labels("interface", l.name))
			for _, c := range linkColumns {
				add(c.name, c.help, metric.Counter, of, l.figures[c.at])
			}
		}
	}
	slices.SortFunc(fams, func(a, b metric.Family) int { return strings.Compare(a.Name, b.Name) })
	return fams
}

// unitOf is the unit that a name ends in.
func unitOf(name string) string {
	name = strings.TrimSuffix(name, "_total")
	for _, unit := range []string{"seconds", "bytes"} {
		if strings.HasSuffix(name, "_"+unit) {
			return unit
		}
	}
	return ""
}
