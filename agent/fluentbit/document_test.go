package fluentbit

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// odd is a value of a type that msgpack has and JSON lacks.
type odd struct {
	Tag  uint64
	Data []byte
}

func TestDocumentsAreAsTheyWere(t *testing.T) {
	record := map[any]any{
		"log": []byte("GET /<index> 200\r\n"), "stream": []byte("stdout"),
		"kubernetes": map[any]any{
			"pod_name": []byte("shop-1"),
			"labels":   map[any]any{"app": []byte("shop"), "app.kubernetes.io/name": []byte("shop")},
			"ports":    []any{int64(80), uint64(math.MaxUint64)},
		},
		"ratio": 0.5, "ready": true, "nothing": nil, "began": at,
	}
	entries := []Entry{
		{Time: at, Record: record},
		{Time: at, Record: map[any]any{"message": "text", "level": "info"}},
		{Time: at, Record: map[any]any{"log": "first", "message": "second"}},
		{Time: at, Record: map[any]any{"log": map[any]any{"a": int64(1)}, "message": []byte("log is no text")}},
		{Time: at, Record: map[any]any{"cpu": 1.5}},
		{Time: at, Record: map[any]any{}},
		{Time: at, Record: map[any]any{"log": []byte("a\xff\xfeb\n")}},
		{Time: at, Record: map[any]any{"log": "fine", "user": []byte("J\xfcrgen")}},
		{Time: at, Record: map[any]any{
			"log": "odd", "nan": math.NaN(), "inf": float32(math.Inf(-1)), "ext": odd{5, []byte{1}}, int64(1): "a", "1": "b", nil: "c",
		}},
		{Time: time.Unix(groupStart, 0), Record: map[any]any{"resource": map[any]any{"attributes": map[any]any{}}}},
		{Time: time.Unix(-5, 0), Record: map[any]any{"log": "before 1970"}},
		{Time: time.Unix(1<<40, 0), Record: map[any]any{"log": "after 9999"}},
		{Record: map[any]any{"log": "no time"}},
		{Undecoded: []byte("\x93no record")},
	}
	b := newBuilder("app.\xffweb", "Blue-1")
	var got []byte
	for _, e := range entries {
		doc := b.build(e, at.Add(time.Hour))
		for range 20 { // the order of a map's keys is another each time
			if again := b.build(e, at.Add(time.Hour)); !bytes.Equal(doc, again) {
				t.Errorf("the same entry is two documents:\n%s\n%s", doc, again)
			}
		}
		got = append(append(got, doc...), '\n')
	}
	golden := filepath.Join("testdata", "documents.golden.ndjson")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("documents differ from %s (go test -update writes it anew):\n%s", golden, got)
	}
}

// values makes a record of the fuzzer's bytes.
type values struct {
	data  []byte
	texts [][]byte // all []byte that were given as values, at any depth
}

func (v *values) byte() byte {
	if len(v.data) == 0 {
		return 0
	}
	b := v.data[0]
	v.data = v.data[1:]
	return b
}

func (v *values) text() []byte {
	n := min(int(v.byte()%16), len(v.data))
	b := v.data[:n]
	v.data = v.data[n:]
	return b
}

func (v *values) value(depth int) any {
	switch kind := v.byte() % 12; {
	case kind == 0 && depth < 8:
		return v.record(depth + 1)
	case kind == 1 && depth < 8:
		list := make([]any, v.byte()%4)
		for i := range list {
			list[i] = v.value(depth + 1)
		}
		return list
	case kind == 2:
		return int64(int8(v.byte())) << (v.byte() % 64)
	case kind == 3:
		return uint64(v.byte()) << (v.byte() % 64)
	case kind == 4:
		return math.Float64frombits(uint64(v.byte())<<56 | uint64(v.byte())<<48 | uint64(v.byte()))
	case kind == 5:
		return math.Float32frombits(uint32(v.byte())<<24 | uint32(v.byte())<<16)
	case kind == 6:
		return v.byte()%2 == 0
	case kind == 7:
		return time.Unix(int64(v.byte())<<(v.byte()%48), 0)
	case kind == 8:
		return odd{uint64(v.byte()), v.text()}
	case kind == 9:
		return string(v.text())
	case kind == 10:
		return nil
	}
	b := v.text()
	v.texts = append(v.texts, b)
	return b
}

func (v *values) record(depth int) map[any]any {
	m := map[any]any{}
	for range v.byte() % 6 {
		switch key := v.byte() % 8; key {
		case 0:
			m["log"] = v.value(depth)
		case 1:
			m["message"] = v.value(depth)
		case 2:
			m[int64(v.byte())] = v.value(depth)
		case 3:
			m[math.Float64frombits(uint64(v.byte())<<52)] = v.value(depth)
		case 4:
			m[nil] = v.value(depth)
		default:
			m[string(v.text())] = v.value(depth)
		}
	}
	return m
}

func FuzzDocument(f *testing.F) {
	f.Add("app", int64(1_700_000_000), int64(5), []byte("\x02\x00\x0b\x05hello\x05\x03key\x00\x01\x01\x04"))
	f.Add("\xff", int64(groupStart), int64(-1), []byte("\x03\x00\x0b\x03\xff\xfe\n\x03\x01\x04\x7f\xf8\x00"))
	f.Add("", int64(math.MinInt64), int64(math.MaxInt64), []byte("\x01\x01\x08\x04"))
	f.Fuzz(func(t *testing.T, tag string, sec, nsec int64, data []byte) {
		v := &values{data: data}
		e := Entry{Time: time.Unix(sec, nsec), Record: v.record(0)}
		check(t, newBuilder(tag, tag), e)
		check(t, newBuilder(tag, tag), Entry{Undecoded: data})
	})
}

func check(t *testing.T, b builder, e Entry) {
	t.Helper()
	doc := b.build(e, at)
	if bytes.ContainsAny(doc, "\n\r") || !utf8.Valid(doc) {
		t.Fatalf("not one line of UTF-8: %q", doc)
	}
	var d document
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
	when, err := time.Parse(time.RFC3339Nano, d.Timestamp)
	if err != nil || when.Year() < 1970 || when.Year() > 9999 {
		t.Errorf("@timestamp %q: %v", d.Timestamp, err)
	}
	if d.Fluentbit.Record != "" {
		var rest map[string]any
		dec := json.NewDecoder(strings.NewReader(d.Fluentbit.Record))
		dec.UseNumber() // a float64 of JSON may be too large for one of Go, a kept number never
		if err := dec.Decode(&rest); err != nil || len(rest) == 0 {
			t.Errorf("fluentbit.record %q: %v", d.Fluentbit.Record, err)
		}
	}
	want, ok := e.Undecoded, e.Record == nil
	if e.Record != nil {
		var text string
		if _, text, ok = message(e.Record); ok {
			want = []byte(strings.TrimSuffix(text, "\n"))
		}
	}
	switch {
	case ok && d.Message == nil, !ok && d.Message != nil:
		t.Errorf("message of %v in %s", e, doc)
	case ok && utf8.Valid(want) && *d.Message != string(want):
		t.Errorf("message is %q, was %q", *d.Message, want)
	case ok && !utf8.Valid(want) && !bytes.Equal(d.Nines.MessageBase64, want):
		t.Errorf("nines.message_base64 is %q, was %q", d.Nines.MessageBase64, want)
	}
}
