package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/wlog"

	"nines/pkg/ops"
)

// logSyncer makes durable what the database wrote to its logs. The database
// writes to a log on commit and does not sync it; a second descriptor of the
// same file syncs the same pages.
//
// The owner calls sync from one goroutine at a time.
type logSyncer struct{ logs []*logTail }

// logTail is the end of one log: segments up to number-1 and the first size
// bytes of segment number are durable.
type logTail struct {
	dir    string
	number int
	size   int64
	f      *os.File // of segment number; nil before the first sync
}

// newLogSyncer takes the folders of the logs. A folder that does not exist is
// a log that this database does not have.
func newLogSyncer(dirs ...string) (*logSyncer, error) {
	s := &logSyncer{}
	for _, dir := range dirs {
		first, last, err := wlog.Segments(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list segments of %s: %w", dir, err)
		}
		if last < 0 {
			return nil, fmt.Errorf("list segments of %s: the folder holds none", dir)
		}
		// What an earlier process left may not be durable: begin with its oldest.
		s.logs = append(s.logs, &logTail{dir: dir, number: first, size: -1})
	}
	return s, nil
}

// sync returns when all that was written to the logs before the call is
// durable.
func (s *logSyncer) sync() error {
	for _, l := range s.logs {
		if err := l.sync(); err != nil {
			return err
		}
	}
	return nil
}

func (s *logSyncer) close() error {
	var errs []error
	for _, l := range s.logs {
		if l.f != nil {
			errs = append(errs, l.f.Close())
			l.f = nil
		}
	}
	return errors.Join(errs...)
}

func (l *logTail) sync() error {
	for moved := l.size < 0; ; moved = true {
		// Whether a successor exists is asked before the sync: a segment with a
		// successor gets no more writes.
		more, err := exists(wlog.SegmentName(l.dir, l.number+1))
		if err != nil {
			return fmt.Errorf("look for the next segment: %w", err)
		}
		err = l.syncSegment()
		if errors.Is(err, fs.ErrNotExist) {
			// Cut off after its samples went into a synced checkpoint or block.
			first, _, err := wlog.Segments(l.dir)
			if err != nil {
				return fmt.Errorf("list segments of %s: %w", l.dir, err)
			}
			if first <= l.number {
				return fmt.Errorf("segment %d of %s is missing", l.number, l.dir)
			}
			l.number = first
			continue
		}
		if err != nil {
			return err
		}
		if !more {
			if moved {
				// The names of new segments have to be durable too.
				return ops.SyncDir(l.dir)
			}
			return nil
		}
		if err := l.f.Close(); err != nil {
			return fmt.Errorf("close segment: %w", err)
		}
		l.f, l.size = nil, 0
		l.number++
	}
}

func (l *logTail) syncSegment() error {
	if l.f == nil {
		f, err := os.Open(wlog.SegmentName(l.dir, l.number))
		if err != nil {
			return fmt.Errorf("open segment to sync: %w", err)
		}
		l.f = f
	}
	info, err := l.f.Stat()
	if err != nil {
		return fmt.Errorf("read size of segment %s: %w", filepath.Base(l.f.Name()), err)
	}
	if info.Size() == l.size {
		return nil // only appended to: the same size is the same content
	}
	if err := l.f.Sync(); err != nil {
		return fmt.Errorf("sync segment: %w", err)
	}
	l.size = info.Size()
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
