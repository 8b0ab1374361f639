package ledger

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"nines/pkg/sla"
)

type place struct {
	objective int
	minute    sla.Minute
}

type known struct {
	seq     uint64
	figures sla.Figures
}

// model is the book as a list in memory.
type model struct {
	head      Position // but for its hash
	first     map[place]known
	revisions map[place][]known
	last      map[int]sla.Minute
	kept      sla.Minute
}

// append does what Append does. The batch names no minute twice.
func (m *model) append(batch Batch, objective func(sla.ID) int) (dropped, conflict bool) {
	var fresh []Entry
	for _, e := range batch.Entries {
		p := place{objective(e.Objective), e.Minute}
		if e.Minute < m.kept {
			return true, false
		}
		if old, ok := m.first[p]; ok && !e.Revision {
			if !reflect.DeepEqual(old.figures, e.Figures) {
				return false, true
			}
			continue
		}
		fresh = append(fresh, e)
	}
	if len(fresh) == 0 {
		return false, false
	}
	m.head = Position{Term: batch.Term, Seq: m.head.Seq + 1, At: batch.At}
	for _, e := range fresh {
		p := place{objective(e.Objective), e.Minute}
		k := known{m.head.Seq, e.Figures}
		if e.Revision {
			m.revisions[p] = append(m.revisions[p], k)
			continue
		}
		m.first[p] = k
		if l, ok := m.last[p.objective]; !ok || p.minute > l {
			m.last[p.objective] = p.minute
		}
	}
	return false, false
}

func (m *model) scan(objective int, from, to sla.Minute, asOf uint64) (out []line) {
	if asOf == 0 {
		asOf = math.MaxUint64
	}
	for p, e := range m.first {
		if p.objective != objective || p.minute < from || p.minute >= to || e.seq > asOf {
			continue
		}
		f := e.figures
		for _, r := range m.revisions[p] {
			if r.seq <= asOf {
				f.Counts = f.Counts.Add(r.figures.Counts)
				f.Flags |= r.figures.Flags
			}
		}
		out = append(out, line{p.minute, f})
	}
	slices.SortFunc(out, func(a, b line) int { return int(a.Minute - b.Minute) })
	return out
}

func (m *model) drop(before sla.Minute) {
	old := func(p place, _ known) bool { return p.minute < before }
	maps.DeleteFunc(m.first, old)
	maps.DeleteFunc(m.revisions, func(p place, _ []known) bool { return p.minute < before })
	m.kept = before
}

