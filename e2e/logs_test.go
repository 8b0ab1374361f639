//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
)

// A number in Elasticsearch that is missing or there twice is a broken promise:
// max(sequence) − count would hide a loss behind a duplicate, so each number has
// its own place in a bitmap.
func TestEveryLineOnceThroughRotationsAndKills(t *testing.T) {
	t.Parallel()
	const (
		lines     = 100_000
		rotations = 3
	)
	lab := harness.New(t)
	es := lab.Elasticsearch()
	lab.Say("Elasticsearch is ready")
	dir := lab.Dir("app")
	path := filepath.Join(dir, "app.log")
	writer := &rotated{t: t, path: path}
	// The agent finds a file that already has lines. Its pattern matches none of
	// those that are rotated away: it must know them by what they are.
	writer.lines(lines / 20)
	agent := lab.Agent(harness.AgentConfig{Paths: []string{path}, Elasticsearch: es.URL})

	stored := func() int { return count(t, lab, es) }
	// A file that comes and goes while nobody looks is a gap that no agent can
	// fill, so a rotation waits until the file has been noticed; what is
	// written into it afterwards, up to its last moment, must not be lost.
	noticed := func() {
		t.Helper()
		lab.Eventually(2*time.Minute, "the file is noticed", func() error {
			if n := stored(); n <= writer.before {
				return fmt.Errorf("%d lines are stored, %d were written into the files before it", n, writer.before)
			}
			return nil
		})
	}
	noticed()
	writer.lines(lines / 5)
	agent.Kill()
	lab.Say("killed the agent the first time at %d lines written, %d stored", writer.n, stored())
	writer.lines(lines / 10)
	writer.rotate() // while nobody looks
	writer.lines(lines / 10)
	agent.Start()
	noticed()
	writer.lines(lines / 5)
	writer.rotate() // while it reads
	writer.lines(lines / 100)
	noticed()
	writer.lines(lines / 5)
	agent.Kill()
	lab.Say("killed the agent the second time at %d lines written, %d stored", writer.n, stored())
	agent.Start()
	writer.lines(lines / 20)
	writer.rotate() // soon after it came back
	writer.lines(lines - writer.n)

	lab.Eventually(4*time.Minute, "all lines arrive", func() error {
		if n := stored(); n < lines {
			return fmt.Errorf("%d of %d are stored", n, lines)
		}
		return nil
	})
	agent.Stop()

	seen := make([]byte, lines)
	var strange []string
	everyMessage(t, es, func(message string) {
		n, err := strconv.Atoi(strings.TrimPrefix(message, "line "))
		if err != nil || n < 0 || n >= lines {
			strange = append(strange, message)
			return
		}
		seen[n]++
	})
	var missing, double []int
	for n, times := range seen {
		switch {
		case times == 0:
			missing = append(missing, n)
		case times > 1:
			double = append(double, n)
		}
	}
	if len(missing)+len(double)+len(strange) > 0 {
		t.Errorf("%d lines are missing %v, %d are there more than once %v, %d are strange %.10q",
			len(missing), first(missing), len(double), first(double), len(strange), strange)
	}
	if writer.rotations != rotations {
		t.Errorf("rotated %d times", writer.rotations)
	}
	lab.Say("all %d lines are in Elasticsearch, each once", lines)
}

func first(n []int) []int { return n[:min(len(n), 20)] }

// rotated writes numbered lines into a file that is renamed away, as logrotate
// does without copytruncate.
type rotated struct {
	t         *testing.T
	path      string
	n         int // lines written, and the next number
	before    int // lines in the files that were rotated away
	rotations int
}

func (r *rotated) lines(count int) {
	r.t.Helper()
	f, err := os.OpenFile(r.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		r.t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for range count {
		fmt.Fprintf(w, "line %06d\n", r.n)
		r.n++
	}
	if err := w.Flush(); err != nil {
		r.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// rotate moves the file away and creates the next one.
func (r *rotated) rotate() {
	r.t.Helper()
	for i := r.rotations; i > 0; i-- {
		if err := os.Rename(fmt.Sprintf("%s.%d", r.path, i), fmt.Sprintf("%s.%d", r.path, i+1)); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := os.Rename(r.path, r.path+".1"); err != nil {
		r.t.Fatal(err)
	}
	r.rotations++
	r.before = r.n
	r.lines(0)
}

// streams matches the data streams of files; the last part is the cluster's or
// the configured namespace.
const streams = "logs-nines.files-*"

// count returns how many records can be found by now.
func count(t *testing.T, lab *harness.Lab, s *harness.Search) (n int) {
	t.Helper()
	// A shard that is just being made answers 503, which is no answer.
	lab.Eventually(time.Minute, "count the records", func() (err error) {
		n, err = s.Count(streams)
		return err
	})
	return n
}

// everyMessage reads all records of the data streams.
func everyMessage(t *testing.T, s *harness.Search, each func(string)) {
	t.Helper()
	err := s.Every(streams, []string{"message"}, func(h harness.Hit) {
		var doc struct{ Message string }
		if err := json.Unmarshal(h.Source, &doc); err != nil {
			t.Fatal(err)
		}
		each(doc.Message)
	})
	if err != nil {
		t.Fatal(err)
	}
}
