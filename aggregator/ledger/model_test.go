package ledger

import (
	"context"
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
				f.Flags = r.figures.Flags
				f.Gaps = mergeGaps(f.Gaps, r.figures.Gaps)
			}
		}
		out = append(out, line{p.minute, f})
	}
	slices.SortFunc(out, func(a, b line) int { return int(a.Minute - b.Minute) })
	return out
}

// ever is all flags of a range, those included that a revision took away.
func (m *model) ever(objective int, from, to sla.Minute, asOf uint64) (flags sla.Flags) {
	if asOf == 0 {
		asOf = math.MaxUint64
	}
	for p, e := range m.first {
		if p.objective != objective || p.minute < from || p.minute >= to || e.seq > asOf {
			continue
		}
		flags |= e.figures.Flags
		for _, r := range m.revisions[p] {
			if r.seq <= asOf {
				flags |= r.figures.Flags
			}
		}
	}
	return flags
}

// sum adds up what scan returns.
func (m *model) sum(objective int, from, to sla.Minute, asOf uint64) (s sla.Sum, gaps []sla.Gap) {
	for _, l := range m.scan(objective, from, to, asOf) {
		s.Add(l.Figures.Counts)
		for _, g := range l.Figures.Gaps {
			if g.From >= from {
				s.Revise(sla.Counts{GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total})
				gaps = append(gaps, g)
			}
		}
	}
	s.Flags = m.ever(objective, from, to, asOf)
	return s, gaps
}

func (m *model) drop(before sla.Minute) {
	old := func(p place, _ known) bool { return p.minute < before }
	maps.DeleteFunc(m.first, old)
	maps.DeleteFunc(m.revisions, func(p place, _ []known) bool { return p.minute < before })
	m.kept = before
}

// checkDay compares a packed day with its minutes.
func checkDay(t *rapid.T, b *Book, o int, day int64, want []line) {
	r, err := b.Day(id(o), day)
	if err != nil || r.First != sla.Minute(day*1440) {
		t.Fatalf("day %d of objective %d: begins with %d, %v", day, o, r.First, err)
	}
	var got []line
	rd := r.Reader()
	for rd.Minute() < r.End() {
		m := rd.Minute()
		f, booked, ok := rd.Next()
		if !ok {
			t.Fatalf("day %d of objective %d ends with minute %d", day, o, m)
		}
		if booked {
			got = append(got, line{m, *f})
		}
	}
	if !reflect.DeepEqual(got, want) || len(want) > 0 && r.End() != want[len(want)-1].Minute+1 {
		t.Fatalf("day %d of objective %d up to %d:\n got %+v\nwant %+v", day, o, r.End(), got, want)
	}
	// It goes on as one that was never stored.
	if r.Len > 0 {
		again := &Run{First: r.First}
		for _, l := range want {
			for again.End() < l.Minute {
				again.Skip()
			}
			again.Add(l.Figures)
		}
		again.Add(figures(9))
		r.Add(figures(9))
		if !reflect.DeepEqual(again.Data, r.Data) {
			t.Fatalf("day %d of objective %d goes on as %x, want %x", day, o, r.Data, again.Data)
		}
	}
}

// The book is a list of bookings, whatever comes in which order, is sent again,
// is dropped, and however often the power fails.
func TestBookEqualsAListInMemory(t *testing.T) {
	dir := t.TempDir() // of the lock: the store lies in memory
	objectives := map[sla.ID]int{id(0): 0, id(1): 1, id(2): 2}
	number := func(i sla.ID) int { return objectives[i] }
	gaps := func(t *rapid.T, m sla.Minute) (out []sla.Gap) {
		if rapid.IntRange(0, 3).Draw(t, "gaps") > 0 {
			return nil
		}
		back := rapid.SampledFrom([]sla.Minute{1, 3, 700, 1440, 3000}).Draw(t, "back")
		return []sla.Gap{{From: m - back, To: m, GoodLow: 1, GoodHigh: 2, Total: rapid.Int64Range(3, 1<<62).Draw(t, "gap")}}
	}
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
					e.Figures.Flags = sla.Flags(rapid.SampledFrom([]int{0, 0, 4, 1 << 31}).Draw(t, "flags"))
					if rapid.IntRange(0, 9).Draw(t, "huge") == 0 {
						e.Figures.Total = 1 << 62
					}
					e.Figures.Gaps = gaps(t, p.minute)
					set := seen
					if rapid.Bool().Draw(t, "revision") {
						e = revision(p.objective, p.minute, sla.Figures{Counts: sla.Counts{Total: rapid.Int64Range(-5, 5).Draw(t, "difference")}, Flags: sla.Flags(rapid.IntRange(0, 3).Draw(t, "flags"))})
						e.Figures.Gaps = gaps(t, p.minute)
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
			"seal": func(t *rapid.T) {
				now := minute.Draw(t, "now") + 1440
				if _, err := b.Seal(context.Background(), now.Time()); err != nil {
					t.Fatal(err)
				}
				end := sla.Minute((now - 1440).Day() * 1440)
				err := b.each([]byte("e"), []byte("f"), func(k, _ []byte) error {
					if _, m, _, _ := parseMinuteKey(k); m < end {
						t.Fatalf("minute %d is single after the days before %d were sealed", m, end)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if n, err := b.Seal(context.Background(), now.Time()); n != 0 || err != nil {
					t.Fatalf("sealed again: %d, %v", n, err)
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
				switch rapid.IntRange(0, 9).Draw(t, "wide") {
				case 0:
					from = -1 << 62
				case 1:
					to = 1 << 62
				}
				for n := range len(objectives) {
					wantSum, wantGaps := want.sum(n, from, to, asOf)
					if got, err := b.Sum(id(n), from, to, asOf); err != nil || got != wantSum {
						t.Fatalf("objective %d from %d to %d as of %d: sum\n got %+v, %v\nwant %+v", n, from, to, asOf, got, err, wantSum)
					}
					if asOf == 0 {
						if got, err := b.Gaps(id(n), from, to); err != nil || !reflect.DeepEqual(got, wantGaps) {
							t.Fatalf("objective %d from %d to %d: gaps\n got %+v, %v\nwant %+v", n, from, to, got, err, wantGaps)
						}
						checkDay(t, b, n, from.Day(), want.scan(n, sla.Minute(from.Day()*1440), sla.Minute(from.Day()*1440+1440), 0))
					}
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
				whole(t, b)
			},
		})
		for o := range len(objectives) {
			if got, want := scan(t, b, o, -3000, 9000, 0), want.scan(o, -3000, 9000, 0); !reflect.DeepEqual(got, want) {
				t.Fatalf("objective %d at the end:\n got %v\nwant %v", o, got, want)
			}
		}
	})
}
