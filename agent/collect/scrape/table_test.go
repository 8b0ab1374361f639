package scrape

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"nines/pkg/metric"
)

func TestPageGroupsFamiliesAndShowsWhatTheFormatHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: `# HELP h Spoken\nwith "quotes" and \\.
# TYPE h histogram
h_bucket{le="5"} 1
h_bucket{le="10"} 2
h_bucket{le="+Inf"} 3
h_sum 4
h_count 3
# TYPE c_total counter
# HELP c_total Count.
c_total{path="a\"b"} 7
{"with.dots","label.dots"="v"} 1
plain NaN
`})()
		defer p.serve("b:1", &text{page: "# TYPE c_total counter\nc_total{path=\"x\"} 8\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", time.Minute, "a:1"), jobOf("k", time.Minute, "b:1"))
		sleep(2 * time.Second)
		page := b.page()
		for _, want := range []string{
			`# HELP h Spoken\nwith "quotes" and \\.
# TYPE h histogram
h_bucket{instance="a:1",job="j",le="5.0"} 1
h_bucket{instance="a:1",job="j",le="10.0"} 2
h_bucket{instance="a:1",job="j",le="+Inf"} 3
h_sum{instance="a:1",job="j"} 4
h_count{instance="a:1",job="j"} 3
`,
			"# TYPE with_dots untyped\nwith_dots{instance=\"a:1\",job=\"j\",label_dots=\"v\"} 1\n",
			"# TYPE plain untyped\nplain{instance=\"a:1\",job=\"j\"} NaN\n",
			"# TYPE up gauge\nup{instance=",
			"c_total{instance=\"a:1\",job=\"j\",path=\"a\\\"b\"} 7\n",
			"c_total{instance=\"b:1\",job=\"k\",path=\"x\"} 8\n",
		} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks\n%s", want)
			}
		}
		if strings.Count(page, "# TYPE c_total counter\n") != 1 {
			t.Error("a family stands in two places")
		}
		if t.Failed() {
			t.Log(page)
		}
		if _, err := metric.ParseText([]byte(page)); err != nil {
			t.Errorf("the page cannot be read: %v", err)
		}
		if got := b.own("nines_agent_scrape_series"); got != "19" {
			t.Errorf("series: %s, want 9 of the pages and 10 about them", got)
		}
	})
}

func TestSeriesWithTimesOfTheirOwnLeaveThePageWithTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		x := &text{page: fmt.Sprintf("x 1 %d\ny 1 %d\n", time.Now().UnixMilli(), time.Now().UnixMilli())}
		defer p.serve("a:1", x)()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 10*time.Second, "a:1"))
		sleep(time.Second)
		if page := b.page(); !strings.Contains(page, "\ny{") || !strings.Contains(page, "\nx{") {
			t.Fatalf("page:\n%s", page)
		}
		x.say(fmt.Sprintf("x 1 %d\n", time.Now().UnixMilli()))
		sleep(10 * time.Second)
		if page := b.page(); strings.Contains(page, "\ny{") || !strings.Contains(page, "\nx{") {
			t.Errorf("page:\n%s", page)
		}
		sleep(sweeping)
		if n := b.table.size(); n != 6 {
			t.Errorf("%d series are kept, want 6", n)
		}
		if b.table.families["y"] != nil {
			t.Error("a family without series is kept")
		}
		b.give("pods")
		sleep(time.Second)
		if n := b.table.size(); n != 0 {
			t.Errorf("%d series are kept of a target that has gone", n)
		}
	})
}

func TestSeriesAboveTheBoundAreSentAndNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		x := &text{page: "x{i=\"1\"} 1\nx{i=\"2\"} 1\nx{i=\"3\"} 1\n"}
		defer p.serve("a:1", x)()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.table.limit = 2
		b.give("pods", jobOf("j", 10*time.Second, "a:1"))
		sleep(11 * time.Second)
		if n := len(b.sink.of("x")); n != 6 {
			t.Errorf("%d samples were sent in two scrapes, want 6", n)
		}
		if n := b.table.size(); n != 2 {
			t.Errorf("%d series are kept, want 2", n)
		}
		if got := b.own("nines_agent_scrape_series_unseen_total"); got != "6" {
			t.Errorf("unseen: %s, want one of x and five about the scrape, once", got)
		}
		x.say("y 1\n")
		sleep(10 * time.Second)
		if h := history(b.sink.of("x")); strings.Count(h, "stale") != 3 {
			t.Errorf("series that are not kept get no markers: %s", h)
		}
	})
}

