package dashboards

import (
	"github.com/grafana/grafana-foundation-sdk/go/units"

	"nines/pkg/metric"
	"nines/pkg/sla"
)

// realDisks leaves out parts and virtual devices; realNets what no cable is on.
const (
	realDisks = `device!~"loop.*|ram.*|dm-.*|zram.*"`
	realNets  = `device!~"lo|veth.*|cali.*|cni.*|docker.*|br-.*|flannel.*"`
	realFS    = `fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|nsfs|fuse.*"`
)

func busy() string {
	return "1 - avg " + perNode + " (rate(" + node("node_cpu_seconds_total", `mode="idle"`) + "[$__rate_interval]))"
}

func memoryUsed() string {
	return "1 - sum " + perNode + " (" + node("node_memory_MemAvailable_bytes") + ")\n/ sum " + perNode + " (" + node("node_memory_MemTotal_bytes") + ")"
}

func filesystemUsed() string {
	return "max by (cluster, node, mountpoint) (1 - " + node("node_filesystem_avail_bytes", realFS) + "\n/ (" + node("node_filesystem_size_bytes", realFS) + " > 0))"
}

func rate(by, selector string) string {
	return "sum " + by + " (rate(" + selector + "[$__rate_interval]))"
}

func operator(b *Board, _ []sla.Objective) {
	b.From = "now-6h"
	b.Variables = []Variable{clusterVariable, nodeVariable}
	b.Annotations = []Annotation{{
		Name: "Boots", Expr: "changes(" + node("node_boot_time_seconds") + "[5m]) > 0", Title: "{{node}}", Text: "booted", Colour: "blue",
	}}
	full := steps("green", .8, "orange", .9, "red")
	percent := func(title, description, expr, legend string, s []Step) Panel {
		return Panel{Kind: Graph, Title: title, Description: description, Unit: units.PercentUnit, Decimals: 1, Min: at(0), NoData: "No agent of this choice sends node metrics.",
			Queries: []Query{{expr, legend, ""}}, Steps: s, Link: toOperator}
	}
	b.Rows = append(b.Rows,
		Row{"Nodes now", []Panel{
			{Kind: Stat, Title: "Nodes that report", Unit: units.Short, NoData: "No agent reports. Start nines-agent on a node.",
				Description: "Nodes whose agent sent a heartbeat within the last three minutes.",
				Queries:     []Query{{Expr: "count(group " + perNode + " (last_over_time(" + agent(metric.AgentHeartbeats) + "[3m])))"}}, Steps: steps("green"), Link: allNodes},
			{Kind: Stat, Title: "Nodes gone silent", Unit: units.Short, NoData: "No node went silent.",
				Description: "Nodes with a heartbeat within the last hour, but none within the last three minutes.",
				Queries:     []Query{{Expr: "count(" + silent() + ") or vector(0)"}}, Steps: steps("green", 1.0, "red"), Link: allNodes},
			{Kind: Stat, Title: "Busiest processor", Unit: units.PercentUnit, Decimals: 1, NoData: "No agent of this choice sends node metrics.",
				Description: "Processor time in use on the busiest node.", Queries: []Query{{Expr: "max(" + busy() + ")"}}, Steps: full, Link: allNodes},
			{Kind: Stat, Title: "Fullest memory", Unit: units.PercentUnit, Decimals: 1, NoData: "No agent of this choice sends node metrics.",
				Description: "Memory that is not available, on the fullest node.", Queries: []Query{{Expr: "max(" + memoryUsed() + ")"}}, Steps: full, Link: allNodes},
			{Kind: Stat, Title: "Fullest filesystem", Unit: units.PercentUnit, Decimals: 1, NoData: "No filesystem on a disk is reported.",
				Description: "Space in use on the fullest filesystem of any node, without those in memory.", Queries: []Query{{Expr: "max(" + filesystemUsed() + ")"}}, Steps: full, Link: allNodes},
			{Kind: Stat, Title: "Youngest boot", Unit: units.DurationSeconds, NoData: "No agent of this choice sends node metrics.",
				Description: "Time since the node that booted last did so.", Queries: []Query{{Expr: "min(time() - " + node("node_boot_time_seconds") + ")"}}, Steps: steps("orange", 3600.0, "green"), Link: allNodes},
		}},
		Row{"Nodes", []Panel{
			percent("Processor in use", "Processor time that was not idle, mean of all processors of the node.", busy(), nodeLegend, full),
			percent("Memory in use", "Memory that is not available to a new program: total less what the kernel calls available.", memoryUsed(), nodeLegend, full),
			percent("Filesystems in use", "Space in use per filesystem on a disk.", filesystemUsed(), "{{node}} {{mountpoint}}", full),
			percent("Disks busy", "Time in which a disk had at least one operation to do.", "max by (cluster, node, device) (rate("+node("node_disk_io_time_seconds_total", realDisks)+"[$__rate_interval]))", "{{node}} {{device}}", full),
			percent("Time lost waiting", "Pressure: the share of time in which at least one task waited for processor, memory or disk. Kernels without pressure stall information do not have it.",
				"max "+perNode+" (rate("+node("node_pressure_io_waiting_seconds_total")+"[$__rate_interval])\nor rate("+node("node_pressure_memory_waiting_seconds_total")+"[$__rate_interval])\nor rate("+node("node_pressure_cpu_waiting_seconds_total")+"[$__rate_interval]))", nodeLegend, steps("green", .25, "orange")),
			{Kind: Graph, Title: "Load per processor", Unit: units.Short, Decimals: 2, Min: at(0), NoData: "No agent of this choice sends node metrics.",
				Description: "Tasks that run or wait, mean of five minutes, divided by the number of processors. Above 1 tasks wait.",
				Queries:     []Query{{"sum " + perNode + " (" + node("node_load5") + ")\n/ count " + perNode + " (" + node("node_cpu_seconds_total", `mode="idle"`) + ")", nodeLegend, ""}}, Steps: steps("green", 1.0, "orange"), Lines: true, Link: toOperator},
			{Kind: Graph, Title: "Network received and sent", Unit: units.BytesPerSecondSI, Decimals: 1, NoData: "No agent of this choice sends node metrics.",
				Description: "Bytes per second over the node's own interfaces: received above the line, sent below it.",
				Queries: []Query{{rate(perNode, node("node_network_receive_bytes_total", realNets)), "{{node}} received", ""},
					{"-" + rate(perNode, node("node_network_transmit_bytes_total", realNets)), "{{node}} sent", ""}}, Steps: steps("green"), Link: toOperator},
			{Kind: Graph, Title: "Network errors and drops", Unit: units.Short, Decimals: 2, Min: at(0), NoData: "No agent of this choice sends node metrics.",
				Description: "Packets per second that an interface could not receive or send, or had to drop.",
				Queries: []Query{{rate(perNode, node("node_network_receive_errs_total", realNets)) + "\n+ " + rate(perNode, node("node_network_transmit_errs_total", realNets)), "{{node}} errors", ""},
					{rate(perNode, node("node_network_receive_drop_total", realNets)) + "\n+ " + rate(perNode, node("node_network_transmit_drop_total", realNets)), "{{node}} drops", ""}}, Steps: steps("green", 1.0, "orange"), Link: toOperator},
		}},
		Row{"Agents", []Panel{
			{Kind: Graph, Title: "Heartbeats per minute", Unit: units.Short, Decimals: 2, Min: at(0), NoData: "No agent of this choice sends heartbeats.",
				Description: "Minutes in which the agent collected, per minute: 1 is right, less means that minutes are missing.",
				Queries:     []Query{{"sum " + perNode + " (rate(" + agent(metric.AgentHeartbeats) + "[10m])) * 60", nodeLegend, ""}}, Steps: steps("red", .9, "green"), Link: toOperator},
			{Kind: Graph, Title: "Missed and failed ticks", Unit: units.Short, Decimals: 2, Min: at(0), NoData: "No agent of this choice reports its ticks.",
				Description: "Ticks per minute that came too late or whose samples could not be queued.",
				Queries: []Query{{rate(perNode, agent(metric.AgentTicksMissed)) + " * 60", "{{node}} missed", ""},
					{rate(perNode, agent(metric.AgentTicks, `result="failed"`)) + " * 60", "{{node}} failed", ""}}, Steps: steps("green", .1, "orange"), Link: toOperator},
			{Kind: Graph, Title: "Queue on disk", Unit: units.BytesIEC, Decimals: 1, Min: at(0), NoData: "No agent of this choice has a queue.",
				Description: "Bytes of metrics that wait for their destination. At its limit the oldest are dropped, and counted.",
				Queries:     []Query{{"sum by (cluster, node, destination) (" + agent(metric.AgentQueueBytes) + ")", "{{node}} to {{destination}}", ""}}, Steps: steps("green"), Link: toOperator},
			{Kind: Graph, Title: "Oldest sample in the queue", Unit: units.Seconds, Decimals: 0, Min: at(0), NoData: "No agent of this choice has a queue.",
				Description: "How far the destination is behind. A delay over 90 seconds delays alerts.",
				Queries:     []Query{{"max by (cluster, node, destination) (" + agent(metric.AgentQueueOldest) + ")", "{{node}} to {{destination}}", ""}}, Steps: steps("green", 90.0, "orange"), Lines: true, Link: toOperator},
		}},
		Row{"Delivery", []Panel{
			{Kind: Stat, Title: "Log records stored of all", Unit: units.PercentUnit, Decimals: 3, NoData: "No log record had a verdict in this time.",
				Description: "Log records that the destination stored, of all that got a verdict in the time range.",
				Queries:     []Query{{Expr: "sum(increase(" + agent(metric.LogRecordsTotal, `state="stored"`) + "[$__range]))\n/ (sum(increase(" + agent(metric.LogRecordsTotal) + "[$__range])) > 0)"}}, Steps: steps("red", .99, "orange", .9999, "green"), Link: allNodes},
			{Kind: Stat, Title: "Metric samples sent of all", Unit: units.PercentUnit, Decimals: 3, NoData: "No sample had a verdict in this time.",
				Description: "Samples that the destination accepted, of all that got a verdict in the time range.",
				Queries:     []Query{{Expr: "sum(increase(" + agent(metric.AgentMetricSamples, `verdict="sent"`) + "[$__range]))\n/ (sum(increase(" + agent(metric.AgentMetricSamples) + "[$__range])) > 0)"}}, Steps: steps("red", .99, "orange", .9999, "green"), Link: allNodes},
			{Kind: Graph, Title: "Log records by state", Unit: units.Short, Decimals: 1, Min: at(0), NoData: "No agent of this choice follows logs.",
				Description: "Records per second by what became of them. Everything but stored needs a look.",
				Queries:     []Query{{rate("by (state)", agent(metric.LogRecordsTotal)), "{{state}}", ""}}, Steps: steps("green"), Link: allNodes},
			{Kind: Graph, Title: "Metric samples by verdict", Unit: units.Short, Decimals: 1, Min: at(0), NoData: "No agent of this choice sends metrics.",
				Description: "Samples per second by what became of them. Everything but sent needs a look.",
				Queries:     []Query{{rate("by (verdict)", agent(metric.AgentMetricSamples)), "{{verdict}}", ""}}, Steps: steps("green"), Link: allNodes},
		}},
	)
}
