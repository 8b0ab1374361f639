package probe

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Config says what is probed, how and how often.
type Config struct {
	Interval time.Duration `yaml:"interval"` // between two probes of a target; from MinInterval to MaxInterval
	Job      string        `yaml:"job"`      // label job of all series, unless a target has its own
	// Concurrent bounds the probes that run at the same time. 0: as many as there
	// are targets, so that none ever waits for another. Lower numbers save memory
	// and let a probe wait for its turn.
	Concurrent int      `yaml:"concurrent"`
	Modules    Modules  `yaml:"modules"` // beside the default ones; the same name replaces
	Targets    []Target `yaml:"targets"` // at most MaxTargets
}

// Target is one thing to probe.
type Target struct {
	Name     string            `yaml:"name"`     // value of the label target; empty: the address
	Module   string            `yaml:"module"`   // how; empty: http_2xx, as in blackbox_exporter
	Target   string            `yaml:"target"`   // address, as the module's prober wants it
	Interval time.Duration     `yaml:"interval"` // 0: that of all
	Timeout  time.Duration     `yaml:"timeout"`  // of one probe; 0: DefaultTimeout, or less where the interval is shorter
	Labels   map[string]string `yaml:"labels"`   // more labels on each of its series
}

// Bounds of the configuration.
const (
	// MaxTargets bounds goroutines and the page of newest results: a target's
	// result takes some 10 kB.
	MaxTargets  = 1000
	MinInterval = time.Second
	// MaxInterval is where stores begin to say that a series is gone: they look
	// back five minutes for a sample.
	MaxInterval = 5 * time.Minute
	// MaxTimeout bounds how long a probe may hold what it has open.
	MaxTimeout = time.Minute
	// Grace is how long Run waits for probes under way once its context ended.
	// Service managers give a whole program 10 to 90 s for its end.
	Grace = 2 * time.Second
	// Spare is kept between time-out and interval, as blackbox_exporter takes it
	// off Prometheus' scrape time-out.
	Spare = 500 * time.Millisecond
	// DefaultTimeout is Prometheus' scrape time-out of 10 s without Spare.
	DefaultTimeout = 10*time.Second - Spare
	// MaxLabels bounds the labels of a target, beside those that it has anyway.
	MaxLabels = 20
	// MaxText bounds addresses and the values of labels, in bytes.
	MaxText = 2048
)

// defaultModule is what blackbox_exporter takes where a request names none.
const defaultModule = "http_2xx"

// DefaultConfig probes nothing.
func DefaultConfig() Config {
	return Config{Interval: 15 * time.Second, Job: "blackbox", Modules: defaultModules()}
}

// Validate names the field that is wrong, and the remedy.
func (c Config) Validate() error {
	switch {
	case c.Interval < MinInterval || c.Interval > MaxInterval:
		return fmt.Errorf("interval is %v: choose from %v to %v", c.Interval, MinInterval, MaxInterval)
	case strings.TrimSpace(c.Job) == "":
		return fmt.Errorf("job is empty: stock dashboards select by it; write blackbox")
	case c.Concurrent < 0 || c.Concurrent > MaxTargets:
		return fmt.Errorf("concurrent is %d: choose from 1 to %d, or 0 for as many as there are targets", c.Concurrent, MaxTargets)
	case len(c.Targets) > MaxTargets:
		return fmt.Errorf("targets has %d entries, at most %d are probed from one node: spread them over more nodes", len(c.Targets), MaxTargets)
	}
	c.Modules = c.Modules.orDefault()
	if err := c.Modules.validate(); err != nil {
		return err
	}
	seen := map[string]int{}
	for i, t := range c.Targets {
		if err := c.validateTarget(t); err != nil {
			return fmt.Errorf("targets[%d].%w", i, err)
		}
		key := fmt.Sprint(c.labels(t))
		if j, twice := seen[key]; twice {
			return fmt.Errorf("targets[%d].target is the same as targets[%d].target with the same module and labels: remove one, or give them names", i, j)
		}
		seen[key] = i
	}
	return nil
}

