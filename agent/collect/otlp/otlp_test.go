package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	packing "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"nines/pkg/metric"
	"nines/pkg/strictyaml"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// sample is one that was committed.
type sample struct {
	st, t     int64
	v         float64
	h         *histogram.Histogram
	family    string
	typ, unit string
	help      string
	exemplars []exemplar.Exemplar
}

// sink keeps what was committed, by labels. It fails when it is told to.
type sink struct {
	mu      sync.Mutex
	all     map[string][]sample
	failing error         // of Commit
	held    chan struct{} // Commit waits until it is closed
	waiting chan struct{} // told when a Commit begins to wait
}

func (s *sink) AppenderV2(context.Context) storage.AppenderV2 {
	return &appender{sink: s, all: map[string][]sample{}}
}

type appender struct {
	sink *sink
	all  map[string][]sample
}

// String is all of it, with what its pointers point at.
func (s sample) String() string {
	h := "none"
	if s.h != nil {
		h = fmt.Sprintf("%+v", *s.h)
	}
	return fmt.Sprintf("%d %d %x %s %s %s %s %q %v", s.st, s.t, math.Float64bits(s.v), h, s.family, s.typ, s.unit, s.help, s.exemplars)
}

func (a *appender) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, _ *histogram.FloatHistogram, o storage.AOptions) (storage.SeriesRef, error) {
	a.all[ls.String()] = append(a.all[ls.String()], sample{st, t, v, h, o.MetricFamilyName, string(o.Metadata.Type), o.Metadata.Unit, o.Metadata.Help, slices.Clone(o.Exemplars)})
	return 0, nil
}

func (a *appender) Commit() error {
	if a.sink.held != nil {
		a.sink.waiting <- struct{}{}
		<-a.sink.held
	}
	a.sink.mu.Lock()
	defer a.sink.mu.Unlock()
	if a.sink.failing != nil {
		return a.sink.failing
	}
	if a.sink.all == nil {
		a.sink.all = map[string][]sample{}
	}
	for k, v := range a.all {
		a.sink.all[k] = append(a.sink.all[k], v...)
	}
	return nil
}

func (a *appender) Rollback() error { a.all = nil; return nil }

// series returns the labels of all that was committed, in order.
func (s *sink) series() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

func (s *sink) one(t *testing.T, ls string) sample {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all[ls]) != 1 {
		t.Fatalf("%d samples of %s among %v", len(s.all[ls]), ls, slices.Sorted(maps.Keys(s.all)))
	}
	return s.all[ls][0]
}

// begin runs a receiver on ports that the system chooses, until the test ends.
func begin(t *testing.T, s *sink, change func(*Config)) (*Receiver, *metrics.Set) {
	t.Helper()
	return beginWith(t, s, quiet, change)
}

func beginWith(t *testing.T, s *sink, log *slog.Logger, change func(*Config)) (*Receiver, *metrics.Set) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.HTTP, cfg.GRPC = "127.0.0.1:0", "127.0.0.1:0"
	if change != nil {
		change(&cfg)
	}
	set := metrics.NewSet()
	r, err := New(cfg, s, log, set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r, set
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// post sends a body and returns the answer with its status.
func post(t *testing.T, r *Receiver, body []byte, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+r.HTTPAddress().String()+"/v1/metrics", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, out
}

func pack(t *testing.T, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encode(t *testing.T, md pmetric.Metrics) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func answer(t *testing.T, body []byte) pmetricotlp.ExportPartialSuccess {
	t.Helper()
	resp := pmetricotlp.NewExportResponse()
	if err := resp.UnmarshalProto(body); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return resp.PartialSuccess()
}

func counter(t *testing.T, set *metrics.Set, name string) string {
	t.Helper()
	var b bytes.Buffer
	set.WritePrometheus(&b)
	for line := range strings.Lines(b.String()) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			return v
		}
	}
	t.Fatalf("no series %s in\n%s", name, b.String())
	return ""
}

var (
	at    = time.Now().Truncate(time.Millisecond)
	start = at.Add(-time.Hour)
)

// resource makes one with what SDKs in pods say of themselves.
func resource(md pmetric.Metrics) pmetric.ScopeMetrics {
	rm := md.ResourceMetrics().AppendEmpty()
	for k, v := range map[string]string{
		"service.name": "cart", "service.namespace": "shop", "service.instance.id": "cart-1",
		"k8s.pod.name": "cart-abc", "service.version": "1.2",
	} {
		rm.Resource().Attributes().PutStr(k, v)
	}
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("lib")
	sm.Scope().SetVersion("3")
	return sm
}

func add(sm pmetric.ScopeMetrics, name, unit string) pmetric.Metric {
	m := sm.Metrics().AppendEmpty()
	m.SetName(name)
	m.SetUnit(unit)
	m.SetDescription("About " + name + ".")
	return m
}

type stamped interface {
	SetTimestamp(pcommon.Timestamp)
	SetStartTimestamp(pcommon.Timestamp)
}

func stamp(p stamped) {
	p.SetTimestamp(pcommon.NewTimestampFromTime(at))
	p.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
}

