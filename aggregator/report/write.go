package report

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nines/pkg/ops"
)

// Formats are the names that Render and Write take.
var Formats = []string{"csv", "pdf", "html", "json"}

// Render returns the report in one format, with its media type.
func (r Report) Render(format string) (data []byte, mediaType string, err error) {
	switch format {
	case "csv":
		data, err = r.CSV()
		mediaType = "text/csv; charset=utf-8; header=present"
	case "pdf":
		data, err = r.PDF()
		mediaType = "application/pdf"
	case "html":
		data, err = r.HTML()
		mediaType = "text/html; charset=utf-8"
	case "json":
		data, err = r.JSON()
		mediaType = "application/json"
	default:
		return nil, "", fmt.Errorf("report format %q is not known: want %s", format, strings.Join(Formats, ", "))
	}
	return data, mediaType, err
}

// FileName returns the name of the report's file in a format: sla-2026-11.csv.
func (r Report) FileName(format string) string { return "sla-" + r.Month.String() + "." + format }

// Write renders the formats into files of a folder, which it makes if it is
// missing. Each file is replaced as a whole. Nothing is written unless all
// formats could be rendered.
func (r Report) Write(dir string, formats []string) error {
	if len(formats) == 0 {
		return fmt.Errorf("no report format is asked for: want one or more of %s", strings.Join(Formats, ", "))
	}
	files := map[string][]byte{}
	for _, f := range formats {
		data, _, err := r.Render(f)
		if err != nil {
			return err
		}
		files[f] = data
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ops.Remedy(fmt.Errorf("create the folder of the reports: %w", err))
	}
	for _, f := range slices.Compact(slices.Sorted(slices.Values(formats))) {
		path := filepath.Join(dir, r.FileName(f))
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return fmt.Errorf("write report: %s is a folder: move it away or choose another output folder", path)
		}
		if err := ops.WriteFile(path, files[f], 0o644); err != nil {
			return ops.Remedy(fmt.Errorf("write report: %w", err))
		}
	}
	return nil
}
