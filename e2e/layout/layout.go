// Package layout holds the tests that keep the house in order: which folders
// stand at the top, which package may import which, what no program may link,
// that each package says what it is, and that no file names a machine. They
// read the source tree alone and need nothing but Go and git.
package layout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// module is the module's path.
const module = "nines"

// folders are the fixed names at the top, with what each owns.
var folders = map[string]string{
	"agent":      "the program on each node",
	"aggregator": "the program that receives, books, alerts, reports",
	"dashboards": "pure builders of dashboards and pages",
	"rules":      "shipped policy as data",
	"pkg":        "what everything may import",
	"deploy":     "charts, images, units",
	"e2e":        "both programs against real servers",
	"docs":       "the rules of counting and other living texts",
	".ci":        "what CI runs, and the tools in a module of their own",
}

// files are the fixed files at the top.
var files = []string{
	"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".editorconfig", ".gitignore",
}

// inside is what stands directly below the folders that are split by owner. A
// new name here is a new room of the house: say in the commit why an existing
// one does not do.
var inside = map[string][]string{
	"agent":      {"collect", "daemon", "fluentbit", "forward", "logs", "pods", "ship"},
	"aggregator": {"alert", "cluster", "evaluate", "grafana", "ledger", "report", "server", "store"},
	"pkg":        {"metric", "openslo", "ops", "sla", "strictyaml"},
}

