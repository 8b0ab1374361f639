package fluentbit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server speaks _bulk. It keeps the first document of each _id and answers 409
// to the others, unless fail says otherwise.
type server struct {
	*httptest.Server
	t *testing.T
	// fail is asked before a request is looked at: a status above 0 answers it
	// as a whole, and −1 leaves it without an answer until the client goes.
	fail func(request int) int
	// item is asked for each document, for a status other than 0.
	item func(doc string) int

	arrived chan struct{} // a token for each bulk request, up to its capacity

	mu       sync.Mutex // guards all below
	requests int
	docs     map[string]string // by _id
	streams  map[string]int
	again    int // documents that were there
}

func newServer(t *testing.T) *server {
	s := &server{t: t, arrived: make(chan struct{}, 100), docs: map[string]string{}, streams: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Server.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			s.t.Errorf("read request: %v", err)
			return
		}
	}
	data, err := io.ReadAll(body)
	if err != nil {
		s.t.Errorf("read request: %v", err)
		return
	}
	if !strings.HasSuffix(r.URL.Path, "/_bulk") { // templates
		s.say(w, `{"acknowledged":true}`)
		return
	}
	s.mu.Lock()
	s.requests++
	request := s.requests
	s.mu.Unlock()
	s.arrived <- struct{}{}
	if s.fail != nil {
		switch status := s.fail(request); {
		case status > 0:
			w.WriteHeader(status)
			s.say(w, `{"error":{"type":"made_up","reason":"told to fail"}}`)
			return
		case status < 0:
			<-r.Context().Done()
			return
		}
	}
	s.say(w, s.bulk(data))
}

func (s *server) say(w io.Writer, text string) {
	if _, err := io.WriteString(w, text); err != nil {
		s.t.Logf("answer: %v", err) // the client may be gone
	}
}

func (s *server) bulk(data []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var items []string
	failed := false
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var action struct {
			Create struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &action); err != nil || !lines.Scan() {
			s.t.Errorf("action %q: %v", lines.Text(), err)
		}
		doc, status := lines.Text(), http.StatusCreated
		if !json.Valid([]byte(doc)) {
			s.t.Errorf("not JSON: %s", doc)
		}
		if s.item != nil && s.item(doc) != 0 {
			status = s.item(doc)
		} else if s.docs[action.Create.ID] != "" {
			status = http.StatusConflict
			s.again++
		} else {
			s.docs[action.Create.ID] = doc
			s.streams[action.Create.Index]++
		}
		if status == http.StatusCreated {
			items = append(items, `{"create":{"status":201}}`)
		} else {
			failed = true
			items = append(items, fmt.Sprintf(`{"create":{"status":%d,"error":{"type":"made_up","reason":"told to refuse"}}}`, status))
		}
	}
	return fmt.Sprintf(`{"errors":%t,"items":[%s]}`, failed, strings.Join(items, ","))
}

// stored returns the messages that are there, and how often one came again.
func (s *server) stored() (messages map[string]int, again int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages = map[string]int{}
	for _, doc := range s.docs {
		var d struct{ Message string }
		if err := json.Unmarshal([]byte(doc), &d); err != nil {
			s.t.Error(err)
		}
		messages[d.Message]++
	}
	return messages, s.again
}

// asked returns how many bulk requests came.
func (s *server) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// in returns how many documents a stream has.
func (s *server) in(stream string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[stream]
}

// output configures one with the given keys besides the necessary ones.
func (s *server) output(log io.Writer, keys ...string) *Output {
	s.t.Helper()
	set := map[string]string{"URLs": s.URL, "Dead_Letters": s.t.TempDir()}
	for i := 0; i < len(keys); i += 2 {
		set[keys[i]] = keys[i+1]
	}
	o, err := Configure(func(key string) string { return set[key] }, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := o.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return o
}
