package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func open(t testing.TB, dir string, maxBytes int64, torn *int) *queue {
	t.Helper()
	q, err := openQueue(dir, maxBytes, quiet, func() { *torn++ })
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func numbered(n int) batch {
	return batch{time: int64(1000 + n), samples: n, request: []byte(fmt.Sprintf("request %d", n))}
}

// drain reads and acknowledges all that a reader has left.
func drain(t testing.TB, q *queue, r *reader) []int {
	t.Helper()
	var got []int
	for {
		rec, ok := q.one(r)
		if !ok {
			return got
		}
		b, err := q.read(rec)
		if err != nil {
			t.Fatal(err)
		}
		if want := numbered(b.samples); b.time != want.time || !bytes.Equal(b.request, want.request) {
			t.Fatalf("batch %d came back as %+v", b.samples, b)
		}
		got = append(got, b.samples)
		q.done(r, rec)
	}
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestTornTailIsCutAndTheQueueGoesOn(t *testing.T) {
	whole := appendFrame(nil, numbered(3))
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-1] ^= 1
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3}
	for name, tail := range map[string][]byte{
		"within the header":         whole[:5],
		"within the batch":          whole[:len(whole)-1],
		"checksum":                  flipped,
		"impossible length":         huge,
		"zeroes after a power loss": make([]byte, 4096),
	} {
		t.Run(name, func(t *testing.T) {
			dir, torn := t.TempDir(), 0
			q := open(t, dir, MinBytes, &torn)
			if err := q.append([]batch{numbered(1), numbered(2)}); err != nil {
				t.Fatal(err)
			}
			// No close: the process was killed while it appended.
			f, err := os.OpenFile(segments(t, dir)[0], os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(tail); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			q = open(t, dir, MinBytes, &torn)
			if torn != 1 {
				t.Errorf("%d damaged places counted, want 1", torn)
			}
			if err := q.append([]batch{numbered(4)}); err != nil {
				t.Fatal(err)
			}
			q = open(t, dir, MinBytes, &torn)
			if got := drain(t, q, q.addReader(0, nil)); fmt.Sprint(got) != "[1 2 4]" {
				t.Errorf("got %v", got)
			}
			if torn != 1 {
				t.Errorf("the cut tail was found again")
			}
		})
	}
}

func TestDamageInTheMiddleCostsTheRestOfItsSegmentOnly(t *testing.T) {
	dir, torn := t.TempDir(), 0
	q := open(t, dir, 8*200, &torn)
	for n := 1; n <= 12; n++ {
		if err := q.append([]batch{numbered(n)}); err != nil {
			t.Fatal(err)
		}
	}
	paths := segments(t, dir)
	if len(paths) < 2 {
		t.Fatalf("%d segments, the test needs two", len(paths))
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	second := len(appendFrame(nil, numbered(1)))
	data[second+frameHeader+3] ^= 0x80
	if err := os.WriteFile(paths[0], data, 0o640); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir, 8*200, &torn)
	got := drain(t, q, q.addReader(0, nil))
	if torn != 1 || got[0] != 1 || got[1] <= 2 || got[len(got)-1] != 12 {
		t.Errorf("torn %d, got %v", torn, got)
	}
}

func TestBatchDamagedAfterOpeningIsAnErrorNotASample(t *testing.T) {
	dir, torn := t.TempDir(), 0
	q := open(t, dir, MinBytes, &torn)
	if err := q.append([]batch{numbered(1)}); err != nil {
		t.Fatal(err)
	}
	path := segments(t, dir)[0]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
	rec, ok := q.one(q.addReader(0, nil))
	if !ok {
		t.Fatal("nothing to read")
	}
	if _, err := q.read(rec); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("got %v", err)
	}
}

func TestFullQueueDropsItsOldestAndCountsThem(t *testing.T) {
	dir, torn := t.TempDir(), 0
	const limit = 8 * 100
	q := open(t, dir, limit, &torn)
	dropped, droppedAtOther := 0, 0
	slow := q.addReader(0, func(n int) { dropped += n })
	fast := q.addReader(0, func(n int) { droppedAtOther += n })
	appended := 0
	for n := 1; n <= 100; n++ {
		if err := q.append([]batch{numbered(n)}); err != nil {
			t.Fatal(err)
		}
		appended += n
		drain(t, q, fast)
		var onDisk int64
		for _, p := range segments(t, dir) {
			info, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			onDisk += info.Size()
		}
		if onDisk > limit {
			t.Fatalf("%d bytes on disk, limit %d", onDisk, limit)
		}
		if w := q.waiting(slow); w.samples+dropped != appended {
			t.Fatalf("after %d: waiting %d + dropped %d is not appended %d", n, w.samples, dropped, appended)
		}
	}
	got := drain(t, q, slow)
	if dropped == 0 || got[len(got)-1] != 100 || got[0] == 1 {
		t.Errorf("dropped %d, kept %v", dropped, got)
	}
	if droppedAtOther != 0 {
		t.Errorf("a reader that had read all lost %d", droppedAtOther)
	}
}

