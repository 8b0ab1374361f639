package ship

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

const (
	firstIndex  = ".ds-logs-nines.files-default-2026.11.25-000001"
	secondIndex = ".ds-logs-nines.files-default-2026.11.25-000002"
	thirdIndex  = ".ds-logs-nines.files-default-2026.11.25-000003"
)

// storesThenRolls stores a bulk, rolls over and breaks the connection.
func storesThenRolls(to string) reply {
	return func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
		c.itemsOf(s, nil)
		c.rollover(to)
		breaksAfterOnly(w)
	}
}

func breaksAfterOnly(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	conn.Close()
}

func (f *fixture) paths() []string {
	f.cluster.mu.Lock()
	defer f.cluster.mu.Unlock()
	var all []string
	for _, s := range f.cluster.seen {
		if !strings.Contains(s.path, "template") && !strings.HasSuffix(s.path, "/_settings") {
			all = append(all, s.path)
		}
	}
	return all
}

func mgetOf(index string) string { return "/" + index + "/_mget" }

func TestRecordWithoutAnAnswerIsFoundInTheIndexBeforeTheRollover(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "z", Stored) // tells the index
		f.cluster.script = []reply{storesThenRolls(secondIndex)}
		f.ship(t, "a b", sent(AlreadyStored, 2)...)
		if want := []string{"/_bulk", "/_bulk", mgetOf(firstIndex)}; !slices.Equal(f.paths(), want) {
			t.Errorf("requests %q, want %q: what is found is not sent again", f.paths(), want)
		}
		if got := counts(f.set); got != "already_stored=2 ok=1 retried=1" {
			t.Errorf("counts %q", got)
		}
		golden(t, "mget.request", f.cluster.requests(mgetOf(firstIndex))[0].page(t))
	})
}

// No answer ever came: the agent was killed after its first request, and the
// stream rolled over meanwhile, even twice.
func TestIndicesThatNoAnswerToldOfAreAskedFor(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = ".ds-a"
		f.cluster.rollover(firstIndex)
		f.cluster.stored["a"] = "{}"
		f.cluster.rollover(secondIndex)
		records := recordsOf("a", "b")
		for i := range records {
			records[i].Uncertain = true
		}
		verdicts, err := f.Ship(t.Context(), records)
		if want := []Verdict{AlreadyStored, Stored}; err != nil || !slices.Equal(verdicts, want) {
			t.Errorf("%v, %v, want %v", verdicts, err, want)
		}
		if want := []string{mgetOf(firstIndex), mgetOf(secondIndex), "/_bulk"}; !slices.Equal(f.paths(), want) {
			t.Errorf("requests %q, want %q", f.paths(), want)
		}
		f.ship(t, "c", Stored)
		if n := len(f.cluster.requests("/logs-nines.files-default/_settings")); n != 1 {
			t.Errorf("the indices were asked for %d times", n)
		}
	})
}

// What speaks _bulk alone, without data streams, is not asked for ever.
func TestServerWithoutDataStreamsIsNotAskedForEver(t *testing.T) {
	for _, body := range []string{`{"acknowledged":true}`, "not found", ""} {
		if got := ofSettings([]byte(body)); len(got) > 0 {
			t.Errorf("%q names %q", body, got)
		}
	}
}

