package ledger

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/bits"

	"nines/pkg/sla"
)

// block is a sealed day of one objective: its first bookings, packed. Nothing
// is lost: the entries that it replaces can be made again byte for byte, and
// with them the hashes of their batches.
type block struct {
	run    *Run // begins with the day
	oldest uint64
	newest uint64   // the last batch of which it replaces entries
	hash   [32]byte // of that batch
	steps  []step
	texts  []texts
}

// step is how the batches of booked minutes follow each other: for n minutes
// each one is by apart from that of the minute before. Minutes that are booked
// one by one are a single step.
type step struct {
	n  int
	by int64
}

// texts are reason and author of n booked minutes.
type texts struct {
	n              int
	reason, author string
}

func newBlock(day int64) *block { return &block{run: &Run{First: sla.Minute(day * 1440)}} }

// add packs a minute behind those that are in the block. before is the batch of
// the booked minute before it, 0 for the first one.
func (k *block) add(m sla.Minute, b booking, before uint64) {
	for k.run.End() < m {
		k.run.Skip()
	}
	k.run.Add(b.figures)
	if k.oldest == 0 || b.seq < k.oldest {
		k.oldest = b.seq
	}
	k.newest = max(k.newest, b.seq)
	by := int64(b.seq - before)
	if n := len(k.steps); n > 0 && k.steps[n-1].by == by {
		k.steps[n-1].n++
	} else {
		k.steps = append(k.steps, step{1, by})
	}
	if n := len(k.texts); n > 0 && k.texts[n-1].reason == b.reason && k.texts[n-1].author == b.author {
		k.texts[n-1].n++
	} else {
		k.texts = append(k.texts, texts{1, b.reason, b.author})
	}
}

func blockKey(day int64, id sla.ID) []byte { return dayKey('k', day, id) }

func (k *block) encode() []byte {
	out := make([]byte, 0, len(k.run.Data)+64)
	out = append(out, valueVersion)
	out = binary.AppendUvarint(out, k.oldest)
	out = binary.AppendUvarint(out, k.newest)
	out = append(out, k.hash[:]...)
	out = binary.AppendUvarint(out, uint64(k.run.Len))
	out = binary.AppendUvarint(out, uint64(len(k.run.Data)))
	out = append(out, k.run.Data...)
	out = binary.AppendUvarint(out, uint64(len(k.steps)))
	for _, s := range k.steps {
		out = binary.AppendUvarint(out, uint64(s.n))
		out = binary.AppendVarint(out, s.by)
	}
	out = binary.AppendUvarint(out, uint64(len(k.texts)))
	for _, t := range k.texts {
		out = binary.AppendUvarint(out, uint64(t.n))
		for _, s := range [2]string{t.reason, t.author} {
			out = binary.AppendUvarint(out, uint64(len(s)))
			out = append(out, s...)
		}
	}
	return out
}

// cursor takes bytes off the front of a value.
type cursor struct {
	data []byte
	bad  bool
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.data)
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.data = c.data[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.data)
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.data = c.data[n:]
	return v
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.data)) {
		c.bad = true
		return nil
	}
	v := c.data[:n:n]
	c.data = c.data[n:]
	return v
}

func (c *cursor) version() {
	if v := c.take(1); c.bad || v[0] != valueVersion {
		c.bad = true
	}
}

// decodeBlock reads a block. Its packed minutes stay in data and are read when
// they are asked for.
func decodeBlock(day int64, data []byte) (*block, error) {
	c := cursor{data: data}
	k := newBlock(day)
	c.version()
	k.oldest, k.newest = c.uvarint(), c.uvarint()
	copy(k.hash[:], c.take(32))
	minutes := c.uvarint()
	k.run.Data = c.take(c.uvarint())
	k.run.Len, k.run.cold = int(minutes), true
	c.bad = c.bad || minutes > 1440
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		s := step{int(c.uvarint()), c.varint()}
		c.bad = c.bad || s.n < 1 || s.n > 1440
		k.steps = append(k.steps, s)
	}
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		t := texts{n: int(c.uvarint())}
		c.bad = c.bad || t.n < 1 || t.n > 1440
		t.reason = string(c.take(c.uvarint()))
		t.author = string(c.take(c.uvarint()))
		k.texts = append(k.texts, t)
	}
	if c.bad || len(c.data) > 0 {
		return nil, fmt.Errorf("%w: sealed day %s", errCorrupt, dayName(day))
	}
	return k, nil
}

