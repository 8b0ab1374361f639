package strictyaml

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

type inner struct {
	Weight float64 `yaml:"weight"`
	Names  []string
}

type common struct {
	Labels map[string]string `yaml:"labels"`
}

// upper is read by a method of its own that may fail.
type upper string

func (u *upper) UnmarshalText(b []byte) error {
	if s := string(b); s != strings.ToUpper(s) {
		return fmt.Errorf("%q is not in capitals", s)
	}
	*u = upper(b)
	return nil
}

type config struct {
	Listen   string        `yaml:"listen"`
	Port     int           `yaml:"port"`
	Retries  uint8         `yaml:"retries"`
	Interval time.Duration `yaml:"interval"`
	TLS      bool          `yaml:"tls"`
	Inner    inner         `yaml:"inner"`
	Pointer  *inner        `yaml:"pointer"`
	List     []inner       `yaml:"list"`
	ByName   map[string]inner
	Code     upper          `yaml:"code"`
	Any      any            `yaml:"any"`
	Spec     map[string]any `yaml:"spec"`
	common   `yaml:"-"`
	Common   common `yaml:",inline"`
	Secret   string `yaml:"-"`
	Tree     *tree  `yaml:"tree"`
}

type tree struct {
	Branches []tree `yaml:"branches"`
}

func decode(text string) (config, error) {
	c := config{Listen: "default", Interval: time.Minute}
	err := Decode("f.yaml", []byte(text), &c)
	return c, err
}

