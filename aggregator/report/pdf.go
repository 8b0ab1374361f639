package report

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"codeberg.org/go-pdf/fpdf"
	"github.com/go-fonts/liberation/liberationmonoregular"
	"github.com/go-fonts/liberation/liberationsansbold"
	"github.com/go-fonts/liberation/liberationsansregular"

	"nines/pkg/sla"
)

// A4 in millimetres.
const (
	pageWide  = 210.0
	pageHigh  = 297.0
	margin    = 18.0
	bodyWide  = pageWide - 2*margin
	bodyEnd   = pageHigh - 20
	pointToMM = 25.4 / 72
)

var palette = map[ink][3]int{
	inkText: {28, 36, 48}, inkSoft: {91, 102, 117}, inkLine: {217, 222, 230}, inkPaper: {255, 255, 255}, inkWash: {234, 241, 248},
	inkGood: {46, 125, 79}, inkWarn: {183, 121, 31}, inkBad: {179, 54, 43}, inkNone: {137, 149, 165}, inkBlue: {31, 95, 168},
}

// sheet is the PDF as it is written, and a canvas.
type sheet struct {
	*fpdf.Fpdf
	y      float64
	footer string
	pages  int // of the whole document, for the footer
	// reach is the paper that text took: least x, greatest x, greatest y.
	reach [3]float64
}

// PDF returns the report on A4: a page with the verdict, the table, days and
// budgets of each objective, method and queries. The CSV is attached.
func (r Report) PDF() ([]byte, error) {
	csv, err := r.CSV()
	if err != nil {
		return nil, err
	}
	// The first pass counts the pages, the second one prints the number.
	first, err := r.typeset(csv, 0)
	if err != nil {
		return nil, err
	}
	s, err := r.typeset(csv, first.PageCount())
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := s.Output(&buf); err != nil {
		return nil, fmt.Errorf("write PDF: %w", err)
	}
	return buf.Bytes(), nil
}

func (r Report) typeset(csv []byte, pages int) (*sheet, error) {
	s := &sheet{Fpdf: fpdf.New("P", "mm", "A4", ""), pages: pages, reach: [3]float64{pageWide, 0, 0}}
	s.footer = "Service level report " + r.Month.Name() + ", " + r.Month.Timezone()
	if r.State == SoFar {
		s.footer += ", so far"
	}
	if r.Head.Seq > 0 {
		s.footer += ", batch " + strconv.FormatUint(r.Head.Seq, 10)
	}
	at := r.AsOf()
	if at.IsZero() {
		at = r.Month.Start().UTC()
	}
	s.SetCatalogSort(true)
	s.SetCreationDate(at)
	s.SetModificationDate(at)
	s.SetProducer("Nines", true)
	s.SetCreator(printable(r.Program), true)
	s.SetTitle("Service level report "+r.Month.Name(), true)
	s.SetSubject(strings.Join(r.Summary, " "), true)
	s.SetLang("en")
	s.SetMargins(margin, margin, margin)
	s.SetAutoPageBreak(false, 0)
	s.SetCellMargin(0)
	s.AddUTF8FontFromBytes("sans", "", liberationsansregular.TTF)
	s.AddUTF8FontFromBytes("sans", "B", liberationsansbold.TTF)
	s.AddUTF8FontFromBytes("mono", "", liberationmonoregular.TTF)
	s.SetAttachments([]fpdf.Attachment{{Content: csv, Filename: r.FileName("csv"), Description: "The figures of this report as CSV"}})

	s.page()
	s.Bookmark("Verdict", 0, -1)
	s.verdictPage(r)
	if len(r.Rows) > 0 {
		s.page()
		s.Bookmark("All objectives", 0, -1)
		s.table(r)
		s.section(80)
		s.Bookmark("Days and budgets", 0, s.y)
		s.details(r)
	}
	s.section(150)
	s.Bookmark("How this was measured", 0, s.y)
	s.methodPages(r, csvHash(csv))
	if err := s.Error(); err != nil {
		return nil, fmt.Errorf("typeset PDF: %w", err)
	}
	return s, nil
}

