package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// maxDepth is how deep below the root a cgroup may lie. Kubernetes in a
	// container in Kubernetes comes to 10.
	maxDepth = 16
	// maxFolders bounds the folders that one tick looks at, in each hierarchy.
	maxFolders = 50_000
	// maxEntries bounds what is listed of one folder: its files are under 100.
	maxEntries = 20_000
)

// controllers of version 1 that are read, in the order in which their folders
// are looked for.
var controllers = []string{"memory", "cpu", "cpuacct", "pids", "blkio"}

// kind is what a cgroup is. Where there are too many, the kinds that come first
// are kept.
type kind int

const (
	container kind = iota
	pod
	slice // the root, what lies directly below it, and Kubernetes' classes of service
	service
	other // not given
)

// group is one cgroup.
type group struct {
	path string // from the root of all cgroups, as cAdvisor's label id
	kind kind
	id   string            // of a container, in hexadecimal
	uid  string            // of the pod that it is, or lies in
	dirs map[string]string // controller to folder; of version 2 under ""
	pid  int               // one of its processes; 0 none
	reading

	namespace, pod, name, image string
}

// tree is what there is at one tick.
type tree struct {
	unified bool // version 2
	groups  []group
	left    int // cgroups that were left out
}

var (
	// ids of containers: docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope,
	// libpod-ID.scope, nerdctl-ID.scope and so on of the systemd driver; a bare ID
	// of the cgroupfs driver; and …:cri-containerd:ID where containerd puts its
	// own containers below slices of a kubelet that thinks it is systemd's.
	containerName = regexp.MustCompile(`^(?:(?:[a-z0-9]+-)*|.*:[a-z-]+:)([0-9a-f]{64})(?:\.scope)?$`)
	// the process that watches a container, in a cgroup of its own, and crun's
	// cgroup within a container's: neither is a container.
	watcherName = regexp.MustCompile(`(?:^|-)(?:conmon|payload)-[0-9a-f]{64}`)
	// pods: podUID of the cgroupfs driver, kubepods-…-podUID.slice of systemd's,
	// with _ for -. A static pod has a hash in place of the UID.
	podName = regexp.MustCompile(`(?:^|-)pod([0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?(?:$|:)`)
	// Kubernetes' classes of service, below the root of all pods.
	className = regexp.MustCompile(`^/kubepods(?:\.slice)?/(?:kubepods-)?(?:burstable|besteffort)(?:\.slice)?$`)
)

// classify says what the cgroup at a path is, and the ids that the path holds.
func classify(p string, services bool) (k kind, id, uid string) {
	for part := range strings.SplitSeq(p, "/") {
		if m := podName.FindStringSubmatch(part); m != nil {
			uid = strings.ReplaceAll(m[1], "_", "-")
		}
	}
	last := path.Base(p)
	switch {
	case watcherName.MatchString(last):
		return other, "", uid
	case containerName.MatchString(last):
		return container, containerName.FindStringSubmatch(last)[1], uid
	case podName.MatchString(last):
		return pod, "", uid
	case strings.Count(p, "/") == 1, className.MatchString(p):
		return slice, "", uid
	case services && strings.HasSuffix(last, ".service"):
		return service, "", uid
	}
	return other, "", uid
}

// find looks at all folders of cgroups.
func (c *Collector) find() (tree, error) {
	root := filepath.Join(c.cfg.Sys, c.cfg.Root)
	t := tree{}
	roots := map[string]string{} // controller to folder
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		t.unified = true
		roots[""] = root
	} else {
		if _, err := os.Stat(root); err != nil {
			return t, fmt.Errorf("%w: in a container, mount the node's /sys and name where as sys", err)
		}
		for _, name := range controllers {
			// Controllers that are mounted together have links, cpu -> cpu,cpuacct.
			if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.IsDir() {
				roots[name] = filepath.Join(root, name)
			}
		}
		if len(roots) == 0 {
			return t, fmt.Errorf("%s has %w", root, errNone)
		}
	}
	paths := map[string]map[string]string{} // path to controller to folder
	for name, dir := range roots {
		left := walk(dir, func(p string) {
			if paths[p] == nil {
				paths[p] = map[string]string{}
			}
			paths[p][name] = filepath.Join(dir, filepath.FromSlash(p))
		})
		t.left = max(t.left, left) // the hierarchies of version 1 hold the same
	}
	var all []group
	var others []group // within containers: their processes count
	for p, dirs := range paths {
		g := group{path: p, dirs: dirs}
		if g.kind, g.id, g.uid = classify(p, c.cfg.Services); g.kind == other {
			others = append(others, g)
		} else {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.path, b.path))
	})
	if len(all) > c.cfg.MaxCgroups {
		t.left += len(all) - c.cfg.MaxCgroups
		all = all[:c.cfg.MaxCgroups]
	}
	slices.SortFunc(others, func(a, b group) int { return strings.Compare(a.path, b.path) })
	t.groups = all
	c.processes(t.groups, others)
	return t, nil
}

