package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/ship"
	"nines/pkg/metric"
)

var quiet = slog.New(slog.DiscardHandler)

// memory is a destination that keeps records by their ID, as Elasticsearch
// does. It fails when it is told to.
type memory struct {
	mu      sync.Mutex
	ids     []string
	docs    map[string]map[string]any
	twice   int
	verdict func(ship.Record) ship.Verdict // nil: Stored
	down    chan struct{}                  // not nil: nothing is answered before it is closed
	mute    bool                           // records are stored, the answers get lost
	broken  error
}

func (m *memory) Ship(ctx context.Context, records []ship.Record) ([]ship.Verdict, error) {
	m.mu.Lock()
	down, mute, broken := m.down, m.mute, m.broken
	m.mu.Unlock()
	verdicts := make([]ship.Verdict, len(records))
	if broken != nil {
		return verdicts, broken
	}
	if down != nil {
		select {
		case <-down:
		case <-ctx.Done():
			return verdicts, context.Cause(ctx)
		}
	}
	m.mu.Lock()
	for i, r := range records {
		verdicts[i] = ship.Stored
		if m.verdict != nil {
			if verdicts[i] = m.verdict(r); verdicts[i] == ship.DeadLettered {
				continue
			}
		}
		if m.docs[r.ID] != nil {
			verdicts[i] = ship.AlreadyStored
			m.twice++
			continue
		}
		doc := map[string]any{}
		if err := json.Unmarshal(r.Doc, &doc); err != nil {
			panic(fmt.Sprintf("%v: %s", err, r.Doc))
		}
		doc["stream_name"] = r.Stream
		m.docs[r.ID] = doc
		m.ids = append(m.ids, r.ID)
	}
	m.mu.Unlock()
	if mute {
		<-ctx.Done()
		return make([]ship.Verdict, len(records)), context.Cause(ctx)
	}
	return verdicts, nil
}

func (m *memory) Hold() string { return "" }
func (m *memory) Close() error { return nil }

func newMemory() *memory { return &memory{docs: map[string]map[string]any{}} }

func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// messages are in the order in which they were stored.
func (m *memory) messages() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, id := range m.ids {
		out = append(out, m.docs[id]["message"].(string))
	}
	return out
}

// bench is a folder of logs, a state and a destination.
type bench struct {
	t    *testing.T
	dir  string
	cfg  Config
	dest *memory
	set  *metrics.Set
	f    *Follower
	end  func() error
	log  *slog.Logger
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), dest: newMemory(), cfg: DefaultConfig(), log: quiet}
	b.cfg.State, b.cfg.Cluster, b.cfg.Node = t.TempDir(), "Berlin 1", "n1"
	b.cfg.Sources = []Source{{Type: "files", Paths: []string{b.path("*.log")}}}
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// start runs a Follower until stop.
func (b *bench) start() {
	b.t.Helper()
	b.set = metrics.NewSet()
	f, err := New(b.cfg, b.dest, b.log, b.set)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	b.f, b.end = f, func() error {
		cancel()
		return <-done
	}
}

// stop ends it; what is under way has its grace.
func (b *bench) stop() {
	b.t.Helper()
	if err := b.end(); err != nil {
		b.t.Fatal(err)
	}
}

// wait lets the fake clock go on, for all to be read and settled.
func (b *bench) wait(d time.Duration) {
	b.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	b.balanced()
}

// balanced checks the delivery identity of each path.
func (b *bench) balanced() {
	b.t.Helper()
	status := b.f.Status()
	if !status.Balanced {
		b.t.Errorf("the sum does not balance: %+v", status.Sum)
	}
	for _, file := range status.Files {
		if !file.Bytes.Balanced() {
			b.t.Errorf("the account of %s does not balance: %+v", filepath.Base(file.Path), file.Bytes)
		}
		for _, g := range file.Generations {
			if !g.Bytes.Balanced() || !g.Records.Balanced() {
				b.t.Errorf("the account of generation %s of %s does not balance: %+v", g.Name, filepath.Base(file.Path), g.Figures)
			}
		}
	}
}

// account is that of a path in bytes, with its records stored.
func (b *bench) account(name string) Account { return b.figures(name).Bytes }

