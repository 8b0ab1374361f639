//go:build e2e

package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
	"nines/e2e/parts"
	"nines/pkg/metric"
)

// The part of node_exporter's series, those that an exception gives a reason
// for left out, that the agent must have with the same name, labels, type and
// value. Fixtures stand still, but for the clock and the disk under them.
const (
	enoughOnHost     = 0.95
	enoughOnFixtures = 0.995
)

// exception is a family of node_exporter, or some of its series, that the agent
// does not have, or has with another value.
type exception struct {
	family *regexp.Regexp // of whole names
	reason string
}

func except(family, reason string) exception {
	return exception{regexp.MustCompile("^(" + family + ")$"), reason}
}

var exceptions = []exception{
	except(`node_filesystem_purgeable_bytes`, "a figure of macOS; on Linux node_exporter says 0 for every file system"),
	except(`node_nvme_namespace_(capacity|size)_bytes`, "sysfs counts sectors of 512 bytes; node_exporter multiplies by the device's block, 8 times too much on one of 4 KiB"),
	except(`node_bcache_btree_read_average_duration_seconds`, "sysfs counts microseconds, node_exporter takes them for nanoseconds"),
}

// notOfTheNode are what node_exporter says about itself.
var notOfTheNode = regexp.MustCompile(`^(go_.*|process_.*|promhttp_.*|node_exporter_build_info|node_scrape_collector_.*)$`)

// rounds is how often both are read: a series is right when it was in one of
// them, since a gauge may be up and down again between two readings.
const rounds = 5

func TestNodeSeriesAreThoseOfNodeExporter(t *testing.T) {
	t.Parallel()
	t.Run("host", func(t *testing.T) {
		compareNode(t, harness.New(t), enoughOnHost, nil, "    collectors: {}\n")
	})
	t.Run("fixtures", func(t *testing.T) {
		lab := harness.New(t)
		dir := nodeFixtures(t, lab)
		proc, sys, udev, text := dir+"/proc", dir+"/sys", dir+"/udev/data", dir+"/textfile/two_metric_files"
		// By default these two are asked of the host by netlink, whatever the folders
		// say; and the fixtures have no file that netdev could be read from instead.
		compareNode(t, lab, enoughOnFixtures, []string{"--path.procfs=" + proc, "--path.sysfs=" + sys, "--path.rootfs=" + dir, "--path.udev.data=" + udev,
			"--collector.textfile.directory=" + text, "--no-collector.arp.netlink", "--no-collector.netdev"},
			fmt.Sprintf("    proc: %q\n    sys: %q\n    root: %q\n    udev: %q\n    textfile_directory: %q\n    collectors: {netdev: false}\n", proc, sys, dir, udev, text))
	})
}

// compareNode starts both and compares what they say.
func compareNode(t *testing.T, lab *harness.Lab, enough float64, flags []string, config string) {
	t.Helper()
	part, err := parts.Get(t.Context(), parts.NodeExporter, func(line string) { lab.Say("%s", line) })
	if err != nil {
		t.Fatal(err)
	}
	theirs := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	lab.Start(harness.Command{
		Name: "node_exporter", Path: filepath.Join(part, "node_exporter"), Args: append([]string{"--web.listen-address", theirs}, flags...),
		Ready: func() error { _, err := harness.Get("http://" + theirs + "/metrics"); return err },
	})
	ours := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	file := fmt.Sprintf("cluster: e2e\nnode: node-1\nstate: %q\nlisten: %s\nlogs: {sources: []}\nmetrics:\n  interval: 1s\n  send_to: []\n  node:\n%s",
		lab.Dir("agent"), ours, config)
	lab.Start(harness.Command{
		Name: "nines-agent", Path: lab.Program("nines-agent"), Args: []string{"--config", lab.Write("agent.yaml", file)},
		Ready: func() error { _, err := harness.Get("http://" + ours + "/healthz"); return err },
	})

	verdicts := map[string]*verdict{}
	for range rounds {
		before := nodeFamilies(t, "http://"+theirs+"/metrics")
		var got map[string]nodeSeries
		// The agent reads by its own clock: its page must be of between the two.
		lab.Eventually(time.Minute, "the agent reads the node", func() error {
			got = nodeFamilies(t, "http://"+ours+"/metrics/node")
			if at, begun := got["node_time_seconds"].value, before["node_time_seconds"].value; at < begun {
				return fmt.Errorf("its page is of %.3f, and shall be of after %.3f", at, begun)
			}
			return nil
		})
		after := nodeFamilies(t, "http://"+theirs+"/metrics")
		for key, want := range before {
			if notOfTheNode.MatchString(want.family) {
				continue
			}
			later, ok := after[key]
			if !ok {
				continue // it went away
			}
			v := verdicts[key]
			if v == nil {
				v = &verdict{nodeSeries: want}
				verdicts[key] = v
			}
			v.judge(want, later, got[key])
		}
	}
	report(t, enough, verdicts, collectorsOf(t, "http://"+theirs+"/metrics"))
}

