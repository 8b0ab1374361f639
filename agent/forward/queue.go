package forward

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"nines/pkg/ops"
)

// The queue is one stream of bytes, cut into segment files that are named by
// the offset in the stream at which they begin. The stream is a row of frames:
//
//	length of the rest, uint32 | CRC-32C of the rest, uint32 | the rest
//
// The rest of a frame is a batch:
//
//	format (1), byte | newest sample, ms since the epoch, int64 | samples, uint32 | request, snappy
//
// All numbers are big endian. Offsets only grow, also across restarts, so that
// a reader's position names one place for ever.
const (
	frameHeader = 8
	batchHeader = 13
	batchFormat = 1
	// maxFrame bounds what a damaged length can make us allocate.
	maxFrame = 16 << 20

	segmentSuffix = ".segment"
	// A full queue gives up one segment at a time, an eighth of it.
	segmentsPerQueue = 8
	// While destinations keep up, the queue stays about this small on disk.
	keepBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is one remote-write request at rest.
type batch struct {
	time    int64  // of its newest sample, ms since the epoch: pages may carry samples of old times
	samples int    // in it
	request []byte // io.prometheus.write.v2.Request, snappy-compressed
}

// record says where a batch lies. The queue holds one for each batch in memory.
type record struct {
	at      int64 // offset in the stream
	size    int64 // of the frame, its header included
	time    int64
	samples int
}

func (r record) end() int64 { return r.at + r.size }

type segment struct {
	start, size int64
	path        string
}

func (s segment) end() int64 { return s.start + s.size }

// reader is one destination's place in the stream.
type reader struct {
	position int64
	// busy are the records that are being sent, from the offset up to, and not
	// with, the other one: they get their verdict from the destination, also where
	// the queue has dropped them meanwhile.
	busyFrom, busyTo int64
	dropped          func(samples int)
	wake             chan struct{} // capacity 1; the queue sends, the reader receives
}

// queue holds batches until every reader has acknowledged them, or until they
// are dropped to make room.
type queue struct {
	dir      string
	maxBytes int64
	log      *slog.Logger
	torn     func() // called for each damaged place

	mu       sync.Mutex // guards all below, and the readers' fields
	segments []segment  // oldest first; the last may be open for writing
	records  []record   // oldest first
	readers  []*reader
	file     *os.File // of the last segment; nil: the next append begins a segment
	spoilt   bool     // the last segment took a failed write: begin another
	end      int64    // offset of the next record
}

// openQueue reads what lies in the folder. A torn tail is what a crash leaves
// of an append that never returned: it is cut off, told and counted. Damage
// elsewhere ends its segment; the segments after it are kept.
func openQueue(dir string, maxBytes int64, log *slog.Logger, torn func()) (*queue, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("create queue folder: %w", err)
	}
	q := &queue{dir: dir, maxBytes: maxBytes, log: log, torn: torn}
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		return nil, fmt.Errorf("list queue: %w", err)
	}
	for _, path := range names {
		start, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), segmentSuffix), 10, 64)
		if err != nil || start < 0 {
			return nil, fmt.Errorf("open queue: %s is not a segment of the queue: move it elsewhere", path)
		}
		q.segments = append(q.segments, segment{start: start, path: path})
	}
	slices.SortFunc(q.segments, func(a, b segment) int { return compare(a.start, b.start) })
	for i := range q.segments {
		limit := int64(-1)
		if i+1 < len(q.segments) {
			limit = q.segments[i+1].start
		}
		if err := q.load(&q.segments[i], limit); err != nil {
			return nil, fmt.Errorf("open queue: %w", err)
		}
		q.end = q.segments[i].end()
	}
	return q, nil
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// load reads the frames of a segment into the index. Limit is where the next
// segment begins, -1 for the last one, which is cut at its first bad frame.
func (q *queue) load(s *segment, limit int64) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	there := info.Size()
	if limit >= 0 {
		there = min(there, limit-s.start)
	}
	src := bufio.NewReaderSize(io.NewSectionReader(f, 0, there), 64<<10)
	for {
		b, size, err := readFrame(src)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			q.torn()
			q.log.Warn("queue is damaged here; what follows in this segment is given up",
				"segment", s.path, "offset", s.size, "bytes_given_up", there-s.size, "error", err)
			if limit < 0 {
				if err := f.Truncate(s.size); err != nil {
					return errors.Join(fmt.Errorf("cut damaged tail: %w", err), f.Close())
				}
			}
			break
		}
		q.records = append(q.records, record{at: s.start + s.size, size: size, time: b.time, samples: b.samples})
		s.size += size
	}
	return f.Close()
}

