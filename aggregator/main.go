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
	// about runs a command that is about the command line itself.
	about func(env env, all []command, args []string) error
}

// commands is the table of contents of the program.
var commands = []command{
	serveCommand,
	checkCommand,
	explainCommand,
	schemaCommand,
	convertCommand,
	suggestCommand,
	replayCommand,
	backfillCommand,
	reportCommand,
	ledgerCommand,
	dashboardsCommand,
	completionCommand,
	versionCommand,
}

// env is what a command may touch.
type env struct {
	out, err io.Writer
}

// usageError is a wrong use of the command line: ops.ExitUsage.
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

// run returns one of the exit codes of ops.
func run(ctx context.Context, e env, args []string) int {
	if len(args) == 0 {
		usage(e.err)
		return ops.ExitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		if len(args) == 1 || args[0] != "help" {
			usage(e.out)
			return ops.ExitDone
		}
		c := find(args[1])
		if c == nil {
			return unknown(e, args[1])
		}
		describe(e.out, c)
		return ops.ExitDone
	case "--version":
		args[0] = "version"
	}
	c := find(args[0])
	if c == nil {
		return unknown(e, args[0])
	}
	var err error
	if c.about != nil {
		err = c.about(e, commands, args[1:])
	} else {
		err = c.run(ctx, e, args[1:])
	}
	var wrong usageError
	switch {
	case err == nil:
		return ops.ExitDone
	case errors.Is(err, flag.ErrHelp):
		describe(e.out, c)
		return ops.ExitDone
	case errors.Is(err, errFound):
		return ops.ExitFailed
	case errors.As(err, &wrong):
		fmt.Fprintf(e.err, "nines-aggregator %s: %v\nnines-aggregator help %s explains it\n", c.name, err, c.name)
		return ops.ExitUsage
	}
	fmt.Fprintf(e.err, "nines-aggregator %s: %v\n", c.name, ops.Remedy(err))
	return ops.ExitFailed
}

// unknown tells of a command that there is not.
func unknown(e env, name string) int {
	known := []string{"help"}
	for _, c := range commands {
		known = append(known, c.name)
	}
	fmt.Fprintf(e.err, "nines-aggregator: there is no command %q%s\nnines-aggregator help lists them\n", name, ops.Meant(name, "", known))
	return ops.ExitUsage
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
		"  nines-aggregator explain my-slos/          what they promise, and what pages when, in words\n"+
		"  nines-aggregator help COMMAND              the options of a command, with examples\n\n"+
		ops.ExitCodes+"\n")
}

func describe(w io.Writer, c *command) {
	fmt.Fprintf(w, "%s\n\nUsage: nines-aggregator %s %s\n", strings.ToUpper(c.summary[:1])+c.summary[1:]+".", c.name, c.args)
	if c.help != "" {
		fmt.Fprintf(w, "\n%s\n", strings.Trim(c.help, "\n"))
	}
	fmt.Fprintf(w, "\n%s\n", ops.ExitCodes)
}

// options returns an empty set of options for parse. The usage text of an option
// is what its value is, for completion: FILE, text|json.
func options(name string) *flag.FlagSet { return ops.Options(name) }

// parse reads the options, which may stand before and behind the arguments,
// and returns the arguments.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	rest, err := ops.ParseOptions(fs, args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return nil, usageError{err}
	}
	return rest, err
}

// textOrJSON adds --format to a command that prints for people, and for
// programs with json.
func textOrJSON(fs *flag.FlagSet) *outputFormat {
	f := outputFormat("text")
	fs.Var(&f, "format", "text|json")
	return &f
}

// outputFormat is text or json.
type outputFormat string

func (f *outputFormat) String() string { return string(*f) }

func (f *outputFormat) Set(v string) error {
	if v != "text" && v != "json" {
		return errors.New("it is neither text nor json")
	}
	*f = outputFormat(v)
	return nil
}

func (f *outputFormat) isJSON() bool { return *f == "json" }

// list collects an option that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ", ") }

func (l *list) Set(v string) error {
	*l = append(*l, v)
	return nil
}
