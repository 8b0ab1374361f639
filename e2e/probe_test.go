//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/icmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"nines/e2e/harness"
	"nines/e2e/parts"
	"nines/pkg/metric"
)

// probeModules are those that both programs are given.
const probeModules = `
ok: {prober: http, timeout: 1s, http: {preferred_ip_protocol: ip4}}
stay: {prober: http, timeout: 1s, http: {preferred_ip_protocol: ip4, follow_redirects: false}}
body: {prober: http, timeout: 1s, http: {preferred_ip_protocol: ip4, fail_if_body_matches_regexp: ["broken"]}}
lax: {prober: http, timeout: 1s, http: {preferred_ip_protocol: ip4, tls_config: {insecure_skip_verify: true}}}
tcp: {prober: tcp, timeout: 1s, tcp: {preferred_ip_protocol: ip4}}
tls: {prober: tcp, timeout: 1s, tcp: {preferred_ip_protocol: ip4, tls: true}}
laxtls: {prober: tcp, timeout: 1s, tcp: {preferred_ip_protocol: ip4, tls: true, tls_config: {insecure_skip_verify: true}}}
ssh: {prober: tcp, timeout: 1s, tcp: {preferred_ip_protocol: ip4, query_response: [{expect: "^SSH-2.0-([^ -]+)", labels: [{name: ssh_version, value: "${1}"}]}]}}
there: {prober: dns, timeout: 1s, dns: {preferred_ip_protocol: ip4, query_name: there.example, query_type: A}}
zone: {prober: dns, timeout: 1s, dns: {preferred_ip_protocol: ip4, query_name: zone.example, query_type: SOA}}
away: {prober: dns, timeout: 1s, dns: {preferred_ip_protocol: ip4, query_name: away.example, query_type: A}}
health: {prober: grpc, timeout: 1s, grpc: {preferred_ip_protocol: ip4}}
unhealthy: {prober: grpc, timeout: 1s, grpc: {preferred_ip_protocol: ip4, service: down}}
laxgrpc: {prober: grpc, timeout: 1s, grpc: {preferred_ip_protocol: ip4, tls: true, tls_config: {insecure_skip_verify: true}}}
ping: {prober: icmp, timeout: 1s, icmp: {preferred_ip_protocol: ip4}}
`

// probed is a target of both, with what a probe of it finds.
type probed struct {
	name, module, address string
	success               float64
}

func TestProbesAreThoseOfBlackboxExporter(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	targets := probeServers(t)

	dir, err := parts.Get(context.Background(), parts.BlackboxExporter, func(line string) { lab.Say("%s", line) })
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	exporter := "http://" + address
	lab.Start(harness.Command{
		Name: "blackbox_exporter", Path: filepath.Join(dir, "blackbox_exporter"),
		Args:  []string{"--web.listen-address", address, "--config.file", lab.Write("blackbox.yml", "modules:\n"+indent(probeModules, "  "))},
		Ready: func() error { _, err := harness.Get(exporter + "/-/healthy"); return err },
	})

	listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	config := fmt.Sprintf("node: probing\nstate: %q\nlisten: %s\nlogs: {sources: []}\nmetrics:\n  send_to: []\n  probes:\n    interval: 2s\n    modules:\n%s    targets:\n",
		lab.Dir("agent"), listen, indent(probeModules, "      "))
	for _, p := range targets {
		config += fmt.Sprintf("      - {name: %s, module: %s, target: %q}\n", p.name, p.module, p.address)
	}
	agent := "http://" + listen
	lab.Start(harness.Command{
		Name: "nines-agent", Path: lab.Program("nines-agent"), Args: []string{"--config", lab.Write("agent.yaml", config)},
		Ready: func() error { _, err := harness.Get(agent + "/healthz"); return err },
	})

	var ours map[string]map[string]probeSeries
	lab.Eventually(time.Minute, "the agent has probed all targets", func() error {
		page, err := harness.Get(agent + "/metrics/probes")
		if err != nil {
			return err
		}
		if ours, err = byTarget(page); err != nil {
			return err
		}
		if len(ours) < len(targets) {
			return fmt.Errorf("%d of %d targets are there", len(ours), len(targets))
		}
		return nil
	})
	for _, p := range targets {
		t.Run(p.name, func(t *testing.T) {
			page, err := harness.Get(exporter + "/probe?" + url.Values{"module": {p.module}, "target": {p.address}}.Encode())
			if err != nil {
				t.Fatal(err)
			}
			them, err := byTarget(page)
			if err != nil {
				t.Fatal(err)
			}
			want, got := them[""], ours[p.name]
			if s := got["up"]; s.value != 1 {
				t.Errorf("up is %+v", s)
			}
			delete(got, "up") // Prometheus makes it of the exporter's answer
			if w, g := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(w, g) {
				t.Fatalf("series of the exporter\n%s\nof the agent\n%s", strings.Join(w, "\n"), strings.Join(g, "\n"))
			}
			for name, w := range want {
				g := got[name]
				if g.typ != w.typ {
					t.Errorf("%s is a %s, want a %s", name, g.typ, w.typ)
				}
				if !strings.Contains(name, "duration_seconds") && !strings.Contains(name, "lookup_time_seconds") && g.value != w.value {
					t.Errorf("%s is %v, want %v", name, g.value, w.value)
				}
			}
			if got["probe_success"].value != p.success {
				t.Errorf("probe_success is %v, want %v", got["probe_success"].value, p.success)
			}
		})
	}
}