// readFrame reads one frame. io.EOF means that there is no more.
func readFrame(r io.Reader) (batch, int64, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return batch{}, 0, errors.New("frame ends within its header")
		}
		return batch{}, 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < batchHeader || n > maxFrame {
		return batch{}, 0, fmt.Errorf("frame of %d bytes is impossible", n)
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r, rest); err != nil {
		return batch{}, 0, errors.New("frame ends early")
	}
	if crc32.Checksum(rest, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return batch{}, 0, errors.New("checksum does not match")
	}
	if rest[0] != batchFormat {
		return batch{}, 0, fmt.Errorf("batch format %d is not known to this version", rest[0])
	}
	b := batch{
		time:    int64(binary.BigEndian.Uint64(rest[1:])),
		samples: int(binary.BigEndian.Uint32(rest[9:])),
		request: rest[batchHeader:],
	}
	return b, frameHeader + int64(n), nil
}

// appendFrame appends the frame of a batch to buf.
func appendFrame(buf []byte, b batch) []byte {
	at := len(buf)
	buf = append(buf, make([]byte, frameHeader)...)
	buf = append(buf, batchFormat)
	buf = binary.BigEndian.AppendUint64(buf, uint64(b.time))
	buf = binary.BigEndian.AppendUint32(buf, uint32(b.samples))
	buf = append(buf, b.request...)
	rest := buf[at+frameHeader:]
	binary.BigEndian.PutUint32(buf[at:], uint32(len(rest)))
	binary.BigEndian.PutUint32(buf[at+4:], crc32.Checksum(rest, castagnoli))
	return buf
}

// addReader makes the queue keep what lies at or after a position.
func (q *queue) addReader(position int64, dropped func(samples int)) *reader {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &reader{position: position, dropped: dropped, wake: make(chan struct{}, 1)}
	q.readers = append(q.readers, r)
	if position > q.end {
		// The disk lost what this reader had acknowledged. New batches must not
		// lie before its position, where it would not see them.
		q.end = position
	}
	return r
}

// errTooMuch says that batches fit the queue one by one at most.
var errTooMuch = errors.New("queue samples: more at once than the queue holds")

