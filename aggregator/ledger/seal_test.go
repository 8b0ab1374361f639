package ledger

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"nines/pkg/sla"
)

// sealed seals all days before one.
func sealed(t testing.TB, b *Book, before sla.Minute) int {
	t.Helper()
	n, err := b.Seal(context.Background(), (before + 1440).Time())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// count is how many keys have a prefix.
func count(t testing.TB, b *Book, prefix byte) (n int) {
	t.Helper()
	err := b.each([]byte{prefix}, []byte{prefix + 1}, func(_, _ []byte) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestR27DayIsSealed24HoursAfterItsEndAndReadAsBefore(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	for m := sla.Minute(0); m < 3*testDay; m += 7 {
		book(t, b, m.Millis(), first(1, m, figures(int(m))), first(2, m, figures(1)))
	}
	book(t, b, 9, revision(1, 7, sla.Figures{Counts: sla.Counts{Total: 3}}))
	head := b.Head()
	want := scan(t, b, 1, -9, 9*testDay, 0)
	early := scan(t, b, 1, -9, 9*testDay, 100)
	if n := sealed(t, b, testDay-1); n != 0 || count(t, b, 'k') != 0 {
		t.Errorf("%d blocks a minute too early", n)
	}
	before := count(t, b, 'e')
	if n := sealed(t, b, 2*testDay); n != 4 || count(t, b, 'k') != 4 || count(t, b, 'h') != 4 {
		t.Errorf("%d blocks, want one for each of two days of two objectives", n)
	}
	if n := count(t, b, 'e'); n != before/3+1 && n != before/3 && n != before/3-1 {
		t.Errorf("%d of %d entries are left, want those of the last day", n, before)
	}
	for range 2 {
		if got := scan(t, b, 1, -9, 9*testDay, 0); !reflect.DeepEqual(got, want) {
			t.Errorf("the book reads as %d minutes, want %d", len(got), len(want))
		}
		// What was known at a batch in the middle of a sealed day stays.
		if got := scan(t, b, 1, -9, 9*testDay, 100); !reflect.DeepEqual(got, early) || len(got) != 100 {
			t.Errorf("as of batch 100 there are %d minutes, want %d", len(got), len(early))
		}
		if m, _ := b.LastMinute(id(1)); m != want[len(want)-1].Minute || b.Head() != head {
			t.Errorf("last minute %d, head %v", m, b.Head())
		}
		if n := verifyChain(t, b); n != head.Seq {
			t.Errorf("%d batches can be proven, want %d", n, head.Seq)
		}
		b = reopen(t, b, dir)
	}
}

func TestR27SealedMinuteIsNotBookedTwice(t *testing.T) {
	b := open(t, t.TempDir())
	f := figures(3)
	f.Gaps = []sla.Gap{{From: 1, To: 5, Total: 9}}
	book(t, b, 1, first(1, 5, f), first(1, 6, figures(1)))
	book(t, b, 2, first(1, 3*testDay, figures(1)))
	sealed(t, b, testDay)
	before := dump(t, b)
	if p := book(t, b, 3, first(1, 5, f)); p.Seq != 2 || dump(t, b) != before {
		t.Errorf("the same minute again: %v", p)
	}
	var c *Conflict
	if _, err := b.Append(Batch{Term: 1, At: 3, Entries: []Entry{first(1, 5, figures(3))}}); !errors.As(err, &c) || !reflect.DeepEqual(c.Booked, f) || dump(t, b) != before {
		t.Errorf("another value: %v", err)
	}
}

// The newest batch may be sealed when its lost answer makes the writer send it
// again.
func TestR25SealedNewestBatchSentAgainIsNotDoubled(t *testing.T) {
	b := open(t, t.TempDir())
	mark := Mark{Kind: "k", Key: "a", At: 1, Value: "v"}
	if _, err := b.Append(Batch{Term: 1, At: 1, Marks: []Mark{mark}}); err != nil {
		t.Fatal(err)
	}
	batch := Batch{Term: 1, At: 2, Marks: []Mark{mark, {Kind: "k", Key: "b", At: 1}}, Entries: []Entry{
		first(1, 5, figures(1)), revision(1, 5, sla.Figures{Counts: sla.Counts{Total: 7}}),
	}}
	head, err := b.Append(batch)
	if err != nil {
		t.Fatal(err)
	}
	sealed(t, b, testDay)
	before := dump(t, b)
	if p, err := b.Append(batch); err != nil || p != head || dump(t, b) != before {
		t.Errorf("%v, %v, want %v", p, err, head)
	}
}

func TestR27LateFirstBookingOfASealedDayCountsBeforeAndAfterTheNextSeal(t *testing.T) {
	b := open(t, t.TempDir())
	for day := range sla.Minute(4) {
		book(t, b, 1, first(1, day*testDay+10, figures(10)), first(1, day*testDay+30, figures(30)))
	}
	sealed(t, b, 4*testDay)
	old := b.Head()
	late := figures(20)
	late.Flags = sla.FlagReadBack
	late.Gaps = []sla.Gap{{From: 5, To: testDay + 20, Total: 1000}}
	book(t, b, 2, first(1, testDay+20, late), first(1, testDay+5, figures(5)))
	for _, when := range []string{"beside the block", "in the block"} {
		var got []sla.Minute
		for _, l := range scan(t, b, 1, testDay, 2*testDay, 0) {
			got = append(got, l.Minute-testDay)
		}
		if want := []sla.Minute{5, 10, 20, 30}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: minutes %v, want %v", when, got, want)
		}
		for name, c := range map[string]struct {
			from, to sla.Minute
			asOf     uint64
			total    string
			minutes  int64
			flags    sla.Flags
		}{
			"all":                        {0, 4 * testDay, 0, "19500", 10, sla.FlagReadBack}, // 16000 + 2500 + the gap
			"a range that cuts the gap":  {6, 4 * testDay, 0, "18500", 10, sla.FlagReadBack},
			"whole days that cut it":     {testDay, 4 * testDay, 0, "14500", 8, sla.FlagReadBack},
			"days behind it":             {2 * testDay, 4 * testDay, 0, "8000", 4, 0},
			"as it was before":           {0, 4 * testDay, old.Seq, "16000", 8, 0},
			"nothing, outside the range": {5 * testDay, 9 * testDay, 0, "0", 0, 0},
		} {
			s, err := b.Sum(id(1), c.from, c.to, c.asOf)
			if err != nil || s.Total.String() != c.total || s.Minutes != c.minutes || s.Flags != c.flags {
				t.Errorf("%s, %s: total %s of %d minutes, flags %b, %v, want %+v", when, name, s.Total, s.Minutes, s.Flags, err, c)
			}
		}
		if when == "beside the block" {
			if n := sealed(t, b, 4*testDay); n != 1 {
				t.Errorf("%d blocks were written again, want one", n)
			}
		}
	}
	verifyChain(t, b)
}

func TestR27SealingStopsWithItsContextAndGoesOn(t *testing.T) {
	b := open(t, t.TempDir())
	book(t, b, 1, first(1, 1, figures(1)), first(1, testDay, figures(2)))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := b.Seal(ctx, (9 * testDay).Time()); n != 0 || !errors.Is(err, context.Canceled) || count(t, b, 'k') != 0 {
		t.Errorf("%d, %v", n, err)
	}
	if n := sealed(t, b, 9*testDay); n != 2 {
		t.Errorf("%d blocks, want 2", n)
	}
}

// An entry that its block would not give back stays as it is.
func TestR27EntryThatIsNotCanonicalIsNotSealed(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	book(t, b, 1, first(1, 1, figures(1)))
	k := minuteKey(id(1), 1, 0)
	v, err := b.get(k)
	if err != nil {
		t.Fatal(err)
	}
	odd := append(v, fieldFlags, 0) // a zero that is written out
	if err := b.db.Set(k, odd, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Seal(context.Background(), (9 * testDay).Time()); n != 0 || !errors.Is(err, errCorrupt) {
		t.Errorf("%d, %v", n, err)
	}
	if got, err := b.get(k); err != nil || !reflect.DeepEqual(got, odd) || count(t, b, 'k') != 0 {
		t.Errorf("the entry is %x, %v", got, err)
	}
}

func TestDropBeforeRemovesSealedDaysAndSumsStayRight(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	oldBook(t, b)
	sealed(t, b, 4*testDay)
	want := scan(t, b, 1, 2*testDay, 4*testDay, 0)
	if err := b.DropBefore(2 * testDay); err != nil {
		t.Fatal(err)
	}
	for _, reopened := range []bool{false, true} {
		if reopened {
			b = reopen(t, b, dir)
		}
		if got := scan(t, b, 1, -9*testDay, 9*testDay, 0); !reflect.DeepEqual(got, want) || len(got) != 4 {
			t.Errorf("minutes %v, want %v", got, want)
		}
		// Each day has 300 and a revision of 1.
		if s, err := b.Sum(id(2), -9*testDay, 9*testDay, 0); err != nil || s.Total.String() != "602" || s.Minutes != 4 {
			t.Errorf("sum %s of %d minutes, %v", s.Total, s.Minutes, err)
		}
		if k, h := count(t, b, 'k'), count(t, b, 'h'); k != 4 || h != 4 {
			t.Errorf("%d blocks and %d headings are left, want 4", k, h)
		}
		if m, _ := b.LastMinute(id(1)); m != 4*testDay-1 {
			t.Errorf("last minute %d", m)
		}
	}
	verifyChain(t, b)
}

// A power cut at any write of a Seal or a DropBefore leaves a book that reads as
// before or as after.
func TestPowerCutsWhileSealingAndDroppingLoseNothing(t *testing.T) {
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
	cuts := &cutting{FS: disk, mem: disk}
	b := start(cuts)
	const objectives = 300 // more than one write holds
	for day := range sla.Minute(3) {
		var all []Entry
		for o := range objectives {
			for m := range sla.Minute(60) {
				f := figures(int(m) * 1000003)
				f.Expected, f.Counted, f.Timed = int64(m)<<40, int64(m)<<30, int64(o)
				all = append(all, first(o, day*testDay+m*20, f))
			}
		}
		book(t, b, day.Millis(), all...)
	}
	book(t, b, 9, revision(1, 20, figures(1)))
	want := map[int][]line{}
	for o := range objectives {
		want[o] = scan(t, b, o, -testDay, 9*testDay, 0)
	}
	cuts.watch(true)
	sealed(t, b, 2*testDay)
	book(t, b, 9, first(1, 7, figures(7)))
	want[1] = scan(t, b, 1, -testDay, 9*testDay, 0)
	atLate := cuts.count()
	sealed(t, b, 3*testDay)
	atDrop := cuts.count()
	if err := b.DropBefore(testDay); err != nil {
		t.Fatal(err)
	}
	cuts.watch(false)
	closed(t, b)
	if atLate < 10 || len(cuts.taken) < atDrop+2 {
		t.Fatalf("power was cut %d times, %d of them before the drop", len(cuts.taken), atDrop)
	}
	for i, disk := range cuts.taken {
		if i%4 != 0 && i < atDrop-3 {
			continue
		}
		b := start(disk)
		for _, again := range []bool{false, true} {
			dropped := b.kept > 0
			if dropped && i < atDrop {
				t.Fatalf("cut %d: days are dropped before anybody asked for it", i)
			}
			for o := range 20 {
				got := scan(t, b, o, -testDay, 9*testDay, 0)
				want := want[o]
				if dropped {
					want = want[len(want)-120:]
				}
				if o == 1 && len(got) == len(want)-1 && i <= atLate {
					continue // the late minute was not there yet
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("cut %d: objective %d has %d minutes, want %d", i, o, len(got), len(want))
				}
				var sum sla.Sum
				for _, l := range want {
					sum.Add(l.Figures.Counts)
				}
				if got, err := b.Sum(id(o), -testDay, 9*testDay, 0); err != nil || got != sum {
					t.Fatalf("cut %d: objective %d: sum %+v, %v, want %+v", i, o, got, err, sum)
				}
			}
			if again {
				break
			}
			sealed(t, b, 3*testDay)
		}
		verifyChain(t, b)
		closed(t, b)
	}
}

// cutting is a file system that keeps what a power cut before each sync would
// leave behind.
type cutting struct {
	vfs.FS
	mem *vfs.MemFS

	mu    sync.Mutex
	on    bool
	taken []*vfs.MemFS
}

// watch begins or ends it. The database syncs in the background, too.
func (c *cutting) watch(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = on
}

func (c *cutting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken)
}

func (c *cutting) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on {
		c.taken = append(c.taken, c.mem.CrashClone(vfs.CrashCloneCfg{}))
	}
}

func (c *cutting) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, category)
	return c.file(f), err
}

