// Package scrape reads the metrics pages of targets on this node, with the
// scrape engine of Prometheus: negotiation of formats, relabelling, limits,
// staleness markers, up and its companions are Prometheus' own.
//
// It owns the loops, one for each target, and the newest sample of each of
// their series, for /metrics/pods. It refuses to find targets: owners (the
// agent's file, the kubelet, the pods) hand over jobs by Set, and one owner's
// change does not disturb the loops of another. Beyond a number of targets it
// refuses more. Jobs enter by Set, pages over HTTP; samples leave into a
// storage.AppendableV2, one transaction for each scrape.
//
// It differs from a Prometheus in this: a new target is scraped at once
// instead of somewhere within its interval; a target whose pod ends is scraped
// each second; a job that is taken away leaves staleness markers behind; no job
// is without limits; samples are never too old or out of order, except for
// staleness markers behind a newer sample. Targets on unix sockets
// (__unix_socket__) are not offered.
package scrape

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"

	"nines/pkg/metric"
)

// TerminatingLabel on a target, or on its group, with the value "true" says
// that its pod is about to go. The target is then scraped each second, so that
// its last errors are counted; its series stay the same. It is a meta label:
// relabelling sees it and series do not get it.
const TerminatingLabel = model.MetaLabelPrefix + "nines_terminating"

// targetLabel names the target to the recorder. Series do not get labels that
// begin with two underscores.
const targetLabel = "__nines_target__"

const (
	// fastest is how often a target is scraped whose pod is about to go. One
	// whose page takes more than half of that gets twice as long as its page
	// took, in whole seconds, since no scrape may take longer than its interval.
	fastest = time.Second
	// settling is how long changes of targets are gathered before the loops
	// follow: the first is followed at once.
	settling = time.Second
	// atOnce is how many new targets begin within a second; where more wait, an
	// eighth of them. So the pages of a whole node, which begin when the agent
	// does, are not all read in the same moment of each interval.
	atOnce = 8
	// sweeping is how often series without news are looked for.
	sweeping = time.Minute
	// retrying is when jobs that could not be changed are tried again. Those
	// that could not begin are tried again with each sweep.
	retrying = 30 * time.Second
	// grace is how long scrapes under way may take once the agent ends.
	grace = time.Second
)

// Job is one scrape configuration with its targets on this node. Neither may be
// changed once it was handed over.
type Job struct {
	Config *config.ScrapeConfig
	Groups []*targetgroup.Group
}

// StaticOwner owns the jobs of the agent's file.
const StaticOwner = "static"

// DefaultJob returns what a job with targets on this node begins with: the
// defaults of Prometheus, without compression, which costs more on the same
// node than it saves. What is left at zero is filled in by Set.
func DefaultJob(name string) *config.ScrapeConfig {
	c := config.DefaultScrapeConfig
	c.JobName = name
	c.EnableCompression = false
	return &c
}

// Scraper keeps a loop for each target.
type Scraper struct {
	cfg      Config
	base     config.Config // loaded, with our defaults and no jobs
	log      *slog.Logger
	set      *metrics.Set
	manager  *scrape.Manager
	recorder *recorder
	table    *table
	changed  chan struct{} // of one place; signalled by Set, read by Run

	dialer func(ctx context.Context, network, address string) (net.Conn, error)
	cut    context.Context // ends when scrapes under way are cut off
	cutOff context.CancelFunc

	mu       sync.Mutex // guards all below
	jobs     map[string]*job
	targets  map[string]*target // by id
	counters map[string]*counters
	full     bool // whether the bound on targets was told
}

// job is one that runs, or that leaves: then it has no targets, and stays until
// its loops have written their last markers.
type job struct {
	owner   string
	cfg     *config.ScrapeConfig // its targets are relabelled already
	targets []*target
	slowest time.Duration // interval that any of its targets had
	leaves  time.Time     // zero: it stays
	dropped int
	invalid []string
}

