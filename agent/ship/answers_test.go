package ship

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func sent(verdict Verdict, n int) []Verdict {
	all := make([]Verdict, n)
	for i := range all {
		all[i] = verdict
	}
	return all
}

const (
	mappingError = `{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:23] failed to parse field [log.offset] of type [long]","caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"x\""}}}`
	tooBusy      = `{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation"}}`
	away         = `{"status":503,"error":{"type":"unavailable_shards_exception","reason":"primary shard is not active"}}`
	shardsOpen   = `{"status":400,"error":{"type":"validation_exception","reason":"Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;"}}`
	blocked      = `{"status":403,"error":{"type":"cluster_block_exception","reason":"index [x] blocked by: [FORBIDDEN/8/index write (api)];"}}`
	floodStage   = `{"status":429,"error":{"type":"cluster_block_exception","reason":"index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"}}`
)

// TestAnswers has a row for each one of the table in doc.go, for an item and
// for a whole request, and for answers that Elasticsearch never gives.
func TestAnswers(t *testing.T) {
	only := func(id, answer string) reply { return items(map[string]string{id: answer}) }
	for _, test := range []struct {
		name   string
		script []reply
		ids    string // "a b c" if empty
		want   []Verdict
		bulks  []string // what the cluster saw
		dead   string
		hold   string // of the second request
		counts string
	}{
		{name: "item 201 is stored",
			want: sent(Stored, 3), bulks: []string{"a b c"}, counts: "ok=1"},
		{name: "item 200 of the failure store is diverted",
			script: []reply{only("b", `{"status":200,"failure_store":"used"}`)},
			want:   []Verdict{Stored, Diverted, Stored}, bulks: []string{"a b c"}, counts: "diverted=1 ok=1"},
		{name: "item 409 was stored before",
			script: []reply{only("a", `{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}}`)},
			want:   []Verdict{AlreadyStored, Stored, Stored}, bulks: []string{"a b c"}, counts: "already_stored=1 ok=1"},
		{name: "item 429 is sent again alone",
			script: []reply{only("b", tooBusy)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, counts: "ok=1 retried=1"},
		{name: "item 503 is sent again alone",
			script: []reply{only("c", away)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "c"}, counts: "ok=1 retried=1"},
		{name: "item 500 is sent again in the order of the records",
			script: []reply{items(map[string]string{"a": `{"status":500}`, "c": `{"status":500,"error":"java.lang.Error"}`})},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a c"}, counts: "ok=1 retried=1"},
		{name: "item 413 is a dead letter",
			script: []reply{only("b", `{"status":413,"error":{"type":"t","reason":"r"}}`)},
			want:   []Verdict{Stored, DeadLettered, Stored}, bulks: []string{"a b c"}, dead: "b", counts: "ok=1"},
		{name: "item 400 of a mapping is a dead letter and the others are stored",
			script: []reply{only("b", mappingError)},
			want:   []Verdict{Stored, DeadLettered, Stored}, bulks: []string{"a b c"}, dead: "b", counts: "ok=1"},
		{name: "item 400 of all is a dead letter of all",
			script: []reply{items(map[string]string{"a": mappingError, "b": mappingError, "c": mappingError})},
			want:   sent(DeadLettered, 3), bulks: []string{"a b c"}, dead: "a b c", counts: "ok=1"},
		{name: "item 400 of the field limit is a dead letter",
			script: []reply{only("b", `{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:9] failed to parse: Limit of total fields [1000] has been exceeded while adding new fields [1]"}}`)},
			want:   []Verdict{Stored, DeadLettered, Stored}, bulks: []string{"a b c"}, dead: "b", counts: "ok=1"},
		{name: "item 400 of the shard limit is held",
			script: []reply{items(map[string]string{"a": shardsOpen, "b": shardsOpen, "c": shardsOpen})},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "maximum normal shards open", counts: "held=1 ok=1"},
		// The text of a line stands in the reason of its error. A line of an
		// Elasticsearch's own log must not hold all that come after it.
		{name: "item 400 that quotes the shard limit is a dead letter",
			script: []reply{only("b", `{"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse field [x] of type [long] in document with id 'b'. Preview of field's value: 'this action would add [2] shards, but there are maximum shards open'"}}`)},
			want:   []Verdict{Stored, DeadLettered, Stored}, bulks: []string{"a b c"}, dead: "b", counts: "ok=1"},
		{name: "item 400 that quotes a cluster block is a dead letter",
			script: []reply{only("b", `{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse. Preview of field's value: 'cluster_block_exception'"}}`)},
			want:   []Verdict{Stored, DeadLettered, Stored}, bulks: []string{"a b c"}, dead: "b", counts: "ok=1"},
		{name: "item 403 of a cluster block is held",
			script: []reply{only("b", blocked)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, hold: "cluster_block_exception", counts: "held=1 ok=1"},
		{name: "item 429 of a full disk is held",
			script: []reply{only("b", floodStage)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, hold: "flood-stage watermark", counts: "held=1 ok=1"},
		{name: "item 401 is held",
			script: []reply{only("b", `{"status":401,"error":{"type":"security_exception","reason":"no"}}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, hold: "security_exception", counts: "held=1 ok=1"},
		{name: "item 403 is held with the right to give",
			script: []reply{only("b", `{"status":403,"error":{"type":"security_exception","reason":"no"}}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, hold: "give the user the rights", counts: "held=1 ok=1"},
		{name: "item 404 is held",
			script: []reply{only("b", `{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index [x] and [action.auto_create_index] is [false]"}}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, hold: "auto_create_index", counts: "held=1 ok=1"},
		{name: "held is told before what is only sent again",
			script: []reply{items(map[string]string{"a": tooBusy, "b": blocked, "c": away})},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "cluster_block_exception", counts: "held=1 ok=1"},
		{name: "item without a status is sent again",
			script: []reply{only("b", `{}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, counts: "ok=1 retried=1"},
		{name: "item with a status that is no verdict is sent again",
			script: []reply{only("b", `{"status":302}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "b"}, counts: "ok=1 retried=1"},

		{name: "request 429 is sent again",
			script: []reply{whole(429, `{"error":{"type":"es_rejected_execution_exception","reason":"rejected"},"status":429}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, counts: "ok=1 retried=1"},
		{name: "request 503 is sent again",
			script: []reply{whole(503, `<html>no backend</html>`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, counts: "ok=1 retried=1"},
		{name: "broken connection is sent again and found stored",
			script: []reply{breaksAfter("")},
			want:   sent(AlreadyStored, 3), bulks: []string{"a b c", "a b c"}, counts: "already_stored=3 ok=1 retried=1"},
		{name: "answer that breaks off is sent again and found stored",
			script: []reply{breaksAfter("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"items\":[")},
			want:   sent(AlreadyStored, 3), bulks: []string{"a b c", "a b c"}, counts: "already_stored=3 ok=1 retried=1"},
		{name: "request 413 is halved",
			script: []reply{whole(413, "")}, ids: "a b c d",
			want: sent(Stored, 4), bulks: []string{"a b c d", "a b", "c d"}, counts: "ok=2 retried=1"},
		{name: "request 413 of one record is a dead letter and the others are stored",
			script: []reply{whole(413, ""), items(nil), whole(413, ""), whole(413, "too large")}, ids: "a b c d",
			want: []Verdict{Stored, Stored, DeadLettered, Stored}, bulks: []string{"a b c d", "a b", "c d", "c", "d"}, dead: "c", counts: "ok=3 retried=2"},
		{name: "what is left of a half goes first",
			script: []reply{whole(413, ""), items(map[string]string{"a": tooBusy})}, ids: "a b c d",
			want: sent(Stored, 4), bulks: []string{"a b c d", "a b", "a c d"}, counts: "ok=1 retried=2"},
		{name: "request 400 is held and no record is a dead letter",
			script: []reply{whole(400, `{"error":{"type":"illegal_argument_exception","reason":"Malformed action/metadata line [1]"},"status":400}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "Malformed action/metadata line", counts: "held=1 ok=1"},
		{name: "request 401 is held with the remedy",
			script: []reply{whole(401, `{"error":{"type":"security_exception","reason":"unable to authenticate user [u]"},"status":401}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "give username and password_file, api_key_file, token_file, or cert_file and key_file", counts: "held=1 ok=1"},
		{name: "request 403 is held with the remedy",
			script: []reply{whole(403, `{"error":{"type":"security_exception","reason":"no"},"status":403}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "give the user the rights", counts: "held=1 ok=1"},
		{name: "request 403 of a cluster block is held",
			script: []reply{whole(403, `{"error":{"type":"cluster_block_exception","reason":"blocked by: [FORBIDDEN/5/index read-only (api)];"},"status":403}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "cluster_block_exception: blocked by: [FORBIDDEN/5/index read-only (api)];", counts: "held=1 ok=1"},
		{name: "request 429 of a full disk is held",
			script: []reply{whole(429, `{"error":{"type":"cluster_block_exception","reason":"flood-stage watermark"},"status":429}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "flood-stage watermark", counts: "held=1 ok=1"},
		{name: "request 404 is held with the remedy",
			script: []reply{whole(404, `404 page not found`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "check the path in urls", counts: "held=1 ok=1"},
		{name: "request 406 is held",
			script: []reply{whole(406, `{"error":"Content-Type header is not supported","status":406}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "406 Not Acceptable: Content-Type header is not supported", counts: "held=1 ok=1"},
		{name: "redirect is held and not followed",
			script: []reply{func(_ *cluster, w http.ResponseWriter, _ *http.Request, _ seen) {
				w.Header().Set("Location", "http://elsewhere:9200/_bulk")
				w.WriteHeader(http.StatusMovedPermanently)
			}},
			want: sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "301 Moved Permanently", counts: "held=1 ok=1"},
		{name: "fewer items than records: the others are sent again",
			script: []reply{first(1)},
			want:   []Verdict{Stored, AlreadyStored, AlreadyStored}, bulks: []string{"a b c", "b c"}, counts: "already_stored=2 ok=1 retried=1"},
		{name: "no items: all are sent again",
			script: []reply{whole(200, `{}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, counts: "ok=1 retried=1"},
		{name: "more items than records: none of them counts",
			script: []reply{whole(200, `{"items":[{"create":{"status":201}},{"create":{"status":201}},{"create":{"status":201}},{"create":{"status":201}}]}`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, hold: "4 items for 3 records", counts: "held=1 ok=1"},
		{name: "answer that is no JSON is sent again",
			script: []reply{whole(200, `<html>please log in</html>`)},
			want:   sent(Stored, 3), bulks: []string{"a b c", "a b c"}, counts: "ok=1 retried=1"},
		{name: "answer above the bound is halved",
			script: []reply{whole(200, `{"items":[`+strings.Repeat(" ", maxAnswer)+`]}`)}, ids: "a b c d",
			want: sent(Stored, 4), bulks: []string{"a b c d", "a b", "c d"}, counts: "ok=2 retried=1"},
		{name: "answer above the bound to one record is sent again",
			script: []reply{whole(200, strings.Repeat("<br> ", maxAnswer/5+1))}, ids: "a",
			want: sent(Stored, 1), bulks: []string{"a", "a"}, counts: "ok=1 retried=1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.script = test.script
				ids := test.ids
				if ids == "" {
					ids = "a b c"
				}
				f.ship(t, ids, test.want...)
				if got := f.cluster.bulks(); !slices.Equal(got, test.bulks) {
					t.Errorf("the cluster saw %q, want %q", got, test.bulks)
				}
				if got := idsIn(t, linesOf(t, f.folder)); got != test.dead {
					t.Errorf("dead letters %q, want %q", got, test.dead)
				}
				for i, id := range strings.Fields(ids) {
					if test.want[i] == Stored && !f.cluster.has(id) {
						t.Errorf("%s has the verdict Stored and is not stored", id)
					}
				}
				if got := counts(f.set); got != test.counts {
					t.Errorf("counts %q, want %q", got, test.counts)
				}
				if f.Hold() != "" {
					t.Errorf("still holds at the end: %s", f.Hold())
				}
				if all := f.cluster.requests("/_bulk"); len(all) > 1 {
					if hold := all[1].hold; !strings.Contains(hold, test.hold) || (test.hold == "") != (hold == "") {
						t.Errorf("holds with %q, want %q in it", hold, test.hold)
					}
				}
			})
		})
	}
}

func TestDeadLetterKeepsTheErrorAndTheDocument(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.script = []reply{items(map[string]string{"a": mappingError, "b": mappingError})}
		records := recordsOf("a", "b")
		records[1].Doc = []byte(`{"not": json`)
		if got, err := f.Ship(t.Context(), records); err != nil || !slices.Equal(got, sent(DeadLettered, 2)) {
			t.Fatal(got, err)
		}
		lines := linesOf(t, f.folder)
		if len(lines) != 2 {
			t.Fatalf("%d dead letters, want 2", len(lines))
		}
		for i, want := range []any{
			map[string]any{"@timestamp": "2026-01-02T03:04:05Z", "message": "line a"},
			`{"not": json`,
		} {
			var got deadLetter
			if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
				t.Fatal(err)
			}
			text, _ := json.Marshal(got.Doc)
			wanted, _ := json.Marshal(want)
			if string(text) != string(wanted) {
				t.Errorf("document %s, want %s", text, wanted)
			}
			if got.Stream != "logs-nines.files-default" || got.Error != `400 document_parsing_exception: [1:23] failed to parse field [log.offset] of type [long]: For input string: "x"` {
				t.Errorf("dead letter %+v", got)
			}
		}
	})
}
