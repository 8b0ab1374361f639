package ledger

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"pgregory.net/rapid"

	"nines/pkg/sla"
)

// whole checks that all of the book can be proven, but for what was dropped.
func whole(t rapid.TB, b *Book) Verification {
	t.Helper()
	v, err := b.Verify(context.Background(), nil)
	if err != nil || v.Broken != "" || v.Head != b.Head() || v.Batches != v.Head.Seq || v.Proven+v.Links != v.Batches {
		t.Fatalf("%+v, %v", v, err)
	}
	return v
}

// variedBook has something under each key.
func variedBook(t *testing.T, b *Book) {
	t.Helper()
	_, err := b.Append(Batch{
		Term: 1, At: 1, Objectives: []sla.Objective{{ID: id(1)}}, Sources: []Source{{Objective: id(1), Key: "a", First: 3}},
		Marks: []Mark{{Kind: "k", Key: "a", At: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for day := range sla.Minute(4) {
		for m := range sla.Minute(3) {
			book(t, b, 2, first(1, 100*testDay+day*testDay+m, figures(1)), first(2, 100*testDay+day*testDay+m, figures(2)))
		}
		book(t, b, 3, revision(1, 100*testDay+day*testDay, sla.Figures{Counts: sla.Counts{Total: 1}}))
	}
	sealed(t, b, 103*testDay)
	book(t, b, 4, first(1, 101*testDay+700, figures(3)))
}

func TestR25WholeBookIsProven(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if v := whole(t, b); v.Batches != 0 {
		t.Errorf("an empty book: %+v", v)
	}
	variedBook(t, b)
	calls := 0
	v, err := b.Verify(context.Background(), func(done, total uint64) {
		calls++
		if done != total || total != 18 {
			t.Errorf("%d of %d", done, total)
		}
	})
	if err != nil || v.Broken != "" || v.Proven != 18 || v.Entries != 3+2*12+4+1 || v.Blocks != 6 || calls != 1 {
		t.Errorf("%+v, %v, %d calls", v, err, calls)
	}
	if err := b.DropBefore(101 * testDay); err != nil {
		t.Fatal(err)
	}
	if v := whole(t, b); v.Links != 4 || v.Blocks != 4 {
		t.Errorf("after a drop: %+v", v)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Verify(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	closed(t, b)
	if b, err = Open(Config{Dir: dir, ReadOnly: true}, silent); err != nil {
		t.Fatal(err)
	}
	defer closed(t, b)
	whole(t, b)
}

// Whatever is changed, added or taken away below the book is found and named.
func TestR25BrokenBookIsTold(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(v []byte) []byte { v[(at+len(v))%len(v)] ^= 1; return v }
	}
	gone := func([]byte) []byte { return nil }
	day := int64(101)
	more := func(v []byte) []byte {
		h, err := decodeHeading(day, v)
		if err != nil {
			t.Fatal(err)
		}
		h.before.counts.Minutes++
		return h.encode(day)
	}
	open1 := minuteKey(id(1), 103*testDay+1, 0)
	for name, c := range map[string]struct {
		key    []byte
		change func([]byte) []byte
		want   string
	}{
		"hash in a header":     {batchKey(4), flip(-1), "batch 5 does not name the hash of batch 4"},
		"link of a header":     {batchKey(4), flip(-40), "batch 4 does not name the hash of batch 3"},
		"header gone":          {batchKey(4), gone, "batch 5 follows batch 3"},
		"count in a header":    {batchKey(4), flip(3), "batch 4 (term 1) booked 3 entries, 2 are in the book"},
		"time in a header":     {batchKey(4), flip(2), "the entries of batch 4 (term 1) do not give its hash"},
		"entry changed":        {open1, flip(-1), "the entries of batch"},
		"entry gone":           {open1, gone, "entries, 1 are in the book"},
		"entry of no batch":    {open1, func(v []byte) []byte { v[1] = 99; return v }, "is of batch 99, which is not in the chain"},
		"entry too many":       {minuteKey(id(9), 999*testDay, 0), func([]byte) []byte { return encodeBooking(0, booking{seq: 4}) }, "33 entries are in the book, the batches booked 32 of them"},
		"late entry changed":   {minuteKey(id(1), 101*testDay+700, 0), flip(-1), "the entries of batch 18"},
		"revision changed":     {minuteKey(id(1), 101*testDay, 9), flip(-1), "the entries of batch 9"},
		"definition changed":   {objectiveKey(id(1), 1), flip(-2), "the entries of batch 1"},
		"source gone":          {sourceKey(Source{Objective: id(1), Key: "a", First: 3}, 1), gone, "batch 1 (term 1) booked 3 entries, 2 are in the book"},
		"mark changed":         {markKey(Mark{Kind: "k", Key: "a", At: 1}), flip(-2), "the entries of batch 1"},
		"block gone":           {blockKey(day, id(1)), gone, "booked 2 entries, 1 are in the book"},
		"block names a hash":   {blockKey(day, id(1)), flip(10), "names another hash of batch 8 than the chain"},
		"minute in a block":    {blockKey(day, id(1)), flip(3 + 32 + 2 + 1), "the entries of batch 6"},
		"sums gone":            {headingKey(id(1), day), gone, "the sums before the sealed day 1970-04-13 of objective 0000000000000001 do not follow"},
		"last sums gone":       {headingKey(id(1), day+1), gone, "5 sealed days have sums for 6 blocks"},
		"sums of a day":        {headingKey(id(1), day), flip(4), "the sums of the sealed day 1970-04-12 of objective 0000000000000001 do not follow from its minutes"},
		"sums before a day":    {headingKey(id(1), day), more, "the sums before the sealed day 1970-04-12"},
		"sums without a block": {headingKey(id(7), day), func([]byte) []byte { return (&heading{first: 101 * testDay, last: 101 * testDay}).encode(day) }, "has sums and no block"},
	} {
		dir := t.TempDir()
		b := open(t, dir)
		variedBook(t, b)
		v, err := b.get(c.key)
		if err != nil || v == nil && !strings.Contains(name, "too many") && !strings.Contains(name, "without") {
			t.Errorf("%s: no key %x, %v", name, c.key, err)
			continue
		}
		if v = c.change(bytes.Clone(v)); v == nil {
			err = b.db.Delete(c.key, pebble.Sync)
		} else {
			err = b.db.Set(c.key, v, pebble.Sync)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Verify(context.Background(), nil)
		if err != nil || !strings.Contains(got.Broken, c.want) {
			t.Errorf("%s: %q, %v, want %q", name, got.Broken, err, c.want)
		}
		closed(t, b)
	}
}

func TestBatchesWithoutMinutesDoNotWidenTheDaysThatAreRead(t *testing.T) {
	part := []header{{firstDay: 0, lastDay: 0}, {firstDay: 7, lastDay: 9}, {firstDay: 5, lastDay: 7}}
	for n, want := range [][][2]int64{nil, {{0, 0}}, {{0, 0}, {7, 9}}, {{0, 0}, {5, 9}}} {
		got := spans(part[:n])
		if len(got) != len(want) {
			t.Fatalf("%d batches: %v, want %v", n, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%d batches: %v, want %v", n, got, want)
			}
		}
	}
}
