package ledger

import (
	"bytes"
	"crypto/sha256"
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

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

// formatVersion is the version of the key space.
const formatVersion = 1

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
	// Figures are the minute's, or with Revision the signed differences.
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

	mu   sync.RWMutex // held for writing while a batch is appended
	head Position
	last map[sla.ID]sla.Minute
	kept sla.Minute // the first minute that is kept
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
		if pebble.IsCorruptionError(err) || errors.Is(err, errCorrupt) {
			err = fmt.Errorf("%w: %s is damaged: put a backup of it in its place, or move it away to begin a new book, for which minutes are counted again from the samples that are left", err, cfg.Dir)
		}
		err = ops.Remedy(err)
	}()
	b := &Book{log: log, last: map[sla.ID]sla.Minute{}, kept: math.MinInt64}
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
	b.db, err = pebble.Open(cfg.Dir+"/book", &pebble.Options{
		// Small: a minute of 10,000 objectives is 100 KB.
		MemTableSize:       8 << 20,
		CacheSize:          8 << 20,
		MaxOpenFiles:       256,
		FormatMajorVersion: pebble.FormatNewest,
		ReadOnly:           cfg.ReadOnly,
		FS:                 disk,
		Logger:             pebbleLog{log},
	})
	if err != nil {
		return nil, err
	}
	version, err := b.get([]byte("v"))
	switch {
	case err != nil:
		return nil, err
	case version == nil && !cfg.ReadOnly:
		if err := b.db.Set([]byte("v"), []byte{formatVersion}, pebble.Sync); err != nil {
			return nil, err
		}
		// The base begins the first log of a new store in its oldest format,
		// which can't tell damage in the middle from a torn end: the next log
		// can.
		if err := b.db.Flush(); err != nil {
			return nil, err
		}
	case version != nil && !bytes.Equal(version, []byte{formatVersion}):
		return nil, fmt.Errorf("its format is %x and this program reads %d: use the program that wrote it", version, formatVersion)
	}
	if err := b.loadHead(); err != nil {
		return nil, err
	}
	if err := b.loadKept(); err != nil {
		return nil, err
	}
	return b, b.loadLast()
}

// Close gives the folder back.
func (b *Book) Close() error {
	var errs []error
	if b.db != nil {
		errs = append(errs, b.db.Close())
		b.db = nil
	}
	errs = append(errs, b.lock.Unlock())
	return errors.Join(errs...)
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

func (b *Book) loadLast() error {
	return b.each([]byte("l"), []byte("m"), func(k, v []byte) error {
		if len(k) != 9 || len(v) != 8 {
			return fmt.Errorf("%w: newest minute of an objective", errCorrupt)
		}
		var id sla.ID
		copy(id[:], k[1:])
		b.last[id] = sla.Minute(binary.BigEndian.Uint64(v))
		return nil
	})
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
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := fn(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}

// Head returns the newest batch.
func (b *Book) Head() Position {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.head
}

// LastMinute returns an objective's newest first-booked minute.
func (b *Book) LastMinute(id sla.ID) (sla.Minute, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m, ok := b.last[id]
	return m, ok
}

// header is a batch without its entries.
type header struct {
	Position
	count             uint64
	firstDay, lastDay int64
	before            [32]byte
}

func (h header) encode() []byte {
	v := []byte{valueVersion}
	v = binary.AppendUvarint(v, h.Term)
	v = binary.AppendVarint(v, h.At)
	v = binary.AppendUvarint(v, h.count)
	v = binary.AppendVarint(v, h.firstDay)
	v = binary.AppendVarint(v, h.lastDay)
	v = append(v, h.before[:]...)
	return append(v, h.Hash[:]...)
}

func batchKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte("b"), seq) }

func decodeHeader(k, v []byte) (h header, err error) {
	fail := func() (header, error) {
		return header{}, fmt.Errorf("%w: header of batch, key %x", errCorrupt, k)
	}
	if len(k) != 9 || k[0] != 'b' || len(v) == 0 || v[0] != valueVersion {
		return fail()
	}
	h.Seq = binary.BigEndian.Uint64(k[1:])
	r := bytes.NewReader(v[1:])
	var errs [5]error
	h.Term, errs[0] = binary.ReadUvarint(r)
	h.At, errs[1] = binary.ReadVarint(r)
	h.count, errs[2] = binary.ReadUvarint(r)
	h.firstDay, errs[3] = binary.ReadVarint(r)
	h.lastDay, errs[4] = binary.ReadVarint(r)
	if errors.Join(errs[:]...) != nil || r.Len() != 64 {
		return fail()
	}
	copy(h.before[:], v[len(v)-64:])
	copy(h.Hash[:], v[len(v)-32:])
	return h, nil
}

