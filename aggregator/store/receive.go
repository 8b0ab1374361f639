package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
)

// Receiver answers remote write 1.0 and 2.0, snappy, POST.
//
// 204: all samples are durable and the hook has seen them. 400: the samples
// named in the text were refused for good, the rest is stored (in both
// versions; 2.0 tells in headers how many were). 413: the body is too large.
// 415: another encoding or message, to which senders that can do more than one
// answer with snappy and 1.0. 503 with Retry-After: too many requests at once,
// too many samples a second of this sender, the disk is nearly full, or the store
// takes no more samples. 500: nothing of the request may be taken for stored.
//
// A sender that is too fast is answered with 503 and not with 429: Prometheus
// drops what was answered with 429 unless it is told otherwise
// (retry_on_http_429), while every sender repeats after 503. A cluster or
// namespace that is too fast is answered with 400: the request holds samples of
// others too, which would wait with it, and its sender would repeat it at the
// head of its queue.
func (db *DB) Receiver() http.Handler {
	h := remoteapi.NewWriteHandler(&receiver{db},
		remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType},
		remoteapi.WithWriteHandlerMiddlewares(db.admit))
	return db.metrics.instrument(func(*http.Request) string { return handlerWrite }, h)
}

// admit bounds requests at once, and the size of each before anything of it is
// decoded.
func (db *DB) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender, wait := db.limiter.enter(r.RemoteAddr)
		if wait != nil {
			db.metrics.limited.WithLabelValues(wait.kind, string(wait.t.scope)).Inc()
			w.Header().Set("Retry-After", wait.seconds())
			http.Error(w, wait.Error(), http.StatusServiceUnavailable)
			return
		}
		defer db.limiter.leave(sender)
		select {
		case db.writes <- struct{}{}:
			defer func() { <-db.writes }()
		default:
			db.metrics.limited.WithLabelValues(limitRequests, string(scopeAll)).Inc()
			w.Header().Set("Retry-After", retryAfter)
			http.Error(w, fmt.Sprintf("%d remote-write requests are in work already: try again later, or raise limits.requests", cap(db.writes)), http.StatusServiceUnavailable)
			return
		}
		if err := db.Err(); err != nil {
			w.Header().Set("Retry-After", retryAfter)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		tooLarge := func(what string, limit int64) {
			db.refuseRequest()
			http.Error(w, fmt.Sprintf("the body%s has more than %d bytes: send fewer samples in a request, or raise the limit", what, limit), http.StatusRequestEntityTooLarge)
		}
		undecodable := func(err error) {
			db.refuseRequest()
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
		// What is of another type is not looked into: the library answers it.
		if kind := r.Header.Get("Content-Type"); kind != "" {
			if _, err := remoteapi.ParseProtoMsg(kind); err != nil {
				next.ServeHTTP(w, r)
				return
			}
		}
		if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "snappy" {
			http.Error(w, fmt.Sprintf("content encoding %q is not taken: send snappy", enc), http.StatusUnsupportedMediaType)
			return
		}
		packed, plain := db.buffer(), db.buffer()
		defer db.bodies.Put(packed)
		defer db.bodies.Put(plain)
		err := readAll(packed, http.MaxBytesReader(w, r.Body, db.cfg.MaxBody), r.ContentLength)
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			tooLarge("", db.cfg.MaxBody)
			return
		}
		if err != nil {
			http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
			return
		}
		n, err := snappy.DecodedLen(*packed)
		if err == nil && int64(n) > db.cfg.MaxDecodedBody {
			tooLarge(", decompressed,", db.cfg.MaxDecodedBody)
			return
		}
		if err == nil {
			*plain, err = snappy.Decode((*plain)[:cap(*plain)], *packed)
		}
		if err != nil {
			undecodable(fmt.Errorf("decompress body: %w", err))
			return
		}
		r.Body = &decoded{Reader: bytes.NewReader(*plain), body: *plain, sender: sender}
		next.ServeHTTP(w, r)
	})
}

// decoded is a decompressed body. It is not to be used after the request.
type decoded struct {
	*bytes.Reader
	body   []byte
	sender *tenant
}

func (*decoded) Close() error { return nil }

func (db *DB) buffer() *[]byte {
	if b, ok := db.bodies.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

// readAll reads into the memory that buf has, as far as it goes.
func readAll(buf *[]byte, r io.Reader, size int64) error {
	b := bytes.NewBuffer((*buf)[:0])
	if size > 0 {
		b.Grow(int(min(size, 32<<20)) + bytes.MinRead)
	}
	_, err := b.ReadFrom(r)
	*buf = b.Bytes()
	return err
}

type receiver struct{ db *DB }

// Store decodes a decompressed request and stores it.
func (rc *receiver) Store(r *http.Request, version remoteapi.WriteMessageType) (*remoteapi.WriteResponse, error) {
	answer := remoteapi.NewWriteResponse()
	app := rc.db.Appender(r.Context())
	in := r.Body.(*decoded) // by admit
	app.sender = in.sender
	d := rc.db.decoder()
	defer rc.db.decoders.Put(d)
	var broken []string // parts that could not even be read
	var err error
	if version == remoteapi.WriteV1MessageType {
		err = d.v1(in.body, app)
	} else {
		broken, err = d.v2(in.body, app)
	}
	if err != nil {
		app.Rollback()
		rc.db.refuseRequest()
		answer.SetStatusCode(http.StatusBadRequest)
		return answer, err
	}

	if wait := rc.db.limiter.take(app); wait != nil {
		app.Rollback()
		rc.db.metrics.limited.WithLabelValues(wait.kind, string(wait.t.scope)).Inc()
		answer.SetStatusCode(http.StatusServiceUnavailable)
		answer.SetExtraHeader("Retry-After", wait.seconds())
		return answer, wait
	}
	err = app.Commit()
	var refused *RefusedError
	var full *DiskFullError
	switch {
	case errors.As(err, &refused):
		answer.SetStatusCode(http.StatusBadRequest)
	case errors.Is(err, ErrClosed) || errors.As(err, &full) || err != nil && rc.db.Err() != nil:
		rc.db.limiter.giveBack(app)
		answer.SetStatusCode(http.StatusServiceUnavailable)
		answer.SetExtraHeader("Retry-After", retryAfter)
		return answer, err
	case err != nil:
		rc.db.limiter.giveBack(app)
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
