package probe

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/miekg/dns"
	"github.com/prometheus/blackbox_exporter/config"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"nines/pkg/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// once builds a prober of one target from a file's text, probes once and
// returns the values of all series by name and own labels.
func once(t *testing.T, modules string, target Target) (map[string]float64, string) {
	t.Helper()
	cfg, err := decode(t, "probes:\n  modules:\n"+modules)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Targets = []Target{target}
	p, err := New(cfg, nil, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	fams, _, why := p.targets[0].probe(t.Context())
	return values(fams), why
}

func values(fams []metric.Family) map[string]float64 {
	out := map[string]float64{}
	for _, f := range fams {
		for _, s := range f.Series {
			key := f.Name
			for _, l := range s.Labels {
				key += fmt.Sprintf(" %s=%s", l.Name, l.Value)
			}
			out[key] = s.Value
		}
	}
	return out
}

func expect(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if g, ok := got[name]; !ok || g != v {
			t.Errorf("%s is %v (there: %v), want %v", name, g, ok, v)
		}
	}
	if got["up"] != 1 {
		t.Errorf("up is %v", got["up"])
	}
}

// authority signs certificates for the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return authority{cert, key, file}
}

func (a authority) sign(t *testing.T, host string, expires time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(0x0abc), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-20 * time.Hour), NotAfter: expires}
	if host != "localhost" {
		tmpl.IPAddresses = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // some are closed by their test
	return l
}

// each calls do for each connection, and waits at the end of the test until all
// have returned.
func each(t *testing.T, l net.Listener, do func(net.Conn)) {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				do(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
}

// blackHole takes connections, reads, and never answers.
func blackHole(t *testing.T) string {
	l := listen(t)
	each(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	return l.Addr().String()
}

func deadPort(t *testing.T) string {
	l := listen(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

const httpModules = `
    ok: {prober: http, http: {preferred_ip_protocol: ip4}}
    stay: {prober: http, http: {preferred_ip_protocol: ip4, follow_redirects: false}}
    body: {prober: http, http: {preferred_ip_protocol: ip4, fail_if_body_not_matches_regexp: ["fine"]}}
    json: {prober: http, http: {preferred_ip_protocol: ip4, fail_if_body_json_not_matches_cel: "body.state == 'fine'"}}
`

func TestHTTPIsProbedByPhase(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "all fine") })
	mux.HandleFunc("/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"state":"fine"}`) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.Handle("/away", http.RedirectHandler("/ok", http.StatusFound))
	gone := make(chan struct{})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); gone <- struct{}{} })
	server := httptest.NewServer(mux)
	defer server.Close()

	got, _ := once(t, httpModules, Target{Module: "ok", Target: server.URL + "/ok"})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_http_status_code": 200, "probe_http_content_length": 8, "probe_http_redirects": 0, "probe_http_ssl": 0, "probe_http_version": 1.1, "probe_ip_protocol": 4})
	sum := 0.0
	for _, ph := range []string{"resolve", "connect", "tls", "processing", "transfer"} {
		v, ok := got["probe_http_duration_seconds phase="+ph]
		if !ok {
			t.Errorf("phase %s is missing", ph)
		}
		sum += v
	}
	if whole := got["probe_duration_seconds"]; sum <= 0 || sum > whole {
		t.Errorf("phases add up to %v s of %v", sum, whole)
	}

	got, _ = once(t, httpModules, Target{Module: "ok", Target: server.URL + "/away"})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_http_redirects": 1, "probe_http_status_code": 200})
	got, _ = once(t, httpModules, Target{Module: "stay", Target: server.URL + "/away"})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_http_status_code": 302})
	got, why := once(t, httpModules, Target{Module: "ok", Target: server.URL + "/bad"})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_http_status_code": 500})
	if !strings.Contains(why, "500") && !strings.Contains(why, "status code") {
		t.Errorf("the reason is %q", why)
	}
	got, _ = once(t, httpModules, Target{Module: "body", Target: server.URL + "/ok"})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_failed_due_to_regex": 0})
	got, _ = once(t, httpModules, Target{Module: "body", Target: server.URL + "/json"})
	expect(t, got, map[string]float64{"probe_success": 1})
	got, _ = once(t, httpModules, Target{Module: "body", Target: server.URL + "/nothing"})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_http_status_code": 404})
	got, _ = once(t, httpModules, Target{Module: "json", Target: server.URL + "/json"})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_failed_due_to_cel": 0})

	got, why = once(t, httpModules, Target{Module: "ok", Target: server.URL + "/slow", Timeout: 100 * time.Millisecond})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_http_status_code": 0})
	if !strings.Contains(why, "deadline") {
		t.Errorf("the reason is %q", why)
	}
	<-gone
	got, why = once(t, httpModules, Target{Module: "ok", Target: deadPort(t)})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_http_status_code": 0})
	if !strings.Contains(why, "refused") {
		t.Errorf("the reason is %q", why)
	}
}

