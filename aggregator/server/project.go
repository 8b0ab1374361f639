package server

import (
	"context"
	"fmt"
	"math/big"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/evaluate"
	"nines/aggregator/store"
	"nines/pkg/metric"
	"nines/pkg/sla"
)

// project copies booked minutes into the store, for PromQL and Grafana (design
// idea 5). Each series has one sample a minute at the minute's last
// millisecond, so that sum_over_time over a range that ends on a whole minute
// holds exactly its minutes. It is a copy: the book is never read from it.
func project(db *store.DB, minutes []evaluate.BookedMinute) error {
	app := db.Appender(context.Background())
	for _, b := range minutes {
		at := (b.Minute + 1).Millis() - 1
		f := b.Figures
		for _, g := range f.Gaps {
			f.GoodHigh += g.GoodHigh
			f.Total += g.Total
		}
		for name, v := range map[string]float64{
			metric.LedgerGood:     ratio(f.GoodHigh, sla.Micro),
			metric.LedgerTotal:    ratio(f.Total, sla.Micro),
			metric.LedgerCounted:  ratio(f.Counted, 1000),
			metric.LedgerTimed:    ratio(f.Timed, 1000),
			metric.LedgerExpected: ratio(f.Expected, 1000),
		} {
			// A refused sample is told by Commit, with all others.
			_ = app.Append(seriesOf(name, b.Objective), 0, at, v)
		}
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("copy booked minutes into the store: %w", err)
	}
	return nil
}

func seriesOf(name string, o *sla.Objective) labels.Labels {
	return labels.FromStrings(
		model.MetricNameLabel, name,
		"job", "nines-ledger",
		"objective_id", o.ID.String(),
		"namespace", o.Namespace,
		"service", o.Service,
		"slo", o.SLO,
		"objective", o.Name,
	)
}

func ratio(n, d int64) float64 {
	v, _ := big.NewRat(n, d).Float64()
	return v
}
