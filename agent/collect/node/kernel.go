package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"nines/pkg/metric"
)

func (n node) load(time.Time) ([]metric.Family, error) {
	l, err := n.proc.LoadAvg()
	if err != nil {
		return nil, err
	}
	return []metric.Family{
		one("node_load1", "Tasks that run, wait to run or wait for a disk, averaged over a minute.", metric.Gauge, 0, l.Load1),
		one("node_load15", "Tasks that run, wait to run or wait for a disk, averaged over 15 minutes.", metric.Gauge, 0, l.Load15),
		one("node_load5", "Tasks that run, wait to run or wait for a disk, averaged over 5 minutes.", metric.Gauge, 0, l.Load5),
	}, nil
}

func (n node) stat(time.Time) ([]metric.Family, error) {
	s, err := n.proc.Stat()
	if err != nil {
		return nil, err
	}
	return statFamilies(s, n.start), nil
}

func statFamilies(s procfs.Stat, start int64) []metric.Family {
	return []metric.Family{
		one("node_boot_time_seconds", "When the kernel booted, seconds since the epoch.", metric.Gauge, 0, float64(s.BootTime)),
		one("node_context_switches_total", "Switches from one task to another.", metric.Counter, start, float64(s.ContextSwitches)),
		one("node_forks_total", "Tasks created.", metric.Counter, start, float64(s.ProcessCreated)),
		one("node_intr_total", "Interrupts served.", metric.Counter, start, float64(s.IRQTotal)),
		one("node_procs_blocked", "Tasks that wait for a disk.", metric.Gauge, 0, float64(s.ProcessesBlocked)),
		one("node_procs_running", "Tasks that run or wait to run.", metric.Gauge, 0, float64(s.ProcessesRunning)),
	}
}

// pressure leaves out the resources that this kernel does not tell. With none
// told, pressure accounting is off.
func (n node) pressure(time.Time) ([]metric.Family, error) {
	var fams []metric.Family
	var missing error
	for _, p := range []struct {
		resource, waiting, stalled string
	}{
		{"cpu", "some task waited for a core", ""},
		{"io", "some task waited for a disk", "every task waited for a disk"},
		{"irq", "", "every task waited for interrupts to be served"},
		{"memory", "some task waited for memory", "every task waited for memory"},
	} {
		st, err := n.proc.PSIStatsForResource(p.resource)
		if errors.Is(err, fs.ErrNotExist) || isUnsupported(err) {
			missing = err
			continue
		}
		if err != nil {
			return nil, err
		}
		add := func(kind, what string, l *procfs.PSILine) {
			if what != "" && l != nil {
				fams = append(fams, one("node_pressure_"+p.resource+"_"+kind+"_seconds_total",
					"Time in which "+what+".", metric.Counter, n.start, float64(l.Total)/1e6))
			}
		}
		add("stalled", p.stalled, st.Full)
		add("waiting", p.waiting, st.Some)
	}
	if fams == nil {
		return nil, fmt.Errorf("this kernel keeps no pressure figures (boot it with psi=1): %w", missing)
	}
	return fams, nil
}

func (n node) time(now time.Time) ([]metric.Family, error) {
	zone, offset := now.Local().Zone()
	f := one("node_time_zone_offset_seconds", "How far local time is ahead of UTC.", metric.Gauge, 0, float64(offset))
	f.Series[0].Labels = metric.Labels("time_zone", zone)
	return []metric.Family{
		one("node_time_seconds", "The node's clock, seconds since the epoch.", metric.Gauge, 0, float64(now.UnixMicro())/1e6),
		f,
	}, nil
}

func (n node) uname(time.Time) ([]metric.Family, error) {
	u, err := n.sys.uname()
	if err != nil {
		return nil, err
	}
	f := one("node_uname_info", "Always 1; the labels are what uname says of the kernel and the node.", metric.Gauge, 0, 1)
	f.Series[0].Labels = metric.Labels("sysname", u.sysname, "release", u.release, "version", u.version,
		"machine", u.machine, "nodename", u.nodename, "domainname", u.domainname)
	return []metric.Family{f}, nil
}

// vmstatFields are those that node_exporter shows by default: out-of-memory
// kills, paging, swapping and page faults.
var vmstatFields = regexp.MustCompile(`^(oom_kill|pgpg|pswp|pg.*fault).*`)

func (n node) vmstat(time.Time) ([]metric.Family, error) {
	data, err := os.ReadFile(filepath.Join(n.cfg.Proc, "vmstat"))
	if err != nil {
		return nil, err
	}
	return parseVMStat(string(data), n.start)
}

// parseVMStat reads lines of a name and a number.
func parseVMStat(text string, start int64) ([]metric.Family, error) {
	var fams []metric.Family
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !vmstatFields.MatchString(name) {
			continue
		}
		v, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %q is not a name and a number", strings.TrimSpace(line))
		}
		fams = append(fams, one("node_vmstat_"+name, "The kernel's virtual memory counter "+name+".", metric.Unknown, start, float64(v)))
	}
	return fams, nil
}

func (n node) fileDescriptors(time.Time) ([]metric.Family, error) {
	data, err := os.ReadFile(filepath.Join(n.cfg.Proc, "sys/fs/file-nr"))
	if err != nil {
		return nil, err
	}
	return parseFileNr(string(data))
}

// parseFileNr reads "allocated unused maximum".
func parseFileNr(text string) ([]metric.Family, error) {
	parts := strings.Fields(text)
	if len(parts) != 3 {
		return nil, fmt.Errorf("%q is not three numbers", strings.TrimSpace(text))
	}
	allocated, err1 := strconv.ParseUint(parts[0], 10, 64)
	maximum, err2 := strconv.ParseUint(parts[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%q is not three numbers: %w", strings.TrimSpace(text), err)
	}
	return []metric.Family{
		one("node_filefd_allocated", "File handles in use on the node.", metric.Gauge, 0, float64(allocated)),
		one("node_filefd_maximum", "File handles that the node may use.", metric.Gauge, 0, float64(maximum)),
	}, nil
}
