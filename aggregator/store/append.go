package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// Refusal is one sample that was not taken, and why.
type Refusal struct {
	Labels labels.Labels
	T      int64 // ms since the epoch
	Reason Reason
	Detail string // what is wrong and what to do
}

func (r *Refusal) Error() string {
	text := r.Labels.String()
	if len(text) > maxLabelText {
		text = strings.ToValidUTF8(text[:maxLabelText], "") + "…"
	}
	return fmt.Sprintf("%s at %s: %s", text, time.UnixMilli(r.T).UTC().Format("2006-01-02T15:04:05.000Z"), r.Detail)
}

// RefusedError says that some samples of a batch were refused for good. All
// others of the batch are stored.
type RefusedError struct {
	Stored int
	Counts map[Reason]int
	First  []*Refusal // at most 5
}

func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d samples refused, the rest is stored:", e.total(), e.total()+e.Stored)
	for _, r := range e.First {
		b.WriteString("\n" + r.Error())
	}
	if more := e.total() - len(e.First); more > 0 {
		fmt.Fprintf(&b, "\nand %d more", more)
	}
	return b.String()
}

func (e *RefusedError) total() int {
	n := 0
	for _, c := range e.Counts {
		n += c
	}
	return n
}

func (e *RefusedError) add(r *Refusal) {
	if e.Counts == nil {
		e.Counts = make(map[Reason]int)
	}
	e.Counts[r.Reason]++
	if len(e.First) < maxPlaces {
		e.First = append(e.First, r)
	}
}

// refuse notes a refusal for the sender and for the refused hook.
func (a *Appender) refuse(r *Refusal) *Refusal {
	a.refused.add(r)
	a.sources.add(r)
	return r
}

// beyond counts a refused sample by whose limit it was.
func (a *Appender) beyond(s scope) {
	if a.limited == nil {
		a.limited = make(map[scope]int)
	}
	a.limited[s]++
}

// Appender collects samples in memory for one commit. It is for one goroutine
// and done with after Commit or Rollback.
type Appender struct {
	db        *DB
	batch     []Sample
	exemplars map[int][]exemplar.Exemplar // by index into batch
	lone      []loneExemplars             // of series that bring no sample with them
	sender    *tenant                     // who brings the batch by remote write; nil is this process
	refused   RefusedError
	sources   refusedSources
	limited   map[scope]int // refused because of whose limit
	paid      []payment     // to whom the samples were charged
	limit     int64         // ms since the epoch: no sample may be newer
	key       []byte        // scratch
	done      bool

	storedHistograms, storedExemplars int // after Commit
}

// loneExemplars came without a sample beside them, as Prometheus sends them.
type loneExemplars struct {
	handle *Handle
	list   []exemplar.Exemplar
}

// Appender returns an empty one. The context is not used once Commit began:
// a batch is stored whole or not at all.
func (db *DB) Appender(context.Context) *Appender {
	a := &Appender{db: db, limit: db.now().Add(MaxAhead).UnixMilli()}
	if b, ok := db.batches.Get().(*[]Sample); ok {
		a.batch = *b
	}
	return a
}

// release gives the slice back for another batch. Nothing may use it then.
func (a *Appender) release() {
	if cap(a.batch) > 0 {
		clear(a.batch)
		b := a.batch[:0]
		a.db.batches.Put(&b)
	}
	a.batch, a.exemplars, a.lone = nil, nil, nil
}

// Append takes a float sample: t and its start timestamp st in ms since the
// epoch, st 0 for unknown. The error, if any, is a *Refusal; the sample is then
// left out and counted, and others can follow.
func (a *Appender) Append(ls labels.Labels, st, t int64, v float64) error {
	return a.add(Sample{Labels: ls, ST: st, T: t, V: v})
}

// AppendTo is Append for a series looked up once: it costs a fraction.
func (a *Appender) AppendTo(h *Handle, st, t int64, v float64) error {
	if h.db != a.db {
		return errors.New("append: the handle belongs to another store")
	}
	if err := a.ready(); err != nil {
		return err
	}
	return a.put(h, st, t, v)
}

