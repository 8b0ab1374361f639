package report

import (
	"fmt"
	"math/big"
	"strconv"
	"time"
)

// ink names a colour by what it means. Each canvas has its own palette.
type ink string

const (
	inkText  ink = "ink"
	inkSoft  ink = "soft"
	inkLine  ink = "line"
	inkPaper ink = "card"
	inkGood  ink = "good"
	inkWarn  ink = "warn"
	inkBad   ink = "bad"
	inkNone  ink = "none"
	inkWash  ink = "wash"
	inkBlue  ink = "link"
)

type anchor string

const (
	left   anchor = "start"
	centre anchor = "middle"
	right  anchor = "end"
)

// canvas draws vectors in millimetres, y downwards. It has two
// implementations, SVG and PDF, so that each chart is drawn by one function.
type canvas interface {
	rect(x, y, w, h float64, fill ink)
	frame(x, y, w, h float64, stroke ink)
	area(fill ink, xy ...float64)
	line(stroke ink, width float64, dashed bool, xy ...float64)
	// label writes text with its baseline at y, mm high.
	label(x, y, mm float64, at anchor, fill ink, text string)
}

var dayInk = map[DayState]ink{Good: inkGood, AtRisk: inkWarn, Bad: inkBad, NoData: inkNone, Ahead: inkLine}

// square draws one day. Its state shows by shape too: no data is hollow, at
// risk has a bar, bad a cross, and what lies ahead is only a ground line.
func square(c canvas, s DayState, x, y, w, h float64) {
	switch s {
	case NoData:
		c.frame(x+.15, y+.15, w-.3, h-.3, inkNone)
		return
	case Ahead:
		c.rect(x, y+h-.5, w, .5, inkLine)
		return
	}
	c.rect(x, y, w, h, dayInk[s])
	mx, my, a := x+w/2, y+h/2, min(w, h)*.26
	switch s {
	case AtRisk:
		c.line(inkPaper, .5, false, mx-a, my, mx+a, my)
	case Bad:
		c.line(inkPaper, .5, false, mx-a, my-a, mx+a, my+a)
		c.line(inkPaper, .5, false, mx-a, my+a, mx+a, my-a)
	}
}

const stripHeight = 9.5

// drawStrip draws the days of an objective, w wide and stripHeight high.
func drawStrip(c canvas, days []Day, x, y, w float64) {
	step := w / float64(max(1, len(days)))
	for i, d := range days {
		square(c, d.State, x+float64(i)*step, y, step-.5, 6)
		n, _ := strconv.Atoi(d.Date[len(d.Date)-2:])
		if n == 1 || n%5 == 0 {
			c.label(x+float64(i)*step+(step-.5)/2, y+9, 2.2, centre, inkSoft, strconv.Itoa(n))
		}
	}
}

// drawLegend explains the squares in one line.
func drawLegend(c canvas, x, y float64, ahead bool) {
	for _, s := range []DayState{Good, AtRisk, Bad, NoData, Ahead} {
		if s == Ahead && !ahead {
			continue
		}
		square(c, s, x, y, 3.2, 3.2)
		c.label(x+4.4, y+2.6, 2.5, left, inkSoft, string(s))
		x += 10 + 1.55*float64(len(s))
	}
}

// drawOverview draws for each day how many objectives were in which state, w
// wide and h high, the worst at the bottom where the eye begins.
func drawOverview(c canvas, r Report, x, y, w, h float64) {
	m := r.Month.days()
	body := h - 4.5
	if len(r.Rows) == 0 {
		c.frame(x, y, w, body, inkLine)
		c.label(x+w/2, y+body/2+1, 3, centre, inkSoft, "no objective was measured")
		return
	}
	const gutter = 7.0
	c.label(x+gutter-1.5, y+2, 2.3, right, inkSoft, strconv.Itoa(len(r.Rows)))
	c.label(x+gutter-1.5, y+body, 2.3, right, inkSoft, "0")
	x, w = x+gutter, w-gutter
	step := w / float64(len(m))
	unit := body / float64(len(r.Rows))
	for i, s := range m {
		n := map[DayState]int{}
		for _, row := range r.Rows {
			n[row.Days[i].State]++
		}
		bottom := y + body
		for _, state := range []DayState{Bad, AtRisk, NoData, Good} {
			if n[state] == 0 {
				continue
			}
			high := unit * float64(n[state])
			bottom -= high
			gap := min(.3, high/4)
			if state == NoData {
				c.rect(x+float64(i)*step, bottom, step-.8, high-gap, inkLine)
			} else {
				c.rect(x+float64(i)*step, bottom, step-.8, high-gap, dayInk[state])
			}
		}
		if day, _ := strconv.Atoi(s.date[len(s.date)-2:]); day == 1 || day%5 == 0 {
			c.label(x+float64(i)*step+(step-.8)/2, y+h-.6, 2.3, centre, inkSoft, strconv.Itoa(day))
		}
	}
	c.line(inkLine, .2, false, x, y+body, x+w-.8, y+body)
}

