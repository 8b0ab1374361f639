//go:build e2e

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// packageBenchmark is a row that a Go benchmark of a single package measures.
type packageBenchmark struct {
	figure  string
	pkg     string
	pattern string   // of -bench, without its anchors
	env     []string // added to the environment
	args    []string // of go test
	metrics []string // units that are printed, all where it is empty
	goal    string
}

// packageBenchmarks are those rows: add one here, and the table has its metrics.
// Nothing else runs beside them.
var packageBenchmarks = []packageBenchmark{
	{
		figure: "50,000 objectives of 10 series every 15 s, one core", pkg: "nines/aggregator/evaluate", pattern: "BenchmarkObjectives50000",
		args: []string{"-benchtime", "3x", "-cpu", "1"}, metrics: []string{"cores", "cpu-ns/objective-minute", "B/objective"},
		goal: "below 1 core, at most 65,536 B/objective",
	},
	{
		figure: "booking a minute of 1,000 objectives", pkg: "nines/aggregator/ledger", pattern: "BenchmarkAppend",
		metrics: []string{"ns/op", "cpu-ns/entry"},
	},
	{
		figure: "restart of the book, 1,000 objectives × 31 days", pkg: "nines/aggregator/ledger", pattern: "BenchmarkRestart",
		env: []string{"NINES_BENCH_OBJECTIVES=1000"}, args: []string{"-benchtime", "3x"},
		metrics: []string{"s/restart", "cpu-µs/objective"}, goal: "under 10 s for 10,000",
	},
	{
		figure: "verification of the chain, a day of 50 objectives", pkg: "nines/aggregator/ledger", pattern: "BenchmarkVerify",
		args: []string{"-benchtime", "3x"}, metrics: []string{"ns/op", "cpu-ns/minute"},
	},
}

const packageLimit = 5 * time.Minute

// ofPackages runs the benchmarks of packages, one after the other.
func ofPackages(t *testing.T) (rows []row) {
	t.Helper()
	for _, b := range packageBenchmarks {
		ctx, cancel := context.WithTimeout(t.Context(), packageLimit)
		args := append([]string{"test", "-run", "^$", "-bench", "^" + b.pattern + "$"}, b.args...)
		cmd := exec.CommandContext(ctx, "go", append(args, b.pkg)...)
		cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), b.env...)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Errorf("%s: %v\n%.2000s", strings.Join(cmd.Args, " "), err, out)
			continue
		}
		found, err := benchmarkLines(out)
		if err != nil || len(found) == 0 {
			t.Errorf("%s has no benchmark %s: %v", b.pkg, b.pattern, err)
		}
		for _, f := range found {
			kept := slices.DeleteFunc(slices.Clone(f.metrics), func(m string) bool {
				_, unit, _ := strings.Cut(m, " ")
				return len(b.metrics) > 0 && !slices.Contains(b.metrics, unit)
			})
			rows = append(rows, row{figure: b.figure, ours: strings.Join(kept, ", "), goal: b.goal})
			t.Logf("%s: %s", f.name, strings.Join(f.metrics, ", "))
		}
	}
	return rows
}

type benchmarkLine struct {
	name    string
	metrics []string // "123 ns/op"
}

// benchmarkLines reads what go test -bench prints: a name, the number of
// rounds, and pairs of a value and its unit.
func benchmarkLines(out []byte) (found []benchmarkLine, err error) {
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if len(fields)%2 != 0 {
			return nil, fmt.Errorf("%q is no line of a benchmark", line)
		}
		b := benchmarkLine{name: fields[0]}
		for i := 2; i < len(fields); i += 2 {
			b.metrics = append(b.metrics, fields[i]+" "+fields[i+1])
		}
		found = append(found, b)
	}
	return found, nil
}