// hashing is the hash of a batch, fed with its keys and values in order.
type hashing struct {
	sum interface {
		Write([]byte) (int, error)
		Sum([]byte) []byte
	}
}

func newHashing(h header) hashing {
	s := hashing{sha256.New()}
	s.sum.Write(h.before[:])
	var b []byte
	b = binary.BigEndian.AppendUint64(b, h.Term)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(h.At))
	b = binary.BigEndian.AppendUint64(b, h.count)
	s.sum.Write(b)
	return s
}

func (s hashing) add(k, v []byte) {
	var n [8]byte
	for _, x := range [][]byte{k, v} {
		binary.BigEndian.PutUint64(n[:], uint64(len(x)))
		s.sum.Write(n[:])
		s.sum.Write(x)
	}
}

func (s hashing) done() (h [32]byte) {
	copy(h[:], s.sum.Sum(nil))
	return h
}

type pair struct{ k, v []byte }

// Append books a batch: atomic, synced, chained to the one before. A first
// booking that is in the book already with the same value is left out; with
// another value the whole batch is refused with a *Conflict. A batch in which
// nothing is new books nothing and returns the head, and so does the newest
// batch sent again, with its time and its revisions, after a lost answer.
func (b *Book) Append(batch Batch) (Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if batch.Term < b.head.Term {
		return b.head, fmt.Errorf("term %d is over, the book is at term %d: another writer took over", batch.Term, b.head.Term)
	}
	if again, err := b.isHead(batch); again || err != nil {
		return b.head, err
	}
	h := header{before: b.head.Hash}
	h.Term, h.Seq, h.At = batch.Term, b.head.Seq+1, batch.At
	pairs, last, err := b.contents(batch, &h)
	if err != nil || len(pairs) == 0 {
		return b.head, err
	}
	w := b.db.NewBatch()
	defer w.Close()
	var errs []error
	for _, p := range pairs {
		errs = append(errs, w.Set(p.k, p.v, nil))
	}
	errs = append(errs, w.Set(batchKey(h.Seq), h.encode(), nil))
	for id, m := range last {
		if old, ok := b.last[id]; ok && old >= m {
			delete(last, id)
			continue
		}
		errs = append(errs, w.Set(append([]byte("l"), id[:]...), binary.BigEndian.AppendUint64(nil, uint64(m)), nil))
	}
	if err := errors.Join(append(errs, w.Commit(pebble.Sync))...); err != nil {
		return b.head, ops.Remedy(fmt.Errorf("write a batch to the ledger: %w", err))
	}
	b.head = h.Position
	for id, m := range last {
		b.last[id] = m
	}
	return b.head, nil
}

// isHead reports whether a batch is the newest one of the book. Revisions have
// the sequence in their keys, so that their keys alone do not tell.
func (b *Book) isHead(batch Batch) (bool, error) {
	if b.head.Seq == 0 || batch.Term != b.head.Term || batch.At != b.head.At {
		return false, nil
	}
	k := batchKey(b.head.Seq)
	v, err := b.get(k)
	if err != nil {
		return false, fmt.Errorf("read the newest batch: %w", err)
	}
	h, err := decodeHeader(k, v)
	if err != nil {
		return false, err
	}
	if _, _, err := b.contents(batch, &h); err != nil {
		return false, err
	}
	return h.Hash == b.head.Hash, nil
}

