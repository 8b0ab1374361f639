package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// writeOf is a 1.0 request with a sample of each series.
func writeOf(t testing.TB, at time.Duration, all ...labels.Labels) *http.Request {
	t.Helper()
	req := &prompb.WriteRequest{}
	for _, ls := range all {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil), Samples: []prompb.Sample{{Timestamp: ms(at), Value: 1}}})
	}
	return v1HTTP(t, req)
}

func from(address string, r *http.Request) *http.Request {
	r.RemoteAddr = address
	return r
}

func answered(db *DB, r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	db.Receiver().ServeHTTP(rec, r)
	return rec
}

// wantAnswer sends and compares the code; each text must be in the body.
func wantAnswer(t *testing.T, db *DB, r *http.Request, code int, texts ...string) *httptest.ResponseRecorder {
	t.Helper()
	rec := answered(db, r)
	if rec.Code != code {
		t.Errorf("answered %d, want %d: %s", rec.Code, code, rec.Body)
	}
	for _, text := range texts {
		if !strings.Contains(rec.Body.String(), text) {
			t.Errorf("the answer lacks %q: %s", text, rec.Body)
		}
	}
	return rec
}

func TestR06_NewSeriesBeyondALimitAreRefusedAndKnownOnesGoOn(t *testing.T) {
	in := func(n int, cluster, namespace string) labels.Labels {
		return series("m", "n", strconv.Itoa(n), "cluster", cluster, "namespace", namespace, "job", "j", "instance", "i")
	}
	for scope, tc := range map[scope]struct {
		change func(*Limits)
		free   labels.Labels // what the limit is not about
		peer   string
		key    string
	}{
		scopeAll:       {func(l *Limits) { l.Series = 2 }, labels.EmptyLabels(), "", "the store has 2 of 2 series in use: drop series by relabelling, or raise limits.series"},
		scopeCluster:   {func(l *Limits) { l.Clusters.Default.Series = 2 }, in(9, "b", "x"), "", `the cluster "a" has 2 of 2 series in use: drop series by relabelling, or raise limits.clusters.overrides."a".series`},
		scopeNamespace: {func(l *Limits) { l.Namespaces.Default.Series = 2 }, in(9, "a", "y"), "", `the namespace "a/x" has 2 of 2 series in use: drop series by relabelling, or raise limits.namespaces.overrides."a/x".series`},
		scopeSender:    {func(l *Limits) { l.Senders.Default.Series = 2 }, in(9, "a", "x"), "10.0.0.2:7", `the sender "10.0.0.1" has 2 of 2 series in use: drop series by relabelling, or raise limits.senders.overrides."10.0.0.1".series`},
	} {
		t.Run(string(scope), func(t *testing.T) {
			db := openTest(t, func(c *Config) { tc.change(&c.Limits) })
			got := calls(db)
			wantAnswer(t, db, from("10.0.0.1:5", writeOf(t, 0, in(0, "a", "x"), in(1, "a", "x"))), 204)
			wantCalls(t, got, "hook 2")
			for i, at := range []time.Duration{time.Second, 2 * time.Second} {
				wantAnswer(t, db, from("10.0.0.1:6", writeOf(t, at, in(0, "a", "x"), in(2, "a", "x"), in(1, "a", "x"))), 400,
					"1 of 3 samples refused, the rest is stored", tc.key)
				second := strconv.Itoa(i + 1)
				wantCalls(t, got, "j/i/a series_limit "+second+".."+second+" x1", "hook 2")
			}
			if n := testutil.ToFloat64(db.metrics.samples.WithLabelValues(string(SeriesLimit))); n != 2 {
				t.Errorf("counted %v by reason, want 2", n)
			}
			if n := testutil.ToFloat64(db.metrics.beyond.WithLabelValues(string(scope))); n != 2 {
				t.Errorf("counted %v by scope, want 2", n)
			}
			if n := db.limiter.used(scope); n != 1 {
				t.Errorf("%v of the limit is told to be used, want all", n)
			}
			if !tc.free.IsEmpty() {
				wantAnswer(t, db, from(tc.peer, writeOf(t, 0, tc.free)), 204)
			}
			// What this process writes is counted, never refused.
			if err := put(t, db, in(3, "a", "x"), Sample{T: ms(0)}); err != nil {
				t.Error(err)
			}
			if n := db.Series(); n != uint64(db.limiter.all.series) {
				t.Errorf("%d series are there, counted %d", n, db.limiter.all.series)
			}
		})
	}
}

