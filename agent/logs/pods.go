package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// ErrNoCluster says that neither a service account nor a kubeconfig was found.
var ErrNoCluster = errors.New("no Kubernetes access: neither a service account nor a kubeconfig was found")

// Pods watches this node's pods, and no others. Pods that are gone can be found
// until Retain forgets them, also after a restart.
//
// A pod takes 2 KiB for the most part and 80 KiB at worst, see Pod; a node has
// some hundred. Those that are gone are bounded by maxGone and maxGoneBytes.
type Pods struct {
	log     *slog.Logger
	client  rest.Interface
	node    string
	file    string // that keeps the metadata; empty: none does
	version atomic.Uint64
	synced  atomic.Bool

	mu        sync.Mutex          // guards all below
	byName    map[string][]*entry // by NAMESPACE/NAME; the newest last
	gone      int
	goneBytes int
	changed   bool            // the file is old
	unsaved   bool            // the file could not be written, and that was told
	trouble   string          // why pods cannot be read, in words; empty: they can
	told      map[string]bool // of the troubles since all was well
}

// entry is a pod that is there or was.
type entry struct {
	pod  *Pod
	left time.Time // when it went away; zero: it is there
}

const (
	// maxGone and maxGoneBytes bound the pods that are kept although they are
	// gone; beyond them the one that went first is forgotten.
	maxGone      = 4096
	maxGoneBytes = 16 << 20
	// goneAtLeast is how long a pod is kept that no file is of yet: files of a
	// short-lived one may be found after it.
	goneAtLeast = time.Minute
	// answerWithin is how long the API server may take to answer: its own bound
	// for a list (--request-timeout).
	answerWithin = time.Minute
)

// NewPods finds the cluster by the service account of the pod that this runs
// in, else by $KUBECONFIG or ~/.kube/config. ErrNoCluster if there is none. The
// metadata is kept across restarts in folder, which exists; empty: it is not.
func NewPods(node, folder string, log *slog.Logger) (*Pods, error) {
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
	return newPods(access, node, folder, log)
}

var coreV1 = schema.GroupVersion{Version: "v1"}

// codecs knows the objects that we ask for and no others.
var codecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(coreV1.WithKind("Pod"), &apiPod{})
	scheme.AddKnownTypeWithName(coreV1.WithKind("PodList"), &apiPodList{})
	metav1.AddToGroupVersion(scheme, coreV1)
	return serializer.NewCodecFactory(scheme)
}()

func newPods(access *rest.Config, node, folder string, log *slog.Logger) (*Pods, error) {
	access = rest.CopyConfig(access)
	access.APIPath, access.GroupVersion = "/api", &coreV1
	access.NegotiatedSerializer = codecs.WithoutConversion()
	access.ContentType, access.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	access.WarningHandlerWithContext = rest.NoWarnings{}
	client, err := rest.RESTClientFor(access)
	if err != nil {
		return nil, fmt.Errorf("find the cluster for the metadata of pods: %w", err)
	}
	p := &Pods{log: log, client: client, node: node, byName: map[string][]*entry{}, told: map[string]bool{}}
	if folder != "" {
		p.file = filepath.Join(folder, "pods.json")
		p.restore(time.Now())
	}
	return p, nil
}

// Run watches until the context ends. It is called once.
func (p *Pods) Run(ctx context.Context) {
	var keeping sync.WaitGroup
	if p.file != "" {
		keeping.Go(func() { p.keep(ctx) })
	}
	logger := logr.FromSlogHandler(debugging{p.log.Handler()})
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: p.list, WatchFuncWithContext: p.watch,
	}, noStreams{}), &apiPod{}, podStore{p}, cache.ReflectorOptions{Logger: &logger, Name: "pods of this node"}).
		RunWithContext(klog.NewContext(ctx, logger))
	keeping.Wait()
	if p.file != "" {
		p.save()
	}
}

func (p *Pods) keep(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.save()
		case <-ctx.Done():
			return
		}
	}
}

// noStreams has pods listed in pages. A stream of them, which client-go prefers,
// is for lists that are too long for that, and its wait for a server that is
// away does not end with the context.
type noStreams struct{}

func (noStreams) IsWatchListSemanticsUnSupported() bool { return true }

// debugging lowers what client-go logs: what a user can act on is told by us.
type debugging struct{ slog.Handler }

func (d debugging) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	if !d.Enabled(ctx, r.Level) {
		return nil
	}
	return d.Handler.Handle(ctx, r)
}

