package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"
)

// Our templates. The managed ones (logs, logs@mappings, …) are not touched; the
// component that ends in @custom is the user's and is never written by us.
const (
	templateName     = "nines-logs"
	mappingsTemplate = "nines-logs-mappings"
	settingsTemplate = "nines-logs-settings"
	customTemplate   = "nines-logs@custom"
	managedBy        = "nines-agent"
	// templateVersion goes up with each change of our templates. What is there
	// with the same or a newer one is left as it is.
	templateVersion = 2
)

// StreamOfFiles returns the data stream of followed files of a cluster, by the
// naming scheme type-dataset-namespace.
func StreamOfFiles(cluster string) string { return "logs-" + DatasetFiles + "-" + Namespace(cluster) }

// StreamOfContainers returns the data stream of container logs of a cluster. It
// is one for all of its Kubernetes namespaces: one for each would meet the
// limit of 1,000 shards of a node.
func StreamOfContainers(cluster string) string {
	return "logs-" + DatasetContainers + "-" + Namespace(cluster)
}

// Datasets. That of containers is the name that Elastic's own Kubernetes
// integration uses, and Kibana looks for.
const (
	DatasetFiles      = "nines.files"
	DatasetContainers = "kubernetes.container_logs"
)

// Namespace makes a cluster's name into what data_stream.namespace allows:
// lower case, none of \/*?"<>| ,#: or -, at most 100 bytes, and not empty.
func Namespace(name string) string {
	if name == "" {
		return "default" // Elasticsearch's own
	}
	out := make([]byte, 0, len(name))
	for _, c := range []byte(name) {
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_':
		default:
			c = '_'
		}
		out = append(out, c)
	}
	return string(out[:min(len(out), 100)])
}

// fieldTypes are those that not every server has, with what stands in for
// them. Labels and annotations are flattened, so that app and
// app.kubernetes.io/name can stand beside each other and their number does not
// meet the limit of 1,000 fields: flattened is Elasticsearch's, flat_object
// OpenSearch's; without either they are kept and not indexed.
type fieldTypes struct{ labels, message string }

var bestTypes = fieldTypes{labels: `{"type": "flattened"}`, message: "match_only_text"}

const (
	flatObject  = `{"type": "flat_object"}`
	plainLabels = `{"type": "object", "enabled": false}`
)

// without returns what to try when the server does not know a type.
func (t fieldTypes) without(unknown string) (fieldTypes, bool) {
	switch unknown {
	case "flattened":
		t.labels = flatObject
	case "flat_object":
		t.labels = plainLabels
	case "match_only_text":
		t.message = "text"
	default:
		return t, false
	}
	return t, true
}

// unknownType returns the type of a field that the server does not have, from
// Elasticsearch's "The mapper type [x] declared on field [y] does not exist"
// and OpenSearch's "No handler for type [x] declared on field [y]".
func unknownType(reason string) string {
	if !strings.Contains(reason, "does not exist") && !strings.Contains(reason, "No handler for type") {
		return ""
	}
	_, name, _ := strings.Cut(reason, "type [")
	name, _, _ = strings.Cut(name, "]")
	return name
}

// keywords are fields whose values are looked up as a whole, under ECS names.
var keywords = strings.Fields(`agent.name agent.type agent.version container.id container.image.name
container.image.tag container.name container.runtime data_stream.dataset data_stream.namespace data_stream.type
ecs.version event.dataset event.kind event.module host.hostname host.name kubernetes.container.name
kubernetes.cronjob.name kubernetes.daemonset.name kubernetes.deployment.name kubernetes.job.name
kubernetes.namespace kubernetes.node.name kubernetes.node.uid kubernetes.pod.name kubernetes.pod.uid
kubernetes.replicaset.name kubernetes.statefulset.name log.file.path log.flags log.level log.logger
nines.labels_left_out orchestrator.cluster.id orchestrator.cluster.name orchestrator.type service.environment service.name service.namespace service.version
span.id stream trace.id`)

// mappings are the fields that our documents have.
func mappings(t fieldTypes) string {
	fields := map[string]string{
		"@timestamp": "date", "event.created": "date", "event.ingested": "date", "message": t.message,
		"kubernetes.pod.ip": "ip", "log.offset": "long", "nines.bytes_cut": "long", "nines.message_base64": "binary",
	}
	for _, k := range keywords {
		fields[k] = "keyword"
	}
	tree := map[string]any{}
	put := func(path string, definition any) {
		names := strings.Split(path, ".")
		at := tree
		for _, name := range names[:len(names)-1] {
			if at[name] == nil {
				at[name] = map[string]any{"properties": map[string]any{}}
			}
			at = at[name].(map[string]any)["properties"].(map[string]any)
		}
		at[names[len(names)-1]] = definition
	}
	for path, kind := range fields {
		switch {
		case kind == "ip":
			put(path, map[string]any{"type": kind, "ignore_malformed": true})
		case kind == "keyword":
			put(path, map[string]any{"type": kind, "ignore_above": 1024})
		default:
			put(path, map[string]any{"type": kind})
		}
	}
	for _, path := range []string{"kubernetes.labels", "kubernetes.annotations", "resource.attributes"} {
		put(path, json.RawMessage(t.labels))
	}
	return indent(map[string]any{
		"template": map[string]any{"mappings": map[string]any{
			"date_detection": false,
			"dynamic_templates": []any{map[string]any{"texts": map[string]any{
				"match_mapping_type": "string", "mapping": map[string]any{"type": "keyword", "ignore_above": 1024},
			}}},
			"properties": tree,
		}},
		"_meta": map[string]any{"description": "Fields of log records of nines-agent", "managed_by": managedBy, "version": templateVersion},
	})
}