// everything has a metric of each kind.
func everything() pmetric.Metrics {
	md := pmetric.NewMetrics()
	sm := resource(md)

	g := add(sm, "queue.length", "1").SetEmptyGauge().DataPoints()
	p := g.AppendEmpty()
	stamp(p)
	p.SetIntValue(7)
	p.Attributes().PutStr("queue.name", "in")
	p = g.AppendEmpty()
	stamp(p)
	p.Attributes().PutStr("queue.name", "gone")
	p.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))

	s := add(sm, "http.requests", "1").SetEmptySum()
	s.SetIsMonotonic(true)
	s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p = s.DataPoints().AppendEmpty()
	stamp(p)
	p.SetDoubleValue(12)
	p.Attributes().PutStr("http.route", "/a")
	e := p.Exemplars().AppendEmpty()
	e.SetDoubleValue(1)
	e.SetTimestamp(pcommon.NewTimestampFromTime(at))
	e.SetTraceID([16]byte{1, 2, 3})

	u := add(sm, "memory.used", "By").SetEmptySum()
	u.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p = u.DataPoints().AppendEmpty()
	stamp(p)
	p.SetIntValue(99)

	h := add(sm, "request.duration", "s").SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	hp := h.DataPoints().AppendEmpty()
	stamp(hp)
	hp.SetCount(6)
	hp.SetSum(2.5)
	hp.ExplicitBounds().FromRaw([]float64{0.1, 1})
	hp.BucketCounts().FromRaw([]uint64{1, 2, 3})

	x := add(sm, "size", "By").SetEmptyExponentialHistogram()
	x.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	xp := x.DataPoints().AppendEmpty()
	stamp(xp)
	xp.SetScale(2)
	xp.SetCount(5)
	xp.SetSum(11)
	xp.SetZeroCount(1)
	xp.Positive().SetOffset(1)
	xp.Positive().BucketCounts().FromRaw([]uint64{1, 0, 3})

	q := add(sm, "latency", "ms").SetEmptySummary().DataPoints().AppendEmpty()
	stamp(q)
	q.SetCount(4)
	q.SetSum(8)
	v := q.QuantileValues().AppendEmpty()
	v.SetQuantile(0.5)
	v.SetValue(2)
	return md
}

const who = `instance="cart-1", job="shop/cart"`

func TestEachKindBecomesWhatPrometheusMakesOfIt(t *testing.T) {
	var s sink
	r, set := begin(t, &s, nil)
	resp, body := post(t, r, encode(t, everything()))
	if p := answer(t, body); resp.StatusCode != 200 || p.RejectedDataPoints() != 0 || p.ErrorMessage() != "" {
		t.Fatalf("status %d, rejected %d: %s", resp.StatusCode, p.RejectedDataPoints(), p.ErrorMessage())
	}
	got := s.one(t, `{__name__="queue_length_ratio", `+who+`, queue_name="in"}`)
	if got.v != 7 || got.t != at.UnixMilli() || got.typ != "gauge" || got.help != "About queue.length." {
		t.Errorf("the gauge is %+v", got)
	}
	if got := s.one(t, `{__name__="queue_length_ratio", `+who+`, queue_name="gone"}`); !value.IsStaleNaN(got.v) {
		t.Errorf("a point without a recorded value is %v, want a stale marker", got.v)
	}
	got = s.one(t, `{__name__="http_requests_total", http_route="/a", `+who+`}`)
	if got.v != 12 || got.st != start.UnixMilli() || got.typ != "counter" || got.family != "http_requests_total" {
		t.Errorf("the counter is %+v", got)
	}
	if len(got.exemplars) != 1 || got.exemplars[0].Labels.Get("trace_id") != "01020300000000000000000000000000" {
		t.Errorf("its exemplars are %+v", got.exemplars)
	}
	if got := s.one(t, `{__name__="memory_used_bytes", `+who+`}`); got.v != 99 || got.typ != "gauge" || got.unit != "bytes" {
		t.Errorf("the sum that falls is %+v", got)
	}
	for ls, want := range map[string]float64{
		`{__name__="request_duration_seconds_bucket", ` + who + `, le="0.1"}`:                   1,
		`{__name__="request_duration_seconds_bucket", ` + who + `, le="1"}`:                     3,
		`{__name__="request_duration_seconds_bucket", ` + who + `, le="+Inf"}`:                  6,
		`{__name__="request_duration_seconds_sum", ` + who + `}`:                                2.5,
		`{__name__="request_duration_seconds_count", ` + who + `}`:                              6,
		`{__name__="latency_milliseconds", ` + who + `, quantile="0.5"}`:                        2,
		`{__name__="latency_milliseconds_count", ` + who + `}`:                                  4,
		`{__name__="latency_milliseconds_sum", ` + who + `}`:                                    8,
		`{__name__="target_info", ` + who + `, k8s_pod_name="cart-abc", service_version="1.2"}`: 1,
	} {
		if got := s.one(t, ls); got.v != want {
			t.Errorf("%s is %v, want %v", ls, got.v, want)
		}
	}
	h := s.one(t, `{__name__="size_bytes", `+who+`}`)
	if h.h == nil || h.h.Schema != 2 || h.h.Count != 5 || h.h.Sum != 11 || h.h.ZeroCount != 1 || h.st != start.UnixMilli() || h.typ != "histogram" {
		t.Errorf("the exponential histogram is %+v", h)
	}
	for name, want := range map[string]string{
		metric.AgentOTLPRequests + `{transport="http",result="ok"}`: "1",
		metric.AgentOTLPPoints + `{result="accepted"}`:              "7",
		metric.AgentOTLPSamples:                                     "14",
		metric.AgentOTLPRunning:                                     "0",
	} {
		if got := counter(t, set, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// The same request is given to the handler of Prometheus itself.
func TestSamplesAreThoseOfPrometheusItself(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"default": func(*Config) {},
		"nhcb":    func(c *Config) { c.ConvertHistogramsToNHCB = true },
		"promoted": func(c *Config) {
			c.PromoteResourceAttributes = []string{"k8s.pod.name"}
			c.KeepIdentifyingResourceAttributes = true
			c.PromoteScopeMetadata = true
		},
		"all but one": func(c *Config) {
			c.PromoteAllResourceAttributes = true
			c.IgnoreResourceAttributes = []string{"service.version"}
		},
		"untranslated": func(c *Config) { c.TranslationStrategy = otlptranslator.NoTranslation },
		"no suffixes":  func(c *Config) { c.TranslationStrategy = otlptranslator.UnderscoreEscapingWithoutSuffixes },
	} {
		t.Run(name, func(t *testing.T) {
			var ours, theirs sink
			var cfg Config
			r, _ := begin(t, &ours, func(c *Config) { change(c); cfg = *c })
			body := encode(t, everything())
			if resp, out := post(t, r, body); resp.StatusCode != 200 {
				t.Fatalf("status %d: %s", resp.StatusCode, out)
			}
			h := remote.NewOTLPWriteHandler(quiet, prometheus.NewRegistry(), &theirs, func() config.Config {
				return config.Config{OTLPConfig: config.OTLPConfig{
					PromoteAllResourceAttributes: cfg.PromoteAllResourceAttributes, PromoteResourceAttributes: cfg.PromoteResourceAttributes,
					IgnoreResourceAttributes: cfg.IgnoreResourceAttributes, TranslationStrategy: cfg.TranslationStrategy,
					KeepIdentifyingResourceAttributes: cfg.KeepIdentifyingResourceAttributes, ConvertHistogramsToNHCB: cfg.ConvertHistogramsToNHCB,
					PromoteScopeMetadata:                 cfg.PromoteScopeMetadata,
					LabelNameUnderscoreSanitization:      config.DefaultOTLPConfig.LabelNameUnderscoreSanitization,
					LabelNamePreserveMultipleUnderscores: config.DefaultOTLPConfig.LabelNamePreserveMultipleUnderscores,
				}}
			}, remote.OTLPOptions{})
			q := httptest.NewRequest("POST", "/", bytes.NewReader(body))
			q.Header.Set("Content-Type", "application/x-protobuf")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, q)
			if w.Code != 200 {
				t.Fatalf("Prometheus answers %d: %s", w.Code, w.Body)
			}
			if len(ours.all) < 9 || !slices.Equal(ours.series(), theirs.series()) {
				t.Fatalf("series\nours   %q\ntheirs %q", ours.series(), theirs.series())
			}
			for ls, want := range theirs.all {
				if got := ours.all[ls]; fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s\nours   %+v\ntheirs %+v", ls, got, want)
				}
			}
		})
	}
}

