package store

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// calls records both hooks in words.
func calls(db *DB) *[]string {
	var got []string
	db.SetRefusedHook(func(rs []RefusedSource) {
		for _, r := range rs {
			source := r.Job + "/" + r.Instance + "/" + r.Cluster
			if r.Any {
				source = "any"
			}
			first := "ever"
			if r.First != math.MinInt64 {
				first = strconv.Itoa(int((r.First - ms(0)) / 1000))
			}
			got = append(got, fmt.Sprintf("%s %s %s..%d x%d", source, r.Reason, first, (r.Last-ms(0))/1000, r.Samples))
		}
	})
	db.SetHook(func(b []Sample) { got = append(got, fmt.Sprintf("hook %d", len(b))) })
	return &got
}

func wantCalls(t *testing.T, got *[]string, want ...string) {
	t.Helper()
	if !slices.Equal(*got, want) {
		t.Errorf("called\n%s\nwant\n%s", strings.Join(*got, "\n"), strings.Join(want, "\n"))
	}
	*got = nil
}

func TestR06_RefusedSourcesAreToldBeforeWhatWasAcceptedOfTheSameBatch(t *testing.T) {
	db := openTest(t)
	got := calls(db)
	app := db.Appender(t.Context())
	one := series("m", "job", "api", "instance", "i1", "cluster", "c")
	_ = app.Append(one, 0, ms(0), 1)
	_ = app.Append(one, 0, ms(0), 2)         // by the database
	_ = app.Append(one, 0, ms(time.Hour), 2) // before it
	_ = app.Append(one, 0, ms(2*time.Hour), 2)
	_ = app.Append(series("m", "job", "api", "instance", "i2"), 0, ms(time.Hour), 2)
	_ = app.Append(series("", "job", "api", "instance", "i3"), 0, ms(-time.Second), 2)
	var refused *RefusedError
	if err := app.Commit(); !errors.As(err, &refused) {
		t.Fatal(err)
	}
	wantCalls(t, got,
		"api/i1/c future 3600..7200 x2",
		"api/i2/ future 3600..3600 x1",
		"api/i3/ invalid_labels -1..-1 x1",
		"api/i1/c duplicate 0..0 x1",
		"hook 1")
}

func TestR06_BatchOfWhichNothingIsAcceptedIsToldInTurn(t *testing.T) {
	db := openTest(t)
	got := calls(db)
	for _, at := range []time.Duration{0, time.Hour, time.Second} {
		_ = put(t, db, series("m", "job", "a"), Sample{T: ms(at)})
	}
	wantCalls(t, got, "hook 1", "a// future 3600..3600 x1", "hook 1")
}

func TestR06_FailedBatchIsNotToldBecauseItsSenderRepeatsIt(t *testing.T) {
	db := openTest(t)
	got := calls(db)
	db.syncer = &fakeSync{db.syncer, func() error { return syscall.EIO }}
	if err := put(t, db, series("m", "job", "a"), Sample{T: ms(0)}, Sample{T: ms(time.Hour)}); err == nil {
		t.Fatal("no error")
	}
	wantCalls(t, got)
}

func TestR06_MillionsOfRefusalsCostOneEntryASource(t *testing.T) {
	db := openTest(t)
	got := calls(db)
	app := db.Appender(t.Context())
	for i := range 20_000 {
		_ = app.Append(series("m", "job", "a", "n", strconv.Itoa(i)), 0, ms(time.Hour), 1)
	}
	_ = app.Commit()
	wantCalls(t, got, "a// future 3600..3600 x20000")

	app = db.Appender(t.Context())
	for i := range maxRefusedSources + 500 {
		_ = app.Append(series("m", "instance", strconv.Itoa(i)), 0, ms(time.Hour), 1)
	}
	_ = app.Commit()
	if n := len(*got); n != maxRefusedSources+1 {
		t.Errorf("%d entries, want %d", n, maxRefusedSources+1)
	}
	if last := (*got)[len(*got)-1]; last != "any future 3600..3600 x500" {
		t.Errorf("the last is %q", last)
	}
}

func TestR06_RequestsThatAreLostWholeMayBeOfAnySource(t *testing.T) {
	db := openTest(t, func(c *Config) { c.MaxBody, c.MaxDecodedBody = 2000, 4000 })
	got := calls(db)
	const whole = "any unreadable ever..0 x0"
	syms := writev2.NewSymbolTable()
	unknownSymbol := &writev2.Request{Timeseries: []writev2.TimeSeries{
		{LabelsRefs: syms.SymbolizeLabels(series("m"), nil), Samples: []writev2.Sample{{Timestamp: ms(0)}}},
		{LabelsRefs: []uint32{900, 901}, Samples: []writev2.Sample{{Timestamp: ms(-time.Second)}, {Timestamp: ms(0)}}}}, Symbols: syms.Symbols()}
	cut, err := v1Request(Sample{T: ms(0)}, Sample{T: ms(0)}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	proto := "application/x-protobuf"
	for _, tc := range []struct {
		name string
		r    *http.Request
		want []string
	}{
		{"too large", httpWrite(make([]byte, 2001), proto), []string{whole}},
		{"too large decoded", httpWrite(snappy.Encode(nil, make([]byte, 4001)), proto), []string{whole}},
		{"not snappy", httpWrite([]byte("\xff\xff\xff\xff\xff\xff\xff hello"), proto), []string{whole}},
		{"cut", httpWrite(snappy.Encode(nil, cut[:len(cut)-3]), proto), []string{whole}},
		{"one series unreadable", v2HTTP(t, unknownSymbol), []string{"any invalid_labels -1..0 x2", "hook 1"}},
		{"another content type", httpWrite(snappy.Encode(nil, nil), "application/json"), nil},
		{"another encoding", func() *http.Request {
			r := httpWrite(nil, proto)
			r.Header.Set("Content-Encoding", "gzip")
			return r
		}(), nil},
	} {
		rec := httptest.NewRecorder()
		db.Receiver().ServeHTTP(rec, tc.r)
		if rec.Code/100 != 4 {
			t.Errorf("%s: answered %d", tc.name, rec.Code)
		}
		t.Run(tc.name, func(t *testing.T) { wantCalls(t, got, tc.want...) })
	}
	db.free = func() (uint64, error) { return 0, nil }
	rec := httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, v1HTTP(t, &prompb.WriteRequest{Timeseries: v1Request(Sample{T: ms(time.Hour)}).Timeseries}))
	if rec.Code != 503 {
		t.Errorf("on a full disk: answered %d", rec.Code)
	}
	wantCalls(t, got)
}
