package ledger

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nines/pkg/sla"
)

var update = flag.Bool("update", false, "write golden files")

// exportBook has a minute of every sort.
func exportBook(t *testing.T, b *Book) {
	t.Helper()
	f := sla.Figures{
		Counts:         sla.Counts{GoodLow: 1_500_000, GoodHigh: 2_000_000, Total: 12_000_001, Expected: 60_000, Counted: 59_500, Timed: 0},
		Gaps:           []sla.Gap{{From: 29_000_000 - 5, To: 29_000_000, GoodLow: 1, GoodHigh: 1_000_000, Total: 3_000_000}},
		IntervalMillis: 15_000, Flags: sla.FlagSampled | sla.FlagLowerBound | 1<<31,
	}
	book(t, b, 1_740_000_000_000, first(2, 29_000_000, f), first(1, 29_000_001, figures(7)), first(1, 29_000_000+1440, figures(8)))
	book(t, b, 1_740_000_060_123, revision(2, 29_000_000, sla.Figures{Counts: sla.Counts{GoodLow: -1, GoodHigh: -1_000_000, Total: math.MinInt64}}))
	book(t, b, 1_740_000_120_000, first(2, 29_000_001, sla.Figures{}), Entry{Objective: id(2), Minute: 29_000_000, Revision: true, Reason: "a \"quoted\", <odd>\nreason", Author: "ann"})
}

func TestExportWritesEachBookingAndItsRevisions(t *testing.T) {
	b := open(t, t.TempDir())
	exportBook(t, b)
	for _, format := range []string{"ndjson", "csv"} {
		var out, again bytes.Buffer
		if err := b.Export(context.Background(), &out, ExportOptions{Format: format}); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "export."+format)
		if *update {
			if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s:\n%s\nwant\n%s", format, out.Bytes(), want)
		}
		if format == "ndjson" {
			for l := range strings.Lines(out.String()) {
				if !json.Valid([]byte(l)) {
					t.Errorf("not JSON: %s", l)
				}
			}
		} else if rows, err := csv.NewReader(&out).ReadAll(); err != nil || len(rows) != 7 || len(rows[3]) != len(exportColumns) {
			t.Errorf("%d rows, %v", len(rows), err)
		}
		// Sealed days are written with the same bytes.
		sealed(t, b, 29_000_000+9*testDay)
		if err := b.Export(context.Background(), &again, ExportOptions{Format: format}); err != nil || !bytes.Equal(again.Bytes(), want) {
			t.Errorf("%s, sealed: %v\n%s", format, err, again.Bytes())
		}
	}
}

func TestExportOfAPartAsOfABatch(t *testing.T) {
	b := open(t, t.TempDir())
	exportBook(t, b)
	lines := func(o ExportOptions) int {
		t.Helper()
		var out bytes.Buffer
		if err := b.Export(context.Background(), &out, o); err != nil {
			t.Fatal(err)
		}
		return strings.Count(out.String(), "\n")
	}
	for name, c := range map[string]struct {
		o    ExportOptions
		want int
	}{
		"all":          {ExportOptions{}, 6},
		"an objective": {ExportOptions{Objectives: []sla.ID{id(2), id(2)}}, 4},
		"as of":        {ExportOptions{AsOf: 2}, 4},
		"a minute":     {ExportOptions{From: 29_000_001, To: 29_000_002}, 2},
		"nothing":      {ExportOptions{From: 5, To: 9}, 0},
	} {
		if got := lines(c.o); got != c.want {
			t.Errorf("%s: %d lines, want %d", name, got, c.want)
		}
	}
	if err := b.Export(context.Background(), &bytes.Buffer{}, ExportOptions{Format: "xml"}); err == nil || !strings.Contains(err.Error(), "choose ndjson or csv") {
		t.Errorf("got %v", err)
	}
	stat, err := b.Stat()
	want := Stats{Objectives: 2, Minutes: 4, Open: 4, Revisions: 2, Gaps: 1, Bytes: stat.Bytes, Head: b.Head(), First: 29_000_000, Last: 29_000_000 + 1440}
	if err != nil || stat != want || stat.Bytes == 0 {
		t.Errorf("%+v, %v, want %+v", stat, err, want)
	}
	sealed(t, b, 29_000_000+9*testDay)
	want.Open, want.Blocks = 0, 3
	if stat, err = b.Stat(); err != nil {
		t.Fatal(err)
	}
	if want.Bytes = stat.Bytes; stat != want {
		t.Errorf("sealed: %+v, want %+v", stat, want)
	}
}
