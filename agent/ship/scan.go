package ship

import (
	"bytes"
	"encoding/json"
)

// Pieces of the usual answer to a bulk of ours, as Elasticsearch and OpenSearch
// write it: no spaces, and the keys of an item in the order of bulkFilter's
// document.
var (
	answerOK     = []byte(`{"errors":false,"items":[`)
	answerErrors = []byte(`{"errors":true,"items":[`)
	itemIndex    = []byte(`{"create":{"_index":"`)
	itemStatus   = []byte(`","status":`)
	itemEnd      = []byte(`}}`)
	answerEnd    = []byte(`]}`)
)

// maxScanned bounds an item that is not the usual one, in bytes. It keeps its
// depth below that which encoding/json refuses (10,000).
const maxScanned = 8 << 10

// scanItems reads the usual answer some ten times as fast as encoding/json: it
// compares bytes, and leaves single items that are unusual, and answers that
// are, to encoding/json. It fills answers as far as they go and returns how
// many items there are; not ok is an answer that it does not know.
func scanItems(body []byte, answers []answer, unauthorized string) (n int, ok bool) {
	b, found := bytes.CutPrefix(bytes.TrimRight(body, " \n\r\t"), answerOK)
	if !found {
		if b, found = bytes.CutPrefix(b, answerErrors); !found {
			return 0, false
		}
	}
	if bytes.Equal(b, answerEnd) {
		return 0, true
	}
	index := "" // all records of one stream have the same
	for {
		a, rest, usual := scanItem(b, &index)
		if !usual {
			end := objectEnd(b)
			if end < 0 {
				return 0, false
			}
			var it created
			if json.Unmarshal(b[:end], &it) != nil {
				return 0, false
			}
			a, rest = ofItem(it.Create, unauthorized), b[end:]
		}
		if n < len(answers) {
			answers[n] = a
		}
		n++
		if bytes.Equal(rest, answerEnd) {
			return n, true
		}
		if len(rest) == 0 || rest[0] != ',' {
			return 0, false
		}
		b = rest[1:]
	}
}

// scanItem reads {"create":{"_index":"NAME","status":201}} with any status
// from 200 to 299.
func scanItem(b []byte, index *string) (a answer, rest []byte, usual bool) {
	if !bytes.HasPrefix(b, itemIndex) {
		return a, nil, false
	}
	b = b[len(itemIndex):]
	if last := *index; len(b) > len(last) && string(b[:len(last)]) == last && b[len(last)] == '"' {
		b = b[len(last):]
	} else {
		end := bytes.IndexByte(b, '"')
		if end < 0 || !plain(string(b[:min(end, maxErrorText)])) || end > maxErrorText {
			return a, nil, false
		}
		*index = string(b[:end])
		b = b[end:]
	}
	if !bytes.HasPrefix(b, itemStatus) {
		return a, nil, false
	}
	b = b[len(itemStatus):]
	if len(b) < 3+len(itemEnd) || b[0] != '2' || !digit(b[1]) || !digit(b[2]) || string(b[3:5]) != string(itemEnd) {
		return a, nil, false
	}
	return answer{fate: taken, verdict: Stored, index: *index}, b[5:], true
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// objectEnd returns where the object at the beginning of b ends, or -1.
func objectEnd(b []byte) int {
	if len(b) == 0 || b[0] != '{' {
		return -1
	}
	b = b[:min(len(b), maxScanned)]
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}
