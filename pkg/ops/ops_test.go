package ops

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func status(h http.HandlerFunc) (int, string) {
	w := httptest.NewRecorder()
	h(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Code, w.Body.String()
}

func TestReadyMeansTheNewestTickDidItsJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHealth()
		tick := h.Register("tick", time.Minute)
		if code, body := status(h.ServeReadyz); code != 503 || body != "tick: has not run yet\n" {
			t.Errorf("before the first tick: %d %q", code, body)
		}
		tick.Report(nil)
		if code, body := status(h.ServeReadyz); code != 200 || body != "ok\n" {
			t.Errorf("after a good tick: %d %q", code, body)
		}
		tick.Report(errors.New("disk full"))
		if code, body := status(h.ServeReadyz); code != 503 || body != "tick: disk full\n" {
			t.Errorf("after a bad tick: %d %q", code, body)
		}
		if code, _ := status(h.ServeHealthz); code != 200 {
			t.Errorf("a failing program that still tries is alive, got %d", code)
		}
		tick.Report(nil)
		<-time.After(61 * time.Second)
		if code, body := status(h.ServeReadyz); code != 503 || !strings.Contains(body, "last success 1m1s ago") {
			t.Errorf("after a missed tick: %d %q", code, body)
		}
	})
}

func TestJobThatHangsMakesTheProgramNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHealth()
		stuck := h.Register("stuck", time.Second)
		<-time.After(11 * time.Second)
		if code, body := status(h.ServeHealthz); code != 503 || !strings.Contains(body, "stuck: no report for 11s") {
			t.Errorf("got %d %q", code, body)
		}
		stuck.Unregister()
		if err := errors.Join(h.Alive(), h.Ready()); err != nil {
			t.Errorf("a job that was taken out still counts: %v", err)
		}
	})
}

func TestFolderIsHeldByOneAndSaysByWhom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	l, err := LockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockFolder(dir)
	var held *HeldError
	if !errors.As(err, &held) || held.PID != os.Getpid() || !strings.Contains(err.Error(), fmt.Sprint("pid ", os.Getpid())) {
		t.Fatalf("second lock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = LockFolder(dir)
	if err != nil {
		t.Fatalf("lock after unlock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestReplacedFileIsWholeAndLeavesNothingBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.json")
	for _, content := range []string{"old and longer", "new"} {
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files remain, %v", len(entries), err)
	}
}

func TestFailedReplacementKeepsTheOldFileAndTellsThePath(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o750); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(path, []byte("x"), 0o600)
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files remain, %v", len(entries), err)
	}
}

func TestPortInUseTellsKeyAndRemedy(t *testing.T) {
	l, err := Listen("listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func(l net.Listener) {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}(l)
	_, err = Listen("listen", l.Addr().String())
	if err == nil || !strings.HasPrefix(err.Error(), "listen: ") || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("got %v", err)
	}
}

func TestRemedyIsAddedToFullDiskOnly(t *testing.T) {
	full := fmt.Errorf("append: %w", &os.PathError{Op: "write", Path: "/q", Err: syscall.ENOSPC})
	if err := Remedy(full); !strings.Contains(err.Error(), "free space") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	again := Remedy(fmt.Errorf("tick: %w", Remedy(full)))
	if n := strings.Count(again.Error(), "free space"); n != 1 || !errors.Is(again, syscall.ENOSPC) {
		t.Errorf("the remedy is told %d times: %v", n, again)
	}
	other := errors.New("other")
	if Remedy(other) != other || Remedy(nil) != nil {
		t.Error("an error without a remedy was changed")
	}
}

func TestLoggerRefusesUnknownLevelAndWritesUTC(t *testing.T) {
	if _, err := Logger(nil, "loud", false); err == nil || !strings.Contains(err.Error(), "debug, info, warn or error") {
		t.Errorf("got %v", err)
	}
	var b bytes.Buffer
	log, err := Logger(&b, "warn", true)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.Warn("shown", "k", 1)
	if got := b.String(); !strings.Contains(got, `Z","level":"WARN","msg":"shown","k":1}`) || strings.Contains(got, "hidden") {
		t.Errorf("got %q", got)
	}
}

func TestBuildNamesCompilerAndPlatform(t *testing.T) {
	b := ReadBuild()
	if b.Version == "" || b.Revision == "" || !strings.HasPrefix(b.GoVersion, "go") || !strings.Contains(b.String(), b.Platform) {
		t.Errorf("got %+v", b)
	}
}
