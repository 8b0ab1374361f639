package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/sla"
)

// Verification is what Verify found.
type Verification struct {
	Batches uint64 // that follow each other without a hole, each with the hash of the one before
	Proven  uint64 // of them: batches of which each byte gives the hash
	Links   uint64 // of them: batches with dropped days, of which the links alone can be checked
	Entries uint64 // of the proven batches
	Blocks  uint64 // sealed days whose sums follow from their minutes
	Head    Position
	// Broken tells the first place that is broken, in words. It is empty where
	// the book is whole.
	Broken string
}

// verifyAtOnce is how many batches are hashed at the same time, at 250 bytes
// each: the days that they touch are read once for all of them.
const verifyAtOnce = 16 << 10

// Verify walks the whole chain: the headers are linked without a hole; what each
// batch booked, sealed or not, gives its hash; nothing is in the book that no
// batch booked; blocks name a batch and its hash; the sums of sealed days follow
// from their minutes. A break is told in Verification.Broken; an error says that
// the walk could not be ended. progress, which may be nil, is told how many
// batches of all are done. Others may read and write meanwhile: what is checked
// is the book as it was at the beginning.
func (b *Book) Verify(ctx context.Context, progress func(done, total uint64)) (Verification, error) {
	b.mu.RLock()
	w := &walk{ctx: ctx, snap: b.db.NewSnapshot(), kept: b.kept, progress: progress}
	w.out.Head = b.head
	b.mu.RUnlock()
	err := w.all()
	err = errors.Join(err, w.snap.Close())
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = broken("a file of the book is shorter than it was: %v", err)
	}
	if errors.Is(err, errCorrupt) || pebble.IsCorruptionError(err) {
		w.out.Broken, err = err.Error(), nil
	}
	if err != nil {
		err = fmt.Errorf("verify the ledger: %w", err)
	}
	return w.out, err
}

// broken is a break of the chain, in words.
func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errCorrupt, fmt.Sprintf(format, args...))
}

type walk struct {
	ctx      context.Context
	snap     *pebble.Snapshot
	kept     sla.Minute
	progress func(done, total uint64)
	out      Verification

	part  []hashed // a part of the chain
	fed   uint64   // entries of all parts
	since int      // the last look at the context
}

// hashed is a batch whose hash is being made.
type hashed struct {
	header
	sum *hashing
	n   uint64
}

func (w *walk) all() error {
	var before header
	err := eachIn(w.snap, []byte("b"), []byte("c"), func(k, v []byte) error {
		h, err := decodeHeader(k, v)
		if err != nil {
			return err
		}
		switch {
		case h.Seq != before.Seq+1:
			return broken("batch %d follows batch %d: what lies between is missing", h.Seq, before.Seq)
		case h.before != before.Hash:
			return broken("batch %d does not name the hash of batch %d", h.Seq, before.Seq)
		case h.Term < before.Term:
			return broken("batch %d of term %d follows term %d", h.Seq, h.Term, before.Term)
		}
		before = h
		w.out.Batches++
		w.part = append(w.part, hashed{header: h, sum: newHashing(h)})
		if len(w.part) == verifyAtOnce {
			return w.contents()
		}
		return nil
	})
	if err == nil {
		err = w.contents()
	}
	if err != nil {
		return err
	}
	if before.Position != w.out.Head {
		return broken("the newest batch is %d, the book was opened with %d", before.Seq, w.out.Head.Seq)
	}
	all, err := w.count()
	if err != nil {
		return err
	}
	if all != w.fed {
		return broken("%d entries are in the book, the batches booked %d of them", all, w.fed)
	}
	return w.sums()
}

// tick looks at the context from time to time.
func (w *walk) tick() error {
	if w.since++; w.since < 10_000 {
		return nil
	}
	w.since = 0
	return w.ctx.Err()
}

// feed gives an entry to the hash of its batch. Entries come in the order of
// their keys, as they were hashed.
func (w *walk) feed(seq uint64, k, v []byte) error {
	if seq == 0 || seq > w.out.Head.Seq {
		return broken("entry %x is of batch %d, which is not in the chain", k, seq)
	}
	if first := w.part[0].Seq; seq >= first && seq < first+uint64(len(w.part)) {
		h := &w.part[seq-first]
		h.sum.add(k, v)
		h.n++
		w.fed++
	}
	return w.tick()
}

