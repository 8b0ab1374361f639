package store

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"
)

func apiServer(t *testing.T, db *DB) *httptest.Server {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "own"}))
	srv := httptest.NewServer(db.API(reg))
	t.Cleanup(srv.Close)
	return srv
}

func call(t *testing.T, srv *httptest.Server, method, path string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Header
}

func TestAPIAnswersWhatGrafanaPromtoolAndPromLensAsk(t *testing.T) {
	db := openTest(t)
	for i := range 5 {
		at := ms(time.Duration(i-4) * 15 * time.Second)
		app := db.Appender(t.Context())
		for _, job := range []string{"x", "y"} {
			if err := app.Append(series("requests_total", "job", job), 0, at, float64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	rec := httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, v1HTTP(t, &prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "requests_total", Help: "Requests."},
		{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "requests_total", Help: "Other."},
		{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "up", Help: "Up."}}}))
	if rec.Code != 204 {
		t.Fatal(rec.Body)
	}

	srv := apiServer(t, db)
	const now = "1795420800"
	for _, tc := range []struct {
		path string
		code int
		want string // part of the body
	}{
		{"/query?time=" + now + "&query=" + url.QueryEscape(`sum(requests_total)`), 200, `"value":[1795420800,"8"]`},
		{"/query?time=" + now + "&query=" + url.QueryEscape(`requests_total{job="x"}[30s]`), 200, `"values":[[1795420785,"3"],[1795420800,"4"]]`},
		{"/query?query=1%2B", 400, `"errorType":"bad_data"`},
		{"/query_range?start=1795420770&end=" + now + "&step=15&query=" + url.QueryEscape(`requests_total{job="y"}`), 200, `"values":[[1795420770,"2"],[1795420785,"3"],[1795420800,"4"]]`},
		{"/query_exemplars?start=0&end=1&query=up", 200, `"data":[]`},
		{"/format_query?query=" + url.QueryEscape("sum  by(job)(up)"), 200, `"data":"sum by (job) (up)"`},
		{"/parse_query?query=up", 200, `"type":"vectorSelector"`},
		{"/series?match[]=requests_total&start=1795420700&end=" + now, 200, `{"__name__":"requests_total","job":"y"}`},
		{"/series", 400, "no match[] parameter"},
		{"/labels", 200, `"data":["__name__","job"]`},
		{"/label/job/values", 200, `"data":["x","y"]`},
		{"/metadata", 200, `{"data":{"requests_total":[{"type":"counter","help":"Requests.","unit":""},{"type":"gauge","help":"Other.","unit":""}],"up":[{"type":"gauge","help":"Up.","unit":""}]},"status":"success"}`},
		{"/metadata?metric=up", 200, `{"data":{"up":[{"type":"gauge","help":"Up.","unit":""}]},"status":"success"}`},
		{"/metadata?metric=none", 200, `"data":{}`},
		{"/metadata?limit=1&limit_per_metric=1", 200, `{"data":{"requests_total":[{"type":"counter","help":"Requests.","unit":""}]},"status":"success"}`},
		{"/metadata?limit=x", 400, "limit must be a number"},
		{"/metadata?limit_per_metric=x", 400, "limit_per_metric must be a number"},
		{"/status/buildinfo", 200, `"goVersion":"go`},
		{"/status/runtimeinfo", 200, `"storageRetention":"15d"`},
		{"/status/flags", 200, `"query.lookback-delta":"5m"`},
		{"/status/config", 200, `"yaml":`},
		{"/status/tsdb", 200, `"numSeries":2`},
		{"/status/tsdb/blocks", 200, `"blocks":`},
		{"/status/walreplay", 200, `"status":"success"`},
		{"/status/self_metrics", 200, `"own"`},
		{"/rules", 200, `"groups":[]`},
		{"/alerts", 200, `"alerts":[]`},
		{"/targets", 200, `"activeTargets":[]`},
		{"/targets/metadata", 200, `"status":"success"`},
		{"/alertmanagers", 200, `"activeAlertmanagers":[]`},
		{"/scrape_pools", 200, `"scrapePools":[]`},
		{"/features", 200, `"status":"success"`},
		{"/openapi.yaml", 200, "openapi:"},
		{"/admin/tsdb/snapshot", 404, `"errorType":"not_found"`},
		{"/write", 404, "/api/v1/write is not served here"},
		{"/otlp/v1/metrics", 404, "not_found"},
		{"/notifications/live", 404, "not_found"},
	} {
		code, body, _ := call(t, srv, http.MethodGet, "/api/v1"+tc.path)
		if code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s: answered %d, want %d with %s\n%s", tc.path, code, tc.code, tc.want, body)
		}
		if strings.HasPrefix(body, "{") && !json.Valid([]byte(body)) {
			t.Errorf("%s: not JSON: %s", tc.path, body)
		}
	}
	// Grafana asks by POST with a form.
	res, err := srv.Client().PostForm(srv.URL+"/api/v1/query", url.Values{"query": {"sum(requests_total)"}, "time": {now}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), `"8"`) {
		t.Errorf("POST: %s, %v", body, err)
	}
}

