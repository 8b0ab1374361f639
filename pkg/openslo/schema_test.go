package openslo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"nines/pkg/strictyaml"
)

func TestSchemasAreWhatTheirSourceGives(t *testing.T) {
	files, err := schemaFiles()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(SchemaKinds())+1 {
		t.Fatalf("%d files of %d kinds", len(files), len(SchemaKinds()))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		golden(t, filepath.Join("..", "schema", name), files[name])
	}
	there, err := filepath.Glob(filepath.Join("schema", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if files[filepath.Base(path)] == nil {
			t.Errorf("nothing makes %s: remove it", path)
		}
	}
}

func TestSchemaIsFoundByItsKind(t *testing.T) {
	for _, kind := range append(SchemaKinds(), "any", "slo", "ANY") {
		data, err := Schema(kind)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		var s struct {
			Schema string `json:"$schema"`
			ID     string `json:"$id"`
		}
		if err := json.Unmarshal(data, &s); err != nil || !strings.Contains(s.Schema, "2020-12") || !strings.EqualFold(s.ID, "urn:nines:schema:"+kind) {
			t.Errorf("%s: %+v, %v", kind, s, err)
		}
	}
	for _, kind := range []string{"", "SLA", "../schema", "any.json"} {
		if _, err := Schema(kind); err == nil || !strings.Contains(err.Error(), "want one of SLO, SLI,") {
			t.Errorf("%q: %v", kind, err)
		}
	}
	SchemaKinds()[0] = "x"
	if SchemaKinds()[0] != "SLO" {
		t.Error("a caller can change the kinds")
	}
}

// fromSource returns the schema of a kind as it is made now: with -update those
// that are embedded are the old ones.
func fromSource(t *testing.T, kind string) []byte {
	t.Helper()
	files, err := schemaFiles()
	if err != nil {
		t.Fatal(err)
	}
	data := files[strings.ToLower(kind)+".json"]
	if data == nil {
		t.Fatalf("there is no schema of %s", kind)
	}
	return data
}

func compiled(t *testing.T, kind string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(fromSource(t, kind)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	name := "urn:nines:schema:" + kind
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// plainJSON returns a node as JSON has it, with numbers as they are written.
func plainJSON(t *testing.T, n *yaml.Node) any {
	t.Helper()
	switch n.Kind {
	case yaml.AliasNode:
		return plainJSON(t, n.Alias)
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = plainJSON(t, n.Content[i+1])
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, c := range n.Content {
			out = append(out, plainJSON(t, c))
		}
		return out
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return json.Number(n.Value)
	case "!!bool":
		return n.Value == "true"
	case "!!null":
		return nil
	}
	return n.Value
}

// validator checks documents against the schema of their kind and that of any.
type validator map[string]*jsonschema.Schema

func newValidator(t *testing.T) validator {
	v := validator{}
	for _, kind := range append(SchemaKinds(), "any") {
		v[kind] = compiled(t, kind)
	}
	return v
}

// check returns why a document is not valid; both schemas must agree.
func (v validator) check(t *testing.T, d strictyaml.Document) error {
	t.Helper()
	doc := plainJSON(t, d.Node)
	kind := d.Find("kind").Value
	if v[kind] == nil {
		return v["any"].Validate(doc)
	}
	one, any := v[kind].Validate(doc), v["any"].Validate(doc)
	if (one == nil) != (any == nil) {
		t.Errorf("%s:%d: schema of %s: %v; of any: %v", d.File, d.Node.Line, kind, one, any)
	}
	return one
}

func documentsIn(t *testing.T, path string) []strictyaml.Document {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := strictyaml.Documents(path, data)
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) == 0 {
		t.Fatalf("%s has no documents", path)
	}
	return docs
}

func TestSchemasTakeEveryDocumentThatCheckPasses(t *testing.T) {
	v := newValidator(t)
	paths, err := filepath.Glob(filepath.Join("testdata", "nines", "*", "passes.yaml"))
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	paths = append(paths, filepath.Join("testdata", "nines", "slos.yaml"), filepath.Join("testdata", "from-sloth.yaml"), filepath.Join("testdata", "schema", "valid.yaml"))
	kinds := map[string]int{}
	for _, path := range paths {
		for _, d := range documentsIn(t, path) {
			kinds[d.Find("kind").Value]++
			if err := v.check(t, d); err != nil {
				t.Errorf("%s:%d: %v", path, d.Node.Line, err)
			}
		}
	}
	for _, kind := range SchemaKinds() {
		if kinds[kind] == 0 {
			t.Errorf("no document of kind %s was tried", kind)
		}
	}
}

// beyondSchema are documents with an error that a schema cannot say, by rule
// and name.
var beyondSchema = map[string][]string{
	"schema":   {"n5"},                                                  // a key given twice is lost on the way to JSON
	"required": {"n15"},                                                 // an amount needs a fee elsewhere
	"value":    {"n2", "n10", "n15", "n16", "n19", "n20", "n23", "n29"}, // two equal texts, decimals, divisors, lengths of time
}

func TestSchemasRefuseWhatIsNotLikeADocument(t *testing.T) {
	v := newValidator(t)
	for _, rule := range []string{"schema", "kind", "name", "required", "value", "method", "approver"} {
		var took []string
		for _, d := range documentsIn(t, filepath.Join("testdata", "nines", rule, "trips.yaml")) {
			if v.check(t, d) == nil {
				took = append(took, d.Find("metadata", "name").Value)
			}
		}
		if !slices.Equal(took, beyondSchema[rule]) {
			t.Errorf("rule %s: the schemas take %q, want %q", rule, took, beyondSchema[rule])
		}
	}
	for _, d := range documentsIn(t, filepath.Join("testdata", "schema", "broken.yaml")) {
		if v.check(t, d) == nil {
			t.Errorf("%s:%d: the schema takes it", d.File, d.Node.Line)
		}
	}
}

// schemaKeys lists the properties of a schema, and complains of those without
// a description.
func schemaKeys(t *testing.T, root, s map[string]any, at string, out map[string]bool) {
	if ref, ok := s["$ref"].(string); ok {
		def, ok := root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		if !ok {
			t.Fatalf("%s refers to %s, which is not there", at, ref)
		}
		s = def
	}
	if items, ok := s["items"].(map[string]any); ok {
		schemaKeys(t, root, items, at, out)
	}
	properties, _ := s["properties"].(map[string]any)
	for name, p := range properties {
		path := at + "." + name
		out[path] = true
		p := p.(map[string]any)
		if d, _ := p["description"].(string); len(d) < 10 || !strings.HasSuffix(d, ".") {
			t.Errorf("%s is described as %q: want a sentence", path, d)
		}
		schemaKeys(t, root, p, path, out)
	}
}

func TestSchemasDescribeEachKeyThatDecodes(t *testing.T) {
	keys := func(kind string) map[string]bool {
		var s map[string]any
		if err := json.Unmarshal(fromSource(t, kind), &s); err != nil {
			t.Fatal(err)
		}
		out := map[string]bool{}
		schemaKeys(t, s, s, "", out)
		return out
	}
	for kind, of := range map[string]reflect.Type{
		"Agreement": reflect.TypeFor[agreementDocument](), "Exclusion": reflect.TypeFor[exclusionDocument](), "KPI": reflect.TypeFor[kpiDocument](),
		"SLO": reflect.TypeFor[document[sloSpec]](), "SLI": reflect.TypeFor[document[indicatorSpec]](),
		"Service": reflect.TypeFor[document[serviceSpec]](), "DataSource": reflect.TypeFor[document[dataSourceSpec]](),
		"AlertPolicy": reflect.TypeFor[document[policySpec]](), "AlertCondition": reflect.TypeFor[document[conditionSpec]](),
		"AlertNotificationTarget": reflect.TypeFor[document[targetSpec]](),
	} {
		have, want := keys(kind), map[string]bool{}
		keysOf(of, "", want)
		if len(want) < 8 {
			t.Fatalf("%s has %d keys", kind, len(want))
		}
		for k := range want {
			if !have[k] {
				t.Errorf("%s: the schema does not know %s, which decodes", kind, k)
			}
		}
		for k := range have {
			if !want[k] && !strings.Contains(k, ".annotations.") { // any annotation decodes
				t.Errorf("%s: the schema has %s, which does not decode", kind, k)
			}
		}
	}
	for _, kind := range SchemaKinds() {
		if n := len(keys(kind)); n < 8 {
			t.Errorf("%s has %d keys", kind, n)
		}
	}
}

func ExampleSchema() {
	data, err := Schema("service")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(string(data), `"title": "Service"`))
	// Output: true
}
