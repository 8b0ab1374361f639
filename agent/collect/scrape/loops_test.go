package scrape

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

func TestTargetOfAPodThatEndsIsScrapedEachSecondWithoutAMarkerUntilItHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		end := p.serve("a:1", &text{page: "# TYPE x counter\nx ASKED\n"})
		defer end()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(31 * time.Second) // samples at 0, 15 and 30
		b.give("pods", ending(jobOf("j", 15*time.Second, "a:1")))
		sleep(60500 * time.Millisecond) // the slow loop's markers would come within 33 s
		got := b.sink.of("x")
		if n := len(got); n < 60 || n > 70 {
			t.Errorf("%d samples, want 3 and about one a second for a minute", n)
		}
		if h := history(got); strings.Contains(h, "stale") {
			t.Errorf("marked stale while it was scraped: %s", h)
		}
		if h := history(b.sink.of("up")); strings.Contains(h, "stale") {
			t.Errorf("up was marked stale while it was scraped: %s", h)
		}
		for _, s := range got {
			if !labels.Equal(s.ls, got[0].ls) {
				t.Fatalf("labels changed from %s to %s", got[0].ls, s.ls)
			}
		}
		if !strings.Contains(b.page(), "x{") {
			t.Errorf("the page lacks the series:\n%s", b.page())
		}

		b.give("pods", jobOf("j", 15*time.Second)) // the pod has gone
		end()
		sleep(10 * time.Second)
		for _, name := range []string{"x", "up", "scrape_duration_seconds", "scrape_series_added"} {
			if h := history(b.sink.of(name)); !strings.HasSuffix(h, " stale") || strings.Count(h, "stale") != 1 {
				t.Errorf("%s after the pod has gone: %s", name, h)
			}
		}
		if page := b.page(); page != "" {
			t.Errorf("the page still has\n%s", page)
		}
	})
}

func TestSeriesThatIsNotThereAnyMoreWhenThePodEndsIsMarkedStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		x := &text{page: "x 1\ny 2\n"}
		defer p.serve("a:1", x)()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(16 * time.Second)
		x.say("x 1\n")
		b.give("pods", ending(jobOf("j", 15*time.Second, "a:1")))
		sleep(40 * time.Second)
		if h := history(b.sink.of("y")); h != "2 2 stale" {
			t.Errorf("y: %s", h)
		}
		if h := history(b.sink.of("x")); strings.Contains(h, "stale") {
			t.Errorf("x: %s", h)
		}
	})
}

func TestSlowPageOfAPodThatEndsGetsTheTimeThatItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		page := &text{page: "x ASKED\n"}
		defer p.serve("a:1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(1200 * time.Millisecond)
			page.ServeHTTP(w, r)
		}))()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(20 * time.Second)
		b.give("pods", ending(jobOf("j", 15*time.Second, "a:1")))
		sleep(40 * time.Second)
		if h := history(b.sink.of("up")); strings.Contains(h, "0") || strings.Contains(h, "stale") {
			t.Errorf("up: %s", h)
		}
		if n := len(b.sink.of("x")); n < 14 || n > 17 {
			t.Errorf("%d samples in 40 s, want one in 3 s", n)
		}
	})
}

func TestJobThatIsTakenAwayLeavesMarkersBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x 1\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(16 * time.Second)
		b.give("pods")
		sleep(40 * time.Second)
		if h := history(b.sink.of("x")); h != "1 1 stale" {
			t.Errorf("x: %s", h)
		}
		if h := history(b.sink.of("up")); h != "1 1 stale" {
			t.Errorf("up: %s", h)
		}
		sleep(time.Minute)
		if left := b.manager.ScrapePools(); len(left) != 0 {
			t.Errorf("the engine still holds %v", left)
		}
		b.sink.forget()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(time.Second)
		if h := history(b.sink.of("x")); h != "1" {
			t.Errorf("x, when the job is back: %q", h)
		}
	})
}

