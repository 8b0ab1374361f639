package evaluate

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nines/pkg/openslo"
	"nines/pkg/sla"
)

// document is an SLO of the rig's counters with a method and objectives.
func document(name, method, objectives string) string {
	return fmt.Sprintf(`apiVersion: openslo/v1
kind: SLO
metadata: {name: %s}
spec:
  service: shop
  budgetingMethod: %s
  timeWindow: [{duration: 7d, isRolling: true}]
  indicator:
    metadata: {name: requests}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(web_total{code!="500"}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(web_total[5m]))'}}}
  objectives:
%s`, name, method, objectives)
}

// evaluated are the objectives of documents.
func evaluated(t *testing.T, documents ...string) map[string]sla.Objective {
	t.Helper()
	set := openslo.Load(map[string][]byte{"a.yaml": []byte(strings.Join(documents, "---\n"))})
	out := map[string]sla.Objective{}
	for _, f := range set.Findings() {
		if f.IsError() {
			t.Fatal(f)
		}
	}
	for _, o := range set.Objectives() {
		out[o.SLO+"/"+o.Name] = o
	}
	return out
}

func objectsOf(m map[string]sla.Objective) (out []sla.Objective) {
	for _, o := range m {
		out = append(out, o)
	}
	return out
}

// web is traffic of one source with a share of errors: ten events in 15 s.
type web struct {
	rig       *rig
	instance  string
	good, bad float64
}

func (w *web) scrape(seconds, errors float64) {
	w.bad += 10 * errors
	w.good += 10 * (1 - errors)
	w.rig.send(datum{"web", w.instance, "200", seconds, w.good, 0}, datum{"web", w.instance, "500", seconds, w.bad, 0})
}

func TestTimeSlicesAreJudgedWholeAndCountInTheirLastMinute(t *testing.T) {
	all := evaluated(t,
		document("slices", "Timeslices", "    - {displayName: five, target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}\n    - {displayName: one, target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 1}\n"),
		document("ratios", "RatioTimeslices", "    - {displayName: ten, target: 0.95, timeSliceWindow: 10m}\n"))
	r := newRig(t, objectsOf(all)...)
	w := &web{rig: r, instance: "a"}
	// One hour: in minutes 20 and 21 every event fails, in 33 three of ten.
	for s := 0.0; s < 3600; s += 15 {
		if s == 1275 {
			r.restart() // in the middle of a slice
		}
		errors := 0.0
		switch minute := int(s / 60); {
		case minute == 20 || minute == 21:
			errors = 1
		case minute == 33:
			errors = 0.3
		}
		w.scrape(s, errors)
		r.to(s + 1)
	}
	r.to(3900)

	events := r.minutes(all["slices/"+"(events)"])
	if len(events) < 60 || events[20].GoodHigh != 0 || events[20].Total != 40*sla.Micro {
		t.Fatalf("the events of %d minutes are booked, those of minute 20: %+v", len(events), events[20])
	}
	for _, name := range []string{"slices/five", "slices/one", "ratios/ten"} {
		o := all[name]
		length := o.SLI.Slices.Minutes
		got := r.minutes(o)
		judged, bad := 0, 0
		for m := 0; m < 60; m++ {
			f, ok := got[m]
			if !ok {
				t.Fatalf("%s: minute %d is not booked", name, m)
			}
			last := (int(minute0)+m+1)%length == 0
			if !last {
				if f.Total != 0 || f.GoodHigh != 0 {
					t.Errorf("%s: minute %d, in the middle of a slice, holds %+v", name, m, f)
				}
				continue
			}
			var good, total int64
			for i := max(0, m-length+1); i <= m; i++ {
				good, total = good+events[i].GoodHigh, total+events[i].Total
			}
			want := sla.Figures{}
			want.Total = sla.Micro
			ratio := big.NewRat(good, total)
			if o.SLI.Slices.Ratio {
				want.GoodHigh = new(big.Int).Quo(new(big.Int).Mul(ratio.Num(), big.NewInt(sla.Micro)), ratio.Denom()).Int64()
			} else if ratio.Cmp(big.NewRat(9, 10)) >= 0 {
				want.GoodHigh = sla.Micro
			}
			if f.Total != want.Total || f.GoodHigh != want.GoodHigh || f.GoodLow != want.GoodHigh {
				t.Errorf("%s: the slice that ends with minute %d is %+v, want %d of %d", name, m, f.Counts, want.GoodHigh, want.Total)
			}
			judged++
			if f.GoodHigh < sla.Micro {
				bad++
			}
		}
		wantBad := map[string]int{"slices/five": 1, "slices/one": 3, "ratios/ten": 2}[name]
		if judged < 60/length-1 || bad != wantBad {
			t.Errorf("%s: %d slices were judged, %d of them are not all good, want %d", name, judged, bad, wantBad)
		}
	}
	// Events of inner objectives are shown nowhere.
	for _, st := range r.ev.States(r.now) {
		if st.Objective.Inner {
			t.Errorf("%s is among the states", st.Objective.Name)
		}
		if st.Objective.Name == "five" && (st.Period.Total.Float64() < 11*sla.Micro || st.Newest.IsZero()) {
			t.Errorf("the period of %s holds %v slices, newest sample %v", st.Objective.SLO, st.Period.Total, st.Newest)
		}
	}
}

