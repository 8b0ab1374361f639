package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"nines/aggregator/evaluate"
	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

var replayCommand = command{
	name: "replay", args: "--slo PATH --samples FILE [--format json|table]",
	summary: "show what SLOs would have said about recorded samples",
	help: `
Feeds samples through the very same store, evaluator and ledger as serve, in a
temporary folder, and prints the figures of each objective at their end.

Options:
  --slo PATH       file or folder of OpenSLO documents; may be repeated
  --samples FILE   OpenMetrics text in which every sample has a time stamp
  --format FORMAT  table (default) or json

Example of samples (seconds since 1970 behind each value; it ends with # EOF):
  # TYPE requests counter
  requests_total{job="shop",instance="a",code="200"} 10 1790000000
  requests_total{job="shop",instance="a",code="200"} 25 1790000015
  # EOF`,
	run: replay,
}

// maxSamples bounds the file that replay reads: it is sorted in memory.
const maxSamples = 1 << 30

func replay(ctx context.Context, e env, args []string) (err error) {
	fs := options("replay")
	var slos list
	fs.Var(&slos, "slo", "")
	file := fs.String("samples", "", "")
	format := fs.String("format", "table", "")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usagef("it takes no argument, got %q", rest[0])
	case len(slos) == 0 || *file == "":
		return usagef("give --slo PATH and --samples FILE")
	case *format != "table" && *format != "json":
		return usagef("--format %q is neither table nor json", *format)
	}
	set, err := loadSLOs(slos)
	if err != nil {
		return err
	}
	for _, f := range set.Findings() {
		fmt.Fprintln(e.err, f)
		if f.IsError() {
			return errFound
		}
	}
	samples, err := readSamples(*file)
	if err != nil {
		return err
	}
	states, err := feed(ctx, set.Objectives(), samples)
	if err != nil {
		return err
	}
	if *format == "json" {
		return printJSON(e.out, states)
	}
	return printTable(e.out, states)
}

type sample struct {
	labels labels.Labels
	st, t  int64
	v      float64
}

// readSamples reads OpenMetrics text and returns its samples in the order of
// time.
func readSamples(path string) ([]sample, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the samples: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSamples+1))
	if err != nil {
		return nil, fmt.Errorf("read the samples: %w", err)
	}
	if len(data) > maxSamples {
		return nil, fmt.Errorf("%s is larger than 1 GiB: split it by time", path)
	}
	p := textparse.NewOpenMetricsParser(data, labels.NewSymbolTable())
	var out []sample
	for {
		kind, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s, behind sample %d: %w (the format is OpenMetrics text; it ends with # EOF)", path, len(out), err)
		}
		if kind != textparse.EntrySeries {
			continue
		}
		_, ts, v := p.Series()
		var ls labels.Labels
		p.Labels(&ls)
		if ts == nil {
			return nil, fmt.Errorf("%s: %s has no time stamp: write seconds since 1970 behind its value", path, ls)
		}
		out = append(out, sample{ls, p.StartTimestamp(), *ts, v})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no samples", path)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].t < out[j].t })
	return out, nil
}

// feed runs the samples through a store, an evaluator and a ledger of their
// own, with a clock that follows the samples.
func feed(ctx context.Context, objectives []sla.Objective, samples []sample) (states []evaluate.State, err error) {
	dir, err := os.MkdirTemp("", "nines-replay-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	closing := func(name string, close func() error) {
		if cerr := close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close the %s: %w", name, cerr))
		}
	}
	defer closing("temporary folder", func() error { return os.RemoveAll(dir) })
	log := slog.New(slog.DiscardHandler)
	reg := prometheus.NewRegistry()
	first, last := time.UnixMilli(samples[0].t), time.UnixMilli(samples[len(samples)-1].t)
	cfg := store.DefaultConfig()
	cfg.Dir, cfg.Retention, cfg.OutOfOrder = filepath.Join(dir, "metrics"), last.Sub(first)+48*time.Hour, time.Hour
	db, err := store.Open(cfg, log, reg)
	if err != nil {
		return nil, err
	}
	defer closing("store", db.Close)
	book, err := ledger.Open(ledger.Config{Dir: filepath.Join(dir, "ledger")}, log)
	if err != nil {
		return nil, err
	}
	defer closing("ledger", book.Close)
	ev := evaluate.New(evaluate.Config{
		Raw: db, Book: book, Retention: last.Sub(first) + time.Hour, Term: 1,
		Started: first.Add(-time.Hour), Log: log, Registry: reg,
	})
	db.SetHook(ev.Observe)
	if err := ev.SetObjectives(ctx, objectives, first); err != nil {
		return nil, err
	}
	for i := 0; i < len(samples); {
		// One batch a minute of samples, then a tick, as in serve.
		minute := sla.MinuteOfMillis(samples[i].t)
		app := db.Appender(ctx)
		for ; i < len(samples) && sla.MinuteOfMillis(samples[i].t) == minute; i++ {
			s := samples[i]
			// A refused sample is told by Commit, with all others.
			_ = app.Append(s.labels, s.st, s.t, s.v)
		}
		if err := app.Commit(); err != nil {
			return nil, err
		}
		if err := ev.Tick(ctx, (minute + 1).Time()); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	// Every minute that holds a sample closes, none after it.
	end := (sla.MinuteOf(last) + 1).Time()
	for _, wait := range []time.Duration{0, time.Minute} {
		if err := ev.Tick(ctx, end.Add(wait)); err != nil {
			return nil, err
		}
	}
	return ev.States(end), nil
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
}

func printJSON(w io.Writer, states []evaluate.State) error {
	out := []result{}
	for _, s := range states {
		p, o := s.Period, s.Objective
		lower, upper := p.Bounds()
		r := result{
			ObjectiveID: o.ID, SLO: o.SLO, Objective: o.Name, Target: o.Target,
			Good: json.RawMessage(sla.Events(p.GoodHigh)), Total: json.RawMessage(sla.Events(p.Total)),
			Ratio: sla.JSON(p.Good()), Coverage: sla.JSON(p.Coverage()), TimedCoverage: sla.JSON(p.TimedCoverage()),
			Lower: sla.JSON(lower), Upper: sla.JSON(upper), BudgetRemaining: sla.JSON(p.Budget(o.Target).Remaining),
			Windows: map[string]json.RawMessage{},
		}
		for d, sum := range s.Windows {
			r.Windows[sla.WindowName(d)] = sla.JSON(sum.Burn(o.Target))
		}
		out = append(out, r)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func printTable(w io.Writer, states []evaluate.State) error {
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
	return tw.Flush()
}
