package server

import (
	"context"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"nines/aggregator/evaluate"
	"nines/aggregator/store"
	"nines/pkg/openslo"
	"nines/pkg/ops"
	"nines/pkg/sla"
)

var silent = slog.New(slog.DiscardHandler)

const goodSLO = `apiVersion: openslo/v1
kind: SLO
metadata: {name: checkout, displayName: Checkout answers}
spec:
  description: Answers without an error of the server.
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator:
    metadata: {name: checkout-requests}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="shop",code!~"5.."}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(requests_total{job="shop"}[5m]))'}}}
  objectives: [{displayName: answers, target: 0.995}]
`

func testConfig(t *testing.T) Config {
	c := DefaultConfig()
	c.Data = filepath.Join(t.TempDir(), "data")
	c.Listen = "127.0.0.1:0"
	return c
}

func opened(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := open(context.Background(), c, silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.routes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func objectives(t *testing.T, s *Server) map[string]map[string]any {
	t.Helper()
	_, body := get(t, s, "/api/nines/v1/objectives")
	var answer struct{ Objectives []map[string]any }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	out := map[string]map[string]any{}
	for _, o := range answer.Objectives {
		out[o["slo"].(string)] = o
	}
	return out
}

func TestAFirstStartShowsSomethingTrue(t *testing.T) {
	s := opened(t, testConfig(t))
	if n := len(objectives(t, s)); n < 5 {
		t.Errorf("%d objectives, want the shipped ones", n)
	}
	for path, want := range map[string]string{
		"/":                             "Every promise",
		"/healthz":                      "ok",
		"/readyz":                       "ok",
		"/metrics":                      "nines_policy_load_ok 1",
		"/api/v1/query?query=vector(1)": `"status":"success"`,
		"/api/v1/status/buildinfo":      `"version"`,
		"/reports/" + time.Now().UTC().Format("2006-01") + ".csv":     "schema_version",
		"/api/nines/v1/reports/" + time.Now().UTC().Format("2006-01"): "{",
		"/api/nines/v1/agents": `"agents":[]`,
	} {
		code, body := get(t, s, path)
		if path == "/" {
			// Before any sample the honest sentence is that there is nothing to judge.
			want = "</html>"
		}
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d, want 200 with %q in %.200q", path, code, want, body)
		}
	}
	for path, code := range map[string]int{
		"/api/nines/v1/ledger?objective_id=zz":                                   400,
		"/api/nines/v1/ledger?objective_id=0000000000000000&from=yesterday":      400,
		"/api/nines/v1/ledger?objective_id=0000000000000000&from=1&to=999999999": 400,
		"/reports/2026-13.csv":         400,
		"/dashboards/nobody.json":      404,
		"/runbooks/nothing":            404,
		"/nothing":                     404,
		"/objectives/0000000000000000": 404,
	} {
		if got, body := get(t, s, path); got != code {
			t.Errorf("GET %s: %d, want %d: %.200s", path, got, code, body)
		}
	}
}

func TestABadSLOFileKeepsTheLastGoodStateAndIsTold(t *testing.T) {
	c := testConfig(t)
	dir := t.TempDir()
	c.SLOs = []string{dir}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "slo.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(goodSLO)
	s := opened(t, c)
	if objectives(t, s)["checkout"] == nil {
		t.Fatal("the SLO of the folder is not evaluated")
	}

	write(strings.Replace(goodSLO, "service:", "servce:", 1))
	if err := s.tick(context.Background(), time.Now()); err == nil {
		t.Error("no error for the log")
	}
	if objectives(t, s)["checkout"] == nil {
		t.Error("a bad file took the last good state with it")
	}
	if _, page := get(t, s, "/"); !strings.Contains(page, "servce") {
		t.Error("the page does not tell of the bad file")
	}
	if _, m := get(t, s, "/metrics"); !strings.Contains(m, "nines_policy_load_ok 0") || strings.Contains(m, "nines_policy_problems 0") {
		t.Error("the metrics do not tell of the bad file")
	}
	if code, _ := get(t, s, "/readyz"); code != http.StatusOK {
		t.Error("a bad SLO file made the aggregator unready although it does its job")
	}

	write(strings.Replace(goodSLO, "0.995", "0.99", 1))
	if err := s.tick(context.Background(), time.Now()); err != nil {
		t.Error(err)
	}
	if o := objectives(t, s)["checkout"]; o["target"] != 0.99 {
		t.Errorf("the mended file is not in force: target %v", o["target"])
	}
	if _, m := get(t, s, "/metrics"); !strings.Contains(m, "nines_policy_load_ok 1") || !strings.Contains(m, "nines_policy_problems 0") {
		t.Error("the metrics still tell of a bad file")
	}

	// A warning keeps nothing out, and the page does not say so.
	write(strings.Replace(goodSLO, "0.995", "0.9", 1))
	if err := s.tick(context.Background(), time.Now()); err != nil {
		t.Error(err)
	}
	_, page := get(t, s, "/")
	if o := objectives(t, s)["checkout"]; o["target"] != 0.9 || strings.Contains(page, "need a hand") || !strings.Contains(page, "1 remark on the SLO files, which are in force") || !strings.Contains(page, "[cannot-fire]") {
		t.Errorf("with a warning alone the target is %v, and the page says %s", o["target"], page)
	}
}

func TestASecondStartOnTheSameFolderSaysWhoHoldsIt(t *testing.T) {
	c := testConfig(t)
	opened(t, c)
	_, err := open(context.Background(), c, silent)
	var held *ops.HeldError
	if !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("got %v, want that this process holds it", err)
	}
}

