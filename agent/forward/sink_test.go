package forward

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"

	"nines/pkg/metric"
	"nines/pkg/strictyaml"
)

// request is a request of one series at rest.
func request(t testing.TB, ls labels.Labels, x value) []byte {
	t.Helper()
	e := newEncoder()
	if err := e.add(sinkOf{}.pairs(nil, ls), x); err != nil {
		t.Fatal(err)
	}
	return e.take()[0].request
}

func decoded(t *testing.T, request []byte) *writev2.Request {
	t.Helper()
	req, err := unpack(request)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// rich is a native histogram with all that a series can carry.
var rich = value{
	st: 1_000, t: 61_000,
	h: &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-9, ZeroCount: 2, Count: 9, Sum: 3.5,
		PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{3, 1}},
	meta:      metadata.Metadata{Type: model.MetricTypeHistogram, Unit: "seconds", Help: "How long."},
	exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "abc"), Value: 0.5, Ts: 60_500, HasTs: true}},
}

func TestHistogramCarriesStartMetadataAndExemplars(t *testing.T) {
	req := decoded(t, request(t, labels.FromStrings("__name__", "took_seconds", "pod", "web"), rich))
	if len(req.Timeseries) != 1 {
		t.Fatalf("%d series", len(req.Timeseries))
	}
	ts := req.Timeseries[0]
	b := labels.NewScratchBuilder(4)
	ls, err := ts.ToLabels(&b, req.Symbols)
	if err != nil || ls.String() != `{__name__="took_seconds", pod="web"}` {
		t.Errorf("labels %s, %v", ls, err)
	}
	if len(ts.Histograms) != 1 || len(ts.Samples) != 0 {
		t.Fatalf("series %v", ts)
	}
	h := ts.Histograms[0]
	if got := h.ToIntHistogram(); !got.Equals(rich.h) || h.StartTimestamp != 1_000 || h.Timestamp != 61_000 {
		t.Errorf("histogram %v from %d at %d", got, h.StartTimestamp, h.Timestamp)
	}
	if md, err := ts.ToMetadata(req.Symbols); err != nil || md != rich.meta {
		t.Errorf("metadata %v, %v", md, err)
	}
	if len(ts.Exemplars) != 1 {
		t.Fatalf("exemplars %v", ts.Exemplars)
	}
	if x, err := ts.Exemplars[0].ToExemplar(&b, req.Symbols); err != nil || x.Labels.Get("trace_id") != "abc" || x.Value != 0.5 || x.Ts != 60_500 {
		t.Errorf("exemplar %v, %v", x, err)
	}
}

func TestVersion1KeepsHistogramsExemplarsAndMetadata(t *testing.T) {
	v1, err := downgrade(request(t, labels.FromStrings("__name__", "took_seconds", "pod", "web"), rich))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := snappy.Decode(nil, v1)
	if err != nil {
		t.Fatal(err)
	}
	var req prompb.WriteRequest
	if err := req.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	ts := req.Timeseries[0]
	if len(ts.Histograms) != 1 || !ts.Histograms[0].ToIntHistogram().Equals(rich.h) {
		t.Errorf("histograms %v", ts.Histograms)
	}
	if len(ts.Exemplars) != 1 || ts.Exemplars[0].Labels[0].Value != "abc" {
		t.Errorf("exemplars %v", ts.Exemplars)
	}
	if want := (prompb.MetricMetadata{Type: prompb.MetricMetadata_HISTOGRAM, MetricFamilyName: "took_seconds", Help: "How long.", Unit: "seconds"}); len(req.Metadata) != 1 || req.Metadata[0].String() != want.String() {
		t.Errorf("metadata %v", req.Metadata)
	}
}

func TestFloatHistogramStaysOne(t *testing.T) {
	fh := rich.h.ToFloat(nil)
	req := decoded(t, request(t, labels.FromStrings("__name__", "x"), value{t: 5, fh: fh}))
	if got := req.Timeseries[0].Histograms[0]; !got.IsFloatHistogram() || !got.ToFloatHistogram().Equals(fh) {
		t.Errorf("histogram %v", got)
	}
}

