package kubelet

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/pkg/metric"
)

var update = flag.Bool("update", false, "write the golden files anew")

// polls keeps what Append took.
type polls struct {
	mu    sync.Mutex
	extra []metric.Label
	fams  [][]metric.Family
	err   error
	took  chan struct{} // one token for each poll
}

func (p *polls) append(_ time.Time, extra []metric.Label, fams []metric.Family) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extra, p.fams = extra, append(p.fams, fams)
	if p.took != nil {
		p.took <- struct{}{}
	}
	return p.err
}

func (p *polls) up(t *testing.T) float64 {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.fams[len(p.fams)-1]
	i := slices.IndexFunc(last, func(f metric.Family) bool { return f.Name == metric.KubeletSummaryUp })
	if i < 0 {
		t.Fatal("a poll without nines_kubelet_summary_up")
	}
	return last[i].Series[0].Value
}

func asker(t *testing.T, cfg Config, to Append, log *slog.Logger) (*Kubelet, *metrics.Set) {
	t.Helper()
	set := metrics.NewSet()
	k, err := New(cfg, "node-a", to, log, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.client.CloseIdleConnections)
	return k, set
}

func TestSeriesOfTheRecordedSummaryAreTheGoldenOnes(t *testing.T) {
	fams, left, err := parseSummary(file(t, "summary.json"))
	if err != nil || left != 0 {
		t.Fatal(left, err)
	}
	var got bytes.Buffer
	if err := metric.WriteText(&got, fams); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "summary.txt")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := file(t, "summary.txt"); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the series differ from %s (run with -update, then read the difference):\n%s", golden, got.String())
	}
}

func TestVolumesOfClaimsAreLeftToTheKubeletsOwnPage(t *testing.T) {
	fams, _, err := parseSummary(file(t, "summary.json"))
	if err != nil {
		t.Fatal(err)
	}
	volumes := map[string]bool{}
	for _, f := range fams {
		for _, s := range f.Series {
			for _, l := range s.Labels {
				if l.Name == "volume" {
					volumes[l.Value] = true
				}
			}
		}
	}
	if !maps.Equal(volumes, map[string]bool{"cache": true}) {
		t.Errorf("volumes %v, want cache alone", volumes)
	}
}

func TestNumberThatIsNoneTakesNothingElseWithIt(t *testing.T) {
	fams, left, err := parseSummary([]byte(`{"pods":[{"podRef":{"name":"a","namespace":"n"},"startTime":7,"ephemeral-storage":
		{"usedBytes":-1,"availableBytes":"many","inodes":null,"inodesUsed":1e400,"inodesFree":{"a":[1]},"capacityBytes":18446744073709551615}}]}`))
	if err != nil || left != 0 || len(fams) != 1 || fams[0].Name != "nines_pod_ephemeral_storage_capacity_bytes" || fams[0].Series[0].Value != 18446744073709551615 {
		t.Errorf("got %+v, %d, %v", fams, left, err)
	}
}

func TestOfTwoPodsOfOneNameTheLaterStands(t *testing.T) {
	for _, order := range [][2]int{{1, 2}, {2, 1}} {
		body := `{"pods":[`
		for i, day := range order {
			body += fmt.Sprintf(`%s{"podRef":{"name":"a","namespace":"n"},"startTime":"2026-11-0%dT00:00:00Z","ephemeral-storage":{"usedBytes":%d}}`, strings.Repeat(",", i), day, day)
		}
		fams, _, err := parseSummary([]byte(body + "]}"))
		if err != nil || metric.Count(fams) != 1 || fams[0].Series[0].Value != 2 {
			t.Errorf("order %v: %+v, %v", order, fams, err)
		}
	}
}

