package probe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/blackbox_exporter/config"
	"github.com/prometheus/client_golang/prometheus"
	pconfig "github.com/prometheus/common/config"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// probeGRPC asks a server for its health as blackbox_exporter v0.28.0 does and
// says the same of it, with one difference: it keeps the context's deadline.
// The exporter's own asks without one, so that a server that takes the request
// and never answers would hold a probe, and all that it has open, for ever.
func probeGRPC(ctx context.Context, target string, module config.Module, registry *prometheus.Registry, logger *slog.Logger) bool {
	phases := gaugeVec(registry, "probe_grpc_duration_seconds", "Seconds that the gRPC request took, by phase", "phase")
	ssl := gauge(registry, "probe_grpc_ssl", "1 where the connection was encrypted")
	code := gauge(registry, "probe_grpc_status_code", "gRPC status code of the answer")
	answer := gaugeVec(registry, "probe_grpc_healthcheck_response", "1 for the status that the health check answered", "serving_status")
	phases.WithLabelValues("resolve")

	u, err := url.Parse(withScheme(target))
	if err != nil {
		logger.Error("Could not parse target", "err", err)
		return false
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		host, port = u.Host, "80"
		if module.GRPC.TLS {
			port = "443"
		}
	}
	tlsConfig, err := pconfig.NewTLSConfig(&module.GRPC.TLSConfig)
	if err != nil {
		logger.Error("Error creating TLS configuration", "err", err)
		return false
	}
	if tlsConfig.ServerName == "" {
		tlsConfig.ServerName = host
	}
	took, err := resolve(ctx, registry, host, module.GRPC.PreferredIPProtocol, module.GRPC.IPProtocolFallback)
	if err != nil {
		logger.Error("Error resolving address", "err", err)
		return false
	}
	phases.WithLabelValues("resolve").Set(took.Seconds())

	began := time.Now()
	transport := insecure.NewCredentials()
	if module.GRPC.TLS {
		transport = credentials.NewTLS(tlsConfig)
	}
	conn, err := grpc.NewClient(net.JoinHostPort(host, port), grpc.WithTransportCredentials(transport))
	if err != nil {
		logger.Error("Error making a gRPC client", "err", err)
		return false
	}
	defer conn.Close() // it only fails where it is closed already
	var server peer.Peer
	ask := metadata.NewOutgoingContext(ctx, module.GRPC.Metadata)
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ask, &grpc_health_v1.HealthCheckRequest{Service: module.GRPC.Service}, grpc.Peer(&server))
	phases.WithLabelValues("check").Set(time.Since(began).Seconds())
	for name := range grpc_health_v1.HealthCheckResponse_ServingStatus_value {
		answer.WithLabelValues(name).Set(0)
	}
	code.Set(float64(status.Code(err)))
	if err != nil {
		logger.Error("The health check failed", "err", err)
		return false
	}
	answer.WithLabelValues(resp.GetStatus().String()).Set(1)
	if info, ok := server.AuthInfo.(credentials.TLSInfo); ok {
		ssl.Set(1)
		describeTLS(registry, info.State)
	}
	if resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		logger.Error("The service does not serve", "status", resp.GetStatus())
		return false
	}
	return true
}

// describeTLS says what blackbox_exporter says about a gRPC server's
// certificate. A server that was talked to has one at least.
func describeTLS(registry *prometheus.Registry, state tls.ConnectionState) {
	leaf := state.PeerCertificates[0]
	expiry := leaf.NotAfter
	for _, c := range state.PeerCertificates {
		if c.NotAfter.Before(expiry) {
			expiry = c.NotAfter
		}
	}
	gauge(registry, "probe_ssl_earliest_cert_expiry", "Unix time at which the first of the server's certificates expires").Set(float64(expiry.Unix()))
	gaugeVec(registry, "probe_tls_version_info", "Always 1; the label says which version of TLS was used", "version").
		WithLabelValues(tls.VersionName(state.Version)).Set(1)
	sum := sha256.Sum256(leaf.Raw)
	gaugeVec(registry, "probe_ssl_last_chain_info", "Always 1; the labels describe the server's own certificate",
		"fingerprint_sha256", "subject", "issuer", "subjectalternative", "serialnumber").
		WithLabelValues(hex.EncodeToString(sum[:]), leaf.Subject.String(), leaf.Issuer.String(),
			strings.Join(leaf.DNSNames, ","), fmt.Sprintf("%x", leaf.SerialNumber.Bytes())).Set(1)
}

// resolve looks a host up and says what it found. The check itself goes by name.
func resolve(ctx context.Context, registry *prometheus.Registry, host, prefer string, fallback bool) (time.Duration, error) {
	protocol := gauge(registry, "probe_ip_protocol", "Version of IP that is used, 4 or 6")
	lookup := gauge(registry, "probe_dns_lookup_time_seconds", "Seconds that it took to look the host up")
	hash := gauge(registry, "probe_ip_addr_hash", "A hash of the address, which changes when the address does")

	began := time.Now()
	found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	took := time.Since(began)
	lookup.Set(took.Seconds())
	if err != nil {
		return took, err
	}
	want := 6.0
	if prefer == "ip4" {
		want = 4
	}
	var chosen net.IP
	version := 0.0
	for _, a := range found {
		v := 6.0
		if a.IP.To4() != nil {
			v = 4
		}
		if v == want || fallback {
			chosen, version = a.IP, v
		}
		if v == want {
			break
		}
	}
	if chosen == nil {
		return took, fmt.Errorf("%s has no address of IP version %v (ip_protocol_fallback would take another)", host, want)
	}
	protocol.Set(version)
	raw := chosen.To16()
	if v4 := chosen.To4(); v4 != nil {
		raw = v4
	}
	h := fnv.New32a()
	h.Write(raw) // never fails
	hash.Set(float64(h.Sum32()))
	return took, nil
}

func gauge(registry *prometheus.Registry, name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	registry.MustRegister(g)
	return g
}

func gaugeVec(registry *prometheus.Registry, name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	registry.MustRegister(g)
	return g
}
