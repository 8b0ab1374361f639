package scrape

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"nines/pkg/metric"
)

// countersOf returns the counters of an owner, at 0 when it is new. s.mu is held.
func (s *Scraper) countersOf(owner string) *counters {
	c := s.counters[owner]
	if c == nil {
		result := func(r string) string { return fmt.Sprintf("%s{owner=%q,result=%q}", metric.Scrapes, owner, r) }
		named := func(name string) string { return fmt.Sprintf("%s{owner=%q}", name, owner) }
		c = &counters{
			ok:      s.set.NewCounter(result("ok")),
			failed:  s.set.NewCounter(result("failed")),
			samples: s.set.NewCounter(named(metric.ScrapeSamples)),
			lost:    s.set.NewCounter(named(metric.ScrapesLost)),
		}
		s.counters[owner] = c
	}
	return c
}

// bridged are figures of the engine that become ours.
var bridged = []struct{ theirs, ours string }{
	{"prometheus_target_scrapes_exceeded_sample_limit_total", metric.ScrapeLimitsExceeded + `{limit="samples"}`},
	{"prometheus_target_scrapes_exceeded_body_size_limit_total", metric.ScrapeLimitsExceeded + `{limit="body"}`},
	{"prometheus_target_scrape_pool_exceeded_label_limits_total", metric.ScrapeLimitsExceeded + `{limit="labels"}`},
	{"prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total", metric.ScrapeLimitsExceeded + `{limit="buckets"}`},
	{"prometheus_target_scrapes_sample_duplicate_timestamp_total", metric.ScrapeSamplesRefused + `{reason="duplicate"}`},
	{"prometheus_target_scrapes_sample_out_of_bounds_total", metric.ScrapeSamplesRefused + `{reason="out_of_bounds"}`},
	{"prometheus_target_scrape_pools_failed_total", metric.ScrapePoolsFailed},
	{"prometheus_target_scrape_pool_reloads_failed_total", metric.ScrapePoolsFailed},
}

// expose registers the figures that are computed when they are asked for.
func (s *Scraper) expose(registry *prometheus.Registry) {
	s.set.NewGauge(metric.ScrapeSeries, func() float64 { return float64(s.table.size()) })
	s.set.RegisterMetricsWriter(func(w io.Writer) {
		s.writeTargets(w)
		writeBridged(w, registry)
	})
}

func (s *Scraper) writeTargets(w io.Writer) {
	s.mu.Lock()
	byOwner := map[string]map[string]int{}
	for owner := range s.counters {
		byOwner[owner] = map[string]int{"up": 0, "down": 0, "waiting": 0, "dropped": 0, "invalid": 0, "refused": 0}
	}
	for _, j := range s.jobs {
		n := byOwner[j.owner]
		n["dropped"] += j.dropped
		n["invalid"] += len(j.invalid)
		for _, t := range j.targets {
			switch at := state(t.state.Load()); {
			case !t.accepted:
				n["refused"]++
			case at == up:
				n["up"]++
			case at == down:
				n["down"]++
			default:
				n["waiting"]++
			}
		}
	}
	s.mu.Unlock()
	for _, owner := range slices.Sorted(maps.Keys(byOwner)) {
		for _, at := range slices.Sorted(maps.Keys(byOwner[owner])) {
			fmt.Fprintf(w, "%s{owner=%q,state=%q} %d\n", metric.ScrapeTargets, owner, at, byOwner[owner][at])
		}
	}
}

// writeBridged writes counters of the engine under our names. Two of theirs may
// be one of ours.
func writeBridged(w io.Writer, registry *prometheus.Registry) {
	// A collector that fails leaves out its own families alone.
	fams, _ := registry.Gather()
	values := map[string]float64{}
	for _, f := range fams {
		for _, m := range f.Metric {
			values[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	sums := map[string]float64{}
	for _, b := range bridged {
		sums[b.ours] += values[b.theirs]
	}
	for _, name := range slices.SortedFunc(maps.Keys(sums), strings.Compare) {
		fmt.Fprintf(w, "%s %.0f\n", name, sums[name])
	}
}
