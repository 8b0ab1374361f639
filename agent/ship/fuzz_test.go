package ship

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
)

var answersToRead = []string{
	``, `null`, `[]`, `{}`, `{"items":null}`, `{"items":[null]}`, `{"items":[{}]}`, `{"items":[{"index":{"status":201}}]}`,
	`{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}`,
	`{"errors":true,"items":[{"create":` + mappingError + `},{"create":` + tooBusy + `}]}`,
	`{"items":[{"create":` + blocked + `},{"create":` + shardsOpen + `},{"create":{"status":-1}},{"create":{"status":99999}}]}`,
	`{"items":[{"create":{"status":"201"}}]}`, `{"items":[{"create":{"status":2e2}}]}`, `{"items":[{"create":{"status":400,"error":7}}]}`,
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
		answers, why := ofItems(body, int(n))
		check(answers, why, true)
		for _, status := range []int{201, 301, 400, 401, 403, 404, 413, 429, 500, 503} {
			answers, why := ofRequest(status, body, int(n))
			check(answers, why, status == http.StatusRequestEntityTooLarge && n == 1)
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
	for name, item := range map[string]string{"stored": `{"create":{"status":201}}`, "refused": `{"create":` + mappingError + `}`} {
		b.Run(name, func(b *testing.B) {
			const n = 8000
			body := []byte(`{"errors":false,"items":[` + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + `]}`)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if answers, why := ofItems(body, n); why != nil || len(answers) != n {
					b.Fatal(why)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
