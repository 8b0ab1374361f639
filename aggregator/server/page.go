package server

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math/big"
	"net/http"
	"sort"
	"strings"
	"time"

	"nines/aggregator/evaluate"
	"nines/dashboards"
	"nines/pkg/metric"
	"nines/pkg/openslo"
	"nines/pkg/sla"
)

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// board is how things stand: what the page and the API show.
type board struct {
	at     time.Time
	states []evaluate.State
	agents []evaluate.SourceState
	firing map[string]map[string]string // objective_id → burn tier → severity
	told   told
}

// told is what the page says about the SLO files.
type told struct{ problems, remarks []string }

// heard lists the agents by their heartbeats, each once.
func heard(states []evaluate.State) []evaluate.SourceState {
	byKey := map[string]evaluate.SourceState{}
	for _, st := range states {
		if !strings.Contains(st.Objective.SLI.Total, metric.AgentHeartbeats) {
			continue
		}
		for _, src := range st.Sources {
			k := src.Cluster + "\x00" + src.Instance
			if old, ok := byKey[k]; !ok || src.Newest.After(old.Newest) {
				byKey[k] = src
			}
		}
	}
	out := make([]evaluate.SourceState, 0, len(byKey))
	for _, src := range byKey {
		out = append(out, src)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Cluster+"\x00"+out[i].Instance < out[j].Cluster+"\x00"+out[j].Instance
	})
	return out
}

// card is one objective as the page draws it.
type card struct {
	Title, Description, Service, SLO, ID string
	Target, Ratio, Bounds, Coverage      string
	Budget, Words, Period, Events, Unit  string
	Runbook                              string
	Status, StatusWord                   string // class and word of the traffic light
	Bar                                  template.HTML
	Strip                                template.HTML
	Burns                                []burn
}

type burn struct{ Tier, Long, Short, Limit, Class string }

type agentRow struct{ Cluster, Node, Heard, Class string }

type link struct{ Name, URL, Note string }

// pageData is the page of all objectives, or that of one, with Words.
type pageData struct {
	Cluster, At, Lead string
	LeadClass         string
	Cards             []card
	Promise           string
	Words             []openslo.Passage
	Agents            []agentRow
	Problems, Remarks []string
	Notes             []string
	Months            []monthLinks
	Dashboards        []link
	Version           string
	Batch             string
}

type monthLinks struct {
	Name  string
	Links []link
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	b := s.view()
	now := time.Now()
	d := s.pageData(b)
	d.Problems, d.Remarks, d.Notes = b.told.problems, b.told.remarks, s.notes
	worst := 0
	for _, st := range b.states {
		c, rank := s.card(st, b.firing[st.Objective.ID.String()], now)
		d.Cards = append(d.Cards, c)
		worst = max(worst, rank)
	}
	switch {
	case len(b.states) == 0:
		d.Lead, d.LeadClass = "No objectives yet: the first tick has not run.", "none"
	case worst == 0:
		d.Lead, d.LeadClass = "Every promise that can be judged by now is kept.", "good"
	case worst == 1:
		d.Lead, d.LeadClass = "No alert fires, but at least one objective needs a look.", "warn"
	default:
		d.Lead, d.LeadClass = "At least one objective burns its budget or has missed its target.", "bad"
	}
	for _, a := range b.agents {
		row := agentRow{Cluster: a.Cluster, Node: a.Instance, Heard: "not since this aggregator started", Class: "bad"}
		if !a.Newest.IsZero() {
			row.Heard = sla.Duration(now.Sub(a.Newest)) + " ago"
			if now.Sub(a.Newest) < 2*time.Minute {
				row.Class = "good"
			}
		}
		d.Agents = append(d.Agents, row)
	}
	for i := range 2 {
		m := time.Date(now.UTC().Year(), now.UTC().Month()-time.Month(i), 1, 0, 0, 0, 0, time.UTC)
		name := m.Format("2006-01")
		ml := monthLinks{Name: m.Format("January 2006")}
		if i == 0 {
			ml.Name += ", so far"
		}
		for _, f := range []string{"html", "pdf", "csv", "json"} {
			ml.Links = append(ml.Links, link{Name: strings.ToUpper(f), URL: "/reports/" + name + "." + f})
		}
		d.Months = append(d.Months, ml)
	}
	for _, role := range dashboards.Roles() {
		d.Dashboards = append(d.Dashboards, link{Name: role.Title(), URL: "/dashboards/" + role.Name() + ".json", Note: role.Question()})
	}
	s.draw(w, d)
}

