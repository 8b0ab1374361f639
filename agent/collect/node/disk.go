package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"nines/pkg/metric"
)

// sectorBytes is the kernel's unit in diskstats, whatever the disk's own is.
const sectorBytes = 512

// The figures of a line of /proc/diskstats, behind major, minor and name; see
// Documentation/admin-guide/iostats.rst. Discards came with Linux 4.18, flushes
// with 5.5.
const (
	diskReads = iota
	diskReadsMerged
	diskReadSectors
	diskReadMS
	diskWrites
	diskWritesMerged
	diskWriteSectors
	diskWriteMS
	diskNow
	diskMS
	diskWeightedMS
	diskDiscards
	diskDiscardsMerged
	diskDiscardSectors
	diskDiscardMS
	diskFlushes
	diskFlushMS
	diskFigures
)

// diskRow are the figures of a disk; n of them were there.
type diskRow struct {
	v    [diskFigures]uint64
	n    int
	disk *disk
}

// disk is what is kept of a disk from tick to tick.
type disk struct {
	major, minor uint64
	labels       []metric.Label // its name
	props        diskProps
	read         time.Time // when props were read
}

// diskProps are what udev and sysfs say of a disk.
type diskProps struct {
	info, filesystem, mapper  []metric.Label // nil where there is none
	cache, cacheOn, rotations *float64
}

// diskPropsEvery is how often udev is asked again about a disk that is still the
// same: a file system may be made on it, or a volume renamed.
const diskPropsEvery = time.Minute

var (
	diskInfo       = gauge("node_disk_info", "Always 1; the labels say which device it is.")
	diskFilesystem = gauge("node_disk_filesystem_info", "Always 1; the labels say which file system is on the device.")
	diskMapper     = gauge("node_disk_device_mapper_info", "Always 1; the labels say what the device mapper made the device of.")
)

func diskColumn(d *def, i int, scale func(uint64) float64) column[diskRow] {
	return column[diskRow]{d, func(r *diskRow) (float64, bool) { return scale(r.v[i]), i < r.n }}
}

func count(v uint64) float64   { return float64(v) }
func seconds(v uint64) float64 { return float64(v) / 1000 }
func sectors(v uint64) float64 { return float64(v) * sectorBytes }

func diskProp(d *def, v func(*diskProps) *float64) column[diskRow] {
	return column[diskRow]{d, func(r *diskRow) (float64, bool) {
		if p := v(&r.disk.props); p != nil {
			return *p, true
		}
		return 0, false
	}}
}

var diskColumns = []column[diskRow]{
	diskProp(gauge("node_disk_ata_rotation_rate_rpm", "Rotations of the disk in a minute, 0 where nothing rotates."), func(p *diskProps) *float64 { return p.rotations }),
	diskProp(gauge("node_disk_ata_write_cache", "1 where the disk has a cache for writes."), func(p *diskProps) *float64 { return p.cache }),
	diskProp(gauge("node_disk_ata_write_cache_enabled", "1 where the disk's cache for writes is on."), func(p *diskProps) *float64 { return p.cacheOn }),
	diskColumn(kernelCounter("node_disk_discard_time_seconds_total", "Time spent by all discards."), diskDiscardMS, seconds),
	diskColumn(kernelCounter("node_disk_discarded_sectors_total", "Sectors of 512 bytes that were discarded."), diskDiscardSectors, count),
	diskColumn(kernelCounter("node_disk_discards_completed_total", "Discards that ended well."), diskDiscards, count),
	diskColumn(kernelCounter("node_disk_discards_merged_total", "Discards merged into a neighbour's."), diskDiscardsMerged, count),
	diskColumn(kernelCounter("node_disk_flush_requests_time_seconds_total", "Time spent by all flushes."), diskFlushMS, seconds),
	diskColumn(kernelCounter("node_disk_flush_requests_total", "Flushes that ended well."), diskFlushes, count),
	diskColumn(gauge("node_disk_io_now", "Requests under way."), diskNow, count),
	diskColumn(kernelCounter("node_disk_io_time_seconds_total", "Time in which at least one request was under way."), diskMS, seconds),
	diskColumn(kernelCounter("node_disk_io_time_weighted_seconds_total", "Time of all requests under way, added up."), diskWeightedMS, seconds),
	diskColumn(kernelCounter("node_disk_read_bytes_total", "Bytes read."), diskReadSectors, sectors),
	diskColumn(kernelCounter("node_disk_read_time_seconds_total", "Time spent by all reads."), diskReadMS, seconds),
	diskColumn(kernelCounter("node_disk_reads_completed_total", "Reads that ended well."), diskReads, count),
	diskColumn(kernelCounter("node_disk_reads_merged_total", "Reads merged into a neighbour's."), diskReadsMerged, count),
	diskColumn(kernelCounter("node_disk_write_time_seconds_total", "Time spent by all writes."), diskWriteMS, seconds),
	diskColumn(kernelCounter("node_disk_writes_completed_total", "Writes that ended well."), diskWrites, count),
	diskColumn(kernelCounter("node_disk_writes_merged_total", "Writes merged into a neighbour's."), diskWritesMerged, count),
	diskColumn(kernelCounter("node_disk_written_bytes_total", "Bytes written."), diskWriteSectors, sectors),
}

