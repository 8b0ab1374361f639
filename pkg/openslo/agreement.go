package openslo

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// Directions of an Agreement.
const (
	Outbound = "outbound" // we promise it to a customer
	Inbound  = "inbound"  // a provider promises it to us
)

// Methods of an Agreement: how a period's figure, a share of 1, comes about.
const (
	// MethodEvents is good ÷ all events of the period. Busy hours weigh more.
	MethodEvents = "events"
	// MethodDowntime is (all minutes − minutes of downtime) ÷ all minutes. A time
	// slice is downtime where its ratio is below timeSliceTarget; slices that
	// together last less than minimumOutage are not.
	MethodDowntime = "downtime"
	// MethodSlices is the mean of the ratios of all time slices that have events,
	// each of which weighs the same: 100 % less the average error rate.
	MethodSlices = "slices"
)

// Policies of an Agreement for time of which nothing was measured. With
// MethodEvents a minute of it weighs as much as the mean of those that were.
const (
	MissingIgnored = "ignored" // it is in no figure
	MissingGood    = "good"    // it counts as time without an error
	MissingBad     = "bad"     // it counts as downtime, or as time where all failed
)

// Agreement is a service level agreement: objectives that one party promises
// another for each period of a calendar, and what is due where they are missed.
//
// Each objective has a figure of its own. Its credit is that of the tier the
// figure is in; what is due for a period is the highest of them, not their sum.
type Agreement struct {
	Namespace, Name, Title, Description string
	Labels                              map[string]string
	Direction                           string // Outbound or Inbound
	Provider, Customer                  string
	Promises                            []Promise  // at least one
	Period                              sla.Window // a calendar month, quarter or year
	Method                              string     // MethodEvents, MethodDowntime or MethodSlices
	// Slice is the length of a time slice in whole minutes that tile a day, and
	// SliceTarget the ratio from which on it is not downtime. Events have neither,
	// slices no target.
	Slice         time.Duration
	SliceTarget   sla.Target
	MissingData   string        // MissingIgnored, MissingGood or MissingBad
	MinCoverage   sla.Target    // below it a period is inconclusive; zero where any will do
	MinimumOutage time.Duration // zero where any downtime counts
	Tiers         []CreditTier  // the best figure first; none where no credit is due
	Fee           *Money        // of one period, nil where it is not told
	Cap           *Limit        // the most that is due for a period, nil where nothing limits it
	Minimum       *Limit        // what is due below it is not paid, nil where all is
	ClaimDeadline time.Duration // after the end of a period; zero where there is none
	DependsOn     []string      // namespace/name of inbound agreements that all of it needs
	SpecSHA256    string        // of the document, in hex
}

// Promise is one objective of an Agreement.
type Promise struct {
	Namespace, SLO, Objective string
	ID                        sla.ID     // of the objective
	Target                    sla.Target // the agreement's own, or else the objective's
}

// CreditTier is a range of figures and the credit for them.
type CreditTier struct {
	Below  sla.Target // figures below it are in the tier …
	Least  sla.Target // … down to this one, which is in it, too; zero is 0 %
	Credit sla.Target // share of the fee
}

// Money is an amount, exact, and the code of its currency as in ISO 4217.
type Money struct {
	Amount   *big.Rat
	Currency string
}

// Limit is a share of the fee or an amount in the fee's currency; the other is
// nil.
type Limit struct{ Share, Amount *big.Rat }

type agreementDocument struct {
	APIVersion string        `yaml:"apiVersion"`
	Kind       string        `yaml:"kind"`
	Metadata   metadata      `yaml:"metadata"`
	Spec       agreementSpec `yaml:"spec"`
}

type agreementSpec struct {
	Description     string          `yaml:"description"`
	Direction       string          `yaml:"direction"`
	Parties         parties         `yaml:"parties"`
	Objectives      []promised      `yaml:"objectives"`
	Period          agreementPeriod `yaml:"period"`
	Method          string          `yaml:"method"`
	TimeSliceWindow string          `yaml:"timeSliceWindow"`
	TimeSliceTarget decimal         `yaml:"timeSliceTarget"`
	MissingData     string          `yaml:"missingData"`
	MinimumCoverage decimal         `yaml:"minimumCoverage"`
	MinimumOutage   string          `yaml:"minimumOutage"`
	CreditTiers     []creditTier    `yaml:"creditTiers"`
	Fee             *money          `yaml:"fee"`
	Cap             *limit          `yaml:"cap"`
	Minimum         *limit          `yaml:"minimum"`
	ClaimDeadline   string          `yaml:"claimDeadline"`
	DependsOn       []string        `yaml:"dependsOn"`
}

type parties struct {
	Provider string `yaml:"provider"`
	Customer string `yaml:"customer"`
}