func TestR21_ALateSampleRevisesTheSliceThatHoldsItInTheSameBatch(t *testing.T) {
	all := evaluated(t, document("slices", "Timeslices", "    - {displayName: five, target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}\n"))
	r := newRig(t, objectsOf(all)...)
	a, b := &web{rig: r, instance: "a"}, &web{rig: r, instance: "b"}
	late := []float64{}
	for s := 0.0; s <= 2400; s += 15 {
		a.scrape(s, 0)
		switch {
		case s < 600:
			b.scrape(s, 0)
		case s < 1500: // its connection is cut, and it fails
			late = append(late, s)
		default:
			for _, l := range late {
				b.scrape(l, 1)
			}
			late = nil
			b.scrape(s, 0)
		}
		r.to(s + 1)
	}
	r.to(2600)
	five := all["slices/five"]
	events, got := r.minutes(all["slices/(events)"]), r.minutes(five)
	bad := 0
	for m := 10; m < 25; m++ {
		if events[m].Total != 80*sla.Micro || events[m].GoodHigh != 40*sla.Micro {
			t.Fatalf("minute %d holds %+v, want the late events in it", m, events[m].Counts)
		}
		if f := got[m]; f.Total > 0 {
			if f.GoodHigh != 0 {
				t.Errorf("the slice that ends with minute %d is still good", m)
			}
			bad++
		}
	}
	if bad != 3 {
		t.Errorf("%d slices of the bad quarter are judged, want 3", bad)
	}
	// Windows that were open all the time and a fresh start agree.
	before := r.ev.States(r.now)
	r.restart()
	after := r.ev.States(r.now)
	if len(before) != 1 || len(after) != 1 || before[0].Period.GoodHigh.Cmp(after[0].Period.GoodHigh) != 0 || before[0].Period.Total.Cmp(after[0].Period.Total) != 0 {
		t.Errorf("the period before a restart: %+v, after it: %+v", before, after)
	}
}

// composite is an SLO of two indicators over the same counters' sources.
func composite(name, how string, target string) string {
	one := func(instance, target string, weight int) string {
		return fmt.Sprintf(`    - displayName: %[1]s
      target: %[2]s
      compositeWeight: %[3]d
      indicator:
        metadata: {name: %[1]s}
        spec:
          ratioMetric:
            counter: true
            good: {metricSource: {spec: {query: 'sum(rate(web_total{instance="%[1]s",code!="500"}[5m]))'}}}
            total: {metricSource: {spec: {query: 'sum(rate(web_total{instance="%[1]s"}[5m]))'}}}
`, instance, target, weight)
	}
	return fmt.Sprintf(`apiVersion: openslo/v1
kind: SLO
metadata: {name: %s, annotations: {nines.internal/composite: %s, nines.internal/composite-target: "%s"}}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 7d, isRolling: true}]
  objectives:
%s%s`, name, how, target, one("a", "0.9", 3), one("b", "0.8", 1))
}

