package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"nines/aggregator/store"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

// maxText bounds a file of OpenMetrics text: it is held in memory.
const maxText = 1 << 30

// recording is samples that were recorded: a file of text, a database's folder,
// or a server.
type recording struct {
	name        string
	first, last time.Time // from the first sample's minute to behind the last one's
	text        []*column // of a file: all of it
	source      store.Source
	selectors   [][]*labels.Matcher
	wanted      [][]*labels.Matcher
	columns     map[uint64][]*column // by the hash of labels: one for each series, for good
}

// column is the samples of one series in a stretch of time.
type column struct {
	series  *column // itself in every stretch
	labels  labels.Labels
	samples []sample
}

type sample struct {
	st, t int64 // milliseconds since the epoch
	v     float64
	h     *histogram.FloatHistogram
}

// stretch is what was recorded in [from, to), which are whole minutes.
type stretch struct {
	from, to time.Time
	columns  []*column
}

// openRecording opens what --samples or --source names. Zero times are the ends
// of what is there.
func openRecording(ctx context.Context, name string, objectives []sla.Objective, from, to time.Time) (*recording, error) {
	r := &recording{name: name, columns: map[uint64][]*column{}}
	if err := r.want(objectives); err != nil {
		return nil, err
	}
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		return r, r.readText(ctx, name, from, to)
	} else if err != nil && !strings.Contains(name, "://") {
		return nil, fmt.Errorf("read the samples: %w", err)
	}
	var err error
	if r.source, err = store.OpenSource(ctx, name); err != nil {
		return nil, err
	}
	if to.IsZero() {
		to = time.Now()
		if end, ok := r.source.MaxTime(); ok {
			to = end.Add(time.Millisecond)
		}
	}
	if from.IsZero() {
		from = to.Add(-24 * time.Hour)
		if begin, ok := r.source.MinTime(); ok && !strings.Contains(name, "://") {
			from = begin
		}
	}
	if !from.Before(to) {
		return nil, errors.Join(fmt.Errorf("%s: nothing lies between %s and %s", name, from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339)), r.source.Close())
	}
	r.name = r.source.Describe() // without a password
	r.first, r.last = from.Truncate(time.Minute), to
	return r, nil
}

// newest returns the time of the newest sample, false where that is not known.
func (r *recording) newest() (time.Time, bool) {
	if r.source == nil {
		return r.last, true
	}
	return r.source.MaxTime()
}

func (r *recording) close() error {
	if r.source == nil {
		return nil
	}
	return r.source.Close()
}

// fewSelectors of one metric are read one by one; more are read together.
const fewSelectors = 4

// want finds out which series the objectives are fed by.
func (r *recording) want(objectives []sla.Objective) error {
	byName := map[string][][]*labels.Matcher{}
	known := map[string]bool{}
	add := func(ms []*labels.Matcher) {
		if known[fmt.Sprint(ms)] {
			return
		}
		known[fmt.Sprint(ms)] = true
		r.wanted = append(r.wanted, ms)
		name := ""
		for _, m := range ms {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
				name = m.Value
			}
		}
		byName[name] = append(byName[name], ms)
	}
	for _, o := range objectives {
		queries, err := openslo.Queries(o.SLI)
		if err != nil {
			return fmt.Errorf("SLO %s: %w", o.SLO, err)
		}
		for _, q := range queries {
			if q.Kind != openslo.Expression {
				add(q.Matchers)
				continue
			}
			expr, err := parser.NewParser(parser.Options{}).ParseExpr(q.Expr)
			if err != nil {
				return fmt.Errorf("SLO %s: %w", o.SLO, err)
			}
			for _, ms := range parser.ExtractSelectors(expr) {
				add(ms)
			}
		}
	}
	// Removals and proofs come by these (R12, R14).
	add([]*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, "up|process_start_time_seconds")})
	for name, list := range byName {
		if name != "" && len(list) > fewSelectors {
			list = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)}}
		}
		r.selectors = append(r.selectors, list...)
	}
	return nil
}