func TestSeriesThatTheDatabaseForgotMakeRoom(t *testing.T) {
	db := openTest(t, func(c *Config) { c.Limits.Clusters.Default.Series, c.Limits.Senders.Default.Series = 2, 2 })
	old, kept, late := series("old", "cluster", "a"), series("kept", "cluster", "a"), series("new", "cluster", "a")
	wantAnswer(t, db, writeOf(t, -10*time.Hour, old), 204)
	wantAnswer(t, db, writeOf(t, -time.Hour, kept), 204)
	wantAnswer(t, db, writeOf(t, 0, late), 400, "2 of 2")
	if err := db.tsdb.CompactHead(tsdb.NewRangeHead(db.tsdb.Head(), ms(-10*time.Hour), ms(-2*time.Hour)-1)); err != nil {
		t.Fatal(err)
	}
	if n := db.Series(); n != 1 {
		t.Fatalf("the database remembers %d series, want 1: the test is void", n)
	}
	wantAnswer(t, db, writeOf(t, 0, late), 204)
	wantAnswer(t, db, writeOf(t, 0, old), 400, "2 of 2") // it is a new one again
	wantAnswer(t, db, writeOf(t, 0, kept), 204)
}

// A series that the database makes for a sample that it then refuses is counted
// with its cluster, and with no sender that somebody else is then taken for.
func TestSeriesWithoutASampleAreCounted(t *testing.T) {
	db := openTest(t, func(c *Config) { c.OutOfOrder = time.Hour })
	wantAnswer(t, db, writeOf(t, 0, series("a", "cluster", "x")), 204)
	wantAnswer(t, db, writeOf(t, -3*time.Hour, series("b", "cluster", "x")), 400, "out-of-order window")
	wantAnswer(t, db, writeOf(t, time.Second, series("a", "cluster", "x")), 204)
	if n := db.limiter.clusters["x"].series; uint64(n) != db.Series() || n != 2 {
		t.Errorf("counted %d series, the database has %d, want 2", n, db.Series())
	}
	if n := len(db.limiter.brought); n != 1 {
		t.Errorf("%d series have a sender, want 1", n)
	}
	if err := put(t, db, series("own", "cluster", "x"), Sample{T: ms(0)}); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, db, writeOf(t, 2*time.Second, series("c", "cluster", "x"), series("own", "cluster", "x")), 204)
	if n := len(db.limiter.brought); n != 2 {
		t.Errorf("%d series have a sender, want 2: one is this process's own", n)
	}
}

func TestSeriesAreCountedOverARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "metrics")
	cfg := testConfig(dir)
	cfg.Limits.Namespaces.Default.Series = 2
	open := func() *DB {
		db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	a, b, c := series("a", "namespace", "x"), series("b", "namespace", "x"), series("c", "namespace", "x")
	wantAnswer(t, db, writeOf(t, 0, a, b), 204)
	app := db.Appender(t.Context())
	for i := range 5000 {
		if err := app.Append(series("m", "n", strconv.Itoa(i)), 0, ms(0), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(app.Commit(), db.Close()); err != nil {
		t.Fatal(err)
	}
	// A snapshot that is damaged at its end is read, forgotten, and the log is read.
	snapshots, err := filepath.Glob(filepath.Join(dir, "chunk_snapshot.*", "0*"))
	if err != nil || len(snapshots) == 0 {
		t.Fatalf("there is no snapshot: %v", err)
	}
	last := snapshots[len(snapshots)-1]
	data, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(last, append(data, "damaged"...), 0o644); err != nil {
		t.Fatal(err)
	}
	db = open()
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	if n := db.limiter.all.series; n != 5002 {
		t.Errorf("counted %d series, want 5002", n)
	}
	wantAnswer(t, db, writeOf(t, time.Second, c), 400, `the namespace "/x" has 2 of 2`)
	wantAnswer(t, db, writeOf(t, time.Second, a, b), 204)

	// A log with a broken end makes the database open twice.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("there is no log: %v", err)
	}
	log, err := os.OpenFile(segments[len(segments)-1], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = log.WriteString("\x01broken")
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	db = open()
	if a, b := db.limiter.all.series, db.Series(); uint64(a) != b || a < 5000 {
		t.Errorf("counted %d series, the database has %d", a, b)
	}
}

// slow is 2 samples a second and 4 at once.
var slow = Limit{Series: 100, SamplesPerSecond: 2, Burst: 4}

func TestR06_SenderThatIsTooFastWaitsAndNobodyIsTold(t *testing.T) {
	now := base
	db := openTest(t, func(c *Config) { c.Now = func() time.Time { return now }; c.Limits.Senders.Default = slow })
	got := calls(db)
	ten := func(from time.Duration) *http.Request {
		m := message{labels: []string{"__name__", "m", "cluster", "a", "namespace", "x"}}
		for i := range 10 {
			m.samples = append(m.samples, Sample{T: ms(from + time.Duration(i)*time.Millisecond)})
		}
		return request(t, 1, m)
	}
	// More than the burst is taken once, and paid for afterwards.
	wantAnswer(t, db, ten(0), 204)
	wantCalls(t, got, "hook 10")
	rec := wantAnswer(t, db, ten(time.Second), 503, `the sender "192.0.2.1" has sent more than 2 samples a second and 4 at once: nothing of this request is stored, send it again later, or raise limits.senders.overrides."192.0.2.1".samples_per_second`)
	if h := rec.Header().Get("Retry-After"); h != "4" {
		t.Errorf("Retry-After is %q, want 4: 6 samples at 2 a second, and one for good measure", h)
	}
	wantCalls(t, got)
	wantAnswer(t, db, from("10.0.0.2:1", writeOf(t, 0, series("m", "cluster", "a", "namespace", "z"))), 204)
	wantCalls(t, got, "hook 1")
	now = now.Add(3 * time.Second)
	wantAnswer(t, db, ten(time.Second), 503)
	now = now.Add(time.Second)
	wantAnswer(t, db, ten(time.Second), 204)
	wantCalls(t, got, "hook 10")
	if got := len(read(t, db, "m")); got != 21 {
		t.Errorf("%d samples are stored, want 21", got)
	}
	if n := testutil.ToFloat64(db.metrics.limited.WithLabelValues(limitRate, string(scopeSender))); n != 2 {
		t.Errorf("counted %v requests, want 2", n)
	}
}

// Two requests of one sender are in work at once: the first makes the second
// wait after it was read.
func TestR06_RequestThatWasReadWaitsForItsSenderToo(t *testing.T) {
	db := openTest(t, func(c *Config) {
		c.Limits.Senders.Default, c.Limits.Namespaces.Default = slow, slow
	})
	app := db.Appender(t.Context())
	defer app.Rollback()
	sender, _ := db.limiter.enter("10.0.0.1:1")
	sender.samples.tokens = 0
	app.sender = sender
	h := handle(t, db, series("m", "namespace", "x"))
	h.tenant.Load().samples.tokens = 0
	if err := app.AppendTo(h, 0, ms(0), 1); err != nil {
		t.Fatal(err)
	}
	if wait := db.limiter.take(app); wait == nil || wait.t != sender {
		t.Errorf("got %v, want that the sender waits", wait)
	}
	if len(app.batch) != 1 || app.refused.total() != 0 || len(app.paid) != 0 {
		t.Errorf("%d samples stay, %d are refused, %d are paid, want 1, 0, 0", len(app.batch), app.refused.total(), len(app.paid))
	}
}

// Guards against one namespace holding back the samples of all others that one
// agent sends: they were in the same request, which was put off whole, and
// stayed at the head of the agent's queue.
func TestR06_SamplesOfAClusterOrNamespaceThatIsTooFastAreRefusedAlone(t *testing.T) {
	const too = " has sent more than 2 samples a second and 4 at once: send fewer, or raise limits."
	for scope, tc := range map[scope]struct {
		change func(*Limits)
		fast   []string // CLUSTER/NAMESPACE
		free   []string
		told   []string
		text   string
	}{
		scopeNamespace: {func(l *Limits) { l.Namespaces.Default = slow }, []string{"a/x"}, []string{"a/y", "a/", "b/x"}, []string{"j/i/a"},
			`the namespace "a/x"` + too + `namespaces.overrides."a/x".samples_per_second`},
		scopeCluster: {func(l *Limits) { l.Clusters.Default = slow }, []string{"a/x", "a/y", "a/"}, []string{"b/x"}, []string{"j/i/a"},
			`the cluster "a"` + too + `clusters.overrides."a".samples_per_second`},
	} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s/%d.0", scope, version), func(t *testing.T) {
				now := base
				db := openTest(t, func(c *Config) { c.Now = func() time.Time { return now }; tc.change(&c.Limits) })
				got := calls(db)
				of := func(place, name string, from time.Duration, n int) message {
					cluster, namespace, _ := strings.Cut(place, "/")
					m := message{labels: []string{"__name__", name, "cluster", cluster, "instance", "i", "job", "j"}}
					if namespace != "" {
						m.labels = append(m.labels, "namespace", namespace)
					}
					for i := range n {
						m.samples = append(m.samples, Sample{T: ms(from + time.Duration(i)*time.Millisecond), V: 1})
					}
					return m
				}
				fast, free := len(tc.fast), len(tc.free)
				mixed := func(from time.Duration) *http.Request {
					var all []message
					for _, place := range tc.fast {
						all = append(all, of(place, "fast", from, 10))
					}
					for _, place := range tc.free {
						all = append(all, of(place, "free", from, 1))
					}
					all = append(all, of(tc.fast[0], "fast2", from, 1)) // behind the free ones
					// Both have exemplars, and each stays with its own.
					all[0].exemplars = []string{"of fast"}
					all[fast+free-1].exemplars = []string{"of free"}
					return request(t, version, all...)
				}
				first := 10*fast + 1
				wantAnswered(t, db, mixed(0), 204, first+free, 0, 2, version)
				wantCalls(t, got, fmt.Sprintf("hook %d", first+free))
				for range 2 { // repeated at once it fares no better
					text := wantAnswered(t, db, mixed(time.Second), 400, free, 0, 1, version)
					for _, want := range []string{fmt.Sprintf("%d of %d samples refused, the rest is stored", first, first+free), tc.text} {
						if !strings.Contains(text, want) {
							t.Errorf("the answer lacks %q: %s", want, text)
						}
					}
					wantCalls(t, got, fmt.Sprintf("j/i/a rate_limit 1..1 x%d", first), fmt.Sprintf("hook %d", free))
				}
				if f, s := len(read(t, db, "fast")), len(read(t, db, "free")); f != 10*fast || s != 2*free {
					t.Errorf("%d and %d samples are stored, want %d and %d", f, s, 10*fast, 2*free)
				}
				if n := testutil.ToFloat64(db.metrics.beyond.WithLabelValues(string(scope))); n != float64(2*first) {
					t.Errorf("counted %v by scope, want %d", n, 2*first)
				}
				if n := testutil.ToFloat64(db.metrics.samples.WithLabelValues(string(RateLimit))); n != float64(2*first) {
					t.Errorf("counted %v by reason, want %d", n, 2*first)
				}
				// What was refused was not paid for, and can come again.
				now = now.Add(time.Duration(first)*time.Second/2 - time.Second)
				wantAnswered(t, db, mixed(time.Second), 204, first+free, 0, 2, version)
				wantCalls(t, got, fmt.Sprintf("hook %d", first+free))
				if f := len(read(t, db, "fast")); f != 20*fast {
					t.Errorf("%d samples are stored, want %d", f, 20*fast)
				}
			})
		}
	}
}

