package evaluate

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/store"
)

// selector is one query of one objective, or of the SLO of a family of groups.
type selector struct {
	objective *objective
	family    *family
	matchers  []*labels.Matcher
}

// index finds the selectors that may want a series: by the metric's name and,
// where many selectors share it, by the value of one more label.
type index struct {
	byName  map[string]*named
	anyName []selector
}

type named struct {
	all     []selector
	keys    []string // labels by which selectors are found
	byValue map[[2]string][]selector
	rest    []selector
}

// fewSelectors are looked through one by one.
const fewSelectors = 8

func newIndex(all []selector) *index {
	x := &index{byName: map[string]*named{}}
	for _, s := range all {
		name := ""
		for _, m := range s.matchers {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
				name = m.Value
			}
		}
		if name == "" {
			x.anyName = append(x.anyName, s)
			continue
		}
		n := x.byName[name]
		if n == nil {
			n = &named{}
			x.byName[name] = n
		}
		n.all = append(n.all, s)
	}
	for _, n := range x.byName {
		n.split()
	}
	return x
}

// split puts each selector under the equality matcher that the fewest of its
// neighbours share.
func (n *named) split() {
	if len(n.all) <= fewSelectors {
		n.rest = n.all
		return
	}
	shared := map[[2]string]int{}
	each := func(s selector, fn func([2]string)) {
		for _, m := range s.matchers {
			if m.Name != model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != "" {
				fn([2]string{m.Name, m.Value})
			}
		}
	}
	for _, s := range n.all {
		each(s, func(k [2]string) { shared[k]++ })
	}
	n.byValue = map[[2]string][]selector{}
	for _, s := range n.all {
		var best [2]string
		each(s, func(k [2]string) {
			if best[0] == "" || shared[k] < shared[best] {
				best = k
			}
		})
		if best[0] == "" {
			n.rest = append(n.rest, s)
			continue
		}
		n.byValue[best] = append(n.byValue[best], s)
		if !slices.Contains(n.keys, best[0]) {
			n.keys = append(n.keys, best[0])
		}
	}
}

// wanting calls fn for each selector that matches a series.
func (x *index) wanting(ls labels.Labels, fn func(selector)) {
	try := func(list []selector) {
		for _, s := range list {
			if matches(s.matchers, ls) {
				fn(s)
			}
		}
	}
	try(x.anyName)
	n := x.byName[ls.Get(model.MetricNameLabel)]
	if n == nil {
		return
	}
	try(n.rest)
	for _, k := range n.keys {
		try(n.byValue[[2]string{k, ls.Get(k)}])
	}
}

// entry is what is known of one series of the store. Nearly all that feed
// something feed one track: that is found without a look at anything between.
type entry struct {
	one *track // the only track of a series without more
	*more
}

// more is what few series have.
type more struct {
	tracks  []*track
	pair    *pair // of a series with a replica label
	replica int16
	up      string // the source of an `up` series
}

// unwanted is the entry of all series that feed nothing.
var unwanted = entry{more: &more{}}

func (en entry) known() bool { return en != entry{} }

// stale reports whether a track of the entry was replaced by a derivation.
func (en entry) stale() bool {
	if en.one != nil {
		return en.one.dead
	}
	return slices.ContainsFunc(en.tracks, func(tr *track) bool { return tr.dead })
}

const pageSize = 1024

// refs finds the entry of a series by its reference in the store.
type refs struct {
	pages  map[uint64]*[pageSize]entry
	last   *[pageSize]entry // the page that was used last
	number uint64
}

func newRefs() *refs { return &refs{pages: map[uint64]*[pageSize]entry{}} }

func (r *refs) page(ref uint64) *[pageSize]entry {
	n := ref / pageSize
	if r.last != nil && r.number == n {
		return r.last
	}
	p := r.pages[n]
	if p != nil {
		r.last, r.number = p, n
	}
	return p
}

// get returns the entry of a series, the zero one where it is not known.
func (r *refs) get(ref uint64) entry {
	if p := r.page(ref); p != nil {
		return p[ref%pageSize]
	}
	return entry{}
}

// set notes an entry. Beyond maxPages all are forgotten and found again as
// their samples come.
func (r *refs) set(ref uint64, en entry) {
	if len(r.pages) >= maxPages {
		*r = *newRefs()
	}
	p := r.page(ref)
	if p == nil {
		p = new([pageSize]entry)
		r.pages[ref/pageSize] = p
	}
	p[ref%pageSize] = en
}

// route finds the objectives that want a series (R1: once per series).
func (e *Evaluator) route(s *store.Sample) entry {
	ls, pair, replica := e.pairOf(s.Labels)
	up := ""
	if ls.Get(model.MetricNameLabel) == "up" {
		up = sourceKey(ls)
	}
	tracks := e.found[:0]
	e.index.wanting(ls, func(sel selector) {
		o := sel.objective
		if sel.family != nil {
			if o = e.member(sel.family, ls, s.T); o == nil {
				return
			}
		}
		for _, tr := range tracks {
			if tr.objective == o {
				return // by its other query already
			}
		}
		if tr := e.joinLive(o, ls, s.T); tr != nil {
			tracks = append(tracks, tr)
		}
	})
	e.found = tracks
	switch {
	case len(tracks) == 0 && up == "":
		return unwanted
	case len(tracks) == 1 && up == "" && pair == nil:
		return entry{one: tracks[0]}
	}
	return entry{more: &more{tracks: slices.Clone(tracks), pair: pair, replica: replica, up: up}}
}

// joinLive joins a series that has a sample at t by now. One that was seen
// before within the retention of raw samples goes on from there (R6).
func (e *Evaluator) joinLive(o *objective, ls labels.Labels, t int64) *track {
	if o.sampled {
		return nil
	}
	tr := o.join(ls)
	if tr != nil && !tr.known && tr.role != 0 {
		if p, ok := e.lastBefore(ls, t); ok {
			tr.goOn(p)
		}
	}
	return tr
}
