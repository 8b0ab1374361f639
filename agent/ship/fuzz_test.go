package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/gzip"
)

var answersToRead = []string{
	``, `null`, `[]`, `{}`, `{"items":null}`, `{"items":[null]}`, `{"items":[{}]}`, `{"items":[{"index":{"status":201}}]}`,
	`{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}`,
	`{"errors":true,"items":[{"create":` + mappingError + `},{"create":` + tooBusy + `}]}`,
	`{"items":[{"create":` + blocked + `},{"create":` + shardsOpen + `},{"create":{"status":-1}},{"create":{"status":99999}}]}`,
	`{"items":[{"create":{"status":"201"}}]}`, `{"items":[{"create":{"status":2e2}}]}`, `{"items":[{"create":{"status":400,"error":7}}]}`,
	`{"errors":false,"items":[{"create":{"_index":".ds-a","status":201}},{"create":{"_index":".ds-a","status":200}},{"create":{"_index":".ds-b","status":201}}]}`,
	`{"errors":true,"items":[{"create":{"_index":".ds-a","status":201}},{"create":{"_index":".ds-a","status":400,"error":{"type":"t","reason":"} ] \"{"}}},{"create":{"_index":".ds-a","status":201}}]}`,
	`{"errors":false,"items":[{"create":{"_index":".ds-a","status":201}}],"items":[]}`, `{"errors":false,"items":[]}`, `{"errors":true,"items":[{"create":{"_index":"a","status":409}},{"create":{"_index":"a","status":500}}]}`, `{"errors":false,"items":[{"create":{"_index":"\xff","status":299}}]}`,
	`{"errors":false,"items":[{"create":{"_index":"a\\u0041","status":201}},null,{"Create":{"STATUS":201}}]}`, "{\"errors\":false,\"items\":[{\"create\":{\"_index\":\"a\",\"status\":201}}]}\n",
	`{"error":{"type":"t","reason":"r"},"status":400}`, `{"error":"text"}`, `"text"`, "\xff\x00<html>", `{"items":[`,
}

func FuzzBulkAnswer(f *testing.F) {
	for i, s := range answersToRead {
		f.Add([]byte(s), uint16(i%4))
	}
	f.Fuzz(func(t *testing.T, body []byte, n uint16) {
		n %= 512
		check := func(answers []answer, why *trouble, mayBury bool) {
			if len(answers) != int(n) {
				t.Fatalf("%d answers for %d records", len(answers), n)
			}
			for _, a := range answers {
				switch {
				case a.fate == taken && (a.verdict == Unknown || a.verdict == DeadLettered):
					t.Fatalf("taken with the verdict %d", a.verdict)
				case a.fate != taken && a.verdict != Unknown:
					t.Fatalf("not taken with the verdict %d", a.verdict)
				case a.fate != taken && (a.text == "" || !utf8.ValidString(a.text) || strings.Contains(a.text, "\n")):
					t.Fatalf("why is %q", a.text)
				case a.fate == refusedForGood && !mayBury:
					t.Fatalf("given up for an answer to the request: %q", a.text)
				case why != nil && a.fate != sendAgain && a.fate != held:
					t.Fatalf("the request failed, and a record has fate %d", a.fate)
				}
			}
		}
		answers, why := ofItems(body, int(n), ": check it")
		check(answers, why, true)
		for _, status := range []int{201, 301, 400, 401, 403, 404, 413, 429, 500, 503} {
			answers, why := ofRequest(status, body, int(n), ": check it")
			check(answers, why, status == http.StatusRequestEntityTooLarge && n == 1)
		}
	})
}

// The fast reading must say what encoding/json says, or nothing.
func FuzzScanItems(f *testing.F) {
	for i, s := range answersToRead {
		f.Add([]byte(s), uint16(i%4))
	}
	f.Fuzz(func(t *testing.T, body []byte, n uint16) {
		n %= 64
		fast, slow := make([]answer, n), make([]answer, n)
		got, ok := scanItems(body, fast, ": check it")
		if !ok {
			return
		}
		want, trouble := parseItems(body, slow, ": check it")
		if trouble != nil || got != want || !slices.Equal(fast, slow) {
			t.Errorf("%d items %+v, want %d items %+v, %+v", got, fast, want, slow, trouble)
		}
	})
}

