package report

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

var update = flag.Bool("update", false, "write the golden files")

func build(t testing.TB, b Book, o Options) Report {
	t.Helper()
	if o.Month == "" {
		o.Month = "2026-11"
	}
	o.Program = "Nines test"
	r, err := Build(context.Background(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// only builds the report of a book with one objective and returns its row.
func only(t testing.TB, b Book, o Options) Row {
	t.Helper()
	r := build(t, b, o)
	if len(r.Rows) != 1 {
		t.Fatalf("%d rows, want 1", len(r.Rows))
	}
	return r.Rows[0]
}

func simple(t testing.TB, target_ string, head time.Time) (*book, sla.Objective) {
	b := newBook(head)
	return b, b.add(sla.Objective{Service: "shop", SLO: "availability", Name: "0", Title: "Answers", Target: target(t, target_), SLI: sla.SLI{Good: "g", Total: "t"}})
}

func same(t *testing.T, what string, got *big.Rat, want string) {
	t.Helper()
	if got == nil || got.Cmp(rat(want)) != 0 {
		t.Errorf("%s is %v, want %s", what, got, want)
	}
}

func TestMonthIsHalfOpenAndSafeAcrossDaylightSaving(t *testing.T) {
	for _, c := range []struct {
		month, zone, start, end string
		days                    int
		odd                     map[string]int // minutes of days that have not 1440
	}{
		{"2026-11", "UTC", "2026-11-01 00:00", "2026-12-01 00:00", 30, nil},
		{"2026-10", "Europe/Berlin", "2026-09-30 22:00", "2026-10-31 23:00", 31, map[string]int{"2026-10-25": 1500}},
		{"2026-03", "Europe/Berlin", "2026-02-28 23:00", "2026-03-31 22:00", 31, map[string]int{"2026-03-29": 1380}},
		{"2028-02", "Asia/Kolkata", "2028-01-31 18:30", "2028-02-29 18:30", 29, nil},
		// Clocks went from 00:00 to 01:00: the day begins at 01:00.
		{"2018-11", "America/Sao_Paulo", "2018-11-01 03:00", "2018-12-01 02:00", 30, map[string]int{"2018-11-04": 1380}},
		// Clocks go from 01:00 back to 00:00: midnight comes twice, the first one begins the day.
		{"2026-11", "America/Havana", "2026-11-01 04:00", "2026-12-01 05:00", 30, map[string]int{"2026-11-01": 1500}},
		// The island skipped 30 December.
		{"2011-12", "Pacific/Apia", "2011-12-01 10:00", "2011-12-31 10:00", 30, nil},
	} {
		m, err := ParseMonth(c.month, c.zone)
		if err != nil {
			t.Fatal(err)
		}
		if !m.Start().Equal(utc(c.start)) || !m.End().Equal(utc(c.end)) {
			t.Errorf("%s in %s is %s to %s, want %s to %s", c.month, c.zone, m.Start().UTC(), m.End().UTC(), c.start, c.end)
		}
		days := m.days()
		if len(days) != c.days || days[0].from != sla.MinuteOf(m.Start()) || days[len(days)-1].to != sla.MinuteOf(m.End()) {
			t.Errorf("%s in %s has %d days, want %d that fill the month", c.month, c.zone, len(days), c.days)
		}
		for i, d := range days {
			want := 1440
			if n, ok := c.odd[d.date]; ok {
				want = n
			}
			if int(d.to-d.from) != want || i > 0 && d.from != days[i-1].to {
				t.Errorf("%s in %s: day %s has %d minutes, want %d behind the day before", c.month, c.zone, d.date, d.to-d.from, want)
			}
		}
	}
}

func TestMinutesBesideTheMonthStayOut(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	for _, at := range []string{"2026-10-31 22:59", "2026-10-31 23:00", "2026-11-30 22:59", "2026-11-30 23:00"} {
		b.put(o, sla.MinuteOf(utc(at)), minute(1, 1))
	}
	row := only(t, b, Options{Timezone: "Europe/Berlin"})
	if got := sla.Events(row.Sum.Total); got != "2" {
		t.Errorf("the month holds %s events, want the 2 of its first and last minute", got)
	}
}

func TestR16_BoundsComeFromRatioAndCoverage(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	start := utc("2026-11-01 00:00")
	b.fill(o, start, start.Add(45*time.Minute), minute(8, 10))
	b.fill(o, start.Add(45*time.Minute), start.Add(60*time.Minute), unseen())
	row := only(t, b, Options{})
	same(t, "ratio", row.Sum.Good(), "0.8")
	same(t, "coverage", row.Sum.Coverage(), "0.75")
	low, high := row.Sum.Bounds()
	same(t, "lower bound", low, "0.6")
	same(t, "upper bound", high, "0.85")
	if row.NoData != 15*time.Minute || row.BadMinutes != 45 || row.JudgedMinutes != 45 {
		t.Errorf("no data %s, %d of %d minutes bad; want 15m, 45 of 45", row.NoData, row.BadMinutes, row.JudgedMinutes)
	}
}

func TestR22_AGapCountsOnlyIfAllOfItLiesWithin(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	start := sla.MinuteOf(utc("2026-11-01 00:00"))
	gap := func(from, to sla.Minute, good, total int64) sla.Figures {
		f := minute(0, 0)
		f.Gaps = []sla.Gap{{From: from, To: to, GoodLow: good * sla.Micro, GoodHigh: good * sla.Micro, Total: total * sla.Micro}}
		return f
	}
	for m := start - 30; m < start+3000; m++ {
		b.put(o, m, minute(0, 0))
	}
	b.put(o, start+9, gap(start-1, start+9, 1, 1000)) // cuts the month's start
	b.put(o, start+20, gap(start+10, start+20, 90, 100))
	b.put(o, start+1445, gap(start+1435, start+1445, 40, 50)) // cuts a day's end
	row := only(t, b, Options{})
	if got := row.Events(); got != "130 of 150" {
		t.Errorf("the month counts %s, want 130 of 150", got)
	}
	if d := row.Days[0]; sla.Events(d.Sum.Total) != "100" {
		t.Errorf("the first day counts %s events, want the 100 of its own gap", sla.Events(d.Sum.Total))
	}
	if d := row.Days[1]; d.Sum.Total.Sign() != 0 {
		t.Errorf("the second day counts %s events of a gap that began before it", sla.Events(d.Sum.Total))
	}
	if row.BadMinutes != 0 {
		t.Errorf("%d minutes are bad because of gaps, which belong to no single minute", row.BadMinutes)
	}
	last := row.Burndown[len(row.Burndown)-1].Remaining
	if last.Cmp(row.Budget.Remaining) != 0 {
		t.Errorf("the burn-down ends at %s, the budget at %s", last.RatString(), row.Budget.Remaining.RatString())
	}
}

func TestBadMinutesAreJudgedOnesBelowTheTarget(t *testing.T) {
	b, o := simple(t, "0.99", utc("2026-12-02 00:00"))
	at := sla.MinuteOf(utc("2026-11-05 00:00"))
	half, less := minute(1, 2), minute(1, 2)
	half.Expected, half.Counted, half.Timed = 120_000, 120_000, 60_000
	less.Expected, less.Counted, less.Timed = 120_000, 120_000, 59_999
	absent := unseen()
	absent.Total, absent.Flags = sla.Micro, sla.FlagAbsent
	for i, f := range []sla.Figures{
		minute(99, 100), // reaches it exactly
		minute(98, 100), // bad
		minute(0, 0),    // no events
		unseen(),        // nobody looked
		half,            // bad: just timed enough
		less,            // too little timed
		absent,          // bad: the absence was observed
	} {
		b.put(o, at+sla.Minute(i), f)
	}
	row := only(t, b, Options{})
	if row.BadMinutes != 3 || row.JudgedMinutes != 5 {
		t.Errorf("%d of %d judged minutes are bad, want 3 of 5", row.BadMinutes, row.JudgedMinutes)
	}
	if d := row.Days[4]; d.BadMinutes != 3 || d.State != Bad {
		t.Errorf("5 November is %+v", d)
	}
}

func TestMinutesThatWereNeverBookedAreExpectedAndUnseen(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	two := minute(1, 1)
	two.Expected, two.Counted, two.Timed = 120_000, 120_000, 120_000
	b.put(o, sla.MinuteOf(utc("2026-10-31 12:00")), minute(1, 1))
	b.fill(o, utc("2026-11-01 00:10"), utc("2026-11-01 00:20"), two)
	b.fill(o, utc("2026-11-01 00:25"), utc("2026-11-01 00:30"), minute(1, 1))
	row := only(t, b, Options{})
	// 10 minutes at the start as of one source, 5 as of two.
	if row.Unbooked != 15 || row.NoData != 15*time.Minute || row.From != sla.MinuteOf(utc("2026-11-01 00:00")) || row.To != sla.MinuteOf(utc("2026-11-01 00:30")) {
		t.Errorf("unbooked %d, no data %s, measured %d to %d", row.Unbooked, row.NoData, row.From, row.To)
	}
	same(t, "coverage", row.Sum.Coverage(), "25/45")
	// A later month proves that the rest of this one is missing too.
	b.put(o, sla.MinuteOf(utc("2026-12-01 00:05")), minute(1, 1))
	if row = only(t, b, Options{}); row.To != sla.MinuteOf(utc("2026-12-01 00:00")) || row.Unbooked != 15+43_170 {
		t.Errorf("with a hole to the month's end %d minutes are unbooked", row.Unbooked)
	}
}

func TestObjectivesAppearInTheMonthsTheyWereMeasuredIn(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-11-10 00:00"))
	b.fill(o, utc("2026-10-10 00:00"), utc("2026-10-11 00:00"), minute(1, 1))
	fresh := b.add(sla.Objective{SLO: "fresh", Name: "0", Target: o.Target})
	r := build(t, b, Options{})
	if len(r.Rows) != 1 || r.Rows[0].Objective.ID != fresh.ID || r.Rows[0].Verdict != sla.NoEvents {
		t.Errorf("November so far shows %d rows, want the fresh one without events and not the one that ended", len(r.Rows))
	}
	if r = build(t, b, Options{Month: "2026-10"}); len(r.Rows) != 1 || r.Rows[0].Objective.ID != o.ID {
		t.Errorf("October shows %d rows, want the one that was measured", len(r.Rows))
	}
}

func TestVerdictNeedsCoverageToBeMet(t *testing.T) {
	for _, c := range []struct {
		good, unseen int64 // good of 1000 a minute in 100 minutes, minutes unseen of them
		want         sla.Verdict
	}{
		{995, 0, sla.Met}, {990, 0, sla.Met}, {989, 0, sla.Missed},
		{1000, 5, sla.Met}, {1000, 6, sla.Inconclusive},
		{989, 10, sla.Inconclusive}, // the upper bound is above the target
		{900, 6, sla.Missed},        // the upper bound misses it too
	} {
		b, o := simple(t, "0.99", utc("2026-12-02 00:00"))
		start := utc("2026-11-01 00:00")
		b.fill(o, start, start.Add(time.Duration(100-c.unseen)*time.Minute), minute(c.good, 1000))
		b.fill(o, start.Add(time.Duration(100-c.unseen)*time.Minute), start.Add(100*time.Minute), unseen())
		if row := only(t, b, Options{}); row.Verdict != c.want {
			t.Errorf("%d good of 1000 with %d %% unseen is %q, want %q", c.good, c.unseen, row.Verdict, c.want)
		}
	}
}

func TestDayStates(t *testing.T) {
	b, o := simple(t, "0.99", utc("2026-11-07 00:00"))
	day := func(d int, f sla.Figures, minutes int) {
		from := utc(fmt.Sprintf("2026-11-%02d 00:00", d))
		b.fill(o, from, from.AddDate(0, 0, 1), minute(1000, 1000))
		b.fill(o, from, from.Add(time.Duration(minutes)*time.Minute), f)
	}
	day(1, minute(999, 1000), 1440)
	day(2, minute(995, 1000), 1440)
	day(3, minute(0, 1000), 20)
	day(4, unseen(), 721)
	day(5, unseen(), 100)
	day(6, minute(0, 0), 1440)
	var got []DayState
	for _, d := range only(t, b, Options{}).Days[:8] {
		got = append(got, d.State)
	}
	if want := []DayState{Good, AtRisk, Bad, NoData, AtRisk, Good, Ahead, Ahead}; !slices.Equal(got, want) {
		t.Errorf("days are %q, want %q", got, want)
	}
}

func TestHottestHourSlidesByTheMinute(t *testing.T) {
	b, o := simple(t, "0.99", utc("2026-12-02 00:00"))
	start := utc("2026-11-01 00:00")
	b.fill(o, start, start.Add(600*time.Minute), minute(100, 100))
	// 30 minutes of which half fail, astride the full hour.
	b.fill(o, start.Add(105*time.Minute), start.Add(135*time.Minute), minute(50, 100))
	same(t, "highest burn", only(t, b, Options{}).MaxBurn, "25")
	short, p := simple(t, "0.99", utc("2026-12-02 00:00"))
	short.fill(p, start, start.Add(59*time.Minute), minute(0, 100))
	if row := only(t, short, Options{}); row.MaxBurn != nil {
		t.Errorf("59 minutes have a burn of an hour: %s", row.MaxBurn.RatString())
	}
}

func TestMonthIsSoFarUntilTheBookHasPassedIt(t *testing.T) {
	for _, c := range []struct {
		head string
		want State
	}{{"2026-11-17 10:42", SoFar}, {"2026-11-30 23:59", SoFar}, {"2026-12-01 00:00", Complete}} {
		b, o := simple(t, "0.9", utc(c.head))
		b.fill(o, utc("2026-11-01 00:00"), utc("2026-11-01 01:00"), minute(1, 1))
		r := build(t, b, Options{Now: utc("2027-01-01 00:00")})
		html, err := r.HTML()
		if err != nil {
			t.Fatal(err)
		}
		if marked := bytes.Contains(html, []byte("so far")); r.State != c.want || marked != (c.want == SoFar) {
			t.Errorf("booked to %s: the state is %q and the page is marked %v", c.head, r.State, marked)
		}
	}
}

func TestPreviousMonthIsCompared(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	b.fill(o, utc("2026-10-30 00:00"), utc("2026-10-30 01:00"), minute(90, 100))
	b.fill(o, utc("2026-11-01 00:00"), utc("2026-11-01 01:00"), minute(95, 100))
	row := only(t, b, Options{})
	same(t, "previous ratio", row.Previous, "0.9")
	if row.Change() != "+5.00 points" {
		t.Errorf("the change is %q", row.Change())
	}
}

// older is a book that knows where an older batch stands.
type older struct{ *book }

func (o older) Position(seq uint64) (ledger.Position, error) {
	return ledger.Position{Term: 1, Seq: seq, At: utc("2026-11-10 00:00").UnixMilli()}, nil
}

func TestReportAsOfAnOlderBatchReadsOnlyThat(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	b.put(o, sla.MinuteOf(utc("2026-11-01 00:00")), minute(1, 1))
	b.put(o, sla.MinuteOf(utc("2026-11-01 00:01")), minute(1, 1))
	b.batch[o.ID][sla.MinuteOf(utc("2026-11-01 00:01"))] = 20
	r := build(t, older{b}, Options{AsOf: 10})
	if got := sla.Events(r.Rows[0].Sum.Total); got != "1" || r.Head.Seq != 10 || r.State != SoFar {
		t.Errorf("as of batch 10 there are %s events, batch %d, %q", got, r.Head.Seq, r.State)
	}
	for _, c := range []struct {
		book Book
		asOf uint64
		want string
	}{{b, 10, "only as of its newest batch 4711"}, {older{b}, 5000, "there is no batch 5000 yet"}} {
		if _, err := Build(context.Background(), c.book, Options{Month: "2026-11", AsOf: c.asOf}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("as of %d gives %v, want %q", c.asOf, err, c.want)
		}
	}
}

func TestBuildRefusesWhatIsNoMonth(t *testing.T) {
	broken := newBook(utc("2026-12-02 00:00"))
	broken.fail = errors.New("disk on fire")
	for _, c := range []struct {
		book *book
		o    Options
		want string
	}{
		{newBook(time.UnixMilli(0)), Options{Month: "November"}, "such as 2026-11"},
		{newBook(time.UnixMilli(0)), Options{Month: "2026-13"}, "such as 2026-11"},
		{newBook(time.UnixMilli(0)), Options{Month: "0001-01"}, "begin with 1971"},
		{newBook(time.UnixMilli(0)), Options{Month: "2026-11", Timezone: "Mars/Olympus"}, "IANA"},
		{newBook(time.UnixMilli(0)), Options{Month: "2026-11", Timezone: "Local"}, "IANA"},
		{newBook(time.UnixMilli(0)), Options{Month: "2026-12", Now: utc("2026-11-30 12:00")}, "has not begun: ask for 2026-11"},
		{broken, Options{Month: "2026-11"}, "disk on fire"},
	} {
		if _, err := Build(context.Background(), c.book, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v gives %v, want %q", c.o, err, c.want)
		}
	}
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	b.fill(o, utc("2026-11-01 00:00"), utc("2026-11-08 00:00"), minute(1, 1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, b, Options{Month: "2026-11"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled build gives %v", err)
	}
}

func TestR30_TheSameBookGivesTheSameBytes(t *testing.T) {
	b := november(t, utc("2026-12-01 00:10"))
	one := build(t, b, Options{Timezone: "Europe/Berlin", Now: utc("2026-12-01 00:11")})
	slices.Reverse(b.objectives)
	two := build(t, b, Options{Timezone: "Europe/Berlin", Now: utc("2027-03-01 00:00")})
	for _, format := range Formats {
		a, _, err := one.Render(format)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := one.Render(format)
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := two.Render(format)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, again) || !bytes.Equal(a, other) {
			t.Errorf("%s: the same month of the same book is not the same bytes", format)
		}
	}
	pdf, err := one.PDF()
	if err != nil {
		t.Fatal(err)
	}
	// A date of its own would make two PDFs differ from one second to the next.
	for _, d := range regexp.MustCompile(`\(D:(\d{14})`).FindAllSubmatch(pdf, -1) {
		if string(d[1]) != "20261201001000" {
			t.Errorf("the PDF holds the date %s, which is not the batch's", d[1])
		}
	}
}

func TestReportIsTheGoldenOne(t *testing.T) {
	r := build(t, november(t, utc("2026-12-01 00:10")), Options{Timezone: "Europe/Berlin"})
	csv, err := r.CSV()
	if err != nil {
		t.Fatal(err)
	}
	js, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	soFar := build(t, november(t, utc("2026-11-17 10:42")), Options{Timezone: "Europe/Berlin"})
	for name, data := range map[string][]byte{
		"november.csv": csv, "november.json": js,
		"summary.txt": []byte(strings.Join(append(r.Summary, soFar.Summary...), "\n") + "\n"),
	} {
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s differs from the golden file; look at the difference after go test -update", name)
		}
	}
}

func TestCSVIsWhatSpreadsheetsReadAndCannotRun(t *testing.T) {
	data, err := build(t, november(t, utc("2026-12-01 00:10")), Options{Timezone: "Europe/Berlin"}).CSV()
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n != bytes.Count(data, []byte("\r\n")) || n != 8 {
		t.Errorf("%d lines, not all of them end in CR LF", n)
	}
	lines, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(Columns) != 44 || !slices.Equal(lines[0], Columns) {
		t.Errorf("%d columns: %q", len(lines[0]), lines[0])
	}
	column := func(name string) int { return slices.Index(lines[0], name) }
	numeric := regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)
	for _, l := range lines[1:] {
		for i, cell := range l {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") && !numeric.MatchString(cell) {
				t.Errorf("column %s runs in a spreadsheet: %q", lines[0][i], cell)
			}
		}
	}
	if got := lines[1][column("service")]; got != "'=cmd|' /C calc'!A0" {
		t.Errorf("a service that is a formula became %q", got)
	}
	for _, c := range []struct{ in, want string }{{"-1+1", "'-1+1"}, {"@x", "'@x"}, {"+x", "'+x"}, {"＝1", "'＝1"}, {"", ""}, {"a=b", "a=b"}} {
		if got := text(c.in); got != c.want {
			t.Errorf("text %q became %q, want %q", c.in, got, c.want)
		}
	}
	if l := lines[1]; l[column("period_start")] != "2026-10-31T23:00:00Z" || l[column("met")] != "yes" || l[column("credit_low")] != "" {
		t.Errorf("the first line is %q", l)
	}
}

func TestJSONHoldsDecimalsAsStrings(t *testing.T) {
	data, err := build(t, november(t, utc("2026-11-17 10:42")), Options{}).JSON()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	for {
		token, err := dec.Token()
		if err != nil {
			break
		}
		if n, ok := token.(json.Number); ok && strings.ContainsAny(n.String(), ".eE") {
			t.Errorf("the decimal %s is not a string", n)
		}
	}
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Objectives) != 7 || d.State != SoFar || d.AsOf.Sequence != 4711 || len(d.Objectives[0].Days) != 30 {
		t.Errorf("the document came back as %d objectives, %q", len(d.Objectives), d.State)
	}
}

