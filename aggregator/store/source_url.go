package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/annotations"
)

const (
	// maxAnswer bounds an answer held in memory, in bytes.
	maxAnswer = 256 << 20
	// maxSeriesFrame bounds one series of a streamed answer.
	maxSeriesFrame = 64 << 20
	// answerTime ends a request that takes too long.
	answerTime = 5 * time.Minute
)

// server is something that answers the Prometheus HTTP API.
type server struct {
	base   *url.URL // with a path that lacks /api/v1
	client *http.Client
	read   bool // it serves remote read
	limit  int64
}

func openURL(ctx context.Context, where string) (*server, error) {
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("the URL cannot be read: write it like http://prometheus:9090") // err tells the password
	}
	if u.Host == "" {
		return nil, fmt.Errorf("%s has no host: write it like http://prometheus:9090", u.Redacted())
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), apiPrefix)
	u.RawPath, u.Fragment = "", ""
	s := &server{base: u, client: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}, limit: maxAnswer}
	res, err := s.get(ctx, "query", url.Values{"query": {"vector(1)"}})
	if err != nil {
		return nil, err
	}
	if err := decodeAPI(res, func(string, *json.Decoder) error { return errSkip }); err != nil {
		return nil, s.wrap("query", err)
	}
	// Whether remote read is served is asked with a question without an answer.
	now := time.Now().UnixMilli()
	set, err := s.remoteRead(ctx, now, now, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "nines_no_such_metric")}, nil)
	var refusal *statusError
	if errors.As(err, &refusal) && !refusal.passing() {
		return s, nil // read by queries
	}
	if err != nil {
		return nil, err
	}
	s.read = true
	return s, s.wrap("read", set.Close())
}

// wrap says which server and endpoint an error is about.
func (s *server) wrap(endpoint string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", s.endpoint(endpoint, nil).Redacted(), err)
}

func (s *server) endpoint(name string, params url.Values) *url.URL {
	u := *s.base
	u.Path += apiPrefix + "/" + name
	q := u.Query()
	for k, v := range params {
		q[k] = v
	}
	u.RawQuery = q.Encode()
	return &u
}

// get asks an endpoint and returns the body of a good answer.
func (s *server) get(ctx context.Context, name string, params url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint(name, params).String(), nil)
	if err != nil {
		return nil, errors.New("the URL cannot be used: write it like http://prometheus:9090")
	}
	res, err := s.do(req, name)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// do returns an answer with 200 whose body is no web page. Its body is closed
// by the caller, which ends its time limit.
func (s *server) do(req *http.Request, name string) (*http.Response, error) {
	ctx, cancel := context.WithTimeoutCause(req.Context(), answerTime, fmt.Errorf("no full answer within %s: ask for a shorter range", answerTime))
	res, err := s.client.Do(req.WithContext(ctx))
	if err != nil {
		cancel()
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // it names the URL again
		}
		if cause := context.Cause(ctx); req.Context().Err() == nil && cause != nil {
			err = cause
		}
		return nil, s.wrap(name, fmt.Errorf("%w: check that the server runs and that the address is right", err))
	}
	body := &answer{ReadCloser: res.Body, left: s.limit, cancel: cancel}
	res.Body = body
	page := strings.HasPrefix(res.Header.Get("Content-Type"), "text/html")
	if res.StatusCode == http.StatusOK && !page {
		return res, nil
	}
	text, _ := io.ReadAll(io.LimitReader(body, 4<<10)) // as far as it comes
	_ = body.Close()                                   // the answer is an error already
	return nil, s.wrap(name, newStatusError(res.StatusCode, page, text))
}

// statusError is an answer that is not a good one.
type statusError struct {
	code    int
	message string
}

func (e *statusError) Error() string { return e.message }

// passing says whether it may be another one later.
func (e *statusError) passing() bool {
	return e.code == http.StatusTooManyRequests || e.code/100 == 5 && e.code != http.StatusNotImplemented
}

func newStatusError(code int, page bool, text []byte) error {
	said := strings.TrimSpace(string(text))
	var api struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &api) == nil && api.Error != "" {
		said = api.Error
	}
	if page || len(said) > 300 {
		said = "" // not for a terminal
	}
	remedy := ""
	switch {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		remedy = "give user and password in the URL, like https://user:password@host"
	case page && code/100 == 2:
		return &statusError{code, "the answer is a web page: give the address of the Prometheus API itself, not of a login or a user interface before it"}
	case code == http.StatusNotFound:
		remedy = "give the URL that /api/v1 comes behind, with a path prefix if there is one"
	case code == http.StatusUnprocessableEntity || code == http.StatusBadRequest:
		remedy = "the server cannot answer this: ask for a shorter range or fewer series"
	case code == http.StatusTooManyRequests || code/100 == 5:
		remedy = "the server is overloaded or broken: try again later"
	default:
		remedy = "check the address"
	}
	msg := fmt.Sprintf("answered %d %s", code, http.StatusText(code))
	if said != "" {
		msg += ", " + strconv.Quote(said)
	}
	return &statusError{code, msg + ": " + remedy}
}

