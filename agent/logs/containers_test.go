package logs

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/agent/ship"
	"nines/pkg/metric"
)

// pod makes the bench follow containers, and returns the path of one's log,
// which is not there yet.
func (b *bench) pod() string {
	b.t.Helper()
	b.cfg.Sources = []Source{{Type: Kubernetes, Root: b.dir}}
	if err := os.MkdirAll(b.path("shop_web_0b9a/app"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	return "shop_web_0b9a/app/0.log"
}

// cri is a line of a runtime. Each has a time of its own, as real ones have.
func cri(stream, tag, message string) string {
	criLines++
	return fmt.Sprintf("2026-11-23T10:00:%02d.%09dZ %s %s %s\n", criLines/1000%60, criLines%1000, stream, tag, message)
}

var criLines int

// compress does to a rotated file what the kubelet does.
func (b *bench) compress(name string) {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		b.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(b.path(name+".tmp"), out.Bytes(), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.rename(name+".tmp", name+".gz")
	b.remove(name)
}

func (b *bench) remove(name string) {
	b.t.Helper()
	if err := os.Remove(b.path(name)); err != nil {
		b.t.Fatal(err)
	}
}

// flagsOf returns the flags of the record with a message.
func (b *bench) flagsOf(message string) []any {
	b.t.Helper()
	for _, doc := range b.dest.docs {
		if doc["message"] == message {
			flags, _ := doc["log"].(map[string]any)["flags"].([]any)
			return flags
		}
	}
	b.t.Errorf("there is no record %q", message)
	return nil
}

// fluent-bit #4387, datadog-agent #54873: parts of both streams between each
// other, in both forms that runtimes write.
func TestPartsAreJoinedForEachStream(t *testing.T) {
	for name, lines := range map[string][]string{
		"cri": {
			cri("stdout", "P", "one "), cri("stderr", "P", "ERR "), cri("stdout", "P", "and "), cri("stderr", "F", "OR"), cri("stdout", "F", "two"), cri("stdout", "F", "next"),
		},
		"docker": {
			`{"log":"one ","stream":"stdout","time":"2026-11-23T10:00:00.1Z"}` + "\n", `{"log":"ERR ","stream":"stderr","time":"2026-11-23T10:00:00.2Z"}` + "\n",
			`{"log":"and ","stream":"stdout","time":"2026-11-23T10:00:00.3Z"}` + "\n", `{"log":"OR\n","stream":"stderr","time":"2026-11-23T10:00:00.4Z"}` + "\n",
			`{"log":"two\r\n","stream":"stdout","time":"2026-11-23T10:00:00.5Z"}` + "\n", `{"log":"next\n","stream":"stdout","time":"2026-11-23T10:00:00.6Z"}` + "\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				path := b.pod()
				b.start()
				// Each line comes by itself, so that a turn ends after each.
				for _, l := range lines {
					b.write(path, l)
					b.wait(2 * time.Second)
				}
				b.stop()
				b.expect("ERR OR", "one and two", "next")
				if a := b.account(path); a.Stored != int64(len(strings.Join(lines, ""))) {
					t.Errorf("account %+v", a)
				}
			})
		})
	}
}

// A checkpoint points at the start of a split record, never into its middle; and
// what was sent of the other stream meanwhile is stored once.
func TestRestartInTheMiddleOfASplitRecord(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		b.write(path, cri("stdout", "F", "zero")+cri("stdout", "P", "one ")+cri("stderr", "F", "between"))
		b.start()
		b.wait(5 * time.Second)
		b.expect("zero", "between")
		if a := b.account(path); a.Unread == 0 {
			t.Errorf("a record without its end is not unread: %+v", a)
		}
		b.stop()
		b.write(path, cri("stdout", "F", "two"))
		b.start()
		b.wait(5 * time.Second)
		b.stop()
		b.expect("zero", "between", "one two")
		if b.dest.twice != 1 {
			t.Errorf("%d records were sent twice, want 1", b.dest.twice)
		}
	})
}

// vector #24981, fluent-bit #11602.
func TestSplitRecordGoesOnInTheNextGeneration(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("compressed %v, down %v", compressed, down), func(t *testing.T) {
				bubble(t, func(b *bench) {
					path := b.pod()
					b.write(path, cri("stdout", "F", "zero")+cri("stdout", "P", "one "))
					b.start()
					b.wait(3 * time.Second)
					if down {
						b.stop()
					}
					b.rename(path, path+".20261123-101500")
					b.write(path, cri("stdout", "P", "and ")+cri("stderr", "F", "between")+cri("stdout", "F", "two"))
					if compressed {
						b.compress(path + ".20261123-101500")
					}
					if down {
						b.start()
					}
					b.wait(20 * time.Second)
					b.stop()
					b.expect("zero", "between", "one and two")
					if a := b.account(path); a.InFlight+a.Unread+a.Lost != 0 {
						t.Errorf("account %+v", a)
					}
					// All of it is behind the checkpoint.
					b.start()
					b.wait(20 * time.Second)
					b.stop()
					b.expect("zero", "between", "one and two")
					if b.dest.twice != 0 {
						t.Errorf("%d records were sent twice", b.dest.twice)
					}
				})
			})
		}
	}
}

