package harness

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// contents reads the files of a container in the order of their writing.
func contents(t *testing.T, c *Container) (names []string, text []byte) {
	t.Helper()
	paths, err := filepath.Glob(c.Path() + "*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	paths = append(paths[1:], paths[0])
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if data, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		names = append(names, filepath.Base(path))
		text = append(text, data...)
	}
	return names, text
}

// joined are the messages of lines of the runtime, the parts of long ones joined.
func joined(t *testing.T, text []byte) (out []string) {
	t.Helper()
	parts := map[string]string{}
	for line := range strings.Lines(string(text)) {
		words := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(words) != 4 || !strings.HasSuffix(line, "\n") {
			t.Fatalf("no line of a runtime: %q", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, words[0]); err != nil {
			t.Fatal(err)
		}
		parts[words[1]] += words[3]
		if words[2] == "F" {
			out = append(out, parts[words[1]])
			parts[words[1]] = ""
		}
	}
	return out
}

func TestContainerLogsAreRotatedAsTheKubeletDoes(t *testing.T) {
	k := NewKubelet(KubeletConfig{Root: t.TempDir(), Partials: true})
	c, err := k.Add("shop", "web-0", "0b9a", "app", 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.Write(2000); err != nil {
			t.Fatal(err)
		}
		if err := c.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Write(2000); err != nil {
		t.Fatal(err)
	}
	if err := k.Stop(); err != nil {
		t.Fatal(err)
	}
	names, text := contents(t, c)
	want := regexp.MustCompile(`^0\.log\.\d{8}-\d{6}\.gz 0\.log\.\d{8}-\d{6}\.gz 0\.log\.\d{8}-\d{6} 0\.log$`)
	if got := strings.Join(names, " "); !want.MatchString(got) {
		t.Errorf("files %s", got)
	}
	lines, bytes := k.Written()
	if lines < 8000 || bytes != int64(len(text)) {
		t.Errorf("%d lines, %d bytes written, %d are there", lines, bytes, len(text))
	}
	tally := NewTally(k)
	for _, message := range joined(t, text) {
		tally.Add("i", message)
	}
	if missing := tally.Missing(nil); missing != 0 || tally.Stored != lines || tally.Double != 0 || len(tally.Strange) != 0 {
		t.Errorf("%d missing, %d stored, %d double, %.3q strange", missing, tally.Stored, tally.Double, tally.Strange)
	}
	// The fifth file, and the sixth that has no place.
	for range 3 {
		if err := c.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if names, _ := contents(t, c); len(names) != 5 {
		t.Errorf("%d files are kept: %v", len(names), names)
	}
	if rotated, removed := k.Rotated(); rotated != 6 || removed != 2 {
		t.Errorf("%d rotated, %d removed", rotated, removed)
	}
}

func TestRunningContainersWriteWholeRecordsAndAreRotatedBySize(t *testing.T) {
	k := NewKubelet(KubeletConfig{Root: t.TempDir(), RotateBytes: 200_000, Keep: 100, Check: time.Millisecond, Partials: true})
	var containers []*Container
	for _, name := range []string{"a", "b"} {
		c, err := k.Add("shop", "web-0", "0b9a", name, 20_000)
		if err != nil {
			t.Fatal(err)
		}
		containers = append(containers, c)
	}
	k.Start()
	New(t).Eventually(time.Minute, "both rotate", func() error {
		if n, _ := k.Rotated(); n < 6 || containers[1].Lines() < 3000 {
			return io.ErrNoProgress
		}
		return nil
	})
	if err := k.Stop(); err != nil {
		t.Fatal(err)
	}
	tally := NewTally(k)
	for _, c := range containers {
		_, text := contents(t, c)
		for _, message := range joined(t, text) {
			tally.Add("i", message)
		}
	}
	if missing := tally.Missing(nil); missing != 0 || tally.Double != 0 || len(tally.Strange) != 0 {
		t.Errorf("%d missing, %d double, %.3q strange", missing, tally.Double, tally.Strange)
	}
}

func TestTallyTellsALossFromADuplicate(t *testing.T) {
	k := NewKubelet(KubeletConfig{Root: t.TempDir()})
	c, err := k.Add("shop", "web-0", "0b9a", "app", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(10); err != nil {
		t.Fatal(err)
	}
	tally := NewTally(k)
	for _, seq := range []int{0, 1, 2, 2, 4, 5, 6, 7, 8} {
		tally.Add("first", string(k.Message(0, seq)))
	}
	tally.Add("second", string(k.Message(0, 8)))
	tally.Add("second", string(k.Message(0, 10)))
	tally.Add("second", string(k.Message(0, 9))+"x")
	var missing []int
	tally.Missing(func(of *Container, seq int) {
		if of != c {
			t.Error("another container's")
		}
		missing = append(missing, seq)
	})
	if !slices.Equal(missing, []int{3, 9}) || tally.Stored != 8 || tally.Double != 2 || tally.Within != 1 || len(tally.Strange) != 2 || tally.Indices() != 2 {
		t.Errorf("missing %v, %+v", missing, tally)
	}
	if from, to := c.At(3); from.After(to) || time.Since(from) > time.Hour {
		t.Errorf("written from %v to %v", from, to)
	}
}
