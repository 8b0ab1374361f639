package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Source is somebody else's raw samples, to be read and never changed.
type Source interface {
	// Querier reads samples in [mint, maxt], ms since the epoch, both ends
	// included. It is closed before the source. A URL answers Select alone; each
	// is one request and holds the answer in memory, at most 256 MiB of it: read
	// an hour at a time. What is not there is an empty set, not an error.
	Querier(mint, maxt int64) (storage.Querier, error)
	// MinTime is the time of the oldest sample, false where there is none. A URL
	// does not tell: the epoch, and true.
	MinTime() (time.Time, bool)
	// MaxTime is the time of the newest sample, false where there is none or, at
	// a URL, where it is not known.
	MaxTime() (time.Time, bool)
	// Check returns a *NoDataError if no sample of the closed interval matches.
	Check(ctx context.Context, from, to time.Time, matchers ...*labels.Matcher) error
	// Describe says in a few words what is read, and how. It holds no password.
	Describe() string
	Close() error
}

// OpenSource opens a folder of a Prometheus database (or of this store), or the
// http or https URL of anything that answers the Prometheus HTTP API, with user
// and password in it where they are asked for. The context is for opening.
//
// A folder may belong to a running Prometheus. Its blocks are read in place;
// its logs are copied to the folder for temporary files and replayed into
// memory, which takes as much as in Prometheus itself.
//
// A URL is read by remote read where that is served, else by queries of raw
// ranges. Queries leave out stale markers and start timestamps, and fail where
// native histograms match.
func OpenSource(ctx context.Context, where string) (Source, error) {
	if scheme, _, ok := strings.Cut(where, "://"); ok {
		if scheme != "http" && scheme != "https" {
			return nil, fmt.Errorf("open source: %q is none: give a folder, or a URL that begins with http:// or https://", where)
		}
		s, err := openURL(ctx, where)
		if err != nil {
			return nil, fmt.Errorf("open source: %w", err)
		}
		return s, nil
	}
	if where == "" {
		return nil, errors.New("open source: it is empty: give a folder of a Prometheus database, or a URL")
	}
	s, err := openFolder(ctx, where)
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	return s, nil
}

// NoDataError says that a source has no sample that was asked for.
type NoDataError struct {
	Source   string
	From, To time.Time
	Matchers []*labels.Matcher
	// Oldest and Newest are of all that the source has, zero where not known.
	Oldest, Newest time.Time
}

func (e *NoDataError) Error() string {
	const form = "2006-01-02T15:04:05Z"
	what := "no samples"
	if len(e.Matchers) > 0 {
		what += " of " + selector(e.Matchers)
	}
	msg := fmt.Sprintf("%s has %s from %s to %s: ", e.Source, what, e.From.UTC().Format(form), e.To.UTC().Format(form))
	if e.Oldest.IsZero() {
		return msg + "check the times and the names of the labels"
	}
	return msg + fmt.Sprintf("what it has goes from %s to %s", e.Oldest.UTC().Format(form), e.Newest.UTC().Format(form))
}

// selector writes matchers as PromQL does.
func selector(ms []*labels.Matcher) string {
	var parts []string
	for _, m := range ms {
		parts = append(parts, m.String())
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// everything matches each series.
func everything() *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+")
}

// extent returns the times of the oldest and the newest sample of a set.
func extent(set storage.SeriesSet) (oldest, newest int64, err error) {
	oldest, newest = math.MaxInt64, math.MinInt64
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			oldest, newest = min(oldest, it.AtT()), max(newest, it.AtT())
		}
		if err := it.Err(); err != nil {
			return 0, 0, err
		}
	}
	return oldest, newest, set.Err()
}

// anySample says whether a set has one.
func anySample(set storage.SeriesSet) (bool, error) {
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		if it.Next() != chunkenc.ValNone {
			return true, nil
		}
		if err := it.Err(); err != nil {
			return false, err
		}
	}
	return false, set.Err()
}
