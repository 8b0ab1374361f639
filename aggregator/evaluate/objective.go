package evaluate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/pkg/openslo"
	"nines/pkg/sla"
)

// objective is one line of the book while it is evaluated.
type objective struct {
	def     sla.Objective
	queries []query
	// sampled tells that an expression is evaluated at the end of each minute
	// instead of counting samples (R8).
	sampled bool
	observe observation  // of a raw ratio or a value; nil where values are events a second
	trouble string       // why its expression cannot be evaluated at the moment
	parts   []*objective // of a derived objective, in the order of its SLI
	feeds   bool         // it is a part of another
	family  *family      // of a group

	tally      *tally
	tracks     map[uint64]*track  // by the hash of labels
	histograms map[uint64]*bucket // by the hash of labels without le
	born       time.Time          // when this process began to evaluate it

	isNew   bool // not in the book yet, or changed since
	closed  sla.Minute
	resumed sla.Minute // what was closed when this process began
	checked sla.Minute // derived again by the slow pass up to here
	rebuilt time.Time

	recent  recent
	lengths []time.Duration // of windows: alertWindows, and those of its own alerts
	windows []window
	period  window
	older   days  // what leaves a period longer than what is in memory
	heard   int64 // end of the newest booked minute with something in it, milliseconds; where samples do not tell
	moved   sla.Minute
	// newly is what was seen in the minutes that closed last.
	newly [newlyMinutes]struct {
		minute sla.Minute
		counts sla.Counts
	}
	limits                 limits
	periodStart, periodEnd sla.Minute // of the calendar period that was asked for last

	dirty bool // observed since the last settle
	// changed tells that what the windows hold may have changed since burning
	// and absent were found out, in the minute judged.
	changed         bool
	burning, absent bool
	judged          sla.Minute
}

// query is one side of an objective's ratio.
type query struct {
	role role
	openslo.Query
}

// bucket is the two edges of a classic histogram between which a threshold
// lies; both are the same track where it is an edge.
type bucket struct{ low, high *track }

const (
	alertWindowCount = 7
	// newlyMinutes is how many minutes may have closed behind the newest sample
	// (newestLag), and two more.
	newlyMinutes = 12
)

// alertWindows are the windows that the tiers need, ascending.
var alertWindows = func() (out [alertWindowCount]time.Duration) {
	var ds []time.Duration
	for _, t := range sla.Tiers {
		ds = append(ds, t.Long, t.Short)
	}
	slices.Sort(ds)
	ds = slices.Compact(ds)
	if copy(out[:], ds) != len(ds) || len(ds) != alertWindowCount {
		panic(fmt.Sprintf("the tiers have %d windows, this program is built for %d", len(ds), alertWindowCount))
	}
	return out
}()

// AlertWindows returns the lengths of the windows in a State, ascending.
func AlertWindows() []time.Duration { return slices.Clone(alertWindows[:]) }

// setLengths makes windows of the lengths that the objective's alerts look at.
// It reports whether they are new, and empty.
func (o *objective) setLengths() bool {
	lengths := alertWindows[:]
	for _, p := range o.def.Policies {
		if !slices.Contains(lengths, p.Lookback) {
			lengths = append(lengths[:len(lengths):len(lengths)], p.Lookback)
		}
	}
	if slices.Equal(lengths, o.lengths) {
		return false
	}
	o.lengths, o.windows = lengths, make([]window, len(lengths))
	return true
}

// parse reads the queries of an objective. sampled tells that both sides are
// expressions.
func parse(def sla.Objective) (queries []query, sampled bool, err error) {
	if def.SLI.Total == "" {
		asked, err := openslo.Queries(def.SLI)
		for _, q := range asked {
			queries = append(queries, query{roleTotal, q})
		}
		return queries, len(queries) > 0, err
	}
	sli, err := openslo.ParseSLI(def.SLI)
	if err != nil {
		return nil, false, err
	}
	part := roleGood
	if sli.Bad {
		part = roleBad
		if sli.Part.Kind == openslo.Bucket {
			return nil, false, errors.New("bad events are given as a bucket of a histogram, which counts what is fast enough: give it as good")
		}
	}
	return []query{{part, sli.Part}, {roleTotal, sli.Total}}, sli.IsSampled(), nil
}

