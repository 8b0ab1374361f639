package ship

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimitIsHalvedOncePerRoundTripAndGrowsByOneAfterARun(t *testing.T) {
	l := newLimiter(8)
	take := func() int {
		t.Helper()
		ticket, err := l.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	var tickets []int
	for range 8 {
		tickets = append(tickets, take())
	}
	for i, want := range []int{4, 4, 4, 4} {
		l.release(tickets[i], loadBusy)
		if got := l.allowed(); got != want {
			t.Errorf("after %d of one round trip the limit is %d, want %d", i+1, got, want)
		}
	}
	for _, ticket := range tickets[4:] {
		l.release(ticket, loadUnknown)
	}
	for _, want := range []int{2, 1, 1} {
		l.release(take(), loadBusy)
		if got := l.allowed(); got != want {
			t.Errorf("the limit is %d, want %d", got, want)
		}
	}
	for want := 2; want <= 8; want++ {
		for range raiseAfter*(want-1) - 1 {
			l.release(take(), loadGood)
		}
		if got := l.allowed(); got != want-1 {
			t.Errorf("the limit is %d before the run of %d is over", got, want)
		}
		l.release(take(), loadGood)
		if got := l.allowed(); got != want {
			t.Errorf("the limit is %d, want %d", got, want)
		}
	}
	for range 100 {
		l.release(take(), loadGood)
	}
	if l.allowed() != 8 || l.active != 0 {
		t.Errorf("the limit is %d, %d are under way", l.allowed(), l.active)
	}
}

func TestWhoWaitsLongestIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		ticket, err := l.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int
		var calls sync.WaitGroup
		gone := errors.New("gone")
		ctx, leave := context.WithCancelCause(t.Context())
		for i := range 5 {
			of := t.Context()
			if i == 2 {
				of = ctx
			}
			calls.Go(func() {
				ticket, err := l.acquire(of)
				if i == 2 {
					if !errors.Is(err, gone) {
						t.Errorf("error %v", err)
					}
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				l.release(ticket, loadGood)
			})
			synctest.Wait()
		}
		leave(gone)
		synctest.Wait()
		l.release(ticket, loadGood)
		calls.Wait()
		if !slices.Equal(order, []int{0, 1, 3, 4}) || l.active != 0 || len(l.waiting) != 0 {
			t.Errorf("order %v; %d under way, %d wait", order, l.active, len(l.waiting))
		}
	})
}

// Whatever the server says, no more requests are under way than are allowed,
// and each call comes to its end.
func TestBusyServerIsAskedByFewerCallsAndNoneStarves(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) { cfg.Concurrency = 4 }, func(t *testing.T, f *fixture) {
		var mu sync.Mutex
		under, most, n := 0, map[bool]int{}, 0
		f.cluster.script = slices.Repeat([]reply{func(c *cluster, w http.ResponseWriter, r *http.Request, s seen) {
			mu.Lock()
			n++
			busy := n > 8 && n <= 60
			under++
			if n > 20 || !busy {
				most[busy] = max(most[busy], under)
			}
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			under--
			mu.Unlock()
			if busy {
				whole(429, "")(c, w, r, s)
				return
			}
			items(nil)(c, w, r, s)
		}}, 500)
		var calls sync.WaitGroup
		for i := range 12 {
			calls.Go(func() {
				for k := range 10 {
					f.ship(t, fmt.Sprintf("%d-%d", i, k), Stored)
				}
			})
		}
		calls.Wait()
		if most[false] > 4 || most[true] > 2 {
			t.Errorf("%v requests under way at once by whether the server is busy; want at most 4 and 2", most)
		}
		if got := f.limit.allowed(); got != 4 {
			t.Errorf("the limit is %d at the end, want 4 again", got)
		}
	})
}

func TestLimitFollowsTheAnswers(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer reply
		want   int
	}{
		{"request 429", whole(429, ""), 2},
		{"request 503", whole(503, ""), 2},
		{"no answer in time", silent, 2},
		{"item 429", items(map[string]string{"b": tooBusy}), 2},
		{"item 503", items(map[string]string{"b": away}), 2},
		{"full disk", items(map[string]string{"b": floodStage}), 4},
		{"request 401", whole(401, ""), 4},
		{"request 500", whole(500, ""), 4},
		{"broken connection", breaksAfter(""), 4},
		{"all is stored", items(nil), 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.script = []reply{test.answer}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if _, err := f.Ship(ctx, recordsOf("a", "b")); err != nil {
					t.Fatal(err)
				}
				if got := f.limit.allowed(); got != test.want {
					t.Errorf("the limit is %d, want %d", got, test.want)
				}
			})
		})
	}
}

func TestRetryAfterIsRespectedUpToTheLongestPause(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"7": 7 * time.Second, "3600": maxPause, "Sat, 01 Jan 2000 00:00:09 GMT": 9 * time.Second, "soon": 0, "-5": 0,
	} {
		for _, status := range []int{429, 503} {
			withCluster(t, nil, func(t *testing.T, f *fixture) {
				f.cluster.script = []reply{func(_ *cluster, w http.ResponseWriter, _ *http.Request, _ seen) {
					w.Header().Set("Retry-After", header)
					w.WriteHeader(status)
				}}
				f.ship(t, "a", Stored)
				all := f.cluster.requests("/_bulk")
				if pause := all[1].at - all[0].at; pause < want || pause > max(want, firstPause) {
					t.Errorf("Retry-After %q of a %d: a pause of %v, want %v", header, status, pause, want)
				}
			})
		}
	}
}
