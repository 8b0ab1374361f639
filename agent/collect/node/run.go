package node

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// errSilent is the error of a source whose reading does not come back.
var errSilent = errors.New("the kernel does not answer")

// result is what became of a source at a tick.
type result struct {
	err  error
	took time.Duration
}

// worker reads sources one after the other in a goroutine of its own. The
// collector waits for it, but not for ever: a worker whose source hangs is left
// behind, with what it had read before taken over, and another one goes on with
// the next source. The one left behind ends when its source comes back.
type worker struct {
	t       *tick
	sources []*source
	done    chan struct{} // closed by the worker when it has read all

	mu      sync.Mutex
	left    bool      // nobody waits any more; guarded by mu
	results []result  // of the sources that were read; guarded by mu
	page    page      // what they wrote; guarded by mu
	began   time.Time // when the present source was called; guarded by mu
}

func (w *worker) run() {
	defer close(w.done)
	for _, s := range w.sources {
		began := time.Now()
		w.mu.Lock()
		if w.left {
			w.mu.Unlock()
			return
		}
		w.began = began
		w.mu.Unlock()

		var err error
		if s.busy.CompareAndSwap(false, true) {
			err = s.tryRead(w.t)
			s.busy.Store(false)
		} else {
			err = fmt.Errorf("read %s: an earlier try has not come back: %w", s.name, errSilent)
		}

		w.mu.Lock()
		if w.left {
			w.mu.Unlock()
			return
		}
		w.results = append(w.results, result{err, time.Since(began)})
		w.page = w.t.page
		w.mu.Unlock()
	}
}

// tryRead turns a panic of a parser (procfs indexes fields of lines that the
// kernel always writes) into an error of this source alone. What a source wrote
// before it failed is taken back.
func (s *source) tryRead(t *tick) (err error) {
	m := t.mark()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read %s: malformed kernel text: %v", s.name, p)
		}
		if err != nil {
			t.cut(m)
		}
	}()
	if err = s.read(t); err == nil {
		t.close()
		err = t.overflow()
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	return nil
}

// run reads all sources, within the timeout.
func (c *Collector) run(now time.Time) ([]result, []*page) {
	end := time.Now().Add(c.timeout)
	patience := c.timeout / 4
	results := make([]result, 0, len(c.sources))
	var pages []*page
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for len(results) < len(c.sources) {
		w := c.launch(now, c.sources[len(results):])
		silent := w.wait(timer, patience, end)
		w.mu.Lock()
		results = append(results, w.results...)
		pages = append(pages, &w.page)
		w.mu.Unlock()
		if !silent {
			c.spare = w.t
			break
		}
		// The worker goes on writing behind what was taken over.
		pages = append(pages, &page{})
		s := c.sources[len(results)]
		results = append(results, result{fmt.Errorf("read %s: %w within %v", s.name, errSilent, patience), patience})
		if !time.Now().Before(end) {
			for _, s := range c.sources[len(results):] {
				results = append(results, result{err: fmt.Errorf("read %s: no time was left of the %v for a tick", s.name, c.timeout)})
			}
		}
	}
	if len(pages) == 0 {
		pages = append(pages, &page{})
	}
	last := pages[len(pages)-1]
	last.limit = len(last.series) + maxSeries
	return results, pages
}

// launch starts a worker for the sources.
func (c *Collector) launch(now time.Time, sources []*source) *worker {
	t := c.spare
	if t == nil {
		t = &tick{}
	}
	c.spare = nil
	t.now, t.statRead = now, false
	t.page = newPage(c.start, c.fams, c.series)
	w := &worker{t: t, sources: sources, done: make(chan struct{})}
	w.began = time.Now()
	go w.run()
	return w
}

// wait returns when all is read, or, with true, when the present source takes
// longer than patience or the end is there. The worker is then left behind.
func (w *worker) wait(timer *time.Timer, patience time.Duration, end time.Time) (silent bool) {
	timer.Reset(min(patience, time.Until(end)))
	for {
		select {
		case <-w.done:
			return false
		case now := <-timer.C:
			w.mu.Lock()
			if len(w.results) == len(w.sources) {
				w.mu.Unlock()
				<-w.done
				return false
			}
			if spent := now.Sub(w.began); spent < patience && now.Before(end) {
				w.mu.Unlock()
				timer.Reset(min(patience-spent, end.Sub(now)))
				continue
			}
			w.left = true
			w.mu.Unlock()
			return true
		}
	}
}
