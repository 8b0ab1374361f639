package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

// formatVersion is the version of the key space. Version 1 had no sealed days: a
// program that knows it alone would miss them.
const formatVersion = 2

// Config says where the book lies.
type Config struct {
	// Dir is the folder of the book. The process that opens it holds it alone.
	Dir string
	// ReadOnly opens a book that nobody else holds without changing it.
	ReadOnly bool
}

// Entry is one booked minute, or one revision of it.
type Entry struct {
	Objective sla.ID
	Minute    sla.Minute
	// Figures are the minute's, or with Revision the signed differences and the
	// flags that the minute has from then on.
	Figures  sla.Figures
	Revision bool
	Reason   string // of a revision
	Author   string
}

// Source is a target that feeds an objective (R9, R14). Times are milliseconds
// since the epoch.
type Source struct {
	Objective sla.ID `json:"objective_id"`
	Key       string `json:"key"` // job, instance and cluster, with zero bytes between
	First     int64  `json:"first"`
	Removed   int64  `json:"removed,omitempty"` // 0 while it is expected
	Reason    string `json:"reason,omitempty"`
}

// Batch is what is booked together, all or nothing (R25).
type Batch struct {
	Term       uint64 // of the writer, not below that of the batch before
	At         int64  // time of booking, milliseconds since the epoch
	Objectives []sla.Objective
	Sources    []Source
	Entries    []Entry
	Marks      []Mark
}

// Position names a batch: the newest of the book, or that of an entry.
type Position struct {
	Term, Seq uint64
	At        int64 // milliseconds since the epoch
	Hash      [32]byte
}

// Conflict is a second first booking of a minute with another value: a bug of
// the writer, or two writers (R25).
type Conflict struct {
	Objective      sla.ID
	Minute         sla.Minute
	Booked, Second sla.Figures
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("minute %s of objective %s is booked as %+v and may not be booked again as %+v: send a revision, or find the second writer",
		c.Minute.Time().Format("2006-01-02T15:04Z"), c.Objective, c.Booked, c.Second)
}

// Dropped is an entry for a minute that retention has removed: what is not in
// the book any more can be neither compared nor corrected.
type Dropped struct {
	Objective sla.ID
	Minute    sla.Minute
	Kept      sla.Minute // the first minute that is kept
}

func (d *Dropped) Error() string {
	return fmt.Sprintf("minute %s of objective %s can't be booked: retention has removed all before %s: leave it out, or keep the ledger longer than samples may be late",
		d.Minute.Time().Format("2006-01-02T15:04Z"), d.Objective, d.Kept.Time().Format("2006-01-02"))
}

// Book is an open ledger. Its methods may be called at the same time.
type Book struct {
	db   *pebble.DB
	lock *ops.FolderLock
	log  *slog.Logger

	write sync.Mutex // held by the one who changes the store

	mu   sync.RWMutex // of what follows; a writer reads it without
	head Position
	last map[sla.ID]sla.Minute
	kept sla.Minute // the first minute that is kept
	// The days of an objective with first bookings beside blocks, and those with
	// revisions: 4 bytes each.
	loose, revised map[sla.ID]days
	noted          uint64 // how often days were added to loose
	// The newest batches, and what is closed when there is one more.
	recent     []filled
	recentSize int
	changed    chan struct{}

	disk    vfs.FS
	dir     string
	fault   atomic.Pointer[error] // that the store can't go on after
	opened  atomic.Bool
	closing chan struct{}  // closed by Close
	users   sync.WaitGroup // those whom Close waits for
}

// Open opens or creates the book. A folder that another process holds gives an
// *ops.HeldError.
func Open(cfg Config, log *slog.Logger) (*Book, error) { return openOn(vfs.Default, cfg, log) }

