// Package targets says which pods of this node are scraped: those that carry the
// annotations prometheus.io/…, and those that a PodMonitor selects.
//
// It owns what pods and PodMonitors mean: labels of targets are those of
// Prometheus' own discovery, rules are those of the Prometheus Operator and of
// prometheus-community's chart, so that dashboards and rules made for them work.
// It refuses to scrape, and to watch: pods and PodMonitors enter through the
// listeners Pods and PodMonitors, jobs leave through a function. A PodMonitor
// with a mistake is told of once and stops no other one.
package targets

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"k8s.io/apimachinery/pkg/labels"

	"nines/agent/collect/scrape"
	"nines/agent/pods"
	"nines/pkg/metric"
)

const (
	// settle is how long it has to be quiet before a change is taken, and
	// settleAtMost how long it may be put off: pods come and go in bursts.
	settle       = 250 * time.Millisecond
	settleAtMost = 2 * time.Second
	// maxPods bounds the pods that are kept. The kubelet runs 110 by default
	// (--max-pods); those that ended stay until they are collected.
	maxPods = 4096
	// maxProblems bounds those that are told of and shown.
	maxProblems = 1000
)

// Targets follows the pods of this node and the PodMonitors of the cluster. It
// is safe for concurrent use.
type Targets struct {
	cfg      Config
	node     string
	set      func([]scrape.Job) error
	log      *slog.Logger
	reader   Reader
	selector labels.Selector
	changes  *metrics.Counter
	troubles func() (pods, podMonitors string)

	changed chan struct{} // holds one: something did change. Run takes it

	mu          sync.Mutex // guards all up to status
	pods        map[string]*pod
	podsOver    int // that were left out because of maxPods
	listed      bool
	monitors    map[string]*pods.PodMonitor
	monitorOver int // that were left out because of Limits.PodMonitors
	status      Status

	// What follows belongs to Run.
	refs      *refs
	annotated *config.ScrapeConfig
	compiled  map[string]*compiled // by job name
	nodeMeta  model.LabelSet
	nodeErr   error
	nodeDue   time.Time
	last      []scrape.Job
	unset     bool // the last jobs could not be handed over
	handed    bool // some were
	problems  map[string]Problem
	jobs      atomic.Int64
	wrong     atomic.Int64
}

// compiled is the scrape configuration of an endpoint, and what it was made of.
type compiled struct {
	monitor *pods.PodMonitor
	looked  []looked
	config  *config.ScrapeConfig
	err     error
	used    bool
}

type looked struct {
	ref   ref
	value string
	err   string
}

// Status is what is scraped, and what is not.
type Status struct {
	Pods        int       `json:"pods"`         // of this node
	PodMonitors int       `json:"pod_monitors"` // of the cluster that are selected
	Jobs        int       `json:"jobs"`
	Problems    []Problem `json:"problems"` // in the order of their places; never nil
}

// Problem is why something is not scraped as written.
type Problem struct {
	Place string `json:"place"` // such as: PodMonitor shop/web endpoint 0
	Why   string `json:"why"`   // with the remedy
}

// New hands jobs to set from Run, whenever they change. The node is this one's
// name in the cluster.
func New(cfg Config, node string, reader Reader, set func([]scrape.Job) error, log *slog.Logger, ms *metrics.Set) (*Targets, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	selector, err := labels.Parse(cfg.PodMonitorSelector)
	if err != nil {
		return nil, err // Validate has told
	}
	t := &Targets{
		cfg: cfg, node: node, set: set, log: log, reader: reader, selector: selector, changed: make(chan struct{}, 1),
		pods: map[string]*pod{}, monitors: map[string]*pods.PodMonitor{}, compiled: map[string]*compiled{}, problems: map[string]Problem{},
		changes:  ms.NewCounter(metric.AgentPodChanges),
		troubles: func() (pods, podMonitors string) { return "", "" },
	}
	failures := ms.NewCounter(metric.AgentPodRefsFailures)
	t.refs = newRefs(reader, failures.Inc)
	if t.annotated, err = cfg.annotationJob(); err != nil {
		return nil, fmt.Errorf("annotations: %w", err)
	}
	ms.NewGauge(metric.AgentPods, func() float64 {
		t.mu.Lock()
		defer t.mu.Unlock()
		n := 0
		for _, p := range t.pods {
			if len(p.group.Targets) > 0 {
				n++
			}
		}
		return float64(n)
	})
	ms.NewGauge(metric.AgentPodMonitors, func() float64 {
		t.mu.Lock()
		defer t.mu.Unlock()
		return float64(len(t.monitors))
	})
	ms.NewGauge(metric.AgentPodJobs, func() float64 { return float64(t.jobs.Load()) })
	ms.NewGauge(metric.AgentPodProblems, func() float64 { return float64(t.wrong.Load()) })
	return t, nil
}

