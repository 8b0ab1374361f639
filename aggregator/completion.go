package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"regexp"
	"strings"

	"nines/pkg/ops"
)

var completionCommand = command{
	name: "completion", args: "bash|zsh|fish",
	summary: "print a script that teaches your shell the commands and their options",
	help: `
  bash   source <(nines-aggregator completion bash), in ~/.bashrc
  zsh    nines-aggregator completion zsh > a folder of $fpath/_nines_aggregator
  fish   nines-aggregator completion fish > ~/.config/fish/completions/nines-aggregator.fish

The script is made from the commands of this version: make it again after an
update.`,
	about: completion,
}

func completion(e env, all []command, args []string) error {
	rest, err := parse(options("completion"), args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("name one shell: bash, zsh or fish")
	}
	script, err := ops.Completion(rest[0], commandLine(all))
	if err != nil {
		return usageError{err}
	}
	_, err = io.WriteString(e.out, script)
	return err
}

// commandLine is what a shell can complete.
func commandLine(all []command) ops.CommandLine {
	line := ops.CommandLine{Program: "nines-aggregator"}
	help := ops.CommandWords{Name: "help", Summary: "explain a command, with examples"}
	for _, c := range all {
		line.Commands = append(line.Commands, ops.CommandWords{Name: c.name, Summary: c.summary, Options: optionsOf(c, all), Operands: operands(c.args)})
		help.Operands = append(help.Operands, c.name)
	}
	line.Commands = append(line.Commands, help)
	return line
}

// optionsOf asks a command for help, which it answers with its options before
// it does anything.
func optionsOf(c command, all []command) *flag.FlagSet {
	var err error
	quiet := env{io.Discard, io.Discard}
	if c.about != nil {
		err = c.about(quiet, all, []string{"--help"})
	} else {
		err = c.run(context.Background(), quiet, []string{"--help"})
	}
	var help ops.HelpError
	if !errors.As(err, &help) {
		panic("command " + c.name + " does not parse its arguments first")
	}
	return help.Options
}

var onlyWords = regexp.MustCompile(`^[a-z]+(\|[a-z]+)+$`)

// operands are the words that the first argument may be, as a command's usage
// has them.
func operands(usage string) []string {
	first, _, _ := strings.Cut(usage, " ")
	if onlyWords.MatchString(first) {
		return strings.Split(first, "|")
	}
	return nil
}
