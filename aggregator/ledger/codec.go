package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"nines/pkg/sla"
)

// errCorrupt is wrapped by every error about bytes that are not ours.
var errCorrupt = errors.New("corrupt entry")

const valueVersion = 1

// Fields of a minute's value. A field is a number and a signed varint, gaps
// are counted. Fields that are 0 are left out; unknown numbers are an error of
// the version, not of the field.
const (
	fieldGoodLow  = iota + 1
	fieldGoodHigh // difference to good low
	fieldTotal    // difference to good high
	fieldExpected
	fieldCounted // difference to expected
	fieldTimed   // difference to counted
	fieldInterval
	fieldFlags
	fieldGap // from and to (minutes before the entry's), good low, good high, total
	fieldReason
	fieldAuthor
)

// booking is a decoded value.
type booking struct {
	seq     uint64
	figures sla.Figures
	reason  string
	author  string
}

func encodeBooking(m sla.Minute, b booking) []byte { return appendBooking(nil, m, &b) }

func appendBooking(out []byte, m sla.Minute, b *booking) []byte {
	f := &b.figures
	out = append(out, valueVersion)
	out = binary.AppendUvarint(out, b.seq)
	put := func(field byte, v int64) {
		if v != 0 {
			out = append(out, field)
			out = binary.AppendVarint(out, v)
		}
	}
	put(fieldGoodLow, f.GoodLow)
	put(fieldGoodHigh, f.GoodHigh-f.GoodLow)
	put(fieldTotal, f.Total-f.GoodHigh)
	put(fieldExpected, f.Expected)
	put(fieldCounted, f.Counted-f.Expected)
	put(fieldTimed, f.Timed-f.Counted)
	put(fieldInterval, f.IntervalMillis)
	put(fieldFlags, int64(f.Flags))
	for _, g := range f.Gaps {
		out = append(out, fieldGap)
		for _, v := range []int64{int64(m - g.From), int64(m - g.To), g.GoodLow, g.GoodHigh, g.Total} {
			out = binary.AppendVarint(out, v)
		}
	}
	text := func(field byte, s string) {
		if s != "" {
			out = append(out, field)
			out = binary.AppendUvarint(out, uint64(len(s)))
			out = append(out, s...)
		}
	}
	text(fieldReason, b.reason)
	text(fieldAuthor, b.author)
	return out
}

func decodeBooking(m sla.Minute, data []byte) (b booking, err error) {
	if err = decodeBookingInto(&b, m, data); err != nil {
		return booking{}, err
	}
	return b, nil
}

// decodeBookingInto decodes into a booking that may have been used before.
func decodeBookingInto(b *booking, m sla.Minute, data []byte) error {
	author := b.author
	*b = booking{}
	fail := func(what string) error {
		return fmt.Errorf("%w: minute %s: %s", errCorrupt, m.Time().Format("2006-01-02T15:04Z"), what)
	}
	if len(data) == 0 {
		return fail("empty value")
	}
	if data[0] != valueVersion {
		return fail(fmt.Sprintf("version %d is newer than this program: use the one that wrote it", data[0]))
	}
	seq, n := binary.Uvarint(data[1:])
	if n <= 0 {
		return fail("no batch number")
	}
	b.seq = seq
	data = data[1+n:]
	f := &b.figures
	c := cursor{data: data}
	for len(c.data) > 0 {
		field := c.data[0]
		c.data = c.data[1:]
		switch field {
		case fieldReason, fieldAuthor:
			text := c.take(c.uvarint())
			if c.bad {
				return fail("a text is cut off")
			}
			switch {
			case field == fieldReason:
				b.reason = string(text)
			case string(text) == author: // as before: no other copy of it
				b.author = author
			default:
				b.author = string(text)
			}
			continue
		case fieldGap:
			g := sla.Gap{From: m - sla.Minute(c.varint()), To: m - sla.Minute(c.varint()), GoodLow: c.varint(), GoodHigh: c.varint(), Total: c.varint()}
			if c.bad {
				return fail("a gap is cut off")
			}
			f.Gaps = append(f.Gaps, g)
			continue
		}
		v := c.varint()
		if c.bad {
			return fail("a number is cut off")
		}
		switch field {
		case fieldGoodLow:
			f.GoodLow = v
		case fieldGoodHigh:
			f.GoodHigh = v
		case fieldTotal:
			f.Total = v
		case fieldExpected:
			f.Expected = v
		case fieldCounted:
			f.Counted = v
		case fieldTimed:
			f.Timed = v
		case fieldInterval:
			f.IntervalMillis = v
		case fieldFlags:
			if v < 0 || v > math.MaxUint32 {
				return fail("flags out of range")
			}
			f.Flags = sla.Flags(v)
		default:
			return fail(fmt.Sprintf("unknown field %d", field))
		}
	}
	f.GoodHigh += f.GoodLow
	f.Total += f.GoodHigh
	f.Counted += f.Expected
	f.Timed += f.Counted
	return nil
}

func dayKey(prefix byte, day int64, id sla.ID) []byte {
	return append(dayPrefix(prefix, day), id[:]...)
}

// dayPrefix begins the keys of a day.
func dayPrefix(prefix byte, day int64) []byte {
	k := append(make([]byte, 0, 24), prefix)
	return binary.BigEndian.AppendUint32(k, uint32(day+1<<31))
}

// minuteKey is the key of a first booking (seq 0) or of a revision.
func minuteKey(id sla.ID, m sla.Minute, seq uint64) []byte {
	return appendMinuteKey(make([]byte, 0, 24), id, m, seq)
}

func appendMinuteKey(k []byte, id sla.ID, m sla.Minute, seq uint64) []byte {
	prefix := byte('e')
	if seq != 0 {
		prefix = 'r'
	}
	day := m.Day()
	k = append(k, prefix)
	k = binary.BigEndian.AppendUint32(k, uint32(day+1<<31))
	k = append(k, id[:]...)
	k = binary.BigEndian.AppendUint16(k, uint16(int64(m)-day*1440))
	if seq != 0 {
		k = binary.BigEndian.AppendUint64(k, seq)
	}
	return k
}

// parseMinuteKey reads what minuteKey wrote.
func parseMinuteKey(k []byte) (id sla.ID, m sla.Minute, seq uint64, err error) {
	fail := func() (sla.ID, sla.Minute, uint64, error) {
		return sla.ID{}, 0, 0, fmt.Errorf("%w: the key %x of a minute", errCorrupt, k)
	}
	switch {
	case len(k) == 15 && k[0] == 'e':
	case len(k) == 23 && k[0] == 'r':
		if seq = binary.BigEndian.Uint64(k[15:]); seq == 0 {
			return fail()
		}
	default:
		return fail()
	}
	minute := binary.BigEndian.Uint16(k[13:])
	if minute >= 1440 {
		return fail()
	}
	copy(id[:], k[5:13])
	day := int64(binary.BigEndian.Uint32(k[1:])) - 1<<31
	return id, sla.Minute(day*1440 + int64(minute)), seq, nil
}

// after returns the first key behind all that begin with prefix.
func after(prefix []byte) []byte {
	k := append([]byte(nil), prefix...)
	for i := len(k) - 1; i >= 0; i-- {
		k[i]++
		if k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}
