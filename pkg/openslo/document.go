package openslo

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// APIVersion is that of OpenSLO.
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
	// AnnotationComposite says how the objectives of a composite SLO are put
	// together: weighted (the default), all-of or any-of.
	AnnotationComposite = "nines.internal/composite"
	// AnnotationCompositeTarget is the target of the composite objective as a
	// ratio. Of a weighted one the default is the weighted mean of the targets.
	AnnotationCompositeTarget = "nines.internal/composite-target"
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
		return fmt.Errorf("want a number such as 0.999, without quotes, got %q", n.Value)
	}
	*d = decimal(n.Value)
	return nil
}

// duration is the text of a duration in shorthand, or of a number of minutes.
type duration string

// UnmarshalYAML keeps the text of a scalar.
func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("want a duration such as 5m")
	}
	*d = duration(n.Value)
	return nil
}

// document is one document of a kind with a spec.
type document[S any] struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       S        `yaml:"spec"`
}

type sloSpec struct {
	Description     string         `yaml:"description"`
	Service         string         `yaml:"service"`
	Indicator       *indicator     `yaml:"indicator"`
	IndicatorRef    string         `yaml:"indicatorRef"`
	TimeWindow      []timeWindow   `yaml:"timeWindow"`
	BudgetingMethod string         `yaml:"budgetingMethod"`
	Objectives      []objective    `yaml:"objectives"`
	AlertPolicies   []policyHolder `yaml:"alertPolicies"`
}

type objective struct {
	DisplayName     string     `yaml:"displayName"`
	Op              string     `yaml:"op"`
	Value           decimal    `yaml:"value"`
	Target          decimal    `yaml:"target"`
	TargetPercent   decimal    `yaml:"targetPercent"`
	TimeSliceTarget decimal    `yaml:"timeSliceTarget"`
	TimeSliceWindow duration   `yaml:"timeSliceWindow"`
	Indicator       *indicator `yaml:"indicator"`
	IndicatorRef    string     `yaml:"indicatorRef"`
	CompositeWeight decimal    `yaml:"compositeWeight"`
}

type timeWindow struct {
	Duration  string    `yaml:"duration"`
	IsRolling *bool     `yaml:"isRolling"`
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

type dataSourceSpec struct {
	Description       string         `yaml:"description"`
	Type              string         `yaml:"type"`
	ConnectionDetails map[string]any `yaml:"connectionDetails"`
}

type serviceSpec struct {
	Description string `yaml:"description"`
}

// policyHolder is an alert policy inline, or the name of one.
type policyHolder struct {
	AlertPolicyRef string      `yaml:"alertPolicyRef"`
	APIVersion     string      `yaml:"apiVersion"`
	Kind           string      `yaml:"kind"`
	Metadata       metadata    `yaml:"metadata"`
	Spec           *policySpec `yaml:"spec"`
}

type policySpec struct {
	Description         string            `yaml:"description"`
	AlertWhenNoData     *bool             `yaml:"alertWhenNoData"`
	AlertWhenResolved   *bool             `yaml:"alertWhenResolved"`
	AlertWhenBreaching  *bool             `yaml:"alertWhenBreaching"`
	Conditions          []conditionHolder `yaml:"conditions"`
	NotificationTargets []targetHolder    `yaml:"notificationTargets"`
}

type conditionHolder struct {
	ConditionRef string         `yaml:"conditionRef"`
	APIVersion   string         `yaml:"apiVersion"`
	Kind         string         `yaml:"kind"`
	Metadata     metadata       `yaml:"metadata"`
	Spec         *conditionSpec `yaml:"spec"`
}

type conditionSpec struct {
	Description string    `yaml:"description"`
	Severity    string    `yaml:"severity"`
	Condition   condition `yaml:"condition"`
}

type condition struct {
	Kind           string   `yaml:"kind"`
	Op             string   `yaml:"op"`
	Threshold      decimal  `yaml:"threshold"`
	LookbackWindow duration `yaml:"lookbackWindow"`
	AlertAfter     duration `yaml:"alertAfter"`
}

type targetHolder struct {
	TargetRef  string      `yaml:"targetRef"`
	APIVersion string      `yaml:"apiVersion"`
	Kind       string      `yaml:"kind"`
	Metadata   metadata    `yaml:"metadata"`
	Spec       *targetSpec `yaml:"spec"`
}

type targetSpec struct {
	Description string `yaml:"description"`
	Target      string `yaml:"target"`
}