func TestACompositePutsTheMinutesOfItsPartsTogether(t *testing.T) {
	all := evaluated(t, composite("mean", "weighted", "0.9"), composite("both", "all-of", "0.9"), composite("either", "any-of", "0.99"))
	if len(all) != 9 {
		t.Fatalf("%d objectives, want two parts and the composite of each of three SLOs", len(all))
	}
	r := newRig(t, objectsOf(all)...)
	a, b := &web{rig: r, instance: "a"}, &web{rig: r, instance: "b"}
	for s := 0.0; s < 1200; s += 15 {
		ea, eb := 0.0, 0.0
		switch int(s / 60) {
		case 5:
			ea = 0.4
		case 6:
			eb = 0.4
		case 7:
			ea, eb = 1, 1
		}
		a.scrape(s, ea)
		if m := int(s / 60); m < 10 || m >= 13 { // b is not seen for three minutes
			b.scrape(s, eb)
		}
		r.to(s + 1)
	}
	r.to(1500)
	for name, want := range map[string]map[int]int64{
		"mean/composite":   {4: 1_000_000, 5: 700_000, 6: 900_000, 7: 0, 9: 1_000_000, 11: -1, 15: 1_000_000},
		"both/composite":   {4: 1_000_000, 5: 0, 6: 0, 7: 0, 9: 1_000_000, 11: -1, 15: 1_000_000},
		"either/composite": {4: 1_000_000, 5: 1_000_000, 6: 1_000_000, 7: 0, 9: 1_000_000, 11: 1_000_000, 15: 1_000_000},
	} {
		got := r.minutes(all[name])
		for m, good := range want {
			f := got[m]
			switch {
			case good < 0:
				if f.Total != 0 || f.Counted != 0 || f.Expected != 60_000 {
					t.Errorf("%s: minute %d, of which one part was not seen, is %+v; want it expected and not counted", name, m, f.Counts)
				}
			case f.GoodHigh != good || f.GoodLow != good || f.Total != sla.Micro || f.Counted != 60_000:
				t.Errorf("%s: minute %d is %+v, want %d of a million", name, m, f.Counts, good)
			}
		}
	}
}

func TestAnObjectiveWhosePartIsNotEvaluatedStopsItself(t *testing.T) {
	all := evaluated(t, document("slices", "Timeslices", "    - {displayName: five, target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}\n"))
	five := all["slices/five"]
	r := newRig(t, webObjective("web", false))
	err := r.ev.SetObjectives(t.Context(), []sla.Objective{five, webObjective("web", false)}, r.now)
	if err == nil || !strings.Contains(err.Error(), "its part (events) is not evaluated") {
		t.Errorf("error %v", err)
	}
	if failed := r.ev.Failed(); len(failed) != 1 || failed[five.ID] == "" || len(r.ev.Objectives()) != 1 {
		t.Errorf("failed are %v, evaluated %v", failed, r.ev.Objectives())
	}
}

