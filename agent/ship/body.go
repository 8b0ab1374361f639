package ship

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// appendAction appends the line that stands in front of a document.
func appendAction(b []byte, r Record) []byte {
	b = append(b, `{"create":{"_index":`...)
	b = appendString(b, r.Stream)
	b = append(b, `,"_id":`...)
	b = appendString(b, r.ID)
	return append(b, "}}\n"...)
}

// actionBytes is how long a line of appendAction is without its two strings.
const actionBytes = len(`{"create":{"_index":,"_id":}}` + "\n")

// plain says whether s is its own form in JSON, as names of ours are.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendString appends s as a JSON string. strconv.Quote would write \x00
// where JSON has \u0000.
func appendString(b []byte, s string) []byte {
	if !plain(s) {
		quoted, err := json.Marshal(s)
		if err != nil {
			panic(err) // a string always has a form in JSON
		}
		return append(b, quoted...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func quotedBytes(s string) int {
	if plain(s) {
		return len(s) + 2
	}
	return len(appendString(nil, s))
}

// payload is the body of a request. It may be asked for more than once, since
// net/http sends it again when a connection turns out to be closed.
type payload interface {
	size() int64
	open() io.ReadCloser
	// release ends the use of what the payload was made of: a connection may
	// still be reading when the answer is there already.
	release()
	// begun says whether a connection has read anything, so that the server may
	// have got it.
	begun() bool
}

// recordsBody is a bulk without compression. It copies each record once, straight
// into the connection's buffer.
type recordsBody struct {
	records []Record
	chunk   []int
	length  int64

	mu     sync.Mutex // guards all below, and the records while they are read
	used   bool
	closed bool
}

func newRecordsBody(records []Record, chunk []int) *recordsBody {
	b := &recordsBody{records: records, chunk: chunk}
	stream, streamBytes := "", quotedBytes("")
	for _, i := range chunk {
		r := &records[i]
		if r.Stream != stream {
			stream, streamBytes = r.Stream, quotedBytes(r.Stream)
		}
		b.length += int64(actionBytes + streamBytes + quotedBytes(r.ID) + len(r.Doc) + 1)
	}
	return b
}

func (b *recordsBody) size() int64         { return b.length }
func (b *recordsBody) open() io.ReadCloser { return &recordsReader{body: b} }

func (b *recordsBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

func (b *recordsBody) begun() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

var errReleased = errors.New("the request is over")

// recordsReader is one reading of a recordsBody.
type recordsReader struct {
	body *recordsBody
	next int    // in chunk
	line []byte // an action that did not fit, and its rest
	rest []byte
	part int // of record next: 0 its action, 1 its document, 2 the newline
}

func (r *recordsReader) Read(p []byte) (n int, err error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errReleased
	}
	b.used = true
	for n < len(p) {
		if len(r.rest) > 0 {
			k := copy(p[n:], r.rest)
			n, r.rest = n+k, r.rest[k:]
			continue
		}
		if r.next == len(b.chunk) {
			if n == 0 {
				return 0, io.EOF
			}
			return n, nil
		}
		rec := &b.records[b.chunk[r.next]]
		switch {
		case r.part == 0 && len(p)-n >= 6*(len(rec.Stream)+len(rec.ID))+len(rec.Doc)+actionBytes+5:
			// All of it fits, even if each byte had to be escaped as \u0000.
			out := append(append(appendAction(p[:n], *rec), rec.Doc...), '\n')
			n = len(out)
			r.next++
		case r.part == 0:
			r.line = appendAction(r.line[:0], *rec)
			r.rest, r.part = r.line, 1
		case r.part == 1:
			r.rest, r.part = rec.Doc, 2
		default:
			r.rest, r.part = newline, 0
			r.next++
		}
	}
	return n, nil
}

func (r *recordsReader) Close() error { return nil }

// packed is a bulk that was compressed, and its compressor, used again.
type packed struct {
	buf  bytes.Buffer
	z    *gzip.Writer
	line []byte

	mu     sync.Mutex // guards used and opened
	used   bool
	opened int // readers that were not closed yet
	done   bool
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

func newPacked(records []Record, chunk []int) *packed {
	p := packers.Get().(*packed)
	p.used, p.opened, p.done = false, 0, false
	p.pack(records, chunk)
	return p
}

func (p *packed) size() int64 { return int64(p.buf.Len()) }

func (p *packed) open() io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened++
	return &packedReader{r: bytes.NewReader(p.buf.Bytes()), p: p}
}

func (p *packed) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	p.recycle()
}

// recycle gives the buffer back once nobody reads it. Caller holds mu.
func (p *packed) recycle() {
	if p.done && p.opened == 0 {
		packers.Put(p)
	}
}

func (p *packed) begun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// packedReader is one reading of a packed.
type packedReader struct {
	r      *bytes.Reader
	p      *packed
	closed bool // guarded by p.mu
}

func (r *packedReader) Read(b []byte) (int, error) {
	r.p.mu.Lock()
	r.p.used = true
	r.p.mu.Unlock()
	return r.r.Read(b)
}

func (r *packedReader) Close() error {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.p.opened--
		r.p.recycle()
	}
	return nil
}

// bytesBody is a small body.
type bytesBody []byte

func (b bytesBody) size() int64         { return int64(len(b)) }
func (b bytesBody) open() io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
func (b bytesBody) release()            {}
func (b bytesBody) begun() bool         { return false }

// appendIDs makes the body of an _mget.
func appendIDs(b []byte, records []Record, of []int) []byte {
	b = append(b, `{"ids":[`...)
	for k, i := range of {
		if k > 0 {
			b = append(b, ',')
		}
		b = appendString(b, records[i].ID)
	}
	return append(b, "]}"...)
}
