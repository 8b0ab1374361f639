package logs

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Source is a kind of log.
type Source struct {
	Type string `yaml:"type"` // "kubernetes" or "files"

	// Of type files: patterns of paths to read and to leave out, such as
	// /var/log/*.log; ** stands for any depth of folders.
	Paths   []string `yaml:"paths"`
	Exclude []string `yaml:"exclude"`

	// Of type kubernetes: where the kubelet keeps the logs of containers (empty:
	// /var/log/pods), and patterns of the namespaces to read (empty: all) and to
	// leave out.
	Root              string   `yaml:"root"`
	Namespaces        []string `yaml:"namespaces"`
	ExcludeNamespaces []string `yaml:"exclude_namespaces"`

	// From says where a file begins that has no checkpoint yet: "beginning" (the
	// default), "end" (where it ended when the agent started, if it was there by
	// then), or "checkpoint" (as end at the agent's very first start, as beginning
	// ever after, so that files which came during a downtime are read whole).
	From string `yaml:"from"`
	// Weight is the share of reading that each file of the source has beside
	// those of others, from 1 (the default) to 100.
	Weight int `yaml:"weight"`
	// To names the destinations that its records go to; empty: all.
	To []string `yaml:"to"`
}

// Kinds of sources, and where a file begins.
const (
	Kubernetes = "kubernetes"
	Files      = "files"

	FromBeginning  = "beginning"
	FromEnd        = "end"
	FromCheckpoint = "checkpoint"
)

// defaultRoot is where the kubelet keeps the logs of containers
// (kubernetes/pkg/kubelet/kuberuntime, podLogsRootDirectory).
const defaultRoot = "/var/log/pods"

// Validate names the key that is wrong, and the remedy.
func (s Source) Validate() error {
	of := func(kind, key string, set bool) error {
		if !set || s.Type == kind {
			return nil
		}
		return fmt.Errorf("%s is a key of sources of type %s, this one is of type %s: remove it", key, kind, s.Type)
	}
	switch {
	case s.Type != Files && s.Type != Kubernetes:
		return fmt.Errorf("type is %q: choose %s or %s", s.Type, Kubernetes, Files)
	case s.Type == Files && len(s.Paths) == 0:
		return errors.New("paths is empty: name at least one file or pattern, or remove the source")
	case s.From != "" && s.From != FromBeginning && s.From != FromEnd && s.From != FromCheckpoint:
		return fmt.Errorf("from is %q: choose %s, %s or %s", s.From, FromBeginning, FromEnd, FromCheckpoint)
	case s.Weight < 0 || s.Weight > 100:
		return fmt.Errorf("weight is %d: choose from 1 to 100", s.Weight)
	case s.Root != "" && !filepath.IsAbs(s.Root):
		return fmt.Errorf("root %q is no whole path: begin it with /", s.Root)
	}
	if err := errors.Join(of(Files, "paths", len(s.Paths) > 0), of(Files, "exclude", len(s.Exclude) > 0), of(Kubernetes, "root", s.Root != ""),
		of(Kubernetes, "namespaces", len(s.Namespaces) > 0), of(Kubernetes, "exclude_namespaces", len(s.ExcludeNamespaces) > 0)); err != nil {
		return err
	}
	for _, list := range []struct {
		key      string
		patterns []string
	}{{"paths", s.Paths}, {"exclude", s.Exclude}, {"namespaces", s.Namespaces}, {"exclude_namespaces", s.ExcludeNamespaces}} {
		for i, p := range list.patterns {
			for part := range strings.SplitSeq(p, "/") {
				if strings.Contains(part, "**") && part != "**" {
					return fmt.Errorf("%s[%d] %q has ** beside other letters: let it stand alone between two /", list.key, i, p)
				}
			}
			if _, err := filepath.Match(p, ""); err != nil || p == "" {
				return fmt.Errorf("%s[%d] %q is no pattern: use *, ? and [a-z] as in a shell", list.key, i, p)
			}
		}
	}
	for i, p := range s.Paths {
		for _, dir := range []string{defaultRoot, "/var/log/containers"} {
			if strings.HasPrefix(filepath.Clean(p), dir+"/") {
				return fmt.Errorf("paths[%d] %q names logs of containers: use a source of type %s, which knows their form and their pods", i, p, Kubernetes)
			}
		}
	}
	return nil
}

// Containers says whether the source reads the logs of Kubernetes containers.
func (s Source) Containers() bool { return s.Type == Kubernetes }

