package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nines/pkg/metric"
)

// statTimeout bounds how long file systems may keep a tick waiting: those that
// have not answered when it is over are told as errors. A dead NFS server can
// hold the call for ever. It is a part of the quarter of the timeout that a
// source has.
func (f *filesystems) statTimeout() time.Duration { return f.cfg.Timeout / 6 }

// statHandover is after how long without an answer another goroutine goes on
// with the next mount point.
const statHandover = 50 * time.Millisecond

// maxStuck bounds the calls that hang at the same time, and with them the
// goroutines and threads. Mount points beyond it are told as errors without a
// call.
const maxStuck = 16

const (
	mountTimeout = "mountpoint timeout"
	tooManyHang  = "too many mountpoints hang"
)

// usage is what a file system answers.
type usage struct {
	size, free, avail float64 // bytes
	files, filesFree  float64 // inodes
}

// mount is one line of mountinfo.
type mount struct {
	device, point, fsType string
	major, minor          string
	readOnly              bool
	labels, info          []metric.Label
}

// answer is what became of the call for one mount.
type answer struct {
	u       usage
	problem string // in a few words, empty where it answered
	known   bool   // the call came back, or was not made
}

// filesystems asks each mounted file system for its usage. The call may hang
// without end where a server is gone, and cannot be cancelled: such a mount is
// marked with a device error until its call comes back. There is at most one
// call under way for each mount point, and maxStuck in all.
type filesystems struct {
	*node
	points, types *exclude
	text          []byte // the mountinfo of the last tick
	mounts        []mount

	mu    sync.Mutex
	stuck map[string]bool // mount points whose call is under way; guarded by mu
}

func newFilesystem(n *node) (func(*tick) error, error) {
	f := &filesystems{node: n, points: newExclude(n.patterns.mountPoints), types: newExclude(n.patterns.fsTypes), stuck: map[string]bool{}}
	return f.read, nil
}