func TestPodsBeyondTheBoundAndWithoutNameAreCounted(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"pods":[{"podRef":{"name":"","namespace":"n"}},{"podRef":{"name":"` + strings.Repeat("x", maxName+1) + `","namespace":"n"}}`)
	for i := range maxPods + 3 {
		fmt.Fprintf(&b, `,{"podRef":{"name":"p%d","namespace":"n"},"ephemeral-storage":{"usedBytes":1}}`, i)
	}
	b.WriteString("]}")
	fams, left, err := parseSummary([]byte(b.String()))
	if err != nil || left != 5 || metric.Count(fams) != maxPods {
		t.Errorf("%d samples, %d left out, %v", metric.Count(fams), left, err)
	}
}

func TestPollGivesSeriesWithTheLabelsOfTheKubelet(t *testing.T) {
	f := serve(t)
	var p polls
	k, set := asker(t, f.config(), p.append, quiet)
	k.poll(t.Context(), time.UnixMilli(1))
	if p.up(t) != 1 || metric.Count(p.fams[0]) < 20 {
		t.Errorf("up %v, %d samples", p.up(t), metric.Count(p.fams[0]))
	}
	want := metric.Labels("instance", "node-a:"+k.base.Port(), "job", "kubelet", "metrics_path", "/stats/summary", "node", "node-a")
	if !slices.Equal(p.extra, want) {
		t.Errorf("labels %v, want %v", p.extra, want)
	}
	if n := set.GetOrCreateCounter(metric.KubeletRequests + `{page="/stats/summary",result="ok"}`).Get(); n != 1 {
		t.Errorf("%d requests counted", n)
	}
}

func TestFailedPollLeavesNothingButThatItIsDown(t *testing.T) {
	f := serve(t)
	var p polls
	k, _ := asker(t, f.config(), p.append, quiet)
	for name, change := range map[string]func(){
		"status": func() { f.status = 503 },
		"body":   func() { f.status, f.summary = 0, []byte(`{"pods":[{`) },
		"type":   func() { f.summary = []byte(`{"pods":7}`) },
		"size":   func() { f.summary = append([]byte(`{"pods":[]}`), bytes.Repeat([]byte(" "), maxSummary)...) },
	} {
		f.set(func() { f.status, f.summary = 0, nil })
		f.set(change)
		k.poll(t.Context(), time.UnixMilli(1))
		if p.up(t) != 0 || len(p.fams[len(p.fams)-1]) != 1 {
			t.Errorf("%s: up %v, %d families", name, p.up(t), len(p.fams[len(p.fams)-1]))
		}
	}
}

func TestClientCertificateIsEnoughWithoutAToken(t *testing.T) {
	f := serve(t)
	cfg := f.config()
	cfg.TokenFile = ""
	k, _ := asker(t, cfg, nil, quiet)
	if ps := k.Check(t.Context()); len(ps) != 5 || !strings.Contains(ps[0].Err.Error(), "401") || !strings.Contains(ps[0].Err.Error(), "no token and no client certificate") {
		t.Errorf("without any: %+v", ps)
	}
	cfg.CertFile, cfg.KeyFile = filepath.Join(f.dir, "client.crt"), filepath.Join(f.dir, "client.key")
	k, _ = asker(t, cfg, nil, quiet)
	if ps := k.Check(t.Context()); len(ps) != 0 {
		t.Errorf("with it: %+v", ps)
	}
}

func TestTokenIsReadAnewForEachRequest(t *testing.T) {
	f := serve(t)
	cfg := f.config()
	k, _ := asker(t, cfg, nil, quiet)
	if err := os.WriteFile(cfg.TokenFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ask(t.Context(), pathSummary, true); err == nil || !strings.Contains(err.Error(), "authentication.webhook.enabled") {
		t.Errorf("a wrong token: %v", err)
	}
	if err := os.WriteFile(cfg.TokenFile, []byte("right"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ask(t.Context(), pathSummary, true); err != nil {
		t.Errorf("the right token, later: %v", err)
	}
}

func TestTokenIsNotSentOverPlainHTTP(t *testing.T) {
	var header []string
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = append(header, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	})}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	cfg := serve(t).config()
	cfg.URL = "http://" + l.Addr().String()
	k, _ := asker(t, cfg, nil, quiet)
	_, askErr := k.ask(t.Context(), pathSummary, true)
	if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Fatal(err)
	}
	if !slices.Equal(header, []string{""}) {
		t.Errorf("headers %q", header)
	}
	if askErr == nil || !strings.Contains(askErr.Error(), "never sent over http") {
		t.Errorf("got %v", askErr)
	}
}

func TestRightThatIsLackingIsNamed(t *testing.T) {
	f := serve(t)
	f.set(func() { f.lacking = map[string]bool{"/metrics/probes": true, "/stats/summary": true} })
	k, _ := asker(t, f.config(), nil, quiet)
	ps := k.Check(t.Context())
	if len(ps) != 2 || ps[0].Path != "/metrics/probes" || ps[1].Path != "/stats/summary" {
		t.Fatalf("problems %+v", ps)
	}
	for i, right := range []string{"verb get on the resource nodes/metrics", "verb get on the resource nodes/stats"} {
		if !strings.Contains(ps[i].Err.Error(), right) || !strings.Contains(ps[i].Err.Error(), "403") || !strings.Contains(ps[i].Err.Error(), "user=agent") {
			t.Errorf("%s: %v", ps[i].Path, ps[i].Err)
		}
	}
}

func TestWhatIsWrongWithTheConnectionIsSaidInWords(t *testing.T) {
	f := serve(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"connection was refused":         func(c *Config) { c.URL = "https://" + closed },
		"not signed by ca_file":          func(c *Config) { c.CAFile = "" },
		"set server_name":                func(c *Config) { c.ServerName = "node-b" },
		"it does not know":               func(c *Config) { c.TokenFile, c.CAFile, c.InsecureSkipVerify = "", "", true },
		"Client sent an HTTP request to": func(c *Config) { c.URL = strings.Replace(c.URL, "https", "http", 1) },
	} {
		cfg := f.config()
		change(&cfg)
		k, _ := asker(t, cfg, nil, quiet)
		_, err := k.ask(t.Context(), pathSummary, true)
		want = strings.Replace(want, "it does not know", "does not know who asks", 1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got: %v", want, err)
		}
	}
	cfg := f.config()
	cfg.ServerName = "node-a"
	k, _ := asker(t, cfg, nil, quiet)
	if _, err := k.ask(t.Context(), pathSummary, true); err != nil {
		t.Errorf("the certificate's own name: %v", err)
	}
}

func TestFailureIsToldOnceAndItsEndToo(t *testing.T) {
	f := serve(t)
	var text bytes.Buffer
	var p polls
	k, _ := asker(t, f.config(), p.append, slog.New(slog.NewTextHandler(&text, nil)))
	f.set(func() { f.lacking["/stats/summary"] = true })
	for range 3 {
		k.poll(t.Context(), time.UnixMilli(1))
	}
	if n := strings.Count(text.String(), "nodes/stats"); n != 1 {
		t.Errorf("told %d times:\n%s", n, text.String())
	}
	f.set(func() { f.lacking["/stats/summary"] = false })
	for range 2 {
		k.poll(t.Context(), time.UnixMilli(1))
	}
	if n := strings.Count(text.String(), "again"); n != 1 {
		t.Errorf("its end was told %d times:\n%s", n, text.String())
	}
	p.err = errors.New("queue full")
	k.poll(t.Context(), time.UnixMilli(1))
	if !strings.Contains(text.String(), "queue full") {
		t.Errorf("a full queue was not told:\n%s", text.String())
	}
}

// Guards against asking for a page that is not configured, which an old kubelet
// may not have.
func TestPageThatIsAskedIsTheSmallestOfThoseConfiguredAndNamedTruly(t *testing.T) {
	for _, c := range []struct {
		pages []string
		asks  string // empty: none
	}{
		{[]string{Metrics, CAdvisor, Resource, Probes}, "/metrics/probes"},
		{[]string{Metrics, Resource}, "/metrics/resource"},
		{[]string{CAdvisor, Metrics}, "/metrics"},
		{[]string{CAdvisor}, "/metrics/cadvisor"},
		{nil, ""},
	} {
		f := serve(t)
		var text bytes.Buffer
		var p polls
		cfg := f.config()
		cfg.Pages = c.pages
		k, _ := asker(t, cfg, p.append, slog.New(slog.NewTextHandler(&text, nil)))
		k.poll(t.Context(), time.UnixMilli(1))
		want := map[string]int{"/stats/summary": 1}
		if c.asks != "" {
			want[c.asks] = 1
		}
		f.set(func() {
			if !maps.Equal(f.asked, want) {
				t.Errorf("%v: asked %v, want %v", c.pages, f.asked, want)
			}
			f.lacking = map[string]bool{c.asks: true}
		})
		k.poll(t.Context(), time.UnixMilli(1))
		if n := strings.Count(text.String(), "page="+c.asks+" "); n != len(want)-1 || strings.Count(text.String(), "\n") != n {
			t.Errorf("%v: told\n%s", c.pages, text.String())
		}
	}
}

func TestPageThatIsNotThereIsSwitchedOffByAKeyOfItsOwn(t *testing.T) {
	f := serve(t)
	f.set(func() { f.status = http.StatusNotFound })
	k, _ := asker(t, f.config(), nil, quiet)
	for _, p := range k.Check(t.Context()) {
		remedy := "take it out of pages"
		if p.Path == pathSummary {
			remedy = "set summary_interval to 0"
		}
		if !strings.Contains(p.Err.Error(), remedy) {
			t.Errorf("%s: %v", p.Path, p.Err)
		}
	}
}

func TestRunPollsUntilTheContextEnds(t *testing.T) {
	f := serve(t)
	p := polls{took: make(chan struct{}, 1)}
	cfg := f.config()
	k, _ := asker(t, cfg, p.append, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	<-p.took
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if p.up(t) != 1 {
		t.Error("the first poll failed")
	}
}

func FuzzSummary(f *testing.F) {
	f.Add(file(f, "summary.json"))
	f.Add([]byte(`{"pods":[{"podRef":{"name":"a","namespace":"n"},"containers":[{"name":"c","rootfs":null}],"volume":[{"name":"v","usedBytes":1}]}]}`))
	f.Add([]byte(`{"pods":[null,{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fams, left, err := parseSummary(data)
		if err != nil {
			if fams != nil {
				t.Fatal("families beside an error")
			}
			return
		}
		if left < 0 {
			t.Fatal("less than none left out")
		}
		seen := map[string]bool{}
		for _, fam := range fams {
			if len(fam.Series) == 0 {
				t.Fatalf("%s has no samples", fam.Name)
			}
			for _, s := range fam.Series {
				key := fmt.Sprint(fam.Name, s.Labels)
				if seen[key] || s.Value < 0 || s.Value != s.Value {
					t.Fatalf("twice, or no number: %s %v", key, s.Value)
				}
				seen[key] = true
				if !slices.IsSortedFunc(s.Labels, func(a, b metric.Label) int { return strings.Compare(a.Name, b.Name) }) {
					t.Fatalf("labels are not sorted: %v", s.Labels)
				}
			}
		}
	})
}
