package targets

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"nines/agent/collect/scrape"
)

// sink keeps which series came, and in what form.
type sink struct {
	mu     sync.Mutex
	native map[string]bool // by name of the series
	told   chan struct{}   // holds one: a scrape was committed
}

func (s *sink) AppenderV2(context.Context) storage.AppenderV2 {
	return &sinkAppender{s, map[string]bool{}}
}

type sinkAppender struct {
	sink   *sink
	native map[string]bool
}

func (a *sinkAppender) Append(_ storage.SeriesRef, ls labels.Labels, _, _ int64, _ float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AOptions) (storage.SeriesRef, error) {
	a.native[ls.Get(model.MetricNameLabel)] = h != nil || fh != nil
	return storage.SeriesRef(ls.Hash()), nil
}

func (a *sinkAppender) Commit() error {
	a.sink.mu.Lock()
	a.sink.native = a.native
	a.sink.mu.Unlock()
	select {
	case a.sink.told <- struct{}{}:
	default:
	}
	return nil
}

func (a *sinkAppender) Rollback() error { return nil }

// What a pod is asked for is up to the scraper, unless its PodMonitor says
// otherwise. Guards against jobs that are filled in before the scraper has them:
// pods were then asked for text, with gzip, and never for native histograms.
func TestPodsAreAskedAsTheScraperWantsUnlessAPodMonitorSaysOtherwise(t *testing.T) {
	const (
		proto = "application/vnd.google.protobuf;"
		text  = "text/plain;version=0.0.4;"
		spec  = `{"selector":{},%s"podMetricsEndpoints":[{"port":"http"}]}`
	)
	for what, c := range map[string]struct {
		on      bool   // native_histograms of the agent's file
		monitor string // what a PodMonitor says; empty: the pod is annotated
		accept  string // what is asked for first
		native  bool
	}{
		"annotations":                           {true, "", proto, true},
		"annotations, off":                      {false, "", proto, false},
		"PodMonitor":                            {true, `"jobLabel":"",`, proto, true},
		"PodMonitor, off":                       {false, `"jobLabel":"",`, proto, false},
		"PodMonitor that has it on":             {false, `"scrapeNativeHistograms":true,`, proto, true},
		"PodMonitor that has it off":            {true, `"scrapeNativeHistograms":false,`, proto, false},
		"PodMonitor with protocols":             {true, `"scrapeProtocols":["PrometheusText0.0.4"],`, text, false},
		"PodMonitor with protocols and with it": {false, `"scrapeProtocols":["PrometheusText0.0.4","PrometheusProto"],"scrapeNativeHistograms":true,`, text, false},
	} {
		t.Run(what, func(t *testing.T) {
			both := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "both_seconds", Buckets: []float64{1}, NativeHistogramBucketFactor: 1.1})
			both.Observe(1.5)
			registry := prometheus.NewRegistry()
			registry.MustRegister(both)
			page := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
			asked := make(chan http.Header, 1)
			program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case asked <- r.Header:
				default:
				}
				page.ServeHTTP(w, r)
			}))
			defer program.Close()
			host, port, err := net.SplitHostPort(program.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			number, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			pod := func(p *corev1.Pod) {
				p.Status.PodIP, p.Status.PodIPs = host, []corev1.PodIP{{IP: host}}
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: int32(number), Protocol: corev1.ProtocolTCP}}
			}
			api := newAPI().set(podsPath, apiPod("web-1", scraped(pod))).set(monitorsPath)
			if c.monitor != "" {
				api.set(podsPath, apiPod("web-1", pod)).set(monitorsPath, monitor(t, "m", fmt.Sprintf(spec, c.monitor)))
			}
			r := begin(t, &rest.Config{Host: "http://api", Transport: api})
			defer r.stop()

			cfg := scrape.DefaultConfig()
			cfg.NativeHistograms = c.on
			s := &sink{told: make(chan struct{}, 1)}
			scraper, err := scrape.New(cfg, s, slog.New(slog.NewTextHandler(io.Discard, nil)), metrics.NewSet())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- scraper.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}()
			for jobs := []scrape.Job(nil); len(jobs) == 0; jobs, _ = r.taken() {
				<-r.told
			}
			jobs, _ := r.taken()
			if err := scraper.Set("pods", jobs); err != nil {
				t.Fatal(err)
			}

			header := <-asked
			if accept := header.Get("Accept"); !strings.HasPrefix(accept, c.accept) {
				t.Errorf("asked for %s", accept)
			}
			if encoding := header.Get("Accept-Encoding"); strings.Contains(encoding, "gzip") {
				t.Errorf("asked for it encoded as %s", encoding)
			}
			<-s.told
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.native["both_seconds"] != c.native || s.native["up"] {
				t.Errorf("native forms: %v", s.native)
			}
			if _, classic := s.native["both_seconds_bucket"]; classic == c.native {
				t.Errorf("the classic form is there: %v, native: %v", classic, c.native)
			}
		})
	}
}
