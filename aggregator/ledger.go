package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nines/aggregator/ledger"
	"nines/aggregator/server"
)

var ledgerCommand = command{
	name: "ledger", args: "verify|export|stat|follow [--server URL | --data DIR] [options]",
	summary: "prove that the book of minutes is whole, write it out, copy it, say what is in it",
	help: `
  verify   walk the chain of batches: each has the hash of the one before and of
           all that it booked; sums of sealed days follow from their minutes.
           Exit code 1 where a place is broken, which it names
  export   write each booked minute, and each revision of it, as a line
  stat     count objectives, minutes, revisions, sealed days, bytes
  follow   keep a copy of a running aggregator's book in another folder, until
           Ctrl-C: each batch is proven by its hash before it is written

Options:
  --server URL      a running aggregator, http://127.0.0.1:9190 by default
  --data DIR        the data folder of one that does not run
  --format FORMAT   of export: ndjson (default) or csv; of verify and stat: text
                    (default) or json
  --objective ID    of export: 16 hex digits; may be repeated; all by default
  --from, --to T    of export: RFC 3339; --to is not included; all by default
  --as-of N         of export: as the book was after batch N
  --output FILE     of export: a file instead of standard output
  --to-data DIR     of follow: the folder that holds the copy

Examples:
  nines-aggregator ledger verify
  nines-aggregator ledger export --format csv --from 2026-10-01T00:00:00Z --to 2026-11-01T00:00:00Z --output october.csv
  nines-aggregator ledger follow --server http://other-host:9190 --to-data ./copy
  nines-aggregator ledger stat --data ./nines-data`,
	run: runLedger,
}

func runLedger(ctx context.Context, e env, args []string) error {
	fs := options("ledger")
	address := fs.String("server", "http://127.0.0.1:9190", "URL")
	data := fs.String("data", "", "DIR")
	format := fs.String("format", "", "text|json|ndjson|csv")
	from := fs.String("from", "", "T")
	to := fs.String("to", "", "T")
	asOf := fs.Uint64("as-of", 0, "N")
	output := fs.String("output", "", "FILE")
	copyTo := fs.String("to-data", "", "DIR")
	var ids list
	fs.Var(&ids, "objective", "ID")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("say what to do: verify, export, stat or follow")
	}
	q := url.Values{"objective_id": ids}
	for k, v := range map[string]string{"format": *format, "from": *from, "to": *to} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if *asOf > 0 {
		q.Set("as_of", fmt.Sprint(*asOf))
	}
	if rest[0] == "follow" {
		if *copyTo == "" || *data != "" {
			return usagef("follow copies from --server URL to --to-data DIR")
		}
		return followLedger(ctx, e, *address, *copyTo)
	}
	var book bookReader = remoteBook{*address}
	if *data != "" {
		b, err := ledger.Open(ledger.Config{Dir: filepath.Join(*data, "ledger"), ReadOnly: true}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer b.Close()
		book = localBook{b, e.err}
	}
	switch what := rest[0]; what {
	case "export":
		if *format != "" && *format != "ndjson" && *format != "csv" {
			return usagef("--format %q is neither ndjson nor csv", *format)
		}
		return exportLedger(ctx, e, book, q, *output)
	case "verify", "stat":
		if *format != "" && *format != "text" && *format != "json" {
			return usagef("--format %q is neither text nor json", *format)
		}
		if what == "verify" {
			return verifyLedger(ctx, e, book, *format == "json")
		}
		return statLedger(ctx, e, book, *format == "json")
	}
	return usagef("ledger has no %q: verify, export, stat or follow", rest[0])
}

// bookReader is the book of a running aggregator, or of a folder.
type bookReader interface {
	verify(ctx context.Context) (server.LedgerVerification, error)
	stat(ctx context.Context) (server.LedgerStats, error)
	export(ctx context.Context, w io.Writer, q url.Values) error
}

type localBook struct {
	book *ledger.Book
	err  io.Writer
}

func (l localBook) verify(ctx context.Context) (server.LedgerVerification, error) {
	begun := time.Now()
	told := begun
	v, err := l.book.Verify(ctx, func(done, total uint64) {
		if now := time.Now(); now.Sub(told) >= 2*time.Second {
			told = now
			fmt.Fprintf(l.err, "%d of %d batches, %.0f s\n", done, total, now.Sub(begun).Seconds())
		}
	})
	return server.NewLedgerVerification(v), err
}

func (l localBook) stat(context.Context) (server.LedgerStats, error) {
	s, err := l.book.Stat()
	return server.NewLedgerStats(s), err
}

func (l localBook) export(ctx context.Context, w io.Writer, q url.Values) error {
	opts, err := server.LedgerExport(q)
	if err != nil {
		return usageError{err}
	}
	return l.book.Export(ctx, w, opts)
}

type remoteBook struct{ server string }

