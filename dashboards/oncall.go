package dashboards

import (
	"fmt"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/units"

	"nines/pkg/metric"
	"nines/pkg/sla"
)

// silent gives the agents that were heard within the last hour, but not within
// the last three minutes.
func silent() string {
	h := anyAgent(metric.AgentHeartbeats)
	return "group " + perNode + " (last_over_time(" + h + "[1h]))\nunless group " + perNode + " (last_over_time(" + h + "[3m]))"
}

func onCall(b *Board, _ []sla.Objective) {
	b.From = "now-6h"
	b.Variables = []Variable{clusterVariable, serviceVariable, sloVariable}
	b.Annotations = []Annotation{alertMarks}
	firing := slo(metric.SLOAlertFiring)
	b.Rows = append(b.Rows,
		Row{"Now", []Panel{
			{Kind: Stat, Title: "Pages firing", Unit: units.Short, NoData: "No page fires.",
				Description: "Burn-rate alerts of severity page that fire now.",
				Queries:     []Query{{Expr: "count(" + slo(metric.SLOAlertFiring, `severity="page"`) + ") or vector(0)"}}, Steps: steps("green", 1.0, "red"), Link: allOnCall},
			{Kind: Stat, Title: "Tickets firing", Unit: units.Short, NoData: "No ticket fires.",
				Description: "Burn-rate alerts of severity ticket that fire now: slow burns that can wait for the morning.",
				Queries:     []Query{{Expr: "count(" + slo(metric.SLOAlertFiring, `severity="ticket"`) + ") or vector(0)"}}, Steps: steps("green", 1.0, "orange"), Link: allOnCall},
			{Kind: Stat, Title: "Highest burn of the last hour", Unit: units.Short, Decimals: 1, NoData: "No events in the last hour.",
				Description: "The highest burn rate of any objective over one hour. At 1 the budget lasts exactly the period; at 14.4 a budget of 30 days is gone in about two days.",
				Queries:     []Query{{Expr: "max(" + slo(metric.SLOBurnRate, `window="1h"`) + ")"}}, Steps: steps("green", 1.0, "orange", 14.4, "red"), Link: allOnCall},
			{Kind: Stat, Title: "Agents gone silent", Unit: units.Short, NoData: "No agent went silent.",
				Description: "Agents that sent heartbeats within the last hour, but none within the last three minutes. Their services are unseen, which is not the same as healthy.",
				Queries:     []Query{{Expr: "count(" + silent() + ") or vector(0)"}}, Steps: steps("green", 1.0, "red"), Link: allNodes},
		}},
		Row{"What burns, and since when", []Panel{
			{Kind: Table, Title: "Alerts that fire", Unit: units.Short, NoData: "No burn-rate alert fires.",
				Description: "Each burn-rate alert that fires now, by objective and tier, with the burn of the last hour and the budget that is left.",
				Queries: []Query{
					{"max by (service, slo, objective, objective_id, burn_tier, severity) (" + firing + ")", "Firing", units.Short},
					{"max " + perSLO + " (" + slo(metric.SLOBurnRate, `window="1h"`) + ")\nand on (objective_id) " + firing, "Burn, 1 hour", units.Short},
					{"max " + perSLO + " (" + slo(metric.SLOBudgetRemaining) + ")\nand on (objective_id) " + firing, "Budget left", units.PercentUnit},
				}, Link: Link{"Only this SLO", "/d/nines-oncall/" + carry + "&var-slo=${__data.fields.slo}"}},
			{Kind: Timeline, Title: "Alerts over time", Unit: units.Short, NoData: "No burn-rate alert fired in this time.",
				Description: "When each tier of each objective began and ceased to fire.",
				Queries:     []Query{{"max by (service, slo, objective_id, burn_tier, severity) (" + firing + ")", "{{service}}: {{slo}}, {{burn_tier}}", ""}},
				Steps:       steps("green", 1.0, "red"), Link: toOnCall},
		}},
	)
	row := Row{Title: "How fast"}
	for _, t := range sla.Tiers {
		limit, _ := t.Threshold(30 * 24 * time.Hour).Float64()
		long, short := sla.WindowName(t.Long), sla.WindowName(t.Short)
		window := func(w string) string {
			return "max " + perSLO + " (" + slo(metric.SLOBurnRate, fmt.Sprintf("window=%q", w)) + ")"
		}
		row.Panels = append(row.Panels, Panel{
			Kind: Graph, Title: fmt.Sprintf("Burn, %s tier: %s and %s", t.Name, long, short), Unit: units.Short, Decimals: 1, Min: at(0), NoData: "No events in these windows.",
			Description: fmt.Sprintf("The alert of this tier (%s) fires while both windows burn above the line. The line is that of a period of 30 days, %g; other periods have their own.", t.Severity, limit),
			Queries:     []Query{{window(long), sloLegend + ", " + long, ""}, {window(short), sloLegend + ", " + short, ""}},
			Steps:       steps("green", limit, "red"), Lines: true, Link: toOnCall,
		})
	}
	b.Rows = append(b.Rows, row, Row{"What happened", []Panel{
		{Kind: Graph, Title: "Bad events per minute", Unit: units.Short, Decimals: 1, Min: at(0), NoData: "No events in this time.",
			Description: "Events that count against each objective, by the minute in which they happened.",
			Queries:     []Query{{badEvents(), sloLegend, ""}}, Steps: steps("green"), Link: toOnCall},
		{Kind: Graph, Title: "Events per minute", Unit: units.Short, Decimals: 1, Min: at(0), NoData: "No events in this time.",
			Description: "All events of each objective, by minute: a ratio of few events moves much.",
			Queries:     []Query{{"sum " + perSLO + " (avg_over_time(" + slo(metric.LedgerTotal) + "[$__rate_interval]))", sloLegend, ""}}, Steps: steps("green"), Link: toOnCall},
		{Kind: Graph, Title: "Coverage of the last five minutes", Unit: units.PercentUnit, Decimals: 1, Min: at(0), Max: at(1), NoData: "No window is evaluated yet.",
			Description: "The part of the expected source time that was counted. Below half an objective is unseen: its quiet proves nothing.",
			Queries:     []Query{{"max " + perSLO + " (" + slo(metric.SLOCoverage, `window="5m"`) + ")", sloLegend, ""}}, Steps: steps("red", .5, "green"), Lines: true, Link: toOnCall},
		{Kind: Table, Title: "Agents gone silent, by node", Unit: units.Short, NoData: "Every agent of the last hour was heard in the last three minutes.",
			Description: "Which nodes stopped sending heartbeats within the last hour.",
			Queries:     []Query{{silent(), "Silent", units.Short}},
			Link:        Link{"This node", "/d/nines-operator/" + carry + "&var-node=${__data.fields.node}"}},
	}})
}
