package openslo

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"nines/pkg/sla"
	"nines/pkg/strictyaml"
)

// understood lists the documents that Import takes.
const understood = "Sloth's files (version: prometheus/v1), Sloth's PrometheusServiceLevel (apiVersion: sloth.slok.dev/v1), " +
	"Pyrra's ServiceLevelObjective (apiVersion: pyrra.dev/v1alpha1), and Kubernetes lists of these"

// Import turns the documents of one file into OpenSLO v1: Sloth's prometheus/v1
// files and PrometheusServiceLevel, Pyrra's ServiceLevelObjective, in any mix,
// and lists of them as kubectl prints them. path is the name for messages; data
// is at most 4 MiB.
//
// What cannot be carried over is a finding with its place, always a warning; an
// SLO of which nothing is left that can be counted is left out. The error is
// about a document that is none of these or that is wrong in its own format;
// then there is no output.
func Import(path string, data []byte) ([]byte, []Finding, error) {
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("%s is larger than 4 MiB: split it", path)
	}
	docs, err := strictyaml.Documents(path, data)
	if err != nil {
		return nil, nil, err
	}
	if len(docs) == 0 {
		return nil, nil, fmt.Errorf("%s holds no document; understood are %s", path, understood)
	}
	im := importer{path: path}
	var errs []error
	for _, d := range docs {
		errs = append(errs, im.document(d, true))
	}
	slices.SortStableFunc(im.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if err := errors.Join(errs...); err != nil {
		return nil, im.findings, err
	}
	return im.out.Bytes(), im.findings, nil
}

// importer collects what comes out of one file.
type importer struct {
	path     string
	out      bytes.Buffer
	findings []Finding
	said     int // bytes of findings
}

// maxImported bounds what comes out of one file, in bytes: a label that a file
// has once stands on each of its SLOs.
const maxImported = 64 << 20

// bounded is an error where more comes out than is held.
func (im *importer) bounded(d strictyaml.Document, n *yaml.Node) error {
	if im.out.Len()+im.said > maxImported {
		return d.Errorf(n, "more than 64 MiB come out of this file up to here: split it, or shorten what is repeated in each SLO")
	}
	return nil
}

// document takes one document, or the items of a list where lists may stand.
func (im *importer) document(d strictyaml.Document, lists bool) error {
	version, kind := entry(d.Node, "apiVersion"), entry(d.Node, "kind")
	if n := entry(d.Node, "version"); n.Value != "" && kind.Value == "" {
		if n.Value != slothVersion {
			return d.Errorf(n, "version is %q, want %s", n.Value, understood)
		}
		return im.slothFile(d)
	}
	switch {
	case version.Value == slothAPI && kind.Value == "PrometheusServiceLevel":
		return im.serviceLevel(d)
	case version.Value == pyrraAPI && kind.Value == "ServiceLevelObjective":
		return im.pyrra(d)
	case lists && (version.Value == "v1" && kind.Value == "List" ||
		version.Value == slothAPI && kind.Value == "PrometheusServiceLevelList" ||
		version.Value == pyrraAPI && kind.Value == "ServiceLevelObjectiveList"):
		return im.items(d)
	case version.Value == APIVersion:
		return d.Errorf(version, "this is OpenSLO already: take it out of what is converted; understood are %s", understood)
	case version.Value == "" && kind.Value == "":
		return d.Errorf(d.Node, "this document has neither version nor apiVersion and kind; understood are %s", understood)
	}
	at := kind
	if version.Value != slothAPI && version.Value != pyrraAPI && version.Value != "v1" {
		at = version
	}
	return d.Errorf(at, "apiVersion %q with kind %q is not understood; understood are %s", version.Value, kind.Value, understood)
}

// kubeList is what kubectl prints for several objects.
type kubeList struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   any    `yaml:"metadata"`
	Items      []any  `yaml:"items"`
}

func (im *importer) items(d strictyaml.Document) error {
	var list kubeList
	if err := d.Decode(&list); err != nil {
		return err
	}
	items := d.Find("items")
	if items.Kind != yaml.SequenceNode {
		return nil // a list of nothing
	}
	var errs []error
	for _, n := range items.Content {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		errs = append(errs, im.document(strictyaml.Document{File: d.File, Node: n}, false))
	}
	return errors.Join(errs...)
}

// entry returns the value of a key of a mapping; where there is none, a node
// without a value that has the place of the mapping.
func entry(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key && n.Content[i+1].Kind == yaml.ScalarNode {
				return n.Content[i+1]
			}
		}
	}
	return &yaml.Node{Line: n.Line, Column: n.Column}
}

// note says what is not carried over, or carried over with another meaning.
func (im *importer) note(rule string, n *yaml.Node, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	im.said += len(text)
	im.findings = append(im.findings, Finding{im.path, n.Line, n.Column, "warning", rule, text})
}

const notCarriedOver = "not-carried-over"

// kubeMetadata is the metadata of a Kubernetes object. What the API server
// writes by itself says nothing of an SLO.
type kubeMetadata struct {
	Name        string            `yaml:"name"`
	Namespace   string            `yaml:"namespace"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`

	GenerateName      any `yaml:"generateName"`
	UID               any `yaml:"uid"`
	ResourceVersion   any `yaml:"resourceVersion"`
	Generation        any `yaml:"generation"`
	CreationTimestamp any `yaml:"creationTimestamp"`
	DeletionTimestamp any `yaml:"deletionTimestamp"`
	DeletionGrace     any `yaml:"deletionGracePeriodSeconds"`
	ManagedFields     any `yaml:"managedFields"`
	OwnerReferences   any `yaml:"ownerReferences"`
	Finalizers        any `yaml:"finalizers"`
	SelfLink          any `yaml:"selfLink"`
}