type promised struct {
	SLO           string  `yaml:"slo"`
	Namespace     string  `yaml:"namespace"`
	Objective     string  `yaml:"objective"`
	Target        decimal `yaml:"target"`
	TargetPercent decimal `yaml:"targetPercent"`
}

type agreementPeriod struct {
	Calendar string `yaml:"calendar"`
	TimeZone string `yaml:"timeZone"`
}

type creditTier struct {
	Below   decimal `yaml:"below"`
	AtLeast decimal `yaml:"atLeast"`
	Credit  decimal `yaml:"credit"`
}

type money struct {
	Amount   decimal `yaml:"amount"`
	Currency string  `yaml:"currency"`
}

type limit struct {
	Percent decimal `yaml:"percent"`
	Amount  decimal `yaml:"amount"`
}

// agreement is one document while it is checked.
type agreement struct {
	checker
	doc  agreementDocument
	made Agreement
	// waits tells that an SLO which it names has errors of its own.
	waits bool
}

func (s *Set) resolveAgreements() {
	known := map[string]*agreement{}
	objectives := s.objectivesBySLO()
	for _, a := range s.nines.read.agreements {
		known[a.doc.Metadata.Namespace+"/"+a.doc.Metadata.Name] = a
		a.check(objectives)
	}
	for _, a := range s.nines.read.agreements {
		a.depend(known)
	}
	byID := map[sla.ID]sla.Objective{}
	for _, o := range s.objectives {
		byID[o.ID] = o
	}
	for _, a := range s.nines.read.agreements {
		if a.bad || a.waits {
			continue
		}
		a.survivors(byID)
		a.sampled(byID)
		s.nines.agreements = append(s.nines.agreements, a.made)
	}
}

// objectivesBySLO returns the objectives in force by namespace/SLO.
func (s *Set) objectivesBySLO() map[string][]sla.Objective {
	out := map[string][]sla.Objective{}
	for _, o := range s.objectives {
		key := o.Namespace + "/" + o.SLO
		out[key] = append(out[key], o)
	}
	return out
}

func (a *agreement) check(objectives map[string][]sla.Objective) {
	m, spec := a.doc.Metadata, a.doc.Spec
	a.made = Agreement{
		Namespace: m.Namespace, Name: m.Name, Title: m.DisplayName, Description: strings.TrimSpace(spec.Description), Labels: labelled(m),
		Direction: spec.Direction, Provider: spec.Parties.Provider, Customer: spec.Parties.Customer,
		Period: sla.Window{Calendar: spec.Period.Calendar, Count: 1, Timezone: spec.Period.TimeZone},
		Method: spec.Method, MissingData: spec.MissingData, SpecSHA256: a.hashed(),
	}
	a.short(spec.Description, "description")
	a.oneOf(spec.Direction, []string{Outbound, Inbound}, "direction")
	a.text(spec.Parties.Provider, "name who gives the promise", "parties", "provider")
	a.text(spec.Parties.Customer, "name who gets the promise", "parties", "customer")
	if p := spec.Parties; p.Provider != "" && p.Provider == p.Customer {
		a.fail("value", a.at("parties", "customer"), "provider and customer are both %q: an agreement has two parties", p.Customer)
	}
	a.oneOf(spec.Period.Calendar, []string{sla.Month, sla.Quarter, sla.Year}, "period", "calendar")
	a.zone(spec.Period.TimeZone, "period", "timeZone")
	a.method()
	a.missing()
	if len(spec.Objectives) == 0 {
		a.fail("required", a.at("objectives"), "spec.objectives is missing: name at least one objective of an SLO")
	} else if a.atMost(len(spec.Objectives), maxPromises, "objectives") {
		for i := range spec.Objectives {
			a.promise(i, objectives)
		}
	}
	a.tiers()
	a.amounts()
}

