package dashboards

import (
	"github.com/grafana/grafana-foundation-sdk/go/units"

	"nines/pkg/sla"
)

// oneNodeLess is how much of what is left would be in use if the largest node
// were lost; absent with a single node.
func oneNodeLess(used, total string) string {
	return "sum(" + used + ")\n/ ((sum(" + total + ") - max(" + total + ")) > 0)"
}

func planner(b *Board, _ []sla.Objective) {
	b.From = "now-7d"
	b.Variables = []Variable{clusterVariable, nodeVariable}
	cores := "count " + perNode + " (" + node("node_cpu_seconds_total", `mode="idle"`) + ")"
	coresUsed := cores + "\n- " + rate(perNode, node("node_cpu_seconds_total", `mode="idle"`))
	total := "sum " + perNode + " (" + node("node_memory_MemTotal_bytes") + ")"
	used := total + "\n- sum " + perNode + " (" + node("node_memory_MemAvailable_bytes") + ")"
	avail := node("node_filesystem_avail_bytes", realFS)
	daysToFull := "min by (cluster, node, mountpoint) (" + avail + "\n/ -(deriv(" + avail + "[1d]) < 0)) / 86400"
	none := "No agent of this choice sends node metrics."
	b.Rows = append(b.Rows,
		Row{"In short", []Panel{
			{Kind: Stat, Title: "Idle processors", Unit: units.PercentUnit, Decimals: 1, NoData: none,
				Description: "Share of all processor time that nothing used, over the time range.",
				Queries:     []Query{{Expr: "avg(rate(" + node("node_cpu_seconds_total", `mode="idle"`) + "[$__range]))"}}, Steps: steps("orange", .15, "green", .7, "blue"), Link: allNodes},
			{Kind: Stat, Title: "Available memory", Unit: units.PercentUnit, Decimals: 1, NoData: none,
				Description: "Share of all memory that a new program could have now.",
				Queries:     []Query{{Expr: "sum(" + node("node_memory_MemAvailable_bytes") + ")\n/ sum(" + node("node_memory_MemTotal_bytes") + ")"}}, Steps: steps("red", .1, "orange", .2, "green"), Link: allNodes},
			{Kind: Stat, Title: "Next filesystem full", Unit: units.Days, Decimals: 0, NoData: "Nothing is filling up.",
				Description: "Days until the first filesystem is full, if it goes on as in the last 24 hours. Those that do not grow are left out.",
				Queries:     []Query{{Expr: "min(" + daysToFull + ")"}}, Steps: steps("red", 7.0, "orange", 30.0, "green"), Link: allNodes},
			{Kind: Stat, Title: "Memory in use with one node less", Unit: units.PercentUnit, Decimals: 1, NoData: "There is one node only: without it nothing is left.",
				Description: "What the memory in use now would be of all memory, if the largest node were lost. Above 100 % it does not fit.",
				Queries:     []Query{{Expr: oneNodeLess(used, total)}}, Steps: steps("green", .85, "orange", 1.0, "red"), Link: allNodes},
		}},
		Row{"Processors and memory", []Panel{
			{Kind: Graph, Title: "Processors in use", Unit: units.Short, Decimals: 2, Min: at(0), NoData: none,
				Description: "How many processors' worth of time each node used.",
				Queries:     []Query{{coresUsed, nodeLegend, ""}}, Steps: steps("green"), Link: toOperator},
			{Kind: Graph, Title: "Processors with one node less", Unit: units.PercentUnit, Decimals: 1, Min: at(0), NoData: "There is one node only: without it nothing is left.",
				Description: "What the processors in use would be of all, if the largest node were lost. Above 100 % work would have to wait.",
				Queries:     []Query{{oneNodeLess(coresUsed, cores), "one node less", ""}}, Steps: steps("green", .85, "orange", 1.0, "red"), Lines: true, Link: allNodes},
			{Kind: Graph, Title: "Memory in use", Unit: units.BytesIEC, Decimals: 1, Min: at(0), NoData: none,
				Description: "Memory that is not available, by node.",
				Queries:     []Query{{used, nodeLegend, ""}}, Steps: steps("green"), Link: toOperator},
			{Kind: Graph, Title: "Memory available", Unit: units.BytesIEC, Decimals: 1, Min: at(0), NoData: none,
				Description: "Memory that a new program could have, by node.",
				Queries:     []Query{{"sum " + perNode + " (" + node("node_memory_MemAvailable_bytes") + ")", nodeLegend, ""}}, Steps: steps("green"), Link: toOperator},
		}},
		Row{"Disks", []Panel{
			{Kind: Table, Title: "Filesystems", Unit: units.BytesIEC, Decimals: 1, NoData: "No filesystem on a disk is reported.",
				Description: "Size, free space and days until full at the pace of the last 24 hours. A filesystem that does not grow has no days.",
				Queries: []Query{
					{"max by (cluster, node, mountpoint) (" + node("node_filesystem_size_bytes", realFS) + ")", "Size", units.BytesIEC},
					{"max by (cluster, node, mountpoint) (" + avail + ")", "Free", units.BytesIEC},
					{daysToFull, "Days to full", units.Days},
				}, Link: Link{"This node", "/d/nines-operator/" + carry + "&var-node=${__data.fields.node}"}},
			{Kind: Graph, Title: "Free space", Unit: units.BytesIEC, Decimals: 1, Min: at(0), NoData: "No filesystem on a disk is reported.",
				Description: "Space that an ordinary user can still write to, by filesystem.",
				Queries:     []Query{{"max by (cluster, node, mountpoint) (" + avail + ")", "{{node}} {{mountpoint}}", ""}}, Steps: steps("green"), Link: toOperator},
			{Kind: Graph, Title: "Free inodes", Unit: units.PercentUnit, Decimals: 1, Min: at(0), Max: at(1), NoData: "No filesystem that counts inodes is reported.",
				Description: "Share of inodes that are free: without one no file can be made, however much space there is.",
				Queries:     []Query{{"min by (cluster, node, mountpoint) (" + node("node_filesystem_files_free", realFS) + "\n/ (" + node("node_filesystem_files", realFS) + " > 0))", "{{node}} {{mountpoint}}", ""}}, Steps: steps("red", .1, "green"), Link: toOperator},
			{Kind: Graph, Title: "Disk throughput", Unit: units.BytesPerSecondSI, Decimals: 1, NoData: "No disk is reported.",
				Description: "Bytes per second by node: read above the line, written below it.",
				Queries: []Query{{rate(perNode, node("node_disk_read_bytes_total", realDisks)), "{{node}} read", ""},
					{"-" + rate(perNode, node("node_disk_written_bytes_total", realDisks)), "{{node}} written", ""}}, Steps: steps("green"), Link: toOperator},
			{Kind: Graph, Title: "Network throughput", Unit: units.BytesPerSecondSI, Decimals: 1, NoData: none,
				Description: "Bytes per second by node over its own interfaces: received above the line, sent below it.",
				Queries: []Query{{rate(perNode, node("node_network_receive_bytes_total", realNets)), "{{node}} received", ""},
					{"-" + rate(perNode, node("node_network_transmit_bytes_total", realNets)), "{{node}} sent", ""}}, Steps: steps("green"), Link: toOperator},
		}},
	)
}
