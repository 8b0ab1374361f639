package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/pkg/ops"
)

// openFiles opens a destination in the folder; the caller closes it.
func openFiles(t *testing.T, folder string, fileBytes ops.Size, files int) (*Files, *metrics.Set, *bytes.Buffer) {
	t.Helper()
	set, logged := metrics.NewSet(), &bytes.Buffer{}
	f, err := NewFiles(FilesConfig{Directory: folder, FileBytes: fileBytes, Files: files}, slog.New(slog.NewTextHandler(logged, nil)), NewMetrics(set, "elasticsearch"))
	if err != nil {
		t.Fatal(err)
	}
	return f, set, logged
}

func store(t *testing.T, f *Files, ids string) {
	t.Helper()
	records := recordsOf(strings.Fields(ids)...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := f.Ship(ctx, records)
	if err != nil || !slices.Equal(got, sent(Stored, len(records))) {
		t.Errorf("%v, %v; holds with %q", got, err, f.Hold())
	}
}

func closed(t *testing.T, f *Files) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func namesIn(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestFilesHoldEachRecordWithItsID(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "made", "here")
	f, _, _ := openFiles(t, folder, 1<<20, 2)
	records := append(recordsOf("a", "b\x00\"é\xff"), Record{ID: "empty", Doc: []byte("{}")})
	if got, err := f.Ship(t.Context(), records); err != nil || !slices.Equal(got, sent(Stored, 3)) {
		t.Fatal(got, err)
	}
	closed(t, f)
	got := linesOf(t, folder)
	want := []string{
		`{"_id":"a","@timestamp":"2026-01-02T03:04:05Z","message":"line a"}`,
		`{"_id":"b\u0000\"é\ufffd","@timestamp":"2026-01-02T03:04:05Z","message":"line b\u0000\"é\ufffd"}`,
		`{"_id":"empty"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("lines\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	info, err := os.Stat(filepath.Join(folder, "nines-logs-00000001.ndjson"))
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v, %v: others must not read logs", info.Mode(), err)
	}
}

func TestFilesWithoutRecordsWriteNothing(t *testing.T) {
	f, _, _ := openFiles(t, t.TempDir(), 1<<20, 2)
	store(t, f, "")
	if f.book.size != 0 {
		t.Errorf("%d bytes written", f.book.size)
	}
	closed(t, f)
}

func TestOldestFileIsRemovedAndItsRecordsCounted(t *testing.T) {
	folder := t.TempDir()
	f, set, _ := openFiles(t, folder, 150, 3)                    // two records of 65 bytes each
	other := filepath.Join(folder, "nines-logs-1.ndjson")        // not one of ours
	third := filepath.Join(folder, "nines-logs-00000000.ndjson") // ours, and oldest
	for _, name := range []string{other, third} {
		if err := os.WriteFile(name, []byte("{}\n{}\n{}\n"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		store(t, f, fmt.Sprint(i))
	}
	closed(t, f)
	if err := os.Remove(other); err != nil {
		t.Errorf("a file that is not ours was removed: %v", err)
	}
	if got, want := namesIn(t, folder), []string{"nines-logs-00000003.ndjson", "nines-logs-00000004.ndjson", "nines-logs-00000005.ndjson"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if got := idsIn(t, linesOf(t, folder)); got != "4 5 6 7 8 9" {
		t.Errorf("records %q", got)
	}
	if got := counts(set); got != "removed=7" {
		t.Errorf("counts %q, want the 4 of ours and 3 of the oldest", got)
	}
}

func TestBatchAboveTheBoundOfAFileIsKeptWhole(t *testing.T) {
	folder := t.TempDir()
	f, _, _ := openFiles(t, folder, 10, 2)
	store(t, f, "a b c")
	store(t, f, "d e f")
	closed(t, f)
	if got := idsIn(t, linesOf(t, folder)); got != "a b c d e f" || len(namesIn(t, folder)) != 2 {
		t.Errorf("records %q in %q", got, namesIn(t, folder))
	}
}

func TestFewerFilesAfterARestartAreFewerOnDisk(t *testing.T) {
	folder := t.TempDir()
	f, _, _ := openFiles(t, folder, 10, 9)
	for i := range 6 {
		store(t, f, fmt.Sprint(i))
	}
	closed(t, f)
	f, set, _ := openFiles(t, folder, 10, 2)
	store(t, f, "6")
	closed(t, f)
	if got := idsIn(t, linesOf(t, folder)); got != "5 6" || counts(set) != "removed=5" {
		t.Errorf("records %q, %s", got, counts(set))
	}
}

func TestTornEndIsCutAtOpenAndNothingAcknowledgedIsLost(t *testing.T) {
	for name, tail := range map[string]string{
		"nothing":            "",
		"half a line":        `{"_id":"torn","mess`,
		"zeros of a crash":   strings.Repeat("\x00", 200_000),
		"garbage":            "\xff\xfe\x01" + strings.Repeat("x", 70_000),
		"a line but its end": `{"_id":"torn"}`,
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			f, _, _ := openFiles(t, folder, 1<<20, 2)
			store(t, f, "a b")
			closed(t, f)
			path := filepath.Join(folder, "nines-logs-00000001.ndjson")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(whole, tail...), 0o640); err != nil {
				t.Fatal(err)
			}
			f, _, logged := openFiles(t, folder, 1<<20, 2)
			store(t, f, "c")
			closed(t, f)
			if got := idsIn(t, linesOf(t, folder)); got != "a b c" {
				t.Errorf("records %q, want a b c", got)
			}
			if told := strings.Contains(logged.String(), "torn line"); told != (tail != "") {
				t.Errorf("logged:\n%s", logged)
			}
		})
	}
}

