package fluentbit

import (
	"encoding/binary"
	"math"
	"time"
)

// Next decodes the next entry of a chunk, as GetRecord of fluent-bit-go: a ret
// below 0 is an entry that is not of the form [time, record], and −1 one that
// could not be decoded at all, behind which nothing more can be. The time is a
// time.Time, a number of seconds, or whatever stood there.
type Next func() (ret int, at any, record map[any]any)

// Entries decodes a chunk. GetRecord says of what it cannot read neither what it
// was nor whether it was the end, so the entries are told apart here: each gets
// its place, and what cannot be read is handed on as it stands.
func Entries(chunk []byte, open func(part []byte) Next) []Entry {
	ends, rest := split(chunk)
	entries := make([]Entry, 0, len(ends)+1)
	var next Next
	broken := false // from then on each entry has a decoder of its own
	from := 0
	for _, end := range ends {
		part := chunk[from:end]
		switch {
		case broken:
			next = open(part)
		case next == nil:
			next = open(chunk)
		}
		ret, at, record := next()
		broken = broken || ret == -1
		if when, ok := moment(at); ok && ret >= 0 && record != nil {
			entries = append(entries, Entry{Time: when, Record: record})
		} else {
			entries = append(entries, Entry{Undecoded: part})
		}
		from = end
	}
	if len(rest) > 0 {
		entries = append(entries, Entry{Undecoded: rest})
	}
	return entries
}

// maxSeconds is as far from 1970 as a float64 counts single seconds.
const maxSeconds = 1 << 53

// moment reads a time; ok is false for what is none.
func moment(at any) (t time.Time, ok bool) {
	switch at := at.(type) {
	case time.Time:
		return at, true
	case uint64:
		return time.Unix(int64(at), 0), at <= maxSeconds
	case int64:
		return time.Unix(at, 0), at >= -maxSeconds && at <= maxSeconds
	case float64:
		whole, part := math.Modf(at)
		return time.Unix(int64(whole), int64(part*1e9)), math.Abs(at) <= maxSeconds
	}
	return time.Time{}, false
}

// split returns where each msgpack value at the top of b ends, and what is left
// of one that is torn or no msgpack. It decodes nothing.
func split(b []byte) (ends []int, rest []byte) {
	at := 0
	for at < len(b) {
		size, ok := valueSize(b[at:])
		if !ok {
			return ends, b[at:]
		}
		at += size
		ends = append(ends, at)
	}
	return ends, nil
}

// valueSize is the length of the value that b begins with, and of all in it
// (msgpack specification, "Formats").
func valueSize(b []byte) (size int, ok bool) {
	at := uint64(0)
	for open := uint64(1); open > 0; open-- {
		// Each value that is still to come takes a byte at least.
		if left := uint64(len(b)) - at; open > left {
			return 0, false
		}
		head, body, inside, ok := valueHead(b[at:])
		if !ok || head+body > uint64(len(b))-at {
			return 0, false
		}
		at += head + body
		open += inside
	}
	return int(at), true
}

// valueHead reads how many bytes the head and the body of a value have, and how
// many values are in it.
func valueHead(b []byte) (head, body, inside uint64, ok bool) {
	// counted reads a length of n bytes behind the first byte.
	counted := func(n int) (uint64, bool) {
		if len(b) < 1+n {
			return 0, false
		}
		var whole [8]byte
		copy(whole[8-n:], b[1:1+n])
		return binary.BigEndian.Uint64(whole[:]), true
	}
	switch c := b[0]; {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // small numbers, nil, booleans
		return 1, 0, 0, true
	case c <= 0x8f: // map
		return 1, 0, 2 * uint64(c&0x0f), true
	case c <= 0x9f: // array
		return 1, 0, uint64(c & 0x0f), true
	case c <= 0xbf: // text
		return 1, uint64(c & 0x1f), 0, true
	case c >= 0xc4 && c <= 0xc6: // bytes
		n := 1 << (c - 0xc4)
		body, ok = counted(n)
		return 1 + uint64(n), body, 0, ok
	case c >= 0xc7 && c <= 0xc9: // extension, with a byte for its type
		n := 1 << (c - 0xc7)
		body, ok = counted(n)
		return 2 + uint64(n), body, 0, ok
	case c == 0xca, c == 0xcb: // float
		return 1, 4 << (c - 0xca), 0, true
	case c >= 0xcc && c <= 0xcf: // unsigned
		return 1, 1 << (c - 0xcc), 0, true
	case c >= 0xd0 && c <= 0xd3: // signed
		return 1, 1 << (c - 0xd0), 0, true
	case c >= 0xd4 && c <= 0xd8: // extension of a fixed size
		return 2, 1 << (c - 0xd4), 0, true
	case c >= 0xd9 && c <= 0xdb: // text
		n := 1 << (c - 0xd9)
		body, ok = counted(n)
		return 1 + uint64(n), body, 0, ok
	case c == 0xdc, c == 0xdd: // array
		n := 2 << (c - 0xdc)
		inside, ok = counted(n)
		return 1 + uint64(n), 0, inside, ok
	case c == 0xde, c == 0xdf: // map
		n := 2 << (c - 0xde)
		inside, ok = counted(n)
		return 1 + uint64(n), 0, 2 * inside, ok
	}
	return 0, 0, 0, false // 0xc1 is never used
}
