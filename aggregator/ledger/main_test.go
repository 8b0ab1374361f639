package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"nines/pkg/sla"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		os.Exit(writer(dir))
	}
	if os.Getenv(leakEnv) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// leakEnv marks a process of its own for a test that leaves goroutines: a store
// that failed is left alone.
const leakEnv = "NINES_LEDGER_TEST_LEAKS"

// alone runs a test in a process of its own. It reports whether this is it.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(leakEnv) != "" {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), leakEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

var silent = slog.New(slog.DiscardHandler)

// open opens the book in dir and closes it at the end, unless the test did.
func open(t testing.TB, dir string) *Book {
	t.Helper()
	b, err := Open(Config{Dir: dir}, silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, b) })
	return b
}

// closed closes a book that is open yet.
func closed(t rapid.TB, b *Book) {
	t.Helper()
	if b.db == nil {
		return
	}
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func reopen(t testing.TB, b *Book, dir string) *Book {
	t.Helper()
	closed(t, b)
	return open(t, dir)
}

func id(n int) (id sla.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

// figures are those of a minute that tests can tell from any other.
func figures(n int) sla.Figures {
	v := int64(n)
	return sla.Figures{
		Counts:         sla.Counts{GoodLow: 90 * v, GoodHigh: 95 * v, Total: 100 * v, Expected: 60_000, Counted: 59_000, Timed: 58_000},
		IntervalMillis: 15_000,
	}
}

func first(o int, m sla.Minute, f sla.Figures) Entry {
	return Entry{Objective: id(o), Minute: m, Figures: f}
}

func revision(o int, m sla.Minute, f sla.Figures) Entry {
	return Entry{Objective: id(o), Minute: m, Figures: f, Revision: true, Reason: "late samples", Author: "evaluator"}
}

// book appends a batch of term 1, booked at a time.
func book(t rapid.TB, b *Book, at int64, entries ...Entry) Position {
	t.Helper()
	p, err := b.Append(Batch{Term: 1, At: at, Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type line struct {
	Minute  sla.Minute
	Figures sla.Figures
}

func scan(t rapid.TB, b *Book, o int, from, to sla.Minute, asOf uint64) []line {
	t.Helper()
	var out []line
	err := b.Scan(id(o), from, to, asOf, func(m sla.Minute, f sla.Figures) error {
		out = append(out, line{m, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// dump is the whole book, byte for byte.
func dump(t rapid.TB, b *Book) string {
	t.Helper()
	var out bytes.Buffer
	err := b.each([]byte{0}, []byte{0xff}, func(k, v []byte) error {
		_, err := fmt.Fprintf(&out, "%x=%x\n", k, v)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// verifyChain derives the hash of each batch again from what lies in the book,
// as doc.go says, and returns how many there are. Of batches with days that
// were dropped it can check the link alone.
func verifyChain(t rapid.TB, b *Book) uint64 {
	t.Helper()
	contents := map[uint64][]pair{}
	collect := func(prefix byte, seq func(k, v []byte) uint64) {
		err := b.each([]byte{prefix}, []byte{prefix + 1}, func(k, v []byte) error {
			s := seq(k, v)
			contents[s] = append(contents[s], pair{slices.Clone(k), slices.Clone(v)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	inKey := func(k, _ []byte) uint64 { return binary.BigEndian.Uint64(k[len(k)-8:]) }
	collect('e', func(k, v []byte) uint64 {
		_, m, _, err := parseMinuteKey(k)
		if err != nil {
			t.Fatal(err)
		}
		e, err := decodeBooking(m, v)
		if err != nil {
			t.Fatal(err)
		}
		return e.seq
	})
	err := b.each([]byte("k"), []byte("l"), func(key, v []byte) error {
		var i sla.ID
		copy(i[:], key[5:])
		day := int64(binary.BigEndian.Uint32(key[1:])) - 1<<31
		k, err := decodeBlock(day, v)
		if err != nil {
			return err
		}
		return k.each(k.run.First, k.run.End(), func(m sla.Minute, e *booking) error {
			contents[e.seq] = append(contents[e.seq], pair{minuteKey(i, m, 0), encodeBooking(m, *e)})
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pairs := range contents {
		slices.SortFunc(pairs, func(a, b pair) int { return bytes.Compare(a.k, b.k) })
	}
	collect('m', func(_, v []byte) uint64 {
		seq, _, err := splitMark(v)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	})
	collect('o', inKey)
	collect('r', inKey)
	collect('s', inKey)

	var before Position
	err = b.each([]byte("b"), []byte("c"), func(k, v []byte) error {
		h, err := decodeHeader(k, v)
		if err != nil {
			return err
		}
		if h.Seq != before.Seq+1 {
			t.Errorf("batch %d follows batch %d", h.Seq, before.Seq)
		}
		if h.before != before.Hash {
			t.Errorf("batch %d does not continue the chain", h.Seq)
		}
		sum := newHashing(h)
		for _, p := range contents[h.Seq] {
			sum.add(p.k, p.v)
		}
		if n := uint64(len(contents[h.Seq])); (n != h.count || sum.done() != h.Hash) && h.firstDay >= b.kept.Day() {
			t.Errorf("batch %d holds %d entries of %d, or other ones than were booked", h.Seq, n, h.count)
		}
		delete(contents, h.Seq)
		before = h.Position
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(contents) != 0 {
		t.Errorf("entries of %d batches have no header", len(contents))
	}
	if b.Head() != before {
		t.Errorf("head is %v, the newest batch %v", b.Head(), before)
	}
	return before.Seq
}
