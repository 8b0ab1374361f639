package store

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// tracked is how many of a scope are kept track of by name; the rest share one
// place, called other, until the series of the rest are gone.
var tracked = map[scope]int{scopeCluster: 1_000, scopeNamespace: 10_000, scopeSender: 10_000}

const (
	// sweepEvery is how often at most a full table is searched for what is idle.
	sweepEvery = time.Minute
	// calm is after how long without a refusal by rate the next one is logged.
	calm = 10 * time.Minute
	// maxRetry bounds what is told as Retry-After.
	maxRetry = time.Minute

	other = "other"
)

// tenant is one cluster, namespace or sender, or the rest of them. All but
// gone is guarded by the limiter's lock.
type tenant struct {
	scope scope
	name  string // as in overrides; other for the rest
	limit Limit
	group *tenant // of a namespace: its cluster

	series   int // in the database's memory
	requests int // in work
	members  int // of a cluster: namespaces that have a place of their own
	rest     *tenant

	samples bucket
	// ends is for the stale markers of a cluster or namespace that is over its
	// rate. One that is lost leaves a series that seems to go on, so they do not
	// wait for what other samples owe; a bucket of their own bounds them.
	ends bucket

	pending int       // samples of the request that take looks at
	over    bool      // in that request its samples are refused
	refused time.Time // when that was so last
	told    bool      // in the log, that new series are refused
	gone    bool      // it has no place any more: who points here must look again
}

// bucket is filled with what a limit gives a second, up to its burst, and what
// arrives is taken out. That may leave it below 0: a request larger than the
// burst passes once and is paid for afterwards.
type bucket struct {
	tokens float64
	filled time.Time
}

// limiter knows how much of the store each tenant uses. It follows the
// database's own creating and removing of series, so its counts are those of the
// database, and a series that is known costs nothing.
//
// A tenant without a place of its own is counted with the rest. It gets a place
// only when the rest has no series, and loses one only when it has none itself:
// by its labels alone it is therefore known where a series was counted.
type limiter struct {
	limits Limits
	log    *slog.Logger
	now    func() time.Time
	most   map[scope]int // as tracked

	// sender is whose batch the database is being given, nil for what is not
	// limited; created is set when that made a series. Both are guarded by DB.mu.
	sender  *tenant
	created bool

	mu         sync.Mutex
	all        *tenant                       // guarded by mu, like what follows
	clusters   map[string]*tenant            // by name
	namespaces map[string]*tenant            // by name, 0 byte and the cluster's name
	senders    map[string]*tenant            // by address
	otherTown  *tenant                       // the rest of the clusters
	otherPeer  *tenant                       // the rest of the senders
	brought    map[storage.SeriesRef]*tenant // who was the first to bring a series
	swept      map[scope]time.Time
	touched    []*tenant // scratch
	key        []byte    // scratch
}

var _ tsdb.SeriesLifecycleCallback = (*limiter)(nil)

func newLimiter(limits Limits, log *slog.Logger, now func() time.Time) *limiter {
	l := &limiter{limits: limits, log: log, now: now, most: tracked, senders: make(map[string]*tenant), swept: make(map[scope]time.Time)}
	if l.limits.Senders.Default.Requests == 0 {
		l.limits.Senders.Default.Requests = max(limits.Requests/2, 1)
	}
	l.otherPeer = l.make(scopeSender, other, l.limits.Senders.of(other))
	l.reset()
	return l
}

// reset forgets all series.
func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = l.make(scopeAll, "", Limit{Series: l.limits.Series, SamplesPerSecond: maxSamples, Burst: maxSamples})
	l.clusters, l.namespaces = make(map[string]*tenant), make(map[string]*tenant)
	l.otherTown = l.make(scopeCluster, other, l.limits.Clusters.of(other))
	l.brought = make(map[storage.SeriesRef]*tenant)
}

func (l *limiter) make(s scope, name string, limit Limit) *tenant {
	full := bucket{float64(limit.Burst), l.now()}
	return &tenant{scope: s, name: name, limit: limit, samples: full, ends: full}
}

