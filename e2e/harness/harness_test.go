package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// alive reports whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(data), ") Z ")
}

func TestKilledProcessTakesAlongWhatItStarted(t *testing.T) {
	lab := New(t)
	file := filepath.Join(lab.Dir(), "child")
	p := lab.Start(Command{
		Name: "parent", Path: "/bin/sh", Args: []string{"-c", `sleep 300 & echo $! > "$0.new" && mv "$0.new" "$0"; wait`, file},
		Ready: func() error { _, err := os.Stat(file); return err },
	})
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || !alive(child) {
		t.Fatalf("the child %q does not run: %v", data, err)
	}
	p.Kill()
	lab.Eventually(10*time.Second, "the child ends", func() error {
		if alive(child) {
			return fmt.Errorf("process %d still runs", child)
		}
		return nil
	})
	if alive(p.PID()) {
		t.Error("the parent still runs")
	}
}

func TestProcessThatEndsByItselfIsNoticed(t *testing.T) {
	lab := New(t)
	p := lab.Start(Command{Name: "short", Path: "/bin/sh", Args: []string{"-c", "echo it broke; exit 3"}})
	<-p.done
	if err := lab.died(); err == nil || !strings.Contains(err.Error(), "short ended by itself: exit status 3") {
		t.Errorf("got %v", err)
	}
	if got := p.Log(); got != "it broke\n" {
		t.Errorf("log %q", got)
	}
	p.end()
	if err := lab.died(); err != nil {
		t.Errorf("after it was ended on purpose: %v", err)
	}
}

func TestStartedAgainItKeepsItsLog(t *testing.T) {
	lab := New(t)
	p := lab.Start(Command{Name: "again", Path: "/bin/sh", Args: []string{"-c", "echo here; exec sleep 300"}})
	says := func(n int) {
		t.Helper()
		lab.Eventually(10*time.Second, "it says where it is", func() error {
			if got := strings.Count(p.Log(), "here"); got != n {
				return fmt.Errorf("%d times", got)
			}
			return nil
		})
	}
	says(1)
	first := p.PID()
	p.Kill()
	p.Start()
	says(2)
	if p.PID() == first {
		t.Error("it has the same process id")
	}
}

func TestNoPortIsGivenTwice(t *testing.T) {
	lab := New(t)
	given := map[int]bool{}
	for range 50 {
		port := lab.Port()
		if given[port] {
			t.Fatalf("port %d was given twice", port)
		}
		given[port] = true
	}
}

func TestLinkedTreeHoldsTheSameFiles(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	if err := os.MkdirAll(filepath.Join(from, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "bin", "run"), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := linkTree(from, to); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(to, "bin", "run"))
	if err != nil || info.Mode().Perm() != 0o755 || info.Size() != 1 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestRunTellsWhatTheCommandSaid(t *testing.T) {
	out, err := Run("/bin/sh", "-c", "echo result; echo reason >&2; exit 4")
	if string(out) != "result\n" || err == nil || !strings.Contains(err.Error(), "reason") {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := Run("/does/not/exist"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("got %v", err)
	}
}
