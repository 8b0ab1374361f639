package ledger

import (
	"reflect"
	"testing"

	"nines/pkg/sla"
)

func TestR07MarksAreKeptInOrderAndNotChanged(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	first := Mark{Kind: "replica", Key: "c\x00one", At: 1000, Value: "a"}
	second := Mark{Kind: "replica", Key: "c\x00one", At: 2000, Value: "b"}
	before := Mark{Kind: "replica", Key: "c\x00one", At: -5, Value: "z"}
	other := Mark{Kind: "refused", Key: "x", At: 7}
	for _, batch := range []Batch{
		{Term: 1, At: 1, Marks: []Mark{first, other}},
		{Term: 1, At: 2, Marks: []Mark{second, before}},
		{Term: 1, At: 3, Marks: []Mark{first}}, // known: nothing
	} {
		if _, err := b.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	if head := b.Head(); head.Seq != 2 {
		t.Errorf("the book has %d batches, want 2: a mark that is known is no news", head.Seq)
	}
	if _, err := b.Append(Batch{Term: 1, At: 4, Marks: []Mark{{Kind: "replica", Key: "c\x00one", At: 1000, Value: "b"}}}); err == nil {
		t.Error("a mark was changed")
	}
	got, err := b.Marks("replica")
	if want := []Mark{before, first, second}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("marks are %+v, %v; want %+v", got, err, want)
	}
}

func TestR14ASourceThatCameBackHasTwoTimes(t *testing.T) {
	b := open(t, t.TempDir())
	id := sla.ID{1}
	gone := Source{Objective: id, Key: "a", First: 100, Removed: 200, Reason: "scaled down"}
	back := Source{Objective: id, Key: "a", First: 300}
	for i, s := range [][]Source{{{Objective: id, Key: "a", First: 100}}, {gone}, {back, {Objective: id, Key: "b", First: 50}}} {
		if _, err := b.Append(Batch{Term: 1, At: int64(i), Sources: s}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.Sources(id)
	if want := []Source{gone, back, {Objective: id, Key: "b", First: 50}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("sources are %+v, %v; want %+v", got, err, want)
	}
}