// send returns the body of the aggregator's answer, which must be closed.
func (r remoteBook) send(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(r.server, "/")+path, body)
	if err != nil {
		return nil, fmt.Errorf("--server %q: %w", r.server, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the aggregator: %w (is it running? --server names another, --data reads the folder of one that is stopped)", err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		var told struct{ Error string }
		if json.Unmarshal(text, &told) == nil && told.Error != "" {
			text = []byte(told.Error)
		}
		return nil, fmt.Errorf("the aggregator answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}

func (r remoteBook) get(ctx context.Context, what string, q url.Values) (io.ReadCloser, error) {
	return r.send(ctx, http.MethodGet, "/api/nines/v1/ledger/"+what+"?"+q.Encode(), nil)
}

// decodeAnswer reads an answer of at most maxAnswer.
func decodeAnswer(body io.ReadCloser, into any) error {
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the aggregator's answer: %w", err)
	}
	return nil
}

// maxAnswer bounds an answer: 50,000 objectives take 100 MiB.
const maxAnswer = 256 << 20

func (r remoteBook) decode(ctx context.Context, what string, into any) error {
	body, err := r.get(ctx, what, nil)
	if err != nil {
		return err
	}
	return decodeAnswer(body, into)
}

func (r remoteBook) verify(ctx context.Context) (v server.LedgerVerification, err error) {
	return v, r.decode(ctx, "verify", &v)
}

func (r remoteBook) stat(ctx context.Context) (s server.LedgerStats, err error) {
	return s, r.decode(ctx, "stat", &s)
}

func (r remoteBook) export(ctx context.Context, w io.Writer, q url.Values) error {
	body, err := r.get(ctx, "export", q)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("the export broke off: %w", err)
	}
	return nil
}

func exportLedger(ctx context.Context, e env, book bookReader, q url.Values, output string) (err error) {
	if output == "" {
		return book.export(ctx, e.out, q)
	}
	f, err := os.Create(output)
	if err != nil {
		return fmt.Errorf("create the export: %w", err)
	}
	if err := book.export(ctx, f, q); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	fmt.Fprintln(e.out, "wrote", output)
	return nil
}

func verifyLedger(ctx context.Context, e env, book bookReader, asJSON bool) error {
	v, err := book.verify(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		err = printIndented(e.out, v)
	} else {
		printVerification(e.out, v)
	}
	if err == nil && v.Broken != "" {
		return errFound
	}
	return err
}

func printVerification(w io.Writer, v server.LedgerVerification) {
	if v.Broken != "" {
		fmt.Fprintf(w, "broken: %s\n%d batches before it are whole. Put a backup in the ledger's place, or move it away to begin a new one from the samples that are left.\n", v.Broken, v.Batches)
		return
	}
	fmt.Fprintf(w, "the chain is whole: %d batches, up to %s\n", v.Batches, v.Head)
	fmt.Fprintf(w, "  %d batches give their hash with each byte of their %d entries\n", v.Proven, v.Entries)
	if v.Links > 0 {
		fmt.Fprintf(w, "  %d batches have days that retention removed: their links were checked\n", v.Links)
	}
	fmt.Fprintf(w, "  %d sealed days of objectives have the sums of their minutes\n", v.Blocks)
}

func statLedger(ctx context.Context, e env, book bookReader, asJSON bool) error {
	s, err := book.stat(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printIndented(e.out, s)
	}
	fmt.Fprintf(e.out, "objectives   %d\nminutes      %d (%d of them not sealed yet)\nrevisions    %d\nsealed days  %d, one objective each\ngaps         %d\n",
		s.Objectives, s.Minutes, s.Open, s.Revisions, s.SealedDays, s.Gaps)
	if s.Minutes > 0 {
		fmt.Fprintf(e.out, "from         %s\nto           %s\n", s.First, s.Last)
		fmt.Fprintf(e.out, "bytes        %d, %.1f a minute of an objective\n", s.Bytes, float64(s.Bytes)/float64(s.Minutes))
	}
	fmt.Fprintf(e.out, "head         %s\n", s.Head)
	return nil
}

// followLedger keeps a copy until the context ends.
func followLedger(ctx context.Context, e env, address, dir string) (err error) {
	log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	book, err := ledger.Open(ledger.Config{Dir: filepath.Join(dir, "ledger")}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	var told time.Time
	fmt.Fprintf(e.out, "copying the ledger of %s to %s; Ctrl-C ends it, the next start goes on from here\n", address, dir)
	return book.Follow(ctx, strings.TrimSuffix(address, "/")+"/api/nines/v1/ledger/copy", &http.Client{}, ledger.FollowOptions{
		Copied: func(leader, here ledger.Position) {
			if now := time.Now(); here.Seq == leader.Seq || now.Sub(told) >= 2*time.Second {
				told = now
				fmt.Fprintf(e.out, "%s of %d here\n", here, leader.Seq)
			}
		},
	})
}

func printIndented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