func TestJSONAndGzipAreTheSameRequest(t *testing.T) {
	plain, err := pmetricotlp.NewExportRequestFromMetrics(everything()).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var want sink
	r, _ := begin(t, &want, nil)
	post(t, r, encode(t, everything()))
	for name, send := range map[string]func(*Receiver) (*http.Response, []byte){
		"json": func(r *Receiver) (*http.Response, []byte) {
			return post(t, r, plain, "Content-Type", "application/json; charset=utf-8")
		},
		"packed json": func(r *Receiver) (*http.Response, []byte) {
			return post(t, r, pack(t, plain), "Content-Type", "application/json", "Content-Encoding", "gzip")
		},
		"packed proto": func(r *Receiver) (*http.Response, []byte) {
			return post(t, r, pack(t, encode(t, everything())), "Content-Encoding", "gzip")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s sink
			r, _ := begin(t, &s, nil)
			resp, body := send(r)
			if resp.StatusCode != 200 {
				t.Fatalf("status %d: %s", resp.StatusCode, body)
			}
			if strings.Contains(name, "json") && resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("answered as %s", resp.Header.Get("Content-Type"))
			}
			if !slices.Equal(s.series(), want.series()) {
				t.Errorf("series %v, want %v", s.series(), want.series())
			}
		})
	}
}

// dial makes a gRPC client as SDKs have it.
func dial(t *testing.T, r *Receiver) pmetricotlp.GRPCClient {
	t.Helper()
	conn, err := grpc.NewClient(r.GRPCAddress().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // it is closed once
	return pmetricotlp.NewGRPCClient(conn)
}

func TestGRPCTakesTheSameRequests(t *testing.T) {
	var s sink
	r, set := begin(t, &s, nil)
	c := dial(t, r)
	for _, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor(packing.Name)}} {
		resp, err := c.Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(everything()), opts...)
		if err != nil {
			t.Fatal(err)
		}
		if resp.PartialSuccess().RejectedDataPoints() != 0 {
			t.Errorf("rejected: %s", resp.PartialSuccess().ErrorMessage())
		}
	}
	if got := len(s.all[`{__name__="http_requests_total", http_route="/a", `+who+`}`]); got != 2 {
		t.Errorf("%d samples of two requests, want 2", got)
	}
	if got := counter(t, set, metric.AgentOTLPRequests+`{transport="grpc",result="ok"}`); got != "2" {
		t.Errorf("%s requests are ok, want 2", got)
	}
}

func hits(values ...float64) pmetric.Metrics {
	md := pmetric.NewMetrics()
	s := add(resource(md), "hits", "1").SetEmptySum()
	s.SetIsMonotonic(true)
	s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i, v := range values {
		p := s.DataPoints().AppendEmpty()
		p.SetStartTimestamp(pcommon.NewTimestampFromTime(start.Add(time.Duration(i) * time.Minute)))
		p.SetTimestamp(pcommon.NewTimestampFromTime(start.Add(time.Duration(i+1) * time.Minute)))
		p.SetDoubleValue(v)
	}
	return md
}