// The book is a list of bookings, whatever comes in which order, is sent again,
// is dropped, and however often the power fails.
func TestBookEqualsAListInMemory(t *testing.T) {
	dir := t.TempDir() // of the lock: the store lies in memory
	objectives := map[sla.ID]int{id(0): 0, id(1): 1, id(2): 2}
	number := func(i sla.ID) int { return objectives[i] }
	rapid.Check(t, func(t *rapid.T) {
		disk := vfs.NewCrashableMem()
		var b *Book
		start := func() {
			var err error
			if b, err = openOn(disk, Config{Dir: dir}, silent); err != nil {
				t.Fatal(err)
			}
		}
		start()
		defer func() { closed(t, b) }()
		want := &model{first: map[place]known{}, revisions: map[place][]known{}, last: map[int]sla.Minute{}, kept: math.MinInt64}
		minute := rapid.Custom(func(t *rapid.T) sla.Minute {
			day := rapid.IntRange(-1, 3).Draw(t, "day")
			return sla.Minute(day*1440 + rapid.SampledFrom([]int{0, 1, 2, 700, 1438, 1439}).Draw(t, "minute of the day"))
		})
		at := int64(0)
		var sent []Batch
		send := func(t *rapid.T, batch Batch) {
			dropped, conflict := want.append(batch, number)
			p, err := b.Append(batch)
			var d *Dropped
			var c *Conflict
			// Which of two faults is told depends on the order of the entries.
			if errors.As(err, &d) != dropped || errors.As(err, &c) != conflict || (err != nil) != (dropped || conflict) {
				t.Fatalf("dropped %v, conflict %v, but %v", dropped, conflict, err)
			}
			p.Hash = [32]byte{}
			if p != want.head {
				t.Fatalf("position %v, want %v", p, want.head)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"book": func(t *rapid.T) {
				at++
				batch := Batch{Term: want.head.Term + rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "term"), At: at}
				seen := map[place]bool{}
				revised := map[place]bool{}
				for range rapid.IntRange(0, 6).Draw(t, "entries") {
					p := place{rapid.IntRange(0, 2).Draw(t, "objective"), minute.Draw(t, "minute")}
					e := first(p.objective, p.minute, figures(rapid.IntRange(1, 2).Draw(t, "figures")))
					set := seen
					if rapid.Bool().Draw(t, "revision") {
						e = revision(p.objective, p.minute, sla.Figures{Counts: sla.Counts{Total: rapid.Int64Range(-5, 5).Draw(t, "difference")}, Flags: sla.Flags(rapid.IntRange(0, 3).Draw(t, "flags"))})
						set = revised
					}
					if !set[p] {
						batch.Entries = append(batch.Entries, e)
					}
					set[p] = true
				}
				send(t, batch)
				sent = append(sent, batch)
			},
			"send the newest again": func(t *rapid.T) {
				if len(sent) == 0 || sent[len(sent)-1].At != want.head.At {
					return
				}
				batch := sent[len(sent)-1]
				for _, e := range batch.Entries {
					if e.Minute < want.kept {
						return // refused, as "book" shows
					}
				}
				p, err := b.Append(batch)
				p.Hash = [32]byte{}
				if err != nil || p != want.head {
					t.Fatalf("%v, %v, want %v", p, err, want.head)
				}
			},
			"drop": func(t *rapid.T) {
				m := minute.Draw(t, "before")
				newest := sla.Minute(math.MinInt64)
				for _, l := range want.last {
					newest = max(newest, l)
				}
				edge := sla.Minute(m.Day() * 1440)
				err := b.DropBefore(m)
				switch {
				case len(want.last) == 0 || edge <= want.kept:
					if err != nil {
						t.Fatal(err)
					}
				case edge > newest:
					if err == nil {
						t.Fatalf("dropped before %d, behind %d", m, newest)
					}
				default:
					if err != nil {
						t.Fatal(err)
					}
					want.drop(edge)
				}
			},
			"restart": func(t *rapid.T) {
				closed(t, b)
				start()
			},
			"power cut": func(t *rapid.T) {
				percent := rapid.SampledFrom([]int{0, 0, 50, 100}).Draw(t, "what was not synced and is there")
				seed := rapid.Uint64().Draw(t, "seed")
				after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})
				closed(t, b)
				disk = after
				start()
			},
			"flush": func(t *rapid.T) {
				if err := b.db.Flush(); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				asOf := rapid.Uint64Range(0, want.head.Seq+1).Draw(t, "as of")
				from, to := minute.Draw(t, "from"), minute.Draw(t, "to")
				for n := range len(objectives) {
					if got, want := scan(t, b, n, from, to, asOf), want.scan(n, from, to, asOf); !reflect.DeepEqual(got, want) {
						t.Fatalf("objective %d from %d to %d as of %d:\n got %v\nwant %v", n, from, to, asOf, got, want)
					}
					last, ok := want.last[n]
					if m, k := b.LastMinute(id(n)); k != ok || m != last {
						t.Fatalf("last minute of %d: %d, %v, want %d, %v", n, m, k, last, ok)
					}
				}
				head := b.Head()
				head.Hash = [32]byte{}
				if head != want.head {
					t.Fatalf("head %v, want %v", head, want.head)
				}
				verifyChain(t, b)
			},
		})
		for o := range len(objectives) {
			if got, want := scan(t, b, o, -3000, 9000, 0), want.scan(o, -3000, 9000, 0); !reflect.DeepEqual(got, want) {
				t.Fatalf("objective %d at the end:\n got %v\nwant %v", o, got, want)
			}
		}
	})
}
