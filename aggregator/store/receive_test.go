package store

import (
	"bytes"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

func v1HTTP(t testing.TB, req *prompb.WriteRequest) *http.Request {
	t.Helper()
	body, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return httpWrite(snappy.Encode(nil, body), "application/x-protobuf")
}

func v2HTTP(t testing.TB, req *writev2.Request) *http.Request {
	t.Helper()
	body, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return httpWrite(snappy.Encode(nil, body), "application/x-protobuf;proto=io.prometheus.write.v2.Request")
}

func httpWrite(body []byte, contentType string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Content-Encoding", "snappy")
	return r
}

func testHistogram() *histogram.Histogram {
	return &histogram.Histogram{Schema: 0, Count: 3, Sum: 3.5, ZeroThreshold: 0.001,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
}

// v2Full has a bit of everything that 2.0 can carry.
func v2Full() *writev2.Request {
	syms := writev2.NewSymbolTable()
	ref := func(ls labels.Labels) []uint32 { return syms.SymbolizeLabels(ls, nil) }
	counter := writev2.TimeSeries{
		LabelsRefs: ref(series("requests_total", "job", "x")),
		Samples: []writev2.Sample{
			{Timestamp: ms(-15 * time.Second), Value: 1, StartTimestamp: ms(-time.Minute)},
			{Timestamp: ms(0), Value: 2, StartTimestamp: ms(-time.Minute)}},
		Exemplars: []writev2.Exemplar{{LabelsRefs: ref(labels.FromStrings("trace_id", "t1")), Timestamp: ms(0), Value: 1}},
		Metadata:  writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: syms.Symbolize("Requests."), UnitRef: syms.Symbolize("")},
	}
	hist := writev2.TimeSeries{
		LabelsRefs: ref(series("latency_seconds", "job", "x")),
		Histograms: []writev2.Histogram{
			writev2.FromIntHistogram(ms(-time.Minute), ms(-15*time.Second), testHistogram()),
			writev2.FromFloatHistogram(ms(-time.Minute), ms(0), testHistogram().ToFloat(nil))},
		Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, HelpRef: syms.Symbolize("Latency."), UnitRef: syms.Symbolize("seconds")},
	}
	classic := writev2.TimeSeries{
		LabelsRefs: ref(series("size_bytes_bucket", "le", "1")),
		Samples:    []writev2.Sample{{Timestamp: ms(0), Value: 1}},
		Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, HelpRef: syms.Symbolize("Size."), UnitRef: syms.Symbolize("bytes")},
	}
	return &writev2.Request{Timeseries: []writev2.TimeSeries{counter, hist, classic}, Symbols: syms.Symbols()}
}

// client is the sender that Prometheus and others are built with.
func client(t *testing.T, db *DB) *remoteapi.API {
	t.Helper()
	srv := httptest.NewServer(db.Receiver())
	t.Cleanup(srv.Close)
	api, err := remoteapi.NewAPI(srv.URL, remoteapi.WithAPIPath("api/v1/write"), remoteapi.WithAPIBackoff(remoteapi.BackoffConfig{MaxRetries: 1}),
		remoteapi.WithAPIHTTPClient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func TestRemoteWrite2CarriesStartsHistogramsExemplarsAndMetadata(t *testing.T) {
	db := openTest(t)
	var hooked int
	db.SetHook(func(b []Sample) { hooked += len(b) })
	stats, err := client(t, db).Write(t.Context(), remoteapi.WriteV2MessageType, v2Full())
	if err != nil {
		t.Fatal(err)
	}
	if stats.Samples != 3 || stats.Histograms != 2 || stats.Exemplars != 1 {
		t.Errorf("answered %+v, want 3 samples, 2 histograms, 1 exemplar", stats)
	}
	if hooked != 5 {
		t.Errorf("the hook saw %d, want 5", hooked)
	}
	if got := brief(read(t, db, "requests_total")); got != "1@-15/-60 2@0/-60" {
		t.Errorf("stored %q", got)
	}
	hs := read(t, db, "latency_seconds")
	if len(hs) != 2 || !hs[0].H.Equals(testHistogram()) || !hs[1].FH.Equals(testHistogram().ToFloat(nil)) {
		t.Errorf("stored %+v", hs)
	}
	q, err := db.tsdb.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Select(ms(-time.Hour), ms(time.Hour), []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total")})
	if err != nil || len(found) != 1 || found[0].Exemplars[0].Labels.Get("trace_id") != "t1" {
		t.Errorf("exemplars %+v, %v", found, err)
	}
	if got := db.meta.byName["size_bytes"]; len(got) != 1 || got[0].Help != "Size." || got[0].Unit != "bytes" || got[0].Type != "histogram" {
		t.Errorf("metadata of the classic histogram is %+v", got)
	}
	if got := db.meta.byName["requests_total"]; len(got) != 1 || got[0].Type != "counter" {
		t.Errorf("metadata of the counter is %+v", got)
	}
}

func TestRemoteWrite1CarriesHistogramsExemplarsAndMetadata(t *testing.T) {
	db := openTest(t)
	ls := func(name string) []prompb.Label { return []prompb.Label{{Name: "__name__", Value: name}} }
	req := &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{Labels: ls("a"), Samples: []prompb.Sample{{Timestamp: ms(0), Value: 4}},
				Exemplars: []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "t"}}, Timestamp: ms(0), Value: 1}}},
			{Labels: ls("h"), Histograms: []prompb.Histogram{
				prompb.FromIntHistogram(ms(-time.Second), testHistogram()), prompb.FromFloatHistogram(ms(0), testHistogram().ToFloat(nil))}},
		},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "a", Help: "An a.", Unit: "bytes"}},
	}
	if _, err := client(t, db).Write(t.Context(), remoteapi.WriteV1MessageType, req); err != nil {
		t.Fatal(err)
	}
	if got := brief(read(t, db, "a")); got != "4@0" {
		t.Errorf("stored %q", got)
	}
	if hs := read(t, db, "h"); len(hs) != 2 || hs[0].H == nil || hs[1].FH == nil {
		t.Errorf("stored %+v", hs)
	}
	if got := testutil.ToFloat64(db.metrics.exemplars.WithLabelValues("stored")); got != 1 {
		t.Errorf("%v exemplars stored, want 1", got)
	}
	if got := db.meta.byName["a"]; len(got) != 1 || got[0].Type != "gauge" || got[0].Help != "An a." || got[0].Unit != "bytes" {
		t.Errorf("metadata is %+v", got)
	}
}

