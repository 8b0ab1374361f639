package logs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"time"
)

const (
	// quantum is what one file gives in a turn, for each unit of its weight,
	// before the next has its turn; it is more where one record is longer.
	quantum = 128 << 10
	// maxSpan bounds how far reading may go without a place to resume from: with
	// split records of both streams always overlapping there would be none.
	maxSpan = 16 << 20
)

// piece is what a turn has taken of a file so far.
type piece struct {
	g     *generation
	at    int64 // all before it is taken
	first int   // its first record in the batch
	now   time.Time
	stamp []byte // now, for lines without a time of their own
	// The newest place from which reading can resume, and the records before it.
	clean     int64
	cleanRecs int
}

// turn reads a bounded piece of a file into the batch. It says whether there
// may be more of it now.
func (f *Follower) turn(g *generation, now time.Time) (more bool) {
	if !g.zipped {
		if ok, more := f.looked(g, now); !ok {
			return more
		}
		if g.read+g.scanned >= g.size {
			return f.idle(g, now)
		}
	}
	if f.awaitsMetadata(g, now) {
		return false
	}
	b, eof, err := f.readPiece(g)
	if err != nil {
		return f.unreadable(g, err, now)
	}
	if len(b) == 0 {
		if g.zipped && eof {
			f.endsAt(g, g.read+g.scanned, now)
			return f.idle(g, now)
		}
		return false // it shrank just now: the next turn sees it
	}
	if !f.inherit(g) {
		return false
	}
	f.wellAgain(g)
	p := f.begin(g, now)
	scanned, end := g.scanned, g.read+g.scanned+int64(len(b))
	for len(b) > 0 {
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
			if message, err = f.beginning(g, p.at); err != nil {
				f.trouble(g, err)
				break
			}
			g.scanned = 0
		}
		f.take(p, message, size, cut, 0)
		b = b[nl+1:]
	}
	taken := p.at > g.read || g.scanned > scanned
	f.end(p)
	if g.torn = !taken; g.torn { // a line without an end
		if g.zipped && eof {
			f.endsAt(g, end, now)
		}
		return f.idle(g, now)
	}
	return g.zipped || g.read+g.scanned < g.size
}

