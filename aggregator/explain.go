package main

import (
	"context"
	"fmt"
	"math/big"
	"regexp"
	"time"

	"nines/pkg/openslo"
	"nines/pkg/ops"
	"nines/pkg/sla"
	"nines/rules"
)

var explainCommand = command{
	name: "explain", args: "[PATH…] [--slo NAME] [--events-per-day N] [--format text|json]",
	summary: "say in words what SLOs promise, and which alert fires when",
	help: `
Each PATH is a file or a folder of OpenSLO documents; without one it is the SLOs
that come with the program. For each objective it says what counts as good, what
the budget is in time and events, after how long which alert fires at which error
ratio, what happens when nothing is seen, and what is not covered. The same text
stands on the page of each objective, behind its title on the page of serve.

Options:
  --slo NAME          one SLO alone, by its metadata.name; NAMESPACE/NAME where
                      several namespaces have it
  --events-per-day N  how much traffic there is: budgets and alerts in events
  --format FORMAT     text (default) or json; docs/commands.md explains each field

Examples:
  nines-aggregator explain my-slos/
  nines-aggregator explain my-slos/ --slo checkout-availability --events-per-day 20000
  nines-aggregator explain --slo node-reachable`,
	run: explain,
}

// plainNumber keeps exponents out, which can make a number of any size.
var plainNumber = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,6})?$`)

func explain(_ context.Context, e env, args []string) error {
	fs := options("explain")
	name := fs.String("slo", "", "NAME")
	perDay := fs.String("events-per-day", "", "N")
	format := textOrJSON(fs)
	paths, err := parse(fs, args)
	if err != nil {
		return err
	}
	asked := openslo.Asked{Now: time.Now()}
	if *perDay != "" {
		if plainNumber.MatchString(*perDay) {
			asked.PerDay, _ = new(big.Rat).SetString(*perDay)
		}
		if asked.PerDay == nil || asked.PerDay.Sign() == 0 {
			return usagef("--events-per-day %q is no number above 0, such as 20000", *perDay)
		}
	}
	objectives, err := rules.SLOs()
	if len(paths) > 0 {
		var set *openslo.Set
		if set, err = soundSLOs(e, paths); err == nil {
			objectives = set.Objectives()
		}
	}
	if err != nil {
		return err
	}
	asked.Parts = openslo.Parts(objectives)
	if objectives, err = named(openslo.Shown(objectives), *name); err != nil {
		return err
	}
	explained := []openslo.Explanation{}
	for _, o := range objectives {
		x, err := openslo.Explain(o, asked)
		if err != nil {
			return fmt.Errorf("SLO %s: %w", o.SLO, err)
		}
		explained = append(explained, x)
	}
	if format.isJSON() {
		return printIndented(e.out, explained)
	}
	for i, x := range explained {
		if i > 0 {
			fmt.Fprintln(e.out)
		}
		fmt.Fprint(e.out, x.Text())
	}
	return nil
}

// named returns the objectives of one SLO, or all where the name is empty.
func named(all []sla.Objective, name string) ([]sla.Objective, error) {
	if name == "" {
		return all, nil
	}
	var out []sla.Objective
	var known []string
	for _, o := range all {
		if name == o.SLO || name == o.Namespace+"/"+o.SLO {
			out = append(out, o)
		}
		known = append(known, o.SLO)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no SLO %q here%s", name, ops.Meant(name, "", known))
	}
	return out, nil
}
