package node

import (
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/procfs/sysfs"

	"nines/pkg/metric"
)

type portRow = sysfs.InfiniBandPort

func portColumn(name, help string, v func(*portRow) *uint64) column[portRow] {
	return column[portRow]{counter("node_infiniband_"+name, help), func(r *portRow) (float64, bool) {
		if p := v(r); p != nil {
			return float64(*p), true
		}
		return 0, false
	}}
}

var infinibandInfo = gauge("node_infiniband_info", "Always 1; the labels say what the device is.")

var portColumns = []column[portRow]{
	{gauge("node_infiniband_lifespan_seconds", "How old the hardware's counters may be when they are read."), func(r *portRow) (float64, bool) {
		if p := r.HwCounters.Lifespan; p != nil {
			return float64(*p / 1000), true // whole seconds, as node_exporter has them
		}
		return 0, false
	}},
	always(gauge("node_infiniband_physical_state_id", "State of the line: 1 sleeps, 2 polls, 3 is off, 4 trains, 5 is up, 6 recovers, 7 is under test."), func(r *portRow) float64 { return float64(r.PhysStateID) }),
	always(gauge("node_infiniband_rate_bytes_per_second", "Bytes that the port can carry in a second."), func(r *portRow) float64 { return float64(r.Rate) }),
	always(gauge("node_infiniband_state_id", "State of the port: 1 is down, 2 begins, 3 is ready to be used, 4 is in use, 5 is about to be."), func(r *portRow) float64 { return float64(r.StateID) }),
	portColumn("duplicate_requests_packets_total", "Requests received twice.", func(r *portRow) *uint64 { return r.HwCounters.DuplicateRequest }),
	portColumn("excessive_buffer_overrun_errors_total", "Times that the buffer overran for too long.", func(r *portRow) *uint64 { return r.Counters.ExcessiveBufferOverrunErrors }),
	portColumn("implied_nak_seq_errors_total", "Answers whose number was ahead of the one expected.", func(r *portRow) *uint64 { return r.HwCounters.ImpliedNakSeqErr }),
	portColumn("legacy_data_received_bytes_total", "Bytes received, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortRcvData64 }),
	portColumn("legacy_data_transmitted_bytes_total", "Bytes sent, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortXmitData64 }),
	portColumn("legacy_multicast_packets_received_total", "Multicast packets received, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortMulticastRcvPackets }),
	portColumn("legacy_multicast_packets_transmitted_total", "Multicast packets sent, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortMulticastXmitPackets }),
	portColumn("legacy_packets_received_total", "Packets received, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortRcvPackets64 }),
	portColumn("legacy_packets_transmitted_total", "Packets sent, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortXmitPackets64 }),
	portColumn("legacy_unicast_packets_received_total", "Unicast packets received, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortUnicastRcvPackets }),
	portColumn("legacy_unicast_packets_transmitted_total", "Unicast packets sent, by the older counter.", func(r *portRow) *uint64 { return r.Counters.LegacyPortUnicastXmitPackets }),
	portColumn("link_downed_total", "Times that the link went down and did not recover.", func(r *portRow) *uint64 { return r.Counters.LinkDowned }),
	portColumn("link_error_recovery_total", "Times that the link recovered from an error.", func(r *portRow) *uint64 { return r.Counters.LinkErrorRecovery }),
	portColumn("local_ack_timeout_errors_total", "Times that no acknowledgement came in time.", func(r *portRow) *uint64 { return r.HwCounters.LocalAckTimeoutErr }),
	portColumn("local_link_integrity_errors_total", "Times that errors of the line were above the limit.", func(r *portRow) *uint64 { return r.Counters.LocalLinkIntegrityErrors }),
	portColumn("multicast_packets_received_total", "Multicast packets received.", func(r *portRow) *uint64 { return r.Counters.MulticastRcvPackets }),
	portColumn("multicast_packets_transmitted_total", "Multicast packets sent.", func(r *portRow) *uint64 { return r.Counters.MulticastXmitPackets }),
	portColumn("np_cnp_packets_sent_total", "Congestion notices sent.", func(r *portRow) *uint64 { return r.HwCounters.NpCnpSent }),
	portColumn("np_ecn_marked_roce_packets_received_total", "Received packets that were marked for congestion.", func(r *portRow) *uint64 { return r.HwCounters.NpEcnMarkedRocePackets }),
	portColumn("out_of_buffer_drops_total", "Packets dropped because no receive work was queued.", func(r *portRow) *uint64 { return r.HwCounters.OutOfBuffer }),
	portColumn("out_of_sequence_packets_received_total", "Packets received out of their order.", func(r *portRow) *uint64 { return r.HwCounters.OutOfSequence }),
	portColumn("packet_sequence_errors_total", "Answers that told of a packet missing.", func(r *portRow) *uint64 { return r.HwCounters.PacketSeqErr }),
	portColumn("port_constraint_errors_received_total", "Received packets that the port had to refuse.", func(r *portRow) *uint64 { return r.Counters.PortRcvConstraintErrors }),
	portColumn("port_constraint_errors_transmitted_total", "Packets that the port was not allowed to send.", func(r *portRow) *uint64 { return r.Counters.PortXmitConstraintErrors }),
	portColumn("port_data_received_bytes_total", "Bytes received.", func(r *portRow) *uint64 { return r.Counters.PortRcvData }),
	portColumn("port_data_transmitted_bytes_total", "Bytes sent.", func(r *portRow) *uint64 { return r.Counters.PortXmitData }),
	portColumn("port_discards_received_total", "Received packets that the port threw away.", func(r *portRow) *uint64 { return r.Counters.PortRcvDiscards }),
	portColumn("port_discards_transmitted_total", "Packets that the port threw away instead of sending them.", func(r *portRow) *uint64 { return r.Counters.PortXmitDiscards }),
	portColumn("port_errors_received_total", "Received packets with an error.", func(r *portRow) *uint64 { return r.Counters.PortRcvErrors }),
	portColumn("port_packets_received_total", "Packets received.", func(r *portRow) *uint64 { return r.Counters.PortRcvPackets }),
	portColumn("port_packets_transmitted_total", "Packets sent.", func(r *portRow) *uint64 { return r.Counters.PortXmitPackets }),
	portColumn("port_receive_remote_physical_errors_total", "Received packets that were marked bad on their way.", func(r *portRow) *uint64 { return r.Counters.PortRcvRemotePhysicalErrors }),
	portColumn("port_receive_switch_relay_errors_total", "Received packets that the switch could not pass on.", func(r *portRow) *uint64 { return r.Counters.PortRcvSwitchRelayErrors }),
	portColumn("port_transmit_wait_total", "Ticks in which the port had something to send and could not.", func(r *portRow) *uint64 { return r.Counters.PortXmitWait }),
	portColumn("req_cqes_errors_total", "Completions with errors at the requester.", func(r *portRow) *uint64 { return r.HwCounters.ReqCqeError }),
	portColumn("req_cqes_flush_errors_total", "Completions flushed with errors at the requester.", func(r *portRow) *uint64 { return r.HwCounters.ReqCqeFlushError }),
	portColumn("req_remote_access_errors_total", "Accesses refused by the other side, at the requester.", func(r *portRow) *uint64 { return r.HwCounters.ReqRemoteAccessErrors }),
	portColumn("req_remote_invalid_request_errors_total", "Requests that the other side held to be invalid.", func(r *portRow) *uint64 { return r.HwCounters.ReqRemoteInvalidRequest }),
	portColumn("resp_cqes_errors_total", "Completions with errors at the responder.", func(r *portRow) *uint64 { return r.HwCounters.RespCqeError }),
	portColumn("resp_cqes_flush_errors_total", "Completions flushed with errors at the responder.", func(r *portRow) *uint64 { return r.HwCounters.RespCqeFlushError }),
	portColumn("resp_local_length_errors_total", "Lengths that were wrong at the responder.", func(r *portRow) *uint64 { return r.HwCounters.RespLocalLengthError }),
	portColumn("resp_remote_access_errors_total", "Accesses refused at the responder.", func(r *portRow) *uint64 { return r.HwCounters.RespRemoteAccessErrors }),
	portColumn("rnr_nak_retry_packets_received_total", "Answers that the receiver was not ready.", func(r *portRow) *uint64 { return r.HwCounters.RnrNakRetryErr }),
	portColumn("roce_adp_retransmits_timeout_total", "Adaptive retransmissions that ran out of time.", func(r *portRow) *uint64 { return r.HwCounters.RoceAdpRetransTo }),
	portColumn("roce_adp_retransmits_total", "Adaptive retransmissions.", func(r *portRow) *uint64 { return r.HwCounters.RoceAdpRetrans }),
	portColumn("roce_slow_restart_cnps_total", "Congestion notices that slow restarts made.", func(r *portRow) *uint64 { return r.HwCounters.RoceSlowRestartCnps }),
	portColumn("roce_slow_restart_total", "Changes of state into slow restart.", func(r *portRow) *uint64 { return r.HwCounters.RoceSlowRestartTrans }),
	portColumn("roce_slow_restart_used_total", "Slow restarts used.", func(r *portRow) *uint64 { return r.HwCounters.RoceSlowRestart }),
	portColumn("rp_cnp_ignored_packets_received_total", "Congestion notices that were ignored.", func(r *portRow) *uint64 { return r.HwCounters.RpCnpIgnored }),
	portColumn("rp_cnp_packets_handled_total", "Congestion notices that were followed.", func(r *portRow) *uint64 { return r.HwCounters.RpCnpHandled }),
	portColumn("rx_atomic_requests_total", "Atomic requests received.", func(r *portRow) *uint64 { return r.HwCounters.RxAtomicRequests }),
	portColumn("rx_dct_connect_requests_total", "Requests for dynamic connections received.", func(r *portRow) *uint64 { return r.HwCounters.RxDctConnect }),
	portColumn("rx_icrc_encapsulated_errors_total", "Received packets with a wrong checksum.", func(r *portRow) *uint64 { return r.HwCounters.RxIcrcEncapsulated }),
	portColumn("rx_read_requests_total", "Read requests received.", func(r *portRow) *uint64 { return r.HwCounters.RxReadRequests }),
	portColumn("rx_write_requests_total", "Write requests received.", func(r *portRow) *uint64 { return r.HwCounters.RxWriteRequests }),
	portColumn("symbol_error_total", "Minor errors of the line.", func(r *portRow) *uint64 { return r.Counters.SymbolError }),
	portColumn("unicast_packets_received_total", "Unicast packets received.", func(r *portRow) *uint64 { return r.Counters.UnicastRcvPackets }),
	portColumn("unicast_packets_transmitted_total", "Unicast packets sent.", func(r *portRow) *uint64 { return r.Counters.UnicastXmitPackets }),
	portColumn("vl15_dropped_total", "Management packets dropped for want of room.", func(r *portRow) *uint64 { return r.Counters.VL15Dropped }),
}

func newInfiniBand(n *node) (func(*tick) error, error) {
	sys, err := sysfs.NewFS(n.cfg.Sys)
	if err != nil {
		return nil, err
	}
	return func(t *tick) error {
		all, err := sys.InfiniBandClass()
		if err != nil {
			return err
		}
		devices := sorted(all, func(d *sysfs.InfiniBandDevice) []string {
			return []string{"device", d.Name, "board_id", d.BoardID, "firmware_version", d.FirmwareVersion, "hca_type", d.HCAType}
		})
		t.family(infinibandInfo)
		var rows []row[portRow]
		for _, d := range devices {
			t.add(d.labels, 1)
			for _, number := range slices.Sorted(maps.Keys(d.data.Ports)) {
				p := d.data.Ports[number]
				rows = append(rows, row[portRow]{metric.Labels("device", p.Name, "port", strconv.FormatUint(uint64(p.Port), 10)), p})
			}
		}
		table(&t.page, portColumns, rows)
		return nil
	}, nil
}
