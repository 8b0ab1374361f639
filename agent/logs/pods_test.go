package logs

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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
)

// apiServer plays the part of the Kubernetes API that Pods uses: the list and
// the watch of pods, with the API's own types. A real one comes with the cluster
// tests.
type apiServer struct {
	mu       sync.Mutex
	requests []http.Request
	pods     []corev1.Pod
	answer   func(r *http.Request) int // of a request: a code that refuses, 0 to answer, -1 never to
	away     bool                      // nobody listens
	events   chan metav1.WatchEvent    // sent to whoever watches
	cut      chan struct{}             // ends the watch
}

func newAPI(pods ...corev1.Pod) *apiServer {
	return &apiServer{pods: pods, events: make(chan metav1.WatchEvent), cut: make(chan struct{})}
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.requests = append(a.requests, *r)
	pods, answer := a.pods, a.answer
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	query := r.URL.Query()
	code := 0
	if answer != nil {
		code = answer(r)
	}
	switch {
	case r.URL.Path != "/api/v1/pods":
		http.NotFound(w, r)
	case code < 0:
		<-r.Context().Done()
	case code > 0:
		w.WriteHeader(code)
		reasons := map[int]metav1.StatusReason{401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 503: metav1.StatusReasonServiceUnavailable}
		enc.Encode(metav1.Status{
			Status: "Failure", Reason: reasons[code], Code: int32(code), TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Message: `pods is forbidden: User "system:serviceaccount:nines:agent" cannot list resource "pods"`,
		})
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
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
		list.Items = pods[from:]
		if limit > 0 && len(list.Items) > limit {
			list.Items, list.Continue = list.Items[:limit], strconv.Itoa(from+limit)
		}
		enc.Encode(list)
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

func (a *apiServer) send(t *testing.T, kind string, pod corev1.Pod) {
	t.Helper()
	data, err := json.Marshal(pod)
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

func static(hash string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.Annotations = map[string]string{"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash, "kubernetes.io/config.source": "file"}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "Node", Name: "n1", Controller: &yes}}
	}
}

func label(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[key] = value }
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

// podsRun is a run of Pods against a server, in a bubble.
type podsRun struct {
	*Pods
	*logged
	stop func()
}

func watchPods(t *testing.T, a *apiServer, folder string) podsRun {
	t.Helper()
	log := &logged{}
	p, err := newPods(&rest.Config{Host: "http://api", Transport: a}, "n1", folder, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	synctest.Wait()
	return podsRun{p, log, func() { cancel(); running.Wait() }}
}

// kubernetes #127980: every agent watched every pod of its cluster.
func TestOnlyPodsOfThisNodeAreWatched(t *testing.T) {
	api := newAPI(podOf("web-1", "u-1"))
	server := httptest.NewServer(api)
	defer server.Close()
	p, err := newPods(&rest.Config{Host: server.URL}, "n1", "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	defer running.Wait()
	defer cancel()

	changes := p.Version()
	api.send(t, "ADDED", podOf("web-2", "u-2")) // received: the list was taken, and the watch stands
	for p.Version() < changes+1 || p.Find("shop", "web-2", "") == nil {
		if t.Context().Err() != nil {
			t.Fatal("the pod that was added is not known")
		}
	}
	got := p.Find("shop", "web-1", "u-1")
	if got == nil || got.Labels["app"] != "web" || got.Annotations["team"] != "shop" || got.IP != "10.1.2.3" || len(got.Containers) != 3 {
		t.Fatalf("found %+v", got)
	}
	if owners := got.owners(); owners["replicaset"] != "web-6d4" || owners["deployment"] != "web" {
		t.Errorf("owners %v", owners)
	}
	if p.Find("shop", "web-1", "u-0") != nil {
		t.Error("the labels of another pod of that name were given")
	}
	if p.Find("shop", "web-3", "") != nil {
		t.Error("found a pod that is not there")
	}
	if !p.Synced() {
		t.Error("the list was taken, and not said to be")
	}
	for _, r := range api.asked() {
		if s := r.URL.Query().Get("fieldSelector"); s != "spec.nodeName=n1" {
			t.Errorf("asked with field selector %q", s)
		}
	}
}

func TestListsArePaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pods []corev1.Pod
		for n := range 1200 {
			pods = append(pods, podOf(fmt.Sprint("web-", n), fmt.Sprint("u-", n)))
		}
		api := newAPI(pods...)
		p := watchPods(t, api, "")
		defer p.stop()
		if p.Find("shop", "web-0", "") == nil || p.Find("shop", "web-1199", "") == nil {
			t.Error("pods of some pages are missing")
		}
		if n := len(api.asked()); n != 4 {
			t.Errorf("%d requests, want 3 pages and a watch", n)
		}
	})
}

// fluent-bit #2670: the last lines of short-lived pods had no labels.
func TestPodThatIsGoneKeepsItsMetadataUntilItsFilesAreDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI(podOf("web-1", "u-1"))
		p := watchPods(t, api, "")
		defer p.stop()
		api.send(t, "DELETED", podOf("web-1", "u-1", label("late", "yes")))
		api.send(t, "DELETED", podOf("brief", "u-2")) // never seen before
		synctest.Wait()
		drained := false
		inUse := func(_, name, uid string) bool { return name == "web-1" && uid == "u-1" && !drained }
		p.Retain(inUse)
		if p.Find("shop", "brief", "u-2") == nil {
			t.Error("a short-lived pod is forgotten before its files can be found")
		}
		time.Sleep(time.Hour)
		p.Retain(inUse)
		if got := p.Find("shop", "web-1", "u-1"); got == nil || got.Labels["late"] != "yes" || p.Find("shop", "web-1", "") != got {
			t.Errorf("found %+v, the pod's files are not drained yet", got)
		}
		if p.Find("shop", "brief", "u-2") != nil {
			t.Error("a pod that is gone and without files is kept")
		}
		drained = true
		p.Retain(inUse)
		if p.Find("shop", "web-1", "u-1") != nil || p.gone != 0 || p.goneBytes != 0 || len(p.byName) != 0 {
			t.Errorf("kept after its files: %d pods, %d bytes", p.gone, p.goneBytes)
		}
	})
}