func TestUsualAnswersAreScanned(t *testing.T) {
	for _, body := range []string{
		`{"errors":false,"items":[{"create":{"_index":".ds-a","status":201}},{"create":{"_index":".ds-b","status":201}}]}`,
		`{"errors":true,"items":[{"create":{"_index":".ds-a","status":201}},{"create":{"_index":".ds-a","status":429,"error":{"type":"t","reason":"a \"{\" in it"}}}]}` + "\n",
		`{"errors":false,"items":[{"create":{"_index":".fs-a","status":201,"failure_store":"used"}},{"create":{"_index":".ds-a","status":201,"failure_store":"not_applicable"}}]}`,
	} {
		if n, ok := scanItems([]byte(body), make([]answer, 2), ""); n != 2 || !ok {
			t.Errorf("%s: %d items, %v", body, n, ok)
		}
	}
}

// encoding/json refuses what is deeper than 10,000: in an item alone that is
// found two levels later than in the whole.
func TestItemThatIsTooDeepIsLeftToTheSlowReading(t *testing.T) {
	deep := `{"errors":true,"items":[{"create":{"status":400,"error":` + strings.Repeat("[", 9997) + strings.Repeat("]", 9997) + `}}]}`
	answers, why := ofItems([]byte(deep), 1, "")
	if _, want := parseItems([]byte(deep), make([]answer, 1), ""); want == nil || why == nil || answers[0].fate != sendAgain {
		t.Errorf("%+v, %+v, want %+v", answers[0], why, want)
	}
}

func FuzzDocs(f *testing.F) {
	for _, s := range []string{``, `null`, `{"docs":[]}`, `{"docs":[{"_id":"a","found":true},{"_id":"b","found":false}]}`, `{"docs":[{"_id":"a","error":{"type":"index_not_found_exception","reason":"r"}},{"_id":"b"}]}`,
		`{"docs":[{"_id":"b","found":true},{"_id":"a","found":false}]}`, `{"docs":[{"_id":"a","found":null},{"_id":"b","error":7}]}`, `{"error":"x"}`} {
		f.Add([]byte(s))
	}
	records := recordsOf("a", "b")
	f.Fuzz(func(t *testing.T, body []byte) {
		there, why := ofDocs(body, records, []int{0, 1})
		if (why == nil) != (len(there) == 2) || why != nil && (why.text == "" || !utf8.ValidString(why.text)) {
			t.Errorf("%v, %+v", there, why)
		}
	})
}

func FuzzLetter(f *testing.F) {
	f.Add(string(appendLetter(nil, Record{ID: "a", Stream: "s", Doc: []byte(`{"x":1}`), Bytes: 7}, "why", began)))
	f.Add(string(appendLetter(nil, Record{ID: "a", Stream: "s", Doc: []byte("{\"x\n\": no JSON")}, "why", began)))
	f.Add(`{"_id":"a","stream":"s","document":[1]}`)
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseLetter([]byte(line))
		if err != nil {
			return
		}
		if r.ID == "" || r.Stream == "" || !r.Uncertain || strings.ContainsAny(string(r.Doc), "\n\r") {
			t.Fatalf("%q is %+v", line, r)
		}
		again, err := parseLetter(appendLetter(nil, r, "again", began))
		if err != nil || again.ID != r.ID || again.Stream != r.Stream || again.Bytes != r.Bytes {
			t.Fatalf("%+v becomes %+v, %v", r, again, err)
		}
		third, err := parseLetter(appendLetter(nil, again, "again", began))
		if err != nil || string(third.Doc) != string(again.Doc) {
			t.Errorf("the document %q becomes %q, %v", again.Doc, third.Doc, err)
		}
	})
}

func FuzzWriteIndices(f *testing.F) {
	for _, s := range []string{``, `null`, `{}`, `{"s":["a"]}`, `{"s":["a","b"]}`, `{"s":[]}`, `{"s":["a","b","c"]}`, `{"s":[""]}`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		seen, err := parseTrail(data)
		for stream, indices := range seen {
			if err == nil && (len(indices) == 0 || len(indices) > trailed) {
				t.Errorf("%q has %q", stream, indices)
			}
		}
	})
}

func FuzzTemplates(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"index_templates":[{"name":"x","index_template":{"_meta":{"managed_by":"nines-agent","version":2}}}]}`,
		`{"component_templates":[{"name":"x","component_template":{"_meta":{"managed_by":7}}},{"name":"x","component_template":null}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if there, found, err := parseTemplates(body, "x"); (!found || err != nil) && there != (meta{}) {
			t.Errorf("%+v, %v, %v", there, found, err)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "7", "-1", "99999999999999", "Sat, 01 Jan 2000 00:00:10 GMT", "Fri, 31 Dec 1999 00:00:00 GMT"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d := retryAfter(text, began); d < 0 || d > maxPause {
			t.Errorf("%q is %v", text, d)
		}
	})
}