func dayName(day int64) string { return sla.Minute(day * 1440).Time().Format("2006-01-02") }

// each calls fn for the booked minutes in [from, to). The booking is valid
// during the call; its gaps may be kept.
func (k *block) each(from, to sla.Minute, fn func(sla.Minute, *booking) error) error {
	rd := k.run.Reader()
	var b booking
	var steps, inStep, text, inText int
	for rd.Minute() < k.run.End() {
		m := rd.Minute()
		if m >= to {
			return nil
		}
		f, booked, ok := rd.Next()
		if !ok {
			return fmt.Errorf("%w: sealed day %s: its packed minutes", errCorrupt, dayName(k.run.First.Day()))
		}
		if !booked {
			continue
		}
		if steps >= len(k.steps) || text >= len(k.texts) {
			return fmt.Errorf("%w: sealed day %s: minutes without a batch", errCorrupt, dayName(k.run.First.Day()))
		}
		b.seq += uint64(k.steps[steps].by)
		if inStep++; inStep == k.steps[steps].n {
			steps, inStep = steps+1, 0
		}
		b.reason, b.author = k.texts[text].reason, k.texts[text].author
		if inText++; inText == k.texts[text].n {
			text, inText = text+1, 0
		}
		if m < from {
			continue
		}
		b.figures = *f
		if err := fn(m, &b); err != nil {
			return err
		}
	}
	if rd.offset != len(k.run.Data) || steps != len(k.steps) || text != len(k.texts) {
		return fmt.Errorf("%w: sealed day %s: there is more than its minutes", errCorrupt, dayName(k.run.First.Day()))
	}
	return nil
}

// tally is the sum of first bookings: those of one sealed day, or those of all
// sealed days before it.
type tally struct {
	counts  sla.Sum   // without gaps; flags is in its place
	gaps    sla.Sum   // the events of gaps; its minutes are how many gaps there are
	flags   [32]int64 // minutes with each flag
	longest int64     // minutes from the first one of a gap to the one that holds it, at most
	newest  uint64    // the last batch
}

func (t *tally) add(m sla.Minute, b *booking) {
	t.counts.Add(b.figures.Counts)
	for _, g := range b.figures.Gaps {
		t.gaps.Add(gapCounts(g))
		t.longest = max(t.longest, int64(m-g.From))
	}
	for f := uint32(b.figures.Flags); f != 0; f &= f - 1 {
		t.flags[bits.TrailingZeros32(f)]++
	}
	t.newest = max(t.newest, b.seq)
}

func gapCounts(g sla.Gap) sla.Counts {
	return sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total}
}

// plus returns the tally of t and of what follows.
func (t tally) plus(o tally) tally {
	t.counts.Merge(o.counts)
	t.gaps.Merge(o.gaps)
	for i, n := range o.flags {
		t.flags[i] += n
	}
	t.longest = max(t.longest, o.longest)
	t.newest = max(t.newest, o.newest)
	return t
}

// between returns what lies between two tallies from the same beginning.
func between(before, after *tally) sla.Sum {
	s := subtract(after.counts, before.counts)
	s.Flags = 0
	for i, n := range after.flags {
		if n != before.flags[i] {
			s.Flags |= 1 << i
		}
	}
	return s
}

func subtract(a, b sla.Sum) sla.Sum {
	a.GoodLow, a.GoodHigh, a.Total = a.GoodLow.Sub(b.GoodLow), a.GoodHigh.Sub(b.GoodHigh), a.Total.Sub(b.Total)
	a.Expected, a.Counted, a.Timed = a.Expected.Sub(b.Expected), a.Counted.Sub(b.Counted), a.Timed.Sub(b.Timed)
	a.Minutes -= b.Minutes
	return a
}

// heading is what sums need of a sealed day without reading it. It follows from
// the blocks.
type heading struct {
	first, last sla.Minute // booked ones
	own         tally
	before      tally // of the sealed days before it
}

// whole reports whether all minutes from the first to the last are booked.
func (h *heading) whole() bool { return h.own.counts.Minutes == int64(h.last-h.first)+1 }

func headingKey(id sla.ID, day int64) []byte {
	day = min(max(day, math.MinInt32), math.MaxInt32)
	k := append(make([]byte, 0, 13), 'h')
	k = append(k, id[:]...)
	return binary.BigEndian.AppendUint32(k, uint32(day+1<<31))
}

