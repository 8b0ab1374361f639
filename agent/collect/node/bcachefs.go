package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"syscall"
)

var (
	bcachefsInfo         = gauge("node_bcachefs_info", "Always 1; the label names the file system.")
	bcachefsCache        = gauge("node_bcachefs_btree_cache_size_bytes", "Memory of the nodes of the trees that are kept.")
	bcachefsCompressed   = gauge("node_bcachefs_compression_compressed_bytes", "Bytes on disk of what was compressed, by algorithm.")
	bcachefsUncompressed = gauge("node_bcachefs_compression_uncompressed_bytes", "Bytes of data in what was compressed, by algorithm.")
	bcachefsErrors       = counter("node_bcachefs_errors_total", "Errors found in the file system since it was made, by kind.")
	bcachefsWrites       = counter("node_bcachefs_btree_writes_total", "Writes of nodes of the trees, by what they were for.")
	bcachefsWriteSize    = gauge("node_bcachefs_btree_write_average_size_bytes", "Bytes of a write of a node of the trees, averaged, by what it was for.")

	bcachefsDevice       = gauge("node_bcachefs_device_info", "Always 1; the labels say what the device is and the states that it may be in, the present one in brackets.")
	bcachefsDeviceIO     = counter("node_bcachefs_device_io_done_bytes_total", "Bytes read from the device and written to it, by kind of data.")
	bcachefsDeviceErrors = counter("node_bcachefs_device_io_errors_total", "Errors of the device since the file system was made, by kind.")
	bcachefsDeviceFiles  = []struct {
		file string
		*def
	}{
		{"bucket_size", gauge("node_bcachefs_device_bucket_size_bytes", "Bytes of one bucket of the device.")},
		{"durability", gauge("node_bcachefs_device_durability", "Copies that one on this device counts for.")},
		{"nbuckets", gauge("node_bcachefs_device_buckets", "Buckets of the device.")},
	}
)

// bcachefs reads what sysfs tells of each mounted file system. Its counters run
// on from mount to mount, so that none begins with the kernel.
type bcachefs struct {
	base     string
	counters *defs
	rows     []bcachefsRow
	byFamily
}

func newBcachefs(n *node) (func(*tick) error, error) {
	b := &bcachefs{base: n.sysfs("fs/bcachefs"), counters: newDefs(func(file string) *def {
		return counter("node_bcachefs_"+underscored(file)+"_total", "What bcachefs counts as "+underscored(file)+" since the file system was made.")
	})}
	return b.read, nil
}

func (b *bcachefs) read(t *tick) error {
	uuids, err := t.dir(b.base)
	if err != nil {
		return err
	}
	b.begin()
	for _, uuid := range uuids {
		if err := b.readOne(t, uuid); err != nil {
			return fmt.Errorf("%s: %w", uuid, err)
		}
	}
	if b.count == 0 { // the module is there, and nothing mounted
		return &fs.PathError{Op: "read", Path: b.base, Err: fs.ErrNotExist}
	}
	b.write(&t.page)
	return nil
}

// folder lists a folder; one that went away, and a file, have nothing.
func (b *bcachefs) folder(t *tick, path string) (files []string, there bool, err error) {
	files, err = t.dir(path + "/")
	if withheld(err) || errors.Is(err, syscall.ENOTDIR) {
		return nil, false, nil
	}
	return files, err == nil, err
}

// figure adds what a file of one number says. Not all releases of bcachefs have
// all files.
func (b *bcachefs) figure(t *tick, path string, d *def, pairs ...string) error {
	text, err := t.attr(path)
	if withheld(err) {
		return nil
	}
	if err != nil {
		return err
	}
	v, ok := humanOf(text)
	if !ok {
		return fmt.Errorf("read %s: %q is not a size", path, clip(text))
	}
	b.add(d, labels(pairs...), v)
	return nil
}