// A watch that broke may miss that a pod went away.
func TestPodThatTheNextListLacksIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI(podOf("web-1", "u-1"), podOf("web-2", "u-2"))
		p := watchPods(t, api, "")
		defer p.stop()
		api.mu.Lock()
		api.pods = api.pods[1:]
		api.mu.Unlock()
		api.events <- metav1.WatchEvent{Type: "ERROR", Object: expired(t)}
		time.Sleep(2 * time.Minute)
		p.Retain(func(_, _, _ string) bool { return false })
		time.Sleep(2 * time.Minute)
		p.Retain(func(_, _, _ string) bool { return false })
		if p.Find("shop", "web-1", "u-1") != nil || p.Find("shop", "web-2", "u-2") == nil {
			t.Error("the list was not taken for what there is")
		}
		if p.String() != "" {
			t.Errorf("a watch that was begun anew is told:\n%s", p)
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

// vector #12909: the pod that had the name before gave its labels.
func TestReplacedPodOfTheSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI(podOf("db-0", "u-1", label("version", "1")))
		p := watchPods(t, api, "")
		defer p.stop()
		check := func(when string) {
			t.Helper()
			synctest.Wait()
			for uid, version := range map[string]string{"u-1": "1", "u-2": "2", "": "2"} {
				if got := p.Find("shop", "db-0", uid); got == nil || got.Labels["version"] != version {
					t.Errorf("%s: %q is %+v, want version %s", when, uid, got, version)
				}
			}
		}
		api.send(t, "ADDED", podOf("db-0", "u-2", label("version", "2")))
		check("both")
		api.send(t, "DELETED", podOf("db-0", "u-1", label("version", "1")))
		check("the old one gone")
		api.send(t, "DELETED", podOf("db-0", "u-2", label("version", "2")))
		check("both gone")
	})
}

func TestStaticPodIsFoundByTheHashOfItsFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI(podOf("etcd-n1", "mirror-1", static("hash-1")))
		p := watchPods(t, api, t.TempDir())
		defer p.stop()
		got := p.Find("shop", "etcd-n1", "hash-1")
		if got == nil || got.UID != "mirror-1" {
			t.Fatalf("found %+v", got)
		}
		if owners := got.owners(); len(owners) != 0 {
			t.Errorf("its owner is the node, and it has %v", owners)
		}
		// A change of its file makes another one, which is gone and in use.
		api.send(t, "DELETED", podOf("etcd-n1", "mirror-1", static("hash-1")))
		api.send(t, "ADDED", podOf("etcd-n1", "mirror-2", static("hash-2")))
		synctest.Wait()
		time.Sleep(time.Hour)
		p.Retain(func(_, _, uid string) bool { return uid == "hash-1" })
		for hash, uid := range map[string]string{"hash-1": "mirror-1", "hash-2": "mirror-2"} {
			if got := p.Find("shop", "etcd-n1", hash); got == nil || got.UID != uid {
				t.Errorf("%s is %+v", hash, got)
			}
		}
	})
}

