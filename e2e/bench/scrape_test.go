//go:build e2e

package bench

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nines/e2e/harness"
	"nines/e2e/parts"
)

// pages are targets of a node: each serves a page of counters that rise, as
// programs serve it.
type pages struct {
	targets, series int
	reads           atomic.Int64
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := p.reads.Add(1)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	var b strings.Builder
	for f := range p.series / 20 {
		fmt.Fprintf(&b, "# HELP app_requests_%d_total Requests of kind %d that were answered.\n# TYPE app_requests_%d_total counter\n", f, f, f)
		for i := range 20 {
			fmt.Fprintf(&b, "app_requests_%d_total{method=%q,path=\"/api/v1/resource/%d\",code=%q} %d\n", f, []string{"GET", "POST"}[i%2], i/4, []string{"200", "500"}[i/2%2], n*int64(7+i))
		}
	}
	_, _ = fmt.Fprint(w, b.String()) // who asked may be gone
}

// start serves all targets on one port, as paths, and returns their addresses.
func (p *pages) start(t *testing.T, lab *harness.Lab) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lab.Port()))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p}
	done := make(chan error, 1) // the goroutine below puts one in
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-done); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("targets: %v", err)
		}
	})
	return listener.Addr().String()
}

// scrapeConfigs are the same targets for both. Each has an instance of its own.
func (p *pages) scrapeConfigs(address string) string {
	var b strings.Builder
	for i := range p.targets {
		fmt.Fprintf(&b, "- job_name: app-%[1]d\n  metrics_path: /%[1]d\n  static_configs: [{targets: [%[2]q], labels: {pod: app-%[1]d, namespace: shop}}]\n", i, address)
	}
	return b.String()
}