// A runtime that died leaves a record without its end: it goes without.
func TestRecordThatNeverEndsGoesAsFarAsItCame(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		b.write(path, cri("stdout", "P", "half"))
		b.start()
		b.wait(50 * time.Second)
		b.expect()
		b.wait(20 * time.Second)
		b.expect("half")
		if got := fmt.Sprint(b.flagsOf("half")); got != "[partial]" {
			t.Errorf("flags %s", got)
		}
		b.stop()
		if a := b.account(path); a.Stored != a.Seen || a.Seen == 0 {
			t.Errorf("account %+v", a)
		}
	})
}

// Joined records have the bound that lines have, and say what was cut.
func TestJoinedRecordIsCutAtTheLimit(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.MaxRecord = 100_000
		path := b.pod()
		part := strings.Repeat("x", 16_000)
		for range 10 {
			b.write(path, cri("stdout", "P", part))
		}
		b.write(path, cri("stdout", "F", "end")+cri("stdout", "F", "next"))
		b.start()
		b.wait(5 * time.Second)
		b.stop()
		got := b.dest.messages()
		if len(got) != 2 || len(got[0]) != 100_000 || got[1] != "next" {
			t.Fatalf("%d records", len(got))
		}
		if cut := b.dest.docs[b.dest.ids[0]]["nines"].(map[string]any)["bytes_cut"]; cut != 60_003.0 {
			t.Errorf("%v bytes were cut", cut)
		}
		if n := b.series(metric.LogCutBytes + `{destination="elasticsearch"}`); n != 60_003 {
			t.Errorf("%v cut bytes are counted", n)
		}
	})
}

// With records of both streams always overlapping there is no place to resume
// from. Reading must not go on for ever without one.
func TestRecordsThatAlwaysOverlapHaveABound(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		part := strings.Repeat("x", 16_000)
		var text strings.Builder
		text.WriteString(cri("stdout", "P", part))
		for range 600 {
			text.WriteString(cri("stderr", "P", part) + cri("stdout", "F", "o") + cri("stdout", "P", part) + cri("stderr", "F", "e"))
		}
		b.write(path, text.String())
		b.start()
		b.wait(10 * time.Second)
		if g := b.f.gens[0]; g.offset == 0 {
			t.Errorf("after %d bytes the offset is still 0", g.read)
		}
		b.stop()
		if n := len(b.dest.messages()); n < 1200 {
			t.Errorf("%d records", n)
		}
	})
}

// VictoriaLogs #1217: lines that are torn or of no known form stay whole.
func TestLinesOfNoKnownFormAreKept(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		b.write(path, "2026-11-23T10:00:00Z stdo\n"+"{\"log\":\n"+"\n"+cri("stdout", "F", "good")+"2026-11-23T10:00:0")
		b.start()
		b.wait(5 * time.Second)
		b.rename(path, path+".20261123-101500")
		b.wait(20 * time.Second)
		b.stop()
		b.expect("2026-11-23T10:00:00Z stdo", "{\"log\":", "", "good", "2026-11-23T10:00:0")
		if got := fmt.Sprint(b.flagsOf("{\"log\":"), b.flagsOf("2026-11-23T10:00:0")); got != "[unparsed] [unparsed torn]" {
			t.Errorf("flags %s", got)
		}
	})
}

// kubernetes #129975, loki #14462, vector #12014: several rotations while nobody
// looked, of which all but the newest are compressed, are read first and in
// order. The kubelet gives compressed files a time later than that of the next.
func TestCompressedGenerationsAreReadInOrder(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		var want []string
		line := func() string {
			want = append(want, fmt.Sprint("line ", len(want)))
			return cri("stdout", "F", want[len(want)-1])
		}
		b.write(path, line()+line())
		b.start()
		b.wait(3 * time.Second)
		b.stop()
		b.write(path, line())
		for n := range 3 {
			b.rename(path, fmt.Sprintf("%s.20261123-10150%d", path, n))
			b.write(path, line()+line())
			if n > 0 {
				b.compress(fmt.Sprintf("%s.20261123-10150%d", path, n-1))
			}
		}
		b.start()
		b.wait(20 * time.Second)
		// A generation that was read and is compressed later is not read again.
		b.rename(path, path+".20261123-101510")
		b.write(path, line())
		b.compress(path + ".20261123-101502")
		b.wait(time.Minute)
		b.stop()
		b.start()
		b.compress(path + ".20261123-101510")
		b.wait(time.Minute)
		b.stop()
		b.expect(want...)
		if b.dest.twice > 0 {
			t.Errorf("%d records were sent twice", b.dest.twice)
		}
		if a := b.account(path); a.InFlight+a.Unread+a.Lost != 0 {
			t.Errorf("account %+v", a)
		}
	})
}

