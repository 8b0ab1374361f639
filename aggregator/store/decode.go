package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// decoder appends what remote-write bodies hold. Samples of series that the
// store knows are decoded in place; for all else it has the generated code
// decode the series. It is for one body at a time, and keeps nothing of one.
type decoder struct {
	db      *DB
	builder labels.ScratchBuilder
	now     int64

	samples []floatSample // of the series at work
	meta    [][]byte      // 1.0: metadata messages of the body

	// 2.0
	symbols  [][]byte
	texts    []string // symbols as strings, made when first needed
	series   [][]byte // time series messages
	refs     []uint32 // of the series at work
	key      []byte   // likewise: its labels, each preceded by its length
	seenMeta map[metaKey]struct{}
}

type floatSample struct {
	st, t int64
	v     float64
}

// metaKey is metadata of a 2.0 request by symbols.
type metaKey struct {
	name, help, unit uint32
	typ              uint64
}

func (db *DB) decoder() *decoder {
	if d, ok := db.decoders.Get().(*decoder); ok {
		d.now = db.now().UnixMilli()
		return d
	}
	return &decoder{db: db, builder: labels.NewScratchBuilder(16), now: db.now().UnixMilli(), seenMeta: make(map[metaKey]struct{})}
}

// errWire says that a message is cut off or is none.
var errWire = errors.New("the message is cut off or broken")

// field takes the next field off a message: its bytes for those with a length,
// else its number in bits.
func field(b []byte) (num protowire.Number, typ protowire.Type, msg []byte, bits uint64, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, 0, nil, 0, nil, errWire
	}
	b = b[n:]
	switch typ {
	case protowire.BytesType:
		msg, n = protowire.ConsumeBytes(b)
	case protowire.VarintType:
		bits, n = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		bits, n = protowire.ConsumeFixed64(b)
	default:
		n = protowire.ConsumeFieldValue(num, typ, b)
	}
	if n < 0 {
		return 0, 0, nil, 0, nil, errWire
	}
	return num, typ, msg, bits, b[n:], nil
}

func wrongType(num protowire.Number) error {
	return fmt.Errorf("field %d has another type than it should", num)
}

// v1 appends all of a 1.0 request. Refusals stay in the appender.
func (d *decoder) v1(body []byte, app *Appender) error {
	d.meta = d.meta[:0]
	for len(body) > 0 {
		num, typ, msg, _, rest, err := field(body)
		if err == nil && (num == 1 || num == 3) && typ != protowire.BytesType {
			err = wrongType(num)
		}
		if err == nil && num == 1 {
			err = d.series1(msg, app)
		}
		if err != nil {
			return fmt.Errorf("decode prometheus.WriteRequest: %w", err)
		}
		if num == 3 {
			d.meta = append(d.meta, msg)
		}
		body = rest
	}
	for _, msg := range d.meta {
		var m prompb.MetricMetadata
		if err := m.Unmarshal(msg); err != nil {
			return fmt.Errorf("decode prometheus.MetricMetadata: %w", err)
		}
		d.db.meta.add(m.MetricFamilyName, metadata.Metadata{Type: v1Type(m.Type), Unit: m.Unit, Help: m.Help})
	}
	return nil
}

func v1Type(t prompb.MetricMetadata_MetricType) model.MetricType {
	return model.MetricType(strings.ToLower(t.String()))
}

// series1 appends a time series of a 1.0 request.
func (d *decoder) series1(msg []byte, app *Appender) error {
	// Every sender writes the labels first; together they are the series' key.
	rest := msg
	for len(rest) > 0 && rest[0] == 1<<3|byte(protowire.BytesType) {
		_, n := protowire.ConsumeBytes(rest[1:])
		if n < 0 {
			return errWire
		}
		rest = rest[1+n:]
	}
	key := msg[:len(msg)-len(rest)]
	handle, hash := d.db.byV1.find(key, d.now)
	if handle == nil {
		return d.slowSeries1(msg, key, hash, app)
	}
	d.samples = d.samples[:0]
	for len(rest) > 0 {
		num, typ, m, _, after, err := field(rest)
		if err != nil || num != 2 || typ != protowire.BytesType || !d.sample(m, 2) {
			return d.slowSeries1(msg, nil, 0, app)
		}
		rest = after
	}
	for _, s := range d.samples {
		_ = app.put(handle, 0, s.t, s.v) // told by Commit
	}
	return nil
}

// sample decodes a float sample whose fields are numbered up to last. It
// returns false for what only the generated code understands.
func (d *decoder) sample(b []byte, last protowire.Number) bool {
	var s floatSample
	for len(b) > 0 {
		num, typ, _, bits, rest, err := field(b)
		switch {
		case err != nil || num > last:
			return false
		case num == 1 && typ == protowire.Fixed64Type:
			s.v = math.Float64frombits(bits)
		case num == 2 && typ == protowire.VarintType:
			s.t = int64(bits)
		case num == 3 && typ == protowire.VarintType:
			s.st = int64(bits)
		default:
			return false
		}
		b = rest
	}
	d.samples = append(d.samples, s)
	return true
}

