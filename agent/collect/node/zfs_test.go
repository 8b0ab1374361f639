package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/pkg/metric"
)

// seriesOf returns the labels and the value of each series of a family.
func seriesOf(f metric.Family) []string {
	var all []string
	for _, s := range f.Series {
		text := ""
		for _, l := range s.Labels {
			text += l.Name + "=" + l.Value + ","
		}
		all = append(all, fmt.Sprintf("%s %v", text, s.Value))
	}
	return all
}

func checkSeries(t *testing.T, fams []metric.Family, name string, typ metric.Type, want ...string) {
	t.Helper()
	f := family(t, fams, name)
	if got := seriesOf(f); f.Type != typ || !slices.Equal(got, want) {
		t.Errorf("%s is a %s with %q, want a %s with %q", name, f.Type, got, typ, want)
	}
}

func TestFiguresOfZFSKeepTheirKeysAndNameTheirPoolAndDataSet(t *testing.T) {
	fams := fixtureCollector(t, "testdata/proc", fixture{}).Collect(time.UnixMilli(0))
	checkSeries(t, fams, "node_zfs_arc_hits", metric.Unknown, " 905123")
	checkSeries(t, fams, "node_zfs_zfetch_hits", metric.Unknown, " 30")
	checkSeries(t, fams, "node_zfs_arc_memory_available_bytes", metric.Unknown, " -5.24288e+07")
	checkSeries(t, fams, "node_zfs_fm_erpt_dropped", metric.Unknown, " 2")
	checkSeries(t, fams, "node_zfs_zpool_rcnt", metric.Unknown, "zpool=tank, 2")
	// The pool named data shows that its name is not looked for in dataset_name.
	checkSeries(t, fams, "node_zfs_zpool_dataset_writes", metric.Unknown,
		"dataset=data,zpool=data, 5", "dataset=tank/volumes for pods,zpool=tank, 12", "dataset=tank,zpool=tank, 1")
	f := family(t, fams, "node_zfs_zpool_state")
	if n := len(f.Series); n != 2*len(zfsStates) || f.Type != metric.Gauge {
		t.Errorf("the states of two pools are %d series of a %s", n, f.Type)
	}
	var on []string
	for _, s := range f.Series {
		if s.Value == 1 {
			on = append(on, s.Labels[1].Value+" "+s.Labels[0].Value)
		}
	}
	if want := []string{"data suspended", "tank online"}; !slices.Equal(on, want) {
		t.Errorf("states %q, want %q", on, want)
	}
}

func TestPoolThatIsExportedTakesItsSeriesWithIt(t *testing.T) {
	dir := copyTree(t)
	c := fixtureCollector(t, dir, fixture{})
	c.Collect(time.UnixMilli(0))
	if err := os.RemoveAll(filepath.Join(dir, "spl/kstat/zfs/tank")); err != nil {
		t.Fatal(err)
	}
	fams := c.Collect(time.UnixMilli(1))
	checkSeries(t, fams, "node_zfs_zpool_dataset_writes", metric.Unknown, "dataset=data,zpool=data, 5")
	if slices.ContainsFunc(fams, func(f metric.Family) bool { return f.Name == "node_zfs_zpool_nread" }) {
		t.Error("the pool's input and output is still told")
	}
}

func TestDamagedFileOfZFSFailsItsSourceAloneAndIsNamed(t *testing.T) {
	many := "name type data\n" + strings.Repeat("figure 4 1\n", maxKstats+1)
	for _, c := range []struct{ file, content, want string }{
		{"arcstats", "name type data\nhits 4 -1\n", "number"},
		{"arcstats", "name type data\nhits 3 1.5\n", "number"},
		{"zil", "14 1 0x01\n", "no heading"},
		{"zil", many, "more than 4096"},
		{"tank/io", "nread nwritten\n1\n", "a number for each name"},
		{"tank/io", "20 3 0x00\n", "no heading"},
		{"tank/objset-0x6", "name type data\nwrites 4 1\n", "does not name its data set"},
	} {
		dir := copyTree(t)
		if err := os.WriteFile(filepath.Join(dir, "spl/kstat/zfs", c.file), []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		ps := fixtureCollector(t, dir, fixture{}).Problems(time.UnixMilli(0))
		if len(ps) != 1 || ps[0].Source != "zfs" || ps[0].Missing || !strings.Contains(ps[0].Err.Error(), filepath.Base(c.file)+": ") ||
			!strings.Contains(ps[0].Err.Error(), c.want) {
			t.Errorf("%s %.40q: problems %+v, want one that says %q", c.file, c.content, ps, c.want)
		}
	}
}

func TestMoreDataSetsThanASourceMayGiveFailTheSource(t *testing.T) {
	dir := copyTree(t)
	var text bytes.Buffer
	text.WriteString("name type data\ndataset_name 7 tank/many\n")
	for i := range maxKstats {
		fmt.Fprintf(&text, "figure%d 4 1\n", i)
	}
	for i := range maxSeries/maxKstats + 1 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("spl/kstat/zfs/tank/objset-%d", i)), text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := fixtureCollector(t, dir, fixture{})
	c.timeout = time.Minute
	ps := c.Problems(time.UnixMilli(0))
	if len(ps) != 1 || ps[0].Source != "zfs" || !strings.Contains(ps[0].Err.Error(), "more than 100000 series") {
		t.Errorf("problems %+v", ps)
	}
}

func TestNodeWithoutTheseFileSystemsIsMissingThemNotBroken(t *testing.T) {
	proc, sys := copyTree(t), t.TempDir()
	err := errors.Join(os.RemoveAll(filepath.Join(proc, "spl")), os.CopyFS(sys, os.DirFS("testdata/sys")), os.RemoveAll(filepath.Join(sys, "fs/bcachefs")))
	if err != nil {
		t.Fatal(err)
	}
	cfg := fixtureConfig(proc)
	cfg.Sys = sys
	c, err := build(cfg, quiet, fixture{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		missing := map[string]bool{}
		for _, p := range c.Problems(time.UnixMilli(0)) {
			missing[p.Source] = p.Missing
		}
		if !missing["zfs"] || !missing["bcachefs"] {
			t.Errorf("%s: missing are %v", what, missing)
		}
	}
	check("without the modules")
	if err := os.Mkdir(filepath.Join(sys, "fs/bcachefs"), 0o755); err != nil {
		t.Fatal(err)
	}
	check("with nothing mounted")
}

func TestNoMoreSeriesAreGatheredThanAPageRefuses(t *testing.T) {
	var b byFamily
	b.begin()
	for range maxSeries + 10 {
		b.add(zfsState, nil, 1)
	}
	p := page{limit: maxSeries}
	b.write(&p)
	if n := len(b.all[0].series); n != maxSeries+1 || p.overflow() == nil {
		t.Errorf("%d series are kept, want %d; overflow %v", n, maxSeries+1, p.overflow())
	}
}

func TestKeysOfZFSBecomeNamesOfMetrics(t *testing.T) {
	for key, want := range map[string]string{"c_max": "c_max", "erpt-dropped": "erpt_dropped", "a.B:9\xff/ü": "a_B_9___"} {
		if got := underscored(key); got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
}
