//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"nines/e2e/harness"
	"nines/pkg/metric"
)

// soak is how long the runs of faults are: SOAK_MINUTES, SOAK_LINES and
// SOAK_SEED, which "make soak-logs" sets to the long form.
type soak struct {
	long   bool
	length time.Duration
	lines  int
	seed   uint64
}

func soakOf(t *testing.T) soak {
	t.Helper()
	s := soak{length: time.Minute, lines: 10_000_000, seed: uint64(time.Now().UnixNano()) % 1_000_000}
	whole := func(name string, set func(n int)) {
		text := os.Getenv(name)
		if text == "" {
			return
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q is no whole number above 0", name, text)
		}
		set(n)
	}
	whole("SOAK_MINUTES", func(n int) { s.long, s.length = true, time.Duration(n)*time.Minute })
	whole("SOAK_LINES", func(n int) { s.lines = n })
	whole("SOAK_SEED", func(n int) { s.seed = uint64(n) })
	return s
}

// allStreams are the data streams of every kind of source.
const allStreams = "logs-*"

// faultRun is an agent between containers that write, and an Elasticsearch that
// fails.
type faultRun struct {
	t      *testing.T
	lab    *harness.Lab
	random *rand.Rand

	kubelet    *harness.Kubelet
	containers []*harness.Container
	es         *harness.Search
	proxy      *harness.FaultProxy
	agent      *harness.Agent
	identity   *harness.Identity

	overrun                    bool // the agent cannot have seen all that was written
	kills, restarts, rollovers int
	held                       time.Duration // for which nothing was written
	// Of runs of the agent that ended, by name of the series: what they counted
	// until the last look before they did.
	before map[string]float64
}

func newFaultRun(t *testing.T, seed uint64, c harness.KubeletConfig, rates ...int) *faultRun {
	t.Helper()
	r := &faultRun{t: t, lab: harness.New(t), random: rand.New(rand.NewPCG(seed, 3)), before: map[string]float64{}}
	r.es = r.lab.Elasticsearch()
	r.proxy = r.lab.FaultProxy(r.es.URL, seed)
	c.Root, c.Seed = r.lab.Dir("pods"), seed
	r.kubelet = harness.NewKubelet(c)
	for i, rate := range rates {
		one, err := r.kubelet.Add("shop", fmt.Sprintf("web-%d", i/2), fmt.Sprintf("0b9a-%d", i/2), fmt.Sprintf("c%d", i), rate)
		if err != nil {
			t.Fatal(err)
		}
		r.containers = append(r.containers, one)
	}
	source := fmt.Sprintf("{type: kubernetes, root: %q}", c.Root)
	if c.Plain {
		source = fmt.Sprintf("{type: files, paths: [%q]}", c.Root+"/*/*/*.log")
	}
	r.agent = r.lab.Agent(harness.AgentConfig{Logs: fmt.Sprintf("sources: [%s]\ndestination: {elasticsearch: {urls: [%q]}}\n", source, r.proxy.URL)})
	r.identity = harness.WatchIdentity(r.agent)
	return r
}

// figure is what the agent says now, added to what its earlier runs said where
// it is a counter that each run begins anew.
func (r *faultRun) figure(f harness.Figures, name string, labels ...string) int64 {
	v, _ := f.Sum(name, labels...)
	return int64(v + r.before[name])
}

// perRun are counters that a restart sets to 0.
var perRun = []string{metric.LogAlreadyStored, metric.LogDuplicates, metric.LogRequests}

// kill ends the agent at once, after a last look at its counters.
func (r *faultRun) kill() {
	r.t.Helper()
	f, err := r.agent.Figures()
	if err != nil {
		f = r.identity.Last()
	}
	for _, name := range perRun {
		v, _ := f.Sum(name)
		r.before[name] += v
	}
	r.agent.Kill()
	r.kills++
}

// settled is how many bytes have found their end.
func settled(f harness.Figures) int64 {
	var sum float64
	for _, state := range []string{metric.LogStored, metric.LogDeadLettered, metric.LogDropped, metric.LogLost} {
		v, _ := f.Sum(metric.LogBytes, fmt.Sprintf("state=%q", state))
		sum += v
	}
	return int64(sum)
}

