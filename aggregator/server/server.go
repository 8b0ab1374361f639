package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"nines/aggregator/alert"
	"nines/aggregator/cluster"
	"nines/aggregator/evaluate"
	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/metric"
	"nines/pkg/openslo"
	"nines/pkg/ops"
	"nines/pkg/sla"
)

const (
	// tickEvery is how often minutes are closed and alerts are judged. A full
	// outage trips the fast tier after 51.8 s of errors at 99.9 % (SRE workbook,
	// chapter 5), so that 5 s more are little.
	tickEvery = 5 * time.Second
	// scrapeEvery is how often the aggregator's own series go into its store.
	scrapeEvery = 15 * time.Second
	// artefactsEvery is how often report and dashboards are written as files.
	artefactsEvery = time.Hour
	// drain is how long open requests may take at a stop.
	drain = 10 * time.Second
)

// Server is the running aggregator.
type Server struct {
	cfg      Config
	log      *slog.Logger
	build    ops.Build
	started  time.Time
	registry *prometheus.Registry
	perSLO   *prometheus.Registry // series of each objective
	health   *ops.Health
	job      *ops.Job

	store     *store.DB
	book      *ledger.Book
	evaluator *evaluate.Evaluator
	alerts    *alert.Alerter
	policy    policy
	problems  prometheus.Gauge
	loaded    prometheus.Gauge
	notes     []string
	scrape    *store.SelfScrape
	copies    *projection
	fires     *store.Target // the series of alerts that fire
	shown     sla.Minute    // the minute whose figures were copied last
	objects   *cluster.Watcher
	release   []func() error // in the order of acquisition

	told    atomic.Pointer[told]                     // what is wrong with the policy
	parts   atomic.Pointer[map[sla.ID]sla.Objective] // of which time slices are cut, which no state shows
	boardMu sync.Mutex
	board   *board // what was drawn last
}

// Run serves until ctx ends. It returns nil after a clean stop. say prints a
// line for a person at a terminal.
func Run(ctx context.Context, cfg Config, log *slog.Logger, say func(format string, args ...any)) (err error) {
	// The port is taken before the stores are opened: a port in use is told at once.
	listener, err := ops.Listen("listen", cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	if host, port, err := net.SplitHostPort(cfg.Listen); err == nil && port == "0" {
		// Any free port was asked for: the page's links name the one that it is.
		_, port, _ = net.SplitHostPort(listener.Addr().String())
		cfg.Listen = net.JoinHostPort(host, port)
	}
	s, err := open(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	say("Nines aggregator %s", s.build.Version)
	say("  page        %s/", cfg.external())
	say("  reports     %s (also on the page)", cfg.folder("reports"))
	say("  dashboards  %s (JSON to import into Grafana)", cfg.folder("dashboards"))
	for _, n := range s.notes {
		say("  note        %s", n)
	}
	if err := s.serve(ctx, listener); err != nil {
		return err
	}
	say("Nines aggregator stopped; a next start goes on from here.")
	return nil
}

// open acquires everything in one straight line and runs the first tick. Each
// acquisition is followed by its release.
func open(ctx context.Context, cfg Config, log *slog.Logger) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: log, build: ops.ReadBuild(), started: time.Now(), health: ops.NewHealth(), registry: prometheus.NewRegistry(), perSLO: prometheus.NewRegistry()}
	s.told.Store(&told{})
	s.parts.Store(&map[sla.ID]sla.Objective{})
	s.policy.dirs = cfg.SLOs
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.buildInfo()

	lock, err := ops.LockFolder(cfg.Data)
	if err != nil {
		return nil, err
	}
	s.closing("data folder", lock.Unlock)

	raw := store.DefaultConfig()
	raw.Dir, raw.Retention = cfg.folder("metrics"), time.Duration(cfg.Retention.Metrics)
	raw.Limits = cfg.Limits
	raw.RetentionSize, raw.OutOfOrder = int64(cfg.Retention.MetricsSize), min(time.Duration(cfg.Retention.Late), raw.Retention)
	if s.store, err = store.Open(raw, log, s.registry); err != nil {
		return nil, err
	}
	s.closing("metric store", s.store.Close)

	if s.book, err = ledger.Open(ledger.Config{Dir: cfg.folder("ledger")}, log); err != nil {
		return nil, err
	}
	s.closing("ledger", s.book.Close)

	own := map[string]string{"job": "nines-aggregator", "instance": cfg.Listen, "cluster": cfg.Cluster}
	s.copies, s.fires = newProjection(s.store, own), s.store.Target(own)
	s.evaluator = evaluate.New(evaluate.Config{
		Raw: s.store, Book: s.book, Query: s.store.Query, Retention: raw.Retention,
		Term: s.book.Head().Term + 1, Started: s.started, Log: log, Registry: s.registry,
		Booked: s.copies.book,
	})
	s.store.SetHook(s.evaluator.Observe)
	s.store.SetRefusedHook(s.refused)

	if s.alerts, err = alert.New(alert.Config{
		Dir: cfg.folder("alerts"), Alertmanagers: cfg.Alertmanagers, ExternalURL: cfg.external(), Interval: tickEvery, Cluster: cfg.Cluster,
	}, log, s.registry); err != nil {
		return nil, err
	}
	if s.scrape, err = store.NewSelfScrape(s.store, store.SelfScrapeConfig{
		Gatherer: s.registry, Interval: scrapeEvery, Started: s.started, Labels: own,
	}, log); err != nil {
		return nil, err
	}
	newFigures(s.perSLO, s.view)
	if s.objects, err = cluster.New(cluster.DefaultConfig(), clusterSink(s.store, cfg.Cluster, cfg.Listen), log, s.registry); err != nil {
		return nil, err
	}
	if len(cfg.Alertmanagers) == 0 {
		s.notes = append(s.notes, "Alerts are shown on the page but sent nowhere: no Alertmanager is configured (alertmanagers: in the configuration, or --alertmanager URL).")
	}
	s.job = s.health.Register("tick", 6*tickEvery)
	if err := s.tick(ctx, time.Now()); err != nil {
		log.Warn("the first tick did not do all of its job", "err", err)
	}
	return s, nil
}

