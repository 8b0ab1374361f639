package ship

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// bury makes dead letters of the records with the given IDs.
func (f *fixture) bury(t *testing.T, ids string) {
	t.Helper()
	refuse := map[string]string{}
	for _, id := range strings.Fields(ids) {
		refuse[id] = mappingError
	}
	f.cluster.mu.Lock()
	f.cluster.script = append(f.cluster.script, items(refuse))
	f.cluster.mu.Unlock()
	records := recordsOf(strings.Fields(ids)...)
	for i := range records {
		records[i].Bytes = int64(100 + i)
	}
	got, err := f.Ship(t.Context(), records)
	if err != nil || slices.ContainsFunc(got, func(v Verdict) bool { return v != DeadLettered }) {
		t.Fatal(got, err)
	}
}

// account is what a caller keeps of a redrive, as if it were on disk.
type account struct {
	verdicts map[string]Verdict
	bytes    map[string]int64
	at       Position
	twice    []string
	batches  []Redriven
}

func newAccount() *account {
	return &account{verdicts: map[string]Verdict{}, bytes: map[string]int64{}}
}

func (a *account) each(b Redriven) error {
	for _, r := range b.Records {
		if v, ok := a.verdicts[r.ID]; ok && v != DeadLettered {
			a.twice = append(a.twice, r.ID)
		}
		a.verdicts[r.ID], a.bytes[r.ID] = r.Verdict, r.Bytes
	}
	a.at = b.Position
	a.batches = append(a.batches, b)
	return nil
}

func (f *fixture) letters(t *testing.T) string {
	t.Helper()
	return idsIn(t, linesOf(t, f.folder))
}

func TestRedriveStoresWhatWasRepairedAndKeepsTheRest(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.bury(t, "a b")
		f.bury(t, "c d")
		const other = `{"status":400,"error":{"type":"t","reason":"another error"}}`
		f.cluster.script = []reply{items(map[string]string{"c": other})}
		var a = newAccount()
		sum, err := f.Redrive(t.Context(), a.at, a.each)
		if err != nil || sum != (RedriveSum{Stored: 3, RefusedAgain: 1}) {
			t.Errorf("%+v, %v", sum, err)
		}
		if !maps.Equal(a.verdicts, map[string]Verdict{"a": Stored, "b": Stored, "c": DeadLettered, "d": Stored}) ||
			!maps.Equal(a.bytes, map[string]int64{"a": 100, "b": 101, "c": 100, "d": 101}) {
			t.Errorf("told %v, %v", a.verdicts, a.bytes)
		}
		if b := a.batches; len(b) != 1 || b[0].Done != 4 || b[0].Total != 4 {
			t.Errorf("progress %+v", b)
		}
		lines := linesOf(t, f.folder)
		if len(lines) != 1 || !strings.Contains(lines[0], "another error") || idsIn(t, lines) != "c" {
			t.Errorf("dead letters %q", lines)
		}
		if got := namesIn(t, f.folder); len(got) != 1 {
			t.Errorf("files %q, want one: what is done is removed", got)
		}
		if got := counts(f.set); !strings.Contains(got, "redriven=3") || f.dead.total() != int64(len(lines[0])+1) {
			t.Errorf("counts %q, %d bytes", got, f.dead.total())
		}
		for _, id := range []string{"a", "b", "d"} {
			if want := string(recordsOf(id)[0].Doc); f.cluster.stored[id] != want {
				t.Errorf("stored %s, want %s", f.cluster.stored[id], want)
			}
		}
		// And once more, after another repair.
		sum, err = f.Redrive(t.Context(), a.at, a.each)
		if err != nil || sum != (RedriveSum{Stored: 1}) || f.letters(t) != "" || len(a.twice) != 0 {
			t.Errorf("%+v, %v, letters %q, twice %q", sum, err, f.letters(t), a.twice)
		}
		sum, err = f.Redrive(t.Context(), a.at, a.each)
		if err != nil || sum != (RedriveSum{}) {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

func TestRedriveOfAFolderWithoutLettersIsDoneAtOnce(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		sum, err := f.Redrive(t.Context(), Position{}, func(Redriven) error { return errors.New("called") })
		if err != nil || sum != (RedriveSum{}) || len(f.cluster.seen) != 0 {
			t.Errorf("%+v, %v, %d requests", sum, err, len(f.cluster.seen))
		}
	})
}

