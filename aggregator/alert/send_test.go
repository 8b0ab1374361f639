package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nines/pkg/sla"
)

var update = flag.Bool("update", false, "write the golden files anew")

// alertmanager is a fake that keeps alerts as the real one does: it rejects
// what that rejects and merges what comes (alert.Alert.Validate and Merge of
// v0.34).
type alertmanager struct {
	t testing.TB

	mu     sync.Mutex
	answer http.HandlerFunc // in place of the API, where it is set
	posts  []time.Time      // when each request came, answered or not
	bodies [][]byte         // those that the API took
	size   []int            // alerts of each
	alerts map[string]message
}

func newAlertmanager(t testing.TB) *alertmanager {
	return &alertmanager{t: t, alerts: map[string]message{}}
}

func (am *alertmanager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	am.mu.Lock()
	am.posts = append(am.posts, time.Now())
	answer := am.answer
	am.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	am.take(w, r)
}

func (am *alertmanager) take(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/api/v2/alerts" || r.Header.Get("Content-Type") != "application/json" {
		am.t.Errorf("request %s %s of type %q", r.Method, r.URL, r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender gave up
	}
	var list []message
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&list); err != nil {
		am.t.Errorf("body of a request: %v\n%s", err, body)
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	now := time.Now()
	am.mu.Lock()
	defer am.mu.Unlock()
	am.bodies, am.size = append(am.bodies, body), append(am.size, len(list))
	bad := 0
	for _, m := range list {
		if len(m.Labels) == 0 || m.StartsAt.IsZero() || m.EndsAt.IsZero() || m.EndsAt.Before(m.StartsAt) {
			bad++
			continue
		}
		key := fmt.Sprint(m.Labels)
		if old, ok := am.alerts[key]; ok {
			m.StartsAt = earlier(m.StartsAt, old.StartsAt)
			resolved, was := !m.EndsAt.After(now), !old.EndsAt.After(now)
			if old.EndsAt.After(m.EndsAt) && resolved == was {
				m.EndsAt = old.EndsAt // a shorter end does not win
			}
		}
		am.alerts[key] = m
	}
	if bad > 0 {
		am.t.Errorf("%d alerts are rejected: %s", bad, body)
		http.Error(w, "start time must be before end time", http.StatusBadRequest)
	}
}

// answers makes it answer in another way, nil as an Alertmanager again.
func (am *alertmanager) answers(f http.HandlerFunc) {
	am.mu.Lock()
	defer am.mu.Unlock()
	am.answer = f
}

// active is the tiers that fire there now, and the watchdog.
func (am *alertmanager) active() string {
	am.mu.Lock()
	defer am.mu.Unlock()
	var out []string
	for _, m := range am.alerts {
		if m.EndsAt.After(time.Now()) {
			out = append(out, m.Labels["burn_tier"]+m.Labels["alertname"])
		}
	}
	slices.Sort(out)
	return strings.ReplaceAll(strings.Join(out, " "), Name, "")
}

func (am *alertmanager) expect(when, active string) {
	am.t.Helper()
	if got := am.active(); got != active {
		am.t.Errorf("%s: Alertmanager shows %q, want %q", when, got, active)
	}
}

// received is how many requests came.
func (am *alertmanager) received() int {
	am.mu.Lock()
	defer am.mu.Unlock()
	return len(am.posts)
}

// pipes is a network inside a synctest bubble: host and port to handler. A
// host without one refuses the connection.
type pipes struct {
	mu       sync.Mutex
	handlers map[string]http.Handler
	running  sync.WaitGroup
	open     []net.Conn
}

func (n *pipes) set(host string, h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[host] = h
}

func (n *pipes) dial(_ context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.handlers[address]
	if h == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	client, server := net.Pipe()
	n.open = append(n.open, client, server)
	n.running.Go(func() {
		l := &oneConn{conn: server, done: make(chan struct{})}
		srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				l.once.Do(func() { close(l.done) })
			}
		}}
		// It ends with its only connection.
		_ = srv.Serve(l)
	})
	return client, nil
}

func (n *pipes) close() {
	n.mu.Lock()
	for _, c := range n.open {
		_ = c.Close()
	}
	n.mu.Unlock()
	n.running.Wait()
}

