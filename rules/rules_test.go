package rules

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"nines/pkg/metric"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

// indexName is what an objective without a displayName is called.
var indexName = regexp.MustCompile(`^\d+$`)

func objectives(t *testing.T) []sla.Objective {
	t.Helper()
	out, err := SLOs()
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatal("no SLO is shipped")
	}
	return out
}

// embedded lists the files of a folder on disk, and fails unless each of them
// comes with the program.
func embedded(t *testing.T, fsys fs.FS, folder, ext string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ext {
			t.Errorf("%s/%s does not end in %s and is not embedded", folder, e.Name(), ext)
			continue
		}
		if _, err := fs.Stat(fsys, folder+"/"+e.Name()); err != nil {
			t.Errorf("%s/%s is not embedded: %v", folder, e.Name(), err)
		}
		names = append(names, strings.TrimSuffix(e.Name(), ext))
	}
	if len(names) == 0 {
		t.Fatalf("%s holds no %s file", folder, ext)
	}
	return names
}

func TestEveryShippedFileIsOneSLOOfItsName(t *testing.T) {
	files := embedded(t, slos, "slos", ".yaml")
	var names []string
	for _, o := range objectives(t) {
		if !o.Shipped {
			t.Errorf("%s is not marked as shipped", o.SLO)
		}
		if !slices.Contains(names, o.SLO) {
			names = append(names, o.SLO)
		}
	}
	slices.Sort(names)
	if !slices.Equal(files, names) {
		t.Errorf("files are %q, SLOs are %q", files, names)
	}
	for _, name := range files {
		data, err := slos.ReadFile("slos/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		set := openslo.Load(map[string][]byte{name: data})
		for _, f := range set.Findings() {
			t.Error(f)
		}
		if len(set.Objectives()) == 0 {
			t.Errorf("%s.yaml makes no objective", name)
		}
	}
}

func TestEveryShippedObjectiveSaysWhatItPromises(t *testing.T) {
	seen := map[sla.ID]string{}
	for _, o := range objectives(t) {
		if old := seen[o.ID]; old != "" {
			t.Errorf("%s and %s have the same id", old, o.SLO)
		}
		seen[o.ID] = o.SLO
		for field, text := range map[string]string{"title": o.Title, "service": o.Service, "description": o.Description} {
			if text == "" {
				t.Errorf("%s has no %s", o.SLO, field)
			}
		}
		if indexName.MatchString(o.Name) {
			t.Errorf("objective %s of %s has no displayName", o.Name, o.SLO)
		}
		if len(o.Description) < 40 || !strings.HasSuffix(o.Description, ".") {
			t.Errorf("description of %s is no sentence: %q", o.SLO, o.Description)
		}
		if o.Target.IsZero() || o.Target.IsAll() {
			t.Errorf("target of %s is %s: it leaves nothing, or everything, to fail", o.SLO, o.Target)
		}
		if _, _, err := o.Window.Bounds(0); err != nil {
			t.Errorf("%s: %v", o.SLO, err)
		}
		for _, tier := range sla.Tiers {
			if !tier.CanFire(o.Target, o.Window.Rolling) {
				t.Errorf("tier %s of %s can never fire", tier.Name, o.SLO)
			}
		}
	}
	if _, err := openslo.Prometheus(objectives(t)); err != nil {
		t.Errorf("shipped SLOs cannot be exported: %v", err)
	}
}

// Ledgers hold these ids: a shipped SLO whose query changes begins a new book
// (R28), which belongs into the changelog.
func TestR28IDsOfShippedObjectivesAreStable(t *testing.T) {
	want := map[string]string{
		"log-delivery stored":              "c7e3bb399ceb4e77",
		"metric-delivery sent":             "e6c2c6f3f5d0a09b",
		"node-reachable heard each minute": "6da7d7149c4f0823",
		"query-availability answered":      "a805824aca805d45",
		"query-latency within 1 s":         "09dc717d7c32257c",
	}
	for _, o := range objectives(t) {
		if name := o.SLO + " " + o.Name; o.ID.String() != want[name] {
			t.Errorf("id of %q is %s, want %q", name, o.ID, want[name])
		} else {
			delete(want, name)
		}
	}
	if len(want) > 0 {
		t.Errorf("no objective has the ids %v", want)
	}
}

func TestEverySLOHasARunbookAndEveryRunbookAnSLO(t *testing.T) {
	files := embedded(t, runbooks, "runbooks", ".md")
	if got := Runbooks(); !slices.Equal(got, files) {
		t.Errorf("runbooks are %q, files are %q", got, files)
	}
	used := map[string]bool{}
	for _, o := range objectives(t) {
		if o.Runbook == "" {
			t.Errorf("%s names no runbook", o.SLO)
			continue
		}
		page, err := Runbook(o.Runbook)
		if err != nil {
			t.Errorf("%s: %v", o.SLO, err)
			continue
		}
		used[o.Runbook] = true
		if want := "# " + o.Title + "\n"; !strings.HasPrefix(page, want) {
			t.Errorf("runbook %s is not headed by the title of %s, %q", o.Runbook, o.SLO, o.Title)
		}
		at := 0
		for _, section := range []string{"\n## What it means\n", "\n## What it costs\n", "\n## What to look at\n", "\n## What to do\n"} {
			i := strings.Index(page, section)
			if i < at {
				t.Errorf("runbook %s lacks, or has out of order, the section %q", o.Runbook, strings.TrimSpace(section))
			}
			at = max(at, i)
		}
	}
	for _, name := range files {
		if !used[name] {
			t.Errorf("no SLO names runbook %s", name)
		}
	}
}

func TestRunbookThatIsNotThereNamesThoseThatAre(t *testing.T) {
	for _, name := range []string{"", "nothing", "../rules", "node-reachable.md"} {
		page, err := Runbook(name)
		if err == nil || page != "" || !strings.Contains(err.Error(), "node-reachable") {
			t.Errorf("runbook %q: %v, want an error that names the others", name, err)
		}
	}
}

// carried are the labels that every sample of ours has.
var carried = []string{"job", "instance", "cluster", "node"}

// definition finds a series of ours by its name; a histogram's parts are its
// own, le among the labels of its buckets.
func definition(name string) (d metric.Def, extra []string, found bool) {
	for _, d := range metric.All() {
		if d.Type == metric.Histogram {
			switch name {
			case d.Name + "_bucket":
				return d, []string{"le"}, true
			case d.Name + "_count", d.Name + "_sum":
				return d, nil, true
			}
			continue
		}
		if d.Name == name {
			return d, nil, true
		}
	}
	return metric.Def{}, nil, false
}

func TestEveryQueryReadsACounterThatWeExposeByItsLabels(t *testing.T) {
	for _, o := range objectives(t) {
		for _, query := range []string{o.SLI.Good, o.SLI.Bad, o.SLI.Total} {
			if query == "" {
				continue
			}
			ms, err := openslo.ParseCounter(query)
			if err != nil {
				t.Errorf("%s: %v", o.SLO, err)
				continue
			}
			i := slices.IndexFunc(ms, func(m *labels.Matcher) bool { return m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual })
			if i < 0 {
				t.Errorf("%s: %s names no series", o.SLO, query)
				continue
			}
			d, extra, found := definition(ms[i].Value)
			if !found {
				t.Errorf("%s: no series of ours is named %s", o.SLO, ms[i].Value)
				continue
			}
			if d.Type != metric.Counter && d.Type != metric.Histogram {
				t.Errorf("%s: %s is a %s and counts no events", o.SLO, d.Name, d.Type)
			}
			for _, m := range ms {
				if m.Name != model.MetricNameLabel && !slices.Contains(slices.Concat(d.Labels, extra, carried), m.Name) {
					t.Errorf("%s: %s has no label %s, it has %q", o.SLO, d.Name, m.Name, d.Labels)
				}
			}
		}
	}
}

// The text of a verdict is in pkg/metric; a query that selects another one finds
// no series, and nothing says so.
func TestEveryVerdictInAQueryIsOneThatIsCounted(t *testing.T) {
	verdicts := map[string]string{metric.AgentMetricSamples: metric.SampleSent, metric.LogRecordsTotal: "stored"}
	met := 0
	for _, o := range objectives(t) {
		ms, err := openslo.ParseCounter(o.SLI.Good + o.SLI.Bad)
		if err != nil {
			t.Fatal(err)
		}
		name := ""
		for _, m := range ms {
			if m.Name == model.MetricNameLabel {
				name = m.Value
			}
		}
		for _, m := range ms {
			if m.Name != "verdict" && m.Name != "state" {
				continue
			}
			met++
			if want := verdicts[name]; m.Value != want || m.Type != labels.MatchEqual {
				t.Errorf("%s: good events have %s, want the verdict %q", o.SLO, m, want)
			}
			if help := metric.Help(name); !strings.Contains(help, m.Value) {
				t.Errorf("%s: %q is not among the verdicts that the help of %s lists: %s", o.SLO, m.Value, name, help)
			}
		}
	}
	if met != len(verdicts) {
		t.Errorf("%d queries select a verdict, want %d", met, len(verdicts))
	}
}

func TestRunbooksNameOnlySeriesThatExist(t *testing.T) {
	name := regexp.MustCompile(`\bnines_[a-z0-9_]+`)
	met := 0
	for _, book := range Runbooks() {
		page, err := Runbook(book)
		if err != nil {
			t.Fatal(err)
		}
		for _, series := range name.FindAllString(page, -1) {
			met++
			if _, _, found := definition(series); !found {
				t.Errorf("runbook %s names %s, which no program of ours exposes", book, series)
			}
		}
	}
	if met == 0 {
		t.Error("no runbook names a series: the pattern finds nothing")
	}
}

// Only heartbeats turn silence into bad events (R18).
func TestR18OnlyNodeReachableCountsAbsenceAsBad(t *testing.T) {
	for _, o := range objectives(t) {
		if want := o.SLO == "node-reachable"; o.AbsentBad != want {
			t.Errorf("%s: absence is bad: %t, want %t", o.SLO, o.AbsentBad, want)
		}
	}
}
