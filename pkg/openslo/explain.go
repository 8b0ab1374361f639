package openslo

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// Asked is what an explanation depends on beside the objective.
type Asked struct {
	// Now tells which month a calendar window is of.
	Now time.Time
	// PerDay is how many events come in a day, nil or 0 where that is not known.
	// It is not looked at where time itself is counted: observations, slices.
	PerDay *big.Rat
	// Parts are the objectives that others are made of, as far as they are known:
	// of time slices, those whose events are sliced.
	Parts map[sla.ID]sla.Objective
}

// Parts returns the objectives that feed others and are not shown, for Asked.
func Parts(all []sla.Objective) map[sla.ID]sla.Objective {
	out := map[sla.ID]sla.Objective{}
	for _, o := range all {
		if o.Inner {
			out[o.ID] = o
		}
	}
	return out
}

// Explanation is an objective in words, with the figures behind them.
type Explanation struct {
	ObjectiveID sla.ID     `json:"objective_id"`
	Namespace   string     `json:"namespace"`
	Service     string     `json:"service"`
	SLO         string     `json:"slo"`
	Objective   string     `json:"objective"`
	Title       string     `json:"title"`
	Target      sla.Target `json:"target"`
	Window      string     `json:"window"`
	Unit        string     `json:"unit"` // what is counted, in the plural
	// PeriodSeconds is the length of the window, of a calendar one that which
	// holds Asked.Now.
	PeriodSeconds int64           `json:"period_seconds"`
	Budget        ExplainedBudget `json:"budget"`
	Tiers         []ExplainedTier `json:"tiers"`
	Words         []Passage       `json:"words"`
}

// ExplainedBudget is what may fail in the period.
type ExplainedBudget struct {
	Share   json.RawMessage `json:"share"`   // 1 − target
	Seconds json.RawMessage `json:"seconds"` // of total outage, with even traffic
	PerDay  json.RawMessage `json:"per_day"` // events; null where not known
	Allowed json.RawMessage `json:"allowed"` // events that may be bad; null where not known
}

// ExplainedTier says when a burn-rate tier, or an alert policy of the SLO's own,
// fires.
type ExplainedTier struct {
	Tier     string          `json:"tier"`
	Severity string          `json:"severity"`
	Long     string          `json:"long_window"`
	Short    string          `json:"short_window"` // of a policy the same as the long one
	Burn     json.RawMessage `json:"burn"`         // it fires above
	Never    string          `json:"never"`        // why it cannot fire at all; empty where it can
	// BadNeeded is how many bad events in the long window it takes; null where
	// the traffic is not known, the tier never fires, or ratios are counted.
	BadNeeded json.RawMessage `json:"bad_needed"`
	Detect    []Detection     `json:"detect"`
}

// Detection is after how long a steady error ratio makes a tier fire.
type Detection struct {
	ErrorRatio json.RawMessage `json:"error_ratio"`
	Burn       json.RawMessage `json:"burn"`
	Seconds    json.RawMessage `json:"seconds"` // null: never
}

// Passage is one heading with what is to be said under it.
type Passage struct {
	Heading string     `json:"heading"`
	Lines   []Sentence `json:"lines"`
	Table   [][]string `json:"-"` // its first row is the head; Tiers has the figures
}

// Sentence is a line of text, and the query that it speaks of, if any.
type Sentence struct {
	Text  string `json:"text"`
	Query string `json:"query,omitempty"`
}

// explainer gathers the words of one objective.
type explainer struct {
	o      sla.Objective
	period time.Duration
	perDay *big.Rat // nil where not known
	unit   string
	parts  map[sla.ID]sla.Objective
	// step is how long one observation or slice takes, 0 where events count at
	// once; whole tells that each is good or bad.
	step  time.Duration
	whole bool
	// each tells that each series gives its own observations.
	each bool
}

