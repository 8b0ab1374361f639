//go:build e2e

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"nines/e2e/harness"
	"nines/e2e/parts"
)

// row is one line of the table: a figure of ours, what is measured beside it in
// the same run, how the two compare, and the goal, which nothing asserts.
type row struct {
	figure, ours, peer, ratio, goal string
}

// work is what one process did and what it took.
type work struct {
	what  string
	done  int // lines or samples
	unit  string
	took  time.Duration
	cpu   time.Duration
	peak  float64 // MiB
	start float64 // MiB resident before the work, where it was looked at
}

// perCore is the work of one second of CPU time.
func (w work) perCore() float64 { return float64(w.done) / w.cpu.Seconds() }

func (w work) String() string {
	return fmt.Sprintf("%.0f, %.0f MiB", w.perCore(), w.peak)
}

// against makes a row of two pieces of work.
func (w work) against(figure string, peer work, goal string) row {
	return row{
		figure: figure, ours: w.String(), peer: peer.what + ": " + peer.String(),
		ratio: fmt.Sprintf("%.2f", w.perCore()/peer.perCore()), goal: goal,
	}
}

func TestBench(t *testing.T) {
	host := calibrate()
	t.Log(host)
	var rows []row
	// Each part ends its processes before the next one begins.
	measure := func(name string, part func(t *testing.T) []row) {
		t.Run(name, func(t *testing.T) { rows = append(rows, part(t)...) })
	}
	measure("logs", shipLogs)
	measure("logs into Elasticsearch", shipToElasticsearch)
	measure("logs at a steady rate", shipSteadily)
	measure("logs of many files", followMany)
	measure("delay of logs", delayOfLogs)
	measure("metrics", collectMetrics)
	measure("both", collectBesideLogs)
	measure("ingest", ingest)
	measure("cost", costOfSLOs)
	measure("truth", errorOfTheMonth)
	measure("month", replayOfAMonth)
	measure("packages", ofPackages)

	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tNINES\tBESIDE IT\tRATIO\tGOAL")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.figure, r.ours, dash(r.peer), dash(r.ratio), dash(r.goal))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\n%s\n\n%s\n", host, table.Bytes())
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// ingest measures those who take samples by remote write: an aggregator with
// SLOs, one without, and a forwarder. Each request goes to all of them, in
// turn, so that what else this machine does falls on all alike.
func ingest(t *testing.T) []row {
	lab := harness.New(t)
	evaluated := startTaker(t, "with SLOs", lab.Aggregator("--slos", writeSLOs(lab)))
	plain := startTaker(t, "the same without SLOs", harness.New(t).Aggregator())
	forwarded := startForwarder(t, lab)
	takers := []*taker{evaluated, plain, forwarded}
	for _, k := range takers {
		k.begin(t, lab)
	}
	requests := encodeRequests(t, time.Now())
	for i, body := range requests {
		for k := range takers {
			takers[(i+k)%len(takers)].take(t, body)
		}
	}
	figure := fmt.Sprintf("samples by remote write per CPU second, %d SLOs over %d series", services, services*seriesPerService)
	return []row{
		evaluated.done(t).against(figure, plain.done(t), "at least 0.95"),
		evaluated.done(t).against(figure, forwarded.done(t), ""),
	}
}

const (
	services         = 100
	seriesPerService = 100
	// scrapes is how many samples a series has: what is found out about it once
	// is spread over an hour and a half of a usual interval of 15 s.
	scrapes    = 360
	perRequest = 2000
)

// encodeRequests makes the scrapes of 10,000 counters, a tenth of a second
// apart, as remote write 1.0 requests in order. They end less than a
// minute ahead of now, which receivers take: all are of open minutes, none is
// late.
func encodeRequests(t *testing.T, now time.Time) [][]byte {
	t.Helper()
	var all []prompb.TimeSeries
	for service := range services {
		for n := range seriesPerService {
			code := "200"
			if n%2 == 1 {
				code = "500"
			}
			all = append(all, prompb.TimeSeries{Labels: []prompb.Label{
				{Name: "__name__", Value: "bench_requests_total"},
				{Name: "cluster", Value: "bench"},
				{Name: "code", Value: code},
				{Name: "instance", Value: fmt.Sprintf("10.0.%d.%d:8080", service, n/10)},
				{Name: "job", Value: "bench"},
				{Name: "path", Value: fmt.Sprintf("/api/v1/resource/%d", n/2%5)},
				{Name: "service", Value: fmt.Sprintf("service-%d", service)},
			}})
		}
	}
	var requests [][]byte
	for scrape := range scrapes {
		at := now.Add(20*time.Second + time.Duration(scrape)*100*time.Millisecond).UnixMilli()
		for from := 0; from < len(all); from += perRequest {
			part := all[from:min(from+perRequest, len(all))]
			for i := range part {
				part[i].Samples = []prompb.Sample{{Value: float64(scrape * (1 + i%7)), Timestamp: at}}
			}
			raw, err := (&prompb.WriteRequest{Timeseries: part}).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			requests = append(requests, snappy.Encode(nil, raw))
		}
	}
	return requests
}

