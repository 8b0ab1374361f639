package ship

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"nines/pkg/ops"
)

// ElasticsearchConfig is an Elasticsearch, or what speaks its _bulk. What is
// empty or 0 has its default.
type ElasticsearchConfig struct {
	URLs []string `yaml:"urls"`

	// Who we are: a user, an API key or a token; and a certificate besides.
	// All files are read again when the server answers 401, the certificate
	// with each new connection.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	APIKeyFile   string `yaml:"api_key_file"` // id:api_key, or that in base64; unproven on a real server
	TokenFile    string `yaml:"token_file"`   // a bearer token; unproven on a real server
	CAFile       string `yaml:"ca_file"`      // PEM; empty: the system's authorities
	CertFile     string `yaml:"cert_file"`    // PEM, with KeyFile
	KeyFile      string `yaml:"key_file"`

	Compression string `yaml:"compression"` // gzip (default: level 1) or none
	Concurrency int    `yaml:"concurrency"` // bulk requests under way at most; default 4

	// Retention is how long data streams that are new keep records, such as
	// 30d, by their own life cycle; empty: for ever. ILMPolicy names a policy
	// that is there already; unproven on a real server. What a server does not
	// know is in Notes.
	Retention string `yaml:"retention"`
	ILMPolicy string `yaml:"ilm_policy"`

	DeadLettersSize ops.Size `yaml:"dead_letters_size"` // of the folder; default 64MiB

	// DeadLetters is a folder for records that Elasticsearch refuses for good.
	DeadLetters string `yaml:"-"`
	// State is the folder where the write indices last seen are remembered;
	// empty: that of the dead letters.
	State string `yaml:"-"`
	// Agent is sent as User-Agent.
	Agent string `yaml:"-"`
	// Timeout bounds one request; default a minute.
	Timeout time.Duration `yaml:"-"`
}

// Defaults. A gzip of level 1 makes a tenth of log records for the CPU of
// about three records of JSON; higher levels cost more than the network does.
const (
	gzipped            = "gzip"
	uncompressed       = "none"
	defaultConcurrency = 4
	maxConcurrency     = 16
	defaultDeadLetters = 64 << 20
	minDeadLetters     = 1 << 20
	defaultTimeout     = time.Minute
)

func (c ElasticsearchConfig) withDefaults() ElasticsearchConfig {
	c.Compression = cmp.Or(c.Compression, gzipped)
	c.Concurrency = cmp.Or(c.Concurrency, defaultConcurrency)
	c.DeadLettersSize = cmp.Or(c.DeadLettersSize, defaultDeadLetters)
	c.State = cmp.Or(c.State, c.DeadLetters)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	return c
}

// timeValue is a span of time as Elasticsearch writes it.
var timeValue = regexp.MustCompile(`^[1-9][0-9]{0,8}(d|h|m|s)$`)

// Validate names the key that is wrong, and the remedy.
func (c ElasticsearchConfig) Validate() error {
	if len(c.URLs) == 0 {
		return errors.New("urls is empty: name at least one address such as https://elasticsearch:9200")
	}
	plain := false
	for i, s := range c.URLs {
		u, err := url.Parse(s)
		switch {
		case err == nil && u.User != nil, err != nil && strings.Contains(s, "@"): // not to be repeated in a log
			return fmt.Errorf("urls[%d] holds a password: give it by username and password_file", i)
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return fmt.Errorf("urls[%d] %q must begin with http:// or https:// and name a host", i, s)
		}
		plain = plain || u.Scheme == "http"
	}
	switch {
	case c.Username != "" && c.PasswordFile == "":
		return errors.New("password_file is empty: name the file with the password of username")
	case c.Username == "" && c.PasswordFile != "":
		return errors.New("username is empty: name the user whose password is in password_file")
	case c.CertFile != "" && c.KeyFile == "":
		return errors.New("key_file is empty: name the file with the key of cert_file")
	case c.CertFile == "" && c.KeyFile != "":
		return errors.New("cert_file is empty: name the file with the certificate of key_file")
	case c.CertFile != "" && plain:
		return errors.New("cert_file is of no use without TLS: let all of urls begin with https://")
	}
	if ways := c.identities(); len(ways) > 1 {
		return fmt.Errorf("%s are all set: keep one of them", strings.Join(ways, " and "))
	}
	switch {
	case c.Compression != "" && c.Compression != gzipped && c.Compression != uncompressed:
		return fmt.Errorf("compression %q is unknown: write gzip or none", c.Compression)
	case c.Concurrency < 0 || c.Concurrency > maxConcurrency:
		return fmt.Errorf("concurrency is %d: write a number from 1 to %d", c.Concurrency, maxConcurrency)
	case c.Retention != "" && !timeValue.MatchString(c.Retention):
		return fmt.Errorf("retention %q is no span of time: write one such as 30d or 12h, or leave it out to keep records", c.Retention)
	case c.Retention != "" && c.ILMPolicy != "":
		return errors.New("retention and ilm_policy are both set: keep one, since only one of them removes records")
	case c.DeadLettersSize != 0 && c.DeadLettersSize < minDeadLetters:
		return fmt.Errorf("dead_letters_size is %v: give at least %v", c.DeadLettersSize, ops.Size(minDeadLetters))
	}
	return nil
}

// identities are the keys in use by which the server knows us, without the
// certificate.
func (c ElasticsearchConfig) identities() []string {
	var keys []string
	if c.Username != "" {
		keys = append(keys, "username")
	}
	if c.APIKeyFile != "" {
		keys = append(keys, "api_key_file")
	}
	if c.TokenFile != "" {
		keys = append(keys, "token_file")
	}
	return keys
}

// unauthorized says what to look at after a 401: the keys in use.
func (c ElasticsearchConfig) unauthorized() string {
	var keys []string
	switch {
	case c.Username != "":
		keys = append(keys, "username and password_file")
	case c.APIKeyFile != "":
		keys = append(keys, "api_key_file")
	case c.TokenFile != "":
		keys = append(keys, "token_file")
	}
	if c.CertFile != "" {
		keys = append(keys, "cert_file and key_file")
	}
	if len(keys) == 0 {
		return ": give username and password_file, api_key_file, token_file, or cert_file and key_file"
	}
	return ": check " + strings.Join(keys, ", ")
}