func TestR02_PartialWriteTellsThePlaceAndStoresTheRest(t *testing.T) {
	for _, version := range []string{"1.0", "2.0"} {
		t.Run(version, func(t *testing.T) {
			db := openTest(t)
			var r *http.Request
			if version == "1.0" {
				r = v1HTTP(t, v1Request(Sample{T: ms(0), V: 1}, Sample{T: ms(time.Hour), V: 2}))
			} else {
				syms := writev2.NewSymbolTable()
				r = v2HTTP(t, &writev2.Request{Timeseries: []writev2.TimeSeries{
					{LabelsRefs: syms.SymbolizeLabels(series("m", "n", "0"), nil), Samples: []writev2.Sample{{Timestamp: ms(0), Value: 1}}},
					{LabelsRefs: syms.SymbolizeLabels(series("m", "n", "1"), nil), Samples: []writev2.Sample{{Timestamp: ms(time.Hour), Value: 2}}},
				}, Symbols: syms.Symbols()})
			}
			rec := httptest.NewRecorder()
			db.Receiver().ServeHTTP(rec, r)
			if rec.Code != http.StatusBadRequest {
				t.Errorf("answered %d, want 400", rec.Code)
			}
			for _, want := range []string{`{__name__="m", n="1"} at 2026-11-23T09:00:00.000Z`, "1h0m0s ahead", "the rest is stored"} {
				if !strings.Contains(rec.Body.String(), want) {
					t.Errorf("answer lacks %q: %s", want, rec.Body)
				}
			}
			if got := rec.Header().Get("X-Prometheus-Remote-Write-Samples-Written"); version == "2.0" && got != "1" {
				t.Errorf("told %q samples written, want 1", got)
			}
			if got := brief(read(t, db, "m")); got != "1@0" {
				t.Errorf("stored %q", got)
			}
			if got := testutil.ToFloat64(db.metrics.samples.WithLabelValues("future")); got != 1 {
				t.Errorf("counted %v, want 1", got)
			}
		})
	}
}

func TestUnreadableSeriesOfARequestAreNamedAndTheRestIsStored(t *testing.T) {
	db := openTest(t)
	req := v2Full()
	req.Timeseries = append(req.Timeseries,
		writev2.TimeSeries{LabelsRefs: []uint32{900, 901}, Samples: []writev2.Sample{{Timestamp: ms(0)}}},
		writev2.TimeSeries{LabelsRefs: req.Timeseries[0].LabelsRefs})
	for range 9 {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{LabelsRefs: []uint32{1}})
	}
	rec := httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, v2HTTP(t, req))
	if rec.Code != http.StatusBadRequest {
		t.Errorf("answered %d, want 400", rec.Code)
	}
	for _, want := range []string{"timeseries 3:", "timeseries 4, {__name__=\"requests_total\", job=\"x\"}: has neither", "and 6 more"} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("answer lacks %q: %s", want, rec.Body)
		}
	}
	if got := brief(read(t, db, "requests_total")); got != "1@-15/-60 2@0/-60" {
		t.Errorf("stored %q", got)
	}
}

