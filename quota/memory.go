package quota

import (
	"context"
	"strconv"
	"sync"
	"time"
)

const (
	// maxBuckets bounds the memory of a Memory, about 30 MB when full.
	maxBuckets = 1 << 18
	// sweepStep is how many buckets each Take looks at for ones to forget; more
	// than one for each that a Take can add, so that the sweep keeps up.
	sweepStep = 8
)

// Memory keeps the buckets in this process: the store where there is no Redis,
// and the fallback while Redis is away. It is safe for concurrent use.
//
// It holds a bounded number of buckets and never forgets one that is not full,
// for that would refill it. Callers that find no place share one bucket.
type Memory struct {
	start time.Time
	max   int

	mu sync.Mutex
	// fullAt is when each bucket is full again, as time since start.
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
		if debt > limit.Span() { // the limit is lower than when the debt was made
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

// Give implements [Store]. It never fails.
func (m *Memory) Give(_ context.Context, r Result, keys ...string) error {
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

// sweep forgets a few buckets that are full. A map is walked from a random place,
// so each bucket's turn comes.
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

// places returns keys with those for which there is no room replaced by the
// shared bucket of the limit.
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
