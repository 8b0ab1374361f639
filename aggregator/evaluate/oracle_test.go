package evaluate_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"pgregory.net/rapid"

	"nines/aggregator/evaluate"
	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

// The oracle says what a counter that obeys the rules must book. It is written
// from docs/counting.md alone and in the slowest, plainest way: it sorts all
// samples of a series, looks at each pair of neighbours, and adds. It shares no
// code with the package that it judges, and keeps no state between calls.

var silent = slog.New(slog.DiscardHandler)

// A series is a counter of a source; code and pod are labels, empty for none. A
// replica is one of the pair of Prometheus servers "x" that sends it.
type series struct{ source, metric, code, pod, replica string }

func (k series) labels() labels.Labels {
	list := []string{model.MetricNameLabel, k.metric, "job", "shop", "instance", k.source, "cluster", "c"}
	if k.code != "" {
		list = append(list, "code", k.code)
	}
	if k.pod != "" {
		list = append(list, "pod", k.pod)
	}
	if k.replica != "" {
		list = append(list, "prometheus", "x", "prometheus_replica", k.replica)
	}
	return labels.FromStrings(list...)
}

func (k series) compare(o series) int {
	return cmp.Or(strings.Compare(k.source, o.source), strings.Compare(k.metric, o.metric), strings.Compare(k.code, o.code), strings.Compare(k.pod, o.pod), strings.Compare(k.replica, o.replica))
}

// A sample is one value of a series as a scrape saw it, in ms since the epoch.
type sample struct {
	series
	t, st int64
	v     float64
	stale bool
}

// micro is R3 for the values that tests use: whole thousandths of an event.
func (s sample) micro() int64 { return int64(math.Round(s.v*1000)) * 1000 }

// An indicator is an objective as the oracle understands it.
type indicator struct {
	def   sla.Objective
	good  func(series) bool // nil: by bad
	bad   func(series) bool
	total func(series) bool
}

func (i indicator) feeds(s series) bool {
	return i.total(s) || i.good != nil && i.good(s) || i.bad != nil && i.bad(s)
}

// add books an increment of one series into a figure.
func (i indicator) add(s series, inc int64, good, total *int64) {
	if i.total(s) {
		*total += inc
		if i.bad != nil {
			*good += inc
		}
	}
	if i.bad != nil && i.bad(s) {
		*good -= inc
	}
	if i.good != nil && i.good(s) {
		*good += inc
	}
}

func objective(slo, good, bad, total string, window time.Duration, absentBad bool) sla.Objective {
	o := sla.Objective{
		SLO: slo, Name: "0", Service: "shop", Window: sla.Window{Rolling: window},
		SLI: sla.SLI{Good: good, Bad: bad, Total: total}, AbsentBad: absentBad,
	}
	o.Target, _ = sla.ParseTarget("0.99")
	o.ID = sla.ObjectiveID("", "", slo, "0", nil, o.SLI)
	return o
}

// goodOf counts each code but 500 as good.
func goodOf(metric string, window time.Duration) indicator {
	return indicator{
		def:   objective("good-"+metric, "sum(rate("+metric+`{code!="500"}[5m]))`, "", "sum(rate("+metric+"[5m]))", window, false),
		good:  func(s series) bool { return s.metric == metric && s.code != "500" },
		total: func(s series) bool { return s.metric == metric },
	}
}

// badOf is the same indicator told by its bad events.
func badOf(metric string, window time.Duration) indicator {
	return indicator{
		def:   objective("bad-"+metric, "", "sum(rate("+metric+`{code="500"}[5m]))`, "sum(rate("+metric+"[5m]))", window, false),
		bad:   func(s series) bool { return s.metric == metric && s.code == "500" },
		total: func(s series) bool { return s.metric == metric },
	}
}

// absentOf is goodOf with nines.internal/absent: bad.
func absentOf(metric string, window time.Duration) indicator {
	i := goodOf(metric, window)
	i.def = objective("absent-"+metric, i.def.SLI.Good, "", i.def.SLI.Total, window, true)
	return i
}

// A verdict is what the oracle says of one minute.
type verdict struct {
	sla.Counts
	gaps       map[[2]sla.Minute]sla.Counts
	lowerBound bool
	// maybe is source time that may be counted and timed, or not: R13 takes the
	// time before an end out, but does not say whether a stale marker of a scrape
	// that failed is an end when the counter goes on behind it.
	maybe   int64
	sampled map[string]bool // sources with a sample in it
	// loose names what the rules leave open about this minute, if anything:
	// only the invariants are checked then.
	loose string
}

// truth is what the oracle says of one objective.
type truth struct {
	minutes map[sla.Minute]*verdict
	newest  int64            // of all samples, 0 without any
	firsts  map[string]int64 // source → first sample (R14)
	// lossy tells that a loose minute may also hold other events, not only at
	// another place.
	lossy bool
}

func (y *truth) at(m sla.Minute) *verdict {
	v := y.minutes[m]
	if v == nil {
		v = &verdict{gaps: map[[2]sla.Minute]sla.Counts{}, sampled: map[string]bool{}}
		y.minutes[m] = v
	}
	return v
}

// bound notes that what a scrape at t added over a gap is a lower bound.
func (y *truth) bound(t int64, is bool) {
	v := y.at(sla.MinuteOfMillis(t))
	v.lowerBound = v.lowerBound || is
}

