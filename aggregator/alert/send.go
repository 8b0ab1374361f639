package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"
)

const (
	// batch bounds the alerts of one request.
	batch = 256
	// sendTimeout bounds one request.
	sendTimeout = 10 * time.Second
	// backoffMin and backoffMax bound the wait after a failure.
	backoffMin, backoffMax = time.Second, 30 * time.Second
	// lastWord bounds what is still sent at a stop.
	lastWord = 3 * time.Second
)

type metrics struct {
	sent   *prometheus.CounterVec
	firing *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	return metrics{
		sent: f.NewCounterVec(prometheus.CounterOpts{
			Name: "nines_alert_sends_total",
			Help: "Requests to an Alertmanager by result: ok, failed (tried again), or rejected (bad alerts, logged).",
		}, []string{"alertmanager", "result"}),
		firing: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nines_alerts_firing", Help: "Burn-rate tiers that fire, by severity.",
		}, []string{"severity"}),
	}
}

// message is one alert as Alertmanager's API v2 takes it.
type message struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
}

// messages returns what an Alertmanager should know at now.
func (a *Alerter) messages(now time.Time) []message {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.IsZero() {
		return nil // before the first tick nothing is known
	}
	// Without an endsAt Alertmanager would resolve by a time-out of its own;
	// four intervals let three sends be lost.
	ends := now.Add(4 * max(resend, a.cfg.Interval))
	out := []message{{
		Labels:       map[string]string{"alertname": Watchdog, "severity": "info", "cluster": a.cfg.Cluster},
		Annotations:  map[string]string{"summary": "Always fires: route it to a receiver that calls when it stops."},
		StartsAt:     a.started,
		EndsAt:       ends,
		GeneratorURL: a.cfg.ExternalURL,
	}}
	keys := make([]string, 0, len(a.states))
	for k := range a.states {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		s := a.states[k]
		m := message{Labels: s.Labels, Annotations: s.Notes, StartsAt: s.StartsAt, EndsAt: ends, GeneratorURL: s.Notes["dashboard_url"]}
		if !s.Resolved.IsZero() {
			m.EndsAt = s.Resolved // in the past: that is what resolves
		}
		out = append(out, m)
	}
	return out
}

// peer is one Alertmanager.
type peer struct {
	alerter *Alerter
	name    string // host and port, for logs and metrics
	url     string
	client  *http.Client
	dirty   chan struct{} // holds one token when something changed; judge puts, run takes
	failing bool
}

func newPeer(base string, a *Alerter) (*peer, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("alertmanager %q is not a URL such as http://127.0.0.1:9093", base)
	}
	p := &peer{
		alerter: a, name: u.Host, url: strings.TrimSuffix(base, "/") + "/api/v2/alerts",
		client: &http.Client{Timeout: sendTimeout}, dirty: make(chan struct{}, 1),
	}
	for _, r := range []string{"ok", "failed", "rejected"} {
		a.metrics.sent.WithLabelValues(p.name, r)
	}
	return p, nil
}

// wake asks for a send soon. It never blocks.
func (p *peer) wake() {
	select {
	case p.dirty <- struct{}{}:
	default: // one is due already
	}
}

// Run keeps every Alertmanager told until ctx ends, and then once more.
func (a *Alerter) Run(ctx context.Context) error {
	var group errgroup.Group
	for _, p := range a.peers {
		group.Go(func() error {
			p.run(ctx)
			return nil
		})
	}
	return group.Wait()
}

func (p *peer) run(ctx context.Context) {
	p.wake()
	backoff := backoffMin
	wait := time.NewTimer(resend)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
			defer cancel()
			p.tell(last)
			return
		case <-p.dirty:
		case <-wait.C:
		}
		if p.tell(ctx) {
			backoff = backoffMin
			wait.Reset(resend)
			continue
		}
		// A change during the wait does not shorten it: the peer is away.
		pause := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		backoff = min(2*backoff, backoffMax)
		p.wake()
	}
}

// tell sends everything and reports whether the peer has it.
func (p *peer) tell(ctx context.Context) bool {
	all := p.alerter.messages(time.Now())
	for len(all) > 0 {
		n := min(batch, len(all))
		if err := p.post(ctx, all[:n]); err != nil {
			p.alerter.metrics.sent.WithLabelValues(p.name, "failed").Inc()
			if !p.failing && ctx.Err() == nil {
				p.failing = true
				p.alerter.log.Error("an Alertmanager does not take alerts; it is tried again until it does", "alertmanager", p.name, "err", err)
			}
			return false
		}
		all = all[n:]
	}
	if p.failing {
		p.failing = false
		p.alerter.log.Info("the Alertmanager takes alerts again", "alertmanager", p.name)
	}
	return true
}

// post sends one batch. A 400 is not tried again: Alertmanager has stored the
// valid alerts of the batch.
func (p *peer) post(ctx context.Context, list []message) error {
	body, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode alerts: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send alerts: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("send alerts: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("read the answer to alerts: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusBadRequest:
		p.alerter.metrics.sent.WithLabelValues(p.name, "rejected").Inc()
		p.alerter.log.Error("an Alertmanager rejects some alerts; the others of the batch are stored", "alertmanager", p.name, "answer", strings.TrimSpace(string(text)))
		return nil
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("it answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	p.alerter.metrics.sent.WithLabelValues(p.name, "ok").Inc()
	return nil
}
