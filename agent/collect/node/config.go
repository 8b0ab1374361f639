package node

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"nines/pkg/strictyaml"
)

// Config says where the node is found and what of it is read. In a container
// the three folders are where the node's are mounted, such as /host/proc,
// /host/sys and /host/root.
type Config struct {
	Proc string `yaml:"proc"` // mount point of procfs
	Sys  string `yaml:"sys"`  // mount point of sysfs
	Root string `yaml:"root"` // where the node's root file system is seen, "/" outside containers
	Udev string `yaml:"udev"` // folder of udev's data of devices; empty is run/udev/data below Root
	// Boot is when the node booted. Zero: read from procfs by New. It is the
	// start timestamp of counters that begin at zero with the kernel. Keep it
	// the same while the kernel runs: what procfs says shifts with each
	// correction of the clock.
	Boot time.Time `yaml:"-"`

	// Collectors switches sources on and off by name; those that are not named
	// are on.
	Collectors map[string]bool `yaml:"collectors"`
	// Timeout bounds one Collect. A source that has not answered in a quarter of
	// it fails, and is left alone until it does answer.
	Timeout time.Duration `yaml:"timeout"`

	TextfileDirectory string `yaml:"textfile_directory"` // of *.prom files, may be a pattern; empty for none

	Filesystem FilesystemConfig `yaml:"filesystem"`
	Diskstats  DeviceConfig     `yaml:"diskstats"`
	Netdev     DeviceConfig     `yaml:"netdev"`
	Netclass   DeviceConfig     `yaml:"netclass"`
}

// FilesystemConfig says which file systems are left out.
type FilesystemConfig struct {
	MountPointsExclude string `yaml:"mount_points_exclude"` // regular expression; empty leaves none out
	TypesExclude       string `yaml:"fs_types_exclude"`     // regular expression; empty leaves none out
}

// DeviceConfig says which devices of a source are left out.
type DeviceConfig struct {
	DeviceExclude string `yaml:"device_exclude"` // regular expression; empty leaves none out
}

// DefaultConfig reads the host that the program runs on. The patterns are
// node_exporter's:
// kernel views and container layers, which are counted at the disk below them,
// and partitions, memory disks and loop devices, whose work is counted at the
// whole disk or is none.
func DefaultConfig() Config {
	return Config{
		Proc: "/proc", Sys: "/sys", Root: "/", Timeout: 4 * time.Second,
		Filesystem: FilesystemConfig{
			MountPointsExclude: `^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`,
			TypesExclude:       `^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|erofs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$`,
		},
		Diskstats: DeviceConfig{`^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`},
	}
}

// minTimeout leaves a source of a large machine the time that it takes.
const minTimeout = 400 * time.Millisecond

// Validate names the field that is wrong, and the remedy.
func (c Config) Validate() error {
	for _, f := range []struct{ name, path, remedy string }{
		{"proc", c.Proc, "mount procfs there, or name the folder where the host's is mounted"},
		{"sys", c.Sys, "mount sysfs there, or name the folder where the host's is mounted"},
		{"root", c.Root, "name the folder where the host's root file system is seen, / outside containers"},
	} {
		info, err := os.Stat(f.path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a folder", f.path)
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", f.name, err, f.remedy)
		}
	}
	if c.Timeout < minTimeout {
		return fmt.Errorf("timeout: %v is too short: give it %v or more", c.Timeout, minTimeout)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Collectors)) {
		if !slices.Contains(sourceNames, name) {
			known := "known are " + strings.Join(sourceNames, ", ")
			if near := strictyaml.Nearest(name, sourceNames); near != "" {
				known = fmt.Sprintf("did you mean %s? %s", near, known)
			}
			return fmt.Errorf("collectors.%s: there is no such collector: %s", name, known)
		}
	}
	if _, err := filepath.Match(c.TextfileDirectory, ""); err != nil {
		return fmt.Errorf("textfile_directory: %q is no pattern of folders: %w", c.TextfileDirectory, err)
	}
	_, err := compile(c)
	return err
}

// patterns are the configured ones, compiled once.
type patterns struct {
	mountPoints, fsTypes, disks, netdev, netclass *regexp.Regexp // nil leaves none out
}

func compile(c Config) (patterns, error) {
	var p patterns
	var errs []error
	for _, f := range []struct {
		name, text string
		to         **regexp.Regexp
	}{
		{"filesystem.mount_points_exclude", c.Filesystem.MountPointsExclude, &p.mountPoints},
		{"filesystem.fs_types_exclude", c.Filesystem.TypesExclude, &p.fsTypes},
		{"diskstats.device_exclude", c.Diskstats.DeviceExclude, &p.disks},
		{"netdev.device_exclude", c.Netdev.DeviceExclude, &p.netdev},
		{"netclass.device_exclude", c.Netclass.DeviceExclude, &p.netclass},
	} {
		if f.text == "" {
			continue
		}
		re, err := regexp.Compile(f.text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: it is a regular expression as Go has them", f.name, err))
			continue
		}
		*f.to = re
	}
	return p, errors.Join(errs...)
}

// exclude remembers what a pattern said of each name, so that a tick runs no
// regular expression.
type exclude struct {
	pattern *regexp.Regexp
	known   map[string]bool
}

func newExclude(p *regexp.Regexp) *exclude { return &exclude{p, map[string]bool{}} }

func (e *exclude) out(name []byte) bool {
	if e.pattern == nil {
		return false
	}
	if found, ok := e.known[string(name)]; ok {
		return found
	}
	if len(e.known) >= maxCached {
		clear(e.known)
	}
	is := e.pattern.Match(name)
	e.known[string(name)] = is
	return is
}

// udev is the folder of udev's data.
func (c Config) udev() string { return cmp.Or(c.Udev, filepath.Join(c.Root, "run/udev/data")) }
