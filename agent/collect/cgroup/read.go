package cgroup

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	// maxText bounds a file of figures; memory.stat, the longest, has 3 KiB.
	maxText = 64 << 10
	// maxList bounds cgroup.procs: 100,000 processes.
	maxList = 1 << 20
	// maxDevices bounds the disks of one cgroup.
	maxDevices = 64

	// unlimited is where version 1 begins to mean no limit: it rounds the largest
	// number down to a page. The same bound as cAdvisor's.
	unlimited = 1 << 62

	// userHz is the unit of cpuacct.stat, fixed in the kernel's interface.
	userHz = 100
)

// text reads a file of a cgroup. ok is false where there is nothing to read:
// the kernel does not have the file, or the cgroup is gone, which is as it
// should be; else the failure is counted.
func (c *Collector) text(dir, name string, limit int64) (text string, ok bool) {
	data, err := c.readFile(filepath.Join(dir, name), limit)
	switch {
	case err == nil:
		return string(data), true
	case errors.Is(err, errLarge):
		c.failed[tooLarge].Inc()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.EOPNOTSUPP):
	default:
		c.failed[unreadable].Inc()
	}
	return "", false
}

var errLarge = errors.New("larger than its bound")

// readFile reads a whole file into the collector's buffer. What it returns is
// valid until the next file is read.
func (c *Collector) readFile(path string, limit int64) ([]byte, error) {
	// A pipe in place of a file would wait for a writer for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c.buffer.Reset()
	if n, err := c.buffer.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	} else if n > limit {
		return nil, errLarge
	}
	return c.buffer.Bytes(), nil
}

// number reads a file of one number.
func (c *Collector) number(dir, name string) (v float64, ok bool) {
	text, ok := c.text(dir, name, maxText)
	if !ok {
		return 0, false
	}
	if v, ok = parseNumber(text); !ok {
		c.failed[malformed].Inc()
	}
	return v, ok
}

// table reads a file of lines with a key and a number.
func (c *Collector) table(dir, name string) map[string]float64 {
	text, ok := c.text(dir, name, maxText)
	if !ok {
		return nil
	}
	t := parseTable(text)
	if len(t) == 0 && strings.TrimSpace(text) != "" {
		c.failed[malformed].Inc()
	}
	return t
}

// parseNumber reads a whole number of at least 0.
func parseNumber(text string) (float64, bool) {
	v, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	return float64(v), err == nil
}

// parseTable reads lines of a key and a number, and passes over all others.
func parseTable(text string) map[string]float64 {
	t := map[string]float64{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, isNumber := parseNumber(value); ok && isNumber {
			t[key] = v
		}
	}
	return t
}

// parsePressure reads the totals of a file of stall times, in seconds.
func parsePressure(text string) (some, full float64, hasSome, hasFull bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		for _, f := range fields[1:] {
			total, is := strings.CutPrefix(f, "total=")
			us, ok := parseNumber(total)
			if !is || !ok {
				continue
			}
			switch fields[0] {
			case "some":
				some, hasSome = us/1e6, true
			case "full":
				full, hasFull = us/1e6, true
			}
		}
	}
	return some, full, hasSome, hasFull
}

// parseCPUMax reads version 2's "QUOTA PERIOD" in microseconds.
func parseCPUMax(text string) (quota, period float64, hasQuota, hasPeriod bool) {
	fields := strings.Fields(text)
	if len(fields) > 0 && fields[0] != "max" {
		quota, hasQuota = parseNumber(fields[0])
	}
	if len(fields) > 1 {
		period, hasPeriod = parseNumber(fields[1])
	}
	return quota, period, hasQuota, hasPeriod
}

// device is what was read from and written to one disk.
type device struct {
	number                               string // MAJOR:MINOR
	readBytes, writeBytes, reads, writes float64
}

// parseIO reads version 2's io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func parseIO(text string) []device {
	var ds []device
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !isDevice(fields[0]) || len(ds) == maxDevices || has(ds, fields[0]) {
			continue
		}
		d := device{number: fields[0]}
		known := false
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			v, ok := parseNumber(value)
			if !ok {
				continue
			}
			for name, at := range map[string]*float64{"rbytes": &d.readBytes, "wbytes": &d.writeBytes, "rios": &d.reads, "wios": &d.writes} {
				if key == name {
					*at, known = v, true
				}
			}
		}
		if known {
			ds = append(ds, d)
		}
	}
	return ds
}

// parseBlkio reads version 1's lines of "8:0 Read 1" into devices, which may
// have figures of another file already.
func parseBlkio(text string, ds []device, read, write func(*device) *float64) []device {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || !isDevice(fields[0]) {
			continue
		}
		v, ok := parseNumber(fields[2])
		if !ok || fields[1] != "Read" && fields[1] != "Write" {
			continue
		}
		if !has(ds, fields[0]) {
			if len(ds) == maxDevices {
				continue
			}
			ds = append(ds, device{number: fields[0]})
		}
		for i := range ds {
			if ds[i].number == fields[0] {
				if fields[1] == "Read" {
					*read(&ds[i]) = v
				} else {
					*write(&ds[i]) = v
				}
			}
		}
	}
	return ds
}