// Explain puts an objective into words: what counts as good, what its budget is,
// which alert fires after how long at which error ratio, what happens when
// nothing is seen, and what is not covered. Figures are exact, and rounded so
// that nothing looks better than it is: budgets down, waiting times up. The
// error is that of the objective's window.
func Explain(o sla.Objective, asked Asked) (Explanation, error) {
	start, end, err := o.Window.Bounds(sla.MinuteOf(asked.Now))
	if err != nil {
		return Explanation{}, err
	}
	x := explainer{o: o, period: end.Time().Sub(start.Time()), unit: o.SLI.Unit(), perDay: asked.PerDay, parts: asked.Parts}
	switch sli := o.SLI; {
	case sli.Slices != nil:
		x.step, x.whole = time.Duration(sli.Slices.Minutes)*time.Minute, !sli.Slices.Ratio
	case sli.Raw != "", sli.Value != "":
		x.step, x.each = time.Minute, true
	case len(sli.Parts) > 0:
		x.step, x.whole = time.Minute, sli.Combine != sla.Weighted
	}
	if x.step > 0 {
		x.perDay = big.NewRat(int64(24*time.Hour), int64(x.step))
	} else if x.perDay != nil && x.perDay.Sign() <= 0 {
		x.perDay = nil
	}
	out := Explanation{
		ObjectiveID: o.ID, Namespace: o.Namespace, Service: o.Service, SLO: o.SLO, Objective: o.Name, Title: o.Title,
		Target: o.Target, Window: o.Window.String(), Unit: x.unit, PeriodSeconds: int64(x.period / time.Second),
	}
	if out.Title == "" {
		out.Title = o.SLO
	}
	var budget, alerts Passage
	budget, out.Budget = x.budget()
	alerts, out.Tiers = x.alerts()
	out.Words = []Passage{x.good(), budget, alerts, x.absent()}
	if p := x.groups(); len(p.Lines) > 0 {
		out.Words = append(out.Words, p)
	}
	out.Words = append(out.Words, x.notCovered())
	return out, nil
}

// Promise is the objective in one sentence.
func (e Explanation) Promise() string {
	window := e.Window
	if strings.Contains(window, "calendar") {
		window = "each period (" + window + ")"
	}
	return fmt.Sprintf("%s %% of %s are to be good over %s.", e.Target.Percent(), e.Unit, window)
}

// say adds a sentence.
func (p *Passage) say(format string, args ...any) {
	p.Lines = append(p.Lines, Sentence{Text: fmt.Sprintf(format, args...)})
}

// show adds a sentence with the query that it speaks of.
func (p *Passage) show(query, format string, args ...any) {
	p.Lines = append(p.Lines, Sentence{fmt.Sprintf(format, args...), query})
}

func (x explainer) good() Passage {
	p := Passage{Heading: "What counts as good"}
	x.counted(&p, x.o.SLI)
	s := x.o.SLI.Slices
	if s == nil {
		return p
	}
	p.say("Time is cut into slices of %s, which begin at midnight UTC.", sla.Duration(time.Duration(s.Minutes)*time.Minute))
	switch {
	case x.o.SLI.Combine != "":
	case s.Ratio:
		p.say("Each slice counts once, with its own ratio: a slice with few events weighs as much as one with many.")
	default:
		p.say("A slice is good where at least %s %% of what is counted in it is good, else all of it is bad.", s.Target.Percent())
	}
	return p
}

// counted tells what an indicator counts.
func (x explainer) counted(p *Passage, sli sla.SLI) {
	switch {
	case sli.Raw != "":
		kind := "good"
		if sli.RawBad {
			kind = "bad"
		}
		p.show(sli.Raw, "Once a minute a ratio is read from each series of an expression. It was computed elsewhere, and is the share of what was %s:", kind)
		p.say("Each minute weighs the same, however much traffic was in it.")
	case sli.Value != "":
		word, ok := map[string]string{"lt": "below", "lte": "at most", "gt": "above", "gte": "at least"}[sli.Op]
		if !ok {
			word = sli.Op
		}
		p.show(sli.Value, "Once a minute a value is read from each series of an expression. It is a good observation where it is %s %s, else a bad one:", word, sli.Limit)
	case sli.Combine != "":
		x.combined(p, sli)
	case len(sli.Parts) > 0:
		if part, ok := x.parts[sli.Parts[0].Objective]; ok {
			x.counted(p, part.SLI)
			return
		}
		p.say("What is cut into slices is booked as an objective of its own, %s.", sli.Parts[0].Objective)
	default:
		x.events(p, sli)
	}
}

