package ship

import (
	"os"
	"sync"
	"syscall"
)

// brokenDisk is a file on a disk with room for so many bytes more: a write
// beyond them leaves the part that fits, as a real one does.
type brokenDisk struct {
	file
	mu       sync.Mutex
	room     int
	stuck    bool // Truncate fails, too
	unsynced bool // Sync fails
}

func (d *brokenDisk) WriteAt(p []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.file.WriteAt(p[:min(len(p), d.room)], at)
	if err == nil && n < len(p) {
		err = &os.PathError{Op: "write", Path: d.Name(), Err: syscall.ENOSPC}
	}
	d.room -= n
	return n, err
}

func (d *brokenDisk) Truncate(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stuck {
		return &os.PathError{Op: "truncate", Path: d.Name(), Err: syscall.EIO}
	}
	return d.file.Truncate(size)
}

func (d *brokenDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unsynced {
		return &os.PathError{Op: "sync", Path: d.Name(), Err: syscall.EIO}
	}
	return d.file.Sync()
}
