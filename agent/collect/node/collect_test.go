package node

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"nines/pkg/metric"
	"nines/pkg/strictyaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fixture answers calls as a small host would.
type fixture struct{ stuck chan struct{} }

func (f fixture) statfs(path string) (usage, error) {
	switch path = strings.TrimPrefix(path, "testdata/root"); path {
	case "/mnt/broken":
		if f.stuck != nil {
			<-f.stuck
		}
		return usage{}, syscall.ESTALE
	case "/", "":
		return usage{size: 1e11, free: 4e10, avail: 3.5e10, files: 6e6, filesFree: 5e6}, nil
	}
	return usage{size: 1000, free: 500, avail: 400, files: 10, filesFree: 9}, nil
}

func (fixture) uname() (names, error) {
	return names{"Linux", "6.12.0-test", "#1 SMP", "x86_64", "node-a", "(none)"}, nil
}

func (fixture) adjtimex() (unix.Timex, int, error) {
	return unix.Timex{Offset: -1500, Freq: 65536, Maxerror: 16000, Esterror: 8, Status: 0x2001, Constant: 7, Tick: 10000, Tai: 37}, 0, nil
}

// fixtureConfig reads the fixture trees.
func fixtureConfig(proc string) Config {
	cfg := DefaultConfig()
	cfg.Proc, cfg.Sys, cfg.Root, cfg.Udev, cfg.TextfileDirectory = proc, "testdata/sys", "testdata/root", "testdata/udev", "testdata/textfile"
	return cfg
}

func fixtureCollector(t testing.TB, proc string, sys system) *Collector {
	t.Helper()
	c, err := build(fixtureConfig(proc), quiet, sys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func family(t testing.TB, fams []metric.Family, name string) metric.Family {
	t.Helper()
	i := slices.IndexFunc(fams, func(f metric.Family) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no family %s", name)
	}
	return fams[i]
}

func TestPageOfTheFixtureTreeIsTheGoldenOne(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("TST", 3600)
	defer func() { time.Local = local }()

	fams := fixtureCollector(t, "testdata/proc", fixture{}).Collect(time.UnixMilli(1795421711250))
	for i := range fams {
		// Times of the host that the test runs on.
		if fams[i].Name == "node_scrape_collector_duration_seconds" || fams[i].Name == "node_textfile_mtime_seconds" {
			for j := range fams[i].Series {
				fams[i].Series[j].Value = 0
			}
		}
	}
	var got bytes.Buffer
	if err := metric.WriteText(&got, fams); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "page.txt")
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
}

func TestEachSeriesIsToldOnceUnderAFamilyThatIsDescribed(t *testing.T) {
	families, series := map[string]bool{}, map[string]bool{}
	for _, f := range fixtureCollector(t, "testdata/proc", fixture{}).Collect(time.UnixMilli(0)) {
		if families[f.Name] {
			t.Errorf("%s is there twice", f.Name)
		}
		families[f.Name] = true
		if strings.HasPrefix(f.Name, "backup_") { // of the textfile folder
			continue
		}
		if !strings.HasPrefix(f.Name, "node_") || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s: help %q", f.Name, f.Help)
		}
		if (f.Type == metric.Counter) != strings.HasSuffix(f.Name, "_total") {
			t.Errorf("%s is a %s", f.Name, f.Type)
		}
		for _, s := range f.Series {
			if !slices.IsSortedFunc(s.Labels, func(a, b metric.Label) int { return strings.Compare(a.Name, b.Name) }) {
				t.Errorf("labels of %s are not sorted: %v", f.Name, s.Labels)
			}
			key := f.Name + s.Suffix + keyOf(s.Labels)
			if series[key] {
				t.Errorf("%s%v is there twice", f.Name, s.Labels)
			}
			series[key] = true
		}
	}
	if len(series) < 600 {
		t.Errorf("the fixtures give only %d series", len(series))
	}
}

func TestEverySourceReadsTheFixtures(t *testing.T) {
	for _, p := range fixtureCollector(t, "testdata/proc", fixture{}).Problems(time.UnixMilli(0)) {
		t.Errorf("%s: %v", p.Source, p.Err)
	}
}