// combined tells of a composite objective.
func (x explainer) combined(p *Passage, sli sla.SLI) {
	var all int64
	for _, part := range sli.Parts {
		all += part.Weight
	}
	unit := "minute"
	if sli.Slices != nil {
		unit = "slice"
	}
	p.say("It is put together from %d objectives, %s by %s.", len(sli.Parts), unit, unit)
	switch sli.Combine {
	case sla.AllOf:
		p.say("A %s is good where every one of them that has events reaches its own target in it:", unit)
	case sla.AnyOf:
		p.say("A %s is good where at least one of them reaches its own target in it:", unit)
	default:
		p.say("A %s counts with the mean of their ratios, by weight; one without events has no say:", unit)
	}
	for _, part := range sli.Parts {
		if sli.Combine == sla.AllOf || sli.Combine == sla.AnyOf {
			p.say("- %s, target %s %%", part.Name, part.Target.Percent())
			continue
		}
		share := sla.Percent(sla.Ratio(sla.NewInt128(part.Weight), sla.NewInt128(all)), 2)
		p.say("- %s, weight %s, which is %s", part.Name, decimals(big.NewRat(part.Weight, 1_000_000), 6), share)
	}
}

// events tells of the two sides of a ratio.
func (x explainer) events(p *Passage, sli sla.SLI) {
	ind, err := ParseSLI(sli)
	if err != nil { // never of a document that was loaded
		ind = Indicator{Part: Query{Expr: sli.Good + sli.Bad}, Bad: sli.Bad != "", Total: Query{Expr: sli.Total}}
	}
	kind, rest := "good", "bad"
	if ind.Bad {
		kind, rest = rest, kind
	}
	if ind.IsSampled() {
		p.show(ind.Total.Expr, "At the end of each minute the events per second are read from an expression:")
		p.show(ind.Part.Expr, "The %s ones among them, in the same way:", kind)
		p.say("All others are %s. Such minutes are marked as sampled: what happened between two looks is not counted.", rest)
		return
	}
	each := func(q Query) string {
		switch q.Kind {
		case Bucket, NativeFraction:
			edge := strconv.FormatFloat(q.Threshold, 'g', -1, 64)
			from := "up to " + edge
			if q.FromZero {
				from = "from 0 to " + edge
			}
			return "each observation " + from + " that this histogram counts"
		case NativeCount:
			return "each observation that this histogram counts"
		}
		return "each increase by one of"
	}
	p.show(ind.Total.Expr, "An event is %s:", each(ind.Total))
	if isHeartbeat(sli) {
		if x.base().AbsentBad {
			p.say("Each of them is good: what is bad is a minute without one, see below.")
		} else {
			p.say("Each of them is good: nothing that happens can be bad.")
		}
		return
	}
	p.show(ind.Part.Expr, "It is %s where it is %s:", kind, each(ind.Part))
	p.say("All other events are %s. Increases are subtracted as integers and summed over all series; nothing is extrapolated.", rest)
}

// isHeartbeat reports whether every event is good, so that only silence is bad.
func isHeartbeat(sli sla.SLI) bool { return sli.Good != "" && sli.Good == sli.Total }

