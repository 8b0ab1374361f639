package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb"
)

// The database loses late samples of a series that left its memory and came
// back, after two starts (prometheus/prometheus #19804) and where the log is cut
// between them (#19744).
func TestR24_LateSamplesOfASeriesThatCameBackSurviveKills(t *testing.T) {
	for name, cut := range map[string]bool{"two kills": false, "the log is cut between them": true} {
		t.Run(name, func(t *testing.T) {
			now := base
			with := func(dir string) func(*Config) {
				return func(c *Config) {
					c.Dir, c.OutOfOrder, c.Retention = dir, 24*time.Hour, 30*24*time.Hour
					c.Now = func() time.Time { return now }
				}
			}
			// A kill leaves what is on the disk; the next process opens that.
			dir := filepath.Join(t.TempDir(), "metrics")
			db := openTest(t, with(dir))
			kill := func() {
				dir = copyDir(t, dir)
				db = openTest(t, with(dir))
			}
			at := func(hours float64) int64 { return base.Add(time.Duration(hours * float64(time.Hour))).UnixMilli() }
			write := func(name string, samples ...Sample) {
				t.Helper()
				if last := time.UnixMilli(samples[len(samples)-1].T); last.After(now) {
					now = last
				}
				if err := put(t, db, series(name), samples...); err != nil {
					t.Fatal(err)
				}
			}
			want := 0
			write("gone", Sample{T: at(0), V: 1})
			want++
			for h := 0.0; h <= 8; h += 0.25 {
				write("stays", Sample{T: at(h), V: h})
			}
			if err := db.tsdb.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := db.tsdb.Head().NumSeries(); n != 1 {
				t.Fatalf("%d series are in memory, want the one that is not silent", n)
			}
			write("gone", Sample{T: at(8), V: 2})
			want++
			if cut {
				write("gone", Sample{T: at(5), V: 100}) // late, under its new number
				want++
			}
			kill()
			for i := range 300 { // more than the database keeps in one piece in memory
				write("gone", Sample{T: at(6) + int64(i)*1000, V: float64(10 + i)})
				want++
			}
			for h := 8.25; cut && h <= 14; h += 0.25 {
				write("stays", Sample{T: at(h), V: h})
			}
			if cut {
				if err := db.tsdb.CompactHead(tsdb.NewRangeHead(db.tsdb.Head(), db.tsdb.Head().MinTime(), at(12)-1)); err != nil {
					t.Fatal(err)
				}
			}
			kill()
			if got := len(read(t, db, "gone")); got != want {
				t.Errorf("%d samples are left of %d that were acknowledged", got, want)
			}
			for _, name := range logDirs {
				if _, err := os.Stat(filepath.Join(dir, name+flushed)); err == nil {
					t.Errorf("%s is left behind", name+flushed)
				}
			}
		})
	}
}

func TestALogThatWasSetAsideIsRemoved(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "wal"+flushed, "checkpoint.00000001"), 0o755); err != nil {
		t.Fatal(err)
	}
	openTest(t, func(c *Config) { c.Dir = dir })
	if _, err := os.Stat(filepath.Join(dir, "wal"+flushed)); !os.IsNotExist(err) {
		t.Errorf("the log that is in blocks is still there: %v", err)
	}
}
