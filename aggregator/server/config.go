package server

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"nines/aggregator/store"
	"nines/pkg/ops"
	"nines/pkg/strictyaml"
)

// Config is the aggregator's file. Every key has a default.
type Config struct {
	// Listen is the address of everything over HTTP.
	Listen string `yaml:"listen"`
	// Data is the folder of all state.
	Data string `yaml:"data"`
	// Cluster labels the aggregator's own series.
	Cluster string `yaml:"cluster"`
	// ExternalURL is where people reach this aggregator; alerts link to it.
	ExternalURL string    `yaml:"external_url"`
	Retention   Retention `yaml:"retention"`
	// SLOs are folders of OpenSLO documents, read again when they change.
	SLOs []string `yaml:"slos"`
	// Alertmanagers are base URLs; each gets every alert.
	Alertmanagers []string `yaml:"alertmanagers"`
	Reports       Reports  `yaml:"reports"`
	// Limits says how much one cluster, namespace or sender may store.
	Limits store.Limits `yaml:"limits"`
}

// Retention says how long things are kept.
type Retention struct {
	// Metrics is how long raw samples are kept, at least 3 hours.
	Metrics Span `yaml:"metrics"`
	// MetricsSize bounds the folder of raw samples; the oldest go first.
	MetricsSize ops.Size `yaml:"metrics_size"`
	// Late is how much older than the newest sample a late one may be, up to
	// Metrics: as old as agents' queues may grow (their metrics.queue_age).
	Late Span `yaml:"late"`
	// Ledger is how long minutes are kept.
	Ledger Span `yaml:"ledger"`
}

// Reports configures the monthly report.
type Reports struct {
	// Timezone is the IANA zone of the calendar month.
	Timezone string `yaml:"timezone"`
}

// Span is a duration that may be given in days: 15d, 12h, 90m.
type Span time.Duration

// UnmarshalYAML reads a Span.
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	d, err := ParseSpan(n.Value)
	if err != nil {
		return err
	}
	*s = Span(d)
	return nil
}

// ParseSpan reads 15d, 2w, 12h, 90m or 30s.
func ParseSpan(text string) (time.Duration, error) {
	t := strings.TrimSpace(text)
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if n, ok := strings.CutSuffix(t, suffix); ok {
			if v, err := strconv.ParseUint(n, 10, 16); err == nil {
				return time.Duration(v) * unit, nil
			}
		}
	}
	d, err := time.ParseDuration(t)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("want a span of time such as 15d, 12h or 90m, got %q", text)
	}
	return d, nil
}

// DefaultConfig runs on this machine alone, without a file.
func DefaultConfig() Config {
	return Config{
		Listen:  "127.0.0.1:9190",
		Data:    "./nines-data",
		Cluster: "default",
		Retention: Retention{
			Metrics:     Span(15 * 24 * time.Hour),
			MetricsSize: 5 << 30,
			Late:        Span(24 * time.Hour),
			Ledger:      Span(400 * 24 * time.Hour),
		},
		Reports: Reports{Timezone: "UTC"},
		Limits:  store.DefaultLimits(),
	}
}

// LoadConfig reads a file over the defaults. Paths in it are relative to the
// folder that the program runs in.
func LoadConfig(path string) (Config, error) {
	c := DefaultConfig()
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	if err := strictyaml.Decode(path, data, &c); err != nil {
		return c, err
	}
	return c, nil
}

// Validate names the first field that cannot work, and the remedy.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen: %q is not host:port (such as 127.0.0.1:9190, or :9190 for all addresses)", c.Listen)
	}
	if c.Data == "" {
		return fmt.Errorf("data: name the folder for all state (such as ./nines-data)")
	}
	if d := time.Duration(c.Retention.Metrics); d < 3*time.Hour {
		return fmt.Errorf("retention.metrics: %s is too short: open minutes are rebuilt from raw samples, keep at least 3h", d)
	}
	if c.Retention.MetricsSize < 100<<20 {
		return fmt.Errorf("retention.metrics_size: %d bytes is too small: give at least 100MiB", c.Retention.MetricsSize)
	}
	if d := time.Duration(c.Retention.Late); d < 0 {
		return fmt.Errorf("retention.late: %s: give 0 (no late samples) to retention.metrics, as long as agents' queues may hold samples back", d)
	}
	if d := time.Duration(c.Retention.Ledger); d < 32*24*time.Hour {
		return fmt.Errorf("retention.ledger: %s is shorter than a month's report needs: keep at least 32d", d)
	}
	if _, err := time.LoadLocation(c.Reports.Timezone); err != nil || c.Reports.Timezone == "" {
		return fmt.Errorf("reports.timezone: %q is not an IANA time zone (such as Europe/Berlin)", c.Reports.Timezone)
	}
	for i, u := range c.Alertmanagers {
		if err := httpURL(u); err != nil {
			return fmt.Errorf("alertmanagers[%d]: %w", i, err)
		}
	}
	if err := c.Limits.Validate(); err != nil {
		return err
	}
	if c.ExternalURL != "" {
		if err := httpURL(c.ExternalURL); err != nil {
			return fmt.Errorf("external_url: %w", err)
		}
	}
	for i, d := range c.SLOs {
		if info, err := os.Stat(d); err != nil {
			return fmt.Errorf("slos[%d]: %w (create the folder, or take it out of the list)", i, err)
		} else if !info.IsDir() {
			return fmt.Errorf("slos[%d]: %s is a file; name the folder that holds it", i, d)
		}
	}
	return nil
}

func httpURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is not a URL such as http://127.0.0.1:9093", s)
	}
	return nil
}

// external returns the address that people reach this aggregator at.
func (c Config) external() string {
	if c.ExternalURL != "" {
		return strings.TrimSuffix(c.ExternalURL, "/")
	}
	host, port, _ := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return "http://" + net.JoinHostPort(host, port)
}

func (c Config) folder(name string) string { return filepath.Join(c.Data, name) }
