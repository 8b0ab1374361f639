package store

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// Handle is a series whose labels were checked once, for Appender.AppendTo. It
// may be kept as long as its store and used by many appenders at a time. It
// keeps nothing alive in the database: a series that was away for hours comes
// back by its labels.
type Handle struct {
	db     *DB
	labels labels.Labels
	ref    storage.SeriesRef // guarded by DB.mu: where the database had it last, 0 for unknown
	tenant atomic.Pointer[tenant]
}

// Labels are those of the series. They may be kept.
func (h *Handle) Labels() labels.Labels { return h.labels }

// Handle checks a label set. The error says what is wrong with it.
func (db *DB) Handle(ls labels.Labels) (*Handle, error) {
	h, fault := db.newHandle(ls)
	if fault != nil {
		return nil, errors.New(ls.String() + " " + fault.detail)
	}
	return h, nil
}

func (db *DB) newHandle(ls labels.Labels) (*Handle, *fault) {
	ls = ls.WithoutEmpty()
	if fault := db.cfg.Limits.checkLabels(ls); fault != nil {
		return nil, fault
	}
	h := &Handle{db: db, labels: ls}
	h.tenant.Store(db.limiter.of(ls))
	return h, nil
}
