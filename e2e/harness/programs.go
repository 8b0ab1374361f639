package harness

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	Cluster  string        // "e2e" where empty
	Node     string        // host name where empty
	Interval time.Duration // of the metrics, 5 s where 0
	SendTo   string        // URL of an aggregator, empty for none
	Also     []string      // URLs of other aggregators
	Metrics  string        // what stands below the key metrics beside that
	// Logs: patterns of files and where they go; none where both are empty.
	Paths         []string
	Elasticsearch string // URL
	Files         string // folder
	// Logs is what stands below the key logs, for tests that name sources and
	// destinations themselves; the three above are then without effect.
	Logs string
	// Env is added to the environment of the agent.
	Env []string
	// Core runs the agent on that core alone, from 0; nil on all.
	Core *int
}

// Agent starts one with its state in the lab.
func (l *Lab) Agent(c AgentConfig) *Agent {
	l.t.Helper()
	if c.Interval == 0 {
		c.Interval = 5 * time.Second
	}
	listen := fmt.Sprintf("127.0.0.1:%d", l.Port())
	a := &Agent{URL: "http://" + listen, State: l.Dir("agent")}
	config := fmt.Sprintf("cluster: %q\nnode: %q\nstate: %q\nlisten: %s\nmetrics:\n  interval: %s\n", cmp.Or(c.Cluster, "e2e"), c.Node, a.State, listen, c.Interval)
	if c.SendTo == "" {
		config += "  send_to: []\n"
	} else {
		config += "  send_to:\n"
		for _, url := range append([]string{c.SendTo}, c.Also...) {
			config += fmt.Sprintf("  - {url: %q}\n", url+"/api/v1/write")
		}
	}
	config += indented(c.Metrics)
	config += "logs:\n" + l.logs(c)
	path, args := l.Program("nines-agent"), []string{"--config", l.Write("agent.yaml", config)}
	if c.Core != nil {
		args = append([]string{"-c", strconv.Itoa(*c.Core), path}, args...)
		path = "taskset" // of util-linux; it becomes the agent
	}
	a.Process = l.Start(Command{
		Name: "nines-agent", Path: path, Dir: l.dir, Env: c.Env, Args: args,
		Ready: func() error { _, err := Get(a.URL + "/healthz"); return err },
	})
	return a
}

// indented is a text as it stands below a key.
func indented(text string) (config string) {
	if text == "" {
		return ""
	}
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		config += "  " + line
	}
	return config + "\n"
}

// logs is what stands below the key logs.
func (l *Lab) logs(c AgentConfig) (config string) {
	if c.Logs != "" {
		return indented(c.Logs)
	}
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
	return config
}

// Figures are the series of a program's /metrics, by name and labels as they
// stand there.
type Figures map[string]float64

// Figures reads what the agent says of itself.
func (a *Agent) Figures() (Figures, error) {
	data, err := Get(a.URL + "/metrics")
	if err != nil {
		return nil, err
	}
	return parseFigures(data)
}

func parseFigures(page []byte) (Figures, error) {
	out := Figures{}
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		cut := strings.LastIndexByte(line, '}') + 1
		if cut == 0 {
			cut = strings.IndexByte(line, ' ')
		}
		fields := strings.Fields(line[max(cut, 0):])
		if cut <= 0 || len(fields) == 0 {
			return nil, fmt.Errorf("no figure: %q", line)
		}
		v, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, fmt.Errorf("no figure: %q: %w", line, err)
		}
		out[line[:cut]] = v
	}
	return out, nil
}

// Sum adds the series of a name that have all the given labels, each written as
// in `state="stored"`. found is false where there is none.
func (f Figures) Sum(name string, labels ...string) (sum float64, found bool) {
next:
	for series, v := range f {
		n, rest, _ := strings.Cut(series, "{")
		if n != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains("{,"+rest, ","+label) && !strings.HasPrefix(rest, label) {
				continue next
			}
		}
		sum, found = sum+v, true
	}
	return sum, found
}
