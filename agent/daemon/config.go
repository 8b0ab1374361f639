package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nines/agent/forward"
	"nines/pkg/strictyaml"
)

// Config is the agent's file. Every key has a default.
type Config struct {
	Cluster string  `yaml:"cluster"` // label on everything that the agent sends
	Node    string  `yaml:"node"`    // empty: the host's name
	State   string  `yaml:"state"`   // folder of the queue and the checkpoints
	Listen  string  `yaml:"listen"`  // host:port of /metrics, /metrics/node, /healthz, /readyz
	Metrics Metrics `yaml:"metrics"`
	Logs    Logs    `yaml:"logs"`
}

// Metrics says how often the node is read, and where the samples go.
type Metrics struct {
	Interval time.Duration         `yaml:"interval"` // from 1s to 1m
	SendTo   []forward.Destination `yaml:"send_to"`  // empty: samples are served, not sent
}

// DefaultConfig is the agent without a file: it sends to an aggregator on the
// same host and writes logs to a folder.
func DefaultConfig() Config {
	return Config{
		Cluster: "default",
		State:   "./nines-agent",
		Listen:  "127.0.0.1:9191",
		Metrics: Metrics{
			Interval: 15 * time.Second,
			SendTo:   []forward.Destination{{URL: "http://127.0.0.1:9190/api/v1/write"}},
		},
		Logs: defaultLogs(),
	}
}

// The heartbeat counts UTC minutes in which the agent collected, so it must
// collect in each.
const (
	minInterval = time.Second
	maxInterval = time.Minute
)

// Validate names the key that is wrong, and the remedy.
func (c Config) Validate() error {
	_, _, listenErr := net.SplitHostPort(c.Listen)
	send := forward.DefaultConfig()
	send.SendTo = c.Metrics.SendTo
	sendErr := send.Validate()
	switch {
	case strings.TrimSpace(c.Cluster) == "":
		return errors.New("cluster is empty: name the cluster, so that the samples of two can be told apart")
	case c.State == "":
		return errors.New("state is empty: name a folder that the agent may write to")
	case listenErr != nil:
		return fmt.Errorf("listen: %w: write it as host:port, such as 127.0.0.1:9191", listenErr)
	case c.Metrics.Interval < minInterval || c.Metrics.Interval > maxInterval:
		return fmt.Errorf("metrics.interval is %v: choose from %v to %v; the heartbeat needs one tick in each minute", c.Metrics.Interval, minInterval, maxInterval)
	case sendErr != nil:
		return fmt.Errorf("metrics.%w", sendErr)
	}
	return c.Logs.Validate()
}

// withHost fills the node's name where the file leaves it empty.
func (c Config) withHost() (Config, error) {
	if c.Node != "" {
		return c, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return c, fmt.Errorf("node is empty and the host has no name: set node: %w", err)
	}
	c.Node = name
	return c, nil
}

// Load reads and checks the file at path. Every message names file, line and
// column where the mistake has one. An empty path gives the defaults.
func Load(path string) (Config, error) {
	cfg := DefaultConfig()
	if path == "" {
		return cfg.withHost()
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		here, wderr := os.Getwd()
		if wderr != nil {
			here = "."
		}
		return cfg, fmt.Errorf("there is no file %s (looked in %s): give --config the path of an existing file, or none to run with the defaults", path, here)
	}
	if err != nil {
		return cfg, fmt.Errorf("read configuration: %w", err)
	}
	file := filepath.Clean(path)
	if err := strictyaml.Decode(file, data, &cfg); err != nil {
		return cfg, err
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("%s%s", placeOf(file, data, err), err)
	}
	return cfg.withHost()
}

// placeOf finds the key that a message of Validate begins with, so that people
// need not search for it: "file:line:column: ", or "file: ".
func placeOf(file string, data []byte, problem error) string {
	key, _, _ := strings.Cut(problem.Error(), " ")
	key = strings.TrimSuffix(key, ":")
	path := strings.FieldsFunc(key, func(r rune) bool { return strings.ContainsRune(".[]", r) })
	docs, err := strictyaml.Documents(file, data)
	if err != nil || len(docs) == 0 {
		return file + ": "
	}
	n := docs[0].Find(path...)
	return fmt.Sprintf("%s:%d:%d: ", file, n.Line, n.Column)
}