// objectivePage is the page of one objective: its card, and what explain says.
// Nothing refreshes it, so that it can be read in peace.
func (s *Server) objectivePage(w http.ResponseWriter, r *http.Request) {
	b := s.view()
	now := time.Now()
	for _, st := range b.states {
		id := st.Objective.ID.String()
		if id != r.PathValue("id") {
			continue
		}
		words, err := openslo.Explain(st.Objective, openslo.Asked{Now: now, PerDay: perDay(st), Parts: *s.parts.Load()})
		if err != nil {
			s.log.Error("an objective could not be explained", "objective_id", id, "err", err)
			http.Error(w, "the objective could not be explained; the log says why", http.StatusInternalServerError)
			return
		}
		c, _ := s.card(st, b.firing[id], now)
		d := s.pageData(b)
		d.Cards, d.Promise, d.Words = []card{c}, words.Promise(), words.Words
		s.draw(w, d)
		return
	}
	http.Error(w, "there is no such objective now; the page / lists them", http.StatusNotFound)
}

// pageData is what stands on every page.
func (s *Server) pageData(b *board) pageData {
	head := s.book.Head()
	return pageData{
		Cluster: s.cfg.Cluster, At: b.at.UTC().Format("2006-01-02 15:04:05 UTC"), Version: s.build.String(),
		Batch: fmt.Sprintf("batch %d, chain %x…", head.Seq, head.Hash[:6]),
	}
}

