package scrape

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sparing is the engine's log: each message at most once a minute, with the
// number of those held back. The engine says the same at every scrape of every
// target while a fault lasts. What it says is a fixed set of sentences, so the
// memory for them is bounded.
type sparing struct {
	slog.Handler
	said *said
}

type said struct {
	mu   sync.Mutex
	last map[string]time.Time
	held map[string]int
}

const sparingEvery = time.Minute

func newSparing(h slog.Handler) slog.Handler {
	return sparing{h, &said{last: map[string]time.Time{}, held: map[string]int{}}}
}

func (s sparing) Handle(ctx context.Context, r slog.Record) error {
	s.said.mu.Lock()
	if last, ok := s.said.last[r.Message]; ok && r.Time.Sub(last) < sparingEvery {
		s.said.held[r.Message]++
		s.said.mu.Unlock()
		return nil
	}
	s.said.last[r.Message] = r.Time
	held := s.said.held[r.Message]
	delete(s.said.held, r.Message)
	s.said.mu.Unlock()
	if held > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("held_back", held))
	}
	return s.Handler.Handle(ctx, r)
}

func (s sparing) WithAttrs(as []slog.Attr) slog.Handler {
	return sparing{s.Handler.WithAttrs(as), s.said}
}
func (s sparing) WithGroup(name string) slog.Handler {
	return sparing{s.Handler.WithGroup(name), s.said}
}