// newTally returns an empty tally with the objective's rules.
func (e *Evaluator) newTally(o *objective, settled sla.Minute) *tally {
	y := newTally(o.def.SLI.Bad != "", settled)
	y.absent = o.def.AbsentBad
	y.proof = e.ranThrough
	y.refused = e.wasRefused
	y.count = e.metrics.rule
	y.readTo, y.resumed = e.readTo[o.def.ID.String()], o.resumed
	return y
}

// join returns the track of a series in the objective, made if it is new, or
// nil where the objective does not want it. Of a histogram whose threshold lies
// between two buckets the edges that are nearest by now are tracks; a nearer
// one takes the place of what was there before.
func (o *objective) join(ls labels.Labels) *track {
	var r role
	var edge float64
	var hist *native
	for i := range o.queries {
		q := &o.queries[i]
		if q.Kind == openslo.Expression || !matches(q.Matchers, ls) {
			continue
		}
		switch q.Kind {
		case openslo.Bucket:
			le, err := strconv.ParseFloat(ls.Get(model.BucketLabel), 64)
			if err != nil {
				continue
			}
			edge = le
			r |= o.edges(ls, le, q.Threshold)
		case openslo.NativeFraction:
			hist = &native{threshold: q.Threshold, fromZero: q.FromZero}
			r |= q.role
		case openslo.NativeCount:
			if hist == nil {
				hist = &native{threshold: math.NaN()}
			}
			r |= q.role
		default:
			r |= q.role
		}
	}
	if r == 0 {
		return nil
	}
	hash := ls.Hash()
	for tr := o.tracks[hash]; tr != nil; tr = tr.next {
		if labels.Equal(tr.labels, ls) {
			tr.role |= r
			o.claim(tr, ls)
			return tr
		}
	}
	tr := o.tally.track(sourceKey(ls), ls.Get(model.MetricNameLabel), r)
	tr.objective, tr.labels, tr.edge, tr.native, tr.next = o, ls, edge, hist, o.tracks[hash]
	o.tracks[hash] = tr
	o.claim(tr, ls)
	return tr
}

// edges returns the role of a bucket with an upper edge for a threshold.
func (o *objective) edges(ls labels.Labels, le, threshold float64) role {
	b := o.histograms[withoutEdge(ls)]
	var r role
	if le <= threshold && (b == nil || b.low == nil || le >= b.low.edge) {
		r |= roleLow
	}
	if le >= threshold && (b == nil || b.high == nil || le <= b.high.edge) {
		r |= roleHigh
	}
	return r
}

// claim makes a track the nearest edge of its histogram. The one that was there
// before counts no more; what it has counted is derived again.
func (o *objective) claim(tr *track, ls labels.Labels) {
	if tr.role&roleGood == 0 || tr.edge == 0 {
		return
	}
	key := withoutEdge(ls)
	b := o.histograms[key]
	if b == nil {
		b = &bucket{}
		o.histograms[key] = b
	}
	take := func(place **track, r role) {
		old := *place
		if tr.role&r == 0 || old == tr {
			return
		}
		*place = tr
		if old != nil {
			old.role &^= r
			if old.known {
				o.tally.again(o.tally.settled + 1)
			}
		}
	}
	take(&b.low, roleLow)
	take(&b.high, roleHigh)
}

func withoutEdge(ls labels.Labels) uint64 {
	h, _ := ls.HashWithoutLabels(nil, model.BucketLabel)
	return h
}

func matches(ms []*labels.Matcher, ls labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// sourceKey names the target of a series (R9).
func sourceKey(ls labels.Labels) string {
	return SourceKey(ls.Get("job"), ls.Get("instance"), ls.Get("cluster"))
}

// SourceKey names a target.
func SourceKey(job, instance, cluster string) string {
	return job + "\x00" + instance + "\x00" + cluster
}

// newest returns the minute that alert windows end with (R23): that of the
// newest sample, at most ten minutes before now. Where an absent sample is a
// bad event, a closed minute is as good as a sample, for its absence was
// observed; so it is where minutes come from an expression.
func (o *objective) newest(now time.Time) sla.Minute {
	m := sla.MinuteOfMillis(o.tally.newest)
	if o.def.AbsentBad || !o.isCounted() {
		m = max(m, o.closed)
	}
	return min(max(m, sla.MinuteOf(now.Add(-newestLag))), sla.MinuteOf(now))
}
