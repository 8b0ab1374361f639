package probe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/pkg/strictyaml"
)

// decode reads a file of the agent that holds the configuration below probes.
func decode(t *testing.T, text string) (Config, error) {
	t.Helper()
	file := struct {
		Probes Config `yaml:"probes"`
	}{DefaultConfig()}
	err := strictyaml.Decode("agent.yaml", []byte(text), &file)
	return file.Probes, err
}

func TestModulesOfBlackboxAreDecodedByItsOwnRules(t *testing.T) {
	cfg, err := decode(t, `
probes:
  interval: 30s
  modules:
    api:
      prober: http
      timeout: 3s
      http:
        valid_status_codes: [200, 204]
        fail_if_body_not_matches_regexp: ["ok"]
        basic_auth: {username: u, password: p}
        tls_config: {insecure_skip_verify: true}
    dns: {prober: dns, dns: {query_name: example.org, query_type: A}}
  targets:
    - {target: "http://127.0.0.1:1/", module: api}
    - {target: "127.0.0.1:53", module: dns, interval: 1m, timeout: 2s, name: resolver, labels: {team: net}}
`)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	api := cfg.Modules["api"]
	if !api.HTTP.IPProtocolFallback || !api.HTTP.HTTPClientConfig.FollowRedirects {
		t.Errorf("defaults of blackbox_exporter do not hold: %+v", api.HTTP)
	}
	if api.HTTP.HTTPClientConfig.BasicAuth == nil || !api.HTTP.HTTPClientConfig.TLSConfig.InsecureSkipVerify {
		t.Errorf("keys of the HTTP client are not read: %+v", api.HTTP.HTTPClientConfig)
	}
	if got := cfg.Modules["dns"].DNS.QueryName; got != "example.org" {
		t.Errorf("a module of the user does not replace the default one: it asks for %q", got)
	}
	if got := bounded(api).HTTP.BodySizeLimit; got != maxBody {
		t.Errorf("a body that is matched may have %d bytes, want %d", got, maxBody)
	}
	if got := cfg.timeout(cfg.Targets[0]); got != 3*time.Second {
		t.Errorf("the time-out is %v, want the module's 3s", got)
	}
	if got := cfg.timeout(cfg.Targets[1]); got != 2*time.Second {
		t.Errorf("the time-out is %v, want the target's 2s", got)
	}
	// The next decoding begins with the defaults again.
	if fresh := DefaultConfig().Modules; fresh["dns"].DNS.QueryName != "." || len(fresh) == len(cfg.Modules) {
		t.Errorf("the defaults were changed: %v", slices.Sorted(maps.Keys(fresh)))
	}
}

func TestUsualModulesAreThereWithoutConfiguration(t *testing.T) {
	cfg := DefaultConfig()
	for module, address := range map[string]string{
		"http_2xx": "https://example.org/x", "tcp_connect": "a:1", "tls_connect": "a:443", "icmp": "127.0.0.1", "dns": "1.1.1.1", "grpc": "a:1", "grpc_plain": "a:1",
	} {
		cfg.Targets = append(cfg.Targets, Target{Module: module, Target: address})
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestModulesWithoutAValueAreTheDefaultOnes(t *testing.T) {
	cfg, err := decode(t, "probes:\n  modules:\n  targets: [{target: a}]\n")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, nil, quiet, metrics.NewSet())
	if err != nil {
		t.Fatal(err)
	}
	if p.targets[0].module.Prober != "http" {
		t.Errorf("the target is probed by %q", p.targets[0].module.Prober)
	}
}

func TestMistakesInModulesAreToldAtTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {`
probes:
  modules:
    a:
      prober: http
      http:
        valid_status_codes: [200]
        valid_statuses: [200]
`, "agent.yaml:8:9: modules.a: field valid_statuses not found"},
		"unknown key in a flow": {`
probes:
  modules:
    a: {prober: http, http: {methud: GET}}
`, "agent.yaml:4:29: modules.a: field methud not found"},
		"wrong type": {`
probes:
  modules:
    a:
      prober: tcp
      timeout: soon
`, "agent.yaml:6:7: modules.a: cannot unmarshal"},
		"question": {`
probes:
  modules:
    a:
      prober: dns
      dns: {query_type: NOSUCH, query_name: x}
`, "agent.yaml:5:7: modules.a: query type 'NOSUCH' is not valid"},
		"twice": {`
probes:
  modules:
    a: {prober: tcp}
    a: {prober: icmp}
`, `agent.yaml:5:5: module "a" is given twice`},
		"list": {`
probes:
  modules: [a]
`, "agent.yaml:3:12: modules: want names with modules"},
		"aliases": {`
probes:
  modules:
    a:
      prober: http
      http:
        headers: &a {a: b}
        valid_http_versions: [ *a, *a]
`, "agent.yaml:8:30: modules.a: cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(t, c.text)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s…", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "config.") {
				t.Errorf("the message names a type of Go: %v", err)
			}
		})
	}
}

