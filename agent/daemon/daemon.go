// Package daemon is the agent as a whole: its file, its wiring, its tick, its
// HTTP pages and its command line.
//
// It owns the order in which parts are acquired, started, stopped and given
// back. It refuses work of its own: reading is collect's, sending forward's,
// logs are those of logs and ship. Configuration enters as a file; the one
// function tick shows what happens to samples.
package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/collect/node"
	"nines/agent/forward"
	"nines/pkg/metric"
	"nines/pkg/ops"
)

// Daemon is a running agent, or one that is about to run.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	lock      *ops.FolderLock
	listener  net.Listener
	memory    *memory
	collector *node.Collector
	forwarder *forward.Forwarder // nil: samples are not sent
	cluster   *cluster           // nil: nobody asks the API server, or there is none
	sources   *sources
	logs      *pipelines // nil: no logs are followed

	set    *metrics.Set
	health *ops.Health
	ticked *ops.Job

	nodeLabels, ownLabels, containerLabels []metric.Label // of samples of the node, the agent, and containers without a kubelet

	heartbeats, ticksOK, ticksFailed, ticksMissed *metrics.Counter
	tickSeconds                                   *metrics.Gauge
	failure                                       string // of the newest tick, told when it changes
}

// New acquires all that the agent needs: the state folder, the address, the
// queue. Whatever fails gives back what was acquired before it.
func New(cfg Config, log *slog.Logger) (d *Daemon, err error) {
	d = &Daemon{cfg: cfg, log: log, started: time.Now(), set: metrics.NewSet(), health: ops.NewHealth()}
	defer func() {
		if err != nil {
			err = errors.Join(ops.Remedy(err), d.giveBack())
			d = nil
		}
	}()
	if d.lock, err = ops.LockFolder(cfg.State); err != nil {
		return d, fmt.Errorf("state: %w", err)
	}
	if d.listener, err = ops.Listen("listen", cfg.Listen); err != nil {
		return d, err
	}
	host := cfg.Metrics.Node
	// A tick that waits for the kernel must leave time for the rest of it.
	host.Timeout = min(host.Timeout, cfg.Metrics.Interval*8/10)
	if d.memory, err = recall(cfg.State, host.Proc); err != nil {
		return d, fmt.Errorf("state: %w", err)
	}
	if err := d.memory.save(); err != nil {
		log.Warn("state cannot be written; the agent runs on without", "error", err)
	}
	host.Boot = d.memory.boot()
	if d.collector, err = node.New(host, log); err != nil {
		return d, err
	}
	if len(cfg.Metrics.SendTo) > 0 {
		f := forward.DefaultConfig()
		f.SendTo, f.MaxBytes, f.MaxAge = cfg.Metrics.SendTo, int64(cfg.Metrics.Queue), cfg.Metrics.QueueAge
		f.Agent = "nines-agent/" + ops.ReadBuild().Version
		if d.forwarder, err = forward.New(f, filepath.Join(cfg.State, "metrics"), log, d.set); err != nil {
			return d, err
		}
	}
	if d.cluster, err = findCluster(cfg, log); err != nil {
		return d, err
	}
	if d.logs, err = newLogs(cfg, d.cluster, log, d.set); err != nil {
		return d, err
	}
	if d.sources, err = d.newSources(); err != nil {
		return d, err
	}
	d.register()
	return d, nil
}

// register makes the agent's own series, which exist from the start.
func (d *Daemon) register() {
	build := ops.ReadBuild()
	d.set.NewGauge(fmt.Sprintf("%s{version=%q,revision=%q,go_version=%q}", metric.AgentBuildInfo, build.Version, build.Revision, build.GoVersion),
		func() float64 { return 1 })
	d.heartbeats = d.set.NewCounter(metric.AgentHeartbeats)
	d.ticksOK = d.set.NewCounter(metric.AgentTicks + `{result="ok"}`)
	d.ticksFailed = d.set.NewCounter(metric.AgentTicks + `{result="failed"}`)
	d.ticksMissed = d.set.NewCounter(metric.AgentTicksMissed)
	d.tickSeconds = d.set.NewGauge(metric.AgentTickDuration, nil)
	// Two intervals and a file system that hangs are still in time.
	d.ticked = d.health.Register("tick", 2*d.cfg.Metrics.Interval+10*time.Second)

	who := func(job string) []metric.Label {
		return metric.Labels("job", job, "instance", d.cfg.Node, "cluster", d.cfg.Cluster, "node", d.cfg.Node)
	}
	d.nodeLabels, d.ownLabels = who("node-exporter"), who("nines-agent")
	// As if a kubelet had answered: dashboards select on these.
	d.containerLabels = metric.Merge(who("kubelet"), metric.Labels("metrics_path", "/metrics/cadvisor"))
}

// Address is where the agent listens.
func (d *Daemon) Address() net.Addr { return d.listener.Addr() }

