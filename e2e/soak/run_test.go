package soak

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

var (
	roundsFlag = flag.Int("soak.rounds", 0, "rounds of each soak test; 0 is $SOAK_ROUNDS, or the few that a plain go test runs")
	seedFlag   = flag.Uint64("soak.seed", 0, "seed of the soak tests; 0 is $SOAK_SEED, or a new one")
)

// fewRounds is what a plain `go test` runs, and CI.
const fewRounds = 20

func setting(t *testing.T, given uint64, env string, other uint64) uint64 {
	t.Helper()
	if given != 0 {
		return given
	}
	s := os.Getenv(env)
	if s == "" {
		return other
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		t.Fatalf("%s is %q: give a number above 0", env, s)
	}
	return n
}

// patience is for how long the child may say nothing. It is no measure of
// speed: what takes longer hangs.
const patience = 5 * time.Minute

// run is a world, its senders, and the child that is broken again and again.
type run struct {
	t      *testing.T
	seed   uint64
	rounds int
	rng    *rand.Rand
	world  *world
	dir    string
	env    []string

	acked [agents]int // scrapes of each agent that were acknowledged
	cut   [agents]int // steps for which the agent can't reach the child
	chain map[uint64]string
	head  uint64 // newest batch that a tick told of
	seq   uint64

	// refusals counts answers that promise nothing, by status.
	refusals map[int]int

	last string // what was done to the child or its folder, in words

	// What a round does while the child runs.
	onLine func(*process, string)
	// prepare, if set, is called before a child starts; what it returns is
	// called after.
	prepare func(*process) func()
	full    bool // the disk is: a tick may fail
	// connected says that no agent is cut off on its own: all that is late is
	// late because the child was down.
	connected bool

	acks, ticks, kills int
}

func newRun(t *testing.T) *run {
	t.Helper()
	seed := setting(t, *seedFlag, "SOAK_SEED", rand.Uint64N(1_000_000_000)+1)
	few := uint64(fewRounds)
	if testing.Short() {
		few = 5
	}
	rounds := int(setting(t, uint64(*roundsFlag), "SOAK_ROUNDS", few))
	r := &run{
		t: t, seed: seed, rounds: rounds, rng: rand.New(rand.NewPCG(seed, 2)), world: newWorld(seed),
		dir: t.TempDir(), last: "nothing special", chain: map[uint64]string{}, refusals: map[int]int{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run it again with: SOAK_ROUNDS=%d SOAK_SEED=%d go test -count=1 -run '^%s$' ./e2e/soak (moments of kills differ, the samples do not)", rounds, seed, t.Name())
		}
	})
	return r
}

// process is a running child.
type process struct {
	r      *run
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string // closed when it has ended; owned by the reader of its output
	err    error       // what Wait returned, once lines is closed
	noise  bytes.Buffer
	opened bool

	kill sync.Once
}

// start starts the child. It opens its folder when the first frame comes.
func (r *run) start() *process {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	p := &process{r: r, cmd: exec.Command(exe), lines: make(chan string, 64)}
	p.cmd.Env = append(append(os.Environ(), folderEnv+"="+r.dir), r.env...)
	p.cmd.Stderr = &p.noise
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		r.t.Fatal(err)
	}
	after := func() {}
	if r.prepare != nil {
		after = r.prepare(p)
	}
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	after()
	go func() {
		defer close(p.lines)
		for b := bufio.NewReader(out); ; {
			line, err := b.ReadString('\n')
			if err != nil {
				break // half a line says nothing
			}
			p.lines <- strings.TrimSuffix(line, "\n")
		}
		p.err = p.cmd.Wait()
	}()
	return p
}

// die kills the child at once.
func (p *process) die() { p.kill.Do(func() { _ = p.cmd.Process.Kill() }) }

// send writes a frame. The child may be dead; then its silence tells.
func (p *process) send(f frame, body []byte) {
	f.Size = uint32(len(body))
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, f) // a Buffer takes all
	b.Write(body)
	_, _ = p.in.Write(b.Bytes())
}

// line returns the child's next line, false when it has ended.
func (p *process) line() (string, bool) {
	p.r.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case s, ok := <-p.lines:
		return s, ok
	case <-timeout.C:
		p.die()
		p.r.t.Fatalf("the child says nothing for %v; its log:\n%s", patience, p.noise.String())
		return "", false
	}
}

// now is the clock: a scrape is heard before the next one is made.
func (r *run) now() int64 { return base + int64(r.world.scrapes())*interval }