func TestLetterOfARecordThatIsThereTwiceIsSentOnce(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.bury(t, "a b")
		f.bury(t, "a c") // a crash came before the checkpoint
		a := newAccount()
		sum, err := f.Redrive(t.Context(), a.at, a.each)
		if err != nil || sum != (RedriveSum{Stored: 3, Repeated: 1}) || len(a.twice) != 0 {
			t.Errorf("%+v, %v, twice %q", sum, err, a.twice)
		}
	})
}

func TestLinesThatAreNoLettersAreKept(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.bury(t, "a")
		if err := f.dead.add([]byte("{\"_id\":\"no document\",\"stream\":\"s\"}\n")); err != nil {
			t.Fatal(err)
		}
		f.bury(t, "b")
		a := newAccount()
		sum, err := f.Redrive(t.Context(), a.at, a.each)
		if err != nil || sum != (RedriveSum{Stored: 2, Unreadable: 1}) || f.letters(t) != "no document" {
			t.Errorf("%+v, %v, letters %q", sum, err, f.letters(t))
		}
	})
}

func TestDocumentThatIsNoJSONIsSentAsItWas(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.cluster.script = []reply{items(map[string]string{"a": mappingError})}
		records := recordsOf("a")
		records[0].Doc = []byte(`{"not": "JSON"`)
		if _, err := f.Ship(t.Context(), records); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Redrive(t.Context(), Position{}, newAccount().each); err != nil || f.cluster.stored["a"] != string(records[0].Doc) {
			t.Errorf("stored %q, %v", f.cluster.stored["a"], err)
		}
	})
}

func TestSecondRedriveIsRefusedWhileOneIsUnderWay(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.bury(t, "a")
		f.cluster.script = []reply{silent}
		var first sync.WaitGroup
		first.Go(func() {
			if sum, err := f.Redrive(t.Context(), Position{}, newAccount().each); err != nil || sum.Stored != 1 {
				t.Errorf("%+v, %v", sum, err)
			}
		})
		synctest.Wait()
		if _, err := f.Redrive(t.Context(), Position{}, newAccount().each); !errors.Is(err, errRedriving) {
			t.Errorf("error %v", err)
		}
		first.Wait()
	})
}

// Wherever a redrive ends, a second one brings each letter to its end, and each
// record is told once as stored.
func TestRedriveThatEndsAnywhereLosesNoLetterAndTellsNoneTwice(t *testing.T) {
	stop := errors.New("killed")
	for end := range 9 {
		for _, forget := range []bool{false, true} { // the batch is told, and the telling gets lost
			t.Run(fmt.Sprintf("%d %v", end, forget), func(t *testing.T) {
				withCluster(t, nil, func(t *testing.T, f *fixture) {
					refuse := map[string]string{}
					var ids []string
					for i := range 4 {
						a, b := fmt.Sprintf("%d-a", i), fmt.Sprintf("%d-b", i)
						f.bury(t, a+" "+b)
						if _, err := f.dead.finish(); err != nil { // a file for each
							t.Fatal(err)
						}
						refuse[b] = mappingError
						ids = append(ids, a, b)
					}
					f.cluster.script = slices.Repeat([]reply{items(refuse)}, 99)
					a, n := newAccount(), 0
					_, err := f.Redrive(t.Context(), a.at, func(b Redriven) error {
						if n++; n > end/2 {
							if end%2 == 0 && !forget {
								return errors.Join(a.each(b), stop)
							}
							return stop
						}
						return a.each(b)
					})
					if end/2 < 4 && !errors.Is(err, stop) {
						t.Fatal(err)
					}
					if _, err := f.Redrive(t.Context(), a.at, a.each); err != nil {
						t.Fatal(err)
					}
					for _, id := range ids {
						want := Stored
						if refuse[id] != "" {
							want = DeadLettered
						}
						if got := a.verdicts[id]; got != want && !(want == Stored && got == AlreadyStored) {
							t.Errorf("%s has verdict %v", id, got)
						}
					}
					letters := strings.Fields(f.letters(t))
					slices.Sort(letters)
					if got := strings.Join(slices.Compact(letters), " "); got != "0-b 1-b 2-b 3-b" || len(a.twice) != 0 {
						t.Errorf("letters %q, told twice %q", got, a.twice)
					}
				})
			})
		}
	}
}

