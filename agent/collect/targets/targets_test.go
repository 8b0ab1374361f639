package targets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	promscrape "github.com/prometheus/prometheus/scrape"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"

	"nines/agent/collect/scrape"
	"nines/agent/pods"
	"nines/pkg/metric"
)

// client-go sleeps from its last error to this one where time moved backwards,
// which it does at the beginning of each bubble.
func init() { utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1] }

const (
	podsPath     = "/api/v1/pods"
	monitorsPath = "/apis/monitoring.coreos.com/v1/podmonitors"
	secretPath   = "/api/v1/namespaces/shop/secrets/s"
)

// apiServer plays the part of the Kubernetes API that is asked here. A real one
// comes with the cluster tests.
type apiServer struct {
	mu       sync.Mutex
	objects  map[string][]any // by path; a path without an entry is not found
	refused  map[string]int   // by path: the code, -1 never answers
	requests map[string]int   // by path
	events   map[string]chan metav1.WatchEvent
}

func newAPI() *apiServer {
	return &apiServer{
		objects: map[string][]any{podsPath: nil}, refused: map[string]int{}, requests: map[string]int{},
		events: map[string]chan metav1.WatchEvent{podsPath: make(chan metav1.WatchEvent), monitorsPath: make(chan metav1.WatchEvent)},
	}
}

func (a *apiServer) set(path string, objects ...any) *apiServer {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[path] = objects
	return a
}

func (a *apiServer) refuse(path string, code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused[path] = code
}

func (a *apiServer) asked(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[path]
}

func (a *apiServer) send(t *testing.T, path, kind string, object any) {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	e := metav1.WatchEvent{Type: kind}
	e.Object.Raw = data
	a.events[path] <- e
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.requests[r.URL.Path]++
	objects, known := a.objects[r.URL.Path]
	code := a.refused[r.URL.Path]
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	kinds := map[string]metav1.TypeMeta{podsPath: {Kind: "PodList", APIVersion: "v1"}, monitorsPath: {Kind: "PodMonitorList", APIVersion: "monitoring.coreos.com/v1"}}
	switch list, isList := kinds[r.URL.Path]; {
	case code < 0:
		<-r.Context().Done()
	case code > 0:
		w.WriteHeader(code)
		reasons := map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 503: metav1.StatusReasonServiceUnavailable}
		enc.Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reasons[code], Code: int32(code), Message: "no"})
	case !known:
		http.NotFound(w, r)
	case !isList:
		enc.Encode(objects[0])
	case r.URL.Query().Get("watch") == "true":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case e := <-a.events[r.URL.Path]:
				if e.Type == "" {
					return // cut
				}
				enc.Encode(e)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	default:
		enc.Encode(struct {
			metav1.TypeMeta `json:",inline"`
			metav1.ListMeta `json:"metadata"`
			Items           []any `json:"items"`
		}{list, metav1.ListMeta{ResourceVersion: "1"}, objects})
	}
}

// RoundTrip is the way to the server within a bubble, where there is no network.
func (a *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, out := io.Pipe()
	w := &response{PipeWriter: out, header: http.Header{}, begun: make(chan int, 1)}
	ended := context.AfterFunc(r.Context(), func() { out.CloseWithError(r.Context().Err()) })
	go func() {
		defer ended()
		defer out.Close()
		a.ServeHTTP(w, r)
	}()
	select {
	case code := <-w.begun:
		return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: w.header, Body: body, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// response is a ResponseWriter into a pipe.
type response struct {
	*io.PipeWriter
	header http.Header
	begun  chan int
	once   sync.Once
}

func (w *response) Header() http.Header  { return w.header }
func (w *response) Flush()               {}
func (w *response) WriteHeader(code int) { w.once.Do(func() { w.begun <- code }) }
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.PipeWriter.Write(b)
}

// run is a Targets with its watches, against a played server.
type run struct {
	*Targets
	set  *metrics.Set
	stop func()

	mu     sync.Mutex
	log    bytes.Buffer
	jobs   []scrape.Job
	sets   int
	refuse error         // what set says
	told   chan struct{} // holds one: jobs were taken
}

func (r *run) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

func (r *run) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *run) take(jobs []scrape.Job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sets++
	if r.refuse != nil {
		return r.refuse
	}
	r.jobs = jobs
	select {
	case r.told <- struct{}{}:
	default:
	}
	return nil
}

func (r *run) taken() (jobs []scrape.Job, sets int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs, r.sets
}

func (r *run) series(t *testing.T, name string) string {
	t.Helper()
	var b bytes.Buffer
	r.set.WritePrometheus(&b)
	for line := range strings.Lines(b.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no series %s", name)
	return ""
}

func begin(t *testing.T, config *rest.Config, change ...func(*Config)) *run {
	t.Helper()
	r := &run{set: metrics.NewSet(), told: make(chan struct{}, 1)}
	log := slog.New(slog.NewTextHandler(r, nil))
	cfg := DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	access, err := pods.From(config)
	if err != nil {
		t.Fatal(err)
	}
	r.Targets, err = New(cfg, "n1", access, r.take, log, r.set)
	if err != nil {
		t.Fatal(err)
	}
	podWatch, monitorWatch := pods.NewPods(access, "n1", log), pods.NewPodMonitors(access, log)
	r.Troubles(func() (string, string) { return podWatch.Trouble(), monitorWatch.Trouble() })
	podWatch.Add(r.Pods())
	monitorWatch.Add(r.PodMonitors())
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { podWatch.Run(ctx) })
	running.Go(func() { monitorWatch.Run(ctx) })
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.stop = func() { cancel(); running.Wait() }
	return r
}

