package otlp

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"nines/pkg/metric"
)

// Bounds of what is taken.
const (
	// maxAhead is how far Prometheus lets OTLP points be ahead of its clock.
	maxAhead = 10 * time.Minute
	// maxAge bounds the samples of target_info, which stand every 2.5 minutes
	// between a resource's oldest and newest point.
	maxAge = 24 * time.Hour
	// maxValue bounds the value of a label, in bytes. A command line as an
	// attribute of a process can be longer than all else together.
	maxValue = 4 << 10
	// maxLabels is the number of attributes that SDKs keep by themselves.
	maxLabels = 128
)

// rejections are the points of a request that were not taken, by reason, with
// what to say about it: an example and a remedy.
type rejections struct {
	points  map[string]int
	message map[string]string
	order   []string // of reasons, as they came
}

func (r *rejections) add(reason string, points int, format string, args ...any) {
	if r.points == nil {
		r.points, r.message = map[string]int{}, map[string]string{}
	}
	if _, known := r.message[reason]; !known {
		r.order = append(r.order, reason)
		r.message[reason] = fmt.Sprintf(format, args...)
	}
	r.points[reason] += points
}

func (r *rejections) total() int {
	n := 0
	for _, p := range r.points {
		n += p
	}
	return n
}

// String says what was rejected, one sentence for each reason. It is bounded:
// there are few reasons and each has one example.
func (r *rejections) String() string {
	var parts []string
	for _, reason := range r.order {
		parts = append(parts, fmt.Sprintf("%d points (%s): %s", r.points[reason], reason, r.message[reason]))
	}
	return strings.Join(parts, "; ")
}

// screen takes out of md what must not be translated, in place, and returns how
// many attributes of resources it left out.
func (r *Receiver) screen(md pmetric.Metrics, now time.Time, rej *rejections) (attributes int) {
	for i := range md.ResourceMetrics().Len() {
		rm := md.ResourceMetrics().At(i)
		rm.Resource().Attributes().RemoveIf(func(name string, v pcommon.Value) bool {
			text := v.AsString()
			bad := name == "" || !utf8.ValidString(name) || !utf8.ValidString(text) || len(text) > maxValue || len(name) > maxValue
			if bad {
				attributes++
			}
			return bad
		})
		for j := range rm.ScopeMetrics().Len() {
			rm.ScopeMetrics().At(j).Metrics().RemoveIf(func(m pmetric.Metric) bool {
				return r.screenMetric(rm.Resource(), m, now, rej)
			})
		}
	}
	return attributes
}

