package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"nines/pkg/sla"
)

// What a leader sends to a follower is a row of frames: a byte with the kind,
// four bytes with the length of what follows, big-endian, and that.
const (
	// frameHead is the leader's newest batch and the first day that it keeps:
	// JSON. It comes first and then every ten seconds while nothing is booked.
	frameHead = 'h'
	// frameBatch begins a batch: its sequence in 8 bytes, and its header as it
	// lies in the book.
	frameBatch = 'b'
	// framePairs are entries of the batch: keys and values, each behind its
	// length as a varint, in the order of the keys. Those of sealed days are as
	// they were before.
	framePairs = 'p'
	// frameEnd ends a batch.
	frameEnd = 'e'
)

const (
	maxFrame    = 1 << 20   // but for one entry that is longer
	maxEntry    = 16 << 20  // a frame of a single entry
	maxBatch    = 256 << 20 // what a follower holds of a batch before it has proven it
	maxStreams  = 8
	idleFrames  = 10 * time.Second
	sendTimeout = time.Minute
	recentBytes = 8 << 20 // of the newest batches, kept in memory for followers
	sendEntries = 200_000 // that are read from the book at a time
)

// sentPosition is a position as JSON.
type sentPosition struct {
	Term    uint64 `json:"term"`
	Seq     uint64 `json:"seq"`
	At      int64  `json:"at"`
	Hash    string `json:"hash"`
	KeptDay int64  `json:"kept_day"`
}

// filled is a batch with its entries.
type filled struct {
	header
	pairs []pair
	size  int
}

// remember keeps the newest batches for those who follow. b.mu is held.
func (b *Book) remember(h header, pairs []pair) {
	f := filled{header: h, pairs: pairs}
	for _, p := range pairs {
		f.size += len(p.k) + len(p.v) + 48
	}
	b.recent = append(b.recent, f)
	b.recentSize += f.size
	for b.recentSize > recentBytes {
		b.recentSize -= b.recent[0].size
		b.recent[0] = filled{}
		b.recent = b.recent[1:]
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// Handler serves the book to followers.
//
//	GET ?at=SEQ              the position of a batch, JSON; ?at=head of the newest
//	GET ?after=SEQ&hash=HEX  frames: all batches behind that one, and each new one
//
// The second answers 409 where the book has no such batch. It ends with the
// request, with Close, or when the follower does not read for a minute. Who may
// ask is for the caller to decide.
func (b *Book) Handler() http.Handler {
	streams := make(chan struct{}, maxStreams)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", "GET")
			http.Error(w, "only GET is served here", http.StatusMethodNotAllowed)
			return
		}
		if !b.enter() {
			http.Error(w, "the ledger is being closed", http.StatusServiceUnavailable)
			return
		}
		defer b.users.Done()
		q := r.URL.Query()
		switch {
		case q.Has("at"):
			b.serveAt(w, q.Get("at"))
		case q.Has("after"):
			select {
			case streams <- struct{}{}:
				defer func() { <-streams }()
				b.serveAfter(w, r)
			default:
				http.Error(w, "too many copies are being made", http.StatusServiceUnavailable)
			}
		default:
			http.Error(w, "ask for ?at=SEQ, ?at=head or ?after=SEQ&hash=HEX", http.StatusBadRequest)
		}
	})
}

// enter registers somebody whom Close waits for.
func (b *Book) enter() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	select {
	case <-b.closing:
		return false
	default:
		b.users.Add(1)
		return true
	}
}

func (b *Book) sent(p Position) sentPosition {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return sentPosition{p.Term, p.Seq, p.At, hex.EncodeToString(p.Hash[:]), b.kept.Day()}
}

