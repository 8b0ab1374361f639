package sla

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// ID identifies an objective: the first 8 bytes of a SHA-256 over what makes
// it itself. It is printed as 16 hex digits.
type ID [8]byte

// String returns the 16 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads 16 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("objective id %q: want 16 hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// MarshalText returns the 16 hex digits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 16 hex digits.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// SLI is the indicator of an objective, as it is counted. It has one of these
// forms:
//
//   - Total, and Good or Bad: shares of events;
//   - Raw: a ratio that was computed elsewhere, observed once a minute;
//   - Value, Op and Limit: a value, compared once a minute;
//   - Combine and Parts: other objectives, put together.
type SLI struct {
	Good  string `json:"good,omitempty"`
	Bad   string `json:"bad,omitempty"`
	Total string `json:"total,omitempty"`

	Raw string `json:"raw,omitempty"`
	// RawBad tells that Raw is the share of bad events.
	RawBad bool `json:"raw_bad,omitempty"`

	Value string `json:"value,omitempty"`
	Op    string `json:"op,omitempty"`    // lt, lte, gt or gte: Value Op Limit is good
	Limit string `json:"limit,omitempty"` // a decimal number

	Combine string `json:"combine,omitempty"` // Weighted, AllOf or AnyOf
	Parts   []Part `json:"parts,omitempty"`

	// Slices, if set, makes time slices of what is counted.
	Slices *Slices `json:"slices,omitempty"`
}

// How the parts of a composite objective are put together, slice by slice.
const (
	Weighted = "weighted" // the mean of their ratios by weight
	AllOf    = "all-of"   // good where every part reaches its target
	AnyOf    = "any-of"   // good where one part reaches its target
)

// Part is one objective of a composite one.
type Part struct {
	Objective ID     `json:"objective_id"`
	Name      string `json:"name"`
	Weight    int64  `json:"weight"` // in millionths, above 0
	Target    Target `json:"target"`
}

// Slices cuts time into slices of whole minutes that tile a UTC day.
type Slices struct {
	// Minutes is the length of a slice: a divisor of 1,440.
	Minutes int `json:"minutes"`
	// Ratio tells that a slice counts with its ratio (RatioTimeslices), not as
	// good or bad (Timeslices).
	Ratio bool `json:"ratio,omitempty"`
	// Target is the ratio from which on a slice is good, zero with Ratio.
	Target Target `json:"target,omitzero"`
}

// Canonical returns the text whose hash is the version of the SLI (R28).
func (s SLI) Canonical() string {
	var b strings.Builder
	switch {
	case s.Raw != "":
		fmt.Fprintf(&b, "raw=%q bad=%t", s.Raw, s.RawBad)
	case s.Value != "":
		fmt.Fprintf(&b, "value=%q op=%s limit=%s", s.Value, s.Op, s.Limit)
	case len(s.Parts) > 0:
		fmt.Fprintf(&b, "combine=%s", s.Combine)
		for _, p := range s.Parts {
			fmt.Fprintf(&b, " part=%s weight=%d", p.Objective, p.Weight)
			if s.Combine != Weighted { // which has no use for it
				fmt.Fprintf(&b, " target=%s", p.Target)
			}
		}
	default:
		fmt.Fprintf(&b, "good=%q bad=%q total=%q", s.Good, s.Bad, s.Total)
	}
	if s.Slices != nil {
		fmt.Fprintf(&b, " slices=%dm ratio=%t target=%s", s.Slices.Minutes, s.Slices.Ratio, s.Slices.Target)
	}
	return b.String()
}

// Unit returns what the objective counts, in the plural: events, observations
// of a value or ratio, or slices of time.
func (s SLI) Unit() string {
	switch {
	case s.Slices != nil:
		return "slices of " + Duration(time.Duration(s.Slices.Minutes)*time.Minute)
	case s.Raw != "" || s.Value != "":
		return "observations"
	case len(s.Parts) > 0:
		return "minutes"
	}
	return "events"
}

// Calendar units of a Window.
const (
	Day     = "day"
	Week    = "week" // begins on Monday, ISO 8601
	Month   = "month"
	Quarter = "quarter"
	Year    = "year"
)

// Window is the period of an objective: rolling over a duration, or aligned
// with the calendar of a zone.
type Window struct {
	Rolling  time.Duration `json:"rolling,omitempty"`  // 0 for calendar windows
	Calendar string        `json:"calendar,omitempty"` // Day … Year
	Count    int           `json:"count,omitempty"`    // how many calendar units, 1 where 0; above 1 only with an Anchor, or of months that divide a year
	Timezone string        `json:"timezone,omitempty"` // IANA name of a calendar window
	// Anchor is when one of the windows begins, by the zone's clock and written
	// as AnchorLayout; empty where they begin with the calendar's own units.
	Anchor string `json:"anchor,omitempty"`
}

// String returns the window in words: "30 days", "calendar month, Europe/Berlin".
func (w Window) String() string {
	if w.Rolling > 0 {
		return Duration(w.Rolling)
	}
	from := ""
	if w.Anchor != "" {
		from = " from " + w.Anchor
	}
	if w.Count > 1 {
		return fmt.Sprintf("%d calendar %ss%s, %s", w.Count, w.Calendar, from, w.Timezone)
	}
	return fmt.Sprintf("calendar %s%s, %s", w.Calendar, from, w.Timezone)
}

