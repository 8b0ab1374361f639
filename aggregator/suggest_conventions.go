package main

// convention is how one kind of program names the series of its requests. A
// new one is a line in conventions: all that suggest knows of it stands there.
type convention struct {
	name string // in words, as comments have it
	// requests is the counter of answered requests. Where it is empty, the count
	// of the histogram is taken.
	requests string
	// results names the label that tells how a request ended: the first that the
	// series have. failed is a regular expression of its values that are
	// failures of the service, not of who asked.
	results []string
	failed  string
	// histogram is that of durations, without _bucket; classic or native.
	histogram string
	unit      string // of the histogram: s or ms
	// gauge is 1 where all is well, of conventions without requests; reduce
	// (min or max) makes one value of several series.
	gauge, reduce string
	// namespace and service name what the requests were for: of each the first
	// label that the series have. Series with an empty service are left out.
	namespace, service []string
	// only is what else a selector must have, as PromQL; slow what that of the
	// histogram must have, too.
	only, slow string
	// fallback is for services that no other convention has found.
	fallback bool
	// blind says what such a figure cannot see.
	blind string
}

// Values that mean a failure of the service.
const (
	// failedHTTP are the answers of a server that knows that it failed.
	failedHTTP = "5.."
	// failedGRPC are the codes that OpenTelemetry's conventions for gRPC take for
	// errors of a server; failedGRPCNumber are the same as numbers.
	failedGRPC       = "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss"
	failedGRPCNumber = "2|4|12|13|14|15"
)

// httpStatus are the names that libraries give to the label of an HTTP status.
var httpStatus = []string{"code", "status", "status_code", "http_response_status_code", "http_status_code", "response_code", "statusCode"}

// Labels that name a service where a program is scraped itself.
var (
	itsNamespace = []string{"namespace", "kubernetes_namespace", "k8s_namespace_name"}
	itsService   = []string{"job", "service_name", "service", "app"}
)

const (
	blindIngress = "requests that never reach the ingress controller: name resolution, the network and the load balancer in front of it"
	blindMesh    = "requests that never reach the service's proxy, and traffic that goes around the mesh"
	blindItself  = "requests that never reach the program: while it is down or hangs, nobody counts them as failed; a probe or the load balancer in front of it would"
	blindAPI     = "requests that never reach an API server, and those that admission webhooks refuse with 4xx"
	blindProbe   = "all but the one request that the probe makes, from where it makes it"
	blindUp      = "requests: that a target answers its scrape says little about its users"
)

