package probe

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/blackbox_exporter/config"
	"go.yaml.in/yaml/v3"

	"nines/pkg/strictyaml"
)

// Modules are named ways to probe, in the form of blackbox.yml.
type Modules map[string]config.Module

// MaxModules bounds what is written under modules, the default ones included.
const MaxModules = 200

// maxBody bounds, in bytes, what is held of a body that is matched against an
// expression, where its module sets no body_size_limit of its own.
const maxBody = 10 << 20

// maxNodes bounds what a module may be written with, after its aliases are
// written out.
const maxNodes = 10_000

// defaultText are the modules that are there without configuration: those of
// the usual blackbox.yml that need no knowledge of the place. The questions of
// the two DNS ones are such that any resolver, or any cluster, has an answer.
const defaultText = `
http_2xx: {prober: http, http: {preferred_ip_protocol: ip4}}
http_post_2xx: {prober: http, http: {method: POST}}
tcp_connect: {prober: tcp}
tls_connect: {prober: tcp, tcp: {tls: true}}
ssh_banner: {prober: tcp, tcp: {query_response: [{expect: "^SSH-2.0-"}, {send: "SSH-2.0-blackbox-ssh-check"}]}}
icmp: {prober: icmp}
dns: {prober: dns, dns: {query_name: ".", query_type: NS}}
dns_cluster: {prober: dns, dns: {query_name: kubernetes.default.svc.cluster.local, query_type: A}}
grpc: {prober: grpc, grpc: {tls: true, preferred_ip_protocol: ip4}}
grpc_plain: {prober: grpc, grpc: {preferred_ip_protocol: ip4}}
`

func defaultModules() Modules {
	var m Modules
	if err := yaml.Unmarshal([]byte(defaultText), &m); err != nil {
		panic("probe: default modules: " + err.Error())
	}
	return m
}

// orDefault is what a key modules without a value means: it has emptied m.
func (m Modules) orDefault() Modules {
	if m == nil {
		return defaultModules()
	}
	return m
}

// UnmarshalYAML adds the modules of a mapping to those that are there; one of
// the same name is replaced as a whole. blackbox_exporter's own decoding of a
// module holds, and a key that it does not know is an error at its place.
func (m *Modules) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return strictyaml.Errors{{Line: n.Line, Column: n.Column, Message: "modules: want names with modules, as in blackbox.yml"}}
	}
	all := Modules{}
	maps.Copy(all, *m)
	var errs strictyaml.Errors
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if seen[key.Value] {
			errs = append(errs, strictyaml.Error{Line: key.Line, Column: key.Column, Message: fmt.Sprintf("module %q is given twice; remove one", key.Value)})
			continue
		}
		seen[key.Value] = true
		module, err := decodeModule(key.Value, value)
		if err != nil {
			errs = append(errs, err...)
			continue
		}
		all[key.Value] = module
	}
	if len(errs) > 0 {
		return errs
	}
	*m = all
	return nil
}

// decodeModule reads one module strictly. A yaml.Node alone cannot be decoded
// so, only text can: the node is written as text, and lines of that text that
// messages name are traced back to where the node came from.
func decodeModule(name string, n *yaml.Node) (config.Module, strictyaml.Errors) {
	fail := func(at *yaml.Node, format string, args ...any) strictyaml.Errors {
		return strictyaml.Errors{{Line: at.Line, Column: at.Column, Message: "modules." + name + ": " + fmt.Sprintf(format, args...)}}
	}
	left := maxNodes
	plain, err := withoutAliases(n, &left, 0)
	if err != nil {
		return config.Module{}, fail(n, "%v", err)
	}
	text, err := yaml.Marshal(plain)
	if err != nil {
		return config.Module{}, fail(n, "%v", err)
	}
	var module config.Module
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	err = dec.Decode(&module)
	var typed *yaml.TypeError
	switch {
	case err == nil:
		return module, nil
	case !errors.As(err, &typed):
		return config.Module{}, fail(n, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var again yaml.Node
	if err := yaml.Unmarshal(text, &again); err != nil {
		return config.Module{}, fail(n, "%v", err)
	}
	places := map[int]*yaml.Node{}
	trace(again.Content[0], plain, places)
	var errs strictyaml.Errors
	for _, message := range typed.Errors {
		at := n
		if parts := lineOf.FindStringSubmatch(message); parts != nil {
			line, _ := strconv.Atoi(parts[1]) // digits alone
			if place := places[line]; place != nil {
				at = place
			}
			message = parts[2]
		}
		errs = append(errs, fail(at, "%s (see blackbox_exporter's CONFIGURATION.md)", typeName.ReplaceAllString(message, ""))...)
	}
	return config.Module{}, errs
}

var (
	lineOf   = regexp.MustCompile(`(?s)^line (\d+): (.*)$`)
	typeName = regexp.MustCompile(` in type config\.\w+`) // names of Go help nobody
)

// trace notes, for each line of the written text, the first node on it as it
// was written by the user.
func trace(written, original *yaml.Node, places map[int]*yaml.Node) {
	if _, known := places[written.Line]; !known {
		places[written.Line] = original
	}
	for i := range min(len(written.Content), len(original.Content)) {
		trace(written.Content[i], original.Content[i], places)
	}
}

// withoutAliases copies a node, in block style so that each key has a line of
// its own, with what its aliases name in their place.
func withoutAliases(n *yaml.Node, left *int, depth int) (*yaml.Node, error) {
	if *left--; *left < 0 || depth > 100 {
		return nil, fmt.Errorf("aliases multiply to more than %d values; write fewer of them", maxNodes)
	}
	if n.Kind == yaml.AliasNode {
		named, err := withoutAliases(n.Alias, left, depth+1)
		if err == nil {
			named.Line, named.Column = n.Line, n.Column
		}
		return named, err
	}
	out := *n
	out.Anchor, out.Content = "", nil
	out.HeadComment, out.LineComment, out.FootComment = "", "", ""
	if n.Kind != yaml.ScalarNode {
		out.Style &^= yaml.FlowStyle
	}
	for _, c := range n.Content {
		inner, err := withoutAliases(c, left, depth+1)
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, inner)
	}
	return &out, nil
}

// validate says which module cannot be run.
func (m Modules) validate() error {
	if len(m) > MaxModules {
		return fmt.Errorf("modules has %d entries, at most %d are kept", len(m), MaxModules)
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		module := m[name]
		if probers[module.Prober] == nil {
			return fmt.Errorf("modules.%s.prober is %q; there are %s", name, module.Prober, strings.Join(slices.Sorted(maps.Keys(probers)), ", "))
		}
		if module.Timeout < 0 {
			return fmt.Errorf("modules.%s.timeout is %v: give a time above 0, or leave it out", name, module.Timeout)
		}
		// Without the section none of its defaults hold, the one that matters
		// most among them: the question.
		if module.Prober == "dns" && module.DNS.QueryName == "" {
			return fmt.Errorf("modules.%s.dns is missing: give query_name, what to ask for", name)
		}
	}
	return nil
}

// bounded gives a module that holds bodies a limit for them.
func bounded(m config.Module) config.Module {
	h := &m.HTTP
	matches := len(h.FailIfBodyMatchesRegexp) + len(h.FailIfBodyNotMatchesRegexp)
	if h.FailIfBodyJsonMatchesCEL != nil || h.FailIfBodyJsonNotMatchesCEL != nil {
		matches++
	}
	if matches > 0 && h.BodySizeLimit == 0 {
		h.BodySizeLimit = maxBody
	}
	return m
}
