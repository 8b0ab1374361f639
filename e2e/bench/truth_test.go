//go:build e2e

package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	promvalue "github.com/prometheus/prometheus/model/value"

	"nines/e2e/harness"
	"nines/e2e/parts"
)

// truthSteps are the scrapes of the history: a little less than the window, so
// that all of it lies in the window of every side.
const truthSteps = int((costPeriod - 10*time.Minute) / costInterval)

// events are requests by outcome.
type events struct{ good, bad float64 }

func (e *events) add(o events)  { e.good, e.bad = e.good+o.good, e.bad+o.bad }
func (e events) total() float64 { return e.good + e.bad }
func (e events) ratio() float64 { return e.bad / e.total() }

// away is how far two countings are apart, in events.
func (e events) away(o events) float64 { return math.Abs(e.good-o.good) + math.Abs(e.bad-o.bad) }

type point struct {
	t int64
	v float64
}

// pod is a target with a counter of good and one of bad answers.
type pod struct {
	name      string
	value     events // of its counters
	pending   events // happened since its last sample
	seen      bool   // it was scraped
	born, end int    // steps
	good, bad []point
}

// scene is a history whose generator counts each event as it happens.
type scene struct {
	from time.Time
	pods []*pod
	// all that happened.
	all events
	// What no sample tells: from a start to the first sample of a target, from
	// the last sample to a restart or to the end. No coverage contains it.
	unseen events
	resets int
	missed int
}

// play makes the history of one service with two pods at a time: 12 h at 1,000
// requests a second with 0.1 % errors, then 12 h at 1 request a second with
// 10 % (sloth #241), pods that restart, pods that are replaced every few hours
// under new names, and scrapes that fail, in three cases for 40 minutes.
func play(from time.Time, random *rand.Rand) *scene {
	s := &scene{from: from}
	var live [2]*pod
	pods := 0
	failing := 0 // scrapes that fail from here on
	for n := range truthSteps {
		at := from.Add(time.Duration(n) * costInterval).UnixMilli()
		rate, failed := 1000.0, 0.001
		if n/int(12*time.Hour/costInterval)%2 == 1 {
			rate, failed = 1, 0.1
		}
		happen := func(p *pod, share float64) {
			if share <= 0 {
				return
			}
			total := math.Round(rate / float64(len(live)) * costInterval.Seconds() * share * (0.9 + 0.2*random.Float64()))
			e := events{bad: math.Round(total * failed * 2 * random.Float64())}
			e.good = total - e.bad
			p.value.add(e)
			p.pending.add(e)
			s.all.add(e)
		}
		lose := func(p *pod) {
			s.unseen.add(p.pending)
			p.pending = events{}
		}
		for i, p := range live {
			cut := random.Float64()
			switch {
			case p == nil || n == p.end:
				if p != nil {
					happen(p, cut)
					lose(p)
					p.good, p.bad = append(p.good, stale(at)), append(p.bad, stale(at))
				}
				pods++
				p = &pod{name: fmt.Sprintf("web-%d", pods), born: n, end: n + int((4+12*random.Float64())*float64(time.Hour/costInterval))}
				live[i] = p
				s.pods = append(s.pods, p)
				happen(p, 1-cut)
			// Far from its start, so that a counter which began again is lower
			// than it was: else no one could tell.
			case n > p.born+200 && random.IntN(1200) == 0:
				s.resets++
				happen(p, cut)
				lose(p)
				p.value = events{}
				happen(p, 1-cut)
			default:
				happen(p, 1)
			}
		}
		switch {
		case failing > 0:
			failing--
		case n%28_000 == 14_000:
			failing = int(40 * time.Minute / costInterval)
		case random.IntN(600) == 0:
			failing = 1 + random.IntN(2)
		}
		if failing > 0 && n > 0 && n < truthSteps-1 {
			s.missed++
			continue
		}
		for _, p := range live {
			p.good, p.bad = append(p.good, point{at, p.value.good}), append(p.bad, point{at, p.value.bad})
			if !p.seen {
				p.seen = true
				s.unseen.add(p.pending)
			}
			p.pending = events{}
		}
	}
	return s
}

// stale is the marker that a Prometheus writes when a target has gone.
func stale(at int64) point { return point{at, math.Float64frombits(promvalue.StaleNaN)} }

const truthService = "shop"

// series returns the history as series of a TSDB.
func (s *scene) series() (out []past) {
	for _, p := range s.pods {
		for code, points := range map[string][]point{"200": p.good, "500": p.bad} {
			next := 0
			out = append(out, past{podLabels(p.name, code), func(before int64, add func(int64, float64)) {
				for ; next < len(points) && points[next].t < before; next++ {
					add(points[next].t, points[next].v)
				}
			}})
		}
	}
	return out
}

func podLabels(name, code string) labels.Labels {
	return labels.FromStrings("__name__", "http_requests_total", "cluster", "bench", "code", code, "instance", name+":8080", "job", "bench", "service", truthService)
}

