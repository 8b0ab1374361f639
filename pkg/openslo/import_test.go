package openslo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"nines/pkg/sla"
)

// imported converts a file of testdata/import.
func imported(t *testing.T, name string) (out []byte, findings []Finding) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "import", name))
	if err != nil {
		t.Fatal(err)
	}
	out, findings, err = Import(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return out, findings
}

// usable returns the objectives of documents, none of which is refused.
func usable(t *testing.T, out []byte) map[string]sla.Objective {
	t.Helper()
	s := Load(map[string][]byte{"out.yaml": out})
	for _, f := range s.Findings() {
		if f.IsError() {
			t.Errorf("what comes out is refused: %s\n%s", f, out)
		}
	}
	all := map[string]sla.Objective{}
	for _, o := range s.Objectives() {
		all[o.SLO] = o
	}
	return all
}

func TestEachFormatBecomesOpenSLOAndSaysWhatIsLost(t *testing.T) {
	for name, slos := range map[string]int{"sloth.yaml": 6, "prometheusservicelevel.yaml": 2, "pyrra.yaml": 5} {
		out, findings := imported(t, name)
		base := "from-" + strings.TrimSuffix(name, ".yaml")
		golden(t, base+".yaml", out)
		golden(t, base+".findings", []byte(lines(findings)+"\n"))
		if all := usable(t, out); len(all) != slos {
			t.Errorf("%s: %d objectives, want %d", name, len(all), slos)
		}
		for _, f := range findings {
			if f.IsError() || f.Line < 2 || f.Message == "" {
				t.Errorf("want a warning with a place, got %s", f)
			}
		}
	}
}

// What convert says is part of what people read: each message that the source
// has stands in a golden file.
func TestEachWarningOfAConversionIsInAGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "from-*.findings"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files of findings, %v", len(files), err)
	}
	var said strings.Builder
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		said.Write(text)
	}
	verb := regexp.MustCompile(`%[a-z]`)
	found := 0
	for _, name := range []string{"import.go", "sloth.go", "pyrra.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "note" || len(call.Args) < 3 {
				return true
			}
			text, ok := call.Args[2].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: a message is not written out", name)
				return true
			}
			format, err := strconv.Unquote(text.Value)
			if err != nil {
				t.Fatal(err)
			}
			found++
			parts := verb.Split(strings.ReplaceAll(format, "%%", "%"), -1)
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			if !regexp.MustCompile(`\]: ` + strings.Join(parts, ".*")).MatchString(said.String()) {
				t.Errorf("no golden file has %q: add a document to testdata/import", format)
			}
			return true
		})
	}
	if found < 20 {
		t.Errorf("only %d messages are found in the source", found)
	}
}

func TestSlothIdiomsAreCountedExactly(t *testing.T) {
	out, _ := imported(t, "sloth.yaml")
	all := usable(t, out)
	for slo, want := range map[string]sla.SLI{
		"checkout-availability": {Bad: `sum(rate(http_requests_total{job="checkout",code=~"(5..|429)"}[5m]))`, Total: `sum(rate(http_requests_total{job="checkout"}[5m]))`},
		"checkout-latency": {
			Good:  `sum(rate(http_request_duration_seconds_bucket{job="checkout",le="0.4"}[5m]))`,
			Total: `sum(rate(http_request_duration_seconds_count{job="checkout"}[5m]))`,
		},
		"checkout-payments": {Bad: `sum(rate(payments_failed_total{job="checkout"}[5m]))`, Total: `sum(rate(payments_total{job="checkout"}[5m]))`},
		"checkout-queue":    {Bad: `(count(queue_fill_ratio{job="checkout"} > 0.75)) / 60`, Total: `(count(queue_fill_ratio{job="checkout"})) / 60`},
	} {
		if got := all[slo].SLI; got.Canonical() != want.Canonical() {
			t.Errorf("%s is %+v, want %+v", slo, got, want)
		}
	}
	a := all["checkout-availability"]
	if a.Target.Percent() != "99.9" || a.Runbook != "https://runbooks.example/checkout" {
		t.Errorf("target %s %%, runbook %q", a.Target.Percent(), a.Runbook)
	}
	if want := map[string]string{"owner": "payments", "tier": "1"}; !maps.Equal(a.Labels, want) || a.Team != "checkout" {
		t.Errorf("labels are %v, want %v; team %q", a.Labels, want, a.Team)
	}
}

