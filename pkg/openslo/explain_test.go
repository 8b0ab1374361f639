package openslo

import (
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/pkg/sla"
)

func target(t *testing.T, text string) sla.Target {
	t.Helper()
	out, err := sla.ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// explained are objectives of each form that an indicator can have, by the name
// of the golden file.
func explained(t *testing.T) map[string]struct {
	sla.Objective
	Asked
} {
	const (
		all  = `sum(rate(requests_total{job="shop"}[5m]))`
		good = `sum(rate(requests_total{job="shop",code!~"5.."}[5m]))`
	)
	month := sla.Window{Rolling: 30 * 24 * time.Hour}
	events := sla.SLI{Good: good, Total: all}
	type given = struct {
		sla.Objective
		Asked
	}
	with := func(target sla.Target, w sla.Window, sli sla.SLI, change func(*given)) given {
		g := given{Objective: sla.Objective{
			Service: "shop", SLO: "checkout", Name: "answers", Title: "Checkout answers", Target: target, Window: w, SLI: sli,
		}, Asked: Asked{Now: time.Date(2026, 10, 10, 12, 0, 0, 0, time.UTC)}}
		if change != nil {
			change(&g)
		}
		g.ID = sla.ObjectiveID("", g.Namespace, g.SLO, g.Name, g.Group, sli)
		return g
	}
	// Slices are cut from an objective of their own.
	sliced := func(g given) given {
		inner := g.Objective
		inner.Name, inner.Inner, inner.SLI.Slices = "(events)", true, nil
		inner.ID = sla.ObjectiveID("", "", g.SLO, inner.Name, nil, inner.SLI)
		g.SLI = sla.SLI{Parts: []sla.Part{{Objective: inner.ID, Name: inner.Name, Weight: 1_000_000, Target: inner.Target}}, Slices: g.SLI.Slices}
		g.ID = sla.ObjectiveID("", "", g.SLO, g.Name, nil, g.SLI)
		g.AbsentBad, g.Parts = false, Parts([]sla.Objective{g.Objective, inner})
		return g
	}
	nines := target(t, "0.999")
	parts := []sla.Part{
		{Name: "checkout answers", Weight: 2_500_000, Target: nines},
		{Name: "checkout latency", Weight: 500_000, Target: target(t, "0.95")},
	}
	return map[string]given{
		"counters": with(nines, month, events, nil),
		"counters-with-traffic": with(nines, month, sla.SLI{Bad: `sum(rate(requests_total{job="shop",code=~"5.."}[5m]))`, Total: all}, func(g *given) {
			g.PerDay = big.NewRat(240, 1)
			g.Namespace = "payments"
		}),
		"classic-histogram-of-groups": with(target(t, "0.95"), sla.Window{Rolling: 28 * 24 * time.Hour}, sla.SLI{
			Good: `sum(rate(seconds_bucket{job="shop",le="0.25"}[5m]))`, Total: `sum(rate(seconds_count{job="shop"}[5m]))`,
		}, func(g *given) { g.GroupBy, g.MaxGroups = []string{"namespace", "service"}, 1_000 }),
		"native-histogram-of-a-group": with(nines, month, sla.SLI{
			Good:  `histogram_fraction(0, 0.3, sum(rate(seconds{job="shop"}[5m]))) * histogram_count(sum(rate(seconds{job="shop"}[5m])))`,
			Total: `histogram_count(sum(rate(seconds{job="shop"}[5m])))`,
		}, func(g *given) { g.Group = map[string]string{"namespace": "payments", "service": ""} }),
		"sampled-of-other-groups": with(nines, month, sla.SLI{Good: `sum(irate(a_total[5m]))`, Total: all}, func(g *given) { g.Other = true }),
		"raw-good-ratio":          with(nines, month, sla.SLI{Raw: "job:availability:ratio"}, nil),
		"raw-bad-ratio-in-ratio-slices": sliced(with(target(t, "0.99"), sla.Window{Rolling: 7 * 24 * time.Hour}, sla.SLI{
			Raw: "job:errors:ratio", RawBad: true, Slices: &sla.Slices{Minutes: 10, Ratio: true},
		}, nil)),
		"value": with(target(t, "0.99"), month, sla.SLI{Value: "max(queue_length)", Op: "lte", Limit: "100"}, nil),
		"value-in-slices": sliced(with(target(t, "0.995"), sla.Window{Calendar: sla.Quarter, Count: 1, Timezone: "Europe/Berlin"}, sla.SLI{
			Value: "histogram_quantile(0.99, sum by (le) (rate(seconds_bucket[5m])))", Op: "lt", Limit: "0.5",
			Slices: &sla.Slices{Minutes: 5, Target: target(t, "0.8")},
		}, nil)),
		"slices-longer-than-a-window": sliced(with(target(t, "0.99"), month, sla.SLI{Good: good, Total: all, Slices: &sla.Slices{Minutes: 120, Target: nines}}, nil)),
		"slices-of-what-is-not-known": with(nines, month, sla.SLI{Parts: []sla.Part{{Name: "(events)"}}, Slices: &sla.Slices{Minutes: 5, Target: nines}}, nil),
		"slices-of-heartbeats":        sliced(with(nines, month, sla.SLI{Good: all, Total: all, Slices: &sla.Slices{Minutes: 5, Target: nines}}, func(g *given) { g.AbsentBad = true })),
		"all-of-slices":               with(nines, month, sla.SLI{Combine: sla.AllOf, Parts: parts, Slices: &sla.Slices{Minutes: 5}}, nil),
		"own-alert-policies": with(nines, month, events, func(g *given) {
			g.PerDay = big.NewRat(100_000, 1)
			g.Policies = []sla.Policy{
				{Name: "storm", Severity: "page", Threshold: "20", Lookback: time.Hour, After: 5 * time.Minute},
				{Name: "drizzle", Severity: "ticket", Threshold: "2", AtLeast: true, Lookback: 6 * time.Hour},
				{Name: "flood", Severity: "page", Threshold: "2000", Lookback: time.Hour},
				{Name: "mute", Severity: "page", Threshold: "3", Lookback: time.Hour, Quiet: true},
			}
		}),
		"own-policies-that-ignore-silence": with(nines, month, events, func(g *given) {
			g.Policies = []sla.Policy{{Name: "storm", Severity: "page", Threshold: "20", Lookback: time.Hour, IgnoreNoData: true}}
		}),
		"window-from-a-start":   with(nines, sla.Window{Calendar: sla.Month, Count: 2, Timezone: "Europe/Berlin", Anchor: "2026-01-15 00:00:00"}, events, nil),
		"weighted":              with(nines, month, sla.SLI{Combine: sla.Weighted, Parts: parts}, nil),
		"all-of":                with(nines, month, sla.SLI{Combine: sla.AllOf, Parts: parts}, nil),
		"any-of":                with(nines, month, sla.SLI{Combine: sla.AnyOf, Parts: parts}, nil),
		"no-budget":             with(target(t, "1"), month, events, nil),
		"tiers-that-never-fire": with(target(t, "0.93"), month, events, nil),
		"one-day":               with(target(t, "0.9"), sla.Window{Rolling: 24 * time.Hour}, events, nil),
		"absent-is-bad": with(nines, month, sla.SLI{Good: "rate(x_total[5m])", Total: all}, func(g *given) {
			g.AbsentBad, g.Shipped, g.Title = true, true, ""
		}),
		"heartbeats":  with(nines, month, sla.SLI{Good: all, Total: all}, func(g *given) { g.AbsentBad = true }),
		"always-good": with(nines, month, sla.SLI{Good: all, Total: all}, nil),
		"calendar-month-with-a-long-day": with(nines, sla.Window{Calendar: sla.Month, Count: 1, Timezone: "Europe/Berlin"}, events, func(g *given) {
			g.PerDay = big.NewRat(1_000_000, 1)
		}),
	}
}

func TestExplanationsOfEachFormOfAnIndicator(t *testing.T) {
	const dir = "explain"
	used := map[string]bool{}
	for name, g := range explained(t) {
		e, err := Explain(g.Objective, g.Asked)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		golden(t, filepath.Join(dir, name+".txt"), []byte(e.Text()))
		used[name+".txt"] = true
		b, err := json.MarshalIndent(e, "", "  ")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "counters-with-traffic" {
			golden(t, filepath.Join(dir, name+".json"), append(b, '\n'))
			used[name+".json"] = true
		}
		for i, line := range strings.Split(e.Text(), "\n") {
			if n := len([]rune(line)); n > 110 { // a long query is not broken
				t.Errorf("%s: line %d has %d characters", name, i+1, n)
			}
		}
	}
	files, err := os.ReadDir(filepath.Join("testdata", dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !used[f.Name()] {
			t.Errorf("%s is the golden file of nothing", f.Name())
		}
	}
}

// What the words say must be what the alert does: events at a steady ratio, an
// event each second, fire when they are said to.
func TestTheTableSaysWhenTheTiersReallyFire(t *testing.T) {
	g := explained(t)["counters"]
	e, err := Explain(g.Objective, g.Asked)
	if err != nil {
		t.Fatal(err)
	}
	period := time.Duration(e.PeriodSeconds) * time.Second
	for i, tier := range sla.Tiers {
		for _, d := range e.Tiers[i].Detect {
			ratio, _ := new(big.Rat).SetString(string(d.ErrorRatio))
			// Windows hold 1,000,000 events a second; the last n seconds fail.
			const second = 1_000_000
			sum := func(window time.Duration, n int64) sla.Sum {
				n = min(n, int64(window/time.Second))
				bad := new(big.Rat).Mul(ratio, big.NewRat(n*second, 1))
				if !bad.IsInt() {
					t.Fatalf("%s of %d s", ratio, n)
				}
				total := sla.NewInt128(int64(window/time.Second) * second)
				return sla.Sum{Total: total, GoodHigh: total.Sub(sla.NewInt128(bad.Num().Int64()))}
			}
			fires := func(n int64) bool {
				return tier.Firing(sum(tier.Long, n), sum(tier.Short, n), g.Target, period)
			}
			if string(d.Seconds) == "null" {
				if fires(int64(tier.Long / time.Second)) {
					t.Errorf("%s fires at %s, said never", tier.Name, d.ErrorRatio)
				}
				continue
			}
			said, ok := new(big.Rat).SetString(string(d.Seconds))
			if !ok {
				t.Fatalf("%s is no number", d.Seconds)
			}
			n := floor(said).Int64()
			if fires(n) || !fires(n+1) {
				t.Errorf("%s at %s is said to fire after %s s; after %d it is %t, a second later %t", tier.Name, d.ErrorRatio, d.Seconds, n, fires(n), fires(n+1))
			}
		}
	}
}

// One bad event more than the tier allows is what makes it fire.
func TestTheNumberOfBadEventsIsTheLeastThatFires(t *testing.T) {
	g := explained(t)["counters-with-traffic"]
	e, err := Explain(g.Objective, g.Asked)
	if err != nil {
		t.Fatal(err)
	}
	for i, tier := range sla.Tiers {
		var bad int64
		if err := json.Unmarshal(e.Tiers[i].BadNeeded, &bad); err != nil || bad < 1 {
			t.Fatalf("%s needs %s: %v", tier.Name, e.Tiers[i].BadNeeded, err)
		}
		total := int64(tier.Long/time.Hour) * 10 // 240 a day
		sum := func(bad int64) sla.Sum {
			return sla.Sum{Total: sla.NewInt128(total), GoodHigh: sla.NewInt128(total - bad)}
		}
		short := sla.Sum{Total: sla.NewInt128(1)} // all of it bad
		period := time.Duration(e.PeriodSeconds) * time.Second
		if tier.Firing(sum(bad-1), short, g.Target, period) || !tier.Firing(sum(bad), short, g.Target, period) {
			t.Errorf("%s is said to need %d bad events of %d", tier.Name, bad, total)
		}
	}
}

func TestAnUnknownZoneIsAnErrorOfTheExplanation(t *testing.T) {
	if _, err := Explain(sla.Objective{Window: sla.Window{Calendar: sla.Day, Timezone: "Mars/Olympus"}}, Asked{}); err == nil || !strings.Contains(err.Error(), "time zone") {
		t.Errorf("got %v", err)
	}
}
