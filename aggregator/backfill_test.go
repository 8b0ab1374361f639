package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

// outageFolder is a TSDB with the samples of outage.
func outageFolder(t *testing.T) string {
	t.Helper()
	cfg := store.DefaultConfig()
	cfg.Dir, cfg.Retention = t.TempDir(), 10*365*24*time.Hour
	db, err := store.Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	app := db.Appender(context.Background())
	outage(func(code string, ts int64, v float64) {
		if err := app.Append(labels.FromStrings("__name__", "requests_total", "job", "shop", "instance", "a", "service", "svc-0", "code", code), 0, ts, v); err != nil {
			t.Fatal(err)
		}
	})
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg.Dir
}

func backfillCall(t *testing.T, args ...string) (results []backfilled, code int, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(context.Background(), env{&o, &e}, append([]string{"backfill", "--format", "json"}, args...))
	if code == 0 {
		if err := json.Unmarshal(o.Bytes(), &results); err != nil {
			t.Fatalf("%v in %s", err, o.String())
		}
	}
	return results, code, e.String()
}

func TestBackfillBooksWhatReplayCounts(t *testing.T) {
	slos, folder, data := writeSLOs(t, 2), outageFolder(t), t.TempDir()
	want := replayCall(t, "--slo", slos, "--samples", folder)
	span := []string{"--from", "2026-02-28T20:00:00Z", "--to", "2026-03-01T12:00:00Z"}
	args := append([]string{"--slo", slos, "--source", folder, "--data", data}, span...)
	got, code, errs := backfillCall(t, args...)
	if code != 0 || len(got) != 2 {
		t.Fatalf("exit %d, %+v: %s", code, got, errs)
	}
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	// 240 minutes have samples: before the first one there is nothing to say, and
	// after the last one another source may know more.
	if r := got[0]; r.SLO != "svc-0" || r.Booked != 240 || r.From == nil || !r.From.Equal(begin) {
		t.Errorf("%+v, want 240 minutes from %s on", r, begin)
	}
	if r := got[1]; r.SLO != "svc-1" || r.Booked != 0 || r.From != nil {
		t.Errorf("%+v, want nothing of an SLO without samples", r)
	}

	book, err := ledger.Open(ledger.Config{Dir: filepath.Join(data, "ledger"), ReadOnly: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := book.Sum(got[0].ObjectiveID, sla.MinuteOf(begin), sla.MinuteOf(begin)+1440, 0)
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil || fmt.Sprintf("%s of %s", sla.Events(sum.GoodHigh), sla.Events(sum.Total)) != fmt.Sprintf("%.0f of %.0f", want[0]["good"], want[0]["total"]) {
		t.Errorf("the book has %s good of %s, %v; replay says %v of %v", sla.Events(sum.GoodHigh), sla.Events(sum.Total), err, want[0]["good"], want[0]["total"])
	}
	if sum.Flags&sla.FlagReadBack == 0 {
		t.Error("the minutes are not marked as read back")
	}

	again, code, errs := backfillCall(t, args...)
	if code != 0 || again[0].Booked != 0 || again[0].Already != 240 {
		t.Errorf("again: exit %d, %+v: %s", code, again, errs)
	}
}

// What is read in two parts is what is read in one: only the time between the
// last sample of the first part and its end is not seen, for nothing told yet
// that the source would come back.
func TestBackfillInPartsLosesNoEvent(t *testing.T) {
	slos, folder := writeSLOs(t, 1), outageFolder(t)
	total := func(data string, parts ...string) (sum sla.Sum) {
		t.Helper()
		var id sla.ID
		for i := 1; i < len(parts); i++ {
			got, code, errs := backfillCall(t, "--slo", slos, "--source", folder, "--data", data, "--from", parts[i-1], "--to", parts[i])
			if code != 0 {
				t.Fatalf("exit %d: %s", code, errs)
			}
			id = got[0].ObjectiveID
		}
		book, err := ledger.Open(ledger.Config{Dir: filepath.Join(data, "ledger"), ReadOnly: true}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer book.Close()
		if sum, err = book.Sum(id, 0, 1<<40, 0); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	whole := total(t.TempDir(), "2026-03-01T00:00:00Z", "2026-03-01T04:00:00Z")
	parts := total(t.TempDir(), "2026-03-01T00:00:00Z", "2026-03-01T01:30:00Z", "2026-03-01T02:05:00Z", "2026-03-01T04:00:00Z")
	if parts.Total != whole.Total || parts.GoodHigh != whole.GoodHigh || parts.Minutes != whole.Minutes {
		t.Errorf("in parts %+v, as one %+v", parts, whole)
	}
	if lost := whole.Counted.Sub(parts.Counted); lost != sla.NewInt128(2*30_000) {
		t.Errorf("the parts count %s ms less, want twice the 30 s behind the last sample of a part", lost)
	}
}

func TestBackfillSaysWhatIsWrongBeforeItReads(t *testing.T) {
	slos, folder := writeSLOs(t, 1), outageFolder(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--source", folder}, 2, "give --slo PATH"},
		{[]string{"--slo", slos}, 2, "--source URL, FOLDER or FILE"},
		{[]string{"--slo", slos, "--source", folder, "--from", "yesterday"}, 2, "neither RFC 3339"},
		{[]string{"--slo", slos, "--source", folder, "--from", "2026-03-02T00:00:00Z", "--to", "2026-03-01T00:00:00Z"}, 2, "is not before --to"},
		{[]string{"--slo", slos, "--source", folder, "--server", "http://127.0.0.1:1"}, 1, "is it running?"},
		{[]string{"--slo", slos, "--source", t.TempDir(), "--data", t.TempDir()}, 1, "no folder of a Prometheus database"},
		{[]string{"--slo", slos, "--source", folder, "--data", t.TempDir(), "--to", "2020-01-01T00:00:00Z"}, 1, "holds no samples"},
	} {
		if _, code, errs := backfillCall(t, c.args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("backfill %v: exit %d and %q, want %d and %q", c.args, code, errs, c.code, c.want)
		}
	}
}