// What is added up minute by minute already becomes events per second.
func TestSubqueriesOfRatesBecomeCounters(t *testing.T) {
	side, part, whole := slothEvents("sum_over_time((sum(rate(a[1m])))[5m:1m]) or vector(0)", "sum_over_time(sum(rate(b[1m]))[5m:])")
	if side != "bad" || part != "sum(rate(a[1m]))" || whole != "sum(rate(b[1m]))" {
		t.Errorf("got %s %s of %s", side, part, whole)
	}
}

func TestWhatOnlyLooksLikeAnIdiomIsLeftAsItIs(t *testing.T) {
	for _, c := range []struct{ bad, total, side, part, whole string }{
		{"sum(rate(a[5m])) or vector(1)", "sum(rate(b[5m]))", "bad", "sum(rate(a[5m])) or vector(1)", "sum(rate(b[5m]))"},
		{"sum(rate(a[5m])) or sum(rate(c[5m]))", "sum(rate(b[5m]))", "bad", "sum(rate(a[5m])) or sum(rate(c[5m]))", "sum(rate(b[5m]))"},
		// The difference is from something else than the total.
		{"sum(rate(a[5m])) - sum(rate(c[5m]))", "sum(rate(b[5m]))", "bad", "sum(rate(a[5m])) - sum(rate(c[5m]))", "sum(rate(b[5m]))"},
		{"sum(rate(a[5m])) - avg(c)", "sum(rate(a[5m]))", "bad", "sum(rate(a[5m])) - avg(c)", "sum(rate(a[5m]))"},
		// One side alone would change the ratio.
		{"sum_over_time((count(a > 1))[5m:])", "count(a)", "bad", "sum_over_time((count(a > 1))[5m:])", "count(a)"},
		{"sum_over_time((count(a > 1))[1h:])", "sum_over_time((count(a))[1h:])", "bad", "sum_over_time((count(a > 1))[1h:])", "sum_over_time((count(a))[1h:])"},
		{"x{", "sum(rate(b[5m]))", "bad", "x{", "sum(rate(b[5m]))"},
	} {
		if side, part, whole := slothEvents(c.bad, c.total); side != c.side || part != c.part || whole != c.whole {
			t.Errorf("%s of %s becomes %s %s of %s", c.bad, c.total, side, part, whole)
		}
	}
}

func TestRawRatioIsCarriedOverAsTheShareOfFailures(t *testing.T) {
	for name, want := range map[string]string{
		"sloth.yaml":                  "1 - (\n  sum(sum_over_time(satisfaction_ratio[5m]))\n  /\n  sum(count_over_time(satisfaction_ratio[5m]))\n)",
		"prometheusservicelevel.yaml": `satisfaction:error_ratio{window="5m"}`,
	} {
		out, _ := imported(t, name)
		if o := usable(t, out)["checkout-satisfaction"]; o.SLI.Raw != want || !o.SLI.RawBad {
			t.Errorf("%s: %+v, want %s as the share of failures", name, o.SLI, want)
		}
	}
}