func TestTableIsAsBigAsWhatItHolds(t *testing.T) {
	tb := newTable(100, func() { t.Error("there was room") })
	owner := &target{id: "o"}
	for round := range 50 {
		var fresh []storage.SeriesRef
		var batch []sample
		for i := range 60 {
			ls := labels.FromStrings("__name__", "x", "i", fmt.Sprint(i), "round", fmt.Sprint(round))
			ref, _, made, err := tb.prepare(0, ls, int64(round), true, storage.AOptions{})
			if err != nil || !made {
				t.Fatalf("series %s: made %t, %v", ls, made, err)
			}
			fresh = append(fresh, ref)
			batch = append(batch, sample{ref: ref, t: int64(round), v: 1, n: noCount})
		}
		if round%2 == 0 {
			tb.rollback(fresh)
		} else {
			tb.commit(owner, batch)
			for i := range batch {
				batch[i].stale = true
			}
			tb.commit(owner, batch)
		}
		if n := tb.size(); n != 0 {
			t.Fatalf("round %d left %d series", round, n)
		}
		for _, ref := range fresh {
			if tb.find(ref) != nil {
				t.Fatal("a reference outlived its series")
			}
		}
	}
	if len(tb.chunks) != 1 {
		t.Errorf("the table grew to %d chunks", len(tb.chunks))
	}
}

func TestMarkerBehindANewerSampleIsRefused(t *testing.T) {
	tb := newTable(10, nil)
	a := &target{id: "a"}
	ls := labels.FromStrings("__name__", "x")
	ref, _, _, err := tb.prepare(0, ls, 10, true, storage.AOptions{})
	if err != nil {
		t.Fatal(err)
	}
	must := storage.AOptions{RejectOutOfOrder: true}
	if _, _, _, err := tb.prepare(ref, ls, 5, false, must); err != nil {
		t.Errorf("a sample that was not committed refuses others: %v", err)
	}
	tb.commit(a, []sample{{ref: ref, sink: 7, t: 10, v: 1, n: noCount}})
	for at, want := range map[int64]error{9: storage.ErrOutOfOrderSample, 10: storage.ErrDuplicateSampleForTimestamp, 11: nil} {
		for _, r := range []storage.SeriesRef{ref, 0} { // of this loop, and of another one
			if _, _, _, err := tb.prepare(r, ls, at, false, must); err != want {
				t.Errorf("marker at %d: %v, want %v", at, err, want)
			}
		}
	}
	if _, sink, _, err := tb.prepare(0, ls, 9, true, storage.AOptions{}); err != nil || sink != 7 {
		t.Errorf("an older sample: sink's reference %d, %v; want 7 and no error", sink, err)
	}
}

func TestJobWhoseCertificateComesLaterBeginsThen(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	srv.Close()
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x 1\n"})()
		ca := filepath.Join(t.TempDir(), "ca.pem")
		write := func() {
			if err := os.WriteFile(ca, authority, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write()
		sink, set, log := newSink(), metrics.NewSet(), &logs{}
		s, err := build(DefaultConfig(), sink, slog.New(slog.NewTextHandler(log, nil)), set, p.dial)
		if err != nil {
			t.Fatal(err)
		}
		j := jobOf("j", time.Minute, "a:1")
		j.Config.HTTPClientConfig.TLSConfig = commonconfig.TLSConfig{CAFile: ca}
		if err := s.Set("pods", []Job{j}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(ca); err != nil {
			t.Fatal(err)
		}
		b := &bench{Scraper: s, t: t, sink: sink, set: set, logs: log}
		b.run()
		defer b.stop()
		sleep(5 * time.Second)
		if got := b.own("nines_agent_scrape_jobs_failed_total"); got != "1" {
			t.Errorf("failed jobs: %s", got)
		}
		if len(sink.of("up")) != 0 {
			t.Error("the target is scraped without the authority")
		}
		write()
		sleep(sweeping)
		if h := history(sink.of("x")); h != "1" {
			t.Errorf("x: %q, once the certificate is there; the log:\n%s", h, log)
		}
	})
}

func TestEngineSaysTheSameOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &logs{}
		log := slog.New(newSparing(slog.NewTextHandler(out, nil))).With("pool", "a")
		for range 90 {
			log.Warn("no room", "target", "x")
			time.Sleep(time.Second)
		}
		log.Warn("another")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[1], "held_back=59") || !strings.Contains(lines[2], "another") {
			t.Errorf("got\n%s", out)
		}
	})
}

func TestDefaultJobIsAJobOfThisNode(t *testing.T) {
	a, b := DefaultJob("a"), DefaultJob("b")
	if a.JobName != "a" || b.JobName != "b" || a.EnableCompression || a.MetricsPath != "/metrics" || a.Scheme != "http" || !a.HonorTimestamps {
		t.Errorf("%+v", a)
	}
	if TerminatingLabel != model.MetaLabelPrefix+"nines_terminating" {
		t.Errorf("label %s", TerminatingLabel)
	}
}
