package dashboards

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"nines/pkg/metric"
	"nines/pkg/sla"
)

var update = flag.Bool("update", false, "write the golden files")

func objectives(t testing.TB) []sla.Objective {
	t.Helper()
	var out []sla.Objective
	for i, target := range []string{"0.995", "0.9999", "1"} {
		v, err := sla.ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		o := sla.Objective{Service: "shop", SLO: fmt.Sprintf("slo-%d", i), Name: "0", Title: fmt.Sprintf("Promise “%d” of \"shop\"", i), Target: v, SLI: sla.SLI{Good: "a", Total: "b"}}
		o.ID = sla.ObjectiveID("", "", o.SLO, o.Name, nil, o.SLI)
		out = append(out, o)
	}
	out[2].Title = ""
	return out
}

func TestDashboardsAreTheGoldenOnes(t *testing.T) {
	files, err := Files(objectives(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s differs from the golden file; look at the difference after go test ./dashboards -update", name)
		}
	}
	golden, err := filepath.Glob("testdata/*.json")
	if err != nil || len(golden) != len(files) {
		t.Errorf("%d golden files for %d dashboards (%v)", len(golden), len(files), err)
	}
}

func TestSameObjectivesGiveTheSameBytes(t *testing.T) {
	a, err := Files(objectives(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Files(objectives(t))
	if err != nil {
		t.Fatal(err)
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s differs between two runs", name)
		}
	}
}

func TestEachObjectiveHasALightAtItsTarget(t *testing.T) {
	objs := objectives(t)
	b := Build(objs, Roles()[0])
	var row Row
	for _, r := range b.Rows {
		if r.Title == "Each promise against its target" {
			row = r
		}
	}
	if len(row.Panels) != len(objs) {
		t.Fatalf("%d lights for %d objectives", len(row.Panels), len(objs))
	}
	if p := row.Panels[1]; p.Steps[1] != (Step{.9999, "green"}) || p.Steps[0].Colour != "red" || !strings.Contains(p.Queries[0].Expr, objs[1].ID.String()) {
		t.Errorf("the light of a target of 99.99 %% is %+v", p)
	}
	if row.Panels[2].Title != "slo-2" {
		t.Errorf("an objective without a title is shown as %q", row.Panels[2].Title)
	}
	many := make([]sla.Objective, lights+1)
	for _, r := range Build(many, Roles()[0]).Rows {
		if r.Title == row.Title {
			t.Errorf("%d objectives make a wall of %d lights", len(many), len(r.Panels))
		}
	}
}

func TestWriteReplacesItsFilesAndNamesWhatIsWrong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "boards")
	if err := Write(dir, nil); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, objectives(t)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(Roles()) {
		t.Fatalf("%d files for %d roles (%v)", len(entries), len(Roles()), err)
	}
	if err := Write(filepath.Join(dir, "oncall.json", "sub"), nil); err == nil || !strings.Contains(err.Error(), "choose another folder") {
		t.Errorf("a file in the way gives %v", err)
	}
}

// counters are read with rate, increase, changes or last_over_time only: their
// bare value says nothing.
var counterReaders = map[string]bool{"rate": true, "increase": true, "irate": true, "last_over_time": true, "changes": true}

