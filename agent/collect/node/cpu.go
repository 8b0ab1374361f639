package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"nines/pkg/metric"
)

// idleJump is how far a core's idle time must fall to be a core that was taken
// out and put back, seconds. node_exporter uses the same value: idle and
// iowait of a core that stays fall by a few ticks at most.
const idleJump = 3

// userHZ is the unit of times in /proc/stat, ticks a second: USER_HZ of the
// kernel, the same on all architectures that are left.
const userHZ = 100

// The columns of a core's line in /proc/stat, see proc_stat(5).
const (
	cpuUser = iota
	cpuNice
	cpuSystem
	cpuIdle
	cpuIOWait
	cpuIRQ
	cpuSoftIRQ
	cpuSteal
	cpuGuest
	cpuGuestNice
	cpuColumns
)

var cpuModes = [...]string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}

// cpuTimes are one core's times, seconds.
type cpuTimes [cpuColumns]float64

// core is what is kept of a core from tick to tick.
type core struct {
	id     uint64
	times  cpuTimes // never fall, except for a core that was replaced
	labels [cpuColumns][]metric.Label
	seen   bool // in the present tick
}

type cpu struct {
	*node
	cores []*core // by id
	base  string
	found []cpuPlace // where sysfs tells about cores
	names []string   // of found, to see that it is still right

	isolated [][]metric.Label
}

// cpuPlace is a core in sysfs.
type cpuPlace struct {
	online         string // path
	labels         []metric.Label
	core, pack     string // paths of the throttle counters, empty where another core tells the same
	coreLs, packLs []metric.Label
	noCore, noPack bool // the counter is not there: asked once
}

var (
	cpuGuestSeconds = kernelCounter("node_cpu_guest_seconds_total", "Time that each core spent running virtual machines, by the priority of the machine; it is part of user and nice as well.")
	cpuSeconds      = kernelCounter("node_cpu_seconds_total", "Time that each core spent in each mode.")
	cpuOnline       = gauge("node_cpu_online", "1 for cores that tasks can run on, 0 for those taken out.")
	cpuIsolated     = gauge("node_cpu_isolated", "1 for each core that the scheduler leaves alone, by the kernel's command line.")
	cpuCoreThrottle = kernelCounter("node_cpu_core_throttles_total", "Times that the core was slowed down against heat.")
	cpuPackThrottle = kernelCounter("node_cpu_package_throttles_total", "Times that the package was slowed down against heat.")
)

func newCPU(n *node) (func(*tick) error, error) {
	c := &cpu{node: n, base: n.sysfs("devices/system/cpu")}
	text, err := new(tick).attr(c.base + "/isolated")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ids, err := parseRange(string(text))
	if err != nil {
		return nil, fmt.Errorf("read %s/isolated: %w", c.base, err)
	}
	for _, id := range ids {
		c.isolated = append(c.isolated, metric.Labels("cpu", strconv.Itoa(id)))
	}
	return c.read, nil
}

// statText returns /proc/stat, which cpu and stat share: on a big machine the
// kernel adds up the interrupts of all cores for each reading.
func (n *node) statText(t *tick) ([]byte, error) {
	if !t.statRead {
		text, err := t.file(n.proc("stat"))
		if err != nil {
			return nil, err
		}
		t.stat, t.statRead = append(t.stat[:0], text...), true
	}
	return t.stat, nil
}

func (c *cpu) read(t *tick) error {
	text, err := c.statText(t)
	if err != nil {
		return err
	}
	if c.cores, err = parseCPU(text, c.cores); err != nil {
		return err
	}
	if len(c.cores) == 0 {
		return fmt.Errorf("%s names no core", c.proc("stat"))
	}
	t.family(cpuGuestSeconds)
	for _, core := range c.cores {
		t.add(core.labels[cpuGuestNice], core.times[cpuGuestNice])
		t.add(core.labels[cpuGuest], core.times[cpuGuest])
	}
	t.family(cpuSeconds)
	for _, core := range c.cores {
		for m := range cpuModes {
			t.add(core.labels[m], core.times[m])
		}
	}
	t.family(cpuIsolated)
	for _, ls := range c.isolated {
		t.add(ls, 1)
	}
	return c.readSys(t)
}