// start is a run in a bubble whose first jobs are made.
func start(t *testing.T, api *apiServer, change ...func(*Config)) *run {
	t.Helper()
	r := begin(t, &rest.Config{Host: "http://api", Transport: api}, change...)
	wait(settleAtMost)
	return r
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// final is what is scraped in the end: the address with its query, and the
// labels, of each target once, with the name of its job in front.
func final(t *testing.T, jobs []scrape.Job) []string {
	t.Helper()
	var out []string
	for _, job := range jobs {
		for _, g := range job.Groups {
			for _, target := range g.Targets {
				lb := labels.NewBuilder(labels.EmptyLabels())
				res, err := promscrape.PopulateLabels(lb, job.Config, target, g.Labels)
				if err != nil {
					t.Fatal(err)
				}
				if res.IsEmpty() {
					continue
				}
				one := promscrape.NewTarget(res, job.Config, target, g.Labels)
				out = append(out, fmt.Sprintf("%s %s %s", job.Config.JobName, one.URL(), one.Labels(labels.NewBuilder(labels.EmptyLabels()))))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func scraped(more ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Annotations["prometheus.io/scrape"] = "true"
		for _, m := range more {
			m(p)
		}
	}
}

// The labels are those that the chart of prometheus-community has for its job
// kubernetes-pods.
func TestPodsWithAnnotationsAreScraped(t *testing.T) {
	const common = `app="web", app_kubernetes_io_name="shop", instance=`
	for what, c := range map[string]struct {
		pod  corev1.Pod
		want []string
	}{
		"each declared port": {apiPod("web-1", scraped()), []string{
			`kubernetes-pods http://10.1.2.3:8080/metrics {` + common + `"10.1.2.3:8080", job="kubernetes-pods", namespace="shop", node="n1", pod="web-1"}`,
			`kubernetes-pods http://10.1.2.3:9100/metrics {` + common + `"10.1.2.3:9100", job="kubernetes-pods", namespace="shop", node="n1", pod="web-1"}`,
		}},
		"port, path, scheme and parameters": {
			apiPod("web-1", scraped(annotation("prometheus.io/port", "9999"), annotation("prometheus.io/path", "/m"), annotation("prometheus.io/scheme", "https"), annotation("prometheus.io/param_format", "prom"))),
			[]string{`kubernetes-pods https://10.1.2.3:9999/m?format=prom {` + common + `"10.1.2.3:9999", job="kubernetes-pods", namespace="shop", node="n1", pod="web-1"}`},
		},
		"port of a pod without ports, IPv6": {
			apiPod("web-1", scraped(annotation("prometheus.io/port", "80"), func(p *corev1.Pod) { p.Status.PodIP, p.Spec.Containers[0].Ports = "fd00::3", nil })),
			[]string{`kubernetes-pods http://[fd00::3]:80/metrics {` + common + `"[fd00::3]:80", job="kubernetes-pods", namespace="shop", node="n1", pod="web-1"}`},
		},
		"no port at all":        {apiPod("web-1", scraped(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil })), nil},
		"not asked for":         {apiPod("web-1", annotation("prometheus.io/port", "80")), nil},
		"asked for otherwise":   {apiPod("web-1", annotation("prometheus.io/scrape", "yes")), nil},
		"pending":               {apiPod("web-1", scraped(phase(corev1.PodPending))), nil},
		"succeeded":             {apiPod("web-1", scraped(phase(corev1.PodSucceeded))), nil},
		"failed":                {apiPod("web-1", scraped(phase(corev1.PodFailed))), nil},
		"namespace is left out": {apiPod("web-1", scraped(namespace("kube-system"))), nil},
		"a scheme that is none": {apiPod("web-1", scraped(annotation("prometheus.io/port", "80"), annotation("prometheus.io/scheme", "ftp"))),
			[]string{`kubernetes-pods http://10.1.2.3:80/metrics {` + common + `"10.1.2.3:80", job="kubernetes-pods", namespace="shop", node="n1", pod="web-1"}`}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, newAPI().set(podsPath, c.pod), func(c *Config) { c.ExcludeNamespaces = []string{"kube-*"} })
			defer r.stop()
			jobs, _ := r.taken()
			same(t, what, final(t, jobs), c.want...)
			for _, j := range jobs {
				if !j.Config.HonorLabels || time.Duration(j.Config.ScrapeInterval) != 30*time.Second || time.Duration(j.Config.ScrapeTimeout) != 10*time.Second {
					t.Errorf("%s: honor labels %v, interval %v", what, j.Config.HonorLabels, j.Config.ScrapeInterval)
				}
			}
		})
	}
}

func TestAnnotationsCanBeLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newAPI().set(podsPath, apiPod("web-1", scraped())), func(c *Config) { c.Annotations = false })
		defer r.stop()
		if jobs, sets := r.taken(); len(jobs) != 0 || sets != 1 {
			t.Errorf("%d jobs, set %d times", len(jobs), sets)
		}
	})
}

// monitor is a PodMonitor in namespace shop, with its specification in JSON.
func monitor(t *testing.T, name, spec string) any {
	t.Helper()
	var out map[string]any
	data := fmt.Sprintf(`{"apiVersion":"monitoring.coreos.com/v1","kind":"PodMonitor","metadata":{"namespace":"shop","name":%q,"labels":{"name":%q}},"spec":%s}`, name, name, spec)
	if err := json.Unmarshal([]byte(data), &out); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return out
}

