package server

import (
	"math/big"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nines/aggregator/evaluate"
	"nines/pkg/metric"
	"nines/pkg/sla"
)

var objectiveLabels = []string{"objective_id", "service", "slo", "objective", "group"}

// figures exposes what the board shows as series, so that Grafana draws the
// same figures that the page prints.
type figures struct {
	view func() *board

	target, remaining, burn, coverage, alert *prometheus.Desc
}

func newFigures(reg prometheus.Registerer, view func() *board) {
	desc := func(name string, extra ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, metric.Help(name), append(append([]string(nil), objectiveLabels...), extra...), nil)
	}
	f := &figures{
		view:      view,
		target:    desc(metric.SLOTarget),
		remaining: desc(metric.SLOBudgetRemaining),
		burn:      desc(metric.SLOBurnRate, "window"),
		coverage:  desc(metric.SLOCoverage, "window"),
		alert:     desc(metric.SLOAlertFiring, "burn_tier", "severity"),
	}
	reg.MustRegister(f)
}

// Describe implements prometheus.Collector.
func (f *figures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.target, f.remaining, f.burn, f.coverage, f.alert} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A figure that does not exist, as a
// ratio of no events, is left out: it is never NaN.
func (f *figures) Collect(ch chan<- prometheus.Metric) {
	b := f.view()
	for _, s := range b.states {
		o := s.Objective
		id := objectiveValues(&o)
		gauge := func(d *prometheus.Desc, r *big.Rat, extra ...string) {
			if r == nil {
				return
			}
			v, _ := r.Float64()
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append(append([]string(nil), id...), extra...)...)
		}
		gauge(f.target, o.Target.Rat())
		gauge(f.remaining, s.Period.Budget(o.Target).Remaining)
		gauge(f.coverage, s.Period.Coverage(), "period")
		for _, d := range sortedWindows(s) {
			w := s.Windows[d]
			gauge(f.burn, w.Burn(o.Target), sla.WindowName(d))
			gauge(f.coverage, w.Coverage(), sla.WindowName(d))
		}
		for tier, severity := range b.firing[o.ID.String()] {
			gauge(f.alert, big.NewRat(1, 1), tier, severity)
		}
	}
}

func sortedWindows(s evaluate.State) []time.Duration {
	ds := make([]time.Duration, 0, len(s.Windows))
	for d := range s.Windows {
		ds = append(ds, d)
	}
	sort.Slice(ds, func(i, j int) bool { return ds[i] < ds[j] })
	return ds
}
