package soak

import (
	"fmt"
	"math/rand/v2"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"nines/pkg/sla"
)

const (
	job      = "shop"
	interval = 15_000 // milliseconds between two scrapes of a source
	agents   = 4
	// sealEvery is after how many ticks the child seals days.
	sealEvery = 240
)

// base is when the first scrape is: a whole minute.
const base = int64(1_750_000_020_000) / 60_000 * 60_000

// codes are the series of a source; the last one is of errors.
var codes = []string{"200", "204", "500"}

// source is a target with one counter of each code.
type source struct {
	agent    uint8
	metric   string
	instance string
	offset   int64 // of its scrapes behind those of the clock, milliseconds
	restarts bool  // it restarts now and then, and tells when
}

// sources are scraped by agents. Agent 3 has the ones that restart.
var sources = []source{
	{agent: 0, metric: "web_total", instance: "a", offset: 0},
	{agent: 0, metric: "web_total", instance: "b", offset: 4_001},
	{agent: 1, metric: "web_total", instance: "c", offset: 7_500},
	{agent: 2, metric: "web_total", instance: "d", offset: 14_999},
	{agent: 3, metric: "api_total", instance: "e", offset: 1_000, restarts: true},
	{agent: 3, metric: "api_total", instance: "f", offset: 9_000, restarts: true},
}

func objective(name, selector string, groups ...string) sla.Objective {
	o := sla.Objective{
		SLO: name, Name: "0", Service: "shop", GroupBy: groups,
		Window: sla.Window{Rolling: 28 * 24 * 3_600_000_000_000},
		SLI: sla.SLI{
			Good:  fmt.Sprintf(`sum(rate(%s,code!="500"}[5m]))`, selector),
			Total: fmt.Sprintf(`sum(rate(%s}[5m]))`, selector),
		},
	}
	o.Target, _ = sla.ParseTarget("0.99")
	o.ID = sla.ObjectiveID("", "", name, "0", nil, o.SLI)
	return o
}

// objectives are what the child evaluates: one of many sources, one of a
// single source, one of sources that restart, and one objective an instance.
func objectives() []sla.Objective {
	return []sla.Objective{
		objective("web", `web_total{job="shop"`),
		objective("one", `web_total{job="shop",instance="c"`),
		objective("api", `api_total{job="shop"`),
		objective("each", `web_total{job="shop"`, "instance"),
	}
}

// line is one objective of the book and the sources that feed it.
type line struct {
	objective sla.Objective
	feeds     func(source) bool
	restarts  bool
}

func lines() []line {
	all := objectives()
	out := []line{
		{objective: all[0], feeds: func(s source) bool { return s.metric == "web_total" }},
		{objective: all[1], feeds: func(s source) bool { return s.instance == "c" }},
		{objective: all[2], feeds: func(s source) bool { return s.metric == "api_total" }, restarts: true},
	}
	for _, s := range sources {
		if s.metric == "web_total" {
			out = append(out, line{
				objective: all[3].ForGroup(map[string]string{"instance": s.instance}),
				feeds:     func(t source) bool { return t.instance == s.instance },
			})
		}
	}
	return out
}

// events are what happened at a source between two of its scrapes.
type events struct {
	good, bad int64
	lost      bool // the time before a restart is in it
}

// world is the truth: what happened, scrape by scrape.
type world struct {
	rng    *rand.Rand
	values [][][]int64 // by source, scrape and code
	starts [][]int64   // by source and scrape, 0 unknown
	steps  [][]events  // by source and scrape: what the scrape added
	next   []int64     // by source: the start of its process
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1))}
	for range sources {
		w.values = append(w.values, nil)
		w.starts = append(w.starts, nil)
		w.steps = append(w.steps, nil)
		w.next = append(w.next, base-3_600_000)
	}
	return w
}

// scrapes is how many each source has.
func (w *world) scrapes() int { return len(w.values[0]) }

// at is when a source is scraped.
func (s source) at(scrape int) int64 { return base + int64(scrape)*interval + s.offset }

// scrape makes the next scrape of all sources.
func (w *world) scrape() {
	n := w.scrapes()
	for i, s := range sources {
		before := make([]int64, len(codes))
		var e events
		switch {
		case n == 0:
			for c := range codes {
				before[c] = w.rng.Int64N(1_000_000) // counted by nobody
			}
		case s.restarts && w.rng.IntN(40) == 0:
			w.next[i] = s.at(n) - 1 - w.rng.Int64N(interval-1)
			e.lost = true
		default:
			copy(before, w.values[i][n-1])
		}
		for c := range codes {
			var more int64
			switch w.rng.IntN(10) {
			case 0: // nothing happened
			case 1:
				more = w.rng.Int64N(5_000)
			default:
				more = w.rng.Int64N(50)
			}
			if c == len(codes)-1 && w.rng.IntN(3) > 0 {
				more = 0
			}
			before[c] += more
			if n == 0 {
				continue
			}
			if c == len(codes)-1 {
				e.bad += more
			} else {
				e.good += more
			}
		}
		start := int64(0)
		if s.restarts {
			start = w.next[i]
		}
		w.values[i] = append(w.values[i], before)
		w.starts[i] = append(w.starts[i], start)
		w.steps[i] = append(w.steps[i], e)
	}
}

// request is the body of a remote write of an agent's scrapes [from, to).
func (w *world) request(agent uint8, from, to int) ([]byte, error) {
	syms := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for i, s := range sources {
		if s.agent != agent {
			continue
		}
		for c, code := range codes {
			ts := writev2.TimeSeries{
				LabelsRefs: syms.SymbolizeLabels(labels.FromStrings("__name__", s.metric, "job", job, "instance", s.instance, "code", code), nil),
				Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER},
			}
			for n := from; n < to; n++ {
				ts.Samples = append(ts.Samples, writev2.Sample{Timestamp: s.at(n), Value: float64(w.values[i][n][c]), StartTimestamp: w.starts[i][n]})
			}
			req.Timeseries = append(req.Timeseries, ts)
		}
	}
	req.Symbols = syms.Symbols()
	body, err := req.Marshal()
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, body), nil
}

// truth is what the book has to hold of a minute.
type truth struct {
	good, total int64 // micro-events
	expected    int64 // source-milliseconds
	counted     int64 // those of them that are not lost before a restart (R13)
}

// minutes is the truth of an objective in [from, to). The first minute, in
// which sources appear, is left to the caller.
func (w *world) minutes(l line, from, to sla.Minute) map[sla.Minute]truth {
	out := map[sla.Minute]truth{}
	change := func(m sla.Minute, by truth) {
		if m >= from && m < to {
			t := out[m]
			out[m] = truth{t.good + by.good, t.total + by.total, t.expected + by.expected, t.counted + by.counted}
		}
	}
	for i, s := range sources {
		if !l.feeds(s) {
			continue
		}
		for m := from; m < to; m++ {
			change(m, truth{expected: sla.MinuteMillis, counted: sla.MinuteMillis})
		}
		for n, e := range w.steps[i] {
			change(sla.MinuteOfMillis(s.at(n)), truth{good: e.good * sla.Micro, total: (e.good + e.bad) * sla.Micro})
			if !e.lost {
				continue
			}
			for at, end := s.at(n-1), w.starts[i][n]; at < end; {
				m := sla.MinuteOfMillis(at)
				edge := min(end, (m + 1).Millis())
				change(m, truth{counted: at - edge})
				at = edge
			}
		}
	}
	return out
}
