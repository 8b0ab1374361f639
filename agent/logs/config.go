package logs

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Source is a kind of log.
type Source struct {
	Type    string   `yaml:"type"`    // "files"
	Paths   []string `yaml:"paths"`   // patterns such as /var/log/*.log
	Exclude []string `yaml:"exclude"` // patterns of paths to leave out
}

// Validate names the key that is wrong, and the remedy.
func (s Source) Validate() error {
	if s.Type != "files" {
		return fmt.Errorf("type is %q: files is the only one so far", s.Type)
	}
	if len(s.Paths) == 0 {
		return fmt.Errorf("paths is empty: name at least one file or pattern, or remove the source")
	}
	for key, patterns := range map[string][]string{"paths": s.Paths, "exclude": s.Exclude} {
		for i, p := range patterns {
			if _, err := filepath.Match(p, ""); err != nil || p == "" {
				return fmt.Errorf("%s[%d] %q is no pattern: use *, ? and [a-z] as in a shell", key, i, p)
			}
		}
	}
	return nil
}

// Containers says whether the source reads the logs of Kubernetes containers.
func (s Source) Containers() bool {
	for _, p := range s.Paths {
		if isContainerLog(p) {
			return true
		}
	}
	return false
}

// Files lists what the source matches now. An unreadable folder matches nothing.
func (s Source) Files() []string {
	var found []string
	for _, pattern := range s.Paths {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // Validate has refused such a pattern
		}
		for _, path := range matches {
			if !s.excludes(path) {
				found = append(found, path)
			}
		}
	}
	return found
}

func (s Source) excludes(path string) bool {
	for _, pattern := range s.Exclude {
		if ok, err := filepath.Match(pattern, path); err == nil && ok {
			return true
		}
	}
	return false
}

// Config of a Follower.
type Config struct {
	Sources []Source
	State   string // folder of the checkpoint; it exists and is ours alone
	Cluster string
	Node    string
	Version string // of the agent, for agent.version
	// Skip says which files must not be followed although a pattern matches
	// them: those that the destination writes. Nil: none.
	Skip func(path string) bool
	Pods *Pods // nil: no metadata beyond what a path says

	MaxRecord int           // bytes of a line before it is cut
	Poll      time.Duration // between looks at files without news
	Scan      time.Duration // between looks for files
	// Idle is how long a file that was rotated away has to be without news
	// before its last line counts as ended; Unlinked the same for one that was
	// deleted, before it is released.
	Idle, Unlinked time.Duration
	// Grace is how long records under way may take after the end was asked for.
	Grace time.Duration
}

// DefaultConfig polls four times a second: looking at a thousand files takes
// about a millisecond, and unlike inotify it misses nothing on any file system.
func DefaultConfig() Config {
	return Config{
		MaxRecord: 1 << 20,
		Poll:      250 * time.Millisecond, Scan: time.Second,
		Idle: 5 * time.Second, Unlinked: 30 * time.Second,
		Grace: 5 * time.Second,
	}
}

const (
	// maxFiles bounds the files that are followed at a time; those beyond it
	// wait and are told of by Problems.
	maxFiles = 2000
	// maxPaths bounds the paths that have series of their own.
	maxPaths = 200
)

// sibling says whether name is a rotated generation of the file base: the same
// name, then . - or _, then a number or date. Compressed ones are not read.
func sibling(base, name string) bool {
	rest, ok := strings.CutPrefix(name, base)
	if !ok || len(rest) < 2 || !strings.ContainsRune(".-_", rune(rest[0])) || rest[1] < '0' || rest[1] > '9' {
		return false
	}
	switch filepath.Ext(name) {
	case ".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip":
		return false
	}
	return true
}