// headingEnd returns the first key behind the headings of the days before one,
// which may be further away than a key can name.
func headingEnd(id sla.ID, day int64) []byte {
	if day > math.MaxInt32 {
		return after(headingKey(id, 0)[:9])
	}
	return headingKey(id, day)
}

func parseHeadingKey(k []byte) (id sla.ID, day int64, err error) {
	if len(k) != 13 || k[0] != 'h' {
		return sla.ID{}, 0, fmt.Errorf("%w: the key %x of a sealed day", errCorrupt, k)
	}
	copy(id[:], k[1:])
	return id, int64(binary.BigEndian.Uint32(k[9:])) - 1<<31, nil
}

func (h *heading) encode(day int64) []byte {
	out := make([]byte, 0, 192)
	out = append(out, valueVersion)
	out = binary.AppendUvarint(out, uint64(int64(h.first)-day*1440))
	out = binary.AppendUvarint(out, uint64(h.last-h.first))
	out = h.own.encode(out)
	return h.before.encode(out)
}

func decodeHeading(day int64, data []byte) (*heading, error) {
	c := cursor{data: data}
	h := new(heading)
	c.version()
	first, length := c.uvarint(), c.uvarint()
	h.own.decode(&c)
	h.before.decode(&c)
	if c.bad || len(c.data) > 0 || first >= 1440 || length >= 1440-first {
		return nil, fmt.Errorf("%w: sums of the sealed day %s", errCorrupt, dayName(day))
	}
	h.first = sla.Minute(day*1440 + int64(first))
	h.last = h.first + sla.Minute(length)
	return h, nil
}

func (t *tally) wide() [9]*sla.Int128 {
	return [9]*sla.Int128{
		&t.counts.GoodLow, &t.counts.GoodHigh, &t.counts.Total,
		&t.counts.Expected, &t.counts.Counted, &t.counts.Timed,
		&t.gaps.GoodLow, &t.gaps.GoodHigh, &t.gaps.Total,
	}
}

func (t *tally) encode(out []byte) []byte {
	for _, v := range t.wide() {
		out = appendWide(out, *v)
	}
	out = binary.AppendVarint(out, t.counts.Minutes)
	out = binary.AppendVarint(out, t.gaps.Minutes)
	out = binary.AppendVarint(out, t.longest)
	out = binary.AppendUvarint(out, t.newest)
	var set uint32
	for i, n := range t.flags {
		if n != 0 {
			set |= 1 << i
		}
	}
	out = binary.AppendUvarint(out, uint64(set))
	for ; set != 0; set &= set - 1 {
		out = binary.AppendVarint(out, t.flags[bits.TrailingZeros32(set)])
	}
	return out
}

func (t *tally) decode(c *cursor) {
	for _, v := range t.wide() {
		*v = takeWide(c)
	}
	t.counts.Minutes, t.gaps.Minutes, t.longest, t.newest = c.varint(), c.varint(), c.varint(), c.uvarint()
	set := c.uvarint()
	c.bad = c.bad || set>>32 != 0
	for ; set != 0 && !c.bad; set &= set - 1 {
		t.flags[bits.TrailingZeros64(set)] = c.varint()
	}
}

// appendWide writes a byte with the length and, in the highest bit, the sign,
// and the bytes of the amount.
func appendWide(out []byte, v sla.Int128) []byte {
	if v.Sign() == 0 {
		return append(out, 0)
	}
	b := v.Big()
	length := byte((b.BitLen() + 7) / 8)
	sign := byte(0)
	if b.Sign() < 0 {
		sign = 0x80
	}
	out = append(out, sign|length)
	return append(out, new(big.Int).Abs(b).Bytes()...)
}

func takeWide(c *cursor) (v sla.Int128) {
	head := c.take(1)
	if c.bad {
		return v
	}
	length := head[0] & 0x7f
	amount := c.take(uint64(length))
	if c.bad = c.bad || length > 16; c.bad {
		return v
	}
	if length < 8 {
		n := int64(0)
		for _, b := range amount {
			n = n<<8 | int64(b)
		}
		v = sla.NewInt128(n)
	} else {
		for _, b := range amount {
			for range 8 {
				v = v.Add(v)
			}
			v = v.AddInt64(int64(b))
		}
	}
	if head[0]&0x80 != 0 {
		v = sla.Int128{}.Sub(v)
	}
	return v
}
