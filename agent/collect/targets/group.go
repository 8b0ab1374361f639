package targets

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/util/strutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nines/agent/pods"
)

const meta = model.MetaLabelPrefix + "kubernetes_"

// Terminating is "true" on targets of a pod that is being deleted: they are
// scraped each second until it is gone, so that its last figures are not lost.
const Terminating = model.MetaLabelPrefix + "nines_terminating"

// Bounds of what is kept of a pod. Kubernetes bounds a label (253+1+63 bytes of
// name, 63 of value), not their number, and all annotations together to 256 KiB
// (apimachinery, TotalAnnotationSizeLimitB).
const (
	// maxAnnotation bounds one annotation in bytes; the value of a longer one, such
	// as the last applied configuration, is left out. That it is there is kept.
	maxAnnotation = 4 << 10
	// maxMeta bounds names and values of labels and annotations together.
	maxMeta = 32 << 10
	// maxTargets bounds the targets of a pod, one for each declared port.
	maxTargets = 256
	// maxText bounds other texts, such as the name of an image.
	maxText = 512
)

// pod is what is kept of one: some 6 KiB for those that people run, with twenty
// labels and annotations and three ports. At worst it is about 230 KiB:
// maxTargets targets of some 0.6 KiB, and maxMeta with the labels that say that
// they are there.
type pod struct {
	uid       string
	namespace string
	ended     bool // Succeeded or Failed
	labels    map[string]string
	group     *targetgroup.Group // without targets while the pod has no address
	onNode    *targetgroup.Group // group with the labels of the node; nil: not needed yet
}

// podOf keeps of a pod what is scraped, with the labels that Prometheus gives it
// (discovery/kubernetes, role pod).
func podOf(o *pods.Pod) *pod {
	return &pod{
		uid: string(o.UID), namespace: o.Namespace, labels: o.Labels, group: groupOf(o),
		ended: o.Status.Phase == "Succeeded" || o.Status.Phase == "Failed",
	}
}

func groupOf(o *pods.Pod) *targetgroup.Group {
	g := &targetgroup.Group{Source: "pod/" + o.Namespace + "/" + o.Name}
	ip := o.Status.PodIP
	if ip == "" && len(o.Status.PodIPs) > 0 {
		ip = o.Status.PodIPs[0].IP
	}
	if ip == "" {
		return g
	}
	ready := "unknown"
	for _, c := range o.Status.Conditions {
		if c.Type == "Ready" {
			ready = strings.ToLower(c.Status)
			break
		}
	}
	g.Labels = model.LabelSet{
		meta + "namespace":     text(o.Namespace),
		meta + "pod_name":      text(o.Name),
		meta + "pod_ip":        text(ip),
		meta + "pod_ready":     text(ready),
		meta + "pod_phase":     text(o.Status.Phase),
		meta + "pod_node_name": text(o.Spec.NodeName),
		meta + "pod_host_ip":   text(o.Status.HostIP),
		meta + "pod_uid":       text(string(o.UID)),
	}
	if owner := metav1.GetControllerOfNoCopy(o); owner != nil {
		if owner.Kind != "" {
			g.Labels[meta+"pod_controller_kind"] = text(owner.Kind)
		}
		if owner.Name != "" {
			g.Labels[meta+"pod_controller_name"] = text(owner.Name)
		}
	}
	addMeta(g.Labels, "pod", o.Labels, o.Annotations)

	ids := map[string]string{}
	for _, s := range slices.Concat(o.Status.ContainerStatuses, o.Status.InitContainerStatuses) {
		ids[s.Name] = s.ContainerID // names are unique across both
	}
	for i, c := range slices.Concat(o.Spec.Containers, o.Spec.InitContainers) {
		base := model.LabelSet{
			meta + "pod_container_name":  text(c.Name),
			meta + "pod_container_id":    text(ids[c.Name]),
			meta + "pod_container_image": text(c.Image),
			meta + "pod_container_init":  model.LabelValue(strconv.FormatBool(i >= len(o.Spec.Containers))),
		}
		if o.DeletionTimestamp != nil {
			base[Terminating] = "true"
		}
		if len(c.Ports) == 0 {
			base[model.AddressLabel] = text(ip)
			g.Targets = append(g.Targets, base)
			continue
		}
		for _, p := range c.Ports {
			t := base.Clone()
			number := strconv.Itoa(int(p.Number))
			t[model.AddressLabel] = text(net.JoinHostPort(ip, number))
			t[meta+"pod_container_port_name"] = text(p.Name)
			t[meta+"pod_container_port_number"] = text(number)
			t[meta+"pod_container_port_protocol"] = text(p.Protocol)
			g.Targets = append(g.Targets, t)
		}
	}
	g.Targets = g.Targets[:min(len(g.Targets), maxTargets)]
	return g
}

// addMeta adds an object's labels and annotations, up to maxMeta: first labels,
// then the annotations that say how to scrape, then others, each in the order of
// their names.
func addMeta(into model.LabelSet, role string, labels, annotations map[string]string) {
	left := maxMeta
	add := func(kind string, in map[string]string, longest int) {
		keys := slices.SortedFunc(maps.Keys(in), func(a, b string) int {
			return cmp.Or(-cmp.Compare(b2i(strings.HasPrefix(a, annotationPrefix)), b2i(strings.HasPrefix(b, annotationPrefix))), cmp.Compare(a, b))
		})
		for _, k := range keys {
			v := in[k]
			name := meta + role + "_" + kind
			sanitized := strutil.SanitizeLabelName(k)
			if 2*len(k) > left {
				continue
			}
			left -= 2 * len(k)
			into[model.LabelName(name+"present_"+sanitized)] = "true"
			if len(v) <= longest && len(v) <= left {
				left -= len(v)
				into[model.LabelName(name+"_"+sanitized)] = model.LabelValue(strings.ToValidUTF8(v, "\uFFFD"))
			}
		}
	}
	add("label", labels, maxMeta)
	add("annotation", annotations, maxAnnotation)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// text makes s a value of a label.
func text(s string) model.LabelValue {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return model.LabelValue(strings.ToValidUTF8(s, ""))
}

// nodeLabels are those of attachMetadata.node.
func nodeLabels(name string, labels, annotations map[string]string) model.LabelSet {
	out := model.LabelSet{meta + "node_name": text(name)}
	addMeta(out, "node", labels, annotations)
	return out
}