// page begins a page with its footer.
func (s *sheet) page() {
	s.AddPage()
	s.y = margin + 4
	s.line(inkLine, .2, false, margin, pageHigh-14, pageWide-margin, pageHigh-14)
	s.label(margin, pageHigh-10, 2.6, left, inkSoft, s.footer)
	n := strconv.Itoa(s.PageNo())
	if s.pages > 0 {
		n += " of " + strconv.Itoa(s.pages)
	}
	s.label(pageWide-margin, pageHigh-10, 2.6, right, inkSoft, n)
}

// section leaves room above a heading, or begins a page where less than h is left.
func (s *sheet) section(h float64) {
	s.y += 12
	if s.PageNo() == 1 {
		h = pageHigh // the first page stands alone
	}
	s.need(h)
}

// need begins a page where less than h is left, and reports that it did.
func (s *sheet) need(h float64) bool {
	if s.y+h <= bodyEnd {
		return false
	}
	s.page()
	return true
}

func (s *sheet) fill(i ink)   { c := palette[i]; s.SetFillColor(c[0], c[1], c[2]) }
func (s *sheet) stroke(i ink) { c := palette[i]; s.SetDrawColor(c[0], c[1], c[2]) }
func (s *sheet) colour(i ink) { c := palette[i]; s.SetTextColor(c[0], c[1], c[2]) }

func (s *sheet) rect(x, y, w, h float64, fill ink) {
	s.fill(fill)
	s.Rect(x, y, max(0, w), max(0, h), "F")
}

func (s *sheet) frame(x, y, w, h float64, stroke ink) {
	s.stroke(stroke)
	s.SetLineWidth(.3)
	s.Rect(x, y, max(0, w), max(0, h), "D")
}

func (s *sheet) area(fill ink, xy ...float64) {
	s.fill(fill)
	var pts []fpdf.PointType
	for i := 0; i+1 < len(xy); i += 2 {
		pts = append(pts, fpdf.PointType{X: xy[i], Y: xy[i+1]})
	}
	s.Polygon(pts, "F")
}

func (s *sheet) line(stroke ink, width float64, dashed bool, xy ...float64) {
	s.stroke(stroke)
	s.SetLineWidth(width)
	if dashed {
		s.SetDashPattern([]float64{.9, .9}, 0)
		defer s.SetDashPattern(nil, 0)
	}
	s.SetLineJoinStyle("round")
	s.MoveTo(xy[0], xy[1])
	for i := 2; i+1 < len(xy); i += 2 {
		s.LineTo(xy[i], xy[i+1])
	}
	s.DrawPath("D")
}

func (s *sheet) label(x, y, size float64, at anchor, fill ink, text string) {
	s.font("", size/pointToMM)
	s.write(x, y, at, fill, text)
}

func (s *sheet) font(style string, points float64) { s.SetFont("sans", style, points) }

// write puts one line in the present font with its baseline at y.
func (s *sheet) write(x, y float64, at anchor, fill ink, text string) {
	text = printable(text)
	w := s.GetStringWidth(text)
	switch at {
	case centre:
		x -= w / 2
	case right:
		x -= w
	}
	s.reach = [3]float64{min(s.reach[0], x), max(s.reach[1], x+w), max(s.reach[2], y)}
	s.colour(fill)
	s.Text(x, y, text)
}

// fit writes one line that is made smaller until it is at most w wide.
func (s *sheet) fit(style string, points, x, y, w float64, at anchor, fill ink, text string) {
	s.font(style, points)
	if have := s.GetStringWidth(printable(text)); have > w {
		s.font(style, points*w/have)
	}
	s.write(x, y, at, fill, text)
}

// printable replaces what the fonts or the library cannot show.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t' || c == '\r':
			return ' '
		case unicode.IsControl(c) || c == unicode.ReplacementChar || c > 0xFFFF || c >= 0xD800 && c < 0xF900:
			return '□'
		}
		return c
	}, text)
}

