package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"time"

	"nines/pkg/sla"
)

// The JSON document. Every decimal is a string, so that no reader turns it into
// a float without meaning to; a figure that does not exist is null. Events are
// events, ratios have nine digits rounded down, times are UTC.
type document struct {
	SchemaVersion int         `json:"schema_version"`
	ReportID      string      `json:"report_id"`
	State         State       `json:"report_state"` // "so far" or "complete"
	Month         string      `json:"month"`
	Timezone      string      `json:"timezone"`
	PeriodStart   time.Time   `json:"period_start"`
	PeriodEnd     time.Time   `json:"period_end"` // does not belong to it
	AsOf          position    `json:"as_of"`
	MinCoverage   string      `json:"minimum_coverage_ratio"`
	Program       string      `json:"program"`
	Summary       []string    `json:"summary"`
	Verdicts      verdicts    `json:"verdicts"`
	Objectives    []objective `json:"objectives"`
}

type position struct {
	Time     *time.Time `json:"time"` // when the batch was booked
	Term     uint64     `json:"term"`
	Sequence uint64     `json:"sequence"`
	Hash     string     `json:"hash"`
}

type verdicts struct {
	Met          int `json:"met"`
	Missed       int `json:"missed"`
	Inconclusive int `json:"inconclusive"`
	NoEvents     int `json:"no_events"`
}

type objective struct {
	ID          sla.ID            `json:"objective_id"`
	Cluster     string            `json:"cluster"`
	Namespace   string            `json:"namespace"`
	Service     string            `json:"service"`
	SLO         string            `json:"slo"`
	Name        string            `json:"name"`
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Team        string            `json:"team"`
	Group       map[string]string `json:"group"`
	SpecSHA256  string            `json:"spec_sha256"`
	SLI         sla.SLI           `json:"sli"`
	Target      string            `json:"target"`
	Verdict     sla.Verdict       `json:"verdict"` // met, missed, inconclusive, no events

	MeasuredFrom time.Time `json:"measured_from"`
	MeasuredTo   time.Time `json:"measured_to"`
	Good         string    `json:"good_events"`
	GoodLow      string    `json:"good_events_low"` // less than good_events where a threshold lies between two buckets
	Total        string    `json:"total_events"`
	Ratio        *string   `json:"ratio"`
	Lower        *string   `json:"ratio_lower"`
	Upper        *string   `json:"ratio_upper"`
	Previous     *string   `json:"previous_ratio"`

	Coverage        *string `json:"coverage_ratio"`
	TimedCoverage   *string `json:"timed_coverage_ratio"`
	ExpectedSeconds string  `json:"expected_source_seconds"`
	CountedSeconds  string  `json:"counted_source_seconds"`
	TimedSeconds    string  `json:"timed_source_seconds"`
	NoDataSeconds   string  `json:"no_data_seconds"`
	UnbookedMinutes int64   `json:"unbooked_minutes"`

	BudgetAllowed   string  `json:"budget_allowed_events"`
	BudgetUsed      string  `json:"budget_used_events"`
	BudgetRemaining *string `json:"budget_remaining_ratio"`
	MaxBurn         *string `json:"max_burn_rate_1h"`
	BadMinutes      int64   `json:"bad_minutes"`
	JudgedMinutes   int64   `json:"judged_minutes"`

	Days     []day   `json:"days"`
	Burndown []point `json:"burndown"`
}

type day struct {
	Date       string   `json:"date"`
	State      DayState `json:"state"` // good, at risk, bad, no data, ahead
	Good       string   `json:"good_events"`
	Total      string   `json:"total_events"`
	Ratio      *string  `json:"ratio"`
	Coverage   *string  `json:"coverage_ratio"`
	BadMinutes int64    `json:"bad_minutes"`
}

type point struct {
	Time      time.Time `json:"time"`
	Remaining string    `json:"budget_remaining_ratio"`
}

// JSON returns the report as one document.
func (r Report) JSON() ([]byte, error) {
	d := document{
		SchemaVersion: SchemaVersion, ReportID: r.ID(), State: r.State,
		Month: r.Month.String(), Timezone: r.Month.Timezone(),
		PeriodStart: r.Month.Start().UTC(), PeriodEnd: r.Month.End().UTC(),
		AsOf:        position{Term: r.Head.Term, Sequence: r.Head.Seq, Hash: r.Hash()},
		MinCoverage: trimmed(decimal(r.MinCover)), Program: r.Program, Summary: r.Summary,
		Verdicts:   verdicts{r.count(sla.Met), r.count(sla.Missed), r.count(sla.Inconclusive), r.count(sla.NoEvents)},
		Objectives: []objective{},
	}
	if at := r.AsOf(); !at.IsZero() {
		d.AsOf.Time = &at
	}
	for _, row := range r.Rows {
		d.Objectives = append(d.Objectives, objectiveOf(row))
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return buf.Bytes(), nil
}

func objectiveOf(row Row) objective {
	o := row.Objective
	low, high := row.Sum.Bounds()
	out := objective{
		ID: o.ID, Cluster: o.Cluster, Namespace: o.Namespace, Service: o.Service, SLO: o.SLO, Name: o.Name,
		Title: o.Title, Description: o.Description, Team: o.Team, Group: map[string]string{}, SpecSHA256: o.SpecSHA256,
		SLI: o.SLI, Target: o.Target.String(), Verdict: row.Verdict,
		MeasuredFrom: row.From.Time(), MeasuredTo: row.To.Time(),
		Good: sla.Events(row.Sum.GoodHigh), GoodLow: sla.Events(row.Sum.GoodLow), Total: sla.Events(row.Sum.Total),
		Ratio: some(row.Sum.Good()), Lower: some(low), Upper: some(high), Previous: some(row.Previous),
		Coverage: some(row.Sum.Coverage()), TimedCoverage: some(row.Sum.TimedCoverage()),
		ExpectedSeconds: sourceSeconds(row.Sum.Expected), CountedSeconds: sourceSeconds(row.Sum.Counted), TimedSeconds: sourceSeconds(row.Sum.Timed),
		NoDataSeconds: seconds(row.NoData), UnbookedMinutes: row.Unbooked,
		BudgetAllowed: trimmed(events(row.Budget.Allowed)), BudgetUsed: sla.Events(row.Budget.Bad), BudgetRemaining: some(row.Budget.Remaining),
		MaxBurn: some(row.MaxBurn), BadMinutes: row.BadMinutes, JudgedMinutes: row.JudgedMinutes,
		Days: []day{}, Burndown: []point{},
	}
	for k, v := range o.Group {
		out.Group[k] = v
	}
	for _, d := range row.Days {
		out.Days = append(out.Days, day{
			Date: d.Date, State: d.State, Good: sla.Events(d.Sum.GoodHigh), Total: sla.Events(d.Sum.Total),
			Ratio: some(d.Sum.Good()), Coverage: some(d.Sum.Coverage()), BadMinutes: d.BadMinutes,
		})
	}
	for _, p := range row.Burndown {
		out.Burndown = append(out.Burndown, point{p.At, decimal(p.Remaining)})
	}
	return out
}

func some(r *big.Rat) *string {
	if r == nil {
		return nil
	}
	s := decimal(r)
	return &s
}

func sourceSeconds(ms sla.Int128) string {
	return trimmed(sla.FloorDecimal(new(big.Rat).SetFrac(ms.Big(), big.NewInt(1000)), 3))
}