// target is one page. A second loop for it, such as the fast one when its pod
// ends, has the same target here.
type target struct {
	id, owner, job string
	labels         model.LabelSet // as relabelling left them
	interval       time.Duration
	counters       *counters
	accepted       bool          // within the bound; guarded by Scraper.mu
	admitted       bool          // its loop may run; guarded by Scraper.mu
	fast           time.Duration // interval since its pod is about to go, 0 before; guarded by Scraper.mu

	terminating atomic.Bool
	state       atomic.Int32  // a state
	seconds     atomic.Uint64 // of its newest scrape, as bits

	gone    bool   // guarded by table.mu
	scrapes uint32 // that were committed; guarded by table.mu
}

// state is what the newest scrape of a target found.
type state int32

const (
	waiting state = iota
	up
	down
)

// New prepares the loops; they run with Run. The jobs of cfg belong to
// StaticOwner.
func New(cfg Config, sink storage.AppendableV2, log *slog.Logger, set *metrics.Set) (*Scraper, error) {
	return build(cfg, sink, log, set, (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
}

func build(cfg Config, sink storage.AppendableV2, log *slog.Logger, set *metrics.Set, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Scraper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	base, _, err := cfg.load(nil)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	s := &Scraper{
		cfg: cfg, base: *base, log: log, set: set, dialer: dial,
		table:    newTable(maxSeries, set.NewCounter(metric.ScrapeSeriesUnseen).Inc),
		changed:  make(chan struct{}, 1),
		jobs:     map[string]*job{},
		targets:  map[string]*target{},
		counters: map[string]*counters{},
	}
	s.cut, s.cutOff = context.WithCancel(context.Background())
	s.recorder = newRecorder(sink, s.table, s.find, log)
	registry := prometheus.NewRegistry()
	s.manager, err = scrape.NewManager(&scrape.Options{
		AppendMetadata:           true,
		ParseST:                  true,
		PassMetadataInContext:    true, // names the target to the recorder
		DiscoveryReloadInterval:  model.Duration(settling),
		DiscoveryReloadOnStartup: true,
		// The engine spreads first scrapes over the interval. We spread them
		// ourselves, see atOnce: this makes every offset negative.
		InitialScrapeOffset: -math.MaxInt64 / 2,
		HTTPClientOptions:   s.clientOptions(),
	}, slog.New(newSparing(log.Handler())), nil, nil, s.recorder, registry)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	s.expose(registry)
	jobs, err := cfg.static()
	if err == nil {
		err = s.Set(StaticOwner, jobs)
	}
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	return s, nil
}

func (s *Scraper) clientOptions() []commonconfig.HTTPClientOption {
	return []commonconfig.HTTPClientOption{commonconfig.WithDialContextFunc(s.dial)}
}

// dial connects to a target, until scrapes are cut off.
func (s *Scraper) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.cut, cancel)()
	c, err := s.dialer(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &connection{c, context.AfterFunc(s.cut, func() { c.Close() })}, nil
}

// connection is closed when scrapes are cut off.
type connection struct {
	net.Conn
	forget func() bool
}

func (c *connection) Close() error {
	c.forget()
	return c.Conn.Close()
}

// Set replaces all jobs of an owner; with none, it removes them. Jobs that
// cannot be taken are left out and named in the error; the others are in force
// all the same. The name of a job must be unique across owners: the one that
// has it keeps it.
//
// It is safe for concurrent use, before and during Run. A target that was in
// the owner's jobs before and still is goes on undisturbed.
func (s *Scraper) Set(owner string, jobs []Job) error {
	var errs []error
	ready := map[string]*job{}
	for _, j := range jobs {
		if j.Config == nil {
			errs = append(errs, errors.New("a job has no configuration"))
			continue
		}
		name := j.Config.JobName
		if _, twice := ready[name]; twice {
			errs = append(errs, fmt.Errorf("job %q of %s is given twice: give each a name of its own", name, owner))
			continue
		}
		made, err := s.prepare(owner, j)
		if err != nil {
			errs = append(errs, fmt.Errorf("job %q of %s: %w", name, owner, err))
			continue
		}
		ready[name] = made
	}

	s.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(ready)) {
		if has := s.jobs[name]; has != nil && has.owner != owner && has.leaves.IsZero() {
			errs = append(errs, fmt.Errorf("job %q of %s has the name of a job of %s: rename one of them", name, owner, has.owner))
			delete(ready, name)
		}
	}
	now := time.Now()
	for name, old := range s.jobs {
		if old.owner != owner || !old.leaves.IsZero() || ready[name] != nil {
			continue
		}
		// The markers come up to 2.1 intervals after a loop has ended, which may
		// wait for a scrape under way.
		old.targets, old.dropped, old.invalid = nil, 0, nil
		old.leaves = now.Add(old.slowest*7/2 + 5*time.Second)
	}
	for name, made := range ready {
		if old := s.jobs[name]; old != nil {
			made.slowest = max(made.slowest, old.slowest)
			if reflect.DeepEqual(old.cfg, made.cfg) {
				made.cfg = old.cfg
			}
			if made.invalid != nil && !slices.Equal(made.invalid, old.invalid) {
				s.log.Warn("targets are left out", "owner", owner, "job", name, "targets", len(made.invalid), "first", made.invalid[0])
			}
		} else if made.invalid != nil {
			s.log.Warn("targets are left out", "owner", owner, "job", name, "targets", len(made.invalid), "first", made.invalid[0])
		}
		s.jobs[name] = made
	}
	s.countersOf(owner)
	gone := s.settle()
	s.mu.Unlock()

	s.table.forget(gone)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return errors.Join(errs...)
}