func TestValuesAndRawRatiosAreObservedOnceAMinute(t *testing.T) {
	doc := func(name, indicator, objective string) string {
		return fmt.Sprintf("apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: %s}\nspec:\n  service: shop\n  budgetingMethod: Occurrences\n  timeWindow: [{duration: 7d, isRolling: true}]\n  indicator: {metadata: {name: x}, spec: {%s}}\n  objectives: [{%s}]\n", name, indicator, objective)
	}
	all := evaluated(t,
		doc("value", "thresholdMetric: {metricSource: {spec: {query: 'last_over_time(web_total[5m])'}}}", "target: 0.9, op: lte, value: 20"),
		doc("above", "thresholdMetric: {metricSource: {spec: {query: 'last_over_time(web_total[5m])'}}}", "target: 0.9, op: gt, value: 20"),
		doc("success", "ratioMetric: {rawType: success, raw: {metricSource: {spec: {query: 'scalar(web_total{code=\"200\"}) / 100'}}}}", "target: 0.9"),
		doc("failure", "ratioMetric: {rawType: failure, raw: {metricSource: {spec: {query: 'scalar(web_total{code=\"200\"}) / 100'}}}}", "target: 0.9"))
	r := newRig(t, objectsOf(all)...)
	for s := 0.0; s <= 600; s += 15 {
		// Two values: 10 × minute, and 5 × minute.
		if minute := float64(int(s / 60)); minute != 4 {
			r.send(datum{"web", "a", "200", s, 10 * minute, 0}, datum{"web", "a", "500", s, 5 * minute, 0})
		}
		r.to(s + 1)
	}
	r.to(900)
	check := func(name string, m int, good, total int64) {
		t.Helper()
		f := r.minutes(all[name+"/0"])[m]
		if f.GoodHigh != good || f.GoodLow != good || f.Total != total || f.Flags&sla.FlagSampled == 0 || (total > 0) != (f.Counted == 60_000) || f.Expected != 60_000 {
			t.Errorf("%s: minute %d is %+v, want %d of %d", name, m, f, good, total)
		}
	}
	// The value at the end of minute m is that of its last scrape: one on the
	// edge belongs to the next minute.
	at := func(m int) (int64, int64) { return int64(10 * m), int64(5 * m) }
	for _, m := range []int{1, 2, 5, 8} {
		first, second := at(m)
		low := int64(0)
		for _, v := range []int64{first, second} {
			if v <= 20 {
				low += sla.Micro
			}
		}
		check("value", m, low, 2*sla.Micro)
		check("above", m, 2*sla.Micro-low, 2*sla.Micro)
		check("success", m, first*sla.Micro/100, sla.Micro)
		check("failure", m, sla.Micro-first*sla.Micro/100, sla.Micro)
	}
	// 110 % is no ratio.
	r.send(datum{"web", "a", "200", 960, 110, 0})
	r.to(1080)
	if f := r.minutes(all["success/0"])[15]; f.Total != 0 || f.Counted != 0 {
		t.Errorf("a ratio of 1.1 was counted: %+v", f)
	}
}

func TestARawRatioIsNeverRoundedToTheBetterSide(t *testing.T) {
	good, err := observe(sla.SLI{Raw: "x"})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := observe(sla.SLI{Raw: "x", RawBad: true})
	if err != nil {
		t.Fatal(err)
	}
	if n, total, no := good([]float64{0.9999999}); n != 999_999 || total != sla.Micro || no != 0 {
		t.Errorf("0.9999999 good is %d of %d (%d are none)", n, total, no)
	}
	if n, total, no := bad([]float64{0.0000001}); n != 999_999 || total != sla.Micro || no != 0 {
		t.Errorf("0.0000001 bad leaves %d of %d (%d are none)", n, total, no)
	}
	if n, total, no := good([]float64{1, 7, 0.5}); n != 1_500_000 || total != 2*sla.Micro || no != 1 {
		t.Errorf("1 and 0.5 are %d of %d (%d are none)", n, total, no)
	}
	if n, total, no := good([]float64{1.0000000000000002, -1e-17}); n != sla.Micro || total != 2*sla.Micro || no != 0 {
		t.Errorf("1 and 0 with the noise of floating point are %d of %d (%d are none)", n, total, no)
	}
	for _, v := range []float64{-0.1, 1.1} {
		if _, total, no := good([]float64{v}); total != 0 || no != 1 {
			t.Errorf("%v was taken for a ratio", v)
		}
	}
}

