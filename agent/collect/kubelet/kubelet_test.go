package kubelet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	promscrape "github.com/prometheus/prometheus/scrape"
	promstorage "github.com/prometheus/prometheus/storage"
	"go.uber.org/goleak"

	"nines/pkg/metric"
	"nines/pkg/strictyaml"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fake is an HTTPS server that plays pages of a kubelet and looks at who asks,
// as the kubelet does: a token or a certificate says who it is, and rights are
// by page.
type fake struct {
	*httptest.Server
	dir string // of token, ca.crt, client.crt, client.key

	mu      sync.Mutex
	lacking map[string]bool // paths that are forbidden
	status  int             // in place of an answer; 0 none
	summary []byte
	asked   map[string]int
}

func serve(t *testing.T) *fake {
	t.Helper()
	f := &fake{dir: t.TempDir(), lacking: map[string]bool{}, asked: map[string]int{}, summary: file(t, "summary.json")}
	pages := map[string][]byte{}
	for path, name := range map[string]string{
		"/metrics": "metrics.txt", "/metrics/cadvisor": "cadvisor.txt",
		"/metrics/resource": "resource.txt", "/metrics/probes": "probes.txt",
	} {
		pages[path] = file(t, name)
	}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asked[r.URL.Path]++
		switch body, ok := pages[r.URL.Path]; {
		case f.status != 0:
			w.WriteHeader(f.status)
		case r.Header.Get("Authorization") != "Bearer right" && len(r.TLS.VerifiedChains) == 0:
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		case f.lacking[r.URL.Path]:
			http.Error(w, "Forbidden (user=agent, verb=get, resource=nodes)", http.StatusForbidden)
		case r.URL.Path == "/stats/summary":
			w.Header().Set("Content-Type", "application/json")
			w.Write(f.summary)
		case ok:
			w.Header().Set("Content-Type", metric.ContentType)
			w.Write(body)
		default:
			http.NotFound(w, r)
		}
	}))
	ca, caKey := certificate(t, "cluster", nil, nil)
	cert, key := certificate(t, "node-a", ca, caKey)
	client, clientKey := certificate(t, "agent", ca, caKey)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	f.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		ClientCAs:    pool, ClientAuth: tls.VerifyClientCertIfGiven,
	}
	f.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	f.StartTLS()
	t.Cleanup(f.Close)
	der, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"token":      []byte("right\n"),
		"ca.crt":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}),
		"client.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: client.Raw}),
		"client.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(filepath.Join(f.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// config asks the fake with its token.