// screenMetric removes points and says whether the metric as a whole must go.
func (r *Receiver) screenMetric(res pcommon.Resource, m pmetric.Metric, now time.Time, rej *rejections) bool {
	var temporality pmetric.AggregationTemporality
	switch m.Type() {
	case pmetric.MetricTypeGauge, pmetric.MetricTypeSummary:
		temporality = pmetric.AggregationTemporalityCumulative // they have none
	case pmetric.MetricTypeSum:
		temporality = m.Sum().AggregationTemporality()
	case pmetric.MetricTypeHistogram:
		temporality = m.Histogram().AggregationTemporality()
	case pmetric.MetricTypeExponentialHistogram:
		temporality = m.ExponentialHistogram().AggregationTemporality()
	default:
		rej.add(metric.OTLPUntellable, 0, "metric %s has no data", nameOf(res, m))
		return true
	}
	switch {
	case temporality == pmetric.AggregationTemporalityDelta && r.deltas == nil:
		rej.add(metric.OTLPDelta, pointsOf(m), "metric %s has delta temporality: set OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative where it comes from, or deltas_to_cumulative: true in the agent's metrics.otlp", nameOf(res, m))
		return true
	case temporality == pmetric.AggregationTemporalityUnspecified:
		rej.add(metric.OTLPTemporality, pointsOf(m), "metric %s has no temporality: its sender must say whether its points are cumulative", nameOf(res, m))
		return true
	}
	oldest, newest := now.Add(-maxAge), now.Add(maxAhead)
	removePoints(m, func(at pcommon.Timestamp, _ func() pmetric.Metric) bool {
		switch t := at.AsTime(); {
		case at == 0:
			rej.add(metric.OTLPNoTime, 1, "metric %s has a point without time_unix_nano", nameOf(res, m))
		case t.After(newest):
			rej.add(metric.OTLPFuture, 1, "metric %s has a point of %s, and it is %s here: set one of the clocks", nameOf(res, m), t.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		case t.Before(oldest):
			rej.add(metric.OTLPTooOld, 1, "metric %s has a point of %s, which is older than %v", nameOf(res, m), t.Format(time.RFC3339), maxAge)
		default:
			return false
		}
		return true
	})
	return pointsOf(m) == 0
}

// nameOf tells people which metric is meant.
func nameOf(res pcommon.Resource, m pmetric.Metric) string {
	const longest = 100 // bytes of a name that a message shows
	short := func(s string) string {
		if len(s) > longest {
			s = s[:longest] + "…"
		}
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	name := fmt.Sprintf("%q", short(m.Name()))
	if service, ok := res.Attributes().Get("service.name"); ok {
		name += fmt.Sprintf(" of %q", short(service.AsString()))
	}
	return name
}

func pointsOf(m pmetric.Metric) int {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return m.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return m.Summary().DataPoints().Len()
	}
	return 0
}

// point is what the five kinds of points have in common.
type point[P any] interface {
	Timestamp() pcommon.Timestamp
	CopyTo(P)
}

// removePoints removes the points that drop says. It is given the time of each,
// and a function that makes a metric of it alone.
func removePoints(m pmetric.Metric, drop func(at pcommon.Timestamp, alone func() pmetric.Metric) bool) {
	bare := func() pmetric.Metric {
		one := pmetric.NewMetric()
		one.SetName(m.Name())
		one.SetUnit(m.Unit())
		one.SetDescription(m.Description())
		return one
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		m.Gauge().DataPoints().RemoveIf(dropper(bare, drop, func(one pmetric.Metric) pmetric.NumberDataPoint {
			return one.SetEmptyGauge().DataPoints().AppendEmpty()
		}))
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(dropper(bare, drop, func(one pmetric.Metric) pmetric.NumberDataPoint {
			sum := one.SetEmptySum()
			sum.SetIsMonotonic(m.Sum().IsMonotonic())
			sum.SetAggregationTemporality(m.Sum().AggregationTemporality())
			return sum.DataPoints().AppendEmpty()
		}))
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(dropper(bare, drop, func(one pmetric.Metric) pmetric.HistogramDataPoint {
			h := one.SetEmptyHistogram()
			h.SetAggregationTemporality(m.Histogram().AggregationTemporality())
			return h.DataPoints().AppendEmpty()
		}))
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(dropper(bare, drop, func(one pmetric.Metric) pmetric.ExponentialHistogramDataPoint {
			h := one.SetEmptyExponentialHistogram()
			h.SetAggregationTemporality(m.ExponentialHistogram().AggregationTemporality())
			return h.DataPoints().AppendEmpty()
		}))
	case pmetric.MetricTypeSummary:
		m.Summary().DataPoints().RemoveIf(dropper(bare, drop, func(one pmetric.Metric) pmetric.SummaryDataPoint {
			return one.SetEmptySummary().DataPoints().AppendEmpty()
		}))
	}
}

func dropper[P point[P]](bare func() pmetric.Metric, drop func(pcommon.Timestamp, func() pmetric.Metric) bool, place func(pmetric.Metric) P) func(P) bool {
	return func(p P) bool {
		return drop(p.Timestamp(), func() pmetric.Metric {
			one := bare()
			p.CopyTo(place(one))
			return one
		})
	}
}

// isolate finds the points that cannot be translated, by translating each metric
// alone and those that fail point by point, and removes them. It costs as much
// as the whole translation again, and is for requests that have some.
func (r *Receiver) isolate(md pmetric.Metrics, rej *rejections) {
	try := func(res pcommon.Resource, sm pmetric.ScopeMetrics, m pmetric.Metric) error {
		one := pmetric.NewMetrics()
		rm := one.ResourceMetrics().AppendEmpty()
		res.CopyTo(rm.Resource())
		scope := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().CopyTo(scope.Scope())
		scope.SetSchemaUrl(sm.SchemaUrl())
		m.CopyTo(scope.Metrics().AppendEmpty())
		return r.translate(one, &guard{})
	}
	for i := range md.ResourceMetrics().Len() {
		rm := md.ResourceMetrics().At(i)
		for j := range rm.ScopeMetrics().Len() {
			sm := rm.ScopeMetrics().At(j)
			sm.Metrics().RemoveIf(func(m pmetric.Metric) bool {
				if try(rm.Resource(), sm, m) == nil {
					return false
				}
				removePoints(m, func(_ pcommon.Timestamp, alone func() pmetric.Metric) bool {
					err := try(rm.Resource(), sm, alone())
					if err != nil {
						rej.add(metric.OTLPUntellable, 1, "metric %s: %v", nameOf(rm.Resource(), m), firstLine(err))
					}
					return err != nil
				})
				return pointsOf(m) == 0
			})
		}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	return strings.ToValidUTF8(line, "\uFFFD")
}

// pointResults are the values of the label result of AgentOTLPPoints.
var pointResults = []string{
	metric.OTLPAccepted, metric.OTLPDelta, metric.OTLPDeltaState, metric.OTLPTemporality,
	metric.OTLPNoTime, metric.OTLPFuture, metric.OTLPTooOld, metric.OTLPUntellable,
}
