package evaluate

import (
	"flag"
	"testing"
)

// SameWorlds makes rapid run the same worlds each time, or as many others as
// -rapid.checks asks for.
func SameWorlds(t *testing.T, checks string) {
	t.Helper()
	if f := flag.Lookup("rapid.checks"); f.Value.String() != f.DefValue {
		return
	}
	for name, v := range map[string]string{"rapid.checks": checks, "rapid.seed": "1"} {
		f := flag.Lookup(name)
		if err := f.Value.Set(v); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
	}
}
