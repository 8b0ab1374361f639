package ship

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// cluster plays an Elasticsearch on connections in memory: it stores what it
// is sent, by _id, unless the script says otherwise.
type cluster struct {
	conns chan net.Conn
	hold  func() string // of the destination under test

	mu        sync.Mutex
	script    []reply                                       // one for each _bulk; then it just stores
	templates []reply                                       // one for each template that is put; then it accepts
	lookups   []reply                                       // one for each _mget; then it looks
	index     string                                        // the write index; empty: answers name none
	early     func(http.ResponseWriter, *http.Request) bool // has answered before the body is read
	stored    map[string]string                             // _id to document
	older     map[string]map[string]string                  // what stored was before a rollover, by index
	known     map[string]string                             // templates by path
	refused   int                                           // connections that are not accepted, from now on
	seen      []seen
}

// seen is a request as the cluster saw it.
type seen struct {
	path  string
	ids   []string
	hold  string // the destination's, when the request came
	at    time.Duration
	asked *http.Request
	body  []byte // decompressed
}

type reply func(c *cluster, w http.ResponseWriter, r *http.Request, s seen)

var errAway = errors.New("nobody listens")

// rollover begins a new write index.
func (c *cluster) rollover(index string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.older == nil {
		c.older = map[string]map[string]string{}
	}
	c.older[c.index], c.stored, c.index = c.stored, map[string]string{}, index
}

func (c *cluster) Accept() (net.Conn, error) {
	conn, ok := <-c.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (c *cluster) Close() error   { return nil }
func (c *cluster) Addr() net.Addr { return &net.TCPAddr{} }

func (c *cluster) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	c.mu.Lock()
	away := c.refused > 0
	c.refused--
	c.mu.Unlock()
	if away {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errAway}
	}
	ours, theirs := net.Pipe()
	select {
	case c.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.early != nil && c.early(w, r) {
		return
	}
	s := seen{path: r.URL.Path, asked: r, hold: c.hold()}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			panic(err)
		}
		body = z
	}
	data, err := io.ReadAll(body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	s.body = data
	lines := strings.Split(string(data), "\n")
	var play reply
	c.mu.Lock()
	if strings.HasSuffix(s.path, "/_bulk") {
		for i := 0; i+1 < len(lines); i += 2 {
			var action struct {
				Create struct {
					ID string `json:"_id"`
				} `json:"create"`
			}
			if err := json.Unmarshal([]byte(lines[i]), &action); err != nil {
				c.mu.Unlock()
				whole(400, fmt.Sprintf(`{"error":"action line %d is no JSON"}`, i))(c, w, r, s)
				return
			}
			s.ids = append(s.ids, action.Create.ID)
		}
		play = items(nil)
		if len(c.script) > 0 {
			play, c.script = c.script[0], c.script[1:]
		}
	} else if strings.HasSuffix(s.path, "/_mget") {
		play = look
		if len(c.lookups) > 0 {
			play, c.lookups = c.lookups[0], c.lookups[1:]
		}
	} else if strings.HasSuffix(s.path, "/_settings") {
		play = indices
	} else if r.Method == http.MethodGet {
		play = show
	} else {
		play = accept
		if len(c.templates) > 0 {
			play, c.templates = c.templates[0], c.templates[1:]
		}
	}
	s.at = time.Since(began)
	c.seen = append(c.seen, s)
	c.mu.Unlock()
	play(c, w, r, s)
}

// began is where the time of a bubble of synctest begins.
var began = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// bulks returns the records of each _bulk that the cluster saw.
func (c *cluster) bulks() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, s := range c.seen {
		if strings.HasSuffix(s.path, "/_bulk") {
			all = append(all, strings.Join(s.ids, " "))
		}
	}
	return all
}

// requests returns what the cluster saw of a path.
func (c *cluster) requests(path string) []seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.seen), func(s seen) bool { return s.path != path })
}

func (c *cluster) has(ids ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if _, ok := c.stored[id]; !ok {
			return false
		}
	}
	return true
}

