package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/storage"

	"nines/agent/collect/cgroup"
	"nines/agent/collect/kubelet"
	"nines/agent/collect/node"
	"nines/agent/collect/otlp"
	"nines/agent/collect/probe"
	"nines/agent/collect/scrape"
	"nines/agent/collect/targets"
	"nines/agent/forward"
	"nines/agent/pods"
	"nines/pkg/metric"
	"nines/pkg/ops"
)

// Metrics says what is collected, how often, and where the samples go.
type Metrics struct {
	Interval time.Duration         `yaml:"interval"` // of the node, and of what names none of its own; from 1s to 1m
	SendTo   []forward.Destination `yaml:"send_to"`  // empty: samples are served, not sent
	Queue    ops.Size              `yaml:"queue"`    // on disk, for destinations that do not answer; the oldest samples go first beyond it

	// QueueAge is how old a sample may be when it is sent: what the destinations
	// take. 0: any age.
	QueueAge time.Duration `yaml:"queue_age"`

	Node    node.Config    `yaml:"node"`
	Kubelet kubelet.Config `yaml:"kubelet"`
	Cgroups cgroup.Config  `yaml:"cgroups"`
	Pods    targets.Config `yaml:"pods"`
	Scrape  scrape.Config  `yaml:"scrape"`
	Probes  probe.Config   `yaml:"probes"`
	OTLP    otlp.Config    `yaml:"otlp"`
}

func defaultMetrics() Metrics {
	return Metrics{
		Interval: 15 * time.Second,
		SendTo:   []forward.Destination{{URL: "http://127.0.0.1:9190/api/v1/write"}},
		Queue:    ops.Size(forward.DefaultConfig().MaxBytes),
		QueueAge: forward.DefaultConfig().MaxAge,
		Node:     node.DefaultConfig(),
		Kubelet:  kubelet.DefaultConfig(),
		Cgroups:  cgroup.DefaultConfig(),
		Pods:     targets.DefaultConfig(),
		Scrape:   scrape.DefaultConfig(),
		Probes:   probe.DefaultConfig(),
		OTLP:     otlp.DefaultConfig(),
	}
}

// The heartbeat counts UTC minutes in which the agent collected, so it must
// collect in each.
const (
	minInterval = time.Second
	maxInterval = time.Minute
)

// Validate names the key that is wrong, below metrics, and the remedy.
func (m Metrics) Validate() error {
	send := forward.DefaultConfig()
	send.SendTo = m.SendTo
	if m.QueueAge != 0 && m.QueueAge < time.Minute {
		return fmt.Errorf("queue_age is %v: give a minute or more, as long as the destinations take late samples, or 0 for any age", m.QueueAge)
	}
	if err := send.Validate(); err != nil {
		return err
	}
	switch {
	case m.Interval < minInterval || m.Interval > maxInterval:
		return fmt.Errorf("interval is %v: choose from %v to %v; the heartbeat needs one tick in each minute", m.Interval, minInterval, maxInterval)
	case m.OTLP.Enabled() && len(m.SendTo) == 0:
		return errors.New("otlp takes metrics, but send_to is empty: name a destination, or leave otlp.http and otlp.grpc empty")
	case m.Queue < forward.MinBytes:
		return fmt.Errorf("queue is %v: give at least %v, some ticks of a large node", m.Queue, ops.Size(forward.MinBytes))
	}
	for _, part := range []struct {
		key   string
		check interface{ Validate() error }
	}{
		{"node", m.Node}, {"kubelet", m.Kubelet}, {"cgroups", m.Cgroups}, {"pods", m.Pods}, {"scrape", m.Scrape}, {"probes", m.Probes}, {"otlp", m.OTLP},
	} {
		if err := part.check.Validate(); err != nil {
			return fmt.Errorf("%s.%w", part.key, err)
		}
	}
	return nil
}

// pods says whether pods are looked for that ask to be scraped: in a cluster,
// where somebody wants it.
func (m Metrics) pods() bool {
	return inCluster() && (m.Pods.Annotations || m.Pods.PodMonitors)
}

