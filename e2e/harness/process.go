package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Command is what a process runs.
type Command struct {
	Name string // of the process in messages, and of its log
	Path string
	Args []string
	Env  []string // added to the test's own environment
	Dir  string
	// UID and GID that it runs as where the test is root and UID is not 0.
	UID uint32
	// Ready says that it can be used; nil where nothing tells.
	Ready func() error
	// ReadyIn is the deadline of Ready, one minute where it is 0.
	ReadyIn time.Duration
}

// Process is a command that can be started again after it was killed.
type Process struct {
	lab     *Lab
	command Command
	logPath string

	mu     sync.Mutex
	cmd    *exec.Cmd
	done   chan struct{} // closed by the goroutine of Start when the process has ended
	err    error         // what Wait returned, once done is closed
	wanted bool          // that it runs: false while it is stopped on purpose
}

// Start starts a process and waits until it is ready.
func (l *Lab) Start(c Command) *Process {
	l.t.Helper()
	p := &Process{lab: l, command: c, logPath: filepath.Join(l.Dir("logs"), c.Name+".log")}
	l.mu.Lock()
	l.processes = append(l.processes, p)
	l.mu.Unlock()
	p.Start()
	return p
}

// Start starts it again; what it prints is appended to its log.
func (p *Process) Start() {
	p.lab.t.Helper()
	p.Launch()
	if p.command.Ready == nil {
		return
	}
	limit := p.command.ReadyIn
	if limit == 0 {
		limit = time.Minute
	}
	p.lab.Eventually(limit, p.command.Name+" gets ready", p.command.Ready)
}

// Launch starts it and does not wait until it is ready.
func (p *Process) Launch() {
	p.lab.t.Helper()
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.lab.t.Fatal(err)
	}
	cmd := exec.Command(p.command.Path, p.command.Args...)
	cmd.Dir = p.command.Dir
	cmd.Env = append(os.Environ(), p.command.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that what it starts ends with it; and it ends
	// where the test process is killed before it can clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.command.UID != 0 && os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.command.UID, Gid: p.command.UID}
	}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		p.lab.t.Fatalf("start %s: %v", p.command.Name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done, p.err, p.wanted = cmd, done, nil, true
	p.mu.Unlock()
	// end waits for it.
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
}

// Ready says whether it can be used.
func (p *Process) Ready() error {
	if p.command.Ready == nil {
		return nil
	}
	return p.command.Ready()
}

// Kill ends it, and what it started, as a power cut would.
func (p *Process) Kill() {
	p.lab.t.Helper()
	if err := p.died(); err != nil {
		p.lab.t.Fatal(err)
	}
	p.end()
}

// end kills the group and waits for the process. It may be called at any time.
func (p *Process) end() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.wanted = false
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	// The group may be gone already; then there is nothing to kill.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-done
}

// Stop asks it to end and wants exit code 0 within a minute.
func (p *Process) Stop() {
	p.lab.t.Helper()
	if err := p.died(); err != nil {
		p.lab.t.Fatal(err)
	}
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.wanted = false
	p.mu.Unlock()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.lab.t.Fatalf("stop %s: %v", p.command.Name, err)
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		p.lab.t.Fatalf("stop %s: it still runs a minute after SIGTERM", p.command.Name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		p.lab.t.Fatalf("stop %s: %v", p.command.Name, p.err)
	}
}

// PID is the process id, 0 before the first start.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// died tells that it ended although nobody ended it.
func (p *Process) died() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.wanted || p.done == nil {
		return nil
	}
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself: %v", p.command.Name, p.err)
	default:
		return nil
	}
}

// Log returns what it printed so far.
func (p *Process) Log() string {
	p.lab.t.Helper()
	data, err := os.ReadFile(p.logPath)
	if err != nil {
		p.lab.t.Fatal(err)
	}
	return string(data)
}

// tail returns the last lines of its log.
func (p *Process) tail() []byte {
	data, err := os.ReadFile(p.logPath)
	if err != nil {
		return []byte(err.Error())
	}
	const lines = 30
	at := len(data)
	for range lines + 1 {
		if at = bytes.LastIndexByte(data[:at], '\n'); at < 0 {
			return data
		}
	}
	return data[at+1:]
}

// Run runs a command to its end, at most two minutes, and returns what it
// printed on standard output; a failure carries both outputs.
func Run(path string, args ...string) ([]byte, error) {
	var out, messages bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &messages
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	timer := time.AfterFunc(2*time.Minute, func() {
		// It may have ended in this moment.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %q: %w\n%s%s", filepath.Base(path), args, err, out.Bytes(), messages.Bytes())
	}
	return out.Bytes(), nil
}
