package store

import (
	"errors"

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
}

// Labels are those of the series. They may be kept.
func (h *Handle) Labels() labels.Labels { return h.labels }

// Handle checks a label set. The error says what is wrong with it.
func (db *DB) Handle(ls labels.Labels) (*Handle, error) {
	h, problem := db.newHandle(ls)
	if problem != "" {
		return nil, errors.New(ls.String() + " " + problem)
	}
	return h, nil
}

func (db *DB) newHandle(ls labels.Labels) (_ *Handle, problem string) {
	ls = ls.WithoutEmpty()
	if problem := checkLabels(ls); problem != "" {
		return nil, problem
	}
	return &Handle{db: db, labels: ls}, ""
}
