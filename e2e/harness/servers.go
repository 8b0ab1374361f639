package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

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
func (l *Lab) Prometheus(data string) *Prometheus {
	l.t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", l.Port())
	p := &Prometheus{URL: "http://" + listen, Data: data}
	p.Process = l.Start(Command{
		Name: "prometheus", Path: filepath.Join(l.part(parts.Prometheus), "prometheus"), Dir: l.dir,
		Args: []string{
			"--config.file=" + l.Write("prometheus.yml", "global: {evaluation_interval: 1m}\n"), "--storage.tsdb.path=" + data,
			"--storage.tsdb.retention.time=60d", "--web.listen-address=" + listen,
		},
		Ready: func() error { _, err := Get(p.URL + "/-/ready"); return err },
	})
	return p
}

// Sloth runs sloth with the arguments.
func (l *Lab) Sloth(args ...string) ([]byte, error) {
	l.t.Helper()
	return Run(filepath.Join(l.part(parts.Sloth), "sloth"), append([]string{"--no-log"}, args...)...)
}

// nobody runs Elasticsearch where the test is root, which the server refuses to
// be. It is a bare number without an entry among the users: nothing on the host
// belongs to it.
const nobody = 63210

// Elasticsearch is a running Elasticsearch of one node, without security.
type Elasticsearch struct {
	*Process
	URL string
}

// Elasticsearch starts one with 1 GiB of heap.
func (l *Lab) Elasticsearch() *Elasticsearch {
	l.t.Helper()
	java, err := javaHome()
	if err != nil {
		l.t.Fatalf("elasticsearch: %v", err)
	}
	// The cache may lie in a home folder that only its owner can enter.
	home := filepath.Join(l.Dir("elasticsearch"), "home")
	if err := linkTree(l.part(parts.Elasticsearch), home); err != nil {
		l.t.Fatalf("elasticsearch: %v", err)
	}
	port := l.Port()
	config := l.Dir("elasticsearch", "config")
	if err := linkTree(filepath.Join(home, "config"), config); err != nil {
		l.t.Fatalf("elasticsearch: %v", err)
	}
	settings := filepath.Join(config, "elasticsearch.yml")
	// It is a link into the cache.
	if err := os.Remove(settings); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	l.Write("elasticsearch/config/elasticsearch.yml", fmt.Sprintf(`cluster.name: nines-e2e
discovery.type: single-node
network.host: 127.0.0.1
http.port: %d
transport.port: %d
path.data: %q
path.logs: %q
xpack.security.enabled: false
# A shared host's disk may be fuller than the defaults like.
cluster.routing.allocation.disk.threshold_enabled: false
`, port, l.Port(), l.Dir("elasticsearch", "data"), l.Dir("elasticsearch", "logs")))
	if os.Geteuid() == 0 {
		for _, dir := range []string{config, l.Dir("elasticsearch", "data"), l.Dir("elasticsearch", "logs"), l.Dir("elasticsearch", "tmp")} {
			if err := os.Chown(dir, nobody, nobody); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	e := &Elasticsearch{URL: fmt.Sprintf("http://127.0.0.1:%d", port)}
	e.Process = l.Start(Command{
		Name: "elasticsearch", Path: filepath.Join(home, "bin", "elasticsearch"), Dir: home, UID: nobody,
		Env: []string{
			"ES_JAVA_HOME=" + java, "ES_JAVA_OPTS=-Xms1g -Xmx1g", "ES_PATH_CONF=" + config,
			"ES_TMPDIR=" + l.Dir("elasticsearch", "tmp"), "HOME=" + l.Dir("elasticsearch", "tmp"),
		},
		Ready:   e.ready,
		ReadyIn: 4 * time.Minute,
	})
	return e
}

func (e *Elasticsearch) ready() error {
	data, err := Get(e.URL + "/_cluster/health")
	if err != nil {
		return err
	}
	var health struct{ Status string }
	if err := json.Unmarshal(data, &health); err != nil {
		return err
	}
	if health.Status != "green" && health.Status != "yellow" {
		return fmt.Errorf("the cluster is %q", health.Status)
	}
	return nil
}

// javaHome finds the folder of the Java that stands in the path: 8.19 runs on
// 17 or later.
func javaHome() (string, error) {
	path, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("it needs Java 17 or later in the path: %w", err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(path)), nil
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
