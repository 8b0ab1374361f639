package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nines/pkg/ops"
)

func (f *Follower) spoolFolder() string { return filepath.Join(f.cfg.State, "spool") }

// spoolRotated copies what was rotated away and is not delivered yet, the oldest
// first, as long as the copies stay within their bound: the next rotation may
// remove it. The copy takes the place of the file; its records stay the same.
func (f *Follower) spoolRotated(now time.Time) {
	if f.cfg.Spool == 0 {
		return
	}
	if f.scans == 1 {
		f.sweepSpool()
	}
	for _, g := range f.gens {
		if !g.rotated || g.content == nil || g.spooled || now.Sub(g.away) < f.cfg.SpoolAfter || now.Sub(g.news) < f.cfg.SpoolAfter {
			continue
		}
		if err := f.spool(g); err != nil {
			f.problem(g.name, fmt.Errorf("copy it into the spool: %w", err))
			return
		}
	}
}

// spool copies one generation from its offset on; a compressed one whole.
func (f *Follower) spool(g *generation) (err error) {
	f.mu.Lock()
	from, used := g.offset, f.spooled
	f.mu.Unlock()
	name := filepath.Join(f.spoolFolder(), g.id)
	var source io.Reader
	if z, ok := g.content.(*zipped); ok {
		info, err := z.Stat()
		if err != nil {
			return err
		}
		name, from = name+".gz", 0
		source = io.NewSectionReader(z.f, 0, info.Size())
	} else {
		source = io.NewSectionReader(g.content, from, g.size-from)
	}
	size := source.(*io.SectionReader).Size()
	if used+size > f.cfg.Spool {
		return fmt.Errorf("the spool is full with %d bytes: raise spool of the destination, or mend what keeps it from taking records", used)
	}
	if err := os.MkdirAll(f.spoolFolder(), 0o750); err != nil {
		return err
	}
	if err := writeCopy(name, source); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	read := g.read
	f.closeFile(g)
	f.mu.Lock()
	g.spooled, g.name, g.base = true, name, from
	f.spooled += size
	f.mu.Unlock()
	f.attach(g, name)
	if g.content == nil || g.read != read {
		return errors.New("the copy cannot be opened")
	}
	return f.save() // before a crash could make a copy that nobody knows of
}

func writeCopy(name string, from io.Reader) error {
	to, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return ops.SyncDir(filepath.Dir(name))
}

// unspool removes the copy of a generation that is delivered. Caller holds mu.
func (f *Follower) unspool(g *generation) {
	if !g.spooled {
		return
	}
	if info, err := os.Stat(g.name); err == nil {
		f.spooled -= info.Size()
	}
	if err := os.Remove(g.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("a copy in the spool cannot be removed", "path", g.name, "error", err)
	}
	g.spooled, g.base, g.name = false, 0, g.path
}

// sweepSpool removes copies that no generation needs, and adds up the others.
func (f *Follower) sweepSpool() {
	entries, err := os.ReadDir(f.spoolFolder())
	if err != nil {
		return // there is none yet
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spooled = 0
	for _, e := range entries {
		name := filepath.Join(f.spoolFolder(), e.Name())
		needed := slices.ContainsFunc(f.gens, func(g *generation) bool {
			return g.spooled && g.id == strings.TrimSuffix(e.Name(), ".gz")
		})
		if info, err := e.Info(); err == nil && needed {
			f.spooled += info.Size()
		} else if err := os.Remove(name); err != nil {
			f.log.Warn("a copy in the spool cannot be removed", "path", name, "error", err)
		}
	}
}
