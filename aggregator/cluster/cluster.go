package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"nines/pkg/metric"
	"nines/pkg/ops"
)

// Job is the label job that stock dashboards select these series by.
const Job = "kube-state-metrics"

// grace is for how long the last known objects are told after the connection
// to the API was lost: longer than a restart of an API server takes.
const grace = 5 * time.Minute

// pageSize is how many objects one list request asks for, as kubectl does.
const pageSize = 500

// Config says which cluster is read, and how often its state is told.
type Config struct {
	// Kubeconfig is a file; empty means the pod's service account, else
	// $KUBECONFIG, else ~/.kube/config, else no cluster at all.
	Kubeconfig string `yaml:"kubeconfig"`
	// Context of the kubeconfig; empty is its current one.
	Context string `yaml:"context"`
	// Interval between two tellings: 1 s to 2 min, so that series don't end.
	Interval time.Duration `yaml:"interval"`
	// NodeLabels are the labels of nodes that kube_node_labels carries.
	NodeLabels []string `yaml:"node_labels"`
	// MaxNodes bounds the nodes that are told; further ones, by name, are left
	// out, and a log line says so.
	MaxNodes int `yaml:"max_nodes"`
}

// DefaultConfig looks for a cluster and tells its nodes every 30 s.
func DefaultConfig() Config {
	return Config{Interval: 30 * time.Second, NodeLabels: DefaultNodeLabels, MaxNodes: 10_000}
}

// Validate names the field and the remedy.
func (c Config) Validate() error {
	var errs []error
	if c.Interval < time.Second || c.Interval > 2*time.Minute {
		errs = append(errs, fmt.Errorf("interval is %s: give 1s to 2m", c.Interval))
	}
	if c.MaxNodes < 1 {
		errs = append(errs, fmt.Errorf("max_nodes is %d: give at least 1", c.MaxNodes))
	}
	if len(c.NodeLabels) > 50 {
		errs = append(errs, fmt.Errorf("node_labels has %d entries: give at most 50", len(c.NodeLabels)))
	}
	return errors.Join(errs...)
}

// Sink takes what the cluster says at one time. An error is logged when it
// begins; the next telling is tried all the same.
type Sink func(ctx context.Context, at time.Time, families []metric.Family) error

// Watcher keeps the objects of one cluster and tells them.
type Watcher struct {
	cfg      Config
	log      *slog.Logger
	sink     Sink
	source   string // where access was found, in words; empty without a cluster
	informer cache.SharedIndexInformer
	failures prometheus.Counter

	sinkFailing, tooMany bool // told already; Run's own

	mu      sync.Mutex
	lost    time.Time     // guarded by mu: when the connection was lost, zero while it stands
	reached bool          // guarded by mu: a request succeeded at least once
	onState func(up bool) // guarded by mu: told of changes, for tests
}

// New finds the cluster. That there is none is no error: Run then says so once.
func New(cfg Config, sink Sink, log *slog.Logger, reg prometheus.Registerer) (*Watcher, error) {
	return newWatcher(cfg, sink, log, reg, newFinder())
}

func newWatcher(cfg Config, sink Sink, log *slog.Logger, reg prometheus.Registerer, f finder) (*Watcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	w := &Watcher{cfg: cfg, log: log, sink: sink, failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: metric.ClusterFailures,
		Help: "List and watch requests to the Kubernetes API that failed.",
	})}
	access, source, err := f.find(cfg)
	if errors.Is(err, ErrNone) {
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	client, params, err := newClient(access)
	if err != nil {
		return nil, fmt.Errorf("cluster: use %s: %w", source, err)
	}
	w.source = source
	w.informer = cache.NewSharedIndexInformerWithOptions(w.listWatch(client, params), &corev1.Node{}, cache.SharedIndexInformerOptions{ObjectDescription: "nodes"})
	if err := w.informer.SetTransform(func(o any) (any, error) {
		if n, ok := o.(*corev1.Node); ok {
			return slimNode(n, cfg.NodeLabels), nil
		}
		return o, nil
	}); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	// Failures of requests are counted where they happen.
	if err := w.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		w.log.Debug("the watch of nodes ended", "err", err)
	}); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := reg.Register(w.failures); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return w, nil
}

