package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/rogpeppe/go-internal/testscript"

	"nines/pkg/ops"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nines-agent": main})
}

// The scripts in testdata/script are what a person at a terminal sees. Beside
// testscript's own commands they use those below.
func TestScripts(t *testing.T) {
	const scripts = "testdata/script"
	found, err := filepath.Glob(scripts + "/*.txtar")
	if err != nil || len(found) < 4 {
		t.Fatalf("%d scripts found, %v", len(found), err)
	}
	testscript.Run(t, testscript.Params{
		Dir: scripts,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"hold":     hold,
			"occupy":   occupy,
			"receiver": receive,
			"arrived":  arrived,
			"term":     term,
			"subst":    subst,
			"written":  written,
		},
	})
}

// exits CODE PROGRAM ARG…: the program ends with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	var ee *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ee) {
		code = ee.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// hold DIR: this process takes the state folder and sets $PID.
func hold(ts *testscript.TestScript, _ bool, args []string) {
	l, err := ops.LockFolder(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { ts.Check(l.Unlock()) })
	ts.Setenv("PID", strconv.Itoa(os.Getpid()))
}

// term DIR: SIGTERM to the agent that holds the state folder.
func term(ts *testscript.TestScript, _ bool, args []string) {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[0] + "/lock")))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGTERM))
}

// occupy: this process listens on $ADDRESS.
func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ts.Check(l.Close()) })
	ts.Setenv("ADDRESS", l.Addr().String())
}

// subst FROM TO: copies a file; $NAME in it becomes its value.
func subst(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: subst FROM TO")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o644))
}

// written DIR TEXT N: waits until the files in the folder hold the text n times.
func written(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: written DIR TEXT N")
	}
	want, err := strconv.Atoi(args[2])
	ts.Check(err)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for n := -1; n != want; <-look.C {
		n = 0
		files, err := filepath.Glob(ts.MkAbs(args[0]) + "/*")
		ts.Check(err)
		for _, file := range files {
			n += strings.Count(ts.ReadFile(file), args[1])
		}
		if n > want {
			ts.Fatalf("%q is there %d times, want %d", args[1], n, want)
		}
	}
}

// samples remembers what a receiver got.
type samples struct {
	mu   sync.Mutex
	seen map[string]int // "name{job}" to how often
	more chan struct{}  // a token after each request, dropped where one waits
}

var receivers sync.Map // $WORK to *samples

// receiver: a remote-write 2.0 receiver at $RECEIVER.
func receive(ts *testscript.TestScript, _ bool, _ []string) {
	s := &samples{seen: map[string]int{}, more: make(chan struct{}, 1)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		raw, err := snappy.Decode(nil, body)
		var req writev2.Request
		if err == nil {
			err = req.Unmarshal(raw)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		for _, ts := range req.Timeseries {
			labels := map[string]string{}
			for i := 0; i < len(ts.LabelsRefs); i += 2 {
				labels[req.Symbols[ts.LabelsRefs[i]]] = req.Symbols[ts.LabelsRefs[i+1]]
			}
			s.seen[fmt.Sprintf("%s{%s,%s,%s,%s}", labels["__name__"], labels["job"], labels["instance"], labels["cluster"], labels["node"])]++
		}
		s.mu.Unlock()
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(len(req.Timeseries)))
		w.WriteHeader(http.StatusNoContent)
		select {
		case s.more <- struct{}{}:
		default:
		}
	}))
	ts.Defer(server.Close)
	receivers.Store(ts.Getenv("WORK"), s)
	ts.Setenv("RECEIVER", server.URL)
}

// arrived NAME{job,instance,cluster,node}…: waits until the receiver has had a
// sample of each.
func arrived(ts *testscript.TestScript, _ bool, args []string) {
	v, ok := receivers.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("no receiver runs")
	}
	s := v.(*samples)
	for _, want := range args {
		for {
			s.mu.Lock()
			n := s.seen[want]
			s.mu.Unlock()
			if n > 0 {
				break
			}
			<-s.more
		}
	}
}

func TestUsageNamesEveryCommandAndShowsAFileThatIsValid(t *testing.T) {
	for _, word := range []string{"--config", "check FILE", "completion SHELL", "version", "--log-level", "--log-format", "--format", "Exit codes"} {
		if !strings.Contains(usage, word) {
			t.Errorf("the help does not mention %q", word)
		}
	}
	_, file, ok := strings.Cut(usage, "is empty):\n")
	file, _, ok2 := strings.Cut(file, "\nExit codes")
	if !ok || !ok2 {
		t.Fatal("the help shows no file")
	}
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errOut strings.Builder
	if code := check([]string{path}, &out, &errOut); code != 0 {
		t.Errorf("the file in the help is not valid: %s", errOut.String())
	}
}
