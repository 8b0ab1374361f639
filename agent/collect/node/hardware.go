package node

import (
	"errors"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs/sysfs"

	"nines/pkg/metric"
)

// sorted turns what procfs has in a map into rows by the map's key.
func sorted[T any](all map[string]T, pairs func(*T) []string) []row[T] {
	rows := make([]row[T], 0, len(all))
	for _, key := range slices.Sorted(maps.Keys(all)) {
		v := all[key]
		rows = append(rows, row[T]{labels(pairs(&v)...), v})
	}
	return rows
}

// optional is a column of a figure that not every device has.
func optional[T, V any](d *def, v func(*T) *V, to func(V) float64) column[T] {
	return column[T]{d, func(r *T) (float64, bool) {
		if p := v(r); p != nil {
			return to(*p), true
		}
		return 0, false
	}}
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

var (
	thermalTemp = gauge("node_thermal_zone_temp", "Temperature of the zone, degrees Celsius.")
	coolingNow  = gauge("node_cooling_device_cur_state", "How much the device cools at this moment, a step.")
	coolingMax  = gauge("node_cooling_device_max_state", "How much the device can cool, a step.")
)

func newThermal(n *node) (func(*tick) error, error) {
	base := n.sysfs("class/thermal")
	zones, coolers := newTyped("zone"), newTyped("name")
	return func(t *tick) error {
		names, err := t.dir(base)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		t.family(thermalTemp)
		for _, name := range names {
			if number, ok := strings.CutPrefix(name, "thermal_zone"); ok && isNumbered(name, "thermal_zone") {
				v, err := t.number(base + "/" + name + "/temp")
				if err != nil { // a zone that is switched off has no temperature
					continue
				}
				t.add(zones.of(t, base+"/"+name, number), v/1000)
			}
		}
		for _, c := range []struct {
			*def
			file string
		}{{coolingNow, "/cur_state"}, {coolingMax, "/max_state"}} {
			t.family(c.def)
			for _, name := range names {
				if number, ok := strings.CutPrefix(name, "cooling_device"); ok && isNumbered(name, "cooling_device") {
					v, err := t.number(base + "/" + name + c.file)
					if err != nil {
						if withheld(err) {
							continue
						}
						return err
					}
					t.add(coolers.of(t, base+"/"+name, number), v)
				}
			}
		}
		return nil
	}, nil
}

// typed makes label sets of a number and the type that a file beside it gives.
type typed struct {
	label string
	known map[string][]metric.Label
}

func newTyped(label string) *typed { return &typed{label, map[string][]metric.Label{}} }

func (d *typed) of(t *tick, dir, number string) []metric.Label {
	kind, err := t.attr(dir + "/type")
	if err != nil {
		kind = nil
	}
	key := number + "\x00" + string(kind)
	if d.known[key] == nil {
		if len(d.known) >= maxCached {
			clear(d.known)
		}
		d.known[key] = labels(d.label, number, "type", string(kind))
	}
	return d.known[key]
}

var dmiInfo = gauge("node_dmi_info", "Always 1; the labels are what the firmware says of the machine.")

// newDMI reads the firmware's words once: they change with the machine.
func newDMI(n *node) (func(*tick) error, error) {
	sys, err := sysfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	var set []metric.Label
	return func(t *tick) error {
		if set == nil {
			d, err := sys.DMIClass()
			if err != nil {
				return err
			}
			set = labels("bios_date", text(d.BiosDate), "bios_release", text(d.BiosRelease), "bios_vendor", text(d.BiosVendor),
				"bios_version", text(d.BiosVersion), "board_asset_tag", text(d.BoardAssetTag), "board_name", text(d.BoardName),
				"board_serial", text(d.BoardSerial), "board_vendor", text(d.BoardVendor), "board_version", text(d.BoardVersion),
				"chassis_asset_tag", text(d.ChassisAssetTag), "chassis_serial", text(d.ChassisSerial), "chassis_vendor", text(d.ChassisVendor),
				"chassis_version", text(d.ChassisVersion), "product_family", text(d.ProductFamily), "product_name", text(d.ProductName),
				"product_serial", text(d.ProductSerial), "product_sku", text(d.ProductSKU), "product_uuid", text(d.ProductUUID),
				"product_version", text(d.ProductVersion), "system_vendor", text(d.SystemVendor))
		}
		t.with(dmiInfo, set, 1)
		return nil
	}, nil
}

var nvmeInfo = gauge("node_nvme_info", "Always 1; the labels say what the device is.")

// nvmeSpace is a namespace of an NVMe device.
type nvmeSpace struct{ size, block, used float64 } // bytes

var (
	nvmeSpaceInfo = gauge("node_nvme_namespace_info", "Always 1; the labels say what state the path to the namespace is in.")
	nvmeColumns   = []column[nvmeSpace]{
		always(gauge("node_nvme_namespace_capacity_bytes", "Bytes that the namespace can hold."), func(s *nvmeSpace) float64 { return s.size }),
		always(gauge("node_nvme_namespace_logical_block_size_bytes", "Bytes of a block of the namespace."), func(s *nvmeSpace) float64 { return s.block }),
		always(gauge("node_nvme_namespace_size_bytes", "Bytes of the namespace."), func(s *nvmeSpace) float64 { return s.size }),
		always(gauge("node_nvme_namespace_used_bytes", "Bytes of the namespace in use."), func(s *nvmeSpace) float64 { return s.used }),
	}
	nvmeNamespace = regexp.MustCompile(`^nvme\d+(c\d+)?n(\d+)$`)
)

// newNVMe reads devices and their namespaces. Sizes in sysfs are of 512 bytes,
// whatever the device's block is; usage is in the device's blocks.
func newNVMe(n *node) (func(*tick) error, error) {
	base := n.sysfs("class/nvme")
	return func(t *tick) error {
		devices, err := t.dir(base)
		if err != nil {
			return err
		}
		word := func(path string) string {
			text, err := t.attr(path)
			if err != nil {
				return ""
			}
			return string(text)
		}
		figure := func(path string) float64 {
			v, err := t.number(path)
			if err != nil {
				return 0
			}
			return v
		}
		t.family(nvmeInfo)
		for _, d := range devices {
			dir := base + "/" + d
			t.add(labels("device", d, "firmware_revision", word(dir+"/firmware_rev"), "model", word(dir+"/model"),
				"serial", word(dir+"/serial"), "state", word(dir+"/state"), "cntlid", word(dir+"/cntlid")), 1)
		}
		var rows []row[nvmeSpace]
		t.family(nvmeSpaceInfo)
		for _, d := range devices {
			names, err := t.dir(base + "/" + d)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			for _, name := range names {
				m := nvmeNamespace.FindStringSubmatch(name)
				if m == nil {
					continue
				}
				dir := base + "/" + d + "/" + name
				id := firstOf(word(dir+"/nsid"), m[2])
				t.add(labels("device", d, "nsid", id, "ana_state", firstOf(word(dir+"/ana_state"), "unknown")), 1)
				block := figure(dir + "/queue/logical_block_size")
				rows = append(rows, row[nvmeSpace]{labels("device", d, "nsid", id),
					nvmeSpace{figure(dir+"/size") * sectorBytes, block, figure(dir+"/nuse") * block}})
			}
		}
		table(&t.page, nvmeColumns, rows)
		return nil
	}, nil
}

// newRAPL reads the energy meters of the processor, each a metric of its own
// name. The kernel shows them to root alone.
func newRAPL(n *node) (func(*tick) error, error) {
	sys, err := sysfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	known := newDefs(func(zone string) *def {
		return counter("node_rapl_"+zone+"_joules_total", "Energy that the part of the processor used.")
	})
	return func(t *tick) error {
		zones, err := sysfs.GetRaplZones(sys)
		if err != nil {
			return err
		}
		slices.SortStableFunc(zones, func(a, b sysfs.RaplZone) int { return strings.Compare(a.Name, b.Name) })
		var open *def
		for _, z := range zones {
			d := known.of([]byte(notOfNames.ReplaceAllString(z.Name, "_")))
			used, err := z.GetEnergyMicrojoules()
			if err != nil {
				return err
			}
			if d != open {
				t.family(d)
				open = d
			}
			t.add(labels("index", strconv.Itoa(z.Index), "path", z.Path), float64(used)/1e6)
		}
		return nil
	}, nil
}

// notOfNames is what must not stand in a metric's name, with the underscores
// around it.
var notOfNames = regexp.MustCompile(`_*[^0-9A-Za-z_]+_*`)

func watchdogColumn(name, help string, v func(*sysfs.WatchdogStats) *int64) column[sysfs.WatchdogStats] {
	return optional(gauge("node_watchdog_"+name, help), v, func(v int64) float64 { return float64(v) })
}

var (
	watchdogInfo    = gauge("node_watchdog_info", "Always 1; the labels say what the watchdog is.")
	watchdogColumns = []column[sysfs.WatchdogStats]{
		watchdogColumn("access_cs0", "Whether the machine started from its second flash.", func(w *sysfs.WatchdogStats) *int64 { return w.AccessCs0 }),
		watchdogColumn("bootstatus", "Bits that say why the machine last started.", func(w *sysfs.WatchdogStats) *int64 { return w.Bootstatus }),
		watchdogColumn("fw_version", "Version of the watchdog's firmware.", func(w *sysfs.WatchdogStats) *int64 { return w.FwVersion }),
		watchdogColumn("nowayout", "1 where the watchdog cannot be stopped.", func(w *sysfs.WatchdogStats) *int64 { return w.Nowayout }),
		watchdogColumn("pretimeout_seconds", "How long before its time the watchdog warns.", func(w *sysfs.WatchdogStats) *int64 { return w.Pretimeout }),
		watchdogColumn("timeleft_seconds", "Time until the watchdog restarts the machine.", func(w *sysfs.WatchdogStats) *int64 { return w.Timeleft }),
		watchdogColumn("timeout_seconds", "Time without a sign of life after which the watchdog restarts the machine.", func(w *sysfs.WatchdogStats) *int64 { return w.Timeout }),
	}
)

func newWatchdog(n *node) (func(*tick) error, error) {
	sys, err := sysfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	return func(t *tick) error {
		all, err := sys.WatchdogClass()
		if err != nil {
			return err
		}
		rows := sorted(all, func(w *sysfs.WatchdogStats) []string { return []string{"name", w.Name} })
		table(&t.page, watchdogColumns, rows)
		t.family(watchdogInfo)
		for i := range rows {
			w := &rows[i].data
			t.add(labels("name", w.Name, "options", text(w.Options), "identity", text(w.Identity), "state", text(w.State),
				"status", text(w.Status), "pretimeout_governor", text(w.PretimeoutGovernor)), 1)
		}
		return nil
	}, nil
}

type fcRow = sysfs.FibreChannelHost

// fcNone is how an adapter says that it does not keep a counter.
const fcNone = 1<<64 - 1

func fcColumn(name, help string, v func(*sysfs.FibreChannelCounters) *uint64) column[fcRow] {
	return column[fcRow]{counter("node_fibrechannel_"+name+"_total", help), func(r *fcRow) (float64, bool) {
		if r.Counters == nil {
			return 0, false
		}
		if p := v(r.Counters); p != nil && *p != fcNone {
			return float64(*p), true
		}
		return 0, false
	}}
}

var (
	fcInfo    = gauge("node_fibrechannel_info", "Always 1; the labels say what the adapter is.")
	fcColumns = []column[fcRow]{
		fcColumn("dumped_frames", "Frames thrown away.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.DumpedFrames }),
		fcColumn("error_frames", "Frames with an error.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.ErrorFrames }),
		fcColumn("fcp_packet_aborts", "Packets that were aborted.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.FCPPacketAborts }),
		fcColumn("invalid_crc", "Frames with a wrong checksum.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.InvalidCRCCount }),
		fcColumn("invalid_tx_words", "Words sent that were invalid.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.InvalidTXWordCount }),
		fcColumn("link_failure", "Times that the link failed.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.LinkFailureCount }),
		fcColumn("loss_of_signal", "Times that the signal was lost.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.LossOfSignalCount }),
		fcColumn("loss_of_sync", "Times that the link fell out of step.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.LossOfSyncCount }),
		fcColumn("nos", "Times that the other side said that it does not work.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.NosCount }),
		fcColumn("rx_frames", "Frames received.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.RXFrames }),
		fcColumn("rx_words", "Words received.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.RXWords }),
		fcColumn("seconds_since_last_reset", "Time since the adapter's counters were set back.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.SecondsSinceLastReset }),
		fcColumn("tx_frames", "Frames sent.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.TXFrames }),
		fcColumn("tx_words", "Words sent.", func(c *sysfs.FibreChannelCounters) *uint64 { return c.TXWords }),
	}
)

func newFibreChannel(n *node) (func(*tick) error, error) {
	sys, err := sysfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	return func(t *tick) error {
		all, err := sys.FibreChannelClass()
		if err != nil {
			return err
		}
		rows := sorted(all, func(h *fcRow) []string { return []string{"fc_host", text(h.Name)} })
		table(&t.page, fcColumns, rows)
		t.family(fcInfo)
		for i := range rows {
			h := &rows[i].data
			t.add(labels("fc_host", text(h.Name), "speed", text(h.Speed), "port_state", text(h.PortState), "port_type", text(h.PortType),
				"port_id", text(h.PortID), "port_name", text(h.PortName), "fabric_name", text(h.FabricName), "symbolic_name", text(h.SymbolicName),
				"supported_classes", text(h.SupportedClasses), "supported_speeds", text(h.SupportedSpeeds), "dev_loss_tmo", text(h.DevLossTMO)), 1)
		}
		return nil
	}, nil
}

var tapeColumns = []column[sysfs.SCSITape]{
	always(gauge("node_tape_io_now", "Requests under way."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.InFlight) }),
	always(counter("node_tape_io_others_total", "Requests other than reads and writes."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.OtherCnt) }),
	always(counter("node_tape_io_time_seconds_total", "Time spent by all requests, moving the tape included."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.IoNs) / 1e9 }),
	always(counter("node_tape_read_bytes_total", "Bytes read."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.ReadByteCnt) }),
	always(counter("node_tape_read_time_seconds_total", "Time spent by all reads."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.ReadNs) / 1e9 }),
	always(counter("node_tape_reads_completed_total", "Reads."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.ReadCnt) }),
	always(counter("node_tape_residual_total", "Reads and writes that moved less than was asked for."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.ResidCnt) }),
	always(counter("node_tape_write_time_seconds_total", "Time spent by all writes."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.WriteNs) / 1e9 }),
	always(counter("node_tape_writes_completed_total", "Writes."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.WriteCnt) }),
	always(counter("node_tape_written_bytes_total", "Bytes written."), func(s *sysfs.SCSITape) float64 { return float64(s.Counters.WriteByteCnt) }),
}

func newTape(n *node) (func(*tick) error, error) {
	sys, err := sysfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	return func(t *tick) error {
		all, err := sys.SCSITapeClass()
		if err != nil {
			return err
		}
		table(&t.page, tapeColumns, sorted(all, func(s *sysfs.SCSITape) []string { return []string{"device", s.Name} }))
		return nil
	}, nil
}

var (
	edacCE        = counter("node_edac_correctable_errors_total", "Errors of memory that were corrected.")
	edacUE        = counter("node_edac_uncorrectable_errors_total", "Errors of memory that could not be corrected.")
	edacRowCE     = counter("node_edac_csrow_correctable_errors_total", "Errors of memory that were corrected, by row of chips.")
	edacRowUE     = counter("node_edac_csrow_uncorrectable_errors_total", "Errors of memory that could not be corrected, by row of chips.")
	edacChannelCE = counter("node_edac_channel_correctable_errors_total", "Errors of memory that were corrected, by channel.")
	edacChannelUE = counter("node_edac_channel_uncorrectable_errors_total", "Errors of memory that could not be corrected, by channel.")
)

// edacCount is one counter of a memory controller.
type edacCount struct {
	*def
	labels []metric.Label
	v      float64
}

func newEDAC(n *node) (func(*tick) error, error) {
	base := n.sysfs("devices/system/edac/mc")
	return func(t *tick) error {
		controllers, err := t.dir(base)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var counts []edacCount
		read := func(d *def, path string, pairs ...string) error {
			v, err := t.number(path)
			if err == nil {
				counts = append(counts, edacCount{d, labels(pairs...), v})
			}
			return err
		}
		for _, c := range controllers {
			if !isNumbered(c, "mc") {
				continue
			}
			dir, mc := base+"/"+c, strings.TrimPrefix(c, "mc")
			err := errors.Join(
				read(edacCE, dir+"/ce_count", "controller", mc), read(edacRowCE, dir+"/ce_noinfo_count", "controller", mc, "csrow", "unknown"),
				read(edacUE, dir+"/ue_count", "controller", mc), read(edacRowUE, dir+"/ue_noinfo_count", "controller", mc, "csrow", "unknown"))
			if err != nil {
				return err
			}
			names, err := t.dir(dir)
			if err != nil {
				return err
			}
			for _, r := range names {
				if !isNumbered(r, "csrow") {
					continue
				}
				rowDir, cs := dir+"/"+r, strings.TrimPrefix(r, "csrow")
				err := errors.Join(read(edacRowCE, rowDir+"/ce_count", "controller", mc, "csrow", cs), read(edacRowUE, rowDir+"/ue_count", "controller", mc, "csrow", cs))
				if err != nil {
					return err
				}
				files, err := t.dir(rowDir)
				if err != nil {
					return err
				}
				for _, f := range files {
					ch, ok := strings.CutSuffix(strings.TrimPrefix(f, "ch"), "_ce_count")
					if !ok || !isNumbered(strings.TrimSuffix(f, "_ce_count"), "ch") {
						continue
					}
					pairs := []string{"controller", mc, "csrow", cs, "channel", ch, "dimm_label", dimm(t, rowDir+"/ch"+ch+"_dimm_label")}
					if err := read(edacChannelCE, rowDir+"/"+f, pairs...); err != nil {
						return err
					}
					if err := read(edacChannelUE, rowDir+"/ch"+ch+"_ue_count", pairs...); err != nil && !withheld(err) {
						return err
					}
				}
			}
		}
		for _, d := range []*def{edacCE, edacUE, edacRowCE, edacRowUE, edacChannelCE, edacChannelUE} {
			t.family(d)
			for _, c := range counts {
				if c.def == d {
					t.add(c.labels, c.v)
				}
			}
		}
		return nil
	}, nil
}

// dimm is the name of a module of memory, written as node_exporter writes it.
func dimm(t *tick, path string) string {
	text, err := t.attr(path)
	if err != nil {
		return "unknown"
	}
	return strings.NewReplacer("#", "", "csrow", "_csrow", "channel", "_channel").Replace(string(text))
}
