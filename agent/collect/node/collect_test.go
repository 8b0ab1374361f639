package node

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/procfs"

	"nines/pkg/metric"
)

var update = flag.Bool("update", false, "write the golden files anew")

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fixture answers calls as a small host would.
type fixture struct{ stuck chan struct{} }

func (f fixture) statfs(path string) (usage, error) {
	switch path {
	case "/mnt/broken":
		if f.stuck != nil {
			<-f.stuck
		}
		return usage{}, syscall.ESTALE
	case "/":
		return usage{size: 1e11, free: 4e10, avail: 3.5e10, files: 6e6, filesFree: 5e6}, nil
	}
	return usage{size: 1000, free: 500, avail: 400, files: 10, filesFree: 9}, nil
}

func (fixture) uname() (names, error) {
	return names{"Linux", "6.12.0-test", "#1 SMP", "x86_64", "node-a", "(none)"}, nil
}

func fixtureCollector(t *testing.T, proc string, sys system) *Collector {
	t.Helper()
	c, err := build(Config{Proc: proc, Sys: "testdata/sys", Root: "/"}, quiet, sys)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func family(t *testing.T, fams []metric.Family, name string) metric.Family {
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
		if fams[i].Name == "node_scrape_collector_duration_seconds" {
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

func TestHelpEndsWithAFullStopAndCountersAreNamedSo(t *testing.T) {
	for _, f := range fixtureCollector(t, "testdata/proc", fixture{}).Collect(time.UnixMilli(0)) {
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
		}
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
	c, err := build(Config{Proc: "testdata/proc", Sys: "testdata/sys", Root: "/", Boot: time.UnixMilli(42)}, quiet, fixture{})
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
	} {
		t.Run(c.source, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
		f := fixture{stuck: make(chan struct{})}
		c := fixtureCollector(t, "testdata/proc", f)
		problem := func() string {
			for _, s := range family(t, c.Collect(time.Now()), "node_filesystem_device_error").Series {
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
		if waited := time.Since(began); waited != statTimeout {
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

func TestCoreCountersDoNotFallUnlessTheCoreWasReplaced(t *testing.T) {
	last := map[int64]procfs.CPUStat{0: {Idle: 100, Iowait: 5, User: 7}, 1: {Idle: 100, User: 50}}
	got := rising(last, map[int64]procfs.CPUStat{0: {Idle: 99.98, Iowait: 4, User: 8}, 1: {Idle: 2, User: 1}, 2: {User: 1}})
	if got[0] != (procfs.CPUStat{Idle: 100, Iowait: 5, User: 8}) {
		t.Errorf("core 0: %+v", got[0])
	}
	if got[1] != (procfs.CPUStat{Idle: 2, User: 1}) {
		t.Errorf("core 1 was replaced but shows %+v", got[1])
	}
	if got[2] != (procfs.CPUStat{User: 1}) {
		t.Errorf("core 2 is new but shows %+v", got[2])
	}
}

func TestLogTellsChangesOnly(t *testing.T) {
	var b bytes.Buffer
	dir := copyTree(t)
	c, err := build(Config{Proc: dir, Sys: "testdata/sys", Root: "/"}, slog.New(slog.NewTextHandler(&b, nil)), fixture{})
	if err != nil {
		t.Fatal(err)
	}
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
	_, err := New(Config{Proc: filepath.Join(t.TempDir(), "none"), Sys: "testdata/sys", Root: "/"}, quiet)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "proc: ") || !strings.Contains(err.Error(), "mount procfs") {
		t.Errorf("got %v", err)
	}
}

func TestThisHostGivesSamples(t *testing.T) {
	c, err := New(DefaultConfig(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	fams := c.Collect(time.Now())
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

func FuzzKernelText(f *testing.F) {
	f.Add("pgfault 1\noom_kill 2\n")
	f.Add("785\t0\t2466174\n")
	f.Add("pgfault")
	f.Add(`\040\`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func() ([]metric.Family, error){
			func() ([]metric.Family, error) { return parseVMStat(text, 1) },
			func() ([]metric.Family, error) { return parseFileNr(text) },
		} {
			if fams, err := parse(); err != nil && fams != nil {
				t.Fatalf("both families and an error for %q", text)
			}
		}
		if len(unescape(text)) > len(text) {
			t.Fatalf("unescape made %q longer", text)
		}
	})
}
