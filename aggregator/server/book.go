package server

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"nines/aggregator/ledger"
	"nines/pkg/sla"
)

// LedgerVerification is the answer of /api/nines/v1/ledger/verify.
type LedgerVerification struct {
	Batches uint64 `json:"batches"`          // that follow each other without a hole
	Proven  uint64 `json:"proven"`           // of them: each byte gives the hash
	Links   uint64 `json:"links_only"`       // of them: retention removed days, the links were checked
	Entries uint64 `json:"entries"`          // of the proven batches
	Blocks  uint64 `json:"sealed_days"`      // of objectives, whose sums follow from their minutes
	Head    string `json:"head"`             // the newest batch
	Broken  string `json:"broken,omitempty"` // the first broken place, in words
}

// NewLedgerVerification is a verification as people and programs read it.
func NewLedgerVerification(v ledger.Verification) LedgerVerification {
	return LedgerVerification{Batches: v.Batches, Proven: v.Proven, Links: v.Links, Entries: v.Entries, Blocks: v.Blocks, Head: v.Head.String(), Broken: v.Broken}
}

// LedgerStats is the answer of /api/nines/v1/ledger/stat.
type LedgerStats struct {
	Objectives int    `json:"objectives"`
	Minutes    int64  `json:"minutes"`
	Open       int64  `json:"minutes_not_sealed"`
	Revisions  int64  `json:"revisions"`
	SealedDays int64  `json:"sealed_days"` // of objectives
	Gaps       int64  `json:"gaps"`
	Bytes      int64  `json:"bytes"`
	First      string `json:"first,omitempty"` // oldest minute, RFC 3339
	Last       string `json:"last,omitempty"`
	Head       string `json:"head"`
}

// NewLedgerStats is what is in a book as people and programs read it.
func NewLedgerStats(s ledger.Stats) LedgerStats {
	out := LedgerStats{
		Objectives: s.Objectives, Minutes: s.Minutes, Open: s.Open, Revisions: s.Revisions,
		SealedDays: s.Blocks, Gaps: s.Gaps, Bytes: s.Bytes, Head: s.Head.String(),
	}
	if s.Minutes > 0 {
		out.First, out.Last = s.First.Time().Format(time.RFC3339), s.Last.Time().Format(time.RFC3339)
	}
	return out
}

// LedgerExport reads the parameters of /api/nines/v1/ledger/export: format,
// objective_id (any number), from, to, as_of.
func LedgerExport(q url.Values) (ledger.ExportOptions, error) {
	o := ledger.ExportOptions{Format: q.Get("format")}
	var errs []error
	for _, text := range q["objective_id"] {
		id, err := sla.ParseID(text)
		if err != nil {
			errs = append(errs, err)
		}
		o.Objectives = append(o.Objectives, id)
	}
	from, err := instant(q.Get("from"), time.Unix(0, 0))
	errs = append(errs, err)
	to, err := instant(q.Get("to"), time.Unix(1<<36, 0))
	errs = append(errs, err)
	o.From, o.To = sla.MinuteOf(from), sla.MinuteOf(to)
	o.AsOf, err = batchNumber(q.Get("as_of"))
	errs = append(errs, err)
	return o, errors.Join(errs...)
}

func (s *Server) apiLedgerVerify(w http.ResponseWriter, r *http.Request) {
	v, err := s.book.Verify(r.Context(), nil)
	if err != nil {
		problem(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, NewLedgerVerification(v))
}

func (s *Server) apiLedgerStat(w http.ResponseWriter, _ *http.Request) {
	st, err := s.book.Stat()
	if err != nil {
		problem(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, NewLedgerStats(st))
}

func (s *Server) apiLedgerExport(w http.ResponseWriter, r *http.Request) {
	opts, err := LedgerExport(r.URL.Query())
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	kind := "application/x-ndjson; charset=utf-8"
	if opts.Format == "csv" {
		kind = "text/csv; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	if err := s.book.Export(r.Context(), w, opts); err != nil {
		// The answer has begun: breaking it off tells that it is not whole.
		s.log.Warn("an export of the ledger broke off", "err", err)
		panic(http.ErrAbortHandler)
	}
}