// collectMetrics measures the agent against node_exporter and vmagent, which
// scrapes it, with the same targets beside it, all at the same time.
func collectMetrics(t *testing.T) []row {
	// With the node's own some 5,000 series.
	app := &pages{targets: 20, series: 200}
	const span = 150 * time.Second
	lab := harness.New(t)
	address := app.start(t, lab)
	oursSink, theirSink := startSink(t, lab), startSink(t, harness.New(t))
	agent := lab.Agent(harness.AgentConfig{
		Cluster: "bench", Node: benchNode, Interval: 15 * time.Second, SendTo: "http://" + oursSink,
		Metrics: "scrape:\n  configs:\n" + indent(app.scrapeConfigs(address), "  "),
	})
	exporter := startNodeExporter(t, lab)
	scraper := startVMAgent(t, lab, theirSink, fmt.Sprintf("global: {scrape_interval: 15s}\nscrape_configs:\n- job_name: node\n  static_configs: [{targets: [%q]}]\n%s",
		exporter.address, app.scrapeConfigs(address)))
	lab.Until(time.Now().Add(45*time.Second), "all settle")
	us, node, vm := watch(t, agent.PID()), watch(t, exporter.PID()), watch(t, scraper.PID())
	ourFirst, _, _ := received(oursSink)
	theirFirst, _, _ := received(theirSink)
	begun := time.Now()
	lab.Eventually(span+time.Minute, "the time is over", func() error {
		for _, u := range []*used{us, node, vm} {
			u.look(t)
		}
		if left := span - time.Since(begun); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	ourLast, _, err := received(oursSink)
	theirLast, _, err2 := received(theirSink)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun).Seconds()
	rate := func(n int64) float64 { return float64(n) / took * 15 }
	ours, theirs := us.cpu(t), node.cpu(t)+vm.cpu(t)
	theirMemory := node.rss + vm.rss
	lab.Say("ours %v, %.1f MiB (own %.1f); node_exporter %v, %.1f MiB; vmagent %v, %.1f MiB (own %.1f)", ours, us.rss, us.anon, node.cpu(t), node.rss, vm.cpu(t), vm.rss, vm.anon)
	if rate(ourLast-ourFirst) < 4000 || rate(theirLast-theirFirst) < 4000 {
		t.Errorf("samples in 15 s: ours %.0f, theirs %.0f", rate(ourLast-ourFirst), rate(theirLast-theirFirst))
	}
	figure := fmt.Sprintf("node and %d targets each 15 s: %.0f series ours, %.0f theirs: ", app.targets, rate(ourLast-ourFirst), rate(theirLast-theirFirst))
	peer := "node_exporter and vmagent: "
	return []row{
		{figure + "CPU", fmt.Sprintf("%.2f ms a second", ours.Seconds()*1000/took), peer + fmt.Sprintf("%.2f", theirs.Seconds()*1000/took), fmt.Sprintf("%.2f", ours.Seconds()/theirs.Seconds()), "at most 0.7"},
		{figure + "resident at most", fmt.Sprintf("%.0f MiB", us.rss), peer + fmt.Sprintf("%.0f", theirMemory), fmt.Sprintf("%.2f", us.rss/theirMemory), "at most 0.8"},
	}
}

// collectBesideLogs measures the memory of an agent that does both.
func collectBesideLogs(t *testing.T) []row {
	app := &pages{targets: 20, series: 200}
	lab := harness.New(t)
	address, sink := app.start(t, lab), startSink(t, lab)
	both := shipper{"agent with metrics and logs", false, func(t *testing.T, lab *harness.Lab, f logFolder, logs string) *harness.Process {
		return lab.Agent(harness.AgentConfig{
			Cluster: "bench", Node: benchNode, Interval: 15 * time.Second, SendTo: "http://" + sink, Env: []string{"KUBECONFIG=" + f.kube.start(t, lab)},
			Metrics: "scrape:\n  configs:\n" + indent(app.scrapeConfigs(address), "  "),
			Logs:    fmt.Sprintf("sources: [{type: kubernetes, root: %q}]\ndestination: {elasticsearch: {urls: [%q]}}\n", f.root, "http://"+logs),
		}).Process
	}}
	w, rss, anon, _ := steadily(t, both, 10_000, 60*time.Second)
	samples, _, err := received(sink)
	if err != nil || samples < 10_000 {
		t.Errorf("%d samples were received: %v", samples, err)
	}
	return []row{{
		figure: "node, 20 targets and 10,000 log lines a second: resident at most, from the start on", ours: fmt.Sprintf("%.0f MiB (peak %.0f), %.0f of them its own, %.3f core", rss, w.peak, anon, w.cpu.Seconds()/w.took.Seconds()), goal: "at most 96 MiB",
	}}
}

// used is what a process takes while it is watched.
type used struct {
	pid       int
	before    time.Duration
	rss, anon float64 // MiB, at most
}

func watch(t *testing.T, pid int) *used { return &used{pid: pid, before: cpuExact(t, pid)} }

func (u *used) look(t *testing.T) {
	u.rss, u.anon = max(u.rss, memory(t, u.pid, "VmRSS")), max(u.anon, memory(t, u.pid, "RssAnon"))
}

func (u *used) cpu(t *testing.T) time.Duration { return cpuExact(t, u.pid) - u.before }

func indent(text, by string) (out string) {
	for line := range strings.Lines(text) {
		out += by + line
	}
	return out
}

type exporterProcess struct {
	*harness.Process
	address string
}

func startNodeExporter(t *testing.T, lab *harness.Lab) exporterProcess {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	return exporterProcess{lab.Start(harness.Command{
		Name: "node_exporter", Path: filepath.Join(part(t, lab, parts.NodeExporter), "node_exporter"), Dir: lab.Dir("node_exporter"),
		Args:  []string{"--web.listen-address=" + address},
		Ready: func() error { _, err := harness.Get("http://" + address + "/"); return err },
	}), address}
}

func startVMAgent(t *testing.T, lab *harness.Lab, sink, config string) *harness.Process {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	return lab.Start(harness.Command{
		Name: "vmagent", Path: filepath.Join(part(t, lab, parts.VMAgent), "vmagent"), Dir: lab.Dir("vmagent-scrapes"),
		Args: []string{
			"-httpListenAddr=" + listen, "-promscrape.config=" + lab.Write("vmagent.yaml", config),
			"-remoteWrite.url=http://" + sink + "/write", "-remoteWrite.forcePromProto", "-remoteWrite.tmpDataPath=" + lab.Dir("vmagent-queue"),
		},
		Ready: func() error { _, err := harness.Get("http://" + listen + "/health"); return err },
	})
}
