package node

// all are the sources in the order of the alphabet but for the last, by the names that
// node_exporter gives its collectors. Each prepares itself once; what it
// returns is called at every tick.
var all = []struct {
	name  string
	build func(*node) (func(*tick) error, error)
}{
	{"arp", newARP},
	{"bcache", newBcache},
	{"bcachefs", newBcachefs},
	{"bonding", newBonding},
	{"btrfs", newBtrfs},
	{"conntrack", newConntrack},
	{"cpu", newCPU},
	{"cpufreq", newCPUFreq},
	{"diskstats", newDisks},
	{"dmi", newDMI},
	{"dmmultipath", newMultipath},
	{"edac", newEDAC},
	{"entropy", newEntropy},
	{"fibrechannel", newFibreChannel},
	{"filefd", newFileDescriptors},
	{"filesystem", newFilesystem},
	{"hwmon", newHwmon},
	{"infiniband", newInfiniBand},
	{"ipvs", newIPVS},
	{"kernel_hung", newKernelHung},
	{"loadavg", newLoad},
	{"mdadm", newMD},
	{"meminfo", newMemory},
	{"netclass", newNetclass},
	{"netdev", newNetdev},
	{"netstat", newNetstat},
	{"nfs", newNFS},
	{"nfsd", newNFSD},
	{"nvme", newNVMe},
	{"os", newOS},
	{"powersupplyclass", newPowerSupply},
	{"pressure", newPressure},
	{"rapl", newRAPL},
	{"schedstat", newSchedstat},
	{"selinux", newSELinux},
	{"sockstat", newSockstat},
	{"softnet", newSoftnet},
	{"stat", newStat},
	{"tapestats", newTape},
	{"thermal_zone", newThermal},
	{"time", newTime},
	{"timex", newTimex},
	{"udp_queues", newUDPQueues},
	{"uname", newUname},
	{"vmstat", newVMStat},
	{"watchdog", newWatchdog},
	{"xfs", newXFS},
	{"zfs", newZFS},
	{"textfile", newTextfile}, // last: no file may give what another source gave
}

var sourceNames = func() []string {
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.name
	}
	return names
}()
