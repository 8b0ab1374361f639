package metric

// Series that the aggregator exposes about itself.
const (
	AggregatorBuildInfo = "nines_aggregator_build_info"
)

var aggregatorDefs = []Def{
	{AggregatorBuildInfo, Gauge, "", []string{"version", "revision", "go_version"},
		"Always 1; the labels say which build of the aggregator runs."},
}