func TestASliceWithoutDataIsLeftOutAndOneWithoutEventsIsGood(t *testing.T) {
	seen := sla.Figures{Counts: sla.Counts{Expected: 60_000, Counted: 60_000, Timed: 60_000}}
	unseen := sla.Figures{Counts: sla.Counts{Expected: 60_000}}
	target, err := sla.ParseTarget("0.9")
	if err != nil {
		t.Fatal(err)
	}
	judge, ratio := &sla.Slices{Minutes: 5, Target: target}, &sla.Slices{Minutes: 5, Ratio: true}
	if f := sliced([]sla.Figures{seen, seen, seen, unseen, unseen}, judge, true); f.Total != sla.Micro || f.GoodLow != sla.Micro {
		t.Errorf("a slice without events is %+v, want it good", f.Counts)
	}
	if f := sliced([]sla.Figures{seen, seen, seen, unseen, unseen}, ratio, true); f.Total != 0 {
		t.Errorf("a slice without events has the ratio %+v", f.Counts)
	}
	if f := sliced([]sla.Figures{seen, seen, unseen, unseen, unseen}, judge, true); f.Total != 0 || f.Expected != 60_000 || f.Timed != 0 {
		t.Errorf("a slice of which less than half was seen is %+v, want it left out", f.Counts)
	}
	// An interval of good events, and a gap that the slice holds.
	some := seen
	some.GoodLow, some.GoodHigh, some.Total = 80, 95, 100
	if f := sliced([]sla.Figures{seen, seen, seen, seen, some}, judge, true); f.GoodLow != 0 || f.GoodHigh != sla.Micro {
		t.Errorf("between 80 %% and 95 %% is %+v, want it between bad and good", f.Counts)
	}
	gap := seen
	gap.Gaps = []sla.Gap{{From: 102, To: 104, Total: 50}, {From: 90, To: 104, Total: 1_000}}
	if f := sliced([]sla.Figures{seen, seen, seen, some, gap}, ratio, true); f.GoodHigh != 95*sla.Micro/150 {
		t.Errorf("with a gap of 50 bad events in it the slice is %+v, want 95 of 150", f.Counts)
	}
	// One that began in the last minute, or the last but two.
	none := sla.Figures{}
	if f := sliced([]sla.Figures{none, none, none, none, some}, judge, true); f.Total != 0 {
		t.Errorf("a slice that was expected in its last minute alone is judged: %+v", f.Counts)
	}
	if f := sliced([]sla.Figures{none, none, some, some, some}, judge, true); f.Total != sla.Micro {
		t.Errorf("a slice that was expected in three of its five minutes is %+v", f.Counts)
	}
	if minutes := sliceStart(-1, 5); minutes != -5 {
		t.Errorf("minute -1 is in the slice that begins with %d", minutes)
	}
}

// What came late before a stop is derived again from raw samples after it. An
// expression has none: its minutes were revised to nothing.
func TestR08_MinutesOfAnExpressionOutliveALateSampleAndARestart(t *testing.T) {
	mean := webObjective("web", false)
	mean.SLO, mean.SLI.Total = "mean", "avg(rate(web_total[5m]))"
	mean.ID = sla.ObjectiveID("", "", mean.SLO, mean.Name, nil, mean.SLI)
	r := newRig(t, mean, webObjective("web", false))
	for s := 0.0; s <= 900; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	before := r.minutes(mean)
	if before[8].Total == 0 {
		t.Fatalf("minute 8 of the expression is %+v", before[8])
	}
	r.send(traffic("web", "b", 485)...)
	r.restart()
	for s := 905.0; s <= 1200; s += 5 {
		r.to(s)
	}
	after := r.minutes(mean)
	for m := 3; m < 12; m++ {
		if before[m].Counts != after[m].Counts {
			t.Errorf("minute %d was %+v, and is %+v", m, before[m].Counts, after[m].Counts)
		}
	}
}

func TestTheWindowOfAnAlertPolicyIsWatched(t *testing.T) {
	policy := `  alertPolicies:
    - kind: AlertPolicy
      metadata: {name: quick}
      spec: {conditions: [{kind: AlertCondition, metadata: {name: c}, spec: {severity: page, condition: {threshold: 3, lookbackWindow: 7m}}}]}
`
	with := func(p string) string {
		return strings.Replace(document("web", "Occurrences", "    - {displayName: a, target: 0.9}\n"), "  objectives:\n", p+"  objectives:\n", 1)
	}
	all := evaluated(t, with(policy))
	r := newRig(t, objectsOf(all)...)
	w := &web{rig: r, instance: "a"}
	burning := func() bool {
		return len(r.ev.Burning(r.now, func(sla.ID) bool { return false })) > 0
	}
	const lookback = 7 * 60
	fired := -1.0
	for s := 0.0; s < 1500; s += 15 {
		errors := 0.0
		if s >= 600 {
			errors = 0.5
		}
		w.scrape(s, errors)
		if s == 660 {
			r.restart()
		}
		r.to(s + 1)
		if burning() && fired < 0 {
			fired = s
		}
	}
	// Half of all fail: after 60 % of the window the burn is above 3 of 10.
	if fired < 600+0.5*lookback || fired > 600+0.75*lookback {
		t.Errorf("it burned from %v s on, want a bit more than %v s", fired, 600+0.6*lookback)
	}
	for _, st := range r.ev.States(r.now) {
		if got := st.Windows[7*60*1e9]; got.Total.Sign() <= 0 || len(st.Windows) != len(AlertWindows())+1 {
			t.Errorf("the windows are %v", st.Windows)
		}
	}
	// Without the policy the tiers apply again, at once.
	if err := r.ev.SetObjectives(t.Context(), objectsOf(evaluated(t, with(""))), r.now); err != nil {
		t.Fatal(err)
	}
	for _, st := range r.ev.States(r.now) {
		if len(st.Windows) != len(AlertWindows()) {
			t.Errorf("without its policy the objective has the windows %v", st.Windows)
		}
	}
}

