package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/ship"
	"nines/pkg/ops"
)

// Follower reads the files of its sources and ships their lines.
type Follower struct {
	cfg  Config
	log  *slog.Logger
	dest ship.Destination
	m    *counters

	// The reader's own.
	buf       []byte
	batch     *batch
	work      chan *batch // the reader sends and closes, shippers receive
	free      chan *batch // shippers give back, the reader takes
	scans     int
	nextScan  time.Time
	lastPods  uint64
	saveError string

	mu       sync.Mutex // guards all below, and what generation says
	gens     []*generation
	known    map[fileKey]*generation
	retired  map[string]tally
	problems map[string]string // path to why it is not followed
	dirty    time.Time         // of the oldest change that is not on disk; zero: none
}

// shippers send at the same time: while one waits for the answer the other
// compresses.
const shippers = 2

// New reads the checkpoint. It opens no file yet.
func New(cfg Config, dest ship.Destination, log *slog.Logger, set *metrics.Set) (*Follower, error) {
	c, err := readCheckpoint(cfg.State)
	if err != nil {
		return nil, err
	}
	f := &Follower{
		cfg: cfg, log: log, dest: dest,
		buf:   make([]byte, max(minTurn, cfg.MaxRecord+1)),
		batch: &batch{stream: ship.StreamOfFiles(cfg.Cluster)}, work: make(chan *batch), free: make(chan *batch, shippers),
		known: map[fileKey]*generation{}, retired: c.Retired, problems: map[string]string{},
	}
	if f.retired == nil {
		f.retired = map[string]tally{}
	}
	for range shippers {
		f.free <- &batch{stream: f.batch.stream}
	}
	for _, s := range c.Generations {
		g := &generation{
			id: s.ID, path: s.Path, name: s.Name, key: fileKey{s.Device, s.Inode}, headLen: s.HeadLen, head: s.Head,
			modTime: time.Unix(0, s.ModTime), done: s.Done, rotated: s.Done, onDisk: true,
			origin: originOf(s.Path),
			size:   s.Size, read: s.Offset, offset: s.Offset, tally: s.Tally,
		}
		f.gens = append(f.gens, g)
		f.known[g.key] = g
	}
	f.m = newCounters(set, f)
	return f, nil
}

