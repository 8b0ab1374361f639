package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

// FollowOptions may be left empty.
type FollowOptions struct {
	// Retry is how long Follow waits after the connection broke, 5 s by default.
	Retry time.Duration
	// Silence is how long a leader may say nothing, 30 s by default: it says
	// every ten seconds that it is there.
	Silence time.Duration
	// Copied is told the newest batch of the leader and of the book, whenever
	// either has changed.
	Copied func(leader, here Position)
	// Now names files of tails that are set aside; time.Now by default.
	Now func() time.Time
}

// Refused is what a leader sent that can't be its book. Follow ends with it.
type Refused struct {
	URL  string
	Seq  uint64 // the batch, 0 where it is about the whole book
	What string
}

func (r *Refused) Error() string {
	if r.Seq == 0 {
		return fmt.Sprintf("the book at %s is refused: %s", r.URL, r.What)
	}
	return fmt.Sprintf("batch %d from %s is refused: %s: verify the book there", r.Seq, r.URL, r.What)
}

// Follow copies a leader's book, whose Handler is at a URL, until the context
// ends: it returns nil then. Each batch is proven by its hash before it is
// booked, atomic and synced as there; what breaks is taken up again. Batches
// with days that the leader has dropped can be proven by their links alone.
//
// Where this book has other batches than the leader, and the leader writes the
// same term or a later one, its tail is set aside: written to a file in the
// folder of the book, aside-TIME-FIRST-LAST.ndjson, and removed from the book
// (R26). A leader whose book ends before this one is waited for.
//
// The client must have no time-out for a whole answer. Nobody may Append
// meanwhile.
func (b *Book) Follow(ctx context.Context, leader string, client *http.Client, opts FollowOptions) error {
	u, err := url.Parse(leader)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("follow %q: not the URL of a ledger, as in http://host:port/path", leader)
	}
	if !b.enter() {
		return errors.New("follow: the ledger is closed")
	}
	defer b.users.Done()
	if opts.Retry <= 0 {
		opts.Retry = 5 * time.Second
	}
	if opts.Silence <= 0 {
		opts.Silence = 30 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Copied == nil {
		opts.Copied = func(_, _ Position) {}
	}
	f := &copier{b: b, url: *u, client: client, opts: opts}
	said := ""
	for {
		before := b.Head()
		err := f.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var refused *Refused
		if errors.As(err, &refused) || b.failed() != nil {
			return err
		}
		if b.Head() != before {
			said = ""
		}
		if err != nil && err.Error() != said { // each trouble once
			said = err.Error()
			b.log.Warn("the leader's book can't be copied now", "leader", f.url.Redacted(), "error", err)
		}
		wait := time.NewTimer(opts.Retry)
		select {
		case <-wait.C:
		case <-b.closing:
		case <-ctx.Done():
		}
		wait.Stop()
		select {
		case <-b.closing:
			return errors.New("follow: the ledger was closed")
		default:
		}
	}
}

type copier struct {
	b      *Book
	url    url.URL
	client *http.Client
	opts   FollowOptions
}

func (f *copier) refuse(seq uint64, format string, args ...any) error {
	return &Refused{f.url.Redacted(), seq, fmt.Sprintf(format, args...)}
}

func (f *copier) get(ctx context.Context, query url.Values) (*http.Response, error) {
	u := f.url
	q := u.Query()
	for k, v := range query {
		q[k] = v
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	return f.client.Do(req)
}

// status is an answer that is not what was asked for.
func status(r *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(r.Body, 300)) // what there is of it
	return fmt.Errorf("the leader answers %s: %s", r.Status, bytes.TrimSpace(text))
}