// answer is a body of bounded size and time.
type answer struct {
	io.ReadCloser
	left   int64 // bytes
	cancel context.CancelFunc
}

func (a *answer) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, fmt.Errorf("the answer has more than %d MiB: ask for a shorter range or fewer series", maxAnswer>>20)
	}
	n, err := a.ReadCloser.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	return n, err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.cancel()
	return err
}

// seriesAnswer is a set of series with the answer that it is read from.
type seriesAnswer struct {
	storage.SeriesSet
	io.Closer
}

// remoteRead asks for samples by remote read.
func (s *server) remoteRead(ctx context.Context, mint, maxt int64, ms []*labels.Matcher, hints *storage.SelectHints) (*seriesAnswer, error) {
	query, err := remote.ToQuery(mint, maxt, ms, hints)
	if err != nil {
		return nil, err
	}
	body, err := (&prompb.ReadRequest{
		Queries:               []*prompb.Query{query},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES},
	}).Marshal()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint("read", nil).String(), bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Accept-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	res, err := s.do(req, "read")
	if err != nil {
		return nil, err
	}
	kind := res.Header.Get("Content-Type")
	if strings.HasPrefix(kind, "application/x-streamed-protobuf") {
		// Held one series at a time: no bound on the whole.
		res.Body.(*answer).left = math.MaxInt64
		set := remote.NewChunkedSeriesSet(remote.NewChunkedReader(res.Body, maxSeriesFrame, nil), res.Body, mint, maxt, func(error) {})
		return &seriesAnswer{set, res.Body}, nil
	}
	packed, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, s.wrap("read", fmt.Errorf("the answer broke off: %w", err))
	}
	if !strings.HasPrefix(kind, "application/x-protobuf") {
		return nil, s.wrap("read", fmt.Errorf("the answer is %q, not remote read", kind))
	}
	if n, err := snappy.DecodedLen(packed); err != nil || int64(n) > s.limit {
		return nil, s.wrap("read", fmt.Errorf("the answer is broken or has more than %d MiB: ask for a shorter range or fewer series", maxAnswer>>20))
	}
	plain, err := snappy.Decode(nil, packed)
	var out prompb.ReadResponse
	if err == nil {
		err = out.Unmarshal(plain)
	}
	if err == nil && len(out.Results) != 1 {
		err = fmt.Errorf("%d results for one query", len(out.Results))
	}
	if err != nil {
		return nil, s.wrap("read", fmt.Errorf("decode the answer: %w", err))
	}
	return &seriesAnswer{remote.FromQueryResult(true, out.Results[0]), io.NopCloser(nil)}, nil
}

// errSkip tells decodeAPI that its caller does not want the rest.
var errSkip = errors.New("not wanted")

// decodeAPI reads an answer of the JSON API and closes it. It calls each at
// the start of the value of data.result, or of data where that is a list, once
// for each element.
func decodeAPI(body io.ReadCloser, each func(resultType string, d *json.Decoder) error) (err error) {
	defer func() { err = errors.Join(err, body.Close()) }()
	d := json.NewDecoder(body)
	kind := ""
	err = object(d, func(key string) error {
		switch key {
		case "status":
			var status string
			if err := d.Decode(&status); err != nil {
				return err
			}
			if status != "success" {
				return fmt.Errorf("the status is %q", status)
			}
			return nil
		case "data":
			first, err := d.Token()
			if err != nil {
				return err
			}
			if first == json.Delim('[') {
				return elements(d, func() error { return each("", d) })
			}
			if first != json.Delim('{') {
				return fmt.Errorf("data begins with %v", first)
			}
			return members(d, func(key string) error {
				switch key {
				case "resultType":
					return d.Decode(&kind)
				case "result":
					if first, err := d.Token(); err != nil || first != json.Delim('[') {
						return fmt.Errorf("result begins with %v: %w", first, err)
					}
					return elements(d, func() error { return each(kind, d) })
				}
				return d.Decode(new(json.RawMessage))
			})
		}
		return d.Decode(new(json.RawMessage))
	})
	if errors.Is(err, errSkip) {
		return nil
	}
	if err == nil {
		// A checksum of the transfer is told at the end.
		if _, err = d.Token(); err == io.EOF {
			return nil
		} else if err == nil {
			err = errors.New("something follows the answer")
		}
	}
	if err != nil {
		return fmt.Errorf("the answer breaks off or is not that of the Prometheus API: %w", err)
	}
	return nil
}

// object calls member at the value of each key of the object that comes next.
func object(d *json.Decoder, member func(key string) error) error {
	first, err := d.Token()
	if err != nil {
		return err
	}
	if first != json.Delim('{') {
		return fmt.Errorf("it begins with %v", first)
	}
	return members(d, member)
}

