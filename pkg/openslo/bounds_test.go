package openslo

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// aliases multiply: nine times nine times nine …, behind an indent.
func aliases(indent, item string) string {
	lines := []string{indent + fmt.Sprintf(item, "a", "&a [x,x,x,x,x,x,x,x,x]")}
	for c := 'b'; c < 'k'; c++ {
		list := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ",")
		lines = append(lines, indent+fmt.Sprintf(item, string(c), fmt.Sprintf("&%c [%s]", c, list)))
	}
	return strings.Join(lines, "\n") + "\n"
}

// What a document can do to the reader: each is told with its place, and what is
// allocated is bounded by its size.
func TestHostileDocumentsAreToldInBoundedMemory(t *testing.T) {
	const (
		service = "apiVersion: openslo/v1\nkind: Service\nmetadata: {name: x}\nspec:\n"
		source  = "apiVersion: openslo/v1\nkind: DataSource\nmetadata: {name: x}\nspec:\n  type: Prometheus\n  connectionDetails:\n"
		slo     = "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: x%d}\n---\n"
	)
	var many strings.Builder
	for i := range 15_000 {
		fmt.Fprintf(&many, slo, i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"10 MB":                   {checkout + "# " + strings.Repeat("x", 10<<20), "a.yaml:1:1: error [yaml]: has 10486605 bytes, and at most 4 MiB are read at once: split it"},
		"a long list":             {"[" + strings.Repeat("a,", 1<<20) + "]", "a.yaml:1:1: error [schema]: want a document"},
		"a key again and again":   {service + strings.Repeat("  a: 1\n", 1<<17), `a.yaml:6:3: error [schema]: key "a" is given twice (first in line 5)`},
		"many documents":          {strings.Repeat("a: 1\n---\n", 1<<16), "a.yaml:1:1: error [api-version]: apiVersion is \"\""},
		"many SLOs":               {many.String(), "a.yaml:1:1: error [service]: spec.service is missing"},
		"a bomb of aliases":       {source + aliases("    ", "%s: %s"), "a.yaml:1:1: error [schema]: aliases multiply"},
		"a bomb where texts are":  {strings.Replace(checkout, "spec:\n", "spec:\n  alertPolicies:\n"+aliases("  ", "-%.0s %s"), 1), "a.yaml:11:5: error [schema]: spec.alertPolicies[0]: want keys with values"},
		"aliases of one big text": {strings.Replace(checkout, "  objectives:", "  objectives:\n  - &o {displayName: '"+strings.Repeat("x", 10_000)+"', target: 0.9}\n"+strings.Repeat("  - *o\n", 50_000)+"  x:", 1), "aliases multiply to more than 100000 values"},
		"deep lists":              {service + "  a: " + strings.Repeat("[", 1<<20), "error [yaml]: values are nested deeper"},
		"deep keys":               {service + "  a: " + strings.Repeat("{a: ", 1<<18), "error [yaml]: values are nested deeper"},
		"deep lines":              {service + "  a: " + strings.Repeat("- ", 1<<18), "error [yaml]: "},
		"a key twice":             {strings.Replace(checkout, "spec:\n", "spec:\n  service: a\n", 1), `error [schema]: key "service" is given twice`},
		"a key twice, deep":       {source + "    a: {b: [{c: 1, c: 2}]}\n", `a.yaml:7:20: error [schema]: key "c" is given twice (first in line 7)`},
		"a tab":                   {"apiVersion: openslo/v1\nkind: SLO\nmetadata:\n\tname: x\n", "a.yaml:4:1: error [yaml]: not valid YAML: the line is indented with a tab; use spaces"},
		"a tab behind spaces":     {service + "  a:\n  \tb: 1\n", "a.yaml:6:3: error [yaml]: not valid YAML: the line is indented with a tab"},
		"a NUL":                   {checkout + "\x00", "error [yaml]: not valid YAML: control characters"},
		"no UTF-8":                {checkout + "\xff\xfe", "error [yaml]: not valid YAML: "},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		found := load(c.text).Findings()
		runtime.ReadMemStats(&after)
		if text := lines(found); !strings.Contains(text, c.want) {
			t.Errorf("%s: got\n%.400s\nwant %s", name, text, c.want)
		}
		// Ten bytes of text may be a finding with its place and its words.
		if took, most := after.TotalAlloc-before.TotalAlloc, uint64(16<<20+400*min(len(c.text), 4<<20)); took > most {
			t.Errorf("%s: %d bytes of text took %d, want at most %d", name, len(c.text), took, most)
		}
	}
}

func TestAFileThatIsTooLargeIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, make([]byte, 10<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := LoadPaths(path)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "large.yaml is larger than 4 MiB: split it") {
		t.Errorf("got %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were allocated for it", took)
	}
}

func TestImportedFilesHaveTheSameBounds(t *testing.T) {
	const head = "version: prometheus/v1\nservice: x\n"
	for name, c := range map[string]struct{ text, want string }{
		"10 MB":             {head + "# " + strings.Repeat("x", 10<<20), "is larger than 4 MiB: split it"},
		"a bomb of aliases": {"apiVersion: v1\nkind: List\nmetadata:\n" + aliases("  ", "%s: %s") + "items: []\n", "aliases multiply"},
		"deep lists":        {head + "slos: " + strings.Repeat("[", 1<<20), "values are nested deeper"},
	} {
		if _, _, err := Import("a.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "a.yaml") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}
