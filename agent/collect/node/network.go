package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nines/pkg/metric"
)

// netdevRow are the figures of an interface in /proc/net/dev, in its order.
type netdevRow struct {
	v         [16]uint64
	noHandler float64
	hasNone   bool // noHandler is not told
}

// Counters of interfaces carry no start timestamp: interfaces come and go, and
// one of the same name may begin anew while the kernel runs on.
func netdevColumn(i int, name, help string) column[netdevRow] {
	return always(counter("node_network_"+name+"_total", help), func(r *netdevRow) float64 { return float64(r.v[i]) })
}

var netdevColumns = []column[netdevRow]{
	netdevColumn(0, "receive_bytes", "Bytes received."),
	netdevColumn(6, "receive_compressed", "Compressed packets received."),
	netdevColumn(3, "receive_drop", "Packets dropped while receiving."),
	netdevColumn(2, "receive_errs", "Errors while receiving."),
	netdevColumn(4, "receive_fifo", "Overruns of the receive buffer."),
	netdevColumn(5, "receive_frame", "Received packets with framing errors."),
	netdevColumn(7, "receive_multicast", "Multicast packets received."),
	{counter("node_network_receive_nohandler_total", "Received packets that nothing on the node wanted."),
		func(r *netdevRow) (float64, bool) { return r.noHandler, !r.hasNone }},
	netdevColumn(1, "receive_packets", "Packets received."),
	netdevColumn(8, "transmit_bytes", "Bytes sent."),
	netdevColumn(14, "transmit_carrier", "Losses of the carrier while sending."),
	netdevColumn(13, "transmit_colls", "Collisions while sending."),
	netdevColumn(15, "transmit_compressed", "Compressed packets sent."),
	netdevColumn(11, "transmit_drop", "Packets dropped while sending."),
	netdevColumn(10, "transmit_errs", "Errors while sending."),
	netdevColumn(12, "transmit_fifo", "Overruns of the send buffer."),
	netdevColumn(9, "transmit_packets", "Packets sent."),
}

func newNetdev(n *node) (func(*tick) error, error) {
	devices, out := newLabelSets("device"), newExclude(n.patterns.netdev)
	var rows []row[netdevRow]
	paths := map[string]string{} // device to its count of packets without a handler
	return func(t *tick) error {
		text, err := t.file(n.net("dev"))
		if err != nil {
			return err
		}
		if rows, err = parseNetdev(text, devices, out, rows[:0]); err != nil {
			return err
		}
		for i := range rows {
			device := rows[i].labels[0].Value
			path, ok := paths[device]
			if !ok {
				if len(paths) >= maxCached {
					clear(paths)
				}
				path = n.sysfs("class/net/" + device + "/statistics/rx_nohandler")
				paths[device] = path
			}
			v, err := t.number(path)
			rows[i].data.noHandler, rows[i].data.hasNone = v, err != nil
		}
		table(&t.page, netdevColumns, rows)
		return nil
	}, nil
}

// parseNetdev reads lines of an interface and its 16 figures, behind two lines
// of heading.
func parseNetdev(text []byte, devices *labelSets, out *exclude, rows []row[netdevRow]) ([]row[netdevRow], error) {
	line(&text)
	line(&text)
	for len(text) > 0 {
		l := line(&text)
		if len(trim(l)) == 0 {
			continue
		}
		at := bytes.LastIndexByte(l, ':') // names with a colon are aliases
		if at < 0 {
			return rows, malformed(l, "the figures of an interface")
		}
		name, figures := trim(l[:at]), l[at+1:]
		var r netdevRow
		for i := range r.v {
			var ok bool
			if r.v[i], ok = uintOf(field(&figures)); !ok {
				return rows, malformed(l, "the figures of an interface")
			}
		}
		if len(name) == 0 {
			return rows, malformed(l, "the figures of an interface")
		}
		if !out.out(name) {
			rows = append(rows, row[netdevRow]{devices.of(name), r})
		}
	}
	return rows, nil
}