// accept takes a template.
func accept(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]string{}
	}
	c.known[s.path] = string(s.body)
	io.WriteString(w, `{"acknowledged":true}`)
}

// show answers a search for a template.
func show(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, ok := c.known[s.path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"error":{"type":"resource_not_found_exception","reason":"not found"},"status":404}`)
		return
	}
	kind := "component_template"
	if strings.Contains(s.path, "/_index_template/") {
		kind = "index_template"
	}
	fmt.Fprintf(w, `{"%ss":[{"name":%q,"%[1]s":%[3]s}]}`, kind, s.path[strings.LastIndexByte(s.path, '/')+1:], text)
}

// indices answers with the backing indices of a stream, the newest first, as the
// order of an answer means nothing.
func indices(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index == "" {
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"error":{"type":"index_not_found_exception","reason":"no such index"},"status":404}`)
		return
	}
	all := []string{fmt.Sprintf(`%q:{"settings":{"index":{"creation_date":"1000"}}}`, c.index)}
	for i, name := range slices.Sorted(maps.Keys(c.older)) {
		all = append(all, fmt.Sprintf(`%q:{"settings":{"index":{"creation_date":"%d"}}}`, name, 100+i))
	}
	fmt.Fprintf(w, "{%s}", strings.Join(all, ","))
}

// look answers an _mget as Elasticsearch does.
func look(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	parts := strings.Split(s.path, "/")
	index := parts[len(parts)-2]
	docs, there := c.older[index]
	if index == c.index {
		docs, there = c.stored, true
	}
	var ask struct{ IDs []string }
	if err := json.Unmarshal(s.body, &ask); err != nil {
		panic(err)
	}
	var all []string
	for _, id := range ask.IDs {
		if !there {
			all = append(all, fmt.Sprintf(`{"_id":%q,"error":{"type":"index_not_found_exception","reason":"no such index [%s]"}}`, id, index))
			continue
		}
		_, found := docs[id]
		all = append(all, fmt.Sprintf(`{"_id":%q,"found":%t}`, id, found))
	}
	fmt.Fprintf(w, `{"docs":[%s]}`, strings.Join(all, ","))
}

// itemsOf makes the answers to the records of a request, and stores those that
// the script does not refuse.
func (c *cluster) itemsOf(s seen, refuse map[string]string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := strings.Split(string(s.body), "\n")
	all := make([]string, len(s.ids))
	in := ""
	if c.index != "" {
		in = fmt.Sprintf(`"_index":%q,`, c.index)
	}
	for i, id := range s.ids {
		switch _, there := c.stored[id]; {
		case refuse[id] != "":
			all[i] = `{"create":` + refuse[id] + `}`
		case there:
			all[i] = `{"create":{` + in + `"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[` + id + `]: version conflict, document already exists"}}}`
		default:
			c.stored[id] = lines[2*i+1]
			all[i] = `{"create":{` + in + `"status":201}}`
		}
	}
	return all
}

// items answers for each record: as refuse says by _id, else it is stored.
func items(refuse map[string]string) reply {
	return func(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
		fmt.Fprintf(w, `{"errors":%t,"items":[%s]}`, refuse != nil, strings.Join(c.itemsOf(s, refuse), ","))
	}
}

// first answers for the first n records and is silent about the others.
func first(n int) reply {
	return func(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
		fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(c.itemsOf(s, nil)[:n], ","))
	}
}

