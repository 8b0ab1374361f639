package logs

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
)

// fileKey is where a file lies.
type fileKey struct{ device, inode uint64 }

func keyOf(info fs.FileInfo) fileKey {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileKey{}
	}
	return fileKey{st.Dev, st.Ino}
}

// maxHead is how much of a file's beginning tells it from others.
const maxHead = 1024

// generation is one content of one file, from its first byte to the rotation
// after its last. The reader owns it; what settle and the series touch, too, is
// guarded by the Follower's mu.
type generation struct {
	id       string    // random, 96 bits
	path     string    // that a pattern matched: the name in records
	file     *os.File  // nil: not open
	scanned  int64     // of a line over the limit: where its end has not been found up to
	news     time.Time // when it last grew
	rotated  bool      // no longer at its path
	origin   origin
	document []byte // end of its records, see Config.ending
	podsSeen uint64 // version of the metadata in document

	// Guarded by Follower.mu. Only the reader writes those above the empty line,
	// and so may read them without.
	name    string // where it lies now, as far as is known
	key     fileKey
	headLen int
	head    uint64
	modTime time.Time
	done    bool  // rotated, and read to its end
	size    int64 // the most that was seen
	read    int64 // up to here lines were made into records

	onDisk bool    // its identity is in the checkpoint
	offset int64   // up to here records have a verdict
	tally  tally   // of the bytes before offset
	spans  []*span // between offset and read, in order
}

// span is a row of lines of one generation in one batch.
type span struct {
	g          *generation
	start, end int64
	first, n   int // records of the batch
	settled    bool
	tally      tally
}

func newID() string {
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// headOf hashes the first n bytes; n is less where the file is shorter.
func headOf(f io.ReaderAt, n int) (uint64, int, error) {
	buf := make([]byte, n)
	k, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	return xxhash.Sum64(buf[:k]), k, nil
}

// begins says whether f begins as this generation did.
func (g *generation) begins(f io.ReaderAt) (bool, error) {
	sum, n, err := headOf(f, g.headLen)
	return n == g.headLen && sum == g.head, err
}

// release closes the file.
func (g *generation) release() error {
	if g.file == nil {
		return nil
	}
	err := g.file.Close() // only read
	g.file = nil
	return err
}

// open opens a regular file for reading, without waiting for the other end of
// a pipe that took its name.
func open(name string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}