// Two rotations between the look at a path and its opening leave a generation
// that was at the path for no look. It lies beside it all the same.
func TestGenerationThatNoLookSawIsRead(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		bubble(t, func(b *bench) {
			path := b.pod()
			b.write(path, cri("stdout", "F", "one"))
			b.start()
			b.wait(3 * time.Second)
			b.write(path+".20261123-101500", cri("stdout", "F", "two"))
			if compressed {
				b.compress(path + ".20261123-101500")
			}
			b.write(path, cri("stdout", "F", "three"))
			b.wait(30 * time.Second)
			b.stop()
			got := b.dest.messages()
			slices.Sort(got)
			if !slices.Equal(got, []string{"one", "three", "two"}) {
				t.Errorf("compressed %v: %q", compressed, got)
			}
		})
	}
}

// The rest of a generation that is compressed while it is read.
func TestGenerationThatIsCompressedWhileItWaitsIsReadToItsEnd(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		var want []string
		var text strings.Builder
		for n := range 30_000 {
			want = append(want, fmt.Sprintf("line %06d %s", n, strings.Repeat("x", 200)))
			text.WriteString(cri("stdout", "F", want[n]))
		}
		b.write(path, text.String())
		b.dest.down = make(chan struct{})
		b.start()
		b.wait(3 * time.Second)
		b.end() // its grace ends without a verdict
		b.dest.down = nil
		b.rename(path, path+".20261123-101500")
		b.compress(path + ".20261123-101500")
		b.start()
		b.wait(10 * time.Second)
		b.stop()
		slices.Sort(b.dest.ids) // of several shippers
		got := b.dest.messages()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d records of %d", len(got), len(want))
		}
	})
}

// A compressed file that is cut off is read as far as it goes, and the rest is a
// gap: how long it was nobody knows.
func TestDamagedCompressedGenerationIsALoss(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		var text strings.Builder
		for range 5_000 {
			text.WriteString(cri("stdout", "F", fmt.Sprintf("%x", rand.Uint64())))
		}
		b.write(path, text.String())
		b.rename(path, path+".20261123-101500")
		b.compress(path + ".20261123-101500")
		name := b.path(path + ".20261123-101500.gz")
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// Its end, which says how long it is, stays.
		if err := os.WriteFile(name, slices.Concat(data[:len(data)/2], data[len(data)-4:]), 0o644); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
		b.write(path, cri("stdout", "F", "next"))
		b.start()
		b.wait(20 * time.Second)
		a := b.account(path)
		if a.Stored == 0 || a.Lost != 0 || a.Unread+a.InFlight != 0 || a.Seen != a.Stored || b.f.Status().GapCount != 1 {
			t.Errorf("account %+v of %d bytes, %d gaps", a, text.Len(), b.f.Status().GapCount)
		}
		if got := b.dest.messages(); got[len(got)-1] != "next" {
			t.Errorf("the next generation was not read")
		}
		if gap := b.f.Status().Gaps[0]; gap.Reason != lostDamaged {
			t.Errorf("gap %+v", gap)
		}
		b.stop()
	})
}

// A state folder that is lost does not store the lines of containers twice: their
// IDs come from who wrote them.
func TestLostStateDoesNotGiveContainersNewIDs(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		b.write(path, cri("stdout", "F", "one")+cri("stdout", "P", "two ")+cri("stdout", "F", "parts"))
		b.start()
		b.wait(3 * time.Second)
		b.stop()
		b.cfg.State = t.TempDir()
		b.start()
		b.wait(3 * time.Second)
		b.stop()
		b.expect("one", "two parts")
		if b.dest.twice != 2 {
			t.Errorf("%d records had their ID again, want 2", b.dest.twice)
		}
	})
}

func TestFilesBeginWhereTheirSourceSays(t *testing.T) {
	for _, test := range []struct {
		from string
		want []string
	}{
		{FromBeginning, []string{"old", "new", "came", "later"}},
		{FromEnd, []string{"new", "later"}},
		{FromCheckpoint, []string{"new", "came", "later"}},
	} {
		t.Run(test.from, func(t *testing.T) {
			bubble(t, func(b *bench) {
				b.cfg.Sources[0].From = test.from
				b.write("app.log", "old\n")
				b.write("app.log.1", "older\n") // history
				b.start()
				b.wait(2 * time.Second)
				b.write("app.log", "new\n")
				b.wait(2 * time.Second)
				b.stop()
				b.write("other.log", "came\n") // during a downtime
				b.start()
				b.wait(2 * time.Second)
				b.write("third.log", "later\n")
				b.wait(15 * time.Second)
				b.stop()
				b.expect(test.want...)
				sum := b.f.Status().Sum
				if left := int64(len("old\nolder\nnew\ncame\nlater\n")) - sum.Bytes.Stored; sum.Bytes.Dropped != left {
					t.Errorf("%d bytes are dropped, want %d", sum.Bytes.Dropped, left)
				}
			})
		})
	}
}

