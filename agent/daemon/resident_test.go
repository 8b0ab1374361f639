package daemon

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

// fileResident is RssFile of this process, kB.
func fileResident(t *testing.T) (kb int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &kb); n == 1 {
			return kb
		}
	}
	t.Fatal("this kernel does not tell RssFile")
	return 0
}

func TestPagesOfTheStartAreGivenBackAndTheProgramGoesOn(t *testing.T) {
	d := start(t, local(t)) // much is needed for that
	defer closeUnused(t, d)
	before := fileResident(t)
	dropStart(quiet)
	if after := fileResident(t); after >= before*3/4 {
		t.Errorf("%d kB of files were resident, and %d kB are", before, after)
	}
	if code, body := get(d, "/metrics"); code != 200 || !strings.Contains(body, "nines_agent_heartbeats_total") {
		t.Errorf("%d %.300s", code, body)
	}
}

func TestOnlyCleanPagesOfTheProgramAreDropped(t *testing.T) {
	// Nothing is mapped there: a call for it would fail.
	const mapping = "10000000-10001000 %s 00000000 fe:00 1 %s\nRss: 4 kB\nAnonymous: %d kB\n"
	for name, c := range map[string]struct {
		text string
		call bool
	}{
		"clean":     {fmt.Sprintf(mapping, "r-xp", "/bin/agent", 0), true},
		"changed":   {fmt.Sprintf(mapping, "r--p", "/bin/agent", 4), false},
		"writable":  {fmt.Sprintf(mapping, "rw-p", "/bin/agent", 0), false},
		"a library": {fmt.Sprintf(mapping, "r-xp", "/lib/other", 0), false},
		"no file":   {"10000000-10001000 r-xp 00000000 00:00 0\nAnonymous: 0 kB\n", false},
	} {
		if err := dropClean(bufio.NewScanner(strings.NewReader(c.text)), "/bin/agent"); (err != nil) != c.call {
			t.Errorf("%s: %v", name, err)
		}
	}
}
