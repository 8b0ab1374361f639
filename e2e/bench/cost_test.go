//go:build e2e

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"nines/e2e/harness"
)

const (
	costSLOs     = 200
	costPeriod   = 30 * 24 * time.Hour
	costInterval = 30 * time.Second
	// A sender ships what it has after 5 s (batch_send_deadline of Prometheus),
	// so that a sixth of the targets comes in each request.
	costSlots = 6
	// The first two minutes after a start are not booked here, and the rule
	// groups of Prometheus begin spread over one interval.
	costWarmUp = 3 * time.Minute
	// costMinutes are measured; the figure is one of a minute.
	costMinutes = 5
	// Ours runs twice with and twice without SLOs: its share for SLOs is small
	// beside what a process of this kind costs at rest.
	costPairs = 2
)

// counter is a counter that goes on for as long as it is asked.
type counter struct {
	labels labels.Labels
	value  float64
	step   func(*rand.Rand) int
	random *rand.Rand
	next   int64 // time of the next sample, milliseconds
}

func (c *counter) scrape() float64 {
	c.value += float64(c.step(c.random))
	c.next += costInterval.Milliseconds()
	return c.value
}

// until is a past.samples of the counter.
func (c *counter) until(before int64, add func(t int64, v float64)) {
	for c.next < before {
		at := c.next
		add(at, c.scrape())
	}
}

// newCounters makes the counters of a service: four fifths of them of good
// answers and one fifth of errors, five codes for each of its targets.
func newCounters(service string, n int, begin int64) []*counter {
	var out []*counter
	for i := range n {
		code := []string{"200", "201", "204", "404", "500"}[i%5]
		c := &counter{
			labels: labels.FromStrings("__name__", "http_requests_total", "cluster", "bench", "code", code,
				"instance", fmt.Sprintf("%s-%d:8080", service, i/5), "job", "bench", "service", service),
			step: func(r *rand.Rand) int { return 300 + r.IntN(300) },
			next: begin, random: rand.New(rand.NewPCG(uint64(i), uint64(begin))),
		}
		if code == "500" {
			c.step = func(r *rand.Rand) int { return max(0, r.IntN(8)-5) }
		}
		out = append(out, c)
	}
	return out
}

// server is one of those that take the same samples at the same time.
type server struct {
	name   string
	write  string // URL
	pid    int
	edges  []time.Duration // CPU time so far at each minute's edge
	rules  func() (done, missed float64)
	before [2]float64 // what rules returned at the first edge
	errors func() []string
}

