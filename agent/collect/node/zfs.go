package node

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"nines/pkg/metric"
)

// zfsFiles are the files of ZFS about all pools, and what the names of their
// figures begin with, as node_exporter has them.
var zfsFiles = []struct{ file, prefix string }{
	{"abdstats", "node_zfs_abd_"},
	{"arcstats", "node_zfs_arc_"},
	{"dbufstats", "node_zfs_dbuf_"},
	{"dmu_tx", "node_zfs_dmu_tx_"},
	{"dnodestats", "node_zfs_dnode_"},
	{"fm", "node_zfs_fm_"},
	{"vdev_cache_stats", "node_zfs_vdev_cache_"},
	{"vdev_mirror_stats", "node_zfs_vdev_mirror_"},
	{"xuio_stats", "node_zfs_xuio_"},
	{"zfetchstats", "node_zfs_zfetch_"},
	{"zil", "node_zfs_zil_"},
}

// zfsStates are the states of a pool, in small letters.
var zfsStates = []string{"online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"}

var zfsState = gauge("node_zfs_zpool_state", "1 for the state that the pool is in, 0 for the others.")

// zfsDefs names the figures of a file. ZFS does not say which of them are
// counters; those begin with its module or with the pool, which nothing tells.
func zfsDefs(prefix, file string) *defs {
	return newDefs(func(key string) *def {
		name := prefix + underscored(key)
		return &def{name, "What ZFS tells as " + underscored(key) + " in " + file + ".", unitOf(name), metric.Unknown, false}
	})
}

// underscored puts an underscore for all that no name of a metric may have.
func underscored(key string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && isWord(string(r)) {
			return r
		}
		return '_'
	}, key)
}

// zfs reads what the module of ZFS tells, and keeps names and label sets, which
// are the same at each tick.
type zfs struct {
	base     string
	files    []*defs // of zfsFiles
	io       *defs
	objset   *defs
	pools    map[string]*zfsPool
	datasets map[string][]metric.Label // by pool, zero byte, data set
	key      []byte
	figures  []kstat
	byFamily
}

type zfsPool struct {
	labels []metric.Label
	states [][]metric.Label // of zfsStates
}

func newZFS(n *node) (func(*tick) error, error) {
	z := &zfs{
		base: n.proc("spl/kstat/zfs"), io: zfsDefs("node_zfs_zpool_", "io"), objset: zfsDefs("node_zfs_zpool_dataset_", "objset"),
		pools: map[string]*zfsPool{}, datasets: map[string][]metric.Label{},
	}
	for _, f := range zfsFiles {
		z.files = append(z.files, zfsDefs(f.prefix, f.file))
	}
	return z.read, nil
}

