package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"

	"nines/agent/forward"
	"nines/agent/logs"
	"nines/agent/ship"
	"nines/pkg/metric"
	"nines/pkg/ops"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// local is an agent that listens on a free port, keeps its state in a folder
// of the test, and sends and follows nothing.
func local(t *testing.T) Config {
	cfg := DefaultConfig()
	cfg.Node, cfg.Listen = "n1", "127.0.0.1:0"
	cfg.State = filepath.Join(t.TempDir(), "state")
	cfg.Metrics.SendTo, cfg.Logs.Sources = nil, nil
	return cfg
}

func start(t *testing.T, cfg Config) *Daemon {
	t.Helper()
	d, err := New(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func get(d *Daemon, path string) (int, string) {
	w := httptest.NewRecorder()
	d.pages().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func heartbeats(t *testing.T, d *Daemon) (float64, int64) {
	t.Helper()
	fams, err := d.own()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(fams, func(f metric.Family) bool { return f.Name == metric.AgentHeartbeats })
	if i < 0 {
		t.Fatal("no heartbeat series")
	}
	return fams[i].Series[0].Value, fams[i].Series[0].Start
}

func closeUnused(t *testing.T, d *Daemon) {
	t.Helper()
	if err := d.giveBack(); err != nil {
		t.Error(err)
	}
}

func TestHeartbeatRisesByOneInEachMinuteWithACollection(t *testing.T) {
	cfg := local(t)
	d := start(t, cfg)
	at := time.Date(2026, 11, 1, 12, 0, 1, 0, time.UTC)
	for _, step := range []struct {
		after time.Duration
		beats float64
	}{{0, 1}, {15 * time.Second, 1}, {58 * time.Second, 1}, {59 * time.Second, 2}, {4 * time.Minute, 3}} {
		d.tick(at.Add(step.after))
		got, begun := heartbeats(t, d)
		if got != step.beats || begun != d.started.UnixMilli() {
			t.Errorf("after %v: %v beats since %d", step.after, got, begun)
		}
	}
	closeUnused(t, d)

	// Started again within the minute, it does not count it twice.
	d = start(t, cfg)
	d.tick(at.Add(4*time.Minute + 20*time.Second))
	if got, _ := heartbeats(t, d); got != 0 {
		t.Errorf("after a restart within the minute: %v beats", got)
	}
	d.tick(at.Add(5 * time.Minute))
	if got, _ := heartbeats(t, d); got != 1 {
		t.Errorf("in the next minute: %v beats", got)
	}
	closeUnused(t, d)
}

func TestClockThatWasFarAheadDoesNotStopTheHeart(t *testing.T) {
	m := &memory{path: filepath.Join(t.TempDir(), "agent.json")}
	right := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		now  time.Time
		want bool
	}{{right.AddDate(1, 0, 0), true}, {right, true}, {right.Add(-time.Minute), false}, {right.Add(time.Minute), true}} {
		if got, err := m.beat(step.now); got != step.want || err != nil {
			t.Errorf("%v: %v, %v", step.now, got, err)
		}
	}
}

func TestBootTimeStaysTheSameWhileTheKernelRuns(t *testing.T) {
	proc, state := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(proc, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	boot := func() int64 {
		m, err := recall(state, proc)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.save(); err != nil {
			t.Fatal(err)
		}
		return m.boot().Unix()
	}
	write("sys/kernel/random/boot_id", "aaaa\n")
	write("stat", "btime 1000\n")
	if got := boot(); got != 1000 {
		t.Errorf("first start: %d", got)
	}
	write("stat", "btime 1001\n")
	if got := boot(); got != 1000 {
		t.Errorf("the clock was corrected: %d", got)
	}
	write("sys/kernel/random/boot_id", "bbbb\n")
	if got := boot(); got != 1001 {
		t.Errorf("after a reboot: %d", got)
	}
	if err := os.WriteFile(filepath.Join(state, "agent.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := recall(state, proc); err == nil || !strings.Contains(err.Error(), "is damaged: remove it") {
		t.Errorf("damaged state: %v", err)
	}
}

func TestAgentIsReadyAfterItsFirstTickOnly(t *testing.T) {
	d := start(t, local(t))
	defer closeUnused(t, d)
	if code, body := get(d, "/readyz"); code != 503 || !strings.Contains(body, "has not run yet") {
		t.Errorf("before: %d %s", code, body)
	}
	d.tick(time.Now())
	if code, _ := get(d, "/readyz"); code != 200 {
		t.Errorf("after: %d", code)
	}
	d.report(errors.New("queue samples: no space left"))
	if code, body := get(d, "/readyz"); code != 503 || !strings.Contains(body, "no space left") {
		t.Errorf("after a tick that failed: %d %s", code, body)
	}
	if code, _ := get(d, "/healthz"); code != 200 {
		t.Errorf("it is alive, but /healthz says %d", code)
	}
}

func TestPagesShowTheNodeAndTheAgent(t *testing.T) {
	d := start(t, local(t))
	defer closeUnused(t, d)
	d.tick(time.Now())
	for path, want := range map[string]string{
		"/metrics":      "# TYPE nines_agent_heartbeats_total counter\nnines_agent_heartbeats_total 1\n",
		"/metrics/node": "# TYPE node_cpu_seconds_total counter\n",
		"/":             "node n1 of cluster default",
	} {
		code, body := get(d, path)
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, want %q in\n%.500s", path, code, want, body)
		}
	}
	if code, _ := get(d, "/none"); code != 404 {
		t.Errorf("an unknown page gives %d", code)
	}
}

// everything is an agent with all sources on, and a cluster that does not answer.
func everything(t *testing.T) Config {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}], contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	cfg := local(t)
	cfg.Metrics.SendTo = []forward.Destination{{URL: "http://127.0.0.1:1/write"}}
	cfg.Metrics.Kubelet.Enabled, cfg.Metrics.Kubelet.URL, cfg.Metrics.Kubelet.TokenFile = "true", "http://127.0.0.1:1", ""
	cfg.Metrics.Cgroups.Enabled = "true"
	cfg.Metrics.OTLP.HTTP = "127.0.0.1:0"
	return cfg
}

func TestEverySeriesOfOursIsDocumented(t *testing.T) {
	cfg := everything(t)
	d := start(t, cfg)
	defer closeUnused(t, d)
	documented := map[string]bool{}
	for _, def := range metric.All() {
		documented[def.Name] = true
	}
	fams, err := d.own()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range fams {
		seen[f.Name] = true
		if strings.HasPrefix(f.Name, "nines_") && !documented[f.Name] {
			t.Errorf("%s has no definition in pkg/metric", f.Name)
		}
		if strings.HasSuffix(f.Name, "_total") && f.Series[0].Start == 0 {
			t.Errorf("counter %s has no start", f.Name)
		}
	}
	for name := range documented {
		if strings.HasPrefix(name, "nines_agent_") && !seen[name] {
			t.Errorf("%s is documented but not exposed", name)
		}
	}
}

func TestEverySourceHasItsPage(t *testing.T) {
	cfg := everything(t)
	cfg.Metrics.Interval = time.Second
	d := start(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	for path, want := range map[string]string{
		"/metrics/containers": "", "/metrics/pods": "", "/metrics/probes": "",
		"/api/nines/v1/targets": `"jobs": 0`,
	} {
		if code, body := get(d, path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, want %q in\n%.500s", path, code, want, body)
		}
	}
	for { // until the API server did not answer
		if _, body := get(d, "/api/nines/v1/targets"); strings.Contains(body, `"place": "pods"`) && strings.Contains(body, "the API server cannot be reached") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestContainersAreNotReadTwice(t *testing.T) {
	cfg := everything(t)
	cfg.Metrics.Cgroups.Enabled = "auto"
	d := start(t, cfg)
	defer closeUnused(t, d)
	if code, body := get(d, "/metrics/containers"); code != 404 || !strings.Contains(body, "metrics.cgroups.enabled") {
		t.Errorf("%d %s", code, body)
	}
}

func TestTicksKeepTheirPhaseAndMissedOnesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := local(t)
		d := &Daemon{cfg: cfg, log: quiet, started: time.Now(), set: metrics.NewSet(), health: ops.NewHealth()}
		c := start(t, cfg)
		d.collector, d.memory = c.collector, c.memory
		d.register()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.everyInterval(ctx) }()
		<-time.After(10 * time.Minute)
		synctest.Wait()
		cancel()
		<-done
		// One at the start, then one each 15 s; the first wait is between half an
		// interval and one and a half.
		if n := d.ticksOK.Get(); n < 40 || n > 41 {
			t.Errorf("%d ticks in 10 minutes", n)
		}
		if n := d.ticksMissed.Get(); n != 0 {
			t.Errorf("%d ticks missed", n)
		}
		closeUnused(t, c)
	})
}

