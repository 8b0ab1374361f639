package node

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/bcache"
	"github.com/prometheus/procfs/blockdevice"
	"github.com/prometheus/procfs/btrfs"
	"github.com/prometheus/procfs/sysfs"
	"github.com/prometheus/procfs/xfs"

	"nines/pkg/metric"
)

// mdStates are the states of an array, by what /proc/mdstat calls them.
var mdStates = []struct{ label, kernel string }{
	{"active", "active"}, {"inactive", "inactive"}, {"recovering", "recovering"}, {"resync", "resyncing"}, {"check", "checking"},
}

var (
	mdState    = gauge("node_md_state", "1 for the state that the array is in, 0 for the others.")
	mdDisks    = gauge("node_md_disks", "Disks of the array, by what they do.")
	mdDegraded = gauge("node_md_degraded", "Disks that the array lacks.")
	mdRaid     = gauge("node_md_raid_disks", "Disks that the whole array has.")
	mdColumns  = []column[procfs.MDStat]{
		always(gauge("node_md_blocks", "Blocks of the array."), func(m *procfs.MDStat) float64 { return float64(m.BlocksTotal) }),
		always(gauge("node_md_blocks_synced", "Blocks of the array that are the same on all disks."), func(m *procfs.MDStat) float64 { return float64(m.BlocksSynced) }),
		always(gauge("node_md_disks_required", "Disks that the array needs."), func(m *procfs.MDStat) float64 { return float64(m.DisksTotal) }),
	}
)

func newMD(n *node) (func(*tick) error, error) {
	proc, err1 := procfs.NewFS(n.cfg.Proc)
	sys, err2 := sysfs.NewFS(n.cfg.Sys)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return func(t *tick) error {
		all, err := proc.MDStat()
		if err != nil {
			return err
		}
		rows := make([]row[procfs.MDStat], len(all))
		for i, m := range all {
			rows[i] = row[procfs.MDStat]{labels("device", m.Name), m}
		}
		table(&t.page, mdColumns, rows)
		t.family(mdDisks)
		for i := range rows {
			m := &rows[i].data
			t.add(labels("device", m.Name, "state", "active"), float64(m.DisksActive))
			t.add(labels("device", m.Name, "state", "failed"), float64(m.DisksFailed))
			t.add(labels("device", m.Name, "state", "spare"), float64(m.DisksSpare))
		}
		t.family(mdState)
		for i := range rows {
			for _, s := range mdStates {
				t.add(labels("device", rows[i].data.Name, "state", s.label), bit(rows[i].data.ActivityState == s.kernel))
			}
		}
		if len(rows) == 0 && !exists(n.sysfs("block")) {
			return nil
		}
		raids, err := sys.Mdraids()
		if err != nil {
			return err
		}
		t.family(mdDegraded)
		for _, r := range raids {
			t.add(labels("device", r.Device), float64(r.DegradedDisks))
		}
		t.family(mdRaid)
		for _, r := range raids {
			if r.Disks != nil {
				t.add(labels("device", r.Device), float64(*r.Disks))
			}
		}
		return nil
	}, nil
}

// Counters of a file system begin when it is mounted, which nothing tells.
func xfsColumn(name, help string, v func(*xfs.Stats) float64) column[xfs.Stats] {
	return always(counter("node_xfs_"+name, help), v)
}