// closing notes how to release what was acquired last.
func (s *Server) closing(name string, release func() error) {
	s.release = append(s.release, func() error {
		if err := release(); err != nil {
			return fmt.Errorf("close the %s: %w", name, err)
		}
		return nil
	})
}

// close releases in the reverse order.
func (s *Server) close() error {
	var errs []error
	for i := len(s.release) - 1; i >= 0; i-- {
		errs = append(errs, s.release[i]())
	}
	s.release = nil
	return errors.Join(errs...)
}

// serve runs all parts until ctx ends or one of them fails.
func (s *Server) serve(ctx context.Context, listener net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	srv := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	group.Go(func() error {
		if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			return errors.Join(fmt.Errorf("end open requests: %w", err), srv.Close())
		}
		return nil
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-s.store.Failed():
			return s.store.Err()
		}
	})
	group.Go(func() error { s.ticks(ctx); return nil })
	group.Go(func() error { s.keepBook(ctx); return nil })
	group.Go(func() error { return s.alerts.Run(ctx) })
	group.Go(func() error { return s.scrape.Run(ctx) })
	group.Go(func() error { return s.objects.Run(ctx) })
	return group.Wait()
}

// ticks calls tick until ctx ends. A tick that takes longer than the interval
// delays the next one; none runs twice at once.
func (s *Server) ticks(ctx context.Context) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	var written time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if err := s.tick(ctx, now); err != nil {
				s.log.Error("a tick did not do all of its job; it is tried again", "err", err)
			}
			if now.Sub(written) >= artefactsEvery {
				if err := s.writeArtefacts(ctx, now); err != nil {
					s.log.Error("reports and dashboards could not be written as files", "err", err)
				}
				written = now
			}
		}
	}
}

// tick is the whole program in one function: policy, minutes, alerts.
func (s *Server) tick(ctx context.Context, now time.Time) error {
	reloaded := s.reload(ctx, now)
	closed := s.evaluator.Tick(ctx, now)
	alerted := s.alerts.Tick(now, alertInputs(s.evaluator.Burning(now, s.alerts.About)))
	if err := s.fires.Write(ctx, now, s.firingSeries()); err != nil {
		s.log.Warn("the alerts that fire could not be copied into the store for queries", "err", err)
	}
	if m := sla.MinuteOf(now); m != s.shown {
		s.shown = m
		if err := s.copies.show(s.evaluator, now); err != nil {
			s.log.Warn("figures of objectives could not be copied into the store for queries", "err", err)
		}
	}
	// Wrong SLO files do not make the aggregator unready: it goes on with the
	// last good ones, and the page, a metric and the log tell of it.
	err := errors.Join(closed, alerted)
	s.job.Report(err)
	s.boardMu.Lock()
	s.board = nil
	s.boardMu.Unlock()
	return errors.Join(reloaded, err)
}

// refused tells the evaluator of samples that the store did not take (R6).
func (s *Server) refused(list []store.RefusedSource) {
	for _, r := range list {
		key := evaluate.SourceKey(r.Job, r.Instance, r.Cluster)
		if r.Any {
			key = ""
		}
		s.evaluator.Refused(key, r.First, r.Last)
	}
}

