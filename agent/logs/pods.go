package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// ErrNoCluster says that neither a service account nor a kubeconfig was found.
var ErrNoCluster = errors.New("no Kubernetes access: neither a service account nor a kubeconfig was found")

// Pod is the metadata of a pod, as far as records carry it.
type Pod struct {
	UID                 string
	Labels, Annotations map[string]string

	ownerKind, ownerName string
}

// owners are the objects that the pod belongs to, by the name of their field.
func (p *Pod) owners() map[string]string {
	if p.ownerKind == "" {
		return nil
	}
	out := map[string]string{p.ownerKind: p.ownerName}
	// A Deployment names its replica sets with the hash that their pods carry.
	if hash := p.Labels["pod-template-hash"]; p.ownerKind == "replicaset" && hash != "" {
		if name, ok := strings.CutSuffix(p.ownerName, "-"+hash); ok {
			out["deployment"] = name
		}
	}
	return out
}

// Pods watches the metadata of this node's pods, and of no others.
type Pods struct {
	log      *slog.Logger
	informer cache.SharedIndexInformer
	version  atomic.Uint64
	failing  sync.Once
}

// maxAnnotation bounds one annotation in a record; longer ones, such as the
// last applied configuration, are left out.
const maxAnnotation = 1 << 10

// NewPods finds the cluster by the service account of the pod that this runs
// in, else by $KUBECONFIG or ~/.kube/config. ErrNoCluster if there is none.
func NewPods(node string, log *slog.Logger) (*Pods, error) {
	access, err := rest.InClusterConfig()
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
		access, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("find the cluster for the metadata of pods: %w", err)
	}
	return newPods(access, node, log)
}

func newPods(access *rest.Config, node string, log *slog.Logger) (*Pods, error) {
	client, err := metadata.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("find the cluster for the metadata of pods: %w", err)
	}
	resource := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	here := fields.OneTermEqualSelector("spec.nodeName", node).String()
	p := &Pods{log: log}
	p.informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = here
			return resource.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = here
			return resource.Watch(ctx, o)
		},
	}, &metav1.PartialObjectMetadata{}, 0, cache.Indexers{})
	changed := func() { p.version.Add(1) }
	_, err = p.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(_, _ any) { changed() },
		DeleteFunc: func(any) { changed() },
	})
	err = errors.Join(err,
		p.informer.SetTransform(slim),
		p.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			p.failing.Do(func() {
				p.log.Warn("the metadata of pods cannot be read; records carry what their path says: permit listing and watching pods", "error", err)
			})
		}))
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	return p, nil
}

// slim keeps of an object what a record carries.
func slim(o any) (any, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	kept := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels,
	}}
	for k, v := range m.Annotations {
		if len(v) <= maxAnnotation {
			metav1.SetMetaDataAnnotation(&kept.ObjectMeta, k, v)
		}
	}
	if owner := metav1.GetControllerOf(m); owner != nil {
		kept.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return kept, nil
}

// Run watches until the context ends.
func (p *Pods) Run(ctx context.Context) {
	p.informer.RunWithContext(klog.NewContext(ctx, logr.FromSlogHandler(debugging{p.log.Handler()})))
}

// debugging lowers what client-go logs: what a user can act on is told by us.
type debugging struct{ slog.Handler }

func (d debugging) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	if !d.Enabled(ctx, r.Level) {
		return nil
	}
	return d.Handler.Handle(ctx, r)
}

// Version changes when the metadata of any pod does.
func (p *Pods) Version() uint64 { return p.version.Load() }

// Find returns a pod's metadata, nil where it is not known. An empty uid takes
// the pod of that name as it is now.
func (p *Pods) Find(namespace, name, uid string) *Pod {
	o, ok, err := p.informer.GetStore().GetByKey(namespace + "/" + name)
	if !ok || err != nil {
		return nil
	}
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok || uid != "" && uid != string(m.UID) && m.Annotations["kubernetes.io/config.hash"] != uid {
		return nil // another pod under that name; a static pod's folder has its hash
	}
	pod := &Pod{UID: string(m.UID), Labels: m.Labels, Annotations: m.Annotations}
	if len(m.OwnerReferences) > 0 {
		pod.ownerKind, pod.ownerName = strings.ToLower(m.OwnerReferences[0].Kind), m.OwnerReferences[0].Name
	}
	return pod
}