func TestDeltasAreRefusedWithTheRemedy(t *testing.T) {
	var s sink
	r, set := begin(t, &s, nil)
	md := everything()
	hits(1, 2).ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
	resp, body := post(t, r, encode(t, md))
	p := answer(t, body)
	if resp.StatusCode != 200 || p.RejectedDataPoints() != 2 {
		t.Fatalf("status %d, %d rejected", resp.StatusCode, p.RejectedDataPoints())
	}
	for _, want := range []string{`"hits" of "cart"`, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative", "deltas_to_cumulative: true"} {
		if !strings.Contains(p.ErrorMessage(), want) {
			t.Errorf("the message lacks %q: %s", want, p.ErrorMessage())
		}
	}
	s.one(t, `{__name__="http_requests_total", http_route="/a", `+who+`}`)
	if got := counter(t, set, metric.AgentOTLPPoints+`{result="delta"}`); got != "2" {
		t.Errorf("%s deltas are counted, want 2", got)
	}
}

func TestDeltasAreAddedUpWhereThatIsSet(t *testing.T) {
	var s sink
	r, set := begin(t, &s, func(c *Config) { c.DeltasToCumulative = true })
	for _, again := range []int64{0, 2} {
		_, body := post(t, r, encode(t, hits(5, 2)))
		if p := answer(t, body); p.RejectedDataPoints() != again {
			t.Errorf("%d rejected (%s), want %d", p.RejectedDataPoints(), p.ErrorMessage(), again)
		}
	}
	var got []float64
	for _, one := range s.all[`{__name__="hits_total", `+who+`}`] {
		got = append(got, one.v)
	}
	if !slices.Equal(got, []float64{5, 7}) {
		t.Errorf("got %v, want the sums 5 and 7, once", got)
	}
	if n := counter(t, set, metric.AgentOTLPPoints+`{result="delta_state"}`); n != "2" {
		t.Errorf("%s points are counted, want 2", n)
	}
}

func TestPointsThatCannotBeTakenAreToldAndTheOthersKept(t *testing.T) {
	for name, c := range map[string]struct {
		reason, want string
		spoil        func(pmetric.NumberDataPoint)
	}{
		"time":      {metric.OTLPNoTime, "without time_unix_nano", func(p pmetric.NumberDataPoint) { p.SetTimestamp(0) }},
		"future":    {metric.OTLPFuture, "set one of the clocks", func(p pmetric.NumberDataPoint) { p.SetTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Hour))) }},
		"past":      {metric.OTLPTooOld, "older than 24h", func(p pmetric.NumberDataPoint) { p.SetTimestamp(pcommon.NewTimestampFromTime(at.Add(-25 * time.Hour))) }},
		"no text":   {metric.OTLPUntellable, "no UTF-8", func(p pmetric.NumberDataPoint) { p.Attributes().PutStr("a", "\xff") }},
		"long":      {metric.OTLPUntellable, "5000 bytes, at most 4096", func(p pmetric.NumberDataPoint) { p.Attributes().PutStr("a", strings.Repeat("x", 5000)) }},
		"exemplars": {metric.OTLPUntellable, "exemplar value", func(p pmetric.NumberDataPoint) { p.Exemplars().AppendEmpty() }},
		"labels": {metric.OTLPUntellable, "at most 128", func(p pmetric.NumberDataPoint) {
			for i := range 200 {
				p.Attributes().PutStr(fmt.Sprintf("a%d", i), "x")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var s sink
			r, set := begin(t, &s, nil)
			md := everything()
			sum := add(resource(md), "some", "1").SetEmptySum()
			sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			for i := range 3 {
				p := sum.DataPoints().AppendEmpty()
				stamp(p)
				p.Attributes().PutInt("i", int64(i))
				p.SetDoubleValue(float64(i))
			}
			c.spoil(sum.DataPoints().At(1))
			resp, body := post(t, r, encode(t, md))
			if resp.StatusCode != 200 {
				t.Fatalf("status %d: %s", resp.StatusCode, body)
			}
			p := answer(t, body)
			if p.RejectedDataPoints() != 1 || !strings.Contains(p.ErrorMessage(), c.want) || !strings.Contains(p.ErrorMessage(), `"some" of "cart"`) {
				t.Errorf("%d rejected: %s", p.RejectedDataPoints(), p.ErrorMessage())
			}
			s.one(t, `{__name__="some", i="0", `+who+`}`)
			s.one(t, `{__name__="some", i="2", `+who+`}`)
			s.one(t, `{__name__="http_requests_total", http_route="/a", `+who+`}`)
			if got := counter(t, set, metric.AgentOTLPPoints+`{result="`+c.reason+`"}`); got != "1" {
				t.Errorf("%s is counted %s times, want 1", c.reason, got)
			}
			if got := counter(t, set, metric.AgentOTLPPoints+`{result="accepted"}`); got != "9" {
				t.Errorf("%s are accepted, want 9", got)
			}
			if got := counter(t, set, metric.AgentOTLPRequests+`{transport="http",result="partial"}`); got != "1" {
				t.Errorf("%s requests are partial, want 1", got)
			}
		})
	}
}

