package alert

import (
	"bytes"
	"log/slog"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"nines/pkg/sla"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const month = 30 * 24 * time.Hour

// noon is a time of no importance.
var noon = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// events is the total of each window of the tests: enough that each threshold
// of 99.9 % is a whole number of micro-events.
const events = 10_000 * sla.Micro

func target(t testing.TB, s string) sla.Target {
	t.Helper()
	tg, err := sla.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

func objective(t testing.TB) sla.Objective {
	return sla.Objective{
		ID: sla.ID{0xc0, 0xff, 0xee, 4, 5, 6, 7, 8}, Service: "checkout", SLO: "checkout-availability", Name: "three nines",
		Title: "Checkout answers", Namespace: "shop", Team: "payments", Runbook: "checkout.md",
		Target: target(t, "0.999"), Window: sla.Window{Rolling: month},
		SLI: sla.SLI{Good: `sum(rate(http_requests_total{code!~"5.."}[5m]))`, Total: `sum(rate(http_requests_total[5m]))`},
	}
}

// seen is a window that was watched all of the time, with that many bad
// micro-events of events.
func seen(bad int64) sla.Sum {
	var s sla.Sum
	s.Add(sla.Counts{GoodLow: events - bad, GoodHigh: events - bad, Total: events, Expected: 60_000, Counted: 60_000, Timed: 60_000})
	return s
}

// idle is a window that was watched and in which nothing happened.
func idle() sla.Sum {
	var s sla.Sum
	s.Add(sla.Counts{Expected: 60_000, Counted: 60_000, Timed: 60_000})
	return s
}

// blind is a window of which nothing was seen.
func blind() sla.Sum {
	var s sla.Sum
	s.Add(sla.Counts{Expected: 60_000})
	return s
}

// atThreshold is the number of bad micro-events that burn exactly as fast as
// the tier allows.
func atThreshold(t testing.TB, tier sla.Tier, o sla.Objective, period time.Duration) int64 {
	t.Helper()
	bad := new(big.Rat).Mul(tier.Threshold(period), o.Target.BudgetRat())
	bad.Mul(bad, new(big.Rat).SetInt64(events))
	if !bad.IsInt() {
		t.Fatalf("threshold of tier %s is %s micro-events: the test needs a whole number", tier.Name, bad)
	}
	return bad.Num().Int64()
}

// input is an objective whose newest sample is as old as now and whose
// windows are given by their length.
func input(o sla.Objective, now time.Time, windows map[time.Duration]sla.Sum) Input {
	return Input{Objective: o, Windows: windows, Period: seen(3_000_000), PeriodLength: month, Newest: now}
}

// burning is an input of which all windows hold that many bad micro-events.
func burning(o sla.Objective, now time.Time, bad int64) Input {
	w := map[time.Duration]sla.Sum{}
	for _, t := range sla.Tiers {
		w[t.Long], w[t.Short] = seen(bad), seen(bad)
	}
	return input(o, now, w)
}

// bench is an Alerter on a folder that outlives it.
type bench struct {
	*Alerter
	t   testing.TB
	log *bytes.Buffer
	reg *prometheus.Registry
}

func open(t testing.TB, cfg Config) *bench {
	t.Helper()
	b := &bench{t: t, log: &bytes.Buffer{}, reg: prometheus.NewRegistry()}
	a, err := New(cfg, slog.New(slog.NewTextHandler(b.log, nil)), b.reg)
	if err != nil {
		t.Fatal(err)
	}
	b.Alerter = a
	return b
}

func config(t testing.TB, alertmanagers ...string) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "alerts"), Alertmanagers: alertmanagers, ExternalURL: "https://nines.example/", Interval: 10 * time.Second, Cluster: "blue"}
}

func (b *bench) tick(now time.Time, inputs ...Input) {
	b.t.Helper()
	if err := b.Tick(now, inputs); err != nil {
		b.t.Fatalf("tick: %v", err)
	}
}

// firing is the tiers that fire, in one line.
func (b *bench) firing() string {
	var out []string
	for _, a := range b.Firing() {
		out = append(out, a.Tier)
	}
	return strings.Join(out, " ")
}

func (b *bench) want(firing string) {
	b.t.Helper()
	if got := b.firing(); got != firing {
		b.t.Fatalf("firing: %q, want %q", got, firing)
	}
}

