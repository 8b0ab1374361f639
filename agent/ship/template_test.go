package ship

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	mappingsPath = "/_component_template/" + mappingsTemplate
	settingsPath = "/_component_template/" + settingsTemplate
	indexPath    = "/_index_template/" + templateName
)

// puts returns the templates that were put, in order.
func (f *fixture) puts() []seen {
	f.cluster.mu.Lock()
	defer f.cluster.mu.Unlock()
	var all []seen
	for _, s := range f.cluster.seen {
		if s.asked.Method == http.MethodPut {
			all = append(all, s)
		}
	}
	return all
}

func pathsOf(all []seen) []string {
	var paths []string
	for _, s := range all {
		paths = append(paths, s.path)
	}
	return paths
}

func TestTemplatesAreTheGoldenOnes(t *testing.T) {
	withRetention := ElasticsearchConfig{Retention: "30d"}
	withPolicy := ElasticsearchConfig{ILMPolicy: "logs"}
	for name, text := range map[string]string{
		"mappings-elasticsearch.json": mappings(bestTypes),
		"mappings-opensearch.json":    mappings(fieldTypes{flatObject, "match_only_text"}),
		"mappings-plain.json":         mappings(fieldTypes{plainLabels, "text"}),
		"settings-kept.json":          settings("", "", false, ElasticsearchConfig{}),
		"settings-retention.json":     settings("30d", "", false, withRetention),
		"settings-left-out.json":      settings("", "", true, withRetention),
		"settings-ilm.json":           settings("", "logs", false, withPolicy), // unproven on a real server
		"index-template.json":         indexTemplate(true),
		"index-template-old.json":     indexTemplate(false),
	} {
		if !json.Valid([]byte(text)) {
			t.Errorf("%s is no JSON", name)
		}
		golden(t, name, text)
	}
}

func TestTemplatesArePutOnceAndBeforeTheFirstRecords(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.ship(t, "a b", sent(Stored, 2)...)
		f.ship(t, "c", Stored)
		want := []string{mappingsPath, mappingsPath, settingsPath, settingsPath, indexPath, indexPath, "/_bulk", "/_bulk"}
		if got := pathsOf(f.cluster.seen); !slices.Equal(got, want) {
			t.Errorf("the cluster saw %q, want %q", got, want)
		}
		if len(f.Notes()) != 0 || f.logged.Len() != 0 {
			t.Errorf("notes %q, logged:\n%s", f.Notes(), f.logged)
		}
	})
}

func TestTemplatesArePutOnceByConcurrentCalls(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		var calls sync.WaitGroup
		for i := range 8 {
			calls.Go(func() { f.ship(t, fmt.Sprintf("%d-a %[1]d-b", i), sent(Stored, 2)...) })
		}
		calls.Wait()
		if n := len(f.puts()); n != 3 {
			t.Errorf("%d templates were put, want three", n)
		}
	})
}

func ours(version int, more string) string {
	return fmt.Sprintf(`{"_meta":{"managed_by":"nines-agent","version":%d%s}}`, version, more)
}

