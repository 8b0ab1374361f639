package logs

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nines/agent/pods"
)

// decodePod takes the API's pod the way that it comes.
func decodePod(t testing.TB, p corev1.Pod) *pods.Pod {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	o := &pods.Pod{}
	if err := json.Unmarshal(data, o); err != nil {
		t.Fatal(err)
	}
	return o
}

var here = seat{cluster: "Berlin", node: "n1", namespace: "shop", pod: "web-6d4-x2", uid: "u-1", container: "app", file: "3.log"}

// beats #8773 #27359, fluent-bit #4386: a label app beside one named
// app.kubernetes.io/name lost the record.
func TestFieldsOfAPod(t *testing.T) {
	pod := slim(decodePod(t, podOf("web-6d4-x2", "u-1", label("app", "web"), func(p *corev1.Pod) {
		p.Annotations["resource.opentelemetry.io/deployment.environment.name"] = "production"
		p.Annotations["resource.opentelemetry.io/k8s.pod.name"] = "another"
		p.Annotations["too-long"] = strings.Repeat("x", maxAnnotation+1)
	})))
	for _, names := range []Names{ECS, OTel} {
		doc := object{"message": "m", "orchestrator": object{"cluster": object{"id": "kept"}}, "resource": object{"schema": "kept"}}
		pod.fields(doc, here, names)
		golden(t, "metadata-"+string(names)+".json", mustJSON(doc))
		doc = object{}
		(*Pod)(nil).fields(doc, here, names)
		golden(t, "metadata-unknown-"+string(names)+".json", mustJSON(doc))
	}
}

func TestFieldsOfEachKindOfContainer(t *testing.T) {
	pod := slim(decodePod(t, podOf("web-1", "u-1")))
	for at, want := range map[string]object{
		"prepare 0.log":                {"id": "i0", "runtime": "containerd", "image": object{"name": "busybox:1.36"}},
		"debugger 0.log":               {"id": "e0", "runtime": "containerd", "image": object{"name": "tools"}},
		"app 3.log":                    {"id": "c3", "runtime": "containerd", "image": object{"name": "registry.example.com:5000/shop/web:1.2@sha256:ab"}},
		"app 3.log.20261123-100000":    {"id": "c3", "runtime": "containerd", "image": object{"name": "registry.example.com:5000/shop/web:1.2@sha256:ab"}},
		"app ":                         {"id": "c3", "runtime": "containerd", "image": object{"name": "registry.example.com:5000/shop/web:1.2@sha256:ab"}},
		"app 2.log.20261123-1.gz":      {"id": "c2", "runtime": "containerd", "image": object{"name": "registry.example.com:5000/shop/web:1.2@sha256:ab"}},
		"app 1.log":                    {"runtime": "containerd", "image": object{"name": "registry.example.com:5000/shop/web:1.2@sha256:ab"}},
		"app 4.log":                    {"runtime": "containerd", "image": object{"name": "registry.example.com:5000/shop/web:1.2@sha256:ab"}},
		"of-another-time-it-was 0.log": nil,
	} {
		s := here
		s.container, s.file, _ = strings.Cut(at, " ")
		doc := object{}
		pod.fields(doc, s, ECS)
		got, _ := doc["container"].(object)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", at, got, want)
		}
	}
}

// While it waits for its next start, the last ID is that of the container before.
func TestContainerThatWaitsForItsNextStart(t *testing.T) {
	pod := slim(decodePod(t, podOf("web-1", "u-1", func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].ContainerID = "containerd://c2"
	})))
	if c := pod.Containers[0]; c.ID != "c2" || c.PreviousID != "" {
		t.Errorf("%+v", c)
	}
}

// A pod that was evicted has no containers in its status.
func TestEvictedPodKeepsWhatWasKnown(t *testing.T) {
	before := slim(decodePod(t, podOf("web-1", "u-1")))
	after := slim(decodePod(t, podOf("web-1", "u-1", func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodFailed} })))
	after.inherit(before)
	if !reflect.DeepEqual(before, after) {
		t.Errorf("%+v, want %+v", after, before)
	}
}

