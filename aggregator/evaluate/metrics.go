package evaluate

import (
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"nines/pkg/sla"
)

type metrics struct {
	samples, refused, booked, skipped, failures prometheus.Counter
	checked, removed, elections, replica        prometheus.Counter
	readBack                                    prometheus.Counter
	revisions, rules                            *prometheus.CounterVec
	objectives, open, lag, groups               prometheus.Gauge
	memory                                      *prometheus.GaugeVec
	measured                                    *time.Time
}

// measureEvery is how often memory is counted, which looks at every source.
const measureEvery = 10 * time.Minute

// ruleNames are the values of the label rule: what a sample met that is not two
// values of one living series that are a usual interval apart.
var ruleNames = []string{
	"late", "duplicate", "reset", "replica_decrease", "baseline", "first_whole", "silent", "left_out", "gap", "gap_proven",
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
		samples:   counter("nines_evaluate_samples_total", "Samples that fed at least one objective."),
		refused:   counter("nines_evaluate_refused_samples_total", "Samples of an objective's series that are no count: NaN, infinite, negative, or above 9.2e12."),
		replica:   counter("nines_evaluate_replica_samples_total", "Samples of senders of a pair that are not the elected one: they are kept, and not counted."),
		elections: counter("nines_evaluate_elections_total", "Elections of a sender of a pair: the first one, and each switch to the other."),
		booked:    counter("nines_evaluate_minutes_booked_total", "Minutes of objectives that were closed and booked."),
		readBack:  counter("nines_evaluate_minutes_read_back_total", "Minutes of objectives that were booked by a backfill, from samples of another store."),
		skipped:   counter("nines_evaluate_revisions_skipped_total", "Revisions not written because this replica counted less source time than is booked."),
		failures:  counter("nines_evaluate_batch_failures_total", "Batches that could not be booked; they are tried again at the next tick."),
		checked:   counter("nines_evaluate_minutes_checked_total", "Closed minutes that the slow pass derived again from raw samples; what differed is a revision with the reason recheck."),
		removed:   counter("nines_evaluate_sources_removed_total", "Sources of objectives that were removed on purpose."),
		revisions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "nines_evaluate_revisions_total", Help: "Revisions of closed minutes by reason.",
		}, []string{"reason"}),
		rules: f.NewCounterVec(prometheus.CounterOpts{
			Name: "nines_evaluate_rule_total", Help: "Samples to which a rule for the unusual was applied, by rule (docs/counting.md).",
		}, []string{"rule"}),
		objectives: gauge("nines_evaluate_objectives", "Objectives that are evaluated."),
		groups:     gauge("nines_evaluate_groups_gathered", "SLOs whose groups are more than their bound, so that the rest is gathered in one objective."),
		open:       gauge("nines_evaluate_open_minutes", "Minutes of objectives that are still open."),
		lag:        gauge("nines_evaluate_lag_seconds", "Age of the oldest objective's newest closed minute."),
		memory: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nines_evaluate_memory_bytes", Help: "Memory of the evaluator by part, counted every ten minutes: series, sources, open minutes, recent minutes, windows, routes.",
		}, []string{"part"}),
		measured: &time.Time{},
	}
	for _, reason := range []string{"late samples", "recheck"} {
		m.revisions.WithLabelValues(reason)
	}
	for _, rule := range ruleNames {
		m.rules.WithLabelValues(rule)
	}
	return m
}

func (m metrics) rule(name string) { m.rules.WithLabelValues(name).Inc() }

// ticked brings the gauges up to date. The evaluator's lock is held.
func (m metrics) ticked(e *Evaluator, now time.Time) {
	open, oldest := 0, sla.MinuteOf(now)
	for _, o := range e.order {
		open += len(o.tally.open)
		oldest = min(oldest, o.closed+1)
	}
	gathered := 0
	for _, f := range e.families {
		if f.other != nil {
			gathered++
		}
	}
	m.objectives.Set(float64(len(e.objectives)))
	m.groups.Set(float64(gathered))
	m.open.Set(float64(open))
	m.lag.Set(now.Sub(oldest.Time()).Seconds())
	if now.Sub(*m.measured) >= measureEvery {
		*m.measured = now
		for part, n := range e.memory() {
			m.memory.WithLabelValues(part).Set(float64(n))
		}
	}
}

// memory counts what the evaluator holds, in bytes by part. Label texts are the
// store's.
func (e *Evaluator) memory() map[string]int {
	const mapEntry = 48 // a key of 8 bytes, a pointer, and the table's slack
	parts := map[string]int{}
	for _, o := range e.order {
		parts["windows"] += int(unsafe.Sizeof(*o)) + cap(o.windows)*int(unsafe.Sizeof(window{}))
		parts["recent_minutes"] += o.recent.bytes()
		parts["open_minutes"] += cap(o.tally.open) * int(unsafe.Sizeof(sla.Figures{}))
		parts["series"] += len(o.tracks) * (int(unsafe.Sizeof(track{})) + mapEntry)
		for _, s := range o.tally.sources {
			parts["sources"] += int(unsafe.Sizeof(*s)) + mapEntry + len(s.key) + cap(s.gaps)*4 + cap(s.tracks)*8 +
				cap(s.spells)*int(unsafe.Sizeof(spell{})) + cap(s.slots)*int(unsafe.Sizeof(slot{}))
		}
	}
	parts["routes"] = len(e.refs.pages) * pageSize * int(unsafe.Sizeof(entry{}))
	return parts
}
