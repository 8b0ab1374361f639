package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"nines/pkg/strictyaml"
)

// Config is the agent's file. Every key has a default.
type Config struct {
	Cluster string  `yaml:"cluster"` // label on everything that the agent sends
	Node    string  `yaml:"node"`    // empty: the host's name
	State   string  `yaml:"state"`   // folder of the queue and the checkpoints
	Listen  string  `yaml:"listen"`  // host:port of the pages
	Metrics Metrics `yaml:"metrics"`
	Logs    Logs    `yaml:"logs"`
}

// DefaultConfig is the agent without a file: it sends to an aggregator on the
// same host and writes logs to a folder.
func DefaultConfig() Config {
	return Config{
		Cluster: "default",
		State:   "./nines-agent",
		Listen:  "127.0.0.1:9191",
		Metrics: defaultMetrics(),
		Logs:    defaultLogs(),
	}
}

// Validate names the key that is wrong, and the remedy.
func (c Config) Validate() error {
	_, _, listenErr := net.SplitHostPort(c.Listen)
	switch {
	case strings.TrimSpace(c.Cluster) == "":
		return errors.New("cluster is empty: name the cluster, so that the samples of two can be told apart")
	case c.State == "":
		return errors.New("state is empty: name a folder that the agent may write to")
	case listenErr != nil:
		return fmt.Errorf("listen: %w: write it as host:port, such as 127.0.0.1:9191", listenErr)
	}
	if err := c.Metrics.Validate(); err != nil {
		return fmt.Errorf("metrics.%w", err)
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