// drawBurndown draws the budget left over the month, w wide and h high.
func drawBurndown(c canvas, r Report, row Row, x, y, w, h float64) {
	if len(row.Burndown) == 0 {
		why := "no events, so no budget to burn"
		if row.Objective.Target.IsAll() {
			why = "a target of 100 % has no budget"
		}
		c.frame(x, y, w, h-4, inkLine)
		c.label(x+w/2, y+(h-4)/2+.9, 2.4, centre, inkSoft, why)
		return
	}
	const gutter = 12.0
	low := 0.0
	for _, p := range row.Burndown {
		low = min(low, float(p.Remaining))
	}
	low = max(low, -1)
	px, pw, ph := x+gutter, w-gutter, h-4.5
	start, end := r.Month.Start(), r.Month.End()
	atX := func(t time.Time) float64 {
		return px + pw*float64(t.Sub(start))/float64(end.Sub(start))
	}
	atY := func(v float64) float64 { return y + ph*(1-max(low, min(1, v)))/(1-low) }
	c.line(inkLine, .2, false, px, atY(1), px+pw, atY(1))
	c.label(px-1.2, atY(1)+1.2, 2.2, right, inkSoft, "100 %")
	c.line(inkSoft, .2, false, px, atY(0), px+pw, atY(0))
	c.label(px-1.2, atY(0)+.8, 2.2, right, inkSoft, "0 %")
	if low < 0 && atY(low)-atY(0) > 3 {
		c.label(px-1.2, atY(low)+.8, 2.2, right, inkSoft, fmt.Sprintf("−%.0f %%", -low*100))
	}
	c.line(inkSoft, .2, true, px, atY(1), px+pw, atY(0))
	tone := inkGood
	last := float(row.Burndown[len(row.Burndown)-1].Remaining)
	switch {
	case last < 0:
		tone = inkBad
	case last < .25:
		tone = inkWarn
	}
	pts := make([]float64, 0, 2*len(row.Burndown))
	for _, p := range row.Burndown {
		pts = append(pts, atX(p.At), atY(float(p.Remaining)))
	}
	if len(row.Burndown) > 1 {
		under := append([]float64{pts[0], atY(0)}, pts...)
		c.area(inkWash, append(under, pts[len(pts)-2], atY(0))...)
		c.line(tone, .6, false, pts...)
	}
	c.rect(pts[len(pts)-2]-.6, pts[len(pts)-1]-.6, 1.2, 1.2, tone)
	for _, day := range []int{1, 10, 20} {
		t := firstInstant(r.Month.year, r.Month.month, day, r.Month.zone)
		c.label(atX(t), y+h-.8, 2.2, left, inkSoft, strconv.Itoa(day))
	}
	c.label(px+pw, y+h-.8, 2.2, right, inkSoft, end.Add(-time.Hour).Format("2 Jan"))
}

// drawBudgetBar draws the share of the budget that is left, w wide, h high.
func drawBudgetBar(c canvas, row Row, x, y, w, h float64) {
	c.rect(x, y, w, h, inkLine)
	if row.Budget.Remaining == nil {
		return
	}
	v := float(row.Budget.Remaining)
	switch {
	case v <= 0:
		c.rect(x, y, w, h, inkBad)
	case v < .25:
		c.rect(x, y, w*v, h, inkWarn)
	default:
		c.rect(x, y, w*min(1, v), h, inkGood)
	}
}

// float is for the place of a point on paper, never for a printed figure.
func float(r *big.Rat) float64 {
	f, _ := r.Float64()
	return f
}
