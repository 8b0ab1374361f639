package ops

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func TestOptionsMayStandBehindArgumentsAndMistakesNameTheNearest(t *testing.T) {
	parse := func(args ...string) ([]string, string, error) {
		fs := Options("x")
		to := fs.String("target", "", "a|b")
		fs.Int("count", 0, "N")
		rest, err := ParseOptions(fs, args)
		return rest, *to, err
	}
	rest, to, err := parse("one", "--target", "a", "two", "-count=3")
	if err != nil || to != "a" || strings.Join(rest, " ") != "one two" {
		t.Errorf("%v, %q, %v", rest, to, err)
	}
	for args, want := range map[string]string{
		"--traget a": "there is no option --traget; did you mean --target?",
		"--q":        "there is no option --q",
		"--target":   "option --target needs a value",
		"--count x":  `invalid value "x" for option --count: parse error`,
	} {
		if _, _, err := parse(strings.Fields(args)...); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	_, _, err = parse("one", "--help")
	var help HelpError
	if !errors.Is(err, flag.ErrHelp) || !errors.As(err, &help) || help.Options.Lookup("target") == nil {
		t.Errorf("--help is %v, want the options with it", err)
	}
}

// shop is a program with everything that a command line can have.
func shop() CommandLine {
	root := Options("shop")
	root.String("config", "", "FILE")
	sell := Options("sell")
	sell.String("to", "", "anna|ben|URL")
	sell.String("price", "", "N")
	sell.Bool("wrap", false, "")
	return CommandLine{Program: "shop-keeper", Options: root, Commands: []CommandWords{
		{Name: "sell", Summary: "sell: at the customer's price", Options: sell},
		{Name: "count", Summary: "count what is left", Operands: []string{"coins", "goods"}},
	}}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range Shells {
		got, err := Completion(shell, shop())
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "completion."+shell)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(path); err != nil || string(want) != got {
			t.Errorf("%s is not what comes out now (%v; look at the difference after -update):\n%s", path, err, got)
		}
	}
	if _, err := Completion("tcsh", shop()); err == nil {
		t.Error("tcsh is completed")
	}
}

func TestBashOffersWhatFits(t *testing.T) {
	script := filepath.Join(t.TempDir(), "completion")
	text, err := Completion("bash", shop())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{
		"":                           "sell count",
		"c":                          "count",
		"--":                         "--config --help",
		"--config ":                  "", // files
		"--config x.yaml s":          "sell",
		"sell ":                      "", // files
		"sell --":                    "--price --to --wrap --help",
		"sell --to ":                 "anna ben",
		"sell --to b":                "ben",
		"sell --wrap --to anna --p":  "--price",
		"sell --price ":              "",
		"count ":                     "coins goods",
		"count g":                    "goods",
		"count goods ":               "",
		"--config sell.yaml count c": "coins",
	} {
		args := append([]string{"-c", `source "$0"; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _shop_keeper; echo "${COMPREPLY[@]}"`, script, "shop-keeper"}, strings.Split(words, " ")...)
		out, err := exec.Command("bash", args...).CombinedOutput()
		if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != want {
			t.Errorf("after %q bash offers %q, %v; want %q", words, got, err, want)
		}
	}
}