// keepBook seals days that are over and removes those that are no longer kept,
// soon after a start and then each hour.
func (s *Server) keepBook(ctx context.Context) {
	for wait := 5 * time.Minute; ; wait = time.Hour {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		now := time.Now()
		if sealed, err := s.book.Seal(ctx, now); err != nil && ctx.Err() == nil {
			s.log.Error("days of the ledger could not be sealed; it is tried again in an hour", "err", err)
		} else if sealed > 0 {
			s.log.Info("days of the ledger are sealed", "objective_days", sealed)
		}
		if err := s.retain(now); err != nil {
			s.log.Error("minutes older than retention.ledger could not be removed", "err", err)
		}
	}
}

// retain removes the days of the book that retention.ledger no longer keeps. It
// does nothing on most calls: a day leaves at once.
func (s *Server) retain(now time.Time) error {
	return s.book.DropBefore(sla.MinuteOf(now.Add(-time.Duration(s.cfg.Retention.Ledger))))
}

// reload puts changed SLO files in force.
func (s *Server) reload(ctx context.Context, now time.Time) error {
	changed, err := s.policy.load()
	if err != nil {
		s.loaded.Set(0)
	}
	if changed {
		if err == nil {
			s.loaded.Set(1)
		}
		err = errors.Join(err, s.evaluator.SetObjectives(ctx, s.policy.objectives, now))
		parts := openslo.Parts(s.policy.objectives)
		s.parts.Store(&parts)
		s.log.Info("objectives in force", "count", len(s.policy.objectives), "problems", len(s.policy.problems), "remarks", len(s.policy.remarks))
	}
	problems := slices.Clone(s.policy.problems)
	for id, why := range s.evaluator.Failed() {
		problems = append(problems, fmt.Sprintf("objective %s is not evaluated: %s", s.policy.name(id), why))
	}
	slices.Sort(problems)
	s.problems.Set(float64(len(problems)))
	s.told.Store(&told{problems, slices.Clone(s.policy.remarks)})
	return err
}

func alertInputs(states []evaluate.State) []alert.Input {
	out := make([]alert.Input, len(states))
	for i, st := range states {
		out[i] = alert.Input{Objective: st.Objective, Windows: st.Windows, Period: st.Period, PeriodLength: st.PeriodLength, Newest: st.Newest, Unseen: st.Unseen}
	}
	return out
}

// viewFor is how long what was drawn is shown again.
const viewFor = time.Second

// view draws what the page, the API and the series of objectives show.
func (s *Server) view() *board {
	s.boardMu.Lock()
	defer s.boardMu.Unlock()
	now := time.Now()
	if s.board == nil || now.Sub(s.board.at) > viewFor {
		states := s.evaluator.States(now)
		s.board = &board{at: now, states: states, agents: heard(states), firing: s.firing(), told: *s.told.Load()}
	}
	return s.board
}

func (s *Server) firing() map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, a := range s.alerts.Firing() {
		id := a.Objective.String()
		if out[id] == nil {
			out[id] = map[string]string{}
		}
		out[id][a.Tier] = a.Severity
	}
	return out
}

// firingSeries is a series for each alert that fires, for dashboards.
func (s *Server) firingSeries() []metric.Family {
	f := metric.Family{Name: metric.SLOAlertFiring, Help: metric.Help(metric.SLOAlertFiring), Type: metric.Gauge}
	for _, a := range s.alerts.Firing() {
		ls := metric.Labels("burn_tier", a.Tier, "severity", a.Severity,
			"objective_id", a.Objective.String(), "service", a.Service, "slo", a.SLO, "objective", a.Name, "group", a.Group)
		f.Series = append(f.Series, metric.Series{Labels: ls, Value: 1})
	}
	return []metric.Family{f}
}

func (s *Server) buildInfo() {
	gauge := func(name string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: metric.Help(name)})
		s.registry.MustRegister(g)
		return g
	}
	s.problems, s.loaded = gauge(metric.PolicyProblems), gauge(metric.PolicyLoaded)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: metric.AggregatorBuildInfo, Help: metric.Help(metric.AggregatorBuildInfo),
		ConstLabels: prometheus.Labels{"version": s.build.Version, "revision": s.build.Revision, "go_version": s.build.GoVersion},
	})
	info.Set(1)
	s.registry.MustRegister(info)
}

// promLog hands the errors of the metrics page to the log.
type promLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l promLog) Println(v ...any) {
	l.log.Error("the metrics page has errors", "err", fmt.Sprint(v...))
}
