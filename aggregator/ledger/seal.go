package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

// sealAfter is how long after its end a day is sealed (R27): most of what comes
// late has come by then.
const sealAfter = 24 * time.Hour

// sealAtOnce bounds what one synced write of Seal holds: bytes of packed
// minutes. A writer of minutes waits for one of them.
const sealAtOnce = 128 << 10

// Seal packs the first bookings of UTC days that ended at least 24 hours ago
// into one block for each objective (R27), and returns how many blocks it wrote.
// It goes day by day and a few objectives at a time, each time atomic and synced:
// it can be cut off anywhere, and the next Seal goes on. Others may read and
// write meanwhile.
//
// What is booked for a sealed day later stays a single entry beside the block
// until the next Seal, which writes the block again with it, and the sums before
// each later block.
func (b *Book) Seal(ctx context.Context, now time.Time) (blocks int, err error) {
	end := sla.MinuteOf(now.Add(-sealAfter)).Day() // the first day that stays open
	var ready days
	b.mu.RLock()
	for _, all := range b.loose {
		for _, d := range all.in(math.MinInt32, end) {
			ready = ready.with(int64(d))
		}
	}
	b.mu.RUnlock()
	for _, d := range ready {
		for q := (queue{day: int64(d)}); !q.done; {
			if err := ctx.Err(); err != nil {
				return blocks, fmt.Errorf("seal %s: %w", dayName(q.day), err)
			}
			n, err := b.sealSome(&q)
			if err != nil {
				return blocks, ops.Remedy(fmt.Errorf("seal %s: %w", dayName(q.day), err))
			}
			blocks += n
		}
	}
	return blocks, nil
}

// queue is what is left of a day that is being sealed.
type queue struct {
	day  int64
	done bool
	ids  []sla.ID
	seen uint64 // what was noted when ids were listed
}

// sealSome seals a day of the next few objectives.
func (b *Book) sealSome(q *queue) (blocks int, err error) {
	b.write.Lock()
	defer b.write.Unlock()
	if q.ids == nil || q.seen != b.noted {
		q.ids, q.seen = q.ids[:0], b.noted
		for id, all := range b.loose {
			if all.has(q.day) {
				q.ids = append(q.ids, id)
			}
		}
		slices.SortFunc(q.ids, func(a, b sla.ID) int { return bytes.Compare(a[:], b[:]) })
	}
	if q.done = len(q.ids) == 0; q.done {
		return 0, nil
	}
	w := b.db.NewBatch()
	defer func() { err = errors.Join(err, w.Close()) }()
	n := 0
	for ; n < len(q.ids) && w.Len() < sealAtOnce; n++ {
		s := sealing{w: w, v: b.view(q.ids[n], 0)}
		wrote, err := s.day(q.day)
		if err = errors.Join(err, s.v.close()); err != nil {
			return 0, fmt.Errorf("objective %s: %w", q.ids[n], err)
		}
		if wrote {
			blocks++
			if err := b.setLast(w, q.ids[n]); err != nil {
				return 0, err
			}
		}
	}
	if blocks > 0 {
		// No other objective between them has an entry on that day.
		err := w.DeleteRange(dayKey('e', q.day, q.ids[0]), after(dayKey('e', q.day, q.ids[n-1])), nil)
		if err = errors.Join(err, b.commit(w)); err != nil {
			return 0, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range q.ids[:n] {
		if b.loose[id] = b.loose[id].without(func(d int64) bool { return d == q.day }); len(b.loose[id]) == 0 {
			delete(b.loose, id)
		}
	}
	q.ids = q.ids[n:]
	q.done = len(q.ids) == 0
	return blocks, nil
}

// sealing writes the block of an objective's day, and the headings from that day
// on.
type sealing struct {
	w *pebble.Batch
	v *view
}

// day writes the block of a day with all of its first bookings. It reports
// whether there were any beside the block that there may be.
func (s *sealing) day(day int64) (bool, error) {
	k := newBlock(day)
	h := &heading{}
	var before uint64
	from := sla.Minute(day * 1440)
	err := s.v.firsts(day, from, from+1440, func(m sla.Minute, e *booking) error {
		if before == 0 {
			h.first = m
		}
		h.last = m
		k.add(m, *e, before)
		h.own.add(m, e)
		before = e.seq
		return nil
	})
	if err != nil || before == 0 {
		return false, err
	}
	v, err := s.v.get(batchKey(k.newest))
	if err != nil {
		return false, err
	}
	newest, err := decodeHeader(batchKey(k.newest), v)
	if err != nil {
		return false, fmt.Errorf("batch %d, of which it has a minute: %w", k.newest, err)
	}
	k.hash = newest.Hash
	packed := k.encode()
	n, err := s.check(day, packed)
	if err != nil || n == 0 {
		return false, err
	}
	if err := s.w.Set(blockKey(day, s.v.id), packed, nil); err != nil {
		return false, err
	}
	return true, s.headings(day, h)
}

// check reads a packed block: each single entry must come out of it byte for
// byte before it is deleted. It returns how many there are.
func (s *sealing) check(day int64, packed []byte) (n int, err error) {
	k, err := decodeBlock(day, packed)
	if err != nil {
		return 0, err
	}
	prefix := dayKey('e', day, s.v.id)
	it, err := s.v.snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return 0, err
	}
	valid := it.First()
	var key, val []byte
	err = k.each(k.run.First, k.run.End(), func(m sla.Minute, e *booking) error {
		if key = appendMinuteKey(key[:0], s.v.id, m, 0); !valid || !bytes.Equal(key, it.Key()) {
			return nil
		}
		if val = appendBooking(val[:0], m, e); bytes.Equal(val, it.Value()) {
			n++
			valid = it.Next()
		}
		return nil
	})
	if err == nil && valid {
		err = fmt.Errorf("%w: entry %x does not come out of its block as it went in: it stays", errCorrupt, it.Key())
	}
	return n, errors.Join(err, it.Error(), it.Close())
}

// headings writes the heading of a day, and those of later days again.
func (s *sealing) headings(day int64, fresh *heading) error {
	it, err := s.v.snap.NewIter(&pebble.IterOptions{LowerBound: headingKey(s.v.id, s.v.kept.Day()), UpperBound: headingKey(s.v.id, day)})
	if err != nil {
		return err
	}
	var sum tally // of the sealed days before: sums are differences, any beginning will do
	if it.Last() {
		var h *heading
		var last int64
		if _, last, err = parseHeadingKey(it.Key()); err == nil {
			h, err = decodeHeading(last, it.Value())
		}
		if err == nil {
			sum = h.before.plus(h.own)
		}
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return err
	}
	put := func(day int64, h *heading) error {
		h.before = sum
		sum = sum.plus(h.own)
		return s.w.Set(headingKey(s.v.id, day), h.encode(day), nil)
	}
	if err := put(day, fresh); err != nil {
		return err
	}
	return s.v.headings(day+1, math.MaxInt64, put)
}
