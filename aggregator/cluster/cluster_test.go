package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"nines/pkg/metric"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// fakeAPI answers list and watch of nodes in the JSON of a Kubernetes API.
type fakeAPI struct {
	streaming bool // knows streaming lists, as since Kubernetes 1.32

	mu       sync.Mutex
	nodes    map[string]json.RawMessage
	version  int
	watchers map[chan string]bool
	fault    func(w http.ResponseWriter, r *http.Request) bool // answers instead, if true
	requests []string
}

func newAPI(t *testing.T) (*fakeAPI, *httptest.Server) {
	t.Helper()
	f := &fakeAPI{nodes: map[string]json.RawMessage{}, version: 100, watchers: map[chan string]bool{}}
	data, err := os.ReadFile("testdata/nodes.json")
	if err != nil {
		t.Fatal(err)
	}
	var nodes []json.RawMessage
	if err := json.Unmarshal(data, &nodes); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		f.nodes[name(t, n)] = n
	}
	srv := httptest.NewServer(f)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return f, srv
}

func name(t *testing.T, node json.RawMessage) string {
	t.Helper()
	var n corev1.Node
	if err := json.Unmarshal(node, &n); err != nil {
		t.Fatal(err)
	}
	return n.Name
}

func status(code int, reason, message string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	q := r.URL.Query()
	what := "list"
	if q.Get("watch") != "" {
		what = "watch"
		if q.Get("sendInitialEvents") == "true" {
			what = "stream"
		}
	}
	f.requests = append(f.requests, what)
	if fault := f.fault; fault != nil {
		f.mu.Unlock() // it may panic, to cut the connection
		if fault(w, r) {
			return
		}
		f.mu.Lock()
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != "/api/v1/nodes" {
		f.mu.Unlock()
		w.WriteHeader(404)
		_, _ = io.WriteString(w, status(404, "NotFound", "no such path"))
		return
	}
	if what == "stream" && !f.streaming {
		f.mu.Unlock()
		w.WriteHeader(422)
		_, _ = io.WriteString(w, status(422, "Invalid", "sendInitialEvents: Forbidden"))
		return
	}
	names := make([]string, 0, len(f.nodes))
	for n := range f.nodes {
		names = append(names, n)
	}
	slices.Sort(names)
	if what == "list" {
		items := make([]json.RawMessage, 0, len(names))
		for _, n := range names {
			items = append(items, f.nodes[n])
		}
		body, err := json.Marshal(map[string]any{"kind": "NodeList", "apiVersion": "v1", "metadata": map[string]string{"resourceVersion": fmt.Sprint(f.version)}, "items": items})
		f.mu.Unlock()
		if err != nil {
			panic(err)
		}
		_, _ = w.Write(body)
		return
	}
	ch := make(chan string, 100)
	f.watchers[ch] = true
	if what == "stream" {
		for _, n := range names {
			ch <- fmt.Sprintf(`{"type":"ADDED","object":%s}`, compact(f.nodes[n]))
		}
		ch <- fmt.Sprintf(`{"type":"BOOKMARK","object":{"kind":"Node","apiVersion":"v1","metadata":{"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}}}}`, f.version)
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, ch)
		f.mu.Unlock()
	}()
	w.(http.Flusher).Flush()
	for {
		select {
		case line, ok := <-ch:
			if !ok {
				return
			}
			_, _ = io.WriteString(w, line+"\n")
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func compact(j json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Compact(&b, j); err != nil {
		panic(err)
	}
	return b.String()
}

// send tells all watchers one event; cut ends their streams.
func (f *fakeAPI) send(line string, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.watchers {
		if line != "" {
			ch <- line
		}
		if cut {
			close(ch)
			delete(f.watchers, ch)
		}
	}
}

func (f *fakeAPI) setFault(fault func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *fakeAPI) change(name, old, new string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.nodes[name] = json.RawMessage(strings.ReplaceAll(string(f.nodes[name]), old, new))
}

// watched is a running Watcher with what it said.
type watched struct {
	*Watcher
	log    *bytes.Buffer // to be read after stop
	events chan string   // "add node-a" and the like
	states chan bool
	stop   func()
}

func start(t *testing.T, access *rest.Config, change ...func(*Config)) *watched {
	t.Helper()
	cfg := DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, nil)) // a handler writes one record at a time
	sink := func(context.Context, time.Time, []metric.Family) error { return nil }
	w, err := newWatcher(cfg, sink, log, prometheus.NewRegistry(), finder{inCluster: func() (*rest.Config, error) { return access, nil }})
	if err != nil {
		t.Fatal(err)
	}
	x := &watched{Watcher: w, log: &buf, events: make(chan string, 100), states: make(chan bool, 100)}
	w.onState = func(up bool) { x.states <- up }
	say := func(verb string) func(any) {
		return func(o any) { x.events <- verb + " " + o.(*corev1.Node).Name }
	}
	if _, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: say("add"), UpdateFunc: func(_, n any) { say("update")(n) }, DeleteFunc: say("delete"),
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(x.stop)
	return x
}

func (x *watched) expect(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, <-x.events)
	}
	for !x.informer.HasSynced() { // just after the last event of the first list
		<-x.tick()
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("informed of %q, want %q", got, want)
	}
}