// Whatever comes late, is cut off or stops: the book holds of each slice and
// composite what follows from the minutes of its parts in it, and the windows
// hold what is in the book.
func TestDerivedMinutesFollowFromThoseOfTheirParts(t *testing.T) {
	documents := []string{
		document("slices", "Timeslices", "    - {displayName: five, target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}\n    - {displayName: ten, target: 0.9, timeSliceTarget: 0.8, timeSliceWindow: 10m}\n"),
		document("ratios", "RatioTimeslices", "    - {displayName: two, target: 0.95, timeSliceWindow: 2m}\n"),
		strings.Replace(document("both", "Timeslices", "    - {displayName: a, target: 0.9, timeSliceTarget: 0.9, timeSliceWindow: 5m}\n    - {displayName: b, target: 0.9, timeSliceTarget: 0.7, timeSliceWindow: 5m, compositeWeight: 2}\n"),
			"{name: both}", `{name: both, annotations: {nines.internal/composite: all-of, nines.internal/composite-target: "0.9"}}`, 1),
		composite("mean", "weighted", "0.9"), composite("either", "any-of", "0.99"),
	}
	all := evaluated(t, documents...)
	SameWorlds(t, "5")
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, objectsOf(all)...)
		sources := []*web{{rig: r, instance: "a"}, {rig: r, instance: "b"}}
		type scrape struct{ seconds, errors float64 }
		held := make([][]scrape, len(sources))
		cut := make([]bool, len(sources))
		for s := 0.0; s < 2700; s += 15 {
			for i, w := range sources {
				if rapid.IntRange(0, 40).Draw(rt, "cut") == 0 {
					cut[i] = !cut[i]
				}
				errors := rapid.SampledFrom([]float64{0, 0, 0, 0.1, 0.5, 1}).Draw(rt, "errors")
				if cut[i] {
					held[i] = append(held[i], scrape{s, errors})
					continue
				}
				if rapid.Bool().Draw(rt, "kept") {
					for _, h := range held[i] { // what was held comes late
						w.scrape(h.seconds, h.errors)
					}
				}
				held[i] = nil
				w.scrape(s, errors)
			}
			if rapid.IntRange(0, 60).Draw(rt, "stop") == 0 {
				r.restart()
			}
			r.to(s + 1)
		}
		for s := 2705.0; s < 3600; s += 5 {
			r.to(s)
		}
		for name, o := range all {
			if len(o.SLI.Parts) == 0 {
				continue
			}
			got := r.minutes(o)
			parts := make([]map[int]sla.Figures, len(o.SLI.Parts))
			for i, p := range o.SLI.Parts {
				parts[i] = r.minutes(sla.Objective{ID: p.Objective})
			}
			if len(got) < 45 {
				rt.Fatalf("%s: %d minutes are booked", name, len(got))
			}
			for m, f := range got {
				want := sla.Figures{}
				if o.SLI.Combine == "" {
					length := sla.Minute(o.SLI.Slices.Minutes)
					at := minute0 + sla.Minute(m)
					var slice []sla.Figures
					for i := sliceStart(at, length); i <= at; i++ {
						slice = append(slice, parts[0][int(i-minute0)])
					}
					want = sliced(slice, o.SLI.Slices, sla.Minute(len(slice)) == length)
				} else {
					length := sla.Minute(1)
					if o.SLI.Slices != nil {
						length = sla.Minute(o.SLI.Slices.Minutes)
					}
					at := minute0 + sla.Minute(m)
					from := at
					if (at+1)%length == 0 {
						from = at - length + 1
					}
					var now []sla.Figures
					for i := range parts {
						f := parts[i][m]
						if f.Timed, f.Counted, f.Expected = 0, 0, 0; from == at {
							f = parts[i][m]
						}
						for k := from; from < at && k <= at; k++ {
							g := parts[i][int(k-minute0)]
							f.Timed, f.Counted, f.Expected = f.Timed+g.Timed, f.Counted+g.Timed, f.Expected+g.Expected
						}
						now = append(now, f)
					}
					want = combined(now, o.SLI)
				}
				if f.Counts != want.Counts || f.Flags != want.Flags {
					rt.Fatalf("%s: minute %d is %+v, from its parts follows %+v", name, m, f, want)
				}
			}
		}
		before := r.ev.States(r.now)
		r.restart()
		after := r.ev.States(r.now)
		for i := range before {
			if before[i].Period != after[i].Period && before[i].Period.GoodHigh.Cmp(after[i].Period.GoodHigh) != 0 {
				rt.Fatalf("the period of %s is %+v, and after a restart %+v", before[i].Objective.SLO, before[i].Period, after[i].Period)
			}
		}
	})
}