func FuzzErrorText(f *testing.F) {
	for _, s := range answersToRead {
		f.Add([]byte(s))
	}
	f.Add([]byte(strings.Repeat(" ", 3000) + "late"))
	f.Add([]byte(strings.Repeat("é", 600)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := failureIn(raw).text
		if len(got) > maxErrorText+len("…") || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\t") {
			t.Errorf("%q of %d bytes", got, len(got))
		}
	})
}

func FuzzAction(f *testing.F) {
	f.Add("logs-nines.files-default", "1f2e-0")
	f.Add("", "")
	f.Add("\"\\/\x00\x1f\x7f\u2028\u2029<>&", "é\xff\xc3\U0010ffff")
	f.Fuzz(func(t *testing.T, stream, id string) {
		line := appendAction(nil, Record{Stream: stream, ID: id})
		var got struct {
			Create struct {
				Index *string `json:"_index"`
				ID    *string `json:"_id"`
			} `json:"create"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if strings.Count(string(line), "\n") != 1 || line[len(line)-1] != '\n' {
			t.Errorf("%q is not one line", line)
		}
		// As JSON has it: what is no UTF-8 becomes U+FFFD, byte for byte.
		valid := func(s string) string { return string([]rune(s)) }
		if *got.Create.Index != valid(stream) || *got.Create.ID != valid(id) {
			t.Errorf("%q for stream %q and id %q", line, stream, id)
		}
	})
}

func FuzzNamespace(f *testing.F) {
	for _, s := range []string{"default", "Prod EU-1", "", "-_+", "a/b\\c*?\"<>| ,#:", "é\xff\x00", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := Namespace(name)
		if len(got) > 100 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789._") != "" {
			t.Errorf("Namespace(%q) is %q", name, got)
		}
		if got == "" {
			t.Error("a namespace is never empty")
		}
		if again := Namespace(got); again != got {
			t.Errorf("%q becomes %q", got, again)
		}
		if stream := StreamOfFiles(name); len(stream) > 200 || strings.Count(stream, "-") != 2 {
			t.Errorf("stream %q", stream)
		}
	})
}

func TestNamespaceIsTheClustersNameInLowerCase(t *testing.T) {
	for name, want := range map[string]string{"": "default", "Prod-EU 1": "prod_eu_1", "a.b_c": "a.b_c", "é": "__"} {
		if got := Namespace(name); got != want {
			t.Errorf("Namespace(%q) is %q, want %q", name, got, want)
		}
	}
}

func TestTextsFromOutsideAreBoundedAndOnOneLine(t *testing.T) {
	for raw, want := range map[string]string{
		`{"error":{"type":"t","reason":"a\nb"},"status":400}`:               "t: a b",
		`{"type":"t","reason":"r","caused_by":{"type":"u","reason":"why"}}`: "t: r: why",
		`{"error":"a text"}`:                   "a text",
		`"a text"`:                             "a text",
		`{"error":{"error":{"error":"deep"}}}`: `{"error":{"error":"deep"}}`,
		`{"type":5}`:                           `{"type":5}`,
		"<html>\r\n\tbad\xff gateway":          "<html> bad\uFFFD gateway",
		"":                                     "",
		strings.Repeat("x", 512):               strings.Repeat("x", 512),
		strings.Repeat("x", 513):               strings.Repeat("x", 512) + "…",
		strings.Repeat("é ", 2000):             strings.TrimSuffix(strings.Repeat("é ", 171), " ")[:512] + "…",
	} {
		if got := failureIn([]byte(raw)).text; got != want {
			t.Errorf("text of %.60q is %q, want %q", raw, got, want)
		}
	}
}

// manyRecords is a batch as the follower of logs makes it: 8,000 lines.
func manyRecords() []Record {
	records := make([]Record, 8000)
	for i := range records {
		records[i] = Record{ID: fmt.Sprintf("0123456789abcdef01234567-%x", 1_000_000+i*238), Stream: StreamOfFiles("default"),
			Doc: fmt.Appendf(nil, `{"@timestamp":"2026-01-02T03:04:05.%09dZ","message":"GET /api/v1/items/%d?limit=%d 200 %dms user=%x","stream":"stdout","log":{"offset":%d,"file":{"path":"/var/log/pods/shop_cart-7d9f_0b1c/cart/0.log"}},"host":{"name":"node-1"},"kubernetes":{"namespace":"shop","pod":{"name":"cart-7d9f"},"container":{"name":"cart"}}}`,
				i*1117, i*31, i%100, i%977, i*2654435761, i*238)}
	}
	return records
}

func BenchmarkBulkBody(b *testing.B) {
	records := manyRecords()
	p := packers.Get().(*packed)
	defer packers.Put(p)
	all := make([]int, len(records))
	for i := range all {
		all[i] = i
	}
	size := 0
	for _, r := range records {
		size += len(appendAction(nil, r)) + len(r.Doc) + 1
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		p.pack(records, all)
	}
	b.ReportMetric(float64(b.N*len(records))/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(size)/float64(p.buf.Len()), "ratio")
}

func TestBodyIsPackedAlikeByAUsedBuffer(t *testing.T) {
	records := manyRecords()[:100]
	p := packers.Get().(*packed)
	for _, part := range [][]int{{3, 1, 2}, {99}, {3, 1, 2}} {
		p.pack(records, part)
		z, err := gzip.NewReader(&p.buf)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for _, i := range part {
			want = append(append(appendAction(want, records[i]), records[i].Doc...), '\n')
		}
		if !slices.Equal(got, want) {
			t.Errorf("body %q, want %q", got, want)
		}
	}
}

func BenchmarkBulkAnswer(b *testing.B) {
	const index = `"_index":".ds-logs-kubernetes.container_logs-production-2026.11.25-000001",`
	for name, item := range map[string]string{
		"stored": `{"create":{` + index + `"status":201}}`, "refused": `{"create":{` + index + strings.TrimPrefix(mappingError, "{") + `}`,
	} {
		const n = 4000
		body := []byte(`{"errors":false,"items":[` + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + `]}`)
		for reading, read := range map[string]func(){
			"": func() {
				if answers, why := ofItems(body, n, ""); why != nil || len(answers) != n {
					b.Fatal(why)
				}
			},
			"/by encoding-json": func() {
				if got, why := parseItems(body, make([]answer, n), ""); why != nil || got != n {
					b.Fatal(why)
				}
			},
		} {
			b.Run(name+reading, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					read()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/item")
			})
		}
	}
}

// sink is a connection to a server that takes everything. It costs no more
// than to count, so that what is measured is the client.
type sink struct {
	net.Conn
	head   []byte
	want   int64 // bytes of the body that are still to come
	answer []byte
	ready  chan struct{}
	out    []byte
}

func (s *sink) Write(p []byte) (int, error) {
	n := len(p)
	if s.want == 0 {
		s.head = append(s.head, p...)
		end := bytes.Index(s.head, []byte("\r\n\r\n"))
		if end < 0 {
			return n, nil
		}
		_, after, _ := bytes.Cut(s.head[:end], []byte("Content-Length: "))
		length, _, _ := bytes.Cut(after, []byte("\r\n"))
		s.want, _ = strconv.ParseInt(string(length), 10, 64)
		p = s.head[end+4:]
		s.head = s.head[:0]
	}
	if s.want -= int64(len(p)); s.want <= 0 {
		s.want = 0
		s.ready <- struct{}{}
	}
	return n, nil
}

func (s *sink) Read(p []byte) (int, error) {
	if len(s.out) == 0 {
		if _, ok := <-s.ready; !ok {
			return 0, io.EOF
		}
		s.out = s.answer
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

func (s *sink) Close() error                     { return nil }
func (s *sink) SetDeadline(time.Time) error      { return nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkShip is the way of 4,000 records of 900 bytes from Ship to their
// verdicts.
func BenchmarkShip(b *testing.B) {
	for _, compression := range []string{uncompressed, gzipped} {
		b.Run(compression, func(b *testing.B) {
			const n = 4000
			records := manyRecords()[:n]
			for i := range records {
				doc := records[i].Doc
				fill := fmt.Sprintf(`,"kubernetes.labels":{"app":"cart","id":"%x"},"x":"%s"}`, i*40503, strings.Repeat("a b c d ", 100))
				records[i].Doc = append(doc[:len(doc)-1], fill[:900-len(doc)-2]+`"}`...)
			}
			item := `{"create":{"_index":".ds-logs-nines.files-default-2026.11.25-000001","status":201}}`
			answer := `{"errors":false,"items":[` + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + `]}`
			to := &sink{ready: make(chan struct{}, 1), answer: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)}
			e, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{"http://elasticsearch:9200"}, DeadLetters: b.TempDir(), Compression: compression}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
			if err != nil {
				b.Fatal(err)
			}
			e.templated = true
			e.conns.DialContext = func(context.Context, string, string) (net.Conn, error) { return to, nil }
			e.conns.Proxy = nil
			b.SetBytes(900 * n)
			b.ReportAllocs()
			for b.Loop() {
				if got, err := e.Ship(b.Context(), records); err != nil || got[n-1] != Stored {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
			close(to.ready)
			e.Close()
		})
	}
}
