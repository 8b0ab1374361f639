package evaluate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/ledger"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

const (
	// markStore is the kind of a mark of the book that says from when on its
	// minutes are counted from the samples of one store.
	markStore = "store"
	// markOldest is the kind of one that says how old a store's oldest sample was
	// when it had its first one.
	markOldest = "oldest"
	// markLate and markCaughtUp are the kinds of those that say back to when late
	// samples came, and that all of them are in the book.
	markLate, markCaughtUp = "late", "caught up"
	// markReadBack is the kind of one that says up to when an objective's minutes
	// were booked from the samples of another store.
	markReadBack = "read back"
)

// origin says which minutes are counted from the samples of this store. Of those
// it knows all: a minute that is derived again replaces what is booked even
// where it counts less, as when a late sample shows a reset. Of others it may
// know a part (R21).
type origin struct {
	since sla.Minute // the first minute that is this store's alone
	// first is the oldest sample when the store had its first one, in
	// milliseconds, 0 before that: while that is still the oldest one, retention
	// has removed nothing.
	first int64
}

func (e *Evaluator) loadOrigin() error {
	id := e.cfg.Raw.ID()
	stores, err := e.cfg.Book.Marks(markStore)
	if err != nil {
		return err
	}
	slices.SortFunc(stores, func(a, b ledger.Mark) int { return cmp.Compare(a.At, b.At) })
	at := int64(math.MinInt64)
	for i := len(stores) - 1; i >= 0 && stores[i].Key == id; i-- {
		at = stores[i].At
	}
	if at == math.MinInt64 {
		at = e.cfg.Started.UnixMilli()
		e.marks = append(e.marks, ledger.Mark{Kind: markStore, Key: id, At: at})
	}
	e.origin.since = sla.MinuteOfMillis(at)
	oldest, err := e.cfg.Book.Marks(markOldest)
	if err != nil {
		return err
	}
	for _, m := range oldest {
		if m.Key == id {
			e.origin.first = m.At
		}
	}
	return nil
}

// loadReadBack finds up to when minutes were read back.
func (e *Evaluator) loadReadBack() error {
	marks, err := e.cfg.Book.Marks(markReadBack)
	for _, m := range marks {
		e.readTo[m.Key] = max(e.readTo[m.Key], m.At)
	}
	return err
}

// noteOldest marks the oldest sample of a store that has its first one.
func (e *Evaluator) noteOldest() {
	if e.origin.first != 0 {
		return
	}
	if t, ok := e.cfg.Raw.MinTime(); ok && t.UnixMilli() != 0 {
		e.origin.first = t.UnixMilli()
		e.marks = append(e.marks, ledger.Mark{Kind: markOldest, Key: e.cfg.Raw.ID(), At: e.origin.first})
	}
}

// rawFrom is the first minute of which the raw samples are all there.
func (e *Evaluator) rawFrom() sla.Minute {
	oldest := e.oldest()
	if e.origin.first != 0 && oldest <= e.origin.first {
		return math.MinInt64 / 2 // retention has removed nothing yet
	}
	return sla.MinuteOfMillis(oldest) + 1
}

// lateness is back to when closed minutes may have to be derived again. It is in
// the book before the late sample is acknowledged: a stop before the next tick
// forgets nothing.
type lateness struct {
	open    bool
	from    sla.Minute
	since   time.Time // it was opened then, by the clock of ticks
	episode int       // of this term
}

// lateEpisode is how long one lateness stays open at least: a sender that is
// always a little late makes few marks.
const lateEpisode = time.Hour

func (l *lateness) key(term uint64) string {
	return strconv.FormatUint(term, 10) + "/" + strconv.Itoa(l.episode)
}

