package quota

import (
	"context"
	"slices"
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

// Take implements [Store]. It never fails, and gives no places.
func (m *Memory) Take(_ context.Context, req Request) (Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.sweep(now)
	buckets := m.places(req.Buckets)

	e := emptiest{enough: true}
	for i, b := range buckets {
		debt := max(0, m.fullAt[b.Key]-now)
		if debt > b.maxDebt() { // the limit was lowered
			debt = b.maxDebt()
			m.fullAt[b.Key] = now + debt
		}
		e.look(i, b.Limit, debt)
	}
	r := Result{Taken: e.enough, Bucket: e.bucket, Limit: buckets[e.bucket].Limit, Debt: e.debt}
	if r.Taken {
		for _, b := range buckets {
			m.fullAt[b.Key] = max(now, m.fullAt[b.Key]) + b.Limit.Interval
		}
		r.Debt += r.Limit.Interval
	}
	return r, nil
}

// Refund implements [Store]. It never fails.
func (m *Memory) Refund(_ context.Context, _ Result, buckets []Bucket) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, b := range m.places(buckets) {
		full, ok := m.fullAt[b.Key]
		if !ok {
			continue
		}
		if full -= b.Limit.Interval; full > now {
			m.fullAt[b.Key] = full
		} else {
			delete(m.fullAt, b.Key)
		}
	}
	return nil
}

func (m *Memory) now() time.Duration { return time.Since(m.start) }

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

// places returns the buckets to use. The shared bucket of the limit stands in for those
// that do not exist yet while there is no room. It keeps the order of the others.
func (m *Memory) places(buckets []Bucket) []Bucket {
	if len(m.fullAt)+len(buckets) <= m.max {
		return buckets
	}
	var places []Bucket
	for _, b := range buckets {
		if _, ok := m.fullAt[b.Key]; !ok {
			b.Key = "shared:" + strconv.FormatInt(int64(b.Limit.Interval), 10)
		}
		if !slices.ContainsFunc(places, func(p Bucket) bool { return p.Key == b.Key }) {
			places = append(places, b)
		}
	}
	return places
}
