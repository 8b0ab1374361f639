//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
	"nines/pkg/metric"
)

// numbered appends lines to a file of the lab and returns its path.
func numbered(t *testing.T, lab *harness.Lab, name, format string, from, to int) string {
	t.Helper()
	path := filepath.Join(lab.Dir("app"), name)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for n := from; n < to; n++ {
		fmt.Fprintf(&text, format+"\n", n)
	}
	if _, err := f.Write(text.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// arrive waits until so many documents are there, and wants no more.
func arrive(t *testing.T, lab *harness.Lab, s *harness.Search, streams string, want int) {
	t.Helper()
	lab.Eventually(2*time.Minute, "the records arrive", func() error {
		n, err := s.Count(streams)
		if err == nil && n != want {
			err = fmt.Errorf("%d of %d are stored", n, want)
		}
		return err
	})
}

// figureIs waits until a sum of series has a value.
func figureIs(t *testing.T, lab *harness.Lab, a *harness.Agent, want float64, name string, labels ...string) {
	t.Helper()
	lab.Eventually(2*time.Minute, name, func() error {
		f, err := a.Figures()
		if err != nil {
			return err
		}
		if got, found := f.Sum(name, labels...); !found || got != want {
			return fmt.Errorf("%s %v is %v (%v), want %v", name, labels, got, found, want)
		}
		return nil
	})
}

// heldBecause waits until the agent says that records wait for somebody, and why.
func heldBecause(t *testing.T, lab *harness.Lab, a *harness.Agent, why string) {
	t.Helper()
	figureIs(t, lab, a, 1, metric.LogHeld)
	out, err := harness.Run(lab.Program("nines-agent"), "status", "--server", a.URL)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(why).Match(out) {
		t.Errorf("the status does not say %q:\n%s", why, out)
	}
}

// balanced wants an account that adds up, with nothing on its way, and a status
// that people and programs can read.
func balanced(t *testing.T, lab *harness.Lab, a *harness.Agent) {
	t.Helper()
	lab.Eventually(time.Minute, "nothing is on its way", func() error {
		f, err := a.Figures()
		if err != nil {
			return err
		}
		if flying, _ := f.Sum(metric.LogRecords, `state="in_flight"`); flying > 0 {
			return fmt.Errorf("%.0f records are", flying)
		}
		return nil
	})
	if broken, err := harness.Balance(a); err != nil || len(broken) > 0 {
		t.Errorf("the account: %q, %v", broken, err)
	}
	out, err := harness.Run(lab.Program("nines-agent"), "status", "--server", a.URL, "--format", "json")
	if err != nil || !json.Valid(out) {
		t.Errorf("status as JSON: %v\n%.300s", err, out)
	}
	if out, err = harness.Run(lab.Program("nines-agent"), "status", "--server", a.URL); err != nil || !strings.Contains(string(out), "stored") {
		t.Errorf("status: %v\n%.300s", err, out)
	}
}

func TestLogsReachAnElasticsearchWithSecurityOnceThePasswordIsRight(t *testing.T) {
	t.Parallel()
	const lines, user, password = 500, "nines", "a long secret"
	lab := harness.New(t)
	es := lab.ElasticsearchWith(harness.SearchConfig{User: user, Password: password, TLS: true})
	secret := lab.Write("password", "not "+password+"\n")
	path := numbered(t, lab, "app.log", "line %06d", 0, lines)
	agent := lab.Agent(harness.AgentConfig{Logs: fmt.Sprintf(`sources: [{type: files, paths: [%q]}]
destination: {elasticsearch: {urls: [%q], username: %s, password_file: %q, ca_file: %q}}
`, path, es.URL, user, secret, es.CAFile)})
	heldBecause(t, lab, agent, "401")
	if n, err := es.Count(allStreams); err != nil || n > 0 {
		t.Errorf("%d are stored with a wrong password (%v)", n, err)
	}
	pid := agent.PID()
	lab.Write("password", password+"\n")
	arrive(t, lab, es, allStreams, lines)
	figureIs(t, lab, agent, 0, metric.LogHeld)
	balanced(t, lab, agent)
	if agent.PID() != pid {
		t.Error("the agent was started again")
	}
	// Another authority's certificate is not trusted.
	other := harness.New(t)
	stranger := other.Agent(harness.AgentConfig{Logs: fmt.Sprintf(`sources: [{type: files, paths: [%q]}]
destination: {elasticsearch: {urls: [%q], username: %s, password_file: %q}}
`, path, es.URL, user, secret)})
	heldBecause(t, other, stranger, "ca_file")
	stranger.Stop()
	agent.Stop()
}

func TestLogsReachAnOpenSearch(t *testing.T) {
	t.Parallel()
	const lines = 500
	lab := harness.New(t)
	server := lab.OpenSearch(harness.SearchConfig{})
	path := numbered(t, lab, "app.log", "line %06d", 0, lines)
	agent := lab.Agent(harness.AgentConfig{Logs: fmt.Sprintf(`sources: [{type: files, paths: [%q]}]
destination: {elasticsearch: {urls: [%q], retention: 30d}}
`, path, server.URL)})
	arrive(t, lab, server, allStreams, lines)
	balanced(t, lab, agent)
	// It has no life cycle of data streams; the agent says so, and goes on.
	if log := agent.Log(); !regexp.MustCompile(`(?i)level=warn[^\n]*(retention|life ?cycle)`).MatchString(log) {
		t.Errorf("the agent does not say that it could not set up the retention:\n%s", log)
	}
	// A second start finds its template.
	agent.Stop()
	numbered(t, lab, "app.log", "line %06d", lines, 2*lines)
	agent.Start()
	arrive(t, lab, server, allStreams, 2*lines)
	figureIs(t, lab, agent, 2*lines, metric.LogRecords, `state="stored"`)
	agent.Stop()
}

func TestLogsWaitWhileElasticsearchIsTooBusy(t *testing.T) {
	t.Parallel()
	const lines = 2000
	lab := harness.New(t)
	es := lab.ElasticsearchWith(harness.SearchConfig{Settings: map[string]string{"indexing_pressure.memory.limit": "1kb"}})
	path := numbered(t, lab, "app.log", "line %06d", 0, lines)
	agent := lab.Agent(harness.AgentConfig{Paths: []string{path}, Elasticsearch: es.URL})
	lab.Eventually(time.Minute, "requests are refused", func() error {
		f, err := agent.Figures()
		if err != nil {
			return err
		}
		if n, _ := f.Sum(metric.LogRequests, `result="retried"`); n < 3 {
			return fmt.Errorf("%.0f were", n)
		}
		return nil
	})
	figureIs(t, lab, agent, 0, metric.LogRecords, `state="dead_lettered"`)
	es.Kill()
	if err := es.Set(map[string]string{"indexing_pressure.memory.limit": "10%"}); err != nil {
		t.Fatal(err)
	}
	es.Start()
	arrive(t, lab, es, allStreams, lines)
	figureIs(t, lab, agent, lines, metric.LogRecords, `state="stored"`)
	balanced(t, lab, agent)
	agent.Stop()
}

// One server for what needs no settings of its own.
func TestLogsOfOneElasticsearch(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	es := lab.Elasticsearch()
	t.Run("a destination that is down holds up no other", func(t *testing.T) { routes(t, es) })
	t.Run("a dead letter is stored after the mapping was mended", func(t *testing.T) { deadLetters(t, es) })
	t.Run("a full disk holds records until it is not", func(t *testing.T) { fullDisk(t, lab, es) })
}

func routes(t *testing.T, es *harness.Search) {
	const lines = 500
	lab := harness.New(t)
	proxy := lab.FaultProxy(es.URL, 1)
	proxy.Set(harness.Plan{Kinds: []harness.Fault{harness.ResetBefore}, Share: 1})
	both := numbered(t, lab, "both.log", "both %06d", 0, lines)
	kept := numbered(t, lab, "kept.log", "kept %06d", 0, lines)
	archive := lab.Dir("archive")
	agent := lab.Agent(harness.AgentConfig{Cluster: "routes", Logs: fmt.Sprintf(`sources:
- {type: files, paths: [%q]}
- {type: files, paths: [%q], to: [archive]}
destinations:
- {name: search, elasticsearch: {urls: [%q]}}
- {name: archive, files: {directory: %q}}
`, both, kept, proxy.URL, archive)})
	figureIs(t, lab, agent, 2*lines, metric.LogRecords, `destination="archive"`, `state="stored"`)
	figureIs(t, lab, agent, 0, metric.LogRecords, `destination="search"`, `state="stored"`)
	archived := 0
	files, err := filepath.Glob(filepath.Join(archive, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		archived += bytes.Count(data, []byte(`"both `)) + bytes.Count(data, []byte(`"kept `))
	}
	if archived != 2*lines {
		t.Errorf("%d records are in the archive %v", archived, files)
	}
	proxy.Set(harness.Plan{})
	arrive(t, lab, es, "logs-*-routes", lines)
	figureIs(t, lab, agent, lines, metric.LogRecords, `destination="search"`, `state="stored"`)
	if err := es.Every("logs-*-routes", []string{"message"}, func(h harness.Hit) {
		if !bytes.Contains(h.Source, []byte(`"both `)) {
			t.Errorf("%s went the wrong way", h.Source)
		}
	}); err != nil {
		t.Error(err)
	}
	balanced(t, lab, agent)
	agent.Stop()
}

func deadLetters(t *testing.T, es *harness.Search) {
	const good, bad = 300, 200
	const streams = "logs-nines.files-mapping"
	lab := harness.New(t)
	// Someone's template, above ours, says that messages are numbers.
	template := func(message string) {
		t.Helper()
		err := es.Ask(http.MethodPut, "/_index_template/somebody", map[string]any{
			"index_patterns": []string{streams + "*"}, "priority": 900, "data_stream": map[string]any{},
			"template": map[string]any{"mappings": map[string]any{"properties": map[string]any{"message": map[string]any{"type": message}}}},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	template("long")
	path := numbered(t, lab, "app.log", "%06d", 0, good/2)
	numbered(t, lab, "app.log", "line %06d", 0, bad)
	numbered(t, lab, "app.log", "%06d", good/2, good)
	agent := lab.Agent(harness.AgentConfig{Cluster: "mapping", Paths: []string{path}, Elasticsearch: es.URL})
	figureIs(t, lab, agent, bad, metric.LogRecords, `state="dead_lettered"`)
	figureIs(t, lab, agent, good, metric.LogRecords, `state="stored"`)
	arrive(t, lab, es, streams, good)
	balanced(t, lab, agent)
	redrive := func() string {
		t.Helper()
		out, err := harness.Run(lab.Program("nines-agent"), "redrive", "--server", agent.URL)
		if err != nil {
			t.Logf("redrive: %v", err)
		}
		return string(out)
	}
	// Before anything was mended they stay what they are.
	t.Logf("redrive before the fix: %s", redrive())
	figureIs(t, lab, agent, bad, metric.LogRecords, `state="dead_lettered"`)
	template("text")
	if err := es.Ask(http.MethodPost, "/"+streams+"/_rollover", nil, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("redrive after the fix: %s", redrive())
	arrive(t, lab, es, streams, good+bad)
	figureIs(t, lab, agent, bad, metric.LogRedrivenRecords)
	figureIs(t, lab, agent, good+bad, metric.LogRecords, `state="stored"`)
	figureIs(t, lab, agent, 0, metric.LogRecords, `state="dead_lettered"`)
	balanced(t, lab, agent)
	agent.Stop()
}

func fullDisk(t *testing.T, serverLab *harness.Lab, es *harness.Search) {
	const lines = 200
	const streams = "logs-nines.files-disk"
	lab := harness.New(t)
	path := numbered(t, lab, "app.log", "line %06d", 0, lines)
	agent := lab.Agent(harness.AgentConfig{Cluster: "disk", Paths: []string{path}, Elasticsearch: es.URL})
	arrive(t, lab, es, streams, lines)
	const prefix = "cluster.routing.allocation.disk."
	set := func(full bool) {
		t.Helper()
		settings := map[string]any{prefix + "threshold_enabled": full, "cluster.info.update.interval": "10s"}
		for _, mark := range []string{"low", "high", "flood_stage"} {
			settings[prefix+"watermark."+mark] = nil
			if full {
				// Of the disk that is free; no disk has as much.
				settings[prefix+"watermark."+mark] = "1000000gb"
			}
		}
		if err := es.Ask(http.MethodPut, "/_cluster/settings", map[string]any{"persistent": settings}, nil); err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	serverLab.Eventually(2*time.Minute, "the server says that its disk is full", func() error {
		var answer map[string]any
		if err := es.Ask(http.MethodGet, "/"+streams+"/_settings?filter_path=*.settings.index.blocks", nil, &answer); err != nil {
			return err
		}
		if len(answer) == 0 {
			return fmt.Errorf("it takes documents")
		}
		return nil
	})
	numbered(t, lab, "app.log", "line %06d", lines, 2*lines)
	heldBecause(t, lab, agent, "(?i)flood|disk|read-only|cluster_block")
	figureIs(t, lab, agent, lines, metric.LogRecords, `state="stored"`)
	set(false)
	arrive(t, lab, es, streams, 2*lines)
	figureIs(t, lab, agent, 0, metric.LogHeld)
	figureIs(t, lab, agent, 0, metric.LogRecords, `state="dead_lettered"`)
	balanced(t, lab, agent)
	agent.Stop()
}
