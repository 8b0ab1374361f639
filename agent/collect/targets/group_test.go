package targets

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nines/agent/pods"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// apiPod is one of this node with two ports, made by a Deployment.
func apiPod(name string, change ...func(*corev1.Pod)) corev1.Pod {
	controls := true
	p := corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", UID: types.UID("uid-" + name), ResourceVersion: "2",
			Labels:          map[string]string{"app": "web", "app.kubernetes.io/name": "shop"},
			Annotations:     map[string]string{"team": "shop"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Other", Name: "x"}, {Kind: "ReplicaSet", Name: "web-6d4", Controller: &controls}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1",
			Containers: []corev1.Container{{Name: "app", Image: "shop/web:1.2", Ports: []corev1.ContainerPort{
				{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {Name: "metrics", ContainerPort: 9100, Protocol: corev1.ProtocolTCP},
			}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.1.2.3", PodIPs: []corev1.PodIP{{IP: "10.1.2.3"}}, HostIP: "192.0.2.1",
			Conditions:        []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionFalse}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", ContainerID: "containerd://c1"}},
		},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func annotation(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations[key] = value }
}

func label(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels[key] = value }
}

func namespace(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Namespace = name } }

func phase(ph corev1.PodPhase) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = ph } }

func terminating(p *corev1.Pod) {
	now := metav1.NewTime(time.Unix(1795421711, 0))
	p.DeletionTimestamp = &now
}

// decode takes the API's object the way that it comes.
func decode[T any](t testing.TB, o any) *T {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	out := new(T)
	if err := json.Unmarshal(data, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Rules of people select by these labels. The file is what Prometheus' own
// discovery (v3.15, discovery/kubernetes, role pod) made of these pods.
func TestLabelsOfTargetsAreThoseOfPrometheus(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	all := []corev1.Pod{
		apiPod("web-1"),
		apiPod("not-ready", func(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionFalse }),
		apiPod("no-condition", func(p *corev1.Pod) { p.Status.Conditions = nil }),
		apiPod("no-address", func(p *corev1.Pod) { p.Status.PodIP = "" }, func(p *corev1.Pod) { p.Status.PodIPs = nil }),
		apiPod("pending", phase(corev1.PodPending), func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }),
		apiPod("six", func(p *corev1.Pod) { p.Status.PodIP = "fd00::3" }),
		apiPod("bare", func(p *corev1.Pod) {
			p.Labels, p.Annotations, p.OwnerReferences = nil, nil, nil
			p.Spec.Containers[0].Ports = nil
		}),
		apiPod("strange", label("a.b/c-d", "1"), annotation("prometheus.io/scrape", "true"), annotation("x y", "ü")),
		apiPod("many", func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side", Image: "side", Ports: []corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolUDP}}})
			p.Spec.InitContainers = []corev1.Container{
				{Name: "prepare", Image: "busybox"},
				{Name: "proxy", Image: "proxy", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "admin", ContainerPort: 4191, Protocol: corev1.ProtocolTCP}}},
			}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", ContainerID: "containerd://p"}}
		}),
	}
	file, err := os.ReadFile("testdata/discovered.json")
	if err != nil {
		t.Fatal(err)
	}
	type discovered struct {
		Labels  model.LabelSet   `json:"labels"`
		Targets []model.LabelSet `json:"targets"`
	}
	var want map[string]discovered
	if err := json.Unmarshal(file, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(all)+1 {
		t.Fatalf("the file has %d groups, want one of each pod", len(want))
	}
	check := func(name string, g *targetgroup.Group) {
		t.Helper()
		if got := (discovered{g.Labels, g.Targets}); !reflect.DeepEqual(got, want[name]) {
			t.Errorf("%s:\n%v\nPrometheus has\n%v", name, show(g), show(&targetgroup.Group{Labels: want[name].Labels, Targets: want[name].Targets}))
		}
	}
	for _, p := range all {
		g := groupOf(decode[pods.Pod](t, p))
		if g.Source != "pod/shop/"+p.Name {
			t.Errorf("the source of %s is %s", p.Name, g.Source)
		}
		check(g.Source, g)
	}
	check("with its node", podOf(decode[pods.Pod](t, all[0])).with(
		nodeLabels("n1", map[string]string{"topology.kubernetes.io/zone": "a"}, map[string]string{"x/y": "z"})))
}

func show(g *targetgroup.Group) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v", g.Source, g.Labels)
	for _, t := range g.Targets {
		fmt.Fprintf(&b, "\n  %v", t)
	}
	return b.String()
}

