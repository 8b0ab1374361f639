package main

import (
	"flag"
	"regexp"
	"strings"
	"testing"

	"nines/pkg/ops"
)

var optionInText = regexp.MustCompile(`--[a-z][a-z-]*`)

// Help, usage line, completion and what is parsed must not drift apart.
func TestEachOptionIsExplainedAndSaysWhatItsValueIs(t *testing.T) {
	for _, c := range commands {
		fs := optionsOf(c, commands)
		fs.VisitAll(func(f *flag.Flag) {
			if b, ok := f.Value.(interface{ IsBoolFlag() bool }); f.Usage == "" && !(ok && b.IsBoolFlag()) {
				t.Errorf("%s --%s: give it a usage text that says what its value is, such as FILE or text|json", c.name, f.Name)
			}
			if !strings.Contains(c.help+c.args, "--"+f.Name) {
				t.Errorf("%s --%s: its help does not explain it", c.name, f.Name)
			}
		})
		for _, line := range strings.Split(c.args+"\n"+c.help, "\n") {
			if strings.Contains(line, "nines-agent") {
				continue
			}
			for _, o := range optionInText.FindAllString(line, -1) {
				if fs.Lookup(strings.TrimPrefix(o, "--")) == nil {
					t.Errorf("%s: its help speaks of %s, which it does not know: %s", c.name, o, line)
				}
			}
		}
	}
}

func TestEachHelpNamesTheExitCodes(t *testing.T) {
	for _, c := range commands {
		var out strings.Builder
		if code := run(t.Context(), env{&out, &out}, []string{c.name, "--help"}); code != ops.ExitDone || !strings.Contains(out.String(), ops.ExitCodes) {
			t.Errorf("%s --help: exit code %d, and it does not say %q", c.name, code, ops.ExitCodes)
		}
	}
}
