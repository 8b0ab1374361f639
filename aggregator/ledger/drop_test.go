package ledger

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"nines/pkg/sla"
)

const testDay = sla.Minute(1440)

// oldBook holds five days of two objectives, with revisions, from day -1 on.
func oldBook(t *testing.T, b *Book) {
	t.Helper()
	_, err := b.Append(Batch{Term: 1, At: 1, Objectives: []sla.Objective{{ID: id(1)}, {ID: id(2)}}, Sources: []Source{{Objective: id(1), Key: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	for day := sla.Minute(-1); day < 4; day++ {
		for o := 1; o <= 2; o++ {
			book(t, b, 2, first(o, day*testDay, figures(1)), first(o, day*testDay+1439, figures(2)))
			book(t, b, 3, revision(o, day*testDay, sla.Figures{Counts: sla.Counts{Total: 1}}))
		}
	}
}

func TestDropBeforeRemovesOldDaysAndKeepsTheRest(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	oldBook(t, b)
	head := b.Head()
	want := scan(t, b, 1, 2*testDay, 4*testDay, 0)
	objectives, err := b.Objectives(0)
	if err != nil || len(objectives) != 2 || len(want) != 4 {
		t.Fatal(len(objectives), len(want), err)
	}
	// Days are dropped whole: that of the minute stays.
	if err := b.DropBefore(2*testDay + 700); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for o := 1; o <= 2; o++ {
			if got := scan(t, b, o, -9*testDay, 9*testDay, 0); !reflect.DeepEqual(got, want) {
				t.Errorf("objective %d:\n got %v\nwant %v", o, got, want)
			}
			if m, ok := b.LastMinute(id(o)); !ok || m != 4*testDay-1 {
				t.Errorf("objective %d: last minute %d, %v", o, m, ok)
			}
		}
		for _, prefix := range []byte{'e', 'r'} {
			err := b.each([]byte{prefix}, []byte{prefix + 1}, func(k, _ []byte) error {
				_, m, _, err := parseMinuteKey(k)
				if m < 2*testDay {
					t.Errorf("%x is still there", k)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		if got, err := b.Objectives(0); err != nil || !reflect.DeepEqual(got, objectives) {
			t.Errorf("objectives %v, %v", got, err)
		}
		if got, err := b.Sources(id(1)); err != nil || len(got) != 1 {
			t.Errorf("sources %v, %v", got, err)
		}
		if b.Head() != head {
			t.Errorf("head %v, want %v", b.Head(), head)
		}
		verifyChain(t, b)
	}
	check()
	before := dump(t, b)
	b = reopen(t, b, dir)
	check()
	// Again, and with an older minute, it changes nothing.
	for _, m := range []sla.Minute{2*testDay + 700, 2 * testDay, testDay, -1 << 62} {
		if err := b.DropBefore(m); err != nil {
			t.Error(err)
		}
	}
	if dump(t, b) != before {
		t.Error("a second drop changed the book")
	}
	// The book goes on.
	book(t, b, 9, first(1, 4*testDay, figures(1)), revision(1, 2*testDay, sla.Figures{Counts: sla.Counts{Total: 1}}))
	if n := verifyChain(t, b); n != head.Seq+1 {
		t.Errorf("batch %d after %d", n, head.Seq)
	}
}

func TestBookingOfADroppedMinuteIsRefusedWhole(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	oldBook(t, b)
	if err := b.DropBefore(2 * testDay); err != nil {
		t.Fatal(err)
	}
	before := dump(t, b)
	for range 2 {
		for name, e := range map[string]Entry{
			"new":      first(1, 2*testDay-1, figures(7)),
			"the same": first(1, testDay, figures(1)),
			"revision": revision(1, testDay, figures(1)),
			"ancient":  first(1, -9*testDay, figures(1)),
		} {
			_, err := b.Append(Batch{Term: 1, At: 9, Entries: []Entry{first(1, 4*testDay, figures(1)), e}})
			var d *Dropped
			if !errors.As(err, &d) || d.Minute != e.Minute || d.Objective != id(1) || d.Kept != 2*testDay {
				t.Errorf("%s: got %v", name, err)
				continue
			}
			if !strings.Contains(err.Error(), "retention has removed all before 1970-01-03: leave it out, or keep the ledger longer") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if dump(t, b) != before {
			t.Error("a refused batch changed the book")
		}
		b = reopen(t, b, dir)
	}
}

// A clock that jumped ahead must not empty the book.
func TestDropBehindTheNewestMinuteIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	if err := b.DropBefore(99 * testDay); err != nil || len(dump(t, b)) != len("76=02\n") {
		t.Errorf("an empty book: %v, %s", err, dump(t, b))
	}
	oldBook(t, b)
	before := dump(t, b)
	for _, m := range []sla.Minute{4 * testDay, 99 * testDay, 1<<63 - 1} {
		if err := b.DropBefore(m); err == nil || !strings.Contains(err.Error(), "this host's clock") {
			t.Errorf("before %d: %v", m, err)
		}
	}
	if dump(t, b) != before {
		t.Error("the book changed")
	}
	if err := b.DropBefore(4*testDay - 1); err != nil {
		t.Error(err)
	}
	if got := scan(t, b, 1, -9*testDay, 9*testDay, 0); len(got) != 2 {
		t.Errorf("left: %v", got)
	}
}

// A power cut leaves all that is not synced behind: before the drop everything
// is there, once it has returned nothing old is.
func TestDropIsThereWholeAfterAPowerCut(t *testing.T) {
	dir := t.TempDir()
	start := func(disk vfs.FS) *Book {
		b, err := openOn(disk, Config{Dir: dir}, silent)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, b) })
		return b
	}
	disk := vfs.NewCrashableMem()
	b := start(disk)
	oldBook(t, b)
	before := dump(t, b)
	cutBefore := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := b.DropBefore(2 * testDay); err != nil {
		t.Fatal(err)
	}
	cutAfter := disk.CrashClone(vfs.CrashCloneCfg{})
	after := dump(t, b)
	closed(t, b)

	b = start(cutBefore)
	if dump(t, b) != before {
		t.Error("the power cut before the drop changed the book")
	}
	book(t, b, 9, revision(1, testDay, figures(1)))
	closed(t, b)

	b = start(cutAfter)
	if after == before || dump(t, b) != after {
		t.Error("the power cut after the drop brought something back")
	}
	if _, err := b.Append(Batch{Term: 1, At: 9, Entries: []Entry{revision(1, testDay, figures(1))}}); !errors.As(err, new(*Dropped)) {
		t.Errorf("got %v", err)
	}
	verifyChain(t, b)
}
