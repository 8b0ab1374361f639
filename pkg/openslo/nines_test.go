package openslo

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// slosBeside are the SLOs that the fixtures refer to.
func slosBeside(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "nines", "slos.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// loadBeside loads a document with the SLOs of the fixtures and returns what is
// found in it alone.
func loadBeside(t testing.TB, name string, data []byte) (*Set, []Finding) {
	t.Helper()
	s := Load(map[string][]byte{"slos.yaml": slosBeside(t), name: data})
	var own []Finding
	for _, f := range s.Findings() {
		if f.Path == name {
			own = append(own, f)
		} else if f.IsError() {
			t.Fatalf("the SLOs beside have an error: %s", f)
		}
	}
	return s, own
}

// rulesInCode returns the rules that the checks of our kinds name.
func rulesInCode(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range []string{"nines.go", "agreement.go", "credit.go", "survivors.go", "exclusion.go", "recurrence.go", "kpi.go"} {
		if !slices.Contains(files, name) {
			t.Fatalf("%s is not there: name the files that hold the checks", name)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			at, ok := map[string]int{"fail": 0, "warn": 0, "take": 0, "find": 1}[sel.Sel.Name]
			if !ok || len(call.Args) <= at {
				return true
			}
			if lit, ok := call.Args[at].(*ast.BasicLit); ok {
				rule, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				found[rule] = true
			}
			return true
		})
	}
	var out []string
	for r := range found {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

func TestEachRuleHasADocumentThatTripsItAndOneThatDoesNot(t *testing.T) {
	rules := rulesInCode(t)
	if len(rules) < 20 {
		t.Fatalf("the code names %d rules: %v", len(rules), rules)
	}
	for _, rule := range rules {
		if rule == "too-many" { // a file of a thousand documents: see below
			continue
		}
		t.Run(rule, func(t *testing.T) {
			dir := filepath.Join("testdata", "nines", rule)
			trips, err := os.ReadFile(filepath.Join(dir, "trips.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			_, found := loadBeside(t, "trips.yaml", trips)
			golden(t, filepath.Join("nines", rule, "trips.golden"), []byte(lines(found)+"\n"))
			if !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == rule }) {
				t.Errorf("trips.yaml does not trip it:\n%s", lines(found))
			}
			for _, f := range found {
				if f.Rule != rule {
					t.Errorf("trips.yaml trips another rule: %s", f)
				}
			}
			passes, err := os.ReadFile(filepath.Join(dir, "passes.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			s, found := loadBeside(t, "passes.yaml", passes)
			if len(found) > 0 {
				t.Errorf("passes.yaml does not pass:\n%s", lines(found))
			}
			docs := strings.Count(string(passes), "\nkind: ")
			if n := len(s.Agreements()) + len(s.Exclusions()) + len(s.KPIs()); n != docs {
				t.Errorf("%d of the %d documents in passes.yaml are in force", n, docs)
			}
		})
	}
	dirs, err := filepath.Glob(filepath.Join("testdata", "nines", "*", "trips.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if rule := filepath.Base(filepath.Dir(d)); !slices.Contains(rules, rule) {
			t.Errorf("no check names rule %s: remove its folder", rule)
		}
	}
}

func TestErrorKeepsADocumentOutAndAWarningDoesNot(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "nines", "*", "trips.yaml"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		docs := strings.Split(string(data), "---\n")
		s, found := loadBeside(t, "trips.yaml", data)
		line := 1
		want := 0
		for _, doc := range docs {
			next := line + strings.Count(doc, "\n") + 1
			if !slices.ContainsFunc(found, func(f Finding) bool { return f.IsError() && f.Line >= line && f.Line < next }) {
				want++
			}
			line = next
		}
		if got := len(s.Agreements()) + len(s.Exclusions()) + len(s.KPIs()); got != want {
			t.Errorf("%s: %d documents are in force, want the %d without an error", path, got, want)
		}
	}
}

func TestAgreementWaitsForAnSLOWithErrorsOfItsOwn(t *testing.T) {
	broken := strings.Replace(checkout, "target: 0.999", "target: 99.9", 1)
	s := Load(map[string][]byte{"a.yaml": []byte(broken), "b.yaml": []byte(`apiVersion: nines/v1
kind: Agreement
metadata: {name: gold, namespace: shop}
spec:
  direction: outbound
  parties: {provider: a, customer: b}
  objectives: [{slo: checkout, objective: three nines}]
  period: {calendar: month, timeZone: UTC}
  method: events
  missingData: ignored
`)})
	if n := len(s.Agreements()); n != 0 {
		t.Errorf("%d agreements are in force", n)
	}
	for _, f := range s.Findings() {
		if f.Path != "a.yaml" {
			t.Errorf("the mistake is told again in the agreement: %s", f)
		}
	}
	if len(s.Findings()) == 0 {
		t.Error("the mistake is told nowhere")
	}
}

func TestNinesDocumentsGiveTheSameSetEachTime(t *testing.T) {
	files := map[string][]byte{"slos.yaml": slosBeside(t)}
	paths, err := filepath.Glob(filepath.Join("testdata", "nines", "*", "*.yaml"))
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files[p] = data
	}
	first := lines(Load(files).Findings())
	for range 5 {
		if got := lines(Load(files).Findings()); got != first {
			t.Fatalf("got\n%s\nbefore\n%s", got, first)
		}
	}
}

func fuzzNines(f *testing.F, kind string) {
	paths, err := filepath.Glob(filepath.Join("testdata", "nines", "*", "*.yaml"))
	if err != nil || len(paths) < 40 {
		f.Fatalf("%d files, %v", len(paths), err)
	}
	seeds := 0
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(data), "---\n") {
			if strings.Contains(doc, "kind: "+kind+"\n") {
				f.Add([]byte(doc))
				seeds++
			}
		}
	}
	if seeds < 5 {
		f.Fatalf("%d documents of kind %s", seeds, kind)
	}
	slos := slosBeside(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<13 {
			return
		}
		s := Load(map[string][]byte{"slos.yaml": slos, "a.yaml": data})
		for _, x := range s.Findings() {
			if x.Path != "a.yaml" && x.Path != "slos.yaml" || x.Line < 1 || x.Column < 1 || x.Message == "" || x.Rule == "" {
				t.Fatalf("finding without a place: %+v", x)
			}
		}
		for _, a := range s.Agreements() {
			if a.Name == "" || len(a.Promises) == 0 || a.Provider == a.Customer {
				t.Fatalf("half an agreement: %+v", a)
			}
			if _, _, err := a.Period.Bounds(0); err != nil {
				t.Fatal(err)
			}
			for i, tier := range a.Tiers {
				if tier.Below.IsZero() || tier.Credit.IsZero() || i > 0 && a.Tiers[i-1].Least != tier.Below {
					t.Fatalf("tiers of %s leave a gap: %+v", a, a.Tiers)
				}
			}
		}
		for _, e := range s.Exclusions() {
			if e.Approver == "" || len(e.Scope) == 0 || e.Duration <= 0 {
				t.Fatalf("half an exclusion: %+v", e)
			}
			in := e.Intervals(e.From, e.From.AddDate(500, 0, 0), 10)
			if len(in) == 0 {
				t.Fatalf("exclusion %q never is: %s from %s", e.Name, e.Rule, e.From)
			}
			for _, i := range in {
				if i.From.Before(e.From) || !i.From.Before(i.To) || i.From.Second() != 0 {
					t.Fatalf("exclusion %q from %s has %s to %s", e.Name, e.From, i.From, i.To)
				}
			}
		}
		for _, k := range s.KPIs() {
			if k.Title == "" || !slices.Contains(KPIKeys, k.Key) || len(k.Roles) == 0 {
				t.Fatalf("half a KPI: %+v", k)
			}
		}
	})
}