// span adds [from, to) to a figure of each minute that it touches.
func (y *truth) span(from, to int64, add func(v *verdict, ms int64)) {
	for from < to {
		m := sla.MinuteOfMillis(from)
		end := min(to, (m + 1).Millis())
		add(y.at(m), end-from)
		from = end
	}
}

// loosen leaves the minutes from one time to another open.
func (y *truth) loosen(from, to int64, why string) {
	y.lossy = y.lossy || strings.HasPrefix(why, "R6") || strings.HasPrefix(why, "R19")
	for m := sla.MinuteOfMillis(from); m <= sla.MinuteOfMillis(to); m++ {
		y.at(m).loose = why
	}
}

// judge derives all minutes of an objective from all samples that arrived.
func judge(ind indicator, samples []sample) *truth {
	y := &truth{minutes: map[sla.Minute]*verdict{}, firsts: map[string]int64{}}
	bySource := map[string]map[series][]sample{}
	for _, s := range samples {
		if !ind.feeds(s.series) {
			continue
		}
		if bySource[s.source] == nil {
			bySource[s.source] = map[series][]sample{}
		}
		bySource[s.source][s.series] = append(bySource[s.source][s.series], s)
	}
	for source, all := range bySource {
		for name, list := range all {
			slices.SortStableFunc(list, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
			all[name] = slices.CompactFunc(list, func(a, b sample) bool { return a.t == b.t }) // R4: duplicates
		}
		y.source(ind, source, all)
	}
	return y
}

// source adds one target (R9).
func (y *truth) source(ind indicator, source string, all map[series][]sample) {
	names := slices.SortedFunc(maps.Keys(all), series.compare)

	// The scrapes of the source: each time at which any series has a value.
	at := map[int64][]sample{}
	var ends []int64
	for _, n := range names {
		for _, s := range all[n] {
			if s.stale {
				ends = append(ends, s.t)
			} else {
				at[s.t] = append(at[s.t], s)
			}
		}
	}
	scrapes := slices.Sorted(maps.Keys(at))
	if len(scrapes) == 0 {
		return
	}
	y.firsts[source] = scrapes[0]
	y.newest = max(y.newest, scrapes[len(scrapes)-1])
	for _, t := range scrapes {
		y.at(sla.MinuteOfMillis(t)).sampled[source] = true
	}
	usual := usual(scrapes)
	index := map[int64]int{}
	for i, t := range scrapes {
		index[t] = i
	}

	// R19: the source counts up to the time that all of its series reached. One
	// that is silent without a stale marker is waited for, for 5 minutes: then
	// it has ended, and the time of the waiting is left out.
	const patience = 5 * 60_000
	reach := scrapes[len(scrapes)-1]
	type span struct{ from, to int64 }
	var waited []span
	for _, n := range names {
		for k, s := range all[n] {
			next := reach
			if k+1 < len(all[n]) {
				next = all[n][k+1].t
			}
			last := k+1 == len(all[n])
			switch silent := next - s.t; {
			case s.stale || index[s.t] == len(scrapes)-1 || scrapes[index[s.t]+1] >= next && !last:
				// ended, or not silent: the source had no scrape without it
			case silent > patience || last:
				waited = append(waited, span{s.t, s.t + patience})
			default:
				y.loosen(s.t, next, "R19: a series was silent for less than 5 minutes")
			}
		}
	}
	cut := reach
	for _, w := range waited {
		if w.to >= reach {
			cut = min(cut, w.from) // still waited for
		}
	}
	left := func(t int64) bool { // is a sample at t left out?
		if t > cut {
			return true
		}
		for _, w := range waited {
			if w.from < t && t <= w.to {
				return true
			}
		}
		return false
	}
	for _, w := range waited { // the rules do not say with which scrape counting goes on
		if k, _ := slices.BinarySearch(scrapes, w.to); k < len(scrapes) {
			y.loosen(scrapes[k-1], scrapes[min(k+2, len(scrapes)-1)], "R19: a series was given up")
		}
	}

	// Events: each pair of neighbours in each series. What one scrape adds goes
	// into the gap that one of its series ends, all of it (R22).
	type ending struct {
		good, total int64
		gap         bool
		from        int64 // where the longest gap began
	}
	endings := map[int64]*ending{}
	unproven, proven, equal, unequal := map[int64]bool{}, map[int64]int64{}, map[int64]bool{}, map[int64]bool{}
	for _, n := range names {
		var prev *sample
		for k := range all[n] {
			c := &all[n][k]
			if c.stale {
				continue
			}
			p := prev
			prev = c
			i := index[c.t]
			var inc, from int64
			gap := false
			switch {
			case p == nil: // R6
				if i == 0 {
					continue // no scrape before: a baseline
				}
				before := scrapes[i-1]
				known := false
				for _, s := range at[before] {
					known = known || s.metric == c.metric
				}
				u := usual[i]
				switch {
				case c.st > before && c.st <= c.t:
				case known && u.hi == 0 && c.t-before > 30_000:
					y.loosen(c.t, c.t, "R6: 2.5 intervals, while the interval is not known")
				case known && u.lo != u.hi && 2*(c.t-before) > 5*u.lo && 2*(c.t-before) <= 5*u.hi:
					y.loosen(c.t, c.t, "R6: 2.5 intervals, where the median is between two")
				case known && (u.hi == 0 || 2*(c.t-before) <= 5*u.hi):
				default:
					continue
				}
				// A new series adds its value to the gap that its source had, or to
				// the time since its start.
				inc, from = c.micro(), before
				if c.st > before {
					from = c.st
				}
				gap = c.t-from > limit(usual[i])
			default: // R5
				inc = c.micro() - p.micro()
				switch {
				case c.st > p.t && c.st < c.t:
					inc = c.micro()
					proven[c.t] = max(proven[c.t], c.st)
				case inc < 0:
					inc = c.micro()
					unproven[c.t] = true
				}
				if i > 0 && p.t == scrapes[i-1] {
					if p.st != 0 && p.st == c.st {
						equal[c.t] = true
					} else {
						unequal[c.t] = true
					}
				}
				gap, from = c.t-p.t > limit(usual[i]), p.t // R22
				if c.st > p.t && c.st < c.t {              // a proven start ends the gap
					gap, from = c.t-c.st > limit(usual[i]), c.st
				}
				if all[n][k-1].stale {
					y.loosen(c.t, c.t, "R13, R22: is the time around a failed scrape a gap")
				}
				if i > 0 && p.t != scrapes[i-1] {
					y.loosen(p.t, c.t, "R22: what belongs to the gap if one series was away and its source was not")
				}
			}
			if left(c.t) {
				continue
			}
			e := endings[c.t]
			if e == nil {
				e = &ending{from: c.t}
				endings[c.t] = e
			}
			ind.add(c.series, inc, &e.good, &e.total)
			if gap {
				e.gap, e.from = true, min(e.from, from)
			}
		}
	}
	for t, e := range endings {
		v := y.at(sla.MinuteOfMillis(t))
		if !e.gap {
			v.GoodHigh += e.good
			v.GoodLow = v.GoodHigh
			v.Total += e.total
			continue
		}
		key := [2]sla.Minute{sla.MinuteOfMillis(e.from), sla.MinuteOfMillis(t)}
		v.gaps[key] = v.gaps[key].Add(sla.Counts{GoodLow: e.good, GoodHigh: e.good, Total: e.total})
	}

	// Time: each pair of neighbouring scrapes.
	for i := 1; i < len(scrapes); i++ {
		a, b := scrapes[i-1], scrapes[i]
		if left(b) {
			continue
		}
		from, to := a, b
		timed, counted := true, true
		switch long := b-a > limit(usual[i]); {
		case endings[b] == nil: // baselines alone: nobody knows what was before
			timed, counted = false, false
		case unproven[b]: // R13
			timed, counted = false, false
			y.bound(b, long)
		case proven[b] != 0: // R13: the process began there
			from = proven[b]
			timed = endings[b] == nil || !endings[b].gap
			counted = timed
			if !timed {
				y.loosen(from, b, "R12: is the time since a start proven if it is long")
			}
		case long: // R12
			timed, counted = false, equal[b] && !unequal[b]
			y.bound(b, !counted)
		}
		if undecided(usual[i], b-a) {
			y.loosen(a, b, "R10: the usual interval")
		}
		ended := slices.ContainsFunc(ends, func(t int64) bool { return a < t && t < b })
		y.span(from, to, func(v *verdict, ms int64) {
			if ended {
				v.maybe += ms
				return
			}
			if counted {
				v.Counted += ms
			}
			if timed {
				v.Timed += ms
			}
		})
	}
}

// An interval is R10's usual interval: between lo and hi. The rules do not say
// what the median of an even number is, nor whether the fourth gap is judged by
// the four. Where that gives another verdict on a gap, its minutes are loose.
type interval struct{ lo, hi int64 }

func median(gaps []int64) interval {
	gaps = slices.Sorted(slices.Values(gaps))
	return interval{gaps[(len(gaps)-1)/2], gaps[len(gaps)/2]}
}

// usual is the interval as it was known when each scrape came (R10): the median
// of the gaps within the UTC hour before, where it had four, else of the first
// four within this one.
func usual(scrapes []int64) []interval {
	const hour = 3_600_000
	within := map[int64][]int64{} // hour → gaps that have both ends in it
	for i := 1; i < len(scrapes); i++ {
		if h := scrapes[i] / hour; scrapes[i-1]/hour == h {
			within[h] = append(within[h], scrapes[i]-scrapes[i-1])
		}
	}
	seen := map[int64]int{}
	out := make([]interval, len(scrapes))
	for i, t := range scrapes {
		h := t / hour
		if i > 0 && scrapes[i-1]/hour == h {
			seen[h]++
		}
		switch {
		case len(within[h-1]) >= 4:
			if i == 0 || scrapes[i-1]/hour != h {
				out[i] = median(within[h-1])
			} else {
				out[i] = out[i-1]
			}
		case seen[h] == 4 && scrapes[i-1]/hour == h: // the fourth gap itself
			out[i] = interval{0, median(within[h][:4]).hi}
		case seen[h] > 4:
			out[i] = median(within[h][:4])
		}
	}
	return out
}

// limit is the longest distance that is timed at a usual interval (R11).
func limit(u interval) int64 { return max(120_000, u.hi*5/2) }

// undecided tells that the rules leave open whether the distance d is timed.
func undecided(u interval, d int64) bool { return d > max(120_000, u.lo*5/2) && d <= limit(u) }

// expected is R14 without removals.
func (y *truth) expected(m sla.Minute) (ms int64) {
	began := false
	for _, first := range y.firsts {
		if first < (m + 1).Millis() {
			began = true
			ms += min(60_000, (m+1).Millis()-first)
		}
	}
	if !began {
		return 60_000
	}
	return ms
}

// before tells that no source had begun by the end of m.
func (y *truth) before(m sla.Minute) bool {
	for _, first := range y.firsts {
		if first < (m + 1).Millis() {
			return false
		}
	}
	return true
}

// A rig is a real store, a real ledger and an evaluator between them, with a
// clock that the test moves.
type rig struct {
	t    failer
	dir  string
	now  time.Time
	inds []indicator
	db   *store.DB
	book *ledger.Book
	ev   *evaluate.Evaluator
	// sent is all that was stored, in the order of arrival.
	sent []sample
}

// failer is what testing.T and rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
	Logf(string, ...any)
}

