package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"nines/pkg/openslo"
)

// drafted is what one convention's series must lead to. Of 10,000 events 9
// fail, and 9,920 are within the first edge that holds 99 %.
type drafted struct {
	add   func(r *recorded)
	file  string
	texts []string // of the file; without a # in front, lines of the document
	never []string
}

// seconds and milliseconds are edges of a classic histogram.
var (
	seconds      = map[string]float64{"0.1": 900, "0.25": 992, "1": 998, "+Inf": 1000}
	milliseconds = map[string]float64{"100": 900, "250": 992, "1000": 998, "+Inf": 1000}
)

// requestsOf adds a counter with 9 failures in 10,000 events, and a histogram.
func requestsOf(counter, result, good, bad, histogram string, edges map[string]float64) func(*recorded) {
	return func(r *recorded) {
		if counter != "" {
			with := strings.TrimSuffix(counter, "}") + ","
			r.counter(with+result+`="`+good+`"}`, 999.1)
			r.counter(with+result+`="`+bad+`"}`, 0.9)
		}
		if histogram != "" {
			r.histogram(histogram, edges)
		}
	}
}

// byConvention has a case for each line of conventions.
var byConvention = map[string]drafted{
	"ingress-nginx": {
		requestsOf(`nginx_ingress_controller_requests{namespace="prod",service="shop-nginx",ingress="shop",host="shop.example",method="GET",path="/",controller_namespace="ingress"}`, "status", "200", "502",
			`nginx_ingress_controller_request_duration_seconds{namespace="prod",service="shop-nginx",ingress="shop",status="200"}`, seconds),
		"prod-shop-nginx.yaml",
		[]string{
			`query: 'sum(rate(nginx_ingress_controller_requests{namespace="prod",service="shop-nginx",status!~"5.."}[5m]))'`,
			`query: 'sum(rate(nginx_ingress_controller_requests{namespace="prod",service="shop-nginx"}[5m]))'`,
			`query: 'sum(rate(nginx_ingress_controller_request_duration_seconds_bucket{namespace="prod",service="shop-nginx",status!~"5..",le="0.25"}[5m]))'`,
			`query: 'sum(rate(nginx_ingress_controller_request_duration_seconds_count{namespace="prod",service="shop-nginx",status!~"5.."}[5m]))'`,
			"namespace: prod", "within 250 ms, target: 0.99}", "without failure, target: 0.999}",
		}, nil,
	},
	"Traefik": {
		requestsOf(`traefik_service_requests_total{service="prod-shop-80@kubernetes",method="GET",protocol="http"}`, "code", "200", "500",
			`traefik_service_request_duration_seconds{service="prod-shop-80@kubernetes",code="200",method="GET",protocol="http"}`, seconds),
		"prod-shop-80-kubernetes.yaml",
		[]string{`traefik_service_requests_total{service="prod-shop-80@kubernetes",code!~"5.."}`, `le="0.25"`, `service: "prod-shop-80@kubernetes"`}, nil,
	},
	"HAProxy": {
		requestsOf(`haproxy_backend_http_responses_total{proxy="prod_shop_http"}`, "code", "2xx", "5xx", "", nil),
		"prod-shop-http.yaml", []string{`haproxy_backend_http_responses_total{proxy="prod_shop_http",code!~"5xx"}`}, []string{"latency:"},
	},
	"Envoy (Contour, Envoy Gateway)": {
		requestsOf(`envoy_cluster_upstream_rq_xx{envoy_cluster_name="default_kuard_80"}`, "envoy_response_code_class", "2", "5",
			`envoy_cluster_upstream_rq_time{envoy_cluster_name="default_kuard_80"}`, milliseconds),
		"default-kuard-80.yaml",
		[]string{`envoy_cluster_upstream_rq_xx{envoy_cluster_name="default_kuard_80",envoy_response_code_class!~"5"}`, `envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="default_kuard_80",le="250"}`, "within 250 ms"}, nil,
	},
	"Kong": {
		requestsOf(`kong_http_requests_total{service="kong-shop",route="r"}`, "code", "200", "503", `kong_request_latency_ms{service="kong-shop",route="r"}`, milliseconds),
		"kong-shop.yaml", []string{`kong_http_requests_total{service="kong-shop",code!~"5.."}`, `kong_request_latency_ms_bucket{service="kong-shop",le="250"}`}, nil,
	},
	"Istio": {
		func(r *recorded) {
			const s = `destination_service_namespace="prod",destination_service_name="reviews",source_workload="web"`
			requestsOf(`istio_requests_total{reporter="destination",`+s+`}`, "response_code", "200", "503", `istio_request_duration_milliseconds{reporter="destination",response_code="200",`+s+`}`, milliseconds)(r)
			// What the other side of the same requests counts is left out.
			r.counter(`istio_requests_total{reporter="source",response_code="503",`+s+`}`, 500)
		},
		"prod-reviews.yaml",
		[]string{
			`istio_requests_total{destination_service_namespace="prod",destination_service_name="reviews",reporter="destination",response_code!~"5.."}`,
			`istio_request_duration_milliseconds_bucket{destination_service_namespace="prod",destination_service_name="reviews",reporter="destination",response_code!~"5..",le="250"}`,
			"target: 0.999}",
		}, nil,
	},
	"Linkerd": {
		requestsOf(`response_total{direction="inbound",namespace="prod",deployment="web",status_code="200"}`, "classification", "success", "failure", `response_latency_ms{direction="inbound",namespace="prod",deployment="web"}`, milliseconds),
		"prod-web.yaml", []string{`response_total{namespace="prod",deployment="web",direction="inbound",classification!~"failure"}`, `response_latency_ms_bucket{namespace="prod",deployment="web",direction="inbound",le="250"}`}, nil,
	},
	"Linkerd (stateful sets)": {
		requestsOf(`response_total{direction="inbound",namespace="prod",statefulset="db"}`, "classification", "success", "failure", `response_latency_ms{direction="inbound",namespace="prod",statefulset="db"}`, milliseconds),
		"prod-db.yaml", []string{`response_total{namespace="prod",statefulset="db",direction="inbound",classification!~"failure"}`, `within 250 ms`}, nil,
	},
	"Linkerd (daemon sets)": {
		requestsOf(`response_total{direction="inbound",namespace="prod",daemonset="cache"}`, "classification", "success", "failure", `response_latency_ms{direction="inbound",namespace="prod",daemonset="cache"}`, milliseconds),
		"prod-cache.yaml", []string{`response_total{namespace="prod",daemonset="cache",direction="inbound",classification!~"failure"}`, `within 250 ms`}, nil,
	},
	"OpenTelemetry HTTP": {
		func(r *recorded) {
			for code, per := range map[string]float64{"200": 1, "500": 0.0009} {
				edges := map[string]float64{}
				for le, n := range seconds {
					edges[le] = n * per
				}
				r.histogram(`http_server_request_duration_seconds{job="otel-shop",http_request_method="GET",http_response_status_code="`+code+`"}`, edges)
			}
		},
		"otel-shop.yaml",
		[]string{
			`sum(rate(http_server_request_duration_seconds_count{job="otel-shop",http_response_status_code!~"5.."}[5m]))`,
			`sum(rate(http_server_request_duration_seconds_bucket{job="otel-shop",http_response_status_code!~"5..",le="0.25"}[5m]))`,
		}, nil,
	},
	"OpenTelemetry HTTP (names with dots)": {
		func(r *recorded) {
			// A native histogram, for which no _bucket exists.
			for code, per := range map[string]float64{"200": 999.1, "500": 0.9} {
				r.series = append(r.series, growing{
					labels: seriesLabels(r.t, `{"http.server.request.duration","service.name"="otel-dots","http.response.status_code"="`+code+`"}`),
					native: []float64{0.9 * per, 0.095 * per, 0.004 * per, 0.001 * per},
				})
			}
		},
		"otel-dots.yaml",
		[]string{
			`histogram_count(sum(rate({"http.server.request.duration","service.name"="otel-dots","http.response.status_code"!~"5.."}[5m])))`,
			`histogram_count(sum(rate({"http.server.request.duration","service.name"="otel-dots"}[5m])))`,
			`histogram_fraction(0, 0.3, sum(rate({"http.server.request.duration","service.name"="otel-dots","http.response.status_code"!~"5.."}[5m]))) * histogram_count(`,
			"without failure, target: 0.999}", "within 300 ms, target: 0.995}",
		}, nil,
	},
	"OpenTelemetry HTTP (before 1.20)": {
		requestsOf("", "", "", "", `http_server_duration_milliseconds{job="otel-old",http_status_code="200"}`, milliseconds),
		"otel-old.yaml", []string{`http_server_duration_milliseconds_count{job="otel-old",http_status_code!~"5.."}`, `le="250"`}, nil,
	},
	"http_requests_total": {
		func(r *recorded) {
			requestsOf(`http_requests_total{namespace="prod",job="lib-code",instance="a:80"}`, "code", "200", "500", `http_request_duration_seconds{namespace="prod",job="lib-code",handler="/"}`, seconds)(r)
			// Another program of the same metric has another label for the result.
			requestsOf(`http_requests_total{namespace="prod",job="lib-status",instance="a:80"}`, "status", "200", "500", "", nil)(r)
			requestsOf(`http_requests_total{namespace="prod",job="lib-status-code"}`, "status_code", "200", "500", "", nil)(r)
			// And a third one has none: nothing tells its failures.
			r.counter(`http_requests_total{namespace="prod",job="lib-nothing"}`, 1000)
		},
		"prod-lib-code.yaml",
		[]string{`http_requests_total{namespace="prod",job="lib-code",code!~"5..|5xx"}`, `http_request_duration_seconds_bucket{namespace="prod",job="lib-code",le="0.25"}`}, nil,
	},
	"ASP.NET (prometheus-net)": {
		requestsOf(`http_requests_received_total{job="dotnet",method="GET"}`, "code", "200", "500", `http_request_duration_seconds{job="dotnet",code="200"}`, seconds),
		"dotnet.yaml", []string{`http_requests_received_total{job="dotnet",code!~"5.."}`, `http_request_duration_seconds_bucket{namespace="",job="dotnet",code!~"5..|5xx",le="0.25"}`}, nil,
	},
	"http_request_duration_seconds": {
		func(r *recorded) {
			r.histogram(`http_request_duration_seconds{namespace="prod",job="histogram-alone",status_code="200"}`, seconds)
		},
		"prod-histogram-alone.yaml", []string{`http_request_duration_seconds_count{namespace="prod",job="histogram-alone",status_code!~"5..|5xx"}`, `status_code!~"5..|5xx",le="0.25"`, "target: 0.9999}"}, nil,
	},
	"Micrometer (Spring Boot, Quarkus)": {
		requestsOf("", "", "", "", `http_server_requests_seconds{application="spring",job="k8s",status="200",outcome="SUCCESS",uri="/"}`, seconds),
		"spring.yaml", []string{`http_server_requests_seconds_count{application="spring",status!~"5.."}`}, nil,
	},
	"Flask (prometheus_flask_exporter)": {
		requestsOf(`flask_http_request_total{job="flask"}`, "status", "200", "500", `flask_http_request_duration_seconds{job="flask",status="200"}`, seconds),
		"flask.yaml", []string{`flask_http_request_total{job="flask",status!~"5.."}`, `flask_http_request_duration_seconds_bucket{job="flask",status!~"5..",le="0.25"}`}, []string{"up{"},
	},
	"Starlette and FastAPI": {
		requestsOf(`starlette_requests_total{job="fast-api",method="GET",path="/"}`, "status_code", "200", "500", `starlette_request_duration_seconds{job="fast-api",status_code="200"}`, seconds),
		"fast-api.yaml", []string{`starlette_requests_total{job="fast-api",status_code!~"5.."}`, `le="0.25"`}, nil,
	},
	"gRPC": {
		func(r *recorded) {
			const s = `job="greeter",grpc_service="v1.Greeter",grpc_method="SayHello",grpc_type="unary"`
			requestsOf(`grpc_server_handled_total{`+s+`}`, "grpc_code", "OK", "Unavailable", `grpc_server_handling_seconds{`+s+`}`, seconds)(r)
			// Who asks for nothing is not failed, and a health check is nobody's request.
			r.counter(`grpc_server_handled_total{job="greeter",grpc_service="v1.Greeter",grpc_method="Other",grpc_type="unary",grpc_code="NotFound"}`, 100)
			r.counter(`grpc_server_handled_total{job="greeter",grpc_service="grpc.health.v1.Health",grpc_method="Check",grpc_type="unary",grpc_code="Internal"}`, 1000)
		},
		"greeter.yaml",
		[]string{
			`grpc_server_handled_total{job="greeter",grpc_service!~"grpc\\.(health|reflection)\\..*",grpc_code!~"Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss"}`,
			`grpc_server_handling_seconds_bucket{job="greeter",grpc_service!~"grpc\\.(health|reflection)\\..*",grpc_type="unary",le="0.25"}`,
			"without failure, target: 0.999}",
		}, nil,
	},
	"OpenTelemetry gRPC": {
		requestsOf("", "", "", "", `rpc_server_duration_milliseconds{job="otel-grpc",rpc_grpc_status_code="0",rpc_system="grpc"}`, milliseconds),
		"otel-grpc.yaml", []string{`rpc_server_duration_milliseconds_count{job="otel-grpc",rpc_grpc_status_code!~"2|4|12|13|14|15"}`, `le="250"`}, nil,
	},
	"Kubernetes API server": {
		func(r *recorded) {
			requestsOf(`apiserver_request_total{job="apiserver",verb="GET",resource="pods"}`, "code", "200", "500", `apiserver_request_sli_duration_seconds{job="apiserver",verb="GET"}`, seconds)(r)
			r.histogram(`apiserver_request_sli_duration_seconds{job="apiserver",verb="WATCH"}`, map[string]float64{"0.1": 0, "0.25": 0, "1": 0, "+Inf": 1000})
		},
		"apiserver.yaml",
		[]string{`apiserver_request_total{job="apiserver",code!~"5.."}`, `apiserver_request_sli_duration_seconds_bucket{job="apiserver",verb!~"WATCH|WATCHLIST|CONNECT",le="0.25"}`}, nil,
	},
	"Kubernetes API server (with time in queues)": {
		requestsOf(`apiserver_request_total{job="old-apiserver",verb="GET"}`, "code", "200", "500", `apiserver_request_duration_seconds{job="old-apiserver",verb="GET"}`, seconds),
		"old-apiserver.yaml", []string{`apiserver_request_duration_seconds_bucket{job="old-apiserver",verb!~"WATCH|WATCHLIST|CONNECT",le="0.25"}`}, nil,
	},
	"CoreDNS": {
		requestsOf(`coredns_dns_responses_total{job="kube-dns",server="dns://:53",zone="."}`, "rcode", "NOERROR", "SERVFAIL", `coredns_dns_request_duration_seconds{job="kube-dns",server="dns://:53"}`, seconds),
		"kube-dns.yaml", []string{`coredns_dns_responses_total{job="kube-dns",rcode!~"SERVFAIL"}`, `le="0.25"`}, nil,
	},
	"blackbox probe": {
		func(r *recorded) {
			r.gauge(`probe_success{job="blackbox",instance="https://shop.example/"}`, 30) // of 1,440 minutes
		},
		"https-shop-example.yaml",
		[]string{"thresholdMetric:", `query: 'min(probe_success{instance="https://shop.example/"})'`, "op: gte, value: 1, target: 0.95}", `service: "https://shop.example/"`}, []string{"ratioMetric"},
	},
	"scrape (up)": {
		func(r *recorded) {
			r.gauge(`up{job="batch",instance="a:80"}`, 0)
			r.gauge(`up{job="batch",instance="b:80"}`, 1440)
			r.gauge(`up{job="flask",instance="a:80"}`, 0) // its requests are known
		},
		"batch.yaml", []string{`query: 'max(up{job="batch"})'`, "target: 0.999}"}, nil,
	},
}

