package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"nines/pkg/ops"
)

// folder is a database on disk. Nothing in it is written.
type folder struct {
	dir    string
	temp   string // with copies of the logs
	blocks []*tsdb.Block
	head   *tsdb.DB // of what the logs hold; nil without them

	headOldest, headNewest int64
}

const walDir = "wal"

// blockName is how the library names a finished block.
var blockName = regexp.MustCompile("^[0-9A-Z]{26}$")

func openFolder(ctx context.Context, dir string) (_ *folder, err error) {
	blocks, hasLogs, err := findDatabase(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir, headOldest: math.MaxInt64, headNewest: math.MinInt64}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, b := range blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		block, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), filepath.Join(dir, b), nil, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, or being deleted, by its owner
		}
		if err != nil {
			return nil, fmt.Errorf("block %s of %s is damaged: restore it, or copy the folder without it and read the copy: %w", b, dir, err)
		}
		f.blocks = append(f.blocks, block)
	}
	if hasLogs {
		if err := f.openLogs(ctx); err != nil {
			return nil, err
		}
	}
	if len(f.blocks) == 0 && f.headOldest > f.headNewest {
		return nil, fmt.Errorf("the database in %s is empty: give the folder of the server that holds the samples", dir)
	}
	return f, nil
}

// findDatabase tells the blocks of a folder, and whether it has logs.
func findDatabase(dir string) (blocks []string, hasLogs bool, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, false, ops.Remedy(fmt.Errorf("the folder of a database: %w", err))
	}
	if !info.IsDir() {
		return nil, false, fmt.Errorf("%s is a file: give the folder of a database, or read the file with --samples", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, false, ops.Remedy(fmt.Errorf("the folder of a database: %w", err))
	}
	inside := ""
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if blockName.MatchString(e.Name()) {
			if found, _ := exists(filepath.Join(dir, e.Name(), "meta.json")); found { // else it is being made or deleted
				blocks = append(blocks, e.Name())
			}
			continue
		}
		if e.Name() == walDir {
			hasLogs = true
		} else if found, _ := exists(filepath.Join(dir, e.Name(), walDir)); found {
			inside = filepath.Join(dir, e.Name())
		}
	}
	switch {
	case len(blocks) > 0 || hasLogs:
		return blocks, hasLogs, nil
	case inside != "":
		return nil, false, fmt.Errorf("%s is no database, but %s is: give that", dir, inside)
	}
	return nil, false, fmt.Errorf("%s is no folder of a Prometheus database: it has neither blocks (folders with a meta.json) nor a log (the folder wal); give the one that Prometheus got as --storage.tsdb.path", dir)
}

// openLogs replays copies of the logs into memory. The library repairs and cuts
// them: one that a killed process leaves, or that is just being written, has a
// torn end.
func (f *folder) openLogs(ctx context.Context) (err error) {
	if f.temp, err = os.MkdirTemp("", "nines-source-*"); err != nil {
		return ops.Remedy(fmt.Errorf("make a temporary folder: %w", err))
	}
	for _, part := range []string{walDir, wlog.WblDirName, "chunks_head"} {
		if err := copyFolder(ctx, filepath.Join(f.dir, part), filepath.Join(f.temp, part)); err != nil {
			return ops.Remedy(fmt.Errorf("copy the logs of %s to %s: %w", f.dir, f.temp, err))
		}
	}
	o := tsdb.DefaultOptions()
	o.NoLockfile = true
	o.RetentionDuration = 0 // for ever
	o.EnableSTStorage = true
	o.FloatChunkEncoding = chunkenc.EncXOR2
	o.EnableHistogramSTEncoding = true
	if f.head, err = openWhole(f.temp, slog.New(slog.DiscardHandler), &registrations{Registerer: prometheus.NewRegistry()}, o); err != nil {
		return fmt.Errorf("read the log of %s: start Prometheus on the folder, which repairs it, or copy the folder without %s and read the copy: %w", f.dir, walDir, err)
	}
	f.head.DisableCompactions()
	q, err := f.head.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		return fmt.Errorf("read the log of %s: %w", f.dir, err)
	}
	f.headOldest, f.headNewest, err = extent(q.Select(ctx, false, nil, everything()))
	if err := errors.Join(err, q.Close()); err != nil {
		return fmt.Errorf("read the log of %s: %w", f.dir, err)
	}
	return ctx.Err()
}

// copyFolder copies files, and folders of files, as far as they are there
// still.
func copyFolder(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		return copyFile(path, filepath.Join(to, rel))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (f *folder) Querier(mint, maxt int64) (storage.Querier, error) {
	var parts []storage.Querier
	for _, b := range f.blocks {
		if !b.OverlapsClosedInterval(mint, maxt) {
			continue
		}
		q, err := tsdb.NewBlockQuerier(b, mint, maxt)
		if err != nil {
			for _, p := range parts {
				err = errors.Join(err, p.Close())
			}
			return nil, fmt.Errorf("read block %s of %s: %w", b.Meta().ULID, f.dir, err)
		}
		parts = append(parts, q)
	}
	if f.head != nil && f.headOldest <= maxt && f.headNewest >= mint {
		q, err := f.head.Querier(mint, maxt)
		if err != nil {
			for _, p := range parts {
				err = errors.Join(err, p.Close())
			}
			return nil, fmt.Errorf("read the log of %s: %w", f.dir, err)
		}
		parts = append(parts, q)
	}
	return storage.NewMergeQuerier(parts, nil, storage.ChainedSeriesMerge), nil
}

func (f *folder) MinTime() (time.Time, bool) {
	oldest := f.headOldest
	for _, b := range f.blocks {
		oldest = min(oldest, b.MinTime())
	}
	return time.UnixMilli(oldest), oldest != math.MaxInt64
}

func (f *folder) MaxTime() (time.Time, bool) {
	newest := f.headNewest
	for _, b := range f.blocks {
		newest = max(newest, b.MaxTime()-1) // a block's end is exclusive
	}
	return time.UnixMilli(newest), newest != math.MinInt64
}

func (f *folder) Check(ctx context.Context, from, to time.Time, ms ...*labels.Matcher) error {
	q, err := f.Querier(from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return err
	}
	wanted := ms
	if len(wanted) == 0 {
		wanted = []*labels.Matcher{everything()}
	}
	found, err := anySample(q.Select(ctx, false, nil, wanted...))
	if err := errors.Join(err, q.Close()); err != nil {
		return fmt.Errorf("read %s: %w", f.dir, err)
	}
	if found {
		return nil
	}
	oldest, _ := f.MinTime()
	newest, _ := f.MaxTime()
	return &NoDataError{Source: f.Describe(), From: from, To: to, Matchers: ms, Oldest: oldest, Newest: newest}
}

func (f *folder) Describe() string {
	parts := []string{fmt.Sprintf("%d blocks", len(f.blocks))}
	if f.head != nil {
		parts = append(parts, "the log")
	}
	return fmt.Sprintf("the database in %s (%s)", f.dir, strings.Join(parts, " and "))
}

func (f *folder) Close() error {
	var errs []error
	if f.head != nil {
		errs = append(errs, f.head.Close())
	}
	for _, b := range f.blocks {
		errs = append(errs, b.Close())
	}
	if f.temp != "" {
		errs = append(errs, os.RemoveAll(f.temp))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close %s: %w", f.dir, err)
	}
	return nil
}
