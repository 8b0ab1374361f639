package harness

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// KubeletConfig says how container logs are written and rotated. Zeros stand
// for the kubelet's defaults, with lines of 216 bytes.
type KubeletConfig struct {
	Root        string // in place of /var/log/pods
	Seed        uint64
	RotateBytes int64         // containerLogMaxSize, 10 MiB
	Keep        int           // containerLogMaxFiles, 5, the one that is written to included
	Check       time.Duration // between looks at sizes; 10 s in the kubelet, here 100 ms
	LineBytes   int           // of a line with its framing
	// Partials lets one record in a thousand be longer than the runtime's
	// buffer: it comes in three parts, with lines of the other stream between.
	Partials bool
	// Plain leaves the runtime's framing out, as for any other file.
	Plain bool
}

// Kubelet plays the container runtime, which writes, and the kubelet, which
// rotates as its pkg/kubelet/logs does: what is above the number of files goes,
// what was rotated before is compressed beside its place and put there, then
// the file is renamed and the runtime opens a new one; what it writes in
// between is in the renamed one.
type Kubelet struct {
	config     KubeletConfig
	containers []*Container
	started    bool
	stop       chan struct{} // closed by Stop
	wg         sync.WaitGroup
	rotations  atomic.Int64
	removed    atomic.Int64

	mu  sync.Mutex
	err error // the first that happened
}

// partBytes is the length of a part of a long record's message. containerd
// cuts at 16 KiB; less shows the same.
const partBytes = 1000

// Container writes numbered lines.
type Container struct {
	kubelet *Kubelet
	index   int
	path    string
	random  *rand.Rand
	rate    atomic.Int64 // lines a second
	last    string       // time stamp of the newest rotation

	mu    sync.Mutex // of all below
	file  *os.File
	size  int64 // of the file
	bytes int64 // written in all
	next  int   // number of the next line
	times []mark
}

// mark says when the lines from a number on were written.
type mark struct {
	from int
	at   time.Time
}

// NewKubelet returns one without containers.
func NewKubelet(c KubeletConfig) *Kubelet {
	c.RotateBytes = cmp.Or(c.RotateBytes, 10<<20)
	c.Keep = cmp.Or(c.Keep, 5)
	c.Check = cmp.Or(c.Check, 100*time.Millisecond)
	c.LineBytes = cmp.Or(c.LineBytes, 216)
	return &Kubelet{config: c, stop: make(chan struct{})}
}

