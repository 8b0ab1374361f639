// Package strictyaml decodes YAML so that nothing that a person wrote is
// silently ignored: an unknown key, a key given twice and a value of the wrong
// type are errors that carry line and column, and an unknown key names the
// nearest known one.
//
// It owns the walk of a YAML document against a Go type. It refuses meaning:
// ranges and relations between values are checked by whoever owns the type.
// Documents enter as bytes with a name for messages, and leave as the filled
// value or as Errors.
package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"
	"time"

	"bytes"

	"go.yaml.in/yaml/v3"
)

// Error is one mistake in a document.
type Error struct {
	File         string
	Line, Column int // from 1; 0 where unknown
	Message      string
}

// Error returns "file:line:column: message".
func (e Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Errors are all mistakes in a document, in order of their place.
type Errors []Error

// Error returns a line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, x := range e {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

// Document is one document of a YAML stream.
type Document struct {
	File string
	Node *yaml.Node
}

// MaxSize bounds what is decoded at once, in bytes. Nodes take a hundred times
// the space of their text and more.
const MaxSize = 4 << 20

// Documents splits a YAML stream of at most MaxSize. Empty documents are left
// out.
func Documents(file string, data []byte) ([]Document, error) {
	if len(data) > MaxSize {
		return nil, Errors{{file, 1, 1, fmt.Sprintf("has %d bytes, and at most %d MiB are read at once: split it", len(data), MaxSize>>20)}}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var docs []Document
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, syntaxError(file, data, err)
		}
		if len(n.Content) == 0 || n.Content[0].Tag == "!!null" {
			continue
		}
		docs = append(docs, Document{file, n.Content[0]})
	}
}

// syntaxError turns the library's "yaml: line 3: …" into an Error.
func syntaxError(file string, data []byte, err error) Errors {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if n, _ := fmt.Sscanf(msg, "line %d:", &line); n == 1 {
		_, msg, _ = strings.Cut(msg, ": ")
	}
	line = max(line, 1) // the library leaves out the first line
	if strings.HasPrefix(msg, "exceeded max depth") {
		return Errors{{file, line, 1, "values are nested deeper than any meaning needs: write them flatter (a bracket may be left open)"}}
	}
	// The library says "found character that cannot start any token", some
	// lines before or behind it.
	if at, column := indentedByTab(data, line); at > 0 {
		return Errors{{file, at, column, "not valid YAML: the line is indented with a tab; use spaces"}}
	}
	return Errors{{file, line, 1, "not valid YAML: " + msg + " (check indentation, and quote values that hold ': ' or begin with a special character)"}}
}

// indentedByTab finds a tab in front of the text of a line, or of the one
// before or behind it.
func indentedByTab(data []byte, near int) (line, column int) {
	lines := bytes.SplitN(data, []byte("\n"), near+3)
	for _, n := range []int{near, near + 1, near - 1} {
		if n < 1 || n > len(lines) {
			continue
		}
		text := lines[n-1]
		if tab := bytes.IndexByte(text, '\t'); tab >= 0 && len(bytes.TrimLeft(text[:tab], " -")) == 0 {
			return n, tab + 1
		}
	}
	return 0, 0
}

// Decode reads the one document of data into out, a pointer to a struct that
// holds the defaults: keys that the document lacks stay as they are. An empty
// document changes nothing. The error, if any, is Errors.
func Decode(file string, data []byte, out any) error {
	docs, err := Documents(file, data)
	if err != nil {
		return err
	}
	switch len(docs) {
	case 0:
		return nil
	case 1:
		return docs[0].Decode(out)
	}
	n := docs[1].Node
	return Errors{{file, n.Line, n.Column, "one document is expected here, this is a second (remove the line ---)"}}
}

