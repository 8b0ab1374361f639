package scrape

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v3"

	"nines/pkg/strictyaml"
)

// Bounds of a job that names none. Prometheus takes 0 for "no limit"; here 0
// is the bound below, so that no target can fill a node's memory. A job may set
// a higher one.
const (
	sampleLimit     = 50_000 // samples of one scrape, after relabelling; kube-state-metrics of a large cluster stays below
	bodySizeLimit   = "64MB" // of one page, uncompressed; Prometheus reads MB as MiB
	labelLimit      = 100    // labels of a series; stores cut at 30 to 64
	labelNameLimit  = 512    // bytes of a label's name
	labelValueLimit = 8192   // bytes of a label's value; stores cut at 1 to 4 KiB
	defaultInterval = 15 * time.Second
	defaultTargets  = 1000 // several for each of the 250 pods that a large node holds
	maxTargets      = 10_000
	maxNodes        = 100_000 // YAML values of one entry, aliases written out
)

// Config is what the agent's file says about scraping, under metrics.scrape.
type Config struct {
	// Configs are entries in the format of Prometheus' scrape_configs, with
	// static_configs as the only source of targets.
	Configs []StaticJob `yaml:"configs"`
	// NativeHistograms is the default of scrape_native_histograms. Where a
	// target has a histogram in both forms and this is on, the classic form is
	// not read unless always_scrape_classic_histograms says so.
	NativeHistograms bool `yaml:"native_histograms"`
	// MaxTargets bounds the targets of all owners together, from 1 to 10,000.
	// What is above is refused and counted.
	MaxTargets int `yaml:"max_targets"`
	// Interval is that of jobs which name none. 0: 15 s.
	Interval time.Duration `yaml:"-"`
}

// DefaultConfig scrapes nothing.
func DefaultConfig() Config { return Config{MaxTargets: defaultTargets, Interval: defaultInterval} }

// Validate names the key that is wrong, and the remedy.
func (c Config) Validate() error {
	if c.MaxTargets < 1 || c.MaxTargets > maxTargets {
		return fmt.Errorf("max_targets is %d: choose from 1 to %d", c.MaxTargets, maxTargets)
	}
	_, err := c.static()
	return err
}

// static returns the jobs of Configs.
func (c Config) static() ([]Job, error) {
	var jobs []Job
	first := map[string]int{}
	for i, entry := range c.Configs {
		job, err := entry.job(c)
		if err != nil {
			var at *placed
			if errors.As(err, &at) {
				return nil, fmt.Errorf("configs[%d]%s: %s", i, at.path, at.message)
			}
			return nil, fmt.Errorf("configs[%d]: %w", i, err)
		}
		if j, twice := first[job.Config.JobName]; twice {
			return nil, fmt.Errorf("configs[%d].job_name: %q is the name of configs[%d], too: give each job a name of its own", i, job.Config.JobName, j)
		}
		first[job.Config.JobName] = i
		jobs = append(jobs, job)
	}
	return jobs, nil
}

// load reads a configuration of Prometheus that begins with our defaults. The
// entry may be nil.
func (c Config) load(entry []byte) (*config.Config, string, error) {
	interval := c.Interval
	if interval == 0 {
		interval = defaultInterval
	}
	text := fmt.Sprintf(`global:
  scrape_interval: %s
  scrape_native_histograms: %t
  scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0, OpenMetricsText0.0.1, PrometheusText1.0.0, PrometheusText0.0.4]
  sample_limit: %d
  body_size_limit: %s
  label_limit: %d
  label_name_length_limit: %d
  label_value_length_limit: %d
`, model.Duration(interval), c.NativeHistograms, sampleLimit, bodySizeLimit, labelLimit, labelNameLimit, labelValueLimit)
	text += string(entry)
	loaded, err := config.Load(text, slog.New(slog.NewTextHandler(io.Discard, nil)))
	return loaded, text, err
}

// StaticJob is one entry of Configs. It keeps what was written and is read by
// Prometheus' own rules when the configuration is validated.
type StaticJob struct{ node *yaml.Node }

// UnmarshalYAML keeps the entry, with its aliases written out.
func (s *StaticJob) UnmarshalYAML(n *yaml.Node) error {
	left := maxNodes
	node, err := flatten(n, &left)
	if err != nil {
		return err
	}
	s.node = node
	return nil
}