func text(t *testing.T, fams []metric.Family) string {
	t.Helper()
	var b strings.Builder
	if err := metric.WriteText(&b, fams); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestNodesAreToldUnderTheNamesOfKubeStateMetrics(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("streaming=%v", streaming), func(t *testing.T) {
			api, srv := newAPI(t)
			api.streaming = streaming
			w := start(t, &rest.Config{Host: srv.URL})
			w.expect(t, "add node-a", "add node-b")
			got := text(t, w.Collect(time.Now()))
			golden := "testdata/nodes.golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestFieldsThatNobodyReadsAreNotKept(t *testing.T) {
	_, srv := newAPI(t)
	w := start(t, &rest.Config{Host: srv.URL})
	w.expect(t, "add node-a", "add node-b")
	o, ok, err := w.informer.GetStore().GetByKey("node-b")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	n := o.(*corev1.Node)
	if n.Annotations != nil || n.ManagedFields != nil || n.Status.Images != nil || n.Status.Capacity != nil || n.Spec.Taints != nil ||
		n.Labels["kubernetes.io/hostname"] != "" || n.Status.NodeInfo.MachineID != "" || !n.Status.Conditions[0].LastHeartbeatTime.IsZero() {
		t.Errorf("kept %+v", n)
	}
}

func TestChangesArriveByWatch(t *testing.T) {
	api, srv := newAPI(t)
	w := start(t, &rest.Config{Host: srv.URL})
	w.expect(t, "add node-a", "add node-b")
	<-w.states
	for api.watching() == 0 {
		<-w.tick()
	}
	api.change("node-b", `"Unknown"`, `"True"`)
	api.change("node-b", `"resourceVersion": "11"`, `"resourceVersion": "200"`)
	api.send(`{"type":"MODIFIED","object":`+compact(api.nodes["node-b"])+`}`, false)
	w.expect(t, "update node-b")
	if got := text(t, w.Collect(time.Now())); !strings.Contains(got, `kube_node_status_condition{condition="Ready",node="node-b",status="true"} 1`) {
		t.Errorf("the change is not told:\n%s", got)
	}
	api.send(`{"type":"DELETED","object":`+strings.Replace(compact(api.nodes["node-a"]), `"10"`, `"201"`, 1)+`}`, false)
	w.expect(t, "delete node-a")
	if got := text(t, w.Collect(time.Now())); strings.Contains(got, "node-a") {
		t.Errorf("a deleted node is told:\n%s", got)
	}
}

func (f *fakeAPI) watching() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers)
}

// tick waits a moment of real time for what no event announces.
func (x *watched) tick() <-chan time.Time { return time.After(time.Millisecond) }