// open waits until the child is ready, and checks what it found in its folder.
// It is false when the child has ended before.
func (r *run) open(p *process) bool {
	r.t.Helper()
	p.send(frame{Kind: 'o', Now: r.now()}, nil)
	counted := map[string]int64{} // by metric: events that raw samples show
	booked := map[string]int64{}
	newest := map[string]int64{} // by instance and code
	raws := 0
	for {
		s, ok := p.line()
		if !ok {
			return false
		}
		if r.onLine != nil {
			r.onLine(p, s)
		}
		var seq uint64
		var hash, name, instance, code string
		var n int
		var v int64
		switch what, _, _ := strings.Cut(s, " "); what {
		case "chain":
			r.t.Errorf("the chain, after %s: %s", r.last, s)
		case "head":
			r.scan(s, "head %d %s", &seq, &hash)
			if seq < r.head {
				r.t.Errorf("after %s the book has %d batches, and batch %d was there before\n%s", r.last, seq, r.head, p.noise.String())
			}
			r.link(seq, hash)
		case "booked":
			r.scan(s, "booked %s %d %d", &name, &n, &v)
			booked[name] = v
		case "raw":
			r.scan(s, "raw %s %s %s %d %d", &name, &instance, &code, &n, &v)
			raws++
			newest[instance+" "+code] = v
			for i, src := range sources {
				if src.instance != instance {
					continue
				}
				if n < r.acked[src.agent] {
					r.t.Errorf("after %s, raw samples of instance %s, code %s: %d are there, %d were acknowledged", r.last, instance, code, n, r.acked[src.agent])
				}
				c := indexOf(codes, code)
				total := int64(0)
				for k := 1; k < r.world.scrapes() && src.at(k) <= v; k++ {
					d := r.world.values[i][k][c] - r.world.values[i][k-1][c]
					if r.world.steps[i][k].lost {
						d = r.world.values[i][k][c]
					}
					total += d * sla.Micro
				}
				counted[name] += total
			}
		case "open":
			p.opened = true
			if acked := r.acked[0] > 0; acked && raws == 0 {
				r.t.Errorf("no raw sample is left")
			}
			// R24: raw is never behind the book.
			for _, l := range lines()[:3] {
				name := "web_total"
				if l.restarts {
					name = "api_total"
				}
				if b := booked[l.objective.SLO]; b > counted[name] {
					r.t.Errorf("%s: %d micro-events are booked and the raw samples show %d", l.objective.SLO, b, counted[name])
				}
			}
			if r.t.Failed() {
				r.t.Logf("the child's log:\n%s", p.noise.String())
			}
			return !r.t.Failed()
		default:
			r.t.Fatalf("unexpected line of the child: %q", s)
		}
	}
}

func indexOf(list []string, s string) int {
	for i, x := range list {
		if x == s {
			return i
		}
	}
	return -1
}

func (r *run) scan(s, format string, into ...any) {
	r.t.Helper()
	if _, err := fmt.Sscanf(s, format, into...); err != nil {
		r.t.Fatalf("unexpected line of the child: %q: %v", s, err)
	}
}

// link notes a batch of the chain; no batch may ever get another hash.
func (r *run) link(seq uint64, hash string) {
	r.t.Helper()
	if was, ok := r.chain[seq]; ok && was != hash {
		r.t.Errorf("batch %d of the chain was %s and is %s", seq, was, hash)
	}
	r.chain[seq] = hash
	r.head = max(r.head, seq)
}

// catchUp is how many scrapes a request holds at most, and atOnce how many
// requests an agent sends in one step.
const (
	catchUp = 50
	atOnce  = 4
)

// step lets a scrape interval pass: all agents send what they can, one request
// at a time each, while a tick runs. It is false when the child has ended.
func (r *run) step(p *process) bool {
	r.t.Helper()
	r.world.scrape()
	waiting := map[uint8]frame{}
	var until, left [agents]int
	next := func(a uint8) {
		from := r.acked[a]
		to := min(r.world.scrapes(), from+catchUp)
		if from == to || left[a] == 0 {
			return
		}
		left[a]--
		body, err := r.world.request(a, from, to)
		if err != nil {
			r.t.Fatal(err)
		}
		r.seq++
		until[a] = to
		f := frame{Kind: 'w', Agent: a, Seq: r.seq, Now: r.now()}
		waiting[a] = f
		p.send(f, body)
	}
	for a := range uint8(agents) {
		left[a] = atOnce
		if r.cut[a] > 0 {
			r.cut[a]--
			continue
		}
		next(a)
	}
	r.seq++
	tick := r.seq
	p.send(frame{Kind: 't', Seq: tick, Now: r.now()}, nil)
	for ticking := true; ticking || len(waiting) > 0; {
		s, ok := p.line()
		if !ok {
			return false
		}
		var seq uint64
		switch what, _, _ := strings.Cut(s, " "); what {
		case "ack":
			var a uint8
			var status int
			var why string
			r.scan(s, "ack %d %d %d %q", &a, &seq, &status, &why)
			if waiting[a].Seq != seq {
				r.t.Fatalf("answer %d to agent %d, which waits for %d", seq, a, waiting[a].Seq)
			}
			delete(waiting, a)
			switch {
			case status/100 == 2:
				r.acks++
				r.acked[a] = until[a]
				next(a)
			case status/100 == 4:
				r.t.Errorf("refused for good: %d %s", status, why)
			default:
				r.refusals[status]++ // sent again with the next step
			}
		case "tick":
			r.scan(s, "tick %d", &seq)
		case "done":
			var head uint64
			var hash, why string
			r.scan(s, "done %d %d %s %q", &seq, &head, &hash, &why)
			r.link(head, hash)
			if why != "" && !r.full {
				r.t.Errorf("tick: %s", why)
			}
			ticking = false
			r.ticks++
		default:
			r.t.Fatalf("unexpected line of the child: %q", s)
		}
		if r.onLine != nil {
			r.onLine(p, s)
		}
	}
	return !r.t.Failed()
}