func TestHistogramsThatContradictThemselvesAreRefused(t *testing.T) {
	var s sink
	r, _ := begin(t, &s, nil)
	md := pmetric.NewMetrics()
	x := add(resource(md), "bad", "1").SetEmptyExponentialHistogram()
	x.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for _, scale := range []int32{2, -10} {
		p := x.DataPoints().AppendEmpty()
		stamp(p)
		p.SetScale(scale)
		p.SetCount(1)
		p.Positive().BucketCounts().FromRaw([]uint64{5})
	}
	none := add(md.ResourceMetrics().At(0).ScopeMetrics().At(0), "vague", "1").SetEmptySum()
	stamp(none.DataPoints().AppendEmpty())
	_, body := post(t, r, encode(t, md))
	p := answer(t, body)
	if p.RejectedDataPoints() != 3 || !strings.Contains(p.ErrorMessage(), "contradicts itself") || !strings.Contains(p.ErrorMessage(), "no temporality") {
		t.Errorf("%d rejected: %s", p.RejectedDataPoints(), p.ErrorMessage())
	}
	if len(s.series()) != 0 {
		t.Errorf("kept: %v", s.series())
	}
}

func TestLongAttributesOfResourcesAreLeftOut(t *testing.T) {
	var s sink
	r, set := begin(t, &s, nil)
	md := everything()
	res := md.ResourceMetrics().At(0).Resource().Attributes()
	res.PutStr("process.command_line", strings.Repeat("x", 5000))
	res.PutStr("broken", "\xff")
	_, body := post(t, r, encode(t, md))
	if p := answer(t, body); p.RejectedDataPoints() != 0 {
		t.Errorf("rejected: %s", p.ErrorMessage())
	}
	s.one(t, `{__name__="target_info", `+who+`, k8s_pod_name="cart-abc", service_version="1.2"}`)
	if got := counter(t, set, metric.AgentOTLPAttributes); got != "2" {
		t.Errorf("%s attributes are counted, want 2", got)
	}
}

func TestWhatIsNotSoundAroundASampleIsLeftOut(t *testing.T) {
	var s sink
	r, _ := begin(t, &s, nil)
	md := pmetric.NewMetrics()
	m := add(resource(md), "odd", "1")
	m.SetDescription(strings.Repeat("é", maxHelp))
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p := sum.DataPoints().AppendEmpty()
	stamp(p)
	p.SetStartTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Minute)))
	for i, text := range []string{"late", "early", "\xff"} {
		e := p.Exemplars().AppendEmpty()
		e.SetDoubleValue(1)
		e.SetTimestamp(pcommon.NewTimestampFromTime(at.Add(-time.Duration(i) * time.Second)))
		e.FilteredAttributes().PutStr("text", text)
	}
	_, body := post(t, r, encode(t, md))
	if p := answer(t, body); p.RejectedDataPoints() != 0 {
		t.Fatalf("rejected: %s", p.ErrorMessage())
	}
	got := s.one(t, `{__name__="odd_total", `+who+`}`)
	if got.st != 0 {
		t.Errorf("it starts at %d, behind its own time; want unknown", got.st)
	}
	if len(got.help) > maxHelp || !utf8.ValidString(got.help) || len(got.help) < maxHelp-3 {
		t.Errorf("the help has %d bytes: …%q", len(got.help), got.help[len(got.help)-4:])
	}
	if len(got.exemplars) != 2 || got.exemplars[0].Labels.Get("text") != "early" {
		t.Errorf("exemplars are %+v, want two in the order of their times", got.exemplars)
	}
}

func statusOf(t *testing.T, body []byte) *spb.Status {
	t.Helper()
	var s spb.Status
	if err := proto.Unmarshal(body, &s); err != nil {
		t.Fatalf("the answer is no google.rpc.Status: %v: %q", err, body)
	}
	return &s
}

