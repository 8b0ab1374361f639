package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"nines/pkg/metric"
)

// zfsFiles are the figures of the module as a whole, and how their names begin.
var zfsFiles = []struct{ file, prefix string }{
	{"abdstats", "abd"}, {"arcstats", "arc"}, {"dbufstats", "dbuf"}, {"dmu_tx", "dmu_tx"}, {"dnodestats", "dnode"}, {"fm", "fm"},
	{"vdev_cache_stats", "vdev_cache"}, {"vdev_mirror_stats", "vdev_mirror"}, {"xuio_stats", "xuio"}, {"zfetchstats", "zfetch"}, {"zil", "zil"},
}

// zfsStates are the states of a pool, as zpool-status(8) has them.
var zfsStates = []string{"online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"}

var zfsState = gauge("node_zfs_zpool_state", "1 for the state that the pool is in, 0 for the others.")

// kstat is one figure of ZFS.
type kstat struct {
	*def
	labels []metric.Label
	v      float64
}

type zfs struct {
	base            string
	whole           []*defs // by zfsFiles
	pool, dataset   *defs
	state           []kstat
	found, datasets []kstat // of the present tick
}

// newZFS reads the figures of ZFS, which have no fixed names: each version of
// the module has its own. They begin when the module is loaded or the pool
// imported, which nothing tells.
func newZFS(n *node) (func(*tick) error, error) {
	named := func(prefix string) *defs {
		return newDefs(func(name string) *def {
			if name = strings.ReplaceAll(name[strings.LastIndexByte(name, '.')+1:], "-", "_"); !isWord(name) {
				return nil
			}
			return &def{name: "node_zfs_" + prefix + "_" + name, help: "ZFS' figure " + name + ".", typ: metric.Unknown}
		})
	}
	z := &zfs{base: n.proc("spl/kstat/zfs"), pool: named("zpool"), dataset: named("zpool_dataset")}
	for _, f := range zfsFiles {
		z.whole = append(z.whole, named(f.prefix))
	}
	return z.read, nil
}

func (z *zfs) read(t *tick) error {
	entries, err := t.dir(z.base)
	if err != nil {
		return err
	}
	for i, f := range zfsFiles {
		if !slices.Contains(entries, f.file) {
			continue
		}
		text, err := t.file(z.base + "/" + f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			z.found, _, err = parseKstat(text, z.whole[i], z.found[:0])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
		for _, k := range z.found {
			t.one(k.def, k.v)
		}
	}
	z.found, z.datasets, z.state = z.found[:0], z.datasets[:0], z.state[:0]
	for _, pool := range entries {
		if !exists(z.base + "/" + pool + "/.") {
			continue
		}
		if err := z.readPool(t, pool); err != nil && !errors.Is(err, fs.ErrNotExist) { // exported in the meantime
			return fmt.Errorf("pool %s: %w", pool, err)
		}
	}
	for _, ks := range [][]kstat{z.found, z.datasets, z.state} {
		// What has one name is told together.
		slices.SortStableFunc(ks, func(a, b kstat) int { return strings.Compare(a.name, b.name) })
		var open *def
		for _, k := range ks {
			if k.def != open {
				t.family(k.def)
				open = k.def
			}
			t.add(k.labels, k.v)
		}
	}
	return nil
}

func (z *zfs) readPool(t *tick, pool string) error {
	dir := z.base + "/" + pool
	names, err := t.dir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != "io" && name != "state" && !strings.HasPrefix(name, "objset-") {
			continue
		}
		text, err := t.file(dir + "/" + name)
		if err != nil {
			return err
		}
		switch name {
		case "io":
			if z.found, err = parsePoolIO(text, z.pool, labels("zpool", pool), z.found); err != nil {
				return fmt.Errorf("io: %w", err)
			}
		case "state":
			now := strings.ToLower(string(trim(text)))
			for _, s := range zfsStates {
				z.state = append(z.state, kstat{zfsState, labels("state", s, "zpool", pool), bit(s == now)})
			}
		default:
			from := len(z.datasets)
			var dataset string
			if z.datasets, dataset, err = parseKstat(text, z.dataset, z.datasets); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			ls := labels("dataset", dataset, "zpool", pool)
			for i := range z.datasets[from:] {
				z.datasets[from+i].labels = ls
			}
			if len(z.datasets) > maxSeries {
				return fmt.Errorf("more than %d figures of datasets", maxSeries)
			}
		}
	}
	return nil
}

// The types of figures in a kstat that are numbers: KSTAT_DATA_INT64 and
// KSTAT_DATA_UINT64.
const (
	kstatInt64  = "3"
	kstatUint64 = "4"
)

// parseKstat reads lines of a name, a type and a number below the heading "name
// type data". Where it is of a dataset, it names it.
func parseKstat(text []byte, names *defs, ks []kstat) (out []kstat, dataset string, err error) {
	headed := false
	for len(text) > 0 {
		l := line(&text)
		whole := l
		name, typ := field(&l), field(&l)
		data := trim(l) // names of datasets may have spaces
		switch {
		case !headed:
			headed = string(name) == "name" && string(typ) == "type" && string(data) == "data"
		case string(name) == "dataset_name":
			dataset = string(data)
		case string(typ) == kstatInt64 || string(typ) == kstatUint64:
			v, ok := wholeOf(field(&data))
			if !ok {
				return ks, "", malformed(whole, "a name, a type and a number")
			}
			if d := names.of(name); d != nil {
				ks = append(ks, kstat{def: d, v: v})
			}
		}
	}
	if !headed {
		return ks, "", errors.New("the heading is missing")
	}
	return ks, dataset, nil
}

// parsePoolIO reads a line of names and a line of numbers behind a line about
// the kstat itself.
func parsePoolIO(text []byte, names *defs, ls []metric.Label, ks []kstat) ([]kstat, error) {
	var heading []byte
	for len(text) > 0 {
		l := line(&text)
		if heading == nil {
			if bytes.HasPrefix(trim(l), []byte("nread")) {
				heading = l
			}
			continue
		}
		whole, rest := l, heading
		for name := field(&rest); len(name) > 0; name = field(&rest) {
			v, ok := uintOf(field(&l))
			if !ok {
				return ks, malformed(whole, "a number for each name of the line above")
			}
			if d := names.of(name); d != nil {
				ks = append(ks, kstat{d, ls, float64(v)})
			}
		}
		return ks, nil
	}
	return ks, nil // newer versions keep the file empty
}
