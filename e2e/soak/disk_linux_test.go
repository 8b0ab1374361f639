package soak

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// disk is what of a folder would be left after the power went: the content that
// each file had when it was last synced, under the names that each folder had
// when it was last synced. POSIX promises no more.
type disk struct {
	dir string

	mu      sync.Mutex
	root    inode
	files   map[inode]content
	folders map[inode]map[string]inode
	held    map[inode]*os.File // open, so that no new file gets the number of one that is gone
	syncs   int
}

// inode names a file or folder.
type inode struct {
	number uint64
	born   unix.StatxTimestamp
	folder bool
}

// content is what a file holds; what lies between extents is zero.
type content struct {
	size    int64
	extents []extent
}

type extent struct {
	at   int64
	data []byte
}

// newDisk takes all that is in a folder for synced.
func newDisk(dir string) (*disk, error) {
	d := &disk{dir: dir, files: map[inode]content{}, folders: map[inode]map[string]inode{}, held: map[inode]*os.File{}}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return d.take(path)
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	d.root, err = inodeOf(dir)
	return d, err
}

// sync notes a file or folder as it is now.
func (d *disk) sync(path string) error {
	d.mu.Lock()
	d.syncs++
	d.mu.Unlock()
	return d.take(path)
}

func (d *disk) take(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	// The child may die meanwhile, and its descriptors with it: ours stays.
	path = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	node, err := inodeOf(path)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	var names map[string]inode
	var c content
	if node.folder {
		names, err = namesOf(path)
	} else {
		c, err = read(f)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if node.folder {
		d.folders[node] = names
	} else {
		d.files[node] = c
	}
	if d.held[node] != nil {
		return f.Close()
	}
	d.held[node] = f
	return nil
}

// close gives the files back.
func (d *disk) close() error {
	var errs []error
	for _, f := range d.held {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func inodeOf(path string) (inode, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME|unix.STATX_TYPE, &st); err != nil {
		return inode{}, fmt.Errorf("statx %s: %w", path, err)
	}
	return inode{st.Ino, st.Btime, st.Mode&unix.S_IFMT == unix.S_IFDIR}, nil
}

// namesOf returns the names in a folder as they were at one moment: what is
// removed one after the other must not be read in another order.
func namesOf(path string) (map[string]inode, error) {
	for {
		first, err := readNames(path)
		if err != nil {
			return nil, err
		}
		if again, err := readNames(path); err != nil || maps.Equal(first, again) {
			return again, err
		}
	}
}

func readNames(path string) (map[string]inode, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	out := map[string]inode{}
	for _, e := range list {
		node, err := inodeOf(filepath.Join(path, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out[e.Name()] = node
	}
	return out, nil
}

// read reads a file without its holes: some are set aside far beyond their
// content.
func read(f *os.File) (content, error) {
	info, err := f.Stat()
	if err != nil {
		return content{}, err
	}
	c := content{size: info.Size()}
	for at := int64(0); at < c.size; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return c, fmt.Errorf("look for data in %s: %w", f.Name(), err)
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return c, fmt.Errorf("look for holes in %s: %w", f.Name(), err)
		}
		to = min(to, c.size)
		data := make([]byte, max(0, to-from))
		n, err := f.ReadAt(data, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return c, err
		}
		c.extents = append(c.extents, extent{from, data[:n]})
		at = max(to, at+1)
	}
	return c, nil
}

// bytes returns [0, n) of a content.
func (c content) bytes(n int64) []byte {
	out := make([]byte, min(n, c.size))
	for _, e := range c.extents {
		if e.at < int64(len(out)) {
			copy(out[e.at:], e.data)
		}
	}
	return out
}

// loss says what a power cut takes.
type loss struct {
	name string
	// names: the names in folders survive as they were at the moment of the
	// cut, synced or not, as with a journal of names. Otherwise those synced do.
	names bool
	// torn: a part of what was appended and not synced survives, and may be
	// followed by zeros or noise.
	torn bool
}

var losses = []loss{
	{name: "all that was not synced"},
	{name: "all but a torn part of what was not synced", torn: true},
	{name: "contents that were not synced, no names", names: true},
	{name: "parts of contents that were not synced, no names", names: true, torn: true},
}

// restore writes what is left after a cut into a new folder. The child must
// have ended.
func (d *disk) restore(to string, l loss, rng *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	current := map[inode]content{}
	if l.torn || l.names {
		err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			node, err := inodeOf(path)
			if err != nil {
				return err
			}
			if node.folder {
				if l.names {
					d.folders[node], err = namesOf(path)
				}
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			current[node], err = read(f)
			return err
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", d.dir, err)
		}
	}
	return d.restoreFolder(to, d.root, l, current, rng)
}

func (d *disk) restoreFolder(to string, node inode, l loss, current map[inode]content, rng *rand.Rand) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	names := make([]string, 0, len(d.folders[node]))
	for name := range d.folders[node] {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		child := d.folders[node][name]
		path := filepath.Join(to, name)
		if child.folder {
			if err := d.restoreFolder(path, child, l, current, rng); err != nil {
				return err
			}
			continue
		}
		c := d.files[child] // empty where it was never synced
		if now, ok := current[child]; ok && l.torn {
			c = tear(c, now, rng)
		}
		if err := write(path, c); err != nil {
			return err
		}
	}
	return nil
}

// tear adds to what was synced a part of what was appended since. A file that
// was changed in another way is left as it was synced.
func tear(synced, now content, rng *rand.Rand) content {
	if now.size <= synced.size {
		return synced
	}
	all := now.bytes(min(now.size, synced.size+1<<20))
	for _, e := range synced.extents {
		if !slices.Equal(all[e.at:e.at+int64(len(e.data))], e.data) {
			return synced
		}
	}
	tail := all[synced.size:]
	keep := rng.IntN(len(tail) + 1)
	switch rng.IntN(4) {
	case 0: // all that follows is zero
		clear(tail[keep:])
	case 1: // noise
		for i := range tail[keep:] {
			tail[keep+i] = byte(rng.Uint32())
		}
	case 2: // one bit differs
		if keep > 0 {
			tail[rng.IntN(keep)] ^= 1 << rng.IntN(8)
		}
		tail = tail[:keep]
	default:
		tail = tail[:keep]
	}
	if len(tail) == 0 {
		return synced
	}
	return content{size: synced.size + int64(len(tail)), extents: append(slices.Clone(synced.extents), extent{synced.size, tail})}
}

func write(path string, c content) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(c.size); err != nil {
		return err
	}
	for _, e := range c.extents {
		if _, err := f.WriteAt(e.data, e.at); err != nil {
			return err
		}
	}
	return nil
}
