//go:build e2e

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"nines/e2e/harness"
)

const (
	monthSLOs   = 100
	monthSeries = 20
	monthLimit  = 6 * time.Minute
)

// replayOfAMonth measures how long ours takes to count a month anew from the
// blocks of a Prometheus.
func replayOfAMonth(t *testing.T) []row {
	t.Helper()
	lab := harness.New(t)
	to := time.Now().Truncate(time.Hour)
	from := to.Add(-costPeriod)
	var services []string
	var history []past
	for n := range monthSLOs {
		services = append(services, fmt.Sprintf("svc-%d", n))
		for _, c := range newCounters(services[n], monthSeries, from.UnixMilli()) {
			history = append(history, past{c.labels, c.until})
		}
	}
	p := writePolicy(t, lab, services)
	blocks := lab.Dir("blocks")
	written, err := writeBlocks(blocks, from.UnixMilli(), to.UnixMilli(), history)
	if err != nil {
		t.Fatal(err)
	}
	lab.Say("replaying %d samples", written)
	r := row{
		figure: fmt.Sprintf("replay of a month, %d SLOs × %d series at 30 s (%.1f million samples)", monthSLOs, monthSeries, float64(written)/1e6),
		goal:   "under 60 s",
	}
	out := timed(t, lab.Program("nines-aggregator"), "replay", "--slo", p.openslo, "--samples", blocks, "--format", "json")
	if out.err != nil {
		r.ours = "failed"
		t.Errorf("replay of a month: %v", out.err)
		return []row{r}
	}
	var answer []struct{ Total json.Number }
	if err := json.Unmarshal(out.stdout, &answer); err != nil || len(answer) != monthSLOs {
		t.Errorf("replay of a month: %d objectives: %v", len(answer), err)
	}
	for _, o := range answer {
		if n, err := o.Total.Float64(); err != nil || n < 1e6 {
			t.Errorf("replay of a month: %s events: %v", o.Total, err)
			break
		}
	}
	r.ours = fmt.Sprintf("%.0f s (%.0f s of CPU, %.1f million samples per CPU second, %.0f MiB)",
		out.took.Seconds(), out.cpu.Seconds(), float64(written)/1e6/out.cpu.Seconds(), out.peak)
	return []row{r}
}

// outcome is what a command that ran to its end took.
type outcome struct {
	stdout []byte
	took   time.Duration
	cpu    time.Duration
	peak   float64 // MiB
	err    error
}

// timed runs a command to its end, at most for monthLimit.
func timed(t *testing.T, path string, args ...string) (o outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), monthLimit, fmt.Errorf("it did not end in %v", monthLimit))
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		o.err = fmt.Errorf("%s: %w\n%.2000s", args[0], errors.Join(err, context.Cause(ctx)), stderr.String())
	}
	o.took, o.stdout = time.Since(begun), stdout.Bytes()
	if s := cmd.ProcessState; s != nil {
		o.cpu = s.UserTime() + s.SystemTime()
		if usage, ok := s.SysUsage().(*syscall.Rusage); ok {
			o.peak = float64(usage.Maxrss) / 1024
		}
	}
	return o
}