// Run follows until the context ends, and then waits for what is under way, at
// most Grace. What has no verdict by then is read again at the next start.
func (f *Follower) Run(ctx context.Context) (err error) {
	shipping, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var shippersDone, others sync.WaitGroup
	failed := make(chan error, shippers)
	for range shippers {
		shippersDone.Go(func() { f.shipAll(shipping, failed) })
	}
	ended := make(chan struct{})
	others.Go(func() { f.keepCheckpoint(ended) })
	if f.cfg.Pods != nil {
		others.Go(func() { f.cfg.Pods.Run(ctx) })
	}

	f.resume()
	for ctx.Err() == nil && len(failed) == 0 {
		f.lookIfDue()
		if f.pass(ctx) {
			continue
		}
		f.offer()
		wait(ctx, f.cfg.Poll)
	}
	// What was read leaves if it can.
	grace := time.AfterFunc(f.cfg.Grace, func() { stop(context.Canceled) })
	defer grace.Stop()
	f.hand(shipping)
	close(f.work)
	shippersDone.Wait()
	close(ended)
	others.Wait()
	if len(failed) > 0 {
		err = <-failed
	}
	err = errors.Join(err, f.save())
	for _, g := range f.gens {
		err = errors.Join(err, g.release())
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lookIfDue looks for files when it is time to.
func (f *Follower) lookIfDue() {
	if now := time.Now(); !now.Before(f.nextScan) {
		f.nextScan = now.Add(f.cfg.Scan)
		f.scan()
	}
}

// pass gives each file its turn once. A file waits until the older generations
// of its path are read. It says whether there may be more to read now.
func (f *Follower) pass(ctx context.Context) (more bool) {
	f.register()
	if f.cfg.Pods != nil {
		f.lastPods = f.cfg.Pods.Version()
	}
	now := time.Now()
	waiting := map[string]bool{}
	for _, g := range f.gens {
		if g.file == nil || waiting[g.path] {
			continue
		}
		if !f.registered(g) {
			waiting[g.path] = true
			continue
		}
		if f.batch.full() {
			f.hand(ctx)
			// A look for files may have come in between.
			return ctx.Err() == nil
		}
		if f.turn(g, now) {
			more, waiting[g.path] = true, true
		}
	}
	return more
}

// register has the identity of new generations on disk before any of their
// records leaves, so that no crash gives a record a second _id.
func (f *Follower) register() {
	f.mu.Lock()
	missing := slices.ContainsFunc(f.gens, func(g *generation) bool { return !g.onDisk })
	f.mu.Unlock()
	if missing {
		_ = f.save() // told by save; what is not registered waits
	}
}

func (f *Follower) registered(g *generation) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return g.onDisk
}

// offer gives the batch to a shipper if one is idle: small batches are for
// idle times.
func (f *Follower) offer() {
	if len(f.batch.recs) == 0 {
		return
	}
	f.batch.seal()
	select {
	case f.work <- f.batch:
		f.batch = <-f.free
	default:
	}
}

// hand gives the batch to a shipper and waits for one. It looks for files
// meanwhile, so that a destination that is down does not make us miss a
// rotation.
func (f *Follower) hand(ctx context.Context) {
	if len(f.batch.recs) == 0 {
		return
	}
	f.batch.seal()
	for {
		timer := time.NewTimer(f.cfg.Scan)
		select {
		case f.work <- f.batch:
			timer.Stop()
			// A shipper that takes a batch has given its last one back before.
			f.batch = <-f.free
			return
		case <-timer.C:
			f.lookIfDue()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// shipAll ships batches until there are no more. After an error, which is told
// at once, it only gives them back.
func (f *Follower) shipAll(ctx context.Context, failed chan<- error) {
	broken := false
	for b := range f.work {
		if !broken {
			verdicts, err := f.dest.Ship(ctx, b.records)
			f.settle(b, verdicts)
			if err != nil && ctx.Err() == nil {
				broken = true
				failed <- fmt.Errorf("ship: %w", err)
			}
		}
		b.reset()
		f.free <- b
	}
}

// settle takes the verdicts of a batch, and moves each file's offset past the
// records that have one without a gap.
func (f *Follower) settle(b *batch, verdicts []ship.Verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range b.spans {
		s.settled = true
		for i := s.first; i < s.first+s.n; i++ {
			bytes := b.recs[i].bytes
			switch verdicts[i] {
			case ship.Unknown:
				s.settled = false
			case ship.DeadLettered:
				s.tally.DeadLettered += bytes
				s.tally.DeadLetteredRecords++
			default:
				s.tally.Stored += bytes
				s.tally.StoredRecords++
			}
		}
		g := s.g
		for len(g.spans) > 0 && g.spans[0].settled {
			done := g.spans[0]
			g.spans = g.spans[1:]
			g.offset = done.end
			g.tally.add(done.tally)
			f.m.stored.Add(int(done.tally.StoredRecords))
			f.m.deadLettered.Add(int(done.tally.DeadLetteredRecords))
			f.changed()
		}
	}
}

// changed notes that the checkpoint on disk is old. Caller holds mu.
func (f *Follower) changed() {
	if f.dirty.IsZero() {
		f.dirty = time.Now()
	}
}

// saveEvery is how far a checkpoint may lag: what is read again after a crash,
// and stored once by its _id.
const saveEvery = time.Second

func (f *Follower) keepCheckpoint(ended <-chan struct{}) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.mu.Lock()
			dirty := !f.dirty.IsZero()
			f.mu.Unlock()
			if dirty {
				// Told by save; shipping goes on: what is sent twice is stored once.
				_ = f.save()
			}
		case <-ended:
			return
		}
	}
}

// save writes the checkpoint. An error is logged when it is new.
func (f *Follower) save() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := checkpoint{Generations: make([]saved, 0, len(f.gens)), Retired: f.retired}
	for _, g := range f.gens {
		c.Generations = append(c.Generations, saved{
			ID: g.id, Path: g.path, Name: g.name, Device: g.key.device, Inode: g.key.inode, HeadLen: g.headLen, Head: g.head,
			Offset: g.offset, Size: g.size, ModTime: g.modTime.UnixNano(), Tally: g.tally, Done: g.done && len(g.spans) == 0,
		})
	}
	data, err := c.encode()
	if err == nil {
		err = ops.Remedy(ops.WriteFile(checkpointPath(f.cfg.State), data, 0o640))
	}
	if err != nil {
		if text := err.Error(); text != f.saveError {
			f.saveError = text
			f.log.Warn("the checkpoint of logs cannot be written; new files wait until it can", "error", err)
		}
		return fmt.Errorf("write checkpoint: %w", err)
	}
	f.saveError = ""
	f.dirty = time.Time{}
	for _, g := range f.gens {
		g.onDisk = true
	}
	return nil
}

// Problems says in words what is not followed and why, and why records wait.
func (f *Follower) Problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]string, 0, len(f.problems))
	for path, why := range f.problems {
		out = append(out, fmt.Sprintf("follow %s: %s", path, why))
	}
	slices.Sort(out)
	if why := f.dest.Hold(); why != "" {
		out = append(out, "ship log records: "+why)
	}
	return out
}
