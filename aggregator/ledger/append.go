package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

type pair struct{ k, v []byte }

// Append books a batch: atomic, synced, chained to the one before. A first
// booking that is in the book already with the same value is left out; with
// another value the whole batch is refused with a *Conflict. A batch in which
// nothing is new books nothing and returns the head, and so does the newest
// batch sent again, with its time and its revisions, after a lost answer.
func (b *Book) Append(batch Batch) (Position, error) {
	b.write.Lock()
	defer b.write.Unlock()
	if batch.Term < b.head.Term {
		return b.head, fmt.Errorf("term %d is over, the book is at term %d: another writer took over", batch.Term, b.head.Term)
	}
	if again, err := b.isHead(batch); again || err != nil {
		return b.head, err
	}
	h := header{before: b.head.Hash}
	h.Term, h.Seq, h.At = batch.Term, b.head.Seq+1, batch.At
	pairs, err := b.contents(batch, &h)
	if err != nil || len(pairs) == 0 {
		return b.head, err
	}
	err = b.book(h, pairs)
	return b.head, err
}

// book writes a batch whose header is complete.
func (b *Book) book(h header, pairs []pair) error {
	last := map[sla.ID]sla.Minute{}
	loose, revised := map[sla.ID][]int64{}, map[sla.ID][]int64{}
	size := 256
	for _, p := range pairs {
		size += len(p.k) + len(p.v) + 8
		if p.k[0] != 'e' && p.k[0] != 'r' {
			continue
		}
		id, m, seq, err := parseMinuteKey(p.k)
		if err != nil {
			return err
		}
		known, fresh := b.revised, revised
		if seq == 0 {
			known, fresh = b.loose, loose
			if newest, ok := last[id]; !ok || m > newest {
				last[id] = m
			}
		}
		if day := m.Day(); !known[id].has(day) {
			fresh[id] = append(fresh[id], day)
		}
	}
	w := b.db.NewBatchWithSize(size)
	defer w.Close()
	var errs []error
	for _, p := range pairs {
		errs = append(errs, w.Set(p.k, p.v, nil))
	}
	errs = append(errs, w.Set(batchKey(h.Seq), h.encode(), nil))
	// Readers wait: the base shows a batch before it is synced.
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(loose) > 0 {
		b.noted++
	}
	note(b.loose, loose)
	note(b.revised, revised)
	if err := errors.Join(errors.Join(errs...), b.commit(w)); err != nil {
		return ops.Remedy(fmt.Errorf("write a batch to the ledger: %w", err))
	}
	b.head = h.Position
	b.remember(h, pairs)
	for id, m := range last {
		if old, ok := b.last[id]; !ok || m > old {
			b.last[id] = m
		}
	}
	return nil
}

// note adds days to those that are known.
func note(known map[sla.ID]days, fresh map[sla.ID][]int64) {
	for id, all := range fresh {
		for _, day := range all {
			known[id] = known[id].with(day)
		}
	}
}

// setLast notes the newest minute of an objective, whose entry will be deleted.
func (b *Book) setLast(w *pebble.Batch, id sla.ID) error {
	return w.Set(append([]byte("l"), id[:]...), binary.BigEndian.AppendUint64(nil, uint64(b.last[id])), nil)
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
	if _, err := b.contents(batch, &h); err != nil {
		return false, err
	}
	return h.Hash == b.head.Hash, nil
}

