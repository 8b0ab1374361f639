package ops

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Size is a number of bytes that may be given as 500MB, 20GB, 2GiB.
type Size int64

// UnmarshalYAML reads a Size.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	t := strings.TrimSpace(n.Value)
	for _, u := range []struct {
		suffix string
		factor int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}, {"", 1}} {
		num, ok := strings.CutSuffix(t, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseInt(strings.TrimSpace(num), 10, 64)
		if err == nil && v >= 0 && v <= (1<<62)/u.factor {
			*s = Size(v * u.factor)
			return nil
		}
		break
	}
	return fmt.Errorf("want a size such as 500MB or 20GiB, got %q", n.Value)
}

// String returns the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range []struct {
		suffix string
		factor Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= u.factor && s%u.factor == 0 {
			return fmt.Sprintf("%d%s", s/u.factor, u.suffix)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}
