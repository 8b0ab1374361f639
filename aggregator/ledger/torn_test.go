package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nines/pkg/sla"
)

// tornBook books minutes one by one and returns the folder of the open book,
// the name of its log and how long that was after each booking.
func tornBook(t *testing.T, minutes int) (dir, log string, sizes []int64) {
	t.Helper()
	dir = t.TempDir()
	b := open(t, dir)
	for m := range minutes {
		book(t, b, int64(m), first(1, sla.Minute(m), figures(m)), first(2, sla.Minute(m), figures(m)))
		logs, err := filepath.Glob(filepath.Join(dir, "book", "*.log"))
		if err != nil || len(logs) == 0 {
			t.Fatalf("no log: %v", err)
		}
		log = logs[len(logs)-1]
		info, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	return dir, filepath.Base(log), sizes
}

// copyBook copies a book as a crash would leave it, with a changed log.
func copyBook(t *testing.T, dir, log string, change func([]byte) []byte) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(to, "book", log)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// checkTorn opens a damaged copy: the book must hold at least the first whole
// minutes, exactly, and go on; or say what to do. It reports whether it opened.
func checkTorn(t *testing.T, name, dir string, whole int) bool {
	t.Helper()
	b, err := Open(Config{Dir: dir}, silent)
	if err != nil {
		if !strings.Contains(err.Error(), "is damaged: put a backup of it in its place, or move it away") {
			t.Errorf("%s: the message has no remedy: %v", name, err)
		}
		return false
	}
	defer closed(t, b)
	n := int(verifyChain(t, b))
	if n < whole {
		t.Errorf("%s: %d minutes are left, %d were in the part of the log that is whole", name, n, whole)
	}
	for o := 1; o <= 2; o++ {
		got := scan(t, b, o, 0, 1440, 0)
		if len(got) != n {
			t.Errorf("%s: objective %d has %d minutes in %d batches", name, o, len(got), n)
		}
		for i, l := range got {
			if l.Minute != sla.Minute(i) || l.Figures.Counts != figures(i).Counts {
				t.Errorf("%s: objective %d, minute %d: %+v", name, o, i, l)
			}
		}
		if m, ok := b.LastMinute(id(o)); ok != (n > 0) || ok && int(m) != n-1 {
			t.Errorf("%s: objective %d: last minute %d of %d", name, o, m, n)
		}
	}
	book(t, b, 9999, first(1, sla.Minute(n), figures(n)))
	if again := verifyChain(t, b); int(again) != n+1 {
		t.Errorf("%s: batch %d follows %d", name, again, n)
	}
	return true
}

// wholeBefore counts the bookings that end before an offset of the log.
func wholeBefore(sizes []int64, offset int64) (n int) {
	for _, s := range sizes {
		if s <= offset {
			n++
		}
	}
	return n
}

func TestLogThatIsCutOffKeepsWhatLiesBeforeTheCut(t *testing.T) {
	dir, log, sizes := tornBook(t, 40)
	end := sizes[len(sizes)-1]
	opened := 0
	for cut := end; cut >= 0; cut -= 1 + end/50 {
		whole := wholeBefore(sizes, cut)
		if checkTorn(t, "cut", copyBook(t, dir, log, func(data []byte) []byte { return data[:cut] }), whole) {
			opened++
		}
	}
	if opened == 0 {
		t.Error("no cut book was opened")
	}
}

// The log is read in blocks of 32 KiB: damage in the last one can't be told from
// a write that the power cut, before that it can and must be told.
func TestLogWithAGarbledTailKeepsWhatLiesBeforeOrSaysWhatToDo(t *testing.T) {
	const block = 32 << 10
	dir, log, sizes := tornBook(t, 400)
	end := sizes[len(sizes)-1]
	if end < 2*block {
		t.Fatalf("the log of %d bytes has no block behind the first", end)
	}
	opened := 0
	for at := int64(100); at < end; at += 1 + end/25 {
		whole := wholeBefore(sizes, at)
		ok := checkTorn(t, "one byte", copyBook(t, dir, log, func(data []byte) []byte { data[at] ^= 0x5a; return data }), whole)
		if last := end - end%block; ok && at < last-block {
			t.Errorf("byte %d of %d is damaged, and the book was opened without what lies behind", at, end)
		}
		for name, change := range map[string]func([]byte) []byte{
			"zeros to the end": func(data []byte) []byte { clear(data[at:]); return data },
			"noise to the end": func(data []byte) []byte {
				for i := at; i < int64(len(data)); i++ {
					data[i] = byte(i*i*7 + 13)
				}
				return data
			},
		} {
			if checkTorn(t, name, copyBook(t, dir, log, change), whole) {
				opened++
			}
		}
	}
	if opened == 0 {
		t.Error("no book with a garbled tail was opened")
	}
	checkTorn(t, "noise behind the end", copyBook(t, dir, log, func(data []byte) []byte { return append(data, bytes.Repeat([]byte{0xa5}, 999)...) }), len(sizes))
}