// What a namespace is refused its cluster has not used, and the other way round.
func TestRefusedSamplesArePaidByNobody(t *testing.T) {
	db := openTest(t, func(c *Config) {
		c.Limits.Clusters.Default, c.Limits.Namespaces.Default = Limit{Series: 100, SamplesPerSecond: 1, Burst: 100}, slow
	})
	x, y := series("m", "cluster", "a", "namespace", "x"), series("m", "cluster", "a", "namespace", "y")
	wantAnswer(t, db, writeOf(t, 0, x, y), 204)
	cluster, inX, inY := db.limiter.of(series("m", "cluster", "a")), db.limiter.of(x), db.limiter.of(y)
	inX.samples.tokens = -1
	wantAnswer(t, db, writeOf(t, time.Second, x, y), 400, `the namespace "a/x"`)
	if c, x, y := cluster.samples.tokens, inX.samples.tokens, inY.samples.tokens; c != 97 || x != -1 || y != 2 {
		t.Errorf("the cluster has %v left, its namespaces %v and %v, want 97, -1 and 2", c, x, y)
	}
	cluster.samples.tokens = -1
	wantAnswer(t, db, writeOf(t, 2*time.Second, y), 400, `the cluster "a"`)
	if c, y := cluster.samples.tokens, inY.samples.tokens; c != -1 || y != 2 {
		t.Errorf("the cluster has %v left, its namespace %v, want -1 and 2", c, y)
	}
}

// Guards against a series that seems to go on because its end was refused.
func TestStaleMarkersPassUpToABurstOfTheirOwn(t *testing.T) {
	nan := math.Float64frombits(value.StaleNaN)
	end := []message{
		{labels: []string{"__name__", "f", "cluster", "a", "namespace", "x"}, samples: []Sample{{T: ms(time.Second), V: nan}, {T: ms(2 * time.Second), V: 1}}},
		{labels: []string{"__name__", "h", "cluster", "a", "namespace", "x"}, histograms: []Sample{{T: ms(time.Second), H: &histogram.Histogram{Sum: nan}}, {T: ms(2 * time.Second), H: testHistogram()}}},
		{labels: []string{"__name__", "g", "cluster", "a", "namespace", "x"}, histograms: []Sample{{T: ms(time.Second), FH: &histogram.FloatHistogram{Sum: nan}}}},
	}
	for scope, change := range map[scope]func(*Limits){
		scopeNamespace: func(l *Limits) { l.Namespaces.Default = slow },
		scopeCluster:   func(l *Limits) { l.Clusters.Default = slow },
	} {
		t.Run(string(scope), func(t *testing.T) {
			db := openTest(t, func(c *Config) { change(&c.Limits) })
			got := calls(db)
			over := db.limiter.of(series("f", "cluster", "a", "namespace", "x"))
			if scope == scopeCluster {
				over = over.group
			}
			over.samples.tokens = -10
			wantAnswered(t, db, request(t, 2, end...), 400, 1, 2, 0, 2)
			wantCalls(t, got, "//a rate_limit 2..2 x2", "hook 3")
			// One is left in their bucket.
			wantAnswered(t, db, request(t, 2, message{labels: end[0].labels, samples: []Sample{{T: ms(3 * time.Second), V: nan}, {T: ms(4 * time.Second), V: nan}}}), 400, 1, 0, 0, 2)
			wantCalls(t, got, "//a rate_limit 4..4 x1", "hook 1")
			if over.samples.tokens != -10 {
				t.Errorf("the tenant owes %v, want 10", -over.samples.tokens)
			}
		})
	}
}

