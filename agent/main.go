// Command nines-agent runs on each node: it reads the node's figures and logs
// and sends them to an aggregator, or to any store that speaks remote write,
// and to Elasticsearch.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"nines/agent/daemon"
	"nines/pkg/ops"
)

// Exit codes: 0 done, 1 failed, 2 used wrongly.
const (
	failed     = 1
	wrongUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command does what the arguments say and returns the exit code.
func command(ctx context.Context, args []string, out, errOut io.Writer) int {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch name {
	case "check":
		return check(args[1:], out, errOut)
	case "version":
		return version(args[1:], out, errOut)
	case "help", "-h", "-help", "--help":
		return say(out, errOut, usage)
	}
	return run(ctx, args, out, errOut)
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	flags := newFlags()
	config := flags.String("config", "", "")
	level := flags.String("log-level", "info", "")
	format := flags.String("log-format", "text", "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return say(out, errOut, usage)
	} else if err != nil {
		return misused(errOut, err)
	}
	if flags.NArg() > 0 {
		return misused(errOut, fmt.Errorf("%q is not a command: use check, version or help, or --config FILE", flags.Arg(0)))
	}
	if *format != "text" && *format != "json" {
		return misused(errOut, fmt.Errorf("--log-format %q is not known: use text or json", *format))
	}
	log, err := ops.Logger(errOut, *level, *format == "json")
	if err != nil {
		return misused(errOut, fmt.Errorf("--log-level: %w", err))
	}
	cfg, err := daemon.Load(*config)
	if err != nil {
		return fail(errOut, err)
	}
	d, err := daemon.New(cfg, log)
	if err != nil {
		return fail(errOut, err)
	}
	if err := d.Run(ctx); err != nil {
		return fail(errOut, err)
	}
	return 0
}

func check(args []string, out, errOut io.Writer) int {
	flags := newFlags()
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return say(out, errOut, usage)
	} else if err != nil {
		return misused(errOut, err)
	}
	if flags.NArg() != 1 {
		return misused(errOut, errors.New("check wants one file: nines-agent check FILE"))
	}
	cfg, err := daemon.Load(flags.Arg(0))
	if err != nil {
		return fail(errOut, err)
	}
	if code := say(out, errOut, flags.Arg(0)+" is valid.\n"); code != 0 {
		return code
	}
	if err := daemon.Explain(out, cfg); err != nil {
		return fail(errOut, err)
	}
	return 0
}

func version(args []string, out, errOut io.Writer) int {
	if len(args) > 0 {
		return misused(errOut, errors.New("version takes no arguments"))
	}
	return say(out, errOut, "nines-agent "+ops.ReadBuild().String()+"\n")
}

func newFlags() *flag.FlagSet {
	flags := flag.NewFlagSet("nines-agent", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func say(out, errOut io.Writer, text string) int {
	if _, err := io.WriteString(out, text); err != nil {
		return fail(errOut, err)
	}
	return 0
}

func fail(errOut io.Writer, err error) int {
	// There is nobody left to tell where this fails too.
	_, _ = fmt.Fprintf(errOut, "nines-agent: %v\n", err)
	return failed
}

func misused(errOut io.Writer, err error) int {
	_, _ = fmt.Fprintf(errOut, "nines-agent: %v\nRun \"nines-agent help\" for all commands.\n", err)
	return wrongUsage
}

const usage = `nines-agent reads this node's figures and logs and sends them on.

Usage:
  nines-agent [--config FILE]   run until Ctrl-C or SIGTERM; without a file, with the defaults
  nines-agent check FILE        check a file, say what the agent will do with it,
                                and what it cannot do on this host and why
  nines-agent version           say which build this is
  nines-agent help              this text

Flags:
  --config FILE                 YAML; every key has a default, an unknown key is an error
  --log-level LEVEL             debug, info (default), warn or error
  --log-format FORMAT           text (default) or json; logs go to standard error

A whole file, with the defaults (node is the host's name where it is empty):
  cluster: default              # a label on everything that is sent
  node: ""
  state: ./nines-agent          # the queue and the checkpoints; one agent for each folder
  listen: 127.0.0.1:9191        # /metrics, /metrics/node, /healthz, /readyz
  metrics:
    interval: 15s
    send_to: [{url: "http://127.0.0.1:9190/api/v1/write"}]   # [] sends nothing
  logs:
    sources: [{type: files, paths: ["/var/log/*.log"], exclude: []}]   # [] follows nothing
    destination: {files: {directory: ./nines-logs}}
    # or: destination: {elasticsearch: {urls: ["https://es:9200"], username: agent, password_file: /etc/nines/password}}

Exit codes: 0 stopped as asked, or the file is valid; 1 failure; 2 wrong usage.
`
