package node

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"golang.org/x/sys/unix"

	"nines/pkg/metric"
)

// maxTextfiles bounds the files that are read; each has at most maxFile bytes.
const maxTextfiles = 1024

var (
	textfileMtime = gauge("node_textfile_mtime_seconds", "When the file was last written, seconds since the epoch.")
	textfileError = gauge("node_textfile_scrape_error", "1 where a file or folder could not be read or understood, else 0.")
)

// prom is a file of the text format as it was last read.
type prom struct {
	mtime  time.Time
	size   int64
	inode  uint64
	fams   []metric.Family
	err    error
	listed bool // in the present tick
}

// textfile passes on what programs on the node write into *.prom files. A file
// is read again when it has changed. One that cannot be understood is left out
// whole, and so is a family that has a name of another source, or other words of
// help than in the file before; node_textfile_scrape_error then says so.
type textfile struct {
	*node
	files map[string]*prom // by path; bounded by maxTextfiles
}

func newTextfile(n *node) (func(*tick) error, error) {
	return (&textfile{node: n, files: map[string]*prom{}}).read, nil
}

func (x *textfile) read(t *tick) error {
	paths, failed := x.list(t)
	for _, f := range x.files {
		f.listed = false
	}
	merged := map[string]*merge{}
	var order []*merge
	var read []string
	for _, path := range paths {
		f, err := x.file(t, path)
		if f != nil {
			f.listed = true
		}
		if err != nil {
			failed = true
			continue
		}
		read = append(read, path)
		for i := range f.fams {
			fam := &f.fams[i]
			m := merged[fam.Name]
			if m == nil {
				if taken(t.fams, fam.Name) {
					failed = true
					continue
				}
				m = &merge{Family: *fam, seen: map[string]bool{}}
				m.Series = nil
				merged[fam.Name] = m
				order = append(order, m)
			}
			if fam.Type != m.Type || m.Help != "" && fam.Help != "" && fam.Help != m.Help {
				failed = true
				continue
			}
			if m.Help == "" {
				m.Help = fam.Help
			}
			m.paths = append(m.paths, path)
			for _, s := range fam.Series {
				if key := s.Suffix + "\xff" + keyOf(s.Labels); !m.seen[key] {
					m.seen[key] = true
					m.Series = append(m.Series, s)
				} else {
					failed = true
				}
			}
		}
	}
	for path, f := range x.files {
		if !f.listed {
			delete(x.files, path)
		}
	}
	for _, m := range order {
		help := m.Help
		if help == "" {
			help = "Metric read from " + strings.Join(m.paths, ", ")
		}
		t.family(&def{name: m.Name, help: help, unit: m.Unit, typ: m.Type})
		for _, s := range m.Series {
			t.addSuffix(s.Labels, s.Suffix, s.Value)
		}
	}
	t.family(textfileMtime)
	for _, path := range read {
		t.add([]metric.Label{{Name: "file", Value: valid(path)}}, float64(x.files[path].mtime.Unix()))
	}
	t.one(textfileError, bit(failed))
	return nil
}

// merge is a family that may stand in several files.
type merge struct {
	metric.Family
	paths []string
	seen  map[string]bool
}

// taken says whether another source has told the family at this tick.
func taken(fams []metric.Family, name string) bool {
	for i := range fams {
		if fams[i].Name == name {
			return true
		}
	}
	return name == textfileMtime.name || name == textfileError.name || strings.HasPrefix(name, "node_scrape_collector_")
}

// list returns the files in the configured folders.
func (x *textfile) list(t *tick) (paths []string, failed bool) {
	pattern := x.cfg.TextfileDirectory
	if pattern == "" {
		return nil, false
	}
	dirs, err := filepath.Glob(pattern)
	if err != nil || len(dirs) == 0 {
		dirs = []string{pattern}
	}
	for _, dir := range dirs {
		names, err := t.dir(dir)
		failed = failed || err != nil
		for _, name := range names {
			if !strings.HasSuffix(name, ".prom") {
				continue
			}
			if len(paths) >= maxTextfiles {
				return paths, true
			}
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths, failed
}

// file returns what is in a file, from memory where it has not changed.
func (x *textfile) file(t *tick, path string) (*prom, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	mtime := time.Unix(st.Mtim.Unix())
	if f := x.files[path]; f != nil && f.mtime.Equal(mtime) && f.size == st.Size && f.inode == st.Ino {
		return f, f.err
	}
	text, err := t.file(path)
	if err != nil {
		return nil, err
	}
	f := &prom{mtime: mtime, size: st.Size, inode: st.Ino}
	f.fams, f.err = parseProm(text)
	x.files[path] = f
	return f, f.err
}

// parseProm reads the text format without timestamps: what a program measured
// some time ago must not count as measured now.
func parseProm(text []byte) ([]metric.Family, error) {
	p := textparse.NewPromParser(text, promlabels.NewSymbolTable(), false)
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		if series, at, _ := p.Series(); at != nil {
			return nil, fmt.Errorf("%s has a timestamp", clip(series))
		}
	}
	return metric.ParseText(text)
}
