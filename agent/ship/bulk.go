package ship

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
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
	text    string  // why not taken
}

// appendAction appends the line that stands in front of a document. Stream and
// ID are ours and hold nothing that JSON has to escape beyond what quotes do.
func appendAction(b []byte, r Record) []byte {
	b = append(b, `{"create":{"_index":`...)
	b = strconv.AppendQuote(b, r.Stream)
	b = append(b, `,"_id":`...)
	b = strconv.AppendQuote(b, r.ID)
	return append(b, "}}\n"...)
}

// again answers all records of a failed request alike.
func again(n int, t *trouble) []answer {
	all := make([]answer, n)
	for i := range all {
		all[i] = answer{fate: sendAgain, text: t.text}
		if t.held {
			all[i].fate = held
		}
	}
	return all
}

// ofRequest reads an answer other than 200 to a request of n records.
func ofRequest(status int, body []byte, n int) ([]answer, *trouble) {
	text := fmt.Sprintf("%d %s: %s", status, http.StatusText(status), errorText(body))
	switch {
	case status == http.StatusRequestEntityTooLarge && n == 1:
		return []answer{{fate: refusedForGood, text: text}}, nil
	case status == http.StatusRequestEntityTooLarge:
		t := &trouble{tooLarge: true, text: text}
		return again(n, t), t
	case status == http.StatusTooManyRequests || status >= 500:
		t := &trouble{text: text}
		return again(n, t), t
	}
	// 401, 403, 404, a 400 of the whole request, a redirect: not the records'
	// fault, so none of them may be given up for it.
	t := &trouble{held: true, text: text + remedyFor(status)}
	return again(n, t), t
}

func remedyFor(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return ": check username and password_file"
	case http.StatusForbidden:
		return ": give the user the rights to create documents and index templates"
	case http.StatusNotFound:
		return ": check the path in urls"
	}
	return ""
}

// item is what is asked for of a bulk answer by filter_path.
type item struct {
	Status       int             `json:"status"`
	Error        json.RawMessage `json:"error"`
	FailureStore string          `json:"failure_store"`
}

// ofItems reads an answer of status 200 to a request of n records.
func ofItems(body []byte, n int) ([]answer, *trouble) {
	var bulk struct {
		Errors bool `json:"errors"`
		Items  []struct {
			Create item `json:"create"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &bulk); err != nil {
		t := &trouble{text: fmt.Sprintf("the answer to _bulk is not understood (%v): %s", err, clip(string(body)))}
		return again(n, t), t
	}
	if len(bulk.Items) > n {
		// Which item is whose is then a guess.
		t := &trouble{held: true, text: fmt.Sprintf("the answer to _bulk has %d items for %d records: is this an Elasticsearch?", len(bulk.Items), n)}
		return again(n, t), t
	}
	// Fewer items than records: what became of the rest is unknown, and our own
	// _id makes it safe to send them again.
	answers := again(n, &trouble{text: fmt.Sprintf("the answer to _bulk has %d items for %d records", len(bulk.Items), n)})
	for i, it := range bulk.Items {
		answers[i] = ofItem(it.Create)
	}
	return answers, nil
}

func ofItem(it item) answer {
	switch s := it.Status; {
	case s >= 200 && s < 300 && it.FailureStore == "used":
		return answer{fate: taken, verdict: Diverted}
	case s >= 200 && s < 300:
		return answer{fate: taken, verdict: Stored}
	case s == http.StatusConflict:
		return answer{fate: taken, verdict: AlreadyStored}
	}
	text := fmt.Sprintf("%d %s", it.Status, errorText(it.Error))
	switch s := it.Status; {
	case s == 0: // no status: not what we asked for
		return answer{fate: sendAgain, text: "an item of the answer to _bulk has no status"}
	case isBlock(text): // 403 or 429: disk full, read-only
		return answer{fate: held, text: text}
	case s == http.StatusTooManyRequests || s >= 500:
		return answer{fate: sendAgain, text: text}
	case s == http.StatusUnauthorized || s == http.StatusForbidden || s == http.StatusNotFound:
		return answer{fate: held, text: text + remedyFor(s)}
	case s == http.StatusBadRequest && strings.Contains(text, "shards open"):
		return answer{fate: held, text: text}
	}
	return answer{fate: refusedForGood, text: text}
}

func isBlock(text string) bool { return strings.Contains(text, "cluster_block_exception") }

// errorText reads "type: reason" out of an error of Elasticsearch, which is an
// object, a text, or the body of a whole answer around one of these.
func errorText(raw []byte) string {
	var whole struct {
		Error    json.RawMessage `json:"error"`
		Type     string          `json:"type"`
		Reason   string          `json:"reason"`
		CausedBy struct {
			Reason string `json:"reason"`
		} `json:"caused_by"`
	}
	var text string
	switch {
	case json.Unmarshal(raw, &text) == nil:
		return clip(text)
	case json.Unmarshal(raw, &whole) != nil:
		return clip(string(raw))
	case len(whole.Error) > 0:
		return errorText(whole.Error)
	case whole.Type == "" && whole.Reason == "":
		return clip(string(raw))
	case whole.CausedBy.Reason != "":
		return clip(whole.Type + ": " + whole.Reason + ": " + whole.CausedBy.Reason)
	}
	return clip(whole.Type + ": " + whole.Reason)
}

// clip bounds a text from outside and keeps it on one line.
func clip(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "") + "…"
	}
	return s
}
