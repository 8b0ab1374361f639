package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/goleak"

	"nines/pkg/ops"
)

func TestSecondOpenerIsToldWhoHoldsTheBook(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	for _, readOnly := range []bool{false, true} {
		second, err := Open(Config{Dir: dir, ReadOnly: readOnly}, silent)
		var held *ops.HeldError
		if !errors.As(err, &held) || second != nil {
			t.Fatalf("read-only %v: got %v, %v", readOnly, second, err)
		}
		if held.PID != os.Getpid() || held.Dir != dir || !strings.Contains(err.Error(), "stop that one first") {
			t.Errorf("read-only %v: %v", readOnly, err)
		}
	}
	// The first one was not disturbed, and gives the folder back.
	book(t, b, 1, first(1, 1, figures(1)))
	b = reopen(t, b, dir)
	if b.Head().Seq != 1 {
		t.Errorf("head %v", b.Head())
	}
}

func TestFolderThatIsAFileGivesARemedy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := Open(Config{Dir: dir}, silent); err == nil || !strings.Contains(err.Error(), "choose another folder") {
			t.Errorf("%s: got %v", dir, err)
		}
	}
}

func TestReadOnlyBookIsReadAndNotWritten(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	book(t, b, 1, first(1, 3000, figures(1)))
	closed(t, b)
	b, err := Open(Config{Dir: dir, ReadOnly: true}, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, b)
	before := dump(t, b)
	if f, ok, err := b.Minute(id(1), 3000); err != nil || !ok || f.Total != figures(1).Total {
		t.Errorf("%+v, %v, %v", f, ok, err)
	}
	head := b.Head()
	if p, err := b.Append(Batch{Term: 1, At: 2, Entries: []Entry{first(1, 3001, figures(1))}}); !errors.Is(err, pebble.ErrReadOnly) || p != head {
		t.Errorf("append: %v, %v", p, err)
	}
	if err := b.DropBefore(2000); !errors.Is(err, pebble.ErrReadOnly) {
		t.Errorf("drop: %v", err)
	}
	if m, _ := b.LastMinute(id(1)); m != 3000 || b.Head() != head || dump(t, b) != before {
		t.Errorf("it was written: last minute %d, head %v", m, b.Head())
	}
}

// A report of a folder that is misspelt names it, and leaves nothing there.
func TestReadOnlyOpenOfNoBookCreatesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "misspelt")
	_, err := Open(Config{Dir: dir, ReadOnly: true}, silent)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "name the folder that the aggregator writes") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is there now: %v", err)
	}
}

func TestBookOfANewerFormatIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if err := b.db.Set([]byte("v"), []byte{formatVersion + 1}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	closed(t, b)
	if _, err := Open(Config{Dir: dir}, silent); err == nil || !strings.Contains(err.Error(), "use the program that wrote it") {
		t.Errorf("got %v", err)
	}
	// The failed open gave the folder back.
	if l, err := ops.LockFolder(dir); err != nil {
		t.Error(err)
	} else if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestDamagedMetadataStopsTheOpenWithARemedy(t *testing.T) {
	for name, damage := range map[string][2][]byte{
		"header":        {batchKey(2), []byte("x")},
		"newest minute": {[]byte("lshort"), []byte("x")},
		"kept day":      {[]byte("d"), []byte("x")},
	} {
		dir := t.TempDir()
		b := open(t, dir)
		book(t, b, 1, first(1, 1, figures(1)))
		if err := b.db.Set(damage[0], damage[1], pebble.Sync); err != nil {
			t.Fatal(err)
		}
		closed(t, b)
		if _, err := Open(Config{Dir: dir}, silent); !errors.Is(err, errCorrupt) || !strings.Contains(err.Error(), "put a backup of it in its place") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDamagedMinuteIsAnErrorOfTheScan(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	book(t, b, 1, first(1, 1, figures(1)))
	for _, k := range [][]byte{minuteKey(id(1), 1, 0), minuteKey(id(1), 1, 1)} {
		if err := b.db.Set(k, []byte{valueVersion}, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		b = reopen(t, b, dir)
		if _, _, err := b.Minute(id(1), 1); !errors.Is(err, errCorrupt) || !strings.Contains(err.Error(), "1970-01-01T00:01Z") {
			t.Errorf("%x: got %v", k, err)
		}
		if err := b.db.Delete(k, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	others := goleak.IgnoreCurrent()
	dir := t.TempDir()
	b := open(t, dir)
	book(t, b, 1, first(1, 1, figures(1)))
	if _, err := Open(Config{Dir: dir}, silent); err == nil {
		t.Fatal("opened twice")
	}
	b = reopen(t, b, dir)
	if err := b.db.Set([]byte("v"), []byte{99}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	closed(t, b)
	if _, err := Open(Config{Dir: dir}, silent); err == nil {
		t.Fatal("opened a format that it does not know")
	}
	goleak.VerifyNone(t, others)
}
