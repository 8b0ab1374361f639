//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"testing"
	"time"

	"nines/e2e/harness"
)

// heard is an SLO of the test's own over the agent's heartbeats: a minute
// without one is bad.
const heard = `apiVersion: openslo/v1
kind: SLO
metadata:
  name: node-heard
  displayName: The node is heard
  annotations:
    nines.internal/absent: bad
spec:
  description: Each minute in which the agent collected is a good one.
  service: e2e
  budgetingMethod: Occurrences
  timeWindow:
  - duration: 28d
    isRolling: true
  indicator:
    metadata:
      name: heartbeats
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: Prometheus
            spec:
              query: sum(increase(nines_agent_heartbeats_total{cluster="e2e"}[5m]))
        total:
          metricSource:
            type: Prometheus
            spec:
              query: sum(increase(nines_agent_heartbeats_total{cluster="e2e"}[5m]))
  objectives:
  - displayName: heard
    target: 0.98
`

// slos writes the SLO into a folder for --slos.
func slos(lab *harness.Lab) string {
	lab.Write("slos/heard.yaml", heard)
	return lab.Dir("slos")
}

// objective is what the API says of one.
type objective struct {
	ID             string             `json:"objective_id"`
	SLO            string             `json:"slo"`
	Target         json.Number        `json:"target"`
	Good           json.Number        `json:"good_events"`
	Total          json.Number        `json:"total_events"`
	Coverage       *float64           `json:"coverage"`
	WindowCoverage map[string]float64 `json:"window_coverage"`
	Alerts         map[string]string  `json:"alerts"`
}

func objectives(server string) ([]objective, error) {
	data, err := harness.Get(server + "/api/nines/v1/objectives")
	if err != nil {
		return nil, err
	}
	var answer struct{ Objectives []objective }
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("objectives: %w in %.300s", err, data)
	}
	return answer.Objectives, nil
}

// objectiveOf returns the one of an SLO that has a single objective.
func objectiveOf(server, slo string) (objective, error) {
	all, err := objectives(server)
	if err != nil {
		return objective{}, err
	}
	for _, o := range all {
		if o.SLO == slo {
			return o, nil
		}
	}
	return objective{}, fmt.Errorf("there is no SLO %s among %d objectives", slo, len(all))
}

// minute is one line of the ledger: events in micro-events, times in
// milliseconds.
type minute struct {
	Minute   time.Time
	GoodLow  int64 `json:"good_low"`
	GoodHigh int64 `json:"good_high"`
	Total    int64
	Expected int64
	Counted  int64
	Timed    int64
	Flags    uint32
	Gaps     []gap
}

// gap holds events of a time longer than a minute, which belong to a window
// that holds all of it.
type gap struct {
	From, To time.Time
	GoodLow  int64 `json:"good_low"`
	GoodHigh int64 `json:"good_high"`
	Total    int64
}

func ledger(server, id string, from, to time.Time) ([]minute, error) {
	q := url.Values{"objective_id": {id}, "from": {from.UTC().Format(time.RFC3339)}, "to": {to.UTC().Format(time.RFC3339)}}
	data, err := harness.Get(server + "/api/nines/v1/ledger?" + q.Encode())
	if err != nil {
		return nil, err
	}
	var lines []minute
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var m minute
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return lines, nil
		} else if err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		lines = append(lines, m)
	}
}

// contiguous fails the test unless each minute from the first to the last is
// there once, in order.
func contiguous(t *testing.T, name string, lines []minute) {
	t.Helper()
	for i := 1; i < len(lines); i++ {
		if d := lines[i].Minute.Sub(lines[i-1].Minute); d != time.Minute {
			t.Errorf("%s: minute %s follows %s", name, lines[i].Minute.Format(time.TimeOnly), lines[i-1].Minute.Format(time.TimeOnly))
		}
	}
}

// rat reads decimal text exactly.
func rat(t *testing.T, text string) *big.Rat {
	t.Helper()
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is not a number", text)
	}
	return r
}

// micro turns micro-events into events.
func micro(n *big.Int) *big.Rat { return new(big.Rat).SetFrac(n, big.NewInt(1_000_000)) }
