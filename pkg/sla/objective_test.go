package sla

import (
	"encoding/json"
	"reflect"
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

func TestGroupIsAnObjectiveOfItsOwn(t *testing.T) {
	template := Objective{
		Cluster: "eu", Namespace: "shop", Service: "checkout", SLO: "checkout", Name: "three nines", Title: "Checkout answers",
		Labels: map[string]string{"tier": "gold"}, Target: target(t, "0.999"), Window: Window{Rolling: 30 * day},
		SLI: SLI{Good: "x", Total: "y"}, GroupBy: []string{"service", "namespace"}, MaxGroups: 10,
	}
	template.ID = ObjectiveID("eu", "shop", "checkout", "three nines", nil, template.SLI)
	before := template.ID
	labels := map[string]string{"namespace": "a", "service": "web", "pod": "not asked for"}
	got := template.ForGroup(labels)
	labels["namespace"] = "changed later"

	want := template
	want.GroupBy, want.MaxGroups = nil, 0
	want.Group = map[string]string{"namespace": "a", "service": "web"}
	want.Title = "Checkout answers: web, a" // in the order of group-by
	want.ID = ObjectiveID("eu", "shop", "checkout", "three nines", want.Group, template.SLI)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if template.ID != before || len(template.GroupBy) != 2 || template.MaxGroups != 10 || template.Group != nil {
		t.Errorf("the template became %+v", template)
	}
	// A label that the series lack is empty, whether it is named or not.
	missing, empty := template.ForGroup(map[string]string{"service": "web"}), template.ForGroup(map[string]string{"service": "web", "namespace": ""})
	if !reflect.DeepEqual(missing, empty) || missing.Title != "Checkout answers: web, no namespace" {
		t.Errorf("without a namespace %+v, with an empty one %+v", missing, empty)
	}
	if template.Title = ""; template.ForGroup(labels).Title != "checkout: web, changed later" {
		t.Errorf("without a title, the group is %q", template.ForGroup(labels).Title)
	}
	// Ledgers hold these: a change here orphans every book.
	if id, other := got.ID.String(), template.ForOther().ID.String(); id != "e4bfca46e43e9c4a" || other != "62bdffff8c3af990" {
		t.Errorf("ids are %s and %s", id, other)
	}
}

// A team may call a service "other".
func TestOtherGroupIsNoGroupOfThatName(t *testing.T) {
	template := Objective{SLO: "s", Name: "0", Title: "S", SLI: SLI{Good: "x", Total: "y"}, GroupBy: []string{"service"}, MaxGroups: 1}
	template.ID = ObjectiveID("", "", "s", "0", nil, template.SLI)
	other := template.ForOther()
	if !other.Other || other.Group != nil || other.GroupBy != nil || other.MaxGroups != 0 || other.Title != "S: other groups" {
		t.Errorf("the rest is %+v", other)
	}
	seen := map[ID]string{template.ID: "the template"}
	for name, o := range map[string]Objective{
		"the rest": other, "group other": template.ForGroup(map[string]string{"service": OtherGroup}),
		"group without a service": template.ForGroup(nil), "group a": template.ForGroup(map[string]string{"service": "a"}),
	} {
		if old, ok := seen[o.ID]; ok {
			t.Errorf("%s has the id of %s", name, old)
		}
		seen[o.ID] = name
	}
}

func TestObjectiveComesBackFromJSON(t *testing.T) {
	template := Objective{SLO: "s", Name: "0", Target: target(t, "0.999"), GroupBy: []string{"b", "a"}, MaxGroups: 7, SLI: SLI{Good: "x", Total: "y"}}
	for _, want := range []Objective{template, template.ForOther(), template.ForGroup(map[string]string{"a": "1"}), {SLO: "old", Target: target(t, "1")}} {
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Objective
		if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s came back as %+v, %v", data, got, err)
		}
	}
}