// conventions in the order in which they are preferred: what stands nearer to
// the users of a service first. For each service one objective of availability
// and one of latency are drafted, each by the first convention that has it.
var conventions = []convention{
	// Ingress controllers.
	{name: "ingress-nginx", requests: "nginx_ingress_controller_requests", results: []string{"status"}, failed: failedHTTP, histogram: "nginx_ingress_controller_request_duration_seconds", unit: "s", namespace: []string{"exported_namespace", "namespace"}, service: []string{"exported_service", "service"}, blind: blindIngress},
	{name: "Traefik", requests: "traefik_service_requests_total", results: []string{"code"}, failed: failedHTTP, histogram: "traefik_service_request_duration_seconds", unit: "s", service: []string{"exported_service", "service"}, blind: blindIngress},
	{name: "HAProxy", requests: "haproxy_backend_http_responses_total", results: []string{"code"}, failed: "5xx", namespace: []string{"exported_namespace"}, service: []string{"route", "proxy", "backend"}, blind: blindIngress + "; latency, of which HAProxy has averages alone"},
	{name: "Envoy (Contour, Envoy Gateway)", requests: "envoy_cluster_upstream_rq_xx", results: []string{"envoy_response_code_class"}, failed: "5", histogram: "envoy_cluster_upstream_rq_time", unit: "ms", service: []string{"envoy_cluster_name"}, blind: blindIngress + "; requests that Envoy answers itself"},
	{name: "Kong", requests: "kong_http_requests_total", results: []string{"code"}, failed: failedHTTP, histogram: "kong_request_latency_ms", unit: "ms", service: []string{"exported_service", "service"}, blind: blindIngress},

	// Service meshes.
	{name: "Istio", requests: "istio_requests_total", results: []string{"response_code"}, failed: failedHTTP, histogram: "istio_request_duration_milliseconds", unit: "ms", namespace: []string{"destination_service_namespace", "destination_workload_namespace"}, service: []string{"destination_service_name", "destination_workload"}, only: `reporter="destination"`, blind: blindMesh},
	{name: "Linkerd", requests: "response_total", results: []string{"classification"}, failed: "failure", histogram: "response_latency_ms", unit: "ms", namespace: []string{"namespace"}, service: []string{"deployment"}, only: `direction="inbound"`, blind: blindMesh},
	{name: "Linkerd (stateful sets)", requests: "response_total", results: []string{"classification"}, failed: "failure", histogram: "response_latency_ms", unit: "ms", namespace: []string{"namespace"}, service: []string{"statefulset"}, only: `direction="inbound"`, blind: blindMesh},
	{name: "Linkerd (daemon sets)", requests: "response_total", results: []string{"classification"}, failed: "failure", histogram: "response_latency_ms", unit: "ms", namespace: []string{"namespace"}, service: []string{"daemonset"}, only: `direction="inbound"`, blind: blindMesh},

	// Client libraries: HTTP.
	{name: "OpenTelemetry HTTP", results: httpStatus, failed: failedHTTP, histogram: "http_server_request_duration_seconds", unit: "s", namespace: itsNamespace, service: itsService, blind: blindItself},
	{name: "OpenTelemetry HTTP (names with dots)", results: []string{"http.response.status_code"}, failed: failedHTTP, histogram: "http.server.request.duration", unit: "s", namespace: append([]string{"k8s.namespace.name"}, itsNamespace...), service: append([]string{"service.name"}, itsService...), blind: blindItself},
	{name: "OpenTelemetry HTTP (before 1.20)", results: httpStatus, failed: failedHTTP, histogram: "http_server_duration_milliseconds", unit: "ms", namespace: itsNamespace, service: itsService, blind: blindItself},
	{name: "http_requests_total", requests: "http_requests_total", results: httpStatus, failed: "5..|5xx", histogram: "http_request_duration_seconds", unit: "s", namespace: itsNamespace, service: itsService, blind: blindItself},
	{name: "ASP.NET (prometheus-net)", requests: "http_requests_received_total", results: []string{"code"}, failed: failedHTTP, histogram: "http_request_duration_seconds", unit: "s", namespace: itsNamespace, service: itsService, blind: blindItself},
	{name: "http_request_duration_seconds", results: httpStatus, failed: "5..|5xx", histogram: "http_request_duration_seconds", unit: "s", namespace: itsNamespace, service: itsService, blind: blindItself},
	{name: "Micrometer (Spring Boot, Quarkus)", results: []string{"status"}, failed: failedHTTP, histogram: "http_server_requests_seconds", unit: "s", namespace: itsNamespace, service: append([]string{"application"}, itsService...), blind: blindItself},
	{name: "Flask (prometheus_flask_exporter)", requests: "flask_http_request_total", results: []string{"status"}, failed: failedHTTP, histogram: "flask_http_request_duration_seconds", unit: "s", namespace: itsNamespace, service: itsService, blind: blindItself},
	{name: "Starlette and FastAPI", requests: "starlette_requests_total", results: []string{"status_code"}, failed: failedHTTP, histogram: "starlette_request_duration_seconds", unit: "s", namespace: itsNamespace, service: itsService, blind: blindItself},

	// gRPC.
	{name: "gRPC", requests: "grpc_server_handled_total", results: []string{"grpc_code"}, failed: failedGRPC, histogram: "grpc_server_handling_seconds", unit: "s", namespace: itsNamespace, service: itsService, only: `grpc_service!~"grpc\\.(health|reflection)\\..*"`, slow: `grpc_type="unary"`, blind: blindItself},
	{name: "OpenTelemetry gRPC", results: []string{"rpc_grpc_status_code"}, failed: failedGRPCNumber, histogram: "rpc_server_duration_milliseconds", unit: "ms", namespace: itsNamespace, service: itsService, blind: blindItself},

	// The cluster's own services.
	{name: "Kubernetes API server", requests: "apiserver_request_total", results: []string{"code"}, failed: failedHTTP, histogram: "apiserver_request_sli_duration_seconds", unit: "s", service: []string{"job"}, slow: `verb!~"WATCH|WATCHLIST|CONNECT"`, blind: blindAPI},
	{name: "Kubernetes API server (with time in queues)", requests: "apiserver_request_total", results: []string{"code"}, failed: failedHTTP, histogram: "apiserver_request_duration_seconds", unit: "s", service: []string{"job"}, slow: `verb!~"WATCH|WATCHLIST|CONNECT"`, blind: blindAPI},
	{name: "CoreDNS", requests: "coredns_dns_responses_total", results: []string{"rcode"}, failed: "SERVFAIL", histogram: "coredns_dns_request_duration_seconds", unit: "s", namespace: itsNamespace, service: []string{"job"}, blind: blindItself},

	// Where nobody counts requests.
	{name: "blackbox probe", gauge: "probe_success", reduce: "min", namespace: itsNamespace, service: []string{"instance", "target"}, blind: blindProbe},
	{name: "scrape (up)", gauge: "up", reduce: "max", namespace: itsNamespace, service: []string{"job"}, fallback: true, blind: blindUp},
}
