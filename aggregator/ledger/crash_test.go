package ledger

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"

	"nines/pkg/sla"
)

// writerEnv makes the test binary a writer of the book in the folder that it
// names: minute after minute, until somebody kills it.
const writerEnv = "NINES_LEDGER_TEST_WRITER"

// crashObjectives is how many objectives the writer books in each minute.
const crashObjectives = 5

// crashBatch is what the writer books for a minute: the minute itself and, for
// every third one, a revision of the minute before.
func crashBatch(m sla.Minute) Batch {
	b := Batch{Term: 1, At: m.Millis()}
	for o := range crashObjectives {
		b.Entries = append(b.Entries, first(o, m, figures(int(m)+o)))
		if m%3 == 0 && m > 0 {
			b.Entries = append(b.Entries, revision(o, m-1, sla.Figures{Counts: sla.Counts{Total: 7}}))
		}
	}
	return b
}

// writer is the child: it prints each minute after Append returned, and
// nothing before.
func writer(dir string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b, err := Open(Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		return fail(err)
	}
	m, ok := b.LastMinute(id(0))
	if ok {
		m++
	}
	for ; ; m++ {
		p, err := b.Append(crashBatch(m))
		if err != nil {
			return fail(err)
		}
		if _, err := fmt.Printf("%d %d %x\n", m, p.Seq, p.Hash); err != nil {
			return fail(err)
		}
	}
}

// Guards R25: what was acknowledged is in the book after any crash of the
// process, once, and the chain goes on.
func TestKilledWriterLosesNoAcknowledgedMinuteAndDoublesNone(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewSource(1))
	hashes := map[uint64]string{}
	var acknowledged sla.Minute = -1
	for round := range 8 {
		lines := 1 + rng.Intn(60)
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), writerEnv+"="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// What it prints between the last of these lines and its death counts
		// too, so all is read to the end.
		n := 0
		for s := bufio.NewScanner(out); s.Scan(); {
			var m sla.Minute
			var seq uint64
			var hash string
			if _, err := fmt.Sscanf(s.Text(), "%d %d %s", &m, &seq, &hash); err != nil || len(hash) != 64 {
				continue // the line that it died in
			}
			if m != acknowledged+1 {
				t.Errorf("round %d: minute %d follows minute %d", round, m, acknowledged)
			}
			acknowledged, hashes[seq] = m, hash
			if n++; n == lines {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
			t.Fatalf("round %d: the writer ended by itself: %v: %s", round, err, stderr.String())
		}

		b := open(t, dir)
		verifyChain(t, b)
		err = b.each([]byte("b"), []byte("c"), func(k, v []byte) error {
			h, err := decodeHeader(k, v)
			if want, ok := hashes[h.Seq]; ok && want != fmt.Sprintf("%x", h.Hash) {
				t.Errorf("round %d: batch %d was acknowledged with another hash", round, h.Seq)
			}
			delete(hashes, h.Seq)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(hashes) > 0 {
			t.Errorf("round %d: %d acknowledged batches are not in the book", round, len(hashes))
		}
		last, _ := b.LastMinute(id(0))
		if last < acknowledged || last > acknowledged+1 {
			t.Errorf("round %d: the newest minute is %d, acknowledged was %d", round, last, acknowledged)
		}
		for o := range crashObjectives {
			got := scan(t, b, o, 0, last+100, 0)
			if len(got) != int(last)+1 {
				t.Fatalf("round %d: objective %d has %d minutes, want %d", round, o, len(got), last+1)
			}
			for i, l := range got {
				want := figures(i + o)
				if next := i + 1; next%3 == 0 && next <= int(last) {
					want.Total += 7
				}
				if l.Minute != sla.Minute(i) || l.Figures.Counts != want.Counts {
					t.Fatalf("round %d: objective %d, minute %d: got %+v, want %+v", round, o, i, l, want)
				}
			}
		}
		// The batch of which the writer may not have known is now booked.
		acknowledged = last
		closed(t, b)
	}
}
