package server

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/cluster"
	"nines/aggregator/store"
	"nines/pkg/metric"
)

// clusterSink stores what the API server says, under the job that stock
// dashboards select.
func clusterSink(db *store.DB, name, instance string) cluster.Sink {
	return func(ctx context.Context, at time.Time, families []metric.Family) error {
		app := db.Appender(ctx)
		b := labels.NewScratchBuilder(16)
		for _, f := range families {
			for _, s := range f.Series {
				b.Reset()
				b.Add(model.MetricNameLabel, f.Name+s.Suffix)
				for _, l := range metric.Merge(s.Labels, metric.Labels("job", cluster.Job, "instance", instance, "cluster", name)) {
					b.Add(l.Name, l.Value)
				}
				b.Sort()
				// A refused sample is told by Commit, with all others.
				_ = app.Append(b.Labels(), s.Start, at.UnixMilli(), s.Value)
			}
		}
		if err := app.Commit(); err != nil {
			return fmt.Errorf("store the cluster's objects: %w", err)
		}
		return nil
	}
}
