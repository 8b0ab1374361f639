package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nines/pkg/ops"
	"nines/pkg/sla"
)

const (
	// Name is the alert of every burn-rate tier.
	Name = "ErrorBudgetBurn"
	// NameUnseen is the alert that an objective is not seen any more (R17).
	NameUnseen = "ObjectiveUnseen"
	// Watchdog always fires: a receiver that stops hearing it knows that the
	// way to people is broken.
	Watchdog = "Watchdog"

	// resend is how often alerts are sent again. Alertmanager v2 takes an alert
	// for resolved when its endsAt is over.
	resend = time.Minute
	// resolvedFor is how long a resolved alert is sent again.
	resolvedFor = 15 * time.Minute
	// unseenAfter is the age of an objective's newest sample at which its
	// firing alerts do not resolve any more (R17): a service that died has no
	// errors. It is also how long the alerts of an objective that is not
	// evaluated any more are held, so that a file that is replaced in two steps
	// does not resolve and fire again.
	unseenAfter = 5 * time.Minute
)

// unseenTier stands for the tier in the state of that alert.
const unseenTier = sla.UnseenAlarm

// Config says where alerts go.
type Config struct {
	// Dir is the folder of the state.
	Dir string
	// Alertmanagers are the base URLs of all peers; each gets every alert.
	Alertmanagers []string
	// ExternalURL is where people reach this aggregator.
	ExternalURL string
	// Interval is the time between two Ticks.
	Interval time.Duration
	// Cluster is the label of alerts whose objective names no cluster.
	Cluster string
}

// Input is one objective at a tick.
type Input struct {
	Objective    sla.Objective
	Windows      map[time.Duration]sla.Sum
	Period       sla.Sum
	PeriodLength time.Duration
	Newest       time.Time // newest sample, zero without any
	// Unseen tells that less than half of the newest minutes up to now was
	// seen, and nothing was removed that would explain it (R17).
	Unseen bool
}

// Active is a tier that fires.
type Active struct {
	Objective sla.ID
	Tier      string
	Severity  string
	Since     time.Time
	// What names the objective for people.
	Service, SLO, Name, Group string
}

// state is one tier of one objective that fires, or did a moment ago.
type state struct {
	Objective sla.ID            `json:"objective_id"`
	Tier      string            `json:"tier"`
	Severity  string            `json:"severity"`
	StartsAt  time.Time         `json:"starts_at"`
	Resolved  time.Time         `json:"resolved,omitzero"` // zero while it fires
	Labels    map[string]string `json:"labels"`
	Notes     map[string]string `json:"annotations"`
	Group     string            `json:"group,omitempty"` // sla.Objective.GroupName

	gone time.Time // since when the objective is not evaluated, zero while it is
}

func (s *state) key() string { return s.Objective.String() + "/" + s.Tier }

// Alerter keeps the states and tells Alertmanager. Its methods may be called
// at the same time.
type Alerter struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics
	peers   []*peer

	mu      sync.Mutex
	states  map[string]*state
	pending map[string]time.Time // since when what is to fire after a while burns
	about   map[sla.ID]int       // alerts that fire by objective
	started time.Time            // of the watchdog
	saved   string               // what the file holds
	at      time.Time            // of the newest tick
}

// New reads the state of the run before. A file that a crash tore is set aside
// with a warning: what fires is found again at the next tick, with a newer
// beginning.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Alerter, error) {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("create the folder of the alerts' state: %w", err)
	}
	a := &Alerter{cfg: cfg, log: log, metrics: newMetrics(reg), states: map[string]*state{}, pending: map[string]time.Time{}, about: map[sla.ID]int{}}
	for _, u := range cfg.Alertmanagers {
		p, err := newPeer(u, a)
		if err != nil {
			return nil, err
		}
		a.peers = append(a.peers, p)
	}
	data, err := os.ReadFile(a.file())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a, nil
	case err != nil:
		return nil, fmt.Errorf("read the alerts' state: %w", err)
	}
	list, err := decode(data)
	if err != nil {
		aside := a.file() + ".broken"
		log.Warn("the alerts' state could not be read and is set aside; alerts that fire begin anew", "file", aside, "err", err)
		if err := os.Rename(a.file(), aside); err != nil {
			return nil, fmt.Errorf("set the broken state of the alerts aside: %w", err)
		}
		return a, nil
	}
	for _, s := range list {
		a.states[s.key()] = s
	}
	a.saved = string(data)
	a.count()
	return a, nil
}