// Decode reads the document into out, a pointer to a struct.
func (d Document) Decode(out any) error {
	w := walker{file: d.File}
	w.check(d.Node, reflect.TypeOf(out).Elem(), "")
	if len(w.errs) == 0 {
		if err := d.Node.Decode(out); err != nil && strings.Contains(err.Error(), "excessive aliasing") {
			w.fail(d.Node, "aliases multiply to far more than is written; write fewer of them")
		} else if err != nil {
			w.fail(d.Node, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
	}
	if len(w.errs) == 0 {
		return nil
	}
	sort.SliceStable(w.errs, func(i, j int) bool {
		a, b := w.errs[i], w.errs[j]
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	return w.errs
}

// Errorf returns an error at the place of a node of this document.
func (d Document) Errorf(n *yaml.Node, format string, args ...any) Error {
	return Error{d.File, n.Line, n.Column, fmt.Sprintf(format, args...)}
}

// Find returns the value at a path of keys (and of indices such as "0"), or
// the deepest node on the way to it that exists: a place to point at.
func (d Document) Find(path ...string) *yaml.Node {
	n := d.Node
	for _, p := range path {
		next := child(n, p)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			if fmt.Sprint(i) == key {
				return c
			}
		}
	case yaml.AliasNode:
		return child(n.Alias, key)
	}
	return nil
}

// maxAliased bounds the nodes that are checked behind aliases, so that a few
// lines of aliases to aliases do not take hours.
const maxAliased = 100_000

type walker struct {
	file    string
	errs    Errors
	active  map[*yaml.Node]bool // anchors that the walk is inside of
	aliased int                 // nodes checked behind aliases
}

func (w *walker) fail(n *yaml.Node, format string, args ...any) {
	w.errs = append(w.errs, Error{w.file, n.Line, n.Column, fmt.Sprintf(format, args...)})
}

var (
	yamlUnmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

// check walks n against t and collects what does not fit.
func (w *walker) check(n *yaml.Node, t reflect.Type, at string) {
	if n.Kind == yaml.AliasNode {
		if w.active[n.Alias] {
			w.fail(n, "%sanchor %q holds itself; remove the alias", prefix(at), n.Value)
			return
		}
		if w.active == nil {
			w.active = map[*yaml.Node]bool{}
		}
		n = n.Alias
		w.active[n] = true
		defer delete(w.active, n)
	}
	if len(w.active) > 0 {
		if w.aliased++; w.aliased == maxAliased+1 {
			w.fail(n, "aliases multiply to more than %d values; write fewer of them", maxAliased)
		}
		if w.aliased > maxAliased {
			return
		}
	}
	if n.Tag == "!!null" {
		return
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := reflect.PointerTo(t)
	if p.Implements(yamlUnmarshaler) || p.Implements(textUnmarshaler) || t == durationType {
		if err := n.Decode(reflect.New(t).Interface()); err != nil {
			var inner Errors
			if errors.As(err, &inner) {
				for i := range inner {
					if inner[i].File == "" {
						inner[i].File = w.file // a type that decodes itself does not know it
					}
				}
				w.errs = append(w.errs, inner...)
				return
			}
			w.fail(n, "%s%s", prefix(at), plain(err, n, t))
		}
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		w.checkStruct(n, t, at)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			w.fail(n, "%swant keys with values (key: value), got %s", prefix(at), describe(n))
			return
		}
		w.pairs(n, func(k, v *yaml.Node) { w.check(v, t.Elem(), join(at, k.Value)) })
	case reflect.Slice, reflect.Array:
		if n.Kind != yaml.SequenceNode {
			w.fail(n, "%swant a list ([…] or lines that begin with -), got %s", prefix(at), describe(n))
			return
		}
		for i, c := range n.Content {
			w.check(c, t.Elem(), fmt.Sprintf("%s[%d]", at, i))
		}
	case reflect.Interface:
		w.checkAny(n)
	default:
		w.checkScalar(n, t, at)
	}
}

// checkAny looks for keys that are given twice where anything may stand. It
// does not follow aliases: what they name is walked where it is written.
func (w *walker) checkAny(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			w.checkAny(c)
		}
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode {
			w.once(k, seen)
		}
		w.checkAny(v)
	}
}

func (w *walker) checkScalar(n *yaml.Node, t reflect.Type, at string) {
	if n.Kind != yaml.ScalarNode {
		w.fail(n, "%swant %s, got %s", prefix(at), kindWords(t), describe(n))
		return
	}
	// The library turns 8080 and true into strings; so do we. It also cuts 1.5
	// to 1 for a whole number; we do not. All else must fit.
	whole := t.Kind() >= reflect.Int && t.Kind() <= reflect.Uintptr
	if err := n.Decode(reflect.New(t).Interface()); err != nil || whole && n.ShortTag() == "!!float" {
		w.fail(n, "%swant %s, got %s", prefix(at), kindWords(t), describe(n))
	}
}

func (w *walker) checkStruct(n *yaml.Node, t reflect.Type, at string) {
	if n.Kind != yaml.MappingNode {
		w.fail(n, "%swant keys with values (key: value), got %s", prefix(at), describe(n))
		return
	}
	fields := map[string]reflect.Type{}
	var known []string
	collect(t, fields, &known)
	w.pairs(n, func(k, v *yaml.Node) {
		ft, ok := fields[k.Value]
		if !ok {
			where := ""
			if at != "" {
				where = " under " + at
			}
			w.fail(k, "unknown key %q%s%s", k.Value, where, hint(k.Value, known))
			return
		}
		w.check(v, ft, join(at, k.Value))
	})
}

// pairs calls do for each key of a mapping with its value, and fails for keys
// that are no text of their own or that are given twice.
func (w *walker) pairs(n *yaml.Node, do func(k, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			w.fail(k, "a key must be plain text here: write out aliases and merges (*, <<)")
			continue
		}
		if w.once(k, seen) {
			do(k, v)
		}
	}
}

// once fails for a key that was seen before.
func (w *walker) once(k *yaml.Node, seen map[string]int) bool {
	line, twice := seen[k.Value]
	if twice {
		w.fail(k, "key %q is given twice (first in line %d); remove one", k.Value, line)
		return false
	}
	seen[k.Value] = k.Line
	return true
}

// collect lists the YAML keys of a struct, those of inlined structs included.
func collect(t reflect.Type, fields map[string]reflect.Type, known *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if strings.Contains(opts, "inline") {
			collect(f.Type, fields, known)
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		fields[name] = f.Type
		*known = append(*known, name)
	}
}

func prefix(at string) string {
	if at == "" {
		return ""
	}
	return at + ": "
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

func kindWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, 0 or more"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "text"
}

// plain takes the library's prefixes off an error about one value.
func plain(err error, n *yaml.Node, t reflect.Type) string {
	if t == durationType {
		return fmt.Sprintf("want a duration such as 15s, 5m or 24h, got %s", describe(n))
	}
	var te *yaml.TypeError
	if errors.As(err, &te) && len(te.Errors) > 0 {
		return fmt.Sprintf("cannot use %s here", describe(n))
	}
	return err.Error()
}

// hint names the nearest known key, or all where none is near.
func hint(key string, known []string) string {
	if best := Nearest(key, known); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	sorted := append([]string(nil), known...)
	sort.Strings(sorted)
	return "; known here: " + strings.Join(sorted, ", ")
}

// Nearest returns the known word that was most likely meant, or "" where none is
// near.
func Nearest(word string, known []string) string {
	best, distance := "", len(word)/2+2
	for _, k := range known {
		if d := levenshtein(strings.ToLower(word), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// levenshtein returns the number of single-character edits between a and b.
func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
