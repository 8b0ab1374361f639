package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nines/pkg/metric"
)

var (
	load1  = gauge("node_load1", "Tasks that run, wait to run or wait for a disk, averaged over a minute.")
	load5  = gauge("node_load5", "Tasks that run, wait to run or wait for a disk, averaged over 5 minutes.")
	load15 = gauge("node_load15", "Tasks that run, wait to run or wait for a disk, averaged over 15 minutes.")
)

func newLoad(n *node) (func(*tick) error, error) {
	return func(t *tick) error {
		text, err := t.file(n.proc("loadavg"))
		if err != nil {
			return err
		}
		return parseLoad(text, &t.page)
	}, nil
}

// parseLoad reads three averages; figures of tasks follow them.
func parseLoad(text []byte, p *page) error {
	rest := text
	for _, d := range []*def{load1, load5, load15} {
		v, ok := floatOf(field(&rest))
		if !ok {
			return malformed(text, "three averages")
		}
		p.one(d, v)
	}
	return nil
}

// numberFile is a file of procfs that holds a single figure.
type numberFile struct {
	*def
	file string
}

// numbers is a source of such files. One that is missing means that the kernel
// does not offer the source.
func numbers(files ...numberFile) func(*node) (func(*tick) error, error) {
	return func(n *node) (func(*tick) error, error) {
		return func(t *tick) error {
			for _, f := range files {
				v, err := t.number(n.proc(f.file))
				if err != nil {
					return err
				}
				t.one(f.def, v)
			}
			return nil
		}, nil
	}
}

var newEntropy = numbers(
	numberFile{gauge("node_entropy_available_bits", "Randomness that the kernel has gathered, bits."), "sys/kernel/random/entropy_avail"},
	numberFile{gauge("node_entropy_pool_size_bits", "Randomness that the kernel can hold, bits."), "sys/kernel/random/poolsize"},
)

var newKernelHung = numbers(
	numberFile{kernelCounter("node_kernel_hung_tasks_total", "Tasks that the kernel found hanging, blocked for longer than its limit."), "sys/kernel/hung_task_detect_count"},
)

var (
	fdAllocated = gauge("node_filefd_allocated", "File handles in use on the node.")
	fdMaximum   = gauge("node_filefd_maximum", "File handles that the node may use.")
)

func newFileDescriptors(n *node) (func(*tick) error, error) {
	return func(t *tick) error {
		text, err := t.file(n.proc("sys/fs/file-nr"))
		if err != nil {
			return err
		}
		return parseFileNr(text, &t.page)
	}, nil
}

// parseFileNr reads "allocated unused maximum".
func parseFileNr(text []byte, p *page) error {
	rest := trim(text)
	var v [3]uint64
	for i := range v {
		var ok bool
		if v[i], ok = uintOf(field(&rest)); !ok {
			return malformed(trim(text), "three numbers")
		}
	}
	if len(trim(rest)) > 0 {
		return malformed(trim(text), "three numbers")
	}
	p.one(fdAllocated, float64(v[0]))
	p.one(fdMaximum, float64(v[2]))
	return nil
}

// pressures are the resources whose pressure is told. The kernel tells no
// stalls of the whole system for cpu, and nothing but these for irq.
var pressures = []struct {
	file             string
	stalled, waiting *def
}{
	{"pressure/cpu", nil, pressure("cpu_waiting", "some task waited for a core")},
	{"pressure/io", pressure("io_stalled", "every task waited for a disk"), pressure("io_waiting", "some task waited for a disk")},
	{"pressure/irq", pressure("irq_stalled", "every task waited for interrupts to be served"), nil},
	{"pressure/memory", pressure("memory_stalled", "every task waited for memory"), pressure("memory_waiting", "some task waited for memory")},
}

func pressure(name, what string) *def {
	return kernelCounter("node_pressure_"+name+"_seconds_total", "Time in which "+what+".")
}