func (z *zfs) read(t *tick) error {
	names, err := t.dir(z.base)
	if err != nil {
		return err
	}
	for i, f := range zfsFiles {
		// Each release of ZFS has some of them.
		at, found := slices.BinarySearch(names, f.file)
		if !found {
			continue
		}
		names = slices.Delete(names, at, at+1)
		text, err := t.file(filepath.Join(z.base, f.file))
		if err == nil {
			z.figures, _, err = parseKstat(text, z.figures[:0])
		} else if withheld(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
		for _, k := range z.figures {
			t.one(z.files[i].of(k.key), k.value)
		}
	}
	z.begin()
	for _, name := range names {
		if err := z.readPool(t, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	z.write(&t.page)
	return nil
}

// readPool reads the folder of a pool. There are files among the folders that
// are work for ZFS to tell, such as all its buffers: with a slash behind its
// name a file is not opened at all.
func (z *zfs) readPool(t *tick, name string) error {
	folder := filepath.Join(z.base, name) + "/"
	files, err := t.dir(folder)
	if withheld(err) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	pool := z.pool(name)
	for _, file := range files {
		parse := z.parserOf(file)
		if parse == nil {
			continue
		}
		text, err := t.file(folder + file)
		if err == nil {
			err = parse(name, pool, text)
		} else if withheld(err) {
			continue // the pool is being exported
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func (z *zfs) parserOf(file string) func(name string, pool *zfsPool, text []byte) error {
	switch {
	case file == "io":
		return z.parseIO
	case file == "state":
		return z.parseState
	case strings.HasPrefix(file, "objset-"):
		return z.parseObjset
	}
	return nil
}

func (z *zfs) parseIO(_ string, pool *zfsPool, text []byte) (err error) {
	if z.figures, err = parseKstatIO(text, z.figures[:0]); err != nil {
		return err
	}
	for _, k := range z.figures {
		z.add(z.io.of(k.key), pool.labels, k.value)
	}
	return nil
}

func (z *zfs) parseState(_ string, pool *zfsPool, text []byte) error {
	state := bytes.ToLower(trim(line(&text)))
	for i, s := range zfsStates {
		z.add(zfsState, pool.states[i], bit(string(state) == s))
	}
	return nil
}

func (z *zfs) parseObjset(name string, _ *zfsPool, text []byte) error {
	figures, dataset, err := parseKstat(text, z.figures[:0])
	if z.figures = figures; err != nil {
		return err
	}
	if len(dataset) == 0 {
		return errors.New("it does not name its data set")
	}
	ls := z.dataset(name, dataset)
	for _, k := range figures {
		z.add(z.objset.of(k.key), ls, k.value)
	}
	return nil
}

func (z *zfs) pool(name string) *zfsPool {
	if p := z.pools[name]; p != nil {
		return p
	}
	if len(z.pools) >= maxCached {
		clear(z.pools)
	}
	p := &zfsPool{labels: labels("zpool", name)}
	for _, s := range zfsStates {
		p.states = append(p.states, labels("state", s, "zpool", name))
	}
	z.pools[name] = p
	return p
}

func (z *zfs) dataset(pool string, name []byte) []metric.Label {
	z.key = append(append(append(z.key[:0], pool...), 0), name...)
	if ls, ok := z.datasets[string(z.key)]; ok {
		return ls
	}
	if len(z.datasets) >= maxCached {
		clear(z.datasets)
	}
	ls := labels("dataset", string(name), "zpool", pool)
	z.datasets[string(z.key)] = ls
	return ls
}

// kstat is one figure of a file of ZFS.
type kstat struct {
	key   []byte // points into the file
	value float64
}

// maxKstats bounds the figures of a file. The largest, arcstats, has about 150.
const maxKstats = 4096

// Types of figures, as sys/kstat.h of OpenZFS numbers them. Files have no
// figures of others, only text.
const (
	kstatInt64  = "3"
	kstatUint64 = "4"
)

// parseKstat adds the figures of a file to those in into: below a heading each
// line has a name, a type and a value. The data set is what dataset_name says,
// and may have spaces.
func parseKstat(text []byte, into []kstat) (figures []kstat, dataset []byte, err error) {
	begun := false
	for len(text) > 0 {
		l := line(&text)
		whole := l
		key, typ := field(&l), field(&l)
		rest := l
		value := field(&l)
		switch {
		case !begun:
			begun = string(key) == "name" && string(typ) == "type" && string(value) == "data"
			continue
		case len(value) == 0:
			continue
		case string(key) == "dataset_name":
			dataset = trim(rest)
			continue
		}
		var v float64
		var ok bool
		switch string(typ) {
		case kstatUint64:
			var u uint64
			u, ok = uintOf(value)
			v = float64(u)
		case kstatInt64:
			v, ok = wholeOf(value)
		default:
			continue
		}
		if !ok {
			return into, nil, malformed(whole, "a name, a type and a number")
		}
		if len(into) >= maxKstats {
			return into, nil, fmt.Errorf("it has more than %d figures", maxKstats)
		}
		into = append(into, kstat{key, v})
	}
	if !begun {
		return into, nil, errors.New("it has no heading of name, type and data")
	}
	return into, dataset, nil
}

// parseKstatIO adds the figures of a pool's disks to those in into: a line of
// names that begins with nread, and one of values.
func parseKstatIO(text []byte, into []kstat) ([]kstat, error) {
	for len(text) > 0 {
		names := line(&text)
		whole := names
		key := field(&names)
		if string(key) != "nread" {
			continue
		}
		values := line(&text)
		for ; len(key) > 0; key = field(&names) {
			v, ok := uintOf(field(&values))
			if !ok || len(into) >= maxKstats {
				return into, malformed(whole, "followed by a number for each name")
			}
			into = append(into, kstat{key, float64(v)})
		}
		return into, nil
	}
	return into, errors.New("it has no heading that begins with nread")
}

// byFamily gathers series while file after file is read: those of a family
// stand together on a page, and each file has one of many. The arrays are used
// again at the next tick.
type byFamily struct {
	at    map[*def]int
	all   []gathered
	count int // of series; one more than a page takes, which says so, are kept
}

type gathered struct {
	def    *def
	series []labelled
}

type labelled struct {
	labels []metric.Label
	value  float64
}

// begin forgets the series of the last tick.
func (b *byFamily) begin() {
	b.count = 0
	if b.at == nil || len(b.all) >= maxCached {
		b.at, b.all = map[*def]int{}, nil
	}
	for i := range b.all {
		b.all[i].series = b.all[i].series[:0]
	}
}

func (b *byFamily) add(d *def, labels []metric.Label, v float64) {
	if b.count > maxSeries {
		return
	}
	b.count++
	i, ok := b.at[d]
	if !ok {
		i = len(b.all)
		b.at[d] = i
		b.all = append(b.all, gathered{def: d})
	}
	b.all[i].series = append(b.all[i].series, labelled{labels, v})
}

func (b *byFamily) write(p *page) {
	for _, g := range b.all {
		p.family(g.def)
		for _, s := range g.series {
			p.add(s.labels, s.value)
		}
	}
}
