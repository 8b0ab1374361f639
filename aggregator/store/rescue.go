package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"nines/pkg/ops"
)

// The database can lose late samples that it acknowledged, at a start after the
// next one:
//
//   - A series that was silent for some hours leaves its memory, and comes back
//     under another number. When the log that holds both is read again, one series
//     is made of them, and the database knows that only in memory
//     (prometheus/prometheus #19744, #19804).
//   - The log of late samples says which of them are in files of chunks. A chunk
//     that a kill or a power cut took is told by its place behind the end of those
//     files, until the next process writes behind it.
//
// Reading logs once is right in all cases. So the logs that a process left which
// did not end cleanly are read once: all that they hold is written into blocks, and
// new ones are begun. It is done on a copy, and the logs are removed when the
// blocks have their names: a crash on the way does it again. A clean end writes
// late samples into blocks, and leaves all else in a memory snapshot.

const (
	// cleanMark is a file that a clean end leaves.
	cleanMark = "clean"
	// rescueDir is where logs are copied to and blocks made.
	rescueDir = "rescue"
	// flushed is the ending of logs that are in blocks and are being removed.
	flushed = ".flushed"
)

// logDirs are the folders of the database that hold what is not in blocks yet, in
// the order in which they may go.
var logDirs = []string{wlog.WblDirName, "chunks_head", walDir}

// markClean notes that the database was closed with all that it had to do.
func markClean(dir string) error { return ops.WriteFile(filepath.Join(dir, cleanMark), nil, 0o644) }

// rescue writes what the logs in a folder hold into blocks, where the process
// before did not end cleanly. The folder's database is not open.
func rescue(dir string, log *slog.Logger, o tsdb.Options) error {
	if err := dropFlushed(dir); err != nil {
		return err
	}
	switch err := os.Remove(filepath.Join(dir, cleanMark)); {
	case err == nil:
		return ops.SyncDir(dir)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("remove the mark of a clean end: %w", err)
	}
	if size, err := sizeOf(dir, walDir); err != nil || size == 0 {
		return err // a new store
	}
	// There must be room for a copy of the logs and for the blocks made of it.
	size, err := sizeOf(dir, logDirs...)
	if err != nil {
		return err
	}
	free, err := freeBytes(dir)
	if err != nil {
		return err
	}
	if free <= 2*size {
		// Reading the logs as they are loses late samples in rare cases, and only at
		// the start after the next one.
		log.Warn("the metric store had not ended cleanly, and there is no room to write what its logs hold into blocks first: make room and start again")
		return nil
	}
	begun := time.Now()
	kept, err := snapshots(dir)
	if err != nil {
		return err
	}
	copies := slices.Clone(logDirs)
	for _, path := range kept {
		copies = append(copies, filepath.Base(path)) // numbers of series are those of the newest
	}
	tmp := filepath.Join(dir, rescueDir)
	for _, name := range copies {
		if err := copyFolder(context.Background(), filepath.Join(dir, name), filepath.Join(tmp, name)); err != nil {
			return fmt.Errorf("copy the logs to write what they hold into blocks: %w", err)
		}
	}
	if err := makeBlocks(tmp, log, o); err != nil {
		return fmt.Errorf("write what the logs hold into blocks: %w", err)
	}
	if err := takeBlocks(tmp, dir); err != nil {
		return err
	}
	for _, path := range kept {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove memory snapshot: %w", err)
		}
	}
	for _, name := range logDirs {
		path := filepath.Join(dir, name)
		if err := os.Rename(path, path+flushed); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set aside a log that is in blocks: %w", err)
		}
		if err := ops.SyncDir(dir); err != nil {
			return err
		}
	}
	log.Info("the metric store had not ended cleanly: what its logs held is in blocks now, and new logs begin", "seconds", time.Since(begun).Seconds())
	return dropFlushed(dir)
}

// makeBlocks opens the copy of logs and writes blocks beside them.
func makeBlocks(dir string, log *slog.Logger, o tsdb.Options) (err error) {
	o.RetentionDuration, o.MaxBytes = 0, 0
	db, err := openWhole(dir, log, &registrations{Registerer: prometheus.NewRegistry()}, &o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.DisableCompactions()
	if err := db.CompactOOOHead(context.Background()); err != nil {
		return err
	}
	head, span := db.Head(), o.MinBlockDuration
	for from, to := head.MinTime(), head.MaxTime(); from <= to; from += span - from%span {
		if err := db.CompactHead(tsdb.NewRangeHead(head, from, min(to, from-from%span+span-1))); err != nil {
			return err
		}
	}
	return nil
}

// takeBlocks moves finished blocks from one folder to another.
func takeBlocks(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("look for new blocks: %w", err)
	}
	for _, e := range entries {
		if !blockName.MatchString(e.Name()) {
			continue
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return fmt.Errorf("take over a block: %w", err)
		}
	}
	return ops.SyncDir(to)
}

// sizeOf adds up the files below folders of dir, in bytes. One that is not there
// has none.
func sizeOf(dir string, names ...string) (size uint64, err error) {
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(dir, name), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err == nil {
				size += uint64(info.Size())
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("look at the size of the logs: %w", err)
		}
	}
	return size, nil
}

// dropFlushed removes logs that are in blocks, and what a crash left of a rescue.
func dropFlushed(dir string) error {
	errs := []error{os.RemoveAll(filepath.Join(dir, rescueDir))}
	for _, name := range logDirs {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name+flushed)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove logs that are in blocks: %w", err)
	}
	return nil
}
