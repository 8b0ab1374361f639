package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	podsPath     = "/api/v1/pods"
	monitorsPath = "/apis/monitoring.coreos.com/v1/podmonitors"
)

// apiServer plays the part of the Kubernetes API that we use: lists and watches,
// and single objects, with the API's own types. A real one comes with the
// cluster tests.
type apiServer struct {
	mu       sync.Mutex
	requests []http.Request
	objects  map[string][]any          // by path; a path without an entry is not found
	answer   func(r *http.Request) int // of a request: a code that refuses, 0 to answer, -1 never to
	away     bool                      // nobody listens
	events   chan metav1.WatchEvent    // sent to whoever watches
	cut      chan struct{}             // ends the watch
}

func newAPI(pods ...corev1.Pod) *apiServer {
	a := &apiServer{objects: map[string][]any{podsPath: nil}, events: make(chan metav1.WatchEvent), cut: make(chan struct{})}
	for _, p := range pods {
		a.objects[podsPath] = append(a.objects[podsPath], p)
	}
	return a
}

func (a *apiServer) set(path string, objects ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[path] = objects
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.requests = append(a.requests, *r)
	objects, known := a.objects[r.URL.Path]
	answer := a.answer
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	query := r.URL.Query()
	code := 0
	if answer != nil {
		code = answer(r)
	}
	kinds := map[string]metav1.TypeMeta{
		podsPath: {Kind: "PodList", APIVersion: "v1"}, monitorsPath: {Kind: "PodMonitorList", APIVersion: "monitoring.coreos.com/v1"},
	}
	switch list, isList := kinds[r.URL.Path]; {
	case code < 0:
		<-r.Context().Done()
	case code > 0:
		w.WriteHeader(code)
		reasons := map[int]metav1.StatusReason{401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 503: metav1.StatusReasonServiceUnavailable}
		enc.Encode(metav1.Status{
			Status: "Failure", Reason: reasons[code], Code: int32(code), TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Message: `pods is forbidden: User "system:serviceaccount:nines:agent" cannot list resource "pods"`,
		})
	case !known:
		http.NotFound(w, r) // as the API server has it for groups that it does not know
	case !isList:
		enc.Encode(objects[0])
	case query.Get("watch") == "true":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case e := <-a.events:
				enc.Encode(e)
				w.(http.Flusher).Flush()
			case <-a.cut:
				return
			case <-r.Context().Done():
				return
			}
		}
	default:
		from, _ := strconv.Atoi(query.Get("continue"))
		limit, _ := strconv.Atoi(query.Get("limit"))
		page := struct {
			metav1.TypeMeta `json:",inline"`
			metav1.ListMeta `json:"metadata"`
			Items           []any `json:"items"`
		}{list, metav1.ListMeta{ResourceVersion: "1"}, objects[from:]}
		if limit > 0 && len(page.Items) > limit {
			page.Items, page.Continue = page.Items[:limit], strconv.Itoa(from+limit)
		}
		enc.Encode(page)
	}
}

