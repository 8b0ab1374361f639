package logs

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nines/agent/pods"
)

// Pod is what records carry of a pod. It is not changed once it can be found.
//
// Labels and annotations have at most maxLabels bytes, the rest at most about
// 1 KiB for each of maxContainers containers: 80 KiB at worst, and some 2 KiB
// for the pods that people run.
type Pod struct {
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	UID         string            `json:"uid"`
	IP          string            `json:"ip,omitempty"`
	Created     time.Time         `json:"created,omitzero"`
	Hash        string            `json:"hash,omitempty"` // of a static pod, in place of the UID in its folder's name
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	LeftOut     []string          `json:"left_out,omitempty"` // names of labels and annotations that were too long
	Containers  []Container       `json:"containers,omitempty"`

	ownerKind, ownerName string // the controller; the kind in lower case
}

// Container is one of a pod, of any of the three kinds. Its IDs are those of
// this start and of the one before, which are those that the kubelet keeps.
type Container struct {
	Name       string `json:"name"`
	Image      string `json:"image,omitempty"`
	Runtime    string `json:"runtime,omitempty"`
	ID         string `json:"id,omitempty"`
	PreviousID string `json:"previous_id,omitempty"`
	Restarts   int    `json:"restarts,omitempty"`
}

const (
	// maxAnnotation bounds one annotation in a record; longer ones, such as the
	// last applied configuration, are left out.
	maxAnnotation = 1 << 10
	// maxLabels bounds the names and values of labels and annotations together:
	// every record carries them.
	maxLabels = 16 << 10
	// maxLeftOut bounds the names that say what was left out.
	maxLeftOut = 8
	// maxKey is the longest name that Kubernetes permits for a label: a subdomain
	// of 253, a slash, and 63 (apimachinery, IsQualifiedName).
	maxKey = 253 + 1 + 63
	// maxContainers and maxText bound what else is kept of a pod.
	maxContainers = 64
	maxText       = 512
)

// Labels and annotations with a meaning to us.
const (
	labelTemplateHash = "pod-template-hash" // kubernetes/pkg/apis/apps, DefaultDeploymentUniqueLabelKey
	labelJob          = "batch.kubernetes.io/job-name"
	labelService      = "app.kubernetes.io/name"
	labelInstance     = "app.kubernetes.io/instance"
	labelVersion      = "app.kubernetes.io/version"

	annotationHash     = "kubernetes.io/config.hash" // kubernetes/pkg/kubelet/types, ConfigHashAnnotationKey
	annotationResource = "resource.opentelemetry.io/"
)

// slim keeps of a pod what records carry.
func slim(o *pods.Pod) *Pod {
	p := &Pod{
		Namespace: o.Namespace, Name: o.Name, UID: string(o.UID), IP: o.Status.PodIP,
		Created: o.CreationTimestamp.UTC(), Hash: o.Annotations[annotationHash],
		Labels: o.Labels, Annotations: o.Annotations,
	}
	if owner := metav1.GetControllerOf(o); owner != nil {
		p.ownerKind, p.ownerName = strings.ToLower(owner.Kind), owner.Name
	}
	status := map[string]pods.ContainerStatus{}
	for _, s := range slices.Concat(o.Status.ContainerStatuses, o.Status.InitContainerStatuses, o.Status.EphemeralContainerStatuses) {
		status[s.Name] = s
	}
	for _, c := range slices.Concat(o.Spec.Containers, o.Spec.InitContainers, o.Spec.EphemeralContainers) {
		s := status[c.Name]
		kind, id := splitID(s.ContainerID)
		before, previous := splitID(s.LastState.Terminated.ContainerID)
		if kind == "" {
			kind = before
		}
		if id == previous { // it waits for its next start
			previous = ""
		}
		p.Containers = append(p.Containers, Container{
			Name: c.Name, Image: c.Image, Runtime: kind, ID: id, PreviousID: previous, Restarts: s.RestartCount,
		})
	}
	p.bound()
	return p
}

