package store

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// customHistogram has buckets of its own bounds, as classic histograms have.
func customHistogram() *histogram.Histogram {
	return &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 8.5, CustomValues: []float64{0.1, 1, 5},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}}, PositiveBuckets: []int64{1, 1, 1}}
}

// fractions makes a histogram one of floats that are no integers.
func fractions(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	h.Count += 0.75
	h.PositiveBuckets[0] += 0.75
	return h
}

// message is one series as both versions of remote write can carry it.
type message struct {
	labels     []string // name and value in turn, in the sender's order
	samples    []Sample
	histograms []Sample
	exemplars  []string // trace IDs, at ms(0)
}

func (m message) v1() prompb.TimeSeries {
	var ts prompb.TimeSeries
	for pair := range slices.Chunk(m.labels, 2) {
		ts.Labels = append(ts.Labels, prompb.Label{Name: pair[0], Value: pair[1]})
	}
	for _, s := range m.samples {
		ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: s.T, Value: s.V})
	}
	for _, s := range m.histograms {
		if s.FH != nil {
			ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(s.T, s.FH))
		} else {
			ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(s.T, s.H))
		}
	}
	for _, e := range m.exemplars {
		ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: []prompb.Label{{Name: "trace_id", Value: e}}, Timestamp: ms(0), Value: 1})
	}
	return ts
}

func (m message) v2(syms *writev2.SymbolsTable) writev2.TimeSeries {
	var ts writev2.TimeSeries
	for _, text := range m.labels {
		ts.LabelsRefs = append(ts.LabelsRefs, syms.Symbolize(text))
	}
	for _, s := range m.samples {
		ts.Samples = append(ts.Samples, writev2.Sample{StartTimestamp: s.ST, Timestamp: s.T, Value: s.V})
	}
	for _, s := range m.histograms {
		if s.FH != nil {
			ts.Histograms = append(ts.Histograms, writev2.FromFloatHistogram(s.ST, s.T, s.FH))
		} else {
			ts.Histograms = append(ts.Histograms, writev2.FromIntHistogram(s.ST, s.T, s.H))
		}
	}
	for _, e := range m.exemplars {
		ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: []uint32{syms.Symbolize("trace_id"), syms.Symbolize(e)}, Timestamp: ms(0), Value: 1})
	}
	return ts
}

// request writes the messages in a version of remote write.
func request(t *testing.T, version int, all ...message) *http.Request {
	t.Helper()
	if version == 1 {
		req := &prompb.WriteRequest{}
		for _, m := range all {
			req.Timeseries = append(req.Timeseries, m.v1())
		}
		return v1HTTP(t, req)
	}
	syms := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for _, m := range all {
		req.Timeseries = append(req.Timeseries, m.v2(&syms))
	}
	req.Symbols = syms.Symbols()
	return v2HTTP(t, req)
}

// versions runs a test by 1.0 and by 2.0.
func versions(t *testing.T, run func(t *testing.T, db *DB, version int)) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("%d.0", version), func(t *testing.T) { run(t, openTest(t), version) })
	}
}

