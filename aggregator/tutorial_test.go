package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const tutorial = "../docs/tutorial.md"

// block is a fenced block of a document, or the text between two.
type block struct {
	kind string // behind the fence: sh, text, yaml; empty for text between
	text string // without the fences
}

// blocks cuts a document.
func blocks(doc string) (out []block) {
	var text strings.Builder
	kind, fenced := "", false
	for line := range strings.Lines(doc) {
		rest, fence := strings.CutPrefix(line, "```")
		if !fence {
			text.WriteString(line)
			continue
		}
		out = append(out, block{kind, text.String()})
		text.Reset()
		fenced = !fenced
		if kind = ""; fenced {
			kind = strings.TrimSpace(rest)
		}
	}
	return append(out, block{kind, text.String()})
}

// aside is an address that the reader can surely use and a test cannot.
const aside = "127.0.0.1:9190"

var pageLink = regexp.MustCompile(`<http://` + regexp.QuoteMeta(aside) + `(/[^>]*)>`)

var objectiveLink = regexp.MustCompile(`<a href="(/objectives/[0-9a-f]{16})"[^>]*>Checkout answers</a>`)

// The tutorial is run as it is written, by bash, in one folder: each block of
// commands, and compared with the block of text behind it, where "…" stands for
// what is never the same. Only its address is
// replaced, for another program may listen there. The program that keeps
// running does so until the end, and its pages are opened where the text has
// links to them.
func TestTheTutorialRunsAsItIsWritten(t *testing.T) {
	doc, err := os.ReadFile(tutorial)
	if err != nil {
		t.Fatal(err)
	}
	dir, address, served, pages, compared := t.TempDir(), aside, false, 0, 0
	shell := func(text string) *exec.Cmd {
		c := exec.Command("bash", "-e", "-o", "pipefail", "-c", strings.ReplaceAll(text, aside, address))
		c.Dir = dir
		return c
	}
	parts := blocks(string(doc))
	for i, b := range parts {
		switch {
		case b.kind == "" && served:
			for _, m := range pageLink.FindAllStringSubmatch(b.text, -1) {
				pages++
				page := fetch(t, "http://"+address+m[1])
				link := objectiveLink.FindStringSubmatch(page)
				if link == nil {
					t.Fatalf("the page does not show the SLO: %.300s", page)
				}
				if words := fetch(t, "http://"+address+link[1]); !strings.Contains(words, "99.9 % of events are to be good over 30 days.") {
					t.Errorf("its page does not explain it: %.300s", words)
				}
			}
		case b.kind == "sh" && strings.Contains(b.text, "nines-aggregator serve"):
			address = "127.0.0.1:0"
			// exec: the signal at the end is for the program, not for the shell.
			address = serveUntilTheEnd(t, shell("exec "+b.text))
			served = true
		case b.kind == "sh":
			out, err := shell(b.text).CombinedOutput()
			if err != nil {
				t.Fatalf("%s\n%s%v", b.text, out, err)
			}
			if i+2 >= len(parts) || parts[i+2].kind != "text" || strings.TrimSpace(parts[i+1].text) != "" {
				if len(out) > 0 {
					t.Errorf("the tutorial does not show what this prints:\n%s%s", b.text, out)
				}
				continue
			}
			compared++
			if want := &parts[i+2]; *update {
				want.text = keepOpen(want.text, string(out))
			} else if keepOpen(want.text, string(out)) != want.text {
				t.Errorf("%s prints\n%s\nthe tutorial says (go test ./aggregator -update writes it)\n%s", b.text, out, want.text)
			}
		}
	}
	if compared < 5 || pages < 1 {
		t.Errorf("only %d outputs were compared and %d pages opened", compared, pages)
	}
	if *update {
		var out strings.Builder
		for i, b := range parts {
			if i%2 == 0 { // text and blocks take turns
				out.WriteString(b.text)
				continue
			}
			fmt.Fprintf(&out, "```%s\n%s```\n", b.kind, b.text)
		}
		if err := os.WriteFile(tutorial, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// keepOpen returns what was printed, with "…" where what is written has it in
// place of something that is never the same.
func keepOpen(written, printed string) string {
	was := strings.Split(written, "\n")
	out := strings.Split(printed, "\n")
	for i := range min(len(was), len(out)) {
		before, after, open := strings.Cut(was[i], "…")
		if open && strings.HasPrefix(out[i], before) && strings.HasSuffix(out[i], after) {
			out[i] = was[i]
		}
	}
	return strings.Join(out, "\n")
}

var told = regexp.MustCompile(`page +http://(\S+)/`)

// serveUntilTheEnd starts a program that serves and returns its address. At the
// end of the test it is asked to stop, and must do so without an error.
func serveUntilTheEnd(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	var log bytes.Buffer
	c.Stderr = &log
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	t.Cleanup(func() {
		if err := c.Process.Signal(syscall.SIGINT); err != nil {
			t.Errorf("stop it: %v", err)
		}
		for lines.Scan() { // Wait may not be called before all is read
		}
		if err := c.Wait(); err != nil {
			t.Errorf("it stopped with %v: %s", err, log.String())
		}
	})
	for lines.Scan() {
		if m := told.FindStringSubmatch(lines.Text()); m != nil {
			return m[1]
		}
	}
	t.Fatalf("it ended without telling its address: %s", log.String())
	return ""
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}