// The attributes of an interface in sysfs that are figures, and how they are
// shown. Interfaces come and go, so counters carry no start timestamp. Slow ones
// change when somebody sets the interface up; they are read once in
// netclassEvery, and when the interface is another one or its flags change.
var netclassFigures = [...]struct {
	file string
	slow bool
	*def
}{
	{"addr_assign_type", true, netclassGauge("address_assign_type", "How the interface got its address: 0 of its own, 1 at random, 2 from another, 3 set.")},
	{"carrier", false, netclassGauge("carrier", "1 where the interface has a link.")},
	{"carrier_changes", false, counter("node_network_carrier_changes_total", "Times that the link came or went.")},
	{"carrier_down_count", false, counter("node_network_carrier_down_changes_total", "Times that the link went.")},
	{"carrier_up_count", false, counter("node_network_carrier_up_changes_total", "Times that the link came.")},
	{"dev_id", true, netclassGauge("device_id", "Number that tells interfaces of the same address apart.")},
	{"dormant", false, netclassGauge("dormant", "1 where the interface waits for something, such as a login, before it can be used.")},
	{"flags", false, netclassGauge("flags", "Bits of the interface's state, as netdevice(7) has them.")},
	{"ifindex", false, netclassGauge("iface_id", "Number of the interface.")},
	{"iflink", true, netclassGauge("iface_link", "Number of the interface that this one sits on.")},
	{"link_mode", true, netclassGauge("iface_link_mode", "1 where a program decides about the state of the link.")},
	{"mtu", false, netclassGauge("mtu_bytes", "Bytes of the largest packet.")},
	{"name_assign_type", true, netclassGauge("name_assign_type", "How the interface got its name: 1 counted, 2 by its place, 3 by a program, 4 renamed.")},
	{"netdev_group", true, netclassGauge("net_dev_group", "Group of the interface.")},
	{"type", true, netclassGauge("protocol_type", "Kind of the interface, a number of ARP.")},
	{"speed", false, netclassGauge("speed_bytes", "Bytes that the link carries in a second.")},
	{"tx_queue_len", true, netclassGauge("transmit_queue_length", "Packets that the queue for sending holds.")},
}

const (
	netclassFlags = 7 // places in netclassFigures
	netclassIndex = 8
	netclassSpeed = 15 // Mbit/s in sysfs
)

// netclassEvery is how often slow attributes are read.
const netclassEvery = time.Minute

func netclassGauge(name, help string) *def { return gauge("node_network_"+name, help) }

// netclassTexts are the attributes that become labels.
var netclassTexts = [...]struct {
	file string
	slow bool
}{{"address", true}, {"broadcast", true}, {"duplex", false}, {"operstate", false}, {"ifalias", true}}

const netclassOperstate = 3 // place in netclassTexts

var (
	netclassInfo = gauge("node_network_info", "Always 1; the labels say what the interface is.")
	netclassUp   = gauge("node_network_up", "1 where the interface can be used, else 0.")
)

// iface is what is kept of an interface from tick to tick.
type iface struct {
	dir    string
	labels []metric.Label
	seen   bool      // in the present tick
	slow   time.Time // when slow attributes were read

	values [len(netclassFigures)]float64
	has    [len(netclassFigures)]bool
	texts  [len(netclassTexts)]string
	admin  string
	info   []metric.Label
}

func newNetclass(n *node) (func(*tick) error, error) {
	base := n.sysfs("class/net")
	out := newExclude(n.patterns.netclass)
	known := map[string]*iface{}
	var now []*iface
	return func(t *tick) error {
		names, err := t.dir(base)
		if err != nil {
			return err
		}
		for _, i := range known {
			i.seen = false
		}
		now = now[:0]
		for _, name := range names {
			if out.out([]byte(name)) {
				continue
			}
			i := known[name]
			if i == nil {
				// bonding_masters and its like stand among the interfaces.
				if !exists(base + "/" + name + "/.") {
					continue
				}
				i = &iface{dir: base + "/" + name, labels: labels("device", name)}
				known[name] = i
			}
			if err := i.read(t); errors.Is(err, fs.ErrNotExist) {
				continue // it has gone since it was listed
			} else if err != nil {
				return err
			}
			i.seen = true
			now = append(now, i)
		}
		for name, i := range known {
			if !i.seen {
				delete(known, name)
			}
		}
		for c := range netclassFigures {
			t.family(netclassFigures[c].def)
			for _, i := range now {
				if i.has[c] {
					t.add(i.labels, i.values[c])
				}
			}
		}
		t.family(netclassInfo)
		for _, i := range now {
			t.add(i.info, 1)
		}
		t.family(netclassUp)
		for _, i := range now {
			t.add(i.labels, bit(i.texts[netclassOperstate] == "up"))
		}
		return nil
	}, nil
}