// waiting is how many bytes were written and have not found their end, as far
// as the newest look at the agent says.
func (r *faultRun) waiting() int64 {
	_, written := r.kubelet.Written()
	return written - settled(r.identity.Last())
}

// episodes are plans of the proxy for a few seconds, between calm ones.
func (r *faultRun) episode() harness.Plan {
	const slow, small = 3 * time.Second, 64 << 10
	if r.random.IntN(3) > 0 {
		return harness.Plan{Kinds: harness.AllFaults, Share: 0.3 + 0.3*r.random.Float64(), MaxBody: small, Slow: slow}
	}
	kind := harness.AllFaults[r.random.IntN(len(harness.AllFaults))]
	return harness.Plan{Kinds: []harness.Fault{kind}, Share: 0.3 + 0.4*r.random.Float64(), MaxBody: small, Slow: slow}
}

// rollOver gives every data stream a new write index.
func (r *faultRun) rollOver() error {
	var hits []harness.Hit
	var page struct{ Hits struct{ Hits []harness.Hit } }
	err := r.es.Ask(http.MethodPost, "/"+allStreams+"/_search", map[string]any{
		"size": 1, "_source": []string{"data_stream"}, "sort": []string{"_doc"},
	}, &page)
	if hits = page.Hits.Hits; err != nil || len(hits) == 0 {
		return fmt.Errorf("find a data stream: %d hits (%v)", len(hits), err)
	}
	var doc struct {
		DataStream struct{ Type, Dataset, Namespace string } `json:"data_stream"`
	}
	if err := json.Unmarshal(hits[0].Source, &doc); err != nil {
		return err
	}
	name := doc.DataStream.Type + "-" + doc.DataStream.Dataset + "-" + doc.DataStream.Namespace
	if err := r.es.Ask(http.MethodPost, "/"+name+"/_rollover", nil, nil); err != nil {
		return err
	}
	r.rollovers++
	return nil
}

// trouble goes on until the time is over or the lines are written, and each kind
// of it has come; after that time it is only waited for what has not come yet.
func (r *faultRun) trouble(s soak) {
	t := r.t
	t.Helper()
	upTo := func(from, to time.Duration) time.Duration {
		return from + time.Duration(r.random.Int64N(int64(to-from)))
	}
	begun := time.Now()
	end := begun.Add(s.length)
	// An outage and its aftermath take about half a minute here.
	restartEvery := max(s.length/5, time.Minute)
	nextKill, nextPlan, nextRestart := begun.Add(5*time.Second), begun.Add(3*time.Second), begun.Add(15*time.Second)
	rollover := max(s.length/6, 35*time.Second)
	nextRollover := begun.Add(min(s.length/2, rollover))
	var agentAt, esAt time.Time // when it is started again
	var killsFrom time.Time     // no kill before: a kill loses what was counted since the last look
	calm, paused, starting := true, false, false
	var pausedAt, told time.Time
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	rates := r.rates()
	for {
		now := <-tick.C
		lines, _ := r.kubelet.Written()
		over := now.After(end) || lines >= s.lines
		if over && (r.metAll() || now.After(end.Add(3*time.Minute))) {
			break
		}
		// The longest outage has to stay inside the files that are kept. The
		// noisiest container writes half of all: as if it were all of it.
		wait := r.waiting()
		if limit := r.kubelet.Kept() * 6 / 10; !paused && wait > limit {
			paused, pausedAt = true, now
			r.kubelet.Rates(make([]int, len(rates))...)
		} else if paused && wait < limit/2 {
			paused = false
			r.held += now.Sub(pausedAt)
			r.kubelet.Rates(rates...)
		}
		switch {
		case !agentAt.IsZero():
			if now.After(agentAt) {
				agentAt = time.Time{}
				r.agent.Start()
			}
		case now.After(nextKill) && now.After(killsFrom) && !(over && r.kills > 0):
			r.kill()
			agentAt = now.Add(upTo(0, time.Second))
			nextKill = now.Add(upTo(3*time.Second, 7*time.Second))
		}
		if now.After(nextPlan) {
			calm = !calm
			plan := harness.Plan{}
			if !calm && !over && wait < r.kubelet.Kept()/2 {
				plan = r.episode()
			}
			r.proxy.Set(plan)
			nextPlan = now.Add(upTo(2*time.Second, 5*time.Second))
		}
		switch {
		case !esAt.IsZero() && now.After(esAt):
			esAt, starting = time.Time{}, true
			r.es.Launch()
		case starting:
			if r.es.Ready() == nil {
				starting = false
			}
		case esAt.IsZero() && now.After(nextRestart):
			r.es.Kill()
			r.restarts++
			esAt = now.Add(upTo(0, 3*time.Second))
			nextRestart = now.Add(restartEvery)
		case esAt.IsZero() && now.After(nextRollover):
			if err := r.rollOver(); err != nil {
				if now.Sub(told) > 10*time.Second {
					told = now
					r.lab.Say("no rollover yet, the next beat asks again: %v", err)
				}
				continue
			}
			killsFrom = now.Add(10 * time.Second)
			nextRollover = now.Add(rollover)
		}
	}
	if paused {
		r.held += time.Since(pausedAt)
	}
	r.proxy.Set(harness.Plan{})
	if !esAt.IsZero() {
		r.es.Launch()
	}
	if !agentAt.IsZero() {
		r.agent.Start()
	}
	if err := r.kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	r.lab.Eventually(2*time.Minute, "Elasticsearch is back", r.es.Ready)
}

