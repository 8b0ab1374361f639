package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"nines/aggregator/ledger"
	"nines/aggregator/report"
	"nines/pkg/ops"
)

var reportCommand = command{
	name: "report", args: "--month YYYY-MM [--timezone ZONE] [--format csv|pdf|html|json]… [--output DIR] [--as-of N] [--server URL | --data DIR]",
	summary: "write the SLA report of a month from the ledger",
	help: `
One row an objective: good, total, ratio, coverage, budget, bad minutes. A month
that is not over is marked "so far".

Options:
  --month YYYY-MM     the calendar month; this month by default
  --timezone ZONE     IANA zone of the month, UTC by default
  --format FORMAT     csv, pdf, html or json; may be repeated; all by default
  --output DIR        the folder, ./reports by default; - prints one format
  --as-of N           as the ledger was after batch N, which each report names;
                      the newest by default
  --server URL        a running aggregator, http://127.0.0.1:9190 by default
  --data DIR          the data folder of one that does not run

Example:
  nines-aggregator report --month 2026-10 --timezone Europe/Berlin --format pdf`,
	run: writeReport,
}

// maxReport bounds the answer of a server, per format.
const maxReport = 64 << 20

func writeReport(ctx context.Context, e env, args []string) error {
	fs := options("report")
	month := fs.String("month", time.Now().UTC().Format("2006-01"), "YYYY-MM")
	zone := fs.String("timezone", "UTC", "ZONE")
	output := fs.String("output", "reports", "DIR")
	server := fs.String("server", "http://127.0.0.1:9190", "URL")
	data := fs.String("data", "", "DIR")
	asOf := fs.Uint64("as-of", 0, "N")
	var formats list
	fs.Var(&formats, "format", "csv|pdf|html|json")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usagef("it takes no argument, got %q", rest[0])
	}
	if len(formats) == 0 {
		formats = list{"csv", "pdf", "html", "json"}
	}
	if *output == "-" && len(formats) != 1 {
		return usagef("--output - prints one --format, %d are asked for", len(formats))
	}
	render := fromServer(ctx, *server, *month, *zone, *asOf)
	if *data != "" {
		book, err := ledger.Open(ledger.Config{Dir: filepath.Join(*data, "ledger"), ReadOnly: true}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer book.Close()
		rep, err := report.Build(ctx, book, report.Options{Month: *month, Timezone: *zone, Now: time.Now(), AsOf: *asOf})
		if err != nil {
			return err
		}
		render = func(format string) ([]byte, error) {
			b, _, err := rep.Render(format)
			return b, err
		}
	}
	for _, format := range formats {
		b, err := render(format)
		if err != nil {
			return err
		}
		if *output == "-" {
			_, err := e.out.Write(b)
			return err
		}
		path := filepath.Join(*output, "sla-"+*month+"."+format)
		if err := os.MkdirAll(*output, 0o755); err != nil {
			return fmt.Errorf("create the folder of the reports: %w", err)
		}
		if err := ops.WriteFile(path, b, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(e.out, "wrote", path)
	}
	return nil
}

// fromServer asks a running aggregator.
func fromServer(ctx context.Context, server, month, zone string, asOf uint64) func(string) ([]byte, error) {
	return func(format string) ([]byte, error) {
		q := url.Values{"timezone": {zone}, "format": {format}, "as_of": {fmt.Sprint(asOf)}}
		body, err := remoteBook{server}.send(ctx, http.MethodGet, "/api/nines/v1/reports/"+url.PathEscape(month)+"?"+q.Encode(), nil)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		b, err := io.ReadAll(io.LimitReader(body, maxReport))
		if err != nil {
			return nil, fmt.Errorf("read the aggregator's answer: %w", err)
		}
		return b, nil
	}
}
