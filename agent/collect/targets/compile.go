package targets

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/alecthomas/units"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"

	"nines/agent/collect/scrape"
	"nines/agent/pods"
)

// maxDropped bounds the targets that no rule kept and that the scraper remembers.
const maxDropped = 100

// base is a scrape configuration before anything is said of it.
func (c Config) base(job string) *config.ScrapeConfig {
	out := scrape.DefaultJob(job)
	out.ScrapeInterval = model.Duration(c.Interval)
	out.KeepDroppedTargets = maxDropped
	out.SampleLimit, out.TargetLimit = uint(c.Limits.Samples), uint(c.Limits.Targets)
	out.LabelLimit, out.LabelNameLengthLimit, out.LabelValueLengthLimit = uint(c.Limits.Labels), uint(c.Limits.LabelNameLength), uint(c.Limits.LabelValueLength)
	out.BodySizeLimit = units.Base2Bytes(c.Limits.BodySize)
	return out
}

// finish fills in the time-out and looks for mistakes.
func (c Config) finish(out *config.ScrapeConfig) error {
	if out.ScrapeTimeout == 0 {
		out.ScrapeTimeout = min(model.Duration(c.Timeout), out.ScrapeInterval)
	}
	// What is left open, such as the protocols and whether native histograms are
	// read, the scraper fills in by its own defaults: a copy is checked.
	filled := *out
	if err := filled.Validate(config.DefaultGlobalConfig); err != nil {
		return err
	}
	return out.HTTPClientConfig.Validate()
}

// annotationJob is the scrape configuration of pods with annotations. Labels of
// samples stand before those of the target, as in the chart: exporters that
// speak of other pods rely on it.
func (c Config) annotationJob() (*config.ScrapeConfig, error) {
	out := c.base("kubernetes-pods")
	out.HonorLabels = true
	out.RelabelConfigs = annotated
	return out, c.finish(out)
}

// compile makes the scrape configuration of an endpoint of a PodMonitor as the
// Prometheus Operator does. What it refers to is got by look; the error of that
// comes back as it is.
func (c Config) compile(m *pods.PodMonitor, i int, look func(ref) (string, error)) (*config.ScrapeConfig, error) {
	e, spec := m.Spec.Endpoints[i], m.Spec
	out := c.base(fmt.Sprintf("podMonitor/%s/%s/%d", m.Namespace, m.Name, i))
	var err error
	if out.RelabelConfigs, err = monitored(m, e); err != nil {
		return nil, err
	}
	if out.MetricRelabelConfigs, err = rulesOf("metricRelabelings", e.MetricRelabelings); err != nil {
		return nil, err
	}
	if out.ScrapeInterval, err = duration("interval", e.Interval, out.ScrapeInterval); err != nil {
		return nil, err
	}
	if out.ScrapeTimeout, err = duration("scrapeTimeout", e.ScrapeTimeout, 0); err != nil {
		return nil, err
	}
	if time.Duration(out.ScrapeInterval) < minInterval {
		return nil, fmt.Errorf("interval %s is below %v: choose a longer one", e.Interval, minInterval)
	}
	if out.ScrapeTimeout > out.ScrapeInterval {
		return nil, fmt.Errorf("scrapeTimeout %s is above interval %s: choose a shorter one", out.ScrapeTimeout, out.ScrapeInterval)
	}
	out.HonorLabels = e.HonorLabels
	set(&out.HonorTimestamps, e.HonorTimestamps)
	set(&out.TrackTimestampsStaleness, e.TrackTimestampsStaleness)
	set(&out.HTTPClientConfig.FollowRedirects, e.FollowRedirects)
	set(&out.HTTPClientConfig.EnableHTTP2, e.EnableHTTP2)
	if e.Path != "" {
		out.MetricsPath = e.Path
	}
	if e.Scheme != "" {
		out.Scheme = strings.ToLower(e.Scheme)
	}
	if len(e.Params) > 0 {
		out.Params = url.Values(e.Params)
	}
	out.SampleLimit, out.TargetLimit = lower(spec.SampleLimit, out.SampleLimit), lower(spec.TargetLimit, out.TargetLimit)
	out.LabelLimit = lower(spec.LabelLimit, out.LabelLimit)
	out.LabelNameLengthLimit = lower(spec.LabelNameLengthLimit, out.LabelNameLengthLimit)
	out.LabelValueLengthLimit = lower(spec.LabelValueLengthLimit, out.LabelValueLengthLimit)
	out.KeepDroppedTargets = lower(spec.KeepDroppedTargets, maxDropped)
	if spec.BodySizeLimit != "" {
		limit, err := units.ParseBase2Bytes(spec.BodySizeLimit)
		if err != nil {
			return nil, fmt.Errorf("bodySizeLimit %q is no size: write it as 10MB: %w", spec.BodySizeLimit, err)
		}
		out.BodySizeLimit = lower(limit, out.BodySizeLimit)
	}
	for _, p := range spec.ScrapeProtocols {
		out.ScrapeProtocols = append(out.ScrapeProtocols, config.ScrapeProtocol(p))
	}
	out.ScrapeFallbackProtocol = config.ScrapeProtocol(spec.FallbackScrapeProtocol)
	out.ScrapeNativeHistograms = spec.ScrapeNativeHistograms
	out.AlwaysScrapeClassicHistograms = spec.ScrapeClassicHistograms
	out.ConvertClassicHistogramsToNHCB = spec.ConvertClassicHistogramsToNHCB
	out.NativeHistogramBucketLimit = spec.NativeHistogramBucketLimit
	if q := spec.NativeHistogramMinBucketFactor; q != nil {
		out.NativeHistogramMinBucketFactor = q.AsApproximateFloat64()
	}
	if err := client(&out.HTTPClientConfig, m.Namespace, e, look); err != nil {
		return nil, err
	}
	if err := c.finish(out); err != nil {
		return nil, fmt.Errorf("%w: correct it", err)
	}
	return out, nil
}

