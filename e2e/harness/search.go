package harness

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nines/e2e/parts"
)

// nobody runs Elasticsearch where the test is root, which the server refuses to
// be. It is a bare number without an entry among the users: nothing on the host
// belongs to it.
const nobody = 63210

// SearchConfig is what tests vary of a search server. Its zero value is a
// server without security on plain HTTP.
type SearchConfig struct {
	// Settings are lines of the server's file beside those that are fixed here.
	Settings map[string]string
	// User and Password turn security on, with this superuser (Elasticsearch).
	User, Password string
	// TLS serves HTTPS with a certificate of an authority of the test's own
	// (Elasticsearch, with security).
	TLS bool
}

// Search is a running Elasticsearch or OpenSearch of one node with 1 GiB of
// heap. Killed and started again it has the same port, and its data.
type Search struct {
	*Process
	URL    string
	CAFile string // of the authority, empty without TLS

	config   SearchConfig
	client   *http.Client
	settings map[string]string
	file     string // of the settings
}

// Elasticsearch starts one without security.
func (l *Lab) Elasticsearch() *Search {
	l.t.Helper()
	return l.ElasticsearchWith(SearchConfig{})
}

// ElasticsearchWith starts one.
func (l *Lab) ElasticsearchWith(c SearchConfig) *Search {
	l.t.Helper()
	java, err := javaInPath()
	if err != nil {
		l.t.Fatalf("elasticsearch: %v", err)
	}
	settings := map[string]string{
		"xpack.security.enabled": strconv.FormatBool(c.User != ""),
		// A shared host's disk may be fuller than the defaults like.
		"cluster.routing.allocation.disk.threshold_enabled": "false",
	}
	maps.Copy(settings, c.Settings)
	s := l.searchServer("elasticsearch", l.part(parts.Elasticsearch), c)
	if c.User != "" {
		// Without it the node wants TLS between nodes, of which there is one.
		settings["xpack.security.transport.ssl.enabled"] = "false"
		s.prepare = func(config string, env []string) error {
			return runAs(nobody, env, filepath.Join(s.home, "bin", "elasticsearch-users"), "useradd", c.User, "-p", c.Password, "-r", "superuser")
		}
	}
	if c.TLS {
		settings["xpack.security.http.ssl.enabled"] = "true"
		settings["xpack.security.http.ssl.certificate"] = "http.crt"
		settings["xpack.security.http.ssl.key"] = "http.key"
	}
	s.env = []string{"ES_JAVA_HOME=" + java, "ES_JAVA_OPTS=-Xms1g -Xmx1g", "ES_PATH_CONF=" + s.folder("config"), "ES_TMPDIR=" + s.folder("tmp")}
	return s.start("bin/elasticsearch", settings)
}

// OpenSearch starts one; it has no security, which is a plug-in there.
func (l *Lab) OpenSearch(c SearchConfig) *Search {
	l.t.Helper()
	java, err := l.newJava()
	if err != nil {
		l.t.Fatalf("opensearch: %v", err)
	}
	settings := map[string]string{"cluster.routing.allocation.disk.threshold_enabled": "false"}
	maps.Copy(settings, c.Settings)
	s := l.searchServer("opensearch", l.part(parts.OpenSearch), c)
	s.env = []string{"OPENSEARCH_JAVA_HOME=" + java, "OPENSEARCH_JAVA_OPTS=-Xms1g -Xmx1g", "OPENSEARCH_PATH_CONF=" + s.folder("config"), "OPENSEARCH_TMPDIR=" + s.folder("tmp")}
	if err := s.adaptTo(java); err != nil {
		l.t.Fatalf("opensearch: %v", err)
	}
	return s.start("bin/opensearch", settings)
}

// vectorModule is what OpenSearch asks the Java for: it makes vectors faster and
// is no part of a Java that was made small.
const vectorModule = "jdk.incubator.vector"

