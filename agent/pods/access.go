package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrNoCluster says that neither a service account nor a kubeconfig was found.
var ErrNoCluster = errors.New("no Kubernetes access: neither a service account nor a kubeconfig was found")

// answerWithin is how long the API server may take to answer: its own bound
// for a list (--request-timeout).
const answerWithin = time.Minute

var errNoAnswer = fmt.Errorf("it did not answer within %s", answerWithin)

// Access is the way to the API server. It is safe for concurrent use.
type Access struct {
	core, monitoring rest.Interface
}

// Find finds the cluster by the service account of the pod that this runs in,
// else by $KUBECONFIG or ~/.kube/config. ErrNoCluster if there is none.
func Find() (*Access, error) {
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		rules := clientcmd.NewDefaultClientConfigLoadingRules()
		there := false
		for _, file := range rules.GetLoadingPrecedence() {
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				there = true
			}
		}
		if !there {
			return nil, ErrNoCluster
		}
		config, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	return From(config)
}

// From is the access that a configuration of client-go describes.
func From(config *rest.Config) (*Access, error) {
	a := &Access{}
	for _, c := range []struct {
		client *rest.Interface
		path   string
		gv     schema.GroupVersion
	}{{&a.core, "/api", coreV1}, {&a.monitoring, "/apis", monitoringV1}} {
		config := rest.CopyConfig(config)
		config.APIPath, config.GroupVersion = c.path, &c.gv
		config.NegotiatedSerializer = codecs.WithoutConversion()
		config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		config.WarningHandlerWithContext = rest.NoWarnings{}
		client, err := rest.RESTClientFor(config)
		if err != nil {
			return nil, fmt.Errorf("find the cluster: %w", err)
		}
		*c.client = client
	}
	return a, nil
}

var (
	coreV1       = schema.GroupVersion{Version: "v1"}
	monitoringV1 = schema.GroupVersion{Group: "monitoring.coreos.com", Version: "v1"}
)

// codecs knows the objects that we ask for and no others.
var codecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	for kind, o := range map[string]runtime.Object{
		"Pod": &Pod{}, "PodList": &podList{}, "Secret": &secret{}, "ConfigMap": &configMap{}, "Node": &node{},
	} {
		scheme.AddKnownTypeWithName(coreV1.WithKind(kind), o)
	}
	scheme.AddKnownTypeWithName(monitoringV1.WithKind("PodMonitor"), &PodMonitor{})
	scheme.AddKnownTypeWithName(monitoringV1.WithKind("PodMonitorList"), &podMonitorList{})
	metav1.AddToGroupVersion(scheme, coreV1)
	metav1.AddToGroupVersion(scheme, monitoringV1)
	return serializer.NewCodecFactory(scheme)
}()

// Check asks once for a pod of the node, for people who want to know before they
// start the agent whether it may. Its error says in words why it may not, or
// that the node has no pod, and what to do; the right to watch is not tried.
func (a *Access) Check(ctx context.Context, node string) error {
	return check(ctx, a.core, podsOf(node))
}

// CheckPodMonitors asks once for a PodMonitor, as Check does for a pod. That
// there is none is no error; that the cluster does not know the kind is one.
func (a *Access) CheckPodMonitors(ctx context.Context) error {
	return check(ctx, a.monitoring, podMonitors)
}

func check(ctx context.Context, client rest.Interface, k kind) error {
	// Of version 0, as a watch begins: the API server answers from its memory.
	page, err := k.list(ctx, client, metav1.ListOptions{Limit: 1, ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("read %s: %s: %w", k.name, k.why(err), err)
	}
	if k.empty != "" && meta.LenList(page) == 0 {
		return fmt.Errorf("read %s: %s", k.name, k.empty)
	}
	return nil
}

// Secret reads what a Secret holds, by key. An object has 1.5 MiB at most
// (etcd's --max-request-bytes). The error says what to do; see Refused.
func (a *Access) Secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	s := &secret{}
	if err := a.get(ctx, s, "secrets", namespace, name); err != nil {
		return nil, err
	}
	return s.Data, nil
}

// ConfigMap reads what a ConfigMap holds, by key. The error says what to do; see
// Refused.
func (a *Access) ConfigMap(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	c := &configMap{}
	if err := a.get(ctx, c, "configmaps", namespace, name); err != nil {
		return nil, err
	}
	data := maps.Clone(c.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, v := range c.Data {
		data[k] = []byte(v)
	}
	return data, nil
}

// Node reads the labels and annotations of a node. The error says what to do;
// see Refused.
func (a *Access) Node(ctx context.Context, name string) (labels, annotations map[string]string, err error) {
	n := &node{}
	if err := a.get(ctx, n, "nodes", "", name); err != nil {
		return nil, nil, err
	}
	return n.Labels, n.Annotations, nil
}

func (a *Access) get(ctx context.Context, into runtime.Object, resource, namespace, name string) error {
	within, cancel := context.WithTimeoutCause(ctx, answerWithin, errNoAnswer)
	defer cancel()
	request := a.core.Get().Resource(resource).Name(name)
	of := name
	if namespace != "" {
		request, of = request.Namespace(namespace), namespace+"/"+name
	}
	err := request.Do(within).Into(into)
	if cause := context.Cause(within); err != nil && cause != nil {
		err = cause
	}
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("read %s of %s: there is none: create it, or correct its name: %w", of, resource, err)
	default:
		return fmt.Errorf("read %s of %s: %s: %w", of, resource, why(err, "the verb get on the resource "+resource), err)
	}
}

// Refused says whether an error means that the API server answered, and that it
// has no such object or does not let us read it.
func Refused(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsForbidden(err)
}

// why says in words what keeps an answer from coming and what to do; needed are
// the rights without which the server refuses. It is empty where all is well.
func why(err error, needed string) string {
	switch {
	case err == nil:
		return ""
	case apierrors.IsForbidden(err):
		return "this user is not permitted to: grant " + needed + " (RBAC: a ClusterRole, and a ClusterRoleBinding to the agent's service account)"
	case apierrors.IsUnauthorized(err):
		return "the API server does not accept our credentials: renew the service account's token or the kubeconfig"
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsServiceUnavailable(err), errors.Is(err, errNoAnswer):
		return "the API server is too slow or overloaded: look at its load; it is asked again, with growing pauses"
	case errors.As(err, new(apierrors.APIStatus)):
		return "the API server refuses: the error says why; it is asked again, with growing pauses"
	default:
		return "the API server cannot be reached: check its address, its certificate and the network from here; it is asked again, with growing pauses"
	}
}

// secret, configMap and node are the parts of the API's objects that are read.
type secret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Data              map[string][]byte `json:"data"`
}

type configMap struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Data              map[string]string `json:"data"`
	BinaryData        map[string][]byte `json:"binaryData"`
}

type node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
}

// DeepCopyObject makes it an object of the client.
func (s *secret) DeepCopyObject() runtime.Object {
	out := *s
	s.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Data = maps.Clone(s.Data) // nobody writes into values
	return &out
}

// DeepCopyObject makes it an object of the client.
func (c *configMap) DeepCopyObject() runtime.Object {
	out := *c
	c.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Data, out.BinaryData = maps.Clone(c.Data), maps.Clone(c.BinaryData)
	return &out
}

// DeepCopyObject makes it an object of the client.
func (n *node) DeepCopyObject() runtime.Object {
	out := *n
	n.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}