// Guards against a full disk that turns what is repeated into what is refused.
func TestFailedBatchIsNotPaidFor(t *testing.T) {
	db := openTest(t, func(c *Config) {
		c.Now = func() time.Time { return base }
		c.Limits.Namespaces.Default = slow
	})
	got := calls(db)
	r := func() *http.Request {
		return writeOf(t, 0, series("a", "namespace", "x"), series("b", "namespace", "x"))
	}
	free := db.free
	db.free = func() (uint64, error) { return 0, nil }
	for range 10 {
		wantAnswer(t, db, r(), 503)
	}
	db.limiter.of(series("a", "namespace", "x")).samples.tokens -= 10
	wantAnswer(t, db, r(), 503)
	if n := testutil.ToFloat64(db.metrics.beyond.WithLabelValues(string(scopeNamespace))); n != 0 {
		t.Errorf("counted %v refused samples of a batch that comes again, want 0", n)
	}
	db.limiter.of(series("a", "namespace", "x")).samples.tokens += 10
	wantCalls(t, got)
	db.free = free
	wantAnswer(t, db, r(), 204)
	wantCalls(t, got, "hook 2")
	if left := db.limiter.of(series("a", "namespace", "x")).samples.tokens; left != 2 {
		t.Errorf("%v of the burst are left, want 2", left)
	}
}

// An outage of the receiver is made up for at once, beside what is new.
func TestBacklogWithinTheBurstLosesNothing(t *testing.T) {
	now := base
	db := openTest(t, func(c *Config) {
		c.Now = func() time.Time { return now }
		c.OutOfOrder = 24 * time.Hour
		c.Limits.Namespaces.Default = Limit{Series: 100, SamplesPerSecond: 2, Burst: 3600}
	})
	for minute := range 60 {
		m := message{labels: []string{"__name__", "m", "namespace", "x"}}
		for second := range 60 {
			m.samples = append(m.samples, Sample{T: ms(time.Duration(minute)*time.Minute + time.Duration(second)*time.Second - time.Hour)})
		}
		wantAnswer(t, db, request(t, 1, m), 204)
	}
	if n := len(read(t, db, "m")); n != 3600 {
		t.Errorf("%d samples are stored, want an hour of one a second", n)
	}
}

func TestLimitOfARateIsLoggedOnceUntilItIsCalm(t *testing.T) {
	now := base
	var out bytes.Buffer
	l := newLimiter(Limits{Requests: 2, Namespaces: ScopeLimits{Default: slow}, Senders: DefaultLimits().Senders, Clusters: DefaultLimits().Clusters},
		slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	db := openTest(t)
	h := handle(t, db, series("m", "namespace", "x"))
	send := func() {
		app := db.Appender(t.Context())
		defer app.Rollback()
		app.sender = l.otherPeer
		place := l.of(h.labels)
		place.samples.tokens = -1e6
		h.tenant.Store(place)
		if err := app.AppendTo(h, 0, ms(0), 1); err != nil {
			t.Fatal(err)
		}
		if wait := l.take(app); wait != nil || app.refused.Counts[RateLimit] != 1 {
			t.Fatalf("waits %v, refused %v: the test is void", wait, app.refused.Counts)
		}
	}
	for i, after := range []time.Duration{0, calm - time.Second, calm - time.Second, calm} {
		now = now.Add(after)
		send()
		want := 1
		if after == calm {
			want = 2
		}
		if n := strings.Count(out.String(), `key="limits.namespaces.overrides.\"/x\".samples_per_second"`); n != want {
			t.Errorf("refusal %d: logged %d times, want %d:\n%s", i+1, n, want, out.String())
		}
	}
}

// unread fails the test when a body is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, errors.New("not to be read")
}

func (unread) Close() error { return nil }

func TestRequestOfASenderThatMustWaitIsNotRead(t *testing.T) {
	db := openTest(t, func(c *Config) { c.Limits.Senders.Default.Burst = 1 })
	wantAnswer(t, db, writeOf(t, 0, series("a"), series("b")), 204)
	r := writeOf(t, 0, series("a"))
	r.Body = unread{t}
	wantAnswer(t, db, r, 503)
}

