package ship

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"nines/pkg/ops"
)

// book is a row of files with one JSON object on each line, bounded as a whole.
// They are named PREFIX-00000001.ndjson and up; the newest is written. When the
// whole is full the oldest file is removed and dropped is told of its lines.
type book struct {
	dir, prefix string
	fileBytes   int64 // a file that has reached it is followed by the next
	files       int   // that are kept; 0: any number
	bytes       int64 // that are kept in all files; 0: any number
	log         *slog.Logger
	dropped     func(lines int)

	mu      sync.Mutex // guards all below
	f       file
	n       uint64 // number of the file
	size    int64
	others  int64  // bytes in the files before
	torn    bool   // f may hold bytes beyond size
	trimmed bool   // no more files than allowed
	pinned  uint64 // number of a file that somebody reads and will remove; 0: none
}

// file is what a book needs of an *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Name() string
	Sync() error
	Truncate(size int64) error
}

const ndjsonSuffix = ".ndjson"

// openBook creates the folder where it is missing. A torn last line, left by a
// crash, is cut off: it was never acknowledged.
func openBook(b *book) (*book, error) {
	if err := os.MkdirAll(b.dir, 0o750); err != nil {
		return nil, fmt.Errorf("create folder of records: %w", err)
	}
	numbers, err := b.numbers()
	if err != nil {
		return nil, err
	}
	if len(numbers) > 0 {
		b.n = numbers[len(numbers)-1]
	} else {
		b.n = 1
	}
	if err := b.open(); err != nil {
		return nil, err
	}
	whole, err := wholeLines(b.f, b.size)
	if err == nil && whole < b.size {
		b.log.Warn("a torn line at the end was cut off; its record is written again", "file", b.f.Name(), "bytes", b.size-whole)
		err = b.f.Truncate(whole)
		b.size = whole
	}
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w", b.f.Name(), errors.Join(err, b.f.Close()))
	}
	for _, n := range numbers[:max(0, len(numbers)-1)] {
		info, err := os.Stat(b.path(n))
		if err != nil {
			return nil, fmt.Errorf("open records: %w", errors.Join(err, b.f.Close()))
		}
		b.others += info.Size()
	}
	return b, nil
}

// total returns how many bytes all files have.
func (b *book) total() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.others + b.size
}

// numbers lists the files that are there, oldest first.
func (b *book) numbers() ([]uint64, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var found []uint64
	for _, e := range entries {
		digits := strings.TrimPrefix(strings.TrimSuffix(e.Name(), ndjsonSuffix), b.prefix+"-")
		n, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && e.Name() == filepath.Base(b.path(n)) { // others are not ours
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found, nil
}

func (b *book) path(n uint64) string {
	return filepath.Join(b.dir, fmt.Sprintf("%s-%08d%s", b.prefix, n, ndjsonSuffix))
}

func (b *book) open() error {
	f, err := os.OpenFile(b.path(b.n), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open records: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		err = ops.SyncDir(b.dir)
	}
	if err != nil {
		return fmt.Errorf("open records: %w", errors.Join(err, f.Close()))
	}
	b.f, b.size = f, info.Size()
	return nil
}

// wholeLines returns where the last line that ends does end.
func wholeLines(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		n := min(end, int64(len(buf)))
		if _, err := r.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

// add writes whole lines and syncs them. After an error nothing of them counts
// as written, and the next call writes over their place.
func (b *book) add(lines []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.f == nil {
		return fmt.Errorf("write records: %w", fs.ErrClosed)
	}
	if b.torn {
		if err := b.f.Truncate(b.size); err != nil {
			return fmt.Errorf("cut off a torn line: %w", err)
		}
		b.torn = false
	}
	if b.size > 0 && b.size+int64(len(lines)) > b.fileBytes {
		if err := b.next(); err != nil {
			return err
		}
	}
	if !b.trimmed || b.bytes > 0 && b.others+b.size+int64(len(lines)) > b.bytes {
		if err := b.trim(int64(len(lines))); err != nil {
			return err
		}
	}
	_, err := b.f.WriteAt(lines, b.size)
	if err == nil {
		err = b.f.Sync()
	}
	if err != nil {
		// What stands there is not ours to keep; a reader must not see half a line.
		cut := b.f.Truncate(b.size)
		b.torn = cut != nil
		return fmt.Errorf("write records: %w", errors.Join(err, cut))
	}
	b.size += int64(len(lines))
	return nil
}

// next begins the next file.
func (b *book) next() error {
	old, size := b.f, b.size
	b.n++
	if err := b.open(); err != nil {
		b.n--
		return err
	}
	b.others += size
	b.trimmed = false
	if err := old.Close(); err != nil {
		return fmt.Errorf("close %s: %w", old.Name(), err)
	}
	return nil
}

// finish ends the file that is written, unless it is empty, and returns the
// numbers of all that are finished, oldest first.
func (b *book) finish() ([]uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.f == nil {
		return nil, fmt.Errorf("read records: %w", fs.ErrClosed)
	}
	if b.torn {
		if err := b.f.Truncate(b.size); err != nil {
			return nil, fmt.Errorf("cut off a torn line: %w", err)
		}
		b.torn = false
	}
	if b.size > 0 {
		if err := b.next(); err != nil {
			return nil, err
		}
	}
	numbers, err := b.numbers()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(numbers, func(n uint64) bool { return n >= b.n }), nil
}

// pin keeps a file from being removed as the oldest; 0 pins none.
func (b *book) pin(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pinned = n
}

// remove removes a finished file for good.
func (b *book) remove(n uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.unlink(n); err != nil {
		return fmt.Errorf("remove records: %w", err)
	}
	if err := ops.SyncDir(b.dir); err != nil {
		return fmt.Errorf("remove records: %w", err)
	}
	return nil
}

// unlink removes a finished file. Caller holds mu.
func (b *book) unlink(n uint64) error {
	info, err := os.Stat(b.path(n))
	if err == nil {
		err = os.Remove(b.path(n))
	}
	if err == nil {
		b.others -= info.Size()
	}
	return err
}

// trim removes the oldest files: those beyond the number that is kept, and as
// many as it takes for so many bytes more. That which is written stays, and
// one that is pinned.
func (b *book) trim(more int64) error {
	numbers, err := b.numbers()
	if err != nil {
		return err
	}
	surplus := 0
	if b.files > 0 {
		surplus = len(numbers) - b.files
	}
	for _, n := range numbers {
		if n >= b.n || surplus <= 0 && (b.bytes == 0 || b.others+b.size+more <= b.bytes) {
			break
		}
		surplus--
		if b.pinned != 0 && n == b.pinned {
			continue
		}
		lines, err := countLines(b.path(n))
		if err == nil {
			err = b.unlink(n)
		}
		if err != nil {
			return fmt.Errorf("remove the oldest records: %w", err)
		}
		b.dropped(lines)
	}
	b.trimmed = true
	return nil
}

func countLines(path string) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	buf := make([]byte, 64<<10)
	for {
		k, err := f.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (b *book) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.f == nil {
		return nil
	}
	err := b.f.Close()
	b.f = nil
	if err != nil {
		return fmt.Errorf("close records: %w", err)
	}
	return nil
}
