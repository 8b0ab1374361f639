package harness

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is a way in which a search server, or the network before it, fails.
type Fault string

// The faults. Those that name records leave the others of the bulk as they are.
const (
	Busy            Fault = "429 for the request"
	BusyRetryAfter  Fault = "429 with Retry-After"
	Unavailable     Fault = "503 for the request"
	TooLarge        Fault = "413 above the size"
	HalfBusy        Fault = "429 for some records"
	HalfUnavailable Fault = "503 for some records"
	ResetBefore     Fault = "reset, nothing forwarded"
	ResetAfter      Fault = "reset, all forwarded"
	ResetMid        Fault = "reset in the middle of the answer"
	SlowAnswer      Fault = "slow answer"
	GarbageStored   Fault = "garbage answer, all forwarded"
	GarbageLost     Fault = "garbage answer, nothing forwarded"
	FewerItems      Fault = "fewer items in the answer"
	// Away is counted where the server itself cannot be reached; a plan does
	// not name it.
	Away Fault = "server away"
)

// AllFaults are those that a plan can name.
var AllFaults = []Fault{
	Busy, BusyRetryAfter, Unavailable, TooLarge, HalfBusy, HalfUnavailable, ResetBefore, ResetAfter, ResetMid,
	SlowAnswer, GarbageStored, GarbageLost, FewerItems,
}

// Plan says which faults requests meet.
type Plan struct {
	Kinds []Fault
	// Share of the bulks that meet a fault, from 0 to 1. Other requests that
	// write or look records up meet those that concern whole requests.
	Share float64
	// MaxBody is above how many bytes, as they go over the wire, a bulk meets
	// TooLarge where that is among the kinds; Share has no say in it.
	MaxBody int
	// Slow is the longest delay of SlowAnswer.
	Slow time.Duration
}

// FaultProxy stands before a search server and fails as its plan says. What it
// passes on it passes on unchanged.
type FaultProxy struct {
	URL string

	to     *url.URL
	client *http.Client

	mu     sync.Mutex
	random *rand.Rand
	plan   Plan
	counts map[Fault]int
	bulks  int // bulks that came
}

// FaultProxy starts one, in this process, that fails nothing before its plan is
// set. Its choices come from the seed alone.
func (l *Lab) FaultProxy(upstream string, seed uint64) *FaultProxy {
	l.t.Helper()
	p, err := newFaultProxy(upstream, seed)
	if err != nil {
		l.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", l.Port()))
	if err != nil {
		l.t.Fatal(err)
	}
	p.URL = "http://" + listener.Addr().String()
	server := &http.Server{Handler: p}
	done := make(chan error, 1) // the goroutine below puts one in
	go func() { done <- server.Serve(listener) }()
	l.t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-done); !errors.Is(err, http.ErrServerClosed) {
			l.t.Errorf("proxy: %v", err)
		}
	})
	return p
}

func newFaultProxy(upstream string, seed uint64) (*FaultProxy, error) {
	to, err := url.Parse(upstream)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return &FaultProxy{
		to: to, random: rand.New(rand.NewPCG(seed, 7)), counts: map[Fault]int{},
		client: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}},
	}, nil
}