func (s Source) root() string {
	if s.Root == "" {
		return defaultRoot
	}
	return filepath.Clean(s.Root)
}

// Patterns are those of the paths that the source reads.
func (s Source) Patterns() []string {
	if s.Containers() {
		return []string{s.root() + "/*/*/*.log"}
	}
	return s.Paths
}

// Files lists what the source matches now, and the folders that were looked
// into. An unreadable folder matches nothing.
func (s Source) Files() (files, folders []string) {
	for _, pattern := range s.Patterns() {
		found, looked := expand(pattern)
		folders = append(folders, looked...)
		for _, path := range found {
			if s.takes(path) {
				files = append(files, path)
			}
		}
	}
	return files, folders
}

// takes says whether a path that the patterns match is to be read.
func (s Source) takes(file string) bool {
	if !s.Containers() {
		return !matchesAny(s.Exclude, func(p string) bool { return matches(p, file) })
	}
	rest, ok := strings.CutPrefix(file, s.root()+"/")
	if !ok {
		return false
	}
	namespace, _, _ := strings.Cut(rest, "_")
	is := func(p string) bool {
		ok, err := path.Match(p, namespace)
		return err == nil && ok
	}
	return (len(s.Namespaces) == 0 || matchesAny(s.Namespaces, is)) && !matchesAny(s.ExcludeNamespaces, is)
}

func matchesAny(patterns []string, is func(string) bool) bool {
	for _, p := range patterns {
		if is(p) {
			return true
		}
	}
	return false
}

// Config of a Follower.
type Config struct {
	Destination string // its name, the label of all series
	Sources     []Source
	State       string // folder of the checkpoint; it exists and is ours alone
	Cluster     string
	Namespace   string // the last part of data streams; empty: the cluster
	Node        string
	Version     string // of the agent, for agent.version
	// Skip says which files must not be followed although a pattern matches
	// them: those that the destination writes. Nil: none.
	Skip func(path string) bool
	Pods *Pods // nil: no metadata beyond what a path says
	// Names says which names the metadata of pods has; empty: ECS.
	Names Names

	// Watch has the kernel tell of changes (inotify); without it all files are
	// looked at each Scan.
	Watch     bool
	Shippers  int           // batches that are on their way at the same time
	MaxRecord int           // bytes of a record before it is cut
	OpenFiles int           // that are open at a time; files without news are closed and watched
	Poll      time.Duration // between looks at open files without news
	// Scan is the time between looks for files. Where the kernel tells of all
	// changes of folders (inotify), the look is only a safety net, each ScanWatched.
	Scan, ScanWatched time.Duration
	// Idle is how long a file that was rotated away has to be without news
	// before its last line counts as ended; Unlinked the same for one that was
	// deleted, before it is released.
	Idle, Unlinked time.Duration
	// Park is how long a file has to be without news before it is closed.
	Park time.Duration
	// PartialWait is how long the end of a record that a runtime split may take
	// before its parts go without it.
	PartialWait time.Duration
	// MetadataWait is how long the first record of a pod waits for its labels.
	MetadataWait time.Duration
	// Files that were deleted and not yet read are held for HeldFor at most, and
	// as long as they are HeldBytes together at most: what is deleted and open
	// still fills the disk.
	HeldFor   time.Duration
	HeldBytes int64
	// Spool bounds the copies of rotated files that wait for the destination, in
	// bytes; 0: none are made. SpoolAfter is how long after its rotation a file
	// that is not read yet is copied.
	Spool      int64
	SpoolAfter time.Duration
	// Grace is how long records under way may take after the end was asked for.
	Grace time.Duration
}

// DefaultConfig looks at open files four times a second: an fstat takes about a
// microsecond, and unlike inotify it misses nothing on any file system.
func DefaultConfig() Config {
	return Config{
		Destination: "elasticsearch", Watch: true, Shippers: 4, MaxRecord: 1 << 20, OpenFiles: 512,
		Poll: 250 * time.Millisecond, Scan: time.Second, ScanWatched: 10 * time.Second,
		Idle: 5 * time.Second, Unlinked: 30 * time.Second, Park: 10 * time.Second,
		PartialWait: time.Minute, MetadataWait: 5 * time.Second,
		HeldFor: time.Hour, HeldBytes: 1 << 30,
		SpoolAfter: 10 * time.Second,
		Grace:      5 * time.Second,
	}
}

// maxFiles bounds the files that are followed at a time; those beyond it wait
// and are told of by Problems.
const maxFiles = 10_000