// place returns whose the series is: its namespace, or its cluster where it has
// none. It is called with mu held.
func (l *limiter) place(ls labels.Labels) *tenant {
	name, namespace := ls.Get("cluster"), ls.Get("namespace")
	cluster := l.clusters[name]
	if cluster == nil {
		if l.otherTown.series > 0 || !l.room(scopeCluster, l.clusters) {
			cluster = l.otherTown
		} else {
			cluster = l.make(scopeCluster, name, l.limits.Clusters.of(name))
			l.clusters[name] = cluster
		}
	}
	if namespace == "" {
		return cluster
	}
	l.key = append(append(append(l.key[:0], namespace...), 0), name...)
	if t := l.namespaces[string(l.key)]; t != nil {
		return t
	}
	if cluster == l.otherTown || cluster.rest != nil && cluster.rest.series > 0 || !l.room(scopeNamespace, l.namespaces) {
		if cluster.rest == nil {
			full := cluster.name + "/" + other
			cluster.rest = l.make(scopeNamespace, full, l.limits.Namespaces.of(full, other))
			cluster.rest.group = cluster
		}
		return cluster.rest
	}
	full := name + "/" + namespace
	t := l.make(scopeNamespace, full, l.limits.Namespaces.of(full, namespace))
	t.group = cluster
	cluster.members++
	l.namespaces[string(l.key)] = t
	return t
}

// room says whether the table takes one more; what is idle makes room.
func (l *limiter) room(s scope, table map[string]*tenant) bool {
	if len(table) < l.most[s] {
		return true
	}
	now := l.now()
	if now.Sub(l.swept[s]) < sweepEvery && !now.Before(l.swept[s]) {
		return false
	}
	l.swept[s] = now
	if s == scopeCluster {
		l.sweep(l.namespaces, now)
	}
	l.sweep(table, now)
	return len(table) < l.most[s]
}

func (l *limiter) sweep(table map[string]*tenant, now time.Time) {
	for key, t := range table {
		t.fill(now)
		owes := min(t.samples.tokens, t.ends.tokens) < float64(t.limit.Burst)
		busy := t.series > 0 || t.requests > 0 || t.members > 0 || owes
		if busy || t.rest != nil && t.rest.series > 0 {
			continue
		}
		t.gone = true
		if t.rest != nil {
			t.rest.gone = true
		}
		if t.group != nil {
			t.group.members--
		}
		delete(table, key)
	}
}

// of returns the tenant of a series' labels.
func (l *limiter) of(ls labels.Labels) *tenant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.place(ls)
}

// chain calls f for all whose limits hold for a series, the sender left out.
func (l *limiter) chain(t *tenant, f func(*tenant)) {
	f(l.all)
	if t.group != nil {
		f(t.group)
	}
	f(t)
}

// fullError says that a limit of series is reached.
type fullError struct{ t *tenant }

func (e *fullError) Error() string { return "the limit of series is reached" }

// detail is what its sender is told.
func (l *limiter) detail(e *fullError) string {
	l.mu.Lock()
	used := e.t.series
	l.mu.Unlock()
	return fmt.Sprintf("new series: %s %d of %d series in use: drop series by relabelling, or raise %s", e.t.holds(), used, e.t.limit.Series, e.t.scope.key(e.t.name, "series"))
}

func (t *tenant) holds() string {
	if t.scope == scopeAll {
		return "the store has"
	}
	return fmt.Sprintf("the %s %q has", t.scope, t.name)
}

// PreCreation implements tsdb.SeriesLifecycleCallback. It lets everything pass
// that no sender of remote write brings.
func (l *limiter) PreCreation(ls labels.Labels) error {
	sender := l.sender
	if sender == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var full *tenant
	check := func(t *tenant) {
		if t.series >= t.limit.Series {
			full = t
		}
	}
	l.chain(l.place(ls), check)
	check(sender)
	if full == nil {
		return nil
	}
	if !full.told {
		full.told = true
		l.log.Warn("a limit is reached: new series are refused, those that are there go on", "scope", full.scope, "name", full.name,
			"series", full.limit.Series, "key", full.scope.key(full.name, "series"))
	}
	return &fullError{full}
}

// PostCreation implements tsdb.SeriesLifecycleCallback.
func (l *limiter) PostCreation(ls labels.Labels) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chain(l.place(ls), func(t *tenant) { t.series++ })
	l.created = l.sender != nil
}

// PostDeletion implements tsdb.SeriesLifecycleCallback.
func (l *limiter) PostDeletion(series map[chunks.HeadSeriesRef]labels.Labels) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ref, ls := range series {
		l.chain(l.place(ls), l.less)
		if sender := l.brought[storage.SeriesRef(ref)]; sender != nil {
			delete(l.brought, storage.SeriesRef(ref))
			l.less(sender)
		}
	}
}