// Set changes the plan; the zero Plan fails nothing.
func (p *FaultProxy) Set(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// Counts returns how often each fault was met, and how many bulks came.
func (p *FaultProxy) Counts() (counts map[Fault]int, bulks int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts = map[Fault]int{}
	for f, n := range p.counts {
		counts[f] = n
	}
	return counts, p.bulks
}

func (p *FaultProxy) count(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[f]++
}

// choose draws the fault of a request, with numbers for what the fault needs.
func (p *FaultProxy) choose(bulk bool, size int) (f Fault, plan Plan, seed uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	plan = p.plan
	if bulk {
		p.bulks++
	}
	seed = p.random.Uint64()
	var kinds []Fault
	for _, k := range plan.Kinds {
		switch {
		case k == TooLarge:
			if bulk && plan.MaxBody > 0 && size > plan.MaxBody {
				p.counts[TooLarge]++
				return TooLarge, plan, seed
			}
		case bulk || k == Busy || k == BusyRetryAfter || k == Unavailable || k == ResetBefore || k == ResetAfter || k == SlowAnswer:
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 || p.random.Float64() >= plan.Share {
		return "", plan, seed
	}
	// Of those that were met least, so that a short run meets many.
	fewest := p.counts[slices.MinFunc(kinds, func(a, b Fault) int { return cmp.Compare(p.counts[a], p.counts[b]) })]
	kinds = slices.DeleteFunc(kinds, func(k Fault) bool { return p.counts[k] > fewest })
	f = kinds[p.random.IntN(len(kinds))]
	p.counts[f]++
	return f, plan, seed
}

// maxRequest bounds what is read of one request, in bytes.
const maxRequest = 256 << 20

func (p *FaultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		reset(w) // whoever sent it is gone
		return
	}
	bulk := strings.HasSuffix(r.URL.Path, "/_bulk")
	var f Fault
	var plan Plan
	var seed uint64
	if bulk || strings.HasSuffix(r.URL.Path, "/_mget") {
		f, plan, seed = p.choose(bulk, len(body))
	}
	random := rand.New(rand.NewPCG(seed, 1))
	switch f {
	case Busy, BusyRetryAfter:
		if f == BusyRetryAfter {
			w.Header().Set("Retry-After", "1")
		}
		refuse(w, http.StatusTooManyRequests, "es_rejected_execution_exception", "rejected execution of coordinating operation")
		return
	case Unavailable:
		refuse(w, http.StatusServiceUnavailable, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered / initialized];")
		return
	case TooLarge:
		w.WriteHeader(http.StatusRequestEntityTooLarge) // Elasticsearch says no more
		return
	case ResetBefore:
		reset(w)
		return
	case GarbageLost:
		garbage(w)
		return
	case SlowAnswer:
		if !pause(r, time.Duration(random.Int64N(int64(max(plan.Slow, 1))))) {
			return
		}
	}
	var weave func([]byte) ([]byte, error)
	if f == HalfBusy || f == HalfUnavailable {
		kept, keep, err := someItems(body, r.Header.Get("Content-Encoding") == "gzip", random)
		if err != nil {
			http.Error(w, "proxy: "+err.Error(), http.StatusInternalServerError)
			return
		}
		body = kept
		r.Header.Del("Content-Encoding")
		weave = func(answer []byte) ([]byte, error) { return weaveItems(answer, keep, f) }
	}
	// Elasticsearch refuses a bulk without items.
	status, header, answer := http.StatusOK, http.Header{"Content-Type": {"application/json"}}, []byte(`{"items":[]}`)
	if len(body) > 0 || weave == nil {
		if status, header, answer, err = p.forward(r, body); err != nil {
			p.count(Away)
			reset(w)
			return
		}
	}
	switch f {
	case ResetAfter:
		reset(w)
		return
	case GarbageStored:
		garbage(w)
		return
	case FewerItems:
		weave = fewerItems
	}
	if weave != nil && status == http.StatusOK {
		if answer, err = weave(answer); err != nil {
			http.Error(w, "proxy: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	for _, name := range []string{"Content-Type", "X-Elastic-Product", "Retry-After", "Warning", "Www-Authenticate"} {
		if v := header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if f == ResetMid {
		// What was written must be on its way before the connection breaks.
		_, err := w.Write(answer[:len(answer)/2])
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err == nil {
			reset(w)
		}
		return
	}
	_, _ = w.Write(answer) // whoever asked may be gone
}

// forward sends the request on and reads the answer.
func (p *FaultProxy) forward(r *http.Request, body []byte) (status int, header http.Header, answer []byte, err error) {
	to := *p.to
	to.Path, to.RawQuery = r.URL.Path, r.URL.RawQuery
	// Not with the context of who asked: what was sent is sent, even if that
	// one is killed.
	out, err := http.NewRequest(r.Method, to.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	out.Header = r.Header.Clone()
	resp, err := p.client.Do(out)
	if err != nil {
		return 0, nil, nil, err
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	return resp.StatusCode, resp.Header, answer, errors.Join(err, resp.Body.Close())
}

// reset breaks the connection as a crash does: with RST and no end of stream.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the connection cannot be taken; the server closes it
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be broken already
	}
	_ = conn.Close()
}

// pause waits, unless who asked goes away.
func pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func refuse(w http.ResponseWriter, status int, kind, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"error":%s,"status":%d}`, errorObject(kind, reason), status) // who asked may be gone
}

func errorObject(kind, reason string) string {
	return fmt.Sprintf(`{"type":%q,"reason":%q}`, kind, reason)
}

// garbage is what a wrong server, or a load balancer, says with a 200.
func garbage(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<html><body>It works!</body></html>\n") // who asked may be gone
}

// someItems leaves about half of a bulk's items out; keep says which are in.
// The rest is not compressed.
func someItems(body []byte, zipped bool, random *rand.Rand) (kept []byte, keep []bool, err error) {
	if zipped {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, nil, fmt.Errorf("read the body: %w", err)
		}
		if body, err = io.ReadAll(io.LimitReader(z, maxRequest)); err != nil {
			return nil, nil, fmt.Errorf("read the body: %w", err)
		}
	}
	for len(body) > 0 {
		var item []byte
		action, rest, ok := bytes.Cut(body, []byte("\n"))
		if !ok {
			return nil, nil, errors.New("the body does not end with a newline")
		}
		if len(action) == 0 {
			body = rest
			continue
		}
		doc, rest, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return nil, nil, errors.New("an action has no document")
		}
		item = body[:len(action)+len(doc)+2]
		body = rest
		in := random.IntN(2) == 0
		keep = append(keep, in)
		if in {
			kept = append(kept, item...)
		}
	}
	return kept, keep, nil
}

// bulkAnswer is what _bulk says; took may be filtered out.
type bulkAnswer struct {
	Took   json.RawMessage   `json:"took,omitempty"`
	Errors bool              `json:"errors"`
	Items  []json.RawMessage `json:"items"`
}

// weaveItems puts refusals between the items of the answer, where the bulk had
// the items that were left out.
func weaveItems(answer []byte, keep []bool, f Fault) ([]byte, error) {
	var a bulkAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	refusal := fmt.Sprintf(`{"create":{"status":429,"error":%s}}`, errorObject("es_rejected_execution_exception", "rejected execution of primary operation"))
	if f == HalfUnavailable {
		refusal = fmt.Sprintf(`{"create":{"status":503,"error":%s}}`, errorObject("unavailable_shards_exception", "primary shard is not active"))
	}
	var woven []json.RawMessage
	next := 0
	for _, in := range keep {
		if !in {
			woven = append(woven, json.RawMessage(refusal))
			a.Errors = true
			continue
		}
		if next == len(a.Items) {
			return nil, fmt.Errorf("the answer has %d items", next)
		}
		woven = append(woven, a.Items[next])
		next++
	}
	a.Items = woven
	return json.Marshal(a)
}

// fewerItems drops the last third of the items.
func fewerItems(answer []byte) ([]byte, error) {
	var a bulkAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	a.Items = a.Items[:len(a.Items)*2/3]
	return json.Marshal(a)
}