// trouble cuts agents off, now and then for hours.
func (r *run) trouble() {
	if r.connected {
		return
	}
	for a := range r.cut {
		if r.cut[a] == 0 && r.rng.IntN(60) == 0 {
			r.cut[a] = r.steps()
		}
	}
}

// steps is the length of a trouble: mostly seconds, at times minutes, seldom
// hours.
func (r *run) steps() int {
	switch r.rng.IntN(20) {
	case 0:
		return 200 + r.rng.IntN(700)
	case 1, 2, 3, 4:
		return 8 + r.rng.IntN(60)
	default:
		return r.rng.IntN(8)
	}
}

// begin runs the child until the book has its first minutes. What comes before
// them is no closed minute.
func (r *run) begin() {
	r.t.Helper()
	p := r.start()
	if !r.open(p) {
		r.t.Fatalf("the child did not start: %v\n%s", p.err, p.noise.String())
	}
	for range 20 {
		if !r.step(p) {
			r.t.Fatalf("the child ended: %v\n%s", p.err, p.noise.String())
		}
	}
	if r.head == 0 {
		r.t.Fatal("nothing was booked in five minutes")
	}
	r.stop(p)
}

// stop ends the child cleanly.
func (r *run) stop(p *process) {
	r.t.Helper()
	if err := p.in.Close(); err != nil {
		r.t.Errorf("end the child's input: %v", err)
	}
	closed := false
	for {
		s, ok := p.line()
		if !ok {
			break
		}
		closed = closed || s == "closed"
	}
	if p.err != nil || !closed {
		r.t.Fatalf("the child did not stop cleanly: %v\n%s", p.err, p.noise.String())
	}
}

// ended waits for the end of a child that was killed, and complains of one that
// ended by itself.
func (r *run) ended(p *process) {
	r.t.Helper()
	p.die()
	for {
		if _, ok := p.line(); !ok {
			break
		}
	}
	var exit *exec.ExitError
	if !errors.As(p.err, &exit) || exit.Exited() {
		r.t.Fatalf("after %s the child ended by itself: %v\n%s", r.last, p.err, p.noise.String())
	}
	r.kills++
}

// calm is how many undisturbed steps follow the last round: senders empty
// their queues, the newest minutes close, the slow pass comes by.
const calm = 160

// finish lets everything arrive and compares the book with the truth.
func (r *run) finish() {
	r.t.Helper()
	p := r.start()
	if !r.open(p) {
		r.t.Fatalf("the child did not start: %v\n%s", p.err, p.noise.String())
	}
	clear(r.cut[:])
	for range calm {
		if !r.step(p) {
			r.t.Fatalf("the child ended: %v\n%s", p.err, p.noise.String())
		}
	}
	for a, n := range r.acked {
		if n != r.world.scrapes() {
			r.t.Fatalf("agent %d has sent %d of %d scrapes", a, n, r.world.scrapes())
		}
	}
	r.stop(p)
	r.compare()
}

