package ship

import (
	"context"
	"slices"
	"sync"
)

// limiter bounds the requests under way. A server that is too busy halves the
// bound; a run of requests that it took raises it by one. Who waits is served
// in the order of coming, so nobody starves.
type limiter struct {
	most int // the configuration's

	mu      sync.Mutex // guards all below
	limit   int
	active  int
	good    int // requests that were taken since the limit changed
	cuts    int // how often it was halved
	waiting []chan struct{}
}

// raiseAfter is how many requests per allowed one are taken before one more is
// allowed: a few round trips, so that the server's answer to the last raise is
// known.
const raiseAfter = 4

func newLimiter(most int) *limiter { return &limiter{most: most, limit: most} }

// load is how busy the server said it is.
type load uint8

const (
	loadUnknown load = iota // no answer to learn from
	loadGood
	loadBusy // 429, 503 or a time-out
)

// acquire waits for the right to make a request. The ticket goes back by
// release.
func (l *limiter) acquire(ctx context.Context) (ticket int, err error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	l.mu.Lock()
	if l.active < l.limit { // then nobody waits: next has seen to it
		l.active++
		ticket = l.cuts
		l.mu.Unlock()
		return ticket, nil
	}
	turn := make(chan struct{}, 1)
	l.waiting = append(l.waiting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.cuts, nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if i := slices.Index(l.waiting, turn); i >= 0 {
			l.waiting = slices.Delete(l.waiting, i, i+1)
		} else { // the turn came at the same moment
			l.active--
			l.next()
		}
		return 0, context.Cause(ctx)
	}
}

// release ends a request. What was under way when the limit was halved does
// not halve it again: it says nothing about the new limit.
func (l *limiter) release(ticket int, said load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	switch {
	case said == loadBusy && ticket == l.cuts:
		l.limit = max(1, l.limit/2)
		l.cuts++
		l.good = 0
	case said == loadBusy:
		l.good = 0
	case said == loadGood && l.limit < l.most:
		if l.good++; l.good >= raiseAfter*l.limit {
			l.limit++
			l.good = 0
		}
	}
	l.next()
}

// next gives free places to those who wait. Caller holds mu.
func (l *limiter) next() {
	for l.active < l.limit && len(l.waiting) > 0 {
		l.active++
		l.waiting[0] <- struct{}{}
		l.waiting = l.waiting[1:]
	}
}

func (l *limiter) allowed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}
