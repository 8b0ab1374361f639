package metric

// Series that the aggregator exposes about itself.
const (
	AggregatorBuildInfo = "nines_aggregator_build_info"
	SLOTarget           = "nines_slo_target_ratio"
	SLOBudgetRemaining  = "nines_slo_error_budget_remaining_ratio"
	SLOBurnRate         = "nines_slo_burn_rate"
	SLOCoverage         = "nines_slo_coverage_ratio"
	SLOAlertFiring      = "nines_slo_alert_firing"
	PolicyProblems      = "nines_policy_problems"
	PolicyLoaded        = "nines_policy_load_ok"
)

var sloLabels = []string{"objective_id", "service", "slo", "objective", "group"}

var aggregatorDefs = []Def{
	{AggregatorBuildInfo, Gauge, "", []string{"version", "revision", "go_version"},
		"Always 1; the labels say which build of the aggregator runs."},
	{SLOTarget, Gauge, "ratio", sloLabels, "Share of good events that the objective promises."},
	{SLOBudgetRemaining, Gauge, "ratio", sloLabels,
		"Share of the period's error budget that is left: 1 is untouched, 0 is spent, below 0 is overspent."},
	{SLOBurnRate, Gauge, "", append([]string{"window"}, sloLabels...),
		"Error ratio of the window divided by the budget, 1 minus the target: at 1 the budget lasts exactly the period."},
	{SLOCoverage, Gauge, "ratio", append([]string{"window"}, sloLabels...),
		"Counted part of the expected source time of the window, or of the objective's period."},
	{SLOAlertFiring, Gauge, "", append([]string{"burn_tier", "severity"}, sloLabels...),
		"1 while the tier's alert fires, absent otherwise."},
	{PolicyProblems, Gauge, "", nil, "Errors in the SLO files as they are now, and objectives that cannot be evaluated."},
	{PolicyLoaded, Gauge, "", nil,
		"1 if the SLO files as they are now are in force, 0 while the last good ones are used instead."},
}
