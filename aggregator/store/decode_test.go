package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

var testLimits = DefaultLimits()

// generatedV1 and generatedV2 are the oracle: what the generated code makes of
// a body, in the words of describe.
func generatedV1(body []byte) ([]string, error) {
	var req prompb.WriteRequest
	if err := req.Unmarshal(body); err != nil {
		return nil, err
	}
	var out []string
	b := labels.NewScratchBuilder(8)
	for _, ts := range req.Timeseries {
		ls := ts.ToLabels(&b, nil).WithoutEmpty()
		if testLimits.checkLabels(ls) != nil {
			continue
		}
		for _, s := range ts.Samples {
			out = append(out, describe(Sample{Labels: ls, T: s.Timestamp, V: s.Value}))
		}
		for _, h := range ts.Histograms {
			s := Sample{Labels: ls, T: h.Timestamp}
			if h.IsFloatHistogram() {
				s.FH = h.ToFloatHistogram()
			} else {
				s.H = h.ToIntHistogram()
			}
			if checkHistogram(&s) == nil {
				out = append(out, describe(s))
			}
		}
	}
	return out, nil
}

func generatedV2(body []byte) ([]string, error) {
	var req writev2.Request
	if err := req.Unmarshal(body); err != nil {
		return nil, err
	}
	var out []string
	b := labels.NewScratchBuilder(8)
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil || testLimits.checkLabels(ls.WithoutEmpty()) != nil {
			continue
		}
		ls = ls.WithoutEmpty()
		start := func(st, t int64) int64 {
			if st < 0 || st > t {
				return 0
			}
			return st
		}
		for _, s := range ts.Samples {
			out = append(out, describe(Sample{Labels: ls, ST: start(s.StartTimestamp, s.Timestamp), T: s.Timestamp, V: s.Value}))
		}
		for _, h := range ts.Histograms {
			s := Sample{Labels: ls, ST: start(h.StartTimestamp, h.Timestamp), T: h.Timestamp}
			if h.IsFloatHistogram() {
				s.FH = h.ToFloatHistogram()
			} else {
				s.H = h.ToIntHistogram()
			}
			if checkHistogram(&s) == nil {
				out = append(out, describe(s))
			}
		}
	}
	return out, nil
}

func describe(s Sample) string {
	return fmt.Sprintf("%s %d %d %x %v %v", s.Labels, s.ST, s.T, math.Float64bits(s.V), s.H, s.FH)
}

// decode returns what the decoder appends, and its error.
func decode(db *DB, body []byte, second bool) ([]string, error) {
	app := db.Appender(context.Background())
	defer app.Rollback()
	app.limit = math.MaxInt64 // the clock is not the matter here
	d := db.decoder()
	var err error
	if second {
		_, err = d.v2(body, app)
	} else {
		err = d.v1(body, app)
	}
	var out []string
	for _, s := range app.batch {
		out = append(out, describe(s))
	}
	return out, err
}

func v1Full() *prompb.WriteRequest {
	ls := func(pairs ...string) (out []prompb.Label) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	return &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{Labels: ls("__name__", "a", "job", "x"), Samples: []prompb.Sample{{Timestamp: ms(0), Value: 4}, {Timestamp: ms(time.Second), Value: -0.5}}},
			{Labels: ls("__name__", "a", "job", "y"), Samples: []prompb.Sample{{}}},
			{Labels: ls("job", "x", "__name__", "unsorted"), Samples: []prompb.Sample{{Timestamp: -5, Value: math.NaN()}}},
			{Labels: ls("__name__", "a", "empty", "", "job", "x"), Samples: []prompb.Sample{{Timestamp: ms(0), Value: 9}}},
			{Labels: ls("job", "no name"), Samples: []prompb.Sample{{Timestamp: ms(0), Value: 9}}},
			{Labels: ls("__name__", "a", "__name__", "a"), Samples: []prompb.Sample{{Timestamp: ms(0), Value: 9}}},
			{Samples: []prompb.Sample{{Timestamp: ms(0), Value: 9}}},
			{Labels: ls("__name__", "none")},
			{Labels: ls("__name__", "h"), Histograms: []prompb.Histogram{prompb.FromIntHistogram(ms(0), testHistogram()), prompb.FromFloatHistogram(ms(1), testHistogram().ToFloat(nil))}},
			{Labels: ls("__name__", "e"), Samples: []prompb.Sample{{Timestamp: ms(0), Value: 9}},
				Exemplars: []prompb.Exemplar{{Labels: ls("trace_id", "t"), Timestamp: ms(0)}}},
		},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a"}},
	}
}

