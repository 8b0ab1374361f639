package forward

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/prometheus/common/config"
	yamlv2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"

	"nines/pkg/strictyaml"
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

// maxNodes bounds what a destination is written with, aliases written out.
const maxNodes = 1000

var noSuchKey = regexp.MustCompile(`field (\S+) not found in type`)

// UnmarshalYAML reads a destination as Prometheus reads its own; a key that it
// does not know is an error at its place.
func (d *Destination) UnmarshalYAML(n *yaml.Node) error {
	left := maxNodes
	plain, err := written(n, &left)
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(plain)
	if err != nil {
		return err
	}
	keys := destinationKeys{HTTP: config.DefaultHTTPClientConfig}
	if err := yamlv2.UnmarshalStrict(text, &keys); err != nil {
		if m := noSuchKey.FindStringSubmatch(err.Error()); m != nil {
			if at := keyNamed(n, m[1]); at != nil {
				return strictyaml.Errors{{Line: at.Line, Column: at.Column, Message: fmt.Sprintf(
					"%s is not a key of a destination, or not there: beside url it has those of Prometheus' HTTP clients, such as basic_auth, authorization, oauth2, tls_config, http_headers, proxy_url", m[1])}}
			}
		}
		return err
	}
	if err := keys.HTTP.Validate(); err != nil { // as their own reading does it
		return err
	}
	*d = Destination(keys)
	return nil
}

// written copies a value with its aliases written out.
func written(n *yaml.Node, left *int) (*yaml.Node, error) {
	if *left--; *left < 0 {
		return nil, fmt.Errorf("a destination has more than %d values", maxNodes)
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value, Style: n.Style}
	for _, c := range n.Content {
		w, err := written(c, left)
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, w)
	}
	return out, nil
}

// keyNamed finds a key, nil where there is none.
func keyNamed(n *yaml.Node, name string) *yaml.Node {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Value == name {
			return c
		}
		if found := keyNamed(c, name); found != nil {
			return found
		}
	}
	return nil
}

// Check says what keeps the destination's client from being made, such as a
// file of certificates that is not there.
func (d Destination) Check() error {
	client, err := d.client(time.Second)
	if err == nil {
		client.CloseIdleConnections()
	}
	return err
}

// validate names what is wrong, and the remedy; where begins each message.
func (d Destination) validate(where string) error {
	u, err := url.Parse(d.URL)
	switch {
	case d.URL == "":
		return fmt.Errorf("%s.url is missing: give an address such as http://127.0.0.1:9190/api/v1/write, or remove the entry", where)
	case err != nil: // whose text has the address, which may hold a password
		return fmt.Errorf("%s.url is not an address: write it as http://host:port/api/v1/write, with %%20 and the like for what has a meaning in addresses", where)
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
