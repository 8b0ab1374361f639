package ship

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Pauses between attempts: the first about half a second, each about twice the
// one before, none above half a minute. The jitter, up to half of the pause,
// keeps the agents of a cluster apart after an outage that they share.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
)

// backoff counts attempts that failed one after another.
type backoff struct{ failed int }

func (b *backoff) next() time.Duration {
	pause := min(firstPause<<min(b.failed, 10), maxPause)
	b.failed++
	return pause/2 + rand.N(pause/2)
}

// pause waits, or returns the context's error.
func (b *backoff) pause(ctx context.Context) error {
	timer := time.NewTimer(b.next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hold is the reason for which records wait. It logs when it changes.
type hold struct {
	log   *slog.Logger
	where string

	mu     sync.Mutex
	reason string // guarded by mu; empty: nothing is held
}

func (h *hold) set(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case reason == h.reason:
		return
	case reason == "":
		h.log.Info("log records are taken again", "destination", h.where)
	default:
		h.log.Warn("log records wait; nothing is lost while their files stay", "destination", h.where, "why", reason)
	}
	h.reason = reason
}

func (h *hold) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reason
}
