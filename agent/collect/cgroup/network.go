package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// maxLinks bounds the interfaces of one network; pods have one or two.
	maxLinks = 16
	// linkFigures is how many numbers stand behind a name in /proc/PID/net/dev.
	linkFigures = 16
)

// link is one network interface.
type link struct {
	name    string
	figures [linkFigures]float64
}

// parseLinks reads /proc/PID/net/dev, without the loopback interface.
func parseLinks(text string) []link {
	var ls []link
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		fields := strings.Fields(rest)
		if !ok || name == "" || name == "lo" || seen[name] || len(fields) < linkFigures || len(ls) == maxLinks {
			continue
		}
		l := link{name: name}
		for i := range l.figures {
			v, isNumber := parseNumber(fields[i])
			l.figures[i], ok = v, ok && isNumber
		}
		if ok {
			seen[name] = true
			ls = append(ls, l)
		}
	}
	return ls
}

// network reads the interfaces of each network that is not the node's own, once:
// at the pod where it is one's, else at the container. Which network a process
// is in takes the right to look at it (CAP_SYS_PTRACE); without, or without the
// node's procfs, there are no such series.
func (c *Collector) network(groups []group) {
	space := func(pid string) string {
		name, err := os.Readlink(filepath.Join(c.cfg.Proc, pid, "ns", "net"))
		if err != nil {
			return ""
		}
		return name
	}
	node := space("1")
	if node == "" {
		return
	}
	pods := map[string]*group{} // by UID
	for i := range groups {
		if groups[i].kind == pod {
			pods[groups[i].uid] = &groups[i]
		}
	}
	done := map[string]bool{node: true}
	for i := range groups {
		g := &groups[i]
		if g.kind != container || g.pid == 0 {
			continue
		}
		pid := strconv.Itoa(g.pid)
		name := space(pid)
		if name == "" || done[name] {
			continue
		}
		text, ok := c.text(filepath.Join(c.cfg.Proc, pid), "net/dev", maxText)
		if !ok {
			continue
		}
		done[name] = true
		if p := pods[g.uid]; p != nil {
			g = p
		}
		g.links = append(g.links, parseLinks(text)...)
	}
}