func TestAliasesThatMultiplyAreRefused(t *testing.T) {
	text := "probes:\n  modules:\n    a:\n      prober: http\n      http:\n        x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
	for i := 1; i < 6; i++ {
		text += fmt.Sprintf("        x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 10), ", "))
	}
	_, err := decode(t, text)
	if err == nil || !strings.Contains(err.Error(), "aliases multiply") {
		t.Errorf("got %v", err)
	}
}

func TestValidateNamesFieldAndRemedy(t *testing.T) {
	with := func(targets ...Target) Config {
		c := DefaultConfig()
		c.Targets = targets
		return c
	}
	for want, cfg := range map[string]Config{
		"interval is 100ms: choose from 1s to 5m0s": {Interval: 100 * time.Millisecond, Job: "x"},
		"job is empty": {Interval: time.Second},
		"concurrent is 1001: choose from 1 to 1000":                                      {Interval: time.Second, Job: "x", Concurrent: 1001},
		"targets has 1001 entries, at most 1000":                                         with(make([]Target, 1001)...),
		`targets[0].module "htpp" is not known; there are dns, dns_cluster, grpc`:        with(Target{Module: "htpp", Target: "x"}),
		"targets[0].target is empty":                                                     with(Target{}),
		"targets[0].target \"http://u:xxxxx@h/\" holds a password":                       with(Target{Target: "http://u:secret@h/"}),
		"targets[0].target: address h: missing port in address: write it as host:port":   with(Target{Target: "h", Module: "tcp_connect"}),
		`targets[0].target "h:1": a ping goes to a host alone`:                           with(Target{Target: "h:1", Module: "icmp"}),
		`targets[0].target "udp://h": name the DNS server`:                               with(Target{Target: "udp://h", Module: "dns"}),
		"targets[1].timeout is 15s and must be at least 500ms below the interval of 15s": with(Target{Target: "a"}, Target{Target: "b", Timeout: 15 * time.Second}),
		"targets[0].timeout is 2m0s: choose up to 1m0s":                                  with(Target{Target: "a", Interval: 5 * time.Minute, Timeout: 2 * time.Minute}),
		"targets[0].interval is 6m0s: choose from":                                       with(Target{Target: "a", Interval: 6 * time.Minute}),
		"targets[1].target is the same as targets[0].target":                             with(Target{Target: "a"}, Target{Target: "a", Module: "http_2xx"}),
		`targets[0].labels has "a-b", which is no name`:                                  with(Target{Target: "a", Labels: map[string]string{"a-b": "c"}}),
		`targets[0].labels has "__x": names that begin`:                                  with(Target{Target: "a", Labels: map[string]string{"__x": "c"}}),
		`targets[0].labels has "instance", which is made of`:                             with(Target{Target: "a", Labels: map[string]string{"instance": "c"}}),
		`targets[0].labels has "node", which the agent puts`:                             with(Target{Target: "a", Labels: map[string]string{"node": "c"}}),
		`modules.m.prober is "smtp"; there are dns, grpc, http, icmp, tcp, unix`:         {Interval: time.Second, Job: "x", Modules: Modules{"m": {Prober: "smtp"}}},
		"modules.m.dns is missing: give query_name":                                      {Interval: time.Second, Job: "x", Modules: Modules{"m": {Prober: "dns"}}},
	} {
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s…", err, want)
		}
	}
	two := with(Target{Target: "a"}, Target{Target: "a", Module: "icmp"}, Target{Target: "a", Name: "b"})
	if err := two.Validate(); err != nil {
		t.Errorf("one address with two modules, or two names, is two targets: %v", err)
	}
}

func FuzzModules(f *testing.F) {
	f.Add("a: {prober: http, http: {valid_status_codes: [200]}}")
	f.Add("a: &x {prober: tcp, tcp: {query_response: [{expect: 'x'}]}}\nb: *x")
	f.Add("a: {<<: {prober: icmp}}")
	f.Fuzz(func(t *testing.T, text string) {
		cfg := DefaultConfig()
		if err := strictyaml.Decode("agent.yaml", []byte("modules:\n  "+strings.ReplaceAll(text, "\n", "\n  ")), &cfg); err != nil {
			return
		}
		if err := cfg.Validate(); err == nil && len(cfg.Modules.orDefault()) < len(defaultModules()) {
			t.Errorf("default modules are lost: %v", slices.Sorted(maps.Keys(cfg.Modules)))
		}
	})
}
