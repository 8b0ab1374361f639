package logs

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"time"
)

// minTurn is the least that one file may give before the next has its turn; it
// is more where a record may be longer.
const minTurn = 256 << 10

// turn reads a bounded piece of a file into the batch. It says whether there
// may be more of it now.
func (f *Follower) turn(g *generation, now time.Time) (more bool) {
	info, err := g.file.Stat()
	if err != nil {
		f.trouble(g, err)
		return false
	}
	if info.Size() < g.read {
		f.cutOff(g)
		return true
	}
	if !info.ModTime().Equal(g.modTime) || info.Size() != g.size {
		// Written since: still the same content?
		if same, err := g.begins(g.file); err != nil {
			f.trouble(g, err)
			return false
		} else if !same {
			f.cutOff(g)
			return true
		}
		// More of the beginning is taken into the identity while it grows.
		head, n := g.head, g.headLen
		if n < maxHead && info.Size() > int64(n) {
			if head, n, err = headOf(g.file, maxHead); err != nil {
				f.trouble(g, err)
				return false
			}
		}
		f.mu.Lock()
		g.head, g.headLen = head, n
		g.modTime, g.size, g.news = info.ModTime(), info.Size(), now
		f.changed()
		f.mu.Unlock()
	}
	if g.read+g.scanned >= g.size {
		return f.idle(g, now)
	}
	from := g.read + g.scanned
	n, err := g.file.ReadAt(f.buf[:min(int64(len(f.buf)), g.size-from)], from)
	if err != nil && !errors.Is(err, io.EOF) {
		f.trouble(g, err)
		return false
	}
	if n == 0 { // it shrank just now: the next turn sees it
		return false
	}
	f.wellAgain(g)
	f.refresh(g)
	s := &span{g: g, start: g.read, end: g.read, first: len(f.batch.recs)}
	stamp := now.UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z07:00")
	for b := f.buf[:n]; len(b) > 0; {
		nl := bytes.IndexByte(b, '\n')
		if nl < 0 {
			if g.scanned > 0 || len(b) > f.cfg.MaxRecord {
				// A line over the limit: only its end is looked for.
				g.scanned += int64(len(b))
			}
			break
		}
		size := g.scanned + int64(nl) + 1
		message, cut := b[:nl], int64(0)
		if g.scanned > 0 {
			cut = size - 1 - int64(f.cfg.MaxRecord)
			if message, err = f.beginning(g); err != nil {
				f.trouble(g, err)
				return false
			}
			g.scanned = 0
		}
		f.emit(g, s, message, size, cut, stamp)
		b = b[nl+1:]
	}
	f.close(s)
	if s.n == 0 && g.scanned == 0 {
		return f.idle(g, now) // a line without an end
	}
	return g.read+g.scanned < g.size
}

// beginning reads what is kept of a line over the limit.
func (f *Follower) beginning(g *generation) ([]byte, error) {
	kept := make([]byte, f.cfg.MaxRecord)
	_, err := g.file.ReadAt(kept, g.read)
	return kept, err
}

// emit makes a line into a record of the span. The line takes size bytes of the
// file, its end and the cut bytes included.
func (f *Follower) emit(g *generation, s *span, message []byte, size, cut int64, stamp []byte) {
	message = bytes.TrimSuffix(message, []byte{'\r'})
	l := line{time: stamp, message: message}
	if g.origin.cri {
		if parsed, ok := parseCRI(message); ok {
			l = parsed
		} else {
			l.flags = []string{"unparsed"}
		}
	}
	l.offset, l.cut = s.end, cut
	if cut > 0 {
		l.flags = append(l.flags, "cut")
		f.m.cut.Add(int(cut))
	}
	f.batch.add(g, l, size)
	s.n++
	s.end += size
}

// close adds the span to the batch.
func (f *Follower) close(s *span) {
	if s.n == 0 {
		return
	}
	f.batch.spans = append(f.batch.spans, s)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.g.spans = append(s.g.spans, s)
	s.g.read = s.end
}

// refresh makes the common end of documents anew when the pod's metadata did
// change.
func (f *Follower) refresh(g *generation) {
	if g.document != nil && g.podsSeen == f.lastPods {
		return
	}
	var meta *Pod
	if f.cfg.Pods != nil && g.origin.pod != "" {
		meta = f.cfg.Pods.Find(g.origin.namespace, g.origin.pod, g.origin.uid)
	}
	g.document, g.podsSeen = f.cfg.ending(g.path, g.origin, meta), f.lastPods
}

// idle looks at a file without news. One that was rotated away and that nobody
// writes to any more is read to its end: also a last line without an end.
func (f *Follower) idle(g *generation, now time.Time) (more bool) {
	if !g.rotated {
		return false
	}
	quiet := f.cfg.Idle
	if info, err := g.file.Stat(); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 0 {
			quiet = f.cfg.Unlinked
		}
	}
	if now.Sub(g.news) < quiet {
		return false
	}
	if g.read < g.size {
		f.lastLine(g, now)
	}
	f.finish(g)
	return false
}

// lastLine makes what stands behind the last line's end into a record.
func (f *Follower) lastLine(g *generation, now time.Time) {
	size := g.size - g.read
	kept := make([]byte, min(size, int64(f.cfg.MaxRecord)))
	if _, err := g.file.ReadAt(kept, g.read); err != nil {
		f.trouble(g, err)
		return
	}
	f.refresh(g)
	s := &span{g: g, start: g.read, end: g.read, first: len(f.batch.recs)}
	f.emit(g, s, kept, size, size-int64(len(kept)), now.UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z07:00"))
	g.scanned = 0
	f.close(s)
}

// finish gives back the file of a generation that is read to its end.
func (f *Follower) finish(g *generation) {
	f.mu.Lock()
	g.done = true
	f.changed()
	f.mu.Unlock()
	if err := g.release(); err != nil {
		f.log.Warn("close log file", "path", g.name, "error", err)
	}
}
