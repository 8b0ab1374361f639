package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Reasons of losses and of what is left out.
const (
	lostRotated   = "rotated"   // rotated away, and removed before it was read
	lostTruncated = "truncated" // cut to a shorter length, or written over
	lostReleased  = "released"  // deleted, and held for too long
	lostDamaged   = "damaged"   // compressed, and not to be decompressed

	droppedHistory  = "history"  // older than what the source's from asks for
	droppedNoSource = "unwanted" // of a path that no source names any more
)

// resume finds the generations of the checkpoint again, wherever a rotation has
// moved them to. What cannot be found and was not read to its end is lost; what
// cannot be read now is looked for again later. Unseen says that nobody looked
// for a while.
func (f *Follower) resume(unseen bool) {
	folders := folders{}
	for _, g := range f.gens {
		if g.following() || g.done {
			continue
		}
		if g.source == nil {
			f.leave(g, droppedNoSource)
			continue
		}
		f.find(g, folders, unseen)
	}
}

// find looks for the content of a generation that is not at hand.
func (f *Follower) find(g *generation, folders folders, unseen bool) {
	if g.spooled {
		f.attach(g, g.name)
		if g.content == nil && !exists(g.name) {
			f.gone(g, lostRotated, unseen)
		}
		return
	}
	d, err := folders.of(g.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.problem(g.path, err)
		return
	}
	switch at, err := f.whereIs(g, d); {
	case err != nil:
		f.problem(g.path, err)
	case at == "":
		f.gone(g, lostRotated, unseen)
	default:
		f.attach(g, at)
	}
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// found is a file in a folder.
type found struct {
	path string
	info fs.FileInfo
}

// folders are those that were listed already.
type folders map[string]*folder

// folder is the regular files of a folder, by what links point at.
type folder struct {
	byPath map[string]found
	byBase map[string][]found // those that may be rotated generations of that name
}

// of returns the folder in which a path's generations lie.
func (known folders) of(path string) (*folder, error) {
	dir := filepath.Dir(target(path))
	if d, ok := known[dir]; ok {
		return d, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &folder{}, err
	}
	d := &folder{map[string]found{}, map[string][]found{}}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			d.add(found{path, info})
		}
	}
	known[dir] = d
	return d, nil
}

func (d *folder) add(x found) {
	d.byPath[x.path] = x
	for _, base := range basesOf(filepath.Base(x.path)) {
		d.byBase[base] = append(d.byBase[base], x)
	}
}

