// Command nines-agent runs on each node: it reads the node's figures and logs
// and sends them to an aggregator, or to any store that speaks remote write,
// and to Elasticsearch.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"nines/agent/daemon"
	"nines/pkg/ops"
)

func main() {
	if os.Getenv("GOGC") == "" {
		// On a node memory is dearer than the agent's CPU: half the usual garbage.
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command does what the arguments say and returns one of the exit codes of ops.
func command(ctx context.Context, args []string, out, errOut io.Writer) int {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch name {
	case "check":
		return check(args[1:], out, errOut)
	case "completion":
		return completion(args[1:], out, errOut)
	case "redrive":
		return redrive(args[1:], out, errOut)
	case "status":
		return status(args[1:], out, errOut)
	case "version":
		return version(args[1:], out, errOut)
	case "help", "-h", "-help", "--help":
		return say(out, errOut, usage)
	}
	return run(ctx, args, out, errOut)
}

// commands are the words that command knows, for completion.
func commands() []ops.CommandWords {
	return []ops.CommandWords{
		{Name: "check", Summary: "check a file, and say what the agent would do with it", Options: new(checkOptions).set()},
		{Name: "completion", Summary: "print a script that teaches your shell the commands and their options", Operands: ops.Shells},
		{Name: "redrive", Summary: "send dead letters again", Options: new(redriveOptions).set()},
		{Name: "status", Summary: "say what became of every byte of every log", Options: new(statusOptions).set()},
		{Name: "version", Summary: "say which build this is", Options: new(versionOptions).set()},
		{Name: "help", Summary: "explain all commands"},
	}
}

type runOptions struct{ config, level, format string }

func (o *runOptions) set() *flag.FlagSet {
	fs := ops.Options("nines-agent")
	fs.StringVar(&o.config, "config", "", "FILE")
	fs.StringVar(&o.level, "log-level", "info", "debug|info|warn|error")
	fs.StringVar(&o.format, "log-format", "text", "text|json")
	return fs
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	var o runOptions
	rest, err := ops.ParseOptions(o.set(), args)
	if err != nil {
		return misused(out, errOut, err)
	}
	if len(rest) > 0 {
		var names []string
		for _, c := range commands() {
			names = append(names, c.Name)
		}
		return misused(out, errOut, fmt.Errorf("%q is not a command: use %s, or --config FILE%s", rest[0], strings.Join(names, ", "), ops.Meant(rest[0], "", names)))
	}
	if o.format != "text" && o.format != "json" {
		return misused(out, errOut, fmt.Errorf("--log-format %q is not known: use text or json", o.format))
	}
	log, err := ops.Logger(errOut, o.level, o.format == "json")
	if err != nil {
		return misused(out, errOut, fmt.Errorf("--log-level: %w", err))
	}
	cfg, err := daemon.Load(o.config)
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
	return ops.ExitDone
}

type checkOptions struct{ format string }

func (o *checkOptions) set() *flag.FlagSet {
	fs := ops.Options("check")
	fs.StringVar(&o.format, "format", "text", "text|json")
	return fs
}

func check(args []string, out, errOut io.Writer) int {
	var o checkOptions
	rest, err := parsed(o.set(), args, &o.format)
	if err == nil && len(rest) != 1 {
		err = errors.New("check wants one file: nines-agent check FILE")
	}
	if err != nil {
		return misused(out, errOut, err)
	}
	cfg, err := daemon.Load(rest[0])
	if err != nil {
		return fail(errOut, err)
	}
	plan, err := daemon.Foresee(cfg)
	if err != nil {
		return fail(errOut, err)
	}
	if o.format == "json" {
		return sayJSON(out, errOut, struct {
			File string `json:"file"`
			daemon.Plan
		}{rest[0], plan})
	}
	return say(out, errOut, rest[0]+" is valid.\n"+plan.String())
}

func completion(args []string, out, errOut io.Writer) int {
	rest, err := ops.ParseOptions(ops.Options("completion"), args)
	if err == nil && len(rest) != 1 {
		err = errors.New("completion wants one shell: bash, zsh or fish")
	}
	var script string
	if err == nil {
		script, err = ops.Completion(rest[0], ops.CommandLine{Program: "nines-agent", Options: new(runOptions).set(), Commands: commands()})
	}
	if err != nil {
		return misused(out, errOut, err)
	}
	return say(out, errOut, script)
}

type versionOptions struct{ format string }

func (o *versionOptions) set() *flag.FlagSet {
	fs := ops.Options("version")
	fs.StringVar(&o.format, "format", "text", "text|json")
	return fs
}

func version(args []string, out, errOut io.Writer) int {
	var o versionOptions
	rest, err := parsed(o.set(), args, &o.format)
	if err == nil && len(rest) > 0 {
		err = errors.New("version takes no arguments")
	}
	if err != nil {
		return misused(out, errOut, err)
	}
	build := ops.ReadBuild()
	if o.format == "json" {
		return sayJSON(out, errOut, struct {
			Program string `json:"program"`
			ops.Build
		}{"nines-agent", build})
	}
	return say(out, errOut, "nines-agent "+build.String()+"\n")
}

// parsed reads the options of a command that has an output format.
func parsed(fs *flag.FlagSet, args []string, format *string) (rest []string, err error) {
	rest, err = ops.ParseOptions(fs, args)
	if err == nil && *format != "text" && *format != "json" {
		err = fmt.Errorf("--format %q is not known: use text or json", *format)
	}
	return rest, err
}

func sayJSON(out, errOut io.Writer, v any) int {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fail(errOut, err)
	}
	return say(out, errOut, string(b)+"\n")
}

func say(out, errOut io.Writer, text string) int {
	if _, err := io.WriteString(out, text); err != nil {
		return fail(errOut, err)
	}
	return ops.ExitDone
}

func fail(errOut io.Writer, err error) int {
	// There is nobody left to tell where this fails too.
	_, _ = fmt.Fprintf(errOut, "nines-agent: %v\n", err)
	return ops.ExitFailed
}

// misused says what is wrong with the command line; who asks for help gets it.
func misused(out, errOut io.Writer, err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return say(out, errOut, usage)
	}
	_, _ = fmt.Fprintf(errOut, "nines-agent: %v\nRun \"nines-agent help\" for all commands.\n", err)
	return ops.ExitUsage
}