func TestRotatedLogsOfContainersAreReadAtTheFirstStart(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		b.write(path+".20261123-101500", cri("stdout", "F", "one"))
		b.write(path, cri("stdout", "F", "two"))
		b.start()
		b.wait(5 * time.Second)
		b.stop()
		b.expect("one", "two")
	})
}

// Thousands of files need few descriptors: a file without news is closed, and
// its news is noticed without a look at all files.
func TestQuietFilesAreClosedAndTheirNewsNoticed(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.OpenFiles = 8
		const files = 100
		for n := range files {
			b.write(fmt.Sprintf("%03d.log", n), fmt.Sprintf("%d one\n", n))
		}
		b.start()
		b.wait(40 * time.Second)
		if n := len(b.dest.messages()); n != files {
			t.Errorf("%d of %d lines", n, files)
		}
		if n := b.f.open.Load(); n != 0 {
			t.Errorf("%d files are open", n)
		}
		// The next look at all files is nine seconds away.
		b.wait(time.Second)
		for n := range files {
			b.write(fmt.Sprintf("%03d.log", n), fmt.Sprintf("%d two\n", n))
		}
		b.wait(5 * time.Second)
		if n := len(b.dest.messages()); n != 2*files {
			t.Errorf("%d of %d lines", n, 2*files)
		}
		// One that is closed, rotated and removed is not lost as long as it was read.
		b.wait(time.Minute)
		b.rename("007.log", "007.log.1")
		b.write("007.log", "7 three\n")
		b.wait(time.Minute)
		b.stop()
		if got := b.dest.messages(); len(got) != 2*files+1 || got[2*files] != "7 three" {
			t.Errorf("%d lines", len(got))
		}
		if sum := b.f.Status().Sum.Bytes; sum.Lost != 0 || sum.Unread != 0 || b.f.Status().GapCount != 0 {
			t.Errorf("%+v", b.f.Status())
		}
	})
}

// Where the kernel has no watches left, looks at all files find everything.
func TestFilesAreFollowedWithoutWatches(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.Watch = false
		b.write("app.log", "one\n")
		b.start()
		b.wait(time.Minute)
		b.write("app.log", "two\n")
		b.write("new.log", "three\n")
		b.wait(15 * time.Second)
		b.stop()
		got := b.dest.messages()
		slices.Sort(got)
		if !slices.Equal(got, []string{"one", "three", "two"}) {
			t.Errorf("%q", got)
		}
	})
}

// The last words of a quiet file, which is closed, and is removed at once.
func TestLastWordsOfAClosedFileAreReadOrAGap(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("app.log", "one\n")
		b.start()
		b.wait(40 * time.Second)
		if b.f.open.Load() != 0 {
			t.Fatal("the file is open")
		}
		b.write("app.log", "last\n")
		b.remove("app.log")
		b.wait(5 * time.Second)
		b.stop()
		status := b.f.Status()
		if got := b.dest.messages(); len(got) == 1 && status.GapCount != 1 {
			t.Errorf("%q, and %d gaps", got, status.GapCount)
		}
	})
}

// While the destination takes nothing, files that are closed still wake up: what
// is written to them is seen, and held when they are deleted.
func TestClosedFilesWakeUpDuringAnOutage(t *testing.T) {
	bubble(t, func(b *bench) {
		b.write("quiet.log", "one\n")
		b.start()
		b.wait(40 * time.Second)
		b.dest.set(func() { b.dest.down = make(chan struct{}) })
		b.write("noisy.log", strings.Repeat(strings.Repeat("x", 999)+"\n", 30_000))
		b.wait(20 * time.Second)
		b.write("quiet.log", "two\n")
		b.wait(15 * time.Second)
		if a := b.account("quiet.log"); a.Seen != 8 || a.Unread != 4 {
			t.Errorf("account %+v", a)
		}
		b.remove("quiet.log")
		b.wait(15 * time.Second)
		down := b.dest.down
		b.dest.set(func() { b.dest.down = nil })
		close(down)
		b.wait(20 * time.Second)
		b.stop()
		if !slices.Contains(b.dest.messages(), "two") || b.f.Status().Sum.Bytes.Lost != 0 {
			t.Errorf("%+v", b.f.Status().Sum)
		}
	})
}