// wants reports whether an objective is fed by a series.
func (r *recording) wants(ls labels.Labels) bool {
	return slices.ContainsFunc(r.wanted, func(ms []*labels.Matcher) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
	})
}

// column returns the column of a series, nil where nobody wants it.
func (r *recording) column(ls labels.Labels) *column {
	h := ls.Hash()
	for _, c := range r.columns[h] {
		if labels.Equal(c.labels, ls) {
			return c.series
		}
	}
	c := &column{labels: ls}
	if r.wants(ls) {
		c.series = c
	}
	r.columns[h] = append(r.columns[h], c)
	return c.series
}

// readText reads OpenMetrics text.
func (r *recording) readText(ctx context.Context, path string, from, to time.Time) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the samples: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return fmt.Errorf("read the samples: %w", err)
	}
	if len(data) > maxText {
		return fmt.Errorf("%s is larger than 1 GiB: split it by time, or give the folder of a TSDB", path)
	}
	p := textparse.NewOpenMetricsParser(data, labels.NewSymbolTable())
	read := 0
	begin, end := int64(math.MaxInt64), int64(math.MinInt64)
	bySeries := map[string]*column{} // by the series as it is written
	var starts starts
	for {
		kind, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s, behind sample %d: %w (the format is OpenMetrics text; it ends with # EOF)", path, read, err)
		}
		if kind == textparse.EntryType {
			starts.family(p.Type())
		}
		if kind != textparse.EntrySeries {
			continue
		}
		if read%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		read++
		text, ts, v := p.Series()
		c, known := bySeries[string(text)]
		if !known {
			var ls labels.Labels
			p.Labels(&ls)
			if starts.add(ls, v) {
				continue
			}
			c = r.column(ls)
			bySeries[string(text)] = c
			starts.join(c)
		}
		if ts == nil {
			return fmt.Errorf("%s: %s has no time stamp: write seconds since 1970 behind its value", path, text)
		}
		if c == nil || !from.IsZero() && *ts < from.UnixMilli() || !to.IsZero() && *ts >= to.UnixMilli() {
			continue
		}
		begin, end = min(begin, *ts), max(end, *ts)
		if len(c.samples) == 0 {
			r.text = append(r.text, c)
		}
		c.samples = append(c.samples, sample{t: *ts, v: v})
	}
	if read == 0 {
		return fmt.Errorf("%s holds no samples", path)
	}
	if len(r.text) == 0 {
		return fmt.Errorf("%s holds no samples that an objective wants: compare the names and labels of its %d samples with the queries", path, read)
	}
	for _, c := range r.text {
		slices.SortStableFunc(c.samples, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
	}
	starts.set()
	r.first = time.UnixMilli(begin).UTC().Truncate(time.Minute)
	r.last = time.UnixMilli(end).UTC().Add(time.Millisecond)
	return nil
}

// starts gives the samples of text the start times that the series with the
// suffix _created tell, as OpenMetrics 1.0 has them: one for all series of a
// metric, in seconds.
//
// The parser can find them too, but looks through the rest of a family for each
// sample, which takes hours where a family holds a month.
type starts struct {
	name    string // of the family that is being read; empty where it has no starts
	metrics map[string]*started
}

// started is one metric: the series of a family that differ in the bounds of
// buckets and quantiles only.
type started struct {
	at      []int64 // milliseconds since the epoch
	columns []*column
}

// family begins a family of metrics.
func (s *starts) family(name []byte, kind model.MetricType) {
	s.name = ""
	switch kind {
	case model.MetricTypeCounter, model.MetricTypeHistogram, model.MetricTypeSummary:
		s.name = string(name)
	}
}

func (s *starts) metric(ls labels.Labels) *started {
	b := labels.NewBuilder(ls).Del(model.BucketLabel, model.QuantileLabel).Set(model.MetricNameLabel, s.name)
	key := b.Labels().String()
	m := s.metrics[key]
	if m == nil {
		if s.metrics == nil {
			s.metrics = map[string]*started{}
		}
		m = &started{}
		s.metrics[key] = m
	}
	return m
}

