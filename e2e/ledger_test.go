//go:build e2e

package e2e

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/big"
	"reflect"
	"testing"
	"time"

	"nines/e2e/harness"
)

// sums are what the test adds up by itself.
type sums struct {
	good, total         *big.Int // micro-events
	counted, expected   int64    // milliseconds
	minutes, badMinutes int64
}

func add(target *big.Rat, lines []minute, from, to time.Time) sums {
	s := sums{good: new(big.Int), total: new(big.Int)}
	for _, m := range lines {
		s.good.Add(s.good, big.NewInt(m.GoodHigh))
		s.total.Add(s.total, big.NewInt(m.Total))
		for _, g := range m.Gaps {
			if !g.From.Before(from) && g.To.Before(to) {
				s.good.Add(s.good, big.NewInt(g.GoodHigh))
				s.total.Add(s.total, big.NewInt(g.Total))
			}
		}
		s.counted += m.Counted
		s.expected += m.Expected
		s.minutes++
		if timed := 2*m.Timed >= m.Expected && m.Timed > 0; timed && m.Total > 0 && big.NewRat(m.GoodHigh, m.Total).Cmp(target) < 0 {
			s.badMinutes++
		}
	}
	return s
}

func TestReportEqualsLedger(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	aggregator := lab.Aggregator("--slos", slos(lab))
	path := lab.Write("app/app.log", "")
	agent := lab.Agent(harness.AgentConfig{Node: "node-1", SendTo: aggregator.URL, Paths: []string{path}})
	writer := &rotated{t: t, path: path}
	lab.Eventually(8*time.Minute, "two minutes with events are booked", func() error {
		writer.lines(10)
		o, err := objectiveOf(aggregator.URL, "node-heard")
		if err != nil {
			return err
		}
		lines, err := ledger(aggregator.URL, o.ID, time.Now().Add(-time.Hour), time.Now())
		if err != nil {
			return err
		}
		n := 0
		for _, m := range lines {
			if m.Total > 0 {
				n++
			}
		}
		if n < 2 {
			return fmt.Errorf("%d of %d booked minutes have events", n, len(lines))
		}
		return nil
	})

	for _, name := range []string{"UTC", "Europe/Berlin", "Asia/Kathmandu"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now().In(zone)
		from := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, zone)
		to := from.AddDate(0, 1, 0)
		add := func() map[string]sums {
			t.Helper()
			all, err := objectives(aggregator.URL)
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]sums{}
			for _, o := range all {
				lines, err := ledger(aggregator.URL, o.ID, from, to)
				if err != nil {
					t.Fatal(err)
				}
				contiguous(t, o.SLO, lines)
				found[o.ID] = add(rat(t, o.Target.String()), lines, from, to)
			}
			return found
		}
		// A minute may close between the two readings; then they are taken again.
		var rows map[string]map[string]string
		var mine map[string]sums
		lab.Eventually(2*time.Minute, "a report between two equal readings of the ledger", func() error {
			before := add()
			rows = reportRows(t, lab, aggregator.URL, from.Format("2006-01"), name)
			mine = add()
			if !reflect.DeepEqual(before, mine) {
				return fmt.Errorf("minutes were booked meanwhile")
			}
			return nil
		})
		if len(rows) != len(mine) || len(mine) < 2 {
			t.Errorf("%s: the report has %d rows, the API %d objectives", name, len(rows), len(mine))
		}
		events := 0
		for id, s := range mine {
			row := rows[id]
			if row == nil {
				t.Errorf("%s: the report has no row for objective %s", name, id)
				continue
			}
			want := func(column string, want *big.Rat) {
				t.Helper()
				if row[column] == "" {
					t.Errorf("%s, %s: %s is empty, the ledger says %s", name, row["slo"], column, want.FloatString(9))
				} else if got := rat(t, row[column]); got.Cmp(want) != 0 {
					t.Errorf("%s, %s: %s is %s, the ledger says %s", name, row["slo"], column, row[column], want.FloatString(9))
				}
			}
			want("good_events", micro(s.good))
			want("total_events", micro(s.total))
			want("budget_used", micro(new(big.Int).Sub(s.total, s.good)))
			want("downtime_s", big.NewRat(60*s.badMinutes, 1))
			if s.total.Sign() > 0 {
				events++
				want("sli_raw", floor9(new(big.Rat).SetFrac(s.good, s.total)))
			} else if row["sli_raw"] != "" {
				t.Errorf("%s, %s: a ratio of no events is %q", name, row["slo"], row["sli_raw"])
			}
			if s.expected > 0 {
				want("coverage_ratio", floor9(big.NewRat(s.counted, s.expected)))
			}
		}
		lab.Say("%s: %d objectives, %d of them with events, equal the ledger", name, len(mine), events)
		if events < 2 {
			t.Errorf("%s: only %d objectives have events", name, events)
		}
	}
	agent.Stop()
	aggregator.Stop()
}

