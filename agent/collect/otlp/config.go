package otlp

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/config"

	"nines/pkg/ops"
)

// Config says where metrics are taken and how they are translated. The names of
// the keys of translation, and what they do, are those of Prometheus' section
// otlp.
type Config struct {
	HTTP     string `yaml:"http"`      // host:port of POST /v1/metrics; empty: off
	GRPC     string `yaml:"grpc"`      // host:port of MetricsService; empty: off
	CertFile string `yaml:"cert_file"` // PEM; both or neither, of both addresses
	KeyFile  string `yaml:"key_file"`

	MaxBody    ops.Size `yaml:"max_body"`   // of a request, packed and unpacked; from MinMaxBody to MaxMaxBody
	Concurrent int      `yaml:"concurrent"` // requests at the same time, of both addresses together; 1 to MaxConcurrent

	TranslationStrategy                  otlptranslator.TranslationStrategyOption `yaml:"translation_strategy"`
	PromoteResourceAttributes            []string                                 `yaml:"promote_resource_attributes"`
	PromoteAllResourceAttributes         bool                                     `yaml:"promote_all_resource_attributes"`
	IgnoreResourceAttributes             []string                                 `yaml:"ignore_resource_attributes"`
	PromoteScopeMetadata                 bool                                     `yaml:"promote_scope_metadata"`
	KeepIdentifyingResourceAttributes    bool                                     `yaml:"keep_identifying_resource_attributes"`
	ConvertHistogramsToNHCB              bool                                     `yaml:"convert_histograms_to_nhcb"`
	LabelNameUnderscoreSanitization      bool                                     `yaml:"label_name_underscore_sanitization"`
	LabelNamePreserveMultipleUnderscores bool                                     `yaml:"label_name_preserve_multiple_underscores"`

	// DeltasToCumulative adds deltas up in memory, of at most MaxStreams. Without
	// it they are refused: their sum is what Prometheus' functions are about.
	DeltasToCumulative bool `yaml:"deltas_to_cumulative"`
}

// Bounds of the configuration.
const (
	MinMaxBody = 64 << 10
	// MaxMaxBody is four times what gRPC takes by itself.
	MaxMaxBody    = 16 << 20
	MaxConcurrent = 64
	// MaxAttributes bounds the lists of attributes.
	MaxAttributes = 200
)

// DefaultConfig takes nothing: without addresses it is off. 4 MiB is what gRPC
// takes by itself and some 30,000 points. A request is under way for as long as
// the sink takes to make it durable, up to half a second: 16 at a time are 32 a
// second, those of 320 pods that send every ten seconds.
func DefaultConfig() Config {
	t := config.DefaultOTLPConfig
	return Config{
		MaxBody: 4 << 20, Concurrent: 16,
		TranslationStrategy:                  t.TranslationStrategy,
		PromoteScopeMetadata:                 t.PromoteScopeMetadata,
		LabelNameUnderscoreSanitization:      t.LabelNameUnderscoreSanitization,
		LabelNamePreserveMultipleUnderscores: t.LabelNamePreserveMultipleUnderscores,
	}
}

// Enabled says whether there is an address to take metrics at.
func (c Config) Enabled() bool { return c.HTTP != "" || c.GRPC != "" }

var strategies = []otlptranslator.TranslationStrategyOption{
	otlptranslator.UnderscoreEscapingWithSuffixes, otlptranslator.UnderscoreEscapingWithoutSuffixes,
	otlptranslator.NoUTF8EscapingWithSuffixes, otlptranslator.NoTranslation,
}

// Validate names the field that is wrong, and the remedy.
func (c Config) Validate() error {
	for _, a := range []struct{ key, address, example string }{{"http", c.HTTP, "0.0.0.0:4318"}, {"grpc", c.GRPC, "0.0.0.0:4317"}} {
		if a.address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			return fmt.Errorf("%s: %w: write it as host:port, such as %s", a.key, err, a.example)
		}
	}
	known := false
	names := make([]string, len(strategies))
	for i, s := range strategies {
		known = known || s == c.TranslationStrategy
		names[i] = string(s)
	}
	_, port, _ := net.SplitHostPort(c.GRPC) // checked above
	switch {
	case c.HTTP != "" && c.HTTP == c.GRPC && port != "0":
		return errors.New("grpc is the same address as http: give each a port of its own, usually 4317 and 4318")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("cert_file and key_file belong together: set both, or none to take plain HTTP")
	case c.MaxBody < MinMaxBody || c.MaxBody > MaxMaxBody:
		return fmt.Errorf("max_body is %v: choose from %v to %v", c.MaxBody, ops.Size(MinMaxBody), ops.Size(MaxMaxBody))
	case c.Concurrent < 1 || c.Concurrent > MaxConcurrent:
		return fmt.Errorf("concurrent is %d: choose from 1 to %d", c.Concurrent, MaxConcurrent)
	case !known:
		return fmt.Errorf("translation_strategy is %q: choose one of %s", c.TranslationStrategy, strings.Join(names, ", "))
	case c.PromoteAllResourceAttributes && len(c.PromoteResourceAttributes) > 0:
		return errors.New("promote_resource_attributes has entries, and promote_all_resource_attributes takes all: remove one of the two")
	case !c.PromoteAllResourceAttributes && len(c.IgnoreResourceAttributes) > 0:
		return errors.New("ignore_resource_attributes has entries, which matter with promote_all_resource_attributes alone: set that, or remove them")
	}
	for _, l := range []struct {
		key   string
		names []string
	}{{"promote_resource_attributes", c.PromoteResourceAttributes}, {"ignore_resource_attributes", c.IgnoreResourceAttributes}} {
		if len(l.names) > MaxAttributes {
			return fmt.Errorf("%s has %d entries, at most %d are kept", l.key, len(l.names), MaxAttributes)
		}
		seen := map[string]int{}
		for i, name := range l.names {
			if name == "" || strings.TrimSpace(name) != name {
				return fmt.Errorf("%s[%d] is %q: name an attribute, without spaces around it", l.key, i, name)
			}
			if j, twice := seen[name]; twice {
				return fmt.Errorf("%s[%d] is the same as %s[%d]: remove one", l.key, i, l.key, j)
			}
			seen[name] = i
		}
	}
	return nil
}