func TestBadRequestsAreToldWithThePlace(t *testing.T) {
	var s sink
	r, set := begin(t, &s, func(c *Config) { c.MaxBody = MinMaxBody })
	good := encode(t, everything())
	cut := slices.Clone(good)
	i := bytes.Index(cut, []byte("\x0a\x0dhttp.requests"))
	cut[i+1] = 200 // the length of the name, now beyond the metric
	bomb := pack(t, make([]byte, 20<<20))
	for name, c := range map[string]struct {
		body    []byte
		headers []string
		status  int
		want    string
		result  string
	}{
		"wire":      {cut, nil, 400, "resource_metrics[0].scope_metrics[0].metrics[1] is no valid protobuf", metric.OTLPInvalid},
		"end":       {good[:len(good)-3], nil, 400, "the request is no valid protobuf", metric.OTLPInvalid},
		"json":      {[]byte("{\"resourceMetrics\":[\n{]}"), []string{"Content-Type", "application/json"}, 400, "at byte 23 (line 2)", metric.OTLPInvalid},
		"json type": {[]byte(`{"resourceMetrics":5}`), []string{"Content-Type", "application/json"}, 400, "no OTLP in JSON", metric.OTLPInvalid},
		"gzip":      {[]byte("not packed"), []string{"Content-Encoding", "gzip"}, 400, "no valid gzip at its beginning", metric.OTLPInvalid},
		"gzip cut":  {pack(t, good)[:100], []string{"Content-Encoding", "gzip"}, 400, "no valid gzip behind", metric.OTLPInvalid},
		"bomb":      {bomb, []string{"Content-Encoding", "gzip"}, 413, "more than 65536 bytes", metric.OTLPTooLarge},
		"large":     {make([]byte, MinMaxBody+1), nil, 413, "more than 65536 bytes", metric.OTLPTooLarge},
		"type":      {good, []string{"Content-Type", "text/plain"}, 415, "application/x-protobuf", metric.OTLPInvalid},
		"encoding":  {good, []string{"Content-Encoding", "zstd"}, 415, "gzip or none", metric.OTLPInvalid},
	} {
		before := counter(t, set, metric.AgentOTLPRequests+`{transport="http",result="`+c.result+`"}`)
		resp, body := post(t, r, c.body, c.headers...)
		if resp.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d: %s", name, resp.StatusCode, c.status, body)
			continue
		}
		message := string(body)
		if resp.Header.Get("Content-Type") == "application/x-protobuf" {
			message = statusOf(t, body).GetMessage()
		}
		if !strings.Contains(message, c.want) {
			t.Errorf("%s: %q lacks %q", name, message, c.want)
		}
		if after := counter(t, set, metric.AgentOTLPRequests+`{transport="http",result="`+c.result+`"}`); after == before {
			t.Errorf("%s is not counted as %s", name, c.result)
		}
		if resp.Header.Get("Retry-After") != "" {
			t.Errorf("%s: the sender is told to try again", name)
		}
	}
	if len(s.series()) != 0 {
		t.Errorf("kept: %v", s.series())
	}
	if resp, err := client.Get("http://" + r.HTTPAddress().String() + "/metrics"); err != nil || resp.StatusCode != 404 {
		t.Errorf("another path: %v, %v", resp, err)
	} else {
		_ = resp.Body.Close() // nothing is read
	}

	conn, err := grpc.NewClient(r.GRPCAddress().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(frames{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send := func(body []byte, opts ...grpc.CallOption) *status.Status {
		return status.Convert(conn.Invoke(t.Context(), "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", &frame{body}, &frame{}, opts...))
	}
	if got := send(cut); got.Code() != codes.InvalidArgument || !strings.Contains(got.Message(), "metrics[1] is no valid protobuf") {
		t.Errorf("over gRPC: %v", got)
	}
	if got := send(make([]byte, 20<<20), grpc.UseCompressor(packing.Name)); got.Code() != codes.ResourceExhausted || len(got.Details()) != 0 {
		t.Errorf("a bomb over gRPC: %v", got)
	}
}

// endless gives zeros, and fails the test where somebody reads far too many.
type endless struct {
	t    *testing.T
	read int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.read += len(b); e.read > 1<<20 {
		e.t.Error("a body of no end is read on and on")
		return 0, io.EOF
	}
	clear(b)
	return len(b), nil
}

func TestBodyIsReadNoFurtherThanItsBound(t *testing.T) {
	if _, refused := readBody(&endless{t: t}, false, MinMaxBody); refused == nil || refused.status != 413 {
		t.Errorf("got %+v", refused)
	}
}

func TestRequestsOfManyEmptyPartsAreRefused(t *testing.T) {
	empty := bytes.Repeat([]byte{0x0a, 0}, maxParts+1)
	if _, err := scanProto(empty); !errors.Is(err, errTooManyParts) {
		t.Errorf("got %v", err)
	}
	if _, err := scanProto(empty[:2*maxParts]); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	if _, err := scanJSON([]byte("[" + strings.Repeat("{},", maxParts+1) + "{}]")); !errors.Is(err, errTooManyParts) {
		t.Errorf("got %v", err)
	}
	deep := []byte{}
	for range 40 {
		// kvlist_value of one attribute whose value is the one before.
		attr := append([]byte{0x12}, append(varint(len(deep)), deep...)...)
		list := append([]byte{0x0a}, append(varint(len(attr)), attr...)...)
		deep = append([]byte{0x32}, append(varint(len(list)), list...)...)
	}
	body := deep
	for _, tag := range []byte{0x12, 0x0a, 0x0a, 0x0a} { // value, attribute, resource, resource_metrics
		body = append([]byte{tag}, append(varint(len(body)), body...)...)
	}
	if _, err := scanProto(body); err == nil || !strings.Contains(err.Error(), "nested deeper") {
		t.Errorf("got %v", err)
	}
}

func TestLargeRequestsDoNotAddUp(t *testing.T) {
	var s sink
	r, _ := begin(t, &s, nil)
	r.parts.Store(maxPartsTogether - 10)
	if resp, _ := post(t, r, encode(t, everything())); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("status %d beside large ones, want 429", resp.StatusCode)
	}
	if got := r.parts.Load(); got != maxPartsTogether-10 {
		t.Errorf("%d parts are under way afterwards, want what was there before", got)
	}
	r.parts.Store(0)
	if resp, _ := post(t, r, encode(t, everything())); resp.StatusCode != 200 || r.parts.Load() != 0 {
		t.Errorf("status %d, and %d parts are left", resp.StatusCode, r.parts.Load())
	}
}

func varint(n int) []byte {
	var out []byte
	for n >= 0x80 {
		out = append(out, byte(n)|0x80)
		n >>= 7
	}
	return append(out, byte(n))
}

func TestRequestOfTooManySamplesIsRefused(t *testing.T) {
	var s sink
	r, _ := begin(t, &s, func(c *Config) { c.MaxBody = MaxMaxBody })
	md := pmetric.NewMetrics()
	h := add(resource(md), "wide", "1").SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p := h.DataPoints().AppendEmpty()
	stamp(p)
	bounds := make([]float64, maxSamples)
	for i := range bounds {
		bounds[i] = float64(i)
	}
	p.ExplicitBounds().FromRaw(bounds)
	p.BucketCounts().FromRaw(make([]uint64, maxSamples+1))
	resp, body := post(t, r, encode(t, md))
	if resp.StatusCode != 413 || !strings.Contains(statusOf(t, body).GetMessage(), "smaller batches") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if len(s.series()) != 0 {
		t.Errorf("kept: %d", len(s.series()))
	}
}

func TestAnswerComesAfterTheSinkHasIt(t *testing.T) {
	s := sink{held: make(chan struct{}), waiting: make(chan struct{}, 10)}
	r, set := begin(t, &s, func(c *Config) { c.Concurrent = 1 })
	answered := make(chan int, 1)
	go func() {
		resp, _ := post(t, r, encode(t, everything()))
		answered <- resp.StatusCode
	}()
	<-s.waiting
	select {
	case code := <-answered:
		t.Fatalf("answered %d while the sink has nothing", code)
	default:
	}
	// The one slot is taken: both transports say when to come again.
	resp, body := post(t, r, encode(t, everything()))
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || statusOf(t, body).GetCode() != int32(codes.ResourceExhausted) {
		t.Errorf("status %d, Retry-After %q: %s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
	}
	_, err := dial(t, r).Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(everything()))
	got := status.Convert(err)
	if got.Code() != codes.ResourceExhausted || len(got.Details()) != 1 {
		t.Fatalf("over gRPC: %v with %v", got, got.Details())
	}
	if info, ok := got.Details()[0].(*errdetails.RetryInfo); !ok || info.GetRetryDelay().AsDuration() != time.Second {
		t.Errorf("over gRPC: %v", got.Details())
	}
	close(s.held)
	if code := <-answered; code != 200 {
		t.Errorf("answered %d", code)
	}
	for _, transport := range []string{"http", "grpc"} {
		if got := counter(t, set, metric.AgentOTLPRequests+`{transport="`+transport+`",result="busy"}`); got != "1" {
			t.Errorf("%s requests over %s are busy, want 1", got, transport)
		}
	}
	// A slot of gRPC comes back, too.
	c := dial(t, r)
	for range 5 {
		if _, err := c.Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(everything())); status.Code(err) != codes.OK && status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
	}
}

