package kubelet

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"nines/pkg/metric"
)

const (
	// maxPods bounds the pods of one summary; nodes have 110 by default, and 500
	// where people raise it.
	maxPods = 2000
	// maxParts bounds the containers and the volumes of one pod.
	maxParts = 200
	// maxName is the longest name that Kubernetes permits for an object
	// (apimachinery, DNS1123SubdomainMaxLength).
	maxName = 253
)

// summary is the part of the kubelet's stats/v1alpha1 that is decoded.
type summary struct {
	Pods []struct {
		Ref struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"podRef"`
		Start      moment `json:"startTime"`
		Containers []struct {
			Name   string  `json:"name"`
			Rootfs storage `json:"rootfs"`
		} `json:"containers"`
		Volumes []struct {
			storage
			Name  string           `json:"name"`
			Claim *json.RawMessage `json:"pvcRef"`
		} `json:"volume"`
		Ephemeral storage `json:"ephemeral-storage"`
	} `json:"pods"`
}

// storage is what is said of one use of a file system.
type storage struct {
	Available  figure `json:"availableBytes"`
	Capacity   figure `json:"capacityBytes"`
	Inodes     figure `json:"inodes"`
	InodesFree figure `json:"inodesFree"`
	InodesUsed figure `json:"inodesUsed"`
	Used       figure `json:"usedBytes"`
}

// figures are in the order of metric.StorageFigures.
func (s storage) figures() [6]figure {
	return [...]figure{s.Available, s.Capacity, s.Inodes, s.InodesFree, s.InodesUsed, s.Used}
}

// figure is a number that may not be there. What is no number of at least 0 is
// not there, and takes nothing else with it.
type figure struct {
	value float64
	known bool
}

// UnmarshalJSON never fails.
func (f *figure) UnmarshalJSON(data []byte) error {
	v, err := strconv.ParseFloat(string(data), 64)
	*f = figure{v, err == nil && v >= 0 && !math.IsInf(v, 0)}
	return nil
}

// moment is a time; the zero one where it is none.
type moment struct{ time.Time }

// UnmarshalJSON never fails.
func (m *moment) UnmarshalJSON(data []byte) error {
	m.Time, _ = time.Parse(`"`+time.RFC3339+`"`, string(data))
	return nil
}

// parseSummary turns the body of /stats/summary into families, and counts the
// pods that it leaves out: those beyond maxPods, and those without a usable
// name. Of two pods of one name, which a node has while a static pod is
// replaced, the one that started later stands.
//
// Left out by intent: volumes of claims (kubelet_volume_stats_* has them),
// projected tokens (kube-api-access-…, a few kilobytes in memory), and logs
// (kubelet_container_log_filesystem_used_bytes has them).
func parseSummary(body []byte) (fams []metric.Family, left int, err error) {
	var s summary
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, 0, fmt.Errorf("the summary of pods is not the JSON of a kubelet: %w", err)
	}
	newest := map[[2]string]int{}
	for i, p := range s.Pods {
		key := [2]string{p.Ref.Namespace, p.Ref.Name}
		before, twice := newest[key]
		switch {
		case !usable(p.Ref.Name) || !usable(p.Ref.Namespace):
			left++
		case !twice && len(newest) == maxPods:
			left++
		case !twice || s.Pods[before].Start.Before(p.Start.Time):
			newest[key] = i
		}
	}
	pod := newStorageFamilies(metric.PodEphemeral)
	container := newStorageFamilies(metric.ContainerWritable)
	volume := newStorageFamilies(metric.PodVolume)
	for i, p := range s.Pods {
		if at, ok := newest[[2]string{p.Ref.Namespace, p.Ref.Name}]; !ok || at != i {
			continue
		}
		of := metric.Labels("namespace", p.Ref.Namespace, "pod", p.Ref.Name)
		pod.add(of, p.Ephemeral)
		seen := map[string]bool{}
		for _, c := range p.Containers {
			if usable(c.Name) && !seen[c.Name] && len(seen) < maxParts {
				seen[c.Name] = true
				container.add(metric.Merge(of, metric.Labels("container", c.Name)), c.Rootfs)
			}
		}
		seen = map[string]bool{}
		for _, v := range p.Volumes {
			if v.Claim == nil && !strings.HasPrefix(v.Name, "kube-api-access-") && usable(v.Name) && !seen[v.Name] && len(seen) < maxParts {
				seen[v.Name] = true
				volume.add(metric.Merge(of, metric.Labels("volume", v.Name)), v.storage)
			}
		}
	}
	return append(append(pod.done(), container.done()...), volume.done()...), left, nil
}

func usable(name string) bool { return name != "" && len(name) <= maxName }

// storageFamilies are the families below one name.
type storageFamilies []metric.Family

func newStorageFamilies(name string) storageFamilies {
	var fams storageFamilies
	for _, end := range metric.StorageFigures() {
		unit := ""
		if strings.HasSuffix(end, "_bytes") {
			unit = "bytes"
		}
		fams = append(fams, metric.Family{Name: name + "_" + end, Type: metric.Gauge, Unit: unit})
	}
	return fams
}

func (s storageFamilies) add(ls []metric.Label, of storage) {
	for i, f := range of.figures() {
		if f.known {
			s[i].Series = append(s[i].Series, metric.Series{Labels: ls, Value: f.value})
		}
	}
}

// done leaves out families without samples.
func (s storageFamilies) done() []metric.Family {
	var out []metric.Family
	for _, f := range s {
		if len(f.Series) > 0 {
			out = append(out, f)
		}
	}
	return out
}
