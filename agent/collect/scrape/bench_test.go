package scrape

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// null counts commits and keeps nothing.
type null struct {
	commits atomic.Int64
	after   func(n int64)
}

func (n *null) AppenderV2(context.Context) storage.AppenderV2 { return n }
func (n *null) Append(storage.SeriesRef, labels.Labels, int64, int64, float64, *histogram.Histogram, *histogram.FloatHistogram, storage.AOptions) (storage.SeriesRef, error) {
	return 1, nil
}
func (n *null) Commit() error   { n.after(n.commits.Add(1)); return nil }
func (n *null) Rollback() error { return nil }

// fiveThousand is a page of 5,000 series: 300 families of counters and gauges
// with ten series each, and 2,000 series of histograms.
func fiveThousand(b *testing.B, format expfmt.Format) []byte {
	b.Helper()
	reg := prometheus.NewRegistry()
	for f := range 150 {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: fmt.Sprintf("http_requests_of_kind_%d_total", f), Help: "Requests by the usual labels."}, []string{"method", "code", "handler"})
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: fmt.Sprintf("queue_length_of_kind_%d", f), Help: "Length of a queue by its name."}, []string{"queue", "shard"})
		reg.MustRegister(c, g)
		for i := range 10 {
			c.WithLabelValues("GET", "200", fmt.Sprintf("/api/v1/things/%d", i)).Add(float64(i * 1237))
			g.WithLabelValues("incoming", fmt.Sprint(i)).Set(float64(i) / 3)
		}
	}
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds", Help: "Time of requests.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 17)}, []string{"handler"})
	reg.MustRegister(h)
	for i := range 100 {
		h.WithLabelValues(fmt.Sprintf("/api/v1/things/%d", i)).Observe(0.3)
	}
	fams, err := reg.Gather()
	if err != nil {
		b.Fatal(err)
	}
	var page bytes.Buffer
	enc := expfmt.NewEncoder(&page, format, expfmt.WithCreatedLines())
	for _, f := range fams {
		if err := enc.Encode(f); err != nil {
			b.Fatal(err)
		}
	}
	if c, ok := enc.(expfmt.Closer); ok {
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return page.Bytes()
}

// cpu is what the process used so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkScrapeOf5000Series is one scrape over HTTP, with the work of the
// server that sends a page made beforehand. The engine runs on its own clock, so
// that cpu-ns/op counts and ns/op, the interval, does not. heap-B/series is what
// stays of a series between scrapes.
func BenchmarkScrapeOf5000Series(b *testing.B) {
	for _, c := range []struct {
		name     string
		protocol config.ScrapeProtocol
		format   expfmt.Format
		zip      bool
	}{
		{"protobuf", config.PrometheusProto, expfmt.NewFormat(expfmt.TypeProtoDelim), false},
		{"openmetrics", config.OpenMetricsText1_0_0, expfmt.NewFormat(expfmt.TypeOpenMetrics), false},
		{"text", config.PrometheusText0_0_4, expfmt.NewFormat(expfmt.TypeTextPlain), false},
		{"text gzip", config.PrometheusText0_0_4, expfmt.NewFormat(expfmt.TypeTextPlain), true},
	} {
		b.Run(c.name, func(b *testing.B) {
			page := fiveThousand(b, c.format)
			var zipped bytes.Buffer
			z := gzip.NewWriter(&zipped)
			z.Write(page)
			z.Close()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", string(c.format))
				if c.zip {
					w.Header().Set("Content-Encoding", "gzip")
					w.Write(zipped.Bytes())
					return
				}
				w.Write(page)
			}))
			defer srv.Close()
			heap := func() float64 {
				runtime.GC()
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc)
			}
			before := heap()
			first, rest := make(chan struct{}), make(chan struct{})
			hold := make(chan struct{})
			sink := &null{}
			sink.after = func(n int64) {
				switch n {
				case 3: // caches are warm
					close(first)
					<-hold
				case int64(b.N) + 3:
					close(rest)
				}
			}
			s, err := build(DefaultConfig(), sink, slog.New(slog.NewTextHandler(io.Discard, nil)), metrics.NewSet(), (&net.Dialer{}).DialContext)
			if err != nil {
				b.Fatal(err)
			}
			j := jobOf("j", 20*time.Millisecond, address(srv.URL))
			j.Config.ScrapeProtocols = []config.ScrapeProtocol{c.protocol}
			if err := s.Set("bench", []Job{j}); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- s.Run(ctx) }()
			<-first
			kept := heap() - before
			b.ReportAllocs()
			b.ResetTimer()
			began := cpu(b)
			close(hold)
			<-rest
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op")
			if n := s.table.size(); n != 5005 {
				b.Errorf("%d series, want 5005", n)
			}
			b.ReportMetric(kept/math.Max(1, float64(s.table.size())), "heap-B/series")
			b.ReportMetric(float64(len(page)), "page-B")
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}
