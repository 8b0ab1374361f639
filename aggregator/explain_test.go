package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"nines/pkg/openslo"
)

// Every form of the specification is put into words, with its queries.
func TestEachFormOfTheSpecificationIsExplained(t *testing.T) {
	paths, err := filepath.Glob("testdata/openslo/*.yaml")
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d documents, %v", len(paths), err)
	}
	for _, path := range paths {
		set, err := openslo.LoadPaths(path)
		if err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		if code := run(t.Context(), env{&out, &errs}, []string{"explain", path, "--format", "json"}); code != 0 {
			t.Errorf("%s: exit code %d: %s", path, code, errs.String())
			continue
		}
		var said []openslo.Explanation
		if err := json.Unmarshal([]byte(out.String()), &said); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		shown := openslo.Shown(set.Objectives())
		if len(said) != len(shown) {
			t.Errorf("%s: %d objectives are explained, it has %d", path, len(said), len(shown))
			continue
		}
		for i, o := range shown {
			if said[i].ObjectiveID != o.ID || len(said[i].Tiers) == 0 {
				t.Errorf("%s: objective %s is explained as %s, with %d alerts", path, o.ID, said[i].ObjectiveID, len(said[i].Tiers))
			}
			queries := 0
			for _, l := range said[i].Words[0].Lines {
				if l.Query != "" {
					queries++
				}
			}
			if composite := o.SLI.Combine != ""; composite == (queries > 0) {
				t.Errorf("%s: what counts as good is said with %d queries: %+v", path, queries, said[i].Words[0])
			}
		}
	}
}
