package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

const replaySLO = `apiVersion: openslo/v1
kind: SLO
metadata: {name: %[1]s, displayName: Answers of %[1]s}
spec:
  description: Answers without an error of the server.
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator:
    metadata: {name: %[1]s-requests}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{service="%[1]s",code!~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{service="%[1]s"}[5m]))'}}}
  objectives: [{displayName: answers, target: 0.999}]
`

func writeSLOs(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		name := fmt.Sprintf("svc-%d", i)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), fmt.Appendf(nil, replaySLO, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func replayCall(t testing.TB, args ...string) []map[string]any {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(context.Background(), env{&out, &errs}, append([]string{"replay", "--format", "json"}, args...)); code != 0 {
		t.Fatalf("replay %v: exit %d: %s", args, code, errs.String())
	}
	var answer []map[string]any
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	return answer
}

// Ten minutes of an outage in four hours: all samples answer 100 requests a
// scrape, and in the outage each of them fails.
func outage(add func(code string, t int64, v float64)) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	var good, bad float64
	for s := int64(0); s < 4*3600; s += 30 {
		if s >= 2*3600 && s < 2*3600+600 {
			bad += 100
		} else {
			good += 100
		}
		add("200", begin+s*1000, good)
		add("500", begin+s*1000, bad)
	}
}

func TestReplayGivesTheSameFromTextAndFromAFolder(t *testing.T) {
	slos := writeSLOs(t, 1)
	text := filepath.Join(t.TempDir(), "samples.txt")
	var b strings.Builder
	b.WriteString("# TYPE requests counter\n")
	for _, code := range []string{"200", "500"} {
		outage(func(c string, ts int64, v float64) {
			if c == code {
				fmt.Fprintf(&b, "requests_total{job=\"shop\",instance=\"a\",service=\"svc-0\",code=%q} %v %d\n", c, v, ts/1000)
			}
		})
	}
	b.WriteString("# EOF\n")
	if err := os.WriteFile(text, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := outageFolder(t)

	fromText, fromFolder := replayCall(t, "--slo", slos, "--samples", text), replayCall(t, "--slo", slos, "--samples", folder)
	if a, b := fmt.Sprint(fromText), fmt.Sprint(fromFolder); a != b {
		t.Errorf("from text\n%s\nfrom a folder\n%s", a, b)
	}
	got := fromText[0]
	// 480 scrapes, of which the first is a baseline: 479 × 100, 2000 of them bad.
	if got["total"] != 47_900.0 || got["good"] != 45_900.0 {
		t.Errorf("%v good of %v, want 45900 of 47900", got["good"], got["total"])
	}
	alerts := fmt.Sprint(got["alerts"])
	if !strings.Contains(alerts, "fired:2026-03-01T02:01:00Z resolved:2026-03-01T02:1") || !strings.Contains(alerts, "tier:fast") {
		t.Errorf("alerts are %s; want the fast tier within a minute of 02:00, resolved soon after 02:10", alerts)
	}
	// A part of the time.
	part := replayCall(t, "--slo", slos, "--samples", folder, "--from", "2026-03-01T01:00:00Z", "--to", "2026-03-01T02:00:00Z")[0]
	if part["total"] != 11_900.0 || part["good"] != 11_900.0 || fmt.Sprint(part["alerts"]) != "[]" {
		t.Errorf("the hour before the outage: %v good of %v, alerts %v; want 11900 of 11900 and none", part["good"], part["total"], part["alerts"])
	}
}

// Guards R5 in text: a start that _created tells belongs to the samples of its
// metric from then on, wherever its line stands, and a month of one family is
// read in one pass.
func TestReplayReadsStartsFromText(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Unix()
	var b strings.Builder
	b.WriteString("# TYPE requests counter\n")
	const scrapes = 40_000
	for i := range int64(scrapes) {
		v := 10 * i
		if i >= 1000 {
			v = 10*i + 500 // began anew with more than it had: only its start tells
		}
		fmt.Fprintf(&b, "requests_total{job=\"shop\",instance=\"a\",service=\"svc-0\",code=\"200\"} %d %d\n", v, begin+15*i)
	}
	for _, start := range []int64{begin + 15*1000 - 5, begin - 3600} {
		fmt.Fprintf(&b, "requests_created{job=\"shop\",instance=\"a\",service=\"svc-0\",code=\"200\"} %d.5\n", start)
	}
	b.WriteString("# EOF\n")
	text := filepath.Join(t.TempDir(), "samples.txt")
	if err := os.WriteFile(text, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := replayCall(t, "--slo", writeSLOs(t, 1), "--samples", text)[0]
	// 9990 before the start, all of the new life after it.
	if want := 9990 + 10*float64(scrapes-1) + 500; got["total"] != want {
		t.Errorf("%v events, want %v", got["total"], want)
	}
}

// BenchmarkReplay replays a folder of 100 SLOs with 20 series each at 30 s: the
// figure is scaled to a month.
func BenchmarkReplay(b *testing.B) {
	const slos, series, hours = 100, 20, 24
	folder := b.TempDir()
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	values := make([]float64, slos*series)
	for h := int64(0); h < hours; h += 2 {
		w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), folder, 2*3_600_000)
		if err != nil {
			b.Fatal(err)
		}
		app := w.Appender(context.Background())
		for i := range values {
			ls := labels.FromStrings("__name__", "requests_total", "job", "shop", "instance", fmt.Sprint("pod-", i%series/5),
				"service", fmt.Sprint("svc-", i/series), "code", []string{"200", "201", "204", "404", "500"}[i%5])
			for s := h * 3600; s < (h+2)*3600; s += 30 {
				if i%5 < 4 || rand.IntN(1000) == 0 {
					values[i] += float64(rand.IntN(300))
				}
				if _, err := app.Append(0, ls, begin+s*1000, values[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
		if err := app.Commit(); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
	paths := writeSLOs(b, slos)
	for b.Loop() {
		if got := replayCall(b, "--slo", paths, "--samples", folder); len(got) != slos {
			b.Fatalf("%d objectives", len(got))
		}
	}
	samples := float64(slos * series * hours * 120)
	b.ReportMetric(samples*float64(b.N)/b.Elapsed().Seconds()/1e6, "Msamples/s")
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)*30*24/hours, "s/month")
}
