package openslo

import (
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/pkg/sla"
)

// outside are beginnings of the names of series that someone else writes about
// a service: they go on telling when the service is down.
var outside = []string{
	// Probes: the blackbox exporter and Grafana's synthetic monitoring, smokeping.
	"probe_", "smokeping_",
	// Ingress controllers, gateways and proxies in front of a service.
	"nginx_ingress_", "envoy_", "haproxy_", "traefik_", "contour_", "kong_", "apisix_",
	// Meshes. See sidecar for what Istio writes beside the service itself.
	"istio_", "hubble_",
	// Load balancers of clouds, as the exporters of their monitoring name them.
	"aws_applicationelb_", "aws_networkelb_", "aws_elb_", "aws_gatewayelb_", "aws_cloudfront_", "aws_globalaccelerator_",
	"stackdriver_https_lb_rule_", "stackdriver_internal_http_lb_rule_", "stackdriver_tcp_lb_rule_", "stackdriver_l_3_lb_rule_", "stackdriver_tcp_ssl_proxy_rule_",
	"azure_microsoft_network_applicationgateways_", "azure_microsoft_network_loadbalancers_", "azure_microsoft_cdn_profiles_",
	// Content delivery networks.
	"cloudflare_", "fastly_",
	// What the cluster says of a service. They tell that it lives, not that it
	// answers, but are not its own word.
	"kube_",
}

// outsideNames are whole names of such series: up is written for each target by
// whoever scrapes it, for a dead one too.
var outsideNames = []string{"up"}

// survivors warns of an agreement whose indicators all come from the measured
// service: what is down reports no errors, so that the survivors vote.
func (a *agreement) survivors(byID map[sla.ID]sla.Objective) {
	for _, p := range a.made.Promises {
		if outsideSLI(byID[p.ID].SLI, byID, 0) {
			return
		}
	}
	a.warn("survivors-vote", a.at("objectives"), "every indicator here comes from the measured service itself, and what is down reports no errors: add an objective that a probe (probe_…), an ingress, a mesh or a load balancer measures")
}

// maxParts bounds how deep composites are followed.
const maxParts = 8

// outsideSLI reports whether an indicator is measured, at least in part, from
// outside of the service, or may be.
func outsideSLI(sli sla.SLI, byID map[sla.ID]sla.Objective, depth int) bool {
	if len(sli.Parts) > 0 {
		if depth >= maxParts {
			return true
		}
		for _, p := range sli.Parts {
			if outsideSLI(byID[p.Objective].SLI, byID, depth+1) {
				return true
			}
		}
		return false
	}
	for _, query := range []string{sli.Good, sli.Bad, sli.Total, sli.Raw, sli.Value} {
		if query == "" {
			continue
		}
		expr, err := promql.ParseExpr(query)
		if err != nil {
			continue
		}
		for _, ms := range parser.ExtractSelectors(expr) {
			if outsideSeries(ms) {
				return true
			}
		}
	}
	return false
}

// outsideSeries reports whether the series of a selector are written from
// outside, or may be: where no name is given, nobody can tell.
func outsideSeries(ms []*labels.Matcher) bool {
	named := false
	for _, m := range ms {
		if m.Name != model.MetricNameLabel || m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp {
			continue
		}
		named = true
		// A recorded name holds that of its source between colons.
		for part := range strings.SplitSeq(m.Value, ":") {
			for _, prefix := range outside {
				if strings.HasPrefix(part, prefix) {
					return !sidecar(part, ms)
				}
			}
			for _, name := range outsideNames {
				if part == name {
					return true
				}
			}
		}
	}
	return !named
}

// sidecar reports whether Istio's proxy in the service's own pods writes a
// series: it dies with the pod that it tells of.
func sidecar(name string, ms []*labels.Matcher) bool {
	if !strings.HasPrefix(name, "istio_") {
		return false
	}
	for _, m := range ms {
		if m.Name == "reporter" && m.Type == labels.MatchEqual {
			return m.Value == "destination"
		}
	}
	return false
}