// Objective is one line of the ledger: one target of one SLO, or of one
// group of its label values.
type Objective struct {
	ID        ID     `json:"objective_id"`
	Cluster   string `json:"cluster"` // origin of the definition, empty for files
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	SLO       string `json:"slo"`
	// Name is the objective's displayName or, without one, its index in the SLO.
	Name        string            `json:"name"`
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Labels      map[string]string `json:"labels,omitempty"` // of the SLO's metadata
	// GroupBy names the labels whose values make one objective each of this
	// SLO, in the order of the document. Only the template of the groups has it.
	GroupBy []string `json:"group_by,omitempty"`
	// MaxGroups is how many groups become objectives of their own.
	MaxGroups int `json:"max_groups,omitempty"`
	// Group is the label values of one group. A value is empty where the
	// series lack the label.
	Group map[string]string `json:"group,omitempty"`
	// Other tells that the objective gathers the groups beyond MaxGroups. It
	// has no Group, so that no label value can be taken for it.
	Other   bool   `json:"other,omitempty"`
	Team    string `json:"team,omitempty"`
	Runbook string `json:"runbook,omitempty"`
	Target  Target `json:"target"`
	Window  Window `json:"window"`
	SLI     SLI    `json:"sli"`
	// AbsentBad is the annotation nines.internal/absent: bad (R18).
	AbsentBad bool `json:"absent_bad,omitempty"`
	// SpecSHA256 is the hash of the document that it came from, in hex.
	SpecSHA256 string `json:"spec_sha256"`
	// Policies are the objective's own alerts, in the place of the Tiers. Nil is
	// none of its own.
	Policies []Policy `json:"policies,omitempty"`
	// Inner tells that it only feeds other objectives of its SLO: the events of
	// which those make time slices. It is booked, and neither shown nor paged.
	Inner bool `json:"inner,omitempty"`
	// Shipped tells that the definition comes with the program.
	Shipped bool `json:"shipped,omitempty"`
}

// DefaultMaxGroups is how many groups of an SLO become objectives of their own
// where its document does not say, and LimitMaxGroups the most that it may say.
const (
	DefaultMaxGroups = 1_000
	LimitMaxGroups   = 50_000
)

// OtherGroup is how the objective that gathers the groups beyond the bound is
// printed.
const OtherGroup = "other"

// ForGroup returns the objective of one group of a template: with the group's
// values behind its title, and an identity of its own. Of group it takes the
// labels of GroupBy; one that is not there is empty.
func (o Objective) ForGroup(group map[string]string) Objective {
	values := make([]string, 0, len(o.GroupBy))
	labels := make(map[string]string, len(o.GroupBy))
	for _, n := range o.GroupBy { // as the document has them
		v := group[n]
		labels[n] = v
		if v == "" {
			v = "no " + n
		}
		values = append(values, v)
	}
	out := o.member(strings.Join(values, ", "))
	out.Group = labels
	out.ID = ObjectiveID(o.Cluster, o.Namespace, o.SLO, o.Name, labels, o.SLI)
	return out
}

// ForOther returns the objective that gathers the groups of a template beyond
// its bound. A group whose values are "other" is another objective: the
// identity of this one holds a label without a name, which no series has.
func (o Objective) ForOther() Objective {
	out := o.member(OtherGroup + " groups")
	out.Other = true
	out.ID = ObjectiveID(o.Cluster, o.Namespace, o.SLO, o.Name, map[string]string{"": OtherGroup}, o.SLI)
	return out
}

// GroupName is the values of the objective's group as one label has them,
// empty where it is none.
func (o Objective) GroupName() string {
	if o.Other {
		return OtherGroup + " groups"
	}
	names := make([]string, 0, len(o.Group))
	for n := range o.Group {
		names = append(names, n)
	}
	sort.Strings(names)
	for i, n := range names {
		names[i] = n + "=" + o.Group[n]
	}
	return strings.Join(names, ", ")
}

func (o Objective) member(suffix string) Objective {
	o.GroupBy, o.MaxGroups, o.Group, o.Other = nil, 0, nil, false
	title := o.Title
	if title == "" {
		title = o.SLO
	}
	o.Title = title + ": " + suffix
	return o
}

// ObjectiveID computes the identity: SHA-256 over origin cluster, namespace,
// SLO, objective name or index, group labels in order of their names, and the
// hash of the canonical SLI, each field with its length in front. A changed
// target keeps the identity, a changed SLI does not (R28).
func ObjectiveID(cluster, namespace, slo, objective string, group map[string]string, sli SLI) ID {
	h := sha256.New()
	field := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	field(cluster)
	field(namespace)
	field(slo)
	field(objective)
	field(strconv.Itoa(len(group)))
	names := make([]string, 0, len(group))
	for n := range group {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		field(n)
		field(group[n])
	}
	sum := sha256.Sum256([]byte(sli.Canonical()))
	field(string(sum[:]))
	var id ID
	copy(id[:], h.Sum(nil))
	return id
}
