package scrape

import (
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/relabel"

	"nines/pkg/metric"
)

// program is a real client of the Prometheus library with one of everything.
func program(t *testing.T) *httptest.Server {
	t.Helper()
	reg := prometheus.NewRegistry()
	requests := prometheus.NewCounter(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."})
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "classic_seconds", Help: "Classic.", Buckets: []float64{1, 2}})
	both := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "both_seconds", Help: "Both.", Buckets: []float64{1, 2}, NativeHistogramBucketFactor: 1.1})
	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "native_seconds", Help: "Native.", NativeHistogramBucketFactor: 1.1})
	summary := prometheus.NewSummary(prometheus.SummaryOpts{Name: "size_bytes", Help: "Size.", Objectives: map[float64]float64{0.5: 0.05}})
	level := prometheus.NewGauge(prometheus.GaugeOpts{Name: "level", Help: "Level."})
	reg.MustRegister(requests, classic, both, native, summary, level)
	requests.(prometheus.ExemplarAdder).AddWithExemplar(3, prometheus.Labels{"trace": "abc"})
	classic.Observe(1.5)
	both.Observe(1.5)
	native.Observe(1.5)
	native.Observe(2.5)
	summary.Observe(7)
	level.Set(-1)
	srv := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		EnableOpenMetrics: true, EnableOpenMetricsTextCreatedSamples: true,
	}))
	t.Cleanup(srv.Close)
	return srv
}

// address is host:port of a server's URL.
func address(url string) string { return url[strings.Index(url, "//")+2:] }

// one runs a scraper with a single job until up is told, and returns it with
// what up said, at rest: what is counted and logged follows the commit.
func one(t *testing.T, cfg Config, j Job) (*bench, float64) {
	t.Helper()
	b := start(t, cfg, nil)
	b.give("pods", j)
	var v float64
	b.sink.wait(t, "up", func(all []taken) bool {
		u := named(all, "up")
		if len(u) > 0 {
			v = u[0].v
		}
		return len(u) > 0
	})
	b.stop()
	return b, v
}

func mustUp(t *testing.T, b *bench, v float64) {
	t.Helper()
	if v != 1 {
		t.Fatalf("the target is down:\n%s", b.logs)
	}
}

// mustDown checks a failed scrape: no sample but those about it, and a reason.
func mustDown(t *testing.T, b *bench, v float64, reason string) {
	t.Helper()
	if v != 0 {
		t.Fatal("the target is up")
	}
	for _, s := range b.sink.all() {
		name := s.ls.Get("__name__")
		if name != "up" && !strings.HasPrefix(name, "scrape_") && !s.stale() {
			t.Errorf("sample %s of a scrape that failed", s)
		}
	}
	b.stop()
	if !strings.Contains(b.logs.String(), reason) {
		t.Errorf("the log does not say %q:\n%s", reason, b.logs)
	}
	if got := b.own(`nines_agent_scrapes_total{owner="pods",result="failed"}`); got != "1" {
		t.Errorf("failed scrapes: %s", got)
	}
}

func only(t *testing.T, b *bench, name string) taken {
	t.Helper()
	s := b.sink.of(name)
	if len(s) != 1 {
		t.Fatalf("%d samples of %s, want 1: %v", len(s), name, s)
	}
	return s[0]
}