// settings hold how long records are kept. What a server does not know is left
// out, and that stands in _meta so that it is tried again.
func settings(retention, policy string, leftOut bool, c ElasticsearchConfig) string {
	template := map[string]any{"settings": map[string]any{}}
	if retention != "" {
		template["lifecycle"] = map[string]any{"data_retention": retention}
	}
	if policy != "" {
		template["settings"] = map[string]any{"index.lifecycle.name": policy}
	}
	return indent(map[string]any{
		"template": template,
		"_meta": map[string]any{
			"description": "Life of log records of nines-agent; change it by retention or ilm_policy of the agent", "managed_by": managedBy,
			"version": templateVersion, "retention": c.Retention, "ilm_policy": c.ILMPolicy, "left_out": leftOut,
		},
	})
}

// indexTemplate matches every stream that we write. Its priority is above that
// of the managed one (100).
func indexTemplate(custom bool) string {
	t := map[string]any{
		"index_patterns": []string{"logs-nines.*-*", "logs-" + DatasetContainers + "-*"},
		"priority":       200,
		"data_stream":    map[string]any{},
		"composed_of":    []string{mappingsTemplate, settingsTemplate},
		"_meta":          map[string]any{"description": "Log records of nines-agent", "managed_by": managedBy, "version": templateVersion},
	}
	if custom {
		t["composed_of"] = []string{mappingsTemplate, settingsTemplate, customTemplate}
		t["ignore_missing_component_templates"] = []string{customTemplate}
	}
	return indent(t)
}

func indent(v any) string {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetIndent("", "  ")
	if err := out.Encode(v); err != nil {
		panic(err) // all of it is ours
	}
	return b.String()
}

// meta is what a template says about itself.
type meta struct {
	ManagedBy string `json:"managed_by"`
	Version   int    `json:"version"`
	Retention string `json:"retention"`
	ILMPolicy string `json:"ilm_policy"`
	LeftOut   bool   `json:"left_out"`
}

// setUp puts our templates, once in each run, before the first records: a data
// stream without them would have fields of guessed types.
func (e *Elasticsearch) setUp(ctx context.Context) *trouble {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return &trouble{text: "another request still puts the templates " + templateName}
	}
	if e.templated {
		return nil
	}
	e.setNotes(nil)
	for _, put := range []func(context.Context) *trouble{e.putMappings, e.putSettings, e.putIndexTemplate} {
		if t := put(ctx); t != nil {
			t.tooLarge, t.unsure = false, false // no records were sent
			return t
		}
	}
	e.templated = true
	for _, note := range e.Notes() {
		e.log.Warn("a part of the destination could not be set up; records are shipped all the same", "why", note)
	}
	return nil
}

func (e *Elasticsearch) setNotes(notes []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notes = notes
}

func (e *Elasticsearch) note(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notes = append(e.notes, fmt.Sprintf(format, args...))
}

func (e *Elasticsearch) putMappings(ctx context.Context) *trouble {
	there, t := e.templateOf(ctx, "component template", mappingsTemplate)
	if t != nil || there.Version >= templateVersion {
		return t
	}
	types := bestTypes
	for {
		f, t := e.putTemplate(ctx, "component template", mappingsTemplate, mappings(types))
		if t == nil {
			break
		}
		next, ok := types.without(unknownType(f.reason))
		if !ok {
			return t
		}
		types = next
	}
	if types.labels == plainLabels {
		e.note("kubernetes.labels and kubernetes.annotations are kept and cannot be searched: the server has neither the type flattened nor flat_object")
	}
	return nil
}

func (e *Elasticsearch) putSettings(ctx context.Context) *trouble {
	there, t := e.templateOf(ctx, "component template", settingsTemplate)
	same := there.Retention == e.cfg.Retention && there.ILMPolicy == e.cfg.ILMPolicy && !there.LeftOut
	if t != nil || there.Version > templateVersion || there.Version == templateVersion && same {
		return t
	}
	retention, policy := e.cfg.Retention, e.cfg.ILMPolicy
	f, t := e.putTemplate(ctx, "component template", settingsTemplate, settings(retention, policy, false, e.cfg))
	switch {
	case t == nil:
		return nil
	case retention != "" && strings.Contains(f.text, "lifecycle"):
		e.note("retention %s is not set: the server does not know the life cycle of data streams (%s); remove old records by the server's own means", retention, f.text)
	case policy != "" && strings.Contains(f.text, "index.lifecycle"):
		e.note("ilm_policy %s is not set: the server does not know index life cycle management (%s); use retention, or the server's own means", policy, f.text)
	default:
		return t
	}
	_, t = e.putTemplate(ctx, "component template", settingsTemplate, settings("", "", true, e.cfg))
	return t
}