func (b *bench) figures(name string) Figures {
	for _, file := range b.f.Status().Files {
		if file.Path == b.path(name) {
			return file.Figures
		}
	}
	return Figures{}
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	f, err := os.OpenFile(b.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) rename(from, to string) {
	b.t.Helper()
	if err := os.Rename(b.path(from), b.path(to)); err != nil {
		b.t.Fatal(err)
	}
}

// expect compares all messages, in order.
func (b *bench) expect(want ...string) {
	b.t.Helper()
	if got := b.dest.messages(); !slices.Equal(got, want) {
		b.t.Errorf("stored %.200q, want %.200q", got, want)
	}
}

func (b *bench) series(name string) float64 {
	b.t.Helper()
	var page bytes.Buffer
	b.set.WritePrometheus(&page)
	families, err := metric.ParseText(page.Bytes())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, family := range families {
		for _, s := range family.Series {
			full := family.Name
			for i, l := range s.Labels {
				if i == 0 {
					full += "{"
				} else {
					full += ","
				}
				full += fmt.Sprintf("%s=%q", l.Name, l.Value)
			}
			if len(s.Labels) > 0 {
				full += "}"
			}
			if full == name {
				return s.Value
			}
		}
	}
	b.t.Errorf("there is no series %s in\n%s", name, page.String())
	return 0
}

// bubble runs a test under a fake clock.
func bubble(t *testing.T, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newBench(t)) })
}

func TestLinesBecomeRecords(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\r\ntwo \"quoted\"\\\t\x01\n\nfour\n")
		b.start()
		b.wait(2 * time.Second)
		b.stop()
		b.expect("one", "two \"quoted\"\\\t\x01", "", "four")
		a := b.account("app.log")
		if a.Stored != 27 || a.Seen != 27 || b.figures("app.log").Records.Stored != 4 || a.Unread+a.InFlight != 0 {
			t.Errorf("account %+v", a)
		}
		id := b.dest.ids[1]
		doc := b.dest.docs[id]
		for path, want := range map[string]any{
			"log.offset": 5.0, "log.file.path": b.path("app.log"), "host.name": "n1", "orchestrator.cluster.name": "Berlin 1",
			"data_stream.namespace": "berlin_1", "event.dataset": "nines.files", "ecs.version": ecsVersion,
			"@timestamp": "2000-01-01T00:00:00.000Z", "stream_name": "logs-nines.files-berlin_1",
		} {
			var at any = doc
			if path == "@timestamp" || path == "stream_name" {
				at = doc[path]
			} else {
				for _, key := range strings.Split(path, ".") {
					at = at.(map[string]any)[key]
				}
			}
			if at != want {
				t.Errorf("%s is %v, want %v", path, at, want)
			}
		}
		if !strings.HasSuffix(id, "-5") {
			t.Errorf("the ID %s does not end in the offset", id)
		}
	})
}

// A restart goes on where the destination had acknowledged, and no further.
func TestRestartGoesOn(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\ntwo\n")
		b.start()
		b.wait(2 * time.Second)
		b.stop()
		b.write("app.log", "three\n")
		b.start()
		b.wait(2 * time.Second)
		if a := b.account("app.log"); a.Stored != 14 || b.figures("app.log").Records.Stored != 3 {
			t.Errorf("the account did not survive: %+v", a)
		}
		b.stop()
		b.expect("one", "two", "three")
		if b.dest.twice != 0 {
			t.Errorf("%d records were sent twice", b.dest.twice)
		}
	})
}

// The records were stored, and then we were killed before we knew.
func TestUnacknowledgedRecordsHaveTheSameIDAgain(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\ntwo\n")
		b.dest.mute = true
		b.start()
		b.wait(2 * time.Second)
		if a := b.account("app.log"); a.InFlight != 8 || a.Stored != 0 {
			t.Errorf("without an answer the account is %+v", a)
		}
		b.stop()
		b.dest.mute = false
		b.start()
		b.wait(2 * time.Second)
		b.stop()
		b.expect("one", "two")
		if b.dest.twice != 2 {
			t.Errorf("%d records were sent again, want 2", b.dest.twice)
		}
	})
}