func TestRunStopsCleanlyAndSaysWhereThingsAre(t *testing.T) {
	c := testConfig(t)
	ctx, stop := context.WithCancel(context.Background())
	var said strings.Builder
	started := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, c, silent, func(format string, args ...any) {
			if strings.Contains(format, "dashboards") {
				close(started)
			}
			_, _ = io.WriteString(&said, format+"\n")
		})
	}()
	<-started
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"page", "reports", "dashboards", "stopped"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it did not say %q:\n%s", want, said.String())
		}
	}
}

func TestAPortInUseIsAnErrorWithARemedyBeforeAnyStateIsTouched(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := testConfig(t)
	c.Listen = l.Addr().String()
	err = Run(context.Background(), c, silent, t.Logf)
	if err == nil || !strings.Contains(err.Error(), "stop it or choose another port") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(c.Data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data folder was made: %v", err)
	}
}

func TestConfigNamesTheFieldAndTheRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"address":      {func(c *Config) { c.Listen = "9190" }, "listen: "},
		"folder":       {func(c *Config) { c.Data = "" }, "data: "},
		"metrics size": {func(c *Config) { c.Retention.MetricsSize = 5 }, "retention.metrics_size: "},
		"ledger":       {func(c *Config) { c.Retention.Ledger = Span(time.Hour) }, "retention.ledger: "},
		"alertmanager": {func(c *Config) { c.Alertmanagers = []string{"localhost:9093"} }, "alertmanagers[0]: "},
		"external":     {func(c *Config) { c.ExternalURL = "nines" }, "external_url: "},
		"limits":       {func(c *Config) { c.Limits.Clusters.Default.Burst = 0 }, "limits.clusters.default.burst is 0: give "},
		"slos":         {func(c *Config) { c.SLOs = []string{"not-there"} }, "slos[0]: "},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			c.change(&cfg)
			if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want an error that begins with %q", err, c.want)
			}
		})
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}

func TestSpansAndSizesAreReadAsPeopleWriteThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	text := "retention: {metrics: 2w, metrics_size: 2GiB, ledger: 13h}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Retention != (Retention{Metrics: Span(14 * 24 * time.Hour), MetricsSize: 2 << 30, Late: Span(24 * time.Hour), Ledger: Span(13 * time.Hour)}) {
		t.Errorf("read as %+v", c.Retention)
	}
	for _, bad := range []string{"metrics: soon", "metrics_size: 5XB", "metrics_size: -1", "metrics: 99999999d"} {
		if err := os.WriteFile(path, []byte("retention: {"+bad+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "c.yaml:1:") {
			t.Errorf("%s: got %v, want an error with its place", bad, err)
		}
	}
}

func TestLimitsInTheFileAreTakenOverTheDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	load := func(text string) (Config, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadConfig(path)
	}
	c, err := load("limits:\n  series: 5\n  clusters:\n    overrides: {prod: {series: 7}}\n  senders:\n    default: {requests: 3}\n    overrides: {10.0.0.7: {burst: 9}}\n")
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig().Limits
	want.Series, want.Senders.Default.Requests = 5, 3
	want.Clusters.Overrides = map[string]store.Limit{"prod": {Series: 7}}
	want.Senders.Overrides = map[string]store.Limit{"10.0.0.7": {Burst: 9}}
	if !reflect.DeepEqual(c.Limits, want) {
		t.Errorf("read as %+v", c.Limits)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := load("limits: {namespaces: {overrides: {shop: {serie: 7}}}}\n"); err == nil || !strings.Contains(err.Error(), "c.yaml:1:") || !strings.Contains(err.Error(), "series") {
		t.Errorf("got %v, want the nearest key and the place", err)
	}
}

