package harness

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// cluster is a small server that stores what bulks say, by _id.
type cluster struct {
	mu     sync.Mutex
	stored []string
	bulks  int
	gzips  int
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	if !strings.HasSuffix(r.URL.Path, "/_bulk") {
		fmt.Fprintf(w, "%s %s?%s", r.Method, r.URL.Path, r.URL.RawQuery)
		return
	}
	c.bulks++
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		c.gzips++
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	decode := json.NewDecoder(body)
	var items []string
	for {
		var action struct {
			Create struct {
				ID string `json:"_id"`
			}
		}
		var doc json.RawMessage
		if err := decode.Decode(&action); errors.Is(err, io.EOF) {
			break
		} else if err = errors.Join(err, decode.Decode(&doc)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.stored = append(c.stored, action.Create.ID)
		items = append(items, fmt.Sprintf(`{"create":{"_index":"i","_id":%q,"status":201}}`, action.Create.ID))
	}
	fmt.Fprintf(w, `{"took":3,"errors":false,"items":[%s]}`, strings.Join(items, ","))
}

// all are the records that it has stored, when no request is under way.
func (c *cluster) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.stored)
}

const bulkItems = 20

// sendBulk sends items 0 to 19 and returns the answer.
func sendBulk(url string, zipped bool) (status int, header http.Header, body []byte, err error) {
	var text bytes.Buffer
	out := io.Writer(&text)
	z := gzip.NewWriter(&text)
	if zipped {
		out = z
	}
	for n := range bulkItems {
		fmt.Fprintf(out, "{\"create\":{\"_index\":\"s\",\"_id\":\"%d\"}}\n{\"@timestamp\":\"2026-11-01T00:00:00Z\",\"n\":%d}\n", n, n)
	}
	if zipped {
		if err := z.Close(); err != nil {
			return 0, nil, nil, err
		}
	}
	req, err := http.NewRequest(http.MethodPost, url+"/_bulk?filter_path=errors,items", &text)
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if zipped {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, body, errors.Join(err, resp.Body.Close())
}

// statuses are those of the items of an answer.
func statuses(t *testing.T, body []byte) (all []int, failed bool) {
	t.Helper()
	var a struct {
		Errors bool
		Items  []struct {
			Create struct {
				ID     string `json:"_id"`
				Status int
				Error  struct{ Type, Reason string }
			}
		}
	}
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for n, item := range a.Items {
		if item.Create.Status == 201 && item.Create.ID != fmt.Sprint(n) {
			t.Errorf("item %d is answered with that of %s", n, item.Create.ID)
		}
		if item.Create.Status != 201 && (item.Create.Error.Type == "" || item.Create.Error.Reason == "") {
			t.Errorf("item %d fails without an error", n)
		}
		all = append(all, item.Create.Status)
	}
	return all, a.Errors
}

func TestEachFaultIsWhatItsNameSays(t *testing.T) {
	whole := func(status int) func(*testing.T, int, http.Header, []byte, error, *cluster) {
		return func(t *testing.T, got int, _ http.Header, body []byte, err error, c *cluster) {
			if err != nil || got != status || len(c.all()) != 0 {
				t.Errorf("%d %s, %v, %d stored", got, body, err, len(c.all()))
			}
		}
	}
	broken := func(stored int) func(*testing.T, int, http.Header, []byte, error, *cluster) {
		return func(t *testing.T, status int, _ http.Header, body []byte, err error, c *cluster) {
			if err == nil || len(c.all()) != stored {
				t.Errorf("%d %s, %v, %d stored", status, body, err, len(c.all()))
			}
		}
	}
	garbled := func(stored int) func(*testing.T, int, http.Header, []byte, error, *cluster) {
		return func(t *testing.T, status int, _ http.Header, body []byte, err error, c *cluster) {
			if err != nil || status != 200 || json.Valid(body) || len(c.all()) != stored {
				t.Errorf("%d %s, %v, %d stored", status, body, err, len(c.all()))
			}
		}
	}
	half := func(refused int) func(*testing.T, int, http.Header, []byte, error, *cluster) {
		return func(t *testing.T, status int, _ http.Header, body []byte, err error, c *cluster) {
			if err != nil || status != 200 {
				t.Fatalf("%d %s, %v", status, body, err)
			}
			all, failed := statuses(t, body)
			var stored []string
			for n, s := range all {
				switch s {
				case 201:
					stored = append(stored, fmt.Sprint(n))
				case refused:
				default:
					t.Errorf("item %d has status %d", n, s)
				}
			}
			if len(all) != bulkItems || !failed || !slices.Equal(stored, c.all()) || len(stored) == 0 || len(stored) == bulkItems {
				t.Errorf("answered %v (errors %v), stored %v", all, failed, c.all())
			}
		}
	}
	for f, check := range map[Fault]func(t *testing.T, status int, header http.Header, body []byte, err error, c *cluster){
		Busy: whole(429), Unavailable: whole(503), TooLarge: whole(413),
		BusyRetryAfter: func(t *testing.T, status int, header http.Header, _ []byte, err error, c *cluster) {
			if err != nil || status != 429 || header.Get("Retry-After") != "1" || len(c.all()) != 0 {
				t.Errorf("%d %v, %v, %d stored", status, header, err, len(c.all()))
			}
		},
		HalfBusy: half(429), HalfUnavailable: half(503),
		ResetBefore: broken(0), ResetAfter: broken(bulkItems), ResetMid: broken(bulkItems),
		GarbageLost: garbled(0), GarbageStored: garbled(bulkItems),
		SlowAnswer: func(t *testing.T, status int, _ http.Header, body []byte, err error, c *cluster) {
			if all, failed := statuses(t, body); err != nil || failed || len(all) != bulkItems || len(c.all()) != bulkItems {
				t.Errorf("%d %s, %v", status, body, err)
			}
		},
		FewerItems: func(t *testing.T, status int, _ http.Header, body []byte, err error, c *cluster) {
			if all, _ := statuses(t, body); err != nil || len(all) != 13 || len(c.all()) != bulkItems {
				t.Errorf("%d %s, %v", status, body, err)
			}
		},
	} {
		for _, zipped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gzip %v", f, zipped), func(t *testing.T) {
				c := &cluster{}
				upstream := httptest.NewServer(c)
				defer upstream.Close()
				p := New(t).FaultProxy(upstream.URL, 1)
				p.Set(Plan{Kinds: []Fault{f}, Share: 1, MaxBody: 10, Slow: time.Millisecond})
				status, header, body, err := sendBulk(p.URL, zipped)
				check(t, status, header, body, err, c)
				if counts, bulks := p.Counts(); counts[f] != 1 || len(counts) != 1 || bulks != 1 {
					t.Errorf("counted %v in %d bulks", counts, bulks)
				}
				// Without a plan the next one is stored whole.
				p.Set(Plan{})
				before := len(c.all())
				status, _, body, err = sendBulk(p.URL, zipped)
				if err != nil || status != 200 {
					t.Fatalf("then %d %s, %v", status, body, err)
				}
				if all, failed := statuses(t, body); failed || len(all) != bulkItems || len(c.all()) != before+bulkItems {
					t.Errorf("then %s, %d stored", body, len(c.all())-before)
				}
				if zipped && c.gzips == 0 {
					t.Error("nothing came compressed")
				}
			})
		}
	}
}

