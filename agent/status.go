package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"nines/agent/daemon"
	"nines/pkg/ops"
)

type statusOptions struct{ server, state, format string }

func (o *statusOptions) set() *flag.FlagSet {
	fs := ops.Options("status")
	fs.StringVar(&o.server, "server", "", "URL")
	fs.StringVar(&o.state, "state", "", "DIR")
	fs.StringVar(&o.format, "format", "text", "text|json")
	return fs
}

// status prints what became of every byte of every log.
func status(args []string, out, errOut io.Writer) int {
	var o statusOptions
	rest, err := parsed(o.set(), args, &o.format)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = errors.New("status takes no arguments")
	case o.server != "" && o.state != "":
		err = errors.New("give --server or --state, not both")
	}
	if err != nil {
		return misused(out, errOut, err)
	}
	var s daemon.LogStatus
	if o.state != "" {
		s, err = daemon.StatusAtRest(o.state)
	} else {
		s, err = daemon.AskStatus(o.server)
	}
	if err != nil {
		return fail(errOut, err)
	}
	code := ops.ExitDone
	if !s.Balanced() {
		code = ops.ExitFailed
	}
	if o.format == "json" {
		return max(code, sayJSON(out, errOut, s))
	}
	return max(code, say(out, errOut, s.String()))
}

type redriveOptions struct{ server, destination, format string }

func (o *redriveOptions) set() *flag.FlagSet {
	fs := ops.Options("redrive")
	fs.StringVar(&o.server, "server", "", "URL")
	fs.StringVar(&o.destination, "destination", "", "NAME")
	fs.StringVar(&o.format, "format", "text", "text|json")
	return fs
}

// redrive has the running agent send its dead letters again.
func redrive(args []string, out, errOut io.Writer) int {
	var o redriveOptions
	rest, err := parsed(o.set(), args, &o.format)
	if err == nil && len(rest) > 0 {
		err = errors.New("redrive takes no arguments: name a destination with --destination NAME")
	}
	if err != nil {
		return misused(out, errOut, err)
	}
	if o.format == "text" {
		// Progress, for who waits; the result is what counts.
		_, _ = fmt.Fprintln(errOut, "nines-agent: the agent sends its dead letters again; this ends when each has a verdict")
	}
	done, err := daemon.AskRedrive(o.server, o.destination)
	if err != nil {
		return fail(errOut, err)
	}
	code := ops.ExitDone
	var b strings.Builder
	for _, d := range done {
		b.WriteString(d.String())
		if d.Left() {
			code = ops.ExitFailed
		}
	}
	if o.format == "json" {
		return max(code, sayJSON(out, errOut, done))
	}
	return max(code, say(out, errOut, b.String()))
}
