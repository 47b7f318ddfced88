package quota

import (
	"context"
	"strconv"
	"sync"
	"time"
)

const (
	// maxBuckets bounds the size of a Memory; it needs about 30 MB for so many.
	maxBuckets = 1 << 18
	// sweepStep is how many buckets each Take looks at to find full ones. A Take adds
	// two at most, so the sweep keeps up.
	sweepStep = 8
)

// Memory keeps the buckets in this process. It is the store of a gate without Redis,
// and the fallback while Redis is away. It is safe for concurrent use.
//
// It holds a bounded number of buckets. It never forgets a bucket that is not full,
// because that would refill it. Callers for whom there is no room share one bucket.
type Memory struct {
	start time.Time
	max   int

	mu sync.Mutex
	// fullAt is when each bucket will be full, as time since start.
	fullAt map[string]time.Duration
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{start: time.Now(), max: maxBuckets, fullAt: make(map[string]time.Duration)}
}

// Take implements [Store]. It never fails.
func (m *Memory) Take(_ context.Context, limit Limit, keys ...string) (Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.sweep(now)
	keys = m.places(limit, keys)

	var most time.Duration
	for _, key := range keys {
		debt := max(0, m.fullAt[key]-now)
		if debt > limit.Span() { // the limit was lowered
			debt = limit.Span()
			m.fullAt[key] = now + debt
		}
		most = max(most, debt)
	}
	if most+limit.Interval > limit.Span() {
		return Result{Limit: limit, Debt: most}, nil
	}
	for _, key := range keys {
		m.fullAt[key] = max(now, m.fullAt[key]) + limit.Interval
	}
	return Result{Limit: limit, Taken: true, Debt: most + limit.Interval}, nil
}

// Refund implements [Store]. It never fails.
func (m *Memory) Refund(_ context.Context, r Result, keys ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, key := range m.places(r.Limit, keys) {
		full, ok := m.fullAt[key]
		if !ok {
			continue
		}
		if full -= r.Limit.Interval; full > now {
			m.fullAt[key] = full
		} else {
			delete(m.fullAt, key)
		}
	}
	return nil
}

// now is the time since start in whole microseconds, the unit of take.lua.
func (m *Memory) now() time.Duration { return time.Since(m.start).Truncate(time.Microsecond) }

// sweep forgets a few buckets that are full. Go walks a map from a random place, so
// the sweep comes to every bucket.
func (m *Memory) sweep(now time.Duration) {
	n := sweepStep
	for key, full := range m.fullAt {
		if full <= now {
			delete(m.fullAt, key)
		}
		if n--; n == 0 {
			return
		}
	}
}

// places returns the keys to use. The shared bucket of the limit stands in for those
// that have no bucket yet while there is no room.
func (m *Memory) places(limit Limit, keys []string) []string {
	if len(m.fullAt)+len(keys) <= m.max {
		return keys
	}
	shared := "shared:" + strconv.FormatInt(int64(limit.Interval), 10)
	var places []string
	used := false
	for _, key := range keys {
		if _, ok := m.fullAt[key]; ok {
			places = append(places, key)
		} else if !used {
			used = true
			places = append(places, shared)
		}
	}
	return places
}