func TestKernelCountersCarryBootTimeAndInterfacesDoNot(t *testing.T) {
	fams := fixtureCollector(t, "testdata/proc", fixture{}).Collect(time.UnixMilli(1795421711250))
	for name, start := range map[string]int64{
		"node_cpu_seconds_total":                   1795400000000,
		"node_disk_read_bytes_total":               1795400000000,
		"node_vmstat_pgfault":                      1795400000000,
		"node_pressure_io_stalled_seconds_total":   1795400000000,
		"node_network_receive_bytes_total":         0,
		"node_network_carrier_changes_total":       0,
		"node_xfs_read_calls_total":                0,
		"node_netstat_Tcp_InSegs":                  1795400000000,
		"node_softnet_processed_total":             1795400000000,
		"node_load1":                               0,
		"node_disk_io_now":                         0,
		"node_scrape_collector_success":            0,
		"node_filesystem_avail_bytes":              0,
		"node_disk_io_time_weighted_seconds_total": 1795400000000,
	} {
		for _, s := range family(t, fams, name).Series {
			if s.Start != start {
				t.Errorf("%s%v starts at %d, want %d", name, s.Labels, s.Start, start)
			}
		}
	}
}

func TestGivenBootTimeStandsAgainstWhatProcSays(t *testing.T) {
	cfg := fixtureConfig("testdata/proc")
	cfg.Boot = time.UnixMilli(42)
	c, err := build(cfg, quiet, fixture{})
	if err != nil {
		t.Fatal(err)
	}
	if s := family(t, c.Collect(time.UnixMilli(0)), "node_forks_total").Series[0]; s.Start != 42 {
		t.Errorf("start %d, want 42", s.Start)
	}
}

// copyTree copies the fixture so that a test may damage it.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/proc")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMissingOrDamagedFileFailsItsSourceAlone(t *testing.T) {
	for _, c := range []struct {
		file, content, source string
		missing               bool
	}{
		{"loadavg", "", "loadavg", true},
		{"loadavg", "x", "loadavg", false},
		{"meminfo", "MemTotal: many kB\n", "meminfo", false},
		{"net/dev", "a\nb\neth0: 1 2\n", "netdev", false},
		{"vmstat", "pgfault x\n", "vmstat", false},
		{"sys/fs/file-nr", "1 2\n", "filefd", false},
		{"diskstats", "8 0 sda x\n", "diskstats", false},
		{"1/mountinfo", "nonsense\n", "filesystem", false},
		{"pressure/io", "some nonsense\n", "pressure", false},
		{"stat", "ctxt 1\n", "cpu", false},
		{"stat", "cpu0 1 2 x\nctxt 1\n", "cpu", false},
		{"net/arp", "heading\n192.0.2.1 0x1\n", "arp", false},
		{"net/arp", "", "arp", true},
		{"sys/net/netfilter/nf_conntrack_count", "", "conntrack", true},
		{"net/stat/nf_conntrack", "heading\nzz\n", "conntrack", false},
		{"sys/kernel/random/poolsize", "many\n", "entropy", false},
		{"sys/kernel/hung_task_detect_count", "", "kernel_hung", true},
		{"mdstat", "Personalities : [raid1]\nmd0 : active raid1\n", "mdadm", false},
		{"mdstat", "", "mdadm", true},
		{"net/netstat", "TcpExt: A B\nTcpExt: 1\n", "netstat", false},
		{"net/snmp", "Tcp: InSegs\nUdp: 1\n", "netstat", false},
		{"net/snmp6", "Ip6InOctets x\n", "netstat", false},
		{"schedstat", "", "schedstat", true},
		{"schedstat", "cpu0 1 2 3\n", "schedstat", false},
		{"net/sockstat", "TCP: inuse\n", "sockstat", false},
		{"net/softnet_stat", "00 11\n", "softnet", false},
		{"net/udp", "heading\n 1: 0:0 0:0 07 5\n", "udp_queues", false},
		{"net/ip_vs_stats", "", "ipvs", true},
		{"spl/kstat/zfs/arcstats", "hits 4 70\n", "zfs", false},
		{"spl/kstat/zfs/tank/io", "nread nwritten\n1 x\n", "zfs", false},
		{"net/ip_vs_stats", "x\n", "ipvs", false},
	} {
		t.Run(c.source+" "+c.file, func(t *testing.T) {
			dir := copyTree(t)
			collector := fixtureCollector(t, dir, fixture{})
			path := filepath.Join(dir, c.file)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if !c.missing {
				if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			fams := collector.Collect(time.UnixMilli(0))
			for _, s := range family(t, fams, "node_scrape_collector_success").Series {
				want := 1.0
				if s.Labels[0].Value == c.source {
					want = 0
				}
				if s.Value != want {
					t.Errorf("success of %s is %v, want %v", s.Labels[0].Value, s.Value, want)
				}
			}
			problems := collector.Problems(time.UnixMilli(0))
			if len(problems) != 1 || problems[0].Source != c.source || problems[0].Missing != c.missing {
				t.Errorf("problems %+v", problems)
			}
		})
	}
}