// adaptTo takes out of the server's options what the Java does not have.
func (s *searchServer) adaptTo(java string) error {
	modules, err := Run(filepath.Join(java, "bin", "java"), "--list-modules")
	if err != nil || strings.Contains(string(modules), vectorModule) {
		return err
	}
	file := filepath.Join(s.folder("config"), "jvm.options")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, vectorModule) {
			kept.WriteString(line)
		}
	}
	// It is a link into the cache.
	if err := os.Remove(file); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(kept.String()), 0o644)
}

// searchServer is one that is not started yet.
type searchServer struct {
	lab        *Lab
	name, home string
	config     SearchConfig
	env        []string
	prepare    func(config string, env []string) error // nil: nothing to do
}

func (l *Lab) searchServer(name, part string, c SearchConfig) *searchServer {
	l.t.Helper()
	s := &searchServer{lab: l, name: name, config: c}
	// The cache may lie in a home folder that only its owner can enter.
	s.home = filepath.Join(s.folder("."), "home")
	if err := linkTree(part, s.home); err != nil {
		l.t.Fatalf("%s: %v", name, err)
	}
	if err := linkTree(filepath.Join(s.home, "config"), s.folder("config")); err != nil {
		l.t.Fatalf("%s: %v", name, err)
	}
	return s
}

func (s *searchServer) folder(name string) string { return s.lab.Dir(s.name, name) }

func (s *searchServer) start(program string, settings map[string]string) *Search {
	l := s.lab
	l.t.Helper()
	port := l.Port()
	for key, value := range map[string]string{
		"cluster.name": "nines-e2e", "discovery.type": "single-node", "network.host": "127.0.0.1",
		"http.port": strconv.Itoa(port), "transport.port": strconv.Itoa(l.Port()),
		"path.data": s.folder("data"), "path.logs": s.folder("logs"),
	} {
		settings[key] = cmp.Or(settings[key], value)
	}
	out := &Search{
		URL: fmt.Sprintf("http://127.0.0.1:%d", port), config: s.config,
		settings: settings, file: filepath.Join(s.folder("config"), s.name+".yml"),
	}
	if err := out.Set(nil); err != nil {
		l.t.Fatalf("%s: %v", s.name, err)
	}
	transport := &http.Transport{DisableKeepAlives: true} // as client has it
	if s.config.TLS {
		ca, err := writeAuthority(s.folder("config"))
		if err != nil {
			l.t.Fatalf("%s: %v", s.name, err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		out.URL = fmt.Sprintf("https://127.0.0.1:%d", port)
		out.CAFile = l.Write("ca.pem", string(ca))
	}
	out.client = &http.Client{Timeout: time.Minute, Transport: transport}
	if os.Geteuid() == 0 {
		// OpenSearch writes what its garbage collector does to home/logs.
		for _, name := range []string{"config", "data", "logs", "tmp", "home/logs"} {
			if err := os.Chown(s.folder(name), nobody, nobody); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	env := append(s.env, "HOME="+s.folder("tmp"))
	if s.prepare != nil {
		if err := s.prepare(s.folder("config"), env); err != nil {
			l.t.Fatalf("%s: %v", s.name, err)
		}
	}
	out.Process = l.Start(Command{
		Name: s.name, Path: filepath.Join(s.home, filepath.FromSlash(program)), Dir: s.home, UID: nobody, Env: env,
		Ready: out.ready, ReadyIn: 4 * time.Minute,
	})
	return out
}

// Set changes settings of the server's file, which it reads when it starts.
func (s *Search) Set(settings map[string]string) error {
	maps.Copy(s.settings, settings)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s.settings)) {
		fmt.Fprintf(&text, "%s: %q\n", key, s.settings[key])
	}
	// The first one is a link into the cache.
	if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(s.file, []byte(text.String()), 0o644)
}

func (s *Search) ready() error {
	var health struct{ Status string }
	if err := s.Ask(http.MethodGet, "/_cluster/health", nil, &health); err != nil {
		return err
	}
	if health.Status != "green" && health.Status != "yellow" {
		return fmt.Errorf("the cluster is %q", health.Status)
	}
	return nil
}

// Ask sends a request, with a body of JSON where it is not nil, and decodes the
// answer into the last argument where that is not nil. An answer other than
// 2xx is an error.
func (s *Search) Ask(method, path string, body, answer any) (err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.config.User != "" {
		req.SetBasicAuth(s.config.User, s.config.Password)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(data[:min(len(data), 500)])))
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s %s: %w in %.200s", method, path, err, data)
	}
	return nil
}