// Files of a pod that went away while the agent did not run have its labels.
func TestRestartKeepsTheMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		api := newAPI(podOf("web-1", "u-1"), podOf("db-0", "u-2"), podOf("etcd-n1", "mirror-1", static("hash-1")))
		p := watchPods(t, api, dir)
		want := p.Find("shop", "web-1", "u-1")
		api.send(t, "DELETED", podOf("db-0", "u-2"))
		api.send(t, "ADDED", podOf("db-0", "u-3", label("version", "2")))
		synctest.Wait()
		p.stop()

		api.mu.Lock()
		api.pods = []corev1.Pod{podOf("other", "u-9")}
		api.away = true
		api.mu.Unlock()
		p = watchPods(t, api, dir)
		if got := p.Find("shop", "web-1", "u-1"); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("after the restart, the server away: %+v, want %+v", got, want)
		}
		if p.Synced() {
			t.Error("nothing was listed, and it is said to be")
		}
		none := func(_, _, _ string) bool { return false }
		time.Sleep(10 * time.Minute)
		p.Retain(none)
		if p.Find("shop", "web-1", "u-1") == nil {
			t.Error("a pod was forgotten although nobody knows whether it is gone")
		}
		api.mu.Lock()
		api.away = false
		api.mu.Unlock()
		time.Sleep(2 * time.Minute)
		for _, uid := range []string{"u-2", "u-3"} {
			if p.Find("shop", "db-0", uid) == nil {
				t.Errorf("db-0 of UID %s is not known", uid)
			}
		}
		if got := p.Find("shop", "etcd-n1", "hash-1"); got == nil {
			t.Error("a static pod is not known")
		}
		p.Retain(none)
		if p.Find("shop", "web-1", "u-1") != nil || p.Find("shop", "other", "u-9") == nil {
			t.Error("what is gone and without files is kept, or what is there was forgotten")
		}
		p.stop()
		kept, err := readKept(filepath.Join(dir, "pods.json"))
		if err != nil || len(kept) != 1 {
			t.Errorf("%d pods are kept, %v", len(kept), err)
		}
	})
}

func TestKeptMetadataIsWrittenAtMostEveryFewSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "pods.json")
		api := newAPI(podOf("web-1", "u-1"))
		p := watchPods(t, api, dir)
		defer p.stop()
		written := func() string {
			info, err := os.Stat(path)
			if err != nil {
				return ""
			}
			st := info.Sys().(*syscall.Stat_t)
			return fmt.Sprint(st.Ino, st.Mtim)
		}
		count := func(during time.Duration, do func()) (n int) {
			before := written()
			for range during / time.Second {
				do()
				time.Sleep(time.Second)
				synctest.Wait()
				if now := written(); now != before {
					before = now
					n++
				}
			}
			return n
		}
		if n := count(10*time.Second, func() {}); n != 1 {
			t.Errorf("written %d times for one list", n)
		}
		version, seen := 0, p.Version()
		if n := count(20*time.Second, func() { version++; api.send(t, "MODIFIED", podOf("web-1", "u-1", label("v", fmt.Sprint(version)))) }); n < 3 || n > 4 {
			t.Errorf("written %d times in 20 s of changes", n)
		}
		synctest.Wait()
		if p.Version() == seen {
			t.Error("changes are not told")
		}
		time.Sleep(keepEvery)
		seen = p.Version()
		if n := count(20*time.Second, func() {
			api.send(t, "MODIFIED", podOf("web-1", "u-1", label("v", fmt.Sprint(version)), func(p *corev1.Pod) { p.ResourceVersion = fmt.Sprint(time.Now().UnixNano()) }))
		}); n != 0 || p.Version() != seen {
			t.Errorf("written %d times, version %d after %d, for what no record carries", n, p.Version(), seen)
		}
	})
}

