package fluentbit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/ship"
	"nines/pkg/ops"
)

// Name is what [OUTPUT] calls the plugin.
const Name = "nines"

// Description is what fluent-bit --help says about it.
const Description = "Elasticsearch, each record once (nines)"

// Dataset is that of all documents.
const Dataset = "nines.fluentbit"

// defaultTimeout has room for a slow request and for two that are sent again.
const defaultTimeout = 10 * time.Second

// Answer is what Fluent Bit is told about a chunk.
type Answer uint8

// Answers. Error makes Fluent Bit drop the chunk; it is the answer only to a
// flush of an output that was never configured.
const (
	Error Answer = iota
	OK
	Retry
)

// Output is one [OUTPUT] section.
type Output struct {
	dest    *ship.Elasticsearch
	lock    *ops.FolderLock
	cluster string
	timeout time.Duration
	stream  string
	log     *slog.Logger

	ctx  context.Context // of all flushes; ends with Close
	stop context.CancelCauseFunc

	mu      sync.RWMutex // held for reading by each flush
	closed  bool         // guarded by mu
	closing sync.Once
	err     error // of closing
}

// Configure makes an output of the keys of an [OUTPUT] section; get returns ""
// for one that is not set. It does not connect.
func Configure(get func(key string) string, log *slog.Logger) (*Output, error) {
	o := &Output{cluster: cmp.Or(strings.TrimSpace(get("Cluster")), "default"), timeout: defaultTimeout, log: log}
	cfg := ship.ElasticsearchConfig{
		Username:     get("Username"),
		PasswordFile: get("Password_File"),
		CAFile:       get("CA_File"),
		DeadLetters:  get("Dead_Letters"),
		Agent:        "nines-fluentbit/" + cmp.Or(ops.ReadBuild().Version, "dev"),
	}
	for u := range strings.SplitSeq(get("URLs"), ",") {
		if u = strings.TrimSpace(u); u != "" {
			cfg.URLs = append(cfg.URLs, u)
		}
	}
	switch {
	case len(cfg.URLs) == 0:
		return nil, unset("URLs", "name at least one address such as https://elasticsearch:9200")
	case cfg.Username != "" && cfg.PasswordFile == "":
		return nil, unset("Password_File", "name the file with the password of Username")
	case cfg.Username == "" && cfg.PasswordFile != "":
		return nil, unset("Username", "name the user whose password is in Password_File")
	case cfg.DeadLetters == "":
		return nil, unset("Dead_Letters", "name a folder for records that Elasticsearch refuses, of this [OUTPUT] alone")
	}
	if text := get("Timeout"); text != "" {
		var err error
		if o.timeout, err = time.ParseDuration(text); err != nil || o.timeout <= 0 {
			return nil, fmt.Errorf("the key Timeout %q is no duration above 0: give one such as 10s", text)
		}
	}
	cfg.Timeout = o.timeout
	// Two writers of one folder would write over each other's letters.
	var err error
	if o.lock, err = ops.LockFolder(cfg.DeadLetters); err != nil {
		return nil, fmt.Errorf("Dead_Letters: %w", ops.Remedy(err))
	}
	if o.dest, err = ship.NewElasticsearch(cfg, log, ship.NewMetrics(metrics.NewSet(), "elasticsearch")); err != nil {
		return nil, errors.Join(err, o.lock.Unlock())
	}
	o.stream = "logs-" + Dataset + "-" + ship.Namespace(o.cluster)
	o.ctx, o.stop = context.WithCancelCause(context.Background())
	return o, nil
}

func unset(key, remedy string) error { return fmt.Errorf("%s is not set: %s", key, remedy) }

var (
	errLate   = errors.New("no verdict in time")
	errClosed = errors.New("the output is closed")
)

// Flush has the entries of a chunk stored. It may be called concurrently, and
// keeps nothing of its arguments.
func (o *Output) Flush(tag string, chunk []byte, entries []Entry) Answer {
	if o == nil {
		return Error
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return Retry
	}
	records := o.records(tag, chunk, entries, time.Now())
	if len(records) == 0 {
		return OK
	}
	ctx, cancel := context.WithTimeoutCause(o.ctx, o.timeout, errLate)
	defer cancel()
	verdicts, err := o.dest.Ship(ctx, records)
	dead, unknown := 0, 0
	for _, v := range verdicts {
		switch v {
		case ship.DeadLettered:
			dead++
		case ship.Unknown:
			unknown++
		}
	}
	if dead > 0 {
		o.log.Warn("Elasticsearch refused records; they are in the dead letters", "tag", tag, "records", dead)
	}
	if err != nil || unknown > 0 {
		o.log.Warn("Fluent Bit is asked to send a chunk again", "tag", tag, "records", len(records), "without_verdict", unknown,
			"cause", err, "why", o.dest.Hold())
		return Retry
	}
	return OK
}

func (o *Output) records(tag string, chunk []byte, entries []Entry, now time.Time) []ship.Record {
	id := identity(tag, chunk)
	doc := newBuilder(tag, o.cluster)
	records := make([]ship.Record, 0, len(entries))
	for i, e := range entries {
		if e.says() {
			records = append(records, ship.Record{
				ID: id + "-" + strconv.FormatInt(int64(i), 36), Stream: o.stream, Doc: doc.build(e, now),
			})
		}
	}
	return records
}

// identity names a chunk for ever. The lengths keep a tag's end and a chunk's
// beginning apart.
func identity(tag string, chunk []byte) string {
	h := sha256.New()
	var length [8]byte
	for _, part := range [][]byte{[]byte(tag), chunk} {
		h.Write(binary.BigEndian.AppendUint64(length[:0], uint64(len(part)))) // a hash never fails
		h.Write(part)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])
}

// Close ends what is under way, whose answer is Retry, and waits for it.
func (o *Output) Close() error {
	if o == nil {
		return nil
	}
	o.closing.Do(func() {
		o.stop(errClosed)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.closed = true
		o.err = errors.Join(o.dest.Close(), o.lock.Unlock())
	})
	return o.err
}