// wrap breaks text into lines of at most w in the present font: at spaces, else
// behind punctuation, else anywhere.
func (s *sheet) wrap(text string, w float64) []string {
	var lines []string
	line := ""
	fits := func(t string) bool { return s.GetStringWidth(t) <= w }
	for _, word := range strings.Split(printable(strings.ReplaceAll(text, " %", "\u00a0%")), " ") {
		if word == "" {
			continue
		}
		next := word
		if line != "" {
			next = line + " " + word
		}
		if fits(next) {
			line = next
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		rest := []rune(word)
		for !fits(string(rest)) {
			cut, soft := 1, 0
			for i := 1; i <= len(rest) && fits(string(rest[:i])); i++ {
				cut = i
				if strings.ContainsRune("-_/.,:;=|&)}]", rest[i-1]) {
					soft = i
				}
			}
			if soft > cut/2 {
				cut = soft
			}
			lines = append(lines, string(rest[:cut]))
			rest = rest[cut:]
		}
		line = string(rest)
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// paragraphs writes text over the whole width or a part of it, breaking pages.
func (s *sheet) paragraph(family, style string, points, x, w, leading float64, fill ink, text string) {
	s.SetFont(family, style, points)
	for _, l := range s.wrap(text, w) {
		s.need(leading)
		s.SetFont(family, style, points)
		s.write(x, s.y+leading*.75, left, fill, l)
		s.y += leading
	}
}

func (s *sheet) heading(text string) {
	s.font("B", 14)
	s.write(margin, s.y+4, left, inkText, text)
	s.y += 9
}

// chip writes a verdict on its colour, beginning or ending at x.
func (s *sheet) chip(x, y float64, at anchor, v sla.Verdict) {
	s.font("B", 7.5)
	w := s.GetStringWidth(string(v)) + 4.4
	if at == right {
		x -= w
	}
	s.fill(ink(verdictClass[v]))
	s.RoundedRect(x, y, w, 4.6, 2.3, "1234", "F")
	s.write(x+w/2, y+3.25, centre, inkPaper, string(v))
}

func (s *sheet) verdictPage(r Report) {
	s.font("", 9)
	s.write(margin, s.y+2, left, inkSoft, "SERVICE LEVEL REPORT")
	s.y += 14
	s.font("B", 30)
	s.write(margin, s.y, left, inkText, r.Month.Name())
	if r.State == SoFar {
		x := margin + s.GetStringWidth(r.Month.Name()) + 5
		s.fill(inkWarn)
		s.RoundedRect(x, s.y-7, 19, 7, 3.5, "1234", "F")
		s.font("B", 10)
		s.write(x+9.5, s.y-2.3, centre, inkPaper, "so far")
	}
	s.y += 7
	s.fit("", 10, margin, s.y, bodyWide, left, inkSoft, r.PeriodText())
	s.y += 5
	s.label(margin, s.y, 10*pointToMM, left, inkSoft, "As of "+r.AsOfText())
	s.y += 8

	// The summary on its own ground, with the worst verdict's colour at its side.
	s.font("", 12)
	var lines []string
	for i, sentence := range r.Summary {
		if i > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, s.wrap(sentence, bodyWide-14)...)
	}
	high := 8.0
	for _, l := range lines {
		high += leadOf(l)
	}
	s.rect(margin, s.y, bodyWide, high, inkWash)
	s.rect(margin, s.y, 1.6, high, ink(r.lead()))
	at := s.y + 4
	for _, l := range lines {
		s.font("", 12)
		s.write(margin+8, at+4.4, left, inkText, l)
		at += leadOf(l)
	}
	s.y += high + 7

	const gap = 5.0
	wide := (bodyWide - 3*gap) / 4
	for i, t := range r.tiles() {
		x := margin + float64(i)*(wide+gap)
		s.frame(x, s.y, wide, 22, inkLine)
		s.rect(x-.15, s.y-.15, wide+.3, 1.4, ink(t.Class))
		s.font("B", 24)
		s.write(x+5, s.y+12.5, left, inkText, strconv.Itoa(t.N))
		s.label(x+5, s.y+18, 3.4, left, inkSoft, t.Word)
	}
	s.y += 31

	s.font("B", 11)
	s.write(margin, s.y, left, inkText, "The month, day by day")
	s.label(pageWide-margin, s.y, 2.8, right, inkSoft, "objectives in each state")
	s.y += 4
	drawOverview(s, r, margin, s.y, bodyWide, 40)
	s.y += 43
	drawLegend(s, margin+7, s.y, r.State == SoFar)
	s.y += 13

	if len(r.Rows) == 0 {
		return
	}
	s.font("B", 11)
	s.write(margin, s.y, left, inkText, "Look at these first")
	s.y += 3
	for _, row := range r.worst() {
		s.font("B", 9.5)
		title := s.wrap(row.Title(), 84)
		h := 4.4*float64(len(title)) + 4
		if s.y+h > bodyEnd {
			break
		}
		s.line(inkLine, .2, false, margin, s.y, pageWide-margin, s.y)
		for i, l := range title {
			s.font("B", 9.5)
			s.write(margin, s.y+5.2+4.4*float64(i), left, inkText, l)
		}
		s.fit("", 9.5, margin+89, s.y+5.2, 43, left, inkText, row.Ratio()+" of "+row.Target())
		s.fit("", 8, margin+89+44, s.y+3.6, 17, left, inkSoft, budgetShort(row))
		drawBudgetBar(s, row, margin+89+44, s.y+4.8, 17, 1.4)
		s.chip(pageWide-margin, s.y+1.9, right, row.Verdict)
		s.y += h
	}
}

// leadOf is the height of a line of the summary; an empty one parts sentences.
func leadOf(l string) float64 {
	if l == "" {
		return 2.2
	}
	return 6
}

// budgetShort is the budget left as a percentage that may be negative.
func budgetShort(row Row) string {
	if row.Budget.Remaining == nil {
		return row.BudgetLeft()
	}
	whole := strings.TrimSuffix(sla.Percent(row.Budget.Remaining, 1), " %")
	return thousands(whole) + " %"
}

type column struct {
	head string
	x, w float64
	at   anchor
}

var columns = []column{
	{"Objective", 0, 54, left}, {"Target", 57, 16, right}, {"Reached", 75, 20, right}, {"Verdict", 99, 22, left},
	{"Budget left", 123, 19, left}, {"Bad min.", 143, 14, right}, {"Coverage", 158, 16, right},
}

func (s *sheet) table(r Report) {
	head := func() {
		for _, c := range columns {
			x := margin + c.x
			if c.at == right {
				x += c.w
			}
			s.label(x, s.y+3, 2.9, c.at, inkSoft, c.head)
		}
		s.y += 5
		s.line(inkSoft, .3, false, margin, s.y, pageWide-margin, s.y)
	}
	s.heading("All objectives")
	head()
	for _, row := range r.Rows {
		s.font("B", 9)
		title := s.wrap(row.Title(), columns[0].w)
		s.font("", 7.5)
		place := s.wrap(row.Place(), columns[0].w)
		h := 4.2*float64(len(title)) + 3.6*float64(len(place)) + 3.4
		if s.need(h) {
			head()
		}
		y := s.y + 4.6
		for i, l := range title {
			s.font("B", 9)
			s.write(margin, y+4.2*float64(i), left, inkText, l)
		}
		for i, l := range place {
			s.font("", 7.5)
			s.write(margin, y+4.2*float64(len(title)-1)+3.6*float64(i+1), left, inkSoft, l)
		}
		cell := func(i int, text string) {
			c := columns[i]
			s.fit("", 9, margin+c.x+c.w, y, c.w, right, inkText, text)
		}
		cell(1, row.Target())
		cell(2, row.Ratio())
		s.chip(margin+columns[3].x, s.y+1.5, left, row.Verdict)
		s.fit("", 9, margin+columns[4].x, y, columns[4].w, left, inkText, budgetShort(row))
		drawBudgetBar(s, row, margin+columns[4].x, s.y+5.8, columns[4].w-1, 1.2)
		cell(5, thousands(strconv.FormatInt(row.BadMinutes, 10)))
		cell(6, row.Coverage())
		s.y += max(h, 8.4)
		s.line(inkLine, .2, false, margin, s.y, pageWide-margin, s.y)
	}
}

const (
	stripWide = 104.0
	chartWide = 62.0
)

func (s *sheet) details(r Report) {
	s.heading("Days and budgets")
	drawLegend(s, margin, s.y, r.State == SoFar)
	s.label(pageWide-margin, s.y+2.6, 2.5, right, inkSoft, "budget left over the month; dashed: an even pace")
	s.y += 9
	for _, row := range r.Rows {
		s.font("B", 10)
		title := s.wrap(row.Title(), bodyWide-28)
		s.font("", 8)
		place := row.Place()
		if m := r.measured(row); m != "" {
			place += " · " + m
		}
		sub := s.wrap(place, bodyWide-28)
		facts := [][2]string{
			{"Reached", row.Ratio() + " against " + row.Target() + row.changeWords()},
			{"Events", row.Events() + " good"},
			{"Coverage", row.Coverage() + " counted, " + row.TimedCoverage() + " timed; no data: " + row.NoDataText()},
			{"Bad minutes", fmt.Sprintf("%s of %s judged; hottest hour %s", thousands(strconv.FormatInt(row.BadMinutes, 10)), thousands(strconv.FormatInt(row.JudgedMinutes, 10)), row.MaxBurnText())},
		}
		if b := row.Bounds(); b != "" {
			facts = append(facts[:1], append([][2]string{{"Bounds", b + ", with average traffic in the unseen time"}}, facts[1:]...)...)
		}
		above := 4.6*float64(len(title)) + 3.9*float64(len(sub)) + 3
		h := above + max(stripHeight+5+4.1*float64(len(facts)-1), 28) + 9
		s.need(h)
		for i, l := range title {
			s.font("B", 10)
			s.write(margin, s.y+3.6+4.6*float64(i), left, inkText, l)
		}
		for i, l := range sub {
			s.font("", 8)
			s.write(margin, s.y+3.4+4.6*float64(len(title))+3.9*float64(i), left, inkSoft, l)
		}
		s.chip(pageWide-margin, s.y, right, row.Verdict)
		top := s.y + above
		drawStrip(s, row.Days, margin, top, stripWide)
		for i, f := range facts {
			y := top + stripHeight + 5 + 4.1*float64(i)
			s.label(margin, y, 2.9, left, inkSoft, f[0])
			s.fit("", 8.2, margin+20, y, stripWide-20, left, inkText, f[1])
		}
		drawBurndown(s, r, row, margin+stripWide+8, top, chartWide, 29)
		s.y += h
		if s.y < bodyEnd-20 {
			s.line(inkLine, .2, false, margin, s.y-5, pageWide-margin, s.y-5)
		}
	}
}

func (s *sheet) methodPages(r Report, csvHash string) {
	s.heading("How this was measured")
	for _, p := range r.method(csvHash) {
		s.font("", 9)
		lines := s.wrap(p.Text, bodyWide-30)
		s.need(4.5*float64(len(lines)) + 2)
		s.font("B", 9)
		s.write(margin, s.y+3.4, left, inkText, p.Head)
		s.paragraph("sans", "", 9, margin+30, bodyWide-30, 4.5, inkText, p.Text)
		s.y += 2.4
	}
	if len(r.Rows) == 0 {
		return
	}
	s.y += 6
	s.need(40)
	s.heading("What each objective counts")
	for _, row := range r.Rows {
		o := row.Objective
		s.need(22)
		s.paragraph("sans", "B", 9.5, margin, bodyWide, 4.6, inkText, row.Title())
		spec := "objective " + o.ID.String()
		if o.SpecSHA256 != "" {
			spec += ", specification " + o.SpecSHA256
		}
		s.paragraph("sans", "", 7.5, margin, bodyWide, 3.8, inkSoft, spec)
		if o.Description != "" {
			s.paragraph("sans", "", 9, margin, bodyWide, 4.4, inkText, o.Description)
		}
		for _, q := range [][2]string{{"good", o.SLI.Good}, {"bad", o.SLI.Bad}, {"total", o.SLI.Total}} {
			if q[1] == "" {
				continue
			}
			s.need(4)
			s.label(margin, s.y+2.9, 2.8, left, inkSoft, q[0])
			s.paragraph("mono", "", 7.5, margin+10, bodyWide-10, 3.8, inkText, q[1])
		}
		s.y += 4
	}
}
