package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"nines/aggregator/evaluate"
	"nines/pkg/sla"
)

// ledgerLine is one booked minute, revisions included. Events are in
// micro-events, source time in milliseconds.
type ledgerLine struct {
	Objective sla.ID    `json:"objective_id"`
	Minute    time.Time `json:"minute"`
	GoodLow   int64     `json:"good_low"`
	GoodHigh  int64     `json:"good_high"`
	Total     int64     `json:"total"`
	Expected  int64     `json:"expected"`
	Counted   int64     `json:"counted"`
	Timed     int64     `json:"timed"`
	Interval  int64     `json:"interval"`
	Flags     uint32    `json:"flags"`
	Gaps      []gapLine `json:"gaps,omitempty"`
}

type gapLine struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	GoodLow  int64     `json:"good_low"`
	GoodHigh int64     `json:"good_high"`
	Total    int64     `json:"total"`
}

func newLedgerLine(id sla.ID, m sla.Minute, f sla.Figures) ledgerLine {
	l := ledgerLine{
		Objective: id, Minute: m.Time(), GoodLow: f.GoodLow, GoodHigh: f.GoodHigh, Total: f.Total,
		Expected: f.Expected, Counted: f.Counted, Timed: f.Timed, Interval: f.IntervalMillis, Flags: uint32(f.Flags),
	}
	for _, g := range f.Gaps {
		l.Gaps = append(l.Gaps, gapLine{g.From.Time(), g.To.Time(), g.GoodLow, g.GoodHigh, g.Total})
	}
	return l
}

// figures returns what a line says, with an error that names what is impossible.
func (l *ledgerLine) figures() (m sla.Minute, f sla.Figures, err error) {
	m = sla.MinuteOf(l.Minute)
	f = sla.Figures{
		Counts:         sla.Counts{GoodLow: l.GoodLow, GoodHigh: l.GoodHigh, Total: l.Total, Expected: l.Expected, Counted: l.Counted, Timed: l.Timed},
		IntervalMillis: l.Interval, Flags: sla.Flags(l.Flags),
	}
	if m.Time() != l.Minute.UTC() {
		return m, f, errors.New("it is not the beginning of a minute of UTC")
	}
	for _, v := range []struct {
		name string
		v    int64
	}{
		{"good_low", l.GoodLow}, {"good_high", l.GoodHigh}, {"total", l.Total},
		{"expected", l.Expected}, {"counted", l.Counted}, {"timed", l.Timed}, {"interval", l.Interval},
	} {
		if v.v < 0 {
			return m, f, fmt.Errorf("%s is %d, below 0", v.name, v.v)
		}
	}
	if l.GoodLow > l.GoodHigh {
		return m, f, fmt.Errorf("good_low %d is above good_high %d", l.GoodLow, l.GoodHigh)
	}
	if l.Timed > l.Counted || l.Counted > l.Expected {
		return m, f, fmt.Errorf("timed %d, counted %d, expected %d: one is above the next", l.Timed, l.Counted, l.Expected)
	}
	if m < 0 {
		return m, f, errors.New("it lies before 1970")
	}
	if unknown := f.Flags &^ sla.AllFlags; unknown != 0 {
		return m, f, fmt.Errorf("flags %d has bits that this version does not know", l.Flags)
	}
	for _, g := range l.Gaps {
		gap := sla.Gap{From: sla.MinuteOf(g.From), To: sla.MinuteOf(g.To), GoodLow: g.GoodLow, GoodHigh: g.GoodHigh, Total: g.Total}
		if gap.From > gap.To || gap.To > m || m-gap.From > math.MaxInt32 {
			return m, f, fmt.Errorf("its gap from %s to %s does not end with it", g.From.Format(time.RFC3339), g.To.Format(time.RFC3339))
		}
		if gap.GoodLow < 0 || gap.GoodLow > gap.GoodHigh || gap.Total < 0 {
			return m, f, fmt.Errorf("its gap has %d to %d good of %d events", gap.GoodLow, gap.GoodHigh, gap.Total)
		}
		f.Gaps = append(f.Gaps, gap)
	}
	return m, f, nil
}

// History is the body of POST /api/nines/v1/ledger/backfill: minutes of one
// objective, ascending, as GET /api/nines/v1/ledger gives them.
type History struct {
	Objective sla.ID            `json:"objective_id"`
	Group     map[string]string `json:"group,omitempty"`
	Other     bool              `json:"other,omitempty"`
	Reason    string            `json:"reason"`
	Minutes   []ledgerLine      `json:"minutes"`
}

// NewHistory is a history as it is sent.
func NewHistory(h evaluate.History) History {
	out := History{Objective: h.Objective, Group: h.Group, Other: h.Other, Reason: h.Reason, Minutes: make([]ledgerLine, 0, len(h.Minutes))}
	for _, m := range h.Minutes {
		out.Minutes = append(out.Minutes, newLedgerLine(h.Objective, m.Minute, m.Figures))
	}
	return out
}

const (
	// maxHistory bounds the body of a backfill, and maxHistoryMinutes what it
	// books in one batch: two weeks.
	maxHistory        = 16 << 20
	maxHistoryMinutes = 14 * 1440
	maxReason         = 500
)

// apiBackfill books history that the backfill command has counted.
func (s *Server) apiBackfill(w http.ResponseWriter, r *http.Request) {
	var in History
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHistory))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			problem(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d MiB: send fewer minutes at a time", maxHistory>>20))
			return
		}
		problem(w, http.StatusBadRequest, fmt.Errorf("read the body: %w", err))
		return
	}
	h := evaluate.History{Objective: in.Objective, Group: in.Group, Other: in.Other, Reason: in.Reason}
	switch {
	case len(in.Minutes) > maxHistoryMinutes:
		problem(w, http.StatusRequestEntityTooLarge, fmt.Errorf("%d minutes are more than the %d of one batch: send fewer at a time", len(in.Minutes), maxHistoryMinutes))
		return
	case in.Reason == "" || len(in.Reason) > maxReason:
		problem(w, http.StatusBadRequest, fmt.Errorf("reason: say in 1 to %d bytes where the minutes come from", maxReason))
		return
	}
	for i := range in.Minutes {
		l := &in.Minutes[i]
		m, f, err := l.figures()
		if err == nil && l.Objective != in.Objective {
			err = fmt.Errorf("it is of objective %s", l.Objective)
		}
		if err == nil && i > 0 && m <= h.Minutes[i-1].Minute {
			err = errors.New("it is not behind the one before")
		}
		if err != nil {
			problem(w, http.StatusBadRequest, fmt.Errorf("minutes[%d], %s: %w", i, l.Minute.Format(time.RFC3339), err))
			return
		}
		h.Minutes = append(h.Minutes, evaluate.HistoryMinute{Minute: m, Figures: f})
	}
	filled, err := s.evaluator.Backfill(time.Now(), h)
	switch {
	case errors.Is(err, evaluate.ErrNotEvaluated):
		problem(w, http.StatusNotFound, err)
	case err != nil:
		problem(w, http.StatusInternalServerError, err)
	default:
		s.boardMu.Lock()
		s.board = nil // who looks now sees the history
		s.boardMu.Unlock()
		answer(w, filled)
	}
}
