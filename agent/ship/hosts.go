package ship

import (
	"context"
	"sync"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
)

// hosts are the addresses of the destination. The client's own pool chooses
// among those that answer and tries the others again after a minute, later
// after two, four and so on; hosts knows which did not answer their newest
// request. There is no sniffing: behind a Service the nodes' own addresses
// often cannot be reached.
type hosts struct {
	elastictransport.ConnectionPool

	mu     sync.Mutex // guards silent
	silent map[*elastictransport.Connection]bool
	all    int
}

func newHosts(conns []*elastictransport.Connection, s elastictransport.Selector) (*hosts, error) {
	pool, err := elastictransport.NewConnectionPool(conns, s)
	if err != nil {
		return nil, err
	}
	return &hosts{ConnectionPool: pool, silent: map[*elastictransport.Connection]bool{}, all: len(conns)}, nil
}

// OnSuccess implements elastictransport.ConnectionPool.
func (h *hosts) OnSuccess(c *elastictransport.Connection) error {
	h.mu.Lock()
	delete(h.silent, c)
	h.mu.Unlock()
	return h.ConnectionPool.OnSuccess(c)
}

// OnFailure implements elastictransport.ConnectionPool.
func (h *hosts) OnFailure(c *elastictransport.Connection) error {
	h.mu.Lock()
	h.silent[c] = true
	h.mu.Unlock()
	return h.ConnectionPool.OnFailure(c)
}

// Close implements elastictransport.CloseableConnectionPool.
func (h *hosts) Close(ctx context.Context) error {
	if p, ok := h.ConnectionPool.(elastictransport.CloseableConnectionPool); ok {
		return p.Close(ctx)
	}
	return nil
}

func (h *hosts) unreachable() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.silent)
}

// others says whether there is an address that is not known to be silent.
func (h *hosts) others() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.silent) < h.all
}
