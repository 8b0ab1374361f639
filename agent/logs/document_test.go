package logs

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"

	"nines/pkg/metric"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ofContainers = Source{Type: Kubernetes}

func TestPathOfAContainerLogSaysWhoWroteIt(t *testing.T) {
	for path, want := range map[string]origin{
		"/var/log/pods/shop_web-6d4_0b9a/app/0.log": {cri: true, namespace: "shop", pod: "web-6d4", uid: "0b9a", container: "app", file: "0.log"},
		"/var/log/pods/strange/0.log":               {cri: true},
		"/var/log/pods/a_b_c/d/e/0.log":             {cri: true},
	} {
		if got := ofContainers.originOf(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if got := (Source{Type: Files}).originOf("/var/log/pods/shop_web-6d4_0b9a/app/0.log"); got != (origin{}) {
		t.Errorf("a plain file has the origin %+v", got)
	}
}

func TestDocumentOfAPodsLine(t *testing.T) {
	cfg := Config{Cluster: "Berlin", Node: "n1", Version: "1.2.3"}
	const path = "/var/log/pods/shop_web-6d4-x2_0b9a/app/0.log"
	l, ok := parseCRI([]byte(`2026-11-23T10:00:00.123456789+01:00 stderr P half of a "line"`))
	if !ok {
		t.Fatal("not parsed")
	}
	l.offset = 1234
	doc := appendDocument(nil, l, cfg.ending(path, ofContainers, ofContainers.originOf(path), &Pod{
		UID:    "0b9a",
		Labels: map[string]string{"app": "web", "app.kubernetes.io/name": "web", "pod-template-hash": "6d4"}, Annotations: map[string]string{"team": "shop"},
		ownerKind: "replicaset", ownerName: "web-6d4",
	}))
	golden(t, "pod.json", doc)
}

// The data stream's last part is the cluster, or what people chose.
func TestDataStreamIsOfTheClusterOrOfTheNamespaceChosen(t *testing.T) {
	for want, cfg := range map[string]Config{
		"logs-kubernetes.container_logs-berlin_1": {Cluster: "Berlin-1"}, "logs-kubernetes.container_logs-shop": {Cluster: "Berlin-1", Namespace: "shop"},
	} {
		cfg.State, cfg.Sources, cfg.Shippers = t.TempDir(), []Source{ofContainers}, 1
		f, err := New(cfg, newMemory(), quiet, metrics.NewSet())
		if err != nil {
			t.Fatal(err)
		}
		_, namespace, _ := strings.Cut(want, "_logs-")
		if got := f.sources[0].stream; got != want {
			t.Errorf("stream %s, want %s", got, want)
		}
		if ending := string(cfg.ending("/x", ofContainers, origin{}, nil)); !strings.Contains(ending, `"namespace":"`+namespace+`"`) {
			t.Errorf("documents say %s", ending)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	pretty.WriteByte('\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pretty.Bytes(), want) {
		t.Errorf("got\n%s, want\n%s", pretty.Bytes(), want)
	}
}

func TestLineOfAContainerRuntime(t *testing.T) {
	for text, want := range map[string]line{
		"2026-11-23T10:00:00.000000001Z stdout F hello  world": {time: []byte("2026-11-23T10:00:00.000000001Z"), stream: "stdout", message: []byte("hello  world")},
		"2026-11-23T10:00:00Z stderr P x":                      {time: []byte("2026-11-23T10:00:00Z"), stream: "stderr", message: []byte("x"), part: true},
		"2026-11-23T10:00:00Z stdout F:tag:other x":            {time: []byte("2026-11-23T10:00:00Z"), stream: "stdout", message: []byte("x")},
		"2026-11-23T10:00:00Z stdout F ":                       {time: []byte("2026-11-23T10:00:00Z"), stream: "stdout", message: []byte{}},
		"2026-11-23T10:00:00Z stdout F":                        {time: []byte("2026-11-23T10:00:00Z"), stream: "stdout"},
	} {
		got, ok := parseCRI([]byte(text))
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"", "x", "2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z stdout", "2026-11-23T10:00:00Z stdin F x", "23.11.2026 stdout F x",
		"2026-11-23T10:00:00Z stdout X x", "2026-11-23T10:00:00Z stdout FF x", "2026-11-23T10:00:00Z stdout  x",
	} {
		if got, ok := parseCRI([]byte(text)); ok {
			t.Errorf("%q was taken as %+v", text, got)
		}
	}
}

// A torn line crashed other readers (VictoriaLogs #1217).
func FuzzLine(f *testing.F) {
	f.Add([]byte("2026-11-23T10:00:00Z stdout F hello"))
	f.Add([]byte("2026-11-23T10:00:00Z stdout"))
	f.Add([]byte("a\xff\x00\"\\\u2028"))
	f.Add([]byte(`{"log":"hello\n","stream":"stderr","time":"2026-11-23T10:00:00.1Z"}`))
	f.Add([]byte(`{"log":"hello","stream":"stdout","time":"2026-11-31T10:00:00Z"}`))
	ending := Config{Cluster: "c", Node: "n"}.ending("/x.log", Source{Type: Files}, origin{}, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		l, ok := parseContainer(text)
		if _, err := time.Parse(time.RFC3339Nano, string(l.time)); ok && (err != nil || l.stream != "stdout" && l.stream != "stderr") {
			t.Fatalf("%q is of %q at %q", text, l.stream, l.time)
		}
		if !ok {
			l = line{time: []byte("2026-11-23T10:00:00Z"), message: text, cut: int64(len(text) % 3)}
		} else if text[0] != '{' && !bytes.HasSuffix(text, l.message) {
			t.Fatalf("%q became %q", text, l.message)
		}
		var doc struct {
			Message string
			Nines   struct {
				Raw []byte `json:"message_base64"`
			}
		}
		data := appendDocument(nil, l, ending)
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if want := string([]rune(string(l.message))); doc.Message != want {
			t.Fatalf("%q is read back as %q", want, doc.Message)
		}
		if !utf8.Valid(l.message) && !bytes.Equal(doc.Nines.Raw, l.message) {
			t.Fatalf("%q is kept as %q", l.message, doc.Nines.Raw)
		}
	})
}

// The usual form of a time is looked at by hand.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000000001Z", "2026-02-30T10:00:00Z", "2024-02-29T23:59:60Z", "2026-11-23T10:00:00+01:00", "2026-11-23T10:00:00.Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, fraction, _ := strings.Cut(s, ".")
		digits := strings.IndexAny(fraction, "Z+-")
		if _, err := time.Parse(time.RFC3339Nano, s); isTime([]byte(s)) != (err == nil && !strings.Contains(s, ",") && digits <= 9) {
			t.Errorf("%q: %v, time.Parse says %v", s, isTime([]byte(s)), err)
		}
	})
}

