package forward

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/common/config"
	yamlv2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"
)

// Destination is a store that takes remote write. Beside its address it has the
// keys that Prometheus gives an HTTP client: basic_auth, authorization,
// bearer_token_file, oauth2, tls_config, http_headers, proxy_url. Files of
// passwords, tokens and certificates are read again when they change.
type Destination struct {
	URL  string
	HTTP config.HTTPClientConfig
}

// destinationKeys are those of Destination in a file.
type destinationKeys struct {
	URL  string                  `yaml:"url"`
	HTTP config.HTTPClientConfig `yaml:",inline"`
}

// UnmarshalYAML reads a destination as Prometheus reads its own; a key that it
// does not know is an error.
func (d *Destination) UnmarshalYAML(n *yaml.Node) error {
	text, err := yaml.Marshal(n)
	if err != nil {
		return err
	}
	keys := destinationKeys{HTTP: config.DefaultHTTPClientConfig}
	if err := yamlv2.UnmarshalStrict(text, &keys); err != nil {
		var typed *yamlv2.TypeError
		if errors.As(err, &typed) && len(typed.Errors) > 0 {
			err = errors.New(typed.Errors[0])
		}
		return fmt.Errorf("%w; a destination has url and, where needed, basic_auth, authorization, bearer_token_file, oauth2, tls_config, http_headers, proxy_url, as Prometheus writes them", err)
	}
	if err := keys.HTTP.Validate(); err != nil { // as their own reading does it
		return err
	}
	*d = Destination(keys)
	return nil
}

// validate names what is wrong, and the remedy; where begins each message.
func (d Destination) validate(where string) error {
	u, err := url.Parse(d.URL)
	switch {
	case d.URL == "":
		return fmt.Errorf("%s.url is missing: give an address such as http://127.0.0.1:9190/api/v1/write, or remove the entry", where)
	case err != nil:
		return fmt.Errorf("%s.url is not an address: %w", where, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%s.url %q must begin with http:// or https://", where, u.Redacted())
	case u.Host == "":
		return fmt.Errorf("%s.url %q names no host: write it as http://host:port/api/v1/write", where, u.Redacted())
	}
	http := d.HTTP
	if err := http.Validate(); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	return nil
}

// client makes the destination's HTTP client. Redirects are not followed: a POST
// that is sent on elsewhere becomes a GET.
func (d Destination) client(timeout time.Duration) (*http.Client, error) {
	cfg := d.HTTP
	cfg.FollowRedirects = false
	if cfg.ProxyURL.URL == nil {
		cfg.ProxyFromEnvironment = true
	}
	client, err := config.NewClientFromConfig(cfg, "remote write", config.WithIdleConnTimeout(90*time.Second))
	if err != nil {
		return nil, fmt.Errorf("send_to: %w: the files of certificates, keys, passwords and tokens must exist and be readable by the agent", err)
	}
	client.Timeout = timeout
	return client, nil
}