// table reads a file of many rows into b.rows, which are empty where there is
// none.
func (b *bcachefs) table(t *tick, path string, parse func([]byte, []bcachefsRow) ([]bcachefsRow, error)) error {
	b.rows = b.rows[:0]
	text, err := t.file(path)
	if withheld(err) {
		return nil
	}
	if err == nil {
		b.rows, err = parse(text, b.rows)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func (b *bcachefs) readOne(t *tick, uuid string) error {
	base := filepath.Join(b.base, uuid)
	files, there, err := b.folder(t, base)
	if !there {
		return err
	}
	b.add(bcachefsInfo, labels("uuid", uuid), 1)
	if err := b.figure(t, filepath.Join(base, "btree_cache_size"), bcachefsCache, "uuid", uuid); err != nil {
		return err
	}
	if err := b.table(t, filepath.Join(base, "compression_stats"), parseBcachefsPairs); err != nil {
		return err
	}
	for _, r := range b.rows {
		ls := labels("algorithm", string(r.name), "uuid", uuid)
		b.add(bcachefsCompressed, ls, r.value)
		b.add(bcachefsUncompressed, ls, r.second)
	}
	if err := b.table(t, filepath.Join(base, "btree_write_stats"), parseBcachefsPairs); err != nil {
		return err
	}
	for _, r := range b.rows {
		ls := labels("type", string(r.name), "uuid", uuid)
		b.add(bcachefsWrites, ls, r.value)
		b.add(bcachefsWriteSize, ls, r.second)
	}
	if err := b.table(t, filepath.Join(base, "errors"), parseBcachefsErrors); err != nil {
		return err
	}
	for _, r := range b.rows {
		b.add(bcachefsErrors, labels("error_type", string(r.name), "uuid", uuid), r.value)
	}
	if err := b.readCounters(t, uuid, filepath.Join(base, "counters")); err != nil {
		return err
	}
	for _, file := range files {
		if device, ok := strings.CutPrefix(file, "dev-"); ok {
			if err := b.readDevice(t, uuid, device, filepath.Join(base, file)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bcachefs) readCounters(t *tick, uuid, folder string) error {
	files, _, err := b.folder(t, folder)
	if err != nil {
		return err
	}
	ls := labels("uuid", uuid)
	for _, file := range files {
		if err := b.table(t, filepath.Join(folder, file), parseBcachefsCounter); err != nil {
			return err
		}
		for _, r := range b.rows {
			b.add(b.counters.of([]byte(file)), ls, r.value)
		}
	}
	return nil
}

func (b *bcachefs) readDevice(t *tick, uuid, device, folder string) error {
	if _, there, err := b.folder(t, folder); !there {
		return err
	}
	var texts [2]string
	for i, file := range [...]string{"label", "state"} {
		text, err := t.attr(filepath.Join(folder, file))
		if err != nil && !withheld(err) {
			return err
		}
		texts[i] = string(text)
	}
	b.add(bcachefsDevice, labels("device", device, "label", texts[0], "state", texts[1], "uuid", uuid), 1)
	for _, f := range bcachefsDeviceFiles {
		if err := b.figure(t, filepath.Join(folder, f.file), f.def, "device", device, "uuid", uuid); err != nil {
			return err
		}
	}
	if err := b.table(t, filepath.Join(folder, "io_done"), parseBcachefsIO); err != nil {
		return err
	}
	for _, r := range b.rows {
		b.add(bcachefsDeviceIO, labels("data_type", string(r.name), "device", device, "operation", string(r.group), "uuid", uuid), r.value)
	}
	if err := b.table(t, filepath.Join(folder, "io_errors"), parseBcachefsIOErrors); err != nil {
		return err
	}
	for _, r := range b.rows {
		b.add(bcachefsDeviceErrors, labels("device", device, "type", string(r.name), "uuid", uuid), r.value)
	}
	return nil
}

// bcachefsRow is one row of a file. Its text points into the file.
type bcachefsRow struct {
	group, name   []byte
	value, second float64
}

// maxBcachefsRows bounds the rows of a file, which the kernel keeps to a page.
const maxBcachefsRows = 4096

func addBcachefsRow(into []bcachefsRow, r bcachefsRow) ([]bcachefsRow, error) {
	if len(into) >= maxBcachefsRows {
		return into, fmt.Errorf("it has more than %d rows", maxBcachefsRows)
	}
	return append(into, r), nil
}

// humanOf reads a size as people write it: a number, and k, M, G, T, P or E for
// powers of 1024. What is no whole number of ones is cut down to one, as
// node_exporter does.
func humanOf(t []byte) (float64, bool) {
	t = trim(t)
	scale := 1.0
	if len(t) > 0 {
		if i := bytes.IndexByte([]byte("KMGTPE"), t[len(t)-1]&^0x20); i >= 0 {
			scale = math.Pow(1024, float64(i+1))
			t = t[:len(t)-1]
		}
	}
	for _, c := range t {
		if (c < '0' || c > '9') && c != '.' {
			return 0, false
		}
	}
	v, ok := floatOf(t)
	return math.Floor(v * scale), ok
}

// parseBcachefsPairs reads, below a heading, lines of a name and two sizes.
func parseBcachefsPairs(text []byte, into []bcachefsRow) ([]bcachefsRow, error) {
	line(&text)
	for len(text) > 0 {
		l := line(&text)
		whole := l
		name, first, second := bytes.TrimSuffix(field(&l), []byte(":")), field(&l), field(&l)
		if len(second) == 0 {
			continue
		}
		a, ok1 := humanOf(first)
		b, ok2 := humanOf(second)
		if !ok1 || !ok2 {
			return into, malformed(whole, "a name and two sizes")
		}
		var err error
		if into, err = addBcachefsRow(into, bcachefsRow{name: name, value: a, second: b}); err != nil {
			return into, err
		}
	}
	return into, nil
}

// parseBcachefsErrors reads lines of a kind of error, how many there were, and
// when. The columns are of fixed width, and a number of eight digits runs into
// the time: it is passed on with the time in it, as by node_exporter, and left
// out where that is too long to be a number.
func parseBcachefsErrors(text []byte, into []bcachefsRow) ([]bcachefsRow, error) {
	for len(text) > 0 {
		l := line(&text)
		whole := l
		name, number := field(&l), field(&l)
		if len(number) == 0 {
			continue
		}
		v, ok := uintOf(number)
		if !ok {
			if number[0] < '0' || number[0] > '9' {
				return into, malformed(whole, "a name and a number")
			}
			continue
		}
		var err error
		if into, err = addBcachefsRow(into, bcachefsRow{name: name, value: float64(v)}); err != nil {
			return into, err
		}
	}
	return into, nil
}

// cutColon cuts a line behind its first colon.
func cutColon(l []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(l, []byte(":"))
	return trim(name), trim(value), ok
}

// parseBcachefsCounter reads what was counted since the file system was made,
// which is 0 where only what was counted since the mount is told.
func parseBcachefsCounter(text []byte, into []bcachefsRow) ([]bcachefsRow, error) {
	r, found := bcachefsRow{}, false
	whole := text
	for len(text) > 0 {
		l := line(&text)
		name, value, _ := cutColon(l)
		switch string(name) {
		case "since filesystem creation":
			var ok bool
			if r.value, ok = humanOf(value); !ok {
				return into, malformed(l, "a size")
			}
			found = true
		case "since mount":
			found = true
		}
	}
	if !found {
		return into, malformed(line(&whole), "what was counted since the mount or since the file system was made")
	}
	return addBcachefsRow(into, r)
}

// parseBcachefsIO reads two lists of bytes by kind of data, headed read and
// write.
func parseBcachefsIO(text []byte, into []bcachefsRow) ([]bcachefsRow, error) {
	var group []byte
	for len(text) > 0 {
		l := line(&text)
		name, value, ok := cutColon(l)
		if ok && len(value) == 0 && (string(name) == "read" || string(name) == "write") {
			group = name
			continue
		}
		if !ok || group == nil {
			continue
		}
		v, ok := uintOf(value)
		if !ok {
			return into, malformed(l, "a kind of data and bytes")
		}
		var err error
		if into, err = addBcachefsRow(into, bcachefsRow{group: group, name: name, value: float64(v)}); err != nil {
			return into, err
		}
	}
	return into, nil
}

// parseBcachefsIOErrors reads the first of two lists, that of errors since the
// file system was made; the other is of those since they were last reset.
func parseBcachefsIOErrors(text []byte, into []bcachefsRow) ([]bcachefsRow, error) {
	begun := false
	for len(text) > 0 {
		l := line(&text)
		if bytes.HasPrefix(l, []byte("IO errors since ")) {
			if begun {
				break
			}
			begun = bytes.HasPrefix(l, []byte("IO errors since filesystem creation"))
			continue
		}
		name, value, ok := cutColon(l)
		if !begun || !ok {
			continue
		}
		v, ok := uintOf(value)
		if !ok {
			return into, malformed(l, "a kind of error and a number")
		}
		var err error
		if into, err = addBcachefsRow(into, bcachefsRow{name: name, value: float64(v)}); err != nil {
			return into, err
		}
	}
	return into, nil
}