// parseCPU reads the lines of cores in /proc/stat into cores, which it returns
// without those that have no line any more.
func parseCPU(text []byte, cores []*core) ([]*core, error) {
	for _, c := range cores {
		c.seen = false
	}
	for len(text) > 0 {
		l := line(&text)
		if !bytes.HasPrefix(l, []byte("cpu")) {
			continue
		}
		whole := l
		name := field(&l)[len("cpu"):]
		if len(name) == 0 { // the sum of all
			continue
		}
		id, ok := uintOf(name)
		if !ok {
			return cores, malformed(whole, "times of a core")
		}
		var now cpuTimes
		n := 0
		for ; n < cpuColumns; n++ {
			f := field(&l)
			if len(f) == 0 {
				break
			}
			v, ok := uintOf(f)
			if !ok {
				return cores, malformed(whole, "times of a core")
			}
			now[n] = float64(v) / userHZ
		}
		if n <= cpuIdle { // kernels have added columns at the end, never removed any
			return cores, malformed(whole, "times of a core")
		}
		at, known := slices.BinarySearchFunc(cores, id, func(c *core, id uint64) int {
			switch {
			case c.id < id:
				return -1
			case c.id > id:
				return 1
			}
			return 0
		})
		if !known {
			if len(cores) >= maxEntries {
				return cores, fmt.Errorf("more than %d cores", maxEntries)
			}
			cores = slices.Insert(cores, at, newCore(id))
		}
		cores[at].rise(now)
		cores[at].seen = true
	}
	return slices.DeleteFunc(cores, func(c *core) bool { return !c.seen }), nil
}

func newCore(id uint64) *core {
	c := &core{id: id}
	name := strconv.FormatUint(id, 10)
	for m, mode := range cpuModes {
		c.labels[m] = metric.Labels("cpu", name, "mode", mode)
	}
	c.labels[cpuGuest] = c.labels[cpuUser]
	c.labels[cpuGuestNice] = c.labels[cpuNice]
	return c
}

// rise keeps each figure from falling: the kernel corrects idle and iowait
// downwards now and then, and a counter that falls reads as a restart. A core
// that was taken out and put back does begin anew.
func (c *core) rise(now cpuTimes) {
	if c.times[cpuIdle]-now[cpuIdle] >= idleJump {
		c.times = now
		return
	}
	for i, v := range now {
		c.times[i] = max(c.times[i], v)
	}
}

// readSys tells which cores are online, and how often heat slowed them down.
func (c *cpu) readSys(t *tick) error {
	names, err := t.dir(c.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !isNumbered(n, "cpu") })
	if !slices.Equal(names, c.names) {
		c.places(t, names)
	}
	t.family(cpuCoreThrottle)
	for i := range c.found {
		c.throttle(t, c.found[i].core, &c.found[i].noCore, c.found[i].coreLs)
	}
	t.family(cpuPackThrottle)
	for i := range c.found {
		c.throttle(t, c.found[i].pack, &c.found[i].noPack, c.found[i].packLs)
	}
	t.family(cpuOnline)
	for i := range c.found {
		text, err := t.attr(c.found[i].online)
		if i == 0 && errors.Is(err, fs.ErrNotExist) {
			break // a kernel that cannot take cores out
		}
		t.add(c.found[i].labels, bit(err == nil && string(text) == "1"))
	}
	return nil
}

func (c *cpu) throttle(t *tick, path string, missing *bool, ls []metric.Label) {
	if path == "" || *missing {
		return
	}
	v, err := t.number(path)
	if err != nil {
		*missing = errors.Is(err, fs.ErrNotExist)
		return
	}
	t.add(ls, v)
}

// places finds out which core of sysfs tells what. Cores of one physical core
// share its counter, those of one package the package's.
func (c *cpu) places(t *tick, names []string) {
	c.names, c.found = names, nil
	type key struct{ pack, core float64 }
	cores, packs := map[key]bool{}, map[float64]bool{}
	for _, name := range names {
		dir := c.base + "/" + name
		p := cpuPlace{online: dir + "/online", labels: metric.Labels("cpu", strings.TrimPrefix(name, "cpu"))}
		pack, err1 := t.number(dir + "/topology/physical_package_id")
		id, err2 := t.number(dir + "/topology/core_id")
		if err1 == nil && err2 == nil {
			packName, coreName := strconv.FormatFloat(pack, 'f', -1, 64), strconv.FormatFloat(id, 'f', -1, 64)
			if path := dir + "/thermal_throttle/core_throttle_count"; !cores[key{pack, id}] && exists(path) {
				cores[key{pack, id}] = true
				p.core, p.coreLs = path, metric.Labels("core", coreName, "package", packName)
			}
			if path := dir + "/thermal_throttle/package_throttle_count"; !packs[pack] && exists(path) {
				packs[pack] = true
				p.pack, p.packLs = path, metric.Labels("package", packName)
			}
		}
		c.found = append(c.found, p)
	}
}

// isNumbered says whether a name is the prefix and a number.
func isNumbered(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok || rest == "" {
		return false
	}
	for i := range len(rest) {
		if rest[i] < '0' || rest[i] > '9' {
			return false
		}
	}
	return true
}

// parseRange reads a list of cores such as "0-3,8".
func parseRange(text string) ([]int, error) {
	var ids []int
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || from > to {
			return nil, fmt.Errorf("%q is not a list of cores", clip([]byte(text)))
		}
		for id := from; id <= to; id++ {
			if len(ids) >= maxEntries {
				return nil, fmt.Errorf("%q lists more than %d cores", clip([]byte(text)), maxEntries)
			}
			ids = append(ids, int(id))
		}
	}
	return ids, nil
}