func TestSinkThatFailsMakesSendersTryAgain(t *testing.T) {
	var log bytes.Buffer
	s := sink{failing: errors.New("the disk is full")}
	r, set := beginWith(t, &s, slog.New(slog.NewTextHandler(&log, nil)), nil)
	for range 2 {
		resp, body := post(t, r, encode(t, everything()))
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(statusOf(t, body).GetMessage(), "the disk is full") {
			t.Errorf("status %d, Retry-After %q: %s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
		}
	}
	_, err := dial(t, r).Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(everything()))
	if got := status.Convert(err); got.Code() != codes.Unavailable || len(got.Details()) != 1 {
		t.Errorf("over gRPC: %v with %v", got, got.Details())
	}
	s.mu.Lock()
	s.failing = nil
	s.mu.Unlock()
	if resp, _ := post(t, r, encode(t, everything())); resp.StatusCode != 200 {
		t.Errorf("status %d when it works again", resp.StatusCode)
	}
	if got := counter(t, set, metric.AgentOTLPPoints+`{result="accepted"}`); got != "7" {
		t.Errorf("%s points are accepted, want those of the last request alone", got)
	}
	if n := strings.Count(log.String(), "cannot be queued"); n != 1 {
		t.Errorf("the failure is told %d times:\n%s", n, log.String())
	}
	if n := strings.Count(log.String(), "are queued again"); n != 1 {
		t.Errorf("its end is told %d times:\n%s", n, log.String())
	}
}

func TestStopLetsTheRequestThatIsUnderWayEnd(t *testing.T) {
	for _, transport := range []string{"http", "grpc"} {
		t.Run(transport, func(t *testing.T) {
			s := sink{held: make(chan struct{}), waiting: make(chan struct{}, 1)}
			cfg := DefaultConfig()
			cfg.HTTP, cfg.GRPC = "127.0.0.1:0", "127.0.0.1:0"
			r, err := New(cfg, &s, quiet, metrics.NewSet())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			sent := make(chan error, 1)
			go func() {
				if transport == "grpc" {
					_, err := dial(t, r).Export(context.Background(), pmetricotlp.NewExportRequestFromMetrics(everything()))
					sent <- err
					return
				}
				resp, _ := post(t, r, encode(t, everything()))
				if resp.StatusCode != 200 {
					sent <- errors.New(resp.Status)
					return
				}
				sent <- nil
			}()
			<-s.waiting
			cancel()
			close(s.held)
			if err := <-sent; err != nil {
				t.Errorf("the request that was under way: %v", err)
			}
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			s.one(t, `{__name__="http_requests_total", http_route="/a", `+who+`}`)
		})
	}
}

func TestAddressesAreGivenBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := DefaultConfig()
	cfg.HTTP, cfg.GRPC = "127.0.0.1:0", l.Addr().String()
	if _, err := New(cfg, &sink{}, quiet, metrics.NewSet()); err == nil || !strings.Contains(err.Error(), "otlp: grpc:") {
		t.Fatalf("a port that is taken: %v", err)
	}
	cfg.GRPC = ""
	r, err := New(cfg, &sink{}, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	if r.GRPCAddress() != nil {
		t.Errorf("gRPC is off and listens at %v", r.GRPCAddress())
	}
	address := r.HTTPAddress().String()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("Close kept the address: %v", err)
	}
	_ = again.Close() // it was opened to see that it can be
}

// writeCertificate writes one for localhost, signed by itself, and returns its
// files and the pool that trusts it.
func writeCertificate(t *testing.T, dir string, serial int64) (certFile, keyFile string, trust *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600)); err != nil {
		t.Fatal(err)
	}
	trust = x509.NewCertPool()
	trust.AppendCertsFromPEM(cert)
	return certFile, keyFile, trust
}