// loki #14462, fluent-bit #2110: lines that are written into a file after it was
// renamed away.
func TestRenamedFileIsReadToItsEnd(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		b.write("app.log", "two\n")
		b.rename("app.log", "app.log.1")
		b.write("app.log", "four\n")
		b.write("app.log.1", "three\n")
		b.wait(2 * time.Second)
		b.expect("one", "two", "three", "four")
		// A writer that keeps its file for long is followed again.
		b.wait(20 * time.Second)
		b.write("app.log.1", "late\n")
		b.wait(20 * time.Second)
		b.stop()
		b.expect("one", "two", "three", "four", "late")
		if got := b.account("app.log"); got.Lost != 0 || got.Stored != 24 {
			t.Errorf("account %+v", got)
		}
	})
}

func TestRotationsWhileDownAreReadFirstAndInOrder(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.Sources[0].Paths = []string{b.path("app.log")} // matches no rotated one
		b.write("app.log.1", "history\n")
		tick(b, "app.log.1", 0)
		b.write("app.log", "one\n")
		tick(b, "app.log", 1)
		b.start()
		b.wait(2 * time.Second)
		b.stop()
		b.expect("one")
		b.write("app.log", "two\n")
		tick(b, "app.log", 2)
		b.rename("app.log.1", "app.log.3")
		b.rename("app.log", "app.log.2")
		b.write("app.log.1", "three\n") // came and went
		tick(b, "app.log.1", 3)
		b.write("app.log", "four\n")
		tick(b, "app.log", 4)
		b.start()
		b.wait(20 * time.Second)
		b.stop()
		b.expect("one", "two", "three", "four")
	})
}

// tick sets the time of the last write, in seconds; those of quick writes can
// be the same.
func tick(b *bench, name string, at int64) {
	b.t.Helper()
	if err := os.Chtimes(b.path(name), time.Unix(at, 0), time.Unix(at, 0)); err != nil {
		b.t.Fatal(err)
	}
}

// kubernetes #129975: two rotations between two looks.
func TestGenerationThatCameAndWentBetweenLooksIsRead(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		b.rename("app.log", "app.log.1")
		b.write("app.log", "two\n")
		b.rename("app.log.1", "app.log.2")
		b.rename("app.log", "app.log.1")
		b.write("app.log", "three\n")
		b.wait(20 * time.Second)
		b.stop()
		b.expect("one", "two", "three")
	})
}

func TestRestOfTruncatedFileIsReadFromItsCopy(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		b.write("app.log", "two\n")
		copyTruncate(b, "app.log", "app.log.1")
		b.write("app.log", "x\n")
		b.wait(20 * time.Second)
		b.expect("one", "two", "x")
		b.stop()
		b.start() // and nothing of it is read again
		b.wait(20 * time.Second)
		b.stop()
		b.expect("one", "two", "x")
	})
}

func copyTruncate(b *bench, from, to string) {
	b.t.Helper()
	data, err := os.ReadFile(b.path(from))
	err = errors.Join(err, os.WriteFile(b.path(to), data, 0o644), os.Truncate(b.path(from), 0))
	if err != nil {
		b.t.Fatal(err)
	}
}

// Cut and written again, longer than it was, between two looks.
func TestContentThatReplacedAnotherIsReadFromItsStart(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		if err := os.WriteFile(b.path("app.log"), []byte("two, and longer than before\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		b.wait(2 * time.Second)
		b.stop()
		b.expect("one", "two, and longer than before")
	})
}

func TestWhatWasCutAwayUnreadIsLostAndCounted(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\ntorn")
		b.start()
		b.wait(2 * time.Second)
		if a := b.account("app.log"); a.Unread != 4 {
			t.Errorf("of a torn line %d bytes are unread, want 4", a.Unread)
		}
		if err := os.Truncate(b.path("app.log"), 0); err != nil {
			t.Fatal(err)
		}
		b.write("app.log", "x\n")
		b.wait(5 * time.Second)
		a := b.account("app.log")
		if a.Lost != 4 || a.Stored != 6 || a.Seen != 10 {
			t.Errorf("account %+v", a)
		}
		if n := b.series(metric.LogGaps + `{destination="elasticsearch"}`); n != 1 {
			t.Errorf("%v gaps", n)
		}
		if n := b.series(metric.LogRecordsTotal + `{destination="elasticsearch",state="lost"}`); n != 1 {
			t.Errorf("%v records are lost", n)
		}
		b.stop()
		b.expect("one", "x")
	})
}