// metric is the sum of a metric's values whose labels hold all of the pairs.
func (b *bench) metric(name string, pairs ...string) float64 {
	b.t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	var out float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			for i := 0; i < len(pairs); i += 2 {
				if have[pairs[i]] != pairs[i+1] {
					continue metrics
				}
			}
			out += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestATierFiresOnlyWhileBothOfItsWindowsBurnAboveTheThreshold(t *testing.T) {
	o := objective(t)
	for _, tier := range sla.Tiers {
		at := atThreshold(t, tier, o, month)
		for name, tc := range map[string]struct {
			long, short sla.Sum
			fires       bool
		}{
			"both above":             {seen(at + 1), seen(at + 1), true},
			"both far above":         {seen(events), seen(events), true},
			"both exactly at it":     {seen(at), seen(at), false},
			"long above, short at":   {seen(at + 1), seen(at), false},
			"long at, short above":   {seen(at), seen(at + 1), false},
			"both just below":        {seen(at - 1), seen(at - 1), false},
			"only long above":        {seen(at + 1), seen(0), false},
			"only short above":       {seen(0), seen(at + 1), false},
			"long above, short idle": {seen(at + 1), idle(), false},
			"nothing wrong":          {seen(0), seen(0), false},
			"no traffic":             {idle(), idle(), false},
			"nothing seen":           {blind(), blind(), false},
			"no minutes at all":      {sla.Sum{}, sla.Sum{}, false},
		} {
			t.Run(tier.Name+"/"+name, func(t *testing.T) {
				b := open(t, config(t))
				b.tick(noon, input(o, noon, map[time.Duration]sla.Sum{tier.Long: tc.long, tier.Short: tc.short}))
				want := ""
				if tc.fires {
					want = tier.Name
				}
				b.want(want)
				for _, a := range b.Firing() {
					if a.Severity != tier.Severity || a.Objective != o.ID || !a.Since.Equal(noon) {
						t.Errorf("fires as %+v, want severity %s of objective %s since %s", a, tier.Severity, o.ID, noon)
					}
				}
				if got := b.metric("nines_alerts_firing", "severity", tier.Severity); tc.fires != (got == 1) {
					t.Errorf("nines_alerts_firing{severity=%q} is %g", tier.Severity, got)
				}
			})
		}
	}
}

func TestATierResolvesWhenItsShortWindowFallsToTheThreshold(t *testing.T) {
	o := objective(t)
	for _, tier := range sla.Tiers {
		t.Run(tier.Name, func(t *testing.T) {
			at := atThreshold(t, tier, o, month)
			b := open(t, config(t))
			at2 := func(now time.Time, short sla.Sum) {
				b.tick(now, input(o, now, map[time.Duration]sla.Sum{tier.Long: seen(at + 1), tier.Short: short}))
			}
			at2(noon, seen(at+1))
			b.want(tier.Name)
			at2(noon.Add(10*time.Second), seen(at+1))
			b.want(tier.Name)
			at2(noon.Add(20*time.Second), seen(at))
			b.want("")
			if got := b.metric("nines_alerts_firing"); got != 0 {
				t.Errorf("nines_alerts_firing is %g, want 0", got)
			}
			// It begins anew, with a new beginning.
			at2(noon.Add(30*time.Second), seen(at+1))
			b.want(tier.Name)
			if got := b.Firing()[0].Since; !got.Equal(noon.Add(30 * time.Second)) {
				t.Errorf("fires since %s, want since the second beginning", got)
			}
		})
	}
}

func TestThresholdsFollowThePeriodOfTheObjective(t *testing.T) {
	for name, tc := range map[string]struct {
		target string
		period time.Duration
		bad    int64 // in all windows
		want   string
	}{
		"total outage":                                       {"0.999", month, events, "fast long medium slow"},
		"burn of 14.4 is not above 14.4":                     {"0.999", month, 144 * sla.Micro, "long medium slow"},
		"burn of 6 is not above 6":                           {"0.999", month, 60 * sla.Micro, "long slow"},
		"burn of 3 is not above 3":                           {"0.999", month, 30 * sla.Micro, "long"},
		"burn of 1 is not above 1":                           {"0.999", month, 10 * sla.Micro, ""},
		"7 days: fast needs 3.36":                            {"0.999", 7 * 24 * time.Hour, 33_600_001, "fast long medium slow"},
		"7 days: not at 3.36":                                {"0.999", 7 * 24 * time.Hour, 33_600_000, "long medium slow"},
		"1 day: a window longer than the period is left out": {"0.999", 24 * time.Hour, events, "fast medium slow"},
		"93 %: 14.4 can't be exceeded":                       {"0.93", month, events, "long medium slow"},
		"83 %: neither can 6":                                {"0.83", month, events, "long slow"},
		"100 % has no burn rate":                             {"1", month, events, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := objective(t)
			o.Target = target(t, tc.target)
			b := open(t, config(t))
			in := burning(o, noon, tc.bad)
			in.PeriodLength = tc.period
			b.tick(noon, in)
			b.want(tc.want)
		})
	}
}

func TestTiersOfDifferentObjectivesAreIndependent(t *testing.T) {
	one, two := objective(t), objective(t)
	two.ID[7]++
	b := open(t, config(t))
	b.tick(noon, burning(one, noon, events), burning(two, noon, 0))
	b.want("fast long medium slow")
	b.tick(noon, burning(one, noon, 0), burning(two, noon, events))
	for _, a := range b.Firing() {
		if a.Objective != two.ID {
			t.Errorf("%s of %s fires, want only those of %s", a.Tier, a.Objective, two.ID)
		}
	}
	b.want("fast long medium slow")
}

