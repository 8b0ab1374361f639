package report

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"sort"
	"strings"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/ops"
	"nines/pkg/sla"
)

// Book is what a report reads of the ledger. asOf is the sequence of the last
// batch that is looked at; 0 is all.
type Book interface {
	// Scan passes the minutes from ≤ m < to in ascending order, revisions merged
	// in, and stops with the first error of fn, which it returns (wrapped or not).
	Scan(id sla.ID, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error
	Objectives(asOf uint64) ([]sla.Objective, error)
	Head() ledger.Position
}

// positioner is a Book that can tell the position of an older batch.
type positioner interface {
	Position(seq uint64) (ledger.Position, error)
}

// Options say which report is built.
type Options struct {
	// Month is a year and a month, "2026-11".
	Month string
	// Timezone is the IANA zone of the month, UTC where it is empty.
	Timezone string
	// Now is used for one thing: a month that has not begun is refused.
	Now time.Time
	// AsOf is the sequence of the batch to report as of, 0 for the newest.
	AsOf uint64
	// MinCoverage is the coverage below which no target counts as met, as a
	// ratio from 0 to 1; nil is DefaultMinCoverage.
	MinCoverage *big.Rat
	// Program is printed as what made the report; empty is this build.
	Program string
}

// DefaultMinCoverage is the coverage that a verdict needs, 95 %.
func DefaultMinCoverage() *big.Rat { return big.NewRat(95, 100) }

// State tells whether more minutes of the month can follow.
type State string

const (
	// SoFar marks a month whose end has not been booked yet.
	SoFar State = "so far"
	// Complete marks a month that the book has passed. Late samples may still
	// revise it; the revision that a report shows is printed on it.
	Complete State = "complete"
)

// Report is one month. All figures are exact; renderers round.
type Report struct {
	Month    Month
	State    State
	Head     ledger.Position // the batch that it is as of
	Program  string
	Rows     []Row // by service, SLO and objective
	Summary  []string
	MinCover *big.Rat
}

// Row is one objective in the month.
type Row struct {
	Objective sla.Objective
	// Sum holds the month's events and source time, gaps and unbooked minutes
	// included. The ratio, its bounds and both coverages are its methods.
	Sum     sla.Sum
	Budget  sla.Budget
	Verdict sla.Verdict
	// From and To are the measured part of the month: it begins later for an
	// objective that is new, and ends earlier while the month goes on.
	From, To sla.Minute
	// BadMinutes and JudgedMinutes count minutes; the package comment defines both.
	BadMinutes, JudgedMinutes int64
	// NoData is the time within From and To that was not counted.
	NoData time.Duration
	// Unbooked is how many minutes within From and To the book does not hold.
	Unbooked int64
	Days     []Day
	// Burndown is the share of the budget that was left, every six hours. It is
	// empty where there is no budget.
	Burndown []Point
	// MaxBurn is the highest burn rate of any 60 minutes in a row, nil without one.
	MaxBurn *big.Rat
	// Previous is the ratio of the month before, nil without events in it.
	Previous *big.Rat
}

// DayState is what a day's square shows.
type DayState string

const (
	Good   DayState = "good"    // the target was reached
	AtRisk DayState = "at risk" // reached, with half of the day's allowance gone or coverage below the minimum
	Bad    DayState = "bad"     // the day's ratio is below the target
	NoData DayState = "no data" // less than half of the expected time was counted, or nothing expected
	Ahead  DayState = "ahead"   // not booked yet
)

// Day is one local day of an objective.
type Day struct {
	Date       string // 2026-11-01
	State      DayState
	Sum        sla.Sum
	BadMinutes int64
}

// Point is the remaining share of the budget at a time.
type Point struct {
	At        time.Time
	Remaining *big.Rat
}

// Build reads one month out of the book. It fails if the month or zone is not
// one, if the month has not begun at Now, if AsOf is behind the book's newest
// batch, and with the book's own errors.
func Build(ctx context.Context, book Book, o Options) (Report, error) {
	m, err := ParseMonth(o.Month, o.Timezone)
	if err != nil {
		return Report{}, err
	}
	if !o.Now.IsZero() && o.Now.Before(m.Start()) {
		return Report{}, fmt.Errorf("month %s (%s) has not begun: ask for %s or an earlier one", m, m.Timezone(), o.Now.In(m.zone).Format("2006-01"))
	}
	head := book.Head()
	if o.AsOf != 0 && o.AsOf != head.Seq {
		if head, err = positionOf(book, head, o.AsOf); err != nil {
			return Report{}, err
		}
	}
	r := Report{Month: m, State: SoFar, Head: head, Program: o.Program, MinCover: o.MinCoverage}
	if r.Program == "" {
		r.Program = "Nines " + ops.ReadBuild().String()
	}
	if r.MinCover == nil {
		r.MinCover = DefaultMinCoverage()
	}
	if head.At >= m.End().UnixMilli() {
		r.State = Complete
	}
	objectives, err := book.Objectives(head.Seq)
	if err != nil {
		return Report{}, fmt.Errorf("read the objectives of the ledger: %w", err)
	}
	objectives = append([]sla.Objective(nil), objectives...)
	sort.Slice(objectives, func(i, j int) bool {
		a, b := objectives[i], objectives[j]
		for _, c := range []int{
			strings.Compare(a.Service, b.Service), strings.Compare(a.Namespace, b.Namespace),
			strings.Compare(a.SLO, b.SLO), strings.Compare(a.Name, b.Name),
		} {
			if c != 0 {
				return c < 0
			}
		}
		return a.ID.String() < b.ID.String()
	})
	for _, obj := range objectives {
		if obj.Inner {
			continue
		}
		row, ok, err := r.row(ctx, book, obj)
		if err != nil {
			return Report{}, fmt.Errorf("read minutes of objective %s (%s): %w", obj.ID, obj.SLO, err)
		}
		if ok {
			r.Rows = append(r.Rows, row)
		}
	}
	r.Summary = r.summarise()
	return r, nil
}

func positionOf(book Book, head ledger.Position, seq uint64) (ledger.Position, error) {
	if seq > head.Seq {
		return head, fmt.Errorf("the ledger holds batches up to %d, there is no batch %d yet", head.Seq, seq)
	}
	p, ok := book.(positioner)
	if !ok {
		return head, fmt.Errorf("this ledger reports only as of its newest batch %d, not as of %d", head.Seq, seq)
	}
	pos, err := p.Position(seq)
	if err != nil {
		return head, fmt.Errorf("find batch %d of the ledger: %w", seq, err)
	}
	return pos, nil
}

// errFound ends a scan that only asks whether there is a minute.
var errFound = errors.New("found")

// lookAround bounds, in minutes, how far beside a month bookings are looked
// for: longer than the ledger keeps single minutes by default.
const lookAround = 400 * 1440

func booked(book Book, id sla.ID, from, to sla.Minute, asOf uint64) (bool, error) {
	err := book.Scan(id, from, to, asOf, func(sla.Minute, sla.Figures) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// row builds the line of one objective, and reports false for one that was not
// measured in this month.
func (r *Report) row(ctx context.Context, book Book, obj sla.Objective) (Row, bool, error) {
	asOf := r.Head.Seq
	from, to := sla.MinuteOf(r.Month.Start()), sla.MinuteOf(r.Month.End())
	before, err := booked(book, obj.ID, max(0, from-lookAround), from, asOf)
	if err != nil {
		return Row{}, false, err
	}
	after, err := booked(book, obj.ID, to, to+lookAround, asOf)
	if err != nil {
		return Row{}, false, err
	}
	t := newTally(obj.Target, r.Month)
	if before {
		t.next = from
	}
	n := 0
	err = book.Scan(obj.ID, from, to, asOf, func(m sla.Minute, f sla.Figures) error {
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return t.minute(m, f)
	})
	if err != nil {
		return Row{}, false, err
	}
	if n == 0 && !(before && after) {
		// It was never booked, which shows as "no events" while the month goes
		// on; or it begins later; or it ended before, unless that was just now.
		live, err := booked(book, obj.ID, max(0, from-hour), from, asOf)
		if err != nil {
			return Row{}, false, err
		}
		if after || r.State == Complete || before && !live {
			return Row{}, false, nil
		}
	}
	if after {
		t.skip(to)
	}
	row := t.row(r)
	row.Objective = obj
	if row.Previous, err = previous(ctx, book, obj.ID, r.Month.Previous(), asOf); err != nil {
		return Row{}, false, err
	}
	return row, true, nil
}

func previous(ctx context.Context, book Book, id sla.ID, m Month, asOf uint64) (*big.Rat, error) {
	from, to := sla.MinuteOf(m.Start()), sla.MinuteOf(m.End())
	var sum sla.Sum
	err := book.Scan(id, from, to, asOf, func(_ sla.Minute, f sla.Figures) error {
		sum.Add(f.Counts)
		for _, g := range f.Gaps {
			if g.From >= from && g.To < to {
				sum.Revise(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
			}
		}
		return ctx.Err()
	})
	return sum.Good(), err
}

// Hash returns the hash of the batch that the report is as of, in hex.
func (r Report) Hash() string { return hex.EncodeToString(r.Head.Hash[:]) }

// AsOf returns the booking time of that batch, the zero time for an empty book.
func (r Report) AsOf() time.Time {
	if r.Head.At == 0 {
		return time.Time{}
	}
	return time.UnixMilli(r.Head.At).UTC()
}

// ID names the report: month and zone.
func (r Report) ID() string { return "sla-" + r.Month.String() + "@" + r.Month.Timezone() }

// verdict applies the minimum coverage to the exact comparison.
func verdict(s sla.Sum, target sla.Target, minCoverage *big.Rat) sla.Verdict {
	v := s.Verdict(target)
	c := s.Coverage()
	if c == nil || c.Cmp(minCoverage) >= 0 {
		return v
	}
	switch v {
	case sla.Met:
		return sla.Inconclusive
	case sla.Missed:
		if _, upper := s.Bounds(); upper != nil && upper.Cmp(target.Rat()) >= 0 {
			return sla.Inconclusive
		}
	}
	return v
}