func TestOwnersOfAPod(t *testing.T) {
	yes := true
	for what, want := range map[string]map[string]string{
		"ReplicaSet web-6d4":  {"replicaset": "web-6d4", "deployment": "web"},
		"ReplicaSet web-7":    {"replicaset": "web-7"},
		"StatefulSet db":      {"statefulset": "db"},
		"DaemonSet agent":     {"daemonset": "agent"},
		"Job import":          {"job": "import"},
		"Job backup-29923800": {"job": "backup-29923800", "cronjob": "backup"}, // when the pod was created
		"Job a-b-29923860":    {"job": "a-b-29923860", "cronjob": "a-b"},       // a clock an hour ahead
		"Job backup-29398200": {"job": "backup-29398200", "cronjob": "backup"}, // a year before
		"Job backup-29398199": {"job": "backup-29398199"},                      // more
		"Job backup-29923861": {"job": "backup-29923861"},                      // in the future
		"Job backup-20261123": {"job": "backup-20261123"},                      // a date
		"Job backup-2992380":  {"job": "backup-2992380"},
		"Job backup-+9923800": {"job": "backup-+9923800"},
		"Job -29923800":       {"job": "-29923800"},
		"Node n1":             {},
		"Pod x":               {}, // would take the place of the pod's own name
		"Workflow nightly":    {},
		"":                    {},
	} {
		kind, name, _ := strings.Cut(what, " ")
		p := slim(decodePod(t, podOf("web-1", "u-1", func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}
		})))
		if got := p.owners(); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	// A job whose controller is another one says so by a label.
	p := slim(decodePod(t, podOf("web-1", "u-1", label("batch.kubernetes.io/job-name", "backup-29923800"), func(p *corev1.Pod) { p.OwnerReferences = nil })))
	if got := p.owners(); !maps.Equal(got, map[string]string{"job": "backup-29923800", "cronjob": "backup"}) {
		t.Errorf("by its label: %v", got)
	}
	if due := time.Unix(29923800*60, 0).UTC(); !due.Equal(p.Created) {
		t.Errorf("the table means %s, and the pod is of %s", due, p.Created)
	}
}