func TestBatchOnItsWayGetsItsVerdictFromTheDestinationThoughDropped(t *testing.T) {
	dir, torn, dropped := t.TempDir(), 0, 0
	q := open(t, dir, 8*100, &torn)
	r := q.addReader(0, func(n int) { dropped += n })
	if err := q.append([]batch{numbered(1)}); err != nil {
		t.Fatal(err)
	}
	rec, ok := q.one(r)
	if !ok {
		t.Fatal("nothing to send")
	}
	sum := 0
	for n := 2; n <= 60; n++ {
		if err := q.append([]batch{numbered(n)}); err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	q.done(r, rec)
	if w := q.waiting(r); dropped+w.samples != sum {
		t.Errorf("dropped %d + waiting %d, want %d: the batch on its way is not among them", dropped, w.samples, sum)
	}
}

func TestSegmentsThatEveryoneHasReadAreRemoved(t *testing.T) {
	dir, torn := t.TempDir(), 0
	q := open(t, dir, 8*100, &torn)
	a, b := q.addReader(0, nil), q.addReader(0, nil)
	for n := 1; n <= 12; n++ {
		if err := q.append([]batch{numbered(n)}); err != nil {
			t.Fatal(err)
		}
	}
	before := len(segments(t, dir))
	drain(t, q, a)
	if n := len(segments(t, dir)); n != before {
		t.Errorf("%d of %d segments remain though one reader still needs them", n, before)
	}
	drain(t, q, b)
	if n := len(segments(t, dir)); n != 1 || before < 3 {
		t.Errorf("%d of %d segments remain, want the last", n, before)
	}
}

func TestPositionBeyondTheEndDoesNotHideNewBatches(t *testing.T) {
	dir, torn := t.TempDir(), 0
	q := open(t, dir, MinBytes, &torn)
	r := q.addReader(5000, nil)
	if err := q.append([]batch{numbered(1)}); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, q, r); fmt.Sprint(got) != "[1]" {
		t.Errorf("got %v", got)
	}
	q = open(t, dir, MinBytes, &torn)
	if got := drain(t, q, q.addReader(5000, nil)); fmt.Sprint(got) != "[1]" || torn != 0 {
		t.Errorf("after opening again: %v, torn %d", got, torn)
	}
}

func TestFailedWriteQueuesNothingAndTheNextOneWorks(t *testing.T) {
	dir, torn := t.TempDir(), 0
	q := open(t, dir, MinBytes, &torn)
	q.addReader(0, nil)
	if err := q.append([]batch{numbered(1)}); err != nil {
		t.Fatal(err)
	}
	// A file that cannot be written to stands for a disk that fails.
	good := q.file
	broken, err := os.Open(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	q.file = broken
	if err := q.append([]batch{numbered(2)}); err == nil {
		t.Fatal("a write to a file opened for reading succeeded")
	}
	if err := good.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.append([]batch{numbered(3)}); err != nil {
		t.Fatal(err)
	}
	if n := len(segments(t, dir)); n != 2 {
		t.Errorf("%d segments: after a failed write another must begin", n)
	}
	q = open(t, dir, MinBytes, &torn)
	if got := drain(t, q, q.addReader(0, nil)); fmt.Sprint(got) != "[1 3]" {
		t.Errorf("got %v", got)
	}
}

func TestFullDiskGetsBackFirstWhatEveryoneHasRead(t *testing.T) {
	dir, torn := t.TempDir(), 0
	q := open(t, dir, MinBytes, &torn)
	r := q.addReader(0, nil)
	if err := q.append([]batch{numbered(1)}); err != nil {
		t.Fatal(err)
	}
	drain(t, q, r)
	first := segments(t, dir)[0]
	broken, err := os.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	good := q.file
	q.file = broken
	if err := q.append([]batch{numbered(2)}); err != nil {
		t.Errorf("with room to give back: %v", err)
	}
	if err := good.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the segment that everyone had read is still there: %v", err)
	}
	if got := drain(t, q, r); fmt.Sprint(got) != "[2]" {
		t.Errorf("got %v", got)
	}
}

