package ledger

import (
	"errors"
	"math"

	"nines/pkg/sla"
)

// Stats is what is in the book.
type Stats struct {
	Objectives int   // that have a definition or a minute
	Minutes    int64 // booked, sealed or not
	Open       int64 // of them: single entries
	Revisions  int64
	Blocks     int64 // sealed days of objectives
	Gaps       int64 // of first bookings
	Bytes      int64 // on the disk
	Head       Position
	// First and Last are the oldest minute that is kept and the newest one. They
	// mean nothing where Minutes is 0.
	First, Last sla.Minute
}

// Stat counts what is in the book. It reads the headings of sealed days and all
// single entries: 0.2 µs each.
func (b *Book) Stat() (s Stats, err error) {
	b.mu.RLock()
	snap := b.db.NewSnapshot()
	s.Head = b.head
	kept := b.kept
	objectives := make(map[sla.ID]bool, len(b.last))
	for id := range b.last {
		objectives[id] = true
	}
	b.mu.RUnlock()
	defer func() { err = errors.Join(err, snap.Close()) }()
	s.First, s.Last = math.MaxInt64, math.MinInt64
	err = eachIn(snap, []byte("h"), []byte("i"), func(k, v []byte) error {
		_, day, err := parseHeadingKey(k)
		if err != nil || sla.Minute(day*1440) < kept {
			return err
		}
		h, err := decodeHeading(day, v)
		if err != nil {
			return err
		}
		s.Blocks++
		s.Minutes += h.own.counts.Minutes
		s.Gaps += h.own.gaps.Minutes
		s.First, s.Last = min(s.First, h.first), max(s.Last, h.last)
		return nil
	})
	if err != nil {
		return s, err
	}
	var e booking
	err = eachIn(snap, []byte("e"), []byte("f"), func(k, v []byte) error {
		_, m, _, err := parseMinuteKey(k)
		if err != nil {
			return err
		}
		if err := decodeBookingInto(&e, m, v); err != nil {
			return err
		}
		s.Minutes++
		s.Open++
		s.Gaps += int64(len(e.figures.Gaps))
		s.First, s.Last = min(s.First, m), max(s.Last, m)
		return nil
	})
	if err != nil {
		return s, err
	}
	if err := eachIn(snap, []byte("r"), []byte("s"), func(_, _ []byte) error { s.Revisions++; return nil }); err != nil {
		return s, err
	}
	err = eachIn(snap, []byte("o"), []byte("p"), func(k, _ []byte) error {
		if len(k) == 17 {
			objectives[sla.ID(k[1:9])] = true
		}
		return nil
	})
	s.Objectives = len(objectives)
	if s.Minutes == 0 {
		s.First, s.Last = 0, 0
	}
	s.Bytes = int64(b.db.Metrics().DiskSpaceUsage())
	return s, err
}
