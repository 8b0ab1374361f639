// Package probe asks addresses whether they answer (HTTP, TCP and TLS, DNS,
// gRPC health, ICMP, unix sockets) and says what it found under the names of
// Prometheus' blackbox_exporter, whose probers and modules it uses, so that
// stock dashboards and rules work unchanged.
//
// It owns the clock of each target: targets are spread over their interval, and
// one that hangs delays no other, nor the end for longer than Grace. It refuses
// to queue or send. Targets enter with the configuration; each probe's families
// leave by Append as they are found, and the newest of every target by ServeHTTP.
package probe

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/blackbox_exporter/config"
	"github.com/prometheus/blackbox_exporter/prober"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/net/icmp"

	"nines/pkg/metric"
)

// probers are those of blackbox_exporter, but for gRPC: see probeGRPC.
var probers = map[string]prober.ProbeFn{
	"http": prober.ProbeHTTP,
	"tcp":  prober.ProbeTCP,
	"dns":  prober.ProbeDNS,
	"grpc": probeGRPC,
	"icmp": prober.ProbeICMP,
	"unix": prober.ProbeUnix,
}

// Append puts the families of one probe into the queue. The extra labels, which
// belong to all of them, are job, instance, module, target and the target's own.
type Append func(t time.Time, extra []metric.Label, fams []metric.Family) error

// Prober probes all targets, each on its own clock.
type Prober struct {
	append  Append
	log     *slog.Logger
	targets []*target
	slots   chan struct{} // one is held while a probe runs

	probing   sync.WaitGroup // goroutines of targets
	appending sync.WaitGroup // results that are handed over at this moment

	mu    sync.Mutex
	ended bool // Run returns: no result is taken any more; guarded by mu

	succeeded, failed, missed, notQueued, unfinished *metrics.Counter
}

// target is one address with what is known of it.
type target struct {
	address           string
	module            config.Module
	moduleName        string
	labels            []metric.Label
	interval, timeout time.Duration
	offset            time.Duration // of its probes past each multiple of the interval
	fn                prober.ProbeFn

	mu     sync.Mutex
	newest []metric.Family // without labels; nil before the first probe; guarded by mu

	// Of the goroutine of the target alone.
	down      time.Time // since when probes fail; zero while they succeed
	unqueued  bool      // the newest result could not be queued
	probeKind string    // name of the prober, for advice
}

// New prepares all targets. All counters exist from here on, at 0.
func New(cfg Config, queue Append, log *slog.Logger, set *metrics.Set) (*Prober, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	cfg.Modules = cfg.Modules.orDefault()
	concurrent := cfg.Concurrent
	if concurrent == 0 {
		concurrent = max(1, len(cfg.Targets))
	}
	p := &Prober{
		append: queue, log: log, slots: make(chan struct{}, concurrent),
		succeeded:  set.NewCounter(fmt.Sprintf("%s{result=%q}", metric.AgentProbes, metric.ProbeSucceeded)),
		failed:     set.NewCounter(fmt.Sprintf("%s{result=%q}", metric.AgentProbes, metric.ProbeFailed)),
		missed:     set.NewCounter(metric.AgentProbesMissed),
		notQueued:  set.NewCounter(metric.AgentProbesNotQueued),
		unfinished: set.NewCounter(metric.AgentProbesUnfinished),
	}
	set.NewGauge(metric.AgentProbesRunning, func() float64 { return float64(len(p.slots)) })
	set.NewGauge(metric.AgentProbeTargets, func() float64 { return float64(len(p.targets)) })
	for _, t := range cfg.Targets {
		module := bounded(cfg.Modules[t.module()])
		one := &target{
			address: t.Target, module: module, moduleName: t.module(), labels: cfg.labels(t),
			interval: cfg.interval(t), timeout: cfg.timeout(t), fn: probers[module.Prober], probeKind: module.Prober,
		}
		one.offset = phase(one.labels, one.interval)
		p.targets = append(p.targets, one)
	}
	for _, problem := range p.Problems() {
		log.Warn("some probes cannot succeed", "error", problem)
	}
	return p, nil
}

// labels are those that all series of a target carry: the ones that
// blackbox_exporter's usual relabelling makes, and module, because two modules
// on one address are two targets.
func (c Config) labels(t Target) []metric.Label {
	name := t.Name
	if name == "" {
		name = t.Target
	}
	own := make([]metric.Label, 0, len(t.Labels))
	for n, v := range t.Labels {
		if v != "" {
			own = append(own, metric.Label{Name: n, Value: v})
		}
	}
	return metric.Merge(metric.Labels("job", c.Job, "instance", t.Target, "module", t.module(), "target", name), own)
}