func TestQueueStaysSmallWhileItsReaderKeepsUp(t *testing.T) {
	dir, torn := t.TempDir(), 0
	q := open(t, dir, 64*keepBytes, &torn)
	r := q.addReader(0, nil)
	for n := range 40 {
		if err := q.append([]batch{{samples: n, request: make([]byte, keepBytes/8)}}); err != nil {
			t.Fatal(err)
		}
		rec, ok := q.one(r)
		if !ok {
			t.Fatal("nothing to read")
		}
		if b, err := q.read(rec); err != nil || b.samples != n {
			t.Fatalf("batch %d came back as %d, %v", n, b.samples, err)
		}
		q.done(r, rec)
		for _, p := range segments(t, dir) {
			if info, err := os.Stat(p); err != nil || info.Size() > keepBytes+keepBytes/4 {
				t.Fatalf("%v, %v", info, err)
			}
		}
	}
}

func TestForeignFileInTheQueueIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "holiday.segment"), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := openQueue(dir, MinBytes, quiet, func() {})
	if err == nil || !strings.Contains(err.Error(), "holiday.segment is not a segment") {
		t.Errorf("got %v", err)
	}
}

func TestBatchLargerThanTheQueueIsRefused(t *testing.T) {
	torn := 0
	q := open(t, t.TempDir(), 1<<20, &torn)
	err := q.append([]batch{{samples: 1, request: make([]byte, 1<<20)}})
	if err == nil || !strings.Contains(err.Error(), "do not fit") {
		t.Errorf("got %v", err)
	}
}

// Any order of appends, reads, failed sends and crashes: what a reader gets is
// each batch that was not dropped, in order, and none twice unless a crash
// came between its sending and the keeping of its place.
func TestReaderSeesEveryBatchInOrderWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "q")
		if err != nil {
			rt.Fatal(err)
		}
		torn, next, lost := 0, 1, 0
		limit := int64(8 * rapid.IntRange(60, 400).Draw(rt, "segment"))
		var saved int64
		q := open(t, dir, limit, &torn)
		r := q.addReader(0, func(n int) { lost += n })
		sum, got, last := 0, 0, 0
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0, 1:
				if err := q.append([]batch{numbered(next)}); err != nil {
					rt.Fatal(err)
				}
				sum += next
				next++
			case 2:
				rec, ok := q.one(r)
				if !ok {
					continue
				}
				if rapid.Bool().Draw(rt, "refused") {
					q.release(r)
					continue
				}
				b, err := q.read(rec)
				if err != nil {
					rt.Fatal(err)
				}
				if b.samples <= last {
					rt.Fatalf("batch %d came after %d", b.samples, last)
				}
				last = b.samples
				got += b.samples
				q.done(r, rec)
				saved = q.position(r)
			case 3:
				if paths := segments(t, dir); len(paths) > 0 {
					f, err := os.OpenFile(paths[len(paths)-1], os.O_WRONLY|os.O_APPEND, 0)
					if err != nil {
						rt.Fatal(err)
					}
					frame := appendFrame(nil, numbered(7))
					_, err = f.Write(frame[:rapid.IntRange(0, len(frame)-1).Draw(rt, "torn at")])
					if err := errors.Join(err, f.Close(), q.close()); err != nil {
						rt.Fatal(err)
					}
				}
				q = open(t, dir, limit, &torn)
				r = q.addReader(saved, func(n int) { lost += n })
			}
			if w := q.waiting(r); got+lost+w.samples != sum {
				rt.Fatalf("read %d + dropped %d + waiting %d is not appended %d", got, lost, w.samples, sum)
			}
		}
		if err := q.close(); err != nil {
			rt.Fatal(err)
		}
	})
}

func FuzzOpenQueue(f *testing.F) {
	good := appendFrame(appendFrame(nil, numbered(1)), numbered(2))
	f.Add(good, []byte{})
	f.Add(good[:len(good)-3], good)
	f.Add([]byte{0, 0, 0, 13, 0, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		dir, torn := t.TempDir(), 0
		for start, data := range map[int][]byte{0: first, len(first): second} {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d%s", start, segmentSuffix)), data, 0o640); err != nil {
				t.Fatal(err)
			}
		}
		q := open(t, dir, MinBytes, &torn)
		r := q.addReader(0, nil)
		if err := q.append([]batch{numbered(42)}); err != nil {
			t.Fatal(err)
		}
		var newest batch
		for {
			rec, ok := q.one(r)
			if !ok {
				break
			}
			b, err := q.read(rec)
			if err != nil {
				t.Fatalf("a record that opening accepted cannot be read: %v", err)
			}
			newest = b
			q.done(r, rec)
		}
		if !bytes.Equal(newest.request, numbered(42).request) {
			t.Fatalf("the batch appended after damage is not the last one read: %+v", newest)
		}
		if err := q.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// one takes the oldest record that waits, alone.
func (q *queue) one(r *reader) (record, bool) {
	recs := q.next(r, 0, 0)
	if len(recs) == 0 {
		return record{}, false
	}
	return recs[0], true
}