// metAll says whether each kind of trouble has come by now: on a host under load
// some take longer than the time that the run has.
func (r *faultRun) metAll() bool {
	rotated, _ := r.kubelet.Rotated()
	return rotated > 0 && r.kills > 0 && r.restarts > 0 && r.rollovers > 0
}

func (r *faultRun) rates() []int {
	rates := make([]int, len(r.containers))
	for i, c := range r.containers {
		rates[i] = c.Rate()
	}
	return rates
}

// drain waits until everything that was written has found its end.
func (r *faultRun) drain(limit time.Duration) harness.Figures {
	r.t.Helper()
	var last harness.Figures
	r.lab.Eventually(limit, "everything that was written has found its end", func() error {
		f, err := r.agent.Figures()
		if err != nil {
			return err
		}
		last = f
		flying, _ := f.Sum(metric.LogBytes, `state="in_flight"`)
		unread, found := f.Sum(metric.LogBytes, `state="unread"`)
		lines, bytes := r.kubelet.Written()
		seen, _ := f.Sum(metric.LogSeenBytes)
		if !found || flying+unread > 0 || int64(seen) < bytes && !r.overrun {
			return fmt.Errorf("of %d bytes of %d lines %.0f are seen, %.0f on their way, %.0f unread", bytes, lines, seen, flying, unread)
		}
		return r.lastLines()
	})
	return last
}

// lastLines wants the last line of each container to be stored.
func (r *faultRun) lastLines() error {
	for i, c := range r.containers {
		var answer struct{ Count int }
		last := fmt.Sprintf("seq=%09d c=%02d", c.Lines()-1, i)
		err := r.es.Ask(http.MethodPost, "/"+allStreams+"/_count", map[string]any{
			"query": map[string]any{"match_phrase": map[string]any{"message": last}},
		}, &answer)
		if err != nil || answer.Count == 0 {
			return fmt.Errorf("%s is not stored (%v)", last, err)
		}
	}
	return nil
}

