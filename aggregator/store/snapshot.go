package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nines/pkg/ops"
)

// On a clean end the database leaves a memory snapshot, so that the next start
// need not read its logs from their beginning. It syncs the files of the
// snapshot but not the folder that names them: after a power cut the folder may
// be there without them, and the database takes an empty snapshot for a whole
// one and skips the logs before it. So a snapshot counts only with a mark that
// is written after those names are durable. Without one the logs are read,
// which still hold everything.

// snapshotMark is a file in a snapshot's folder. The database ignores names
// there that are not numbers.
const snapshotMark = "complete"

func snapshots(dir string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "chunk_snapshot.*"))
	if err != nil {
		return nil, fmt.Errorf("look for memory snapshots: %w", err)
	}
	return found, nil
}

// confirmSnapshots marks the snapshots that the database left when it was
// closed.
func confirmSnapshots(dir string) error {
	found, err := snapshots(dir)
	if err != nil {
		return err
	}
	for _, s := range found {
		if err := ops.SyncDir(s); err != nil {
			return fmt.Errorf("sync memory snapshot: %w", err)
		}
		if err := os.WriteFile(filepath.Join(s, snapshotMark), nil, 0o644); err != nil {
			return fmt.Errorf("mark memory snapshot: %w", err)
		}
		if err := ops.SyncDir(s); err != nil {
			return fmt.Errorf("sync memory snapshot: %w", err)
		}
	}
	return nil
}

// dropUnconfirmedSnapshots removes those without the mark, before the database
// is opened.
func dropUnconfirmedSnapshots(dir string) error {
	found, err := snapshots(dir)
	if err != nil {
		return err
	}
	for _, s := range found {
		if _, err := os.Stat(filepath.Join(s, snapshotMark)); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for the mark of a memory snapshot: %w", err)
		}
		if err := os.RemoveAll(s); err != nil {
			return fmt.Errorf("remove unfinished memory snapshot: %w", err)
		}
	}
	return nil
}
