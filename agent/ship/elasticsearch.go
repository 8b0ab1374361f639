package ship

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"

	"nines/pkg/ops"
)

const (
	// maxAnswer bounds what is read of an answer: an item with an error of a
	// few KiB for each of the largest request's records.
	maxAnswer = 32 << 20
	// maxErrorText bounds what is kept of an answer that is no JSON.
	maxErrorText = 512
)

// Elasticsearch ships by _bulk, with "create" and an _id of ours.
type Elasticsearch struct {
	cfg    ElasticsearchConfig
	client *elastictransport.Client
	conns  *http.Transport
	hosts  *hosts
	limit  *limiter
	trail  *trail
	dead   *book
	hold   hold
	m      *Metrics
	log    *slog.Logger

	redriving sync.Mutex    // is held by Redrive
	turn      chan struct{} // whoever put one in may use templated
	templated bool          // our templates were accepted in this run

	mu    sync.Mutex // guards notes
	notes []string
}

// NewElasticsearch does not connect: a cluster that is away at the start is
// waited for like one that goes away later.
func NewElasticsearch(cfg ElasticsearchConfig, log *slog.Logger, m *Metrics) (*Elasticsearch, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	e := &Elasticsearch{
		cfg: cfg, log: log, m: m, hold: hold{log: log, where: strings.Join(cfg.URLs, ", ")},
		turn: make(chan struct{}, 1), limit: newLimiter(cfg.Concurrency),
		conns: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: cfg.Timeout,
			MaxIdleConnsPerHost:   cfg.Concurrency,
			IdleConnTimeout:       90 * time.Second,
			DisableCompression:    true, // answers are small; they'd cost more than they save
		},
	}
	if err := e.connect(); err != nil {
		return nil, err
	}
	var err error
	e.dead, err = openBook(&book{
		dir: cfg.DeadLetters, prefix: "dead-letters", fileBytes: int64(cfg.DeadLettersSize) / 8, bytes: int64(cfg.DeadLettersSize), log: log,
		dropped: func(lines int) {
			m.removed.Add(lines)
			log.Warn("dead letters are full; the oldest were removed", "records", lines, "folder", cfg.DeadLetters)
		},
	})
	if err != nil {
		return nil, ops.Remedy(err)
	}
	if e.trail, err = openTrail(cfg.State, log); err != nil {
		return nil, errors.Join(err, e.dead.Close())
	}
	m.holds(&e.hold)
	m.watches(e)
	return e, nil
}

// connect makes the client, with the secrets of the configuration.
func (e *Elasticsearch) connect() error {
	cfg := e.cfg
	var urls []*url.URL
	for _, s := range cfg.URLs {
		u, err := url.Parse(strings.TrimRight(s, "/")) // the client appends /_bulk
		if err != nil {
			return fmt.Errorf("urls: %w", err)
		}
		urls = append(urls, u)
	}
	if cfg.CAFile != "" || cfg.CertFile != "" {
		e.conns.TLSClientConfig = &tls.Config{}
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return ops.Remedy(fmt.Errorf("ca_file: %w", err))
		}
		authorities := x509.NewCertPool()
		if !authorities.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca_file %s holds no certificate: give certificates in PEM form", cfg.CAFile)
		}
		e.conns.TLSClientConfig.RootCAs = authorities
	}
	refused := func() {}
	if cfg.CertFile != "" {
		ours := &certificate{certFile: cfg.CertFile, keyFile: cfg.KeyFile}
		if err := ours.read(); err != nil {
			return err
		}
		e.conns.TLSClientConfig.GetClientCertificate = ours.get
		refused = e.conns.CloseIdleConnections // a new connection shows the new one
	}
	auth, err := newCredentials(cfg, refused)
	if err != nil {
		return err
	}
	var broken error
	e.client, err = elastictransport.NewClient(
		elastictransport.WithUserAgent(cfg.Agent), elastictransport.WithDisableRetry(), elastictransport.WithTransport(e.conns),
		elastictransport.WithURLs(urls...), elastictransport.WithInterceptors(auth.intercept),
		elastictransport.WithConnectionPoolFunc(func(conns []*elastictransport.Connection, s elastictransport.Selector) elastictransport.ConnectionPool {
			e.hosts, broken = newHosts(conns, s)
			return e.hosts
		}),
	)
	if err := errors.Join(err, broken); err != nil {
		return fmt.Errorf("make the client: %w", err)
	}
	return nil
}