func TestTheLedgerProvesItselfOverHTTP(t *testing.T) {
	s := opened(t, testConfig(t))
	for path, want := range map[string]string{
		"/api/nines/v1/ledger/verify":            `"head":`,
		"/api/nines/v1/ledger/stat":              `"objectives":`,
		"/api/nines/v1/ledger/copy?at=head":      `"seq":`,
		"/api/nines/v1/ledger/export?format=csv": "objective_id,minute,kind",
	} {
		if code, body := get(t, s, path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s answers %d: %s", path, code, body)
		}
	}
	for _, path := range []string{"/api/nines/v1/ledger/export?objective_id=x", "/api/nines/v1/ledger/export?from=yesterday", "/api/nines/v1/ledger/export?as_of=-1"} {
		if code, body := get(t, s, path); code != http.StatusBadRequest || !strings.Contains(body, "error") {
			t.Errorf("%s answers %d: %s", path, code, body)
		}
	}
}

// The words of the command explain stand on the page of each objective.
func TestThePageOfAnObjectiveSaysWhatExplainSays(t *testing.T) {
	c := testConfig(t)
	dir := t.TempDir()
	c.SLOs = []string{dir}
	slo := strings.Replace(goodSLO, `job="shop"}`, `job="<b>shop</b>"}`, 1)
	if err := os.WriteFile(filepath.Join(dir, "slo.yaml"), []byte(slo), 0o600); err != nil {
		t.Fatal(err)
	}
	sliced := strings.NewReplacer("name: checkout", "name: sliced", "Occurrences", "Timeslices", "target: 0.995", "target: 0.995, timeSliceWindow: 5m, timeSliceTarget: 0.9").Replace(goodSLO)
	if err := os.WriteFile(filepath.Join(dir, "sliced.yaml"), []byte(sliced), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := openslo.LoadPaths(dir)
	if err != nil {
		t.Fatal(err)
	}
	parts := openslo.Parts(set.Objectives())
	if len(parts) != 1 {
		t.Fatalf("%d objectives feed time slices", len(parts))
	}
	s := opened(t, c)
	_, front := get(t, s, "/")
	states := s.view().states
	if len(states) < 7 {
		t.Fatalf("%d objectives, want the shipped ones and two more", len(states))
	}
	for _, st := range states {
		e, err := openslo.Explain(st.Objective, openslo.Asked{Now: time.Now(), Parts: parts})
		if err != nil {
			t.Fatal(err)
		}
		path := "/objectives/" + e.ObjectiveID.String()
		if !strings.Contains(front, `href="`+path+`"`) {
			t.Errorf("the front page does not link to %s", path)
		}
		code, page := get(t, s, path)
		if code != http.StatusOK || strings.Contains(page, `http-equiv="refresh"`) {
			t.Fatalf("GET %s: %d, or it is drawn again under its reader", path, code)
		}
		rest := 0
		has := func(text string) {
			t.Helper()
			at := strings.Index(page[rest:], template.HTMLEscapeString(text))
			if at < 0 {
				t.Fatalf("%s, the page of %s, lacks %q, or has it elsewhere", path, e.SLO, text)
			}
			rest += at
		}
		has(e.Promise())
		for _, p := range e.Words {
			has(p.Heading)
			for _, row := range p.Table {
				for _, cell := range row {
					has(cell)
				}
			}
			for _, l := range p.Lines {
				has(l.Text)
				has(l.Query)
			}
		}
	}
}

// A budget in events needs a day that was seen.
func TestTrafficIsThatOfADayThatWasSeen(t *testing.T) {
	day := func(counted int64) evaluate.State {
		return evaluate.State{Windows: map[time.Duration]sla.Sum{24 * time.Hour: {
			Total: sla.NewInt128(7 * sla.Micro), Expected: sla.NewInt128(86_400_000), Counted: sla.NewInt128(counted),
		}}}
	}
	if got := perDay(day(86_000_000)); got == nil || got.RatString() != "7" {
		t.Errorf("a day with 7 events has %v", got)
	}
	for name, st := range map[string]evaluate.State{"a day that was hardly seen": day(70_000_000), "no day": {}} {
		if got := perDay(st); got != nil {
			t.Errorf("%s has %v events", name, got)
		}
	}
}