// inCluster says whether this host is told to be a node: Kubernetes sets the one
// variable in a pod, whoever starts the agent the other. That ~/.kube/config is
// there does not say so: it is on the desks of people.
func inCluster() bool {
	return os.Getenv("KUBERNETES_SERVICE_HOST") != "" || os.Getenv("KUBECONFIG") != ""
}

// cluster is the way to the API server, and the one watch of this node's pods
// that logs and targets share.
type cluster struct {
	access *pods.Access
	pods   *pods.Watch[pods.Pod]
}

// findCluster returns nil where nobody asks, or where there is no access: logs
// of containers then carry what their path says.
func findCluster(cfg Config, log *slog.Logger) (*cluster, error) {
	if !cfg.Logs.containers() && !cfg.Metrics.pods() {
		return nil, nil
	}
	access, err := pods.Find()
	if errors.Is(err, pods.ErrNoCluster) {
		return nil, nil
	}
	if err != nil {
		log.Warn("pods are not known: their records carry no labels, and none is scraped", "error", err)
		return nil, nil
	}
	return &cluster{access, pods.NewPods(access, cfg.Node, log)}, nil
}

// sources are what runs on a clock of its own, beside the tick.
type sources struct {
	scraper *scrape.Scraper
	prober  *probe.Prober
	targets *targets.Targets  // nil: no pods are looked for
	cgroups *cgroup.Collector // nil: the kubelet is asked, or they are switched off
	otlp    *otlp.Receiver    // nil: off
	// runs are their loops, by name. Each ends with its context.
	runs map[string]func(context.Context) error
}

func (s *sources) close() error {
	if s.otlp != nil {
		return s.otlp.Close()
	}
	return nil
}