// Files whose last line has no end take no descriptors from others.
func TestUnendedLinesDoNotHoldDescriptors(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.OpenFiles = 4
		for n := range 20 {
			b.write(fmt.Sprintf("a%02d.log", n), "one\nno end")
		}
		b.write("z.log", "z\n")
		b.start()
		b.wait(30 * time.Second)
		if n := len(b.dest.messages()); n != 21 {
			t.Errorf("%d of 21 lines", n)
		}
		b.write("a07.log", " but now\n")
		b.wait(10 * time.Second)
		b.stop()
		if got := b.dest.messages(); got[len(got)-1] != "no end but now" {
			t.Errorf("the last is %q", got[len(got)-1])
		}
	})
}

// A compressor writes for a while, and removes what it reads from at its end.
func TestCompressedFileThatIsStillWrittenIsNotTaken(t *testing.T) {
	bubble(t, func(b *bench) {
		var text strings.Builder
		for n := range 20_000 {
			fmt.Fprintf(&text, "line %d\n", n)
		}
		b.write("app.log", text.String())
		b.start()
		b.wait(5 * time.Second)
		b.rename("app.log", "app.log.1")
		b.write("app.log", "next\n")
		b.wait(30 * time.Second)
		b.write("half", text.String())
		b.compress("half")
		half, err := os.ReadFile(b.path("half.gz"))
		if err != nil {
			t.Fatal(err)
		}
		b.write("app.log.1.gz", string(half[:len(half)/2]))
		b.wait(30 * time.Second)
		b.remove("app.log.1.gz")
		b.compress("app.log.1")
		b.wait(time.Minute)
		b.stop()
		if n := len(b.dest.messages()); n != 20_001 || b.f.Status().GapCount != 0 {
			t.Errorf("%d records, %+v", n, b.f.Status().Gaps)
		}
	})
}

// logrotate's "extension", logback and lumberjack put the date before the
// extension, where the pattern still matches.
func TestRotatedNameThatThePatternMatchesIsNoNewFile(t *testing.T) {
	for _, rotated := range []string{"app-20261123.log", "app.2026-11-23.log", "old.log"} {
		bubble(t, func(b *bench) {
			b.write("app.log", "one\ntwo\n")
			b.start()
			b.wait(5 * time.Second)
			b.rename("app.log", rotated)
			b.write("app.log", "three\n")
			b.wait(2 * time.Minute)
			b.stop()
			b.start()
			b.wait(time.Minute)
			b.stop()
			b.expect("one", "two", "three")
		})
	}
}

// beats #6984 and vector #6305: what is deleted and held open fills the disk.
func TestDeletedFilesAreHeldUpToABound(t *testing.T) {
	for name, bound := range map[string]func(*Config){
		"bytes": func(c *Config) { c.HeldBytes = 1000 },
		"time":  func(c *Config) { c.HeldFor = time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				bound(&b.cfg)
				b.dest.down = make(chan struct{})
				// More than can be under way, so that the rest stays unread.
				text := strings.Repeat(strings.Repeat("x", 999)+"\n", 30_000)
				b.write("app.log", text)
				b.start()
				b.wait(5 * time.Second)
				b.remove("app.log")
				b.wait(2 * time.Minute)
				a := b.account("app.log")
				if a.Lost == 0 || a.Unread != 0 || b.f.open.Load() != 0 {
					t.Errorf("account %+v, %d files are open", a, b.f.open.Load())
				}
				if n := b.series(metric.LogLostBytes + `{destination="elasticsearch",reason="released"}`); n != float64(a.Lost) {
					t.Errorf("%v bytes are lost by release, want %d", n, a.Lost)
				}
				close(b.dest.down)
				b.wait(10 * time.Second)
				b.stop()
				if a := b.f.Status().Sum.Bytes; a.Stored == 0 || a.Stored+a.Lost != int64(len(text)) {
					t.Errorf("account %+v", a)
				}
			})
		})
	}
}

// The spool keeps what a rotation would take while the destination is away, also
// across a restart.
func TestSpoolKeepsWhatARotationTakes(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.Spool, b.cfg.Grace = 100<<20, time.Second
		path := b.pod()
		b.dest.down = make(chan struct{})
		var want []string
		fill := func() {
			var text strings.Builder
			for range 10_000 {
				want = append(want, fmt.Sprintf("line %06d %s", len(want), strings.Repeat("x", 400)))
				text.WriteString(cri("stdout", "F", want[len(want)-1]))
			}
			b.write(path, text.String())
		}
		fill()
		b.start()
		for n := range 3 {
			b.wait(30 * time.Second)
			b.rename(path, fmt.Sprintf("%s.20261123-10150%d", path, n))
			fill()
			b.wait(30 * time.Second)
			b.remove(fmt.Sprintf("%s.20261123-10150%d", path, n))
		}
		if b.series(metric.LogSpoolBytes+`{destination="elasticsearch"}`) == 0 {
			t.Error("nothing is in the spool")
		}
		b.end()
		b.dest.down = nil
		b.start()
		b.wait(30 * time.Second)
		b.stop()
		got := b.dest.messages()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d records of %d: %+v", len(got), len(want), b.f.Status())
		}
		left, err := os.ReadDir(filepath.Join(b.cfg.State, "spool"))
		if err != nil || len(left) > 0 || b.f.spooled != 0 {
			t.Errorf("%d copies and %d bytes are left in the spool: %v", len(left), b.f.spooled, err)
		}
	})
}

