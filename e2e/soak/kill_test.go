package soak

import (
	"strings"
	"testing"
	"time"
)

// Guards R19 to R25: whenever the aggregator is killed, the book is what it
// would have been without.
func TestKilledAtAnyMomentNoMinuteIsLostOrBookedTwice(t *testing.T) {
	r := newRun(t)
	r.connected = true
	r.kill()
}

// Guards R21: a revision that was not booked yet is not lost either.
func TestKilledWhileLateSamplesArriveNoMinuteIsLostOrBookedTwice(t *testing.T) {
	newRun(t).kill()
}

func (r *run) kill() {
	defer r.keep()
	r.begin()
	for range r.rounds {
		r.round()
		if r.t.Failed() {
			r.t.FailNow()
		}
	}
	r.finish()
}

// round lets the world go on while nobody listens, starts the child and kills
// it at some moment.
func (r *run) round() {
	r.t.Helper()
	for range r.steps() {
		r.world.scrape()
	}
	p := r.start()
	r.plan(p)
	if r.open(p) {
		for r.step(p) {
			r.trouble()
		}
	}
	r.ended(p)
	r.onLine, r.last = nil, "a kill"
}

// plan decides when the child is killed.
func (r *run) plan(p *process) {
	after := func(d time.Duration) { time.AfterFunc(d, p.die) }
	upTo := func(d time.Duration) time.Duration { return time.Duration(r.rng.Int64N(int64(d))) }
	// onThe kills some time after the n-th line that begins so.
	onThe := func(n int, begin string, d time.Duration) {
		r.onLine = func(p *process, s string) {
			if strings.HasPrefix(s, begin) {
				if n--; n == 0 {
					if d == 0 {
						p.die()
					} else {
						after(d)
					}
				}
			}
		}
	}
	switch r.rng.IntN(6) {
	case 0: // at any time
		after(upTo(2 * time.Second))
	case 1: // while it opens its folder
		after(upTo(150 * time.Millisecond))
	case 2: // right after an acknowledgement
		onThe(1+r.rng.IntN(200), "ack", 0)
	case 3: // at once with a tick
		onThe(1+r.rng.IntN(100), "tick", 0)
	case 4: // in a tick
		onThe(1+r.rng.IntN(100), "tick", upTo(10*time.Millisecond)+1)
	case 5: // between what a tick did and what comes next
		onThe(1+r.rng.IntN(100), "done", 0)
	}
}