func TestProgramIsReadWholeInEachFormat(t *testing.T) {
	srv := program(t)
	began := time.Now().Add(-time.Minute).UnixMilli()
	for _, protocol := range []config.ScrapeProtocol{"", config.PrometheusProto, config.OpenMetricsText1_0_0, config.PrometheusText0_0_4} {
		t.Run(string(protocol), func(t *testing.T) {
			j := jobOf("prog", time.Hour, address(srv.URL))
			if protocol != "" {
				j.Config.ScrapeProtocols = []config.ScrapeProtocol{protocol}
			}
			b, v := one(t, DefaultConfig(), j)
			mustUp(t, b, v)
			c := only(t, b, "requests_total")
			if c.v != 3 || c.opts.Metadata.Type != model.MetricTypeCounter || c.opts.Metadata.Help != "Requests." {
				t.Errorf("counter %v with %+v", c.v, c.opts.Metadata)
			}
			modern := protocol != config.PrometheusText0_0_4
			if started := c.st > began; started != modern {
				t.Errorf("start timestamp %d", c.st)
			}
			if (len(c.exemplars) == 1 && c.exemplars[0].Labels.Get("trace") == "abc") != modern {
				t.Errorf("exemplars %v", c.exemplars)
			}
			for _, name := range []string{"classic_seconds", "both_seconds"} {
				if n := len(b.sink.of(name + "_bucket")); n != 3 {
					t.Errorf("%d buckets of %s, want 3", n, name)
				}
				if s := only(t, b, name+"_count"); s.v != 1 || s.opts.MetricFamilyName != name || s.opts.Metadata.Type != model.MetricTypeHistogram {
					t.Errorf("%s_count: %v %+v", name, s.v, s.opts)
				}
			}
			if s := only(t, b, "size_bytes_sum"); s.v != 7 || s.opts.Metadata.Type != model.MetricTypeSummary {
				t.Errorf("summary: %v %+v", s.v, s.opts)
			}
			if s := only(t, b, "level"); s.v != -1 || s.st != 0 {
				t.Errorf("gauge: %v since %d", s.v, s.st)
			}
			if s := only(t, b, "up"); s.opts.MetricFamilyName != "up" || s.opts.Metadata.Type != model.MetricTypeGauge {
				t.Errorf("up carries %+v", s.opts)
			}
			scraped := only(t, b, "scrape_samples_scraped").v
			if after := only(t, b, "scrape_samples_post_metric_relabeling").v; after != scraped || scraped < 15 {
				t.Errorf("scraped %v, after relabelling %v", scraped, after)
			}
			if added := only(t, b, "scrape_series_added").v; added != scraped {
				t.Errorf("series added %v of %v", added, scraped)
			}
			if only(t, b, "scrape_duration_seconds").v <= 0 {
				t.Error("a scrape took no time")
			}
			if n := len(b.sink.of("scrape_timeout_seconds")); n != 0 {
				t.Error("there are extra metrics that nobody asked for")
			}
			if got := b.own(`nines_agent_scrape_samples_total{owner="pods"}`); got != fmt.Sprint(scraped) {
				t.Errorf("our own count of samples is %s, want %v", got, scraped)
			}
		})
	}
}

