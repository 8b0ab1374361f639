package targets

import (
	"errors"
	"fmt"
	"path"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"nines/pkg/ops"
)

// Config says which pods of this node are scraped.
type Config struct {
	// Annotations has pods scraped that carry prometheus.io/scrape: "true".
	Annotations bool `yaml:"annotations"`
	// PodMonitors has pods scraped that a PodMonitor selects, of those PodMonitors
	// that PodMonitorSelector does, written as for kubectl --selector; empty: all.
	PodMonitors        bool   `yaml:"pod_monitors"`
	PodMonitorSelector string `yaml:"pod_monitor_selector"`
	// Namespaces and ExcludeNamespaces are patterns of the namespaces of pods,
	// such as kube-*: those to scrape (empty: all) and those to leave out.
	Namespaces        []string `yaml:"namespaces"`
	ExcludeNamespaces []string `yaml:"exclude_namespaces"`
	// Interval and Timeout hold where a PodMonitor has none of its own, and for
	// annotations. Interval is from 1s to 1h; Timeout is no longer than it.
	Interval time.Duration `yaml:"interval"`
	Timeout  time.Duration `yaml:"timeout"`
	Limits   Limits        `yaml:"limits"`
}

// Limits hold for each job. Where a PodMonitor has one of its own, the smaller
// stands. 0: that of a job of package scrape, which has none for targets.
type Limits struct {
	Targets          int      `yaml:"targets"`            // of this node; a job with more is not scraped
	Samples          int      `yaml:"samples"`            // of a scrape; one with more fails
	BodySize         ops.Size `yaml:"body_size"`          // of an answer, uncompressed; a longer one fails
	Labels           int      `yaml:"labels"`             // of a sample; a scrape with more fails
	LabelNameLength  int      `yaml:"label_name_length"`  // in bytes
	LabelValueLength int      `yaml:"label_value_length"` // in bytes
	// PodMonitors bounds those that are looked at, in the order of their names;
	// what is beyond is told. From 1.
	PodMonitors int `yaml:"pod_monitors"`
}

const (
	minInterval = time.Second
	maxInterval = time.Hour
)

// DefaultConfig scrapes what asks for it, as often as the Prometheus Operator
// does by default (30 s).
func DefaultConfig() Config {
	return Config{
		Annotations: true, PodMonitors: true, Interval: 30 * time.Second, Timeout: 10 * time.Second,
		Limits: Limits{Targets: 1000, BodySize: 64 << 20, PodMonitors: 2000},
	}
}

// Validate names the key that is wrong, and the remedy.
func (c Config) Validate() error {
	for _, list := range []struct {
		key      string
		patterns []string
	}{{"namespaces", c.Namespaces}, {"exclude_namespaces", c.ExcludeNamespaces}} {
		for i, p := range list.patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				return fmt.Errorf("%s[%d] %q is no pattern: use *, ? and [a-z] as in a shell", list.key, i, p)
			}
		}
	}
	if _, err := labels.Parse(c.PodMonitorSelector); err != nil {
		return fmt.Errorf("pod_monitor_selector %q is no selector: write it as for kubectl --selector, such as team=shop,tier!=test: %w", c.PodMonitorSelector, err)
	}
	for _, l := range []struct {
		key   string
		value int
	}{
		{"targets", c.Limits.Targets}, {"samples", c.Limits.Samples}, {"body_size", int(c.Limits.BodySize)}, {"labels", c.Limits.Labels},
		{"label_name_length", c.Limits.LabelNameLength}, {"label_value_length", c.Limits.LabelValueLength},
	} {
		if l.value < 0 {
			return fmt.Errorf("limits.%s is %d: choose more, or 0 for the one that every job has", l.key, l.value)
		}
	}
	switch {
	case c.Interval < minInterval || c.Interval > maxInterval:
		return fmt.Errorf("interval is %v: choose from %v to %v", c.Interval, minInterval, maxInterval)
	case c.Timeout <= 0 || c.Timeout > c.Interval:
		return fmt.Errorf("timeout is %v: choose more than 0 and no more than interval, which is %v", c.Timeout, c.Interval)
	case c.Limits.PodMonitors < 1:
		return errors.New("limits.pod_monitors is below 1: choose more, or set pod_monitors to false")
	}
	return nil
}

// takes says whether pods of a namespace are scraped.
func (c Config) takes(namespace string) bool {
	is := func(patterns []string) bool {
		for _, p := range patterns {
			if ok, err := path.Match(p, namespace); err == nil && ok {
				return true
			}
		}
		return false
	}
	return (len(c.Namespaces) == 0 || is(c.Namespaces)) && !is(c.ExcludeNamespaces)
}
