package logs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/ship"
	"nines/pkg/ops"
)

// Follower reads the files of its sources and ships their lines to one
// destination.
type Follower struct {
	cfg     Config
	sources []*source
	log     *slog.Logger
	dest    ship.Destination
	m       *counters

	// The reader's own.
	buf        []byte
	piece      piece
	batch      *batch
	work       chan *batch // the reader sends and closes, shippers receive
	stock      *stock
	watch      *watcher
	scans      int
	nextScan   time.Time
	visited    time.Time // when what is done was looked at again
	scanTook   time.Duration
	byPath     map[string][]*generation // oldest first
	again      map[string]bool          // paths whose rotated generations the next look looks at
	round      []*generation
	zips       int       // open files that are compressed
	registerAt time.Time // after an error
	lastPods   uint64
	fresh      bool      // this state has never been used before
	alive      time.Time // when an earlier run was last seen to live

	open    atomic.Int64 // files
	watches atomic.Int64
	saving  sync.Mutex // held while a checkpoint is written

	mu           sync.Mutex // guards all below, and what generation says
	gens         []*generation
	known        map[fileKey]place
	retired      map[string]tally
	forgotten    tally
	redriven     tally
	redriveAt    ship.Position
	dropped      map[string]int64
	lost         map[string]int64
	gapCount     int64
	gaps         []Gap
	records      int64 // seen
	spooled      int64 // bytes
	waitingFiles int   // for a descriptor
	underway     map[*batch]time.Time
	problems     map[string]string // path to why it is not followed
	unsaved      bool              // the checkpoint cannot be written, and that was told
	dirty        time.Time         // of the oldest change that is not on disk; zero: none
}

// source is one of the configuration, at work.
type source struct {
	Source
	stream string
}

// New reads the checkpoint. It opens no log yet.
func New(cfg Config, dest ship.Destination, log *slog.Logger, set *metrics.Set) (*Follower, error) {
	c, found, err := readCheckpoint(cfg.State)
	if err != nil {
		return nil, err
	}
	f := &Follower{
		cfg: cfg, log: log.With("destination", cfg.Destination), dest: dest,
		batch: &batch{}, work: make(chan *batch), stock: newStock(cfg.Shippers),
		byPath: map[string][]*generation{}, again: map[string]bool{}, fresh: !found,
		known: map[fileKey]place{}, problems: map[string]string{}, underway: map[*batch]time.Time{},
		retired: c.Retired, forgotten: c.Forgotten, redriven: c.Redriven, redriveAt: c.RedriveAt, dropped: c.Dropped, lost: c.Lost, gapCount: c.GapCount, gaps: c.Gaps,
	}
	if found {
		if f.alive, err = savedAt(cfg.State); err != nil {
			return nil, err
		}
	}
	for _, m := range []*map[string]int64{&f.dropped, &f.lost} {
		if *m == nil {
			*m = map[string]int64{}
		}
	}
	if f.retired == nil {
		f.retired = map[string]tally{}
	}
	for _, s := range cfg.Sources {
		s.Weight = max(1, s.Weight)
		f.sources = append(f.sources, &source{s, s.Stream(cmp.Or(cfg.Namespace, cfg.Cluster))})
	}
	f.records = f.forgotten.records()
	for _, t := range f.retired {
		f.records += t.records()
	}
	now := time.Now()
	for _, s := range c.Generations {
		if s.Size == 0 && !s.Done {
			continue // of what was empty nobody can tell what became of it
		}
		g := s.generation()
		g.first = now
		if g.source = f.sourceOf(s.Path); g.source != nil {
			g.origin = g.source.originOf(s.Path)
		}
		f.records += g.tally.records()
		f.gens = append(f.gens, g)
		f.byPath[g.path] = append(f.byPath[g.path], g)
		f.known[g.key] = place{g, g.size, g.modTime}
	}
	f.m = newCounters(set, f)
	return f, nil
}

// sourceOf returns the source that a path belongs to; nil: none any more.
func (f *Follower) sourceOf(path string) *source {
	for _, s := range f.sources {
		if s.takes(path) && (s.Containers() || matchesAny(s.Paths, func(p string) bool { return matches(p, path) })) {
			return s
		}
	}
	return nil
}

