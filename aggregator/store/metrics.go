package store

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nines/pkg/metric"
)

// Reason says why a sample was refused.
type Reason string

// The reasons, as in the label of nines_store_samples_total.
const (
	Future           Reason = "future"            // more than MaxAhead before the receiver's clock
	TooOld           Reason = "too_old"           // beyond the out-of-order window
	OutOfOrder       Reason = "out_of_order"      // older than the series' newest, without a window
	OutOfBounds      Reason = "out_of_bounds"     // older than the store takes, without a window
	Duplicate        Reason = "duplicate"         // another value at a time that the series has
	InvalidLabels    Reason = "invalid_labels"    // no name, a name twice, not UTF-8
	LabelLimit       Reason = "label_limit"       // too many labels, or too long
	SeriesLimit      Reason = "series_limit"      // a new series beyond what its cluster, namespace or sender may have
	RateLimit        Reason = "rate_limit"        // more samples a second than its cluster or namespace may have
	InvalidHistogram Reason = "invalid_histogram" // buckets that contradict themselves
	Unreadable       Reason = "unreadable"        // in a request that is too large or can't be decoded: nobody knows how many
	resultStored            = "stored"            // result, not a reason
	handlerWrite            = "write"             // label of the receiver
	handlerOther            = "other"             // label of what has no name of its own
	retryAfter              = "5"                 // seconds, told with 503
	maxPlaces               = 5                   // refusals told by place in one answer
	maxLabelText            = 1 << 10             // bytes of labels told with a refusal
	maxHelpBytes            = 1 << 10             // bytes of help kept for a metric
	maxVariants             = 8                   // differing metadata kept for one name
)

var reasons = []Reason{Future, TooOld, OutOfOrder, OutOfBounds, Duplicate, InvalidLabels, InvalidHistogram, LabelLimit, SeriesLimit, RateLimit}

var handlers = []string{"query", "query_range", "query_exemplars", "series", "labels", "label_values", "metadata", "status", handlerWrite, handlerOther}

var codes = []int{200, 204, 400, 404, 405, 413, 415, 422, 499, 500, 503}

type metrics struct {
	samples   *prometheus.CounterVec
	commits   *prometheus.CounterVec
	syncs     *prometheus.CounterVec
	syncTime  prometheus.Histogram
	hookTime  prometheus.Histogram
	metadata  prometheus.Gauge
	metaFull  prometheus.Counter
	exemplars *prometheus.CounterVec
	limited   *prometheus.CounterVec
	beyond    *prometheus.CounterVec
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
}

// newMetrics registers everything with every label value at 0, so that the
// first event of each is an increment and not a first sample.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		samples: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.StoreSamples,
			Help: "Samples received by result: stored, or the reason of the refusal."}, []string{"result"}),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.StoreCommits,
			Help: "Batches committed to the database by result: ok or failed."}, []string{"result"}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.StoreSyncs,
			Help: "Syncs of the database's logs by result: ok or failed. Batches that arrive together share one."}, []string{"result"}),
		syncTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: metric.StoreSyncDuration,
			Help: "How long a sync of the database's logs took.", Buckets: []float64{0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 1}}),
		hookTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: metric.StoreHookDuration,
			Help: "How long the append hook took for a batch.", Buckets: []float64{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1}}),
		metadata: prometheus.NewGauge(prometheus.GaugeOpts{Name: metric.StoreMetadataNames,
			Help: "Metric names whose type, unit and help are kept."}),
		metaFull: prometheus.NewCounter(prometheus.CounterOpts{Name: metric.StoreMetadataDrops,
			Help: "Metadata left out because the bound of names was reached."}),
		exemplars: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.StoreExemplars,
			Help: "Exemplars received by result: stored or refused."}, []string{"result"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.StoreLimitedRequests,
			Help: metric.Help(metric.StoreLimitedRequests)}, []string{"limit", "scope"}),
		beyond: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.StoreLimitedSamples,
			Help: metric.Help(metric.StoreLimitedSamples)}, []string{"scope"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.HTTPRequests,
			Help: "HTTP requests answered, by handler and status code."}, []string{"handler", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: metric.HTTPRequestDuration,
			Help:    "How long an HTTP request took, by handler.",
			Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}}, []string{"handler"}),
	}
	m.samples.WithLabelValues(resultStored)
	for _, r := range reasons {
		m.samples.WithLabelValues(string(r))
	}
	for _, v := range []*prometheus.CounterVec{m.commits, m.syncs} {
		v.WithLabelValues("ok")
		v.WithLabelValues("failed")
	}
	m.exemplars.WithLabelValues(resultStored)
	m.exemplars.WithLabelValues("refused")
	for _, s := range scopes {
		m.beyond.WithLabelValues(string(s))
	}
	m.limited.WithLabelValues(limitRate, string(scopeSender))
	m.limited.WithLabelValues(limitRequests, string(scopeAll))
	m.limited.WithLabelValues(limitRequests, string(scopeSender))
	for _, h := range handlers {
		m.duration.WithLabelValues(h)
		for _, c := range codes {
			m.requests.WithLabelValues(h, strconv.Itoa(c))
		}
	}
	reg.MustRegister(m.samples, m.commits, m.syncs, m.syncTime, m.hookTime, m.metadata, m.metaFull, m.exemplars, m.limited, m.beyond, m.requests, m.duration)
	return m
}

// showLimits registers how full the limits of series are.
func showLimits(reg prometheus.Registerer, l *limiter) {
	for _, s := range scopes {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metric.StoreLimitUsed, Help: metric.Help(metric.StoreLimitUsed),
			ConstLabels: prometheus.Labels{"scope": string(s)}}, func() float64 { return l.used(s) }))
	}
}

// instrument counts and times what next answers, under the name that label
// gives the request.
func (m *metrics) instrument(label func(*http.Request) string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, start := label(r), time.Now()
		rec := &codeRecorder{ResponseWriter: w}
		defer func() {
			if rec.code == 0 {
				rec.code = http.StatusOK
			}
			m.requests.WithLabelValues(name, strconv.Itoa(rec.code)).Inc()
			m.duration.WithLabelValues(name).Observe(time.Since(start).Seconds())
		}()
		next.ServeHTTP(rec, r)
	})
}

type codeRecorder struct {
	http.ResponseWriter
	code int
}

func (c *codeRecorder) WriteHeader(code int) {
	if c.code == 0 {
		c.code = code
	}
	c.ResponseWriter.WriteHeader(code)
}

func (c *codeRecorder) Write(b []byte) (int, error) {
	if c.code == 0 {
		c.code = http.StatusOK
	}
	return c.ResponseWriter.Write(b)
}

// Flush is what streamed answers need: those of remote read.
func (c *codeRecorder) Flush() {
	if f, ok := c.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (c *codeRecorder) Unwrap() http.ResponseWriter { return c.ResponseWriter }
