package ops

import (
	"strings"
	"testing"
)

func TestSizesAreReadWithTheirUnits(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "7": 7, "7B": 7, "32MiB": 32 << 20, "1 GiB": 1 << 30, "3KiB": 3072, "2TiB": 2 << 40, "5kB": 5000, "500MB": 5e8, "1GB": 1e9, "1TB": 1e12} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1MiB", "1.5GiB", "1 mib", "9000000TiB", "1MiBMiB"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "such as 32MiB or 1GiB") {
			t.Errorf("%q is %d, %v", text, s, err)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"", "1", "32MiB", "1 GiB", "500MB", "9999999TiB", "-1B", "1.5GiB", "KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again Size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(s.String())); s < 0 || err != nil || again != s {
			t.Errorf("%q is %d, %v is %d: %v", text, s, s, again, err)
		}
	})
}
