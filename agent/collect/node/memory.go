package node

import (
	"time"

	"github.com/prometheus/procfs"

	"nines/pkg/metric"
)

func (n node) memory(time.Time) ([]metric.Family, error) {
	m, err := n.proc.Meminfo()
	if err != nil {
		return nil, err
	}
	return memoryFamilies(m), nil
}

// memoryFamilies leaves out what this kernel does not tell.
func memoryFamilies(m procfs.Meminfo) []metric.Family {
	var fams []metric.Family
	for _, f := range []struct {
		name, help string
		value      *uint64
	}{
		{"Active_anon_bytes", "Anonymous memory used lately.", m.ActiveAnonBytes},
		{"Active_bytes", "Memory used lately, given back last.", m.ActiveBytes},
		{"Active_file_bytes", "Page cache used lately.", m.ActiveFileBytes},
		{"AnonHugePages_bytes", "Anonymous memory in huge pages.", m.AnonHugePagesBytes},
		{"AnonPages_bytes", "Memory of processes that no file backs.", m.AnonPagesBytes},
		{"Bounce_bytes", "Bounce buffers of block devices.", m.BounceBytes},
		{"Buffers_bytes", "Buffers of raw block devices.", m.BuffersBytes},
		{"Cached_bytes", "Page cache, shared memory included.", m.CachedBytes},
		{"CmaFree_bytes", "Free part of the contiguous allocator's memory.", m.CmaFreeBytes},
		{"CmaTotal_bytes", "Memory of the contiguous allocator.", m.CmaTotalBytes},
		{"CommitLimit_bytes", "What may be promised to processes under strict overcommit.", m.CommitLimitBytes},
		{"Committed_AS_bytes", "What was promised to processes.", m.CommittedASBytes},
		{"DirectMap1G_bytes", "Kernel memory mapped by pages of 1 GiB.", m.DirectMap1GBytes},
		{"DirectMap2M_bytes", "Kernel memory mapped by pages of 2 MiB.", m.DirectMap2MBytes},
		{"DirectMap4k_bytes", "Kernel memory mapped by pages of 4 KiB.", m.DirectMap4kBytes},
		{"Dirty_bytes", "Page cache that waits to be written.", m.DirtyBytes},
		{"FileHugePages_bytes", "Page cache in huge pages.", m.FileHugePagesBytes},
		{"HardwareCorrupted_bytes", "Memory that the kernel found broken.", m.HardwareCorruptedBytes},
		{"HugePages_Free", "Huge pages of the pool that are free.", m.HugePagesFree},
		{"HugePages_Rsvd", "Huge pages promised but not yet taken.", m.HugePagesRsvd},
		{"HugePages_Surp", "Huge pages beyond the size of the pool.", m.HugePagesSurp},
		{"HugePages_Total", "Huge pages in the pool.", m.HugePagesTotal},
		{"Hugepagesize_bytes", "Size of a huge page of the pool.", m.HugepagesizeBytes},
		{"Hugetlb_bytes", "Memory in huge pages of all sizes.", m.HugetlbBytes},
		{"Inactive_anon_bytes", "Anonymous memory not used lately.", m.InactiveAnonBytes},
		{"Inactive_bytes", "Memory not used lately, given back first.", m.InactiveBytes},
		{"Inactive_file_bytes", "Page cache not used lately.", m.InactiveFileBytes},
		{"KernelStack_bytes", "Kernel stacks of all tasks.", m.KernelStackBytes},
		{"Mapped_bytes", "Files mapped into processes.", m.MappedBytes},
		{"MemAvailable_bytes", "What new programs can get without swapping, as the kernel estimates it.", m.MemAvailableBytes},
		{"MemFree_bytes", "Memory that nothing uses.", m.MemFreeBytes},
		{"MemTotal_bytes", "Memory that the kernel can use.", m.MemTotalBytes},
		{"Mlocked_bytes", "Memory locked by processes.", m.MlockedBytes},
		{"NFS_Unstable_bytes", "Pages sent to an NFS server that it has not yet made durable.", m.NFSUnstableBytes},
		{"PageTables_bytes", "Page tables.", m.PageTablesBytes},
		{"Percpu_bytes", "Memory set aside for each core.", m.PercpuBytes},
		{"SReclaimable_bytes", "Kernel caches that can be given back.", m.SReclaimableBytes},
		{"SUnreclaim_bytes", "Kernel objects that cannot be given back.", m.SUnreclaimBytes},
		{"SecPageTables_bytes", "Page tables of virtual machines and devices.", m.SecPageTablesBytes},
		{"ShmemHugePages_bytes", "Shared memory in huge pages.", m.ShmemHugePagesBytes},
		{"ShmemPmdMapped_bytes", "Shared memory mapped by huge pages.", m.ShmemPmdMappedBytes},
		{"Shmem_bytes", "Shared memory and tmpfs.", m.ShmemBytes},
		{"Slab_bytes", "Kernel objects and caches.", m.SlabBytes},
		{"SwapCached_bytes", "Memory that is also in swap.", m.SwapCachedBytes},
		{"SwapFree_bytes", "Swap that nothing uses.", m.SwapFreeBytes},
		{"SwapTotal_bytes", "Swap.", m.SwapTotalBytes},
		{"Unaccepted_bytes", "Memory that a confidential guest has not accepted yet.", m.UnacceptedBytes},
		{"Unevictable_bytes", "Memory that must stay.", m.UnevictableBytes},
		{"VmallocChunk_bytes", "Largest free block of the kernel's virtual address space.", m.VmallocChunkBytes},
		{"VmallocTotal_bytes", "The kernel's virtual address space.", m.VmallocTotalBytes},
		{"VmallocUsed_bytes", "Used part of the kernel's virtual address space.", m.VmallocUsedBytes},
		{"WritebackTmp_bytes", "Buffers of FUSE for writing back.", m.WritebackTmpBytes},
		{"Writeback_bytes", "Page cache being written at this moment.", m.WritebackBytes},
		{"Zswap_bytes", "Compressed swap in memory.", m.ZswapBytes},
		{"Zswapped_bytes", "Memory before it was compressed into zswap.", m.ZswappedBytes},
	} {
		if f.value != nil {
			fams = append(fams, one("node_memory_"+f.name, f.help, metric.Gauge, 0, float64(*f.value)))
		}
	}
	return fams
}
