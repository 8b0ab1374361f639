package openslo

import (
	"bytes"
	"fmt"
	"regexp"

	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

// slothFile is Sloth's prometheus/v1 format, as far as it can be carried over.
type slothFile struct {
	Version string            `yaml:"version"`
	Service string            `yaml:"service"`
	Labels  map[string]string `yaml:"labels"`
	SLOs    []struct {
		Name        string            `yaml:"name"`
		Description string            `yaml:"description"`
		Objective   decimal           `yaml:"objective"`
		Labels      map[string]string `yaml:"labels"`
		SLI         struct {
			Events *struct {
				Error string `yaml:"error_query"`
				Total string `yaml:"total_query"`
			} `yaml:"events"`
			Raw    any `yaml:"raw"`
			Plugin any `yaml:"plugin"`
		} `yaml:"sli"`
		Alerting any `yaml:"alerting"`
	} `yaml:"slos"`
}

// slothWindow is the placeholder that Sloth replaces by each window.
var slothWindow = regexp.MustCompile(`\{\{\s*\.window\s*\}\}`)

// FromSloth turns Sloth's prometheus/v1 file into OpenSLO v1 documents. What
// cannot be carried over is a finding with its place; an SLO of which nothing
// is left that can be counted is left out.
func FromSloth(path string, data []byte) ([]byte, []Finding, error) {
	docs, err := strictyaml.Documents(path, data)
	if err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	var findings []Finding
	for _, d := range docs {
		var f slothFile
		if err := d.Decode(&f); err != nil {
			return nil, findings, err
		}
		if f.Version != "prometheus/v1" {
			return nil, findings, d.Errorf(d.Find("version"), "version is %q, want Sloth's prometheus/v1", f.Version)
		}
		for i, s := range f.SLOs {
			at := func(path ...string) *yaml.Node { return d.Find(append([]string{"slos", fmt.Sprint(i)}, path...)...) }
			warn := func(rule string, n *yaml.Node, text string) {
				findings = append(findings, Finding{path, n.Line, n.Column, "warning", rule, text})
			}
			if s.SLI.Events == nil {
				warn("not-carried-over", at("sli"), fmt.Sprintf("SLO %q has no events SLI: a raw ratio or a plugin cannot be counted; it is left out", s.Name))
				continue
			}
			if _, err := sla.ParseTargetPercent(string(s.Objective)); err != nil {
				warn("target", at("objective"), fmt.Sprintf("SLO %q is left out: its objective as a percentage: %v", s.Name, err))
				continue
			}
			if s.Alerting != nil {
				warn("not-carried-over", at("alerting"), "alert names and labels are not carried over: alerts carry the labels severity, burn_tier and the SLO's")
			}
			query := func(key, q string) string {
				q = slothWindow.ReplaceAllString(q, "5m")
				if parsed, err := ParseQuery(q); err != nil {
					warn("not-a-counter", at("sli", "events", key), err.Error())
				} else if parsed.Kind == Expression {
					warn("sampled", at("sli", "events", key), "the query "+whatSampledMeans+": "+parsed.Sampled)
				}
				return q
			}
			labels := map[string]string{}
			for _, m := range []map[string]string{f.Labels, s.Labels} {
				for k, v := range m {
					labels[k] = v
				}
			}
			source := func(q string) map[string]any {
				return map[string]any{"metricSource": map[string]any{"type": "Prometheus", "spec": map[string]string{"query": q}}}
			}
			meta := map[string]any{"name": f.Service + "-" + s.Name, "displayName": f.Service + ": " + s.Name}
			if len(labels) > 0 {
				meta["labels"] = labels
			}
			doc := map[string]any{
				"apiVersion": APIVersion, "kind": "SLO", "metadata": meta,
				"spec": map[string]any{
					"description": s.Description, "service": f.Service, "budgetingMethod": "Occurrences",
					"timeWindow": []any{map[string]any{"duration": "30d", "isRolling": true}}, // Sloth's default period
					"indicator": map[string]any{
						"metadata": map[string]any{"name": f.Service + "-" + s.Name},
						"spec": map[string]any{"ratioMetric": map[string]any{
							"counter": true,
							"bad":     source(query("error_query", s.SLI.Events.Error)),
							"total":   source(query("total_query", s.SLI.Events.Total)),
						}},
					},
					"objectives": []any{map[string]any{"targetPercent": &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: string(s.Objective)}}},
				},
			}
			out.WriteString("---\n")
			enc := yaml.NewEncoder(&out)
			enc.SetIndent(2)
			if err := enc.Encode(doc); err != nil {
				return nil, findings, fmt.Errorf("write SLO %q: %w", s.Name, err)
			}
			if err := enc.Close(); err != nil {
				return nil, findings, fmt.Errorf("write SLO %q: %w", s.Name, err)
			}
		}
	}
	return out.Bytes(), findings, nil
}