// A firing alert of an objective that an expression makes never resolved, and
// nothing told that its values had stopped: it has no samples to be heard by.
func TestPain08_ValuesThatStopAreToldAndValuesThatComeAreHeard(t *testing.T) {
	const doc = "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: depth}\nspec:\n  service: shop\n  budgetingMethod: %s\n  timeWindow: [{duration: 7d, isRolling: true}]\n" +
		"  indicator: {metadata: {name: x}, spec: {thresholdMetric: {metricSource: {spec: {query: 'max(last_over_time(web_total[1m]))'}}}}}\n  objectives: [{target: 0.9, op: lte, value: 20%s}]\n"
	for method, rest := range map[string]string{"Occurrences": "", "Timeslices": ", timeSliceTarget: 0.9, timeSliceWindow: 1m"} {
		r := newRig(t, objectsOf(evaluated(t, fmt.Sprintf(doc, method, rest)))...)
		unseen := func() (bool, float64) {
			all := r.ev.States(r.now)
			if len(all) != 1 {
				t.Fatalf("%d states", len(all))
			}
			return all[0].Unseen, r.now.Sub(all[0].Newest).Seconds()
		}
		for s := 0.0; s <= 900; s += 15 {
			r.send(datum{"web", "a", "200", s, 10, 0})
			r.to(s + 1)
		}
		if gone, age := unseen(); gone || age > 180 {
			t.Errorf("%s: with values each minute it is unseen: %t, its newest value %v s old", method, gone, age)
		}
		r.restart()
		if _, age := unseen(); age > 180 {
			t.Errorf("%s: after a restart its newest value is %v s old", method, age)
		}
		for s := 905.0; s <= 1800; s += 5 {
			r.to(s)
		}
		if gone, age := unseen(); !gone || age < 600 {
			t.Errorf("%s: after a quarter of an hour without values it is unseen: %t, its newest value %v s old", method, gone, age)
		}
	}
}