// Guards against the slots of all being taken by one sender that catches up.
func TestCatchUpOfOneSenderLeavesRoomForOthers(t *testing.T) {
	db := openTest(t, func(c *Config) { c.Limits.Requests = 4 })
	enter := func(remote string) func() {
		t.Helper()
		sender, wait := db.limiter.enter(remote)
		if wait != nil {
			t.Fatal(wait)
		}
		db.writes <- struct{}{}
		return func() { <-db.writes; db.limiter.leave(sender) }
	}
	leave := enter("10.0.0.1:1")
	defer enter("10.0.0.1:2")()
	// Half of the four is in work: the sender that catches up gets no more,
	// whatever address it claims to send for.
	r := from("10.0.0.1:3", writeOf(t, 0, series("a")))
	r.Header.Set("X-Forwarded-For", "10.9.9.9")
	r.Body = unread{t}
	rec := wantAnswer(t, db, r, 503, `the sender "10.0.0.1" has 2 requests in work`, `raise limits.senders.overrides."10.0.0.1".requests`)
	if rec.Header().Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", rec.Header().Get("Retry-After"))
	}
	if n := testutil.ToFloat64(db.metrics.limited.WithLabelValues(limitRequests, string(scopeSender))); n != 1 {
		t.Errorf("counted %v requests, want 1", n)
	}
	wantAnswer(t, db, from("[::ffff:10.0.0.2]:1", writeOf(t, 0, series("a"))), 204)
	defer enter("10.0.0.2:1")()
	defer enter("10.0.0.2:2")()
	wantAnswer(t, db, from("10.0.0.3:1", writeOf(t, 0, series("a"))), 503, "4 remote-write requests are in work already", "raise limits.requests")
	wantAnswer(t, db, from("[::ffff:10.0.0.2]:9", writeOf(t, 0, series("a"))), 503, `the sender "10.0.0.2" has 2 requests`)
	leave()
	for range 5 { // each gives its place back
		wantAnswer(t, db, from("10.0.0.1:3", writeOf(t, 0, series("a"))), 204)
	}
}

func TestOverridesAreByNameAndTakeTheRestFromTheDefault(t *testing.T) {
	s := ScopeLimits{Default: Limit{1, 2, 3, 4}, Overrides: map[string]Limit{"shop": {Series: 10}, "prod/shop": {Series: 20, Burst: 30}}}
	for want, names := range map[Limit][]string{
		{1, 2, 3, 4}:   {"dev/x", "x"},
		{10, 2, 3, 4}:  {"dev/shop", "shop"},
		{20, 2, 30, 4}: {"prod/shop", "shop"},
	} {
		if got := s.of(names...); got != want {
			t.Errorf("%v: got %+v, want %+v", names, got, want)
		}
	}
	db := openTest(t, func(c *Config) {
		c.Limits.Namespaces.Default.Series = 1
		c.Limits.Namespaces.Overrides = map[string]Limit{"prod/shop": {Series: 2}}
	})
	in := func(n int, cluster string) labels.Labels {
		return series("m", "n", strconv.Itoa(n), "cluster", cluster, "namespace", "shop")
	}
	wantAnswer(t, db, writeOf(t, 0, in(1, "prod"), in(2, "prod"), in(1, "dev")), 204)
	wantAnswer(t, db, writeOf(t, 0, in(3, "prod")), 400, "2 of 2")
	wantAnswer(t, db, writeOf(t, 0, in(2, "dev")), 400, "1 of 1")
}