func TestSpoolHasABoundAndSaysSo(t *testing.T) {
	bubble(t, func(b *bench) {
		b.cfg.Spool = 1000
		path := b.pod()
		b.dest.down = make(chan struct{})
		b.write(path, strings.Repeat(cri("stdout", "F", strings.Repeat("x", 900)), 20_000))
		b.start()
		b.wait(5 * time.Second)
		b.rename(path, path+".20261123-101500")
		b.wait(time.Minute)
		if got := fmt.Sprint(b.f.Problems()); !strings.Contains(got, "the spool is full with 0 bytes: raise spool") {
			t.Errorf("problems %s", got)
		}
		close(b.dest.down)
		b.wait(10 * time.Second)
		b.stop()
		if a := b.account(path); a.Stored != a.Seen {
			t.Errorf("account %+v", a)
		}
	})
}

// A file that shrinks, and still holds all that was read of it, goes on; what was
// cut off its end unread is lost, and counted.
func TestUnreadEndThatIsCutOffIsLost(t *testing.T) {
	bubble(t, func(b *bench) {
		b.dest.down = make(chan struct{})
		const lines, gone = 30_000, 100
		b.write("app.log", strings.Repeat(strings.Repeat("x", 999)+"\n", lines))
		b.start()
		b.wait(5 * time.Second)
		if err := os.Truncate(b.path("app.log"), (lines-gone)*1000); err != nil {
			t.Fatal(err)
		}
		b.wait(15 * time.Second)
		if a := b.account("app.log"); a.Lost != gone*1000 || a.Seen != lines*1000 {
			t.Errorf("account %+v", a)
		}
		close(b.dest.down)
		b.wait(10 * time.Second)
		b.write("app.log", "next\n")
		b.wait(5 * time.Second)
		b.stop()
		if got := b.dest.messages(); len(got) != lines-gone+1 || got[lines-gone] != "next" {
			t.Errorf("%d records", len(got))
		}
		if n := b.series(metric.LogLostBytes + `{destination="elasticsearch",reason="truncated"}`); n != gone*1000 {
			t.Errorf("%v bytes are lost by truncation", n)
		}
	})
}

// A file of weight 3 gives three times as much as one of weight 1.
func TestReadingIsSharedByWeight(t *testing.T) {
	bubble(t, func(b *bench) {
		text := strings.Repeat(strings.Repeat("x", 999)+"\n", 20_000)
		b.write("a.log", text)
		b.write("b.txt", text)
		b.cfg.Sources = []Source{{Type: Files, Paths: []string{b.path("*.log")}, Weight: 3}, {Type: Files, Paths: []string{b.path("*.txt")}}}
		b.cfg.Shippers = 1
		b.dest.down = make(chan struct{})
		b.start()
		b.wait(5 * time.Second)
		heavy, light := b.account("a.log").InFlight, b.account("b.txt").InFlight
		if light == 0 || heavy < 2*light || heavy > 4*light {
			t.Errorf("%d bytes of the heavy file and %d of the light one are under way", heavy, light)
		}
		close(b.dest.down)
		b.wait(10 * time.Second)
		b.stop()
	})
}

// After a crash everything that may have been sent is marked so, that the
// destination can look for it: also what left after the newest checkpoint.
func TestWhatMayHaveBeenSentIsUncertainAfterACrash(t *testing.T) {
	bubble(t, func(b *bench) {
		const lines = 40_000
		b.write("app.log", strings.Repeat(strings.Repeat("x", 999)+"\n", lines))
		sent := map[string]bool{}
		certain := 0
		first := true
		b.dest.verdict = func(r ship.Record) ship.Verdict {
			if first {
				sent[r.ID] = true
			} else if sent[r.ID] && !r.Uncertain {
				certain++
			}
			return ship.Stored
		}
		b.cfg.Shippers = 1
		b.start()
		time.Sleep(300 * time.Millisecond)
		// What a crash at this moment leaves behind.
		state, err := os.ReadFile(checkpointPath(b.cfg.State))
		if err != nil {
			t.Fatal(err)
		}
		b.dest.set(func() {})
		b.stop()
		if len(sent) == 0 {
			t.Fatal("nothing was sent")
		}
		if err := os.WriteFile(checkpointPath(b.cfg.State), state, 0o640); err != nil {
			t.Fatal(err)
		}
		first = false
		b.start()
		b.wait(10 * time.Second)
		b.stop()
		if certain > 0 {
			t.Errorf("%d records are certain not to have been sent, and were", certain)
		}
	})
}