func (x explainer) budget() (Passage, ExplainedBudget) {
	p := Passage{Heading: "The budget"}
	t := x.o.Target
	share := t.BudgetRat()
	outage := new(big.Rat).Mul(share, big.NewRat(int64(x.period), int64(time.Second)))
	b := ExplainedBudget{Share: json.RawMessage(t.Budget()), Seconds: sla.JSON(outage), PerDay: json.RawMessage("null"), Allowed: json.RawMessage("null")}
	length := exactDays(x.period)
	if x.o.Window.Rolling == 0 {
		p.say("The window follows the calendar. The one that runs now has %s, and the figures are for that.", length)
	}
	if t.IsAll() {
		p.say("A target of 100 %% leaves no budget: one bad event misses it for the whole period, and there is no burn rate.")
		return p, b
	}
	percent := decimals(new(big.Rat).Mul(share, big.NewRat(100, 1)), 10)
	line := fmt.Sprintf("%s %% of %s may be bad", percent, x.unit)
	if inverse := new(big.Rat).Inv(share); inverse.IsInt() {
		line += ", which is 1 of " + grouped(inverse.Num())
	}
	p.say("%s.", line)
	if x.step > 0 {
		p.say("As time that is %s in %s.", sla.Span(outage, false), length)
	} else {
		p.say("As time that is %s of total outage in %s, if traffic is even.", sla.Span(outage, false), length)
	}
	if x.perDay == nil {
		return p, b
	}
	days := big.NewRat(int64(x.period), int64(24*time.Hour))
	all := new(big.Rat).Mul(x.perDay, days)
	allowed := new(big.Rat).Mul(all, share)
	if x.each {
		p.say("In %s each series gives %s observations: of one series alone, %s of them may be bad.", length, grouped(floor(all)), grouped(floor(allowed)))
		return p, b
	}
	b.PerDay, b.Allowed = sla.JSON(x.perDay), sla.JSON(allowed)
	if x.step > 0 {
		p.say("In %s there are %s %s: %s of them may be bad.", length, grouped(floor(all)), x.unit, grouped(floor(allowed)))
	} else {
		p.say("With %s events a day, %s come in %s, and %s of them may be bad.", grouped(floor(x.perDay)), grouped(floor(all)), length, grouped(floor(allowed)))
	}
	return p, b
}

// ratios are the error ratios of the table, the greatest first: powers of ten,
// and multiples of what the budget allows.
func (x explainer) ratios() []*big.Rat {
	one := big.NewRat(1, 1)
	out := []*big.Rat{one, big.NewRat(1, 10), big.NewRat(1, 100)}
	for _, k := range []int64{10, 2, 1} {
		if r := new(big.Rat).Mul(x.o.Target.BudgetRat(), big.NewRat(k, 1)); r.Cmp(one) < 0 {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *big.Rat) int { return b.Cmp(a) })
	return slices.CompactFunc(out, func(a, b *big.Rat) bool { return a.Cmp(b) == 0 })
}

// alarm is a tier or an alert policy.
type alarm struct {
	name, severity string
	long, short    time.Duration
	burn           *big.Rat // it fires above
	atLeast        bool     // or at
	after          time.Duration
	own            bool
	never          string // why it cannot fire at all
	detect         func(sla.Pace) *big.Rat
}

// alarms returns what watches the objective: its own policies, or the tiers.
func (x explainer) alarms() (out []alarm) {
	for _, p := range x.o.Policies {
		a := alarm{name: p.Name, severity: p.Severity, long: p.Lookback, short: p.Lookback, atLeast: p.AtLeast, after: p.After, own: true}
		a.detect = func(pace sla.Pace) *big.Rat { return p.Detect(pace, x.o.Target) }
		if a.burn, _ = p.Burn(); a.burn == nil { // never of a document that was loaded
			continue
		}
		if p.Quiet {
			a.never = "alertWhenBreaching is false"
		}
		out = append(out, a)
	}
	if len(x.o.Policies) == 0 {
		for _, t := range sla.Tiers {
			a := alarm{name: t.Name, severity: t.Severity, long: t.Long, short: t.Short, burn: t.Threshold(x.period)}
			a.detect = func(pace sla.Pace) *big.Rat { return t.Detect(pace, x.o.Target, x.period) }
			if t.Long > x.period {
				a.never = fmt.Sprintf("its long window of %s is longer than the period of %s", sla.Duration(t.Long), exactDays(x.period))
			}
			out = append(out, a)
		}
	}
	outage := x.burn(big.NewRat(1, 1))
	for i := range out {
		a := &out[i]
		switch c := outage.Cmp(a.burn); {
		case a.never != "":
		case c < 0 || c == 0 && !a.atLeast:
			a.never = fmt.Sprintf("a total outage burns at %s with this target, and it fires %s %s", decimals(outage, 3), a.beyond(), decimals(a.burn, 3))
		case a.detect(x.pace(big.NewRat(1, 1))) == nil:
			a.never = fmt.Sprintf("its window of %s is too short for %s", sla.Duration(a.long), x.unit)
		}
	}
	return out
}