// phase spreads targets over their interval, each always at the same place.
func phase(labels []metric.Label, interval time.Duration) time.Duration {
	h := fnv.New64a()
	for _, l := range labels {
		fmt.Fprintf(h, "%q=%q", l.Name, l.Value) // never fails
	}
	return time.Duration(h.Sum64() % uint64(interval))
}

// Problems says what keeps targets from being probed on this host at all.
func (p *Prober) Problems() []error {
	for _, t := range p.targets {
		if t.probeKind == "icmp" {
			if err := pingAllowed(); err != nil {
				return []error{err}
			}
			return nil
		}
	}
	return nil
}

// pingAllowed tries the two kinds of sockets that a ping can use.
func pingAllowed() error {
	var errs []error
	for _, network := range []string{"udp4", "ip4:icmp"} {
		conn, err := icmp.ListenPacket(network, "0.0.0.0")
		if err == nil {
			return conn.Close()
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("this process may not send pings (%w): give it the capability NET_RAW (CAP_NET_RAW), or let its group open ping sockets: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\" on the host, or securityContext.sysctls in the pod", errors.Join(errs...))
}

// Run probes until the context ends, and then waits for the probes that are
// under way, for Grace at most. Most end at once; those that wait for bytes of a
// TCP connection, for a TLS handshake, for DNS or for the answer to a ping know
// their time-out alone. What is not over by then is left behind: its goroutine
// ends with the time-out of the probe, and what it finds is thrown away. Nothing
// is appended once Run has returned. It is called once.
func (p *Prober) Run(ctx context.Context) error {
	for _, t := range p.targets {
		p.probing.Go(func() { p.run(ctx, t) })
	}
	<-ctx.Done()
	over := make(chan struct{})
	go func() {
		p.probing.Wait()
		close(over)
	}()
	left := time.NewTimer(Grace)
	defer left.Stop()
	select {
	case <-over:
	case <-left.C:
	}
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.appending.Wait()
	return nil
}

// take says whether a result is still wanted. Where it is, Run does not return
// before appending.Done is called.
func (p *Prober) take(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil || p.ended {
		return false
	}
	p.appending.Add(1)
	return true
}

// run probes one target at fixed times. A time that passes while the probe
// before it runs, or waits for a slot, is missed and not made up for.
func (p *Prober) run(ctx context.Context, t *target) {
	due := t.next(time.Now())
	for {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		p.once(ctx, t)
		<-p.slots
		next := t.next(time.Now())
		if missed := int(next.Sub(due)/t.interval) - 1; missed > 0 {
			p.missed.Add(missed)
		}
		due = next
	}
}

// next returns the first time after now that is the target's.
func (t *target) next(now time.Time) time.Time {
	next := now.Add(-t.offset).Truncate(t.interval).Add(t.offset)
	for !next.After(now) {
		next = next.Add(t.interval)
	}
	return next
}

// once probes a target and hands over what it found, as of when it began.
func (p *Prober) once(ctx context.Context, t *target) {
	began := time.Now()
	fams, ok, why := t.probe(ctx)
	if !p.take(ctx) {
		// What was cut off says nothing about the target.
		p.unfinished.Inc()
		return
	}
	defer p.appending.Done()
	t.mu.Lock()
	t.newest = fams
	t.mu.Unlock()
	if ok {
		p.succeeded.Inc()
	} else {
		p.failed.Inc()
	}
	p.tell(t, began, ok, why)
	err := p.append(began, t.labels, fams)
	if err != nil {
		p.notQueued.Inc()
		if !t.unqueued {
			p.log.Warn("what a probe found cannot be queued", "target", t.address, "module", t.moduleName, "error", err)
		}
	}
	t.unqueued = err != nil
}

// tell logs changes from good to bad and back.
func (p *Prober) tell(t *target, now time.Time, ok bool, why string) {
	switch {
	case ok && !t.down.IsZero():
		p.log.Info("probe succeeds again", "target", t.address, "module", t.moduleName, "failed_for", now.Sub(t.down).Round(time.Second))
		t.down = time.Time{}
	case !ok && t.down.IsZero():
		t.down = now
		if t.probeKind == "icmp" {
			if err := pingAllowed(); err != nil {
				why = err.Error()
			}
		}
		p.log.Warn("probe fails", "target", t.address, "module", t.moduleName, "reason", why)
	}
}

// probe runs the prober once, within the target's time-out.
func (t *target) probe(ctx context.Context) (fams []metric.Family, ok bool, why string) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	registry := prometheus.NewRegistry()
	success := gauge(registry, "probe_success", "1 where the probe found what it looked for, else 0")
	duration := gauge(registry, "probe_duration_seconds", "Seconds that the probe took")
	reasons := &reasons{}
	began := time.Now()
	ok = t.try(ctx, registry, slog.New(reasons))
	duration.Set(time.Since(began).Seconds())
	if ok {
		success.Set(1)
	}
	found, err := registry.Gather()
	if err != nil {
		// Two series that are one, as from a module whose labels repeat: what is
		// whole is kept.
		reasons.add("gather: " + err.Error())
	}
	fams = families(found)
	return append(fams, metric.Family{Name: "up", Help: "Always 1: the prober itself answers.", Type: metric.Gauge, Series: []metric.Series{{Value: 1}}}), ok, reasons.String()
}

// try turns a panic of a prober, as of two modules' labels that clash, into a
// failed probe.
func (t *target) try(ctx context.Context, registry *prometheus.Registry, log *slog.Logger) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			ok = false
			log.Error(fmt.Sprintf("the prober panicked: %v", p))
		}
	}()
	return t.fn(ctx, t.address, t.module, registry, log)
}

