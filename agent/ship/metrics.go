package ship

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"

	"nines/pkg/metric"
)

// Metrics are the series of a destination. All exist from the start.
type Metrics struct {
	set         *metrics.Set
	destination string
	ok          *metrics.Counter // requests that were answered with 200
	retried     *metrics.Counter // requests of which some or all records were sent again
	refused     *metrics.Counter // requests that are held
	bytes       *metrics.Counter // sent, compressed
	again       *metrics.Counter // records already stored
	duplicates  *metrics.Counter // records that stand in two backing indices
	divert      *metrics.Counter // records in the failure store
	redriven    *metrics.Counter // dead letters that were sent again and stored
	removed     *metrics.Counter // records removed from full NDJSON files, dead letters included
}

// NewMetrics registers the series of a destination in the set, once for each.
func NewMetrics(set *metrics.Set, destination string) *Metrics {
	counter := func(name string) *metrics.Counter {
		return set.NewCounter(fmt.Sprintf("%s{destination=%q}", name, destination))
	}
	request := func(result string) *metrics.Counter {
		return set.NewCounter(fmt.Sprintf("%s{destination=%q,result=%q}", metric.LogRequests, destination, result))
	}
	return &Metrics{
		set: set, destination: destination,
		ok: request("ok"), retried: request("retried"), refused: request("held"),
		bytes:      counter(metric.LogSentBytes),
		again:      counter(metric.LogAlreadyStored),
		divert:     counter(metric.LogDiverted),
		removed:    counter(metric.LogRemoved),
		duplicates: counter(metric.LogDuplicates),
		redriven:   counter(metric.LogRedrivenRecords),
	}
}

func (m *Metrics) gauge(name string, value func() float64) {
	m.set.NewGauge(fmt.Sprintf("%s{destination=%q}", name, m.destination), value)
}

// watches registers what only an Elasticsearch has.
func (m *Metrics) watches(e *Elasticsearch) {
	m.gauge(metric.LogConcurrency, func() float64 { return float64(e.limit.allowed()) })
	m.gauge(metric.LogHostsUnreachable, func() float64 { return float64(e.hosts.unreachable()) })
	m.gauge(metric.LogDeadLetterBytes, func() float64 { return float64(e.dead.total()) })
}

func (m *Metrics) holds(h *hold) {
	m.gauge(metric.LogHeld, func() float64 {
		if h.String() != "" {
			return 1
		}
		return 0
	})
}
