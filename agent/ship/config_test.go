package ship

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/VictoriaMetrics/metrics"
)

func TestElasticsearchConfigNamesTheKeyAndTheRemedy(t *testing.T) {
	ok := []string{"https://one:9200", "http://[::1]:9200/path/"}
	for _, test := range []struct {
		cfg  ElasticsearchConfig
		want string // empty: valid
	}{
		{ElasticsearchConfig{URLs: ok}, ""},
		{ElasticsearchConfig{URLs: ok, Username: "u", PasswordFile: "f"}, ""},
		{ElasticsearchConfig{}, "urls is empty: name at least one address such as https://elasticsearch:9200"},
		{ElasticsearchConfig{URLs: []string{"https://one:9200", "elasticsearch:9200"}}, `urls[1] "elasticsearch:9200" must begin with http:// or https:// and name a host`},
		{ElasticsearchConfig{URLs: []string{""}}, `urls[0] "" must begin with http:// or https:// and name a host`},
		{ElasticsearchConfig{URLs: []string{"https://"}}, `urls[0] "https://" must begin with http:// or https:// and name a host`},
		{ElasticsearchConfig{URLs: []string{"ftp://es"}}, `urls[0] "ftp://es" must begin with http:// or https:// and name a host`},
		{ElasticsearchConfig{URLs: []string{"https://es:port"}}, `urls[0] "https://es:port" must begin with http:// or https:// and name a host`},
		{ElasticsearchConfig{URLs: []string{"https://u:secret@es:9200"}}, "urls[0] holds a password: give it by username and password_file"},
		{ElasticsearchConfig{URLs: []string{"htps://u:secret@es:9200"}}, "urls[0] holds a password: give it by username and password_file"},
		{ElasticsearchConfig{URLs: []string{"https://u:sec ret@es:9200"}}, "urls[0] holds a password: give it by username and password_file"},
		{ElasticsearchConfig{URLs: ok, Username: "u"}, "password_file is empty: name the file with the password of username"},
		{ElasticsearchConfig{URLs: ok, PasswordFile: "f"}, "username is empty: name the user whose password is in password_file"},
		{ElasticsearchConfig{URLs: ok[:1], CertFile: "c", KeyFile: "k", APIKeyFile: "a", Compression: "none", Concurrency: 16, Retention: "30d", DeadLettersSize: 1 << 20}, ""},
		{ElasticsearchConfig{URLs: ok, TokenFile: "t", Compression: "gzip", Concurrency: 1, ILMPolicy: "p"}, ""},
		{ElasticsearchConfig{URLs: ok[:1], CertFile: "c"}, "key_file is empty: name the file with the key of cert_file"},
		{ElasticsearchConfig{URLs: ok[:1], KeyFile: "k"}, "cert_file is empty: name the file with the certificate of key_file"},
		{ElasticsearchConfig{URLs: ok, CertFile: "c", KeyFile: "k"}, "cert_file is of no use without TLS: let all of urls begin with https://"},
		{ElasticsearchConfig{URLs: ok, Username: "u", PasswordFile: "f", APIKeyFile: "a"}, "username and api_key_file are all set: keep one of them"},
		{ElasticsearchConfig{URLs: ok, TokenFile: "t", APIKeyFile: "a"}, "api_key_file and token_file are all set: keep one of them"},
		{ElasticsearchConfig{URLs: ok, Compression: "zstd"}, `compression "zstd" is unknown: write gzip or none`},
		{ElasticsearchConfig{URLs: ok, Concurrency: 17}, "concurrency is 17: write a number from 1 to 16"},
		{ElasticsearchConfig{URLs: ok, Concurrency: -1}, "concurrency is -1: write a number from 1 to 16"},
		{ElasticsearchConfig{URLs: ok, Retention: "30"}, `retention "30" is no span of time: write one such as 30d or 12h, or leave it out to keep records`},
		{ElasticsearchConfig{URLs: ok, Retention: "0d"}, `retention "0d" is no span of time: write one such as 30d or 12h, or leave it out to keep records`},
		{ElasticsearchConfig{URLs: ok, Retention: "30d", ILMPolicy: "p"}, "retention and ilm_policy are both set: keep one, since only one of them removes records"},
		{ElasticsearchConfig{URLs: ok, DeadLettersSize: 1000}, "dead_letters_size is 1000B: give at least 1MiB"},
	} {
		err := test.cfg.Validate()
		if test.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", test.cfg, err)
			}
			continue
		}
		if err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %q", err, test.want)
		}
		if _, err := NewElasticsearch(test.cfg, quiet, NewMetrics(metrics.NewSet(), "elasticsearch")); err == nil || err.Error() != test.want {
			t.Errorf("NewElasticsearch: error %v, want %q", err, test.want)
		}
	}
}