// mistakes are what keeps documents from being used.
func mistakes(set *openslo.Set) (out []string) {
	for _, f := range set.Findings() {
		if f.IsError() {
			out = append(out, f.String())
		}
	}
	return out
}

func TestEachConventionIsDrafted(t *testing.T) {
	for _, c := range conventions {
		if _, ok := byConvention[c.name]; !ok {
			t.Errorf("convention %s has no case: add one", c.name)
		}
	}
	if len(byConvention) != len(conventions) {
		t.Errorf("%d cases of %d conventions", len(byConvention), len(conventions))
	}
	r := newRecorded(t)
	for _, name := range slices.Sorted(maps.Keys(byConvention)) {
		byConvention[name].add(r)
	}
	r.write(1440, time.Minute)
	out := filepath.Join(t.TempDir(), "drafts")
	code, _, errs := called(t, "suggest", "--server", r.serve(), "--since", "1d", "--out", out)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, name := range slices.Sorted(maps.Keys(byConvention)) {
		t.Run(name, func(t *testing.T) {
			want := byConvention[name]
			data, err := os.ReadFile(filepath.Join(out, want.file))
			if err != nil {
				t.Fatal(err)
			}
			text := string(data)
			if !strings.Contains(strings.ReplaceAll(text, "\n#", ""), " of "+name) && !strings.Contains(text, "by "+name) {
				t.Errorf("it is not by %s:\n%s", name, text)
			}
			for _, w := range want.texts {
				if !strings.Contains(text, w) {
					t.Errorf("%s is not in\n%s", w, text)
				}
			}
			for _, w := range want.never {
				if strings.Contains(text, w) {
					t.Errorf("%s is in\n%s", w, text)
				}
			}
			set := openslo.Load(map[string][]byte{want.file: data})
			if bad := mistakes(set); len(bad) > 0 {
				t.Errorf("check says %s of\n%s", strings.Join(bad, "\n"), text)
			}
			for _, f := range set.Findings() { // sampled among them: a draft is counted exactly
				t.Errorf("check says: %s", f)
			}
		})
	}
	for _, other := range []string{"prod-lib-status.yaml", "prod-lib-status-code.yaml"} {
		if data, err := os.ReadFile(filepath.Join(out, other)); err != nil || !strings.Contains(string(data), `status`) || !strings.Contains(string(data), "target: 0.999}") {
			t.Errorf("%v: %s", err, data)
		}
	}
	if !strings.Contains(errs, "lib-nothing in namespace prod: no availability from http_requests_total: its series have no label that tells failures") {
		t.Errorf("nobody is told of a service whose failures cannot be told:\n%s", errs)
	}
	all, err := openslo.LoadPaths(out)
	if err != nil {
		t.Fatal(err)
	}
	if bad := mistakes(all); len(bad) > 0 {
		t.Errorf("check says of all drafts together:\n%s", strings.Join(bad, "\n"))
	}
}

