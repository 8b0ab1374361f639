package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"nines/e2e/parts"
)

// bin builds our two programs, once for a test run, into the cache.
var bin = sync.OnceValues(func() (string, error) {
	root, err := parts.Root()
	if err != nil {
		return "", err
	}
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module's folder: %w", err)
	}
	dir := filepath.Join(filepath.Dir(root), "bin")
	for name, pkg := range map[string]string{"nines-agent": "./agent", "nines-aggregator": "./aggregator"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Dir = string(module[:len(module)-1])
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	return dir, nil
})

// Program returns the path of nines-agent or nines-aggregator.
func (l *Lab) Program(name string) string {
	l.t.Helper()
	dir, err := bin()
	if err != nil {
		l.t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// part returns the folder of a part.
func (l *Lab) part(p parts.Part) string {
	l.t.Helper()
	dir, err := parts.Get(context.Background(), p, func(line string) { l.Say("%s", line) })
	if err != nil {
		l.t.Fatal(err)
	}
	return dir
}

// Aggregator is a running nines-aggregator.
type Aggregator struct {
	*Process
	URL  string
	Data string
}

// Aggregator starts one that is embedded on this host, with its state in the lab.
func (l *Lab) Aggregator(options ...string) *Aggregator {
	l.t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", l.Port())
	a := &Aggregator{URL: "http://" + listen, Data: l.Dir("aggregator")}
	a.Process = l.Start(Command{
		Name: "nines-aggregator", Path: l.Program("nines-aggregator"), Dir: l.dir,
		Args:  append([]string{"serve", "--listen", listen, "--data", a.Data}, options...),
		Ready: func() error { _, err := Get(a.URL + "/healthz"); return err },
	})
	return a
}

// Agent is a running nines-agent.
type Agent struct {
	*Process
	URL   string
	State string
}

// AgentConfig is what tests vary; all else is fixed.
type AgentConfig struct {
	Node     string        // host name where empty
	Interval time.Duration // of the metrics, 5 s where 0
	SendTo   string        // URL of an aggregator, empty for none
	// Logs: patterns of files and where they go; none where both are empty.
	Paths         []string
	Elasticsearch string // URL
	Files         string // folder
}

// Agent starts one with its state in the lab.
func (l *Lab) Agent(c AgentConfig) *Agent {
	l.t.Helper()
	if c.Interval == 0 {
		c.Interval = 5 * time.Second
	}
	listen := fmt.Sprintf("127.0.0.1:%d", l.Port())
	a := &Agent{URL: "http://" + listen, State: l.Dir("agent")}
	config := fmt.Sprintf("cluster: e2e\nnode: %q\nstate: %q\nlisten: %s\nmetrics:\n  interval: %s\n", c.Node, a.State, listen, c.Interval)
	if c.SendTo == "" {
		config += "  send_to: []\n"
	} else {
		config += fmt.Sprintf("  send_to: [{url: %q}]\n", c.SendTo+"/api/v1/write")
	}
	config += "logs:\n"
	if len(c.Paths) == 0 {
		config += "  sources: []\n"
	} else {
		config += "  sources:\n  - type: files\n    paths:\n"
		for _, p := range c.Paths {
			config += fmt.Sprintf("    - %q\n", p)
		}
	}
	if c.Elasticsearch != "" {
		config += fmt.Sprintf("  destination: {elasticsearch: {urls: [%q]}}\n", c.Elasticsearch)
	} else {
		if c.Files == "" {
			c.Files = l.Dir("agent-logs")
		}
		config += fmt.Sprintf("  destination: {files: {directory: %q}}\n", c.Files)
	}
	a.Process = l.Start(Command{
		Name: "nines-agent", Path: l.Program("nines-agent"), Dir: l.dir,
		Args:  []string{"--config", l.Write("agent.yaml", config)},
		Ready: func() error { _, err := Get(a.URL + "/healthz"); return err },
	})
	return a
}
