package alert

import (
	"testing"
	"time"

	"nines/pkg/sla"
)

// tight is an objective with an alert policy of its own: a burn above 2 over an
// hour, for five minutes.
func tight(t testing.TB) sla.Objective {
	o := objective(t)
	o.Policies = []sla.Policy{{
		Name: "checkout-burns", Severity: "sev2", Threshold: "2", Lookback: time.Hour, After: 5 * time.Minute, Targets: []string{"mail", "chat"},
	}}
	return o
}

func TestAnAlertPolicyTakesThePlaceOfTheTiersAndWaits(t *testing.T) {
	a := open(t, config(t))
	o := tight(t)
	hour := func(bad int64) map[time.Duration]sla.Sum { return map[time.Duration]sla.Sum{time.Hour: seen(bad)} }
	const twice = 2 * events / 1000
	step := func(after time.Duration, bad int64, want int) []Active {
		t.Helper()
		now := noon.Add(after)
		if err := a.Tick(now, []Input{input(o, now, hour(bad))}); err != nil {
			t.Fatal(err)
		}
		got := a.Firing()
		if len(got) != want {
			t.Fatalf("after %s with %d bad: %d alerts fire, want %d: %+v", after, bad, len(got), want, got)
		}
		return got
	}
	step(0, twice, 0)                // at the threshold
	step(time.Minute, twice+1, 0)    // above it, for no time yet
	step(4*time.Minute, twice, 0)    // and back
	step(5*time.Minute, events/2, 0) // again: the wait begins anew
	step(9*time.Minute, events/2, 0)
	fired := step(10*time.Minute, twice+1, 1)
	if fired[0].Tier != "checkout-burns" || fired[0].Severity != "sev2" {
		t.Errorf("%+v fires", fired[0])
	}
	for _, s := range a.states {
		if s.Labels["burn_tier"] != "checkout-burns" || s.Labels["notification_target"] != "mail,chat" || s.Labels["severity"] != "sev2" {
			t.Errorf("its labels are %v", s.Labels)
		}
	}
	step(11*time.Minute, twice, 0)
}

func TestAPolicySaysWhetherMissingDataIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		ignore bool
		want   int
	}{"told": {false, 1}, "not told": {true, 0}} {
		a := open(t, config(t))
		o := tight(t)
		o.Policies[0].IgnoreNoData = c.ignore
		in := input(o, noon, map[time.Duration]sla.Sum{time.Hour: blind()})
		in.Unseen = true
		if err := a.Tick(noon, []Input{in}); err != nil {
			t.Fatal(err)
		}
		if got := a.Firing(); len(got) != c.want {
			t.Errorf("%s: %+v fires", name, got)
		}
	}
}

func TestAQuietPolicyTellsMissingDataAlone(t *testing.T) {
	a := open(t, config(t))
	o := tight(t)
	o.Policies[0].Quiet, o.Policies[0].After = true, 0
	if err := a.Tick(noon, []Input{input(o, noon, map[time.Duration]sla.Sum{time.Hour: seen(events)})}); err != nil {
		t.Fatal(err)
	}
	if got := a.Firing(); len(got) != 0 {
		t.Errorf("%+v fires", got)
	}
}

func TestThatAnObjectiveIsNotSeenIsToldToThoseWhoAskedForIt(t *testing.T) {
	a := open(t, config(t))
	o := tight(t)
	o.Policies[0].Severity = "ticket"
	in := input(o, noon, map[time.Duration]sla.Sum{time.Hour: blind()})
	in.Unseen = true
	a.tick(noon, in)
	for _, s := range a.states {
		if s.Labels["severity"] != "ticket" || s.Labels["notification_target"] != "mail,chat" || s.Labels["alertname"] != NameUnseen {
			t.Errorf("its labels are %v", s.Labels)
		}
	}
	a.want(unseenTier)
}
