package openslo

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

func mustTarget(t *testing.T, percent string) sla.Target {
	t.Helper()
	target, err := sla.ParseTargetPercent(percent)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// clean loads a document with the SLOs of the fixtures and wants no findings.
func clean(t *testing.T, text string) *Set {
	t.Helper()
	s, found := loadBeside(t, "a.yaml", []byte(text))
	if len(found) > 0 {
		t.Fatal(lines(found))
	}
	return s
}

const eksLike = `apiVersion: nines/v1
kind: Agreement
metadata: {name: control-plane, namespace: cloud, displayName: Control plane, labels: {provider: [a, b]}}
spec:
  description: "What the provider promises. "
  direction: inbound
  parties: {provider: A cloud, customer: Platform team}
  objectives: [{slo: api-server, targetPercent: 99.95}]
  period: {calendar: month, timeZone: America/Los_Angeles}
  method: downtime
  timeSliceTarget: 0.95
  timeSliceWindow: 5m
  missingData: bad
  minimumCoverage: 97.5
  minimumOutage: 10m
  creditTiers: [{below: 99.95, credit: 10}, {below: 99.0, credit: 25}, {below: 95.0, credit: 100}]
  fee: {amount: 73.1000, currency: USD}
  cap: {percent: 100}
  minimum: {amount: 1.00}
  claimDeadline: 8w
`

func TestAgreementHoldsWhatItsDocumentSays(t *testing.T) {
	s := clean(t, eksLike)
	if len(s.Agreements()) != 1 {
		t.Fatalf("%d agreements", len(s.Agreements()))
	}
	got := s.Agreements()[0]
	if len(got.SpecSHA256) != 64 || got.String() != "cloud/control-plane" {
		t.Errorf("%s has hash %q", got, got.SpecSHA256)
	}
	got.SpecSHA256 = ""
	var id sla.ID
	for _, o := range s.Objectives() {
		if o.SLO == "api-server" {
			id = o.ID
		}
	}
	ratio, err := sla.ParseTarget("0.95")
	if err != nil {
		t.Fatal(err)
	}
	want := Agreement{
		Namespace: "cloud", Name: "control-plane", Title: "Control plane", Description: "What the provider promises.", Labels: map[string]string{"provider": "a,b"},
		Direction: Inbound, Provider: "A cloud", Customer: "Platform team",
		Promises: []Promise{{Namespace: "cloud", SLO: "api-server", Objective: "reachable", ID: id, Target: mustTarget(t, "99.95")}},
		Period:   sla.Window{Calendar: sla.Month, Count: 1, Timezone: "America/Los_Angeles"},
		Method:   MethodDowntime, Slice: 5 * time.Minute, SliceTarget: ratio, MissingData: MissingBad,
		MinCoverage: mustTarget(t, "97.5"), MinimumOutage: 10 * time.Minute,
		Tiers: []CreditTier{
			{mustTarget(t, "99.95"), mustTarget(t, "99"), mustTarget(t, "10")},
			{mustTarget(t, "99"), mustTarget(t, "95"), mustTarget(t, "25")},
			{mustTarget(t, "95"), sla.Target{}, mustTarget(t, "100")},
		},
		Fee: &Money{big.NewRat(731, 10), "USD"}, Cap: &Limit{Share: big.NewRat(1, 1)}, Minimum: &Limit{Amount: big.NewRat(1, 1)},
		ClaimDeadline: 56 * 24 * time.Hour,
	}
	if !sameAgreement(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// sameAgreement compares amounts by value: a big.Rat has more than one form.
func sameAgreement(a, b Agreement) bool {
	same := func(x, y *big.Rat) bool { return (x == nil) == (y == nil) && (x == nil || x.Cmp(y) == 0) }
	limits := func(x, y *Limit) bool { return same(x.Share, y.Share) && same(x.Amount, y.Amount) }
	money := same(a.Fee.Amount, b.Fee.Amount) && a.Fee.Currency == b.Fee.Currency && limits(a.Cap, b.Cap) && limits(a.Minimum, b.Minimum)
	a.Fee, a.Cap, a.Minimum, b.Fee, b.Cap, b.Minimum = nil, nil, nil, nil, nil, nil
	return money && reflect.DeepEqual(a, b)
}

func TestPromiseWithoutATargetIsThatOfTheObjective(t *testing.T) {
	s := clean(t, strings.Replace(strings.Replace(eksLike, ", targetPercent: 99.95", "", 1), "below: 99.95", "below: 99.99", 1))
	if got := s.Agreements()[0].Promises[0].Target.Percent(); got != "99.99" {
		t.Errorf("target is %s %%", got)
	}
}

func TestDowntimeIsCountedByTheMinuteWhereNothingElseIsSaid(t *testing.T) {
	s := clean(t, strings.Replace(eksLike, "  timeSliceWindow: 5m\n", "", 1))
	if got := s.Agreements()[0].Slice; got != time.Minute {
		t.Errorf("a slice is %s", got)
	}
}

func TestKPIHoldsWhatItsDocumentSays(t *testing.T) {
	const text = `apiVersion: nines/v1
kind: KPI
metadata: {name: leader, namespace: shop, labels: {a: b}}
spec:
  key: provisioning
  title: etcd has a leader
  question: Does the cluster remember what we tell it?
  expression: min(etcd_server_has_leader) / on() count(up{job="etcd"}) * max(etcd_server_has_leader)
  unit: ratio
  direction: higher-is-better
  thresholds: [{value: 1, severity: page, reason: "Without a leader nothing can be written. "}]
  roles: [oncall]
  runbook: etcd-leader
`
	s := clean(t, text)
	if len(s.KPIs()) != 1 {
		t.Fatalf("%d KPIs", len(s.KPIs()))
	}
	got := s.KPIs()[0]
	if len(got.SpecSHA256) != 64 || len(got.Thresholds) != 1 || got.Thresholds[0].Value.Cmp(big.NewRat(1, 1)) != 0 {
		t.Errorf("KPI is %+v", got)
	}
	got.SpecSHA256, got.Thresholds[0].Value = "", nil
	want := KPI{
		Namespace: "shop", Name: "leader", Title: "etcd has a leader", Labels: map[string]string{"a": "b"}, Key: "provisioning", Question: "Does the cluster remember what we tell it?",
		Expression: `min(etcd_server_has_leader) / on() count(up{job="etcd"}) * max(etcd_server_has_leader)`, Unit: "ratio", Direction: HigherIsBetter,
		Thresholds: []Threshold{{nil, "page", "Without a leader nothing can be written."}}, Roles: []string{"oncall"},
		Series: []string{"etcd_server_has_leader", "up"}, Runbook: "etcd-leader",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// exclusionOfRule is one that begins in local time and lasts half an hour.
func exclusionOfRule(t *testing.T, from, zone, rule string) Exclusion {
	t.Helper()
	s := clean(t, fmt.Sprintf(`apiVersion: nines/v1
kind: Exclusion
metadata: {name: x, namespace: shop}
spec:
  scope: ['service=shop']
  from: %s
  timeZone: %s
  rrule: %s
  duration: 30m
  category: planned-maintenance
  reason: Work.
  requester: anna
  approver: boris
`, from, zone, rule))
	if len(s.Exclusions()) != 1 {
		t.Fatalf("%s: %d exclusions", rule, len(s.Exclusions()))
	}
	return s.Exclusions()[0]
}

func TestRuleOccursWhenRFC5545SaysSo(t *testing.T) {
	for _, c := range []struct{ name, from, zone, rule, want string }{
		{"each first Sunday", "2026-01-01 02:00", "UTC", "FREQ=MONTHLY;BYDAY=1SU", "01-04 02:00, 02-01 02:00, 03-01 02:00, 04-05 02:00"},
		{"the last working day", "2026-01-01 22:00", "UTC", "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "01-30 22:00, 02-27 22:00, 03-31 22:00, 04-30 22:00"},
		{"every other week", "2026-01-06 03:00", "UTC", "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=MO", "01-06 03:00, 01-11 03:00, 01-20 03:00, 01-25 03:00"},
		{"every other week from Sunday", "2026-01-06 03:00", "UTC", "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=SU", "01-06 03:00, 01-18 03:00, 01-20 03:00, 02-01 03:00"},
		{"until a time in UTC, which is included", "2026-01-01 02:00", "Europe/Berlin", "FREQ=DAILY;UNTIL=20260103T010000Z", "01-01 01:00, 01-02 01:00, 01-03 01:00"},
		{"until a local time", "2026-01-01 02:00", "Europe/Berlin", "FREQ=DAILY;UNTIL=20260103T015900", "01-01 01:00, 01-02 01:00"},
		{"a number of times", "2026-01-01 02:00", "UTC", "FREQ=DAILY;COUNT=2", "01-01 02:00, 01-02 02:00"},
		{"two hours of a day", "2026-01-01 12:00", "UTC", "FREQ=DAILY;BYHOUR=2,14;COUNT=3", "01-01 14:00, 01-02 02:00, 01-02 14:00"},
		{"a day that not every month has", "2026-01-31 02:00", "UTC", "FREQ=MONTHLY;COUNT=3", "01-31 02:00, 03-31 02:00, 05-31 02:00"},
		{"the time of day stays when clocks are set forward", "2026-03-28 04:00", "Europe/Berlin", "FREQ=DAILY;COUNT=3", "03-28 03:00, 03-29 02:00, 03-30 02:00"},
		{"a time that is skipped is as far behind the jump", "2026-03-28 02:30", "Europe/Berlin", "FREQ=DAILY;COUNT=3", "03-28 01:30, 03-29 01:30, 03-30 00:30"},
		{"a time that is shown twice is the first", "2026-10-24 02:30", "Europe/Berlin", "FREQ=DAILY;COUNT=3", "10-24 00:30, 10-25 00:30, 10-26 01:30"},
		{"from the second of two moments", "2026-10-25T02:30:00+01:00", "Europe/Berlin", "FREQ=DAILY;COUNT=3", "10-26 01:30, 10-27 01:30"},
		{"times that are moved over another, and onto another", "2026-03-29 01:00", "Europe/Berlin", "FREQ=DAILY;BYHOUR=2,3,4;BYMINUTE=0,30;BYSETPOS=2,3,5", "03-29 01:00, 03-29 01:30, 03-29 02:00, 03-30 00:30"},
		{"a day that a zone leaves out", "2011-12-29 12:00", "Pacific/Apia", "FREQ=DAILY;COUNT=3", "12-29 22:00, 12-30 22:00"},
	} {
		e := exclusionOfRule(t, c.from, c.zone, c.rule)
		var got []string
		for _, i := range e.Intervals(e.From, e.From.AddDate(1, 0, 0), 4) {
			if i.To.Sub(i.From) != 30*time.Minute {
				t.Errorf("%s: lasts %s", c.name, i.To.Sub(i.From))
			}
			got = append(got, i.From.UTC().Format("01-02 15:04"))
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.name, c.rule, strings.Join(got, ", "), c.want)
		}
	}
}

// A rule gives the same days when it is looked up 7,600 years later.
func TestCalendarOfFarYearsIsThatOfNow(t *testing.T) {
	for day := time.Date(firstYear, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() <= lastYear; day = day.AddDate(0, 0, 1) {
		far := day.AddDate(farYears, 0, 0)
		if far.Weekday() != day.Weekday() || far.YearDay() != day.YearDay() || far.Month() != day.Month() || !far.AddDate(-farYears, 0, 0).Equal(day) {
			t.Fatalf("%s becomes %s", day, far)
		}
	}
	if lastYear+farYears >= 9999 {
		t.Errorf("year %d is too near to the library's end", lastYear+farYears)
	}
}

func TestIntervalsAreThoseInTheWindow(t *testing.T) {
	e := exclusionOfRule(t, "2026-01-01 02:00", "UTC", "FREQ=DAILY")
	day := func(d, h int) time.Time { return time.Date(2026, 1, d, h, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		from, to time.Time
		most     int
		want     int
	}{
		{day(1, 0), day(4, 0), 10, 3},
		{day(1, 0), day(4, 0), 2, 2},
		{day(1, 2).Add(30 * time.Minute), day(2, 2), 10, 0}, // from the end of one to the beginning of the next
		{day(1, 2), day(2, 3), 10, 2},
		{day(5, 0), day(5, 0), 10, 0},
		{day(1, 0), day(4, 0), 0, 0},
		{day(1, 0).AddDate(-1, 0, 0), day(1, 0), 10, 0},
	} {
		if got := e.Intervals(c.from, c.to, c.most); len(got) != c.want {
			t.Errorf("from %s to %s: %v, want %d", c.from, c.to, got, c.want)
		}
	}
}

func TestScopeMatchesLabelsAndFieldsOfAnObjective(t *testing.T) {
	o := sla.Objective{Namespace: "shop", Service: "checkout", SLO: "answers", Name: "0", Labels: map[string]string{"tier": "gold", "slo": "of a label"}}
	for scope, want := range map[string]bool{
		"service=checkout": true, `service = "checkout"`: true, "service=~check.*": true, "service=~check": false, "service!=checkout": false,
		"service!~pay.*": true, "namespace=shop": true, "slo=answers": true, "objective=0": true, "tier=gold": true, `tier=~"gold|silver"`: true,
		"area=": true, "area!=x": true, `area=~".+"`: false, "slo=of a label": false,
	} {
		e := exclusion{checker: checker{s: &Set{}, d: documentOf(t, "kind: Exclusion\nspec: {}\n")}}
		e.doc.Spec.Scope = []string{scope, "tier=gold"}
		if e.scope(); e.bad {
			t.Errorf("%s: %s", scope, lines(e.s.findings))
			continue
		}
		if got := e.made.Matches(o); got != want {
			t.Errorf("%s matches: %t, want %t", scope, got, want)
		}
	}
	no := Exclusion{Scope: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "tier", "gold"), labels.MustNewMatcher(labels.MatchEqual, "service", "x")}}
	if no.Matches(o) {
		t.Error("one matcher of two is enough")
	}
}

func documentOf(t *testing.T, text string) strictyaml.Document {
	t.Helper()
	docs, err := strictyaml.Documents("a.yaml", []byte(text))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	return docs[0]
}

func TestOutsideIsWhatTheServiceDoesNotWriteItself(t *testing.T) {
	part := sla.Objective{ID: sla.ID{1}, SLI: sla.SLI{Value: "probe_duration_seconds"}}
	inner := sla.Objective{ID: sla.ID{2}, SLI: sla.SLI{Raw: "app_ratio"}}
	loop := sla.Objective{ID: sla.ID{3}, SLI: sla.SLI{Parts: []sla.Part{{Objective: sla.ID{3}}}}}
	byID := map[sla.ID]sla.Objective{part.ID: part, inner.ID: inner, loop.ID: loop}
	for _, c := range []struct {
		sli  sla.SLI
		want bool
	}{
		{sla.SLI{Bad: "app_errors_total", Total: "app_requests_total"}, false},
		{sla.SLI{Good: "sum(rate(probe_success[5m]))", Total: "app_requests_total"}, true},
		{sla.SLI{Raw: "app_ratio"}, false},
		{sla.SLI{Value: "avg(haproxy_backend_up)"}, true},
		{sla.SLI{Raw: "avg(up)"}, true},
		{sla.SLI{Raw: "avg(uptime)"}, false},
		{sla.SLI{Raw: "kube_pod_status_ready"}, true},
		{sla.SLI{Raw: "nginx_http_requests_total"}, false},
		{sla.SLI{Raw: "job:probe_success:avg5m"}, true},
		{sla.SLI{Raw: "job:app_ratio:avg5m"}, false},
		{sla.SLI{Raw: `istio_requests_total{reporter="source"}`}, true},
		{sla.SLI{Raw: "istio_requests_total"}, true},
		{sla.SLI{Raw: `istio_requests_total{reporter="destination"}`}, false},
		{sla.SLI{Raw: `{__name__=~"probe_.*"}`}, true},
		{sla.SLI{Raw: `{__name__=~"app_.*"}`}, false},
		{sla.SLI{Raw: `{job="x"}`}, true}, // nobody can tell
		{sla.SLI{Raw: "1"}, false},
		{sla.SLI{Parts: []sla.Part{{Objective: inner.ID}, {Objective: part.ID}}}, true},
		{sla.SLI{Parts: []sla.Part{{Objective: inner.ID}}}, false},
		{sla.SLI{Parts: []sla.Part{{Objective: loop.ID}}}, true}, // bounded
	} {
		if got := outsideSLI(c.sli, byID, 0); got != c.want {
			t.Errorf("%s is from outside: %t, want %t", c.sli.Canonical(), got, c.want)
		}
	}
	for _, prefix := range outside {
		if !outsideSLI(sla.SLI{Raw: prefix + "x"}, nil, 0) {
			t.Errorf("%s is not from outside", prefix)
		}
	}
}

func TestNumberOfExclusionsIsBounded(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "nines", "approver", "passes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for i := range maxExclusions + 2 {
		hour := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Hour)
		doc := strings.NewReplacer("name: upgrade", fmt.Sprintf("name: n%d", i), "2026-03-01 22:00", hour.Format(time.RFC3339), "2026-03-02 02:00", hour.Add(time.Hour).Format(time.RFC3339)).Replace(string(data))
		all.WriteString("---\n" + doc)
	}
	s, found := loadBeside(t, "a.yaml", []byte(all.String()))
	if len(s.Exclusions()) != maxExclusions {
		t.Errorf("%d exclusions are in force", len(s.Exclusions()))
	}
	if len(found) != 1 || found[0].Rule != "too-many" || !found[0].IsError() {
		t.Errorf("findings are %s", lines(found))
	}
}

func TestRuleThatOccursTooOftenIsToldOf(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "nines", "recurrence", "passes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(data), "---\n")
	text := strings.NewReplacer("RRULE:FREQ=MONTHLY;BYDAY=1SU", "FREQ=DAILY;BYHOUR="+hours(), "duration: 4h", "duration: 10m").Replace(first)
	s, found := loadBeside(t, "a.yaml", []byte(text))
	if len(found) != 1 || found[0].Rule != "too-many" || found[0].IsError() || len(s.Exclusions()) != 1 {
		t.Errorf("%d exclusions, findings %s", len(s.Exclusions()), lines(found))
	}
}

func hours() string {
	var all []string
	for h := range 24 {
		all = append(all, fmt.Sprint(h))
	}
	return strings.Join(all, ",")
}

func FuzzRecurrence(f *testing.F) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	for _, rule := range []string{
		"FREQ=YEARLY;BYMONTH=1,12;BYDAY=-1SU,1MO", "FREQ=YEARLY;BYWEEKNO=-1,1,53;BYDAY=MO;WKST=SU", "FREQ=YEARLY;BYYEARDAY=-366,366,1;INTERVAL=3", "FREQ=YEARLY;BYDAY=53FR,-53SA",
		"FREQ=MONTHLY;BYMONTHDAY=-31,31;BYSETPOS=-1,366", "FREQ=WEEKLY;BYDAY=MO,SU;WKST=TH;BYHOUR=0,23;BYMINUTE=59;BYSETPOS=2", "FREQ=DAILY;INTERVAL=1000;COUNT=1000", "RRULE:FREQ=DAILY;UNTIL=20260601T000000",
		"FREQ=MONTHLY;BYDAY=-5TU;BYMONTH=2;BYMONTHDAY=1", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;BYWEEKNO=20;BYYEARDAY=7",
	} {
		f.Add(rule, uint32(0))
		f.Add(rule, uint32(60*24*300+150))
	}
	f.Fuzz(func(t *testing.T, rule string, minutes uint32) {
		from := time.Date(firstYear, 1, 1, 0, 0, 0, 0, zone).Add(time.Duration(minutes%(199*365*24*60)) * time.Minute)
		r, err := parseRecurrence(rule, from, zone)
		if err != nil {
			return
		}
		n, last := 0, from
		for at := range r.starts {
			if at.Before(from) || at.Before(last.Add(-24*time.Hour)) || at.Second() != 0 {
				t.Fatalf("%q from %s: %s comes after %s", rule, from, at, last)
			}
			if n++; n == 50 {
				break
			}
			last = at
		}
	})
}

func TestLongExclusionOverlapsEachShortOneInIt(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "nines", "approver", "passes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range [][3]string{{"long", "03-01 00:00", "03-09 00:00"}, {"first", "03-02 00:00", "03-03 00:00"}, {"second", "03-04 00:00", "03-05 00:00"}, {"after", "03-09 00:00", "03-10 00:00"}} {
		all = append(all, strings.NewReplacer("name: upgrade", "name: "+e[0], "03-01 22:00", e[1], "03-02 02:00", e[2]).Replace(string(data)))
	}
	_, found := loadBeside(t, "a.yaml", []byte(strings.Join(all, "---\n")))
	if got := lines(found); len(found) != 2 || strings.Count(got, `that exclusion "long"`) != 2 {
		t.Errorf("findings are %s, want one in each of the two inside", got)
	}
}