// oneConn is a listener of one connection.
type oneConn struct {
	mu   sync.Mutex
	conn net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// stage is an Alerter that ticks and sends in a synctest bubble.
type stage struct {
	*bench
	net  *pipes
	stop func()

	mu   sync.Mutex
	bad  int64 // of all windows of the objectives at the next tick
	more []sla.Objective
	mute bool // no ticks
}

// perform runs an Alerter against hosts am0:9093, am1:9093… inside a bubble
// and ticks every 10 s for as long as the play goes on.
func perform(t *testing.T, ams []*alertmanager, play func(t *testing.T, s *stage)) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipes{handlers: map[string]http.Handler{}}
		var urls []string
		for i, am := range ams {
			host := fmt.Sprintf("am%d:9093", i)
			urls = append(urls, "http://"+host)
			if am != nil {
				n.set(host, am)
			}
		}
		s := &stage{bench: open(t, config(t, urls...)), net: n}
		s.act(t, func() { play(t, s) })
		n.close()
	})
}

// act runs the Alerter while play goes on, and stops it.
func (s *stage) act(t *testing.T, play func()) {
	for _, p := range s.peers {
		tr := p.client.Transport.(*http.Transport)
		tr.DialContext, tr.Proxy = s.net.dial, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	s.judge(time.Now())
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	running.Go(func() {
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				s.judge(now)
			}
		}
	})
	s.stop = func() { cancel(); running.Wait() }
	play()
	s.stop()
}

// burn sets how many events of all windows are bad from the next tick on.
func (s *stage) burn(bad int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = bad
}

// pause stops ticks or lets them go on.
func (s *stage) pause(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
}

// judge is a tick of the objective and its likes.
func (s *stage) judge(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mute {
		return
	}
	inputs := []Input{burning(objective(s.t), now, s.bad)}
	for _, o := range s.more {
		inputs = append(inputs, burning(o, now, s.bad))
	}
	s.tick(now, inputs...)
}

// pass lets the time pass.
func pass(d time.Duration) {
	time.Sleep(d) // of the bubble: it takes no time
	synctest.Wait()
}

const all = "Watchdog fast long medium slow"

func TestAlertmanagerHearsOfABeginningAndAnEndAtOnce(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		pass(time.Second)
		am.expect("at the start", "Watchdog")
		s.burn(events)
		pass(10 * time.Second)
		am.expect("one tick after it broke", all)
		s.burn(0)
		pass(10 * time.Second)
		am.expect("one tick after it was well", "Watchdog")
	})
}

func TestEachAlertIsSentAgainEachMinuteAndEndsFourMinutesLater(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.burn(events)
		pass(11 * time.Second)
		begin := time.Now().Add(-time.Second)
		before := am.received()
		for i := range 120 {
			pass(time.Minute)
			am.expect(fmt.Sprintf("minute %d", i+1), all)
		}
		if got := am.received() - before; got != 120 {
			t.Errorf("%d requests in two hours without a change, want one each minute", got)
		}
		am.mu.Lock()
		defer am.mu.Unlock()
		last := am.posts[len(am.posts)-1]
		for key, m := range am.alerts {
			if m.Labels["alertname"] == Watchdog {
				continue // its end counts from the tick
			}
			if !m.EndsAt.Equal(last.Add(4 * time.Minute)) {
				t.Errorf("ends %s after it was sent, want 4m: %s", m.EndsAt.Sub(last), key)
			}
			if !m.StartsAt.Equal(begin) {
				t.Errorf("starts at %s, want %s, when it began: %s", m.StartsAt, begin, key)
			}
		}
	})
}

func TestAResolvedAlertIsSentFor15Minutes(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.burn(events)
		pass(11 * time.Second)
		s.burn(0)
		pass(10 * time.Second)
		am.expect("resolved", "Watchdog")
		resolved := time.Now().Add(-time.Second)
		sizes := func() int {
			am.mu.Lock()
			defer am.mu.Unlock()
			return am.size[len(am.size)-1]
		}
		for i := range 14 {
			pass(time.Minute)
			if got := sizes(); got != 5 {
				t.Fatalf("minute %d: %d alerts in the newest request, want the watchdog and four resolved", i+1, got)
			}
			am.mu.Lock()
			clear(am.alerts) // as it does after some minutes, or over a restart
			am.mu.Unlock()
		}
		pass(3 * time.Minute)
		if got := sizes(); got != 1 {
			t.Errorf("%s after it resolved: %d alerts are sent, want the watchdog alone", time.Since(resolved), got)
		}
	})
}