// Troubles names what says why pods and PodMonitors cannot be read, in words
// with the remedy; empty: they can. It is the watches that know, and Status that
// shows it. It is called before Run, once at most; words must be safe for
// concurrent use.
func (t *Targets) Troubles(words func() (pods, podMonitors string)) { t.troubles = words }

// Status says what is scraped, and what is not and why.
func (t *Targets) Status() Status {
	ofPods, ofMonitors := t.troubles()
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.status
	out.Pods, out.PodMonitors, out.Problems = len(t.pods), len(t.monitors), []Problem{}
	for _, p := range []Problem{{"pods", ofPods}, {"PodMonitors", ofMonitors}} {
		if p.Why != "" {
			out.Problems = append(out.Problems, p)
		}
	}
	out.Problems = append(out.Problems, t.status.Problems...)
	slices.SortStableFunc(out.Problems, func(a, b Problem) int { return strings.Compare(a.Place, b.Place) })
	return out
}

// Run follows changes until the context ends. It is called once.
func (t *Targets) Run(ctx context.Context) error {
	retry := time.NewTicker(retryAfter)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.changed:
			if !t.settled(ctx) {
				return nil
			}
		case <-retry.C: // what was read may be old, and what failed is tried again
		}
		t.apply(ctx, time.Now())
	}
}

// settled waits until nothing changes for a moment, and is false at the end.
func (t *Targets) settled(ctx context.Context) bool {
	latest := time.NewTimer(settleAtMost)
	defer latest.Stop()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-latest.C:
			return true
		case <-quiet.C:
			return true
		case <-t.changed:
			quiet.Reset(settle)
		}
	}
}

// apply makes jobs of what is known and hands them over where they did change.
func (t *Targets) apply(ctx context.Context, now time.Time) {
	t.mu.Lock()
	listed := t.listed
	t.mu.Unlock()
	if !listed {
		return // of no pod is known whether it is there
	}
	jobs, problems := t.build(ctx, now)
	if ctx.Err() != nil {
		return // what could not be read was cut off
	}
	if t.unset || !t.handed || !slices.EqualFunc(jobs, t.last, sameJob) {
		err := t.set(jobs)
		if t.unset = err != nil; err != nil {
			problems["scraping"] = Problem{"scraping", fmt.Sprintf("the jobs could not be handed over: %v: they are tried again", err)}
		} else {
			t.last, t.handed = jobs, true
			t.changes.Inc()
		}
	}
	t.tell(problems)
	t.jobs.Store(int64(len(jobs)))
	t.wrong.Store(int64(len(problems)))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.Jobs = len(jobs)
	t.status.Problems = nil
	for _, place := range slices.Sorted(maps.Keys(problems)) {
		t.status.Problems = append(t.status.Problems, problems[place])
	}
}

func sameJob(a, b scrape.Job) bool {
	return a.Config == b.Config && slices.Equal(a.Groups, b.Groups)
}

// tell logs problems that are new, and those that are no more.
func (t *Targets) tell(problems map[string]Problem) {
	for _, place := range slices.Sorted(maps.Keys(problems)) {
		if p := problems[place]; t.problems[place] != p {
			t.log.Warn("pods are not scraped as written", "place", p.Place, "why", p.Why)
		}
	}
	for _, place := range slices.Sorted(maps.Keys(t.problems)) {
		if _, still := problems[place]; !still {
			t.log.Info("what kept pods from being scraped as written is no more", "place", place)
		}
	}
	t.problems = problems
}