func TestBothAddressesSpeakTLSWhereItIsSet(t *testing.T) {
	var s sink
	dir := t.TempDir()
	certFile, keyFile, trust := writeCertificate(t, dir, 1)
	r, _ := begin(t, &s, func(c *Config) { c.CertFile, c.KeyFile = certFile, keyFile })
	secure := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust}}}
	resp, err := secure.Post("https://"+r.HTTPAddress().String()+"/v1/metrics", "application/x-protobuf", bytes.NewReader(encode(t, everything())))
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != 200 {
		t.Errorf("status %d, %v", resp.StatusCode, err)
	}
	conn, err := grpc.NewClient(r.GRPCAddress().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: trust})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pmetricotlp.NewGRPCClient(conn).Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(everything())); err != nil {
		t.Errorf("over gRPC: %v", err)
	}
	if got := len(s.all[`{__name__="http_requests_total", http_route="/a", `+who+`}`]); got != 2 {
		t.Errorf("%d samples of two requests", got)
	}
	cfg := DefaultConfig()
	cfg.CertFile, cfg.KeyFile = filepath.Join(dir, "none"), keyFile
	if _, err := New(cfg, &s, quiet, metrics.NewSet()); err == nil || !strings.Contains(err.Error(), "cert_file:") {
		t.Errorf("a certificate that is not there: %v", err)
	}
}

func TestReplacedCertificateIsTakenAndABrokenOneIsNot(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := writeCertificate(t, dir, 1)
	c, err := newCertificate(Config{CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		t.Helper()
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(got.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	writeCertificate(t, dir, 2)
	if got := serial(); got != 1 {
		t.Errorf("certificate %d within its minute, want 1", got)
	}
	c.read = time.Now().Add(-certificateAge)
	if got := serial(); got != 2 {
		t.Errorf("certificate %d after its minute, want 2", got)
	}
	if err := os.WriteFile(certFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.read = time.Now().Add(-certificateAge)
	if got := serial(); got != 2 {
		t.Errorf("certificate %d while the file is broken, want 2", got)
	}
}

func TestConfigIsDecodedAndChecked(t *testing.T) {
	cfg := DefaultConfig()
	err := strictyaml.Decode("agent.yaml", []byte("http: 0.0.0.0:4318\nmax_body: 8MiB\ntranslation_strategy: NoTranslation\npromote_resource_attributes: [a, b]\n"), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil || cfg.MaxBody != 8<<20 || !cfg.Enabled() {
		t.Errorf("%v: %+v", err, cfg)
	}
	if d := DefaultConfig(); d.Validate() != nil || d.Enabled() {
		t.Errorf("the default is not off and valid: %v", d.Validate())
	}
	for want, change := range map[string]func(*Config){
		"http: address 4318: missing port in address: write it as host:port":          func(c *Config) { c.HTTP = "4318" },
		"grpc is the same address as http":                                            func(c *Config) { c.HTTP, c.GRPC = "a:1", "a:1" },
		"cert_file and key_file belong together":                                      func(c *Config) { c.CertFile = "x" },
		"max_body is 1KiB: choose from 64KiB to 16MiB":                                func(c *Config) { c.MaxBody = 1024 },
		"concurrent is 0: choose from 1 to 64":                                        func(c *Config) { c.Concurrent = 0 },
		`translation_strategy is "x": choose one of UnderscoreEscapingWithSuffixes, `: func(c *Config) { c.TranslationStrategy = "x" },
		"promote_resource_attributes has entries, and promote_all": func(c *Config) {
			c.PromoteAllResourceAttributes, c.PromoteResourceAttributes = true, []string{"a"}
		},
		"ignore_resource_attributes has entries, which":            func(c *Config) { c.IgnoreResourceAttributes = []string{"a"} },
		`promote_resource_attributes[1] is " b"`:                   func(c *Config) { c.PromoteResourceAttributes = []string{"a", " b"} },
		"promote_resource_attributes[1] is the same as":            func(c *Config) { c.PromoteResourceAttributes = []string{"a", "a"} },
		"promote_resource_attributes has 201 entries, at most 200": func(c *Config) { c.PromoteResourceAttributes = make([]string, 201) },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s…", err, want)
		}
	}
}

// A request never takes the receiver down, and what is acknowledged is whole.
func FuzzTake(f *testing.F) {
	good, err := pmetricotlp.NewExportRequestFromMetrics(everything()).MarshalProto()
	if err != nil {
		f.Fatal(err)
	}
	text, err := pmetricotlp.NewExportRequestFromMetrics(everything()).MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, false)
	f.Add(text, true)
	f.Add([]byte{0x0a, 0x80}, false)
	r, err := New(DefaultConfig(), &sink{}, quiet, metrics.NewSet())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, isJSON bool) {
		r.sink = &sink{}
		resp, refused := r.take(t.Context(), "http", body, isJSON)
		if refused != nil {
			if refused.message == "" || refused.status == 0 {
				t.Errorf("refused without a word: %+v", refused)
			}
			return
		}
		if n := resp.PartialSuccess().RejectedDataPoints(); n > 0 && resp.PartialSuccess().ErrorMessage() == "" {
			t.Errorf("%d points are rejected without a word", n)
		}
		for ls, all := range r.sink.(*sink).all {
			for _, one := range all {
				if one.t == 0 {
					t.Errorf("%s has a sample without a time", ls)
				}
			}
		}
	})
}
