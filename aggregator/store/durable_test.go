package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// fakeSync stands between the store and the real syncer.
type fakeSync struct {
	syncer
	before func() error // may fail instead of syncing
}

func (f *fakeSync) sync() error {
	if err := f.before(); err != nil {
		return err
	}
	return f.syncer.sync()
}

func v1Request(samples ...Sample) *prompb.WriteRequest {
	req := &prompb.WriteRequest{}
	for i, s := range samples {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "n", Value: strconv.Itoa(i)}},
			Samples: []prompb.Sample{{Timestamp: s.T, Value: s.V}},
		})
	}
	return req
}

func TestR24_SyncThenHookThenAcknowledgement(t *testing.T) {
	db := openTest(t)
	var events []string
	real := db.syncer
	defer func() { db.syncer = real }()
	db.syncer = &fakeSync{real, func() error {
		events = append(events, fmt.Sprintf("sync with %d committed", len(read(t, db, "m"))))
		return nil
	}}
	db.SetHook(func(b []Sample) { events = append(events, fmt.Sprintf("hook with %d", len(b))) })
	rec := httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, v1HTTP(t, v1Request(Sample{T: ms(0), V: 1}, Sample{T: ms(0), V: 2})))
	events = append(events, fmt.Sprintf("answer %d", rec.Code))
	if want := []string{"sync with 2 committed", "hook with 2", "answer 204"}; !slices.Equal(events, want) {
		t.Errorf("got %q, want %q", events, want)
	}
}

func TestR24_FailedSyncIsNeitherHookedNorAcknowledgedAndStopsTheStore(t *testing.T) {
	db := openTest(t)
	db.syncer = &fakeSync{db.syncer, func() error { return syscall.ENOSPC }}
	db.SetHook(func([]Sample) { t.Error("the hook saw samples that are not durable") })
	select {
	case <-db.Failed():
		t.Fatal("failed before anything happened")
	default:
	}
	for range 2 { // the second meets a store that has stopped
		rec := httptest.NewRecorder()
		db.Receiver().ServeHTTP(rec, v1HTTP(t, v1Request(Sample{T: ms(0), V: 1})))
		if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
			t.Errorf("answered %d with Retry-After %q, want 503 with one", rec.Code, rec.Header().Get("Retry-After"))
		}
		if body := rec.Body.String(); !strings.Contains(body, "no space left on device: free space") || !strings.Contains(body, "until a restart") {
			t.Errorf("answer does not tell what to do: %s", body)
		}
	}
	<-db.Failed()
	if err := db.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Err is %v", err)
	}
	if err := db.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a later sync gave %v: it would prove nothing", err)
	}
	if got := testutil.ToFloat64(db.metrics.samples.WithLabelValues("stored")); got != 0 {
		t.Errorf("counted %v samples as stored", got)
	}
}

// The database only logs this failure, and its commit succeeds.
func TestR24_FailedWriteOfTheLogOfLateSamplesIsNotAcknowledged(t *testing.T) {
	db := openTest(t)
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "c"})
	db.wblFailures = rising{c}
	db.SetHook(func([]Sample) { t.Error("the hook saw samples that are not durable") })
	if err := put(t, db, series("a"), Sample{T: ms(0)}); err == nil || !strings.Contains(err.Error(), "late samples") {
		t.Errorf("got %v, want a failure", err)
	}
	if db.Err() == nil {
		t.Error("the store goes on")
	}
}

// rising counts up each time that it is looked at.
type rising struct{ prometheus.Counter }

func (r rising) Collect(ch chan<- prometheus.Metric) { r.Inc(); r.Counter.Collect(ch) }

// The guard of the test above: the real counter is found and read.
func TestCounterOfTheDatabaseIsFound(t *testing.T) {
	regs := &registrations{Registerer: prometheus.NewRegistry()}
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "total"})
	prometheus.WrapRegistererWithPrefix("some_", regs).MustRegister(c)
	c.Add(3)
	if got := counterValue(regs.find("some_total")); got != 3 {
		t.Errorf("read %v, want 3", got)
	}
	if regs.find("some_tot") != nil {
		t.Error("a part of a name was taken for the name")
	}
}

func TestR24_WritersThatArriveDuringASyncShareTheNextOne(t *testing.T) {
	db := openTest(t)
	const writers = 20
	syncs := 0
	entered, release := make(chan struct{}), make(chan struct{})
	db.syncer = &fakeSync{db.syncer, func() error {
		if syncs++; syncs == 1 {
			close(entered)
			<-release
		}
		return nil
	}}
	var order []int64
	db.SetHook(func(b []Sample) { order = append(order, b[0].T) })
	var wg sync.WaitGroup
	write := func(i int) {
		wg.Go(func() {
			app := db.Appender(context.Background())
			if err := errors.Join(app.Append(series("m"), 0, ms(time.Duration(i)*time.Second), 1), app.Commit()); err != nil {
				t.Error(err)
			}
		})
	}
	waiting := func() int {
		db.mu.Lock()
		defer db.mu.Unlock()
		return len(db.pending)
	}
	write(0)
	<-entered
	for i := 1; i < writers; i++ {
		write(i)
		for waiting() < i { // in this order
			runtime.Gosched()
		}
	}
	close(release)
	wg.Wait()
	if syncs != 2 {
		t.Errorf("%d syncs for %d writers, want 2", syncs, writers)
	}
	if len(order) != writers || !slices.IsSorted(order) {
		t.Errorf("the hook saw the batches as %v, want the order of commits", order)
	}
}