func TestWhatIsWrittenIsFilledInAndWhatIsNotKeepsItsDefault(t *testing.T) {
	got, err := decode(`
port: 8080
retries: 3
interval: 1m30s
tls: true
inner: {weight: 2, names: [a, b]}
pointer: {weight: 0.5}
list: [{weight: 1}, {names: [8080, true]}]
byname: {x: {weight: 3}}
code: ABC
labels: {team: shop, number: 7}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Listen: "default", Port: 8080, Retries: 3, Interval: 90 * time.Second, TLS: true,
		Inner: inner{2, []string{"a", "b"}}, Pointer: &inner{Weight: .5}, List: []inner{{Weight: 1}, {Names: []string{"8080", "true"}}},
		ByName: map[string]inner{"x": {Weight: 3}}, Code: "ABC", Common: common{Labels: map[string]string{"team": "shop", "number": "7"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, empty := range []string{"", "\n", "# only a comment\n", "---\n", "null", "---\n---\n"} {
		if got, err := decode(empty); err != nil || got.Listen != "default" {
			t.Errorf("empty document %q: %v, %+v", empty, err, got)
		}
	}
	if got, err := decode("listen:\ninterval: ~\n"); err != nil || got.Listen != "default" || got.Interval != time.Minute {
		t.Errorf("keys without a value: %v, %+v; want the defaults", err, got)
	}
}

func TestMistakeIsNamedWithItsPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key with the nearest known one", "lsiten: x\n", `f.yaml:1:1: unknown key "lsiten"; did you mean "listen"?`},
		{"wrong case", "port: 1\nTLS: true\n", `f.yaml:2:1: unknown key "TLS"; did you mean "tls"?`},
		{"unknown key far from all", "something: x\n", `f.yaml:1:1: unknown key "something"; known here: any, byname, code, inner, interval, labels, list, listen, pointer, port, retries, spec, tls, tree`},
		{"unknown key further down", "inner:\n  wieght: 1\n", `f.yaml:2:3: unknown key "wieght" under inner; did you mean "weight"?`},
		{"unknown key in a list", "list:\n- weight: 1\n- {weigth: 1}\n", `f.yaml:3:4: unknown key "weigth" under list[1]; did you mean "weight"?`},
		{"unknown key in a map's value", "byname:\n  x:\n    wait: 1\n", `f.yaml:3:5: unknown key "wait" under byname.x; did you mean "weight"?`},
		{"a field that is no key", "secret: x\n", `f.yaml:1:1: unknown key "secret"; did you mean "port"?`},
		{"key given twice", "port: 1\nlisten: x\nport: 2\n", `f.yaml:3:1: key "port" is given twice (first in line 1); remove one`},
		{"key of a map given twice", "labels:\n  team: a\n  team: b\n", `f.yaml:3:3: key "team" is given twice (first in line 2); remove one`},
		{"key given twice where anything may stand", "spec:\n  a:\n    b: 1\n    b: 2\n", `f.yaml:4:5: key "b" is given twice (first in line 3); remove one`},
		{"key given twice in a list of anything", "any:\n- {b: 1, b: 2}\n", `f.yaml:2:10: key "b" is given twice (first in line 2); remove one`},
		{"text for a number", "port: many\n", `f.yaml:1:7: port: want a whole number, got "many"`},
		{"fraction for a whole number", "port: 1.5\n", `f.yaml:1:7: port: want a whole number, got "1.5"`},
		{"power of ten for a whole number", "port: 1e3\n", `f.yaml:1:7: port: want a whole number, got "1e3"`},
		{"negative for unsigned", "retries: -1\n", `f.yaml:1:10: retries: want a whole number, 0 or more, got "-1"`},
		{"number that does not fit", "retries: 256\n", `f.yaml:1:10: retries: want a whole number, 0 or more, got "256"`},
		{"text for true or false", "tls: maybe\n", `f.yaml:1:6: tls: want true or false, got "maybe"`},
		{"text for a fraction", "inner: {weight: heavy}\n", `f.yaml:1:17: inner.weight: want a number, got "heavy"`},
		{"list for text", "listen: [a]\n", `f.yaml:1:9: listen: want text, got a list`},
		{"mapping for text", "listen: {a: b}\n", `f.yaml:1:9: listen: want text, got keys with values`},
		{"bytes that are none", "listen: !!binary '%%%'\n", `f.yaml:1:9: listen: want text, got "%%%"`},
		{"text for a list", "list: a\n", `f.yaml:1:7: list: want a list ([…] or lines that begin with -), got "a"`},
		{"text for a mapping", "inner: a\n", `f.yaml:1:8: inner: want keys with values (key: value), got "a"`},
		{"list for a map", "labels: [a]\n", `f.yaml:1:9: labels: want keys with values (key: value), got a list`},
		{"list for the document", "- a\n", `f.yaml:1:1: want keys with values (key: value), got a list`},
		{"number without a unit for a duration", "interval: 5\n", `f.yaml:1:11: interval: want a duration such as 15s, 5m or 24h, got "5"`},
		{"unit that durations do not have", "interval: 5 minutes\n", `f.yaml:1:11: interval: want a duration such as 15s, 5m or 24h, got "5 minutes"`},
		{"what a type of its own refuses", "code: abc\n", `f.yaml:1:7: code: "abc" is not in capitals`},
		{"second document", "port: 1\n---\nport: 2\n", `f.yaml:3:1: one document is expected here, this is a second (remove the line ---)`},
		// The alias's name is not its text: "port" would have been taken for the
		// key, while the library reads the key "x".
		{"alias as a key", "listen: &port x\n*port : 1\n", `f.yaml:2:1: a key must be plain text here: write out aliases and merges (*, <<)`},
		{"merge", "inner: &i {weight: 1}\npointer:\n  <<: *i\n", `f.yaml:3:3: a key must be plain text here: write out aliases and merges (*, <<)`},
		{"list as a key", "? [a]\n: 1\n", `f.yaml:1:3: a key must be plain text here: write out aliases and merges (*, <<)`},
	} {
		_, err := decode(c.text)
		var many Errors
		if !errors.As(err, &many) {
			t.Errorf("%s: error is %v, want Errors", c.name, err)
			continue
		}
		if err.Error() != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, err, c.want)
		}
	}
}

func TestBrokenSyntaxNamesTheLineAndWhatToCheck(t *testing.T) {
	for _, c := range []struct {
		text   string
		line   int
		remedy string
	}{
		{"a: b: c\n", 1, "check indentation"}, {"port: 1\nlisten: [a\n", 0, "check indentation"},
		{"port: *nowhere\n", 0, "check indentation"}, {"a: \"\n", 0, "check indentation"},
		{"\tport: 1\n", 1, "use spaces"}, {"a:\n  b: 1\n \tc: 1\n", 3, "use spaces"},
		{"a: 1\nb: [\n" + strings.Repeat("[", 20_000), 0, "flatter"},
	} {
		_, err := decode(c.text)
		var many Errors
		if !errors.As(err, &many) || len(many) != 1 || many[0].File != "f.yaml" {
			t.Errorf("%q: %v, want one error with its file", c.text, err)
			continue
		}
		if c.line > 0 && many[0].Line != c.line || !strings.Contains(many[0].Message, c.remedy) {
			t.Errorf("%q: %v, want line %d and %q", c.text, err, c.line, c.remedy)
		}
	}
}

func TestAllMistakesAreToldAtOnceInOrder(t *testing.T) {
	_, err := decode("interval: soon\nlisten: x\ninner:\n  weight: y\n  waight: 1\nport: z\nport: 1\nlist: [{weight: a}, {weight: b}]\n")
	var many Errors
	if !errors.As(err, &many) {
		t.Fatalf("error is %v", err)
	}
	var places []string
	for _, e := range many {
		places = append(places, fmt.Sprintf("%d:%d", e.Line, e.Column))
	}
	if want := "1:11 4:11 5:3 6:7 7:1 8:17 8:30"; strings.Join(places, " ") != want {
		t.Errorf("mistakes are at %s, want %s:\n%v", places, want, err)
	}
}

// placed is read by a method of its own that knows places, and no file.
type placed struct{}

func (*placed) UnmarshalYAML(n *yaml.Node) error {
	return Errors{{Line: n.Line, Column: n.Column, Message: "is wrong"}}
}

func TestMistakeThatATypeFindsItselfGetsTheNameOfTheFile(t *testing.T) {
	var c struct {
		A int    `yaml:"a"`
		B placed `yaml:"b"`
	}
	err := Decode("f.yaml", []byte("a: 1\nb: x\n"), &c)
	if err == nil || err.Error() != "f.yaml:2:4: is wrong" {
		t.Errorf("got %v", err)
	}
}

func TestMistakeBehindAnAliasIsToldInTheOrderOfItsPlace(t *testing.T) {
	_, err := decode("{any: &i {wait: 2}, code: abc, inner: *i}\n")
	if want := "f.yaml:1:11: unknown key \"wait\" under inner; did you mean \"weight\"?\nf.yaml:1:27: code: \"abc\" is not in capitals"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestStreamIsSplitAndPlacesStayThoseOfTheFile(t *testing.T) {
	docs, err := Documents("f.yaml", []byte("# head\n---\nport: 1\n---\n---\n# nothing\n---\nport: x\n"))
	if err != nil || len(docs) != 2 {
		t.Fatalf("%d documents, %v; want 2, the empty ones left out", len(docs), err)
	}
	var c config
	if err := docs[0].Decode(&c); err != nil || c.Port != 1 {
		t.Errorf("first document: %v, %+v", err, c)
	}
	if err := docs[1].Decode(&c); err == nil || !strings.HasPrefix(err.Error(), "f.yaml:8:7: ") {
		t.Errorf("second document: %v, want a mistake in line 8 of the file", err)
	}
}

func TestFindPointsAtTheDeepestPlaceThatExists(t *testing.T) {
	docs, err := Documents("f.yaml", []byte("base: &b\n  x: 1\nlist:\n- a: 1\n- b: 2\nagain: *b\n"))
	if err != nil || len(docs) != 1 {
		t.Fatal(docs, err)
	}
	for _, c := range []struct {
		path         string
		line, column int
	}{
		{"", 1, 1}, {"base", 1, 7}, {"base x", 2, 6}, {"base y", 1, 7}, {"list 1 b", 5, 6}, {"list 2", 4, 1}, {"list 1 c d e", 5, 3},
		{"nothing at all", 1, 1}, {"again x", 2, 6}, {"base x deeper", 2, 6}, {"list -1", 4, 1},
	} {
		n := docs[0].Find(strings.Fields(c.path)...)
		if n.Line != c.line || n.Column != c.column {
			t.Errorf("%q is at %d:%d, want %d:%d", c.path, n.Line, n.Column, c.line, c.column)
		}
		e := docs[0].Errorf(n, "share is %d %%", 5)
		if want := fmt.Sprintf("f.yaml:%d:%d: share is 5 %%", c.line, c.column); e.Error() != want {
			t.Errorf("error at %q is %q, want %q", c.path, e, want)
		}
	}
}

// bomb is "a billion laughs": nine levels of lists with nine aliases each.
func bomb(key string) string {
	var b strings.Builder
	b.WriteString(key + ":\n  a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String()
}

func TestAliasesThatMultiplyAreRefusedQuickly(t *testing.T) {
	for name, text := range map[string]string{
		"where anything may stand": bomb("spec"),
		"where text is expected":   bomb("labels"),
		"in a type that nests itself": func() string {
			var b strings.Builder
			b.WriteString("spec:\n  - &a0 {branches: []}\n")
			for i := 1; i < 12; i++ {
				fmt.Fprintf(&b, "  - &a%d {branches: [%s]}\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
			}
			return strings.Replace(b.String(), "spec", "any", 1) + "tree: *a11\n"
		}(),
		"an anchor that holds itself":                    "any: &a [*a]\n",
		"an anchor that holds itself, in a nesting type": "tree: &a {branches: [*a]}\n",
	} {
		done := make(chan error, 1)
		go func() {
			_, err := decode(text)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: it was accepted", name)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: still not decoded after 20 s", name)
		}
	}
	// Plain reuse is welcome.
	c, err := decode("inner: &i {weight: 2}\npointer: *i\nlist: [*i, *i]\n")
	if err != nil || c.Pointer == nil || c.Pointer.Weight != 2 || len(c.List) != 2 || c.List[1].Weight != 2 {
		t.Errorf("anchors and aliases: %v, %+v", err, c)
	}
	// A mistake in what is reused is told once for each place that reads it.
	_, err = decode("any: &i {wait: 2}\ninner: *i\n")
	if err == nil || err.Error() != `f.yaml:1:10: unknown key "wait" under inner; did you mean "weight"?` {
		t.Errorf("mistake behind an alias: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "port: 1\n", "a: b: c", bomb("spec"), "tree: &a {branches: [*a]}\n", "listen: &port x\n*port : 1\n", "? [a]\n: 1\n", "<<: {port: 1}\n",
		"--- !!binary x\n", "interval: 1h\ncode: abc\n---\nx", "\xff\xfe", "labels: {? : x}\n", "port: !!int x\n", "&a : *a", "list: [{weight: .nan}]", "%YAML 9\n---\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		var c config
		err := Decode("f.yaml", data, &c)
		var many Errors
		if err != nil && (!errors.As(err, &many) || len(many) == 0) {
			t.Fatalf("error is %T: %v, want Errors", err, err)
		}
		for _, e := range many {
			if e.File != "f.yaml" || e.Line < 0 || e.Column < 0 || e.Message == "" {
				t.Fatalf("error without file or message: %+v", e)
			}
		}
		if err != nil {
			return
		}
		// What was accepted has no key that was not read: it is read without
		// the walk, too, when unknown keys are errors.
		docs, err := Documents("f.yaml", data)
		if err != nil || len(docs) > 1 {
			t.Fatalf("accepted, but %d documents, %v", len(docs), err)
		}
		for _, d := range docs {
			text, err := yaml.Marshal(d.Node)
			if err != nil {
				t.Fatal(err)
			}
			dec := yaml.NewDecoder(strings.NewReader(string(text)))
			dec.KnownFields(true)
			if err := dec.Decode(new(config)); err != nil && strings.Contains(err.Error(), "not found in type") {
				t.Fatalf("%q was accepted, but the library says %v", data, err)
			}
		}
	})
}

func TestTooMuchIsRefusedBeforeItIsRead(t *testing.T) {
	if _, err := decode("port: 1 #" + strings.Repeat("x", MaxSize-9)); err != nil {
		t.Errorf("%d bytes: %v", MaxSize, err)
	}
	_, err := decode("port: 1 #" + strings.Repeat("x", MaxSize-8))
	if err == nil || err.Error() != "f.yaml:1:1: has 4194305 bytes, and at most 4 MiB are read at once: split it" {
		t.Errorf("a byte more: %v", err)
	}
}

func TestNearestIsOneThatIsNear(t *testing.T) {
	known := []string{"serve", "check", "convert"}
	for word, want := range map[string]string{"sevre": "serve", "CHEK": "check", "covnert": "convert", "dashboards": "", "": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q is near %q, want %q", word, got, want)
		}
	}
}
