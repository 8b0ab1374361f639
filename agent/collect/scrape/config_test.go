package scrape

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"nines/pkg/strictyaml"
)

// decode reads a configuration as the agent's file would hold it.
func decode(t *testing.T, text string) Config {
	t.Helper()
	file := struct {
		Scrape Config `yaml:"scrape"`
	}{DefaultConfig()}
	if err := strictyaml.Decode("agent.yaml", []byte(text), &file); err != nil {
		t.Fatal(err)
	}
	return file.Scrape
}

func TestJobIsReadAsPrometheusReadsIt(t *testing.T) {
	cfg := decode(t, `
scrape:
  configs:
    - job_name: db
      scrape_interval: 30s
      metrics_path: /stats
      honor_labels: true
      body_size_limit: 1MB
      sample_limit: 10
      basic_auth: {username: u, password: p}
      static_configs:
        - targets: ["127.0.0.1:9187", "127.0.0.1:9188"]
          labels: {team: data}
      relabel_configs:
        - {source_labels: [__address__], regex: '.*:9188', action: drop}
      metric_relabel_configs:
        - {regex: secret, action: labeldrop}
      convert_classic_histograms_to_nhcb: true
    - job_name: plain
      enable_compression: true
`)
	cfg.Interval = 20 * time.Second
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	jobs, err := cfg.static()
	if err != nil {
		t.Fatal(err)
	}
	db, plain := jobs[0], jobs[1]
	c := db.Config
	if c.ScrapeInterval != model.Duration(30*time.Second) || c.ScrapeTimeout != model.Duration(10*time.Second) || c.MetricsPath != "/stats" ||
		!c.HonorLabels || c.BodySizeLimit != 1<<20 || c.SampleLimit != 10 || c.HTTPClientConfig.BasicAuth.Username != "u" ||
		len(c.RelabelConfigs) != 1 || len(c.MetricRelabelConfigs) != 1 || !c.ConvertClassicHistogramsToNHCBEnabled() {
		t.Errorf("job db: %+v", c)
	}
	if c.EnableCompression {
		t.Error("pages of this node are asked for compressed")
	}
	if len(db.Groups) != 1 || len(db.Groups[0].Targets) != 2 || db.Groups[0].Labels["team"] != "data" {
		t.Errorf("groups %v", db.Groups)
	}
	c = plain.Config
	if c.ScrapeInterval != model.Duration(20*time.Second) || !c.EnableCompression {
		t.Errorf("job plain: interval %v, compression %t", c.ScrapeInterval, c.EnableCompression)
	}
	if c.SampleLimit != 50_000 || c.BodySizeLimit != 64<<20 || c.LabelLimit != 100 || c.LabelNameLengthLimit != 512 || c.LabelValueLengthLimit != 8192 {
		t.Errorf("a job without limits got %d, %d, %d, %d, %d", c.SampleLimit, c.BodySizeLimit, c.LabelLimit, c.LabelNameLengthLimit, c.LabelValueLengthLimit)
	}
	if c.ScrapeNativeHistogramsEnabled() {
		t.Error("native histograms are on by default")
	}
}

func TestNativeHistogramsAreTheDefaultOfAJobWhereTheFileSaysSo(t *testing.T) {
	cfg := decode(t, "scrape: {native_histograms: true, configs: [{job_name: a}, {job_name: b, scrape_native_histograms: false}]}")
	jobs, err := cfg.static()
	if err != nil {
		t.Fatal(err)
	}
	if !jobs[0].Config.ScrapeNativeHistogramsEnabled() || jobs[1].Config.ScrapeNativeHistogramsEnabled() {
		t.Error("want it on for a and off for b")
	}
}

func TestAliasesOfTheFileReachTheJobs(t *testing.T) {
	file := struct {
		Shared any    `yaml:"shared"`
		Scrape Config `yaml:"scrape"`
	}{Scrape: DefaultConfig()}
	text := "shared: &t ['a:1']\nscrape: {configs: [{job_name: a, static_configs: [{targets: *t}]}]}"
	if err := strictyaml.Decode("agent.yaml", []byte(text), &file); err != nil {
		t.Fatal(err)
	}
	jobs, err := file.Scrape.static()
	if err != nil {
		t.Fatal(err)
	}
	if got := jobs[0].Groups[0].Targets[0][model.AddressLabel]; got != "a:1" {
		t.Errorf("target %q", got)
	}
}

func TestMistakesNameTheEntryThePlaceAndTheRemedy(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "configs: [{job_name: a}, {job_name: b, metric_path: /x}]",
			`configs[1].metric_path: there is no such key; did you mean "metrics_path"?`},
		{"unknown key further down", "configs: [{job_name: a, relabel_configs: [{regex: x}, {foo: 1}]}]",
			"configs[0].relabel_configs[1].foo: there is no such key"},
		{"wrong type", "configs: [{job_name: a, honor_labels: many}]", "configs[0].honor_labels: cannot unmarshal"},
		{"key given twice", "configs: [{job_name: a, scheme: http, scheme: https}]", "configs[0].scheme: "},
		{"other sources of targets", "configs: [{job_name: a, kubernetes_sd_configs: [{role: pod}]}]",
			"configs[0].kubernetes_sd_configs: targets of the agent's file are listed under static_configs"},
		{"files of targets", "configs: [{job_name: a, file_sd_configs: [{files: [x]}]}]", "configs[0].file_sd_configs: "},
		{"failure log", "configs: [{job_name: a, scrape_failure_log_file: x}]", "configs[0].scrape_failure_log_file: is not offered"},
		{"no name", "configs: [{scheme: http}]", "configs[0]: job_name is empty"},
		{"one name twice", "configs: [{job_name: a}, {job_name: a}]", `configs[1].job_name: "a" is the name of configs[0]`},
		{"timeout above interval", "configs: [{job_name: a, scrape_interval: 1s, scrape_timeout: 2s}]", "configs[0]: scrape timeout greater"},
		{"two ways to log in", "configs: [{job_name: a, basic_auth: {username: u}, authorization: {credentials: c}}]", "configs[0]: at most one of"},
		{"address is a URL", "configs: [{job_name: a, static_configs: [{targets: ['http://x/metrics']}]}]", "configs[0]: "},
		{"bad rule", "configs: [{job_name: a, relabel_configs: [{action: fly}]}]", `configs[0]: unknown relabel action "fly"`},
		{"bad expression", "configs: [{job_name: a, relabel_configs: [{regex: '('}]}]", "configs[0]: error parsing regexp"},
		{"no mapping", "configs: [a]", "configs[0]: is no job"},
		{"bound", "max_targets: 0", "max_targets is 0: choose from 1 to 10000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := decode(t, "scrape: {"+c.text+"}")
			err := cfg.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestEntryThatMultipliesByAliasesIsRefused(t *testing.T) {
	text := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 6 {
		c, d := string(rune('a'+i)), string(rune('b'+i))
		text += d + ": &" + d + " [" + strings.TrimSuffix(strings.Repeat("*"+c+", ", 10), ", ") + "]\n"
	}
	text += "scrape: {configs: [{job_name: a, static_configs: [{targets: *g}]}]}\n"
	file := struct {
		A, B, C, D, E, F, G any
		Scrape              Config `yaml:"scrape"`
	}{Scrape: DefaultConfig()}
	if err := strictyaml.Decode("agent.yaml", []byte(text), &file); err == nil {
		t.Error("a million targets out of a few lines were taken")
	}
}