// newSources prepares them all. Their samples carry the cluster and the node.
func (d *Daemon) newSources() (s *sources, err error) {
	m := d.cfg.Metrics
	s = &sources{runs: map[string]func(context.Context) error{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	where := metric.Labels("cluster", d.cfg.Cluster, "node", d.cfg.Node)
	var sink storage.AppendableV2 = forward.Discard{}
	queue := func(time.Time, []metric.Label, []metric.Family) error { return nil }
	if d.forwarder != nil {
		sink = d.forwarder.Sink(where)
		queue = func(t time.Time, extra []metric.Label, fams []metric.Family) error {
			return d.forwarder.Append(t, metric.Merge(extra, where), fams)
		}
	}
	m.Scrape.Interval = m.Interval
	if s.scraper, err = scrape.New(m.Scrape, sink, d.log, d.set); err != nil {
		return s, fmt.Errorf("metrics.scrape: %w", err)
	}
	s.runs["scrape"] = s.scraper.Run
	if s.prober, err = probe.New(m.Probes, queue, d.log, d.set); err != nil {
		return s, fmt.Errorf("metrics.probes: %w", err)
	}
	s.runs["probes"] = s.prober.Run
	if m.Kubelet.On() {
		k, err := kubelet.New(m.Kubelet, d.cfg.Node, queue, d.log, d.set)
		if err != nil {
			return s, fmt.Errorf("metrics.kubelet: %w", err)
		}
		jobs, err := k.Jobs()
		if err == nil {
			err = s.scraper.Set("kubelet", jobs)
		}
		if err != nil {
			return s, fmt.Errorf("metrics.kubelet: %w", err)
		}
		s.runs["kubelet"] = k.Run
	}
	if m.Cgroups.On(m.Kubelet.On()) {
		if s.cgroups, err = cgroup.New(m.Cgroups, nil, d.log, d.set); err != nil {
			return s, fmt.Errorf("metrics.cgroups: %w", err)
		}
	}
	if d.cluster != nil && m.pods() {
		set := func(jobs []scrape.Job) error { return s.scraper.Set("pods", jobs) }
		if s.targets, err = targets.New(m.Pods, d.cfg.Node, d.cluster.access, set, d.log, d.set); err != nil {
			return s, fmt.Errorf("metrics.pods: %w", err)
		}
		d.cluster.pods.Add(s.targets.Pods())
		s.runs["pods"] = s.targets.Run
		ofMonitors := func() string { return "" }
		if m.Pods.PodMonitors {
			monitors := pods.NewPodMonitors(d.cluster.access, d.log)
			monitors.Add(s.targets.PodMonitors())
			ofMonitors = monitors.Trouble
			s.runs["PodMonitors"] = func(ctx context.Context) error {
				monitors.Run(ctx)
				return nil
			}
		}
		s.targets.Troubles(func() (string, string) { return d.cluster.pods.Trouble(), ofMonitors() })
	}
	if m.OTLP.Enabled() {
		if s.otlp, err = otlp.New(m.OTLP, sink, d.log, d.set); err != nil {
			return s, fmt.Errorf("metrics.otlp: %w", err)
		}
		s.runs["otlp"] = s.otlp.Run
	}
	return s, nil
}

// serveTargets says which pods are scraped, and which are not and why.
func (d *Daemon) serveTargets(w http.ResponseWriter, _ *http.Request) {
	status := targets.Status{Problems: []targets.Problem{}}
	if d.sources.targets != nil {
		status = d.sources.targets.Status()
	}
	d.answer(w, http.StatusOK, status)
}

// explainSources says what is collected beside the node, and what cannot be.
func explainSources(cfg Config, do, not func(string, ...any)) {
	m := cfg.Metrics
	if m.Kubelet.On() {
		do("ask the kubelet for its own figures and those of containers, pods, probes and volumes, every %v", m.Kubelet.Interval)
		if k, err := kubelet.New(m.Kubelet, cfg.Node, nil, slog.New(slog.DiscardHandler), metrics.NewSet()); err != nil {
			not("ask the kubelet: %v", err)
		} else {
			within, cancel := context.WithTimeout(context.Background(), m.Kubelet.Timeout)
			defer cancel()
			for _, p := range k.Check(within) {
				not("read %s of the kubelet: %v", p.Path, p.Err)
			}
		}
	}
	if m.Cgroups.On(m.Kubelet.On()) {
		do("read containers from their cgroups, since no kubelet is asked, and serve them at http://%s/metrics/containers", cfg.Listen)
	}
	if m.pods() {
		if access, err := pods.Find(); err != nil {
			not("find pods to scrape: %v", err)
		} else {
			within, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := access.Check(within, cfg.Node); err != nil {
				not("%v", err)
			}
			if m.Pods.PodMonitors {
				if err := access.CheckPodMonitors(within); err != nil {
					not("%v", err)
				}
			}
			do("scrape pods of this node that ask for it by annotations prometheus.io/scrape (%v) or a PodMonitor (%v)", m.Pods.Annotations, m.Pods.PodMonitors)
		}
	}
	m.Scrape.Interval = m.Interval
	if _, err := scrape.New(m.Scrape, forward.Discard{}, slog.New(slog.DiscardHandler), metrics.NewSet()); err != nil {
		not("scrape as metrics.scrape says: %v", err)
	}
	if n := len(m.Scrape.Configs); n > 0 {
		do("scrape the targets of this file (%d in the list metrics.scrape.configs), and serve their newest samples at http://%s/metrics/pods", n, cfg.Listen)
	}
	if n := len(m.Probes.Targets); n > 0 {
		do("probe %d targets every %v, and serve the newest results at http://%s/metrics/probes", n, m.Probes.Interval, cfg.Listen)
		if p, err := probe.New(m.Probes, nil, slog.New(slog.DiscardHandler), metrics.NewSet()); err == nil {
			for _, problem := range p.Problems() {
				not("probe all targets: %v", problem)
			}
		}
	}
	for name, address := range map[string]string{"HTTP": m.OTLP.HTTP, "gRPC": m.OTLP.GRPC} {
		if address != "" {
			do("take OpenTelemetry's metrics over %s at %s", name, address)
			if l, err := ops.Listen("metrics.otlp."+strings.ToLower(name), address); err != nil {
				not("take OpenTelemetry's metrics: %v", err)
			} else {
				_ = l.Close() // nobody connected
			}
		}
	}
}
