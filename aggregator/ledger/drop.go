package ledger

import (
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

// DropBefore removes the minutes of the UTC days that ended by m, with their
// revisions, atomic and synced: days are dropped whole, as they are sealed
// (R27), so that the day of m stays. Definitions, sources, marks, newest minutes
// and the chain stay too. From then on a batch with an entry of a dropped day is
// refused with a *Dropped. What is dropped already, and an empty book, are left
// as they are. A day behind that of the newest minute is an error.
func (b *Book) DropBefore(m sla.Minute) error {
	b.write.Lock()
	defer b.write.Unlock()
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
	return b.dropBefore(day)
}

func (b *Book) dropBefore(day int64) error {
	w := b.db.NewBatch()
	defer w.Close()
	err := w.Set([]byte("d"), dayPrefix(valueVersion, day), nil)
	for _, prefix := range []byte{'e', 'k', 'r'} {
		err = errors.Join(err, w.DeleteRange([]byte{prefix}, dayPrefix(prefix, day), nil))
	}
	for id, m := range b.last {
		if m.Day() < day {
			err = errors.Join(err, b.setLast(w, id))
		}
	}
	// Readers leave headings of dropped days alone, whose blocks may be gone.
	before := b.kept
	b.keep(sla.Minute(day * 1440))
	if err = errors.Join(err, b.commit(w)); err == nil {
		b.forgetBefore(day)
		err = b.dropHeadings()
	} else {
		b.keep(before)
	}
	if err != nil {
		return ops.Remedy(fmt.Errorf("drop old minutes of the ledger: %w", err))
	}
	return nil
}

func (b *Book) keep(from sla.Minute) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = from
}

func (b *Book) forgetBefore(day int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := func(d int64) bool { return d < day }
	for _, known := range []map[sla.ID]days{b.loose, b.revised} {
		for id, all := range known {
			if known[id] = all.without(gone); len(known[id]) == 0 {
				delete(known, id)
			}
		}
	}
}

// dropHeadings removes the headings of dropped days, a bounded number at a time:
// nobody reads them. Those that a crash leaves behind go with the next drop.
func (b *Book) dropHeadings() error {
	const atOnce = 10_000
	for {
		w := b.db.NewBatch()
		if err := b.someHeadings(w, atOnce); err != nil {
			return errors.Join(err, w.Close())
		}
		n := w.Count()
		if n > 0 {
			if err := b.commit(w); err != nil {
				return errors.Join(err, w.Close())
			}
		}
		if err := w.Close(); err != nil || n < atOnce {
			return err
		}
	}
}

// someHeadings deletes at most so many headings of dropped days.
func (b *Book) someHeadings(w *pebble.Batch, most uint32) error {
	it, err := b.db.NewIter(&pebble.IterOptions{LowerBound: []byte("h"), UpperBound: []byte("i")})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil && w.Count() < most; {
		var id sla.ID
		var day int64
		if id, day, err = parseHeadingKey(it.Key()); err != nil {
			break
		}
		if sla.Minute(day*1440) >= b.kept {
			ok = it.SeekGE(headingEnd(id, math.MaxInt64))
			continue
		}
		err = w.Delete(it.Key(), nil)
		ok = it.Next()
	}
	return errors.Join(err, it.Error(), it.Close())
}
