//go:build e2e

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"nines/e2e/harness"
	"nines/e2e/parts"
)

// policy is one set of SLOs as each side reads it. All come from the files that
// Sloth reads, so that no side has SLOs of its own.
type policy struct {
	openslo string   // folder for --slos
	sloth   []string // rule files that Sloth generates from them
	ours    string   // rule file of "convert --to prometheus"
}

// slothSpec is one SLO as Sloth reads it.
const slothSpec = `version: prometheus/v1
service: %[1]s
slos:
- name: requests
  objective: 99.9
  sli:
    events:
      error_query: sum(rate(http_requests_total{service="%[1]s",code=~"5.."}[{{.window}}]))
      total_query: sum(rate(http_requests_total{service="%[1]s"}[{{.window}}]))
  alerting:
    name: ErrorBudgetBurn
    page_alert: {labels: {severity: page}}
    ticket_alert: {labels: {severity: ticket}}
`

// writePolicy writes an SLO over 30 days for each service, and generates the
// rules of the peers.
func writePolicy(t *testing.T, lab *harness.Lab, services []string) policy {
	t.Helper()
	specs := []string{"convert", "--to", "openslo"}
	for _, s := range services {
		specs = append(specs, lab.Write(filepath.Join("sloth", s+".yaml"), fmt.Sprintf(slothSpec, s)))
	}
	run := func(path string, args ...string) []byte {
		t.Helper()
		out, err := harness.Run(path, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// A file for each: Prometheus reads only the first document of a file.
	run(filepath.Join(part(t, lab, parts.Sloth), "sloth"), "--no-log", "generate", "-i", lab.Dir("sloth"), "-o", lab.Dir("rules"))
	p := policy{openslo: lab.Dir("slos")}
	var err error
	if p.sloth, err = filepath.Glob(filepath.Join(lab.Dir("rules"), "*.yaml")); err != nil || len(p.sloth) != len(services) {
		t.Fatalf("sloth wrote %d files for %d services: %v", len(p.sloth), len(services), err)
	}
	ours := lab.Program("nines-aggregator")
	lab.Write("slos/all.yaml", string(run(ours, specs...)))
	p.ours = lab.Write("ours.yaml", string(run(ours, "convert", "--to", "prometheus", p.openslo)))
	promtool := filepath.Join(part(t, lab, parts.Promtool), "promtool")
	run(promtool, append([]string{"check", "rules", p.ours}, p.sloth...)...)
	return p
}

func part(t *testing.T, lab *harness.Lab, p parts.Part) string {
	t.Helper()
	dir, err := parts.Get(t.Context(), p, func(line string) { lab.Say("%s", line) })
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// recording is a recording rule.
type recording struct {
	Record string
	Expr   string
	Labels map[string]string
}

// readBack returns the recording rules whose series other rules read over a
// range: their history is part of the peer's, too.
func readBack(t *testing.T, files []string) (read []recording, all []recording) {
	t.Helper()
	ranged := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Groups []struct{ Rules []recording }
		}
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		for _, g := range doc.Groups {
			for _, r := range g.Rules {
				for _, found := range rangeSelector.FindAllStringSubmatch(r.Expr, -1) {
					ranged[found[1]] = true
				}
				if r.Record != "" {
					all = append(all, r)
				}
			}
		}
	}
	for _, r := range all {
		if ranged[r.Record] {
			read = append(read, r)
		}
	}
	return read, all
}

var rangeSelector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})?\[`)

// prometheusServer is a running Prometheus.
type prometheusServer struct {
	*harness.Process
	URL  string
	Data string
}

// startPrometheus starts one with the blocks of a folder, which receives by
// remote write and evaluates the rules every 30 s.
func startPrometheus(t *testing.T, lab *harness.Lab, blocks string, rules ...string) *prometheusServer {
	t.Helper()
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 30s, evaluation_interval: 30s}\nrule_files:\n")
	for _, r := range rules {
		fmt.Fprintf(&config, "- %q\n", r)
	}
	listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	s := &prometheusServer{URL: "http://" + listen, Data: filepath.Join(lab.Dir("prometheus"), "data")}
	if err := linkBlocks(blocks, s.Data); err != nil {
		t.Fatal(err)
	}
	s.Process = lab.Start(harness.Command{
		Name: "prometheus", Path: filepath.Join(part(t, lab, parts.Prometheus), "prometheus"), Dir: lab.Dir("prometheus"),
		Args: []string{
			"--config.file=" + lab.Write("prometheus/prometheus.yml", config.String()), "--storage.tsdb.path=" + s.Data,
			"--storage.tsdb.retention.time=31d", "--web.listen-address=" + listen, "--web.enable-remote-write-receiver",
		},
		Ready: func() error { _, err := harness.Get(s.URL + "/-/ready"); return err },
	})
	return s
}