func TestFilesOfTheConfigThatCanNotBeUsedAreNamed(t *testing.T) {
	folder := t.TempDir()
	garbage := filepath.Join(folder, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("-----BEGIN NOTHING-----"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(folder, "missing")
	for _, test := range []struct {
		cfg  ElasticsearchConfig
		want string
	}{
		{ElasticsearchConfig{CAFile: missing}, "ca_file: open " + missing + ": no such file or directory"},
		{ElasticsearchConfig{CAFile: garbage}, "ca_file " + garbage + " holds no certificate: give certificates in PEM form"},
		{ElasticsearchConfig{Username: "u", PasswordFile: missing}, "password_file: open " + missing + ": no such file or directory"},
	} {
		test.cfg.URLs, test.cfg.DeadLetters = []string{"https://elasticsearch:9200"}, filepath.Join(folder, "dead")
		if _, err := NewElasticsearch(test.cfg, quiet, NewMetrics(metrics.NewSet(), "elasticsearch")); err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
	if names := namesIn(t, folder); len(names) != 1 {
		t.Errorf("a configuration that is refused leaves %q", names)
	}
}

// secure is an Elasticsearch that speaks TLS, on this host, and the file with
// the certificate of its authority.
func secure(t *testing.T) (server *httptest.Server, caFile string) {
	t.Helper()
	c := &cluster{stored: map[string]string{}, hold: func() string { return "" }}
	server = httptest.NewUnstartedServer(c)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return server, caFile
}

func TestServerOfOurOwnAuthorityIsTrustedWithItsCAFile(t *testing.T) {
	server, caFile := secure(t)
	e, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{server.URL}, CAFile: caFile, DeadLetters: t.TempDir()}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	got, err := e.Ship(t.Context(), recordsOf("a", "b"))
	if err != nil || !slices.Equal(got, sent(Stored, 2)) {
		t.Errorf("%v, %v", got, err)
	}
}

// lines takes each line of a log.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestServerThatIsNotTrustedIsHeldAtOnceWithTheRemedy(t *testing.T) {
	server, _ := secure(t)
	set, told := metrics.NewSet(), make(lines, 9)
	e, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{server.URL}, DeadLetters: t.TempDir()}, slog.New(slog.NewTextHandler(told, nil)), NewMetrics(set, "elasticsearch"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan []Verdict)
	go func() {
		got, _ := e.Ship(ctx, recordsOf("a"))
		done <- got
	}()
	const want = "certificate signed by unknown authority: name the authority of its certificate in ca_file"
	if line := <-told; !strings.Contains(line, want) {
		t.Errorf("logged %q, want %q in it", line, want)
	}
	cancel()
	if got := <-done; !slices.Equal(got, sent(Unknown, 1)) {
		t.Errorf("verdicts %v", got)
	}
	if !strings.Contains(e.Hold(), want) || !strings.Contains(counts(set), "held=1") {
		t.Errorf("holds with %q, %s", e.Hold(), counts(set))
	}
}