// looked looks at what became of an open file since the last turn. Where it is
// not ok the turn is over, with more as its outcome.
func (f *Follower) looked(g *generation, now time.Time) (ok, more bool) {
	info, err := g.content.Stat()
	if err != nil {
		f.trouble(g, err)
		return false, false
	}
	size := g.base + info.Size()
	if size < g.read {
		f.cutOff(g)
		return false, true
	}
	if info.ModTime().Equal(g.modTime) && size == g.size {
		return true, false
	}
	head, n := g.head, g.headLen
	if !g.spooled { // nobody but us writes there
		// Written since: still the same content?
		if same, err := g.begins(g.content); err != nil {
			f.trouble(g, err)
			return false, false
		} else if !same {
			f.cutOff(g)
			return false, true
		}
	}
	// More of the beginning is taken into the identity while it grows.
	if n < maxHead && size > int64(n) && !g.spooled {
		if head, n, err = headOf(g.content, maxHead); err != nil {
			f.trouble(g, err)
			return false, false
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g.head, g.headLen = head, n
	if size > g.size {
		g.news = now
	}
	if lost := g.size - size; lost > 0 { // its unread end was cut off
		t := f.retired[g.path]
		t.Lost += lost
		t.LostRecords++
		f.retired[g.path] = t
		f.records++
		f.gap(g, lost, lostTruncated)
		g.scanned = 0
	}
	g.modTime, g.size = info.ModTime(), size
	f.changed()
	return true, false
}

// readPiece reads what a turn takes: a quantum, or as much as the next record
// needs. Empty: there is no more. Of a file that is damaged further on, the lines
// before that place come first.
func (f *Follower) readPiece(g *generation) (b []byte, eof bool, err error) {
	from, n := g.read+g.scanned, 0
	for want := quantum; ; want = min(4*want, f.cfg.MaxRecord+1) {
		if !g.zipped {
			want = int(min(int64(want), g.size-from))
		}
		if len(f.buf) < want {
			f.buf = append(f.buf, make([]byte, want-len(f.buf))...)
		}
		had := n
		k, err := g.content.ReadAt(f.buf[n:want], from+int64(n))
		n += k
		eof = errors.Is(err, io.EOF)
		if err != nil && !eof && bytes.IndexByte(f.buf[:n], '\n') < 0 {
			return nil, false, err
		}
		if err != nil || n < want || g.scanned > 0 || want > f.cfg.MaxRecord || !g.zipped && from+int64(n) >= g.size || bytes.IndexByte(f.buf[had:n], '\n') >= 0 {
			return f.buf[:n], eof, nil
		}
	}
}

// beginning reads what is kept of a line over the limit.
func (f *Follower) beginning(g *generation, at int64) ([]byte, error) {
	kept := make([]byte, f.cfg.MaxRecord)
	_, err := g.content.ReadAt(kept, at)
	return kept, err
}

// begin begins a piece.
func (f *Follower) begin(g *generation, now time.Time) *piece {
	f.refresh(g)
	f.piece = piece{
		g: g, at: g.read, first: len(f.batch.recs), now: now,
		stamp: now.UTC().AppendFormat(f.piece.stamp[:0], "2006-01-02T15:04:05.000Z07:00"),
	}
	p := &f.piece
	if g.span == nil {
		g.span = &span{g: g, start: p.at, end: p.at, open: true}
		f.mu.Lock()
		g.spans = append(g.spans, g.span)
		f.mu.Unlock()
	}
	p.clean = g.span.start
	return p
}

// take makes a line into a record, or into a part of one. The line takes size
// bytes of the file, its end and the cut bytes included.
func (f *Follower) take(p *piece, text []byte, size, cut int64, special flags) {
	g := p.g
	if g.recordID == "" {
		f.identify(g, text, p.at)
	}
	text = bytes.TrimSuffix(text, []byte{'\r'})
	l, ok := line{time: p.stamp, message: text}, true
	if g.origin.cri {
		if l, ok = parseContainer(text); !ok {
			l = line{time: p.stamp, message: text, flags: flagUnparsed}
		}
	}
	l.flags |= special
	if l.cut = cut; cut > 0 {
		l.flags |= flagCut
	}
	at := p.at
	p.at += size
	stream := streamOf(l)
	switch open := g.partials[stream]; {
	case open != nil && ok:
		open.bytes += size
		if open.take(l, f.cfg.MaxRecord); !l.part {
			f.whole(g, stream)
		}
	case l.part:
		l.time, l.message = bytes.Clone(l.time), bytes.Clone(l.message)
		g.partials[stream] = &partial{first: l, id: g.recordID, offset: at, bytes: size, since: p.now, uncertain: at < g.uncertain}
	default:
		f.emit(g, l, rec{share: share{g.span, size}, uncertain: at < g.uncertain}, g.recordID, at)
	}
	switch {
	case g.partials[0] == nil && g.partials[1] == nil:
		f.clean(p)
	case p.at-g.span.start > maxSpan && p.at-p.clean > maxSpan:
		f.flush(g, time.Time{})
		f.clean(p)
	}
}

// clean notes that reading can resume behind what the piece has taken by now.
func (f *Follower) clean(p *piece) { p.clean, p.cleanRecs = p.at, len(f.batch.recs)-p.first }

// whole emits the record of a stream whose last part was read, or will not come.
func (f *Follower) whole(g *generation, stream int) {
	open := g.partials[stream]
	g.partials[stream] = nil
	if open.first.cut > 0 {
		open.first.flags |= flagCut
	}
	f.emit(g, open.first, rec{share: share{g.span, open.bytes}, more: open.shares, uncertain: open.uncertain}, open.id, open.offset)
}

// flush emits the records whose end was waited for since before a time, as far
// as they came; the zero time: all.
func (f *Follower) flush(g *generation, before time.Time) {
	for stream, open := range g.partials {
		if open != nil && (before.IsZero() || open.since.Before(before)) {
			open.first.flags |= flagPartial
			f.whole(g, stream)
		}
	}
}

func (f *Follower) emit(g *generation, l line, r rec, id string, offset int64) {
	if l.cut > 0 {
		f.m.cut.Add(int(l.cut))
	}
	if g.bare {
		l.flags |= flagNoMetadata
		f.m.noMetadata.Inc()
	}
	r.stream = g.source.stream
	f.batch.add(l, id, offset, g.document, r)
}

// end hands what the piece has taken over to the account. Its span ends at the
// newest place from which reading can resume; what is behind it stays open.
func (f *Follower) end(p *piece) {
	g, recs := p.g, f.batch.recs[p.first:]
	f.batch.carry(g)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := g.span
	for i := range recs {
		for _, m := range recs[i].more {
			m.span.g.waiting = 0 // whole now
			f.batch.carry(m.span.g)
		}
		if i < p.cleanRecs {
			s.holds()
		}
	}
	g.read, g.size = p.at, max(g.size, p.at)
	if p.clean > s.start { // the span ends there
		s.end, s.open, g.span = p.clean, false, nil
	}
	if p.clean < p.at || g.span != nil {
		if g.span == nil {
			g.span = &span{g: g, start: p.clean, open: true}
			g.spans = append(g.spans, g.span)
		}
		for i := p.cleanRecs; i < len(recs); i++ {
			recs[i].span = g.span
			g.span.holds()
		}
		g.span.end = p.at
	}
	g.waiting = 0
	for _, open := range g.partials {
		if open != nil {
			g.waiting += open.bytes
		}
	}
	f.records += int64(len(recs))
	f.advance(g)
}

// inherit takes over the records that an older generation of the path began and
// that this one ends: a runtime may be told to write elsewhere between two parts.
// It is not ok while the older one has more to read.
func (f *Follower) inherit(g *generation) (ok bool) {
	if !g.origin.cri || g.read > 0 || g.scanned > 0 {
		return true
	}
	all := f.byPath[g.path]
	i := slices.Index(all, g) - 1
	for i >= 0 && all[i].size == 0 { // rotated away before anything was written
		i--
	}
	if i < 0 {
		return true
	}
	older := all[i]
	if older.partials == [2]*partial{} || !older.following() {
		return true
	}
	if older.content == nil {
		return false
	}
	// It had its turn before this one, and had no more whole lines.
	f.mu.Lock()
	defer f.mu.Unlock()
	for stream, open := range older.partials {
		if open == nil {
			continue
		}
		older.span.left++
		open.shares = append(open.shares, share{older.span, open.bytes})
		open.bytes = 0
		g.partials[stream], older.partials[stream] = open, nil
	}
	older.span.open, older.span = false, nil
	return true
}

// refresh makes the common end of documents anew when the pod's metadata did
// change.
func (f *Follower) refresh(g *generation) {
	if g.document != nil && g.podsSeen == f.lastPods {
		return
	}
	var meta *Pod
	pods := f.cfg.Pods != nil && g.origin.pod != ""
	if pods {
		meta = f.cfg.Pods.Find(g.origin.namespace, g.origin.pod, g.origin.uid)
	}
	g.document, g.podsSeen = f.cfg.ending(g.path, g.source.Source, g.origin, meta), f.lastPods
	g.bare = pods && meta == nil
}

// awaitsMetadata says whether a new file still waits for the metadata of its pod.
func (f *Follower) awaitsMetadata(g *generation, now time.Time) bool {
	if f.cfg.Pods == nil || g.origin.pod == "" || g.read > 0 || now.Sub(g.first) >= f.cfg.MetadataWait {
		return false
	}
	f.refresh(g)
	return g.bare
}

// idle looks at a file without news. One that was rotated away and that nobody
// writes to any more is read to its end: also a last line without an end.
func (f *Follower) idle(g *generation, now time.Time) (more bool) {
	if !g.rotated {
		f.flushLate(g, now)
		return false
	}
	quiet := f.cfg.Idle
	if g.partials != [2]*partial{} {
		quiet = f.cfg.PartialWait // the next generation may bring the end
	} else if g.zipped || g.spooled {
		quiet = 0
	} else if info, err := g.content.Stat(); err == nil && unlinked(info) {
		quiet = f.cfg.Unlinked
	}
	if now.Sub(g.news) < quiet {
		return false
	}
	if f.lastLine(g, now) {
		f.finish(g)
	}
	return false
}

// endsAt fixes the size of a compressed generation when its end is reached.
func (f *Follower) endsAt(g *generation, end int64, now time.Time) {
	if end == g.size {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g.size, g.news = end, now
	f.changed()
}

// unlinked says whether a file has no name any more.
func unlinked(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

// flushLate emits records whose end did not come in time.
func (f *Follower) flushLate(g *generation, now time.Time) {
	for _, open := range g.partials {
		if open != nil && now.Sub(open.since) >= f.cfg.PartialWait {
			p := f.begin(g, now)
			f.flush(g, now.Add(-f.cfg.PartialWait).Add(1))
			if g.partials == [2]*partial{} {
				f.clean(p)
			}
			f.end(p)
			return
		}
	}
}

// lastLine makes what stands behind the last line's end into a record, and what
// is there of split ones. It is not ok where it cannot be read now.
func (f *Follower) lastLine(g *generation, now time.Time) (ok bool) {
	size := g.size - g.read
	if size == 0 && g.partials == [2]*partial{} {
		return true
	}
	kept := make([]byte, min(size, int64(f.cfg.MaxRecord)))
	if size > 0 {
		if _, err := g.content.ReadAt(kept, g.read); err != nil && !errors.Is(err, io.EOF) {
			f.trouble(g, err)
			return false
		}
	}
	p := f.begin(g, now)
	if size > 0 {
		f.take(p, kept, size, size-int64(len(kept)), flagTorn)
		g.scanned = 0
	}
	f.flush(g, time.Time{})
	f.clean(p)
	f.end(p)
	return true
}

// finish gives back the file of a generation that is read to its end.
func (f *Follower) finish(g *generation) {
	f.mu.Lock()
	g.done, g.parked, g.document = true, false, nil
	f.changed()
	f.mu.Unlock()
	f.closeFile(g)
}
