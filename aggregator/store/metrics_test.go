package store

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nines/pkg/metric"
)

func TestOwnSeriesAreThoseThatAreDocumented(t *testing.T) {
	defs := map[string]metric.Def{}
	for _, d := range metric.All() {
		defs[d.Name] = d
	}
	reg := prometheus.NewRegistry()
	newMetrics(reg)
	showLimits(reg, newLimiter(testLimits, slog.New(slog.DiscardHandler), time.Now))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 13 {
		t.Errorf("%d families, want 13", len(families))
	}
	for _, f := range families {
		d, ok := defs[f.GetName()]
		if !ok || d.Help != f.GetHelp() || d.Type != metric.Type(familyType(f.GetType())) {
			t.Errorf("%s: documented as %+v, help is %q", f.GetName(), d, f.GetHelp())
		}
		for _, l := range f.GetMetric()[0].GetLabel() {
			found := false
			for _, want := range d.Labels {
				found = found || want == l.GetName()
			}
			if !found {
				t.Errorf("%s: label %s is not documented", f.GetName(), l.GetName())
			}
		}
	}
}