// freq is a core's frequencies in sysfs.
type freq struct {
	dir      string
	labels   []metric.Label
	governor map[string][]metric.Label // by its name; bounded by what the kernel has
}

var freqColumns = []struct {
	*def
	file string
}{
	{gauge("node_cpu_frequency_avg_hertz", "What the core ran at on average, as the hardware tells it."), "/cpuinfo_avg_freq"},
	{gauge("node_cpu_frequency_hertz", "What the core runs at, as the hardware tells it."), "/cpuinfo_cur_freq"},
	{gauge("node_cpu_frequency_max_hertz", "The most that the core can run at."), "/cpuinfo_max_freq"},
	{gauge("node_cpu_frequency_min_hertz", "The least that the core can run at."), "/cpuinfo_min_freq"},
	{gauge("node_cpu_scaling_frequency_hertz", "What the kernel has set the core to."), "/scaling_cur_freq"},
	{gauge("node_cpu_scaling_frequency_max_hertz", "The most that the kernel may set the core to."), "/scaling_max_freq"},
	{gauge("node_cpu_scaling_frequency_min_hertz", "The least that the kernel may set the core to."), "/scaling_min_freq"},
}

var freqGovernor = gauge("node_cpu_scaling_governor", "1 for the governor in force, 0 for the others that the core could have.")

// newCPUFreq reads cpufreq by core. Cores are found anew when their folder's
// entries change.
func newCPUFreq(n *node) (func(*tick) error, error) {
	base := n.sysfs("devices/system/cpu")
	var known []string
	var found []freq
	return func(t *tick) error {
		names, err := t.dir(base)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !isNumbered(n, "cpu") })
		if !slices.Equal(names, known) {
			known, found = names, nil
			for _, name := range names {
				found = append(found, freq{base + "/" + name + "/cpufreq", metric.Labels("cpu", strings.TrimPrefix(name, "cpu")), map[string][]metric.Label{}})
			}
		}
		there := false
		for i := range found {
			there = there || exists(found[i].dir)
		}
		if !there {
			return nil // virtual machines have none
		}
		for _, c := range freqColumns {
			t.family(c.def)
			for i := range found {
				text, err := t.attr(found[i].dir + c.file)
				if err != nil && !withheld(err) {
					return err
				}
				if v, ok := uintOf(text); err == nil && ok { // "<unknown>" otherwise
					t.add(found[i].labels, float64(v)*1000) // the kernel's unit is kHz
				}
			}
		}
		t.family(freqGovernor)
		for i := range found {
			text, err := t.attr(found[i].dir + "/scaling_governor")
			if err != nil {
				continue
			}
			now := string(text)
			text, err = t.attr(found[i].dir + "/scaling_available_governors")
			if err != nil {
				continue
			}
			for g := field(&text); len(g) > 0; g = field(&text) {
				ls := found[i].governor[string(g)]
				if ls == nil {
					ls = metric.Labels("cpu", found[i].labels[0].Value, "governor", string(g))
					found[i].governor[string(g)] = ls
				}
				t.add(ls, bit(string(g) == now))
			}
		}
		return nil
	}, nil
}

var (
	statBoot    = gauge("node_boot_time_seconds", "When the kernel began, seconds since the epoch.")
	statSwitch  = kernelCounter("node_context_switches_total", "Times that a core went from one task to another.")
	statForks   = kernelCounter("node_forks_total", "Tasks created.")
	statIntr    = kernelCounter("node_intr_total", "Interrupts served.")
	statBlocked = gauge("node_procs_blocked", "Tasks that wait for a disk.")
	statRunning = gauge("node_procs_running", "Tasks that run or wait to run.")
)

func newStat(n *node) (func(*tick) error, error) {
	return func(t *tick) error {
		text, err := n.statText(t)
		if err != nil {
			return err
		}
		return parseStat(text, &t.page)
	}, nil
}

// parseStat reads the single figures of /proc/stat. Those without a line are 0,
// as node_exporter has them.
func parseStat(text []byte, p *page) error {
	figures := [...]struct {
		name string
		*def
		v uint64
	}{
		{"btime", statBoot, 0}, {"ctxt", statSwitch, 0}, {"processes", statForks, 0},
		{"intr", statIntr, 0}, {"procs_blocked", statBlocked, 0}, {"procs_running", statRunning, 0},
	}
	found := false
	for len(text) > 0 {
		l := line(&text)
		whole := l
		name := field(&l)
		for i := range figures {
			if string(name) != figures[i].name {
				continue
			}
			v, ok := uintOf(field(&l)) // intr goes on with a figure for each interrupt
			if !ok {
				return malformed(whole, "a name and a number")
			}
			figures[i].v, found = v, true
		}
	}
	if !found {
		return fmt.Errorf("no figure is in it")
	}
	for _, f := range figures {
		p.one(f.def, float64(f.v))
	}
	return nil
}