// add reports whether a series is one that tells starts, and keeps its value.
func (s *starts) add(ls labels.Labels, seconds float64) bool {
	if s.name == "" || ls.Get(model.MetricNameLabel) != s.name+"_created" {
		return false
	}
	if ms := seconds * 1000; ms > 0 && ms < math.MaxInt64 {
		m := s.metric(ls)
		m.at = append(m.at, int64(ms))
	}
	return true
}

// join makes a series one of those that starts are told for.
func (s *starts) join(c *column) {
	if c == nil || s.name == "" {
		return
	}
	m := s.metric(c.labels)
	m.columns = append(m.columns, c)
}

// set gives each sample the latest start that is not behind it.
func (s *starts) set() {
	for _, m := range s.metrics {
		slices.Sort(m.at)
		for _, c := range m.columns {
			next := 0
			for i := range c.samples {
				for next < len(m.at) && m.at[next] <= c.samples[i].t {
					next++
				}
				if next > 0 {
					c.samples[i].st = m.at[next-1]
				}
			}
		}
	}
}

const (
	// stretchSamples is how many samples are read at once, more or less.
	stretchSamples = 2_000_000
	minStretch     = time.Minute
	maxStretch     = 6 * time.Hour
)

// parts gives the recording, stretch by stretch, in the order of time. The next
// one is read while one is in use.
func (r *recording) parts(ctx context.Context) iter.Seq2[stretch, error] {
	if r.source == nil {
		return func(yield func(stretch, error) bool) {
			yield(stretch{r.first, r.last, r.text}, nil)
		}
	}
	type read struct {
		stretch
		err error
	}
	return func(yield func(stretch, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		parts := make(chan read, 1)
		defer func() {
			stop()
			for range parts { // until the reader has ended
				continue
			}
		}()
		go func() {
			defer close(parts)
			length := 30 * time.Minute
			for from := r.first; from.Before(r.last); {
				to := from.Add(length)
				if to.After(r.last) {
					to = r.last
				}
				columns, n, err := r.readStretch(ctx, from.UnixMilli(), to.UnixMilli()-1)
				select {
				case parts <- read{stretch{from, to, columns}, err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
				from = to
				switch {
				case n > stretchSamples:
					length = max(minStretch, (length / 2).Truncate(time.Minute))
				case n < stretchSamples/4:
					length = min(maxStretch, length*2)
				}
			}
		}()
		for p := range parts {
			if !yield(p.stretch, p.err) || p.err != nil {
				return
			}
		}
	}
}

// readStretch reads the series that are wanted in [mint, maxt].
func (r *recording) readStretch(ctx context.Context, mint, maxt int64) (out []*column, read int, err error) {
	q, err := r.source.Querier(mint, maxt)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", r.name, err)
	}
	defer func() {
		if cerr := q.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("read %s: %w", r.name, cerr))
		}
	}()
	seen := map[*column]bool{}
	var it chunkenc.Iterator
	for _, ms := range r.selectors {
		set := q.Select(ctx, false, &storage.SelectHints{Start: mint, End: maxt}, ms...)
		for set.Next() {
			series := set.At()
			c := r.column(series.Labels())
			if c == nil || seen[c] {
				continue
			}
			seen[c] = true
			part := &column{series: c, labels: c.labels, samples: make([]sample, 0, 256)}
			it = series.Iterator(it)
			for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
				switch kind {
				case chunkenc.ValFloat:
					t, v := it.At()
					part.samples = append(part.samples, sample{st: it.AtST(), t: t, v: v})
				case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
					t, h := it.AtFloatHistogram(nil)
					part.samples = append(part.samples, sample{st: it.AtST(), t: t, h: h})
				}
			}
			if err := it.Err(); err != nil {
				return nil, 0, fmt.Errorf("read %s, %s: %w", r.name, c.labels, err)
			}
			read += len(part.samples)
			out = append(out, part)
		}
		if err := set.Err(); err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", r.name, err)
		}
	}
	return out, read, nil
}
