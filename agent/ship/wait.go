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

// pause waits, at least as long as the server asked for, or returns the
// context's error.
func (b *backoff) pause(ctx context.Context, least time.Duration) error {
	timer := time.NewTimer(max(b.next(), min(least, maxPause)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hold is why records wait. Each call of Ship has a reason of its own, so that
// one that is served does not hide another that is not. It logs when it changes.
type hold struct {
	log   *slog.Logger
	where string

	mu      sync.Mutex // guards all below
	reasons map[*backoff]string
	told    string // one of the reasons; empty: nothing is held
}

// set says why the records of a call wait; empty: they don't.
func (h *hold) set(call *backoff, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reason != "" {
		if h.reasons == nil {
			h.reasons = map[*backoff]string{}
		}
		h.reasons[call] = reason
	} else {
		delete(h.reasons, call)
	}
	tell := ""
	for _, r := range h.reasons {
		if r == h.told { // as long as it lasts
			return
		}
		tell = max(tell, r) // any, but always the same
	}
	switch {
	case tell == h.told:
		return
	case tell == "":
		h.log.Info("log records are taken again", "address", h.where)
	default:
		h.log.Warn("log records wait; nothing is lost while their files stay", "address", h.where, "why", tell)
	}
	h.told = tell
}

// leave forgets a call that ended. If that was because its context ended
// nothing is known to be repaired: what was told stands until another call sets.
func (h *hold) leave(call *backoff) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.reasons, call)
}

func (h *hold) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told
}