func TestBodyThatNeverEndsIsCutWhereItIsHeld(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	got, why := once(t, httpModules, Target{Module: "body", Target: server.URL})
	expect(t, got, map[string]float64{"probe_success": 0})
	if !strings.Contains(why, "too large") {
		t.Errorf("the reason is %q", why)
	}
}

func TestExpiredAndWrongCertificatesFail(t *testing.T) {
	ca := newAuthority(t)
	modules := fmt.Sprintf(`
    https: {prober: http, http: {preferred_ip_protocol: ip4, tls_config: {ca_file: %[1]q}}}
    lax: {prober: http, http: {preferred_ip_protocol: ip4, tls_config: {insecure_skip_verify: true}}}
    tls: {prober: tcp, tcp: {preferred_ip_protocol: ip4, tls: true, tls_config: {ca_file: %[1]q}}}
`, ca.file)
	until := time.Now().Add(10 * time.Hour).Truncate(time.Second)
	serve := func(cert tls.Certificate) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		s.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "https://")
	}
	good := serve(ca.sign(t, "localhost", until))
	expired := serve(ca.sign(t, "localhost", time.Now().Add(-time.Hour)))
	other := serve(ca.sign(t, "elsewhere.example", until))

	got, why := once(t, modules, Target{Module: "https", Target: "https://" + good})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_http_ssl": 1, "probe_ssl_earliest_cert_expiry": float64(until.Unix())})
	if got["probe_success"] != 1 {
		t.Log(why)
	}
	got, _ = once(t, modules, Target{Module: "tls", Target: good})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_ssl_earliest_cert_expiry": float64(until.Unix()),
		"probe_ssl_last_chain_expiry_timestamp_seconds": float64(until.Unix()), "probe_tls_version_info version=TLS 1.3": 1})
	for address, reason := range map[string]string{expired: "expired", other: "doesn't contain any IP SANs"} {
		for module, target := range map[string]string{"https": "https://" + address, "tls": address} {
			got, why := once(t, modules, Target{Module: module, Target: target})
			expect(t, got, map[string]float64{"probe_success": 0})
			if !strings.Contains(why, reason) && !strings.Contains(why, "valid for elsewhere") {
				t.Errorf("%s: the reason is %q, want %q", module, why, reason)
			}
		}
	}
	got, _ = once(t, modules, Target{Module: "lax", Target: "https://" + expired})
	if v := got["probe_ssl_earliest_cert_expiry"]; got["probe_success"] != 1 || v >= float64(time.Now().Unix()) {
		t.Errorf("who does not verify still sees when it expired: %v", got)
	}
}