func TestFaultsOfTheAPIAreSurvived(t *testing.T) {
	once := func(answer func(w http.ResponseWriter)) func(*fakeAPI) {
		return func(f *fakeAPI) {
			var done atomic.Bool
			f.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if done.Swap(true) {
					return false
				}
				answer(w)
				return true
			})
		}
	}
	reply := func(code int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, tc := range []struct {
		name   string
		before func(*fakeAPI) // at the first request
	}{
		{"500", once(reply(500, status(500, "InternalError", "etcd is away")))},
		{"503 of a proxy", once(reply(503, "<html>try later</html>"))},
		{"403", once(reply(403, status(403, "Forbidden", "nodes is forbidden")))},
		{"garbage", once(reply(200, `{"kind":"NodeList","items":[{"metadata":`))},
		{"cut connection", once(func(http.ResponseWriter) { panic(http.ErrAbortHandler) })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			api, srv := newAPI(t)
			tc.before(api)
			w := start(t, &rest.Config{Host: srv.URL})
			w.expect(t, "add node-a", "add node-b")
			if got := text(t, w.Collect(time.Now())); !strings.Contains(got, "up 1\n") || !strings.Contains(got, "node-a") {
				t.Errorf("told\n%s", got)
			}
		})
	}
}

func TestExpiredWatchListsAgain(t *testing.T) {
	api, srv := newAPI(t)
	w := start(t, &rest.Config{Host: srv.URL})
	w.expect(t, "add node-a", "add node-b")
	for api.watching() == 0 {
		<-w.tick()
	}
	// Compaction: the change below is never told by the watch.
	api.change("node-a", `"resourceVersion": "10"`, `"resourceVersion": "300"`)
	api.change("node-a", "Talos", "Flatcar")
	api.send(`{"type":"ERROR","object":`+status(410, "Expired", "too old resource version")+`}`, true)
	for e := range w.events {
		if e == "update node-a" {
			break
		}
	}
	if got := text(t, w.Collect(time.Now())); !strings.Contains(got, "Flatcar") {
		t.Errorf("the new list is not told:\n%s", got)
	}
}

func TestSilentAPIIsToldByUpAndItsNodesEndAfterTheGraceTime(t *testing.T) {
	api, srv := newAPI(t)
	w := start(t, &rest.Config{Host: srv.URL})
	w.expect(t, "add node-a", "add node-b")
	if up := <-w.states; !up {
		t.Error("not connected after the first list")
	}
	for api.watching() == 0 {
		<-w.tick()
	}
	api.setFault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(500)
		return true
	})
	api.send("", true)
	if up := <-w.states; up {
		t.Error("connected to an API that fails")
	}
	soon, late := text(t, w.Collect(time.Now())), text(t, w.Collect(time.Now().Add(grace+time.Minute)))
	if !strings.Contains(soon, "up 0\n") || !strings.Contains(soon, "node-a") {
		t.Errorf("within the grace time told\n%s", soon)
	}
	if !strings.Contains(late, "up 0\n") || strings.Contains(late, "node-a") {
		t.Errorf("after it told\n%s", late)
	}
	if testutil.ToFloat64(w.failures) == 0 {
		t.Error("no failure counted")
	}
	api.setFault(nil)
	if up := <-w.states; !up {
		t.Error("not connected again")
	}
	w.stop()
	for _, want := range []string{"reading the cluster's nodes", "does not answer", "answers again"} {
		if n := strings.Count(w.log.String(), want); n != 1 {
			t.Errorf("logged %q %d times, want once:\n%s", want, n, w.log)
		}
	}
}

func TestNothingButUpIsToldBeforeTheFirstList(t *testing.T) {
	api, srv := newAPI(t)
	api.setFault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(401)
		return true
	})
	w := start(t, &rest.Config{Host: srv.URL})
	for testutil.ToFloat64(w.failures) == 0 {
		<-w.tick()
	}
	if got := text(t, w.Collect(time.Now())); !strings.Contains(got, "up 0\n") || strings.Contains(got, "kube_") {
		t.Errorf("told\n%s", got)
	}
}

func TestMoreNodesThanTheBoundAreLeftOut(t *testing.T) {
	_, srv := newAPI(t)
	w := start(t, &rest.Config{Host: srv.URL}, func(c *Config) { c.MaxNodes = 1 })
	w.expect(t, "add node-a", "add node-b")
	for range 2 {
		if got := text(t, w.Collect(time.Now())); !strings.Contains(got, "node-a") || strings.Contains(got, "node-b") {
			t.Errorf("told\n%s", got)
		}
	}
	w.stop()
	if n := strings.Count(w.log.String(), "raise cluster.max_nodes"); n != 1 {
		t.Errorf("said it %d times, want once", n)
	}
}