func duration(key, s string, otherwise model.Duration) (model.Duration, error) {
	if s == "" {
		return otherwise, nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%s %q is no duration: write it as 30s: %w", key, s, err)
	}
	return d, nil
}

func set(to, from *bool) {
	if from != nil {
		*to = *from
	}
}

// lower is the smaller of two limits, of which 0 is none.
func lower[T ~uint | ~int64](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// ref is a key of a Secret or ConfigMap.
type ref struct {
	object
	key   string
	field string // of the endpoint, for people
}

// client says how the pods are talked to.
func client(out *promconfig.HTTPClientConfig, namespace string, e pods.Endpoint, look func(ref) (string, error)) error {
	secret := func(field string, k pods.KeyRef) (string, error) {
		return look(ref{object{secrets, namespace, k.Name}, k.Key, field})
	}
	either := func(field string, k pods.SecretOrConfigMap) (string, error) {
		switch {
		case k.Secret != nil:
			return secret(field+".secret", *k.Secret)
		case k.ConfigMap != nil:
			return look(ref{object{configMaps, namespace, k.ConfigMap.Name}, k.ConfigMap.Key, field + ".configMap"})
		}
		return "", nil
	}
	secured := func(field string, out *promconfig.TLSConfig, t *pods.TLSConfig) (err error) {
		if t == nil {
			return nil
		}
		out.ServerName, out.InsecureSkipVerify = t.ServerName, t.InsecureSkipVerify
		if out.CA, err = either(field+".ca", t.CA); err != nil {
			return err
		}
		if out.Cert, err = either(field+".cert", t.Cert); err != nil {
			return err
		}
		if t.KeySecret != nil {
			key, err := secret(field+".keySecret", *t.KeySecret)
			if err != nil {
				return err
			}
			out.Key = promconfig.Secret(key)
		}
		for _, v := range []struct {
			key, value string
			to         *promconfig.TLSVersion
		}{{"minVersion", t.MinVersion, &out.MinVersion}, {"maxVersion", t.MaxVersion, &out.MaxVersion}} {
			if v.value == "" {
				continue
			}
			version, ok := promconfig.TLSVersions[v.value]
			if !ok {
				return fmt.Errorf("%s.%s %q is no version of TLS: choose from TLS10 to TLS13", field, v.key, v.value)
			}
			*v.to = version
		}
		if _, err := promconfig.NewTLSConfig(out); err != nil {
			return fmt.Errorf("%s: %w: correct the certificate, the key, or the Secret that holds them", field, err)
		}
		return nil
	}
	proxied := func(out *promconfig.ProxyConfig, p pods.Proxy) error {
		if p.ProxyURL != "" {
			u, err := url.Parse(p.ProxyURL)
			if err != nil {
				return errors.New("proxyUrl is no URL: write it as http://HOST:PORT") // it may hold a password
			}
			out.ProxyURL = promconfig.URL{URL: u}
		}
		out.NoProxy, out.ProxyFromEnvironment = p.NoProxy, p.ProxyFromEnvironment
		return nil
	}

	if err := errors.Join(secured("tlsConfig", &out.TLSConfig, e.TLSConfig), proxied(&out.ProxyConfig, e.Proxy)); err != nil {
		return err
	}
	if e.BearerTokenSecret.Name != "" {
		token, err := secret("bearerTokenSecret", e.BearerTokenSecret)
		if err != nil {
			return err
		}
		out.BearerToken = promconfig.Secret(token)
	}
	if b := e.BasicAuth; b != nil {
		user, err := secret("basicAuth.username", b.Username)
		if err != nil {
			return err
		}
		password, err := secret("basicAuth.password", b.Password)
		if err != nil {
			return err
		}
		out.BasicAuth = &promconfig.BasicAuth{Username: user, Password: promconfig.Secret(password)}
	}
	if a := e.Authorization; a != nil {
		out.Authorization = &promconfig.Authorization{Type: a.Type}
		if a.Credentials != nil {
			credentials, err := secret("authorization.credentials", *a.Credentials)
			if err != nil {
				return err
			}
			out.Authorization.Credentials = promconfig.Secret(credentials)
		}
	}
	if o := e.OAuth2; o != nil {
		id, err := either("oauth2.clientId", o.ClientID)
		if err != nil {
			return err
		}
		password, err := secret("oauth2.clientSecret", o.ClientSecret)
		if err != nil {
			return err
		}
		out.OAuth2 = &promconfig.OAuth2{
			ClientID: id, ClientSecret: promconfig.Secret(password), TokenURL: o.TokenURL, Scopes: o.Scopes, EndpointParams: o.EndpointParams,
		}
		return errors.Join(secured("oauth2.tlsConfig", &out.OAuth2.TLSConfig, o.TLSConfig), proxied(&out.OAuth2.ProxyConfig, o.Proxy))
	}
	return nil
}
