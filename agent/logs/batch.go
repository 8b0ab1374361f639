package logs

import (
	"slices"
	"strconv"
	"sync"

	"nines/agent/ship"
)

// A batch is handed on when a shipper is idle, and is full at the latest at
// these bounds. Elasticsearch takes 100 MiB; small requests side by side keep
// the agent's memory small.
const (
	batchBytes   = 2 << 20
	batchRecords = 4000
)

// batch is records on their way. Its memory is used again.
type batch struct {
	arena   []byte // the documents, one behind the other
	ids     []byte
	recs    []rec
	records []ship.Record // made by seal
	ahead   []*generation // whose records are in it
}

type rec struct {
	end, idEnd int // of the document in arena, of the ID in ids
	stream     string
	uncertain  bool
	share      // of the generation in which it ends
	more       []share
}

func (b *batch) full() bool { return len(b.arena) >= batchBytes || len(b.recs) >= batchRecords }

// add appends a record that began at an offset of the generation whose IDs begin
// with id.
func (b *batch) add(l line, id string, offset int64, ending []byte, r rec) {
	l.offset = offset
	b.arena = appendDocument(b.arena, l, ending)
	b.ids = strconv.AppendInt(append(append(b.ids, id...), '-'), offset, 36)
	r.end, r.idEnd = len(b.arena), len(b.ids)
	b.recs = append(b.recs, r)
}

// carry notes that records of a generation are in it.
func (b *batch) carry(g *generation) {
	if !slices.Contains(b.ahead, g) {
		b.ahead = append(b.ahead, g)
	}
}

// seal makes the records that a destination takes.
func (b *batch) seal() {
	b.records = b.records[:0]
	ids := string(b.ids)
	from, idFrom := 0, 0
	for _, r := range b.recs {
		bytes := r.bytes
		for _, m := range r.more {
			bytes += m.bytes
		}
		b.records = append(b.records, ship.Record{
			ID: ids[idFrom:r.idEnd], Stream: r.stream, Doc: b.arena[from:r.end:r.end], Bytes: bytes, Uncertain: r.uncertain,
		})
		from, idFrom = r.end, r.idEnd
	}
}

func (b *batch) reset() {
	clear(b.recs) // of the generations in them
	clear(b.records)
	clear(b.ahead)
	b.arena, b.ids, b.recs, b.records, b.ahead = b.arena[:0], b.ids[:0], b.recs[:0], b.records[:0], b.ahead[:0]
}

// stock is the batches that nobody uses. The one given back last is taken first,
// so that only as many grow as are needed at a time.
type stock struct {
	mu   sync.Mutex
	all  []*batch
	left chan struct{} // one for each in all
}

func newStock(n int) *stock {
	s := &stock{left: make(chan struct{}, n)}
	for range n {
		s.put(&batch{})
	}
	return s
}

func (s *stock) put(b *batch) {
	s.mu.Lock()
	s.all = append(s.all, b)
	s.mu.Unlock()
	s.left <- struct{}{} // has room for all
}

// take waits for a batch.
func (s *stock) take() *batch {
	<-s.left
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[len(s.all)-1]
	s.all = s.all[:len(s.all)-1]
	return b
}