// AppendHistogram takes a native histogram, of integers or of floats, else
// like Append. The appender owns it from here on.
func (a *Appender) AppendHistogram(ls labels.Labels, st, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) error {
	return a.add(Sample{Labels: ls, ST: st, T: t, H: h, FH: fh})
}

// AppendExemplars attaches exemplars, sorted by time, to the sample that the
// last Append took. The database keeps them in memory, bounded. Those that lie
// more than MaxAhead in the future are left out, and the oldest where there are
// more than Limits.Exemplars. The appender owns es.
func (a *Appender) AppendExemplars(es []exemplar.Exemplar) {
	if es = a.fewExemplars(es); len(a.batch) == 0 || len(es) == 0 {
		return
	}
	if a.exemplars == nil {
		a.exemplars = make(map[int][]exemplar.Exemplar)
	}
	a.exemplars[len(a.batch)-1] = es
}

// appendLoneExemplars takes exemplars of a series that the database has, or
// will have when the batch is in it.
func (a *Appender) appendLoneExemplars(h *Handle, es []exemplar.Exemplar) {
	if n := len(a.lone); n > 0 && a.lone[n-1].handle == h { // each in a message of its own
		a.lone[n-1].list = a.fewExemplars(append(a.lone[n-1].list, es...))
		return
	}
	if es = a.fewExemplars(es); len(es) > 0 {
		a.lone = append(a.lone, loneExemplars{h, es})
	}
}

func (a *Appender) fewExemplars(es []exemplar.Exemplar) []exemplar.Exemplar {
	limit := a.db.now().Add(MaxAhead).UnixMilli()
	n := len(es)
	es = slices.DeleteFunc(es, func(e exemplar.Exemplar) bool { return e.Ts > limit })
	es = es[max(0, len(es)-a.db.cfg.Limits.Exemplars):]
	a.db.metrics.exemplars.WithLabelValues("refused").Add(float64(n - len(es)))
	return es
}

func (a *Appender) ready() error {
	if a.done {
		return errors.New("append: the appender was committed or rolled back")
	}
	return nil
}

// add takes a sample by its labels.
func (a *Appender) add(s Sample) error {
	if err := a.ready(); err != nil {
		return err
	}
	h, fault := a.resolve(s.Labels)
	if fault != nil {
		return a.refuse(&Refusal{Labels: s.Labels, T: s.T, Reason: fault.reason, Detail: fault.detail})
	}
	if s.H == nil && s.FH == nil {
		return a.put(h, s.ST, s.T, s.V)
	}
	return a.putHistogram(h, s.ST, s.T, s.H, s.FH)
}

// resolve finds or makes the handle of a label set, or says what is wrong
// with it.
func (a *Appender) resolve(ls labels.Labels) (*Handle, *fault) {
	now := a.limit
	a.key = ls.Bytes(a.key)
	h, hash := a.db.byLabels.find(a.key, now)
	if h != nil {
		return h, nil
	}
	h, fault := a.db.newHandle(ls)
	if fault == nil {
		a.db.byLabels.keep(a.key, hash, h, now)
	}
	return h, fault
}

// put and putHistogram take a sample of a series whose labels are valid. Their
// error is nil or a *Refusal.
func (a *Appender) put(h *Handle, st, t int64, v float64) error {
	if t > a.limit {
		if r := a.checkAhead(h, t); r != nil {
			return r
		}
	}
	if st > t || st < 0 {
		st = 0 // says nothing
	}
	a.batch = append(a.batch, Sample{Labels: h.labels, ST: st, T: t, V: v, handle: h})
	return nil
}

func (a *Appender) putHistogram(h *Handle, st, t int64, hist *histogram.Histogram, fh *histogram.FloatHistogram) error {
	s := Sample{Labels: h.labels, ST: st, T: t, H: hist, FH: fh, handle: h}
	if t > a.limit {
		if r := a.checkAhead(h, t); r != nil {
			return r
		}
	}
	if st > t || st < 0 {
		s.ST = 0 // says nothing
	}
	if err := checkHistogram(&s); err != nil {
		return a.refuse(&Refusal{Labels: h.labels, T: t, Reason: InvalidHistogram, Detail: fmt.Sprintf("%v: update the program that made this histogram", err)})
	}
	a.batch = append(a.batch, s)
	return nil
}