func TestLabelsOfTheAgentJoinThoseOfASeries(t *testing.T) {
	sink := sinkOf{extra: metric.Labels("cluster", "c1", "node", "n1")}
	for name, c := range map[string]struct {
		labels labels.Labels
		want   []metric.Label
	}{
		"none of its own":  {labels.FromStrings("__name__", "x", "zone", "z"), metric.Labels("__name__", "x", "cluster", "c1", "node", "n1", "zone", "z")},
		"another node":     {labels.FromStrings("__name__", "x", "node", "n2"), metric.Labels("__name__", "x", "cluster", "c1", "node", "n2")},
		"another cluster":  {labels.FromStrings("__name__", "x", "cluster", "es"), metric.Labels("__name__", "x", "cluster", "c1", "exported_cluster", "es", "node", "n1")},
		"the same cluster": {labels.FromStrings("__name__", "x", "cluster", "c1"), metric.Labels("__name__", "x", "cluster", "c1", "node", "n1")},
	} {
		if got := sink.pairs(nil, c.labels); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// puts appends one sample and commits.
func puts(sink storage.AppendableV2, name string, ts int64) error {
	app := sink.AppenderV2(context.Background())
	if _, err := app.Append(0, labels.FromStrings("__name__", name), 0, ts, float64(ts), nil, nil, storage.AppendV2Options{}); err != nil {
		return err
	}
	return app.Commit()
}

// In a bubble of fake time: forty targets commit within a fifth of a second.
func TestCommitsOfManyTargetsShareOneSync(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, err := New(DefaultConfig(), dir, quiet, metrics.NewSet())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var targets sync.WaitGroup
		for i := range 40 {
			targets.Go(func() {
				time.Sleep(time.Duration(i) * 5 * time.Millisecond)
				if err := puts(f.Sink(nil), fmt.Sprintf("x%d", i), int64(i)); err != nil {
					t.Error(err)
				}
			})
		}
		targets.Wait()
		if took := time.Since(began); took != gather {
			t.Errorf("the commits took %v, want %v", took, gather)
		}
		if n := len(f.queue.records); n != 1 || f.queue.records[0].samples != 40 {
			t.Errorf("%d records: %+v", n, f.queue.records)
		}
		if err := f.queue.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFullGroupDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := New(DefaultConfig(), t.TempDir(), quiet, metrics.NewSet())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		app := f.Sink(nil).AppenderV2(t.Context())
		for i := range gatherMost {
			if _, err := app.Append(0, labels.FromStrings("__name__", "x", "i", fmt.Sprint(i)), 0, 1, 1, nil, nil, storage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it waited %v", took)
		}
		if err := f.queue.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedCommitIsAnErrorForEachWhoSharedItAndCounted(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	run := startJoining(t, impatient(serve(t, r).URL), dir)
	run.queue.maxBytes = 8 // nothing fits
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- puts(run.Sink(nil), "x", 1) }()
	}
	for range 2 {
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "do not fit the queue") {
			t.Errorf("commit: %v", err)
		}
	}
	if n := run.counter(t, metric.SampleDropped); n != 2 {
		t.Errorf("%d samples dropped", n)
	}
}

func TestRolledBackSamplesAreNotSent(t *testing.T) {
	f, err := New(DefaultConfig(), t.TempDir(), quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	app := f.Sink(nil).AppenderV2(t.Context())
	ref, err := app.Append(0, labels.FromStrings("__name__", "x"), 0, 1, 1, nil, nil, storage.AppendV2Options{})
	if err != nil || ref == 0 {
		t.Fatalf("reference %d, %v", ref, err)
	}
	if err := app.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if len(f.queue.records) != 0 {
		t.Errorf("records %v", f.queue.records)
	}
}

func TestSeriesThatIsGoneGetsOneStaleMarker(t *testing.T) {
	r := newReceiver(t)
	run := startJoining(t, impatient(serve(t, r).URL), t.TempDir())
	extra := metric.Labels("job", "j")
	two := func(names ...string) []metric.Family {
		f := metric.Family{Name: "x", Type: metric.Gauge, Help: "X."}
		for _, n := range names {
			f.Series = append(f.Series, metric.Series{Labels: metric.Labels("device", n), Value: 1})
		}
		return []metric.Family{f}
	}
	for i, fams := range [][]metric.Family{two("a", "b"), two("a"), two("a"), two("b", "a")} {
		if err := run.Append(at(float64(i)), extra, fams); err != nil {
			t.Fatal(err)
		}
	}
	// Another source's series of the same names are its own.
	if err := run.Append(at(4), metric.Labels("job", "other"), two("c")); err != nil {
		t.Fatal(err)
	}
	run.stop()
	var got []string
	for _, s := range r.samples {
		what := "1"
		if stale.IsStaleNaN(s.value) {
			what = "stale"
		}
		got = append(got, fmt.Sprintf("%d %s %s", (s.time-at(0).UnixMilli())/15_000, s.labels, what))
	}
	want := []string{
		"0 __name__=x,device=a,job=j 1", "0 __name__=x,device=b,job=j 1",
		"1 __name__=x,device=a,job=j 1", "1 __name__=x,device=b,job=j stale",
		"2 __name__=x,device=a,job=j 1",
		"3 __name__=x,device=b,job=j 1", "3 __name__=x,device=a,job=j 1",
		"4 __name__=x,device=c,job=other 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatWaitsGoesOutInFewRequestsInOrder(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	var want []string
	before := start(t, impatient("http://127.0.0.1:1/"), dir) // nobody listens there
	for i := range 500 {
		before.put(t, float64(i))
		want = append(want, fmt.Sprint(i))
	}
	before.stop()
	after := startJoining(t, impatient(serve(t, r).URL), dir)
	r.wait(500)
	after.stop()
	if got := r.values(); got != strings.Join(want, " ") {
		t.Errorf("values %s", got)
	}
	if r.n > 2 {
		t.Errorf("%d requests for 500 samples", r.n)
	}
	if n := after.counter(t, metric.SampleSent); n != 500 {
		t.Errorf("%d sent", n)
	}
}

// A receiver that refuses a request whole costs no more than the batch with the
// bad sample.
func TestRefusedJoinedRequestLosesOnlyTheBatchThatIsRefused(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	before := start(t, impatient("http://127.0.0.1:1/"), dir)
	before.put(t, 1, 2, 3, 4)
	before.stop()
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		for _, s := range r.decode(body, req.Header) {
			if s.value == 2 {
				http.Error(w, "two is bad", http.StatusBadRequest)
				return
			}
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.ServeHTTP(w, req)
	}))
	after := startJoining(t, impatient(server.URL), dir)
	r.wait(3)
	after.put(t, 5, 6)
	r.wait(2)
	after.stop()
	if got := r.values(); got != "1 3 4 5 6" || after.counter(t, metric.SampleRejected) != 1 {
		t.Errorf("values %s, %d rejected", got, after.counter(t, metric.SampleRejected))
	}
	if after.sinks[0].single {
		t.Error("requests are not joined any more")
	}
}

func TestSamplesThatGrewTooOldAreDroppedCountedAndToldOnce(t *testing.T) {
	r := newReceiver(t)
	dir := t.TempDir()
	before := start(t, impatient("http://127.0.0.1:1/"), dir)
	for i, age := range []time.Duration{26 * time.Hour, 25 * time.Hour, time.Hour, 0} {
		if err := before.Append(time.Now().Add(-age), nil, gauge(float64(i))); err != nil {
			t.Fatal(err)
		}
	}
	before.stop()
	cfg := impatient(serve(t, r).URL)
	cfg.MaxAge = DefaultConfig().MaxAge
	after := start(t, cfg, dir)
	r.wait(2)
	after.stop()
	if got := r.values(); got != "2 3" || after.counter(t, metric.SampleDropped) != 2 {
		t.Errorf("values %s, %d dropped", got, after.counter(t, metric.SampleDropped))
	}
	if n := strings.Count(after.logs.String(), "older than receivers take"); n != 1 {
		t.Errorf("told %d times: %s", n, after.logs)
	}
}

// The page of one target has a time of its own; those of the others have none.
func TestOneOldSampleDoesNotMakeItsGroupOld(t *testing.T) {
	r := newReceiver(t)
	cfg := impatient(serve(t, r).URL)
	cfg.MaxAge = DefaultConfig().MaxAge
	run := start(t, cfg, t.TempDir())
	app := run.Sink(nil).AppenderV2(t.Context())
	for i, at := range []time.Time{time.Now(), time.Now().Add(-30 * time.Hour), time.Now()} {
		if _, err := app.Append(0, labels.FromStrings("__name__", "x"), 0, at.UnixMilli(), float64(i), nil, nil, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	r.wait(3)
	run.stop()
	if got := r.values(); got != "0 1 2" || run.counter(t, metric.SampleDropped) != 0 {
		t.Errorf("values %s", got)
	}
}

func TestCommitLargerThanTheQueueKeepsItsNewest(t *testing.T) {
	run := start(t, impatient("http://127.0.0.1:1/"), t.TempDir())
	run.queue.maxBytes = 256 << 10
	app := run.Sink(nil).AppenderV2(t.Context())
	const samples = 6 * samplesPerRequest
	for i := range samples {
		if _, err := app.Append(0, labels.FromStrings("__name__", "x", "i", fmt.Sprint(i)), 0, int64(i), float64(i), nil, nil, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	w := run.queue.waiting(run.sinks[0].reader)
	dropped := run.counter(t, metric.SampleDropped)
	sending := samples - w.samples - dropped // a batch that is being sent is neither
	if w.samples == 0 || dropped == 0 || sending != 0 && sending != samplesPerRequest || run.queue.records[len(run.queue.records)-1].time != samples-1 {
		t.Errorf("%d wait, %d are dropped of %d", w.samples, dropped, samples)
	}
}

func TestRefusedCredentialsLoseNothing(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(n int, _ http.Header) (int, map[string]string, string) {
		if n < 4 {
			return []int{401, 403, 404}[n-1], nil, "renew it"
		}
		return http.StatusNoContent, nil, ""
	}
	run := start(t, impatient(serve(t, r).URL), t.TempDir())
	run.put(t, 1, 2)
	r.wait(2)
	run.stop()
	if got := r.values(); got != "1 2" || run.counter(t, metric.SampleRejected) != 0 {
		t.Errorf("values %s", got)
	}
	if !strings.Contains(run.logs.String(), "mend the credentials or the address in metrics.send_to") {
		t.Errorf("log: %s", run.logs)
	}
}

func TestReceiverThatLearntVersion2GetsItAgain(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(n int, h http.Header) (int, map[string]string, string) {
		v1 := h.Get("X-Prometheus-Remote-Write-Version") == "0.1.0"
		switch {
		case n == 1: // a page in front of it, that knows nothing of samples
			return http.StatusOK, map[string]string{"X": "y"}, ""
		case v1:
			return http.StatusUnsupportedMediaType, nil, "2.0 alone"
		}
		return http.StatusNoContent, nil, ""
	}
	run := start(t, impatient(serve(t, r).URL), t.TempDir())
	run.put(t, 1)
	r.wait(2) // that of the page, too
	run.put(t, 2)
	r.wait(1)
	run.stop()
	if got := r.values(); got != "1 1 2" || run.counter(t, metric.SampleRejected) != 0 {
		t.Errorf("values %s, %d rejected", got, run.counter(t, metric.SampleRejected))
	}
}

func TestStaleMarkerOfAFailedTickComesWithTheNext(t *testing.T) {
	r := newReceiver(t)
	run := start(t, impatient(serve(t, r).URL), t.TempDir())
	fams := func(names ...string) (out []metric.Family) {
		for _, n := range names {
			out = append(out, metric.Family{Name: n, Type: metric.Gauge, Series: []metric.Series{{Value: 1}}})
		}
		return out
	}
	if err := run.Append(at(1), nil, fams("a", "b")); err != nil {
		t.Fatal(err)
	}
	r.wait(2)
	bound := run.queue.maxBytes
	run.queue.mu.Lock()
	run.queue.maxBytes = 1
	run.queue.mu.Unlock()
	if err := run.Append(at(2), nil, fams("a")); err == nil {
		t.Fatal("it was queued")
	}
	run.queue.mu.Lock()
	run.queue.maxBytes = bound
	run.queue.mu.Unlock()
	if err := run.Append(at(3), nil, fams("a")); err != nil {
		t.Fatal(err)
	}
	r.wait(2)
	run.stop()
	if last := r.samples[len(r.samples)-1]; last.labels != "__name__=b" || !stale.IsStaleNaN(last.value) {
		t.Errorf("the last sample is %+v", last)
	}
}

func TestHalvesOfARequestAreAllOfIt(t *testing.T) {
	e := newEncoder()
	for i := range 5 {
		if err := e.add(metric.Labels("__name__", fmt.Sprint("x", i)), value{t: int64(i), v: float64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	parts, ok, err := halves(e.take()[0])
	if err != nil || !ok || parts[0].samples != 2 || parts[1].samples != 3 {
		t.Fatalf("%v %v %v", parts, ok, err)
	}
	joined, err := merge(parts[:])
	if err != nil {
		t.Fatal(err)
	}
	for i, ts := range decoded(t, joined.request).Timeseries {
		if ts.Samples[0].Value != float64(i) {
			t.Errorf("sample %d is %v", i, ts.Samples[0])
		}
	}
	if _, ok, err := halves(batch{request: request(t, labels.FromStrings("__name__", "x"), value{})}); ok || err != nil {
		t.Errorf("one series was split: %v", err)
	}
}

func TestJoinedRequestThatIsTooLargeIsSentInParts(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(n int, _ http.Header) (int, map[string]string, string) {
		if n == 1 {
			return http.StatusRequestEntityTooLarge, nil, "too large"
		}
		return http.StatusNoContent, nil, ""
	}
	dir := t.TempDir()
	before := start(t, impatient("http://127.0.0.1:1/"), dir)
	before.put(t, 1, 2, 3)
	before.stop()
	after := startJoining(t, impatient(serve(t, r).URL), dir)
	r.wait(3)
	after.stop()
	if got := r.values(); got != "1 2 3" || after.counter(t, metric.SampleRejected) != 0 {
		t.Errorf("values %s, %d rejected", got, after.counter(t, metric.SampleRejected))
	}
}

func TestBatchThatIsTooLargeForTheReceiverIsSplit(t *testing.T) {
	r := newReceiver(t)
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		if len(r.decode(body, req.Header)) > 3 {
			http.Error(w, "at most three", http.StatusRequestEntityTooLarge)
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.ServeHTTP(w, req)
	}))
	run := startJoining(t, impatient(server.URL), t.TempDir())
	fam := metric.Family{Name: "x", Type: metric.Gauge}
	for i := range 9 {
		fam.Series = append(fam.Series, metric.Series{Labels: metric.Labels("i", fmt.Sprint(i)), Value: float64(i)})
	}
	if err := run.Append(at(1), nil, []metric.Family{fam}); err != nil {
		t.Fatal(err)
	}
	r.wait(9)
	run.stop()
	if got := r.values(); got != "0 1 2 3 4 5 6 7 8" || run.counter(t, metric.SampleRejected) != 0 {
		t.Errorf("values %s", got)
	}
}

func TestJoinedRequestsSayTheSame(t *testing.T) {
	one := batch{time: 61_000, samples: 1, request: request(t, labels.FromStrings("__name__", "took_seconds", "pod", "web"), rich)}
	two := batch{time: 5, samples: 1, request: request(t, labels.FromStrings("__name__", "x", "web", "pod"), value{t: 5, v: 7, meta: metadata.Metadata{Type: model.MetricTypeGauge, Help: "X."}})}
	joined, err := merge([]batch{one, two})
	if err != nil {
		t.Fatal(err)
	}
	if joined.time != 61_000 || joined.samples != 2 {
		t.Errorf("joined %d samples from %d", joined.samples, joined.time)
	}
	spelled := func(request []byte) (out []string) {
		req := decoded(t, request)
		b := labels.NewScratchBuilder(4)
		for _, ts := range req.Timeseries {
			ls, err := ts.ToLabels(&b, req.Symbols)
			md, err2 := ts.ToMetadata(req.Symbols)
			x := ""
			for _, e := range ts.Exemplars {
				ex, err := e.ToExemplar(&b, req.Symbols)
				if err != nil {
					t.Error(err)
				}
				x += fmt.Sprint(ex)
			}
			for _, h := range ts.Histograms {
				x += fmt.Sprint(h.ToIntHistogram(), h.Timestamp, h.StartTimestamp)
			}
			out = append(out, fmt.Sprint(ls, err, md, err2, x, ts.Samples))
		}
		return out
	}
	if got, want := spelled(joined.request), append(spelled(one.request), spelled(two.request)...); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzMerge(f *testing.F) {
	good := request(f, labels.FromStrings("__name__", "x"), rich)
	f.Add(good, good)
	f.Add(good, snappy.Encode(nil, []byte{0x2a, 0x04, 0x0a, 0x02, 0x7f, 0x7f}))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, data := range [][]byte{a, b} {
			if n, err := snappy.DecodedLen(data); err != nil || n > 1<<20 {
				return
			}
		}
		joined, err := merge([]batch{{request: a, samples: 1}, {request: b, samples: 2}})
		if err != nil {
			return
		}
		first, errA := unpack(a)
		second, errB := unpack(b)
		req, err := unpack(joined.request)
		if errA != nil || errB != nil || err != nil || len(req.Timeseries) != len(first.Timeseries)+len(second.Timeseries) || joined.samples != 3 {
			t.Errorf("%v %v %v", errA, errB, err)
		}
	})
}

func TestDestinationSendsItsCredentials(t *testing.T) {
	dir := t.TempDir()
	var file struct {
		SendTo []Destination `yaml:"send_to"`
	}
	r := newReceiver(t)
	var auth, org string
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		auth, org = req.Header.Get("Authorization"), req.Header.Get("X-Scope-Orgid")
		r.ServeHTTP(w, req)
	}))
	text := fmt.Sprintf("send_to:\n- url: %s\n  authorization: {credentials: sesame}\n  http_headers: {X-Scope-OrgID: {values: [shop]}}\n", server.URL)
	if err := strictyaml.Decode("agent.yaml", []byte(text), &file); err != nil {
		t.Fatal(err)
	}
	cfg := impatient()
	cfg.SendTo = file.SendTo
	run := startJoining(t, cfg, filepath.Join(dir, "q"))
	run.put(t, 1)
	r.wait(1)
	run.stop()
	if auth != "Bearer sesame" || org != "shop" {
		t.Errorf("authorization %q, tenant %q", auth, org)
	}
}

func TestMistakesInADestinationNameThePlace(t *testing.T) {
	for text, want := range map[string]string{
		"send_to:\n- url: http://h/w\n  pasword: x\n":                                             "agent.yaml:3:3: pasword is not a key of a destination",
		"send_to:\n- {url: http://h/w, basic_auth: {username: u, password: a, password_file: b}}": "agent.yaml:2:3: send_to[0]: at most one of basic_auth password",
	} {
		var file struct {
			SendTo []Destination `yaml:"send_to"`
		}
		err := strictyaml.Decode("agent.yaml", []byte(text), &file)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDiscardForgets(t *testing.T) {
	if err := puts(Discard{}, "x", 1); err != nil {
		t.Error(err)
	}
	if ref, err := (Discard{}).AppenderV2(t.Context()).Append(0, labels.EmptyLabels(), 0, 0, math.Pi, nil, nil, storage.AppendV2Options{}); err != nil || ref == 0 {
		t.Errorf("reference %d, %v", ref, err)
	}
}

// A tick of 5,000 series, as large nodes have them.
func BenchmarkAppend(b *testing.B) {
	f, err := New(DefaultConfig(), b.TempDir(), quiet, metrics.NewSet())
	if err != nil {
		b.Fatal(err)
	}
	fam := metric.Family{Name: "node_thing_total", Type: metric.Counter, Help: "Things."}
	for i := range 5000 {
		fam.Series = append(fam.Series, metric.Series{Labels: metric.Labels("device", fmt.Sprint(i), "mode", "user"), Value: float64(i), Start: 1})
	}
	extra := metric.Labels("cluster", "c", "node", "n", "job", "node-exporter", "instance", "n")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := f.Append(time.UnixMilli(int64(i)*15_000), extra, []metric.Family{fam}); err != nil {
			b.Fatal(err)
		}
	}
}