// Run works until the context ends or a part fails, and then stops the parts
// in the order in which data flows, so that what is under way still leaves:
// logs and sources first, then a last tick with their final figures, then the queue.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()

	var first, rest sync.WaitGroup
	if d.logs != nil {
		first.Go(func() { failWith(fail, "logs", d.logs.Run(ctx)) })
	}
	if d.cluster != nil {
		first.Go(func() { d.cluster.pods.Run(ctx) })
	}
	for name, run := range d.sources.runs {
		first.Go(func() { failWith(fail, name, run(ctx)) })
	}
	if d.forwarder != nil {
		rest.Go(func() { failWith(fail, "forward", d.forwarder.Run(behind)) })
	}
	rest.Go(func() { failWith(fail, "serve", d.serve(behind)) })
	d.log.Info("agent runs", "node", d.cfg.Node, "cluster", d.cfg.Cluster, "listen", "http://"+d.Address().String(), "state", d.cfg.State)

	settled := time.AfterFunc(d.cfg.Metrics.Interval+10*time.Second, func() { dropStart(d.log) })
	d.everyInterval(ctx)
	settled.Stop()
	d.log.Info("agent stops")
	first.Wait()
	d.tick(time.Now())
	stopBehind()
	rest.Wait()

	err := d.giveBack()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return ops.Remedy(err)
}

func failWith(fail context.CancelCauseFunc, part string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		fail(fmt.Errorf("%s: %w", part, err))
	}
}