// nodeSeries is a series of either page.
type nodeSeries struct {
	family string
	typ    metric.Type
	value  float64
	there  bool
}

// nodeFamilies reads a page by series. Labels without a value are left out: to
// Prometheus that is the same.
func nodeFamilies(t *testing.T, url string) map[string]nodeSeries {
	t.Helper()
	page, err := harness.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	fams, err := metric.ParseText(page)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	all := map[string]nodeSeries{}
	for _, f := range fams {
		for _, s := range f.Series {
			key := f.Name + s.Suffix
			slices.SortFunc(s.Labels, func(a, b metric.Label) int { return strings.Compare(a.Name, b.Name) })
			for _, l := range s.Labels {
				if l.Value != "" {
					key += "," + l.Name + "=" + strconv.Quote(l.Value)
				}
			}
			all[key] = nodeSeries{f.Name, f.Type, s.Value, true}
		}
	}
	return all
}

// verdict is what the rounds say of a series of node_exporter.
type verdict struct {
	nodeSeries
	present, typed, right bool
	last                  string // the values of a round that was not right
}

// slack is how far a gauge that moves may lie outside what node_exporter said
// before and after, as a part of it: memory moves on between the readings.
const slack = 0.02

func (v *verdict) judge(before, after, got nodeSeries) {
	if !got.there {
		return
	}
	v.present = true
	v.typed = v.typed || got.typ == before.typ
	low, high := min(before.value, after.value), max(before.value, after.value)
	if before.typ != metric.Counter && low != high {
		room := slack * max(math.Abs(low), math.Abs(high))
		low, high = low-room, high+room
	}
	// Sums of fractions may differ in their last digit.
	room := 1e-9 * max(math.Abs(low), math.Abs(high))
	if got.value >= low-room && got.value <= high+room || math.IsNaN(got.value) && math.IsNaN(before.value) {
		v.right = true
		return
	}
	v.last = fmt.Sprintf("%v, not from %v to %v", got.value, before.value, after.value)
}

// wrong says what is wrong with the series; it is empty where nothing is.
func (v *verdict) wrong() string {
	switch {
	case !v.present:
		return "is missing"
	case !v.typed:
		return "has another type than " + string(v.typ)
	case !v.right:
		return "is " + v.last
	}
	return ""
}

// collectorsOf asks each collector alone, to know which families are its own.
func collectorsOf(t *testing.T, url string) map[string]string {
	t.Helper()
	page, err := harness.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	owner := map[string]string{}
	found := regexp.MustCompile(`(?m)^node_scrape_collector_success\{collector="(\w+)"\} 1$`).FindAllSubmatch(page, -1)
	if len(found) == 0 {
		t.Fatalf("%s names no collector that is well", url)
	}
	for _, m := range found {
		for _, s := range nodeFamilies(t, url+"?collect%5B%5D="+string(m[1])) {
			if !notOfTheNode.MatchString(s.family) {
				owner[s.family] = string(m[1])
			}
		}
	}
	return owner
}