type disks struct {
	*node
	exclude *exclude
	known   map[string]*disk // bounded by maxCached
	rows    []row[diskRow]
}

func newDisks(n *node) (func(*tick) error, error) {
	d := &disks{node: n, exclude: newExclude(n.patterns.disks), known: map[string]*disk{}}
	return d.read, nil
}

func (d *disks) read(t *tick) error {
	text, err := t.file(d.proc("diskstats"))
	if err != nil {
		return err
	}
	if err := d.parse(text); err != nil {
		return err
	}
	for i := range d.rows {
		if k := d.rows[i].data.disk; t.now.Sub(k.read) >= diskPropsEvery || t.now.Before(k.read) {
			k.props, k.read = d.props(t, k), t.now
		}
	}
	t.family(diskInfo)
	for i := range d.rows {
		t.add(d.rows[i].data.disk.props.info, 1)
	}
	t.family(diskFilesystem)
	for i := range d.rows {
		if ls := d.rows[i].data.disk.props.filesystem; ls != nil {
			t.add(ls, 1)
		}
	}
	t.family(diskMapper)
	for i := range d.rows {
		if ls := d.rows[i].data.disk.props.mapper; ls != nil {
			t.add(ls, 1)
		}
	}
	table(&t.page, diskColumns, d.rows)
	return nil
}

// parse reads /proc/diskstats into rows.
func (d *disks) parse(text []byte) error {
	d.rows = d.rows[:0]
	for len(text) > 0 {
		l := line(&text)
		whole := l
		f := field(&l)
		if len(f) == 0 {
			continue
		}
		major, ok1 := uintOf(f)
		minor, ok2 := uintOf(field(&l))
		name := field(&l)
		if !ok1 || !ok2 || len(name) == 0 {
			return malformed(whole, "the figures of a disk")
		}
		if d.exclude.out(name) {
			continue
		}
		var r diskRow
		for ; r.n < diskFigures; r.n++ {
			f := field(&l)
			if len(f) == 0 {
				break
			}
			var ok bool
			if r.v[r.n], ok = uintOf(f); !ok {
				return malformed(whole, "the figures of a disk")
			}
		}
		if r.n <= diskWeightedMS {
			return malformed(whole, "the figures of a disk")
		}
		k := d.known[string(name)]
		if k == nil || k.major != major || k.minor != minor {
			if len(d.known) >= maxCached {
				clear(d.known)
			}
			k = &disk{major: major, minor: minor, labels: labels("device", string(name))}
			d.known[string(name)] = k
		}
		r.disk = k
		d.rows = append(d.rows, row[diskRow]{k.labels, r})
	}
	return nil
}

// props asks udev's data and sysfs about a disk. What they do not tell is left
// out; udev's data is not there in containers that do not mount it.
func (d *disks) props(t *tick, k *disk) diskProps {
	name := k.labels[0].Value
	rotational := "0"
	if v, err := t.number(d.sysfs("block/" + name + "/queue/rotational")); err == nil && v == 1 {
		rotational = "1"
	}
	major, minor := strconv.FormatUint(k.major, 10), strconv.FormatUint(k.minor, 10)
	var p diskProps
	text, err := t.file(fmt.Sprintf("%s/b%s:%s", d.cfg.udev(), major, minor))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		text = nil
	}
	u := parseUdev(text)
	p.info = labels("device", name, "major", major, "minor", minor, "rotational", rotational,
		"path", u["ID_PATH"], "wwn", u["ID_WWN"], "model", u["ID_MODEL"], "revision", u["ID_REVISION"],
		"serial", firstOf(u["SCSI_IDENT_SERIAL"], u["ID_SERIAL_SHORT"], u["ID_SERIAL"]))
	if u["ID_FS_TYPE"] != "" {
		p.filesystem = labels("device", name, "type", u["ID_FS_TYPE"], "usage", u["ID_FS_USAGE"], "uuid", u["ID_FS_UUID"], "version", u["ID_FS_VERSION"])
	}
	if u["DM_NAME"] != "" {
		p.mapper = labels("device", name, "name", u["DM_NAME"], "uuid", u["DM_UUID"], "vg_name", u["DM_VG_NAME"], "lv_name", u["DM_LV_NAME"], "lv_layer", u["DM_LV_LAYER"])
	}
	if u["ID_ATA"] != "" {
		for key, to := range map[string]**float64{
			"ID_ATA_WRITE_CACHE": &p.cache, "ID_ATA_WRITE_CACHE_ENABLED": &p.cacheOn, "ID_ATA_ROTATION_RATE_RPM": &p.rotations,
		} {
			if v, err := strconv.ParseFloat(u[key], 64); err == nil {
				*to = &v
			}
		}
	}
	return p
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// parseUdev reads the properties of a device, the lines E:KEY=VALUE.
func parseUdev(text []byte) map[string]string {
	props := map[string]string{}
	for len(text) > 0 {
		l, ok := bytes.CutPrefix(line(&text), []byte("E:"))
		if !ok {
			continue
		}
		if key, value, ok := bytes.Cut(l, []byte("=")); ok {
			props[string(key)] = string(value)
		}
	}
	return props
}