// key is the pod's name in the cluster, which others may have had before.
func (p *Pod) key() string { return p.Namespace + "/" + p.Name }

// inherit takes what was known of the same pod and is no longer: a pod that was
// evicted has no containers in its status.
func (p *Pod) inherit(before *Pod) {
	if p.IP == "" {
		p.IP = before.IP
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.ID != "" {
			continue
		}
		for _, b := range before.Containers {
			if b.Name == c.Name {
				c.Runtime, c.ID, c.PreviousID, c.Restarts = b.Runtime, b.ID, b.PreviousID, b.Restarts
			}
		}
	}
}

// splitID reads RUNTIME://ID.
func splitID(s string) (kind, id string) {
	kind, id, ok := strings.Cut(s, "://")
	if !ok {
		return "", ""
	}
	return kind, id
}

// bound makes the pod's texts valid UTF-8 and no larger than Pod says.
func (p *Pod) bound() {
	for _, s := range []*string{&p.Namespace, &p.Name, &p.UID, &p.IP, &p.Hash, &p.ownerKind, &p.ownerName} {
		*s = text(*s, maxText)
	}
	p.Containers = p.Containers[:min(len(p.Containers), maxContainers)]
	for i := range p.Containers {
		c := &p.Containers[i]
		for _, s := range []*string{&c.Name, &c.Image, &c.Runtime, &c.ID, &c.PreviousID} {
			*s = text(*s, maxText)
		}
	}
	left := maxLabels
	var missing []string
	take := func(in map[string]string, longest int) map[string]string {
		var out map[string]string
		for _, k := range inOrder(in) {
			key, value := text(k, maxKey), strings.ToValidUTF8(in[k], "\uFFFD")
			if key == "" {
				continue // no server has a field without a name
			}
			// Nor has a flattened one of Elasticsearch one with a NUL in its name.
			if strings.ContainsRune(key, 0) || len(k) > maxKey || len(value) > longest || len(key)+len(value) > left {
				missing = append(missing, key)
				continue
			}
			if out == nil {
				out = map[string]string{}
			}
			out[key] = value
			left -= len(key) + len(value)
		}
		return out
	}
	p.Labels = take(p.Labels, maxLabels)
	p.Annotations = take(p.Annotations, maxAnnotation)
	if n := len(missing); n > maxLeftOut {
		missing = append(missing[:maxLeftOut:maxLeftOut], fmt.Sprintf("and %d more", n-maxLeftOut))
	}
	if len(missing) > 0 { // else it is as it was kept
		p.LeftOut = missing
	}
	p.LeftOut = p.LeftOut[:min(len(p.LeftOut), maxLeftOut+1)]
	for i, name := range p.LeftOut {
		p.LeftOut[i] = text(name, maxKey)
	}
}

// size is about how much memory the pod takes, in bytes.
func (p *Pod) size() int {
	n := 512 + len(p.Namespace) + len(p.Name) + len(p.UID) + len(p.IP) + len(p.Hash) + len(p.ownerKind) + len(p.ownerName)
	for _, m := range []map[string]string{p.Labels, p.Annotations} {
		for k, v := range m {
			n += 48 + len(k) + len(v)
		}
	}
	for _, c := range p.Containers {
		n += 88 + len(c.Name) + len(c.Image) + len(c.Runtime) + len(c.ID) + len(c.PreviousID)
	}
	for _, name := range p.LeftOut {
		n += 16 + len(name)
	}
	return n
}