func TestNativeHistogramsAreReadWhereTheyAreAskedFor(t *testing.T) {
	srv := program(t)
	cfg := DefaultConfig()
	cfg.NativeHistograms = true
	b, v := one(t, cfg, jobOf("prog", time.Hour, address(srv.URL)))
	mustUp(t, b, v)
	s := only(t, b, "native_seconds")
	if s.h == nil || s.h.Count != 2 || s.h.Sum != 4 || s.h.Schema < 0 {
		t.Errorf("native histogram %+v", s.h)
	}
	if s := only(t, b, "both_seconds"); s.h == nil {
		t.Error("a histogram in both forms is not read in its native one")
	}
	if len(b.sink.of("both_seconds_bucket")) != 0 {
		t.Error("a histogram in both forms is read twice")
	}
	if len(b.sink.of("classic_seconds_bucket")) != 3 {
		t.Error("a classic histogram is not read")
	}
	page := b.page()
	for _, want := range []string{"# TYPE native_seconds histogram\n", "\nnative_seconds_sum{", "\nnative_seconds_count{", "\nboth_seconds_count{"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestHistogramThatIsReadInBothFormsStandsOnThePageOnce(t *testing.T) {
	srv := program(t)
	j := jobOf("prog", time.Hour, address(srv.URL))
	on := true
	j.Config.ScrapeNativeHistograms, j.Config.AlwaysScrapeClassicHistograms = &on, &on
	b, v := one(t, DefaultConfig(), j)
	mustUp(t, b, v)
	if only(t, b, "both_seconds").h == nil || len(b.sink.of("both_seconds_bucket")) != 3 {
		t.Error("it is not read in both forms")
	}
	if n := strings.Count(b.page(), "\nboth_seconds_count{"); n != 1 {
		t.Errorf("it stands there %d times:\n%s", n, b.page())
	}
}

func TestClassicHistogramsAreConvertedWhereTheJobSaysSo(t *testing.T) {
	srv := program(t)
	cfg := decode(t, fmt.Sprintf("scrape: {configs: [{job_name: prog, scrape_interval: 1h, convert_classic_histograms_to_nhcb: true, extra_scrape_metrics: true, static_configs: [{targets: [%q]}]}]}", address(srv.URL)))
	b := start(t, cfg, nil)
	b.sink.wait(t, "up", func(all []taken) bool { return len(named(all, "up")) > 0 })
	s := only(t, b, "classic_seconds")
	if s.h == nil || !s.h.UsesCustomBuckets() || s.h.Count != 1 {
		t.Errorf("classic histogram became %+v", s.h)
	}
	if len(b.sink.of("classic_seconds_bucket")) != 0 {
		t.Error("the classic buckets are there, too")
	}
	if s := only(t, b, "scrape_timeout_seconds"); s.v != 10 {
		t.Errorf("extra metric: timeout %v", s.v)
	}
	if s := only(t, b, "scrape_sample_limit"); s.v != sampleLimit {
		t.Errorf("extra metric: limit %v", s.v)
	}
}

func TestCertificateOfAnotherAuthorityMakesTheTargetDown(t *testing.T) {
	srv := httptest.NewUnstartedServer(&text{page: "x 1\n"})
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	j := func(tls commonconfig.TLSConfig) Job {
		j := jobOf("tls", time.Hour, address(srv.URL))
		j.Config.Scheme = "https"
		j.Config.HTTPClientConfig.TLSConfig = tls
		return j
	}
	b, v := one(t, DefaultConfig(), j(commonconfig.TLSConfig{}))
	mustDown(t, b, v, "certificate")

	b, v = one(t, DefaultConfig(), j(commonconfig.TLSConfig{CAFile: ca}))
	mustUp(t, b, v)
	if only(t, b, "x").v != 1 {
		t.Error("the page is not read with the right authority")
	}

	err := b.Set("pods", []Job{j(commonconfig.TLSConfig{CAFile: "/nowhere/ca.pem"})})
	if err == nil || !strings.Contains(err.Error(), `job "tls" of pods`) || !strings.Contains(err.Error(), "/nowhere/ca.pem") {
		t.Errorf("authority that is not there: %v", err)
	}
}

func TestCredentialsOfTheJobAreSent(t *testing.T) {
	page := &text{page: "x 1\n"}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user == "u" && password == "p" || r.Header.Get("Authorization") == "Bearer t" {
			page.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer srv.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(*commonconfig.HTTPClientConfig){
		"basic": func(c *commonconfig.HTTPClientConfig) {
			c.BasicAuth = &commonconfig.BasicAuth{Username: "u", Password: "p"}
		},
		"bearer": func(c *commonconfig.HTTPClientConfig) {
			c.Authorization = &commonconfig.Authorization{Credentials: "t"}
		},
		"bearer file": func(c *commonconfig.HTTPClientConfig) {
			c.Authorization = &commonconfig.Authorization{CredentialsFile: token}
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := jobOf("auth", time.Hour, address(srv.URL))
			set(&j.Config.HTTPClientConfig)
			b, v := one(t, DefaultConfig(), j)
			mustUp(t, b, v)
			only(t, b, "x")
		})
	}
	b, v := one(t, DefaultConfig(), jobOf("auth", time.Hour, address(srv.URL)))
	mustDown(t, b, v, "401 Unauthorized")
}

func TestPageBeyondALimitFailsTheScrapeAndIsCounted(t *testing.T) {
	long := &text{page: "a 1\nb 2\nc 3\nd{long_label_name=\"long label value\"} 4\n"}
	srv := httptest.NewServer(long)
	defer srv.Close()
	for _, c := range []struct {
		limit, reason string
		set           func(*config.ScrapeConfig)
	}{
		{"samples", "sample limit exceeded", func(c *config.ScrapeConfig) { c.SampleLimit = 3 }},
		{"body", "body size limit exceeded", func(c *config.ScrapeConfig) { c.BodySizeLimit = 20 }},
		{"labels", "label_limit exceeded", func(c *config.ScrapeConfig) { c.LabelLimit = 3 }},
		{"labels", "label_name_length_limit exceeded", func(c *config.ScrapeConfig) { c.LabelNameLengthLimit = 14 }},
		{"labels", "label_value_length_limit exceeded", func(c *config.ScrapeConfig) { c.LabelValueLengthLimit = 15; c.JobName = "l" }},
	} {
		t.Run(c.reason, func(t *testing.T) {
			j := jobOf("limit", time.Hour, address(srv.URL))
			c.set(j.Config)
			b := start(t, DefaultConfig(), nil)
			j.Groups[0].Labels = model.LabelSet{"instance": "i"}
			b.give("pods", j)
			b.sink.wait(t, "up", func(all []taken) bool { return len(named(all, "up")) > 0 })
			mustDown(t, b, b.sink.of("up")[0].v, c.reason)
			if got := b.own(fmt.Sprintf(`nines_agent_scrape_limits_exceeded_total{limit=%q}`, c.limit)); got != "1" {
				t.Errorf("counted %s times", got)
			}
			if n := b.table.size(); n != 5 {
				t.Errorf("%d series are kept of a scrape that failed, want the 5 about it", n)
			}
		})
	}
}

func TestNoPageIsWithoutALimit(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		for i := range sampleLimit + 1 {
			fmt.Fprintf(w, "x{i=\"%d\"} 1\n", i)
		}
	}))
	defer srv.Close()
	b, v := one(t, DefaultConfig(), jobOf("large", time.Hour, address(srv.URL)))
	mustDown(t, b, v, "sample limit exceeded")
	if n := b.table.size(); n != 5 {
		t.Errorf("%d series are kept", n)
	}
}