// flatten copies a value in block style, a key or an item to a line, so that a
// line of its text is a place in it.
func flatten(n *yaml.Node, left *int) (*yaml.Node, error) {
	if *left--; *left < 0 {
		return nil, fmt.Errorf("a job has more than %d values: split it", maxNodes)
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value, Style: n.Style &^ yaml.FlowStyle}
	for _, c := range n.Content {
		f, err := flatten(c, left)
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, f)
	}
	return out, nil
}

// placed is a mistake below an entry.
type placed struct{ path, message string }

func (p *placed) Error() string { return p.path + ": " + p.message }

// job reads the entry.
func (s StaticJob) job(c Config) (Job, error) {
	if s.node == nil || s.node.Kind != yaml.MappingNode {
		return Job{}, errors.New("is no job: write job_name, static_configs and so on, as in scrape_configs of Prometheus")
	}
	for _, key := range keys(s.node) {
		if strings.HasSuffix(key, "_sd_configs") {
			return Job{}, &placed{"." + key, "targets of the agent's file are listed under static_configs; pods are found by the agent itself"}
		}
	}
	entry, err := yaml.Marshal(map[string]any{"scrape_configs": []*yaml.Node{s.node}})
	if err != nil {
		return Job{}, err
	}
	loaded, text, err := c.load(entry)
	if err != nil {
		return Job{}, explain(text, err)
	}
	cfg := loaded.ScrapeConfigs[0]
	if cfg.ScrapeFailureLogFile != "" {
		return Job{}, &placed{".scrape_failure_log_file", "is not offered: the agent's log says when a target fails and why"}
	}
	// A page from the same node costs more to compress than to send.
	if !slices.Contains(keys(s.node), "enable_compression") {
		cfg.EnableCompression = false
	}
	job := Job{Config: cfg}
	for _, d := range cfg.ServiceDiscoveryConfigs {
		if groups, ok := d.(discovery.StaticConfig); ok {
			job.Groups = append(job.Groups, []*targetgroup.Group(groups)...)
		}
	}
	cfg.ServiceDiscoveryConfigs = nil
	return job, nil
}

func keys(n *yaml.Node) []string {
	var ks []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		ks = append(ks, n.Content[i].Value)
	}
	return ks
}

var (
	atLine     = regexp.MustCompile(`line (\d+): (.*)`)
	noSuchKey  = regexp.MustCompile(`^field (\S+) not found in type (\S+)$`)
	knownToJob = jobKeys()
)

// explain turns Prometheus' message about a line of the text into one about a
// place of the entry.
func explain(text string, err error) error {
	m := atLine.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	message := m[2]
	line, _ := strconv.Atoi(m[1])
	var doc yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) == 0 {
		return errors.New(message)
	}
	path := strings.TrimPrefix(pathAt(doc.Content[0], line), ".scrape_configs[0]")
	if u := noSuchKey.FindStringSubmatch(message); u != nil {
		message = "there is no such key"
		if strings.HasSuffix(u[2], ".ScrapeConfig") {
			if near := strictyaml.Nearest(u[1], knownToJob); near != "" {
				message += fmt.Sprintf("; did you mean %q?", near)
			}
		}
	}
	return &placed{path, message}
}

// pathAt is the path of the deepest value that begins at or before a line.
func pathAt(n *yaml.Node, line int) string {
	switch n.Kind {
	case yaml.MappingNode:
		for i := len(n.Content) - 2; i >= 0; i -= 2 {
			if n.Content[i].Line <= line {
				return "." + n.Content[i].Value + pathAt(n.Content[i+1], line)
			}
		}
	case yaml.SequenceNode:
		for i := len(n.Content) - 1; i >= 0; i-- {
			if n.Content[i].Line <= line {
				return fmt.Sprintf("[%d]%s", i, pathAt(n.Content[i], line))
			}
		}
	}
	return ""
}

// jobKeys lists the keys of a job, for hints.
func jobKeys() []string {
	known := []string{"static_configs"}
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			name, opts, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			switch {
			case strings.Contains(opts, "inline"):
				add(t.Field(i).Type)
			case name != "" && name != "-":
				known = append(known, name)
			}
		}
	}
	add(reflect.TypeFor[config.ScrapeConfig]())
	return known
}