func (f *filesystems) read(t *tick) error {
	// In a container the mounts of the first process are the node's.
	text, err := t.file(f.proc("1/mountinfo"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		text, err = t.file(f.proc("self/mountinfo"))
	}
	if err != nil {
		return err
	}
	if f.text == nil || !bytes.Equal(text, f.text) {
		if f.mounts, err = f.parse(text); err != nil {
			return err
		}
		f.text = append(f.text[:0], text...)
	}
	answers := f.ask(f.mounts)
	rows := make([]row[fsRow], len(f.mounts))
	for i := range f.mounts {
		m := &f.mounts[i]
		ls := m.labels
		if p := answers[i].problem; p != "" {
			ls = metric.Merge(ls, []metric.Label{{Name: "device_error", Value: valid(p)}})
		}
		rows[i] = row[fsRow]{ls, fsRow{m, answers[i].u, answers[i].problem != ""}}
	}
	table(&t.page, fsColumns, rows)
	t.family(fsMountInfo)
	for i := range f.mounts {
		if answers[i].problem == "" {
			t.add(f.mounts[i].info, 1)
		}
	}
	return nil
}

// ask calls for all mounts, one after the other in one goroutine as long as
// they answer.
func (f *filesystems) ask(mounts []mount) []answer {
	if len(mounts) == 0 {
		return nil
	}
	q := &questions{answers: make([]answer, len(mounts)), moved: make(chan struct{}, 1)}
	deadline := time.NewTimer(f.statTimeout())
	defer deadline.Stop()
	for {
		q.mu.Lock()
		from := q.next
		q.mu.Unlock()
		if from < len(mounts) {
			go f.work(q, mounts)
		}
		if f.await(q, len(mounts), deadline.C) {
			break
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	answers := make([]answer, len(mounts))
	for i, a := range q.answers {
		if !a.known {
			a = answer{problem: mountTimeout}
		}
		answers[i] = a
	}
	return answers
}

// questions are the calls of one tick.
type questions struct {
	mu       sync.Mutex
	next     int           // first mount that nobody has begun; guarded by mu
	answered int           // guarded by mu
	answers  []answer      // guarded by mu
	owner    int           // counts goroutines; only the newest takes more mounts; guarded by mu
	over     bool          // nobody waits any more; guarded by mu
	moved    chan struct{} // told by a goroutine when all is answered
}

// await returns true when all is answered or the time is over, and false when
// another goroutine shall go on.
func (f *filesystems) await(q *questions, n int, deadline <-chan time.Time) bool {
	handover := time.NewTicker(statHandover)
	defer handover.Stop()
	before := -1
	for {
		select {
		case <-q.moved:
			return true
		case <-deadline:
			return true
		case <-handover.C:
			q.mu.Lock()
			answered, next := q.answered, q.next
			q.mu.Unlock()
			if answered == n {
				return true
			}
			if answered == before && next < n {
				return false
			}
			before = answered
		}
	}
}

// work calls for one mount after the other, until another goroutine has taken
// over.
func (f *filesystems) work(q *questions, mounts []mount) {
	q.mu.Lock()
	q.owner++
	me := q.owner
	for !q.over && q.owner == me && q.next < len(mounts) {
		i := q.next
		q.next++
		q.mu.Unlock()
		a := f.call(mounts[i].point)
		q.mu.Lock()
		if q.over {
			break
		}
		q.answers[i] = a
		q.answered++
	}
	if q.answered == len(mounts) {
		select {
		case q.moved <- struct{}{}:
		default:
		}
	}
	q.mu.Unlock()
}

// call asks one mount point.
func (f *filesystems) call(point string) answer {
	f.mu.Lock()
	stuck, many := f.stuck[point], len(f.stuck) >= maxStuck
	if !stuck && !many {
		f.stuck[point] = true
	}
	f.mu.Unlock()
	switch {
	case stuck:
		return answer{problem: mountTimeout, known: true}
	case many:
		return answer{problem: tooManyHang, known: true}
	}
	u, err := f.sys.statfs(filepath.Join(f.cfg.Root, point))
	f.mu.Lock()
	delete(f.stuck, point)
	f.mu.Unlock()
	if err != nil {
		return answer{problem: err.Error(), known: true}
	}
	return answer{u: u, known: true}
}

// parse reads mountinfo, see proc_pid_mountinfo(5), and keeps the mounts with
// data of their own, each once.
func (f *filesystems) parse(text []byte) ([]mount, error) {
	type key struct{ device, point, fsType string }
	seen := map[key]bool{}
	var ms []mount
	for len(text) > 0 {
		l := line(&text)
		whole := l
		if len(trim(l)) == 0 {
			continue
		}
		field(&l) // of the mount
		field(&l) // of its parent
		major, minor, ok := strings.Cut(string(field(&l)), ":")
		_, ok1 := uintOf([]byte(major))
		_, ok2 := uintOf([]byte(minor))
		field(&l) // the root of the mount within the file system
		point := field(&l)
		options := field(&l)
		// Optional fields end with a lone dash.
		for f := field(&l); string(f) != "-"; f = field(&l) {
			if len(f) == 0 {
				return nil, malformed(whole, "a mount")
			}
		}
		fsType, source, super := field(&l), field(&l), field(&l)
		if !ok || !ok1 || !ok2 || len(point) == 0 || len(fsType) == 0 {
			return nil, malformed(whole, "a mount")
		}
		m := mount{
			device: unescape(string(source)), point: f.strip(unescape(string(point))), fsType: unescape(string(fsType)),
			major: major, minor: minor,
			readOnly: hasOption(options, "ro") || hasOption(super, "ro") || hasOption(super, "emergency_ro"),
		}
		k := key{m.device, m.point, m.fsType}
		if seen[k] || f.points.out([]byte(m.point)) || f.types.out([]byte(m.fsType)) {
			continue
		}
		if len(ms) >= maxEntries {
			return nil, fmt.Errorf("more than %d mounts", maxEntries)
		}
		seen[k] = true
		m.labels = labels("device", m.device, "fstype", m.fsType, "mountpoint", m.point)
		m.info = labels("device", m.device, "major", m.major, "minor", m.minor, "mountpoint", m.point)
		ms = append(ms, m)
	}
	return ms, nil
}

// strip takes off the path under which a container sees the node's root: the
// node's own name for the mount point is what is told.
func (f *filesystems) strip(point string) string {
	root := strings.TrimSuffix(f.cfg.Root, "/")
	if root == "" {
		return point
	}
	rest, ok := strings.CutPrefix(point, root)
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return point
	case rest == "":
		return "/"
	}
	return rest
}

// hasOption says whether a list of options separated by commas has one.
func hasOption(list []byte, option string) bool {
	for len(list) > 0 {
		var o []byte
		if o, list, _ = bytes.Cut(list, []byte(",")); string(o) == option {
			return true
		}
	}
	return false
}

// unescape turns the kernel's \040 and its like back into characters.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	octal := func(c byte) bool { return c >= '0' && c <= '7' }
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] <= '3' && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

type fsRow struct {
	*mount
	usage
	failed bool
}

func fsColumn(d *def, v func(*fsRow) float64) column[fsRow] {
	return column[fsRow]{d, func(r *fsRow) (float64, bool) { return v(r), !r.failed }}
}

var fsMountInfo = gauge("node_filesystem_mount_info", "Always 1; the labels say which device is mounted.")

var fsColumns = []column[fsRow]{
	fsColumn(gauge("node_filesystem_avail_bytes", "Bytes that users other than root can still write."), func(r *fsRow) float64 { return r.avail }),
	always(gauge("node_filesystem_device_error", "1 where the file system did not answer, with the reason in a label."), func(r *fsRow) float64 { return bit(r.failed) }),
	fsColumn(gauge("node_filesystem_files", "Inodes that the file system has."), func(r *fsRow) float64 { return r.files }),
	fsColumn(gauge("node_filesystem_files_free", "Inodes that are free."), func(r *fsRow) float64 { return r.filesFree }),
	fsColumn(gauge("node_filesystem_free_bytes", "Bytes that are free, those set aside for root included."), func(r *fsRow) float64 { return r.free }),
	always(gauge("node_filesystem_readonly", "1 where the file system is mounted for reading only."), func(r *fsRow) float64 { return bit(r.readOnly) }),
	fsColumn(gauge("node_filesystem_size_bytes", "Bytes that the file system has."), func(r *fsRow) float64 { return r.size }),
}