func TestTemplatesOfTheSameOrANewerVersionAreLeftAlone(t *testing.T) {
	for _, test := range []struct {
		name      string
		version   int
		settings  string // more of its _meta
		retention string
		want      []string
	}{
		{"the same", templateVersion, "", "", nil},
		{"newer", templateVersion + 1, "", "", nil},
		{"newer with another retention", templateVersion + 1, `,"retention":"9d"`, "30d", nil},
		{"older", templateVersion - 1, "", "", []string{mappingsPath, settingsPath, indexPath}},
		{"of a time before versions", 0, "", "", []string{mappingsPath, settingsPath, indexPath}},
		{"the same with the same retention", templateVersion, `,"retention":"30d"`, "30d", nil},
		{"the same with another retention", templateVersion, `,"retention":"9d"`, "30d", []string{settingsPath}},
		{"the same with a retention that is gone", templateVersion, `,"retention":"9d"`, "", []string{settingsPath}},
		{"the same with a policy that is gone", templateVersion, `,"ilm_policy":"x"`, "", []string{settingsPath}},
		{"the same with what was left out", templateVersion, `,"retention":"30d","left_out":true`, "30d", []string{settingsPath}},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, func(cfg *ElasticsearchConfig) { cfg.Retention = test.retention }, func(t *testing.T, f *fixture) {
				f.cluster.known = map[string]string{
					mappingsPath: ours(test.version, ""), settingsPath: ours(test.version, test.settings), indexPath: ours(test.version, ""),
				}
				f.ship(t, "a", Stored)
				if got := pathsOf(f.puts()); !slices.Equal(got, test.want) {
					t.Errorf("put %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestTemplateOfSomebodyElseIsNotTouchedAndHolds(t *testing.T) {
	for _, path := range []string{mappingsPath, settingsPath, indexPath} {
		for _, text := range []string{`{"_meta":{"managed_by":"fleet","managed":true}}`, `{}`, `{"_meta":"text"}`, `{"_meta":{"version":9}}`} {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.known = map[string]string{path: text}
				f.cluster.early = func(http.ResponseWriter, *http.Request) bool {
					if f.Hold() != "" { // it is renamed after a while
						f.cluster.mu.Lock()
						defer f.cluster.mu.Unlock()
						if f.cluster.known[path] == text {
							if !strings.Contains(f.Hold(), "is not of nines-agent") || !strings.Contains(f.Hold(), "rename or remove it") {
								t.Errorf("holds with %q", f.Hold())
							}
							delete(f.cluster.known, path)
						}
					}
					return false
				}
				f.ship(t, "a", Stored)
				if got := counts(f.set); got != "held=1 ok=1" {
					t.Errorf("%s with %s: counts %q", path, text, got)
				}
			})
		}
	}
}

// typeless answers as a server without the types.
func typeless(form string, types ...string) reply {
	return func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
		for _, name := range types {
			if strings.Contains(string(s.body), `"`+name+`"`) {
				whole(400, `{"error":{"type":"mapper_parsing_exception","reason":"`+fmt.Sprintf(form, name)+`"},"status":400}`)(c, w, r, s)
				return
			}
		}
		accept(c, w, r, s)
	}
}

func TestServerWithoutATypeGetsAnother(t *testing.T) {
	// As seen at OpenSearch 2.19.0 and 3.4.0, and at Elasticsearch 8.19.7.
	const openSearch = "Failed to parse mapping [_doc]: No handler for type [%s] declared on field [labels]"
	const elasticsearch = "Failed to parse mapping: The mapper type [%s] declared on field [labels] does not exist. It might have been created within a future version or requires a plugin to be installed. Check the documentation."
	for _, test := range []struct {
		name    string
		form    string
		without []string
		want    fieldTypes
		note    string
	}{
		{"OpenSearch", openSearch, []string{"flattened"}, fieldTypes{flatObject, "match_only_text"}, ""},
		{"Elasticsearch without a module", elasticsearch, []string{"match_only_text"}, fieldTypes{bestTypes.labels, "text"}, ""},
		{"old", openSearch, []string{"flattened", "flat_object", "match_only_text"}, fieldTypes{plainLabels, "text"}, "cannot be searched"},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.templates = slices.Repeat([]reply{typeless(test.form, test.without...)}, 9)
				f.ship(t, "a", Stored)
				if got := f.cluster.known[mappingsPath]; got != mappings(test.want) {
					t.Errorf("mappings\n%s", got)
				}
				if got := strings.Join(f.Notes(), "\n"); !strings.Contains(got, test.note) || (got == "") != (test.note == "") {
					t.Errorf("notes %q", got)
				}
				if got := counts(f.set); got != "ok=1" {
					t.Errorf("counts %q, want ok=1: what is expected is no failure", got)
				}
			})
		})
	}
}

func TestLifeThatTheServerDoesNotKnowIsLeftOutAndNoted(t *testing.T) {
	// As seen at OpenSearch 3.4.0, and at the Elasticsearch without ILM.
	for _, test := range []struct {
		name   string
		set    func(c *ElasticsearchConfig)
		answer string
		note   string
	}{
		{"retention", func(c *ElasticsearchConfig) { c.Retention = "30d" },
			`{"error":{"type":"x_content_parse_exception","reason":"[1:26] [component_template] failed to parse field [template]","caused_by":{"type":"x_content_parse_exception","reason":"[1:14] [template] unknown field [lifecycle]"}},"status":400}`,
			"retention 30d is not set: the server does not know the life cycle of data streams"},
		{"ilm_policy", func(c *ElasticsearchConfig) { c.ILMPolicy = "logs" },
			`{"error":{"type":"illegal_argument_exception","reason":"unknown setting [index.lifecycle.name] please check that any required plugins are installed"},"status":400}`,
			"ilm_policy logs is not set: the server does not know index life cycle management"},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, test.set, func(t *testing.T, f *fixture) {
				f.cluster.templates = []reply{accept, whole(400, test.answer), accept, whole(503, ""), whole(400, test.answer)}
				f.ship(t, "a", Stored)
				f.ship(t, "b", Stored)
				if got := f.cluster.known[settingsPath]; got != settings("", "", true, f.cfg) {
					t.Errorf("settings\n%s", got)
				}
				if got := f.Notes(); len(got) != 1 || !strings.Contains(got[0], test.note) || f.Hold() != "" {
					t.Errorf("notes %q, holds with %q", got, f.Hold())
				}
				if n := strings.Count(f.logged.String(), "could not be set up"); n != 1 {
					t.Errorf("told %d times:\n%s", n, f.logged)
				}
			})
		})
	}
}

