package logs

import (
	"bytes"
	"encoding/json"
	"time"
)

// line is what is known of one line, or of a record made of several.
type line struct {
	time    []byte // RFC 3339
	stream  string
	message []byte
	flags   flags
	cut     int64 // bytes left out
	offset  int64
	part    bool // its end is in a later line
}

// flags say what is special about a record.
type flags uint8

const (
	flagCut         flags = 1 << iota // longer than the limit
	flagInvalidUTF8                   // message_base64 has the bytes as they were
	flagNoMetadata                    // sent before the pod's labels were known
	flagPartial                       // a part of a record whose rest did not come
	flagUnparsed                      // not of the form that its source has
	flagTorn                          // its line end did not come
)

var flagNames = []string{"cut", "invalid_utf8", "no_metadata", "partial", "unparsed", "torn"}

// parseContainer reads a line of a container's log in either of its forms.
func parseContainer(b []byte) (l line, ok bool) {
	if len(b) > 0 && b[0] == '{' {
		return parseDocker(b)
	}
	return parseCRI(b)
}

// parseCRI reads a line of a container runtime:
//
//	2026-11-23T10:00:00.000000001Z stdout F message
//
// The third word is P for a part of a longer line and F for its end, with tags
// behind colons (kubernetes, container runtime interface, logging format).
func parseCRI(b []byte) (l line, ok bool) {
	at := bytes.IndexByte(b, ' ')
	if at < 0 || !isTime(b[:at]) {
		return line{}, false
	}
	l.time, b = b[:at], b[at+1:]
	switch {
	case len(b) > 7 && string(b[:7]) == "stdout ":
		l.stream = "stdout"
	case len(b) > 7 && string(b[:7]) == "stderr ":
		l.stream = "stderr"
	default:
		return line{}, false
	}
	b = b[7:]
	tag := b
	if at = bytes.IndexByte(b, ' '); at >= 0 { // an empty message comes without its space, too
		tag, l.message = b[:at], b[at+1:]
	}
	switch {
	case len(tag) == 0, len(tag) > 1 && tag[1] != ':', tag[0] != 'F' && tag[0] != 'P':
		return line{}, false
	}
	l.part = tag[0] == 'P'
	return l, true
}

// isTime says whether b is a time of RFC 3339. The usual form is looked at by
// hand: time.Parse would take a third of all time that a line takes.
func isTime(b []byte) bool {
	if len(b) >= 20 && b[len(b)-1] == 'Z' && digits(b, 0, 4) && b[4] == '-' && digits(b, 5, 7) && b[7] == '-' && digits(b, 8, 10) &&
		b[10] == 'T' && digits(b, 11, 13) && b[13] == ':' && digits(b, 14, 16) && b[16] == ':' && digits(b, 17, 19) &&
		two(b, 5) >= 1 && two(b, 5) <= 12 && two(b, 8) >= 1 && two(b, 8) <= daysIn[two(b, 5)] && two(b, 11) < 24 && two(b, 14) < 60 && two(b, 17) < 60 {
		return len(b) == 20 || len(b) <= 30 && b[19] == '.' && len(b) > 21 && digits(b, 20, len(b)-1)
	}
	// time.Parse takes a comma, too, and any number of digits behind it; an
	// Elasticsearch takes nine.
	_, err := time.Parse(time.RFC3339Nano, string(b))
	dot := bytes.IndexByte(b, '.')
	return err == nil && bytes.IndexByte(b, ',') < 0 && (dot < 0 || bytes.IndexAny(b[dot:], "Z+-") <= 10)
}

// daysIn is the days of months that every year has.
var daysIn = [13]int{1: 31, 2: 28, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}

func digits(b []byte, from, to int) bool {
	for _, c := range b[from:to] {
		if c-'0' > 9 {
			return false
		}
	}
	return true
}

func two(b []byte, at int) int { return int(b[at]-'0')*10 + int(b[at+1]-'0') }

// parseDocker reads a line of Docker's json-file driver. A log that does not end
// in a newline goes on in the next line of its stream.
//
//	{"log":"message\n","stream":"stdout","time":"2026-11-23T10:00:00.000000001Z"}
func parseDocker(b []byte) (l line, ok bool) {
	var entry struct {
		Log    *string `json:"log"`
		Stream string  `json:"stream"`
		Time   string  `json:"time"`
	}
	if err := json.Unmarshal(b, &entry); err != nil || entry.Log == nil || entry.Stream != "stdout" && entry.Stream != "stderr" || !isTime([]byte(entry.Time)) {
		return line{}, false
	}
	message, whole := bytes.CutSuffix([]byte(*entry.Log), []byte{'\n'})
	return line{time: []byte(entry.Time), stream: entry.Stream, message: bytes.TrimSuffix(message, []byte{'\r'}), part: !whole}, true
}

// partial is a record of which parts were read and the end was not.
type partial struct {
	first  line
	id     string // of the generation in which it began
	offset int64
	bytes  int64   // of it in the generation that is read
	shares []share // of it in older ones
	since  time.Time
	// uncertain says that its beginning may have been sent by an earlier run.
	uncertain bool
}

// take appends the next part; what is over the limit is counted and left out.
func (p *partial) take(l line, limit int) {
	room := max(0, limit-len(p.first.message))
	p.first.message = append(p.first.message, l.message[:min(room, len(l.message))]...)
	p.first.cut += l.cut + int64(max(0, len(l.message)-room))
}

// streamOf is the place of a stream's partial record.
func streamOf(l line) int {
	if l.stream == "stderr" {
		return 1
	}
	return 0
}
