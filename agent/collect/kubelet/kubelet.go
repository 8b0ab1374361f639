// Package kubelet says how the kubelet of this node is asked, at its own port
// and without the API server between: its pages of metrics as scrape jobs with
// the labels that stock dashboards select on, and its summary of pods as
// series about storage that no page has.
//
// It owns the address, the credentials, the table of what is dropped (Rules)
// and the words for what goes wrong. It refuses to scrape (agent/collect/scrape
// does), and to give a volume twice: those of claims are on the kubelet's page
// already. A Config comes in; Jobs leave once, families leave through Append at
// each poll.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"nines/agent/collect/scrape"
	"nines/pkg/metric"
	"nines/pkg/ops"
)

// Config says where the kubelet is, who asks, and what is kept.
type Config struct {
	Enabled string `yaml:"enabled"` // true, false, or auto: where url is given or token_file exists
	// URL is scheme, host and port, such as https://10.0.0.7:10250. $(NAME)
	// stands for an environment variable. Empty: https on port 10250 of NODE_IP
	// or HOST_IP, whichever the environment has, else of 127.0.0.1.
	URL                string `yaml:"url"`
	TokenFile          string `yaml:"token_file"` // read for each request; never sent over plain http
	CAFile             string `yaml:"ca_file"`    // of whoever signed the kubelet's serving certificate
	CertFile           string `yaml:"cert_file"`  // with key_file: who asks, beside or instead of a token
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"` // that the certificate must have, where it is not the address
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`

	Interval        time.Duration `yaml:"interval"`         // between scrapes of a page
	Timeout         time.Duration `yaml:"timeout"`          // of one request; at most interval
	Pages           []string      `yaml:"pages"`            // of metrics, cadvisor, resource, probes
	SummaryInterval time.Duration `yaml:"summary_interval"` // between polls of /stats/summary; 0: it is not asked

	KeepAll bool     `yaml:"keep_all"` // nothing of Rules is dropped
	Drop    []string `yaml:"drop"`     // more that is dropped, on all pages: regular expressions of whole names
}

// Pages of the kubelet.
const (
	Metrics  = "metrics"
	CAdvisor = "cadvisor"
	Resource = "resource"
	Probes   = "probes"
)

// page is one page of metrics.
type page struct {
	name, path string
	// timestamps: what the page says of its samples' times is kept. cAdvisor's
	// are those of its own round of reading, up to a quarter of a minute old and
	// the same at two scrapes; kube-prometheus does not keep them either.
	timestamps bool
}

var pages = []page{
	{Metrics, "/metrics", true},
	{CAdvisor, "/metrics/cadvisor", false},
	{Resource, "/metrics/resource", false},
	{Probes, "/metrics/probes", true},
}

// bySize are the names of all pages, the smallest first: probes have some lines
// for each container, cAdvisor some hundred.
var bySize = []string{Probes, Resource, Metrics, CAdvisor}

const (
	pathSummary = "/stats/summary"

	// Where Kubernetes mounts a pod's service account.
	accountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	accountCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

	// port is the kubelet's (kubernetes/pkg/cluster/ports, KubeletPort).
	port = "10250"

	// jobName is the job that kubernetes-mixin selects on.
	jobName = "kubelet"

	// maxPage and maxSamples bound one scrape; beyond them it fails as a whole.
	// 500 pods of 4 containers make about 150,000 samples in 60 MiB.
	maxPage    = 128 << 20
	maxSamples = 300_000

	minInterval = time.Second
	maxInterval = 10 * time.Minute
	maxDrop     = 100 // entries of Config.Drop
)

// DefaultConfig asks all pages, as often as kube-prometheus does, with the
// pod's service account.
func DefaultConfig() Config {
	return Config{
		Enabled:         "auto",
		TokenFile:       accountToken,
		CAFile:          accountCA,
		Interval:        30 * time.Second,
		Timeout:         10 * time.Second,
		Pages:           []string{Metrics, CAdvisor, Resource, Probes},
		SummaryInterval: time.Minute,
	}
}

// On says whether the kubelet is asked at all.
func (c Config) On() bool {
	switch c.Enabled {
	case "true":
		return true
	case "auto", "":
		return c.URL != "" || exists(c.TokenFile)
	}
	return false
}

// Validate names the field that is wrong, and the remedy. Where the kubelet is
// not asked, only enabled is looked at.
func (c Config) Validate() error {
	if !slices.Contains([]string{"", "auto", "true", "false"}, c.Enabled) {
		return fmt.Errorf("enabled %q must be true, false, or auto (where url is given or token_file exists)", c.Enabled)
	}
	if !c.On() {
		return nil
	}
	if _, err := c.base(); err != nil {
		return err
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file and key_file belong together: give both or none")
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		return fmt.Errorf("interval %s must lie between %s and %s", c.Interval, minInterval, maxInterval)
	}
	if c.Timeout <= 0 || c.Timeout > c.Interval {
		return fmt.Errorf("timeout %s must be more than 0 and at most the interval of %s", c.Timeout, c.Interval)
	}
	if c.SummaryInterval != 0 && (c.SummaryInterval < c.Timeout || c.SummaryInterval > maxInterval) {
		return fmt.Errorf("summary_interval %s must lie between the timeout of %s and %s, or be 0 to leave the summary out", c.SummaryInterval, c.Timeout, maxInterval)
	}
	for i, name := range c.Pages {
		if !slices.ContainsFunc(pages, func(p page) bool { return p.name == name }) {
			return fmt.Errorf("pages[%d] %q is none of metrics, cadvisor, resource, probes", i, name)
		}
		if slices.Contains(c.Pages[:i], name) {
			return fmt.Errorf("pages[%d] %q is there twice: remove one", i, name)
		}
	}
	if len(c.Pages) == 0 && c.SummaryInterval == 0 {
		return errors.New("pages is empty and summary_interval is 0, so nothing is asked: set enabled to false")
	}
	if len(c.Drop) > maxDrop {
		return fmt.Errorf("drop has %d entries, and at most %d are read: join some with |", len(c.Drop), maxDrop)
	}
	for i, d := range c.Drop {
		if d == "" {
			return fmt.Errorf("drop[%d] is empty: write a regular expression such as container_spec_.*, or remove it", i)
		}
		if _, err := c.drops(Metrics); err != nil {
			return err
		}
	}
	return nil
}

var variable = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// base returns the kubelet's address without a path.
func (c Config) base() (*url.URL, error) {
	address := c.URL
	if address == "" {
		host := "127.0.0.1"
		for _, name := range []string{"NODE_IP", "HOST_IP"} {
			if v := os.Getenv(name); v != "" {
				host = v
				break
			}
		}
		address = "https://" + net.JoinHostPort(host, port)
	}
	var missing string
	address = variable.ReplaceAllStringFunc(address, func(s string) string {
		name := variable.FindStringSubmatch(s)[1]
		v := os.Getenv(name)
		if v == "" {
			missing = name
		}
		if ip, err := netip.ParseAddr(v); err == nil && ip.Is6() {
			return "[" + v + "]"
		}
		return v
	})
	if missing != "" {
		return nil, fmt.Errorf("url %q: the environment has no %s: set it (in a pod by fieldRef status.hostIP), or write the address", c.URL, missing)
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("url is not an address: %w", err)
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("url %q must begin with https:// (or http:// for the read-only port)", u.Redacted())
	case u.Hostname() == "":
		return nil, fmt.Errorf("url %q names no host: write it as https://host:%s", u.Redacted(), port)
	case u.User != nil:
		return nil, errors.New("url must not hold a name or password: use token_file, or cert_file and key_file")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("url %q must end with the port: the pages are added to it", u.Redacted())
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	u.Path = ""
	return u, nil
}

// Kubelet is the kubelet of this node.
type Kubelet struct {
	cfg    Config
	node   string
	base   *url.URL
	http   promconfig.HTTPClientConfig
	client *http.Client
	log    *slog.Logger
	to     Append

	count   func(page, result string)
	leftOut *metrics.Counter

	mu   sync.Mutex
	said map[string]string // page to the message told last; guarded by mu
}

// Append takes the series of one poll. The extra labels are those of all of
// them.
type Append func(t time.Time, extra []metric.Label, fams []metric.Family) error

// New prepares the kubelet of the node of that name. The series of each poll go
// to the function; it may be nil where Run is not called. Files that the
// configuration names must exist, except for the service account's, which are
// left out where they do not.
func New(cfg Config, node string, to Append, log *slog.Logger, set *metrics.Set) (*Kubelet, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	base, err := cfg.base()
	if err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	if cfg.TokenFile == accountToken && !exists(cfg.TokenFile) {
		cfg.TokenFile = ""
	}
	if cfg.CAFile == accountCA && !exists(cfg.CAFile) {
		cfg.CAFile = ""
	}
	for _, f := range []struct{ key, file string }{
		{"token_file", cfg.TokenFile}, {"ca_file", cfg.CAFile}, {"cert_file", cfg.CertFile}, {"key_file", cfg.KeyFile},
	} {
		if f.file == "" {
			continue
		}
		if _, err := os.Stat(f.file); err != nil {
			return nil, fmt.Errorf("kubelet: %w", ops.Remedy(fmt.Errorf("%s: %w", f.key, err)))
		}
	}
	k := &Kubelet{cfg: cfg, node: node, base: base, http: cfg.client(base), log: log, to: to, said: map[string]string{}}
	k.client, err = promconfig.NewClientFromConfig(k.http, "kubelet", promconfig.WithIdleConnTimeout(2*maxInterval))
	if err != nil {
		return nil, fmt.Errorf("kubelet: ca_file, cert_file or key_file: %w", err)
	}
	k.client.Timeout = cfg.Timeout
	k.leftOut = set.GetOrCreateCounter(metric.KubeletPodsLeft)
	for _, result := range []string{"ok", "unreachable", "unauthorized", "forbidden", "failed"} {
		set.GetOrCreateCounter(fmt.Sprintf("%s{page=%q,result=%q}", metric.KubeletRequests, pathSummary, result)) // at 0 from here on
	}
	k.count = func(page, result string) {
		set.GetOrCreateCounter(fmt.Sprintf("%s{page=%q,result=%q}", metric.KubeletRequests, page, result)).Inc()
	}
	return k, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return file != "" && !errors.Is(err, fs.ErrNotExist)
}

// client is how both the scraper and we ask.
func (c Config) client(base *url.URL) promconfig.HTTPClientConfig {
	h := promconfig.DefaultHTTPClientConfig
	h.FollowRedirects = false // the kubelet sends nobody on, and a token must not follow
	if base.Scheme == "http" {
		return h
	}
	h.TLSConfig = promconfig.TLSConfig{
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify,
	}
	if c.TokenFile != "" {
		h.Authorization = &promconfig.Authorization{Type: "Bearer", CredentialsFile: c.TokenFile}
	}
	return h
}

// instance is the address and port, as it is where Prometheus finds the kubelet
// through the API server. A loopback address would be the same on all nodes:
// there it is the node's name and the port.
func (k *Kubelet) instance() string {
	host := k.base.Hostname()
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return net.JoinHostPort(k.node, k.base.Port())
	}
	return k.base.Host
}

// labels are those of everything that comes from one path.
func (k *Kubelet) labels(path string) map[string]string {
	return map[string]string{"job": jobName, "instance": k.instance(), "metrics_path": path, "node": k.node}
}

// Jobs returns one scrape job for each page. The jobs differ in name, as the
// scraper wants it; their series all have job="kubelet".
func (k *Kubelet) Jobs() ([]scrape.Job, error) {
	var jobs []scrape.Job
	for _, p := range pages {
		if !slices.Contains(k.cfg.Pages, p.name) {
			continue
		}
		drops, err := k.cfg.drops(p.name)
		if err != nil {
			return nil, fmt.Errorf("kubelet: %w", err)
		}
		sc := config.DefaultScrapeConfig
		sc.JobName = jobName + p.path
		sc.HonorLabels = true // namespace, pod and container are those of what is measured
		sc.HonorTimestamps = p.timestamps
		sc.Scheme, sc.MetricsPath = k.base.Scheme, p.path
		sc.ScrapeInterval, sc.ScrapeTimeout = model.Duration(k.cfg.Interval), model.Duration(k.cfg.Timeout)
		sc.BodySizeLimit, sc.SampleLimit = maxPage, maxSamples
		sc.HTTPClientConfig = k.http
		sc.MetricRelabelConfigs = drops
		sc.EnableCompression = false // on the same node it costs more than it saves
		// What is left at zero, the scraper fills in: a copy is checked.
		filled := sc
		if err := filled.Validate(config.DefaultGlobalConfig); err != nil {
			return nil, fmt.Errorf("kubelet: page %s: %w", p.name, err)
		}
		group := &targetgroup.Group{
			Source:  sc.JobName,
			Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(k.base.Host)}},
			Labels:  model.LabelSet{},
		}
		for name, value := range k.labels(p.path) {
			group.Labels[model.LabelName(name)] = model.LabelValue(value)
		}
		jobs = append(jobs, scrape.Job{Config: &sc, Groups: []*targetgroup.Group{group}})
	}
	return jobs, nil
}

// Run polls the summary until the context ends, and tells in the log when what
// the kubelet answers changes. Pages are the scraper's; of those configured it
// asks the smallest, so that a right that is lacking is told in words.
func (k *Kubelet) Run(ctx context.Context) error {
	defer k.client.CloseIdleConnections()
	every := k.cfg.SummaryInterval
	if every == 0 {
		every = maxInterval // the pages' rights alone
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		k.poll(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// smallest is the page of those configured that costs the least to ask; false
// where there is none.
func (c Config) smallest() (page, bool) {
	for _, name := range bySize {
		if slices.Contains(c.Pages, name) {
			return pages[slices.IndexFunc(pages, func(p page) bool { return p.name == name })], true
		}
	}
	return page{}, false
}

// poll asks once.
func (k *Kubelet) poll(ctx context.Context, now time.Time) {
	if p, ok := k.cfg.smallest(); ok {
		_, err := k.ask(ctx, p.path, false)
		k.tell(ctx, p.path, err)
	}
	if k.cfg.SummaryInterval == 0 {
		return
	}
	fams, err := k.summary(ctx)
	up := 1.0
	if err != nil {
		up = 0
	}
	if ctx.Err() != nil {
		return // what is cut short by our own end says nothing of the kubelet
	}
	fams = append(fams, metric.Family{Name: metric.KubeletSummaryUp, Type: metric.Gauge, Series: []metric.Series{{Value: up}}})
	metric.Describe(fams)
	var extra []metric.Label
	for name, value := range k.labels(pathSummary) {
		extra = append(extra, metric.Label{Name: name, Value: value})
	}
	metric.SortLabels(extra)
	if appendErr := k.to(now, extra, fams); appendErr != nil && err == nil {
		err = fmt.Errorf("queue the summary of pods: %w", appendErr)
	}
	k.tell(ctx, pathSummary, err)
}

// summary asks for the summary of pods.
func (k *Kubelet) summary(ctx context.Context) ([]metric.Family, error) {
	body, err := k.ask(ctx, pathSummary, true)
	if err != nil {
		return nil, err
	}
	fams, left, err := parseSummary(body)
	k.leftOut.Add(left)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", k.base, pathSummary, err)
	}
	return fams, nil
}

// Problem is a page that cannot be had, and why.
type Problem struct {
	Path string
	Err  error
}

// Check asks each page of the configuration once, without reading more than
// needed, and returns those that cannot be had, for people who want to know
// before they start the agent.
func (k *Kubelet) Check(ctx context.Context) []Problem {
	defer k.client.CloseIdleConnections()
	var found []Problem
	for _, p := range pages {
		if !slices.Contains(k.cfg.Pages, p.name) {
			continue
		}
		if _, err := k.ask(ctx, p.path, false); err != nil {
			found = append(found, Problem{p.path, err})
		}
	}
	if k.cfg.SummaryInterval != 0 {
		if _, err := k.summary(ctx); err != nil {
			found = append(found, Problem{pathSummary, err})
		}
	}
	return found
}

// tell says in the log what changed about a page since it was told last.
func (k *Kubelet) tell(ctx context.Context, page string, err error) {
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.said[page]
	switch {
	case err == nil && before != "":
		delete(k.said, page)
		k.log.Info("the kubelet gives its page again", "page", page)
	case err != nil && before != err.Error():
		k.said[page] = err.Error()
		k.log.Warn("the kubelet does not give a page", "page", page, "error", strings.TrimSpace(err.Error()))
	}
}