func TestHistogramsOfAllKindsComeBackAsTheyWereSent(t *testing.T) {
	negative := &histogram.Histogram{Schema: 2, Count: 9, ZeroCount: 2, ZeroThreshold: 0.01, Sum: -3,
		PositiveSpans: []histogram.Span{{Offset: -3, Length: 1}, {Offset: 4, Length: 2}}, PositiveBuckets: []int64{2, -1, 1},
		NegativeSpans: []histogram.Span{{Offset: 1, Length: 1}}, NegativeBuckets: []int64{2}}
	gauge := testHistogram()
	gauge.CounterResetHint = histogram.GaugeType
	stale := &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	all := map[string]Sample{
		"int":          {H: testHistogram()},
		"negative":     {H: negative},
		"gauge":        {H: gauge},
		"custom":       {H: customHistogram()},
		"stale":        {H: stale},
		"float":        {FH: fractions(testHistogram().ToFloat(nil))},
		"float_custom": {FH: fractions(customHistogram().ToFloat(nil))},
		"float_stale":  {FH: stale.ToFloat(nil)},
	}
	versions(t, func(t *testing.T, db *DB, version int) {
		var hooked []string
		db.SetHook(func(batch []Sample) {
			for _, s := range batch {
				hooked = append(hooked, s.Labels.Get("__name__"))
			}
		})
		for name, s := range all {
			s.T, s.ST = ms(0), ms(-time.Minute)
			wantAnswered(t, db, request(t, version, message{labels: []string{"__name__", name}, histograms: []Sample{s}}), 204, 0, 1, 0, version)
			got := read(t, db, name)
			if len(got) != 1 || got[0].T != ms(0) {
				t.Errorf("%s: read %+v", name, got)
				continue
			}
			if version == 2 && got[0].ST != ms(-time.Minute) {
				t.Errorf("%s: start timestamp is %d", name, got[0].ST)
			}
			// What was counted before is not known, which the hint then says.
			if h := got[0].H; h != nil && h.CounterResetHint == histogram.UnknownCounterReset && s.H != nil {
				h.CounterResetHint = s.H.CounterResetHint
			}
			if s.H != nil && (got[0].H == nil || !s.H.Equals(got[0].H) || s.H.CounterResetHint != got[0].H.CounterResetHint) {
				t.Errorf("%s: read %v, sent %v", name, got[0].H, s.H)
			}
			if s.FH != nil && (got[0].FH == nil || !s.FH.Equals(got[0].FH)) {
				t.Errorf("%s: read %v, sent %v", name, got[0].FH, s.FH)
			}
		}
		if len(hooked) != len(all) {
			t.Errorf("the hook saw %q", hooked)
		}
	})
}

func TestStaleMarkersArriveBitByBit(t *testing.T) {
	marker := math.Float64frombits(value.StaleNaN)
	versions(t, func(t *testing.T, db *DB, version int) {
		var hooked []uint64
		db.SetHook(func(batch []Sample) {
			for _, s := range batch {
				hooked = append(hooked, math.Float64bits(s.V))
			}
		})
		m := message{labels: []string{"__name__", "m"}, samples: []Sample{{T: ms(-time.Second), V: 1}, {T: ms(0), V: marker}, {T: ms(time.Second), V: math.NaN()}}}
		wantAnswered(t, db, request(t, version, m), 204, 3, 0, 0, version)
		m.samples = []Sample{{T: ms(2 * time.Second), V: marker}} // of a series that is known now
		wantAnswered(t, db, request(t, version, m), 204, 1, 0, 0, version)
		if len(hooked) != 4 || hooked[1] != value.StaleNaN || value.IsStaleNaN(math.Float64frombits(hooked[2])) || hooked[3] != value.StaleNaN {
			t.Errorf("the hook saw %x", hooked)
		}
		got := read(t, db, "m")
		if len(got) != 4 || !value.IsStaleNaN(got[1].V) || value.IsStaleNaN(got[2].V) || !value.IsStaleNaN(got[3].V) {
			t.Errorf("read %+v", got)
		}
	})
}

func TestLabelsInAnyOrderAndEmptyOnesAreOneSeries(t *testing.T) {
	versions(t, func(t *testing.T, db *DB, version int) {
		for i, ls := range [][]string{
			{"__name__", "m", "job", "j", "pod", "p"},
			{"pod", "p", "job", "j", "__name__", "m"},
			{"__name__", "m", "empty", "", "job", "j", "pod", "p"},
			{"", "", "__name__", "m", "job", "j", "pod", "p"},
		} {
			for round := range 2 { // as a new and as a known series
				at := ms(time.Duration(10*i+round) * time.Second)
				wantAnswered(t, db, request(t, version, message{labels: ls, samples: []Sample{{T: at, V: 1}}}), 204, 1, 0, 0, version)
			}
		}
		if n := db.Series(); n != 1 {
			t.Errorf("they are %d series, want 1", n)
		}
		if got := brief(read(t, db, "m")); got != "1@0 1@1 1@10 1@11 1@20 1@21 1@30 1@31" {
			t.Errorf("stored %q", got)
		}
	})
}