// few writes a store with one service that has so many requests a minute, of
// which a share fails, for so many minutes.
func few(t *testing.T, perMinute, failed float64, minutes int) (server string) {
	t.Helper()
	r := newRecorded(t)
	r.counter(`http_requests_total{job="shop",code="200"}`, perMinute*(1-failed))
	r.counter(`http_requests_total{job="shop",code="500"}`, perMinute*failed)
	r.write(minutes, time.Minute)
	return r.serve()
}

// uncomment joins the lines of comments, so that a test need not know where
// they break.
func uncomment(text string) string { return strings.ReplaceAll(text, "\n#", "") }

func TestTargetIsWhatWasMeasuredRoundedDown(t *testing.T) {
	for _, c := range []struct{ failed, target string }{
		{"0", "0.9999"}, {"0.0002", "0.9995"}, {"0.0005", "0.9995"}, {"0.00051", "0.999"}, {"0.0011", "0.995"}, {"0.006", "0.99"},
		{"0.011", "0.98"}, {"0.021", "0.95"}, {"0.06", "0.9"},
	} {
		share := 0.0
		if _, err := fmt.Sscan(c.failed, &share); err != nil {
			t.Fatal(err)
		}
		got, why := choose(counted{good: 1e6 * (1 - share), total: 1e6, covered: 24 * time.Hour})
		if why != "" || got.target.String() != c.target {
			t.Errorf("with %s failed the target is %s (%s), want %s", c.failed, got.target, why, c.target)
		}
	}
	if _, why := choose(counted{good: 899_999, total: 1e6, covered: 24 * time.Hour}); !strings.Contains(why, "89.99 % of 1000000 events were good") {
		t.Errorf("below all steps it says %q", why)
	}
	if _, why := choose(counted{good: 9, total: 9, covered: 30 * 24 * time.Hour}); !strings.Contains(why, "9 events in 30 days are too few for any target") {
		t.Errorf("of nine events it says %q", why)
	}
}