// contents returns what a batch books under the sequence of h, in order, and
// the newest minute of each objective in it. First bookings of earlier batches
// are left out. It sets the count, the days and the hash of h.
func (b *Book) contents(batch Batch, h *header) ([]pair, map[sla.ID]sla.Minute, error) {
	var pairs []pair
	var err error
	last := map[sla.ID]sla.Minute{}
	h.firstDay, h.lastDay = 0, 0
	for _, e := range batch.Entries {
		day := e.Minute.Day()
		if day != int64(int32(day)) {
			return nil, nil, fmt.Errorf("minute %d of objective %s is millions of years away: look for a time stamp in a wrong unit", e.Minute, e.Objective)
		}
		if e.Minute < b.kept {
			return nil, nil, &Dropped{e.Objective, e.Minute, b.kept}
		}
		seq := uint64(0)
		if e.Revision {
			seq = h.Seq
		}
		k := minuteKey(e.Objective, e.Minute, seq)
		if !e.Revision {
			// A minute behind the newest one is not in the book.
			var old []byte
			if newest, ok := b.last[e.Objective]; ok && e.Minute <= newest {
				if old, err = b.get(k); err != nil {
					return nil, nil, fmt.Errorf("look for an earlier booking: %w", err)
				}
			}
			if old != nil {
				booked, err := decodeBooking(e.Minute, old)
				if err != nil {
					return nil, nil, err
				}
				again := booking{seq: booked.seq, figures: e.Figures, reason: e.Reason, author: e.Author}
				if !bytes.Equal(encodeBooking(e.Minute, again), old) {
					return nil, nil, &Conflict{e.Objective, e.Minute, booked.figures, e.Figures}
				}
				if booked.seq != h.Seq {
					continue
				}
			}
			if m, ok := last[e.Objective]; !ok || e.Minute > m {
				last[e.Objective] = e.Minute
			}
		}
		if len(pairs) == 0 || day < h.firstDay {
			h.firstDay = day
		}
		if len(pairs) == 0 || day > h.lastDay {
			h.lastDay = day
		}
		pairs = append(pairs, pair{k, encodeBooking(e.Minute, booking{h.Seq, e.Figures, e.Reason, e.Author})})
	}
	for _, o := range batch.Objectives {
		v, err := json.Marshal(o)
		if err != nil {
			return nil, nil, fmt.Errorf("encode objective %s: %w", o.ID, err)
		}
		pairs = append(pairs, pair{objectiveKey(o.ID, h.Seq), append([]byte{valueVersion}, v...)})
	}
	for _, s := range batch.Sources {
		v, err := json.Marshal(s)
		if err != nil {
			return nil, nil, fmt.Errorf("encode source %q: %w", s.Key, err)
		}
		pairs = append(pairs, pair{sourceKey(s, h.Seq), append([]byte{valueVersion}, v...)})
	}
	marks, err := b.markPairs(batch.Marks, h.Seq)
	if err != nil {
		return nil, nil, err
	}
	pairs = append(pairs, marks...)
	sort.Slice(pairs, func(i, j int) bool { return bytes.Compare(pairs[i].k, pairs[j].k) < 0 })
	h.count = uint64(len(pairs))
	sum := newHashing(*h)
	for i, p := range pairs {
		if i > 0 && bytes.Equal(p.k, pairs[i-1].k) {
			return nil, nil, fmt.Errorf("one batch books %x twice", p.k)
		}
		sum.add(p.k, p.v)
	}
	h.Hash = sum.done()
	return pairs, last, nil
}

// DropBefore removes the minutes of the UTC days that ended by m, with their
// revisions, atomic and synced: days are dropped whole, as they are sealed
// (R27), so that the day of m stays. Definitions, sources, newest minutes and
// the chain stay too. From then on a batch with an entry of a dropped day is
// refused with a *Dropped. What is dropped already, and an empty book, are left
// as they are. A day behind that of the newest minute is an error.
func (b *Book) DropBefore(m sla.Minute) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	day := m.Day()
	if len(b.last) == 0 || day <= b.kept.Day() || day <= math.MinInt32 {
		return nil
	}
	newest := sla.Minute(math.MinInt64)
	for _, l := range b.last {
		newest = max(newest, l)
	}
	if day > newest.Day() {
		return fmt.Errorf("drop all minutes before %s: the newest one of the ledger is %s: look at this host's clock and at the ledger's retention",
			m.Time().Format("2006-01-02"), newest.Time().Format("2006-01-02T15:04Z"))
	}
	w := b.db.NewBatch()
	defer w.Close()
	err := errors.Join(
		w.DeleteRange([]byte("e"), dayPrefix('e', day), nil),
		w.DeleteRange([]byte("r"), dayPrefix('r', day), nil),
		w.Set([]byte("d"), dayPrefix(valueVersion, day), nil),
		w.Commit(pebble.Sync),
	)
	if err != nil {
		return ops.Remedy(fmt.Errorf("drop old minutes of the ledger: %w", err))
	}
	b.kept = sla.Minute(day * 1440)
	return nil
}

func objectiveKey(id sla.ID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte("o"), id[:]...), seq)
}