// What a PodMonitor gives is what the Prometheus Operator and Prometheus give.
func TestPodsOfPodMonitorsAreScraped(t *testing.T) {
	const http = `http://10.1.2.3:8080/metrics`
	target := func(url, instance, endpoint, more string) string {
		return fmt.Sprintf(`podMonitor/shop/m/0 %s {container="app", %sinstance="%s", job="shop/m", namespace="shop", pod="web-1"%s}`, url, endpoint, instance, more)
	}
	simple := target(http, "10.1.2.3:8080", `endpoint="http", `, "")
	for spec, want := range map[string][]string{
		`{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`:                                     {simple},
		`{"selector":{"matchLabels":{"app":"web"}},"podMetricsEndpoints":[{"port":"http"}]}`:          {simple},
		`{"selector":{"matchLabels":{"app":"other"}},"podMetricsEndpoints":[{"port":"http"}]}`:        nil,
		`{"selector":{"matchLabels":{"app":"w.b"}},"podMetricsEndpoints":[{"port":"http"}]}`:          nil,
		`{"selector":{},"podMetricsEndpoints":[{"port":"none"}]}`:                                     nil,
		`{"selector":{},"podMetricsEndpoints":[]}`:                                                    nil,
		`{"selector":{},"selectorMechanism":"RoleSelector","podMetricsEndpoints":[{"port":"http"}]}`:  {simple},
		`{"selector":{},"podMetricsEndpoints":[{"portNumber":8080}]}`:                                 {target(http, "10.1.2.3:8080", `endpoint="8080", `, "")},
		`{"selector":{},"podMetricsEndpoints":[{"targetPort":8080}]}`:                                 {target(http, "10.1.2.3:8080", `endpoint="8080", `, "")},
		`{"selector":{},"podMetricsEndpoints":[{"targetPort":"http","port":""}]}`:                     {simple},
		`{"selector":{},"podMetricsEndpoints":[{"port":"http","portNumber":9100,"targetPort":9100}]}`: {simple},
		`{"selector":{},"podMetricsEndpoints":[{}]}`: {
			target(http, "10.1.2.3:8080", "", ""), target("http://10.1.2.3:9100/metrics", "10.1.2.3:9100", "", ""),
		},
		`{"selector":{"matchExpressions":[{"key":"app","operator":"In","values":["a","web"]},{"key":"app.kubernetes.io/name","operator":"Exists"},
			{"key":"gone","operator":"DoesNotExist"},{"key":"app","operator":"NotIn","values":["b"]}]},"podMetricsEndpoints":[{"port":"http"}]}`: {simple},
		`{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]},"podMetricsEndpoints":[{"port":"http"}]}`: nil,
		`{"selector":{"matchExpressions":[{"key":"app","operator":"DoesNotExist"}]},"podMetricsEndpoints":[{"port":"http"}]}`:           nil,
		`{"selector":{},"namespaceSelector":{"matchNames":["other"]},"podMetricsEndpoints":[{"port":"http"}]}`: {
			`podMonitor/shop/m/0 http://10.1.2.3:8080/metrics {container="app", endpoint="http", instance="10.1.2.3:8080", job="shop/m", namespace="other", pod="away"}`,
		},
		`{"selector":{},"namespaceSelector":{"any":true},"podMetricsEndpoints":[{"port":"http"}]}`: {simple,
			`podMonitor/shop/m/0 http://10.1.2.3:8080/metrics {container="app", endpoint="http", instance="10.1.2.3:8080", job="shop/m", namespace="other", pod="away"}`,
		},
		`{"selector":{},"jobLabel":"app.kubernetes.io/name","podTargetLabels":["app","app.kubernetes.io/name","none"],"podMetricsEndpoints":[{"port":"http"}]}`: {
			`podMonitor/shop/m/0 http://10.1.2.3:8080/metrics {app="web", app_kubernetes_io_name="shop", container="app", endpoint="http", instance="10.1.2.3:8080", job="shop", namespace="shop", pod="web-1"}`,
		},
		`{"selector":{},"jobLabel":"none","podMetricsEndpoints":[{"port":"http"}]}`: {simple},
		`{"selector":{},"podMetricsEndpoints":[{"port":"http","path":"/m","scheme":"HTTPS","params":{"a":["1","2"]}}]}`: {
			target("https://10.1.2.3:8080/m?a=1&a=2", "10.1.2.3:8080", `endpoint="http", `, ""),
		},
		`{"selector":{},"podMetricsEndpoints":[{"port":"http","filterRunning":false}]}`: {simple,
			`podMonitor/shop/m/0 http://10.1.2.3:8080/metrics {container="app", endpoint="http", instance="10.1.2.3:8080", job="shop/m", namespace="shop", pod="ended"}`,
		},
		`{"selector":{},"podMetricsEndpoints":[{"port":"http","relabelings":[
			{"sourceLabels":["__meta_kubernetes_pod_node_name"],"targetLabel":"node"},
			{"sourceLabels":["__tmp_prometheus_job_name","pod"],"separator":"","targetLabel":"from","regex":"podMonitor/(.*)","replacement":"$1!","action":"Replace"},
			{"targetLabel":"endpoint","replacement":""},
			{"action":"labeldrop","regex":"container"}]}]}`: {
			`podMonitor/shop/m/0 http://10.1.2.3:8080/metrics {from="shop/m/0web-1!", instance="10.1.2.3:8080", job="shop/m", namespace="shop", node="n1", pod="web-1"}`,
		},
		`{"selector":{},"podMetricsEndpoints":[{"port":"http","relabelings":[{"sourceLabels":["pod"],"regex":"web-.*","action":"drop"}]}]}`: nil,
		`{"selector":{},"podMetricsEndpoints":[{"port":"http"},{"port":"metrics"}]}`: {simple,
			`podMonitor/shop/m/1 http://10.1.2.3:9100/metrics {container="app", endpoint="metrics", instance="10.1.2.3:9100", job="shop/m", namespace="shop", pod="web-1"}`,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := newAPI().set(podsPath, apiPod("web-1"), apiPod("ended", phase(corev1.PodSucceeded)), apiPod("away", namespace("other"))).set(monitorsPath, monitor(t, "m", spec))
			r := start(t, api)
			defer r.stop()
			jobs, _ := r.taken()
			same(t, spec, final(t, jobs), want...)
			for _, j := range jobs {
				for _, g := range j.Groups {
					if g.Labels[meta+"pod_phase"] == "Succeeded" && !strings.Contains(spec, "filterRunning") {
						t.Errorf("%s: a pod that ended is handed over, to be dropped", spec)
					}
				}
			}
			if s := r.Status(); len(s.Problems) != 0 || s.Jobs != len(jobs) || s.PodMonitors != 1 || s.Pods != 3 {
				t.Errorf("%s: status %+v", spec, s)
			}
		})
	}
}

func TestPodsThatEndedAreDroppedByARuleToo(t *testing.T) {
	yes, no := true, false
	for filter, want := range map[*bool]bool{nil: true, &yes: true, &no: false} {
		r, err := monitored(&pods.PodMonitor{}, pods.Endpoint{FilterRunning: filter})
		if err != nil {
			t.Fatal(err)
		}
		lb := labels.NewBuilder(labels.FromStrings(meta+"pod_phase", "Failed"))
		if dropped := !relabel.ProcessBuilder(lb, r...); dropped != want {
			t.Errorf("filterRunning %v: dropped %v", filter, dropped)
		}
	}
}