// giveBack returns what New acquired and Run has not returned yet.
func (d *Daemon) giveBack() error {
	var errs []error
	if d.listener != nil {
		if err := d.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if d.sources != nil {
		errs = append(errs, d.sources.close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Unlock())
	}
	return errors.Join(errs...)
}

// everyInterval ticks once at the start and then at fixed times, until the
// context ends. A time that passes while a tick still runs is missed, not made
// up for.
func (d *Daemon) everyInterval(ctx context.Context) {
	offset := phase(d.cfg.Node, d.cfg.Metrics.Interval)
	due := time.Now()
	for {
		d.tick(time.Now())
		next := nextTick(time.Now(), d.cfg.Metrics.Interval, offset)
		if missed := int(next.Sub(due)/d.cfg.Metrics.Interval) - 1; missed > 0 {
			d.ticksMissed.Add(missed)
			d.log.Warn("ticks were missed", "missed", missed)
		}
		due = next
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// phase spreads the agents of a cluster over the first half of the interval,
// each always at the same place: they don't send all at once, and a tick that
// comes late does not slip into the next minute.
func phase(node string, interval time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(node)) // never fails
	return time.Duration(h.Sum32()) % (interval / 2)
}

// nextTick returns the first time after now that is offset past a multiple of
// the interval, but none within half an interval.
func nextTick(now time.Time, interval, offset time.Duration) time.Time {
	next := now.Add(-offset).Truncate(interval).Add(offset)
	for next.Sub(now) < interval/2 {
		next = next.Add(interval)
	}
	return next
}

// tick is the agent's work: the node is read, the minute is counted, and both
// the node's samples and the agent's own are put into the queue on disk.
func (d *Daemon) tick(now time.Time) {
	began := time.Now()
	fams := d.collector.Collect(now)
	collected := time.Since(began)
	err := d.countHeartbeat(now)
	if d.forwarder != nil {
		own, ownErr := d.own()
		own = forwarded(own)
		err = errors.Join(err, ownErr, d.queue(now, d.nodeLabels, answered(fams, collected)), d.queue(now, d.ownLabels, answered(own, time.Since(began)-collected)))
		if d.sources.cgroups != nil {
			before := time.Since(began)
			containers := d.sources.cgroups.Collect(now)
			err = errors.Join(err, d.queue(now, d.containerLabels, answered(containers, time.Since(began)-before)))
		}
	}
	d.tickSeconds.Set(time.Since(began).Seconds())
	d.report(err)
}

// answered adds what a scraper says of a target: that it answered, how long it
// took, and with how many samples. Dashboards and alerts ask for them.
func answered(fams []metric.Family, took time.Duration) []metric.Family {
	one := func(name, unit, help string, v float64) metric.Family {
		return metric.Family{Name: name, Type: metric.Gauge, Unit: unit, Help: help, Series: []metric.Series{{Value: v}}}
	}
	n := float64(metric.Count(fams))
	return append(fams,
		one("scrape_duration_seconds", "seconds", "How long reading took.", took.Seconds()),
		one("scrape_samples_post_metric_relabeling", "", "Samples that were read and kept.", n),
		one("scrape_samples_scraped", "", "Samples that were read.", n),
		one("up", "", "1 where it could be read, else 0.", 1))
}

// queue puts samples into the queue on disk.
func (d *Daemon) queue(now time.Time, who []metric.Label, fams []metric.Family) error {
	if err := d.forwarder.Append(now, who, fams); err != nil {
		return fmt.Errorf("%s: %w", jobOf(who), err)
	}
	return nil
}

func jobOf(labels []metric.Label) string {
	for _, l := range labels {
		if l.Name == "job" {
			return l.Value
		}
	}
	return ""
}

// countHeartbeat counts the first collection of each UTC minute.
func (d *Daemon) countHeartbeat(now time.Time) error {
	first, err := d.memory.beat(now)
	if first {
		d.heartbeats.Inc()
	}
	return err
}

// report counts the tick, answers for it in /readyz and tells changes.
func (d *Daemon) report(err error) {
	d.ticked.Report(err)
	if err == nil {
		d.ticksOK.Inc()
		if d.failure != "" {
			d.log.Info("ticks do their job again")
		}
		d.failure = ""
		return
	}
	d.ticksFailed.Inc()
	if d.failure != err.Error() {
		d.failure = err.Error()
		d.log.Error("tick failed", "error", err)
	}
}

// own returns the agent's own series, its counters with the start of the
// process as start timestamp.
func (d *Daemon) own() ([]metric.Family, error) {
	var b bytes.Buffer
	d.set.WritePrometheus(&b)
	metrics.WriteProcessMetrics(&b)
	fams, err := metric.ParseText(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("read own metrics: %w", err)
	}
	metric.Describe(fams)
	for i := range fams {
		f := &fams[i]
		if f.Type == metric.Unknown {
			// Those of the Go runtime and the process come without a type.
			switch {
			case strings.HasSuffix(f.Name, "_total"):
				f.Type = metric.Counter
			case strings.HasSuffix(f.Name, "_bucket"), strings.HasSuffix(f.Name, "_sum"), strings.HasSuffix(f.Name, "_count"):
			default:
				f.Type = metric.Gauge
			}
		}
		if f.Type == metric.Counter {
			for j := range f.Series {
				f.Series[j].Start = d.started.UnixMilli()
				if metric.LogSinceBirth(f.Name) {
					f.Series[j].Start = d.memory.Born
				}
			}
		}
	}
	return fams, nil
}

// forwarded leaves out the insides of the Go runtime: they are served for the
// rare case, but not worth storing for every node.
func forwarded(fams []metric.Family) []metric.Family {
	var out []metric.Family
	for _, f := range fams {
		switch {
		case strings.HasPrefix(f.Name, "nines_"), strings.HasPrefix(f.Name, "process_"),
			f.Name == "go_info", f.Name == "go_goroutines", f.Name == "go_memstats_heap_inuse_bytes", f.Name == "go_gc_cpu_seconds_total":
			out = append(out, f)
		}
	}
	return out
}

// serve answers HTTP until the context ends.
func (d *Daemon) serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           d.pages(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(d.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil {
		// A client holds on; it has had its time.
		if err := server.Close(); err != nil {
			return err
		}
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

const indexPage = `nines-agent %s on node %s of cluster %s

/metrics               about the agent
/metrics/node          about the node
/metrics/pods          newest samples of scraped targets, pods among them, and of the kubelet
/metrics/probes        newest result of each probe
/metrics/containers    containers by their cgroups, where no kubelet is asked
/healthz               does it run
/readyz                did its newest tick do its job
/api/nines/v1/targets  which pods are scraped, and which are not and why
/api/nines/v1/logs     what became of every byte of every log
`

func (d *Daemon) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", d.health.ServeHealthz)
	mux.HandleFunc("GET /readyz", d.health.ServeReadyz)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fams, err := d.own()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		d.page(w, fams)
	})
	mux.HandleFunc("GET /metrics/node", func(w http.ResponseWriter, _ *http.Request) {
		d.page(w, d.collector.Collect(time.Now()))
	})
	mux.HandleFunc("GET /metrics/containers", func(w http.ResponseWriter, _ *http.Request) {
		if d.sources.cgroups == nil {
			http.Error(w, "containers are not read from their cgroups here: metrics.cgroups.enabled, and whether the kubelet is asked instead, say so; the kubelet's pages are part of /metrics/pods", http.StatusNotFound)
			return
		}
		d.page(w, d.sources.cgroups.Collect(time.Now()))
	})
	mux.Handle("GET /metrics/pods", d.sources.scraper)
	mux.Handle("GET /metrics/probes", d.sources.prober)
	mux.HandleFunc("GET /api/nines/v1/targets", d.serveTargets)
	mux.HandleFunc("GET /api/nines/v1/logs", d.serveLogStatus)
	mux.HandleFunc("POST /api/nines/v1/logs/redrive", d.serveRedrive)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		// A reader that went away needs no answer.
		_, _ = fmt.Fprintf(w, indexPage, ops.ReadBuild().Version, d.cfg.Node, d.cfg.Cluster)
	})
	return mux
}

func (d *Daemon) page(w http.ResponseWriter, fams []metric.Family) {
	w.Header().Set("Content-Type", metric.ContentType)
	if err := metric.WriteText(w, fams); err != nil {
		d.log.Debug("a reader of metrics went away", "error", err)
	}
}