func TestChangeOfOneOwnerDoesNotDisturbTheLoopsOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x 1\n"})()
		defer p.serve("b:1", &text{page: "y 1\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		mine := func() Job {
			j := jobOf("mine", 15*time.Second, "a:1")
			j.Config.MetricRelabelConfigs = []*relabel.Config{{
				Action: relabel.Drop, Regex: relabel.MustNewRegexp("unwanted"), SourceLabels: model.LabelNames{"__name__"},
				Separator: ";", Replacement: "$1",
			}}
			return j
		}
		b.give("kubelet", mine())
		for i := range 7 {
			sleep(11 * time.Second)
			j := jobOf("theirs", time.Duration(5+i)*time.Second, "b:1")
			switch i {
			case 2:
				b.give("pods")
			case 3:
				b.give("pods", j, jobOf("another", time.Minute, "b:1"))
			default:
				b.give("pods", j)
			}
			b.give("kubelet", mine()) // the same again, made anew
		}
		sleep(14 * time.Second)
		got := b.sink.of("x")
		if h := history(got); h != "1 1 1 1 1 1 1" {
			t.Errorf("x: %s", h)
		}
		for i := 1; i < len(got); i++ {
			if d := got[i].t - got[i-1].t; d != 15000 {
				t.Errorf("sample %d came %d ms after the one before", i, d)
			}
		}
		if len(b.sink.of("y")) == 0 {
			t.Error("the other owner's target was not scraped")
		}
	})
}

func TestRulesThatLeaveATargetTheSameDoNotRestartItsLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x ASKED\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(5 * time.Second)
		j := jobOf("j", 15*time.Second, "a:1", "b:1")
		j.Config.RelabelConfigs = []*relabel.Config{{
			Action: relabel.Drop, Regex: relabel.MustNewRegexp("b:1"), SourceLabels: model.LabelNames{"__address__"}, Separator: ";",
		}}
		b.give("pods", j)
		sleep(5 * time.Second)
		if h := history(b.sink.of("x")); h != "1" {
			t.Errorf("x: %s", h)
		}
		if got := b.own(`nines_agent_scrape_targets{owner="pods",state="dropped"}`); got != "1" {
			t.Errorf("dropped: %s", got)
		}
	})
}

func TestJobsWithOneNameAreToldByBothOwnersAndTheFirstKeepsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x 1\n"})()
		defer p.serve("b:1", &text{page: "y 1\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("kubelet", jobOf("j", time.Minute, "a:1"))
		err := b.Set("pods", []Job{jobOf("j", time.Minute, "b:1"), jobOf("k", time.Minute, "b:1")})
		if err == nil || !strings.Contains(err.Error(), `"j" of pods`) || !strings.Contains(err.Error(), "of kubelet") {
			t.Errorf("error %v, want one that names both owners", err)
		}
		err = b.Set("static", []Job{jobOf("l", time.Minute), jobOf("l", time.Minute)})
		if err == nil || !strings.Contains(err.Error(), `"l" of static is given twice`) {
			t.Errorf("error %v", err)
		}
		sleep(2 * time.Second)
		if len(b.sink.of("x")) != 1 {
			t.Error("the first owner's job is not in force")
		}
		got := b.sink.of("y")
		if len(got) != 1 || got[0].ls.Get("job") != "k" {
			t.Errorf("the second owner's other job is not in force: %v", got)
		}
	})
}

