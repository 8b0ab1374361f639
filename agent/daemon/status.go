package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"nines/agent/logs"
	"nines/pkg/ops"
)

// LogStatus is the delivery identity of each destination.
type LogStatus struct {
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
	// PodsUnknown is why records carry no labels of pods, in words; empty: they do,
	// or there are no pods.
	PodsUnknown  string        `json:"pods_unknown_because"`
	Destinations []logs.Status `json:"destinations"`
}

func (d *Daemon) logStatus() LogStatus {
	out := LogStatus{Node: d.cfg.Node, Cluster: d.cfg.Cluster, Destinations: []logs.Status{}}
	if d.logs != nil {
		if d.logs.metadata != nil {
			out.PodsUnknown = d.cluster.pods.Trouble()
		}
		for _, one := range d.logs.all {
			out.Destinations = append(out.Destinations, one.Status())
		}
	}
	return out
}

func (d *Daemon) serveLogStatus(w http.ResponseWriter, _ *http.Request) {
	d.answer(w, http.StatusOK, d.logStatus())
}

// Redriven is what became of the dead letters of a destination.
type Redriven struct {
	Destination  string `json:"destination"`
	Stored       int    `json:"stored"`
	RefusedAgain int    `json:"refused_again"`
	Unreadable   int    `json:"unreadable"` // lines that are no letters; they are kept as they are
	Error        string `json:"error,omitempty"`
}

// RedriveHeader has to be set by who asks for dead letters to be sent again.
const RedriveHeader = "X-Nines-Redrive"

// StatusAtRest reads the checkpoints in the state folder of an agent that does
// not run.
func StatusAtRest(dir string) (LogStatus, error) {
	s := LogStatus{Destinations: []logs.Status{}}
	found, err := filepath.Glob(filepath.Join(dir, "logs", "*", "checkpoint"))
	if err != nil {
		return s, err
	}
	if len(found) == 0 {
		return s, fmt.Errorf("%s holds no checkpoint of logs: name the folder that state in the agent's file names", dir)
	}
	for _, path := range found {
		one, err := logs.ReadStatus(filepath.Dir(path), filepath.Base(filepath.Dir(path)))
		if err != nil {
			return s, err
		}
		s.Destinations = append(s.Destinations, one)
	}
	return s, nil
}

// Balanced says whether every sum holds.
func (s LogStatus) Balanced() bool {
	return !slices.ContainsFunc(s.Destinations, func(d logs.Status) bool { return !d.Balanced })
}

// DefaultServer is where an agent with the default listen answers.
const DefaultServer = "http://127.0.0.1:9191"

// AskStatus asks a running agent; an empty server is the default one.
func AskStatus(server string) (s LogStatus, err error) {
	err = ask(http.MethodGet, server, "/api/nines/v1/logs", &s)
	return s, err
}

// AskRedrive has a running agent send its dead letters again, and waits for it;
// an empty destination is each one.
func AskRedrive(server, destination string) (done []Redriven, err error) {
	err = ask(http.MethodPost, server, "/api/nines/v1/logs/redrive?destination="+url.QueryEscape(destination), &done)
	return done, err
}

// maxStatus bounds an answer of the agent: 10,000 files take some 10 MiB.
const maxStatus = 64 << 20

// ask asks a running agent.
func ask(method, server, path string, answer any) error {
	if server == "" {
		server = DefaultServer
	}
	req, err := http.NewRequest(method, strings.TrimRight(server, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("--server: %w", err)
	}
	req.Header.Set(RedriveHeader, "1")
	client := http.Client{}
	if method == http.MethodGet { // else it takes as long as the destination does
		client.Timeout = time.Minute
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the agent at %s: %w: is it running, and is that its listen address? Name another one with --server, such as %s", server, ops.Remedy(errors.Unwrap(err)), DefaultServer)
	}
	defer res.Body.Close() // only read
	body, err := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", server, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the agent at %s says %s: %s", server, res.Status, bytes.TrimSpace(body[:min(len(body), 500)]))
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("%s does not answer as an agent does: %w", server, err)
	}
	return nil
}

// shownFiles is how many files the text shows of a destination.
const shownFiles = 30