// lastApplied is a copy of the object that kubectl keeps in the object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// objectLabels warns of labels and annotations that are for Kubernetes alone.
func (im *importer) objectLabels(d strictyaml.Document, m kubeMetadata, carried func(key string) bool) {
	for _, of := range []struct {
		key string
		has map[string]string
	}{{"labels", m.Labels}, {"annotations", m.Annotations}} {
		var left []string
		for _, k := range slices.Sorted(maps.Keys(of.has)) {
			if !carried(k) && k != lastApplied {
				left = append(left, k)
			}
		}
		if len(left) > 0 {
			im.note(notCarriedOver, d.Find("metadata", of.key), "%s of the object are for Kubernetes, not for the SLO, and are not carried over: %s", of.key, strings.Join(left, ", "))
		}
	}
}

// draft is one SLO on its way into OpenSLO.
type draft struct {
	namespace, name, title  string
	service, description    string
	labels, annotations     map[string]string
	target                  sla.Target
	window                  string // as OpenSLO writes it: 30d
	indicatorName, measures string // measures explains the indicator where it needs words
	ratio                   map[string]any
}

// promSource is a query as OpenSLO holds it.
func promSource(query string) map[string]any {
	return map[string]any{"metricSource": map[string]any{"type": "Prometheus", "spec": map[string]string{"query": query}}}
}

// ratioOf is a ratioMetric of events; side is good or bad.
func ratioOf(side, part, total string) map[string]any {
	return map[string]any{"counter": counts(part) && counts(total), side: promSource(part), "total": promSource(total)}
}

func counts(query string) bool {
	q, err := ParseQuery(query)
	return err == nil && q.Kind != Expression
}

// query warns of a query that is evaluated once a minute, and of one that is
// none; it reports whether it can be used.
func (im *importer) query(n *yaml.Node, side, text string) bool {
	q, err := ParseQuery(text)
	if err != nil {
		im.note("not-a-counter", n, "%s: %v", side, err)
		return false
	}
	if q.Kind == Expression {
		im.note("sampled", n, "%s %s: %s", side, whatSampledMeans, q.Sampled)
	}
	return true
}

// write appends a document.
func (im *importer) write(s draft) error {
	meta := map[string]any{"name": s.name}
	for key, text := range map[string]string{"namespace": s.namespace, "displayName": s.title} {
		if text != "" {
			meta[key] = text
		}
	}
	for key, m := range map[string]map[string]string{"labels": s.labels, "annotations": s.annotations} {
		if len(m) > 0 {
			meta[key] = m
		}
	}
	indicator := map[string]any{"ratioMetric": s.ratio}
	if s.measures != "" {
		indicator["description"] = s.measures
	}
	percent := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: s.target.Percent()}
	if strings.Contains(percent.Value, ".") {
		percent.Tag = "!!float"
	}
	doc := map[string]any{
		"apiVersion": APIVersion, "kind": "SLO", "metadata": meta,
		"spec": map[string]any{
			"description": s.description, "service": s.service, "budgetingMethod": "Occurrences",
			"timeWindow": []any{map[string]any{"duration": s.window, "isRolling": true}},
			"indicator":  map[string]any{"metadata": map[string]any{"name": s.indicatorName}, "spec": indicator},
			"objectives": []any{map[string]any{"targetPercent": percent}},
		},
	}
	im.out.WriteString("---\n")
	enc := yaml.NewEncoder(&im.out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(doc), enc.Close()); err != nil {
		return fmt.Errorf("write SLO %q: %w", s.name, err)
	}
	return nil
}

// runbookKeys are the annotations in which people put the runbook of an alert.
var runbookKeys = []string{"runbook_url", "runbook"}

// runbookOf takes the runbook out of an alert's annotations and returns the
// names of the rest.
func runbookOf(annotations map[string]string) (runbook string, rest []string) {
	taken := ""
	for _, k := range runbookKeys {
		if v := strings.TrimSpace(annotations[k]); v != "" && runbook == "" && !strings.Contains(v, "{{") {
			runbook, taken = v, k
		}
	}
	for _, k := range slices.Sorted(maps.Keys(annotations)) {
		if k != taken {
			rest = append(rest, k)
		}
	}
	return runbook, rest
}

// team finds who is paged, among the labels of an SLO and then of its alerts,
// and warns of the labels of alerts that are left.
func (im *importer) team(n *yaml.Node, alerts, slo map[string]string) string {
	var left []string
	for _, k := range slices.Sorted(maps.Keys(alerts)) {
		if k != "team" || slo["team"] != "" && slo["team"] != alerts["team"] {
			left = append(left, k)
		}
	}
	if len(left) > 0 {
		im.note(notCarriedOver, n, "labels of alerts are not carried over: route by slo, service, namespace, team, severity and burn_tier, which alerts have; left out are %s", strings.Join(left, ", "))
	}
	return cmp.Or(slo["team"], alerts["team"])
}

// sloLabels warns that labels of the SLO do not stand on its alerts, as they do
// with Sloth and Pyrra.
func (im *importer) sloLabels(n *yaml.Node, has map[string]string) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(has)), func(k string) bool { return k == "team" })
	if len(names) > 0 {
		im.note("labels", n, "these stay labels of the SLO but are not on its alerts, which have slo, service, namespace, team, severity and burn_tier: %s", strings.Join(names, ", "))
	}
}

// merged returns the labels of several maps; a later one wins.
func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}
