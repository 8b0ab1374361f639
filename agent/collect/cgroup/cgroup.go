// Package cgroup reads the control groups of this node's containers where
// there is no kubelet to ask, and gives them under the names, labels and types
// of cAdvisor, so that dashboards work unchanged.
//
// It owns finding cgroups of version 1 and 2 below a sys folder, seeing from
// their paths which are containers and pods, and reading their files. It
// refuses to ask a container runtime: names beyond the ID come from a function
// that the wiring gives, or are not there. What cannot be read is left out and
// takes nothing else with it. Data enters as files and leaves as families.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/pkg/metric"
	"nines/pkg/ops"
)

// Config says where cgroups are, and which of them are read.
type Config struct {
	Enabled    string `yaml:"enabled"`     // true, false, or auto: where the kubelet is not asked
	Sys        string `yaml:"sys"`         // mount point of the node's sysfs
	Proc       string `yaml:"proc"`        // mount point of the node's procfs, for networks of containers
	Root       string `yaml:"root"`        // of all cgroups, below sys
	Services   bool   `yaml:"services"`    // also systemd's services, which are cgroups without a container
	MaxCgroups int    `yaml:"max_cgroups"` // beyond them, the ones that come later in the order of paths are left out
}

// DefaultConfig reads the host that the program runs on. Its bound is far more
// than nodes have: kubelets of 110 pods of 3 containers make some 500 cgroups.
func DefaultConfig() Config {
	return Config{Enabled: "auto", Sys: "/sys", Proc: "/proc", Root: "fs/cgroup", MaxCgroups: 2000}
}

// On says whether cgroups are read, given whether the kubelet is asked.
func (c Config) On(kubelet bool) bool {
	switch c.Enabled {
	case "true":
		return true
	case "auto", "":
		return !kubelet
	}
	return false
}

// maxMaxCgroups bounds Config.MaxCgroups: 40 series each make 800,000 samples.
const maxMaxCgroups = 20_000

// Validate names the field that is wrong, and the remedy. Folders are looked at
// where enabled is true; with auto a host may be without cgroups.
func (c Config) Validate() error {
	if !slices.Contains([]string{"", "auto", "true", "false"}, c.Enabled) {
		return fmt.Errorf("enabled %q must be true, false, or auto (where the kubelet is not asked)", c.Enabled)
	}
	if c.Enabled == "false" {
		return nil
	}
	if c.MaxCgroups < 1 || c.MaxCgroups > maxMaxCgroups {
		return fmt.Errorf("max_cgroups %d must lie between 1 and %d", c.MaxCgroups, maxMaxCgroups)
	}
	if !filepath.IsLocal(c.Root) {
		return fmt.Errorf("root %q must be a folder below sys, such as fs/cgroup", c.Root)
	}
	if c.Enabled != "true" {
		return nil
	}
	for _, f := range []struct{ key, path string }{{"sys", c.Sys}, {"root", filepath.Join(c.Sys, c.Root)}} {
		info, err := os.Stat(f.path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a folder", f.path)
		}
		if err != nil {
			return fmt.Errorf("%s: %w: in a container, mount the node's /sys and name where", f.key, ops.Remedy(err))
		}
	}
	return nil
}

// Names says what a container is, by its ID. ok is false where nobody knows it.
type Names func(containerID string) (namespace, pod, container, image string, ok bool)

// Collector reads all cgroups. It is safe for concurrent use; two collections
// take turns.
type Collector struct {
	cfg   Config
	names Names
	log   *slog.Logger

	failed map[string]*metrics.Counter // by reason

	mu     sync.Mutex
	began  map[string]time.Time // path to when it was made, of cgroups that are there; guarded by mu
	buffer bytes.Buffer         // of the file that is read; at most maxList; guarded by mu
	disks  map[string]string    // MAJOR:MINOR to name, for one tick; guarded by mu
	said   string               // what was told last; guarded by mu
	given  int                  // at the newest tick; guarded by mu
	left   int                  // at the newest tick; guarded by mu
}

// Reasons of metric.CgroupReadFailure.
const (
	unreadable = "unreadable"
	malformed  = "malformed"
	tooLarge   = "too_large"
)

// New prepares reading. names may be nil: then series have id and name alone.
func New(cfg Config, names Names, log *slog.Logger, set *metrics.Set) (*Collector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	c := &Collector{cfg: cfg, names: names, log: log, began: map[string]time.Time{}, failed: map[string]*metrics.Counter{}}
	for _, reason := range []string{unreadable, malformed, tooLarge} {
		c.failed[reason] = set.GetOrCreateCounter(fmt.Sprintf("%s{reason=%q}", metric.CgroupReadFailure, reason))
	}
	set.NewGauge(metric.CgroupsGiven, func() float64 { c.mu.Lock(); defer c.mu.Unlock(); return float64(c.given) })
	set.NewGauge(metric.CgroupsLeftOut, func() float64 { c.mu.Lock(); defer c.mu.Unlock(); return float64(c.left) })
	return c, nil
}

// Collect reads all cgroups once. It never fails as a whole: where there are
// none, there are no families, and the log says so when that changes.
func (c *Collector) Collect(now time.Time) []metric.Family {
	c.mu.Lock()
	defer c.mu.Unlock()
	tree, err := c.find()
	if err != nil {
		c.given, c.left = 0, 0
		clear(c.began)
		c.tell("no cgroups can be read", err)
		return nil
	}
	c.given, c.left = len(tree.groups), tree.left
	if c.left > 0 {
		c.tell("cgroups are left out", fmt.Errorf("%d of %d: raise max_cgroups, or see what makes so many", c.left, c.left+c.given))
	} else {
		c.tell("", nil)
	}

	c.disks = map[string]string{}
	there := map[string]time.Time{}
	for i := range tree.groups {
		g := &tree.groups[i]
		c.read(g, tree.unified)
		if g.kind == container || g.kind == pod {
			first, known := c.began[g.path]
			if made := g.made(); !known || !made.IsZero() && made.Before(first) {
				first = made
			}
			if !first.IsZero() {
				there[g.path] = first
				g.set(startTime, float64(first.Unix()))
			}
			g.set(lastSeen, float64(now.Unix()))
		}
	}
	c.began = there
	c.label(tree.groups)
	c.network(tree.groups)
	return families(tree.groups)
}

// tell says in the log what changed. An empty message says that all is well.
func (c *Collector) tell(message string, err error) {
	text := message
	if err != nil {
		text += ": " + err.Error()
	}
	if text == c.said {
		return
	}
	c.said = text
	if message == "" {
		c.log.Info("all cgroups are read again")
		return
	}
	c.log.Warn(message, "error", err)
}

var errNone = errors.New("neither cgroup.controllers (version 2) nor a folder memory, cpu, cpuacct, pids or blkio (version 1)")