// openOn opens a book whose store lies in another file system than its lock:
// tests cut the power of one in memory.
func openOn(disk vfs.FS, cfg Config, log *slog.Logger) (_ *Book, err error) {
	defer func() {
		if err == nil {
			return
		}
		err = fmt.Errorf("open the ledger: %w", err)
		if errors.As(err, new(unopened)) || pebble.IsCorruptionError(err) || errors.Is(err, errCorrupt) {
			err = fmt.Errorf("%w: %s is damaged: put a backup of it in its place, or move it away to begin a new book, for which minutes are counted again from the samples that are left", err, cfg.Dir)
		}
		err = ops.Remedy(err)
	}()
	b := &Book{log: log, last: map[sla.ID]sla.Minute{}, kept: math.MinInt64, loose: map[sla.ID]days{}, revised: map[sla.ID]days{}, changed: make(chan struct{}), closing: make(chan struct{}), disk: disk, dir: cfg.Dir}
	if cfg.ReadOnly {
		if _, err := disk.Stat(cfg.Dir + "/book"); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no book is in %s: name the folder that the aggregator writes: %w", cfg.Dir, err)
		}
	}
	if b.lock, err = ops.LockFolder(cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	b.db, err = openBase(cfg.Dir+"/book", &pebble.Options{
		// Small: a minute of 10,000 objectives is 100 KB.
		MemTableSize:       8 << 20,
		CacheSize:          8 << 20,
		MaxOpenFiles:       256,
		FormatMajorVersion: pebble.FormatNewest,
		ReadOnly:           cfg.ReadOnly,
		FS:                 disk,
		Logger:             pebbleLog{b},
		EventListener: &pebble.EventListener{
			// The one who reads gets the error; nobody dies of it.
			DataCorruption:  func(i pebble.DataCorruptionInfo) { log.Error("ledger base: " + i.String()) },
			BackgroundError: func(err error) { log.Error("ledger base can't write", "error", err) },
		},
	})
	if err != nil {
		return nil, err
	}
	version, err := b.get([]byte("v"))
	switch {
	case err != nil:
		return nil, err
	case (version == nil || bytes.Equal(version, []byte{1})) && !cfg.ReadOnly:
		if err := b.db.Set([]byte("v"), []byte{formatVersion}, pebble.Sync); err != nil {
			return nil, err
		}
		// The base begins the first log of a new store in its oldest format,
		// which can't tell damage in the middle from a torn end: the next log
		// can.
		if err := b.db.Flush(); err != nil {
			return nil, err
		}
	case version != nil && (len(version) != 1 || version[0] < 1 || version[0] > formatVersion):
		return nil, fmt.Errorf("its format is %x and this program reads up to %d: use the program that wrote it", version, formatVersion)
	}
	if err := b.loadHead(); err != nil {
		return nil, err
	}
	if err := b.loadKept(); err != nil {
		return nil, err
	}
	if err := b.loadDays('e', b.loose); err != nil {
		return nil, err
	}
	if err := b.loadDays('r', b.revised); err != nil {
		return nil, err
	}
	b.opened.Store(true)
	return b, b.loadLast()
}

// unopened is an error of the store that is not one of the operating system: a
// file of it is missing, or has another size or content than it should.
type unopened struct{ error }

func (u unopened) Unwrap() error { return u.error }

func openBase(dir string, opts *pebble.Options) (_ *pebble.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(fatal)
			if !ok {
				panic(p)
			}
			err = f
		}
		if err != nil && (errors.Is(err, fs.ErrNotExist) || !errors.As(err, new(syscall.Errno))) {
			err = unopened{err}
		}
	}()
	return pebble.Open(dir, opts)
}

// Close gives the folder back.
func (b *Book) Close() error {
	b.mu.Lock()
	select {
	case <-b.closing:
	default:
		close(b.closing)
	}
	b.mu.Unlock()
	b.users.Wait()
	b.opened.Store(false)
	var errs []error
	// A store that failed may hold its own locks for ever: it is left alone.
	if b.db != nil && b.failed() == nil {
		errs = append(errs, b.closeBase())
		b.db = nil
	}
	errs = append(errs, b.lock.Unlock())
	return errors.Join(errs...)
}

func (b *Book) closeBase() (err error) {
	defer func() {
		if p := recover(); p != nil {
			b.fail(p)
			err = b.failed()
		}
	}()
	return b.db.Close()
}

func (b *Book) get(key []byte) ([]byte, error) {
	v, closer, err := b.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := append([]byte{}, v...)
	return out, closer.Close()
}

func (b *Book) loadHead() error {
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: []byte("b"), UpperBound: []byte("c")})
	if err != nil {
		return err
	}
	defer it.Close()
	if it.Last() {
		h, err := decodeHeader(it.Key(), it.Value())
		if err != nil {
			return err
		}
		b.head = h.Position
	}
	return it.Error()
}