// read reads the attributes. Many have no value for some kinds of interfaces.
func (i *iface) read(t *tick) error {
	dir, err := open(i.dir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	flags, index := i.values[netclassFlags], i.values[netclassIndex]
	changed, err := i.attributes(t, dir, false)
	if err != nil {
		return err
	}
	if since := t.now.Sub(i.slow); i.info == nil || since >= netclassEvery || since < 0 || i.values[netclassFlags] != flags || i.values[netclassIndex] != index {
		slow, err := i.attributes(t, dir, true)
		if err != nil {
			return err
		}
		i.slow, changed = t.now, changed || slow
	}
	admin := "unknown"
	if i.has[netclassFlags] {
		admin = "down"
		if uint64(i.values[netclassFlags])&1 != 0 { // IFF_UP
			admin = "up"
		}
	}
	if changed || i.info == nil || admin != i.admin {
		i.admin = admin
		i.info = labels("device", i.labels[0].Value, "adminstate", admin, "address", i.texts[0], "broadcast", i.texts[1],
			"duplex", i.texts[2], "operstate", i.texts[3], "ifalias", i.texts[4])
	}
	return nil
}

// attributes reads the slow attributes or the others, and says whether one that
// is a label has changed.
func (i *iface) attributes(t *tick, dir int, slow bool) (changed bool, err error) {
	for k := range netclassFigures {
		if netclassFigures[k].slow != slow {
			continue
		}
		text, err := t.attrAt(dir, netclassFigures[k].file)
		if err != nil {
			if !withheld(err) {
				return false, err
			}
			i.has[k] = false
			continue
		}
		i.values[k], i.has[k] = wholeOf(text)
		if k == netclassSpeed {
			// -1, for not known, becomes what node_exporter makes of it.
			i.values[k] *= 1e6 / 8
		}
	}
	for k, a := range netclassTexts {
		if a.slow != slow {
			continue
		}
		text, err := t.attrAt(dir, a.file)
		if err != nil {
			if !withheld(err) {
				return false, err
			}
			text = nil
		}
		if string(text) != i.texts[k] {
			i.texts[k], changed = string(text), true
		}
	}
	return changed, nil
}

// netstatFields are those that node_exporter shows by default.
var netstatFields = regexp.MustCompile(`^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$`)

func netstatDefs() *defs {
	return newDefs(func(name string) *def {
		if !netstatFields.MatchString(name) || !isWord(name) {
			return nil
		}
		return kernelUntyped("node_netstat_"+name, "The kernel's network counter "+name+".")
	})
}

func newNetstat(n *node) (func(*tick) error, error) {
	known := netstatDefs()
	return func(t *tick) error {
		for _, file := range []string{"netstat", "snmp"} {
			text, err := t.file(n.net(file))
			if err != nil {
				return err
			}
			if err := parseNetstat(text, known, &t.page); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		text, err := t.file(n.net("snmp6"))
		if errors.Is(err, fs.ErrNotExist) { // a node without IPv6
			return nil
		}
		if err != nil {
			return err
		}
		return parseSNMP6(text, known, &t.page)
	}, nil
}

// parseNetstat reads pairs of lines: a protocol with names, and the same
// protocol with a number for each.
func parseNetstat(text []byte, known *defs, p *page) error {
	var key [128]byte
	for len(text) > 0 {
		names := line(&text)
		if len(trim(names)) == 0 {
			continue
		}
		values := line(&text)
		whole := values
		protocol := field(&names)
		if len(protocol) < 2 || protocol[len(protocol)-1] != ':' || !bytes.Equal(protocol, field(&values)) {
			return malformed(whole, "the figures of a protocol below their names")
		}
		prefix := append(append(key[:0], protocol[:len(protocol)-1]...), '_')
		for {
			name, value := field(&names), field(&values)
			if len(name) == 0 && len(value) == 0 {
				break
			}
			if len(name) == 0 || len(value) == 0 {
				return malformed(whole, "a figure for each name of the line above")
			}
			d := known.of(append(prefix, name...))
			if d == nil {
				continue
			}
			v, ok := wholeOf(value)
			if !ok {
				return malformed(whole, "figures of a protocol")
			}
			p.one(d, v)
		}
	}
	return nil
}

// parseSNMP6 reads lines of a name and a number. The protocol ends with the
// first 6 of the name.
func parseSNMP6(text []byte, known *defs, p *page) error {
	var key [128]byte
	for len(text) > 0 {
		l := line(&text)
		whole := l
		name := field(&l)
		at := bytes.IndexByte(name, '6')
		if at < 0 {
			continue
		}
		k := append(append(append(key[:0], name[:at+1]...), '_'), name[at+1:]...)
		d := known.of(k)
		if d == nil {
			continue
		}
		v, ok := uintOf(field(&l))
		if !ok {
			return malformed(whole, "a name and a number")
		}
		p.one(d, float64(v))
	}
	return nil
}

// sockstatFields are what protocols have, in the order of the alphabet.
var sockstatFields = map[string]string{
	"alloc": "Sockets of %s that are allocated.", "inuse": "Sockets of %s in use.",
	"mem": "Pages of memory in use by %s.", "mem_bytes": "Memory in use by %s.", "memory": "Memory in use by %s, as the kernel tells it.",
	"orphan": "Sockets of %s that no process holds any more.", "tw": "Sockets of %s that wait after their end.",
}

var sockstatUsed = gauge("node_sockstat_sockets_used", "Sockets in use.")

func sockstatDefs() *defs {
	return newDefs(func(name string) *def {
		protocol, fieldName, _ := strings.Cut(name, "_")
		help, ok := sockstatFields[fieldName]
		if !ok || !isWord(protocol) {
			return nil
		}
		return gauge("node_sockstat_"+name, fmt.Sprintf(help, protocol))
	})
}

// isWord says whether text may be a part of a metric's name.
func isWord(text string) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' {
			return false
		}
	}
	return text != ""
}