const written = services * seriesPerService * scrapes

// taker is a program that takes samples.
type taker struct {
	name   string
	pid    int
	url    string
	took   time.Duration
	before time.Duration // of CPU
	idle   float64       // MiB
	// reports are the files with which an aggregator's start is over.
	reports string
}

func startTaker(t *testing.T, name string, a *harness.Aggregator) *taker {
	t.Helper()
	k := newTaker(t, name, a.PID(), a.URL+"/api/v1/write")
	k.reports = filepath.Join(a.Data, "reports", "*.pdf")
	return k
}

func newTaker(t *testing.T, name string, pid int, url string) *taker {
	t.Helper()
	return &taker{name: name, pid: pid, url: url}
}

// begin waits until what the program does at its start is over, the reports of
// an aggregator among it, and notes what it has used by then.
func (k *taker) begin(t *testing.T, lab *harness.Lab) {
	t.Helper()
	var seen time.Time
	var used time.Duration
	lab.Eventually(time.Minute, k.name+" is idle", func() error {
		if found, err := filepath.Glob(k.reports); k.reports != "" && (err != nil || len(found) == 0) {
			return fmt.Errorf("no %s yet (%v)", k.reports, err)
		}
		if seen.IsZero() {
			seen, used = time.Now(), cpuExact(t, k.pid)
		}
		span := time.Since(seen)
		if span < 500*time.Millisecond {
			return errors.New("it was not looked at for long enough")
		}
		busy := cpuExact(t, k.pid) - used
		if busy > span/100 {
			seen = time.Time{}
			return fmt.Errorf("it used %s of CPU in %s", busy, span)
		}
		return nil
	})
	k.before, k.idle = cpuExact(t, k.pid), memory(t, k.pid, "VmRSS")
}

// take posts one request, as a sender does that waits for each answer.
func (k *taker) take(t *testing.T, body []byte) {
	t.Helper()
	begun := time.Now()
	write(t, k.url, body)
	k.took += time.Since(begun)
}

var writer = &http.Client{Timeout: time.Minute}

// write posts one remote write request.
func write(t *testing.T, url string, body []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := writer.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode/100 != 2 {
		t.Fatalf("write to %s: %s", url, resp.Status)
	}
}

// done is what it did since its start.
func (k *taker) done(t *testing.T) work {
	t.Helper()
	return work{
		what: k.name, done: written, unit: "samples", took: k.took,
		cpu: cpuExact(t, k.pid) - k.before, peak: memory(t, k.pid, "VmHWM"), start: k.idle,
	}
}

// writeSLOs writes one SLO for each service and returns their folder.
func writeSLOs(lab *harness.Lab) string {
	for n := range services {
		lab.Write(fmt.Sprintf("slos/service-%d.yaml", n), fmt.Sprintf(`apiVersion: openslo/v1
kind: SLO
metadata:
  name: service-%[1]d
spec:
  service: service-%[1]d
  budgetingMethod: Occurrences
  timeWindow: [{duration: 28d, isRolling: true}]
  indicator:
    metadata: {name: requests-%[1]d}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(bench_requests_total{service="service-%[1]d",code!~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(bench_requests_total{service="service-%[1]d"}[5m]))'}}}
  objectives: [{displayName: availability, target: 0.999}]
`, n))
	}
	return lab.Dir("slos")
}

// startForwarder starts vmagent, which sends what it takes on to the sink.
func startForwarder(t *testing.T, lab *harness.Lab) *taker {
	t.Helper()
	dir, err := parts.Get(t.Context(), parts.VMAgent, func(line string) { lab.Say("%s", line) })
	if err != nil {
		t.Fatal(err)
	}
	sink := startSink(t, lab)
	listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	p := lab.Start(harness.Command{
		Name: "vmagent", Path: filepath.Join(dir, "vmagent"),
		Args: []string{
			"-httpListenAddr=" + listen, "-remoteWrite.url=http://" + sink + "/write",
			"-remoteWrite.tmpDataPath=" + lab.Dir("vmagent"),
		},
		Ready: func() error { _, err := harness.Get("http://" + listen + "/health"); return err },
	})
	t.Cleanup(func() {
		if _, n, err := received(sink); err != nil || n == 0 {
			t.Errorf("vmagent forwarded %d requests: %v", n, err)
		}
	})
	return newTaker(t, "vmagent, which only forwards", p.PID(), "http://"+listen+"/api/v1/write")
}