// build makes jobs of pods and PodMonitors, in the order of their names.
func (t *Targets) build(ctx context.Context, now time.Time) ([]scrape.Job, map[string]Problem) {
	t.mu.Lock()
	var all []*pod
	for _, name := range slices.Sorted(maps.Keys(t.pods)) {
		if p := t.pods[name]; len(p.group.Targets) > 0 && t.cfg.takes(p.namespace) {
			all = append(all, p)
		}
	}
	var monitors []*pods.PodMonitor
	for _, name := range slices.Sorted(maps.Keys(t.monitors)) {
		monitors = append(monitors, t.monitors[name])
	}
	podsOver, monitorOver := t.podsOver, t.monitorOver
	t.mu.Unlock()

	problems := map[string]Problem{}
	problem := func(place string, err error) {
		if len(problems) < maxProblems {
			problems[place] = Problem{place, err.Error()}
		}
	}
	if podsOver > 0 {
		problem("pods", fmt.Errorf("there are %d pods more than the %d that are looked at: remove those that ended", podsOver, maxPods))
	}
	if monitorOver > 0 {
		problem("PodMonitors", fmt.Errorf("there are more than the %d that are looked at: raise metrics.pods.limits.pod_monitors, or name fewer with pod_monitor_selector", t.cfg.Limits.PodMonitors))
	}
	var jobs []scrape.Job
	if t.cfg.Annotations {
		job := scrape.Job{Config: t.annotated}
		for _, p := range all {
			if !p.ended && p.group.Labels[meta+"pod_annotation_prometheus_io_scrape"] == "true" {
				job.Groups = append(job.Groups, p.group)
			}
		}
		if len(job.Groups) > 0 {
			jobs = append(jobs, job)
		}
	}
	t.refs.begin()
	for _, c := range t.compiled {
		c.used = false
	}
	for _, m := range monitors {
		jobs = append(jobs, t.monitored(ctx, m, all, problem, now)...)
	}
	t.refs.end()
	maps.DeleteFunc(t.compiled, func(_ string, c *compiled) bool { return !c.used })
	return jobs, problems
}

// monitored makes the jobs of a PodMonitor.
func (t *Targets) monitored(ctx context.Context, m *pods.PodMonitor, all []*pod, problem func(string, error), now time.Time) (jobs []scrape.Job) {
	place := "PodMonitor " + m.Namespace + "/" + m.Name
	if m.Spec.Unreadable != "" {
		problem(place, fmt.Errorf("its specification cannot be read: %s: correct it", m.Spec.Unreadable))
		return nil
	}
	takes, err := selects(m)
	if err != nil {
		problem(place, err)
		return nil
	}
	var selected []*pod
	for _, p := range all {
		if takes(p) {
			selected = append(selected, p)
		}
	}
	if len(selected) == 0 {
		return nil // nor is a Secret read
	}
	if m.Spec.ScrapeClass != "" {
		problem(place+" scrape class", fmt.Errorf("the class %q stands in a Prometheus object, which is not read here: what it adds is left out: write it into the PodMonitor", m.Spec.ScrapeClass))
	}
	node := model.LabelSet(nil)
	if m.Spec.AttachMetadata.Node {
		if node, err = t.nodeOf(ctx, now); err != nil {
			problem(place+" attachMetadata.node", fmt.Errorf("its targets have no labels of the node: %w", err))
		}
	}
	for i, e := range m.Spec.Endpoints {
		c := t.compile(ctx, m, i, now)
		if c.err != nil {
			problem(fmt.Sprintf("%s endpoint %d", place, i), fmt.Errorf("it is not scraped: %w", c.err))
			continue
		}
		job := scrape.Job{Config: c.config}
		for _, p := range selected {
			if p.ended && (e.FilterRunning == nil || *e.FilterRunning) {
				continue
			}
			job.Groups = append(job.Groups, p.with(node))
		}
		if len(job.Groups) > 0 {
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// with is the pod's targets with the labels of the node.
func (p *pod) with(node model.LabelSet) *targetgroup.Group {
	if node == nil {
		return p.group
	}
	if p.onNode == nil {
		p.onNode = &targetgroup.Group{Source: p.group.Source, Targets: p.group.Targets, Labels: p.group.Labels.Merge(node)}
	}
	return p.onNode
}

// compile makes the configuration of an endpoint, or takes the one made before
// where nothing that it was made of did change.
func (t *Targets) compile(ctx context.Context, m *pods.PodMonitor, i int, now time.Time) *compiled {
	key := fmt.Sprintf("%s/%s/%d", m.Namespace, m.Name, i)
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if c := t.compiled[key]; c != nil && c.monitor == m {
		same := true
		for _, l := range c.looked { // all of them, so that each is known to be in use
			value, err := t.refs.look(ctx, l.ref, now)
			same = same && value == l.value && text(err) == l.err
		}
		if same {
			c.used = true
			return c
		}
	}
	c := &compiled{monitor: m, used: true}
	c.config, c.err = t.cfg.compile(m, i, func(r ref) (string, error) {
		value, err := t.refs.look(ctx, r, now)
		c.looked = append(c.looked, looked{r, value, text(err)})
		return value, err
	})
	t.compiled[key] = c
	return c
}

// nodeOf are the labels of the node, as old as refreshEvery at most. Where the
// API server does not answer, those read before stand.
func (t *Targets) nodeOf(ctx context.Context, now time.Time) (model.LabelSet, error) {
	if now.Before(t.nodeDue) {
		return t.nodeMeta, t.nodeErr
	}
	within, cancel := context.WithTimeoutCause(ctx, readWithin, fmt.Errorf("it did not answer within %v", readWithin))
	defer cancel()
	labels, annotations, err := t.reader.Node(within, t.node)
	t.nodeDue = now.Add(refreshEvery)
	if err != nil {
		t.refs.failed()
		if !pods.Refused(err) {
			t.nodeDue = now.Add(retryAfter)
			if t.nodeMeta != nil {
				return t.nodeMeta, nil
			}
		}
		t.nodeMeta, t.nodeErr = nil, err
		t.forgetNode()
		return nil, err
	}
	t.nodeErr = nil
	if read := nodeLabels(t.node, labels, annotations); !reflect.DeepEqual(read, t.nodeMeta) {
		t.nodeMeta = read
		t.forgetNode()
	}
	return t.nodeMeta, nil
}

func (t *Targets) forgetNode() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pods {
		p.onNode = nil
	}
}

func (t *Targets) notify() {
	select {
	case t.changed <- struct{}{}:
	default: // it is known already
	}
}

// Pods is the listener that pods of this node are told to.
func (t *Targets) Pods() pods.Listener[pods.Pod] { return podListener{t} }

// PodMonitors is the listener that PodMonitors are told to.
func (t *Targets) PodMonitors() pods.Listener[pods.PodMonitor] { return monitorListener{t} }

type podListener struct{ t *Targets }

// put takes a pod and says whether anything did change since before, which may
// be nil. Caller holds mu.
func (t *Targets) put(o *pods.Pod, before *pod) bool {
	key, p := o.Namespace+"/"+o.Name, podOf(o)
	if t.pods[key] == nil && len(t.pods) >= maxPods {
		t.podsOver++
		return true
	}
	if before != nil && before.uid == p.uid && before.ended == p.ended && maps.Equal(before.labels, p.labels) && reflect.DeepEqual(before.group, p.group) {
		t.pods[key] = before
		return false // what targets do not carry changes often
	}
	t.pods[key] = p
	return true
}

// Put takes a pod that is new or did change.
func (l podListener) Put(o *pods.Pod) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.t.put(o, l.t.pods[o.Namespace+"/"+o.Name]) {
		l.t.notify()
	}
}

// Delete takes a pod that is gone.
func (l podListener) Delete(o *pods.Pod) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	key := o.Namespace + "/" + o.Name
	if p := l.t.pods[key]; p != nil && p.uid == string(o.UID) { // else another one has its name by now
		delete(l.t.pods, key)
		l.t.notify()
	}
}

