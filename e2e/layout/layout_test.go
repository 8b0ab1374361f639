package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const top = "../.."

type pkg struct {
	ImportPath                         string
	Dir                                string
	Imports, TestImports, XTestImports []string
	GoFiles, CgoFiles                  []string
}

// packages lists the module's packages, with the files of every build tag.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-tags", "e2e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles,CgoFiles", "./...")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v%s", err, stderr(err))
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages: the test looks at the wrong place", len(all))
	}
	return all
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return ": " + string(exit.Stderr)
	}
	return ""
}

// tree lists the files that are in git or could be added, relative to the top.
func tree(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v%s", err, stderr(err))
	}
	var paths []string
	for path := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		// Removed, and not yet committed.
		if _, err := os.Lstat(filepath.Join(top, path)); err == nil {
			paths = append(paths, path)
		}
	}
	if len(paths) < 20 {
		t.Fatalf("git lists %d files: the test looks at the wrong place", len(paths))
	}
	return paths
}

func TestEverythingStandsInItsFolder(t *testing.T) {
	for _, complaint := range strayPaths(tree(t)) {
		t.Error(complaint)
	}
}

func TestStrayPathsAreNamed(t *testing.T) {
	got := strings.Join(strayPaths([]string{
		"go.mod", "agent/main.go", "agent/logs/follow.go", "pkg/sla/sum.go", "deploy/chart/values.yaml", "aggregator/testdata/script/a.txt",
		"notes.txt", "common/a.go", "pkg/utils/a.go",
	}), "\n")
	for _, want := range []string{"notes.txt: ", "common/: ", "pkg/utils/: "} {
		if !strings.Contains(got, want) {
			t.Errorf("no complaint about %s in:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != 3 {
		t.Errorf("%d complaints, want 3:\n%s", n, got)
	}
}

func TestPackagesImportOnlyWhatTheyConsume(t *testing.T) {
	for _, p := range packages(t) {
		from := relative(p.ImportPath)
		for _, list := range [][]string{p.Imports, p.TestImports, p.XTestImports} {
			for _, to := range list {
				if !below(to, module) {
					continue
				}
				if complaint := badImport(from, relative(to)); complaint != "" {
					t.Error(complaint)
				}
			}
		}
	}
}

func relative(path string) string { return strings.TrimPrefix(path, module+"/") }

func TestWrongImportsAreNamedWithTheirReason(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"aggregator/ledger", "aggregator/evaluate", "it takes minutes"},
		{"aggregator/store", "aggregator/ledger", "it takes samples"},
		{"dashboards", "aggregator/report", "pure"},
		{"pkg/sla", "pkg/ops", "arithmetic"},
		{"pkg/sla", "agent/collect/node", "arithmetic"},
		{"agent/logs", "agent/forward", "verdicts"},
		{"aggregator/alert/email", "aggregator/report", "states"},
		{"surprise", "pkg/sla", "has no rule"},
	} {
		if got := badImport(c.from, c.to); !strings.Contains(got, c.want) {
			t.Errorf("%s → %s: %q lacks %q", c.from, c.to, got, c.want)
		}
	}
	for _, c := range []struct{ from, to string }{
		{"aggregator/evaluate", "aggregator/ledger"}, {"agent/ship", "pkg/metric"}, {"aggregator/server", "rules"}, {"pkg/openslo", "pkg/sla"},
	} {
		if got := badImport(c.from, c.to); got != "" {
			t.Errorf("%s → %s is refused: %s", c.from, c.to, got)
		}
	}
}

func TestProgramsLinkNothingHeavy(t *testing.T) {
	for program := range heavy {
		cmd := exec.Command("go", "list", "-deps", "./"+program)
		cmd.Dir = top
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps ./%s: %v%s", program, err, stderr(err))
		}
		deps := strings.Fields(string(out))
		for i, dep := range deps {
			if dep == module+"/"+program {
				deps[i] = "itself"
			}
			// agent and aggregator lie below their own prefix.
			if below(dep, module+"/"+program) {
				deps[i] = "own"
			}
		}
		for _, complaint := range tooHeavy(program, deps) {
			t.Error(complaint)
		}
	}
}

func TestHeavyLinksAreNamed(t *testing.T) {
	got := tooHeavy("agent", []string{"fmt", "github.com/prometheus/prometheus/tsdb/wlog", "github.com/prometheus/prometheus/prompb"})
	if len(got) != 1 || !strings.Contains(got[0], "tsdb/wlog: the agent keeps a queue") {
		t.Errorf("got %q", got)
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for _, p := range packages(t) {
		var with []string
		files := append(p.GoFiles, p.CgoFiles...)
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc.Text() != "" {
				with = append(with, name)
			}
		}
		if len(files) > 0 && len(with) != 1 {
			t.Errorf("%s has %d package comments %v; want one: what it owns, what it refuses, how data enters and leaves", p.ImportPath, len(with), with)
		}
	}
}

// machinePath matches what only exists on somebody's machine. It is written so
// that it does not match itself.
var machinePath = regexp.MustCompile(`(^|[^\w./-])(/(root|work)/[\w.]|/(home|Users)/[a-z][\w-]*/|[A-Z]:\\Users\\)`)

func TestNoFileNamesAMachine(t *testing.T) {
	for _, path := range tree(t) {
		data, err := os.ReadFile(filepath.Join(top, path))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(data, 0) >= 0 {
			continue // not a text
		}
		for n, line := range strings.Split(string(data), "\n") {
			if m := machinePath.FindString(line); m != "" && !strings.Contains(path, "testdata/") {
				t.Errorf("%s:%d names a place of one machine: %q", path, n+1, m)
			}
		}
	}
}

func TestMachinePathsAreRecognised(t *testing.T) {
	const slash = "/"
	for _, text := range []string{`open "` + slash + `root/x"`, slash + `home/ann/src`, `in ` + slash + `work/main`, `C:` + `\Users\ann`} {
		if !machinePath.MatchString(text) {
			t.Errorf("%q is not recognised", text)
		}
	}
	for _, text := range []string{"/var/log/*.log", "https://example.org/work/x", "$HOME/work/x", "the root/x"} {
		if machinePath.MatchString(text) {
			t.Errorf("%q is taken for a machine's path", text)
		}
	}
}

// link matches a Markdown link or picture and captures where it points.
var link = regexp.MustCompile(`\]\(<?([^)\s>]+)>?\)`)

// brokenLinks returns the links of a text that point to no file of the tree.
// Addresses of the web are left alone.
func brokenLinks(dir, text string) []string {
	var broken []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		to, _, _ := strings.Cut(m[1], "#")
		if to == "" || strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(to))); err != nil {
			broken = append(broken, m[1])
		}
	}
	return broken
}

func TestLinksOfTheDocumentsResolve(t *testing.T) {
	n := 0
	for _, path := range tree(t) {
		if !strings.HasSuffix(path, ".md") || strings.Contains(path, "testdata/") {
			continue
		}
		n++
		data, err := os.ReadFile(filepath.Join(top, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range brokenLinks(filepath.Join(top, filepath.Dir(path)), string(data)) {
			t.Errorf("%s links to %s, which is not there", path, to)
		}
	}
	if n == 0 {
		t.Error("no document was found")
	}
}

func TestBrokenLinksAreFound(t *testing.T) {
	got := brokenLinks(top, "[a](go.mod) [b](https://example.org/x) [c](gone.md#part) ![d](e2e) [e](#here)")
	if len(got) != 1 || got[0] != "gone.md#part" {
		t.Errorf("got %q", got)
	}
}