// perMinute returns the mean CPU time of a minute and its standard error.
func perMinute(servers []*server) (mean, standard float64) {
	var all []float64
	for i := 1; i < len(servers[0].edges); i++ {
		sum := 0.0
		for _, s := range servers {
			sum += (s.edges[i] - s.edges[i-1]).Seconds()
		}
		all = append(all, sum/float64(len(servers)))
	}
	for _, v := range all {
		mean += v / float64(len(all))
	}
	for _, v := range all {
		standard += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(standard / float64(len(all)*(len(all)-1)))
}

// costOfSLOs runs five kinds of servers for the same minutes: ours and
// Prometheus, with SLOs and without, and Prometheus with the rules that we
// convert. All have a month of history where they read it, and all get the same
// requests. CPU for SLOs is that of the server with them minus that of the one
// without, minute by minute.
func costOfSLOs(t *testing.T) []row {
	t.Helper()
	lab := harness.New(t)
	var services []string
	for n := range costSLOs {
		services = append(services, fmt.Sprintf("svc-%d", n))
	}
	p := writePolicy(t, lab, services)

	// The history ends where the live samples begin.
	begin := time.Now().Add(90 * time.Second).Truncate(costInterval)
	from := begin.Add(-costPeriod)
	slots := make([][]*counter, costSlots)
	var history []past
	for n, s := range services {
		slot := n % costSlots
		for _, c := range newCounters(s, 10, from.UnixMilli()+int64(slot)*costInterval.Milliseconds()/costSlots) {
			slots[slot] = append(slots[slot], c)
			history = append(history, past{c.labels, c.until})
		}
	}
	// What the rules would have recorded by then, where a rule reads it again.
	recorded, _ := readBack(t, p.sloth)
	for i, r := range recorded {
		ls := map[string]string{"__name__": r.Record}
		for k, v := range r.Labels {
			ls[k] = v
		}
		at, random := from.UnixMilli(), rand.New(rand.NewPCG(uint64(i), 1))
		history = append(history, past{labels.FromMap(ls), func(before int64, add func(int64, float64)) {
			for ; at < before; at += costInterval.Milliseconds() {
				add(at, float64(random.IntN(40))/float64(34_000+random.IntN(3_000)))
			}
		}})
	}
	lab.Say("writing the history")
	blocks := lab.Dir("blocks")
	written, err := writeBlocks(blocks, from.UnixMilli(), begin.UnixMilli(), history)
	if err != nil {
		t.Fatal(err)
	}
	lab.Say("%d samples of %d series are written, %d of them are recorded ones", written, len(history), len(recorded))

	prom := func(name string, rules ...string) *server {
		s := startPrometheus(t, harness.New(t), blocks, rules...)
		return &server{
			name: name, write: s.URL + "/api/v1/write", pid: s.PID(),
			rules: func() (float64, float64) { return iterations(t, s.URL) }, errors: func() []string { return failures(s.URL) },
		}
	}
	// Ours books the same history, so that minutes leave its longest window too.
	lab.Say("booking the history into a ledger")
	booked := lab.Dir("booked")
	out := timed(t, lab.Program("nines-aggregator"), "backfill", "--slo", p.openslo, "--source", blocks, "--data", booked, "--format", "json")
	if out.err != nil {
		t.Fatal(out.err)
	}
	lab.Say("booked in %.0f s (%.0f s of CPU, %.0f MiB)", out.took.Seconds(), out.cpu.Seconds(), out.peak)
	ours := func(name string, options ...string) *server {
		own := harness.New(t)
		if len(options) > 0 {
			if err := os.CopyFS(own.Dir("aggregator", "ledger"), os.DirFS(filepath.Join(booked, "ledger"))); err != nil {
				t.Fatal(err)
			}
		}
		a := own.Aggregator(options...)
		return &server{
			name: name, write: a.URL + "/api/v1/write", pid: a.PID(),
			rules: func() (float64, float64) { return 0, 0 }, errors: func() []string {
				if len(options) == 0 {
					return nil
				}
				return unbooked(a.URL, costSLOs)
			},
		}
	}
	var with, without []*server
	for range costPairs {
		with = append(with, ours("nines-aggregator with SLOs", "--slos", p.openslo))
		without = append(without, ours("nines-aggregator without"))
	}
	sloth := []*server{prom("Prometheus with Sloth's rules", p.sloth...)}
	converted := []*server{prom("Prometheus with our rules", p.ours)}
	bare := []*server{prom("Prometheus without rules")}
	var all []*server
	for _, s := range [][]*server{with, without, sloth, converted, bare} {
		all = append(all, s...)
	}

	// Where the history took long, the first requests are late and go
	// out at once; the warm-up counts from here in any case.
	measured := begin.Add((time.Since(begin) + costWarmUp + time.Minute).Truncate(time.Minute))
	lab.Say("live samples; %d minutes are measured from %s", costMinutes, measured.UTC().Format(time.TimeOnly))
	for n := 0; ; n++ {
		slot := n % costSlots
		at := begin.Add(time.Duration(n) * costInterval / costSlots)
		lab.Until(at, "the next request")
		since := at.Sub(measured)
		if since >= 0 && since%time.Minute == 0 {
			for _, s := range all {
				if since == 0 {
					s.before[0], s.before[1] = s.rules()
				}
				s.edges = append(s.edges, cpuExact(t, s.pid))
			}
			if since == costMinutes*time.Minute {
				break
			}
		}
		body := encode(t, slots[slot])
		for _, s := range all {
			write(t, s.write, body)
		}
	}
	for _, s := range all {
		for _, trouble := range s.errors() {
			t.Errorf("%s: %s", s.name, trouble)
		}
		mean, standard := perMinute([]*server{s})
		lab.Say("%s: %.1f ± %.1f ms of CPU a minute, %.0f MiB", s.name, mean*1e3, standard*1e3, memory(t, s.pid, "VmHWM"))
	}

	oursMean, oursError := difference(with, without)
	wholeOurs, _ := perMinute(with)
	size := func(s *server) string { return fmt.Sprintf("%.0f MiB", memory(t, s.pid, "VmHWM")) }
	each := func(seconds float64) string { return fmt.Sprintf("%.1f µs", seconds/costSLOs*1e6) }
	var rows []row
	for _, peer := range []struct {
		name    string
		servers []*server
		a, b    string
	}{
		{"Prometheus, Sloth's rules", sloth, "at most 1/1,000", "at most 1/30"},
		{"Prometheus, our rules (no 30-day ratio)", converted, "", ""},
	} {
		mean, standard := difference(peer.servers, bare)
		// A group that was not ready in time is left out: the peer's figure is
		// too small then, and says so.
		late := ""
		done, missed := peer.servers[0].rules()
		done, missed = done-peer.servers[0].before[0], missed-peer.servers[0].before[1]
		if missed > 0 {
			late = fmt.Sprintf(" (it left out %.0f %% of its evaluations)", 100*missed/done)
		}
		rows = append(rows, row{
			figure: fmt.Sprintf("CPU for SLOs per objective and minute, %d SLOs × 10 series", costSLOs),
			ours:   fmt.Sprintf("%s ± %.1f", each(oursMean), oursError/costSLOs*1e6),
			peer:   fmt.Sprintf("%s: %s ± %.1f%s", peer.name, each(mean), standard/costSLOs*1e6, late),
			ratio:  fraction(oursMean, mean), goal: peer.a,
		})
		whole, _ := perMinute(peer.servers)
		rows = append(rows, row{
			figure: "CPU of the whole process a minute, the same", ours: fmt.Sprintf("%.0f ms, %s", wholeOurs*1e3, size(with[0])),
			peer: fmt.Sprintf("%s: %.0f ms, %s", peer.name, whole*1e3, size(peer.servers[0])), ratio: fraction(wholeOurs, whole), goal: peer.b,
		})
	}
	return rows
}

// difference returns the CPU time of a minute that one side takes more than the
// other, and its standard error.
func difference(with, without []*server) (mean, standard float64) {
	a, ea := perMinute(with)
	b, eb := perMinute(without)
	return a - b, math.Hypot(ea, eb)
}

// fraction prints a ÷ b as people compare costs.
func fraction(a, b float64) string {
	if a <= 0 || b <= 0 {
		return "below the noise"
	}
	return fmt.Sprintf("1/%.0f", b/a)
}

// encode makes a remote write 1.0 request of the counters' next samples.
func encode(t *testing.T, counters []*counter) []byte {
	t.Helper()
	var req prompb.WriteRequest
	for _, c := range counters {
		ts := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: c.next}}}
		ts.Samples[0].Value = c.scrape()
		c.labels.Range(func(l labels.Label) {
			ts.Labels = append(ts.Labels, prompb.Label{Name: l.Name, Value: l.Value})
		})
		req.Timeseries = append(req.Timeseries, ts)
	}
	raw, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, raw)
}

