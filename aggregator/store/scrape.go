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

	"nines/pkg/metric"
)

// Target stores what one source says at each of its ticks, as a scraper would:
// a series that the tick before had and this one has not gets a stale marker.
// It is for one goroutine.
type Target struct {
	db       *DB
	labels   map[string]string        // added to every series
	previous map[uint64]labels.Labels // series of the tick before, by hash
}

// Target returns a source whose series all get the labels given, job and
// instance among them. A label of the same name that a series brings along is
// kept as exported_NAME.
func (db *DB) Target(labels map[string]string) *Target {
	return &Target{db: db, labels: maps.Clone(labels)}
}

// Write stores one tick. Its error, if any, is a *RefusedError where the rest
// was stored, else as of Appender.Commit.
func (t *Target) Write(ctx context.Context, at time.Time, families []metric.Family) error {
	tick := t.begin(ctx, at)
	for _, f := range families {
		t.db.meta.add(f.Name, metadata.Metadata{Type: model.MetricType(f.Type), Help: f.Help, Unit: f.Unit})
		for _, s := range f.Series {
			b := tick.builder()
			for _, l := range s.Labels {
				tick.set(b, l.Name, l.Value)
			}
			tick.add(b, f.Name+s.Suffix, s.Start, s.Value)
		}
	}
	return tick.commit()
}

// tick is one write of a target.
type tick struct {
	*Target
	app     *Appender
	at      int64
	current map[uint64]labels.Labels
}

func (t *Target) begin(ctx context.Context, at time.Time) *tick {
	return &tick{Target: t, app: t.db.Appender(ctx), at: at.UnixMilli(), current: make(map[uint64]labels.Labels)}
}

func (t *tick) builder() *labels.Builder { return labels.NewBuilder(labels.FromMap(t.labels)) }

func (t *tick) set(b *labels.Builder, name, value string) {
	if _, ours := t.labels[name]; ours {
		name = model.ExportedLabelPrefix + name
	}
	b.Set(name, value)
}

// add leaves refusals to commit, which returns them.
func (t *tick) add(b *labels.Builder, name string, st int64, v float64) {
	ls := b.Set(model.MetricNameLabel, name).Labels()
	if t.app.Append(ls, st, t.at, v) == nil {
		t.current[ls.Hash()] = ls
	}
}

func (t *tick) commit() error {
	for _, hash := range slices.Sorted(maps.Keys(t.previous)) {
		if _, ok := t.current[hash]; !ok {
			_ = t.app.Append(t.previous[hash], 0, t.at, math.Float64frombits(value.StaleNaN)) // as in add
		}
	}
	err := t.app.Commit()
	var refused *RefusedError
	if err == nil || errors.As(err, &refused) {
		t.previous = t.current
	}
	return err
}

// SelfScrape stores the series of this process.
type SelfScrape struct {
	target  *Target
	cfg     SelfScrapeConfig
	log     *slog.Logger
	failing bool // the newest scrape failed
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
	return &SelfScrape{target: &Target{db: db, labels: cfg.Labels}, cfg: cfg, log: log}, nil
}

// Run scrapes at once and then each interval until the context ends, and
// returns nil. A failed scrape is logged when it begins to fail, and the next
// is tried all the same.
func (s *SelfScrape) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	for {
		err := s.Scrape(ctx, s.target.db.now())
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
	tick := s.target.begin(ctx, now)
	add := func(name string, pairs []*dto.LabelPair, st int64, v float64, extra ...string) {
		b := tick.builder()
		for _, p := range pairs {
			tick.set(b, p.GetName(), p.GetValue())
		}
		for i := 0; i < len(extra); i += 2 {
			b.Set(extra[i], extra[i+1])
		}
		tick.add(b, name, st, v)
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
		s.target.db.meta.add(name, metadata.Metadata{Type: familyType(f.GetType()), Help: f.GetHelp(), Unit: f.GetUnit()})
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
	if err := errors.Join(gatherErr, tick.commit()); err != nil {
		return fmt.Errorf("store own series: %w", err)
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
