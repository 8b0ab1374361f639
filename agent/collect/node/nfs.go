package node

import (
	"reflect"
	"slices"

	"github.com/prometheus/procfs/nfs"

	"nines/pkg/metric"
)

// Counters of NFS begin when its modules are loaded, which nothing tells.
var (
	nfsPackets = counter("node_nfs_packets_total", "Packets of the NFS client, by protocol.")
	nfsMethods = counter("node_nfs_requests_total", "Requests of the NFS client, by version of NFS and what was asked for.")
	nfsSingles = []column[nfs.ClientRPCStats]{
		always(counter("node_nfs_connections_total", "Connections that the NFS client made."), func(s *nfs.ClientRPCStats) float64 { return float64(s.Network.TCPConnect) }),
		always(counter("node_nfs_rpc_authentication_refreshes_total", "Times that the NFS client renewed its credentials."), func(s *nfs.ClientRPCStats) float64 { return float64(s.ClientRPC.AuthRefreshes) }),
		always(counter("node_nfs_rpc_retransmissions_total", "Calls that the NFS client had to send again."), func(s *nfs.ClientRPCStats) float64 { return float64(s.ClientRPC.Retransmissions) }),
		always(counter("node_nfs_rpcs_total", "Calls of the NFS client."), func(s *nfs.ClientRPCStats) float64 { return float64(s.ClientRPC.RPCCount) }),
	}

	nfsdErrors  = counter("node_nfsd_rpc_errors_total", "Calls that the NFS server could not understand or had to refuse, by why.")
	nfsdPackets = counter("node_nfsd_packets_total", "Packets of the NFS server, by protocol.")
	nfsdMethods = counter("node_nfsd_requests_total", "Requests to the NFS server, by version of NFS and what was asked for.")
	nfsdSingles = []column[nfs.ServerRPCStats]{
		always(counter("node_nfsd_connections_total", "Connections to the NFS server."), func(s *nfs.ServerRPCStats) float64 { return float64(s.Network.TCPConnect) }),
		always(counter("node_nfsd_disk_bytes_read_total", "Bytes that the NFS server read."), func(s *nfs.ServerRPCStats) float64 { return float64(s.InputOutput.Read) }),
		always(counter("node_nfsd_disk_bytes_written_total", "Bytes that the NFS server wrote."), func(s *nfs.ServerRPCStats) float64 { return float64(s.InputOutput.Write) }),
		always(counter("node_nfsd_file_handles_stale_total", "Requests for files that are gone."), func(s *nfs.ServerRPCStats) float64 { return float64(s.FileHandles.Stale) }),
		always(counter("node_nfsd_read_ahead_cache_not_found_total", "Reads whose file was not in the cache for reading ahead."), func(s *nfs.ServerRPCStats) float64 { return float64(s.ReadAheadCache.NotFound) }),
		always(gauge("node_nfsd_read_ahead_cache_size_blocks", "Blocks of the cache for reading ahead."), func(s *nfs.ServerRPCStats) float64 { return float64(s.ReadAheadCache.CacheSize) }),
		always(counter("node_nfsd_reply_cache_hits_total", "Requests that came again and were answered from memory."), func(s *nfs.ServerRPCStats) float64 { return float64(s.ReplyCache.Hits) }),
		always(counter("node_nfsd_reply_cache_misses_total", "Requests whose answer was kept in memory."), func(s *nfs.ServerRPCStats) float64 { return float64(s.ReplyCache.Misses) }),
		always(counter("node_nfsd_reply_cache_nocache_total", "Requests whose answer need not be kept."), func(s *nfs.ServerRPCStats) float64 { return float64(s.ReplyCache.NoCache) }),
		always(counter("node_nfsd_server_rpcs_total", "Calls to the NFS server."), func(s *nfs.ServerRPCStats) float64 { return float64(s.ServerRPC.RPCCount) }),
		always(gauge("node_nfsd_server_threads", "Threads of the NFS server."), func(s *nfs.ServerRPCStats) float64 { return float64(s.Threads.Threads) }),
	}
)

// method is one field of a struct of counters in procfs, whose name is what
// node_exporter calls the method.
type method struct {
	field  int
	labels []metric.Label
}

// methods lists the fields of v, a struct of counters, that are told.
func methods(v any, proto string, left ...string) []method {
	t := reflect.TypeOf(v)
	var ms []method
	for i := range t.NumField() {
		if name := t.Field(i).Name; t.Field(i).Type.Kind() == reflect.Uint64 && !slices.Contains(left, name) {
			ms = append(ms, method{i, metric.Labels("method", name, "proto", proto)})
		}
	}
	return ms
}

// addMethods writes the fields of v, a pointer to a struct of counters.
func (t *tick) addMethods(v any, ms []method) {
	s := reflect.ValueOf(v).Elem()
	for _, m := range ms {
		t.add(m.labels, float64(s.Field(m.field).Uint()))
	}
}

func newNFS(n *node) (func(*tick) error, error) {
	proc, err := nfs.NewFS(n.self)
	if err != nil {
		return nil, err
	}
	tcp, udp := metric.Labels("protocol", "tcp"), metric.Labels("protocol", "udp")
	v2, v3, v4 := methods(nfs.V2Stats{}, "2"), methods(nfs.V3Stats{}, "3"), methods(nfs.ClientV4Stats{}, "4")
	return func(t *tick) error {
		s, err := proc.ClientRPCStats()
		if err != nil {
			return err
		}
		table(&t.page, nfsSingles, []row[nfs.ClientRPCStats]{{nil, *s}})
		t.family(nfsPackets)
		t.add(tcp, float64(s.Network.TCPCount))
		t.add(udp, float64(s.Network.UDPCount))
		t.family(nfsMethods)
		t.addMethods(&s.V2Stats, v2)
		t.addMethods(&s.V3Stats, v3)
		t.addMethods(&s.ClientV4Stats, v4)
		return nil
	}, nil
}

func newNFSD(n *node) (func(*tick) error, error) {
	proc, err := nfs.NewFS(n.self)
	if err != nil {
		return nil, err
	}
	tcp, udp := metric.Labels("proto", "tcp"), metric.Labels("proto", "udp")
	badFmt, badAuth, badClient := metric.Labels("error", "fmt"), metric.Labels("error", "auth"), metric.Labels("error", "cInt")
	delegated := metric.Labels("method", "WdelegGetattr", "proto", "4")
	v2, v3 := methods(nfs.V2Stats{}, "2", "Null"), methods(nfs.V3Stats{}, "3", "Null")
	v4 := methods(nfs.V4Ops{}, "4", "Op0Unused", "Op1Unused", "Op2Future", "PutPubFH", "PutRootFH")
	return func(t *tick) error {
		s, err := proc.ServerRPCStats()
		if err != nil {
			return err
		}
		table(&t.page, nfsdSingles, []row[nfs.ServerRPCStats]{{nil, *s}})
		t.family(nfsdErrors)
		t.add(badAuth, float64(s.ServerRPC.BadAuth))
		t.add(badClient, float64(s.ServerRPC.BadcInt))
		t.add(badFmt, float64(s.ServerRPC.BadFmt))
		t.family(nfsdPackets)
		t.add(tcp, float64(s.Network.TCPCount))
		t.add(udp, float64(s.Network.UDPCount))
		t.family(nfsdMethods)
		t.addMethods(&s.V2Stats, v2)
		t.addMethods(&s.V3Stats, v3)
		t.addMethods(&s.V4Ops, v4)
		t.add(delegated, float64(s.WdelegGetattr))
		return nil
	}, nil
}