func TestRequestsOutsideTheBoundsAreRefused(t *testing.T) {
	db := openTest(t, func(c *Config) { c.MaxBody, c.MaxDecodedBody, c.Limits.Requests = 2000, 4000, 1 })
	good := v1Request(Sample{T: ms(0), V: 1})
	for name, tc := range map[string]struct {
		r    *http.Request
		want int
	}{
		"good":              {v1HTTP(t, good), 204},
		"too large":         {httpWrite(make([]byte, 2001), "application/x-protobuf"), 413},
		"too large decoded": {httpWrite(snappy.Encode(nil, make([]byte, 4001)), "application/x-protobuf"), 413},
		"not snappy":        {httpWrite([]byte("\xff\xff\xff\xff\xff\xff\xff hello"), "application/x-protobuf"), 400},
		"not protobuf":      {httpWrite(snappy.Encode(nil, []byte("hello")), "application/x-protobuf"), 400},
		"not protobuf 2":    {httpWrite(snappy.Encode(nil, []byte("hello")), "application/x-protobuf;proto=io.prometheus.write.v2.Request"), 400},
		"other type":        {httpWrite(snappy.Encode(nil, nil), "application/json"), 415},
		"other message":     {httpWrite(snappy.Encode(nil, nil), "application/x-protobuf;proto=io.prometheus.write.v3.Request"), 415},
		"PUT": {func() *http.Request {
			r := v1HTTP(t, good)
			r.Method = http.MethodPut
			return r
		}(), 405},
	} {
		rec := httptest.NewRecorder()
		db.Receiver().ServeHTTP(rec, tc.r)
		if rec.Code != tc.want {
			t.Errorf("%s: answered %d, want %d: %s", name, rec.Code, tc.want, rec.Body)
		}
	}
	db.writes <- struct{}{} // one in work
	rec := httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, v1HTTP(t, good))
	if rec.Code != 503 || rec.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: answered %d, Retry-After %q", rec.Code, rec.Header().Get("Retry-After"))
	}
	<-db.writes
	if got := testutil.ToFloat64(db.metrics.requests.WithLabelValues("write", "413")); got != 2 {
		t.Errorf("counted %v requests with 413, want 2", got)
	}
}

func TestMetadataIsBounded(t *testing.T) {
	db := openTest(t, func(c *Config) { c.MaxMetadata = 2 })
	rec := httptest.NewRecorder()
	req := &prompb.WriteRequest{}
	req.Metadata = append(req.Metadata,
		prompb.MetricMetadata{MetricFamilyName: "a", Type: prompb.MetricMetadata_COUNTER, Help: strings.Repeat("ä", maxHelpBytes)},
		prompb.MetricMetadata{MetricFamilyName: "b", Type: prompb.MetricMetadata_COUNTER, Help: "b"},
		prompb.MetricMetadata{MetricFamilyName: "c", Type: prompb.MetricMetadata_COUNTER, Help: "c"},
		prompb.MetricMetadata{MetricFamilyName: "", Type: prompb.MetricMetadata_COUNTER, Help: "none"})
	for i := range maxVariants + 3 {
		req.Metadata = append(req.Metadata, prompb.MetricMetadata{MetricFamilyName: "b", Type: prompb.MetricMetadata_GAUGE, Help: strings.Repeat("x", i+1)})
	}
	db.Receiver().ServeHTTP(rec, v1HTTP(t, req))
	if rec.Code != 204 {
		t.Fatalf("answered %d: %s", rec.Code, rec.Body)
	}
	if n := len(db.meta.byName); n != 2 {
		t.Errorf("%d names kept, want 2", n)
	}
	if n := len(db.meta.byName["b"]); n != maxVariants {
		t.Errorf("%d variants kept, want %d", n, maxVariants)
	}
	if n := len(db.meta.byName["a"][0].Help); n > maxHelpBytes {
		t.Errorf("help of %d bytes kept, want at most %d", n, maxHelpBytes)
	}
	if got := testutil.ToFloat64(db.metrics.metaFull); got != 1 {
		t.Errorf("counted %v as left out, want 1", got)
	}
}

func FuzzReceiver(f *testing.F) {
	v1, err := v1Request(Sample{T: ms(0), V: 1}, Sample{T: ms(time.Hour), V: math.NaN()}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	v2, err := v2Full().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v1, false)
	f.Add(v2, true)
	f.Add(v2[:len(v2)/2], true)
	f.Add([]byte("\x22\x02\x0a\x00"), true)
	f.Add([]byte{}, false)
	db := openTest(f)
	db.log = slog.New(slog.DiscardHandler)
	h := db.Receiver()
	f.Fuzz(func(t *testing.T, body []byte, second bool) {
		stored := 0
		db.hook = func(b []Sample) {
			stored += len(b)
			for _, s := range b {
				if s.T > ms(MaxAhead) {
					t.Errorf("a sample at %d passed", s.T)
				}
				if fault := testLimits.checkLabels(s.Labels); fault != nil {
					t.Error(fault.detail)
				}
			}
		}
		kind := "application/x-protobuf"
		if second {
			kind += ";proto=io.prometheus.write.v2.Request"
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httpWrite(snappy.Encode(nil, body), kind))
		if rec.Code != 204 && rec.Code != 400 {
			t.Errorf("answered %d: %s", rec.Code, rec.Body)
		}
		if db.Err() != nil {
			t.Fatal(db.Err())
		}
	})
}
