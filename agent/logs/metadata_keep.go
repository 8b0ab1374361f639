package logs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"nines/pkg/ops"
)

const (
	// keepEvery is how far the kept metadata may lag behind what is known.
	keepEvery = 5 * time.Second
	// maxKept is the largest file that is read: all that is kept of the pods that
	// are gone, and as much of those that are there.
	maxKept = 64 << 20

	keptFormat = "nines-pods 1"
)

// kept is the metadata of pods at rest: those that are there, as they may be
// gone by the next start, and those that are gone and still in use.
type kept struct {
	Format string    `json:"format"`
	Pods   []keptPod `json:"pods"` // the oldest first
}

type keptPod struct {
	Pod
	OwnerKind string `json:"owner_kind,omitempty"`
	OwnerName string `json:"owner_name,omitempty"`
}

func encodeKept(pods []*Pod) ([]byte, error) {
	k := kept{Format: keptFormat, Pods: make([]keptPod, 0, len(pods))}
	for _, p := range pods {
		k.Pods = append(k.Pods, keptPod{*p, p.ownerKind, p.ownerName})
	}
	data, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("encode the metadata of pods: %w", err)
	}
	return data, nil
}

func decodeKept(data []byte) ([]*Pod, error) {
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	if k.Format != keptFormat {
		return nil, errors.New("it is of no format that this version knows")
	}
	pods := make([]*Pod, 0, len(k.Pods))
	for i := range k.Pods {
		p := k.Pods[i].Pod
		p.ownerKind, p.ownerName = k.Pods[i].OwnerKind, k.Pods[i].OwnerName
		p.bound()
		if p.Namespace == "" || p.Name == "" || p.UID == "" {
			return nil, errors.New("a pod in it has no name")
		}
		pods = append(pods, &p)
	}
	return pods, nil
}

// readKept returns none where there is no file yet.
func readKept(path string) ([]*Pod, error) {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > maxKept:
		return nil, fmt.Errorf("it has %d bytes, more than any that we write", info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeKept(data)
}

// restore takes the metadata of an earlier run: until the API server lists a
// pod, it counts as gone. A file that cannot be read is replaced by the next.
func (p *Pods) restore(now time.Time) {
	pods, err := readKept(p.file)
	if err != nil {
		p.log.Warn("the metadata of pods that is kept across restarts cannot be read; it is made anew, and records of pods that went away meanwhile carry what their path says",
			"file", p.file, "error", ops.Remedy(err))
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pod := range pods {
		p.leave(p.enter(pod), now)
	}
	p.changed = false
}

// save writes the metadata where it did change. That it cannot be written is
// told once; the next call tries again.
func (p *Pods) save() {
	p.mu.Lock()
	if !p.changed {
		p.mu.Unlock()
		return
	}
	p.changed = false
	var pods []*Pod
	for _, list := range p.byName {
		for _, e := range list {
			pods = append(pods, e.pod)
		}
	}
	p.mu.Unlock()
	data, err := encodeKept(pods)
	if err == nil {
		err = ops.WriteFile(p.file, data, 0o640)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = p.changed || err != nil
	if err != nil && !p.unsaved {
		p.log.Warn("the metadata of pods cannot be kept for the next start; records of pods that go away during a restart will carry what their path says",
			"file", p.file, "error", ops.Remedy(err))
	}
	p.unsaved = err != nil
}