func newRig(t failer, dir string, now int64, inds ...indicator) *rig {
	r := &rig{t: t, dir: dir, now: time.UnixMilli(now).UTC(), inds: inds}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	cfg := store.DefaultConfig()
	cfg.Dir = filepath.Join(r.dir, "metrics")
	cfg.Retention = 30 * 24 * time.Hour
	cfg.MinFree = 0
	cfg.Now = func() time.Time { return r.now }
	reg := prometheus.NewRegistry()
	var err error
	if r.db, err = store.Open(cfg, silent, reg); err != nil {
		r.t.Fatalf("open the store: %v", err)
	}
	if r.book, err = ledger.Open(ledger.Config{Dir: filepath.Join(r.dir, "ledger")}, silent); err != nil {
		r.t.Fatalf("open the ledger: %v", err)
	}
	r.ev = evaluate.New(evaluate.Config{
		Raw: r.db, Book: r.book, Retention: cfg.Retention, Term: r.book.Head().Term + 1, Started: r.now,
		Log: silent, Registry: reg,
	})
	r.db.SetHook(r.ev.Observe)
	var defs []sla.Objective
	for _, i := range r.inds {
		defs = append(defs, i.def)
	}
	if err := r.ev.SetObjectives(context.Background(), defs, r.now); err != nil {
		r.t.Fatalf("set objectives: %v", err)
	}
}