func TestDamagedFileOfPodsIsNoFailedStart(t *testing.T) {
	whole, err := encodeKept([]*Pod{{Namespace: "shop", Name: "web-1", UID: "u-0"}})
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string]string{
		"empty": "", "torn": string(whole[:len(whole)-3]), "foreign": `{"format":"x"}`, "nameless": `{"format":"nines-pods 1","pods":[{}]}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "pods.json")
			if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
			p := watchPods(t, newAPI(podOf("web-1", "u-1")), dir)
			if p.lines("kept across restarts cannot be read") != 1 || p.lines("level=WARN") != 1 {
				t.Errorf("%s: logged\n%s", what, p)
			}
			if p.Find("shop", "web-1", "u-1") == nil {
				t.Errorf("%s: pods are not watched", what)
			}
			p.stop()
			if kept, err := readKept(path); err != nil || len(kept) != 1 {
				t.Errorf("%s: not made anew: %d pods, %v", what, len(kept), err)
			}
		})
	}
}

func TestFolderThatCannotBeWrittenIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		api := newAPI(podOf("web-1", "u-1"))
		p := watchPods(t, api, dir)
		defer p.stop()
		time.Sleep(time.Minute)
		if p.lines("cannot be kept for the next start") != 1 {
			t.Errorf("logged\n%s", p)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if kept, err := readKept(p.file); err != nil || len(kept) != 1 {
			t.Errorf("not written when it could be: %d pods, %v", len(kept), err)
		}
	})
}

func TestPodsThatAreGoneHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		p := watchPods(t, api, "")
		defer p.stop()
		big := strings.Repeat("x", maxAnnotation)
		for n := range maxGone + 10 {
			o := apiPod{}
			o.Namespace, o.Name, o.UID = "shop", fmt.Sprint("job-", n), types.UID(fmt.Sprint("u-", n))
			if err := (podStore{p.Pods}).Delete(&o); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if p.gone != maxGone || p.Find("shop", "job-9", "") != nil || p.Find("shop", "job-10", "") == nil {
			t.Errorf("%d are kept, or not the last ones", p.gone)
		}
		for n := range maxGone / 2 {
			o := apiPod{}
			o.Namespace, o.Name, o.UID = "shop", fmt.Sprint("big-", n), types.UID(fmt.Sprint("b-", n))
			o.Annotations = map[string]string{}
			for k := range 20 {
				o.Annotations[fmt.Sprint("a", k)] = big
			}
			if err := (podStore{p.Pods}).Delete(&o); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if p.goneBytes > maxGoneBytes || p.goneBytes < maxGoneBytes-(maxLabels<<1) || p.Find("shop", "big-0", "") != nil {
			t.Errorf("%d bytes are kept", p.goneBytes)
		}
		sum, n := 0, 0
		for _, list := range p.byName {
			for _, e := range list {
				sum += e.pod.size()
				n++
			}
		}
		if sum != p.goneBytes || n != p.gone {
			t.Errorf("counted %d bytes of %d pods, there are %d of %d", p.goneBytes, p.gone, sum, n)
		}
	})
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
			p := watchPods(t, api, "")
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
			if p.lines("can be read again") != 1 || p.Trouble() != "" || p.Find("shop", "web-1", "u-1") == nil {
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
		p := watchPods(t, newAPI(), "")
		defer p.stop()
		if !p.Synced() || p.lines("set node to the name that kubectl get nodes shows") != 1 {
			t.Errorf("logged\n%s", p)
		}
	})
}

func TestNoClusterIsSaidSo(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	if _, err := NewPods("n1", "", quiet); !errors.Is(err, ErrNoCluster) {
		t.Errorf("got %v", err)
	}
}

// What keepers of the file may have done to it is no more than damage.
func FuzzKeptPods(f *testing.F) {
	pod := podOf("web-1", "u-1")
	whole, err := encodeKept([]*Pod{slim(decodePod(f, pod))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"format":"nines-pods 1","pods":[{"namespace":"a","name":"b","uid":"c","labels":{"":"x","\u0000":"y"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		pods, err := decodeKept(data)
		if err != nil {
			return
		}
		again, err := encodeKept(pods)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeKept(again); err != nil {
			t.Fatalf("%v: %s", err, again)
		}
		for _, p := range pods {
			bounded(t, p)
		}
	})
}
