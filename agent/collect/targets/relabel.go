package targets

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/util/strutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"nines/agent/pods"
)

// rules are those for the labels of targets.
type rules []*relabel.Config

// add appends a rule; what is empty in it is as Prometheus has it by default.
func (r *rules) add(c relabel.Config) {
	if c.Action == "" {
		c.Action = relabel.Replace
	}
	if c.Separator == "" {
		c.Separator = relabel.DefaultRelabelConfig.Separator
	}
	if c.Regex.Regexp == nil {
		c.Regex = relabel.DefaultRelabelConfig.Regex
	}
	if c.Replacement == "" {
		c.Replacement = relabel.DefaultRelabelConfig.Replacement
	}
	c.NameValidationScheme = model.UTF8Validation
	*r = append(*r, &c)
}

func (r *rules) filter(action relabel.Action, regex relabel.Regexp, from ...model.LabelName) {
	r.add(relabel.Config{Action: action, Regex: regex, SourceLabels: from})
}

func (r *rules) copy(to string, from model.LabelName) {
	r.add(relabel.Config{SourceLabels: model.LabelNames{from}, TargetLabel: to})
}

// copySome copies a value that is not empty.
func (r *rules) copySome(to string, from model.LabelName) {
	r.add(relabel.Config{SourceLabels: model.LabelNames{from}, TargetLabel: to, Regex: some})
}

func (r *rules) set(to, value string) {
	r.add(relabel.Config{TargetLabel: to, Replacement: value})
}

var (
	some  = relabel.MustNewRegexp("(.+)")
	yes   = relabel.MustNewRegexp("true")
	ended = relabel.MustNewRegexp("(Failed|Succeeded)")
)

// annotationPrefix begins the names of annotations that say how a pod is scraped.
const annotationPrefix = "prometheus.io/"

// annotated are the rules of the job kubernetes-pods of prometheus-community's
// chart, which dashboards and rules of people are written for. There is no label
// container, as there: a port that an annotation names belongs to none, and each
// container would be scraped at it. A container without a port is a target only
// where an annotation names one; the chart would try port 80.
var annotated = func() rules {
	annotation := func(name string) model.LabelName {
		return model.LabelName(meta + "pod_annotation_prometheus_io_" + name)
	}
	var r rules
	r.filter(relabel.Keep, yes, annotation("scrape"))
	r.filter(relabel.Keep, relabel.MustNewRegexp(`\d+;.*|.*;\d+`), annotation("port"), meta+"pod_container_port_number")
	r.add(relabel.Config{SourceLabels: model.LabelNames{annotation("scheme")}, Regex: relabel.MustNewRegexp("(https?)"), TargetLabel: model.SchemeLabel})
	r.copySome(model.MetricsPathLabel, annotation("path"))
	address := model.LabelNames{annotation("port"), meta + "pod_ip"}
	r.add(relabel.Config{SourceLabels: address, Regex: relabel.MustNewRegexp(`(\d+);([^:]+)`), Replacement: "$2:$1", TargetLabel: model.AddressLabel})
	r.add(relabel.Config{SourceLabels: address, Regex: relabel.MustNewRegexp(`(\d+);(.*:.*)`), Replacement: "[$2]:$1", TargetLabel: model.AddressLabel})
	r.add(relabel.Config{Action: relabel.LabelMap, Regex: relabel.MustNewRegexp(meta + "pod_annotation_prometheus_io_param_(.+)"), Replacement: model.ParamLabelPrefix + "$1"})
	r.add(relabel.Config{Action: relabel.LabelMap, Regex: relabel.MustNewRegexp(meta + "pod_label_(.+)")})
	r.copy("namespace", meta+"namespace")
	r.copy("pod", meta+"pod_name")
	r.filter(relabel.Drop, relabel.MustNewRegexp("Pending|Succeeded|Failed|Completed"), meta+"pod_phase")
	r.copy("node", meta+"pod_node_name")
	return r
}()

