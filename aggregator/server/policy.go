package server

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"nines/pkg/openslo"
	"nines/pkg/sla"
	"nines/rules"
)

// policy is the set of objectives in force and what is wrong with the files
// that they come from.
type policy struct {
	dirs       []string
	print      string // fingerprint of the files that were read last
	objectives []sla.Objective
	problems   []string // of the files as they are now; the objectives may be older
}

// load reads the shipped policy and the folders. It returns whether the files
// differ from those read before. A set with errors keeps the last good one:
// all that can fail is checked before anything is swapped.
func (p *policy) load() (changed bool, err error) {
	print, err := fingerprint(p.dirs)
	if err != nil {
		p.problems = []string{err.Error()}
		return false, err
	}
	if print == p.print {
		return false, nil
	}
	p.print = print
	shipped, err := rules.SLOs()
	if err != nil {
		return false, fmt.Errorf("read the shipped SLOs: %w", err)
	}
	var problems []string
	all := shipped
	bad := false
	for _, dir := range p.dirs {
		set, err := openslo.LoadDir(dir)
		if err != nil {
			p.problems = []string{err.Error()}
			return false, err
		}
		for _, f := range set.Findings() {
			problems = append(problems, f.String())
			bad = bad || f.IsError()
		}
		all = append(all, set.Objectives()...)
	}
	p.problems = problems
	if bad && p.objectives != nil {
		return false, fmt.Errorf("SLO files have errors, the last good ones stay in force: %s", strings.Join(problems, "; "))
	}
	// At a start there is no last good state: what is right is evaluated, what
	// is wrong is told.
	p.objectives = all
	if bad {
		return true, fmt.Errorf("SLO files have errors, what is right in them is in force: %s", strings.Join(problems, "; "))
	}
	return true, nil
}

// fingerprint hashes names and contents of all documents below the folders.
func fingerprint(dirs []string) (string, error) {
	h := sha256.New()
	for _, dir := range dirs {
		var files []string
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if ext := filepath.Ext(path); !d.IsDir() && (ext == ".yaml" || ext == ".yml") {
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return "", fmt.Errorf("read the SLO folder %s: %w", dir, err)
		}
		sort.Strings(files)
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("read the SLO file: %w", err)
			}
			fmt.Fprintf(h, "%d %s %d ", len(path), path, len(data))
			h.Write(data)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
