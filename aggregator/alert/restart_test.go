package alert

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestTheBeginningOfAnAlertSurvivesARestart(t *testing.T) {
	o, cfg := objective(t), config(t)
	open(t, cfg).tick(noon, burning(o, noon, events))
	for i := range 3 {
		b := open(t, cfg)
		b.want("fast long medium slow")
		now := noon.Add(time.Duration(i+1) * time.Hour)
		b.tick(now, burning(o, now, events))
		for _, a := range b.Firing() {
			if !a.Since.Equal(noon) {
				t.Errorf("restart %d: tier %s fires since %s, want since %s", i+1, a.Tier, a.Since, noon)
			}
		}
		for _, m := range b.messages(now)[1:] {
			if !m.StartsAt.Equal(noon) || !m.EndsAt.After(now) {
				t.Errorf("restart %d: sent as %s to %s, want from %s to after %s", i+1, m.StartsAt, m.EndsAt, noon, now)
			}
		}
	}
}

func TestAnAlertThatEndedWhileWeWereAwayResolvesAfterTheRestart(t *testing.T) {
	o, cfg := objective(t), config(t)
	first := open(t, cfg)
	first.tick(noon, burning(o, noon, events))
	labels := first.messages(noon)[1].Labels

	b := open(t, cfg)
	now := noon.Add(time.Hour)
	b.tick(now, burning(o, now, 0))
	b.want("")
	got := b.messages(now)
	if len(got) != 5 {
		t.Fatalf("%d messages, want the watchdog and four resolved ones", len(got))
	}
	if m := got[1]; !m.EndsAt.Equal(now) || !m.StartsAt.Equal(noon) || fmt.Sprint(m.Labels) != fmt.Sprint(labels) {
		t.Errorf("sent as %+v, want the same labels %v from %s to %s", m, labels, noon, now)
	}

	// A resolve that was sent a moment before the stop is sent on.
	b = open(t, cfg)
	b.tick(now.Add(time.Minute), burning(o, now.Add(time.Minute), 0))
	if got := b.messages(now.Add(time.Minute)); len(got) != 5 || !got[1].EndsAt.Equal(now) {
		t.Errorf("after the second restart: %+v, want four that ended at %s", got, now)
	}
}

func TestARestartWithoutNewSamplesResolvesNothing(t *testing.T) {
	o, cfg := objective(t), config(t)
	open(t, cfg).tick(noon, burning(o, noon, events))
	b := open(t, cfg)
	in := input(o, noon, nil)
	in.Newest = time.Time{} // none since the start
	b.tick(noon.Add(time.Hour), in)
	b.want("fast long medium slow")
}

func TestNothingIsSentBeforeTheFirstTick(t *testing.T) {
	o, cfg := objective(t), config(t)
	open(t, cfg).tick(noon, burning(o, noon, events))
	if got := open(t, cfg).messages(noon); len(got) != 0 {
		t.Errorf("%d messages before anything was judged, want none", len(got))
	}
}

func TestAGarbledStateIsSetAsideAndAlertsBeginAnew(t *testing.T) {
	o := objective(t)
	cfg := config(t)
	open(t, cfg).tick(noon, burning(o, noon, events))
	whole, err := os.ReadFile(filepath.Join(cfg.Dir, "firing.json"))
	if err != nil {
		t.Fatal(err)
	}
	garbled := map[string][]byte{
		"empty":           {},
		"torn":            whole[:len(whole)/2],
		"without its end": whole[:len(whole)-1],
		"zeros":           make([]byte, 4096),
		"two documents":   append(append([]byte{}, whole...), whole...),
		"an object":       []byte(`{}`),
		"null":            []byte(`null`),
		"a null in it":    []byte(`[null]`),
		"a wrong id":      []byte(`[{"objective_id":"xyz","tier":"fast"}]`),
		"without labels":  edited(t, whole, "labels", nil),
		"empty labels":    edited(t, whole, "labels", map[string]string{}),
		"without a tier":  edited(t, whole, "tier", ""),
		"no beginning":    edited(t, whole, "starts_at", "0001-01-01T00:00:00Z"),
	}
	for name, data := range garbled {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			file := filepath.Join(cfg.Dir, "firing.json")
			if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, data, 0o640); err != nil {
				t.Fatal(err)
			}
			b := open(t, cfg)
			b.want("")
			for _, part := range []string{"could not be read and is set aside", "firing.json.broken", "err="} {
				if !strings.Contains(b.log.String(), part) {
					t.Errorf("the log lacks %q:\n%s", part, b.log)
				}
			}
			if kept, err := os.ReadFile(file + ".broken"); err != nil || string(kept) != string(data) {
				t.Errorf("what was set aside is %q, %v; want it as it was", kept, err)
			}
			b.tick(noon, burning(o, noon, events))
			b.want("fast long medium slow")
			open(t, cfg).want("fast long medium slow")
		})
	}
}

