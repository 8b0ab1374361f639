package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nines/e2e/parts"
)

// Alertmanager is a running Alertmanager.
type Alertmanager struct {
	*Process
	URL string
}

// Alertmanager starts one that sends every alert, firing and resolved, to the
// webhook at once.
func (l *Lab) Alertmanager(webhook string) *Alertmanager {
	l.t.Helper()
	config := fmt.Sprintf(`route:
  receiver: test
  group_by: ["..."]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
receivers:
- name: test
  webhook_configs:
  - url: %q
    send_resolved: true
`, webhook)
	listen := fmt.Sprintf("127.0.0.1:%d", l.Port())
	a := &Alertmanager{URL: "http://" + listen}
	a.Process = l.Start(Command{
		Name: "alertmanager", Path: filepath.Join(l.part(parts.Alertmanager), "alertmanager"), Dir: l.dir,
		Args: []string{
			"--config.file=" + l.Write("alertmanager.yml", config), "--storage.path=" + l.Dir("alertmanager"),
			"--web.listen-address=" + listen, "--cluster.listen-address=",
		},
		Ready: func() error { _, err := Get(a.URL + "/-/ready"); return err },
	})
	return a
}

// Promtool runs promtool with the arguments.
func (l *Lab) Promtool(args ...string) ([]byte, error) {
	l.t.Helper()
	return Run(filepath.Join(l.part(parts.Promtool), "promtool"), args...)
}

// Prometheus is a running Prometheus without targets.
type Prometheus struct {
	*Process
	URL  string
	Data string // holds blocks, which it finds when it starts
}

// Prometheus starts one on the blocks of a folder, which becomes its own. It
// keeps 60 days and takes 1 minute where a subquery names no step.
func (l *Lab) Prometheus(data string, options ...string) *Prometheus {
	l.t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", l.Port())
	p := &Prometheus{URL: "http://" + listen, Data: data}
	p.Process = l.Start(Command{
		Name: "prometheus", Path: filepath.Join(l.part(parts.Prometheus), "prometheus"), Dir: l.dir,
		Args: append([]string{
			"--config.file=" + l.Write("prometheus.yml", "global: {evaluation_interval: 1m}\n"), "--storage.tsdb.path=" + data,
			"--storage.tsdb.retention.time=60d", "--web.listen-address=" + listen,
		}, options...),
		Ready: func() error { _, err := Get(p.URL + "/-/ready"); return err },
	})
	return p
}

// VictoriaMetrics starts one with an empty folder, and returns its address.
func (l *Lab) VictoriaMetrics() string {
	l.t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", l.Port())
	l.Start(Command{
		Name: "victoria-metrics", Path: filepath.Join(l.part(parts.VictoriaMetrics), "victoria-metrics"), Dir: l.dir,
		Args:  []string{"-httpListenAddr=" + listen, "-storageDataPath=" + l.Dir("victoria-metrics"), "-retentionPeriod=1d", "-search.latencyOffset=0s"},
		Ready: func() error { _, err := Get("http://" + listen + "/health"); return err },
	})
	return "http://" + listen
}

// Sloth runs sloth with the arguments.
func (l *Lab) Sloth(args ...string) ([]byte, error) {
	l.t.Helper()
	return Run(filepath.Join(l.part(parts.Sloth), "sloth"), append([]string{"--no-log"}, args...)...)
}

// linkTree makes a second folder with the same files, without copying them
// where both lie on one file system.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if os.Link(path, target) == nil {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, info.Mode().Perm())
	})
}
