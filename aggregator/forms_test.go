package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/pkg/openslo"
)

// formSamples are six hours of a shop with two instances. Between 1:00 and 1:20
// half of what instance a answers is an error, between 3:30 and 3:40 all of
// both; the queue is deep from 2:00 to 2:15, and a ratio of errors that somebody
// else has computed is 0.4 from 4:00 to 4:10.
func formSamples(t *testing.T) string {
	t.Helper()
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Unix()
	type series struct {
		name string
		at   func(minute int, last float64) float64
	}
	count := func(instance string, failed bool) func(int, float64) float64 {
		return func(minute int, last float64) float64 {
			bad := 0.0
			switch {
			case minute >= 210 && minute < 220:
				bad = 10
			case minute >= 60 && minute < 80 && instance == "a":
				bad = 5
			}
			if failed {
				return last + bad
			}
			return last + 10 - bad
		}
	}
	gauge := func(usual, other float64, from, to int) func(int, float64) float64 {
		return func(minute int, _ float64) float64 {
			if minute >= from && minute < to {
				return other
			}
			return usual
		}
	}
	var b strings.Builder
	for _, family := range []struct {
		name, kind string
		series     []series
	}{
		{"requests", "counter", []series{
			{`requests_total{job="web",instance="a",code="200"}`, count("a", false)}, {`requests_total{job="web",instance="a",code="500"}`, count("a", true)},
			{`requests_total{job="web",instance="b",code="200"}`, count("b", false)}, {`requests_total{job="web",instance="b",code="500"}`, count("b", true)},
		}},
		{"queue_depth", "gauge", []series{
			{`queue_depth{job="web",instance="a"}`, gauge(5, 50, 120, 135)}, {`queue_depth{job="web",instance="b"}`, gauge(5, 5, 0, 0)},
		}},
		{"error_ratio", "gauge", []series{{`error_ratio{job="web"}`, gauge(0.001, 0.4, 240, 250)}}},
	} {
		fmt.Fprintf(&b, "# TYPE %s %s\n", family.name, family.kind)
		for _, s := range family.series {
			v := 0.0
			for half := range 6 * 120 {
				v = s.at(half/2, v)
				fmt.Fprintf(&b, "%s %v %d\n", s.name, v, begin+int64(half)*30)
			}
		}
	}
	b.WriteString("# EOF\n")
	path := filepath.Join(t.TempDir(), "samples.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every kind and form of the specification has a document of ours that is read
// and evaluated: what it gives is beside it.
func TestEveryFormOfTheSpecificationEvaluates(t *testing.T) {
	documents, err := filepath.Glob("testdata/openslo/*.yaml")
	if err != nil || len(documents) < 25 {
		t.Fatalf("%d documents (%v)", len(documents), err)
	}
	var out, errs bytes.Buffer
	if code := run(context.Background(), env{&out, &errs}, []string{"replay", "--format", "json", "--slo", "testdata/openslo", "--samples", formSamples(t)}); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	type result struct {
		SLO, Objective, Verdict      string
		Good, Total, Ratio, Coverage json.Number
		BudgetRemaining              json.Number `json:"budget_remaining"`
		Alerts                       []struct{ Tier, Severity, Fired, Resolved string }
	}
	var all []result
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	byName := map[string][]result{}
	for _, o := range all {
		byName[o.SLO] = append(byName[o.SLO], o)
	}
	for _, path := range documents {
		var got strings.Builder
		name := strings.TrimSuffix(filepath.Base(path), ".yaml") // its SLO is named after the file
		for _, o := range byName[name] {
			fmt.Fprintf(&got, "%q: %s good of %s, ratio %s, coverage %s, budget left %s: %s\n", o.Objective, o.Good, o.Total, o.Ratio, o.Coverage, o.BudgetRemaining, o.Verdict)
			for _, a := range o.Alerts {
				fmt.Fprintf(&got, "  %s (%s) from %s to %s\n", a.Tier, a.Severity, a.Fired, a.Resolved)
			}
			if total, err := o.Total.Float64(); err != nil || total <= 0 {
				t.Errorf("%s: objective %s counted nothing", path, o.Objective)
			}
		}
		if len(byName[name]) == 0 {
			t.Errorf("%s: no objective was evaluated", path)
		}
		set, err := openslo.LoadPaths(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range set.Findings() {
			fmt.Fprintf(&got, "%d:%d: %s [%s]\n", f.Line, f.Column, f.Severity, f.Rule)
		}
		golden := strings.TrimSuffix(path, ".yaml") + ".golden"
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != string(want) {
			t.Errorf("%s:\ngot\n%swant\n%s", path, got.String(), want)
		}
	}
}
