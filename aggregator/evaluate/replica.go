package evaluate

import (
	"sort"

	"github.com/prometheus/prometheus/model/labels"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

const (
	// markElection is the kind of a mark of the book that says which replica
	// of a pair is counted from a time on (R7).
	markElection = "replica"
	// failOver is how long the elected replica may be silent (R7).
	failOver = 30_000
	// maxPairs bounds the pairs of senders. Series of further ones count as
	// they come.
	maxPairs = 10_000
)

// replicaLabels are the labels that senders of a pair differ by: Cortex and
// Mimir's, and that of the Prometheus operator.
var replicaLabels = []string{"__replica__", "prometheus_replica"}

// pair is senders that send the same series, of which one is counted (R7).
type pair struct {
	key      string
	names    []string // replicas, by number − 1
	newest   []int64  // newest sample of each
	elected  []election
	interval int64 // longest of the newest gaps between sends of the elected one
	gaps     [4]int64
	gap      int
}

type election struct {
	at      int64 // milliseconds
	replica int16
}

// at returns the replica that is counted at t, 0 for none.
func (p *pair) at(t int64) int16 {
	i := sort.Search(len(p.elected), func(i int) bool { return p.elected[i].at > t })
	if i == 0 {
		return 0
	}
	return p.elected[i-1].replica
}

// number returns the number of a replica, made if it is new.
func (p *pair) number(name string) int16 {
	for i, n := range p.names {
		if n == name {
			return int16(i + 1)
		}
	}
	p.names = append(p.names, name)
	p.newest = append(p.newest, 0)
	return int16(len(p.names))
}

// takes reports whether a sample of a replica is counted. switched tells that
// it made its replica the elected one.
func (p *pair) takes(replica int16, t int64) (counted, switched bool) {
	i := replica - 1
	last := p.newest[i]
	p.newest[i] = max(last, t)
	n := len(p.elected)
	if n == 0 {
		p.elected = append(p.elected, election{t, replica})
		return true, true
	}
	if now := p.elected[n-1]; now.replica == replica && t >= now.at {
		if gap := t - last; gap >= 1000 && last > 0 {
			p.gaps[p.gap%len(p.gaps)] = gap
			p.gap++
			p.interval = 0
			for _, g := range p.gaps {
				p.interval = max(p.interval, min(g, 10*sla.MinuteMillis))
			}
		}
		return true, false
	} else if silent := t - p.newest[now.replica-1]; t > now.at && silent > max(failOver, 2*p.interval) {
		p.elected = append(p.elected, election{t, replica})
		p.gaps, p.gap, p.interval = [4]int64{}, 0, 0
		return true, true
	}
	return p.at(t) == replica, false
}

// pairOf returns a series without its replica label, and the pair and replica
// that send it; nil for a sender without a pair.
func (e *Evaluator) pairOf(ls labels.Labels) (labels.Labels, *pair, int16) {
	for _, name := range replicaLabels {
		replica := ls.Get(name)
		if replica == "" {
			continue
		}
		key := ls.Get("cluster") + "\x00" + ls.Get("prometheus")
		p := e.pairs[key]
		if p == nil {
			if len(e.pairs) >= maxPairs {
				return ls, nil, 0
			}
			p = &pair{key: key}
			e.pairs[key] = p
		}
		return labels.NewBuilder(ls).Del(replicaLabels...).Labels(), p, p.number(replica)
	}
	return ls, nil, 0
}

// loadPairs reads the elections of the book, so that what is derived again
// counts the same replicas.
func (e *Evaluator) loadPairs() error {
	marks, err := e.cfg.Book.Marks(markElection)
	if err != nil {
		return err
	}
	for _, m := range marks {
		p := e.pairs[m.Key]
		if p == nil {
			p = &pair{key: m.Key}
			e.pairs[m.Key] = p
		}
		n := p.number(m.Value)
		p.elected = append(p.elected, election{m.At, n})
		p.newest[n-1] = max(p.newest[n-1], m.At)
	}
	return nil
}

// mark notes an election for the next batch of the book.
func (e *Evaluator) mark(p *pair) {
	el := p.elected[len(p.elected)-1]
	e.marks = append(e.marks, ledger.Mark{Kind: markElection, Key: p.key, At: el.at, Value: p.names[el.replica-1]})
	e.metrics.elections.Inc()
}