func TestPyrraIndicatorsKeepTheirMeaning(t *testing.T) {
	out, _ := imported(t, "pyrra.yaml")
	all := usable(t, out)
	for _, c := range []struct {
		slo, service, window, percent, groupBy string
		sli                                    sla.SLI
	}{
		{"api-errors", "api", "28 days", "99.5", "handler,instance", sla.SLI{Bad: `sum(rate(http_requests_total{job="api",code=~"5.."}[5m]))`, Total: `sum(rate(http_requests_total{job="api"}[5m]))`}},
		{"api-latency", "api", "1 d 12 h", "99", "", sla.SLI{Good: `sum(rate(http_request_duration_seconds_bucket{job="api",le="0.1"}[5m]))`, Total: `sum(rate(http_request_duration_seconds_count{job="api"}[5m]))`}},
		{"rpc-latency", "rpc", "30 days", "99.9", "", sla.SLI{
			Good:  `histogram_fraction(0, 0.2, sum(rate(rpc_duration_seconds{job="rpc",code="ok"}[5m]))) * histogram_count(sum(rate(rpc_duration_seconds{job="rpc",code="ok"}[5m])))`,
			Total: `histogram_count(sum(rate(rpc_duration_seconds{job="rpc",code="ok"}[5m])))`,
		}},
		{"probes", "shop", "14 days", "99", "instance", sla.SLI{Good: `sum by (instance) (probe_success{service="shop"}) / 60`, Total: `count by (instance) (probe_success{service="shop"}) / 60`}},
		{"uploads", "uploads", "1 d 12 h", "0.999", "", sla.SLI{Good: `sum(rate(uploads_ok_total[5m]))`, Total: `sum(rate(uploads_total[5m]))`}},
	} {
		o, ok := all[c.slo]
		if !ok {
			t.Errorf("%s is missing", c.slo)
			continue
		}
		if o.Service != c.service || o.Window.String() != c.window || o.Target.Percent() != c.percent || strings.Join(o.GroupBy, ",") != c.groupBy || o.SLI.Canonical() != c.sli.Canonical() {
			t.Errorf("%s: service %q, window %s, target %s %%, groups %v, SLI %+v", c.slo, o.Service, o.Window, o.Target.Percent(), o.GroupBy, o.SLI)
		}
	}
	if q, err := ParseSLI(all["rpc-latency"].SLI); err != nil || q.Part.Kind != NativeFraction || q.Total.Kind != NativeCount {
		t.Errorf("the native histogram is counted as %s of %s: %v", q.Part.Kind, q.Total.Kind, err)
	}
	if o := all["api-errors"]; o.Labels["team"] != "payments" || o.Team != "payments" || o.Runbook != "https://runbooks.example/api" {
		t.Errorf("labels %v, runbook %q", o.Labels, o.Runbook)
	}
}

