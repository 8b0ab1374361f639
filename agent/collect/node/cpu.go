package node

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/procfs"

	"nines/pkg/metric"
)

// idleJump is how far a core's idle time must fall to be a core that was taken
// out and put back, seconds. node_exporter uses the same value: idle and
// iowait of a core that stays fall by a few ticks at most.
const idleJump = 3

type cpu struct {
	node
	last map[int64]procfs.CPUStat // never falls, except for a core that was replaced
}

func newCPU(n node) *cpu { return &cpu{node: n, last: map[int64]procfs.CPUStat{}} }

func (c *cpu) read(time.Time) ([]metric.Family, error) {
	st, err := c.proc.Stat()
	if err != nil {
		return nil, err
	}
	if len(st.CPU) == 0 {
		return nil, fmt.Errorf("%s/stat names no core", c.cfg.Proc)
	}
	c.last = rising(c.last, st.CPU)
	return cpuFamilies(c.last, c.start), nil
}

// rising keeps each figure of each core from falling: the kernel corrects idle
// and iowait downwards now and then, and a counter that falls reads as a
// restart. A core that was taken out and put back does begin anew.
func rising(last, now map[int64]procfs.CPUStat) map[int64]procfs.CPUStat {
	out := make(map[int64]procfs.CPUStat, len(now))
	for id, n := range now {
		l, known := last[id]
		if known && l.Idle-n.Idle < idleJump {
			n.User, n.Nice, n.System = max(n.User, l.User), max(n.Nice, l.Nice), max(n.System, l.System)
			n.Idle, n.Iowait = max(n.Idle, l.Idle), max(n.Iowait, l.Iowait)
			n.IRQ, n.SoftIRQ, n.Steal = max(n.IRQ, l.IRQ), max(n.SoftIRQ, l.SoftIRQ), max(n.Steal, l.Steal)
			n.Guest, n.GuestNice = max(n.Guest, l.Guest), max(n.GuestNice, l.GuestNice)
		}
		out[id] = n
	}
	return out
}

func cpuFamilies(cores map[int64]procfs.CPUStat, start int64) []metric.Family {
	modes := metric.Family{Name: "node_cpu_seconds_total", Type: metric.Counter, Unit: "seconds",
		Help: "Time that each core spent in each mode."}
	guest := metric.Family{Name: "node_cpu_guest_seconds_total", Type: metric.Counter, Unit: "seconds",
		Help: "Time that each core spent running virtual machines, by the priority of the machine; it is part of user and nice as well."}
	for _, id := range slices.Sorted(maps.Keys(cores)) {
		s := cores[id]
		core := strconv.FormatInt(id, 10)
		add := func(f *metric.Family, mode string, v float64) {
			f.Series = append(f.Series, metric.Series{Labels: metric.Labels("cpu", core, "mode", mode), Value: v, Start: start})
		}
		add(&modes, "idle", s.Idle)
		add(&modes, "iowait", s.Iowait)
		add(&modes, "irq", s.IRQ)
		add(&modes, "nice", s.Nice)
		add(&modes, "softirq", s.SoftIRQ)
		add(&modes, "steal", s.Steal)
		add(&modes, "system", s.System)
		add(&modes, "user", s.User)
		add(&guest, "nice", s.GuestNice)
		add(&guest, "user", s.Guest)
	}
	return []metric.Family{guest, modes}
}
