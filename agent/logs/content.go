package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// content is the bytes of a generation by their offset, wherever they lie.
type content interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

// openContent opens what lies under a name: a log, a compressed one, or what is
// left of one from base on. The size is that of the log; of a compressed one it
// is what its end says (RFC 1952, ISIZE, modulo 4 GiB) and certain only when all
// was read.
func openContent(name string, base int64) (c content, info fs.FileInfo, size int64, err error) {
	f, info, err := open(name)
	if err != nil {
		return nil, nil, 0, err
	}
	if !isZipped(name) {
		if base > 0 {
			return &suffix{f, base}, info, base + info.Size(), nil
		}
		return f, info, info.Size(), nil
	}
	var end [4]byte
	if info.Size() > 4 {
		if _, err := f.ReadAt(end[:], info.Size()-4); err != nil {
			return nil, nil, 0, errors.Join(err, f.Close())
		}
	}
	size = int64(binary.LittleEndian.Uint32(end[:]))
	if size > info.Size()*maxRatio {
		size = 0 // not the end of a whole file
	}
	return &zipped{f: f}, info, size, nil
}

// maxRatio is how much shorter deflate makes its input at the most (zlib.net,
// technical details: 1032 to 1).
const maxRatio = 1032

// isZipped says whether the name is that of a compressed generation.
func isZipped(name string) bool { return filepath.Ext(name) == ".gz" }

// suffix is a file that begins at an offset other than 0.
type suffix struct {
	*os.File
	base int64
}

func (r *suffix) ReadAt(p []byte, off int64) (int, error) {
	if off < r.base {
		return 0, fmt.Errorf("%s begins at byte %d of its log", r.Name(), r.base)
	}
	return r.File.ReadAt(p, off-r.base)
}

// errDamaged says that a compressed file cannot be decompressed.
var errDamaged = errors.New("the compressed file is damaged")

// zipped reads a gzip file. What was read last can be read again; going back
// further begins anew.
type zipped struct {
	f      *os.File
	z      *gzip.Reader
	window []byte // the bytes that end at at
	at     int64
}

func (z *zipped) Stat() (fs.FileInfo, error) { return z.f.Stat() }
func (z *zipped) Close() error               { return z.f.Close() }

func (z *zipped) ReadAt(p []byte, off int64) (n int, err error) {
	if z.z == nil || off < z.at-int64(len(z.window)) {
		if err := z.rewind(); err != nil {
			return 0, err
		}
	}
	if off > z.at {
		skipped, err := io.CopyN(io.Discard, z.z, off-z.at)
		z.window, z.at = z.window[:0], z.at+skipped
		if err != nil {
			return 0, z.told(err)
		}
	}
	n = copy(p, z.window[len(z.window)-int(z.at-off):])
	for n < len(p) && err == nil {
		var k int
		k, err = z.z.Read(p[n:])
		n, z.at = n+k, z.at+int64(k)
	}
	// Only what stands behind the last line's end is read again.
	z.window = append(z.window[:0], p[bytes.LastIndexByte(p[:n], '\n')+1:n]...)
	if err = z.told(err); errors.Is(err, errDamaged) {
		z.z, z.window = nil, nil // it may be whole the next time
	}
	return n, err
}

func (z *zipped) rewind() (err error) {
	if _, err := z.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if z.z == nil {
		z.z, err = gzip.NewReader(z.f)
	} else {
		err = z.z.Reset(z.f)
	}
	if err != nil {
		z.z = nil
		return z.told(err)
	}
	z.window, z.at = z.window[:0], 0
	return nil
}

// told tells damage from the end and from an error of the disk.
func (z *zipped) told(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return err
	}
	return fmt.Errorf("%w: %v", errDamaged, err)
}

// rotatedName is the name of a rotated generation, read apart.
type rotatedName struct {
	mark string // what stands behind the log's own name, without .gz
	gzip bool
}

// parseRotated reads the name of a rotated generation of the file base: the same
// name, then . - or _, then a number or date, then perhaps .gz. Other ways to
// compress are not read.
func parseRotated(base, name string) (r rotatedName, ok bool) {
	rest, ok := strings.CutPrefix(name, base)
	if !ok {
		return parseDated(base, name)
	}
	if len(rest) < 2 || !strings.ContainsRune(".-_", rune(rest[0])) || rest[1] < '0' || rest[1] > '9' {
		return r, false
	}
	switch filepath.Ext(name) {
	case ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tmp":
		return r, false
	}
	r.mark, r.gzip = strings.CutSuffix(rest[1:], ".gz")
	return r, true
}

// parseDated reads a name with the date before the extension, as app-20261123.log
// or app.2026-11-23.log.gz of app.log. Less than eight digits are not taken for a
// date: app-2.log may be of another program.
func parseDated(base, name string) (r rotatedName, ok bool) {
	name, r.gzip = strings.CutSuffix(name, ".gz")
	ext := filepath.Ext(base)
	rest, begins := strings.CutPrefix(name, strings.TrimSuffix(base, ext))
	rest, ends := strings.CutSuffix(rest, ext)
	if ext == "" || !begins || !ends || len(rest) < 9 || !strings.ContainsRune(".-_", rune(rest[0])) || rest[1] < '0' || rest[1] > '9' {
		return rotatedName{}, false
	}
	digits := 0
	for _, c := range rest {
		if c >= '0' && c <= '9' {
			digits++
		}
	}
	r.mark = rest[1:]
	return r, digits >= 8
}

// basesOf are the names of which name may be a rotated generation: what stands in
// front of a number or date, and that with the extension behind it.
func basesOf(name string) (bases []string) {
	name = strings.TrimSuffix(name, ".gz")
	ext := filepath.Ext(name)
	for i := 1; i+1 < len(name); i++ {
		if !strings.ContainsRune(".-_", rune(name[i])) || name[i+1] < '0' || name[i+1] > '9' {
			continue
		}
		bases = append(bases, name[:i])
		if i < len(name)-len(ext) && ext != "" {
			bases = append(bases, name[:i]+ext)
		}
	}
	return bases
}

// older says whether r was rotated away before o, as their names tell: a longer
// row of numbers is a date and grows, a short one counts up with age.
func (r rotatedName) older(o rotatedName) (older, known bool) {
	a, aCounts := r.count()
	b, bCounts := o.count()
	switch {
	case aCounts && bCounts:
		return a > b, a != b
	case !aCounts && !bCounts:
		return r.mark < o.mark, r.mark != o.mark
	}
	return false, false
}

// count returns the number in a name such as app.log.12.
func (r rotatedName) count() (n int, ok bool) {
	if len(r.mark) > 5 {
		return 0, false
	}
	for _, c := range []byte(r.mark) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}
