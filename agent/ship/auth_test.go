package ship

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// API keys and tokens are not proven on a real server: these are the requests
// that the documentation of Elasticsearch asks for.
func TestSecretsOfEachKindGoIntoTheGoldenRequest(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		set     func(c *ElasticsearchConfig, file string)
	}{
		"api-key.request":         {"VuaCfGcBCdbkQm-e5aOx:ui2lp2axTNmsyakw9tvNnw\n", func(c *ElasticsearchConfig, f string) { c.APIKeyFile = f }},
		"api-key-encoded.request": {"VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw==", func(c *ElasticsearchConfig, f string) { c.APIKeyFile = f }},
		"token.request":           {" dGhpcyBpcyBub3QgYSByZWFsIHRva2Vu \r\n", func(c *ElasticsearchConfig, f string) { c.TokenFile = f }},
	} {
		t.Run(name, func(t *testing.T) {
			path := password(t, test.content)
			withCluster(t, func(cfg *ElasticsearchConfig) { test.set(cfg, path) }, func(t *testing.T, f *fixture) {
				f.ship(t, "a", Stored)
				golden(t, name, f.cluster.requests("/_bulk")[0].page(t))
			})
		})
	}
}

func TestSecretIsReadAgainAfterA401AndItsKeyIsNamed(t *testing.T) {
	for key, set := range map[string]func(c *ElasticsearchConfig, file string){
		"api_key_file": func(c *ElasticsearchConfig, f string) { c.APIKeyFile = f },
		"token_file":   func(c *ElasticsearchConfig, f string) { c.TokenFile = f },
	} {
		t.Run(key, func(t *testing.T) {
			path := password(t, "old\n")
			withCluster(t, func(cfg *ElasticsearchConfig) { set(cfg, path) }, func(t *testing.T, f *fixture) {
				f.cluster.script = slices.Repeat([]reply{func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
					if !strings.HasSuffix(r.Header.Get("Authorization"), " new") {
						whole(401, `{"error":{"type":"security_exception","reason":"no"}}`)(c, w, r, s)
						return
					}
					items(nil)(c, w, r, s)
				}}, 9)
				time.AfterFunc(3*time.Second, func() {
					if err := os.WriteFile(path, []byte("new"), 0o600); err != nil {
						t.Error(err)
					}
				})
				f.ship(t, "a b", sent(Stored, 2)...)
				if got := f.cluster.requests("/_bulk")[1].hold; !strings.HasSuffix(got, ": check "+key) {
					t.Errorf("holds with %q", got)
				}
				if strings.Contains(f.logged.String(), "old") {
					t.Errorf("the secret is told:\n%s", f.logged)
				}
			})
		})
	}
}

func TestSecretThatIsNoHeaderIsRefusedAtTheStart(t *testing.T) {
	for content, want := range map[string]string{
		"":           "is empty: write the secret into it",
		" \n":        "is empty: write the secret into it",
		"a b":        "must hold one word of printable ASCII",
		"a\nb":       "must hold one word of printable ASCII",
		"key\xffkey": "must hold one word of printable ASCII",
	} {
		_, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{"http://localhost:9200"}, TokenFile: password(t, content), DeadLetters: t.TempDir()}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "token_file: ") {
			t.Errorf("%q: error %v", content, err)
		}
	}
}

// issue writes a certificate of that name, signed by itself, and its key.
func issue(t *testing.T, name, certFile, keyFile string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificateIsShownAndReadAgainAfterA401(t *testing.T) {
	server, caFile := secure(t)
	folder := t.TempDir()
	certFile, keyFile := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	issue(t, "old", certFile, keyFile)
	server.TLS.ClientAuth = tls.RequireAnyClientCert
	inner := server.Config.Handler
	var names []string
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.TLS.PeerCertificates[0].Subject.CommonName
		if strings.HasSuffix(r.URL.Path, "/_bulk") {
			names = append(names, name)
			if name == "old" {
				issue(t, "new", certFile, keyFile)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		inner.ServeHTTP(w, r)
	})
	e, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{server.URL}, CAFile: caFile, CertFile: certFile, KeyFile: keyFile, DeadLetters: folder}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if got, err := e.Ship(t.Context(), recordsOf("a")); err != nil || got[0] != Stored {
		t.Errorf("%v, %v", got, err)
	}
	if !slices.Equal(names, []string{"old", "new"}) {
		t.Errorf("certificates %q", names)
	}
}

func TestCertificateAndKeyThatDoNotFitAreNamed(t *testing.T) {
	folder := t.TempDir()
	one, two, other := filepath.Join(folder, "one"), filepath.Join(folder, "two"), filepath.Join(folder, "other")
	issue(t, "a", one, other)
	issue(t, "b", other, two)
	for key, want := range map[string]string{
		two:                              "cert_file " + one + " and key_file " + two + " do not fit",
		filepath.Join(folder, "missing"): "cert_file and key_file: open " + filepath.Join(folder, "missing"),
	} {
		_, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{"https://localhost:9200"}, CertFile: one, KeyFile: key, DeadLetters: folder}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