func TestKernelWithoutPressureFiguresIsMissingNotBroken(t *testing.T) {
	dir := copyTree(t)
	if err := os.RemoveAll(filepath.Join(dir, "pressure")); err != nil {
		t.Fatal(err)
	}
	ps := fixtureCollector(t, dir, fixture{}).Problems(time.UnixMilli(0))
	if len(ps) != 1 || !ps[0].Missing || !strings.Contains(ps[0].Err.Error(), "psi=1") {
		t.Errorf("got %+v", ps)
	}
}

func TestContainerWithoutTheFirstProcessReadsItsOwnMounts(t *testing.T) {
	dir := copyTree(t)
	if err := os.Rename(filepath.Join(dir, "1"), filepath.Join(dir, "self")); err != nil {
		t.Fatal(err)
	}
	fams := fixtureCollector(t, dir, fixture{}).Collect(time.UnixMilli(0))
	if n := len(family(t, fams, "node_filesystem_size_bytes").Series); n != 3 {
		t.Errorf("%d file systems, want 3", n)
	}
}

func TestFileSystemThatHangsIsLeftOutUntilItAnswers(t *testing.T) {
	dir := copyTree(t)
	mounts, err := os.ReadFile(filepath.Join(dir, "1/mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	mounts = append(mounts, "41 26 8:32 / /behind rw - ext4 /dev/sdc rw\n"...)
	if err := os.WriteFile(filepath.Join(dir, "1/mountinfo"), mounts, 0o644); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := fixture{stuck: make(chan struct{})}
		c := fixtureCollector(t, dir, f)
		problem := func() string {
			fams := c.Collect(time.Now())
			if n := len(family(t, fams, "node_filesystem_size_bytes").Series); n != 4 {
				t.Errorf("%d file systems answer, want 4: those behind the one that hangs, too", n)
			}
			for _, s := range family(t, fams, "node_filesystem_device_error").Series {
				if s.Value == 1 {
					return s.Labels[1].Value
				}
			}
			return ""
		}
		began := time.Now()
		if got := problem(); got != "mountpoint timeout" {
			t.Errorf("first tick: %q", got)
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("first tick waited %v", waited)
		}
		began = time.Now()
		if got := problem(); got != "mountpoint timeout" || time.Since(began) != 0 {
			t.Errorf("second tick: %q after %v", got, time.Since(began))
		}
		close(f.stuck)
		synctest.Wait()
		if got := problem(); !strings.Contains(got, "stale") {
			t.Errorf("after it answers: %q", got)
		}
	})
}

// deaf answers no call about a file system.
type deaf struct {
	fixture
	calls *atomic.Int64
	ends  chan struct{}
}

func (d deaf) statfs(string) (usage, error) {
	d.calls.Add(1)
	<-d.ends
	return usage{}, nil
}

func TestFileSystemsThatAllHangHoldABoundedNumberOfGoroutines(t *testing.T) {
	dir := copyTree(t)
	var mounts bytes.Buffer
	for i := range 100 {
		fmt.Fprintf(&mounts, "30 26 0:%d / /mnt/%d rw - nfs4 server:/%d rw\n", i, i, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "1/mountinfo"), mounts.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := deaf{calls: new(atomic.Int64), ends: make(chan struct{})}
		c := fixtureCollector(t, dir, d)
		for range 5 {
			began := time.Now()
			fams := c.Collect(time.Now())
			if took := time.Since(began); took > c.timeout {
				t.Errorf("a tick took %v", took)
			}
			if n := len(family(t, fams, "node_filesystem_device_error").Series); n != 100 {
				t.Errorf("%d file systems are told, want all", n)
			}
		}
		if n := d.calls.Load(); n > maxStuck {
			t.Errorf("%d calls hang, more than %d", n, maxStuck)
		}
		close(d.ends)
		synctest.Wait()
		fams := c.Collect(time.Now())
		if n := len(family(t, fams, "node_filesystem_size_bytes").Series); n != 100 {
			t.Errorf("%d file systems are told once they answer, want all", n)
		}
	})
}