// whole answers the request and stores nothing.
func whole(status int, body string) reply {
	return func(_ *cluster, w http.ResponseWriter, _ *http.Request, _ seen) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// breaksAfter stores all, sends the beginning of an answer and closes.
func breaksAfter(head string) reply {
	return func(c *cluster, w http.ResponseWriter, _ *http.Request, s seen) {
		c.itemsOf(s, nil)
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		buf.WriteString(head)
		buf.Flush()
		conn.Close()
	}
}

// silent never answers.
func silent(_ *cluster, _ http.ResponseWriter, r *http.Request, _ seen) { <-r.Context().Done() }

// fixture is a destination and the cluster that it ships to.
type fixture struct {
	*Elasticsearch
	cluster *cluster
	set     *metrics.Set
	logged  *bytes.Buffer
	folder  string // of dead letters
}

// withCluster runs a test in a bubble of synctest.
func withCluster(t *testing.T, change func(*ElasticsearchConfig), test func(t *testing.T, f *fixture)) {
	t.Helper()
	cfg := ElasticsearchConfig{URLs: []string{"http://elasticsearch:9200"}, DeadLetters: filepath.Join(t.TempDir(), "dead"), Agent: "nines-agent/1"}
	if change != nil {
		change(&cfg)
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{
			cluster: &cluster{conns: make(chan net.Conn), stored: map[string]string{}},
			set:     metrics.NewSet(), logged: &bytes.Buffer{}, folder: cfg.DeadLetters,
		}
		var err error
		f.Elasticsearch, err = NewElasticsearch(cfg, slog.New(slog.NewTextHandler(f.logged, nil)), NewMetrics(f.set, "elasticsearch"))
		if err != nil {
			t.Fatal(err)
		}
		f.conns.DialContext = f.cluster.dial
		f.conns.Proxy = nil
		f.cluster.hold = f.Hold
		server := &http.Server{Handler: f.cluster, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			server.Serve(f.cluster)
		}()
		defer func() {
			if err := f.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			close(f.cluster.conns)
			server.Close()
			<-done
			time.Sleep(time.Second) // of the bubble: as long as a server lingers on a connection that it closes
		}()
		test(t, f)
	})
}

// recordsOf makes records with the given IDs.
func recordsOf(ids ...string) []Record {
	records := make([]Record, len(ids))
	for i, id := range ids {
		message, err := json.Marshal("line " + id)
		if err != nil {
			panic(err)
		}
		records[i] = Record{ID: id, Stream: StreamOfFiles("default"),
			Doc: fmt.Appendf(nil, `{"@timestamp":"2026-01-02T03:04:05Z","message":%s}`, message)}
	}
	return records
}

// patience bounds calls of Ship, which never give up by themselves. Where it
// is of a bubble it takes no time.
const patience = 24 * time.Hour

// ship ships the records with the given IDs and wants the verdicts.
func (f *fixture) ship(t *testing.T, ids string, want ...Verdict) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := f.Ship(ctx, recordsOf(strings.Fields(ids)...))
	if err != nil {
		t.Errorf("%v; holds with %q", err, f.Hold())
	}
	if !slices.Equal(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
}

// lines returns the lines of a folder of NDJSON, oldest first.
func linesOf(t *testing.T, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*"+ndjsonSuffix))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(f)
		for {
			line, err := r.ReadString('\n')
			if err == io.EOF && line == "" {
				break
			}
			if err != nil {
				t.Fatalf("%s ends with the torn line %q (%v)", name, line, err)
			}
			if !json.Valid([]byte(line)) {
				t.Fatalf("%s has the line %q, which is no JSON", name, line)
			}
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
		f.Close()
	}
	return all
}

// idsIn returns the _id of each line.
func idsIn(t *testing.T, lines []string) string {
	t.Helper()
	var all []string
	for _, line := range lines {
		var doc struct {
			ID string `json:"_id"`
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		all = append(all, doc.ID)
	}
	return strings.Join(all, " ")
}

// counts returns the series of the set that are not 0, without what all names
// have in common.
func counts(set *metrics.Set) string {
	var b bytes.Buffer
	set.WritePrometheus(&b)
	var all []string
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSpace(strings.NewReplacer("nines_log_", "", `destination="elasticsearch",`, "", `{destination="elasticsearch"}`, "", "_records_total", "_total").Replace(line))
		if strings.HasPrefix(line, "#") || strings.HasSuffix(line, " 0") || strings.HasPrefix(line, "sent_bytes") ||
			strings.HasPrefix(line, "dead_letter_bytes") || strings.HasPrefix(line, "concurrent_requests_limit") {
			continue
		}
		line = strings.NewReplacer(`requests_total{result="`, "", `"}`, "", "_total", "").Replace(line)
		all = append(all, strings.ReplaceAll(line, " ", "="))
	}
	return strings.Join(all, " ")
}
