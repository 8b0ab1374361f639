package logs

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/pkg/metric"
)

// counters are the series that exist from the start; the account by path is
// written on demand.
type counters struct {
	stored, deadLettered, dropped, lost *metrics.Counter // records
	gaps, cut                           *metrics.Counter
}

func newCounters(set *metrics.Set, f *Follower) *counters {
	verdict := func(v string) *metrics.Counter {
		return set.NewCounter(fmt.Sprintf("%s{verdict=%q}", metric.LogRecordsTotal, v))
	}
	set.NewGauge(metric.LogFiles, func() float64 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return float64(len(f.gens))
	})
	set.NewGauge(metric.LogUnreadable, func() float64 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return float64(len(f.problems))
	})
	set.NewGauge(metric.LogCheckpointAge, func() float64 {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.dirty.IsZero() {
			return 0
		}
		return time.Since(f.dirty).Seconds()
	})
	set.RegisterMetricsWriter(f.writeAccount)
	return &counters{
		stored: verdict(metric.LogStored), deadLettered: verdict(metric.LogDeadLettered),
		dropped: verdict(metric.LogDropped), lost: verdict(metric.LogLost),
		gaps: set.NewCounter(metric.LogGaps), cut: set.NewCounter(metric.LogCutBytes),
	}
}

// account is the delivery identity of a path, in bytes. Seen is measured by
// itself, from the sizes of files, so that the sum proves something.
type account struct {
	seen, inFlight, unread int64
	tally
}

// balanced says whether the identity holds.
func (a account) balanced() bool { return a.seen == a.settled()+a.inFlight+a.unread }

// accounts returns that of each path.
func (f *Follower) accounts() map[string]account {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]account{}
	for path, t := range f.retired {
		out[path] = account{seen: t.settled(), tally: t}
	}
	for _, g := range f.gens {
		a := out[g.path]
		a.seen += g.size
		a.unread += g.size - g.read
		for _, s := range g.spans {
			a.inFlight += s.end - s.start
		}
		a.tally.add(g.tally)
		out[g.path] = a
	}
	return out
}

func (f *Follower) writeAccount(w io.Writer) {
	all := f.accounts()
	paths := slices.Sorted(keys(all))
	if len(paths) > maxPaths {
		var other account
		for _, path := range paths[maxPaths:] {
			a := all[path]
			other.seen += a.seen
			other.inFlight += a.inFlight
			other.unread += a.unread
			other.tally.add(a.tally)
		}
		all["other"] = other
		paths = append(paths[:maxPaths], "other")
	}
	for _, path := range paths {
		a := all[path]
		for _, s := range []struct {
			state string
			bytes int64
		}{
			{metric.LogStored, a.Stored}, {metric.LogDeadLettered, a.DeadLettered},
			{metric.LogDropped, a.Dropped}, {metric.LogInFlight, a.inFlight}, {metric.LogUnread, a.unread}, {metric.LogLost, a.Lost},
		} {
			metrics.WriteGaugeUint64(w, fmt.Sprintf("%s{path=%q,state=%q}", metric.LogBytes, path, s.state), uint64(s.bytes))
		}
	}
}