func (a *agreement) method() {
	spec := a.doc.Spec
	if !a.oneOf(spec.Method, []string{MethodEvents, MethodDowntime, MethodSlices}, "method") {
		return
	}
	misfit := func(key, why string) {
		a.fail("method", a.at(key), "%s does not go with method %s: %s", key, spec.Method, why)
	}
	slice := spec.TimeSliceWindow
	switch {
	case spec.Method == MethodEvents && slice != "":
		misfit("timeSliceWindow", "events are added up over the whole period; take it out, or use slices or downtime")
	case spec.Method == MethodSlices && slice == "":
		a.fail("required", a.at("timeSliceWindow"), "spec.timeSliceWindow is missing: say how long a slice of method slices is, as 5m")
	case spec.Method == MethodDowntime && slice == "":
		a.made.Slice = time.Minute
	case slice != "":
		a.made.Slice = a.length(slice, time.Minute, 24*time.Hour, "timeSliceWindow")
		if n := a.made.Slice; n > 0 && 24*time.Hour%n != 0 {
			a.fail("value", a.at("timeSliceWindow"), "a day is no whole number of slices of %s: use a divisor of it, as 5m or 1h", slice)
		}
	}
	switch {
	case spec.Method == MethodDowntime && spec.TimeSliceTarget == "":
		a.fail("required", a.at("timeSliceTarget"), "spec.timeSliceTarget is missing: give the ratio below which a slice is downtime, as 0.5")
	case spec.Method == MethodDowntime:
		t, err := sla.ParseTarget(string(spec.TimeSliceTarget))
		if err != nil {
			a.fail("target", a.at("timeSliceTarget"), "timeSliceTarget: %v", err)
		}
		a.made.SliceTarget = t
	case spec.TimeSliceTarget != "":
		misfit("timeSliceTarget", "nothing is compared with it; take it out, or use downtime")
	}
	switch {
	case spec.MinimumOutage == "":
	case spec.Method != MethodDowntime:
		misfit("minimumOutage", "only downtime has outages; take it out, or use downtime")
	default:
		a.made.MinimumOutage = a.length(spec.MinimumOutage, time.Minute, 24*time.Hour, "minimumOutage")
		if n := a.made.Slice; n > 0 && a.made.MinimumOutage%n != 0 {
			a.fail("value", a.at("minimumOutage"), "minimumOutage %s is no whole number of slices of %s: make it one", spec.MinimumOutage, sla.WindowName(n))
		}
	}
}

func (a *agreement) missing() {
	spec := a.doc.Spec
	a.oneOf(spec.MissingData, []string{MissingIgnored, MissingGood, MissingBad}, "missingData")
	if spec.MinimumCoverage != "" {
		a.made.MinCoverage = a.percent(spec.MinimumCoverage, "minimumCoverage")
	} else if spec.MissingData == MissingGood {
		a.warn("unbounded-missing-data", a.at("missingData"), "missing data counts as good and nothing bounds it, so that a month without any measurement is perfect: set minimumCoverage, as 95")
	}
}

// percent checks a percentage above 0 and up to 100, exact to 10 decimals.
func (a *agreement) percent(text decimal, path ...string) sla.Target {
	t, err := sla.ParseTargetPercent(string(text))
	if err != nil {
		a.fail("value", a.at(path...), "%s is %q: want a percentage above 0 and up to 100, as 99.95, with at most 10 decimals", dotted(path), string(text))
	}
	return t
}

// promise finds one objective of the agreement.
func (a *agreement) promise(i int, objectives map[string][]sla.Objective) {
	spec, idx := a.doc.Spec.Objectives[i], strconv.Itoa(i)
	here := func(key string) []string { return []string{"objectives", idx, key} }
	if spec.SLO == "" {
		a.fail("required", a.at(here("slo")...), "an objective of an agreement needs slo, the name of an SLO")
		return
	}
	p := Promise{Namespace: spec.Namespace, SLO: spec.SLO, Objective: spec.Objective}
	if p.Namespace == "" {
		p.Namespace = a.doc.Metadata.Namespace
	}
	var err error
	key := "target"
	switch {
	case spec.Target != "" && spec.TargetPercent != "":
		err, key = errors.New("give target or targetPercent, not both"), "targetPercent"
	case spec.Target != "":
		p.Target, err = sla.ParseTarget(string(spec.Target))
	case spec.TargetPercent != "":
		p.Target, err = sla.ParseTargetPercent(string(spec.TargetPercent))
		key = "targetPercent"
	}
	if err != nil {
		a.fail("target", a.at(here(key)...), "%v", err)
		return
	}
	found := objectives[p.Namespace+"/"+p.SLO]
	if len(found) == 0 {
		if a.s.others["SLO/"+p.Namespace+"/"+p.SLO] {
			a.waits = true // what is wrong with the SLO is told there
			return
		}
		a.fail("unknown-reference", a.at(here("slo")...), "there is no SLO named %q in namespace %q: write it, or name another (namespace is the agreement's where it is not given)", p.SLO, p.Namespace)
		return
	}
	var names []string
	at := -1
	for j, o := range found {
		names = append(names, strconv.Quote(o.Name))
		if o.Name == p.Objective || p.Objective == "" && len(found) == 1 {
			at = j
		}
	}
	switch {
	case at < 0 && p.Objective == "":
		a.fail("unknown-reference", a.at(here("slo")...), "SLO %q has %d objectives: name one with objective, of %s", p.SLO, len(found), strings.Join(names, ", "))
		return
	case at < 0:
		a.fail("unknown-reference", a.at(here("objective")...), "SLO %q has no objective %q: it has %s", p.SLO, p.Objective, strings.Join(names, ", "))
		return
	}
	o := found[at]
	p.Objective, p.ID = o.Name, o.ID
	for _, old := range a.made.Promises {
		if old.ID == p.ID {
			a.fail("duplicate-name", a.at(here("slo")...), "objective %q of SLO %q is promised twice: take one out", p.Objective, p.SLO)
			return
		}
	}
	switch {
	case p.Target.IsZero():
		p.Target = o.Target
	case a.made.Direction == Outbound && p.Target.Rat().Cmp(o.Target.Rat()) > 0: // what a provider breaks is not ours to prevent
		a.warn("promise-above-objective", a.at("objectives", idx), "promises %s %% while objective %q of SLO %q aims at %s %%: its alerts come after the promise is broken; raise the objective above the promise", p.Target.Percent(), p.Objective, p.SLO, o.Target.Percent())
	}
	a.made.Promises = append(a.made.Promises, p)
}

