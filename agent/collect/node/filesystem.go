package node

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/procfs"

	"nines/pkg/metric"
)

// Mount points and types that hold no data of the node's own: kernel views,
// and container layers, which are counted at the disk below them. The same
// defaults as node_exporter's.
var (
	notMountPoints = regexp.MustCompile(`^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`)
	notFSTypes     = regexp.MustCompile(`^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|erofs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$`)
)

// statTimeout bounds how long one file system may keep a tick waiting. A dead
// NFS server can hold the call for ever.
const statTimeout = 5 * time.Second

// usage is what a file system answers.
type usage struct {
	size, free, avail float64 // bytes
	files, filesFree  float64 // inodes
}

type mount struct {
	device, point, fsType string
	readOnly              bool
}

// filesystems asks each mounted file system for its usage. The call may hang
// without end where a server is gone, and cannot be cancelled: such a mount is
// left out, marked with a device error, until its call comes back. There is at
// most one call under way for each mount point.
type filesystems struct {
	node
	mu    sync.Mutex
	stuck map[string]bool // mount points whose call is under way; guarded by mu
}

func newFilesystems(n node) *filesystems { return &filesystems{node: n, stuck: map[string]bool{}} }

func (f *filesystems) read(time.Time) ([]metric.Family, error) {
	// In a container the mounts of the first process are the node's.
	infos, err := f.proc.GetProcMounts(1)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		infos, err = f.proc.GetMounts()
	}
	if err != nil {
		return nil, err
	}
	var rows []row[fsRow]
	for _, m := range mounts(infos) {
		u, problem := f.usage(m.point)
		ls := metric.Labels("device", m.device, "fstype", m.fsType, "mountpoint", m.point)
		if problem != "" {
			ls = metric.Merge(ls, metric.Labels("device_error", problem))
		}
		rows = append(rows, row[fsRow]{ls, fsRow{m, u, problem != ""}})
	}
	return table(fsColumns, rows, 0), nil
}

// usage returns the answer of a mount point, or the problem in a few words.
func (f *filesystems) usage(point string) (usage, string) {
	type answer struct {
		u   usage
		err error
	}
	f.mu.Lock()
	stuck := f.stuck[point]
	f.stuck[point] = true
	f.mu.Unlock()
	if stuck {
		return usage{}, "mountpoint timeout"
	}
	done := make(chan answer, 1) // one answer, so that a late one finds room
	go func() {
		u, err := f.sys.statfs(filepath.Join(f.cfg.Root, point))
		f.mu.Lock()
		delete(f.stuck, point)
		f.mu.Unlock()
		done <- answer{u, err}
	}()
	timeout := time.NewTimer(statTimeout)
	defer timeout.Stop()
	select {
	case a := <-done:
		if a.err != nil {
			return usage{}, a.err.Error()
		}
		return a.u, ""
	case <-timeout.C:
		return usage{}, "mountpoint timeout"
	}
}

// mounts keeps those with data of their own, each once.
func mounts(infos []*procfs.MountInfo) []mount {
	seen := map[[3]string]bool{}
	var ms []mount
	for _, i := range infos {
		m := mount{device: unescape(i.Source), point: unescape(i.MountPoint), fsType: i.FSType}
		key := [3]string{m.device, m.point, m.fsType}
		if seen[key] || notMountPoints.MatchString(m.point) || notFSTypes.MatchString(m.fsType) {
			continue
		}
		seen[key] = true
		_, mountRO := i.Options["ro"]
		_, superRO := i.SuperOptions["ro"]
		m.readOnly = mountRO || superRO
		ms = append(ms, m)
	}
	return ms
}

// unescape turns the kernel's \040 and its like back into characters.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

type fsRow struct {
	mount
	usage
	failed bool
}

func answered(r fsRow) bool { return !r.failed }

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var fsColumns = []column[fsRow]{
	{"node_filesystem_avail_bytes", "Bytes that users other than root can still write.", metric.Gauge, func(r fsRow) float64 { return r.avail }, answered},
	{"node_filesystem_device_error", "1 where the file system did not answer, with the reason in a label.", metric.Gauge, func(r fsRow) float64 { return bit(r.failed) }, nil},
	{"node_filesystem_files", "Inodes that the file system has.", metric.Gauge, func(r fsRow) float64 { return r.files }, answered},
	{"node_filesystem_files_free", "Inodes that are free.", metric.Gauge, func(r fsRow) float64 { return r.filesFree }, answered},
	{"node_filesystem_free_bytes", "Bytes that are free, those set aside for root included.", metric.Gauge, func(r fsRow) float64 { return r.free }, answered},
	{"node_filesystem_readonly", "1 where the file system is mounted for reading only.", metric.Gauge, func(r fsRow) float64 { return bit(r.readOnly) }, nil},
	{"node_filesystem_size_bytes", "Bytes that the file system has.", metric.Gauge, func(r fsRow) float64 { return r.size }, answered},
}