func FuzzAgreement(f *testing.F) { fuzzNines(f, "Agreement") }

func FuzzExclusion(f *testing.F) { fuzzNines(f, "Exclusion") }

func FuzzKPI(f *testing.F) { fuzzNines(f, "KPI") }

func TestHostileDocumentsAreRefusedInBoundedTime(t *testing.T) {
	deep := strings.Repeat("[", 20_000)
	bomb := "x: &a [1]\n"
	for i := range 40 {
		bomb += fmt.Sprintf("y%d: &b%d [*%s, *%s]\n", i, i, map[bool]string{true: "a", false: fmt.Sprintf("b%d", i-1)}[i == 0], map[bool]string{true: "a", false: fmt.Sprintf("b%d", i-1)}[i == 0])
	}
	for name, text := range map[string]string{
		"deep":   "apiVersion: nines/v1\nkind: KPI\nmetadata: {name: x}\nspec: " + deep,
		"bomb":   "apiVersion: nines/v1\nkind: Agreement\nmetadata: {name: x}\n" + bomb,
		"tabs":   "apiVersion: nines/v1\nkind: Exclusion\nmetadata:\n\tname: x\n",
		"itself": "apiVersion: nines/v1\nkind: Agreement\nmetadata: {name: x}\nspec: &s\n  parties: *s\n",
		"twice":  "apiVersion: nines/v1\nkind: KPI\nmetadata: {name: x}\nspec: {key: operations, key: registry}\n",
		"null":   "apiVersion: nines/v1\nkind: Agreement\nmetadata: {name: x}\nspec: ~\n",
		"list":   "apiVersion: nines/v1\nkind: Exclusion\nmetadata: {name: x}\nspec: []\n",
	} {
		s := load(text)
		if len(s.Findings()) == 0 || !s.Findings()[0].IsError() || s.Findings()[0].Line < 1 {
			t.Errorf("%s: findings are %q", name, lines(s.Findings()))
		}
		if n := len(s.Agreements()) + len(s.Exclusions()) + len(s.KPIs()); n != 0 {
			t.Errorf("%s: %d documents are in force", name, n)
		}
	}
}

