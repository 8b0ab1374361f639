package logs

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/ship"
	"nines/pkg/metric"
)

// Account is the delivery identity: Seen is measured by itself, from the sizes
// of files, so that the sum of all states proves something.
type Account struct {
	Seen         int64 `json:"seen"`
	Stored       int64 `json:"stored"`
	DeadLettered int64 `json:"dead_lettered"`
	Dropped      int64 `json:"dropped"`
	InFlight     int64 `json:"in_flight"`
	Unread       int64 `json:"unread"`
	Lost         int64 `json:"lost"`
}

// Balanced says whether the identity holds.
func (a Account) Balanced() bool {
	return a.Seen == a.Stored+a.DeadLettered+a.Dropped+a.InFlight+a.Unread+a.Lost
}

func (a *Account) add(o Account) {
	a.Seen += o.Seen
	a.Stored += o.Stored
	a.DeadLettered += o.DeadLettered
	a.Dropped += o.Dropped
	a.InFlight += o.InFlight
	a.Unread += o.Unread
	a.Lost += o.Lost
}

// states are the figures by the names that series give them.
func (a Account) states() []state {
	return []state{
		{metric.LogStored, a.Stored}, {metric.LogDeadLettered, a.DeadLettered}, {metric.LogDropped, a.Dropped},
		{metric.LogInFlight, a.InFlight}, {metric.LogUnread, a.Unread}, {metric.LogLost, a.Lost},
	}
}

type state struct {
	name  string
	value int64
}

// Figures are accounts in bytes and in records.
type Figures struct {
	Bytes   Account `json:"bytes"`
	Records Account `json:"records"`
}

func (f *Figures) add(o Figures) {
	f.Bytes.add(o.Bytes)
	f.Records.add(o.Records)
}

// figures of what has a verdict.
func (t tally) figures() Figures {
	return Figures{
		Account{Seen: t.settled(), Stored: t.Stored, DeadLettered: t.DeadLettered, Dropped: t.Dropped, Lost: t.Lost},
		Account{Seen: t.records(), Stored: t.StoredRecords, DeadLettered: t.DeadLetteredRecords, Dropped: t.DroppedRecords, Lost: t.LostRecords},
	}
}

// figures of a generation. A part of a record without its end is unread. Of
// records, seen is that of all files: it is counted as they are made.
func (g *generation) figures() Figures {
	out := g.tally.figures()
	out.Bytes.Seen = g.size
	out.Bytes.InFlight = g.read - g.offset - g.waiting
	out.Bytes.Unread = g.size - g.read + g.waiting
	for _, s := range g.spans {
		out.Records.Seen += int64(s.n)
		out.Records.InFlight += int64(s.n) - s.tally.LostRecords
		// What is lost is so already, although what is before it is on its way.
		out.Records.Lost += s.tally.LostRecords
		out.Bytes.Lost += s.tally.Lost
		out.Bytes.InFlight -= s.tally.Lost
	}
	return out
}

// Status is what became of everything that one destination's files ever held.
type Status struct {
	Destination string       `json:"destination"`
	Hold        string       `json:"held_because"` // why records wait for somebody to repair something; empty: nothing does
	Problems    []string     `json:"problems"`     // files that are not followed, and why
	Notes       []string     `json:"notes"`        // what could not be set up at the destination, which takes records all the same
	Sum         Figures      `json:"sum"`
	Balanced    bool         `json:"balanced"`
	Redriven    int64        `json:"redriven_records"` // of Sum's stored: dead letters that were sent again
	GapCount    int64        `json:"gap_count"`
	Gaps        []Gap        `json:"gaps"` // the newest 100
	Files       []FileStatus `json:"files"`
}

// FileStatus is a path with all of its generations.
type FileStatus struct {
	Path        string             `json:"path"`
	Namespace   string             `json:"namespace,omitempty"`
	Pod         string             `json:"pod,omitempty"`
	UID         string             `json:"pod_uid,omitempty"`
	Container   string             `json:"container,omitempty"`
	Figures                        // sum of the generations, forgotten ones included
	Generations []GenerationStatus `json:"generations"`
}

// GenerationStatus is one content of a file.
type GenerationStatus struct {
	ID      string `json:"id"`
	Name    string `json:"name"`   // where it lies now
	Offset  int64  `json:"offset"` // all before it has a verdict
	Done    bool   `json:"done"`   // rotated away and read to its end
	Figures `json:"figures"`
}