// newClient speaks of core/v1 objects alone: the full clientset would bring
// every API group into the program.
func newClient(access *rest.Config) (*rest.RESTClient, runtime.ParameterCodec, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, nil, err
	}
	c := rest.CopyConfig(access)
	c.APIPath = "/api"
	c.GroupVersion = &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.ContentType = "application/json"
	c.UserAgent = "nines-aggregator/" + ops.ReadBuild().Version
	client, err := rest.RESTClientFor(c)
	return client, runtime.NewParameterCodec(scheme), err
}

func (w *Watcher) listWatch(client *rest.RESTClient, params runtime.ParameterCodec) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			if o.Limit == 0 && o.ResourceVersion != "0" {
				o.Limit = pageSize
			}
			var nodes corev1.NodeList
			err := client.Get().Resource("nodes").VersionedParams(&o, params).Do(ctx).Into(&nodes)
			w.note(ctx, err)
			return &nodes, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			stream, err := client.Get().Resource("nodes").VersionedParams(&o, params).Watch(ctx)
			w.note(ctx, err)
			return stream, err
		},
	}
}

// note keeps what the newest request says about the connection.
func (w *Watcher) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // ended by us
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failures.Inc()
	}
	// An API that answers is connected; that it lacks streaming lists (before
	// Kubernetes 1.32) is found out by asking.
	up := err == nil || isUnsupported(err)
	switch {
	case up && !w.reached:
		w.log.Info("reading the cluster's nodes", "access", w.source)
	case up && !w.lost.IsZero():
		w.log.Info("the Kubernetes API answers again", "after", time.Since(w.lost).Round(time.Second))
	case !up && w.lost.IsZero():
		w.log.Warn("the Kubernetes API does not answer: check the access and that listing and watching nodes is permitted", "access", w.source, "err", err)
	}
	changed := up != (w.reached && w.lost.IsZero())
	if up {
		w.reached, w.lost = true, time.Time{}
	} else if w.lost.IsZero() {
		w.lost = time.Now()
	}
	if changed && w.onState != nil {
		w.onState(up)
	}
}

// Run reads the cluster until the context ends, and returns nil. It tells
// nothing before the first complete list.
func (w *Watcher) Run(ctx context.Context) error {
	if w.informer == nil {
		w.log.Info(ErrNone.Error()+": give cluster.kubeconfig, or run in a pod with a service account", "looked_for", "service account, $KUBECONFIG, ~/.kube/config")
		<-ctx.Done()
		return nil
	}
	var informing sync.WaitGroup
	defer informing.Wait()
	informing.Go(func() {
		w.informer.RunWithContext(klog.NewContext(ctx, logr.FromSlogHandler(quiet{w.log.Handler()})))
	})
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case at := <-tick.C:
			err := w.sink(ctx, at, w.Collect(at))
			if failing := err != nil; failing != w.sinkFailing {
				w.sinkFailing = failing
				if failing {
					w.log.Error("what the cluster says could not be stored", "err", err)
				} else {
					w.log.Info("what the cluster says is stored again")
				}
			}
		}
	}
}

// Collect returns the cluster's state as series: up, 1 while the API answers,
// and the nodes unless it has been silent for longer than the grace time. It
// returns nothing without a cluster. Not for two goroutines at once.
func (w *Watcher) Collect(now time.Time) []metric.Family {
	if w.informer == nil {
		return nil
	}
	w.mu.Lock()
	up := w.reached && w.lost.IsZero()
	told := up || w.reached && now.Sub(w.lost) <= grace
	w.mu.Unlock()
	synced := w.informer.HasSynced()
	families := []metric.Family{{Name: "up", Help: "1 while the Kubernetes API answers and its objects are known.", Type: metric.Gauge,
		Series: []metric.Series{{Value: truth(up && synced)}}}}
	if !told || !synced {
		return families
	}
	var nodes []*corev1.Node
	for _, o := range w.informer.GetStore().List() {
		if n, ok := o.(*corev1.Node); ok {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	tooMany := len(nodes) > w.cfg.MaxNodes
	if tooMany && !w.tooMany {
		w.log.Warn("more nodes than are told: raise cluster.max_nodes", "nodes", len(nodes), "told", w.cfg.MaxNodes)
	}
	w.tooMany = tooMany
	return append(families, nodeFamilies(nodes[:min(len(nodes), w.cfg.MaxNodes)])...)
}