// newPressure leaves out the resources that this kernel does not tell. With
// none told, pressure accounting is off.
func newPressure(n *node) (func(*tick) error, error) {
	return func(t *tick) error {
		var missing error
		told := false
		for _, p := range pressures {
			text, err := t.file(n.proc(p.file))
			if errors.Is(err, fs.ErrNotExist) {
				missing = err
				continue
			}
			if isUnsupported(err) {
				missing = fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
				continue
			}
			if err == nil {
				err = parsePressure(text, p.stalled, p.waiting, &t.page)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", p.file, err)
			}
			told = true
		}
		if !told {
			return fmt.Errorf("this kernel keeps no pressure figures (boot it with psi=1): %w", missing)
		}
		return nil
	}, nil
}

// parsePressure reads the lines "some" and "full", whose last word is the sum
// of microseconds.
func parsePressure(text []byte, stalled, waiting *def, p *page) error {
	for len(text) > 0 {
		l := line(&text)
		whole := l
		d := stalled
		switch kind := field(&l); string(kind) {
		case "":
			continue
		case "some":
			d = waiting
		case "full":
		default:
			return malformed(whole, "a pressure")
		}
		at := bytes.Index(l, []byte(" total="))
		if at < 0 {
			return malformed(whole, "a pressure")
		}
		v, ok := uintOf(trim(l[at+len(" total="):]))
		if !ok {
			return malformed(whole, "a pressure")
		}
		if d != nil {
			p.one(d, float64(v)/1e6)
		}
	}
	return nil
}

var (
	timeSeconds   = gauge("node_time_seconds", "The node's clock, seconds since the epoch.")
	timeZone      = gauge("node_time_zone_offset_seconds", "How far local time is ahead of UTC.")
	timeAvailable = gauge("node_time_clocksource_available_info", "Always 1; the labels name a counter that the kernel could tell time by.")
	timeCurrent   = gauge("node_time_clocksource_current_info", "Always 1; the labels name the counter that the kernel tells time by.")
)

func newTime(n *node) (func(*tick) error, error) {
	base := n.sysfs("devices/system/clocksource")
	zones := newLabelSets("time_zone")
	type source struct{ device, name string }
	known := map[source][]metric.Label{} // bounded by the kernel's counters, a handful
	set := func(device int, name []byte) []metric.Label {
		key := source{strconv.Itoa(device), string(name)}
		if known[key] == nil {
			if len(known) >= maxCached {
				clear(known)
			}
			known[key] = labels("clocksource", key.name, "device", key.device)
		}
		return known[key]
	}
	return func(t *tick) error {
		zone, offset := t.now.Local().Zone()
		t.one(timeSeconds, float64(t.now.UnixNano())/1e9)
		t.with(timeZone, zones.of([]byte(zone)), float64(offset))
		names, err := t.dir(base)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !isNumbered(n, "clocksource") })
		t.family(timeAvailable)
		for i, name := range names {
			text, err := t.attr(base + "/" + name + "/available_clocksource")
			if err != nil {
				return err
			}
			for f := field(&text); len(f) > 0; f = field(&text) {
				t.add(set(i, f), 1)
			}
		}
		t.family(timeCurrent)
		for i, name := range names {
			text, err := t.attr(base + "/" + name + "/current_clocksource")
			if err != nil {
				return err
			}
			t.add(set(i, text), 1)
		}
		return nil
	}, nil
}

// What adjtimex(2) says: the clock is not synchronized, and figures of the
// clock are in nanoseconds.
const (
	timexError = 5      // TIME_ERROR
	timexNano  = 0x2000 // STA_NANO
	// Frequencies are parts per million with 16 bits behind the point.
	timexPPM = 1e6 * 65536
)

