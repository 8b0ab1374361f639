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
	name: "convert", args: "--to prometheus|openslo [--with sloth,pyrra] PATH…",
	summary: "turn OpenSLO into Prometheus rules, or Sloth's and Pyrra's files into OpenSLO",
	help: `
  --to prometheus   OpenSLO documents (files or folders) to recording and alerting
                    rules for the four burn-rate tiers; promtool accepts them
  --to openslo      Sloth's prometheus/v1 files and PrometheusServiceLevel, and
                    Pyrra's ServiceLevelObjective, to OpenSLO v1: files or folders,
                    in any mix, and lists as kubectl get -o yaml prints them
  --with TOOL       with --to prometheus: record beside them what the Grafana
                    dashboards of sloth or pyrra read, so that these go on working;
                    may be repeated, or list both. The ratio over the whole period
                    of each SLO is then computed every 2.5 minutes.
The result goes to standard output; nothing does where a document is wrong. What
cannot be carried over is a warning with its place on standard error.

Examples:
  nines-aggregator convert --to prometheus my-slos/ > rules.yaml
  nines-aggregator convert --to prometheus --with sloth,pyrra my-slos/ > rules.yaml
  nines-aggregator convert --to openslo sloth/ pyrra.yaml > my-slos/converted.yaml
  kubectl get prometheusservicelevels,servicelevelobjectives -A -o yaml > old.yaml
  nines-aggregator convert --to openslo old.yaml > my-slos/converted.yaml`,
	run: convert,
}

func convert(_ context.Context, e env, args []string) error {
	fs := options("convert")
	to := fs.String("to", "", "prometheus|openslo")
	var with list
	fs.Var(&with, "with", "sloth|pyrra")
	paths, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return usagef("name at least one file or folder")
	}
	dashboards, err := dashboardsOf(with)
	switch {
	case err != nil:
		return err
	case len(dashboards) > 0 && *to != "prometheus":
		return usagef("--with is for --to prometheus")
	}
	switch *to {
	case "prometheus":
		return toPrometheus(e, paths, dashboards)
	case "openslo":
		return toOpenSLO(e, paths)
	case "":
		return usagef("say what to make: --to prometheus or --to openslo")
	}
	return usagef("--to %q is neither prometheus nor openslo", *to)
}

// dashboardsOf reads --with, each of which may hold several names.
func dashboardsOf(with []string) (out []openslo.Dashboards, err error) {
	for _, names := range with {
		for _, name := range strings.Split(names, ",") {
			d := openslo.Dashboards(strings.TrimSpace(name))
			if !slices.Contains(openslo.AllDashboards, d) {
				return nil, usagef("--with %q is neither sloth nor pyrra", name)
			}
			if !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	return out, nil
}

func toPrometheus(e env, paths []string, dashboards []openslo.Dashboards) error {
	set, err := soundSLOs(e, paths)
	if err != nil {
		return err
	}
	out, notes, err := openslo.PrometheusWith(set.Objectives(), dashboards...)
	if err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintln(e.err, "warning:", n)
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