func TestLimitsNameTheFieldAndTheRemedy(t *testing.T) {
	for want, change := range map[string]func(*Limits){
		"limits.series is 0: give 1 to":                      func(l *Limits) { l.Series = 0 },
		"limits.requests is 0: give 1 to":                    func(l *Limits) { l.Requests = 0 },
		"limits.clusters.default.series is 0: give 1 to":     func(l *Limits) { l.Clusters.Default.Series = 0 },
		"limits.namespaces.default.burst is -1":              func(l *Limits) { l.Namespaces.Default.Burst = -1 },
		"limits.senders.default.samples_per_second is 0":     func(l *Limits) { l.Senders.Default.SamplesPerSecond = 0 },
		`limits.clusters.overrides."a".series is -5: give 0`: func(l *Limits) { l.Clusters.Overrides = map[string]Limit{"a": {Series: -5}} },
		`limits.clusters.overrides."a".requests is 5: requests can be bounded for senders alone`: func(l *Limits) {
			l.Clusters.Overrides = map[string]Limit{"a": {Requests: 5}}
		},
		`limits.senders.overrides."10.0.0.1:80": give the sender's address without a port`: func(l *Limits) {
			l.Senders.Overrides = map[string]Limit{"10.0.0.1:80": {}}
		},
		"limits.labels is 0":        func(l *Limits) { l.Labels = 0 },
		"limits.label_name is 0":    func(l *Limits) { l.LabelName = 0 },
		"limits.label_value is 0":   func(l *Limits) { l.LabelValue = 0 },
		"limits.label_bytes is 0":   func(l *Limits) { l.LabelBytes = 0 },
		"limits.exemplars is 99999": func(l *Limits) { l.Exemplars = 99999 },
		"limits.senders.overrides has 10001 entries": func(l *Limits) {
			l.Senders.Overrides = map[string]Limit{}
			for i := range maxOverrides + 1 {
				l.Senders.Overrides[strconv.Itoa(i)] = Limit{}
			}
		},
	} {
		c := DefaultConfig()
		change(&c.Limits)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestLabelsBeyondTheLimitsAreRefusedByName(t *testing.T) {
	db := openTest(t, func(c *Config) {
		c.Limits.Labels, c.Limits.LabelName, c.Limits.LabelValue, c.Limits.LabelBytes = 3, 10, 20, 60
	})
	for want, ls := range map[string]labels.Labels{
		"has 4 labels, at most 3 are taken: drop some by relabelling, or raise limits.labels": series("m", "a", "1", "b", "2", "c", "3"),
		"has a label name of 11 bytes, at most 10 are taken":                                  series("m", "abcdefghijk", "1"),
		`the value of label "a" has 21 bytes, at most 20 are taken`:                           series("m", "a", strings.Repeat("x", 21)),
		"bytes of labels, at most 60 are taken":                                               series("m", "a", strings.Repeat("x", 19), "b", strings.Repeat("x", 500)),
	} {
		wantAnswer(t, db, writeOf(t, 0, ls, series("good", "a", strings.Repeat("x", 20))), 400, want, "1 of 2 samples refused")
	}
	if n := testutil.ToFloat64(db.metrics.samples.WithLabelValues(string(LabelLimit))); n != 4 {
		t.Errorf("counted %v, want 4", n)
	}
	// Labels are told as far as an answer can hold them.
	rec := answered(db, writeOf(t, 0, series("m", "a", strings.Repeat("ä", 100_000))))
	if rec.Code != 400 || rec.Body.Len() > 2*maxLabelText || !strings.Contains(rec.Body.String(), "…") {
		t.Errorf("answered %d with %d bytes", rec.Code, rec.Body.Len())
	}
}

// Guards the figures of the limiter against drifting from what the database
// has: with tables far too small, each series is taken off where it was added.
func TestTenantsBeyondTheTableShareOnePlaceAndNoSeriesIsCountedWrongly(t *testing.T) {
	now := base
	l := newLimiter(DefaultLimits(), slog.New(slog.DiscardHandler), func() time.Time { return now })
	l.most = map[scope]int{scopeCluster: 3, scopeNamespace: 5, scopeSender: 2}
	random := rand.New(rand.NewPCG(1, 2))
	alive := map[chunks.HeadSeriesRef]labels.Labels{}
	var next chunks.HeadSeriesRef
	shared := 0
	for step := range 20_000 {
		if grow := step/500%2 == 0; random.IntN(10) < 7 == grow {
			ls := series("m", "cluster", fmt.Sprint("c", random.IntN(5)), "namespace", []string{"", "a", "b", "c"}[random.IntN(4)])
			next++
			alive[next] = ls
			l.PostCreation(ls)
			sender, wait := l.enter(fmt.Sprintf("10.0.0.%d:1", random.IntN(4)))
			if wait != nil {
				t.Fatal(wait)
			}
			l.bring(storage.SeriesRef(next), sender)
			l.leave(sender)
		} else {
			for ref, ls := range alive {
				delete(alive, ref)
				l.PostDeletion(map[chunks.HeadSeriesRef]labels.Labels{ref: ls})
				break
			}
		}
		now = now.Add(time.Second)
		clusters, namespaces, senders := 0, 0, l.otherPeer.series
		for _, t := range l.clusters {
			clusters += t.series
			if t.rest != nil {
				namespaces += t.rest.series
			}
		}
		for _, t := range l.namespaces {
			namespaces += t.series
		}
		for _, t := range l.senders {
			senders += t.series
		}
		clusters += l.otherTown.series
		if l.otherTown.rest != nil {
			namespaces += l.otherTown.rest.series
		}
		with := 0
		for _, ls := range alive {
			if ls.Get("namespace") != "" {
				with++
			}
		}
		if l.all.series != len(alive) || clusters != len(alive) || namespaces != with || senders != len(alive) {
			t.Fatalf("step %d: %d series, %d with a namespace; counted %d, in clusters %d, in namespaces %d, by senders %d",
				step, len(alive), with, l.all.series, clusters, namespaces, senders)
		}
		if len(l.clusters) > 3 || len(l.namespaces) > 5 || len(l.senders) > 2 {
			t.Fatalf("step %d: %d clusters, %d namespaces, %d senders have a place", step, len(l.clusters), len(l.namespaces), len(l.senders))
		}
		if l.otherTown.series > 0 {
			shared++
		}
	}
	for ref, ls := range alive {
		l.PostDeletion(map[chunks.HeadSeriesRef]labels.Labels{ref: ls})
	}
	// When the rest is gone, who comes next has a place of its own.
	now = now.Add(2 * sweepEvery)
	l.PostCreation(series("m", "cluster", "new", "namespace", "x"))
	if l.clusters["new"] == nil || l.clusters["new"].series != 1 || len(l.namespaces) == 0 {
		t.Errorf("the new cluster has no place: %d clusters, %d namespaces", len(l.clusters), len(l.namespaces))
	}
	if shared == 0 {
		t.Error("the tables never overflowed: the test is void")
	}
}

func TestSeriesOfATenantThatLostItsPlaceAreTakenFromItsNewOne(t *testing.T) {
	now := base
	db := openTest(t, func(c *Config) {
		c.Now = func() time.Time { return now }
		c.Limits.Namespaces.Default = Limit{Series: 10, SamplesPerSecond: 1, Burst: 1}
	})
	db.limiter.most = map[scope]int{scopeCluster: 5, scopeNamespace: 1, scopeSender: 5}
	a, b := series("m", "namespace", "a"), series("m", "namespace", "b")
	h := handle(t, db, a) // takes the only place, and no series
	was := h.tenant.Load()
	now = now.Add(2 * sweepEvery)
	handle(t, db, b)
	if !was.gone {
		t.Fatal("an idle namespace kept its place: the test is void")
	}
	db.limiter.most[scopeNamespace] = 2
	app := db.Appender(t.Context())
	app.sender = db.limiter.otherPeer
	for i := range 3 {
		if err := app.AppendTo(h, 0, ms(time.Duration(i)), 1); err != nil {
			t.Fatal(err)
		}
	}
	defer app.Rollback()
	if wait := db.limiter.take(app); wait != nil {
		t.Fatal(wait)
	}
	if is := h.tenant.Load(); is == was || is.gone || is.name != "/a" || is.samples.tokens != -2 {
		t.Errorf("the samples went to %+v", is)
	}
}

func TestExemplarsOfOneSeriesInARequestAreBoundedAndTheNewestStay(t *testing.T) {
	for _, lone := range []bool{false, true} {
		t.Run(fmt.Sprintf("lone=%v", lone), func(t *testing.T) {
			db := openTest(t, func(c *Config) { c.Limits.Exemplars = 3 })
			ls := prompb.FromLabels(series("m"), nil)
			req := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: ls, Samples: []prompb.Sample{{Timestamp: ms(0), Value: 1}}}}}
			for i := range 10 {
				e := prompb.Exemplar{Labels: []prompb.Label{{Name: "trace_id", Value: strconv.Itoa(i)}}, Timestamp: ms(time.Duration(i) * time.Second)}
				if lone {
					req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: ls, Exemplars: []prompb.Exemplar{e}})
				} else {
					req.Timeseries[0].Exemplars = append(req.Timeseries[0].Exemplars, e)
				}
			}
			wantAnswer(t, db, v1HTTP(t, req), 204)
			if got := exemplarsOf(t, db, "m"); got != "7@7 8@8 9@9" {
				t.Errorf("kept %q", got)
			}
			if n := testutil.ToFloat64(db.metrics.exemplars.WithLabelValues("refused")); n != 7 {
				t.Errorf("counted %v as refused, want 7", n)
			}
		})
	}
}