func TestServerThatRequiresAllComponentsGetsNoCustomOne(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.templates = []reply{accept, accept, whole(400, `{"error":{"type":"x_content_parse_exception","reason":"[1:115] [index_template] unknown field [ignore_missing_component_templates]"},"status":400}`)}
		f.ship(t, "a", Stored)
		if got := f.cluster.known[indexPath]; got != indexTemplate(false) {
			t.Errorf("index template\n%s", got)
		}
	})
}

func TestTemplateThatIsNotTakenHoldsAllRecords(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer reply
		hold   string
		counts string
	}{
		{"refused", whole(400, `{"error":{"type":"illegal_argument_exception","reason":"bad template"},"status":400}`),
			"put the component template nines-logs-mappings: 400 Bad Request: illegal_argument_exception: bad template", "held=1 ok=1"},
		{"no right to", whole(403, `{"error":{"type":"security_exception","reason":"no"},"status":403}`),
			"give the user the rights to create documents and index templates", "held=1 ok=1"},
		{"server busy", whole(503, ``), "", "ok=1 retried=1"},
		{"too large", whole(413, ``), "", "ok=1 retried=1"},
		{"connection broken", breaksAfter(""), "", "ok=1 retried=1"},
		{"answer broken off", breaksAfter("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "", "ok=1 retried=1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.templates = []reply{test.answer}
				f.ship(t, "a b", sent(Stored, 2)...)
				all := f.cluster.requests(mappingsPath)
				if len(all) != 4 {
					t.Fatalf("%d requests about the mappings, want two looks and two puts", len(all))
				}
				if got := all[2].hold; !strings.Contains(got, test.hold) || (test.hold == "") != (got == "") {
					t.Errorf("holds with %q, want %q in it", got, test.hold)
				}
				if got := f.cluster.bulks(); !slices.Equal(got, []string{"a b"}) {
					t.Errorf("the cluster saw %q, want all once", got)
				}
				if got := counts(f.set); got != test.counts {
					t.Errorf("counts %q, want %q", got, test.counts)
				}
			})
		})
	}
}

func TestTemplateOfTheSamePriorityHoldsWithTheRemedy(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.templates = []reply{accept, accept, whole(400, `{"error":{"type":"illegal_argument_exception","reason":"index template [nines-logs] has index patterns [logs-nines.*-*] matching patterns from existing templates [theirs] with patterns (theirs => [logs-*-*]) that have the same priority [200], multiple index templates may not match during index creation, please use a different priority"},"status":400}`)}
		f.ship(t, "a", Stored)
		if got := f.cluster.requests(indexPath)[2].hold; !strings.Contains(got, "[theirs]") || !strings.HasSuffix(got, "give that template another priority than 200, or remove it") {
			t.Errorf("holds with %q", got)
		}
	})
}

func TestSearchForTemplatesThatFailsIsTriedAgain(t *testing.T) {
	for name, answer := range map[string]reply{
		"busy": whole(503, ""), "no JSON": whole(200, "<html>"), "broken": breaksAfter(""), "no right": whole(403, ""),
	} {
		t.Run(name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				first := true
				f.cluster.early = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != http.MethodGet || !first {
						return false
					}
					first = false
					answer(f.cluster, w, r, seen{})
					return true
				}
				f.ship(t, "a", Stored)
				if got := counts(f.set); got != "ok=1 retried=1" && got != "held=1 ok=1" {
					t.Errorf("counts %q", got)
				}
			})
		})
	}
}

func TestStreamsAreThoseOfTheCluster(t *testing.T) {
	if got := StreamOfContainers("Berlin 1"); got != "logs-kubernetes.container_logs-berlin_1" {
		t.Error(got)
	}
	if got := StreamOfFiles("Berlin 1"); got != "logs-nines.files-berlin_1" {
		t.Error(got)
	}
}