func (s *Server) draw(w http.ResponseWriter, d pageData) {
	var buf bytes.Buffer
	if err := pageTemplate.Execute(&buf, d); err != nil {
		s.log.Error("the page could not be drawn", "err", err)
		http.Error(w, "the page could not be drawn; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
	_, _ = w.Write(buf.Bytes()) // a reader that went away needs no answer
}

func burnWords(st evaluate.State) string {
	b := st.Period.Budget(st.Objective.Target)
	if st.Objective.Target.IsAll() {
		return "a target of 100 % leaves no budget"
	}
	return sla.BurnWords(st.Windows[time.Hour].Burn(st.Objective.Target), b.Remaining, st.PeriodLength)
}

// card draws one objective. Its rank is 0 for good or nothing to judge, 1 for
// needs a look, 2 for bad.
func (s *Server) card(st evaluate.State, firing map[string]string, now time.Time) (card, int) {
	o, p := st.Objective, st.Period
	budget := p.Budget(o.Target)
	c := card{
		Title: o.Title, Description: o.Description, Service: o.Service, SLO: o.SLO, ID: o.ID.String(),
		Target: o.Target.Percent() + " %", Ratio: sla.Percent(p.Good(), 4),
		Coverage: sla.Percent(p.Coverage(), 2), Budget: sla.Percent(budget.Remaining, 1),
		Words: burnWords(st), Period: o.Window.String(),
		Events: sla.Events(p.GoodHigh) + " good of " + sla.Events(p.Total), Unit: o.SLI.Unit(),
	}
	if c.Title == "" {
		c.Title = o.SLO
	}
	if o.Runbook != "" {
		c.Runbook = o.Runbook
		if !strings.Contains(c.Runbook, "://") {
			c.Runbook = "/runbooks/" + strings.TrimSuffix(c.Runbook, ".md")
		}
	}
	if lower, upper := p.Bounds(); lower != nil {
		c.Bounds = fmt.Sprintf("between %s and %s, if unseen time had average traffic", sla.Percent(lower, 3), sla.Percent(upper, 3))
	}
	rank := 0
	switch verdict := p.Verdict(o.Target); {
	case hasSeverity(firing, "page"):
		c.Status, c.StatusWord, rank = "bad", "paging", 2
	case verdict == sla.Missed:
		c.Status, c.StatusWord, rank = "bad", "below target", 2
	case hasSeverity(firing, "ticket"):
		c.Status, c.StatusWord, rank = "warn", "ticket", 1
	case len(firing) > 0: // of a severity that an alert policy names
		c.Status, c.StatusWord, rank = "warn", "alert", 1
	case verdict == sla.NoEvents && p.Counted.Sign() > 0:
		c.Status, c.StatusWord = "none", "no traffic"
	case verdict == sla.NoEvents:
		c.Status, c.StatusWord, rank = "none", "no data yet", 1
	case verdict == sla.Inconclusive:
		c.Status, c.StatusWord, rank = "warn", "inconclusive", 1
	default:
		c.Status, c.StatusWord = "good", "on target"
	}
	c.Bar = bar(budget.Remaining)
	c.Strip = s.strip(st, now)
	for _, t := range o.Alarms(st.PeriodLength) {
		b := burn{
			Tier:  t.Name,
			Long:  sla.WindowName(t.Long) + " " + sla.FloorDecimal(st.Windows[t.Long].Burn(o.Target), 2),
			Short: sla.WindowName(t.Short) + " " + sla.FloorDecimal(st.Windows[t.Short].Burn(o.Target), 2),
			Limit: sla.FloorDecimal(t.Threshold, 2),
		}
		if t.Own {
			b.Short = ""
		}
		if _, on := firing[t.Name]; on {
			b.Class = "bad"
		}
		c.Burns = append(c.Burns, b)
	}
	return c, rank
}

// perDay is the traffic of the last 24 hours in events, nil where a tenth of
// them or more was not seen.
func perDay(st evaluate.State) *big.Rat {
	day := st.Windows[24*time.Hour]
	if coverage := day.Coverage(); coverage == nil || coverage.Cmp(big.NewRat(9, 10)) <= 0 {
		return nil
	}
	return new(big.Rat).SetFrac(day.Total.Big(), big.NewInt(sla.Micro))
}

func hasSeverity(firing map[string]string, severity string) bool {
	for _, s := range firing {
		if s == severity {
			return true
		}
	}
	return false
}

// bar draws the budget that is left as a horizontal bar.
func bar(remaining *big.Rat) template.HTML {
	width, class := 0.0, "bad"
	if remaining != nil {
		f, _ := remaining.Float64()
		width = min(max(f, 0), 1) * 100
		switch {
		case f >= 0.5:
			class = "good"
		case f > 0:
			class = "warn"
		}
	}
	return template.HTML(fmt.Sprintf(`<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="budget left"><rect width="100" height="4" rx="1" class="track"/><rect width="%.2f" height="4" rx="1" class="%s"/></svg>`, width, class)) // #nosec: numbers and fixed words alone
}

// strip draws the last 24 hours, one cell a quarter of an hour: good, with
// errors, below target, or without data.
func (s *Server) strip(st evaluate.State, now time.Time) template.HTML {
	const cells, cellMinutes = 96, 15
	end := sla.MinuteOf(st.Closed)
	if st.Closed.IsZero() {
		end = sla.MinuteOf(now)
	}
	begin := end - cells*cellMinutes
	var sums [cells]sla.Sum
	err := s.book.Scan(st.Objective.ID, begin, end, 0, func(m sla.Minute, f sla.Figures) error {
		c := f.Counts
		for _, g := range f.Gaps {
			c.GoodLow, c.GoodHigh, c.Total = c.GoodLow+g.GoodLow, c.GoodHigh+g.GoodHigh, c.Total+g.Total
		}
		sums[(m-begin)/cellMinutes].Add(c)
		return nil
	})
	if err != nil {
		s.log.Warn("the strip of an objective could not be read", "slo", st.Objective.SLO, "err", err)
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="strip" viewBox="0 0 %d 14" preserveAspectRatio="none" role="img" aria-label="the last 24 hours">`, cells*4)
	for i, sum := range sums {
		class, word := "none", "no data"
		switch {
		case sum.Total.Sign() > 0 && sum.Verdict(st.Objective.Target) == sla.Missed:
			class, word = "bad", sla.Percent(sum.Good(), 3)
		case sum.Total.Sign() > 0 && sum.Total.Cmp(sum.GoodHigh) > 0:
			class, word = "warn", sla.Percent(sum.Good(), 3)
		case sum.Total.Sign() > 0:
			class, word = "good", sla.Percent(sum.Good(), 3)
		case sum.Counted.Sign() > 0:
			class, word = "idle", "no traffic"
		}
		from := (begin + sla.Minute(i*cellMinutes)).Time().Format("15:04")
		fmt.Fprintf(&b, `<rect x="%d" width="3" height="14" class="%s"><title>%s UTC: %s</title></rect>`, i*4, class, from, word)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) // #nosec: numbers, times and fixed words alone
}
