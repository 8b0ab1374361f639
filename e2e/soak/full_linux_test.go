package soak

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk makes a file system in memory that no folder of the host shows, and
// that ends with the test. It returns a path to it that the child can use too.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	need := func(err error) {
		t.Helper()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			t.Skipf("a small file system of its own needs root: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	need(err)
	defer unix.Close(fs)
	need(unix.FsconfigSetString(fs, "size", strconv.FormatInt(size, 10)))
	need(unix.FsconfigCreate(fs))
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	need(err)
	t.Cleanup(func() {
		if err := unix.Close(mount); err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), mount)
}

// ballast fills a disk up to some bytes that stay free.
func ballast(path string, leave int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return err
		}
		free := int64(st.Bavail)*st.Bsize - leave
		if free <= 0 {
			return nil
		}
		// The child may have taken a part of it meanwhile.
		if err := unix.Fallocate(int(f.Fd()), 0, 0, free); !errors.Is(err, unix.ENOSPC) {
			return err
		}
	}
}

// Guards R24: with a full disk nothing that was acknowledged is lost, and
// writing goes on when there is space, at times after a restart.
func TestFullDiskLosesNoMinute(t *testing.T) {
	r := newRun(t)
	defer r.keep()
	r.connected = true
	top := smallDisk(t, 512<<20)
	r.dir = filepath.Join(top, "nines")
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	heavy := filepath.Join(top, "ballast")
	r.begin()
	refused, ended, went := 0, 0, 0
	for round := range r.rounds {
		// Half of the rounds are those of a store without a reserve.
		r.env = []string{minFreeEnv + "=" + []string{"0", strconv.Itoa(64 << 20)}[round%2]}
		p := r.start()
		if !r.open(p) {
			t.Fatalf("the child did not start: %v\n%s", p.err, p.noise.String())
		}
		r.steady(p, r.rng.IntN(30))
		r.full, r.last = true, "a full disk"
		if err := ballast(heavy, []int64{0, 4096, 1 << 14, 1 << 17, 1 << 20}[r.rng.IntN(5)]); err != nil {
			t.Fatal(err)
		}
		before := r.refusals[503]
		alive := true
		for range 10 + r.rng.IntN(40) {
			if alive = r.step(p); !alive {
				break
			}
		}
		if r.refusals[503] > before {
			refused++
		}
		if !alive {
			r.exited(p)
			if r.rng.IntN(2) == 0 {
				// Somebody starts it again too early.
				again := r.start()
				if r.open(again) {
					for range 5 {
						r.step(again)
					}
					r.killed(again)
				} else {
					r.exited(again)
				}
			}
		}
		if err := os.Remove(heavy); err != nil {
			t.Fatal(err)
		}
		if alive && r.lives(p) {
			went++
		} else {
			if alive {
				r.exited(p)
			}
			ended++
			r.full = false
			if p = r.start(); !r.open(p) {
				t.Fatalf("after there was space again the child did not start: %v\n%s", p.err, p.noise.String())
			}
		}
		r.full = false
		r.steady(p, 12)
		for a, n := range r.acked {
			if n != r.world.scrapes() {
				t.Errorf("there is space again, and agent %d has sent %d of %d scrapes", a, n, r.world.scrapes())
			}
		}
		r.stop(p)
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d rounds: %d times requests were refused for now, %d times the child went on by itself, %d times it was started again", r.rounds, refused, went, ended)
	if refused == 0 {
		t.Error("no request was ever refused: the disk was never full")
	}
	r.env = []string{minFreeEnv + "=0"}
	r.finish()
}

// lives lets it go on until all is sent; it is false when the child ended, as
// it does when its logs can't be trusted any more.
func (r *run) lives(p *process) bool {
	for range 20 {
		if !r.step(p) {
			return false
		}
	}
	return true
}

// steady lets undisturbed time pass.
func (r *run) steady(p *process, steps int) {
	r.t.Helper()
	for range steps {
		if !r.step(p) {
			r.t.Fatalf("the child ended: %v\n%s", p.err, p.noise.String())
		}
	}
}

// killed kills the child.
func (r *run) killed(p *process) {
	p.die()
	for {
		if _, ok := p.line(); !ok {
			break
		}
	}
	r.kills++
}

// exited waits for a child that ended by itself, and complains where it does
// not say why.
func (r *run) exited(p *process) {
	r.t.Helper()
	for {
		if _, ok := p.line(); !ok {
			break
		}
	}
	var exit *exec.ExitError
	if !errors.As(p.err, &exit) || !exit.Exited() {
		r.t.Fatalf("the child ended with %v\n%s", p.err, p.noise.String())
	}
	if noise := p.noise.String(); !strings.Contains(noise, "no space left on device") {
		r.t.Errorf("the child ended with %v and does not say that the disk is full:\n%s", p.err, noise)
	}
}
