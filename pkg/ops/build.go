package ops

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is set by the linker (-X nines/pkg/ops.Version=…) in released
// builds; empty means that the module's own version is told.
var Version string

// Build says what was built, from which source, by which compiler.
type Build struct {
	Version   string `json:"version"`        // such as v1.2.3, or "devel"
	Revision  string `json:"revision"`       // commit, "-dirty" appended where the tree had changes; "unknown" without version control
	Time      string `json:"time,omitempty"` // of the commit, RFC 3339; empty if unknown
	GoVersion string `json:"go"`
	Platform  string `json:"platform"` // such as linux/amd64
}

// ReadBuild reads what the compiler left in the running program.
func ReadBuild() Build {
	b := Build{Version: Version, Revision: "unknown", GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if b.Revision != "unknown" {
		b.Revision = b.Revision[:min(12, len(b.Revision))] + dirty
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	return b
}

// String is the answer to the command "version".
func (b Build) String() string {
	return fmt.Sprintf("%s (revision %s, %s, %s)", b.Version, b.Revision, b.GoVersion, b.Platform)
}