func TestTargetThatHangsIsDownAfterItsTimeout(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(release)
	j := jobOf("slow", time.Hour, address(srv.URL))
	j.Config.ScrapeTimeout = model.Duration(50 * time.Millisecond)
	b, v := one(t, DefaultConfig(), j)
	mustDown(t, b, v, "context deadline exceeded")
}

func TestPageThatIsNoneMakesTheTargetDown(t *testing.T) {
	for name, c := range map[string]struct{ kind, page, reason string }{
		"garbage":         {"text/plain; version=0.0.4", "x 1\n}{ what\n", "expected"},
		"cut off":         {"text/plain; version=0.0.4", "x 1\ny", "expected"},
		"another kind":    {"text/html", "<html>", "unsupported Content-Type"},
		"no protobuf":     {"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited", "\x05abc", "error"},
		"unfinished open": {"application/openmetrics-text; version=1.0.0", "x 1\n", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.kind)
				io.WriteString(w, c.page)
			}))
			defer srv.Close()
			b, v := one(t, DefaultConfig(), jobOf("bad", time.Hour, address(srv.URL)))
			mustDown(t, b, v, c.reason)
		})
	}
}

func TestLabelsOfThePageStandWhereTheJobHonorsThem(t *testing.T) {
	srv := httptest.NewServer(&text{page: "x{job=\"theirs\"} 1\n"})
	defer srv.Close()
	for honor, want := range map[bool]string{true: "theirs", false: "ours"} {
		j := jobOf("ours", time.Hour, address(srv.URL))
		j.Config.HonorLabels = honor
		b, v := one(t, DefaultConfig(), j)
		mustUp(t, b, v)
		s := only(t, b, "x")
		if s.ls.Get("job") != want {
			t.Errorf("honor %t: %s", honor, s)
		}
		if !honor && s.ls.Get("exported_job") != "theirs" {
			t.Errorf("the page's label is lost: %s", s)
		}
	}
}

func TestTimestampsOfThePageStandUnlessTheJobSaysOtherwise(t *testing.T) {
	at := time.Now().Add(-time.Minute).UnixMilli()
	srv := httptest.NewServer(&text{page: fmt.Sprintf("x 1 %d\ny 1 %d\n", at, at+int64(time.Hour/time.Millisecond))})
	defer srv.Close()
	for _, honor := range []bool{true, false} {
		j := jobOf("t", time.Hour, address(srv.URL))
		j.Config.HonorTimestamps = honor
		b, v := one(t, DefaultConfig(), j)
		mustUp(t, b, v)
		if s := only(t, b, "x"); (s.t == at) != honor {
			t.Errorf("honor %t: sample at %d, page at %d", honor, s.t, at)
		}
		if n := len(b.sink.of("y")); (n == 0) != honor {
			t.Errorf("honor %t: %d samples from an hour ahead", honor, n)
		}
		want := map[bool]string{true: "1", false: "0"}[honor]
		if got := b.own(`nines_agent_scrape_samples_refused_total{reason="out_of_bounds"}`); got != want {
			t.Errorf("honor %t: %s counted as out of bounds", honor, got)
		}
	}
}