// once follows until something breaks.
func (f *copier) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(f.opts.Silence, func() { cancel(fmt.Errorf("the leader said nothing for %s", f.opts.Silence)) })
	defer silence.Stop()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() {
		select {
		case <-f.b.closing:
			cancel(errors.New("the ledger was closed"))
		case <-ctx.Done():
		}
	})
	head := f.b.Head()
	r, err := f.get(ctx, url.Values{"after": {strconv.FormatUint(head.Seq, 10)}, "hash": {hex.EncodeToString(head.Hash[:])}})
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	defer r.Body.Close()
	switch r.StatusCode {
	case http.StatusOK:
	case http.StatusConflict:
		return f.diverged(ctx, head)
	default:
		return status(r)
	}
	body := bufio.NewReaderSize(r.Body, 64<<10)
	var at sentPosition
	var newest Position
	var batch *filled
	for {
		kind, payload, err := readFrame(body)
		if err != nil {
			return fmt.Errorf("read the leader's book: %w", errors.Join(err, context.Cause(ctx)))
		}
		silence.Reset(f.opts.Silence)
		switch {
		case kind == frameHead && batch == nil:
			if newest, err = decodePlace(payload, &at); err != nil {
				return f.refuse(0, "%v", err)
			}
			f.opts.Copied(newest, f.b.Head())
		case kind == frameBatch && batch == nil && len(payload) > 8:
			h, err := decodeHeader(append([]byte("b"), payload[:8]...), payload[8:])
			if err != nil {
				return f.refuse(binary.BigEndian.Uint64(payload), "%v", err)
			}
			batch = &filled{header: h}
		case kind == framePairs && batch != nil:
			if err := batch.read(payload); err != nil {
				return f.refuse(batch.Seq, "%v", err)
			}
		case kind == frameEnd && batch != nil:
			if err := f.book(batch, at.KeptDay); err != nil {
				return err
			}
			if batch.Seq > newest.Seq {
				newest = batch.Position
			}
			batch = nil
			f.opts.Copied(newest, f.b.Head())
		default:
			return f.refuse(0, "a frame of kind %q is out of place", kind)
		}
	}
}

func decodePlace(v []byte, p *sentPosition) (Position, error) {
	*p = sentPosition{}
	if err := json.Unmarshal(v, p); err != nil {
		return Position{}, fmt.Errorf("the position of its newest batch: %w", err)
	}
	out := Position{Term: p.Term, Seq: p.Seq, At: p.At}
	hash, err := hex.DecodeString(p.Hash)
	if err != nil || copy(out.Hash[:], hash) != len(out.Hash) || len(hash) != len(out.Hash) {
		return Position{}, errors.New("the position of its newest batch has no hash")
	}
	return out, nil
}

// readFrame returns the next frame. It never holds more than a frame may have,
// whatever length is told.
func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxEntry {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}

// read takes the entries of a frame.
func (f *filled) read(payload []byte) error {
	if f.size += len(payload); f.size > maxBatch {
		return fmt.Errorf("it has more than %d bytes", maxBatch)
	}
	c := cursor{data: payload}
	for len(c.data) > 0 {
		p := pair{c.take(c.uvarint()), nil}
		if p.v = c.take(c.uvarint()); c.bad || len(p.k) == 0 {
			return errors.New("an entry is cut off")
		}
		f.pairs = append(f.pairs, p)
	}
	return nil
}

// prove checks that a batch follows on this book and gives its hash. Without
// the days before kept, which the leader dropped, the links alone tell.
func (f *copier) prove(batch *filled, kept int64) error {
	h, head := &batch.header, f.b.head
	switch {
	case h.Seq != head.Seq+1:
		return f.refuse(h.Seq, "it follows batch %d", head.Seq)
	case h.before != head.Hash:
		return f.refuse(h.Seq, "it does not name the hash of the batch before it")
	case h.Term < head.Term:
		return f.refuse(h.Seq, "its term %d is over", h.Term)
	}
	sum := newHashing(*h)
	lookup := finder{b: f.b}
	for i, p := range batch.pairs {
		if i > 0 && bytes.Compare(batch.pairs[i-1].k, p.k) >= 0 {
			return f.refuse(h.Seq, "its entries are not in their order")
		}
		sum.add(p.k, p.v)
		if err := checkEntry(h, p, kept); err != nil {
			return f.refuse(h.Seq, "%v", err)
		}
		if p.k[0] != 'e' {
			continue
		}
		id, m, _, _ := parseMinuteKey(p.k) // checked above
		if newest, ok := f.b.last[id]; ok && m <= newest {
			if old, err := lookup.find(id, m); err != nil {
				return err
			} else if old != nil {
				return f.refuse(h.Seq, "it books minute %s of objective %s, which is booked", minuteText(m), id)
			}
		}
	}
	proven := uint64(len(batch.pairs)) == h.count && sum.done() == h.Hash
	if !proven && h.firstDay >= kept {
		return f.refuse(h.Seq, "its %d entries of %d do not give its hash", len(batch.pairs), h.count)
	}
	return nil
}

