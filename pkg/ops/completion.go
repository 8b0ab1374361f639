package ops

import (
	"flag"
	"fmt"
	"strings"
)

// Shells are those that Completion knows.
var Shells = []string{"bash", "zsh", "fish"}

// CommandLine is what a shell can complete of a program.
type CommandLine struct {
	Program  string
	Options  *flag.FlagSet // without a command; nil where there are none
	Commands []CommandWords
}

// CommandWords is what a shell can complete of one command.
type CommandWords struct {
	Name, Summary string
	Options       *flag.FlagSet // see Options for their usage texts; nil where there are none
	Operands      []string      // the words that its first argument may be; files where empty
}

// Completion returns a script that teaches a shell to complete the program. It
// is small because it knows no more than the table of commands: options and
// their words, and files for everything else.
func Completion(shell string, line CommandLine) (string, error) {
	switch shell {
	case "bash":
		return bashCompletion(line), nil
	case "zsh":
		return zshCompletion(line), nil
	case "fish":
		return fishCompletion(line), nil
	}
	return "", fmt.Errorf("there is no completion for %q: choose bash, zsh or fish", shell)
}

// option is one option as a shell sees it.
type option struct {
	name, hint string
	words      []string // what its value may be
	flag       bool     // it has no value
}

func optionsOf(fs *flag.FlagSet) (out []option) {
	if fs == nil {
		return nil
	}
	fs.VisitAll(func(f *flag.Flag) {
		o := option{name: f.Name, hint: f.Usage}
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok {
			o.flag = b.IsBoolFlag()
		}
		if strings.Contains(f.Usage, "|") {
			o.words = strings.Split(f.Usage, "|")
		}
		out = append(out, o)
	})
	return out
}

// namesFiles reports whether the value of an option is a file or folder, also
// where it may be something else.
func (o option) namesFiles() bool {
	for _, w := range []string{"FILE", "DIR", "PATH", "FOLDER"} {
		if strings.Contains(o.hint, w) {
			return true
		}
	}
	return false
}

// choices are the words among a value's alternatives that can be typed as they are.
func (o option) choices() (out []string) {
	for _, w := range o.words {
		if w != strings.ToUpper(w) {
			out = append(out, w)
		}
	}
	return out
}

func (line CommandLine) function() string {
	return "_" + strings.ReplaceAll(line.Program, "-", "_")
}

func (line CommandLine) names() (out []string) {
	for _, c := range line.Commands {
		out = append(out, c.Name)
	}
	return out
}

func bashCompletion(line CommandLine) string {
	var values, opts, operands strings.Builder
	one := func(command string, fs *flag.FlagSet) {
		var names []string
		for _, o := range optionsOf(fs) {
			names = append(names, "--"+o.name)
			if o.flag {
				continue
			}
			// An empty answer makes the shell offer files.
			reply := "return"
			if words := o.choices(); len(words) > 0 {
				reply = fmt.Sprintf(`COMPREPLY=($(compgen -W "%s" -- "$cur")); return`, strings.Join(words, " "))
			}
			fmt.Fprintf(&values, "    \"%s:--%s\") %s ;;\n", command, o.name, reply)
		}
		names = append(names, "--help")
		fmt.Fprintf(&opts, "      \"%s\") words=\"%s\" ;;\n", command, strings.Join(names, " "))
	}
	one("", line.Options)
	for _, c := range line.Commands {
		one(c.Name, c.Options)
		if len(c.Operands) > 0 {
			fmt.Fprintf(&operands, "    \"%s\") words=\"%s\" ;;\n", c.Name, strings.Join(c.Operands, " "))
		}
	}
	return fmt.Sprintf(`# Completion of %[1]s for bash. Take it into ~/.bashrc:
#   source <(%[1]s completion bash)
%[2]s() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= words= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      %[3]s) command=${COMP_WORDS[i]}; break ;;
    esac
  done
  case $command:$prev in
%[4]s  esac
  if [[ $cur == -* ]]; then
    case $command in
%[5]s    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    return
  fi
  case $command in
    "") words="%[6]s" ;;
%[7]s  esac
  if [[ -z $command || $prev == "$command" ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
complete -o default -F %[2]s %[1]s
`, line.Program, line.function(), strings.Join(line.names(), "|"), values.String(), opts.String(), strings.Join(line.names(), " "), operands.String())
}

func zshCompletion(line CommandLine) string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	specs := func(fs *flag.FlagSet) (out []string) {
		for _, o := range optionsOf(fs) {
			spec := "*--" + o.name
			if !o.flag {
				action := " "
				if words := o.choices(); len(words) > 0 {
					action = "(" + strings.Join(words, " ") + ")"
				} else if o.namesFiles() {
					action = "_files"
				}
				spec += ":" + o.hint + ":" + action
			}
			out = append(out, quote(spec))
		}
		return out
	}
	var described, cases strings.Builder
	for _, c := range line.Commands {
		fmt.Fprintf(&described, "    %s\n", quote(c.Name+":"+strings.ReplaceAll(c.Summary, ":", `\:`)))
		args := append(specs(c.Options), quote("*:file:_files"))
		if len(c.Operands) > 0 {
			args[len(args)-1] = quote("1:what:(" + strings.Join(c.Operands, " ") + ")")
			args = append(args, quote("*:file:_files"))
		}
		fmt.Fprintf(&cases, "    %s) _arguments %s ;;\n", c.Name, strings.Join(args, " "))
	}
	root := strings.Join(append(specs(line.Options), quote("*:file:_files")), " ")
	return fmt.Sprintf(`#compdef %[1]s
# Completion of %[1]s for zsh. Write it into a folder of $fpath:
#   %[1]s completion zsh > ~/.zfunc/%[2]s
%[2]s() {
  local -a commands
  commands=(
%[3]s  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  local command=$words[2]
  if (( $commands[(I)$command:*] )); then
    shift words
    (( CURRENT-- ))
  fi
  case $command in
%[4]s    *) _arguments %[5]s ;;
  esac
}
if [[ $funcstack[1] == %[2]s ]]; then
  %[2]s "$@"
else
  compdef %[2]s %[1]s
fi
`, line.Program, line.function(), described.String(), cases.String(), root)
}

func fishCompletion(line CommandLine) string {
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Completion of %[1]s for fish. Write it into a folder that fish reads:\n#   %[1]s completion fish > ~/.config/fish/completions/%[1]s.fish\n", line.Program)
	options := func(when string, fs *flag.FlagSet) {
		for _, o := range optionsOf(fs) {
			fmt.Fprintf(&b, "complete -c %s -n %s -l %s", line.Program, quote(when), o.name)
			switch words := o.choices(); {
			case o.flag:
			case len(words) > 0:
				fmt.Fprintf(&b, " -x -a %s", quote(strings.Join(words, " ")))
			case o.namesFiles():
				b.WriteString(" -r -F")
			default:
				b.WriteString(" -x")
			}
			if !o.flag {
				fmt.Fprintf(&b, " -d %s", quote(o.hint))
			}
			b.WriteString("\n")
		}
	}
	options("__fish_use_subcommand", line.Options)
	for _, c := range line.Commands {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -f -a %s -d %s\n", line.Program, c.Name, quote(c.Summary))
		seen := "__fish_seen_subcommand_from " + c.Name
		options(seen, c.Options)
		if len(c.Operands) > 0 {
			fmt.Fprintf(&b, "complete -c %s -n %s -f -a %s\n", line.Program, quote(seen), quote(strings.Join(c.Operands, " ")))
		}
	}
	return b.String()
}
