package store

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"runtime"
	"strings"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	apiv1 "github.com/prometheus/prometheus/web/api/v1"

	"nines/pkg/ops"
)

const apiPrefix = "/api/v1"

// Query evaluates a PromQL expression at one instant. It waits for one of
// QueryConcurrency places and ends with QueryTimeout or the context.
func (db *DB) Query(ctx context.Context, expr string, at time.Time) (parser.Value, error) {
	q, err := db.engine.NewInstantQuery(ctx, db.tsdb, nil, expr, at)
	if err != nil {
		return nil, fmt.Errorf("parse query: %w", err)
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, fmt.Errorf("run query: %w", res.Err)
	}
	// Close gives the points back to a pool.
	return copyValue(res.Value), nil
}

// API answers the Prometheus HTTP API under /api/v1/ for reading: query,
// query_range, query_exemplars, series, labels, label/…/values, metadata,
// format_query, parse_query, read and status. Rules, alerts, targets and
// alertmanagers are empty lists: this store has none. What is not served
// answers 404 in the API's own form. Samples of gatherer are told by
// status/self_metrics.
func (db *DB) API(gatherer prometheus.Gatherer) http.Handler {
	b := ops.ReadBuild()
	cors := regexp.MustCompile("^(?:" + db.cfg.CORSOrigin + ")$")
	none := nothing{}
	started := db.now()
	api := apiv1.NewAPI(
		db.engine, db.tsdb, nil, nil, db.tsdb,
		func(context.Context) apiv1.ScrapePoolsRetriever { return none },
		func(context.Context) apiv1.TargetRetriever { return none },
		func(context.Context) apiv1.AlertmanagerRetriever { return none },
		func() config.Config { return config.DefaultConfig },
		map[string]string{
			"query.lookback-delta":        model.Duration(db.cfg.Lookback).String(),
			"query.max-concurrency":       fmt.Sprint(db.cfg.QueryConcurrency),
			"query.max-samples":           fmt.Sprint(db.cfg.QueryMaxSamples),
			"query.timeout":               model.Duration(db.cfg.QueryTimeout).String(),
			"storage.tsdb.retention.time": model.Duration(db.cfg.Retention).String(),
			"storage.tsdb.retention.size": fmt.Sprint(db.cfg.RetentionSize),
		},
		apiv1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f }, // an open store is ready
		admin{db.tsdb}, db.cfg.Dir,
		false,    // no deleting over HTTP
		false, 0, // no search endpoints
		db.log,
		func(context.Context) apiv1.RulesRetriever { return none },
		db.cfg.QueryMaxSamples, db.cfg.QueryConcurrency, 1<<20, // remote read: samples, requests, bytes of a frame
		false, // not the agent mode of Prometheus
		cors,
		func() (apiv1.RuntimeInfo, error) {
			host, err := os.Hostname()
			if err != nil {
				return apiv1.RuntimeInfo{}, fmt.Errorf("read host name: %w", err)
			}
			return apiv1.RuntimeInfo{
				StartTime: started, ServerTime: db.now(), Hostname: host,
				ReloadConfigSuccess: true, LastConfigTime: started,
				GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0),
				StorageRetention: model.Duration(db.cfg.Retention).String(),
			}, nil
		},
		&apiv1.PrometheusVersion{Version: b.Version, Revision: b.Revision, BuildDate: b.Time, GoVersion: b.GoVersion},
		func() []notifications.Notification { return []notifications.Notification{} },
		func() (<-chan notifications.Notification, func(), bool) { return nil, func() {}, false },
		gatherer, nil,
		nil,        // the usual statistics
		false, nil, // writing is Receiver's
		false, false, false, // no OTLP
		false, // start timestamps are stored, not turned into zeros
		db.cfg.Lookback,
		false, false,
		nil,
		features.NewRegistry(),
		apiv1.OpenAPIOptions{},
		db.parser,
	)
	router := route.New().WithPrefix(apiPrefix)
	api.Register(router)

	mux := http.NewServeMux()
	mux.Handle("GET "+apiPrefix+"/metadata", db.meta)
	for _, path := range []string{
		"/query", "/query_range", "/query_exemplars", "/format_query", "/parse_query",
		"/labels", "/label/{name}/values", "/series", "/read",
		"/targets", "/targets/metadata", "/alertmanagers", "/rules", "/alerts", "/scrape_pools", "/features",
		"/status/buildinfo", "/status/runtimeinfo", "/status/flags", "/status/config",
		"/status/tsdb", "/status/tsdb/blocks", "/status/walreplay", "/status/self_metrics", "/openapi.yaml",
	} {
		mux.Handle(apiPrefix+path, router)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		respondError(w, http.StatusNotFound, "not_found", r.URL.Path+" is not served here")
	})
	return db.metrics.instrument(handlerName, db.bounded(mux))
}

// bounded ends a request with QueryTimeout, and answers 503 while four times
// QueryConcurrency are in work: that many wait for a place at most.
func (db *DB) bounded(next http.Handler) http.Handler {
	places := make(chan struct{}, 4*db.cfg.QueryConcurrency)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			w.Header().Set("Retry-After", retryAfter)
			respondError(w, http.StatusServiceUnavailable, "unavailable", fmt.Sprintf("%d requests are in work already: try again later, or raise query_concurrency", cap(places)))
			return
		}
		if db.poisoned.Load() {
			respondError(w, http.StatusServiceUnavailable, "unavailable", db.Err().Error())
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), db.cfg.QueryTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// handlerName is the label of a request of the API.
func handlerName(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, apiPrefix+"/")
	switch {
	case strings.HasPrefix(path, "label/"):
		return "label_values"
	case strings.HasPrefix(path, "status/"):
		return "status"
	case path == "query" || path == "query_range" || path == "query_exemplars" || path == "series" || path == "labels" || path == "metadata":
		return path
	}
	return handlerOther
}

// slots bounds the queries that run at once; others wait.
type slots struct{ free chan struct{} }

func newSlots(n int) *slots { return &slots{make(chan struct{}, n)} }

func (s *slots) GetMaxConcurrent() int { return cap(s.free) }

func (s *slots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case s.free <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for one of %d places: %w", cap(s.free), ctx.Err())
	}
}

func (s *slots) Delete(int) { <-s.free }

func (s *slots) Close() error { return nil }

// nothing answers for the parts of a Prometheus that this store lacks.
type nothing struct{}

func (nothing) ScrapePools() []string                       { return []string{} }
func (nothing) TargetsActive() map[string][]*scrape.Target  { return map[string][]*scrape.Target{} }
func (nothing) TargetsDropped() map[string][]*scrape.Target { return map[string][]*scrape.Target{} }
func (nothing) TargetsDroppedCounts() map[string]int        { return map[string]int{} }
func (nothing) Alertmanagers() []*url.URL                   { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL            { return nil }
func (nothing) RuleGroups() []*rules.Group                  { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule        { return nil }
func (nothing) ScrapePoolConfig(name string) (*config.ScrapeConfig, error) {
	return nil, fmt.Errorf("no scrape pool %q: this store scrapes nothing", name)
}

// admin tells statistics of the database; the API deletes nothing.
type admin struct{ *tsdb.DB }

func (a admin) Stats(label string, limit int) (*tsdb.Stats, error) {
	return a.Head().Stats(label, limit), nil
}

// WALReplayStatus is asked of an open store: the replay is over.
func (admin) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }

func (a admin) BlockMetas() ([]tsdb.BlockMeta, error) { return a.DB.BlockMetas(), nil }