// walk calls found with the path of each folder below a root, and of the root
// itself as "/", and returns how many it could not look at. Links are not
// followed. A folder that vanishes meanwhile is not there.
func walk(root string, found func(path string)) (left int) {
	todo := []string{"/"}
	for seen := 0; len(todo) > 0; seen++ {
		if seen == maxFolders {
			return left + len(todo)
		}
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		names, more, err := folders(filepath.Join(root, filepath.FromSlash(p)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		found(p)
		if more {
			left++
		}
		if strings.Count(p, "/") >= maxDepth {
			left += len(names)
			continue
		}
		for _, name := range names {
			todo = append(todo, path.Join(p, name))
		}
	}
	return left
}

// folders lists the folders in one. more says that it holds more than is read.
func folders(dir string) (names []string, more bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	entries, err := f.ReadDir(maxEntries)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	// In the order of the names, so that the same ones are left out at each tick.
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(b, a) })
	return names, len(entries) == maxEntries, err
}

// made is when the first folder of the cgroup was made, as far as the kernel
// tells: it may forget and then says when it was looked at.
func (g *group) made() time.Time {
	var first time.Time
	for _, dir := range g.dirs {
		if info, err := os.Stat(dir); err == nil && (first.IsZero() || info.ModTime().Before(first)) {
			first = info.ModTime()
		}
	}
	return first
}

// processes counts the processes of each container and service, with those of
// cgroups that it made within itself, and of all others their own alone. It
// also finds one process of each container.
func (c *Collector) processes(groups, others []group) {
	at := make(map[string]*group, len(groups))
	for i := range groups {
		at[groups[i].path] = &groups[i]
	}
	own := func(g *group) (n, pid int, ok bool) {
		// Version 1 has the list in each hierarchy, and a process is in one cgroup
		// of each; a container's are the same in all.
		for _, name := range append([]string{""}, controllers...) {
			if dir, has := g.dirs[name]; has {
				if text, ok := c.text(dir, "cgroup.procs", maxList); ok {
					n, pid = parseProcesses(text)
					return n, pid, true
				}
			}
		}
		return 0, 0, false
	}
	for i := range groups {
		if n, pid, ok := own(&groups[i]); ok {
			groups[i].set(processCount, float64(n))
			groups[i].pid = pid
		}
	}
	for i := range others {
		// The nearest one around it that is a container or service.
		for p := path.Dir(others[i].path); p != "/"; p = path.Dir(p) {
			g, ok := at[p]
			if !ok {
				continue
			}
			if g.kind == container || g.kind == service {
				if n, pid, ok := own(&others[i]); ok {
					g.set(processCount, g.values[processCount]+float64(n))
					if g.pid == 0 {
						g.pid = pid
					}
				}
			}
			break
		}
	}
}

// label asks who each container is. A pod, and the container in it that only
// holds its network, get their names from its other containers.
func (c *Collector) label(groups []group) {
	if c.names == nil {
		return
	}
	type owner struct{ namespace, pod string }
	pods := map[string]owner{} // by UID
	for i := range groups {
		g := &groups[i]
		if g.kind != container {
			continue
		}
		namespace, podOf, name, image, ok := c.names(g.id)
		if !ok {
			continue
		}
		g.namespace, g.pod, g.name, g.image = namespace, podOf, name, image
		if g.uid != "" {
			pods[g.uid] = owner{namespace, podOf}
		}
	}
	for i := range groups {
		if o, ok := pods[groups[i].uid]; ok && groups[i].pod == "" {
			groups[i].namespace, groups[i].pod = o.namespace, o.pod
		}
	}
}