func has(ds []device, number string) bool {
	for _, d := range ds {
		if d.number == number {
			return true
		}
	}
	return false
}

// isDevice says whether text is MAJOR:MINOR. It becomes part of a path.
func isDevice(text string) bool {
	major, minor, ok := strings.Cut(text, ":")
	_, majorErr := strconv.ParseUint(major, 10, 32)
	_, minorErr := strconv.ParseUint(minor, 10, 32)
	return ok && majorErr == nil && minorErr == nil
}

// parseProcesses counts the lines that are numbers, and returns the first.
func parseProcesses(text string) (n, first int) {
	for line := range strings.Lines(text) {
		pid, err := strconv.ParseUint(strings.TrimSpace(line), 10, 31)
		if err != nil {
			continue
		}
		if n == 0 {
			first = int(pid)
		}
		n++
	}
	return n, first
}

// parseDeviceName reads the name of a disk out of its uevent.
func parseDeviceName(text string) string {
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok && name != "" && len(name) < 256 {
			return "/dev/" + name
		}
	}
	return ""
}

// read fills the figures of a group.
func (c *Collector) read(g *group, unified bool) {
	if unified {
		c.readUnified(g, g.dirs[""])
	} else {
		c.readSplit(g)
	}
	named := g.devices[:0]
	for _, d := range g.devices {
		d.number = c.deviceName(d.number)
		if !has(named, d.number) {
			named = append(named, d)
		}
	}
	g.devices = named
}

// deviceName is what cAdvisor calls a disk, /dev/sda, or the name that it has
// by number where sysfs does not tell.
func (c *Collector) deviceName(number string) string {
	if name := c.disks[number]; name != "" {
		return name
	}
	name := "/dev/block/" + number
	if data, err := c.readFile(filepath.Join(c.cfg.Sys, "dev/block", number, "uevent"), maxText); err == nil {
		name = cmp.Or(parseDeviceName(string(data)), name)
	}
	c.disks[number] = name
	return name
}

// readUnified reads a cgroup of version 2.
func (c *Collector) readUnified(g *group, dir string) {
	limited := g.kind == container || g.kind == pod // others have no limits of interest
	cpu := c.table(dir, "cpu.stat")
	g.from(cpu, "usage_usec", cpuUsage, 1e-6)
	g.from(cpu, "user_usec", cpuUser, 1e-6)
	g.from(cpu, "system_usec", cpuSystem, 1e-6)
	if text, ok := c.text(dir, "cpu.max", maxText); ok && limited {
		quota, period, hasQuota, hasPeriod := parseCPUMax(text)
		if hasPeriod {
			g.set(specPeriod, period)
		} else {
			c.failed[malformed].Inc()
		}
		if hasQuota {
			g.set(specQuota, quota)
			g.from(cpu, "nr_periods", cfsPeriods, 1)
			g.from(cpu, "nr_throttled", cfsThrottled, 1)
			g.from(cpu, "throttled_usec", cfsThrottledTime, 1e-6)
		}
	}
	if limited {
		if weight, ok := c.number(dir, "cpu.weight"); ok && weight >= 1 && weight <= 10_000 {
			// The way back of what made a weight of [1, 10000] of shares of
			// [2, 262144] (Kubernetes, KEP 2254), in whole numbers as cAdvisor.
			g.set(specShares, float64(2+(uint64(weight)-1)*262_142/9_999))
		}
	}

	stat := c.table(dir, "memory.stat")
	g.from(stat, "anon", memoryRSS, 1)
	g.from(stat, "file", memoryCache, 1)
	g.from(stat, "file_mapped", memoryMapped, 1)
	g.from(stat, "pgfault", pageFaults, 1)
	g.from(stat, "pgmajfault", majorFaults, 1)
	c.memory(g, dir, "memory.current", stat, "inactive_file")
	c.put(g, memoryPeak, dir, "memory.peak")
	c.put(g, memorySwap, dir, "memory.swap.current")
	events := c.table(dir, "memory.events")
	g.from(events, "max", memoryFailures, 1)
	g.from(events, "oom_kill", oomKills, 1)
	if limited {
		c.limit(g, specMemory, dir, "memory.max")
		c.limit(g, specSwap, dir, "memory.swap.max")
	}

	c.put(g, threads, dir, "pids.current")
	c.limit(g, threadsMax, dir, "pids.max")

	if text, ok := c.text(dir, "io.stat", maxText); ok {
		g.devices = parseIO(text)
	}
	for _, p := range []struct {
		file             string
		waiting, stalled key
	}{
		{"cpu.pressure", cpuWaiting, cpuStalled},
		{"memory.pressure", memoryWaiting, memoryStalled},
		{"io.pressure", ioWaiting, ioStalled},
	} {
		text, ok := c.text(dir, p.file, maxText)
		if !ok {
			continue
		}
		some, full, hasSome, hasFull := parsePressure(text)
		if hasSome {
			g.set(p.waiting, some)
		} else {
			c.failed[malformed].Inc()
		}
		if hasFull {
			g.set(p.stalled, full)
		}
	}
}