func TestTCPBannerIsExpected(t *testing.T) {
	l := listen(t)
	each(t, l, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-Nines_1.0 hello\r\n") })
	modules := `
    ssh: {prober: tcp, tcp: {preferred_ip_protocol: ip4, query_response: [{expect: "^SSH-2.0-([^ -]+)(?: (.*))?$", labels: [{name: ssh_version, value: "${1}"}]}]}}
    pop: {prober: tcp, tcp: {preferred_ip_protocol: ip4, query_response: [{expect: "^.OK"}]}}
    open: {prober: tcp, tcp: {preferred_ip_protocol: ip4}}
`
	got, _ := once(t, modules, Target{Module: "ssh", Target: l.Addr().String()})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_failed_due_to_regex": 0, "probe_expect_info ssh_version=Nines_1.0": 1})
	got, _ = once(t, modules, Target{Module: "pop", Target: l.Addr().String()})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_failed_due_to_regex": 1})
	got, _ = once(t, modules, Target{Module: "open", Target: l.Addr().String()})
	expect(t, got, map[string]float64{"probe_success": 1})
	got, why := once(t, modules, Target{Module: "open", Target: deadPort(t)})
	expect(t, got, map[string]float64{"probe_success": 0})
	if !strings.Contains(why, "refused") {
		t.Errorf("the reason is %q", why)
	}
	got, why = once(t, modules, Target{Module: "pop", Target: blackHole(t), Timeout: 100 * time.Millisecond})
	expect(t, got, map[string]float64{"probe_success": 0})
	if !strings.Contains(why, "timeout") {
		t.Errorf("the reason is %q", why)
	}
}

func TestDNSIsAsked(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		if r.Question[0].Name == "there.example." {
			rr, _ := dns.NewRR("there.example. 60 IN A 192.0.2.1") // it is written right
			m.Answer = append(m.Answer, rr)
		} else {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m) // the test sees what was not answered
	})}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown(); <-done })
	modules := `
    there: {prober: dns, dns: {query_name: there.example, query_type: A, preferred_ip_protocol: ip4}}
    away: {prober: dns, dns: {query_name: away.example, query_type: A, preferred_ip_protocol: ip4}}
`
	got, why := once(t, modules, Target{Module: "there", Target: conn.LocalAddr().String()})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_dns_answer_rrs": 1, "probe_dns_query_succeeded": 1})
	if got["probe_success"] != 1 {
		t.Log(why)
	}
	for _, ph := range []string{"resolve", "connect", "request"} {
		if _, ok := got["probe_dns_duration_seconds phase="+ph]; !ok {
			t.Errorf("phase %s is missing", ph)
		}
	}
	got, _ = once(t, modules, Target{Module: "away", Target: conn.LocalAddr().String()})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_dns_answer_rrs": 0})
}

