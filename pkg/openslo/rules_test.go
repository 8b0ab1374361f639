package openslo

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// examples is the folder with a folder for each rule of check: good.yaml does
// not trip it, bad.yaml (and bad-2.yaml …) does, once for each of its messages,
// and golden holds what is said about the bad ones.
const examples = "testdata/check"

// inspect says what is found in a file of examples.
func inspect(t *testing.T, path string) []Finding {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(path)
	return Load(map[string][]byte{name: data}).Findings()
}

func ruleFolders(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(examples)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestEachRuleHasAFileThatTripsItAndOneThatDoesNot(t *testing.T) {
	for _, rule := range ruleFolders(t) {
		t.Run(rule, func(t *testing.T) {
			dir := filepath.Join(examples, rule)
			good, err := filepath.Glob(filepath.Join(dir, "good*.yaml"))
			if err != nil || len(good) == 0 {
				t.Fatalf("%d files do not trip it, %v", len(good), err)
			}
			for _, path := range good {
				if found := inspect(t, path); len(found) > 0 {
					t.Errorf("%s is not good:\n%s", filepath.Base(path), lines(found))
				}
			}
			bad, err := filepath.Glob(filepath.Join(dir, "bad*.yaml"))
			if err != nil || len(bad) == 0 {
				t.Fatalf("%d files trip it, %v", len(bad), err)
			}
			slices.Sort(bad)
			var out strings.Builder
			for _, path := range bad {
				found := inspect(t, path)
				if !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == rule }) {
					t.Errorf("%s does not trip it:\n%s", filepath.Base(path), lines(found))
				}
				for _, f := range found {
					fmt.Fprintln(&out, f)
				}
			}
			golden(t, filepath.Join("check", rule, "golden"), []byte(out.String()))
		})
	}
}

// reporters are the functions that take a rule and a message, with the places of
// both among their arguments: add one that you write. A message that is not a
// text of the source is not looked for.
var reporters = map[string][]struct{ rule, message int }{
	"find": {{1, 4}},
	"fail": {{1, 3}},
	"warn": {{1, 3}},
	"say":  {{1, 2}},
	"take": {{0, -1}},
}

// elsewhere are the files whose rules have examples in testdata/nines.
var elsewhere = []string{"nines.go", "agreement.go", "credit.go", "survivors.go", "exclusion.go", "recurrence.go", "kpi.go"}

// unreachable are messages that no document leads to.
var unreachable = map[string]string{
	"cannot be written again: %v": "what was read as YAML can be written as YAML",
}

// said returns the messages of the source by rule, and the places of rules.
func said(t *testing.T) (rules map[string]string, messages map[string][]string) {
	t.Helper()
	rules, messages = map[string]string{}, map[string][]string{}
	fset := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	text := func(arg ast.Expr) (string, bool) {
		// fmt.Sprintf("…", …) says its first argument.
		if call, ok := arg.(*ast.CallExpr); ok && len(call.Args) > 0 {
			arg = call.Args[0]
		}
		lit, ok := arg.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(lit.Value)
		return s, err == nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") || slices.Contains(elsewhere, e.Name()) {
			continue
		}
		file, err := parser.ParseFile(fset, e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := ""
			switch f := call.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			for _, at := range reporters[name] {
				if at.rule >= len(call.Args) {
					continue
				}
				if _, ok := call.Args[at.rule].(*ast.BasicLit); !ok {
					continue
				}
				rule, ok := text(call.Args[at.rule])
				if !ok || !ruleName.MatchString(rule) {
					continue
				}
				rules[rule] = fset.Position(call.Pos()).String()
				if at.message >= 0 && at.message < len(call.Args) {
					if message, ok := text(call.Args[at.message]); ok {
						messages[rule] = append(messages[rule], message)
					}
				}
				break
			}
			return true
		})
	}
	if len(rules) < 20 {
		t.Fatalf("only %d rules were found in the source: %v", len(rules), rules)
	}
	return rules, messages
}

var ruleName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func TestEachRuleOfTheSourceHasExamples(t *testing.T) {
	rules, _ := said(t)
	have := ruleFolders(t)
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		if !slices.Contains(have, rule) {
			t.Errorf("%s: rule %s has no examples: write %s/%s/{good,bad}.yaml, then go test ./pkg/openslo -update", rules[rule], rule, examples, rule)
		}
	}
	for _, rule := range have {
		if rules[rule] == "" {
			t.Errorf("%s/%s is of no rule that the source has (reporters names the functions that are looked at)", examples, rule)
		}
	}
}

func TestEachMessageOfARuleIsInItsGolden(t *testing.T) {
	_, messages := said(t)
	verb := regexp.MustCompile(`%(\[\d+\])?[+#]?[a-z]`)
	for _, rule := range slices.Sorted(maps.Keys(messages)) {
		text, err := os.ReadFile(filepath.Join(examples, rule, "golden"))
		if err != nil && !os.IsNotExist(err) { // which the test above tells
			t.Fatal(err)
		}
		for _, message := range messages[rule] {
			if unreachable[message] != "" {
				continue
			}
			pattern := ""
			for i, part := range verb.Split(strings.ReplaceAll(message, "%%", "%"), -1) {
				if i > 0 {
					pattern += ".*"
				}
				pattern += regexp.QuoteMeta(part)
			}
			if !regexp.MustCompile(`\[` + rule + `\]: .*` + pattern).Match(text) {
				t.Errorf("no example of rule %s says %q: add one to %s/%s/bad.yaml, then go test ./pkg/openslo -update", rule, message, examples, rule)
			}
		}
	}
}

// A folder of examples is not read as documents by anything else.
func TestExamplesAreFilesOfThisFormAlone(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9-]+/(good(-\d+)?\.yaml|bad(-\d+)?\.yaml|golden)$`)
	err := fs.WalkDir(os.DirFS(examples), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !form.MatchString(path) {
			t.Errorf("%s/%s is not read by any test: name it good.yaml, bad.yaml or golden", examples, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