func TestATierThatThisVersionDoesNotKnowResolves(t *testing.T) {
	o, cfg := objective(t), config(t)
	open(t, cfg).tick(noon, burning(o, noon, events))
	file := filepath.Join(cfg.Dir, "firing.json")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, edited(t, whole, "tier", "glacial"), 0o640); err != nil {
		t.Fatal(err)
	}
	b := open(t, cfg)
	b.want("glacial long medium slow")
	b.tick(noon, burning(o, noon, events))
	b.want("fast glacial long medium slow")
	now := noon.Add(unseenAfter + time.Second)
	b.tick(now, burning(o, now, events))
	b.want("fast long medium slow")
}

// edited is the state with one field of its first entry changed.
func edited(t *testing.T, data []byte, field string, to any) []byte {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	if _, ok := list[0][field]; !ok {
		t.Fatalf("the state has no field %q: %s", field, data)
	}
	list[0][field] = to
	out, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAStateThatCannotBeKeptIsAnErrorAndAlertsGoOutAllTheSame(t *testing.T) {
	o, cfg := objective(t), config(t)
	b := open(t, cfg)
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	err := b.Tick(noon, []Input{burning(o, noon, events)})
	if err == nil || !strings.Contains(err.Error(), "keep the alerts' state") {
		t.Errorf("tick without its folder: %v, want an error about the state", err)
	}
	b.want("fast long medium slow")
	if got := len(b.messages(noon)); got != 5 {
		t.Errorf("%d messages, want 5", got)
	}
	// It is written as soon as that is possible, though nothing changes any more.
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		t.Fatal(err)
	}
	b.tick(noon, burning(o, noon, events))
	open(t, cfg).want("fast long medium slow")
}

func TestAFolderThatIsAFileIsAnError(t *testing.T) {
	cfg := config(t)
	if err := os.WriteFile(cfg.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), "alerts' state") {
		t.Errorf("New on a file: %v, want an error that names the alerts' state", err)
	}
}

func TestTheStateIsWrittenOnlyWhenItChanges(t *testing.T) {
	o, cfg := objective(t), config(t)
	b := open(t, cfg)
	b.tick(noon, burning(o, noon, events))
	file := filepath.Join(cfg.Dir, "firing.json")
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	b.tick(noon.Add(10*time.Second), burning(o, noon.Add(10*time.Second), events))
	after, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the file was replaced though nothing changed")
	}
}

func TestAClockThatWasSetBackNeitherRejectsNorRevivesAnAlert(t *testing.T) {
	o, cfg := objective(t), config(t)
	b := open(t, cfg)
	b.tick(noon, burning(o, noon, events))
	back := noon.Add(-2 * time.Hour)
	b.tick(back, burning(o, back, events))
	valid := func(when string, now time.Time, firing bool) {
		t.Helper()
		for _, m := range b.messages(now)[1:] {
			if m.EndsAt.Before(m.StartsAt) {
				t.Errorf("%s: sent from %s to %s: Alertmanager rejects an end before the beginning", when, m.StartsAt, m.EndsAt)
			}
			if m.EndsAt.After(now) != firing {
				t.Errorf("%s: sent until %s at %s, want firing=%t", when, m.EndsAt, now, firing)
			}
		}
	}
	valid("firing", back, true)
	b.tick(back.Add(time.Minute), burning(o, back, 0))
	valid("resolved", back.Add(time.Minute), false)
	back = back.Add(-time.Hour) // set back once more
	b.tick(back, burning(o, back, 0))
	valid("resolved in the future", back, false)
	now := back.Add(resolvedFor + 10*time.Second)
	b.tick(now, burning(o, now, 0))
	if got := len(b.messages(now)); got != 1 {
		t.Errorf("%d messages after 15 minutes, want the watchdog alone", got)
	}
}

func FuzzState(f *testing.F) {
	cfg := config(f)
	o := objective(f)
	b := open(f, cfg)
	b.tick(noon, burning(o, noon, events))
	for _, bad := range []int64{events, 0} {
		b.tick(noon, burning(o, noon, bad))
		data, err := os.ReadFile(filepath.Join(cfg.Dir, "firing.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-2])
	}
	f.Add([]byte(`[null]`))
	f.Add([]byte(`[{}]`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decode(data)
		if err != nil {
			if len(list) != 0 {
				t.Fatalf("an error and %d states", len(list))
			}
			return
		}
		again, err := json.Marshal(list)
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, again)
		}
		// What was accepted can be judged and sent.
		a := &Alerter{states: map[string]*state{}, at: noon, started: noon}
		for _, s := range list {
			a.states[s.key()] = s
		}
		for _, m := range a.messages(noon) {
			if m.Labels["alertname"] == "" || m.StartsAt.IsZero() || m.EndsAt.IsZero() || m.EndsAt.Before(m.StartsAt) {
				t.Errorf("an Alertmanager would reject %+v", m)
			}
		}
	})
}
