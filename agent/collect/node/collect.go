// Package node reads what the kernel says about this node and turns it into
// samples under the names, labels and types of Prometheus' node_exporter, so
// that stock dashboards and rules work unchanged.
//
// It owns one source for each area of the kernel (cpu, meminfo, …): thin
// reading, mostly through procfs, and a pure function from what was read to
// families. It refuses to send, store or serve anything, and a source that
// fails takes no other with it: node_scrape_collector_success says so. Data
// enters as files below a proc and a sys folder and leaves as families.
package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"

	"nines/pkg/metric"
)

// Config says where the node is found.
type Config struct {
	Proc string // mount point of procfs
	Sys  string // mount point of sysfs
	Root string // where the node's root file system is seen, "/" outside containers
	// Boot is when the node booted. Zero: read from procfs by New. It is the
	// start timestamp of counters that begin at zero with the kernel. Keep it
	// the same while the kernel runs: what procfs says shifts with each
	// correction of the clock.
	Boot time.Time
}

// DefaultConfig reads the host that the program runs on.
func DefaultConfig() Config { return Config{Proc: "/proc", Sys: "/sys", Root: "/"} }

// Validate names the field that is wrong, and the remedy.
func (c Config) Validate() error {
	for _, f := range []struct{ name, path, remedy string }{
		{"proc", c.Proc, "mount procfs there, or name the folder where the host's is mounted"},
		{"sys", c.Sys, "mount sysfs there, or name the folder where the host's is mounted"},
		{"root", c.Root, "name the folder where the host's root file system is seen, / outside containers"},
	} {
		info, err := os.Stat(f.path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a folder", f.path)
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", f.name, err, f.remedy)
		}
	}
	return nil
}

// Collector reads all sources. It is safe for concurrent use; two collections
// take turns, because the cpu source keeps its counters from falling.
type Collector struct {
	sources []source
	log     *slog.Logger

	mu     sync.Mutex
	failed map[string]string // source to message of the last try; guarded by mu
}

// source is one area of the kernel.
type source struct {
	name string
	read func(now time.Time) ([]metric.Family, error)
}

// Problem says that a source gives nothing on this node, and why.
type Problem struct {
	Source  string
	Err     error
	Missing bool // the kernel does not offer it, as opposed to a failure
}

// New prepares all sources. It fails only where there is no procfs or sysfs.
func New(cfg Config, log *slog.Logger) (*Collector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	return build(cfg, log, hostSystem{})
}

func build(cfg Config, log *slog.Logger, sys system) (*Collector, error) {
	proc, err := procfs.NewFS(cfg.Proc)
	if err != nil {
		return nil, fmt.Errorf("collect: open procfs: %w", err)
	}
	block, err := blockdevice.NewFS(cfg.Proc, cfg.Sys)
	if err != nil {
		return nil, fmt.Errorf("collect: open sysfs: %w", err)
	}
	if cfg.Boot.IsZero() {
		if cfg.Boot, err = BootTime(cfg.Proc); err != nil {
			return nil, fmt.Errorf("collect: %w", err)
		}
	}
	n := node{cfg: cfg, proc: proc, block: block, sys: sys, start: cfg.Boot.UnixMilli()}
	c := &Collector{log: log, failed: map[string]string{}}
	c.sources = []source{
		{"cpu", newCPU(n).read},
		{"diskstats", n.disks},
		{"filefd", n.fileDescriptors},
		{"filesystem", newFilesystems(n).read},
		{"loadavg", n.load},
		{"meminfo", n.memory},
		{"netdev", n.network},
		{"pressure", n.pressure},
		{"stat", n.stat},
		{"time", n.time},
		{"uname", n.uname},
		{"vmstat", n.vmstat},
	}
	return c, nil
}

// node is what all sources need.
type node struct {
	cfg   Config
	proc  procfs.FS
	block blockdevice.FS
	sys   system
	start int64 // of counters that began with the kernel, ms since the epoch
}

// Collect reads every source once. A source that fails is told in the log when
// its message changes, and in node_scrape_collector_success at every tick.
func (c *Collector) Collect(now time.Time) []metric.Family {
	c.mu.Lock()
	defer c.mu.Unlock()
	success := metric.Family{Name: "node_scrape_collector_success", Type: metric.Gauge,
		Help: "1 where the source could be read at this tick, else 0."}
	duration := metric.Family{Name: "node_scrape_collector_duration_seconds", Type: metric.Gauge, Unit: "seconds",
		Help: "How long it took to read the source."}
	var fams []metric.Family
	for _, s := range c.sources {
		began := time.Now()
		got, err := s.tryRead(now)
		ok := 1.0
		if err != nil {
			ok, got = 0, nil
		}
		c.tell(s.name, err)
		ls := metric.Labels("collector", s.name)
		success.Series = append(success.Series, metric.Series{Labels: ls, Value: ok})
		duration.Series = append(duration.Series, metric.Series{Labels: ls, Value: time.Since(began).Seconds()})
		fams = append(fams, got...)
	}
	return append(fams, duration, success)
}

// Problems reads every source once and returns those that give nothing.
func (c *Collector) Problems(now time.Time) []Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ps []Problem
	for _, s := range c.sources {
		if _, err := s.tryRead(now); err != nil {
			ps = append(ps, Problem{s.name, err, errors.Is(err, fs.ErrNotExist)})
		}
	}
	return ps
}

// tryRead turns a panic of a parser (procfs indexes fields of lines that the
// kernel always writes) into an error of this source alone.
func (s source) tryRead(now time.Time) (fams []metric.Family, err error) {
	defer func() {
		if p := recover(); p != nil {
			fams, err = nil, fmt.Errorf("read %s: malformed kernel text: %v", s.name, p)
		}
	}()
	fams, err = s.read(now)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	return fams, nil
}

func (c *Collector) tell(name string, err error) {
	before := c.failed[name]
	switch {
	case err == nil && before != "":
		delete(c.failed, name)
		c.log.Info("node source can be read again", "source", name)
	case err != nil && before != err.Error():
		c.failed[name] = err.Error()
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

// one makes a family of a single sample without labels.
func one(name, help string, typ metric.Type, start int64, v float64) metric.Family {
	return metric.Family{Name: name, Help: help, Unit: unitOf(name), Type: typ, Series: []metric.Series{{Value: v, Start: start}}}
}
