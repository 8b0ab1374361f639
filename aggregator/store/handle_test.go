package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

func handle(t testing.TB, db *DB, ls labels.Labels) *Handle {
	t.Helper()
	h, err := db.Handle(ls)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func putTo(t testing.TB, h *Handle, samples ...Sample) error {
	t.Helper()
	app := h.db.Appender(t.Context())
	for _, s := range samples {
		if err := app.AppendTo(h, s.ST, s.T, s.V); err != nil && !errors.As(err, new(*Refusal)) {
			t.Fatal(err)
		}
	}
	return app.Commit()
}

// Guards against a reference that the database has given up: what comes by a
// handle must not be lost nor reach another series.
func TestSeriesThatTheDatabaseForgotComesBackByItsHandle(t *testing.T) {
	db := openTest(t)
	h := handle(t, db, series("a", "job", "x"))
	if err := putTo(t, h, Sample{T: ms(-10 * time.Hour), V: 1}); err != nil {
		t.Fatal(err)
	}
	if err := put(t, db, series("b"), Sample{T: ms(-time.Hour), V: 1}); err != nil {
		t.Fatal(err)
	}
	before := h.ref
	if err := db.tsdb.CompactHead(tsdb.NewRangeHead(db.tsdb.Head(), ms(-10*time.Hour), ms(-2*time.Hour)-1)); err != nil {
		t.Fatal(err)
	}
	if n := db.Series(); n != 1 {
		t.Fatalf("the database remembers %d series, want 1: the test is void", n)
	}
	var hooked []Sample
	db.SetHook(func(b []Sample) { hooked = append(hooked, b...) })
	if err := putTo(t, h, Sample{T: ms(0), V: 2}); err != nil {
		t.Fatal(err)
	}
	if h.ref == before || h.ref == 0 {
		t.Errorf("the handle has reference %d, before it was %d", h.ref, before)
	}
	if got := brief(read(t, db, "a")); got != "1@-36000 2@0" {
		t.Errorf("stored %q", got)
	}
	if len(hooked) != 1 || hooked[0].Ref != uint64(h.ref) || hooked[0].Labels.Get("job") != "x" {
		t.Errorf("the hook saw %+v", hooked)
	}
}

func TestHandleOfBrokenLabelsOrOfAnotherStoreIsRefused(t *testing.T) {
	db, other := openTest(t), openTest(t)
	if _, err := db.Handle(labels.FromStrings("job", "x")); err == nil || !strings.Contains(err.Error(), "__name__") {
		t.Errorf("got %v", err)
	}
	if err := db.Appender(t.Context()).AppendTo(handle(t, other, series("a")), 0, ms(0), 1); err == nil {
		t.Error("a handle of another store was taken: its reference means another series here")
	}
	app := db.Appender(t.Context())
	app.Rollback()
	if err := app.AppendTo(handle(t, db, series("a")), 0, ms(0), 1); err == nil {
		t.Error("an appender that is done with took a sample")
	}
}

func TestTwoHandlesOfASeriesAreOneSeriesWithinABatch(t *testing.T) {
	db := openTest(t)
	a, b := handle(t, db, series("a")), handle(t, db, series("a"))
	app := db.Appender(t.Context())
	if err := errors.Join(app.AppendTo(a, 0, ms(0), 1), app.AppendTo(b, 0, ms(0), 2)); err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if err := app.Commit(); !errors.As(err, &refused) || refused.Counts[Duplicate] != 1 {
		t.Errorf("got %v, want one duplicate", err)
	}
	if got := brief(read(t, db, "a")); got != "1@0" {
		t.Errorf("stored %q", got)
	}
}

func TestR02_OldAppenderReadsTheClockAgain(t *testing.T) {
	now := base
	db := openTest(t, func(c *Config) { c.Now = func() time.Time { return now } })
	app := db.Appender(t.Context())
	now = now.Add(time.Hour)
	if err := app.Append(series("a"), 0, now.Add(MaxAhead).UnixMilli(), 1); err != nil {
		t.Errorf("a sample of this time: %v", err)
	}
	if err := app.Append(series("a"), 0, now.Add(MaxAhead).UnixMilli()+1, 1); err == nil {
		t.Error("a sample beyond the limit was taken")
	}
}

func TestCacheForgetsWhatIsNotUsedAndKeepsWhatIs(t *testing.T) {
	c := newCache(cacheBytes)
	now := ms(0)
	add := func(key string) *Handle {
		h, hash := c.find([]byte(key), now)
		if h == nil {
			h = &Handle{}
			c.keep([]byte(key), hash, h, now)
		}
		return h
	}
	used, unused := add("used"), add("unused")
	for range 4 {
		now += cacheTurn.Milliseconds()
		if add("used") != used {
			t.Fatal("a series in use was forgotten")
		}
	}
	if add("unused") == unused {
		t.Error("a series is kept that was not used for an hour")
	}
}

func TestCacheIsBoundedInBytes(t *testing.T) {
	const limit = 1 << 20
	c := newCache(limit)
	for i := range 100_000 {
		key := []byte(strconv.Itoa(i) + strings.Repeat("x", 100))
		_, hash := c.find(key, 0)
		c.keep(key, hash, &Handle{}, 0)
	}
	huge := make([]byte, maxKeyBytes+1)
	_, hash := c.find(huge, 0)
	c.keep(huge, hash, &Handle{}, 0)
	if h, _ := c.find(huge, 0); h != nil {
		t.Error("a huge key was kept")
	}
	bytes, entries := 0, 0
	for i := range c.shards {
		for _, m := range []map[uint64]cached{c.shards[i].young, c.shards[i].old} {
			for _, e := range m {
				bytes += len(e.key) + handleBytes
				entries++
			}
		}
	}
	if bytes > limit {
		t.Errorf("%d entries with %d bytes kept, want at most %d bytes", entries, bytes, limit)
	}
	if entries < limit/4/(105+handleBytes) {
		t.Errorf("only %d entries kept", entries)
	}
}

func TestCacheComparesTheWholeKey(t *testing.T) {
	c := newCache(cacheBytes)
	_, hash := c.find([]byte("a"), 0)
	c.keep([]byte("b"), hash, &Handle{}, 0) // as if both had this hash
	if h, _ := c.find([]byte("a"), 0); h != nil {
		t.Error("found the series of another key")
	}
}

func TestNewestInBatchForgetsOldBatchesAndIsBounded(t *testing.T) {
	var n newestInBatch
	for batch := range 3 {
		n.begin()
		for i, step := range []struct {
			t         int64
			want, was int
		}{{5, 1, 0}, {5, 0, 0}, {4, -1, 0}, {7, 1, 0}, {5, -1, 0}, {7, 0, 3}} {
			for _, ref := range []uint64{1, 2, 1 << 40} {
				if got, was := n.note(ref, step.t, i); got != step.want || was != step.was {
					t.Errorf("batch %d, series %d at %d: got %d, want %d", batch, ref, step.t, got, step.want)
				}
			}
		}
	}
	n.batch = math.MaxUint32 // a number is used again after many batches
	if n.begin(); n.batch == 0 || len(n.pages) != 0 {
		t.Errorf("batch %d with %d pages", n.batch, len(n.pages))
	}
	for ref := range uint64(maxNewestPages + 10) {
		n.note(ref*newestPageSize, 1, 0)
	}
	if n.begin(); len(n.pages) != 0 {
		t.Errorf("%d pages kept", len(n.pages))
	}
}

func TestBulkStoreDoesAllButLogAndSync(t *testing.T) {
	now := base.Add(-72 * time.Hour)
	var dir string
	db := openTest(t, func(c *Config) {
		c.Bulk, c.Now = true, func() time.Time { return now }
		dir = c.Dir
	})
	hooked, order := 0, []string{}
	db.SetRefusedHook(func(r []RefusedSource) { order = append(order, fmt.Sprintf("refused %d", r[0].Samples)) })
	db.SetHook(func(b []Sample) { hooked += len(b); order = append(order, "hook") })
	h := handle(t, db, series("a"))
	var want float64
	for range 72 * 60 { // across blocks
		now = now.Add(time.Minute)
		want++
		if err := putTo(t, h, Sample{T: now.UnixMilli(), V: want}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Sync(); err != nil {
		t.Error(err)
	}
	if hooked != 72*60 {
		t.Errorf("the hook saw %d samples", hooked)
	}
	all := read(t, db, "a")
	if len(all) != 72*60 || all[len(all)-1].V != want {
		t.Errorf("read %d samples back", len(all))
	}
	order = nil
	var refused *RefusedError
	if err := putTo(t, h, Sample{T: now.Add(time.Second).UnixMilli()}, Sample{T: now.Add(time.Second).UnixMilli(), V: 1}); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	if s := strings.Join(order, ", "); s != "refused 1, hook" {
		t.Errorf("order of calls: %s", s)
	}
	for _, log := range []string{"wal", "wbl"} {
		if _, err := os.Stat(filepath.Join(dir, log)); err == nil {
			t.Errorf("there is a log %s", log)
		}
	}
}
