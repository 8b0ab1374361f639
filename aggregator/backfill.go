package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"nines/aggregator/evaluate"
	"nines/aggregator/ledger"
	"nines/aggregator/server"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

var backfillCommand = command{
	name: "backfill", args: "--slo PATH… --source URL|FOLDER|FILE [--from T] [--to T] [--server URL | --data DIR] [--format text|json]",
	summary: "book history out of another store, so that a new SLO has its month at once",
	help: `
Reads the samples that SLOs want out of a Prometheus (or anything that speaks its
API), counts them by the very same rules as live ones, and books the minutes, each
marked as read back. What is booked already stays as it is, so that the command
may be repeated; minutes in front of an objective's first sample are left out.

Options:
  --slo PATH     file or folder of the OpenSLO documents that the aggregator
                 evaluates; may be repeated
  --source PATH  the Prometheus HTTP API of a server, https://USER@HOST/ for one
                 that asks for a password; the folder of a Prometheus TSDB, which
                 is not changed; or a file of OpenMetrics text with time stamps
  --from T       begin here: RFC 3339 or seconds since 1970; 31 days before --to
                 by default
  --to T         end before this; now by default
  --server URL   a running aggregator, http://127.0.0.1:9190 by default: it books
  --data DIR     the data folder of one that does not run: time in which it stood
                 still is filled too
  --format FORMAT  text (default) or json; docs/commands.md explains each field

Example: the last month of what Prometheus knows
  nines-aggregator backfill --slo my-slos/ --source http://prometheus:9090`,
	run: backfill,
}

const (
	// backfillDays is how much is read back where --from does not say.
	backfillDays = 31 * 24 * time.Hour
	// backfillAtOnce is how many minutes go into one batch: ten days.
	backfillAtOnce = 10 * 1440
	// beforeFrom is read in front of --from, so that its first minute knows the
	// usual interval of its sources (R10) and their values before it (R4).
	beforeFrom = 2 * time.Hour
)

func backfill(ctx context.Context, e env, args []string) (err error) {
	fs := options("backfill")
	var slos list
	fs.Var(&slos, "slo", "PATH")
	source := fs.String("source", "", "URL|FOLDER|FILE")
	fromText := fs.String("from", "", "T")
	toText := fs.String("to", "", "T")
	address := fs.String("server", "http://127.0.0.1:9190", "URL")
	data := fs.String("data", "", "DIR")
	format := textOrJSON(fs)
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	from, err := moment("--from", *fromText)
	if err != nil {
		return err
	}
	to, err := moment("--to", *toText)
	now := time.Now()
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usagef("it takes no argument, got %q", rest[0])
	case len(slos) == 0 || *source == "":
		return usagef("give --slo PATH and --source URL, FOLDER or FILE")
	case to.IsZero() || to.After(now):
		to = now
	}
	to = to.Truncate(time.Minute)
	if from.IsZero() {
		from = to.Add(-backfillDays)
	}
	if from = from.Truncate(time.Minute); !from.Before(to) {
		return usagef("--from %s is not before --to %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	set, err := soundSLOs(e, slos)
	if err != nil {
		return err
	}

	// Where it is booked is asked first: counting a month takes a while.
	var into filler = remoteFiller{strings.TrimSuffix(*address, "/")}
	if *data != "" {
		book, failed := ledger.Open(ledger.Config{Dir: filepath.Join(*data, "ledger")}, slog.New(slog.DiscardHandler))
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, book.Close()) }()
		into = localFiller{book}
	}
	if err := into.ready(ctx, openslo.Shown(set.Objectives())); err != nil {
		return err
	}
	in, err := openRecording(ctx, *source, set.Objectives(), from.Add(-beforeFrom).Truncate(time.Hour), to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	var results []backfilled
	err = feed(ctx, set.Objectives(), in, e.err, nil, func(p playback) error {
		// The last minutes close, however rarely their sources are scraped (R20).
		if err := p.evaluator.Tick(ctx, p.end.Add(15*time.Minute)); err != nil {
			return err
		}
		results, err = transfer(ctx, p.book, into, in, from, to)
		return err
	})
	if err != nil {
		return err
	}
	if err := into.done(ctx); err != nil {
		return err
	}
	if format.isJSON() {
		return printIndented(e.out, results)
	}
	return printBackfilled(e.out, results)
}

// backfilled is what became of one objective's history.
type backfilled struct {
	ObjectiveID sla.ID     `json:"objective_id"`
	SLO         string     `json:"slo"`
	Objective   string     `json:"objective"`
	Group       string     `json:"group,omitempty"`
	From        *time.Time `json:"from"` // the first minute that was found; null: no sample
	evaluate.Filled
}

