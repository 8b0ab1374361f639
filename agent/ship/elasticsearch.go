package ship

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"
	"github.com/klauspost/compress/gzip"

	"nines/pkg/ops"
)

// ElasticsearchConfig is an Elasticsearch, or what speaks its _bulk.
type ElasticsearchConfig struct {
	URLs         []string `yaml:"urls"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"` // read again when the password is refused
	CAFile       string   `yaml:"ca_file"`       // PEM; empty: the system's authorities

	// DeadLetters is a folder for records that Elasticsearch refuses for good.
	DeadLetters string `yaml:"-"`
	// Agent is sent as User-Agent.
	Agent string `yaml:"-"`
	// Timeout bounds one request.
	Timeout time.Duration `yaml:"-"`
}

// Validate names the key that is wrong, and the remedy.
func (c ElasticsearchConfig) Validate() error {
	if len(c.URLs) == 0 {
		return errors.New("urls is empty: name at least one address such as https://elasticsearch:9200")
	}
	for i, s := range c.URLs {
		u, err := url.Parse(s)
		switch {
		case err == nil && u.User != nil, err != nil && strings.Contains(s, "@"): // not to be repeated in a log
			return fmt.Errorf("urls[%d] holds a password: give it by username and password_file", i)
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return fmt.Errorf("urls[%d] %q must begin with http:// or https:// and name a host", i, s)
		}
	}
	switch {
	case c.Username != "" && c.PasswordFile == "":
		return errors.New("password_file is empty: name the file with the password of username")
	case c.Username == "" && c.PasswordFile != "":
		return errors.New("username is empty: name the user whose password is in password_file")
	}
	return nil
}

const (
	// A dead letter keeps its record, so the folder is bounded by bytes.
	deadLetterFileBytes = 16 << 20
	deadLetterFiles     = 4
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
	dead   *book
	hold   hold
	m      *Metrics
	log    *slog.Logger

	turn      chan struct{} // whoever put one in may use templated
	templated bool          // our template was accepted in this run
}

// NewElasticsearch does not connect: a cluster that is away at the start is
// waited for like one that goes away later.
func NewElasticsearch(cfg ElasticsearchConfig, log *slog.Logger, m *Metrics) (*Elasticsearch, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	e := &Elasticsearch{
		cfg: cfg, log: log, m: m, hold: hold{log: log, where: strings.Join(cfg.URLs, ", ")},
		turn: make(chan struct{}, 1),
		conns: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: cfg.Timeout,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       90 * time.Second,
			DisableCompression:    true, // answers are small; they'd cost more than they save
		},
	}
	var urls []*url.URL
	client := []elastictransport.Option{elastictransport.WithUserAgent(cfg.Agent), elastictransport.WithDisableRetry(), elastictransport.WithTransport(e.conns)}
	for _, s := range cfg.URLs {
		u, err := url.Parse(strings.TrimRight(s, "/")) // the client appends /_bulk
		if err != nil {
			return nil, fmt.Errorf("urls: %w", err)
		}
		urls = append(urls, u)
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, ops.Remedy(fmt.Errorf("ca_file: %w", err))
		}
		authorities := x509.NewCertPool()
		if !authorities.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate: give certificates in PEM form", cfg.CAFile)
		}
		e.conns.TLSClientConfig = &tls.Config{RootCAs: authorities}
	}
	if cfg.Username != "" {
		auth := &basicAuth{user: cfg.Username, file: cfg.PasswordFile}
		if err := auth.read(); err != nil {
			return nil, ops.Remedy(fmt.Errorf("password_file: %w", err))
		}
		client = append(client, elastictransport.WithInterceptors(auth.intercept))
	}
	var err error
	if e.client, err = elastictransport.NewClient(append(client, elastictransport.WithURLs(urls...))...); err != nil {
		return nil, fmt.Errorf("make the client: %w", err)
	}
	e.dead, err = openBook(&book{
		dir: cfg.DeadLetters, prefix: "dead-letters", fileBytes: deadLetterFileBytes, files: deadLetterFiles, log: log,
		dropped: func(lines int) {
			m.removed.Add(lines)
			log.Warn("dead letters are full; the oldest were removed", "records", lines, "folder", cfg.DeadLetters)
		},
	})
	if err != nil {
		return nil, ops.Remedy(err)
	}
	m.holds(&e.hold)
	return e, nil
}