// slowSeries1 has the generated code decode the series. With a key it learns
// it.
func (d *decoder) slowSeries1(msg, key []byte, hash uint64, app *Appender) error {
	var ts prompb.TimeSeries
	if err := ts.Unmarshal(msg); err != nil {
		return err
	}
	ls := ts.ToLabels(&d.builder, nil)
	handle, fault := app.resolve(ls)
	if fault != nil {
		for _, s := range ts.Samples {
			app.refuse(&Refusal{Labels: ls, T: s.Timestamp, Reason: fault.reason, Detail: fault.detail})
		}
		for _, h := range ts.Histograms {
			app.refuse(&Refusal{Labels: ls, T: h.Timestamp, Reason: fault.reason, Detail: fault.detail})
		}
		return nil
	}
	before := len(app.batch)
	if key != nil && !d.moreLabels(msg[len(key):]) {
		d.db.byV1.keep(key, hash, handle, d.now)
	}
	for _, s := range ts.Samples {
		_ = app.put(handle, 0, s.Timestamp, s.Value)
	}
	for _, h := range ts.Histograms {
		if h.IsFloatHistogram() {
			_ = app.putHistogram(handle, 0, h.Timestamp, nil, h.ToFloatHistogram())
		} else {
			_ = app.putHistogram(handle, 0, h.Timestamp, h.ToIntHistogram(), nil)
		}
	}
	lone := len(ts.Samples)+len(ts.Histograms) == 0
	if len(ts.Exemplars) > 0 && (lone || len(app.batch) > before) {
		es := make([]exemplar.Exemplar, 0, len(ts.Exemplars))
		for _, e := range ts.Exemplars {
			es = append(es, e.ToExemplar(&d.builder, nil))
		}
		if lone {
			app.appendLoneExemplars(handle, es)
		} else {
			app.AppendExemplars(es)
		}
	}
	return nil
}

// moreLabels says whether labels come behind the key, as no known sender
// writes them.
func (d *decoder) moreLabels(b []byte) bool {
	for len(b) > 0 {
		num, _, _, _, rest, err := field(b)
		if err != nil || num == 1 {
			return true
		}
		b = rest
	}
	return false
}

// v2 appends all of a 2.0 request that can be read, and says what could not.
func (d *decoder) v2(body []byte, app *Appender) (broken []string, _ error) {
	d.symbols, d.series, d.texts = d.symbols[:0], d.series[:0], d.texts[:0]
	clear(d.seenMeta)
	for len(body) > 0 {
		num, typ, msg, _, rest, err := field(body)
		if err == nil && (num == 4 || num == 5) && typ != protowire.BytesType {
			err = wrongType(num)
		}
		if err != nil {
			return nil, fmt.Errorf("decode io.prometheus.write.v2.Request: %w", err)
		}
		switch num {
		case 4:
			d.symbols = append(d.symbols, msg)
		case 5:
			d.series = append(d.series, msg)
		}
		body = rest
	}
	for i, msg := range d.series {
		if d.series2(msg, app) {
			continue
		}
		var ts writev2.TimeSeries
		if err := ts.Unmarshal(msg); err != nil {
			return nil, fmt.Errorf("decode io.prometheus.write.v2.Request: timeseries %d: %w", i, err)
		}
		broken = append(broken, d.slowSeries2(i, &ts, app)...)
	}
	return broken, nil
}

// series2 appends a time series of a 2.0 request if the store knows it and it
// has nothing but samples and metadata.
func (d *decoder) series2(msg []byte, app *Appender) bool {
	num, typ, refs, _, msg, err := field(msg)
	if err != nil || num != 1 || typ != protowire.BytesType || !d.readRefs(refs) {
		return false
	}
	handle, _ := d.db.byV2.find(d.makeKey(), d.now)
	if handle == nil {
		return false
	}
	var meta metaKey
	d.samples = d.samples[:0]
	for len(msg) > 0 {
		num, typ, m, _, rest, err := field(msg)
		switch {
		case err != nil || typ != protowire.BytesType:
			return false
		case num == 2:
			if !d.sample(m, 3) {
				return false
			}
		case num == 5:
			if !d.readMeta(m, &meta) {
				return false
			}
		default:
			return false
		}
		msg = rest
	}
	if len(d.samples) == 0 {
		return false
	}
	d.noteMeta(meta, handle)
	for _, s := range d.samples {
		_ = app.put(handle, s.st, s.t, s.v) // told by Commit
	}
	return true
}

// readRefs decodes the references of a series' labels, if they are good.
func (d *decoder) readRefs(b []byte) bool {
	d.refs = d.refs[:0]
	for len(b) > 0 {
		ref, n := protowire.ConsumeVarint(b)
		if n < 0 || ref >= uint64(len(d.symbols)) {
			return false
		}
		d.refs = append(d.refs, uint32(ref))
		b = b[n:]
	}
	return len(d.refs)%2 == 0
}