func TestFieldsOfAPodMonitorBecomeThoseOfPrometheus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1")).set(monitorsPath, monitor(t, "m", `{"selector":{},
			"sampleLimit":10,"targetLimit":11,"labelLimit":12,"labelNameLengthLimit":13,"labelValueLengthLimit":14,"keepDroppedTargets":15,"bodySizeLimit":"1MB",
			"scrapeProtocols":["PrometheusText0.0.4"],"fallbackScrapeProtocol":"OpenMetricsText1.0.0","scrapeNativeHistograms":true,"scrapeClassicHistograms":true,
			"convertClassicHistogramsToNHCB":true,"nativeHistogramBucketLimit":16,"nativeHistogramMinBucketFactor":"1.5",
			"podMetricsEndpoints":[{"interval":"15s","scrapeTimeout":"5s","honorLabels":true,"honorTimestamps":false,"trackTimestampsStaleness":true,
				"followRedirects":false,"enableHttp2":false,"proxyUrl":"http://proxy:1","metricRelabelings":[{"sourceLabels":["__name__"],"regex":"go_.*","action":"drop"}]},
				{"interval":"5s"}]}`))
		r := start(t, api, func(c *Config) { c.Limits = Limits{Targets: 5, Samples: 1000, BodySize: 2 << 20, PodMonitors: 1} })
		defer r.stop()
		jobs, _ := r.taken()
		if len(jobs) != 2 {
			t.Fatalf("%d jobs, %+v", len(jobs), r.Status())
		}
		c := jobs[0].Config
		got := fmt.Sprintln(c.SampleLimit, c.TargetLimit, c.LabelLimit, c.LabelNameLengthLimit, c.LabelValueLengthLimit, c.KeepDroppedTargets, int64(c.BodySizeLimit),
			c.ScrapeProtocols, c.ScrapeFallbackProtocol, *c.ScrapeNativeHistograms, *c.AlwaysScrapeClassicHistograms, *c.ConvertClassicHistogramsToNHCB,
			c.NativeHistogramBucketLimit, c.NativeHistogramMinBucketFactor, c.ScrapeInterval, c.ScrapeTimeout, c.HonorLabels, c.HonorTimestamps, c.TrackTimestampsStaleness,
			c.HTTPClientConfig.FollowRedirects, c.HTTPClientConfig.EnableHTTP2, c.HTTPClientConfig.ProxyURL.URL, c.MetricRelabelConfigs[0].Regex, c.MetricRelabelConfigs[0].Action)
		if want := "10 5 12 13 14 15 1048576 [PrometheusText0.0.4] OpenMetricsText1.0.0 true true true 16 1.5 15s 5s true false true false false http://proxy:1 go_.* drop\n"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if c = jobs[1].Config; time.Duration(c.ScrapeTimeout) != 5*time.Second || !c.HonorTimestamps || !c.HTTPClientConfig.FollowRedirects || !c.HTTPClientConfig.EnableHTTP2 {
			t.Errorf("what is left open: %+v", c)
		}
	})
}

func TestPodMonitorWithAMistakeIsToldOnceAndStopsNoOther(t *testing.T) {
	bad := map[string]string{
		`{"selector":{},"podMetricsEndpoints":[{"relabelings":[{"regex":"a"},{"regex":"("}]}]}`:     `PodMonitor shop/m endpoint 0: it is not scraped: relabelings[0]`,
		`{"selector":{},"podMetricsEndpoints":[{"relabelings":[{"regex":"(","targetLabel":"a"}]}]}`: `endpoint 0: it is not scraped: relabelings[0].regex "("`,
		`{"selector":{},"podMetricsEndpoints":[{"metricRelabelings":[{"action":"dropp"}]}]}`:        `endpoint 0: it is not scraped: metricRelabelings[0].action: unknown relabel action "dropp"`,
		`{"selector":{},"podMetricsEndpoints":[{"interval":"soon"}]}`:                               `endpoint 0: it is not scraped: interval "soon" is no duration`,
		`{"selector":{},"podMetricsEndpoints":[{"interval":"10ms"}]}`:                               `interval 10ms is below 1s`,
		`{"selector":{},"podMetricsEndpoints":[{"interval":"10s","scrapeTimeout":"11s"}]}`:          `scrapeTimeout 11s is above interval 10s`,
		`{"selector":{},"bodySizeLimit":"big","podMetricsEndpoints":[{}]}`:                          `bodySizeLimit "big" is no size`,
		`{"selector":{},"scrapeProtocols":["x"],"podMetricsEndpoints":[{}]}`:                        `unknown scrape protocol x`,
		`{"selector":{},"podMetricsEndpoints":[{"proxyUrl":"http://u:password@%zz"}]}`:              `proxyUrl is no URL`,
		`{"selector":{},"podMetricsEndpoints":[{"tlsConfig":{"minVersion":"SSL3"}}]}`:               `tlsConfig.minVersion "SSL3" is no version of TLS`,
		`{"selector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}`:                         `PodMonitor shop/m: selector: "Near" is not a valid label selector operator`,
		`{"selector":{},"podMetricsEndpoints":{}}`:                                                  `PodMonitor shop/m: its specification cannot be read`,
		`{"selector":{},"scrapeClass":"tls","podMetricsEndpoints":[{"port":"http"}]}`:               `PodMonitor shop/m scrape class: the class "tls" stands in a Prometheus object`,
	}
	for spec, words := range bad {
		synctest.Test(t, func(t *testing.T) {
			good := monitor(t, "good", `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`)
			api := newAPI().set(podsPath, apiPod("web-1")).set(monitorsPath, good, monitor(t, "m", spec))
			r := start(t, api)
			defer r.stop()
			for n := range 10 { // it is built anew
				api.send(t, podsPath, "MODIFIED", apiPod("web-1", label("n", fmt.Sprint(n))))
				wait(time.Minute)
			}
			s := r.Status()
			if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Place+": "+s.Problems[0].Why, words) || strings.Contains(s.Problems[0].Why, "password") {
				t.Errorf("%s: status %+v", spec, s)
			}
			if n := strings.Count(r.logged(), "level=WARN"); n != 1 || strings.Contains(r.logged(), "password") {
				t.Errorf("%s: logged\n%s", spec, r.logged())
			}
			if got := r.series(t, metric.AgentPodProblems); got != "1" {
				t.Errorf("%s problems are counted", got)
			}
			jobs, _ := r.taken()
			if !slices.ContainsFunc(jobs, func(j scrape.Job) bool { return j.Config.JobName == "podMonitor/shop/good/0" }) {
				t.Errorf("%s: the good one is not scraped", spec)
			}
			api.send(t, monitorsPath, "MODIFIED", monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`))
			wait(settleAtMost)
			if s := r.Status(); len(s.Problems) != 0 || s.Jobs != 2 || strings.Count(r.logged(), "is no more") != 1 {
				t.Errorf("%s: when it is mended: %+v, logged\n%s", spec, s, r.logged())
			}
		})
	}
}

func secret(values ...string) corev1.Secret {
	s := corev1.Secret{TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, Data: map[string][]byte{}}
	for i := 0; i+1 < len(values); i += 2 {
		s.Data[values[i]] = []byte(values[i+1])
	}
	return s
}

func TestSecretsOfAPodMonitorAreUsed(t *testing.T) {
	cert, key := pair(t)
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1")).set(secretPath, secret("user", "u", "password", "p", "token", "t", "key", key, "cert", cert)).
			set("/api/v1/namespaces/shop/configmaps/c", corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, Data: map[string]string{"ca": cert}}).
			set(monitorsPath, monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[
				{"basicAuth":{"username":{"name":"s","key":"user"},"password":{"name":"s","key":"password"}}},
				{"bearerTokenSecret":{"name":"s","key":"token"}},
				{"authorization":{"type":"Token","credentials":{"name":"s","key":"token"}}},
				{"tlsConfig":{"ca":{"configMap":{"name":"c","key":"ca"}},"cert":{"secret":{"name":"s","key":"cert"}},"keySecret":{"name":"s","key":"key"},
					"serverName":"pods","insecureSkipVerify":true,"minVersion":"TLS12","maxVersion":"TLS13"}},
				{"oauth2":{"clientId":{"secret":{"name":"s","key":"user"}},"clientSecret":{"name":"s","key":"password"},"tokenUrl":"http://t","scopes":["a"],"endpointParams":{"b":"c"}}},
				{"basicAuth":{"username":{"name":"s","key":"user"},"password":{"name":"s","key":"password"}},"authorization":{"credentials":{"name":"s","key":"token"}}}]}`))
		r := start(t, api)
		defer r.stop()
		jobs, _ := r.taken()
		if s := r.Status(); len(jobs) != 5 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Why, "at most one of basic_auth, oauth2 & authorization") {
			t.Fatalf("%d jobs, %+v", len(jobs), r.Status())
		}
		if a := jobs[0].Config.HTTPClientConfig.BasicAuth; a.Username != "u" || a.Password != "p" {
			t.Errorf("basic auth %+v", a)
		}
		if a := jobs[1].Config.HTTPClientConfig.Authorization; a.Type != "Bearer" || a.Credentials != "t" {
			t.Errorf("bearer token %+v", a)
		}
		if a := jobs[2].Config.HTTPClientConfig.Authorization; a.Type != "Token" || a.Credentials != "t" {
			t.Errorf("authorization %+v", a)
		}
		tls := jobs[3].Config.HTTPClientConfig.TLSConfig
		if tls.CA != cert || tls.Cert != cert || string(tls.Key) != key || tls.ServerName != "pods" || !tls.InsecureSkipVerify || tls.MinVersion.String() != "TLS12" || tls.MaxVersion.String() != "TLS13" {
			t.Errorf("TLS %+v", tls)
		}
		if o := jobs[4].Config.HTTPClientConfig.OAuth2; o.ClientID != "u" || o.ClientSecret != "p" || o.TokenURL != "http://t" || o.Scopes[0] != "a" || o.EndpointParams["b"] != "c" {
			t.Errorf("OAuth2 %+v", o)
		}
		if n := api.asked(secretPath); n != 1 {
			t.Errorf("the secret was read %d times", n)
		}
	})
}