// Ship implements Destination.
func (e *Elasticsearch) Ship(ctx context.Context, records []Record) ([]Verdict, error) {
	verdicts := make([]Verdict, len(records))
	todo := make([]int, len(records)) // indices of those without a verdict
	for i := range todo {
		todo[i] = i
	}
	var wait backoff
	defer e.hold.leave(&wait)
	atOnce := len(todo) // what one request may carry
	for len(todo) > 0 {
		chunk := todo[:min(len(todo), atOnce)]
		answers, why := e.send(ctx, records, chunk)
		left, said, err := e.judge(records, chunk, answers, verdicts)
		if cause := context.Cause(ctx); cause != nil && len(left) > 0 {
			return verdicts, cause
		}
		if why == nil {
			why = said
		}
		if err != nil {
			// The dead letters could not be written: their records wait.
			why = &trouble{held: true, text: ops.Remedy(err).Error()}
		}
		if why != nil && why.tooLarge && len(chunk) > 1 {
			atOnce = len(chunk) / 2
			e.m.retried.Inc()
			continue
		}
		switch {
		case why == nil:
			e.m.ok.Inc()
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
		if len(left) > 0 {
			if err := wait.pause(ctx); err != nil {
				return verdicts, err
			}
		}
	}
	return verdicts, nil
}

// judge gives verdicts to the records of a request, and returns the indices of
// those that have to be sent again and the gravest reason for that.
func (e *Elasticsearch) judge(records []Record, chunk []int, answers []answer, verdicts []Verdict) (left []int, why *trouble, err error) {
	var letters []byte
	var dead []int
	for k, i := range chunk {
		switch a := answers[k]; a.fate {
		case taken:
			verdicts[i] = a.verdict
			switch a.verdict {
			case AlreadyStored:
				e.m.again.Inc()
			case Diverted:
				e.m.divert.Inc()
			}
		case refusedForGood:
			doc := any(json.RawMessage(records[i].Doc))
			if !json.Valid(records[i].Doc) { // which Elasticsearch saw too
				doc = string(records[i].Doc)
			}
			letter, err := json.Marshal(deadLetter{records[i].ID, records[i].Stream, a.text, doc})
			if err != nil {
				panic(err) // texts and valid JSON always have a form in JSON
			}
			letters = append(append(letters, letter...), '\n')
			dead = append(dead, i)
		default:
			left = append(left, i)
			if t := (&trouble{held: a.fate == held, text: a.text}); why == nil || t.held && !why.held {
				why = t
			}
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

// deadLetter is a line of the dead letters.
type deadLetter struct {
	ID     string `json:"_id"`
	Stream string `json:"stream"`
	Error  string `json:"error"`
	Doc    any    `json:"document"`
}

// trouble is why records are not stored yet.
type trouble struct {
	held     bool // somebody has to repair something
	tooLarge bool
	text     string
}

// packed is a body of _bulk and its compressor, used again.
type packed struct {
	buf  bytes.Buffer
	z    *gzip.Writer
	line []byte
}

var newline = []byte{'\n'}

// pack makes the body of the records at the indices.
func (p *packed) pack(records []Record, chunk []int) {
	p.buf.Reset()
	p.z.Reset(&p.buf)
	for _, i := range chunk {
		p.line = appendAction(p.line[:0], records[i])
		p.z.Write(p.line) // into memory: it does not fail
		p.z.Write(records[i].Doc)
		p.z.Write(newline)
	}
	p.z.Close()
}

var packers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant of that package
	}
	return &packed{z: z}
}}

// send makes one request of the records at the indices. There is an answer for
// each of them, also where the request failed as a whole; the trouble is that
// of the request.
func (e *Elasticsearch) send(ctx context.Context, records []Record, chunk []int) ([]answer, *trouble) {
	if t := e.template(ctx); t != nil {
		return again(len(chunk), t), t
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	p := packers.Get().(*packed)
	p.pack(records, chunk)
	size := p.buf.Len()
	res, err := esapi.BulkRequest{
		Body:       bytes.NewReader(p.buf.Bytes()),
		FilterPath: []string{"errors", "items.*.status", "items.*.error", "items.*.failure_store"},
		Header:     http.Header{"Content-Encoding": {"gzip"}, "Content-Type": {"application/x-ndjson"}},
	}.Do(ctx, e.client)
	if err != nil {
		t := noAnswer(err)
		return again(len(chunk), t), t
	}
	defer res.Body.Close() // only read
	e.m.bytes.Add(size)
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		t := &trouble{text: fmt.Sprintf("the answer broke off: %v", err)}
		return again(len(chunk), t), t
	}
	if len(body) > maxAnswer { // half of the records have half of the answer
		t := &trouble{tooLarge: true, text: fmt.Sprintf("the answer is longer than %d bytes: %s", maxAnswer, clip(string(body[:maxErrorText])))}
		return again(len(chunk), t), t
	}
	if res.StatusCode != http.StatusOK {
		return ofRequest(res.StatusCode, body, len(chunk))
	}
	// Only a server that has all of the request can say this. After any other
	// answer the connection may still be reading the buffer.
	packers.Put(p)
	return ofItems(body, len(chunk))
}

// noAnswer reads the error of a request that nobody answered.
func noAnswer(err error) *trouble {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		op.Source = nil // its port would make each attempt a new reason to hold
	}
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return &trouble{held: true, text: err.Error() + ": name the authority of its certificate in ca_file"}
	}
	return &trouble{text: ops.Remedy(err).Error()}
}

