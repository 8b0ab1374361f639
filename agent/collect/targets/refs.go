package targets

import (
	"context"
	"fmt"
	"time"

	"nines/agent/pods"
)

// Reader reads what PodMonitors refer to; *pods.Access does.
type Reader interface {
	Secret(ctx context.Context, namespace, name string) (map[string][]byte, error)
	ConfigMap(ctx context.Context, namespace, name string) (map[string][]byte, error)
	Node(ctx context.Context, name string) (labels, annotations map[string]string, err error)
}

const (
	secrets    = "Secret"
	configMaps = "ConfigMap"

	// refreshEvery is how old what was read may become: a change of a Secret is
	// scraped with by then.
	refreshEvery = 3 * time.Minute
	// retryAfter is when an API server that did not answer is asked again.
	retryAfter = 30 * time.Second
	// readWithin bounds one read: the pods of the node wait for it.
	readWithin = 10 * time.Second
	// maxObjects bounds the objects that are kept at a time, maxHeld what they
	// hold together, in bytes; endpoints that refer to more are not scraped.
	maxObjects = 500
	maxHeld    = 16 << 20
)

// object names a Secret or ConfigMap.
type object struct{ kind, namespace, name string }

func (o object) String() string { return o.kind + " " + o.namespace + "/" + o.name }

// refs keeps what PodMonitors refer to, of those alone that select a pod of this
// node. It belongs to one goroutine.
type refs struct {
	reader Reader
	failed func() // is called for each read that did not succeed

	held map[object]*content
	size int
	used map[object]bool // since begin
	slow bool            // the API server did not answer since begin: it is asked no more
}

// content is what an object holds, or why it cannot be read.
type content struct {
	data map[string][]byte
	err  error
	due  time.Time // when it is read again
}

func newRefs(r Reader, failed func()) *refs {
	return &refs{reader: r, failed: failed, held: map[object]*content{}, used: map[object]bool{}}
}

// begin starts a round; what is not looked at until end is forgotten.
func (r *refs) begin() {
	clear(r.used)
	r.slow = false
}

func (r *refs) end() {
	for o, c := range r.held {
		if !r.used[o] {
			r.drop(o, c)
		}
	}
}

func (r *refs) drop(o object, c *content) {
	delete(r.held, o)
	r.size -= sizeOf(c.data)
}

func sizeOf(data map[string][]byte) (n int) {
	for k, v := range data {
		n += len(k) + len(v)
	}
	return n
}

// look returns the value of a key, reading its object where that is due.
func (r *refs) look(ctx context.Context, w ref, now time.Time) (string, error) {
	r.used[w.object] = true
	c := r.held[w.object]
	if c == nil {
		if len(r.held) >= maxObjects {
			return "", fmt.Errorf("%s: PodMonitors refer to more than %d Secrets and ConfigMaps: use fewer", w.field, maxObjects)
		}
		c = &content{}
		r.held[w.object] = c
	}
	if !now.Before(c.due) && !r.slow {
		r.read(ctx, w.object, c, now)
	}
	switch value, ok := c.data[w.key]; {
	case ok:
		return string(value), nil
	case c.err != nil:
		return "", fmt.Errorf("%s: %w", w.field, c.err)
	case c.due.IsZero():
		return "", fmt.Errorf("%s: %v is not read yet: the API server did not answer; it is asked again", w.field, w.object)
	default:
		return "", fmt.Errorf("%s: %v has no key %q: add it, or correct its name", w.field, w.object, w.key)
	}
}

// read reads an object. One that is not there or must not be read is forgotten;
// where the API server did not answer, what was read before stands.
func (r *refs) read(ctx context.Context, o object, c *content, now time.Time) {
	within, cancel := context.WithTimeoutCause(ctx, readWithin, fmt.Errorf("it did not answer within %v", readWithin))
	defer cancel()
	get := r.reader.Secret
	if o.kind == configMaps {
		get = r.reader.ConfigMap
	}
	data, err := get(within, o.namespace, o.name)
	answered := err == nil || pods.Refused(err)
	if err == nil && r.size-sizeOf(c.data)+sizeOf(data) > maxHeld {
		data, err = nil, fmt.Errorf("%v: what PodMonitors refer to has more than %d MiB together: use smaller Secrets and ConfigMaps", o, maxHeld>>20)
	}
	if err != nil {
		r.failed()
	}
	if !answered {
		r.slow, c.due = true, now.Add(retryAfter)
		if c.data == nil {
			c.err = err
		}
		return
	}
	r.size += sizeOf(data) - sizeOf(c.data)
	c.data, c.err, c.due = data, err, now.Add(refreshEvery)
}
