package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nines/aggregator/ledger"
	"nines/aggregator/report"
	"nines/dashboards"
	"nines/pkg/sla"
	"nines/rules"
)

// maxLedgerMinutes bounds one answer of the ledger API: 400 days.
const maxLedgerMinutes = 400 * 1440

// routes is everything over HTTP, in one place.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/write", s.store.Receiver())
	mux.Handle("/api/v1/", s.store.API(s.registry))
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /objectives/{id}", s.objectivePage)
	mux.HandleFunc("GET /reports/{file}", s.reportFile)
	mux.HandleFunc("GET /dashboards/{role}", s.dashboardFile)
	mux.HandleFunc("GET /runbooks/{name}", s.runbook)
	mux.HandleFunc("GET /api/nines/v1/objectives", s.apiObjectives)
	mux.HandleFunc("GET /api/nines/v1/agents", s.apiAgents)
	mux.HandleFunc("GET /api/nines/v1/ledger", s.apiLedger)
	mux.Handle("GET /api/nines/v1/ledger/copy", s.book.Handler())
	mux.HandleFunc("GET /api/nines/v1/ledger/verify", s.apiLedgerVerify)
	mux.HandleFunc("GET /api/nines/v1/ledger/stat", s.apiLedgerStat)
	mux.HandleFunc("GET /api/nines/v1/ledger/export", s.apiLedgerExport)
	// A page of somebody else in the browser of one who may write must not.
	mux.Handle("POST /api/nines/v1/ledger/backfill", http.NewCrossOriginProtection().Handler(http.HandlerFunc(s.apiBackfill)))
	mux.HandleFunc("GET /api/nines/v1/reports/{month}", s.apiReport)
	mux.HandleFunc("GET /healthz", s.health.ServeHealthz)
	mux.HandleFunc("GET /readyz", s.health.ServeReadyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{s.registry, s.perSLO}, promhttp.HandlerOpts{ErrorLog: promLog{s.log}}))
	return mux
}

// problem answers an error of the API as JSON with the remedy in its text.
func problem(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // a reader that went away needs no answer
}