func TestFileOfGarbageAloneIsBegunAnew(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "nines-logs-00000007.ndjson"), []byte("garbage"), 0o640); err != nil {
		t.Fatal(err)
	}
	f, _, _ := openFiles(t, folder, 1<<20, 2)
	store(t, f, "a")
	closed(t, f)
	if got := linesOf(t, folder); len(got) != 1 || idsIn(t, got) != "a" {
		t.Errorf("lines %q", got)
	}
}

func TestFullDiskHoldsUntilThereIsRoomAndLeavesNoHalfLine(t *testing.T) {
	for _, test := range []struct {
		name string
		disk *brokenDisk
		want string
	}{
		{"full", &brokenDisk{room: 100}, "free space on that disk"},
		{"full, and the half line can not be cut off at once", &brokenDisk{room: 200, stuck: true}, "cut off a torn line"},
		{"does not sync", &brokenDisk{room: 1 << 20, unsynced: true}, "input/output error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f, set, logged := openFiles(t, folder, 1<<20, 2)
				store(t, f, "a")
				disk := test.disk
				disk.file = f.book.f
				f.book.f = disk
				done := make(chan struct{})
				go func() {
					defer close(done)
					store(t, f, "b c d e f")
				}()
				time.Sleep(time.Hour)
				if !strings.Contains(f.Hold(), test.want) || counts(set) != "held=1" {
					t.Errorf("holds with %q, %s", f.Hold(), counts(set))
				}
				disk.mu.Lock()
				disk.room, disk.stuck, disk.unsynced = 1<<20, false, false
				disk.mu.Unlock()
				<-done
				if f.Hold() != "" || counts(set) != "" {
					t.Errorf("still holds: %q, %s", f.Hold(), counts(set))
				}
				store(t, f, "g")
				closed(t, f)
				if got := idsIn(t, linesOf(t, folder)); got != "a b c d e f g" {
					t.Errorf("records %q", got)
				}
				if n := strings.Count(logged.String(), "level=WARN"); n > 2 || strings.Count(logged.String(), "level=INFO") != 1 {
					t.Errorf("logged more than changes:\n%s", logged)
				}
			})
		})
	}
}