// contents checks a part of the chain against what is in the book.
func (w *walk) contents() error {
	if len(w.part) == 0 {
		return nil
	}
	first, last := w.part[0].Seq, w.part[len(w.part)-1].Seq
	headers := make([]header, len(w.part))
	for i := range w.part {
		headers[i] = w.part[i].header
	}
	err := eachEntry(w.snap, spans(headers), func(k *block, id sla.ID) (bool, error) {
		if k.newest < first || k.oldest > last {
			return false, nil
		}
		if k.newest > w.out.Head.Seq {
			return false, broken("sealed day %s of objective %s names batch %d, which is not in the chain", dayName(k.run.First.Day()), id, k.newest)
		}
		if k.newest <= last && k.hash != w.part[k.newest-first].Hash {
			return false, broken("sealed day %s of objective %s names another hash of batch %d than the chain", dayName(k.run.First.Day()), id, k.newest)
		}
		return true, nil
	}, w.feed)
	if err != nil {
		return err
	}
	for i := range w.part {
		h := &w.part[i]
		switch {
		case h.sum.done() == h.Hash && h.n == h.count:
			w.out.Proven++
			w.out.Entries += h.n
		case sla.Minute(h.firstDay*1440) < w.kept:
			w.out.Links++
		case h.n != h.count:
			return broken("batch %d (term %d) booked %d entries, %d are in the book", h.Seq, h.Term, h.count, h.n)
		default:
			return broken("the entries of batch %d (term %d) do not give its hash: one of them was changed", h.Seq, h.Term)
		}
	}
	w.part = w.part[:0]
	if w.progress != nil {
		w.progress(last, w.out.Head.Seq)
	}
	return w.ctx.Err()
}

// spans returns the days that batches touch, first and last. Batches without
// minutes say day 0, which must not make the span a long one.
func spans(part []header) (out [][2]int64) {
	var lo, hi int64
	zero, some := false, false
	for _, h := range part {
		if h.firstDay == 0 && h.lastDay == 0 {
			zero = true
			continue
		}
		if !some {
			lo, hi, some = h.firstDay, h.lastDay, true
		}
		lo, hi = min(lo, h.firstDay), max(hi, h.lastDay)
	}
	if zero && (!some || lo > 0) {
		out = append(out, [2]int64{0, 0})
	}
	if some {
		out = append(out, [2]int64{lo, hi})
	}
	if zero && some && hi < 0 {
		out = append(out, [2]int64{0, 0})
	}
	return out
}

// entrySeq returns the batch of an entry that is not in a block.
func entrySeq(k, v []byte) (uint64, error) {
	switch {
	case k[0] == 'e':
		c := cursor{data: v}
		c.version()
		if seq := c.uvarint(); !c.bad {
			return seq, nil
		}
		return 0, broken("entry %x has no batch", k)
	case k[0] == 'm':
		seq, _, err := splitMark(v)
		return seq, err
	case len(k) < 9:
		return 0, broken("the key %x", k)
	}
	return binary.BigEndian.Uint64(k[len(k)-8:]), nil
}

// eachEntry calls fn for what batches booked that touch some days, in the order
// of the keys as they were before any day was sealed. want says which blocks are
// read. Entries of other batches are among them.
func eachEntry(r reader, days [][2]int64, want func(*block, sla.ID) (bool, error), fn func(seq uint64, k, v []byte) error) error {
	for _, span := range days {
		if err := eachMinute(r, span[0], span[1], want, fn); err != nil {
			return err
		}
	}
	some := func(from, to []byte) error {
		return eachIn(r, from, to, func(k, v []byte) error {
			seq, err := entrySeq(k, v)
			if err != nil {
				return err
			}
			return fn(seq, k, v)
		})
	}
	for _, prefix := range []byte{'m', 'o'} {
		if err := some([]byte{prefix}, []byte{prefix + 1}); err != nil {
			return err
		}
	}
	for _, span := range days {
		if err := some(dayPrefix('r', span[0]), after(dayPrefix('r', span[1]))); err != nil {
			return err
		}
	}
	return some([]byte("s"), []byte("t"))
}

