package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"nines/aggregator/server"
	"nines/aggregator/store"
)

const (
	// maxSeriesAnswer bounds one answer of a server, in bytes.
	maxSeriesAnswer = 64 << 20
	// seriesAnswerTime ends a request: a little more than the two minutes after
	// which Prometheus and our store give a query up, so that their words arrive.
	seriesAnswerTime = 150 * time.Second
	// maxLoaded is how many samples a query may hold that is answered here, as
	// in Prometheus.
	maxLoaded = 50_000_000
)

// seriesSource is where commands look up which series there are and what they
// count: a server, or the folder of one that does not run.
type seriesSource interface {
	// describe names the source, without a password.
	describe() string
	// now is the moment that is looked back from: of a folder that of its newest
	// sample.
	now() time.Time
	// vector evaluates PromQL at one instant. Histograms are left out of it. An
	// error for which tooMuch is true may be none over a shorter time.
	vector(ctx context.Context, expr string, at time.Time) ([]seriesValue, error)
	// series lists the label sets of a selector in [from, to], at most limit.
	series(ctx context.Context, selector string, from, to time.Time, limit int) ([]labels.Labels, error)
	// labelNames and labelValues list those of a selector, of all series where
	// it is empty.
	labelNames(ctx context.Context, selector string, from, to time.Time) ([]string, error)
	labelValues(ctx context.Context, label, selector string, from, to time.Time) ([]string, error)
	// kept tells for how long history is there.
	kept(ctx context.Context) (retention, error)
	close() error
}

// seriesValue is one element of a vector.
type seriesValue struct {
	labels labels.Labels
	value  float64
}

// retention is for how long a source keeps what an objective's period is made
// of. 0 is unknown or without a bound.
type retention struct {
	samples time.Duration
	// ledger is set where an aggregator of ours books minutes: its figures need
	// no samples any more.
	ledger time.Duration
}

// ledgerKept is how long an aggregator keeps minutes where its file does not
// say: it does not tell over HTTP.
func ledgerKept() time.Duration { return time.Duration(server.DefaultConfig().Retention.Ledger) }

// errTooLarge says that an answer goes beyond its bound.
var errTooLarge = fmt.Errorf("the answer has more than %d MiB", maxSeriesAnswer>>20)

// tooMuch reports whether a query failed for the amount that it had to read.
func tooMuch(err error) bool {
	if errors.Is(err, errTooLarge) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var many promql.ErrTooManySamples
	var late promql.ErrQueryTimeout
	if errors.As(err, &many) || errors.As(err, &late) {
		return true
	}
	var told *promapi.Error
	return errors.As(err, &told) && (told.Type == promapi.ErrExec || told.Type == promapi.ErrTimeout || told.Type == promapi.ErrServer)
}

// openSeries opens the server at an address, or the data folder of an
// aggregator where data is not empty.
func openSeries(ctx context.Context, address, data string) (seriesSource, error) {
	if data != "" {
		return openSeriesFolder(ctx, data)
	}
	return openSeriesServer(address)
}

// serverSeries is a server that answers the Prometheus HTTP API.
type serverSeries struct {
	base   *url.URL
	client *http.Client
	api    promapi.API
	began  time.Time
}

func openSeriesServer(address string) (*serverSeries, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, usagef("--server: the URL cannot be read: write it like http://prometheus:9090") // err tells the password
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--server %q is not a URL: write it like http://prometheus:9090", u.Redacted())
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/api/v1")
	client := &http.Client{Transport: boundedAnswers{http.DefaultTransport.(*http.Transport).Clone()}, Timeout: seriesAnswerTime}
	c, err := api.NewClient(api.Config{Address: u.String(), Client: client})
	if err != nil {
		return nil, usagef("--server %s cannot be used: write it like http://prometheus:9090", u.Redacted())
	}
	return &serverSeries{u, client, promapi.NewAPI(c), time.Now()}, nil
}

// boundedAnswers cuts bodies off behind maxSeriesAnswer bytes, with an error.
type boundedAnswers struct{ http.RoundTripper }

func (b boundedAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxSeriesAnswer}
	}
	return resp, err
}

func (b boundedAnswers) CloseIdleConnections() {
	if t, ok := b.RoundTripper.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

type boundedBody struct {
	io.ReadCloser
	left int64 // bytes
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (s *serverSeries) describe() string { return s.base.Redacted() }

func (s *serverSeries) now() time.Time { return s.began }

// wrap names the server and says what to try.
func (s *serverSeries) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	remedy := "check that the server runs and that --server names it"
	var told *promapi.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case tooMuch(err):
		remedy = "the server has too much to read for one query"
	case errors.As(err, &told):
		remedy = "--server must be the URL that /api/v1 comes behind, with its path prefix, and with user:password@ where it asks for them"
	}
	var sent *url.Error
	if errors.As(err, &sent) {
		err = sent.Err // it names the URL again
	}
	return fmt.Errorf("%s from %s: %w: %s", what, s.base.Redacted(), err, remedy)
}

