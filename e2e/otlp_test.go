//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
)

// What a program pushes by OTLP is answered when it is in the agent's queue, and
// arrives under Prometheus' names.
func TestOTLPMetricsArrive(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	aggregator := lab.Aggregator()
	otlp := fmt.Sprintf("127.0.0.1:%d", lab.Port())
	agent := lab.Agent(harness.AgentConfig{Node: "node-1", SendTo: aggregator.URL, Metrics: fmt.Sprintf("otlp: {http: %q}\n", otlp)})
	now := time.Now()
	answer, err := harness.PostJSON("http://"+otlp+"/v1/metrics", []byte(fmt.Sprintf(`{"resourceMetrics": [{
"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}, {"key": "service.namespace", "value": {"stringValue": "shop"}}, {"key": "service.instance.id", "value": {"stringValue": "checkout-1"}}, {"key": "region", "value": {"stringValue": "eu"}}]},
"scopeMetrics": [{"metrics": [
 {"name": "orders.placed", "unit": "{order}", "description": "Orders.", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [{"startTimeUnixNano": "%d", "timeUnixNano": "%d", "asInt": "42", "attributes": [{"key": "currency", "value": {"stringValue": "EUR"}}]}]}},
 {"name": "refunds", "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{"timeUnixNano": "%[2]d", "asInt": "1"}]}}
]}]}]}`, now.Add(-time.Hour).UnixNano(), now.UnixNano())))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(answer); !strings.Contains(text, `"rejectedDataPoints":"1"`) && !strings.Contains(text, `"rejectedDataPoints":1`) || !strings.Contains(text, "deltas_to_cumulative") {
		t.Errorf("the answer does not say that a delta was refused, and the remedy: %s", text)
	}
	lab.Eventually(time.Minute, "the aggregator shows the orders", func() error {
		got, err := raw(aggregator.URL, `orders_placed_total{job="shop/checkout",instance="checkout-1",currency="EUR",cluster="e2e",node="node-1"}`, time.Now())
		if err == nil && !strings.HasSuffix(got, " 42") {
			err = fmt.Errorf("it shows %s", got)
		}
		return err
	})
	if got, err := raw(aggregator.URL, `target_info{job="shop/checkout",region="eu"}`, time.Now()); err != nil {
		t.Errorf("target_info: %q, %v", got, err)
	}
	agent.Stop()
	aggregator.Stop()
}
