package pods

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Pod is the part of the API's pod that is decoded. Listeners share it: nobody
// changes it.
type Pod struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              PodSpec   `json:"spec"`
	Status            PodStatus `json:"status"`
}

// PodSpec is what was asked for.
type PodSpec struct {
	NodeName            string      `json:"nodeName"`
	HostNetwork         bool        `json:"hostNetwork"`
	Containers          []Container `json:"containers"`
	InitContainers      []Container `json:"initContainers"`
	EphemeralContainers []Container `json:"ephemeralContainers"`
}

// PodStatus is what the kubelet says.
type PodStatus struct {
	Phase                      string            `json:"phase"`
	PodIP                      string            `json:"podIP"` // the first of PodIPs
	PodIPs                     []IP              `json:"podIPs"`
	HostIP                     string            `json:"hostIP"`
	Conditions                 []Condition       `json:"conditions"`
	ContainerStatuses          []ContainerStatus `json:"containerStatuses"`
	InitContainerStatuses      []ContainerStatus `json:"initContainerStatuses"`
	EphemeralContainerStatuses []ContainerStatus `json:"ephemeralContainerStatuses"`
}

// Container is one that is asked for.
type Container struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	Ports []Port `json:"ports"`
}

// Port is one that a container declares.
type Port struct {
	Name     string `json:"name"`
	Number   int32  `json:"containerPort"`
	Protocol string `json:"protocol"` // TCP, UDP or SCTP
}

// IP is an address of a pod, one for each family.
type IP struct {
	IP string `json:"ip"`
}

// Condition is one of a pod, such as Ready.
type Condition struct {
	Type   string `json:"type"`
	Status string `json:"status"` // True, False or Unknown
}

// ContainerStatus is what became of a container.
type ContainerStatus struct {
	Name         string `json:"name"`
	ContainerID  string `json:"containerID"` // RUNTIME://ID
	RestartCount int    `json:"restartCount"`
	LastState    struct {
		Terminated struct {
			ContainerID string `json:"containerID"`
		} `json:"terminated"`
	} `json:"lastState"`
}

// DeepCopyObject makes it an object of the client.
func (p *Pod) DeepCopyObject() runtime.Object {
	out := *p
	p.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	for _, list := range []*[]Container{&out.Spec.Containers, &out.Spec.InitContainers, &out.Spec.EphemeralContainers} {
		*list = slices.Clone(*list)
		for i := range *list {
			(*list)[i].Ports = slices.Clone((*list)[i].Ports)
		}
	}
	for _, list := range []*[]ContainerStatus{&out.Status.ContainerStatuses, &out.Status.InitContainerStatuses, &out.Status.EphemeralContainerStatuses} {
		*list = slices.Clone(*list)
	}
	out.Status.PodIPs, out.Status.Conditions = slices.Clone(out.Status.PodIPs), slices.Clone(out.Status.Conditions)
	return &out
}

// podList is a page of them.
type podList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Pod `json:"items"`
}

// DeepCopyObject makes it an object of the client.
func (l *podList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = slices.Clone(l.Items)
	for i := range out.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*Pod)
	}
	return &out
}
