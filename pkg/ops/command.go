package ops

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"nines/pkg/strictyaml"
)

// The exit codes of both programs.
const (
	ExitDone   = 0
	ExitFailed = 1 // it failed, or found errors in what it was given
	ExitUsage  = 2 // the command line itself is wrong
)

// ExitCodes explains the exit codes, for the help of each command.
const ExitCodes = "Exit codes: 0 done; 1 it failed, or found errors; 2 wrong usage."

// HelpError is what ParseOptions returns where help was asked for. It is
// flag.ErrHelp, and holds the options that the help is about.
type HelpError struct{ Options *flag.FlagSet }

// Error says that help was asked for.
func (e HelpError) Error() string { return flag.ErrHelp.Error() }

// Unwrap returns flag.ErrHelp.
func (e HelpError) Unwrap() error { return flag.ErrHelp }

// Options returns an empty set of options that prints nothing by itself, for
// ParseOptions. The usage text of an option is what its value is: FILE, DIR,
// PATH, another word in capitals, or the words that it may be, as text|json.
func Options(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// ParseOptions reads options, which may stand before and behind the arguments,
// and returns the arguments. Its errors are HelpError, and wrong usage in words,
// with the nearest option where one is not known.
func ParseOptions(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, HelpError{fs}
		} else if err != nil {
			return nil, optionError(fs, err)
		}
		args = fs.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest = append(rest, args[0])
		args = args[1:]
	}
}

// optionError says what package flag found, with our two dashes.
func optionError(fs *flag.FlagSet, err error) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		var known []string
		fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
		return fmt.Errorf("there is no option --%s%s", name, Meant(name, "--", known))
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return fmt.Errorf("option --%s needs a value", name)
	}
	return errors.New(strings.Replace(text, "for flag -", "for option --", 1))
}

// Meant returns "; did you mean …?" with the known word that is nearest, behind
// the prefix, or "" where none is near.
func Meant(word, prefix string, known []string) string {
	if best := strictyaml.Nearest(word, known); best != "" {
		return fmt.Sprintf("; did you mean %s%s?", prefix, best)
	}
	return ""
}