// Add adds a container that writes so many lines a second, before Start.
func (k *Kubelet) Add(namespace, pod, uid, name string, rate int) (*Container, error) {
	dir := filepath.Join(k.config.Root, namespace+"_"+pod+"_"+uid, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &Container{
		kubelet: k, index: len(k.containers), path: filepath.Join(dir, "0.log"),
		random: rand.New(rand.NewPCG(k.config.Seed, uint64(len(k.containers)))),
	}
	c.rate.Store(int64(rate))
	if err := c.open(); err != nil {
		return nil, err
	}
	k.containers = append(k.containers, c)
	return c, nil
}

// Start lets the containers write until Stop.
func (k *Kubelet) Start() {
	k.started = true
	for _, c := range k.containers {
		k.wg.Go(func() { k.fail(c.run()) })
	}
	k.wg.Go(func() {
		tick := time.NewTicker(k.config.Check)
		defer tick.Stop()
		for {
			select {
			case <-k.stop:
				return
			case <-tick.C:
			}
			for _, c := range k.containers {
				k.fail(c.rotateIfLarge())
			}
		}
	})
}

// Stop ends writing; whole records are written by then.
func (k *Kubelet) Stop() error {
	if k.started {
		close(k.stop)
		k.wg.Wait()
		k.started = false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

func (k *Kubelet) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
}

// Rates sets how many lines a second each container writes.
func (k *Kubelet) Rates(lines ...int) {
	for i, c := range k.containers {
		c.rate.Store(int64(lines[i]))
	}
}

// Rate is how many lines a second it writes.
func (c *Container) Rate() int { return int(c.rate.Load()) }

// Written returns the lines and bytes of all containers so far.
func (k *Kubelet) Written() (lines int, bytes int64) {
	for _, c := range k.containers {
		c.mu.Lock()
		lines, bytes = lines+c.next, bytes+c.bytes
		c.mu.Unlock()
	}
	return lines, bytes
}

// Rotated returns how often files were rotated, and how many were removed.
func (k *Kubelet) Rotated() (rotations, removed int) {
	return int(k.rotations.Load()), int(k.removed.Load())
}

// Kept is how many bytes of one container its files hold at least.
func (k *Kubelet) Kept() int64 { return k.config.RotateBytes * int64(k.config.Keep-1) }

// beat is how often a container writes.
const beat = 20 * time.Millisecond

func (c *Container) run() error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	last, owed := time.Now(), 0.0
	for {
		select {
		case <-c.kubelet.stop:
			return nil
		case <-tick.C:
		}
		now := time.Now()
		// A host that stood still is not caught up with at once.
		owed += float64(c.rate.Load()) * min(now.Sub(last), 10*beat).Seconds()
		last = now
		n := int(owed)
		if n == 0 {
			continue
		}
		owed -= float64(n)
		if err := c.Write(n); err != nil {
			return err
		}
	}
}

// Write writes about so many lines now: a long record takes another one along.
func (c *Container) Write(n int) error {
	now := time.Now()
	for end := c.Lines() + n; ; {
		if err := c.writeSome(now, end); err != nil {
			return err
		}
		if c.Lines() >= end {
			return nil
		}
	}
}

// Lines is the number of lines so far, and the next number.
func (c *Container) Lines() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

// writeSome writes lines up to a number, or a part of a long record. Between
// two calls the file may be changed for another one.
func (c *Container) writeSome(now time.Time, end int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.times); n == 0 || now.Sub(c.times[n-1].at) > 100*time.Millisecond {
		c.times = append(c.times, mark{c.next, now})
	}
	stamp := now.UTC().Format("2006-01-02T15:04:05.000000000Z")
	var text []byte
	seq := c.next
	for ; seq < end; seq++ {
		if !c.kubelet.long(seq) {
			text = c.kubelet.framed(text, stamp, stream(seq), 'F', c.kubelet.Message(c.index, seq))
			continue
		}
		if len(text) > 0 {
			break
		}
		// The other stream's line comes in the middle, and so may a rotation.
		message := c.kubelet.Message(c.index, seq)
		if err := c.put(c.kubelet.framed(nil, stamp, "stdout", 'P', message[:partBytes])); err != nil {
			return err
		}
		c.mu.Unlock()
		c.mu.Lock()
		text = c.kubelet.framed(text, stamp, "stderr", 'F', c.kubelet.Message(c.index, seq+1))
		text = c.kubelet.framed(text, stamp, "stdout", 'P', message[partBytes:2*partBytes])
		if err := c.put(text); err != nil {
			return err
		}
		c.mu.Unlock()
		c.mu.Lock()
		text = c.kubelet.framed(nil, stamp, "stdout", 'F', message[2*partBytes:])
		seq += 2
		break
	}
	if err := c.put(text); err != nil {
		return err
	}
	c.next = seq
	return nil
}

