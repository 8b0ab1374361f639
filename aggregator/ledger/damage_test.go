package ledger

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"nines/pkg/sla"
)

// A table that lost its end, or has another byte, is an error that says what to
// do, of whoever reads it, and never ends the program.
func TestDamagedTableIsAnErrorWithARemedy(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	for day := range sla.Minute(3) {
		var all []Entry
		for m := range testDay {
			all = append(all, first(1, day*testDay+m, figures(int(m*m*7919))), first(2, day*testDay+m, figures(int(m))))
		}
		book(t, b, 1, all...)
	}
	sealed(t, b, 2*testDay)
	want := exportOf(t, b)
	if err := b.db.Flush(); err != nil {
		t.Fatal(err)
	}
	closed(t, b)
	tables, err := filepath.Glob(filepath.Join(dir, "book", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no table, %v", err)
	}
	told := 0
	// while says whether the damage happens to an open book.
	try := func(name, table string, while bool, change func([]byte) []byte) {
		usual := change
		if while {
			usual = func(data []byte) []byte { return data }
		}
		dir := copyBook(t, dir, filepath.Base(table), usual)
		b, err := Open(Config{Dir: dir}, silent)
		if err != nil {
			told++
			if !strings.Contains(err.Error(), "is damaged: put a backup of it in its place") {
				t.Errorf("%s: open has no remedy: %v", name, err)
			}
			return
		}
		defer func() { _ = b.Close() }() // it may tell the damage too
		if while {
			path := filepath.Join(dir, "book", filepath.Base(table))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		v, err := b.Verify(context.Background(), nil)
		var out strings.Builder
		read := b.Export(context.Background(), &out, ExportOptions{})
		_, sum := b.Sum(id(1), 0, 9*testDay, 0)
		_, day := b.Day(id(1), 1)
		for _, err := range []error{read, sum, day} {
			if err != nil && !strings.Contains(err.Error(), "is damaged: stop the program") {
				t.Errorf("%s: no remedy: %v", name, err)
			}
		}
		if err != nil && !strings.Contains(err.Error(), "EOF") {
			t.Errorf("%s: verify: %v", name, err)
		}
		if v.Broken != "" || err != nil || read != nil {
			told++
		} else if out.String() != want {
			t.Errorf("%s: the book reads as another one, and nobody says so", name)
		}
	}
	for _, table := range tables {
		info, err := os.Stat(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []int64{0, 1, 3, 7, 9, 10} {
			cut := info.Size() * part / 10
			if part == 10 {
				cut--
			}
			try("shortened", table, false, func(data []byte) []byte { return data[:cut] })
			try("shortened while open", table, true, func(data []byte) []byte { return data[:cut] })
			try("one byte", table, false, func(data []byte) []byte { data[cut] ^= 0x10; return data })
		}
	}
	if told < 6*len(tables) {
		t.Errorf("%d damages of %d tables were told", told, len(tables))
	}
}

// A disk with little space left: nothing is written, and it goes on later.
func TestFullDiskIsToldBeforeAnythingIsWrittenAndTheBookGoesOn(t *testing.T) {
	disk := vfs.NewMem()
	b, err := openOn(disk, Config{Dir: t.TempDir()}, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, b)
	book(t, b, 1, first(1, 1, figures(1)), first(1, testDay, figures(2)), first(1, 2*testDay, figures(2)))
	before := dump(t, b)
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: reserve, TotalBytes: 1 << 40})
	_, err = b.Append(Batch{Term: 1, At: 2, Entries: []Entry{first(1, 2*testDay+1, figures(3))}})
	_, sealing := b.Seal(context.Background(), (9 * testDay).Time())
	for what, err := range map[string]error{"append": err, "seal": sealing, "drop": b.DropBefore(testDay)} {
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space on that disk") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if dump(t, b) != before || len(scan(t, b, 1, -9, 9*testDay, 0)) != 3 {
		t.Error("the book changed")
	}
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 39, TotalBytes: 1 << 40})
	book(t, b, 2, first(1, 2*testDay+1, figures(3)))
	sealed(t, b, 9*testDay)
	if err := b.DropBefore(testDay); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, b, 1, -9, 9*testDay, 0); len(got) != 3 {
		t.Errorf("%d minutes", len(got))
	}
	whole(t, b)
}

