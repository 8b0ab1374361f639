package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nines/pkg/openslo"
)

var convertCommand = command{
	name: "convert", args: "--to prometheus|openslo PATH…",
	summary: "turn OpenSLO into Prometheus rules, or Sloth's files into OpenSLO",
	help: `
  --to prometheus   OpenSLO documents (files or folders) to recording and alerting
                    rules for the four burn-rate tiers; promtool accepts them
  --to openslo      Sloth's prometheus/v1 files to OpenSLO v1
The result goes to standard output. What cannot be carried over is a warning
with its place on standard error.

Examples:
  nines-aggregator convert --to prometheus my-slos/ > rules.yaml
  nines-aggregator convert --to openslo sloth.yaml > my-slos/checkout.yaml`,
	run: convert,
}

func convert(_ context.Context, e env, args []string) error {
	fs := options("convert")
	to := fs.String("to", "", "")
	paths, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return usagef("name at least one file or folder")
	}
	switch *to {
	case "prometheus":
		return toPrometheus(e, paths)
	case "openslo":
		return toOpenSLO(e, paths)
	case "":
		return usagef("say what to make: --to prometheus or --to openslo")
	}
	return usagef("--to %q is neither prometheus nor openslo", *to)
}

func toPrometheus(e env, paths []string) error {
	set, err := soundSLOs(e, paths)
	if err != nil {
		return err
	}
	out, err := openslo.Prometheus(set.Objectives())
	if err != nil {
		return err
	}
	_, err = e.out.Write(out)
	return err
}

// toOpenSLO writes nothing where one document is wrong: half a set would look
// whole in the file that it is sent to.
func toOpenSLO(e env, paths []string) error {
	files, err := openslo.ReadPaths(paths...)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there is no .yaml or .yml file in %s", strings.Join(paths, ", "))
	}
	var result bytes.Buffer
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(files)) {
		out, findings, err := openslo.Import(path, files[path])
		for _, f := range findings {
			fmt.Fprintln(e.err, f)
		}
		errs = append(errs, err)
		result.Write(out)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = e.out.Write(result.Bytes())
	return err
}