// String is the status for people.
func (s LogStatus) String() string {
	var b strings.Builder
	if s.Node != "" {
		fmt.Fprintf(&b, "Logs of node %s, cluster %s\n", s.Node, s.Cluster)
	}
	if s.PodsUnknown != "" {
		fmt.Fprintf(&b, "Records carry no labels of pods: %s\n", s.PodsUnknown)
	}
	if len(s.Destinations) == 0 {
		b.WriteString("This agent follows no logs.\n")
	}
	for _, d := range s.Destinations {
		b.WriteString("\nTo " + d.Destination)
		if d.Balanced {
			b.WriteString(": every byte seen is accounted for.\n")
		} else {
			b.WriteString(": THE SUM DOES NOT HOLD. Please report this with --format json.\n")
		}
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(w, "\tbytes\trecords\t\n")
		for _, row := range []struct {
			name           string
			bytes, records int64
		}{
			{"seen", d.Sum.Bytes.Seen, d.Sum.Records.Seen}, {"= stored", d.Sum.Bytes.Stored, d.Sum.Records.Stored},
			{"+ dead letters", d.Sum.Bytes.DeadLettered, d.Sum.Records.DeadLettered}, {"+ dropped by a rule", d.Sum.Bytes.Dropped, d.Sum.Records.Dropped},
			{"+ in flight", d.Sum.Bytes.InFlight, d.Sum.Records.InFlight}, {"+ unread", d.Sum.Bytes.Unread, d.Sum.Records.Unread}, {"+ lost", d.Sum.Bytes.Lost, d.Sum.Records.Lost},
		} {
			fmt.Fprintf(w, "%s\t%s\t%s\t\n", row.name, grouped(row.bytes), grouped(row.records))
		}
		_ = w.Flush() // into memory
		if d.Hold != "" {
			fmt.Fprintf(&b, "Records wait: %s\n", d.Hold)
		}
		for _, p := range d.Problems {
			fmt.Fprintf(&b, "Problem: %s\n", p)
		}
		for _, n := range d.Notes {
			fmt.Fprintf(&b, "Note: %s\n", n)
		}
		if d.Redriven > 0 {
			fmt.Fprintf(&b, "%s of the records stored were dead letters before.\n", grouped(d.Redriven))
		}
		if d.Sum.Records.DeadLettered > 0 {
			b.WriteString("Dead letters say why in the folder dead-letters of the state; after a fix: nines-agent redrive\n")
		}
		if d.GapCount > 0 {
			fmt.Fprintf(&b, "%s times a file went away before it was known to be read to its end; the newest:\n", grouped(d.GapCount))
			for _, g := range d.Gaps[max(0, len(d.Gaps)-5):] {
				fmt.Fprintf(&b, "  %s, between %s and %s: %s bytes known to be lost (%s)\n", g.Path, g.From.UTC().Format(time.RFC3339), g.To.UTC().Format(time.RFC3339), grouped(g.Lost), g.Reason)
			}
		}
		statusFiles(&b, d.Files)
	}
	return b.String()
}

// statusFiles shows the files of which most is not stored first.
func statusFiles(b *strings.Builder, files []logs.FileStatus) {
	if len(files) == 0 {
		return
	}
	files = slices.Clone(files)
	left := func(f logs.FileStatus) int64 { return f.Bytes.Seen - f.Bytes.Stored }
	slices.SortStableFunc(files, func(x, y logs.FileStatus) int {
		return int(min(max(left(y)-left(x), -1), 1))
	})
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nFILE (bytes)\tSEEN\tSTORED\tDEAD\tDROPPED\tIN FLIGHT\tUNREAD\tLOST\n")
	for _, f := range files[:min(len(files), shownFiles)] {
		a := f.Bytes
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Path,
			grouped(a.Seen), grouped(a.Stored), grouped(a.DeadLettered), grouped(a.Dropped), grouped(a.InFlight), grouped(a.Unread), grouped(a.Lost))
	}
	_ = w.Flush() // into memory
	if more := len(files) - shownFiles; more > 0 {
		fmt.Fprintf(b, "and %d more files, of which less is not stored: --format json\n", more)
	}
}

// grouped writes a number with a comma between each three digits.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// String says for people what became of the letters.
func (r Redriven) String() string {
	text := fmt.Sprintf("%s: %s dead letters are stored now, %s were refused again and stay.\n", r.Destination, grouped(int64(r.Stored)), grouped(int64(r.RefusedAgain)))
	if r.Unreadable > 0 {
		text += fmt.Sprintf("%s: %s lines are no letters; they stay as they are.\n", r.Destination, grouped(int64(r.Unreadable)))
	}
	if r.Error != "" {
		text += fmt.Sprintf("%s: it stopped: %s. Letters without a verdict stay; run it again.\n", r.Destination, r.Error)
	}
	return text
}

// Left says whether letters stay.
func (r Redriven) Left() bool { return r.RefusedAgain > 0 || r.Unreadable > 0 || r.Error != "" }
