package store

import (
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

const (
	// cacheBytes bounds what one cache holds: 500,000 series with 300 bytes of
	// labels need half of it.
	cacheBytes = 512 << 20
	// cacheTurn is after how long without a sample a series may be forgotten.
	cacheTurn   = 15 * time.Minute
	cacheShards = 64
	// handleBytes is about what an entry takes beside its key.
	handleBytes = 160
	// maxKeyBytes keeps series with huge labels, which are rare, out.
	maxKeyBytes = 4 << 10
)

// cache finds the handle of a series by the bytes in which a sender writes its
// labels, so that labels known already are neither built nor validated again.
//
// Each shard has two generations. What is found in the older moves to the
// younger; the older is dropped whole when the younger is full, or after
// cacheTurn. Keys are compared in full: two keys of equal hash only displace
// each other.
type cache struct {
	limit  int // bytes of one generation of one shard
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	mu         sync.Mutex
	young, old map[uint64]cached // guarded by mu, like what follows
	bytes      int               // of young
	turn       int64             // ms since the epoch, when young becomes old
	_          [64]byte          // the next shard is on another cache line
}

type cached struct {
	key    string
	handle *Handle
}

func newCache(bytes int) *cache { return &cache{limit: bytes / 2 / cacheShards} }

// find returns the handle of a key, or nil, and the key's hash.
func (c *cache) find(key []byte, now int64) (*Handle, uint64) {
	hash := xxhash.Sum64(key)
	s := &c.shards[hash%cacheShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if now >= s.turn {
		s.rotate(now)
	}
	if e, ok := s.young[hash]; ok && e.key == string(key) {
		return e.handle, hash
	}
	e, ok := s.old[hash]
	if !ok || e.key != string(key) {
		return nil, hash
	}
	s.put(hash, e, c.limit, now)
	return e.handle, hash
}

// keep adds what find did not find.
func (c *cache) keep(key []byte, hash uint64, h *Handle, now int64) {
	if len(key) > maxKeyBytes {
		return
	}
	s := &c.shards[hash%cacheShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(hash, cached{string(key), h}, c.limit, now)
}

func (s *cacheShard) put(hash uint64, e cached, limit int, now int64) {
	size := len(e.key) + handleBytes
	if s.bytes+size > limit {
		s.rotate(now)
	}
	if s.young == nil {
		s.young = make(map[uint64]cached)
	}
	if was, ok := s.young[hash]; ok {
		s.bytes -= len(was.key) + handleBytes
	}
	s.young[hash] = e
	s.bytes += size
}

func (s *cacheShard) rotate(now int64) {
	if now >= s.turn+cacheTurn.Milliseconds() {
		s.young = nil // nobody asked for this long
	}
	s.old, s.young, s.bytes = s.young, nil, 0
	s.turn = now + cacheTurn.Milliseconds()
}

// newestInBatch tells of each series the newest time in the batch at work. It
// costs no look-up by hash as long as a batch goes through references in
// order.
type newestInBatch struct {
	pages  map[uint64]*newestPage
	last   *newestPage // the page that was used last
	number uint64
	batch  uint32 // number of the batch at work
}

const (
	newestPageSize = 1024
	// maxNewestPages bounds the memory that churn leaves behind: 32 MiB.
	maxNewestPages = 2048
)

type newestPage [newestPageSize]struct {
	batch  uint32
	at     uint32 // where in the batch the newest is
	newest int64
}

// begin forgets the batch before.
func (n *newestInBatch) begin() {
	n.batch++
	if n.pages == nil || len(n.pages) > maxNewestPages || n.batch == 0 {
		n.pages, n.last, n.batch = make(map[uint64]*newestPage), nil, 1
	}
}

// note says on which side of the newest time of the series so far t lies: 1, 0
// or -1, and 1 for a series that the batch did not have. at is the sample's place
// in the batch; was is that of the newest where t is the same.
func (n *newestInBatch) note(ref uint64, t int64, at int) (after, was int) {
	if number := ref / newestPageSize; n.last == nil || n.number != number {
		p := n.pages[number]
		if p == nil {
			p = new(newestPage)
			n.pages[number] = p
		}
		n.last, n.number = p, number
	}
	e := &n.last[ref%newestPageSize]
	if e.batch != n.batch {
		e.batch, e.newest, e.at = n.batch, t, uint32(at)
		return 1, 0
	}
	switch {
	case t > e.newest:
		e.newest, e.at = t, uint32(at)
		return 1, 0
	case t == e.newest:
		return 0, int(e.at)
	}
	return -1, 0
}