// oddBodies are good ones as no common sender writes them.
func oddBodies(t testing.TB) (v1 [][]byte) {
	t.Helper()
	full := v1Full().Timeseries[0]
	first, err := (&prompb.TimeSeries{Labels: full.Labels[:1], Samples: full.Samples[:1]}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	second, err := (&prompb.TimeSeries{Labels: full.Labels[1:], Samples: full.Samples[1:]}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(parts ...[]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		return append([]byte{1<<3 | 2, byte(len(all))}, all...)
	}
	unknown := []byte{15 << 3, 7} // a field of a later version
	return [][]byte{
		wrap(first, second),          // labels, samples, labels, samples
		wrap(first, unknown),         //
		append(wrap(first), 9<<3, 1), //
		wrap(first, []byte{2<<3 | 2, 11, 3 << 3, 5, 1<<3 | 1, 0, 0, 0, 0, 0, 0, 0, 0}), // field 3 of a 1.0 sample says nothing
	}
}

// Guards the decoder against telling known series apart wrongly: a body must
// mean the same whether its series are new or known, and what the generated
// code makes of it.
func TestDecoderReadsWhatTheGeneratedCodeReads(t *testing.T) {
	v1, err := v1Full().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	v2, err := v2Full().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	db := openTest(t)
	for _, body := range append(oddBodies(t), v1) {
		checkDecoder(t, db, body, false)
	}
	checkDecoder(t, db, v2, true)
	// The same numbers for symbols stand for other series in another request.
	syms := writev2.NewSymbolTable()
	other := &writev2.Request{Timeseries: []writev2.TimeSeries{
		{LabelsRefs: syms.SymbolizeLabels(series("another", "place", "x"), nil), Samples: []writev2.Sample{{Timestamp: ms(0), Value: 7}}}}}
	other.Symbols = syms.Symbols()
	body, err := other.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	checkDecoder(t, db, body, true)
}

// Labels that read the same in a row are told apart by their lengths.
func TestSeriesWhoseLabelsReadTheSameInARowAreToldApart(t *testing.T) {
	db := openTest(t)
	for _, ls := range []labels.Labels{series("m", "ab", "c"), series("m", "a", "bc")} {
		syms := writev2.NewSymbolTable()
		req := &writev2.Request{Timeseries: []writev2.TimeSeries{
			{LabelsRefs: syms.SymbolizeLabels(ls, nil), Samples: []writev2.Sample{{Timestamp: ms(0), Value: 7}}}}}
		req.Symbols = syms.Symbols()
		body, err := req.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		checkDecoder(t, db, body, true)
	}
}

func TestNewMetadataOfAKnownSeriesIsKept(t *testing.T) {
	db := openTest(t)
	for i, help := range []string{"Old.", "New."} {
		syms := writev2.NewSymbolTable()
		req := &writev2.Request{Timeseries: []writev2.TimeSeries{{
			LabelsRefs: syms.SymbolizeLabels(series("m"), nil), Samples: []writev2.Sample{{Timestamp: ms(time.Duration(i) * time.Second)}},
			Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: syms.Symbolize(help)}}}}
		req.Symbols = syms.Symbols()
		rec := httptest.NewRecorder()
		db.Receiver().ServeHTTP(rec, v2HTTP(t, req))
		if rec.Code != 204 {
			t.Fatal(rec.Code, rec.Body)
		}
	}
	if got := db.meta.byName["m"]; len(got) != 2 || got[1].Help != "New." || got[1].Type != "counter" {
		t.Errorf("metadata is %+v", got)
	}
}

func checkDecoder(t *testing.T, db *DB, body []byte, second bool) {
	t.Helper()
	oracle := generatedV1
	if second {
		oracle = generatedV2
	}
	want, wantErr := oracle(body)
	for _, state := range []string{"new", "known", "known again"} {
		got, err := decode(db, body, second)
		if err != nil {
			// It is stricter with numbers that have more than 64 bits.
			if wantErr == nil && !errors.Is(err, errWire) {
				t.Errorf("%s series: %v", state, err)
			}
			continue
		}
		if wantErr != nil {
			t.Errorf("%s series: taken, though the generated code says %v", state, wantErr)
		}
		if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
			t.Errorf("%s series: got\n%s\nwant\n%s", state, a, b)
		}
	}
}

func FuzzDecoderAgreesWithTheGeneratedCode(f *testing.F) {
	v1, err := v1Full().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	v2, err := v2Full().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	for _, body := range append(oddBodies(f), v1) {
		f.Add(body, false)
	}
	f.Add(v2, true)
	db := openTest(f)
	f.Fuzz(func(t *testing.T, body []byte, second bool) { checkDecoder(t, db, body, second) })
}

// An exemplar was once given to whatever series came before.
func TestExemplarOfARefusedSampleIsNotGivenToAnotherSeries(t *testing.T) {
	db := openTest(t)
	req := v1Request(Sample{T: ms(0), V: 1}, Sample{T: ms(time.Hour), V: 2})
	req.Timeseries[1].Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "t"}}, Timestamp: ms(0)}}
	db.Receiver().ServeHTTP(httptest.NewRecorder(), v1HTTP(t, req))
	q, err := db.tsdb.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Select(ms(-time.Hour), ms(time.Hour), []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")})
	if err != nil || len(found) != 0 {
		t.Errorf("found %v, %v", found, err)
	}
}

// Hook order is part of the contract: samples come as the sender wrote them.
func TestHookSeesTheSamplesOfARequestInTheOrderSent(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("known=%v", known), func(t *testing.T) {
			db := openTest(t)
			var got []string
			db.SetHook(func(b []Sample) {
				for _, s := range b {
					got = append(got, fmt.Sprintf("%s@%d", s.Labels.Get("n"), (s.T-ms(0))/1000))
				}
			})
			send := func(from time.Duration) {
				req := &prompb.WriteRequest{}
				for _, n := range []string{"b", "a"} { // series by series, as a backlog comes
					ts := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "n", Value: n}}}
					for i := range 3 {
						ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: ms(from + time.Duration(i)*time.Second)})
					}
					req.Timeseries = append(req.Timeseries, ts)
				}
				rec := httptest.NewRecorder()
				db.Receiver().ServeHTTP(rec, v1HTTP(t, req))
				if rec.Code != 204 {
					t.Fatal(rec.Code, rec.Body)
				}
			}
			if known {
				send(-time.Minute)
				got = nil
			}
			send(0)
			if s := strings.Join(got, " "); s != "b@0 b@1 b@2 a@0 a@1 a@2" {
				t.Errorf("the hook saw %s", s)
			}
		})
	}
}
