package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/pkg/metric"
)

const bcachefsUUID = "5f0c1f5e-3c5d-4d2c-9a83-0b8d6a6f7e10"

func TestFiguresOfBcachefsAreThoseSinceTheFileSystemWasMade(t *testing.T) {
	fams := fixtureCollector(t, "testdata/proc", fixture{}).Collect(time.UnixMilli(0))
	uuid := "uuid=" + bcachefsUUID + ","
	checkSeries(t, fams, "node_bcachefs_info", metric.Gauge, uuid+" 1")
	checkSeries(t, fams, "node_bcachefs_btree_cache_size_bytes", metric.Gauge, uuid+" 1.572864e+06")
	checkSeries(t, fams, "node_bcachefs_data_read_total", metric.Counter, uuid+" 4608")
	checkSeries(t, fams, "node_bcachefs_btree_node_split_total", metric.Counter, uuid+" 12")
	checkSeries(t, fams, "node_bcachefs_compression_compressed_bytes", metric.Gauge,
		"algorithm=lz4,"+uuid+" 1.073741824e+09", "algorithm=incompressible,"+uuid+" 512")
	checkSeries(t, fams, "node_bcachefs_btree_write_average_size_bytes", metric.Gauge, "type=initial,"+uuid+" 28876", "type=interior,"+uuid+" 697")
	// A count that ran into its time is no number any more.
	checkSeries(t, fams, "node_bcachefs_errors_total", metric.Counter, "error_type=bset_bad_csum,"+uuid+" 2", "error_type=lru_entry_bad,"+uuid+" 31")
	checkSeries(t, fams, "node_bcachefs_device_io_errors_total", metric.Counter,
		"device=0,type=read,"+uuid+" 4", "device=0,type=write,"+uuid+" 1", "device=0,type=checksum,"+uuid+" 2")
	checkSeries(t, fams, "node_bcachefs_device_io_done_bytes_total", metric.Counter,
		"data_type=sb,device=0,operation=read,"+uuid+" 4096", "data_type=user,device=0,operation=read,"+uuid+" 1.048576e+06",
		"data_type=sb,device=0,operation=write,"+uuid+" 8192", "data_type=user,device=0,operation=write,"+uuid+" 1.02313054208e+11")
	// The second device has a state and nothing else.
	checkSeries(t, fams, "node_bcachefs_device_info", metric.Gauge,
		"device=0,label=ssd.one,state=[rw] ro evacuating spare,"+uuid+" 1", "device=1,state=rw [ro] evacuating spare,"+uuid+" 1")
	checkSeries(t, fams, "node_bcachefs_device_buckets", metric.Gauge, "device=0,"+uuid+" 4096")
}

func TestDamagedFileOfBcachefsFailsItsSourceAloneAndIsNamed(t *testing.T) {
	for _, c := range []struct{ file, content, want string }{
		{"btree_cache_size", "2.05X\n", "not a size"},
		{"compression_stats", "heading\nlz4 many 1\n", "a name and two sizes"},
		{"btree_write_stats", "heading\ninitial: 1 -2\n", "a name and two sizes"},
		{"errors", "bset_bad_csum many\n", "a name and a number"},
		{"errors", strings.Repeat("kind 1 2\n", maxBcachefsRows+1), "more than 4096"},
		{"counters/data_read", "12\n", "since the mount"},
		{"counters/data_read", "since filesystem creation: x\n", "a size"},
		{"dev-0/nbuckets", "x\n", "not a size"},
		{"dev-0/io_done", "read:\nuser : x\n", "a kind of data and bytes"},
		{"dev-0/io_errors", "IO errors since filesystem creation\n  read: x\n", "a kind of error"},
	} {
		sys := t.TempDir()
		if err := os.CopyFS(filepath.Join(sys, "fs/bcachefs"), os.DirFS("testdata/sys/fs/bcachefs")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, "fs/bcachefs", bcachefsUUID, c.file), []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		read, err := newBcachefs(&node{cfg: Config{Sys: sys}})
		if err != nil {
			t.Fatal(err)
		}
		err = read(&tick{page: page{limit: maxSeries}})
		if err == nil || !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), c.want) || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s %.40q: %v, want %q", c.file, c.content, err, c.want)
		}
	}
}

func TestSizesForPeopleBecomeBytes(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "720": 720, "28.2k": 28876, "1.26K": 1290, "512k": 524288, "2.00M": 2097152, "2.05G": 2201170739,
		"10.8T": 11874725579980, "1P": 1 << 50, "1.5E": 3 << 59, " 7 \n": 7, "44105502": 44105502,
	} {
		if got, ok := humanOf([]byte(text)); !ok || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "k", "-1k", "1e3", "0x10", "1.2.3", "NaN", "Inf", "1 k 2", "1kk"} {
		if got, ok := humanOf([]byte(text)); ok {
			t.Errorf("%q: got %v, want none", text, got)
		}
	}
}

func TestOnlyTheFirstListOfErrorsOfADeviceCounts(t *testing.T) {
	for text, want := range map[string]int{
		"IO errors since filesystem creation\n read: 1\nIO errors since 8 y ago\n read: 2\n write: 3\n": 1,
		"IO errors since 8 y ago\n read: 2\n": 0,
		"read: 2\n":                           0,
		"IO errors since filesystem creation\n read:4\n\n checksum:0\n": 2,
	} {
		rows, err := parseBcachefsIOErrors([]byte(text), nil)
		if err != nil || len(rows) != want || slices.ContainsFunc(rows, func(r bcachefsRow) bool { return r.value == 2 }) {
			t.Errorf("%q: %+v, %v, want %d", text, rows, err, want)
		}
	}
}