func TestGRPCHealthIsAsked(t *testing.T) {
	ca := newAuthority(t)
	until := time.Now().Add(10 * time.Hour).Truncate(time.Second)
	serve := func(opts ...grpc.ServerOption) string {
		l := listen(t)
		s := grpc.NewServer(opts...)
		h := health.NewServer()
		h.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		grpc_health_v1.RegisterHealthServer(s, h)
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		t.Cleanup(func() { s.Stop(); <-done })
		return l.Addr().String()
	}
	plain := serve()
	secure := serve(grpc.Creds(credentials.NewServerTLSFromCert(ptr(ca.sign(t, "localhost", until)))))
	modules := fmt.Sprintf(`
    up: {prober: grpc, grpc: {preferred_ip_protocol: ip4}}
    down: {prober: grpc, grpc: {service: down}}
    unknown: {prober: grpc, grpc: {service: unknown}}
    tls: {prober: grpc, grpc: {tls: true, tls_config: {ca_file: %q}}}
    six: {prober: grpc, grpc: {preferred_ip_protocol: ip6, ip_protocol_fallback: false}}
`, ca.file)
	got, why := once(t, modules, Target{Module: "up", Target: plain})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_grpc_ssl": 0, "probe_grpc_status_code": 0, "probe_ip_protocol": 4,
		"probe_grpc_healthcheck_response serving_status=SERVING": 1, "probe_grpc_healthcheck_response serving_status=NOT_SERVING": 0})
	if got["probe_success"] != 1 {
		t.Log(why)
	}
	got, _ = once(t, modules, Target{Module: "down", Target: plain})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_grpc_status_code": 0, "probe_grpc_healthcheck_response serving_status=NOT_SERVING": 1})
	got, _ = once(t, modules, Target{Module: "unknown", Target: plain})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_grpc_status_code": 5, "probe_grpc_healthcheck_response serving_status=SERVING": 0})
	got, _ = once(t, modules, Target{Module: "tls", Target: secure})
	expect(t, got, map[string]float64{"probe_success": 1, "probe_grpc_ssl": 1, "probe_ssl_earliest_cert_expiry": float64(until.Unix()), "probe_tls_version_info version=TLS 1.3": 1})
	got, why = once(t, modules, Target{Module: "six", Target: plain})
	expect(t, got, map[string]float64{"probe_success": 0})
	if !strings.Contains(why, "no address of IP version 6") {
		t.Errorf("the reason is %q", why)
	}
	got, _ = once(t, modules, Target{Module: "up", Target: deadPort(t)})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_grpc_status_code": 14})
	// blackbox_exporter v0.28.0 asks without a deadline and hangs here.
	got, why = once(t, modules, Target{Module: "up", Target: blackHole(t), Timeout: 100 * time.Millisecond})
	expect(t, got, map[string]float64{"probe_success": 0, "probe_grpc_status_code": 4})
	if !strings.Contains(why, "deadline") && !strings.Contains(why, "DeadlineExceeded") {
		t.Errorf("the reason is %q", why)
	}
}

func ptr[T any](v T) *T { return &v }

// Where the host permits no pings, the agent says what to set instead.
func TestPingAnswersOrSaysWhatIsMissing(t *testing.T) {
	var log bytes.Buffer
	cfg := DefaultConfig()
	cfg.Targets = []Target{{Module: "icmp", Target: "127.0.0.1"}}
	p, err := New(cfg, nil, slog.New(slog.NewTextHandler(&log, nil)), metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	fams, ok, why := p.targets[0].probe(t.Context())
	got := values(fams)
	if problems := p.Problems(); len(problems) > 0 {
		if ok || !strings.Contains(log.String(), "CAP_NET_RAW") || !strings.Contains(problems[0].Error(), "net.ipv4.ping_group_range") {
			t.Errorf("pings are not permitted (%v) and the log says %s", problems, log.String())
		}
		return
	}
	if !ok {
		t.Fatalf("a ping of this host failed: %s", why)
	}
	for _, ph := range []string{"resolve", "setup", "rtt"} {
		if _, there := got["probe_icmp_duration_seconds phase="+ph]; !there {
			t.Errorf("phase %s is missing", ph)
		}
	}
	if _, there := got["probe_icmp_reply_hop_limit"]; !there {
		t.Error("the hop limit is missing")
	}
}

// taken is one call of Append.
type taken struct {
	at     time.Time
	labels map[string]string
	values map[string]float64
}

type sink struct {
	mu    sync.Mutex
	all   []taken
	fails bool
}

func (s *sink) append(at time.Time, extra []metric.Label, fams []metric.Family) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := taken{at, map[string]string{}, values(fams)}
	for _, l := range extra {
		one.labels[l.Name] = l.Value
	}
	s.all = append(s.all, one)
	if s.fails {
		return errors.New("the queue is shut")
	}
	return nil
}

// of returns when a target was probed.
func (s *sink) of(name string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at []time.Time
	for _, one := range s.all {
		if one.labels["target"] == name {
			at = append(at, one.at)
		}
	}
	return at
}

func counter(t *testing.T, set *metrics.Set, name string) string {
	t.Helper()
	var b bytes.Buffer
	set.WritePrometheus(&b)
	for line := range strings.Lines(b.String()) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			return v
		}
	}
	t.Fatalf("no series %s in\n%s", name, b.String())
	return ""
}

func TestTargetsAreProbedAtTimesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		for i := range 100 {
			cfg.Targets = append(cfg.Targets, Target{Target: "t", Name: fmt.Sprint(i)})
		}
		var s sink
		p, err := New(cfg, s.append, quiet, metrics.NewSet())
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range p.targets {
			one.fn = succeed
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		// A hundred targets at four times each, in a quarter of the interval no
		// more than half of them.
		if len(s.all) != 400 {
			t.Errorf("%d probes in a minute, want 400", len(s.all))
		}
		quarters := map[int64]int{}
		for _, one := range s.all {
			quarters[one.at.UnixMilli()%15000/3750]++
		}
		for q, n := range quarters {
			if n > 200 {
				t.Errorf("%d of 400 probes in quarter %d: they are not spread", n, q)
			}
		}
		at := s.of("7")
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d != 15*time.Second {
				t.Errorf("target 7 was probed after %v, want 15s", d)
			}
		}
	})
}

func succeed(context.Context, string, config.Module, *prometheus.Registry, *slog.Logger) bool {
	return true
}

// hang ends with the time-out, as a probe of a black hole does.
func hang(ctx context.Context, _ string, _ config.Module, _ *prometheus.Registry, log *slog.Logger) bool {
	<-ctx.Done()
	log.Error("nothing came", "err", ctx.Err())
	return false
}

func TestProbesThatHangDelayNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		for i := range 200 {
			cfg.Targets = append(cfg.Targets, Target{Target: "t", Name: fmt.Sprint(i)})
		}
		var s sink
		set := metrics.NewSet()
		p, err := New(cfg, s.append, quiet, set)
		if err != nil {
			t.Fatal(err)
		}
		for i, one := range p.targets {
			one.fn = hang
			if i == 0 {
				one.fn = succeed
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if at := s.of("0"); len(at) != 4 || at[3].Sub(at[0]) != 45*time.Second {
			t.Errorf("the good target was probed at %v, want four times 15 s apart", at)
		}
		if got := counter(t, set, metric.AgentProbes+`{result="success"}`); got != "4" {
			t.Errorf("%s successes, want 4", got)
		}
		if got := counter(t, set, metric.AgentProbesMissed); got != "0" {
			t.Errorf("%s missed, want none", got)
		}
		for _, one := range s.all {
			if d := one.values["probe_duration_seconds"]; one.labels["target"] != "0" && d != 9.5 {
				t.Fatalf("a probe that hangs took %v s, want 9.5", d)
			}
		}
	})
}

func TestTooFewSlotsCountWhatTheyMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Concurrent = 1
		for i := range 4 {
			cfg.Targets = append(cfg.Targets, Target{Target: "t", Name: fmt.Sprint(i)})
		}
		var s sink
		set := metrics.NewSet()
		p, err := New(cfg, s.append, quiet, set)
		if err != nil {
			t.Fatal(err)
		}
		running, most := 0, 0
		for _, one := range p.targets {
			one.fn = func(ctx context.Context, a string, m config.Module, r *prometheus.Registry, l *slog.Logger) bool {
				running++ // one slot: no two at a time
				most = max(most, running)
				defer func() { running-- }()
				return hang(ctx, a, m, r, l)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if most != 1 {
			t.Errorf("%d probes at a time, want 1", most)
		}
		if got := counter(t, set, metric.AgentProbesMissed); got == "0" {
			t.Error("no probe is counted as missed, though four that take 9.5 s each do not fit into 15 s")
		}
		if len(s.all) < 30 {
			t.Errorf("%d probes in 300 s of one slot, want 30 or more", len(s.all))
		}
	})
}

func TestProbeThatTheEndCutsOffIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Targets = []Target{{Target: "t"}}
		var s sink
		set := metrics.NewSet()
		p, err := New(cfg, s.append, quiet, set)
		if err != nil {
			t.Fatal(err)
		}
		p.targets[0].fn = hang
		first := p.targets[0].next(time.Now())
		ctx, cancel := context.WithDeadline(t.Context(), first.Add(time.Second))
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(s.all) != 0 || len(p.newest()) != 0 {
			t.Errorf("the cut probe left %v", s.all)
		}
		if got := counter(t, set, metric.AgentProbesUnfinished); got != "1" {
			t.Errorf("%s unfinished, want 1", got)
		}
	})
}

func TestEndLeavesAProbeBehindThatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Targets = []Target{{Target: "t"}, {Target: "t", Name: "other"}}
		var s sink
		set := metrics.NewSet()
		p, err := New(cfg, s.append, quiet, set)
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		p.targets[0].fn = func(context.Context, string, config.Module, *prometheus.Registry, *slog.Logger) bool {
			<-answered // whatever the context says
			return true
		}
		p.targets[1].fn = hang
		ctx, cancel := context.WithTimeout(t.Context(), 16*time.Second)
		defer cancel()
		began := time.Now()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began) - 16*time.Second; took != Grace {
			t.Errorf("the end took %v, want %v", took, Grace)
		}
		before := len(s.of("t"))
		close(answered)
		synctest.Wait() // its goroutine has ended
		if len(s.of("t")) != before || before != 0 || strings.Contains(fmt.Sprint(p.newest()), "{target t}") {
			t.Errorf("what a probe found after the end was taken: %v, %v", s.all, p.newest())
		}
		if got := counter(t, set, metric.AgentProbesUnfinished); got == "0" {
			t.Error("the probe that was left behind is not counted")
		}
	})
}

func TestEndWaitsForAResultThatIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Targets = []Target{{Target: "t"}}
		handedOver := false
		p, err := New(cfg, func(time.Time, []metric.Label, []metric.Family) error {
			time.Sleep(5 * Grace)
			handedOver = true
			return nil
		}, quiet, metrics.NewSet())
		if err != nil {
			t.Fatal(err)
		}
		p.targets[0].fn = succeed
		ctx, cancel := context.WithDeadline(t.Context(), p.targets[0].next(time.Now()).Add(time.Second))
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if !handedOver {
			t.Error("Run returned while a result was being appended")
		}
	})
}

// A read of a TCP connection ends with its deadline alone.
func TestEndDoesNotWaitForAServerThatIsSilent(t *testing.T) {
	l := listen(t)
	waits, silent := make(chan struct{}), make(chan struct{})
	each(t, l, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len("hi\n"))); err != nil {
			t.Error(err)
		}
		close(waits) // no dial is under way, which would end at once
		<-silent
	})
	cfg, err := decode(t, "probes:\n  modules:\n    banner: {prober: tcp, tcp: {preferred_ip_protocol: ip4, query_response: [{send: hi}, {expect: hello}]}}\n")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Targets = []Target{{Module: "banner", Target: l.Addr().String(), Interval: MaxInterval, Timeout: MaxTimeout}}
	var s sink
	p, err := New(cfg, s.append, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	one := p.targets[0]
	one.interval = time.Millisecond // it is due at once
	probe, over := one.fn, make(chan struct{})
	one.fn = func(ctx context.Context, target string, m config.Module, r *prometheus.Registry, log *slog.Logger) bool {
		defer close(over)
		return probe(ctx, target, m, r, log)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	<-waits
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	select {
	case <-over:
		t.Error("Run waited until the probe was over")
	default:
	}
	close(silent)
	p.probing.Wait()
	if len(s.all) != 0 || len(p.newest()) != 0 {
		t.Errorf("what a probe found after the end was taken: %v, %v", s.all, p.newest())
	}
}

func TestChangesAreToldOnceWithTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Targets = []Target{{Target: "t", Module: "tcp_connect"}}
		cfg.Targets[0].Target = "t:1"
		var log bytes.Buffer
		s := sink{fails: true}
		set := metrics.NewSet()
		p, err := New(cfg, s.append, slog.New(slog.NewTextHandler(&log, nil)), set)
		if err != nil {
			t.Fatal(err)
		}
		good := false
		p.targets[0].fn = func(ctx context.Context, a string, m config.Module, r *prometheus.Registry, l *slog.Logger) bool {
			if !good {
				l.Debug("not worth telling")
				l.Error("Error dialing TCP", "err", "no route")
			}
			return good
		}
		for i := range 6 {
			good = i >= 3
			p.once(t.Context(), p.targets[0])
			time.Sleep(15 * time.Second)
		}
		text := log.String()
		for want, times := range map[string]int{
			`msg="probe fails" target=t:1 module=tcp_connect reason="Error dialing TCP err=no route"`: 1,
			`msg="probe succeeds again" target=t:1 module=tcp_connect failed_for=45s`:                 1,
			"cannot be queued": 1,
			"not worth":        0,
		} {
			if got := strings.Count(text, want); got != times {
				t.Errorf("%q stands %d times in the log, want %d:\n%s", want, got, times, text)
			}
		}
		if got := counter(t, set, metric.AgentProbesNotQueued); got != "6" {
			t.Errorf("%s not queued, want 6", got)
		}
	})
}

