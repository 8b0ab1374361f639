package metric

import (
	"strings"
	"testing"
)

func TestSeriesAboutCgroupsAreDefinedAsOurs(t *testing.T) {
	for _, d := range cgroupDefs {
		if !strings.HasPrefix(d.Name, "nines_agent_cgroup") || !strings.HasSuffix(d.Help, ".") {
			t.Errorf("%+v", d)
		}
	}
}