// A write that failed may have left whole lines behind the end. A shorter one
// in their place must not make them records.
func TestWhatAFailedWriteLeftIsNotThereAfterAShorterOne(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, _, _ := openFiles(t, folder, 1<<20, 2)
		disk := &brokenDisk{file: f.book.f, room: 300, stuck: true}
		f.book.f = disk
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.Ship(ctx, recordsOf("a", "b", "c", "d", "e", "f")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		disk.room, disk.stuck = 1<<20, false
		store(t, f, "g")
		closed(t, f)
		if got := idsIn(t, linesOf(t, folder)); got != "g" {
			t.Errorf("records %q, want g alone", got)
		}
	})
}

func TestDeviceWithoutRoomHolds(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, _, logged := openFiles(t, folder, 1<<20, 2)
		real := f.book.f
		f.book.f = full
		time.AfterFunc(time.Minute, func() {
			f.book.mu.Lock()
			defer f.book.mu.Unlock()
			if f.Hold() == "" || !strings.Contains(logged.String(), "free space on that disk") {
				t.Errorf("holds with %q, logged:\n%s", f.Hold(), logged)
			}
			f.book.f = real
			full.Close()
		})
		store(t, f, "a")
		closed(t, f)
	})
	if got := idsIn(t, linesOf(t, folder)); got != "a" {
		t.Errorf("records %q", got)
	}
}

func TestOldestFileThatCanNotBeRemovedHoldsSoThatTheBoundIsKept(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, _, _ := openFiles(t, folder, 10, 2)
		store(t, f, "a")
		store(t, f, "b")
		oldest := filepath.Join(folder, "nines-logs-00000001.ndjson")
		if err := os.Remove(oldest); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(oldest, 0o750); err != nil { // reading it fails, for root too
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if got, err := f.Ship(ctx, recordsOf("c")); !errors.Is(err, context.DeadlineExceeded) || got[0] != Unknown {
			t.Errorf("%v, %v", got, err)
		}
		if !strings.Contains(f.Hold(), "remove the oldest records") {
			t.Errorf("holds with %q", f.Hold())
		}
		if n := len(namesIn(t, folder)); n != 3 {
			t.Errorf("%d files, want 2 and the one that comes next", n)
		}
		if err := os.Remove(oldest); err != nil {
			t.Fatal(err)
		}
		store(t, f, "c")
		if f.Hold() != "" {
			t.Errorf("still holds: %s", f.Hold())
		}
		closed(t, f)
	})
}

func TestNextFileThatCanNotBeMadeHolds(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, _, _ := openFiles(t, folder, 10, 2)
		store(t, f, "a")
		taken := filepath.Join(folder, "nines-logs-00000002.ndjson")
		if err := os.Mkdir(taken, 0o750); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, func() {
			if !strings.Contains(f.Hold(), "is a directory") {
				t.Errorf("holds with %q", f.Hold())
			}
			if err := os.Remove(taken); err != nil {
				t.Error(err)
			}
		})
		store(t, f, "b")
		closed(t, f)
		if got := idsIn(t, linesOf(t, folder)); got != "a b" {
			t.Errorf("records %q", got)
		}
		if _, err := os.Stat(taken); err != nil {
			t.Error(err)
		}
	})
}

func TestFilesContextThatEndsReturnsItsCause(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, _, _ := openFiles(t, folder, 1<<20, 2)
		f.book.f = &brokenDisk{file: f.book.f}
		gone := errors.New("the agent stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(gone) })
		got, err := f.Ship(ctx, recordsOf("a", "b"))
		if !errors.Is(err, gone) || !slices.Equal(got, sent(Unknown, 2)) {
			t.Errorf("%v, %v", got, err)
		}
		if f.Hold() == "" {
			t.Error("nothing was repaired, and it no longer holds")
		}
		closed(t, f)
	})
	if got := linesOf(t, folder); len(got) != 0 {
		t.Errorf("lines %q", got)
	}
}

func TestFilesThatAreClosedTakeNothing(t *testing.T) {
	f, _, _ := openFiles(t, t.TempDir(), 1<<20, 2)
	closed(t, f)
	closed(t, f)
	if got, err := f.Ship(t.Context(), recordsOf("a")); !errors.Is(err, fs.ErrClosed) || got[0] != Unknown {
		t.Errorf("%v, %v", got, err)
	}
}

