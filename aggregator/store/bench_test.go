package store

import (
	"fmt"
	"net/http/httptest"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

const benchSeries = 5000

// benchLabels are like those of a pod's counters in a cluster.
func benchLabels() []labels.Labels {
	all := make([]labels.Labels, benchSeries)
	for i := range all {
		all[i] = series("http_requests_total", "job", "shop/checkout", "instance", fmt.Sprintf("10.0.%d.%d:8080", i/20/250, i/20%250),
			"namespace", "shop", "pod", fmt.Sprintf("checkout-6d5f7c9b8d-%05d", i/20), "container", "checkout", "endpoint", "http-metrics",
			"service", "checkout", "code", strconv.Itoa(200+i%20), "method", "GET", "cluster", "prod-eu-1")
	}
	return all
}

// cpu is the time that this process has spent on a processor.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReceive is remote write from the body on: 5,000 series, one sample
// each 15 s, in bodies of the given number of samples.
func BenchmarkReceive(b *testing.B) {
	all := benchLabels()
	for _, version := range []int{1, 2} {
		for _, size := range []int{2000, 10000} {
			b.Run(fmt.Sprintf("v%d/%d", version, size), func(b *testing.B) {
				now := base.Add(-20 * time.Hour)
				db := openTest(b, func(c *Config) { c.Now = func() time.Time { return now } })
				sum := 0.0
				db.SetHook(func(batch []Sample) {
					for i := range batch {
						sum += batch[i].V
					}
				})
				h := db.Receiver()
				next, round, spent := 0, 0, time.Duration(0)
				body := func() ([]byte, string) { // the next size samples
					if version == 1 {
						var req prompb.WriteRequest
						for range size {
							req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
								Labels:  prompb.FromLabels(all[next], nil),
								Samples: []prompb.Sample{{Timestamp: now.UnixMilli(), Value: float64(round * next)}}})
							if next = (next + 1) % len(all); next == 0 {
								round++
								now = now.Add(15 * time.Second)
							}
						}
						plain, err := req.Marshal()
						if err != nil {
							b.Fatal(err)
						}
						return snappy.Encode(nil, plain), "application/x-protobuf"
					}
					var req writev2.Request
					syms := writev2.NewSymbolTable()
					help := syms.Symbolize("Requests answered.")
					for range size {
						req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
							LabelsRefs: syms.SymbolizeLabels(all[next], nil),
							Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: help},
							Samples:    []writev2.Sample{{Timestamp: now.UnixMilli(), StartTimestamp: ms(-24 * time.Hour), Value: float64(round * next)}}})
						if next = (next + 1) % len(all); next == 0 {
							round++
							now = now.Add(15 * time.Second)
						}
					}
					req.Symbols = syms.Symbols()
					plain, err := req.Marshal()
					if err != nil {
						b.Fatal(err)
					}
					return snappy.Encode(nil, plain), "application/x-protobuf;proto=io.prometheus.write.v2.Request"
				}
				send := func() {
					packed, kind := body()
					before := cpu(b)
					b.StartTimer()
					rec := httptest.NewRecorder()
					h.ServeHTTP(rec, httpWrite(packed, kind))
					b.StopTimer()
					spent += cpu(b) - before
					if rec.Code != 204 {
						b.Fatal(rec.Code, rec.Body)
					}
				}
				b.StopTimer()
				for range 10 {
					send() // makes the series
				}
				spent = 0
				b.ResetTimer()
				b.ReportAllocs()
				for range b.N {
					send()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/sample")
				b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*size), "cpu-ns/sample")
				_ = sum
			})
		}
	}
}

// BenchmarkBesideCatchUp is one small request after another while another
// sender, with 32 requests at a time, sends what it has kept of a day. refused
// is the share of the small ones that were put off.
func BenchmarkBesideCatchUp(b *testing.B) {
	for _, mode := range []string{"fair", "unbounded"} {
		b.Run(mode, func(b *testing.B) {
			db := openTest(b, func(c *Config) {
				if mode == "unbounded" {
					c.Limits.Senders.Default.Requests = c.Limits.Requests
				}
			})
			h := db.Receiver()
			all := benchLabels()
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for worker := range 32 {
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						req := &prompb.WriteRequest{}
						for _, ls := range all[worker*100 : worker*100+100] {
							ts := prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil)}
							for k := range 20 {
								ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: ms(-20*time.Hour) + int64(20*i+k)*1000, Value: 1})
							}
							req.Timeseries = append(req.Timeseries, ts)
						}
						r := v1HTTP(b, req)
						r.RemoteAddr = "10.0.0.1:1"
						h.ServeHTTP(httptest.NewRecorder(), r)
					}
				})
			}
			refused, n := 0, int64(0)
			for b.Loop() {
				n++
				r := v1HTTP(b, v1Request(Sample{T: ms(-10*time.Hour) + n, V: 1}))
				r.RemoteAddr = "10.0.0.2:1"
				rec := httptest.NewRecorder()
				if h.ServeHTTP(rec, r); rec.Code == 503 {
					refused++
				} else if rec.Code != 204 {
					b.Fatal(rec.Code, rec.Body)
				}
			}
			b.ReportMetric(float64(refused)/float64(b.N), "refused")
			close(stop)
			wg.Wait()
		})
	}
}

// BenchmarkAppendBulk is what replay does: the same 5,000 series again and
// again, a minute of samples in each commit.
func BenchmarkAppendBulk(b *testing.B) {
	all := benchLabels()
	for _, hook := range []bool{false, true} {
		b.Run(fmt.Sprintf("labels/hook=%v", hook), func(b *testing.B) {
			bulk(b, hook, nil, func(*DB) func(app *Appender, i int, t int64, v float64) error {
				return func(app *Appender, i int, t int64, v float64) error { return app.Append(all[i], 0, t, v) }
			})
		})
		for _, mode := range []string{"handles", "handles without a log"} {
			b.Run(fmt.Sprintf("%s/hook=%v", mode, hook), func(b *testing.B) {
				bulk(b, hook, func(c *Config) { c.Bulk = mode != "handles" }, func(db *DB) func(app *Appender, i int, t int64, v float64) error {
					var hs []*Handle
					for _, ls := range all {
						h, err := db.Handle(ls)
						if err != nil {
							b.Fatal(err)
						}
						hs = append(hs, h)
					}
					return func(app *Appender, i int, t int64, v float64) error { return app.AppendTo(hs[i], 0, t, v) }
				})
			})
		}
	}
}

func bulk(b *testing.B, hook bool, change func(*Config), use func(*DB) func(app *Appender, i int, t int64, v float64) error) {
	now := base.Add(-28 * 24 * time.Hour)
	db := openTest(b, func(c *Config) {
		c.Now, c.Retention = func() time.Time { return now }, 90*24*time.Hour
		if change != nil {
			change(c)
		}
	})
	sum := 0.0
	if hook {
		last := make([]float64, 1<<16)
		db.SetHook(func(batch []Sample) {
			for i := range batch {
				s := &batch[i]
				sum += s.V - last[s.Ref%uint64(len(last))]
				last[s.Ref%uint64(len(last))] = s.V
			}
		})
	}
	put := use(db)
	b.ReportAllocs()
	before, samples := cpu(b), 0
	for b.Loop() {
		app := db.Appender(b.Context())
		for range 2 {
			t := now.UnixMilli()
			for i := range benchSeries {
				if err := put(app, i, t, float64(samples+i)); err != nil {
					b.Fatal(err)
				}
			}
			samples += benchSeries
			now = now.Add(30 * time.Second)
		}
		if err := app.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(samples), "cpu-ns/sample")
}
