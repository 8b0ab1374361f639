//go:build e2e

package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

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
// items it reads as Elasticsearch has to, and remote writes, whose requests it
// counts.
type sink struct {
	records, requests, bytes atomic.Int64
	labelled                 atomic.Int64 // records with the labels of their pod
	delays                   delays
}

// delays counts how old records were when they were acknowledged, by millisecond.
type delays struct {
	mu     sync.Mutex
	counts [60_000]int
	n      int
}

func (d *delays) add(age time.Duration, n int) {
	ms := min(max(int(age.Milliseconds()), 0), len(d.counts)-1)
	d.counts[ms] += n
	d.n += n
}

// quantile is the age that a share of the records did not exceed.
func (d *delays) quantile(share float64) time.Duration {
	left := int(share * float64(d.n))
	for ms, n := range d.counts {
		if left -= n; left < 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return 0
}

// told is what the sink says of itself.
type told struct {
	Records, Requests, Bytes, Labelled int64
	P50, P99                           time.Duration // age of records when they were acknowledged
	Aged                               int           // records that these are of
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	switch {
	case r.URL.Path == "/count":
		fmt.Fprintf(w, "%d %d", s.records.Load(), s.requests.Load())
	case r.URL.Path == "/told":
		s.delays.mu.Lock()
		defer s.delays.mu.Unlock()
		_ = json.NewEncoder(w).Encode(told{ // who asked may be gone
			s.records.Load(), s.requests.Load(), s.bytes.Load(), s.labelled.Load(), s.delays.quantile(0.5), s.delays.quantile(0.99), s.delays.n,
		})
		if r.URL.RawQuery == "forget" {
			clear(s.delays.counts[:])
			s.delays.n = 0
		}
	case strings.HasSuffix(r.URL.Path, "/_bulk"):
		s.bulk(w, r)
	case strings.HasSuffix(r.URL.Path, "/_mget"):
		// Nothing is there yet.
		w.Header().Set("Content-Type", "application/json")
		var asked struct{ IDs, Docs []any }
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer := strings.Repeat(`{"found":false},`, len(asked.IDs)+len(asked.Docs))
		fmt.Fprintf(w, `{"docs":[%s]}`, strings.TrimSuffix(answer, ","))
	case r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, "/write") || strings.Contains(r.URL.Path, "/insert")):
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.requests.Add(1)
		s.bytes.Add(int64(len(body)))
		if n, ok := samplesIn(body, r.Header.Get("Content-Type")); ok {
			s.records.Add(int64(n))
			w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(n))
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		version := "8.19.7"
		if strings.Contains(r.UserAgent(), "ilebeat") {
			version = "7.17.0" // it refuses a server that is older or much newer
		}
		fmt.Fprintf(w, `{"acknowledged":true,"status":"green","name":"sink","cluster_name":"sink","version":{"number":%q,"build_flavor":"default"},"tagline":"You Know, for Search"}`, version)
	}
}

// samplesIn counts the samples of a remote-write request; ok is false for
// another protocol.
func samplesIn(body []byte, contentType string) (n int, ok bool) {
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return 0, false
	}
	if strings.Contains(contentType, "write.v2") {
		var req writev2.Request
		if req.Unmarshal(raw) != nil {
			return 0, false
		}
		for _, ts := range req.Timeseries {
			n += len(ts.Samples) + len(ts.Histograms)
		}
		return n, true
	}
	var req prompb.WriteRequest
	if req.Unmarshal(raw) != nil {
		return 0, false
	}
	for _, ts := range req.Timeseries {
		n += len(ts.Samples) + len(ts.Histograms)
	}
	return n, true
}

// bulk reads action and document of each item, as whoever stores them has to:
// both are JSON, and a document has its time.
func (s *sink) bulk(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.bytes.Add(int64(len(body)))
	if err == nil && r.Header.Get("Content-Encoding") == "gzip" {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(z)
		}
	}
	now := time.Now()
	n, labelled := 0, 0
	ages := map[time.Time]int{} // lines of one write have one time
	for err == nil && len(body) > 0 {
		var action, doc []byte
		action, body, _ = bytes.Cut(body, []byte{'\n'})
		if len(action) == 0 {
			continue
		}
		doc, body, _ = bytes.Cut(body, []byte{'\n'})
		if !json.Valid(action) || !bytes.Contains(action, []byte(`"_index"`)) && !strings.Contains(r.URL.Path[1:], "/") || !json.Valid(doc) {
			err = fmt.Errorf("item %d is no pair of JSON objects with an _index: %.300s", n, action)
			break
		}
		_, rest, ok := bytes.Cut(doc, []byte(`"@timestamp":"`))
		stamp, _, end := bytes.Cut(rest, []byte{'"'})
		if !ok || !end {
			err = fmt.Errorf("item %d has no @timestamp: %.300s", n, doc)
			break
		}
		if at, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil {
			ages[at]++
		}
		if bytes.Contains(doc, []byte(`"pod-template-hash"`)) {
			labelled++
		}
		n++
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.delays.mu.Lock()
	for at, n := range ages {
		s.delays.add(now.Sub(at), n)
	}
	s.delays.mu.Unlock()
	s.records.Add(int64(n))
	s.labelled.Add(int64(labelled))
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	out.WriteString(`{"took":1,"errors":false,"items":[`)
	for i := range n {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(`{"create":{"_index":".ds-bench-000001","status":201}}`)
	}
	out.WriteString(`]}`)
	out.Flush()
}

// startSink starts the sink and returns its address.
func startSink(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path, args := pinned(sinkCore, self)
	lab.Start(harness.Command{
		Name: "sink", Path: path, Args: args, Env: []string{sinkListen + "=" + listen},
		Ready: func() error { _, err := harness.Get("http://" + listen + "/count"); return err },
	})
	return listen
}

// sinkSays returns what the sink says of itself; forget begins the ages anew.
func sinkSays(t *testing.T, listen string, forget bool) (out told) {
	t.Helper()
	url := "http://" + listen + "/told"
	if forget {
		url += "?forget"
	}
	data, err := harness.Get(url)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The measured one has a core for itself, where there are two.
const (
	agentCore = 0
	sinkCore  = 1
)

// pinned returns the command that runs a program on one core alone, by taskset
// of util-linux. It is the same process.
func pinned(core int, program string, args ...string) (string, []string) {
	taskset, err := exec.LookPath("taskset")
	if err != nil || runtime.NumCPU() < 2 {
		return program, args
	}
	return taskset, append([]string{"-c", strconv.Itoa(core), program}, args...)
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