func TestTargetsAboveTheBoundAreRefusedToldOnceAndTakenWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		for _, a := range []string{"a:1", "b:1", "c:1", "d:1"} {
			defer p.serve(a, &text{page: "x 1\n"})()
		}
		cfg := DefaultConfig()
		cfg.MaxTargets = 2
		b := start(t, cfg, p.dial)
		defer b.stop()
		scraped := func() string {
			b.sink.forget()
			sleep(10 * time.Second)
			var who []string
			for _, s := range b.sink.of("x") {
				if a := s.ls.Get("instance"); !s.stale() && !slices.Contains(who, a) {
					who = append(who, a)
				}
			}
			slices.Sort(who)
			return strings.Join(who, " ")
		}
		b.give("pods", jobOf("p", 2*time.Second, "c:1", "d:1"))
		b.give("kubelet", jobOf("k", 2*time.Second, "a:1", "b:1"))
		if got := scraped(); got != "c:1 d:1" {
			t.Errorf("scraped %q, want those that were there first", got)
		}
		if got := b.own(`nines_agent_scrape_targets{owner="kubelet",state="refused"}`); got != "2" {
			t.Errorf("refused: %s", got)
		}
		b.give("kubelet", jobOf("k", 2*time.Second, "a:1", "b:1"))
		if n := strings.Count(b.logs.String(), "too many targets"); n != 1 {
			t.Errorf("told %d times", n)
		}
		b.give("pods", jobOf("p", 2*time.Second, "d:1"))
		if got := scraped(); got != "a:1 d:1" {
			t.Errorf("scraped %q once one has gone", got)
		}
		b.give("pods")
		if got := scraped(); got != "a:1 b:1" {
			t.Errorf("scraped %q once there is room for all", got)
		}
		if !strings.Contains(b.logs.String(), "all targets are scraped again") {
			t.Error("the log does not say that there is room again")
		}
	})
}

func TestManyNewTargetsDoNotBeginInTheSameMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		var addresses []string
		for i := range 100 {
			a := fmt.Sprintf("p%d:1", i)
			addresses = append(addresses, a)
			defer p.serve(a, &text{page: "x 1\n"})()
		}
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		sleep(5 * time.Second)
		b.give("pods", jobOf("p", 30*time.Second, addresses...))
		sleep(100 * time.Millisecond)
		if n := len(b.sink.of("x")); n != 13 {
			t.Errorf("%d began at once, want an eighth", n)
		}
		if got := b.own(`nines_agent_scrape_targets{owner="pods",state="waiting"}`); got != "87" {
			t.Errorf("waiting: %s", got)
		}
		sleep(15 * time.Second)
		if n := len(b.sink.of("x")); n != 100 {
			t.Errorf("%d have begun after 15 s", n)
		}
	})
}

func TestScrapeThatTheSinkRefusesIsLostAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x ASKED\nz 1\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.sink.failCommit = errors.New("disk is full")
		b.give("pods", jobOf("j", 10*time.Second, "a:1"))
		sleep(11 * time.Second)
		if got := b.own(`nines_agent_scrapes_lost_total{owner="pods"}`); got != "2" {
			t.Errorf("lost: %s", got)
		}
		if b.page() != "" || b.table.size() != 0 {
			t.Errorf("%d series are kept of scrapes that were lost:\n%s", b.table.size(), b.page())
		}
		if n := strings.Count(b.logs.String(), "disk is full"); n != 1 {
			t.Errorf("told %d times in 11 s:\n%s", n, b.logs)
		}
		b.sink.mu.Lock()
		b.sink.failCommit = nil
		b.sink.mu.Unlock()
		sleep(10 * time.Second)
		if h := history(b.sink.of("x")); h != "3" {
			t.Errorf("x: %s, want the third scrape", h)
		}

		b.sink.mu.Lock()
		b.sink.failAppend = func(name string) error {
			if name == "z" {
				return errors.New("no room for z")
			}
			return nil
		}
		b.sink.mu.Unlock()
		sleep(10 * time.Second)
		if h := history(b.sink.of("up")); h != "1 0" {
			t.Errorf("up: %s", h)
		}
		if got := b.own(`nines_agent_scrapes_lost_total{owner="pods"}`); got != "3" {
			t.Errorf("lost: %s", got)
		}
		if !strings.Contains(b.logs.String(), "no room for z") {
			t.Errorf("the log does not say why:\n%s", b.logs)
		}
		if got := b.own(`nines_agent_scrape_samples_total{owner="pods"}`); got != "2" {
			t.Errorf("samples: %s", got)
		}
	})
}

