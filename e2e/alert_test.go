//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"nines/e2e/harness"
)

// pager is a receiver behind Alertmanager: it remembers the newest status of
// each tier of each SLO.
type pager struct {
	*httptest.Server

	mu     sync.Mutex
	status map[string]string // "slo tier" to firing or resolved
	bad    error
}

func newPager(t *testing.T) *pager {
	p := &pager{status: map[string]string{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message struct {
			Alerts []struct {
				Status string
				Labels map[string]string
			}
		}
		err := json.NewDecoder(r.Body).Decode(&message)
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			p.bad = err
			return
		}
		for _, a := range message.Alerts {
			p.status[a.Labels["slo"]+" "+a.Labels["burn_tier"]] = a.Status
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// is returns nil when the newest word about a tier is the wanted one.
func (p *pager) is(slo, tier, want string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bad != nil {
		return fmt.Errorf("a message of Alertmanager: %w", p.bad)
	}
	if got := p.status[slo+" "+tier]; got != want {
		return fmt.Errorf("the %s tier of %s is %q, want %q; received: %v", tier, slo, got, want, p.status)
	}
	return nil
}

func TestHeartbeatAlertFiresAndResolves(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	pager := newPager(t)
	alertmanager := lab.Alertmanager(pager.URL)
	aggregator := lab.Aggregator("--slos", slos(lab), "--alertmanager", alertmanager.URL)
	agent := lab.Agent(harness.AgentConfig{Node: "node-1", SendTo: aggregator.URL})
	lab.Eventually(3*time.Minute, "the agent is heard", func() error {
		o, err := objectiveOf(aggregator.URL, "node-heard")
		if err != nil {
			return err
		}
		if o.Coverage == nil || *o.Coverage < 0.5 {
			return fmt.Errorf("coverage is %s", percent(o.Coverage))
		}
		return nil
	})

	// The rest of this minute and the whole next one are good.
	lab.Until(time.Now().Truncate(time.Minute).Add(2*time.Minute-3*time.Second), "two minutes of heartbeats")
	if err := pager.is("node-heard", "fast", ""); err != nil {
		t.Fatalf("before anything went wrong: %v", err)
	}
	before, err := objectiveOf(aggregator.URL, "node-heard")
	if err != nil {
		t.Fatal(err)
	}
	agent.Kill()
	lab.Say("killed the agent at a coverage of %s", percent(before.Coverage))

	lab.Eventually(5*time.Minute, "coverage falls", func() error {
		o, err := objectiveOf(aggregator.URL, "node-heard")
		if err != nil {
			return err
		}
		if o.Coverage == nil || *o.Coverage > *before.Coverage-0.1 {
			return fmt.Errorf("coverage is %s, it was %s", percent(o.Coverage), percent(before.Coverage))
		}
		lab.Say("coverage fell to %s", percent(o.Coverage))
		return nil
	})
	lab.Eventually(6*time.Minute, "the page arrives", func() error { return pager.is("node-heard", "fast", "firing") })
	lab.Say("the page arrived")

	agent.Start()
	lab.Eventually(10*time.Minute, "the page resolves", func() error { return pager.is("node-heard", "fast", "resolved") })
	lab.Say("the page resolved")
	agent.Stop()
	aggregator.Stop()
}

func percent(v *float64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprintf("%.1f %%", *v*100)
}