func answer(w http.ResponseWriter, v any) {
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(v); err != nil {
		problem(w, http.StatusInternalServerError, fmt.Errorf("encode the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(buf.Bytes())
}

func events(v sla.Int128) json.RawMessage { return json.RawMessage(sla.Events(v)) }

type objectiveAnswer struct {
	sla.Objective
	Good            json.RawMessage            `json:"good_events"`
	Total           json.RawMessage            `json:"total_events"`
	Ratio           json.RawMessage            `json:"ratio"`
	Lower           json.RawMessage            `json:"lower"`
	Upper           json.RawMessage            `json:"upper"`
	Coverage        json.RawMessage            `json:"coverage"`
	TimedCoverage   json.RawMessage            `json:"timed_coverage"`
	BudgetRemaining json.RawMessage            `json:"budget_remaining"`
	Burn            map[string]json.RawMessage `json:"burn"`
	WindowCoverage  map[string]json.RawMessage `json:"window_coverage"`
	Words           string                     `json:"words"`
	Verdict         sla.Verdict                `json:"verdict"`
	PeriodStart     time.Time                  `json:"period_start"`
	PeriodEnd       time.Time                  `json:"period_end"`
	Closed          time.Time                  `json:"closed"`
	Newest          *time.Time                 `json:"newest_sample"`
	Sources         int                        `json:"sources"`
	Alerts          map[string]string          `json:"alerts"`
}

func (s *Server) apiObjectives(w http.ResponseWriter, _ *http.Request) {
	b := s.view()
	out := []objectiveAnswer{}
	for _, st := range b.states {
		o := st.Objective
		budget := st.Period.Budget(o.Target)
		lower, upper := st.Period.Bounds()
		a := objectiveAnswer{
			Objective: o, Good: events(st.Period.GoodHigh), Total: events(st.Period.Total),
			Ratio: sla.JSON(st.Period.Good()), Lower: sla.JSON(lower), Upper: sla.JSON(upper),
			Coverage: sla.JSON(st.Period.Coverage()), TimedCoverage: sla.JSON(st.Period.TimedCoverage()),
			BudgetRemaining: sla.JSON(budget.Remaining), Verdict: st.Period.Verdict(o.Target),
			Words:       burnWords(st),
			PeriodStart: st.PeriodStart, PeriodEnd: st.PeriodEnd, Closed: st.Closed, Sources: len(st.Sources),
			Burn: map[string]json.RawMessage{}, WindowCoverage: map[string]json.RawMessage{}, Alerts: b.firing[o.ID.String()],
		}
		if a.Alerts == nil {
			a.Alerts = map[string]string{}
		}
		for d, sum := range st.Windows {
			a.Burn[sla.WindowName(d)] = sla.JSON(sum.Burn(o.Target))
			a.WindowCoverage[sla.WindowName(d)] = sla.JSON(sum.Coverage())
		}
		if !st.Newest.IsZero() {
			a.Newest = &st.Newest
		}
		out = append(out, a)
	}
	answer(w, map[string]any{"at": b.at.UTC(), "objectives": out})
}

func (s *Server) apiAgents(w http.ResponseWriter, _ *http.Request) {
	type agent struct {
		Cluster   string     `json:"cluster"`
		Node      string     `json:"node"`
		FirstSeen time.Time  `json:"first_seen"`
		LastHeard *time.Time `json:"last_heard"`
	}
	out := []agent{}
	for _, a := range s.view().agents {
		e := agent{Cluster: a.Cluster, Node: a.Instance, FirstSeen: a.First}
		if !a.Newest.IsZero() {
			e.LastHeard = &a.Newest
		}
		out = append(out, e)
	}
	answer(w, map[string]any{"agents": out})
}

func (s *Server) apiLedger(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, err := sla.ParseID(q.Get("objective_id"))
	if err != nil {
		problem(w, http.StatusBadRequest, fmt.Errorf("parameter objective_id: %w; /api/nines/v1/objectives lists them", err))
		return
	}
	from, err := instant(q.Get("from"), time.Now().Add(-24*time.Hour))
	if err == nil {
		var to time.Time
		if to, err = instant(q.Get("to"), time.Now()); err == nil {
			s.writeLedger(w, id, sla.MinuteOf(from), sla.MinuteOf(to), q.Get("as_of"))
			return
		}
	}
	problem(w, http.StatusBadRequest, err)
}

func (s *Server) writeLedger(w http.ResponseWriter, id sla.ID, from, to sla.Minute, asOfText string) {
	asOf, err := batchNumber(asOfText)
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	if to-from > maxLedgerMinutes {
		problem(w, http.StatusBadRequest, errors.New("from and to are more than 400 days apart: ask for less at a time"))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson; charset=utf-8")
	enc := json.NewEncoder(w)
	err = s.book.Scan(id, from, to, asOf, func(m sla.Minute, f sla.Figures) error {
		return enc.Encode(newLedgerLine(id, m, f))
	})
	if err != nil {
		s.log.Warn("an answer of the ledger API broke off", "objective_id", id, "err", err)
	}
}

// batchNumber reads the parameter as_of: figures as they were after that batch.
// Empty is 0, the newest.
func batchNumber(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parameter as_of: want the number of a batch, got %q", text)
	}
	return n, nil
}

// instant reads RFC 3339 or seconds since the epoch.
func instant(text string, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	return time.Time{}, fmt.Errorf("time %q is neither RFC 3339 (2026-11-01T00:00:00Z) nor seconds since 1970", text)
}

// month builds the report of a month, "so far" where it is not over, as of a
// batch (0: the newest).
func (s *Server) month(ctx context.Context, month, zone string, asOf uint64) (report.Report, error) {
	if zone == "" {
		zone = s.cfg.Reports.Timezone
	}
	return report.Build(ctx, s.book, report.Options{Month: month, Timezone: zone, Now: time.Now(), AsOf: asOf})
}

func (s *Server) apiReport(w http.ResponseWriter, r *http.Request) {
	s.renderReport(w, r, r.PathValue("month"), r.URL.Query().Get("format"))
}

func (s *Server) reportFile(w http.ResponseWriter, r *http.Request) {
	month, format, _ := strings.Cut(r.PathValue("file"), ".")
	s.renderReport(w, r, month, format)
}

func (s *Server) renderReport(w http.ResponseWriter, r *http.Request, month, format string) {
	if format == "" {
		format = "json"
	}
	q := r.URL.Query()
	asOf, err := batchNumber(q.Get("as_of"))
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	rep, err := s.month(r.Context(), month, q.Get("timezone"), asOf)
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	data, kind, err := rep.Render(format)
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", fmt.Sprintf("inline; filename=%q", "sla-"+month+"."+format))
	_, _ = w.Write(data)
}

func (s *Server) dashboardFile(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSuffix(r.PathValue("role"), ".json")
	files, err := dashboards.Files(s.definitions())
	if err != nil {
		problem(w, http.StatusInternalServerError, err)
		return
	}
	data, ok := files[name+".json"]
	if !ok {
		problem(w, http.StatusNotFound, fmt.Errorf("there is no dashboard %q; the page at / lists them", name))
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf("inline; filename=%q", name+".json"))
	_, _ = w.Write(data)
}

func (s *Server) runbook(w http.ResponseWriter, r *http.Request) {
	text, err := rules.Runbook(strings.TrimSuffix(r.PathValue("name"), ".md"))
	if err != nil {
		problem(w, http.StatusNotFound, err)
		return
	}
	w.Header().Set("Content-Type", "text/markdown; charset=utf-8")
	_, _ = w.Write([]byte(text))
}

func (s *Server) definitions() []sla.Objective {
	var defs []sla.Objective
	for _, st := range s.view().states {
		defs = append(defs, st.Objective)
	}
	return defs
}

// writeArtefacts writes what people find in the data folder after a start: the
// dashboards as files to import, and the month so far.
func (s *Server) writeArtefacts(ctx context.Context, now time.Time) error {
	if err := dashboards.Write(filepath.Join(s.cfg.Data, "dashboards"), s.definitions()); err != nil {
		return err
	}
	zone, err := time.LoadLocation(s.cfg.Reports.Timezone)
	if err != nil {
		return err
	}
	rep, err := s.month(ctx, now.In(zone).Format("2006-01"), "", 0)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.cfg.Data, "reports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create the folder of the reports: %w", err)
	}
	return rep.Write(dir, []string{"csv", "pdf", "html", "json"})
}

var _ report.Book = (*ledger.Book)(nil)
