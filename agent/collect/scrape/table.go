package scrape

import (
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"nines/pkg/metric"
)

// maxSeries bounds the series whose newest sample is kept: about 90 bytes each
// beside the labels, which are those of the scrape cache. Series above it are
// sent as all others, but are not on the page, and a loop that ends late may
// mark them stale.
const maxSeries = 500_000

// chunk is how many entries the table grows by.
const chunk = 256

// table holds the newest sample of each series of the targets. A series has
// one entry, whoever scrapes it: so a loop that has ended finds that another
// one has gone on with its series, and its staleness markers are refused, as a
// store of Prometheus would.
type table struct {
	limit  int
	unseen func() // called for each new series that finds no room

	mu       sync.Mutex // guards all below, and what targets say is guarded by it
	chunks   []*[chunk]entry
	free     []uint32
	index    map[uint64]uint32 // hash of labels to place
	families map[string]*family
	loose    uint64 // series without an entry so far
}

// entry is one series. Its reference is generation<<32 | place.
type entry struct {
	ls     labels.Labels
	t      int64   // of the newest sample, ms since the epoch
	v      float64 // the value; the sum of a native histogram
	n      float64 // observations of a native histogram, noCount for all else
	family *family
	owner  *target
	sink   storage.SeriesRef // what the sink calls the series
	scrape uint32            // the owner's scrape that wrote it last; 0: none was committed yet
	gen    uint32            // odd while in use, so that old references are known
}

const noCount = -1

// family is what pages said of a metric name.
type family struct {
	name, help string
	typ        metric.Type
	from       model.MetricType
}

// loose marks references of series without an entry.
const looseRef = storage.SeriesRef(1) << 63

// sample is one that waits for its commit.
type sample struct {
	ref, sink storage.SeriesRef
	t         int64
	v, n      float64
	stale     bool
}

func newTable(limit int, unseen func()) *table {
	return &table{limit: limit, unseen: unseen, index: map[uint64]uint32{}, families: map[string]*family{}}
}

func (tb *table) at(place uint32) *entry { return &tb.chunks[place/chunk][place%chunk] }

// find returns the entry of a reference, nil where it has gone.
func (tb *table) find(ref storage.SeriesRef) *entry {
	if ref == 0 || ref&looseRef != 0 {
		return nil
	}
	e := tb.at(uint32(ref))
	if e.gen != uint32(ref>>32) {
		return nil
	}
	return e
}

// prepare finds the entry of a series, or makes one, and returns its reference
// and the sink's. It refuses a sample that must not be older than the newest
// one and is. fresh says that the entry was made now.
func (tb *table) prepare(ref storage.SeriesRef, ls labels.Labels, t int64, keep bool, opts storage.AOptions) (_, sink storage.SeriesRef, fresh bool, err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	e := tb.find(ref)
	if e == nil && ref&looseRef == 0 {
		ref, e, fresh = tb.place(ref, ls, keep)
	}
	if e == nil {
		return ref, 0, false, nil
	}
	if opts.RejectOutOfOrder && e.scrape != 0 {
		switch {
		case t < e.t:
			return 0, 0, false, storage.ErrOutOfOrderSample
		case t == e.t:
			return 0, 0, false, storage.ErrDuplicateSampleForTimestamp
		}
	}
	if e.family == nil || opts.MetricFamilyName != "" && opts.Metadata.Type != e.family.from {
		e.family = tb.familyOf(ls.Get(model.MetricNameLabel), opts)
	} else if opts.MetricFamilyName != "" && opts.Metadata.Help != e.family.help {
		e.family.help = opts.Metadata.Help
	}
	return ref, e.sink, fresh, nil
}