func (f *fake) config() Config {
	c := DefaultConfig()
	c.Enabled, c.URL = "true", f.URL
	c.TokenFile, c.CAFile = filepath.Join(f.dir, "token"), filepath.Join(f.dir, "ca.crt")
	return c
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// certificate is signed by the parent, or by itself where there is none.
func certificate(t *testing.T, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, parentKey = template, key
		template.IsCA, template.BasicConstraintsValid = true, true
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// sink keeps what a scraper commits.
type sink struct {
	mu      sync.Mutex
	samples []labels.Labels
	times   map[string]int64
	grown   chan struct{} // one token after each commit
}

func newSink() *sink { return &sink{times: map[string]int64{}, grown: make(chan struct{}, 100)} }

func (s *sink) AppenderV2(context.Context) promstorage.AppenderV2 { return &appender{sink: s} }

type appender struct {
	sink    *sink
	pending []labels.Labels
	times   map[string]int64
}

func (a *appender) Append(_ promstorage.SeriesRef, ls labels.Labels, _, t int64, _ float64, _ *histogram.Histogram, _ *histogram.FloatHistogram, _ promstorage.AOptions) (promstorage.SeriesRef, error) {
	if a.times == nil {
		a.times = map[string]int64{}
	}
	a.pending = append(a.pending, ls.Copy())
	a.times[ls.String()] = t
	return 1, nil
}

func (a *appender) Commit() error {
	a.sink.mu.Lock()
	defer a.sink.mu.Unlock()
	a.sink.samples = append(a.sink.samples, a.pending...)
	for k, v := range a.times {
		a.sink.times[k] = v
	}
	select {
	case a.sink.grown <- struct{}{}:
	default:
	}
	return nil
}

func (a *appender) Rollback() error { return nil }

// scraped scrapes the jobs once with Prometheus' own scraper and returns the
// series, with their times.
func scraped(t *testing.T, cfg Config, node string) ([]labels.Labels, map[string]int64) {
	t.Helper()
	cfg.Interval, cfg.Timeout, cfg.SummaryInterval = time.Second, time.Second, 0
	k, err := New(cfg, node, nil, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := k.Jobs()
	if err != nil {
		t.Fatal(err)
	}
	s := newSink()
	m, err := promscrape.NewManager(&promscrape.Options{DiscoveryReloadOnStartup: true}, quiet, nil, nil, s, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string][]*targetgroup.Group{}
	all, err := config.Load("", quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		// As the scraper does, with its own defaults for what the job left out.
		if err := j.Config.Validate(all.GlobalConfig); err != nil {
			t.Fatal(err)
		}
		all.ScrapeConfigs = append(all.ScrapeConfigs, j.Config)
		groups[j.Config.JobName] = j.Groups
	}
	if err := m.ApplyConfig(all); err != nil {
		t.Fatal(err)
	}
	sets := make(chan map[string][]*targetgroup.Group, 1) // filled once
	sets <- groups
	ended := make(chan error, 1)
	go func() { ended <- m.Run(sets) }()
	paths := func() map[string]bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		seen := map[string]bool{}
		for _, ls := range s.samples {
			if ls.Get(model.MetricNameLabel) == "up" {
				seen[ls.Get("metrics_path")] = true
			}
		}
		return seen
	}
	for len(paths()) < len(jobs) {
		select {
		case <-s.grown:
		case <-t.Context().Done():
			t.Fatal("the test ended before all pages were scraped")
		}
	}
	m.Stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.samples, s.times
}

func names(series []labels.Labels, path string) map[string]bool {
	found := map[string]bool{}
	for _, ls := range series {
		if ls.Get("metrics_path") == path {
			found[ls.Get(model.MetricNameLabel)] = true
		}
	}
	return found
}

// wanted are the series that kubernetes-mixin's dashboards, rules and alerts
// select with the selectors of kube-prometheus, by page.
var wanted = map[string][]string{
	"/metrics": {
		"up", "kubelet_node_name", "kubelet_running_pods", "kubelet_running_containers", "volume_manager_total_volumes",
		"kubelet_runtime_operations_total", "kubelet_runtime_operations_errors_total", "kubelet_runtime_operations_duration_seconds_bucket",
		"kubelet_pod_start_duration_seconds_count", "kubelet_pod_start_duration_seconds_bucket",
		"kubelet_pod_worker_duration_seconds_count", "kubelet_pod_worker_duration_seconds_bucket",
		"storage_operation_duration_seconds_count", "storage_operation_duration_seconds_bucket",
		"kubelet_cgroup_manager_duration_seconds_count", "kubelet_cgroup_manager_duration_seconds_bucket",
		"kubelet_pleg_relist_duration_seconds_count", "kubelet_pleg_relist_duration_seconds_bucket", "kubelet_pleg_relist_interval_seconds_bucket",
		"rest_client_requests_total", "rest_client_request_duration_seconds_bucket",
		"process_resident_memory_bytes", "process_cpu_seconds_total", "go_goroutines", "kubernetes_build_info",
		"kubelet_volume_stats_used_bytes", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes",
		"kubelet_volume_stats_inodes", "kubelet_volume_stats_inodes_used", "kubelet_volume_stats_inodes_free",
		"kubelet_certificate_manager_client_ttl_seconds", "kubelet_certificate_manager_server_ttl_seconds",
		"kubelet_certificate_manager_client_expiration_renew_errors", "kubelet_server_expiration_renew_errors",
	},
	"/metrics/cadvisor": {
		"up", "container_cpu_usage_seconds_total", "container_cpu_cfs_periods_total", "container_cpu_cfs_throttled_periods_total",
		"container_memory_working_set_bytes", "container_memory_rss", "container_memory_cache", "container_memory_swap", "container_memory_usage_bytes",
		"container_network_receive_bytes_total", "container_network_transmit_bytes_total",
		"container_network_receive_packets_total", "container_network_transmit_packets_total",
		"container_network_receive_packets_dropped_total", "container_network_transmit_packets_dropped_total",
		"container_fs_reads_total", "container_fs_writes_total", "container_fs_reads_bytes_total", "container_fs_writes_bytes_total",
		"container_spec_memory_limit_bytes", "container_spec_cpu_quota", "container_start_time_seconds", "container_oom_events_total",
		"container_pressure_cpu_waiting_seconds_total", "machine_memory_bytes", "machine_cpu_cores",
	},
	"/metrics/resource": {"up", "pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes", "node_memory_working_set_bytes", "container_swap_usage_bytes"},
	"/metrics/probes":   {"up", "prober_probe_total", "prober_probe_duration_seconds_sum", "prober_probe_duration_seconds_count"},
}

func TestStockDashboardsFindTheirSeriesAfterTheDefaultDrops(t *testing.T) {
	series, times := scraped(t, serve(t).config(), "node-a")
	for path, want := range wanted {
		got := names(series, path)
		for _, name := range want {
			if !got[name] {
				t.Errorf("%s lacks %s", path, name)
			}
		}
	}
	for _, ls := range series {
		if ls.Get("job") != "kubelet" || ls.Get("instance") == "" || ls.Get("node") != "node-a" {
			t.Fatalf("labels of the target are wrong: %s", ls)
		}
		// The page's own node, namespace and pod are not renamed.
		ls.Range(func(l labels.Label) {
			if strings.HasPrefix(l.Name, "exported_") {
				t.Errorf("the page's own label was renamed: %s", ls)
			}
		})
	}
	// What the page says of namespace, pod and container stands, and of times only
	// where it is asked for.
	for _, ls := range series {
		if ls.Get(model.MetricNameLabel) == "container_memory_rss" && ls.Get("container") == "web" && ls.Get("namespace") == "shop" {
			if at := times[ls.String()]; time.Since(time.UnixMilli(at)) > time.Hour {
				t.Errorf("cadvisor's own time was kept: %d", at)
			}
			return
		}
	}
	t.Error("no memory of the container")
}

func TestDroppedSeriesAreThereWithKeepAllAndGoneWithout(t *testing.T) {
	f := serve(t)
	cfg := f.config()
	cut, _ := scraped(t, cfg, "node-a")
	cfg.KeepAll = true
	whole, _ := scraped(t, cfg, "node-a")
	for path, gone := range map[string][]string{
		"/metrics":          {"kubernetes_feature_enabled", "apiserver_audit_event_total", "go_gc_heap_allocs_bytes_total", "go_godebug_non_default_behavior_execerrdot_events_total", "kubelet_http_requests_duration_seconds_bucket", "rest_client_request_size_bytes_bucket"},
		"/metrics/cadvisor": {"container_tasks_state", "container_cpu_load_average_10s", "container_network_tcp_usage_total", "container_fs_io_current", "container_ulimits_soft", "container_spec_memory_reservation_limit_bytes"},
		"/metrics/resource": {"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_start_time_seconds"},
		"/metrics/probes":   {"prober_probe_duration_seconds_bucket"},
	} {
		for _, name := range gone {
			if names(cut, path)[name] {
				t.Errorf("%s has %s", path, name)
			}
			if !names(whole, path)[name] {
				t.Errorf("%s lacks %s with keep_all", path, name)
			}
		}
	}
	if !names(cut, "/metrics/cadvisor")["container_start_time_seconds"] {
		t.Error("the rule of one page works on another one")
	}
}

func TestEachRuleDropsSomethingOfTheRecordedPagesAndSaysWhy(t *testing.T) {
	for _, r := range Rules() {
		if !strings.Contains(r.Reason, " ") || r.Regex == "" {
			t.Errorf("rule %+v has no reason", r)
		}
		cfg := DefaultConfig()
		i := slices.IndexFunc(pages, func(p page) bool { return p.name == r.Page })
		if i < 0 {
			t.Fatalf("rule for a page %q that is not there", r.Page)
		}
		all, err := cfg.drops(r.Page)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(all, func(c *relabel.Config) bool { return c.Regex.Regexp != nil && c.Regex.String() == r.Regex })
		if at < 0 {
			t.Fatalf("no relabeling for %q", r.Regex)
		}
		fams, err := metric.ParseText(file(t, r.Page+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		dropped := 0
		for _, f := range fams {
			for _, s := range f.Series {
				b := labels.NewBuilder(labels.EmptyLabels())
				b.Set(model.MetricNameLabel, f.Name+s.Suffix)
				for _, l := range s.Labels {
					b.Set(l.Name, l.Value)
				}
				if !relabel.ProcessBuilder(b, all[at]) {
					dropped++
				}
			}
		}
		if dropped == 0 {
			t.Errorf("the recorded page has nothing for %q", r.Regex)
		}
	}
}

func TestOfThePauseContainerOnlyTheNetworkStays(t *testing.T) {
	series, _ := scraped(t, serve(t).config(), "node-a")
	interfaces := map[string]bool{}
	for _, ls := range series {
		name := ls.Get(model.MetricNameLabel)
		if strings.HasPrefix(name, "container_network_") {
			interfaces[ls.Get("interface")] = true
		} else if ls.Get("name") != "" && ls.Get("container") == "" {
			t.Errorf("a series of the pause container: %s", ls)
		}
		if strings.HasPrefix(ls.Get("id"), "/system.slice/var-") {
			t.Errorf("a series of a mount: %s", ls)
		}
	}
	if !interfaces["eth0"] || len(interfaces) != 1 {
		t.Errorf("interfaces %v, want eth0 alone", interfaces)
	}
}

func TestResourcePageKeepsContainersWhereCAdvisorIsNotAsked(t *testing.T) {
	cfg := serve(t).config()
	cfg.Pages = []string{Resource}
	series, _ := scraped(t, cfg, "node-a")
	if !names(series, "/metrics/resource")["container_memory_working_set_bytes"] {
		t.Error("nobody gives the memory of containers")
	}
}

func TestExtraDropsWorkOnAllPagesAlsoWithKeepAll(t *testing.T) {
	cfg := serve(t).config()
	cfg.KeepAll, cfg.Drop = true, []string{"container_.*", "prober_probe_total"}
	series, _ := scraped(t, cfg, "node-a")
	for path := range wanted {
		for name := range names(series, path) {
			if strings.HasPrefix(name, "container_") || name == "prober_probe_total" {
				t.Errorf("%s has %s", path, name)
			}
		}
	}
}

func TestInstanceIsAddressAndPortButOfLoopbackTheNode(t *testing.T) {
	for address, want := range map[string]string{
		"https://10.0.0.7:10250": "10.0.0.7:10250",
		"https://10.0.0.7":       "10.0.0.7:10250",
		"https://[fd00::7]":      "[fd00::7]:10250",
		"https://127.0.0.1":      "node-a:10250",
		"https://localhost:4194": "node-a:4194",
		"https://[::1]:10250":    "node-a:10250",
		"http://10.0.0.7:10255/": "10.0.0.7:10255",
	} {
		cfg := DefaultConfig()
		cfg.URL = address
		k, err := New(cfg, "node-a", nil, quiet, metrics.NewSet())
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := k.Jobs()
		if err != nil {
			t.Fatal(err)
		}
		if len(jobs) != 4 {
			t.Fatalf("%d jobs", len(jobs))
		}
		for _, j := range jobs {
			if got := string(j.Groups[0].Labels["instance"]); got != want {
				t.Errorf("%s: instance %q, want %q", address, got, want)
			}
		}
	}
}

func TestJobsLeaveToTheScraperWhatIsItsOwn(t *testing.T) {
	k, err := New(serve(t).config(), "node-a", nil, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := k.Jobs()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, j := range jobs {
		if j.Config.ScrapeProtocols != nil || j.Config.ScrapeNativeHistograms != nil {
			t.Errorf("%s: the scraper's defaults are taken away", j.Config.JobName)
		}
		if seen[j.Config.JobName] || j.Config.SampleLimit == 0 || j.Config.BodySizeLimit == 0 {
			t.Errorf("%s: twice, or without a bound", j.Config.JobName)
		}
		seen[j.Config.JobName] = true
	}
}

func TestAddressComesFromTheEnvironment(t *testing.T) {
	t.Setenv("NODE_IP", "")
	t.Setenv("HOST_IP", "10.1.2.3")
	t.Setenv("SIX", "fd00::9")
	for text, want := range map[string]string{
		"":                      "https://10.1.2.3:10250",
		"https://$(HOST_IP):99": "https://10.1.2.3:99",
		"https://$(SIX)":        "https://[fd00::9]:10250",
	} {
		u, err := Config{URL: text}.base()
		if err != nil || u.String() != want {
			t.Errorf("%q: %v, %v; want %s", text, u, err, want)
		}
	}
	t.Setenv("HOST_IP", "")
	if u, err := (Config{}).base(); err != nil || u.String() != "https://127.0.0.1:10250" {
		t.Errorf("without a variable: %v, %v", u, err)
	}
	if _, err := (Config{URL: "https://$(NO_SUCH_NAME):1"}).base(); err == nil || !strings.Contains(err.Error(), "NO_SUCH_NAME") {
		t.Errorf("a variable that is not there: %v", err)
	}
}

func TestWrongConfigurationNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"enabled":          func(c *Config) { c.Enabled = "maybe" },
		"url":              func(c *Config) { c.URL = "10.0.0.7:10250" },
		"url ":             func(c *Config) { c.URL = "https://h/metrics" },
		"url must":         func(c *Config) { c.URL = "https://u:p@h" },
		"cert_file":        func(c *Config) { c.CertFile = "x" },
		"interval":         func(c *Config) { c.Interval = 0 },
		"timeout":          func(c *Config) { c.Timeout = time.Minute },
		"summary_interval": func(c *Config) { c.SummaryInterval = time.Second },
		"pages[1]":         func(c *Config) { c.Pages = []string{Metrics, "slis"} },
		"pages[2]":         func(c *Config) { c.Pages = []string{Metrics, Probes, Metrics} },
		"pages":            func(c *Config) { c.Pages, c.SummaryInterval = nil, 0 },
		"drop[1]":          func(c *Config) { c.Drop = []string{"a", "("} },
		"drop[0]":          func(c *Config) { c.Drop = []string{""} },
	} {
		c := DefaultConfig()
		c.Enabled = "true"
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), strings.TrimSpace(field)) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestConfigurationIsReadFromYAMLWithTrueAsAWord(t *testing.T) {
	c := DefaultConfig()
	doc := "enabled: true\nurl: https://10.0.0.7:10250\ninterval: 15s\nkeep_all: true\ndrop: [container_ulimits.*]\npages: [metrics]\n"
	if err := strictyaml.Decode("agent.yaml", []byte(doc), &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if !c.On() || c.Interval != 15*time.Second || !c.KeepAll || len(c.Pages) != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestAutoAsksWhereThereIsATokenOrAnAddress(t *testing.T) {
	c := DefaultConfig()
	c.TokenFile = filepath.Join(t.TempDir(), "token")
	if c.On() {
		t.Error("on without a token")
	}
	if err := os.WriteFile(c.TokenFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !c.On() {
		t.Error("off with a token")
	}
	c.Enabled = "false"
	if c.On() {
		t.Error("on though it is switched off")
	}
	c = Config{Enabled: "auto", URL: "https://10.0.0.7"}
	if !c.On() {
		t.Error("off with an address")
	}
}

func TestFileThatIsNamedButMissingIsAnErrorWithItsKey(t *testing.T) {
	f := serve(t)
	for key, change := range map[string]func(*Config){
		"token_file": func(c *Config) { c.TokenFile = "no-such-file" },
		"ca_file":    func(c *Config) { c.CAFile = "no-such-file" },
		"cert_file":  func(c *Config) { c.CertFile, c.KeyFile = "no-such-file", "no-such-file" },
	} {
		c := f.config()
		change(&c)
		if _, err := New(c, "node-a", nil, quiet, metrics.NewSet()); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
	c := f.config()
	c.CAFile = filepath.Join(f.dir, "token")
	if _, err := New(c, "node-a", nil, quiet, metrics.NewSet()); err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Errorf("a CA file that holds none: %v", err)
	}
}
