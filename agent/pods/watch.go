package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Listener is told of all objects, by one call at a time. What it was told
// stands while the API server cannot be asked. It must be quick, and must not
// change what it is given.
type Listener[T any] interface {
	Replace(all []*T) // takes what is there, and all of it
	Put(o *T)         // takes one that is new or did change
	Delete(o *T)      // takes one that is gone, as it was at last
}

// Watch tells listeners of the objects of one kind. Of what it was told it keeps
// nothing: a page of a list (500 objects) is the most that it holds.
type Watch[T any] struct {
	log    *slog.Logger
	client rest.Interface
	kind   kind

	telling   sync.Mutex // one call of the listeners at a time
	listeners []Listener[T]
	listed    bool // once

	mu      sync.Mutex      // guards all below
	trouble string          // why they cannot be read, in words; empty: they can
	told    map[string]bool // of the troubles since all was well
}

// kind is what a Watch is of.
type kind struct {
	resource string
	selector string // of fields
	name     string // for people, with a plural verb
	needed   string // rights
	empty    string // what it means that there are none at all; may be empty
	page     func() runtime.Object
	// missing is what it means that the API does not know the kind. Where it is
	// empty every server knows it.
	missing string
}

// missingPause is how long a kind is left alone that the API server does not
// know, or does not let us read although the agent can do without.
const missingPause = 5 * time.Minute

// NewPods is a watch of the pods of a node, and of no others.
func NewPods(a *Access, node string, log *slog.Logger) *Watch[Pod] {
	return newWatch[Pod](a.core, log.With("node", node), podsOf(node))
}

func podsOf(node string) kind {
	return kind{
		resource: "pods", name: "the pods of this node", page: func() runtime.Object { return &podList{} },
		selector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
		needed:   "the verbs list and watch on the resource pods",
		empty:    "no pod runs on this node, as the API server has it: set node to the name that kubectl get nodes shows",
	}
}

// NewPodMonitors is a watch of all PodMonitors of the cluster. Where the cluster
// has none, or they may not be read, that is told once, and they are looked for
// again every few minutes.
func NewPodMonitors(a *Access, log *slog.Logger) *Watch[PodMonitor] {
	return newWatch[PodMonitor](a.monitoring, log, podMonitors)
}

var podMonitors = kind{
	resource: "podmonitors", name: "PodMonitors", page: func() runtime.Object { return &podMonitorList{} },
	needed: "the verbs list and watch on the resource podmonitors of the group monitoring.coreos.com, or set metrics.pods.pod_monitors to false",
	missing: "this cluster does not know the kind PodMonitor, so no pod is scraped by one: if you use them, install the definitions of the Prometheus Operator (CRDs of monitoring.coreos.com); " +
		fmt.Sprintf("they are looked for again every %v", missingPause),
}

func newWatch[T any](client rest.Interface, log *slog.Logger, k kind) *Watch[T] {
	return &Watch[T]{log: log, client: client, kind: k, told: map[string]bool{}}
}

// Add has a listener told. It is called before Run.
func (w *Watch[T]) Add(l Listener[T]) { w.listeners = append(w.listeners, l) }

// Run watches until the context ends. It is called once.
func (w *Watch[T]) Run(ctx context.Context) {
	logger := logr.FromSlogHandler(debugging{w.log.Handler()})
	example, _ := any(new(T)).(runtime.Object)
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: w.list, WatchFuncWithContext: w.watch,
	}, noStreams{}), example, store[T]{w}, cache.ReflectorOptions{Logger: &logger, Name: w.kind.name}).
		RunWithContext(klog.NewContext(ctx, logger))
}

// Trouble says why the objects cannot be read and what to do; empty: they can.
func (w *Watch[T]) Trouble() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trouble
}

// noStreams has objects listed in pages. A stream of them, which client-go
// prefers, is for lists that are too long for that, and its wait for a server
// that is away does not end with the context.
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

func (k kind) request(client rest.Interface, o *metav1.ListOptions) *rest.Request {
	o.FieldSelector = k.selector
	return client.Get().Resource(k.resource).VersionedParams(o, metav1.ParameterCodec)
}

