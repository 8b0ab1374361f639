// Command nines-aggregator receives what the agents send, computes SLA and KPI
// burn rates exactly, keeps the ledger, alerts, reports and draws. Its
// subcommands are the command line that people use.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // calendar months need zones also where the host has none

	"nines/pkg/ops"
)

// command is one subcommand.
type command struct {
	name, args, summary string
	help                string
	run                 func(ctx context.Context, env env, args []string) error
}

// commands is the table of contents of the program.
var commands = []command{
	serveCommand,
	checkCommand,
	convertCommand,
	suggestCommand,
	replayCommand,
	backfillCommand,
	reportCommand,
	ledgerCommand,
	dashboardsCommand,
	{
		name: "version", summary: "print what was built, from which source",
		run: func(_ context.Context, e env, _ []string) error {
			fmt.Fprintln(e.out, "nines-aggregator", ops.ReadBuild())
			return nil
		},
	},
}

// env is what a command may touch.
type env struct {
	out, err io.Writer
}

// usageError is a wrong use of the command line: exit code 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errFound ends a command whose output already said what is wrong.
var errFound = errors.New("found")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, env{os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 done, 1 failed or found something, 2 wrong usage.
func run(ctx context.Context, e env, args []string) int {
	if len(args) == 0 {
		usage(e.err)
		return 2
	}
	switch args[0] {
	case "help", "-h", "--help":
		if len(args) > 1 {
			if c := find(args[1]); c != nil {
				describe(e.out, c)
				return 0
			}
		}
		usage(e.out)
		return 0
	case "--version":
		args[0] = "version"
	}
	c := find(args[0])
	if c == nil {
		fmt.Fprintf(e.err, "nines-aggregator: there is no command %q; nines-aggregator help lists them\n", args[0])
		return 2
	}
	err := c.run(ctx, e, args[1:])
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		describe(e.out, c)
		return 0
	case errors.Is(err, errFound):
		return 1
	case errors.As(err, &wrong):
		fmt.Fprintf(e.err, "nines-aggregator %s: %v\nnines-aggregator help %s explains it\n", c.name, err, c.name)
		return 2
	}
	fmt.Fprintf(e.err, "nines-aggregator %s: %v\n", c.name, ops.Remedy(err))
	return 1
}

func find(name string) *command {
	for i := range commands {
		if commands[i].name == name {
			return &commands[i]
		}
	}
	return nil
}

func usage(w io.Writer) {
	fmt.Fprint(w, "nines-aggregator keeps the book of your service levels: it receives samples, counts\nevents and coverage exactly, alerts on burn rates and writes the monthly report.\n\n"+
		"Usage: nines-aggregator COMMAND [options]\n\nCommands:\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\nFirst steps:\n"+
		"  nines-aggregator serve                     run on 127.0.0.1:9190 with the shipped SLOs\n"+
		"  nines-aggregator check my-slos/            find what is wrong before it pages anybody\n"+
		"  nines-aggregator serve --slos my-slos/     evaluate your own SLOs too\n"+
		"  nines-aggregator help COMMAND              the options of a command, with examples\n")
}

func describe(w io.Writer, c *command) {
	fmt.Fprintf(w, "%s\n\nUsage: nines-aggregator %s %s\n", strings.ToUpper(c.summary[:1])+c.summary[1:]+".", c.name, c.args)
	if c.help != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.help))
	}
}

// options returns a flag set that reports wrong usage as such and prints
// nothing by itself. parse must be called on it.
func options(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse reads the options, which may stand before and behind the arguments,
// and returns the arguments.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usageError{err}
		}
		args = fs.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest = append(rest, args[0])
		args = args[1:]
	}
}

// list collects an option that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ", ") }

func (l *list) Set(v string) error {
	*l = append(*l, v)
	return nil
}
