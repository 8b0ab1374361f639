package node

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs/blockdevice"

	"nines/pkg/metric"
)

// notDisks are memory disks, loop devices and partitions: their work is
// counted at the whole disk already, or is none. The same as node_exporter's.
var notDisks = regexp.MustCompile(`^(z?ram|loop|fd|(h|s|v|xv)d[a-z]+|nvme\d+n\d+p|mmcblk\d+p)\d+$`)

// sectorBytes is the kernel's unit in diskstats, whatever the disk's own is.
const sectorBytes = 512

func (n node) disks(time.Time) ([]metric.Family, error) {
	all, err := n.block.ProcDiskstats()
	if err != nil {
		return nil, err
	}
	return diskFamilies(all, n.start), nil
}

func diskFamilies(all []blockdevice.Diskstats, start int64) []metric.Family {
	var rows, infos []row[blockdevice.Diskstats]
	for _, d := range all {
		if notDisks.MatchString(d.DeviceName) {
			continue
		}
		rows = append(rows, row[blockdevice.Diskstats]{metric.Labels("device", d.DeviceName), d})
		infos = append(infos, row[blockdevice.Diskstats]{metric.Labels("device", d.DeviceName,
			"major", strconv.FormatUint(uint64(d.MajorNumber), 10),
			"minor", strconv.FormatUint(uint64(d.MinorNumber), 10)), d})
	}
	fams := append(table(diskInfo, infos, 0), table(diskColumns, rows, start)...)
	slices.SortFunc(fams, func(a, b metric.Family) int { return strings.Compare(a.Name, b.Name) })
	return fams
}

// Diskstats got discards with Linux 4.18 (18 fields) and flushes with 5.5 (20).
func hasDiscards(d blockdevice.Diskstats) bool { return d.IoStatsCount >= 18 }
func hasFlushes(d blockdevice.Diskstats) bool  { return d.IoStatsCount >= 20 }

func seconds(ms uint64) float64 { return float64(ms) / 1000 }

var diskInfo = []column[blockdevice.Diskstats]{
	{"node_disk_info", "Always 1; the labels say which device it is.", metric.Gauge,
		func(blockdevice.Diskstats) float64 { return 1 }, nil},
}

var diskColumns = []column[blockdevice.Diskstats]{
	{"node_disk_discard_time_seconds_total", "Time spent by all discards.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return seconds(d.DiscardTicks) }, hasDiscards},
	{"node_disk_discarded_sectors_total", "Sectors of 512 bytes that were discarded.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.DiscardSectors) }, hasDiscards},
	{"node_disk_discards_completed_total", "Discards that ended well.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.DiscardIOs) }, hasDiscards},
	{"node_disk_discards_merged_total", "Discards merged into a neighbour's.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.DiscardMerges) }, hasDiscards},
	{"node_disk_flush_requests_time_seconds_total", "Time spent by all flushes.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return seconds(d.TimeSpentFlushing) }, hasFlushes},
	{"node_disk_flush_requests_total", "Flushes that ended well.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.FlushRequestsCompleted) }, hasFlushes},
	{"node_disk_io_now", "Requests under way.", metric.Gauge,
		func(d blockdevice.Diskstats) float64 { return float64(d.IOsInProgress) }, nil},
	{"node_disk_io_time_seconds_total", "Time in which at least one request was under way.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return seconds(d.IOsTotalTicks) }, nil},
	{"node_disk_io_time_weighted_seconds_total", "Time of all requests under way, added up.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return seconds(d.WeightedIOTicks) }, nil},
	{"node_disk_read_bytes_total", "Bytes read.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.ReadSectors) * sectorBytes }, nil},
	{"node_disk_read_time_seconds_total", "Time spent by all reads.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return seconds(d.ReadTicks) }, nil},
	{"node_disk_reads_completed_total", "Reads that ended well.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.ReadIOs) }, nil},
	{"node_disk_reads_merged_total", "Reads merged into a neighbour's.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.ReadMerges) }, nil},
	{"node_disk_write_time_seconds_total", "Time spent by all writes.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return seconds(d.WriteTicks) }, nil},
	{"node_disk_writes_completed_total", "Writes that ended well.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.WriteIOs) }, nil},
	{"node_disk_writes_merged_total", "Writes merged into a neighbour's.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.WriteMerges) }, nil},
	{"node_disk_written_bytes_total", "Bytes written.", metric.Counter,
		func(d blockdevice.Diskstats) float64 { return float64(d.WriteSectors) * sectorBytes }, nil},
}