func TestHTMLIsSelfContainedAndEscaped(t *testing.T) {
	r := build(t, november(t, utc("2026-12-01 00:10")), Options{Timezone: "Europe/Berlin"})
	data, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, no := range []string{"<script", " src=", "url(", "@import", "http://", "https://", "NaN", "%!", "ZgotmplZ", "<nil>"} {
		if strings.Contains(page, no) {
			t.Errorf("the page holds %q", no)
		}
	}
	if n, want := strings.Count(page, `role="img" aria-label="`), strings.Count(page, "<svg"); n != want || n < 7*3 {
		t.Errorf("%d of %d pictures have a text for those who do not see them", n, want)
	}
	for _, yes := range []string{`<html lang="en">`, "prefers-color-scheme: dark", "@media print", "&lt;script&gt;", `scope="col"`} {
		if !strings.Contains(page, yes) {
			t.Errorf("the page lacks %q", yes)
		}
	}
}

func TestPDFKeepsAllTextOnThePaper(t *testing.T) {
	many := newBook(utc("2026-11-17 10:00"))
	for i := range 60 {
		o := many.add(sla.Objective{
			Service: strings.Repeat("service-", i), SLO: fmt.Sprintf("slo-%d", i), Name: "0", Target: target(t, "0.999"),
			Title: strings.Repeat("Überlänge ", i) + "🦀 漢字 \x00\u202e" + strings.Repeat("x", 7*i), Description: strings.Repeat("long words ", 9*i),
			SLI: sla.SLI{Good: strings.Repeat("a+", 50*i), Total: "b"},
		})
		many.fill(o, utc("2026-11-16 00:00"), utc("2026-11-16 02:00"), minute(int64(100-i), 100))
	}
	huge, o := simple(t, "0.99999999", utc("2026-12-01 00:10"))
	f := minute(0, 9_000_000_000_000)
	huge.fill(o, utc("2026-11-01 00:00"), utc("2026-12-01 00:00"), f)
	empty := newBook(time.UnixMilli(0))
	empty.head = ledger.Position{}
	for name, b := range map[string]*book{"november": november(t, utc("2026-12-01 00:10")), "many": many, "huge": huge, "empty": empty} {
		r := build(t, b, Options{Timezone: "America/Argentina/ComodRivadavia"})
		csv, err := r.CSV()
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.typeset(csv, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.reach[0] < margin-.5 || s.reach[1] > pageWide-margin+.5 || s.reach[2] > pageHigh-9 {
			t.Errorf("%s: text reaches from %.1f to %.1f mm and down to %.1f mm", name, s.reach[0], s.reach[1], s.reach[2])
		}
		pdf, err := r.PDF()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.HasPrefix(pdf, []byte("%PDF-")) || !bytes.Contains(pdf, []byte("/EmbeddedFile")) {
			t.Errorf("%s: not a PDF with an attachment", name)
		}
	}
}

func TestWriteReplacesFilesAndRefusesClearly(t *testing.T) {
	b, o := simple(t, "0.9", utc("2026-12-02 00:00"))
	b.fill(o, utc("2026-11-01 00:00"), utc("2026-11-01 01:00"), minute(1, 1))
	r := build(t, b, Options{})
	dir := filepath.Join(t.TempDir(), "new")
	for range 2 {
		if err := r.Write(dir, Formats); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"sla-2026-11.csv", "sla-2026-11.html", "sla-2026-11.json", "sla-2026-11.pdf"}; !slices.Equal(names, want) {
		t.Errorf("the folder holds %q, want %q", names, want)
	}
	taken := t.TempDir()
	if err := os.Mkdir(filepath.Join(taken, "sla-2026-11.csv"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir     string
		formats []string
		want    string
	}{
		{dir, nil, "no report format"},
		{dir, []string{"csv", "docx"}, `"docx" is not known: want csv, pdf, html, json`},
		{taken, []string{"csv"}, "is a folder: move it away"},
		{filepath.Join(dir, "sla-2026-11.csv"), []string{"csv"}, "choose another folder"},
	} {
		if err := r.Write(c.dir, c.formats); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("writing %q to %s gives %v, want %q", c.formats, c.dir, err, c.want)
		}
	}
}

func TestRatiosAreNeverPrintedUpToTheTarget(t *testing.T) {
	b, o := simple(t, "0.999", utc("2026-12-02 00:00"))
	b.fill(o, utc("2026-11-01 00:00"), utc("2026-11-01 01:00"), minute(9_989_999, 10_000_000))
	row := only(t, b, Options{})
	if row.Verdict != sla.Missed || row.Ratio() != "99.89 %" || row.BudgetLeft() != "overspent: 1.0 times" {
		t.Errorf("99.89999 %% against 99.9 %% is %q, printed %q, budget %q", row.Verdict, row.Ratio(), row.BudgetLeft())
	}
}
