package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nines/pkg/sla"
)

func drawFigures(t *rapid.T) sla.Figures {
	n := rapid.OneOf(rapid.Int64Range(-3, 3), rapid.Int64())
	f := sla.Figures{
		Counts: sla.Counts{
			GoodLow: n.Draw(t, "good low"), GoodHigh: n.Draw(t, "good high"), Total: n.Draw(t, "total"),
			Expected: n.Draw(t, "expected"), Counted: n.Draw(t, "counted"), Timed: n.Draw(t, "timed"),
		},
		IntervalMillis: n.Draw(t, "interval"),
		Flags:          sla.Flags(rapid.Uint32().Draw(t, "flags")),
	}
	for range rapid.IntRange(0, 3).Draw(t, "gaps") {
		f.Gaps = append(f.Gaps, sla.Gap{
			From: sla.Minute(n.Draw(t, "from")), To: sla.Minute(n.Draw(t, "to")),
			GoodLow: n.Draw(t, "gap's good low"), GoodHigh: n.Draw(t, "gap's good high"), Total: n.Draw(t, "gap's total"),
		})
	}
	return f
}

func TestBookingIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := sla.Minute(rapid.Int64().Draw(t, "minute"))
		want := booking{rapid.Uint64().Draw(t, "seq"), drawFigures(t), rapid.String().Draw(t, "reason"), rapid.String().Draw(t, "author")}
		got, err := decodeBooking(m, encodeBooking(m, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
		}
	})
}

// A range over keys is a range over days, then objectives, then minutes, and
// revisions follow in the order of their batches.
func TestKeysSortByDayObjectiveMinuteAndBatch(t *testing.T) {
	type place struct {
		day    int64
		id     sla.ID
		minute sla.Minute
		seq    uint64
	}
	draw := func(t *rapid.T, revision bool) (place, []byte) {
		day := rapid.OneOf(rapid.Int64Range(-2, 2), rapid.Int64Range(math.MinInt32, math.MaxInt32)).Draw(t, "day")
		p := place{day: day, minute: sla.Minute(day*1440 + rapid.Int64Range(0, 1439).Draw(t, "minute"))}
		copy(p.id[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "id"))
		if revision {
			p.seq = rapid.Uint64Min(1).Draw(t, "seq")
		}
		k := minuteKey(p.id, p.minute, p.seq)
		id, m, seq, err := parseMinuteKey(k)
		if err != nil || id != p.id || m != p.minute || seq != p.seq {
			t.Fatalf("%+v is read as %v, %d, %d, %v", p, id, m, seq, err)
		}
		return p, k
	}
	less := func(a, b place) bool {
		if a.day != b.day {
			return a.day < b.day
		}
		if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
			return c < 0
		}
		if a.minute != b.minute {
			return a.minute < b.minute
		}
		return a.seq < b.seq
	}
	rapid.Check(t, func(t *rapid.T) {
		revision := rapid.Bool().Draw(t, "revision")
		a, ka := draw(t, revision)
		b, kb := draw(t, revision)
		if less(a, b) != (bytes.Compare(ka, kb) < 0) {
			t.Fatalf("%+v is %x, %+v is %x", a, ka, b, kb)
		}
	})
}

func TestFirstKeyBehindAPrefix(t *testing.T) {
	for _, c := range [][2][]byte{
		{{1, 2}, {1, 3}}, {{1, 0xff}, {2}}, {{1, 0xff, 0xff}, {2}}, {{0xff}, nil},
	} {
		if got := after(c[0]); !bytes.Equal(got, c[1]) {
			t.Errorf("behind %x comes %x, want %x", c[0], got, c[1])
		}
	}
}