func (s *serverSeries) vector(ctx context.Context, expr string, at time.Time) ([]seriesValue, error) {
	v, _, _, err := s.api.Query(ctx, expr, at)
	if err != nil {
		return nil, s.wrap("query "+expr, err)
	}
	var out []seriesValue
	switch v := v.(type) {
	case model.Vector:
		for _, x := range v {
			if x.Histogram == nil {
				out = append(out, seriesValue{labelsOf(model.LabelSet(x.Metric)), float64(x.Value)})
			}
		}
	case *model.Scalar:
		out = append(out, seriesValue{value: float64(v.Value)})
	}
	return out, nil
}

func labelsOf(set model.LabelSet) labels.Labels {
	m := make(map[string]string, len(set))
	for k, v := range set {
		m[string(k)] = string(v)
	}
	return labels.FromMap(m)
}

func (s *serverSeries) series(ctx context.Context, selector string, from, to time.Time, limit int) ([]labels.Labels, error) {
	sets, _, _, err := s.api.Series(ctx, []string{selector}, from, to, promapi.WithLimit(uint64(limit)))
	if err != nil {
		return nil, s.wrap("list series of "+selector, err)
	}
	var out []labels.Labels
	for _, set := range sets[:min(len(sets), limit)] { // older servers know no limit
		out = append(out, labelsOf(set))
	}
	return out, nil
}

func selectors(selector string) []string {
	if selector == "" {
		return nil
	}
	return []string{selector}
}

func (s *serverSeries) labelNames(ctx context.Context, selector string, from, to time.Time) ([]string, error) {
	names, _, _, err := s.api.LabelNames(ctx, selectors(selector), from, to)
	return texts(names), s.wrap("list labels", err)
}

func (s *serverSeries) labelValues(ctx context.Context, label, selector string, from, to time.Time) ([]string, error) {
	values, _, _, err := s.api.LabelValues(ctx, label, selectors(selector), from, to)
	return texts(values), s.wrap("list values of label "+label, err)
}

func texts[T ~string](list []T) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

func (s *serverSeries) kept(ctx context.Context) (retention, error) {
	ours, err := s.isAggregator(ctx)
	if err != nil {
		return retention{}, err
	}
	var r retention
	if ours {
		r.ledger = ledgerKept()
	}
	// What speaks the API without being Prometheus has neither of these, or
	// other words in them: its retention is then not known.
	if info, err := s.api.Runtimeinfo(ctx); err == nil {
		if r.samples = retentionText(info.StorageRetention); r.samples > 0 {
			return r, nil
		}
	}
	if flags, err := s.api.Flags(ctx); err == nil {
		r.samples = retentionText(flags["storage.tsdb.retention.time"])
	}
	return r, ctx.Err()
}

// retentionText reads "15d", or "15d or 20GiB" where the size is bounded, too.
// 0 is unknown.
func retentionText(text string) time.Duration {
	d, err := model.ParseDuration(strings.TrimSpace(strings.Split(text, " or ")[0]))
	if err != nil {
		return 0
	}
	return time.Duration(d)
}

// isAggregator asks for what only our aggregator serves.
func (s *serverSeries) isAggregator(ctx context.Context) (bool, error) {
	u := s.base.JoinPath("/api/nines/v1/agents")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false, s.wrap("ask", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false, s.wrap("ask", err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json"), nil
}

func (s *serverSeries) close() error {
	s.client.CloseIdleConnections()
	return nil
}

// folderSeries is the metrics folder of an aggregator, which is not changed.
type folderSeries struct {
	source store.Source
	engine *promql.Engine
	newest time.Time
}

func openSeriesFolder(ctx context.Context, data string) (seriesSource, error) {
	source, err := store.OpenSource(ctx, filepath.Join(data, "metrics"))
	if err != nil {
		return nil, err
	}
	newest, ok := source.MaxTime()
	if !ok {
		newest = time.Now()
	}
	engine := promql.NewEngine(promql.EngineOpts{
		Logger: slog.New(slog.DiscardHandler), MaxSamples: maxLoaded, Timeout: seriesAnswerTime,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: parser.NewParser(parser.Options{}),
	})
	return &folderSeries{source, engine, newest.Add(time.Millisecond)}, nil
}

func (f *folderSeries) describe() string { return f.source.Describe() }

func (f *folderSeries) now() time.Time { return f.newest }

func (f *folderSeries) vector(ctx context.Context, expr string, at time.Time) ([]seriesValue, error) {
	q, err := f.engine.NewInstantQuery(ctx, f.source, nil, expr, at)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expr, err)
	}
	defer q.Close()
	result := q.Exec(ctx)
	if result.Err != nil {
		return nil, fmt.Errorf("query %s: %w", expr, result.Err)
	}
	var out []seriesValue
	switch v := result.Value.(type) {
	case promql.Vector:
		for _, x := range v {
			if x.H == nil {
				out = append(out, seriesValue{x.Metric, x.F})
			}
		}
	case promql.Scalar:
		out = append(out, seriesValue{value: v.V})
	}
	return out, nil
}

