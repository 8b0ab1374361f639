//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
)

func TestPromtoolAcceptsExportedRules(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	out, err := harness.Run(lab.Program("nines-aggregator"), "convert", "--to", "prometheus", slos(lab))
	if err != nil {
		t.Fatal(err)
	}
	path := lab.Write("rules.yaml", string(out))
	checked, err := lab.Promtool("check", "rules", "--lint=all", "--lint-fatal", path)
	if err != nil {
		t.Fatalf("%v\nThe rules:\n%s", err, out)
	}
	if m := regexp.MustCompile(`SUCCESS: (\d+) rules found`).FindSubmatch(checked); m == nil || string(m[1]) == "0" {
		t.Errorf("promtool found no rules:\n%s", checked)
	}
}

func TestPromtoolAndDashboardsQueryTheAggregator(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	aggregator := lab.Aggregator("--slos", slos(lab))
	path := lab.Write("app/app.log", "")
	agent := lab.Agent(harness.AgentConfig{Node: "node-1", SendTo: aggregator.URL, Paths: []string{path}})
	writer := &rotated{t: t, path: path}
	// Series of the ledger come with the first minutes that are booked.
	lab.Eventually(8*time.Minute, "minutes are booked and can be queried", func() error {
		writer.lines(10)
		n, err := query(aggregator.URL, `nines_ledger_total{slo="node-heard"}`)
		if err == nil && n == 0 {
			err = fmt.Errorf("there is no series nines_ledger_total")
		}
		return err
	})

	t.Run("instant", func(t *testing.T) {
		out, err := lab.Promtool("query", "instant", aggregator.URL, `nines_agent_heartbeats_total{job="nines-agent"} >= 1`)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`cluster="e2e"`, `instance="node-1"`, `node="node-1"`} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s is not in %s", want, out)
			}
		}
	})
	t.Run("range", func(t *testing.T) {
		now := time.Now()
		out, err := lab.Promtool("query", "range", "--start="+unix(now.Add(-time.Minute)), "--end="+unix(now), "--step=15s",
			aggregator.URL, `sum by (node) (rate(node_cpu_seconds_total[1m]))`)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(out), "@["); n < 2 {
			t.Errorf("%d points in %s", n, out)
		}
	})
	t.Run("series", func(t *testing.T) {
		out, err := lab.Promtool("query", "series", "--match=node_load1", "--match=node_uname_info", aggregator.URL)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"node_load1", "node_uname_info", `job="node-exporter"`} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s is not in %s", want, out)
			}
		}
	})
	t.Run("labels", func(t *testing.T) {
		out, err := lab.Promtool("query", "labels", aggregator.URL, "job")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"node-exporter", "nines-agent"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s is not in %s", want, out)
			}
		}
	})
	t.Run("metadata and build information", func(t *testing.T) {
		for _, path := range []string{"/api/v1/metadata", "/api/v1/status/buildinfo", "/api/v1/labels"} {
			data, err := harness.Get(aggregator.URL + path)
			if err != nil {
				t.Error(err)
				continue
			}
			var answer struct {
				Status string
				Data   json.RawMessage
			}
			if err := json.Unmarshal(data, &answer); err != nil || answer.Status != "success" || len(answer.Data) < 3 {
				t.Errorf("%s answers %.200s (%v)", path, data, err)
			}
		}
	})
	t.Run("dashboards", func(t *testing.T) { queryDashboards(t, lab, aggregator.URL) })
	agent.Stop()
	aggregator.Stop()
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// query returns how many series an expression has at this moment.
func query(server, expr string) (int, error) {
	data, err := harness.Get(server + "/api/v1/query?" + url.Values{"query": {expr}}.Encode())
	if err != nil {
		return 0, err
	}
	var answer struct {
		Status string
		Data   struct {
			ResultType string
			Result     []json.RawMessage
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return 0, fmt.Errorf("query %s: %w in %.200s", expr, err, data)
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("query %s: %.200s", expr, data)
	}
	return len(answer.Data.Result), nil
}

// dashboard is what of Grafana's JSON carries queries.
type dashboard struct {
	Title      string
	Panels     []panel
	Templating struct{ List []variable }
}

type panel struct {
	Type, Title, Description string
	Targets                  []struct{ Expr string }
	FieldConfig              struct {
		Defaults struct{ NoValue, Unit string }
	}
	Panels []panel // of a row
}

type variable struct {
	Name, Type string
	Query      json.RawMessage
	AllValue   string
	Current    struct{ Value json.RawMessage }
	Options    []struct{ Value json.RawMessage }
}

// queryDashboards asks what every panel asks. It has data, or the panel says
// in its own words why there may be none.
func queryDashboards(t *testing.T, lab *harness.Lab, server string) {
	t.Helper()
	dir := lab.Dir("dashboards")
	if _, err := harness.Run(lab.Program("nines-aggregator"), "dashboards", "--output", dir, "--slos", slos(lab)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no dashboards in %s: %v", dir, err)
	}
	asked, withData := 0, 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(data, &d); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
			continue
		}
		values := map[string]string{
			"__rate_interval": "1m", "__interval": "15s", "__interval_ms": "15000", "__range": "1h", "__range_s": "3600", "__range_ms": "3600000",
		}
		for _, v := range d.Templating.List {
			values[v.Name] = valueOf(t, server, v)
		}
		panels := append([]panel(nil), d.Panels...)
		for _, p := range d.Panels {
			panels = append(panels, p.Panels...)
		}
		for _, p := range panels {
			if p.Type == "row" || p.Type == "text" {
				continue
			}
			name := d.Title + " / " + p.Title
			if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
				t.Errorf("%s lacks a title, a description or a query", name)
			}
			for _, target := range p.Targets {
				asked++
				n, err := query(server, substitute(target.Expr, values))
				switch {
				case err != nil:
					t.Errorf("%s: %v", name, err)
				case n > 0:
					withData++
				case p.FieldConfig.Defaults.NoValue == "":
					t.Errorf("%s: no data and no word why: %s", name, target.Expr)
				}
			}
		}
	}
	lab.Say("%d dashboards ask %d questions, %d of them have an answer with data", len(files), asked, withData)
	if asked == 0 || 2*withData < asked {
		t.Errorf("only %d of %d questions have data", withData, asked)
	}
}

