package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// SchemaVersion is the version of the CSV columns and of the JSON document. It
// rises when a field changes its meaning or goes away, not when one is added.
const SchemaVersion = 1

// Columns are those of the CSV file in their order. Those whose content comes
// with agreements, exclusions, incidents and costs are there and empty.
var Columns = strings.Split("schema_version,report_id,revision,report_state,as_of_revision,period_start,period_end,timezone,"+
	"cluster,namespace,service,slo,objective_id,group,agreement,team,sli_type,target,good_events,total_events,"+
	"sli_raw,sli_adjusted,sli_lower,sli_upper,met,budget_total,budget_used,budget_remaining_ratio,downtime_s,excluded_s,"+
	"coverage_ratio,no_data_s,incidents,longest_incident_s,mttr_s,max_burn_rate_1h,prev_sli,delta,"+
	"credit_percent,credit_low,credit_amount,credit_high,currency,spec_sha256", ",")

// CSV returns one line an objective under one line of names, as RFC 4180 has it:
// UTF-8, lines that end in CR LF, decimals with a dot and nine digits rounded
// down, times in UTC as RFC 3339. met is yes, no, inconclusive or "no events";
// downtime_s is 60 times the bad minutes. An empty cell means that the figure
// does not exist. Text that a spreadsheet would take for a formula has an
// apostrophe in front.
func (r Report) CSV() ([]byte, error) {
	var buf bytes.Buffer
	w := csv.NewWriter(&buf)
	w.UseCRLF = true
	if err := w.Write(Columns); err != nil {
		return nil, fmt.Errorf("write CSV: %w", err)
	}
	for _, row := range r.Rows {
		cells := r.cells(row)
		line := make([]string, len(Columns))
		for i, c := range Columns {
			line[i] = cells[c]
		}
		if err := w.Write(line); err != nil {
			return nil, fmt.Errorf("write CSV: %w", err)
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return nil, fmt.Errorf("write CSV: %w", err)
	}
	return buf.Bytes(), nil
}

var metWords = map[sla.Verdict]string{sla.Met: "yes", sla.Missed: "no", sla.Inconclusive: "inconclusive", sla.NoEvents: "no events"}

func (r Report) cells(row Row) map[string]string {
	o := row.Objective
	low, high := row.Sum.Bounds()
	budgetTotal := ""
	if row.Budget.Allowed != nil {
		budgetTotal = trimmed(events(row.Budget.Allowed))
	}
	var delta *big.Rat
	if now := row.Sum.Good(); now != nil && row.Previous != nil {
		delta = new(big.Rat).Sub(now, row.Previous)
	}
	return map[string]string{
		"schema_version":         strconv.Itoa(SchemaVersion),
		"report_id":              text(r.ID()),
		"report_state":           string(r.State),
		"as_of_revision":         strconv.FormatUint(r.Head.Seq, 10),
		"period_start":           r.Month.Start().UTC().Format(time.RFC3339),
		"period_end":             r.Month.End().UTC().Format(time.RFC3339),
		"timezone":               text(r.Month.Timezone()),
		"cluster":                text(o.Cluster),
		"namespace":              text(o.Namespace),
		"service":                text(o.Service),
		"slo":                    text(o.SLO),
		"objective_id":           o.ID.String(),
		"group":                  text(group(o.Group)),
		"team":                   text(o.Team),
		"sli_type":               "events",
		"target":                 o.Target.String(),
		"good_events":            sla.Events(row.Sum.GoodHigh),
		"total_events":           sla.Events(row.Sum.Total),
		"sli_raw":                decimal(row.Sum.Good()),
		"sli_lower":              decimal(low),
		"sli_upper":              decimal(high),
		"met":                    metWords[row.Verdict],
		"budget_total":           budgetTotal,
		"budget_used":            sla.Events(row.Budget.Bad),
		"budget_remaining_ratio": decimal(row.Budget.Remaining),
		"downtime_s":             strconv.FormatInt(60*row.BadMinutes, 10),
		"coverage_ratio":         decimal(row.Sum.Coverage()),
		"no_data_s":              seconds(row.NoData),
		"max_burn_rate_1h":       decimal(row.MaxBurn),
		"prev_sli":               decimal(row.Previous),
		"delta":                  decimal(delta),
		"spec_sha256":            text(o.SpecSHA256),
	}
}

// text neutralises what a spreadsheet would run.
func text(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(s)[0]) {
		return "'" + s
	}
	return s
}

// decimal prints nine decimals rounded down, and nothing for no figure.
func decimal(r *big.Rat) string {
	if r == nil {
		return ""
	}
	return sla.FloorDecimal(r, 9)
}

// events turns micro-events into events.
func events(micro *big.Rat) string {
	return sla.FloorDecimal(new(big.Rat).Quo(micro, big.NewRat(sla.Micro, 1)), 6)
}

func trimmed(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func seconds(d time.Duration) string {
	return trimmed(sla.FloorDecimal(big.NewRat(d.Milliseconds(), 1000), 3))
}
