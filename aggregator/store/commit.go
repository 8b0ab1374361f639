package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// commit is a batch that the database holds and the sender does not know of.
type commit struct {
	batch   []Sample
	refused []RefusedSource
	synced  bool  // guarded by DB.syncMu
	err     error // guarded by DB.syncMu
	hooked  bool  // guarded by DB.hookMu
	waits   bool  // in pending: there is something to sync or to tell
}

func (db *DB) write(a *Appender) error {
	if len(a.batch)+len(a.lone)+len(a.sources.list) == 0 {
		return nil
	}
	c, err := db.commit(a)
	if err != nil {
		db.metrics.commits.WithLabelValues("failed").Inc()
		return err
	}
	db.metrics.commits.WithLabelValues("ok").Inc()
	if !c.waits {
		return nil
	}

	// Whoever gets syncMu first syncs for all that are committed by then; the
	// others find their batch done.
	db.syncMu.Lock()
	if !c.synced && c.err == nil {
		// The error, if any, is in c too.
		_ = db.syncPending()
	}
	err = c.err
	db.syncMu.Unlock()
	if err != nil {
		return err
	}

	stored := len(c.batch)
	db.runHook(c)
	a.refused.Stored = stored
	db.metrics.samples.WithLabelValues(resultStored).Add(float64(stored))
	return nil
}

// DiskFullError says that the disk has less than Config.MinFree left. Nothing
// of the batch is stored; writing it again later can succeed.
type DiskFullError struct {
	Dir           string
	Free, MinFree uint64 // bytes
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("the disk of %s has %d MiB free and %d MiB are to be left: free space on it, shorten the retention or bound its size", e.Dir, e.Free>>20, e.MinFree>>20)
}

func freeBytes(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

// commit appends the batch to the database. On success the accepted samples
// wait in pending, in the order of commits.
func (db *DB) commit(a *Appender) (_ *commit, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil, ErrClosed
	}
	if err := db.Err(); err != nil {
		return nil, err
	}
	if free, err := db.free(); err != nil {
		return nil, fmt.Errorf("ask for free space: %w", err)
	} else if free < uint64(db.cfg.MinFree) {
		return nil, &DiskFullError{Dir: db.cfg.Dir, Free: free, MinFree: uint64(db.cfg.MinFree)}
	}
	// The database panics when it can't write a chunk.
	defer func() {
		if p := recover(); p != nil {
			db.poisoned.Store(true)
			cause, ok := p.(error)
			if !ok {
				cause = fmt.Errorf("%v", p)
			}
			err = db.fail(fmt.Errorf("write to the database in %s: %w", db.cfg.Dir, cause))
		}
	}()
	db.limiter.sender = a.sender
	app := db.tsdb.AppenderV2(context.Background())
	accepted, err := db.appendBatch(app, a)
	if err != nil {
		return nil, fmt.Errorf("append to the database: %w", errors.Join(err, app.Rollback()))
	}
	before := counterValue(db.wblFailures)
	if err := app.Commit(); err != nil {
		// The log may now end in half a record: what would follow it would be
		// cut off by the next replay.
		return nil, db.fail(fmt.Errorf("write the database's log: %w", err))
	}
	if counterValue(db.wblFailures) > before {
		return nil, db.fail(fmt.Errorf("write the database's log of late samples in %s: see the line before in this log", db.cfg.Dir))
	}
	if err := db.appendLone(a); err != nil {
		return nil, db.fail(fmt.Errorf("write exemplars to the database's log: %w", err))
	}
	db.metrics.exemplars.WithLabelValues(resultStored).Add(float64(a.storedExemplars))
	c := &commit{batch: accepted, refused: a.sources.list}
	if c.waits = len(accepted)+len(a.lone)+len(c.refused) > 0; c.waits {
		db.pending = append(db.pending, c)
	}
	return c, nil
}

// appendBatch gives a batch to the database and returns, in the same memory,
// what it accepted. An error is not about a sample. It is called with mu held.
func (db *DB) appendBatch(app storage.AppenderV2, a *Appender) ([]Sample, error) {
	db.newest.begin()
	accepted := a.batch[:0]
	var opts storage.AOptions
	for i := range a.batch {
		s := &a.batch[i]
		if len(a.exemplars) > 0 {
			opts.Exemplars = a.exemplars[i]
		}
		// The database goes by the reference alone; one that it has forgotten it
		// replaces by that of the labels.
		ref, err := app.Append(s.handle.ref, s.Labels, s.ST, s.T, s.V, s.H, s.FH, opts)
		if err != nil {
			var partial *storage.AppendPartialError
			if errors.As(err, &partial) {
				err = nil
				a.storedExemplars -= len(partial.ExemplarErrors)
				db.metrics.exemplars.WithLabelValues("refused").Add(float64(len(partial.ExemplarErrors)))
			}
		}
		if l := db.limiter; l.created {
			l.created = false
			if err == nil {
				l.bring(ref, a.sender)
			}
		}
		if err == nil {
			a.storedExemplars += len(opts.Exemplars)
			s.Ref, s.handle.ref = uint64(ref), ref
			// Within one batch the database tells neither a time given twice nor
			// a late sample that it is going to drop. An exact repetition is no
			// error, as it is none in the next batch.
			switch after, was := db.newest.note(s.Ref, s.T, len(accepted)); {
			case after == 0 && !sameValue(&accepted[was], s):
				err = storage.ErrDuplicateSampleForTimestamp
			case after < 0 && db.cfg.OutOfOrder == 0:
				err = storage.ErrOutOfOrderSample
			}
		}
		if err != nil {
			if full := (*fullError)(nil); errors.As(err, &full) {
				a.beyond(full.t.scope)
				r := &Refusal{Labels: s.Labels, T: s.T, Reason: SeriesLimit}
				if len(a.refused.First) < maxPlaces {
					r.Detail = db.limiter.detail(full)
				}
				a.refuse(r)
				continue
			}
			why, detail := explain(err, db.cfg)
			if why == "" {
				return nil, err
			}
			a.refuse(&Refusal{Labels: s.Labels, T: s.T, Reason: why, Detail: detail})
			continue
		}
		if s.H != nil || s.FH != nil {
			a.storedHistograms++
		}
		if len(accepted) == i {
			accepted = accepted[:i+1] // in place
		} else {
			accepted = append(accepted, *s)
		}
	}
	return accepted, nil
}