type probeSeries struct {
	typ   metric.Type
	value float64
}

// byTarget reads a page into series by the label target, which the exporter's
// page has not, and by name and the labels that the probe itself made.
func byTarget(page []byte) (map[string]map[string]probeSeries, error) {
	fams, err := metric.ParseText(page)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]probeSeries{}
	for _, f := range fams {
		for _, s := range f.Series {
			name, target := f.Name+s.Suffix, ""
			for _, l := range s.Labels {
				switch l.Name {
				case "target":
					target = l.Value
				case "job", "instance", "module":
				default:
					name += fmt.Sprintf(" %s=%q", l.Name, l.Value)
				}
			}
			if out[target] == nil {
				out[target] = map[string]probeSeries{}
			}
			out[target][name] = probeSeries{f.Type, s.Value}
		}
	}
	return out, nil
}

func indent(text, by string) (out string) {
	for line := range strings.Lines(strings.TrimLeft(text, "\n")) {
		out += by + line
	}
	return out
}

// probeServers starts what is probed, until the test ends.
func probeServers(t *testing.T) []probed {
	t.Helper()
	var serving sync.WaitGroup
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() }) // some are closed by then
		return l
	}
	each := func(l net.Listener, do func(net.Conn)) string {
		serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serving.Go(func() { defer c.Close(); do(c) })
			}
		})
		return l.Addr().String()
	}
	t.Cleanup(serving.Wait)

	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		_, _ = io.WriteString(w, "all is fine")
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "all is broken") })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad", http.StatusInternalServerError) })
	mux.Handle("/away", http.RedirectHandler("/ok", http.StatusFound))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	plain := httptest.NewServer(mux)
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail on purpose
	secure.StartTLS()
	t.Cleanup(secure.Close)
	host := strings.TrimPrefix(secure.URL, "https://")

	banner := each(listen(), func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-Nines_1.0\r\n") })
	hole := each(listen(), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	dead := listen()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}

	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		line := map[string]string{
			"there.example.": "there.example. 60 IN A 192.0.2.1",
			"zone.example.":  "zone.example. 60 IN SOA ns.example. admin.example. 2026010101 1 1 1 1",
		}[r.Question[0].Name]
		m.Rcode = dns.RcodeNameError
		if rr, err := dns.NewRR(line); line != "" && err == nil {
			m.Answer, m.Rcode = append(m.Answer, rr), dns.RcodeSuccess
		}
		_ = w.WriteMsg(m) // the probe sees what was not answered
	})}
	serving.Go(func() { _ = names.ActivateAndServe() })
	t.Cleanup(func() { _ = names.Shutdown() })
	resolver := packets.LocalAddr().String()

	healthy := func(l net.Listener) string {
		s := grpc.NewServer()
		h := health.NewServer()
		h.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		grpc_health_v1.RegisterHealthServer(s, h)
		serving.Go(func() { _ = s.Serve(l) })
		t.Cleanup(s.Stop)
		return l.Addr().String()
	}
	rpc := healthy(listen())
	rpcs := healthy(tls.NewListener(listen(), &tls.Config{Certificates: secure.TLS.Certificates, NextProtos: []string{"h2"}}))

	return []probed{
		{"good", "ok", plain.URL + "/ok", 1},
		{"no-scheme", "ok", strings.TrimPrefix(plain.URL, "http://") + "/ok", 1},
		{"redirect", "ok", plain.URL + "/away", 1},
		{"redirect-refused", "stay", plain.URL + "/away", 0},
		{"status", "ok", plain.URL + "/bad", 0},
		{"body", "body", plain.URL + "/broken", 0},
		{"body-good", "body", plain.URL + "/ok", 1},
		{"slow", "ok", plain.URL + "/slow", 0},
		{"wrong-certificate", "ok", secure.URL + "/ok", 0},
		{"lax-certificate", "lax", secure.URL + "/ok", 1},
		{"http-dead", "ok", "http://" + dead.Addr().String(), 0},
		{"tcp", "tcp", banner, 1},
		{"tcp-dead", "tcp", dead.Addr().String(), 0},
		{"tls-wrong", "tls", host, 0},
		{"tls-lax", "laxtls", host, 1},
		{"tls-hole", "laxtls", hole, 0},
		{"ssh", "ssh", banner, 1},
		{"ssh-hole", "ssh", hole, 0},
		{"dns", "there", resolver, 1},
		{"dns-soa", "zone", resolver, 1},
		{"dns-away", "away", resolver, 0},
		{"grpc", "health", rpc, 1},
		{"grpc-down", "unhealthy", rpc, 0},
		{"grpc-tls", "laxgrpc", rpcs, 1},
		{"grpc-dead", "health", dead.Addr().String(), 0},
		{"ping", "ping", "127.0.0.1", pings()},
	}
}

// pings says what a ping of this host finds: some hosts let nobody send any.
func pings() float64 {
	for _, network := range []string{"udp4", "ip4:icmp"} {
		if c, err := icmp.ListenPacket(network, "127.0.0.1"); err == nil {
			_ = c.Close() // it was opened to see that it can be
			return 1
		}
	}
	return 0
}