// A disk that fails below a write, at any write from some moment on: nobody
// panics, nothing that was acknowledged is lost, and the error says what to do.
func TestDiskThatFailsLosesNothingAcknowledged(t *testing.T) {
	if !alone(t) {
		return
	}
	dir := t.TempDir()
	for after := int32(0); after < 60; after += 3 {
		disk := vfs.NewCrashableMem()
		var armed atomic.Bool
		var left atomic.Int32
		left.Store(after)
		faulty := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) < 0 {
				return syscall.ENOSPC
			}
			return nil
		}))
		b, err := openOn(faulty, Config{Dir: dir}, silent)
		if err != nil {
			t.Fatal(err)
		}
		armed.Store(true)
		var acknowledged []sla.Minute
		var failed error
		for m := sla.Minute(0); m < 400 && failed == nil; m++ {
			_, failed = b.Append(Batch{Term: 1, At: 1, Entries: []Entry{first(1, m*10, figures(int(m)))}})
			if failed == nil {
				acknowledged = append(acknowledged, m*10)
			}
			if failed == nil && m%100 == 99 {
				_, failed = b.Seal(context.Background(), (m*10 + testDay + testDay).Time())
			}
		}
		if failed == nil || !strings.Contains(failed.Error(), "look at its disk and restart") && !errors.Is(failed, syscall.ENOSPC) {
			t.Errorf("after %d writes: %v", after, failed)
		}
		if b.failed() != nil {
			// It reads on, and every other write says the same.
			if got := scan(t, b, 1, 0, 9999, 0); len(got) < len(acknowledged) {
				t.Errorf("after %d writes: %d minutes are read, %d were acknowledged", after, len(got), len(acknowledged))
			}
			if _, err := b.Append(Batch{Term: 1, At: 9, Entries: []Entry{first(1, 8000, figures(1))}}); err == nil || !strings.Contains(err.Error(), "restart") {
				t.Errorf("after %d writes: %v", after, err)
			}
		}
		survivor := disk.CrashClone(vfs.CrashCloneCfg{})
		_ = b.Close() // a store that failed
		b, err = openOn(survivor, Config{Dir: dir}, silent)
		if err != nil {
			t.Fatalf("after %d writes: %v", after, err)
		}
		var got []sla.Minute
		for _, l := range scan(t, b, 1, 0, 9999, 0) {
			got = append(got, l.Minute)
		}
		if len(got) > len(acknowledged) {
			got = got[:len(acknowledged)] // the last one was on the disk before the error
		}
		if !reflect.DeepEqual(got, acknowledged) {
			t.Errorf("after %d writes: %d minutes are left, %d were acknowledged", after, len(got), len(acknowledged))
		}
		whole(t, b)
		closed(t, b)
	}
}

// The power fails before any sync of an Append: all that was acknowledged until
// then is there, and the chain goes on.
func TestPowerCutsWhileAppendingLoseNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	disk := vfs.NewCrashableMem()
	cuts := &cutting{FS: disk, mem: disk}
	b, err := openOn(cuts, Config{Dir: dir}, silent)
	if err != nil {
		t.Fatal(err)
	}
	cuts.on = true
	acknowledged := map[int]int{} // by how often the power was cut
	for m := range 40 {
		book(t, b, int64(m), first(1, sla.Minute(m), figures(m)), revision(1, sla.Minute(m), figures(m)))
		cuts.mu.Lock()
		acknowledged[len(cuts.taken)] = m + 1
		cuts.mu.Unlock()
	}
	cuts.mu.Lock()
	cuts.on = false
	taken := cuts.taken
	cuts.mu.Unlock()
	closed(t, b)
	if len(taken) < 40 {
		t.Fatalf("the power was cut %d times", len(taken))
	}
	least := 0
	for i, disk := range taken {
		least = max(least, acknowledged[i])
		b, err := openOn(disk, Config{Dir: dir}, silent)
		if err != nil {
			t.Fatal(err)
		}
		got := scan(t, b, 1, 0, 99, 0)
		if len(got) < least || len(got) > least+1 {
			t.Errorf("cut %d: %d minutes, %d were acknowledged", i, len(got), least)
		}
		if v := whole(t, b); int(v.Batches) != len(got) {
			t.Errorf("cut %d: %d batches with %d minutes", i, v.Batches, len(got))
		}
		book(t, b, 99, first(1, sla.Minute(len(got)), figures(0)))
		closed(t, b)
	}
}