func TestSilenceIsNotRecovery(t *testing.T) {
	tier := sla.Tiers[0]
	for name, tc := range map[string]struct {
		age         time.Duration // of the newest sample
		long, short sla.Sum
		absentBad   bool
		fires       bool
	}{
		"seen and good":                                    {0, seen(events), seen(0), false, false},
		"seen and good 5 min ago":                          {5 * time.Minute, seen(events), seen(0), false, false},
		"the newest sample is older than 5 min":            {5*time.Minute + 1, seen(events), seen(0), false, true},
		"the newest sample is days old":                    {72 * time.Hour, sla.Sum{}, sla.Sum{}, false, true},
		"a fresh sample, but nothing of the short window":  {0, seen(events), blind(), false, true},
		"a fresh sample, but no minute in either":          {0, sla.Sum{}, sla.Sum{}, false, true},
		"watched without traffic":                          {0, seen(events), idle(), false, false},
		"absence is bad, and it went well":                 {6 * time.Minute, seen(events), seen(0), true, false},
		"absence is bad, but nothing was expected yet":     {6 * time.Minute, seen(events), sla.Sum{}, true, true},
		"still burning, though the newest sample is older": {time.Hour, seen(events), seen(events), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := objective(t)
			o.AbsentBad = tc.absentBad
			b := open(t, config(t))
			b.tick(noon, input(o, noon, map[time.Duration]sla.Sum{tier.Long: seen(events), tier.Short: seen(events)}))
			b.want("fast")
			now := noon.Add(100 * time.Hour)
			in := input(o, now, map[time.Duration]sla.Sum{tier.Long: tc.long, tier.Short: tc.short})
			in.Newest = now.Add(-tc.age)
			b.tick(now, in)
			want := ""
			if tc.fires {
				want = "fast"
				if got := b.Firing(); len(got) == 1 && !got[0].Since.Equal(noon) {
					t.Errorf("fires since %s, want still since %s", got[0].Since, noon)
				}
			}
			b.want(want)
		})
	}
}

func TestAnAlertOfASilentServiceResolvesOnceItIsSeenToBeGood(t *testing.T) {
	o := objective(t)
	b := open(t, config(t))
	b.tick(noon, burning(o, noon, events))
	last := noon
	for now := noon; now.Before(last.Add(2 * time.Hour)); now = now.Add(10 * time.Second) {
		in := input(o, now, map[time.Duration]sla.Sum{}) // the windows end at most 10 min ago, and run empty
		in.Newest = last
		if now.Sub(last) < unseenAfter {
			in = burning(o, last, events)
		}
		b.tick(now, in)
		b.want("fast long medium slow")
	}
	back := last.Add(2 * time.Hour)
	b.tick(back, burning(o, back, 0))
	b.want("")
}

func TestAnAlertOfAnObjectiveThatIsGoneIsHeldForFiveMinutes(t *testing.T) {
	for name, without := range map[string][]Input{
		"no objective at all":             nil,
		"others only":                     {burning(sla.Objective{ID: sla.ID{9}, Target: target(t, "0.99")}, noon, 0)},
		"its target has no budget now":    {func() Input { o := objective(t); o.Target = target(t, "1"); return burning(o, noon, 0) }()},
		"its period is too short for all": {func() Input { in := burning(objective(t), noon, 0); in.PeriodLength = 0; return in }()},
	} {
		t.Run(name, func(t *testing.T) {
			o := objective(t)
			b := open(t, config(t))
			b.tick(noon, burning(o, noon, events))
			gone := noon.Add(time.Minute)
			for now := gone; !now.After(gone.Add(unseenAfter)); now = now.Add(10 * time.Second) {
				b.tick(now, without...)
				b.want("fast long medium slow")
			}
			b.tick(gone.Add(unseenAfter+10*time.Second), without...)
			b.want("")
			if !strings.Contains(b.log.String(), "no longer evaluated") {
				t.Errorf("the log does not say why it resolved:\n%s", b.log)
			}
		})
	}
	t.Run("back before five minutes are over", func(t *testing.T) {
		o := objective(t)
		b := open(t, config(t))
		b.tick(noon, burning(o, noon, events))
		b.tick(noon.Add(1 * time.Minute))
		b.tick(noon.Add(5*time.Minute), burning(o, noon.Add(5*time.Minute), events))
		b.tick(noon.Add(8 * time.Minute)) // gone again: five minutes anew
		b.want("fast long medium slow")
		if got := b.Firing()[0].Since; !got.Equal(noon) {
			t.Errorf("fires since %s, want since %s", got, noon)
		}
	})
}

func TestAChangeOfAnAlertIsLoggedOnce(t *testing.T) {
	o := objective(t)
	b := open(t, config(t))
	in := func(now time.Time, bad int64) Input {
		return input(o, now, map[time.Duration]sla.Sum{time.Hour: seen(bad), 5 * time.Minute: seen(bad)})
	}
	for i := range 20 {
		now := noon.Add(time.Duration(i) * 10 * time.Second)
		b.tick(now, in(now, events))
	}
	for i := range 20 {
		now := noon.Add(time.Duration(20+i) * 10 * time.Second)
		b.tick(now, in(now, 0))
	}
	if got := strings.Count(b.log.String(), "\n"); got != 2 {
		t.Errorf("%d lines in the log, want one for the beginning and one for the end:\n%s", got, b.log)
	}
}