// RoundTrip is the way to the server within a bubble, where there is no network.
func (a *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	away := a.away
	if away {
		a.requests = append(a.requests, *r)
	}
	a.mu.Unlock()
	if away {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	body, out := io.Pipe()
	w := &response{PipeWriter: out, header: http.Header{}, begun: make(chan int, 1)}
	ended := context.AfterFunc(r.Context(), func() { out.CloseWithError(r.Context().Err()) })
	go func() {
		defer ended()
		defer out.Close()
		a.ServeHTTP(w, r)
	}()
	select {
	case code := <-w.begun:
		return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: w.header, Body: body, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// response is a ResponseWriter into a pipe.
type response struct {
	*io.PipeWriter
	header http.Header
	begun  chan int
	once   sync.Once
}

func (w *response) Header() http.Header { return w.header }
func (w *response) Flush()              {}
func (w *response) WriteHeader(code int) {
	w.once.Do(func() { w.begun <- code })
}
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.PipeWriter.Write(b)
}
func (a *apiServer) send(t *testing.T, kind string, object any) {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	e := metav1.WatchEvent{Type: kind}
	e.Object.Raw = data
	a.events <- e
}

func (a *apiServer) asked() []http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests
}

// podOf is one of this node, made by a Deployment.
func podOf(name, uid string, change ...func(*corev1.Pod)) corev1.Pod {
	yes := true
	p := corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", UID: types.UID(uid), ResourceVersion: "2",
			CreationTimestamp: metav1.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
			Labels:            map[string]string{"app": "web", "app.kubernetes.io/name": "shop", "app.kubernetes.io/version": "1.2", "pod-template-hash": "6d4"},
			Annotations:       map[string]string{"team": "shop"},
			OwnerReferences:   []metav1.OwnerReference{{Kind: "Other", Name: "x"}, {Kind: "ReplicaSet", Name: "web-6d4", Controller: &yes}},
			ManagedFields:     []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", InitContainers: []corev1.Container{{Name: "prepare", Image: "busybox:1.36"}},
			Containers: []corev1.Container{{Name: "app", Image: "registry.example.com:5000/shop/web:1.2@sha256:ab"}},
			EphemeralContainers: []corev1.EphemeralContainer{
				{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", Image: "tools"}},
			},
		},
		Status: corev1.PodStatus{
			PodIP:                      "10.1.2.3",
			InitContainerStatuses:      []corev1.ContainerStatus{{Name: "prepare", ContainerID: "containerd://i0"}},
			EphemeralContainerStatuses: []corev1.ContainerStatus{{Name: "debugger", ContainerID: "containerd://e0"}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "app", ContainerID: "containerd://c3", RestartCount: 3,
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://c2"}},
			}},
		},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

// logged is a log that can be read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) lines(containing string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, containing) {
			n++
		}
	}
	return n
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// client-go sleeps from its last error to this one where time moved backwards,
// which it does at the beginning of each bubble.
func init() { utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1] }

// heard is a listener that remembers what there is.
type heard[T any] struct {
	mu       sync.Mutex
	objects  map[string]*T
	replaced int
	events   []string
}

func nameOf(o any) string {
	m := o.(metav1.ObjectMetaAccessor).GetObjectMeta()
	return m.GetNamespace() + "/" + m.GetName()
}

func (h *heard[T]) Replace(all []*T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.objects = map[string]*T{}
	for _, o := range all {
		h.objects[nameOf(o)] = o
	}
	h.replaced++
}

func (h *heard[T]) Put(o *T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.objects[nameOf(o)] = o
	h.events = append(h.events, "put "+nameOf(o))
}

func (h *heard[T]) Delete(o *T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.objects, nameOf(o))
	h.events = append(h.events, "delete "+nameOf(o))
}

func (h *heard[T]) find(name string) *T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.objects[name]
}

func (h *heard[T]) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.objects)
}

// watchRun is a run of a Watch against a server, in a bubble.
type watchRun[T any] struct {
	*Watch[T]
	*logged
	heard[T]
	stop func()
}

func (a *apiServer) access(t *testing.T) *Access {
	t.Helper()
	access, err := From(&rest.Config{Host: "http://api", Transport: a})
	if err != nil {
		t.Fatal(err)
	}
	return access
}

func run[T any](t *testing.T, watch func(*slog.Logger) *Watch[T]) *watchRun[T] {
	t.Helper()
	r := &watchRun[T]{logged: &logged{}}
	r.Watch = watch(slog.New(slog.NewTextHandler(r.logged, nil)))
	r.Add(&r.heard)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	r.stop = func() { cancel(); running.Wait() }
	synctest.Wait()
	return r
}

func watchPods(t *testing.T, a *apiServer) *watchRun[Pod] {
	t.Helper()
	access := a.access(t)
	return run(t, func(log *slog.Logger) *Watch[Pod] { return NewPods(access, "n1", log) })
}

func watchMonitors(t *testing.T, a *apiServer) *watchRun[PodMonitor] {
	t.Helper()
	access := a.access(t)
	return run(t, func(log *slog.Logger) *Watch[PodMonitor] { return NewPodMonitors(access, log) })
}