func (l *limiter) less(t *tenant) {
	t.series = max(t.series-1, 0)
	if t.told && t.series < t.limit.Series-t.limit.Series/10 {
		t.told = false
		l.log.Info("a limit takes new series again", "scope", t.scope, "name", t.name)
	}
}

// bring notes who brought the series that the last append made. It is called
// with DB.mu held.
func (l *limiter) bring(ref storage.SeriesRef, sender *tenant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.brought[ref]; !ok {
		l.brought[ref] = sender
		sender.series++
	}
}

// senderName is the address without port of a connection.
func senderName(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return host
}

// waitError says that a request is to be repeated later.
type waitError struct {
	t     *tenant
	kind  string // of limit: limitRate or limitRequests
	after time.Duration
	text  string
}

const (
	limitRate     = "rate"
	limitRequests = "requests"
)

func (e *waitError) Error() string { return e.text }

// seconds is what Retry-After says.
func (e *waitError) seconds() string { return strconv.Itoa(int(math.Ceil(e.after.Seconds()))) }

// enter begins a request of a sender. Without an error it must be followed by
// leave.
func (l *limiter) enter(remote string) (*tenant, *waitError) {
	name := senderName(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.senders[name]
	switch {
	case t != nil:
	case l.room(scopeSender, l.senders):
		t = l.make(scopeSender, name, l.limits.Senders.of(name))
		l.senders[name] = t
	default:
		t = l.otherPeer
	}
	if t.requests >= t.limit.Requests {
		return nil, &waitError{t, limitRequests, time.Second, fmt.Sprintf("%s %d requests in work, as many as one may have: send fewer at once, or raise %s", t.holds(), t.requests, t.scope.key(t.name, "requests"))}
	}
	// A request of one who must wait is not even read.
	if err := t.wait(l.now()); err != nil {
		return nil, err
	}
	t.requests++
	return t, nil
}

func (l *limiter) leave(t *tenant) {
	l.mu.Lock()
	t.requests--
	l.mu.Unlock()
}

// fill adds what the time since the last call gives.
func (t *tenant) fill(now time.Time) {
	t.samples.fill(t.limit, now)
	t.ends.fill(t.limit, now)
}

func (b *bucket) fill(limit Limit, now time.Time) {
	if d := now.Sub(b.filled); d > 0 {
		b.tokens = min(float64(limit.Burst), b.tokens+d.Seconds()*float64(limit.SamplesPerSecond))
	}
	b.filled = now
}

// wait says that, and for how long, nothing more is taken of a sender.
func (t *tenant) wait(now time.Time) *waitError {
	if t.samples.fill(t.limit, now); t.samples.tokens > 0 {
		return nil
	}
	after := time.Duration(min(-t.samples.tokens/float64(t.limit.SamplesPerSecond), maxRetry.Seconds()-1)*float64(time.Second)) + time.Second
	return &waitError{t, limitRate, after, fmt.Sprintf("%s sent more than %d samples a second and %d at once: nothing of this request is stored, send it again later, or raise %s",
		t.holds(), t.limit.SamplesPerSecond, t.limit.Burst, t.scope.key(t.name, "samples_per_second"))}
}

// tooFast is what the sender of refused samples is told.
func (t *tenant) tooFast() string {
	return fmt.Sprintf("%s sent more than %d samples a second and %d at once: send fewer, or raise %s, or burst where an outage was made up for",
		t.holds(), t.limit.SamplesPerSecond, t.limit.Burst, t.scope.key(t.name, "samples_per_second"))
}

// payment is what a batch took out of a bucket.
type payment struct {
	from    *bucket
	samples int
}

// tooMuch is a sample whose cluster or namespace is over its rate.
type tooMuch struct {
	labels labels.Labels
	t      int64
	by     *tenant
}

// take takes the samples of a request out of the buckets of all that they
// belong to. A sender that must wait is told so, and nothing is taken. The
// samples of a cluster or namespace whose bucket is empty are refused, all that
// the request has but stale markers; the others of the request stay.
func (l *limiter) take(a *Appender) *waitError {
	out, wait := l.pay(a)
	for _, x := range out {
		r := &Refusal{Labels: x.labels, T: x.t, Reason: RateLimit}
		if len(a.refused.First) < maxPlaces {
			r.Detail = x.by.tooFast()
		}
		a.refuse(r)
		a.beyond(x.by.scope)
	}
	return wait
}

// pay is take without the telling: it returns what it took out of the batch.
func (l *limiter) pay(a *Appender) ([]tooMuch, *waitError) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := a.sender.wait(now); wait != nil {
		return nil, wait
	}
	// What was refused before it came here was work too. A sender does not get
	// it back either when the batch fails.
	a.sender.samples.tokens -= float64(len(a.batch) + a.refused.total())

	l.touched = l.touched[:0]
	count := func(t *tenant, n int) {
		if n == 0 {
			return
		}
		if t.pending == 0 {
			l.touched = append(l.touched, t)
		}
		t.pending += n
	}
	var last *tenant
	n := 0
	for i := range a.batch {
		h := a.batch[i].handle
		t := h.tenant.Load()
		if t != last {
			if t.gone {
				t = l.place(h.labels)
				h.tenant.Store(t)
			}
			count(last, n)
			last, n = t, 0
		}
		n++
	}
	count(last, n)

	over := false
	check := func(t *tenant) {
		t.samples.fill(t.limit, now)
		t.over = t.samples.tokens <= 0
		over = over || t.over
	}
	for _, t := range l.touched[:len(l.touched):len(l.touched)] {
		if t.group == nil {
			continue
		}
		if check(t); !t.over {
			count(t.group, t.pending)
		}
	}
	for _, t := range l.touched {
		if t.group == nil {
			check(t)
		}
	}
	for _, t := range l.touched {
		if !t.over && (t.group == nil || !t.group.over) {
			t.samples.tokens -= float64(t.pending)
			a.paid = append(a.paid, payment{&t.samples, t.pending})
		}
	}
	var out []tooMuch
	if over {
		out = l.split(a, now)
	}
	for _, t := range l.touched {
		t.pending, t.over = 0, false
	}
	return out, nil
}

