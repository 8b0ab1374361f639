package main

import (
	"context"
	"fmt"
	"os"

	"nines/pkg/openslo"
)

var checkCommand = command{
	name: "check", args: "PATH…",
	summary: "find what is wrong with OpenSLO documents before it pages, or fails to page",
	help: `
Each PATH is a file or a folder of OpenSLO v1 documents. Every finding is a line
  path:line:column: error|warning [rule]: message
and the exit code is 1 if one of them is an error, else 0.

Example:
  nines-aggregator check my-slos/ more/checkout.yaml`,
	run: check,
}

func check(_ context.Context, e env, args []string) error {
	paths, err := parse(options("check"), args)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return usagef("name at least one file or folder")
	}
	set, err := loadSLOs(paths)
	if err != nil {
		return err
	}
	bad := false
	for _, f := range set.Findings() {
		fmt.Fprintln(e.out, f)
		bad = bad || f.IsError()
	}
	if bad {
		return errFound
	}
	fmt.Fprintf(e.out, "%d objectives, no errors\n", len(openslo.Shown(set.Objectives())))
	return nil
}

// loadSLOs reads files and folders of OpenSLO documents as one set, so that
// references between them resolve.
func loadSLOs(paths []string) (*openslo.Set, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("read OpenSLO documents: %w", err)
		}
	}
	return openslo.LoadPaths(paths...)
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