// place finds a series by its labels, or makes an entry if it is to be kept.
func (tb *table) place(ref storage.SeriesRef, ls labels.Labels, keep bool) (storage.SeriesRef, *entry, bool) {
	hash := ls.Hash()
	at, known := tb.index[hash]
	if known {
		if e := tb.at(at); labels.Equal(e.ls, ls) {
			return storage.SeriesRef(e.gen)<<32 | storage.SeriesRef(at), e, false
		}
	}
	full := len(tb.index) >= tb.limit
	if known || full || !keep {
		if full && keep {
			tb.unseen()
		}
		if ref == 0 {
			tb.loose++
			ref = looseRef | storage.SeriesRef(tb.loose)
		}
		return ref, nil, false
	}
	if len(tb.free) == 0 {
		first := uint32(len(tb.chunks) * chunk)
		tb.chunks = append(tb.chunks, new([chunk]entry))
		for i := range uint32(chunk) {
			tb.free = append(tb.free, first+chunk-1-i)
		}
	}
	at = tb.free[len(tb.free)-1]
	tb.free = tb.free[:len(tb.free)-1]
	e := tb.at(at)
	*e = entry{ls: ls, n: noCount, gen: e.gen + 1}
	tb.index[hash] = at
	return storage.SeriesRef(e.gen)<<32 | storage.SeriesRef(at), e, true
}

func (tb *table) remove(at uint32) {
	e := tb.at(at)
	delete(tb.index, e.ls.Hash())
	*e = entry{gen: e.gen + 1}
	tb.free = append(tb.free, at)
}

// commit makes samples of one scrape the newest ones of their series.
func (tb *table) commit(owner *target, samples []sample) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	here := owner != nil && !owner.gone
	if here {
		owner.scrapes = max(owner.scrapes+1, 1)
	}
	for _, s := range samples {
		e := tb.find(s.ref)
		switch {
		case e == nil:
		case s.stale:
			tb.remove(uint32(s.ref))
		case here:
			e.t, e.v, e.n, e.sink, e.owner, e.scrape = s.t, s.v, s.n, s.sink, owner, owner.scrapes
		case e.scrape == 0:
			tb.remove(uint32(s.ref))
		}
	}
}

// rollback forgets the series that were made by a scrape which came to nothing.
func (tb *table) rollback(fresh []storage.SeriesRef) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for _, ref := range fresh {
		if e := tb.find(ref); e != nil && e.scrape == 0 {
			tb.remove(uint32(ref))
		}
	}
}

// forget removes the series of targets that have gone. What their loops still
// have under way finds no owner.
func (tb *table) forget(gone []*target) {
	if len(gone) == 0 {
		return
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for _, t := range gone {
		t.gone = true
	}
	tb.each(func(at uint32, e *entry) {
		if e.owner != nil && e.owner.gone {
			tb.remove(at)
		}
	})
}

// sweep removes series that their target no longer has and that got no marker,
// such as those with timestamps of their own, and families without series.
func (tb *table) sweep() {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	used := map[*family]bool{}
	tb.each(func(at uint32, e *entry) {
		if e.scrape != 0 && e.scrape != e.owner.scrapes {
			tb.remove(at)
			return
		}
		used[e.family] = true
	})
	for name, f := range tb.families {
		if !used[f] {
			delete(tb.families, name)
		}
	}
}

// each calls do for every entry in use.
func (tb *table) each(do func(at uint32, e *entry)) {
	for c, entries := range tb.chunks {
		for i := range entries {
			if entries[i].gen%2 == 1 {
				do(uint32(c*chunk+i), &entries[i])
			}
		}
	}
}

func (tb *table) size() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return len(tb.index)
}

// familyOf finds the family that a series has in the text format 0.0.4: there,
// the family of a counter is named as its series.
func (tb *table) familyOf(series string, opts storage.AOptions) *family {
	name, typ := series, metric.Unknown
	switch opts.Metadata.Type {
	case model.MetricTypeCounter:
		typ = metric.Counter
	case model.MetricTypeGauge, model.MetricTypeInfo, model.MetricTypeStateset:
		typ = metric.Gauge
	case model.MetricTypeHistogram:
		typ = metric.Histogram
	case model.MetricTypeSummary:
		typ = metric.Summary
	}
	if (typ == metric.Histogram || typ == metric.Summary) && strings.HasPrefix(series, opts.MetricFamilyName) {
		name = opts.MetricFamilyName
	}
	f := tb.families[name]
	if f == nil {
		f = &family{name: strings.Clone(name)}
		tb.families[f.name] = f
	}
	f.typ, f.from, f.help = typ, opts.Metadata.Type, opts.Metadata.Help
	return f
}
