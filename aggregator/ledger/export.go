package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"nines/pkg/sla"
)

// ExportOptions say what Export writes. The zero value is all, as NDJSON.
type ExportOptions struct {
	Format     string   // "ndjson", the default, or "csv"
	Objectives []sla.ID // empty: all
	From, To   sla.Minute
	AsOf       uint64 // a batch; 0: now
}

// exported is a line of an export. Events are decimal text with at most six
// places, time is in source-seconds with at most three: neither fits a float.
type exported struct {
	Objective string        `json:"objective_id"`
	Minute    string        `json:"minute"`
	Kind      string        `json:"kind"` // "first", or "revision" with signed differences
	GoodLow   string        `json:"good_low"`
	GoodHigh  string        `json:"good_high"`
	Total     string        `json:"total"`
	Expected  string        `json:"expected_seconds"`
	Counted   string        `json:"counted_seconds"`
	Timed     string        `json:"timed_seconds"`
	Interval  string        `json:"interval_seconds"`
	Flags     string        `json:"flags"` // names with "|" between
	Gaps      []exportedGap `json:"gaps,omitempty"`
	Batch     uint64        `json:"batch"`
	Booked    string        `json:"booked_at"`
	Reason    string        `json:"reason,omitempty"`
	Author    string        `json:"author,omitempty"`
}

type exportedGap struct {
	From     string `json:"from"`
	To       string `json:"to"`
	GoodLow  string `json:"good_low"`
	GoodHigh string `json:"good_high"`
	Total    string `json:"total"`
}

var exportColumns = []string{
	"objective_id", "minute", "kind", "good_low", "good_high", "total",
	"expected_seconds", "counted_seconds", "timed_seconds", "interval_seconds",
	"flags", "gaps", "batch", "booked_at", "reason", "author",
}

// Export writes each booked minute and each revision as a line: by objective,
// minute and batch, the same bytes for the same book. In CSV the gaps of a
// minute are one column of JSON.
func (b *Book) Export(ctx context.Context, w io.Writer, opts ExportOptions) error {
	if opts.From == 0 && opts.To == 0 {
		opts.From, opts.To = -1<<62, 1<<62
	}
	buffered := bufio.NewWriterSize(w, 64<<10)
	var line func(exported) error
	flush := buffered.Flush
	switch opts.Format {
	case "", "ndjson":
		enc := json.NewEncoder(buffered)
		enc.SetEscapeHTML(false)
		line = func(l exported) error { return enc.Encode(l) }
	case "csv":
		c := csv.NewWriter(buffered)
		if err := c.Write(exportColumns); err != nil {
			return err
		}
		line = func(l exported) error { return writeCSV(c, l) }
		flush = func() error {
			c.Flush()
			return errors.Join(c.Error(), buffered.Flush())
		}
	default:
		return fmt.Errorf("export the ledger: format %q is not known: choose ndjson or csv", opts.Format)
	}
	ids := slices.Clone(opts.Objectives)
	if len(ids) == 0 {
		b.mu.RLock()
		for id := range b.last {
			ids = append(ids, id)
		}
		b.mu.RUnlock()
	}
	slices.SortFunc(ids, func(a, b sla.ID) int { return bytes.Compare(a[:], b[:]) })
	at := bookedAt{b: b}
	for _, id := range slices.Compact(ids) {
		v := b.view(id, opts.AsOf)
		err := v.export(ctx, opts.From, opts.To, at.text, line)
		if err = v.end(err); err != nil {
			return fmt.Errorf("export objective %s: %w", id, err)
		}
	}
	return flush()
}