// A run that is stopped as asked, and a file that is valid, are done.
const usage = `nines-agent reads this node's figures and logs and sends them on.

Usage:
  nines-agent [--config FILE]   run until Ctrl-C or SIGTERM; without a file, with the defaults
  nines-agent check FILE        check a file, say what the agent will do with it,
                                and what it cannot do on this host and why
  nines-agent completion SHELL  print a script that teaches bash, zsh or fish all this:
                                source <(nines-agent completion bash)
  nines-agent status            say what became of every byte of every log: stored, dead
                                letters, dropped, in flight, unread, lost; per file and
                                in sum, of a running agent or of its folder
  nines-agent redrive           have the running agent send its dead letters again, after
                                what made the destination refuse them was mended
  nines-agent version           say which build this is
  nines-agent help              this text

Flags:
  --config FILE                 YAML; every key has a default, an unknown key is an error
  --log-level LEVEL             debug, info (default), warn or error
  --log-format FORMAT           text (default) or json; logs go to standard error
  --format FORMAT               of check, status, redrive and version: text (default) or json
  --server URL                  of status and redrive: where the agent listens,
                                http://127.0.0.1:9191 by default
  --state DIR                   of status: the state folder of an agent that does not run
  --destination NAME            of redrive: this one alone

A whole file, with the defaults (node is the host's name where it is empty):
  cluster: default              # a label on everything that is sent
  node: ""
  state: ./nines-agent          # the queue and the checkpoints; one agent for each folder
  listen: 127.0.0.1:9191        # all pages; / lists them
  metrics:
    interval: 15s               # 1s to 1m
    send_to: [{url: "http://127.0.0.1:9190/api/v1/write"}]   # [] sends nothing
    queue: 256MiB               # on disk, while a destination is away
    queue_age: 24h              # older samples are not sent
    node: {proc: /proc, sys: /sys, root: /, collectors: {}, textfile_directory: ""}
    kubelet: {enabled: auto, url: ""}       # auto: where a service account is, or url is given
    cgroups: {enabled: auto}                # containers, where no kubelet is asked
    pods: {annotations: true, pod_monitors: true, namespaces: [], exclude_namespaces: [], interval: 30s}
    scrape: {configs: []}       # Prometheus' scrape_configs, with static_configs
    probes: {interval: 15s, modules: {}, targets: []}        # modules as in blackbox.yml
    otlp: {http: "", grpc: ""}  # such as 0.0.0.0:4318 and 0.0.0.0:4317
    # docs/metrics.md has the rest of the keys
  logs:
    sources:                    # [] follows nothing
    - {type: files, paths: ["/var/log/*.log"], exclude: [], from: beginning, weight: 1, to: []}
    # - {type: kubernetes, root: /var/log/pods, namespaces: [], exclude_namespaces: []}
    destination: {files: {directory: ./nines-logs}}
    # or: destination: {elasticsearch: {urls: ["https://es:9200"], username: agent, password_file: /etc/nines/password}}
    # or: destinations: [{name: search, elasticsearch: {…}, spool: 1GiB}, {name: archive, files: {…}}]

` + ops.ExitCodes + "\n"