func TestNameOfTheService(t *testing.T) {
	yes := true
	owner := func(kind, name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Labels = nil
			p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}
		}
	}
	for want, change := range map[string]func(*corev1.Pod){
		"shop":   func(*corev1.Pod) {},
		"shop-a": label("app.kubernetes.io/instance", "shop-a"),
		"said":   func(p *corev1.Pod) { p.Annotations["resource.opentelemetry.io/service.name"] = "said" },
		"web":    func(p *corev1.Pod) { delete(p.Labels, "app.kubernetes.io/name") },
		"db":     owner("StatefulSet", "db"),
		"backup": owner("Job", "backup-29923800"),
		here.pod: owner("", ""),
	} {
		doc := object{}
		slim(decodePod(t, podOf(here.pod, "u-1", change))).fields(doc, here, OTel)
		if got := doc["resource"].(object)["attributes"].(object)["service.name"]; got != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

func TestNameOfAnImage(t *testing.T) {
	for s, want := range map[string][3]string{
		"":                              {},
		"nginx":                         {"nginx"},
		"nginx:1.2":                     {"nginx", "1.2"},
		"host:5000/a/b":                 {"host:5000/a/b"},
		"host:5000/a/b:1":               {"host:5000/a/b", "1"},
		"host:5000/a/b@sha256:ab":       {"host:5000/a/b", "", "sha256:ab"},
		"host:5000/a/b:1.2@sha256:abcd": {"host:5000/a/b", "1.2", "sha256:abcd"},
	} {
		name, tag, digest := splitImage(s)
		if got := [3]string{name, tag, digest}; got != want {
			t.Errorf("%s: %q, want %q", s, got, want)
		}
	}
}

// Every record carries the labels: one pod must not make its records large.
func TestLabelsHaveABound(t *testing.T) {
	pod := podOf("web-1", "u-1", func(p *corev1.Pod) {
		p.Annotations["long"] = strings.Repeat("x", maxAnnotation+1)
		p.Annotations["whole"] = strings.Repeat("x", maxAnnotation)
		for n := range 30 {
			p.Annotations[fmt.Sprintf("many-%02d", n)] = strings.Repeat("y", maxAnnotation)
		}
	})
	pod.Labels[strings.Repeat("k", maxKey+1)] = "x"
	pod.Labels["a\x00b"] = "x"
	pod.Labels[""] = "x"
	p := slim(decodePod(t, pod))
	bounded(t, p)
	if p.Labels["app"] != "web" || p.Labels["pod-template-hash"] != "6d4" || len(p.Labels) != 4 {
		t.Errorf("labels %v", slices.Sorted(maps.Keys(p.Labels)))
	}
	if n := len(p.Annotations); n != 16 {
		t.Errorf("%d annotations", n)
	}
	doc := object{}
	p.fields(doc, here, ECS)
	left, _ := doc["nines.labels_left_out"].([]string)
	if len(left) != maxLeftOut+1 || !slices.Contains(left, "long") || !slices.Contains(left, "a\x00b") || left[maxLeftOut] != "and 11 more" {
		t.Errorf("left out are %q", left)
	}
	before := slices.Clone(left)
	p.bound()
	if !slices.Equal(p.LeftOut, before) {
		t.Errorf("kept and read again: left out are %q", p.LeftOut)
	}
}

func TestBytesThatAreNoTextAreMadeSafe(t *testing.T) {
	o := &pods.Pod{}
	o.Namespace, o.Name, o.UID = "shop", "web\xff", "u"
	o.Labels = map[string]string{"k\xff": "v\xfe"}
	o.Spec.Containers = []pods.Container{{Name: "app", Image: strings.Repeat("x", maxText-1) + "ä"}}
	p := slim(o)
	bounded(t, p)
	if p.Name != "web\uFFFD" || p.Labels["k\uFFFD"] != "v\uFFFD" {
		t.Errorf("%+v", p)
	}
}

// bounded fails where a pod is larger than Pod says.
func bounded(t *testing.T, p *Pod) {
	t.Helper()
	n := 0
	for _, m := range []map[string]string{p.Labels, p.Annotations} {
		for k, v := range m {
			n += len(k) + len(v)
			if k == "" || len(k) > maxKey || strings.ContainsRune(k, 0) || !utf8.ValidString(k) || !utf8.ValidString(v) {
				t.Fatalf("label %q: %q", k, v)
			}
		}
	}
	if n > maxLabels || len(p.Containers) > maxContainers || len(p.LeftOut) > maxLeftOut+1 {
		t.Fatalf("%d bytes of labels, %d containers, %d names", n, len(p.Containers), len(p.LeftOut))
	}
	for _, names := range []Names{ECS, OTel} {
		for _, c := range append(p.Containers, Container{}) {
			for _, s := range []string{c.Name, c.Image, c.Runtime, c.ID, c.PreviousID, p.Name, p.Namespace} {
				if len(s) > maxText || !utf8.ValidString(s) {
					t.Fatalf("%q", s)
				}
			}
			doc := object{}
			s := here
			s.container = c.Name
			p.fields(doc, s, names)
			data := mustJSON(doc)
			if len(data) > 12*(maxLabels+8<<10) { // a control character is six bytes in JSON
				t.Fatalf("a document of %d bytes", len(data))
			}
		}
	}
}

// The API server's answers are outside bytes, too.
func FuzzPod(f *testing.F) {
	for _, p := range []corev1.Pod{podOf("web-1", "u-1"), podOf("etcd-n1", "m", static("h")), {TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}}} {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o := &pods.Pod{}
		if json.Unmarshal(data, o) == nil {
			bounded(t, slim(o))
		}
	})
}