func (a alarm) beyond() string {
	if a.atLeast {
		return "from"
	}
	return "above"
}

func (a alarm) words() string {
	if a.own {
		return "Alert policy " + a.name
	}
	return "The " + a.name + " tier"
}

// pace is a steady error ratio as the objective sees it.
func (x explainer) pace(ratio *big.Rat) sla.Pace {
	return sla.Pace{Ratio: ratio, Step: x.step, Whole: x.whole}
}

func (x explainer) alerts() (Passage, []ExplainedTier) {
	p := Passage{Heading: "Which alert fires after how long"}
	target, tiers := x.o.Target, []ExplainedTier{}
	if target.IsAll() {
		p.say("None: without a budget there is no burn rate. The verdict and the report tell of bad events.")
		return p, tiers
	}
	ratios := x.ratios()
	head := []string{"error ratio", "burn"}
	fires, long, short := []string{"fires above a burn of", ""}, []string{"for this long window", ""}, []string{"and this short one", ""}
	own := len(x.o.Policies) > 0
	if own {
		fires[0], long[0], short[0] = "fires for a burn", "over", "that stays for"
	}
	rows := make([][]string, len(ratios))
	for i, r := range ratios {
		rows[i] = []string{decimals(new(big.Rat).Mul(r, big.NewRat(100, 1)), 10) + " %", decimals(x.burn(r), 3)}
	}
	var quiet *big.Rat // the greatest ratio at which nothing fires
	var quietBelow bool
	var never, needed []string
	var lone, brief bool // one bad event pages; a slice is longer than a short window
	for _, a := range x.alarms() {
		e := ExplainedTier{
			Tier: a.name, Severity: a.severity, Long: sla.WindowName(a.long), Short: sla.WindowName(a.short),
			Burn: sla.JSON(a.burn), BadNeeded: json.RawMessage("null"), Detect: []Detection{}, Never: a.never,
		}
		if a.never != "" {
			never = append(never, fmt.Sprintf("%s never fires: %s.", a.words(), a.never))
		} else {
			least := new(big.Rat).Mul(a.burn, target.BudgetRat())
			if quiet == nil || least.Cmp(quiet) < 0 {
				quiet, quietBelow = least, a.atLeast
			}
			if bad := x.badNeeded(a, least); bad != nil {
				e.BadNeeded = json.RawMessage(bad.String())
				lone = lone || a.severity == "page" && bad.Cmp(big.NewInt(1)) == 0
				needed = append(needed, fmt.Sprintf("%s in %s for %s", grouped(bad), sla.Duration(a.long), a.name))
			}
		}
		brief = brief || e.Never == "" && x.step > a.short
		head = append(head, a.name+": "+a.severity)
		if own {
			fires, long = append(fires, a.beyond()+" "+decimals(a.burn, 3)), append(long, sla.Duration(a.long))
			short = append(short, sla.Duration(a.after))
		} else {
			fires = append(fires, decimals(a.burn, 3))
			long, short = append(long, sla.Duration(a.long)), append(short, sla.Duration(a.short))
		}
		for i, r := range ratios {
			var after *big.Rat
			if a.never == "" {
				after = a.detect(x.pace(r))
			}
			e.Detect = append(e.Detect, Detection{sla.JSON(r), sla.JSON(x.burn(r)), sla.JSON(after)})
			cell := "never"
			if after != nil {
				cell = sla.Span(after, true)
			}
			rows[i] = append(rows[i], cell)
		}
		tiers = append(tiers, e)
	}
	p.Table = append(append([][]string{head}, rows...), fires, long, short)
	even := "traffic is even"
	if x.whole {
		even = "bad ones come at even distances"
	}
	p.say("The error ratio goes up at once from none and stays, and %s. The delay of delivery comes on top.", even)
	if own {
		p.say("These are the SLO's own alert policies, in the place of the four tiers.")
	}
	if x.o.Window.Rolling == 0 {
		p.say("The windows of alerts are rolling: they do not begin anew with the calendar.")
	}
	for _, line := range never {
		p.say("%s", line)
	}
	if len(needed) > 0 && x.whole {
		p.say("Bad ones make an alert fire from this number on: %s.", strings.Join(needed, ", "))
	} else if len(needed) > 0 {
		p.say("At this traffic bad events make an alert fire from this number on: %s.", strings.Join(needed, ", "))
		if lone {
			p.say("One bad event pages: there is no minimum of events. A lower target, or an indicator with more events, makes it calmer.")
		}
	}
	if brief {
		p.say("A window that is shorter than a slice sees one only just after its end: such an alert fires late and resolves early.")
	}
	if quiet != nil && !x.whole {
		percent := decimals(quiet.Mul(quiet, big.NewRat(100, 1)), 6)
		if quietBelow {
			p.say("A steady error ratio below %s %% fires nothing.", percent)
		} else {
			p.say("A steady error ratio of %s %% or less fires nothing.", percent)
		}
	}
	return p, tiers
}