// text writes the history as OpenMetrics, which knows no stale markers.
func (s *scene) text(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	// Without a line of its type: for a counter the parser looks for a start
	// time stamp through all that follows, at each sample anew.
	for _, p := range s.pods {
		for code, points := range map[string][]point{"200": p.good, "500": p.bad} {
			// Every name but that of the metric itself is a plain label.
			_, name, _ := strings.Cut(podLabels(p.name, code).String(), ", ")
			name = "http_requests_total{" + strings.ReplaceAll(name, ", ", ",")
			for _, pt := range points {
				if !math.IsNaN(pt.v) {
					fmt.Fprintf(w, "%s %.0f %d\n", name, pt.v, pt.t/1000)
				}
			}
		}
	}
	w.WriteString("# EOF\n")
	return errors.Join(w.Flush(), f.Close())
}

// errorOfTheMonth compares the 30-day ratio of each side with what happened.
func errorOfTheMonth(t *testing.T) []row {
	t.Helper()
	lab := harness.New(t)
	p := writePolicy(t, lab, []string{truthService})
	from := time.Now().Add(-costPeriod - time.Hour).Truncate(12 * time.Hour)
	s := play(from, rand.New(rand.NewPCG(241, 332)))
	to := from.Add(time.Duration(truthSteps-1) * costInterval)
	blocks := lab.Dir("blocks")
	n, err := writeBlocks(blocks, from.UnixMilli(), to.UnixMilli()+1, s.series())
	if err != nil {
		t.Fatal(err)
	}
	lab.Say("%d samples of %d pods with %d resets, %d scrapes missed: %.0f events, %.0f of them bad, %.0f in time that no sample covers",
		n, len(s.pods), s.resets, s.missed, s.all.total(), s.all.bad, s.unseen.total())

	// The peer gets the history of the series that its rule reads from promtool,
	// as one who installs the rules today does.
	server := startPrometheus(t, lab, blocks)
	read, all := readBack(t, p.sloth)
	if len(read) == 0 {
		t.Fatal("no recording of Sloth is read over a range")
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: history\n  interval: 30s\n  rules:\n")
	for _, r := range read {
		text, err := json.Marshal(map[string]any{"record": r.Record, "expr": r.Expr, "labels": r.Labels})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&rules, "  - %s\n", text)
	}
	recorded := lab.Dir("recorded")
	if _, err := harness.Run(filepath.Join(part(t, lab, parts.Promtool), "promtool"), "tsdb", "create-blocks-from", "--max-block-duration=54h", "rules",
		"--url="+server.URL, "--start="+fmt.Sprint(from.Unix()), "--end="+fmt.Sprint(to.Unix()), "--eval-interval=30s",
		"--output-dir="+recorded, lab.Write("history.yaml", rules.String())); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if err := linkBlocks(recorded, server.Data); err != nil {
		t.Fatal(err)
	}
	server.Start()
	ask := func(expr string) float64 {
		t.Helper()
		v, err := query(server.URL, expr, to)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	var sloth float64
	for _, r := range all {
		if r.Record == "slo:sli_error:ratio_rate30d" {
			sloth = ask(r.Expr)
		}
	}
	const of = `http_requests_total{service="` + truthService + `"`
	increase := ask(`sum(increase(` + of + `,code=~"5.."}[30d])) / sum(increase(` + of + `}[30d]))`)
	server.Kill()

	path := lab.Write("samples.txt", "")
	if err := s.text(path); err != nil {
		t.Fatal(err)
	}
	out := timed(t, lab.Program("nines-aggregator"), "replay", "--slo", p.openslo, "--samples", path, "--format", "json")
	if out.err != nil {
		t.Fatal(out.err)
	}
	var answer []struct {
		Good, Total, Coverage json.Number
		Timed                 json.Number `json:"timed_coverage"`
	}
	if err := json.Unmarshal(out.stdout, &answer); err != nil || len(answer) != 1 {
		t.Fatalf("replay: %v in %.300s", err, out.stdout)
	}
	var ours events
	number := func(n json.Number) float64 {
		v, err := n.Float64()
		if err != nil {
			t.Errorf("replay: %v", err)
		}
		return v
	}
	ours.good = number(answer[0].Good)
	ours.bad = number(answer[0].Total) - ours.good
	covered := s.all
	covered.good -= s.unseen.good
	covered.bad -= s.unseen.bad

	truth := s.all.ratio()
	inEvents := func(ratio float64) string {
		return fmt.Sprintf("%.4f %%: %.4f points, %.0f events", 100*ratio, 100*math.Abs(ratio-truth), math.Abs(ratio-truth)*s.all.total())
	}
	figure := fmt.Sprintf("error of the 30-day error ratio, truth %.4f %% of %.0f events", 100*truth, s.all.total())
	lab.Say("ours: good %.0f bad %.0f, covered %.0f and %.0f", ours.good, ours.bad, covered.good, covered.bad)
	return []row{
		{
			figure: "events counted wrong outside of the time that coverage calls unseen",
			ours:   fmt.Sprintf("%.0f (%.0f lie in unseen time; coverage %s)", ours.away(covered), s.unseen.total(), answer[0].Coverage),
			goal:   "0",
		},
		{figure: figure, ours: inEvents(ours.ratio()), peer: "Prometheus, Sloth's rules: " + inEvents(sloth)},
		{figure: figure, ours: inEvents(ours.ratio()), peer: "Prometheus, increase over 30d: " + inEvents(increase)},
	}
}