// Of two rotated names at most one is the older, and it is so from both sides.
func FuzzRotatedNames(f *testing.F) {
	f.Add("app.log.1", "app.log.2.gz")
	f.Add("app.log-20261123", "app.log.20261123-101500.gz")
	f.Fuzz(func(t *testing.T, x, y string) {
		for _, name := range []string{x, y} {
			if _, rotated := parseRotated("app.log", name); rotated && !slices.Contains(basesOf(name), "app.log") {
				t.Errorf("%q is a rotated app.log, and app.log none of its bases", name)
			}
		}
		a, ok := parseRotated("app.log", x)
		b, ok2 := parseRotated("app.log", y)
		if !ok || !ok2 {
			return
		}
		older, known := a.older(b)
		if back, known2 := b.older(a); known != known2 || known && older == back {
			t.Errorf("%q is older than %q: %v, and the other way round %v", x, y, older, back)
		}
	})
}

// The kubelet's dates grow; logrotate's numbers count up with age.
func TestRotatedNamesAreInOrder(t *testing.T) {
	for _, want := range [][]string{
		{"app.log", "app.log.10.gz", "app.log.9", "app.log.2.gz", "app.log.1"},
		{"0.log", "0.log.20261122-101500.gz", "0.log.20261123-101500.gz", "0.log.20261123-101501"},
		{"web.1.log", "web.1-20261122.log.gz", "web.1-20261123.log"},
	} {
		d := &folder{map[string]found{}, map[string][]found{}}
		for _, name := range []string{"app.log.1", "app.log.10.gz", "app.log.2.gz", "app.log.9", "0.log.20261123-101501", "0.log.20261122-101500.gz",
			"0.log.20261123-101500.gz", "web.1-20261123.log", "web.1-20261122.log.gz", "web.1.log", "web.2.log"} {
			d.add(found{path: "/x/" + name})
		}
		got := []string{want[0]}
		for _, x := range d.siblings("/x/" + want[0]) {
			got = append(got, filepath.Base(x.path))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRotatedNames(t *testing.T) {
	for _, name := range []string{"app.log.1", "app.log.20", "app.log-20261123", "app.log.2026-11-23", "app.log_7", "app.log.1.gz", "app.log.20261123-101500.gz", "app-20261123.log", "app.2026-11-23.log.gz"} {
		if _, ok := parseRotated("app.log", name); !ok {
			t.Errorf("%s is a rotated app.log", name)
		}
	}
	for _, name := range []string{"app.log", "app.log.", "app.log.gz", "app.log.2.zst", "app.log.20261123-101500.tmp", "app.log.bak", "other.log.1", "app.log1", "xapp.log.1", "app-2.log", "app.log-x"} {
		if _, ok := parseRotated("app.log", name); ok {
			t.Errorf("%s is none", name)
		}
	}
}

func TestSourceIsRefusedWithItsRemedy(t *testing.T) {
	for want, s := range map[string]Source{
		`type is "journal": choose kubernetes or files`:   {Type: "journal"},
		`paths is a key of sources of type files`:         {Type: Kubernetes, Paths: []string{"/x"}},
		`namespaces is a key of sources of type kube`:     {Type: Files, Paths: []string{"a"}, Namespaces: []string{"x"}},
		`namespaces[0] "[" is no pattern`:                 {Type: Kubernetes, Namespaces: []string{"["}},
		`paths[0] "/a/**b/x" has ** beside other letters`: {Type: "files", Paths: []string{"/a/**b/x"}},
		`root "pods" is no whole path`:                    {Type: Kubernetes, Root: "pods"},
		`from is "now": choose beginning, end or check`:   {Type: Kubernetes, From: "now"},
		`weight is 101: choose from 1 to 100`:             {Type: Kubernetes, Weight: 101},
		`use a source of type kubernetes`:                 {Type: Files, Paths: []string{"/var/log/containers/*.log"}},
		`paths is empty: name at least one`:               {Type: "files"},
		`paths[1] "[" is no pattern`:                      {Type: "files", Paths: []string{"a", "["}},
		`exclude[0] "" is no pattern`:                     {Type: "files", Paths: []string{"a"}, Exclude: []string{""}},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if err := (Source{Type: "files", Paths: []string{"/var/log/*.log"}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestReasonNamesTheRemedy(t *testing.T) {
	err := &os.PathError{Op: "open", Path: "/var/log/x.log", Err: os.ErrPermission}
	if got := reason(err); !strings.Contains(got, "add the user to the file's group") || strings.Contains(got, "/var/log") {
		t.Error(got)
	}
}

func TestDamagedCheckpointSaysWhatToDo(t *testing.T) {
	whole, err := checkpoint{Generations: []saved{{ID: "a", Path: "/x", Offset: 3, Size: 5, Tally: tally{Stored: 3}}}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := decodeCheckpoint(whole); err != nil || c.Generations[0].Offset != 3 {
		t.Errorf("%+v, %v", c, err)
	}
	contradiction, err := checkpoint{Generations: []saved{{ID: "a", Path: "/x", Offset: 3, Size: 2, Tally: tally{Stored: 3}}}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"empty": nil, "contradiction": contradiction, "foreign": []byte("hello\n{}")}
	for n := range len(whole) {
		damaged[fmt.Sprint("torn at ", n)] = whole[:n]
	}
	for what, data := range damaged {
		dir := t.TempDir()
		if err := os.WriteFile(checkpointPath(dir), data, 0o644); err != nil {
			t.Fatal(err)
		}
		cfg := DefaultConfig()
		cfg.State = dir
		if _, err := New(cfg, newMemory(), quiet, metrics.NewSet()); err == nil || !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), "remove it to read all files again") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	whole, err := checkpoint{Generations: []saved{{ID: "a", Path: "/x", Offset: 3, Size: 5, Tally: tally{Stored: 3}}}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(checkpointFormat + "00000000\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCheckpoint(data)
		if err != nil {
			return
		}
		for _, g := range c.Generations {
			if g.Offset > g.Size || g.Tally.settled() != g.Offset {
				t.Fatalf("%+v was taken", g)
			}
		}
	})
}

func TestSeriesExistFromTheStart(t *testing.T) {
	set := metrics.NewSet()
	cfg := DefaultConfig()
	cfg.State = t.TempDir()
	if _, err := New(cfg, newMemory(), quiet, set); err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	set.WritePrometheus(&page)
	for _, d := range metric.All() {
		if !strings.HasPrefix(d.Name, "nines_log_") || shipped[d.Name] {
			continue
		}
		if !strings.Contains(page.String(), d.Name+`{destination="elasticsearch"`) {
			t.Errorf("no %s in\n%s", d.Name, page.String())
		}
	}
	for _, state := range []string{"stored", "dead_lettered", "dropped", "lost", "in_flight", "unread"} {
		if want := fmt.Sprintf("%s{destination=\"elasticsearch\",state=%q} 0\n", metric.LogRecords, state); !strings.Contains(page.String(), want) {
			t.Errorf("no %s in\n%s", want, page.String())
		}
	}
}

// shipped are the series of agent/ship.
var shipped = map[string]bool{
	metric.LogRequests: true, metric.LogSentBytes: true, metric.LogAlreadyStored: true, metric.LogDuplicates: true, metric.LogDiverted: true,
	metric.LogRemoved: true, metric.LogHeld: true, metric.LogConcurrency: true, metric.LogDeadLetterBytes: true, metric.LogRedrivenRecords: true,
	metric.LogHostsUnreachable: true,
}

// BenchmarkLines is the way of a line from its file to a sealed batch.
func BenchmarkLines(b *testing.B) {
	path := filepath.Join(b.TempDir(), "app.log")
	text := "2026-11-01T00:00:00.000000000Z stdout F level=info caller=server.go:12 msg=\"request served\" method=GET path=/api/orders/1 status=200 "
	text += strings.Repeat("x", 237-len(text)) + "\n"
	const lines = 4000
	if err := os.WriteFile(path, []byte(strings.Repeat(text, lines)), 0o644); err != nil {
		b.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.State, cfg.Cluster, cfg.Node = b.TempDir(), "default", "n1"
	f, err := New(cfg, newMemory(), quiet, metrics.NewSet())
	if err != nil {
		b.Fatal(err)
	}
	if err := f.adopt(path, path, &source{ofContainers, "logs-x-y"}, false, false); err != nil {
		b.Fatal(err)
	}
	g := f.gens[0]
	g.origin = ofContainers.originOf("/var/log/pods/shop_web-6d4_0b9a/app/0.log")
	defer g.release()
	begun := time.Now()
	for b.Loop() {
		g.read, g.spans = 0, nil
		f.batch.reset()
		for f.turn(g, begun) {
		}
		f.batch.seal()
		if len(f.batch.records) != lines {
			b.Fatal(len(f.batch.records), io.EOF)
		}
	}
	b.ReportMetric(float64(lines*b.N)/b.Elapsed().Seconds(), "lines/s")
}