func TestNextTickIsAtItsPhaseAndNotTooSoon(t *testing.T) {
	const interval = 15 * time.Second
	zero := time.Unix(1_800_000_000, 0) // a multiple of 15 s
	for _, c := range []struct{ now, offset, want time.Duration }{
		{0, 0, 15 * time.Second},
		{14 * time.Second, 0, 30 * time.Second},
		{7 * time.Second, 0, 15 * time.Second},
		{3 * time.Second, 3 * time.Second, 18 * time.Second},
		{3*time.Second + time.Millisecond, 3 * time.Second, 18 * time.Second},
		{40 * time.Second, 3 * time.Second, 48 * time.Second},
	} {
		if got := nextTick(zero.Add(c.now), interval, c.offset).Sub(zero); got != c.want {
			t.Errorf("at %v with offset %v: %v, want %v", c.now, c.offset, got, c.want)
		}
	}
	for i := range 1000 {
		if p := phase(fmt.Sprint("node-", i), interval); p < 0 || p >= interval/2 {
			t.Fatalf("phase %v", p)
		}
	}
}

func TestPartThatFailsStopsTheAgentWithItsError(t *testing.T) {
	d := start(t, local(t))
	d.logs = &pipelines{all: []pipeline{{follower: failing{}, name: "search", to: failing{}}}}
	err := d.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "logs: destination search: the checkpoint is gone") {
		t.Errorf("got %v", err)
	}
	l, err := ops.LockFolder(d.cfg.State)
	if err != nil {
		t.Fatalf("the state folder is still held: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

// failing is a follower that fails at once, and its destination.
type failing struct{ ship.Destination }

func (failing) Run(context.Context) error { return errors.New("the checkpoint is gone") }
func (failing) Status() logs.Status       { return logs.Status{} }
func (failing) Redrive(context.Context) (ship.RedriveSum, bool, error) {
	return ship.RedriveSum{}, false, nil
}
func (failing) Uses(_, _, _ string) bool { return false }
func (failing) Close() error             { return nil }

func TestFailedStartGivesBackWhatItTook(t *testing.T) {
	cfg := local(t)
	cfg.Metrics.SendTo = []forward.Destination{{URL: "http://127.0.0.1:1/write"}}
	if err := os.MkdirAll(filepath.Join(cfg.State, "metrics"), 0o750); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(cfg.State, "metrics", "holiday.segment")
	if err := os.WriteFile(foreign, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, quiet); err == nil {
		t.Fatal("started on a foreign queue")
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	closeUnused(t, start(t, cfg))
}

func TestForeseeingChangesNothing(t *testing.T) {
	cfg := local(t)
	dir := filepath.Dir(cfg.State)
	plan, err := Foresee(cfg)
	if err != nil || len(plan.Will) == 0 {
		t.Fatalf("%+v, %v", plan, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%d files appeared, %v", len(entries), err)
	}
}

func TestConfigurationIsRefusedAtItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"cluster: ''\n":              "1:10: cluster is empty",
		"metrics:\n  interval: 2m\n": "2:13: metrics.interval is 2m0s",
		"metrics:\n  send_to: []\n  otlp: {http: '127.0.0.1:4318'}\n":                         "3:9: metrics.otlp takes metrics, but send_to is empty",
		"metrics:\n  send_to: [{url: 'http://bob:s3 cret@h/'}]\n":                             "2:19: metrics.send_to[0].url is not an address: write it",
		"metrics:\n  queue: 1KiB\n":                                                           "2:10: metrics.queue is 1KiB",
		"metrics:\n  queue_age: 1s\n":                                                         "2:14: metrics.queue_age is 1s",
		"metrics:\n  node: {collectors: {cup: true}}\n":                                       "2:28: metrics.node.collectors.cup",
		"metrics:\n  kubelet: {enabled: maybe}\n":                                             "2:22: metrics.kubelet.enabled",
		"metrics:\n  cgroups: {enabled: maybe}\n":                                             "2:22: metrics.cgroups.enabled",
		"metrics:\n  pods: {interval: 0s}\n":                                                  "2:20: metrics.pods.interval",
		"metrics:\n  scrape: {configs: [{job_name: a, relabel_configs: [{action: nope}]}]}\n": "a.yaml:2:",
		"metrics:\n  probes: {targets: [{target: x, module: nope}]}\n":                        "metrics.probes.targets[0].module",
		"metrics:\n  send_to: [{url: 'http://h/w', pasword: x}]\n":                            "a.yaml:2:33: pasword is not a key of a destination",
		"state: ''\n": "1:8: state is empty",
		"logs:\n  sources:\n    - {type: journal}\n":                                                                                           `3:14: logs.sources[0].type is "journal"`,
		"logs:\n  sources: [{type: files}]\n":                                                                                                  "2:13: logs.sources[0].paths is empty",
		"logs: {destination: {elasticsearch: {}}}\n":                                                                                           "1:37: logs.destination.elasticsearch.urls is empty",
		"logs: {destination: {files: {directory: ''}}}\n":                                                                                      "1:41: logs.destination.files.directory is empty",
		"logs: {names: x}\n":                                                                                                                   `1:15: logs.names is "x": choose ecs or otel`,
		"logs: {destination: {files: {directory: a}, elasticsearch: {urls: ['http://h']}}}\n":                                                  "1:21: logs.destination has both files and elasticsearch",
		"logs: {destination: {files: {directory: a}}, destinations: [{files: {directory: b}}]}\n":                                              "1:21: logs.destination stands beside logs.destinations",
		"logs: {destinations: [{files: {directory: a}}, {files: {directory: b}}]}\n":                                                           `1:48: logs.destinations[1].name "files" is taken`,
		"logs: {destinations: [{name: a/b, files: {directory: a}}]}\n":                                                                         `1:30: logs.destinations[0].name "a/b": use up to 63`,
		"logs: {destinations: [{name: a, files: {directory: x}}, {name: b, files: {directory: ./x}}]}\n":                                       "1:86: logs.destinations[1].files.directory ./x is that of a, too",
		"logs: {sources: [{type: kubernetes, to: [b]}], destinations: [{name: a, files: {directory: x}}]}\n":                                   `1:42: logs.sources[0].to[0] "b" is no destination: there is a`,
		"logs: {sources: [{type: kubernetes, to: [a]}], destinations: [{name: a, files: {directory: x}}, {name: b, files: {directory: y}}]}\n": `1:62: logs.destinations: nothing goes to "b"`,
	} {
		path := filepath.Join(t.TempDir(), "a.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "a.yaml:") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// What became of logs is told to whoever may reach the page; dead letters are
// sent again for callers on the node alone, and not for a page in their browser.
func TestStatusIsToldAndRedriveIsForThisNodeAlone(t *testing.T) {
	cfg := local(t)
	dir := t.TempDir()
	cfg.Logs = Logs{
		Sources:      []logs.Source{{Type: "files", Paths: []string{dir + "/*.log"}}},
		Destinations: []Destination{{Name: "a", Files: &ship.FilesConfig{Directory: dir + "/a"}}, {Name: "b", Files: &ship.FilesConfig{Directory: dir + "/b"}}},
	}
	d := start(t, cfg)
	defer closeUnused(t, d)
	defer func() {
		for _, one := range d.logs.all {
			if err := one.to.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	code, body := get(d, "/api/nines/v1/logs")
	for _, want := range []string{`"node": "n1"`, `"destination": "a"`, `"destination": "b"`, `"balanced": true`} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%d, no %s in %s", code, want, body)
		}
	}
	for _, test := range []struct {
		from, header string
		want         int
	}{{"10.0.0.7:1234", "1", http.StatusForbidden}, {"127.0.0.1:1234", "", http.StatusForbidden}, {"127.0.0.1:1234", "1", http.StatusNotFound}} {
		r := httptest.NewRequest(http.MethodPost, "/api/nines/v1/logs/redrive", nil)
		r.RemoteAddr = test.from
		if test.header != "" {
			r.Header.Set(RedriveHeader, test.header)
		}
		w := httptest.NewRecorder()
		d.pages().ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("from %s with header %q: %d %s", test.from, test.header, w.Code, w.Body)
		}
	}
	// The counters of the account start when the state folder was made.
	fams, err := d.own()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range fams {
		if metric.LogSinceBirth(f.Name) {
			found++
			if f.Series[0].Start != d.memory.Born || f.Series[0].Start == 0 {
				t.Errorf("%s starts at %d, the state was born at %d", f.Name, f.Series[0].Start, d.memory.Born)
			}
		}
	}
	if found != 5 {
		t.Errorf("%d counters of the account", found)
	}
}

func TestDefaultsAreValidAndNameTheHost(t *testing.T) {
	cfg, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil || cfg.Node == "" || cfg.Metrics.Interval != 15*time.Second {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add("cluster: x\nmetrics: {interval: 15s, send_to: [{url: 'http://x/'}]}\n")
	f.Add("logs: {sources: [{type: files, paths: [a]}]}\n")
	f.Add("metrics: {send_to: [{url: 1}, {}]}\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "a.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(path)
		if err == nil && (cfg.Node == "" || cfg.Validate() != nil) {
			t.Fatalf("%q gave an unusable configuration %+v", text, cfg)
		}
	})
}
