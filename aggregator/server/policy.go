package server

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
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
	// Errors and warnings of the files as they are now; the objectives may be
	// older.
	problems, remarks []string
}

// load reads the shipped policy and the folders. It returns whether the files
// differ from those read before. A set with errors keeps the last good one:
// all that can fail is checked before anything is swapped.
func (p *policy) load() (changed bool, err error) {
	files, err := openslo.ReadPaths(p.dirs...)
	if err != nil {
		p.problems, p.remarks = []string{err.Error()}, nil
		return false, err
	}
	print := fingerprint(files)
	if print == p.print {
		return false, nil
	}
	p.print = print
	shipped, err := rules.SLOs()
	if err != nil {
		return false, fmt.Errorf("read the shipped SLOs: %w", err)
	}
	var problems, remarks []string
	bad := false
	set := openslo.Load(files)
	for _, f := range set.Findings() {
		if !f.IsError() {
			remarks = append(remarks, f.String())
			continue
		}
		problems, bad = append(problems, f.String()), true
	}
	all := append(shipped, set.Objectives()...)
	p.problems, p.remarks = problems, remarks
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

// name is how people know an objective.
func (p *policy) name(id sla.ID) string {
	for _, o := range p.objectives {
		if o.ID == id {
			return fmt.Sprintf("%s of SLO %s (%s)", o.Name, o.SLO, id)
		}
	}
	return id.String()
}

// fingerprint hashes names and contents.
func fingerprint(files map[string][]byte) string {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%d %s %d ", len(path), path, len(files[path]))
		h.Write(files[path])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
