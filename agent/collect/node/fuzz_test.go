package node

import (
	"testing"
	"time"
)

// parsers are those of our own, each with text that it reads.
var parsers = []struct {
	name, text string
	parse      func(text []byte, p *page) error
}{
	{"arp", "heading\n192.0.2.1 0x1 0x2 02:00:00:00:00:01 * eth0\n", func(text []byte, p *page) error {
		_, err := parseARP(text, newLabelSets("device"), nil)
		return err
	}},
	{"bcachefs counter", "since mount: 3\nsince filesystem creation: 4.50k\n", func(text []byte, p *page) error {
		_, err := parseBcachefsCounter(text, nil)
		return err
	}},
	{"bcachefs errors", "bset_bad_csum 2 1795400100\n", func(text []byte, p *page) error {
		_, err := parseBcachefsErrors(text, nil)
		return err
	}},
	{"bcachefs io_done", "read:\nuser : 4096\nwrite:\nuser :8192\n", func(text []byte, p *page) error {
		_, err := parseBcachefsIO(text, nil)
		return err
	}},
	{"bcachefs io_errors", "IO errors since filesystem creation\n  read: 4\nIO errors since 8 d ago\n  read: 3\n", func(text []byte, p *page) error {
		_, err := parseBcachefsIOErrors(text, nil)
		return err
	}},
	{"bcachefs sizes", "type compressed uncompressed\nlz4: 1.00G 2.25G 64.0k\n", func(text []byte, p *page) error {
		_, err := parseBcachefsPairs(text, nil)
		return err
	}},
	{"conntrack", "heading\n1 2 3 4 5 6 7 8 9 a b c d e f 10 11\n", func(text []byte, p *page) error {
		_, err := parseConntrack(text)
		return err
	}},
	{"cpu", "cpu 1 2 3 4\ncpu0 1 2 3 4 5 6 7 8 9 10\n", func(text []byte, p *page) error {
		_, err := parseCPU(text, nil)
		return err
	}},
	{"diskstats", "8 0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n", func(text []byte, p *page) error {
		d := &disks{exclude: newExclude(nil), known: map[string]*disk{}}
		return d.parse(text)
	}},
	{"file-nr", "785\t0\t2466174\n", parseFileNr},
	{"kstat", "name type data\ndataset_name 7 tank/a b\nwrites 4 12\nx-y 3 -1\n", func(text []byte, p *page) error {
		figures, _, err := parseKstat(text, nil)
		known := zfsDefs("node_zfs_arc_", "arcstats")
		for _, k := range figures {
			p.one(known.of(k.key), k.value)
		}
		return err
	}},
	{"kstat io", "nread nwritten\n1 2\n", func(text []byte, p *page) error {
		_, err := parseKstatIO(text, nil)
		return err
	}},
	{"loadavg", "0.52 0.58 0.59 2/1204 26442\n", parseLoad},
	{"meminfo", "MemTotal: 8000000 kB\nHugePages_Free: 3\n", func(text []byte, p *page) error { return parseMemory(text, memoryDefs(), p) }},
	{"mountinfo", "30 26 8:16 / /srv/with\\040space ro,relatime shared:1 - xfs /dev/sdb rw\n", func(text []byte, p *page) error {
		f := &filesystems{node: &node{cfg: Config{Root: "/host"}}, points: newExclude(nil), types: newExclude(nil)}
		_, err := f.parse(text)
		return err
	}},
	{"net/dev", "a\nb\neth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", func(text []byte, p *page) error {
		_, err := parseNetdev(text, newLabelSets("device"), newExclude(nil), nil)
		return err
	}},
	{"netstat", "Tcp: InSegs MaxConn\nTcp: 1 -1\n", func(text []byte, p *page) error { return parseNetstat(text, netstatDefs(), p) }},
	{"os-release", "NAME=\"a \\\"b\\\"\"\nVERSION_ID='12.5'\nSUPPORT_END=2030-06-30\n# x\n", func(text []byte, p *page) error {
		_, err := parseOSRelease(text)
		return err
	}},
	{"pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=15\n", func(text []byte, p *page) error { return parsePressure(text, load1, load5, p) }},
	{"range of cores", "0-3,8", func(text []byte, p *page) error {
		_, err := parseRange(string(text))
		return err
	}},
	{"schedstat", "cpu0 0 0 0 0 0 0 25 75 40\n", func(text []byte, p *page) error {
		_, err := parseSchedstat(text, newLabelSets("cpu"), nil)
		return err
	}},
	{"snmp6", "Ip6InOctets 20\n", func(text []byte, p *page) error { return parseSNMP6(text, netstatDefs(), p) }},
	{"sockstat", "sockets: used 120\nTCP: inuse 7 mem 2\n", func(text []byte, p *page) error { return parseSockstat(text, sockstatDefs(), 4096, p) }},
	{"softnet", "1 2 3 4 5 6 7 8 9 a b c d\n", func(text []byte, p *page) error {
		_, err := parseSoftnet(text, newLabelSets("cpu"), nil)
		return err
	}},
	{"stat", "ctxt 1\nbtime 2\n", parseStat},
	{"textfile", "# TYPE a counter\na{b=\"c\"} 1\n", func(text []byte, p *page) error {
		_, err := parseProm(text)
		return err
	}},
	{"udev", "E:ID_MODEL=x\n", func(text []byte, p *page) error {
		parseUdev(text)
		return nil
	}},
	{"udp", "heading\n1: 0:0 0:0 07 10:200 0\n", func(text []byte, p *page) error {
		_, _, err := parseUDP(text)
		return err
	}},
	{"vmstat", "pgfault 1\noom_kill 2\n", func(text []byte, p *page) error { return parseVMStat(text, vmstatDefs(), p) }},
}

func TestParsersReadWhatTheKernelWrites(t *testing.T) {
	for _, p := range parsers {
		if err := p.parse([]byte(p.text), &page{limit: maxSeries}); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
}

// FuzzKernelText gives each text to every parser: none may fall over, or name
// what is no metric.
func FuzzKernelText(f *testing.F) {
	for _, p := range parsers {
		f.Add([]byte(p.text))
	}
	f.Add([]byte("pgfault\xb1 1\n"))
	f.Add([]byte("Tcp: \xff 1\nTcp: 2 3\n"))
	f.Add([]byte("cpu99999999999999999999 1 2 3 4\n"))
	f.Add([]byte(`\040\`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, p := range parsers {
			out := &page{limit: maxSeries}
			err := p.parse(text, out)
			out.close()
			if err != nil {
				continue
			}
			for _, fam := range out.fams {
				if !isWord(fam.Name) || len(fam.Series) == 0 {
					t.Fatalf("%s makes the family %q with %d series of %q", p.name, fam.Name, len(fam.Series), text)
				}
			}
		}
		if plain := unescape(string(text)); len(plain) > len(text) {
			t.Fatalf("unescape made %q longer", text)
		}
		if kind, number, _, ok := sensorFile(string(text)); ok && (kind == "" || number < 0) {
			t.Fatalf("sensor %q %d of %q", kind, number, text)
		}
		for _, c := range cleanName(string(text)) {
			if !isWord(string(c)) && c != ':' {
				t.Fatalf("cleanName left %q of %q", c, text)
			}
		}
	})
}

// BenchmarkCollect reads the host that it runs on.
func BenchmarkCollect(b *testing.B) {
	c, err := New(DefaultConfig(), quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Collect(time.Now())
	}
}
