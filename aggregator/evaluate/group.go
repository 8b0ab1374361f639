package evaluate

import (
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"nines/pkg/sla"
)

// retireAfter is how long after the last sample of a group it stops being
// evaluated. Its history stays in the book.
const retireAfter = 2 * forgetAfter

// family is an SLO whose label values make one objective each.
type family struct {
	def     sla.Objective // the template
	members map[string]*objective
	other   *objective
}

func (f *family) max() int {
	if f.def.MaxGroups > 0 {
		return f.def.MaxGroups
	}
	return sla.DefaultMaxGroups
}

// group returns the values of a series, and their key.
func (f *family) group(ls labels.Labels) (map[string]string, string) {
	values := make(map[string]string, len(f.def.GroupBy))
	var key strings.Builder
	for _, n := range f.def.GroupBy {
		v := ls.Get(n)
		values[n] = v
		key.WriteString(v)
		key.WriteByte(0xff)
	}
	return values, key.String()
}

// memberKey is the key of a member's own values.
func (f *family) memberKey(group map[string]string) string {
	var key strings.Builder
	for _, n := range f.def.GroupBy {
		key.WriteString(group[n])
		key.WriteByte(0xff)
	}
	return key.String()
}

// holds reports whether a series belongs to a member.
func (f *family) holds(o *objective, ls labels.Labels) bool {
	_, key := f.group(ls)
	if m := f.members[key]; m != nil {
		return m == o
	}
	return o == f.other
}

// member returns the objective of a series' group, made if it is new. Beyond
// the family's bound it is the objective that gathers the rest. It is nil where
// a new one cannot be set up.
func (e *Evaluator) member(f *family, ls labels.Labels, t int64) *objective {
	values, key := f.group(ls)
	if o := f.members[key]; o != nil {
		return o
	}
	def := f.def.ForOther()
	if len(f.members) < f.max() {
		def = f.def.ForGroup(values)
	} else {
		if f.other != nil {
			return f.other
		}
		e.cfg.Log.Warn("an SLO has more groups than its bound: the rest is gathered in one objective", "slo", f.def.SLO, "bound", f.max())
	}
	o, err := e.newObjective(def, sla.MinuteOfMillis(t)-1, f)
	if err != nil {
		e.failed[def.ID] = err.Error()
		return nil
	}
	o.isNew = true
	if err := e.fillWindows(o, sla.MinuteOfMillis(t).Time()); err != nil {
		e.failed[def.ID] = err.Error()
		return nil
	}
	f.add(o)
	e.objectives[def.ID], e.order = o, nil
	return o
}

// add makes an objective a member. Nothing is added to no family.
func (f *family) add(o *objective) {
	switch {
	case f == nil || o == nil:
	case o.def.Other:
		f.other = o
	default:
		f.members[f.memberKey(o.def.Group)] = o
	}
}

// drop takes back what add did.
func (f *family) drop(o *objective) {
	switch {
	case f == nil || o == nil:
	case f.other == o:
		f.other = nil
	default:
		delete(f.members, f.memberKey(o.def.Group))
	}
}

// retire stops evaluating the groups that are long gone, and lets the last
// source of a group go that is silent beside other groups that live (R14).
func (e *Evaluator) retire() {
	for _, f := range e.families {
		var newest int64
		for _, o := range f.members {
			newest = max(newest, o.tally.newest)
		}
		for key, o := range f.members {
			last := o.tally.newest
			if last == 0 || newest-last <= forgetAfter {
				continue
			}
			for _, s := range o.tally.sources {
				if s.newest > 0 {
					o.tally.remove(s, s.newest+forgetAfter, "silent for a day beside live groups")
				}
			}
			if newest-last > retireAfter {
				delete(f.members, key)
				delete(e.objectives, o.def.ID)
				e.order = nil
				e.refs = newRefs()
			}
		}
	}
}
