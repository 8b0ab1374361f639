package metric

// Series that aggregator/store and aggregator/cluster expose.
const (
	StoreSamples         = "nines_store_samples_total"
	StoreCommits         = "nines_store_commits_total"
	StoreSyncs           = "nines_store_syncs_total"
	StoreSyncDuration    = "nines_store_sync_duration_seconds"
	StoreHookDuration    = "nines_store_hook_duration_seconds"
	StoreMetadataNames   = "nines_store_metadata_names"
	StoreMetadataDrops   = "nines_store_metadata_dropped_total"
	StoreExemplars       = "nines_store_exemplars_total"
	StoreLimitedRequests = "nines_store_limited_requests_total"
	StoreLimitedSamples  = "nines_store_limited_samples_total"
	StoreLimitUsed       = "nines_store_limit_used_ratio"
	HTTPRequests         = "nines_aggregator_http_requests_total"
	HTTPRequestDuration  = "nines_aggregator_http_request_duration_seconds"
	ClusterFailures      = "nines_cluster_request_failures_total"
)

var storeDefs = []Def{
	{StoreSamples, Counter, "", []string{"result"}, "Samples received by result: stored, or the reason of the refusal."},
	{StoreCommits, Counter, "", []string{"result"}, "Batches committed to the database by result: ok or failed."},
	{StoreSyncs, Counter, "", []string{"result"},
		"Syncs of the database's logs by result: ok or failed. Batches that arrive together share one."},
	{StoreSyncDuration, Histogram, "seconds", nil, "How long a sync of the database's logs took."},
	{StoreHookDuration, Histogram, "seconds", nil, "How long the append hook took for a batch."},
	{StoreMetadataNames, Gauge, "", nil, "Metric names whose type, unit and help are kept."},
	{StoreMetadataDrops, Counter, "", nil, "Metadata left out because the bound of names was reached."},
	{StoreExemplars, Counter, "", []string{"result"}, "Exemplars received by result: stored or refused."},
	{StoreLimitedRequests, Counter, "", []string{"limit", "scope"},
		"Remote-write requests put off with 503, to be sent again, by limit (rate or requests) and by whose limit it is."},
	{StoreLimitedSamples, Counter, "", []string{"scope"},
		"Samples refused because a limit was reached, of series for new ones or of samples a second, by whose limit it is."},
	{StoreLimitUsed, Gauge, "", []string{"scope"},
		"Share of its limit of series that the fullest has in use: of all together, of clusters, of namespaces and of senders."},
	{HTTPRequests, Counter, "", []string{"handler", "code"}, "HTTP requests answered, by handler and status code."},
	{HTTPRequestDuration, Histogram, "seconds", []string{"handler"}, "How long an HTTP request took, by handler."},
	{ClusterFailures, Counter, "", nil, "List and watch requests to the Kubernetes API that failed."},
}
