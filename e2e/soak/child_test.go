package soak

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"nines/aggregator/evaluate"
	"nines/aggregator/ledger"
	"nines/aggregator/store"
	"nines/pkg/sla"
)

const (
	// folderEnv makes the test binary the child on the folder that it names.
	folderEnv = "NINES_SOAK_FOLDER"
	// minFreeEnv is the child's store.Config.MinFree in bytes.
	minFreeEnv = "NINES_SOAK_MIN_FREE"
	// syncsEnv lets the test see the child's syncs.
	syncsEnv = "NINES_SOAK_SYNCS"

	// exitFailed is how the child ends when its store takes no more samples, as
	// the aggregator does: somebody starts it again.
	exitFailed = 3
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(folderEnv); dir != "" {
		if os.Getenv(syncsEnv) != "" {
			if err := handOverSyncs(); err != nil {
				fmt.Fprintln(os.Stderr, "hand over syncs:", err)
				os.Exit(1)
			}
		}
		os.Exit(child(dir, os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// frame is one message to the child.
type frame struct {
	Kind  byte // 'w': a remote-write request, 't': a tick
	Agent uint8
	_     [2]byte
	Size  uint32 // of the body that follows
	Seq   uint64
	Now   int64 // milliseconds since the epoch
}

// parts are what the child runs.
type parts struct {
	db   *store.DB
	book *ledger.Book
	ev   *evaluate.Evaluator
}

// storeConfig is the configuration of the store in a folder.
func storeConfig(dir string) store.Config {
	cfg := store.DefaultConfig()
	cfg.Dir = filepath.Join(dir, "metrics")
	cfg.Retention = 365 * 24 * time.Hour
	cfg.OutOfOrder = 24 * time.Hour
	return cfg
}

func ledgerConfig(dir string) ledger.Config {
	return ledger.Config{Dir: filepath.Join(dir, "ledger")}
}

// child serves frames until it is killed or its input ends. Its answers are
// lines; each is written after what it tells has happened.
func child(dir string, in io.Reader, out io.Writer) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var mu sync.Mutex // of out
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if _, err := fmt.Fprintf(out, format+"\n", args...); err != nil {
			os.Exit(2) // nobody listens
		}
	}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}

	input := bufio.NewReaderSize(in, 1<<20)
	first, _, err := receive(input)
	if err != nil {
		return fail(err)
	}
	var clock atomic.Int64
	clock.Store(first.Now)
	now := func() time.Time { return time.UnixMilli(clock.Load()).UTC() }
	advance := func(to int64) {
		for at := clock.Load(); to > at && !clock.CompareAndSwap(at, to); at = clock.Load() {
		}
	}

	cfg := storeConfig(dir)
	cfg.Now = now
	if s := os.Getenv(minFreeEnv); s != "" {
		if cfg.MinFree, err = strconv.ParseInt(s, 10, 64); err != nil {
			return fail(err)
		}
	}
	reg := prometheus.NewRegistry()
	var p parts
	if p.db, err = store.Open(cfg, log, reg); err != nil {
		return fail(err)
	}
	if p.book, err = ledger.Open(ledgerConfig(dir), log); err != nil {
		return fail(err)
	}
	if err := tell(p, say); err != nil {
		return fail(err)
	}
	p.ev = evaluate.New(evaluate.Config{
		Raw: p.db, Book: p.book, Query: p.db.Query, Retention: cfg.Retention, Term: p.book.Head().Term + 1, Started: now(),
		Log: log, Registry: reg,
	})
	p.db.SetHook(p.ev.Observe)
	if err := p.ev.SetObjectives(context.Background(), objectives(), now()); err != nil {
		return fail(err)
	}
	say("open")

	var wg sync.WaitGroup
	write := p.db.Receiver()
	senders := make([]chan func(), agents)
	for i := range senders {
		senders[i] = make(chan func(), 1)
		wg.Go(func() {
			for f := range senders[i] {
				f()
			}
		})
	}
	ticks := make(chan frame, 1)
	wg.Go(func() {
		for f := range ticks {
			say("tick %d", f.Seq)
			err := p.ev.Tick(context.Background(), time.UnixMilli(f.Now).UTC())
			if err == nil && f.Seq%sealEvery == 0 {
				_, err = p.book.Seal(context.Background(), time.UnixMilli(f.Now).UTC())
			}
			head := p.book.Head()
			say("done %d %d %x %q", f.Seq, head.Seq, head.Hash, text(err))
		}
	})
	wg.Go(func() {
		<-p.db.Failed()
		// What was answered so far was answered; the rest is sent again.
		os.Exit(fail(p.db.Err()))
	})
	for {
		f, body, err := receive(input)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fail(err)
		}
		advance(f.Now)
		switch f.Kind {
		case 'w':
			senders[f.Agent] <- func() {
				r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(body))
				r.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
				r.Header.Set("Content-Encoding", "snappy")
				w := httptest.NewRecorder()
				write.ServeHTTP(w, r)
				say("ack %d %d %d %q", f.Agent, f.Seq, w.Code, w.Body.String())
			}
		case 't':
			ticks <- f
		}
	}
	// A clean stop.
	for _, s := range senders {
		close(s)
	}
	close(ticks)
	if err := errors.Join(p.db.Close(), p.book.Close()); err != nil {
		return fail(err)
	}
	say("closed")
	return 0
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func receive(r io.Reader) (frame, []byte, error) {
	var f frame
	if err := binary.Read(r, binary.LittleEndian, &f); err != nil {
		return f, nil, err
	}
	body := make([]byte, f.Size)
	_, err := io.ReadFull(r, body)
	return f, body, err
}

// tell says what the folder holds before anything new comes.
func tell(p parts, say func(string, ...any)) error {
	head := p.book.Head()
	say("head %d %x", head.Seq, head.Hash)
	v, err := p.book.Verify(context.Background(), nil)
	if err != nil {
		return err
	}
	if v.Broken != "" {
		say("chain %q", v.Broken)
	}
	for _, o := range objectives() {
		total, minutes := int64(0), 0
		err := p.book.Scan(o.ID, math.MinInt32, math.MaxInt32, 0, func(_ sla.Minute, f sla.Figures) error {
			minutes++
			total += f.Total
			for _, g := range f.Gaps {
				total += g.Total
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the book of %s: %w", o.SLO, err)
		}
		say("booked %s %d %d", o.SLO, minutes, total)
	}
	return rawSeries(p.db, func(name, instance, code string, points []rawPoint) {
		newest := int64(0)
		if n := len(points); n > 0 {
			newest = points[n-1].t
		}
		say("raw %s %s %s %d %d", name, instance, code, len(points), newest)
	})
}

type rawPoint struct {
	t int64
	v float64
}

// rawSeries gives all raw samples, series by series.
func rawSeries(db *store.DB, fn func(name, instance, code string, points []rawPoint)) error {
	q, err := db.Querier(0, math.MaxInt64)
	if err != nil {
		return fmt.Errorf("open the store for reading: %w", err)
	}
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "job", job))
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		var points []rawPoint
		it = s.Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			t, v := it.At()
			points = append(points, rawPoint{t, v})
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read %s: %w", s.Labels(), err)
		}
		ls := s.Labels()
		fn(ls.Get("__name__"), ls.Get("instance"), ls.Get("code"), points)
	}
	return set.Err()
}