// template puts our index template, once in each run; it is overwritten so that
// a new version of the agent brings its own. A data stream without it would be
// an index without @timestamp's mapping.
func (e *Elasticsearch) template(ctx context.Context) *trouble {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return &trouble{text: "another request still puts the index template " + templateName}
	}
	if e.templated {
		return nil
	}
	var status int
	var body []byte
	// A server without the flattened type (a plain OpenSearch) gets a plain one.
	for _, labels := range []string{flattenedLabels, plainLabels} {
		res, err := esapi.IndicesPutIndexTemplateRequest{
			Name: templateName, Body: strings.NewReader(indexTemplate(labels)),
			Header: http.Header{"Content-Type": {"application/json"}},
		}.Do(ctx, e.client)
		if err != nil {
			return noAnswer(err)
		}
		body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		if err := errors.Join(err, res.Body.Close()); err != nil {
			return &trouble{text: fmt.Sprintf("the answer broke off: %v", err)}
		}
		status = res.StatusCode
		if status != http.StatusBadRequest || !bytes.Contains(body, []byte("No handler for type")) {
			break
		}
	}
	if status != http.StatusOK {
		_, t := ofRequest(status, body, 0)
		t.tooLarge = false
		t.text = "put the index template " + templateName + ": " + t.text
		return t
	}
	e.templated = true
	return nil
}

// Hold implements Destination.
func (e *Elasticsearch) Hold() string { return e.hold.String() }

// Close implements Destination.
func (e *Elasticsearch) Close() error {
	e.conns.CloseIdleConnections()
	err := e.client.Close(context.Background()) // ends what waits to try an address again
	if errors.Is(err, elastictransport.ErrAlreadyClosed) {
		err = nil
	}
	return errors.Join(err, e.dead.Close())
}

// basicAuth is a user whose password is in a file that may change.
type basicAuth struct {
	user, file string

	mu       sync.Mutex
	password string // guarded by mu
}

func (a *basicAuth) read() error {
	data, err := os.ReadFile(a.file)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.password = strings.TrimRight(string(data), "\r\n")
	return nil
}

// intercept adds the password to each request. When it is refused the file is
// read again, for the next request.
func (a *basicAuth) intercept(next elastictransport.RoundTripFunc) elastictransport.RoundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		a.mu.Lock()
		r.SetBasicAuth(a.user, a.password)
		a.mu.Unlock()
		res, err := next(r)
		if err == nil && res.StatusCode == http.StatusUnauthorized {
			// A file that cannot be read leaves the old password, which is
			// refused again and told so.
			_ = a.read()
		}
		return res, err
	}
}
