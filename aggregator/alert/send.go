package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	// answerMax bounds what is read of an answer, in bytes.
	answerMax = 4096
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
	lasts := 4 * max(resend, a.cfg.Interval)
	out := []message{{
		Labels:      map[string]string{"alertname": Watchdog, "severity": "info", "cluster": a.cfg.Cluster},
		Annotations: map[string]string{"summary": "Always fires: route it to a receiver that calls when it stops."},
		StartsAt:    a.started,
		// From the tick, not from now: a receiver is to be called as well when
		// alerts are sent and nothing judges them any more.
		EndsAt:       a.at.Add(lasts),
		GeneratorURL: a.cfg.ExternalURL,
	}}
	keys := make([]string, 0, len(a.states))
	for k := range a.states {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		s := a.states[k]
		m := message{Labels: s.Labels, Annotations: s.Notes, StartsAt: s.StartsAt, EndsAt: now.Add(lasts), GeneratorURL: s.Notes["dashboard_url"]}
		if !s.Resolved.IsZero() {
			m.EndsAt = earlier(s.Resolved, now) // not in the future: that is what resolves
		}
		// A clock that was set back leaves a beginning in the future, and an
		// alert that ends before it begins is rejected.
		m.StartsAt = earlier(m.StartsAt, earlier(now, m.EndsAt))
		out = append(out, m)
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// peer is one Alertmanager.
type peer struct {
	alerter *Alerter
	name    string // host and port, for logs and metrics
	url     string // takes alerts
	page    string // for people: without a password
	client  *http.Client
	dirty   chan struct{} // holds one token when something changed; judge puts, run takes

	// Only run and what it calls use these.
	failing  bool
	rejected string // the newest answer to alerts that it does not want, empty if it wants all
}

func newPeer(base string, a *Alerter) (*peer, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		// What stands before the last @ may be a password.
		if at := strings.LastIndex(base, "@"); at >= 0 {
			base = "…" + base[at:]
		}
		return nil, fmt.Errorf("alertmanager %q is not a URL such as http://127.0.0.1:9093", base)
	}
	page := *u
	page.User = nil
	p := &peer{
		alerter: a, name: u.Host, dirty: make(chan struct{}, 1),
		url: u.JoinPath("api/v2/alerts").String(), page: strings.TrimSuffix(page.String(), "/"),
		client: &http.Client{
			Timeout: sendTimeout,
			// A connection pool of its own, which run empties at its end.
			Transport: http.DefaultTransport.(*http.Transport).Clone(),
			// Followed, a POST becomes a GET that any page answers with 200, and
			// the alerts are lost without a word.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
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
	defer p.client.CloseIdleConnections()
	p.wake()
	backoff := backoffMin
	wait := time.NewTimer(resend)
	defer wait.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
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
		case <-pause.C:
		}
		pause.Stop()
		backoff = min(2*backoff, backoffMax)
		p.wake()
	}
	// Also after a send that the stop cut short, and to a peer that was away a
	// moment ago: this is the last chance to tell it for as long as we are.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	p.tell(last)
}

// tell sends everything and reports whether the peer has it.
func (p *peer) tell(ctx context.Context) bool {
	all := p.alerter.messages(time.Now())
	if len(all) == 0 {
		return true
	}
	var failed error
	rejected := ""
	for len(all) > 0 {
		n := min(batch, len(all))
		result, answer, err := p.post(ctx, all[:n])
		all = all[n:]
		if errors.Is(ctx.Err(), context.Canceled) && err != nil {
			return false // by our own stop: the last word comes next
		}
		p.alerter.metrics.sent.WithLabelValues(p.name, result).Inc()
		if result == "rejected" {
			rejected = answer
		}
		if err != nil {
			failed = err
			if answer == "" {
				break // it is not there: the other batches would wait for nothing
			}
		}
	}
	if failed != nil {
		if !p.failing {
			p.failing = true
			p.alerter.log.Error("an Alertmanager does not take alerts; it is tried again until it does", "alertmanager", p.name, "err", failed)
		}
		return false
	}
	if p.failing {
		p.failing = false
		p.alerter.log.Info("the Alertmanager answers again", "alertmanager", p.name)
	}
	if rejected != p.rejected {
		p.rejected = rejected
		if rejected == "" {
			p.alerter.log.Info("the Alertmanager takes all alerts again", "alertmanager", p.name)
		} else {
			p.alerter.log.Error("an Alertmanager rejects some alerts; the others of the batch are stored", "alertmanager", p.name, "answer", rejected)
		}
	}
	return true
}

// post sends one batch and returns the result as the metric names it and, if
// there was one, the answer. A 400 is not an error, since it would be the same
// a second later: Alertmanager has stored the valid alerts of the batch, and
// all are sent again in a minute.
func (p *peer) post(ctx context.Context, list []message) (result, answer string, err error) {
	body, err := json.Marshal(list)
	if err != nil {
		return "failed", "", fmt.Errorf("encode alerts: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return "failed", "", fmt.Errorf("send alerts: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return "failed", "", fmt.Errorf("send alerts: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return "failed", "", fmt.Errorf("read the answer to alerts: %w", err)
	}
	answer = strings.TrimSpace(resp.Status + " " + strings.TrimSpace(string(text)))
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return "ok", answer, nil
	case code == http.StatusBadRequest:
		return "rejected", answer, nil
	case code/100 == 3:
		return "failed", answer, fmt.Errorf("it answers %s to %q: configure the address that it redirects to", resp.Status, resp.Header.Get("Location"))
	}
	return "failed", answer, fmt.Errorf("it answers %s", answer)
}
