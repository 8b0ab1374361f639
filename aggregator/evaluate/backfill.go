package evaluate

import (
	"errors"
	"fmt"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// History is minutes of one objective that were derived from samples which were
// read back out of somebody's store, by the same rules as live ones.
type History struct {
	Objective sla.ID
	// Group and Other name a member of an SLO with groups, which may not be
	// evaluated at the moment.
	Group   map[string]string
	Other   bool
	Minutes []HistoryMinute // ascending
	Reason  string          // where they come from, in words; it is booked with each
}

// HistoryMinute is one minute of a History.
type HistoryMinute struct {
	Minute  sla.Minute
	Figures sla.Figures
}

// Filled says what became of a History.
type Filled struct {
	Booked int `json:"booked"`
	// Already is how many were booked before: a minute is never booked twice,
	// and what was seen live stays as it is.
	Already int `json:"already_booked"`
	// Early is how many the evaluator has yet to close by itself, or would leave
	// a hole behind the newest booked minute.
	Early int `json:"left_out"`

	newest sla.Minute // of those that were booked
}

// ErrNotEvaluated tells that an objective is not in force.
var ErrNotEvaluated = errors.New("the objective is not evaluated here")

// Backfill books history of an objective that is in force, in one batch. Its
// windows hold the minutes from then on. What is booked already stays as it is,
// so that a call may be repeated.
func (e *Evaluator) Backfill(now time.Time, h History) (Filled, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cfg.Lease != nil && !e.cfg.Lease(now) {
		return Filled{}, errors.New("another replica holds the lease, and it alone writes to the book: ask that one")
	}
	o := e.objectives[h.Objective]
	var def sla.Objective
	switch f := e.familyOf(h); {
	case o != nil:
		def = o.def
	case f != nil && h.Other:
		def = f.def.ForOther()
	case f != nil:
		def = f.def.ForGroup(h.Group)
	default:
		return Filled{}, fmt.Errorf("objective %s: %w: give the documents that it evaluates, as they are now", h.Objective, ErrNotEvaluated)
	}
	// Nothing closes later than this (R20); an objective that is evaluated knows
	// it exactly.
	end := sla.MinuteOf(now.Add(-closeCeiling))
	if o != nil {
		end = o.closed + 1
	}
	_, known := e.cfg.Book.LastMinute(def.ID)
	filled, err := fill(e.cfg.Book, ledger.Batch{Term: e.cfg.Term, At: now.UnixMilli()}, def, !known && (o == nil || o.isNew), end, h)
	if err != nil {
		e.metrics.failures.Inc()
		return filled, err
	}
	e.metrics.readBack.Add(float64(filled.Booked))
	if key := def.ID.String(); filled.Booked > 0 {
		e.readTo[key] = max(e.readTo[key], (filled.newest + 1).Millis())
	}
	if o == nil || filled.Booked == 0 {
		return filled, nil
	}
	o.changed = true
	o.tally.readTo = e.readTo[def.ID.String()]
	return filled, e.fillWindows(o, now)
}

// familyOf returns the SLO with groups of which a history's objective is one.
func (e *Evaluator) familyOf(h History) *family {
	for _, f := range e.families {
		if h.Other && f.def.ForOther().ID == h.Objective || !h.Other && len(h.Group) == len(f.def.GroupBy) && f.def.ForGroup(h.Group).ID == h.Objective {
			return f
		}
	}
	return nil
}

// Backfill books history in a book that no evaluator has open: that of an
// aggregator that is stopped. Minutes behind the newest booked one are taken as
// far as they follow it without a hole, so that its next start goes on there.
func Backfill(book Book, now time.Time, def sla.Objective, h History) (Filled, error) {
	end := sla.MinuteOf(now)
	last, known := book.LastMinute(def.ID)
	if known {
		end = last + 1
		for _, m := range h.Minutes {
			if m.Minute == end {
				end++
			}
		}
	}
	return fill(book, ledger.Batch{Term: book.Head().Term, At: now.UnixMilli()}, def, !known, min(end, sla.MinuteOf(now)), h)
}

// fill books the minutes of a history before end that the book does not have.
func fill(book Book, b ledger.Batch, def sla.Objective, isNew bool, end sla.Minute, h History) (filled Filled, err error) {
	if len(h.Minutes) == 0 {
		return filled, nil
	}
	booked := map[sla.Minute]bool{}
	err = book.Scan(def.ID, h.Minutes[0].Minute, h.Minutes[len(h.Minutes)-1].Minute+1, 0, func(m sla.Minute, _ sla.Figures) error {
		booked[m] = true
		return nil
	})
	if err != nil {
		return filled, fmt.Errorf("read the booked minutes: %w", err)
	}
	for _, m := range h.Minutes {
		switch {
		case booked[m.Minute]:
			filled.Already++
		case m.Minute >= end:
			filled.Early++
		default:
			f := m.Figures
			f.Flags |= sla.FlagReadBack
			b.Entries = append(b.Entries, ledger.Entry{Objective: def.ID, Minute: m.Minute, Figures: f, Reason: h.Reason, Author: "backfill"})
		}
	}
	if len(b.Entries) == 0 {
		return filled, nil
	}
	filled.newest = b.Entries[len(b.Entries)-1].Minute
	b.Marks = []ledger.Mark{{Kind: markReadBack, Key: def.ID.String(), At: (filled.newest + 1).Millis()}}
	if isNew {
		b.Objectives = []sla.Objective{def}
	}
	if _, err := book.Append(b); err != nil {
		return filled, fmt.Errorf("book a batch of %d minutes: %w", len(b.Entries), err)
	}
	filled.Booked = len(b.Entries)
	return filled, nil
}