var timexColumns = []struct {
	*def
	value func(t unix.Timex, clock float64) float64 // clock is a second in the unit of the clock
}{
	{gauge("node_timex_estimated_error_seconds", "How wrong the clock is held to be."), func(t unix.Timex, _ float64) float64 { return float64(t.Esterror) / 1e6 }},
	{gauge("node_timex_frequency_adjustment_ratio", "How fast the clock is made to go, 1 is its own pace."), func(t unix.Timex, _ float64) float64 { return 1 + float64(t.Freq)/timexPPM }},
	{gauge("node_timex_loop_time_constant", "Time constant of the loop that keeps the clock."), func(t unix.Timex, _ float64) float64 { return float64(t.Constant) }},
	{gauge("node_timex_maxerror_seconds", "How wrong the clock can be at most."), func(t unix.Timex, _ float64) float64 { return float64(t.Maxerror) / 1e6 }},
	{gauge("node_timex_offset_seconds", "How far the clock is off its reference."), func(t unix.Timex, clock float64) float64 { return float64(t.Offset) / clock }},
	{kernelCounter("node_timex_pps_calibration_total", "Calibrations by the pulse each second."), func(t unix.Timex, _ float64) float64 { return float64(t.Calcnt) }},
	{kernelCounter("node_timex_pps_error_total", "Calibrations by the pulse each second that failed."), func(t unix.Timex, _ float64) float64 { return float64(t.Errcnt) }},
	{gauge("node_timex_pps_frequency_hertz", "Frequency by the pulse each second."), func(t unix.Timex, _ float64) float64 { return float64(t.Ppsfreq) / timexPPM }},
	{gauge("node_timex_pps_jitter_seconds", "Jitter of the pulse each second."), func(t unix.Timex, clock float64) float64 { return float64(t.Jitter) / clock }},
	{kernelCounter("node_timex_pps_jitter_total", "Pulses whose jitter was above the limit."), func(t unix.Timex, _ float64) float64 { return float64(t.Jitcnt) }},
	{gauge("node_timex_pps_shift_seconds", "Length of the interval between pulses."), func(t unix.Timex, _ float64) float64 { return float64(t.Shift) }},
	{kernelCounter("node_timex_pps_stability_exceeded_total", "Pulses whose frequency wandered above the limit."), func(t unix.Timex, _ float64) float64 { return float64(t.Stbcnt) }},
	{gauge("node_timex_pps_stability_hertz", "How far the frequency of pulses wandered lately."), func(t unix.Timex, _ float64) float64 { return float64(t.Stabil) / timexPPM }},
	{gauge("node_timex_status", "Bits of the clock's state, as adjtimex has them."), func(t unix.Timex, _ float64) float64 { return float64(t.Status) }},
	{gauge("node_timex_tai_offset_seconds", "How far atomic time is ahead of UTC."), func(t unix.Timex, _ float64) float64 { return float64(t.Tai) }},
	{gauge("node_timex_tick_seconds", "Time between two ticks of the clock."), func(t unix.Timex, _ float64) float64 { return float64(t.Tick) / 1e6 }},
}

var timexSync = gauge("node_timex_sync_status", "1 where something keeps the clock right, else 0.")

func newTimex(n *node) (func(*tick) error, error) {
	return func(t *tick) error {
		x, state, err := n.sys.adjtimex()
		if err != nil {
			return fmt.Errorf("adjtimex: %w", err)
		}
		clock := 1e6
		if x.Status&timexNano != 0 {
			clock = 1e9
		}
		for _, c := range timexColumns {
			t.one(c.def, c.value(x, clock))
		}
		t.one(timexSync, bit(state != timexError))
		return nil
	}, nil
}

var unameInfo = gauge("node_uname_info", "Always 1; the labels are what uname says of the kernel and the node.")

func newUname(n *node) (func(*tick) error, error) {
	var last names
	var set []metric.Label
	return func(t *tick) error {
		u, err := n.sys.uname()
		if err != nil {
			return err
		}
		if set == nil || u != last {
			last, set = u, labels("sysname", u.sysname, "release", u.release, "version", u.version,
				"machine", u.machine, "nodename", u.nodename, "domainname", u.domainname)
		}
		t.with(unameInfo, set, 1)
		return nil
	}, nil
}

