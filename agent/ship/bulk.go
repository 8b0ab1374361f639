package ship

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// fate is what an answer means for a record.
type fate uint8

const (
	sendAgain fate = iota
	held
	taken
	refusedForGood
)

// answer is what a request said about one record.
type answer struct {
	fate    fate
	verdict Verdict // of taken
	busy    bool    // the server has too much to do
	unsure  bool    // it may be stored all the same
	text    string  // why not taken
	index   string  // of taken: where it is, if the server says so
}

// again answers all records of a failed request alike.
func again(n int, t *trouble) []answer {
	all := make([]answer, n)
	for i := range all {
		all[i] = answer{fate: sendAgain, text: t.text, unsure: t.unsure}
		if t.held {
			all[i].fate = held
		}
	}
	return all
}

// ofRequest reads an answer other than 200 to a request of n records.
// unauthorized is the remedy of a 401.
func ofRequest(status int, body []byte, n int, unauthorized string) ([]answer, *trouble) {
	f := failureIn(body)
	text := fmt.Sprintf("%d %s: %s", status, http.StatusText(status), f.text)
	t := &trouble{text: text}
	switch {
	case status == http.StatusRequestEntityTooLarge && n == 1:
		return []answer{{fate: refusedForGood, text: text}}, nil
	case status == http.StatusRequestEntityTooLarge:
		t.tooLarge = true
	case f.isBlock(status): // disk full, read-only
		t.held = true
	case status == http.StatusTooManyRequests:
		t.busy = true
	case status >= 500:
		// A proxy says this, too, of a request that the server has.
		t.busy = status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
		t.unsure = true
	case status == http.StatusUnauthorized:
		t.held, t.text = true, text+unauthorized
	default:
		// 403, 404, a 400 of the whole request, a redirect: not the records'
		// fault, so none of them may be given up for it.
		t.held, t.text = true, text+remedyFor(status)
	}
	return again(n, t), t
}

func remedyFor(status int) string {
	switch {
	case status >= 300 && status < 400:
		return ": name the address that it redirects to in urls"
	case status == http.StatusForbidden:
		return ": give the user the rights to create documents and index templates"
	case status == http.StatusNotFound:
		return ": check the path in urls"
	}
	return ""
}

// item is what is asked for of a bulk answer by filter_path.
type item struct {
	Index        string          `json:"_index"`
	Status       int             `json:"status"`
	Error        json.RawMessage `json:"error"`
	FailureStore string          `json:"failure_store"`
}

// created is an item with the action that it answers.
type created struct {
	Create item `json:"create"`
}

// bulkFilter keeps answers small: 70 bytes for a record that is stored.
const bulkFilter = "errors,items.*.status,items.*._index,items.*.error,items.*.failure_store"

// ofItems reads an answer of status 200 to a request of n records.
func ofItems(body []byte, n int, unauthorized string) ([]answer, *trouble) {
	answers := make([]answer, n)
	got, ok := scanItems(body, answers, unauthorized)
	if !ok {
		var t *trouble
		if got, t = parseItems(body, answers, unauthorized); t != nil {
			return again(n, t), t
		}
	}
	if got > n {
		// Which item is whose is then a guess.
		t := &trouble{held: true, unsure: true, text: fmt.Sprintf("the answer to _bulk has %d items for %d records: is this an Elasticsearch?", got, n)}
		return again(n, t), t
	}
	if got < n {
		// What became of the rest is unknown, and our own _id makes it safe to
		// send them again.
		copy(answers[got:], again(n-got, &trouble{unsure: true, text: fmt.Sprintf("the answer to _bulk has %d items for %d records", got, n)}))
	}
	return answers, nil
}

