package authz

import (
	"maps"
	"sync"
	"sync/atomic"
)

// memo computes a value for each key once, and finds it without a lock after that. There
// must be few keys: what a client chooses can't be one.
type memo[K comparable, V any] struct {
	compute func(K) V

	known atomic.Pointer[map[K]V] // never changed, but replaced
	mu    sync.Mutex              // of those who replace it
}

func newMemo[K comparable, V any](compute func(K) V) *memo[K, V] {
	m := &memo[K, V]{compute: compute}
	m.known.Store(&map[K]V{})
	return m
}

func (m *memo[K, V]) get(key K) V {
	if v, ok := (*m.known.Load())[key]; ok {
		return v
	}
	v := m.compute(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	known := maps.Clone(*m.known.Load())
	known[key] = v
	m.known.Store(&known)
	return v
}
