package main

import (
	"context"
	"fmt"

	"nines/pkg/ops"
)

var versionCommand = command{
	name: "version", args: "[--format text|json]",
	summary: "print what was built, from which source",
	help: `
Options:
  --format FORMAT  text (default) or json`,
	run: func(_ context.Context, e env, args []string) error {
		fs := options("version")
		format := textOrJSON(fs)
		if rest, err := parse(fs, args); err != nil {
			return err
		} else if len(rest) > 0 {
			return usagef("it takes no argument, got %q", rest[0])
		}
		build := ops.ReadBuild()
		if format.isJSON() {
			return printIndented(e.out, struct {
				Program string `json:"program"`
				ops.Build
			}{"nines-aggregator", build})
		}
		_, err := fmt.Fprintln(e.out, "nines-aggregator", build)
		return err
	},
}