// An exact repetition is no contradiction, whether it comes in another request
// or in the same, as it does from what merges two senders. It was refused in
// the same, and the source was then taken for one that lacks samples.
func TestR04_ExactRepetitionWithinARequestIsNotRefused(t *testing.T) {
	versions(t, func(t *testing.T, db *DB, version int) {
		got := calls(db)
		m := message{labels: []string{"__name__", "m", "job", "j"}, samples: []Sample{{T: ms(0), V: 1}, {T: ms(time.Second), V: math.NaN()}}}
		h := message{labels: []string{"__name__", "h", "job", "j"}, histograms: []Sample{{T: ms(0), H: testHistogram()}, {T: ms(time.Second), FH: customHistogram().ToFloat(nil)}}}
		wantAnswered(t, db, request(t, version, m, m, h, h), 204, 4, 4, 0, version)
		wantCalls(t, got, "hook 8")
		wantAnswered(t, db, request(t, version, m, h), 204, 2, 2, 0, version)
		wantCalls(t, got, "hook 4")
		if a, b := len(read(t, db, "m")), len(read(t, db, "h")); a != 2 || b != 2 {
			t.Errorf("%d samples and %d histograms are stored, want 2 and 2", a, b)
		}

		other := message{labels: m.labels, samples: []Sample{{T: ms(2 * time.Second), V: 1}, {T: ms(2 * time.Second), V: 2}, {T: ms(2 * time.Second), V: 1}}}
		wantAnswered(t, db, request(t, version, other), 400, 2, 0, 0, version)
		wantCalls(t, got, "j// duplicate 2..2 x1", "hook 2")
		two := message{labels: h.labels, histograms: []Sample{{T: ms(2 * time.Second), H: testHistogram()}, {T: ms(2 * time.Second), H: customHistogram()},
			{T: ms(3 * time.Second), FH: testHistogram().ToFloat(nil)}, {T: ms(3 * time.Second), FH: fractions(testHistogram().ToFloat(nil))}}}
		wantAnswered(t, db, request(t, version, two), 400, 0, 2, 0, version)
		wantCalls(t, got, "j// duplicate 2..3 x2", "hook 2")
		mixed := message{labels: []string{"__name__", "x", "job", "j"}, samples: []Sample{{T: ms(0), V: 1}}, histograms: []Sample{{T: ms(0), H: testHistogram()}}}
		wantAnswered(t, db, request(t, version, mixed), 400, 1, 0, 0, version)
		wantCalls(t, got, "j// duplicate 0..0 x1", "hook 1")
	})
}

// Prometheus sends each exemplar in a message of its own, without a sample. By
// 1.0 they were dropped in silence, by 2.0 the request was answered with 400.
func TestExemplarsWithoutASampleGoToTheirSeries(t *testing.T) {
	counter, hist := []string{"__name__", "m", "job", "j"}, []string{"__name__", "h"}
	versions(t, func(t *testing.T, db *DB, version int) {
		wantAnswered(t, db, request(t, version, message{labels: []string{"__name__", "early"}, exemplars: []string{"none"}}), 204, 0, 0, 0, version)
		if at, ok := db.MinTime(); ok {
			t.Errorf("an exemplar without a series made the store begin at %s", at)
		}
		wantAnswered(t, db, request(t, version,
			message{labels: counter, exemplars: []string{"before"}},
			message{labels: counter, samples: []Sample{{T: ms(0), V: 1}}},
			message{labels: hist, histograms: []Sample{{T: ms(0), H: testHistogram()}}},
			message{labels: hist, exemplars: []string{"h1"}},
			message{labels: []string{"__name__", "unknown"}, exemplars: []string{"none"}},
			message{labels: []string{"job", "no name"}, exemplars: []string{"none"}},
		), 204, 1, 1, 2, version)
		if a, b := exemplarsOf(t, db, "m"), exemplarsOf(t, db, "h"); a != "before@0" || b != "h1@0" {
			t.Errorf("stored %q and %q", a, b)
		}
		// Alone in a request, of a series that is known.
		later := request(t, version, message{labels: counter, exemplars: []string{"again"}})
		wantAnswered(t, db, later, 204, 0, 0, 1, version)
		if a := exemplarsOf(t, db, "m"); a != "before@0 again@0" {
			t.Errorf("stored %q", a)
		}
		if n := db.Series(); n != 2 {
			t.Errorf("%d series, want 2: an exemplar makes none", n)
		}
	})
}

func TestExemplarsBesideHistogramsAreStored(t *testing.T) {
	versions(t, func(t *testing.T, db *DB, version int) {
		m := message{labels: []string{"__name__", "h"}, histograms: []Sample{{T: ms(0), FH: customHistogram().ToFloat(nil)}}, exemplars: []string{"t1"}}
		wantAnswered(t, db, request(t, version, m), 204, 0, 1, 1, version)
		if got := exemplarsOf(t, db, "h"); got != "t1@0" {
			t.Errorf("stored %q", got)
		}
	})
}