// inOrder is the keys of labels: first those with a meaning to us.
func inOrder(m map[string]string) []string {
	ours := []string{labelTemplateHash, labelJob, labelService, labelInstance, labelVersion}
	keys := slices.Sorted(maps.Keys(m))
	slices.SortStableFunc(keys, func(a, b string) int {
		rank := func(k string) int {
			if slices.Contains(ours, k) || strings.HasPrefix(k, annotationResource) {
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	return keys
}

// text makes s valid UTF-8 of at most n bytes.
func text(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	if s = strings.ToValidUTF8(s, "\uFFFD"); len(s) > n { // the mark has three bytes
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// owners are the objects that the pod belongs to, by the name of their field.
// Kinds that ECS has no field for are left out: theirs could be the name of
// another one, such as that of the node, which owns static pods.
func (p *Pod) owners() map[string]string {
	out := map[string]string{}
	switch p.ownerKind {
	case "replicaset", "statefulset", "daemonset", "job":
		out[p.ownerKind] = p.ownerName
	}
	// A Deployment names its replica sets with the hash that their pods carry.
	if hash := p.Labels[labelTemplateHash]; p.ownerKind == "replicaset" && hash != "" {
		if name, ok := strings.CutSuffix(p.ownerName, "-"+hash); ok {
			out["deployment"] = name
		}
	}
	if name := p.Labels[labelJob]; name != "" && len(out) == 0 {
		out["job"] = name
	}
	if name := cronJobOf(out["job"], p.Created); name != "" {
		out["cronjob"] = name
	}
	return out
}

// cronJobOf returns the CronJob that made a Job, given when a pod of it was
// created; empty: none did. The controller names Jobs NAME-MINUTES, with the
// minutes from the epoch to when the run was due
// (kubernetes/pkg/controller/cronjob, getJobName), eight digits until 2160. A
// name of a person's making seldom ends in a time of the year before its pod:
// read as minutes, 20261123 lies in 2008.
func cronJobOf(job string, created time.Time) string {
	dash := strings.LastIndexByte(job, '-')
	if dash <= 0 || len(job)-dash-1 != 8 {
		return ""
	}
	minutes, err := strconv.ParseUint(job[dash+1:], 10, 32)
	if err != nil {
		return ""
	}
	due := time.Unix(int64(minutes)*60, 0)
	const skew = time.Hour // between clocks
	if due.After(created.Add(skew)) || due.Before(created.AddDate(-1, 0, 0)) {
		return ""
	}
	return job[:dash]
}

// Names says which names a record's metadata has.
type Names string

const (
	// ECS is the Elastic Common Schema, and what Elastic's own agents add to it.
	ECS Names = "ecs"
	// OTel is the semantic conventions of OpenTelemetry for Kubernetes,
	// containers and services (opentelemetry.io/docs/specs/semconv/resource/k8s).
	OTel Names = "otel"
)

// seat is the place of a container: what the path of its file says, and where
// the agent is.
type seat struct {
	cluster, node                  string
	namespace, pod, uid, container string
	file                           string // RESTARTS.log, or a rotated one; empty if not known
}

// restarts says how often the container was started before it wrote the file.
func (s seat) restarts() (n int, ok bool) {
	digits, _, _ := strings.Cut(s.file, ".")
	n, err := strconv.Atoi(digits)
	return n, err == nil && n >= 0
}

// fields adds to a document what is known of a container and its pod. Without a
// pod (nil) that is what the seat says.
//
// What was left out of labels and annotations stands under the one key
// nines.labels_left_out, dot and all: a document may have an object nines
// already, and a second one of that name would be refused.
func (p *Pod) fields(doc object, at seat, names Names) {
	var pod Pod
	if p != nil {
		pod = *p
	}
	var c Container
	for _, each := range pod.Containers {
		if each.Name == at.container {
			c = each
		}
	}
	if n, ok := at.restarts(); ok && n != c.Restarts {
		// The file is of another start. The one before is known, others are not.
		if n != c.Restarts-1 {
			c.PreviousID = ""
		}
		c.ID = c.PreviousID
	}
	if pod.UID == "" {
		pod.UID = at.uid
	}
	if names == OTel {
		merge(doc, object{"resource": object{"attributes": pod.attributes(p != nil, at, c)}})
	} else {
		merge(doc, pod.ecs(at, c))
	}
	if len(pod.LeftOut) > 0 {
		doc["nines.labels_left_out"] = pod.LeftOut
	}
}

// ecs is the pod under names of the Elastic Common Schema.
func (p *Pod) ecs(at seat, c Container) object {
	kubernetes := object{
		"namespace": at.namespace,
		"pod":       known("name", at.pod, "uid", p.UID, "ip", p.IP),
		"container": known("name", at.container),
		"node":      known("name", at.node),
	}
	if len(p.Labels) > 0 {
		kubernetes["labels"] = p.Labels
	}
	if len(p.Annotations) > 0 {
		kubernetes["annotations"] = p.Annotations
	}
	for kind, name := range p.owners() {
		kubernetes[kind] = object{"name": name}
	}
	out := object{
		"orchestrator": object{"type": "kubernetes", "cluster": known("name", at.cluster)},
		"kubernetes":   kubernetes,
	}
	container := known("id", c.ID, "runtime", c.Runtime)
	if c.Image != "" {
		container["image"] = object{"name": c.Image}
	}
	if len(container) > 0 {
		out["container"] = container
	}
	if service := known("name", p.Labels[labelService], "version", p.Labels[labelVersion]); len(service) > 0 {
		out["service"] = service
	}
	return out
}

// attributes is the pod under names of OpenTelemetry. What the service is called
// follows its "Specify resource attributes using Kubernetes annotations"; it is
// left out of records without metadata, as it would be another one with them.
func (p *Pod) attributes(found bool, at seat, c Container) object {
	image, tag, digest := splitImage(c.Image)
	out := known(
		"k8s.cluster.name", at.cluster, "k8s.node.name", at.node, "k8s.namespace.name", at.namespace,
		"k8s.pod.name", at.pod, "k8s.pod.uid", p.UID, "k8s.pod.ip", p.IP, "k8s.container.name", at.container,
		"container.id", c.ID, "container.image.name", image, "container.runtime.name", c.Runtime,
	)
	if n, ok := at.restarts(); ok {
		out["k8s.container.restart_count"] = n
	}
	if tag != "" {
		out["container.image.tags"] = []string{tag}
	}
	owners := p.owners()
	for kind, name := range owners {
		out["k8s."+kind+".name"] = name
	}
	for k, v := range p.Labels {
		out["k8s.pod.label."+k] = v
	}
	for k, v := range p.Annotations {
		out["k8s.pod.annotation."+k] = v
	}
	if !found {
		return out
	}
	for k, v := range p.Annotations {
		// What we know better is not taken from there.
		if name, ok := strings.CutPrefix(k, annotationResource); ok && out[name] == nil && name != "" {
			out[name] = v
		}
	}
	first := func(key string, from ...string) {
		for _, v := range from {
			if out[key] == nil && v != "" {
				out[key] = v
			}
		}
	}
	first("service.namespace", at.namespace)
	first("service.name", p.Labels[labelInstance], p.Labels[labelService], owners["deployment"], owners["replicaset"],
		owners["statefulset"], owners["daemonset"], owners["cronjob"], owners["job"], at.pod)
	if tag != "" && digest != "" {
		tag += "@" + digest
		digest = ""
	}
	first("service.version", p.Labels[labelVersion], digest, tag)
	first("service.instance.id", at.namespace+"."+at.pod+"."+at.container)
	return out
}

// splitImage reads NAME[:TAG][@DIGEST]; the name may begin with HOST:PORT/.
func splitImage(s string) (name, tag, digest string) {
	name, digest, _ = strings.Cut(s, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, tag = name[:colon], name[colon+1:]
	}
	return name, tag, digest
}

// known is an object of names and values, without the empty ones.
func known(pairs ...string) object {
	out := object{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			out[pairs[i]] = pairs[i+1]
		}
	}
	return out
}

// merge adds the fields of an object to another; objects in both become one.
func merge(into, from object) {
	for k, v := range from {
		if more, ok := v.(object); ok {
			if there, ok := into[k].(object); ok {
				merge(there, more)
				continue
			}
		}
		into[k] = v
	}
}