func TestShorthandIsOfUnitsWithOneLength(t *testing.T) {
	for text, want := range map[string]string{"1m": "1m0s", "12h": "12h0m0s", "30d": "720h0m0s", "4w": "672h0m0s", "9999w": "1679832h0m0s"} {
		if d, err := shorthand(text); err != nil || d.String() != want {
			t.Errorf("%s is %s, %v; want %s", text, d, err, want)
		}
	}
	for _, text := range []string{"", "m", "1M", "1Q", "-1d", "1.5d", "10000w", "1 d", "d1", "1ü"} {
		if d, err := shorthand(text); err == nil {
			t.Errorf("%q is %s", text, d)
		}
	}
}

func TestExactNumbersStayExact(t *testing.T) {
	for text, want := range map[decimal]string{"0": "0", "010": "10", "1200.00": "1200", "0.1": "1/10", "-2.5": "-5/2", "123456789012345.0001": "1234567890123450001/10000"} {
		if r, err := exact(text, 15, 4); err != nil || r.RatString() != want {
			t.Errorf("%s is %v, %v; want %s", text, r, err, want)
		}
	}
	for _, text := range []decimal{"", "-", ".5", "1e3", "0x10", "1_000", "+1", "1/3", "1234567890123456", "0.00001", ".inf", ".nan"} {
		if r, err := exact(text, 15, 4); err == nil {
			t.Errorf("%q is %s", text, r)
		}
	}
}

// keysOf lists the YAML keys of a struct and of those below it.
func keysOf(t reflect.Type, at string, out map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		keysOf(t.Elem(), at, out)
	case reflect.Struct:
		for i := range t.NumField() {
			key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			if key == "" {
				continue
			}
			out[at+"."+key] = true
			keysOf(t.Field(i).Type, at+"."+key, out)
		}
	}
}
