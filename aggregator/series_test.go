package main

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/aggregator/store"
)

// recorded is a real embedded store whose series grow steadily.
type recorded struct {
	t      testing.TB
	data   string // as --data takes it
	db     *store.DB
	end    time.Time
	series []growing
}

// growing is one series: its value after so many minutes.
type growing struct {
	labels labels.Labels
	value  func(minute int) float64
	native []float64 // counts a minute up to 0.125, 0.25, 0.5, 1 of a native histogram
}

func newRecorded(t testing.TB) *recorded {
	t.Helper()
	// The last sample lies a little ahead, so that none is missing in the minute
	// in which a test asks.
	r := &recorded{t: t, data: t.TempDir(), end: time.Now().Truncate(time.Minute).Add(time.Minute)}
	r.open(store.DefaultConfig().QueryMaxSamples)
	return r
}

// open opens the store, which loads at most so many samples for a query.
func (r *recorded) open(maxSamples int) {
	r.t.Helper()
	cfg := store.DefaultConfig()
	cfg.Dir, cfg.Retention, cfg.MinFree, cfg.QueryMaxSamples = filepath.Join(r.data, "metrics"), 15*24*time.Hour, 0, maxSamples
	db, err := store.Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		r.t.Fatal(err)
	}
	r.db = db
}

// limit opens the store again with another bound on queries.
func (r *recorded) limit(maxSamples int) {
	r.t.Helper()
	r.close()
	r.open(maxSamples)
}

func seriesLabels(t testing.TB, text string) labels.Labels {
	t.Helper()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var pairs []string
	for _, m := range ms {
		pairs = append(pairs, m.Name, m.Value)
	}
	return labels.FromStrings(pairs...)
}

// counter adds a counter with so many events a minute.
func (r *recorded) counter(series string, perMinute float64) {
	r.t.Helper()
	r.shaped(series, func(minute int) float64 { return perMinute * float64(before+minute) })
}

// before is the minutes that counters have counted when the samples begin: one
// that begins at 0 is not estimated back beyond its first sample.
const before = 10_000

func (r *recorded) shaped(series string, value func(minute int) float64) {
	r.t.Helper()
	r.series = append(r.series, growing{labels: seriesLabels(r.t, series), value: value})
}

// gauge adds one that is 1, but for so many of the first minutes.
func (r *recorded) gauge(series string, down int) {
	r.t.Helper()
	r.shaped(series, func(minute int) float64 {
		if minute < down {
			return 0
		}
		return 1
	})
}

// histogram adds a classic one: events a minute up to each edge.
func (r *recorded) histogram(series string, edges map[string]float64) {
	r.t.Helper()
	ls := seriesLabels(r.t, series)
	name := ls.Get("__name__")
	for _, le := range slices.Sorted(maps.Keys(edges)) {
		n := edges[le]
		grow := func(minute int) float64 { return n * float64(before+minute) }
		b := labels.NewBuilder(ls)
		r.series = append(r.series, growing{labels: b.Set("__name__", name+"_bucket").Set("le", le).Labels(), value: grow})
		if le == "+Inf" {
			r.series = append(r.series, growing{labels: labels.NewBuilder(ls).Set("__name__", name+"_count").Labels(), value: grow})
		}
	}
}

// write appends a sample of each series every interval for so many minutes, up
// to now.
func (r *recorded) write(minutes int, interval time.Duration) {
	r.t.Helper()
	begin := r.end.Add(-time.Duration(minutes) * time.Minute)
	app := r.db.Appender(context.Background())
	commit := func() {
		r.t.Helper()
		if err := app.Commit(); err != nil {
			r.t.Fatal(err)
		}
		app = r.db.Appender(context.Background())
	}
	n := 0
	for at := begin; !at.After(r.end); at = at.Add(interval) {
		minute := int(at.Sub(begin) / time.Minute)
		for _, s := range r.series {
			var err error
			if s.native != nil {
				err = app.AppendHistogram(s.labels, 0, at.UnixMilli(), nil, nativeAt(s.native, minute))
			} else {
				err = app.Append(s.labels, 0, at.UnixMilli(), s.value(minute))
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}
		if n++; n%60 == 0 {
			commit()
		}
	}
	commit()
}

// nativeAt is a native histogram of schema 0, whose edges are powers of two.
func nativeAt(perMinute []float64, minute int) *histogram.FloatHistogram {
	h := &histogram.FloatHistogram{Schema: 0, ZeroThreshold: 1e-9, PositiveSpans: []histogram.Span{{Offset: -3, Length: uint32(len(perMinute))}}}
	for _, n := range perMinute {
		h.PositiveBuckets = append(h.PositiveBuckets, n*float64(before+minute))
		h.Count += n * float64(before+minute)
	}
	return h
}

// serve answers the store's API, as a foreign Prometheus would.
func (r *recorded) serve() string {
	r.t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", r.db.API(prometheus.NewRegistry()))
	s := httptest.NewServer(mux)
	r.t.Cleanup(s.Close)
	r.t.Cleanup(r.close)
	return s.URL
}

func (r *recorded) close() {
	if r.db == nil {
		return
	}
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
	r.db = nil
}

// called runs a command and returns what it printed.
func called(t testing.TB, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e strings.Builder
	code = run(context.Background(), env{&o, &e}, args)
	return code, o.String(), e.String()
}

func TestNearestNamesComeFirst(t *testing.T) {
	all := []string{"http_requests_total", "http_request_total", "http_requests_in_flight", "up", "go_goroutines"}
	if got := strings.Join(nearest("http_reqests_total", all, 2), " "); got != "http_requests_total http_request_total" {
		t.Errorf("got %s", got)
	}
	if got := strings.Join(nearest("my_program_http_requests_total", all, 2), " "); got != "http_requests_total" {
		t.Errorf("with a prefix that is too many: got %q", got)
	}
	if got := strings.Join(nearest("http_total", []string{"shop_http_requests_total", "shop_http"}, 2), " "); got != "shop_http_requests_total" {
		t.Errorf("with words that are missing: got %q", got)
	}
	if got := nearest("something_else_entirely", all, 3); len(got) != 0 {
		t.Errorf("got %v, want nothing that is near", got)
	}
	if d := editDistance("kitten", "sitting"); d != 3 {
		t.Errorf("distance %d, want 3", d)
	}
}

func TestRetentionIsReadAsPrometheusTellsIt(t *testing.T) {
	for text, want := range map[string]time.Duration{"15d": 15 * 24 * time.Hour, "30d or 20GiB": 30 * 24 * time.Hour, "20GiB": 0, "": 0, "0s": 0} {
		if got := retentionText(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestAnswerBeyondItsBoundIsAnError(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		piece := []byte(`{"status":"success","data":["` + strings.Repeat("x", 1<<20))
		for range maxSeriesAnswer>>20 + 1 {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	src, err := openSeriesServer(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, err = src.labelValues(t.Context(), "__name__", "", time.Now().Add(-time.Hour), time.Now())
	if !tooMuch(err) || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Errorf("got %v", err)
	}
}

func TestSelectorsAreWrittenAsPromQL(t *testing.T) {
	m := labels.MustNewMatcher(labels.MatchEqual, "service.name", `a"b`)
	for got, want := range map[string]string{
		selectorOf("up"):          "up",
		selectorOf("a.b"):         `{"a.b"}`,
		selectorOf("a.b", m):      `{"a.b","service.name"="a\"b"}`,
		by("job", "service.name"): `(job, "service.name")`,
		rangeOf(90 * time.Minute): "[1h30m]",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