func TestRelabellingKeepsDropsAndRenames(t *testing.T) {
	srv := httptest.NewServer(&text{page: "wanted 1\nunwanted 2\n"})
	defer srv.Close()
	rule := func(action relabel.Action, source model.LabelName, regex, target, replacement string) *relabel.Config {
		c := relabel.DefaultRelabelConfig
		c.Action, c.SourceLabels, c.Regex = action, model.LabelNames{source}, relabel.MustNewRegexp(regex)
		if target != "" {
			c.TargetLabel, c.Replacement = target, replacement
		}
		return &c
	}
	j := Job{Config: DefaultJob("j")}
	j.Config.ScrapeInterval = model.Duration(time.Hour)
	j.Config.RelabelConfigs = []*relabel.Config{
		rule(relabel.Keep, "__meta_kind", "good|fine", "", ""),
		rule(relabel.Drop, "__meta_kind", "fine", "", ""),
		rule(relabel.Replace, "__meta_kind", "(.*)", "kind", "is-$1"),
		rule(relabel.Replace, "__meta_kind", "(.*)", "__metrics_path__", "/$1"),
	}
	j.Config.MetricRelabelConfigs = []*relabel.Config{rule(relabel.Drop, "__name__", "unwanted", "", "")}
	g := &targetgroup.Group{}
	for _, kind := range []string{"good", "bad", "fine"} {
		g.Targets = append(g.Targets, model.LabelSet{"__address__": model.LabelValue(address(srv.URL)), "__meta_kind": model.LabelValue(kind)})
	}
	g.Targets = append(g.Targets, model.LabelSet{"__address__": "a b:1", "__meta_kind": "good", "__scrape_interval__": "x"})
	g.Targets = append(g.Targets, model.LabelSet{"__address__": "a:1", "__meta_kind": "good", "__unix_socket__": "/s"})
	j.Groups = []*targetgroup.Group{g}
	b, v := one(t, DefaultConfig(), j)
	mustUp(t, b, v)
	if s := only(t, b, "wanted"); s.ls.Get("kind") != "is-good" || s.ls.Len() != 4 {
		t.Errorf("labels %s", s)
	}
	if n := len(b.sink.of("unwanted")); n != 0 {
		t.Error("a dropped series is there")
	}
	if got := only(t, b, "scrape_samples_post_metric_relabeling").v; got != 1 {
		t.Errorf("%v samples after relabelling", got)
	}
	for state, want := range map[string]string{"up": "1", "dropped": "2", "invalid": "2"} {
		if got := b.own(fmt.Sprintf(`nines_agent_scrape_targets{owner="pods",state=%q}`, state)); got != want {
			t.Errorf("%s: %s, want %s", state, got, want)
		}
	}
	if !strings.Contains(b.logs.String(), "targets are left out") {
		t.Error("the log does not speak of the targets that are invalid")
	}
}

func TestOwnSeriesAreDeclared(t *testing.T) {
	b := start(t, DefaultConfig(), nil)
	var out pageWriter
	b.set.WritePrometheus(&out)
	declared := map[string]bool{}
	for _, d := range []string{
		metric.ScrapeTargets, metric.Scrapes, metric.ScrapeSamples, metric.ScrapesLost, metric.ScrapeLimitsExceeded,
		metric.ScrapeSamplesRefused, metric.ScrapeSeries, metric.ScrapeSeriesUnseen, metric.ScrapePoolsFailed,
	} {
		declared[d] = false
	}
	for line := range strings.Lines(out.String()) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "{")
		if _, ok := declared[name]; !ok {
			t.Errorf("%s is not declared", name)
		}
		declared[name] = true
	}
	for name, seen := range declared {
		if !seen {
			t.Errorf("%s is not there from the start", name)
		}
	}
}