func members(d *json.Decoder, member func(key string) error) error {
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string) // what else the decoder refuses
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func elements(d *json.Decoder, each func() error) error {
	for d.More() {
		if err := each(); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// rawSeries is an element of the answer to a query of a range.
type rawSeries struct {
	Metric     labels.Labels     `json:"metric"`
	Values     []rawSample       `json:"values"`
	Histograms []json.RawMessage `json:"histograms"`
}

type rawSample struct {
	t int64
	v float64
}

// UnmarshalJSON reads [seconds, "value"].
func (s *rawSample) UnmarshalJSON(b []byte) error {
	var at json.Number
	var v string
	pair := []any{&at, &v}
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(string(at), 64)
	if err != nil {
		return fmt.Errorf("a time is %q", at)
	}
	s.t = int64(math.Round(seconds * 1000))
	if s.v, err = strconv.ParseFloat(v, 64); err != nil {
		return fmt.Errorf("a value is %q", v)
	}
	return nil
}

// queryRaw asks for samples by a query of a range selector.
func (s *server) queryRaw(ctx context.Context, mint, maxt int64, ms []*labels.Matcher) (storage.SeriesSet, error) {
	body, err := s.get(ctx, "query", url.Values{
		// The range is open on its left, and closed in old versions.
		"query": {fmt.Sprintf("%s[%dms]", selector(ms), maxt-mint+1)},
		"time":  {strconv.FormatFloat(float64(maxt)/1000, 'f', 3, 64)},
	})
	if err != nil {
		return nil, err
	}
	var all []*prompb.TimeSeries
	err = decodeAPI(body, func(kind string, d *json.Decoder) error {
		var one rawSeries
		if err := d.Decode(&one); err != nil {
			return err
		}
		if len(one.Histograms) > 0 {
			return fmt.Errorf("%s has native histograms, which queries do not give whole: let the server serve remote read", one.Metric)
		}
		ts := &prompb.TimeSeries{Labels: prompb.FromLabels(one.Metric, nil)}
		for _, x := range one.Values {
			if x.t >= mint && x.t <= maxt {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: x.t, Value: x.v})
			}
		}
		if len(ts.Samples) > 0 {
			all = append(all, ts)
		}
		return nil
	})
	if err != nil {
		return nil, s.wrap("query", err)
	}
	return remote.FromQueryResult(true, &prompb.QueryResult{Timeseries: all}), nil
}

// serverQuerier reads a range of a server.
type serverQuerier struct {
	*server
	mint, maxt int64
	open       []io.Closer
}

func (s *server) Querier(mint, maxt int64) (storage.Querier, error) {
	return &serverQuerier{server: s, mint: mint, maxt: maxt}, nil
}

func (q *serverQuerier) Select(ctx context.Context, sorted bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	ms = selective(ms)
	if q.mint > q.maxt {
		return storage.EmptySeriesSet()
	}
	if !q.read {
		set, err := q.queryRaw(ctx, q.mint, q.maxt, ms)
		if err != nil {
			return storage.ErrSeriesSet(err)
		}
		return set
	}
	// Answers in chunks are sorted by the server.
	set, err := q.remoteRead(ctx, q.mint, q.maxt, ms, &storage.SelectHints{Start: q.mint, End: q.maxt})
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	q.open = append(q.open, set)
	return checkedSet{set, q.server}
}

// selective adds a matcher where servers would refuse a query that may match
// everything.
func selective(ms []*labels.Matcher) []*labels.Matcher {
	if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		return ms
	}
	return append(slices.Clone(ms), everything())
}

// checkedSet says whose answer broke off.
type checkedSet struct {
	*seriesAnswer
	server *server
}

func (c checkedSet) Err() error {
	if err := c.SeriesSet.Err(); err != nil {
		return c.server.wrap("read", fmt.Errorf("the answer broke off: %w", err))
	}
	return nil
}

func (q *serverQuerier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("a source does not list label values")
}

func (q *serverQuerier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("a source does not list label names")
}

func (q *serverQuerier) Close() error {
	var errs []error
	for _, c := range q.open {
		errs = append(errs, c.Close())
	}
	q.open = nil
	return errors.Join(errs...)
}

func (*server) MinTime() (time.Time, bool) { return time.UnixMilli(0), true }

func (*server) MaxTime() (time.Time, bool) { return time.Time{}, false }

func (s *server) Check(ctx context.Context, from, to time.Time, ms ...*labels.Matcher) error {
	body, err := s.get(ctx, "series", url.Values{
		"match[]": {selector(selective(ms))},
		"start":   {strconv.FormatFloat(float64(from.UnixMilli())/1000, 'f', 3, 64)},
		"end":     {strconv.FormatFloat(float64(to.UnixMilli())/1000, 'f', 3, 64)},
		"limit":   {"1"},
	})
	if err != nil {
		return err
	}
	found := false
	err = decodeAPI(body, func(string, *json.Decoder) error {
		found = true
		return errSkip
	})
	if err != nil {
		return s.wrap("series", err)
	}
	if !found {
		return &NoDataError{Source: s.Describe(), From: from, To: to, Matchers: ms}
	}
	return nil
}

func (s *server) Describe() string {
	how := "queries"
	if s.read {
		how = "remote read"
	}
	return fmt.Sprintf("%s (by %s)", s.base.Redacted(), how)
}

func (s *server) Close() error {
	s.client.CloseIdleConnections()
	return nil
}