func TestAnAlertmanagerThatForgotIsToldAgainWithinAMinute(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.burn(events)
		pass(11 * time.Second)
		am.mu.Lock()
		clear(am.alerts)
		am.mu.Unlock()
		pass(time.Minute)
		am.expect("a minute after its restart", all)
	})
}

func TestTheWatchdogIsAlwaysThere(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		for range 24 {
			pass(time.Hour)
			am.expect("all is well", "Watchdog")
		}
		am.mu.Lock()
		defer am.mu.Unlock()
		for _, m := range am.alerts {
			if got := fmt.Sprint(m.Labels); got != "map[alertname:Watchdog cluster:blue severity:info]" {
				t.Errorf("labels of the watchdog: %s", got)
			}
		}
	})
}

func TestTheWatchdogEndsWhenNothingJudgesAnyMoreAndAlertsStay(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.burn(events)
		pass(11 * time.Second)
		s.pause(true)
		pass(3 * time.Minute)
		am.expect("three minutes without a tick", all)
		pass(2 * time.Minute)
		am.expect("five minutes without a tick", strings.TrimPrefix(all, "Watchdog "))
		s.pause(false)
		pass(70 * time.Second)
		am.expect("it ticks again", all)
	})
}

func TestWhenWeAreGoneTheAlertsEndByThemselves(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.burn(events)
		pass(11 * time.Second)
		s.stop()
		pass(3 * time.Minute)
		am.expect("three minutes after the stop", all)
		pass(2 * time.Minute)
		am.expect("five minutes after the stop", "")
	})
}

func TestARestartKeepsTheBeginningAndSendsAtOnce(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.burn(events)
		pass(11 * time.Second)
		begin := time.Now().Add(-time.Second)
		s.stop()
		pass(20 * time.Minute)
		am.expect("long after the stop", "")

		again := &stage{bench: open(t, s.cfg), net: s.net, bad: events}
		again.act(t, func() {
			pass(time.Second)
			am.expect("a second after the restart", all)
			for _, a := range again.Firing() {
				if !a.Since.Equal(begin) {
					t.Errorf("%s fires since %s, want since %s", a.Tier, a.Since, begin)
				}
			}
			again.stop()
		})
		// It went well while we were away.
		last := &stage{bench: open(t, s.cfg), net: s.net}
		last.act(t, func() {
			pass(time.Second)
			am.expect("a second after the second restart", "Watchdog")
		})
	})
}

func TestAFailingAlertmanagerIsLoggedOnceCountedAndRetriedUntilNothingIsLost(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no, thank you", code) }
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the server notices that the sender went
		<-r.Context().Done()
	}
	for name, tc := range map[string]struct {
		fail http.HandlerFunc // nil: the connection is refused
		says string           // part of the log
	}{
		"500":                {status(500), "500 Internal Server Error no, thank you"},
		"503":                {status(503), "503 Service Unavailable"},
		"404":                {status(404), "404 Not Found"},
		"401":                {status(401), "401 Unauthorized"},
		"422":                {status(422), "422 Unprocessable Entity"},
		"429":                {status(429), "429 Too Many Requests"},
		"connection refused": {nil, "connection refused"},
		"hangs":              {hang, "deadline exceeded"},
		"cut connection":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				return // 200, as any page answers
			}
			http.Redirect(w, r, "http://am0:9093/login", http.StatusFound)
		}, `configure the address that it redirects to`},
		"redirect that keeps the method": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/elsewhere" {
				http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
			}
		}, `308 Permanent Redirect`},
		"an endless answer": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			for line := bytes.Repeat([]byte("no "), 4096); r.Context().Err() == nil; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, "500 Internal Server Error no no no"},
	} {
		t.Run(name, func(t *testing.T) {
			am := newAlertmanager(t)
			perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
				pass(time.Second)
				am.expect("at the start", "Watchdog")
				s.burn(events)
				if tc.fail == nil {
					s.net.close()
					s.net.set("am0:9093", nil)
				} else {
					am.answers(tc.fail)
				}
				pass(10 * time.Minute)
				am.expect("after ten minutes of failures", "") // what it had has ended
				failed := s.metric("nines_alert_sends_total", "alertmanager", "am0:9093", "result", "failed")
				// 15 to 30 s between two requests, of which one may last 10 s.
				if failed < 12 || failed > 50 {
					t.Errorf("%g requests failed in ten minutes, want one each 15 to 40 s", failed)
				}
				lines := 0
				for line := range strings.Lines(s.log.String()) {
					if strings.Contains(line, "does not take alerts") {
						lines++
						if !strings.Contains(line, tc.says) || !strings.Contains(line, "am0:9093") || len(line) > 6000 {
							t.Errorf("the log does not say %q: %.300s", tc.says, line)
						}
					}
				}
				if lines != 1 {
					t.Errorf("%d lines about the failure, want one:\n%.2000s", lines, s.log)
				}

				am.answers(nil)
				s.net.set("am0:9093", am)
				pass(45 * time.Second)
				am.expect("45 s after it came back", all)
				if got := strings.Count(s.log.String(), "answers again"); got != 1 {
					t.Errorf("%d lines about the return, want one", got)
				}
				ok := s.metric("nines_alert_sends_total", "result", "ok")
				s.burn(0)
				pass(11 * time.Second)
				am.expect("after the end", "Watchdog")
				if got := s.metric("nines_alert_sends_total", "result", "ok"); got <= ok {
					t.Errorf("%g requests counted as ok, want more than %g", got, ok)
				}
			})
		})
	}
}

