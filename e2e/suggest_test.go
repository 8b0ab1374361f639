//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
	"nines/e2e/parts"
)

// prometheus starts the real one on blocks of history.
func prometheus(t *testing.T, lab *harness.Lab, data string) (url string, process *harness.Process) {
	t.Helper()
	dir, err := parts.Get(context.Background(), parts.Prometheus, func(line string) { lab.Say("%s", line) })
	if err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	url = "http://" + listen
	process = lab.Start(harness.Command{
		Name: "prometheus", Path: filepath.Join(dir, "prometheus"), Dir: lab.Dir("prometheus"),
		Args: []string{
			"--config.file=" + lab.Write("prometheus/prometheus.yml", "global: {scrape_interval: 1m}\n"), "--storage.tsdb.path=" + data,
			"--storage.tsdb.retention.time=20d", "--web.listen-address=" + listen,
		},
		Ready: func() error { _, err := harness.Get(url + "/-/ready"); return err },
	})
	return url, process
}

// From two weeks of a real Prometheus to drafts that check accepts, that say
// what was counted, and whose history is booked from the same server.
func TestSuggestDraftsFromPrometheus(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	const days = 15
	end := time.Now().Add(-time.Minute).Truncate(time.Minute)
	begin := end.Add(-days * 24 * time.Hour)
	series := []struct {
		family, series string
		perMinute      float64
	}{
		{"nginx_ingress_controller_requests", `{job="ingress",namespace="prod",service="checkout",ingress="web",status="200"}`, 599.5},
		{"nginx_ingress_controller_requests", `{job="ingress",namespace="prod",service="checkout",ingress="web",status="503"}`, 0.5},
		{"nginx_ingress_controller_request_duration_seconds_bucket", `{job="ingress",namespace="prod",service="checkout",le="0.1"}`, 540},
		{"nginx_ingress_controller_request_duration_seconds_bucket", `{job="ingress",namespace="prod",service="checkout",le="0.5"}`, 597.6},
		{"nginx_ingress_controller_request_duration_seconds_bucket", `{job="ingress",namespace="prod",service="checkout",le="+Inf"}`, 600},
		{"nginx_ingress_controller_request_duration_seconds_count", `{job="ingress",namespace="prod",service="checkout"}`, 600},
	}
	var text strings.Builder
	family := ""
	for _, s := range series {
		if s.family != family {
			family = s.family
			fmt.Fprintf(&text, "# TYPE %s unknown\n", family)
		}
		for n := 0; n <= days*1440; n++ {
			fmt.Fprintf(&text, "%s%s %.1f %d\n", s.family, s.series, s.perMinute*float64(n), begin.Add(time.Duration(n)*time.Minute).Unix())
		}
	}
	text.WriteString("# EOF\n")
	blocks := lab.Dir("blocks")
	if _, err := lab.Promtool("tsdb", "create-blocks-from", "openmetrics", lab.Write("history.txt", text.String()), blocks); err != nil {
		t.Fatal(err)
	}
	server, process := prometheus(t, lab, blocks)
	drafts := lab.Dir("drafts")
	suggest := func(more ...string) ([]byte, error) {
		return harness.Run(lab.Program("nines-aggregator"), append([]string{"suggest", "--server", server, "--out", drafts}, more...)...)
	}
	if _, err := suggest(); err != nil {
		t.Fatal(err)
	}
	if _, err := suggest(); err == nil || !strings.Contains(err.Error(), "is there already, and nothing was written") {
		t.Errorf("drafts that are there are overwritten: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(drafts, "prod-checkout.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	draft := strings.ReplaceAll(string(data), "\n#", "")
	for _, want := range []string{
		`sum(rate(nginx_ingress_controller_requests{namespace="prod",service="checkout",status!~"5.."}[5m]))`,
		`sum(rate(nginx_ingress_controller_request_duration_seconds_bucket{namespace="prod",service="checkout",le="0.5"}[5m]))`,
		"without failure, target: 0.999}", "within 500 ms, target: 0.995}", "Why 99.9 %: of 120", "Budget: of about 259",
	} {
		if !strings.Contains(draft, want) {
			t.Errorf("%s is not in\n%s", want, data)
		}
	}

	check := func(what ...string) string {
		t.Helper()
		out, err := harness.Run(lab.Program("nines-aggregator"), append([]string{"check", drafts}, what...)...)
		if err != nil {
			t.Errorf("check %v: %v", what, err)
		}
		return string(out)
	}
	if out := check(); out != "2 objectives, no errors\n" {
		t.Errorf("check finds\n%s", out)
	}
	// The server keeps 20 days; the period is 30.
	if out := check("--server", server); strings.Count(out, ": warning [retention]: the period is 30 days, and "+server+" keeps samples for 20 days") != 2 || strings.Count(out, "warning") != 2 {
		t.Errorf("check --server finds\n%s", out)
	}
	lab.Write("wrong/wrong.yaml", strings.Replace(shopSLO, "shop_requests_total[5m]", "nginx_ingress_controller_request[5m]", 1))
	out, err := harness.Run(lab.Program("nines-aggregator"), "check", lab.Dir("wrong"), "--server", server)
	if err == nil || !strings.Contains(string(out)+err.Error(), "near are nginx_ingress_controller_requests") {
		t.Errorf("check of a name that is nearly right: %v: %s", err, out)
	}
	process.Stop()
}