const tokenOf = `{"selector":{},"podMetricsEndpoints":[{"port":"http"},{"port":"http","bearerTokenSecret":{"name":"s","key":"token"}}]}`

func tokens(r *run) (out []string) {
	jobs, _ := r.taken()
	for _, j := range jobs {
		token := "none"
		if a := j.Config.HTTPClientConfig.Authorization; a != nil {
			token = string(a.Credentials)
		}
		out = append(out, token)
	}
	return out
}

func TestEndpointWhoseSecretIsForbiddenIsNotScrapedAndThatIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1")).set(monitorsPath, monitor(t, "m", tokenOf)).set(secretPath, secret("token", "t1"))
		api.refuse(secretPath, 403)
		r := start(t, api)
		defer r.stop()
		wait(time.Hour)
		same(t, "forbidden", tokens(r), "none")
		s := r.Status()
		if len(s.Problems) != 1 || s.Problems[0].Place != "PodMonitor shop/m endpoint 1" || !strings.Contains(s.Problems[0].Why, "bearerTokenSecret: read shop/s of secrets") ||
			!strings.Contains(s.Problems[0].Why, "grant the verb get on the resource secrets") {
			t.Errorf("status %+v", s)
		}
		if n := strings.Count(r.logged(), "level=WARN"); n != 1 {
			t.Errorf("logged\n%s", r.logged())
		}
		if n := api.asked(secretPath); n < 15 || n > 25 {
			t.Errorf("asked %d times in an hour", n)
		}
		if got := r.series(t, metric.AgentPodRefsFailures); got != fmt.Sprint(api.asked(secretPath)) {
			t.Errorf("%s failures are counted", got)
		}
		api.refuse(secretPath, 0)
		wait(refreshEvery + retryAfter)
		same(t, "permitted", tokens(r), "none", "t1")
		if s := r.Status(); len(s.Problems) != 0 {
			t.Errorf("status %+v", s)
		}
		// It changes.
		api.set(secretPath, secret("token", "t2"))
		wait(refreshEvery + retryAfter)
		same(t, "changed", tokens(r), "none", "t2")
		// The API server is away, or overloaded: what was read stands.
		for _, code := range []int{-1, 503} {
			api.refuse(secretPath, code)
			wait(time.Hour)
			same(t, "away", tokens(r), "none", "t2")
		}
		// The permission is withdrawn, or the secret removed.
		api.refuse(secretPath, 403)
		wait(refreshEvery + retryAfter)
		same(t, "withdrawn", tokens(r), "none")
		api.refuse(secretPath, 0)
		api.set(secretPath, secret("other", "x"))
		wait(refreshEvery + retryAfter)
		if s := r.Status(); len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Why, `Secret shop/s has no key "token"`) {
			t.Errorf("status %+v", s)
		}
	})
}