func TestFileThatWentAwayWhileDownIsAGap(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\ntwo\n")
		b.dest.down = make(chan struct{})
		b.start()
		b.wait(2 * time.Second)
		b.stop()
		if err := os.Remove(b.path("app.log")); err != nil {
			t.Fatal(err)
		}
		b.dest.down = nil
		b.start()
		b.wait(2 * time.Second)
		if a := b.account("app.log"); a.Lost != 8 || a.Seen != 8 {
			t.Errorf("account %+v", a)
		}
		if n := b.series(metric.LogGaps + `{destination="elasticsearch"}`); n != 1 {
			t.Errorf("%v gaps", n)
		}
		b.stop()
	})
}

// Deleted files are read as long as they are open, and then released
// (vector #6305).
func TestDeletedFileIsReadAndReleased(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		b.write("app.log", "two")
		if err := os.Remove(b.path("app.log")); err != nil {
			t.Fatal(err)
		}
		b.wait(20 * time.Second)
		b.expect("one")
		b.wait(time.Minute)
		b.expect("one", "two")
		if n := b.series(metric.LogFiles + `{destination="elasticsearch"}`); n != 0 {
			t.Errorf("%v files are followed", n)
		}
		b.stop()
	})
}

// beats #6984: ext4 gives the inode of a deleted file to the next one.
func TestFileThatGotTheInodeOfAnotherIsReadFromItsStart(t *testing.T) {
	for _, done := range []bool{false, true} {
		bubble(t, func(b *bench) {
			b.write("app.log", "the old one, longer\n")
			b.start()
			b.wait(2 * time.Second)
			b.stop()
			data, err := os.ReadFile(checkpointPath(b.cfg.State))
			if err != nil {
				t.Fatal(err)
			}
			c, err := decodeCheckpoint(data)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(b.path("app.log")); err != nil {
				t.Fatal(err)
			}
			b.write("app.log", "the new one\n")
			info, err := os.Stat(b.path("app.log"))
			if err != nil {
				t.Fatal(err)
			}
			c.Generations[0].Inode, c.Generations[0].Done = keyOf(info).inode, done
			if data, err = c.encode(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(checkpointPath(b.cfg.State), data, 0o644); err != nil {
				t.Fatal(err)
			}
			b.start()
			b.wait(2 * time.Second)
			b.stop()
			b.expect("the old one, longer", "the new one")
		})
	}
}

func TestTornLineWaits(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\ntw")
		b.start()
		b.wait(time.Minute)
		b.expect("one")
		b.write("app.log", "o\n")
		b.wait(time.Second)
		b.expect("one", "two")
		b.write("app.log", "last")
		b.rename("app.log", "app.log.1")
		b.wait(time.Minute)
		b.expect("one", "two", "last")
		b.stop()
	})
}

// A line over the limit never stops the file (fluent-bit stops at 32 KB).
// In other agents a line over 32 KB stops the file.
func TestLongLineIsCutAndTheNextIsWhole(t *testing.T) {
	for _, length := range []int{32 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 7} {
		bubble(t, func(b *bench) {
			long := strings.Repeat("x", length)
			b.write("app.log", "before\n"+long[:length/2])
			b.start()
			b.wait(time.Second)
			b.write("app.log", long[length/2:]+"\nafter\n")
			b.wait(2 * time.Second)
			if a := b.account("app.log"); a.Stored != int64(length+14) {
				t.Errorf("account %+v", a)
			}
			over := max(0, length-1<<20)
			if n := b.series(metric.LogCutBytes + `{destination="elasticsearch"}`); n != float64(over) {
				t.Errorf("%v bytes are cut, want %d", n, over)
			}
			b.stop()
			b.expect("before", long[:length-over], "after")
			doc := b.dest.docs[b.dest.ids[1]]
			if flags, _ := doc["log"].(map[string]any)["flags"].([]any); (over > 0) != slices.Equal(flags, []any{"cut"}) {
				t.Errorf("flags %v of a line of %d bytes", flags, length)
			}
			if after := b.dest.docs[b.dest.ids[2]]["log"].(map[string]any)["offset"]; after != float64(length+8) {
				t.Errorf("the next line is at %v", after)
			}
		})
	}
}