// Sources are matched by any depth of folders, and what is excluded stays out.
func TestPatternsOfAnyDepth(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a.log", "x/b.log", "x/y/c.log", "x/y/d.txt", "skip/e.log"} {
		if err := os.MkdirAll(filepath.Dir(b.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		b.write(name, "x\n")
	}
	s := Source{Type: Files, Paths: []string{b.path("**/*.log")}, Exclude: []string{b.path("skip/**")}}
	got, folders := s.Files()
	want := []string{b.path("a.log"), b.path("x/b.log"), b.path("x/y/c.log")}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if len(folders) != 4 {
		t.Errorf("looked into %q", folders)
	}
	for pattern, path := range map[string]string{"/a/**": "/a/b/c", "/**/c": "/a/b/c", "/a/**/c": "/a/c", "/a/*/c": "/a/b/c"} {
		if !matches(pattern, path) {
			t.Errorf("%s does not match %s", pattern, path)
		}
	}
	for pattern, path := range map[string]string{"/a/*": "/a/b/c", "/a/**/d": "/a/b/c", "/a": "/a/b"} {
		if matches(pattern, path) {
			t.Errorf("%s matches %s", pattern, path)
		}
	}
}

// Whatever happens to a container's file, each of its records arrives once and
// whole: rotations as the kubelet does them, at any place of split records of
// both streams, kills, restarts, outages, few descriptors, with and without a
// spool.
func TestRecordsOfAContainerArriveOnceAndWhole(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(b *bench) {
				r := rand.New(rand.NewPCG(seed, 2))
				path := b.pod()
				b.cfg.OpenFiles, b.cfg.PartialWait = 1+r.IntN(4), time.Hour

				if r.IntN(2) == 0 {
					b.cfg.Spool = 10 << 20
				}
				var want []string
				var open [2][]string // parts that are still to be written
				var rotated []string
				steps := []string{fmt.Sprint(b.cfg.OpenFiles, b.cfg.Spool)}
				part := func(stream int) string {
					text := open[stream][0]
					open[stream] = open[stream][1:]
					tag := "P"
					if len(open[stream]) == 0 {
						tag = "F"
					}
					return cri([]string{"stdout", "stderr"}[stream], tag, text)
				}
				write := func() {
					var text strings.Builder
					for range r.IntN(400) + 1 {
						stream := r.IntN(2)
						if len(open[stream]) == 0 {
							message := fmt.Sprintf("line %06d", len(want))
							for n := range r.IntN(4) {
								message += fmt.Sprintf("|%d%s", n, strings.Repeat("x", r.IntN(200)))
							}
							want = append(want, message)
							open[stream] = strings.SplitAfter(message, "|")
						}
						text.WriteString(part(stream))
					}
					b.write(path, text.String())
				}
				rotate := func() {
					for _, name := range rotated {
						if exists(b.path(name)) {
							b.compress(name)
						}
					}
					rotated = append(rotated, fmt.Sprintf("%s.20261123-%06d", path, len(rotated)))
					b.rename(path, rotated[len(rotated)-1])
					b.write(path, "")
				}
				write()
				b.start()
				b.wait(time.Second)
				for range 25 {
					what := r.IntN(7)
					steps = append(steps, fmt.Sprint(what))
					switch what {
					case 0, 1:
						write()
					case 2:
						rotate()
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
						for range r.IntN(3) {
							write()
							rotate()
						}
						b.start()
					case 5:
						down := make(chan struct{})
						b.dest.set(func() { b.dest.down = down })
						write()
						for range r.IntN(3) {
							b.wait(time.Duration(r.IntN(40_000)) * time.Millisecond)
							rotate()
							write()
						}
						b.dest.set(func() { b.dest.down = nil })
						close(down)
					case 6:
						b.stop()
						write()
						b.start()
					}
					b.wait(time.Duration(r.IntN(3000)) * time.Millisecond)
				}
				for stream := range open {
					for len(open[stream]) > 0 {
						b.write(path, part(stream))
					}
				}
				b.wait(time.Minute)
				a := b.f.Status().Sum.Bytes
				b.stop()
				got := map[string]int{}
				for _, m := range b.dest.messages() {
					got[m]++
				}
				missing, double := 0, 0
				for _, m := range want {
					if got[m] == 0 {
						missing++
					} else if got[m] > 1 {
						double++
					}
				}
				if missing+double > 0 || len(got) != len(want) || a.Lost != 0 || a.Unread+a.InFlight != 0 {
					t.Errorf("steps %v: of %d records %d are missing and %d double, %d strange; account %+v", steps, len(want), missing, double, len(got)-len(want)+missing, a)
				}
			})
		})
	}
}

