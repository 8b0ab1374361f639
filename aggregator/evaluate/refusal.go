package evaluate

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/ledger"
)

// markRefusal is the kind of a mark of the book that says that a part of a
// source's scrape was refused (R6).
const markRefusal = "refused"

// keptRefusals is how many refused scrapes of one source are remembered.
const keptRefusals = 16

// Refused tells that samples of a source at a time were not taken: a series
// that is new in its next scrape may be an old one (R6). key is the source's
// job, instance and cluster with zero bytes between.
func (e *Evaluator) Refused(key string, t int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.refusals) >= maxRefusals && e.refusals[key] == nil {
		clear(e.refusals)
	}
	if times := e.refusals[key]; slices.Contains(times, t) {
		return
	}
	e.refusals[key] = lastOf(append(e.refusals[key], t), keptRefusals)
	e.marks = append(e.marks, ledger.Mark{Kind: markRefusal, Key: key, At: t})
}

func lastOf(times []int64, n int) []int64 {
	if len(times) > n {
		times = slices.Delete(times, 0, len(times)-n)
	}
	return times
}

func (e *Evaluator) wasRefused(key string, t int64) bool { return slices.Contains(e.refusals[key], t) }

func (e *Evaluator) loadRefusals() error {
	marks, err := e.cfg.Book.Marks(markRefusal)
	if err != nil {
		return err
	}
	for _, m := range marks {
		e.refusals[m.Key] = lastOf(append(e.refusals[m.Key], m.At), keptRefusals)
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