// loadLateness finds what came late before a stop and may not be in the book.
func (e *Evaluator) loadLateness() error {
	late, err := e.cfg.Book.Marks(markLate)
	if err != nil {
		return err
	}
	done, err := e.cfg.Book.Marks(markCaughtUp)
	if err != nil {
		return err
	}
	finished := map[string]bool{}
	for _, m := range done {
		finished[m.Key] = true
	}
	var term uint64
	for _, m := range late {
		of, err := termOf(m.Key)
		if err != nil {
			return err
		}
		if of > term {
			e.lateness.open, term = false, of // a later term has taken over what an earlier one left
		}
		if at := sla.MinuteOfMillis(m.At); of == term && !finished[m.Key] && (!e.lateness.open || at < e.lateness.from) {
			e.lateness.open, e.lateness.from = true, at
		}
	}
	if e.lateness.open {
		e.marks = append(e.marks, ledger.Mark{Kind: markLate, Key: e.lateness.key(e.cfg.Term), At: e.lateness.from.Millis()})
	}
	return nil
}

func termOf(key string) (uint64, error) {
	text, _, _ := strings.Cut(key, "/")
	term, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a mark of late samples is of the term %q: the book is damaged, or written by another program", text)
	}
	return term, nil
}

// noteLate books back to when closed minutes have to be derived again, unless
// that is known. A failure is logged: the samples are in the store, and the slow
// pass finds what differs.
func (e *Evaluator) noteLate(from sla.Minute) {
	l := &e.lateness
	if from >= farFuture || l.open && from >= l.from || e.cfg.Lease != nil && !e.cfg.Lease(e.ticked) {
		return
	}
	if !l.open {
		l.open, l.since = true, e.ticked
	}
	l.from = from
	e.marks = append(e.marks, ledger.Mark{Kind: markLate, Key: l.key(e.cfg.Term), At: from.Millis()})
	at := e.ticked
	if at.IsZero() {
		at = e.cfg.Started
	}
	if err := e.append(nil, nil, nil, at); err != nil {
		e.cfg.Log.Warn("late samples came whose minutes will be derived again; that they came could not be booked", "err", err)
	}
}

// caughtUp notes that all late samples of an episode are in the book.
func (e *Evaluator) caughtUp(now time.Time) {
	l := &e.lateness
	if !l.open {
		return
	}
	if l.since.IsZero() {
		l.since = now
	}
	if now.Sub(l.since) < lateEpisode {
		return
	}
	for _, o := range e.ordered() {
		if o.tally.needsAgain && o.isCounted() {
			return
		}
	}
	e.marks = append(e.marks, ledger.Mark{Kind: markCaughtUp, Key: l.key(e.cfg.Term), At: now.UnixMilli()})
	l.open = false
	l.episode++
}

// staleFrom is the first minute that the late samples of an objective touch:
// that of the scrape before the oldest of them, whose time up to it counts
// otherwise now, and before that the time that a silent series is waited for.
func (e *Evaluator) staleFrom(ctx context.Context, o *objective) (sla.Minute, error) {
	from := o.tally.stale
	for _, s := range o.tally.list {
		if len(s.slots) > 0 && s.reached > 0 {
			// It waits for a series, which a derivation may not have to do.
			from = min(from, sla.MinuteOfMillis(s.reached))
		}
		if s.late == 0 {
			continue
		}
		back := s.late - max(silentEnd, s.longest())
		before, ok, err := e.scrapeBefore(ctx, o, s.key, s.late)
		if err != nil {
			return from, err
		}
		if ok {
			back = min(back, before)
		}
		from = min(from, sla.MinuteOfMillis(back))
	}
	return from, nil
}

// scrapeBefore finds a source's newest sample before t.
func (e *Evaluator) scrapeBefore(ctx context.Context, o *objective, key string, t int64) (at int64, ok bool, err error) {
	oldest := e.oldest()
	for _, span := range []time.Duration{15 * time.Minute, 2 * time.Hour, 24 * time.Hour, e.cfg.Retention} {
		from := max(t-span.Milliseconds(), oldest)
		for i := range o.queries {
			if o.queries[i].Kind == openslo.Expression || from >= t {
				continue
			}
			ms := append(sourceMatchers(key), o.groupMatchers(o.queries[i].Matchers)...)
			err := e.read(ctx, from, t-1, ms, func(_ labels.Labels, ps []point) {
				for j := len(ps) - 1; j >= 0; j-- {
					if !ps[j].stale {
						at, ok = max(at, ps[j].t), true
						return
					}
				}
			})
			if err != nil {
				return 0, false, err
			}
		}
		if ok || from == oldest {
			return at, ok, nil
		}
	}
	return 0, false, nil
}
