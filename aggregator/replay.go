package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nines/aggregator/evaluate"
	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

var replayCommand = command{
	name: "replay", args: "--slo PATH… --samples FILE|FOLDER | --source URL [--from T] [--to T] [--format json|table]",
	summary: "show what SLOs would have said about recorded samples",
	help: `
Feeds samples through the very same store, evaluator and ledger as serve, in a
temporary folder, and prints the figures of each objective at their end, and
when each burn-rate alert would have fired and resolved, to the minute.

Options:
  --slo PATH       file or folder of OpenSLO documents; may be repeated
  --samples PATH   OpenMetrics text in which every sample has a time stamp, or
                   the folder of a Prometheus TSDB, which is not changed
  --source URL     anything that speaks the Prometheus HTTP API
  --from T         begin here: RFC 3339 or seconds since 1970; with --source a
                   day before --to by default
  --to T           end before this; now by default with --source
  --format FORMAT  table (default) or json; docs/replay.md explains each field

Example of samples (seconds since 1970 behind each value; it ends with # EOF):
  # TYPE requests counter
  requests_total{job="shop",instance="a",code="200"} 10 1790000000
  requests_total{job="shop",instance="a",code="200"} 25 1790000015
  # EOF`,
	run: replay,
}

func replay(ctx context.Context, e env, args []string) (err error) {
	fs := options("replay")
	var slos list
	fs.Var(&slos, "slo", "PATH")
	path := fs.String("samples", "", "FILE|FOLDER")
	source := fs.String("source", "", "URL|FOLDER")
	fromText := fs.String("from", "", "T")
	toText := fs.String("to", "", "T")
	format := fs.String("format", "table", "table|json")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	from, err := moment("--from", *fromText)
	if err != nil {
		return err
	}
	to, err := moment("--to", *toText)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usagef("it takes no argument, got %q", rest[0])
	case len(slos) == 0 || (*path == "") == (*source == ""):
		return usagef("give --slo PATH and --samples FILE, or --source URL instead of --samples")
	case *format != "table" && *format != "json":
		return usagef("--format %q is neither table nor json", *format)
	case !from.IsZero() && !to.IsZero() && !from.Before(to):
		return usagef("--from %s is not before --to %s", *fromText, *toText)
	}
	set, err := soundSLOs(e, slos)
	if err != nil {
		return err
	}
	in, err := openRecording(ctx, cmp.Or(*path, *source), set.Objectives(), from, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	watch := newWatcher()
	var results []replayed
	err = feed(ctx, set.Objectives(), in, e.err, watch.look, func(p playback) error {
		for _, st := range p.evaluator.States(p.end) {
			results = append(results, replayed{st, watch.of(st.Objective.ID)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if *format == "json" {
		return printJSON(e.out, results)
	}
	return printTable(e.out, results)
}

// moment reads RFC 3339 or seconds since 1970; empty is zero.
func moment(option, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s > -1e11 && s < 1e11 {
		return time.UnixMilli(int64(s * 1000)).UTC(), nil
	}
	return time.Time{}, usagef("%s %q is neither RFC 3339, as 2026-10-01T00:00:00Z, nor seconds since 1970", option, text)
}

// rawRetention is how far back replay remembers a series, as serve does.
const rawRetention = 15 * 24 * time.Hour

// replayed is one objective at the end of the samples, with its alerts.
type replayed struct {
	evaluate.State
	alerts []firing
}

// firing is one time in which a tier or alert policy would have fired.
type firing struct {
	Tier     string     `json:"tier"`
	Severity string     `json:"severity"`
	Fired    time.Time  `json:"fired"`
	Resolved *time.Time `json:"resolved"` // null: still firing at the end

	own bool // it is an alert policy of the objective
}

func (f firing) name() string {
	if f.own {
		return "alert policy " + f.Tier
	}
	return "the " + f.Tier + " tier"
}

// playback is a recording at its end.
type playback struct {
	evaluator *evaluate.Evaluator
	book      *ledger.Book
	end       time.Time // the edge of the minute behind the last sample
}

// feed runs the samples through a store, an evaluator and a ledger of their
// own, with a clock that follows the samples. each, if set, is called after each
// minute, and done at the end of all.
func feed(ctx context.Context, objectives []sla.Objective, in *recording, progress io.Writer,
	each func(*evaluate.Evaluator, time.Time), done func(playback) error) (err error) {
	dir, err := os.MkdirTemp("", "nines-replay-*")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	closing := func(name string, close func() error) {
		if cerr := close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close the %s: %w", name, cerr))
		}
	}
	defer closing("temporary folder", func() error { return os.RemoveAll(dir) })
	log := slog.New(slog.DiscardHandler)
	reg := prometheus.NewRegistry()
	clock := in.first
	cfg := store.DefaultConfig()
	cfg.Dir, cfg.Retention, cfg.OutOfOrder, cfg.Bulk = filepath.Join(dir, "metrics"), rawRetention, time.Hour, true
	cfg.Now = func() time.Time { return clock }
	db, err := store.Open(cfg, log, reg)
	if err != nil {
		return err
	}
	defer closing("store", db.Close)
	book, err := ledger.Open(ledger.Config{Dir: filepath.Join(dir, "ledger")}, log)
	if err != nil {
		return err
	}
	defer closing("ledger", book.Close)
	ev := evaluate.New(evaluate.Config{
		Raw: db, Book: book, Query: db.Query, Retention: cfg.Retention, Term: 1,
		Started: in.first.Add(-time.Hour), Unchecked: true, Log: log, Registry: reg,
	})
	db.SetHook(ev.Observe)
	if err := ev.SetObjectives(ctx, objectives, in.first); err != nil {
		return err
	}

	handles := map[*column]*store.Handle{}
	count, begun, told := 0, time.Now(), time.Now()
	end := in.first
	for part, err := range in.parts(ctx) {
		if err != nil {
			return err
		}
		for minute := sla.MinuteOf(part.from); minute.Time().Before(part.to); minute++ {
			// One batch a minute of samples, then a tick.
			clock = (minute + 1).Time()
			app := db.Appender(ctx)
			for _, c := range part.columns {
				for len(c.samples) > 0 && c.samples[0].t < (minute+1).Millis() {
					s := &c.samples[0]
					h := handles[c.series]
					if h == nil {
						if h, err = db.Handle(c.labels); err != nil {
							return err
						}
						handles[c.series] = h
					}
					// A refused sample is told by Commit, with all others.
					if s.h != nil {
						_ = app.AppendHistogram(c.labels, s.st, s.t, nil, s.h)
					} else {
						_ = app.AppendTo(h, s.st, s.t, s.v)
					}
					c.samples = c.samples[1:]
					count++
				}
			}
			if err := app.Commit(); err != nil {
				return err
			}
			if err := ev.Tick(ctx, clock); err != nil {
				return err
			}
			end = clock
			if each != nil {
				each(ev, clock)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if now := time.Now(); now.Sub(told) >= 2*time.Second {
			told = now
			fmt.Fprintf(progress, "%s: %.1f M samples, %.0f k/s\n", clock.UTC().Format("2006-01-02 15:04"), float64(count)/1e6, float64(count)/now.Sub(begun).Seconds()/1e3)
		}
	}
	if count == 0 {
		return fmt.Errorf("%s holds no samples that an objective wants between %s and %s", in.name, in.first.UTC().Format(time.RFC3339), in.last.UTC().Format(time.RFC3339))
	}
	// Every minute that holds a sample closes, none after it.
	for _, wait := range []time.Duration{0, time.Minute} {
		if err := ev.Tick(ctx, end.Add(wait)); err != nil {
			return err
		}
	}
	return done(playback{ev, book, end})
}

// watcher notes when tiers fire and resolve.
type watcher struct {
	fired  map[sla.ID][]firing
	active map[sla.ID]int // tiers that fire
	since  map[string]time.Time
}

func newWatcher() *watcher {
	return &watcher{map[sla.ID][]firing{}, map[sla.ID]int{}, map[string]time.Time{}}
}

func (w *watcher) look(ev *evaluate.Evaluator, now time.Time) {
	for _, st := range ev.Burning(now, func(id sla.ID) bool { return w.active[id] > 0 }) {
		id := st.Objective.ID
		for _, t := range st.Objective.Alarms(st.PeriodLength) {
			open := -1
			for i, f := range w.fired[id] {
				if f.Tier == t.Name && f.Resolved == nil {
					open = i
				}
			}
			fires := t.Firing(st.Windows)
			key := id.String() + "/" + t.Name
			if !fires {
				delete(w.since, key)
			} else if _, ok := w.since[key]; !ok {
				w.since[key] = now
			}
			switch {
			case fires && open < 0 && now.Sub(w.since[key]) < t.After:
			case fires && open < 0:
				w.fired[id] = append(w.fired[id], firing{Tier: t.Name, Severity: t.Severity, Fired: now.UTC(), own: t.Own})
				w.active[id]++
			case !fires && open >= 0 && !st.Unseen:
				at := now.UTC()
				w.fired[id][open].Resolved = &at
				w.active[id]--
			}
		}
	}
}

func (w *watcher) of(id sla.ID) []firing {
	return append([]firing{}, w.fired[id]...) // never null in JSON
}

// result is one objective as replay prints it. Events are decimal numbers,
// ratios have 9 decimals and are null where they do not exist.
type result struct {
	ObjectiveID     sla.ID                     `json:"objective_id"`
	SLO             string                     `json:"slo"`
	Objective       string                     `json:"objective"`
	Target          sla.Target                 `json:"target"`
	Good            json.RawMessage            `json:"good"`
	Total           json.RawMessage            `json:"total"`
	Ratio           json.RawMessage            `json:"ratio"`
	Coverage        json.RawMessage            `json:"coverage"`
	TimedCoverage   json.RawMessage            `json:"timed_coverage"`
	Lower           json.RawMessage            `json:"lower"`
	Upper           json.RawMessage            `json:"upper"`
	BudgetRemaining json.RawMessage            `json:"budget_remaining"`
	Windows         map[string]json.RawMessage `json:"windows"` // burn rate by window
	Group           map[string]string          `json:"group,omitempty"`
	GoodLow         json.RawMessage            `json:"good_low"`
	Verdict         sla.Verdict                `json:"verdict"`
	Alerts          []firing                   `json:"alerts"`
}

func printJSON(w io.Writer, states []replayed) error {
	out := []result{}
	for _, s := range states {
		p, o := s.Period, s.Objective
		lower, upper := p.Bounds()
		r := result{
			ObjectiveID: o.ID, SLO: o.SLO, Objective: o.Name, Target: o.Target,
			Good: json.RawMessage(sla.Events(p.GoodHigh)), Total: json.RawMessage(sla.Events(p.Total)),
			Ratio: sla.JSON(p.Good()), Coverage: sla.JSON(p.Coverage()), TimedCoverage: sla.JSON(p.TimedCoverage()),
			Lower: sla.JSON(lower), Upper: sla.JSON(upper), BudgetRemaining: sla.JSON(p.Budget(o.Target).Remaining),
			Windows: map[string]json.RawMessage{}, Group: o.Group, GoodLow: json.RawMessage(sla.Events(p.GoodLow)),
			Verdict: p.Verdict(o.Target), Alerts: s.alerts,
		}
		for d, sum := range s.Windows {
			r.Windows[sla.WindowName(d)] = sla.JSON(sum.Burn(o.Target))
		}
		out = append(out, r)
	}
	return printIndented(w, out)
}

func printTable(w io.Writer, states []replayed) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SLO\tOBJECTIVE\tTARGET\tGOOD\tTOTAL\tRATIO\tCOVERAGE\tBUDGET LEFT\tBURN 1H\tIN WORDS")
	for _, s := range states {
		p, o := s.Period, s.Objective
		budget := p.Budget(o.Target)
		burn := s.Windows[time.Hour].Burn(o.Target)
		fmt.Fprintf(tw, "%s\t%s\t%s %%\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.SLO, o.Name, o.Target.Percent(),
			sla.Events(p.GoodHigh), sla.Events(p.Total), sla.Percent(p.Good(), 4), sla.Percent(p.Coverage(), 2),
			sla.Percent(budget.Remaining, 1), sla.FloorDecimal(burn, 2), sla.BurnWords(burn, budget.Remaining, s.PeriodLength))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, s := range states {
		for _, f := range s.alerts {
			until := "still at the end"
			if f.Resolved != nil {
				until = "until " + f.Resolved.Format("2006-01-02 15:04")
			}
			fmt.Fprintf(w, "%s %s: %s would have fired (%s) at %s, %s\n", s.Objective.SLO, s.Objective.Name, f.name(), f.Severity, f.Fired.Format("2006-01-02 15:04"), until)
		}
	}
	return nil
}
