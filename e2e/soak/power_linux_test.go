package soak

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Guards R24 and R25: after a power cut, raw samples hold all that was
// acknowledged and are not behind the book, and the book goes on.
func TestPowerCutAtAnyMomentNoMinuteIsLostOrBookedTwice(t *testing.T) {
	r := newRun(t)
	r.connected = true
	r.power()
}

// Guards R21: a revision that was not booked yet is not lost either.
func TestPowerCutWhileLateSamplesArriveNoMinuteIsLostOrBookedTwice(t *testing.T) {
	newRun(t).power()
}

func (r *run) power() {
	t := r.t
	defer r.keep()
	top := r.dir
	r.dir = filepath.Join(top, "0")
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.begin()
	served := make(chan error, 1)
	var d *disk // what the child's folder lies on
	r.env = append(r.env, syncsEnv+"=1")
	r.prepare = func(p *process) func() {
		var err error
		if d, err = newDisk(r.dir); err != nil {
			t.Fatal(err)
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		mine, its := os.NewFile(uintptr(pair[0]), "syncs"), os.NewFile(uintptr(pair[1]), "syncs of the child")
		p.cmd.ExtraFiles = []*os.File{its}
		return func() {
			if err := its.Close(); err != nil {
				t.Error(err)
			}
			go func() {
				defer mine.Close()
				served <- serveSyncs(mine, d.sync)
			}()
		}
	}
	syncs := 0
	for round := range r.rounds {
		r.round()
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.FailNow()
		}
		syncs += d.syncs
		was, l := r.dir, losses[r.rng.IntN(len(losses))]
		r.dir = filepath.Join(top, fmt.Sprint(round+1))
		if err := d.restore(r.dir, l, r.rng); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.close(), os.RemoveAll(was)); err != nil {
			t.Fatal(err)
		}
		r.last = "a power cut that took " + l.name
	}
	if syncs == 0 {
		t.Fatal("no sync was seen: the test shows nothing")
	}
	t.Logf("%d syncs", syncs)
	r.env, r.prepare = nil, nil
	r.finish()
}
