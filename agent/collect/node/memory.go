package node

import (
	"fmt"
	"strings"
)

// memoryHelp are the fields of /proc/meminfo that are shown, by the end of their
// metric's name. One that a newer kernel adds gets no name by itself: a name
// that node_exporter later gives otherwise would be two series.
var memoryHelp = map[string]string{
	"Active_anon_bytes":       "Anonymous memory used lately.",
	"Active_bytes":            "Memory used lately, given back last.",
	"Active_file_bytes":       "Page cache used lately.",
	"AnonHugePages_bytes":     "Anonymous memory in huge pages.",
	"AnonPages_bytes":         "Memory of processes that no file backs.",
	"Bounce_bytes":            "Bounce buffers of block devices.",
	"Buffers_bytes":           "Buffers of raw block devices.",
	"Cached_bytes":            "Page cache, shared memory included.",
	"CmaFree_bytes":           "Free part of the contiguous allocator's memory.",
	"CmaTotal_bytes":          "Memory of the contiguous allocator.",
	"CommitLimit_bytes":       "What may be promised to processes under strict overcommit.",
	"Committed_AS_bytes":      "What was promised to processes.",
	"DirectMap1G_bytes":       "Kernel memory mapped by pages of 1 GiB.",
	"DirectMap2M_bytes":       "Kernel memory mapped by pages of 2 MiB.",
	"DirectMap4k_bytes":       "Kernel memory mapped by pages of 4 KiB.",
	"Dirty_bytes":             "Page cache that waits to be written.",
	"FileHugePages_bytes":     "Page cache in huge pages.",
	"HardwareCorrupted_bytes": "Memory that the kernel found broken.",
	"HugePages_Free":          "Huge pages of the pool that are free.",
	"HugePages_Rsvd":          "Huge pages promised but not yet taken.",
	"HugePages_Surp":          "Huge pages beyond the size of the pool.",
	"HugePages_Total":         "Huge pages in the pool.",
	"Hugepagesize_bytes":      "Size of a huge page of the pool.",
	"Hugetlb_bytes":           "Memory in huge pages of all sizes.",
	"Inactive_anon_bytes":     "Anonymous memory not used lately.",
	"Inactive_bytes":          "Memory not used lately, given back first.",
	"Inactive_file_bytes":     "Page cache not used lately.",
	"KernelStack_bytes":       "Kernel stacks of all tasks.",
	"Mapped_bytes":            "Files mapped into processes.",
	"MemAvailable_bytes":      "What new programs can get without swapping, as the kernel estimates it.",
	"MemFree_bytes":           "Memory that nothing uses.",
	"MemTotal_bytes":          "Memory that the kernel can use.",
	"Mlocked_bytes":           "Memory locked by processes.",
	"NFS_Unstable_bytes":      "Pages sent to an NFS server that it has not yet made durable.",
	"PageTables_bytes":        "Page tables.",
	"Percpu_bytes":            "Memory set aside for each core.",
	"SReclaimable_bytes":      "Kernel caches that can be given back.",
	"SUnreclaim_bytes":        "Kernel objects that cannot be given back.",
	"SecPageTables_bytes":     "Page tables of virtual machines and devices.",
	"ShmemHugePages_bytes":    "Shared memory in huge pages.",
	"ShmemPmdMapped_bytes":    "Shared memory mapped by huge pages.",
	"Shmem_bytes":             "Shared memory and tmpfs.",
	"Slab_bytes":              "Kernel objects and caches.",
	"SwapCached_bytes":        "Memory that is also in swap.",
	"SwapFree_bytes":          "Swap that nothing uses.",
	"SwapTotal_bytes":         "Swap.",
	"Unaccepted_bytes":        "Memory that a confidential guest has not accepted yet.",
	"Unevictable_bytes":       "Memory that must stay.",
	"VmallocChunk_bytes":      "Largest free block of the kernel's virtual address space.",
	"VmallocTotal_bytes":      "The kernel's virtual address space.",
	"VmallocUsed_bytes":       "Used part of the kernel's virtual address space.",
	"WritebackTmp_bytes":      "Buffers of FUSE for writing back.",
	"Writeback_bytes":         "Page cache being written at this moment.",
	"Zswap_bytes":             "Compressed swap in memory.",
	"Zswapped_bytes":          "Memory before it was compressed into zswap.",
}

func newMemory(n *node) (func(*tick) error, error) {
	names := memoryDefs()
	return func(t *tick) error {
		text, err := t.file(n.proc("meminfo"))
		if err != nil {
			return err
		}
		return parseMemory(text, names, &t.page)
	}, nil
}

// memoryDefs names a field by what /proc/meminfo calls it, with its unit behind
// a space: "Active(anon) kB" is Active_anon_bytes.
func memoryDefs() *defs {
	return newDefs(func(field string) *def {
		name, isKB := strings.CutSuffix(field, " kB")
		name = strings.ReplaceAll(strings.ReplaceAll(name, "(", "_"), ")", "")
		if isKB {
			name += "_bytes"
		}
		help, shown := memoryHelp[name]
		if !shown {
			return nil
		}
		return gauge("node_memory_"+name, help)
	})
}

// parseMemory reads lines of a name, a number, and kB where it is one of bytes.
func parseMemory(text []byte, names *defs, p *page) error {
	var key []byte
	for len(text) > 0 {
		l := line(&text)
		whole := l
		name := field(&l)
		if len(name) == 0 {
			continue
		}
		v, ok := uintOf(field(&l))
		if name[len(name)-1] != ':' || !ok {
			return malformed(whole, "a name and a number")
		}
		key = append(key[:0], name[:len(name)-1]...)
		scale := 1.0
		switch unit := field(&l); string(unit) {
		case "":
		case "kB":
			key, scale = append(key, " kB"...), 1024
		default:
			return malformed(whole, "a number of kB")
		}
		if d := names.of(key); d != nil {
			p.one(d, float64(v)*scale)
		}
	}
	if !p.open {
		return fmt.Errorf("no known field is in it")
	}
	return nil
}