// somePods are those that an API server would have told.
func somePods() *Pods {
	return NewPods("", quiet)
}

// fluent-bit #2670: the first lines of a pod come before its metadata. They wait
// for it, and a bound of time later they go without and say so.
func TestRecordsWaitForTheMetadataOfTheirPod(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		b.cfg.Pods = somePods()
		b.write(path, cri("stdout", "F", "early"))
		b.start()
		b.wait(2 * time.Second)
		b.expect()
		b.cfg.Pods.put(&Pod{Namespace: "shop", Name: "web", UID: "0b9a", Labels: map[string]string{"app": "web"}}, time.Now())
		b.wait(2 * time.Second)
		b.expect("early")
		// Another pod, that nobody ever knows.
		other := "shop_job_77/app/0.log"
		if err := os.MkdirAll(filepath.Dir(b.path(other)), 0o755); err != nil {
			t.Fatal(err)
		}
		b.write(other, cri("stdout", "F", "unknown"))
		b.wait(3 * time.Second)
		b.expect("early")
		b.wait(5 * time.Second)
		b.expect("early", "unknown")
		// vector #12909: the pod is gone and the rest of its file is not.
		b.cfg.Pods.leave(b.cfg.Pods.byName["shop/web"][0], time.Now())
		b.write(path, cri("stdout", "F", "late"))
		b.wait(2 * time.Second)
		b.stop()
		b.expect("early", "unknown", "late")
		for _, id := range b.dest.ids {
			doc := b.dest.docs[id]
			labels, _ := doc["kubernetes"].(map[string]any)["labels"].(map[string]any)
			if unknown := doc["message"] == "unknown"; unknown != (labels["app"] == nil) {
				t.Errorf("%s has the labels %v", doc["message"], labels)
			}
		}
		if got := fmt.Sprint(b.flagsOf("early"), b.flagsOf("unknown"), b.flagsOf("late")); got != "[] [no_metadata] []" {
			t.Errorf("flags %s", got)
		}
		if n := b.series(metric.LogNoMetadata + `{destination="elasticsearch"}`); n != 1 {
			t.Errorf("%v records without metadata are counted", n)
		}
	})
}

// Dead letters that are stored later move in the account, and no counter falls.
func TestRedrivenRecordsAreStored(t *testing.T) {
	bubble(t, func(b *bench) {
		path := b.pod()
		bad := map[string]int64{}
		b.dest.verdict = func(r ship.Record) ship.Verdict {
			if bytes.Contains(r.Doc, []byte("bad")) {
				bad[r.ID] = r.Bytes
				return ship.DeadLettered
			}
			return ship.Stored
		}
		b.write(path, cri("stdout", "F", "good")+cri("stdout", "P", "ba")+cri("stdout", "F", "d")+cri("stdout", "F", "bad too"))
		b.start()
		b.wait(3 * time.Second)
		before := b.f.Status().Sum
		if before.Records.DeadLettered != 2 || before.Bytes.DeadLettered == 0 {
			t.Fatalf("%+v", before)
		}
		b.stop()
		b.start() // the dead letters are from an earlier run
		var done ship.Redriven
		for id, n := range bad {
			done.Records = append(done.Records, ship.RedrivenRecord{ID: id, Bytes: n, Verdict: ship.Stored})
		}
		done.Position = ship.Position{File: 7, Offset: 8}
		if err := b.f.redrove(done); err != nil {
			t.Error(err)
		}
		b.wait(time.Second)
		after := b.f.Status()
		if after.Sum.Records.DeadLettered != 0 || after.Sum.Bytes.DeadLettered != 0 || after.Sum.Records.Stored != 3 || after.Redriven != 2 {
			t.Errorf("%+v", after.Sum)
		}
		if n := b.series(metric.LogRecordsTotal + `{destination="elasticsearch",state="dead_lettered"}`); n != 2 {
			t.Errorf("the counter of dead letters fell to %v", n)
		}
		b.stop()
		b.start()
		if b.f.redriveAt != done.Position {
			t.Errorf("after a restart they are sent again from %+v", b.f.redriveAt)
		}
		b.stop()
		// It is on disk, and readable without an agent.
		at, err := ReadStatus(b.cfg.State, "elasticsearch")
		if err != nil || !at.Balanced || at.Sum.Records.Stored != 3 || at.Redriven != 2 || len(at.Files) != 1 || at.Files[0].Bytes.Stored != before.Bytes.Seen {
			t.Errorf("%+v, %v", at, err)
		}
	})
}