// split takes out of the batch what belongs to those that are over their rate.
// It is called with mu held.
func (l *limiter) split(a *Appender, now time.Time) []tooMuch {
	var out []tooMuch
	kept := a.batch[:0]
	for i := range a.batch {
		s := &a.batch[i]
		by := s.handle.tenant.Load()
		if !by.over {
			by = by.group
		}
		exemplars := a.exemplars[i]
		delete(a.exemplars, i)
		if by != nil && by.over && !(s.stale() && l.end(a, s.handle.tenant.Load(), now)) {
			if by.refused.IsZero() || now.Sub(by.refused) >= calm {
				l.log.Warn("more samples a second than a limit allows: its samples are refused, those of others are not", "scope", by.scope, "name", by.name,
					"samples_per_second", by.limit.SamplesPerSecond, "burst", by.limit.Burst, "key", by.scope.key(by.name, "samples_per_second"))
			}
			by.refused = now
			a.db.metrics.exemplars.WithLabelValues("refused").Add(float64(len(exemplars)))
			out = append(out, tooMuch{s.Labels, s.T, by})
			continue
		}
		if len(exemplars) > 0 {
			a.exemplars[len(kept)] = exemplars
		}
		kept = append(kept, *s)
	}
	clear(a.batch[len(kept):])
	a.batch = kept
	return out
}

// end takes a stale marker out of its namespace's and its cluster's bucket for
// these, or says that one is empty. It is called with mu held.
func (l *limiter) end(a *Appender, t *tenant, now time.Time) bool {
	for t := t; t != nil; t = t.group {
		if t.ends.fill(t.limit, now); t.ends.tokens <= 0 {
			return false
		}
	}
	for t := t; t != nil; t = t.group {
		t.ends.tokens--
		a.paid = append(a.paid, payment{&t.ends, 1})
	}
	return true
}

// giveBack undoes what take took, of a batch that its sender will repeat: else
// a full disk would use up what a cluster may send, and its samples be refused
// for good.
func (l *limiter) giveBack(a *Appender) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range a.paid {
		p.from.tokens += float64(p.samples)
	}
	a.paid = nil
}

// used is the share of the limit of series that the fullest of a scope has in
// use.
func (l *limiter) used(s scope) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := 0.0
	look := func(t *tenant) {
		if t != nil {
			most = max(most, float64(t.series)/float64(t.limit.Series))
		}
	}
	switch s {
	case scopeAll:
		look(l.all)
	case scopeCluster:
		look(l.otherTown)
		for _, t := range l.clusters {
			look(t)
		}
	case scopeNamespace:
		look(l.otherTown.rest)
		for _, t := range l.clusters {
			look(t.rest)
		}
		for _, t := range l.namespaces {
			look(t)
		}
	case scopeSender:
		look(l.otherPeer)
		for _, t := range l.senders {
			look(t)
		}
	}
	return most
}