func TestAPIReadsRemotely(t *testing.T) {
	db := openTest(t)
	if err := put(t, db, series("a"), Sample{T: ms(0), V: 3}); err != nil {
		t.Fatal(err)
	}
	srv := apiServer(t, db)
	body, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: ms(-time.Hour), EndTimestampMs: ms(time.Hour),
		Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "a"}}}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Post(srv.URL+"/api/v1/read", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	packed, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := snappy.Decode(nil, packed)
	if err != nil {
		t.Fatalf("%d: %s", res.StatusCode, packed)
	}
	var got prompb.ReadResponse
	if err := got.Unmarshal(plain); err != nil {
		t.Fatal(err)
	}
	if ts := got.Results[0].Timeseries; len(ts) != 1 || ts[0].Samples[0].Value != 3 {
		t.Errorf("read %v", got.Results)
	}
}

// The counter of answers once hid that the connection can be flushed, and
// streamed reading was answered with 500.
func TestAPIStreamsRemoteRead(t *testing.T) {
	db := openTest(t)
	if err := put(t, db, series("a"), Sample{T: ms(0), V: 3}); err != nil {
		t.Fatal(err)
	}
	srv := apiServer(t, db)
	body, err := (&prompb.ReadRequest{
		Queries: []*prompb.Query{{StartTimestampMs: ms(-time.Hour), EndTimestampMs: ms(time.Hour),
			Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "a"}}}},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS},
	}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Post(srv.URL+"/api/v1/read", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/x-streamed-protobuf") {
		t.Errorf("answered %d, %q, %v: %q", res.StatusCode, res.Header.Get("Content-Type"), err, got)
	}
}

func TestRequestsAreCountedFromZero(t *testing.T) {
	db := openTest(t)
	if n, want := testutil.CollectAndCount(db.metrics.requests), len(handlers)*len(codes); n != want {
		t.Errorf("%d series before the first request, want %d", n, want)
	}
	srv := apiServer(t, db)
	for path, handler := range map[string]string{
		"/query?query=1": "query", "/query_range?query=1&start=1&end=2&step=1": "query_range", "/series?match[]=a": "series",
		"/labels": "labels", "/label/a/values": "label_values", "/metadata": "metadata", "/status/buildinfo": "status", "/rules": "other",
	} {
		if code, body, _ := call(t, srv, http.MethodGet, "/api/v1"+path); code != 200 {
			t.Errorf("%s: answered %d: %s", path, code, body)
		}
		if got := testutil.ToFloat64(db.metrics.requests.WithLabelValues(handler, "200")); got != 1 {
			t.Errorf("%s: counted %v as %s, want 1", path, got, handler)
		}
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(db.metrics.duration)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []float64{0.25, 0.5, 1, 2.5} {
		found := false
		for _, b := range families[0].GetMetric()[0].GetHistogram().GetBucket() {
			found = found || b.GetUpperBound() == want
		}
		if !found {
			t.Errorf("no bucket at %v s, which the latency objective needs", want)
		}
	}
}

func TestRequestsBeyondTheBoundAreTurnedAway(t *testing.T) {
	db := openTest(t, func(c *Config) { c.QueryConcurrency = 1 })
	in, out := make(chan struct{}), make(chan struct{})
	h := db.bounded(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, ok := r.Context().Deadline(); !ok {
			t.Error("no deadline")
		}
		in <- struct{}{}
		<-out
	}))
	for range 4 {
		go h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		<-in
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), "raise query_concurrency") {
		t.Errorf("answered %d: %s", rec.Code, rec.Body)
	}
	close(out)
}

func TestQueryThatTakesTooManySamplesFails(t *testing.T) {
	db := openTest(t, func(c *Config) { c.QueryMaxSamples = 2 })
	if err := put(t, db, series("a"), Sample{T: ms(-2 * time.Second), V: 1}, Sample{T: ms(-time.Second), V: 1}, Sample{T: ms(0), V: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Query(context.Background(), "a[1m]", base); err == nil || !strings.Contains(err.Error(), "too many samples") {
		t.Errorf("got %v, want too many samples", err)
	}
	code, _, _ := call(t, apiServer(t, db), http.MethodGet, "/api/v1/query?time=1795420800&query="+url.QueryEscape("a[1m]"))
	if code != 422 {
		t.Errorf("answered %d, want 422", code)
	}
}

func TestOnlyAllowedOriginsMayReadFromABrowser(t *testing.T) {
	for origin, want := range map[string]string{".*": "*", "": "", "https://good.example": "https://good.example"} {
		db := openTest(t, func(c *Config) { c.CORSOrigin = origin })
		srv := apiServer(t, db)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api/v1/labels", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", "https://good.example")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("cors_origin %q: answered %q, want %q", origin, got, want)
		}
	}
}