// compare opens the folder and compares what it holds with the truth.
func (r *run) compare() {
	t := r.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	book, err := ledger.Open(ledgerConfig(r.dir), log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := book.Close(); err != nil {
			t.Error(err)
		}
	}()
	broken := 0
	if head := book.Head(); head.Seq != r.head {
		t.Errorf("the book ends with batch %d, the last tick told of %d", head.Seq, r.head)
		broken++
	}
	r.link(book.Head().Seq, fmt.Sprintf("%x", book.Head().Hash))

	lost, twice, minutes := 0, 0, 0
	// The minutes in which sources appear, and those that may be open, are left out.
	from, to := sla.MinuteOfMillis(base)+1, sla.MinuteOfMillis(r.now())-2
	for _, l := range lines() {
		name := fmt.Sprintf("%s %v", l.objective.SLO, l.objective.Group)
		got := map[sla.Minute]sla.Figures{}
		err := book.Scan(l.objective.ID, math.MinInt32, math.MaxInt32, 0, func(m sla.Minute, f sla.Figures) error {
			if _, again := got[m]; again {
				t.Errorf("%s: minute %v is in the book twice", name, m.Time())
				twice++
			}
			got[m] = f
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		complaints := 0
		complain := func(format string, args ...any) {
			if complaints++; complaints <= 5 {
				t.Errorf("%s: "+format, append([]any{name}, args...)...)
			}
		}
		want := r.world.minutes(l, from, to)
		for m := from; m < to; m++ {
			minutes++
			f, ok := got[m]
			w := want[m]
			switch {
			case !ok:
				lost++
				complain("minute %v is not in the book", m.Time())
				continue
			case f.Total < w.total || f.GoodHigh < w.good:
				lost++
			case f.Total > w.total || f.GoodHigh > w.good:
				twice++
			}
			if f.Total != w.total || f.GoodHigh != w.good || f.GoodLow != w.good || len(f.Gaps) > 0 {
				complain("minute %v (%d of the run) has %d good (from %d) of %d micro-events and gaps %v; there were %d of %d", m.Time(), m-from, f.GoodHigh, f.GoodLow, f.Total, f.Gaps, w.good, w.total)
			}
			if f.Expected != w.expected || f.Counted != w.counted || f.Timed != w.counted {
				complain("minute %v (%d of the run): %d ms expected, %d counted, %d timed; want %d expected and %d seen", m.Time(), m-from, f.Expected, f.Counted, f.Timed, w.expected, w.counted)
			}
		}
		if complaints > 5 {
			t.Errorf("%s: and %d more", name, complaints-5)
		}
		all, err := book.Sum(l.objective.ID, from, to, 0)
		if err != nil {
			t.Fatal(err)
		}
		var good, total int64
		for _, w := range want {
			good, total = good+w.good, total+w.total
		}
		if all.Total != sla.NewInt128(total) || all.GoodHigh != sla.NewInt128(good) || all.Minutes != int64(to-from) {
			t.Errorf("%s: the sum of %d minutes is %v good of %v; there were %d of %d in %d", name, all.Minutes, all.GoodHigh, all.Total, good, total, to-from)
		}
	}
	if v, err := book.Verify(context.Background(), nil); err != nil || v.Broken != "" {
		t.Errorf("the chain: %s %v", v.Broken, err)
		broken++
	}

	// Each acknowledged sample is there, once, as it was sent.
	cfg := storeConfig(r.dir)
	cfg.Now = func() time.Time { return time.UnixMilli(r.now()).UTC() }
	db, err := store.Open(cfg, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	series := 0
	err = rawSeries(db, func(_, instance, code string, points []rawPoint) {
		series++
		for i, s := range sources {
			if s.instance != instance {
				continue
			}
			if len(points) != r.world.scrapes() {
				t.Errorf("raw samples of instance %s, code %s: %d, want %d", instance, code, len(points), r.world.scrapes())
				return
			}
			for n, p := range points {
				if p.t != s.at(n) || p.v != float64(r.world.values[i][n][indexOf(codes, code)]) {
					t.Errorf("raw sample %d of instance %s, code %s is %v at %d", n, instance, code, p.v, p.t)
					return
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if series != len(sources)*len(codes) {
		t.Errorf("%d raw series, want %d", series, len(sources)*len(codes))
	}
	chain := "chain intact"
	if broken > 0 {
		chain = "CHAIN BROKEN"
	}
	r.summary(fmt.Sprintf("%d minutes lost, %d booked twice, %s", lost, twice, chain), minutes, int(book.Head().Seq))
}

// summary prints the line that people look for, and how much was done.
func (r *run) summary(result string, minutes, batches int) {
	r.t.Logf("%d rounds: %s", r.rounds, result)
	r.t.Logf("seed %d: %d minutes of %d objectives (%.1f days), %d batches, %d requests acknowledged, %d ticks, %d kills",
		r.seed, minutes, len(lines()), float64(r.world.scrapes())*interval/86_400_000, batches, r.acks, r.ticks, r.kills)
}

// keep keeps the folder of a failed run for a look at it.
func (r *run) keep() {
	if dir := os.Getenv("SOAK_KEEP"); dir != "" && r.t.Failed() {
		if err := os.CopyFS(filepath.Join(dir, strconv.FormatUint(r.seed, 10)), os.DirFS(r.dir)); err != nil {
			r.t.Log(err)
		}
	}
}
