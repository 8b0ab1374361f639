package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Limit bounds one cluster, one namespace or one sender. In an override, 0
// stands for the default's figure.
type Limit struct {
	// Series bounds the series with a sample in the newest hours. Beyond it new
	// ones are refused for good, and those that are there go on. A sender's are
	// those that it was the first to bring since the process began.
	Series int `yaml:"series"`
	// SamplesPerSecond and Burst bound samples: so many are taken at once, and so
	// many a second in the long run. Beyond that a sender's request is put off,
	// and it sends it again. Of a cluster or namespace the samples are refused for
	// good: those of one request are taken all or none, and those of others in it
	// are taken as ever. Stale markers are bounded by as much again on their own.
	//
	// Samples count when they arrive, not by their own time. What agents kept
	// through an outage arrives at once, beside what is new: to lose nothing of it
	// a cluster or namespace needs a burst of its own samples a second times the
	// seconds of the outage, less what SamplesPerSecond gives while it arrives.
	// 1,000,000,000 hold an hour of 277,000 samples a second.
	SamplesPerSecond int `yaml:"samples_per_second"`
	Burst            int `yaml:"burst"`
	// Requests bounds the requests that are in work at once, for senders alone.
	// 0 in the default is half of what all may have.
	Requests int `yaml:"requests"`
}

// ScopeLimits bounds each cluster, each namespace or each sender.
type ScopeLimits struct {
	Default Limit `yaml:"default"`
	// Overrides are by the name of the cluster, by CLUSTER/NAMESPACE or by
	// NAMESPACE (in each cluster that has no entry of its own), or by the
	// sender's address without port.
	Overrides map[string]Limit `yaml:"overrides"`
}

// Limits says how much of the store one party may use, so that it cannot take
// everything from the others. They hold for what comes by remote write, not for
// what this process writes itself.
type Limits struct {
	// Series bounds the series of all together, which is what memory goes by:
	// 3 to 4 KB each (150,000 took 484 MB).
	Series int `yaml:"series"`
	// Requests bounds the remote-write requests of all that are in work at once.
	Requests int `yaml:"requests"`
	// Clusters goes by the label cluster, Namespaces by the labels cluster and
	// namespace; series without a namespace have only a cluster.
	Clusters   ScopeLimits `yaml:"clusters"`
	Namespaces ScopeLimits `yaml:"namespaces"`
	// Senders goes by the address that the connection comes from. What a header
	// says of another address is not trusted. Senders behind one proxy are one.
	Senders ScopeLimits `yaml:"senders"`

	// Labels, LabelName, LabelValue and LabelBytes bound the labels of one
	// series: how many, the bytes of one name and of one value, and the bytes of
	// all.
	Labels     int `yaml:"labels"`
	LabelName  int `yaml:"label_name"`
	LabelValue int `yaml:"label_value"`
	LabelBytes int `yaml:"label_bytes"`
	// Exemplars bounds those of one series in one request; the newest stay.
	Exemplars int `yaml:"exemplars"`
}

// DefaultLimits are far above what a cluster of some hundred nodes sends
// (500,000 series each 15 s are 33,000 samples a second), and what a receiver of
// two cores takes in (some 1.5 million samples a second). The bursts of clusters
// and namespaces hold an hour's outage at the full rate.
func DefaultLimits() Limits {
	return Limits{
		Series:     2_000_000,
		Requests:   16,
		Clusters:   ScopeLimits{Default: Limit{Series: 1_000_000, SamplesPerSecond: 500_000, Burst: 1_000_000_000}},
		Namespaces: ScopeLimits{Default: Limit{Series: 500_000, SamplesPerSecond: 300_000, Burst: 1_000_000_000}},
		Senders:    ScopeLimits{Default: Limit{Series: 1_000_000, SamplesPerSecond: 300_000, Burst: 5_000_000}},
		Labels:     128,
		LabelName:  1 << 10,
		LabelValue: 8 << 10,
		LabelBytes: 32 << 10,
		Exemplars:  100,
	}
}

const (
	maxSeries     = 1 << 30
	maxSamples    = 1 << 30
	maxRequests   = 10_000
	maxOverrides  = 10_000
	maxLabels     = 1 << 10
	maxLabelBytes = 1 << 20
)

// Validate returns all mistakes, each with the field and the remedy.
func (l Limits) Validate() error {
	var errs []error
	between := func(name string, n, least, most int) {
		if n < least || n > most {
			errs = append(errs, fmt.Errorf("limits.%s is %d: give %d to %d", name, n, least, most))
		}
	}
	between("series", l.Series, 1, maxSeries)
	between("requests", l.Requests, 1, maxRequests)
	between("labels", l.Labels, 1, maxLabels)
	between("label_name", l.LabelName, 1, maxLabelBytes)
	between("label_value", l.LabelValue, 1, maxLabelBytes)
	between("label_bytes", l.LabelBytes, 1, maxLabelBytes)
	between("exemplars", l.Exemplars, 1, 10_000)
	for _, scope := range []struct {
		name   string
		limits ScopeLimits
		sender bool
	}{{"clusters", l.Clusters, false}, {"namespaces", l.Namespaces, false}, {"senders", l.Senders, true}} {
		check := func(path string, x Limit, least int) {
			between(path+".series", x.Series, least, maxSeries)
			between(path+".samples_per_second", x.SamplesPerSecond, least, maxSamples)
			between(path+".burst", x.Burst, least, maxSamples)
			between(path+".requests", x.Requests, 0, maxRequests)
			if !scope.sender && x.Requests != 0 {
				errs = append(errs, fmt.Errorf("limits.%s.requests is %d: requests can be bounded for senders alone, set it in senders", path, x.Requests))
			}
		}
		check(scope.name+".default", scope.limits.Default, 1)
		if n := len(scope.limits.Overrides); n > maxOverrides {
			errs = append(errs, fmt.Errorf("limits.%s.overrides has %d entries: at most %d are taken", scope.name, n, maxOverrides))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(scope.limits.Overrides)) {
			path := scope.name + ".overrides." + strconv.Quote(name)
			check(path, scope.limits.Overrides[name], 0)
			if scope.sender && senderName(name) != name {
				errs = append(errs, fmt.Errorf("limits.%s: give the sender's address without a port, such as 10.0.0.7", path))
			}
		}
	}
	return errors.Join(errs...)
}

// of returns the limit of the first of the names that has an override.
func (s ScopeLimits) of(names ...string) Limit {
	for _, name := range names {
		o, ok := s.Overrides[name]
		if !ok {
			continue
		}
		for _, x := range []struct{ to, from *int }{
			{&o.Series, &s.Default.Series}, {&o.SamplesPerSecond, &s.Default.SamplesPerSecond}, {&o.Burst, &s.Default.Burst}, {&o.Requests, &s.Default.Requests},
		} {
			if *x.to == 0 {
				*x.to = *x.from
			}
		}
		return o
	}
	return s.Default
}

// scope says whom a limit is for.
type scope string

const (
	scopeAll       scope = "all"
	scopeCluster   scope = "cluster"
	scopeNamespace scope = "namespace"
	scopeSender    scope = "sender"
)

var scopes = []scope{scopeAll, scopeCluster, scopeNamespace, scopeSender}

// key names the place of a figure in the configuration.
func (s scope) key(name, figure string) string {
	if s == scopeAll {
		return "limits." + figure
	}
	return "limits." + string(s) + "s.overrides." + strconv.Quote(strings.ToValidUTF8(name, "?")) + "." + figure
}