// The format on disk: books of earlier builds must stay readable.
func TestFormatOfABookingIsKept(t *testing.T) {
	f := figures(1)
	f.Flags, f.Gaps = sla.FlagSampled, []sla.Gap{{From: 98, To: 100, GoodLow: 1, GoodHigh: 2, Total: 3}}
	want := []byte("\x01\x05" + // version, batch
		"\x01\xb4\x01" + "\x02\x0a" + "\x03\x0a" + // good low 90, high +5, total +5
		"\x04\xc0\xa9\x07" + "\x05\xcf\x0f" + "\x06\xcf\x0f" + // expected 60 s, counted and timed -1 s each
		"\x07\xb0\xea\x01" + "\x08\x02" + // interval 15 s, flags
		"\x09\x04\x00\x02\x04\x06" + // gap from -2 to -0
		"\x0a\x03why" + "\x0b\x03who")
	if got := encodeBooking(100, booking{5, f, "why", "who"}); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if got := minuteKey(id(1), 1441, 0); !bytes.Equal(got, []byte("e\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01")) {
		t.Errorf("key of a booking %x", got)
	}
	if got := minuteKey(id(1), -1, 2); !bytes.Equal(got, []byte("r\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x01\x05\x9f\x00\x00\x00\x00\x00\x00\x00\x02")) {
		t.Errorf("key of a revision %x", got)
	}
}

func TestValueOfAnotherVersionSaysSo(t *testing.T) {
	_, err := decodeBooking(0, []byte{2, 1})
	if !errors.Is(err, errCorrupt) || !strings.Contains(err.Error(), "use the one that wrote it") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecodeBooking(f *testing.F) {
	figs := figures(3)
	figs.Gaps = []sla.Gap{{From: 1, To: 2, Total: 3}}
	whole := encodeBooking(5, booking{7, figs, "late", "me"})
	f.Add(int64(5), whole)
	for i := range whole {
		f.Add(int64(5), whole[:i])
	}
	f.Add(int64(0), []byte{1, 1, fieldReason, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add(int64(math.MinInt64), []byte{1, 1, fieldGap, 1, 1, 1, 1, 1})
	f.Add(int64(0), []byte{1, 1, 99, 1})
	f.Fuzz(func(t *testing.T, minute int64, data []byte) {
		m := sla.Minute(minute)
		got, err := decodeBooking(m, data)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("error %v does not say that the value is corrupt", err)
			}
			return
		}
		again, err := decodeBooking(m, encodeBooking(m, got))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v is read again as %+v, %v", got, again, err)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	h := header{count: 3, firstDay: -1, lastDay: 4, before: [32]byte{1}}
	h.Position = Position{Term: 2, Seq: 9, At: 1_700_000_000_000, Hash: [32]byte{2}}
	whole := h.encode()
	f.Add(batchKey(9), whole)
	f.Add([]byte{}, whole)
	f.Add(batchKey(9), append(whole, 0))
	f.Add(batchKey(9), bytes.Repeat([]byte{0xff}, 80))
	for i := range whole {
		f.Add(batchKey(9), whole[:i])
	}
	f.Fuzz(func(t *testing.T, k, v []byte) {
		got, err := decodeHeader(k, v)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("error %v does not say that the value is corrupt", err)
			}
			return
		}
		if got.Seq != binary.BigEndian.Uint64(k[1:]) {
			t.Errorf("batch %d has the key %x", got.Seq, k)
		}
		if again, err := decodeHeader(k, got.encode()); err != nil || again != got {
			t.Errorf("%+v is read again as %+v, %v", got, again, err)
		}
	})
}

func FuzzDecodeMinuteKey(f *testing.F) {
	f.Add(minuteKey(id(1), -1, 0))
	f.Add(minuteKey(id(1), 1439, 1<<63))
	f.Add([]byte{})
	f.Add([]byte("e\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x05\xa0")) // minute 1440 of a day
	f.Add(append(minuteKey(id(1), 1, 1)[:15], make([]byte, 8)...))
	f.Fuzz(func(t *testing.T, k []byte) {
		id, m, seq, err := parseMinuteKey(k)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("error %v does not say that the key is corrupt", err)
			}
			return
		}
		if got := minuteKey(id, m, seq); !bytes.Equal(got, k) {
			t.Errorf("%x is written again as %x", k, got)
		}
	})
}