// Ship implements Destination.
func (e *Elasticsearch) Ship(ctx context.Context, records []Record) ([]Verdict, error) {
	verdicts := make([]Verdict, len(records))
	todo := make([]int, len(records)) // indices of those without a verdict
	var doubts []doubt                // of each record; nil: none is uncertain
	for i := range todo {
		todo[i] = i
		if records[i].Uncertain {
			doubts = grow(doubts, len(records))
			doubts[i].unsure = true
		}
	}
	var wait backoff
	defer e.hold.leave(&wait)
	atOnce := len(todo) // what one request may carry
	for len(todo) > 0 {
		chunk := todo[:min(len(todo), atOnce)]
		ticket, err := e.limit.acquire(ctx)
		if err != nil {
			_ = e.trail.save() // that of the next call, or of nobody who asks
			return verdicts, err
		}
		left, why, said := e.attempt(ctx, records, chunk, &doubts, verdicts)
		e.limit.release(ticket, said)
		if cause := context.Cause(ctx); cause != nil && len(left) > 0 {
			_ = e.trail.save()
			return verdicts, cause
		}
		if why != nil && why.tooLarge && len(chunk) > 1 {
			atOnce = len(chunk) / 2
			todo = append(left, todo[len(chunk):]...)
			e.m.retried.Inc()
			continue
		}
		switch {
		case why == nil:
			if said != loadUnknown { // else all were found without a bulk
				e.m.ok.Inc()
			}
			e.hold.set(&wait, "")
		case why.held:
			e.m.refused.Inc()
			e.hold.set(&wait, why.text)
		default:
			e.m.retried.Inc()
			if wait.failed >= 2 { // not for what the next attempt heals
				e.hold.set(&wait, why.text)
			}
		}
		if len(left) < len(chunk) {
			wait.failed = 0
			// One record that was too large must not make all that come after
			// it go one by one.
			atOnce = min(2*atOnce, len(records))
		}
		todo = append(left, todo[len(chunk):]...)
		if len(left) > 0 && why != nil && !why.elsewhere {
			if err := wait.pause(ctx, why.after); err != nil {
				_ = e.trail.save()
				return verdicts, err
			}
		}
	}
	// The next run has to know where to look before these count as stored.
	for {
		err := e.trail.save()
		if err == nil {
			return verdicts, nil
		}
		e.hold.set(&wait, ops.Remedy(err).Error())
		if err := wait.pause(ctx, 0); err != nil {
			return verdicts, err
		}
	}
}

func grow(doubts []doubt, n int) []doubt {
	if doubts == nil {
		doubts = make([]doubt, n)
	}
	return doubts
}

// attempt makes one request of the records at the indices, with what has to
// come before and after it. It returns the indices of those that have to be
// sent again, the gravest reason for that, and what the server said about its
// load.
func (e *Elasticsearch) attempt(ctx context.Context, records []Record, chunk []int, doubts *[]doubt, verdicts []Verdict) (left []int, why *trouble, said load) {
	if t := e.setUp(ctx); t != nil {
		return chunk, t, t.load()
	}
	if *doubts != nil {
		rest, t := e.look(ctx, records, chunk, *doubts, verdicts)
		if t != nil {
			return chunk, t, t.load()
		}
		if len(rest) == 0 {
			return nil, nil, loadUnknown
		}
		chunk = rest
	}
	answers, why := e.send(ctx, records, chunk)
	left, reason, err := e.judge(records, chunk, answers, doubts, verdicts)
	said = loadGood
	if why != nil {
		said = why.load()
	} else if why = reason; why != nil {
		if said = why.load(); said == loadUnknown && !why.held {
			said = loadGood
		}
	}
	if err != nil {
		// The dead letters could not be written: their records wait.
		why = &trouble{held: true, text: ops.Remedy(err).Error()}
	}
	return left, why, said
}

// judge gives verdicts to the records of a request, and returns the indices of
// those that have to be sent again and the gravest reason for that.
func (e *Elasticsearch) judge(records []Record, chunk []int, answers []answer, doubts *[]doubt, verdicts []Verdict) (left []int, why *trouble, err error) {
	var letters []byte
	var dead []int
	stream, index := "", "" // that were noted last
	for k, i := range chunk {
		switch a := &answers[k]; a.fate {
		case taken:
			if a.index != "" && (a.index != index || records[i].Stream != stream) {
				stream, index = records[i].Stream, a.index
				e.trail.note(stream, index)
			}
			if *doubts != nil && a.verdict == Stored && a.index != "" {
				// It went elsewhere than where it was looked for: the first
				// attempt may have been under way still.
				if d := &(*doubts)[i]; len(d.looked) > 0 && !slices.Contains(d.looked, a.index) {
					d.landed = true
					left = append(left, i)
					continue
				}
			}
			verdicts[i] = a.verdict
			switch a.verdict {
			case AlreadyStored:
				e.m.again.Inc()
			case Diverted:
				e.m.divert.Inc()
			}
		case refusedForGood:
			letters = appendLetter(letters, records[i], a.text, time.Now())
			dead = append(dead, i)
		default:
			left = append(left, i)
			if a.unsure {
				*doubts = grow(*doubts, len(records))
				(*doubts)[i].unsure = true
			}
			switch {
			case why == nil:
				why = &trouble{held: a.fate == held, busy: a.busy, text: a.text}
			case a.fate == held && !why.held:
				why.held, why.text = true, a.text
			}
			why.busy = why.busy || a.busy
		}
	}
	if len(dead) > 0 {
		if err := e.dead.add(letters); err != nil {
			return append(left, dead...), why, err
		}
		for _, i := range dead {
			verdicts[i] = DeadLettered
		}
	}
	return left, why, nil
}