func TestSourceThatHangsHoldsUpNeitherTickNorOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fixtureCollector(t, "testdata/proc", fixture{})
		ends, calls := make(chan struct{}), new(atomic.Int64)
		hang := &source{name: "hang", labels: metric.Labels("collector", "hang"), read: func(p *tick) error {
			calls.Add(1)
			p.one(load1, 1) // what it wrote is not passed on
			<-ends
			return nil
		}}
		c.sources = slices.Insert(c.sources, 3, hang)
		success := func(fams []metric.Family) (all, failed int) {
			for _, s := range family(t, fams, "node_scrape_collector_success").Series {
				if all++; s.Value == 0 {
					failed++
				}
			}
			return all, failed
		}
		for range 3 {
			began := time.Now()
			fams := c.Collect(time.Now())
			if took := time.Since(began); took > c.timeout {
				t.Errorf("a tick took %v", took)
			}
			if all, failed := success(fams); all != len(c.sources) || failed != 1 {
				t.Errorf("%d of %d sources failed", failed, all)
			}
			if n := len(family(t, fams, "node_load1").Series); n != 1 {
				t.Errorf("%d series of node_load1", n)
			}
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("the source that hangs was called %d times", n)
		}
		if ps := c.Problems(time.Now()); len(ps) != 1 || !errors.Is(ps[0].Err, errSilent) {
			t.Errorf("problems %+v", ps)
		}
		close(ends)
		synctest.Wait()
		if _, failed := success(c.Collect(time.Now())); failed != 0 {
			t.Errorf("%d sources failed after it came back", failed)
		}
	})
}

func TestTickEndsInTimeWhenEverySourceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fixtureCollector(t, "testdata/proc", fixture{})
		ends, calls := make(chan struct{}), new(atomic.Int64)
		for _, s := range c.sources {
			s.read = func(*tick) error { calls.Add(1); <-ends; return nil }
		}
		began := time.Now()
		fams := c.Collect(time.Now())
		if took := time.Since(began); took > c.timeout {
			t.Errorf("the tick took %v", took)
		}
		for _, s := range family(t, fams, "node_scrape_collector_success").Series {
			if s.Value != 0 {
				t.Errorf("%v is well", s.Labels)
			}
		}
		if got := c.failed["xfs"]; !strings.Contains(got, "no time was left") {
			t.Errorf("the last ones fail with %q", got)
		}
		// Each has a quarter of the time.
		if n := calls.Load(); n > 5 {
			t.Errorf("%d sources were called, and no time was left for more than 4 or 5", n)
		}
		close(ends)
	})
}

func TestPanicAndTooManySeriesFailTheirSourceAlone(t *testing.T) {
	c := fixtureCollector(t, "testdata/proc", fixture{})
	c.sources[1].read = func(*tick) error { panic("index out of range") }
	c.sources[2].read = func(p *tick) error {
		p.family(load1)
		for range maxSeries + 1 {
			p.add(nil, 1)
		}
		return nil
	}
	ps := c.Problems(time.UnixMilli(0))
	if len(ps) != 2 || !strings.Contains(ps[0].Err.Error(), "malformed") || !strings.Contains(ps[1].Err.Error(), "more than") {
		t.Errorf("problems %+v", ps)
	}
	if n := metric.Count(c.Collect(time.UnixMilli(0))); n > maxSeries {
		t.Errorf("%d series", n)
	}
}

func TestFileWithoutEndAndFolderInPlaceOfAFileFailTheirSourceAlone(t *testing.T) {
	dir := copyTree(t)
	if err := os.Truncate(filepath.Join(dir, "meminfo"), maxFile+1); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "vmstat")), os.Mkdir(filepath.Join(dir, "vmstat"), 0o755)); err != nil {
		t.Fatal(err)
	}
	ps := fixtureCollector(t, dir, fixture{}).Problems(time.UnixMilli(0))
	if len(ps) != 2 || ps[0].Source != "meminfo" || ps[1].Source != "vmstat" || !strings.Contains(ps[0].Err.Error(), "more than 8 MiB") {
		t.Errorf("problems %+v", ps)
	}
}

