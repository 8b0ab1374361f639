package logs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// resume finds the generations of the checkpoint again, wherever a rotation has
// moved them to. What cannot be found and was not read to its end is lost; what
// cannot be read now is looked for again later.
func (f *Follower) resume() {
	folders := folders{}
	for _, g := range f.gens {
		if g.file != nil || g.done {
			continue
		}
		files, err := folders.of(g.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.problem(g.path, err)
			continue
		}
		switch at, err := f.whereIs(g, files); {
		case err != nil:
			f.problem(g.path, err)
		case at == "":
			f.gone(g, true)
		default:
			f.attach(g, at)
		}
	}
}

// found is a file in a folder.
type found struct {
	path string
	info fs.FileInfo
}

// folders are those that were listed already.
type folders map[string][]found

// of returns the regular files of a path's folder, by what links point at; the
// oldest change first.
func (known folders) of(path string) ([]found, error) {
	dir := filepath.Dir(target(path))
	if files, ok := known[dir]; ok {
		return files, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []found
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			out = append(out, found{path, info})
		}
	}
	slices.SortStableFunc(out, func(a, b found) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	known[dir] = out
	return out, nil
}

// target follows links: rotated generations lie beside what they point at.
func target(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// siblings are the rotated generations of a path among the files of its folder.
func siblings(path string, files []found) []found {
	base := filepath.Base(target(path))
	return slices.DeleteFunc(slices.Clone(files), func(x found) bool { return !sibling(base, filepath.Base(x.path)) })
}

// whereIs returns the file that holds the content of g: the same file that
// still begins alike, else a copy of it. Empty: none. An error means that the
// file is there and cannot be read.
func (f *Follower) whereIs(g *generation, files []found) (string, error) {
	at := target(g.path)
	for _, x := range files {
		if keyOf(x.info) != g.key || x.path != at && !sibling(filepath.Base(at), filepath.Base(x.path)) {
			continue
		}
		if ok, err := g.isIn(x); err != nil || ok {
			if x.path == at {
				return g.path, err
			}
			return x.path, err
		}
	}
	return f.copyOf(g, files), nil
}

// copyOf returns the file that copytruncate has made of g; empty: none.
func (f *Follower) copyOf(g *generation, files []found) string {
	if g.headLen == 0 {
		return ""
	}
	for _, x := range slices.Backward(siblings(g.path, files)) {
		if f.knownAs(x) != nil {
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
	if x.info.Size() < g.read {
		return false, nil
	}
	file, _, err := open(x.path)
	if err != nil {
		return false, err
	}
	same, err := g.begins(file)
	return same, errors.Join(err, file.Close())
}

// knownAs returns the generation that the file is of; nil: none. An inode that
// a deleted file had is soon given to a new one.
func (f *Follower) knownAs(x found) *generation {
	g := f.known[keyOf(x.info)]
	if g == nil || g.file != nil || !g.done || x.info.Size() == g.size && x.info.ModTime().Equal(g.modTime) {
		return g
	}
	if ok, err := g.isIn(x); err != nil || ok {
		return g
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.known, g.key)
	return nil
}

// attach opens the file in which the rest of g stands.
func (f *Follower) attach(g *generation, name string) {
	file, info, err := open(name)
	if err != nil {
		f.problem(name, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[g.key] == g {
		delete(f.known, g.key)
	}
	g.file, g.name, g.key = file, name, keyOf(info)
	g.rotated = name != g.path
	g.done = false
	g.scanned = 0
	g.news = time.Now()
	f.known[g.key] = g
	f.changed()
}

// gone books what was left of a generation whose content is nowhere. It is a gap
// where bytes are known to be lost, and where nobody looked for a while.
func (f *Follower) gone(g *generation, unseen bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[g.key] == g {
		delete(f.known, g.key)
	}
	g.rotated, g.done = true, true
	lost := g.size - g.read
	if lost > 0 {
		f.m.lost.Inc()
		// Behind what is still under way: it is booked in its order.
		g.spans = append(g.spans, &span{g: g, start: g.read, end: g.size, settled: true, tally: tally{Lost: lost}})
		g.read = g.size
		if g.spans[0].settled {
			g.spans, g.offset = nil, g.size
			g.tally.Lost += lost
		}
	}
	f.changed()
	if lost == 0 && !unseen {
		return
	}
	f.m.gaps.Inc()
	f.log.Warn("a log file went away before it was known to be read to its end",
		"path", g.path, "lost_bytes", lost, "last_seen_write", g.modTime, "noticed", time.Now())
}

// cutOff is told that the content of an open file was replaced. The rest of
// the old one may stand in a copy.
func (f *Follower) cutOff(g *generation) {
	if err := g.release(); err != nil {
		f.log.Warn("close log file", "path", g.name, "error", err)
	}
	g.scanned = 0
	files, err := folders{}.of(g.path)
	if err != nil {
		f.log.Warn("the folder of a log file cannot be read", "path", g.path, "why", reason(err))
	}
	if at := f.copyOf(g, files); at != "" {
		f.attach(g, at)
	} else {
		f.gone(g, false)
	}
	f.nextScan = time.Time{} // the new content is a new generation
}

// scan looks for new files, and for files that are no longer where they were.
func (f *Follower) scan() {
	f.scans++
	matched := map[string]fs.FileInfo{}
	var paths []string
	problems := map[string]string{}
	for _, s := range f.cfg.Sources {
		for _, path := range s.Files() {
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
			matched[path] = info
			paths = append(paths, path)
		}
	}

	moved := map[string]bool{} // paths whose file was rotated away
	open := 0
	for _, g := range f.gens {
		if g.file != nil {
			open++
		}
		if info, ok := matched[g.path]; !g.rotated && (!ok || keyOf(info) != g.key) {
			g.rotated = true
			moved[g.path] = true
			g.news = time.Now()
		}
	}
	// Generations that came and went since the last look are read first.
	// After a start nobody knows.
	folders := folders{}
	if f.scans == 1 {
		for _, g := range f.gens {
			moved[g.path] = true
		}
	}
	for _, path := range slices.Sorted(keys(moved)) {
		f.adoptBetween(path, folders)
	}
	for _, path := range paths {
		info := matched[path]
		if g := f.knownAs(found{path, info}); g != nil {
			if g.file == nil && g.done && info.Size() > g.size {
				f.attach(g, path)
			}
			continue
		}
		if open >= maxFiles {
			problems[path] = "more files match than are followed at a time; narrow the patterns of logs.sources"
			continue
		}
		if err := f.adopt(path, path, false); err != nil {
			problems[path] = reason(err)
			continue
		}
		open++
	}
	// Some writers keep a file long after it was renamed.
	if f.scans%10 == 0 {
		f.resume()
		f.revisit(folders)
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

// adopt begins to follow a file as a new generation of path.
func (f *Follower) adopt(path, name string, rotated bool) error {
	file, info, err := open(name)
	if err != nil {
		return err
	}
	g := &generation{
		id: newID(), path: path, name: name, key: keyOf(info), file: file, rotated: rotated,
		origin: originOf(path), news: time.Now(), modTime: info.ModTime(),
	}
	if g.head, g.headLen, err = headOf(file, maxHead); err != nil {
		return errors.Join(err, file.Close())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Its size is 0 until the first turn sees news.
	f.gens = append(f.gens, g)
	f.known[g.key] = g
	f.changed()
	return nil
}

// adoptBetween finds generations of a path that were never seen at it: newer
// than the newest that was, and rotated away since.
func (f *Follower) adoptBetween(path string, folders folders) {
	var newest time.Time
	for _, g := range f.gens {
		if g.path == path && g.modTime.After(newest) {
			newest = g.modTime
		}
	}
	files, err := folders.of(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("the folder of a log file cannot be read", "path", path, "why", reason(err))
	}
	for _, x := range siblings(path, files) {
		if x.info.ModTime().Before(newest) || f.knownAs(x) != nil {
			continue
		}
		if err := f.adopt(path, x.path, true); err != nil {
			f.log.Warn("a rotated log file cannot be read", "path", x.path, "why", reason(err))
		}
	}
}

// revisit looks again at generations that are read to their end: those that
// grew are followed again, those whose file is gone are forgotten. The sums of
// forgotten ones stay while their path does.
func (f *Follower) revisit(folders folders) {
	there := map[fileKey]bool{}
	for _, g := range f.gens {
		if !g.done || g.file != nil {
			continue
		}
		files, err := folders.of(g.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			there[g.key] = true // nobody knows
		}
		for _, x := range files {
			if keyOf(x.info) != g.key {
				continue
			}
			if f.knownAs(x) == g {
				there[g.key] = true
				if x.info.Size() > g.size {
					f.attach(g, x.path)
				}
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	alive := map[string]bool{}
	f.gens = slices.DeleteFunc(f.gens, func(g *generation) bool {
		if !g.done || g.file != nil || len(g.spans) > 0 || there[g.key] && f.known[g.key] == g {
			alive[g.path] = true
			return false
		}
		if f.known[g.key] == g {
			delete(f.known, g.key)
		}
		sum := f.retired[g.path]
		sum.add(g.tally)
		f.retired[g.path] = sum
		f.changed()
		return true
	})
	for path := range f.retired {
		if !alive[path] {
			delete(f.retired, path)
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