func TestAnEndThatAnAlertmanagerMissedReachesItWhenItIsBack(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.burn(events)
		pass(11 * time.Second)
		am.expect("before", all)
		am.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		s.burn(0)
		pass(time.Minute)
		am.expect("while it fails", all) // it has not heard, and its four minutes are not over
		am.answers(nil)
		pass(45 * time.Second)
		am.expect("when it is back", "Watchdog")
	})
}

func TestOneThatFailsDoesNotHoldUpTheOthers(t *testing.T) {
	hanging, broken, well := newAlertmanager(t), newAlertmanager(t), newAlertmanager(t)
	hanging.answers(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() })
	broken.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	perform(t, []*alertmanager{hanging, nil, broken, well}, func(t *testing.T, s *stage) {
		for i := range 50 {
			s.burn(events)
			pass(11 * time.Second)
			well.expect(fmt.Sprintf("beginning %d", i), all)
			s.burn(0)
			pass(10 * time.Second)
			well.expect(fmt.Sprintf("end %d", i), "Watchdog")
			pass(9 * time.Second)
		}
		for host, failed := range map[string]bool{"am0:9093": true, "am1:9093": true, "am2:9093": true, "am3:9093": false} {
			if got := s.metric("nines_alert_sends_total", "alertmanager", host, "result", "failed"); (got > 0) != failed {
				t.Errorf("%s: %g requests failed", host, got)
			}
		}
		if got := strings.Count(s.log.String(), "does not take alerts"); got != 3 {
			t.Errorf("%d lines about three that fail", got)
		}
	})
}

func TestARejectionIsLoggedOnceAndNotTriedAgainBeforeTheNextMinute(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		pass(time.Second)
		am.answers(func(w http.ResponseWriter, r *http.Request) {
			am.take(httptest.NewRecorder(), r)
			http.Error(w, "invalid label set", http.StatusBadRequest)
		})
		before := am.received()
		pass(30 * time.Minute)
		if got := am.received() - before; got != 30 {
			t.Errorf("%d requests in 30 minutes, want 30", got)
		}
		if got := s.metric("nines_alert_sends_total", "result", "rejected"); got != 30 {
			t.Errorf("%g counted as rejected, want 30", got)
		}
		if got := s.metric("nines_alert_sends_total", "result", "failed"); got != 0 {
			t.Errorf("%g counted as failed, want 0", got)
		}
		if got := strings.Count(s.log.String(), "invalid label set"); got != 1 {
			t.Errorf("%d lines about the rejection, want one:\n%s", got, s.log)
		}
		// A change is sent at once all the same.
		s.burn(events)
		pass(11 * time.Second)
		am.expect("while it rejects some", all)
		am.answers(nil)
		pass(time.Minute)
		if got := strings.Count(s.log.String(), "takes all alerts again"); got != 1 {
			t.Errorf("%d lines about the end of it, want one:\n%s", got, s.log)
		}
	})
}