var xfsColumns = []column[xfs.Stats]{
	xfsColumn("allocation_btree_compares_total", "Comparisons in the tree of free space.", func(s *xfs.Stats) float64 { return float64(s.AllocationBTree.Compares) }),
	xfsColumn("allocation_btree_lookups_total", "Lookups in the tree of free space.", func(s *xfs.Stats) float64 { return float64(s.AllocationBTree.Lookups) }),
	xfsColumn("allocation_btree_records_deleted_total", "Records taken out of the tree of free space.", func(s *xfs.Stats) float64 { return float64(s.AllocationBTree.RecordsDeleted) }),
	xfsColumn("allocation_btree_records_inserted_total", "Records added to the tree of free space.", func(s *xfs.Stats) float64 { return float64(s.AllocationBTree.RecordsInserted) }),
	xfsColumn("block_map_btree_compares_total", "Comparisons in the tree of block maps.", func(s *xfs.Stats) float64 { return float64(s.BlockMapBTree.Compares) }),
	xfsColumn("block_map_btree_lookups_total", "Lookups in the tree of block maps.", func(s *xfs.Stats) float64 { return float64(s.BlockMapBTree.Lookups) }),
	xfsColumn("block_map_btree_records_deleted_total", "Records taken out of the tree of block maps.", func(s *xfs.Stats) float64 { return float64(s.BlockMapBTree.RecordsDeleted) }),
	xfsColumn("block_map_btree_records_inserted_total", "Records added to the tree of block maps.", func(s *xfs.Stats) float64 { return float64(s.BlockMapBTree.RecordsInserted) }),
	xfsColumn("block_mapping_extent_list_compares_total", "Comparisons in lists of extents.", func(s *xfs.Stats) float64 { return float64(s.BlockMapping.ExtentListCompares) }),
	xfsColumn("block_mapping_extent_list_deletions_total", "Extents taken out of lists of files.", func(s *xfs.Stats) float64 { return float64(s.BlockMapping.ExtentListDeletions) }),
	xfsColumn("block_mapping_extent_list_insertions_total", "Extents added to lists of files.", func(s *xfs.Stats) float64 { return float64(s.BlockMapping.ExtentListInsertions) }),
	xfsColumn("block_mapping_extent_list_lookups_total", "Lookups in lists of extents.", func(s *xfs.Stats) float64 { return float64(s.BlockMapping.ExtentListLookups) }),
	xfsColumn("block_mapping_reads_total", "Maps of blocks looked up to read.", func(s *xfs.Stats) float64 { return float64(s.BlockMapping.Reads) }),
	xfsColumn("block_mapping_unmaps_total", "Maps of blocks removed.", func(s *xfs.Stats) float64 { return float64(s.BlockMapping.Unmaps) }),
	xfsColumn("block_mapping_writes_total", "Maps of blocks looked up to write.", func(s *xfs.Stats) float64 { return float64(s.BlockMapping.Writes) }),
	xfsColumn("directory_operation_create_total", "Names added to folders.", func(s *xfs.Stats) float64 { return float64(s.DirectoryOperation.Creates) }),
	xfsColumn("directory_operation_getdents_total", "Listings of folders.", func(s *xfs.Stats) float64 { return float64(s.DirectoryOperation.Getdents) }),
	xfsColumn("directory_operation_lookup_total", "Names looked up in folders.", func(s *xfs.Stats) float64 { return float64(s.DirectoryOperation.Lookups) }),
	xfsColumn("directory_operation_remove_total", "Names taken out of folders.", func(s *xfs.Stats) float64 { return float64(s.DirectoryOperation.Removes) }),
	xfsColumn("extent_allocation_blocks_allocated_total", "Blocks allocated.", func(s *xfs.Stats) float64 { return float64(s.ExtentAllocation.BlocksAllocated) }),
	xfsColumn("extent_allocation_blocks_freed_total", "Blocks freed.", func(s *xfs.Stats) float64 { return float64(s.ExtentAllocation.BlocksFreed) }),
	xfsColumn("extent_allocation_extents_allocated_total", "Extents allocated.", func(s *xfs.Stats) float64 { return float64(s.ExtentAllocation.ExtentsAllocated) }),
	xfsColumn("extent_allocation_extents_freed_total", "Extents freed.", func(s *xfs.Stats) float64 { return float64(s.ExtentAllocation.ExtentsFreed) }),
	xfsColumn("inode_operation_attempts_total", "Inodes looked for in the cache.", func(s *xfs.Stats) float64 { return float64(s.InodeOperation.Attempts) }),
	xfsColumn("inode_operation_attribute_changes_total", "Changes of attributes of inodes.", func(s *xfs.Stats) float64 { return float64(s.InodeOperation.AttributeChange) }),
	xfsColumn("inode_operation_duplicates_total", "Inodes that another task had put into the cache in the meantime.", func(s *xfs.Stats) float64 { return float64(s.InodeOperation.Duplicate) }),
	xfsColumn("inode_operation_found_total", "Inodes found in the cache.", func(s *xfs.Stats) float64 { return float64(s.InodeOperation.Found) }),
	xfsColumn("inode_operation_missed_total", "Inodes not found in the cache.", func(s *xfs.Stats) float64 { return float64(s.InodeOperation.Missed) }),
	xfsColumn("inode_operation_reclaims_total", "Inodes taken out of the cache to free memory.", func(s *xfs.Stats) float64 { return float64(s.InodeOperation.Reclaims) }),
	xfsColumn("inode_operation_recycled_total", "Inodes found in the cache while they were being recycled.", func(s *xfs.Stats) float64 { return float64(s.InodeOperation.Recycle) }),
	xfsColumn("read_calls_total", "Calls to read files.", func(s *xfs.Stats) float64 { return float64(s.ReadWrite.Read) }),
	xfsColumn("vnode_active_total", "Vnodes in use.", func(s *xfs.Stats) float64 { return float64(s.Vnode.Active) }),
	xfsColumn("vnode_allocate_total", "Vnodes allocated.", func(s *xfs.Stats) float64 { return float64(s.Vnode.Allocate) }),
	xfsColumn("vnode_get_total", "Vnodes taken.", func(s *xfs.Stats) float64 { return float64(s.Vnode.Get) }),
	xfsColumn("vnode_hold_total", "Vnodes held.", func(s *xfs.Stats) float64 { return float64(s.Vnode.Hold) }),
	xfsColumn("vnode_reclaim_total", "Vnodes reclaimed.", func(s *xfs.Stats) float64 { return float64(s.Vnode.Reclaim) }),
	xfsColumn("vnode_release_total", "Vnodes released.", func(s *xfs.Stats) float64 { return float64(s.Vnode.Release) }),
	xfsColumn("vnode_remove_total", "Vnodes removed.", func(s *xfs.Stats) float64 { return float64(s.Vnode.Remove) }),
	xfsColumn("write_calls_total", "Calls to write files.", func(s *xfs.Stats) float64 { return float64(s.ReadWrite.Write) }),
}