func TestBytesThatAreNoTextAreKept(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "a\xffb\n")
		b.start()
		b.wait(time.Second)
		b.stop()
		b.expect("a\uFFFDb")
		doc := b.dest.docs[b.dest.ids[0]]
		if raw := doc["nines"].(map[string]any)["message_base64"]; raw != "Yf9i" {
			t.Errorf("kept as %v", raw)
		}
	})
}

// A checkpoint must not move because a later batch was acknowledged.
func TestCheckpointWaitsForTheFirstVerdictMissing(t *testing.T) {
	bubble(t, func(b *bench) {
		first := make(chan struct{})
		b.dest.down = first
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		b.dest.set(func() { b.dest.down = nil })
		b.write("app.log", "two\n")
		b.wait(2 * time.Second)
		b.expect("two")
		if a := b.account("app.log"); a.Stored != 0 || a.InFlight != 8 {
			t.Errorf("account %+v", a)
		}
		b.stop() // the first batch gets no answer
		b.start()
		b.wait(2 * time.Second)
		b.expect("two", "one")
		if a := b.account("app.log"); a.Stored != 8 || a.InFlight != 0 || b.dest.twice != 1 {
			t.Errorf("account %+v, %d twice", a, b.dest.twice)
		}
		b.stop()
	})
}

func TestDeadLettersAreCountedApart(t *testing.T) {
	bubble(t, func(b *bench) {
		b.dest.verdict = func(r ship.Record) ship.Verdict {
			if bytes.Contains(r.Doc, []byte("poison")) {
				return ship.DeadLettered
			}
			return ship.Stored
		}
		b.write("app.log", "one\npoison\ntwo\n")
		b.start()
		b.wait(2 * time.Second)
		b.stop()
		b.expect("one", "two")
		if a := b.account("app.log"); a.DeadLettered != 7 || a.Stored != 8 || b.figures("app.log").Records.DeadLettered != 1 {
			t.Errorf("account %+v", a)
		}
		if n := b.series(metric.LogRecordsTotal + `{destination="elasticsearch",state="dead_lettered"}`); n != 1 {
			t.Errorf("%v dead letters", n)
		}
	})
}

// All that is between the files and a destination that is down has a bound.
func TestDestinationThatIsDownStopsTheReading(t *testing.T) {
	bubble(t, func(b *bench) {
		b.dest.down = make(chan struct{})
		const lines = 60_000
		text := strings.Repeat(strings.Repeat("x", 99)+"\n", lines)
		b.write("app.log", text)
		b.start()
		b.wait(time.Minute)
		a := b.account("app.log")
		if most := int64(5 * batchRecords * 100 * 2); a.InFlight == 0 || a.InFlight > most || a.Unread == 0 {
			t.Errorf("%d bytes are under way, want at most %d; %d unread", a.InFlight, most, a.Unread)
		}
		// Rotations are noticed all the same.
		b.rename("app.log", "app.log.1")
		b.write("app.log", "next\n")
		b.wait(time.Minute)
		b.rename("app.log", "app.log.2")
		if err := os.Remove(b.path("app.log.2")); err != nil {
			t.Fatal(err)
		}
		close(b.dest.down)
		b.wait(time.Minute)
		b.stop()
		if got := b.dest.messages(); len(got) != lines+1 || got[lines] != "next" {
			t.Errorf("%d records, the last is %q", len(got), got[len(got)-1])
		}
	})
}

// fluent-bit #5835.
func TestNoisyFileDoesNotStarveOthers(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("a.log", strings.Repeat(strings.Repeat("x", 999)+"\n", 20_000))
		b.write("z.log", "quiet\n")
		b.start()
		b.wait(time.Minute)
		b.stop()
		got := b.dest.messages()
		if at := slices.Index(got, "quiet"); at < 0 || at > 2*batchRecords {
			t.Errorf("the quiet file's line is number %d of %d", at, len(got))
		}
	})
}

