package sla

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestObjectiveIDIsStable(t *testing.T) {
	sli := SLI{Good: `sum(rate(ok[5m]))`, Total: `sum(rate(all[5m]))`}
	// Ledgers hold these: a change here orphans every book.
	for _, c := range []struct {
		id    ID
		want  string
		where string
	}{
		{ObjectiveID("", "", "checkout", "0", nil, sli), "ea582c5cd4c440ca", "without namespace"},
		{ObjectiveID("eu", "shop", "checkout", "three nines", map[string]string{"b": "2", "a": "1"}, sli), "35493b69b16fb6d7", "with all fields"},
		{ObjectiveID("", "", "checkout", "0", nil, SLI{Bad: sli.Good, Total: sli.Total}), "57e80a3835449e8a", "of bad events"},
	} {
		if got := c.id.String(); got != c.want {
			t.Errorf("id %s is %s, want %s", c.where, got, c.want)
		}
	}
}

func TestObjectiveIDTellsEveryFieldApart(t *testing.T) {
	a, b := SLI{Good: "x", Total: "y"}, SLI{Bad: "x", Total: "y"}
	seen := map[ID]int{}
	for i, id := range []ID{
		ObjectiveID("", "n", "s", "o", nil, a),
		ObjectiveID("c", "n", "s", "o", nil, a),
		ObjectiveID("n", "", "s", "o", nil, a),
		ObjectiveID("", "ns", "", "o", nil, a), // the fields do not run into each other
		ObjectiveID("", "n", "so", "", nil, a),
		ObjectiveID("", "n", "", "so", nil, a),
		ObjectiveID("", "n", "s", "o", map[string]string{"k": "v"}, a),
		ObjectiveID("", "n", "s", "o", map[string]string{"kv": ""}, a),
		ObjectiveID("", "n", "s", "o", map[string]string{"k": "v", "l": "w"}, a),
		ObjectiveID("", "n", "s", "o", nil, b), // good and bad mean the opposite
		ObjectiveID("", "n", "s", "o", nil, SLI{Good: "y", Total: "x"}),
		ObjectiveID("", "n", "s", "o", nil, SLI{Good: `x" bad="`, Total: "y"}),
	} {
		if old, twice := seen[id]; twice {
			t.Errorf("cases %d and %d have the same id %s", old, i, id)
		}
		seen[id] = i
	}
}

func TestObjectiveIDIsReadBackFromItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want ID
		copy(want[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "id"))
		got, err := ParseID(want.String())
		if err != nil || got != want {
			t.Fatalf("%s was read as %s, %v", want, got, err)
		}
		data, err := json.Marshal(map[ID]ID{want: want})
		if err != nil {
			t.Fatal(err)
		}
		var back map[ID]ID
		if err := json.Unmarshal(data, &back); err != nil || back[want] != want {
			t.Fatalf("%s was read as %v, %v", data, back, err)
		}
	})
	for _, s := range []string{"", "00", "00000000000000zz", "000000000000000000", "0000000000000000 "} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("%q was read as id %s", s, id)
		}
	}
}

func TestWindowIsSaidInWords(t *testing.T) {
	for _, c := range []struct {
		w    Window
		want string
	}{
		{Window{Rolling: 30 * 24 * time.Hour}, "30 days"},
		{Window{Rolling: time.Hour}, "1 h"},
		{Window{Calendar: Month, Count: 1, Timezone: "Europe/Berlin"}, "calendar month, Europe/Berlin"},
		{Window{Calendar: Month, Timezone: "UTC"}, "calendar month, UTC"},
		{Window{Calendar: Month, Count: 6, Timezone: "UTC"}, "6 calendar months, UTC"},
	} {
		if got := c.w.String(); got != c.want {
			t.Errorf("%+v is %q, want %q", c.w, got, c.want)
		}
	}
}
