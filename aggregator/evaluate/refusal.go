package evaluate

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// markRefusal is the kind of a mark of the book that says that a part of a
// source's scrape was refused (R6).
const markRefusal = "refused"

const (
	// refusalSpan is the grain of time in which refusals are remembered, so that
	// a sender of which every scrape is refused makes few marks. Within it a new
	// series is a baseline, which is the safe side.
	refusalSpan = 5 * sla.MinuteMillis
	// keptRefusals is how many such times of one source are remembered.
	keptRefusals = 300
	// anySource is the key of refusals of which the source is not known.
	anySource = ""
)

// Refused tells that samples of a source from one time to another, both in
// milliseconds, were not taken: a series that is new in its next scrape may be
// an old one (R6). key is the source's job, instance and cluster with zero bytes
// between, or empty where the source is not known. from may be math.MinInt64 for
// a time that is not known.
func (e *Evaluator) Refused(key string, from, to int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if key != anySource && !e.known(key) {
		return // it feeds nothing
	}
	from = max(from, to-12*refusalSpan)
	for at := from / refusalSpan; at <= to/refusalSpan; at++ {
		if slices.Contains(e.refusals[key], at) {
			continue
		}
		if len(e.refusals) >= maxRefusals && e.refusals[key] == nil {
			clear(e.refusals)
		}
		e.refusals[key] = lastOf(append(e.refusals[key], at), keptRefusals)
		e.marks = append(e.marks, ledger.Mark{Kind: markRefusal, Key: key, At: at * refusalSpan})
	}
}

// known reports whether a source feeds an objective.
func (e *Evaluator) known(key string) bool {
	for _, o := range e.objectives {
		if o.tally.sources[key] != nil {
			return true
		}
	}
	return false
}

func lastOf(times []int64, n int) []int64 {
	if len(times) > n {
		times = slices.Delete(times, 0, len(times)-n)
	}
	return times
}

func (e *Evaluator) wasRefused(key string, t int64) bool {
	at := t / refusalSpan
	return slices.Contains(e.refusals[key], at) || slices.Contains(e.refusals[anySource], at)
}

func (e *Evaluator) loadRefusals() error {
	marks, err := e.cfg.Book.Marks(markRefusal)
	if err != nil {
		return err
	}
	for _, m := range marks {
		e.refusals[m.Key] = lastOf(append(e.refusals[m.Key], m.At/refusalSpan), keptRefusals)
	}
	return nil
}

// sourceMatchers selects the series of a source.
func sourceMatchers(key string) []*labels.Matcher {
	parts := strings.SplitN(key, "\x00", 3)
	var ms []*labels.Matcher
	for i, name := range []string{model.JobLabel, model.InstanceLabel, "cluster"} {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, name, parts[i]))
	}
	return ms
}