// Run follows until the context ends, and then waits for what is under way, at
// most Grace. What has no verdict by then is read again at the next start.
func (f *Follower) Run(ctx context.Context) (err error) {
	shipping, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var shippers, others sync.WaitGroup
	failed := make(chan error, f.cfg.Shippers)
	for range f.cfg.Shippers {
		shippers.Go(func() { f.shipAll(shipping, failed) })
	}
	ended := make(chan struct{})
	others.Go(func() { f.keepCheckpoint(ended) })

	if f.cfg.Watch {
		f.watch = newWatcher()
	}
	f.resume(true)
	for ctx.Err() == nil && len(failed) == 0 {
		f.lookAround()
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
	shippers.Wait()
	close(ended)
	others.Wait()
	if len(failed) > 0 {
		err = <-failed
	}
	err = errors.Join(err, f.save(), f.watch.close())
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

// lookAround takes what the kernel tells, and looks for files when it is time to
// or when a folder has changed. Looks take a tenth of the time at most.
func (f *Follower) lookAround() {
	news, look := f.watch.take()
	for _, g := range news {
		// At once, also while the destination takes nothing: what is open stays.
		if g.woken = g.parked; g.woken && !f.crowded(false) {
			f.unpark(g)
		}
	}
	now := time.Now()
	if soon := now.Add(10 * f.scanTook); look && f.nextScan.After(soon) {
		f.nextScan = soon
	}
	if !now.Before(f.nextScan) {
		f.scan()
		f.scanTook = time.Since(now)
		every := f.cfg.Scan
		if f.watch.complete() {
			every = f.cfg.ScanWatched
		}
		if len(f.again) > 0 {
			every = f.cfg.Scan
		}
		f.nextScan = now.Add(every)
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
	refused := 0 // for want of descriptors
	f.round = append(f.round[:0], f.gens...)
	for _, g := range f.round {
		if f.batch.full() {
			// The look for files that comes in between may change what there is,
			// but the next file in the row still has its turn first.
			f.hand(ctx)
			if ctx.Err() != nil {
				return false
			}
			more = true
		}
		if g.done || !g.following() || waiting[g.path] {
			continue
		}
		if g.parked && (!g.woken || !f.unpark(g)) {
			if g.woken {
				refused++
			}
			continue
		}
		if !f.registered(g) {
			waiting[g.path] = true
			continue
		}
		for n := 0; n < g.source.Weight && !f.batch.full(); n++ {
			if !f.turn(g, now) {
				break
			} else if n == g.source.Weight-1 || f.batch.full() {
				more, waiting[g.path] = true, true
			}
			if g.done || g.content == nil {
				break
			}
		}
	}
	f.mu.Lock()
	f.waitingFiles = refused
	f.mu.Unlock()
	if refused > 0 {
		f.makeRoom(now)
		more = more || !f.crowded(false)
	}
	return more
}

// register has the identity of new generations on disk before any of their
// records leaves, so that no crash gives a record a second _id.
func (f *Follower) register() {
	f.mu.Lock()
	missing := slices.ContainsFunc(f.gens, func(g *generation) bool { return g.ahead == 0 })
	f.mu.Unlock()
	if now := time.Now(); missing && !now.Before(f.registerAt) && f.save() != nil {
		f.registerAt = now.Add(f.cfg.Scan) // told by save; what is not registered waits
	}
}

func (f *Follower) registered(g *generation) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return g.ahead > 0
}

// offer gives the batch to a shipper if one is idle: small batches are for
// idle times.
func (f *Follower) offer() {
	if len(f.batch.recs) == 0 || !f.sealed() {
		return
	}
	select {
	case f.work <- f.batch:
		f.batch = f.stock.take()
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
	for {
		var work chan *batch // nil: nobody receives
		if f.sealed() {
			work = f.work
		}
		timer := time.NewTimer(f.cfg.Scan)
		select {
		case work <- f.batch:
			timer.Stop()
			f.batch = f.stock.take()
			return
		case <-timer.C:
			f.lookAround()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// sealed makes the batch ready to leave. It is not where the checkpoint does not
// know yet that its records may have been sent: after a crash nobody would look
// for them.
func (f *Follower) sealed() bool {
	f.mu.Lock()
	beyond := slices.ContainsFunc(f.batch.ahead, func(g *generation) bool { return g.read > g.ahead })
	f.mu.Unlock()
	if beyond && f.save() != nil {
		return false
	}
	f.batch.seal()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.underway[f.batch].IsZero() {
		f.underway[f.batch] = time.Now()
	}
	return true
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
		f.stock.put(b)
	}
}

// settle takes the verdicts of a batch, and moves each file's offset past the
// records that have one without a gap.
func (f *Follower) settle(b *batch, verdicts []ship.Verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.underway, b)
	for i := range b.recs {
		r, v := &b.recs[i], verdicts[i]
		if v == ship.Unknown {
			continue // it is sent again after the next start
		}
		r.settle(v, 1)
		for _, older := range r.more {
			r.span.owed = append(r.span.owed, owed{older, v})
		}
	}
	for _, g := range b.ahead {
		f.advance(g)
	}
}

// settle notes the verdict of a record of which the share is a part.
func (s share) settle(v ship.Verdict, records int64) {
	s.span.left--
	if v == ship.DeadLettered {
		s.span.tally.DeadLettered += s.bytes
		s.span.tally.DeadLetteredRecords += records
	} else {
		s.span.tally.Stored += s.bytes
		s.span.tally.StoredRecords += records
	}
}

// advance moves the offset of a generation past the spans that are settled.
// Caller holds mu.
func (f *Follower) advance(g *generation) {
	for len(g.spans) > 0 && !g.spans[0].open && g.spans[0].left == 0 {
		s := g.spans[0]
		g.spans[0] = nil
		g.spans = g.spans[1:]
		g.offset = s.end
		g.tally.add(s.tally)
		for _, o := range s.owed {
			o.settle(o.verdict, 0)
			f.advance(o.span.g)
		}
		f.changed()
	}
}

// changed notes that the checkpoint on disk is old. Caller holds mu.
func (f *Follower) changed() {
	if f.dirty.IsZero() {
		f.dirty = time.Now()
	}
}

const (
	// saveEvery is how far a checkpoint may lag: what is read again after a crash,
	// and stored once by its _id. A large one is written less often, so that it
	// takes no more than saveBytes a second.
	saveEvery = time.Second
	saveBytes = 256 << 10
	// aheadBytes is how much of a file may leave before the checkpoint has to be
	// written again; after a crash that much is looked for before it is sent.
	aheadBytes = 32 << 20
)

func (f *Follower) keepCheckpoint(ended <-chan struct{}) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	var next time.Time
	for {
		select {
		case now := <-tick.C:
			f.mu.Lock()
			dirty, gens := !f.dirty.IsZero(), len(f.gens)
			f.mu.Unlock()
			if dirty && !now.Before(next) {
				// Told by save; shipping goes on: what is sent twice is stored once.
				_ = f.save()
				next = now.Add(time.Duration(gens) * savedBytes * time.Second / saveBytes)
			}
		case <-ended:
			return
		}
	}
}

// savedBytes is about what one generation takes in a checkpoint.
const savedBytes = 400

// save writes the checkpoint. That it cannot be written is logged once.
func (f *Follower) save() error {
	f.saving.Lock()
	defer f.saving.Unlock()
	c, ahead, since := f.snapshot()
	data, err := c.encode()
	if err == nil {
		err = ops.Remedy(ops.WriteFile(checkpointPath(f.cfg.State), data, 0o640))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.dirty = since
		f.changed()
		if !f.unsaved {
			f.unsaved = true
			f.log.Warn("the checkpoint of logs cannot be written; records wait until it can", "error", err)
		}
		return fmt.Errorf("write checkpoint: %w", err)
	}
	f.unsaved = false
	for g, to := range ahead {
		g.ahead = to
	}
	return nil
}

// snapshot returns what a checkpoint holds, and how far each generation's
// records may be sent once it is on disk; and since when it has been due.
func (f *Follower) snapshot() (c checkpoint, ahead map[*generation]int64, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since, f.dirty = f.dirty, time.Time{}
	c = checkpoint{
		Generations: make([]saved, 0, len(f.gens)), Retired: maps.Clone(f.retired), Forgotten: f.forgotten, Redriven: f.redriven, RedriveAt: f.redriveAt,
		Dropped: maps.Clone(f.dropped), Lost: maps.Clone(f.lost), GapCount: f.gapCount, Gaps: slices.Clone(f.gaps),
	}
	ahead = make(map[*generation]int64, len(f.gens))
	for _, g := range f.gens {
		ahead[g] = g.read + aheadBytes
		if g.done && len(g.spans) == 0 {
			ahead[g] = g.offset + 1 // none is sent again
		}
		c.Generations = append(c.Generations, saved{
			ID: g.id, Record: g.recordID, Path: g.path, Name: g.name, Device: g.key.device, Inode: g.key.inode, HeadLen: g.headLen, Head: g.head,
			Offset: g.offset, Ahead: ahead[g], Size: g.size, ModTime: g.modTime.UnixNano(), Tally: g.tally,
			Done: g.done && len(g.spans) == 0, Spooled: g.spooled, Base: g.base,
		})
	}
	return c, ahead, since
}

// Uses says whether a file of the pod is not delivered to its end.
func (f *Follower) Uses(namespace, name, uid string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.gens, func(g *generation) bool {
		o := g.origin
		return o.uid == uid && o.pod == name && o.namespace == namespace && !(g.done && len(g.spans) == 0)
	})
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
	if f.unsaved {
		out = append(out, "write the checkpoint: records of new files wait until it can be written; the log says why")
	}
	if f.waitingFiles > 0 {
		out = append(out, fmt.Sprintf("open %d files: as many as may be are open, and have more to read", f.waitingFiles))
	}
	if why := f.dest.Hold(); why != "" {
		out = append(out, "ship log records: "+why)
	}
	return out
}