// eachMinute calls fn for the first bookings of the days from to to in the order
// of their keys, as they were before any was sealed. want says which blocks are
// read.
func eachMinute(r reader, from, to int64, want func(*block, sla.ID) (bool, error), fn func(seq uint64, k, v []byte) error) error {
	singles, err := r.NewIter(&pebble.IterOptions{LowerBound: dayPrefix('e', from), UpperBound: after(dayPrefix('e', to))})
	if err != nil {
		return err
	}
	valid := singles.First()
	before := func(key []byte) error {
		for ; valid && (key == nil || bytes.Compare(singles.Key(), key) < 0); valid = singles.Next() {
			v, err := singles.ValueAndErr()
			if err != nil {
				return err
			}
			seq, err := entrySeq(singles.Key(), v)
			if err != nil {
				return err
			}
			if err := fn(seq, singles.Key(), v); err != nil {
				return err
			}
		}
		return singles.Error()
	}
	var key, val []byte
	err = eachIn(r, dayPrefix('k', from), after(dayPrefix('k', to)), func(bk, v []byte) error {
		id, day, err := parseBlockKey(bk)
		if err != nil {
			return err
		}
		k, err := decodeBlock(day, v)
		if err != nil {
			return fmt.Errorf("objective %s: %w", id, err)
		}
		if ok, err := want(k, id); !ok || err != nil {
			return err
		}
		err = k.each(k.run.First, k.run.First+1440, func(m sla.Minute, e *booking) error {
			key = appendMinuteKey(key[:0], id, m, 0)
			if err := before(key); err != nil {
				return err
			}
			val = appendBooking(val[:0], m, e)
			return fn(e.seq, key, val)
		})
		if err != nil && errors.Is(err, errCorrupt) {
			err = fmt.Errorf("objective %s: %w", id, err)
		}
		return err
	})
	if err == nil {
		err = before(nil)
	}
	return errors.Join(err, singles.Close())
}

func parseBlockKey(k []byte) (id sla.ID, day int64, err error) {
	if len(k) != 13 || k[0] != 'k' {
		return sla.ID{}, 0, fmt.Errorf("%w: the key %x of a block", errCorrupt, k)
	}
	copy(id[:], k[5:])
	return id, int64(binary.BigEndian.Uint32(k[1:])) - 1<<31, nil
}

// count returns how many entries are in the book. Each was fed once, unless it
// lies where its batch did not book.
func (w *walk) count() (n uint64, err error) {
	for _, prefix := range []byte{'e', 'm', 'o', 'r', 's'} {
		err := eachIn(w.snap, []byte{prefix}, []byte{prefix + 1}, func(_, _ []byte) error { n++; return w.tick() })
		if err != nil {
			return 0, err
		}
	}
	err = eachIn(w.snap, []byte("k"), []byte("l"), func(key, v []byte) error {
		_, day, err := parseBlockKey(key)
		if err != nil {
			return err
		}
		k, err := decodeBlock(day, v)
		if err != nil {
			return err
		}
		for _, s := range k.steps {
			n += uint64(s.n)
		}
		w.out.Blocks++
		return w.tick()
	})
	return n, err
}

// sums checks the headings against the blocks.
func (w *walk) sums() error {
	var of sla.ID
	var before *heading
	headings := uint64(0)
	err := eachIn(w.snap, []byte("h"), []byte("i"), func(k, v []byte) error {
		id, day, err := parseHeadingKey(k)
		if err != nil {
			return err
		}
		if sla.Minute(day*1440) < w.kept {
			return nil // of a dropped day, not removed yet
		}
		headings++
		h, err := decodeHeading(day, v)
		if err != nil {
			return fmt.Errorf("objective %s: %w", id, err)
		}
		data, closer, err := w.snap.Get(blockKey(day, id))
		if errors.Is(err, pebble.ErrNotFound) {
			return broken("the day %s of objective %s has sums and no block", dayName(day), id)
		}
		if err != nil {
			return err
		}
		var own heading
		b, err := decodeBlock(day, data)
		if err == nil {
			err = b.each(b.run.First, b.run.First+1440, func(m sla.Minute, e *booking) error {
				if own.own.counts.Minutes == 0 {
					own.first = m
				}
				own.last = m
				own.own.add(m, e)
				return nil
			})
		}
		if err := errors.Join(err, closer.Close()); err != nil {
			return fmt.Errorf("objective %s: %w", id, err)
		}
		own.before = h.before
		if own != *h {
			return broken("the sums of the sealed day %s of objective %s do not follow from its minutes", dayName(day), id)
		}
		if before != nil && id == of && h.before != before.before.plus(before.own) {
			return broken("the sums before the sealed day %s of objective %s do not follow from the days before it", dayName(day), id)
		}
		of, before = id, h
		return w.tick()
	})
	if err == nil && headings != w.out.Blocks {
		err = broken("%d sealed days have sums for %d blocks", headings, w.out.Blocks)
	}
	return err
}
