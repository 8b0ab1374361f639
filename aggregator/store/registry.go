package store

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// registrations passes collectors on and remembers them: to take them back
// when Open fails, and to find one by the name of its metric. It is used by
// Open alone, before other goroutines exist that register.
type registrations struct {
	prometheus.Registerer
	all []prometheus.Collector
}

func (r *registrations) Register(c prometheus.Collector) error {
	if err := r.Registerer.Register(c); err != nil {
		return err
	}
	r.all = append(r.all, c)
	return nil
}

func (r *registrations) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r *registrations) unregisterAll() {
	for _, c := range r.all {
		r.Unregister(c)
	}
	r.all = nil
}

// find returns the collector of the metric with exactly this name, or nil.
func (r *registrations) find(name string) prometheus.Collector {
	for _, c := range r.all {
		descs := make(chan *prometheus.Desc)
		go func() {
			defer close(descs)
			c.Describe(descs)
		}()
		found := false
		for d := range descs {
			found = found || strings.Contains(d.String(), `fqName: "`+name+`"`)
		}
		if found {
			return c
		}
	}
	return nil
}

// counterValue reads a collector of one counter; 0 for nil.
func counterValue(c prometheus.Collector) float64 {
	if c == nil {
		return 0
	}
	ch := make(chan prometheus.Metric, 1)
	c.Collect(ch)
	var m dto.Metric
	if err := (<-ch).Write(&m); err != nil {
		return 0
	}
	return m.GetCounter().GetValue()
}
