//go:build e2e

package bench

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nines/e2e/harness"
)

// sinkListen tells this binary to be the sink, in a process of its own: its
// CPU time must not count for the measured one, nor its memory disturb it.
const sinkListen = "NINES_BENCH_SINK"

func TestMain(m *testing.M) {
	if listen := os.Getenv(sinkListen); listen != "" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(listen, &sink{}))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// sink says yes to everything that is written to it: Elasticsearch bulks, whose
// items it counts, and remote writes, whose requests it counts.
type sink struct{ records, requests, templates atomic.Int64 }

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	switch {
	case r.URL.Path == "/count":
		fmt.Fprintf(w, "%d %d", s.records.Load(), s.requests.Load())
	case strings.HasSuffix(r.URL.Path, "/_bulk"):
		s.bulk(w, r)
	case strings.HasSuffix(r.URL.Path, "/write"):
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			s.requests.Add(1)
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		s.templates.Add(1)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"acknowledged":true,"status":"green","version":{"number":"8.19.7"}}`)
	}
}

func (s *sink) bulk(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	lines, err := countLines(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.records.Add(int64(lines / 2))
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	out.WriteString(`{"took":1,"errors":false,"items":[`)
	for i := range lines / 2 {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(`{"create":{"_index":".ds-bench-000001","status":201}}`)
	}
	out.WriteString(`]}`)
	out.Flush()
}

func countLines(r io.Reader) (n int, err error) {
	buf := make([]byte, 64<<10)
	for {
		k, err := r.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// startSink starts the sink and returns its address.
func startSink(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	lab.Start(harness.Command{
		Name: "sink", Path: self, Env: []string{sinkListen + "=" + listen},
		Ready: func() error { _, err := harness.Get("http://" + listen + "/count"); return err },
	})
	return listen
}

// received returns the records and requests that the sink has counted.
func received(listen string) (records, requests int64, err error) {
	data, err := harness.Get("http://" + listen + "/count")
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(string(data), &records, &requests); err != nil {
		return 0, 0, fmt.Errorf("the sink says %q: %w", data, err)
	}
	return records, requests, nil
}

// cpu returns the CPU time that a process took so far: fields 14 and 15 of
// /proc/PID/stat, in ticks of which there are a hundred a second on Linux
// (proc(5), USER_HZ).
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory returns a figure of /proc/PID/status in MiB: VmRSS is what is resident
// now, VmHWM the most that ever was.
func memory(t *testing.T, pid int, name string) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			var kib float64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("no %s of process %d", name, pid)
	return 0
}
