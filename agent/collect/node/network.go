package node

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/procfs"

	"nines/pkg/metric"
)

func (n node) network(time.Time) ([]metric.Family, error) {
	devs, err := n.proc.NetDev()
	if err != nil {
		return nil, err
	}
	return networkFamilies(devs), nil
}

// networkFamilies carry no start timestamp: interfaces come and go, and one of
// the same name may begin anew while the kernel runs on.
func networkFamilies(devs procfs.NetDev) []metric.Family {
	var rows []row[procfs.NetDevLine]
	for _, name := range slices.Sorted(maps.Keys(devs)) {
		rows = append(rows, row[procfs.NetDevLine]{metric.Labels("device", name), devs[name]})
	}
	return table(netColumns, rows, 0)
}

func netColumn(name, help string, v func(procfs.NetDevLine) uint64) column[procfs.NetDevLine] {
	return column[procfs.NetDevLine]{"node_network_" + name + "_total", help, metric.Counter,
		func(l procfs.NetDevLine) float64 { return float64(v(l)) }, nil}
}

var netColumns = []column[procfs.NetDevLine]{
	netColumn("receive_bytes", "Bytes received.", func(l procfs.NetDevLine) uint64 { return l.RxBytes }),
	netColumn("receive_compressed", "Compressed packets received.", func(l procfs.NetDevLine) uint64 { return l.RxCompressed }),
	netColumn("receive_drop", "Packets dropped while receiving.", func(l procfs.NetDevLine) uint64 { return l.RxDropped }),
	netColumn("receive_errs", "Errors while receiving.", func(l procfs.NetDevLine) uint64 { return l.RxErrors }),
	netColumn("receive_fifo", "Overruns of the receive buffer.", func(l procfs.NetDevLine) uint64 { return l.RxFIFO }),
	netColumn("receive_frame", "Received packets with framing errors.", func(l procfs.NetDevLine) uint64 { return l.RxFrame }),
	netColumn("receive_multicast", "Multicast packets received.", func(l procfs.NetDevLine) uint64 { return l.RxMulticast }),
	netColumn("receive_packets", "Packets received.", func(l procfs.NetDevLine) uint64 { return l.RxPackets }),
	netColumn("transmit_bytes", "Bytes sent.", func(l procfs.NetDevLine) uint64 { return l.TxBytes }),
	netColumn("transmit_carrier", "Losses of the carrier while sending.", func(l procfs.NetDevLine) uint64 { return l.TxCarrier }),
	netColumn("transmit_colls", "Collisions while sending.", func(l procfs.NetDevLine) uint64 { return l.TxCollisions }),
	netColumn("transmit_compressed", "Compressed packets sent.", func(l procfs.NetDevLine) uint64 { return l.TxCompressed }),
	netColumn("transmit_drop", "Packets dropped while sending.", func(l procfs.NetDevLine) uint64 { return l.TxDropped }),
	netColumn("transmit_errs", "Errors while sending.", func(l procfs.NetDevLine) uint64 { return l.TxErrors }),
	netColumn("transmit_fifo", "Overruns of the send buffer.", func(l procfs.NetDevLine) uint64 { return l.TxFIFO }),
	netColumn("transmit_packets", "Packets sent.", func(l procfs.NetDevLine) uint64 { return l.TxPackets }),
}
