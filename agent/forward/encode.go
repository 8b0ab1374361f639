package forward

import (
	"fmt"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"nines/pkg/metric"
)

// samplesPerRequest keeps a request below a megabyte, which every receiver
// known to us takes.
const samplesPerRequest = 5000

// encode turns families into requests of version 2.0, each sample stamped with
// t and carrying the extra labels, which win over those of the series. Labels
// with an empty value are left out, as if they were not there.
func encode(t time.Time, extra []metric.Label, fams []metric.Family) ([]batch, error) {
	var batches []batch
	symbols := writev2.NewSymbolTable()
	var series []writev2.TimeSeries
	flush := func() error {
		if len(series) == 0 {
			return nil
		}
		req := writev2.Request{Symbols: symbols.Symbols(), Timeseries: series}
		raw, err := req.Marshal()
		if err != nil {
			return fmt.Errorf("encode samples: %w", err)
		}
		batches = append(batches, batch{time: t.UnixMilli(), samples: len(series), request: snappy.Encode(nil, raw)})
		symbols, series = writev2.NewSymbolTable(), nil
		return nil
	}
	for _, f := range fams {
		for _, s := range f.Series {
			ls := metric.Merge(s.Labels, extra)
			ls = append(ls, metric.Label{Name: "__name__", Value: f.Name + s.Suffix})
			metric.SortLabels(ls)
			refs := make([]uint32, 0, 2*len(ls))
			for _, l := range ls {
				if l.Value != "" {
					refs = append(refs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
				}
			}
			series = append(series, writev2.TimeSeries{
				LabelsRefs: refs,
				Samples:    []writev2.Sample{{Value: s.Value, Timestamp: t.UnixMilli(), StartTimestamp: s.Start}},
				Metadata: writev2.Metadata{
					Type:    types[f.Type],
					HelpRef: symbols.Symbolize(f.Help),
					UnitRef: symbols.Symbolize(f.Unit),
				},
			})
			if len(series) == samplesPerRequest {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	return batches, flush()
}

var types = map[metric.Type]writev2.Metadata_MetricType{
	metric.Counter:   writev2.Metadata_METRIC_TYPE_COUNTER,
	metric.Gauge:     writev2.Metadata_METRIC_TYPE_GAUGE,
	metric.Histogram: writev2.Metadata_METRIC_TYPE_HISTOGRAM,
	metric.Summary:   writev2.Metadata_METRIC_TYPE_SUMMARY,
}

// downgrade turns a request of version 2.0 into one of 1.0. Start timestamps
// have no place there.
func downgrade(request []byte) ([]byte, error) {
	raw, err := snappy.Decode(nil, request)
	if err != nil {
		return nil, fmt.Errorf("convert request to version 1.0: %w", err)
	}
	var v2 writev2.Request
	if err := v2.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("convert request to version 1.0: %w", err)
	}
	symbol := func(ref uint32) string {
		if int(ref) < len(v2.Symbols) {
			return v2.Symbols[ref]
		}
		return ""
	}
	v1 := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, 0, len(v2.Timeseries))}
	for _, ts := range v2.Timeseries {
		out := prompb.TimeSeries{}
		for i := 0; i+1 < len(ts.LabelsRefs); i += 2 {
			out.Labels = append(out.Labels, prompb.Label{Name: symbol(ts.LabelsRefs[i]), Value: symbol(ts.LabelsRefs[i+1])})
		}
		for _, s := range ts.Samples {
			out.Samples = append(out.Samples, prompb.Sample{Value: s.Value, Timestamp: s.Timestamp})
		}
		v1.Timeseries = append(v1.Timeseries, out)
	}
	raw, err = v1.Marshal()
	if err != nil {
		return nil, fmt.Errorf("convert request to version 1.0: %w", err)
	}
	return snappy.Encode(nil, raw), nil
}
