package harness

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestAuthorityOfTheTestIsTrustedForLoopback(t *testing.T) {
	dir := t.TempDir()
	ca, err := writeAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "http.crt"), filepath.Join(dir, "http.key"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no certificate of the authority")
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := c.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestVersionOfAJavaIsThatOfItsReleaseFile(t *testing.T) {
	home := t.TempDir()
	if got := javaVersion(home); got != 0 {
		t.Errorf("a folder without Java is Java %d", got)
	}
	if err := os.MkdirAll(filepath.Join(home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "bin", "java"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for release, want := range map[string]int{
		"JAVA_VERSION=\"17.0.15\"\n": 17, "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"25\"\n": 25, "JAVA_VERSION=\"1.8.0_1\"": 1, "": 0, "JAVA_VERSION=\"": 0,
	} {
		if err := os.WriteFile(filepath.Join(home, "release"), []byte(release), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := javaVersion(home); got != want {
			t.Errorf("%q is Java %d, want %d", release, got, want)
		}
	}
}

func TestFiguresAreAddedByLabels(t *testing.T) {
	f, err := parseFigures([]byte(`# TYPE nines_log_bytes gauge
nines_log_bytes{destination="a",state="stored"} 5
nines_log_bytes{destination="a",state="unread"} 7 1700000000000
nines_log_bytes{destination="b",state="stored"} 1e3
nines_log_bytes_total{destination="a",state="stored"} 9
up 1
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		labels []string
		want   float64
	}{
		{nil, 1012}, {[]string{`destination="a"`}, 12}, {[]string{`state="stored"`}, 1005}, {[]string{`destination="a"`, `state="stored"`}, 5},
	} {
		if got, ok := f.Sum("nines_log_bytes", test.labels...); !ok || got != test.want {
			t.Errorf("%v: %v %v, want %v", test.labels, got, ok, test.want)
		}
	}
	if _, ok := f.Sum("nines_log_bytes", `state="lost"`); ok {
		t.Error("a series that is not there was found")
	}
	if got, ok := f.Sum("up"); !ok || got != 1 {
		t.Errorf("up: %v %v", got, ok)
	}
	if _, err := parseFigures([]byte("nines\n")); err == nil {
		t.Error("a line without a value was read")
	}
}

func TestAccountThatDoesNotAddUpIsTold(t *testing.T) {
	const page = `nines_log_bytes{destination="a",state="stored"} 5
nines_log_bytes{destination="a",state="unread"} 7
nines_log_bytes{destination="b",state="stored"} 3
nines_log_records{destination="a",state="stored"} 1
nines_log_records{destination="b",state="stored"} 1
nines_log_seen_bytes{destination="a"} 12
nines_log_seen_records{destination="a"} 1
nines_log_seen_records{destination="b"} 1
`
	for more, want := range map[string]int{
		`nines_log_seen_bytes{destination="b"} 3`: 0, `nines_log_seen_bytes{destination="b"} 4`: 1,
	} {
		f, err := parseFigures([]byte(page + more + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if broken := identity(f); len(broken) != want {
			t.Errorf("with %s: %q", more, broken)
		}
	}
	if broken := identity(Figures{}); len(broken) != 2 {
		t.Errorf("of an agent without an account: %q", broken)
	}
}
