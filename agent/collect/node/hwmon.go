package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/pkg/metric"
)

// hwmonTypes are the kinds of sensors that are shown, see hwmon/sysfs-interface
// of the kernel's documentation.
var hwmonTypes = []string{"vrm", "beep_enable", "update_interval", "in", "cpu", "fan", "pwm", "temp", "curr", "power", "energy", "humidity", "intrusion", "freq"}

// hwmonEvery is how often the folders of chips are looked through for sensors.
// In between only the files of known sensors are read.
const hwmonEvery = time.Minute

// maxSensors bounds what is read of all chips.
const maxSensors = 4096

var (
	hwmonChip  = gauge("node_hwmon_chip_names", "Always 1; the labels name the chip for people.")
	hwmonLabel = gauge("node_hwmon_sensor_label", "Always 1; the labels name the sensor for people.")
)

// reading is one file of a sensor and what it becomes.
type reading struct {
	*def
	labels []metric.Label
	path   string  // empty: the value is always 1
	unit   float64 // what the file's figure is divided by
	flag   bool    // 1 where the file says 1, else 0
}

type hwmon struct {
	*node
	base     string
	defs     map[string]*def // bounded by maxSensors
	chips    []string        // folders as they were looked through
	looked   time.Time
	readings []reading // by the name of their metric
}

func newHwmon(n *node) (func(*tick) error, error) {
	h := &hwmon{node: n, base: n.sysfs("class/hwmon"), defs: map[string]*def{}}
	return h.read, nil
}

func (h *hwmon) read(t *tick) error {
	chips, err := t.dir(h.base)
	if err != nil {
		return err
	}
	if since := t.now.Sub(h.looked); !slices.Equal(chips, h.chips) || since >= hwmonEvery || since < 0 {
		h.readings, err = h.look(t, chips)
		if err != nil {
			return err
		}
		h.chips, h.looked = chips, t.now
	}
	var open *def
	for i := range h.readings {
		r := &h.readings[i]
		if r.def != open {
			t.family(r.def)
			open = r.def
		}
		if r.path == "" {
			t.add(r.labels, 1)
			continue
		}
		text, err := t.attr(r.path)
		if err != nil {
			continue // a sensor that is asleep, or gone
		}
		if r.flag {
			t.add(r.labels, bit(string(text) == "1"))
		} else if v, ok := floatOf(text); ok {
			t.add(r.labels, v/r.unit)
		}
	}
	return nil
}

// chip is one folder of hwmon.
type chip struct{ dir, base, file string }

// look finds the sensors of all chips.
func (h *hwmon) look(t *tick, names []string) ([]reading, error) {
	var chips []chip
	bases, files := map[string]int{}, map[[2]string]int{}
	for _, name := range names {
		dir := h.base + "/" + name
		if !exists(dir + "/.") {
			continue
		}
		c := chip{dir: dir}
		if text, err := t.attr(dir + "/name"); err == nil {
			c.file = string(text)
		}
		if c.base = h.name(c); c.base == "" {
			continue
		}
		bases[c.base]++
		files[[2]string{c.base, c.file}]++
		chips = append(chips, c)
	}
	var found []reading
	for _, c := range chips {
		name := c.base
		// Chips of one device are told apart by what they call themselves, or else
		// by their number.
		if bases[c.base] > 1 {
			suffix := cleanName(c.file)
			if suffix == "" || files[[2]string{c.base, c.file}] > 1 {
				suffix = cleanName(filepath.Base(c.dir))
			}
			name += "_" + suffix
		}
		if people := cleanName(c.file); people != "" {
			found = append(found, reading{def: hwmonChip, labels: labels("chip", name, "chip_name", people)})
		}
		sensors := map[string]map[string]string{} // sensor to property to path
		if err := h.sensors(t, c.dir, sensors); err != nil {
			return nil, err
		}
		if exists(c.dir + "/device") {
			if err := h.sensors(t, c.dir+"/device", sensors); err != nil {
				return nil, err
			}
		}
		for sensor, props := range sensors {
			found = append(found, h.sensor(t, name, sensor, props)...)
			if len(found) > maxSensors {
				return nil, fmt.Errorf("%s: more than %d figures of sensors", h.base, maxSensors)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b reading) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return slices.CompareFunc(a.labels, b.labels, func(x, y metric.Label) int { return strings.Compare(x.Value, y.Value) })
	})
	return found, nil
}

// name is made of the device behind the chip, its bus and its place there.
func (h *hwmon) name(c chip) string {
	if device, err := filepath.EvalSymlinks(c.dir + "/device"); err == nil {
		bus, place := cleanName(filepath.Base(filepath.Dir(device))), cleanName(filepath.Base(device))
		if bus != "" && place != "" {
			return bus + "_" + place
		}
		if place != "" {
			return place
		}
	}
	if name := cleanName(c.file); name != "" {
		return name
	}
	dir, err := filepath.EvalSymlinks(c.dir)
	if err != nil {
		return ""
	}
	return cleanName(filepath.Base(dir))
}

// sensors adds the files of sensors in a folder that can be read.
func (h *hwmon) sensors(t *tick, dir string, to map[string]map[string]string) error {
	names, err := t.dir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it went away
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		kind, number, prop, ok := sensorFile(name)
		if !ok || !slices.Contains(hwmonTypes, kind) {
			continue
		}
		path := dir + "/" + name
		if _, err := t.attr(path); err != nil {
			continue
		}
		sensor := kind + strconv.Itoa(number)
		if to[sensor] == nil {
			to[sensor] = map[string]string{}
		}
		to[sensor][prop] = path
	}
	return nil
}

