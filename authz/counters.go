package authz

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters is a CounterVec whose children are looked up once each. A child is then found
// without a lock. The vector must have few children and at most three labels.
type counters struct {
	vec *prometheus.CounterVec

	known atomic.Pointer[map[labels]prometheus.Counter] // never changed, but replaced
	mu    sync.Mutex                                    // of those who replace it
}

// labels are the values of the labels of a child.
type labels [3]string

func newCounters(vec *prometheus.CounterVec) *counters {
	c := &counters{vec: vec}
	c.known.Store(new(map[labels]prometheus.Counter))
	return c
}

// WithLabelValues returns the child with these values, as that of CounterVec does.
func (c *counters) WithLabelValues(values ...string) prometheus.Counter {
	var key labels
	n := copy(key[:], values)
	if child, ok := (*c.known.Load())[key]; ok {
		return child
	}
	return c.add(key, n)
}

// add looks up the child whose n values are in key.
func (c *counters) add(key labels, n int) prometheus.Counter {
	child := c.vec.WithLabelValues(key[:n]...)
	c.mu.Lock()
	defer c.mu.Unlock()
	known := maps.Clone(*c.known.Load())
	if known == nil {
		known = make(map[labels]prometheus.Counter)
	}
	known[key] = child
	c.known.Store(&known)
	return child
}