func sourceKey(s Source, seq uint64) []byte {
	sum := sha256.Sum256([]byte(s.Key))
	k := append([]byte("s"), s.Objective[:]...)
	k = binary.BigEndian.AppendUint64(append(k, sum[:8]...), uint64(s.First)^1<<63)
	return binary.BigEndian.AppendUint64(k, seq)
}

// Minute returns a minute with all of its revisions, false where it is not
// booked.
func (b *Book) Minute(id sla.ID, m sla.Minute) (sla.Figures, bool, error) {
	var f sla.Figures
	found := false
	err := b.Scan(id, m, m+1, 0, func(_ sla.Minute, got sla.Figures) error {
		f, found = got, true
		return nil
	})
	return f, found, err
}

// Scan calls fn for each booked minute in [from, to), ascending, with its
// revisions merged in: as of a batch, or with asOf 0 as of now. It returns the
// first error, also that of fn.
func (b *Book) Scan(id sla.ID, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error {
	if from >= to {
		return nil
	}
	snap := b.db.NewSnapshot()
	defer snap.Close()
	for day := from.Day(); day <= (to - 1).Day(); day++ {
		if err := b.scanDay(snap, id, day, max(from, sla.Minute(day*1440)), min(to, sla.Minute((day+1)*1440)), asOf, fn); err != nil {
			return err
		}
	}
	return nil
}

func (b *Book) scanDay(snap *pebble.Snapshot, id sla.ID, day int64, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error {
	revisions := map[sla.Minute][]sla.Figures{}
	err := eachIn(snap, minuteKey(id, from, 1)[:15], endOf('r', day, id, to), func(k, v []byte) error {
		_, m, _, err := parseMinuteKey(k)
		if err != nil {
			return err
		}
		r, err := decodeBooking(m, v)
		if err != nil {
			return err
		}
		if asOf == 0 || r.seq <= asOf {
			revisions[m] = append(revisions[m], r.figures)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read revisions: %w", err)
	}
	return eachIn(snap, minuteKey(id, from, 0), endOf('e', day, id, to), func(k, v []byte) error {
		_, m, _, err := parseMinuteKey(k)
		if err != nil {
			return err
		}
		e, err := decodeBooking(m, v)
		if err != nil {
			return err
		}
		if asOf != 0 && e.seq > asOf {
			return nil
		}
		f := e.figures
		for _, r := range revisions[m] {
			f.Counts = f.Counts.Add(r.Counts)
			f.Flags |= r.Flags
			f.Gaps = mergeGaps(f.Gaps, r.Gaps)
		}
		return fn(m, f)
	})
}

// endOf returns the first key behind the minutes of a day before to.
func endOf(prefix byte, day int64, id sla.ID, to sla.Minute) []byte {
	if to == sla.Minute((day+1)*1440) {
		return after(dayKey(prefix, day, id))
	}
	k := minuteKey(id, to, 0)
	k[0] = prefix
	return k
}

func eachIn(snap *pebble.Snapshot, from, to []byte, fn func(k, v []byte) error) error {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := fn(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}

// mergeGaps adds signed gaps; those that come to nothing are left out.
func mergeGaps(a, b []sla.Gap) []sla.Gap {
	out := append([]sla.Gap(nil), a...)
next:
	for _, g := range b {
		for i := range out {
			if out[i].From == g.From && out[i].To == g.To {
				out[i].GoodLow += g.GoodLow
				out[i].GoodHigh += g.GoodHigh
				out[i].Total += g.Total
				continue next
			}
		}
		out = append(out, g)
	}
	kept := out[:0]
	for _, g := range out {
		if g.GoodLow != 0 || g.GoodHigh != 0 || g.Total != 0 {
			kept = append(kept, g)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	sort.Slice(kept, func(i, j int) bool {
		if kept[i].From != kept[j].From {
			return kept[i].From < kept[j].From
		}
		return kept[i].To < kept[j].To
	})
	return kept
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

// pebbleLog hands the base's messages to ours.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(format string, args ...any) {
	l.log.Debug(fmt.Sprintf("ledger base: "+format, args...))
}
func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf("ledger base: "+format, args...))
}

// Fatalf is called when the base cannot go on, as with a disk that fails below
// it: going on would book what may not be durable.
func (l pebbleLog) Fatalf(format string, args ...any) {
	msg := fmt.Sprintf("ledger base: "+format, args...)
	l.log.Error(msg)
	panic(msg)
}

// String names a position for people.
func (p Position) String() string {
	return fmt.Sprintf("batch %d of term %d, %s", p.Seq, p.Term, hex.EncodeToString(p.Hash[:8]))
}
