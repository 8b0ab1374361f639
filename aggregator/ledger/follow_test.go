package ledger

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nines/pkg/sla"
)

// served serves a book.
func served(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/book"
}

// copyUntil follows a leader until the book holds so many batches, or Follow
// ends by itself.
func copyUntil(t *testing.T, b *Book, url string, seq uint64) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	now := func() time.Time { return time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC) }
	err := b.Follow(ctx, url, client, FollowOptions{Retry: time.Millisecond, Silence: 300 * time.Millisecond, Now: now, Copied: func(_, here Position) {
		if here.Seq >= seq {
			cancel()
		}
	}})
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("the book has %d batches of %d after a minute", b.Head().Seq, seq)
	}
	return err
}

func exportOf(t *testing.T, b *Book) string {
	t.Helper()
	var out bytes.Buffer
	if err := b.Export(context.Background(), &out, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// same compares two books by what they say.
func same(t *testing.T, got, want *Book) {
	t.Helper()
	if got.Head() != want.Head() {
		t.Errorf("head %v, want %v", got.Head(), want.Head())
	}
	if g, w := exportOf(t, got), exportOf(t, want); g != w {
		t.Errorf("the copy says\n%s\nwant\n%s", g, w)
	}
	for _, prefix := range []byte{'b', 'm', 'o', 'r', 's'} {
		if g, w := count(t, got, prefix), count(t, want, prefix); g != w {
			t.Errorf("%d keys %c, want %d", g, prefix, w)
		}
	}
	for o := 1; o <= 2; o++ {
		g, _ := got.LastMinute(id(o))
		if w, _ := want.LastMinute(id(o)); g != w {
			t.Errorf("newest minute of %d is %d, want %d", o, g, w)
		}
	}
	whole(t, got)
}

func TestR26FollowerCopiesTheBookSealedDaysAndNewBatches(t *testing.T) {
	leader, follower := open(t, t.TempDir()), open(t, t.TempDir())
	variedBook(t, leader)
	leader = reopen(t, leader, leader.dir) // nothing of it is in memory
	url := served(t, leader.Handler())
	if err := copyUntil(t, follower, url, leader.Head().Seq); err != nil {
		t.Fatal(err)
	}
	same(t, follower, leader)
	if n := count(t, follower, 'k'); n != 0 {
		t.Errorf("the follower got %d blocks: it seals by itself", n)
	}
	sealed(t, follower, 103*testDay)
	same(t, follower, leader)
	// It goes on with what is booked while it follows.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	end := leader.Head().Seq + 5
	err := follower.Follow(ctx, url, client, FollowOptions{Copied: func(_, here Position) {
		if here.Seq == end {
			cancel()
			return
		}
		book(t, leader, int64(here.Seq), first(1, 104*testDay+sla.Minute(here.Seq), figures(3)))
	}})
	if err != nil || follower.Head().Seq < end {
		t.Errorf("%v, head %v", err, follower.Head())
	}
	ahead := leader.Head().Seq
	if err := copyUntil(t, follower, url, ahead); err != nil {
		t.Fatal(err)
	}
	same(t, follower, leader)
}

func TestR26FollowerTakesOverTheDaysThatTheLeaderKeeps(t *testing.T) {
	leader, follower := open(t, t.TempDir()), open(t, t.TempDir())
	variedBook(t, leader)
	if err := leader.DropBefore(102 * testDay); err != nil {
		t.Fatal(err)
	}
	leader = reopen(t, leader, leader.dir)
	if err := copyUntil(t, follower, served(t, leader.Handler()), leader.Head().Seq); err != nil {
		t.Fatal(err)
	}
	same(t, follower, leader)
	if follower.kept != 102*testDay {
		t.Errorf("kept from %d", follower.kept)
	}
}

// through passes a leader's answers through a filter of bytes.
type through struct {
	http.Handler
	filter func(stream int, out io.Writer) io.Writer
	stream atomic.Int64 // a handler may still run when the follower has all
}

func (p *through) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !r.URL.Query().Has("after") {
		p.Handler.ServeHTTP(w, r)
		return
	}
	p.Handler.ServeHTTP(&filtered{w, p.filter(int(p.stream.Add(1)), w)}, r)
}

type filtered struct {
	http.ResponseWriter
	out io.Writer
}

func (f *filtered) Write(b []byte) (int, error)      { return f.out.Write(b) }
func (f *filtered) Unwrap() http.ResponseWriter      { return f.ResponseWriter }
func (f *filtered) SetWriteDeadline(time.Time) error { return nil }

type cutAfter struct {
	out  io.Writer
	left int
}

func (c *cutAfter) Write(b []byte) (int, error) {
	if c.left < len(b) {
		if n, err := c.out.Write(b[:c.left]); err != nil {
			return n, err
		}
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.out.Write(b)
}

func TestR26FollowerGoesOnAfterAConnectionBrokeAnywhere(t *testing.T) {
	leader, follower := open(t, t.TempDir()), open(t, t.TempDir())
	variedBook(t, leader)
	p := &through{Handler: leader.Handler(), filter: func(stream int, out io.Writer) io.Writer {
		return &cutAfter{out, 37 * stream} // longer each time, so that it gets on
	}}
	if err := copyUntil(t, follower, served(t, p), leader.Head().Seq); err != nil {
		t.Fatal(err)
	}
	if n := p.stream.Load(); n < 10 {
		t.Errorf("the connection broke %d times", n)
	}
	same(t, follower, leader)
}

type flipAt struct {
	out io.Writer
	at  int
}

func (f *flipAt) Write(b []byte) (int, error) {
	if f.at >= 0 && f.at < len(b) {
		b = bytes.Clone(b)
		b[f.at] ^= 1
	}
	f.at -= len(b)
	return f.out.Write(b)
}

// One byte that is another one, wherever: what is booked is always the leader's
// chain, and a changed entry is refused.
func TestR26LeaderThatLiesIsRefused(t *testing.T) {
	leader := open(t, t.TempDir())
	variedBook(t, leader)
	refused := 0
	for at := 0; at < 4000; at += 41 {
		follower := open(t, t.TempDir())
		var sent atomic.Int64
		p := &through{Handler: leader.Handler(), filter: func(stream int, out io.Writer) io.Writer {
			if stream > 1 {
				return out
			}
			return io.MultiWriter(&flipAt{out, at}, writerFunc(func(b []byte) { sent.Add(int64(len(b))) }))
		}}
		err := copyUntil(t, follower, served(t, p), leader.Head().Seq)
		var r *Refused
		if errors.As(err, &r) {
			refused++
			if !strings.Contains(err.Error(), "is refused: ") {
				t.Errorf("byte %d: %v", at, err)
			}
		} else if err != nil {
			t.Errorf("byte %d: %v", at, err)
		}
		if h := follower.Head(); h.Seq > 0 {
			if p, err := leader.Position(h.Seq); err != nil || p != h {
				t.Errorf("byte %d: batch %v is not the leader's %v, %v", at, h, p, err)
			}
		}
		whole(t, follower)
		closed(t, follower)
		if int64(at) > sent.Load() {
			break
		}
	}
	if refused < 30 {
		t.Errorf("%d of the changed books were refused", refused)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestR26DivergedTailIsSetAsideAndTheLeaderCopied(t *testing.T) {
	for _, tailSealed := range []bool{false, true} {
		leader, follower := open(t, t.TempDir()), open(t, t.TempDir())
		variedBook(t, leader)
		url := served(t, leader.Handler())
		if err := copyUntil(t, follower, url, leader.Head().Seq); err != nil {
			t.Fatal(err)
		}
		common := follower.Head().Seq
		sealed(t, follower, 103*testDay)
		// Both go on: the follower believes to hold the Lease yet.
		book(t, follower, 50, first(1, 104*testDay, figures(9)), first(2, 101*testDay+900, figures(9)), first(3, 101*testDay, figures(9)))
		_, err := follower.Append(Batch{Term: 1, At: 51, Entries: []Entry{revision(1, 101*testDay, figures(8))}, Objectives: []sla.Objective{{ID: id(3)}}, Sources: []Source{{Objective: id(3), Key: "x"}}, Marks: []Mark{{Kind: "k", Key: "z"}}})
		if err != nil {
			t.Fatal(err)
		}
		tail := follower.Head()
		if tailSealed {
			sealed(t, follower, 105*testDay)
		}
		if _, err := leader.Append(Batch{Term: 2, At: 60, Entries: []Entry{first(1, 104*testDay, figures(4)), first(2, 101*testDay+900, figures(5))}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		client := &http.Client{Transport: &http.Transport{}}
		err = follower.Follow(ctx, url, client, FollowOptions{
			Retry: time.Millisecond, Now: func() time.Time { return time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC) },
			Copied: func(leader, here Position) {
				if leader == here {
					cancel()
				}
			},
		})
		cancel()
		client.CloseIdleConnections()
		if err != nil {
			t.Fatal(err)
		}
		same(t, follower, leader)
		if m, ok := follower.LastMinute(id(3)); ok {
			t.Errorf("an objective of the tail has minute %d", m)
		}
		if len(exportOf(t, follower)) == 0 || strings.Contains(exportOf(t, follower), id(3).String()) {
			t.Error("the tail is still exported")
		}
		data, err := os.ReadFile(filepath.Join(follower.dir, fmt.Sprintf("aside-20261124T030000Z-%d-%d.ndjson", common+1, common+2)))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if len(lines) != 2+3+4 || !strings.Contains(lines[0], fmt.Sprintf(`"batch":%d,"term":1`, common+1)) || !strings.Contains(string(data), hex.EncodeToString(tail.Hash[:])) {
			t.Errorf("set aside are\n%s", data)
		}
		for _, l := range lines {
			if !json.Valid([]byte(l)) {
				t.Errorf("not JSON: %s", l)
			}
		}
		// It goes on after a restart, and seals again.
		follower = reopen(t, follower, follower.dir)
		same(t, follower, leader)
		sealed(t, follower, 105*testDay)
		same(t, follower, leader)
		for o := 1; o <= 2; o++ {
			g, err1 := follower.Sum(id(o), 0, 200*testDay, 0)
			w, err2 := leader.Sum(id(o), 0, 200*testDay, 0)
			if g != w || err1 != nil || err2 != nil {
				t.Errorf("sum of %d is %+v, want %+v, %v, %v", o, g, w, err1, err2)
			}
		}
	}
}

// A leader that knows less must not make this book smaller.
func TestR26TailIsKeptFromALeaderThatIsBehindOrHasAnotherBook(t *testing.T) {
	behind, other, older, here := open(t, t.TempDir()), open(t, t.TempDir()), open(t, t.TempDir()), open(t, t.TempDir())
	for _, b := range []*Book{behind, older, here} {
		book(t, b, 1, first(1, 1, figures(1)))
	}
	book(t, older, 2, first(1, 2, figures(2)))
	book(t, other, 7, first(1, 1, figures(7)))
	if _, err := other.Append(Batch{Term: 9, At: 8, Entries: []Entry{first(1, 2, figures(1))}}); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Append(Batch{Term: 2, At: 2, Entries: []Entry{first(1, 2, figures(1))}}); err != nil {
		t.Fatal(err)
	}
	before := dump(t, here)
	for name, c := range map[string]struct {
		leader *Book
		want   string
	}{
		"empty":      {open(t, t.TempDir()), "the leader's book ends with batch 0"},
		"behind":     {behind, "the leader's book ends with batch 1, before this one with batch 2"},
		"older term": {older, "the leader is at term 1 and this book at term 2"},
		"other book": {other, "no batch in common"},
	} {
		client := &http.Client{Transport: &http.Transport{}}
		u, err := http.NewRequest(http.MethodGet, served(t, c.leader.Handler()), nil)
		if err != nil {
			t.Fatal(err)
		}
		f := &copier{b: here, url: *u.URL, client: client, opts: FollowOptions{Silence: time.Minute, Now: time.Now}}
		err = f.once(context.Background())
		client.CloseIdleConnections()
		if err == nil || !strings.Contains(err.Error(), c.want) || dump(t, here) != before {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(here.dir, "aside*")); len(files) > 0 {
		t.Errorf("set aside: %v", files)
	}
}

func TestSilentLeaderIsLeft(t *testing.T) {
	follower := open(t, t.TempDir())
	stop := make(chan struct{})
	url := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-stop
	}))
	defer close(stop)
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	f := &copier{b: follower, url: *req.URL, client: client, opts: FollowOptions{Silence: time.Millisecond}}
	if err := f.once(context.Background()); err == nil || !strings.Contains(err.Error(), "said nothing for 1ms") {
		t.Errorf("got %v", err)
	}
}

func TestHandlerRefusesWhatItDoesNotServe(t *testing.T) {
	b := open(t, t.TempDir())
	book(t, b, 1, first(1, 1, figures(1)))
	url := served(t, b.Handler())
	get := func(method, query string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, url+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(text)
	}
	defer http.DefaultClient.CloseIdleConnections()
	for query, want := range map[string]int{"": 400, "?at=x": 400, "?after=x": 400, "?at=2": 404, "?after=1&hash=00": 409, "?after=2&hash=00": 409, "?at=1": 200, "?at=head": 200} {
		if got, text := get(http.MethodGet, query); got != want {
			t.Errorf("%s: %d %s, want %d", query, got, text, want)
		}
	}
	if got, _ := get(http.MethodPost, "?at=1"); got != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got)
	}
	h := b.Handler()
	closed(t, b)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?at=head", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("a closed book answers %d", w.Code)
	}
	if err := open(t, t.TempDir()).Follow(context.Background(), "host:port", http.DefaultClient, FollowOptions{}); err == nil || !strings.Contains(err.Error(), "not the URL of a ledger") {
		t.Errorf("got %v", err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{framePairs, 0, 0, 0, 4, 1, 'e', 1, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			kind, payload, err := readFrame(r)
			if err != nil {
				return
			}
			if kind == framePairs {
				batch := new(filled)
				if batch.read(payload) == nil {
					for _, p := range batch.pairs {
						_ = checkEntry(&batch.header, p, 0)
					}
				}
			}
		}
	})
}