func TestSecretsAreReadForPodsOfThisNodeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("away", namespace("other"))).set(monitorsPath, monitor(t, "m", tokenOf)).set(secretPath, secret("token", "t1"))
		r := start(t, api)
		defer r.stop()
		wait(time.Hour)
		if n := api.asked(secretPath); n != 0 {
			t.Errorf("a secret that no pod of this node needs was read %d times", n)
		}
		api.send(t, podsPath, "ADDED", apiPod("web-1"))
		wait(settleAtMost)
		same(t, "with a pod", tokens(r), "none", "t1")
		api.send(t, podsPath, "DELETED", apiPod("web-1"))
		wait(settleAtMost)
		if r.refs.size != 0 || len(r.refs.held) != 0 {
			t.Errorf("%d bytes of %d secrets are kept for nobody", r.refs.size, len(r.refs.held))
		}
	})
}

func TestServerThatHangsHoldsUpThePodsOfTheNodeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var endpoints []string
		api := newAPI().set(podsPath, apiPod("web-1", scraped()))
		for n := range 5 {
			endpoints = append(endpoints, fmt.Sprintf(`{"bearerTokenSecret":{"name":"s%d","key":"token"}}`, n))
			api.refuse(fmt.Sprintf("/api/v1/namespaces/shop/secrets/s%d", n), -1)
		}
		api.set(monitorsPath, monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[`+strings.Join(endpoints, ",")+`]}`))
		r := start(t, api)
		defer r.stop()
		wait(readWithin)
		if jobs, _ := r.taken(); len(jobs) != 1 || len(r.Status().Problems) != 5 {
			t.Errorf("%d jobs after one read that was not answered, %+v", len(jobs), r.Status())
		}
	})
}

func TestWhatPodMonitorsReferToHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many, large []string
		api := newAPI().set(podsPath, apiPod("web-1"))
		for n := range maxObjects + 1 {
			many = append(many, fmt.Sprintf(`{"bearerTokenSecret":{"name":"s%d","key":"token"}}`, n))
			api.set(fmt.Sprintf("/api/v1/namespaces/shop/secrets/s%d", n), secret("token", "t"))
		}
		for n := range 5 {
			large = append(large, fmt.Sprintf(`{"bearerTokenSecret":{"name":"l%d","key":"token"}}`, n))
			api.set(fmt.Sprintf("/api/v1/namespaces/shop/secrets/l%d", n), secret("token", strings.Repeat("x", maxHeld/4)))
		}
		api.set(monitorsPath, monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[`+strings.Join(many, ",")+`]}`))
		r := start(t, api)
		defer r.stop()
		wait(10 * time.Minute) // client-go asks five times a second
		jobs, _ := r.taken()
		if s := r.Status(); len(jobs) != maxObjects || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Why, "more than 500 Secrets and ConfigMaps") {
			t.Errorf("%d jobs, %d problems", len(jobs), len(s.Problems))
		}
		api.send(t, monitorsPath, "MODIFIED", monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[`+strings.Join(large, ",")+`]}`))
		wait(10 * time.Minute)
		if s := r.Status(); len(s.Problems) != 2 || !strings.Contains(s.Problems[0].Why, "more than 16 MiB together") || r.refs.size > maxHeld {
			t.Errorf("%d problems, %d bytes", len(s.Problems), r.refs.size)
		}
	})
}

func TestNodeOfPodsIsAttachedWhereAPodMonitorAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const path = "/api/v1/nodes/n1"
		zone := func(zone string) corev1.Node {
			return corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": zone}}}
		}
		api := newAPI().set(podsPath, apiPod("web-1")).set(path, zone("a")).set(monitorsPath, monitor(t, "m", `{"selector":{},"attachMetadata":{"node":true},"podMetricsEndpoints":[
			{"port":"http","relabelings":[{"sourceLabels":["__meta_kubernetes_node_label_zone","__meta_kubernetes_node_name"],"targetLabel":"zone"}]}]}`))
		r := start(t, api)
		defer r.stop()
		is := func(what, zone string) {
			t.Helper()
			jobs, _ := r.taken()
			same(t, what, final(t, jobs), `podMonitor/shop/m/0 http://10.1.2.3:8080/metrics {container="app", endpoint="http", instance="10.1.2.3:8080", job="shop/m", namespace="shop", pod="web-1", zone="`+zone+`"}`)
		}
		is("at first", "a;n1")
		api.set(path, zone("b"))
		wait(refreshEvery + retryAfter)
		is("changed", "b;n1")
		api.refuse(path, 503)
		wait(time.Hour)
		is("the API server is away", "b;n1")
		api.refuse(path, 403)
		wait(refreshEvery + retryAfter)
		is("forbidden", ";")
		if s := r.Status(); len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Why, "grant the verb get on the resource nodes") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestBurstOfChangesIsHandedOverOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-0", scraped())).set(monitorsPath, monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`))
		r := start(t, api)
		defer r.stop()
		first, before := r.taken()
		for n := range 50 {
			api.send(t, podsPath, "ADDED", apiPod(fmt.Sprint("web-", n+1), scraped()))
			wait(time.Millisecond)
		}
		wait(settleAtMost)
		jobs, sets := r.taken()
		if sets != before+1 || len(jobs) != 2 || len(jobs[0].Groups) != 51 {
			t.Errorf("handed over %d times, %d groups", sets-before, len(jobs[0].Groups))
		}
		if jobs[0].Config != first[0].Config || jobs[1].Config != first[1].Config || jobs[0].Groups[0] != first[0].Groups[0] {
			t.Error("what did not change is another one")
		}
		// One that never ends is not put off for ever.
		for n := range 100 {
			api.send(t, podsPath, "MODIFIED", apiPod("web-1", scraped(), label("n", fmt.Sprint(n))))
			wait(100 * time.Millisecond)
		}
		if _, now := r.taken(); now < sets+4 || now > sets+6 {
			t.Errorf("handed over %d times in 10 s", now-sets)
		}
		wait(settleAtMost)
		// What targets do not carry changes often.
		_, sets = r.taken()
		for n := range 20 {
			api.send(t, podsPath, "MODIFIED", apiPod("web-2", scraped(), func(p *corev1.Pod) { p.ResourceVersion, p.Status.Message = fmt.Sprint(n), fmt.Sprint(n) }))
			api.send(t, monitorsPath, "MODIFIED", monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`))
			wait(time.Minute)
		}
		if _, now := r.taken(); now != sets {
			t.Errorf("handed over %d times for nothing", now-sets)
		}
		if got := r.series(t, metric.AgentPodChanges); got != fmt.Sprint(sets) {
			t.Errorf("%s changes are counted, there were %d", got, sets)
		}
	})
}

func TestPodThatIsDeletedIsMarkedUntilItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1", scraped()))
		r := start(t, api)
		defer r.stop()
		jobs, _ := r.taken()
		alive := final(t, jobs)
		api.send(t, podsPath, "MODIFIED", apiPod("web-1", scraped(), terminating))
		wait(settle)
		jobs, _ = r.taken()
		same(t, "the targets remain who they are", final(t, jobs), alive...)
		for _, target := range jobs[0].Groups[0].Targets {
			if target[Terminating] != "true" {
				t.Errorf("%v is not marked", target)
			}
		}
		// Another one has its name by the time that it is gone.
		api.send(t, podsPath, "ADDED", apiPod("web-1", scraped(), func(p *corev1.Pod) { p.UID = "another" }))
		api.send(t, podsPath, "DELETED", apiPod("web-1", scraped(), terminating))
		wait(settleAtMost)
		jobs, _ = r.taken()
		same(t, "another one", final(t, jobs), alive...)
		api.send(t, podsPath, "DELETED", apiPod("web-1", scraped(), func(p *corev1.Pod) { p.UID = "another" }))
		wait(settleAtMost)
		if jobs, _ = r.taken(); len(jobs) != 0 {
			t.Errorf("%d jobs of pods that are gone", len(jobs))
		}
	})
}

func TestSelectorOfPodMonitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`
		api := newAPI().set(podsPath, apiPod("web-1")).set(monitorsPath, monitor(t, "a", spec), monitor(t, "b", spec))
		r := start(t, api, func(c *Config) { c.PodMonitorSelector = "name in (b,c)" })
		defer r.stop()
		names := func() (out []string) {
			jobs, _ := r.taken()
			for _, j := range jobs {
				out = append(out, j.Config.JobName)
			}
			return out
		}
		same(t, "at first", names(), "podMonitor/shop/b/0")
		api.send(t, monitorsPath, "ADDED", monitor(t, "c", spec))
		wait(settleAtMost)
		same(t, "one more", names(), "podMonitor/shop/b/0", "podMonitor/shop/c/0")
		relabelled := monitor(t, "c", spec)
		relabelled.(map[string]any)["metadata"].(map[string]any)["labels"] = map[string]any{"name": "d"}
		api.send(t, monitorsPath, "MODIFIED", relabelled)
		api.send(t, monitorsPath, "DELETED", monitor(t, "b", spec))
		wait(settleAtMost)
		same(t, "none", names())
	})
}

func TestPodsAndPodMonitorsHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all, monitors []any
		for n := range maxPods + 2 {
			all = append(all, apiPod(fmt.Sprintf("web-%05d", n), scraped()))
		}
		for n := range 4 {
			monitors = append(monitors, monitor(t, fmt.Sprint("m", n), `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`))
		}
		r := start(t, newAPI().set(podsPath, all...).set(monitorsPath, monitors...), func(c *Config) { c.Limits.PodMonitors = 3 })
		defer r.stop()
		s := r.Status()
		if s.Pods != maxPods || s.PodMonitors != 3 || s.Jobs != 4 || len(s.Problems) != 2 ||
			!strings.Contains(s.Problems[0].Why, "raise metrics.pods.limits.pod_monitors") || !strings.Contains(s.Problems[1].Why, "2 pods more than the 4096") {
			t.Errorf("%+v", s)
		}
		if got := r.series(t, metric.AgentPods) + " " + r.series(t, metric.AgentPodMonitors) + " " + r.series(t, metric.AgentPodJobs); got != "4096 3 4" {
			t.Errorf("series %s", got)
		}
	})
}

func TestJobsThatCouldNotBeHandedOverAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1", scraped())).set(monitorsPath)
		r := begin(t, &rest.Config{Host: "http://api", Transport: api})
		defer r.stop()
		r.mu.Lock()
		r.refuse = errors.New("not now")
		r.mu.Unlock()
		wait(10 * time.Minute)
		if s := r.Status(); len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Why, "not now") || strings.Count(r.logged(), "not now") != 1 {
			t.Errorf("status %+v, logged\n%s", s, r.logged())
		}
		r.mu.Lock()
		r.refuse = nil
		r.mu.Unlock()
		wait(retryAfter)
		jobs, sets := r.taken()
		if len(jobs) != 1 || len(r.Status().Problems) != 0 {
			t.Errorf("%d jobs, %+v", len(jobs), r.Status())
		}
		// What was refused may be half taken: the same as before is no news here,
		// and is there.
		r.mu.Lock()
		r.refuse = errors.New("not now")
		r.mu.Unlock()
		api.send(t, podsPath, "ADDED", apiPod("web-2", scraped()))
		wait(settleAtMost)
		r.mu.Lock()
		r.refuse = nil
		r.mu.Unlock()
		api.send(t, podsPath, "DELETED", apiPod("web-2", scraped()))
		wait(settleAtMost)
		if again, now := r.taken(); now != sets+2 || !slices.EqualFunc(again, jobs, sameJob) {
			t.Errorf("handed over %d times, %d jobs", now-sets, len(again))
		}
	})
}