// floor9 rounds down to nine decimals, as the report prints.
func floor9(r *big.Rat) *big.Rat {
	billion := big.NewInt(1_000_000_000)
	n := new(big.Int).Mul(r.Num(), billion)
	return new(big.Rat).SetFrac(n.Div(n, r.Denom()), billion)
}

// reportRows returns the report's lines by objective and column.
func reportRows(t *testing.T, lab *harness.Lab, server, month, zone string) map[string]map[string]string {
	t.Helper()
	out, err := harness.Run(lab.Program("nines-aggregator"), "report", "--month", month, "--timezone", zone,
		"--format", "csv", "--output", "-", "--server", server)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil || len(lines) == 0 {
		t.Fatalf("the report's CSV: %v in %.300q", err, out)
	}
	rows := map[string]map[string]string{}
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = line[i]
		}
		if rows[row["objective_id"]] != nil {
			t.Errorf("the report has two rows for objective %s", row["objective_id"])
		}
		rows[row["objective_id"]] = row
	}
	return rows
}

// The agent beats once in each minute, also while nobody listens. So however
// often the aggregator is killed, each minute of the book holds one beat.
func TestKillNineLosesNoMinute(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	aggregator := lab.Aggregator("--slos", slos(lab))
	agent := lab.Agent(harness.AgentConfig{Node: "node-1", SendTo: aggregator.URL})
	begin := time.Now()
	lab.Eventually(3*time.Minute, "the agent is heard", func() error {
		o, err := objectiveOf(aggregator.URL, "node-heard")
		if err == nil && o.Coverage == nil {
			err = fmt.Errorf("nothing was expected so far")
		}
		return err
	})
	booked := func() (lines []minute, err error) {
		o, err := objectiveOf(aggregator.URL, "node-heard")
		if err != nil {
			return nil, err
		}
		return ledger(aggregator.URL, o.ID, begin.Add(-time.Hour), time.Now())
	}
	// Once before anything is booked, twice in quick succession, and once
	// while minutes are being booked.
	kill := func() {
		aggregator.Kill()
		aggregator.Start()
		lab.Say("killed the aggregator and started it again")
	}
	lab.Until(begin.Add(20*time.Second), "some samples")
	kill()
	kill()
	lab.Eventually(8*time.Minute, "minutes are booked", func() error {
		lines, err := booked()
		if err == nil && len(lines) == 0 {
			err = fmt.Errorf("none is")
		}
		return err
	})
	first, err := booked()
	if err != nil {
		t.Fatal(err)
	}
	kill()
	last := time.Now().Truncate(time.Minute)
	lab.Eventually(10*time.Minute, "the minute of the last kill is booked", func() error {
		lines, err := booked()
		if err == nil && (len(lines) == 0 || lines[len(lines)-1].Minute.Before(last)) {
			err = fmt.Errorf("%d minutes are booked", len(lines))
		}
		return err
	})
	agent.Stop()

	lines, err := booked()
	if err != nil {
		t.Fatal(err)
	}
	contiguous(t, "node-heard", lines)
	for i, m := range first {
		if !lines[i].Minute.Equal(m.Minute) {
			t.Fatalf("minute %s, booked before the last kill, is %s after it", m.Minute.Format(time.TimeOnly), lines[i].Minute.Format(time.TimeOnly))
		}
	}
	// The first beat is the baseline of a new series; the minute before it and
	// its own may hold none.
	start := -1
	for i, m := range lines {
		if start < 0 && m.Total > 0 {
			start = i
		}
		if start >= 0 && (m.Total != 1_000_000 || m.GoodHigh != m.Total || len(m.Gaps) > 0) {
			t.Errorf("minute %s holds %d good of %d micro-events and %d gaps; want one beat", m.Minute.Format(time.TimeOnly), m.GoodHigh, m.Total, len(m.Gaps))
		}
	}
	if start < 0 || lines[start].Minute.After(begin.Add(2*time.Minute)) {
		t.Errorf("the first minute with a beat is number %d of %d", start, len(lines))
	}
	lab.Say("%d minutes, each once, through 3 kills", len(lines))

	// What the book says after a clean stop is what it said before.
	aggregator.Stop()
	aggregator.Start()
	again, err := booked()
	if err != nil {
		t.Fatal(err)
	}
	if len(again) < len(lines) || !reflect.DeepEqual(again[:len(lines)], lines) {
		t.Errorf("after a clean stop the book is another: %v, was %v", again, lines)
	}
}