// Count returns how many documents can be found by now; streams that do not
// exist count nothing.
func (s *Search) Count(streams string) (int, error) {
	if err := s.Ask(http.MethodPost, "/"+streams+"/_refresh", nil, nil); err != nil && !strings.Contains(err.Error(), "404") {
		return 0, err
	}
	var answer struct{ Count int }
	err := s.Ask(http.MethodGet, "/"+streams+"/_count?allow_no_indices=true&ignore_unavailable=true", nil, &answer)
	return answer.Count, err
}

// Hit is a document as it is stored. Index is the backing index of its stream.
type Hit struct {
	Index  string          `json:"_index"`
	ID     string          `json:"_id"`
	Source json.RawMessage `json:"_source"`
}

// Every reads all documents, of each the named fields, or all where none is named.
func (s *Search) Every(streams string, fields []string, each func(Hit)) error {
	var page struct {
		ScrollID string `json:"_scroll_id"`
		Shards   struct{ Failed int }
		Hits     struct{ Hits []Hit }
	}
	query := map[string]any{"size": 10_000, "sort": []string{"_doc"}}
	if len(fields) > 0 {
		query["_source"] = fields
	}
	path := "/" + streams + "/_search?scroll=5m"
	var body any = query
	for {
		page.Hits.Hits = nil
		if err := s.Ask(http.MethodPost, path, body, &page); err != nil {
			return err
		}
		if page.Shards.Failed > 0 {
			return fmt.Errorf("%d shards failed", page.Shards.Failed)
		}
		if len(page.Hits.Hits) == 0 {
			return s.Ask(http.MethodDelete, "/_search/scroll", map[string]any{"scroll_id": page.ScrollID}, nil)
		}
		for _, hit := range page.Hits.Hits {
			each(hit)
		}
		path, body = "/_search/scroll", map[string]any{"scroll": "5m", "scroll_id": page.ScrollID}
	}
}

// runAs runs a command to its end, as another user where the test is root.
func runAs(uid uint32, env []string, path string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, out)
	}
	return nil
}

// javaInPath finds the folder of the Java that stands in the path:
// Elasticsearch 8.19 runs on 17 or later.
func javaInPath() (string, error) {
	path, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("it needs Java 17 or later in the path: %w", err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(path)), nil
}

// openSearchJava is the oldest Java that OpenSearch 3 runs on.
const openSearchJava = 21

// newJava finds the folder of a Java for OpenSearch: the one that
// OPENSEARCH_JAVA_HOME names, else the newest of those that the system has,
// else one that comes as a part.
func (l *Lab) newJava() (string, error) {
	if home := os.Getenv("OPENSEARCH_JAVA_HOME"); home != "" {
		return home, nil
	}
	best, newest := "", openSearchJava-1
	homes, err := filepath.Glob("/usr/lib/jvm/*")
	if err != nil {
		return "", err
	}
	for _, home := range homes {
		if v := javaVersion(home); v > newest {
			best, newest = home, v
		}
	}
	if best == "" {
		home := filepath.Join(l.Dir("java"), "home")
		return home, linkTree(l.part(parts.Java), home) // as for the servers
	}
	return best, nil
}

// javaVersion is the first number of a Java's version as its file "release"
// says it, 0 where there is none.
func javaVersion(home string) int {
	if _, err := os.Stat(filepath.Join(home, "bin", "java")); err != nil {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(home, "release"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), `JAVA_VERSION="`)
	n, err := strconv.Atoi(rest[:max(0, strings.IndexAny(rest, `."`))])
	if err != nil {
		return 0
	}
	return n
}