func (r *rig) close() {
	r.t.Helper()
	if err := errors.Join(r.db.Close(), r.book.Close()); err != nil {
		r.t.Errorf("close: %v", err)
	}
}

func (r *rig) restart() {
	r.t.Helper()
	r.close()
	r.open()
}

// tick moves the clock and ticks.
func (r *rig) tick(now int64) {
	r.t.Helper()
	if t := time.UnixMilli(now).UTC(); t.After(r.now) {
		r.now = t
	}
	if err := r.ev.Tick(context.Background(), r.now); err != nil {
		r.t.Fatalf("tick at %v: %v", r.now, err)
	}
}

// send stores one batch at the clock's time and returns what was refused.
func (r *rig) send(batch ...sample) error {
	r.t.Helper()
	app := r.db.Appender(context.Background())
	var refused error
	var taken []sample
	for _, s := range batch {
		v := s.v
		if s.stale {
			v = math.Float64frombits(value.StaleNaN)
		}
		if err := app.Append(s.labels(), s.st, s.t, v); err != nil {
			refused = err
			continue
		}
		taken = append(taken, s)
	}
	if err := app.Commit(); err != nil {
		if re := new(store.RefusedError); !errors.As(err, &re) {
			r.t.Fatalf("commit: %v", err)
		}
		refused = err
	}
	r.sent = append(r.sent, taken...)
	return refused
}

// minutes is the whole book of an objective.
func (r *rig) minutes(ind indicator) map[sla.Minute]sla.Figures {
	r.t.Helper()
	out := map[sla.Minute]sla.Figures{}
	err := r.book.Scan(ind.def.ID, sla.MinuteOfMillis(epoch)-1440, sla.MinuteOfMillis(epoch)+4*1440, 0, func(m sla.Minute, f sla.Figures) error {
		if _, twice := out[m]; twice {
			return fmt.Errorf("minute %d is in the book twice", m)
		}
		out[m] = f
		return nil
	})
	if err != nil {
		r.t.Fatalf("scan: %v", err)
	}
	return out
}

func (r *rig) state(ind indicator) evaluate.State {
	r.t.Helper()
	for _, s := range r.ev.States(r.now) {
		if s.Objective.ID == ind.def.ID {
			return s
		}
	}
	r.t.Fatalf("no state of %s", ind.def.SLO)
	return evaluate.State{}
}

