package store

import (
	"context"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// RefusedSource tells that samples of one source were refused for one reason.
// Nothing of what was refused will come again.
type RefusedSource struct {
	Job, Instance, Cluster string
	// Any says that the source could not be told: it may be each of them.
	Any    bool
	Reason Reason
	// First and Last are the times of the refused samples, ms since the epoch.
	// First is math.MinInt64 where they are not known: any time up to Last.
	First, Last int64
	Samples     int // 0 where they could not be counted
}

// RefusedHook is given what was refused of a batch: one entry for each source
// and reason. It is called under the rules of Hook, in turn with it, before the
// hook gets what was accepted of the same batch, also where nothing was. The
// slice may be kept.
//
// A request that is refused whole because it is too large or can't be decoded
// comes as one entry with Any: its sender drops it, and nobody knows what was
// in it. One that is answered with 503 or 500 does not come at all, because its
// sender repeats it; neither does one of another content type, since whoever
// sends that has never had a sample taken.
type RefusedHook func([]RefusedSource)

// SetRefusedHook installs the hook. It must be called before anything is
// written; without it nobody is told but the sender.
func (db *DB) SetRefusedHook(h RefusedHook) { db.refusedHook = h }

// maxRefusedSources bounds the entries of a batch; the rest share those with
// Any.
const maxRefusedSources = 10_000

// refusedSources gathers what was refused of one batch.
type refusedSources struct {
	list []RefusedSource
	at   map[refusedKey]int // index into list

	last   labels.Labels // with its reason and index, as refusals come in rows
	reason Reason
	index  int
}

type refusedKey struct {
	job, instance, cluster string
	any                    bool
	reason                 Reason
}

func (r *refusedSources) add(x *Refusal) {
	if len(r.list) == 0 || x.Reason != r.reason || !labels.Equal(x.Labels, r.last) {
		r.index = r.find(refusedKey{x.Labels.Get(model.JobLabel), x.Labels.Get(model.InstanceLabel), x.Labels.Get("cluster"), false, x.Reason})
		r.last, r.reason = x.Labels, x.Reason
	}
	r.list[r.index].widen(x.T, x.T, 1)
}

// addUnknown notes samples of a source that could not be told.
func (r *refusedSources) addUnknown(why Reason, first, last int64, samples int) {
	r.list[r.find(refusedKey{any: true, reason: why})].widen(first, last, samples)
}

func (r *refusedSources) find(k refusedKey) int {
	if i, ok := r.at[k]; ok {
		return i
	}
	if !k.any && len(r.list) >= maxRefusedSources {
		return r.find(refusedKey{any: true, reason: k.reason})
	}
	if r.at == nil {
		r.at = make(map[refusedKey]int)
	}
	r.at[k] = len(r.list)
	r.list = append(r.list, RefusedSource{Job: k.job, Instance: k.instance, Cluster: k.cluster, Any: k.any, Reason: k.reason,
		First: math.MaxInt64, Last: math.MinInt64})
	return r.at[k]
}

func (s *RefusedSource) widen(first, last int64, samples int) {
	s.First, s.Last = min(s.First, first), max(s.Last, last)
	s.Samples += samples
}

// refuseRequest tells the refused hook of a request of which nothing could be
// read.
func (db *DB) refuseRequest() {
	app := db.Appender(context.Background())
	app.sources.addUnknown(Unreadable, math.MinInt64, db.now().UnixMilli(), 0)
	// A store that stopped has stopped its hooks too, and says so by Err.
	_ = app.Commit()
}
