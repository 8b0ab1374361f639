package logs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nines/agent/pods"
)

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

// podsRun is a run of Pods that is told of pods of the API's own type. What comes
// from a server is tested with the watch, in agent/pods.
type podsRun struct {
	*Pods
	*logged
	stop func()
}

func runPods(t *testing.T, folder string) podsRun {
	t.Helper()
	log := &logged{}
	p := NewPods(folder, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	return podsRun{p, log, func() { cancel(); running.Wait() }}
}

// watchPods is a run whose first list has these pods.
func watchPods(t *testing.T, folder string, all ...corev1.Pod) podsRun {
	t.Helper()
	p := runPods(t, folder)
	p.list(t, all...)
	return p
}

func (p podsRun) list(t *testing.T, all ...corev1.Pod) {
	t.Helper()
	var list []*pods.Pod
	for _, pod := range all {
		list = append(list, decodePod(t, pod))
	}
	p.Replace(list)
}

func (p podsRun) send(t *testing.T, kind string, pod corev1.Pod) {
	t.Helper()
	switch o := decodePod(t, pod); kind {
	case "ADDED", "MODIFIED":
		p.Put(o)
	case "DELETED":
		p.Delete(o)
	default:
		t.Fatalf("no event is named %s", kind)
	}
}

func TestPodThatIsListedIsFound(t *testing.T) {
	p := runPods(t, "")
	defer p.stop()
	if p.Synced() {
		t.Error("nothing was listed, and it is said to be")
	}
	p.list(t, podOf("web-1", "u-1"))
	changes := p.Version()
	p.send(t, "ADDED", podOf("web-2", "u-2"))
	if p.Version() == changes || p.Find("shop", "web-2", "") == nil {
		t.Error("the pod that was added is not known")
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
}

// fluent-bit #2670: the last lines of short-lived pods had no labels.
func TestPodThatIsGoneKeepsItsMetadataUntilItsFilesAreDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := watchPods(t, "", podOf("web-1", "u-1"))
		defer p.stop()
		p.send(t, "DELETED", podOf("web-1", "u-1", label("late", "yes")))
		p.send(t, "DELETED", podOf("brief", "u-2")) // never seen before
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
		p := watchPods(t, "", podOf("web-1", "u-1"), podOf("web-2", "u-2"))
		defer p.stop()
		p.list(t, podOf("web-2", "u-2"))
		p.Retain(func(_, _, _ string) bool { return false })
		if p.Find("shop", "web-1", "u-1") == nil {
			t.Error("it is forgotten before its files can be found")
		}
		time.Sleep(2 * time.Minute)
		p.Retain(func(_, _, _ string) bool { return false })
		if p.Find("shop", "web-1", "u-1") != nil || p.Find("shop", "web-2", "u-2") == nil {
			t.Error("the list was not taken for what there is")
		}
	})
}

// vector #12909: the pod that had the name before gave its labels.
func TestReplacedPodOfTheSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := watchPods(t, "", podOf("db-0", "u-1", label("version", "1")))
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
		p.send(t, "ADDED", podOf("db-0", "u-2", label("version", "2")))
		check("both")
		p.send(t, "DELETED", podOf("db-0", "u-1", label("version", "1")))
		check("the old one gone")
		p.send(t, "DELETED", podOf("db-0", "u-2", label("version", "2")))
		check("both gone")
	})
}

func TestStaticPodIsFoundByTheHashOfItsFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := watchPods(t, t.TempDir(), podOf("etcd-n1", "mirror-1", static("hash-1")))
		defer p.stop()
		got := p.Find("shop", "etcd-n1", "hash-1")
		if got == nil || got.UID != "mirror-1" {
			t.Fatalf("found %+v", got)
		}
		if owners := got.owners(); len(owners) != 0 {
			t.Errorf("its owner is the node, and it has %v", owners)
		}
		// A change of its file makes another one, which is gone and in use.
		p.send(t, "DELETED", podOf("etcd-n1", "mirror-1", static("hash-1")))
		p.send(t, "ADDED", podOf("etcd-n1", "mirror-2", static("hash-2")))
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
		p := watchPods(t, dir, podOf("web-1", "u-1"), podOf("db-0", "u-2"), podOf("etcd-n1", "mirror-1", static("hash-1")))
		want := p.Find("shop", "web-1", "u-1")
		p.send(t, "DELETED", podOf("db-0", "u-2"))
		p.send(t, "ADDED", podOf("db-0", "u-3", label("version", "2")))
		synctest.Wait()
		p.stop()

		p = runPods(t, dir)
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
		p.list(t, podOf("other", "u-9"))
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
		p := watchPods(t, dir, podOf("web-1", "u-1"))
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
		if n := count(20*time.Second, func() { version++; p.send(t, "MODIFIED", podOf("web-1", "u-1", label("v", fmt.Sprint(version)))) }); n < 3 || n > 4 {
			t.Errorf("written %d times in 20 s of changes", n)
		}
		synctest.Wait()
		if p.Version() == seen {
			t.Error("changes are not told")
		}
		time.Sleep(keepEvery)
		seen = p.Version()
		if n := count(20*time.Second, func() {
			p.send(t, "MODIFIED", podOf("web-1", "u-1", label("v", fmt.Sprint(version)), func(p *corev1.Pod) { p.ResourceVersion = fmt.Sprint(time.Now().UnixNano()) }))
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
			p := watchPods(t, dir, podOf("web-1", "u-1"))
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
		p := watchPods(t, dir, podOf("web-1", "u-1"))
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
		p := watchPods(t, "")
		defer p.stop()
		big := strings.Repeat("x", maxAnnotation)
		for n := range maxGone + 10 {
			o := pods.Pod{}
			o.Namespace, o.Name, o.UID = "shop", fmt.Sprint("job-", n), types.UID(fmt.Sprint("u-", n))
			p.Delete(&o)
			time.Sleep(time.Millisecond)
		}
		if p.gone != maxGone || p.Find("shop", "job-9", "") != nil || p.Find("shop", "job-10", "") == nil {
			t.Errorf("%d are kept, or not the last ones", p.gone)
		}
		for n := range maxGone / 2 {
			o := pods.Pod{}
			o.Namespace, o.Name, o.UID = "shop", fmt.Sprint("big-", n), types.UID(fmt.Sprint("b-", n))
			o.Annotations = map[string]string{}
			for k := range 20 {
				o.Annotations[fmt.Sprint("a", k)] = big
			}
			p.Delete(&o)
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
		all, err := decodeKept(data)
		if err != nil {
			return
		}
		again, err := encodeKept(all)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeKept(again); err != nil {
			t.Fatalf("%v: %s", err, again)
		}
		for _, p := range all {
			bounded(t, p)
		}
	})
}