func TestRedriveWhoseContextEndsKeepsItsLetters(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.bury(t, "a b")
		f.cluster.script = []reply{silent}
		ctx, cancel := context.WithTimeout(t.Context(), 1e9)
		defer cancel()
		if _, err := f.Redrive(ctx, Position{}, newAccount().each); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if got := f.letters(t); got != "a b" {
			t.Errorf("letters %q", got)
		}
	})
}

// A position belongs to one file: another folder's must not hide letters.
func TestPositionOfAnotherFileHidesNothing(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.bury(t, "a b")
		sum, err := f.Redrive(t.Context(), Position{File: 1, First: "0123456789abcdef", Offset: 1 << 20}, newAccount().each)
		if err != nil || sum.Stored != 2 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

func TestLargeFileIsRedrivenInBatches(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		var ids []string
		for i := range 2*redriveLetters + 1 {
			ids = append(ids, fmt.Sprint(i))
		}
		f.bury(t, strings.Join(ids, " "))
		a := newAccount()
		if sum, err := f.Redrive(t.Context(), a.at, a.each); err != nil || sum.Stored != len(ids) {
			t.Errorf("%+v, %v", sum, err)
		}
		var sizes, done []int
		for _, b := range a.batches {
			sizes, done = append(sizes, len(b.Records)), append(done, b.Done)
		}
		if !slices.Equal(sizes, []int{redriveLetters, redriveLetters, 1}) || !slices.Equal(done, []int{redriveLetters, 2 * redriveLetters, len(ids)}) {
			t.Errorf("batches of %v, done %v", sizes, done)
		}
	})
}

func TestDeadLettersAreBoundedByTheirBytes(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		f.dead.fileBytes, f.dead.bytes = 1100, 2400 // a letter has 284
		for i := range 20 {
			f.bury(t, fmt.Sprintf("%02d", i))
			if got := f.dead.total(); got > 2400 {
				t.Errorf("%d bytes", got)
			}
		}
		letters := strings.Fields(f.letters(t))
		if n := len(letters); n < 5 || letters[n-1] != "19" || !strings.Contains(counts(f.set), fmt.Sprintf("removed=%d", 20-n)) {
			t.Errorf("letters %q, %s", letters, counts(f.set))
		}
		size := int64(0)
		for _, name := range namesIn(t, f.folder) {
			if info, err := os.Stat(filepath.Join(f.folder, name)); err == nil && strings.HasSuffix(name, ndjsonSuffix) {
				size += info.Size()
			}
		}
		if got := f.dead.total(); got != size {
			t.Errorf("the gauge says %d bytes, the disk %d", got, size)
		}
		again, err := openBook(&book{dir: f.folder, prefix: "dead-letters", fileBytes: 1100, log: quiet})
		if err != nil || again.total() != size {
			t.Errorf("after a restart the gauge says %d bytes, want %d (%v)", again.total(), size, err)
		}
		again.Close()
	})
}

// Letters that are refused again take room. That of the file which is sent
// again must not be made by removing it.
func TestFileThatIsRedrivenIsNotRemovedAsTheOldest(t *testing.T) {
	withCluster(t, nil, func(t *testing.T, f *fixture) {
		var ids []string
		for i := range 1500 {
			ids = append(ids, fmt.Sprint(i))
		}
		f.bury(t, strings.Join(ids, " "))
		f.dead.bytes = f.dead.total() + 1000
		refuse := map[string]string{}
		for _, id := range ids {
			refuse[id] = mappingError
		}
		f.cluster.script = slices.Repeat([]reply{items(refuse)}, 9)
		if sum, err := f.Redrive(t.Context(), Position{}, newAccount().each); err != nil || sum.RefusedAgain != 1500 {
			t.Errorf("%+v, %v", sum, err)
		}
		if n := len(linesOf(t, f.folder)); n != 1500 || strings.Contains(counts(f.set), "removed") {
			t.Errorf("%d letters, %s", n, counts(f.set))
		}
	})
}
