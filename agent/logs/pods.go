package logs

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nines/agent/pods"
)

// Pods is what records need of this node's pods, which a pods.Watch tells it of.
// Pods that are gone can be found until Retain forgets them, also after a restart.
//
// A pod takes 2 KiB for the most part and 80 KiB at worst, see Pod; a node has
// some hundred. Those that are gone are bounded by maxGone and maxGoneBytes.
type Pods struct {
	log     *slog.Logger
	file    string // that keeps the metadata; empty: none does
	version atomic.Uint64
	synced  atomic.Bool

	mu        sync.Mutex          // guards all below
	byName    map[string][]*entry // by NAMESPACE/NAME; the newest last
	gone      int
	goneBytes int
	changed   bool // the file is old
	unsaved   bool // the file could not be written, and that was told
}

// entry is a pod that is there or was.
type entry struct {
	pod  *Pod
	left time.Time // when it went away; zero: it is there
}

const (
	// maxGone and maxGoneBytes bound the pods that are kept although they are
	// gone; beyond them the one that went first is forgotten.
	maxGone      = 4096
	maxGoneBytes = 16 << 20
	// goneAtLeast is how long a pod is kept that no file is of yet: files of a
	// short-lived one may be found after it.
	goneAtLeast = time.Minute
)

// NewPods knows no pod until it is told of one. The metadata is kept across
// restarts in folder, which exists; empty: it is not.
func NewPods(folder string, log *slog.Logger) *Pods {
	p := &Pods{log: log, byName: map[string][]*entry{}}
	if folder != "" {
		p.file = filepath.Join(folder, "pods.json")
		p.restore(time.Now())
	}
	return p
}

// Run keeps the metadata for the next start, until the context ends and once
// after it. It is called once.
func (p *Pods) Run(ctx context.Context) {
	if p.file == "" {
		return
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.save()
		case <-ctx.Done():
			p.save()
			return
		}
	}
}

// Version changes when the metadata of any pod does.
func (p *Pods) Version() uint64 { return p.version.Load() }

// Synced says whether the pods of this node were listed once: a pod that cannot
// be found then is one that the API server did not know.
func (p *Pods) Synced() bool { return p.synced.Load() }

// Find returns a pod's metadata, nil where it is not known. The uid is the one
// in the pod's folder; an empty one takes the newest pod of that name.
func (p *Pods) Find(namespace, name, uid string) *Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.byName[namespace+"/"+name]
	for _, e := range slices.Backward(list) {
		// A static pod's folder has its hash, and outlives the pod of the API server.
		if uid == "" && e.left.IsZero() || uid != "" && (uid == e.pod.UID || uid == e.pod.Hash) {
			return e.pod
		}
	}
	if uid == "" && len(list) > 0 {
		return list[len(list)-1].pod
	}
	return nil
}

// Retain forgets the pods that are gone and not in use any more. The uid that
// inUse is asked for is that in the name of the pod's folder; it has to speak for
// all that call Find. One goroutine calls Retain now and then.
func (p *Pods) Retain(inUse func(namespace, name, uid string) bool) {
	if !p.Synced() {
		return // which pods are gone is not known yet
	}
	now := time.Now()
	var old []*entry
	p.mu.Lock()
	for _, list := range p.byName {
		for _, e := range list {
			if !e.left.IsZero() && now.Sub(e.left) >= goneAtLeast {
				old = append(old, e)
			}
		}
	}
	p.mu.Unlock()
	// Asked without our lock: whoever answers may hold one, and want ours.
	old = slices.DeleteFunc(old, func(e *entry) bool {
		pod := e.pod
		if pod.Hash != "" {
			return inUse(pod.Namespace, pod.Name, pod.Hash)
		}
		return inUse(pod.Namespace, pod.Name, pod.UID)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range old {
		p.forget(e)
	}
}

// put takes a pod as one that is there; others of its name are gone. Caller
// holds mu.
func (p *Pods) put(pod *Pod, now time.Time) {
	for _, e := range slices.Clone(p.byName[pod.key()]) {
		if e.pod.UID != pod.UID {
			p.leave(e, now)
		}
	}
	p.enter(pod)
}

// enter takes a pod as one that is there. Caller holds mu.
func (p *Pods) enter(pod *Pod) *entry {
	list := p.byName[pod.key()]
	at := slices.IndexFunc(list, func(e *entry) bool { return e.pod.UID == pod.UID })
	var e *entry
	if at < 0 {
		e = &entry{pod: pod}
		p.byName[pod.key()] = append(list, e)
	} else {
		e = list[at]
		pod.inherit(e.pod)
		if e.left.IsZero() && reflect.DeepEqual(e.pod, pod) {
			return e // what records do not carry changes often
		}
		if !e.left.IsZero() {
			p.gone--
			p.goneBytes -= e.pod.size()
		}
		e.pod, e.left = pod, time.Time{}
	}
	p.changed = true
	p.version.Add(1)
	return e
}

// leave moves a pod to those that are gone. Caller holds mu.
func (p *Pods) leave(e *entry, now time.Time) {
	if !e.left.IsZero() {
		return
	}
	e.left = now
	p.gone++
	p.goneBytes += e.pod.size()
	p.changed = true
	for p.gone > maxGone || p.goneBytes > maxGoneBytes {
		var first *entry
		for _, list := range p.byName {
			for _, e := range list {
				if !e.left.IsZero() && (first == nil || e.left.Before(first.left)) {
					first = e
				}
			}
		}
		p.forget(first)
	}
}

// forget drops a pod that is gone, unless it came back. Caller holds mu.
func (p *Pods) forget(e *entry) {
	key := e.pod.key()
	list := p.byName[key]
	at := slices.Index(list, e)
	if at < 0 || e.left.IsZero() {
		return
	}
	p.gone--
	p.goneBytes -= e.pod.size()
	if p.byName[key] = slices.Delete(list, at, at+1); len(list) == 1 {
		delete(p.byName, key)
	}
	p.changed = true
}

// Put takes a pod that is new or did change.
func (p *Pods) Put(o *pods.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(slim(o), time.Now())
}

// Delete takes a pod that is gone, as it was at last.
func (p *Pods) Delete(o *pods.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(p.enter(slim(o)), time.Now())
}

// Replace takes all pods that are there.
func (p *Pods) Replace(all []*pods.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	there := map[string]bool{}
	for _, o := range all {
		pod := slim(o)
		p.put(pod, now)
		there[pod.UID] = true
	}
	var left []*entry
	for _, list := range p.byName {
		for _, e := range list {
			if !there[e.pod.UID] {
				left = append(left, e)
			}
		}
	}
	for _, e := range left { // leave may forget others
		p.leave(e, now)
	}
	if !p.synced.Swap(true) {
		p.version.Add(1) // those who wait for it look again
	}
}