func TestProberThatPanicsIsAFailedProbe(t *testing.T) {
	cfg := DefaultConfig()
	// Two answers that are told under different labels cannot both be registered.
	cfg.Modules["clash"] = config.Module{Prober: "tcp"}
	cfg.Targets = []Target{{Target: "t:1", Module: "clash"}}
	p, err := New(cfg, nil, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	p.targets[0].fn = func(_ context.Context, _ string, _ config.Module, r *prometheus.Registry, _ *slog.Logger) bool {
		gauge(r, "probe_expect_info", "x")
		gauge(r, "probe_expect_info", "x")
		return true
	}
	fams, ok, why := p.targets[0].probe(t.Context())
	if ok || values(fams)["probe_success"] != 0 || !strings.Contains(why, "duplicate") {
		t.Errorf("got %v, %q", ok, why)
	}
}

func TestPageHasTheNewestOfEachTargetOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	cfg := DefaultConfig()
	cfg.Targets = []Target{
		{Target: server.URL, Name: "web", Labels: map[string]string{"team": "a", "job": "own"}},
		{Target: address, Module: "tcp_connect"},
		{Target: "never:1", Module: "tcp_connect"},
	}
	var s sink
	p, err := New(cfg, s.append, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.once(t.Context(), p.targets[0])
		p.once(t.Context(), p.targets[1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest("GET", "/metrics/probes", nil))
	fams, err := metric.ParseText(w.Body.Bytes())
	if err != nil {
		t.Fatalf("%v in\n%s", err, w.Body)
	}
	i := slices.IndexFunc(fams, func(f metric.Family) bool { return f.Name == "probe_success" })
	if i < 0 {
		t.Fatalf("no probe_success in\n%s", w.Body)
	}
	got := values(fams[i : i+1])
	expectOnly := map[string]float64{
		fmt.Sprintf("probe_success instance=%s job=own module=http_2xx target=web team=a", server.URL):       1,
		fmt.Sprintf("probe_success instance=%s job=blackbox module=tcp_connect target=%s", address, address): 1,
	}
	if len(got) != len(expectOnly) {
		t.Errorf("got %v, want %v", got, expectOnly)
	}
	for k, v := range expectOnly {
		if got[k] != v {
			t.Errorf("%s is %v in %v", k, got[k], got)
		}
	}
	if fams[i].Type != metric.Gauge {
		t.Errorf("probe_success is a %s", fams[i].Type)
	}
	// What is queued carries the same labels, given as extra ones.
	if one := s.all[0]; one.labels["instance"] != server.URL || one.labels["job"] != "own" || one.values["probe_success"] != 1 || one.values["up"] != 1 {
		t.Errorf("queued: %+v", one)
	}
}