// badNeeded is how many bad ones in the window make an alarm fire that wants
// this share of them, nil where that is not known.
func (x explainer) badNeeded(a alarm, share *big.Rat) *big.Int {
	if x.perDay == nil || x.step > 0 && !x.whole {
		return nil
	}
	n := new(big.Rat).Mul(share, x.perDay)
	n.Mul(n, big.NewRat(int64(a.long), int64(24*time.Hour)))
	bad := floor(n)
	if !a.atLeast || !n.IsInt() || bad.Sign() == 0 {
		bad.Add(bad, big.NewInt(1))
	}
	return bad
}

// burn returns ratio ÷ (1 − target).
func (x explainer) burn(ratio *big.Rat) *big.Rat {
	return new(big.Rat).Quo(ratio, x.o.Target.BudgetRat())
}

// base is the objective whose events are counted: of time slices, what they
// are cut from, where that is known.
func (x explainer) base() sla.Objective {
	if sli := x.o.SLI; sli.Combine == "" && len(sli.Parts) == 1 {
		if part, ok := x.parts[sli.Parts[0].Objective]; ok {
			return part
		}
	}
	return x.o
}

func (x explainer) absent() Passage {
	p := Passage{Heading: "When nothing is seen"}
	if x.base().AbsentBad {
		p.say("An expected minute without a sample is one bad event for each source (%s: bad). It is corrected if the sample still arrives.", AnnotationAbsent)
	} else {
		p.say("Time that was expected and not seen is neither good nor bad. It lowers the coverage, which is printed beside every ratio with both bounds.")
	}
	switch sli := x.o.SLI; {
	case sli.Combine != "":
		p.say("Where a part was not seen, the minute or slice is not counted, unless the others decide it already.")
	case sli.Slices != nil && sli.Slices.Ratio:
		p.say("A slice of which less than half was seen is left out, and so is one without events, which has no ratio.")
	case sli.Slices != nil:
		p.say("A slice of which less than half was seen is left out. One that was seen and had no events is good.")
	case x.step == 0:
		p.say("Time that was seen and had no events is no traffic: it spends no budget.")
	}
	switch {
	case x.o.SLI.Combine != "":
		p.say("Its parts tell where they are not seen (ObjectiveUnseen): it has no such alert of its own.")
	case x.o.WatchesUnseen():
		p.say("Where less than half of the last five minutes was seen, ObjectiveUnseen fires (page), and no burn alert resolves meanwhile.")
	default:
		p.say("Nothing tells that nothing is seen: its alert policies say alertWhenNoData: false.")
	}
	if x.o.Shipped {
		p.say("The objective comes with the program: ObjectiveUnseen stays silent where this installation never had such a thing.")
	}
	return p
}

func (x explainer) groups() Passage {
	p := Passage{Heading: "Groups"}
	switch o := x.o; {
	case len(o.GroupBy) > 0:
		p.say("Each combination of values of %s becomes an objective of its own, with its own budget and alerts, up to %s of them. The rest is gathered in one, named %q.",
			strings.Join(o.GroupBy, ", "), grouped(big.NewInt(int64(o.MaxGroups))), sla.OtherGroup+" groups")
	case o.Other:
		p.say("It gathers the groups beyond the bound of its SLO: what is good or bad in one of them is not told apart.")
	case len(o.Group) > 0:
		p.say("It is one group of its SLO: %s. Other groups have budgets and alerts of their own.", o.GroupName())
	}
	return p
}