func (p *Pods) request(o *metav1.ListOptions) *rest.Request {
	o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", p.node).String()
	return p.client.Get().Resource("pods").VersionedParams(o, metav1.ParameterCodec)
}

var errNoAnswer = fmt.Errorf("it did not answer within %s", answerWithin)

// list asks for a page of pods.
func (p *Pods) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	within, cancel := context.WithTimeoutCause(ctx, answerWithin, errNoAnswer)
	defer cancel()
	page := &apiPodList{}
	err := p.request(&o).Do(within).Into(page)
	if cause := context.Cause(within); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		p.tell(ctx, err)
		return nil, err
	}
	return page, nil // all is well only when the watch stands, too
}

// watch asks for changes of pods.
func (p *Pods) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	within, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(answerWithin, func() { cancel(errNoAnswer) })
	w, err := p.request(&o).Watch(within)
	timer.Stop()
	if cause := context.Cause(within); err != nil && cause != nil {
		err = cause
	}
	if _, ok := w.(*watch.StreamWatcher); err == nil && !ok {
		// client-go has an empty watch where the connection broke.
		w.Stop()
		err = errors.New("the connection broke before it answered")
	}
	p.tell(ctx, err)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return watching{w, cancel}, nil
}

// watching gives its context back when it is stopped.
type watching struct {
	watch.Interface
	cancel context.CancelCauseFunc
}

func (w watching) Stop() {
	w.Interface.Stop()
	w.cancel(nil)
}

// tell logs when pods cannot be read, why and what to do, and when they can
// again: each once.
func (p *Pods) tell(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // the end, or a page or watch that is begun anew
	}
	why := ""
	switch {
	case err == nil:
	case apierrors.IsForbidden(err):
		why = "this user is not permitted to: grant the verbs list and watch on the resource pods (RBAC: a ClusterRole, and a ClusterRoleBinding to the agent's service account)"
	case apierrors.IsUnauthorized(err):
		why = "the API server does not accept our credentials: renew the service account's token or the kubeconfig"
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsServiceUnavailable(err), errors.Is(err, errNoAnswer):
		why = "the API server is too slow or overloaded: look at its load; it is asked again, with growing pauses"
	case errors.As(err, new(apierrors.APIStatus)):
		why = "the API server refuses: the error says why; it is asked again, with growing pauses"
	default:
		why = "the API server cannot be reached: check its address, its certificate and the network from here; it is asked again, with growing pauses"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = why
	switch {
	case why == "":
		if len(p.told) > 0 {
			p.log.Info("the metadata of pods can be read again")
		}
		p.told = map[string]bool{}
	case !p.told[why]:
		p.told[why] = true
		p.log.Warn("the metadata of pods cannot be read; records carry what was known before, or what their path says", "why", why, "error", err)
	}
}

// Trouble says why pods cannot be read and what to do; empty: they can.
func (p *Pods) Trouble() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble
}

// Version changes when the metadata of any pod does.
func (p *Pods) Version() uint64 { return p.version.Load() }

// Synced says whether the pods of this node were listed once: a pod that cannot
// be found then is one that the API server did not know.
func (p *Pods) Synced() bool { return p.synced.Load() }

// Find returns a pod's metadata, nil where it is not known. The uid is the one
// in the pod's folder; an empty one takes the newest pod of that name.
func (p *Pods) Find(namespace, name, uid string) *Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.byName[namespace+"/"+name]
	for _, e := range slices.Backward(list) {
		// A static pod's folder has its hash, and outlives the pod of the API server.
		if uid == "" && e.left.IsZero() || uid != "" && (uid == e.pod.UID || uid == e.pod.Hash) {
			return e.pod
		}
	}
	if uid == "" && len(list) > 0 {
		return list[len(list)-1].pod
	}
	return nil
}

