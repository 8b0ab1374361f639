package openslo

import (
	"fmt"
	"testing"
)

func TestQueriesHaveTheirPlaceInSLOAndSLIDocuments(t *testing.T) {
	files := map[string][]byte{
		"own.yaml": []byte(`apiVersion: openslo/v1
kind: SLO
metadata: {name: own}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator:
    metadata: {name: own}
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: Prometheus
            spec:
              query: &q sum(rate(a_total[5m]))
        total:
          metricSource:
            type: Prometheus
            spec:
              query: *q
  objectives: [{target: 0.99}]
`),
		"sli.yaml": []byte(`apiVersion: openslo/v1
kind: SLI
metadata: {name: shared, namespace: prod}
spec:
  ratioMetric:
    counter: true
    bad: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(bad_total[5m]))'}}}
    total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(all_total[5m]))'}}}
`),
		"refers.yaml": []byte(`# A comment above.
apiVersion: openslo/v1
kind: SLO
metadata: {name: refers, namespace: prod}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicatorRef: shared
  objectives: [{target: 0.99}]
`),
		"broken.yaml": []byte("a: ["),
		"cycle.yaml":  []byte("kind: SLO\nmetadata: {name: cycle}\nspec: &s {a: *s, b: *s}\n"),
	}
	set := Load(files)
	if n := len(set.Objectives()); n != 2 {
		t.Fatalf("%d objectives, want 2: %v", n, set.Findings())
	}
	places := set.QueryPlaces()
	got := map[string]string{}
	for _, o := range set.Objectives() {
		for _, p := range places[o.ID] {
			got[o.SLO+" "+p.Side] = fmt.Sprintf("%s:%d:%d %s", p.Path, p.Line, p.Column, p.Query)
		}
	}
	want := map[string]string{
		"own good":     "own.yaml:17:22 sum(rate(a_total[5m]))",
		"own total":    "own.yaml:17:22 sum(rate(a_total[5m]))", // where the alias points
		"refers bad":   "sli.yaml:7:58 sum(rate(bad_total[5m]))",
		"refers total": "sli.yaml:8:60 sum(rate(all_total[5m]))",
	}
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s is at %q, want %q", k, got[k], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d places, want %d: %v", len(got), len(want), got)
	}
}

func TestQueryThatIsNotFoundIsPlacedAtItsSLO(t *testing.T) {
	files := map[string][]byte{"a.yaml": []byte(`apiVersion: openslo/v1
kind: SLO
metadata: {name: a}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  indicator:
    metadata: {name: a}
    spec:
      ratioMetric:
        counter: true
        good: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(a_total{code="200"}[5m]))'}}}
        total: {metricSource: {type: Prometheus, spec: {query: 'sum(rate(a_total[5m]))'}}}
  objectives: [{target: 0.99}]
`)}
	set := Load(files)
	if len(set.Objectives()) != 1 {
		t.Fatal(set.Findings())
	}
	set.objectives[0].SLI.Good = "sum(rate(other_total[5m]))"
	for _, p := range set.QueryPlaces()[set.objectives[0].ID] {
		line := 14
		if p.Side == "good" {
			line = 1
		}
		if p.Path != "a.yaml" || p.Line != line {
			t.Errorf("%s is at %s:%d, want line %d", p.Side, p.Path, p.Line, line)
		}
	}
}
