package evaluate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

// nothingRaw is a store without samples: what the evaluator itself costs.
type nothingRaw struct{}

func (nothingRaw) Querier(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }
func (nothingRaw) MinTime() (time.Time, bool)                    { return time.Time{}, false }
func (nothingRaw) MaxTime() (time.Time, bool)                    { return time.Time{}, false }
func (nothingRaw) ID() string                                    { return "nothing" }

// load is a number of objectives with series of their own, which are all
// scraped each interval.
type load struct {
	ev      *Evaluator
	book    *ledger.Book
	samples [][]store.Sample // in the order of the scrape's seconds
	now     time.Time
}

const (
	loadSeries   = 10
	loadInterval = 15
)

func newLoad(b *testing.B, objectives int) *load {
	l := &load{now: time.UnixMilli(base).UTC(), samples: make([][]store.Sample, loadInterval)}
	var err error
	if l.book, err = ledger.Open(ledger.Config{Dir: b.TempDir()}, silent); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.book.Close(); err != nil {
			b.Error(err)
		}
	})
	l.ev = New(Config{
		Raw: nothingRaw{}, Book: l.book, Retention: time.Hour, Term: 1, Started: l.now.Add(-time.Hour),
		Log: silent, Registry: prometheus.NewRegistry(),
	})
	var defs []sla.Objective
	for i := range objectives {
		service := fmt.Sprintf("svc-%d", i)
		o := sla.Objective{
			SLO: service, Name: "0", Service: service, Window: sla.Window{Rolling: 30 * 24 * time.Hour},
			SLI: sla.SLI{
				Good:  fmt.Sprintf(`sum(rate(http_requests_total{service="%s",code!~"5.."}[5m]))`, service),
				Total: fmt.Sprintf(`sum(rate(http_requests_total{service="%s"}[5m]))`, service),
			},
		}
		o.Target, _ = sla.ParseTarget("0.999")
		o.ID = sla.ObjectiveID("", "", service, "0", nil, o.SLI)
		defs = append(defs, o)
		at := i % loadInterval
		for s := range loadSeries {
			code := []string{"200", "201", "204", "404", "500"}[s%5]
			l.samples[at] = append(l.samples[at], store.Sample{
				Ref: uint64(i*loadSeries + s + 1),
				Labels: labels.FromStrings("__name__", "http_requests_total", "service", service, "code", code,
					"job", "svc", "instance", fmt.Sprintf("%s-%d", service, s/5), "cluster", "c"),
			})
		}
	}
	if err := l.ev.SetObjectives(context.Background(), defs, l.now); err != nil {
		b.Fatal(err)
	}
	return l
}

// minute lets a minute of scrapes and ticks pass.
func (l *load) minute(b *testing.B) {
	for range 60 {
		l.now = l.now.Add(time.Second)
		batch := l.samples[int(l.now.Unix())%loadInterval]
		for len(batch) > 0 {
			part := batch[:min(len(batch), 2000)] // a remote-write request
			for i := range part {
				part[i].T = l.now.UnixMilli()
				if n := rand.IntN(5000); part[i].Labels.Get("code") != "500" {
					part[i].V += float64(n % 50)
				} else if n == 0 {
					part[i].V++ // a failure now and then
				}
			}
			l.ev.Observe(part)
			batch = batch[len(part):]
		}
		if l.now.Unix()%5 == 0 {
			if err := l.ev.Tick(context.Background(), l.now); err != nil {
				b.Fatal(err)
			}
			l.ev.Burning(l.now, func(sla.ID) bool { return false })
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// benchmarkObjectives measures a minute of evaluation: samples, closing,
// booking, windows and the look for alerts.
func benchmarkObjectives(b *testing.B, objectives int) {
	before := heap()
	l := newLoad(b, objectives)
	// Half an hour fills the windows' edges that are near.
	for range 30 {
		l.minute(b)
	}
	b.ResetTimer()
	begun := cpuTime()
	for b.Loop() {
		l.minute(b)
	}
	b.StopTimer()
	took := cpuTime() - begun
	minutes := float64(b.N * objectives)
	b.ReportMetric(float64(took.Nanoseconds())/minutes, "cpu-ns/objective-minute")
	b.ReportMetric(float64(took.Nanoseconds())/minutes/float64(loadSeries*60/loadInterval), "cpu-ns/sample")
	b.ReportMetric(took.Seconds()/float64(b.N)/60, "cores")
	b.ReportMetric((heap()-before)/float64(objectives), "B/objective")
	l.ev.mu.Lock()
	for part, n := range l.ev.memory() {
		b.ReportMetric(float64(n)/float64(objectives), part+"-B/objective")
	}
	l.ev.mu.Unlock()
}

func BenchmarkObjectives1000(b *testing.B)  { benchmarkObjectives(b, 1_000) }
func BenchmarkObjectives50000(b *testing.B) { benchmarkObjectives(b, 50_000) }

// BenchmarkObserve is what the evaluator adds to a remote-write request: the
// series of 1,000 objectives, each sample once. The first sample of a series,
// for which its objectives are looked up, is told apart.
func BenchmarkObserve(b *testing.B) {
	l := newLoad(b, 1_000)
	observe := func() time.Duration {
		l.now = l.now.Add(time.Second)
		begun := time.Now()
		for _, batch := range l.samples {
			for i := range batch {
				batch[i].T = l.now.UnixMilli()
				batch[i].V += float64(i % 7)
			}
			b.StartTimer()
			l.ev.Observe(batch)
			b.StopTimer()
		}
		return time.Since(begun)
	}
	const series = 1_000 * loadSeries
	b.StopTimer()
	first := observe()
	b.ResetTimer()
	for range b.N {
		observe()
	}
	b.ReportMetric(float64(first.Nanoseconds())/series, "first-ns/series")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/sample")
}