// Replace takes all pods that are there.
func (l podListener) Replace(all []*pods.Pod) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	before := l.t.pods
	l.t.pods, l.t.podsOver, l.t.listed = map[string]*pod{}, 0, true
	for _, o := range all {
		l.t.put(o, before[o.Namespace+"/"+o.Name])
	}
	l.t.notify()
}

type monitorListener struct{ t *Targets }

// putMonitor takes a PodMonitor and says whether anything did change since
// before, which may be nil. Caller holds mu.
func (t *Targets) putMonitor(o, before *pods.PodMonitor) bool {
	key := o.Namespace + "/" + o.Name
	switch {
	case !t.selector.Matches(labels.Set(o.Labels)):
		delete(t.monitors, key)
		return before != nil
	case t.monitors[key] == nil && len(t.monitors) >= t.cfg.Limits.PodMonitors:
		t.monitorOver++
		return true
	case before != nil && reflect.DeepEqual(before.Spec, o.Spec):
		t.monitors[key] = before
		return false // its status changes often
	}
	m := &pods.PodMonitor{Spec: o.Spec}
	m.Namespace, m.Name = o.Namespace, o.Name
	t.monitors[key] = m
	return true
}

// Put takes a PodMonitor that is new or did change.
func (l monitorListener) Put(o *pods.PodMonitor) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.t.putMonitor(o, l.t.monitors[o.Namespace+"/"+o.Name]) {
		l.t.notify()
	}
}

// Delete takes a PodMonitor that is gone.
func (l monitorListener) Delete(o *pods.PodMonitor) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	key := o.Namespace + "/" + o.Name
	if l.t.monitors[key] != nil {
		delete(l.t.monitors, key)
		l.t.notify()
	}
}

// Replace takes all PodMonitors that are there.
func (l monitorListener) Replace(all []*pods.PodMonitor) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	before := l.t.monitors
	l.t.monitors, l.t.monitorOver = map[string]*pods.PodMonitor{}, 0
	for _, o := range all {
		l.t.putMonitor(o, before[o.Namespace+"/"+o.Name])
	}
	l.t.notify()
}