func sameValue(a, b *Sample) bool {
	switch {
	case a.ST != b.ST || (a.H == nil) != (b.H == nil) || (a.FH == nil) != (b.FH == nil):
		return false
	case a.H != nil:
		return a.H.Equals(b.H)
	case a.FH != nil:
		return a.FH.Equals(b.FH)
	}
	return math.Float64bits(a.V) == math.Float64bits(b.V)
}

// appendLone gives the database the exemplars that came without a sample. Only
// its older appender takes them. It is called with mu held.
func (db *DB) appendLone(a *Appender) error {
	// Without a series in memory there is nothing that they could belong to.
	if len(a.lone) == 0 || db.tsdb.Head().NumSeries() == 0 {
		return nil
	}
	app := db.tsdb.Appender(context.Background())
	for _, x := range a.lone {
		for _, e := range x.list {
			if _, err := app.AppendExemplar(x.handle.ref, x.handle.labels, e); err != nil {
				// Of a series that is not there, out of order, or too long.
				db.metrics.exemplars.WithLabelValues("refused").Inc()
				continue
			}
			a.storedExemplars++
		}
	}
	return app.Commit()
}

// explain turns an error of the database about one sample into a reason, ""
// if the error is not about the sample.
func explain(err error, cfg Config) (Reason, string) {
	var hist histogram.Error
	switch {
	case errors.Is(err, storage.ErrTooOldSample):
		return TooOld, fmt.Sprintf("older than the out-of-order window of %s: raise retention.late, or send sooner", cfg.OutOfOrder)
	case errors.Is(err, storage.ErrOutOfOrderSample):
		return OutOfOrder, "older than the newest sample of its series: send in order, or set retention.late"
	case errors.Is(err, storage.ErrOutOfBounds):
		return OutOfBounds, "older than the store takes: send sooner, or set retention.late"
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return Duplicate, "the series has another value at this time: two senders use the same labels, give them differing ones"
	case errors.Is(err, tsdb.ErrInvalidSample):
		return InvalidLabels, err.Error()
	case errors.As(err, &hist):
		return InvalidHistogram, err.Error()
	}
	return "", ""
}

// syncPending makes all that is committed durable and moves it on to the
// hook's queue, or tells its writers why not. The caller holds syncMu.
func (db *DB) syncPending() error {
	db.mu.Lock()
	group := db.pending
	db.pending = nil
	db.mu.Unlock()

	err := db.syncLogs()
	for _, c := range group {
		c.synced, c.err = err == nil, err
	}
	if err == nil {
		db.readyMu.Lock()
		db.ready = append(db.ready, group...)
		db.readyMu.Unlock()
	}
	return err
}

// syncLogs is called with syncMu held.
func (db *DB) syncLogs() error {
	if err := db.Err(); err != nil {
		return err
	}
	if db.syncer == nil {
		return nil // Config.Bulk: there is no log
	}
	start := time.Now()
	err := db.syncer.sync()
	db.metrics.syncTime.Observe(time.Since(start).Seconds())
	if err == nil {
		db.metrics.syncs.WithLabelValues("ok").Inc()
		return nil
	}
	db.metrics.syncs.WithLabelValues("failed").Inc()
	// The operating system may have dropped the pages: a later success would
	// prove nothing about them.
	return db.fail(fmt.Errorf("sync the database's logs in %s: %w", db.cfg.Dir, err))
}

// Sync returns when every sample committed before the call is durable (R24).
// It does not wait for the hook.
func (db *DB) Sync() error {
	db.syncMu.Lock()
	defer db.syncMu.Unlock()
	return db.syncPending()
}

// runHook returns when the hook has seen c, and all that was committed before.
func (db *DB) runHook(c *commit) {
	db.hookMu.Lock()
	defer db.hookMu.Unlock()
	if c.hooked {
		return
	}
	db.readyMu.Lock()
	group := db.ready
	db.ready = nil
	db.readyMu.Unlock()
	for _, c := range group {
		start := time.Now()
		if len(c.refused) > 0 {
			db.refusedHook(c.refused)
		}
		if len(c.batch) > 0 {
			db.hook(c.batch)
		}
		db.metrics.hookTime.Observe(time.Since(start).Seconds())
		c.hooked = true
	}
}
