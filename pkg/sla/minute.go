package sla

import (
	"math/big"
	"math/bits"
	"time"
)

// Micro is the number of micro-events in one event (R3): samples become
// integers of this unit before they are subtracted.
const Micro = 1_000_000

// MinuteMillis is the length of a minute in milliseconds, the unit of time
// stamps and of source time.
const MinuteMillis = 60_000

// Minute is a minute of UTC, counted from the Unix epoch.
type Minute int64

// MinuteOf returns the minute that holds t.
func MinuteOf(t time.Time) Minute { return MinuteOfMillis(t.UnixMilli()) }

// MinuteOfMillis returns the minute that holds a time stamp in milliseconds
// since the Unix epoch. A time stamp on the edge belongs to the minute that
// begins there.
func MinuteOfMillis(ms int64) Minute {
	m := ms / MinuteMillis
	if ms%MinuteMillis < 0 {
		m--
	}
	return Minute(m)
}

// Time returns the beginning of the minute.
func (m Minute) Time() time.Time { return time.UnixMilli(m.Millis()).UTC() }

// Millis returns the beginning of the minute in milliseconds since the epoch.
func (m Minute) Millis() int64 { return int64(m) * MinuteMillis }

// Day returns the UTC day of the minute, counted from the Unix epoch.
func (m Minute) Day() int64 {
	d := int64(m) / 1440
	if int64(m)%1440 < 0 {
		d--
	}
	return d
}

// Flags mark how a minute was measured.
type Flags uint32

const (
	// FlagSampled marks a minute from an expression that was evaluated once a
	// minute, not from raw counters (R8): it cannot decide event credits.
	FlagSampled Flags = 1 << iota
	// FlagReadBack marks a minute that was read back out of a store, not seen
	// on the write path.
	FlagReadBack
	// FlagNotReceiving marks a minute of which the aggregator itself did not
	// receive all: the rules for absent samples (R17, R18) do not apply to it.
	FlagNotReceiving
	// FlagAbsent marks a minute that holds bad events booked for samples that
	// did not come (R18).
	FlagAbsent
	// FlagLowerBound marks a minute whose events are a lower bound: an
	// increment over a gap that was neither timed nor proven (R12).
	FlagLowerBound
)

// AllFlags are the flags that this version knows.
const AllFlags = FlagSampled | FlagReadBack | FlagNotReceiving | FlagAbsent | FlagLowerBound

// Counts is what one minute, or one revision of a minute, holds. As a revision
// the fields are signed differences.
type Counts struct {
	// GoodLow and GoodHigh bound the good events in micro-events. They are
	// equal unless a latency threshold lies between two buckets (R8).
	GoodLow, GoodHigh int64
	// Total is all events in micro-events.
	Total int64
	// Expected, Counted and Timed are source time in milliseconds (R9).
	Expected, Counted, Timed int64
}

// Add returns c + d.
func (c Counts) Add(d Counts) Counts {
	return Counts{
		c.GoodLow + d.GoodLow, c.GoodHigh + d.GoodHigh, c.Total + d.Total,
		c.Expected + d.Expected, c.Counted + d.Counted, c.Timed + d.Timed,
	}
}

// Sub returns c − d.
func (c Counts) Sub(d Counts) Counts {
	return Counts{
		c.GoodLow - d.GoodLow, c.GoodHigh - d.GoodHigh, c.Total - d.Total,
		c.Expected - d.Expected, c.Counted - d.Counted, c.Timed - d.Timed,
	}
}

// IsZero reports whether all counts are 0.
func (c Counts) IsZero() bool { return c == Counts{} }

// Gap is an increment over a gap between two samples that was too long to be
// timed (R22). It belongs to all minutes From to To together: it counts in
// every window that holds all of them, and in none that cuts them.
type Gap struct {
	From, To                 Minute // both included
	GoodLow, GoodHigh, Total int64  // micro-events
}

// Figures is one minute of one objective.
type Figures struct {
	Counts
	// Gaps lists the increments of gaps that end in this minute.
	Gaps []Gap
	// IntervalMillis is the usual interval of the slowest live source (R10),
	// 0 where none is known.
	IntervalMillis int64
	Flags          Flags
}

// Int128 is a signed integer of 128 bits: sums of minutes do not overflow it
// in the life of the universe. The zero value is 0.
type Int128 struct {
	hi int64
	lo uint64
}

// NewInt128 returns v as an Int128.
func NewInt128(v int64) Int128 { return Int128{hi: v >> 63, lo: uint64(v)} }

// Add returns a + b.
func (a Int128) Add(b Int128) Int128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	return Int128{hi: a.hi + b.hi + int64(carry), lo: lo}
}

// Sub returns a − b.
func (a Int128) Sub(b Int128) Int128 {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	return Int128{hi: a.hi - b.hi - int64(borrow), lo: lo}
}

// AddInt64 returns a + v.
func (a Int128) AddInt64(v int64) Int128 { return a.Add(NewInt128(v)) }

// Sign returns −1, 0 or 1.
func (a Int128) Sign() int {
	switch {
	case a.hi < 0:
		return -1
	case a.hi == 0 && a.lo == 0:
		return 0
	}
	return 1
}

// Cmp returns −1, 0 or 1 as a is less than, equal to or greater than b.
func (a Int128) Cmp(b Int128) int { return a.Sub(b).Sign() }

// Big returns a as a big.Int.
func (a Int128) Big() *big.Int {
	v := new(big.Int).SetInt64(a.hi)
	v.Lsh(v, 64)
	return v.Or(v, new(big.Int).SetUint64(a.lo))
}

// String returns a in decimal.
func (a Int128) String() string { return a.Big().String() }

// Sum is the sum of the minutes of a window.
type Sum struct {
	GoodLow, GoodHigh, Total Int128 // micro-events
	Expected, Counted, Timed Int128 // source-milliseconds
	// Minutes is how many minutes were added.
	Minutes int64
	// Flags are those of all minutes together, those included that a revision
	// took away again.
	Flags Flags
}

// Add adds the counts of one minute.
func (s *Sum) Add(c Counts) { s.add(c, 1) }

// Remove takes the counts of one minute out again. Flags stay.
func (s *Sum) Remove(c Counts) {
	s.add(Counts{}.Sub(c), -1)
}

// Revise adds a signed difference to a minute that is in the sum already.
func (s *Sum) Revise(c Counts) { s.add(c, 0) }

func (s *Sum) add(c Counts, minutes int64) {
	s.GoodLow = s.GoodLow.AddInt64(c.GoodLow)
	s.GoodHigh = s.GoodHigh.AddInt64(c.GoodHigh)
	s.Total = s.Total.AddInt64(c.Total)
	s.Expected = s.Expected.AddInt64(c.Expected)
	s.Counted = s.Counted.AddInt64(c.Counted)
	s.Timed = s.Timed.AddInt64(c.Timed)
	s.Minutes += minutes
}

// Merge adds another sum.
func (s *Sum) Merge(o Sum) {
	s.GoodLow = s.GoodLow.Add(o.GoodLow)
	s.GoodHigh = s.GoodHigh.Add(o.GoodHigh)
	s.Total = s.Total.Add(o.Total)
	s.Expected = s.Expected.Add(o.Expected)
	s.Counted = s.Counted.Add(o.Counted)
	s.Timed = s.Timed.Add(o.Timed)
	s.Minutes += o.Minutes
	s.Flags |= o.Flags
}