func TestManyAlertsGoInBatchesAndABadBatchDoesNotHoldUpTheOthers(t *testing.T) {
	am := newAlertmanager(t)
	perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
		s.mu.Lock()
		for i := range 299 {
			o := objective(t)
			o.ID = sla.ID{1, byte(i >> 8), byte(i)}
			s.more = append(s.more, o)
		}
		s.mu.Unlock()
		s.burn(events)
		pass(11 * time.Second)
		am.mu.Lock()
		sizes := am.size[len(am.size)-5:]
		if want := []int{256, 256, 256, 256, 177}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %v, want %v: 300 objectives of 4 tiers and the watchdog", sizes, want)
		}
		am.mu.Unlock()

		s.burn(0)
		am.answers(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("read: %v", err)
			}
			if bytes.Contains(body, []byte(Watchdog)) { // the first batch
				w.WriteHeader(http.StatusUnprocessableEntity)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			am.take(w, r)
		})
		pass(10 * time.Second)
		if got := strings.Count(am.active(), " ") + 1; got != 256 {
			t.Errorf("%d alerts are active, want the 256 of the batch that was refused", got)
		}
		am.answers(nil)
		pass(40 * time.Second)
		am.expect("when it takes all", "Watchdog")
	})
}

func TestAStopSendsTheLastWord(t *testing.T) {
	t.Run("of a change that is not sent yet", func(t *testing.T) {
		am := newAlertmanager(t)
		perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
			pass(time.Second)
			s.burn(events)
			s.judge(time.Now())
			s.stop()
			am.expect("after the stop", all)
		})
	})
	t.Run("of a send that the stop cuts short", func(t *testing.T) {
		am := newAlertmanager(t)
		perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
			pass(time.Second)
			am.answers(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				am.answers(nil)
				<-r.Context().Done()
			})
			s.burn(events)
			pass(10 * time.Second)
			am.expect("while it hangs", "Watchdog")
			s.stop()
			am.expect("after the stop", all)
			if got := s.metric("nines_alert_sends_total", "result", "failed"); got != 0 {
				t.Errorf("%g counted as failed: our own stop is no failure of theirs", got)
			}
		})
	})
	t.Run("to one that was away a moment ago", func(t *testing.T) {
		am := newAlertmanager(t)
		perform(t, []*alertmanager{nil}, func(t *testing.T, s *stage) {
			s.burn(events)
			pass(5 * time.Minute)
			s.net.set("am0:9093", am)
			s.stop()
			am.expect("after the stop", all)
		})
	})
	t.Run("for at most three seconds", func(t *testing.T) {
		am := newAlertmanager(t)
		am.answers(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() })
		perform(t, []*alertmanager{am}, func(t *testing.T, s *stage) {
			pass(5 * time.Second)
			began := time.Now()
			s.stop()
			if got := time.Since(began); got > lastWord {
				t.Errorf("the stop took %s, want at most %s", got, lastWord)
			}
		})
	})
}

// TestWhatAnAlertmanagerReceives guards the wire format: labels identify an
// alert, so that a changed one is another alert.
func TestWhatAnAlertmanagerReceives(t *testing.T) {
	plain := sla.Objective{
		ID: sla.ID{1, 2, 3, 4, 5, 6, 7, 8}, Cluster: "green", Service: "ingest", SLO: "ingest-complete", Name: "0",
		Target: target(t, "0.99"), Window: sla.Window{Calendar: sla.Month, Timezone: "Europe/Berlin"},
		Runbook: "https://wiki.example/ingest?page=1", SLI: sla.SLI{Bad: "lost", Total: "sent"},
		Group: map[string]string{"tenant": "a \"b\"", "severity": "mine", "alertname": "Other"},
	}
	none := plain
	none.ID, none.Runbook, none.Group, none.Cluster = sla.ID{2}, "", nil, ""
	for name, tc := range map[string]struct {
		inputs []Input
		later  []Input // a minute later
	}{
		"watchdog": {},
		"fast": {inputs: []Input{input(objective(t), noon, map[time.Duration]sla.Sum{
			time.Hour: seen(200 * sla.Micro), 5 * time.Minute: seen(312_345_678),
		})}},
		"resolved": {inputs: []Input{input(objective(t), noon, map[time.Duration]sla.Sum{
			time.Hour: seen(200 * sla.Micro), 5 * time.Minute: seen(300 * sla.Micro),
		})}, later: []Input{input(objective(t), noon.Add(time.Minute), map[time.Duration]sla.Sum{
			time.Hour: seen(200 * sla.Micro), 5 * time.Minute: seen(0),
		})}},
		"all-tiers":                       {inputs: []Input{burning(objective(t), noon, events)}},
		"own-runbook-group-and-cluster":   {inputs: []Input{input(plain, noon, map[time.Duration]sla.Sum{time.Hour: seen(events), 5 * time.Minute: seen(events)})}},
		"no-runbook-title-team-namespace": {inputs: []Input{input(none, noon, map[time.Duration]sla.Sum{time.Hour: seen(events), 5 * time.Minute: seen(events)})}},
		"budget-spent": {inputs: []Input{func() Input {
			in := input(objective(t), noon, map[time.Duration]sla.Sum{time.Hour: seen(events), 5 * time.Minute: seen(events)})
			in.Period = seen(22 * sla.Micro)
			return in
		}()}},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, config(t, "http://user:secret@am.example:9093/am/", "http://other.example:9093"))
			b.tick(noon, tc.inputs...)
			now := noon.Add(time.Second)
			if tc.later != nil {
				b.tick(noon.Add(time.Minute), tc.later...)
				now = noon.Add(61 * time.Second)
			}
			got, err := json.MarshalIndent(b.messages(now), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			if bytes.Contains(got, []byte("secret")) {
				t.Error("the password of an Alertmanager is sent to people")
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v; write it with: go test ./aggregator/alert -run %s -update", err, t.Name())
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; see it with -update and git diff. Sent:\n%s", file, got)
			}
		})
	}
}