// sumOf adds up a metric of a server's /metrics over all its label sets.
func sumOf(page []byte, metric string) (sum float64, err error) {
	for line := range strings.SplitSeq(string(page), "\n") {
		rest, ok := strings.CutPrefix(line, metric)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", metric, err)
		}
		sum += v
	}
	return sum, nil
}

// iterations returns how many evaluations of rule groups fell due, and how many
// of them were left out since the one before still ran.
func iterations(t *testing.T, url string) (due, missed float64) {
	t.Helper()
	page, err := harness.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	due, e1 := sumOf(page, "prometheus_rule_group_iterations_total")
	missed, e2 := sumOf(page, "prometheus_rule_group_iterations_missed_total")
	if err := errors.Join(e1, e2); err != nil {
		t.Fatal(err)
	}
	return due, missed
}

// failures says whether a Prometheus could not evaluate a rule.
func failures(url string) []string {
	page, err := harness.Get(url + "/metrics")
	if err != nil {
		return []string{err.Error()}
	}
	n, err := sumOf(page, "prometheus_rule_evaluation_failures_total")
	if err != nil || n > 0 {
		return []string{fmt.Sprintf("%.0f evaluations of rules failed: %v", n, err)}
	}
	return nil
}

// unbooked says which objectives have no events: they would cost nothing.
func unbooked(server string, want int) (found []string) {
	data, err := harness.Get(server + "/api/nines/v1/objectives")
	if err != nil {
		return []string{err.Error()}
	}
	var answer struct {
		Objectives []struct {
			SLO   string
			Total json.Number `json:"total_events"`
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return []string{err.Error()}
	}
	n := 0
	for _, o := range answer.Objectives {
		if v, err := o.Total.Float64(); err == nil && v > 1e8 { // of a month
			n++
		}
	}
	if n < want {
		found = append(found, fmt.Sprintf("%d of %d objectives have events", n, want))
	}
	return found
}

// query asks a Prometheus for one number.
func query(server, expr string, at time.Time) (float64, error) {
	q := url.Values{"query": {expr}, "time": {fmt.Sprint(at.Unix())}}
	data, err := harness.Get(server + "/api/v1/query?" + q.Encode())
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return 0, err
	}
	if len(answer.Data.Result) != 1 {
		return 0, fmt.Errorf("%s has %d results: %.300s", expr, len(answer.Data.Result), data)
	}
	var v float64
	_, err = fmt.Sscan(fmt.Sprint(answer.Data.Result[0].Value[1]), &v)
	return v, err
}

// cpuExact returns the CPU time of a process in nanoseconds: the first field of
// the schedstat of its threads, which those of Go do not leave while it runs.
// Ticks of 10 ms, as in cpu, are too coarse for a minute of little work.
func cpuExact(t *testing.T, pid int) time.Duration {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return cpu(t, pid) // a kernel without schedstat
	}
	var sum int64
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var n int64
		if err == nil {
			_, err = fmt.Sscan(string(data), &n)
		}
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum)
}