func TestAnswerTellsHowManyOfEachKindWereWritten(t *testing.T) {
	versions(t, func(t *testing.T, db *DB, version int) {
		broken := testHistogram()
		broken.Count = 99
		all := []message{
			{labels: []string{"__name__", "a"}, samples: []Sample{{T: ms(0), V: 1}, {T: ms(time.Second), V: 1}, {T: ms(time.Hour), V: 1}}, exemplars: []string{"t1"}},
			{labels: []string{"__name__", "late"}, samples: []Sample{{T: ms(-48 * time.Hour), V: 1}}, exemplars: []string{"of none"}},
			{labels: []string{"__name__", "h"}, histograms: []Sample{{T: ms(0), H: testHistogram()}, {T: ms(time.Second), H: broken}, {T: ms(2 * time.Hour), FH: testHistogram().ToFloat(nil)}}},
			{labels: []string{"job", "no name"}, histograms: []Sample{{T: ms(0), H: testHistogram()}}, exemplars: []string{"of none"}},
		}
		rec := wantAnswered(t, db, request(t, version, all...), 400, 2, 1, 1, version)
		if !strings.Contains(rec, "5 of 8 samples refused, the rest is stored") {
			t.Errorf("answered %s", rec)
		}
	})
}

func TestWhatIsNotSnappyOrOfAnotherVersionIsAskedForInAnotherWay(t *testing.T) {
	body, err := v1Request(Sample{T: ms(0), V: 1}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := z.EncodeAll(body, nil)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	const one, two = "application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	db := openTest(t)
	got := calls(db)
	for name, tc := range map[string]struct {
		body           []byte
		kind, encoding string
		want           int
	}{
		"zstd, as vmagent begins":        {packed, one, "zstd", 415},
		"zstd of 2.0":                    {packed, two, "zstd", 415},
		"gzip":                           {packed, one, "gzip", 415},
		"several encodings":              {packed, one, "snappy, gzip", 415},
		"an unknown message":             {snappy.Encode(nil, body), "application/x-protobuf;proto=io.prometheus.write.v9.Request", "snappy", 415},
		"text":                           {[]byte("m 1\n"), "text/plain", "", 415},
		"zstd that calls itself snappy":  {packed, one, "snappy", 400},
		"1.0":                            {snappy.Encode(nil, body), one, "snappy", 204},
		"1.0, its name told":             {snappy.Encode(nil, body), one + ";proto=prometheus.WriteRequest", "snappy", 204},
		"1.0, the encoding left unsaid":  {snappy.Encode(nil, body), one, "", 204},
		"1.0, the type left unsaid":      {snappy.Encode(nil, body), "", "snappy", 204},
		"2.0 with nothing in it that is": {snappy.Encode(nil, nil), two, "snappy", 204},
	} {
		*got = nil
		r := httpWrite(tc.body, tc.kind)
		r.Header.Del("Content-Encoding")
		if tc.encoding != "" {
			r.Header.Set("Content-Encoding", tc.encoding)
		}
		if tc.kind == "" {
			r.Header.Del("Content-Type")
		}
		if rec := answered(db, r); rec.Code != tc.want {
			t.Errorf("%s: answered %d, want %d: %s", name, rec.Code, tc.want, rec.Body)
		}
		// Whoever is asked for another form sends the same samples again.
		if tc.want == 415 && len(*got) > 0 {
			t.Errorf("%s: told %q", name, *got)
		}
	}
}

// wantAnswered sends and compares the code and, of 2.0, the counts in the
// headers. It returns the text of the answer.
func wantAnswered(t *testing.T, db *DB, r *http.Request, code, samples, histograms, exemplars, version int) string {
	t.Helper()
	rec := answered(db, r)
	if rec.Code != code {
		t.Errorf("answered %d, want %d: %s", rec.Code, code, rec.Body)
	}
	if version == 2 {
		for name, want := range map[string]int{"Samples": samples, "Histograms": histograms, "Exemplars": exemplars} {
			if got := rec.Header().Get("X-Prometheus-Remote-Write-" + name + "-Written"); got != fmt.Sprint(want) {
				t.Errorf("told %q %s written, want %d", got, strings.ToLower(name), want)
			}
		}
	}
	return rec.Body.String()
}
