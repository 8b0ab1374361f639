package forward

import (
	"fmt"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

func unpack(request []byte) (*writev2.Request, error) {
	raw, err := snappy.Decode(nil, request)
	if err != nil {
		return nil, err
	}
	v2 := &writev2.Request{}
	return v2, v2.Unmarshal(raw)
}

// merge makes one request of several, the series in the same order. After an
// outage many small ones wait, and each would cost a round trip.
func merge(batches []batch) (batch, error) {
	if len(batches) == 1 {
		return batches[0], nil
	}
	symbols := writev2.NewSymbolTable()
	all := batch{time: batches[0].time}
	var req writev2.Request
	for _, b := range batches {
		v2, err := unpack(b.request)
		if err != nil {
			return batch{}, fmt.Errorf("join requests: %w", err)
		}
		refs := make([]uint32, len(v2.Symbols))
		for i, s := range v2.Symbols {
			refs[i] = symbols.Symbolize(s)
		}
		mapped := func(ref *uint32) error {
			if int(*ref) >= len(refs) {
				return fmt.Errorf("join requests: symbol %d of %d", *ref, len(refs))
			}
			*ref = refs[*ref]
			return nil
		}
		for i := range v2.Timeseries {
			ts := &v2.Timeseries[i]
			for j := range ts.LabelsRefs {
				if err := mapped(&ts.LabelsRefs[j]); err != nil {
					return batch{}, err
				}
			}
			for j := range ts.Exemplars {
				for k := range ts.Exemplars[j].LabelsRefs {
					if err := mapped(&ts.Exemplars[j].LabelsRefs[k]); err != nil {
						return batch{}, err
					}
				}
			}
			if err := mapped(&ts.Metadata.HelpRef); err != nil {
				return batch{}, err
			}
			if err := mapped(&ts.Metadata.UnitRef); err != nil {
				return batch{}, err
			}
		}
		req.Timeseries = append(req.Timeseries, v2.Timeseries...)
		all.samples += b.samples
		all.time = max(all.time, b.time)
	}
	req.Symbols = symbols.Symbols()
	raw, err := req.Marshal()
	if err != nil {
		return batch{}, fmt.Errorf("join requests: %w", err)
	}
	all.request = snappy.Encode(nil, raw)
	return all, nil
}

// halves splits a request in two, the series in the same order. ok is false for
// one that has no two.
func halves(b batch) (parts [2]batch, ok bool, err error) {
	v2, err := unpack(b.request)
	if err != nil {
		return parts, false, fmt.Errorf("split request: %w", err)
	}
	if len(v2.Timeseries) < 2 {
		return parts, false, nil
	}
	all := v2.Timeseries
	for i, part := range [2][]writev2.TimeSeries{all[:len(all)/2], all[len(all)/2:]} {
		v2.Timeseries = part
		raw, err := v2.Marshal()
		if err != nil {
			return parts, false, fmt.Errorf("split request: %w", err)
		}
		n := 0
		for _, ts := range part {
			n += len(ts.Samples) + len(ts.Histograms)
		}
		parts[i] = batch{time: b.time, samples: n, request: snappy.Encode(nil, raw)}
	}
	return parts, true, nil
}

// downgrade turns a request of version 2.0 into one of 1.0. Start timestamps
// have no place there. Metadata goes by the name of the family, once for each
// in a request.
func downgrade(request []byte) ([]byte, error) {
	v2, err := unpack(request)
	if err != nil {
		return nil, fmt.Errorf("convert request to version 1.0: %w", err)
	}
	symbol := func(ref uint32) string {
		if int(ref) < len(v2.Symbols) {
			return v2.Symbols[ref]
		}
		return ""
	}
	pairs := func(refs []uint32) []prompb.Label {
		var out []prompb.Label
		for i := 0; i+1 < len(refs); i += 2 {
			out = append(out, prompb.Label{Name: symbol(refs[i]), Value: symbol(refs[i+1])})
		}
		return out
	}
	v1 := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, 0, len(v2.Timeseries))}
	told := map[string]bool{}
	for _, ts := range v2.Timeseries {
		out := prompb.TimeSeries{Labels: pairs(ts.LabelsRefs)}
		for _, s := range ts.Samples {
			out.Samples = append(out.Samples, prompb.Sample{Value: s.Value, Timestamp: s.Timestamp})
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				out.Histograms = append(out.Histograms, prompb.FromFloatHistogram(h.Timestamp, h.ToFloatHistogram()))
			} else {
				out.Histograms = append(out.Histograms, prompb.FromIntHistogram(h.Timestamp, h.ToIntHistogram()))
			}
		}
		for _, e := range ts.Exemplars {
			out.Exemplars = append(out.Exemplars, prompb.Exemplar{Labels: pairs(e.LabelsRefs), Value: e.Value, Timestamp: e.Timestamp})
		}
		v1.Timeseries = append(v1.Timeseries, out)
		if ts.Metadata.Type == writev2.Metadata_METRIC_TYPE_UNSPECIFIED && ts.Metadata.HelpRef == 0 {
			continue
		}
		name := family(out.Labels, ts.Metadata.Type)
		if name == "" || told[name] {
			continue
		}
		told[name] = true
		v1.Metadata = append(v1.Metadata, prompb.MetricMetadata{
			// Both versions number the types alike.
			Type:             prompb.MetricMetadata_MetricType(ts.Metadata.Type),
			MetricFamilyName: name, Help: symbol(ts.Metadata.HelpRef), Unit: symbol(ts.Metadata.UnitRef),
		})
	}
	raw, err := v1.Marshal()
	if err != nil {
		return nil, fmt.Errorf("convert request to version 1.0: %w", err)
	}
	return snappy.Encode(nil, raw), nil
}

// family is the name by which metadata of a series goes in version 1.0: that of
// the histogram or summary that it is a part of.
func family(labels []prompb.Label, typ writev2.Metadata_MetricType) string {
	for _, l := range labels {
		if l.Name != "__name__" {
			continue
		}
		switch typ {
		case writev2.Metadata_METRIC_TYPE_HISTOGRAM, writev2.Metadata_METRIC_TYPE_GAUGEHISTOGRAM, writev2.Metadata_METRIC_TYPE_SUMMARY:
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if n := len(l.Value) - len(suffix); n > 0 && l.Value[n:] == suffix {
					return l.Value[:n]
				}
			}
		}
		return l.Value
	}
	return ""
}