// loadLast finds the newest minutes: the last entry or, where that was sealed or
// dropped, what was noted then.
func (b *Book) loadLast() error {
	err := b.each([]byte("l"), []byte("m"), func(k, v []byte) error {
		if len(k) != 9 || len(v) != 8 {
			return fmt.Errorf("%w: newest minute of an objective", errCorrupt)
		}
		var id sla.ID
		copy(id[:], k[1:])
		b.last[id] = sla.Minute(binary.BigEndian.Uint64(v))
		return nil
	})
	if err != nil {
		return err
	}
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: []byte("e"), UpperBound: []byte("f")})
	if err != nil {
		return err
	}
	for id, all := range b.loose {
		var m sla.Minute
		if !it.SeekLT(after(dayKey('e', int64(all[len(all)-1]), id))) {
			break
		}
		if _, m, _, err = parseMinuteKey(it.Key()); err != nil {
			break
		}
		if old, ok := b.last[id]; !ok || m > old {
			b.last[id] = m
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

func (b *Book) loadKept() error {
	v, err := b.get([]byte("d"))
	if err != nil || v == nil {
		return err
	}
	if len(v) != 5 || v[0] != valueVersion {
		return fmt.Errorf("%w: first day that is kept", errCorrupt)
	}
	b.kept = sla.Minute((int64(binary.BigEndian.Uint32(v[1:])) - 1<<31) * 1440)
	return nil
}

// each calls fn for all keys in [from, to). Key and value are valid during the
// call alone.
func (b *Book) each(from, to []byte, fn func(k, v []byte) error) error {
	return eachIn(b.db, from, to, fn)
}

// loadDays finds the days with entries by leaping from one to the next.
func (b *Book) loadDays(prefix byte, into map[sla.ID]days) error {
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; {
		var id sla.ID
		var m sla.Minute
		if id, m, _, err = parseMinuteKey(it.Key()); err == nil {
			// Days come in their order, and days is written by nobody else yet.
			into[id] = append(into[id], int32(m.Day()))
			ok = it.SeekGE(after(dayKey(prefix, m.Day(), id)))
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

// Head returns the newest batch.
func (b *Book) Head() Position {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.head
}

// Position returns a batch of the book.
func (b *Book) Position(seq uint64) (Position, error) {
	v, err := b.get(batchKey(seq))
	if err != nil {
		return Position{}, fmt.Errorf("read batch %d: %w", seq, err)
	}
	if v == nil {
		return Position{}, fmt.Errorf("the ledger has no batch %d, the newest one is %d", seq, b.Head().Seq)
	}
	h, err := decodeHeader(batchKey(seq), v)
	return h.Position, err
}

// LastMinute returns an objective's newest first-booked minute.
func (b *Book) LastMinute(id sla.ID) (sla.Minute, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m, ok := b.last[id]
	return m, ok
}

// Objectives returns the definitions as of a batch (0: now), in the order of
// their identities.
func (b *Book) Objectives(asOf uint64) ([]sla.Objective, error) {
	var out []sla.Objective
	err := b.each([]byte("o"), []byte("p"), func(k, v []byte) error {
		if len(k) != 17 || len(v) == 0 || v[0] != valueVersion {
			return fmt.Errorf("%w: definition of an objective", errCorrupt)
		}
		if asOf != 0 && binary.BigEndian.Uint64(k[9:]) > asOf {
			return nil
		}
		var o sla.Objective
		if err := json.Unmarshal(v[1:], &o); err != nil {
			return fmt.Errorf("%w: definition of objective %x: %w", errCorrupt, k[1:9], err)
		}
		if n := len(out); n > 0 && out[n-1].ID == o.ID {
			out[n-1] = o
		} else {
			out = append(out, o)
		}
		return nil
	})
	return out, err
}

// Sources returns the sources of an objective, one for each time in which it
// was expected (R14), in its newest version, by key and then by first sample.
func (b *Book) Sources(id sla.ID) ([]Source, error) {
	var out []Source
	prefix := append([]byte("s"), id[:]...)
	err := b.each(prefix, after(prefix), func(_, v []byte) error {
		if len(v) == 0 || v[0] != valueVersion {
			return fmt.Errorf("%w: source of an objective", errCorrupt)
		}
		var s Source
		if err := json.Unmarshal(v[1:], &s); err != nil {
			return fmt.Errorf("%w: source of objective %s: %w", errCorrupt, id, err)
		}
		for i := len(out) - 1; i >= 0 && out[i].Key == s.Key; i-- {
			if out[i].First == s.First {
				out[i] = s
				return nil
			}
		}
		out = append(out, s)
		return nil
	})
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].Key != out[j].Key {
			return out[i].Key < out[j].Key
		}
		return out[i].First < out[j].First
	})
	return out, err
}

// String names a position for people.
func (p Position) String() string {
	return fmt.Sprintf("batch %d of term %d, %s", p.Seq, p.Term, hex.EncodeToString(p.Hash[:8]))
}
