package main

import (
	"context"
	"fmt"

	"nines/aggregator/server"
	"nines/pkg/ops"
)

var serveCommand = command{
	name: "serve", args: "[--config FILE] [--listen HOST:PORT] [--data DIR] [--slos DIR]… [--alertmanager URL]…",
	summary: "receive, evaluate, book, alert, and serve the page and the API",
	help: `
Without a file it runs on 127.0.0.1:9190 with its state in ./nines-data. Options
win over the file. Every key of the file, with its default:

  listen: 127.0.0.1:9190     # page, API, remote write, /metrics, /healthz, /readyz
  data: ./nines-data         # all state; a second start on it is refused
  cluster: default           # label of the aggregator's own series
  external_url: ""           # where people reach it; alerts link there
  retention:
    metrics: 15d             # raw samples
    metrics_size: 5GiB       # bound of their folder, the oldest go first
    late: 24h                # how old a late sample may be: as long as agents' queues hold them back
    ledger: 400d             # minutes of the book
  slos: []                   # folders of OpenSLO documents, read again when they change
  alertmanagers: []          # base URLs, such as http://127.0.0.1:9093
  reports:
    timezone: UTC            # IANA zone of the calendar month
  limits:                    # of what comes by remote write
    series: 2000000          # of all in memory, 3 to 4 KB each; beyond it new ones are refused
    requests: 16             # in work at once
    clusters:                # by the label cluster
      default: {series: 1000000, samples_per_second: 500000, burst: 1000000000}
      overrides: {}          # such as prod: {series: 2000000}
    namespaces:              # by the labels cluster and namespace; overrides by prod/shop or shop
      default: {series: 500000, samples_per_second: 300000, burst: 1000000000}
      overrides: {}
    senders:                 # by address; requests: 0 is half of limits.requests
      default: {series: 1000000, samples_per_second: 300000, burst: 5000000, requests: 0}
      overrides: {}          # such as 10.0.0.7: {requests: 4}
    labels: 128              # of one series
    label_name: 1024         # bytes of one name
    label_value: 8192        # bytes of one value
    label_bytes: 32768       # bytes of all labels of one series
    exemplars: 100           # of one series in one request

Options:
  --config FILE        the file
  --listen HOST:PORT   overrides listen
  --data DIR           overrides data
  --slos DIR           adds a folder of OpenSLO documents; may be repeated
  --alertmanager URL   adds an Alertmanager; may be repeated
  --log-level LEVEL    debug, info (default), warn or error
  --log-format FORMAT  text (default) or json

Point a Prometheus or an agent at it:
  remote_write: [{url: "http://127.0.0.1:9190/api/v1/write"}]
Point Grafana at it: a data source of type Prometheus with the URL http://127.0.0.1:9190`,
	run: serve,
}

func serve(ctx context.Context, e env, args []string) error {
	fs := options("serve")
	file := fs.String("config", "", "FILE")
	listen := fs.String("listen", "", "HOST:PORT")
	data := fs.String("data", "", "DIR")
	level := fs.String("log-level", "info", "debug|info|warn|error")
	format := fs.String("log-format", "text", "text|json")
	var slos, alertmanagers list
	fs.Var(&slos, "slos", "DIR")
	fs.Var(&alertmanagers, "alertmanager", "URL")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usagef("it takes no argument, got %q", rest[0])
	}
	if *format != "text" && *format != "json" {
		return usagef("--log-format %q is neither text nor json", *format)
	}
	cfg := server.DefaultConfig()
	if *file != "" {
		if cfg, err = server.LoadConfig(*file); err != nil {
			return err
		}
	}
	if *listen != "" {
		cfg.Listen = *listen
	}
	if *data != "" {
		cfg.Data = *data
	}
	cfg.SLOs = append(cfg.SLOs, slos...)
	cfg.Alertmanagers = append(cfg.Alertmanagers, alertmanagers...)
	if err := cfg.Validate(); err != nil {
		return err
	}
	log, err := ops.Logger(e.err, *level, *format == "json")
	if err != nil {
		return usageError{err}
	}
	return server.Run(ctx, cfg, log, func(format string, args ...any) { fmt.Fprintf(e.out, format+"\n", args...) })
}