func TestTargetsOfPodThatIsDeletedAreMarked(t *testing.T) {
	before, after := groupOf(decode[pods.Pod](t, apiPod("web-1"))), groupOf(decode[pods.Pod](t, apiPod("web-1", terminating)))
	if len(after.Targets) != 2 {
		t.Fatalf("%d targets", len(after.Targets))
	}
	for i, target := range after.Targets {
		if target[Terminating] != "true" || Terminating != "__meta_nines_terminating" {
			t.Errorf("%v is not marked", target)
		}
		delete(target, Terminating)
		if !target.Equal(before.Targets[i]) || !after.Labels.Equal(before.Labels) {
			t.Errorf("%v differs in more than the mark from %v", target, before.Targets[i])
		}
	}
}

func TestWhatIsKeptOfAPodHasABound(t *testing.T) {
	p := apiPod("web-1", annotation("long", strings.Repeat("x", maxAnnotation+1)), annotation("prometheus.io/scrape", "true"))
	for n := range 100 {
		p.Annotations[fmt.Sprintf("many-%03d", n)] = strings.Repeat("y", maxAnnotation)
	}
	for n := range 2 * maxTargets {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: int32(n)})
	}
	g := groupOf(decode[pods.Pod](t, p))
	bounded(t, g)
	for name, want := range map[model.LabelName]model.LabelValue{
		meta + "pod_annotationpresent_long": "true", meta + "pod_annotation_long": "", meta + "pod_annotation_prometheus_io_scrape": "true",
		meta + "pod_label_app": "web", meta + "pod_annotation_many_000": model.LabelValue(strings.Repeat("y", maxAnnotation)), meta + "pod_annotation_many_099": "",
	} {
		if g.Labels[name] != want {
			t.Errorf("%s is %.20q", name, g.Labels[name])
		}
	}
}

func bounded(t *testing.T, g *targetgroup.Group) {
	t.Helper()
	n := 0
	for k, v := range g.Labels {
		n += len(v)
		if strings.Contains(string(k), "_label") || strings.Contains(string(k), "_annotation") {
			n += len(k) - len(meta+"pod_annotationpresent_")
		}
	}
	if n > maxMeta+10*maxText || len(g.Targets) > maxTargets {
		t.Fatalf("%d bytes of labels, %d targets", n, len(g.Targets))
	}
	for _, target := range append(g.Targets, g.Labels) {
		for k, v := range target {
			if !v.IsValid() || !model.LegacyValidation.IsValidLabelName(string(k)) || !utf8.ValidString(string(v)) {
				t.Fatalf("label %q: %q", k, v)
			}
		}
	}
}

// The API server's answers are outside bytes.
func FuzzPod(f *testing.F) {
	for _, p := range []corev1.Pod{apiPod("web-1"), apiPod("web-2", terminating, label("a\xff", "\xfe"))} {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o := &pods.Pod{}
		if json.Unmarshal(data, o) == nil {
			bounded(t, groupOf(o))
		}
	})
}

func TestConfigurationThatIsWrongNamesItsKeyAndTheRemedy(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"":                           func(*Config) {},
		`namespaces[1] "["`:          func(c *Config) { c.Namespaces = []string{"a", "["} },
		`exclude_namespaces[0] ""`:   func(c *Config) { c.ExcludeNamespaces = []string{""} },
		`pod_monitor_selector "a ("`: func(c *Config) { c.PodMonitorSelector = "a (" },
		"interval is 0s: choose":     func(c *Config) { c.Interval = 0 },
		"timeout is 1m0s: choose":    func(c *Config) { c.Timeout = time.Minute },
		"limits.samples is -1":       func(c *Config) { c.Limits.Samples = -1 },
		"limits.pod_monitors":        func(c *Config) { c.Limits.PodMonitors = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		err := c.Validate()
		if (err == nil) != (want == "") || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestNamespacesThatAreTaken(t *testing.T) {
	c := Config{Namespaces: []string{"shop", "kube-*"}, ExcludeNamespaces: []string{"kube-public"}}
	got := map[string]bool{}
	for _, n := range []string{"shop", "shop2", "kube-system", "kube-public"} {
		got[n] = c.takes(n)
	}
	if want := map[string]bool{"shop": true, "shop2": false, "kube-system": true, "kube-public": false}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if all := (Config{}); !all.takes("any") {
		t.Error("without patterns a namespace is left out")
	}
}