func TestEveryExpressionParsesAndSelectsWithTheBoardsVariables(t *testing.T) {
	parse := parser.NewParser(parser.Options{})
	known := map[string]bool{}
	for _, d := range metric.All() {
		known[d.Name] = true
	}
	n := 0
	for _, role := range Roles() {
		for _, e := range Expressions(Build(objectives(t), role)) {
			n++
			if strings.Contains(e.PromQL, "$") {
				t.Errorf("%s, %s: a variable is left in %s", e.Board, e.Panel, e.PromQL)
			}
			expr, err := parse.ParseExpr(e.PromQL)
			if err != nil {
				t.Errorf("%s, %s: %v in\n%s", e.Board, e.Panel, err, e.PromQL)
				continue
			}
			parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
				v, ok := node.(*parser.VectorSelector)
				if !ok {
					return nil
				}
				want := []string{"service", "slo"}
				switch {
				case strings.HasPrefix(v.Name, "node_"), strings.HasPrefix(v.Name, "nines_agent_"), strings.HasPrefix(v.Name, "nines_log_"):
					want = []string{"job", "cluster"}
				}
				if !strings.HasPrefix(v.Name, "node_") && !known[v.Name] {
					t.Errorf("%s, %s: no program of ours exports %s", e.Board, e.Panel, v.Name)
				}
				for _, label := range want {
					if !slices.ContainsFunc(v.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == label }) {
						t.Errorf("%s, %s: %s is not chosen by %s", e.Board, e.Panel, v.Name, label)
					}
				}
				for _, m := range v.LabelMatchers {
					if slices.Contains([]string{"cluster", "node", "service", "slo"}, m.Name) && !m.Matches("") {
						t.Errorf("%s, %s: with all chosen, %s still needs the label", e.Board, e.Panel, m)
					}
				}
				if strings.HasSuffix(v.Name, "_total") && v.Name != metric.LedgerTotal {
					read := false
					for _, above := range path {
						if c, ok := above.(*parser.Call); ok && counterReaders[c.Func.Name] {
							read = true
						}
						if a, ok := above.(*parser.AggregateExpr); ok && (a.Op == parser.COUNT || a.Op == parser.GROUP) {
							read = true // asks which series there are, not what they say
						}
					}
					if !read {
						t.Errorf("%s, %s: the counter %s is read bare", e.Board, e.Panel, v.Name)
					}
				}
				return nil
			})
		}
	}
	if n < 60 {
		t.Errorf("only %d expressions were looked at", n)
	}
}

// board is what the rules below read of a generated dashboard.
type board struct {
	UID, Title, Description, Refresh string
	Editable                         *bool
	SchemaVersion                    int
	Tags                             []string
	Time                             struct{ From, To string }
	Links                            []struct {
		KeepTime, IncludeVars bool
	}
	Templating struct {
		List []struct {
			Name, Type, Label, Description, AllValue string
			Query                                    any
			Refresh                                  int
			IncludeAll, Multi                        bool
			Datasource                               datasource
		}
	}
	Annotations struct {
		List []struct {
			Name, Expr string
			Datasource datasource
		}
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		Collapsed                bool
		Panels                   []json.RawMessage
		Datasource               datasource
		GridPos                  struct{ X, Y, W, H int }
		FieldConfig              struct {
			Defaults struct {
				Unit, NoValue string
				Thresholds    struct{ Steps []struct{ Value *float64 } }
				Links         []struct{ Title, URL string }
			}
		}
		Targets []struct {
			RefID, Expr, Format string
			Datasource          datasource
		}
	}
}

type datasource struct{ Type, UID string }

// rate intervals that do not follow the scrape interval break on slow sources;
// windows of minutes that a panel's text names are meant.
var shortRate = regexp.MustCompile(`rate\([^[]*\[[0-9]+s\]`)

