package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

func openSource(t *testing.T, where string) Source {
	t.Helper()
	s, err := OpenSource(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func byName(name string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)
}

// readSource returns what a source has of a metric, as brief does.
func readSource(s Source, mint, maxt int64, name string) (string, error) {
	q, err := s.Querier(mint, maxt)
	if err != nil {
		return "", err
	}
	set := q.Select(context.Background(), true, nil, byName(name))
	var out []string
	for set.Next() {
		ls := set.At().Labels()
		var got []Sample
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			x := Sample{T: it.AtT(), ST: it.AtST()}
			switch typ {
			case chunkenc.ValFloat:
				_, x.V = it.At()
			default:
				_, fh := it.AtFloatHistogram(nil)
				x.V = fh.Count
			}
			got = append(got, x)
		}
		if err := it.Err(); err != nil {
			return "", err
		}
		out = append(out, ls.Get("n")+": "+brief(got))
	}
	err = errors.Join(set.Err(), q.Close())
	return strings.Join(out, ", "), err
}

func wantRead(t *testing.T, s Source, from, to time.Duration, want string) {
	t.Helper()
	if got, err := readSource(s, ms(from), ms(to), "m"); err != nil || got != want {
		t.Errorf("%s from %s to %s: read %q, %v, want %q", s.Describe(), from, to, got, err, want)
	}
}