var reference = regexp.MustCompile(`\$\{(\w+)(?::\w+)?\}|\$(\w+)|\[\[(\w+)\]\]`)

// substitute puts values in for variables as Grafana does. One without a value
// stays, and no expression with it parses.
func substitute(expr string, values map[string]string) string {
	return reference.ReplaceAllStringFunc(expr, func(ref string) string {
		m := reference.FindStringSubmatch(ref)
		if v, ok := values[m[1]+m[2]+m[3]]; ok {
			return v
		}
		return ref
	})
}

var labelValues = regexp.MustCompile(`label_values\((?:(.*),\s*)?(\w+)\)`)

// valueOf chooses a value of a variable: for one that asks for a label's
// values the first that the server has, so that it fits = and =~ alike.
func valueOf(t *testing.T, server string, v variable) string {
	t.Helper()
	if m := labelValues.FindStringSubmatch(string(v.Query)); m != nil {
		u := server + "/api/v1/label/" + m[2] + "/values"
		if selector := strings.ReplaceAll(m[1], `\"`, `"`); selector != "" && !strings.Contains(selector, "$") {
			u += "?" + url.Values{"match[]": {selector}}.Encode()
		}
		data, err := harness.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Data []string }
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Data) == 0 {
			t.Errorf("variable %s has no value: %s", v.Name, v.Query)
			return ""
		}
		return answer.Data[0]
	}
	for _, value := range append([]struct{ Value json.RawMessage }{{v.Current.Value}}, v.Options...) {
		var one string
		if json.Unmarshal(value.Value, &one) == nil && one != "" && one != "$__all" {
			return one
		}
		var many []string
		if json.Unmarshal(value.Value, &many) == nil && len(many) > 0 && many[0] != "$__all" {
			return many[0]
		}
	}
	return ".*"
}
