package metric

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestDefinitionsFollowTheNamingRules(t *testing.T) {
	all := All()
	if len(all) < 15 {
		t.Fatalf("%d definitions; the lists of agent, logs, aggregator and ledger are not joined", len(all))
	}
	seen := map[string]bool{}
	units := []string{"", "seconds", "bytes", "ratio"}
	for _, d := range all {
		if seen[d.Name] {
			t.Errorf("%s is defined twice", d.Name)
		}
		seen[d.Name] = true
		if !strings.HasPrefix(d.Name, "nines_") {
			t.Errorf("%s does not begin with nines_", d.Name)
		}
		if (d.Type == Counter) != strings.HasSuffix(d.Name, "_total") && !strings.HasPrefix(d.Name, "nines_ledger_") {
			t.Errorf("%s is a %s: counters, and they alone, end in _total", d.Name, d.Type)
		}
		if !slices.Contains(units, d.Unit) {
			t.Errorf("%s has unit %q, want one of %q", d.Name, d.Unit, units)
		}
		if d.Unit != "" && !strings.HasSuffix(strings.TrimSuffix(d.Name, "_total"), "_"+d.Unit) {
			t.Errorf("%s counts %s but its name does not say so at its end", d.Name, d.Unit)
		}
		if !strings.HasSuffix(d.Help, ".") {
			t.Errorf("help of %s does not end with a full stop: %q", d.Name, d.Help)
		}
		for _, l := range d.Labels {
			if slices.Contains([]string{"job", "instance", "cluster", "node", "__name__"}, l) {
				t.Errorf("%s declares label %s, which every sample carries", d.Name, l)
			}
		}
	}
	if !slices.IsSortedFunc(all, func(a, b Def) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("All is not sorted by name")
	}
}

func TestDescribeFillsHelpOfOursAndLeavesOthers(t *testing.T) {
	fams := []Family{{Name: AgentHeartbeats, Type: Unknown}, {Name: "go_goroutines", Type: Unknown}}
	Describe(fams)
	if fams[0].Type != Counter || fams[0].Help == "" {
		t.Errorf("heartbeat is not described: %+v", fams[0])
	}
	if fams[1].Type != Unknown || fams[1].Help != "" {
		t.Errorf("a foreign name was described: %+v", fams[1])
	}
}

func TestMergeLetsTheSecondWinAndSorts(t *testing.T) {
	got := Merge(Labels("node", "x", "cpu", "0"), Labels("node", "y", "cluster", "c"))
	want := []Label{{"cluster", "c"}, {"cpu", "0"}, {"node", "y"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

var page = []Family{
	{Name: "a_seconds", Help: `Back\slash and` + "\nline.", Type: Histogram, Series: []Series{
		{Labels: Labels("le", "0.1"), Value: 2, Suffix: "_bucket"},
		{Labels: Labels("le", "+Inf"), Value: 3, Suffix: "_bucket"},
		{Value: 0.25, Suffix: "_sum"},
		{Value: 3, Suffix: "_count"},
	}},
	{Name: "b_total", Help: "B.", Type: Counter, Series: []Series{
		{Labels: Labels("path", "C:\\x \"q\"\n", "z", "1"), Value: 12345678901234},
	}},
	{Name: "c", Type: Unknown, Series: []Series{{Value: math.Inf(1)}, {Labels: Labels("x", "1"), Value: math.Inf(-1)}}},
}

func TestTextComesBackAsItWasWritten(t *testing.T) {
	var b bytes.Buffer
	if err := WriteText(&b, page); err != nil {
		t.Fatal(err)
	}
	want := `# HELP a_seconds Back\\slash and\nline.
# TYPE a_seconds histogram
a_seconds_bucket{le="0.1"} 2
a_seconds_bucket{le="+Inf"} 3
a_seconds_sum 0.25
a_seconds_count 3
# HELP b_total B.
# TYPE b_total counter
b_total{path="C:\\x \"q\"\n",z="1"} 12345678901234
# TYPE c untyped
c +Inf
c{x="1"} -Inf
`
	if b.String() != want {
		t.Fatalf("got\n%s\nwant\n%s", b.String(), want)
	}
	back, err := ParseText(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, page) {
		t.Errorf("got  %+v\nwant %+v", back, page)
	}
}

func TestDamagedTextGivesNothingButAnError(t *testing.T) {
	fams, err := ParseText([]byte("a 1\nb{ 2\n"))
	if err == nil || fams != nil {
		t.Errorf("got %v, %v; want no families and an error", fams, err)
	}
}

func FuzzParseTextRoundTrip(f *testing.F) {
	var b bytes.Buffer
	if err := WriteText(&b, page); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("# TYPE x summary\nx{quantile=\"0.5\"} 1\nx_sum 2\nx_count 3\n"))
	f.Add([]byte("x 1 1700000000000\ny{a=\"\"} NaN\n"))
	f.Add([]byte("{\"quoted name\",a=\"1\"} 4\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fams, err := ParseText(data)
		if err != nil {
			return
		}
		for _, fam := range fams {
			if len(fam.Series) == 0 {
				t.Fatalf("family %q without samples", fam.Name)
			}
			for _, s := range fam.Series {
				if !slices.IsSortedFunc(s.Labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) }) {
					t.Fatalf("labels of %s are not sorted: %v", fam.Name, s.Labels)
				}
			}
		}
		var b bytes.Buffer
		if err := WriteText(&b, fams); err != nil {
			t.Fatal(err)
		}
	})
}