func (e *Elasticsearch) putIndexTemplate(ctx context.Context) *trouble {
	there, t := e.templateOf(ctx, "index template", templateName)
	if t != nil || there.Version >= templateVersion {
		return t
	}
	f, t := e.putTemplate(ctx, "index template", templateName, indexTemplate(true))
	if t != nil && strings.Contains(f.text, "ignore_missing_component_templates") {
		f, t = e.putTemplate(ctx, "index template", templateName, indexTemplate(false))
	}
	if t != nil && strings.Contains(f.reason, "same priority") {
		t.text += ": give that template another priority than 200, or remove it"
	}
	return t
}

// templateOf returns what the template of the name says about itself; nothing
// where there is none. One that is not ours holds.
func (e *Elasticsearch) templateOf(ctx context.Context, kind, name string) (meta, *trouble) {
	var res *esapi.Response
	var err error
	if kind == "index template" {
		res, err = esapi.IndicesGetIndexTemplateRequest{Name: name, FilterPath: []string{"index_templates.name", "index_templates.index_template._meta"}}.Do(ctx, e.client)
	} else {
		res, err = esapi.ClusterGetComponentTemplateRequest{Name: []string{name}, FilterPath: []string{"component_templates.name", "component_templates.component_template._meta"}}.Do(ctx, e.client)
	}
	body, t := e.read(res, err)
	switch {
	case t != nil:
		return meta{}, t
	case res.StatusCode == http.StatusNotFound:
		return meta{}, nil
	case res.StatusCode != http.StatusOK:
		_, t := ofRequest(res.StatusCode, body, 0, e.cfg.unauthorized())
		t.text = "look for the " + kind + " " + name + ": " + t.text
		return meta{}, t
	}
	there, found, err := parseTemplates(body, name)
	if err != nil {
		return meta{}, &trouble{text: fmt.Sprintf("look for the %s %s: the answer is not understood (%v): %s", kind, name, err, clip(string(body)))}
	}
	if found && there.ManagedBy != managedBy {
		return meta{}, &trouble{held: true, text: fmt.Sprintf("the %s %s is not of nines-agent (its _meta.managed_by is %q): rename or remove it, since that name is needed", kind, name, clip(there.ManagedBy))}
	}
	return there, nil
}

// parseTemplates reads the answer to a search for templates.
func parseTemplates(body []byte, name string) (there meta, found bool, err error) {
	type entry struct {
		Name  string
		Index struct {
			Meta json.RawMessage `json:"_meta"`
		} `json:"index_template"`
		Component struct {
			Meta json.RawMessage `json:"_meta"`
		} `json:"component_template"`
	}
	var answer struct {
		Index     []entry `json:"index_templates"`
		Component []entry `json:"component_templates"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return meta{}, false, err
	}
	for _, t := range slices.Concat(answer.Index, answer.Component) {
		if t.Name != name {
			continue
		}
		for _, m := range []json.RawMessage{t.Index.Meta, t.Component.Meta} {
			var of meta
			// Of another shape is of somebody else.
			if json.Unmarshal(m, &of) == nil && of != (meta{}) {
				there = of
			}
		}
		return there, true, nil
	}
	return meta{}, false, nil
}

// putTemplate also returns the error that the server gave.
func (e *Elasticsearch) putTemplate(ctx context.Context, kind, name, text string) (failure, *trouble) {
	var res *esapi.Response
	var err error
	header := http.Header{"Content-Type": {"application/json"}}
	if kind == "index template" {
		res, err = esapi.IndicesPutIndexTemplateRequest{Name: name, Body: strings.NewReader(text), Header: header}.Do(ctx, e.client)
	} else {
		res, err = esapi.ClusterPutComponentTemplateRequest{Name: name, Body: strings.NewReader(text), Header: header}.Do(ctx, e.client)
	}
	body, t := e.read(res, err)
	if t != nil || res.StatusCode == http.StatusOK {
		return failure{}, t
	}
	_, t = ofRequest(res.StatusCode, body, 0, e.cfg.unauthorized())
	t.text = "put the " + kind + " " + name + ": " + t.text
	if res.StatusCode != http.StatusBadRequest {
		return failure{}, t
	}
	return failureIn(body), t
}

// read reads the answer to a request about templates.
func (e *Elasticsearch) read(res *esapi.Response, err error) ([]byte, *trouble) {
	if err != nil {
		t := noAnswer(err)
		t.elsewhere = !t.held && e.hosts.others()
		return nil, t
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, &trouble{text: fmt.Sprintf("the answer broke off: %v", err)}
	}
	return body, nil
}