// families turns what a registry gathered into our form. Probers make gauges;
// a type that has more than one value would need more than this.
func families(found []*dto.MetricFamily) []metric.Family {
	fams := make([]metric.Family, 0, len(found)+1)
	for _, f := range found {
		fam := metric.Family{Name: f.GetName(), Help: f.GetHelp()}
		for _, m := range f.GetMetric() {
			s := metric.Series{Labels: make([]metric.Label, 0, len(m.GetLabel()))}
			for _, l := range m.GetLabel() {
				s.Labels = append(s.Labels, metric.Label{Name: l.GetName(), Value: strings.ToValidUTF8(l.GetValue(), "\uFFFD")})
			}
			switch f.GetType() {
			case dto.MetricType_GAUGE:
				fam.Type, s.Value = metric.Gauge, m.GetGauge().GetValue()
			case dto.MetricType_COUNTER:
				fam.Type, s.Value = metric.Counter, m.GetCounter().GetValue()
			case dto.MetricType_UNTYPED:
				fam.Type, s.Value = metric.Unknown, m.GetUntyped().GetValue()
			default:
				continue
			}
			fam.Series = append(fam.Series, s)
		}
		fams = append(fams, fam)
	}
	return fams
}

// ServeHTTP writes the newest result of each target in the text format, with
// the labels under which it was queued. Targets that were not probed yet are
// not there.
func (p *Prober) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", metric.ContentType)
	if err := metric.WriteText(w, p.newest()); err != nil {
		p.log.Debug("a reader of the page went away", "error", err)
	}
}

// newest joins the families of all targets by their names.
func (p *Prober) newest() []metric.Family {
	var all []metric.Family
	at := map[string]int{}
	for _, t := range p.targets {
		t.mu.Lock()
		fams := t.newest // replaced as a whole, never changed
		t.mu.Unlock()
		for _, f := range fams {
			i, known := at[f.Name]
			if !known {
				i = len(all)
				at[f.Name] = i
				all = append(all, metric.Family{Name: f.Name, Help: f.Help, Type: f.Type})
			}
			for _, s := range f.Series {
				s.Labels = metric.Merge(s.Labels, t.labels)
				all[i].Series = append(all[i].Series, s)
			}
		}
	}
	return all
}

// Bounds of what is kept of a prober's complaints.
const (
	maxReasons = 3
	maxReason  = 300 // bytes
)

// reasons keeps the first complaints of a prober, which it makes as records of
// a log; it is a slog.Handler of one probe.
type reasons struct {
	mu    sync.Mutex
	texts []string // guarded by mu
}

func (r *reasons) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (r *reasons) WithAttrs([]slog.Attr) slog.Handler { return r }

func (r *reasons) WithGroup(string) slog.Handler { return r }

func (r *reasons) Handle(_ context.Context, record slog.Record) error {
	text := record.Message
	record.Attrs(func(a slog.Attr) bool {
		if len(text) < maxReason {
			text += fmt.Sprintf(" %s=%s", a.Key, a.Value)
		}
		return true
	})
	r.add(text)
	return nil
}

func (r *reasons) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.texts) < maxReasons {
		if len(text) > maxReason {
			text = strings.ToValidUTF8(text[:maxReason], "") + "…"
		}
		r.texts = append(r.texts, text)
	}
}

// String joins the complaints, "no reason given" without any.
func (r *reasons) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.texts) == 0 {
		return "no reason given"
	}
	return strings.Join(r.texts, "; ")
}
