package otlp

import (
	"context"
	"fmt"
	"sync"

	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/deltatocumulativeprocessor"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/metric/noop"
	tracing "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	"nines/pkg/metric"
)

// MaxStreams bounds the series of deltas that are added up; further ones are
// refused. A series that brings nothing for five minutes is forgotten, and
// begins at zero when it comes back.
const MaxStreams = 20_000

// deltas adds up deltas with the collector's processor, as Prometheus does.
type deltas struct {
	mu   sync.Mutex // one request at a time, so that out is its own
	proc processor.Metrics
	out  pmetric.Metrics // of the request that is under way; guarded by mu
}

func newDeltas() (*deltas, error) {
	d := &deltas{}
	next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
		d.out = md
		return nil
	}, consumer.WithCapabilities(consumer.Capabilities{MutatesData: true}))
	if err != nil {
		return nil, fmt.Errorf("deltas_to_cumulative: %w", err)
	}
	factory := deltatocumulativeprocessor.NewFactory()
	cfg := factory.CreateDefaultConfig()
	cfg.(*deltatocumulativeprocessor.Config).MaxStreams = MaxStreams
	d.proc, err = factory.CreateMetrics(context.Background(), processor.Settings{
		ID: component.NewID(factory.Type()),
		TelemetrySettings: component.TelemetrySettings{
			Logger: zap.NewNop(), MeterProvider: noop.NewMeterProvider(), TracerProvider: tracing.NewTracerProvider(),
		},
	}, cfg, next)
	if err != nil {
		return nil, fmt.Errorf("deltas_to_cumulative: %w", err)
	}
	return d, nil
}

// cumulate returns md with cumulative points alone. A point that was added up
// before, as in a request that is sent again, is rejected; the next one of its
// series holds it.
func (d *deltas) cumulate(ctx context.Context, md pmetric.Metrics, rej *rejections) (pmetric.Metrics, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := md.DataPointCount()
	d.out = pmetric.NewMetrics()
	if err := d.proc.ConsumeMetrics(ctx, md); err != nil {
		return d.out, err
	}
	if lost := before - d.out.DataPointCount(); lost > 0 {
		rej.add(metric.OTLPDeltaState, lost, "deltas that come twice or too late, or of more than %d series", MaxStreams)
	}
	return d.out, nil
}