func TestWhatIsNotUnderstoodIsRefusedWithItsPlaceAndWhatIs(t *testing.T) {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join("testdata", "import", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	sloth, psl, pyrra := read("sloth.yaml"), read("prometheusservicelevel.yaml"), read("pyrra.yaml")
	for _, c := range []struct{ name, text, want string }{
		{"another version", strings.Replace(sloth, "version: prometheus/v1", "version: prometheus/v2", 1), `s.yaml:2:10: version is "prometheus/v2", want Sloth's files (version: prometheus/v1)`},
		{"a key with an error", strings.Replace(sloth, "total_query:", "totl_query:", 1), `s.yaml:18:9: unknown key "totl_query" under slos[0].sli.events; did you mean "total_query"?`},
		{"a target as text", strings.Replace(sloth, "objective: 99.9", "objective: '99.9'", 1), `s.yaml:9:16: slos[0].objective: want a number`},
		{"no service", strings.Replace(sloth, "service: checkout", "service: ''", 1), `s.yaml:3:10: service is missing`},
		{"the keys of the file in the object", strings.Replace(psl, "totalQuery:", "total_query:", 1), `unknown key "total_query" under spec.slos[0].sli.events; did you mean "totalQuery"?`},
		{"an unknown key of Pyrra", strings.Replace(pyrra, "target:", "targt:", 1), `s.yaml:15:3: unknown key "targt" under spec; did you mean "target"?`},
		{"no name", strings.Replace(pyrra, "name: api-errors", "generateName: api-", 1), `s.yaml:5:3: metadata.name is missing`},
		{"not YAML", "a: [", "s.yaml:"},
		{"a list", "- a\n", "s.yaml:1:1: this document has neither version nor apiVersion and kind; understood are Sloth's files"},
		{"nothing", "# only words\n", "s.yaml holds no document; understood are Sloth's files"},
		{"OpenSLO", checkout, `s.yaml:1:13: this is OpenSLO already: take it out`},
		{"another object", "apiVersion: apps/v1\nkind: Deployment\n", `s.yaml:1:13: apiVersion "apps/v1" with kind "Deployment" is not understood; understood are Sloth's files (version: prometheus/v1), Sloth's PrometheusServiceLevel`},
		{"another kind of Pyrra", "apiVersion: pyrra.dev/v1alpha1\nkind: Other\n", `s.yaml:2:7: apiVersion "pyrra.dev/v1alpha1" with kind "Other" is not understood`},
		{"a list in a list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List}]\n", `s.yaml:3:32: apiVersion "v1" with kind "List" is not understood`},
		{"an object among those of a list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}]\n", `s.yaml:3:32: apiVersion "v1" with kind "Pod" is not understood`},
		{"an item that holds its list", "apiVersion: v1\nkind: List\nitems: &a [*a]\n", "contains itself"},
		{"an older OpenSLO", "apiVersion: openslo/v1alpha\nkind: SLO\n", `s.yaml:1:13: apiVersion "openslo/v1alpha" with kind "SLO" is not understood`},
		{"too large", "version: prometheus/v1\n" + strings.Repeat("#", maxFile), "larger than 4 MiB"},
	} {
		out, _, err := Import("s.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || out != nil {
			t.Errorf("%s: error is %v, want %s", c.name, err, c.want)
		}
	}
	// A second document that is wrong is told with the first, and nothing comes out.
	_, _, err := Import("s.yaml", []byte("kind: A\n---\nkind: B\n"))
	if err == nil || !strings.Contains(err.Error(), `"A"`) || !strings.Contains(err.Error(), `"B"`) {
		t.Errorf("want both documents told, got %v", err)
	}
}

// A label that stands once in a file is written for each of its SLOs.
func TestWhatComesOutIsBounded(t *testing.T) {
	text := "version: prometheus/v1\nservice: s\nlabels: {a: " + strings.Repeat("x", 1<<20) + "}\nslos:\n" +
		strings.Repeat("- {name: a, objective: 99, sli: {events: {error_query: a, total_query: b}}}\n", 100)
	if out, _, err := Import("s.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "more than 64 MiB come out") || !strings.Contains(err.Error(), "s.yaml:") || out != nil {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

func TestWindowsOfPyrraBecomeOneUnit(t *testing.T) {
	for text, want := range map[string]string{
		"4w": "4w", "28d": "28d", "1h": "1h", "90m": "90m", "1d12h": "36h", "1y": "365d", " 2w ": "2w", "0500h": "500h", "1h30m": "90m",
	} {
		if got, err := pyrraWindow(text); err != nil || got != want {
			t.Errorf("%q becomes %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5m", "2y", "0", "-1d", "1d1s", "day", "300d1m"} {
		if got, err := pyrraWindow(text); err == nil {
			t.Errorf("%q becomes %q, want an error", text, got)
		}
	}
}

// fuzzImport checks what must hold of any input.
func fuzzImport(f *testing.F, seeds ...string) {
	for _, name := range seeds {
		data, err := os.ReadFile(filepath.Join("testdata", "import", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		for _, d := range strings.Split(string(data), "---\n") {
			f.Add([]byte(d))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		out, findings, err := Import("s.yaml", data)
		for _, x := range findings {
			if x.Path != "s.yaml" || x.Line < 1 || x.Message == "" || x.Rule == "" || x.IsError() {
				t.Fatalf("finding without a place, or no warning: %+v", x)
			}
		}
		if err != nil {
			if out != nil {
				t.Fatalf("output beside an error: %v", err)
			}
			return
		}
		// What comes out is read again: at most its meaning is found wrong.
		for _, x := range Load(map[string][]byte{"out.yaml": out}).Findings() {
			switch x.Rule {
			case "yaml", "schema", "kind", "api-version", "name", "service", "target", "time-window", "query", "annotation", "objectives":
				if x.IsError() {
					t.Fatalf("%s\n%s", x, out)
				}
			}
		}
	})
}

func FuzzImportSloth(f *testing.F) {
	f.Add([]byte("version: prometheus/v1\nservice: s\nslos: [{name: a, objective: 100, sli: {events: {}}}]\n---\n{}\n"))
	fuzzImport(f, "sloth.yaml")
}

func FuzzImportPrometheusServiceLevel(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{apiVersion: sloth.slok.dev/v1, kind: PrometheusServiceLevel, spec: {service: a}}]\n"))
	fuzzImport(f, "prometheusservicelevel.yaml")
}

func FuzzImportPyrra(f *testing.F) {
	f.Add([]byte("apiVersion: pyrra.dev/v1alpha1\nkind: ServiceLevelObjectiveList\nitems: []\n"))
	fuzzImport(f, "pyrra.yaml")
}
