package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nines/agent/collect/node"
	"nines/pkg/ops"
)

// Plan is what an agent will do on this host, in plain words.
type Plan struct {
	Node    string   `json:"node"`
	Cluster string   `json:"cluster"`
	Will    []string `json:"will"`
	Cannot  []string `json:"cannot"` // and why; empty where nothing stands in its way
}

// Foresee says what an agent with this configuration will do on this host, and
// what it cannot do here and why. It changes nothing.
func Foresee(cfg Config) (Plan, error) {
	does, cannot := []string{}, []string{}
	do := func(format string, a ...any) { does = append(does, fmt.Sprintf(format, a...)) }
	not := func(format string, a ...any) { cannot = append(cannot, fmt.Sprintf(format, a...)) }

	do("read the node's figures every %v and serve them at http://%s/metrics/node", cfg.Metrics.Interval, cfg.Listen)
	quiet := slog.New(slog.DiscardHandler)
	if c, err := node.New(cfg.Metrics.Node, quiet); err != nil {
		not("read the node's figures: %v", err)
	} else {
		var missing []string
		for _, p := range c.Problems(time.Now()) {
			if p.Missing {
				missing = append(missing, p.Source)
			} else {
				not("tell about %s: %v", p.Source, p.Err)
			}
		}
		if len(missing) > 0 {
			not("tell about %s: this node has nothing of the kind, or its kernel does not tell", strings.Join(missing, ", "))
		}
	}
	explainSources(cfg, do, not)
	if len(cfg.Metrics.SendTo) == 0 {
		do("send no samples, because metrics.send_to is empty")
	}
	for _, to := range cfg.Metrics.SendTo {
		u, err := url.Parse(to.URL)
		if err != nil {
			return Plan{}, fmt.Errorf("metrics.send_to: %w", err)
		}
		do("send them to %s by remote write", u.Redacted())
		if err := to.Check(); err != nil {
			not("send to %s: %v", u.Redacted(), err)
		}
		if err := reachable(u); err != nil {
			not("reach %s at this moment: %v; until it answers, samples wait in the queue", u.Redacted(), ops.Remedy(err))
		}
	}
	if len(cfg.Metrics.SendTo) > 0 {
		do("keep up to %d MiB of samples in %s while a destination does not answer; the oldest are dropped beyond that",
			cfg.Metrics.Queue>>20, filepath.Join(cfg.State, "metrics"))
	}
	explainLogs(cfg, do, not)

	holder := holderOf(cfg.State)
	if held := (*ops.HeldError)(nil); errors.As(holder, &held) {
		not("be started now: %v", held)
	} else {
		if holder != nil {
			not("keep its state: %v", ops.Remedy(holder))
		}
		if l, err := ops.Listen("listen", cfg.Listen); err != nil {
			not("serve its pages: %v", err)
		} else if err := l.Close(); err != nil {
			return Plan{}, fmt.Errorf("close the address tried: %w", err)
		}
	}

	return Plan{cfg.Node, cfg.Cluster, does, cannot}, nil
}

// String returns the plan as a list.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The agent, as node %q of cluster %q, will\n", p.Node, p.Cluster)
	for _, s := range p.Will {
		fmt.Fprintf(&b, "  - %s\n", s)
	}
	if len(p.Cannot) == 0 {
		b.WriteString("Nothing stands in its way on this host.\n")
		return b.String()
	}
	b.WriteString("On this host it cannot\n")
	for _, s := range p.Cannot {
		fmt.Fprintf(&b, "  - %s\n", s)
	}
	return b.String()
}

// reachable opens a connection and closes it.
func reachable(u *url.URL) error {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	c, err := net.DialTimeout("tcp", net.JoinHostPort(u.Hostname(), port), 2*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// holderOf returns nil where the folder could be used: it is there, writable
// and free, or the nearest folder above it can be written to.
func holderOf(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("state: %s is a file: choose another folder", dir)
	case err == nil:
		l, err := ops.LockFolder(dir)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		return l.Unlock()
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("state: %w", err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if parent == dir {
		return nil
	}
	if _, err := os.Stat(parent); errors.Is(err, os.ErrNotExist) {
		return holderOf(parent)
	}
	probe, err := os.CreateTemp(parent, ".nines-check-*")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}