func TestCollectorThatIsSwitchedOffIsNotRead(t *testing.T) {
	cfg := fixtureConfig("testdata/proc")
	cfg.Collectors = map[string]bool{"meminfo": false, "cpu": true}
	c, err := build(cfg, quiet, fixture{})
	if err != nil {
		t.Fatal(err)
	}
	fams := c.Collect(time.UnixMilli(0))
	if slices.ContainsFunc(fams, func(f metric.Family) bool { return strings.HasPrefix(f.Name, "node_memory_") }) {
		t.Error("there are series of meminfo")
	}
	if n := len(family(t, fams, "node_scrape_collector_success").Series); n != len(all)-1 {
		t.Errorf("%d sources, want %d", n, len(all)-1)
	}
}

func TestMistakeInTheConfigurationIsNamedWithItsRemedy(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"collectors.meminfos: there is no such collector: did you mean meminfo?": func(c *Config) { c.Collectors = map[string]bool{"meminfos": false} },
		"netdev.device_exclude: error parsing regexp":                            func(c *Config) { c.Netdev.DeviceExclude = "(" },
		"filesystem.fs_types_exclude: error parsing regexp":                      func(c *Config) { c.Filesystem.TypesExclude = "[" },
		"timeout: 1ms is too short":                                              func(c *Config) { c.Timeout = time.Millisecond },
		"textfile_directory: ":                                                   func(c *Config) { c.TextfileDirectory = "a[" },
		"sys: ":                                                                  func(c *Config) { c.Sys = "testdata/none" },
	} {
		cfg := fixtureConfig("testdata/proc")
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := fixtureConfig("testdata/proc").Validate(); err != nil {
		t.Errorf("the fixtures' own: %v", err)
	}
}