// decode reads the state's file: all of it or nothing. A tier that this version
// does not know is kept; it resolves as one that is no longer evaluated.
func decode(data []byte) ([]*state, error) {
	var list []*state
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if list == nil {
		return nil, errors.New("decode: no list of alerts")
	}
	for i, s := range list {
		// An Alertmanager would reject these at each send.
		if s == nil || s.Tier == "" || s.StartsAt.IsZero() || s.Labels["alertname"] != Name && s.Labels["alertname"] != NameUnseen {
			return nil, fmt.Errorf("decode: alert %d lacks its tier, beginning or labels", i)
		}
	}
	return list, nil
}

func (a *Alerter) file() string { return filepath.Join(a.cfg.Dir, "firing.json") }

// Tick judges every tier at now. The error is about the state's file; alerts
// are sent all the same.
func (a *Alerter) Tick(now time.Time, inputs []Input) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.started.IsZero() {
		a.started = now
	}
	a.at = now
	changed := false
	present := map[string]bool{}
	for _, in := range inputs {
		for _, t := range in.Objective.Alarms(in.PeriodLength) {
			key := in.Objective.ID.String() + "/" + t.Name
			present[key] = true
			if a.judge(key, in, t, now) {
				changed = true
			}
		}
		if !in.Objective.WatchesUnseen() {
			continue
		}
		key := in.Objective.ID.String() + "/" + unseenTier
		present[key] = true
		if a.watch(key, in, now) {
			changed = true
		}
	}
	for key := range a.pending {
		if !present[key] {
			delete(a.pending, key)
		}
	}
	for key, s := range a.states {
		switch {
		case present[key]:
			s.gone = time.Time{}
		case !s.Resolved.IsZero():
		case s.gone.IsZero() || now.Before(s.gone):
			// The objective is gone, or its target cannot fire any more.
			s.gone = now
		case now.Sub(s.gone) > unseenAfter:
			s.Resolved, changed = now, true
			a.log.Info("alert resolved: its objective is no longer evaluated", "slo", s.Labels["slo"], "objective", s.Labels["objective"], "tier", s.Tier)
		}
		if s.Resolved.After(now) {
			s.Resolved = now // the clock was set back: an end to come would fire it again
		}
		if !s.Resolved.IsZero() && now.Sub(s.Resolved) > resolvedFor {
			delete(a.states, key)
		}
	}
	firing := map[string]int{"page": 0, "ticket": 0}
	a.count()
	for _, s := range a.states {
		if s.Resolved.IsZero() {
			firing[s.Severity]++
		}
	}
	a.metrics.firing.Reset() // severities are what policies say
	for severity, n := range firing {
		a.metrics.firing.WithLabelValues(severity).Set(float64(n))
	}
	if changed {
		for _, p := range a.peers {
			p.wake()
		}
	}
	return a.save()
}

// count finds out which objectives have an alert that fires.
func (a *Alerter) count() {
	clear(a.about)
	for _, s := range a.states {
		if s.Resolved.IsZero() {
			a.about[s.Objective]++
		}
	}
}

