package harness

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nines/pkg/metric"
)

// Identity watches an agent's account of its logs while it runs: for each
// destination the states of bytes, and of records, add up to what was seen, at
// any moment and across restarts.
type Identity struct {
	agent *Agent
	stop  chan struct{} // closed by Stop
	done  chan struct{} // closed by the goroutine of WatchIdentity

	mu     sync.Mutex // of all below
	looks  int
	broken []string
	last   Figures
}

// WatchIdentity looks four times a second, until Stop. While the agent does not
// answer there is nothing to look at.
func WatchIdentity(a *Agent) *Identity {
	i := &Identity{agent: a, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(i.done)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-i.stop:
				return
			case <-tick.C:
			}
			if f, err := a.Figures(); err == nil {
				i.look(f)
			}
		}
	}()
	return i
}

func (i *Identity) look(f Figures) {
	broken := identity(f)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.looks++
	i.last = f
	if len(i.broken) < 20 {
		i.broken = append(i.broken, broken...)
	}
}

// Stop ends it and says how often it looked and what did not add up.
func (i *Identity) Stop() (looks int, broken []string) {
	close(i.stop)
	<-i.done
	return i.looks, i.broken
}

// Balance looks once.
func Balance(a *Agent) (broken []string, err error) {
	f, err := a.Figures()
	return identity(f), err
}

// Last is what the agent said last, nil where it never did.
func (i *Identity) Last() Figures {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.last
}

// identity says which sums of a page are wrong.
func identity(f Figures) (broken []string) {
	for _, name := range []struct{ states, seen string }{{metric.LogBytes, metric.LogSeenBytes}, {metric.LogRecords, metric.LogSeenRecords}} {
		destinations := 0
		for series, seen := range f {
			labels, ok := strings.CutPrefix(series, name.seen+"{")
			if !ok {
				continue
			}
			destinations++
			label := strings.TrimSuffix(labels, "}")
			sum, _ := f.Sum(name.states, label)
			if sum != seen {
				broken = append(broken, fmt.Sprintf("%s: the states of %s add up to %.0f, %s is %.0f", label, name.states, sum, name.seen, seen))
			}
		}
		if destinations == 0 {
			broken = append(broken, "there is no "+name.seen)
		}
	}
	slices.Sort(broken)
	return broken
}