// list asks for a page.
func (k kind) list(ctx context.Context, client rest.Interface, o metav1.ListOptions) (runtime.Object, error) {
	within, cancel := context.WithTimeoutCause(ctx, answerWithin, errNoAnswer)
	defer cancel()
	page := k.page()
	err := k.request(client, &o).Do(within).Into(page)
	if cause := context.Cause(within); err != nil && cause != nil {
		err = cause
	}
	return page, err
}

// why says in words why they cannot be read; empty: they can.
func (k kind) why(err error) string {
	if k.missing != "" && apierrors.IsNotFound(err) {
		return k.missing
	}
	return why(err, k.needed)
}

func (w *Watch[T]) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	page, err := w.kind.list(ctx, w.client, o)
	if err != nil {
		w.failed(ctx, err)
		return nil, err
	}
	return page, nil // all is well only when the watch stands, too
}

// watch asks for changes.
func (w *Watch[T]) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	within, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(answerWithin, func() { cancel(errNoAnswer) })
	events, err := w.kind.request(w.client, &o).Watch(within)
	timer.Stop()
	if cause := context.Cause(within); err != nil && cause != nil {
		err = cause
	}
	if _, ok := events.(*watch.StreamWatcher); err == nil && !ok {
		// client-go has an empty watch where the connection broke.
		events.Stop()
		err = errors.New("the connection broke before it answered")
	}
	if err != nil {
		cancel(nil)
		w.failed(ctx, err)
		return nil, err
	}
	w.tell(ctx, nil)
	return watching{events, cancel}, nil
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

// failed tells of an error, and waits where asking again soon is of no use.
func (w *Watch[T]) failed(ctx context.Context, err error) {
	w.tell(ctx, err)
	if w.kind.missing == "" || !Refused(err) || ctx.Err() != nil {
		return
	}
	if apierrors.IsNotFound(err) {
		w.each(func(l Listener[T]) { l.Replace(nil) })
	}
	pause := time.NewTimer(missingPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

// tell logs when objects cannot be read, why and what to do, and when they can
// again: each once.
func (w *Watch[T]) tell(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // the end, or a page or watch that is begun anew
	}
	words, level := w.kind.why(err), slog.LevelWarn
	if words == w.kind.missing {
		level = slog.LevelInfo // both are empty where all is well
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble = words
	switch {
	case words == "":
		if len(w.told) > 0 {
			w.log.Info(w.kind.name + " can be read again")
		}
		w.told = map[string]bool{}
	case !w.told[words]:
		w.told[words] = true
		w.log.Log(ctx, level, w.kind.name+" cannot be read; what is known of them stands", "why", words, "error", err)
	}
}

func (w *Watch[T]) each(do func(Listener[T])) {
	w.telling.Lock()
	defer w.telling.Unlock()
	for _, l := range w.listeners {
		do(l)
	}
}

// store takes what the client lists and watches.
type store[T any] struct{ w *Watch[T] }

func (s store[T]) one(o any, do func(Listener[T], *T)) error {
	object, ok := o.(*T)
	if !ok {
		return fmt.Errorf("%T was expected and %T came", object, o)
	}
	s.w.each(func(l Listener[T]) { do(l, object) })
	return nil
}

// Add takes an object that is new.
func (s store[T]) Add(o any) error { return s.one(o, Listener[T].Put) }

// Update takes one that did change.
func (s store[T]) Update(o any) error { return s.one(o, Listener[T].Put) }

// Delete takes one that is gone, as it was at last.
func (s store[T]) Delete(o any) error { return s.one(o, Listener[T].Delete) }

// Replace takes all that are there.
func (s store[T]) Replace(all []any, _ string) error {
	objects := make([]*T, 0, len(all))
	for _, o := range all {
		object, ok := o.(*T)
		if !ok {
			return fmt.Errorf("%T was expected and %T came", object, o)
		}
		objects = append(objects, object)
	}
	s.w.each(func(l Listener[T]) { l.Replace(objects) })
	if !s.w.listed && len(all) == 0 && s.w.kind.empty != "" {
		s.w.log.Warn(s.w.kind.empty)
	}
	s.w.listed = true
	return nil
}

// Resync is asked for by nobody.
func (s store[T]) Resync() error { return nil }
