package main

import (
	"context"
	"fmt"

	"nines/dashboards"
	"nines/pkg/openslo"
	"nines/rules"
)

var dashboardsCommand = command{
	name: "dashboards", args: "[--output DIR] [--slos PATH]…",
	summary: "write the Grafana dashboards, one for each role",
	help: `
Writes a JSON file for each role that has data by now, to import into Grafana or
to put into a provisioned folder. The data source they ask for is a Prometheus
one with the URL of this aggregator.

Options:
  --output DIR   the folder, ./dashboards by default; made if it is missing
  --slos PATH    file or folder of OpenSLO documents beside the shipped ones`,
	run: func(_ context.Context, e env, args []string) error {
		fs := options("dashboards")
		output := fs.String("output", "dashboards", "DIR")
		var slos list
		fs.Var(&slos, "slos", "PATH")
		if rest, err := parse(fs, args); err != nil {
			return err
		} else if len(rest) > 0 {
			return usagef("it takes no argument, got %q", rest[0])
		}
		objectives, err := rules.SLOs()
		if err != nil {
			return err
		}
		if len(slos) > 0 {
			set, err := loadSLOs(slos)
			if err != nil {
				return err
			}
			objectives = append(objectives, openslo.Shown(set.Objectives())...)
		}
		if err := dashboards.Write(*output, objectives); err != nil {
			return err
		}
		fmt.Fprintf(e.out, "wrote %d dashboards to %s\n", len(dashboards.Roles()), *output)
		return nil
	},
}