// monitored are the rules that the Prometheus Operator makes of an endpoint
// (pkg/prometheus, promcfg.go), in its order.
func monitored(m *pods.PodMonitor, e pods.Endpoint) (rules, error) {
	podLabel := func(name string) (value, present model.LabelName) {
		name = strutil.SanitizeLabelName(name)
		return model.LabelName(meta + "pod_label_" + name), model.LabelName(meta + "pod_labelpresent_" + name)
	}
	var r rules
	r.copy("__tmp_prometheus_job_name", model.JobLabel)
	if e.FilterRunning == nil || *e.FilterRunning {
		r.filter(relabel.Drop, ended, meta+"pod_phase")
	}
	// Under RoleSelector the API server selects, and no rule does. We always
	// select by the labels; the rules say the same once more, for who reads them.
	if m.Spec.SelectorMechanism != "RoleSelector" {
		selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
		if err != nil {
			return nil, fmt.Errorf("selector: %w: correct it", err)
		}
		requirements, _ := selector.Requirements()
		for _, q := range requirements {
			value, present := podLabel(q.Key())
			regex, err := relabel.NewRegexp("(" + strings.Join(q.ValuesUnsorted(), "|") + ");true")
			if err != nil {
				return nil, fmt.Errorf("selector: %w: correct it", err)
			}
			switch string(q.Operator()) {
			case "=", "==", "in":
				r.filter(relabel.Keep, regex, value, present)
			case "!=", "notin":
				r.filter(relabel.Drop, regex, value, present)
			case "exists":
				r.filter(relabel.Keep, yes, present)
			case "!":
				r.filter(relabel.Drop, yes, present)
			}
		}
	}
	endpoint := ""
	for _, p := range []struct {
		label model.LabelName
		value string
	}{
		{meta + "pod_container_port_name", e.Port},
		{meta + "pod_container_port_number", number(int(e.PortNumber))},
		{meta + "pod_container_port_name", e.TargetPort.Name},
		{meta + "pod_container_port_number", number(e.TargetPort.Number)},
	} {
		if p.value == "" {
			continue
		}
		regex, err := relabel.NewRegexp(p.value)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w: correct it", p.value, err)
		}
		r.filter(relabel.Keep, regex, p.label)
		endpoint = p.value
		break
	}
	r.copy("namespace", meta+"namespace")
	r.copy("container", meta+"pod_container_name")
	r.copy("pod", meta+"pod_name")
	for _, name := range m.Spec.PodTargetLabels {
		value, _ := podLabel(name)
		r.copySome(strutil.SanitizeLabelName(name), value)
	}
	r.set(model.JobLabel, m.Namespace+"/"+m.Name)
	if m.Spec.JobLabel != "" {
		value, _ := podLabel(m.Spec.JobLabel)
		r.copySome(model.JobLabel, value)
	}
	if endpoint != "" {
		r.set("endpoint", endpoint)
	}
	own, err := rulesOf("relabelings", e.Relabelings)
	return append(r, own...), err
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// rulesOf are those that people wrote below a key.
func rulesOf(key string, list []pods.Relabeling) (rules, error) {
	var out rules
	for i, w := range list {
		c := relabel.DefaultRelabelConfig
		for _, l := range w.SourceLabels {
			c.SourceLabels = append(c.SourceLabels, model.LabelName(l))
		}
		c.TargetLabel, c.Modulus = w.TargetLabel, w.Modulus
		if w.Separator != nil {
			c.Separator = *w.Separator
		}
		if w.Replacement != nil {
			c.Replacement = *w.Replacement
		}
		if w.Regex != "" {
			regex, err := relabel.NewRegexp(w.Regex)
			if err != nil {
				return nil, fmt.Errorf("%s[%d].regex %q: %w: correct it", key, i, w.Regex, err)
			}
			c.Regex = regex
		}
		if w.Action != "" {
			if err := c.Action.UnmarshalYAML(func(v any) error { *v.(*string) = w.Action; return nil }); err != nil {
				return nil, fmt.Errorf("%s[%d].action: %w: choose one that Prometheus knows, such as replace, keep, drop or labelmap", key, i, err)
			}
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w: correct it", key, i, err)
		}
		out = append(out, &c)
	}
	return out, nil
}

// selects returns which pods a PodMonitor is for, and an error where its
// selectors are none.
func selects(m *pods.PodMonitor) (func(*pod) bool, error) {
	selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector: %w: correct it", err)
	}
	in := map[string]bool{}
	for _, name := range m.Spec.NamespaceSelector.MatchNames {
		in[name] = true
	}
	if len(in) == 0 {
		in[m.Namespace] = true
	}
	return func(p *pod) bool {
		return (m.Spec.NamespaceSelector.Any || in[p.namespace]) && selector.Matches(labels.Set(p.labels))
	}, nil
}
