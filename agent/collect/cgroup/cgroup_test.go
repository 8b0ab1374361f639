package cgroup

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"

	"nines/pkg/metric"
	"nines/pkg/strictyaml"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// IDs of containers, and the UID of the pod of a and b, in the fixtures.
var (
	a, b, c, d, e = id('a'), id('b'), id('c'), id('d'), id('e')
	uid           = "5f0c1d2e-3344-5566-7788-99aabbccddee"
)

func id(r rune) string { return strings.Repeat(string(r), 64) }

var (
	made = time.Unix(1795410000, 0)
	now  = time.Unix(1795421700, 0)
)

// unpack writes a fixture into a folder, with folders made at one time, and
// with the networks of its processes: 1 is the node's, 100 to 103 a pod's, 201
// one on the node's network, all others have their own.
func unpack(t *testing.T, name string) Config {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Files) < 50 {
		t.Fatalf("the fixture has %d files", len(archive.Files))
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pid, network := range map[string]string{"1": "net:[1]", "100": "net:[7]", "101": "net:[7]", "201": "net:[1]", "301": "net:[8]", "401": "net:[9]"} {
		path := filepath.Join(dir, "proc", pid, "ns")
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(network, filepath.Join(path, "net")); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chtimes(path, made, made)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Enabled, cfg.Sys, cfg.Proc = "true", filepath.Join(dir, "sys"), filepath.Join(dir, "proc")
	return cfg
}

// known names the containers a and d.
func known(id string) (namespace, pod, container, image string, ok bool) {
	switch id {
	case a:
		return "shop", "web-0", "web", "shop/web:1.4", true
	case d:
		return "", "", "cache", "", true
	}
	return "", "", "", "", false
}

func collector(t *testing.T, cfg Config) (*Collector, *metrics.Set) {
	t.Helper()
	set := metrics.NewSet()
	col, err := New(cfg, known, quiet, set)
	if err != nil {
		t.Fatal(err)
	}
	return col, set
}

// value is the one sample of a family with those labels, if there is one.
func value(fams []metric.Family, name string, pairs ...string) (float64, bool) {
	for _, f := range fams {
		for _, s := range f.Series {
			match := f.Name == name
			for _, l := range metric.Labels(pairs...) {
				match = match && slices.Contains(s.Labels, l)
			}
			if match {
				return s.Value, true
			}
		}
	}
	return 0, false
}

// want fails where a sample is not there or has another value.
func want(t *testing.T, fams []metric.Family, v float64, name string, pairs ...string) {
	t.Helper()
	got, ok := value(fams, name, pairs...)
	if !ok || got < v-1e-9 || got > v+1e-9 {
		t.Errorf("%s%v is %v (%v), want %v", name, pairs, got, ok, v)
	}
}

func absent(t *testing.T, fams []metric.Family, name string, pairs ...string) {
	t.Helper()
	if v, ok := value(fams, name, pairs...); ok {
		t.Errorf("%s%v is %v, want none", name, pairs, v)
	}
}

func TestPagesOfTheFixtureTreesAreTheGoldenOnes(t *testing.T) {
	for _, tree := range []string{"v1", "v2"} {
		col, set := collector(t, unpack(t, tree))
		var got bytes.Buffer
		if err := metric.WriteText(&got, col.Collect(now)); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", tree+".txt")
		if *update {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("the page differs from %s (run with -update, then read the difference):\n%s", golden, got.String())
		}
		for _, reason := range []string{unreadable, malformed, tooLarge} {
			if n := set.GetOrCreateCounter(fmt.Sprintf("%s{reason=%q}", metric.CgroupReadFailure, reason)).Get(); n != 0 {
				t.Errorf("%s: %d files are %s", tree, n, reason)
			}
		}
	}
}

func TestFiguresOfAContainerAreTheSameFromBothVersions(t *testing.T) {
	for _, tree := range []string{"v1", "v2"} {
		col, _ := collector(t, unpack(t, tree))
		fams := col.Collect(now)
		for name, v := range map[string]float64{
			"container_cpu_usage_seconds_total":         12.5,
			"container_cpu_user_seconds_total":          10,
			"container_cpu_system_seconds_total":        2.5,
			"container_cpu_cfs_periods_total":           5000,
			"container_cpu_cfs_throttled_periods_total": 40,
			"container_cpu_cfs_throttled_seconds_total": 1.75,
			"container_memory_usage_bytes":              5e7,
			"container_memory_working_set_bytes":        4e7, // less 1e7 of inactive files
			"container_memory_rss":                      3e7,
			"container_memory_cache":                    1.5e7,
			"container_memory_swap":                     8192,
			"container_memory_mapped_file":              4096,
			"container_memory_failcnt":                  5,
			"container_memory_max_usage_bytes":          50001000,
			"container_oom_events_total":                1,
			"container_spec_cpu_period":                 100000,
			"container_spec_cpu_quota":                  50000,
			"container_spec_memory_limit_bytes":         134217728,
			"container_processes":                       3,
			"container_threads":                         14,
			"container_last_seen":                       1795421700,
			"container_start_time_seconds":              1795410000,
		} {
			want(t, fams, v, name, "name", a, "container", "web", "pod", "web-0", "namespace", "shop", "image", "shop/web:1.4")
		}
		want(t, fams, 12.5, "container_cpu_usage_seconds_total", "name", a, "cpu", "total")
		want(t, fams, 9000, "container_memory_failures_total", "name", a, "failure_type", "pgfault", "scope", "container")
		want(t, fams, 3, "container_memory_failures_total", "name", a, "failure_type", "pgmajfault")
		want(t, fams, 4096, "container_fs_reads_bytes_total", "name", a, "device", "/dev/sda")
		want(t, fams, 8192, "container_fs_writes_bytes_total", "name", a, "device", "/dev/sda")
		want(t, fams, 1, "container_fs_reads_total", "name", a, "device", "/dev/sda")
		want(t, fams, 2, "container_fs_writes_total", "name", a, "device", "/dev/sda")
	}
}

func TestWhatOnlyVersion2HasIsGivenThere(t *testing.T) {
	col, _ := collector(t, unpack(t, "v2"))
	fams := col.Collect(now)
	want(t, fams, .5, "container_pressure_cpu_waiting_seconds_total", "name", a)
	want(t, fams, .25, "container_pressure_cpu_stalled_seconds_total", "name", a)
	want(t, fams, .003, "container_pressure_memory_waiting_seconds_total", "name", a)
	want(t, fams, .08, "container_pressure_io_stalled_seconds_total", "name", a)
	want(t, fams, 4000, "container_threads_max", "name", a)
	want(t, fams, 2+9*262142/9999, "container_spec_cpu_shares", "name", a) // weight 10
	want(t, fams, 2, "container_spec_cpu_shares", "name", b)               // weight 1
	want(t, fams, 100, "container_fs_reads_bytes_total", "name", a, "device", "/dev/block/253:1")
}

func TestWithoutLimitThereIsNoQuotaAndLimitsAreZero(t *testing.T) {
	for _, tree := range []string{"v1", "v2"} {
		col, _ := collector(t, unpack(t, tree))
		fams := col.Collect(now)
		for _, name := range []string{"container_spec_cpu_quota", "container_cpu_cfs_periods_total", "container_cpu_cfs_throttled_seconds_total"} {
			absent(t, fams, name, "name", b)
		}
		want(t, fams, 100000, "container_spec_cpu_period", "name", b)
		want(t, fams, 0, "container_spec_memory_limit_bytes", "name", b)
		want(t, fams, 0, "container_threads_max", "id", podPath(tree))
		for _, name := range []string{"container_spec_cpu_period", "container_spec_cpu_shares", "container_spec_memory_limit_bytes", "container_last_seen", "container_start_time_seconds"} {
			absent(t, fams, name, "id", strings.SplitAfter(podPath(tree), "kubepods")[0]+map[string]string{"v1": "", "v2": ".slice"}[tree])
		}
	}
}

func podPath(tree string) string {
	if tree == "v1" {
		return "/kubepods/burstable/pod" + uid
	}
	return "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
}

func TestWorkingSetIsNeverBelowZero(t *testing.T) {
	col, _ := collector(t, unpack(t, "v2"))
	want(t, col.Collect(now), 0, "container_memory_working_set_bytes", "name", b)
}

func TestPathsTellContainersAndPods(t *testing.T) {
	under := strings.ReplaceAll(uid, "-", "_")
	for p, w := range map[string]struct {
		kind    kind
		id, uid string
	}{
		"/":                                    {slice, "", ""},
		"/system.slice/docker-" + a + ".scope": {container, a, ""},
		"/docker/" + a:                         {container, a, ""},
		"/docker/" + a + "/docker/" + b:        {container, b, ""},
		"/kubepods/besteffort/pod" + uid + "/" + a:                                       {container, a, uid},
		"/kubepods/pod" + uid:                                                            {pod, "", uid},
		"/kubepods.slice/kubepods-pod" + under + ".slice":                                {pod, "", uid},
		"/kubepods.slice/kubepods-pod" + under + ".slice/cri-containerd-" + a + ".scope": {container, a, uid},
		"/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + a + ".scope":           {container, a, uid},
		"/kubepods.slice/kubepods-pod" + under + ".slice/crio-conmon-" + a + ".scope":    {other, "", uid},
		"/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + a + ".scope/container": {other, "", uid},
		"/kubepods-besteffort-pod" + under + ".slice:cri-containerd:" + a:                {container, a, uid},
		"/kubepods/burstable/pod0123456789abcdef0123456789abcdef":                        {pod, "", "0123456789abcdef0123456789abcdef"},
		"/machine.slice/libpod-" + a + ".scope":                                          {container, a, ""},
		"/machine.slice/libpod-conmon-" + a + ".scope":                                   {other, "", ""},
		"/machine.slice/libpod-" + a + ".scope/libpod-payload-" + a:                      {other, "", ""},
		"/default/" + a:                                         {container, a, ""},
		"/nerdctl-" + a + ".scope":                              {container, a, ""},
		"/kubepods.slice/kubepods-besteffort.slice":             {slice, "", ""},
		"/kubepods/burstable":                                   {slice, "", ""},
		"/system.slice":                                         {slice, "", ""},
		"/system.slice/sshd.service":                            {other, "", ""},
		"/user.slice/user-0.slice/session-1.scope":              {other, "", ""},
		"/system.slice/docker-" + a[:63] + ".scope":             {other, "", ""},
		"/system.slice/docker-" + strings.ToUpper(a) + ".scope": {other, "", ""},
		"/kubelet/kubepods.slice/kubepods-pod" + under + ".slice/cri-containerd-" + b + ".scope/inner.scope": {other, "", uid},
	} {
		k, id, u := classify(p, false)
		if k != w.kind || id != w.id || u != w.uid {
			t.Errorf("%s: %v %q %q, want %v", p, k, id, u, w)
		}
	}
	if k, _, _ := classify("/system.slice/sshd.service", true); k != service {
		t.Errorf("a service is %v", k)
	}
}

func TestServicesAreGivenWhereTheyAreAskedFor(t *testing.T) {
	cfg := unpack(t, "v2")
	col, _ := collector(t, cfg)
	absent(t, col.Collect(now), "container_memory_usage_bytes", "id", "/system.slice/sshd.service")
	cfg.Services = true
	col, _ = collector(t, cfg)
	want(t, col.Collect(now), 6e6, "container_memory_usage_bytes", "id", "/system.slice/sshd.service")
}

func TestPodAndPauseContainerGetTheirNameFromTheOtherContainers(t *testing.T) {
	col, _ := collector(t, unpack(t, "v2"))
	fams := col.Collect(now)
	want(t, fams, 4e5, "container_memory_usage_bytes", "name", b, "pod", "web-0", "namespace", "shop")
	absent(t, fams, "container_memory_usage_bytes", "name", b, "container", "web")
	want(t, fams, 5e7, "container_memory_usage_bytes", "id", podPath("v2"), "pod", "web-0", "namespace", "shop")
	for _, f := range fams {
		for _, s := range f.Series {
			for _, l := range s.Labels {
				if l.Value == "" {
					t.Fatalf("%s has an empty label: %v", f.Name, s.Labels)
				}
			}
		}
	}
}

func TestProcessesWithinAContainerCountAndTheWatcherDoesNot(t *testing.T) {
	col, _ := collector(t, unpack(t, "v2"))
	fams := col.Collect(now)
	want(t, fams, 2, "container_processes", "name", c)
	want(t, fams, 3, "container_processes", "id", "/")
}

func TestNetworkIsGivenOnceAtThePodAndNotForTheNodes(t *testing.T) {
	for _, tree := range []string{"v1", "v2"} {
		cfg := unpack(t, tree)
		col, _ := collector(t, cfg)
		fams := col.Collect(now)
		want(t, fams, 1000, "container_network_receive_bytes_total", "id", podPath(tree), "interface", "eth0", "pod", "web-0")
		want(t, fams, 2000, "container_network_transmit_bytes_total", "id", podPath(tree), "interface", "eth0")
		want(t, fams, 2, "container_network_receive_packets_dropped_total", "id", podPath(tree))
		want(t, fams, 3, "container_network_transmit_errors_total", "id", podPath(tree))
		want(t, fams, 1000, "container_network_receive_bytes_total", "name", d)
		for _, name := range []string{a, b, c} {
			absent(t, fams, "container_network_receive_bytes_total", "name", name)
		}
		absent(t, fams, "container_network_receive_bytes_total", "interface", "lo")
		// A process whose network nobody may look at, and a node without procfs.
		if err := os.Remove(filepath.Join(cfg.Proc, "301/ns/net")); err != nil {
			t.Fatal(err)
		}
		absent(t, col.Collect(now), "container_network_receive_bytes_total", "name", d)
		if err := os.RemoveAll(cfg.Proc); err != nil {
			t.Fatal(err)
		}
		absent(t, col.Collect(now), "container_network_receive_bytes_total")
	}
}

func TestBoundKeepsContainersAndSaysWhatIsLeftOut(t *testing.T) {
	cfg := unpack(t, "v2")
	cfg.MaxCgroups = 5 // of five containers, two pods and slices
	var log bytes.Buffer
	set := metrics.NewSet()
	col, err := New(cfg, known, slog.New(slog.NewTextHandler(&log, nil)), set)
	if err != nil {
		t.Fatal(err)
	}
	fams := col.Collect(now)
	for _, name := range []string{a, b, c, d, e} {
		if _, ok := value(fams, "container_processes", "name", name); !ok {
			t.Errorf("container %s is left out", name[:1])
		}
	}
	absent(t, fams, "container_processes", "id", "/")
	col.Collect(now)
	if n := strings.Count(log.String(), "max_cgroups"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	var own bytes.Buffer
	set.WritePrometheus(&own)
	if !strings.Contains(own.String(), "nines_agent_cgroups 5\n") || !strings.Contains(own.String(), "nines_agent_cgroups_left_out 7\n") {
		t.Errorf("own series:\n%s", own.String())
	}
}

func TestTooDeepCgroupsAreCountedNotFollowed(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, strings.Repeat("x/", maxDepth+3)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root, filepath.Join(root, "loop")); err != nil {
		t.Fatal(err)
	}
	n := 0
	if left := walk(root, func(string) { n++ }); left != 1 || n != 1+maxDepth {
		t.Errorf("%d folders, %d left out", n, left)
	}
}

// damage writes a file of container a, or removes it.
func damage(t *testing.T, cfg Config, name, content string, remove bool) {
	t.Helper()
	path := filepath.Join(cfg.Sys, "fs/cgroup", podPath("v2"), "cri-containerd-"+a+".scope", name)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !remove {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMissingDamagedOrEndlessFileTakesNothingElseWithIt(t *testing.T) {
	for _, x := range []struct {
		file, content, reason string
		gone                  []string
	}{
		{"memory.current", "", malformed, []string{"container_memory_usage_bytes", "container_memory_working_set_bytes"}},
		{"memory.current", "many\n", malformed, []string{"container_memory_usage_bytes"}},
		{"memory.current", "-5\n", malformed, []string{"container_memory_usage_bytes"}},
		{"memory.stat", "nonsense\n", malformed, []string{"container_memory_rss", "container_memory_cache"}},
		{"memory.stat", strings.Repeat("anon 1\n", maxText), tooLarge, []string{"container_memory_rss"}},
		{"cpu.stat", "usage_usec x\n\x00\n", malformed, []string{"container_cpu_usage_seconds_total"}},
		{"cpu.max", "\n", malformed, []string{"container_spec_cpu_period", "container_spec_cpu_quota", "container_cpu_cfs_periods_total"}},
		{"cpu.weight", "0\n", "", []string{"container_spec_cpu_shares"}},
		{"cpu.pressure", "what\n", malformed, []string{"container_pressure_cpu_waiting_seconds_total"}},
		{"io.stat", "../../etc rbytes=1\n8:0\n", "", []string{"container_fs_reads_bytes_total"}},
		{"pids.current", "18446744073709551616\n", malformed, []string{"container_threads"}},
		{"memory.max", "min\n", malformed, []string{"container_spec_memory_limit_bytes"}},
		{"memory.events", "", "", []string{"container_oom_events_total"}},
	} {
		for _, remove := range []bool{false, true} {
			cfg := unpack(t, "v2")
			damage(t, cfg, x.file, x.content, remove)
			col, set := collector(t, cfg)
			fams := col.Collect(now)
			for _, name := range x.gone {
				absent(t, fams, name, "name", a)
			}
			for _, name := range []string{"container_last_seen", "container_processes", "container_memory_swap", "container_threads_max", "container_pressure_io_waiting_seconds_total"} {
				if _, ok := value(fams, name, "name", a); !ok {
					t.Errorf("%s took %s with it", x.file, name)
				}
			}
			if x.reason != "" {
				n := set.GetOrCreateCounter(fmt.Sprintf("%s{reason=%q}", metric.CgroupReadFailure, x.reason)).Get()
				if (n == 0) != remove {
					t.Errorf("%s, removed %v: %d failures counted", x.file, remove, n)
				}
			}
		}
	}
}

func TestPipeInPlaceOfAFileKeepsNobodyWaiting(t *testing.T) {
	cfg := unpack(t, "v2")
	damage(t, cfg, "memory.current", "", true)
	path := filepath.Join(cfg.Sys, "fs/cgroup", podPath("v2"), "cri-containerd-"+a+".scope", "memory.current")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	col, _ := collector(t, cfg)
	fams := col.Collect(now)
	absent(t, fams, "container_memory_usage_bytes", "name", a)
	want(t, fams, 3e7, "container_memory_rss", "name", a)
}

func TestCgroupThatVanishesIsGoneAtTheNextTickAndNewAfterwards(t *testing.T) {
	cfg := unpack(t, "v2")
	col, _ := collector(t, cfg)
	col.Collect(now)
	dir := filepath.Join(cfg.Sys, "fs/cgroup", podPath("v2"), "cri-containerd-"+a+".scope")
	// The kernel may forget when a folder was made, and then says a later time.
	if err := os.Chtimes(dir, now, now); err != nil {
		t.Fatal(err)
	}
	want(t, col.Collect(now), 1795410000, "container_start_time_seconds", "name", a)
	if err := os.Rename(dir, filepath.Join(t.TempDir(), "kept")); err != nil {
		t.Fatal(err)
	}
	absent(t, col.Collect(now), "container_last_seen", "name", a)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(dir, now, now); err != nil {
		t.Fatal(err)
	}
	want(t, col.Collect(now), 1795421700, "container_start_time_seconds", "name", a)
}

func TestHostWithoutCgroupsGivesNothingAndSaysSoOnce(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Sys = t.TempDir()
	var log bytes.Buffer
	col, err := New(cfg, nil, slog.New(slog.NewTextHandler(&log, nil)), metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if fams := col.Collect(now); fams != nil {
			t.Errorf("got %v", fams)
		}
	}
	if err := os.MkdirAll(filepath.Join(cfg.Sys, "fs/cgroup/rdma"), 0o755); err != nil {
		t.Fatal(err)
	}
	col.Collect(now)
	if n := strings.Count(log.String(), "no cgroups"); n != 2 || !strings.Contains(log.String(), "mount the node") || !strings.Contains(log.String(), "cgroup.controllers") {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	if err := os.WriteFile(filepath.Join(cfg.Sys, "fs/cgroup/cgroup.controllers"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	col.Collect(now)
	if !strings.Contains(log.String(), "again") {
		t.Errorf("its end was not told:\n%s", log.String())
	}
}

func TestControllersMountedTogetherAreFoundThroughTheirLinks(t *testing.T) {
	cfg := unpack(t, "v1")
	root := filepath.Join(cfg.Sys, "fs/cgroup")
	for from, to := range map[string]string{"cpuacct": "cpu,cpuacct", "pids": "pids,misc"} {
		if err := os.Rename(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(root, from)); err != nil {
			t.Fatal(err)
		}
	}
	col, _ := collector(t, cfg)
	fams := col.Collect(now)
	want(t, fams, 12.5, "container_cpu_usage_seconds_total", "name", a)
	want(t, fams, 14, "container_threads", "name", a)
	// An old kernel counts in ticks, and not with the cgroups within.
	want(t, fams, 10.01, "container_cpu_user_seconds_total", "name", d)
	want(t, fams, 4096, "container_fs_reads_bytes_total", "name", b)
}

func TestHelpEndsWithAFullStopAndEachSampleIsThereOnce(t *testing.T) {
	for _, tree := range []string{"v1", "v2"} {
		col, _ := collector(t, unpack(t, tree))
		fams := col.Collect(now)
		names := map[string]bool{}
		for _, f := range fams {
			if names[f.Name] || !strings.HasPrefix(f.Name, "container_") || !strings.HasSuffix(f.Help, ".") {
				t.Errorf("%s: twice, or help %q", f.Name, f.Help)
			}
			names[f.Name] = true
			seen := map[string]bool{}
			for _, s := range f.Series {
				if key := fmt.Sprint(s.Labels); seen[key] {
					t.Errorf("%s%s is there twice", f.Name, key)
				} else {
					seen[key] = true
				}
				if !slices.IsSortedFunc(s.Labels, func(a, b metric.Label) int { return strings.Compare(a.Name, b.Name) }) {
					t.Errorf("labels of %s are not sorted: %v", f.Name, s.Labels)
				}
			}
		}
		if len(names) < 30 {
			t.Errorf("%s: %d families", tree, len(names))
		}
	}
}

func TestWrongConfigurationNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"enabled":     func(c *Config) { c.Enabled = "yes" },
		"max_cgroups": func(c *Config) { c.MaxCgroups = 0 },
		"root":        func(c *Config) { c.Root = "/sys/fs/cgroup" },
		"root ":       func(c *Config) { c.Root = "../etc" },
		"sys":         func(c *Config) { c.Sys = "no-such-folder" },
		"root: ":      func(c *Config) { c.Root = "no-such-folder" },
	} {
		cfg := unpack(t, "v1")
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), strings.TrimSpace(field)) {
			t.Errorf("%s: %v", field, err)
		}
	}
	cfg := DefaultConfig()
	if err := strictyaml.Decode("agent.yaml", []byte("enabled: false\nsys: /host/sys\nservices: true\nmax_cgroups: 10\n"), &cfg); err != nil || cfg.Validate() != nil {
		t.Errorf("%v, %v", err, cfg.Validate())
	}
	on := map[bool]string{}
	for _, kubelet := range []bool{false, true} {
		for _, word := range []string{"auto", "true", "false"} {
			if (Config{Enabled: word}).On(kubelet) {
				on[kubelet] += word + " "
			}
		}
	}
	if !maps.Equal(on, map[bool]string{false: "auto true ", true: "true "}) {
		t.Errorf("on %v", on)
	}
}

// The kernel that the test runs on: a cgroup of our own where that is
// permitted, and the root's figures in any case.
func TestLiveKernelIsReadAsItIs(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Enabled = "true"
	root := filepath.Join(cfg.Sys, cfg.Root)
	dirs := map[string]string{}
	usage := filepath.Join(root, "cpuacct/cpuacct.usage")
	unit := 1e9
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		dirs[""], usage, unit = root, filepath.Join(root, "cpu.stat"), 1e6
	} else {
		for _, name := range controllers {
			if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.IsDir() {
				dirs[name] = filepath.Join(root, name)
			}
		}
	}
	cpu := func() float64 {
		data, err := os.ReadFile(usage)
		if err != nil {
			t.Fatal(err)
		}
		v, err := strconv.ParseFloat(strings.Fields(strings.TrimPrefix(string(data), "usage_usec "))[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v / unit
	}

	name := fmt.Sprintf("nines-test-%d-%s.scope", os.Getpid(), strings.Repeat("0123456789abcdef", 4))
	child := exec.Command("/bin/sh", "-c", "read line")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, dir := range dirs {
		own := filepath.Join(dir, name)
		if err := os.Mkdir(own, 0o755); err != nil {
			t.Logf("no cgroup of our own: %v", err)
			continue
		}
		ours = append(ours, own)
		if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(child.Process.Pid)), 0o644); err != nil {
			t.Errorf("move a process there: %v", err)
		}
	}
	col, set := collector(t, cfg)
	before := cpu()
	fams := col.Collect(now)
	after := cpu()
	// Cgroups that come and go while all are read.
	if len(ours) == len(dirs) {
		ended := make(chan error, 1)
		go func() {
			var err error
			for range 300 {
				for _, own := range ours {
					within := filepath.Join(own, "docker-"+a+".scope")
					if mkdirErr := os.Mkdir(within, 0o755); mkdirErr != nil {
						err = mkdirErr
					} else if removeErr := os.Remove(within); removeErr != nil {
						err = removeErr
					}
				}
			}
			ended <- err
		}()
		for running := true; running; {
			col.Collect(now)
			select {
			case err := <-ended:
				running = false
				if err != nil {
					t.Errorf("make and remove cgroups: %v", err)
				}
			default:
			}
		}
	}
	for _, reason := range []string{unreadable, malformed, tooLarge} {
		if n := set.GetOrCreateCounter(fmt.Sprintf("%s{reason=%q}", metric.CgroupReadFailure, reason)).Get(); n != 0 {
			t.Errorf("%d files of a living kernel are %s", n, reason)
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err == nil {
		t.Error("the child read a line that nobody wrote")
	}
	for _, own := range ours {
		if err := os.Remove(own); err != nil {
			t.Error(err)
		}
	}

	if got, ok := value(fams, "container_cpu_usage_seconds_total", "id", "/"); !ok || got < before-1e-6 || got > after+1e-6 {
		t.Errorf("CPU time of the root %v, %v; want between %v and %v", got, ok, before, after)
	}
	if len(ours) != len(dirs) {
		return // what is left of the test is about a cgroup of our own
	}
	id := strings.TrimSuffix(name[strings.LastIndex(name, "-")+1:], ".scope")
	want(t, fams, 1, "container_processes", "name", id, "id", "/"+name)
	for _, controller := range []struct{ in, series string }{
		{"memory", "container_memory_usage_bytes"}, {"memory", "container_memory_working_set_bytes"}, {"memory", "container_memory_rss"},
		{"memory", "container_spec_memory_limit_bytes"}, {"memory", "container_oom_events_total"},
		{"cpuacct", "container_cpu_usage_seconds_total"}, {"cpu", "container_spec_cpu_shares"}, {"pids", "container_threads"},
	} {
		if _, has := dirs[controller.in]; !has {
			continue
		}
		if _, ok := value(fams, controller.series, "name", id); !ok {
			t.Errorf("our own cgroup lacks %s", controller.series)
		}
	}
	if _, unified := dirs[""]; unified {
		if _, ok := value(fams, "container_cpu_usage_seconds_total", "name", id); !ok {
			t.Error("our own cgroup lacks its CPU time")
		}
	}
}

func FuzzKernelText(f *testing.F) {
	archive, err := txtar.ParseFile(filepath.Join("testdata", "v2.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, x := range archive.Files[:60] {
		f.Add(string(x.Data))
	}
	f.Add("8:0 Read 4096\n8:0 Write 8192\nTotal 12288\n")
	f.Add("  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n")
	f.Add("max\n-1\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		check := func(vs ...float64) {
			for _, v := range vs {
				if v < 0 || v != v || v > 1<<64 {
					t.Fatalf("a figure of %v", v)
				}
			}
		}
		v, _ := parseNumber(text)
		check(v)
		for _, v := range parseTable(text) {
			check(v)
		}
		some, full, _, _ := parsePressure(text)
		quota, period, _, _ := parseCPUMax(text)
		check(some, full, quota, period)
		disks := map[string]bool{}
		ds := parseBlkio(text, parseIO(text), func(d *device) *float64 { return &d.reads }, func(d *device) *float64 { return &d.writes })
		if len(ds) > maxDevices {
			t.Fatalf("%d devices", len(ds))
		}
		for _, d := range ds {
			check(d.reads, d.writes, d.readBytes, d.writeBytes)
			if disks[d.number] || strings.ContainsAny(d.number, "/.") {
				t.Fatalf("device %q", d.number)
			}
			disks[d.number] = true
		}
		for _, l := range parseLinks(text) {
			check(l.figures[:]...)
		}
		if n, first := parseProcesses(text); n < 0 || first < 0 || n == 0 && first != 0 {
			t.Fatalf("%d processes, first %d", n, first)
		}
		if name := parseDeviceName(text); name != "" && !strings.HasPrefix(name, "/dev/") {
			t.Fatalf("device %q", name)
		}
		classify("/"+text, true)
	})
}
