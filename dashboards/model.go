package dashboards

import (
	"strings"

	"nines/pkg/sla"
)

// Role is a reader with a question of their own.
type Role struct {
	name, title, question string
	build                 func(*Board, []sla.Objective)
}

// Name returns the name that file and uid are made of.
func (r Role) Name() string { return r.name }

// Title returns the name for people.
func (r Role) Title() string { return r.title }

// Question returns what the role asks its dashboard.
func (r Role) Question() string { return r.question }

// Roles returns all roles in the order in which they are shown.
func Roles() []Role {
	return []Role{
		{"executive", "SLA owner", "Are we keeping our promises this month?", executive},
		{"oncall", "On-call engineer", "What burns, how fast, and since when?", onCall},
		{"operator", "Platform operator", "Are the nodes and our own pipeline healthy?", operator},
		{"planner", "Capacity planner", "What is idle, and when is it full?", planner},
	}
}

// Board is a dashboard before it is rendered.
type Board struct {
	UID, Title, Description string
	// From is the beginning of its time range as Grafana writes it; it ends now.
	From        string
	Variables   []Variable
	Annotations []Annotation
	Rows        []Row
}

// Variable is a choice at the top of the board: the values of a label.
type Variable struct{ Name, Label, Description, Query string }

// Annotation marks times at which an expression has a value.
type Annotation struct{ Name, Expr, Title, Text, Colour string }

// Row is a heading with panels under it.
type Row struct {
	Title  string
	Panels []Panel
}

// Kind is how a panel draws.
type Kind string

const (
	Stat     Kind = "stat"
	Graph    Kind = "timeseries"
	Table    Kind = "table"
	Bars     Kind = "bargauge"
	Timeline Kind = "state-timeline"
)

// Panel is one question with its answer.
type Panel struct {
	Kind        Kind
	Title       string
	Description string
	Unit        string // of Grafana's list, from the SDK's package units
	Decimals    int
	Queries     []Query
	Steps       []Step // colours by value, ascending; the first one's value is ignored
	Lines       bool   // draw the steps as lines into a graph
	NoData      string // what an empty panel says
	Min, Max    *float64
	Link        Link // where a click on a value leads
	Width       int  // of 24; 0 is the kind's own
}

// Query is one expression. Legend names its series in a graph; in a table it is
// the column's heading and Unit the column's unit.
type Query struct{ Expr, Legend, Unit string }

// Step colours values from From on.
type Step struct {
	From   float64
	Colour string
}

// Link leads from a value to another board.
type Link struct{ Title, URL string }

// Build returns the board of a role. Objectives may be empty.
func Build(objectives []sla.Objective, role Role) Board {
	b := Board{
		UID: "nines-" + role.name, Title: "Nines: " + role.title, From: "now-6h",
		Description: role.question,
	}
	role.build(&b, objectives)
	return b
}

// Expression is one expression of a board and where it stands.
type Expression struct {
	Board, Panel string
	Expr         string // as in the dashboard
	PromQL       string // with variables and intervals filled in: all clusters, 5 minutes, one day
	NoData       string // what its panel says when it gives nothing
}

// Expressions returns every expression of the board, annotations included.
func Expressions(b Board) []Expression {
	var out []Expression
	for _, r := range b.Rows {
		for _, p := range r.Panels {
			for _, q := range p.Queries {
				out = append(out, Expression{b.UID, p.Title, q.Expr, concrete(q.Expr), p.NoData})
			}
		}
	}
	for _, a := range b.Annotations {
		out = append(out, Expression{b.UID, a.Name, a.Expr, concrete(a.Expr), "Nothing to mark."})
	}
	return out
}

// concrete fills in what Grafana would.
func concrete(expr string) string {
	return strings.NewReplacer(
		"$__rate_interval", "5m", "$__range", "1d", "$__interval", "1m",
		"$cluster", ".*", "$node", ".*", "$service", ".*", "$slo", ".*",
	).Replace(expr)
}
