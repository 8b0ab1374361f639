package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example is a command that a document or a help shows.
type example struct {
	place string
	words []string
}

// ours finds a command of ours in a line of a shell: at its beginning, or behind
// source <(. What follows it in the shell is cut off.
var (
	ours   = regexp.MustCompile(`^(?:source <\()?(?:\$ )?(?:bin/)?(nines-(?:aggregator|agent)\b.*)$`)
	goRun  = regexp.MustCompile(`^go run \./(aggregator|agent)\b`)
	behind = regexp.MustCompile(`\)?\s*(?:#\s.*|[|>&)].*)?$`)
	inline = regexp.MustCompile("(?s)`((?:nines-aggregator|go run \\./aggregator)[^`]*)`")
)

func commandIn(line string) []string {
	line = goRun.ReplaceAllString(strings.TrimSpace(line), "nines-$1")
	m := ours.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	return strings.Fields(behind.ReplaceAllString(m[1], ""))
}

// documented returns the commands in blocks of the documents, and those within
// their text.
func documented(t *testing.T) (shown, mentioned []example) {
	t.Helper()
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil || len(paths) < 4 {
		t.Fatalf("%d documents, %v", len(paths), err)
	}
	for _, path := range append(paths, "../README.md", "../CONTRIBUTING.md") {
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(string(doc)) {
			for i, line := range strings.Split(b.text, "\n") {
				if words := commandIn(line); words != nil && b.kind != "" && b.kind != "text" {
					shown = append(shown, example{fmt.Sprintf("%s, block %s, line %d", path, b.kind, i+1), words})
				}
			}
			if b.kind != "" {
				continue
			}
			for _, m := range inline.FindAllStringSubmatch(b.text, -1) {
				if words := commandIn(strings.Join(strings.Fields(m[1]), " ")); words != nil {
					mentioned = append(mentioned, example{path, words})
				}
			}
		}
	}
	return shown, mentioned
}

// executed returns the commands of the scripts and the tutorial.
func executed(t *testing.T) (out []example) {
	t.Helper()
	line := regexp.MustCompile(`^(?:! )?(?:exec|exits \d) (nines-.*?)(?: &\w*&?)?$`)
	for _, dir := range []string{"testdata/script", "../agent/testdata/script"} {
		scripts, err := filepath.Glob(dir + "/*.txtar")
		if err != nil || len(scripts) == 0 {
			t.Fatalf("%d scripts in %s, %v", len(scripts), dir, err)
		}
		for _, path := range scripts {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range strings.Split(string(text), "\n") {
				if m := line.FindStringSubmatch(l); m != nil {
					out = append(out, example{path, strings.Fields(m[1])})
				}
			}
		}
	}
	doc, err := os.ReadFile(tutorial)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks(string(doc)) {
		for _, l := range strings.Split(b.text, "\n") {
			if words := commandIn(l); words != nil && b.kind == "sh" {
				out = append(out, example{tutorial, words})
			}
		}
	}
	return out
}

// placeholder is a word that stands for one of the reader's: FILE, http://HOST:9090.
var placeholder = regexp.MustCompile(`[A-Z]{3,}`)

// begins reports whether a command that is run is the one that is shown, with
// something in place of each placeholder, and perhaps more options behind.
func begins(run, shown []string) bool {
	if len(run) < len(shown) {
		return false
	}
	for i, w := range shown {
		if w != run[i] && !placeholder.MatchString(w) {
			return false
		}
	}
	return true
}

func TestEachCommandThatTheDocumentsShowIsRun(t *testing.T) {
	shown, _ := documented(t)
	runs := executed(t)
	if len(shown) < 15 || len(runs) < 50 {
		t.Fatalf("only %d commands are shown and %d run: they are not found", len(shown), len(runs))
	}
	for _, e := range shown {
		found := false
		for _, r := range runs {
			found = found || begins(r.words, e.words)
		}
		if !found {
			t.Errorf("%s: %q is run by no script: add it to testdata/script/documented.txtar", e.place, strings.Join(e.words, " "))
		}
	}
}

// Commands within the text, and examples of the help, may need what a test has
// not; they name commands and options that there are.
func TestEachCommandThatIsMentionedExists(t *testing.T) {
	shown, mentioned := documented(t)
	all := append(shown, mentioned...)
	for _, c := range commands {
		for _, line := range strings.Split(c.help, "\n") {
			if words := commandIn(line); words != nil {
				all = append(all, example{"help " + c.name, words})
			}
		}
	}
	if len(all) < 40 {
		t.Fatalf("only %d commands are mentioned: they are not found", len(all))
	}
	for _, e := range all {
		if e.words[0] != "nines-aggregator" || len(e.words) == 1 {
			continue
		}
		name, line := e.words[1], strings.Join(e.words, " ")
		if name == "help" || placeholder.MatchString(name) {
			continue
		}
		c := find(name)
		if c == nil {
			t.Errorf("%s: %q: there is no command %s", e.place, line, name)
			continue
		}
		fs := optionsOf(*c, commands)
		for _, o := range optionInText.FindAllString(line, -1) {
			if fs.Lookup(strings.TrimPrefix(o, "--")) == nil && o != "--help" {
				t.Errorf("%s: %q: %s has no option %s", e.place, line, name, o)
			}
		}
	}
}

func TestCommandsAreFoundInLinesOfAShell(t *testing.T) {
	for line, want := range map[string]string{
		"bin/nines-aggregator check my-slos/   # what is wrong":  "nines-aggregator check my-slos/",
		"nines-aggregator convert --to openslo a.yaml > b.yaml":  "nines-aggregator convert --to openslo a.yaml",
		"source <(nines-agent completion bash)":                  "nines-agent completion bash",
		"nines-aggregator check broken.yaml || echo \"code $?\"": "nines-aggregator check broken.yaml",
		"go run ./aggregator check rules/slos/NAME.yaml":         "nines-aggregator check rules/slos/NAME.yaml",
		"make build": "",
	} {
		if got := strings.Join(commandIn(line), " "); got != want {
			t.Errorf("%q: found %q, want %q", line, got, want)
		}
	}
}
