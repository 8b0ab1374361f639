package server

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/evaluate"
	"nines/aggregator/store"
	"nines/pkg/metric"
	"nines/pkg/sla"
)

// ledgerSeries are the series of a booked minute, in the order of copies.
var ledgerSeries = [...]string{metric.LedgerGood, metric.LedgerTotal, metric.LedgerCounted, metric.LedgerTimed, metric.LedgerExpected}

// projection copies minutes and figures into the store, for PromQL and Grafana
// (design idea 5). It is a copy: nothing is ever read from it.
type projection struct {
	db  *store.DB
	own map[string]string // labels of this process

	mu      sync.Mutex
	minutes map[sla.ID]*copies
	figures map[sla.ID]*copies
	swept   time.Time
}

// copies are the series of one objective.
type copies struct {
	handles []*store.Handle
	used    time.Time
}

// forgetCopies is when the series of an objective that is no more are let go.
const forgetCopies = time.Hour

func newProjection(db *store.DB, own map[string]string) *projection {
	return &projection{db: db, own: own, minutes: map[sla.ID]*copies{}, figures: map[sla.ID]*copies{}}
}

// series returns the series of an objective out of a table, made if they are new.
func (p *projection) series(table map[sla.ID]*copies, o *sla.Objective, now time.Time, make func() []labels.Labels) ([]*store.Handle, error) {
	c := table[o.ID]
	if c == nil {
		c = &copies{}
		for _, ls := range make() {
			h, err := p.db.Handle(ls)
			if err != nil {
				return nil, fmt.Errorf("a series of SLO %s: %w", o.SLO, err)
			}
			c.handles = append(c.handles, h)
		}
		table[o.ID] = c
	}
	c.used = now
	return c.handles, nil
}

// sweep lets go of what was not used for long.
func (p *projection) sweep(now time.Time) {
	if now.Sub(p.swept) < forgetCopies {
		return
	}
	p.swept = now
	for _, table := range []map[sla.ID]*copies{p.minutes, p.figures} {
		maps.DeleteFunc(table, func(_ sla.ID, c *copies) bool { return now.Sub(c.used) > forgetCopies })
	}
}

// book copies booked minutes. Each series has one sample a minute at the
// minute's last millisecond, so that sum_over_time over a range that ends on a
// whole minute holds exactly its minutes.
func (p *projection) book(minutes []evaluate.BookedMinute) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.sweep(now)
	app := p.db.Appender(context.Background())
	for i := range minutes {
		b := &minutes[i]
		handles, err := p.series(p.minutes, b.Objective, now, func() []labels.Labels {
			out := make([]labels.Labels, 0, len(ledgerSeries))
			for _, name := range ledgerSeries {
				out = append(out, labelsOf(name, b.Objective, map[string]string{"job": "nines-ledger", "namespace": b.Objective.Namespace}))
			}
			return out
		})
		if err != nil {
			return err
		}
		at := (b.Minute + 1).Millis() - 1
		f := &b.Figures
		good, total := f.GoodHigh, f.Total
		for _, g := range f.Gaps {
			good += g.GoodHigh
			total += g.Total
		}
		for j, v := range [...]float64{
			float64(good) / sla.Micro, float64(total) / sla.Micro,
			float64(f.Counted) / 1000, float64(f.Timed) / 1000, float64(f.Expected) / 1000,
		} {
			// A refused sample is told by Commit, with all others.
			_ = app.AppendTo(handles[j], 0, at, v)
		}
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("copy booked minutes into the store: %w", err)
	}
	return nil
}

// show copies the figures of all objectives at now, under the names that the
// metrics page has. A figure that does not exist has no sample: it is never NaN.
func (p *projection) show(ev *evaluate.Evaluator, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	app := p.db.Appender(context.Background())
	var failed error
	at := now.UnixMilli()
	ev.Gauges(now, func(g *evaluate.Gauges) {
		handles, err := p.series(p.figures, g.Objective, now, func() []labels.Labels { return p.figureLabels(g.Objective) })
		if err != nil {
			failed = err
			return
		}
		i := 0
		put := func(v float64) {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				_ = app.AppendTo(handles[i], 0, at, v) // as in book
			}
			i++
		}
		target, _ := g.Objective.Target.Rat().Float64()
		put(target)
		put(g.Remaining)
		put(g.Coverage)
		for _, v := range g.Burn {
			put(v)
		}
		for _, v := range g.WindowCoverage {
			put(v)
		}
	})
	if err := app.Commit(); err != nil {
		return fmt.Errorf("copy the figures of objectives into the store: %w", err)
	}
	return failed
}

// figureLabels are the series of show, in its order.
func (p *projection) figureLabels(o *sla.Objective) []labels.Labels {
	series := func(name, window string) labels.Labels {
		with := maps.Clone(p.own)
		if window != "" {
			with["window"] = window
		}
		return labelsOf(name, o, with)
	}
	out := []labels.Labels{series(metric.SLOTarget, ""), series(metric.SLOBudgetRemaining, ""), series(metric.SLOCoverage, "period")}
	for _, name := range []string{metric.SLOBurnRate, metric.SLOCoverage} {
		for _, d := range evaluate.AlertWindows() {
			out = append(out, series(name, sla.WindowName(d)))
		}
	}
	return out
}

// labelsOf are the labels of an objective's series.
func labelsOf(name string, o *sla.Objective, with map[string]string) labels.Labels {
	b := labels.NewBuilder(labels.FromMap(with))
	b.Set(model.MetricNameLabel, name)
	for i, v := range objectiveValues(o) {
		b.Set(objectiveLabels[i], v)
	}
	return b.Labels()
}

// objectiveValues are those of objectiveLabels.
func objectiveValues(o *sla.Objective) []string {
	return []string{o.ID.String(), o.Service, o.SLO, o.Name, o.GroupName()}
}