// parseItems reads any answer. It fills answers as far as they go and returns
// how many items there are.
func parseItems(body []byte, answers []answer, unauthorized string) (int, *trouble) {
	var bulk struct {
		Items []created `json:"items"`
	}
	if err := json.Unmarshal(body, &bulk); err != nil {
		return 0, &trouble{unsure: true, text: fmt.Sprintf("the answer to _bulk is not understood (%v): %s", err, clip(string(body)))}
	}
	for i, it := range bulk.Items[:min(len(bulk.Items), len(answers))] {
		answers[i] = ofItem(it.Create, unauthorized)
	}
	return len(bulk.Items), nil
}

func ofItem(it item, unauthorized string) answer {
	switch s := it.Status; {
	case s >= 200 && s < 300 && it.FailureStore == "used":
		return answer{fate: taken, verdict: Diverted}
	case s >= 200 && s < 300:
		return answer{fate: taken, verdict: Stored, index: it.Index}
	case s == http.StatusConflict:
		return answer{fate: taken, verdict: AlreadyStored, index: it.Index}
	}
	f := failureIn(it.Error)
	text := fmt.Sprintf("%d %s", it.Status, f.text)
	switch s := it.Status; {
	case s == 0: // not what we asked for
		return answer{fate: sendAgain, unsure: true, text: "an item of the answer to _bulk has no status"}
	case f.isBlock(s):
		return answer{fate: held, text: text}
	case s < 400:
		return answer{fate: sendAgain, unsure: true, text: text}
	case s == http.StatusTooManyRequests, s >= 500:
		return answer{fate: sendAgain, busy: s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable, text: text}
	case s == http.StatusNotFound: // of the index, not of the path
		return answer{fate: held, text: text + ": allow the data stream to be created (action.auto_create_index)"}
	case s == http.StatusUnauthorized:
		return answer{fate: held, text: text + unauthorized}
	case s == http.StatusForbidden:
		return answer{fate: held, text: text + remedyFor(s)}
	case s == http.StatusBadRequest && f.isShardLimit():
		return answer{fate: held, text: text}
	}
	return answer{fate: refusedForGood, text: text}
}

// failure is an error of Elasticsearch.
type failure struct {
	kind, reason string
	text         string // of all that is known, bounded and on one line
}

// isBlock says whether the cluster refuses writes: its disk is full or it is
// read-only. Only the kind counts: a reason may quote the record, which may be
// a line of an Elasticsearch's own log.
func (f failure) isBlock(status int) bool {
	return f.kind == "cluster_block_exception" && (status == http.StatusForbidden || status == http.StatusTooManyRequests)
}

// isShardLimit says whether a 400 is of the cluster's state ("this action would
// add [2] shards, but this cluster currently has [1000]/[1000] maximum normal
// shards open") and not of the record. Errors of parsing quote the record and
// are of another kind.
func (f failure) isShardLimit() bool {
	return (f.kind == "validation_exception" || f.kind == "illegal_argument_exception") && strings.Contains(f.reason, "shards open")
}

// failureIn reads an error of Elasticsearch, which is an object, a text, or the
// body of a whole answer around one of these.
func failureIn(raw []byte) failure {
	var whole struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(raw, &whole) == nil && len(whole.Error) > 0 {
		raw = whole.Error
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return failure{text: clip(text)}
	}
	var e struct {
		Type     string `json:"type"`
		Reason   string `json:"reason"`
		CausedBy struct {
			Reason string `json:"reason"`
		} `json:"caused_by"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Type == "" && e.Reason == "" {
		return failure{text: clip(string(raw))}
	}
	text = e.Type + ": " + e.Reason
	if e.CausedBy.Reason != "" {
		text += ": " + e.CausedBy.Reason
	}
	return failure{e.Type, e.Reason, clip(text)}
}

// clip bounds a text from outside and keeps it on one line.
func clip(s string) string {
	cut := len(s) > 4*maxErrorText // all of it may be spaces, or 32 MiB
	s = s[:min(len(s), 4*maxErrorText)]
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	if cut || len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:min(len(s), maxErrorText)], "") + "…"
	}
	return s
}