// tally reads all that is stored.
func (r *faultRun) tally() *harness.Tally {
	r.t.Helper()
	if err := r.es.Ask(http.MethodPost, "/"+allStreams+"/_refresh", nil, nil); err != nil {
		r.t.Fatal(err)
	}
	out := harness.NewTally(r.kubelet)
	err := r.es.Every(allStreams, []string{"message"}, func(h harness.Hit) {
		var doc struct{ Message string }
		if err := json.Unmarshal(h.Source, &doc); err != nil {
			r.t.Fatal(err)
		}
		out.Add(h.Index, doc.Message)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// table prints what was done and what came of it.
func (r *faultRun) table(f harness.Figures, tally *harness.Tally, looks int) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	lines, written := r.kubelet.Written()
	rotations, removed := r.kubelet.Rotated()
	counts, bulks := r.proxy.Counts()
	row := func(what string, n any) { fmt.Fprintf(w, "%s\t%v\n", what, n) }
	row("lines written", lines)
	row("bytes written", written)
	row("time in which writing was held", r.held.Round(time.Second/10))
	row("rotations", fmt.Sprintf("%d (%d files removed by then)", rotations, removed))
	row("kill -9 of the agent", r.kills)
	row("kills of Elasticsearch", r.restarts)
	row("rollovers", fmt.Sprintf("%d (%d backing indices)", r.rollovers, tally.Indices()))
	row("bulks", bulks)
	for _, fault := range slices.Sorted(maps.Keys(counts)) {
		row("  "+string(fault), counts[fault])
	}
	row("lines stored", tally.Stored)
	row("lines lost", tally.Missing(nil))
	row("copies beyond the first", fmt.Sprintf("%d (%d not explained by a rollover; the agent counted %d)", tally.Double, tally.Within, r.figure(f, metric.LogDuplicates)))
	row("already stored, by 409 or look-up", r.figure(f, metric.LogAlreadyStored))
	row("strange documents", len(tally.Strange))
	for _, state := range []string{metric.LogStored, metric.LogDeadLettered, metric.LogLost} {
		row("agent: bytes "+state, r.figure(f, metric.LogBytes, fmt.Sprintf("state=%q", state)))
		row("agent: records "+state, r.figure(f, metric.LogRecords, fmt.Sprintf("state=%q", state)))
	}
	row("looks at the account", looks)
	if err := w.Flush(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("\n%s", b.String())
}

// Guards the identity of delivery, and that a checkpoint moves only past what
// was acknowledged record by record: whatever breaks, no line is lost, and none
// is stored twice but over a rollover, which is counted.
func TestLogsSurviveFaultsKillsAndRotations(t *testing.T) {
	t.Parallel()
	s := soakOf(t)
	t.Logf("SOAK_SEED=%d", s.seed)
	c := harness.KubeletConfig{Partials: true}
	// Half of what Elasticsearch takes on two cores, so that what waits after an
	// outage is caught up with; in CI other tests run beside.
	rates := []int{3000, 1500, 900, 600}
	if !s.long {
		c.RotateBytes = 2 << 20
		rates = []int{700, 350, 210, 140}
	}
	r := newFaultRun(t, s.seed, c, rates...)
	r.kubelet.Start()
	r.lab.Say("everything runs")
	r.trouble(s)
	r.lab.Say("the trouble is over")
	f := r.drain(5 * time.Minute)
	tally := r.tally()
	looks, broken := r.identity.Stop()
	r.agent.Stop()
	r.table(f, tally, looks)

	if looks < 10 || len(broken) > 0 {
		t.Errorf("looked %d times at the account: %q", looks, broken)
	}
	if n := tally.Missing(nil); n > 0 || len(tally.Strange) > 0 {
		t.Errorf("%d lines are lost, %d documents are strange: %.5q", n, len(tally.Strange), tally.Strange)
		r.whereMissing(tally)
	}
	if tally.Within > 0 {
		t.Errorf("%d copies lie in the index of their original", tally.Within)
	}
	// What one run of the agent counted after its last look dies with it; after
	// a rollover nobody kills it for ten seconds.
	if counted := r.figure(f, metric.LogDuplicates); counted != int64(tally.Double) {
		t.Errorf("%d copies are there, the agent counted %d", tally.Double, counted)
	}
	lines, written := r.kubelet.Written()
	for _, want := range []struct {
		name, state string
		value       int
	}{
		{metric.LogRecords, metric.LogStored, lines}, {metric.LogBytes, metric.LogStored, int(written)},
		{metric.LogRecords, metric.LogDeadLettered, 0}, {metric.LogRecords, metric.LogLost, 0}, {metric.LogBytes, metric.LogLost, 0},
	} {
		if got, found := f.Sum(want.name, fmt.Sprintf("state=%q", want.state)); !found || int(got) != want.value {
			t.Errorf("%s of %s is %.0f (%v), want %d", want.name, want.state, got, found, want.value)
		}
	}
	if gaps, found := f.Sum(metric.LogGaps); !found || gaps != 0 {
		t.Errorf("%.0f gaps (%v)", gaps, found)
	}
	if s.long {
		r.everyFault()
	}
	if rotated, _ := r.kubelet.Rotated(); !r.metAll() {
		t.Errorf("%d rotations, %d kills, %d restarts, %d rollovers: each is wanted", rotated, r.kills, r.restarts, r.rollovers)
	}
}

// everyFault wants each of them in the long form.
func (r *faultRun) everyFault() {
	r.t.Helper()
	counts, _ := r.proxy.Counts()
	for _, f := range append(harness.AllFaults[:len(harness.AllFaults):len(harness.AllFaults)], harness.Away) {
		if counts[f] == 0 {
			r.t.Errorf("no request met %q", f)
		}
	}
}

// whereMissing tells runs of numbers that are not there.
func (r *faultRun) whereMissing(tally *harness.Tally) {
	var last *harness.Container
	var runs []string
	from, to := 0, -2
	flush := func() {
		if last != nil {
			begin, _ := last.At(from)
			_, end := last.At(to)
			const clock = "15:04:05.000"
			runs = append(runs, fmt.Sprintf("%s %d-%d from %s to %s", last.Path(), from, to, begin.UTC().Format(clock), end.UTC().Format(clock)))
		}
	}
	tally.Missing(func(c *harness.Container, seq int) {
		if c != last || seq != to+1 {
			flush()
			last, from = c, seq
		}
		to = seq
	})
	flush()
	r.t.Logf("%d holes: %s", len(runs), strings.Join(runs[:min(len(runs), 20)], "; "))
}

// missed is what the agent's status says of a time in which lines may have gone.
type missed struct {
	Path     string
	From, To time.Time
	Lost     int64 `json:"lost_bytes"`
}

// gapsOf finds the gaps in a status, wherever they stand in it.
func gapsOf(t *testing.T, status []byte) (out []missed) {
	t.Helper()
	var find func(v any)
	find = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if list, ok := v["gaps"].([]any); ok {
				data, err := json.Marshal(list)
				if err != nil {
					t.Fatal(err)
				}
				var some []missed
				if err := json.Unmarshal(data, &some); err != nil {
					t.Fatal(err)
				}
				out = append(out, some...)
				return
			}
			for _, child := range v {
				find(child)
			}
		case []any:
			for _, child := range v {
				find(child)
			}
		}
	}
	var all any
	if err := json.Unmarshal(status, &all); err != nil {
		t.Fatalf("%v in %.300s", err, status)
	}
	find(all)
	return out
}

// Guards that what was rotated away before it could be read is told: known
// bytes as lost, exactly; what came and went unseen inside a gap.
func TestLogsThatOverrunTheKeptFilesAreCountedAsLost(t *testing.T) {
	t.Parallel()
	s := soakOf(t)
	t.Logf("SOAK_SEED=%d", s.seed)
	if s.long {
		overrunHeld(t, s)
	}
	r := newFaultRun(t, s.seed+1, harness.KubeletConfig{RotateBytes: 256 << 10}, 500, 200)
	r.overrun = true
	r.kubelet.Start()
	r.lab.Eventually(time.Minute, "lines arrive", func() error {
		if n, err := r.es.Count(allStreams); err != nil || n < 1000 {
			return fmt.Errorf("%d are stored (%v)", n, err)
		}
		return nil
	})
	// The server is away while the agent sees files come; then nothing is
	// written until it has seen all of them, and it is killed.
	r.proxy.Set(harness.Plan{Kinds: []harness.Fault{harness.ResetBefore}, Share: 1})
	r.lab.Until(time.Now().Add(6*time.Second), "an outage")
	r.kubelet.Rates(0, 0)
	r.lab.Eventually(time.Minute, "the agent has seen what was written", func() error {
		f, err := r.agent.Figures()
		if err != nil {
			return err
		}
		_, written := r.kubelet.Written()
		if seen, _ := f.Sum(metric.LogSeenBytes); int64(seen) != written {
			return fmt.Errorf("it has seen %.0f of %d bytes", seen, written)
		}
		return nil
	})
	// The checkpoint says it, too, once it was written.
	r.lab.Until(time.Now().Add(3*time.Second), "a checkpoint")
	known := make([]int, len(r.containers))
	for i, c := range r.containers {
		known[i] = c.Lines()
	}
	r.kill()
	before := r.rotations()
	r.kubelet.Rates(20_000, 20_000)
	r.lab.Eventually(time.Minute, "the kept files are overrun", func() error {
		if n := r.rotations() - before; n < 20 {
			return fmt.Errorf("%d rotations", n)
		}
		return nil
	})
	r.kubelet.Rates(1000, 1000)
	r.proxy.Set(harness.Plan{})
	r.agent.Start()
	r.lab.Until(time.Now().Add(5*time.Second), "lines after the outage")
	if err := r.kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	f := r.drain(3 * time.Minute)
	tally := r.tally()
	status, err := harness.Get(r.agent.URL + "/api/nines/v1/logs")
	if err != nil {
		t.Fatal(err)
	}
	looks, broken := r.identity.Stop()
	r.agent.Stop()
	r.table(f, tally, looks)
	if looks < 10 || len(broken) > 0 {
		t.Errorf("looked %d times at the account: %q", looks, broken)
	}
	gaps := gapsOf(t, status)
	var knownLost, unknown, outside int64
	missing := tally.Missing(func(c *harness.Container, seq int) {
		if seq < known[slices.Index(r.containers, c)] {
			knownLost += r.kubelet.Bytes()
			return
		}
		unknown++
		from, to := c.At(seq)
		if !slices.ContainsFunc(gaps, func(g missed) bool { return g.Path == c.Path() && !to.Before(g.From) && !from.After(g.To) }) {
			outside++
		}
	})
	if missing == 0 || unknown == 0 || knownLost == 0 {
		t.Errorf("%d lines are missing, %d of generations that nobody saw, %d bytes of known ones: each is wanted", missing, unknown, knownLost)
	}
	if lost, _ := f.Sum(metric.LogBytes, `state="lost"`); int64(lost) != knownLost {
		t.Errorf("%.0f bytes are said to be lost, by the bitmap it is %d", lost, knownLost)
	}
	if outside > 0 || len(gaps) == 0 {
		r.whereMissing(tally)
		t.Errorf("%d missing lines lie in no gap of %+v", outside, gaps)
	}
	if records, _ := f.Sum(metric.LogRecords, `state="stored"`); int(records) != tally.Stored || tally.Double > 0 {
		t.Errorf("%.0f records are said to be stored, %d are, %d twice", records, tally.Stored, tally.Double)
	}
}

// overrunHeld lets the agent look on while files are rotated away. It holds
// those that it has not read, up to 1 GiB; what it has to release beyond is lost,
// to the byte. That takes more than a gigabyte of lines, so it is of the long
// form alone.
func overrunHeld(t *testing.T, s soak) {
	t.Helper()
	const lineBytes, rotate = 4096, 100 << 20
	r := newFaultRun(t, s.seed+2, harness.KubeletConfig{RotateBytes: rotate, LineBytes: lineBytes}, 5000)
	r.overrun = true
	r.proxy.Set(harness.Plan{Kinds: []harness.Fault{harness.ResetBefore}, Share: 1})
	r.kubelet.Start()
	r.lab.Eventually(5*time.Minute, "the held files are overrun", func() error {
		if _, written := r.kubelet.Written(); written < r.kubelet.Kept()+2<<30 {
			return fmt.Errorf("%d bytes are written", written)
		}
		return nil
	})
	if err := r.kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	r.proxy.Set(harness.Plan{})
	f := r.drain(10 * time.Minute)
	tally := r.tally()
	looks, broken := r.identity.Stop()
	r.agent.Stop()
	r.table(f, tally, looks)
	if len(broken) > 0 || looks < 10 {
		t.Errorf("looked %d times at the account: %q", looks, broken)
	}
	missing := int64(tally.Missing(nil)) * lineBytes
	if lost, _ := f.Sum(metric.LogBytes, `state="lost"`); int64(lost) != missing || missing == 0 {
		t.Errorf("%.0f bytes are said to be lost, by the bitmap it is %d", lost, missing)
		r.whereMissing(tally)
	}
}

func (r *faultRun) rotations() int { n, _ := r.kubelet.Rotated(); return n }
