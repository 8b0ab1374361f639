package evaluate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"nines/pkg/sla"
)

type metrics struct {
	samples, refused, booked, skipped, failures prometheus.Counter
	revisions                                   *prometheus.CounterVec
	objectives, open, lag                       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := metrics{
		samples:  counter("nines_evaluate_samples_total", "Samples that fed at least one objective."),
		refused:  counter("nines_evaluate_refused_samples_total", "Samples of an objective's series that are no count: NaN, infinite, negative, or above 9.2e12."),
		booked:   counter("nines_evaluate_minutes_booked_total", "Minutes of objectives that were closed and booked."),
		skipped:  counter("nines_evaluate_revisions_skipped_total", "Revisions not written because this replica counted less source time than is booked."),
		failures: counter("nines_evaluate_batch_failures_total", "Batches that could not be booked; they are tried again at the next tick."),
		revisions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "nines_evaluate_revisions_total", Help: "Revisions of closed minutes by reason.",
		}, []string{"reason"}),
		objectives: gauge("nines_evaluate_objectives", "Objectives that are evaluated."),
		open:       gauge("nines_evaluate_open_minutes", "Minutes of objectives that are still open."),
		lag:        gauge("nines_evaluate_lag_seconds", "Age of the oldest objective's newest closed minute."),
	}
	m.revisions.WithLabelValues("late")
	return m
}

// ticked brings the gauges up to date. The evaluator's lock is held.
func (m metrics) ticked(e *Evaluator, now time.Time) {
	open, oldest := 0, sla.MinuteOf(now)
	for _, o := range e.objectives {
		open += len(o.tally.minutes)
		oldest = min(oldest, o.closed+1)
	}
	m.objectives.Set(float64(len(e.objectives)))
	m.open.Set(float64(open))
	m.lag.Set(now.Sub(oldest.Time()).Seconds())
}