// readSplit reads a cgroup of version 1, of which each controller has a folder.
func (c *Collector) readSplit(g *group) {
	limited := g.kind == container || g.kind == pod
	if dir, ok := g.dirs["cpuacct"]; ok {
		if v, ok := c.number(dir, "cpuacct.usage"); ok {
			g.set(cpuUsage, v/1e9)
		}
		user, hasUser := c.number(dir, "cpuacct.usage_user")
		system, hasSystem := c.number(dir, "cpuacct.usage_sys")
		if hasUser && hasSystem {
			g.set(cpuUser, user/1e9)
			g.set(cpuSystem, system/1e9)
		} else { // kernels before 4.6
			ticks := c.table(dir, "cpuacct.stat")
			g.from(ticks, "user", cpuUser, 1.0/userHz)
			g.from(ticks, "system", cpuSystem, 1.0/userHz)
		}
	}
	if dir, ok := g.dirs["cpu"]; ok && limited {
		c.put(g, specPeriod, dir, "cpu.cfs_period_us")
		c.put(g, specShares, dir, "cpu.shares")
		if text, ok := c.text(dir, "cpu.cfs_quota_us", maxText); ok && strings.TrimSpace(text) != "-1" {
			if quota, ok := parseNumber(text); ok {
				g.set(specQuota, quota)
				cpu := c.table(dir, "cpu.stat")
				g.from(cpu, "nr_periods", cfsPeriods, 1)
				g.from(cpu, "nr_throttled", cfsThrottled, 1)
				g.from(cpu, "throttled_time", cfsThrottledTime, 1e-9)
			} else {
				c.failed[malformed].Inc()
			}
		}
	}
	if dir, ok := g.dirs["memory"]; ok {
		stat := c.table(dir, "memory.stat")
		for name, k := range map[string]key{
			"rss": memoryRSS, "cache": memoryCache, "mapped_file": memoryMapped, "swap": memorySwap,
			"pgfault": pageFaults, "pgmajfault": majorFaults,
		} {
			// total_ is with the cgroups within, as all figures of version 2 are.
			g.from(stat, name, k, 1)
			g.from(stat, "total_"+name, k, 1)
		}
		c.memory(g, dir, "memory.usage_in_bytes", stat, "total_inactive_file")
		c.put(g, memoryPeak, dir, "memory.max_usage_in_bytes")
		c.put(g, memoryFailures, dir, "memory.failcnt")
		g.from(c.table(dir, "memory.oom_control"), "oom_kill", oomKills, 1)
		if limited {
			c.limit(g, specMemory, dir, "memory.limit_in_bytes")
			c.limit(g, specSwap, dir, "memory.memsw.limit_in_bytes")
		}
	}
	if dir, ok := g.dirs["pids"]; ok {
		c.put(g, threads, dir, "pids.current")
		c.limit(g, threadsMax, dir, "pids.max")
	}
	if dir, ok := g.dirs["blkio"]; ok {
		for _, f := range []struct {
			what        string
			read, write func(*device) *float64
		}{
			{"io_service_bytes", func(d *device) *float64 { return &d.readBytes }, func(d *device) *float64 { return &d.writeBytes }},
			{"io_serviced", func(d *device) *float64 { return &d.reads }, func(d *device) *float64 { return &d.writes }},
		} {
			// With the cgroups within, where the kernel (4.17) has it; throttle counts
			// on every kernel, the others where that scheduler is at work.
			for _, name := range []string{"blkio.throttle." + f.what + "_recursive", "blkio.throttle." + f.what, "blkio.bfq." + f.what + "_recursive", "blkio." + f.what + "_recursive"} {
				text, ok := c.text(dir, name, maxText)
				if !ok {
					continue
				}
				before := len(g.devices)
				g.devices = parseBlkio(text, g.devices, f.read, f.write)
				if len(g.devices) > before || strings.Contains(text, " Read ") {
					break
				}
			}
		}
	}
}

// memory sets what is in use, and what of it the kernel would not drop at once:
// less the file cache that was not touched lately.
func (c *Collector) memory(g *group, dir, usage string, stat map[string]float64, inactive string) {
	v, ok := c.number(dir, usage)
	if !ok {
		return
	}
	g.set(memoryUsage, v)
	g.set(memoryWorkingSet, max(0, v-stat[inactive]))
}

// put sets a figure that is a file of its own.
func (c *Collector) put(g *group, k key, dir, name string) {
	if v, ok := c.number(dir, name); ok {
		g.set(k, v)
	}
}

// limit sets one that may be unlimited, which is 0 as with cAdvisor.
func (c *Collector) limit(g *group, k key, dir, name string) {
	text, ok := c.text(dir, name, maxText)
	if !ok {
		return
	}
	v, ok := parseNumber(text)
	switch {
	case strings.TrimSpace(text) == "max", ok && v > unlimited:
		g.set(k, 0)
	case ok:
		g.set(k, v)
	default:
		c.failed[malformed].Inc()
	}
}
