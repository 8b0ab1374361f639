package ship

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"

	"nines/pkg/ops"
)

// credentials make the header Authorization out of a file that may change.
type credentials struct {
	key, file string                      // the configuration's key, and the file that it names
	header    func(content []byte) string // of what the file holds
	refused   func()                      // is called after each 401
	mu        sync.Mutex                  // guards value
	value     string                      // of the header; empty: none is sent
}

// newCredentials reads the file of the way that the configuration chose.
func newCredentials(c ElasticsearchConfig, refused func()) (*credentials, error) {
	a := &credentials{refused: refused}
	switch {
	case c.Username != "":
		a.key, a.file = "password_file", c.PasswordFile
		a.header = func(content []byte) string {
			user := append(append([]byte(c.Username), ':'), content...)
			return "Basic " + base64.StdEncoding.EncodeToString(user)
		}
	case c.APIKeyFile != "":
		a.key, a.file, a.header = "api_key_file", c.APIKeyFile, apiKey
	case c.TokenFile != "":
		a.key, a.file = "token_file", c.TokenFile
		a.header = func(content []byte) string { return "Bearer " + string(content) }
	default:
		return a, nil
	}
	if err := a.read(); err != nil {
		return nil, ops.Remedy(err)
	}
	return a, nil
}

// apiKey takes what POST /_security/api_key answers: id:api_key, or its
// "encoded", which is base64 and has no colon.
func apiKey(content []byte) string {
	if bytes.IndexByte(content, ':') >= 0 {
		return "ApiKey " + base64.StdEncoding.EncodeToString(content)
	}
	return "ApiKey " + string(content)
}

func (a *credentials) read() error {
	data, err := os.ReadFile(a.file)
	if err != nil {
		return fmt.Errorf("%s: %w", a.key, err)
	}
	data = bytes.TrimRight(data, "\r\n")
	if a.key != "password_file" {
		data = bytes.TrimSpace(data)
		for _, c := range data {
			if c <= ' ' || c > '~' { // it would not be a header
				return fmt.Errorf("%s: %s must hold one word of printable ASCII", a.key, a.file)
			}
		}
	}
	if len(data) == 0 {
		return fmt.Errorf("%s: %s is empty: write the secret into it", a.key, a.file)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.value = a.header(data)
	return nil
}

// intercept adds the header to each request. When it is refused the file is
// read again, for the next request.
func (a *credentials) intercept(next elastictransport.RoundTripFunc) elastictransport.RoundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		a.mu.Lock()
		if a.value != "" {
			r.Header.Set("Authorization", a.value)
		}
		a.mu.Unlock()
		res, err := next(r)
		if err == nil && res.StatusCode == http.StatusUnauthorized {
			if a.file != "" {
				// A file that cannot be read leaves the old secret, which is
				// refused again and told so.
				_ = a.read()
			}
			a.refused()
		}
		return res, err
	}
}

// certificate is ours for a server that asks for one. It is read with each new
// connection, so that a certificate that was renewed is used.
type certificate struct {
	certFile, keyFile string

	mu   sync.Mutex // guards last
	last *tls.Certificate
}

func (c *certificate) read() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			return ops.Remedy(fmt.Errorf("cert_file and key_file: %w", err))
		}
		return fmt.Errorf("cert_file %s and key_file %s do not fit: %w: give a certificate and its key in PEM form", c.certFile, c.keyFile, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = &pair
	return nil
}

// get is a tls.Config.GetClientCertificate. Files that are half written leave
// the certificate as it was.
func (c *certificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	_ = c.read() // New has read it once: there is a last one
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, nil
}
