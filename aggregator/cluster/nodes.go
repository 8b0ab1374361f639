package cluster

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nines/pkg/metric"
)

// DefaultNodeLabels are the labels of nodes that become labels of
// kube_node_labels: what groups nodes, and little enough not to multiply
// series.
var DefaultNodeLabels = []string{
	"kubernetes.io/arch",
	"kubernetes.io/os",
	"node.kubernetes.io/instance-type",
	"topology.kubernetes.io/region",
	"topology.kubernetes.io/zone",
}

// slimNode keeps the fields of a node that nodeFamilies reads, as a new object.
func slimNode(n *corev1.Node, keep []string) *corev1.Node {
	slim := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:              n.Name,
			UID:               n.UID,
			ResourceVersion:   n.ResourceVersion, // the informer's own
			CreationTimestamp: n.CreationTimestamp,
		},
		Spec: corev1.NodeSpec{
			PodCIDR:       n.Spec.PodCIDR,
			ProviderID:    n.Spec.ProviderID,
			Unschedulable: n.Spec.Unschedulable,
		},
	}
	for _, k := range keep {
		if v, ok := n.Labels[k]; ok {
			if slim.Labels == nil {
				slim.Labels = make(map[string]string)
			}
			slim.Labels[k] = v
		}
	}
	for _, c := range n.Status.Conditions {
		slim.Status.Conditions = append(slim.Status.Conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status})
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			slim.Status.Addresses = append(slim.Status.Addresses, a)
		}
	}
	i := n.Status.NodeInfo
	slim.Status.NodeInfo = corev1.NodeSystemInfo{
		SystemUUID:              i.SystemUUID,
		KernelVersion:           i.KernelVersion,
		OSImage:                 i.OSImage,
		ContainerRuntimeVersion: i.ContainerRuntimeVersion,
		KubeletVersion:          i.KubeletVersion,
	}
	return slim
}

// nodeFamilies tells the nodes under kube-state-metrics' names, in their order.
func nodeFamilies(nodes []*corev1.Node) []metric.Family {
	created := metric.Family{Name: "kube_node_created", Help: "Unix creation timestamp.", Unit: "seconds", Type: metric.Gauge}
	info := metric.Family{Name: "kube_node_info", Help: "Information about a cluster node.", Type: metric.Gauge}
	labels := metric.Family{Name: "kube_node_labels", Help: "Kubernetes labels of the node, as labels.", Type: metric.Gauge}
	unschedulable := metric.Family{Name: "kube_node_spec_unschedulable", Help: "Whether a node takes no new pods.", Type: metric.Gauge}
	condition := metric.Family{Name: "kube_node_status_condition", Help: "The condition of a cluster node.", Type: metric.Gauge}

	for _, n := range nodes {
		if !n.CreationTimestamp.IsZero() {
			created.Series = append(created.Series, metric.Series{Labels: metric.Labels("node", n.Name), Value: float64(n.CreationTimestamp.Unix())})
		}
		i := n.Status.NodeInfo
		internal := ""
		if len(n.Status.Addresses) > 0 {
			internal = n.Status.Addresses[0].Address
		}
		info.Series = append(info.Series, metric.Series{Value: 1, Labels: metric.Labels(
			"node", n.Name,
			"container_runtime_version", i.ContainerRuntimeVersion,
			"internal_ip", internal,
			"kernel_version", i.KernelVersion,
			"kubelet_version", i.KubeletVersion,
			"os_image", i.OSImage,
			"pod_cidr", n.Spec.PodCIDR,
			"provider_id", n.Spec.ProviderID,
			"system_uuid", i.SystemUUID,
		)})
		labels.Series = append(labels.Series, metric.Series{Value: 1, Labels: labelSeries(n)})
		unschedulable.Series = append(unschedulable.Series, metric.Series{Labels: metric.Labels("node", n.Name), Value: truth(n.Spec.Unschedulable)})
		for _, c := range n.Status.Conditions {
			for _, status := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown} {
				condition.Series = append(condition.Series, metric.Series{Value: truth(c.Status == status), Labels: metric.Labels(
					"node", n.Name, "condition", string(c.Type), "status", strings.ToLower(string(status)))})
			}
		}
	}
	return []metric.Family{created, info, labels, unschedulable, condition}
}

// labelSeries turns Kubernetes labels into labels of a series. Of two that
// come to the same name the first by name stays.
func labelSeries(n *corev1.Node) []metric.Label {
	keys := make([]string, 0, len(n.Labels))
	for k := range n.Labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := []metric.Label{{Name: "node", Value: n.Name}}
	for _, k := range keys {
		name := labelName(k)
		if !slices.ContainsFunc(out, func(l metric.Label) bool { return l.Name == name }) {
			out = append(out, metric.Label{Name: name, Value: n.Labels[k]})
		}
	}
	metric.SortLabels(out)
	return out
}

// labelName is "label_" with all but letters, digits and _ replaced by _.
func labelName(k string) string {
	return "label_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, k)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
