package metric

// Series that agent/collect/scrape exposes. The label owner says who named the
// targets: static (the agent's file), kubelet or pods.
const (
	ScrapeTargets        = "nines_agent_scrape_targets"
	Scrapes              = "nines_agent_scrapes_total"
	ScrapeSamples        = "nines_agent_scrape_samples_total"
	ScrapesLost          = "nines_agent_scrapes_lost_total"
	ScrapeLimitsExceeded = "nines_agent_scrape_limits_exceeded_total"
	ScrapeSamplesRefused = "nines_agent_scrape_samples_refused_total"
	ScrapeSeries         = "nines_agent_scrape_series"
	ScrapeSeriesUnseen   = "nines_agent_scrape_series_unseen_total"
	ScrapePoolsFailed    = "nines_agent_scrape_jobs_failed_total"
)

var scrapeDefs = []Def{
	{ScrapeTargets, Gauge, "", []string{"owner", "state"},
		"Targets by state: up or down at their newest scrape, waiting for their first one, dropped by relabelling, invalid, or refused because the node has too many."},
	{Scrapes, Counter, "", []string{"owner", "result"},
		"Scrapes by result: ok, or failed where the target did not answer, answered garbage or went over a limit."},
	{ScrapeSamples, Counter, "", []string{"owner"},
		"Samples of targets that were put into the queue, without those about the scrapes themselves and without staleness markers."},
	{ScrapesLost, Counter, "", []string{"owner"},
		"Scrapes whose samples the queue did not take; they are not tried again, the next scrape brings newer ones."},
	{ScrapeLimitsExceeded, Counter, "", []string{"limit"},
		"Scrapes that failed because a target went over a limit: samples, body, labels or buckets."},
	{ScrapeSamplesRefused, Counter, "", []string{"reason"},
		"Samples left out of a scrape that went on without them: duplicate (given twice on one page) or out_of_bounds (more than ten minutes ahead of now)."},
	{ScrapeSeries, Gauge, "", nil,
		"Series whose newest sample is kept for the page /metrics/pods."},
	{ScrapeSeriesUnseen, Counter, "", nil,
		"New series that are sent but not kept for the page /metrics/pods, because it holds too many."},
	{ScrapePoolsFailed, Counter, "", nil,
		"Attempts to start or to change a job that failed, such as for a certificate that cannot be read; the log says why."},
}