func FuzzSettingsAnswer(f *testing.F) {
	f.Add([]byte(`{".ds-x-000002":{"settings":{"index":{"creation_date":"2000"}}},".ds-x-000001":{"settings":{"index":{"creation_date":"1000"}}}}`))
	f.Add([]byte(`{"":{},"a":null,"b":{"settings":{"index":{"creation_date":"soon"}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		indices := ofSettings(body)
		if slices.Contains(indices, "") || len(indices) > 0 && !bytes.Contains(body, []byte("creation_date")) {
			t.Errorf("%q", indices)
		}
	})
}

func TestOnlyWhatIsNotFoundIsSentAgain(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "b", Stored)
		f.cluster.script = []reply{func(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
			c.rollover(secondIndex)
			breaksAfterOnly(w)
		}}
		f.ship(t, "a b c", Stored, AlreadyStored, Stored)
		if got, want := f.cluster.bulks(), []string{"b", "a b c", "a c"}; !slices.Equal(got, want) {
			t.Errorf("bulks %q, want %q", got, want)
		}
		if got := counts(f.set); got != "already_stored=1 ok=2 retried=1" {
			t.Errorf("counts %q", got)
		}
	})
}

// Each failure that leaves the fate of records open, and each that does not.
func TestOnlyUncertainRecordsAreLookedFor(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer reply
		looks  bool
	}{
		{"connection broken", breaksAfter(""), true},
		{"no answer in time", silent, true},
		{"answer broken off", breaksAfter("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), true},
		{"fewer items", first(1), true},
		{"no JSON", whole(200, "<html>"), true},
		{"item without a status", items(map[string]string{"a": "{}"}), true},
		{"request 500", whole(500, ""), true},
		{"request 502", whole(502, ""), true},
		{"request 503", whole(503, ""), true},
		{"request 429", whole(429, ""), false},
		{"request 401", whole(401, ""), false},
		{"request 413", whole(413, ""), false},
		{"item 429", items(map[string]string{"a": tooBusy}), false},
		{"item 503", items(map[string]string{"a": away}), false},
		{"held", items(map[string]string{"a": blocked}), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.index = firstIndex
				f.ship(t, "z", Stored)
				f.cluster.script = []reply{test.answer}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if _, err := f.Ship(ctx, recordsOf("a", "b")); err != nil {
					t.Fatal(err)
				}
				if got := slices.Contains(f.paths(), mgetOf(firstIndex)); got != test.looks {
					t.Errorf("requests %q, want a look: %v", f.paths(), test.looks)
				}
				if !f.cluster.has("a", "b") {
					t.Error("not all are stored")
				}
			})
		})
	}
}

func TestConnectionThatIsRefusedLeavesNoDoubt(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "z", Stored)
		f.conns.CloseIdleConnections()
		f.cluster.refused = 2
		f.ship(t, "a", Stored)
		if want := []string{"/_bulk", "/_bulk"}; !slices.Equal(f.paths(), want) {
			t.Errorf("requests %q, want %q", f.paths(), want)
		}
	})
}

func TestRecordThatAnEarlierRunMayHaveSentIsLookedFor(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "a b", sent(Stored, 2)...)
		f.cluster.rollover(secondIndex)
		records := recordsOf("a", "c", "d")
		records[0].Uncertain, records[1].Uncertain = true, true
		got, err := f.Ship(t.Context(), records)
		if err != nil || !slices.Equal(got, []Verdict{AlreadyStored, Stored, Stored}) {
			t.Errorf("%v, %v", got, err)
		}
		look := f.cluster.requests(mgetOf(firstIndex))
		if len(look) != 2 || string(look[0].body) != `{"ids":["a","c"]}` || string(look[1].body) != `{"ids":["c"]}` {
			t.Errorf("%d looks, want one before and one after for what landed elsewhere", len(look))
		}
		if got := counts(f.set); got != "already_stored=1 ok=2" {
			t.Errorf("counts %q", got)
		}
	})
}

func TestUncertainRecordsAreJustSentWhereNoIndexWasSeen(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.script = []reply{breaksAfter("")} // and this server names none
		records := recordsOf("a")
		records[0].Uncertain = true
		if got, err := f.Ship(t.Context(), records); err != nil || got[0] != AlreadyStored {
			t.Errorf("%v, %v", got, err)
		}
		if want := []string{"/_bulk", "/_bulk"}; !slices.Equal(f.paths(), want) {
			t.Errorf("requests %q, want %q", f.paths(), want)
		}
	})
}

// The first attempt may be under way when it is looked for. If the second one
// then lands in another index both are there.
func TestRecordThatStandsInTwoIndicesIsCountedAsADuplicate(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "z", Stored)
		var late seen
		f.cluster.script = []reply{
			func(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
				late = s
				breaksAfterOnly(w)
			},
		}
		f.cluster.lookups = []reply{func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
			look(c, w, r, s)
			late.ids = late.ids[:1]
			c.itemsOf(late, nil)
			c.rollover(secondIndex)
		}, whole(503, "")}
		f.ship(t, "a b", sent(Stored, 2)...)
		if want := []string{"/_bulk", "/_bulk", mgetOf(firstIndex), "/_bulk", mgetOf(firstIndex), mgetOf(firstIndex)}; !slices.Equal(f.paths(), want) {
			t.Errorf("requests %q, want %q", f.paths(), want)
		}
		if got := counts(f.set); got != "duplicate=1 ok=2 retried=2" {
			t.Errorf("counts %q", got)
		}
	})
}

// While one request has no answer another may learn of a newer index. The
// record is in the one before.
func TestOlderIndexIsLookedInToo(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "z", Stored)
		f.cluster.script = []reply{func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
			c.itemsOf(s, nil)
			c.rollover(secondIndex)
			<-r.Context().Done() // no answer for a minute
		}}
		var call sync.WaitGroup
		call.Go(func() { f.ship(t, "a", AlreadyStored) })
		synctest.Wait()
		f.ship(t, "y", Stored)
		call.Wait()
		if got, want := f.trail.of(StreamOfFiles("")), []string{firstIndex, secondIndex}; !slices.Equal(got, want) {
			t.Errorf("remembers %q, want %q", got, want)
		}
	})
}

func TestLateAnswerOfTheOlderIndexChangesNothing(t *testing.T) {
	trail := &trail{seen: map[string][]string{}}
	for _, step := range []struct{ index, want string }{
		{"1", "1"}, {"1", "1"}, {"2", "1 2"}, {"1", "1 2"}, {"2", "1 2"}, {"3", "2 3"}, {"2", "2 3"},
	} {
		trail.note("s", step.index)
		if got := strings.Join(trail.of("s"), " "); got != step.want {
			t.Errorf("after %s it remembers %q, want %q", step.index, got, step.want)
		}
	}
}

func TestLookThatFailsIsTriedAgainAndNothingIsSentBefore(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer reply
		hold   string
	}{
		{"busy", whole(503, ""), ""},
		{"no right to read", whole(403, `{"error":{"type":"security_exception","reason":"no"}}`), "and to read them"},
		{"broken", breaksAfter(""), ""},
		{"no JSON", whole(200, "<html>"), ""},
		{"fewer documents", whole(200, `{"docs":[]}`), ""},
		{"another document", whole(200, `{"docs":[{"_id":"b","found":true}]}`), ""},
		{"shard away", whole(200, `{"docs":[{"_id":"a","error":{"type":"no_shard_available_action_exception","reason":"r"}}]}`), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.index = firstIndex
				f.ship(t, "z", Stored)
				f.cluster.script = []reply{storesThenRolls(secondIndex)}
				f.cluster.lookups = []reply{test.answer}
				f.ship(t, "a", AlreadyStored)
				want := []string{"/_bulk", "/_bulk", mgetOf(firstIndex), mgetOf(firstIndex)}
				if !slices.Equal(f.paths(), want) {
					t.Errorf("requests %q, want %q", f.paths(), want)
				}
				looks := f.cluster.requests(mgetOf(firstIndex))
				if got := looks[1].hold; !strings.Contains(got, test.hold) || (test.hold == "") != (got == "") {
					t.Errorf("holds with %q", got)
				}
			})
		})
	}
}

func TestIndexWhoseLifeIsOverHoldsNobodyUp(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "z", Stored)
		f.cluster.index = thirdIndex // the first is gone
		records := recordsOf("a")
		records[0].Uncertain = true
		if got, err := f.Ship(t.Context(), records); err != nil || got[0] != Stored {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestWriteIndexIsOnDiskBeforeItsRecordsHaveVerdicts(t *testing.T) {
	state := t.TempDir()
	withCluster(t, func(cfg *ElasticsearchConfig) { cfg.State = state }, func(t *testing.T, f *fixture) {
		f.cluster.index = firstIndex
		f.ship(t, "a", Stored)
		golden(t, "write-indices.json", read(t, filepath.Join(state, trailFile)))
		f.cluster.rollover(secondIndex)
		// The disk is full: a folder stands where the file is to be.
		path := filepath.Join(state, trailFile)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o750); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, func() {
			if !strings.Contains(f.Hold(), "remember the write index") {
				t.Errorf("holds with %q", f.Hold())
			}
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
		f.ship(t, "b", Stored)
		if took := time.Since(began); took < time.Hour {
			t.Errorf("the verdict came after %v, before the index was on disk", took)
		}
		if got := f.cluster.bulks(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("bulks %q: what is stored is not sent again", got)
		}
	})
	again, err := openTrail(state, quiet)
	if err != nil || !slices.Equal(again.of(StreamOfFiles("")), []string{firstIndex, secondIndex}) {
		t.Errorf("%q, %v", again.of(StreamOfFiles("")), err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWriteIndicesThatAreNotUnderstoodAreToldAndBegunAnew(t *testing.T) {
	state := t.TempDir()
	if err := os.WriteFile(filepath.Join(state, trailFile), []byte("garbage"), 0o640); err != nil {
		t.Fatal(err)
	}
	told := make(lines, 9)
	e, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{"http://localhost:9200"}, DeadLetters: t.TempDir(), State: state}, slog.New(slog.NewTextHandler(told, nil)), NewMetrics(metrics.NewSet(), "elasticsearch"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if line := <-told; !strings.Contains(line, trailFile) {
		t.Errorf("logged %q", line)
	}
}
