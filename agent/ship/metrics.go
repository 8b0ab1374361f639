package ship

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"

	"nines/pkg/metric"
)

// Metrics are the series of a destination. All exist from the start.
type Metrics struct {
	set     *metrics.Set
	ok      *metrics.Counter // requests that were answered with 200
	retried *metrics.Counter // requests of which some or all records were sent again
	refused *metrics.Counter // requests that are held
	bytes   *metrics.Counter // sent, compressed
	again   *metrics.Counter // records already stored
	divert  *metrics.Counter // records in the failure store
	removed *metrics.Counter // records removed from full NDJSON files, dead letters included
}

// NewMetrics registers the series in the set, once for each set.
func NewMetrics(set *metrics.Set) *Metrics {
	request := func(result string) *metrics.Counter {
		return set.NewCounter(fmt.Sprintf("%s{result=%q}", metric.AgentLogRequests, result))
	}
	return &Metrics{
		set: set,
		ok:  request("ok"), retried: request("retried"), refused: request("held"),
		bytes:   set.NewCounter(metric.AgentLogSentBytes),
		again:   set.NewCounter(metric.AgentLogAlreadyStored),
		divert:  set.NewCounter(metric.AgentLogDiverted),
		removed: set.NewCounter(metric.AgentLogRemoved),
	}
}

func (m *Metrics) holds(h *hold) {
	m.set.NewGauge(metric.AgentLogHeld, func() float64 {
		if h.String() != "" {
			return 1
		}
		return 0
	})
}
