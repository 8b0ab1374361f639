package parts

import (
	"archive/zip"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// counting returns a part whose fetch is counted and writes the named file.
func counting(file string) (Part, *int) {
	var mu sync.Mutex
	n := 0
	return Part{Name: "thing", Version: "1", check: "bin", fetch: func(_ context.Context, _ Part, dir string) error {
		mu.Lock()
		defer mu.Unlock()
		n++
		return os.WriteFile(filepath.Join(dir, file), []byte("x"), 0o755)
	}}, &n
}

func TestConcurrentGettersFetchOnce(t *testing.T) {
	root := t.TempDir()
	p, n := counting("bin")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			dir, err := getInto(t.Context(), root, p, nil)
			if err != nil {
				t.Error(err)
			} else if _, err := os.Stat(filepath.Join(dir, "bin")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if *n != 1 {
		t.Errorf("fetched %d times", *n)
	}
}

func TestIncompleteFetchLeavesNothingBehind(t *testing.T) {
	root := t.TempDir()
	p, _ := counting("other")
	_, err := getInto(t.Context(), root, p, nil)
	if err == nil || !strings.Contains(err.Error(), "thing 1") {
		t.Fatalf("want an error that names the part, got %v", err)
	}
	if whole(filepath.Join(root, "thing-1"), p) {
		t.Error("it is in the cache")
	}
	left, err := filepath.Glob(filepath.Join(root, ".thing-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFailedCommandIsToldWithItsOutput(t *testing.T) {
	err := run(t.Context(), t.TempDir(), nil, "sh", "-c", "echo the disk is purple >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "the disk is purple") || !strings.Contains(err.Error(), "sh -c") {
		t.Errorf("got %v", err)
	}
}

func TestArchiveThatPointsOutsideIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.zip")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	if _, err := w.Create("top/../../evil"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unzip(path, filepath.Join(dir, "out")); err == nil || !strings.Contains(err.Error(), "outside") {
		t.Errorf("got %v", err)
	}
}

func TestReplacementsOfTheModuleAreTakenOverButFoldersAreNot(t *testing.T) {
	got, err := replaceLines([]byte(`{"Module": {"Path": "m"}, "Replace": [
	{"Old": {"Path": "a"}, "New": {"Path": "fork/a", "Version": "v1.2.3"}},
	{"Old": {"Path": "b", "Version": "v1.0.0"}, "New": {"Path": "b", "Version": "v0.9.0"}},
	{"Old": {"Path": "c"}, "New": {"Path": "./staging/c"}}]}`))
	if want := "replace a => fork/a v1.2.3\nreplace b v1.0.0 => b v0.9.0\n"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if got, err := replaceLines([]byte(`{"Module": {"Path": "m"}}`)); err != nil || got != "" {
		t.Errorf("%q, %v of a module that replaces nothing", got, err)
	}
	if _, err := replaceLines([]byte("go: no such file")); err == nil {
		t.Error("an answer that is no JSON is taken")
	}
}