func TestNearlyFullDiskRefusesForNowAndWritingGoesOnWhenThereIsSpace(t *testing.T) {
	db := openTest(t, func(c *Config) { c.MinFree = 100 << 20 })
	free := uint64(99 << 20)
	db.free = func() (uint64, error) { return free, nil }
	req := v1Request(Sample{T: ms(0), V: 1})
	rec := httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, v1HTTP(t, req))
	if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), "99 MiB free and 100 MiB are to be left") {
		t.Errorf("answered %d: %s", rec.Code, rec.Body)
	}
	if err := db.Err(); err != nil {
		t.Errorf("the store stopped: %v", err)
	}
	free = 100 << 20
	rec = httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, v1HTTP(t, req))
	if rec.Code != 204 {
		t.Errorf("with space again: answered %d: %s", rec.Code, rec.Body)
	}
	if got := brief(read(t, db, "m")); got != "1@0" {
		t.Errorf("stored %q", got)
	}
}

func TestHookCallsComeOneAtATime(t *testing.T) {
	db := openTest(t)
	inside, total := 0, 0 // unguarded on purpose: the race detector watches
	db.SetHook(func(b []Sample) {
		if inside++; inside != 1 {
			t.Error("two calls at once")
		}
		total += len(b)
		runtime.Gosched()
		inside--
	})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				app := db.Appender(context.Background())
				if err := errors.Join(app.Append(series("m", "w", strconv.Itoa(w)), 0, ms(time.Duration(i)*time.Second), 1), app.Commit()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if total != 160 {
		t.Errorf("the hook saw %d samples, want 160", total)
	}
}

func TestSyncDoesNotWaitForTheHook(t *testing.T) {
	db := openTest(t)
	inHook, release := make(chan struct{}), make(chan struct{})
	db.SetHook(func([]Sample) { close(inHook); <-release })
	done := make(chan error)
	go func() {
		app := db.Appender(context.Background())
		done <- errors.Join(app.Append(series("m"), 0, ms(0), 1), app.Commit())
	}()
	<-inHook
	if err := db.Sync(); err != nil { // would hang here
		t.Error(err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The database cuts the torn end off, and then does not read its second log.
func TestR24_LateSamplesSurviveATornEndOfTheLog(t *testing.T) {
	db := openTest(t)
	for _, at := range []time.Duration{0, -time.Minute} { // the second is late
		if err := put(t, db, series("a"), Sample{T: ms(at), V: 1}); err != nil {
			t.Fatal(err)
		}
	}
	dir := copyDir(t, db.cfg.Dir)
	f, err := os.OpenFile(wlog.SegmentName(filepath.Join(dir, "wal"), 0), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("\x01\x00\x20garbage garbage garbage garbage"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	again, err := Open(testConfig(dir), slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	if got := brief(read(t, again, "a")); got != "1@-60 1@0" {
		t.Errorf("read %q", got)
	}
	if err := put(t, again, series("a"), Sample{T: ms(-time.Second), V: 2}, Sample{T: ms(time.Second), V: 3}); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "prometheus_tsdb_head_series"); err != nil || n != 1 {
		t.Errorf("the database's metrics: %d, %v", n, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestTornEndOfTheLogLosesOnlyItself(t *testing.T) {
	db := openTest(t)
	for i := range 10 {
		if err := put(t, db, series("a"), Sample{T: ms(time.Duration(i) * time.Second), V: float64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, tear := range map[string]func(f *os.File, size int64) error{
		// Not only the last bytes: the reader puts zeros back, and they are zeros.
		"half a record": func(f *os.File, size int64) error { return f.Truncate(size - 12) },
		"garbage": func(f *os.File, size int64) error {
			_, err := f.WriteAt([]byte("\x01\x00\x20garbage garbage garbage garbage"), size)
			return err
		},
	} {
		dir := copyDir(t, db.cfg.Dir)
		_, last, err := wlog.Segments(filepath.Join(dir, "wal"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(wlog.SegmentName(filepath.Join(dir, "wal"), last), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil || info.Size() == 0 {
			t.Fatalf("size %d, %v", info.Size(), err)
		}
		if err := errors.Join(tear(f, info.Size()), f.Close()); err != nil {
			t.Fatal(err)
		}
		again, err := Open(testConfig(dir), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := "0@0 1@1 2@2 3@3 4@4 5@5 6@6 7@7 8@8"
		if name == "garbage" {
			want += " 9@9"
		}
		if got := brief(read(t, again, "a")); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if err := put(t, again, series("a"), Sample{T: ms(time.Minute), V: 60}); err != nil {
			t.Errorf("%s: write afterwards: %v", name, err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

// child is this test binary as another process. It writes batches of two
// samples, one of them late, and says after each which was acknowledged.
func child(mode string) int {
	cfg := testConfig(os.Getenv("NINES_STORE_DIR"))
	cfg.Now = time.Now
	from, err := strconv.Atoi(os.Getenv("NINES_STORE_FROM"))
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	if mode == "full" {
		// Like a full disk: writes beyond this size of a file fail.
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 100_000, Max: 100_000}); err != nil {
			fmt.Println("error", err)
			return 1
		}
	}
	hooked := 0
	db.SetHook(func(b []Sample) { hooked += len(b) })
	for i := from; ; i++ {
		app := db.Appender(context.Background())
		t := ms(time.Duration(i) * time.Second)
		err := errors.Join(
			app.Append(series("now"), 0, t, float64(i)),
			app.Append(series("late"), 0, t-2*time.Hour.Milliseconds(), float64(i)),
			app.Append(series("noise", "n", strings.Repeat(strconv.Itoa(i), 40)), 0, t, 1),
			app.Commit())
		if err != nil {
			fmt.Printf("failed %d %v\n", hooked, strings.ReplaceAll(err.Error(), "\n", " "))
			if db.Err() == nil {
				fmt.Println("error the store goes on after a failed write")
			}
			return 0
		}
		fmt.Println("acknowledged", i)
	}
}

func startChild(t *testing.T, mode, dir string, from int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "NINES_STORE_CHILD="+mode, "NINES_STORE_DIR="+dir, "NINES_STORE_FROM="+strconv.Itoa(from))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func checkChildSamples(t *testing.T, dir string, acknowledged int) {
	t.Helper()
	db, err := Open(testConfig(dir), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"now", "late"} {
		have := make(map[int]int)
		for _, s := range read(t, db, name) {
			have[int(s.V)]++
		}
		for i := range acknowledged + 1 {
			if have[i] != 1 {
				t.Fatalf("sample %d of %d acknowledged is there %d times as %q", i, acknowledged, have[i], name)
			}
		}
	}
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "metrics")
	newest := -1
	for round := range 3 {
		cmd, lines := startChild(t, "write", dir, newest+1)
		until := newest + 40 + 13*round
		for newest < until && lines.Scan() {
			n, ok := strings.CutPrefix(lines.Text(), "acknowledged ")
			if !ok {
				t.Fatal(lines.Text())
			}
			var err error
			if newest, err = strconv.Atoi(n); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// What it said between our last look and its death counts too.
		for lines.Scan() {
			if n, ok := strings.CutPrefix(lines.Text(), "acknowledged "); ok {
				if i, err := strconv.Atoi(n); err == nil {
					newest = i
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		if newest < until {
			t.Fatalf("the child ended after %d, want %d", newest, until)
		}
		checkChildSamples(t, dir, newest)
	}
}

func TestFullDiskStopsTheStoreWithARemedyAndLosesNothingAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "metrics")
	cmd, lines := startChild(t, "full", dir, 0)
	newest, failed := -1, ""
	for lines.Scan() {
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case "acknowledged":
			newest++
		case "failed":
			failed = rest
		default:
			t.Error(lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if newest < 10 {
		t.Fatalf("only %d batches before the disk was full", newest+1)
	}
	hooked, message, _ := strings.Cut(failed, " ")
	if hooked != strconv.Itoa(3*(newest+1)) {
		t.Errorf("the hook saw %s samples, want those of the %d acknowledged batches", hooked, newest+1)
	}
	if !strings.Contains(message, "until a restart") || !strings.Contains(message, "file too large") {
		t.Errorf("message: %s", message)
	}
	checkChildSamples(t, dir, newest)
}

func BenchmarkAppend(b *testing.B) {
	const n = 5000
	for _, hook := range []bool{false, true} {
		b.Run(fmt.Sprintf("hook=%v", hook), func(b *testing.B) {
			db := openTest(b)
			sum := 0.0
			if hook {
				last := make(map[uint64]float64)
				db.SetHook(func(batch []Sample) {
					for _, s := range batch {
						sum += s.V - last[s.Ref]
						last[s.Ref] = s.V
					}
				})
			}
			all := make([]Sample, n)
			for i := range all {
				all[i].Labels = series("m", "i", strconv.Itoa(i), "job", "bench", "instance", "node-1")
			}
			b.ReportAllocs()
			round := 0
			for b.Loop() {
				round++
				app := db.Appender(b.Context())
				t := ms(-24*time.Hour) + int64(round)*15
				for i := range all {
					if err := app.Append(all[i].Labels, 0, t, float64(round)); err != nil {
						b.Fatal(err)
					}
				}
				if err := app.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(round*n), "ns/sample")
			io.Discard.Write(strconv.AppendFloat(nil, sum, 'g', -1, 64))
		})
	}
}