// kubernetes #127980: every agent watched every pod of its cluster.
func TestOnlyPodsOfThisNodeAreWatched(t *testing.T) {
	api := newAPI(podOf("web-1", "u-1"))
	server := httptest.NewServer(api)
	defer server.Close()
	access, err := From(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer access.core.(*rest.RESTClient).Client.CloseIdleConnections()
	w := NewPods(access, "n1", slog.New(slog.DiscardHandler))
	first, second := &heard[Pod]{}, &heard[Pod]{}
	w.Add(first)
	w.Add(second)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	defer running.Wait()
	defer cancel()

	api.send(t, "ADDED", podOf("web-2", "u-2")) // received: the list was taken, and the watch stands
	for second.find("shop/web-2") == nil {
		if t.Context().Err() != nil {
			t.Fatal("the pod that was added is not told")
		}
	}
	for _, h := range []*heard[Pod]{first, second} {
		if h.count() != 2 || h.replaced != 1 || len(h.events) != 1 {
			t.Errorf("heard of %d pods, %d lists, %v", h.count(), h.replaced, h.events)
		}
	}
	for _, r := range api.asked() {
		if s := r.URL.Query().Get("fieldSelector"); s != "spec.nodeName=n1" {
			t.Errorf("asked with field selector %q", s)
		}
	}
}

func TestPodCarriesWhatListenersNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := metav1.Now().Rfc3339Copy()
		w := watchPods(t, newAPI(podOf("web-1", "u-1", func(p *corev1.Pod) {
			p.DeletionTimestamp = &now
			p.Spec.HostNetwork = true
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}
			p.Status.Phase, p.Status.HostIP = corev1.PodRunning, "192.0.2.1"
			p.Status.PodIPs = []corev1.PodIP{{IP: "10.1.2.3"}, {IP: "fd00::3"}}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		})))
		defer w.stop()
		got := w.find("shop/web-1")
		if got == nil {
			t.Fatal("the pod is not told")
		}
		if got.DeletionTimestamp == nil || !got.DeletionTimestamp.Equal(&now) || got.UID != "u-1" || got.Labels["app"] != "web" || got.Annotations["team"] != "shop" {
			t.Errorf("metadata %+v", got.ObjectMeta)
		}
		if owner := metav1.GetControllerOf(got); owner == nil || owner.Name != "web-6d4" {
			t.Errorf("the controller is %v", owner)
		}
		spec := PodSpec{
			NodeName: "n1", HostNetwork: true,
			Containers:          []Container{{Name: "app", Image: "registry.example.com:5000/shop/web:1.2@sha256:ab", Ports: []Port{{"http", 8080, "TCP"}}}},
			InitContainers:      []Container{{Name: "prepare", Image: "busybox:1.36"}},
			EphemeralContainers: []Container{{Name: "debugger", Image: "tools"}},
		}
		if !reflect.DeepEqual(got.Spec, spec) {
			t.Errorf("%+v", got.Spec)
		}
		s := got.Status
		if s.Phase != "Running" || s.PodIP != "10.1.2.3" || s.HostIP != "192.0.2.1" || !slices.Equal(s.PodIPs, []IP{{"10.1.2.3"}, {"fd00::3"}}) ||
			!slices.Equal(s.Conditions, []Condition{{"Ready", "True"}}) || s.ContainerStatuses[0].ContainerID != "containerd://c3" {
			t.Errorf("%+v", s)
		}
	})
}

func TestListsArePaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pods []corev1.Pod
		for n := range 1200 {
			pods = append(pods, podOf(fmt.Sprint("web-", n), fmt.Sprint("u-", n)))
		}
		api := newAPI(pods...)
		w := watchPods(t, api)
		defer w.stop()
		if w.count() != 1200 {
			t.Errorf("%d pods of 1200 are told", w.count())
		}
		if n := len(api.asked()); n != 4 {
			t.Errorf("%d requests, want 3 pages and a watch", n)
		}
	})
}

// A watch that broke may miss that a pod went away.
func TestWatchThatIsTooOldIsBegunAnewWithAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI(podOf("web-1", "u-1"), podOf("web-2", "u-2"))
		w := watchPods(t, api)
		defer w.stop()
		api.set(podsPath, podOf("web-2", "u-2"))
		api.events <- metav1.WatchEvent{Type: "ERROR", Object: expired(t)}
		time.Sleep(2 * time.Minute)
		if w.find("shop/web-1") != nil || w.find("shop/web-2") == nil {
			t.Error("the list was not taken for what there is")
		}
		if w.String() != "" {
			t.Errorf("a watch that was begun anew is told:\n%s", w)
		}
	})
}

func TestWatchThatWasCutGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI(podOf("web-1", "u-1"))
		w := watchPods(t, api)
		defer w.stop()
		for range 3 {
			api.cut <- struct{}{}
			time.Sleep(time.Minute)
		}
		api.send(t, "DELETED", podOf("web-1", "u-1"))
		api.send(t, "ADDED", podOf("web-2", "u-2"))
		synctest.Wait()
		if w.find("shop/web-1") != nil || w.find("shop/web-2") == nil || w.String() != "" {
			t.Errorf("%d pods, logged\n%s", w.count(), w)
		}
	})
}

func expired(t *testing.T) (o runtime.RawExtension) {
	data, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410,
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Raw = data
	return o
}

func TestWhatKeepsPodsFromBeingReadIsToldOnceWithItsRemedy(t *testing.T) {
	for what, c := range map[string]struct {
		answer func(r *http.Request) int
		away   bool
		remedy string
	}{
		"forbidden":       {answer: func(*http.Request) int { return 403 }, remedy: "grant the verbs list and watch on the resource pods"},
		"watch forbidden": {answer: func(r *http.Request) int { return 403 * len(r.URL.Query()["watch"]) }, remedy: "grant the verbs list and watch on the resource pods"},
		"token too old":   {answer: func(*http.Request) int { return 401 }, remedy: "renew the service account's token"},
		"overloaded":      {answer: func(*http.Request) int { return 503 }, remedy: "too slow or overloaded"},
		"no answer":       {answer: func(*http.Request) int { return -1 }, remedy: "too slow or overloaded"},
		"no watch":        {answer: func(r *http.Request) int { return -len(r.URL.Query()["watch"]) }, remedy: "too slow or overloaded"},
		"refused":         {answer: func(*http.Request) int { return 418 }, remedy: "the API server refuses"},
		"away":            {away: true, remedy: "check its address, its certificate and the network"},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := newAPI(podOf("web-1", "u-1"))
			api.answer, api.away = c.answer, c.away
			p := watchPods(t, api)
			defer p.stop()
			time.Sleep(30 * time.Minute)
			if p.lines("level=WARN") != 1 || p.lines(c.remedy) != 1 || !strings.Contains(p.Trouble(), c.remedy) {
				t.Errorf("%s: trouble %q, logged\n%s", what, p.Trouble(), p)
			}
			if n := len(api.asked()); n < 20 || n > 300 {
				t.Errorf("%s: asked %d times in 30 minutes", what, n)
			}
			api.mu.Lock()
			api.answer, api.away = nil, false
			api.mu.Unlock()
			time.Sleep(3 * time.Minute)
			if p.lines("can be read again") != 1 || p.Trouble() != "" || p.find("shop/web-1") == nil {
				t.Errorf("%s: when all is well again: trouble %q, logged\n%s", what, p.Trouble(), p)
			}
			// The next time is another one.
			api.mu.Lock()
			api.away = true
			api.mu.Unlock()
			close(api.cut)
			time.Sleep(5 * time.Minute)
			if p.lines("level=WARN") != 2 {
				t.Errorf("%s: logged\n%s", what, p)
			}
			begun := time.Now()
			p.stop()
			if took := time.Since(begun); took > time.Second {
				t.Errorf("%s: the end waited %s for a server that is away", what, took)
			}
		})
	}
}

func TestNodeWithoutPodsIsToldOfItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := watchPods(t, newAPI())
		defer p.stop()
		if p.replaced != 1 || p.lines("set node to the name that kubectl get nodes shows") != 1 {
			t.Errorf("logged\n%s", p)
		}
	})
}

