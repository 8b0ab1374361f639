// Package rules is the policy that comes with the program, as data: the SLOs
// that are true of any installation, and the runbooks that their alerts name.
//
// It refuses logic: what a document means is pkg/openslo's. Documents are
// embedded, and leave as objectives and as text.
package rules

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"

	"nines/pkg/openslo"
	"nines/pkg/sla"
)

//go:embed slos/*.yaml
var slos embed.FS

//go:embed runbooks/*.md
var runbooks embed.FS

// SLOs returns the objectives that come with the program. An error is a bug of
// the program: every file is tested.
func SLOs() ([]sla.Objective, error) {
	sub, err := fs.Sub(slos, "slos")
	if err != nil {
		return nil, fmt.Errorf("read the shipped SLOs: %w", err)
	}
	set, err := openslo.LoadFS(sub)
	if err != nil {
		return nil, err
	}
	if f := set.Findings(); len(f) > 0 {
		return nil, fmt.Errorf("the shipped SLOs have findings: %s", f[0])
	}
	out := set.Objectives()
	for i := range out {
		out[i].Shipped = true
	}
	return out, nil
}

// Runbook returns a runbook page as Markdown by its name, without ".md".
func Runbook(name string) (string, error) {
	data, err := runbooks.ReadFile("runbooks/" + name + ".md")
	if err != nil {
		return "", fmt.Errorf("there is no runbook %q; there are %s", name, strings.Join(Runbooks(), ", "))
	}
	return string(data), nil
}

// Runbooks returns the names of all runbooks, sorted.
func Runbooks() []string {
	entries, err := fs.Glob(runbooks, "runbooks/*.md")
	if err != nil {
		panic(err) // the pattern is ours
	}
	for i, e := range entries {
		entries[i] = strings.TrimSuffix(path.Base(e), ".md")
	}
	sort.Strings(entries)
	return entries
}
