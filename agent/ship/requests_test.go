package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// golden compares with the file in testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -update writes it anew. Got:\n%s", path, got)
	}
}

// page writes a request down. The length is left out where it is compressed,
// since it is the compressor's.
func (s seen) page(t *testing.T) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\nHost: %s\n", s.asked.Method, s.asked.RequestURI, s.asked.Host)
	var names []string
	for name := range s.asked.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if name != "Content-Length" {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(s.asked.Header[name], ", "))
		}
	}
	if s.asked.ContentLength < 0 {
		t.Errorf("%s is sent in chunks: some proxies refuse those", s.asked.RequestURI)
	}
	fmt.Fprintf(&b, "\n%s", s.body)
	return b.String()
}

func password(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRequestsAreTheGoldenOnes(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) {
		cfg.URLs = []string{"http://elasticsearch:9200/behind/a/proxy/"}
		cfg.Username, cfg.PasswordFile = "nines", password(t, "secret of the test\r\n")
	}, func(t *testing.T, f *fixture) {
		records := recordsOf("plain-1", `odd "\`+"\x00\x7f\xff\u2028é")
		records[1].Stream = `logs-"é"`
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := f.Ship(ctx, records); err != nil {
			t.Fatal(err)
		}
		bulk := f.cluster.requests("/behind/a/proxy/_bulk")
		if len(bulk) != 1 {
			t.Fatalf("the cluster saw %d bulks, want one", len(bulk))
		}
		var all strings.Builder
		for _, s := range f.cluster.seen {
			if s.path != bulk[0].path {
				all.WriteString(s.page(t) + "\n")
			}
		}
		golden(t, "templates.request", all.String())
		golden(t, "bulk.request", bulk[0].page(t))
		if !bytes.HasSuffix(bulk[0].body, []byte("}\n")) || bytes.HasSuffix(bulk[0].body, []byte("\n\n")) {
			t.Error("a body of _bulk ends with one newline")
		}
		for line := range bytes.Lines(bulk[0].body) {
			if !json.Valid(line) {
				t.Errorf("%q is no JSON", line)
			}
		}
	})
}

func TestPauseDoublesUpToHalfAMinuteAndBeginsAnewAfterSuccess(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		for range 9 {
			f.cluster.script = append(f.cluster.script, whole(503, ""))
		}
		f.cluster.script = append(f.cluster.script, items(map[string]string{"b": tooBusy}))
		f.ship(t, "a b", sent(Stored, 2)...)
		all := f.cluster.requests("/_bulk")
		if len(all) != 11 {
			t.Fatalf("%d requests, want 11", len(all))
		}
		longest := firstPause
		for i := 1; i < len(all); i++ {
			if i == len(all)-1 {
				longest = firstPause // "a" was stored
			}
			if pause := all[i].at - all[i-1].at; pause < longest/2 || pause > longest {
				t.Errorf("pause %d takes %v, want %v to %v", i, pause, longest/2, longest)
			}
			longest = min(2*longest, maxPause)
		}
	})
}

func TestRequestsThatMakeOneMoreTryAreTold(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		for range 4 {
			f.cluster.script = append(f.cluster.script, whole(503, "no backend"))
		}
		f.ship(t, "a", Stored)
		var holds []string
		for _, s := range f.cluster.requests("/_bulk") {
			holds = append(holds, s.hold)
		}
		const why = "503 Service Unavailable: no backend"
		if want := []string{"", "", "", why, why}; !slices.Equal(holds, want) {
			t.Errorf("holds with %q, want %q: what the next attempt heals is nobody's to repair", holds, want)
		}
		log := f.logged.String()
		if n := strings.Count(log, "\n"); n != 2 || strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, `msg="log records are taken again"`) {
			t.Errorf("%d lines logged, want one when it waits and one when it is over:\n%s", n, log)
		}
	})
}

func TestServerThatIsAwayIsWaitedFor(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.refused = 20
		f.ship(t, "a b", sent(Stored, 2)...)
		if took := time.Since(began); took < 3*time.Minute || took > 10*time.Minute {
			t.Errorf("took %v for 20 attempts", took)
		}
		if got := counts(f.set); got != "ok=1 retried=20" {
			t.Errorf("counts %q", got)
		}
		if !strings.Contains(f.logged.String(), errAway.Error()) {
			t.Errorf("the log does not say why:\n%s", f.logged)
		}
	})
}

func TestOtherAddressIsTriedWhenOneIsAway(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) {
		cfg.URLs = []string{"http://one:9200", "http://two:9200/"}
	}, func(t *testing.T, f *fixture) {
		dial := f.conns.DialContext
		f.conns.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "one:9200" {
				return nil, errAway
			}
			return dial(ctx, network, address)
		}
		f.ship(t, "a", Stored)
		f.ship(t, "b", Stored)
		if got := counts(f.set); got != "hosts_unreachable=1 ok=2 retried=1" {
			t.Errorf("counts %q, want one attempt at the address that is away", got)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v: another address is tried at once", took)
		}
	})
}

func TestHostsThatDoNotAnswerAreCountedAndDoNotSlowRequests(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) {
		cfg.URLs = []string{"http://one:9200", "http://two:9200", "http://three:9200"}
	}, func(t *testing.T, f *fixture) {
		dial := f.conns.DialContext
		var mu sync.Mutex
		away := map[string]bool{"one:9200": true, "three:9200": true}
		tried := map[string]int{}
		f.conns.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			tried[address]++
			if away[address] {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			}
			return dial(ctx, network, address)
		}
		for i := range 50 {
			f.ship(t, fmt.Sprint(i), Stored)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("50 requests took %v", took)
		}
		if tried["one:9200"] != 1 || tried["three:9200"] != 1 || f.hosts.unreachable() != 2 {
			t.Errorf("tried %v, %d unreachable", tried, f.hosts.unreachable())
		}
		mu.Lock()
		clear(away)
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		for i := range 3 {
			f.ship(t, fmt.Sprintf("later-%d", i), Stored)
		}
		if f.hosts.unreachable() != 0 {
			t.Errorf("%d unreachable after all came back", f.hosts.unreachable())
		}
	})
}

func TestBulkGoesElsewhereAtOnceWhenItsHostRefuses(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) {
		cfg.URLs = []string{"http://one:9200", "http://two:9200"}
	}, func(t *testing.T, f *fixture) {
		f.ship(t, "a", Stored) // with the templates
		f.conns.CloseIdleConnections()
		f.cluster.mu.Lock()
		f.cluster.refused = 1
		f.cluster.mu.Unlock()
		f.ship(t, "b", Stored)
		if took := time.Since(began); took != 0 || f.hosts.unreachable() != 1 {
			t.Errorf("took %v, %d unreachable", took, f.hosts.unreachable())
		}
	})
}

func TestAllHostsAwayAreWaitedFor(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) {
		cfg.URLs = []string{"http://one:9200", "http://two:9200"}
	}, func(t *testing.T, f *fixture) {
		f.cluster.refused = 12
		f.ship(t, "a", Stored)
		if took := time.Since(began); took < time.Minute {
			t.Errorf("took %v for 12 attempts, want pauses", took)
		}
	})
}

func TestRequestWithoutAnAnswerIsSentAgain(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.script = []reply{silent}
		f.ship(t, "a b", sent(Stored, 2)...)
		all := f.cluster.requests("/_bulk")
		if len(all) != 2 || all[1].at < time.Minute || all[1].at > time.Minute+firstPause {
			t.Fatalf("%d requests, the second after %v, want two and a minute", len(all), all[len(all)-1].at)
		}
		if got := counts(f.set); got != "ok=1 retried=1" {
			t.Errorf("counts %q", got)
		}
	})
}

func TestAnswerThatNeverEndsIsSentAgain(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.script = []reply{func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
			c.itemsOf(s, nil)
			w.Write([]byte(`{"items":[`))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}}
		f.ship(t, "a", AlreadyStored)
		if all := f.cluster.requests("/_bulk"); len(all) != 2 || all[1].at < time.Minute || all[1].at > time.Minute+firstPause {
			t.Fatalf("%d requests, the last after %v, want two and a minute", len(all), all[len(all)-1].at)
		}
	})
}

func TestOneRecordTooLargeDoesNotMakeTheOthersGoOneByOne(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		const n, large = 1024, 400
		ids := make([]string, n)
		want := sent(Stored, n)
		for i := range ids {
			ids[i] = fmt.Sprint(i)
		}
		want[large] = DeadLettered
		f.cluster.script = slices.Repeat([]reply{func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
			if slices.Contains(s.ids, fmt.Sprint(large)) {
				whole(413, "")(c, w, r, s)
				return
			}
			items(nil)(c, w, r, s)
		}}, n)
		f.ship(t, strings.Join(ids, " "), want...)
		if got := len(f.cluster.bulks()); got > 50 {
			t.Errorf("%d requests for %d records", got, n)
		}
		if got := idsIn(t, linesOf(t, f.folder)); got != fmt.Sprint(large) {
			t.Errorf("dead letters %q", got)
		}
	})
}

func TestContextThatEndsKeepsTheVerdictsThatWereReceived(t *testing.T) {
	gone := errors.New("the agent stops")
	for _, test := range []struct {
		name   string
		script []reply
		want   []Verdict
	}{
		{"in a pause", []reply{items(map[string]string{"b": tooBusy, "c": mappingError})}, []Verdict{Stored, Unknown, DeadLettered}},
		{"in a request", []reply{items(map[string]string{"b": tooBusy}), silent}, []Verdict{Stored, Unknown, Stored}},
		{"in the first request", []reply{silent}, []Verdict{Unknown, Unknown, Unknown}},
		{"while held", slices.Repeat([]reply{whole(401, "")}, 99), []Verdict{Unknown, Unknown, Unknown}},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.script = test.script
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(20*time.Second, func() { cancel(gone) })
				if test.name == "in a pause" {
					cancel := cancel
					time.AfterFunc(firstPause/4, func() { cancel(gone) })
				}
				got, err := f.Ship(ctx, recordsOf("a", "b", "c"))
				if !errors.Is(err, gone) {
					t.Errorf("error %v, want the cause", err)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("verdicts %v, want %v", got, test.want)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("came back after %v", took)
				}
			})
		})
	}
}

func TestContextThatEndedBeforeShipsNothing(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got, err := f.Ship(ctx, recordsOf("a"))
		if !errors.Is(err, context.Canceled) || !slices.Equal(got, sent(Unknown, 1)) {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestContextThatEndsWhileAnotherCallPutsTheTemplate(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.templates = []reply{silent}
		var first sync.WaitGroup
		first.Go(func() { f.ship(t, "a", Stored) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err := f.Ship(ctx, recordsOf("b"))
		if !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(got, sent(Unknown, 1)) {
			t.Errorf("%v, %v", got, err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("came back after %v, want a second", took)
		}
		first.Wait()
	})
}

func TestPasswordIsReadAgainWhenItIsRefused(t *testing.T) {
	path := password(t, "old\n")
	withCluster(t, func(cfg *ElasticsearchConfig) {
		cfg.Username, cfg.PasswordFile = "nines", path
	}, func(t *testing.T, f *fixture) {
		var got []string
		ask := func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
			_, pass, _ := r.BasicAuth()
			got = append(got, pass)
			if pass != "new" {
				whole(401, `{"error":{"type":"security_exception","reason":"unable to authenticate"}}`)(c, w, r, s)
				return
			}
			items(nil)(c, w, r, s)
		}
		f.cluster.script = slices.Repeat([]reply{ask}, 9)
		time.AfterFunc(3*time.Second, func() {
			if err := os.Remove(path); err != nil { // as a secret is swapped
				t.Error(err)
			}
		})
		time.AfterFunc(10*time.Second, func() {
			if err := os.WriteFile(path, []byte("new\n"), 0o600); err != nil {
				t.Error(err)
			}
		})
		f.ship(t, "a b", sent(Stored, 2)...)
		if n := len(got); n < 4 || slices.Index(got, "new") != n-1 || got[n-2] != "old" {
			t.Errorf("passwords %q, want the old one until the new one is read", got)
		}
		if !strings.Contains(f.logged.String(), "check username and password_file") || strings.Contains(f.logged.String(), "old") {
			t.Errorf("logged:\n%s", f.logged)
		}
	})
}

func TestDeadLettersThatCanNotBeWrittenHoldTheirRecordsAlone(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		disk := &brokenDisk{file: f.dead.f, room: 10}
		f.dead.f = disk
		time.AfterFunc(time.Minute, func() {
			disk.mu.Lock()
			defer disk.mu.Unlock()
			disk.room = 1 << 20
		})
		f.cluster.script = slices.Repeat([]reply{items(map[string]string{"b": mappingError})}, 99)
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.ship(t, "a b c", Stored, DeadLettered, Stored)
		}()
		time.Sleep(30 * time.Second)
		if !strings.Contains(f.Hold(), "free space on that disk") {
			t.Errorf("holds with %q", f.Hold())
		}
		// One that is served must not hide the one that waits.
		f.ship(t, "d", Stored)
		if !strings.Contains(f.Hold(), "free space on that disk") || !strings.Contains(counts(f.set), "held=1") {
			t.Errorf("holds with %q, %s", f.Hold(), counts(f.set))
		}
		<-done
		if f.Hold() != "" {
			t.Errorf("still holds: %s", f.Hold())
		}
		if got := idsIn(t, linesOf(t, f.folder)); got != "b" {
			t.Errorf("dead letters %q, want b once", got)
		}
		if all := f.cluster.bulks(); all[0] != "a b c" || slices.ContainsFunc(all[1:], func(ids string) bool { return ids != "b" && ids != "d" }) {
			t.Errorf("the cluster saw %q, want only b again", all)
		}
		if n := strings.Count(f.logged.String(), "\n"); n != 2 {
			t.Errorf("%d lines logged, want 2:\n%s", n, f.logged)
		}
	})
}

func TestAnswerThatComesBeforeTheBodyIsReadCounts(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		large := recordsOf("large")
		large[0].Doc = append(append([]byte(`{"x":"`), noise(1<<20)...), `"}`...)
		f.cluster.early = func(w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength > 1<<19 {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return true
			}
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if got, err := f.Ship(ctx, large); err != nil || got[0] != DeadLettered {
			t.Errorf("%v, %v", got, err)
		}
		f.ship(t, "a b", sent(Stored, 2)...)
	})
}

func TestConcurrentCallsEachGetTheirVerdicts(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.script = slices.Repeat([]reply{
			whole(429, ""), items(map[string]string{"3-poison": mappingError, "7-poison": mappingError}), breaksAfter(""), whole(413, ""),
		}, 10)
		var calls sync.WaitGroup
		for i := range 8 {
			calls.Go(func() {
				records := recordsOf(fmt.Sprintf("%d-a", i), fmt.Sprintf("%d-poison", i), fmt.Sprintf("%d-b", i))
				got, err := f.Ship(t.Context(), records)
				if err != nil || slices.Contains(got, Unknown) {
					t.Errorf("%v, %v", got, err)
				}
				for k, v := range got {
					if v != DeadLettered && !f.cluster.has(records[k].ID) {
						t.Errorf("%s has verdict %v and is not stored", records[k].ID, v)
					}
				}
			})
		}
		calls.Wait()
	})
}