// checkAhead reads the clock again: the appender may be an old one.
func (a *Appender) checkAhead(h *Handle, t int64) *Refusal {
	now := a.db.now()
	if a.limit = now.Add(MaxAhead).UnixMilli(); t <= a.limit {
		return nil
	}
	ahead := time.Duration(t-now.UnixMilli()) * time.Millisecond
	return a.refuse(&Refusal{Labels: h.labels, T: t, Reason: Future,
		Detail: fmt.Sprintf("%s ahead of the receiver's clock, at most %s is taken: set the sender's clock", ahead, MaxAhead)})
}

// fault is what is wrong with a label set.
type fault struct {
	reason Reason
	detail string // what is wrong and what to do
}

// checkLabels returns what is wrong with a label set, nil for nothing.
func (l *Limits) checkLabels(ls labels.Labels) *fault {
	invalid := func(detail string) *fault { return &fault{InvalidLabels, detail} }
	tooMuch := func(format string, args ...any) *fault { return &fault{LabelLimit, fmt.Sprintf(format, args...)} }
	switch {
	case ls.Get(model.MetricNameLabel) == "":
		return invalid("has no name: send the label __name__")
	case !ls.IsValid(model.UTF8Validation):
		return invalid("a name or value is not valid UTF-8 or empty: correct it at the sender")
	case ls.Len() > l.Labels:
		return tooMuch("has %d labels, at most %d are taken: drop some by relabelling, or raise limits.labels", ls.Len(), l.Labels)
	case ls.ByteSize() > uint64(l.LabelBytes):
		return tooMuch("has %d bytes of labels, at most %d are taken: shorten them by relabelling, or raise limits.label_bytes", ls.ByteSize(), l.LabelBytes)
	}
	if name, twice := ls.HasDuplicateLabelNames(); twice {
		return invalid(fmt.Sprintf("has the label %q twice: correct it at the sender", name))
	}
	var long *fault
	ls.Range(func(x labels.Label) {
		switch {
		case len(x.Name) > l.LabelName:
			long = tooMuch("has a label name of %d bytes, at most %d are taken: rename it by relabelling, or raise limits.label_name", len(x.Name), l.LabelName)
		case len(x.Value) > l.LabelValue:
			long = tooMuch("the value of label %q has %d bytes, at most %d are taken: shorten it by relabelling, or raise limits.label_value", x.Name, len(x.Value), l.LabelValue)
		}
	})
	return long
}

// checkHistogram validates a histogram and lowers a resolution that the
// database does not have.
func checkHistogram(s *Sample) error {
	tooFine := func(schema int32) bool {
		return histogram.IsExponentialSchemaReserved(schema) && schema > histogram.ExponentialSchemaMax
	}
	if s.H != nil {
		if tooFine(s.H.Schema) {
			if err := s.H.ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
				return err
			}
		}
		return s.H.Validate()
	}
	if s.FH != nil {
		if tooFine(s.FH.Schema) {
			if err := s.FH.ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
				return err
			}
		}
		return s.FH.Validate()
	}
	return nil
}

// Rollback gives up what was collected.
func (a *Appender) Rollback() {
	if !a.done {
		a.done = true
		a.release()
	}
}

// Commit stores what was collected, makes it durable, gives it to the hook and
// returns. Nil means that all samples are stored; a *RefusedError that some
// were refused for good and the rest is stored. After any other error nothing
// may be taken for stored: write the batch again. It blocks for a sync of the
// disk, which commits that run at the same time share.
func (a *Appender) Commit() error {
	if a.done {
		return errors.New("commit: the appender was committed or rolled back")
	}
	a.done = true
	err := a.db.write(a)
	a.release()
	if err != nil {
		return err
	}
	for why, n := range a.refused.Counts {
		a.db.metrics.samples.WithLabelValues(string(why)).Add(float64(n))
	}
	for s, n := range a.limited {
		a.db.metrics.beyond.WithLabelValues(string(s)).Add(float64(n))
	}
	if len(a.refused.Counts) > 0 {
		return &a.refused
	}
	return nil
}
