package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nines/aggregator/server"
)

var suggestCommand = command{
	name: "suggest", args: "[--server URL | --data DIR] [--namespace NS]… [--since 14d] [--out DIR [--force]]",
	summary: "draft OpenSLO documents from the request, error and latency series that are there",
	help:    suggestHelp(),
	run:     suggest,
}

func suggestHelp() string {
	var b strings.Builder
	b.WriteString(`
Looks for series of requests and durations that are named as usual, and drafts
one objective of availability and one of latency for each service that they
know. Each target is what the past weeks support, rounded down to a usual step,
and a comment says why, what the budget is, and what the figure cannot see. The
drafts are a beginning: read them, change them, then check them.

Options:
  --server URL     the Prometheus HTTP API of an aggregator, a Prometheus or
                   anything alike; http://127.0.0.1:9190 by default;
                   https://USER:PASSWORD@HOST/ for one that asks for them
  --data DIR       the data folder of an aggregator, which is not changed
  --namespace NS   services of this namespace alone; may be repeated
  --since SPAN     how much of the past to look at: 14d by default, 1h to 92d
  --out DIR        one file for each service, instead of standard output
  --force          with --out: overwrite files that are there

At most ` + fmt.Sprint(maxServices) + ` services are drafted; how many more there are is told.

What is looked for, in this order; the first that knows a service drafts it:
`)
	for _, c := range conventions {
		what := c.requests
		if what == "" {
			what = c.histogram
		}
		if what == "" {
			what = c.gauge
		}
		fmt.Fprintf(&b, "  %-42s %s\n", c.name, what)
	}
	b.WriteString(`
Example: draft, read and change, check against the same series; then serve the
folder, and backfill its past
  nines-aggregator suggest --server http://prometheus:9090 --out my-slos
  nines-aggregator check my-slos/ --server http://prometheus:9090`)
	return b.String()
}

// maxServices bounds the services that are drafted: nobody reads more at once.
const maxServices = 200

func suggest(ctx context.Context, e env, args []string) (err error) {
	flags := options("suggest")
	address := flags.String("server", "http://127.0.0.1:9190", "URL")
	data := flags.String("data", "", "DIR")
	sinceText := flags.String("since", "14d", "SPAN")
	out := flags.String("out", "", "DIR")
	force := flags.Bool("force", false, "")
	var namespaces list
	flags.Var(&namespaces, "namespace", "NS")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	since, err := server.ParseSpan(*sinceText)
	switch {
	case len(rest) > 0:
		return usagef("it takes no argument, got %q", rest[0])
	case err != nil:
		return usagef("--since: %v", err)
	case since < time.Hour || since > 92*24*time.Hour:
		return usagef("--since %s is out of range: 1h to 92d", *sinceText)
	case *force && *out == "":
		return usagef("--force goes with --out DIR")
	}
	src, err := openSeries(ctx, *address, *data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	s := newSuggester(src, since, namespaces, e.err)
	if err := s.look(ctx); err != nil {
		return err
	}
	for _, note := range s.notes {
		fmt.Fprintln(e.err, note)
	}
	if len(s.order) == 0 {
		return s.nothing()
	}
	drafted := s.order[:min(len(s.order), maxServices)]
	drafts := write(drafted, s)
	if *out == "" {
		for i, d := range drafts {
			if i > 0 {
				d.text = "---\n" + d.text
			}
			if _, err := fmt.Fprint(e.out, d.text); err != nil {
				return err
			}
		}
	} else if err := writeDrafts(*out, drafts, *force); err != nil {
		return err
	}
	slos := 0
	for _, d := range drafted {
		slos += len(d.drafts)
	}
	fmt.Fprintf(e.err, "drafted %s of %s\n", countOf(slos, "SLO"), countOf(len(drafted), "service"))
	if rest := len(s.order) - len(drafted); rest > 0 {
		fmt.Fprintf(e.err, "%d more services were found, and left out: %d are drafted at once; --namespace takes those of one namespace\n", rest, maxServices)
	}
	if *out != "" {
		fmt.Fprintf(e.err, "they are in %s; read them, then: nines-aggregator check %s\n", *out, *out)
	}
	return nil
}

// draftFile is what one file holds.
type draftFile struct{ name, text string }

// writeDrafts writes a file for each service. Where one is there already and
// must stay, nothing is written at all.
func writeDrafts(dir string, drafts []draftFile, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder for drafts: %w", err)
	}
	if !force {
		for _, d := range drafts {
			path := filepath.Join(dir, d.name)
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%s is there already, and nothing was written: give another --out, or --force to overwrite", path)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("write a draft: %w", err)
			}
		}
	}
	for _, d := range drafts {
		flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
		if force {
			flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		}
		f, err := os.OpenFile(filepath.Join(dir, d.name), flags, 0o644)
		if err != nil {
			return fmt.Errorf("write a draft: %w", err)
		}
		_, err = f.WriteString(d.text)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write a draft: %w", err)
		}
	}
	return nil
}