// append writes batches and syncs them. When it returns nil they survive a
// crash; when it returns an error none of them is in the queue. The oldest
// segments are dropped where the bound would be passed.
func (q *queue) append(batches []batch) error {
	var buf []byte
	var recs []record
	for _, b := range batches {
		at := int64(len(buf))
		buf = appendFrame(buf, b)
		size := int64(len(buf)) - at
		if size > maxFrame {
			return fmt.Errorf("queue samples: a batch of %d bytes is larger than the queue takes (%d)", size, maxFrame)
		}
		recs = append(recs, record{at: at, size: size, time: b.time, samples: b.samples})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if int64(len(buf)) > q.maxBytes && len(batches) > 1 {
		return errTooMuch
	}
	if int64(len(buf)) > q.maxBytes {
		return fmt.Errorf("queue samples: %d bytes at once do not fit the queue of %d bytes", len(buf), q.maxBytes)
	}
	q.makeRoom(int64(len(buf)))
	err := q.write(buf, recs)
	if err != nil && q.readByAll() && len(q.segments) > 0 {
		// On a full disk our own bytes that nobody needs any more are the first
		// to give back.
		q.removeAll()
		err = q.write(buf, recs)
	}
	if err != nil {
		return fmt.Errorf("queue samples: %w", err)
	}
	for _, r := range q.readers {
		select {
		case r.wake <- struct{}{}:
		default: // it is awake already
		}
	}
	return nil
}

// readByAll says whether every reader has acknowledged all that is queued.
func (q *queue) readByAll() bool {
	for _, r := range q.readers {
		if r.position < q.end {
			return false
		}
	}
	return true
}

func (q *queue) removeAll() {
	for len(q.segments) > 0 {
		q.removeFirst()
	}
}

// write brings encoded frames to the disk and into the index, or neither.
func (q *queue) write(buf []byte, recs []record) error {
	if err := q.openSegment(int64(len(buf))); err != nil {
		return err
	}
	s := &q.segments[len(q.segments)-1]
	_, err := q.file.WriteAt(buf, s.size)
	if err == nil {
		err = q.file.Sync()
	}
	if err != nil {
		// What is on the disk now is not known. Cut it off, and begin a new
		// segment either way: after a failed sync the pages of this file are
		// not to be trusted.
		err = errors.Join(err, q.file.Truncate(s.size), q.file.Close())
		q.file, q.spoilt = nil, true
		if s.size == 0 {
			err = errors.Join(err, os.Remove(s.path))
			q.segments = q.segments[:len(q.segments)-1]
		}
		return err
	}
	for _, r := range recs {
		r.at += q.end
		q.records = append(q.records, r)
	}
	s.size += int64(len(buf))
	q.end += int64(len(buf))
	return nil
}

// openSegment makes q.file the end of the last segment, a new one where that
// is full, ends elsewhere, or is not open.
func (q *queue) openSegment(need int64) error {
	if n := len(q.segments); n > 0 {
		s := q.segments[n-1]
		if !q.spoilt && s.end() == q.end && (s.size == 0 || s.size+need <= q.maxBytes/segmentsPerQueue) {
			if q.file != nil {
				return nil
			}
			f, err := os.OpenFile(s.path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			q.file = f
			return nil
		}
	}
	if q.file != nil {
		f := q.file
		q.file = nil
		if err := f.Close(); err != nil {
			return err
		}
	}
	path := filepath.Join(q.dir, fmt.Sprintf("%020d%s", q.end, segmentSuffix))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if err := ops.SyncDir(q.dir); err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	q.file, q.spoilt = f, false
	q.segments = append(q.segments, segment{start: q.end, path: path})
	return nil
}

// makeRoom drops the oldest segments until need bytes more fit the bound.
func (q *queue) makeRoom(need int64) {
	for len(q.segments) > 0 {
		var total int64
		for _, s := range q.segments {
			total += s.size
		}
		if total+need <= q.maxBytes {
			return
		}
		s := q.segments[0]
		for _, r := range q.readers {
			n := 0
			for _, rec := range q.records {
				if rec.at >= s.end() {
					break
				}
				if rec.at >= r.position && (rec.at < r.busyFrom || rec.at >= r.busyTo) {
					n += rec.samples
				}
			}
			r.position = max(r.position, s.end())
			if n > 0 {
				r.dropped(n)
			}
		}
		q.log.Warn("queue is full; its oldest samples are dropped", "segment", s.path, "bytes", s.size, "limit_bytes", q.maxBytes)
		q.removeFirst()
	}
}

// removeFirst forgets the oldest segment and deletes its file. A file that
// stays is found again at the next start, and its batches are sent once more,
// which destinations take as duplicates.
func (q *queue) removeFirst() {
	s := q.segments[0]
	if len(q.segments) == 1 && q.file != nil {
		if err := q.file.Close(); err != nil {
			q.log.Warn("close queue segment", "segment", s.path, "error", err)
		}
		q.file = nil
	}
	q.segments = q.segments[1:]
	i := sort.Search(len(q.records), func(i int) bool { return q.records[i].at >= s.end() })
	q.records = slices.Clone(q.records[i:])
	if err := os.Remove(s.path); err != nil {
		q.log.Warn("remove queue segment", "segment", s.path, "error", err)
	}
}

// next returns the oldest records that the reader has not acknowledged, at
// least one and as many more as stay below the bounds, and marks them busy. It
// returns none where nothing waits.
func (q *queue) next(r *reader, samples int, bytes int64) []record {
	q.mu.Lock()
	defer q.mu.Unlock()
	from := sort.Search(len(q.records), func(i int) bool { return q.records[i].at >= r.position })
	if from == len(q.records) {
		return nil
	}
	to := from
	for to < len(q.records) {
		samples -= q.records[to].samples
		bytes -= q.records[to].size
		if to > from && (samples < 0 || bytes < 0) {
			break
		}
		to++
	}
	recs := slices.Clone(q.records[from:to])
	r.busyFrom, r.busyTo = recs[0].at, recs[len(recs)-1].end()
	return recs
}

// read returns the batch of a record. An error means that it is lost: the disk
// does not give back what was written, or the segment was dropped meanwhile.
func (q *queue) read(rec record) (batch, error) {
	q.mu.Lock()
	i := sort.Search(len(q.segments), func(i int) bool { return q.segments[i].end() > rec.at })
	if i == len(q.segments) {
		q.mu.Unlock()
		return batch{}, errors.New("read queue: the record was dropped")
	}
	s := q.segments[i]
	q.mu.Unlock()
	f, err := os.Open(s.path)
	if err != nil {
		return batch{}, fmt.Errorf("read queue: %w", err)
	}
	b, _, err := readFrame(io.NewSectionReader(f, rec.at-s.start, rec.size))
	if err := errors.Join(err, f.Close()); err != nil {
		return batch{}, fmt.Errorf("read queue: %s at %d: %w", s.path, rec.at-s.start, err)
	}
	return b, nil
}

// done moves the reader past a record that has its verdict and all before it,
// removes segments that no reader needs, and says whether the reader has
// nothing left to do.
func (q *queue) done(r *reader, rec record) (empty bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.busyFrom, r.busyTo = 0, 0
	r.position = max(r.position, rec.end())
	needed := q.end
	for _, x := range q.readers {
		needed = min(needed, x.position)
	}
	for len(q.segments) > 1 && q.segments[0].end() <= needed {
		q.removeFirst()
	}
	if len(q.segments) == 1 && q.segments[0].end() <= needed && q.segments[0].size >= keepBytes {
		q.removeFirst() // the next append begins a new one
	}
	return len(q.records) == 0 || q.records[len(q.records)-1].at < r.position
}

// position returns the reader's place.
func (q *queue) position(r *reader) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return r.position
}

// release takes the mark off records that got no verdict.
func (q *queue) release(r *reader) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.busyFrom, r.busyTo = 0, 0
}

// waiting is what a reader has not acknowledged.
type waiting struct {
	bytes   int64
	samples int
	oldest  int64 // ms since the epoch; 0 where nothing waits
}

func (q *queue) waiting(r *reader) waiting {
	q.mu.Lock()
	defer q.mu.Unlock()
	var w waiting
	i := sort.Search(len(q.records), func(i int) bool { return q.records[i].at >= r.position })
	for _, rec := range q.records[i:] {
		w.bytes += rec.size
		w.samples += rec.samples
		if w.oldest == 0 || rec.time < w.oldest {
			w.oldest = rec.time
		}
	}
	return w
}

// close closes the open segment.
func (q *queue) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.file == nil {
		return nil
	}
	f := q.file
	q.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close queue: %w", err)
	}
	return nil
}