// depend checks what the agreement is built on.
func (a *agreement) depend(known map[string]*agreement) {
	spec := a.doc.Spec
	if !a.atMost(len(spec.DependsOn), maxDependsOn, "dependsOn") {
		return
	}
	if len(spec.DependsOn) > 0 && spec.Direction == Inbound {
		a.fail("dependency-direction", a.at("dependsOn"), "an inbound agreement is a provider's promise and is not built on ours: take dependsOn out, or make it outbound")
		return
	}
	weakest, together := "", big.NewRat(1, 1)
	least, complete := (*big.Rat)(nil), true
	for i, name := range spec.DependsOn {
		n := a.at("dependsOn", strconv.Itoa(i))
		if !strings.Contains(name, "/") {
			name = a.doc.Metadata.Namespace + "/" + name
		}
		if slices.Contains(a.made.DependsOn, name) {
			a.fail("duplicate-name", n, "agreement %q is named twice: take one out", spec.DependsOn[i])
			continue
		}
		a.made.DependsOn = append(a.made.DependsOn, name)
		on := known[name]
		switch {
		case on == nil:
			a.fail("unknown-reference", n, "there is no agreement %q: write it, or name another as name or namespace/name", name)
			continue
		case on.doc.Spec.Direction == Outbound:
			a.fail("dependency-direction", n, "agreement %q is outbound, a promise of ours: depend on an inbound one, which a provider gives", name)
			continue
		}
		promised := on.weakest()
		if promised == nil {
			complete = false
			continue
		}
		together.Mul(together, promised)
		if least == nil || promised.Cmp(least) < 0 {
			least, weakest = promised, name
		}
	}
	if least == nil || !complete || a.bad {
		return
	}
	for i, p := range a.made.Promises {
		n := a.at("objectives", strconv.Itoa(i))
		switch {
		case p.Target.Rat().Cmp(least) > 0:
			a.warn("promise-above-dependency", n, "promises %s %% of SLO %q, built on %s %% that %q promises: lower the promise, get a better one, or show how an outage of it is bridged", p.Target.Percent(), p.SLO, trimmed(least), weakest)
		case p.Target.Rat().Cmp(together) > 0:
			a.warn("promise-above-dependency", n, "promises %s %% of SLO %q, but the %d agreements that it is built on together promise %s %% where all of them are needed: lower the promise, or take out those that are not", p.Target.Percent(), p.SLO, len(a.made.DependsOn), trimmed(together))
		}
	}
}

// weakest returns the lowest target of an agreement, nil where it has errors.
func (a *agreement) weakest() (least *big.Rat) {
	if a.bad || a.waits {
		return nil
	}
	for _, p := range a.made.Promises {
		if r := p.Target.Rat(); least == nil || r.Cmp(least) < 0 {
			least = r
		}
	}
	return least
}

// sampled warns of credits that nothing can decide: an event that was not
// counted but taken once a minute is no proof (R8).
func (a *agreement) sampled(byID map[sla.ID]sla.Objective) {
	if a.made.Method != MethodEvents || len(a.made.Tiers) == 0 {
		return
	}
	for i, p := range a.made.Promises {
		sli := byID[p.ID].SLI
		if sli.Total == "" {
			continue
		}
		if ind, err := ParseSLI(sli); err == nil && ind.IsSampled() {
			a.warn("sampled-credit", a.at("objectives", strconv.Itoa(i)), "SLO %q is evaluated once a minute and not counted, so that its minutes cannot decide credits by events: write its queries as counters, or use method downtime or slices", p.SLO)
		}
	}
}

// String returns the namespace and name of the agreement.
func (a Agreement) String() string { return fmt.Sprintf("%s/%s", a.Namespace, a.Name) }