func TestConfigurationIsReadUnderItsKeys(t *testing.T) {
	got := DefaultConfig()
	err := strictyaml.Decode("node.yaml", []byte(`
proc: /host/proc
sys: /host/sys
root: /host/root
udev: /host/udev
collectors: {zfs: false}
timeout: 2s
textfile_directory: /host/textfile
filesystem: {mount_points_exclude: a, fs_types_exclude: b}
diskstats: {device_exclude: c}
netdev: {device_exclude: d}
netclass: {device_exclude: e}
`), &got)
	want := Config{
		Proc: "/host/proc", Sys: "/host/sys", Root: "/host/root", Udev: "/host/udev", Collectors: map[string]bool{"zfs": false}, Timeout: 2 * time.Second,
		TextfileDirectory: "/host/textfile", Filesystem: FilesystemConfig{"a", "b"}, Diskstats: DeviceConfig{"c"}, Netdev: DeviceConfig{"d"}, Netclass: DeviceConfig{"e"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
}

func TestDevicesThatAPatternNamesAreLeftOut(t *testing.T) {
	cfg := fixtureConfig("testdata/proc")
	cfg.Filesystem = FilesystemConfig{MountPointsExclude: "^/srv", TypesExclude: "^tmpfs$"}
	cfg.Diskstats.DeviceExclude, cfg.Netdev.DeviceExclude, cfg.Netclass.DeviceExclude = "^nvme", "^lo$", "^eth1$"
	c, err := build(cfg, quiet, fixture{})
	if err != nil {
		t.Fatal(err)
	}
	fams := c.Collect(time.UnixMilli(0))
	for name, want := range map[string][]string{
		"node_filesystem_readonly":         {"/", "/mnt/broken", "/proc", "/sys", "/var/lib/docker/overlay2/x/merged"},
		"node_disk_io_now":                 {"loop0", "sda", "sda1", "sdb"},
		"node_network_receive_bytes_total": {"eth0"},
		"node_network_up":                  {"bond0", "eth0"},
	} {
		var got []string
		for _, s := range family(t, fams, name).Series {
			for _, l := range s.Labels {
				if l.Name == "mountpoint" || l.Name == "device" && name != "node_filesystem_readonly" {
					got = append(got, l.Value)
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s of %v, want %v", name, got, want)
		}
	}
}

func TestMountPointsAreThoseOfTheNodeNotOfTheContainer(t *testing.T) {
	for _, c := range []struct{ root, point, want string }{
		{"/host/root", "/host/root", "/"},
		{"/host/root/", "/host/root/var/lib", "/var/lib"},
		{"/host/root", "/host/rooted", "/host/rooted"},
		{"/host/root", "/etc/hosts", "/etc/hosts"},
		{"/", "/var", "/var"},
	} {
		f := &filesystems{node: &node{cfg: Config{Root: c.root}}}
		if got := f.strip(c.point); got != c.want {
			t.Errorf("%s below %s: got %s, want %s", c.point, c.root, got, c.want)
		}
	}
}

func TestNetworkIsThatOfTheFirstProcess(t *testing.T) {
	dir := copyTree(t)
	if err := os.MkdirAll(filepath.Join(dir, "1/net"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "heading\nheading\nhost0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
	if err := os.WriteFile(filepath.Join(dir, "1/net/dev"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s := family(t, fixtureCollector(t, dir, fixture{}).Collect(time.UnixMilli(0)), "node_network_transmit_bytes_total").Series
	if len(s) != 1 || s[0].Labels[0].Value != "host0" || s[0].Value != 9 {
		t.Errorf("got %+v", s)
	}
}

func TestTextfilesAreReadAgainWhenTheyChangeAndMistakesAreTold(t *testing.T) {
	dir := t.TempDir()
	cfg := fixtureConfig("testdata/proc")
	cfg.TextfileDirectory = dir
	c, err := build(cfg, quiet, fixture{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1795400000000)
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		at = at.Add(time.Second)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	look := func() (values []float64, failed float64) {
		t.Helper()
		fams := c.Collect(time.UnixMilli(0))
		for _, f := range fams {
			if f.Name == "jobs" {
				for _, s := range f.Series {
					values = append(values, s.Value)
				}
			}
		}
		return values, family(t, fams, "node_textfile_scrape_error").Series[0].Value
	}
	check := func(what string, wantFailed float64, want ...float64) {
		t.Helper()
		if values, failed := look(); !slices.Equal(values, want) || failed != wantFailed {
			t.Errorf("%s: %v, error %v; want %v, error %v", what, values, failed, want, wantFailed)
		}
	}
	check("empty folder", 0)
	write("a.prom", "jobs 1\n")
	check("one file", 0, 1)
	write("a.prom", "jobs 2\n")
	check("changed file", 0, 2)
	write("b.prom", "jobs{queue=\"x\"} 3\n")
	check("two files", 0, 2, 3)
	write("c.prom", "jobs 9\n")
	check("the same series twice", 1, 2, 3)
	write("c.prom", "jobs{} x\n")
	check("malformed", 1, 2, 3)
	write("c.prom", "jobs{queue=\"y\"} 4 1795400000000\n")
	check("with a timestamp", 1, 2, 3)
	write("c.prom", "node_load1 4\n")
	check("a name of another source", 1, 2, 3)
	write("c.prom", "# TYPE jobs counter\njobs{queue=\"y\"} 4\n")
	check("another type", 1, 2, 3)
	if err := os.Remove(filepath.Join(dir, "c.prom")); err != nil {
		t.Fatal(err)
	}
	check("after it was removed", 0, 2, 3)
}

func TestChipIsNamedAfterTheDeviceBehindItAndTwinsAreToldApart(t *testing.T) {
	dir := t.TempDir()
	for chip, name := range map[string]string{"hwmon0": "nvme", "hwmon1": "nvme", "hwmon2": "drivetemp"} {
		device := filepath.Join(dir, "devices/pci/0000:01:00.0/hwmon", chip)
		class := filepath.Join(dir, "class/hwmon")
		err := errors.Join(os.MkdirAll(device, 0o755), os.MkdirAll(class, 0o755),
			os.WriteFile(filepath.Join(device, "name"), []byte(name+"\n"), 0o644),
			os.WriteFile(filepath.Join(device, "temp1_input"), []byte("40000\n"), 0o644),
			os.Symlink(device, filepath.Join(class, chip)), os.Symlink("../../../0000:01:00.0", filepath.Join(device, "device")))
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg := fixtureConfig("testdata/proc")
	cfg.Sys = dir
	c, err := build(cfg, quiet, fixture{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range family(t, c.Collect(time.UnixMilli(0)), "node_hwmon_temp_celsius").Series {
		got = append(got, s.Labels[0].Value)
	}
	want := []string{"pci_0000:01:00_0_drivetemp", "pci_0000:01:00_0_hwmon0", "pci_0000:01:00_0_hwmon1"}
	if !slices.Equal(got, want) {
		t.Errorf("chips %v, want %v", got, want)
	}
}

func TestNamesOfSensorFiles(t *testing.T) {
	for name, want := range map[string]struct {
		kind   string
		number int
		prop   string
		ok     bool
	}{
		"temp1_input":                    {"temp", 1, "input", true},
		"temp12_crit_alarm":              {"temp", 12, "crit_alarm", true},
		"pwm1":                           {"pwm", 1, "", true},
		"pwm1_auto_point1_x":             {"pwm", 1, "auto_point1_x", true},
		"update_interval":                {"update_interval", 0, "", true},
		"in0_":                           {},
		"1x":                             {},
		"fan1x":                          {},
		"":                               {},
		"temp99999999999999999999_input": {},
	} {
		kind, number, prop, ok := sensorFile(name)
		if ok != want.ok || ok && (kind != want.kind || number != want.number || prop != want.prop) {
			t.Errorf("%s: %s %d %s %v", name, kind, number, prop, ok)
		}
	}
}

func TestCoreCountersDoNotFallUnlessTheCoreWasReplaced(t *testing.T) {
	cores, err := parseCPU([]byte("cpu0 700 0 0 10000 500\ncpu1 5000 0 0 10000 0\ncpu3 1 0 0 1 0\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cores, err = parseCPU([]byte("cpu0 800 0 0 9998 400\ncpu1 100 0 0 200 0\ncpu2 100 0 0 0 0\n"), cores)
	if err != nil {
		t.Fatal(err)
	}
	var got []cpuTimes
	for i, c := range cores {
		if c.id != uint64(i) {
			t.Errorf("core %d stands at %d", c.id, i)
		}
		got = append(got, c.times)
	}
	want := []cpuTimes{{cpuUser: 8, cpuIdle: 100, cpuIOWait: 5}, {cpuUser: 1, cpuIdle: 2}, {cpuUser: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: core 0 corrected downwards, core 1 replaced, core 2 new, core 3 gone", got, want)
	}
}

func TestLogTellsChangesOnly(t *testing.T) {
	var b bytes.Buffer
	dir := copyTree(t)
	c, err := build(fixtureConfig(dir), slog.New(slog.NewTextHandler(&b, nil)), fixture{})
	if err != nil {
		t.Fatal(err)
	}
	// What was never there is not worth a line: no node has all hardware.
	if err := os.Remove(filepath.Join(dir, "mdstat")); err != nil {
		t.Fatal(err)
	}
	c.Collect(time.UnixMilli(0))
	path := filepath.Join(dir, "loadavg")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c.Collect(time.UnixMilli(0))
	c.Collect(time.UnixMilli(1))
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Collect(time.UnixMilli(2))
	c.Collect(time.UnixMilli(3))
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want one for the failure and one for its end:\n%s", n, b.String())
	}
}

func TestHostWithoutProcfsIsAnErrorWithARemedy(t *testing.T) {
	_, err := New(fixtureConfig(filepath.Join(t.TempDir(), "none")), quiet)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "proc: ") || !strings.Contains(err.Error(), "mount procfs") {
		t.Errorf("got %v", err)
	}
}

func TestThisHostGivesSamples(t *testing.T) {
	c, err := New(DefaultConfig(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	c.Collect(time.Now())
	fams := c.Collect(time.Now()) // the second one uses what the first one kept
	if v := family(t, fams, "node_memory_MemTotal_bytes").Series[0].Value; v <= 0 {
		t.Errorf("total memory %v", v)
	}
	if v := family(t, fams, "node_uname_info").Series[0]; v.Labels[2].Value == "" {
		t.Errorf("uname %v", v)
	}
}

func TestEscapedMountPointsAreReadable(t *testing.T) {
	for in, want := range map[string]string{
		`/srv/with\040space`: "/srv/with space",
		`/tab\011x`:          "/tab\tx",
		`/end\`:              `/end\`,
		`/not\999octal`:      `/not\999octal`,
		`/plain`:             "/plain",
	} {
		if got := unescape(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}
