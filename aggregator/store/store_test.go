package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"go.uber.org/goleak"

	"nines/pkg/ops"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("NINES_STORE_CHILD"); mode != "" {
		os.Exit(child(mode))
	}
	goleak.VerifyTestMain(m)
}

// base is the clock of most tests: the start of a minute in 2026.
var base = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func ms(offset time.Duration) int64 { return base.Add(offset).UnixMilli() }

func testConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.Dir = dir
	cfg.Now = func() time.Time { return base }
	return cfg
}

func openTest(t testing.TB, change ...func(*Config)) *DB {
	t.Helper()
	cfg := testConfig(filepath.Join(t.TempDir(), "metrics"))
	for _, c := range change {
		c(&cfg)
	}
	db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func series(name string, pairs ...string) labels.Labels {
	return labels.FromStrings(append([]string{model.MetricNameLabel, name}, pairs...)...)
}

// put commits float samples of one series.
func put(t testing.TB, db *DB, ls labels.Labels, samples ...Sample) error {
	t.Helper()
	app := db.Appender(t.Context())
	for _, s := range samples {
		s.Labels = ls
		if err := app.add(s); err != nil {
			var r *Refusal
			if !errors.As(err, &r) {
				t.Fatal(err)
			}
		}
	}
	return app.Commit()
}

// read returns all samples of the series with the name, in order.
func read(t testing.TB, db *DB, name string) []Sample {
	t.Helper()
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	var out []Sample
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name))
	for set.Next() {
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			s := Sample{ST: it.AtST()}
			switch typ {
			case chunkenc.ValFloat:
				s.T, s.V = it.At()
			case chunkenc.ValHistogram:
				s.T, s.H = it.AtHistogram(nil)
			case chunkenc.ValFloatHistogram:
				s.T, s.FH = it.AtFloatHistogram(nil)
			}
			out = append(out, s)
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func brief(ss []Sample) string {
	var b strings.Builder
	for _, s := range ss {
		fmt.Fprintf(&b, "%d@%d", int64(s.V), (s.T-base.UnixMilli())/1000)
		if s.ST != 0 {
			fmt.Fprintf(&b, "/%d", (s.ST-base.UnixMilli())/1000)
		}
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}

// copyDir takes what a kill -9 at this moment would leave.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestBatchIsReadBackAndHookedOnce(t *testing.T) {
	db := openTest(t)
	var hooked []Sample
	db.SetHook(func(b []Sample) { hooked = append(hooked, b...) })
	if err := put(t, db, series("a", "job", "x"), Sample{T: ms(-15 * time.Second), V: 1}, Sample{T: ms(0), V: 2}); err != nil {
		t.Fatal(err)
	}
	if got, want := brief(read(t, db, "a")), "1@-15 2@0"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	if got, want := brief(hooked), "1@-15 2@0"; got != want {
		t.Errorf("hook saw %q, want %q", got, want)
	}
	if hooked[0].Ref == 0 || hooked[0].Ref != hooked[1].Ref {
		t.Errorf("references %d and %d, want one and the same", hooked[0].Ref, hooked[1].Ref)
	}
	if got := hooked[0].Labels.String(); got != `{__name__="a", job="x"}` {
		t.Errorf("hook saw labels %s", got)
	}
	first, ok := db.MinTime()
	if !ok || !first.Equal(base.Add(-15*time.Second)) {
		t.Errorf("oldest sample at %s, %v", first, ok)
	}
	last, ok := db.MaxTime()
	if !ok || !last.Equal(base) {
		t.Errorf("newest sample at %s, %v", last, ok)
	}
}

func TestEmptyStoreHasNoTimes(t *testing.T) {
	db := openTest(t)
	if _, ok := db.MinTime(); ok {
		t.Error("an empty store has an oldest sample")
	}
	if _, ok := db.MaxTime(); ok {
		t.Error("an empty store has a newest sample")
	}
}

func TestR02_SamplesAheadOfTheClockAreRefusedBeforeTheStoreSeesThem(t *testing.T) {
	db := openTest(t)
	var hooked []Sample
	db.SetHook(func(b []Sample) { hooked = append(hooked, b...) })
	err := put(t, db, series("ahead"),
		Sample{T: ms(0), V: 1},
		Sample{T: ms(90 * time.Second), V: 2},
		Sample{T: ms(90*time.Second + time.Millisecond), V: 3},
		Sample{T: ms(24 * time.Hour), V: 4})
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	if refused.Stored != 2 || refused.Counts[Future] != 2 {
		t.Errorf("%d stored and %d refused, want 2 and 2", refused.Stored, refused.Counts[Future])
	}
	for _, want := range []string{"2 of 4 samples refused", `{__name__="ahead"} at 2026-11-23T08:01:30.001Z`, "ahead of the receiver's clock", "set the sender's clock"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("message lacks %q:\n%v", want, err)
		}
	}
	if got := brief(read(t, db, "ahead")); got != "1@0 2@90" {
		t.Errorf("stored %q", got)
	}
	if got := brief(hooked); got != "1@0 2@90" {
		t.Errorf("hook saw %q", got)
	}
	if got := testutil.ToFloat64(db.metrics.samples.WithLabelValues("future")); got != 2 {
		t.Errorf("counted %v as future, want 2", got)
	}
	// The case of the rule: the others are not shut out.
	if err := put(t, db, series("other"), Sample{T: ms(-time.Hour), V: 1}); err != nil {
		t.Errorf("another series an hour behind: %v", err)
	}
}

