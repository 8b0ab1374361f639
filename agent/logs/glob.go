package logs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxDepth bounds how deep ** goes.
const maxDepth = 32

// expand returns the paths that a pattern matches, in order, and the folders
// that were looked into on the way, existing or not: a change in one of them may
// change what is matched. What cannot be read matches nothing. A ** stands for
// any depth of folders and follows no links to folders.
func expand(pattern string) (paths, folders []string) {
	pattern = filepath.Clean(pattern)
	base := "."
	if filepath.IsAbs(pattern) {
		base, pattern = "/", pattern[1:]
	}
	e := expansion{looked: map[string]bool{}}
	e.walk(base, strings.Split(pattern, "/"), maxDepth)
	slices.Sort(e.paths)
	return slices.Compact(e.paths), e.folders
}

type expansion struct {
	paths, folders []string
	looked         map[string]bool
}

func (e *expansion) look(dir string) []os.DirEntry {
	e.note(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	return entries
}

func (e *expansion) walk(dir string, parts []string, depth int) {
	part, rest := parts[0], parts[1:]
	switch {
	case part == "**":
		if len(rest) > 0 {
			e.walk(dir, rest, depth)
		}
		if depth == 0 {
			return
		}
		for _, entry := range e.look(dir) {
			path := filepath.Join(dir, entry.Name())
			if entry.IsDir() {
				e.walk(path, parts, depth-1)
			} else if len(rest) == 0 {
				e.paths = append(e.paths, path)
			}
		}
	case !strings.ContainsAny(part, `*?[\`):
		path := filepath.Join(dir, part)
		if len(rest) > 0 {
			e.walk(path, rest, depth)
			return
		}
		e.note(dir)
		if _, err := os.Lstat(path); err == nil {
			e.paths = append(e.paths, path)
		}
	default:
		for _, entry := range e.look(dir) {
			if ok, err := filepath.Match(part, entry.Name()); err != nil || !ok {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			if len(rest) == 0 {
				e.paths = append(e.paths, path)
			} else if entry.IsDir() || entry.Type()&os.ModeSymlink != 0 {
				e.walk(path, rest, depth)
			}
		}
	}
}

// note remembers a folder on which the outcome depends.
func (e *expansion) note(dir string) {
	if !e.looked[dir] {
		e.looked[dir] = true
		e.folders = append(e.folders, dir)
	}
}

// matches says whether the pattern matches the whole path; ** is any depth.
func matches(pattern, path string) bool {
	return matchParts(strings.Split(filepath.Clean(pattern), "/"), strings.Split(filepath.Clean(path), "/"))
}

func matchParts(pattern, path []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for n := range len(path) + 1 {
				if matchParts(pattern[1:], path[n:]) {
					return true
				}
			}
			return false
		}
		if len(path) == 0 {
			return false
		}
		if ok, err := filepath.Match(pattern[0], path[0]); err != nil || !ok {
			return false
		}
		pattern, path = pattern[1:], path[1:]
	}
	return len(path) == 0
}
