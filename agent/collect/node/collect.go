// Package node reads what the kernel says about this node and turns it into
// samples under the names, labels and types of Prometheus' node_exporter, so
// that stock dashboards and rules work unchanged.
//
// It owns one source for each area of the kernel (cpu, meminfo, …): thin
// reading, through procfs where it is rare and by readers of its own where it
// is every node's every tick, and pure functions from the kernel's text to
// samples. It refuses to send, store or serve anything. A source that fails, or
// that the kernel never answers, takes no other with it and holds no tick up:
// node_scrape_collector_success says so. Data enters as files below a proc and
// a sys folder and by few calls (statfs, uname, adjtimex), and leaves as
// families.
package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"

	"nines/pkg/metric"
)

// Collector reads all sources. It is safe for concurrent use; collections take
// turns, because sources keep what is the same at each tick, and the cpu source
// keeps its counters from falling.
type Collector struct {
	sources []*source
	log     *slog.Logger
	start   int64 // ms since the epoch
	timeout time.Duration

	mu     sync.Mutex
	failed map[string]string // source to message of the last try; guarded by mu
	worked map[string]bool   // source to whether it ever gave something; guarded by mu
	spare  *tick             // buffers of the last tick; guarded by mu
	fams   int               // families and series of the last tick, for the next one's arrays; guarded by mu
	series int               // guarded by mu
}

// source is one area of the kernel.
type source struct {
	name string
	read func(*tick) error
	// busy is set while read runs: one that hangs is not called again until it
	// has come back, so that no more goroutines hang than there are sources.
	busy   atomic.Bool
	labels []metric.Label
}

// Problem says that a source gives nothing on this node, and why.
type Problem struct {
	Source  string
	Err     error
	Missing bool // the kernel does not offer it, as opposed to a failure
}

// New prepares the sources. It fails where there is no procfs or sysfs, and on
// a configuration that Validate refuses.
func New(cfg Config, log *slog.Logger) (*Collector, error) {
	return build(cfg, log, hostSystem{})
}

// node is what all sources need.
type node struct {
	cfg      Config
	sys      system
	patterns patterns
	// self is the folder below Proc whose folder net tells of the node's network.
	self string
}

// net is where a file about the network is.
func (n *node) net(file string) string { return filepath.Join(n.self, "net", file) }

func (n *node) proc(path string) string { return filepath.Join(n.cfg.Proc, path) }
func (n *node) sysfs(path string) string {
	return filepath.Join(n.cfg.Sys, path)
}

func build(cfg Config, log *slog.Logger, sys system) (*Collector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	var err error
	n := &node{cfg: cfg, sys: sys}
	if n.patterns, err = compile(cfg); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	if cfg.Boot.IsZero() {
		if cfg.Boot, err = BootTime(cfg.Proc); err != nil {
			return nil, fmt.Errorf("collect: %w", err)
		}
	}
	// proc/net is that of the reader's own network, which in a container need
	// not be the node's. The first process has the node's.
	n.self = n.proc("1")
	if _, err := os.Stat(n.net("dev")); err != nil {
		n.self = n.cfg.Proc
	}
	c := &Collector{log: log, start: cfg.Boot.UnixMilli(), timeout: cfg.Timeout, failed: map[string]string{}, worked: map[string]bool{}}
	for _, s := range all {
		if on, named := cfg.Collectors[s.name]; named && !on {
			continue
		}
		read, err := s.build(n)
		if err != nil {
			return nil, fmt.Errorf("collect: prepare %s: %w", s.name, err)
		}
		c.sources = append(c.sources, &source{name: s.name, read: read, labels: metric.Labels("collector", s.name)})
	}
	return c, nil
}

var (
	scrapeDuration = gauge("node_scrape_collector_duration_seconds", "How long it took to read the source.")
	scrapeSuccess  = gauge("node_scrape_collector_success", "1 where the source could be read at this tick, else 0.")
)

// Collect reads every source once, and returns within the configured timeout. A
// source that fails is told in the log when its message changes, and in
// node_scrape_collector_success at every tick.
func (c *Collector) Collect(now time.Time) []metric.Family {
	c.mu.Lock()
	defer c.mu.Unlock()
	results, pages := c.run(now)
	last := pages[len(pages)-1]
	last.family(scrapeDuration)
	for i, s := range c.sources {
		last.add(s.labels, results[i].took.Seconds())
	}
	last.family(scrapeSuccess)
	for i, s := range c.sources {
		c.tell(s.name, results[i].err)
		last.add(s.labels, bit(results[i].err == nil))
	}
	last.close()
	fams := pages[0].fams
	for _, p := range pages[1:] {
		fams = append(fams[:len(fams):len(fams)], p.fams...)
	}
	c.fams, c.series = len(fams), metric.Count(fams)
	return fams
}

// Problems reads every source once and returns those that give nothing.
func (c *Collector) Problems(now time.Time) []Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	results, _ := c.run(now)
	var ps []Problem
	for i, s := range c.sources {
		if err := results[i].err; err != nil {
			ps = append(ps, Problem{s.name, err, errors.Is(err, fs.ErrNotExist)})
		}
	}
	return ps
}

func (c *Collector) tell(name string, err error) {
	before := c.failed[name]
	switch {
	case err == nil:
		c.worked[name] = true
		if before != "" {
			delete(c.failed, name)
			c.log.Info("node source can be read again", "source", name)
		}
	case err.Error() != before:
		c.failed[name] = err.Error()
		if errors.Is(err, fs.ErrNotExist) && !c.worked[name] {
			// No node has all hardware.
			c.log.Debug("this node does not have what the source reads", "source", name, "error", err)
			return
		}
		c.log.Warn("node source gives nothing", "source", name, "error", err)
	}
}

// BootTime returns when the kernel below the given procfs says it booted, to
// the second. What it says can shift when the clock is corrected.
func BootTime(proc string) (time.Time, error) {
	p, err := procfs.NewFS(proc)
	if err != nil {
		return time.Time{}, fmt.Errorf("read boot time: %w", err)
	}
	st, err := p.Stat()
	if err != nil {
		return time.Time{}, fmt.Errorf("read boot time: %w", err)
	}
	if st.BootTime == 0 {
		return time.Time{}, fmt.Errorf("read boot time: %s/stat has no btime", proc)
	}
	return time.Unix(int64(st.BootTime), 0), nil
}