// exemplarsOf tells trace and second of each exemplar of a metric.
func exemplarsOf(t *testing.T, db *DB, name string) string {
	t.Helper()
	q, err := db.tsdb.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Select(ms(-time.Hour), ms(time.Hour), []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range found {
		for _, e := range s.Exemplars {
			out = append(out, fmt.Sprintf("%s@%d", e.Labels.Get("trace_id"), (e.Ts-ms(0))/1000))
		}
	}
	return strings.Join(out, " ")
}

// BenchmarkTake is what the limits of rates cost a request of 10,000 samples.
func BenchmarkTake(b *testing.B) {
	db := openTest(b)
	app := db.Appender(b.Context())
	for _, ls := range benchLabels() {
		h, err := db.Handle(ls)
		if err != nil {
			b.Fatal(err)
		}
		for range 2 {
			app.batch = append(app.batch, Sample{handle: h})
		}
	}
	app.sender = db.limiter.otherPeer
	app.sender.samples.tokens = 1e18
	for b.Loop() {
		app.paid = app.paid[:0]
		for _, t := range db.limiter.touched {
			t.samples.tokens = 1e18
		}
		if wait := db.limiter.take(app); wait != nil {
			b.Fatal(wait)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(app.batch)), "ns/sample")
	app.Rollback()
}

func TestBodyThatExpandsIsBoundedForEachSenderToo(t *testing.T) {
	db := openTest(t, func(c *Config) { c.MaxDecodedBody = 4000 })
	wantAnswer(t, db, httpWrite(snappy.Encode(nil, bytes.Repeat([]byte{0}, 1<<20)), "application/x-protobuf"), 413)
	if n := db.limiter.senders["192.0.2.1"].requests; n != 0 {
		t.Errorf("%d requests of the sender are still in work", n)
	}
}
