package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// SelfScrape stores the series of this process, as a scraper would.
type SelfScrape struct {
	db       *DB
	cfg      SelfScrapeConfig
	log      *slog.Logger
	previous map[uint64]labels.Labels // series of the scrape before, by hash
	failing  bool                     // the newest scrape failed
}

// SelfScrapeConfig says what is gathered, how often, and which labels it gets.
type SelfScrapeConfig struct {
	Gatherer prometheus.Gatherer
	Interval time.Duration // 0 is 15 s
	// Labels are added to every series, such as instance and cluster; job is
	// "nines-aggregator" unless it is given here.
	Labels map[string]string
	// Started is the start timestamp of counters that do not tell their own.
	Started time.Time
}

// NewSelfScrape checks the configuration. Run does the work.
func NewSelfScrape(db *DB, cfg SelfScrapeConfig, log *slog.Logger) (*SelfScrape, error) {
	if cfg.Gatherer == nil {
		return nil, errors.New("self scrape: no gatherer given")
	}
	if cfg.Interval == 0 {
		cfg.Interval = 15 * time.Second
	}
	if cfg.Interval < time.Second {
		return nil, fmt.Errorf("self scrape: interval is %s: give at least 1s", cfg.Interval)
	}
	cfg.Labels = maps.Clone(cfg.Labels)
	if cfg.Labels == nil {
		cfg.Labels = make(map[string]string)
	}
	if cfg.Labels["job"] == "" {
		cfg.Labels["job"] = "nines-aggregator"
	}
	return &SelfScrape{db: db, cfg: cfg, log: log}, nil
}

// Run scrapes at once and then each interval until the context ends, and
// returns nil. A failed scrape is logged when it begins to fail, and the next
// is tried all the same.
func (s *SelfScrape) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	for {
		err := s.Scrape(ctx, s.db.now())
		if failing := err != nil; failing != s.failing {
			s.failing = failing
			if failing {
				s.log.Error("the aggregator's own series could not be stored", "err", err)
			} else {
				s.log.Info("the aggregator's own series are stored again")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Scrape gathers once and stores it at the given time, with up = 1. Series that
// the scrape before had and this one has not get a stale marker. Native
// histograms are stored by their classic buckets.
func (s *SelfScrape) Scrape(ctx context.Context, now time.Time) error {
	families, err := s.cfg.Gatherer.Gather()
	if err != nil && len(families) == 0 {
		return fmt.Errorf("gather: %w", err)
	}
	gatherErr := err
	t := now.UnixMilli()
	app := s.db.Appender(ctx)
	current := make(map[uint64]labels.Labels)
	var errs []error
	add := func(name string, pairs []*dto.LabelPair, st int64, v float64, extra ...string) {
		b := labels.NewBuilder(labels.FromMap(s.cfg.Labels))
		for _, p := range pairs {
			if s.cfg.Labels[p.GetName()] == "" {
				b.Set(p.GetName(), p.GetValue())
			} else {
				b.Set("exported_"+p.GetName(), p.GetValue())
			}
		}
		for i := 0; i < len(extra); i += 2 {
			b.Set(extra[i], extra[i+1])
		}
		ls := b.Set(labels.MetricName, name).Labels()
		if err := app.Append(ls, st, t, v); err != nil {
			errs = append(errs, err)
			return
		}
		current[ls.Hash()] = ls
	}
	start := func(created *timestamppb.Timestamp) int64 {
		switch {
		case created != nil:
			return created.AsTime().UnixMilli()
		case s.cfg.Started.IsZero():
			return 0
		}
		return s.cfg.Started.UnixMilli()
	}
	for _, f := range families {
		name := f.GetName()
		s.db.meta.add(name, metadata.Metadata{Type: familyType(f.GetType()), Help: f.GetHelp(), Unit: f.GetUnit()})
		for _, m := range f.GetMetric() {
			switch {
			case m.Counter != nil:
				c := m.Counter
				add(name, m.Label, start(c.CreatedTimestamp), c.GetValue())
			case m.Gauge != nil:
				add(name, m.Label, 0, m.Gauge.GetValue())
			case m.Untyped != nil:
				add(name, m.Label, 0, m.Untyped.GetValue())
			case m.Summary != nil:
				st := start(m.Summary.CreatedTimestamp)
				for _, q := range m.Summary.GetQuantile() {
					add(name, m.Label, 0, q.GetValue(), model.QuantileLabel, number(q.GetQuantile()))
				}
				add(name+"_sum", m.Label, st, m.Summary.GetSampleSum())
				add(name+"_count", m.Label, st, float64(m.Summary.GetSampleCount()))
			case m.Histogram != nil:
				st := start(m.Histogram.CreatedTimestamp)
				count, infinite := float64(m.Histogram.GetSampleCount()), false
				for _, bkt := range m.Histogram.GetBucket() {
					infinite = infinite || math.IsInf(bkt.GetUpperBound(), 1)
					add(name+"_bucket", m.Label, st, float64(bkt.GetCumulativeCount()), model.BucketLabel, number(bkt.GetUpperBound()))
				}
				if !infinite {
					add(name+"_bucket", m.Label, st, count, model.BucketLabel, "+Inf")
				}
				add(name+"_sum", m.Label, st, m.Histogram.GetSampleSum())
				add(name+"_count", m.Label, st, count)
			}
		}
	}
	add("up", nil, 0, 1)
	for _, hash := range slices.Sorted(maps.Keys(s.previous)) {
		if _, ok := current[hash]; !ok {
			if err := app.Append(s.previous[hash], 0, t, math.Float64frombits(value.StaleNaN)); err != nil {
				errs = append(errs, err)
			}
		}
	}
	var refused *RefusedError
	if err := app.Commit(); errors.As(err, &refused) {
		errs = append(errs, err)
	} else if err != nil {
		return fmt.Errorf("store own series: %w", err)
	}
	s.previous = current
	if err := errors.Join(append(errs, gatherErr)...); err != nil {
		return fmt.Errorf("scrape own series: %w", err)
	}
	return nil
}

func familyType(t dto.MetricType) model.MetricType {
	switch t {
	case dto.MetricType_COUNTER:
		return model.MetricTypeCounter
	case dto.MetricType_GAUGE:
		return model.MetricTypeGauge
	case dto.MetricType_SUMMARY:
		return model.MetricTypeSummary
	case dto.MetricType_HISTOGRAM:
		return model.MetricTypeHistogram
	case dto.MetricType_GAUGE_HISTOGRAM:
		return model.MetricTypeGaugeHistogram
	}
	return model.MetricTypeUnknown
}

// number writes le and quantile values as the text format does.
func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