// vmstatFields are those that node_exporter shows by default: out-of-memory
// kills, paging, swapping and page faults.
var vmstatFields = regexp.MustCompile(`^(oom_kill|pgpg|pswp|pg.*fault).*`)

func vmstatDefs() *defs {
	return newDefs(func(name string) *def {
		if !vmstatFields.MatchString(name) || !isWord(name) {
			return nil
		}
		return kernelUntyped("node_vmstat_"+name, "The kernel's virtual memory counter "+name+".")
	})
}

func newVMStat(n *node) (func(*tick) error, error) {
	known := vmstatDefs()
	return func(t *tick) error {
		text, err := t.file(n.proc("vmstat"))
		if err != nil {
			return err
		}
		return parseVMStat(text, known, &t.page)
	}, nil
}

// parseVMStat reads lines of a name and a number.
func parseVMStat(text []byte, known *defs, p *page) error {
	for len(text) > 0 {
		l := line(&text)
		whole := l
		d := known.of(field(&l))
		if d == nil {
			continue
		}
		v, ok := uintOf(field(&l))
		if !ok {
			return malformed(whole, "a name and a number")
		}
		p.one(d, float64(v))
	}
	return nil
}

var (
	schedRunning = kernelCounter("node_schedstat_running_seconds_total", "Time that the core spent running tasks.")
	schedSlices  = kernelCounter("node_schedstat_timeslices_total", "Turns that the core gave to tasks.")
	schedWaiting = kernelCounter("node_schedstat_waiting_seconds_total", "Time that tasks waited for the core, added up.")
)

type schedRow struct{ running, waiting, slices float64 }

var schedColumns = []column[schedRow]{
	always(schedRunning, func(r *schedRow) float64 { return r.running }),
	always(schedSlices, func(r *schedRow) float64 { return r.slices }),
	always(schedWaiting, func(r *schedRow) float64 { return r.waiting }),
}

func newSchedstat(n *node) (func(*tick) error, error) {
	cores := newLabelSets("cpu")
	var rows []row[schedRow]
	return func(t *tick) error {
		text, err := t.file(n.proc("schedstat"))
		if err != nil {
			return err
		}
		if rows, err = parseSchedstat(text, cores, rows[:0]); err != nil {
			return err
		}
		table(&t.page, schedColumns, rows)
		return nil
	}, nil
}

// parseSchedstat reads the lines of cores, whose figures 7 to 9 are nanoseconds
// of running, nanoseconds of waiting, and turns: sched-stats of the kernel's
// documentation, versions 15 to 17.
func parseSchedstat(text []byte, cores *labelSets, rows []row[schedRow]) ([]row[schedRow], error) {
	for len(text) > 0 {
		l := line(&text)
		whole := l
		name := field(&l)
		if !bytes.HasPrefix(name, []byte("cpu")) {
			continue
		}
		var v [9]uint64
		for i := range v {
			var ok bool
			if v[i], ok = uintOf(field(&l)); !ok {
				return rows, malformed(whole, "nine figures of a core")
			}
		}
		rows = append(rows, row[schedRow]{cores.of(name[len("cpu"):]), schedRow{float64(v[6]) / 1e9, float64(v[7]) / 1e9, float64(v[8])}})
	}
	return rows, nil
}

var (
	selinuxEnabled = gauge("node_selinux_enabled", "1 where SELinux is on, else 0.")
	selinuxConfig  = gauge("node_selinux_config_mode", "What SELinux shall do by its configuration: 1 refuse, 0 warn, -1 be off.")
	selinuxCurrent = gauge("node_selinux_current_mode", "What SELinux does at this moment: 1 refuse, 0 warn, -1 be off.")
)