func TestLabelsAreTheSameWhateverTheFigures(t *testing.T) {
	labels := func(bad int64, now time.Time) string {
		b := open(t, config(t))
		b.tick(now, burning(objective(t), now, bad))
		var out []string
		for _, m := range b.messages(now) {
			out = append(out, fmt.Sprint(m.Labels))
		}
		return strings.Join(out, "\n")
	}
	if a, b := labels(events, noon), labels(events/2, noon.Add(77*time.Hour)); a != b {
		t.Errorf("labels differ:\n%s\n\n%s", a, b)
	}
}

// TestOverTCP is the same with real sockets: the transport's own behaviour.
func TestOverTCP(t *testing.T) {
	am := newAlertmanager(t)
	told := make(chan struct{}, 100)
	states := make(chan http.ConnState, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		am.ServeHTTP(w, r)
		told <- struct{}{}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		states <- state
	}
	server.Start()
	defer server.Close()
	gone := httptest.NewServer(am)
	gone.Close()
	b := open(t, config(t, server.URL+"/", gone.URL))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	now := time.Now()
	b.tick(now, burning(objective(t), now, 0))
	go func() { ended <- b.Run(ctx) }()
	<-told
	am.expect("at the start", "Watchdog")
	b.tick(now, burning(objective(t), now, events))
	<-told
	am.expect("after the beginning", all)
	b.tick(now, burning(objective(t), now, 0))
	<-told
	am.expect("after the end", "Watchdog")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	count := map[http.ConnState]int{}
	for late := time.After(10 * time.Second); len(states) > 0 || count[http.StateNew] > count[http.StateClosed]; {
		select {
		case state := <-states:
			count[state]++
		case <-late:
			t.Fatalf("a connection is still open after Run ended: %v", count)
		}
	}
	if got := b.metric("nines_alert_sends_total", "alertmanager", strings.TrimPrefix(gone.URL, "http://"), "result", "failed"); got < 1 {
		t.Errorf("%g requests to one that is gone failed", got)
	}
}

func TestAddressesThatAreNotOnesAreRefused(t *testing.T) {
	for _, address := range []string{"", "localhost:9093", "/api", "http://", "://x", "http://[::1", "ftp://am.example"} {
		_, err := New(config(t, address), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err == nil || !strings.Contains(err.Error(), "is not a URL such as http://") {
			t.Errorf("New with %q: %v, want an error that shows a right one", address, err)
		}
	}
	_, err := New(config(t, "http://user:secret@[::1"), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("New: %v, want an error without the password", err)
	}
}

func TestWithoutAlertmanagersAlertsAreJudgedAndRunEnds(t *testing.T) {
	b := open(t, config(t))
	b.tick(noon, burning(objective(t), noon, events))
	b.want("fast long medium slow")
	if _, ok := b.messages(noon)[1].Annotations["silence_url"]; ok {
		t.Error("a link to silence without an Alertmanager")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}
