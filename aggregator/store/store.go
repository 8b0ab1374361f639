package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"nines/pkg/ops"
)

// Sample is one value of one series at one time: a float, or a native
// histogram where H or FH is set.
type Sample struct {
	// Ref names the series as long as this process runs. It is never given to
	// another series, but a series that was away for hours may come back under
	// another one. 0 in samples that were not stored yet.
	Ref    uint64
	Labels labels.Labels
	ST     int64 // start timestamp, ms since the epoch; 0 is unknown
	T      int64 // ms since the epoch
	V      float64
	H      *histogram.Histogram
	FH     *histogram.FloatHistogram

	handle *Handle // until it is stored
}

// Hook is given each accepted batch once it is durable and before it is
// acknowledged. Calls come one at a time, in the order of commits. The slice
// and the histograms belong to the store after the call returns; labels may be
// kept. A hook must not write to the store, nor wait for a lock whose holder
// may be writing to it.
type Hook func(batch []Sample)

// Store is what the stages behind need of a metric store.
type Store interface {
	// SetHook installs the hook. To be called before anything is written.
	SetHook(Hook)
	// Appender collects samples for one commit.
	Appender(ctx context.Context) *Appender
	// Sync returns when all committed samples are durable.
	Sync() error
	// Querier reads raw samples of a closed interval, in ms since the epoch.
	Querier(mint, maxt int64) (storage.Querier, error)
	// Query evaluates a PromQL expression at one instant.
	Query(ctx context.Context, expr string, at time.Time) (parser.Value, error)
}

var _ Store = (*DB)(nil)

// ErrClosed is returned by writes after Close.
var ErrClosed = errors.New("the store is closed")

// DB is the embedded store.
type DB struct {
	id      string // of what is in the folder
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	lock    *ops.FolderLock
	tsdb    *tsdb.DB
	engine  *promql.Engine
	parser  parser.Parser
	metrics *metrics
	meta    *metadataMap
	limiter *limiter
	writes  chan struct{} // holds a token for each remote-write request in work

	hook        Hook
	refusedHook RefusedHook

	// The handles of series: by labels, and as remote write 1.0 and 2.0 spell them.
	byLabels, byV1, byV2 *cache

	batches  sync.Pool // of *[]Sample
	bodies   sync.Pool // of *[]byte
	decoders sync.Pool // of *decoder

	// wblFailures is the database's own count of failed writes to its second
	// log, which it does not report otherwise.
	wblFailures prometheus.Collector

	// failed is set once, when the logs can't be trusted any more.
	failed atomic.Pointer[failure]
	broken chan struct{} // closed then
	// poisoned is set when the database panicked: it may hold locks for ever,
	// so that it can be neither read nor closed.
	poisoned atomic.Bool

	free func() (uint64, error) // bytes free for this user where the store lies

	mu      sync.Mutex
	closed  bool          // guarded by mu
	newest  newestInBatch // guarded by mu
	pending []*commit     // guarded by mu: committed, not yet synced, in order

	syncMu sync.Mutex
	syncer syncer // guarded by syncMu; nil with Config.Bulk

	readyMu sync.Mutex
	ready   []*commit // guarded by readyMu: durable, not yet given to the hook, in order

	hookMu sync.Mutex // held while the hook runs
}

type syncer interface {
	sync() error
	close() error
}

type failure struct{ err error }