// checkEntry reports whether an entry can be one of a batch.
func checkEntry(h *header, p pair, kept int64) error {
	seq, err := uint64(0), error(nil)
	switch p.k[0] {
	case 'e', 'r':
		var m sla.Minute
		if _, m, _, err = parseMinuteKey(p.k); err == nil {
			_, err = decodeBooking(m, p.v)
		}
		if day := m.Day(); err == nil && (day < h.firstDay || day > h.lastDay) {
			err = fmt.Errorf("entry %x is not of its days", p.k)
		}
	case 'm', 'o', 's':
	default:
		err = fmt.Errorf("the key %x is none of an entry", p.k)
	}
	if err == nil {
		seq, err = entrySeq(p.k, p.v)
	}
	if err == nil && seq != h.Seq {
		err = fmt.Errorf("entry %x is of batch %d", p.k, seq)
	}
	return err
}

// book proves a batch and writes it.
func (f *copier) book(batch *filled, kept int64) error {
	b := f.b
	b.write.Lock()
	defer b.write.Unlock()
	if err := f.prove(batch, kept); err != nil {
		return err
	}
	pairs := batch.pairs[:0:0]
	for _, p := range batch.pairs {
		if p.k[0] == 'e' || p.k[0] == 'r' {
			if _, m, _, err := parseMinuteKey(p.k); err != nil || m < b.kept {
				continue // this book has dropped that day
			}
		}
		pairs = append(pairs, p)
	}
	if batch.firstDay < kept && sla.Minute(kept*1440) > b.kept {
		// What the leader has dropped is not here either.
		if err := b.dropBefore(kept); err != nil {
			return err
		}
	}
	return b.book(batch.header, pairs)
}

// diverged looks for the last batch that both books have.
func (f *copier) diverged(ctx context.Context, head Position) error {
	leader, _, err := f.at(ctx, "head")
	if err != nil {
		return err
	}
	same := func(seq uint64) (bool, error) {
		if seq == 0 {
			return true, nil
		}
		here, err := f.b.Position(seq)
		if err != nil {
			return false, err
		}
		there, ok, err := f.at(ctx, strconv.FormatUint(seq, 10))
		return ok && here.Hash == there.Hash, err
	}
	common, end := uint64(0), min(head.Seq, leader.Seq)
	for common < end {
		middle := (common + end + 1) / 2
		ok, err := same(middle)
		if err != nil {
			return err
		}
		if ok {
			common = middle
		} else {
			end = middle - 1
		}
	}
	switch {
	case common == head.Seq:
		return errors.New("the leader did not know the newest batch a moment ago")
	case common == leader.Seq:
		return fmt.Errorf("the leader's book ends with batch %d, before this one with batch %d: look which one holds the Lease", leader.Seq, head.Seq)
	case leader.Term < head.Term:
		return fmt.Errorf("the leader is at term %d and this book at term %d: look which one holds the Lease", leader.Term, head.Term)
	case common == 0:
		return f.refuse(0, "it has no batch in common with this one: move this one away to copy it from the beginning")
	}
	file, err := f.b.setAside(common, f.opts.Now())
	if err != nil {
		return ops.Remedy(fmt.Errorf("set the tail behind batch %d aside: %w", common, err))
	}
	f.b.log.Warn("batches that the leader does not have were set aside", "leader", f.url.Redacted(), "after", common, "to", head.Seq, "file", file)
	return nil
}

// at asks the leader for a batch.
func (f *copier) at(ctx context.Context, seq string) (p Position, ok bool, err error) {
	r, err := f.get(ctx, url.Values{"at": {seq}})
	if err != nil {
		return p, false, err
	}
	defer r.Body.Close()
	switch r.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return p, false, nil
	default:
		return p, false, status(r)
	}
	v, err := io.ReadAll(io.LimitReader(r.Body, 4096))
	if err != nil {
		return p, false, err
	}
	var at sentPosition
	if p, err = decodePlace(v, &at); err != nil {
		return p, false, f.refuse(0, "%v", err)
	}
	return p, true, nil
}