// judge moves one alarm and reports whether it began or ended. How long one has
// burned that fires after a while is not kept over a restart.
func (a *Alerter) judge(key string, in Input, t sla.Alarm, now time.Time) bool {
	s := a.states[key]
	burns := t.Firing(in.Windows)
	active := s != nil && s.Resolved.IsZero()
	switch {
	case !burns || active || t.After == 0:
		delete(a.pending, key)
	default:
		since, ok := a.pending[key]
		if !ok || since.After(now) {
			since = now
			a.pending[key] = now
		}
		if now.Sub(since) < t.After {
			return false
		}
		delete(a.pending, key)
	}
	switch {
	case burns && !active:
		s = &state{Objective: in.Objective.ID, Tier: t.Name, Severity: t.Severity, StartsAt: now}
		a.states[key] = s
		a.describe(s, in, t)
		a.log.Warn("alert fires", "slo", in.Objective.SLO, "objective", in.Objective.Name, "tier", t.Name, "severity", t.Severity)
		return true
	case burns:
		a.describe(s, in, t)
	case active:
		if in.Unseen || unseen(in, t, now) {
			return false // silence is not recovery (R17)
		}
		s.Resolved = now
		a.log.Info("alert resolved", "slo", in.Objective.SLO, "objective", in.Objective.Name, "tier", t.Name)
		return true
	}
	return false
}

// watch moves the alert that an objective is not seen any more and reports
// whether it began or ended (R17).
func (a *Alerter) watch(key string, in Input, now time.Time) bool {
	s := a.states[key]
	active := s != nil && s.Resolved.IsZero()
	switch {
	case in.Unseen && !active:
		severity, _ := in.Objective.Unseen()
		s = &state{Objective: in.Objective.ID, Tier: unseenTier, Severity: severity, StartsAt: now}
		a.states[key] = s
		a.log.Warn("alert fires: an objective is not seen", "slo", in.Objective.SLO, "objective", in.Objective.Name)
		a.describeUnseen(s, in)
		return true
	case in.Unseen:
		a.describeUnseen(s, in)
	case active:
		s.Resolved = now
		a.log.Info("alert resolved: an objective is seen again", "slo", in.Objective.SLO, "objective", in.Objective.Name)
		return true
	}
	return false
}

// unseen reports whether nothing tells how the objective does now. A short
// window that was watched and had no events is not unseen: that is no traffic
// (R15). One that was not watched at all is, even where a sample came a moment
// ago: after a restart or a silence the first one says nothing about the gap.
func unseen(in Input, t sla.Alarm, now time.Time) bool {
	short := in.Windows[t.Short]
	if short.Total.Sign() <= 0 && short.Counted.Sign() <= 0 && short.Timed.Sign() <= 0 {
		return true
	}
	// Where absence is bad, the windows hold it as bad events already (R18).
	return !in.Objective.AbsentBad && now.Sub(in.Newest) > unseenAfter
}

// describe sets what identifies the alert and what people read.
func (a *Alerter) describe(s *state, in Input, t sla.Alarm) {
	o := in.Objective
	a.identify(s, in, Name)
	s.Labels["burn_tier"] = t.Name
	if len(t.Targets) > 0 {
		s.Labels["notification_target"] = strings.Join(t.Targets, ",")
	}
	burn := in.Windows[t.Long].Burn(o.Target)
	budget := in.Period.Budget(o.Target)
	words := sla.BurnWords(burn, budget.Remaining, in.PeriodLength)
	s.Notes["summary"] = fmt.Sprintf("%s: %s", title(o), words)
	short := ""
	if t.Short != t.Long {
		short = fmt.Sprintf(", %s in the last %s", sla.Percent(in.Windows[t.Short].Errors(), 3), sla.WindowName(t.Short))
	}
	s.Notes["description"] = fmt.Sprintf("%s of all %s went wrong in the last %s%s: %s times the pace that the target of %s %% over %s allows. Budget left: %s.",
		sla.Percent(in.Windows[t.Long].Errors(), 3), o.SLI.Unit(), sla.WindowName(t.Long), short,
		sla.FloorDecimal(burn, 1), o.Target.Percent(), o.Window, sla.Percent(budget.Remaining, 1))
}

