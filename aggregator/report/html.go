package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"html"
	"html/template"
	"strconv"
	"strings"

	"nines/pkg/sla"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page.html").Parse(pageText))

// svg is a canvas whose colours are classes of the page's style sheet.
type svg struct{ b strings.Builder }

func short(v float64) string {
	s := strconv.FormatFloat(v, 'f', 2, 64)
	s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	if s == "-0" {
		return "0"
	}
	return s
}

func (s *svg) rect(x, y, w, h float64, fill ink) {
	fmt.Fprintf(&s.b, `<rect class="f-%s" x="%s" y="%s" width="%s" height="%s"/>`, fill, short(x), short(y), short(max(0, w)), short(max(0, h)))
}

func (s *svg) frame(x, y, w, h float64, stroke ink) {
	fmt.Fprintf(&s.b, `<rect class="s-%s" stroke-width=".3" x="%s" y="%s" width="%s" height="%s"/>`, stroke, short(x), short(y), short(max(0, w)), short(max(0, h)))
}

func points(xy []float64) string {
	var b strings.Builder
	for i := 0; i+1 < len(xy); i += 2 {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(short(xy[i]) + "," + short(xy[i+1]))
	}
	return b.String()
}

func (s *svg) area(fill ink, xy ...float64) {
	fmt.Fprintf(&s.b, `<polygon class="f-%s" points="%s"/>`, fill, points(xy))
}

func (s *svg) line(stroke ink, width float64, dashed bool, xy ...float64) {
	dash := ""
	if dashed {
		dash = ` stroke-dasharray="1 1"`
	}
	fmt.Fprintf(&s.b, `<polyline class="s-%s" stroke-width="%s"%s points="%s"/>`, stroke, short(width), dash, points(xy))
}

func (s *svg) label(x, y, size float64, at anchor, fill ink, text string) {
	fmt.Fprintf(&s.b, `<text class="f-%s" x="%s" y="%s" font-size="%s" text-anchor="%s">%s</text>`, fill, short(x), short(y), short(size*1.15), at, html.EscapeString(text))
}

// picture wraps what draw draws into an image of w × h with a text for those
// who do not see it.
func picture(class, label string, w, h float64, draw func(canvas)) template.HTML {
	var s svg
	fmt.Fprintf(&s.b, `<svg class="%s" viewBox="0 0 %s %s" role="img" aria-label="%s">`, class, short(w), short(h), html.EscapeString(label))
	draw(&s)
	s.b.WriteString("</svg>")
	// Every text in it went through EscapeString, all else are numbers of ours.
	return template.HTML(s.b.String())
}

type page struct {
	Report
	Period, AsOf, Sum        string
	Tiles                    []tile
	Overview, Legend         template.HTML
	Attention                []pageRow
	Rows                     []pageRow
	Method                   []paragraph
	CSVHash, BatchText, Lead string
}

type tile struct {
	N     int
	Word  string
	Class string
}

type pageRow struct {
	Row
	Class, Word, Measured string
	Bar, Strip, Burndown  template.HTML
	DayRows               []dayRow
}

type dayRow struct{ Date, State, Ratio, Coverage, Bad string }

var verdictClass = map[sla.Verdict]string{sla.Met: "good", sla.Missed: "bad", sla.Inconclusive: "warn", sla.NoEvents: "none"}

func (r Report) tiles() []tile {
	return []tile{
		{r.count(sla.Met), "met", "good"}, {r.count(sla.Missed), "missed", "bad"},
		{r.count(sla.Inconclusive), "inconclusive", "warn"}, {r.count(sla.NoEvents), "no events", "none"},
	}
}

// lead is the class of the first page's lead: the worst verdict that there is.
func (r Report) lead() string {
	switch {
	case r.count(sla.Missed) > 0:
		return "bad"
	case r.count(sla.Inconclusive) > 0:
		return "warn"
	case r.count(sla.Met) > 0:
		return "good"
	}
	return "none"
}

// HTML returns the report as one page without any outside asset: light and
// dark, readable with a screen reader, and made to be printed.
func (r Report) HTML() ([]byte, error) {
	csv, err := r.CSV()
	if err != nil {
		return nil, err
	}
	p := page{
		Report: r, Period: r.PeriodText(), AsOf: r.AsOfText(), Tiles: r.tiles(), Lead: r.lead(),
		CSVHash: csvHash(csv), Method: r.method(csvHash(csv)),
		Overview: picture("wide", r.overviewWords(), 174, 42, func(c canvas) { drawOverview(c, r, 0, 1, 174, 41) }),
		Legend:   picture("legend", "Legend: good, at risk, bad, no data", 110, 4, func(c canvas) { drawLegend(c, 0, .3, r.State == SoFar) }),
	}
	for _, row := range r.Rows {
		p.Rows = append(p.Rows, r.pageRow(row))
	}
	for i, row := range r.worst() {
		if i < 6 {
			p.Attention = append(p.Attention, r.pageRow(row))
		}
	}
	var buf bytes.Buffer
	if err := pageTemplate.Execute(&buf, p); err != nil {
		return nil, fmt.Errorf("write HTML: %w", err)
	}
	return buf.Bytes(), nil
}

func csvHash(csv []byte) string {
	sum := sha256.Sum256(csv)
	return hex.EncodeToString(sum[:])
}

func (r Report) overviewWords() string {
	bad := 0
	for i := range r.Month.days() {
		for _, row := range r.Rows {
			if row.Days[i].State == Bad {
				bad++
				break
			}
		}
	}
	return fmt.Sprintf("Objectives by state for each day of the month; days with at least one objective below its target: %d", bad)
}

func (r Report) pageRow(row Row) pageRow {
	burn := "no budget"
	if n := len(row.Burndown); n > 0 {
		burn = "Error budget over the month; left at its end: " + row.BudgetLeft()
	}
	out := pageRow{
		Row: row, Class: verdictClass[row.Verdict], Word: string(row.Verdict), Measured: r.measured(row),
		Bar:      picture("bar", "Budget left: "+row.BudgetLeft(), 40, 1.6, func(c canvas) { drawBudgetBar(c, row, 0, 0, 40, 1.6) }),
		Strip:    picture("strip", row.StripWords(), 110, stripHeight, func(c canvas) { drawStrip(c, row.Days, 0, 0, 110) }),
		Burndown: picture("burn", burn, 62, 25, func(c canvas) { drawBurndown(c, r, row, 0, 1.5, 61, 23.5) }),
	}
	for _, d := range row.Days {
		out.DayRows = append(out.DayRows, dayRow{d.Date, string(d.State), sla.Percent(d.Sum.Good(), decimals(row.Objective.Target)), sla.Percent(d.Sum.Coverage(), 2), strconv.FormatInt(d.BadMinutes, 10)})
	}
	return out
}