// strayPaths returns a complaint for each path of the tree that has no place.
// Paths are relative to the top, with slashes.
func strayPaths(paths []string) []string {
	found := map[string]bool{}
	for _, path := range paths {
		top, rest, deeper := strings.Cut(path, "/")
		if !deeper {
			if !slices.Contains(files, top) {
				found[fmt.Sprintf("%s: a file has no place at the top; the fixed ones are %s", top, strings.Join(files, ", "))] = true
			}
			continue
		}
		if folders[top] == "" {
			found[fmt.Sprintf("%s/: a folder has no place at the top; the fixed ones are %s", top, strings.Join(slices.Sorted(maps.Keys(folders)), ", "))] = true
			continue
		}
		room, _, deeper := strings.Cut(rest, "/")
		if rooms := inside[top]; deeper && rooms != nil && room != "testdata" && !slices.Contains(rooms, room) {
			found[fmt.Sprintf("%s/%s/: %s holds %s and nothing else", top, room, top, strings.Join(rooms, ", "))] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// rule says what a package may import of this module. A package may always
// import what lies below pkg/, unless it lies there itself.
type rule struct {
	imports []string
	reason  string
}

// rules hold for a package and all below it; the longest matching path wins.
// Data flows one way: a package imports the one whose output it consumes.
var rules = map[string]rule{
	"agent":                 {[]string{"agent/daemon"}, "main only translates flags, signals and exit codes"},
	"agent/daemon":          {[]string{"agent/collect/cgroup", "agent/collect/kubelet", "agent/collect/node", "agent/collect/otlp", "agent/collect/probe", "agent/collect/scrape", "agent/collect/targets", "agent/forward", "agent/logs", "agent/pods", "agent/ship"}, "the wiring knows everything"},
	"agent/collect":         {nil, "it is the source: readings become samples"},
	"agent/collect/kubelet": {[]string{"agent/collect/scrape"}, "it says what is scraped"},
	"agent/collect/targets": {[]string{"agent/collect/scrape", "agent/pods"}, "pods become what is scraped"},
	"agent/pods":            {nil, "it asks the API server for the pods of this node, once for all who need them"},
	"agent/forward":         {nil, "it takes samples as pkg/metric has them, from whoever collects"},
	"agent/ship":            {nil, "it owns the record and its destinations"},
	"agent/logs":            {[]string{"agent/pods", "agent/ship"}, "pods say what records are of; it hands records to a destination and waits for verdicts"},
	"agent/fluentbit":       {[]string{"agent/fluentbit", "agent/ship"}, "it is another source of records"},

	"aggregator":          {[]string{"aggregator/server", "aggregator/store", "aggregator/ledger", "aggregator/evaluate", "aggregator/report", "dashboards", "rules"}, "subcommands read the state and write files"},
	"aggregator/server":   {[]string{"aggregator/alert", "aggregator/cluster", "aggregator/evaluate", "aggregator/grafana", "aggregator/ledger", "aggregator/report", "aggregator/store", "dashboards", "rules"}, "the wiring knows everything"},
	"aggregator/store":    {nil, "it takes samples from outside"},
	"aggregator/cluster":  {nil, "it takes objects from the API server"},
	"aggregator/ledger":   {nil, "it takes minutes as pkg/sla has them"},
	"aggregator/evaluate": {[]string{"aggregator/store", "aggregator/ledger"}, "samples come from the store, minutes go to the ledger and are read again"},
	"aggregator/alert":    {[]string{"aggregator/evaluate", "aggregator/ledger"}, "it consumes states"},
	"aggregator/report":   {[]string{"aggregator/evaluate", "aggregator/ledger"}, "it consumes the book"},
	"aggregator/grafana":  {[]string{"dashboards"}, "it consumes dashboards"},
	"dashboards":          {nil, "pure: definitions in, panels out"},
	"rules":               {nil, "data and its loader"},

	"pkg/sla":        {nil, "arithmetic stands on nothing"},
	"pkg/strictyaml": {nil, "it decodes for whoever owns a Config"},
	"pkg/ops":        {[]string{"pkg/metric", "pkg/strictyaml"}, "health and builds are series too; an unknown option names the nearest one, as an unknown key does"},
	"pkg/metric":     {nil, "names of series stand on nothing"},
	"pkg/openslo":    {[]string{"pkg/sla", "pkg/strictyaml"}, "documents become objectives"},

	"e2e":         {[]string{"e2e/harness", "e2e/parts"}, "tests see the programs from outside, as users do"},
	"e2e/parts":   {[]string{"e2e/parts"}, "it gets servers and starts none"},
	"e2e/harness": {[]string{"e2e/parts"}, "it starts what parts got"},
	"e2e/layout":  {nil, "it reads the source tree"},
	"e2e/bench":   {[]string{"e2e/harness", "e2e/parts"}, "it measures the programs from outside"},
	"e2e/soak":    {[]string{"aggregator/evaluate", "aggregator/ledger", "aggregator/store"}, "it tells them the time, so that hours pass in seconds: the programs read the clock"},
}

// badImport says why a package must not import another one of the module; it is
// empty where it may. Paths are relative to the module.
func badImport(from, to string) string {
	name := from
	r, ok := rules[name]
	for !ok {
		cut := strings.LastIndexByte(name, '/')
		if cut < 0 {
			return from + " has no rule: give it one, with its reason, in e2e/layout"
		}
		name = name[:cut]
		r, ok = rules[name]
	}
	if to == from || slices.Contains(r.imports, to) || below(to, "pkg") && !below(from, "pkg") {
		return ""
	}
	allowed := strings.Join(r.imports, ", ")
	if !below(from, "pkg") {
		allowed = strings.TrimPrefix(allowed+", pkg/…", ", ")
	}
	if allowed == "" {
		allowed = "nothing of the module"
	}
	return fmt.Sprintf("%s imports %s; it may import %s: %s", from, to, allowed, r.reason)
}

func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// heavy are packages of others that a program must not link, even by way of
// another one: path prefix to reason.
var heavy = map[string]map[string]string{
	"agent": {
		// Chunks and file helpers come with the scrape package.
		"github.com/prometheus/prometheus/tsdb/index":           "the agent keeps a queue, not a store",
		"github.com/prometheus/prometheus/tsdb/record":          "the agent keeps a queue, not a store",
		"github.com/prometheus/prometheus/tsdb/wlog":            "the agent keeps a queue, not a store",
		"github.com/prometheus/prometheus/discovery/install":    "it brings in every service discovery",
		"github.com/prometheus/prometheus/discovery/kubernetes": "the agent discovers what runs on its node only",
		"github.com/elastic/go-elasticsearch/v8/typedapi":       "858 generated packages; esapi does",
		"k8s.io/client-go/kubernetes":                           "the full clientset; metadata and rest do",
		module + "/aggregator":                                  "the agent runs on each node and carries nothing of the aggregator",
		"github.com/cockroachdb/pebble":                         "the ledger lives in the aggregator",
		"github.com/grafana/grafana-foundation-sdk":             "dashboards are made by the aggregator",
	},
	"aggregator": {
		"k8s.io/client-go/kubernetes":            "the full clientset; metadata and rest do",
		"github.com/elastic/go-elasticsearch/v8": "the aggregator ships no logs",
		// The bare package discovery comes with the query API and is small.
		"github.com/prometheus/prometheus/discovery/install":    "it brings in every service discovery",
		"github.com/prometheus/prometheus/discovery/kubernetes": "the aggregator discovers through informers only",
		module + "/agent": "the two programs share pkg alone",
	},
}

// tooHeavy returns a complaint for each package that a program must not link.
func tooHeavy(program string, deps []string) []string {
	var found []string
	for _, dep := range deps {
		for prefix, reason := range heavy[program] {
			if below(dep, prefix) {
				found = append(found, fmt.Sprintf("%s links %s: %s", program, dep, reason))
			}
		}
	}
	slices.Sort(found)
	return found
}
