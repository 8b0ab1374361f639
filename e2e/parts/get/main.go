// Command get fills the cache of parts ahead of the tests, so that they wait
// for no build, and tells its progress on standard output. Arguments are
// "tests" (the default) and "bench".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"nines/e2e/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	sets := os.Args[1:]
	if len(sets) == 0 {
		sets = []string{"tests"}
	}
	var wanted []parts.Part
	for _, set := range sets {
		switch set {
		case "tests":
			wanted = slices.Concat(wanted, parts.Tests)
		case "bench":
			wanted = slices.Concat(wanted, parts.Bench)
		default:
			fmt.Fprintf(os.Stderr, "get: there is no set of parts %q; take tests or bench\n", set)
			os.Exit(2)
		}
	}
	for _, p := range wanted {
		if _, err := parts.Get(ctx, p, func(line string) { fmt.Println("parts:", line) }); err != nil {
			fmt.Fprintln(os.Stderr, "get:", err)
			os.Exit(1)
		}
	}
}
