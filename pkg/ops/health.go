package ops

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Health answers whether the jobs of a program are being done. A program is
// alive while each of its jobs reports at all, and ready while the newest
// report of each was a success. Nothing is ready before its first success.
type Health struct {
	mu   sync.Mutex
	jobs []*Job // guarded by mu; so are the fields of each
}

// Job is one thing that a program does again and again.
type Job struct {
	health *Health
	name   string
	within time.Duration

	since time.Time // of registration
	last  time.Time // newest report; zero before the first
	err   error     // of the newest report
}

// NewHealth returns a registry without jobs, which is alive and ready.
func NewHealth() *Health { return &Health{} }

// Register adds a job that must report at least once within the given time.
// A report older than that makes the program not ready; no report for ten
// times as long makes it not alive. Names should differ.
func (h *Health) Register(name string, within time.Duration) *Job {
	h.mu.Lock()
	defer h.mu.Unlock()
	j := &Job{health: h, name: name, within: within, since: time.Now(), err: errors.New("has not run yet")}
	h.jobs = append(h.jobs, j)
	return j
}

// Report says that the job ran, and how: nil is success.
func (j *Job) Report(err error) {
	j.health.mu.Lock()
	defer j.health.mu.Unlock()
	j.last, j.err = time.Now(), err
}

// Unregister takes the job out: the program no longer does it, on purpose.
func (j *Job) Unregister() {
	j.health.mu.Lock()
	defer j.health.mu.Unlock()
	j.health.jobs = slices.DeleteFunc(j.health.jobs, func(x *Job) bool { return x == j })
}

// Ready returns nil if the newest report of every job is a success and recent,
// else an error with a line for each job that is not.
func (h *Health) Ready() error {
	return h.each(func(j *Job, now time.Time) error {
		switch {
		case j.err != nil:
			return fmt.Errorf("%s: %w", j.name, j.err)
		case now.Sub(j.last) > j.within:
			return fmt.Errorf("%s: last success %s ago, expected within %s", j.name, now.Sub(j.last).Round(time.Second), j.within)
		}
		return nil
	})
}

// Alive returns nil if every job has reported, well or badly, within ten times
// its bound: else it hangs and a restart is the remedy.
func (h *Health) Alive() error {
	return h.each(func(j *Job, now time.Time) error {
		heard := j.since
		if !j.last.IsZero() {
			heard = j.last
		}
		if quiet := now.Sub(heard); quiet > 10*j.within {
			return fmt.Errorf("%s: no report for %s, expected one within %s", j.name, quiet.Round(time.Second), j.within)
		}
		return nil
	})
}

func (h *Health) each(check func(*Job, time.Time) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	jobs := slices.Clone(h.jobs)
	slices.SortStableFunc(jobs, func(a, b *Job) int { return cmp.Compare(a.name, b.name) })
	var errs []error
	for _, j := range jobs {
		errs = append(errs, check(j, now))
	}
	return errors.Join(errs...)
}

// ServeHealthz answers 200 "ok" while alive, else 503 with the reasons.
func (h *Health) ServeHealthz(w http.ResponseWriter, _ *http.Request) { answer(w, h.Alive()) }

// ServeReadyz answers 200 "ok" while ready, else 503 with the reasons.
func (h *Health) ServeReadyz(w http.ResponseWriter, _ *http.Request) { answer(w, h.Ready()) }

func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	body := "ok"
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		body = err.Error()
	}
	// A reader that went away needs no answer.
	_, _ = w.Write([]byte(strings.TrimSpace(body) + "\n"))
}
