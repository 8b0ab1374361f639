package logs

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"nines/agent/ship"
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
	id       string // random, 96 bits
	path     string // that a pattern matched: the name in records
	source   *source
	content  content   // nil: not open
	parked   bool      // closed for want of news or room; it is opened when there is some
	woken    bool      // parked, and there may be news
	modified bool      // parked, and was written to
	unzips   bool      // content is a reader of gzip
	torn     bool      // all but a last line without an end is taken
	scanned  int64     // of a line over the limit: where its end has not been found up to
	first    time.Time // when it was first seen, by this run
	news     time.Time // when it last grew
	away     time.Time // when it was seen to be rotated away; zero: it was not
	rotated  bool      // no longer at its path
	origin   origin
	document []byte // end of its records, see Config.ending
	podsSeen uint64 // version of the metadata in document
	bare     bool   // document is without the metadata of a pod that should have some
	partials [2]*partial
	span     *span // that is still added to; nil: none

	// Guarded by Follower.mu. Only the reader writes those above the empty line,
	// and so may read them without.
	name      string // where it lies now, as far as is known
	recordID  string // common part of the IDs of its records; empty: not known yet
	key       fileKey
	zipped    bool
	spooled   bool  // name is a copy of ours, without the first base bytes
	base      int64 // where the content begins, 0 unless it is spooled
	headLen   int
	head      uint64
	modTime   time.Time
	done      bool  // rotated, and read to its end
	size      int64 // the most that was seen
	read      int64 // up to here lines were taken
	waiting   int64 // bytes before read that are parts of records without an end
	uncertain int64 // records before it may have been sent by an earlier run

	ahead  int64   // its records may be sent up to here: that is in the checkpoint; 0: not even its identity is
	offset int64   // up to here records have a verdict
	tally  tally   // of the bytes before offset
	spans  []*span // between offset and read, in order
}

// following says whether the generation is at hand, open or not.
func (g *generation) following() bool { return g.content != nil || g.parked }

// span is a row of bytes of one generation, from one place where reading can
// resume to the next: no record reaches across its edges.
type span struct {
	g          *generation
	start, end int64
	open       bool // the reader still adds to it
	left       int  // records that stand in it, in part at least, without a verdict
	n          int  // records that end in it
	tally      tally
	owed       []owed
}

// owed is the verdict of a part of a record that stands in an older generation.
// It counts when all of the span has one: if that one were read again alone, the
// end of the record would come without its beginning.
type owed struct {
	share
	verdict ship.Verdict
}

// holds notes a record that ends in the span.
func (s *span) holds() {
	s.left++
	s.n++
}

// closeSpan ends the span that is added to, where all that was taken is whole.
// Caller holds the Follower's mu.
func (g *generation) closeSpan() {
	if g.span != nil {
		g.span.end, g.span.open, g.span = g.read, false, nil
	}
}

// share is the part of a record that stands in one span.
type share struct {
	span  *span
	bytes int64
}

func newID() string {
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// identify fixes the common part of the IDs of a generation's records.
//
// Of a container's log it is derived from who wrote it and its first line, which
// begins with a time in nanoseconds: a lost state folder, then, does not store
// records twice. Lines of other files may begin alike in each generation, so
// that theirs is random and in the checkpoint before the first record leaves.
func (f *Follower) identify(g *generation, line []byte, at int64) {
	id := g.id
	if g.origin.cri && g.origin.uid != "" {
		if at > 0 {
			line = make([]byte, maxHead)
			n, err := 0, io.ErrUnexpectedEOF
			if g.base == 0 && g.content != nil {
				n, err = g.content.ReadAt(line, 0)
			}
			if err != nil && !errors.Is(err, io.EOF) { // the random one does
				f.mu.Lock()
				defer f.mu.Unlock()
				g.recordID = id
				return
			}
			line, _, _ = bytes.Cut(line[:n], []byte{'\n'})
		}
		h := sha256.New()
		var length [8]byte
		for _, part := range [][]byte{[]byte(f.cfg.Cluster), []byte(f.cfg.Node), []byte(g.origin.uid), []byte(g.origin.container), []byte(g.origin.file), line[:min(len(line), maxHead)]} {
			h.Write(binary.BigEndian.AppendUint64(length[:0], uint64(len(part)))) // a hash never fails
			h.Write(part)
		}
		id = base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g.recordID = id
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
	if g.content == nil {
		return nil
	}
	err := g.content.Close() // only read
	g.content = nil
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