// Status returns the account of each file and of all.
func (f *Follower) Status() Status {
	problems := f.Problems()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := statusOf(f.cfg.Destination, f.gens, f.retired)
	out.Hold, out.Problems, out.Redriven, out.GapCount = f.dest.Hold(), problems, f.redriven.StoredRecords, f.gapCount
	out.Gaps = append(out.Gaps, f.gaps...)
	if to, ok := f.dest.(interface{ Notes() []string }); ok {
		out.Notes = append(out.Notes, to.Notes()...)
	}
	return out.summed(f.sum())
}

// ReadStatus returns the account as the checkpoint in a destination's state
// folder has it, while no agent runs.
func ReadStatus(state, destination string) (Status, error) {
	c, _, err := readCheckpoint(state)
	if err != nil {
		return Status{}, err
	}
	var gens []*generation
	sum := c.Forgotten.figures()
	for _, s := range c.Generations {
		g := s.generation()
		g.origin = (&Source{Type: Kubernetes}).originOf(s.Path)
		gens = append(gens, g)
		sum.add(g.figures())
	}
	for _, t := range c.Retired {
		sum.add(t.figures())
	}
	out := statusOf(destination, gens, c.Retired)
	out.Redriven, out.GapCount = c.Redriven.StoredRecords, c.GapCount
	out.Gaps = append(out.Gaps, c.Gaps...)
	return out.summed(sum), nil
}

func (s Status) summed(sum Figures) Status {
	s.Sum = sum
	s.Balanced = sum.Bytes.Balanced() && sum.Records.Balanced()
	return s
}

