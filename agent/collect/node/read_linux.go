package node

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile bounds a file of the kernel, in bytes. The largest, /proc/stat and
// /proc/net/udp of a big machine, have about a megabyte.
const maxFile = 8 << 20

// maxEntries bounds the entries of a folder.
const maxEntries = 65536

// tick is what a source gets: the clock, a reader whose buffers the sources
// share, and the page that it writes on.
type tick struct {
	now time.Time
	page

	buf   []byte // of file and attr
	small []byte // of attr
	names []byte // of dir

	stat     []byte // what file said of stat, which two sources read
	statRead bool
}

// file returns a file as a whole. It is valid until the next call of file or
// attr. The calls are made directly: os.File would ask the poller about each.
func (t *tick) file(path string) ([]byte, error) {
	fd, err := open(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if t.buf == nil {
		t.buf = make([]byte, 16<<10)
	}
	n := 0
	for {
		if n == len(t.buf) {
			if n >= maxFile {
				return nil, fmt.Errorf("read %s: it has more than %d MiB", path, maxFile>>20)
			}
			t.buf = append(t.buf, make([]byte, len(t.buf))...)
		}
		m, err := read(fd, t.buf[n:])
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			return t.buf[:n], nil
		}
		n += m
	}
}

// attr returns what one file of sysfs says, without space around it. The kernel
// gives it in one piece of at most a page. It is valid until the next call.
func (t *tick) attr(path string) ([]byte, error) { return t.attrAt(unix.AT_FDCWD, path) }

// attrAt is attr of a file in an open folder: sysfs has long ways, and looking
// the way up costs more than reading.
func (t *tick) attrAt(dir int, path string) ([]byte, error) {
	fd, err := openAt(dir, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if t.small == nil {
		t.small = make([]byte, 4096)
	}
	n, err := read(fd, t.small)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return trim(t.small[:n]), nil
}

// number returns what one file of sysfs says as a whole number.
func (t *tick) number(path string) (float64, error) {
	text, err := t.attr(path)
	if err != nil {
		return 0, err
	}
	v, ok := wholeOf(text)
	if !ok {
		return 0, fmt.Errorf("read %s: %q is not a number", path, clip(text))
	}
	return v, nil
}

// open opens for reading. A pipe without a writer does not block it.
func open(path string) (int, error) { return openAt(unix.AT_FDCWD, path) }

func openAt(dir int, path string) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// dir returns the names in a folder, sorted.
func (t *tick) dir(path string) ([]string, error) {
	fd, err := open(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if t.names == nil {
		t.names = make([]byte, 8<<10)
	}
	var names []string
	for {
		n, err := unix.ReadDirent(fd, t.names)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(t.names[:n], -1, names)
		if len(names) > maxEntries {
			return nil, fmt.Errorf("read %s: it has more than %d entries", path, maxEntries)
		}
	}
}

// exists says whether there is something at the path.
func exists(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil
}

// isUnsupported is how a kernel built with pressure accounting, but booted
// without it, answers a read.
func isUnsupported(err error) bool { return errors.Is(err, unix.EOPNOTSUPP) }

// withheld says that a file of sysfs has nothing to say of this device: it is
// not there, not for us, or has no value, as the speed of an interface that is
// down.
func withheld(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EAGAIN)
}
