package dashboards

import (
	"fmt"
	"strconv"

	"github.com/grafana/grafana-foundation-sdk/go/units"

	"nines/pkg/metric"
	"nines/pkg/sla"
)

// lights is the largest number of objectives that get a traffic light each.
// Beyond it the table is the better answer.
const lights = 24

// overRange sums a series of the ledger's projection over the board's range.
func overRange(name string, extra ...string) string {
	return "sum " + perSLO + " (sum_over_time(" + slo(name, extra...) + "[$__range]))"
}

// ratioOverRange is good ÷ total per objective, absent without events.
func ratioOverRange(extra ...string) string {
	return overRange(metric.LedgerGood, extra...) + "\n/ (" + overRange(metric.LedgerTotal, extra...) + " > 0)"
}

const projection = " Taken from the projection of the ledger, as far back as raw metrics are kept; the monthly report is the figure to sign."

func executive(b *Board, objectives []sla.Objective) {
	b.From = "now/M"
	b.Variables = []Variable{serviceVariable, sloVariable}
	b.Annotations = []Annotation{alertMarks}
	target := "max " + perSLO + " (" + slo(metric.SLOTarget) + ")"
	coverage := overRange(metric.LedgerCounted) + "\n/ (" + overRange(metric.LedgerExpected) + " > 0)"
	b.Rows = append(b.Rows, Row{"This month so far", []Panel{
		{Kind: Stat, Title: "Targets kept", Unit: units.Short, NoData: "No objective had events yet.",
			Description: "Objectives whose ratio of good events over the time range reaches their target." + projection,
			Queries:     []Query{{Expr: "sum((" + ratioOverRange() + ")\n>= bool " + target + ")"}}, Steps: steps("green"), Link: allOnCall},
		{Kind: Stat, Title: "Targets missed", Unit: units.Short, NoData: "No objective had events yet.",
			Description: "Objectives whose ratio of good events over the time range is below their target." + projection,
			Queries:     []Query{{Expr: "sum((" + ratioOverRange() + ")\n< bool " + target + ")"}}, Steps: steps("green", 1.0, "red"), Link: allOnCall},
		{Kind: Stat, Title: "Lowest budget left", Unit: units.PercentUnit, Decimals: 1, NoData: "No objective has a budget in use yet.",
			Description: "The error budget left of the objective that has least of it, in that objective's own period. Below 0 it is overspent.",
			Queries:     []Query{{Expr: "min(" + slo(metric.SLOBudgetRemaining) + ")"}}, Steps: steps("red", 0.0, "orange", .25, "green"), Link: allOnCall},
		{Kind: Stat, Title: "Coverage", Unit: units.PercentUnit, Decimals: 2, NoData: "Nothing is booked yet.",
			Description: "The part of the expected time whose events were counted, the least of all objectives. What was not seen is neither good nor bad." + projection,
			Queries:     []Query{{Expr: "min(" + coverage + ")"}}, Steps: steps("red", .5, "orange", .95, "green"), Link: allOnCall},
	}})
	if n := len(objectives); n > 0 && n <= lights {
		row := Row{Title: "Each promise against its target"}
		for _, o := range objectives {
			limit, _ := o.Target.Rat().Float64()
			title := o.Title
			if title == "" {
				title = o.SLO
			}
			row.Panels = append(row.Panels, Panel{
				Kind: Stat, Title: title, Unit: units.PercentUnit, Decimals: 3, NoData: "No events yet.",
				Description: fmt.Sprintf("Good events of all events over the time range, against a target of %s %% (%s, %s).%s", o.Target.Percent(), o.Service, o.SLO, projection),
				Queries:     []Query{{Expr: ratioOverRange("objective_id=" + strconv.Quote(o.ID.String())), Legend: sloLegend}},
				Steps:       steps("red", limit, "green"), Link: toOnCall,
			})
		}
		b.Rows = append(b.Rows, row)
	}
	b.Rows = append(b.Rows,
		Row{"All objectives", []Panel{
			{Kind: Table, Title: "Objectives this month", Unit: units.PercentUnit, Decimals: 3, NoData: "Nothing is booked yet: the first minutes appear about two minutes after the aggregator's start.",
				Description: "Every objective with its target, what it reached, what is left of its error budget, and how much of its time was seen." + projection,
				Queries: []Query{
					{ratioOverRange(), "Reached", units.PercentUnit},
					{target, "Target", units.PercentUnit},
					{"max " + perSLO + " (" + slo(metric.SLOBudgetRemaining) + ")", "Budget left", units.PercentUnit},
					{coverage, "Coverage", units.PercentUnit},
					{overRange(metric.LedgerTotal), "Events", units.Short},
				}, Link: Link{"What burns: on-call", "/d/nines-oncall/" + carry + "&var-slo=${__data.fields.slo}"}},
			{Kind: Bars, Title: "Error budget left", Unit: units.PercentUnit, Decimals: 1, Min: at(0), Max: at(1), NoData: "No objective has a budget in use yet.",
				Description: "What is left of each objective's error budget in its own period. An empty bar is spent or overspent; the number says by how much.",
				Queries:     []Query{{Expr: "sort(max " + perSLO + " (" + slo(metric.SLOBudgetRemaining) + "))", Legend: sloLegend}},
				Steps:       steps("red", 0.0, "orange", .25, "green"), Link: toOnCall},
		}},
		Row{"Course", []Panel{
			{Kind: Graph, Title: "Ratio of good events, last 24 hours at each point", Unit: units.PercentUnit, Decimals: 3, Max: at(1), NoData: "No events yet.",
				Description: "For each point in time the good events of the 24 hours before it, divided by all events of these hours.",
				Queries: []Query{{"sum " + perSLO + " (sum_over_time(" + slo(metric.LedgerGood) + "[1d]))\n/ (sum " + perSLO + " (sum_over_time(" + slo(metric.LedgerTotal) + "[1d])) > 0)",
					sloLegend, ""}}, Steps: steps("green"), Link: toOnCall},
			{Kind: Graph, Title: "Error budget left over time", Unit: units.PercentUnit, Decimals: 1, NoData: "No objective has a budget in use yet.",
				Description: "How each objective's error budget was used up over time, in its own period. Below 0 it is overspent.",
				Queries:     []Query{{"max " + perSLO + " (" + slo(metric.SLOBudgetRemaining) + ")", sloLegend, ""}}, Steps: steps("red", 0.0, "green"), Lines: true, Link: toOnCall},
			{Kind: Graph, Title: "Coverage, last hour at each point", Unit: units.PercentUnit, Decimals: 1, Min: at(0), Max: at(1), NoData: "Nothing is booked yet.",
				Description: "For each point in time the part of the expected source time of the hour before it whose events were counted.",
				Queries: []Query{{"sum " + perSLO + " (sum_over_time(" + slo(metric.LedgerCounted) + "[1h]))\n/ (sum " + perSLO + " (sum_over_time(" + slo(metric.LedgerExpected) + "[1h])) > 0)",
					sloLegend, ""}}, Steps: steps("red", .95, "green"), Lines: true, Link: toOnCall},
			{Kind: Graph, Title: "Bad events per minute", Unit: units.Short, Decimals: 1, Min: at(0), NoData: "No events yet.",
				Description: "Events that count against each objective, by the minute in which they happened.",
				Queries:     []Query{{badEvents(), sloLegend, ""}}, Steps: steps("green"), Link: toOnCall},
		}},
	)
}

func badEvents() string {
	return "sum " + perSLO + " (avg_over_time(" + slo(metric.LedgerTotal) + "[$__rate_interval]))\n- sum " + perSLO + " (avg_over_time(" + slo(metric.LedgerGood) + "[$__rate_interval]))"
}

var alertMarks = Annotation{
	Name: "Burn-rate alerts", Expr: "sum by (service, slo, burn_tier, severity) (" + slo(metric.SLOAlertFiring) + ")",
	Title: "{{service}}: {{slo}}", Text: "{{burn_tier}} burn, {{severity}}", Colour: "red",
}