// sensorFile takes a name such as temp1_crit_alarm apart: kind, number and
// property. Kinds without a number have the number 0.
func sensorFile(name string) (kind string, number int, prop string, ok bool) {
	digits := strings.IndexAny(name, "0123456789")
	switch {
	case digits == 0 || name == "":
		return "", 0, "", false
	case digits < 0:
		return name, 0, "", true
	}
	kind = name[:digits]
	rest := strings.TrimLeft(name[digits:], "0123456789")
	number, err := strconv.Atoi(name[digits : len(name)-len(rest)])
	if err != nil {
		return "", 0, "", false
	}
	if rest == "" {
		return kind, number, "", true
	}
	if len(rest) < 2 || rest[0] != '_' {
		return "", 0, "", false
	}
	return kind, number, rest[1:], true
}

// sensor says what the files of one sensor become, as node_exporter names it.
func (h *hwmon) sensor(t *tick, chip, sensor string, props map[string]string) []reading {
	kind := strings.TrimRight(sensor, "0123456789")
	ls := labels("chip", chip, "sensor", sensor)
	var rs []reading
	people := ""
	if path, ok := props["label"]; ok {
		if text, err := t.attr(path); err == nil {
			people = string(text)
			rs = append(rs, reading{def: hwmonLabel, labels: labels("chip", chip, "sensor", sensor, "label", people)})
		}
	}
	plain, hasPlain := props[""]
	switch kind {
	case "beep_enable":
		return append(rs, reading{def: h.gauge("beep_enabled", "1 where the board beeps."), labels: ls, path: plain, flag: true})
	case "vrm":
		return append(rs, reading{def: h.gauge("voltage_regulator_version", "Version of the rules that voltages follow."), labels: ls, path: plain, unit: 1})
	case "update_interval":
		return append(rs, reading{def: h.gauge("update_interval_seconds", "How often the chip measures."), labels: ls, path: plain, unit: 1000})
	}
	for prop, path := range props {
		if prop == "label" {
			continue
		}
		name := kind
		switch {
		case prop == "input" && hasPlain:
			name += "_input"
		case prop != "" && prop != "input":
			name += "_" + cleanName(prop)
		}
		if !isWord(name) {
			continue
		}
		r := reading{labels: ls, path: path, unit: 1}
		what := strings.ReplaceAll(prop, "_", " ")
		switch {
		case prop == "fault" || prop == "alarm":
			r.def = h.gauge(name, "1 where the sensor tells of a "+prop+".")
		case prop == "beep":
			r.def = h.gauge(name+"_enabled", "1 where the sensor beeps.")
		case kind == "in" || kind == "cpu":
			r.def, r.unit = h.gauge(name+"_volts", "Voltage ("+what+")."), 1e3
		case kind == "temp" && prop != "type":
			r.def, r.unit = h.gauge(name+"_celsius", "Temperature ("+what+")."), 1e3
		case kind == "curr":
			r.def, r.unit = h.gauge(name+"_amps", "Current ("+what+")."), 1e3
		case kind == "energy":
			r.def, r.unit = h.def(name+"_joule_total", "Energy used.", counter), 1e6
		case kind == "power" && prop == "accuracy":
			r.def, r.unit = h.gauge(name, "How right the measured power is, a ratio."), 1e6
		case kind == "power" && (prop == "average_interval" || prop == "average_interval_min" || prop == "average_interval_max"):
			r.def, r.unit = h.gauge(name+"_seconds", "Time over which power is averaged ("+what+")."), 1e3
		case kind == "power":
			r.def, r.unit = h.gauge(name+"_watt", "Power ("+what+")."), 1e6
		case kind == "humidity":
			r.def, r.unit = h.gauge(name, "Humidity, a ratio ("+what+")."), 1e6
		case kind == "fan" && (prop == "input" || prop == "min" || prop == "max" || prop == "target"):
			r.def = h.gauge(name+"_rpm", "Rotations of the fan in a minute ("+what+").")
		case kind == "freq" && prop == "input":
			if people == "" {
				continue
			}
			r.def, r.unit = h.gauge(name+"_freq_mhz", "Frequency in MHz."), 1e6
			r.labels = labels("chip", chip, "sensor", cleanName(people))
		default:
			r.def = h.gauge(name, "Property "+what+" of a sensor of the kind "+kind+".")
		}
		rs = append(rs, r)
	}
	return rs
}

func (h *hwmon) gauge(name, help string) *def { return h.def(name, help, gauge) }

// def makes one definition for each name, so that all sensors share it. The
// first help that a name gets stays.
func (h *hwmon) def(name, help string, build func(name, help string) *def) *def {
	if h.defs[name] == nil {
		if len(h.defs) >= maxSensors {
			clear(h.defs)
		}
		h.defs[name] = build("node_hwmon_"+name, help)
	}
	return h.defs[name]
}

// cleanName turns a name of the hardware into one of lower-case letters,
// digits, colons and underscores.
func cleanName(name string) string {
	b := []byte(strings.ToLower(name))
	out := b[:0]
	for _, r := range string(b) {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != ':' && r != '_' {
			r = '_'
		}
		out = append(out, byte(r))
	}
	return strings.Trim(string(out), "_")
}