// statusOf are the files of a status.
func statusOf(destination string, gens []*generation, retired map[string]tally) Status {
	out := Status{Destination: destination, Problems: []string{}, Notes: []string{}, Gaps: []Gap{}, Files: []FileStatus{}}
	files := map[string]*FileStatus{}
	of := func(path string, o origin) *FileStatus {
		if files[path] == nil {
			files[path] = &FileStatus{Path: path, Namespace: o.namespace, Pod: o.pod, UID: o.uid, Container: o.container, Generations: []GenerationStatus{}}
		}
		return files[path]
	}
	for _, g := range gens {
		file, figures := of(g.path, g.origin), g.figures()
		file.add(figures)
		file.Generations = append(file.Generations, GenerationStatus{g.id, g.name, g.offset, g.done, figures})
	}
	for path, t := range retired {
		of(path, origin{}).add(t.figures())
	}
	for _, file := range files {
		out.Files = append(out.Files, *file)
	}
	slices.SortFunc(out.Files, func(a, b FileStatus) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// sum adds up all files. Caller holds mu.
func (f *Follower) sum() Figures {
	out := f.forgotten.figures()
	for _, t := range f.retired {
		out.add(t.figures())
	}
	for _, g := range f.gens {
		out.add(g.figures())
	}
	out.Records.Seen = f.records
	return out
}

// Redrive has the destination send its dead letters again, where it keeps some:
// else ok is false. Those that are stored move in the account, which is on disk
// before the next batch is sent.
func (f *Follower) Redrive(ctx context.Context) (sum ship.RedriveSum, ok bool, err error) {
	to, ok := f.dest.(ship.Redriver)
	if !ok {
		return sum, false, nil
	}
	f.mu.Lock()
	after := f.redriveAt
	f.mu.Unlock()
	sum, err = to.Redrive(ctx, after, f.redrove)
	return sum, true, err
}

// redrove takes what became of a batch of dead letters.
func (f *Follower) redrove(done ship.Redriven) error {
	f.mu.Lock()
	for _, r := range done.Records {
		if r.Verdict != ship.DeadLettered && r.Verdict != ship.Unknown {
			f.moveToStored(r.ID, r.Bytes)
		}
	}
	f.redriveAt = done.Position
	f.changed()
	f.mu.Unlock()
	return f.save()
}

// moveToStored moves a record that was a dead letter. The ID is the one that it
// was shipped with. Caller holds mu.
func (f *Follower) moveToStored(id string, bytes int64) {
	move := func(t *tally) bool {
		if t.DeadLettered < bytes || t.DeadLetteredRecords == 0 {
			return false
		}
		t.DeadLettered -= bytes
		t.DeadLetteredRecords--
		t.Stored += bytes
		t.StoredRecords++
		f.redriven.Stored += bytes
		f.redriven.StoredRecords++
		return true
	}
	for _, g := range f.gens {
		if g.recordID == "" || !strings.HasPrefix(id, g.recordID+"-") {
			continue
		}
		if move(&g.tally) {
			return
		}
		for _, s := range g.spans { // it has its verdict, and something before it has none
			if move(&s.tally) {
				return
			}
		}
	}
	// Its generation is not known any more: the sum is right in any of those that
	// have such a record.
	if move(&f.forgotten) {
		return
	}
	for path, t := range f.retired {
		if move(&t) {
			f.retired[path] = t
			return
		}
	}
	for _, g := range f.gens {
		if move(&g.tally) {
			return
		}
	}
}

// counters are the series that this run alone counts.
type counters struct{ cut, noMetadata *metrics.Counter }

func newCounters(set *metrics.Set, f *Follower) *counters {
	name := func(name string) string { return fmt.Sprintf("%s{destination=%q}", name, f.cfg.Destination) }
	gauge := func(metric string, value func() float64) {
		set.NewGauge(name(metric), func() float64 {
			f.mu.Lock()
			defer f.mu.Unlock()
			return value()
		})
	}
	gauge(metric.LogFiles, func() float64 { return float64(len(f.gens)) })
	gauge(metric.LogUnreadable, func() float64 { return float64(len(f.problems)) })
	gauge(metric.LogOpenFiles, func() float64 { return float64(f.open.Load()) })
	gauge(metric.LogWatches, func() float64 { return float64(f.watches.Load()) })
	gauge(metric.LogSpoolBytes, func() float64 { return float64(f.spooled) })
	gauge(metric.LogCheckpointAge, func() float64 { return age(f.dirty) })
	gauge(metric.LogOldest, func() float64 {
		var oldest time.Time
		for _, since := range f.underway {
			if oldest.IsZero() || since.Before(oldest) {
				oldest = since
			}
		}
		return age(oldest)
	})
	set.RegisterMetricsWriter(f.writeAccount)
	return &counters{cut: set.NewCounter(name(metric.LogCutBytes)), noMetadata: set.NewCounter(name(metric.LogNoMetadata))}
}

func age(since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return time.Since(since).Seconds()
}

// writeAccount writes the series that outlive this run. Nothing of a file is
// among them: that is for nines-agent status.
func (f *Follower) writeAccount(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := f.sum()
	name := func(name, label, value string) string {
		return fmt.Sprintf("%s{destination=%q,%s=%q}", name, f.cfg.Destination, label, value)
	}
	for _, in := range []struct {
		account            Account
		gauge, seen, total string
		redriven           int64
	}{
		{sum.Bytes, metric.LogBytes, metric.LogSeenBytes, metric.LogBytesTotal, f.redriven.Stored},
		{sum.Records, metric.LogRecords, metric.LogSeenRecords, metric.LogRecordsTotal, f.redriven.StoredRecords},
	} {
		for _, s := range in.account.states() {
			metrics.WriteGaugeUint64(w, name(in.gauge, "state", s.name), uint64(s.value))
			switch s.name {
			case metric.LogInFlight, metric.LogUnread:
				continue
			case metric.LogDeadLettered:
				s.value += in.redriven // they were, and a counter does not fall
			}
			metrics.WriteCounterUint64(w, name(in.total, "state", s.name), uint64(s.value))
		}
		metrics.WriteGaugeUint64(w, fmt.Sprintf("%s{destination=%q}", in.seen, f.cfg.Destination), uint64(in.account.Seen))
	}
	for _, reason := range []string{droppedHistory, droppedNoSource} {
		metrics.WriteCounterUint64(w, name(metric.LogDroppedRecords, "reason", reason), uint64(f.dropped[reason]))
	}
	for _, reason := range []string{lostRotated, lostTruncated, lostReleased, lostDamaged} {
		metrics.WriteCounterUint64(w, name(metric.LogLostBytes, "reason", reason), uint64(f.lost[reason]))
	}
	metrics.WriteCounterUint64(w, fmt.Sprintf("%s{destination=%q}", metric.LogGaps, f.cfg.Destination), uint64(f.gapCount))
}