// put writes whole lines, now and then in two pieces, so that a reader meets a
// line that is torn.
func (c *Container) put(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	cut := 0
	if c.random.IntN(4) == 0 {
		cut = c.random.IntN(len(text))
	}
	for _, piece := range [][]byte{text[:cut], text[cut:]} {
		n, err := c.file.Write(piece)
		c.size += int64(n)
		c.bytes += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Container) open() error {
	f, err := os.OpenFile(c.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	c.file, c.size = f, 0
	return nil
}

// rotateIfLarge is a turn of the kubelet.
func (c *Container) rotateIfLarge() error {
	c.mu.Lock()
	large := c.size > c.kubelet.config.RotateBytes
	c.mu.Unlock()
	if !large {
		return nil
	}
	return c.Rotate()
}

// Rotate rotates the file whatever its size.
func (c *Container) Rotate() error {
	old, err := filepath.Glob(c.path + ".*")
	if err != nil {
		return err
	}
	slices.Sort(old) // by time stamp
	// One place is for the file that is rotated now, one for the new one.
	for len(old) > c.kubelet.config.Keep-2 {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		c.kubelet.removed.Add(1)
		old = old[1:]
	}
	for _, path := range old {
		if !strings.HasSuffix(path, ".gz") {
			if err := compress(path); err != nil {
				return err
			}
		}
	}
	// A second has one rotation; the kubelet looks every ten.
	stamp := time.Now()
	for stamp.Format("20060102-150405") <= c.last {
		stamp = stamp.Add(time.Second)
	}
	c.last = stamp.Format("20060102-150405")
	if err := os.Rename(c.path, c.path+"."+c.last); err != nil {
		return err
	}
	c.kubelet.rotations.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.file.Close(), c.open())
}

// compress puts PATH.gz in the place of a file, by way of PATH.tmp.
func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close() // it is only read
	tmp := path + ".tmp"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err := errors.Join(err, z.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

// long says that a record comes in parts.
func (k *Kubelet) long(seq int) bool { return k.config.Partials && seq%997 == 500 }

// stream of a line that is not long.
func stream(seq int) string {
	if seq%7 == 3 {
		return "stderr"
	}
	return "stdout"
}

// framing is the length of the runtime's words before a message, and the
// newline after it.
const framing = len("2006-01-02T15:04:05.000000000Z stdout F ") + 1

func (k *Kubelet) framed(b []byte, stamp, stream string, tag byte, message []byte) []byte {
	if !k.config.Plain {
		b = append(append(b, stamp...), ' ')
		b = append(append(b, stream...), ' ', tag, ' ')
	}
	return append(append(b, message...), '\n')
}

// Message is that of a line, which its number and its container tell. It ends
// with digits as in the ids of requests and traces, so that it compresses as
// real ones do.
func (k *Kubelet) Message(container, seq int) []byte {
	length := k.config.LineBytes - framing
	if k.long(seq) {
		length = 2*partBytes + 100 + seq%partBytes
	}
	b := make([]byte, 0, length+160)
	b = fmt.Appendf(b, "seq=%09d c=%02d level=info caller=server.go:%d msg=\"request served\" method=GET path=/api/orders/%d status=200 ", seq, container, seq%500, seq*7919%100_000)
	b = append(b, "trace="...)
	for x := uint64(container)<<32 + uint64(seq); len(b) < length; {
		// SplitMix64 (Steele, Lea, Flood 2014).
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		for z ^= z >> 31; z != 0; z >>= 4 {
			b = append(b, "0123456789abcdef"[z&15])
		}
	}
	return b[:length]
}

// Bytes is what a record that is not long takes in its file.
func (k *Kubelet) Bytes() int64 { return int64(k.config.LineBytes) }

// number reads the container and the number of a message.
func number(message string) (container, seq int, err error) {
	if len(message) < len("seq=000000000 c=00") || message[:4] != "seq=" || message[13:16] != " c=" {
		return 0, 0, errors.New("it has no number")
	}
	seq, err1 := strconv.Atoi(message[4:13])
	container, err2 := strconv.Atoi(message[16:18])
	return container, seq, errors.Join(err1, err2)
}

// At returns when a line was written, with what the mark before and after it say.
func (c *Container) At(seq int) (from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := slices.BinarySearchFunc(c.times, seq+1, func(m mark, seq int) int { return cmp.Compare(m.from, seq) })
	from = c.times[max(i-1, 0)].at
	to = time.Now()
	if i < len(c.times) {
		to = c.times[i].at
	}
	return from, to
}

// Path is the file that is written to.
func (c *Container) Path() string { return c.path }

// Tally is what became of the lines of a Kubelet.
type Tally struct {
	Kubelet *Kubelet
	Stored  int // lines that are there at least once
	Double  int // copies beyond the first
	// Within counts copies that lie in the same backing index as another one:
	// those no rollover explains.
	Within  int
	Strange []string

	seen  [][]uint8 // by container and number: how often
	index [][]uint8 // the backing index of the first one
	names []string  // of backing indices
}

// NewTally starts with nothing stored; call it when all is written.
func NewTally(k *Kubelet) *Tally {
	t := &Tally{Kubelet: k}
	for _, c := range k.containers {
		t.seen = append(t.seen, make([]uint8, c.Lines()))
		t.index = append(t.index, make([]uint8, c.Lines()))
	}
	return t
}

// Add counts a document.
func (t *Tally) Add(index, message string) {
	container, seq, err := number(message)
	if err != nil || container >= len(t.seen) || seq >= len(t.seen[container]) || message != string(t.Kubelet.Message(container, seq)) {
		if len(t.Strange) < 1000 {
			t.Strange = append(t.Strange, message)
		}
		return
	}
	name := slices.Index(t.names, index)
	if name < 0 {
		name = len(t.names)
		t.names = append(t.names, index)
	}
	if t.seen[container][seq]++; t.seen[container][seq] == 1 {
		t.Stored++
		t.index[container][seq] = uint8(name)
		return
	}
	t.Double++
	if t.index[container][seq] == uint8(name) {
		t.Within++
	}
}

// Indices are the backing indices that documents lie in.
func (t *Tally) Indices() int { return len(t.names) }

// Missing calls each with the numbers that are not there.
func (t *Tally) Missing(each func(c *Container, seq int)) (n int) {
	for i, seen := range t.seen {
		for seq, times := range seen {
			if times == 0 {
				n++
				if each != nil {
					each(t.Kubelet.containers[i], seq)
				}
			}
		}
	}
	return n
}