// Retain forgets the pods that are gone and not in use any more. The uid that
// inUse is asked for is that in the name of the pod's folder; it has to speak for
// all that call Find. One goroutine calls Retain now and then.
func (p *Pods) Retain(inUse func(namespace, name, uid string) bool) {
	if !p.Synced() {
		return // which pods are gone is not known yet
	}
	now := time.Now()
	var old []*entry
	p.mu.Lock()
	for _, list := range p.byName {
		for _, e := range list {
			if !e.left.IsZero() && now.Sub(e.left) >= goneAtLeast {
				old = append(old, e)
			}
		}
	}
	p.mu.Unlock()
	// Asked without our lock: whoever answers may hold one, and want ours.
	old = slices.DeleteFunc(old, func(e *entry) bool {
		pod := e.pod
		if pod.Hash != "" {
			return inUse(pod.Namespace, pod.Name, pod.Hash)
		}
		return inUse(pod.Namespace, pod.Name, pod.UID)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range old {
		p.forget(e)
	}
}

// put takes a pod as one that is there; others of its name are gone. Caller
// holds mu.
func (p *Pods) put(pod *Pod, now time.Time) {
	for _, e := range slices.Clone(p.byName[pod.key()]) {
		if e.pod.UID != pod.UID {
			p.leave(e, now)
		}
	}
	p.enter(pod)
}

// enter takes a pod as one that is there. Caller holds mu.
func (p *Pods) enter(pod *Pod) *entry {
	list := p.byName[pod.key()]
	at := slices.IndexFunc(list, func(e *entry) bool { return e.pod.UID == pod.UID })
	var e *entry
	if at < 0 {
		e = &entry{pod: pod}
		p.byName[pod.key()] = append(list, e)
	} else {
		e = list[at]
		pod.inherit(e.pod)
		if e.left.IsZero() && reflect.DeepEqual(e.pod, pod) {
			return e // what records do not carry changes often
		}
		if !e.left.IsZero() {
			p.gone--
			p.goneBytes -= e.pod.size()
		}
		e.pod, e.left = pod, time.Time{}
	}
	p.changed = true
	p.version.Add(1)
	return e
}

// leave moves a pod to those that are gone. Caller holds mu.
func (p *Pods) leave(e *entry, now time.Time) {
	if !e.left.IsZero() {
		return
	}
	e.left = now
	p.gone++
	p.goneBytes += e.pod.size()
	p.changed = true
	for p.gone > maxGone || p.goneBytes > maxGoneBytes {
		var first *entry
		for _, list := range p.byName {
			for _, e := range list {
				if !e.left.IsZero() && (first == nil || e.left.Before(first.left)) {
					first = e
				}
			}
		}
		p.forget(first)
	}
}

// forget drops a pod that is gone, unless it came back. Caller holds mu.
func (p *Pods) forget(e *entry) {
	key := e.pod.key()
	list := p.byName[key]
	at := slices.Index(list, e)
	if at < 0 || e.left.IsZero() {
		return
	}
	p.gone--
	p.goneBytes -= e.pod.size()
	if p.byName[key] = slices.Delete(list, at, at+1); len(list) == 1 {
		delete(p.byName, key)
	}
	p.changed = true
}

// podStore takes what the client lists and watches.
type podStore struct{ p *Pods }

func (s podStore) each(do func(pod *Pod, now time.Time), objects ...any) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for _, o := range objects {
		pod, ok := o.(*apiPod)
		if !ok {
			return fmt.Errorf("a pod was expected and %T came", o)
		}
		do(slim(pod), time.Now())
	}
	return nil
}

// Add takes a pod that is new.
func (s podStore) Add(o any) error { return s.each(s.p.put, o) }

// Update takes a pod that did change.
func (s podStore) Update(o any) error { return s.each(s.p.put, o) }

// Delete takes a pod that is gone, as it was at last.
func (s podStore) Delete(o any) error {
	return s.each(func(pod *Pod, now time.Time) { s.p.leave(s.p.enter(pod), now) }, o)
}

// Replace takes all pods that are there.
func (s podStore) Replace(all []any, _ string) error {
	there := map[string]bool{}
	if err := s.each(func(pod *Pod, now time.Time) {
		s.p.put(pod, now)
		there[pod.UID] = true
	}, all...); err != nil {
		return err
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	now := time.Now()
	var left []*entry
	for _, list := range s.p.byName {
		for _, e := range list {
			if !there[e.pod.UID] {
				left = append(left, e)
			}
		}
	}
	for _, e := range left { // leave may forget others
		s.p.leave(e, now)
	}
	if !s.p.synced.Swap(true) {
		s.p.version.Add(1) // those who wait for it look again
		if len(all) == 0 {
			s.p.log.Warn("no pod runs on this node, as the API server has it; records of pods carry what their path says: set node to the name that kubectl get nodes shows", "node", s.p.node)
		}
	}
	return nil
}

// Resync is asked for by nobody.
func (s podStore) Resync() error { return nil }