// describeUnseen is describe of the alert that nothing is seen.
func (a *Alerter) describeUnseen(s *state, in Input) {
	o := in.Objective
	a.identify(s, in, NameUnseen)
	if _, targets := o.Unseen(); len(targets) > 0 {
		s.Labels["notification_target"] = strings.Join(targets, ",")
	}
	last := "No sample of it has ever come: look at its query, and at what should scrape its targets."
	if !in.Newest.IsZero() {
		last = fmt.Sprintf("The newest sample is of %s: look whether its targets run, and at what should scrape them.", in.Newest.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	s.Notes["summary"] = title(o) + ": nothing tells how it does"
	s.Notes["description"] = "Less than half of the last minutes was seen, and nothing was taken away on purpose. What is not seen is neither good nor bad: burn alerts of it do not resolve meanwhile. " + last
}

func title(o sla.Objective) string {
	if o.Title == "" {
		return o.SLO
	}
	return o.Title
}

// identify sets the labels of an alert, and where it leads. Labels never hold a
// value, a replica or a time: they are the same on every replica.
func (a *Alerter) identify(s *state, in Input, name string) {
	o := in.Objective
	cluster := o.Cluster
	if cluster == "" {
		cluster = a.cfg.Cluster
	}
	s.Group = o.GroupName()
	s.Labels = map[string]string{
		"alertname": name, "severity": s.Severity, "cluster": cluster,
		"service": o.Service, "slo": o.SLO, "objective": o.Name, "objective_id": o.ID.String(),
	}
	for k, v := range map[string]string{"namespace": o.Namespace, "team": o.Team} {
		if v != "" {
			s.Labels[k] = v
		}
	}
	for k, v := range o.Group {
		if _, ours := s.Labels[k]; !ours && k != "burn_tier" {
			s.Labels[k] = v
		}
	}
	page := strings.TrimSuffix(a.cfg.ExternalURL, "/") + "/#" + o.ID.String()
	s.Notes = map[string]string{"dashboard_url": page}
	if query := o.SLI.Total + o.SLI.Raw + o.SLI.Value; query != "" { // one of them
		s.Notes["query_url"] = strings.TrimSuffix(a.cfg.ExternalURL, "/") + "/api/v1/query?" + url.Values{"query": {query}}.Encode()
	}
	if o.Runbook != "" {
		s.Notes["runbook_url"] = o.Runbook
		if !strings.Contains(o.Runbook, "://") {
			s.Notes["runbook_url"] = strings.TrimSuffix(a.cfg.ExternalURL, "/") + "/runbooks/" + strings.TrimSuffix(o.Runbook, ".md")
		}
	}
	if len(a.peers) > 0 {
		filter := fmt.Sprintf(`{alertname=%q,objective_id=%q}`, name, o.ID)
		s.Notes["silence_url"] = a.peers[0].page + "/#/silences/new?filter=" + url.QueryEscape(filter)
	}
}

// About reports whether an alert about an objective fires.
func (a *Alerter) About(id sla.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.about[id] > 0
}

// Firing returns what fires, in the order of objective and tier.
func (a *Alerter) Firing() []Active {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Active
	for _, s := range a.states {
		if s.Resolved.IsZero() {
			out = append(out, Active{
				Objective: s.Objective, Tier: s.Tier, Severity: s.Severity, Since: s.StartsAt,
				Service: s.Labels["service"], SLO: s.Labels["slo"], Name: s.Labels["objective"], Group: s.Group,
			})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Objective.String()+out[i].Tier < out[j].Objective.String()+out[j].Tier
	})
	return out
}

// save writes the states if they changed.
func (a *Alerter) save() error {
	list := make([]*state, 0, len(a.states))
	for _, s := range a.states {
		list = append(list, s)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].key() < list[j].key() })
	data, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode the alerts' state: %w", err)
	}
	if string(data) == a.saved {
		return nil
	}
	if err := ops.WriteFile(a.file(), data, 0o640); err != nil {
		return ops.Remedy(fmt.Errorf("keep the alerts' state: %w", err))
	}
	a.saved = string(data)
	return nil
}