// target follows links: rotated generations lie beside what they point at.
func target(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// siblings are the rotated generations of a path among the files of its folder,
// the oldest first, as their names tell or else the time of their last change.
func (d *folder) siblings(path string) []found {
	base := filepath.Base(target(path))
	type named struct {
		found
		rotatedName
	}
	var all []named
	for _, x := range d.byBase[base] {
		if r, ok := parseRotated(base, filepath.Base(x.path)); ok {
			all = append(all, named{x, r})
		}
	}
	slices.SortStableFunc(all, func(a, b named) int {
		older, known := a.older(b.rotatedName)
		switch {
		case !known:
			return a.info.ModTime().Compare(b.info.ModTime())
		case older:
			return -1
		}
		return 1
	})
	out := make([]found, len(all))
	for i, n := range all {
		out[i] = n.found
	}
	return out
}

// whereIs returns the file that holds the content of g: the same file that
// still begins alike, else a copy of it. Empty: none. An error means that the
// file is there and cannot be read.
func (f *Follower) whereIs(g *generation, d *folder) (string, error) {
	at := target(g.path)
	for _, x := range append(d.siblings(g.path), d.byPath[at]) {
		if x.info == nil || keyOf(x.info) != g.key {
			continue
		}
		ok := g.headLen == 0 // nobody can tell it from another with its inode
		var err error
		if !ok {
			ok, err = g.isIn(x)
		}
		if err != nil || ok {
			if x.path == at {
				return g.path, err
			}
			return x.path, err
		}
	}
	return f.copyOf(g, d), nil
}

// copyOf returns the file that copytruncate or a compressor has made of g;
// empty: none.
func (f *Follower) copyOf(g *generation, d *folder) string {
	if g.headLen == 0 {
		return ""
	}
	for _, x := range slices.Backward(d.siblings(g.path)) {
		if other := f.knownAs(g.path, x); other != nil && other != g {
			continue
		}
		if ok, err := g.isIn(x); err == nil && ok {
			return x.path
		}
	}
	return ""
}

// isIn says whether the file begins as g does and is as long as what was read.
func (g *generation) isIn(x found) (bool, error) {
	if g.headLen == 0 { // nothing to compare: it is where it was, or it is not
		return !g.done && x.path == g.name, nil
	}
	c, _, size, err := openContent(x.path, 0)
	if err != nil {
		return false, err
	}
	same := false
	// What was read to its end is as long; it is compared as gzip counts.
	if size >= g.read && (!g.done || !isZipped(x.path) || uint32(size) == uint32(g.size)) {
		if same, err = g.begins(c); errors.Is(err, errDamaged) {
			same, err = false, nil
		}
	}
	return same, errors.Join(err, c.Close())
}

// knownAs returns the generation of a path that the file is of; nil: none. An
// inode that a deleted file had is soon given to a new one, unless we hold that
// file open, and a compressed file is a copy of a generation that may be known.
func (f *Follower) knownAs(path string, x found) *generation {
	key := keyOf(x.info)
	if k, ok := f.known[key]; ok {
		pinned := k.g.content != nil && k.g.key == key && !k.g.spooled
		if pinned || k.size == x.info.Size() && k.modTime.Equal(x.info.ModTime()) {
			return k.g
		}
		if same, err := k.g.isIn(x); err != nil || same {
			f.know(k.g, x.info)
			return k.g
		}
		f.mu.Lock()
		delete(f.known, key)
		f.mu.Unlock()
	}
	if !isZipped(x.path) {
		return nil
	}
	for _, g := range f.byPath[path] {
		if g.headLen == 0 {
			continue
		}
		if same, err := g.isIn(x); err != nil || !same {
			continue
		}
		f.know(g, x.info)
		if g.done && !g.spooled {
			f.mu.Lock()
			g.key, g.name, g.zipped = key, x.path, true
			f.mu.Unlock()
		}
		return g
	}
	return nil
}

// know remembers that a file is of a generation.
func (f *Follower) know(g *generation, info fs.FileInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[keyOf(info)] = place{g, info.Size(), info.ModTime()}
}

// place is a file that is known to be of a generation, as it was then.
type place struct {
	g       *generation
	size    int64
	modTime time.Time
}

// attach opens the file in which the rest of g stands.
func (f *Follower) attach(g *generation, name string) {
	base := g.base
	if name != g.name {
		base = 0
	}
	c, info, size, err := openContent(name, base)
	if err != nil {
		f.problem(name, err)
		return
	}
	g.zipped = isZipped(name)
	f.opened(g)
	f.mu.Lock()
	defer f.mu.Unlock()
	g.content, g.name, g.base = c, name, base
	if !g.spooled { // else its key stays that of the original
		if f.known[g.key].g == g {
			delete(f.known, g.key)
		}
		g.key = keyOf(info)
		f.known[g.key] = place{g, info.Size(), info.ModTime()}
	}
	g.rotated = g.spooled || name != g.path
	g.parked, g.woken, g.modified, g.torn, g.done = false, false, false, false, false
	g.scanned = 0
	g.news = time.Now()
	if g.rotated && g.away.IsZero() {
		g.away = g.news
	}
	if g.zipped {
		g.size = max(g.size, size)
	}
	f.changed()
}

// maxZipped bounds the compressed files that are read at a time: each takes some
// 100 KiB beside its descriptor.
const maxZipped = 16

// opened counts a file that is open now.
func (f *Follower) opened(g *generation) {
	f.open.Add(1)
	if g.unzips = g.zipped; g.unzips {
		f.zips++
	}
}

// closeFile gives back the descriptor of a generation.
func (f *Follower) closeFile(g *generation) {
	if g.content == nil {
		return
	}
	f.open.Add(-1)
	if g.unzips {
		f.zips--
	}
	if err := g.release(); err != nil {
		f.log.Warn("close log file", "path", g.name, "error", err)
	}
}

// park closes a file that is read to its end, until there is news of it.
func (f *Follower) park(g *generation) {
	f.closeFile(g)
	g.parked, g.document = true, nil
	f.watch.watchFile(g) // where it cannot be watched the look for files finds its news
	info, err := os.Stat(g.name)
	// It may have been written to before the watch began.
	g.woken = err != nil || keyOf(info) != g.key || info.Size() != g.size
}

// crowded says whether no more files may be open. What was rotated away may be
// removed at any time, so it has more room.
func (f *Follower) crowded(rotated bool) bool {
	limit := f.cfg.OpenFiles
	if rotated {
		limit += max(limit, 64)
	}
	return int(f.open.Load()) >= limit
}

// unpark opens a file of which there may be news. It says whether it did.
func (f *Follower) unpark(g *generation) bool {
	// What an older generation waits for, or may lose, comes first.
	if f.crowded(g.rotated || len(f.byPath[g.path]) > 1) || g.zipped && f.zips >= maxZipped {
		return false // others give way when they are read
	}
	g.woken = false
	c, info, _, err := openContent(g.name, g.base)
	if err == nil && keyOf(info) == g.key {
		f.opened(g)
		g.content, g.parked, g.modified = c, false, false
		return true
	}
	if err == nil {
		err = c.Close()
		f.nextScan = time.Time{} // another file took its place
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.problem(g.name, err)
		return false
	}
	f.find(g, folders{}, g.modified)
	return g.content != nil
}

// gone books what was left of a generation whose content is nowhere. It is a gap
// where bytes are known to be lost, and where nobody looked for a while.
func (f *Follower) gone(g *generation, reason string, unseen bool) {
	f.closeFile(g)
	if g.partials != [2]*partial{} {
		p := f.begin(g, time.Now())
		f.flush(g, time.Time{})
		f.clean(p)
		f.end(p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetKeys(g)
	g.rotated, g.done, g.parked, g.document = true, true, false, nil
	f.changed()
	g.closeSpan()
	f.advance(g)
	lost := g.size - g.read
	if lost == 0 && !unseen {
		return
	}
	// Behind what is still under way: it is booked in its order.
	g.spans = append(g.spans, &span{g: g, start: g.read, end: g.size, n: 1, tally: tally{Lost: lost, LostRecords: 1}})
	g.read = g.size
	f.records++
	f.advance(g)
	f.gap(g, lost, reason)
}

// gap tells of a time in which lines were lost, or may have been. Caller holds mu.
func (f *Follower) gap(g *generation, lost int64, reason string) {
	f.lost[reason] += lost
	f.gapCount++
	gap := Gap{Path: g.path, From: g.modTime, To: time.Now(), Lost: lost, Reason: reason}
	f.gaps = append(f.gaps, gap)
	f.gaps = f.gaps[max(0, len(f.gaps)-maxGaps):]
	f.log.Warn("a log file went away before it was known to be read to its end",
		"path", g.path, "lost_bytes", lost, "reason", reason, "last_seen_write", gap.From, "noticed", gap.To)
}

// forgetKeys forgets where a generation lay. Caller holds mu.
func (f *Follower) forgetKeys(g *generation) {
	if isZipped(g.name) {
		for key, k := range f.known {
			if k.g == g {
				delete(f.known, key)
			}
		}
	} else if f.known[g.key].g == g {
		delete(f.known, g.key)
	}
}

// leave books the rest of a generation as dropped.
func (f *Follower) leave(g *generation, reason string) {
	f.closeFile(g)
	f.mu.Lock()
	defer f.mu.Unlock()
	g.done, g.parked = true, false
	g.closeSpan()
	if rest := g.size - g.read; rest > 0 {
		g.spans = append(g.spans, &span{g: g, start: g.read, end: g.size, n: 1, tally: tally{Dropped: rest, DroppedRecords: 1}})
		g.read = g.size
		f.records++
		f.dropped[reason]++
		f.advance(g)
	}
	f.changed()
}

// cutOff is told that the content of an open file was replaced. The rest of
// the old one may stand in a copy.
func (f *Follower) cutOff(g *generation) {
	f.closeFile(g)
	g.scanned = 0
	d, err := folders{}.of(g.path)
	if err != nil {
		f.log.Warn("the folder of a log file cannot be read", "path", g.path, "why", reason(err))
	}
	if at := f.copyOf(g, d); at != "" {
		f.attach(g, at)
	} else {
		f.gone(g, lostTruncated, false)
	}
	f.nextScan = time.Time{} // the new content is a new generation
}

// unreadable is told that a file cannot be read now; it keeps its turn. One that
// cannot be decompressed never will, unless it is still being written.
func (f *Follower) unreadable(g *generation, err error, now time.Time) (more bool) {
	f.trouble(g, err)
	if !errors.Is(err, errDamaged) {
		return false
	}
	if info, err := g.content.Stat(); err == nil && now.Sub(info.ModTime()) > time.Minute {
		f.mu.Lock()
		g.size = g.read // how long it was nobody knows: a gap, and no guess of bytes
		f.mu.Unlock()
		f.gone(g, lostDamaged, true)
		f.know(g, info) // as long as it stays as it is
	}
	return false
}

// revisitEvery is the time between looks at what is read to its end.
const revisitEvery = 10 * time.Second

// match is a file that a source matches.
type match struct {
	info   fs.FileInfo
	source *source
}

// scan looks for new files, and for files that are no longer where they were.
func (f *Follower) scan() {
	f.scans++
	matched := map[string]match{}
	var paths, looked []string
	problems := map[string]string{}
	for _, s := range f.sources {
		files, folders := s.Files()
		looked = append(looked, folders...)
		for _, path := range files {
			if _, twice := matched[path]; twice || f.cfg.Skip != nil && f.cfg.Skip(path) {
				continue
			}
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // rotated away just now
			}
			if err != nil {
				problems[path] = reason(err)
				continue
			}
			if !info.Mode().IsRegular() {
				continue
			}
			if dir := filepath.Dir(target(path)); dir != filepath.Dir(path) {
				looked = append(looked, dir) // where a link points, rotated generations lie
			}
			matched[path] = match{info, s}
			paths = append(paths, path)
		}
	}
	f.watch.watchFolders(looked)
	f.watches.Store(int64(f.watch.count()))

	now := time.Now()
	folders := folders{}
	moved := map[string]bool{} // paths whose file was rotated away
	for _, g := range slices.Clone(f.gens) {
		m, there := matched[g.path]
		if g.rotated || g.done || problems[g.path] != "" {
			continue
		}
		here := there && keyOf(m.info) == g.key
		if here && g.parked && (m.info.Size() != g.size || !m.info.ModTime().Equal(g.modTime)) {
			g.woken = true
			// A file that is not open may have left its inode to the next one.
			if same, err := g.isIn(found{g.path, m.info}); err == nil && !same {
				here = false
			} else if m.info.Size() > g.size {
				// It is known to be there from now on, also if it goes away unread.
				f.mu.Lock()
				g.size = m.info.Size()
				f.changed()
				f.mu.Unlock()
			}
		}
		if here {
			// What could not be opened is tried again; what is open cannot go away.
			if g.woken = g.parked && (g.woken || g.read < g.size && !g.torn); g.woken && !f.crowded(false) {
				f.unpark(g)
			}
			continue
		}
		g.rotated = true
		moved[g.path] = true
		g.news, g.away = now, now
		if g.parked {
			g.parked = false
			f.find(g, folders, g.modified)
		}
	}
	// Generations that came and went since the last look are read first. One
	// may also have gone between its look and its opening, so the path of a new
	// generation is looked at once more. After a start nobody knows.
	for path := range f.again {
		moved[path] = true
	}
	f.again = map[string]bool{}
	if f.scans == 1 {
		f.visited = now
		for path := range f.byPath {
			moved[path] = true
		}
	}
	for _, path := range slices.Sorted(keys(moved)) {
		if s := f.sourceOf(path); s != nil {
			f.adoptRotated(path, s, folders, false)
		}
	}
	for _, path := range paths {
		m := matched[path]
		if g := f.knownAs(path, found{path, m.info}); g != nil {
			if !g.following() && g.done && m.info.Size() > g.size && !g.zipped {
				f.attach(g, path)
			}
			continue
		}
		if len(f.gens) >= maxFiles {
			problems[path] = "more files match than are followed at a time; narrow the patterns of logs.sources"
			continue
		}
		isNew := len(f.byPath[path]) == 0
		if isNew {
			f.adoptRotated(path, m.source, folders, true)
		}
		if err := f.adopt(path, path, m.source, false, isNew && f.begunBefore(m.source)); err != nil {
			problems[path] = reason(err)
		}
		f.again[path] = true
	}
	// While the destination takes nothing no file has its turn: what there is to
	// lose is known all the same.
	for _, g := range f.gens {
		if g.content != nil && !g.zipped {
			f.looked(g, now)
		}
	}
	f.makeRoom(now)
	f.holdDeleted(now)
	f.spoolRotated(now)
	// Some writers keep a file long after it was renamed.
	if now.Sub(f.visited) >= revisitEvery {
		f.visited = now
		f.resume(false)
		f.revisit(folders, matched, now)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.gens {
		if why, ok := f.problems[g.name]; ok && problems[g.name] == "" && !g.done {
			problems[g.name] = why // the reader takes it away
		}
	}
	for path, why := range problems {
		if f.problems[path] != why {
			f.log.Warn("a log file is not followed", "path", path, "why", why)
		}
	}
	f.problems = problems
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// reason is an error without what its reader knows, the path.
func reason(err error) string {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return "this user has no permission to read it; add the user to the file's group (often adm), or leave the path out"
	}
	return err.Error()
}

// begunBefore says whether what a new path holds at this look is history that
// its source does not ask for.
func (f *Follower) begunBefore(s *source) bool {
	return f.scans == 1 && (s.From == FromEnd || s.From == FromCheckpoint && f.fresh)
}

// adopt begins to follow a file as a new generation of path, or, where it is
// history, behind what it holds now.
func (f *Follower) adopt(path, name string, s *source, rotated, history bool) error {
	c, info, size, err := openContent(name, 0)
	if err != nil {
		return err
	}
	now := time.Now()
	g := &generation{
		id: newID(), path: path, name: name, source: s, key: keyOf(info), content: c, rotated: rotated, zipped: isZipped(name),
		origin: s.originOf(path), first: now, news: now, modTime: info.ModTime(),
	}
	if rotated {
		g.away = now
	}
	if g.head, g.headLen, err = headOf(c, maxHead); err != nil && !errors.Is(err, errDamaged) {
		return errors.Join(err, c.Close())
	}
	if history {
		if !rotated {
			if size, err = lineStart(c, size); err != nil {
				return errors.Join(err, c.Close())
			}
		}
		g.size, g.read, g.offset, g.done = size, size, size, rotated
		if size > 0 {
			g.tally = tally{Dropped: size, DroppedRecords: 1}
		}
	} else {
		g.size = size
	}
	crowded := f.crowded(rotated)
	f.opened(g)
	if g.done || crowded || g.zipped { // a reader of gzip is for the one whose turn it is
		f.closeFile(g)
		g.parked, g.woken = !g.done, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gens = append(f.gens, g)
	f.byPath[path] = append(f.byPath[path], g)
	f.known[g.key] = place{g, info.Size(), info.ModTime()}
	if g.tally.Dropped > 0 {
		f.records++
		f.dropped[droppedHistory]++
	}
	f.changed()
	return nil
}

// adoptRotated finds generations of a path that were never seen at it, because
// they came and went between two looks or while the agent was down. Of a path
// that is new they may be history: of containers all that the kubelet keeps is
// read, of other files what was written since the agent last ran.
func (f *Follower) adoptRotated(path string, s *source, folders folders, isNew bool) {
	d, err := folders.of(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("the folder of a log file cannot be read", "path", path, "why", reason(err))
	}
	for _, x := range d.siblings(path) {
		if f.cfg.Skip != nil && f.cfg.Skip(x.path) || d.unfinished(x) || f.knownAs(path, x) != nil {
			continue
		}
		if len(f.gens) >= maxFiles {
			f.problem(x.path, errors.New("more files match than are followed at a time; narrow the patterns of logs.sources"))
			return
		}
		history := isNew && (f.begunBefore(s) || !s.Containers() && (f.fresh && f.scans == 1 || x.info.ModTime().Before(f.alive)))
		if err := f.adopt(path, x.path, s, true, history); err != nil {
			f.log.Warn("a rotated log file cannot be read", "path", x.path, "why", reason(err))
		}
	}
}

// unfinished says whether a compressed file may still be written: what it is made
// of is there, or it is younger than any pause of a compressor.
func (d *folder) unfinished(x found) bool {
	plain, zipped := strings.CutSuffix(x.path, ".gz")
	if !zipped {
		return false
	}
	if _, there := d.byPath[plain]; there {
		return true
	}
	age := time.Since(x.info.ModTime())
	return age >= 0 && age < 3*time.Second
}

// makeRoom closes files without news, and more of them where others wait for a
// descriptor.
func (f *Follower) makeRoom(now time.Time) {
	crowded := f.crowded(false)
	for _, g := range f.gens {
		if g.content == nil || g.rotated || g.zipped || g.read+g.scanned < g.size && !g.torn || g.partials != [2]*partial{} {
			continue
		}
		if now.Sub(g.news) < f.cfg.Park && (!crowded || g.read == 0 && !g.torn) {
			continue
		}
		// With news that had no turn yet it stays: closed, it could be lost.
		if info, err := g.content.Stat(); err == nil && info.Size() == g.size {
			f.park(g)
		}
	}
}

// holdDeleted bounds what files take that only we hold.
func (f *Follower) holdDeleted(now time.Time) {
	var held int64
	for _, g := range slices.Backward(f.gens) {
		if g.content == nil || !g.rotated || g.spooled {
			continue
		}
		info, err := g.content.Stat()
		if err != nil || !unlinked(info) {
			continue
		}
		held += info.Size()
		if held > f.cfg.HeldBytes || now.Sub(g.away) > f.cfg.HeldFor {
			f.gone(g, lostReleased, false)
		}
	}
}

// revisit looks again at generations that are read to their end: those that
// grew are followed again, those whose file is gone are forgotten. The sums of
// forgotten ones stay while their path does.
func (f *Follower) revisit(folders folders, matched map[string]match, now time.Time) {
	there := map[*generation]bool{}
	for _, m := range matched { // a rotated name may be one that a pattern matches
		if k := f.known[keyOf(m.info)]; k.g != nil && k.size == m.info.Size() && k.modTime.Equal(m.info.ModTime()) {
			there[k.g] = true
		}
	}
	looked := map[string]bool{}
	for _, g := range f.gens {
		if quiet := !g.done && now.Sub(g.news) > 3*revisitEvery; quiet || looked[g.path] {
			continue // and so was not rotated
		}
		looked[g.path] = true
		d, err := folders.of(g.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			for _, other := range f.byPath[g.path] {
				there[other] = true // nobody knows
			}
			continue
		}
		if g.source != nil { // what no look has seen
			f.adoptRotated(g.path, g.source, folders, false)
		}
		for _, x := range append(d.siblings(g.path), d.byPath[target(g.path)]) {
			if x.info == nil {
				continue
			}
			if known := f.knownAs(g.path, x); known != nil {
				there[known] = true
				if known.done && !known.following() && !known.zipped && !known.spooled && x.info.Size() > known.size && keyOf(x.info) == known.key {
					f.attach(known, x.path)
				}
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	alive := map[string]bool{}
	f.gens = slices.DeleteFunc(f.gens, func(g *generation) bool {
		// The copy goes when the checkpoint says that nobody needs it.
		if g.done && len(g.spans) == 0 && g.ahead == g.offset+1 {
			f.unspool(g)
		}
		if !g.done || g.following() || len(g.spans) > 0 || there[g] || g.spooled || g.read < g.size {
			alive[g.path] = true
			return false
		}
		f.forgetKeys(g)
		sum := f.retired[g.path]
		sum.add(g.tally)
		f.retired[g.path] = sum
		f.byPath[g.path] = slices.DeleteFunc(f.byPath[g.path], func(other *generation) bool { return other == g })
		f.changed()
		return true
	})
	for path, sum := range f.retired {
		if !alive[path] {
			f.forgotten.add(sum)
			delete(f.retired, path)
			delete(f.byPath, path)
		}
	}
}

// trouble is an open file that cannot be read now; it keeps its turn.
func (f *Follower) trouble(g *generation, err error) { f.problem(g.name, err) }

func (f *Follower) problem(path string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if why := reason(err); f.problems[path] != why {
		f.problems[path] = why
		f.log.Warn("a log file is not followed", "path", path, "why", why)
	}
}

func (f *Follower) wellAgain(g *generation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.problems, g.name)
}

// lineStart returns where the last line begins that has no end yet; without one
// that is the size.
func lineStart(c content, size int64) (int64, error) {
	buf := make([]byte, 4<<10)
	for at := size; at > 0; {
		n := min(at, int64(len(buf)))
		k, err := c.ReadAt(buf[:n], at-n)
		if int64(k) < n {
			return 0, fmt.Errorf("find the last line: %w", err)
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] == '\n' {
				return at - n + i + 1, nil
			}
		}
		at -= n
	}
	return 0, nil
}
