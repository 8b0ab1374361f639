package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"nines/pkg/openslo"
)

var checkCommand = command{
	name: "check", args: "PATH… [--server URL | --data DIR] [--format text|json]",
	summary: "find what is wrong with OpenSLO documents before it pages, or fails to page",
	help: `
Each PATH is a file or a folder of OpenSLO v1 documents. Every finding is a line
  path:line:column: error|warning [rule]: message
and the exit code is 1 if one of them is an error, else 0.

Options:
  --server URL     compare with the series of this Prometheus HTTP API, too: an
                   aggregator, a Prometheus or anything alike
  --data DIR       compare with the data folder of an aggregator, which is not
                   changed
  --format FORMAT  text (default) or json; docs/commands.md explains each field

With --server or --data there are further rules: no-series (nothing of that name
or with those labels, with what is near), few-scrapes (a range or a burn-rate
window holds fewer than four), retention (samples are kept for less than the
period), label-sets (good and total are of different targets), zero-denominator
(no event in a week), low-traffic (one failure pages), good-above-total.

Examples:
  nines-aggregator check my-slos/ more/checkout.yaml
  nines-aggregator check my-slos/ --server http://127.0.0.1:9190`,
	run: check,
}

func check(ctx context.Context, e env, args []string) error {
	fs := options("check")
	address := fs.String("server", "", "URL")
	data := fs.String("data", "", "DIR")
	format := textOrJSON(fs)
	paths, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return usagef("name at least one file or folder")
	}
	if *address != "" && *data != "" {
		return usagef("give --server or --data, not both")
	}
	set, err := loadSLOs(paths)
	if err != nil {
		return err
	}
	findings := set.Findings()
	if *address != "" || *data != "" {
		if findings, err = againstSeries(ctx, e.err, set, *address, *data); err != nil {
			return err
		}
	}
	out := checked{Objectives: len(openslo.Shown(set.Objectives())), Findings: []found{}}
	for _, f := range findings {
		out.Findings = append(out.Findings, found{f.Path, f.Line, f.Column, f.Severity, f.Rule, f.Message})
		if f.IsError() {
			out.Errors++
		}
		if !format.isJSON() {
			fmt.Fprintln(e.out, f)
		}
	}
	if format.isJSON() {
		err = printIndented(e.out, out)
	} else if out.Errors == 0 {
		_, err = fmt.Fprintf(e.out, "%d objectives, no errors\n", out.Objectives)
	}
	if err == nil && out.Errors > 0 {
		return errFound
	}
	return err
}

// checked is what check found, as JSON.
type checked struct {
	Objectives int     `json:"objectives"` // of the SLOs without errors
	Errors     int     `json:"errors"`
	Findings   []found `json:"findings"`
}

type found struct {
	Path     string `json:"path"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Severity string `json:"severity"`
	Rule     string `json:"rule"`
	Message  string `json:"message"`
}

// loadSLOs reads files and folders of OpenSLO documents as one set, so that
// references between them resolve.
func loadSLOs(paths []string) (*openslo.Set, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("read OpenSLO documents: %w", err)
		}
	}
	files, err := openslo.ReadPaths(paths...)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no .yaml or .yml file stands below %s: name the folder that holds your SLOs", strings.Join(paths, ", "))
	}
	return openslo.Load(files), nil
}

// soundSLOs reads documents that a command goes on with. What is found is told;
// an error among it ends the command.
func soundSLOs(e env, paths []string) (*openslo.Set, error) {
	set, err := loadSLOs(paths)
	if err != nil {
		return nil, err
	}
	for _, f := range set.Findings() {
		fmt.Fprintln(e.err, f)
		if f.IsError() {
			err = errFound
		}
	}
	return set, err
}