// state is what must not change in a folder that is only read.
func state(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		sys := info.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime(), sys.Nlink, sys.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Blocks, the log, late samples and start timestamps are read, from a store
// that runs and one that has ended.
func TestFolderOfAStoreIsReadAndNotChanged(t *testing.T) {
	now := base.Add(-10 * time.Hour)
	cfg := testConfig(filepath.Join(t.TempDir(), "metrics"))
	cfg.Now = func() time.Time { return now }
	db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	write := func(at, st time.Duration, v float64) {
		t.Helper()
		if err := put(t, db, series("m", "n", "x"), Sample{T: ms(at), ST: ms(st), V: v}); err != nil {
			t.Fatal(err)
		}
	}
	write(-10*time.Hour, -11*time.Hour, 1)
	now = base
	write(-time.Minute, -11*time.Hour, 4)
	if err := db.tsdb.CompactHead(tsdb.NewRangeHead(db.tsdb.Head(), ms(-10*time.Hour), ms(-2*time.Hour)-1)); err != nil {
		t.Fatal(err)
	}
	write(0, -11*time.Hour, 5)
	write(-time.Hour, 0, 3) // late, without a start
	const all = "x: 1@-36000/-39600 3@-3600 4@-60/-39600 5@0/-39600"
	check := func(name string) {
		t.Run(name, func(t *testing.T) {
			before := state(t, cfg.Dir)
			s := openSource(t, cfg.Dir)
			wantRead(t, s, -24*time.Hour, time.Hour, all)
			wantRead(t, s, -time.Minute, -time.Minute, "x: 4@-60/-39600")
			wantRead(t, s, -9*time.Hour, -2*time.Hour, "")
			if oldest, ok := s.MinTime(); !ok || oldest.UnixMilli() != ms(-10*time.Hour) {
				t.Errorf("the oldest is %v, %v", oldest, ok)
			}
			blocks := map[string]int{"running": 1, "ended": 2, "killed": 1}[name] // late samples are in one of their own then
			if d := s.Describe(); !strings.Contains(d, fmt.Sprintf("%s (%d blocks and the log)", cfg.Dir, blocks)) {
				t.Errorf("described as %q", d)
			}
			if err := s.Check(t.Context(), base.Add(-time.Hour), base, byName("m")); err != nil {
				t.Error(err)
			}
			var none *NoDataError
			err := s.Check(t.Context(), base.Add(-9*time.Hour), base.Add(-2*time.Hour), byName("m"))
			if !errors.As(err, &none) || !strings.Contains(err.Error(), `no samples of {__name__="m"} from 2026-11-22T23:00:00Z to 2026-11-23T06:00:00Z: what it has goes from 2026-11-22T22:00:00Z to 2026-11-23T08:00:00Z`) {
				t.Errorf("nothing there: %v", err)
			}
			if err := s.Check(t.Context(), base.Add(-9*time.Hour), base.Add(-2*time.Hour)); !errors.As(err, &none) {
				t.Errorf("nothing of anything there: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if after := state(t, cfg.Dir); after != before {
				t.Errorf("the folder was changed: before\n%s\nafter\n%s", before, after)
			}
			if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			s.(*folder).blocks, s.(*folder).head, s.(*folder).temp = nil, nil, "" // closed already
		})
	}
	t.Setenv("TMPDIR", t.TempDir())
	check("running")
	// As a process that was killed leaves it: half a record.
	torn := copyDir(t, cfg.Dir)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	check("ended")
	logs, err := filepath.Glob(filepath.Join(torn, "wal", "0*"))
	if err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}
	f, err := os.OpenFile(logs[len(logs)-1], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{1, 200, 0, 1, 2, 3, 4, 5}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = torn
	check("killed")
}

// As Prometheus writes it: other chunk encodings, no start timestamps.
func TestFolderWrittenByTheDatabaseItselfIsRead(t *testing.T) {
	dir := t.TempDir()
	pdb, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	app := pdb.AppenderV2(t.Context())
	for i := range 3 {
		if _, err := app.Append(0, series("m", "n", "x"), 0, ms(time.Duration(i)*time.Minute), float64(i), nil, nil, storage.AOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := app.Append(0, series("h"), 0, ms(0), 0, testHistogram(), nil, storage.AOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	s := openSource(t, dir)
	wantRead(t, s, 0, time.Hour, "x: 0@0 1@60 2@120")
	if got, err := readSource(s, ms(0), ms(0), "h"); err != nil || got != ": 3@0" {
		t.Errorf("histogram: %q, %v", got, err)
	}
	if err := pdb.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFolderThatIsNoneGivesARemedy(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	if err := os.MkdirAll(filepath.Join(parent, "metrics", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	block := filepath.Join(broken, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
	if err := errors.Join(os.Mkdir(block, 0o700), os.WriteFile(filepath.Join(block, "meta.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]string{
		filepath.Join(dir, "none"):       "no such file",
		file:                             "is a file",
		dir:                              "--storage.tsdb.path",
		parent:                           filepath.Join(parent, "metrics") + " is: give that",
		filepath.Join(parent, "metrics"): "is empty",
		broken:                           "is damaged",
		"":                               "give a folder",
		"s3://bucket":                    "begins with http:// or https://",
		"http://":                        "has no host",
		"http://u:secret@[::1":           "cannot be read",
	} {
		s, err := OpenSource(t.Context(), where)
		if err == nil {
			t.Errorf("%q was opened as %s", where, s.Describe())
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q in it", where, err, want)
		}
	}
}

// sourceServer serves a store with two series, and what change does to it.
func sourceServer(t *testing.T, change func(http.Handler) http.Handler) string {
	t.Helper()
	db := openTest(t)
	for i, n := range []string{"x", "y"} {
		if err := put(t, db, series("m", "n", n), Sample{T: ms(-time.Hour), V: 1, ST: ms(-2 * time.Hour)}, Sample{T: ms(-time.Minute), V: 2}, Sample{T: ms(0), V: float64(3 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	h := db.API(prometheus.NewRegistry())
	if change != nil {
		h = change(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// withoutRead is a server that does not serve remote read.
func withoutRead(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/read") {
			http.Error(w, "unsupported path requested", http.StatusBadRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestURLIsReadByRemoteReadOrByQueries(t *testing.T) {
	for _, tc := range []struct {
		how    string
		change func(http.Handler) http.Handler
		start  string // of the oldest sample
	}{{"remote read", nil, "/-7200"}, {"queries", withoutRead, ""}} {
		t.Run(tc.how, func(t *testing.T) {
			where := sourceServer(t, tc.change)
			for _, suffix := range []string{"", "/", "/api/v1", "/api/v1/"} {
				s := openSource(t, where+suffix)
				if want := where + " (by " + tc.how + ")"; s.Describe() != want {
					t.Errorf("described as %q, want %q", s.Describe(), want)
				}
				wantRead(t, s, -time.Hour, 0, "x: 1@-3600"+tc.start+" 2@-60 3@0, y: 1@-3600"+tc.start+" 2@-60 4@0")
				wantRead(t, s, -time.Hour+time.Millisecond, -time.Millisecond, "x: 2@-60, y: 2@-60")
				wantRead(t, s, -time.Minute, -time.Minute, "x: 2@-60, y: 2@-60")
				wantRead(t, s, time.Hour, 2*time.Hour, "")
				var none *NoDataError
				if err := s.Check(t.Context(), base.Add(-time.Hour), base, byName("m")); err != nil {
					t.Error(err)
				}
				if err := s.Check(t.Context(), base.Add(-time.Hour), base, byName("other")); !errors.As(err, &none) || !strings.Contains(err.Error(), "check the times") {
					t.Errorf("nothing there: %v", err)
				}
			}
		})
	}
}

func TestURLAsksForThePasswordAndNeverTellsIt(t *testing.T) {
	where := sourceServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != "me" || p != "secret" {
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			if r.URL.Query().Get("extra") != "1" {
				http.Error(w, "the parameter is lost", http.StatusTeapot)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	u, err := url.Parse(where + "?extra=1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSource(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "give user and password in the URL") {
		t.Errorf("without a password: %v", err)
	}
	u.User = url.UserPassword("me", "wrong-secret")
	if _, err := OpenSource(t.Context(), u.String()); err == nil || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("with a wrong one: %v", err)
	}
	u.User = url.UserPassword("me", "secret")
	s := openSource(t, u.String())
	wantRead(t, s, -time.Minute, -time.Minute, "x: 2@-60, y: 2@-60")
	if strings.Contains(s.Describe(), "secret") {
		t.Errorf("described as %s", s.Describe())
	}
}

// Faults come when the source is open, in each way of reading.
func TestFaultsOfAServerAreErrorsNotMissingSamples(t *testing.T) {
	cut := func(next http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
			_, _ = w.Write(rec.Body.Bytes()[:max(0, rec.Body.Len()-5)]) // the test looks at the reader
		}
	}
	say := func(code int, kind, text string) func(http.Handler) http.HandlerFunc {
		return func(http.Handler) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(code)
				fmt.Fprint(w, text)
			}
		}
	}
	for name, tc := range map[string]struct {
		fault func(http.Handler) http.HandlerFunc
		want  string
	}{
		"500":        {say(500, "text/plain", "oh no"), `answered 500 Internal Server Error, "oh no": the server is overloaded`},
		"json error": {say(422, "application/json", `{"status":"error","error":"too many samples"}`), `"too many samples": the server cannot answer this`},
		"404":        {say(404, "text/html", "<html>"), "give the URL that /api/v1 comes behind"},
		"login page": {say(200, "text/html; charset=utf-8", "<html>"), "the answer is a web page"},
		"cut":        {cut, "broke"},
		"garbage":    {say(200, "application/x-protobuf", "garbage"), "answer"},
		"an array":   {say(200, "application/json", `[]`), "answer"},
		"no success": {say(200, "application/json", `{"status":"partial","data":{"resultType":"matrix","result":[]}}`), "answer"},
	} {
		for _, change := range []func(http.Handler) http.Handler{func(h http.Handler) http.Handler { return h }, withoutRead} {
			faulty := false
			where := sourceServer(t, func(next http.Handler) http.Handler {
				next = change(next)
				bad := tc.fault(next)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if faulty {
						bad(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			s := openSource(t, where)
			faulty = true
			t.Run(name+"/"+s.Describe()[strings.Index(s.Describe(), "("):], func(t *testing.T) {
				want := tc.want
				if name == "cut" && !s.(*server).read {
					want = "breaks off"
				}
				got, err := readSource(s, ms(-time.Hour), ms(0), "m")
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/api/v1/") {
					t.Errorf("read %q, error %v, want %q", got, err, want)
				}
				if err := s.Check(t.Context(), base, base); name != "cut" && err == nil || errors.As(err, new(*NoDataError)) {
					t.Errorf("check: %v", err)
				}
			})
			faulty = true
			if _, err := OpenSource(t.Context(), where); err == nil && name != "cut" {
				t.Errorf("%s: opened", name)
			}
		}
	}
}

func TestServerThatIsDownOrPassinglyBrokenIsNotOpened(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	down := srv.URL
	srv.Close()
	if _, err := OpenSource(t.Context(), down); err == nil || !strings.Contains(err.Error(), "check that the server runs") {
		t.Errorf("down: %v", err)
	}
	where := sourceServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/read") {
				http.Error(w, "", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if s, err := OpenSource(t.Context(), where); err == nil {
		t.Errorf("opened as %s: queries lack what remote read has", s.Describe())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenSource(ctx, where); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestAnswerBeyondTheBoundIsAnError(t *testing.T) {
	for _, change := range []func(http.Handler) http.Handler{func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
		})
	}, withoutRead} {
		s := openSource(t, sourceServer(t, change))
		if s.(*server).read {
			continue // one series at a time
		}
		s.(*server).limit = 100
		if _, err := readSource(s, ms(-time.Hour), ms(0), "m"); err == nil || !strings.Contains(err.Error(), "ask for a shorter range") {
			t.Errorf("got %v", err)
		}
	}
}

func TestQueriesRefuseNativeHistograms(t *testing.T) {
	db := openTest(t)
	app := db.Appender(t.Context())
	if err := errors.Join(app.AppendHistogram(series("m"), 0, ms(0), testHistogram(), nil), app.Commit()); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(withoutRead(db.API(prometheus.NewRegistry())))
	defer srv.Close()
	s := openSource(t, srv.URL)
	if _, err := readSource(s, ms(-time.Hour), ms(0), "m"); err == nil || !strings.Contains(err.Error(), "native histograms") {
		t.Errorf("got %v", err)
	}
}

func FuzzAnswerOfAServer(f *testing.F) {
	f.Add([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"m"},"values":[[1.5,"2"]]}]}}`))
	f.Add([]byte(`{"status":"success","data":[{"__name__":"m"}]}`))
	f.Add([]byte(`{"data":{"result":[[]]}}`))
	u := &url.URL{Scheme: "http", Host: "x"}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := &server{base: u, limit: 1 << 20, client: &http.Client{Transport: always(body)}}
		set, err := s.queryRaw(t.Context(), 0, 1<<40, []*labels.Matcher{byName("m")})
		if err != nil {
			return
		}
		for set.Next() {
			if it := set.At().Iterator(nil); it.Next() == chunkenc.ValFloat && (it.AtT() < 0 || it.AtT() > 1<<40) {
				t.Errorf("a sample at %d", it.AtT())
			}
		}
	})
}

// always answers with the same body.
type always []byte

func (a always) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	_, err := rec.Write(a)
	rec.Header().Set("Content-Type", "application/json")
	res := rec.Result()
	res.Request = r
	return res, err
}
