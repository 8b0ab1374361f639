package fluentbit

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestEveryFormatOfMsgpackIsMeasured(t *testing.T) {
	fill := func(head string, n int) string { return head + strings.Repeat("\x01", n) }
	for _, value := range []string{
		"\x00", "\x7f", "\xe0", "\xff", "\xc0", "\xc2", "\xc3",
		"\x80", fill("\x82", 4), "\x90", fill("\x9f", 15), "\xa0", fill("\xbf", 31),
		fill("\xc4\x05", 5), fill("\xc5\x01\x00", 256), fill("\xc6\x00\x01\x00\x00", 65536),
		fill("\xc7\x05\x00", 5), fill("\xc8\x01\x00\x00", 256), fill("\xc9\x00\x00\x01\x00\x00", 256),
		fill("\xca", 4), fill("\xcb", 8), fill("\xcc", 1), fill("\xcd", 2), fill("\xce", 4), fill("\xcf", 8),
		fill("\xd0", 1), fill("\xd1", 2), fill("\xd2", 4), fill("\xd3", 8),
		fill("\xd4\x00", 1), fill("\xd5\x00", 2), fill("\xd6\x00", 4), fill("\xd7\x00", 8), fill("\xd8\x00", 16),
		fill("\xd9\x05", 5), fill("\xda\x01\x00", 256), fill("\xdb\x00\x00\x01\x00", 256),
		fill("\xdc\x00\x05", 5), fill("\xdd\x00\x00\x00\x05", 5), fill("\xde\x00\x05", 10), fill("\xdf\x00\x00\x00\x05", 10),
		"\x92\x81\xa1a\x91\x90\xc0",
	} {
		if ends, rest := split([]byte(value + "\xc0")); len(ends) != 2 || ends[0] != len(value) || len(rest) > 0 {
			t.Errorf("%.8x…: ends %v of %d, %d are left", value, ends, len(value), len(rest))
		}
		for cut := range min(len(value), 40) {
			if ends, rest := split([]byte(value)[:cut]); len(ends) > 0 || len(rest) != cut {
				t.Errorf("%.8x… cut to %d: ends %v, %d are left", value, cut, ends, len(rest))
			}
		}
	}
	for _, broken := range []string{"\xc1", "\xdf\xff\xff\xff\xff\x00", "\xdd\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", strings.Repeat("\xdf\xff\xff\xff\xff", 100)} {
		if ends, rest := split([]byte("\xc0" + broken)); len(ends) != 1 || string(rest) != broken {
			t.Errorf("%x: ends %v, left %x", broken, ends, rest)
		}
	}
}

// decoder plays GetRecord: each entry of a part is one byte, and the script says
// what is made of it.
type decoder struct {
	script map[byte]func() (int, any, map[any]any)
	opened []string
}

func (d *decoder) open(part []byte) Next {
	d.opened = append(d.opened, string(part))
	return func() (int, any, map[any]any) {
		if len(part) == 0 {
			return -1, 0, nil
		}
		b := part[0]
		part = part[1:]
		if f := d.script[b]; f != nil {
			return f()
		}
		return 0, uint64(b), map[any]any{"log": string(rune('a' + b))}
	}
}

func TestEntryThatCannotBeReadDoesNotStopTheOthers(t *testing.T) {
	d := &decoder{script: map[byte]func() (int, any, map[any]any){
		2: func() (int, any, map[any]any) { return -3, 0, nil },
		4: func() (int, any, map[any]any) { return -1, 0, nil },
		6: func() (int, any, map[any]any) { return 0, "no time", map[any]any{"log": "x"} },
	}}
	entries := Entries([]byte{1, 2, 3, 4, 5, 6, 7, 0xc1, 0xff}, d.open)
	var got []string
	for _, e := range entries {
		if e.Record == nil {
			got = append(got, fmt.Sprintf("%x", e.Undecoded))
		} else {
			got = append(got, fmt.Sprintf("%s@%d", e.Record["log"], e.Time.Unix()))
		}
	}
	if want := "[b@1 02 d@3 04 f@5 06 h@7 c1ff]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	// A decoder for each entry copies what it is given: once for the chunk, and
	// behind an entry that broke it once for each entry.
	if want := "[\x01\x02\x03\x04\x05\x06\x07\xc1\xff \x05 \x06 \x07]"; fmt.Sprint(d.opened) != want {
		t.Errorf("opened %q", d.opened)
	}
}

func TestTimesOfEveryForm(t *testing.T) {
	when := time.Unix(1_700_000_000, 5)
	for _, c := range []struct {
		at   any
		want time.Time
		ok   bool
	}{
		{when, when, true},
		{uint64(1_700_000_000), time.Unix(1_700_000_000, 0), true},
		{int64(-1), time.Unix(-1, 0), true},
		{1_700_000_000.5, time.Unix(1_700_000_000, 500_000_000), true},
		{uint64(math.MaxUint64), time.Time{}, false},
		{int64(math.MinInt64), time.Time{}, false},
		{math.Inf(1), time.Time{}, false},
		{math.NaN(), time.Time{}, false},
		{nil, time.Time{}, false},
		{"2026", time.Time{}, false},
	} {
		if got, ok := moment(c.at); ok != c.ok || ok && !got.Equal(c.want) {
			t.Errorf("%v is %v, %t", c.at, got, ok)
		}
	}
}

func FuzzEntries(f *testing.F) {
	f.Add([]byte("\x92\xd7\x00\x5e\xa9\x17\xe0\x00\x00\x00\x00\x81\xa3log\xa1a"))
	f.Add([]byte("\xdd\x00\x00\x00\x02\x92\x00\x80\x81\xa3log\xa1a\x92\xc1"))
	f.Fuzz(func(t *testing.T, chunk []byte) {
		// Nothing decodes: all bytes must be handed on, in their order.
		entries := Entries(chunk, func([]byte) Next { return func() (int, any, map[any]any) { return -1, 0, nil } })
		var got []byte
		for _, e := range entries {
			if len(e.Undecoded) == 0 {
				t.Fatal("an entry of nothing")
			}
			got = append(got, e.Undecoded...)
		}
		if !bytes.Equal(got, chunk) {
			t.Errorf("%x became %x", chunk, got)
		}
	})
}