func TestWithoutAClusterItSaysSoOnceAndTellsNothing(t *testing.T) {
	var buf bytes.Buffer
	w, err := newWatcher(DefaultConfig(), nil, slog.New(slog.NewTextHandler(&buf, nil)), prometheus.NewRegistry(),
		finder{func() (*rest.Config, error) { return nil, rest.ErrNotInCluster }, []string{filepath.Join(t.TempDir(), "none")}})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.Collect(time.Now()); got != nil {
		t.Errorf("told %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
	if n := strings.Count(buf.String(), "no cluster configured"); n != 1 {
		t.Errorf("said it %d times, want once: %s", n, buf.String())
	}
}

func TestSinkIsGivenEachIntervalAndItsFailureIsLoggedOnce(t *testing.T) {
	_, srv := newAPI(t)
	cfg := DefaultConfig()
	cfg.Interval = time.Second
	var buf bytes.Buffer
	calls := make(chan []metric.Family)
	sink := func(ctx context.Context, _ time.Time, fams []metric.Family) error {
		select {
		case calls <- fams:
		case <-ctx.Done():
		}
		return errors.New("the store is closed")
	}
	w, err := newWatcher(cfg, sink, slog.New(slog.NewTextHandler(&buf, nil)), prometheus.NewRegistry(),
		finder{inCluster: func() (*rest.Config, error) { return &rest.Config{Host: srv.URL}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	for range 2 {
		if fams := <-calls; fams[0].Name != "up" {
			t.Errorf("told %v", fams)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(buf.String(), "could not be stored"); n != 1 {
		t.Errorf("said it %d times, want once: %s", n, buf.String())
	}
}

const kubeconfig = `
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://a.example"}}, {name: b, cluster: {server: "https://b.example"}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: a, context: {cluster: a, user: u}}, {name: b, context: {cluster: b, user: u}}]
current-context: a
`

func TestAccessIsLookedForInOrder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := func() (*rest.Config, error) { return nil, rest.ErrNotInCluster }
	inside := func() (*rest.Config, error) { return &rest.Config{Host: "https://pod.example"}, nil }
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		f     finder
		cfg   Config
		host  string
		error string
	}{
		{"named file before service account", finder{inside, nil}, Config{Kubeconfig: file}, "https://a.example", ""},
		{"context", finder{outside, nil}, Config{Kubeconfig: file, Context: "b"}, "https://b.example", ""},
		{"unknown context", finder{outside, nil}, Config{Kubeconfig: file, Context: "c"}, "", "cluster.context"},
		{"service account before home", finder{inside, []string{file}}, Config{}, "https://pod.example", ""},
		{"home", finder{outside, []string{filepath.Join(dir, "none"), file}}, Config{}, "https://a.example", ""},
		{"nothing", finder{outside, nil}, Config{}, "", "no cluster configured"},
		{"named file is missing", finder{outside, nil}, Config{Kubeconfig: filepath.Join(dir, "none")}, "", "correct cluster.kubeconfig"},
		{"broken file", finder{outside, nil}, Config{Kubeconfig: broken}, "", "correct the file"},
		{"broken service account", finder{func() (*rest.Config, error) { return nil, os.ErrPermission }, nil}, Config{}, "", "service account of this pod"},
	} {
		c, source, err := tc.f.find(tc.cfg)
		switch {
		case tc.error != "" && (err == nil || !strings.Contains(err.Error(), tc.error)):
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.error)
		case tc.error == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.error == "" && (c.Host != tc.host || source == ""):
			t.Errorf("%s: found %s in %q, want %s", tc.name, c.Host, source, tc.host)
		}
	}
}

func TestConfigNamesTheFieldAndTheRemedy(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Interval: time.Hour, NodeLabels: make([]string, 51)}.Validate()
	for _, want := range []string{"interval is 1h0m0s: give 1s to 2m", "max_nodes is 0", "node_labels has 51"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestLabelsThatComeToOneNameDoNotCollide(t *testing.T) {
	n := &corev1.Node{}
	n.Name = "n"
	n.Labels = map[string]string{"a.b": "1", "a-b": "2", "c": "3"}
	if got, want := fmt.Sprint(labelSeries(n)), "[{label_a_b 2} {label_c 3} {node n}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
