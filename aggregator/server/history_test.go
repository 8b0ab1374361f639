package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nines/aggregator/evaluate"
	"nines/pkg/sla"
)

func post(t *testing.T, s *Server, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.routes().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestHistoryIsBookedOverHTTPAsTheLedgerGivesIt(t *testing.T) {
	c := testConfig(t)
	c.SLOs = []string{t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.SLOs[0], "slo.yaml"), []byte(goodSLO), 0o600); err != nil {
		t.Fatal(err)
	}
	s := opened(t, c)
	id, err := sla.ParseID(fmt.Sprint(objectives(t, s)["checkout"]["objective_id"]))
	if err != nil {
		t.Fatal(err)
	}
	first := sla.MinuteOf(time.Now()) - 5000
	h := evaluate.History{Objective: id, Reason: "read back from a test"}
	for i := range 3 {
		f := sla.Figures{Counts: sla.Counts{GoodLow: 7e6, GoodHigh: 8e6, Total: 10e6, Expected: 60_000, Counted: 60_000, Timed: 30_000}, IntervalMillis: 30_000}
		if i == 2 {
			f.Gaps = []sla.Gap{{From: first, To: first + 2, GoodLow: 1e6, GoodHigh: 1e6, Total: 1e6}}
		}
		h.Minutes = append(h.Minutes, evaluate.HistoryMinute{Minute: first + sla.Minute(i), Figures: f})
	}
	body, err := json.Marshal(NewHistory(h))
	if err != nil {
		t.Fatal(err)
	}
	const path = "/api/nines/v1/ledger/backfill"
	if code, got := post(t, s, path, string(body)); code != 200 || strings.TrimSpace(got) != `{"booked":3,"already_booked":0,"left_out":0}` {
		t.Fatalf("%d %s", code, got)
	}
	_, lines := get(t, s, fmt.Sprintf("/api/nines/v1/ledger?objective_id=%s&from=%d", id, first.Millis()/1000))
	var read []ledgerLine
	for line := range strings.Lines(lines) {
		var l ledgerLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		read = append(read, l)
	}
	if len(read) != 3 || read[2].Total != 10e6 || len(read[2].Gaps) != 1 || read[0].Flags != uint32(sla.FlagReadBack) || read[1].Timed != 30_000 {
		t.Errorf("the ledger gives %+v", read)
	}
	if o := objectives(t, s)["checkout"]; fmt.Sprint(o["total_events"]) != "31" {
		t.Errorf("the objective has %v events, want the 31 of its history", o["total_events"])
	}

	bad := func(change func(*History)) string {
		wrong := NewHistory(h)
		change(&wrong)
		text, err := json.Marshal(wrong)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, c := range []struct {
		name, body string
		code       int
		want       string
	}{
		{"no JSON", "{", 400, "read the body"},
		{"an unknown key", `{"objektive":1}`, 400, "objektive"},
		{"a stranger", bad(func(h *History) {
			h.Objective = sla.ID{1}
			for i := range h.Minutes {
				h.Minutes[i].Objective = sla.ID{1}
			}
		}), 404, "not evaluated here"},
		{"no reason", bad(func(h *History) { h.Reason = "" }), 400, "reason"},
		{"half a minute", bad(func(h *History) { h.Minutes[1].Minute = h.Minutes[1].Minute.Add(time.Second) }), 400, "minutes[1]"},
		{"twice", bad(func(h *History) { h.Minutes[1].Minute = h.Minutes[0].Minute }), 400, "not behind the one before"},
		{"below 0", bad(func(h *History) { h.Minutes[2].Total = -1 }), 400, "total is -1, below 0"},
		{"good above good", bad(func(h *History) { h.Minutes[0].GoodLow = 9e6 }), 400, "above good_high"},
		{"timed above counted", bad(func(h *History) { h.Minutes[0].Timed = 60_001 }), 400, "one is above the next"},
		{"unknown flags", bad(func(h *History) { h.Minutes[0].Flags = 1 << 20 }), 400, "does not know"},
		{"a gap below 0", bad(func(h *History) { h.Minutes[2].Gaps[0].Total = -1 }), 400, "its gap has"},
		{"a gap ahead", bad(func(h *History) { h.Minutes[2].Gaps[0].To = h.Minutes[2].Gaps[0].To.Add(time.Minute) }), 400, "does not end with it"},
		{"too many", bad(func(h *History) {
			h.Minutes = make([]ledgerLine, maxHistoryMinutes+1)
		}), 413, "send fewer"},
	} {
		if code, got := post(t, s, path, c.body); code != c.code || !strings.Contains(got, c.want) {
			t.Errorf("%s: %d %.300s, want %d with %q", c.name, code, got, c.code, c.want)
		}
	}
	if n := len(objectives(t, s)); n == 0 {
		t.Error("a wrong body took the objectives away")
	}
}