// report prints a table by collector, and fails where too much is wrong.
func report(t *testing.T, enough float64, verdicts map[string]*verdict, owner map[string]string) {
	t.Helper()
	type line struct{ series, excepted, wrong int }
	lines := map[string]*line{}
	used := map[string]int{} // reason to series
	var wrongs []string
	total, wrong := 0, 0
	for _, key := range slices.Sorted(maps.Keys(verdicts)) {
		v := verdicts[key]
		collector := cmp.Or(owner[v.family], "?")
		l := lines[collector]
		if l == nil {
			l = &line{}
			lines[collector] = l
		}
		l.series++
		complaint := v.wrong()
		at := slices.IndexFunc(exceptions, func(e exception) bool { return e.family.MatchString(v.family) })
		switch {
		case complaint == "":
			total++
		case at >= 0:
			l.excepted++
			used[exceptions[at].reason]++
		default:
			total++
			wrong++
			l.wrong++
			wrongs = append(wrongs, key+" "+complaint)
		}
	}
	var table strings.Builder
	fmt.Fprintf(&table, "\n%-18s %6s %8s %5s\n", "collector", "series", "excepted", "wrong")
	for _, c := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&table, "%-18s %6d %8d %5d\n", c, lines[c].series, lines[c].excepted, lines[c].wrong)
	}
	for _, reason := range slices.Sorted(maps.Keys(used)) {
		fmt.Fprintf(&table, "excepted: %d series: %s\n", used[reason], reason)
	}
	for _, w := range wrongs {
		fmt.Fprintf(&table, "wrong: %s\n", w)
	}
	t.Log(table.String())
	if total < 200 {
		t.Errorf("node_exporter gives only %d series to compare", total)
	}
	if share := float64(total-wrong) / float64(total); share < enough {
		t.Errorf("%.1f %% of %d series are those of node_exporter, want %.1f %%", 100*share, total, 100*enough)
	}
}

// nodeFixtures lays node_exporter's own fixtures out: two trees of files, and
// two archives.
func nodeFixtures(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	out, err := harness.Run("go", "mod", "download", "-json", "github.com/prometheus/node_exporter@"+parts.NodeExporter.Version)
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil || module.Dir == "" {
		t.Fatalf("the go command says where the module is in %.200s (%v)", out, err)
	}
	from, to := filepath.Join(module.Dir, "collector", "fixtures"), lab.Dir("fixtures")
	for _, tree := range []string{"proc", "textfile", "usr"} {
		if err := os.CopyFS(filepath.Join(to, tree), os.DirFS(filepath.Join(from, tree))); err != nil {
			t.Fatal(err)
		}
	}
	for _, archive := range []string{"sys.ttar", "udev.ttar"} {
		data, err := os.ReadFile(filepath.Join(from, archive))
		if err != nil {
			t.Fatal(err)
		}
		n, err := unpackTextTar(string(data), to)
		if err != nil || n == 0 {
			t.Fatalf("unpack %s: %d files: %v", archive, n, err)
		}
	}
	// The agent asks which start of the kernel this is, and these have none.
	lab.Write("fixtures/proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000000\n")
	return to
}

// unpackTextTar unpacks the archive of lines that Prometheus keeps fixtures in:
// a header for each entry, and so many lines of content. EOF at the end of the
// content means that it has no newline there, NULLBYTE is one; both are literal
// behind a backslash.
func unpackTextTar(archive, dir string) (files int, err error) {
	content := strings.NewReplacer(`\NULLBYTE`, "NULLBYTE", "NULLBYTE", "\x00", `\EOF`, "EOF", "EOF\n", "", "EOF", "")
	path := ""
	for archive != "" && err == nil {
		var l string
		l, archive, _ = strings.Cut(archive, "\n")
		key, value, ok := strings.Cut(l, ": ")
		if !ok || strings.HasPrefix(l, "#") {
			continue
		}
		switch key {
		case "Directory", "Path":
			if !filepath.IsLocal(value) {
				return files, fmt.Errorf("%q points outside", value)
			}
			path = filepath.Join(dir, value)
			err = os.MkdirAll(filepath.Dir(path), 0o755)
			if key == "Directory" {
				err = errors.Join(err, os.MkdirAll(path, 0o755))
			}
		case "SymlinkTo":
			err = os.Symlink(value, path)
			files++
		case "Lines":
			n, atoi := strconv.Atoi(value)
			var text strings.Builder
			for range n {
				var l string
				l, archive, _ = strings.Cut(archive, "\n")
				text.WriteString(l + "\n")
			}
			err = errors.Join(atoi, os.WriteFile(path, []byte(content.Replace(text.String())), 0o644))
			files++
		}
	}
	return files, err
}