// prepare checks a job, fills in what it left out and relabels its targets.
func (s *Scraper) prepare(owner string, j Job) (*job, error) {
	cfg := *j.Config
	cfg.ServiceDiscoveryConfigs = nil
	if slices.Contains(cfg.RelabelConfigs, nil) || slices.Contains(cfg.MetricRelabelConfigs, nil) {
		return nil, errors.New("a relabelling rule is empty")
	}
	cfg.RelabelConfigs = cloneRules(cfg.RelabelConfigs)
	cfg.MetricRelabelConfigs = cloneRules(cfg.MetricRelabelConfigs)
	if cfg.JobName == "" {
		return nil, errors.New("it has no name")
	}
	if err := cfg.Validate(s.base.GlobalConfig); err != nil {
		return nil, err
	}
	if err := cfg.HTTPClientConfig.Validate(); err != nil {
		return nil, err
	}
	made := &job{owner: owner, slowest: time.Duration(cfg.ScrapeInterval)}
	seen := map[string]bool{}
	lb := labels.NewBuilder(labels.EmptyLabels())
	for _, g := range j.Groups {
		for _, discovered := range g.Targets {
			t, err := newTarget(owner, &cfg, discovered, g.Labels, lb)
			switch {
			case err != nil:
				made.invalid = append(made.invalid, err.Error())
			case t == nil:
				made.dropped++
			case !seen[t.id]:
				seen[t.id] = true
				made.targets = append(made.targets, t)
				made.slowest = max(made.slowest, t.interval)
			}
		}
	}
	// The engine gets targets that are relabelled, so that a change of these
	// rules restarts no loop whose target stays the same.
	cfg.RelabelConfigs = nil
	s.mu.Lock()
	old := s.jobs[cfg.JobName]
	s.mu.Unlock()
	if old == nil || !reflect.DeepEqual(old.cfg, &cfg) {
		client, err := commonconfig.NewClientFromConfig(cfg.HTTPClientConfig, cfg.JobName, s.clientOptions()...)
		if err != nil {
			return nil, err
		}
		client.CloseIdleConnections()
	}
	made.cfg = &cfg
	return made, nil
}

// cloneRules copies rules, which Validate writes into.
func cloneRules(rules []*relabel.Config) []*relabel.Config {
	var out []*relabel.Config
	for _, r := range rules {
		c := *r
		out = append(out, &c)
	}
	return out
}