// Open opens or creates the store in cfg.Dir and replays its logs. A folder
// that another process holds gives an *ops.HeldError. The caller closes it.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (_ *DB, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	defer func() {
		if err != nil {
			err = ops.Remedy(fmt.Errorf("open store: %w", err))
		}
	}()
	lock, err := ops.LockFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	db := &DB{
		cfg:    cfg,
		log:    log,
		now:    cfg.Now,
		lock:   lock,
		parser: parser.NewParser(parser.Options{}),
		writes: make(chan struct{}, cfg.Limits.Requests),
		hook:   func([]Sample) {},
		broken: make(chan struct{}),
		byV1:   newCache(cacheBytes),
		byV2:   newCache(cacheBytes),

		byLabels:    newCache(cacheBytes),
		refusedHook: func([]RefusedSource) {},
	}
	if db.now == nil {
		db.now = time.Now
	}
	db.limiter = newLimiter(cfg.Limits, log, db.now)
	db.free = func() (uint64, error) { return freeBytes(cfg.Dir) }
	defer func() {
		if err != nil {
			err = errors.Join(err, db.closeParts())
		}
	}()

	// Everything is registered through a list that is taken back on an error,
	// so that a failed Open can be repeated.
	regs := &registrations{Registerer: reg}
	defer func() {
		if err != nil {
			regs.unregisterAll()
		}
	}()
	if db.id, err = identity(cfg.Dir); err != nil {
		return nil, err
	}
	if err := dropUnconfirmedSnapshots(cfg.Dir); err != nil {
		return nil, err
	}
	if !cfg.Bulk {
		if err := rescue(cfg.Dir, log, *cfg.tsdbOptions()); err != nil {
			return nil, err
		}
	}
	options := cfg.tsdbOptions()
	options.SeriesLifecycleCallback = db.limiter
	if db.tsdb, err = openWhole(cfg.Dir, log, regs, options); err != nil {
		return nil, err
	}
	showLimits(regs, db.limiter)
	db.wblFailures = regs.find("prometheus_tsdb_out_of_order_wbl_writes_failed_total")
	if cfg.OutOfOrder > 0 && !cfg.Bulk && db.wblFailures == nil {
		return nil, errors.New("the database does not tell failed writes of its second log: this version of it cannot be used")
	}
	if !cfg.Bulk {
		// The folders of the logs may be new: what is synced in them counts only
		// when their names are durable.
		if err := ops.SyncDir(cfg.Dir); err != nil {
			return nil, err
		}
		logs, err := newLogSyncer(filepath.Join(cfg.Dir, "wal"), filepath.Join(cfg.Dir, wlog.WblDirName))
		if err != nil {
			return nil, err
		}
		db.syncer = logs
	}
	db.metrics = newMetrics(regs)
	db.meta = newMetadataMap(cfg.MaxMetadata, db.metrics)
	db.engine = promql.NewEngine(promql.EngineOpts{
		Logger:               log,
		Reg:                  regs,
		MaxSamples:           cfg.QueryMaxSamples,
		Timeout:              cfg.QueryTimeout,
		ActiveQueryTracker:   newSlots(cfg.QueryConcurrency),
		LookbackDelta:        cfg.Lookback,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 {
			return time.Minute.Milliseconds()
		},
		Parser: db.parser,
	})
	// What an earlier process wrote last may not be durable yet.
	if err := db.Sync(); err != nil {
		return nil, err
	}
	return db, nil
}

// openWhole opens the database a second time where it had to cut a torn end off
// its log: it then leaves out its second log, that of late samples, and would
// delete it in the end.
func openWhole(dir string, log *slog.Logger, regs *registrations, o *tsdb.Options) (*tsdb.DB, error) {
	db, err := tsdb.Open(dir, log, regs, o, nil)
	if err != nil || counterValue(regs.find("prometheus_tsdb_wal_corruptions_total")) == 0 {
		return db, err
	}
	if err := db.Close(); err != nil {
		return nil, fmt.Errorf("close after repairing the log: %w", err)
	}
	regs.unregisterAll()
	if l, ok := o.SeriesLifecycleCallback.(*limiter); ok {
		l.reset()
	}
	return tsdb.Open(dir, log, regs, o, nil)
}

func (c Config) tsdbOptions() *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.NoLockfile = true // the folder is locked by Open, with the holder's pid
	o.RetentionDuration = c.Retention.Milliseconds()
	o.MaxBytes = c.RetentionSize
	o.MinBlockDuration = minBlock.Milliseconds()
	o.MaxBlockDuration = c.maxBlockDuration().Milliseconds()
	o.OutOfOrderTimeWindow = c.OutOfOrder.Milliseconds()
	o.WALCompression = compression.Snappy
	o.WALSegmentSize = 32 << 20
	// The library sets aside this much disk for each block that it writes.
	o.MaxBlockChunkSegmentSize = 64 << 20
	o.EnableMemorySnapshotOnShutdown = true
	o.EnableExemplarStorage = c.MaxExemplars > 0
	o.MaxExemplars = c.MaxExemplars
	o.EnableSTStorage = true
	o.FloatChunkEncoding = chunkenc.EncXOR2
	o.EnableHistogramSTEncoding = true
	if c.Bulk {
		o.WALSegmentSize = -1 // none
		o.IsolationDisabled = true
		o.EnableMemorySnapshotOnShutdown = false
		// Each block costs an index of all series.
		o.MinBlockDuration = bulkBlock.Milliseconds()
		o.MaxBlockDuration = max(o.MaxBlockDuration, o.MinBlockDuration)
	}
	return o
}

