package ops

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// WriteFile replaces the file at path so that after a crash at any moment it
// holds either all of the old or all of the new content: it writes a second
// file beside it, syncs that, renames it and syncs the folder.
func WriteFile(path string, data []byte, perm os.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("replace %s: %w", filepath.Base(path), err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("replace %s: %w", filepath.Base(path), err)
			// Either may have happened already; the first error is the one to tell.
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes names created, renamed or removed in a folder survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// HeldError says that another process holds a data folder.
type HeldError struct {
	Dir string
	PID int // 0 if it could not be read
}

func (e *HeldError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("the process with pid %d", e.PID)
	}
	return fmt.Sprintf("%s is held by %s: stop that one first, or give this one a folder of its own", e.Dir, who)
}

// FolderLock is a held data folder.
type FolderLock struct{ f *os.File }

// LockFolder creates the folder (mode 0750) where it is missing and takes it
// for this process: until Unlock, or until the process ends in any way, a
// second LockFolder fails with a *HeldError. The file "lock" in it names the
// holder.
func LockFolder(dir string) (*FolderLock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data folder %s: %w", dir, errors.Join(err, f.Close()))
		}
		held := &HeldError{Dir: dir}
		if data, err := os.ReadFile(path); err == nil {
			held.PID, _ = strconv.Atoi(strings.TrimSpace(string(data)))
		}
		_ = f.Close() // it was only read
		return nil, held
	}
	pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
	_, werr := f.WriteAt(pid, 0)
	if err := errors.Join(f.Truncate(int64(len(pid))), werr); err != nil {
		return nil, fmt.Errorf("lock data folder: write pid: %w", errors.Join(err, f.Close()))
	}
	return &FolderLock{f}, nil
}

// Unlock gives the folder back. The file stays: removing it would let two
// processes hold two files of one name.
func (l *FolderLock) Unlock() error {
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("unlock data folder: %w", err)
	}
	return nil
}
