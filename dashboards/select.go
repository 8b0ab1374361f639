package dashboards

import (
	"strings"

	"nines/pkg/metric"
)

// Selectors: every series is chosen by the variables of its board. "All" is the
// value .*, which matches a missing label too.

var clusterVariable = Variable{"cluster", "Cluster", "Clusters whose agents report; All includes series without the label.",
	"label_values(" + metric.AgentHeartbeats + ", cluster)"}

var nodeVariable = Variable{"node", "Node", "Nodes of the chosen clusters.",
	"label_values(" + metric.AgentHeartbeats + `{cluster=~"$cluster"}, node)`}

var serviceVariable = Variable{"service", "Service", "Services that have objectives.",
	"label_values(" + metric.SLOTarget + ", service)"}

var sloVariable = Variable{"slo", "SLO", "SLOs of the chosen services.",
	"label_values(" + metric.SLOTarget + `{service=~"$service"}, slo)`}

// matchers joins what is not empty.
func matchers(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// node selects a series of node_exporter's names.
func node(name string, extra ...string) string {
	return name + matchers(append([]string{`job="node-exporter"`, `cluster=~"$cluster"`, `node=~"$node"`}, extra...)...)
}

// agent selects a series of the agent itself.
func agent(name string, extra ...string) string {
	return name + matchers(append([]string{`job="nines-agent"`, `cluster=~"$cluster"`, `node=~"$node"`}, extra...)...)
}

// anyAgent is agent without the choice of a node.
func anyAgent(name string) string { return name + matchers(`job="nines-agent"`, `cluster=~"$cluster"`) }

// slo selects a series of objectives.
func slo(name string, extra ...string) string {
	return name + matchers(append([]string{`service=~"$service"`, `slo=~"$slo"`}, extra...)...)
}

const (
	// perSLO are the labels that tell objectives apart and that people read.
	perSLO = "by (service, slo, objective, objective_id)"
	// sloLegend names a series of perSLO.
	sloLegend = "{{service}}: {{slo}} {{objective}}"
	// perNode tells nodes apart.
	perNode    = "by (cluster, node)"
	nodeLegend = "{{node}}"

	carry = "?${__url_time_range}&${datasource:queryparam}"
)

// Links between boards carry time range, data source and what was clicked on.
var (
	toOnCall   = Link{"What burns: on-call", "/d/nines-oncall/" + carry + "&var-service=${__field.labels.service}&var-slo=${__field.labels.slo}"}
	toOperator = Link{"This node", "/d/nines-operator/" + carry + "&var-cluster=${__field.labels.cluster}&var-node=${__field.labels.node}"}
	allOnCall  = Link{"What burns: on-call", "/d/nines-oncall/" + carry}
	allNodes   = Link{"All nodes", "/d/nines-operator/" + carry + "&${cluster:queryparam}"}
)

// Colours of states: low values first.
func steps(colours ...any) []Step {
	out := []Step{{Colour: colours[0].(string)}}
	for i := 1; i+1 < len(colours); i += 2 {
		out = append(out, Step{From: colours[i].(float64), Colour: colours[i+1].(string)})
	}
	return out
}

func at(v float64) *float64 { return &v }
