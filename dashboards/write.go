package dashboards

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"maps"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

// Files renders the board of every role, by file name: "oncall.json".
func Files(objectives []sla.Objective) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, role := range Roles() {
		data, err := Build(objectives, role).JSON()
		if err != nil {
			return nil, err
		}
		files[role.name+".json"] = data
	}
	return files, nil
}

// Write writes one file a role into a folder, which it makes if it is missing.
// Each file is replaced as a whole; other files in the folder stay.
func Write(dir string, objectives []sla.Objective) error {
	files, err := Files(objectives)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ops.Remedy(fmt.Errorf("create the folder of the dashboards: %w", err))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := ops.WriteFile(filepath.Join(dir, name), files[name], 0o644); err != nil {
			return ops.Remedy(fmt.Errorf("write dashboard: %w", err))
		}
	}
	return nil
}
