//go:build e2e

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// packageBenchmarks are the rows that Go benchmarks of single packages measure:
// add a line here, and the table has their metrics.
var packageBenchmarks = []struct {
	figure  string
	pkg     string
	pattern string   // of -bench, without its anchors
	args    []string // of go test
	metrics []string // units that are printed, all where it is empty
	goal    string
}{
	{"booking a minute of 1,000 objectives", "nines/aggregator/ledger", "BenchmarkAppendMinuteOf1000Objectives", nil, nil, ""},
	{"reading a month of one objective", "nines/aggregator/ledger", "BenchmarkScanMonth", nil, nil, ""},
}

const packageLimit = 5 * time.Minute

// ofPackages runs the benchmarks of packages, one after the other.
func ofPackages(t *testing.T) (rows []row) {
	t.Helper()
	for _, b := range packageBenchmarks {
		ctx, cancel := context.WithTimeout(t.Context(), packageLimit)
		args := append([]string{"test", "-run", "^$", "-bench", "^" + b.pattern + "$"}, b.args...)
		cmd := exec.CommandContext(ctx, "go", append(args, b.pkg)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
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
			var kept []string
			for _, m := range f.metrics {
				for _, unit := range b.metrics {
					if strings.HasSuffix(m, " "+unit) {
						kept = append(kept, m)
					}
				}
			}
			if len(b.metrics) == 0 {
				kept = f.metrics
			}
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
