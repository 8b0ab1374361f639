package fluentbit

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var at = time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.FixedZone("", 3600))

func lines(messages ...string) []Entry {
	entries := make([]Entry, len(messages))
	for i, m := range messages {
		entries[i] = Entry{Time: at, Record: map[any]any{"log": []byte(m + "\n")}}
	}
	return entries
}

func TestKeysThatAreWrongAreNamedWithTheRemedy(t *testing.T) {
	good := map[string]string{"URLs": "http://127.0.0.1:1", "Dead_Letters": t.TempDir()}
	for _, c := range []struct{ key, value, want, remedy string }{
		{"URLs", "", "URLs", "name at least one address"},
		{"URLs", " , ", "URLs", "name at least one address"},
		{"URLs", "http://a:1,b:9200", `urls[1] "b:9200"`, "must begin with http"},
		{"URLs", "http://ann:secret@a:1", "urls[0]", "Username"},
		{"Username", "ann", "Password_File", "name the file"},
		{"Password_File", "no-such-file", "Username", "name the user"},
		{"CA_File", "no-such-file", "CA_File", "no-such-file"},
		{"Dead_Letters", "", "Dead_Letters", "name a folder"},
		{"Timeout", "10", `Timeout "10"`, "such as 10s"},
		{"Timeout", "-1s", `Timeout "-1s"`, "above 0"},
	} {
		set := maps.Clone(good)
		set[c.key] = c.value
		o, err := Configure(func(key string) string { return set[key] }, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s=%q is taken", c.key, c.value)
			err = o.Close()
		}
		text := strings.ToLower(fmt.Sprint(err))
		if !strings.Contains(text, strings.ToLower(c.want)) || !strings.Contains(text, strings.ToLower(c.remedy)) {
			t.Errorf("%s=%q: %v; want %q and %q", c.key, c.value, err, c.want, c.remedy)
		}
		if strings.Contains(text, "secret") {
			t.Errorf("%s: the password is told: %v", c.key, err)
		}
	}
	// None of them may have kept the folder.
	o, err := Configure(func(key string) string { return good[key] }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Configure(func(key string) string { return good[key] }, slog.New(slog.DiscardHandler)); err == nil ||
		!strings.Contains(err.Error(), "Dead_Letters") || !strings.Contains(err.Error(), "a folder of its own") {
		t.Errorf("two outputs of one folder: %v", err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

func TestRecordsAreStoredInTheStreamOfTheCluster(t *testing.T) {
	s := newServer(t)
	o := s.output(io.Discard, "Cluster", "Blue-1", "URLs", s.URL+" , "+s.URL)
	if got := o.Flush("app", []byte("chunk"), lines("a", "b", "c")); got != OK {
		t.Fatalf("answer %v", got)
	}
	if got, _ := s.stored(); len(got) != 3 || got["a"] != 1 || got["b"] != 1 || got["c"] != 1 {
		t.Errorf("stored %v", got)
	}
	if n := s.in("logs-nines.fluentbit-blue_1"); n != 3 {
		t.Errorf("%d are in the stream of the cluster", n)
	}
}

func TestChunkThatComesAgainIsStoredOnce(t *testing.T) {
	s := newServer(t)
	o := s.output(io.Discard)
	for range 2 {
		if got := o.Flush("app", []byte("chunk"), lines("a", "b")); got != OK {
			t.Fatalf("answer %v", got)
		}
	}
	got, again := s.stored()
	if len(got) != 2 || got["a"] != 1 || got["b"] != 1 || again != 2 {
		t.Errorf("stored %v, again %d", got, again)
	}
}

func TestIdentityIsThatOfTagAndChunkAndPlace(t *testing.T) {
	// Changing it stores everything that is in Fluent Bit's buffers twice.
	if got := identity("app", []byte("chunk")); got != "B2Z6UBeRP1bOE1m4" {
		t.Errorf("identity is %s", got)
	}
	seen := map[string]string{}
	for _, c := range [][2]string{{"app", "chunk"}, {"appc", "hunk"}, {"", "appchunk"}, {"appchunk", ""}, {"", ""}} {
		id := identity(c[0], []byte(c[1]))
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q are both %s", c, other, id)
		}
		seen[id] = fmt.Sprint(c)
	}
	s := newServer(t)
	o := s.output(io.Discard)
	entries := lines(strings.Split(strings.Repeat("same ", 40), " ")[:40]...)
	first, second := o.records("app", []byte("chunk"), entries, at), o.records("app", []byte("chunk"), entries, at)
	for i := range first {
		if first[i].ID != second[i].ID || !bytes.Equal(first[i].Doc, second[i].Doc) {
			t.Errorf("record %d differs: %v, %v", i, first[i], second[i])
		}
	}
	if a, z := first[0].ID, first[39].ID; a != "B2Z6UBeRP1bOE1m4-0" || z != "B2Z6UBeRP1bOE1m4-13" {
		t.Errorf("ids run from %s to %s", a, z)
	}
}

func TestServerThatIsAwayIsAskedAgain(t *testing.T) {
	s := newServer(t)
	s.fail = func(request int) int {
		if request == 1 {
			return 503
		}
		return 0
	}
	o := s.output(io.Discard)
	if got := o.Flush("app", []byte("chunk"), lines("a")); got != OK {
		t.Fatalf("answer %v", got)
	}
	if got, _ := s.stored(); got["a"] != 1 || s.asked() != 2 {
		t.Errorf("stored %v in %d requests", got, s.asked())
	}
}

func TestRefusedRecordIsADeadLetterAndTheOthersGoOn(t *testing.T) {
	s := newServer(t)
	s.item = func(doc string) int {
		if strings.Contains(doc, "poison") {
			return 400
		}
		return 0
	}
	dir, said := t.TempDir(), new(bytes.Buffer)
	o := s.output(said, "Dead_Letters", dir)
	if got := o.Flush("app", []byte("chunk"), lines("a", "poison", "c")); got != OK {
		t.Fatalf("answer %v", got)
	}
	if got, _ := s.stored(); len(got) != 2 || got["a"] != 1 || got["c"] != 1 {
		t.Errorf("stored %v", got)
	}
	files, err := filepath.Glob(filepath.Join(dir, "dead-letters-*.ndjson"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	letters, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if text := string(letters); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"message":"poison"`) || !strings.Contains(text, "told to refuse") {
		t.Errorf("dead letters: %s", text)
	}
	if !strings.Contains(said.String(), "dead letters") || !strings.Contains(said.String(), "records=1") {
		t.Errorf("nothing is said about it: %s", said)
	}
}

func TestNoVerdictInTimeIsRetryAndTheNextTryIsStoredOnce(t *testing.T) {
	for name, status := range map[string]int{"no answer": -1, "unavailable": 503, "forbidden": 403} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			var healed atomic.Bool
			s.fail = func(int) int {
				if healed.Load() {
					return 0
				}
				return status
			}
			said := new(bytes.Buffer)
			dir := t.TempDir()
			o := s.output(said, "Timeout", "200ms", "Dead_Letters", dir)
			began := time.Now()
			if got := o.Flush("app", []byte("chunk"), lines("a", "b")); got != Retry {
				t.Fatalf("answer %v", got)
			}
			if took := time.Since(began); took < 200*time.Millisecond {
				t.Errorf("it waited %v only", took)
			}
			if !strings.Contains(said.String(), "without_verdict=2") || !strings.Contains(said.String(), "no verdict in time") {
				t.Errorf("said: %s", said)
			}
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			healed.Store(true)
			o = s.output(io.Discard, "Dead_Letters", dir)
			if got := o.Flush("app", []byte("chunk"), lines("a", "b")); got != OK {
				t.Fatalf("answer %v", got)
			}
			if got, _ := s.stored(); len(got) != 2 || got["a"] != 1 || got["b"] != 1 {
				t.Errorf("stored %v", got)
			}
		})
	}
}

func TestFlushOfSeveralThreads(t *testing.T) {
	const threads, chunks, records = 8, 20, 10
	s := newServer(t)
	s.arrived = make(chan struct{}, threads*chunks)
	o := s.output(io.Discard)
	var all sync.WaitGroup
	for thread := range threads {
		all.Go(func() {
			for chunk := range chunks {
				var messages []string
				for record := range records {
					messages = append(messages, fmt.Sprintf("%d/%d/%d", thread, chunk, record))
				}
				if got := o.Flush("app", fmt.Appendf(nil, "%d/%d", thread, chunk), lines(messages...)); got != OK {
					t.Errorf("answer %v", got)
				}
			}
		})
	}
	all.Wait()
	got, again := s.stored()
	if len(got) != threads*chunks*records || again != 0 {
		t.Errorf("%d messages, %d again", len(got), again)
	}
}

func TestCloseEndsWhatIsUnderWayAndLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := newServer(t)
	s.fail = func(int) int { return -1 }
	o := s.output(io.Discard, "Timeout", "1h")
	answer := make(chan Answer)
	go func() { answer <- o.Flush("app", []byte("chunk"), lines("a")) }()
	<-s.arrived
	closed := make(chan error)
	go func() { closed <- o.Close() }()
	if got := <-answer; got != Retry {
		t.Errorf("what was under way is answered with %v", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := o.Flush("app", []byte("chunk"), lines("a")); got != Retry {
		t.Errorf("after Close: %v", got)
	}
	if err := o.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	s.Close()
	goleak.VerifyNone(t, before)
}

func TestChunkWithoutRecordsIsTaken(t *testing.T) {
	s := newServer(t)
	o := s.output(io.Discard)
	end := Entry{Time: time.Unix(groupEnd, 0), Record: map[any]any{}}
	if got := o.Flush("app", nil, nil); got != OK {
		t.Errorf("answer %v", got)
	}
	if got := o.Flush("app", []byte("x"), []Entry{end}); got != OK || s.asked() != 0 {
		t.Errorf("answer %v after %d requests", got, s.asked())
	}
}

func TestFlushOfAnOutputThatIsNotThere(t *testing.T) {
	var o *Output
	if got := o.Flush("app", []byte("x"), lines("a")); got != Error {
		t.Errorf("answer %v", got)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}