// contents returns what a batch books under the sequence of h, in the order of
// the keys. First bookings and marks of earlier batches are left out. It sets
// the count, the days and the hash of h.
func (b *Book) contents(batch Batch, h *header) ([]pair, error) {
	pairs := make([]pair, 0, len(batch.Entries)+len(batch.Objectives)+len(batch.Sources)+len(batch.Marks))
	room := make([]byte, 0, 64*len(batch.Entries)) // of their keys and values
	lookup := finder{b: b}
	h.firstDay, h.lastDay = 0, 0
	for _, e := range batch.Entries {
		day := e.Minute.Day()
		if day != int64(int32(day)) {
			return nil, fmt.Errorf("minute %d of objective %s is millions of years away: look for a time stamp in a wrong unit", e.Minute, e.Objective)
		}
		if e.Minute < b.kept {
			return nil, &Dropped{e.Objective, e.Minute, b.kept}
		}
		seq := uint64(0)
		if e.Revision {
			seq = h.Seq
		}
		if newest, ok := b.last[e.Objective]; ok && !e.Revision && e.Minute <= newest {
			old, err := lookup.find(e.Objective, e.Minute)
			if err != nil {
				return nil, fmt.Errorf("look for an earlier booking: %w", err)
			}
			if old != nil {
				again := booking{seq: old.seq, figures: e.Figures, reason: e.Reason, author: e.Author}
				if !bytes.Equal(encodeBooking(e.Minute, again), encodeBooking(e.Minute, *old)) {
					return nil, &Conflict{e.Objective, e.Minute, old.figures, e.Figures}
				}
				if old.seq != h.Seq {
					continue
				}
			}
		}
		if len(pairs) == 0 || day < h.firstDay {
			h.firstDay = day
		}
		if len(pairs) == 0 || day > h.lastDay {
			h.lastDay = day
		}
		// What does not fit moves to a new room; the old one stays where it is.
		n := len(room)
		room = appendMinuteKey(room, e.Objective, e.Minute, seq)
		k := room[n:len(room):len(room)]
		n = len(room)
		room = appendBooking(room, e.Minute, &booking{h.Seq, e.Figures, e.Reason, e.Author})
		pairs = append(pairs, pair{k, room[n:len(room):len(room)]})
	}
	for _, o := range batch.Objectives {
		v, err := json.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encode objective %s: %w", o.ID, err)
		}
		pairs = append(pairs, pair{objectiveKey(o.ID, h.Seq), append([]byte{valueVersion}, v...)})
	}
	for _, s := range batch.Sources {
		v, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("encode source %q: %w", s.Key, err)
		}
		pairs = append(pairs, pair{sourceKey(s, h.Seq), append([]byte{valueVersion}, v...)})
	}
	marks, err := b.markPairs(batch.Marks, h.Seq)
	if err != nil {
		return nil, err
	}
	pairs = append(pairs, marks...)
	if byKey := func(a, b pair) int { return bytes.Compare(a.k, b.k) }; !slices.IsSortedFunc(pairs, byKey) {
		slices.SortFunc(pairs, byKey)
	}
	h.count = uint64(len(pairs))
	sum := newHashing(*h)
	for i, p := range pairs {
		if i > 0 && bytes.Equal(p.k, pairs[i-1].k) {
			return nil, fmt.Errorf("one batch books %x twice", p.k)
		}
		sum.add(p.k, p.v)
	}
	h.Hash = sum.done()
	return pairs, nil
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

// finder looks for first bookings. It keeps the sealed day that it looked at
// last.
type finder struct {
	b    *Book
	id   sla.ID
	day  int64
	read bool
	got  map[sla.Minute]booking
}

// find returns the first booking of a minute, nil where there is none.
func (f *finder) find(id sla.ID, m sla.Minute) (*booking, error) {
	if v, err := f.b.get(minuteKey(id, m, 0)); err != nil {
		return nil, err
	} else if v != nil {
		e, err := decodeBooking(m, v)
		return &e, err
	}
	if day := m.Day(); !f.read || id != f.id || day != f.day {
		f.id, f.day, f.read, f.got = id, day, true, nil
		v, err := f.b.get(blockKey(day, id))
		if err != nil {
			return nil, err
		}
		if v != nil {
			k, err := decodeBlock(day, v)
			if err != nil {
				return nil, err
			}
			f.got = map[sla.Minute]booking{}
			err = k.each(k.run.First, k.run.End(), func(m sla.Minute, e *booking) error {
				f.got[m] = *e
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	if e, ok := f.got[m]; ok {
		return &e, nil
	}
	return nil, nil
}
