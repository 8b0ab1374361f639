//go:build cgo

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nines/agent/fluentbit"
)

// What fluent-bit-go makes of the forms that Fluent Bit has had; the texts are
// msgpack.
func TestChunksOfEveryFormAreRead(t *testing.T) {
	const (
		record  = "\x82\xa3log\xa5hello\xa1n\x01"
		event   = "\xd7\x00\x65\x53\xf1\x00\x00\x00\x00\x05" // 1_700_000_000 s and 5 ns
		seconds = "\xce\x65\x53\xf1\x00"
	)
	when := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		entry string
		at    time.Time // zero: it cannot be read
	}{
		"event time":                {"\x92" + event + record, when.Add(5)},
		"seconds":                   {"\x92" + seconds + record, when},
		"second form, event time":   {"\xdd\x00\x00\x00\x02\xdd\x00\x00\x00\x02" + event + "\x81\xa1k\xa1v" + record, when.Add(5)},
		"second form, seconds":      {"\x92\x92" + seconds + "\x80" + record, when},
		"second form, small number": {"\x92\x92\x07\x80" + record, time.Unix(7, 0)},
		"second form, no time":      {"\x92\x92\xc0\x80" + record, time.Time{}},
		"no time":                   {"\x92\xc0" + record, time.Time{}},
		"three things":              {"\x93" + event + record + "\xc0", time.Time{}},
		"no map":                    {"\x92" + event + "\xa1x", time.Time{}},
		"nil":                       {"\xc0", time.Time{}},
		"text of two bytes":         {"\xa2ab", time.Time{}},
		"event time too short":      {"\x92\xd4\x00\x01" + record, time.Time{}},
		"map as a key":              {"\x92" + event + "\x81\x80\x01", time.Time{}},
		"nested too deep":           {"\x92" + event + "\x81\xa1a" + strings.Repeat("\x91", 5000) + "\xc0", time.Time{}},
	} {
		// It stands between two that are well.
		good := "\x92" + event + record
		entries := fluentbit.Entries([]byte(good+c.entry+good), open)
		if len(entries) != 3 {
			t.Errorf("%s: %d entries", name, len(entries))
			continue
		}
		for i, want := range []time.Time{when.Add(5), c.at, when.Add(5)} {
			e := entries[i]
			switch {
			case want.IsZero() && (e.Record != nil || string(e.Undecoded) != c.entry):
				t.Errorf("%s: %v", name, e)
			case !want.IsZero() && (!e.Time.Equal(want) || fmt.Sprintf("%s %v", e.Record["log"], e.Record["n"]) != "hello 1"):
				t.Errorf("%s: entry %d is %v", name, i, e)
			}
		}
	}
	empty := fluentbit.Entries([]byte("\x92"+event+"\x80"), open)
	if len(empty) != 1 || empty[0].Record == nil {
		t.Errorf("a record without keys: %v", empty)
	}
}