// makeKey spells the labels of refs out.
func (d *decoder) makeKey() []byte {
	key := d.key[:0]
	for _, ref := range d.refs {
		symbol := d.symbols[ref]
		key = append(binary.AppendUvarint(key, uint64(len(symbol))), symbol...)
	}
	d.key = key
	return key
}

// readMeta decodes a metadata message whose references are good.
func (d *decoder) readMeta(b []byte, meta *metaKey) bool {
	for len(b) > 0 {
		num, typ, _, bits, rest, err := field(b)
		if err != nil || typ != protowire.VarintType || bits >= uint64(len(d.symbols)) && num != 1 {
			return false
		}
		switch num {
		case 1:
			meta.typ = bits
		case 3:
			meta.help = uint32(bits)
		case 4:
			meta.unit = uint32(bits)
		default:
			return false
		}
		b = rest
	}
	return true
}

var metricName = []byte(model.MetricNameLabel)

// noteMeta keeps the metadata of a series, once for all that share it.
func (d *decoder) noteMeta(meta metaKey, h *Handle) {
	for i := 0; i < len(d.refs); i += 2 {
		if bytes.Equal(d.symbols[d.refs[i]], metricName) {
			meta.name = d.refs[i+1]
			break
		}
	}
	if _, ok := d.seenMeta[meta]; ok {
		return
	}
	d.seenMeta[meta] = struct{}{}
	ts := writev2.TimeSeries{Metadata: writev2.Metadata{Type: writev2.Metadata_MetricType(meta.typ), HelpRef: 0, UnitRef: 1}}
	md, err := ts.ToMetadata([]string{string(d.symbols[meta.help]), string(d.symbols[meta.unit])})
	if err == nil { // the references are good
		d.db.meta.add(familyName(h.labels.Get(model.MetricNameLabel), md.Type), md)
	}
}

// slowSeries2 appends what the generated code decoded, and says what of it
// could not be read.
func (d *decoder) slowSeries2(i int, ts *writev2.TimeSeries, app *Appender) (broken []string) {
	if len(d.texts) == 0 {
		for _, s := range d.symbols {
			d.texts = append(d.texts, string(s))
		}
	}
	ls, err := ts.ToLabels(&d.builder, d.texts)
	if err != nil {
		for _, s := range ts.Samples {
			app.sources.addUnknown(InvalidLabels, s.Timestamp, s.Timestamp, 1)
		}
		for _, h := range ts.Histograms {
			app.sources.addUnknown(InvalidLabels, h.Timestamp, h.Timestamp, 1)
		}
		return []string{fmt.Sprintf("timeseries %d: %v", i, err)}
	}
	if md, err := ts.ToMetadata(d.texts); err != nil {
		broken = append(broken, fmt.Sprintf("metadata of timeseries %d (its samples are stored): %v", i, err))
	} else {
		d.db.meta.add(familyName(ls.Get(model.MetricNameLabel), md.Type), md)
	}
	before := len(app.batch)
	handle, fault := app.resolve(ls)
	if fault != nil {
		for _, s := range ts.Samples {
			app.refuse(&Refusal{Labels: ls, T: s.Timestamp, Reason: fault.reason, Detail: fault.detail})
		}
		for _, h := range ts.Histograms {
			app.refuse(&Refusal{Labels: ls, T: h.Timestamp, Reason: fault.reason, Detail: fault.detail})
		}
	} else {
		d.refs = append(d.refs[:0], ts.LabelsRefs...)
		key := d.makeKey()
		if known, hash := d.db.byV2.find(key, d.now); known == nil {
			d.db.byV2.keep(key, hash, handle, d.now)
		}
		for _, s := range ts.Samples {
			_ = app.put(handle, s.StartTimestamp, s.Timestamp, s.Value)
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				_ = app.putHistogram(handle, h.StartTimestamp, h.Timestamp, nil, h.ToFloatHistogram())
			} else {
				_ = app.putHistogram(handle, h.StartTimestamp, h.Timestamp, h.ToIntHistogram(), nil)
			}
		}
	}
	lone := len(ts.Samples)+len(ts.Histograms) == 0
	if lone && len(ts.Exemplars) == 0 {
		return append(broken, fmt.Sprintf("timeseries %d, %s: has neither samples nor histograms nor exemplars", i, ls))
	}
	var es []exemplar.Exemplar
	for _, e := range ts.Exemplars {
		x, err := e.ToExemplar(&d.builder, d.texts)
		if err != nil {
			broken = append(broken, fmt.Sprintf("exemplar of timeseries %d: %v", i, err))
			continue
		}
		es = append(es, x)
	}
	switch {
	case lone && fault == nil:
		app.appendLoneExemplars(handle, es)
	case len(app.batch) > before: // else they would go to another series
		app.AppendExemplars(es)
	}
	return broken
}
