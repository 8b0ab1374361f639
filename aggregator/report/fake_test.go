package report

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// book is a ledger in memory. A minute's batch is the number of the first batch
// that holds it.
type book struct {
	head       ledger.Position
	objectives []sla.Objective
	minutes    map[sla.ID]map[sla.Minute]sla.Figures
	batch      map[sla.ID]map[sla.Minute]uint64
	fail       error
}

func newBook(at time.Time) *book {
	return &book{
		head:    ledger.Position{Term: 1, Seq: 4711, Hash: sha256.Sum256([]byte("head")), At: at.UnixMilli()},
		minutes: map[sla.ID]map[sla.Minute]sla.Figures{}, batch: map[sla.ID]map[sla.Minute]uint64{},
	}
}

func (b *book) Head() ledger.Position { return b.head }

func (b *book) Objectives(uint64) ([]sla.Objective, error) { return b.objectives, b.fail }

func (b *book) Scan(id sla.ID, from, to sla.Minute, asOf uint64, fn func(sla.Minute, sla.Figures) error) error {
	ms := b.minutes[id]
	lo, hi := sla.Minute(math.MaxInt64), sla.Minute(math.MinInt64)
	for m := range ms {
		lo, hi = min(lo, m), max(hi, m)
	}
	for m := max(from, lo); m < to && m <= hi; m++ {
		f, ok := ms[m]
		if !ok || asOf != 0 && b.batch[id][m] > asOf {
			continue
		}
		if err := fn(m, f); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	return nil
}

func (b *book) add(o sla.Objective) sla.Objective {
	o.ID = sla.ObjectiveID(o.Cluster, o.Namespace, o.SLO, o.Name, o.Group, o.SLI)
	b.objectives = append(b.objectives, o)
	b.minutes[o.ID] = map[sla.Minute]sla.Figures{}
	b.batch[o.ID] = map[sla.Minute]uint64{}
	return o
}

func (b *book) put(o sla.Objective, m sla.Minute, f sla.Figures) { b.minutes[o.ID][m] = f }

// fill books every minute of [from, to).
func (b *book) fill(o sla.Objective, from, to time.Time, f sla.Figures) {
	for m := sla.MinuteOf(from); m < sla.MinuteOf(to); m++ {
		b.put(o, m, f)
	}
}

// minute is a minute with good of total events, all of one source's time seen.
func minute(good, total int64) sla.Figures {
	return sla.Figures{Counts: sla.Counts{GoodLow: good * sla.Micro, GoodHigh: good * sla.Micro, Total: total * sla.Micro, Expected: 60_000, Counted: 60_000, Timed: 60_000}}
}

func unseen() sla.Figures { return sla.Figures{Counts: sla.Counts{Expected: 60_000}} }

func target(t testing.TB, s string) sla.Target {
	t.Helper()
	v, err := sla.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func utc(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

func rat(s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		panic(s)
	}
	return r
}

var novembers = map[time.Time]*book{}

// november is a book with one of each: met, missed, inconclusive, no events,
// new in the month, a target of 100 %, and names that try to break things.
//
// It is made once for each head; the caller must not put minutes into it.
func november(t testing.TB, head time.Time) *book {
	if made, ok := novembers[head]; ok {
		b := *made
		b.objectives = slices.Clone(made.objectives)
		return &b
	}
	b := newBook(head)
	novembers[head] = b
	start, end := utc("2026-10-20 00:00"), head
	type spec struct {
		service, slo, title, target string
		draw                        func(m sla.Minute) sla.Figures
		from                        time.Time
	}
	first := sla.MinuteOf(utc("2026-11-01 00:00"))
	day := func(d int) sla.Minute { return first + sla.Minute(d-1)*1440 }
	for _, s := range []spec{
		{"checkout", "checkout-availability", "Checkout answers without an error", "0.999", func(m sla.Minute) sla.Figures {
			if m >= day(11)+600 && m < day(11)+648 {
				return minute(300, 1000)
			}
			if m >= day(19)+60 && m < day(19)+75 {
				return minute(985, 1000)
			}
			return minute(1000, 1000)
		}, start},
		{"checkout", "checkout-latency", "Checkout answers within 300 ms", "0.99", func(m sla.Minute) sla.Figures {
			if m%97 == 0 {
				return minute(900, 1000)
			}
			return minute(996, 1000)
		}, start},
		{"search", "search-availability", "Search answers without an error", "0.995", func(m sla.Minute) sla.Figures {
			if m >= day(6) && m < day(9) {
				return unseen()
			}
			return minute(999, 1000)
		}, start},
		{"billing", "invoice-run", "Invoices are written", "0.99", func(sla.Minute) sla.Figures { return minute(0, 0) }, start},
		{"platform", "node-reachable", "Nodes are reachable", "0.995", func(m sla.Minute) sla.Figures {
			if m >= day(14)+100 && m < day(14)+130 {
				f := unseen()
				f.Total, f.Flags = sla.Micro, sla.FlagAbsent
				return f
			}
			return minute(1, 1)
		}, utc("2026-11-09 13:00")},
		{"ledger", "no-lost-record", "No record is ever lost", "1", func(sla.Minute) sla.Figures { return minute(48, 48) }, start},
		{"=cmd|' /C calc'!A0", "an-objective-with-a-name-that-somebody-generated-from-a-template-and-never-read-again-eu-central-1b", "A title that a template wrote and nobody ever read again, about the share of write requests to the replicated object storage of the payment platform in eu-central-1 that were acknowledged in time <script>alert(1)</script>", "0.99999", func(m sla.Minute) sla.Figures { return minute(999_999_999, 1_000_000_000) }, start},
	} {
		o := b.add(sla.Objective{
			Service: s.service, Namespace: "shop", SLO: s.slo, Name: "0", Title: s.title, Target: target(t, s.target),
			Description: "What people of the shop notice when " + s.service + " is not well.",
			SLI:         sla.SLI{Good: `sum(rate(http_requests_total{job="` + s.service + `",code!~"5.."}[5m]))`, Total: `sum(rate(http_requests_total{job="` + s.service + `"}[5m]))`},
			SpecSHA256:  fmt.Sprintf("%x", sha256.Sum256([]byte(s.slo))), Team: "shop",
		})
		for m := sla.MinuteOf(s.from); m < sla.MinuteOf(end); m++ {
			b.put(o, m, s.draw(m))
		}
	}
	return b
}