func newSockstat(n *node) (func(*tick) error, error) {
	known := sockstatDefs()
	return func(t *tick) error {
		for _, file := range []string{"sockstat", "sockstat6"} {
			text, err := t.file(n.net(file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = parseSockstat(text, known, float64(os.Getpagesize()), &t.page)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	}, nil
}

// parseSockstat reads lines of a protocol and pairs of a name and a number.
// pageSize is that of memory, bytes.
func parseSockstat(text []byte, known *defs, pageSize float64, p *page) error {
	var key [64]byte
	for len(text) > 0 {
		l := line(&text)
		whole := l
		protocol := field(&l)
		if len(protocol) == 0 {
			continue
		}
		if protocol[len(protocol)-1] != ':' {
			return malformed(whole, "a protocol and its figures")
		}
		protocol = protocol[:len(protocol)-1]
		prefix := append(append(key[:0], protocol...), '_')
		for name := field(&l); len(name) > 0; name = field(&l) {
			v, ok := wholeOf(field(&l))
			if !ok {
				return malformed(whole, "a protocol and its figures")
			}
			if string(protocol) == "sockets" {
				if string(name) == "used" {
					p.one(sockstatUsed, v)
				}
				continue
			}
			if d := known.of(append(prefix, name...)); d != nil {
				p.one(d, v)
			}
			if string(name) == "mem" {
				if d := known.of(append(prefix, "mem_bytes"...)); d != nil {
					p.one(d, v*pageSize)
				}
			}
		}
	}
	return nil
}

// softnetRow is a core's line of /proc/net/softnet_stat.
type softnetRow [13]float64

func softnetColumn(i int, d *def) column[softnetRow] {
	return always(d, func(r *softnetRow) float64 { return r[i] })
}

var softnetColumns = []column[softnetRow]{
	softnetColumn(11, gauge("node_softnet_backlog_len", "Packets that wait for the core.")),
	softnetColumn(8, kernelCounter("node_softnet_cpu_collision_total", "Times that the core met another one at a device while sending.")),
	softnetColumn(1, kernelCounter("node_softnet_dropped_total", "Packets that the core dropped because too many waited.")),
	softnetColumn(10, kernelCounter("node_softnet_flow_limit_count_total", "Packets that the core dropped because their flow had too many waiting.")),
	softnetColumn(0, kernelCounter("node_softnet_processed_total", "Packets that the core took in.")),
	softnetColumn(9, kernelCounter("node_softnet_received_rps_total", "Times that another core woke this one for packets.")),
	softnetColumn(2, kernelCounter("node_softnet_times_squeezed_total", "Times that the core stopped taking packets with some left, because its time was over.")),
}

func newSoftnet(n *node) (func(*tick) error, error) {
	cores := newLabelSets("cpu")
	var rows []row[softnetRow]
	return func(t *tick) error {
		text, err := t.file(n.net("softnet_stat"))
		if err != nil {
			return err
		}
		if rows, err = parseSoftnet(text, cores, rows[:0]); err != nil {
			return err
		}
		table(&t.page, softnetColumns, rows)
		return nil
	}, nil
}

// parseSoftnet reads a line of hexadecimal figures for each core. Older kernels
// write fewer: with less than 13 a line's place is its core.
func parseSoftnet(text []byte, cores *labelSets, rows []row[softnetRow]) ([]row[softnetRow], error) {
	var id []byte
	for n := uint64(0); len(text) > 0; n++ {
		l := line(&text)
		whole := l
		if len(trim(l)) == 0 {
			continue
		}
		var r softnetRow
		i, core := 0, n
		for f := field(&l); len(f) > 0; f = field(&l) {
			v, ok := hexOf(f)
			if !ok {
				return rows, malformed(whole, "a core's figures")
			}
			if i < len(r) {
				r[i] = float64(v)
			}
			if i == 12 {
				core = v
			}
			i++
		}
		if i < 9 {
			return rows, malformed(whole, "a core's figures")
		}
		if i < 13 {
			r[11] = 0 // the backlog came with the number of the core
		}
		id = strconv.AppendUint(id[:0], core, 10)
		rows = append(rows, row[softnetRow]{cores.of(id), r})
	}
	return rows, nil
}

var udpQueues = gauge("node_udp_queues", "Bytes of datagrams that wait in UDP sockets, by direction and version of IP.")

func newUDPQueues(n *node) (func(*tick) error, error) {
	files := []struct {
		name   string
		tx, rx []metric.Label
	}{
		{"udp", metric.Labels("ip", "v4", "queue", "tx"), metric.Labels("ip", "v4", "queue", "rx")},
		{"udp6", metric.Labels("ip", "v6", "queue", "tx"), metric.Labels("ip", "v6", "queue", "rx")},
	}
	return func(t *tick) error {
		var missing error
		told := false
		t.family(udpQueues)
		for _, f := range files {
			text, err := t.file(n.net(f.name))
			if errors.Is(err, fs.ErrNotExist) {
				missing = err
				continue
			}
			if err != nil {
				return err
			}
			tx, rx, err := parseUDP(text)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			t.add(f.tx, tx)
			t.add(f.rx, rx)
			told = true
		}
		if !told {
			return missing
		}
		return nil
	}, nil
}

// parseUDP adds up the queues of all sockets: the fifth word of each line below
// the heading, TX:RX in hexadecimal.
func parseUDP(text []byte) (tx, rx float64, err error) {
	line(&text)
	for len(text) > 0 {
		l := line(&text)
		whole := l
		if len(trim(l)) == 0 {
			continue
		}
		for range 4 {
			field(&l)
		}
		t, r, ok := bytes.Cut(field(&l), []byte(":"))
		tv, ok1 := hexOf(t)
		rv, ok2 := hexOf(r)
		if !ok || !ok1 || !ok2 {
			return 0, 0, malformed(whole, "a socket")
		}
		tx, rx = tx+float64(tv), rx+float64(rv)
	}
	return tx, rx, nil
}

var arpEntries = gauge("node_arp_entries", "Neighbours known by their hardware address, by interface.")

func newARP(n *node) (func(*tick) error, error) {
	devices := newLabelSets("device")
	var rows []row[int]
	return func(t *tick) error {
		text, err := t.file(n.net("arp"))
		if err != nil {
			return err
		}
		if rows, err = parseARP(text, devices, rows[:0]); err != nil {
			return err
		}
		t.family(arpEntries)
		for _, r := range rows {
			t.add(r.labels, float64(r.data))
		}
		return nil
	}, nil
}

// parseARP counts the lines below the heading by their last word, the
// interface.
func parseARP(text []byte, devices *labelSets, rows []row[int]) ([]row[int], error) {
	line(&text)
	for len(text) > 0 {
		l := line(&text)
		whole := l
		var device []byte
		words := 0
		for f := field(&l); len(f) > 0; f = field(&l) {
			device = f
			words++
		}
		if words == 0 {
			continue
		}
		if words != 6 {
			return rows, malformed(whole, "a neighbour")
		}
		ls := devices.of(device)
		at := slices.IndexFunc(rows, func(r row[int]) bool { return r.labels[0].Value == ls[0].Value })
		if at < 0 {
			at = len(rows)
			rows = append(rows, row[int]{ls, 0})
		}
		rows[at].data++
	}
	return rows, nil
}

// The counters of connection tracking are gauges to node_exporter.
var (
	conntrackEntries = gauge("node_nf_conntrack_entries", "Connections that the kernel keeps track of.")
	conntrackLimit   = gauge("node_nf_conntrack_entries_limit", "Connections that the kernel can keep track of.")
	// The column of /proc/net/stat/nf_conntrack that each is the sum of.
	conntrackColumns = []struct {
		*def
		at int
	}{
		{gauge("node_nf_conntrack_stat_drop", "Packets dropped because the connection could not be tracked."), 10},
		{gauge("node_nf_conntrack_stat_early_drop", "Connections forgotten early to make room for others."), 11},
		{gauge("node_nf_conntrack_stat_found", "Lookups that found a connection."), 2},
		{gauge("node_nf_conntrack_stat_ignore", "Packets that needed no tracking."), 5},
		{gauge("node_nf_conntrack_stat_insert", "Connections that were added."), 8},
		{gauge("node_nf_conntrack_stat_insert_failed", "Connections that could not be added."), 9},
		{gauge("node_nf_conntrack_stat_invalid", "Packets of which no connection could be made out."), 4},
		{gauge("node_nf_conntrack_stat_search_restart", "Lookups begun anew because the table was being resized."), 16},
	}
)

func newConntrack(n *node) (func(*tick) error, error) {
	return func(t *tick) error {
		entries, err := t.number(n.proc("sys/net/netfilter/nf_conntrack_count"))
		if err != nil {
			return err
		}
		limit, err := t.number(n.proc("sys/net/netfilter/nf_conntrack_max"))
		if err != nil {
			return err
		}
		text, err := t.file(n.net("stat/nf_conntrack"))
		if err != nil {
			return err
		}
		sums, err := parseConntrack(text)
		if err != nil {
			return err
		}
		t.one(conntrackEntries, entries)
		t.one(conntrackLimit, limit)
		for _, c := range conntrackColumns {
			t.one(c.def, sums[c.at])
		}
		return nil
	}, nil
}

// parseConntrack adds up a line of hexadecimal figures for each core, below a
// heading.
func parseConntrack(text []byte) (sums [17]float64, err error) {
	line(&text)
	for len(text) > 0 {
		l := line(&text)
		whole := l
		if len(trim(l)) == 0 {
			continue
		}
		i := 0
		for f := field(&l); len(f) > 0; f = field(&l) {
			v, ok := hexOf(f)
			if !ok {
				return sums, malformed(whole, "a core's figures")
			}
			if i < len(sums) {
				sums[i] += float64(v)
			}
			i++
		}
		if i < 16 { // restarts of lookups came later
			return sums, malformed(whole, "a core's figures")
		}
	}
	return sums, nil
}

var (
	bondingActive = gauge("node_bonding_active", "Interfaces of the bond that have a link.")
	bondingSlaves = gauge("node_bonding_slaves", "Interfaces of the bond.")
)

// newBonding is for nodes with the kernel's bonding; others have no file of
// masters.
func newBonding(n *node) (func(*tick) error, error) {
	base := n.sysfs("class/net/")
	masters := newLabelSets("master")
	return func(t *tick) error {
		text, err := t.attr(base + "/bonding_masters")
		if err != nil {
			return err
		}
		names := strings.Fields(string(text))
		active := make([]float64, len(names))
		slaves := make([]float64, len(names))
		for i, master := range names {
			text, err := t.attr(base + "/" + master + "/bonding/slaves")
			if err != nil {
				return err
			}
			for _, slave := range strings.Fields(string(text)) {
				state, err := t.attr(base + "/" + master + "/lower_" + slave + "/bonding_slave/mii_status")
				if errors.Is(err, fs.ErrNotExist) { // kernels before 3.18
					state, err = t.attr(base + "/" + master + "/slave_" + slave + "/bonding_slave/mii_status")
				}
				if err != nil {
					return err
				}
				slaves[i]++
				active[i] += bit(string(state) == "up")
			}
		}
		t.family(bondingActive)
		for i, master := range names {
			t.add(masters.of([]byte(master)), active[i])
		}
		t.family(bondingSlaves)
		for i, master := range names {
			t.add(masters.of([]byte(master)), slaves[i])
		}
		return nil
	}, nil
}