func TestRunEndsWithTheErrorOfItsDestination(t *testing.T) {
	bubble(t, func(b *bench) {
		b.dest.broken = errors.New("closed by somebody")
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		if err := b.end(); err == nil || !strings.Contains(err.Error(), "closed by somebody") {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestStopDoesNotWaitForeverForTheDestination(t *testing.T) {
	bubble(t, func(b *bench) {
		b.dest.down = make(chan struct{})
		b.write("app.log", "one\n")
		b.start()
		b.wait(2 * time.Second)
		begun := time.Now()
		b.stop()
		if took := time.Since(begun); took != b.cfg.Grace {
			t.Errorf("took %v, want the grace of %v", took, b.cfg.Grace)
		}
	})
}

func TestFilesOfOurOwnAreNotFollowed(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.Skip = func(path string) bool { return filepath.Base(path) == "ours.log" }
		b.cfg.Sources[0].Exclude = []string{b.path("b*.log")}
		for _, name := range []string{"ours.log", "app.log", "bad.log"} {
			b.write(name, name+"\n")
		}
		if err := os.Mkdir(b.path("folder.log"), 0o755); err != nil {
			t.Fatal(err)
		}
		b.start()
		b.wait(2 * time.Second)
		if p := b.f.Problems(); len(p) != 0 {
			t.Errorf("problems %q", p)
		}
		b.stop()
		b.expect("app.log")
	})
}

func TestNewFileWaitsUntilItsIdentityIsOnDisk(t *testing.T) {
	bubble(t, func(b *bench) {
		b.start()
		b.wait(2 * time.Second)
		// A folder where the checkpoint should be: it can't be replaced.
		path := checkpointPath(b.cfg.State)
		if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Join(path, "x"), 0o755)); err != nil {
			t.Fatal(err)
		}
		b.write("app.log", "one\n")
		b.wait(10 * time.Second)
		b.expect()
		if b.series(metric.LogCheckpointAge+`{destination="elasticsearch"}`) < 5 {
			t.Error("the age of the checkpoint says nothing")
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		b.wait(2 * time.Second)
		b.expect("one")
		b.stop()
	})
}

// Any order of writing, rotating, cutting, killing and failing: the account
// balances at each step, and no line that stayed readable is lost or doubled.
func TestAccountBalancesAtAnyMoment(t *testing.T) {
	for seed := range uint64(15) {
		bubble(t, func(b *bench) {
			r := rand.New(rand.NewPCG(seed, 1))
			n, rotations := 0, 0
			var steps []string
			write := func() {
				var text strings.Builder
				for range r.IntN(300) + 1 {
					fmt.Fprintf(&text, "line %06d %s\n", n, strings.Repeat("x", r.IntN(300)))
					n++
				}
				b.write("app.log", text.String())
			}
			write()
			b.start()
			b.wait(time.Second)
			for range 30 {
				what := r.IntN(7)
				steps = append(steps, fmt.Sprint(what))
				switch what {
				case 0, 1:
					write()
				case 2:
					for i := rotations; i > 0; i-- {
						b.rename(fmt.Sprintf("app.log.%d", i), fmt.Sprintf("app.log.%d", i+1))
					}
					b.rename("app.log", "app.log.1")
					rotations++
					write()
				case 3: // killed: the answers were lost
					b.dest.set(func() { b.dest.mute = true })
					write()
					b.wait(time.Second)
					b.stop()
					b.dest.set(func() { b.dest.mute = false })
					b.start()
				case 4:
					b.stop()
					write()
					b.start()
				case 5:
					down := make(chan struct{})
					b.dest.set(func() { b.dest.down = down })
					write()
					b.wait(time.Duration(r.IntN(5000)) * time.Millisecond)
					b.dest.set(func() { b.dest.down = nil })
					close(down)
				}
				b.wait(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			b.wait(time.Minute)
			a := b.account("app.log")
			b.stop()
			seen := map[string]int{}
			for _, m := range b.dest.messages() {
				seen[m[:11]]++
			}
			if len(seen) != n || a.Lost != 0 || a.Unread+a.InFlight != 0 || slices.Max(slices.Collect(maps.Values(seen))) != 1 {
				b.t.Errorf("seed %d, steps %v: %d of %d lines, account %+v", seed, steps, len(seen), n, a)
			}
		})
	}
}