func (c *cutting) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.ReuseForWrite(from, to, category)
	return c.file(f), err
}

func (c *cutting) file(f vfs.File) vfs.File {
	if f == nil {
		return nil
	}
	return &cutFile{f, c}
}

type cutFile struct {
	vfs.File
	disk *cutting
}

func (f *cutFile) Sync() error {
	f.disk.cut()
	return f.File.Sync()
}

func (f *cutFile) SyncData() error {
	f.disk.cut()
	return f.File.SyncData()
}

func (f *cutFile) SyncTo(n int64) (bool, error) {
	f.disk.cut()
	return f.File.SyncTo(n)
}

func TestR27BlockIsReadAsItWasPacked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		day := rapid.Int64Range(-3, 20_000).Draw(t, "day")
		k := newBlock(day)
		want := map[sla.Minute]booking{}
		var before uint64
		var own tally
		for m := range 1440 {
			if rapid.IntRange(0, 99).Draw(t, "booked") > 2 {
				continue
			}
			m := k.run.First + sla.Minute(m)
			e := booking{
				seq: rapid.Uint64Range(1, 9).Draw(t, "batch"), figures: drawPacked(t, m),
				reason: rapid.SampledFrom([]string{"", "r"}).Draw(t, "reason"), author: rapid.SampledFrom([]string{"", "a"}).Draw(t, "author"),
			}
			k.add(m, e, before)
			own.add(m, &e)
			before = e.seq
			want[m] = e
		}
		k.hash = [32]byte{1, 2}
		got, err := decodeBlock(day, k.encode())
		if err != nil {
			t.Fatal(err)
		}
		if got.hash != k.hash || got.oldest != k.oldest || got.newest != k.newest {
			t.Fatalf("got %+v, want %+v", got, k)
		}
		n := 0
		err = got.each(k.run.First, k.run.First+1440, func(m sla.Minute, e *booking) error {
			if !reflect.DeepEqual(*e, want[m]) {
				t.Fatalf("minute %d: got %+v, want %+v", m, *e, want[m])
			}
			n++
			return nil
		})
		if err != nil || n != len(want) {
			t.Fatalf("%d minutes of %d, %v", n, len(want), err)
		}
		if len(want) == 0 {
			return
		}
		h := heading{first: k.run.First + 3, last: k.run.First + 700, own: own, before: own.plus(own)}
		if got, err := decodeHeading(day, h.encode(day)); err != nil || *got != h {
			t.Fatalf("heading %+v, %v, want %+v", got, err, h)
		}
	})
}

func FuzzDecodeBlock(f *testing.F) {
	k := newBlock(3)
	k.add(3*1440+1, booking{seq: 7, figures: figures(1), author: "a"}, 0)
	k.add(3*1440+3, booking{seq: 9, figures: figures(1), author: "b"}, 7)
	f.Add(k.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := decodeBlock(3, data)
		if err != nil {
			return
		}
		_ = k.each(3*1440, 4*1440, func(m sla.Minute, e *booking) error {
			if m < 3*1440 || m >= 4*1440 {
				t.Errorf("minute %d", m)
			}
			return nil
		})
	})
}

func FuzzDecodeHeading(f *testing.F) {
	var own tally
	own.add(5, &booking{seq: 3, figures: sla.Figures{Counts: sla.Counts{Total: -1 << 62}, Flags: 1 << 31}})
	h := heading{first: 1440 + 1, last: 1440 + 9, own: own, before: own.plus(own)}
	f.Add(h.encode(1))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decodeHeading(1, data)
		if err != nil {
			return
		}
		if again, err := decodeHeading(1, h.encode(1)); err != nil || *again != *h {
			t.Errorf("%+v is read again as %+v, %v", h, again, err)
		}
	})
}