func TestRequestsGoThroughTheNetworkOfThisHost(t *testing.T) {
	c := &cluster{stored: map[string]string{}, hold: func() string { return "" }}
	server := httptest.NewServer(c)
	defer server.Close()
	e, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{server.URL + "/"}, DeadLetters: t.TempDir()}, quiet, NewMetrics(metrics.NewSet(), "elasticsearch"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Ship(t.Context(), recordsOf("a", "b")); err != nil || !slices.Equal(got, sent(Stored, 2)) {
		t.Errorf("%v, %v", got, err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// noise is text that gzip can't make small.
func noise(n int) []byte {
	out := make([]byte, n)
	x := uint64(1)
	for i := range out {
		x = x*6364136223846793005 + 1442695040888963407
		out[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[x>>58]
	}
	return out
}

// page returns what is scraped of the set.
func page(set *metrics.Set) string {
	var b bytes.Buffer
	set.WritePrometheus(&b)
	return b.String()
}

const allAtZero = `nines_log_already_stored_records_total{destination="elasticsearch"} 0
nines_log_diverted_records_total{destination="elasticsearch"} 0
nines_log_duplicate_records_total{destination="elasticsearch"} 0
nines_log_held{destination="elasticsearch"} 0
nines_log_redriven_records_total{destination="elasticsearch"} 0
nines_log_removed_records_total{destination="elasticsearch"} 0
nines_log_requests_total{destination="elasticsearch",result="held"} 0
nines_log_requests_total{destination="elasticsearch",result="ok"} 0
nines_log_requests_total{destination="elasticsearch",result="retried"} 0
nines_log_sent_bytes_total{destination="elasticsearch"} 0
`

func TestSeriesOfBothDestinationsAreThereAtZeroFromTheStart(t *testing.T) {
	set := metrics.NewSet()
	e, err := NewElasticsearch(ElasticsearchConfig{URLs: []string{"http://localhost:9200"}, DeadLetters: t.TempDir()}, quiet, NewMetrics(set, "elasticsearch"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const ofItsOwn = `nines_log_concurrent_requests_limit{destination="elasticsearch"} 4
nines_log_dead_letter_bytes{destination="elasticsearch"} 0
nines_log_hosts_unreachable{destination="elasticsearch"} 0
`
	want := slices.Sorted(strings.Lines(allAtZero + ofItsOwn))
	if got := slices.Sorted(strings.Lines(page(set))); !slices.Equal(got, want) {
		t.Errorf("series\n%swant\n%s", got, want)
	}
	f, set, _ := openFiles(t, t.TempDir(), 1, 1)
	defer f.Close()
	if got := page(set); got != allAtZero {
		t.Errorf("series\n%swant\n%s", got, allAtZero)
	}
}

func TestSentBytesAreThoseOfRequestsThatWereAnswered(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.script = []reply{breaksAfter(""), whole(503, "")}
		f.ship(t, "a b", sent(AlreadyStored, 2)...)
		want := f.cluster.requests("/_bulk")[1].asked.ContentLength + f.cluster.requests("/_bulk")[2].asked.ContentLength
		if got := f.m.bytes.Get(); got != uint64(want) || got == 0 {
			t.Errorf("%d bytes sent, want %d", got, want)
		}
	})
}

func TestDeadLettersAreBoundedAndTheOldestCounted(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.dead.fileBytes, f.dead.files = 10, 4
		refuse := map[string]string{}
		for _, id := range strings.Fields("a b c d e f g") {
			refuse[id] = mappingError
		}
		f.cluster.script = slices.Repeat([]reply{items(refuse)}, 7)
		for _, id := range strings.Fields("a b c d e f g") {
			f.ship(t, id, DeadLettered)
		}
		if got := idsIn(t, linesOf(t, f.folder)); got != "d e f g" {
			t.Errorf("dead letters %q", got)
		}
		if got := counts(f.set); got != "removed=3 ok=7" {
			t.Errorf("counts %q", got)
		}
		if n := strings.Count(f.logged.String(), "dead letters are full; the oldest were removed"); n != 3 {
			t.Errorf("told %d times, want 3:\n%s", n, f.logged)
		}
	})
}

func TestHoldTellsChangesOnly(t *testing.T) {
	var logged bytes.Buffer
	h := hold{log: slog.New(slog.NewTextHandler(&logged, nil)), where: "here"}
	var one, two backoff
	for _, step := range []struct {
		call   *backoff
		reason string
		want   string
		lines  int
	}{
		{&one, "", "", 0},
		{&one, "disk full", "disk full", 1},
		{&one, "disk full", "disk full", 0},
		{&two, "no rights", "disk full", 0}, // the first as long as it lasts
		{&one, "disk full", "disk full", 0},
		{&two, "", "disk full", 0},
		{&two, "no rights", "disk full", 0},
		{&one, "", "no rights", 1},
		{&two, "no template", "no template", 1},
		{&two, "", "", 1},
		{&two, "", "", 0},
	} {
		logged.Reset()
		h.set(step.call, step.reason)
		if n := strings.Count(logged.String(), "\n"); h.String() != step.want || n != step.lines {
			t.Errorf("%+v: holds with %q, %d lines:\n%s", step, h.String(), n, &logged)
		}
	}

	h.set(&one, "away")
	h.leave(&one)
	if h.String() != "away" {
		t.Error("a call that is given up repairs nothing")
	}
	h.set(&two, "")
	if h.String() != "" || len(h.reasons) != 0 {
		t.Errorf("holds with %q, %d reasons", h.String(), len(h.reasons))
	}
}

func TestErrorsOfOneKindAreOneReason(t *testing.T) {
	reason := func(port int) string {
		return noAnswer(&net.OpError{Op: "read", Net: "tcp",
			Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: port},
			Addr:   &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 9200},
			Err:    os.NewSyscallError("read", syscall.ECONNRESET)}).text
	}
	if reason(40001) != reason(40002) || !strings.Contains(reason(1), "10.0.0.2:9200: read: connection reset by peer") {
		t.Errorf("%q and %q: the port of ours is no news", reason(40001), reason(40002))
	}
	if got := noAnswer(errors.New("x")); got.held || got.text != "x" {
		t.Errorf("%+v", got)
	}
}