// The table of what the database does with late and repeated samples.
func TestLateAndRepeatedSamples(t *testing.T) {
	const window = 24 * time.Hour
	for _, tc := range []struct {
		name   string
		window time.Duration
		at     time.Duration // of the sample in question, after a sample 10 at 0
		value  float64
		want   Reason // "" is stored
		hooked bool
	}{
		{"repeated, no window", 0, 0, 10, "", true},
		{"repeated, window", window, 0, 10, "", true},
		{"other value at the newest time, no window", 0, 0, 11, Duplicate, false},
		{"other value at the newest time, window", window, 0, 11, Duplicate, false},
		{"late, no window", 0, -10 * time.Minute, 9, OutOfOrder, false},
		{"late, window", window, -10 * time.Minute, 9, "", true},
		{"very late, no window", 0, -2 * time.Hour, 9, OutOfBounds, false},
		{"very late, window", window, -2 * time.Hour, 9, "", true},
		{"beyond the window", window, -25 * time.Hour, 9, TooOld, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := openTest(t, func(c *Config) { c.OutOfOrder = tc.window })
			if err := put(t, db, series("s"), Sample{T: ms(0), V: 10}); err != nil {
				t.Fatal(err)
			}
			var hooked []Sample
			db.SetHook(func(b []Sample) { hooked = append(hooked, b...) })
			err := put(t, db, series("s"), Sample{T: ms(tc.at), V: tc.value})
			var refused *RefusedError
			switch {
			case tc.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case tc.want != "" && !errors.As(err, &refused):
				t.Fatalf("got %v, want a refusal", err)
			case tc.want != "" && refused.Counts[tc.want] != 1:
				t.Errorf("refused as %v, want %s", refused.Counts, tc.want)
			}
			if got := len(hooked) == 1; got != tc.hooked {
				t.Errorf("hook saw %d samples, want %v", len(hooked), tc.hooked)
			}
			if tc.want != "" {
				if got := testutil.ToFloat64(db.metrics.samples.WithLabelValues(string(tc.want))); got != 1 {
					t.Errorf("counted %v as %s, want 1", got, tc.want)
				}
			}
		})
	}
}

func TestTimeGivenTwiceInOneBatchIsRefusedAndDoesNotReachTheHook(t *testing.T) {
	db := openTest(t)
	var hooked []Sample
	db.SetHook(func(b []Sample) { hooked = append(hooked, b...) })
	err := put(t, db, series("s"), Sample{T: ms(0), V: 1}, Sample{T: ms(0), V: 2}, Sample{T: ms(time.Second), V: 3})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Counts[Duplicate] != 1 {
		t.Fatalf("got %v, want one duplicate", err)
	}
	if got := brief(hooked); got != "1@0 3@1" {
		t.Errorf("hook saw %q", got)
	}
	if got := brief(read(t, db, "s")); got != "1@0 3@1" {
		t.Errorf("stored %q", got)
	}
}

func TestLateSampleWithinOneBatch(t *testing.T) {
	batch := []Sample{{T: ms(time.Second), V: 2}, {T: ms(0), V: 1}}
	with := openTest(t)
	if err := put(t, with, series("s"), batch...); err != nil {
		t.Errorf("with a window: %v", err)
	}
	if got := brief(read(t, with, "s")); got != "1@0 2@1" {
		t.Errorf("stored %q", got)
	}
	without := openTest(t, func(c *Config) { c.OutOfOrder = 0 })
	err := put(t, without, series("s"), batch...)
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Counts[OutOfOrder] != 1 {
		t.Errorf("without a window: %v, want one out of order", err)
	}
}