func (x explainer) notCovered() Passage {
	p := Passage{Heading: "What is not covered"}
	switch sli := x.base().SLI; {
	case sli.Raw != "", sli.Value != "":
		p.say("What happens between two looks, which are a minute apart.")
		p.say("What the expression itself leaves out: its series, its range and its weights are not checked against anything else.")
	case sli.Combine != "":
		p.say("What none of its parts covers.")
	case len(sli.Parts) > 0:
	case isHeartbeat(sli):
		p.say("What goes wrong while these still come.")
	default:
		p.say("What never reaches these series: an event that is lost on its way (name resolution, network, load balancer, a process that is down) is in no figure. A probe or the load balancer in front sees it.")
		if ind, err := ParseSLI(sli); err == nil {
			x.limits(&p, ind)
		}
	}
	if s := x.o.SLI.Slices; s != nil && !s.Ratio {
		p.say("How bad a bad slice was, and what failed in a good one.")
	}
	return p
}

// limits tells what the way of counting leaves open.
func (x explainer) limits(p *Passage, ind Indicator) {
	switch {
	case ind.IsSampled():
		p.say("Events between two looks: sampled minutes cannot decide the credits of an agreement.")
	case ind.Part.Kind == Bucket || ind.Part.Kind == NativeFraction:
		p.say("Where no bucket ends at %s, events of the bucket around it may be on either side: the figures say from where to where, and a verdict between them is inconclusive.",
			strconv.FormatFloat(ind.Part.Threshold, 'g', -1, 64))
	}
}

// exactDays prints a calendar period, which may hold an hour more or less.
func exactDays(d time.Duration) string {
	if h := d % (24 * time.Hour); h != 0 && d > 24*time.Hour {
		return fmt.Sprintf("%d days and %d h", d/(24*time.Hour), h/time.Hour)
	}
	return sla.Duration(d)
}

func floor(r *big.Rat) *big.Int { return new(big.Int).Quo(r.Num(), r.Denom()) }

// decimals prints r, which is not negative, without trailing zeros; what is cut
// off shows as "…".
func decimals(r *big.Rat, most int) string {
	s := sla.FloorDecimal(r, most)
	back, ok := new(big.Rat).SetString(s)
	if strings.Contains(s, ".") {
		s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	if ok && back.Cmp(r) != 0 {
		s += "…"
	}
	return s
}

// grouped prints a number with commas: 30,000,000.
func grouped(n *big.Int) string {
	s := n.String()
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// textWidth is where lines of an explanation break, in characters.
const textWidth = 80

// Text prints the explanation for a terminal.
func (e Explanation) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", e.Title, strings.Repeat("=", len([]rune(e.Title))))
	wrap(&b, e.Promise(), "")
	where := fmt.Sprintf("SLO %s, objective %q", e.SLO, e.Objective)
	if e.Namespace != "" {
		where += ", namespace " + e.Namespace
	}
	wrap(&b, where+", service "+e.Service+", objective_id "+e.ObjectiveID.String(), "")
	for _, p := range e.Words {
		fmt.Fprintf(&b, "\n%s\n", p.Heading)
		table(&b, p.Table)
		for _, l := range p.Lines {
			wrap(&b, l.Text, "  ")
			if l.Query != "" {
				fmt.Fprintf(&b, "      %s\n", strings.ReplaceAll(l.Query, "\n", "\n      "))
			}
		}
	}
	return b.String()
}

// wrap writes a paragraph with an indent; lines of a list hang.
func wrap(b *strings.Builder, text, indent string) {
	line := indent
	hang := indent
	if strings.HasPrefix(text, "- ") {
		hang += "  "
	}
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case len([]rune(line))+1+len([]rune(word)) > textWidth:
			b.WriteString(line + "\n")
			line = hang + word
		default:
			line += " " + word
		}
	}
	b.WriteString(line + "\n")
}

// table writes rows in columns.
func table(b *strings.Builder, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		line := " "
		for i, cell := range row {
			line += " " + cell + strings.Repeat(" ", width[i]-len([]rune(cell))+1)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
