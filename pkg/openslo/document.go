package openslo

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// APIVersion is the one that is understood.
const APIVersion = "openslo/v1"

// Annotations of ours on an SLO.
const (
	// AnnotationAbsent with the value "bad" makes an expected minute without a
	// sample one bad event (R18).
	AnnotationAbsent = "nines.internal/absent"
	// AnnotationGroupBy names labels, with commas between them: the SLO makes one
	// objective for each combination of their values.
	AnnotationGroupBy = "nines.internal/group-by"
	// AnnotationMaxGroups is how many groups become objectives of their own; the
	// rest is gathered in one. The default is sla.DefaultMaxGroups.
	AnnotationMaxGroups = "nines.internal/max-groups"
	// AnnotationRunbook names the runbook: a URL, or a page of ours.
	AnnotationRunbook = "nines.internal/runbook"
	// AnnotationTeam names who is paged.
	AnnotationTeam = "nines.internal/team"
)

type metadata struct {
	Name        string            `yaml:"name"`
	Namespace   string            `yaml:"namespace"`
	DisplayName string            `yaml:"displayName"`
	Labels      map[string]texts  `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// texts is one string or a list of them, joined by commas.
type texts string

// UnmarshalYAML reads a string or a list of strings.
func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	switch n.Kind {
	case yaml.ScalarNode:
		*t = texts(n.Value)
		return nil
	case yaml.SequenceNode:
		var list []string
		if err := n.Decode(&list); err == nil {
			*t = texts(strings.Join(list, ","))
			return nil
		}
	}
	return fmt.Errorf("want a string or a list of strings")
}

// decimal is the text of a number, so that it never passes through a float.
type decimal string

// UnmarshalYAML keeps the text of a number.
func (d *decimal) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!float" && n.Tag != "!!int" {
		return fmt.Errorf("want a number such as 0.999, got %q", n.Value)
	}
	*d = decimal(n.Value)
	return nil
}

type sloDocument struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       sloSpec  `yaml:"spec"`
}

type sloSpec struct {
	Description     string       `yaml:"description"`
	Service         string       `yaml:"service"`
	Indicator       *indicator   `yaml:"indicator"`
	IndicatorRef    string       `yaml:"indicatorRef"`
	TimeWindow      []timeWindow `yaml:"timeWindow"`
	BudgetingMethod string       `yaml:"budgetingMethod"`
	Objectives      []objective  `yaml:"objectives"`
	AlertPolicies   []any        `yaml:"alertPolicies"`
}

type objective struct {
	DisplayName     string     `yaml:"displayName"`
	Op              string     `yaml:"op"`
	Value           decimal    `yaml:"value"`
	Target          decimal    `yaml:"target"`
	TargetPercent   decimal    `yaml:"targetPercent"`
	TimeSliceTarget decimal    `yaml:"timeSliceTarget"`
	TimeSliceWindow string     `yaml:"timeSliceWindow"`
	Indicator       *indicator `yaml:"indicator"`
	IndicatorRef    string     `yaml:"indicatorRef"`
	CompositeWeight decimal    `yaml:"compositeWeight"`
}

type timeWindow struct {
	Duration  string    `yaml:"duration"`
	IsRolling bool      `yaml:"isRolling"`
	Calendar  *calendar `yaml:"calendar"`
}

type calendar struct {
	StartTime string `yaml:"startTime"`
	TimeZone  string `yaml:"timeZone"`
}

type indicator struct {
	Metadata metadata      `yaml:"metadata"`
	Spec     indicatorSpec `yaml:"spec"`
}

type indicatorDocument struct {
	APIVersion string        `yaml:"apiVersion"`
	Kind       string        `yaml:"kind"`
	Metadata   metadata      `yaml:"metadata"`
	Spec       indicatorSpec `yaml:"spec"`
}

type indicatorSpec struct {
	Description     string        `yaml:"description"`
	ThresholdMetric *metricHolder `yaml:"thresholdMetric"`
	RatioMetric     *ratioMetric  `yaml:"ratioMetric"`
}

type ratioMetric struct {
	Counter bool          `yaml:"counter"`
	Good    *metricHolder `yaml:"good"`
	Bad     *metricHolder `yaml:"bad"`
	Total   *metricHolder `yaml:"total"`
	RawType string        `yaml:"rawType"`
	Raw     *metricHolder `yaml:"raw"`
}

type metricHolder struct {
	MetricSource metricSource `yaml:"metricSource"`
}

type metricSource struct {
	MetricSourceRef string     `yaml:"metricSourceRef"`
	Type            string     `yaml:"type"`
	Spec            metricSpec `yaml:"spec"`
}

type metricSpec struct {
	Query string `yaml:"query"`
}

// The kinds below are decoded strictly; what they hold is not used yet, and an
// SLO that refers to an alert policy is told so.
type otherDocument struct {
	APIVersion string         `yaml:"apiVersion"`
	Kind       string         `yaml:"kind"`
	Metadata   metadata       `yaml:"metadata"`
	Spec       map[string]any `yaml:"spec"`
}