// newSELinux looks at selinuxfs, whose place below sysfs is fixed, and at the
// configuration of the node.
func newSELinux(n *node) (func(*tick) error, error) {
	enforce, config := n.sysfs("fs/selinux/enforce"), filepath.Join(n.cfg.Root, "etc/selinux/config")
	return func(t *tick) error {
		current, err := t.number(enforce)
		if errors.Is(err, fs.ErrNotExist) {
			t.one(selinuxEnabled, 0)
			return nil
		}
		if err != nil {
			return err
		}
		text, err := t.file(config)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		t.one(selinuxEnabled, 1)
		t.one(selinuxConfig, selinuxMode(text))
		t.one(selinuxCurrent, current)
		return nil
	}, nil
}

// selinuxMode reads the mode of SELinux' configuration file.
func selinuxMode(text []byte) float64 {
	for len(text) > 0 {
		key, value, ok := bytes.Cut(trim(line(&text)), []byte("="))
		if !ok || string(trim(key)) != "SELINUX" {
			continue
		}
		switch strings.ToLower(string(trim(value))) {
		case "enforcing":
			return 1
		case "permissive":
			return 0
		}
	}
	return -1
}

var (
	osInfo    = gauge("node_os_info", "Always 1; the labels are what os-release says of the distribution.")
	osVersion = gauge("node_os_version", "The major and minor part of the distribution's version, as a number.")
	osEnd     = gauge("node_os_support_end_timestamp_seconds", "When the distribution's support ends.")
)

// newOS reads os-release, at its two places.
func newOS(n *node) (func(*tick) error, error) {
	paths := []string{filepath.Join(n.cfg.Root, "etc/os-release"), filepath.Join(n.cfg.Root, "usr/lib/os-release")}
	var last []byte
	var release osRelease
	return func(t *tick) error {
		text, err := t.file(paths[0])
		if errors.Is(err, fs.ErrNotExist) {
			text, err = t.file(paths[1])
		}
		if err != nil {
			return err
		}
		if last == nil || !bytes.Equal(text, last) {
			if release, err = parseOSRelease(text); err != nil {
				return err
			}
			last = bytes.Clone(text)
		}
		t.with(osInfo, release.info, 1)
		if release.version > 0 {
			t.with(osVersion, release.short, release.version)
		}
		if !release.end.IsZero() {
			t.one(osEnd, float64(release.end.Unix()))
		}
		return nil
	}, nil
}

type osRelease struct {
	info, short []metric.Label
	version     float64
	end         time.Time
}

var majorMinor = regexp.MustCompile(`^[0-9]+\.?[0-9]*`)

// parseOSRelease reads the assignments of os-release(5).
func parseOSRelease(text []byte) (osRelease, error) {
	v := map[string]string{}
	for len(text) > 0 {
		l := trim(line(&text))
		if len(l) == 0 || l[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(string(l), "=")
		if !ok {
			return osRelease{}, malformed(l, "an assignment")
		}
		v[key] = unquote(value)
	}
	r := osRelease{
		info: labels("build_id", v["BUILD_ID"], "id", v["ID"], "id_like", v["ID_LIKE"], "image_id", v["IMAGE_ID"],
			"image_version", v["IMAGE_VERSION"], "name", v["NAME"], "pretty_name", v["PRETTY_NAME"], "variant", v["VARIANT"],
			"variant_id", v["VARIANT_ID"], "version", v["VERSION"], "version_codename", v["VERSION_CODENAME"], "version_id", v["VERSION_ID"]),
		short: labels("id", v["ID"], "id_like", v["ID_LIKE"], "name", v["NAME"]),
	}
	if m := majorMinor.FindString(v["VERSION_ID"]); m != "" {
		version, err := strconv.ParseFloat(m, 64)
		if err != nil {
			return osRelease{}, fmt.Errorf("VERSION_ID: %w", err)
		}
		r.version = version
	}
	if end := v["SUPPORT_END"]; end != "" {
		at, err := time.Parse(time.DateOnly, end)
		if err != nil {
			return osRelease{}, fmt.Errorf("SUPPORT_END: %w", err)
		}
		r.end = at
	}
	return r, nil
}

// unquote takes the quotes of a shell off a value, and the backslashes that
// stand before what a shell would take for itself.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return s[1 : len(s)-1]
	}
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
