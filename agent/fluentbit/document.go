package fluentbit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"nines/agent/ship"
)

// ecsVersion is that of the Elastic Common Schema whose names we use.
const ecsVersion = "8.17.0"

// Entry is one record of a chunk.
type Entry struct {
	Time   time.Time
	Record map[any]any
	// Undecoded is what stands in the chunk where no record could be read;
	// Record is then nil.
	Undecoded []byte
}

// Seconds of the times by which Fluent Bit marks the beginning and the end of a
// group: −1 and −2 in the 32 bits of its time format (flb_log_event.h).
const (
	groupStart = math.MaxUint32
	groupEnd   = math.MaxUint32 - 1
)

// says is false for the mark at the end of a group, which holds nothing.
func (e Entry) says() bool {
	return e.Time.Unix() != groupEnd || len(e.Record) > 0 || len(e.Undecoded) > 0
}

// builder makes the documents of one chunk.
type builder struct {
	tag     string
	dataset stream
	cluster string
}

func newBuilder(tag, cluster string) builder {
	return builder{
		tag: strings.ToValidUTF8(tag, "\uFFFD"), cluster: strings.ToValidUTF8(cluster, "\uFFFD"),
		dataset: stream{Type: "logs", Dataset: Dataset, Namespace: ship.Namespace(cluster)},
	}
}

type stream struct {
	Type      string `json:"type"`
	Dataset   string `json:"dataset"`
	Namespace string `json:"namespace"`
}

type named struct {
	Name string `json:"name"`
}

// document is what is stored, in ECS names.
type document struct {
	Timestamp string  `json:"@timestamp"`
	Message   *string `json:"message,omitempty"`
	Fluentbit struct {
		Tag    string `json:"tag"`
		Record string `json:"record,omitempty"` // JSON as text
		Time   string `json:"time,omitempty"`
	} `json:"fluentbit"`
	Log struct {
		Flags []string `json:"flags"`
	} `json:"log,omitzero"`
	Nines struct {
		MessageBase64 []byte `json:"message_base64"`
	} `json:"nines,omitzero"`
	ECS struct {
		Version string `json:"version"`
	} `json:"ecs"`
	Event struct {
		Dataset string `json:"dataset"`
	} `json:"event"`
	DataStream   stream `json:"data_stream"`
	Orchestrator struct {
		Cluster named `json:"cluster"`
	} `json:"orchestrator"`
	Agent struct {
		Type string `json:"type"`
	} `json:"agent"`
}

// build returns the document of an entry; there is one for every entry. Now is
// the time of an entry that has none.
func (b builder) build(e Entry, now time.Time) []byte {
	var d document
	d.Fluentbit.Tag = b.tag
	d.ECS.Version = ecsVersion
	d.Event.Dataset = Dataset
	d.DataStream = b.dataset
	d.Orchestrator.Cluster.Name = b.cluster
	d.Agent.Type = "fluent-bit"

	at, flags := e.Time, []string(nil)
	switch {
	case e.Record == nil:
		at = now
		flags = append(flags, "unparsed")
	case at.Unix() == groupStart:
		at = now
		flags = append(flags, "group")
	case at.Unix() < 0 || at.UTC().Year() > 9999: // the zero time too
		if !at.IsZero() {
			d.Fluentbit.Time = strconv.FormatInt(at.Unix(), 10)
		}
		at = now
		flags = append(flags, "bad_time")
	}
	d.Timestamp = at.UTC().Format("2006-01-02T15:04:05.000000000Z")

	var n notes
	if e.Record == nil {
		text := n.text(string(e.Undecoded))
		d.Message = &text
		d.Nines.MessageBase64 = e.Undecoded
	} else {
		rest := e.Record
		if key, text, ok := message(e.Record); ok {
			line := strings.TrimSuffix(text, "\n")
			valid := n.text(line)
			d.Message = &valid
			if n.invalid {
				d.Nines.MessageBase64 = []byte(line)
			}
			rest = without(e.Record, key)
		}
		if len(rest) > 0 {
			d.Fluentbit.Record = string(n.object(nil, rest))
		}
	}
	if n.invalid {
		flags = append(flags, "invalid_utf8")
	}
	if n.converted {
		flags = append(flags, "converted")
	}
	d.Log.Flags = flags
	return encode(d)
}

// message finds the text that is the message, under log or else message. A
// value that is no text stays where it is.
func message(record map[any]any) (key any, text string, ok bool) {
	for _, key := range []string{"log", "message"} {
		switch v := record[key].(type) {
		case []byte:
			return key, string(v), true
		case string:
			return key, v, true
		}
	}
	return nil, "", false
}

func without(record map[any]any, key any) map[any]any {
	rest := make(map[any]any, len(record))
	for k, v := range record {
		if k != key {
			rest[k] = v
		}
	}
	return rest
}

// notes is what has to be said about values that could not be kept as they were.
type notes struct{ invalid, converted bool }

func (n *notes) text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	n.invalid = true
	var b strings.Builder
	for _, r := range s { // one U+FFFD for each byte, as agent/logs does
		b.WriteRune(r)
	}
	return b.String()
}

// object appends a map as a JSON object, with its keys in order so that the same
// record is always the same text.
func (n *notes) object(b []byte, record map[any]any) []byte {
	type member struct {
		key   string
		value []byte
	}
	members := make([]member, 0, len(record))
	for k, v := range record {
		members = append(members, member{n.key(k), n.value(nil, v)})
	}
	slices.SortFunc(members, func(x, y member) int {
		return cmp.Or(cmp.Compare(x.key, y.key), bytes.Compare(x.value, y.value))
	})
	b = append(b, '{')
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, encode(m.key)...), ':'), m.value...)
	}
	return append(b, '}')
}

// key makes a key of any type into text. Two keys may become the same, such as
// 1 and "1"; both stay.
func (n *notes) key(k any) string {
	switch k := k.(type) {
	case string:
		return n.text(k)
	case nil:
		n.converted = true
		return "null"
	}
	n.converted = true
	return n.text(fmt.Sprint(k))
}

// value appends a value as JSON.
func (n *notes) value(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		return append(b, encode(n.text(v))...)
	case []byte:
		return append(b, encode(n.text(string(v)))...)
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return fmt.Append(b, v)
	case float32:
		return n.float(b, float64(v))
	case float64:
		return n.float(b, v)
	case []any:
		b = append(b, '[')
		for i, element := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.value(b, element)
		}
		return append(b, ']')
	case map[any]any:
		return n.object(b, v)
	case interface{ UTC() time.Time }: // times, which Fluent Bit has as values too
		return append(b, encode(v.UTC().Format(time.RFC3339Nano))...)
	}
	n.converted = true
	return append(b, encode(n.text(fmt.Sprint(v)))...)
}

func (n *notes) float(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) { // JSON has none of them
		n.converted = true
		return append(b, encode(strconv.FormatFloat(f, 'g', -1, 64))...)
	}
	return append(b, encode(f)...)
}

// encode is for values that have a JSON, without the escapes for HTML.
func encode(v any) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // of a type that we did not mean to encode
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'})
}