func (v *view) export(ctx context.Context, from, to sla.Minute, at func(uint64) (string, error), line func(exported) error) error {
	if from, to = v.clamp(from, to); from >= to {
		return nil
	}
	all, err := v.daysIn(from.Day(), (to-1).Day()+1)
	if err != nil {
		return err
	}
	for _, d := range v.revised.in(from.Day(), (to-1).Day()+1) {
		all = all.with(int64(d))
	}
	put := func(kind string, m sla.Minute, e *booking) error {
		booked, err := at(e.seq)
		if err != nil {
			return err
		}
		return line(exportLine(v.id, kind, m, e, booked))
	}
	type late struct {
		minute sla.Minute
		booking
	}
	for _, d := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		day := int64(d)
		lo, hi := max(from, sla.Minute(day*1440)), min(to, sla.Minute((day+1)*1440))
		var revisions []late
		err := v.revisions(day, lo, hi, func(m sla.Minute, r *booking) error {
			revisions = append(revisions, late{m, *r})
			return nil
		})
		if err != nil {
			return err
		}
		before := func(m sla.Minute) error {
			for ; len(revisions) > 0 && revisions[0].minute < m; revisions = revisions[1:] {
				if err := put("revision", revisions[0].minute, &revisions[0].booking); err != nil {
					return err
				}
			}
			return nil
		}
		err = v.firsts(day, lo, hi, func(m sla.Minute, e *booking) error {
			if err := before(m); err != nil {
				return err
			}
			return put("first", m, e)
		})
		if err = errors.Join(err, before(hi)); err != nil {
			return err
		}
	}
	return nil
}

// bookedAt finds the times of batches. Most minutes beside each other are of
// batches beside each other, so that a few of them are kept.
type bookedAt struct {
	b     *Book
	times map[uint64]string
}

func (a *bookedAt) text(seq uint64) (string, error) {
	if t, ok := a.times[seq]; ok {
		return t, nil
	}
	p, err := a.b.Position(seq)
	if err != nil {
		return "", err
	}
	if len(a.times) >= 10_000 || a.times == nil {
		a.times = map[uint64]string{}
	}
	t := time.UnixMilli(p.At).UTC().Format("2006-01-02T15:04:05.000Z")
	a.times[seq] = t
	return t, nil
}

func exportLine(id sla.ID, kind string, m sla.Minute, e *booking, booked string) exported {
	f := &e.figures
	l := exported{
		Objective: id.String(), Minute: minuteText(m), Kind: kind,
		GoodLow: decimal(f.GoodLow, 6), GoodHigh: decimal(f.GoodHigh, 6), Total: decimal(f.Total, 6),
		Expected: decimal(f.Expected, 3), Counted: decimal(f.Counted, 3), Timed: decimal(f.Timed, 3),
		Interval: decimal(f.IntervalMillis, 3), Flags: flagNames(f.Flags),
		Batch: e.seq, Booked: booked, Reason: e.reason, Author: e.author,
	}
	for _, g := range f.Gaps {
		l.Gaps = append(l.Gaps, exportedGap{minuteText(g.From), minuteText(g.To), decimal(g.GoodLow, 6), decimal(g.GoodHigh, 6), decimal(g.Total, 6)})
	}
	return l
}

func minuteText(m sla.Minute) string { return m.Time().Format("2006-01-02T15:04:05Z") }

// decimal writes v / 10^places without zeros at the end.
func decimal(v int64, places int) string {
	sign, u := "", uint64(v)
	if v < 0 {
		sign, u = "-", -u
	}
	s := strconv.FormatUint(u, 10)
	if len(s) <= places {
		s = strings.Repeat("0", places-len(s)+1) + s
	}
	whole, rest := s[:len(s)-places], strings.TrimRight(s[len(s)-places:], "0")
	if rest != "" {
		rest = "." + rest
	}
	return sign + whole + rest
}

// flagNames lists flags by name; one that this program does not know by its bit.
func flagNames(f sla.Flags) string {
	names := []string{"sampled", "read_back", "not_receiving", "absent", "lower_bound"}
	var out []string
	for bit := range 32 {
		switch {
		case f&(1<<bit) == 0:
		case bit < len(names):
			out = append(out, names[bit])
		default:
			out = append(out, "bit_"+strconv.Itoa(bit))
		}
	}
	return strings.Join(out, "|")
}

func writeCSV(c *csv.Writer, l exported) error {
	gaps := ""
	if len(l.Gaps) > 0 {
		v, err := json.Marshal(l.Gaps)
		if err != nil {
			return err
		}
		gaps = string(v)
	}
	return c.Write([]string{
		l.Objective, l.Minute, l.Kind, l.GoodLow, l.GoodHigh, l.Total,
		l.Expected, l.Counted, l.Timed, l.Interval, l.Flags, gaps,
		strconv.FormatUint(l.Batch, 10), l.Booked, l.Reason, l.Author,
	})
}
