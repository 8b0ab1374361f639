package store

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/value"

	"nines/pkg/metric"
)

func newSelf(t *testing.T, db *DB, reg *prometheus.Registry, started time.Time) *SelfScrape {
	t.Helper()
	s, err := NewSelfScrape(db, SelfScrapeConfig{Gatherer: reg, Started: started,
		Labels: map[string]string{"instance": "here", "cluster": "c"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSelfScrapeStoresTheProcessAsATarget(t *testing.T) {
	db := openTest(t, func(c *Config) { c.Now = time.Now })
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c_total", Help: "A c."}, []string{"instance"})
	counter.WithLabelValues("mine").Add(3)
	hist := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h_seconds", Buckets: []float64{0.5, 1}})
	hist.Observe(0.7)
	sum := prometheus.NewSummary(prometheus.SummaryOpts{Name: "s_seconds", Objectives: map[float64]float64{0.5: 0.05}})
	sum.Observe(2)
	untyped := prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: "u"}, func() float64 { return 4 })
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
	gauge.Set(5)
	reg.MustRegister(counter, hist, sum, untyped, gauge)
	var hooked []Sample
	db.SetHook(func(b []Sample) { hooked = append(hooked, b...) })
	now := time.Now() // the library stamps counters with this clock
	if err := newSelf(t, db, reg, now.Add(-time.Hour)).Scrape(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	got := map[string]Sample{}
	for _, s := range hooked {
		ls := s.Labels
		for name, want := range map[string]string{"job": "nines-aggregator", "instance": "here", "cluster": "c"} {
			if ls.Get(name) != want {
				t.Errorf("%s lacks %s=%q", ls, name, want)
			}
		}
		key := ls.Get("__name__")
		for _, extra := range []string{"le", "quantile", "exported_instance"} {
			if v := ls.Get(extra); v != "" {
				key += " " + v
			}
		}
		got[key] = s
	}
	for key, want := range map[string]float64{
		"up": 1, "c_total mine": 3, "g": 5, "u": 4, "h_seconds_bucket 0.5": 0, "h_seconds_bucket 1": 1, "h_seconds_bucket +Inf": 1,
		"h_seconds_sum": 0.7, "h_seconds_count": 1, "s_seconds 0.5": 2, "s_seconds_sum": 2, "s_seconds_count": 1,
	} {
		s, ok := got[key]
		if !ok || s.V != want || s.T != now.UnixMilli() {
			t.Errorf("%s: got %+v, want %v", key, s, want)
		}
	}
	if len(got) != 12 {
		t.Errorf("%d series, want 12", len(got))
	}
	// Gauges have no start; counters tell their own where the library knows it.
	if got["g"].ST != 0 || got["up"].ST != 0 {
		t.Error("a gauge has a start timestamp")
	}
	for _, key := range []string{"c_total mine", "h_seconds_count", "h_seconds_bucket 1", "s_seconds_sum"} {
		if st := got[key].ST; st < now.Add(-time.Minute).UnixMilli() || st > now.UnixMilli() {
			t.Errorf("%s starts at %d, want its creation just before %d", key, st, now.UnixMilli())
		}
	}
	if md := db.meta.byName["c_total"]; len(md) != 1 || md[0].Help != "A c." {
		t.Errorf("metadata is %+v", md)
	}
}

// constCounter is a counter that does not tell when it began.
type constCounter struct{ d *prometheus.Desc }

func (c constCounter) Describe(ch chan<- *prometheus.Desc) { ch <- c.d }
func (c constCounter) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(c.d, prometheus.CounterValue, 9)
}

func TestSelfScrapeGivesCountersTheStartOfTheProcess(t *testing.T) {
	db := openTest(t)
	reg := prometheus.NewRegistry()
	reg.MustRegister(constCounter{prometheus.NewDesc("k_total", "A k.", nil, nil)})
	if err := newSelf(t, db, reg, base.Add(-time.Hour)).Scrape(t.Context(), base); err != nil {
		t.Fatal(err)
	}
	if got := brief(read(t, db, "k_total")); got != "9@0/-3600" {
		t.Errorf("stored %q", got)
	}
}

func TestSelfScrapeEndsVanishedSeriesWithAStaleMarker(t *testing.T) {
	db := openTest(t)
	reg := prometheus.NewRegistry()
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "g"}, []string{"l"})
	gauge.WithLabelValues("a").Set(1)
	reg.MustRegister(gauge)
	self := newSelf(t, db, reg, base)
	for i := range 3 {
		if i == 1 {
			gauge.DeleteLabelValues("a")
		}
		if err := self.Scrape(t.Context(), base.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, db, "g")
	if len(got) != 2 || got[0].V != 1 || !value.IsStaleNaN(got[1].V) || got[1].T != ms(time.Second) {
		t.Errorf("stored %+v, want 1 and one stale marker", got)
	}
}

func TestSelfScrapeRunsEachIntervalUntilTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(filepath.Join(t.TempDir(), "metrics"))
		cfg.Now = nil
		db, err := Open(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		self := newSelf(t, db, prometheus.NewRegistry(), time.Now())
		go func() { done <- self.Run(ctx) }()
		time.Sleep(46 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(read(t, db, "up")); n != 4 {
			t.Errorf("%d scrapes in 46 s, want 4", n)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		// With the store closed it goes on trying and says so once.
		var text strings.Builder
		self.log = slog.New(slog.NewTextHandler(&text, nil))
		ctx, cancel = context.WithTimeout(context.Background(), 31*time.Second)
		defer cancel()
		if err := self.Run(ctx); err != nil {
			t.Error(err)
		}
		if n := strings.Count(text.String(), "could not be stored"); n != 1 {
			t.Errorf("said it %d times, want once: %s", n, text.String())
		}
	})
}

func TestSelfScrapeRefusesWhatCannotWork(t *testing.T) {
	if _, err := NewSelfScrape(nil, SelfScrapeConfig{}, nil); err == nil {
		t.Error("took no gatherer")
	}
	if _, err := NewSelfScrape(nil, SelfScrapeConfig{Gatherer: prometheus.NewRegistry(), Interval: time.Millisecond}, nil); err == nil {
		t.Error("took an interval of 1 ms")
	}
	if got := number(math.Inf(1)); got != "+Inf" {
		t.Errorf("wrote %q", got)
	}
}

func TestTargetStoresATickAndEndsWhatVanished(t *testing.T) {
	db := openTest(t)
	target := db.Target(map[string]string{"job": "kube-state-metrics", "instance": "i"})
	family := func(nodes ...string) []metric.Family {
		f := metric.Family{Name: "kube_node_created", Help: "When.", Type: metric.Gauge}
		for _, n := range nodes {
			f.Series = append(f.Series, metric.Series{Labels: metric.Labels("node", n, "job", "theirs"), Value: 7, Start: ms(-time.Hour)})
		}
		return []metric.Family{f}
	}
	if err := target.Write(t.Context(), base, family("a", "b")); err != nil {
		t.Fatal(err)
	}
	if err := target.Write(t.Context(), base.Add(time.Second), family("b")); err != nil {
		t.Fatal(err)
	}
	v, err := db.Query(t.Context(), "kube_node_created", base.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := v.String(), `{__name__="kube_node_created", exported_job="theirs", instance="i", job="kube-state-metrics", node="b"} => 7 @[1795420801000]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if md := db.meta.byName["kube_node_created"]; len(md) != 1 || md[0].Help != "When." {
		t.Errorf("metadata is %+v", md)
	}
	var refused *RefusedError
	if err := target.Write(t.Context(), base.Add(time.Hour), family("b")); !errors.As(err, &refused) {
		t.Errorf("an hour ahead: got %v, want a refusal", err)
	}
}