// trouble is why records are not stored yet.
type trouble struct {
	held      bool // somebody has to repair something
	tooLarge  bool
	busy      bool          // the server has too much to do
	unsure    bool          // the records may be stored all the same
	elsewhere bool          // nothing was sent, and another address may answer
	after     time.Duration // that the server asked to wait
	text      string
}

func (t *trouble) load() load {
	if t.busy {
		return loadBusy
	}
	return loadUnknown
}

// send makes one request of the records at the indices. There is an answer for
// each of them, also where the request failed as a whole; the trouble is that
// of the request.
func (e *Elasticsearch) send(ctx context.Context, records []Record, chunk []int) ([]answer, *trouble) {
	var body payload
	encoding := ""
	if e.cfg.Compression == gzipped {
		body, encoding = newPacked(records, chunk), "gzip"
	} else {
		body = newRecordsBody(records, chunk)
	}
	size := body.size()
	res, t := e.do(ctx, http.MethodPost, "/_bulk?filter_path="+bulkFilter, "application/x-ndjson", encoding, body)
	if res != nil {
		defer res.free()
		e.m.bytes.Add(int(size))
	}
	if t != nil {
		return again(len(chunk), t), t
	}
	if res.status != http.StatusOK {
		answers, t := ofRequest(res.status, res.body(), len(chunk), e.cfg.unauthorized())
		if t != nil && (res.status == http.StatusTooManyRequests || res.status == http.StatusServiceUnavailable) {
			t.after = retryAfter(res.header.Get("Retry-After"), time.Now())
		}
		return answers, t
	}
	return ofItems(res.body(), len(chunk), e.cfg.unauthorized())
}

// retryAfter reads the header of that name, in seconds or as a date.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), int(maxPause/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), maxPause)
	}
	return 0
}

// response is an answer that was read as a whole.
type response struct {
	status int
	header http.Header
	buf    *bytes.Buffer
}

func (r *response) body() []byte { return r.buf.Bytes() }

// free gives the buffer back. What was read of it may not point into it.
func (r *response) free() {
	if r.buf.Cap() <= keepAnswer {
		answerBuffers.Put(r.buf)
	}
}

// keepAnswer bounds a buffer that is used again: an answer to 8,000 records.
const keepAnswer = 1 << 20

var answerBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// do makes a request and reads the answer. There may be both an answer, which
// is then not whole, and a trouble.
func (e *Elasticsearch) do(ctx context.Context, method, path, contentType, encoding string, body payload) (*response, *trouble) {
	defer body.release()
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, path, nil)
	if err != nil {
		return nil, &trouble{held: true, text: fmt.Sprintf("make the request %s: %v", path, err)}
	}
	if r.ContentLength = body.size(); r.ContentLength > 0 {
		r.Body = body.open()
		r.GetBody = func() (io.ReadCloser, error) { return body.open(), nil }
		r.Header.Set("Content-Type", contentType)
	}
	if encoding != "" {
		r.Header.Set("Content-Encoding", encoding)
	}
	got, err := e.client.Perform(r)
	if err != nil {
		t := noAnswer(err)
		t.unsure = body.begun()
		t.elsewhere = !t.unsure && !t.held && e.hosts.others()
		return nil, t
	}
	defer got.Body.Close() // only read
	res := &response{status: got.StatusCode, header: got.Header, buf: answerBuffers.Get().(*bytes.Buffer)}
	res.buf.Reset()
	if _, err := res.buf.ReadFrom(io.LimitReader(got.Body, maxAnswer+1)); err != nil {
		return res, &trouble{unsure: true, busy: isTimeout(err), text: fmt.Sprintf("the answer broke off: %v", err)}
	}
	if res.buf.Len() > maxAnswer { // half of the records have half of the answer
		return res, &trouble{unsure: true, tooLarge: true, text: fmt.Sprintf("the answer is longer than %d bytes: %s", maxAnswer, clip(string(res.body()[:maxErrorText])))}
	}
	return res, nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// noAnswer reads the error of a request that nobody answered.
func noAnswer(err error) *trouble {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		op.Source = nil // its port would make each attempt a new reason to hold
	}
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return &trouble{held: true, text: err.Error() + ": name the authority of its certificate in ca_file"}
	}
	return &trouble{busy: isTimeout(err), text: ops.Remedy(err).Error()}
}

// Hold implements Destination.
func (e *Elasticsearch) Hold() string { return e.hold.String() }

// Notes says in words what could not be set up on the server; records are
// shipped all the same.
func (e *Elasticsearch) Notes() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.notes)
}

// Close implements Destination.
func (e *Elasticsearch) Close() error {
	e.conns.CloseIdleConnections()
	err := e.client.Close(context.Background()) // ends what waits to try an address again
	if errors.Is(err, elastictransport.ErrAlreadyClosed) {
		err = nil
	}
	return errors.Join(err, e.dead.Close())
}
