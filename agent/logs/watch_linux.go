package logs

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// watcher asks the kernel to tell of changes (inotify(7)), so that thousands of
// quiet files need neither an open descriptor nor a look. A file is watched once:
// its first change removes the watch, since a file with news is read and looked
// at anyway; a line each would be an event each (which is why this is no library:
// they tell of every write).
//
// Nothing waits for events: they are taken when the Follower looks around, and
// until then the kernel keeps 16,384 of them (max_queued_events). What it cannot
// keep, or may not watch, is found by the look at all files.
type watcher struct {
	fd      int
	folders map[string]int32
	names   map[int32]string // of folders
	files   map[int32]*generation
	full    bool // the kernel allows no more watches
	buf     []byte
}

// newWatcher returns nil where the kernel has no more room for one.
func newWatcher() *watcher {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil
	}
	return &watcher{fd: fd, folders: map[string]int32{}, names: map[int32]string{}, files: map[int32]*generation{}, buf: make([]byte, 16<<10)}
}

func (w *watcher) close() error {
	if w == nil {
		return nil
	}
	return os.NewSyscallError("close inotify", unix.Close(w.fd))
}

// count returns the watches.
func (w *watcher) count() int {
	if w == nil {
		return 0
	}
	return len(w.names) + len(w.files)
}

// complete says whether each folder could be watched.
func (w *watcher) complete() bool { return w != nil && !w.full }

const folderEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// watchFolders makes the folders those that are watched.
func (w *watcher) watchFolders(folders []string) {
	if w == nil {
		return
	}
	wanted := make(map[string]bool, len(folders))
	w.full = false
	for _, dir := range folders {
		wanted[dir] = true
		if _, ok := w.folders[dir]; ok {
			continue
		}
		wd, err := unix.InotifyAddWatch(w.fd, dir, folderEvents)
		if err != nil {
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
				w.full = true
			}
			continue // it is not there yet, or may not be read: the folder above tells, or the look does
		}
		if old, ok := w.names[int32(wd)]; ok { // the same folder by another name
			delete(w.folders, old)
		}
		w.folders[dir], w.names[int32(wd)] = int32(wd), dir
	}
	for dir, wd := range w.folders {
		if !wanted[dir] {
			w.forget(wd)
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // gone already: so much the better
		}
	}
}

func (w *watcher) forget(wd int32) {
	if dir, ok := w.names[wd]; ok {
		delete(w.folders, dir)
		delete(w.names, wd)
	}
	delete(w.files, wd)
}

// watchFile has the next change of a generation's file told, where the kernel
// has room for one more watch.
func (w *watcher) watchFile(g *generation) {
	if w == nil {
		return
	}
	wd, err := unix.InotifyAddWatch(w.fd, g.name, unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF|unix.IN_ONESHOT)
	if err != nil {
		return
	}
	if _, folder := w.names[int32(wd)]; !folder { // which took its name
		w.files[int32(wd)] = g
	}
}

// take returns what has happened: files with news, and whether folders changed
// or events were lost.
func (w *watcher) take() (news []*generation, look bool) {
	if w == nil {
		return nil, false
	}
	for {
		n, err := unix.Read(w.fd, w.buf)
		if n <= 0 || err != nil {
			return news, look
		}
		for b := w.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
			if g := w.files[wd]; g != nil {
				g.modified = g.parked && mask&unix.IN_MODIFY != 0
				news = append(news, g)
				delete(w.files, wd)
				continue
			}
			if mask&unix.IN_IGNORED != 0 {
				w.forget(wd)
				continue
			}
			look = true // of a folder, or IN_Q_OVERFLOW
		}
	}
}
