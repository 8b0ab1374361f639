package store

import (
	"os"
	"path/filepath"
	"testing"
)

// Guards R24: a power cut may leave the folder of a memory snapshot without its
// files, or with some; the logs are read then.
func TestSnapshotThatAPowerCutLeftEmptyHidesNoSample(t *testing.T) {
	const n = 40
	write := func(t *testing.T) (dir string) {
		db := openTest(t)
		for i := range n {
			if err := put(t, db, series("c"), Sample{T: int64(i-n) * 15_000, V: float64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return db.cfg.Dir
	}
	for _, c := range []struct {
		name  string
		lose  func(t *testing.T, snapshot string)
		stays bool // the snapshot is used
	}{
		{name: "nothing", lose: func(*testing.T, string) {}, stays: true},
		{name: "all names", lose: func(t *testing.T, snapshot string) {
			remove(t, filepath.Join(snapshot, snapshotMark))
			remove(t, filepath.Join(snapshot, "00000000"))
		}},
		{name: "the mark", lose: func(t *testing.T, snapshot string) {
			remove(t, filepath.Join(snapshot, snapshotMark))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t)
			found, err := snapshots(dir)
			if err != nil || len(found) != 1 {
				t.Fatalf("snapshots %v, %v: want one", found, err)
			}
			c.lose(t, found[0])
			if err := dropUnconfirmedSnapshots(dir); err != nil {
				t.Fatal(err)
			}
			if left, err := snapshots(dir); err != nil || (len(left) == 1) != c.stays {
				t.Errorf("snapshots %v, %v: used %v, want %v", left, err, len(left) == 1, c.stays)
			}
			db := openTest(t, func(c *Config) { c.Dir = dir })
			if got := len(read(t, db, "c")); got != n {
				t.Errorf("%d samples are there, %d were acknowledged", got, n)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