// transfer hands the minutes that a playback booked in [from, to) over.
func transfer(ctx context.Context, counted *ledger.Book, into filler, in *recording, from, to time.Time) ([]backfilled, error) {
	defs, err := counted.Objectives(0)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(defs, func(a, b sla.Objective) int {
		return strings.Compare(strings.Join([]string{a.SLO, a.Name, a.Title}, "\x00"), strings.Join([]string{b.SLO, b.Name, b.Title}, "\x00"))
	})
	end := sla.MinuteOf(to)
	if newest, ok := in.newest(); ok {
		end = min(end, sla.MinuteOf(newest)+1) // the source ends there: later minutes may be read elsewhere
	}
	out := []backfilled{}
	for _, def := range defs {
		r := backfilled{ObjectiveID: def.ID, SLO: def.SLO, Objective: def.Name, Group: def.GroupName()}
		h := evaluate.History{Objective: def.ID, Group: def.Group, Other: def.Other, Reason: "read back from " + in.name}
		hand := func() error {
			filled, err := into.fill(ctx, def, h)
			r.Booked, r.Already, r.Early = r.Booked+filled.Booked, r.Already+filled.Already, r.Early+filled.Early
			h.Minutes = h.Minutes[:0]
			return err
		}
		err := counted.Scan(def.ID, sla.MinuteOf(from), end, 0, func(m sla.Minute, f sla.Figures) error {
			if r.From == nil {
				if f.Counted == 0 {
					return nil // before its first sample: nobody can tell whether it was there
				}
				begin := m.Time()
				r.From = &begin
			}
			h.Minutes = append(h.Minutes, evaluate.HistoryMinute{Minute: m, Figures: f})
			if len(h.Minutes) < backfillAtOnce {
				return nil
			}
			return hand()
		})
		if err == nil && len(h.Minutes) > 0 {
			err = hand()
		}
		if err != nil {
			return nil, fmt.Errorf("book the history of SLO %s: %w", def.SLO, err)
		}
		if !def.Inner { // what it feeds is told
			out = append(out, r)
		}
	}
	return out, nil
}

// filler is where history is booked.
type filler interface {
	// ready fails where it cannot be booked, before anything is read.
	ready(ctx context.Context, defs []sla.Objective) error
	fill(ctx context.Context, def sla.Objective, h evaluate.History) (evaluate.Filled, error)
	done(ctx context.Context) error
}

// localFiller books in the folder of an aggregator that does not run.
type localFiller struct{ book *ledger.Book }

func (l localFiller) ready(context.Context, []sla.Objective) error { return nil }

func (l localFiller) fill(_ context.Context, def sla.Objective, h evaluate.History) (evaluate.Filled, error) {
	return evaluate.Backfill(l.book, time.Now(), def, h)
}

// done packs the days that are over: the aggregator's start reads sums then.
func (l localFiller) done(ctx context.Context) error {
	_, err := l.book.Seal(ctx, time.Now())
	return err
}

// remoteFiller lets a running aggregator book.
type remoteFiller struct{ server string }

func (r remoteFiller) ready(ctx context.Context, defs []sla.Objective) error {
	type objective struct {
		ID sla.ID `json:"objective_id"`
	}
	var answer struct{ Objectives []objective }
	if err := r.ask(ctx, http.MethodGet, "/api/nines/v1/objectives", nil, &answer); err != nil {
		return err
	}
	for _, d := range defs {
		if len(d.GroupBy) > 0 {
			continue // its members are known when they are found
		}
		if !slices.ContainsFunc(answer.Objectives, func(o objective) bool { return o.ID == d.ID }) {
			return fmt.Errorf("%s does not evaluate objective %s of SLO %s as it stands in these documents: put them into its folder (serve --slos) and wait until it has read them", r.server, d.Name, d.SLO)
		}
	}
	return nil
}

func (r remoteFiller) fill(ctx context.Context, _ sla.Objective, h evaluate.History) (filled evaluate.Filled, err error) {
	body, err := json.Marshal(server.NewHistory(h))
	if err != nil {
		return filled, err
	}
	return filled, r.ask(ctx, http.MethodPost, "/api/nines/v1/ledger/backfill", body, &filled)
}

func (r remoteFiller) done(context.Context) error { return nil }

func printBackfilled(w io.Writer, results []backfilled) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SLO\tOBJECTIVE\tGROUP\tSAMPLES FROM\tMINUTES BOOKED\tBOOKED BEFORE\tLEFT TO THE AGGREGATOR")
	total := 0
	for _, r := range results {
		from := "none"
		if r.From != nil {
			from = r.From.Format("2006-01-02 15:04")
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%d\t%d\n", r.SLO, r.Objective, r.Group, from, r.Booked, r.Already, r.Early)
		total += r.Booked
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d minutes are booked, marked as read back\n", total)
	return err
}

// ask sends a request to the aggregator and decodes its answer.
func (r remoteFiller) ask(ctx context.Context, method, path string, body []byte, into any) error {
	answer, err := remoteBook(r).send(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	return decodeAnswer(answer, into)
}