func (b *Book) serveAt(w http.ResponseWriter, at string) {
	p := b.Head()
	if at != "head" {
		seq, err := strconv.ParseUint(at, 10, 64)
		if err != nil {
			http.Error(w, "at is not the number of a batch", http.StatusBadRequest)
			return
		}
		if p, err = b.Position(seq); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(b.sent(p)) // the reader is gone
}

func (b *Book) serveAfter(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	seq, err := strconv.ParseUint(q.Get("after"), 10, 64)
	if err != nil {
		http.Error(w, "after is not the number of a batch", http.StatusBadRequest)
		return
	}
	if seq > 0 {
		p, err := b.Position(seq)
		if err != nil || hex.EncodeToString(p.Hash[:]) != q.Get("hash") {
			http.Error(w, fmt.Sprintf("batch %d is another one here, or not there", seq), http.StatusConflict)
			return
		}
	}
	w.Header().Set("Content-Type", "application/vnd.nines.ledger")
	s := sender{w: w, control: http.NewResponseController(w)}
	idle := time.NewTicker(idleFrames)
	defer idle.Stop()
	s.head(b.sent(b.Head()))
	for s.err == nil {
		s.flush()
		b.mu.RLock()
		changed := b.changed
		head := b.head.Seq
		b.mu.RUnlock()
		if seq < head {
			batches, err := b.after(seq)
			if err != nil {
				b.log.Error("a follower can't be served", "after", seq, "error", err)
				panic(http.ErrAbortHandler) // the follower must not take it for the end
			}
			s.head(b.sent(b.Head())) // days may have been dropped meanwhile
			for _, f := range batches {
				s.batch(f)
				seq = f.Seq
			}
			if len(batches) > 0 {
				continue
			}
		}
		select {
		case <-changed:
		case <-idle.C:
			s.head(b.sent(b.Head()))
		case <-b.closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// sender writes frames until one can't be written.
type sender struct {
	w       io.Writer
	control *http.ResponseController
	buf     []byte
	err     error
}

func (s *sender) frame(kind byte, payload []byte) {
	if s.err != nil {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(sendTimeout)) // not every server has one
	if _, s.err = s.w.Write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))); s.err == nil {
		_, s.err = s.w.Write(payload)
	}
}

func (s *sender) flush() {
	if s.err == nil {
		s.err = s.control.Flush()
	}
}

func (s *sender) head(p sentPosition) {
	v, err := json.Marshal(p)
	if err != nil {
		s.err = err
		return
	}
	s.frame(frameHead, v)
}

func (s *sender) batch(f filled) {
	s.frame(frameBatch, append(binary.BigEndian.AppendUint64(nil, f.Seq), f.encode()...))
	out := s.buf[:0]
	for _, p := range f.pairs {
		if len(out) > 0 && len(out)+len(p.k)+len(p.v)+20 > maxFrame {
			s.frame(framePairs, out)
			out = out[:0]
		}
		out = append(binary.AppendUvarint(out, uint64(len(p.k))), p.k...)
		out = append(binary.AppendUvarint(out, uint64(len(p.v))), p.v...)
	}
	if len(out) > 0 {
		s.frame(framePairs, out)
	}
	s.buf = out
	s.frame(frameEnd, nil)
}

// after returns the next few batches behind one: those that were just written
// from memory, older ones from the book.
func (b *Book) after(seq uint64) ([]filled, error) {
	b.mu.RLock()
	end := b.head.Seq
	if len(b.recent) > 0 {
		if first := b.recent[0].Seq; seq+1 >= first {
			out := slices.Clone(b.recent[min(seq+1-first, uint64(len(b.recent))):])
			b.mu.RUnlock()
			return out, nil
		}
		end = b.recent[0].Seq - 1
	}
	snap := b.db.NewSnapshot()
	b.mu.RUnlock()
	out, err := filledFrom(snap, seq+1, end)
	if closing := snap.Close(); err == nil {
		err = closing
	}
	return out, err
}

var errEnough = errors.New("enough")

// filledFrom reads the batches from first to last with all that is left of
// them, as many as are read at a time.
func filledFrom(r reader, first, last uint64) ([]filled, error) {
	var headers []header
	var entries uint64
	err := eachIn(r, batchKey(first), batchKey(last+1), func(k, v []byte) error {
		h, err := decodeHeader(k, v)
		if err != nil {
			return err
		}
		if len(headers) > 0 && (entries+h.count > sendEntries || len(headers) == verifyAtOnce) {
			return errEnough
		}
		entries += h.count
		headers = append(headers, h)
		return nil
	})
	if err != nil && err != errEnough || len(headers) == 0 {
		return nil, err
	}
	out := make([]filled, len(headers))
	for i, h := range headers {
		if h.Seq != first+uint64(i) {
			return nil, broken("batch %d follows batch %d", h.Seq, first+uint64(i)-1)
		}
		out[i].header = h
	}
	last = headers[len(headers)-1].Seq
	err = eachEntry(r, spans(headers), func(k *block, _ sla.ID) (bool, error) {
		return k.newest >= first && k.oldest <= last, nil
	}, func(seq uint64, k, v []byte) error {
		if seq >= first && seq <= last {
			f := &out[seq-first]
			f.pairs = append(f.pairs, pair{slices.Clone(k), slices.Clone(v)})
		}
		return nil
	})
	return out, err
}