func TestCheckSaysWhatKeepsPodsAndPodMonitorsFromBeingRead(t *testing.T) {
	refuse := func(code int) func(*http.Request) int { return func(*http.Request) int { return code } }
	for what, c := range map[string]struct {
		answer         func(*http.Request) int
		away, empty    bool
		pods, monitors string // empty: all is well
	}{
		"all is well":  {},
		"another node": {empty: true, pods: "set node to the name that kubectl get nodes shows", monitors: "install the definitions"},
		"forbidden": {
			answer: refuse(403), pods: "grant the verbs list and watch on the resource pods",
			monitors: "grant the verbs list and watch on the resource podmonitors of the group monitoring.coreos.com",
		},
		"token too old": {answer: refuse(401), pods: "renew the service account's token", monitors: "renew the service account's token"},
		"no answer":     {answer: refuse(-1), pods: "too slow or overloaded", monitors: "too slow or overloaded"},
		"away":          {away: true, pods: "check its address, its certificate and the network", monitors: "check its address, its certificate and the network"},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := newAPI()
			api.answer, api.away = c.answer, c.away
			if !c.empty {
				api.set(podsPath, podOf("web-1", "u-1"), podOf("web-2", "u-2"))
				api.set(monitorsPath) // none of a kind that is known
			}
			access := api.access(t)
			for _, one := range []struct {
				err  error
				want string
			}{{access.Check(t.Context(), "n1"), c.pods}, {access.CheckPodMonitors(t.Context()), c.monitors}} {
				if (one.err == nil) != (one.want == "") || one.err != nil && !strings.Contains(one.err.Error(), one.want) {
					t.Errorf("%s: %v, want %q", what, one.err, one.want)
				}
			}
			for _, r := range api.asked() {
				q := r.URL.Query()
				if q.Get("limit") != "1" || q.Get("watch") != "" || r.URL.Path == podsPath && q.Get("fieldSelector") != "spec.nodeName=n1" {
					t.Errorf("%s: asked %s", what, r.URL)
				}
			}
			if n := api.times(podsPath); n != 1 {
				t.Errorf("%s: pods were asked for %d times", what, n)
			}
		})
	}
}

func TestNoClusterIsSaidSo(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	if _, err := Find(); !errors.Is(err, ErrNoCluster) {
		t.Errorf("got %v", err)
	}
}

func monitor(namespace, name string, spec any) map[string]any {
	return map[string]any{
		"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
		"metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec,
	}
}

func (a *apiServer) times(path string) (n int) {
	for _, r := range a.asked() {
		if r.URL.Path == path {
			n++
		}
	}
	return n
}

func TestPodMonitorsAreLookedForUntilTheirDefinitionIsInstalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		w := watchMonitors(t, api)
		defer w.stop()
		time.Sleep(time.Hour)
		if w.lines("does not know the kind PodMonitor") != 1 || w.lines("level=INFO") != 1 || w.lines("level=") != 1 {
			t.Errorf("logged\n%s", w)
		}
		if !strings.Contains(w.Trouble(), "install the definitions") {
			t.Errorf("trouble %q", w.Trouble())
		}
		if n := api.times(monitorsPath); n < 6 || n > 13 {
			t.Errorf("asked %d times in an hour", n)
		}
		api.set(monitorsPath, monitor("shop", "web", nil))
		time.Sleep(missingPause + time.Minute)
		if w.find("shop/web") == nil || w.Trouble() != "" || w.lines("PodMonitors can be read again") != 1 {
			t.Errorf("%d PodMonitors, trouble %q, logged\n%s", w.count(), w.Trouble(), w)
		}
		// Their definition is removed, and all of them with it.
		api.mu.Lock()
		delete(api.objects, monitorsPath)
		api.mu.Unlock()
		close(api.cut)
		time.Sleep(2 * missingPause)
		if w.count() != 0 || w.lines("does not know the kind PodMonitor") != 2 {
			t.Errorf("%d PodMonitors, logged\n%s", w.count(), w)
		}
	})
}

func TestForbiddenPodMonitorsAreToldOnceAndWhatIsKnownStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.set(monitorsPath, monitor("shop", "web", nil))
		w := watchMonitors(t, api)
		defer w.stop()
		api.mu.Lock()
		api.answer = func(*http.Request) int { return 403 }
		api.mu.Unlock()
		api.cut <- struct{}{}
		time.Sleep(time.Hour)
		if w.lines("level=WARN") != 1 || w.lines("the resource podmonitors of the group monitoring.coreos.com, or set metrics.pods.pod_monitors to false") != 1 {
			t.Errorf("logged\n%s", w)
		}
		if w.find("shop/web") == nil {
			t.Error("what was known is forgotten")
		}
		if n := api.times(monitorsPath); n > 16 {
			t.Errorf("asked %d times in an hour", n)
		}
	})
}

func TestEndDoesNotWaitForAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchMonitors(t, newAPI())
		begun := time.Now()
		w.stop()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestPodMonitorThatCannotBeReadStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.set(monitorsPath,
			monitor("shop", "bad", map[string]any{"podMetricsEndpoints": []any{map[string]any{"port": []int{1}}}}),
			monitor("shop", "port", map[string]any{"podMetricsEndpoints": []any{map[string]any{"targetPort": true}}}),
			monitor("shop", "good", map[string]any{"sampleLimit": 7, "nativeHistogramMinBucketFactor": "1.1", "podMetricsEndpoints": []any{
				map[string]any{"targetPort": 8080, "proxyUrl": "http://proxy"}, map[string]any{"targetPort": "http"},
			}}))
		w := watchMonitors(t, api)
		defer w.stop()
		for name, words := range map[string]string{"shop/bad": "cannot unmarshal", "shop/port": "targetPort true is neither a name nor a number", "shop/good": ""} {
			m := w.find(name)
			if m == nil || !strings.Contains(m.Spec.Unreadable, words) || (words == "") != (m.Spec.Unreadable == "") {
				t.Fatalf("%s is %+v", name, m)
			}
		}
		good := w.find("shop/good").Spec
		if good.SampleLimit != 7 || good.Endpoints[0].TargetPort.String() != "8080" || good.Endpoints[1].TargetPort.String() != "http" ||
			good.Endpoints[0].ProxyURL != "http://proxy" || good.NativeHistogramMinBucketFactor.AsApproximateFloat64() != 1.1 {
			t.Errorf("%+v", good)
		}
	})
}

func TestSecretsConfigMapsAndNodesAreRead(t *testing.T) {
	api := newAPI()
	api.set("/api/v1/namespaces/shop/secrets/s", corev1.Secret{TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, Data: map[string][]byte{"token": []byte("abc\xff")}})
	api.set("/api/v1/namespaces/shop/configmaps/c", corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, Data: map[string]string{"ca": "text"}, BinaryData: map[string][]byte{"bin": {1}},
	})
	api.set("/api/v1/nodes/n1", corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}, Annotations: map[string]string{"x": "y"}}})
	access := api.access(t)
	s, err := access.Secret(t.Context(), "shop", "s")
	if err != nil || string(s["token"]) != "abc\xff" {
		t.Errorf("secret %q, %v", s, err)
	}
	c, err := access.ConfigMap(t.Context(), "shop", "c")
	if err != nil || string(c["ca"]) != "text" || string(c["bin"]) != "\x01" {
		t.Errorf("config map %q, %v", c, err)
	}
	labels, annotations, err := access.Node(t.Context(), "n1")
	if err != nil || labels["zone"] != "a" || annotations["x"] != "y" {
		t.Errorf("node %v %v, %v", labels, annotations, err)
	}
	_, err = access.Secret(t.Context(), "shop", "none")
	if !Refused(err) || !strings.Contains(fmt.Sprint(err), "read shop/none of secrets: there is none: create it") {
		t.Errorf("one that is not there: %v", err)
	}
	for code, refused := range map[int]bool{403: true, 503: false} {
		api.answer = func(*http.Request) int { return code }
		_, err := access.Secret(t.Context(), "shop", "s")
		if err == nil || Refused(err) != refused || code == 403 && !strings.Contains(err.Error(), "grant the verb get on the resource secrets") {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// The API server's answers are outside bytes.
func FuzzObjects(f *testing.F) {
	for _, o := range []any{
		podOf("web-1", "u-1"), corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}},
		monitor("shop", "web", map[string]any{"podMetricsEndpoints": []any{map[string]any{"port": "http", "targetPort": 1}}}),
		corev1.Secret{TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, Data: map[string][]byte{"a": {1}}},
	} {
		data, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := runtime.Decode(codecs.UniversalDeserializer(), data)
		if err != nil {
			return
		}
		if again := o.DeepCopyObject(); !reflect.DeepEqual(again, o) {
			t.Fatalf("copied as %+v, it was %+v", again, o)
		}
	})
}
