package logs

import (
	"strconv"

	"nines/agent/ship"
)

// A batch is handed on when a shipper is idle, and is full at the latest at
// these bounds. Elasticsearch takes 100 MiB; its makers advise 5 to 15 MiB
// before compression.
const (
	batchBytes   = 4 << 20
	batchRecords = 8000
)

// batch is records on their way. Its memory is used again.
type batch struct {
	stream  string // that all its records belong to
	arena   []byte // the documents, one behind the other
	recs    []rec
	spans   []*span
	records []ship.Record // made by seal
}

type rec struct {
	id         string
	start, end int   // of the document in arena
	bytes      int64 // of the file, the line's end included
}

func (b *batch) full() bool { return len(b.arena) >= batchBytes || len(b.recs) >= batchRecords }

// add appends a record of g that begins at offset and takes bytes of the file.
func (b *batch) add(g *generation, l line, bytes int64) {
	start := len(b.arena)
	b.arena = appendDocument(b.arena, l, g.document)
	var id [40]byte
	b.recs = append(b.recs, rec{
		id:    string(strconv.AppendInt(append(append(id[:0], g.id...), '-'), l.offset, 36)),
		start: start, end: len(b.arena), bytes: bytes,
	})
}

// seal makes the records that a destination takes.
func (b *batch) seal() {
	for _, r := range b.recs[len(b.records):] {
		b.records = append(b.records, ship.Record{ID: r.id})
	}
	for i, r := range b.recs {
		// The arena may have moved since the last time.
		b.records[i].Stream = b.stream
		b.records[i].Doc = b.arena[r.start:r.end:r.end]
	}
}

func (b *batch) reset() {
	b.arena, b.recs, b.spans, b.records = b.arena[:0], b.recs[:0], b.spans[:0], b.records[:0]
}