func TestFilesTakeConcurrentCallsAndRestartsWithoutLoss(t *testing.T) {
	folder := t.TempDir()
	var want []string
	for restart := range 3 {
		f, set, _ := openFiles(t, folder, 1000, 1000)
		var calls sync.WaitGroup
		for i := range 4 {
			for k := range 10 {
				want = append(want, fmt.Sprintf("%d-%d-%d-a", restart, i, k), fmt.Sprintf("%d-%d-%d-b", restart, i, k))
			}
			calls.Go(func() {
				for k := range 10 {
					store(t, f, fmt.Sprintf("%d-%d-%d-a %[1]d-%[2]d-%[3]d-b", restart, i, k))
				}
			})
		}
		calls.Wait()
		closed(t, f)
		if got := counts(set); got != "" {
			t.Errorf("counts %q", got)
		}
	}
	got := strings.Fields(idsIn(t, linesOf(t, folder)))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

func TestFolderThatCanNotBeUsedIsAnErrorWithARemedy(t *testing.T) {
	folder := t.TempDir()
	taken := filepath.Join(folder, "file")
	if err := os.WriteFile(taken, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ dir, want string }{
		"a file in its place": {taken, "choose another folder"},
		"below a file":        {filepath.Join(taken, "below"), "a part of that path is a file: choose another folder"},
		"no file system":      {"/proc/nines", "create folder of records"},
	}
	if os.Geteuid() != 0 { // root may write anywhere
		closed := filepath.Join(folder, "closed")
		if err := os.Mkdir(closed, 0o550); err != nil {
			t.Fatal(err)
		}
		tests["no right to write"] = struct{ dir, want string }{closed, "give this user the permission, or choose another folder"}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewFiles(FilesConfig{Directory: test.dir, FileBytes: 1, Files: 1}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), filepath.Dir(test.dir)) {
				t.Errorf("error %v, want %q and the path in it", err, test.want)
			}
			_, err = NewElasticsearch(ElasticsearchConfig{URLs: []string{"http://localhost:9200"}, DeadLetters: test.dir}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error of dead letters %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestFilesOwnWhatTheyWriteAndNothingElse(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultFiles()
	for path, want := range map[string]bool{
		"nines-logs/nines-logs-00000001.ndjson":          true,
		"./nines-logs/../nines-logs/nines-logs-1.ndjson": true,
		filepath.Join(here, "nines-logs", "x.ndjson"):    true,
		"nines-logs/below/nines-logs-00000001.ndjson":    false,
		"nines-logs-00000001.ndjson":                     false,
		"nines-logs/app.log":                             false,
		"/nines-logs/nines-logs-00000001.ndjson":         false,
		"":                                               false,
	} {
		if got := c.Owns(path); got != want {
			t.Errorf("Owns(%q) is %v", path, got)
		}
	}
}

func TestFilesWithoutBoundsHaveTheDefaultOnes(t *testing.T) {
	f, _, _ := openFiles(t, t.TempDir(), 0, 0)
	defer closed(t, f)
	if f.book.fileBytes != defaultFileBytes || f.book.files != defaultFiles {
		t.Errorf("%d files of %d bytes", f.book.files, f.book.fileBytes)
	}
}

func TestFilesConfigNamesTheKeyAndTheRemedy(t *testing.T) {
	if c := DefaultFiles(); c.Validate() != nil || c.MaxBytes() != 256<<20 {
		t.Errorf("%v, %d bytes", c.Validate(), c.MaxBytes())
	}
	if c := (FilesConfig{Directory: "d"}); c.Validate() != nil || c.MaxBytes() != 256<<20 {
		t.Errorf("%v, %d bytes: what is not written has its default", c.Validate(), c.MaxBytes())
	}
	for want, c := range map[string]FilesConfig{
		"directory is empty: name a folder":                        {},
		"max_file_size is -1B: give a size above 0, such as 32MiB": {Directory: "d", FileBytes: -1},
		"max_files is -1: keep at least 1 file":                    {Directory: "d", Files: -1},
	} {
		if err := c.Validate(); err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
		if _, err := NewFiles(c, quiet, NewMetrics(metrics.NewSet(), "elasticsearch")); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