// TestEveryDashboardKeepsTheRules are the rules of grafana's dashboard-linter
// that apply to us, and those of our own conventions.
func TestEveryDashboardKeepsTheRules(t *testing.T) {
	files, err := Files(objectives(t))
	if err != nil {
		t.Fatal(err)
	}
	uids, titles := map[string]bool{}, map[string]bool{}
	for name, data := range files {
		var d board
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		bad := func(format string, args ...any) { t.Helper(); t.Errorf(name+": "+format, args...) }
		if d.UID == "" || len(d.UID) > 40 || uids[d.UID] || titles[d.Title] || d.Title == "" {
			bad("uid %q and title %q must be there, short and unique", d.UID, d.Title)
		}
		uids[d.UID], titles[d.Title] = true, true
		if d.Description == "" || d.Editable == nil || *d.Editable || d.SchemaVersion < 36 || !slices.Contains(d.Tags, "nines") {
			bad("wants a description, editable false, a schema version and the tag: %+v", d)
		}
		if !slices.Contains([]string{"1m", "5m", "15m"}, d.Refresh) {
			bad("refreshes every %q: at least a minute", d.Refresh)
		}
		if len(d.Links) != 1 || !d.Links[0].KeepTime || !d.Links[0].IncludeVars {
			bad("has no link to the other boards that keeps time and variables")
		}
		for i, v := range d.Templating.List {
			if v.Label == "" || v.Description == "" {
				bad("variable %s has no label or description", v.Name)
			}
			if i == 0 {
				if v.Name != "datasource" || v.Type != "datasource" || v.Query != "prometheus" {
					bad("the first variable is %+v, not the data source", v)
				}
				continue
			}
			if v.Type != "query" || v.Refresh != 2 || !v.IncludeAll || !v.Multi || v.AllValue != ".*" || v.Datasource.UID != "${datasource}" {
				bad("variable %s must be asked again when the time changes and have an All that matches a missing label: %+v", v.Name, v)
			}
		}
		for _, a := range d.Annotations.List {
			if a.Datasource.UID != "${datasource}" || a.Expr == "" {
				bad("annotation %s has another data source or no expression", a.Name)
			}
		}
		ids, seen := map[int]bool{}, map[string]bool{}
		type place struct{ y, h int }
		var last place
		for _, p := range d.Panels {
			if p.ID == 0 || ids[p.ID] {
				bad("panel %q has the id %d, which is 0 or taken", p.Title, p.ID)
			}
			ids[p.ID] = true
			if p.Title == "" || seen[p.Title] {
				bad("two panels are called %q, or one has no name", p.Title)
			}
			seen[p.Title] = true
			if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
				bad("panel %q lies outside the grid: %+v", p.Title, p.GridPos)
			}
			if p.GridPos.Y == last.y && p.GridPos.X > 0 && p.GridPos.H != last.h {
				bad("panel %q is %d high beside one of %d", p.Title, p.GridPos.H, last.h)
			}
			if p.GridPos.Y < last.y || p.GridPos.X == 0 && last.h > 0 && p.GridPos.Y != last.y+last.h {
				bad("panel %q lies at %+v behind one at line %d, %d high", p.Title, p.GridPos, last.y, last.h)
			}
			last = place{p.GridPos.Y, p.GridPos.H}
			if p.Type == "row" {
				if p.Collapsed || len(p.Panels) > 0 {
					bad("row %q is collapsed or holds its panels", p.Title)
				}
				continue
			}
			f := p.FieldConfig.Defaults
			if len(p.Description) < 20 || !strings.HasSuffix(p.Description, ".") || f.Unit == "" || len(f.NoValue) < 8 || !strings.HasSuffix(f.NoValue, ".") {
				bad("panel %q needs a unit, a description and a text for no data, both sentences: %q, %q, %q", p.Title, f.Unit, p.Description, f.NoValue)
			}
			if p.Datasource.UID != "${datasource}" || p.Datasource.Type != "prometheus" {
				bad("panel %q has the data source %+v", p.Title, p.Datasource)
			}
			if len(f.Thresholds.Steps) == 0 || f.Thresholds.Steps[0].Value != nil {
				bad("panel %q has no base colour", p.Title)
			}
			if len(f.Links) == 0 || !strings.Contains(f.Links[0].URL, "${__url_time_range}") || !strings.Contains(f.Links[0].URL, "${datasource:queryparam}") {
				bad("panel %q leads nowhere, or loses the time range or data source: %v", p.Title, f.Links)
			} else if uid, _, _ := strings.Cut(strings.TrimPrefix(f.Links[0].URL, "/d/"), "/"); files[strings.TrimPrefix(uid, "nines-")+".json"] == nil {
				bad("panel %q leads to %s, which is no board", p.Title, uid)
			}
			if len(p.Targets) == 0 {
				bad("panel %q asks nothing", p.Title)
			}
			refs := map[string]bool{}
			for _, q := range p.Targets {
				if refs[q.RefID] || q.Expr == "" || q.Datasource.UID != "${datasource}" {
					bad("panel %q has a query without expression, with a taken name or another data source: %+v", p.Title, q)
				}
				refs[q.RefID] = true
				if shortRate.MatchString(q.Expr) {
					bad("panel %q has a fixed rate interval of seconds: %s", p.Title, q.Expr)
				}
			}
		}
		if len(d.Panels) < 8 {
			bad("has only %d panels", len(d.Panels))
		}
	}
}