func newXFS(n *node) (func(*tick) error, error) {
	sys, err := xfs.NewFS(n.cfg.Proc, n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	base := n.sysfs("fs/xfs")
	return func(t *tick) error {
		if !exists(base) {
			return nil
		}
		all, err := sys.SysStats()
		if err != nil {
			return err
		}
		rows := make([]row[xfs.Stats], len(all))
		for i, s := range all {
			rows[i] = row[xfs.Stats]{labels("device", s.Name), *s}
		}
		table(&t.page, xfsColumns, rows)
		return nil
	}, nil
}

var (
	btrfsInfo     = gauge("node_btrfs_info", "Always 1; the labels name the file system.")
	btrfsDevice   = gauge("node_btrfs_device_size_bytes", "Bytes of a device of the file system.")
	btrfsReserved = gauge("node_btrfs_reserved_bytes", "Bytes set aside for a kind of data.")
	btrfsColumns  = []column[btrfs.Stats]{
		always(counter("node_btrfs_commit_seconds_total", "Time spent by all commits."), func(s *btrfs.Stats) float64 { return seconds(s.CommitStats.TotalCommitMs) }),
		always(counter("node_btrfs_commits_total", "Commits."), func(s *btrfs.Stats) float64 { return float64(s.CommitStats.Commits) }),
		always(gauge("node_btrfs_global_rsv_size_bytes", "Bytes set aside for the file system itself."), func(s *btrfs.Stats) float64 { return float64(s.Allocation.GlobalRsvSize) }),
		always(gauge("node_btrfs_last_commit_seconds", "Time that the newest commit took."), func(s *btrfs.Stats) float64 { return seconds(s.CommitStats.LastCommitMs) }),
		always(gauge("node_btrfs_max_commit_seconds", "Time that the slowest commit took."), func(s *btrfs.Stats) float64 { return seconds(s.CommitStats.MaxCommitMs) }),
	}
	btrfsLayouts = []column[btrfs.LayoutUsage]{
		always(gauge("node_btrfs_allocation_ratio", "Bytes on disk for each byte of data, by kind of data and layout."), func(l *btrfs.LayoutUsage) float64 { return l.Ratio }),
		always(gauge("node_btrfs_size_bytes", "Bytes given to a kind of data, by layout."), func(l *btrfs.LayoutUsage) float64 { return float64(l.TotalBytes) }),
		always(gauge("node_btrfs_used_bytes", "Bytes used by a kind of data, by layout."), func(l *btrfs.LayoutUsage) float64 { return float64(l.UsedBytes) }),
	}
)

// newBtrfs reads what sysfs tells. Errors of single devices, which node_exporter
// asks of each mounted file system by ioctl where it runs as root, are left out.
func newBtrfs(n *node) (func(*tick) error, error) {
	sys, err := btrfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	base := n.sysfs("fs/btrfs")
	return func(t *tick) error {
		if !exists(base) {
			return nil
		}
		all, err := sys.Stats()
		if err != nil {
			return err
		}
		rows := make([]row[btrfs.Stats], len(all))
		var layouts []row[btrfs.LayoutUsage]
		t.family(btrfsInfo)
		for i, s := range all {
			rows[i] = row[btrfs.Stats]{labels("uuid", s.UUID), *s}
			t.add(labels("uuid", s.UUID, "label", s.Label), 1)
		}
		t.family(btrfsDevice)
		for _, s := range all {
			for _, name := range slices.Sorted(maps.Keys(s.Devices)) {
				t.add(labels("uuid", s.UUID, "device", name), float64(s.Devices[name].Size))
			}
		}
		t.family(btrfsReserved)
		for _, s := range all {
			for _, a := range []struct {
				kind string
				*btrfs.AllocationStats
			}{{"data", s.Allocation.Data}, {"metadata", s.Allocation.Metadata}, {"system", s.Allocation.System}} {
				if a.AllocationStats == nil {
					continue
				}
				t.add(labels("uuid", s.UUID, "block_group_type", a.kind), float64(a.ReservedBytes))
				for _, mode := range slices.Sorted(maps.Keys(a.Layouts)) {
					layouts = append(layouts, row[btrfs.LayoutUsage]{labels("uuid", s.UUID, "block_group_type", a.kind, "mode", mode), *a.Layouts[mode]})
				}
			}
		}
		table(&t.page, btrfsColumns, rows)
		table(&t.page, btrfsLayouts, layouts)
		return nil
	}, nil
}

func bcacheGauge(name, help string, v func(*bcache.BcacheStats) float64) column[bcache.BcacheStats] {
	return always(gauge("node_bcache_"+name, help), v)
}

func bcacheCounter(name, help string, v func(*bcache.PeriodStats) uint64) column[bcache.BdevStats] {
	return always(counter("node_bcache_"+name+"_total", help), func(b *bcache.BdevStats) float64 { return float64(v(&b.Total)) })
}

var (
	bcacheColumns = []column[bcache.BcacheStats]{
		bcacheGauge("active_journal_entries", "Entries of the journal that are newer than the index.", func(s *bcache.BcacheStats) float64 { return float64(s.Internal.ActiveJournalEntries) }),
		bcacheGauge("average_key_size_sectors", "Data for each key of the index, sectors.", func(s *bcache.BcacheStats) float64 { return float64(s.AverageKeySize) }),
		bcacheGauge("btree_cache_size_bytes", "Memory of the index.", func(s *bcache.BcacheStats) float64 { return float64(s.BtreeCacheSize) }),
		bcacheGauge("btree_nodes", "Nodes of the index.", func(s *bcache.BcacheStats) float64 { return float64(s.Internal.BtreeNodes) }),
		bcacheGauge("btree_read_average_duration_seconds", "Time that it takes to read a node of the index, averaged.", func(s *bcache.BcacheStats) float64 {
			return float64(s.Internal.BtreeReadAverageDurationMicroSeconds) / 1e6
		}),
		bcacheGauge("cache_available_percent", "Part of the cache without data that waits to be written, in percent.", func(s *bcache.BcacheStats) float64 { return float64(s.CacheAvailablePercent) }),
		always(counter("node_bcache_cache_read_races_total", "Reads during which what was read was thrown out of the cache."), func(s *bcache.BcacheStats) float64 { return float64(s.Internal.CacheReadRaces) }),
		bcacheGauge("congested", "Whether the cache is too slow to be used at this moment.", func(s *bcache.BcacheStats) float64 { return float64(s.Congested) }),
		bcacheGauge("root_usage_percent", "Part of the index' root that is in use, in percent.", func(s *bcache.BcacheStats) float64 { return float64(s.RootUsagePercent) }),
		bcacheGauge("tree_depth", "Depth of the index.", func(s *bcache.BcacheStats) float64 { return float64(s.TreeDepth) }),
	}
	bcacheBacking = []column[bcache.BdevStats]{
		bcacheCounter("bypassed_bytes", "Bytes that went past the cache.", func(p *bcache.PeriodStats) uint64 { return p.Bypassed }),
		bcacheCounter("cache_bypass_hits", "Requests past the cache whose data was in it.", func(p *bcache.PeriodStats) uint64 { return p.CacheBypassHits }),
		bcacheCounter("cache_bypass_misses", "Requests past the cache whose data was not in it.", func(p *bcache.PeriodStats) uint64 { return p.CacheBypassMisses }),
		bcacheCounter("cache_hits", "Requests whose data was in the cache.", func(p *bcache.PeriodStats) uint64 { return p.CacheHits }),
		bcacheCounter("cache_miss_collisions", "Times that data was being put into the cache while it was written.", func(p *bcache.PeriodStats) uint64 { return p.CacheMissCollisions }),
		bcacheCounter("cache_misses", "Requests whose data was not in the cache.", func(p *bcache.PeriodStats) uint64 { return p.CacheMisses }),
		{counter("node_bcache_cache_readaheads_total", "Times that data was read ahead."), func(b *bcache.BdevStats) (float64, bool) {
			return float64(b.Total.CacheReadaheads), b.Total.CacheReadaheads != 0 // kernels since 5.13 keep no count
		}},
		always(gauge("node_bcache_dirty_data_bytes", "Bytes that wait to be written to the device behind the cache."), func(b *bcache.BdevStats) float64 { return float64(b.DirtyData) }),
		always(gauge("node_bcache_dirty_target_bytes", "Bytes that shall wait to be written."), func(b *bcache.BdevStats) float64 { return float64(b.WritebackRateDebug.Target) }),
		always(gauge("node_bcache_writeback_change", "Last change of the rate of writing."), func(b *bcache.BdevStats) float64 { return float64(b.WritebackRateDebug.Change) }),
		always(gauge("node_bcache_writeback_rate", "Rate of writing, bytes a second."), func(b *bcache.BdevStats) float64 { return float64(b.WritebackRateDebug.Rate) }),
		always(gauge("node_bcache_writeback_rate_integral_term", "Part of the rate of writing that comes of the past."), func(b *bcache.BdevStats) float64 { return float64(b.WritebackRateDebug.Integral) }),
		always(gauge("node_bcache_writeback_rate_proportional_term", "Part of the rate of writing that comes of what waits now."), func(b *bcache.BdevStats) float64 { return float64(b.WritebackRateDebug.Proportional) }),
	}
	bcacheCaches = []column[bcache.CacheStats]{
		always(gauge("node_bcache_io_errors", "Errors of the cache's device, older ones counting less."), func(c *bcache.CacheStats) float64 { return float64(c.IOErrors) }),
		always(counter("node_bcache_metadata_written_bytes_total", "Bytes written to the cache's device that are no data."), func(c *bcache.CacheStats) float64 { return float64(c.MetadataWritten) }),
		always(counter("node_bcache_written_bytes_total", "Bytes written to the cache's device."), func(c *bcache.CacheStats) float64 { return float64(c.Written) }),
	}
)

func newBcache(n *node) (func(*tick) error, error) {
	sys, err := bcache.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	base := n.sysfs("fs/bcache")
	return func(t *tick) error {
		if !exists(base) {
			return nil
		}
		all, err := sys.StatsWithoutPriority()
		if err != nil {
			return err
		}
		var sets []row[bcache.BcacheStats]
		var backing []row[bcache.BdevStats]
		var caches []row[bcache.CacheStats]
		for _, s := range all {
			sets = append(sets, row[bcache.BcacheStats]{labels("uuid", s.Name), s.Bcache})
			for _, b := range s.Bdevs {
				backing = append(backing, row[bcache.BdevStats]{labels("uuid", s.Name, "backing_device", b.Name), b})
			}
			for _, c := range s.Caches {
				caches = append(caches, row[bcache.CacheStats]{labels("uuid", s.Name, "cache_device", c.Name), c})
			}
		}
		table(&t.page, bcacheColumns, sets)
		table(&t.page, bcacheBacking, backing)
		table(&t.page, bcacheCaches, caches)
		return nil
	}, nil
}

type pathsRow = blockdevice.DMMultipathDevice

// usable says that a path to a disk works, by its state in SCSI or NVMe.
func usable(p blockdevice.DMMultipathPath) bool { return p.State == "running" || p.State == "live" }

func countPaths(d *pathsRow, want bool) float64 {
	n := 0
	for _, p := range d.Paths {
		if usable(p) == want {
			n++
		}
	}
	return float64(n)
}

var (
	multipathInfo    = gauge("node_dmmultipath_device_info", "Always 1; the labels name the device.")
	multipathState   = gauge("node_dmmultipath_path_state", "Always 1; the label says which state a path is in.")
	multipathColumns = []column[pathsRow]{
		always(gauge("node_dmmultipath_device_active", "1 where the device can be used, 0 while it is suspended."), func(d *pathsRow) float64 { return bit(!d.Suspended) }),
		always(gauge("node_dmmultipath_device_paths", "Paths to the device."), func(d *pathsRow) float64 { return float64(len(d.Paths)) }),
		always(gauge("node_dmmultipath_device_paths_active", "Paths to the device that work."), func(d *pathsRow) float64 { return countPaths(d, true) }),
		always(gauge("node_dmmultipath_device_paths_failed", "Paths to the device that do not work."), func(d *pathsRow) float64 { return countPaths(d, false) }),
		always(gauge("node_dmmultipath_device_size_bytes", "Bytes of the device."), func(d *pathsRow) float64 { return float64(d.SizeBytes) }),
	}
)

func newMultipath(n *node) (func(*tick) error, error) {
	block, err := blockdevice.NewFS(n.cfg.Proc, n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	return func(t *tick) error {
		all, err := block.DMMultipathDevices()
		if err != nil {
			return err
		}
		rows := make([]row[pathsRow], len(all))
		t.family(multipathInfo)
		for i, d := range all {
			rows[i] = row[pathsRow]{labels("device", d.Name, "sysfs_name", d.SysfsName), d}
			t.add(labels("device", d.Name, "sysfs_name", d.SysfsName, "uuid", d.UUID), 1)
		}
		table(&t.page, multipathColumns, rows)
		t.family(multipathState)
		for _, d := range all {
			for _, p := range d.Paths {
				t.add(labels("device", d.Name, "path", p.Device, "state", p.State), 1)
			}
		}
		return nil
	}, nil
}

var (
	ipvsColumns = []column[procfs.IPVSStats]{
		always(counter("node_ipvs_connections_total", "Connections made."), func(s *procfs.IPVSStats) float64 { return float64(s.Connections) }),
		always(counter("node_ipvs_incoming_bytes_total", "Bytes that came in."), func(s *procfs.IPVSStats) float64 { return float64(s.IncomingBytes) }),
		always(counter("node_ipvs_incoming_packets_total", "Packets that came in."), func(s *procfs.IPVSStats) float64 { return float64(s.IncomingPackets) }),
		always(counter("node_ipvs_outgoing_bytes_total", "Bytes that went out."), func(s *procfs.IPVSStats) float64 { return float64(s.OutgoingBytes) }),
		always(counter("node_ipvs_outgoing_packets_total", "Packets that went out."), func(s *procfs.IPVSStats) float64 { return float64(s.OutgoingPackets) }),
	}
	ipvsBackends = []column[procfs.IPVSBackendStatus]{
		always(gauge("node_ipvs_backend_connections_active", "Connections of the backend in use."), func(b *procfs.IPVSBackendStatus) float64 { return float64(b.ActiveConn) }),
		always(gauge("node_ipvs_backend_connections_inactive", "Connections of the backend not in use."), func(b *procfs.IPVSBackendStatus) float64 { return float64(b.InactConn) }),
		always(gauge("node_ipvs_backend_weight", "Weight of the backend."), func(b *procfs.IPVSBackendStatus) float64 { return float64(b.Weight) }),
	}
)

func newIPVS(n *node) (func(*tick) error, error) {
	proc, err := procfs.NewFS(n.self)
	if err != nil {
		return nil, err
	}
	stats := n.net("ip_vs_stats")
	return func(t *tick) error {
		if !exists(stats) {
			return &fs.PathError{Op: "open", Path: stats, Err: fs.ErrNotExist}
		}
		total, err := proc.IPVSStats()
		if err != nil {
			return err
		}
		backends, err := proc.IPVSBackendStatus()
		if err != nil {
			return err
		}
		table(&t.page, ipvsColumns, []row[procfs.IPVSStats]{{nil, total}})
		rows := make([]row[procfs.IPVSBackendStatus], 0, len(backends))
		at := map[string]int{}
		for _, b := range backends {
			local := ""
			if len(b.LocalAddress) > 0 {
				local = b.LocalAddress.String()
			}
			ls := labels("local_address", local, "local_mark", b.LocalMark, "local_port", strconv.Itoa(int(b.LocalPort)),
				"proto", b.Proto, "remote_address", b.RemoteAddress.String(), "remote_port", strconv.Itoa(int(b.RemotePort)))
			// A backend may stand there more than once, such as by two schedulers.
			key := keyOf(ls)
			if i, ok := at[key]; ok {
				rows[i].data.ActiveConn += b.ActiveConn
				rows[i].data.InactConn += b.InactConn
				rows[i].data.Weight += b.Weight
				continue
			}
			at[key] = len(rows)
			rows = append(rows, row[procfs.IPVSBackendStatus]{ls, b})
		}
		table(&t.page, ipvsBackends, rows)
		return nil
	}, nil
}

// keyOf tells label sets apart.
func keyOf(ls []metric.Label) string {
	var b []byte
	for _, l := range ls {
		b = append(append(append(append(b, l.Name...), 0xff), l.Value...), 0xff)
	}
	return string(b)
}