// SetHook installs the append hook. It must be called before anything is
// written; without it accepted samples go to the database alone.
func (db *DB) SetHook(h Hook) { db.hook = h }

// Querier reads raw samples in [mint, maxt], ms since the epoch, both ends
// included. The caller closes it, before the store. Start timestamps come from
// AtST of the series' iterators.
func (db *DB) Querier(mint, maxt int64) (storage.Querier, error) {
	return db.tsdb.Querier(mint, maxt)
}

// MinTime is the time of the oldest sample kept, false in an empty store.
func (db *DB) MinTime() (time.Time, bool) {
	mint := db.tsdb.Head().MinTime()
	for _, b := range db.tsdb.Blocks() {
		mint = min(mint, b.MinTime())
	}
	if ooo := db.tsdb.Head().MinOOOTime(); ooo < mint {
		mint = ooo
	}
	return time.UnixMilli(mint), mint != math.MaxInt64
}

// MaxTime is the time of the newest sample, false in an empty store.
func (db *DB) MaxTime() (time.Time, bool) {
	maxt := db.tsdb.Head().MaxTime()
	for _, b := range db.tsdb.Blocks() {
		maxt = max(maxt, b.MaxTime()-1) // a block's end is exclusive
	}
	return time.UnixMilli(maxt), maxt != math.MinInt64
}

// Series is the number of series with a sample in the newest hours.
func (db *DB) Series() uint64 { return db.tsdb.Head().NumSeries() }

// Err returns nil as long as writes can be made durable. After the first
// failure to write or sync a log it returns that failure for good: nothing is
// accepted any more, senders keep what they have, and a restart (once the disk
// is well) replays what is durable. A disk that is merely nearly full is not
// such a failure: writing goes on when there is space again.
func (db *DB) Err() error {
	if f := db.failed.Load(); f != nil {
		return f.err
	}
	return nil
}

// Failed is closed when Err turns from nil to an error.
func (db *DB) Failed() <-chan struct{} { return db.broken }

func (db *DB) fail(err error) error {
	err = fmt.Errorf("the store takes no more samples until a restart: %w", ops.Remedy(err))
	if db.failed.CompareAndSwap(nil, &failure{err}) {
		db.log.Error("store failed: nothing unacknowledged is kept, senders retry", "err", err)
		close(db.broken)
	}
	return db.Err()
}

// Close ends writing, leaves a memory snapshot for a quick start, and gives
// the folder back. Queries still running are waited for only as far as they
// read blocks: stop serving first. After a failure inside the database its
// goroutines and files are left to the end of the process.
func (db *DB) Close() error {
	db.mu.Lock()
	closed := db.closed
	db.closed = true
	db.mu.Unlock()
	if closed {
		return nil
	}
	var err error
	if db.Err() == nil {
		err = db.Sync()
	}
	if err := errors.Join(err, db.closeParts()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

func (db *DB) closeParts() error {
	var errs []error
	if db.engine != nil {
		errs = append(errs, db.engine.Close())
	}
	db.syncMu.Lock()
	if db.syncer != nil {
		errs = append(errs, db.syncer.close())
	}
	db.syncMu.Unlock()
	if db.tsdb != nil && !db.poisoned.Load() {
		var late error
		if !db.cfg.Bulk {
			late = db.tsdb.CompactOOOHead(context.Background())
		}
		err := db.tsdb.Close()
		if err == nil {
			err = confirmSnapshots(db.cfg.Dir)
		}
		if err = errors.Join(late, err); err == nil && !db.cfg.Bulk {
			err = markClean(db.cfg.Dir)
		}
		errs = append(errs, err)
	}
	errs = append(errs, db.lock.Unlock())
	return errors.Join(errs...)
}