// newTarget relabels a target; nil where the rules drop it.
func newTarget(owner string, cfg *config.ScrapeConfig, discovered, group model.LabelSet, lb *labels.Builder) (*target, error) {
	ls, err := scrape.PopulateLabels(lb, cfg, discovered, group)
	if err != nil {
		return nil, err
	}
	if ls.IsEmpty() {
		return nil, nil
	}
	if ls.Has(scrape.UnixSocketLabel) {
		return nil, fmt.Errorf("%s is not offered: let the target listen on a port", scrape.UnixSocketLabel)
	}
	interval, err := model.ParseDuration(ls.Get(model.ScrapeIntervalLabel))
	if err != nil {
		return nil, err
	}
	t := &target{owner: owner, job: cfg.JobName, labels: model.LabelSet{}, interval: time.Duration(interval)}
	h := fnv.New128a()
	io.WriteString(h, cfg.JobName)
	ls.Range(func(l labels.Label) {
		t.labels[model.LabelName(l.Name)] = model.LabelValue(l.Value)
		if l.Name != model.ScrapeIntervalLabel && l.Name != model.ScrapeTimeoutLabel {
			io.WriteString(h, "\xff"+l.Name+"\xff"+l.Value)
		}
	})
	t.id = fmt.Sprintf("%x", h.Sum(nil))
	t.labels[targetLabel] = model.LabelValue(t.id)
	ends, own := discovered[TerminatingLabel]
	if !own {
		ends = group[TerminatingLabel]
	}
	t.terminating.Store(ends == "true")
	return t, nil
}

// settle joins the targets of all jobs with those known before and decides
// which are within the bound. Those that were stay. It returns the ones that
// have gone. s.mu is held.
func (s *Scraper) settle() []*target {
	known := s.targets
	s.targets = map[string]*target{}
	var fresh []*target
	accepted := 0
	for _, name := range slices.Sorted(maps.Keys(s.jobs)) {
		j := s.jobs[name]
		for i, t := range j.targets {
			if old := known[t.id]; old != nil && old.owner == t.owner {
				if old != t {
					old.terminating.Store(t.terminating.Load())
					old.labels, old.interval = t.labels, t.interval
				}
				t = old
				j.targets[i] = t
			}
			s.targets[t.id] = t
			if t.counters == nil {
				t.counters = s.countersOf(t.owner)
			}
			switch {
			case !t.terminating.Load():
				t.fast = 0
			case t.fast == 0:
				took := time.Duration(math.Float64frombits(t.seconds.Load()) * float64(time.Second))
				t.fast = fastest
				if took > fastest/2 {
					t.fast = (2*took + time.Second - 1).Truncate(time.Second)
				}
				t.fast = min(t.fast, t.interval)
			}
			if t.accepted {
				accepted++
			} else {
				fresh = append(fresh, t)
			}
		}
	}
	for _, t := range fresh {
		if t.accepted = accepted < s.cfg.MaxTargets; t.accepted {
			accepted++
		}
	}
	switch full := accepted < len(s.targets); {
	case full && !s.full:
		s.log.Warn("too many targets: some are not scraped; raise metrics.scrape.max_targets if the node has room for more",
			"targets", len(s.targets), "max_targets", s.cfg.MaxTargets)
		s.full = true
	case !full && s.full:
		s.log.Info("all targets are scraped again", "targets", len(s.targets))
		s.full = false
	}
	var gone []*target
	for id, t := range known {
		if s.targets[id] != t {
			gone = append(gone, t)
		}
	}
	return gone
}

// find returns the target of an id, nil where it has gone.
func (s *Scraper) find(id string) *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.targets[id]
}

// group is what the engine gets of a job: the targets whose loops may run.
func (j *job) group() *targetgroup.Group {
	g := &targetgroup.Group{Source: "nines"}
	for _, t := range j.targets {
		if !t.admitted {
			continue
		}
		ls := t.labels
		if t.fast > 0 {
			fast := model.LabelValue(model.Duration(t.fast).String())
			ls = ls.Clone()
			ls[model.ScrapeIntervalLabel], ls[model.ScrapeTimeoutLabel] = fast, fast
		}
		g.Targets = append(g.Targets, ls)
	}
	return g
}

