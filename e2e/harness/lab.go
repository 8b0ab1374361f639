// Package harness starts and stops real servers and our two programs for a
// test, each on a port and in a folder of its own. Package parts gets the
// servers; the programs are built once for a test run. Every process is ended
// by its own id (with its group) when the test ends, in whatever way it ends.
// A test that failed keeps its folder and says where it lies; any other leaves
// nothing behind. It binds to loopback only, and it asserts nothing about how
// fast anything is: waits have deadlines that are far beyond what is usual.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Lab is what one test starts its processes in.
type Lab struct {
	t   testing.TB
	dir string

	mu        sync.Mutex
	processes []*Process
}

// New returns a lab with a folder of its own below the system's temporary one.
// Its folder can be entered by every user: Elasticsearch refuses to run as root.
func New(t testing.TB) *Lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "nines-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := &Lab{t: t, dir: dir}
	t.Cleanup(l.close)
	return l
}

// Dir returns a folder of the lab, made where it is missing.
func (l *Lab) Dir(name ...string) string {
	l.t.Helper()
	dir := filepath.Join(append([]string{l.dir}, name...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	return dir
}

// Write writes a file of the lab and returns its path.
func (l *Lab) Write(name, content string) string {
	l.t.Helper()
	path := filepath.Join(l.Dir(filepath.Dir(name)), filepath.Base(name))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// Say tells the progress of a test that takes long.
func (l *Lab) Say(format string, args ...any) {
	l.t.Helper()
	l.t.Logf("%s "+format, append([]any{time.Now().UTC().Format(time.TimeOnly)}, args...)...)
}

func (l *Lab) close() {
	l.mu.Lock()
	processes := l.processes
	l.mu.Unlock()
	for _, p := range processes {
		p.end()
	}
	if !l.t.Failed() {
		if err := os.RemoveAll(l.dir); err != nil {
			l.t.Errorf("clean up: %v", err)
		}
		return
	}
	for _, p := range processes {
		l.t.Logf("end of %s:\n%s", p.logPath, p.tail())
	}
	l.t.Logf("everything is kept in %s", l.dir)
}

var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: map[int]bool{}}

// Port returns a port of 127.0.0.1 that nobody listens on and that no other lab
// of this process got. It lies below the range that the kernel gives to
// outgoing connections, so that a restarted server finds its port free again.
func (l *Lab) Port() int {
	l.t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		port := 15000 + rand.IntN(15000)
		if ports.given[port] {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			l.t.Fatal(err)
		}
		ports.given[port] = true
		return port
	}
	l.t.Fatal("no free port between 15000 and 30000 on 127.0.0.1")
	return 0
}

// Eventually asks until the answer is nil, at most for the given time; then the
// test fails with the last answer. A process of the lab that ended by itself
// fails it at once.
func (l *Lab) Eventually(limit time.Duration, what string, ask func() error) {
	l.t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		if err := l.died(); err != nil {
			l.t.Fatalf("%s: %v", what, err)
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-tick.C
	}
}

// Until returns at the given moment; a process of the lab that ended by itself
// fails the test.
func (l *Lab) Until(moment time.Time, what string) {
	l.t.Helper()
	l.Eventually(time.Until(moment)+time.Minute, what, func() error {
		if left := time.Until(moment); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return l.died()
	})
}

func (l *Lab) died() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.processes {
		if err := p.died(); err != nil {
			return err
		}
	}
	return nil
}

// client has no shared connections: a server that was killed must not be
// asked over a connection of its former self.
var client = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// Get returns the body of a 200 answer; any other is an error.
func Get(url string) ([]byte, error) { return send(http.MethodGet, url, "", nil) }

// PostJSON posts a body and returns that of a 2xx answer; any other is an error.
func PostJSON(url string, body []byte) ([]byte, error) {
	return send(http.MethodPost, url, "application/json", body)
}

// answerLimit bounds what is read of one answer, in bytes.
const answerLimit = 256 << 20

func send(method, url, contentType string, body []byte) (data []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	data, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, strings.TrimSpace(string(data[:min(len(data), 500)])))
	}
	return data, nil
}
