package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/klauspost/compress/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Receiver answers remote write 1.0 and 2.0, snappy, POST.
//
// 204: all samples are durable and the hook has seen them. 400: the samples
// named in the text were refused for good, the rest is stored (in both
// versions; 2.0 tells in headers how many were). 413: the body is too large.
// 503 with Retry-After: too many requests at once, the disk is nearly full, or
// the store takes no more samples. 500: nothing of the request may be taken for stored.
func (db *DB) Receiver() http.Handler {
	h := remoteapi.NewWriteHandler(&receiver{db},
		remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType},
		remoteapi.WithWriteHandlerMiddlewares(db.admit, remoteapi.SnappyDecodeMiddleware(slog.New(slog.DiscardHandler))))
	return db.metrics.instrument(func(*http.Request) string { return handlerWrite }, h)
}

// admit bounds requests at once, and the size of each before anything of it is
// decoded.
func (db *DB) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case db.writes <- struct{}{}:
			defer func() { <-db.writes }()
		default:
			w.Header().Set("Retry-After", retryAfter)
			http.Error(w, fmt.Sprintf("%d remote-write requests are in work already: try again later, or raise max_writes", cap(db.writes)), http.StatusServiceUnavailable)
			return
		}
		if err := db.Err(); err != nil {
			w.Header().Set("Retry-After", retryAfter)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		tooLarge := func(what string, limit int64) {
			http.Error(w, fmt.Sprintf("the body%s has more than %d bytes: send fewer samples in a request, or raise the limit", what, limit), http.StatusRequestEntityTooLarge)
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, db.cfg.MaxBody))
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			tooLarge("", db.cfg.MaxBody)
			return
		}
		if err != nil {
			http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
			return
		}
		if n, err := snappy.DecodedLen(body); err == nil && int64(n) > db.cfg.MaxDecodedBody {
			tooLarge(", decompressed,", db.cfg.MaxDecodedBody)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

type receiver struct{ db *DB }

// Store decodes a decompressed request and stores it.
func (rc *receiver) Store(r *http.Request, version remoteapi.WriteMessageType) (*remoteapi.WriteResponse, error) {
	answer := remoteapi.NewWriteResponse()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		answer.SetStatusCode(http.StatusBadRequest)
		return answer, fmt.Errorf("read body: %w", err)
	}
	app := rc.db.Appender(r.Context())
	var broken []string // parts that could not even be read
	if version == remoteapi.WriteV1MessageType {
		err = rc.decodeV1(body, app)
	} else {
		broken, err = rc.decodeV2(body, app)
	}
	if err != nil {
		app.Rollback()
		answer.SetStatusCode(http.StatusBadRequest)
		return answer, err
	}

	err = app.Commit()
	var refused *RefusedError
	var full *DiskFullError
	switch {
	case errors.As(err, &refused):
		answer.SetStatusCode(http.StatusBadRequest)
	case errors.Is(err, ErrClosed) || errors.As(err, &full) || err != nil && rc.db.Err() != nil:
		answer.SetStatusCode(http.StatusServiceUnavailable)
		answer.SetExtraHeader("Retry-After", retryAfter)
		return answer, err
	case err != nil:
		answer.SetStatusCode(http.StatusInternalServerError)
		return answer, err
	}
	answer.Samples = app.refused.Stored - app.storedHistograms
	answer.Histograms = app.storedHistograms
	answer.Exemplars = app.storedExemplars
	if len(broken) > 0 {
		answer.SetStatusCode(http.StatusBadRequest)
		more := ""
		if n := len(broken) - maxPlaces; n > 0 {
			broken, more = broken[:maxPlaces], fmt.Sprintf("\nand %d more", n)
		}
		unreadable := errors.New("unreadable series left out:\n" + strings.Join(broken, "\n") + more)
		if err != nil {
			return answer, fmt.Errorf("%w\n%w", err, unreadable)
		}
		return answer, unreadable
	}
	return answer, err
}

// decodeV1 appends all of a 1.0 request. Refusals stay in the appender, so its
// errors are not looked at one by one.
func (rc *receiver) decodeV1(body []byte, app *Appender) error {
	var req prompb.WriteRequest
	if err := req.Unmarshal(body); err != nil {
		return fmt.Errorf("decode prometheus.WriteRequest: %w", err)
	}
	b := labels.NewScratchBuilder(16)
	for _, m := range req.Metadata {
		rc.db.meta.add(m.MetricFamilyName, metadata.Metadata{Type: v1Type(m.Type), Unit: m.Unit, Help: m.Help})
	}
	for _, ts := range req.Timeseries {
		ls := ts.ToLabels(&b, nil)
		for _, s := range ts.Samples {
			_ = app.Append(ls, 0, s.Timestamp, s.Value)
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				_ = app.AppendHistogram(ls, 0, h.Timestamp, nil, h.ToFloatHistogram())
			} else {
				_ = app.AppendHistogram(ls, 0, h.Timestamp, h.ToIntHistogram(), nil)
			}
		}
		if len(ts.Exemplars) > 0 {
			es := make([]exemplar.Exemplar, 0, len(ts.Exemplars))
			for _, e := range ts.Exemplars {
				es = append(es, e.ToExemplar(&b, nil))
			}
			app.AppendExemplars(es)
		}
	}
	return nil
}

func v1Type(t prompb.MetricMetadata_MetricType) model.MetricType {
	return model.MetricType(strings.ToLower(t.String()))
}

// decodeV2 appends all of a 2.0 request that can be read, and says what could
// not.
func (rc *receiver) decodeV2(body []byte, app *Appender) (broken []string, _ error) {
	var req writev2.Request
	if err := req.Unmarshal(body); err != nil {
		return nil, fmt.Errorf("decode io.prometheus.write.v2.Request: %w", err)
	}
	b := labels.NewScratchBuilder(16)
	for i, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			broken = append(broken, fmt.Sprintf("timeseries %d: %v", i, err))
			continue
		}
		if md, err := ts.ToMetadata(req.Symbols); err != nil {
			broken = append(broken, fmt.Sprintf("metadata of timeseries %d (its samples are stored): %v", i, err))
		} else {
			rc.db.meta.add(familyName(ls.Get(model.MetricNameLabel), md.Type), md)
		}
		for _, s := range ts.Samples {
			_ = app.Append(ls, s.StartTimestamp, s.Timestamp, s.Value)
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				_ = app.AppendHistogram(ls, h.StartTimestamp, h.Timestamp, nil, h.ToFloatHistogram())
			} else {
				_ = app.AppendHistogram(ls, h.StartTimestamp, h.Timestamp, h.ToIntHistogram(), nil)
			}
		}
		if len(ts.Samples)+len(ts.Histograms) == 0 {
			broken = append(broken, fmt.Sprintf("timeseries %d, %s: has neither samples nor histograms", i, ls))
			continue
		}
		var es []exemplar.Exemplar
		for _, e := range ts.Exemplars {
			x, err := e.ToExemplar(&b, req.Symbols)
			if err != nil {
				broken = append(broken, fmt.Sprintf("exemplar of timeseries %d: %v", i, err))
				continue
			}
			es = append(es, x)
		}
		app.AppendExemplars(es)
	}
	return broken, nil
}