func TestEndDoesNotWaitForATargetThatHangsNorCallItDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		release := make(chan struct{})
		end := p.serve("a:1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}))
		defer end()
		defer p.serve("b:1", &text{page: "x 1\n"})()
		b := start(t, DefaultConfig(), p.dial)
		b.give("pods", jobOf("j", time.Minute, "a:1", "b:1"))
		sleep(3 * time.Second)
		began := time.Now()
		b.stop()
		if took := time.Since(began); took > grace {
			t.Errorf("the end took %v", took)
		}
		for _, s := range b.sink.of("up") {
			if s.v != 1 {
				t.Errorf("a target is called down, or stale, by the end: %v %v", s, s.v)
			}
		}
		if h := history(b.sink.of("x")); h != "1" {
			t.Errorf("x: %s, want no marker: the agent may be back", h)
		}
		close(release)
	})
}

func TestPodThatComesBackWithTheSameLabelsGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		defer p.serve("a:1", &text{page: "x 1\n"})()
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(16 * time.Second)
		b.give("pods", jobOf("j", 15*time.Second))
		sleep(5 * time.Second)
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(40 * time.Second)
		if h := history(b.sink.of("x")); h != "1 1 1 1 1" {
			t.Errorf("x: %s", h)
		}
		if !strings.Contains(b.page(), "\nx{") {
			t.Errorf("the page lacks it:\n%s", b.page())
		}
	})
}

func TestSeriesThatVanishesFromThePageIsMarkedStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		x := &text{page: "x 1\ny 2\n"}
		end := p.serve("a:1", x)
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		b.give("pods", jobOf("j", 15*time.Second, "a:1"))
		sleep(time.Second)
		x.say("y 2\n")
		sleep(15 * time.Second)
		if h := history(b.sink.of("x")); h != "1 stale" {
			t.Errorf("x: %s", h)
		}
		end()
		sleep(15 * time.Second)
		if h := history(b.sink.of("y")); h != "2 2 stale" {
			t.Errorf("y of a target that does not answer: %s", h)
		}
		if h := history(b.sink.of("up")); h != "1 1 0" {
			t.Errorf("up: %s", h)
		}
		if !strings.Contains(b.logs.String(), "target cannot be scraped") || !strings.Contains(b.logs.String(), "connection refused") {
			t.Errorf("the log does not say so:\n%s", b.logs)
		}
		if page := b.page(); !strings.Contains(page, "up{instance=\"a:1\",job=\"j\"} 0\n") || strings.Contains(page, "y{") {
			t.Errorf("page:\n%s", page)
		}
		end = p.serve("a:1", x)
		sleep(15 * time.Second)
		if n := strings.Count(b.logs.String(), "\n"); n != 2 {
			t.Errorf("%d lines about one failure and its end:\n%s", n, b.logs)
		}
		end()
	})
}

func TestOwnersMayCallAtOnceWhilePagesAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pods
		for i := range 4 {
			defer p.serve(fmt.Sprintf("p%d:1", i), &text{page: "x ASKED\n"})()
		}
		b := start(t, DefaultConfig(), p.dial)
		defer b.stop()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				owner := fmt.Sprintf("o%d", i)
				for round := range 40 {
					j := jobOf(owner, time.Second, fmt.Sprintf("p%d:1", i))
					if round%3 == 1 {
						j = ending(j)
					}
					if round%5 == 4 {
						j.Groups = nil
					}
					if err := b.Set(owner, []Job{j}); err != nil {
						t.Error(err)
					}
					b.page()
					b.own("nines_agent_scrape_series")
					time.Sleep(700 * time.Millisecond)
				}
				if err := b.Set(owner, []Job{jobOf(owner, time.Second, fmt.Sprintf("p%d:1", i))}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.sink.forget()
		sleep(10 * time.Second)
		if n := len(b.sink.of("x")); n < 36 || n > 44 {
			t.Errorf("%d samples of four targets in 10 s", n)
		}
	})
}