func TestSmallestEdgeThatHoldsEnoughIsChosen(t *testing.T) {
	edges := func(counts ...float64) (out []bucketEdge) {
		for i, n := range counts {
			e := []string{"0.1", "0.5", "2.5"}[i]
			out = append(out, bucketEdge{text: e, upTo: []float64{0.1, 0.5, 2.5}[i], count: n})
		}
		return out
	}
	for _, c := range []struct {
		counts   []float64
		le       string
		supports string
	}{
		{[]float64{990, 999, 1000}, "0.1", "99"},
		{[]float64{989, 999, 1000}, "0.5", "99"},
		{[]float64{400, 960, 980}, "0.5", "95"},
		{[]float64{100, 200, 900}, "2.5", "90"},
		{[]float64{100, 200, 899}, "", ""},
	} {
		e, supports, ok := chooseEdge(edges(c.counts...), 1000)
		if ok != (c.le != "") || ok && (e.text != c.le || supports != c.supports) {
			t.Errorf("of %v it chose %q for %q %%, %v", c.counts, e.text, supports, ok)
		}
	}
	if _, _, ok := chooseEdge(edges(0, 0, 0), 0); ok {
		t.Error("an edge was chosen of no events")
	}
}

func TestDraftSaysWhyAndWhatItCannotSee(t *testing.T) {
	code, out, errs := called(t, "suggest", "--server", few(t, 1000, 0.0006, 1440), "--since", "1d")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{
		`Why 99.9 %: of 14`, `% did not fail (code=~"5..|5xx" does); rounded down to a usual step. PromQL estimated it`,
		`Budget: of about 43`, `as time, that is all of them for 43.2 minutes in a month of 30 days.`,
		`Not covered: requests that never reach the program`,
	} {
		if !strings.Contains(uncomment(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "Low traffic") {
		t.Errorf("1,000 requests a minute are called low traffic:\n%s", out)
	}
	if strings.Contains(out, "There were samples in") {
		t.Errorf("a day of samples is called less:\n%s", out)
	}
	if !strings.Contains(errs, "drafted 1 SLO of 1 service\n") {
		t.Errorf("it says %s", errs)
	}
}

func TestLowTrafficIsTold(t *testing.T) {
	code, out, errs := called(t, "suggest", "--server", few(t, 1, 0.002, 1440), "--since", "2d")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	text := uncomment(out)
	// 60 an hour at 99.5 %: 14.4 × 0.005 × 60 = 4.3 may fail, 5 may not.
	if !strings.Contains(text, "target: 0.995}") || strings.Contains(text, "Low traffic") {
		t.Errorf("five failures an hour are needed for a page:\n%s", text)
	}
	if !strings.Contains(text, "There were samples in 1 day of that time") {
		t.Errorf("it does not say that a day is missing:\n%s", text)
	}
	code, out, errs = called(t, "suggest", "--server", few(t, 0.5, 0, 1440), "--since", "1d")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	text = uncomment(out)
	for _, want := range []string{"Low traffic: about 30", "so that 3 bad ones within an hour are enough for a page", "too few events to wake somebody"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestTooFewEventsForAStricterTarget(t *testing.T) {
	// Of 144 events a single failure is more than 0.5 %.
	code, out, errs := called(t, "suggest", "--server", few(t, 0.1, 0, 1440), "--since", "1d")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if text := uncomment(out); !strings.Contains(text, "target: 0.99}") || !strings.Contains(text, "A stricter target is more than so few requests can show") {
		t.Errorf("%s", text)
	}
}

func TestNothingToDraftNamesTheNextStep(t *testing.T) {
	t.Run("no series", func(t *testing.T) {
		code, _, errs := called(t, "suggest", "--server", newRecorded(t).serve())
		if code != 1 || !strings.Contains(errs, "has no series of the last day: point a Prometheus at it with remote_write") {
			t.Errorf("exit %d: %s", code, errs)
		}
	})
	t.Run("none that is known", func(t *testing.T) {
		r := newRecorded(t)
		r.counter("things_total", 1)
		r.write(60, time.Minute)
		code, _, errs := called(t, "suggest", "--server", r.serve())
		if code != 1 || !strings.Contains(errs, "has 1 metric names, and none that suggest knows") || !strings.Contains(errs, "write an SLO by hand") {
			t.Errorf("exit %d: %s", code, errs)
		}
	})
	t.Run("no traffic", func(t *testing.T) {
		code, out, errs := called(t, "suggest", "--server", few(t, 0, 0, 60))
		if code != 1 || out != "" || !strings.Contains(errs, "shop: no availability from http_requests_total: it counted nothing since") || !strings.Contains(errs, "try a longer --since") {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
	})
	t.Run("bad for weeks", func(t *testing.T) {
		code, out, errs := called(t, "suggest", "--server", few(t, 100, 0.2, 60))
		if code != 1 || out != "" || !strings.Contains(errs, "which no usual target allows: repair it first") {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		code, _, errs := called(t, "suggest", "--server", "http://user:secret@127.0.0.1:1/")
		if code != 1 || !strings.Contains(errs, "check that the server runs") || strings.Contains(errs, "secret") {
			t.Errorf("exit %d: %s", code, errs)
		}
	})
	t.Run("not the API", func(t *testing.T) {
		s := httptest.NewServer(http.NotFoundHandler())
		defer s.Close()
		code, _, errs := called(t, "suggest", "--server", s.URL)
		if code != 1 || !strings.Contains(errs, "--server must be the URL that /api/v1 comes behind") {
			t.Errorf("exit %d: %s", code, errs)
		}
	})
	t.Run("wrong use", func(t *testing.T) {
		for _, args := range [][]string{{"--since", "soon"}, {"--since", "400d"}, {"--force"}, {"what"}, {"--server", "prometheus:9090"}, {"--server", "http://%zz"}} {
			if code, _, errs := called(t, append([]string{"suggest"}, args...)...); code != 2 {
				t.Errorf("%v: exit %d: %s", args, code, errs)
			}
		}
	})
}

func TestDraftsAreNeverOverwrittenUnasked(t *testing.T) {
	server, dir := few(t, 100, 0, 120), t.TempDir()
	mine := filepath.Join(dir, "shop.yaml")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errs := called(t, "suggest", "--server", server, "--out", dir)
	if code != 1 || !strings.Contains(errs, "shop.yaml is there already, and nothing was written") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
		t.Errorf("it holds %q (%v)", data, err)
	}
	if code, _, errs := called(t, "suggest", "--server", server, "--out", dir, "--force"); code != 0 {
		t.Errorf("with --force: exit %d: %s", code, errs)
	}
	if data, err := os.ReadFile(mine); err != nil || !strings.Contains(string(data), "kind: SLO") {
		t.Errorf("with --force it holds %q (%v)", data, err)
	}
}

func TestNamespacesAreChosenAndNamesStayUnique(t *testing.T) {
	r := newRecorded(t)
	for _, ns := range []string{"blue", "green", "red"} {
		r.counter(`http_requests_total{namespace="`+ns+`",job="shop",code="200"}`, 100)
	}
	r.counter(`traefik_service_requests_total{service="other",code="200"}`, 100)
	r.write(120, time.Minute)
	server := r.serve()
	code, out, errs := called(t, "suggest", "--server", server, "--namespace", "green", "--namespace", "red")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for text, n := range map[string]int{"kind: SLO": 2, "blue": 0, `{namespace="green",job="shop",code!~`: 1, "=~": 2, "name: shop-availability\n": 1, "  name: red-shop-availability\n": 1, "service: other": 0, "samples in 2 h": 2, "of about 4": 2} {
		if text == "=~" {
			text = `code=~"5..|5xx" does` // the matcher of --namespace is not in the queries
		}
		if got := strings.Count(uncomment(out), text); got != n {
			t.Errorf("%q is there %d times, want %d, in\n%s", text, got, n, out)
		}
	}
	if !strings.Contains(errs, "traefik_service_requests_total has no label of a namespace") {
		t.Errorf("it does not say what --namespace leaves out: %s", errs)
	}
}

func TestHostileNamesStayInTheirPlace(t *testing.T) {
	r := newRecorded(t)
	evil := "it's \"odd\"\nkind: Evil\n../../etc: {x"
	ls := labels.FromStrings("__name__", "http_requests_total", "job", evil, "code", "200")
	r.series = append(r.series, growing{labels: ls, value: func(m int) float64 { return 100 * float64(before+m) }})
	r.write(120, time.Minute)
	out := t.TempDir()
	code, _, errs := called(t, "suggest", "--server", r.serve(), "--out", out)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	set, err := openslo.LoadPaths(out)
	if err != nil {
		t.Fatal(err)
	}
	if bad := mistakes(set); len(bad) > 0 || len(set.Objectives()) != 1 {
		t.Fatalf("%d objectives: %v", len(set.Objectives()), bad)
	}
	if o := set.Objectives()[0]; o.Service != evil || o.SLO != "it-s-odd-kind-evil-etc-x-availability" {
		t.Errorf("service %q, SLO %q", o.Service, o.SLO)
	}
	ind, err := openslo.ParseSLI(set.Objectives()[0].SLI)
	if err != nil || !slices.ContainsFunc(ind.Total.Matchers, func(m *labels.Matcher) bool { return m.Name == "job" && m.Value == evil }) {
		t.Errorf("%v: the query selects %v", err, ind.Total.Matchers)
	}
}

func TestNoMoreThanTwoHundredServicesAreDrafted(t *testing.T) {
	r := newRecorded(t)
	for i := range maxServices + 5 {
		r.counter(fmt.Sprintf(`http_requests_total{job="svc-%03d",code="200"}`, i), float64(10+i))
	}
	r.write(60, time.Minute)
	code, out, errs := called(t, "suggest", "--server", r.serve(), "--since", "1h")
	if code != 0 || strings.Count(out, "kind: SLO") != maxServices {
		t.Fatalf("exit %d, %d SLOs: %s", code, strings.Count(out, "kind: SLO"), errs)
	}
	if !strings.Contains(errs, "5 more services were found, and left out") {
		t.Errorf("the rest is not told: %s", errs)
	}
	if strings.Contains(out, "svc-000") || !strings.Contains(out, "svc-204") {
		t.Error("those with the most requests are not the ones that are drafted")
	}
}

// A server that refuses long ranges is asked for shorter ones, and the sum is
// the same.
func TestRangeThatIsTooMuchIsCut(t *testing.T) {
	r := newRecorded(t)
	for i := range 10 {
		r.counter(fmt.Sprintf(`http_requests_total{job="shop",instance="i-%d",code="200"}`, i), 10)
	}
	r.write(1440, time.Minute)
	r.limit(2000)
	code, out, errs := called(t, "suggest", "--server", r.serve(), "--since", "1d")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if text := uncomment(out); !strings.Contains(text, "of 144000 requests") {
		t.Errorf("it counted another number than 144000 requests:\n%s", text)
	}
}

func TestWhatIsTooMuchInAnyRangeIsTold(t *testing.T) {
	r := newRecorded(t)
	r.counter(`http_requests_total{job="shop",code="200"}`, 10)
	r.write(120, time.Minute)
	r.limit(1)
	code, _, errs := called(t, "suggest", "--server", r.serve(), "--since", "1h")
	if code != 1 || !strings.Contains(errs, "http_requests_total: left out: query sum by (job, code)") || !strings.Contains(errs, "too much to read for one query") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestDraftsComeFromAFolderToo(t *testing.T) {
	r := newRecorded(t)
	r.counter(`http_requests_total{job="shop",code="200"}`, 100)
	r.write(180, time.Minute)
	r.close()
	code, out, errs := called(t, "suggest", "--data", r.data, "--since", "3h")
	if code != 0 || !strings.Contains(out, `sum(rate(http_requests_total{job="shop",code!~"5..|5xx"}[5m]))`) {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
}

// What stands nearer to the users is drafted, and the rest is told.
func TestIngressControllerComesBeforeTheProgramItself(t *testing.T) {
	r := newRecorded(t)
	r.counter(`nginx_ingress_controller_requests{namespace="prod",service="shop",status="200"}`, 100)
	r.counter(`http_requests_total{namespace="prod",job="shop",code="200"}`, 100)
	r.histogram(`http_request_duration_seconds{namespace="prod",job="shop"}`, seconds)
	r.write(120, time.Minute)
	code, out, errs := called(t, "suggest", "--server", r.serve(), "--since", "2h")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	text := uncomment(out)
	if strings.Count(out, "kind: SLO") != 2 || !strings.Contains(text, "availability, by nginx_ingress_controller_requests of ingress-nginx") || !strings.Contains(text, "latency, by http_request_duration_seconds") {
		t.Errorf("one objective of availability and one of latency are wanted:\n%s", text)
	}
	if !strings.Contains(text, "is known to http_requests_total too") {
		t.Errorf("what was passed over is not told:\n%s", text)
	}
}

// The documentation names the metrics of each line of the table.
func TestEachConventionIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/suggest.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conventions {
		for _, metric := range []string{c.requests, c.histogram, c.gauge} {
			if metric != "" && !strings.Contains(string(data), "`"+metric+"`") {
				t.Errorf("docs/suggest.md does not name %s of %s", metric, c.name)
			}
		}
		if c.blind == "" {
			t.Errorf("%s does not say what it cannot see", c.name)
		}
		if c.histogram != "" && c.unit != "s" && c.unit != "ms" {
			t.Errorf("%s: the unit of %s is %q, want s or ms", c.name, c.histogram, c.unit)
		}
	}
}
