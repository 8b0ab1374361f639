package forward

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"nines/pkg/metric"
)

const (
	// samplesPerRequest and bytesPerRequest (before compression) keep a request
	// below what every receiver known to us takes: Prometheus sends 2,000
	// samples, VictoriaMetrics takes 32 MB.
	samplesPerRequest = 5000
	bytesPerRequest   = 4 << 20
)

// value is what one series says at one time: a float, or a native histogram
// where h or fh is set.
type value struct {
	st, t     int64 // ms since the epoch; st 0 is unknown
	v         float64
	h         *histogram.Histogram
	fh        *histogram.FloatHistogram
	meta      metadata.Metadata
	exemplars []exemplar.Exemplar
}

// encoder turns series into requests of remote write 2.0. It writes the wire
// form itself: the generated types take a struct, two slices and a copy for
// each series, which is most of what a tick costs. It is for one goroutine.
type encoder struct {
	refs    map[string]uint32 // of symbols
	symbols []byte            // field 4 of io.prometheus.write.v2.Request, repeated
	series  []byte            // field 5, repeated
	scratch []byte            // the series at work
	part    []byte            // a message within it
	samples int
	newest  int64 // time of a sample, ms since the epoch
	batches []batch
	packed  []byte
}

func newEncoder() *encoder {
	e := &encoder{refs: map[string]uint32{}}
	e.begin()
	return e
}

// begin starts a request. The specification wants the empty string first.
func (e *encoder) begin() {
	clear(e.refs)
	e.symbols, e.series, e.samples, e.newest = e.symbols[:0], e.series[:0], 0, math.MinInt64
	e.symbol("")
}

func (e *encoder) symbol(s string) uint32 {
	if ref, ok := e.refs[s]; ok {
		return ref
	}
	ref := uint32(len(e.refs))
	e.refs[s] = ref
	e.symbols = protowire.AppendTag(e.symbols, 4, protowire.BytesType)
	e.symbols = protowire.AppendString(e.symbols, s)
	return ref
}

// add takes a series, its name among the labels, which are sorted. Those with
// an empty value are left out, as if they were not there.
func (e *encoder) add(pairs []metric.Label, x value) error {
	if e.samples >= samplesPerRequest || len(e.series)+len(e.symbols) >= bytesPerRequest {
		e.flush()
	}
	b := e.scratch[:0]
	refs := e.part[:0]
	for _, l := range pairs {
		if l.Value != "" {
			refs = protowire.AppendVarint(refs, uint64(e.symbol(l.Name)))
			refs = protowire.AppendVarint(refs, uint64(e.symbol(l.Value)))
		}
	}
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, refs)
	e.part = refs
	var err error
	if b, err = e.value(b, x); err != nil {
		return err
	}
	for _, ex := range x.exemplars {
		b = e.exemplar(b, ex)
	}
	m := e.part[:0]
	if t := writev2.FromMetadataType(x.meta.Type); t != 0 {
		m = protowire.AppendTag(m, 1, protowire.VarintType)
		m = protowire.AppendVarint(m, uint64(t))
	}
	m = appendRef(m, 3, e.symbol(x.meta.Help))
	m = appendRef(m, 4, e.symbol(x.meta.Unit))
	b = protowire.AppendTag(b, 5, protowire.BytesType)
	b = protowire.AppendBytes(b, m)
	e.part, e.scratch = m, b

	e.series = protowire.AppendTag(e.series, 5, protowire.BytesType)
	e.series = protowire.AppendBytes(e.series, b)
	e.samples++
	e.newest = max(e.newest, x.t)
	return nil
}

func (e *encoder) value(b []byte, x value) ([]byte, error) {
	if x.h == nil && x.fh == nil {
		s := e.part[:0]
		s = protowire.AppendTag(s, 1, protowire.Fixed64Type)
		s = protowire.AppendFixed64(s, math.Float64bits(x.v))
		s = protowire.AppendTag(s, 2, protowire.VarintType)
		s = protowire.AppendVarint(s, uint64(x.t))
		if x.st != 0 {
			s = protowire.AppendTag(s, 3, protowire.VarintType)
			s = protowire.AppendVarint(s, uint64(x.st))
		}
		e.part = s
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		return protowire.AppendBytes(b, s), nil
	}
	var h writev2.Histogram
	if x.fh != nil {
		h = writev2.FromFloatHistogram(x.st, x.t, x.fh)
	} else {
		h = writev2.FromIntHistogram(x.st, x.t, x.h)
	}
	raw, err := h.Marshal()
	if err != nil {
		return b, fmt.Errorf("encode histogram: %w", err)
	}
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	return protowire.AppendBytes(b, raw), nil
}

func (e *encoder) exemplar(b []byte, x exemplar.Exemplar) []byte {
	var refs []byte
	x.Labels.Range(func(l labels.Label) {
		refs = protowire.AppendVarint(refs, uint64(e.symbol(l.Name)))
		refs = protowire.AppendVarint(refs, uint64(e.symbol(l.Value)))
	})
	m := e.part[:0]
	m = protowire.AppendTag(m, 1, protowire.BytesType)
	m = protowire.AppendBytes(m, refs)
	m = protowire.AppendTag(m, 2, protowire.Fixed64Type)
	m = protowire.AppendFixed64(m, math.Float64bits(x.Value))
	m = protowire.AppendTag(m, 3, protowire.VarintType)
	m = protowire.AppendVarint(m, uint64(x.Ts))
	e.part = m
	b = protowire.AppendTag(b, 4, protowire.BytesType)
	return protowire.AppendBytes(b, m)
}

func appendRef(m []byte, field protowire.Number, ref uint32) []byte {
	if ref == 0 {
		return m
	}
	m = protowire.AppendTag(m, field, protowire.VarintType)
	return protowire.AppendVarint(m, uint64(ref))
}

// flush ends the request at work.
func (e *encoder) flush() {
	if e.samples == 0 {
		return
	}
	raw := append(e.symbols, e.series...)
	e.symbols = raw[:0]
	// The length of what snappy makes at worst is some sixth more than the text:
	// encode into memory that is kept, and hand out a copy of the right size.
	if n := snappy.MaxEncodedLen(len(raw)); cap(e.packed) < n {
		e.packed = make([]byte, n)
	}
	packed := snappy.Encode(e.packed[:cap(e.packed)], raw)
	e.batches = append(e.batches, batch{time: e.newest, samples: e.samples, request: append([]byte(nil), packed...)})
	e.begin()
}

// take ends the request at work and returns all that were made.
func (e *encoder) take() []batch {
	e.flush()
	batches := e.batches
	e.batches = nil
	// What one large tick took is not kept for ever.
	if cap(e.series)+cap(e.packed) > 2*bytesPerRequest {
		*e = *newEncoder()
	}
	return batches
}

// labelsKey spells labels so that equal ones, and no others, give equal keys.
func labelsKey(b []byte, pairs []metric.Label) []byte {
	for _, l := range pairs {
		b = append(binary.AppendUvarint(b, uint64(len(l.Name))), l.Name...)
		b = append(binary.AppendUvarint(b, uint64(len(l.Value))), l.Value...)
	}
	return b
}