// matchersOf reads a selector; empty selects every series.
func matchersOf(selector string) ([]*labels.Matcher, error) {
	if selector == "" {
		selector = `{__name__=~".+"}`
	}
	return parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
}

// query hands a querier of a time to do.
func (f *folderSeries) query(selector string, from, to time.Time, do func(storage.Querier, []*labels.Matcher) error) (err error) {
	ms, err := matchersOf(selector)
	if err != nil {
		return err
	}
	q, err := f.source.Querier(from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	return do(q, ms)
}

func (f *folderSeries) series(ctx context.Context, selector string, from, to time.Time, limit int) (out []labels.Labels, err error) {
	err = f.query(selector, from, to, func(q storage.Querier, ms []*labels.Matcher) error {
		set := q.Select(ctx, false, &storage.SelectHints{Start: from.UnixMilli(), End: to.UnixMilli(), Limit: limit, Func: "series"}, ms...)
		for len(out) < limit && set.Next() {
			out = append(out, set.At().Labels())
		}
		return set.Err()
	})
	return out, err
}

func (f *folderSeries) labelNames(ctx context.Context, selector string, from, to time.Time) (out []string, err error) {
	err = f.query(selector, from, to, func(q storage.Querier, ms []*labels.Matcher) (err error) {
		out, _, err = q.LabelNames(ctx, nil, ms...)
		return err
	})
	return out, err
}

func (f *folderSeries) labelValues(ctx context.Context, label, selector string, from, to time.Time) (out []string, err error) {
	err = f.query(selector, from, to, func(q storage.Querier, ms []*labels.Matcher) (err error) {
		out, _, err = q.LabelValues(ctx, label, nil, ms...)
		return err
	})
	return out, err
}

// kept knows no configuration: what the folder holds is what was kept.
func (f *folderSeries) kept(context.Context) (retention, error) {
	return retention{ledger: ledgerKept()}, nil
}

func (f *folderSeries) close() error { return f.source.Close() }

// selectorOf writes a metric and matchers as PromQL.
func selectorOf(metric string, ms ...*labels.Matcher) string {
	parts := []string{}
	head := metric
	if !model.LegacyValidation.IsValidMetricName(metric) {
		head = ""
		parts = append(parts, strconv.Quote(metric))
	}
	for _, m := range ms {
		parts = append(parts, m.String())
	}
	if len(parts) == 0 {
		return head
	}
	return head + "{" + strings.Join(parts, ",") + "}"
}

// by writes label names as PromQL's by and on take them.
func by(names ...string) string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		if !model.LegacyValidation.IsValidLabelName(n) {
			n = strconv.Quote(n)
		}
		out = append(out, n)
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// rangeOf writes a span as a range of PromQL, in whole seconds.
func rangeOf(d time.Duration) string {
	return "[" + model.Duration(d.Truncate(time.Second)).String() + "]"
}

// nearest returns up to n of the names that look most like one.
func nearest(name string, all []string, n int) []string {
	type near struct {
		name     string
		distance int
	}
	most := max(2, len(name)/3)
	words := strings.Split(name, "_")
	var found []near
	for _, other := range all {
		d := max(len(other)-len(name), len(name)-len(other))
		if d <= most {
			d = editDistance(name, other)
		}
		// A prefix may be missing or too many.
		if d > most && len(words) > 1 {
			its := strings.Split(other, "_")
			if len(its) == 1 || !inOrder(words, its) && !inOrder(its, words) {
				continue
			}
		} else if d > most {
			continue
		}
		found = append(found, near{other, d})
	}
	slices.SortFunc(found, func(a, b near) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, f := range found[:min(n, len(found))] {
		out = append(out, f.name)
	}
	return out
}

// inOrder reports whether all words come in others, in their order.
func inOrder(words, others []string) bool {
	for _, o := range others {
		if len(words) > 0 && words[0] == o {
			words = words[1:]
		}
	}
	return len(words) == 0
}

// editDistance counts the letters to add, drop or change.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}

// finite reports whether a value is a usable number.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