func TestBulkWithoutOneItemLeftIsAnsweredWithoutTheServer(t *testing.T) {
	c := &cluster{}
	upstream := httptest.NewServer(c)
	defer upstream.Close()
	p := New(t).FaultProxy(upstream.URL, 1)
	p.Set(Plan{Kinds: []Fault{HalfBusy}, Share: 1})
	refused := 0
	for range 20 {
		body, err := send(http.MethodPost, p.URL+"/_bulk", "application/x-ndjson", []byte("{\"create\":{\"_id\":\"0\"}}\n{\"@timestamp\":1}\n"))
		if err != nil {
			t.Fatal(err)
		}
		all, _ := statuses(t, body)
		if len(all) != 1 {
			t.Fatalf("answered %s", body)
		}
		if all[0] == 429 {
			refused++
		}
	}
	if refused == 0 || refused == 20 || len(c.all()) != 20-refused || c.bulks != 20-refused {
		t.Errorf("%d of 20 refused, %d stored in %d bulks", refused, len(c.all()), c.bulks)
	}
}

func TestOtherRequestsPassAndServerThatIsAwayIsCounted(t *testing.T) {
	upstream := httptest.NewServer(&cluster{})
	p := New(t).FaultProxy(upstream.URL, 1)
	p.Set(Plan{Kinds: AllFaults, Share: 1})
	for range 5 {
		if got, err := Get(p.URL + "/_count?q=1"); err != nil || string(got) != "GET /_count?q=1" {
			t.Errorf("%q, %v", got, err)
		}
	}
	upstream.Close()
	if got, err := Get(p.URL + "/_count"); err == nil {
		t.Errorf("got %q of a server that is away", got)
	}
	if counts, bulks := p.Counts(); counts[Away] != 1 || len(counts) != 1 || bulks != 0 {
		t.Errorf("counted %v in %d bulks", counts, bulks)
	}
}

func TestSameSeedChoosesTheSameFaults(t *testing.T) {
	draw := func(seed uint64) (out []Fault) {
		p, err := newFaultProxy("http://127.0.0.1:1", seed)
		if err != nil {
			t.Fatal(err)
		}
		p.Set(Plan{Kinds: AllFaults, Share: 0.3})
		for range 200 {
			f, _, _ := p.choose(true, 1)
			out = append(out, f)
		}
		return out
	}
	if !slices.Equal(draw(1), draw(1)) || slices.Equal(draw(1), draw(2)) {
		t.Error("the seed does not say which faults there are")
	}
}
