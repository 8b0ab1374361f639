package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// withBook returns a data folder whose book holds some minutes and a revision.
func withBook(t *testing.T) (dir string, id sla.ID) {
	t.Helper()
	dir = t.TempDir()
	book, err := ledger.Open(ledger.Config{Dir: filepath.Join(dir, "ledger")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id = sla.ID{1, 2, 3}
	first := sla.Minute(29_000_000)
	var entries []ledger.Entry
	for i := range 5 {
		f := sla.Figures{Counts: sla.Counts{GoodLow: 9e6, GoodHigh: 9e6, Total: 10e6, Expected: 60_000, Counted: 60_000, Timed: 60_000}}
		entries = append(entries, ledger.Entry{Objective: id, Minute: first + sla.Minute(i), Figures: f, Author: "test"})
	}
	late := ledger.Entry{Objective: id, Minute: first, Revision: true, Reason: "late samples", Author: "test", Figures: sla.Figures{Counts: sla.Counts{Total: 1e6}}}
	for i, b := range []ledger.Batch{{Term: 1, At: 1, Entries: entries}, {Term: 1, At: 2, Entries: []ledger.Entry{late}}} {
		if _, err := book.Append(b); err != nil {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, id
}

func ledgerCall(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(context.Background(), env{&o, &e}, append([]string{"ledger"}, args...))
	return code, o.String(), e.String()
}

func TestLedgerCommandsReadTheFolderOfAStoppedAggregator(t *testing.T) {
	dir, id := withBook(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"verify", "--data", dir}, 0, "the chain is whole: 2 batches"},
		{[]string{"verify", "--data", dir, "--format", "json"}, 0, `"batches": 2`},
		{[]string{"stat", "--data", dir}, 0, "minutes      5 (5 of them not sealed yet)\nrevisions    1"},
		{[]string{"export", "--data", dir, "--format", "csv", "--objective", id.String()}, 0, "objective_id,minute,kind"},
		{[]string{"export", "--data", dir, "--from", "2026-01-01T00:00:00Z"}, 0, ""},
		{[]string{"export", "--data", dir, "--format", "xml"}, 2, ""},
		{[]string{"export", "--data", dir, "--objective", "beef"}, 2, ""},
		{[]string{"verify", "--data", filepath.Join(dir, "nothing")}, 1, ""},
		{[]string{"prove", "--data", dir}, 2, ""},
		{nil, 2, ""},
	} {
		code, out, errs := ledgerCall(c.args...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("ledger %v: exit %d, printed %q and %q; want %d and %q", c.args, code, out, errs, c.code, c.want)
		}
		if code != 0 && errs == "" {
			t.Errorf("ledger %v fails without a word", c.args)
		}
	}
	path := filepath.Join(t.TempDir(), "minutes.ndjson")
	if code, _, errs := ledgerCall("export", "--data", dir, "--output", path); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	lines, err := os.ReadFile(path)
	if n := bytes.Count(lines, []byte("\n")); err != nil || n != 6 {
		t.Errorf("the export has %d lines, %v; want five minutes and a revision", n, err)
	}
}

func TestLedgerCommandsTellABrokenChainWithExitCode1(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/nines/v1/ledger/verify" {
			http.Error(w, `{"error":"no such thing"}`, http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"batches": 7, "broken": "batch 8 has another hash"}`))
	}))
	defer server.Close()
	code, out, _ := ledgerCall("verify", "--server", server.URL)
	if code != 1 || !strings.Contains(out, "broken: batch 8 has another hash") || !strings.Contains(out, "7 batches before it are whole") {
		t.Errorf("exit %d, printed %q", code, out)
	}
	code, _, errs := ledgerCall("stat", "--server", server.URL)
	if code != 1 || !strings.Contains(errs, "404") {
		t.Errorf("exit %d, said %q; want 1 and the server's answer", code, errs)
	}
	server.Close()
	if code, _, errs = ledgerCall("stat", "--server", server.URL); code != 1 || !strings.Contains(errs, "is it running?") {
		t.Errorf("exit %d, said %q; want 1 and a remedy", code, errs)
	}
}

func TestLedgerFollowKeepsACopyThatProvesItself(t *testing.T) {
	dir, _ := withBook(t)
	leader, err := ledger.Open(ledger.Config{Dir: filepath.Join(dir, "ledger")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.StripPrefix("/api/nines/v1/ledger/copy", leader.Handler()))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	copied := t.TempDir()
	out := &stopAt{text: "batch 2 of term 1", stop: stop}
	var errs bytes.Buffer
	if code := run(ctx, env{out, &errs}, []string{"ledger", "follow", "--server", server.URL, "--to-data", copied}); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	if err := leader.Close(); err != nil {
		t.Fatal(err)
	}
	server.Close()
	_, want, _ := ledgerCall("export", "--data", dir)
	code, got, said := ledgerCall("export", "--data", copied)
	if code != 0 || got != want || want == "" {
		t.Errorf("the copy exports\n%s%s\nwant\n%s", got, said, want)
	}
	if code, out, _ := ledgerCall("verify", "--data", copied); code != 0 || !strings.Contains(out, "the chain is whole: 2 batches") {
		t.Errorf("the copy is not whole: %s", out)
	}
	if code, _, _ := ledgerCall("follow", "--server", server.URL); code != 2 {
		t.Errorf("without a folder for the copy: exit %d, want 2", code)
	}
}

// stopAt stops what writes to it when a text has come.
type stopAt struct {
	text string
	stop func()
	buf  bytes.Buffer
}

func (s *stopAt) Write(p []byte) (int, error) {
	s.buf.Write(p)
	if strings.Contains(s.buf.String(), s.text) {
		s.stop()
	}
	return len(p), nil
}