func TestBrokenLabelsAndHistogramsAreRefused(t *testing.T) {
	db := openTest(t)
	many := []string{}
	for i := range 200 {
		many = append(many, fmt.Sprintf("l%03d", i), "v")
	}
	for name, tc := range map[string]struct {
		s    Sample
		want Reason
	}{
		"no name":    {Sample{Labels: labels.FromStrings("job", "x")}, InvalidLabels},
		"not UTF-8":  {Sample{Labels: series("a", "b", "\xff")}, InvalidLabels},
		"too many":   {Sample{Labels: series("a", many...)}, LabelLimit},
		"too long":   {Sample{Labels: series("a", "b", strings.Repeat("x", testLimits.LabelBytes))}, LabelLimit},
		"twice":      {Sample{Labels: labels.New(labels.Label{Name: "__name__", Value: "a"}, labels.Label{Name: "b", Value: "1"}, labels.Label{Name: "b", Value: "2"})}, InvalidLabels},
		"histogram":  {Sample{Labels: series("a"), H: &histogram.Histogram{Count: 5, PositiveBuckets: []int64{1, 2, 3}}}, InvalidHistogram},
		"fhistogram": {Sample{Labels: series("a"), FH: &histogram.FloatHistogram{Schema: 40, Count: 5, PositiveBuckets: []float64{1, 2, 3}}}, InvalidHistogram},
	} {
		tc.s.T = ms(0)
		app := db.Appender(t.Context())
		err := app.add(tc.s)
		var r *Refusal
		if !errors.As(err, &r) || r.Reason != tc.want {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
		var refused *RefusedError
		if err := app.Commit(); !errors.As(err, &refused) || refused.Stored != 0 {
			t.Errorf("%s: commit gave %v", name, err)
		}
	}
	if got := testutil.ToFloat64(db.metrics.samples.WithLabelValues(string(InvalidLabels))); got != 3 {
		t.Errorf("counted %v as invalid labels, want 3", got)
	}
}

func TestFinerHistogramThanTheDatabaseHasIsMadeCoarser(t *testing.T) {
	db := openTest(t)
	h := &histogram.Histogram{Schema: 9, Count: 3, Sum: 3, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	app := db.Appender(t.Context())
	if err := app.AppendHistogram(series("h"), 0, ms(0), h, nil); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	got := read(t, db, "h")
	if len(got) != 1 || got[0].H == nil || got[0].H.Schema != histogram.ExponentialSchemaMax || got[0].H.Count != 3 {
		t.Errorf("stored %+v", got)
	}
}

// Whether the database keeps start timestamps, on each way that samples take.
func TestStartTimestampsSurviveEveryWayOut(t *testing.T) {
	reg := prometheus.NewRegistry()
	dir := filepath.Join(t.TempDir(), "metrics")
	cfg := testConfig(dir)
	open := func(dir string) *DB {
		t.Helper()
		cfg.Dir = dir
		db, err := Open(cfg, slog.New(slog.DiscardHandler), reg)
		if err != nil {
			t.Fatal(err)
		}
		reg = prometheus.NewRegistry()
		return db
	}
	check := func(where string, db *DB) {
		t.Helper()
		if got, want := brief(read(t, db, "c")), "5@-10800/-10900 1@-60/-100 2@-45/-100 9@-30/-40 3@-15/-20 4@0/-20"; got != want {
			t.Errorf("%s: read %q, want %q", where, got, want)
		}
		for _, name := range []string{"h", "fh"} {
			hs := read(t, db, name)
			if len(hs) != 2 || hs[0].ST != ms(-100*time.Second) || hs[1].ST != ms(-20*time.Second) {
				t.Errorf("%s: read %s %+v, want starts -100 s and -20 s", where, name, hs)
			}
		}
	}
	db := open(dir)
	s := func(at, start int, v float64) Sample {
		return Sample{T: ms(time.Duration(at) * time.Second), ST: ms(time.Duration(start) * time.Second), V: v}
	}
	for _, batch := range [][]Sample{
		{s(-60, -100, 1), s(-45, -100, 2), s(-15, -20, 3)},
		{s(0, -20, 4)},
		{s(-30, -40, 9), s(-10800, -10900, 5)}, // late
	} {
		if err := put(t, db, series("c"), batch...); err != nil {
			t.Fatal(err)
		}
	}
	hist := &histogram.Histogram{Schema: 0, Count: 3, Sum: 3, ZeroThreshold: 0.001, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	for _, at := range [][2]int{{-60, -100}, {0, -20}} {
		x := s(at[0], at[1], 0)
		app := db.Appender(t.Context())
		if err := errors.Join(
			app.AppendHistogram(series("h"), x.ST, x.T, hist.Copy(), nil),
			app.AppendHistogram(series("fh"), x.ST, x.T, nil, hist.ToFloat(nil)),
			app.Commit()); err != nil {
			t.Fatal(err)
		}
	}
	check("live", db)

	crashed := open(copyDir(t, dir))
	check("after kill -9", crashed)
	if err := crashed.Close(); err != nil {
		t.Fatal(err)
	}

	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if snaps, err := filepath.Glob(filepath.Join(dir, "chunk_snapshot.*")); err != nil || len(snaps) != 1 {
		t.Errorf("snapshots %v, %v: want one", snaps, err)
	}
	db = open(dir)
	check("after a clean restart", db)

	if err := db.tsdb.CompactOOOHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.tsdb.CompactHead(tsdb.NewRangeHead(db.tsdb.Head(), db.tsdb.Head().MinTime(), db.tsdb.Head().MaxTime())); err != nil {
		t.Fatal(err)
	}
	if len(db.tsdb.Blocks()) == 0 {
		t.Error("no block was written")
	}
	check("out of blocks", db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(dir)
	check("out of blocks after a restart", db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondOpenSaysWhoHoldsTheFolder(t *testing.T) {
	db := openTest(t)
	_, err := Open(db.cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	var held *ops.HeldError
	if !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Fatalf("got %v, want the holder's pid %d", err, os.Getpid())
	}
}

func TestFolderThatCannotBeMadeGivesARemedyAndOpenCanBeRepeated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(filepath.Join(file, "metrics"))
	reg := prometheus.NewRegistry()
	if _, err := Open(cfg, slog.New(slog.DiscardHandler), reg); err == nil || !strings.Contains(err.Error(), "choose another folder") {
		t.Errorf("got %v, want a remedy", err)
	}
	// A folder whose log can't be made: the database fails half way.
	cfg.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Dir, "wal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg, slog.New(slog.DiscardHandler), reg); err == nil {
		t.Fatal("opened a folder whose log is a file")
	}
	if err := os.Remove(filepath.Join(cfg.Dir, "wal")); err != nil {
		t.Fatal(err)
	}
	db, err := Open(cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatalf("second attempt: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestWritesAfterCloseFail(t *testing.T) {
	db := openTest(t)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := put(t, db, series("a"), Sample{T: ms(0)}); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestConfigNamesTheFieldAndTheRemedy(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"retention is 1h0m0s: give at least 3h0m0s": func(c *Config) { c.Retention, c.OutOfOrder = time.Hour, 0 },
		"retention_size is 5":                       func(c *Config) { c.RetentionSize = 5 },
		"min_free is -1":                            func(c *Config) { c.MinFree = -1 },
		"out_of_order is 481h0m0s":                  func(c *Config) { c.OutOfOrder = 481 * time.Hour },
		"store folder is empty":                     func(c *Config) { c.Dir = "" },
		"max_body is 1":                             func(c *Config) { c.MaxBody = 1 },
		"max_decoded_body is 1":                     func(c *Config) { c.MaxDecodedBody = 1 },
		"query_timeout is 0s":                       func(c *Config) { c.QueryTimeout = 0 },
		"lookback is 0s":                            func(c *Config) { c.Lookback = 0 },
		"limits.requests is 0":                      func(c *Config) { c.Limits.Requests = 0 },
		"query_max_samples is 0":                    func(c *Config) { c.QueryMaxSamples = 0 },
		"query_concurrency is 0":                    func(c *Config) { c.QueryConcurrency = 0 },
		"max_metadata is 0":                         func(c *Config) { c.MaxMetadata = 0 },
		"max_exemplars is -1":                       func(c *Config) { c.MaxExemplars = -1 },
		"cors_origin is not a regular expression":   func(c *Config) { c.CORSOrigin = "(" },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestBlocksSpanATenthOfTheRetentionWithinLimits(t *testing.T) {
	for retention, want := range map[time.Duration]time.Duration{
		3 * time.Hour:         2 * time.Hour,
		15 * 24 * time.Hour:   36 * time.Hour,
		1000 * 24 * time.Hour: 31 * 24 * time.Hour,
	} {
		if got := (Config{Retention: retention}).maxBlockDuration(); got != want {
			t.Errorf("retention %s: %s, want %s", retention, got, want)
		}
	}
}

// The syncer is given a real log that rolls over and is cut off.
func TestSyncFollowsTheLogThroughItsSegments(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	wal, err := wlog.NewSize(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), dir, 64<<10, compression.None)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := wal.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := newLogSyncer(dir, filepath.Join(dir, "none"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if len(s.logs) != 1 {
		t.Fatalf("%d logs, want 1: a missing folder is no log", len(s.logs))
	}
	l := s.logs[0]
	durable := func(where string) {
		t.Helper()
		if err := s.sync(); err != nil {
			t.Fatal(err)
		}
		_, last, err := wlog.Segments(dir)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(wlog.SegmentName(dir, last))
		if err != nil {
			t.Fatal(err)
		}
		if l.number != last || l.size != info.Size() {
			t.Errorf("%s: durable up to segment %d byte %d, want %d byte %d", where, l.number, l.size, last, info.Size())
		}
	}
	record := make([]byte, 20<<10)
	write := func(n int) {
		t.Helper()
		for range n {
			if err := wal.Log(record); err != nil {
				t.Fatal(err)
			}
		}
	}
	durable("empty")
	write(1)
	durable("one record")
	write(20)
	durable("after several segments")
	_, last, err := wlog.Segments(dir)
	if err != nil || last < 4 {
		t.Fatalf("newest segment is %d, %v: the test needs several", last, err)
	}
	// Idle while the log grows and is cut off behind: nothing to hold on to.
	write(20)
	_, last, err = wlog.Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.f.Close(); err != nil {
		t.Fatal(err)
	}
	l.f = nil
	if err := wal.Truncate(last - 1); err != nil {
		t.Fatal(err)
	}
	durable("after a cut")
}

func TestSyncTellsAMissingSegment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	wal, err := wlog.New(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), dir, compression.None)
	if err != nil {
		t.Fatal(err)
	}
	if err := wal.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := newLogSyncer(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(wlog.SegmentName(dir, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wlog.SegmentName(dir, 0)+"x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.sync(); err == nil {
		t.Error("synced a segment that does not exist")
	}
	if _, err := newLogSyncer(filepath.Join(dir)); err == nil {
		t.Error("took a folder without segments for a log")
	} else if errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestQueryReturnsValuesThatOutliveIt(t *testing.T) {
	db := openTest(t)
	if err := put(t, db, series("a"), Sample{T: ms(0), V: 7}); err != nil {
		t.Fatal(err)
	}
	for expr, want := range map[string]string{
		"a":     "{__name__=\"a\"} => 7 @[1795420800000]",
		"a[1m]": "{__name__=\"a\"} =>\n7 @[1795420800000]",
		"1 + 1": "scalar: 2 @[1795420800000]",
	} {
		v, err := db.Query(t.Context(), expr, base)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := db.Query(t.Context(), "a * 3", base); err != nil {
				t.Fatal(err)
			}
		}
		if v.String() != want {
			t.Errorf("%s: got %q, want %q", expr, v, want)
		}
	}
	if _, err := db.Query(t.Context(), "a +", base); err == nil || !strings.HasPrefix(err.Error(), "parse query: ") {
		t.Errorf("got %v, want a parse error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Query(ctx, "a", base); err == nil {
		t.Error("a cancelled query succeeded")
	}
}

func TestQueriesBeyondTheBoundWaitUntilTheirContextEnds(t *testing.T) {
	s := newSlots(1)
	if _, err := s.Insert(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Insert(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	s.Delete(0)
	if _, err := s.Insert(t.Context(), "c"); err != nil {
		t.Errorf("a free place was refused: %v", err)
	}
}

func TestRepeatedOpenKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "metrics")
	var want []string
	for i := range 3 {
		db, err := Open(testConfig(dir), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		if err := put(t, db, series("a"), Sample{T: ms(time.Duration(i) * time.Second), V: float64(i)}); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%d@%d", i, i))
		if got := brief(read(t, db, "a")); !slices.Equal(strings.Fields(got), want) {
			t.Errorf("opening %d: %q, want %q", i, got, want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