func (c Config) validateTarget(t Target) error {
	module, ok := c.Modules[t.module()]
	if !ok {
		return fmt.Errorf("module %q is not known; there are %s (define more under modules, as in blackbox.yml)",
			t.module(), strings.Join(slices.Sorted(maps.Keys(c.Modules)), ", "))
	}
	if err := validAddress(module.Prober, t.Target); err != nil {
		return err
	}
	interval := c.interval(t)
	switch {
	case interval < MinInterval || interval > MaxInterval:
		return fmt.Errorf("interval is %v: choose from %v to %v, or leave it out", interval, MinInterval, MaxInterval)
	case t.Timeout < 0 || t.Timeout > MaxTimeout:
		return fmt.Errorf("timeout is %v: choose up to %v, or leave it out", t.Timeout, MaxTimeout)
	case t.Timeout > interval-Spare:
		return fmt.Errorf("timeout is %v and must be at least %v below the interval of %v, so that a probe ends before the next is due: lower it, or raise the interval", t.Timeout, Spare, interval)
	case len(t.Name) > MaxText:
		return fmt.Errorf("name has %d bytes, at most %d are kept", len(t.Name), MaxText)
	case len(t.Labels) > MaxLabels:
		return fmt.Errorf("labels has %d entries, at most %d are kept", len(t.Labels), MaxLabels)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Labels)) {
		value := t.Labels[name]
		switch {
		case !model.LegacyValidation.IsValidLabelName(name):
			return fmt.Errorf("labels has %q, which is no name of a label: begin with a letter, go on with letters, digits and _", name)
		case strings.HasPrefix(name, "__"):
			return fmt.Errorf("labels has %q: names that begin with __ belong to Prometheus", name)
		case slices.Contains([]string{"instance", "module", "target"}, name):
			return fmt.Errorf("labels has %q, which is made of the target itself: use name, or another label", name)
		case slices.Contains([]string{"cluster", "node"}, name):
			return fmt.Errorf("labels has %q, which the agent puts on all that it sends: use another label", name)
		case len(value) > MaxText:
			return fmt.Errorf("labels has %q with %d bytes, at most %d are kept", name, len(value), MaxText)
		}
	}
	return nil
}

// validAddress finds what a prober would otherwise say at each probe, and what
// would show a secret in a label.
func validAddress(prober, address string) error {
	if strings.TrimSpace(address) == "" {
		return fmt.Errorf("target is empty: give the address to probe")
	}
	if len(address) > MaxText {
		return fmt.Errorf("target has %d bytes, at most %d are taken", len(address), MaxText)
	}
	switch prober {
	case "http":
		u, err := url.Parse(withScheme(address))
		switch {
		case err != nil:
			return fmt.Errorf("target is not an address: %w", err)
		case u.Host == "":
			return fmt.Errorf("target %q names no host: write it as http://host:port/path", address)
		case u.User != nil:
			return fmt.Errorf("target %q holds a password or a user, which would stand in a label of each series: use basic_auth of a module", u.Redacted())
		}
	case "tcp":
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("target: %w: write it as host:port", err)
		}
	case "grpc":
		if u, err := url.Parse(withScheme(address)); err != nil || u.Host == "" || u.User != nil {
			return fmt.Errorf("target is not an address: write it as host:port")
		}
	case "icmp":
		_, _, err := net.SplitHostPort(address)
		if strings.Contains(address, "/") || err == nil && net.ParseIP(address) == nil {
			return fmt.Errorf("target %q: a ping goes to a host alone; write it without scheme, port and path", address)
		}
	case "dns":
		if strings.Contains(address, "/") {
			return fmt.Errorf("target %q: name the DNS server as host or host:port; the question stands in the module, as query_name", address)
		}
	}
	return nil
}

func withScheme(address string) string {
	if strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://") {
		return address
	}
	return "http://" + address
}

func (t Target) module() string {
	if t.Module == "" {
		return defaultModule
	}
	return t.Module
}

func (c Config) interval(t Target) time.Duration {
	if t.Interval == 0 {
		return c.Interval
	}
	return t.Interval
}

// timeout is how long one probe may take: what the target says, or what its
// module says where that is less.
func (c Config) timeout(t Target) time.Duration {
	limit := t.Timeout
	if limit == 0 {
		limit = min(DefaultTimeout, c.interval(t)-Spare)
	}
	if own := c.Modules.orDefault()[t.module()].Timeout; own > 0 {
		limit = min(limit, own)
	}
	return limit
}