// What a part says at the end of a slice is about the whole of it: that it was
// seen in the last minute alone, or everywhere but there, makes no difference.
func TestACompositeOfSlicesAsksWhetherTheWholeSliceWasSeen(t *testing.T) {
	target, err := sla.ParseTarget("0.9")
	if err != nil {
		t.Fatal(err)
	}
	slices := &sla.Slices{Minutes: 5, Target: target}
	minutes := func(seen func(int) bool) (out []sla.Figures) {
		var events []sla.Figures
		for i := range 5 {
			f := sla.Figures{Counts: sla.Counts{Expected: 60_000}}
			if seen(i) {
				f.Counts = sla.Counts{Expected: 60_000, Counted: 60_000, Timed: 60_000, GoodLow: 10, GoodHigh: 10, Total: 10}
			}
			events = append(events, f)
			out = append(out, sliced(events, slices, i == 4))
		}
		return out
	}
	always := minutes(func(int) bool { return true })
	for name, c := range map[string]struct {
		part  []sla.Figures
		total int64
	}{
		"in the last minute alone":       {minutes(func(i int) bool { return i == 4 }), 0},
		"everywhere but the last minute": {minutes(func(i int) bool { return i < 4 }), sla.Micro},
	} {
		for _, how := range []string{sla.Weighted, sla.AllOf} {
			sli := sla.SLI{Combine: how, Slices: slices, Parts: []sla.Part{{Weight: 1, Target: target}, {Weight: 1, Target: target}}}
			f := combined([]sla.Figures{whole(always), whole(c.part)}, sli)
			if f.Total != c.total || f.GoodHigh != c.total || f.Expected != 60_000 || (f.Counted == 0) != (c.total == 0) {
				t.Errorf("%s, seen %s: %+v, want %d", how, name, f.Counts, c.total)
			}
		}
	}
}

func TestRarePartsLeaveTheMinutesOutThatTheyDoNotDecide(t *testing.T) {
	target, err := sla.ParseTarget("0.9")
	if err != nil {
		t.Fatal(err)
	}
	part := func(good, total int64) sla.Figures {
		return sla.Figures{Counts: sla.Counts{Expected: 60_000, Counted: 60_000, Timed: 60_000, GoodLow: good, GoodHigh: good, Total: total}, IntervalMillis: 120_000}
	}
	for _, c := range []struct {
		how  string
		a, b sla.Figures
		want int64 // -1: left out
	}{
		{sla.AllOf, part(10, 10), part(0, 0), -1}, {sla.AllOf, part(0, 0), part(0, 10), 0},
		{sla.AnyOf, part(10, 10), part(0, 0), sla.Micro}, {sla.AnyOf, part(0, 0), part(0, 10), -1},
		{sla.Weighted, part(10, 10), part(0, 0), -1}, {sla.Weighted, part(10, 10), part(0, 10), sla.Micro / 2},
	} {
		f := combined([]sla.Figures{c.a, c.b}, sla.SLI{Combine: c.how, Parts: []sla.Part{{Weight: weight, Target: target}, {Weight: weight, Target: target}}})
		if got := f.GoodHigh; c.want < 0 && (f.Total != 0 || f.Counted != 0) || c.want >= 0 && (got != c.want || f.Total != sla.Micro) {
			t.Errorf("%s of %+v and %+v is %+v, want %d", c.how, c.a.Counts, c.b.Counts, f.Counts, c.want)
		}
	}
}

const weight = 1_000_000

// One expression that fails used to stop the minutes of all objectives.
func TestAnExpressionThatFailsIsItsOwnTrouble(t *testing.T) {
	doc := "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: odd}\nspec:\n  service: shop\n  budgetingMethod: Occurrences\n  timeWindow: [{duration: 7d, isRolling: true}]\n" +
		"  indicator: {metadata: {name: x}, spec: {thresholdMetric: {metricSource: {spec: {query: 'last_over_time(web_total[5m]) / on(nothing) last_over_time(web_total[5m])'}}}}}\n  objectives: [{target: 0.9, op: lte, value: 20}]\n"
	odd := evaluated(t, doc)["odd/0"]
	well := webObjective("web", false)
	r := newRig(t, odd, well)
	for s := 0.0; s <= 1800; s += 15 {
		r.send(traffic("web", "a", s)...)
		r.to(s + 1)
	}
	if got := r.minutes(well); len(got) < 28 || got[20].Total == 0 {
		t.Errorf("%d minutes of the other objective are booked, minute 20 is %+v", len(got), got[20])
	}
	got := r.minutes(odd)
	if len(got) < 15 || len(got) > 22 || got[5].Total != 0 || got[5].Counted != 0 || got[5].Expected != 60_000 {
		t.Errorf("%d of its own minutes are booked, minute 5 is %+v; want those that cannot be known any more, not counted", len(got), got[5])
	}
	if why := r.ev.Failed()[odd.ID]; !strings.Contains(why, "many-to-many") && !strings.Contains(why, "duplicate") {
		t.Errorf("it says %q", why)
	}
}