func gapsOf(f sla.Figures) map[[2]sla.Minute]sla.Counts {
	out := map[[2]sla.Minute]sla.Counts{}
	for _, g := range f.Gaps {
		k := [2]sla.Minute{g.From, g.To}
		out[k] = out[k].Add(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
	}
	return out
}

func withoutZero(g map[[2]sla.Minute]sla.Counts) map[[2]sla.Minute]sla.Counts {
	maps.DeleteFunc(g, func(_ [2]sla.Minute, c sla.Counts) bool { return c.IsZero() })
	return g
}

// difference tells how a booked minute differs from the oracle's, "" if not.
func (y *truth) difference(ind indicator, m sla.Minute, f sla.Figures) string {
	want := y.minutes[m]
	if want == nil {
		want = &verdict{}
	}
	w := want.Counts
	w.Expected = y.expected(m)
	if f.Timed < 0 || f.Timed > f.Counted || f.Counted > f.Expected {
		return fmt.Sprintf("timed %d, counted %d, expected %d: each must be within the next", f.Timed, f.Counted, f.Expected)
	}
	if f.Expected != w.Expected {
		return fmt.Sprintf("expected %d ms, want %d", f.Expected, w.Expected)
	}
	if want.loose != "" || ind.def.AbsentBad && y.before(m) {
		return ""
	}
	absent := int64(0)
	if ind.def.AbsentBad && f.Flags&sla.FlagNotReceiving == 0 { // R18
		for source, first := range y.firsts {
			if first < m.Millis() && !want.sampled[source] {
				absent++
			}
		}
	}
	if got := f.Flags&sla.FlagAbsent != 0; got != (absent > 0) {
		return fmt.Sprintf("marked as absent: %v, but %d sources were", got, absent)
	}
	w.Total += absent * sla.Micro
	if d := f.Counted - w.Counted; max(d, -d) <= want.maybe {
		w.Counted = f.Counted
	}
	if d := f.Timed - w.Timed; max(d, -d) <= want.maybe {
		w.Timed = f.Timed
	}
	if f.Counts != w {
		return fmt.Sprintf("%+v gaps %v, want %+v gaps %v", f.Counts, f.Gaps, w, want.gaps)
	}
	if got, want := withoutZero(gapsOf(f)), withoutZero(maps.Clone(want.gaps)); !maps.Equal(got, want) {
		return fmt.Sprintf("gaps %v, want %v", got, want)
	}
	if got := f.Flags&sla.FlagLowerBound != 0; got != want.lowerBound && (got || len(withoutZero(maps.Clone(want.gaps))) > 0) {
		return fmt.Sprintf("lower bound %v, want %v", got, want.lowerBound)
	}
	return ""
}

// A track is one counter in one life of its series: it begins with 0 at from,
// counts the events, and is forgotten at to.
type track struct {
	series   series
	from, to int64
	events   []int64 // times, ascending
	last     int     // events that the last scrape of this life showed
	first    int     // events that a baseline hid
}

func (k *track) alive(t int64) bool { return k.from <= t && t < k.to }

func (k *track) count(t int64) int {
	n, _ := slices.BinarySearch(k.events, t+1)
	return n
}

// A scrape is what a sender saw at once. A shard is a part of its series.
type scrape struct {
	source string
	at     int64
	got    []sample
}

// A delivery is one batch at the time at which it reaches the store.
type delivery struct {
	at    int64
	batch []sample
}

// A shape is what rapid chooses, and shrinks; the seed fills in the rest.
type shape struct {
	Targets, Series      int
	Interval             int64 // ms
	Minutes              int
	Starts               bool // start time stamps are sent
	Markers              bool // stale markers are sent
	Lazy                 bool // a series appears with its first event
	Pods                 int  // lives of pods within one source
	Crashes              int  // of a target, at most
	Outages              int  // of a target's sender, at most: delivered afterwards
	Gaps                 int  // of a target's scrapes, at most: never seen
	Missed               int  // percent of scrapes
	Removed              bool // targets end before the world does
	Shuffled             bool // scrapes overtake each other
	Sharded              bool // half of the series travel apart
	Duplicates, Restarts int
	Thousandths          bool // counters of seconds, not of requests
	Tick                 int64
	Window               time.Duration
	Seed                 uint64
}

func drawShape(t *rapid.T) shape {
	yes := func(name string) bool { return rapid.Bool().Draw(t, name) }
	upTo := func(n int, name string) int { return rapid.IntRange(0, n).Draw(t, name) }
	return shape{
		Targets:     1 + upTo(3, "more targets"),
		Series:      1 + upTo(5, "more series"),
		Interval:    rapid.SampledFrom([]int64{15_000, 10_000, 30_000, 60_000, 60_000, 150_000, 300_000}).Draw(t, "interval"),
		Minutes:     rapid.SampledFrom([]int{25, 12, 50, 130}).Draw(t, "minutes"),
		Starts:      yes("starts"),
		Markers:     !yes("no markers"),
		Lazy:        yes("lazy"),
		Pods:        upTo(3, "pods"),
		Crashes:     upTo(3, "crashes"),
		Outages:     upTo(2, "outages"),
		Gaps:        upTo(2, "gaps"),
		Missed:      rapid.SampledFrom([]int{0, 0, 3, 15}).Draw(t, "missed"),
		Removed:     yes("removed"),
		Shuffled:    yes("shuffled"),
		Sharded:     yes("sharded"),
		Duplicates:  upTo(5, "duplicates"),
		Restarts:    upTo(2, "restarts"),
		Thousandths: yes("thousandths"),
		Tick:        rapid.SampledFrom([]int64{30_000, 10_000, 60_000}).Draw(t, "tick"),
		Window:      rapid.SampledFrom([]time.Duration{28 * 24 * time.Hour, 30 * time.Minute, 2 * time.Hour}).Draw(t, "window"),
		Seed:        rapid.Uint64().Draw(t, "seed"),
	}
}

// A world is all that happened, whoever saw it.
type world struct {
	shape
	begin, end int64
	tracks     []*track
	scrapes    []scrape
	deliveries []delivery
	restarts   []int64
	// hidden tells that the rules cannot see all that happened: a series that
	// appeared late, or a crash that no value and no start time stamp shows.
	hidden bool
}

const epoch = int64(1_790_000_000_000 / 3_600_000 * 3_600_000) // a whole hour

func newWorld(s shape) *world {
	r := rand.New(rand.NewPCG(s.Seed, 1))
	w := &world{shape: s}
	w.begin = epoch + r.Int64N(3_600_000)
	w.end = w.begin + int64(s.Minutes)*60_000
	for i := range s.Targets {
		w.target(r, fmt.Sprintf("t%d", i))
	}
	slices.SortStableFunc(w.scrapes, func(a, b scrape) int { return cmp.Compare(a.at, b.at) })
	for range s.Restarts {
		w.restarts = append(w.restarts, w.begin+r.Int64N(w.end-w.begin+600_000))
	}
	slices.Sort(w.restarts)
	return w
}

type stretch struct{ from, to int64 }

func (s stretch) holds(t int64) bool { return s.from <= t && t < s.to }

// stretches are up to n random ones of 10 s to a third of the world.
func (w *world) stretches(r *rand.Rand, n int) (out []stretch) {
	if n == 0 {
		return nil
	}
	for range r.IntN(n + 1) {
		from := w.begin + r.Int64N(w.end-w.begin)
		out = append(out, stretch{from, from + 10_000 + r.Int64N((w.end-w.begin)/3)})
	}
	return out
}

func within(list []stretch, t int64) bool {
	return slices.ContainsFunc(list, func(s stretch) bool { return s.holds(t) })
}

func (w *world) target(r *rand.Rand, name string) {
	// The lives of the process: the first began long before, each ends in a
	// crash, and the next comes up at once or after a while.
	var lives []stretch
	at := w.begin - r.Int64N(7_200_000)
	for range r.IntN(w.Crashes + 1) {
		crash := w.begin + r.Int64N(w.end-w.begin)
		if crash <= at+1 {
			continue
		}
		lives = append(lives, stretch{at, crash})
		at = crash + 1 + r.Int64N(20_000)
		if r.IntN(3) == 0 {
			at += r.Int64N(600_000)
		}
	}
	lives = append(lives, stretch{at, math.MaxInt64})

	codes := []string{"200", "500", "404", "503", "201", "302"}[:w.Series]
	var own []*track
	for n, life := range lives {
		pods := []string{""}
		for p := range w.Pods {
			pods = append(pods, fmt.Sprintf("p%d-%d", n, p))
		}
		for _, pod := range pods {
			span := life
			if pod != "" { // pods come and go within the life of their source
				to := min(life.to, w.end)
				if to <= max(life.from, w.begin) {
					continue
				}
				span.from = max(life.from, w.begin) + r.Int64N(to-max(life.from, w.begin))
				span.to = min(life.to, span.from+60_000+r.Int64N(1_200_000))
			}
			for _, code := range codes {
				k := &track{series: series{source: name, metric: "web_total", code: code, pod: pod}, from: span.from, to: span.to}
				mean := float64(2_000 + r.Int64N(40_000))
				if code == "500" {
					mean *= 4
				}
				for t := span.from + int64(r.ExpFloat64()*mean); t < min(span.to, w.end); t += 1 + int64(r.ExpFloat64()*mean) {
					k.events = append(k.events, t)
				}
				if w.Lazy {
					if len(k.events) == 0 {
						continue
					}
					k.from = k.events[0]
				}
				if w.Lazy || pod != "" {
					w.hidden = true
				}
				own = append(own, k)
			}
		}
	}
	w.tracks = append(w.tracks, own...)

	gaps := w.stretches(r, w.Gaps)
	begin, end := w.begin+r.Int64N(w.Interval), w.end
	if r.IntN(3) == 0 {
		begin += r.Int64N((w.end - w.begin) / 2) // a target that is found later
	}
	if w.Removed && r.IntN(2) == 0 {
		end = begin + r.Int64N(w.end-begin)
	}
	had := map[series]bool{} // series of the scrape before
	shown := map[series]*track{}
	for t := begin; ; t += w.Interval {
		t := t + r.Int64N(min(w.Interval/20, 400))
		ended := t >= end
		if !ended && within(gaps, t) {
			continue
		}
		failed := ended
		if !failed && r.IntN(100) < w.Missed {
			if r.IntN(2) == 0 {
				continue // nobody scraped
			}
			failed = true
		}
		s := scrape{source: name, at: t}
		has := map[series]bool{}
		for _, k := range own {
			if failed || !k.alive(t) {
				continue
			}
			n := k.count(t)
			x := sample{series: k.series, t: t, v: float64(n)}
			if w.Thousandths {
				x.v = float64(n) / 1000
			}
			if w.Starts {
				x.st = k.from
			}
			before := shown[k.series]
			if before == nil {
				k.first = n
			} else if before != k && n >= before.last && !w.Starts && before.last > 0 {
				w.hidden = true // the reset does not show
			}
			k.last = n
			shown[k.series] = k
			has[k.series] = true
			s.got = append(s.got, x)
		}
		if w.Markers {
			for _, n := range slices.SortedFunc(maps.Keys(had), series.compare) {
				if !has[n] {
					s.got = append(s.got, sample{series: n, t: t, stale: true})
				}
			}
		}
		had = has
		if len(s.got) > 0 {
			w.scrapes = append(w.scrapes, s)
		}
		if ended {
			break
		}
	}
}

// disturbed delivers them as the shape says.
func (w *world) disturbed() {
	w.deliveries = nil
	r := rand.New(rand.NewPCG(w.Seed, 2))
	shards := 1
	if w.Sharded {
		shards = 2
	}
	for target := range w.Targets {
		own := slices.DeleteFunc(slices.Clone(w.scrapes), func(s scrape) bool { return s.source != fmt.Sprintf("t%d", target) })
		for shard := range shards {
			outages := w.stretches(r, w.Outages)
			lag := r.Int64N(3_000)
			held := map[int64][]sample{}
			for _, s := range own {
				var part []sample
				for _, x := range s.got {
					if shards == 1 || int(x.code[2]+x.code[0])%2 == shard {
						part = append(part, x)
					}
				}
				if len(part) == 0 {
					continue
				}
				at := s.at + lag
				if w.Shuffled && r.IntN(8) == 0 {
					at += r.Int64N(900_000)
				}
				kept := false
				for _, o := range outages {
					if o.holds(at) {
						held[o.to] = append(held[o.to], part...)
						kept = true
						break
					}
				}
				if kept {
					continue
				}
				w.deliveries = append(w.deliveries, delivery{at, part})
				if r.IntN(100) < w.Duplicates {
					again := slices.DeleteFunc(slices.Clone(part), func(x sample) bool { return x.stale })
					w.deliveries = append(w.deliveries, delivery{at + r.Int64N(400_000), again})
				}
			}
			for _, at := range slices.Sorted(maps.Keys(held)) {
				batch := held[at]
				if r.IntN(2) == 0 { // the samples of one series one after the other
					slices.SortStableFunc(batch, func(a, b sample) int { return a.series.compare(b.series) })
				}
				for part := range slices.Chunk(batch, 1+r.IntN(300)) {
					w.deliveries = append(w.deliveries, delivery{at, part})
					at += 1 + r.Int64N(5_000)
				}
			}
		}
	}
	slices.SortStableFunc(w.deliveries, func(a, b delivery) int { return cmp.Compare(a.at, b.at) })
}

// run feeds the world to a rig, tick by tick, until all is closed. Then and
// at some random moments it calls check.
func (w *world) run(r *rig, restarts []int64, check func(final bool)) {
	random := rand.New(rand.NewPCG(w.Seed, 3))
	rest := w.deliveries
	last := w.end
	if len(rest) > 0 {
		last = max(last, rest[len(rest)-1].at)
	}
	for now := w.begin; now <= last+20*60_000; now += w.Tick {
		r.now = time.UnixMilli(now).UTC()
		var batch []sample
		for len(rest) > 0 && rest[0].at <= now {
			if batch = append(batch, rest[0].batch...); random.IntN(3) == 0 {
				r.mustSend(batch)
				batch = nil
			}
			rest = rest[1:]
		}
		r.mustSend(batch)
		stop := len(restarts) > 0 && restarts[0] <= now
		if stop && len(restarts)%2 == 0 {
			r.restart() // between samples and the tick that books what they change
		}
		r.tick(now)
		if stop {
			r.restart()
			restarts = restarts[1:]
		}
		if random.IntN(40) == 0 {
			check(false)
		}
	}
	check(true)
}

func (r *rig) mustSend(batch []sample) {
	r.t.Helper()
	if len(batch) == 0 {
		return
	}
	err := r.send(batch...)
	if re := new(store.RefusedError); errors.As(err, &re) && len(re.Counts) == 1 && re.Counts[store.Duplicate] > 0 {
		return // the store says so of what it got out of order twice
	}
	if err != nil {
		r.t.Fatalf("send: %v", err)
	}
}

// checkBook compares the whole book of an objective with the oracle.
func (r *rig) checkBook(ind indicator, begin int64) {
	r.t.Helper()
	book := r.minutes(ind)
	y := judge(ind, r.sent)
	first, closed := sla.MinuteOfMillis(begin), sla.MinuteOf(r.state(ind).Closed)
	if due := sla.MinuteOf(r.now.Add(-12 * time.Minute)); closed < due {
		r.t.Errorf("%s: closed until minute %d, want %d at least (R20)", ind.def.SLO, closed-first, due-first)
	}
	if len(book) != int(closed-first) {
		r.t.Errorf("%s: %d minutes are booked, want %d", ind.def.SLO, len(book), closed-first)
	}
	if good, all := total(book); !y.lossy && !ind.def.AbsentBad {
		if g, a := y.events(); good != g || all != a {
			r.t.Errorf("%s: %d good of %d are booked in all, want %d of %d", ind.def.SLO, good, all, g, a)
			for m, v := range y.minutes {
				if f := book[m]; v.loose != "" && (f.Total != v.Total || !maps.Equal(withoutZero(gapsOf(f)), withoutZero(maps.Clone(v.gaps)))) {
					r.t.Logf("%s: minute %d (%d) is loose (%s): %+v, want perhaps %+v gaps %v", ind.def.SLO, m-first, m, v.loose, f, v.Counts, v.gaps)
				}
			}
		}
	}
	wrong := 0
	for m := first; m < closed; m++ {
		f, booked := book[m]
		if !booked {
			r.t.Errorf("%s: minute %d is not booked", ind.def.SLO, m-first)
			continue
		}
		if d := y.difference(ind, m, f); d != "" {
			if wrong++; wrong < 6 {
				r.t.Errorf("%s: minute %d (%d): %s", ind.def.SLO, m-first, m, d)
			}
		}
	}
}

// checkWindows compares the windows of a state with the minutes in them, added
// one by one: booked ones as they are booked, open ones as the oracle has them.
func (r *rig) checkWindows(ind indicator) {
	r.t.Helper()
	st := r.state(ind)
	if st.Newest.IsZero() || st.Closed.IsZero() {
		return
	}
	book, y := r.minutes(ind), judge(ind, r.sent)
	closed := sla.MinuteOf(st.Closed)
	end := max(sla.MinuteOf(st.Newest), sla.MinuteOf(r.now.Add(-10*time.Minute))) + 1 // R23
	if got := st.Newest.UnixMilli(); got != y.newest {
		r.t.Errorf("%s: newest sample %d, want %d", ind.def.SLO, got, y.newest)
	}
	if ind.def.AbsentBad {
		end = max(end, closed)
	}
	for m := closed; m < end; m++ {
		if v := y.minutes[m]; v != nil && v.loose != "" {
			return
		}
	}
	sum := func(from, to sla.Minute) (want sla.Sum) {
		for m := from; m < to; m++ {
			f, booked := book[m]
			gaps := gapsOf(f)
			if v := y.minutes[m]; !booked && v != nil {
				f.GoodLow, f.GoodHigh, f.Total, gaps = v.GoodLow, v.GoodHigh, v.Total, v.gaps
			}
			want.Add(f.Counts)
			for k, g := range gaps {
				if k[0] >= from { // R22: a window that cuts a gap leaves it out
					want.Revise(g)
				}
			}
		}
		return want
	}
	check := func(name string, got sla.Sum, from, to sla.Minute) {
		want := sum(from, to)
		if got.Total != want.Total || got.GoodHigh != want.GoodHigh || got.GoodLow != want.GoodLow {
			r.t.Errorf("%s at %v: %s has %v good of %v, its minutes have %v of %v", ind.def.SLO, r.now, name, got.GoodHigh, got.Total, want.GoodHigh, want.Total)
		}
		if to <= closed && (got.Expected != want.Expected || got.Counted != want.Counted || got.Timed != want.Timed) {
			r.t.Errorf("%s at %v: %s has %v/%v/%v ms expected, counted, timed, its minutes have %v/%v/%v", ind.def.SLO, r.now, name,
				got.Expected, got.Counted, got.Timed, want.Expected, want.Counted, want.Timed)
		}
	}
	for _, d := range evaluate.AlertWindows() {
		check("the window of "+d.String(), st.Windows[d], end-sla.Minute(d/time.Minute), end)
	}
	from, to := sla.MinuteOf(st.PeriodStart), sla.MinuteOf(st.PeriodEnd)
	if d := ind.def.Window.Rolling; to-from != sla.Minute(d/time.Minute) || st.PeriodLength != d {
		r.t.Errorf("%s: the period is from %v to %v, want %v", ind.def.SLO, st.PeriodStart, st.PeriodEnd, d)
	}
	check("the period", st.Period, from, to)
	random := rand.New(rand.NewPCG(uint64(r.now.UnixMilli()), 4))
	for range 5 {
		a := sla.MinuteOfMillis(epoch) + sla.Minute(random.IntN(300)-60)
		b := a + sla.Minute(random.IntN(200))
		got, err := r.book.Sum(ind.def.ID, a, b, 0)
		if err != nil {
			r.t.Fatalf("sum: %v", err)
		}
		b = min(b, closed)
		check(fmt.Sprintf("the book's sum from %d to %d", a, b), got, a, max(a, b))
	}
}

// events is all that the oracle counts.
func (y *truth) events() (good, all int64) {
	for _, v := range y.minutes {
		good += v.GoodHigh
		all += v.Total
		for _, g := range v.gaps {
			good += g.GoodHigh
			all += g.Total
		}
	}
	return good, all
}

// total is all that is booked: minutes and gaps.
func total(book map[sla.Minute]sla.Figures) (good, all int64) {
	for _, f := range book {
		good += f.GoodHigh
		all += f.Total
		for _, g := range f.Gaps {
			good += g.GoodHigh
			all += g.Total
		}
	}
	return good, all
}

// checkTruth compares the sum of the book with the events that happened, which
// the oracle does not know: only the world does.
func (w *world) checkTruth(r *rig, ind indicator) {
	r.t.Helper()
	good, all := total(r.minutes(ind))
	var seen, happened int64
	scale := int64(sla.Micro)
	if w.Thousandths {
		scale /= 1000
	}
	for _, k := range w.tracks {
		if k.last > 0 || k.first > 0 {
			seen += int64(k.last-k.first) * scale
		}
		happened += int64(len(k.events)) * scale
	}
	if ind.def.AbsentBad {
		return // absent minutes are events too
	}
	if good < 0 || good > all || all > happened {
		r.t.Errorf("%s: %d good of %d booked, %d happened: each must be within the next (pain 5)", ind.def.SLO, good, all, happened)
	}
	if !w.hidden && all != seen {
		r.t.Errorf("%s: %d micro-events are booked, %d were seen", ind.def.SLO, all, seen)
	}
}

// oracleWorld runs a world as it is delivered and judges its book.
func oracleWorld(t failer, w *world, dir func() string) {
	w.disturbed()
	inds := []indicator{goodOf("web_total", w.Window), badOf("web_total", w.Window)}
	if w.Restarts == 0 && w.Tick < 60_000 { // what was absent while nobody received is not known (R18)
		inds = append(inds, absentOf("web_total", w.Window))
	}
	r := newRig(t, dir(), w.begin, inds...)
	defer func() { r.close() }()
	w.run(r, w.restarts, func(final bool) {
		for _, ind := range inds {
			r.checkWindows(ind)
			if final {
				r.checkBook(ind, w.begin)
				w.checkTruth(r, ind)
			}
		}
	})
}

func TestOracle(t *testing.T) {
	evaluate.SameWorlds(t, "20")
	rapid.Check(t, func(rt *rapid.T) { oracleWorld(rt, newWorld(drawShape(rt)), t.TempDir) })
}
