package pods

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// PodMonitor is the part of the Prometheus Operator's PodMonitor that says what
// is scraped. Listeners share it: nobody changes it.
type PodMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              PodMonitorSpec `json:"spec"`
}

// PodMonitorSpec names pods and how they are scraped.
type PodMonitorSpec struct {
	JobLabel          string               `json:"jobLabel"`
	PodTargetLabels   []string             `json:"podTargetLabels"`
	Endpoints         []Endpoint           `json:"podMetricsEndpoints"`
	Selector          metav1.LabelSelector `json:"selector"`
	SelectorMechanism string               `json:"selectorMechanism"` // RelabelConfig (empty: that) or RoleSelector
	NamespaceSelector struct {
		Any        bool     `json:"any"`
		MatchNames []string `json:"matchNames"`
	} `json:"namespaceSelector"`
	AttachMetadata struct {
		Node bool `json:"node"`
	} `json:"attachMetadata"`
	ScrapeClass string `json:"scrapeClass"`

	SampleLimit           uint   `json:"sampleLimit"`
	TargetLimit           uint   `json:"targetLimit"`
	LabelLimit            uint   `json:"labelLimit"`
	LabelNameLengthLimit  uint   `json:"labelNameLengthLimit"`
	LabelValueLengthLimit uint   `json:"labelValueLengthLimit"`
	KeepDroppedTargets    uint   `json:"keepDroppedTargets"`
	BodySizeLimit         string `json:"bodySizeLimit"`

	ScrapeProtocols        []string `json:"scrapeProtocols"`
	FallbackScrapeProtocol string   `json:"fallbackScrapeProtocol"`

	ScrapeNativeHistograms         *bool              `json:"scrapeNativeHistograms"`
	ScrapeClassicHistograms        *bool              `json:"scrapeClassicHistograms"`
	ConvertClassicHistogramsToNHCB *bool              `json:"convertClassicHistogramsToNHCB"`
	NativeHistogramBucketLimit     uint               `json:"nativeHistogramBucketLimit"`
	NativeHistogramMinBucketFactor *resource.Quantity `json:"nativeHistogramMinBucketFactor"`

	// Unreadable is why the specification is none that we can read; empty: it is.
	// It is no error of decoding, as one bad object would keep the list of all
	// from being read.
	Unreadable string `json:"-"`
}

// UnmarshalJSON never fails, see Unreadable.
func (s *PodMonitorSpec) UnmarshalJSON(data []byte) error {
	type plain PodMonitorSpec
	*s = PodMonitorSpec{}
	if err := json.Unmarshal(data, (*plain)(s)); err != nil {
		*s = PodMonitorSpec{Unreadable: err.Error()}
	}
	return nil
}

// Endpoint is one way to scrape the pods.
type Endpoint struct {
	Port       string              `json:"port"`
	PortNumber int32               `json:"portNumber"`
	TargetPort PortRef             `json:"targetPort"`
	Path       string              `json:"path"`
	Scheme     string              `json:"scheme"`
	Params     map[string][]string `json:"params"`

	Interval      string `json:"interval"`
	ScrapeTimeout string `json:"scrapeTimeout"`

	HonorLabels              bool  `json:"honorLabels"`
	HonorTimestamps          *bool `json:"honorTimestamps"`
	TrackTimestampsStaleness *bool `json:"trackTimestampsStaleness"`
	FilterRunning            *bool `json:"filterRunning"`
	FollowRedirects          *bool `json:"followRedirects"`
	EnableHTTP2              *bool `json:"enableHttp2"`

	Relabelings       []Relabeling `json:"relabelings"`
	MetricRelabelings []Relabeling `json:"metricRelabelings"`

	TLSConfig         *TLSConfig     `json:"tlsConfig"`
	BearerTokenSecret KeyRef         `json:"bearerTokenSecret"`
	BasicAuth         *BasicAuth     `json:"basicAuth"`
	Authorization     *Authorization `json:"authorization"`
	OAuth2            *OAuth2        `json:"oauth2"`
	Proxy
}

// Relabeling is a rule for labels of targets or of samples.
type Relabeling struct {
	SourceLabels []string `json:"sourceLabels"`
	Separator    *string  `json:"separator"`
	TargetLabel  string   `json:"targetLabel"`
	Regex        string   `json:"regex"`
	Modulus      uint64   `json:"modulus"`
	Replacement  *string  `json:"replacement"`
	Action       string   `json:"action"`
}

// KeyRef is a key of a Secret or ConfigMap in the PodMonitor's namespace.
type KeyRef struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// SecretOrConfigMap is a key of either.
type SecretOrConfigMap struct {
	Secret    *KeyRef `json:"secret"`
	ConfigMap *KeyRef `json:"configMap"`
}

// TLSConfig says how pods prove who they are, and how we do.
type TLSConfig struct {
	CA                 SecretOrConfigMap `json:"ca"`
	Cert               SecretOrConfigMap `json:"cert"`
	KeySecret          *KeyRef           `json:"keySecret"`
	ServerName         string            `json:"serverName"`
	InsecureSkipVerify bool              `json:"insecureSkipVerify"`
	MinVersion         string            `json:"minVersion"` // TLS10 to TLS13
	MaxVersion         string            `json:"maxVersion"`
}

// BasicAuth is a user and a password.
type BasicAuth struct {
	Username KeyRef `json:"username"`
	Password KeyRef `json:"password"`
}

// Authorization is a header of that name.
type Authorization struct {
	Type        string  `json:"type"` // empty: Bearer
	Credentials *KeyRef `json:"credentials"`
}

// OAuth2 is where a token is got.
type OAuth2 struct {
	ClientID       SecretOrConfigMap `json:"clientId"`
	ClientSecret   KeyRef            `json:"clientSecret"`
	TokenURL       string            `json:"tokenUrl"`
	Scopes         []string          `json:"scopes"`
	EndpointParams map[string]string `json:"endpointParams"`
	TLSConfig      *TLSConfig        `json:"tlsConfig"`
	Proxy
}

// Proxy is one between us and the pods.
type Proxy struct {
	ProxyURL             string `json:"proxyUrl"`
	NoProxy              string `json:"noProxy"`
	ProxyFromEnvironment bool   `json:"proxyFromEnvironment"`
}

// PortRef is a name, or a number that is not 0; neither where both are zero.
type PortRef struct {
	Name   string
	Number int
}

// String is the name or the number.
func (p PortRef) String() string {
	if p.Name == "" && p.Number != 0 {
		return strconv.Itoa(p.Number)
	}
	return p.Name
}

// UnmarshalJSON takes either.
func (p *PortRef) UnmarshalJSON(data []byte) error {
	*p = PortRef{}
	if json.Unmarshal(data, &p.Name) == nil || json.Unmarshal(data, &p.Number) == nil {
		return nil
	}
	return fmt.Errorf("targetPort %s is neither a name nor a number", data)
}

// DeepCopyObject makes it an object of the client. What nobody writes into is
// shared.
func (m *PodMonitor) DeepCopyObject() runtime.Object {
	out := *m
	m.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// podMonitorList is a page of them.
type podMonitorList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []PodMonitor `json:"items"`
}

// DeepCopyObject makes it an object of the client.
func (l *podMonitorList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = slices.Clone(l.Items)
	for i := range out.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*PodMonitor)
	}
	return &out
}
