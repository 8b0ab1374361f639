package evaluate

import (
	"math"
	"math/big"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"

	"nines/pkg/sla"
)

// point is one sample of one series, ready to be counted.
type point struct {
	t, st int64 // milliseconds since the epoch; st is 0 where unknown
	v     int64 // micro-events; of a native histogram its count
	// replica tells senders of a pair apart (R7), 0 where there is one sender.
	replica int16
	stale   bool
	h       *histogram.FloatHistogram // of a native histogram
}

// events is what one increment adds, in micro-events. Good lies between low
// and high where a threshold lies between two buckets (R8).
type events struct{ low, high, bad, total int64 }

func (e *events) add(o events) {
	e.low += o.low
	e.high += o.high
	e.bad += o.bad
	e.total += o.total
}

// micro turns a sample's value into micro-events (R3): exact from its shortest
// decimal form, half to even. It reports false for what is not a count: NaN,
// infinities, negative values, and counts above 9.2e12.
func micro(v float64) (int64, bool) {
	if !(v >= 0) || v > math.MaxInt64/sla.Micro {
		return 0, false
	}
	if n := int64(v); float64(n) == v {
		return n * sla.Micro, true
	}
	return roundMicro(v)
}

// roundMicro is micro of a finite number that may be negative.
func roundMicro(v float64) (int64, bool) {
	r, ok := new(big.Rat).SetString(strconv.FormatFloat(v, 'g', -1, 64))
	if !ok {
		return 0, false
	}
	r.Mul(r, big.NewRat(sla.Micro, 1))
	q, rem := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	switch twice := rem.Lsh(rem, 1); twice.CmpAbs(r.Denom()) {
	case 1:
		q.Add(q, big.NewInt(int64(r.Sign())))
	case 0:
		if q.Bit(0) == 1 {
			q.Add(q, big.NewInt(int64(r.Sign())))
		}
	}
	return q.Int64(), q.IsInt64()
}

// below counts the observations of a native histogram up to a threshold. The
// bucket that holds it counts for high alone.
func below(h *histogram.FloatHistogram, threshold float64, fromZero bool) (low, high int64) {
	var l, u float64
	for it := h.AllBucketIterator(); it.Next(); {
		switch b := it.At(); {
		case fromZero && b.Upper < 0:
		case b.Upper <= threshold:
			l += b.Count
			u += b.Count
		case b.Lower < threshold:
			u += b.Count
		}
	}
	low, _ = micro(max(0, l))
	high, _ = micro(max(0, u))
	return low, high
}

// native is what a native histogram's track remembers.
type native struct {
	last      *histogram.FloatHistogram
	threshold float64 // NaN where only the count is wanted
	fromZero  bool    // events below 0 do not count
}

// increment returns the events between two histograms, or of the whole later
// one after a reset or at a beginning. ok is false where their buckets cannot
// be compared: the later one is a baseline then.
func (n *native) increment(h *histogram.FloatHistogram, r role, whole bool) (e events, ok bool) {
	d := h
	if !whole {
		c := h.Copy()
		if _, _, _, err := c.Sub(n.last); err != nil {
			return events{}, false
		}
		d = c
	}
	count, ok := micro(max(0, d.Count))
	if !ok {
		return events{}, false
	}
	if r&roleTotal != 0 {
		e.total = count
	}
	low, high := count, count
	if !math.IsNaN(n.threshold) {
		low, high = below(d, n.threshold, n.fromZero)
	}
	if r&roleLow != 0 {
		e.low = low
	}
	if r&roleHigh != 0 {
		e.high = high
	}
	if r&roleBad != 0 {
		e.bad = high
	}
	return e, true
}