// plan is what the engine is to run now.
type plan struct {
	configs []*config.ScrapeConfig
	groups  map[string][]*targetgroup.Group
	next    time.Duration // until the next plan is due though nothing changes; 0: never
}

// plan admits new targets and lets jobs go whose time has come.
func (s *Scraper) plan() plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	p := plan{groups: map[string][]*targetgroup.Group{}}
	sooner := func(d time.Duration) {
		if p.next == 0 || d < p.next {
			p.next = d
		}
	}
	var queue []*target
	for _, name := range slices.Sorted(maps.Keys(s.jobs)) {
		j := s.jobs[name]
		if !j.leaves.IsZero() {
			left := j.leaves.Sub(now)
			if left <= 0 {
				delete(s.jobs, name)
				continue
			}
			sooner(left)
		}
		p.configs = append(p.configs, j.cfg)
		for _, t := range j.targets {
			if t.accepted && !t.admitted {
				queue = append(queue, t)
			}
		}
	}
	quota := max(atOnce, (len(queue)+7)/8)
	for _, t := range queue[:min(quota, len(queue))] {
		t.admitted = true
	}
	if len(queue) > quota {
		sooner(settling)
	}
	for name, j := range s.jobs {
		p.groups[name] = []*targetgroup.Group{j.group()}
	}
	return p
}

// Run scrapes until the context ends; then it gives scrapes under way a second
// and throws away what takes longer. No staleness markers are written then: the
// agent goes on with the same series when it is back. It runs once.
func (s *Scraper) Run(ctx context.Context) error {
	groups := make(chan map[string][]*targetgroup.Group)
	ended := make(chan error, 1)
	go func() { ended <- s.manager.Run(groups) }()

	timer := time.NewTimer(0) // New has signalled changed already
	timer.Stop()
	defer timer.Stop()
	sweep := time.NewTicker(sweeping)
	defer sweep.Stop()
	var configs []*config.ScrapeConfig
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-sweep.C:
			s.table.sweep()
			if len(s.manager.ScrapePools()) >= len(configs) {
				continue
			}
			// A job could not begin, such as for a certificate that was not there
			// yet: the engine tries again when it gets targets.
		case <-s.changed:
		case <-timer.C:
		}
		p := s.plan()
		if len(p.configs) == 0 && len(configs) == 0 {
			continue // the engine would take its time with what comes next
		}
		if !slices.Equal(configs, p.configs) {
			if s.apply(p, configs, groups) {
				configs = p.configs
			}
		} else {
			groups <- p.groups
		}
		next := p.next
		if !slices.Equal(configs, p.configs) && (next == 0 || next > retrying) {
			next = retrying
		}
		timer.Stop()
		if next > 0 {
			timer.Reset(next)
		}
	}

	// The engine must not begin loops while it stops.
	for range 2 {
		groups <- nil
	}
	cut := time.AfterFunc(grace, func() {
		s.recorder.throwAway()
		s.cutOff()
	})
	s.recorder.close()
	cut.Stop()
	s.cutOff() // loops that have begun again since then talk to nowhere
	s.manager.Stop()
	return <-ended
}

// apply hands changed jobs to the engine. Their targets must not be there
// before they are, nor after. It says whether all were taken.
func (s *Scraper) apply(p plan, before []*config.ScrapeConfig, groups chan<- map[string][]*targetgroup.Group) bool {
	stay := map[string][]*targetgroup.Group{}
	for _, c := range before {
		if g, ok := p.groups[c.JobName]; ok {
			stay[c.JobName] = g
		}
	}
	if len(stay) < len(before) {
		// The engine has taken in the first when it receives the second.
		for range 2 {
			groups <- stay
		}
	}
	cfg := s.base
	cfg.ScrapeConfigs = p.configs
	err := s.manager.ApplyConfig(&cfg)
	if err != nil {
		s.log.Error("jobs could not be changed and go on as they were: the message before this one says which", "error", err)
	}
	groups <- p.groups
	return err == nil
}