// Nothing is scraped, and nothing given up, before the pods are known once.
func TestPodsThatCannotBeReadYetAreNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1", scraped())).set(monitorsPath, monitor(t, "m", tokenOf))
		api.refuse(podsPath, 403)
		r := start(t, api)
		defer r.stop()
		wait(10 * time.Minute)
		if _, sets := r.taken(); sets != 0 {
			t.Errorf("handed over %d times", sets)
		}
		api.refuse(podsPath, 0)
		wait(2 * time.Minute)
		if jobs, _ := r.taken(); len(jobs) != 2 {
			t.Errorf("%d jobs", len(jobs))
		}
		// What was known stands while the API server refuses.
		api.refuse(podsPath, 403)
		api.events[podsPath] <- metav1.WatchEvent{}
		wait(time.Hour)
		if jobs, _ := r.taken(); len(jobs) != 2 {
			t.Errorf("%d jobs while nobody answers", len(jobs))
		}
	})
}

func TestPodMonitorsAreTakenWhenTheirDefinitionIsInstalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1", scraped()))
		r := start(t, api)
		defer r.stop()
		wait(time.Hour)
		if jobs, _ := r.taken(); len(jobs) != 1 || strings.Count(r.logged(), "does not know the kind PodMonitor") != 1 {
			t.Errorf("%d jobs, logged\n%s", len(jobs), r.logged())
		}
		api.set(monitorsPath, monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`))
		wait(7 * time.Minute)
		if jobs, _ := r.taken(); len(jobs) != 2 {
			t.Errorf("%d jobs", len(jobs))
		}
	})
}

func TestStatusSaysWhatCannotBeReadAndIsNeverNull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI().set(podsPath, apiPod("web-1", scraped())).
			set(monitorsPath, monitor(t, "m", `{"selector":{},"scrapeProtocols":["x"],"podMetricsEndpoints":[{"port":"http"}]}`))
		api.refuse(podsPath, 403)
		api.refuse(monitorsPath, 403)
		r := start(t, api)
		defer r.stop()
		problems := func(want ...string) {
			t.Helper()
			got := r.Status().Problems
			for i, p := range got {
				if i >= len(want) || !strings.Contains(p.Place+": "+p.Why, want[i]) {
					t.Errorf("problem %d is %+v", i, p)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d problems, want %d", len(got), len(want))
			}
		}
		const monitors = "PodMonitors: this user is not permitted to: grant the verbs list and watch on the resource podmonitors"
		problems(monitors, "pods: this user is not permitted to: grant the verbs list and watch on the resource pods")
		api.refuse(podsPath, 0)
		wait(time.Minute)
		problems(monitors)
		api.refuse(monitorsPath, 0)
		wait(10 * time.Minute)
		problems(`PodMonitor shop/m endpoint 0: it is not scraped: scrape_protocols: unknown scrape protocol x`)
		api.refuse(podsPath, 403)
		api.events[podsPath] <- metav1.WatchEvent{}
		wait(time.Minute)
		problems(`PodMonitor shop/m endpoint 0`, "pods: this user is not permitted to")
		api.refuse(podsPath, 0)
		api.send(t, monitorsPath, "MODIFIED", monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`))
		wait(10 * time.Minute)
		problems()
		if text, err := json.Marshal(r.Status()); err != nil || !strings.Contains(string(text), `"problems":[]`) {
			t.Errorf("%s, %v", text, err)
		}
	})
}

// Over a real connection, with the watch too old and cut.
func TestJobsFollowAServer(t *testing.T) {
	api := newAPI().set(podsPath, apiPod("web-1", scraped())).set(monitorsPath, monitor(t, "m", `{"selector":{},"podMetricsEndpoints":[{"port":"http"}]}`))
	server := httptest.NewServer(api)
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	r := begin(t, &rest.Config{Host: server.URL, Transport: transport})
	defer r.stop()
	until := func(what string, groups int) {
		t.Helper()
		for {
			if jobs, _ := r.taken(); len(jobs) == 2 && len(jobs[0].Groups) == groups && len(jobs[1].Groups) == groups {
				return
			}
			select {
			case <-r.told:
			case <-t.Context().Done():
				t.Fatal(what)
			}
		}
	}
	until("the first list", 1)
	api.send(t, podsPath, "ADDED", apiPod("web-2", scraped()))
	until("one more", 2)
	api.set(podsPath, apiPod("web-1", scraped()), apiPod("web-2", scraped()), apiPod("web-3", scraped()))
	gone, err := json.Marshal(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410})
	if err != nil {
		t.Fatal(err)
	}
	e := metav1.WatchEvent{Type: "ERROR"}
	e.Object.Raw = gone
	api.events[podsPath] <- e
	until("the list after a watch that was too old", 3)
	api.events[podsPath] <- metav1.WatchEvent{} // cut
	api.send(t, podsPath, "DELETED", apiPod("web-1", scraped()))
	until("the watch after one that was cut", 2)
}

// PodMonitors are written by people.
func FuzzPodMonitor(f *testing.F) {
	for _, spec := range []string{tokenOf, `{"selector":{"matchExpressions":[{"key":"a","operator":"In","values":["("]}]},"podMetricsEndpoints":[{"port":"(","relabelings":[{"action":"hashmod"}]}]}`,
		`{"podMetricsEndpoints":[{"tlsConfig":{"ca":{"secret":{}}},"oauth2":{}}],"nativeHistogramMinBucketFactor":"1e999"}`} {
		f.Add([]byte(spec))
	}
	cfg := DefaultConfig()
	g := podOf(decode[pods.Pod](f, apiPod("web-1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &pods.PodMonitor{}
		if json.Unmarshal(data, &m.Spec) != nil {
			return // no JSON at all
		}
		takes, err := selects(m)
		if err != nil {
			return
		}
		takes(g)
		for i := range m.Spec.Endpoints {
			c, err := cfg.compile(m, i, func(ref) (string, error) { return "x", nil })
			if err != nil {
				continue
			}
			for _, target := range g.group.Targets {
				_, _ = promscrape.PopulateLabels(labels.NewBuilder(labels.EmptyLabels()), c, target, g.group.Labels) // it does not panic
			}
		}
	})
}
